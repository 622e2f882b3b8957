# SPDX-License-Identifier: Apache-2.0
"""Programs run for events, in this process: each in a cgroup of its own, ended at its limit.

The agent has a broker do this (``aegis.broker``), which has the rights that it takes.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aegis.actions.account import account_of
from aegis.actions.cage import Cage, Cages, Freeze
from aegis.actions.script_job import Command, ScriptResult, run_command
from aegis.actions.script_strays import kill_strays
from aegis.spawn import NoCgroupError

CAGE_END_S = 5.0  # of what a stop or a stuck process leaves: waited for beside the rest

# Who sends notifications: a program of its own.
NOTIFY = (sys.executable, "-I", "-B", str(Path(__file__).with_name("notify_child.py")))

# Called with its PID, and with what suspends it, where that is possible.
Started = Callable[[int, Freeze | None], None]


@dataclass(frozen=True, slots=True)
class Order:
    """One run. *script*: the descriptor of what is executed, which was checked; -1: a
    notification is sent. *uid*: as whom.
    """

    name: str  # of the script, as it is to see itself
    text: bytes  # its standard input
    env: Mapping[str, str]
    limit: float  # seconds
    uid: int
    event_id: str = ""
    script: int = -1


class Runner(Protocol):
    """Whoever runs programs."""

    async def run(self, order: Order, started: Started = ...) -> ScriptResult:
        """Return how it ended; *started* is called once it is. Cancelled, it is ended.

        :raises ScriptError: when it cannot be run
        """
        ...

    async def drain(self) -> None:
        """Wait until nothing of it is left."""
        ...


def nobody_asks(_pid: int, _freeze: Freeze | None) -> None:
    """The default for *started*."""


class Runs:
    """Runs programs on the running event loop, each in a cgroup made in *home*.

    Where that is not possible, its process group and whoever carries its
    AEGIS_EVENT_ID are killed at its end.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._cages = Cages(home)
        self._running: Counter[str] = Counter()  # by event
        self._sweeps: set[asyncio.Task[Any]] = set()
        self._strays: dict[str, asyncio.Task[int]] = {}  # being looked for, by event

    async def run(self, order: Order, started: Started = nobody_asks) -> ScriptResult:
        """See :class:`Runner`."""
        while order.event_id in self._strays:
            await asyncio.wait([self._strays[order.event_id]])  # it would be taken for one
        cage = self._cages.make()
        self._running[order.event_id] += 1
        try:
            return await self._run_in(order, started, cage)
        except NoCgroupError as error:
            self._cages.give_up(error)
            return await self._run_in(order, started, None)
        finally:
            if cage is not None and not cage.remove():
                self._sweep(cage.end(CAGE_END_S))
            self._ended(order)

    async def _run_in(self, order: Order, started: Started, cage: Cage | None) -> ScriptResult:
        account = None if order.uid == os.geteuid() else account_of(order.uid)
        uncaged = "" if cage is not None else self._cages.reason
        command = Command(
            [os.fsencode(order.name)] if order.script >= 0 else list(NOTIFY),
            order.text,
            order.env,
            f"/proc/self/fd/{order.script}" if order.script >= 0 else None,
            order.script if order.script >= 0 else None,
            account,
            cage,
        )
        freeze = None if cage is None else cage.freeze

        def running(pid: int) -> None:
            started(pid, freeze)

        return await run_command(command, order.limit, running, uncaged)

    def _ended(self, order: Order) -> None:
        self._running[order.event_id] -= 1
        if self._running[order.event_id]:
            return  # another program's processes carry the same id
        del self._running[order.event_id]
        if self._cages.reason and order.event_id:
            work = asyncio.to_thread(kill_strays, order.event_id, {os.geteuid(), order.uid})
            self._strays[order.event_id] = task = self._sweep(work)
            task.add_done_callback(lambda _: self._strays.pop(order.event_id))

    def _sweep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)
        return task

    async def drain(self) -> None:
        """See :class:`Runner`."""
        while self._sweeps:
            await asyncio.wait(self._sweeps)
