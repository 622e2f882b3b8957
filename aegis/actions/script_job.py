# SPDX-License-Identifier: Apache-2.0
"""One run of one hook script: started, watched, ended, its output kept.

The descriptor that was checked is what runs: ``/proc/self/fd/N``. For a ``#!``
script the interpreter opens that name itself, so the script sees descriptor N
(itself, read-only) beside 0, 1 and 2, and its ``$0`` is that name.
"""

import asyncio
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from aegis.actions.account import Account
from aegis.actions.cage import Cage
from aegis.errors import ScriptError
from aegis.spawn import Child, NoCgroupError, Program, spawn

OUTPUT_MAX = 4096
_PIPE_BYTES = 1024 * 1024
_DEATH_S = 1.0  # SIGKILL acts at once, but for a process stuck in the kernel


@dataclass(frozen=True, slots=True)
class Command:
    """What is run. *account*: as whom; None: as ourselves. *keep*: a descriptor it needs."""

    argv: Sequence[str | bytes]
    text: bytes  # its standard input
    env: Mapping[str, str]
    executable: str | None = None  # None: argv[0]
    keep: int | None = None
    account: Account | None = None
    cage: Cage | None = None  # where it is kept until all of it has ended


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """How a run ended. *status* as of ``subprocess``; None: it could not be ended."""

    pid: int
    status: int | None
    timed_out: bool
    duration_ns: int
    output: bytes  # the first OUTPUT_MAX
    output_bytes: int  # of all of it
    uncaged: str = ""  # why it had no cgroup of its own


def _nobody_asks(_pid: int) -> None:
    """The default for *started*."""


async def run_command(
    command: Command,
    limit: float,
    started: Callable[[int], None] = _nobody_asks,
    uncaged: str = "",
) -> ScriptResult:
    """Run *command* in a session of its own, for at most *limit* seconds.

    *started* is called with its PID; *uncaged* is passed on.

    When its first process ends, at the limit, or when cancelled, its whole
    process group is killed. A cage is the caller's to remove.

    :raises ScriptError: if it cannot be executed
    :raises NoCgroupError: if nothing can be put into its cage
    """
    try:
        process, output = await _start_beside(command)
    except NoCgroupError:
        raise
    except OSError as error:
        raise ScriptError(f"{os.fsdecode(command.argv[0])}: {_why_not(error)}") from None
    started(process.pid)
    result = await _watch(process, _Output(output), limit, command.cage)
    return replace(result, uncaged=uncaged)


async def _watch(
    process: Child, output: "_Output", limit: float, cage: Cage | None
) -> ScriptResult:
    started_ns = time.monotonic_ns()
    try:
        timed_out = not await _ended(process.pid, limit)
        with suppress(ProcessLookupError):
            # The first process is not reaped yet, so the group's number is ours.
            os.killpg(process.pid, signal.SIGKILL)
        if timed_out:
            await _ended(process.pid, _DEATH_S)
        if cage is not None:
            await cage.end(_DEATH_S)
        output.read_rest()
        return ScriptResult(
            pid=process.pid,
            status=process.poll(),
            timed_out=timed_out,
            duration_ns=time.monotonic_ns() - started_ns,
            output=bytes(output.kept),
            output_bytes=output.size,
        )
    finally:
        output.close()
        if process.returncode is None:
            if cage is not None:
                cage.kill()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_DEATH_S / 10)


async def _start_beside(command: Command) -> tuple[Child, int]:
    """As ``_start``, in a thread: putting it into a cgroup may take a while."""
    cage = command.cage
    if cage is None:
        return _start(command)
    starting = asyncio.ensure_future(asyncio.to_thread(_start, command))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):
            process, output = await starting
            os.close(output)
            cage.kill()
            process.wait(_DEATH_S)
        raise


def _start(command: Command) -> tuple[Child, int]:
    """Return the process, and the descriptor its output comes from."""
    stdin = readable(command.text)
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    account = command.account
    try:
        os.set_blocking(write_end, True)
        process = spawn(
            Program(
                command.executable or command.argv[0],
                command.argv,
                command.env,
                stdin,
                write_end,
                keep=-1 if command.keep is None else command.keep,
                cgroup=-1 if command.cage is None else command.cage.fd,
                user=None if account is None else (account.uid, account.gid, account.groups),
            )
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(stdin)
        os.close(write_end)
    return process, read_end


def _why_not(error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return "neither a program nor a script with a #! line"
    if error.errno == errno.ENOENT:
        return "its interpreter (#! line) does not exist"
    if error.errno == errno.EACCES:
        return "Permission denied: script_user must be able to read and execute it"
    return error.strerror or str(error)


def readable(text: bytes) -> int:
    """Return a read-only descriptor of *text*: a file, so that nobody has to feed it."""
    fd = os.memfd_create("aegis-event", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(text)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


async def _ended(pid: int, limit: float) -> bool:
    """Whether our child *pid* ended within *limit* seconds; it is not reaped."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(limit):  # wait_for() loses a cancellation (before 3.12)
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return True


class _Output:
    """The start of what comes out of a pipe; the rest is counted and thrown away."""

    def __init__(self, fd: int) -> None:
        self.kept = bytearray()
        self.size = 0
        self._fd = fd
        self._null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        with suppress(OSError):  # fewer wake-ups for a script that prints a lot
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Take what is there; whether there may be more."""
        room = OUTPUT_MAX - len(self.kept)
        try:
            if room:
                block = os.read(self._fd, room)
                self.kept += block
                count = len(block)
            else:  # never copied to user space
                count = os.splice(self._fd, self._null, _PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return False
        self.size += count
        if not count:
            self._loop.remove_reader(self._fd)
        return bool(count)

    def read_rest(self) -> None:
        """Take what is in the pipe, which at most is the pipe's size."""
        for _ in range(3):
            if not self._read():
                break

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        os.close(self._null)
