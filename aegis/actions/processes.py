# SPDX-License-Identifier: Apache-2.0
"""What /proc says of processes, as far as it decides who may be killed.

Only a pidfd makes it safe to act on: open that first, then read.
"""

import os
import re
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_DELETED = " (deleted)"
_PF_KTHREAD = 0x00200000
_PF_SIGNALED = 0x00000400  # killed by a signal, on its way out


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that decide, by their number in proc(5)."""

    state: str  # 3
    ppid: int  # 4
    flags: int  # 9
    threads: int  # 20
    start_ticks: int  # 22
    pending: int  # 31, bit 0 is signal 1

    @property
    def is_kernel_thread(self) -> bool:
        return bool(self.flags & _PF_KTHREAD)

    @property
    def has_ended(self) -> bool:
        """Or is bound to: nothing stops a SIGKILL. A leader alone may end before its threads."""
        killed = self.flags & _PF_SIGNALED or self.pending >> (signal.SIGKILL - 1) & 1
        return bool(killed) or (self.state in "ZX" and self.threads <= 1)


def read_stat(pid: int) -> Stat:
    """:raises OSError: when there is no such process."""
    # The name, field 2, may hold anything, also ") R 1": the last ")" ends it.
    fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    numbers = {number: fields[number - 3] for number in (3, 4, 9, 20, 22, 31)}
    return Stat(
        state=numbers[3].decode(),
        ppid=int(numbers[4]),
        flags=int(numbers[9]),
        threads=int(numbers[20]),
        start_ticks=int(numbers[22]),
        pending=int(numbers[31]),
    )


def children() -> dict[int, list[int]]:
    """Return the processes of this moment by their parent."""
    found: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                found.setdefault(read_stat(int(entry.name)).ppid, []).append(int(entry.name))
    return found


def spared_pids(pid: int = 0) -> set[int]:
    """*pid* (0: this process) and those it descends from: killing them would end Aegis, or
    lock its administrator out.

    Whoever adopts an orphan is among its ancestors already (a subreaper, init),
    so the set never grows.
    """
    return {pid or os.getpid(), *ancestors(pid)}


def ancestors(of: int = 0) -> set[int]:
    """Whom process *of* (0: this one) descends from, up to but without PID 1."""
    found: set[int] = set()
    try:
        pid = read_stat(of).ppid if of else os.getppid()
    except OSError:
        return found
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = read_stat(pid).ppid
        except OSError:  # ended; what was above it no longer is
            break
    return found


def running_file(pid: int) -> tuple[str, bool]:
    """Return the path of the file *pid* runs, and whether it is root's alone.

    Of one that is no longer there, a package's before its upgrade say, where it was.
    :raises OSError: when there is no such process
    """
    exe = next(_exe_links(pid))
    path = os.fsdecode(os.readlink(os.fsencode(exe)))  # noqa: PTH115 (any bytes)
    status = exe.stat()
    if not status.st_nlink:  # else it is its name: anybody may call a file so
        path = path.removesuffix(_DELETED)
    trusted = status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return path, trusted


def runs_file(pid: int, device: int, inode: int) -> bool:
    """Whether *pid* runs the file of these numbers, which are the kernel's own.

    They are asked for two ways, where stat(2) shows others: of btrfs subvolumes and
    overlayfs a made-up device. The second reads all mounts of *pid*, of which it may
    have made as many as it likes, so only if need be.
    :raises OSError: when there is no such process
    """
    for exe in _exe_links(pid):
        with suppress(FileNotFoundError):
            fd = os.open(exe, os.O_PATH | os.O_CLOEXEC)
            break
    else:
        raise FileNotFoundError  # no thread is left
    try:
        status = os.fstat(fd)
        shown = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
        if (shown, status.st_ino) == (device, inode):
            return True
        info = (_PROC / "self" / "fdinfo" / str(fd)).read_text()
    finally:
        os.close(fd)
    mount = re.search(r"^mnt_id:\s+(\d+)$", info, re.MULTILINE)
    own = re.search(r"^ino:\s+(\d+)$", info, re.MULTILINE)  # since v5.14
    if mount is None or (int(own[1]) if own else status.st_ino) != inode:
        return False
    return _mount_device(pid, mount[1]) == device


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
