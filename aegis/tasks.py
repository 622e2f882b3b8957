# SPDX-License-Identifier: Apache-2.0
"""Work that goes on beside the loop; one that dies ends the agent. Whose turn it is to write."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from aegis.errors import said_of

TICK_S = 1.0


def until_tick(seconds: float) -> float:
    """How long it is to the tick nearest to *seconds* from now; at least to the next one.

    What is done again and again is done at ticks, so that all of it wakes the processor once.
    """
    now = asyncio.get_running_loop().time()
    count = max(round((now + seconds) / TICK_S), math.floor(now / TICK_S) + 1)
    return count * TICK_S - now


async def tick(seconds: float = TICK_S) -> None:
    """Sleep; see ``until_tick``."""
    await asyncio.sleep(until_tick(seconds))


def stay_awake() -> None:
    """asyncio says nothing when a thread fails to wake the loop, by a full buffer or a failed

    call: what it left is found at the next tick, where other work is done anyway. A timer and
    no task, which the loop's end would cancel: that, too, is waited for by a thread.
    """
    asyncio.get_running_loop().call_later(until_tick(TICK_S), stay_awake)


class TableLock(asyncio.Lock):
    """Held by whoever is to write the kernel's tables, also while a policy is read or names

    are looked up. *begins* is called before the first is written, *ended* after the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begins: Callable[[], object] = bool
        self.ended: Callable[[], object] = bool
        self.is_writing = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Only then are the tables not what they were."""
        self.begins()
        self.is_writing = True
        try:
            yield
        finally:
            self.is_writing = False
            self.ended()


class Tasks:
    """*failed* is called when a task ended by an exception: ``failure`` is that.

    *say* gets a line about what fails and is nobody's.
    """

    def __init__(self, failed: Callable[[], None], say: Callable[[str], None]) -> None:
        self.failure: BaseException | None = None
        self._say = say
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A task that died unseen would leave names or the log stale for ever.
            self.failure = task.exception()
            self._failed()

    def callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For the loop: asyncio would print a traceback and go on without, say, the ring."""
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        elif context["message"].startswith("Exception in callback"):
            self.failure = error
            self._failed()
        else:
            self._say(f"aegis: {context['message']}: {said_of(error)}")

    def cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
