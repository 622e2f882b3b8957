# SPDX-License-Identifier: Apache-2.0
"""The stage of a soak: a cgroup, a network, probers that know what must happen, agents."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from aegis.events.history import History
from tests.kernel.agent import aegis
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import Network
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop, make_directory
from tests.pace import HUNG_S

ALLOWED, DENIED, FLOODED = 8086, 8087, 8088
PROBER, FLOODER = "soaked", "flooder"
READY = "aegis: ready"

POLICY = f"""
[global]
unconfigured_actions = ["log"]

[[app]]
exe = "{PROBER}"
ports = ["{ALLOWED}"]
actions = ["log", "block"]

[[app]]
exe = "{FLOODER}"
ports = ["{ALLOWED}"]
detent = 0
actions = ["log", "block"]
"""


@dataclass(frozen=True)
class Result:
    """Of one soak: *line* says it in figures."""

    ok: bool
    line: str


class SoakError(AssertionError):
    """What was promised did not happen."""


class Prober:
    """``prober steady``: attempts whose outcome is known beforehand."""

    def __init__(self, programs: Programs, program: Path) -> None:
        ports = (str(ALLOWED), str(DENIED))
        self._process = programs.start(program, "steady", "127.0.0.1", *ports)
        self.total: Counter[str] = Counter()
        self.gap_ms = 0.0

    def tally(self) -> Counter[str]:
        """What became of the attempts since the last call."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._add(self._process.stdout.readline())

    def _add(self, line: str) -> Counter[str]:
        answer = json.loads(line)
        self.gap_ms = max(self.gap_ms, answer.pop("gap"))
        fresh = Counter(answer)
        self.total += fresh
        return fresh

    def close(self) -> None:
        """End it; its last attempts count, too."""
        self._add(self._process.communicate(timeout=HUNG_S)[0])

    def said(self) -> str:
        """The totals in words; rates are averages."""
        sums, seconds = self.total, max(self.total["seconds"], 1e-9)
        return (
            f"{sums['refused'] + sums['passed']:,} denied ({sums['refused'] / seconds:,.0f}/s): "
            f"{sums['passed']} succeeded; {sums['out'] + sums['stopped']:,} allowed: "
            f"{sums['stopped']} failed"
        )


class Run:
    """One ``aegis run``; what it says goes through a pipe that is read as it comes."""

    def __init__(self, scene: "Scene", wrapper: Sequence[str] = (), flags: Sequence[str] = ()):
        command = [sys.executable, "-m", "aegis", "run", "-c", str(scene.policy), "--json"]
        command += ["--log", str(scene.log), "--history", str(scene.history)]
        command += ["--cgroup", str(scene.place), *flags]
        self.begun = time.monotonic()
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [*wrapper, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd="/",
        )

    def wait(self, text: str = READY) -> float:
        """Seconds since its start when it said *text*.

        :raises SoakError: when it ended without.
        """
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            if text in line:
                return time.monotonic() - self.begun
        raise SoakError(f"no {text!r}; the agent ended: {self.said}")

    def reload(self) -> float:
        """Seconds a reload took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGHUP)
        self.wait("aegis: reload")
        return time.monotonic() - begun

    def end(self, number: signal.Signals = signal.SIGKILL, patience: float = HUNG_S) -> int:
        """Send *number*, read what it still says; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, rest = self.process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise SoakError(f"the agent does not end: {self.said}") from None
        self.said += rest.splitlines()
        return self.process.returncode


class Scene:
    """``with Scene() as scene``; afterwards nothing is left."""

    def __init__(self, policy: str = POLICY) -> None:
        self._stack = contextlib.ExitStack()
        enter = self._stack.enter_context
        self.workshop = enter(closing(Workshop(make_directory())))
        self.network = enter(closing(Network()))
        self.scratch = enter(ScratchCgroup())
        self._stack.callback(self.unload)
        self.programs = enter(closing(Programs(self.scratch, self.network)))
        self.place = self.scratch.path
        self.folder = self.workshop.new_folder()
        self.policy = self.folder / "aegis.toml"
        self.log, self.history = self.folder / "log.jsonl", self.folder / "history.db"
        self.runs: list[Run] = []
        self._stack.callback(self._end_all)
        self.write_policy(policy)

    def write_policy(self, text: str) -> None:
        self.policy.write_text(text)
        self.policy.chmod(0o644)

    def prober(self) -> Prober:
        return Prober(self.programs, self.workshop.install(PROBER))

    def run(self, *wrapper: str, flags: Sequence[str] = ()) -> Run:
        """A new agent, which may not be ready yet."""
        started = Run(self, wrapper, flags)
        self.runs = [run for run in self.runs if run.process.poll() is None] + [started]
        return started

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return aegis(*words, cgroup=self.place)

    def unload(self) -> None:
        finished = self.command("unload")
        if finished.returncode:
            raise SoakError(f"unload failed: {finished.stderr}")

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return answer

    def records(self, notice: str | None = None) -> Iterator[dict[str, Any]]:
        """What is in the log: notices of that kind, or everything that is none."""
        for path in sorted(self.folder.glob("log.jsonl*")):
            with path.open() as file:
                for line in file:
                    record = json.loads(line)
                    if record["aegis"].get("notice") == notice:
                        yield record

    def balanced(self) -> dict[str, int]:
        """The counters, which must add up exactly while nobody connects.

        :raises SoakError: naming the sums.
        """
        finished = aegis("events", "--summary", "--history", self.history)
        if finished.returncode:
            raise SoakError(f"history was not brought up to date: {finished.stderr}")
        state = self.status()
        counters: dict[str, int] = state["counters"]
        decided, kept = counters["decided"], state["history"]
        sums = {
            "told": sum(counters[name] for name in ("emitted", "suppressed", "lost", "quiet")),
            "judged": sum(counters[name] for name in ("allowed", "blocked", "would_block")),
            "history": kept["taken"] + kept["pending"] + counters["history_lost"],
        }
        if any(total != decided for total in sums.values()):
            raise SoakError(f"{decided} decided, but {sums}")
        return counters

    def in_history(self) -> int:
        """Decisions in the file, those of programs it has forgotten included."""
        with closing(History(self.history, read_only=True)) as history:
            return history.totals().taken

    def _end_all(self) -> None:
        for run in self.runs:
            run.end()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
