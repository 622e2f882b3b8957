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
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from aegis.actions.budget import Budget
from aegis.actions.kill_tree import stop_descendants
from aegis.actions.processes import (
    TICK_NS,
    executed_files,
    read_stat,
    running_file,
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


class Killer:
    """Kills by *settings*, which may be replaced at any time; *outcomes* counts.

    The kernel's own kills count against the budget too. That the kernel has one
    as well is for when nobody reads its events, or not in time.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outcomes: Counter[KillStatus] = Counter()
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
        result = self._kill_by_pidfd(event)
        ended = result.status is KillStatus.GONE or result.detail == _RECYCLED
        if event.kill is KillBy.TRACING and ended:
            return KillResult(event.pid, KillStatus.KILLED, by=KillBy.TRACING)
        return result

    def _kill_by_pidfd(self, event: Event) -> KillResult:
        pid = event.pid
        if pid <= 1 or event.identity & IdentityFlag.KTHREAD:
            return KillResult(pid, KillStatus.PROTECTED, "init or a kernel thread")
        if pid == os.getpid():
            return KillResult(pid, KillStatus.PROTECTED, "Aegis itself")
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            return _could_not(pid, error)
        try:
            return self._refusal(event) or self._send(event, pidfd)
        except OSError as error:
            return _could_not(pid, error)
        finally:
            os.close(pidfd)

    def _refusal(self, event: Event) -> KillResult | None:
        pid = event.pid
        now = read_stat(pid)
        if now.is_kernel_thread:
            return KillResult(pid, KillStatus.PROTECTED, "a kernel thread")
        if now.start_ticks != event.start_boot_ns // TICK_NS:
            return KillResult(pid, KillStatus.OTHER, _RECYCLED)
        if now.has_ended:
            return KillResult(pid, KillStatus.GONE)
        if pid in spared_pids():
            return KillResult(pid, KillStatus.PROTECTED, "Aegis descends from it")
        known = event.inode and event.exec_boot_ns and not event.identity & _UNKNOWN_FILE
        if known and (event.device, event.inode) not in executed_files(pid):
            return KillResult(pid, KillStatus.OTHER, "it runs another program now")
        if self._is_listed(event):
            return KillResult(pid, KillStatus.PROTECTED, "never_kill lists it")
        # What the kernel has marked is dead already, or as good as.
        if event.kill is not KillBy.TRACING and not self._budget.left():
            detail = f"more than {self.settings.kill_budget} in a minute"
            return KillResult(pid, KillStatus.OVER_BUDGET, detail)
        return None

    def _is_listed(self, event: Event) -> bool:
        listed = self.settings.never_kill
        if not listed:
            return False
        if event.identity & _UNKNOWN_FILE:
            path, trusted = running_file(event.pid)
        else:
            path, trusted = event.path, bool(event.identity & IdentityFlag.TRUSTED)
        return is_never_killed(path, listed, trusted=trusted)

    def _send(self, event: Event, pidfd: int) -> KillResult:
        if not event.actions.kill_tree:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return KillResult(event.pid, KillStatus.KILLED)
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        descendants = stop_descendants(event.pid, self._spares())
        # Should the first one refuse, none may be left standing still.
        for fd in descendants.values():
            with suppress(OSError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return KillResult(event.pid, KillStatus.KILLED, descendants=len(descendants))

    def _spares(self) -> "_Spares":
        return _Spares(frozenset(spared_pids()), self.settings.never_kill)


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
