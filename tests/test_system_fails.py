# SPDX-License-Identifier: Apache-2.0
"""What the system refuses is one line of the command line; a defect of ours is a traceback."""

import argparse
from collections.abc import Callable
from typing import NoReturn

import pytest

from aegis.cli import main as cli
from aegis.cli import run as cli_run


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


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would find it."""

    def fail(args: argparse.Namespace) -> NoReturn:
        raise RuntimeError("a defect")

    monkeypatch.setattr(cli_run, "run", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["run"])
