# SPDX-License-Identifier: Apache-2.0
"""Events and notices for a person at a terminal, 80 columns wide."""

import unicodedata
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from aegis.events.ecs import Record
from aegis.events.text import printable
from aegis.events.where import text_at, value_at, where

WIDTH = 80
_INDENT = " " * 9  # under what follows the time
_PROGRAM_CELLS = 24
_NAME_CELLS = 40  # of a host
_RESET = "\x1b[0m"
_COLOURS = {
    "allowed": "\x1b[32m",
    "blocked": "\x1b[1;31m",
    "would-block": "\x1b[33m",
    "failure": "\x1b[31m",
    "faint": "\x1b[2m",
}


class Screen(Protocol):
    """What is written to: ``sys.stdout``, or a ``Stream``."""

    @property
    def encoding(self) -> str: ...

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def isatty(self) -> bool: ...


class LiveView:
    """Prints each record to *stream*; in colour if that is a terminal."""

    def __init__(self, stream: Screen, width: int = WIDTH) -> None:
        self._stream = stream
        self._width = width
        self._colour = stream.isatty()

    def show(self, record: Record) -> None:
        """Print *record* at once.

        :raises OSError: if the stream is gone
        """
        for line in format_record(record, self._width, colour=self._colour):
            # A Latin-1 or ASCII terminal gets escapes for what it cannot show.
            encoding = self._stream.encoding or "ascii"
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()


def format_record(record: Record, width: int = WIDTH, *, colour: bool = False) -> list[str]:
    """Return *record* as one or two lines of at most *width* cells.

    Nothing in it can steer a terminal. *colour*: with ANSI colours, which take
    no cells.
    """
    lines = (
        _notice_lines(record) if value_at(record, "aegis.notice") else _event_lines(record, width)
    )
    return [_line(parts, width, colour=colour) for parts in lines]


def one_line(record: Record) -> str:
    """Return *record* as a single line of any length, without the time; nothing in it can steer.

    For the journal, which has times of its own.
    """
    wide = WIDTH * 1000
    lines = (
        _notice_lines(record) if value_at(record, "aegis.notice") else _event_lines(record, wide)
    )
    first, *others = ["".join(text for text, _ in parts).strip() for parts in lines]
    return " ".join((first.removeprefix(_clock(record)).strip(), *others))


Part = tuple[str, str]  # text, already printable, and the name of its colour or ""


def _event_lines(record: Record, width: int) -> list[list[Part]]:
    verdict = text_at(record, "aegis.verdict")
    first: list[Part] = [
        (_clock(record), "faint"),
        (f" {verdict.replace('-', ' ').upper():<11} ", verdict),
        (_cut(text_at(record, "process.name"), _PROGRAM_CELLS), ""),
        (f" {where(record, _short)}", ""),
    ]
    details = _details(record)
    rule = text_at(record, "rule.name")
    # The directory of a rule's file is what a reader can spare most easily.
    rules = (rule, PurePosixPath(rule).name)
    user = _cut(text_at(record, "user.name") or text_at(record, "user.id"), 16)
    for forms in ((user,), rules):
        room = width - sum(cells(text) for text, _ in first) - 2
        fitting = next((form for form in forms if cells(form) <= room), None)
        if fitting is None:
            details.append(forms[-1])
        else:
            first.append((f"  {fitting}", "faint"))
    command = text_at(record, "process.command_line")
    noted = f"[{', '.join(details)}] " if details else ""
    second: list[Part] = [(_INDENT, ""), (noted, "faint"), (command, "")]
    return [first, second] if noted or command else [first]


def _details(record: Record) -> list[str]:
    count = value_at(record, "aegis.count")
    details = [f"{count} times"] if isinstance(count, int) and count > 1 else []
    if value_at(record, "aegis.history"):
        details.append("known from history")
    if value_at(record, "aegis.would_kill"):
        details.append("would kill")
    if value_at(record, "aegis.existing"):
        details.append("was open before the agent")
    return details


def summary_line(record: Record) -> str:
    """Return a fact of history as one line; nothing in it can steer a terminal."""
    trusted = "trusted" in (value_at(record, "aegis.identity") or ())
    program = text_at(record, "process.executable") or "(not recorded)"
    verdict = text_at(record, "aegis.verdict").replace("-", " ").upper()
    times = f"{value_at(record, 'aegis.count'):>9,}"
    return (
        f"{_moment(record):%Y-%m-%d %H:%M} {verdict:<11} {times}  {program}"
        f"{'' if trusted else ' (untrusted)'} {where(record, _short)}"
    )


def _notice_lines(record: Record) -> list[list[Part]]:
    failed = text_at(record, "event.outcome") == "failure"
    message = text_at(record, "message") or text_at(record, "aegis.notice")
    lines: list[list[Part]] = [
        [(_clock(record), "faint"), (f" * {message}", "failure" if failed else "faint")]
    ]
    output = str(value_at(record, "aegis.output") or "").strip()
    if output:
        lines.append([(_INDENT, ""), ("| " + printable(output.splitlines()[0]), "")])
    return lines


def _clock(record: Record) -> str:
    try:
        return f"{_moment(record):%H:%M:%S}"
    except ValueError:
        return "--:--:--"


def _moment(record: Record) -> datetime:
    return datetime.fromisoformat(str(value_at(record, "@timestamp"))).astimezone()


def _line(parts: list[Part], width: int, *, colour: bool) -> str:
    line, room = "", width
    for text, name in parts:
        shown = _cut(text, room)
        room -= cells(shown)
        painted = colour and name in _COLOURS and shown.strip()
        line += f"{_COLOURS[name]}{shown}{_RESET}" if painted else shown
        if shown != text:
            break
    return line if colour else line.rstrip()


def _cut(text: str, room: int) -> str:
    """Return *text* in at most *room* cells, ending in … if some is left out."""
    if cells(text) <= room:
        return text
    kept, used = [], 1
    for char in text:
        used += cells(char)
        if used > room:
            break
        kept.append(char)
    return "".join(kept) + "…" if room > 0 else ""


def cells(text: str) -> int:
    """Return how many columns printable *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_cell, text))


def _short(name: str) -> str:
    return _cut(name, _NAME_CELLS)


def _cell(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
