# SPDX-License-Identifier: Apache-2.0
"""``aegis check``: exit status, text for people, JSON for machines."""

import argparse
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from aegis.cli import check
from tests.config.conftest import Etc
from tests.pace import HUNG_S

RUNNER = """
import argparse, sys
from aegis.cli import check
parser = argparse.ArgumentParser(prog="aegis")
check.add_parser(parser.add_subparsers(required=True))
args = parser.parse_args()
sys.exit(args.run(args))
"""


def run(*words: object) -> int:
    parser = argparse.ArgumentParser(prog="aegis")
    check.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["check", *map(str, words)])
    return int(args.run(args))


@pytest.fixture
def good(etc: Etc) -> Path:
    return etc.drop_in("zz-no-such-program.toml", '[[app]]\nports = ["8086"]\n')


@pytest.fixture
def doubtful(etc: Etc) -> Path:
    return etc.drop_in("doubt.toml", '[[app]]\nexe = "no-such-program"\nremote = true\n')


@pytest.fixture
def bad(etc: Etc) -> Path:
    return etc.drop_in("bad.toml", '[[app]]\nprots = ["8086"]\nports = ["0"]\n')


def test_fine(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(good) == 0
    assert capsys.readouterr().out == "ok: 0 errors, 0 warnings; 1 rule in 1 file\n"


def test_warnings_are_no_failure(doubtful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(doubtful) == 0
    line, summary = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{doubtful}:3:1: warning: app.remote: true permits every remote")
    assert summary == "ok: 0 errors, 1 warning; 1 rule in 1 file"


def test_errors_are(bad: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of all files, and what was fine beside them."""
    assert run(bad, good) == 1
    first, second, summary = capsys.readouterr().out.splitlines()
    assert first == f'{bad}:2:1: app.prots: is not a key of [[app]]; did you mean "ports"?'
    assert second.startswith(f'{bad}:3:10: app.ports: "0": there is no port 0')
    assert summary == "error: 2 errors, 0 warnings; 1 rule in 1 file"


def test_a_policy_that_would_not_fit_is_an_error(
    good: Path, etc: Etc, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the agent would refuse for the size of its tables, ``check`` refuses."""
    monkeypatch.setattr("aegis.policy.compile.NETS_MAX", 1)
    large = etc.drop_in("no-such-tool.toml", '[[app]]\nremotes = ["[::/0]:80", "2001:db8::/32"]')
    assert run(good, large) == 1
    error, summary = capsys.readouterr().out.splitlines()
    assert error == f"{large}:1:1: the policy has 3 address prefixes; the limit is 1"
    assert summary.startswith("error: 1 error, ")


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--no-such-option")
    assert caught.value.code == 2
    assert "usage: aegis" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.toml") == 1
    assert "none.toml:1:1: cannot be read: No such file" in capsys.readouterr().out


def test_the_main_file_is_checked_as_the_agent_reads_it(
    etc: Etc, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its owners and modes: what the agent would refuse is an error here."""
    etc.drop_ins.chmod(0o777)
    assert run("-c", etc.main_file) == 1
    assert "writable by" in capsys.readouterr().out


def test_json(doubtful: Path, bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, with every problem at its place."""
    assert run("--json", doubtful, bad) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["rules"], told["files"]) == (False, 1, [str(doubtful)])
    assert [problem["key"] for problem in told["errors"]] == ["app.prots", "app.ports"]
    assert told["errors"][1] == {
        "severity": "error",
        "file": str(bad),
        "line": 3,
        "column": 10,
        "key": "app.ports",
        "message": '"0": there is no port 0; ports go from 1 to 65535',
    }
    assert [problem["key"] for problem in told["warnings"]] == ["app.remote"]


def test_json_lists_what_was_skipped_and_replaced(
    etc: Etc, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[[app]]\nexe = "a"\n[[app]]\nexe = "a"\n'
    etc.main_file.write_text(f'[global]\ninclude_dirs = ["{etc.drop_ins}"]\n{text}')
    assert run("--json", etc.main_file) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert [skipped["path"] for skipped in told["skipped"]] == [str(etc.drop_ins)]
    assert told["replaced"] == [
        {"old": f"{etc.main_file}:3", "new": f"{etc.main_file}:5", "selectors": 'exe = "a"'}
    ]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_hostile_text_does_not_reach_the_terminal(
    etc: Etc, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, values and file names may hold escapes, line ends and overrides of direction."""
    key = "\\u001b[31m\\n\\u202e"
    path = Path(str(etc.drop_ins) + "/\x1b[2J\n\udcff.toml")
    path.write_text(f'[[app]]\n"{key}" = 1\nexe = "{key}/"\nports = ["{key}"]\nuser = "{key}"')
    assert run(*words, path) == 1
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\udcff"} & set(out)
    assert words or len(out.splitlines()) == 5


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Aegis policy"


@pytest.mark.parametrize(("extra", "coloured"), [({}, True), ({"NO_COLOR": ""}, False)])
def test_colours_on_a_terminal_only(bad: Path, extra: dict[str, str], coloured: bool) -> None:
    """On a terminal, unless NO_COLOR is set; never in a pipe (the tests above)."""
    controller, terminal = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm", **extra}
    command = [sys.executable, "-c", RUNNER, "check", str(bad)]
    root = Path(__file__).parents[2]
    subprocess.run(command, stdout=terminal, env=environment, cwd=root, check=False, timeout=HUNG_S)
    os.close(terminal)
    out = os.read(controller, 65536)
    os.close(controller)
    assert b"app.prots" in out
    assert (b"\x1b[31m" in out) is coloured


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_a_guard_that_this_host_cannot_have_is_a_warning(
    etc: Etc,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
) -> None:
    """With its place; unasked, the host is not looked at."""
    monkeypatch.setattr("aegis.bpf.tiers.lacking_lsm", lambda: "bpf is not in the list")
    file = etc.drop_in("guard.toml", f"[global]\ntamper_guard = {wanted}\n")
    assert run(file) == 0
    said = f"{file}:2:1: warning: global.tamper_guard: cannot be carried out on this host: bpf is"
    assert (said in capsys.readouterr().out) is (wanted == "true")
