# SPDX-License-Identifier: Apache-2.0
"""Which files are hook scripts, and whether one may be run as root."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from aegis.errors import ScriptError
from aegis.trust import ROOTS, TrustError

_LEFTOVERS = (".dpkg-", ".rpm")
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

    :raises ScriptError: naming what is wrong, and its mode
    """
    if not path.is_absolute() or ".." in path.parts:
        raise ScriptError(f"{path}: not an absolute path")
    try:
        script = ROOTS.open(str(path))
    except TrustError as error:
        raise ScriptError(str(error)) from None
    except OSError as error:
        raise ScriptError(f"{path}: {error.strerror}") from None
    mode = os.fstat(script).st_mode
    if not mode & _EXECUTE:
        os.close(script)
        raise ScriptError(f"{path} is not executable (mode {stat.S_IMODE(mode):04o})")
    return script
