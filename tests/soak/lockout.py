# SPDX-License-Identifier: Apache-2.0
"""Policies that lock out, made by chance: refused with the reason, or taken back in time.

Each is asked for as an administrator would. What is refused is then put on trial with
``--i-know``; half of the agents are killed meanwhile, and started again before or after its end.
"""

import shutil
import signal
import time
from collections import Counter
from contextlib import closing
from random import Random

from aegis.lifelines import SOMEWHERE, Host
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4
from tests.kernel.policies import write_policy
from tests.kernel.servers import Servers
from tests.kernel.settings import PATIENCE
from tests.kernel.test_lockout import BEFORE, PORT, House, Tried, come_in, log_in, start_house
from tests.locking_out import KINDS, LATER, LockOut, lock_out
from tests.soak.scene import Result, Scene, SoakError

LONG, SHORT = 50, 3
LATEST_S = 60
SLACK_S = 1.0  # no attempt that begins later may be refused
_DROPPED_S = 0.3
_ASKED = {
    "sshd": ("", "", 0),
    "dnsmasq": ("udp-connect", "", 53),
    "dhclient": ("udp-connect", "255.255.255.255", 67),
    "chronyd": ("udp-connect", str(SOMEWHERE), 123),
    "http": ("tcp", REMOTE4, 80),
    "tunnel": ("tcp", REMOTE4, PORT),
}


class _Visit:
    """A host with somebody logged in, and whoever locks them out."""

    def __init__(self, scene: Scene, agents: Agents, chance: Random) -> None:
        self._scene, self._chance = scene, chance
        self._servers = Servers(scene.network)
        self._servers.open(PORT)
        self._shop, self._programs = scene.workshop, scene.programs
        self._sshd, self._session = log_in(self._shop, self._programs, scene.network)
        start_house(self._shop, self._programs)
        self._servers_asked = [str(one) for one in Host().nameservers() if not one.is_loopback]
        agent, policy = agents.start(BEFORE)
        tunnel = self._programs.talk(self._shop.install("tunnel"))
        trial = write_policy(self._shop.new_folder(), BEFORE)
        self.house = House(agent, policy, tunnel, trial)
        self.told: Counter[str] = Counter()
        self.latest = self.late = 0.0

    def path_of(self, program: str) -> str:
        source = shutil.which("ncat") if program == "sshd" else None
        return str(self._shop.install(program, source))

    # ---- who is cut ----

    def is_cut(self, program: str) -> bool:
        """Whether the kernel refuses it what it needs."""
        if program == "sshd":
            client = come_in(self._scene.network, _DROPPED_S)
            if client is not None:
                client.close()
            return client is None
        form, address, port = _ASKED[program]
        address = address or self._nameserver()
        outcome = self._programs.run(self.path_of(program), form, address, str(port))
        return outcome.word == "EPERM" or outcome.code == -signal.SIGKILL

    def _nameserver(self) -> str:
        return self._servers_asked[0] if self._servers_asked else str(SOMEWHERE)

    def must_be_refused(self, one: LockOut) -> bool:
        """Whether what *one* cuts is there to be found: updates are looked at for a whole host."""
        if one.need.cuts == "name resolution":
            return bool(self._servers_asked)
        return one.need.cuts not in {LATER, "updates"}

    # ---- what is done ----

    def refuse(self, one: LockOut) -> None:
        """Asked for without ``--i-know``: nothing changes, and it is said whom it cuts."""
        before = self.house.agent_status()["generation"]
        self.house.trial.replace(one.policy)
        done = self.house.agent.command("apply", "-c", str(self.house.trial.path))
        told = "would lock you out" in done.stderr and one.need.cuts in done.stderr
        after = self.house.agent_status()["generation"]
        if done.returncode != 1 or not told or after != before or self.is_cut(one.need.program):
            raise SoakError(f"not refused as it must be: {one} {done} generation {before} {after}")
        self.told["refused"] += 1

    def take_back(self, one: LockOut, seconds: float, *, kill: bool) -> None:
        """On trial by somebody who knows, and not confirmed."""
        agent = self.house.agent
        own = self._chance.random() < 0.3  # the agent's file itself, changed
        tried = self._try_out(one, seconds, own=own)
        again = self._chance.random() < 0.5
        if kill:
            time.sleep(self._chance.uniform(0, tried.seconds / 4))
            agent.stop(signal.SIGKILL)
            self.told["agents killed meanwhile"] += 1
            if again:
                agent.start()
        self._wait_uncut(one, tried)
        if kill and not again:
            agent.start()
            if self.is_cut(one.need.program):
                raise SoakError(f"the next agent puts it in force: {one}")
        self.told["taken back"] += 1

    def _try_out(self, one: LockOut, seconds: float, *, own: bool) -> Tried:
        """In force. Again, for longer, if it was over before anybody had looked."""
        house = self.house
        words = [] if own else ["-c", str(house.trial.path)]
        while True:
            (house.policy if own else house.trial).replace(one.policy)
            begun = time.monotonic()
            done = house.agent.command("apply", "--i-know", "--confirm", f"{seconds:.2f}", *words)
            tried = Tried(begun, time.monotonic(), seconds)
            if done.returncode:
                raise SoakError(f"not applied: {one} {done}")
            if self.is_cut(one.need.program):
                return tried
            if time.monotonic() < begun + seconds or seconds > PATIENCE:
                raise SoakError(f"on trial it cuts nothing: {one}")
            house.reset()
            self.told["tried again for longer"] += 1
            seconds *= 4

    def _wait_uncut(self, one: LockOut, tried: Tried) -> None:
        """How long an attempt takes to fail is the machine's affair: it counts as it begins."""
        begun = time.monotonic()
        while self.is_cut(one.need.program):
            self.late = max(self.late, begun - tried.over)
            if begun > tried.over + LATEST_S:
                raise SoakError(f"still cut {LATEST_S} s after its {tried.seconds} s: {one}")
            if one.need.program == "sshd":
                self._reopen()
            begun = time.monotonic()
        self.latest = max(self.latest, time.monotonic() - tried.begun)

    def _reopen(self) -> None:
        """Its policy may have had sshd killed: it is started again, as by systemd."""
        if self._sshd.poll() is not None:
            self._session.close()
            self._sshd, self._session = log_in(self._shop, self._programs, self._scene.network)
            self.told["sshd killed and started again"] += 1

    def session_lives(self) -> bool:
        """Whether what whoever is logged in says still arrives."""
        try:
            self._session.sendall(b"alive\n")
        except OSError:
            return False
        assert self._sshd.stdout is not None
        return self._sshd.stdout.readline() == "alive\n"

    def close(self) -> None:
        self._session.close()
        self._servers.close()


def run(count: int, seed: int) -> Result:
    """*count* policies; the last of many has its whole minute, without an agent from the start."""
    chance = Random(seed)  # noqa: S311
    with Scene() as scene, closing(Agents(scene.workshop, scene.scratch, scene.programs)) as agents:
        visit = _Visit(scene, agents, chance)
        try:
            policies = _different(count, chance, visit)
            for number, one in enumerate(policies):
                visit.house.reset()
                if visit.must_be_refused(one):
                    visit.refuse(one)
                whole = count >= LONG and number == count - 1
                seconds = LATEST_S if whole else chance.uniform(1, 1 + count / 25)
                visit.take_back(one, seconds, kill=whole or bool(number % 2))
            visit.house.reset()
            lives = visit.session_lives()
        finally:
            visit.close()
    return _judge(visit, policies, seed, lives)


def _different(count: int, chance: Random, visit: _Visit) -> list[LockOut]:
    """Of each kind in turn."""
    found: dict[str, LockOut] = {}
    first = chance.randrange(len(KINDS))
    while len(found) < count:
        one = lock_out(chance, KINDS[(first + len(found)) % len(KINDS)], visit.path_of)
        found.setdefault(one.policy, one)
    return list(found.values())


def _judge(visit: _Visit, policies: list[LockOut], seed: int, lives: bool) -> Result:
    told, kinds = visit.told, Counter(one.need.cuts for one in policies)
    if told["taken back"] != len(policies) or visit.late > SLACK_S:
        raise SoakError(f"{told} of {len(policies)}; {visit.late:.2f} s late")
    what = ", ".join(f"{cuts} {number}" for cuts, number in sorted(kinds.items()))
    others = ", ".join(f"{number} {name}" for name, number in sorted(told.items()))
    return Result(
        lives,
        f"lockout: {len(policies)} policies (seed {seed}: {what}): {others}; the last of them "
        f"{visit.latest:.1f} s after it was asked for, {visit.late:.2f} s late at most; the open "
        f"session {'goes on' if lives else 'is dead'}",
    )
