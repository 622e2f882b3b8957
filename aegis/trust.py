# SPDX-License-Identifier: Apache-2.0
"""Reading only what nobody but root can have written.

Every check is made on the open descriptor, and each directory is entered
through the descriptor of the one above: nothing can be swapped in between.
"""

import errno
import fcntl
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aegis.errors import AegisError

FILE_BYTES = 4 << 20  # read before anything is known about the file

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO put in the place of a file must not hang the agent.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class TrustError(AegisError):
    """A file, or a directory above it, that somebody else could have changed."""


@dataclass(frozen=True)
class Trust:
    """Whose files are used: *owner*'s, in directories of the same owner from *top* down."""

    owner: int = 0
    top: str = "/"

    def open(self, path: str, *, private: bool = False) -> int:
        """Open the file at the absolute *path* for reading; return the descriptor checked.

        *private*: nor may anybody else read it.

        :raises TrustError: naming the path at fault, its mode and owner
        :raises OSError: when it cannot be opened
        """
        with ExitStack() as stack:
            above = self._enter(stack, str(Path(path).parent))
            fd = _open(stack, path, _FILE | os.O_NOFOLLOW, above)
            status = os.fstat(fd)
            _check_regular(status, path)
            self._check_owner(status, path)
            if status.st_nlink != 1:
                raise TrustError(f"{path} has {status.st_nlink} hard links, not one")
            if private and status.st_mode & _OTHERS:
                mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
                raise TrustError(f"{path} is open to others ({mode}); chmod 0600 {path}")
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)

    def read(self, path: str, *, private: bool = False) -> bytes:
        """Return what the file at the absolute *path* holds; otherwise as ``open``."""
        fd = self.open(path, private=private)
        try:
            return _read_bounded(fd, path)
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """Return the names in the directory at the absolute *path*; raises as ``read``."""
        with ExitStack() as stack:
            return os.listdir(self._enter(stack, path))  # noqa: PTH208 (of a descriptor)

    def _enter(self, stack: ExitStack, path: str) -> int:
        """Open the directory *path*, having checked it and all above it from *top* down."""
        name = Path(self.top)
        fd = os.open(name, _DIRECTORY)
        stack.callback(os.close, fd)
        self._check_owner(os.fstat(fd), self.top)
        for step in Path(path).relative_to(self.top).parts:
            name /= step
            fd = _open(stack, str(name), _DIRECTORY, fd)
            self._check_owner(os.fstat(fd), str(name))
        return fd

    def _check_owner(self, status: os.stat_result, path: str) -> None:
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        if status.st_uid != self.owner:
            owner = "root" if self.owner == 0 else f"uid {self.owner}"
            raise TrustError(f"{path} is owned by uid {status.st_uid}, not by {owner} ({mode})")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            who = "others" if status.st_mode & stat.S_IWOTH else "its group"
            # A sticky directory (/tmp) is meant to be like that: keep no policy there.
            advice = "" if status.st_mode & stat.S_ISVTX else f"; chmod go-w {path}"
            raise TrustError(f"{path} is writable by {who} ({mode}){advice}")


ROOTS = Trust()


def read_any(path: str) -> bytes:
    """Return what the regular file at *path* holds, whoever wrote it; links are followed.

    :raises TrustError: when it is no regular file, or too large
    :raises OSError: when it cannot be opened or read
    """
    with ExitStack() as stack:
        fd = os.open(path, _FILE)
        stack.callback(os.close, fd)
        _check_regular(os.fstat(fd), path)
        return _read_bounded(fd, path)


def _open(stack: ExitStack, path: str, flags: int, above: int) -> int:
    """Open the last part of *path* in the directory *above*, until *stack* ends."""
    name = Path(path).name
    try:
        fd = os.open(name, flags, dir_fd=above)
    except OSError as error:
        # O_NOFOLLOW says ELOOP, with O_DIRECTORY ENOTDIR, which is also what a file gets.
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, above):
            raise TrustError(f"{path} is a symbolic link; name the file it leads to") from error
        raise
    stack.callback(os.close, fd)
    return fd


def _is_link(name: str, above: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise TrustError(f"{path} is {kind} (mode {stat.S_IMODE(status.st_mode):04o})")


def _read_bounded(fd: int, path: str) -> bytes:
    """Read all of *fd*; a file that grows while it is read is refused too."""
    with os.fdopen(fd, "rb", closefd=False) as file:
        content = file.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise TrustError(f"{path} is larger than {FILE_BYTES >> 20} MiB, the limit for one file")
    return content
