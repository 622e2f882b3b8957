# SPDX-License-Identifier: Apache-2.0
"""Hook scripts that were not run for a reason that stays: told once a window, then counted."""

import asyncio
from collections import Counter

from aegis.actions.notice import Tell

REASONS_MAX = 16  # told one by one in a window; of more, how many
_SHOWN = 5


class Refusals:
    """Each event a program brings about may be one: that must not fill the log.

    *seconds*: a window, which begins with the first refusal after the last one.
    """

    def __init__(self, tell: Tell, seconds: float) -> None:
        self._tell = tell
        self._seconds = seconds
        self._more: Counter[str] = Counter()  # by reason, since it was told
        self._window: asyncio.TimerHandle | None = None

    def happened(self, reason: str, event_id: str) -> None:
        if self._window is None:
            loop = asyncio.get_running_loop()
            self._window = loop.call_later(self._seconds, self.end)
        if reason not in self._more and len(self._more) < REASONS_MAX:
            self._more[reason] = 0
            fields = {"event": {"outcome": "failure"}, "aegis": {"event_id": event_id}}
            self._tell("script-refused", f"script not run: {reason}", fields)
        else:
            self._more[reason if reason in self._more else "other reasons"] += 1

    def end(self) -> None:
        """The window is over, or nobody will be there at its end: tell how many more there were."""
        if self._window is None:
            return
        self._window.cancel()
        self._window = None
        more, self._more = +self._more, Counter()
        if not more:
            return
        reasons = "; ".join(f"{count}: {reason}" for reason, count in more.most_common(_SHOWN))
        message = f"{more.total()} more scripts not run within {self._seconds:g} s: {reasons}"
        fields = {"event": {"outcome": "failure"}, "aegis": {"refused": more.total()}}
        self._tell("scripts-refused", message, fields)
