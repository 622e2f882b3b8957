# SPDX-License-Identifier: Apache-2.0
"""Lines for the journal: one a record, each with its priority as sd-daemon(3) has it."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

from aegis.events.text import printable

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6  # of syslog

_BY_VERDICT = {"blocked": WARNING, "would-block": NOTICE}
_SERIOUS = frozenset({"process-killed", "events-lost", "history-lost"})


def is_journal(stream: TextIO | None) -> bool:
    """Whether what is written to *stream* goes to the journal.

    ``JOURNAL_STREAM`` alone says nothing: a shell below a service may have redirected it.
    """
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if stream is None:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def prefixed(text: str, priority: int, stream: TextIO) -> str:
    """Return *text*, one line, as *stream* is to get it: with its priority for the journal."""
    return f"<{priority}>{text}" if is_journal(stream) else text


def say(text: str, priority: int) -> None:
    """One line on standard error, for who has no ``Stream``. Never raises: what failed is tried

    once more, and then there is nobody left to tell.
    """
    if sys.stderr is None:
        return
    line = prefixed(printable(text), priority, sys.stderr) + "\n"
    with suppress(OSError, ValueError):
        sys.stderr.write(line)
        sys.stderr.flush()
        return
    with suppress(OSError, ValueError):
        if getattr(sys.stderr, "write_through", False):  # else it has kept the line
            sys.stderr.write(line)
        sys.stderr.flush()
        return
    sys.stderr = None  # or the interpreter tries again while it ends, and fails


def priority_of(record: Mapping[str, Any]) -> int:
    """Return the syslog priority of an event or notice."""
    ours, event = record.get("aegis", {}), record.get("event", {})
    if ours.get("notice") is None:
        return _BY_VERDICT.get(ours.get("verdict"), INFO)
    serious = event.get("outcome") == "failure" or ours["notice"] in _SERIOUS
    return WARNING if serious else INFO
