# SPDX-License-Identifier: Apache-2.0
"""Kill the process an event is about, and no other.

The connection was already refused in the kernel; this is about the process.
Between the event and here it may have ended, its number may belong to another
process, or it may run another program. A pidfd holds on to one process, so
what is true after opening it stays true until the signal.
"""

import errno
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from aegis.events.event import Event, IdentityFlag, KillBy

_PROC = Path("/proc")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PF_KTHREAD = 0x00200000
_PF_SIGNALED = 0x00000400  # killed by a signal, on its way out
_RECYCLED = "the number belongs to another process now"
_UNKNOWN_FILE = IdentityFlag.SEEDED | IdentityFlag.LOST


class KillStatus(StrEnum):
    KILLED = "killed"
    GONE = "gone"
    OTHER = "not-the-same-process"
    PROTECTED = "protected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KillResult:
    """What became of a kill; *detail* says why not, in a few words."""

    pid: int
    status: KillStatus
    detail: str = ""
    by: KillBy = KillBy.AGENT


@dataclass(frozen=True, slots=True)
class _Stat:
    """The fields of /proc/PID/stat that decide, by their number in proc(5)."""

    state: str  # 3
    ppid: int  # 4
    flags: int  # 9
    threads: int  # 20
    start_ticks: int  # 22
    pending: int  # 31, bit 0 is signal 1

    @property
    def has_ended(self) -> bool:
        """Or is bound to: nothing stops a SIGKILL. A leader alone may end before its threads."""
        killed = self.flags & _PF_SIGNALED or self.pending >> (signal.SIGKILL - 1) & 1
        return bool(killed) or (self.state in "ZX" and self.threads <= 1)


def spared_pids() -> set[int]:
    """This process and those it descends from: killing them would end Aegis, or lock its

    administrator out. Whoever adopts an orphan is among its ancestors already (a
    subreaper, init), so the set never grows.
    """
    return {os.getpid(), *ancestors()}


def kill_process(event: Event) -> KillResult:
    """See to it that the process of *event* is dead, whoever was to kill it."""
    if event.kill is KillBy.HOOK:
        return KillResult(event.pid, KillStatus.KILLED, by=KillBy.HOOK)
    result = _kill_by_pidfd(event)
    ended = result.status is KillStatus.GONE or result.detail == _RECYCLED
    if event.kill is KillBy.TRACING and ended:
        return KillResult(event.pid, KillStatus.KILLED, by=KillBy.TRACING)
    return result


def _kill_by_pidfd(event: Event) -> KillResult:
    """Send SIGKILL to the process of *event* if it still is that process.

    Never to PID 1, a kernel thread, this process or one it descends from.
    """
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
        refusal = _refusal(event)
        if refusal is not None:
            return refusal
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError as error:
        return _could_not(pid, error)
    finally:
        os.close(pidfd)
    return KillResult(pid, KillStatus.KILLED)


def _could_not(pid: int, error: OSError) -> KillResult:
    # ENOENT: /proc/PID vanished. EINVAL from pidfd_open: the number is only a
    # thread's now, so the process of that number has ended.
    if isinstance(error, ProcessLookupError | FileNotFoundError) or error.errno == errno.EINVAL:
        return KillResult(pid, KillStatus.GONE)
    return KillResult(pid, KillStatus.FAILED, error.strerror or str(error))


def _refusal(event: Event) -> KillResult | None:
    pid = event.pid
    now = _read_stat(pid)
    if now.flags & _PF_KTHREAD:
        return KillResult(pid, KillStatus.PROTECTED, "a kernel thread")
    if now.start_ticks != event.start_boot_ns // _TICK_NS:
        return KillResult(pid, KillStatus.OTHER, _RECYCLED)
    if now.has_ended:
        return KillResult(pid, KillStatus.GONE)
    if pid in ancestors():
        return KillResult(pid, KillStatus.PROTECTED, "Aegis descends from it")
    if event.inode and event.exec_boot_ns and not event.identity & _UNKNOWN_FILE:
        files = _executed_files(pid)
        if (event.device, event.inode) not in files:
            return KillResult(pid, KillStatus.OTHER, "it runs another program now")
    return None


def _read_stat(pid: int) -> _Stat:
    # The name, field 2, may hold anything, also ") R 1": the last ")" ends it.
    fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    numbers = {number: fields[number - 3] for number in (3, 4, 9, 20, 22, 31)}
    return _Stat(
        state=numbers[3].decode(),
        ppid=int(numbers[4]),
        flags=int(numbers[9]),
        threads=int(numbers[20]),
        start_ticks=int(numbers[22]),
        pending=int(numbers[31]),
    )


def ancestors() -> set[int]:
    """Whom this process descends from, up to but without PID 1."""
    found: set[int] = set()
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = _read_stat(pid).ppid
        except OSError:  # ended; what was above it no longer is
            break
    return found


def _executed_files(pid: int) -> set[tuple[int, int]]:
    """Return the (device, inode) of the file *pid* runs, in the kernel's terms.

    Two, where stat(2) and the kernel differ: btrfs subvolumes and overlayfs
    show a made-up device.
    """
    for exe in _exe_links(pid):
        with suppress(FileNotFoundError):
            fd = os.open(exe, os.O_PATH | os.O_CLOEXEC)
            break
    else:
        raise FileNotFoundError  # no thread is left
    try:
        status = os.fstat(fd)
        seen = {(os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino)}
        info = (_PROC / "self" / "fdinfo" / str(fd)).read_text()
    finally:
        os.close(fd)
    mount = re.search(r"^mnt_id:\s+(\d+)$", info, re.MULTILINE)
    inode = re.search(r"^ino:\s+(\d+)$", info, re.MULTILINE)  # since v5.14
    device = _mount_device(pid, mount[1]) if mount else None
    if device is not None:
        seen.add((device, int(inode[1]) if inode else status.st_ino))
    return seen


def _exe_links(pid: int) -> Iterator[Path]:
    yield _PROC / str(pid) / "exe"
    # A leader that has ended has no exe; its other threads still run one.
    for task in (_PROC / str(pid) / "task").iterdir():
        yield task / "exe"


def _mount_device(pid: int, mount_id: str) -> int | None:
    """Return the kernel's device of the mount; None for an internal one (memfd)."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "mountinfo").read_bytes().splitlines():
            fields = line.split(b" ", 3)
            if fields[0].decode() == mount_id:
                major, minor = fields[2].split(b":")
                return int(major) << 20 | int(minor)
    return None
