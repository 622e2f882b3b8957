# SPDX-License-Identifier: Apache-2.0
"""The event log: JSON lines, one write a batch, no line lost that memory can keep.

Synchronous: a write to a local disk is short, and the kernel neither waits for
us nor forgets. While writing fails, lines are kept (up to ``KEEP_BYTES``) and
tried again every half second; what is over is counted, and both are told once.
"""

import asyncio
import errno
import grp
import os
import stat
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from aegis.actions.notice import Tell, tell_nobody
from aegis.events.log_file import LOG_PATH

KEEP_BYTES = 8 * 1024 * 1024
RETRY_S = 0.5
_BATCH_BYTES = 1024 * 1024
_READERS = "adm"  # Debian's group of those who may read logs


class EventLog:
    """Appends lines to *path*, which may be moved away or removed at any time.

    Call ``flush`` after each batch of ``add``; ``flush_forever`` retries.
    """

    def __init__(self, path: Path = LOG_PATH, tell: Tell = tell_nobody) -> None:
        self.path = path
        self.written = 0  # lines
        self.lost = 0  # lines that no longer fitted in memory while writing failed
        self.error: OSError | None = None  # why writing fails at present
        self._tell = tell
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._due = asyncio.Event()
        self._fd = -1
        self._retry_at = 0.0
        self._lost_before = 0

    def add(self, line: str) -> None:
        """Keep *line*, which has no newline, for the next ``flush``."""
        raw = line.encode("ascii") + b"\n"
        if self._kept_bytes + len(raw) > KEEP_BYTES and self.error is None:
            self.flush()
        if self._kept_bytes + len(raw) > KEEP_BYTES:
            self.lost += 1
            return
        if not self._kept:
            self._due.set()
        self._kept.append(raw)
        self._kept_bytes += len(raw)

    def flush(self, *, now: bool = False) -> None:
        """Write what is kept. *now*: even if the last try failed a moment ago.

        Never raises for a disk that fails: that is told, and tried again.
        """
        if not self._kept or (not now and time.monotonic() < self._retry_at):
            return
        try:
            self._open_again_if_moved()
            while self._kept:
                self._write_batch()
        except OSError as error:
            self._failed(error)
        else:
            self._works()

    async def flush_forever(self, interval: float = RETRY_S / 2) -> None:
        """Flush *interval* seconds after something is kept, again and again, until cancelled.

        With nothing kept it sleeps: an idle host is not to be woken four times a second.
        """
        while True:
            await self._due.wait()
            await asyncio.sleep(interval)
            self.flush()
            if not self._kept:
                self._due.clear()

    def close(self) -> None:
        """Make a last attempt; what is still unwritten then counts as lost."""
        self.flush(now=True)
        self.lost += len(self._kept)
        self._kept.clear()
        self._kept_bytes = 0
        self._close_file()

    def _write_batch(self) -> None:
        batch: list[bytes] = []
        size = 0
        for line in self._kept:
            if batch and size + len(line) > _BATCH_BYTES:
                break
            batch.append(line)
            size += len(line)
        done, error = _write_all(self._fd, b"".join(batch))
        while self._kept and done >= len(self._kept[0]):
            line = self._kept.popleft()
            done -= len(line)
            self._kept_bytes -= len(line)
            self.written += 1
        if error is not None:
            if done:  # part of a line went in before the disk was full: take it back
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - done)
            raise error

    def _failed(self, error: OSError) -> None:
        # A torn line that could not be taken back is dealt with on opening.
        self._close_file()
        self._retry_at = time.monotonic() + RETRY_S
        first = self.error is None
        self.error = error
        if first:
            self._lost_before = self.lost
            reason = error.strerror or str(error)
            message = f"cannot write {self.path}: {reason}; keeping events in memory"
            self._tell("log-failed", message, {"event": {"outcome": "failure"}})

    def _works(self) -> None:
        if self.error is None:
            return
        self.error = None
        self._retry_at = 0.0
        lost = self.lost - self._lost_before
        message = f"writing {self.path} again; {lost} lines were lost"
        self._tell("log-restored", message, {"aegis": {"lost": lost}})
        self.flush()

    def _open_again_if_moved(self) -> None:
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                if os.path.samestat(self.path.stat(), os.fstat(self._fd)):
                    return
            self._close_file()
        self._fd = open_log(self.path)

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, text: bytes) -> tuple[int, OSError | None]:
    """Write *text*; return how many bytes went in, and why not all of them."""
    done = 0
    try:
        while done < len(text):
            done += os.write(fd, text[done:])
    except OSError as error:
        return done, error
    return done, None


def open_log(path: Path) -> int:
    """Open *path* for appending whole lines; made 0640 root:adm, its directory 0750.

    One that is there is given the same: what is in it from now on is no more for others
    than what is in a new one.
    :raises OSError: also when *path* is a symlink or no regular file
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, mode=0o750)
        _give_to_readers(path.parent, 0o750)
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o640)
        _give_to_readers(fd, 0o640)
    except FileExistsError:
        fd = os.open(path, flags)
    try:
        _end_torn_line(fd)
        if not _is_as_new(os.fstat(fd)):
            with suppress(PermissionError):  # as far as our rights go
                _give_to_readers(fd, 0o640)
    except OSError:
        os.close(fd)
        raise
    return fd


def _end_torn_line(fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
        os.write(fd, b"\n")


def _give_to_readers(target: int | Path, mode: int) -> None:
    # The umask of our unit leaves nothing to them.
    os.chmod(target, mode)  # noqa: PTH101 (it may be a descriptor)
    gid = _readers()
    if gid is not None:
        # The directory's set-group-ID bit does the same, and takes no capability.
        with suppress(PermissionError):
            os.chown(target, 0, gid)


def _is_as_new(status: os.stat_result) -> bool:
    gid = _readers()
    owned = gid is None or (status.st_uid, status.st_gid) == (0, gid)
    return owned and stat.S_IMODE(status.st_mode) == 0o640


def _readers() -> int | None:
    """Their group; None: there is none, or it is not ours to give."""
    with suppress(KeyError):
        return grp.getgrnam(_READERS).gr_gid if os.geteuid() == 0 else None
    return None
