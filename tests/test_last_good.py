# SPDX-License-Identifier: Apache-2.0
"""The file of the last good policy: whole and ours, or not used and said why."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aegis import last_good
from aegis.bpf.generation import pack_tables
from aegis.cli.main import make_parser
from aegis.config.files import MAIN_FILE
from aegis.config.load import load_lone
from aegis.keeping import Keeper
from aegis.last_good import LastGood, LastGoodError, read, write
from aegis.policy.compile import compile_policy
from aegis.policy.model import Resolution
from aegis.policy.saved import decode, encode
from aegis.policy.tables import Tables
from aegis.trust import Trust
from tests.pace import HUNG_S

POLICY = """
[global]
mode = "enforce"
unconfigured_actions = ["log", "script:ring-the-bell"]
kill_budget = 7

[whitelist]
ips = ["10.0.0.0/8", "192.0.2.9"]
programs = ["chrony", "/usr/bin/apt"]

[[app]]
path = "/usr/bin/t\\u00e9l\\u00e9graf"
user = "root"
ports = ["8086", "8000-8100", "53/udp"]
remotes = ["192.0.2.0/24:443", "2001:db8::1", "bob.com:443", "eve.com"]
peers = ["10.1.0.0/16"]
listen = ["9100"]
sockets = ["raw", "icmp"]
actions = ["log", "kill"]
detent = 300

[[app]]
cmdline = "/usr/bin/python3 /opt/job.py"
unit = "job.service"
local = false
remote = true
strict = true

[[app]]
exe = "quiet"
ignore = true
"""
NAMES = {"bob.com": frozenset({ip_address("192.0.2.7"), ip_address("2001:db8::7")})}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return compile_policy(load_lone(file).policy, Resolution(NAMES, (ip_address("192.0.2.53"),)))


@pytest.fixture
def mine(tmp_path: Path) -> Trust:
    tmp_path.chmod(0o700)
    return Trust(owner=os.getuid(), top=str(tmp_path))


def packed(tables: Tables) -> object:
    """What the kernel is given for *tables*."""
    known: dict[tuple[str, str], int] = {}
    return pack_tables(tables, 1, lambda kind, text: known.setdefault((kind, text), len(known) + 1))


def test_what_is_read_is_what_was_in_force(tables: Tables, tmp_path: Path, mine: Trust) -> None:
    """Byte for byte what the kernel was given; and what names its records."""
    path = tmp_path / "state" / "last-good"
    write(path, LastGood(tables, 12, "a-boot", NAMES))
    good = read(path, mine)
    assert packed(good.tables) == packed(tables)
    assert (good.generation, good.boot, good.names) == (12, "a-boot", NAMES)
    for app, was in zip(good.tables.apps, tables.apps, strict=True):
        assert app.actions == was.actions
        assert (app.rule and app.rule.where) == (was.rule and was.rule.where)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["last-good"]


def test_bytes_that_are_no_text_survive(tables: Tables) -> None:
    """Paths are bytes; what is not UTF-8 in one is kept as os.fsdecode has it."""
    name = os.fsdecode(b'/usr/bin/\xff\n"x')
    document = encode(tables)
    document["selectors"][-1]["path"] = name
    again = decode(json.loads(json.dumps(document)))
    assert again.selectors[-1].path == name


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


def _list(path: Path) -> None:
    path.write_bytes(b"[]\n{}")


def _deep(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def _open(path: Path) -> None:
    path.chmod(0o644)


def _linked(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


def _gone(path: Path) -> None:
    path.unlink()


DAMAGE = [
    pytest.param(_cut, "damaged", id="cut-short"),
    pytest.param(_flip, "damaged", id="one-bit"),
    pytest.param(_empty, "damaged", id="empty"),
    pytest.param(_garbage, "damaged", id="garbage"),
    pytest.param(_list, "damaged", id="other-json"),
    pytest.param(_deep, "damaged", id="too-deep"),
    pytest.param(_open, "open to others", id="others-may-read"),
    pytest.param(_linked, "symbolic link", id="a-link"),
    pytest.param(_gone, "no policy was in force yet", id="not-there"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_file_that_is_not_whole_and_ours_is_refused(
    damage: Callable[[Path], None], said: str, tables: Tables, tmp_path: Path, mine: Trust
) -> None:
    """In one clear line with its path."""
    path = tmp_path / "last-good"
    write(path, LastGood(tables))
    damage(path)
    with pytest.raises(LastGoodError, match=said) as caught:
        read(path, mine)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_another_version_s_file_is_refused(
    tables: Tables, tmp_path: Path, mine: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, but with fields of another meaning."""
    path = tmp_path / "last-good"
    with monkeypatch.context() as patch:
        patch.setattr(last_good, "FORMAT", "0-older")
        write(path, LastGood(tables))
    with pytest.raises(LastGoodError, match="of another version of Aegis"):
        read(path, mine)


@pytest.mark.parametrize("key", ["apps", "ports", "mode", "nets", "selectors"])
def test_a_document_of_another_shape_is_an_error(key: str, tables: Tables) -> None:
    """Never half a policy."""
    for wrong in (None, "x", [[1, 2, 3]], {"a": 1}):
        document: dict[str, Any] = {**encode(tables), key: wrong}
        with pytest.raises(ValueError):
            decode(document)


def test_a_write_that_fails_leaves_the_old_file(
    tables: Tables, tmp_path: Path, mine: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the new policy, not the old one; it is told once, and tried again."""
    path = tmp_path / "last-good"
    write(path, LastGood(tables, 1))
    told: list[str] = []

    async def work() -> None:
        keeper = Keeper(path, dict, lambda kind, _message: told.append(kind))
        work = asyncio.create_task(keeper.keep_forever())
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            keeper.offer(tables, 2)
            await until(lambda: keeper.error is not None)
            keeper.offer(tables, 3)
            await asyncio.sleep(0.1)
        assert read(path, mine).generation == 1
        keeper.offer(tables, 4)
        await until(lambda: keeper.error is None)
        work.cancel()
        keeper.close()

    asyncio.run(work())
    assert read(path, mine).generation == 4
    assert told == ["last-good-not-kept", "last-good-kept"]


def full(_fd: int) -> None:
    raise OSError(28, "No space left on device")


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(HUNG_S):
        while not happened():
            await asyncio.sleep(0.01)


def test_what_a_failed_start_compiled_is_not_kept(tables: Tables, tmp_path: Path) -> None:
    """It was never in force: only once the agent runs is anything written."""
    keeper = Keeper(tmp_path / "last-good", dict, lambda *_: None)
    keeper.offer(tables, 1)
    keeper.close()
    assert list(tmp_path.glob("last-good*")) == []


def test_the_loader_reads_the_same_files_as_the_agent() -> None:
    """Its default is written a second time: importing config's takes too long at boot."""
    assert make_parser(["load"]).parse_args(["load"]).config == MAIN_FILE


def test_the_loader_needs_no_library_to_read_policies() -> None:
    """A broken pydantic, or one that is being upgraded, keeps no policy out of force."""
    look = "import sys, aegis.cli.load; sys.exit(any(m in sys.modules for m in sys.argv[1:]))"
    found = subprocess.run(
        [sys.executable, "-c", look, "pydantic", "tomli", "rich", "sqlite3"], check=False
    )
    assert found.returncode == 0
