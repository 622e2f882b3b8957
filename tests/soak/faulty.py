# SPDX-License-Identifier: Apache-2.0
"""Commands of Aegis in which one system call fails, by ``faults.c``; also: which there are."""

import contextlib
import json
import mmap
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from tests.pace import HUNG_S

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = HUNG_S  # libbpf loads what was refused again, with the verifier's log
# What Python and the C library cannot live without: no program's code sees those fail.
NEVER_FAIL = (
    "brk mmap munmap mprotect mremap madvise futex rt_sigreturn sigaltstack exit exit_group "
    "set_robust_list rseq set_tid_address restart_syscall gettid getpid sched_yield arch_prctl "
    "prlimit64"
)
# struct plan and struct site of faults.c
_PLAN, _SITE, _SITES = struct.Struct("=QIIIIII"), struct.Struct("=QII232s"), 8192


@dataclass(frozen=True)
class Site:
    """A place in the code that makes a call; the *nth* time there it fails."""

    key: int
    call: str
    where: str
    nth: int = 1


def build(folder: Path) -> Path:
    library = folder / "faults.so"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
    command += [f"-I{sysconfig.get_path('include')}", "-o", str(library)]
    subprocess.run([*command, str(Path(__file__).with_name("faults.c"))], check=True)
    return library


def calls() -> dict[str, int]:
    """Names and numbers of all system calls."""
    text = subprocess.run(
        ["gcc", "-dM", "-E", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.finditer(r"^#define __NR_(\w+) (\d+)$", text, re.MULTILINE)
    return {match[1]: int(match[2]) for match in found}


class Plan:
    """What is to fail, shared with the process in which it does."""

    def __init__(self, numbers: dict[str, int]) -> None:
        size = _PLAN.size + _SITES * _SITE.size
        self.fd = os.memfd_create("aegis-soak-plan")
        os.ftruncate(self.fd, size)
        self._memory = mmap.mmap(self.fd, size)
        self._numbers = numbers
        self._names = {number: name for name, number in numbers.items()}

    def fail(self, site: Site) -> None:
        number = self._numbers[site.call]
        _PLAN.pack_into(self._memory, 0, site.key, site.nth, number, 0, 0, 0, 0)

    def record(self) -> None:
        self._memory[:] = bytes(len(self._memory))
        _PLAN.pack_into(self._memory, 0, 0, 0, 0, 1, 0, 0, 0)

    @property
    def was_hit(self) -> bool:
        return bool(_PLAN.unpack_from(self._memory)[6])

    def recorded(self) -> dict[Site, int]:
        """The sites, and how often each was passed."""
        found = {}
        for number in range(_SITES):
            place = _PLAN.size + number * _SITE.size
            key, call, times, where = _SITE.unpack_from(self._memory, place)
            if key:
                text = where.split(b"\0")[0].decode(errors="replace")
                found[Site(key, self._names[call], text)] = times
        return found

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)


class Command:
    """A running command, and what it says."""

    def __init__(self, zygote: "Zygote", words: list[str], plan: Plan | None) -> None:
        self._zygote = zygote
        read, write = os.pipe()
        self._stream = os.fdopen(read, "rb", buffering=0)
        try:
            self.pid = zygote.fork(words, write, plan)
        finally:
            os.close(write)
        self.said, self.hung, self.ended = "", False, False

    def wait(self, text: str | None, patience: float = 0.0) -> bool:
        """Read until it says *text*, or ends; whether it said that."""
        end = time.monotonic() + (patience or PATIENCE)
        while text is None or text not in self.said:
            if time.monotonic() > end:
                self.hung = True
                return False
            # What it started may hold its standard error longer than it lives. Looked at first: so
            # nothing that it said before its end is left unread.
            is_over = self._is_over()
            if not select.select([self._stream], [], [], 0.0 if is_over else 0.2)[0]:
                if is_over:
                    break
                continue
            piece = os.read(self._stream.fileno(), 65536)
            if not piece:
                break
            self.said += piece.decode(errors="replace")
        self.ended = text is None or text not in self.said
        return not self.ended

    def _is_over(self) -> bool:
        """Not waited for yet: there is still something in /proc."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "Z"

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)  # not waited for yet: still this one

    def end(self) -> int:
        """Its exit code; it is killed when it does not end."""
        if not self.hung:
            self.wait(None)
        if self.hung:
            self.signal(signal.SIGKILL)
        self._stream.close()
        return self._zygote.wait(self.pid)


class Zygote:
    """Where commands are forked."""

    def __init__(self, library: Path, left_out: list[int]) -> None:
        self._left_out = left_out
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.soak.zygote", str(theirs.fileno())]
            self._process = subprocess.Popen(
                [*command, str(library)], pass_fds=[theirs.fileno()], cwd=CHECKOUT
            )

    def fork(self, words: list[str], output: int, plan: Plan | None) -> int:
        """Standard output is nobody's where something is to fail."""
        request = {"words": words, "left_out": self._left_out}
        nothing = os.open("/dev/null", os.O_WRONLY)
        fds = [output, output] if plan is None else [nothing, output, plan.fd]
        socket.send_fds(self._channel, [json.dumps(request).encode()], fds)
        os.close(nothing)
        return int(self._channel.recv(64))

    def wait(self, pid: int) -> int:
        self._channel.send(json.dumps({"wait": pid}).encode())
        return int(self._channel.recv(64))

    def start(self, words: list[str], plan: Plan | None = None) -> Command:
        return Command(self, words, plan)

    def run(self, *words: str) -> tuple[int, str]:
        """The exit code of a command in which nothing fails, and what it says."""
        command = self.start(list(words))
        return command.end(), command.said

    def close(self) -> None:
        self._channel.close()
        self._process.wait()
