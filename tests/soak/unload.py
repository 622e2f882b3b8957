# SPDX-License-Identifier: Apache-2.0
"""``aegis unload`` from random states: what is ours goes, and only that.

Beside it stand what must stay: another agent's instance, a map somebody pinned, and
a program of somebody else's at the same cgroup.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from aegis import control
from aegis._bpf import lib
from aegis.bpf.cgroup import BPFFS, instance_name, open_cgroup
from aegis.bpf.kernel import Kernel
from aegis.bpf.pins import Pins
from aegis.policy.compile import compile_policy
from aegis.policy.model import Policy, Resolution
from tests.kernel.cgroup import ScratchCgroup
from tests.pace import HUNG_S
from tests.soak.scene import ALLOWED, DENIED, PROBER, Result, Scene, SoakError

LONG, SHORT = 100, 7
OLD_ABI = "0123456789abcdef"


class _Foreign:
    """Not ours to remove: looks as much like ours as can be."""

    def __init__(self, place: Path, beside: ScratchCgroup) -> None:
        self._kernel = Kernel(beside.path)
        self._kernel.start()
        self._kernel.apply(compile_policy(Policy(), Resolution()))
        self._kernel.attach()
        self._map = BPFFS / f"aegis-soak-{os.getpid()}"
        table = self._kernel.object.map_fd("active")
        self._kernel.pins.pin(table, self._map)
        directory = open_cgroup(place)
        try:
            self._link = self._kernel.object.attach_cgroup("aegis_connect4", directory)
        finally:
            os.close(directory)
        self._pins = self._snapshot()

    def _snapshot(self) -> list[tuple[str, int]]:
        folder = self._kernel.pins.folder
        return sorted((str(path), path.stat().st_ino) for path in folder.rglob("*"))

    def check(self) -> None:
        if not self._map.exists() or not lib.aegis_link_attached(self._link):
            raise SoakError("unload removed what is not ours")
        if self._snapshot() != self._pins:
            raise SoakError("unload changed another instance")

    def close(self) -> None:
        os.close(self._link)
        self._map.unlink()
        self._kernel.close()
        self._kernel.pins.remove()


class _States:
    """Ways to be in before ``unload``; each returns what it calls itself."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._random = random.Random(seed)  # noqa: S311
        self._pins = Pins(instance_name(scene.place))

    def any(self, number: int) -> str:
        """Every kind in turn; where it is random is up to the seed."""
        kinds = (
            self.running, self.crashed, self.half_loaded, self.starting, self.older_layout,
            self.half_and_older, self.damaged,
        )  # fmt: skip
        kind = kinds[number % len(kinds)]
        kind()
        return kind.__name__.replace("_", " ")

    def running(self) -> None:
        self._scene.run().wait()

    def crashed(self) -> None:
        run = self._scene.run()
        run.wait()
        run.end(signal.SIGKILL)

    def half_loaded(self) -> None:
        run = self._scene.run()
        time.sleep(self._random.uniform(0.15, 0.6))
        run.end(signal.SIGKILL)

    def starting(self) -> None:
        """From the moment it holds its lock: one that comes later is another agent."""
        run = self._scene.run()
        while self._pins.instance.name not in control.running():
            if run.process.poll() is not None:
                raise SoakError(f"the agent ended: {run.end()} {run.said}")
            time.sleep(0.001)
        time.sleep(self._random.uniform(0, 0.4))

    def older_layout(self) -> None:
        """The pins of an agent whose maps had another layout, and no agent of it."""
        self.crashed()
        self._pins.folder.rename(self._pins.folder.with_name(OLD_ABI))

    def half_and_older(self) -> None:
        self.older_layout()
        self.half_loaded()

    def damaged(self) -> None:
        """Some pins are gone; their links go on as long as the agent holds them."""
        run = self._scene.run()
        run.wait()
        for kind in ("links", "maps"):
            names = self._pins.names(kind)
            for name in self._random.sample(names, self._random.randrange(1, len(names))):
                (self._pins.folder / kind / name).unlink()


def run(count: int, seed: int) -> Result:
    """*count* times."""
    kinds: Counter[str] = Counter()
    with (
        Scene() as scene,
        ScratchCgroup() as beside,
        closing(_Foreign(scene.place, beside)) as kept,
    ):
        states = _States(scene, seed)
        for number in range(count):
            state = states.any(number)
            kinds[state] += 1
            finished = scene.command("unload")
            if finished.returncode or "Traceback" in finished.stderr:
                raise SoakError(f"{state}: unload failed: {finished.stderr}")
            kept.check()
            _check_nothing_left(scene, state)
    told = ", ".join(f"{kind} {times}" for kind, times in kinds.items())
    line = f"unload: {count} states (seed {seed}: {told}), all of ours gone, others' untouched"
    return Result(ok=True, line=line)


def _check_nothing_left(scene: Scene, state: str) -> None:
    instance = Pins(instance_name(scene.place)).instance
    if instance.exists():
        raise SoakError(f"{state}: left {sorted(map(str, instance.rglob('*')))}")
    shown = subprocess.run(
        ["bpftool", "--json", "cgroup", "show", str(scene.place)],
        capture_output=True, text=True, check=True, env=os.environ | {"PATH": _PATH},
    )  # fmt: skip
    programs = [row["name"] for row in json.loads(shown.stdout or "[]")]
    if programs != ["aegis_connect4"]:  # the foreign one
        raise SoakError(f"{state}: left attached: {programs}")
    asked = f"tcp 127.0.0.1 {ALLOWED}\ntcp 127.0.0.1 {DENIED}\n"
    outcome = scene.programs.run(scene.workshop.install(PROBER), "-", stdin=asked)
    if outcome.stdout.split() != ["ECONNREFUSED"] * 2:
        raise SoakError(f"{state}: a fresh connection got {outcome.stdout!r}")
    for run in scene.runs:
        if run.process.poll() is None:
            run.process.wait(HUNG_S)
        if run.process.returncode == 1:
            raise SoakError(f"{state}: the agent failed: {run.end()} {run.said}")


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
