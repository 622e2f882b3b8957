# SPDX-License-Identifier: Apache-2.0
"""The upward lane of what is quiet too: the kernel's sums → history, in whole epochs."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aegis.actions.notice import Tell
from aegis.bpf.inherit import Inherited
from aegis.bpf.sums import KernelSums
from aegis.errors import HistoryDamagedError, HistoryError
from aegis.events.history import History, boot_id, clock_offset_ns, move_aside
from aegis.policy.model import Settings
from aegis.tasks import tick

SWEEP_S = 5.0
LOOK_S = 0.25  # at how full the kernel's table is: it must not fill up
BUSY_SUMS = 8192
QUIET_SUMS = 256  # with fewer, a second is soon enough
_FORGET_S = 3600.0
_DAY_S = 86400.0
_STEADY_NS = 60 * 1_000_000_000  # a clock that is set by more may be wrong yet


class Recorder:
    """Keeps *sums* safe in the file at *path*; *decided* is the kernel's count of decisions.

    A file that fails costs nothing yet: the kernel goes on adding up, and it is tried again.
    """

    def __init__(
        self, sums: KernelSums, decided: Callable[[], int], path: Path, tell: Tell
    ) -> None:
        self.settings = Settings()
        self.error: HistoryError | None = None  # why the file fails at present
        self.path = path
        self._sums = sums
        self._decided = decided
        self._tell = tell
        self._origin = _origin(sums)
        self._inherited: list[Inherited] = []
        self._history: History | None = None
        self._seen = -1  # decisions when the last epoch was closed
        self._lock = threading.Lock()  # a cancelled task's thread goes on
        self._forget_at = 0.0
        self._offset_ns = clock_offset_ns()

    async def inherit(self, inherited: list[Inherited]) -> None:
        """Take these along and remove them, now or as soon as the file can be written."""
        for one in inherited:
            if one.sums is not None:
                self._inherited.append(one)
                continue
            one.remove()
            if one.is_lost:
                message = "not in history: sums of another version, in another form"
                self._tell("history-lost", message, {"event": {"outcome": "failure"}})
        if self._inherited:
            await self.record()

    async def record_forever(self) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            await self.record()
            due = time.monotonic() + SWEEP_S
            while time.monotonic() < due:
                if self._sums.waiting() >= QUIET_SUMS:
                    await asyncio.sleep(LOOK_S)
                else:
                    await tick()  # an idle host is not to be woken four times a second
                if self.error is None and self._sums.waiting() >= BUSY_SUMS:
                    break

    async def record(self) -> int:
        """Take everything that was decided before this call; return how many sums it was."""
        if self._has_rest():
            return 0
        try:
            count = await asyncio.to_thread(self.sweep)
        except HistoryError as error:
            self._failed(error)
            if isinstance(error, HistoryDamagedError):
                self._begin_anew()
            return 0
        if self.error is not None:
            self.error = None
            self._tell("history-restored", f"writing {self.path} again", {})
        return count

    def _has_rest(self) -> bool:
        """Whether nothing was decided since, and nothing is due: no thread is woken for that."""
        if self.error or self._inherited or self._history is None or self._lock.locked():
            return False
        if time.monotonic() >= self._forget_at or self._decided() != self._seen:
            return False
        now = self._sums.epoch()
        return now.untaken == now.current

    async def close(self) -> None:
        """Take what is there; what comes later is for the next agent."""
        await self.record()
        if self._history is not None:
            self._history.close()

    def _failed(self, error: HistoryError) -> None:
        first = self.error is None
        self.error = error
        if first:
            message = f"history cannot be written, the kernel keeps it: {error}"
            self._tell("history-failed", message, {"event": {"outcome": "failure"}})

    def _begin_anew(self) -> None:
        """What never can be written again would cost every fact once the kernel's table is full."""
        try:
            with self._lock:
                if self._history is not None:
                    with suppress(HistoryError):
                        self._history.close()
                    self._history = None
                kept = move_aside(self.path)
        except OSError:
            return  # told as failing already
        message = f"history was damaged and begins anew; what was in it: {kept}"
        self._tell("history-damaged", message, {"event": {"outcome": "failure"}})

    def sweep(self) -> int:
        """As ``record``, in this thread.

        :raises HistoryError: if the file cannot be written
        """
        with self._lock:
            return self._sweep_alone()

    def _sweep_alone(self) -> int:
        if self._history is None:
            self._history = History(self.path)
        while self._inherited:
            take_all(self._inherited[0], self._history)
            self._inherited.pop(0).remove()
        now = self._sums.epoch()
        if now.untaken == now.current:  # else a closed one waits since the last failure, or agent
            decided = self._decided()
            if decided == self._seen:
                return 0
            self._seen = decided
            self._sums.close_epoch()
        closed = self._sums.read_closed()
        self._history.take(
            self._origin,
            closed,
            self._sums.programs,
            untaken=self._sums.epoch().current,
            offset_ns=clock_offset_ns(),
        )
        count = closed.count
        self._sums.delete(closed)
        self._sums.make_room()
        self._forget(self._history)
        return count

    def _forget(self, history: History) -> None:
        """Keep to the bounds; by age only if the clock is steady, or a wrong one costs it all."""
        before, rows = None, self.settings.history_rows
        due = time.monotonic() >= self._forget_at
        if due:
            self._forget_at = time.monotonic() + _FORGET_S
            offset_ns = clock_offset_ns()
            if abs(offset_ns - self._offset_ns) < _STEADY_NS:
                before = time.time() - self.settings.history_days * _DAY_S
            self._offset_ns = offset_ns
        if due or history.rows() > rows:
            # A tenth below: the next sweeps of a flood then need not do it again.
            history.forget(before=before, rows=rows - rows // 10)


def take_all(one: Inherited, history: History) -> None:
    """What is safe already is left out: none of its programs runs any more."""
    if one.sums is None:
        return
    one.sums.close_epoch()
    current, closed, offset = one.sums.epoch().current, one.sums.read_closed(), clock_offset_ns()
    history.take(_origin(one.sums), closed, one.sums.programs, untaken=current, offset_ns=offset)


def _origin(sums: KernelSums) -> str:
    return f"{boot_id()}:{sums.map_id}"
