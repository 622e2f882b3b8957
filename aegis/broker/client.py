# SPDX-License-Identifier: Apache-2.0
"""The agent's end of a connection to one broker: opened when it is needed, and again.

A broker that is gone is told once, and once when it is there again.
"""

import asyncio
import itertools
import time
from collections.abc import Callable

from aegis.actions.notice import Tell
from aegis.broker.messages import Found, Message, Ran, Running
from aegis.broker.opener import Opener
from aegis.broker.wire import Wire, close_all
from aegis.errors import BrokerError

ANSWER_S = 2.0  # the loop waits so long for a kill
FIRST_S = 15.0  # and for the first of a broker that has yet to start, on a slow machine
RETRY_S = 1.0

# Called with the number of the question, once what it asked for runs.
Started = Callable[[int, Running], None]


class Errand:
    """Questions of any thread, to a broker that nobody else asks and that ends after them.

    Who asks is told what fails: nothing is told to others.
    """

    def __init__(self, name: str, opener: Opener) -> None:
        self._name, self._opener = name, opener
        self._wire: Wire | None = None

    def ask(self, message: Message, fds: tuple[int, ...] = ()) -> tuple[Message, tuple[int, ...]]:
        """The answer, with its descriptors, which are the caller's.

        :raises BrokerError: saying why there is none
        """
        try:
            if self._wire is None:
                self._wire = Wire(self._opener(self._name, 0))
            self._wire.send(message, fds)
            return self._wire.wait(FIRST_S)
        except BrokerError as error:
            raise BrokerError(f"the {self._name} broker does not answer: {error}") from error

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class Link:
    """What a line and calls have in common. *reason*: why it does not work; "" if it does."""

    def __init__(self, name: str, uid: int, opener: Opener, tell: Tell) -> None:
        self._name, self._uid, self._opener, self._tell = name, uid, opener, tell
        self._wire: Wire | None = None
        self._again = 0.0
        self.reason = ""

    def open(self) -> Wire:
        """Return the connection; make one, if there is none and it was not just refused.

        :raises BrokerError: saying why
        """
        if self._wire is None:
            if time.monotonic() < self._again:
                raise BrokerError(self.reason or "it ended a moment ago")
            self._again = time.monotonic() + RETRY_S
            self._wire = Wire(self._opener(self._name, self._uid))
        return self._wire

    def drop(self) -> None:
        """Close it; the next one who asks has it opened."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def failed(self, error: BrokerError) -> None:
        message = f"the {self._name} broker does not answer: {error}"
        if not self.reason:
            self._tell("broker-failed", message, {"event": {"outcome": "failure"}})
        self.reason = str(error)

    def works(self) -> None:
        if self.reason:
            message = f"the {self._name} broker answers again"
            self._tell("broker-restored", message, {"event": {"outcome": "success"}})
        self.reason = ""

    def wrong(self) -> str:
        return f"the {self._name} broker does not answer: {self.reason}" if self.reason else ""


class Line(Link):
    """One question at a time, which waits for its answer."""

    def __init__(self, name: str, uid: int, opener: Opener, tell: Tell) -> None:
        super().__init__(name, uid, opener, tell)
        self._answered = False  # by the broker at the other end
        self._hung = False  # the last one was there, and did not answer

    def drop(self) -> None:
        super().drop()
        self._answered = False

    def ask(self, message: Message) -> Message:
        """A connection that was lost since is made again, and it is asked once more.

        :raises BrokerError: saying why there is no answer
        """
        while True:
            fresh = self._wire is None
            try:
                wire = self.open()
                wire.send(message)
                starts = not self._answered and not self._hung
                answer, fds = wire.wait(FIRST_S if starts else ANSWER_S)
                self._answered, self._hung = True, False
            except BrokerError as error:
                lost = self._wire is not None and not self._wire.is_open()
                # What holds one up holds up who comes next, too: not as if it had yet to start.
                self._hung = self._hung or (self._wire is not None and not lost)
                self.drop()
                if lost and not fresh:
                    continue
                self.failed(error)
                raise
            close_all(fds)
            self.works()
            return answer

    def check(self) -> None:
        """See that it is there; nothing is asked."""
        if self._wire is not None and not self._wire.is_open():
            self.drop()
        try:
            self.open()
            self.works()
        except BrokerError as error:
            self.failed(error)


class Calls(Link):
    """Many questions at a time, each with a number."""

    def __init__(self, name: str, uid: int, opener: Opener, tell: Tell) -> None:
        super().__init__(name, uid, opener, tell)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Message], Started | None]] = {}
        self._opening = asyncio.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._waiting and not self._opening.locked()

    async def ready(self) -> Wire:
        """See :meth:`open`; the loop does not wait for systemd."""
        async with self._opening:
            if self._wire is not None:
                return self._wire
            try:
                wire = await asyncio.to_thread(self.open)
            except BrokerError as error:
                self.failed(error)
                raise
            asyncio.get_running_loop().add_reader(wire, self._read)
            self.works()
            return wire

    async def ask(
        self,
        question: Callable[[int], Message],
        fds: tuple[int, ...] = (),
        started: Started | None = None,
        cancel: Callable[[int], Message] | None = None,
    ) -> Message:
        """Return the answer. Cancelled, it says so there and waits a while for the end.

        :raises BrokerError: when there will be none
        """
        wire, number = await self.ready(), next(self._numbers)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, started)
        try:
            wire.send(question(number), fds)
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if cancel is not None and self._wire is wire:
                wire.send(cancel(number))
                await asyncio.wait([future], timeout=ANSWER_S)
            raise
        finally:
            self._waiting.pop(number, None)
            future.cancel()

    def say(self, message: Message) -> bool:
        """Something that has no answer; whether it went out."""
        try:
            if self._wire is not None:
                self._wire.send(message)
        except BrokerError:
            return False
        return self._wire is not None

    def _read(self) -> None:
        try:
            while self._wire is not None:
                got = self._wire.receive()
                if got is None:
                    return
                close_all(got[1])
                self._take(got[0])
        except BrokerError as error:
            self.drop()
            self.failed(error)

    def _take(self, message: Message) -> None:
        number = getattr(message, "id", 0)
        future, started = self._waiting.get(number, (None, None))
        if future is None or future.done():
            return  # nobody waits for it any more
        if isinstance(message, Running) and started is not None:
            started(number, message)
        elif isinstance(message, Found | Ran):
            future.set_result(message)

    def drop(self) -> None:
        if self._wire is not None:
            asyncio.get_running_loop().remove_reader(self._wire)
        super().drop()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(BrokerError("it ended before it answered"))
                future.exception()  # asked for: it may be that nobody waits
