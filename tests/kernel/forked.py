# SPDX-License-Identifier: Apache-2.0
"""Commands of Aegis as copies of this process, where to start Python again takes far longer.

In a guest of ours, 6.12: an agent is ready after 7.5 s and not 14.8, and an unload takes 0.5 s
and not 5.2. What is copied is the same code, run by the same function; that a command also
starts as an administrator starts it is shown by the machine's own tests.
"""

import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import IO, NoReturn

from aegis.cli.main import COMMANDS, main

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_libc = ctypes.CDLL(None)


class Forked:
    """``aegis WORDS`` with standard output and error in these files, as a Popen of it."""

    def __init__(self, words: Sequence[str], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.args = ["aegis", *words]
        self.returncode: int | None = None
        _import_all()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(list(words), stdout.fileno(), stderr.fileno())

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative: the signal that ended it.

        :raises subprocess.TimeoutExpired: after *timeout* seconds
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._reap(0 if timeout is None else os.WNOHANG)) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reap(self, flags: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def run(words: Sequence[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    """One command to its end.

    :raises subprocess.TimeoutExpired: after *timeout* seconds; it is killed then
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = Forked(words, stdout, stderr)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(process.args, code, *texts)


def _import_all() -> None:
    for name in (*COMMANDS, "running"):
        import_module(f"aegis.cli.{name}")


def _be(words: list[str], stdout: int, stderr: int) -> NoReturn:
    """As after an exec: nothing open but the standard files, and signals as they begin."""
    code = 70  # of a defect, EX_SOFTWARE
    try:
        gc.freeze()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, found in enumerate((null, stdout, stderr)):
            os.dup2(found, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 until it ends
            for number, mode in enumerate("rww")
        )
        sys.argv = ["aegis", *words]
        code = main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # nothing of the test run may go on in here
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
