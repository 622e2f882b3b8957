# SPDX-License-Identifier: Apache-2.0
"""The real agent, started as an administrator would, and what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.kernel.programs import Programs, Talk
from tests.kernel.settings import AT_ROOT, PATIENCE

Event = dict[str, Any]
Finished = subprocess.CompletedProcess[str]


def aegis(*words: str | Path, cgroup: Path | None = None) -> Finished:
    """One command of the command line, run to its end."""
    place = [] if cgroup is None or AT_ROOT else ["--cgroup", str(cgroup)]
    return subprocess.run(
        [sys.executable, "-m", "aegis", *map(str, words), *place],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd="/",
    )


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

    *wrapper*: a command that ends by executing its arguments.
    """

    def __init__(
        self,
        policy: Path,
        cgroup: Path,
        folder: Path,
        programs: Programs,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._wrapper = wrapper
        self.policy = policy
        self.cgroup = cgroup
        self._programs = programs
        self._stdout = folder / "events.jsonl"
        self._stderr = folder / "stderr"
        self._process: subprocess.Popen[bytes] | None = None
        self._fence: tuple[Path, Talk] | None = None
        self._fence_port = 40000

    def start(self, *flags: str) -> None:
        """Return once verdicts are in force."""
        place = [] if AT_ROOT else ["--cgroup", str(self.cgroup)]
        argv = [sys.executable, "-m", "aegis", "run", "-c", str(self.policy), "--json"]
        begin = self._stderr.stat().st_size if self._stderr.exists() else 0
        with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*self._wrapper, *argv, *place, *flags],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd="/",
            )
        self.wait_stderr("aegis: ready", begin)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stderr(self, begin: int = 0) -> str:
        """What it said to the administrator, from byte *begin* on."""
        return self._stderr.read_bytes()[begin:].decode(errors="replace")

    def wait_stderr(self, text: str, begin: int = 0) -> None:
        def said() -> bool:
            assert self._process is not None
            if self._process.poll() is not None and text not in self.stderr(begin):
                raise AssertionError(f"the agent ended: {self.stderr(begin)}")
            return text in self.stderr(begin)

        self._wait(said, f"{text!r} on stderr; it said: ", lambda: self.stderr(begin))

    def mark(self) -> int:
        """A place in the stream of events, for :meth:`events`."""
        return self._stdout.stat().st_size

    def events(self, since: int = 0) -> list[Event]:
        """Every event written since *since*, each line parsed; all must be JSON objects."""
        return list(self._parse(self._stdout.read_bytes()[since:]))

    def _parse(self, text: bytes) -> Iterator[Event]:
        whole = text[: text.rfind(b"\n") + 1]  # a line may be half written
        for line in whole.splitlines():
            event = json.loads(line)
            assert isinstance(event, dict), line
            yield event

    def wait_event(self, since: int = 0, **wanted: object) -> Event:
        """The first event since *since* whose fields have these values."""
        found: list[Event] = []

        def seen() -> bool:
            found[:] = [event for event in self.events(since) if matches(event, **wanted)]
            return bool(found)

        self._wait(seen, f"an event with {wanted}; there were: ", lambda: self._tail(since))
        return found[0]

    def settled_events(self, since: int = 0, **wanted: object) -> list[Event]:
        """All events with these values of what happened before this call, and no later ones.

        The ring keeps order: when an event of our own is out, so is all before it.
        """
        self._pass_fence()
        return [event for event in self.events(since) if matches(event, **wanted)]

    def set_fence(self, prober: Path) -> None:
        """*prober* has a rule that reports each of its connections (see ``policies``)."""
        self._fence = (prober, self._programs.talk(prober))

    def _pass_fence(self) -> None:
        assert self._fence is not None
        prober, talk = self._fence
        self._fence_port += 1
        since = self.mark()
        assert talk.say(f"udp-send 127.0.0.1 {self._fence_port}") == "OK"
        self.wait_event(
            since,
            process__executable=str(prober),
            destination__port=self._fence_port,
        )

    def _tail(self, since: int) -> str:
        lines = [
            f"{field(event, 'process.executable')} {field(event, 'destination')} "
            f"{field(event, 'aegis.verdict')} {field(event, 'rule.name')}"
            for event in self.events(since)[-10:]
        ]
        return "\n".join([*lines, self.stderr()[-2000:]])

    def _wait(self, done: Callable[[], bool], what: str, context: Callable[[], str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what}{context()}")
            time.sleep(0.02)

    def status(self) -> dict[str, Any]:
        finished = self.command("status", "--json")
        assert finished.returncode == 0, finished.stderr
        answer = json.loads(finished.stdout)
        assert isinstance(answer, dict)
        return answer

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
            finished = self.command("unload")
        assert finished.returncode == 0, f"unload failed: {finished.stderr}"
