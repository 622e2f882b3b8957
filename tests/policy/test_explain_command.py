# SPDX-License-Identifier: Apache-2.0
"""``aegis explain``: real files, real processes, without root."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aegis.cli.main import main
from aegis.policy.model import KERNEL, Identity
from aegis.subject import by_path, by_pid, is_trusted, read_unit

POLICY = """\
[whitelist]
ports = ["443"]

[[app]]
exe = "telegraf"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
user = 12345
remotes = ["localhost:1", "nowhere.invalid:2"]
"""

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "aegis.toml").write_text(POLICY)
    return tmp_path / "aegis.toml"


@pytest.fixture
def ask(config: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: str) -> dict[str, Any]:
        assert main(["explain", "-c", str(config), "--json", *words]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as child:
        # Popen() returns when exec closes its pipe: a moment before the arguments are in place.
        arguments = Path(f"/proc/{child.pid}/cmdline")
        while arguments.read_bytes() != b"sleep\0" + b"60\0":
            time.sleep(0.001)
        yield child.pid
        child.kill()


def test_json_says_all_of_it(ask: Ask, config: Path) -> None:
    """Verdict, actions, file:line, scope, reason, whitelist, changes."""
    found = ask("--exe", "telegraf", "192.0.2.7:25")
    place = f"{config}:4"
    assert found["verdict"] == "blocked" and found["actions"] == ["log", "kill"]
    assert found["rule"] == found["where"] == place
    assert found["scope"] == "remote" and found["reason"] == "rule-denies"
    assert place in found["why"] and found["whitelist"] == "nothing in it matches"
    assert any("remotes" in change["what"] for change in found["changes"])
    assert found["flow"] == {
        "address": "192.0.2.7",
        "port": 25,
        "protocol": "tcp",
        "direction": "out",
        "listening": False,
        "socket": None,
    }


def test_text_says_the_same(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line is the answer; no terminal can be steered by a name in it."""
    assert main(["explain", "-c", str(config), "--exe", "a\x1b[2J", "[::1]:25/udp"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "a\\x1b[2J to [::1]:25/udp: allowed (log, notify)"
    assert "No [[app]] is about this program." in shown
    assert "\x1b" not in shown


def test_inbound_is_the_peer_and_our_port(ask: Ask) -> None:
    """``--in``."""
    found = ask("--exe", "x", "--in", "192.0.2.7:80")
    assert found["flow"]["direction"] == "in" and found["scope"] == "listen"


def test_user_unit_and_cmdline_are_taken(ask: Ask) -> None:
    """By uid or name; the command line joined by one space."""
    found = ask(
        "--exe", "x", "--user", "12345", "--unit", "x.service", "--cmdline", "a  b", "1.1.1.1:1"
    )
    assert found["program"]["uid"] == 12345 and found["program"]["unit"] == "x.service"
    assert found["program"]["argv"] == ["a", "", "b"]
    assert found["rule"].endswith(":9")
    assert ask("--exe", "x", "--user", "root", "1.1.1.1:1")["program"]["uid"] == 0


def test_names_that_allow_nothing_are_told(ask: Ask) -> None:
    """Only those that can matter, with their place."""
    notes = ask("--exe", "x", "--user", "12345", "1.1.1.1:1")["notes"]
    assert any(":11: nowhere.invalid allows nothing" in note for note in notes)
    assert not any("invalid" in note for note in ask("--exe", "x", "1.1.1.1:1")["notes"])


@pytest.mark.parametrize(
    "words",
    [
        ["--exe", "x", "::1:80"],
        ["--exe", "x", "192.0.2.7"],
        ["--exe", "x", "192.0.2.7:65536"],
        ["--exe", "x", "192.0.2:80"],
        ["--exe", "x", "192.0.2.7:80/sctp"],
        ["--exe", "x", "--pid", "1", "192.0.2.7:80"],
        ["192.0.2.7:80"],
        ["--exe", "x", "--user", "no such user", "192.0.2.7:80"],
    ],
)
def test_wrong_usage_is_exit_2(config: Path, words: list[str]) -> None:
    """Before any policy is read."""
    with pytest.raises(SystemExit) as error:
        main(["explain", "-c", str(config), *words])
    assert error.value.code == 2


def test_no_answer_is_exit_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No such policy, a broken one, no such process, a name where a path belongs."""
    ask = ["explain", "-c", str(config), "192.0.2.7:80"]
    assert main([*ask[:2], "/nonexistent", "--exe", "x", ask[3]]) == 1
    assert main([*ask, "--pid", str(2**22 + 1)]) == 1
    assert main([*ask, "--path", "telegraf"]) == 1
    assert main([*ask, "--exe", "/usr/bin/telegraf"]) == 1
    config.write_text('[[app]]\nexe = "x"\nport = ["1"]\n')
    capsys.readouterr()
    assert main([*ask, "--exe", "x"]) == 1
    assert f"{config}:3" in capsys.readouterr().err


def test_a_running_process_is_read(ask: Ask, sleeper: int) -> None:
    """Its file, arguments, user and trust, from /proc."""
    found = ask("--pid", str(sleeper), "192.0.2.7:80")["program"]
    assert found["path"] == os.path.realpath("/usr/bin/sleep")
    assert found["argv"] == ["sleep", "60"] and found["uid"] == os.getuid()
    assert found["trusted"] and found["host_fs"]


def test_a_deleted_or_foreign_file_is_not_taken_for_the_host_s(tmp_path: Path) -> None:
    """The text of /proc/PID/exe alone proves nothing."""
    copy = tmp_path / "sleep"
    copy.write_bytes(Path("/usr/bin/sleep").read_bytes())
    copy.chmod(0o755)
    with subprocess.Popen([copy, "60"]) as child:
        assert by_pid(child.pid).identity.host_fs
        copy.unlink()
        gone = by_pid(child.pid)
        child.kill()
    assert gone.identity.path == str(copy)
    assert not gone.identity.host_fs and not gone.identity.trusted


def test_a_process_in_a_chroot_has_the_path_it_sees_itself_too(tmp_path: Path) -> None:
    """What rules with ``namespace = "any"`` are about; one not in a chroot has none."""
    program = tmp_path / "jail/usr/bin/x"
    program.parent.mkdir(parents=True)
    program.touch()
    entry = tmp_path / "proc/7"
    entry.mkdir(parents=True)
    for name, text in (("cmdline", "x\0"), ("status", "Uid:\t0\t0\t0\t0\n"), ("cgroup", "")):
        (entry / name).write_text(text)
    (entry / "exe").symlink_to(program)
    for root, inner in ((tmp_path / "jail", "/usr/bin/x"), (Path("/"), None),
                        (tmp_path / "jail/usr/b", None)):  # fmt: skip
        (entry / "root").unlink(missing_ok=True)
        (entry / "root").symlink_to(root)
        identity = by_pid(7, tmp_path / "proc").identity
        assert (identity.path, identity.inner_path) == (str(program), inner)


def test_a_path_is_seen_as_the_kernel_will(tmp_path: Path) -> None:
    """Links are followed; trust is the file's; a script is its interpreter."""
    link = tmp_path / "link"
    link.symlink_to(sys.executable)
    real = os.path.realpath(sys.executable)
    found = by_path(str(link), None)
    assert found.identity.path == real and found.identity.exe == Path(real).name
    assert found.identity.argv == (str(link),)
    assert any("is a link" in note for note in found.notes)

    assert by_path(KERNEL, None).identity == Identity(path=KERNEL)

    script = tmp_path / "script"
    script.write_text("#! /bin/sh -e\n")
    found = by_path(str(script), f"{script} a b")
    assert found.identity.path == os.path.realpath("/bin/sh")
    assert found.identity.argv == ("/bin/sh", "-e", str(script), "a", "b")
    assert found.identity.script_index == 2

    script.write_text("#!/usr/bin/env sh\n")
    found = by_path(str(script), None)
    assert found.identity.path == os.path.realpath("/bin/sh")
    assert (found.identity.argv, found.identity.script_index) == (("sh", str(script)), 1)


def test_trust_is_ownership_and_mode(tmp_path: Path) -> None:
    """Root's, and nobody else may write to it; what is not there is assumed and said."""
    file = tmp_path / "x"
    file.touch()
    for mode, trusted in ((0o755, True), (0o775, False), (0o757, False)):
        file.chmod(mode)
        assert by_path(str(file), None).identity.trusted is (trusted and os.getuid() == 0)
    assert not is_trusted(tmp_path.stat())
    found = by_path(str(tmp_path / "absent"), None)
    assert found.identity.trusted and "assumed owned by root" in found.notes[-1]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/telegraf.service\n", "telegraf.service"),
        ("1:name=systemd:/x.service\n0::/system.slice/a.service/sub/group\n", "a.service"),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", "session-2.scope"),
        ("0::/plain/group\n", "group"),
        ("0::/a.service/1/2/3/4/5/6/7/8\n", "a.service"),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/b.service\n", "user@1.service"),
        ("0::/user.slice/user-1.slice/x\n", "user-1.slice"),
        ("0::/\n", None),
        ("1:name=systemd:/x.service\n", None),
    ],
)
def test_the_unit_is_the_outermost_cgroup_named_like_one(text: str, unit: str | None) -> None:
    """As kernel/classify.bpf.h climbs; without one, the process's own directory."""
    assert read_unit(text) == unit


def test_listening_and_sockets_can_be_asked_about(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is decided before anybody connects; and what would allow it."""
    config.write_text(
        '[[app]]\npath = "/usr/bin/x"\nlisten = ["80"]\nactions = ["block"]\n', encoding="utf-8"
    )
    words = ["explain", "-c", str(config), "--path", "/usr/bin/x"]
    assert main([*words, "listen:81/udp"]) == main([*words, "socket:raw"]) == 0
    said = capsys.readouterr().out
    assert "/usr/bin/x to listen on port 81/udp: blocked (block)" in said
    assert "does not list 81/udp in listen." in said
    assert 'with "81/udp" in listen of' in said
    assert "/usr/bin/x to make a raw socket: blocked (block)" in said
    assert "does not list raw in sockets." in said
    assert 'with "raw" in sockets of' in said
    assert main([*words, "listen:80"]) == 0
    assert "to listen on port 80/tcp: allowed, no event" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["listen:70000", "socket:rawr", "listen:x"])
def test_what_cannot_be_listened_on_or_made_is_said(
    text: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "-c", str(config), "--exe", "x", text])
    assert text.split(":")[1] in capsys.readouterr().err


def test_never_kill_is_said_where_a_rule_would_kill(ask: Ask, config: Path) -> None:
    """What is listed is blocked all the same, and explain must not promise more."""
    note = "[global] never_kill lists it: it is blocked and not killed"
    assert note not in ask("--exe", "telegraf", "192.0.2.7:25")["notes"]
    config.write_text(f'[global]\nnever_kill = ["telegraf"]\n{POLICY}')
    assert note in ask("--exe", "telegraf", "192.0.2.7:25")["notes"]
    assert note not in ask("--exe", "telegraf", "192.0.2.7:8086")["notes"]
