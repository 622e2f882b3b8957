# SPDX-License-Identifier: Apache-2.0
"""Each system call of a start, of the loop, of a reload, of an end and of `aegis load` fails once.

A site is a place in the code: the call, those in C that made it, those in Python. A first run
of each scene records them; then each fails the first time it is passed, and where it is passed
more often another time, too, in the middle. Several agents at a time, each in its own cgroup.

In the environment: AEGIS_SOAK_WORKERS, how many at a time; AEGIS_SOAK_PART=K/N, the K-th of N
parts of all sites; AEGIS_SOAK_ONLY=TEXT, the sites in whose name that is. A site is in the same
part each time: its number is made of the places in the code.
"""

import contextlib
import json
import os
import queue
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from aegis.bpf.cgroup import instance_name
from aegis.bpf.pins import all_pins
from tests.kernel.programs import Talk
from tests.soak import faulty
from tests.soak.faulty import Command, Plan, Site, Zygote
from tests.soak.scene import DENIED, PROBER, READY, Result, Scene, SoakError

LONG, SHORT = 0, 10  # sites; 0: every one
_WORKERS, _FEW = 6, 3
_NAMED = 10  # of what was wrong, in the result; all of it is said as it comes
_TRIES = 3  # a place is not passed each time, where threads meet
_LOOP_S = 1.3  # long enough for each thing that is done every second
_RELOADED = "aegis: reload"
_FORMS = ("tcp", "udp-connect", "udp-send", "udp-sendmsg")
# A start with nothing in force; one that finds an agent's pins; the loader at boot, twice.
SCENES = ("start", "adopt", "load", "load-files")
_WELL_KNOWN = ("epoll_create1", "socketpair", "sendto", "clone3", "newfstatat")


@dataclass(frozen=True)
class Fault:
    scene: str
    site: Site

    def __str__(self) -> str:
        site = self.site
        return f"{self.scene}: {site.call} no. {site.nth} at {site.where or 'C'}"


@dataclass(frozen=True)
class Outcome:
    word: str
    wrong: str = ""


class Bench:
    """One cgroup, network and prober; one fault after the other."""

    def __init__(self, stack: contextlib.ExitStack, library: Path, numbers: dict[str, int]) -> None:
        self.scene = stack.enter_context(Scene())
        left_out = [numbers[name] for name in faulty.NEVER_FAIL.split() if name in numbers]
        self._zygote = stack.enter_context(closing(Zygote(library, left_out)))
        self.plan = stack.enter_context(closing(Plan(numbers)))
        self._talk: Talk = self.scene.programs.talk(self.scene.workshop.install(PROBER))
        self._good = self.scene.folder / "last-good"
        self._kept = b""
        self._is_empty = False  # nothing of ours is in the kernel

    def _words(self, name: str) -> list[str]:
        scene = self.scene
        place = ["-c", str(scene.policy), "--cgroup", str(scene.place)]
        place += ["--last-good", str(self._good)]
        if name.startswith("load"):
            return ["load", *place]
        files = ["--log", str(scene.log), "--history", str(scene.history)]
        return ["run", *place, *files, "--json"]

    def _refused(self) -> set[bool]:
        return {not self._talk.reaches(form, "127.0.0.1", DENIED) for form in _FORMS}

    def _status(self) -> dict[str, object]:
        code, said = self._zygote.run("status", "--json", "--cgroup", str(self.scene.place))
        try:
            answer: dict[str, object] = json.loads(said)
        except ValueError:
            raise SoakError(f"status: {code} {said}") from None
        return answer

    def _is_adoptable(self) -> bool:
        return self._refused() == {True} and all_pins(instance_name(self.scene.place)) != []

    def prepare(self, name: str) -> None:
        """Nothing in force, or what an agent left; of the last good policy, what is called for."""
        if name == "adopt" and self._is_adoptable():
            return
        if not self._is_empty:
            code, said = self._zygote.run("unload", "--cgroup", str(self.scene.place))
            if code:
                raise SoakError(f"unload: {said}")
        if name == "adopt" or not self._kept:
            self._is_empty = False
            run = self._zygote.start(self._words("start"))
            if not run.wait(READY):
                raise SoakError(f"no start: {run.said}")
            run.signal(signal.SIGTERM)
            run.end()
            self._kept = self._kept or self._good.read_bytes()
            if name != "adopt":
                self.prepare(name)
        self._good.unlink(missing_ok=True)
        if name == "load":
            self._good.write_bytes(self._kept)
            self._good.chmod(0o600)

    def play(
        self, name: str, at_ready: Callable[[], object] = bool
    ) -> tuple[Command, int, str, str]:
        """The command, its exit code, what it came to and what was wrong meanwhile."""
        self._is_empty = False
        command = self._zygote.start(self._words(name), self.plan)
        if name.startswith("load"):
            return command, command.end(), "ended", ""
        came_to, wrong = "ended", ""
        if command.wait(READY):
            came_to = "ready"
            at_ready()
            self._talk.reaches("tcp", "127.0.0.1", DENIED)
            command.signal(signal.SIGHUP)
            command.wait(_RELOADED)
            self._talk.reaches("udp-connect", "127.0.0.1", DENIED)
            time.sleep(_LOOP_S)
            if not command.ended and not command.hung:
                wrong = self._judge_state(must_be_refused=False)
            command.signal(signal.SIGTERM)
        return command, command.end(), came_to, wrong

    def _judge_state(self, *, must_be_refused: bool) -> str:
        """Enforcing, or saying that it is not."""
        refused = self._refused()
        if len(refused) > 1 or (must_be_refused and refused != {True}):
            return f"refused: {refused}"
        if refused == {True} or self._status()["problems"]:
            return ""
        return "does not enforce, and status says nothing"

    def sites(self, name: str) -> list[Fault]:
        """Of a first start only those up to "ready": from then on it is like any other."""
        self.prepare(name)
        self.plan.record()
        first: dict[Site, int] = {}
        command, code, came_to, wrong = self.play(name, lambda: first.update(self.plan.recorded()))
        if code or wrong or (came_to != "ready" and name in ("start", "adopt")):
            raise SoakError(f"{name}, nothing failing: {code} {came_to} {wrong} {command.said}")
        found = []
        for site, times in (first if name == "start" else self.plan.recorded()).items():
            found.append(Fault(name, site))
            if times > 1:
                found.append(Fault(name, replace(site, nth=times // 2 + 1)))
        return sorted(found, key=lambda fault: (fault.site.call, fault.site.where, fault.site.nth))

    def fail(self, fault: Fault) -> Outcome:
        self.prepare(fault.scene)
        self.plan.fail(fault.site)
        command, code, came_to, wrong = self.play(fault.scene)
        if not self.plan.was_hit:
            return Outcome("not reached", wrong)
        word = came_to if code == 0 or came_to != "ready" else "ended later"
        return Outcome(word, wrong or self._judge(fault, command, came_to, code))

    def _judge(self, fault: Fault, command: Command, came_to: str, code: int) -> str:
        said = command.said
        if command.hung:
            return f"hangs: {said!r}"
        if "Traceback" in said or "Exception ignored" in said:
            return f"a traceback: {said}"
        if code and "aegis: " not in said.replace(READY, ""):
            return f"exit code {code} without a clear line: {said!r}"
        governed = fault.scene == "adopt" or (fault.scene != "start" and code == 0)
        wrong = self._judge_state(must_be_refused=governed)
        if wrong:
            return f"exit code {code}: {wrong}: {said!r}"
        if came_to == "ended" and code and fault.scene != "adopt":
            state = self._status()
            if state["loaded"] or state["attached"]:
                return f"exit code {code}, half of it stays: {state['attached']} {said!r}"
            self._is_empty = True
        return ""


class _Work:
    """What is to be done by several at a time, and what came of it."""

    def __init__(self, faults: list[Fault]) -> None:
        self._queue: queue.SimpleQueue[Fault] = queue.SimpleQueue()
        for fault in faults:
            self._queue.put(fault)
        self.words: Counter[str] = Counter()
        self.failed: list[tuple[str, str]] = []  # names, and what was wrong
        self.broken: list[BaseException] = []

    def take(self, bench: Bench) -> None:
        with contextlib.suppress(queue.Empty):
            while not self.broken:
                fault = self._queue.get_nowait()
                try:
                    for _ in range(_TRIES):
                        outcome = bench.fail(fault)
                        if outcome.word != "not reached" or outcome.wrong:
                            break
                    else:
                        print(f"{fault}: not reached", file=sys.stderr, flush=True)
                except SoakError as error:
                    outcome = Outcome("broken", str(error))
                except BaseException as error:
                    error.add_note(str(fault))
                    self.broken.append(error)
                    return
                self.words[outcome.word] += 1
                if not self.words.total() % 250:
                    print(f"{self.words.total()} sites done", file=sys.stderr, flush=True)
                if outcome.wrong:
                    self.failed.append((str(fault), outcome.wrong))
                    print(f"{fault}: {outcome.wrong}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _benches(count: int) -> Iterator[list[Bench]]:
    numbers = faulty.calls()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(Scene()).folder
        library = faulty.build(folder)
        yield [Bench(stack, library, numbers) for _ in range(count)]


def _all(bench: Bench) -> list[Fault]:
    """Those of every scene; the loader's once, with a last good policy or without."""
    faults = [fault for name in SCENES[:3] for fault in bench.sites(name)]
    known = {fault.site for fault in faults if fault.scene == "load"}
    faults += [fault for fault in bench.sites(SCENES[3]) if fault.site not in known]
    only = os.environ.get("AEGIS_SOAK_ONLY", "")
    part, _, parts = os.environ.get("AEGIS_SOAK_PART", "1/1").partition("/")
    chosen = range(1, int(parts) + 1).index(int(part))
    return [f for f in faults if only in str(f) and f.site.key % int(parts) == chosen]


def _some(faults: list[Fault], count: int, seed: int) -> list[Fault]:
    """*count* of them, and of each call that did harm once the first."""
    known = [
        next(f for f in faults if f.site.call == call and f.scene == "start")
        for call in _WELL_KNOWN
        if any(f.site.call == call and f.scene == "start" for f in faults)
    ]
    return known + random.Random(seed).sample(faults, min(count, len(faults)))  # noqa: S311


def run(count: int, seed: int) -> Result:
    """*count* sites out of all there are; 0: every one."""
    with _benches(
        _FEW if count else int(os.environ.get("AEGIS_SOAK_WORKERS", _WORKERS))
    ) as benches:
        faults = _all(benches[0])
        total = len(faults)
        if count:
            faults = _some(faults, count, seed)
        work = _Work(faults)
        threads = [threading.Thread(target=work.take, args=(bench,)) for bench in benches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if work.broken:
            raise work.broken[0]
    sites = f"{len(faults)} of {total} sites (seed {seed})"
    return Result(not work.failed, f"faults: {sites} failed once: {_told(work)}")


def _told(work: _Work) -> str:
    """What came of it in figures, and the names of what was wrong."""
    told = ", ".join(f"{word} {times}" for word, times in sorted(work.words.items()))
    kinds = {
        "hangs": "hangs", "tracebacks": "a traceback", "without a clear line": "clear line",
        "half-enforcing without a word": "not enforce|refused: |half of it",
    }  # fmt: skip
    counts = [
        f"{sum(bool(re.search(word, text)) for _, text in work.failed)} {name}"
        for name, word in kinds.items()
    ]
    names = "".join(f"; {name}" for name, _ in work.failed[:_NAMED])
    return f"{told}; {len(work.failed)} wrong: {', '.join(counts)}{names}"
