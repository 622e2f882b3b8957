# SPDX-License-Identifier: Apache-2.0
"""The upward lane: ring → event → reactions, and what the kernel had to drop."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from aegis.actions.react import Reactions
from aegis.bpf.kernel import Kernel
from aegis.bpf.ring import BATCH, to_event
from aegis.errors import AegisError
from aegis.naming import Naming

TICK_S = 1.0
LAST_TURN_S = 2.0  # at the end; what is left then waits for the next agent
TURN_S = 0.02  # then other work gets the loop: a flood must not hold up a reload

# Counter -> kind of notice, and what happened to so many.
_LOST = {
    "lost": ("events-lost", "events were lost: the ring was full; verdicts stood"),
    "history_lost": ("history-lost", "decisions are not in history: its kernel table was full"),
}


class Facts:
    """Reads the ring of a started *kernel* on the running loop until ``close``.

    *after_batch* is called when a batch was handled.
    """

    def __init__(
        self,
        kernel: Kernel,
        naming: Naming,
        reactions: Reactions,
        after_batch: Callable[[], None],
    ) -> None:
        self._kernel = kernel
        self._naming = naming
        self._reactions = reactions
        self._after_batch = after_batch
        self._ring = kernel.open_ring()
        counters = kernel.counters()
        self._lost = {name: counters[name] for name in _LOST}

    def watch(self) -> None:
        """Handle records as they come; also those an earlier agent did not read."""
        asyncio.get_running_loop().add_reader(self._ring.fileno(), self._drain)

    def _drain(self, seconds: float = TURN_S) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            records = self._ring.drain()
            for record in records:
                rule, actions = self._naming.name(record)
                self._reactions.handle(to_event(record, rule, actions))
            self.flush()
            if len(records) < BATCH:
                return  # the descriptor polls readable again when there is more

    def flush(self) -> None:
        """Write out what was logged and shown."""
        self._reactions.flush()
        self._after_batch()

    async def tick(self) -> None:
        """Once a second: what was lost."""
        while True:
            await asyncio.sleep(TICK_S)
            self._tell_lost()
            self.flush()

    def _tell_lost(self) -> None:
        counters = self._kernel.counters()
        for name, before in self._lost.items():
            count, self._lost[name] = counters[name] - before, counters[name]
            if count:
                kind, message = _LOST[name]
                self._reactions.notice(kind, f"{count} {message}", {"aegis": {"lost": count}})

    def close(self) -> None:
        """Handle what is still in the ring, then let go of it."""
        asyncio.get_running_loop().remove_reader(self._ring.fileno())
        with contextlib.suppress(AegisError):
            self._drain(LAST_TURN_S)
        self._ring.close()
