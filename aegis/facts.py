# SPDX-License-Identifier: Apache-2.0
"""The upward lane: ring → event → reactions, and what the kernel had to drop."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from aegis.actions.react import Reactions
from aegis.bpf.kernel import Kernel
from aegis.bpf.noisy import take_noisy
from aegis.bpf.ring import BATCH, SELF_TEST, fields_of, to_event
from aegis.errors import AegisError
from aegis.gaps import Gaps
from aegis.lines import Lines
from aegis.naming import Naming
from aegis.tasks import tick

LAST_TURN_S = 2.0  # at the end; what is left then waits for the next agent
TURN_S = 0.02  # then other work gets the loop: a flood must not hold up a reload


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
        self.on_proof: Callable[[int], object] = int  # gets whose refusal was a self-test
        self._naming = naming
        self._reactions = reactions
        self._defects = reactions.defects
        self._after_batch = after_batch
        self._ring = kernel.open_ring()
        self._lines = Lines(naming, reactions.context)
        maps, stamp = kernel.object.maps, reactions.context.wall_time
        self._gaps = Gaps(
            kernel.counters, maps["watch"], stamp, reactions.notice,
            noisy=lambda: take_noisy(maps["noisy"]),
        )  # fmt: skip

    def watch(self) -> None:
        """Handle records as they come; also those an earlier agent did not read."""
        self._gaps.tell_inherited()
        self.flush()
        asyncio.get_running_loop().add_reader(self._ring.fileno(), self._drain)

    def _drain(self, seconds: float = TURN_S) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            records = self._ring.drain()
            self._lines.begin_batch()
            for record in records:
                try:
                    self._handle(record)
                except Exception as error:
                    self._defects.happened(error)  # the others of the batch are read already
            self.flush()
            if len(records) < BATCH:
                return  # the descriptor polls readable again when there is more

    def _handle(self, raw: bytes) -> None:
        line = None if self._reactions.wants_record() else self._line(raw)
        if line is not None:
            self._reactions.log_line(line)
            return
        record = fields_of(raw)
        if record["hook"] == SELF_TEST:
            self.on_proof(record["owner.tgid"])
            return
        rule, actions = self._naming.name(record)
        self._reactions.handle(to_event(record, rule, actions))

    def _line(self, raw: bytes) -> str | None:
        try:
            return self._lines.line(raw)
        except Exception as error:
            self._defects.happened(error)
            return None  # as an event, then: it may have to be killed

    def flush(self) -> None:
        """Write out what was logged and shown."""
        self._reactions.flush()
        self._after_batch()

    async def tick(self) -> None:
        """Once a second: what was lost."""
        while True:
            await tick()
            self._gaps.look()
            self.flush()

    def close(self) -> None:
        """Handle what is still in the ring, then let go of it."""
        asyncio.get_running_loop().remove_reader(self._ring.fileno())
        with contextlib.suppress(AegisError):
            self._drain(LAST_TURN_S)
            self._gaps.close()
        self._ring.close()
