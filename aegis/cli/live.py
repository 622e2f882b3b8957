# SPDX-License-Identifier: Apache-2.0
"""Events and notices for a person at a terminal, 80 columns wide."""

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Protocol

from aegis.events.ecs import Record
from aegis.events.text import printable

WIDTH = 80
_INDENT = " " * 9  # under what follows the time
_PROGRAM_CELLS = 24
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
    lines = _notice_lines(record) if _get(record, "aegis.notice") else _event_lines(record, width)
    return [_line(parts, width, colour=colour) for parts in lines]


def one_line(record: Record) -> str:
    """Return *record* as a single line of any length, without the time; nothing in it can steer.

    For the journal, which has times of its own.
    """
    wide = WIDTH * 1000
    lines = _notice_lines(record) if _get(record, "aegis.notice") else _event_lines(record, wide)
    first, *others = ["".join(text for text, _ in parts).strip() for parts in lines]
    return " ".join((first.removeprefix(_clock(record)).strip(), *others))


Part = tuple[str, str]  # text, already printable, and the name of its colour or ""


def _event_lines(record: Record, width: int) -> list[list[Part]]:
    verdict = _text(record, "aegis.verdict")
    first: list[Part] = [
        (_clock(record), "faint"),
        (f" {verdict.replace('-', ' ').upper():<11} ", verdict),
        (_cut(_text(record, "process.name"), _PROGRAM_CELLS), ""),
        (_where(record), ""),
    ]
    details = _details(record)
    rule = _text(record, "rule.name")
    # The directory of a rule's file is what a reader can spare most easily.
    rules = (rule, PurePosixPath(rule).name)
    user = _cut(_text(record, "user.name") or _text(record, "user.id"), 16)
    for forms in ((user,), rules):
        room = width - sum(cells(text) for text, _ in first) - 2
        fitting = next((form for form in forms if cells(form) <= room), None)
        if fitting is None:
            details.append(forms[-1])
        else:
            first.append((f"  {fitting}", "faint"))
    command = _text(record, "process.command_line")
    noted = f"[{', '.join(details)}] " if details else ""
    second: list[Part] = [(_INDENT, ""), (noted, "faint"), (command, "")]
    return [first, second] if noted or command else [first]


def _details(record: Record) -> list[str]:
    count = _get(record, "aegis.count")
    details = [f"{count} times"] if isinstance(count, int) and count > 1 else []
    if _get(record, "aegis.history"):
        details.append("known from history")
    if _get(record, "aegis.would_kill"):
        details.append("would kill")
    if _get(record, "aegis.existing"):
        details.append("was open before the agent")
    return details


def summary_line(record: Record) -> str:
    """Return a fact of history as one line; nothing in it can steer a terminal."""
    trusted = "trusted" in (_get(record, "aegis.identity") or ())
    program = _text(record, "process.executable") or "(not recorded)"
    verdict = _text(record, "aegis.verdict").replace("-", " ").upper()
    times = f"{_get(record, 'aegis.count'):>9,}"
    return (
        f"{_moment(record):%Y-%m-%d %H:%M} {verdict:<11} {times}  {program}"
        f"{'' if trusted else ' (untrusted)'}{_where(record)}"
    )


def _where(record: Record) -> str:
    """Return `` -> 192.0.2.7:443/tcp``, by its name if it has one; inbound `` <- peer``.

    For what is no connection: `` listens on 80/tcp``, `` makes a socket of sctp``.
    """
    hook = _text(record, "aegis.hook")
    if hook == "socket":
        return f" makes a socket of {_text(record, 'network.transport')}"
    inbound = _text(record, "network.direction") == "ingress"
    side = "source" if inbound else "destination"
    address = _cut(_text(record, f"{side}.domain"), 40) or _text(record, f"{side}.ip")
    port = _text(record, "destination.port")
    protocol = _text(record, "network.transport")
    if _get(record, "aegis.anywhere"):
        return f" {'<-' if inbound else '->'} many others/{protocol}"
    if hook in ("bind", "listen"):
        return f" listens on {port}/{protocol}"
    if inbound:
        return f" <- {address or '?'} on {port}/{protocol}"
    if ":" in address:
        address = f"[{address}]"
    return f" -> {address}:{port}/{protocol}"


def _notice_lines(record: Record) -> list[list[Part]]:
    failed = _text(record, "event.outcome") == "failure"
    message = _text(record, "message") or _text(record, "aegis.notice")
    lines: list[list[Part]] = [
        [(_clock(record), "faint"), (f" * {message}", "failure" if failed else "faint")]
    ]
    output = str(_get(record, "aegis.output") or "").strip()
    if output:
        lines.append([(_INDENT, ""), ("| " + printable(output.splitlines()[0]), "")])
    return lines


def _clock(record: Record) -> str:
    try:
        return f"{_moment(record):%H:%M:%S}"
    except ValueError:
        return "--:--:--"


def _moment(record: Record) -> datetime:
    return datetime.fromisoformat(str(_get(record, "@timestamp"))).astimezone()


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


def _cell(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _text(record: Record, path: str) -> str:
    value = _get(record, path)
    return "" if value is None else printable(str(value))


def _get(record: Mapping[str, Any], path: str) -> Any:
    """Return what stands at dotted *path*; None if there is nothing."""
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
