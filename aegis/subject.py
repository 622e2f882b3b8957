# SPDX-License-Identifier: Apache-2.0
"""Who a question is about: a program by path or name, or a running process."""

import os
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from aegis.errors import AegisError
from aegis.policy.model import KERNEL, Identity

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")
_SHEBANG_BYTES = 256  # of a script's first line, BINPRM_BUF_SIZE
_DELETED = " (deleted)"


@dataclass(frozen=True)
class Subject:
    """An identity, and what had to be assumed to get it."""

    identity: Identity
    notes: tuple[str, ...] = ()

    def noting(self, note: str) -> "Subject":
        return replace(self, notes=(*self.notes, note))


def by_name(exe: str, cmdline: str | None) -> Subject:
    """Any trusted file called *exe*; no rule by path is about it."""
    if "/" in exe:
        raise AegisError(f"{exe} is a path: use --path")
    argv = split(cmdline) if cmdline is not None else (exe,)
    found = Subject(Identity(exe=exe, argv=argv))
    return found.noting(
        "assumed a file owned by root in the host's own root; no rule by path is"
        " considered (--path judges a real file)"
    )


def by_path(path: str, cmdline: str | None) -> Subject:
    """The file at *path* as the kernel would see it executed: no links, no script."""
    if path == KERNEL:
        return Subject(Identity(path=KERNEL))
    if not path.startswith("/"):
        raise AegisError(f"{path} is not an absolute path: use --exe for a name")
    argv = split(cmdline) if cmdline is not None else (path,)
    interpreter = read_shebang(path)
    if interpreter:
        return _script(path, interpreter, argv)
    real = os.path.realpath(path)
    false = argv[0] not in (path, Path(path).name)
    subject = Subject(Identity(path=real, exe=Path(real).name, argv=argv, argv0_false=false))
    if false:
        subject = subject.noting(f'"{argv[0]}" is not {path}: no rule by cmdline is considered')
    if real != path:
        subject = subject.noting(f"{path} is a link to {real}, which is what the kernel sees")
    return _with_trust(subject, real)


def by_pid(pid: int, proc: Path = Path("/proc")) -> Subject:
    """The process *pid* as it is now.

    :raises AegisError: if there is none, or it may not be looked at
    """
    entry = proc / str(pid)
    try:
        path = str((entry / "exe").readlink())
        status = (entry / "exe").stat()
        cmdline = (entry / "cmdline").read_bytes()
        root = str((entry / "root").readlink())
        user = _real_uid((entry / "status").read_text("utf-8", "replace"))
        unit = read_unit((entry / "cgroup").read_text("utf-8", "surrogateescape"))
    except FileNotFoundError:
        raise AegisError(f"no process {pid}, or a kernel thread") from None
    except OSError as error:
        raise AegisError(f"process {pid}: {error.strerror}: this needs root") from None
    if status.st_nlink == 0:
        path = path.removesuffix(_DELETED)
    argv = tuple(os.fsdecode(word) for word in cmdline.split(b"\0")[:-1])
    host_fs = _is_same_file(path, status)
    identity = Identity(path, Path(path).name, argv, None, user, unit, host_fs)
    if root != "/" and path.startswith(f"{root}/"):
        identity = replace(identity, inner_path=path.removeprefix(root))
    subject = Subject(replace(identity, trusted=host_fs and is_trusted(status)))
    if not host_fs:
        subject = subject.noting(f"{path} is not that file in the host's own root")
    return subject.noting(
        "the process as it is now: the kernel keeps what it was when it was executed"
    )


def split(cmdline: str) -> tuple[str, ...]:
    """The arguments that, joined by one space, are *cmdline*."""
    return tuple(cmdline.split(" "))


def is_trusted(status: os.stat_result) -> bool:
    """Owned by root, not writable by group or others."""
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(status.st_mode) and status.st_uid == 0 and not writable


def read_shebang(path: str) -> tuple[str, ...]:
    """The interpreter of the script at *path*, and its one argument; empty: no script."""
    try:
        with Path(path).open("rb") as file:
            line = file.read(_SHEBANG_BYTES).partition(b"\n")[0]
    except OSError:
        return ()
    if not line.startswith(b"#!"):
        return ()
    return tuple(os.fsdecode(word) for word in line[2:].strip(b" \t").split(None, 1))


def read_unit(cgroup: str) -> str | None:
    """The systemd unit in the text of /proc/PID/cgroup, named as the kernel side does."""
    for line in cgroup.splitlines():
        number, _, path = line.partition("::")
        if number == "0":
            parts = [part for part in path.split("/") if part]
            units = [part for part in parts if part.endswith(_UNIT_SUFFIXES)]
            slices = [part for part in parts if part.endswith(".slice")]
            # The outermost unit; a user's own manager names the ones inside.
            return next(iter(units + slices[::-1] + parts[::-1]), None)
    return None


def _script(path: str, interpreter: tuple[str, ...], argv: tuple[str, ...]) -> Subject:
    """*path* run by *interpreter*: the kernel sees that file, and the script in its arguments."""
    rest = argv[1:]
    if Path(interpreter[0]).name == "env" and len(interpreter) > 1:
        # env executes the interpreter anew; the kernel side follows the script through it.
        program = interpreter[1].removeprefix("-S").split()
        found = shutil.which(program[0], path=_SEARCH) or program[0]
        index, words = len(program), (*program, path, *rest)
    else:
        found = interpreter[0]
        index, words = len(interpreter), (*interpreter, path, *rest)
    real = os.path.realpath(found)
    identity = Identity(path=real, exe=Path(real).name, argv=words, script_index=index)
    note = f"{path} is a script: the kernel sees {real}"
    return _with_trust(Subject(identity).noting(note), real)


def _with_trust(subject: Subject, path: str) -> Subject:
    try:
        status = Path(path).stat()
    except OSError as error:
        return subject.noting(f"{path}: {error.strerror}: assumed owned by root")
    identity = replace(subject.identity, trusted=is_trusted(status))
    return replace(subject, identity=identity)


def _is_same_file(path: str, status: os.stat_result) -> bool:
    """Whether *path* leads us to the file of *status*: then it is the host's own.

    A deleted file, as after an upgrade, leads nowhere: its directory must do.
    """
    try:
        ours = Path(path).stat()
    except OSError:
        return False
    if status.st_nlink == 0:
        return ours.st_dev == status.st_dev
    return (ours.st_dev, ours.st_ino) == (status.st_dev, status.st_ino)


def _real_uid(status: str) -> int:
    """The uid a connection is made with, from the text of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    raise AegisError("/proc/PID/status has no Uid line")
