# SPDX-License-Identifier: Apache-2.0
"""Kill the process an event is about, and no other.

The connection was already refused in the kernel; this is about the process.
Between the event and here it may have ended, its number may belong to another
process, or it may run another program. A pidfd holds on to one process, so
what is true after opening it stays true until the signal.
"""

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from aegis.actions.budget import Budget
from aegis.actions.kill_tree import kill_descendants
from aegis.actions.processes import (
    TICK_NS,
    read_stat,
    running_file,
    runs_file,
    spared_pids,
)
from aegis.events.event import Event, IdentityFlag, KillBy
from aegis.policy.killing import is_never_killed
from aegis.policy.model import Settings

BUDGET_S = 60.0
_RECYCLED = "the number belongs to another process now"
_UNKNOWN_FILE = IdentityFlag.SEEDED | IdentityFlag.LOST


class KillStatus(StrEnum):
    KILLED = "killed"
    GONE = "gone"
    OTHER = "not-the-same-process"
    PROTECTED = "protected"
    OVER_BUDGET = "over-budget"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KillResult:
    """What became of a kill; *detail* says why not, in a few words."""

    pid: int
    status: KillStatus
    detail: str = ""
    by: KillBy = KillBy.AGENT
    descendants: int = 0  # killed with it


@dataclass(frozen=True, slots=True)
class KillOrder:
    """Whom to kill: all that tells one process from every other, and whom never to.

    *marked*: the kernel has killed it already, or as good as. *budget*: kills in a
    minute; *left*: whether there may be one more.
    """

    pid: int
    start_boot_ns: int
    exec_boot_ns: int
    identity: int
    device: int
    inode: int
    path: str
    tree: bool
    marked: bool
    never_kill: tuple[str, ...]
    budget: int
    left: bool


Executioner = Callable[[KillOrder], KillResult]


class Killer:
    """Kills by *settings*, which may be replaced at any time; *outcomes* counts.

    *executioner* does it, and has the right to. *is_ours*: whether an event is of a
    process of Aegis beside the agent. The kernel's own kills count against the budget
    too. That the kernel has one as well is for when nobody reads its events, or not in
    time.
    """

    def __init__(self, settings: Settings, executioner: Executioner | None = None) -> None:
        self.settings = settings
        self.executioner = executioner or Strike()
        self.outcomes: Counter[KillStatus] = Counter()
        self.is_ours: Callable[[Event], bool] = lambda _: False
        self._budget = Budget(settings.kill_budget, BUDGET_S)

    def kill(self, event: Event) -> KillResult:
        """See to it that the process of *event* is dead, whoever was to kill it.

        Never PID 1, a kernel thread, this process, one it descends from, or a
        program of ``never_kill``.
        """
        self._budget.limit = self.settings.kill_budget
        result = self._kill(event)
        if result.status is KillStatus.KILLED:
            self._budget.use()
        self.outcomes[result.status] += 1
        return result

    def counts(self) -> dict[str, int]:
        """Return how many kills came to what."""
        return {str(status): count for status, count in self.outcomes.items()}

    def _kill(self, event: Event) -> KillResult:
        if event.kill is KillBy.HOOK:
            return KillResult(event.pid, KillStatus.KILLED, by=KillBy.HOOK)
        # Whom the kernel has marked is dead, whoever it was.
        if event.kill is KillBy.AGENT and self.is_ours(event):
            return KillResult(event.pid, KillStatus.PROTECTED, "a helper of Aegis")
        result = self.executioner(self._order(event))
        ended = result.status is KillStatus.GONE or result.detail == _RECYCLED
        if event.kill is KillBy.TRACING and ended:
            return KillResult(event.pid, KillStatus.KILLED, by=KillBy.TRACING)
        return result

    def _order(self, event: Event) -> KillOrder:
        return KillOrder(
            pid=event.pid,
            start_boot_ns=event.start_boot_ns,
            exec_boot_ns=event.exec_boot_ns,
            identity=int(event.identity),
            device=event.device,
            inode=event.inode,
            path=event.path,
            tree=event.actions.kill_tree,
            marked=event.kill is KillBy.TRACING,
            never_kill=self.settings.never_kill,
            budget=self.settings.kill_budget,
            left=self._budget.left(),
        )


class Strike:
    """An :data:`Executioner` by pidfd. *ours*: processes of Aegis beside this one, and whom
    they descend from.
    """

    def __init__(self, ours: frozenset[int] = frozenset()) -> None:
        self._ours = ours

    def __call__(self, order: KillOrder) -> KillResult:
        """Kill, unless it is another process, or one that is spared."""
        pid = order.pid
        if pid <= 1 or order.identity & IdentityFlag.KTHREAD:
            return KillResult(pid, KillStatus.PROTECTED, "init or a kernel thread")
        if pid == os.getpid():
            return KillResult(pid, KillStatus.PROTECTED, "Aegis itself")
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            return _could_not(pid, error)
        try:
            return self._refusal(order) or self._send(order, pidfd)
        except OSError as error:
            return _could_not(pid, error)
        finally:
            os.close(pidfd)

    def _refusal(self, order: KillOrder) -> KillResult | None:
        pid = order.pid
        now = read_stat(pid)
        if now.is_kernel_thread:
            return KillResult(pid, KillStatus.PROTECTED, "a kernel thread")
        if now.start_ticks != order.start_boot_ns // TICK_NS:
            return KillResult(pid, KillStatus.OTHER, _RECYCLED)
        if now.has_ended:
            return KillResult(pid, KillStatus.GONE)
        if pid in self._spared():
            return KillResult(pid, KillStatus.PROTECTED, "Aegis descends from it")
        known = order.inode and order.exec_boot_ns and not order.identity & _UNKNOWN_FILE
        if known and not runs_file(pid, order.device, order.inode):
            return KillResult(pid, KillStatus.OTHER, "it runs another program now")
        if _is_listed(order):
            return KillResult(pid, KillStatus.PROTECTED, "never_kill lists it")
        # What the kernel has marked is dead already, or as good as.
        if not order.marked and not order.left:
            detail = f"more than {order.budget} in a minute"
            return KillResult(pid, KillStatus.OVER_BUDGET, detail)
        return None

    def _send(self, order: KillOrder, pidfd: int) -> KillResult:
        if not order.tree:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return KillResult(order.pid, KillStatus.KILLED)
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        descendants, detail = 0, ""
        try:
            spares = _Spares(frozenset(self._spared()), order.never_kill)
            descendants = kill_descendants(order.pid, spares)
        except OSError as error:
            detail = f"not all that descends from it: {error.strerror}"
        finally:  # whatever became of them
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return KillResult(order.pid, KillStatus.KILLED, detail, descendants=descendants)

    def _spared(self) -> set[int]:
        return spared_pids().union(*map(spared_pids, self._ours))


def _is_listed(order: KillOrder) -> bool:
    if not order.never_kill:
        return False
    if order.identity & _UNKNOWN_FILE:
        path, trusted = running_file(order.pid)
    else:
        path, trusted = order.path, bool(order.identity & IdentityFlag.TRUSTED)
    return is_never_killed(path, order.never_kill, trusted=trusted)


@dataclass(frozen=True, slots=True)
class _Spares:
    """Whether a descendant is passed over."""

    pids: frozenset[int]
    listed: tuple[str, ...]

    def __call__(self, pid: int) -> bool:
        if pid in self.pids:
            return True
        if not self.listed:
            return False
        try:
            path, trusted = running_file(pid)
        except OSError:  # it ended meanwhile
            return False
        return is_never_killed(path, self.listed, trusted=trusted)


def _could_not(pid: int, error: OSError) -> KillResult:
    # ENOENT: /proc/PID vanished. EINVAL from pidfd_open: the number is only a
    # thread's now, so the process of that number has ended.
    if isinstance(error, ProcessLookupError | FileNotFoundError) or error.errno == errno.EINVAL:
        return KillResult(pid, KillStatus.GONE)
    return KillResult(pid, KillStatus.FAILED, error.strerror or str(error))
