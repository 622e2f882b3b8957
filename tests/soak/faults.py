# SPDX-License-Identifier: Apache-2.0
"""Each system call of a start, of the loop and of an end fails once, by strace.

An agent is stopped before its first own call, everything imported. A first run is recorded;
each call in it whose path or constants differ from those before is a site: where a loop makes
thousands of the same, its first one fails. Left out: what Python and the C library
cannot live without (memory, futexes, signals, ends) - no program's code sees those fail.
"""

import contextlib
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.programs import Talk
from tests.soak.scene import DENIED, PROBER, READY, Result, Scene, SoakError

LONG, SHORT = 0, 3  # sites; 0: every one
_PATIENCE = 40.0
_LOOP_S = 1.3  # long enough for each thing that is done every second
_NOT_OURS = (
    "brk mmap munmap mprotect mremap madvise futex rt_sigaction rt_sigprocmask rt_sigreturn "
    "sigaltstack exit exit_group set_robust_list rseq set_tid_address restart_syscall gettid "
    "getpid sched_yield arch_prctl prlimit64"
)
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)")
_TELLING = re.compile(r'"/[^"]*"|[A-Z][A-Z_]{3,}')  # paths, and names of constants

# Stops itself when all is imported; what comes then is the agent's own doing.
_LAUNCHER = """
import os, signal, sys
import aegis.agent, aegis.cli.main, aegis.cli.run
import concurrent.futures.thread, encodings.idna, stringprep
os.kill(os.getpid(), signal.SIGSTOP)
sys.exit(aegis.cli.main.main())
"""


@dataclass(frozen=True)
class Site:
    """The *number*-th call of that name; *adopted*: in a start that finds an agent's pins."""

    call: str
    number: int
    adopted: bool


# Where something was wrong once: tried each time.
FOUND = tuple(
    Site(call, 1, adopted=False) for call in ("clone3", "epoll_create1", "socket", "socketpair")
)


class _Traced:
    """An agent under strace, which records, or has *site* fail."""

    def __init__(self, scene: Scene, site: Site | None, record: Path | None = None) -> None:
        command = [sys.executable, "-c", _LAUNCHER, "run", "-c", str(scene.policy), "--json"]
        command += ["--log", str(scene.log), "--history", str(scene.history)]
        command += ["--cgroup", str(scene.place)]
        self.said = ""
        self.agent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, cwd="/",
        )  # fmt: skip
        os.waitid(os.P_PID, self.agent.pid, os.WSTOPPED | os.WNOWAIT)
        words = ["strace", "-f", "-p", str(self.agent.pid), "-o", str(record or "/dev/null")]
        if site is not None:
            words += ["-e", f"trace={site.call}"]
            words += ["-e", f"inject={site.call}:error=EIO:when={site.number}"]
        self._strace = subprocess.Popen(words, stderr=subprocess.PIPE)
        assert self._strace.stderr is not None
        if b"attached" not in self._strace.stderr.readline():
            raise SoakError("strace does not attach here")
        self.agent.send_signal(signal.SIGCONT)

    def wait(self) -> str:
        """``ready``, ``ended`` or ``hangs``."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if READY in self.said:
                return "ready"
            if self._read() == b"":
                return "ready" if READY in self.said else "ended"
        return "hangs"

    def _read(self) -> bytes | None:
        """More of what it says; empty at its end, None: nothing for now."""
        assert self.agent.stderr is not None
        if not select.select([self.agent.stderr], [], [], 0.5)[0]:
            return None if self.agent.poll() is None else b""
        piece = os.read(self.agent.stderr.fileno(), 65536)
        self.said += piece.decode(errors="replace")
        return piece

    def end(self) -> int:
        """Its exit code after SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self.agent.send_signal(signal.SIGTERM)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._read() != b"":
            pass
        if self.agent.poll() is None and time.monotonic() >= end:
            self.said += "\n(does not end)"
            self.agent.kill()
        code = self.agent.wait()
        self._strace.communicate()
        return code


def _sites(scene: Scene, *, adopted: bool) -> list[Site]:
    """Of one start, a second of its loop, and its end."""
    record = scene.folder / f"trace-{adopted}"
    traced = _Traced(scene, None, record)
    if traced.wait() != "ready":
        raise SoakError(f"no start under strace: {traced.said}")
    time.sleep(_LOOP_S)
    traced.end()
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], Site] = {}
    for line in record.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None or match[2] in _NOT_OURS.split():
            continue
        tracee, call, arguments = match.groups()
        counts[tracee, call] += 1
        shape = " ".join(_TELLING.findall(arguments.partition(") = ")[0]))
        shape = re.sub(r"\d+", "0", shape)
        found.setdefault((call, shape), Site(call, counts[tracee, call], adopted))
    return list(found.values())


class _Bench:
    """One site after the other."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._talk: Talk = scene.programs.talk(scene.workshop.install(PROBER))
        self.outcomes: Counter[str] = Counter()

    def _is_refused(self) -> bool:
        return not self._talk.reaches("udp-connect", "127.0.0.1", DENIED)

    def prepare(self, *, adopted: bool) -> None:
        """Nothing in force, or what an agent left."""
        self._scene.unload()
        if adopted:
            run = self._scene.run()
            run.wait()
            run.end(signal.SIGTERM)

    def fail(self, site: Site) -> str | None:
        """What is wrong after that site failed, if anything."""
        if not site.adopted or not self._is_refused():
            self.prepare(adopted=site.adopted)
        traced = _Traced(self._scene, site)
        came_to, wrong = traced.wait(), None
        if came_to == "ready":
            time.sleep(_LOOP_S)
            if traced.agent.poll() is None:
                wrong = self._judge_running()
        code = traced.end()
        self.outcomes[came_to if code == 0 or came_to != "ready" else "ended later"] += 1
        return wrong or self._judge_ended(site, traced, came_to, code)

    def _judge_running(self) -> str | None:
        """Enforcing, or saying that it is not."""
        problems = self._scene.status()["problems"]
        return None if self._is_refused() or problems else "ready, but does not enforce"

    def _judge_ended(self, site: Site, traced: _Traced, came_to: str, code: int) -> str | None:
        said = traced.said
        if came_to == "hangs" or "(does not end)" in said:
            return f"hangs: {said}"
        if "Traceback" in said or "Exception ignored" in said:
            return f"a traceback: {said}"
        if code and "aegis: " not in said.replace(READY, ""):
            return f"exit code {code} without a clear line: {said!r}"
        state = self._scene.status()
        refused = self._is_refused()
        if site.adopted and not refused:
            return f"what was in force is not any more: {said}"
        if came_to == "ended" and not site.adopted and (refused or state["loaded"]):
            return f"half of a start stays: {state['attached']} {said}"
        if not refused and not state["problems"]:
            return "not enforced, and status says nothing"
        return None


def run(count: int, seed: int) -> Result:
    """*count* sites out of all there are; 0: every one."""
    with Scene() as scene:
        bench = _Bench(scene)
        sites: list[Site] = []
        for adopted in (False, True):
            bench.prepare(adopted=adopted)
            sites += _sites(scene, adopted=adopted)
        total = len(sites)
        if count:
            sites = random.Random(seed).sample(sites, min(count, total))  # noqa: S311
            sites = sorted({*FOUND, *sites}, key=lambda site: (site.adopted, site.call))
        failed = []
        for site in sites:
            wrong = bench.fail(site)
            if wrong is not None:
                failed.append(f"{site}: {wrong}")
                print(failed[-1], file=sys.stderr, flush=True)
        told = ", ".join(f"{word} {times}" for word, times in sorted(bench.outcomes.items()))
    line = f"faults: {len(sites)} of {total} sites (seed {seed}) failed once: {told}; "
    return Result(not failed, line + f"{len(failed)} wrong")
