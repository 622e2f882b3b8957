# SPDX-License-Identifier: Apache-2.0
"""What a running agent shows: events, and lines for the administrator."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from aegis.actions.notice import Tell, tell_nobody
from aegis.cli.journal import NOTICE, is_journal, priority_of
from aegis.cli.live import LiveView, one_line
from aegis.cli.stream import Stream
from aegis.events.ecs import Record, to_json_line
from aegis.events.text import printable

SHOWN_MAX = 1000


class Output:
    """stdout for records and stderr for what the administrator is told; neither ever blocks.

    When their readers go, the agent goes on without. Nobody reads more than SHOWN_MAX
    a second, and the journal would drop them: the rest of a flood is counted here, and is
    in the log.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.tell: Tell = tell_nobody  # of a stream that fails
        self._streams = {
            "standard output": Stream(sys.stdout),
            "standard error": Stream(sys.stderr),
        }
        self._out, self._err = self._streams.values()
        self._told: set[str] = set()  # streams that fail
        self._accounted: Counter[str] = Counter()  # lines of a stream whose loss was told
        self._json = as_json
        self._journal, self._err_journal = is_journal(sys.stdout), is_journal(sys.stderr)
        self._view = LiveView(self._out)
        self._second, self._shown, self._unshown = 0, 0, 0

    def say(self, text: str) -> None:
        """One or more lines for the administrator, on stderr."""
        self._err.write("".join(_lines(text, journal=self._err_journal)))
        self._err.flush()

    def status(self) -> dict[str, Any]:
        """How many lines nobody took, and why."""
        errors = [f"{name}: {stream.error.strerror}" for name, stream in self._streams.items()
                  if stream.error]  # fmt: skip
        lost = sum(stream.lost for stream in self._streams.values())
        return {"lost": lost, "error": "; ".join(errors) or None}

    def record(self, record: Record) -> None:
        if self._json:
            self._out.write(to_json_line(record) + "\n")
        elif self._journal:
            self._out.write(f"<{priority_of(record)}>{one_line(record)}\n")
        else:
            self._view.show(record)

    def wants_record(self) -> bool:
        """Whether the next event is to be shown by ``record``; else by ``line``."""
        if self._json or self._out.is_gone:
            return False
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._shown = second, 0
        self._shown += 1
        return self._shown <= SHOWN_MAX

    def line(self, line: str) -> None:
        if self._json:
            self._out.write(line + "\n")
        elif self._out.is_gone:
            self._out.lost += 1
        else:
            self._unshown += 1

    def flush(self) -> None:
        """Never blocks; to be called again and again, for what a slow reader left."""
        if self._unshown and int(time.monotonic()) != self._second:
            count, self._unshown = self._unshown, 0
            text = f"{count} more events are in the log only: over {SHOWN_MAX} a second\n"
            self._out.write(f"<{NOTICE}>{text}" if self._journal else text)
        for name, stream in self._streams.items():
            stream.flush()
            self._look_at(name, stream)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def _look_at(self, name: str, stream: Stream) -> None:
        """Once when lines are lost, and once when it works again."""
        fails = stream.is_gone or stream.error is not None
        if name in self._told:
            if not fails:
                self._told.discard(name)
                lost, self._accounted[name] = stream.lost - self._accounted[name], stream.lost
                message = f"{name} is read again; {lost} lines were not shown"
                self.tell("output-restored", message, {"aegis": {"lost": lost}})
            return
        if stream.is_gone or (fails and stream.lost > self._accounted[name]):
            self._told.add(name)
            kind = "output-gone" if stream.is_gone else "output-stuck"
            reason = stream.error.strerror if stream.error else ""
            message = f"nobody reads {name}: {reason}; events are in the log"
            self.say(f"aegis: {message}")
            self.tell(kind, message, {"event": {"outcome": "failure"}})


def say(text: str) -> None:
    """As ``Output.say``, before there is one."""
    stream = Stream(sys.stderr)
    stream.write("".join(_lines(text, journal=is_journal(sys.stderr))))
    stream.close()


def _lines(text: str, *, journal: bool) -> Iterator[str]:
    for part in text.splitlines():
        yield f"<{NOTICE}>{printable(part)}\n" if journal else f"{printable(part)}\n"
