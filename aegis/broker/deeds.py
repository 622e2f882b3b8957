# SPDX-License-Identifier: Apache-2.0
"""What each broker does when it is asked to. One that is asked for anything else refuses."""

import asyncio
import os
import stat
import time
from typing import Any, Protocol

from aegis.actions import cage
from aegis.actions.budget import Budget
from aegis.actions.kill import BUDGET_S, KillOrder, KillResult, KillStatus, Strike
from aegis.actions.runs import Order, Runs
from aegis.actions.script_job import ScriptResult
from aegis.bpf import diag, packets
from aegis.bpf.rights import hide_memory
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
from aegis.broker.wire import close_all
from aegis.errors import AegisError, BrokerError, KernelError, said_of
from aegis.names import resolve

LOOKUP_S = 30.0  # the agent waits less
_TEXT_MAX = 1024 * 1024


class Reply(Protocol):
    """*fds* go along; they stay the caller's."""

    def __call__(self, message: Message, fds: tuple[int, ...] = (), /) -> None: ...


class Deeds:
    """Of one connection; *peer*: the agent's PID."""

    def __init__(self, peer: int, reply: Reply) -> None:
        self.peer = peer
        self.reply = reply
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        """Do it, or begin to; *fds* are its own.

        :raises BrokerError: when it is none of its deeds
        """
        raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")

    async def finish(self) -> None:
        """The agent is gone: what was begun comes to its end, within its limit."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Killing(Deeds):
    """Kills, after it looked again. It keeps a budget of its own: no agent gets more."""

    budget = Budget(0, BUDGET_S)  # of this process, whoever asks

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        close_all(fds)
        if not isinstance(message, Kill):
            raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")
        self.budget.limit = message.budget
        order = message.order()
        result = self._strike(order) if self._may(message) else _over(order.pid)
        if result.status is KillStatus.KILLED:
            self.budget.use()
        self.reply(Killed(result.pid, str(result.status), result.detail, result.descendants))

    def _strike(self, order: KillOrder) -> KillResult:
        try:
            return Strike(frozenset({self.peer}))(order)
        except Exception as error:  # a defect: who asked must not wait in vain for an answer
            return KillResult(order.pid, KillStatus.FAILED, f"by a defect: {said_of(error)}"[:300])

    def _may(self, message: Kill) -> bool:
        return message.marked or not message.left or self.budget.left()


def _over(pid: int) -> KillResult:
    return KillResult(pid, KillStatus.OVER_BUDGET, "more than the broker's budget in a minute")


class Severing(Deeds):
    """Closes sockets, in whatever network namespace."""

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        close_all(fds)
        if not isinstance(message, Sever):
            raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")
        try:
            ends = diag.Ends(
                **{name: getattr(message, name) for name in _SAME},
                local=(bytes.fromhex(message.local), message.local_port),
                remote=(bytes.fromhex(message.remote), message.remote_port),
            )
            self.reply(Severed(diag.destroy(ends, message.pids), ""))
        except (AegisError, OSError) as error:
            self.reply(Severed(False, str(error) or type(error).__name__))
        except ValueError:
            raise BrokerError("Sever: not an address") from None


_SAME = ("netns", "family", "protocol", "device", "carrier")


class Naming(Deeds):
    """Asks the host's resolver."""

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        close_all(fds)
        if not isinstance(message, LookUp):
            raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")
        self._begin(self._look_up(message))

    async def _look_up(self, message: LookUp) -> None:
        answer = await resolve(message.name, LOOKUP_S)
        addresses = tuple(sorted(map(str, answer.addresses)))
        self.reply(Found(message.id, addresses, answer.error or ""))

    async def finish(self) -> None:
        """Nobody wants to know any more."""
        for task in self._tasks:
            task.cancel()


class Following(Deeds):
    """Follows the links in a path; says where it leads, and nothing of what is there."""

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        close_all(fds)
        if not isinstance(message, Follow) or not message.path.startswith("/"):
            raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")
        self.reply(Followed(os.path.realpath(message.path)))


class Attaching(Deeds):
    """Attaches a program that sees packets to a cgroup: both are given to it."""

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        try:
            if not isinstance(message, Attach) or len(fds) != 2:
                raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")
            self._attach(*fds)
        finally:
            close_all(fds)

    def _attach(self, program: int, cgroup: int) -> None:
        try:
            link = packets.attach(program, cgroup)
        except KernelError as error:
            self.reply(Attached(str(error)))
            return
        try:
            self.reply(Attached(""), (link,))
        finally:
            os.close(link)


class Hooks(Deeds):
    """Runs hook scripts and the sender of notifications, and ends them at their limit."""

    runs: Runs | None = None  # of this process
    _ran_script = False

    def __init__(self, peer: int, reply: Reply) -> None:
        super().__init__(peer, reply)
        self._by_id: dict[int, asyncio.Task[None]] = {}
        self._freezes: dict[int, cage.Freeze | None] = {}

    def take(self, message: Message, fds: tuple[int, ...]) -> None:
        if isinstance(message, Cancel):
            close_all(fds)
            if message.id in self._by_id:
                self._by_id[message.id].cancel()
            return
        if isinstance(message, Freeze):
            close_all(fds)
            freeze = self._freezes.get(message.id)
            if freeze is not None:
                freeze(message.frozen)
            return
        try:
            order = _order(message, fds)
        except BrokerError:
            close_all(fds)
            raise
        if os.geteuid() != 0:
            # URLs are secrets; a script of the same user is started by its descriptor.
            Hooks._ran_script |= order.script >= 0
            hide_memory(hidden=not Hooks._ran_script)
        task = self._begin(self._run(message.id, order, fds))  # type: ignore[union-attr]
        self._by_id[message.id] = task  # type: ignore[union-attr]
        task.add_done_callback(lambda _: self._by_id.pop(message.id, None))  # type: ignore[union-attr]

    async def _run(self, number: int, order: Order, fds: tuple[int, ...]) -> None:
        runs = Hooks.runs = Hooks.runs or Runs(cage.own_cgroup())
        started = time.monotonic_ns()

        def running(pid: int, freeze: cage.Freeze | None) -> None:
            self._freezes[number] = freeze
            self.reply(Running(number, pid, freeze is not None))

        try:
            result = await runs.run(order, running)
            error = ""
        except asyncio.CancelledError:
            result, error = _nothing(started), "it was ended"
        except (AegisError, OSError) as refused:
            result, error = _nothing(started), str(refused) or type(refused).__name__
        finally:
            self._freezes.pop(number, None)
            close_all(fds)
        self.reply(_ran(number, result, error))

    async def finish(self) -> None:
        await super().finish()
        if Hooks.runs is not None:
            await Hooks.runs.drain()


def _order(message: Message, fds: tuple[int, ...]) -> Order:
    if not isinstance(message, Run):
        raise BrokerError(f"{type(message).__name__}: none of this broker's deeds")
    if len(fds) != 1 + message.script:
        raise BrokerError("Run: not its descriptors")
    text = os.pread(fds[0], _TEXT_MAX + 1, 0)
    if len(text) > _TEXT_MAX:
        raise BrokerError(f"Run: more than {_TEXT_MAX} bytes of input")
    script = fds[1] if message.script else -1
    if script >= 0:
        status = os.fstat(script)
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BrokerError(f"{message.name}: others than root may have changed it")
    return Order(
        message.name, text, message.env, message.limit, message.uid, message.event_id, script
    )


def _nothing(started_ns: int) -> ScriptResult:
    return ScriptResult(0, None, False, time.monotonic_ns() - started_ns, b"", 0)


def _ran(number: int, result: ScriptResult, error: str) -> Ran:
    return Ran(
        id=number,
        pid=result.pid,
        ended=result.status is not None,
        status=result.status or 0,
        timed_out=result.timed_out,
        duration_ns=result.duration_ns,
        output=result.output.decode("utf-8", "surrogateescape"),
        output_bytes=result.output_bytes,
        uncaged=result.uncaged,
        error=error,
    )


DEEDS: dict[str, type[Deeds]] = {
    "kill": Killing,
    "sever": Severing,
    "names": Naming,
    "hooks": Hooks,
    "paths": Following,
    "attach": Attaching,
}
