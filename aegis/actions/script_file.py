# SPDX-License-Identifier: Apache-2.0
"""Which files are hook scripts, and whether one may be run as root."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from aegis.errors import ScriptError

_LEFTOVERS = (".dpkg-", ".rpm")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_EXECUTE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def list_scripts(dirs: Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the executable files in *dirs*, in lexical order of their names.

    A missing directory holds none. Hidden files, ``~`` and what dpkg and rpm
    leave behind are not scripts. Nothing is checked: ``open_script`` does.
    """
    found: list[Path] = []
    for directory in dirs:
        try:
            names = os.listdir(directory)  # noqa: PTH208 (str, not Path: undecodable names)
        except (FileNotFoundError, NotADirectoryError):
            continue
        found += (Path(directory, name) for name in names if _is_script(directory, name))
    return tuple(sorted(found, key=lambda path: path.name))


def _is_script(directory: str | Path, name: str) -> bool:
    if name.startswith(".") or name.endswith("~") or any(word in name for word in _LEFTOVERS):
        return False
    try:
        mode = Path(directory, name).stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & _EXECUTE)


def find_script(dirs: Iterable[str | Path], name: str) -> Path:
    """Return the file ``script:NAME`` means; the first directory that has it wins.

    :raises ScriptError: if none has, or *name* is not a plain file name
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ScriptError(f"script:{name}: not a file name")
    dirs = tuple(dirs)
    for directory in dirs:
        if os.path.lexists(Path(directory, name)):
            return Path(directory, name)
    raise ScriptError(f"script:{name}: not found in {', '.join(map(str, dirs)) or 'script_dirs'}")


def open_script(path: Path) -> int:
    """Open *path* and return the descriptor that was checked, to be executed.

    The file and every directory above it: owned by root, not writable by group
    or others, no symlink. The file: regular, executable, one hard link.

    :raises ScriptError: naming what is wrong, and its mode
    """
    if not path.is_absolute() or ".." in path.parts:
        raise ScriptError(f"{path}: not an absolute path")
    where = Path("/")
    directory = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in path.parts[1:-1]:
            _check_owner(where, os.fstat(directory))
            where /= part
            below = _open_below(directory, where, os.O_DIRECTORY)
            os.close(directory)
            directory = below
        _check_owner(where, os.fstat(directory))
        # Not to wait for the writer of a FIFO.
        script = _open_below(directory, path, os.O_NONBLOCK)
    finally:
        os.close(directory)
    try:
        _check_file(path, os.fstat(script))
    except ScriptError:
        os.close(script)
        raise
    return script


def _open_below(directory: int, path: Path, flags: int) -> int:
    flags |= os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path.name, flags, dir_fd=directory)
    except OSError as error:
        reason = "is a symlink" if path.is_symlink() else error.strerror
        raise ScriptError(f"{path}: {reason}") from None


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != 0:
        raise ScriptError(f"{path}: owned by uid {status.st_uid}, not by root")
    if status.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        raise ScriptError(f"{path}: writable by group or others (mode {mode:04o})")


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ScriptError(f"{path}: not a regular file")
    _check_owner(path, status)
    if status.st_nlink != 1:
        raise ScriptError(f"{path}: has {status.st_nlink} hard links, must have one")
    if not status.st_mode & _EXECUTE:
        mode = stat.S_IMODE(status.st_mode)
        raise ScriptError(f"{path}: not executable (mode {mode:04o})")
