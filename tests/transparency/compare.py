# SPDX-License-Identifier: Apache-2.0
"""The three sides, each started as an administrator would, and what differs between them."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.agent import Agent
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.network import Network
from tests.kernel.programs import Programs
from tests.kernel.workshop import make_directory
from tests.transparency.cpython import PYTHON
from tests.transparency.suite import Result, Side, Suite, differing, outcomes_of, unsteady

BARE = "without Aegis"
# A rule of its own for what runs most, and no rule for all the rest: both ways must be open.
_ALLOW = """
[global]
mode = "enforce"
unconfigured_actions = ["allow"]
"""
_ALLOW_APP = """
[[app]]
exe = "{exe}"
remote = true
local = true
sockets = ["sctp", "dccp", "udplite", "raw", "packet", "icmp", "vsock", "other"]
"""
_DENY = """
[global]
mode = "observe"
unconfigured_actions = ["log", "block"]
"""
_DENY_APP = """
[[app]]
exe = "{exe}"
remote = false
local = false
listen = []
peers = []
strict = true
actions = ["log", "kill"]
"""
_EXES = (PYTHON.name, "stress-ng")
POLICIES = {
    "enforce": "".join([_ALLOW, *(_ALLOW_APP.format(exe=exe) for exe in _EXES)]),
    "observe": "".join([_DENY, *(_DENY_APP.format(exe=exe) for exe in _EXES)]),
}
RERUNS = 3


@dataclass
class Comparison:
    """Of one suite. *decided*: verdicts of the kernel meanwhile, by side."""

    suite: Suite
    sides: list[Side] = field(default_factory=list)
    decided: dict[str, int] = field(default_factory=dict)
    unsteady: list[tuple[str, str]] = field(default_factory=list)
    differences: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def was_seen(self) -> bool:
        """Else nothing was shown: the programs ran where Aegis does not look."""
        return all(self.decided.values()) and len(self.decided) == len(POLICIES)


def compare(suites: Sequence[Suite], say: Callable[[str], None]) -> list[Comparison]:
    """Run *suites* on all sides, and again what differs."""
    results = [Comparison(suite) for suite in suites]
    with _stage() as stage:
        for title in (BARE, *POLICIES):
            with stage.side(title):
                for result in results:
                    say(f"{result.suite.title}, {title} ...")
                    result.sides.append(stage.first_run(result, title))
        for _ in range(RERUNS):
            for title in (BARE, *POLICIES):
                _rerun(stage, results, title, say)
    for result in results:
        bare = result.sides[0]
        for side in result.sides[1:]:
            for key in differing(bare, side):
                words = f"{sorted(outcomes_of(bare, key))} → {sorted(outcomes_of(side, key))}"
                result.differences.append((side.title, *key, words))
        different = {(name, test) for _, name, test, _ in result.differences}
        result.unsteady = [key for key in unsteady(*result.sides) if key not in different]
    return results


def _rerun(
    stage: "Stage", results: list[Comparison], title: str, say: Callable[[str], None]
) -> None:
    """Once more on the side *title*, what still differs between it (bare: any) and bare."""
    todo: list[tuple[Comparison, list[str]]] = []
    for result in results:
        others = [s for s in result.sides[1:] if title in (BARE, s.title)]
        names = {name for other in others for name, _ in differing(result.sides[0], other)}
        if names:
            todo.append((result, sorted(names)))
    if not todo:
        return
    with stage.side(title):
        for result, again in todo:
            say(f"{result.suite.title}, {title}, again: {', '.join(again)} ...")
            side = next(side for side in result.sides if side.title == title)
            side.add(result.suite.run(again, stage.run, stage.new_folder()))


class Stage:
    """A scratch cgroup, a network with nothing but loopback, and a folder for each run."""

    def __init__(self, scratch: ScratchCgroup, programs: Programs, folder: Path) -> None:
        self._scratch, self._programs, self._folder = scratch, programs, folder
        self._agent: Agent | None = None

    @contextmanager
    def side(self, title: str) -> Iterator[None]:
        """With Aegis as *title* says, or without."""
        if title == BARE:
            yield
            return
        folder = self.new_folder()
        policy = folder / "aegis.toml"
        policy.write_text(POLICIES[title])
        policy.chmod(0o644)
        self._agent = Agent(policy, self._scratch.path, folder)
        try:
            self._agent.start()
            yield
        finally:
            self._agent.close()
            self._agent = None

    def first_run(self, result: Comparison, title: str) -> Side:
        before = self._decided()
        side = Side(title)
        outcomes = result.suite.run(result.suite.names, self.run, self.new_folder())
        side.add(outcomes)
        side.count(outcomes)
        if self._agent is not None:
            assert self._agent.is_running, self._agent.stderr()
            result.decided[title] = self._decided() - before
        return side

    def _decided(self) -> int:
        return self._agent.counters()["decided"] if self._agent is not None else 0

    def run(self, argv: Sequence[str], seconds: float) -> Result:
        process = self._programs.start("sh", "-c", 'exec "$@" </dev/null 2>&1', "sh", *argv)
        try:
            stdout, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, _ = process.communicate()
        return Result(process.returncode, stdout)

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))


@contextmanager
def _stage() -> Iterator[Stage]:
    folder, network = make_directory(), Network()
    try:
        with ScratchCgroup() as scratch:
            programs = Programs(scratch, network)
            try:
                yield Stage(scratch, programs, folder)
            finally:
                programs.close()
    finally:
        network.close()
        shutil.rmtree(folder)
