# SPDX-License-Identifier: Apache-2.0
"""What /proc says the agent, its brokers and the loader may do, under each kind of policy.

And what systemd says of their units' sandbox. Policies come in a random order, each by a start or
by a reload of the one before; now and then a broker is killed and comes back.
"""

import os
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from random import Random

from aegis.actions.processes import children
from aegis.privileges import BROKERS
from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.old import OFF
from tests.kernel.old import Scene as Old
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY, PATIENCE
from tests.kernel.test_privileges import (
    BLOCKS,
    BOTH,
    KILLS,
    NAMED,
    REFUSES,
    SCRIPTS,
    TIGHT,
    Rights,
    rights,
    wait_for_brokers,
    wait_for_rights,
)
from tests.soak.scene import Result, Scene, SoakError
from tests.test_units import AIM, DEBIAN, UNITS, exposure

LONG, SHORT = 60, 4
OBSERVES = '[global]\nmode = "observe"\n' + BLOCKS
# Name of a kind -> its policy, the brokers it takes.
KINDS = {
    "observes": (OBSERVES, ()),
    "blocks": (BLOCKS, ()),
    "refuses who comes in": (REFUSES, ()),
    "kills": (KILLS, ("kill",)),
    "runs scripts": (SCRIPTS, ("hooks",)),
    "both": (BOTH, ("kill", "hooks")),
    "has names": (NAMED, ("names",)),
}
LOADING = ("cap_bpf", "cap_perfmon", "cap_net_admin")


class _Round:
    def __init__(self, scene: Scene, agents: Agents, chance: Random) -> None:
        self._agents, self._chance = agents, chance
        self._talk = scene.programs.talk(scene.workshop.install("rightless"))
        self.told: Counter[str] = Counter()
        self.seen: dict[str, str] = {}

    def go(self, kind: str) -> None:
        """Under a policy of *kind*."""
        text, brokers = KINDS[kind]
        agent, _ = (self._agents.share if self._chance.random() < 0.5 else self._agents.start)(text)
        self._check(agent, kind, brokers)
        if brokers and self._chance.random() < 0.3:
            self._kill_one(agent, brokers)
            self._check(agent, kind, brokers)

    def _check(self, agent: Agent, kind: str, brokers: tuple[str, ...]) -> None:
        wait_for_rights(agent, frozenset())
        found = wait_for_brokers(agent, {BROKERS[name] for name in brokers})
        if "names" in brokers and Path(f"/proc/{found[BROKERS['names']]}").stat().st_uid != NOBODY:
            raise SoakError("who looks names up is not nobody")
        if self._talk.reaches("udp-connect", "127.0.0.1", 8087) is not (kind == "observes"):
            raise SoakError(f"{kind}: the verdict is another")
        self.told["looks"] += 1
        self.seen["agent"] = "none"
        self.seen.update({name: _short(BROKERS[name]) for name in brokers})

    def _kill_one(self, agent: Agent, brokers: tuple[str, ...]) -> None:
        wanted = {BROKERS[name] for name in brokers}
        found = wait_for_brokers(agent, wanted)
        pid = found[self._chance.choice(sorted(wanted, key=sorted))]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while pid in wait_for_brokers(agent, wanted).values():
            if time.monotonic() > deadline:
                raise SoakError(f"broker {pid} does not come back")
        self.told["brokers killed"] += 1

    def sever(self, scene: Scene) -> None:
        """It lives for as long as connections are closed, at a start: looked for all the time."""
        self._agents.close()
        old = Old(self._agents, scene.workshop, scene.programs, scene.network)
        found, stop = set(), threading.Event()

        def look() -> None:
            while not stop.wait(0.002):
                found.update(_held_below(os.getpid(), 3))

        looking = threading.Thread(target=look)
        try:
            for _ in range(16):
                old.tcp("old-client", OFF)
            looking.start()
            agent = old.govern(sever="true")
            agent.wait_stderr("aegis: ready")
            while not agent.status()["agent"]["existing"]["done"]:
                time.sleep(0.05)
        finally:
            stop.set()
            looking.join()
            old.close()
        if frozenset({(BROKERS["sever"], BROKERS["sever"])}) not in found:
            raise SoakError(f"no broker with the rights of sever; there were {found}")
        self.seen["sever"] = _short(BROKERS["sever"])

    def load(self, scene: Scene) -> None:
        """With these three it starts; without any of them it says so, and nothing is in force."""
        self._agents.close()
        agent, _ = self._agents.start(BLOCKS, wrapper=TIGHT)
        wait_for_rights(agent, frozenset())
        self._agents.close()
        for lacking in LOADING:
            others = ",".join(f"+{name[4:]}" for name in LOADING if name != lacking)
            run = scene.run("setpriv", "--inh-caps=-all", f"--bounding-set=-all,{others}", "--")
            _, said = run.process.communicate(timeout=PATIENCE)
            if run.process.returncode != 1 or "Traceback" in said or "aegis" not in said:
                raise SoakError(f"without {lacking}: {run.process.returncode} {said}")
            if scene.status()["loaded"]:
                raise SoakError(f"without {lacking} something is in force")
        self.seen["load"] = _short(frozenset(name.upper() for name in LOADING))


def _held_below(pid: int, depth: int) -> set[frozenset[Rights]]:
    """What the processes so many generations below *pid* may do."""
    family, pids = children(), {pid}
    for _ in range(depth):
        pids = {child for parent in pids for child in family.get(parent, ())}
    held = set()
    for each in pids:
        with suppress(OSError):  # ended meanwhile
            held.add(frozenset(rights(each)))
    return held


def _short(held: frozenset[str]) -> str:
    return "+".join(sorted(name.removeprefix("CAP_") for name in held)) or "none"


def exposures(folder: Path, count: int) -> str:
    """Of each unit by systemd's own measure; not in a short form, beside which that runs, too.

    :raises SoakError: when one is over the aim.
    """
    if count < LONG:
        return "exposures: tests/test_units.py"
    if shutil.which("systemd-analyze") is None:
        return "no systemd-analyze here: exposures are not shown"
    found = {}
    for name in UNITS:
        text = (DEBIAN / name).read_text().replace("%i", "root")
        found[name.removesuffix(".service").removeprefix("aegis.")] = exposure(text, folder)
    if max(found.values()) > AIM:
        raise SoakError(f"exposures over {AIM}: {found}")
    return "exposures " + ", ".join(f"{name} {value}" for name, value in found.items())


def run(count: int, seed: int) -> Result:
    """*count* policies."""
    chance = Random(seed)  # noqa: S311
    order = [kind for _ in range(-(-count // len(KINDS))) for kind in chance.sample(list(KINDS), 7)]
    with (
        Scene() as scene,
        closing(Servers(scene.network)) as servers,
        closing(Agents(scene.workshop, scene.scratch, scene.programs)) as agents,
    ):
        servers.open(8086, 8087)
        made = _Round(scene, agents, chance)
        for kind in order[:count]:
            made.go(kind)
        if count >= LONG:
            made.sever(scene)
        made.load(scene)
        units = exposures(scene.folder, count)
    found = ", ".join(f"{name}: {held}" for name, held in sorted(made.seen.items()))
    return Result(
        ok=True,
        line=f"privileges: {count} policies of {len(set(order[:count]))} kinds (seed {seed}), "
        f"{made.told['looks']} looks at every thread, {made.told['brokers killed']} brokers killed "
        f"and back: {found}; {units}",
    )
