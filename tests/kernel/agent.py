# SPDX-License-Identifier: Apache-2.0
"""The real agent, started as an administrator would, and what it says."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from aegis import control
from aegis.actions.processes import children, read_stat
from aegis.bpf.cgroup import instance_name
from aegis.cli.main import make_parser
from tests.kernel import forked
from tests.kernel.forked import Forked
from tests.kernel.programs import Programs, Talk
from tests.kernel.settings import AT_ROOT, FORKED, PATIENCE

# A test run that is killed takes its agent along.
_WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")

LINE_MAX = 1 << 16  # no event is longer
_AGAIN_S = 6.0 if AT_ROOT else 1.0  # a fence that a full ring lost

Event = dict[str, Any]
Finished = subprocess.CompletedProcess[str]


def aegis(*words: str | Path, cgroup: Path | None = None) -> Finished:
    """One command of the command line, run to its end."""
    place = [] if cgroup is None or AT_ROOT else ["--cgroup", str(cgroup)]
    given = [*map(str, words), *place]
    if FORKED:
        return forked.run(given, PATIENCE)
    return subprocess.run(
        [sys.executable, "-m", "aegis", *given],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd="/",
    )


def line_start(file: BinaryIO, place: int) -> int:
    """Where the line begins that byte *place* of *file* is in; more may follow meanwhile."""
    before = file.seek(max(0, place - LINE_MAX))
    return place - len(file.read(place - before).rpartition(b"\n")[2])


def field(event: Event, name: str) -> Any:
    """The value at a dotted ECS name; None when it is absent."""
    value: Any = event
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def matches(event: Event, **wanted: object) -> bool:
    """Whether all fields have these values; ``process__pid`` stands for ``process.pid``."""
    return all(field(event, name.replace("__", ".")) == value for name, value in wanted.items())


class Agent:
    """``aegis run --json`` attached at *cgroup*. Its output goes to files in *folder*.

    *programs*: where a fence may run; *wrapper*: a command that ends by executing
    its arguments.
    """

    def __init__(
        self,
        policy: Path,
        cgroup: Path,
        folder: Path,
        programs: Programs | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._wrapper = wrapper
        self.policy = policy
        self.cgroup = cgroup
        self._programs = programs
        self._stdout = folder / "events.jsonl"
        self._stderr = folder / "stderr"
        self.log = folder / "log.jsonl"  # not the host's
        self.history = folder / "history.db"
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._fence: tuple[Path, Talk] | None = None
        self.fences = 0

    def start(self, *flags: str) -> None:
        """Return once verdicts are in force."""
        place = [] if AT_ROOT else ["--cgroup", str(self.cgroup)]
        words = ["run", "-c", str(self.policy), "--json", "--log", str(self.log)]
        words += ["--history", str(self.history), *place, *flags]
        begin = self._stderr.stat().st_size if self._stderr.exists() else 0
        with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
            self._process = self._spawn(words, stdout, stderr)
        self.wait_stderr("aegis: ready", begin)

    def _spawn(
        self, words: list[str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> "subprocess.Popen[bytes] | Forked":
        if FORKED and not self._wrapper:
            return Forked(words, stdout, stderr)
        return subprocess.Popen(
            [*_WITH_US, *self._wrapper, sys.executable, "-m", "aegis", *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd="/",
        )

    @property
    def instance(self) -> str:
        return "root" if AT_ROOT else instance_name(self.cgroup)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def starter(self) -> int | None:
        """Who starts its brokers: forked before anybody else, so its oldest child."""
        born = {}
        for pid in children().get(self.pid, ()):
            with contextlib.suppress(OSError):  # ended meanwhile
                born[pid] = read_stat(pid).start_ticks
        return min(born, key=lambda pid: born[pid], default=None)

    def stderr(self, begin: int = 0) -> str:
        """What it said to the administrator, from byte *begin* on."""
        return self._stderr.read_bytes()[begin:].decode(errors="replace")

    def wait_stderr(self, text: str, begin: int = 0) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while text not in self.stderr(begin):
            if self._process.poll() is not None and text not in self.stderr(begin):
                raise AssertionError(f"the agent ended: {self.stderr(begin)}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} on stderr; it said: {self.stderr(begin)}")
            time.sleep(0.02)

    def mark(self) -> int:
        """A place in the stream of events, for :meth:`events`: never inside a line.

        The agent may be in the middle of writing, after a flood for seconds.
        """
        with self._stdout.open("rb") as file:
            return line_start(file, file.seek(0, os.SEEK_END))

    def events(self, since: int = 0) -> list[Event]:
        """Every event written since *since*, each line parsed; all must be JSON objects."""
        return list(self.stream(since))

    def stream(self, since: int = 0) -> Iterator[Event]:
        """The same, one by one, for when there are too many to hold."""
        for event, _ in self._parse(since):
            yield event

    def _parse(self, since: int) -> Iterator[tuple[Event, int]]:
        """Each event, and the place after it; a line may be half written yet."""
        with self._stdout.open("rb") as file:
            file.seek(since)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                since += len(line)
                event = json.loads(line)
                assert isinstance(event, dict), line
                yield event, since

    def wait_event(self, since: int = 0, **wanted: object) -> Event:
        """The first event since *since* whose fields have these values."""
        event = self._find_event(since, PATIENCE, wanted)
        assert event is not None, f"no event with {wanted}; there were: {self._tail(since)}"
        return event

    def _find_event(self, since: int, patience: float, wanted: dict[str, object]) -> Event | None:
        deadline = time.monotonic() + patience
        while True:
            for event, after in self._parse(since):
                if matches(event, **wanted):
                    return event
                since = after
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)

    def settled_events(self, since: int = 0, **wanted: object) -> list[Event]:
        """All events with these values of what happened before this call, and no later ones."""
        self.settle()
        return [event for event in self.stream(since) if matches(event, **wanted)]

    def settle(self) -> None:
        """Wait until everything that happened before this call has been written.

        The ring keeps order: when an event of our own is out, so is all before it. A
        full ring loses ours as well, hence again.
        """
        assert self._fence is not None
        prober, talk = self._fence
        since, deadline = self.mark(), time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.fences += 1
            port = 40000 + self.fences
            assert talk.say(f"udp-send 127.0.0.1 {port}") == "OK"
            wanted = {"process__executable": str(prober), "destination__port": port}
            if self._find_event(since, _AGAIN_S, wanted) is not None:
                return
        raise AssertionError(f"events do not flow; the last ones: {self._tail(since)}")

    def set_fence(self, prober: Path) -> None:
        """*prober* has a rule that reports each of its connections (see ``policies``)."""
        assert self._programs is not None
        self._fence = (prober, self._programs.talk(prober))

    def _tail(self, since: int) -> str:
        lines = [
            f"{field(event, 'process.executable')} {field(event, 'destination')} "
            f"{field(event, 'aegis.verdict')} {field(event, 'rule.name')}"
            for event in deque(self.stream(since), maxlen=10)
        ]
        return "\n".join([*lines, self.stderr()[-2000:]])

    def status(self) -> dict[str, Any]:
        """What ``aegis status --json`` prints, in this process: to start one takes far longer."""
        place = [] if AT_ROOT else ["--cgroup", str(self.cgroup)]
        arguments = make_parser(["status"]).parse_args(["status", "--json", *place])
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = arguments.run(arguments)
        assert code == 0, printed.getvalue()
        answer = json.loads(printed.getvalue())
        assert isinstance(answer, dict)
        return answer

    def ask(self, request: str, **arguments: str | float | bool) -> dict[str, Any]:
        """By its control socket, without the cost of a command.

        :raises ControlError: with its refusal
        """
        return control.ask(self.instance, request, **arguments)

    def counters(self) -> dict[str, int]:
        """The kernel's counters."""
        counters = self.status()["counters"]
        assert isinstance(counters, dict)
        return counters

    def command(self, *words: str | Path) -> Finished:
        """``aegis WORDS`` about this agent's cgroup."""
        return aegis(*words, cgroup=self.cgroup)

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def reload(self) -> str:
        """By SIGHUP, without the cost of a command; what it said about it."""
        begin = self._stderr.stat().st_size
        self.send_signal(signal.SIGHUP)
        self.wait_stderr("aegis: reload", begin)
        return self.stderr(begin)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send *number* and return the exit code; what was enforced stays."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def close(self) -> None:
        """End it and take everything out of the kernel, whatever state it is in."""
        try:
            if self._process is not None:
                self.stop()
        finally:
            finished = self.command("unload", "--history", self.history)
        assert finished.returncode == 0, f"unload failed: {finished.stderr}"
