# SPDX-License-Identifier: Apache-2.0
"""What the system refuses is one line of the command line; a defect of ours is a traceback."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from aegis.cli import load as cli_load
from aegis.cli import main as cli
from aegis.cli import run as cli_run
from aegis.loading import Outcome


def as_asyncio() -> NoReturn:
    """As add_signal_handler() tells of a pipe that failed."""
    try:
        raise OSError(5, "Input/output error")
    except OSError as error:
        raise RuntimeError(str(error))  # noqa: B904


def late_import() -> NoReturn:
    raise ModuleNotFoundError("No module named 'x'")


@pytest.mark.parametrize("work", [as_asyncio, late_import])
def test_it_is_one_line(
    work: Callable[[], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1, whatever Python makes of it."""
    monkeypatch.setattr(cli_run, "run", lambda args: work())
    assert cli.main(["run"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("aegis: the system failed us: ") and said.count("\n") == 1


def test_what_fails_after_a_policy_is_in_force_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no failure of ``aegis load``."""
    done = Outcome(1, "enforce", Path("last-good"), unfinished="no such luck")
    monkeypatch.setattr(cli_load, "load", lambda *_: done)
    monkeypatch.setattr(cli_load, "chosen_cgroup", lambda _: Path("/"))
    monkeypatch.setattr(cli_load, "why_off", str)
    assert cli.main(["load"]) == 0
    in_force, unfinished = capsys.readouterr().err.splitlines()
    assert in_force == "aegis: in force: generation 1, mode enforce, from last-good"
    assert unfinished == "aegis: what was left to do then failed: no such luck"


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would find it."""

    def fail(args: argparse.Namespace) -> NoReturn:
        raise RuntimeError("a defect")

    monkeypatch.setattr(cli_run, "run", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["run"])
