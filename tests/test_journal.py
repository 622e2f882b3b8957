# SPDX-License-Identifier: Apache-2.0
"""What systemd's journal gets: one line a record, with its priority; a terminal gets neither."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.cli import output as cli_output
from aegis.cli.journal import ERROR, is_journal, priority_of, say
from aegis.events.context import Context
from aegis.events.ecs import Record, to_ecs, to_ecs_notice
from aegis.policy.model import Verdict
from tests.events.factory import HOSTILE, make_event
from tests.pace import HUNG_S

ROOT = Path(__file__).parents[1]


class Journal:
    """A file that is standard output and error, and said to be the journal.

    Not set up by a fixture: pytest gives each test a standard output of its own afterwards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def text_of(self, work: Callable[[], None]) -> list[str]:
        """What *work* writes, by line."""
        with pytest.MonkeyPatch.context() as patch, self.path.open("w") as stream:
            status = os.fstat(stream.fileno())
            patch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            work()
        return self.path.read_text().removesuffix("\n").split("\n")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def show(*records: Record) -> None:
    output = cli_output.Output(as_json=False)
    for record in records:
        output.record(record)
    output.flush()


@pytest.mark.parametrize(
    ("verdict", "priority"),
    [(Verdict.BLOCKED, 4), (Verdict.WOULD_BLOCK, 5), (Verdict.ALLOWED, 6)],
)
def test_an_event_is_one_line_with_its_priority(
    verdict: Verdict, priority: int, journal: Journal
) -> None:
    """`journalctl -p warning` shows what was blocked; the journal has the time already."""
    event = to_ecs(make_event(verdict=verdict), Context())
    [line] = journal.text_of(lambda: show(event))
    word = verdict.value.replace("-", " ").upper()
    assert re.fullmatch(rf"<{priority}>{word} +curl -> 192\.0\.2\.7:443/tcp .*curl -s .*", line)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_name_makes_a_second_line_or_another_priority(name: str, journal: Journal) -> None:
    """Nothing a program is called can steer the journal, or forge a record in it."""
    hostile = f"/srv/{name}\n<0>forged"
    event = to_ecs(make_event(path=hostile, argv=(hostile, name)), Context())
    [line] = journal.text_of(lambda: show(event))
    assert line.startswith("<4>BLOCKED") and line.isprintable()


@pytest.mark.parametrize(
    ("kind", "fields", "priority"),
    [
        ("reloaded", {}, 6),
        ("process-killed", {}, 4),
        ("events-lost", {}, 4),
        ("log-failed", {"event": {"outcome": "failure"}}, 4),
    ],
)
def test_notices_that_ask_for_attention_are_warnings(
    kind: str, fields: Record, priority: int
) -> None:
    assert priority_of(to_ecs_notice(kind, "said", fields, Context())) == priority


def test_what_is_said_to_the_administrator_is_a_notice(journal: Journal) -> None:
    lines = journal.text_of(lambda: cli_output.say("one\ntwo \x1b[2J"))
    assert lines == ["<5>one", "<5>two \\x1b[2J"]


def test_an_error_is_one(tmp_path: Path) -> None:
    """The reason why a service did not start is what `journalctl -p err` is for."""
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        command = [sys.executable, "-m", "aegis", "events", "--file", str(tmp_path / "missing")]
        env = {**os.environ, **journal}
        subprocess.run(command, cwd=ROOT, env=env, stderr=stream, check=False, timeout=HUNG_S)
    assert path.read_text().startswith("<3>aegis: ")


def test_a_terminal_gets_no_priority(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The variable is inherited; only the very stream it names is the journal."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    show(to_ecs(make_event(), Context()))
    cli_output.say("aegis: ready")
    out, err = capfd.readouterr()
    assert "<" not in out and err == "aegis: ready\n"
    assert not is_journal(io.StringIO())


class Failing(io.RawIOBase):
    """Standard error whose first writes fail."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.got = b""

    def writable(self) -> bool:
        return True

    def write(self, raw: Any) -> int:
        if self.times:
            self.times -= 1
            raise OSError(5, "Input/output error")
        self.got += bytes(raw)
        return len(raw)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("times", [0, 1, 9])
def test_a_line_that_fails_once_comes_once(
    times: int, buffered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``PYTHONUNBUFFERED``, too; and where no line ever comes nobody hears of that."""
    raw = Failing(times)
    inner: Any = io.BufferedWriter(raw) if buffered else raw
    stream = io.TextIOWrapper(inner, line_buffering=buffered, write_through=not buffered)
    monkeypatch.setattr(sys, "stderr", stream)
    say("aegis: hear, hear", ERROR)
    assert raw.got == (b"aegis: hear, hear\n" if times < 2 else b"")
    assert (sys.stderr is None) is (times > 1)
    raw.times = 0  # or it fails once more as it is closed
