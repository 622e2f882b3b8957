# SPDX-License-Identifier: Apache-2.0
"""All brokers of an agent: what its reactions have done by them."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from aegis.actions.kill import KillOrder, KillResult, KillStatus
from aegis.actions.notice import Tell
from aegis.actions.runs import Order, Started, nobody_asks
from aegis.actions.script_job import ScriptResult, readable
from aegis.bpf.existing import Held
from aegis.broker.client import Calls, Errand, Line
from aegis.broker.messages import (
    Attach,
    Attached,
    Cancel,
    Follow,
    Followed,
    Found,
    Freeze,
    Kill,
    Killed,
    LookUp,
    Message,
    Ran,
    Run,
    Running,
    Sever,
    Severed,
)
from aegis.broker.opener import Opener
from aegis.broker.wire import close_all
from aegis.errors import BrokerError, KernelError, ScriptError
from aegis.names import Answer, names_in, parse_address
from aegis.policy.model import Policy
from aegis.privileges import ATTACH, HOOKS, KILL, NAMES, PATHS, SEVER, hook_users, kills
from aegis.tasks import tick

CHECK_S = 1.0


class Brokers:
    """*opener* connects to each when it is first needed; *tell* gets what goes wrong."""

    def __init__(self, opener: Opener, tell: Tell) -> None:
        self._opener, self._tell = opener, tell
        self._kill = Line(KILL, 0, opener, tell)
        self._sever = Line(SEVER, 0, opener, tell)
        self._calls: dict[tuple[str, int], Calls] = {}
        self._wanted: set[tuple[str, int]] = set()

    # ---- what is done by them ----

    def kill(self, order: KillOrder) -> KillResult:
        """An :data:`Executioner`."""
        try:
            answer = self._kill.ask(Kill.of(order))
            if isinstance(answer, Killed) and answer.pid == order.pid:
                return answer.result()
            return KillResult(order.pid, KillStatus.FAILED, "the kill broker's answer is none")
        except (BrokerError, ValueError) as error:
            return KillResult(order.pid, KillStatus.FAILED, f"the kill broker: {error}")

    def owns(self, pid: int) -> bool:
        """Whether it is one of them."""
        return self._opener.owns(pid)

    def sever(self, held: Held, pids: Sequence[int]) -> bool:
        """As ``diag.destroy``."""
        answer = self._sever.ask(
            Sever(
                held.netns, held.family, held.protocol, held.device, held.carrier,
                held.local[0].hex(), held.local[1], held.remote[0].hex(), held.remote[1],
                tuple(pids),
            )
        )  # fmt: skip
        if not isinstance(answer, Severed) or answer.error:
            raise KernelError(getattr(answer, "error", "the sever broker's answer is none"))
        return answer.found

    def let_go_of_sever(self) -> None:
        """It was needed once."""
        self._sever.drop()

    @contextmanager
    def following(self) -> Iterator[Callable[[str], str]]:
        """Lends what follows links where the agent may not look; from any thread.

        It raises BrokerError. The broker is started when it is first asked.
        """
        with closing(Errand(PATHS, self._opener)) as errand:

            def follow(path: str) -> str:
                answer, fds = errand.ask(Follow(path))
                close_all(fds)
                if not isinstance(answer, Followed):
                    raise BrokerError("the paths broker's answer is none")
                return answer.path

            yield follow

    def attach(self, program_fd: int, cgroup_fd: int) -> int:
        """As ``packets.attach``; from any thread.

        :raises KernelError: as that
        :raises BrokerError: when nobody is there to do it
        """
        with closing(Errand(ATTACH, self._opener)) as errand:
            answer, fds = errand.ask(Attach(), (program_fd, cgroup_fd))
        if isinstance(answer, Attached) and not answer.error and len(fds) == 1:
            return fds[0]
        close_all(fds)
        raise KernelError(getattr(answer, "error", "") or "the attach broker's answer is none")

    async def look_up(self, name: str, timeout: float) -> Answer:
        """As ``names.resolve``."""
        try:
            async with asyncio.timeout(timeout):
                found = await self._to(NAMES).ask(lambda number: LookUp(number, name))
        except TimeoutError:
            return Answer(error=f"no answer within {timeout:g} s")
        except BrokerError as error:
            return Answer(error=f"the names broker: {error}")
        if not isinstance(found, Found) or found.error:
            return Answer(error=getattr(found, "error", "not an answer"))
        addresses = map(parse_address, found.addresses)
        return Answer(frozenset(address for address in addresses if address is not None))

    async def run(self, order: Order, started: Started = nobody_asks) -> ScriptResult:
        """See :class:`aegis.actions.runs.Runner`."""
        text = readable(order.text)
        fds = (text,) if order.script < 0 else (text, order.script)

        calls = self._to(HOOKS, order.uid)

        def running(number: int, message: Running) -> None:
            def freeze(frozen: bool, /) -> bool:
                return calls.say(Freeze(number, frozen))

            started(message.pid, freeze if message.caged else None)

        def question(number: int) -> Message:
            return Run(
                number, order.name, dict(order.env), order.limit, order.uid, order.event_id,
                order.script >= 0,
            )  # fmt: skip

        try:
            ran = await calls.ask(question, fds, running, Cancel)
        except BrokerError as error:
            raise ScriptError(f"{order.name}: the hooks broker: {error}") from None
        finally:
            os.close(text)
        if not isinstance(ran, Ran) or ran.error:
            raise ScriptError(getattr(ran, "error", "not an answer"))
        return ScriptResult(
            ran.pid, ran.status if ran.ended else None, ran.timed_out, ran.duration_ns,
            ran.output.encode("utf-8", "surrogateescape"), ran.output_bytes, ran.uncaged,
        )  # fmt: skip

    async def drain(self) -> None:
        """See :class:`aegis.actions.runs.Runner`: they see to it themselves."""

    # ---- whether they are there ----

    def want(self, policy: Policy) -> None:
        """Have those started that *policy* needs, before they are."""
        wanted = {(HOOKS, uid) for uid in hook_users(policy)}
        if kills(policy):
            wanted.add((KILL, 0))
        if names_in(policy):
            wanted.add((NAMES, 0))
        self._wanted = wanted

    async def check(self) -> None:
        self._let_go()
        for name, uid in sorted(self._wanted):
            if name == KILL:
                self._kill.check()
            else:
                with suppress(BrokerError):  # it was told
                    await self._to(name, uid).ready()

    def _let_go(self) -> None:
        """Of those that the policy before needed, once what they do is done."""
        if (KILL, 0) not in self._wanted:
            self._kill.drop()
        for key, calls in self._calls.items():
            if key not in self._wanted and calls.is_idle:
                calls.drop()

    async def check_forever(self) -> None:
        """Each second: one that ended is started again before it is needed, one too many ends."""
        while True:
            await self.check()
            await tick(CHECK_S)

    def wrong(self) -> list[str]:
        """A line for each that should be there and is not."""
        links = [self._kill, *(self._to(name, uid) for name, uid in self._wanted if name != KILL)]
        return sorted({line for link in links if (line := link.wrong())})

    def close(self) -> None:
        for link in (self._kill, self._sever, *self._calls.values()):
            link.drop()
        self._opener.close()

    def _to(self, name: str, uid: int = 0) -> Calls:
        key = name, uid
        if key not in self._calls:
            self._calls[key] = Calls(name, uid, self._opener, self._tell)
        return self._calls[key]
