# SPDX-License-Identifier: Apache-2.0
"""The command line as policy-language.md promises it."""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.cli import events as cli_events
from aegis.cli import main as cli
from aegis.cli import run as cli_run

ROOT = Path(__file__).parents[1]

# Whoever imports what talks to the kernel ends here.
WITHOUT_BPF = """
import os, sys
sys.modules["aegis._bpf"] = None
from aegis.cli import check, main
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What ``aegis run`` was asked to do, without doing it."""
    found: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        found.append(args)
        return 0

    monkeypatch.setattr(cli_run, "run", run)
    monkeypatch.setattr("aegis.broker.starter.Starter", lambda _say: None)
    return found


def test_a_policy_alone_means_run(asked: list[argparse.Namespace]) -> None:
    """``aegis -c FILE`` is ``aegis run -c FILE``, with whatever follows."""
    assert cli.main(["-c", "/x.toml", "--observe"]) == 0
    assert cli.main(["run", "-c", "/x.toml", "--observe"]) == 0
    one, other = map(vars, asked)
    assert one == other
    assert one["config"] == Path("/x.toml")


def test_the_default_policy_is_the_host_s(asked: list[argparse.Namespace]) -> None:
    """/etc/aegis.toml, where nothing else is said."""
    assert cli.main(["run"]) == 0
    [args] = asked
    assert args.config == Path("/etc/aegis.toml")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that nobody may look into; pytest's are their owner's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.usefixtures("seen_by_nobody")
@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        pytest.param('[[app]]\nports = ["8086"]\n', 0, "ok: 0 errors", id="fine"),
        pytest.param('[[app]]\nprots = ["8086"]\n', 1, 'did you mean "ports"?', id="misspelt"),
    ],
)
def test_check_of_a_file_needs_neither_root_nor_bpf(
    folder: Path, text: str, code: int, said: str
) -> None:
    """Nobody, on a machine where ours cannot even be loaded, checks a file of anybody's."""
    path = folder / "draft"
    path.write_text(text)
    command = [sys.executable, "-c", WITHOUT_BPF, "check", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (finished.returncode, finished.stderr) == (code, "")
    assert said in finished.stdout


def test_the_manual_names_every_option_of_events() -> None:
    """What nobody reads of is not there."""
    parser = argparse.ArgumentParser()
    cli_events.add_parser(parser.add_subparsers())
    [commands] = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
    options = {o for action in commands["events"]._actions for o in action.option_strings}
    manual = (ROOT / "man/aegis.8").read_text()
    synopsis = manual.partition(".Cm events\n")[2].partition("\n.Nm\n")[0]
    named = {f"-{word.split()[2]}" for word in synopsis.splitlines()}
    assert {o for o in options if o not in ("-h", "--help", "--follow")} == named
