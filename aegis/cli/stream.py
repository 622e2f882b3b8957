# SPDX-License-Identifier: Apache-2.0
"""Standard output and error of the agent: nobody who does not read them holds it up.

A journal that is stopped, a pager nobody scrolls, a terminal after Ctrl-S: a write
would block, and with it every reaction. What they do not take is kept for a while,
then counted; a reader that is gone is gone for good.
"""

import errno
import os
import select
import socket
import stat
import time
from collections import deque
from typing import Protocol

KEEP_BYTES = 1024 * 1024
END_S = 1.0  # at the end, for a reader that is only slow
# Where poll(2) says that something fits, so much does: in a pipe (pipe(7)), and in the buffer of a
# terminal, where room comes in pieces of 256 bytes (TTYB_ALIGN_MASK, tty_buffer.c).
_PIPE_CHUNK, _TERMINAL_CHUNK = select.PIPE_BUF, 128
_BATCH_BYTES = 65536


class Target(Protocol):
    """``sys.stdout``, or what a test put there."""

    @property
    def encoding(self) -> str: ...

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def fileno(self) -> int: ...
    def isatty(self) -> bool: ...


class Stream:
    """Writes lines to *target* (None: it was closed before we began), as far as they go.

    *error*: why nothing, or not all, goes there at present. *lost*: lines.
    """

    def __init__(self, target: Target | None) -> None:
        self.lost = 0
        self.error: OSError | None = None
        if target is None:
            self.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.is_gone = target is None
        self.encoding = (target and target.encoding) or "ascii"
        self._target = target
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._fd = -1
        self._socket: socket.socket | None = None
        self._most = _BATCH_BYTES  # in one write
        self._polled = False
        if target is not None:
            self._open(target)

    def isatty(self) -> bool:
        return self._target is not None and self._target.isatty()

    def write(self, text: str) -> None:
        """Whole lines. Never blocks, never raises."""
        raw = text.encode(self.encoding, "backslashreplace")
        if self._kept_bytes + len(raw) > KEEP_BYTES:
            self.flush()
        if self.is_gone or self._kept_bytes + len(raw) > KEEP_BYTES:
            self.lost += raw.count(b"\n")
            return
        self._kept.append(raw)
        self._kept_bytes += len(raw)

    def flush(self) -> None:
        """Write what is kept and fits."""
        if self._kept and not self.is_gone:
            try:
                while self._kept:
                    self._write_batch()
            except BlockingIOError as error:
                self.error = error
            except OSError as error:
                self._leave(error)
            else:
                self.error = None

    def close(self) -> None:
        """Flush for a moment; what nobody took then is lost."""
        end = time.monotonic() + END_S
        self.flush()
        while self._kept and not self.is_gone and time.monotonic() < end:
            time.sleep(0.01)
            self.flush()
        self._drop()

    def _open(self, target: Target) -> None:
        try:
            target.flush()
            fd = target.fileno()
            mode = os.fstat(fd).st_mode
        except OSError:  # of a test, in memory
            return
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            self._fd = _open_again(fd)
            self._polled = self._fd < 0
            if self._polled:
                self._most = _PIPE_CHUNK if stat.S_ISFIFO(mode) else _TERMINAL_CHUNK
        if self._fd < 0:
            self._fd = fd

    def _write_batch(self) -> None:
        batch: list[bytes] = []
        size, most = 0, self._most
        for block in self._kept:
            if batch and size + len(block) > most:
                break
            batch.append(block)
            size += len(block)
        done = self._write_twice(self._cut(b"".join(batch)))
        self._kept_bytes -= done
        while done:
            first = self._kept.popleft()
            if done < len(first):
                self._kept.appendleft(first[done:])
                return
            done -= len(first)

    def _cut(self, raw: bytes) -> bytes:
        """As much of it as one write is to take."""
        if self._most != _TERMINAL_CHUNK:
            return raw[: self._most]
        # A newline is two bytes there, for which room is asked anew: n_tty_write() waits for it.
        line, newline, _ = raw[: self._most].partition(b"\n")
        return line or newline

    def _write_twice(self, raw: bytes) -> int:
        try:
            return self._write(raw)
        except (BlockingIOError, BrokenPipeError):
            raise
        except OSError:
            return self._write(raw)  # a reader that is gone stays so; what failed once may not

    def _write(self, raw: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(raw, socket.MSG_DONTWAIT)
        if self._fd < 0 and self._target is not None:
            self._target.write(raw.decode(self.encoding))
            self._target.flush()
            return len(raw)
        if self._polled and not select.select([], [self._fd], [], 0)[1]:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._fd, raw)

    def _leave(self, error: OSError) -> None:
        self.error, self.is_gone = error, True
        self._drop()

    def _drop(self) -> None:
        self.lost += sum(block.count(b"\n") for block in self._kept)
        self._kept.clear()
        self._kept_bytes = 0


def _open_again(fd: int) -> int:
    """The same pipe or terminal with an O_NONBLOCK of its own; -1: not possible.

    Whoever else has *fd* open, a shell say, must not find it non-blocking.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return -1
