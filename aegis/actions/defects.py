# SPDX-License-Identifier: Apache-2.0
"""Exceptions nobody foresaw in the reaction to one event.

A program under suspicion may find one and bring it about at will: it must cost neither
the agent nor another event. It is no less a defect of Aegis for that: each is counted,
each kind told once, and ``degraded`` says so until the agent is started anew.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aegis.actions.notice import Tell
from aegis.errors import place_of, said_of

_KINDS_MAX = 64  # remembered; there are as many as there are places in our code
_SAID_MAX = 300  # of what an exception says, which may be a program's text

OnDefect = Callable[[BaseException], None]


def raise_it(error: BaseException) -> None:
    """An ``OnDefect`` of who can do without what failed."""
    raise error


class Defects:
    """*count*: of reactions that failed so."""

    def __init__(self, tell: Tell) -> None:
        self.count = 0
        self._tell = tell
        self._told: OrderedDict[tuple[str, str], str] = OrderedDict()

    @contextmanager
    def contained(self) -> Iterator[None]:
        """One reaction to one event: whatever comes of it, the next has its turn."""
        try:
            yield
        except Exception as error:
            self.happened(error)

    def happened(self, error: BaseException) -> None:
        """Count *error*, and tell of it if none came from that place before."""
        self.count += 1
        kind = type(error).__name__, place_of(error)
        if kind in self._told or len(self._told) >= _KINDS_MAX:
            return
        said = self._told[kind] = f"{kind[0]}: {said_of(error)[:_SAID_MAX]}"
        with suppress(Exception):  # telling may be what is broken; ``wrong`` still says it
            message = f"a reaction to an event failed, by a defect of Aegis: {said}"
            self._tell("reaction-failed", message, {"event": {"outcome": "failure"}})

    def wrong(self) -> list[str]:
        """A line if there was any: for ``degraded``."""
        if not self.count:
            return []
        last = next(reversed(self._told.values()))
        return [f"{self.count} reactions failed by a defect of Aegis, such as {last}"]
