# SPDX-License-Identifier: Apache-2.0
"""Root changes what decides, one thing after the other: each is told, shown, and put right.

Every link is detached, given another program, and its pin removed; every other pin is
removed; every table of the policy is changed. The watchdog hears of proofs only, all the time.
"""

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

from aegis.bpf.evidence import ARRAYS, HASHES
from aegis.bpf.kernel import CGROUP, WANTED_BY
from aegis.bpf.object import MAPS, UNKEYED_MAPS
from aegis.bpf.pins import COMPLETE
from tests.kernel.agent import Event, field
from tests.kernel.conftest import Agents
from tests.kernel.servers import Servers
from tests.kernel.settings import PATIENCE
from tests.kernel.test_evidence import TOLD_S, House
from tests.soak.scene import Result, Scene, SoakError

LONG, SHORT = 1000, 3  # at most: so many there are
ALLOWED, DENIED = 8086, 8087
WATCHDOG_S = 1.5
# Something in every table.
POLICY = f"""
[[app]]
exe = "tampered"
ports = ["{ALLOWED}", "1000-2000"]
remotes = ["192.0.2.1:443", "198.51.100.0/24:1-80"]
detent = 0
actions = ["log", "block"]

[[app]]
path = "/usr/bin/unheard-of"
cmdline = "unheard of"
listen = ["8089"]
peers = ["192.0.2.0/24"]
actions = ["log", "block"]

[[app]]
exe = "unheard-of"
unit = "unheard-of.service"
actions = ["log", "block"]
"""
BROKEN = "[[app]]\nprots = 1\n"
# What a reload writes anew; all else is put right by the next agent.
BY_RELOAD = {"active", "configs", "apps", "port_dirs", "port_pages", "hosts", "nets", "rules"}
BY_RELOAD |= {"exes", "paths", "cmdlines", "units"}


@dataclass(frozen=True)
class Deed:
    """*do* is what root does; then *expected* is told."""

    what: str
    thing: str
    do: Callable[[House], None]
    expected: str


def deeds(house: House) -> Iterator[Deed]:
    """All of them."""
    pins = house.pins
    for name in pins.names("links"):
        if name in CGROUP or name in WANTED_BY:
            off, other = f"{name} was taken off", f"{name} was replaced"
            yield Deed("link detached", name, _with(House.detach, name), off)
            yield Deed("program replaced", name, _with(House.replace, name), other)
        yield _unpinned(pins.link_path(name), f"the pin of {name} is gone")
    for name in pins.names("maps"):
        yield _unpinned(pins.map_path(name), f"the pin of table '{name}' is gone")
    for path in house.program_pins():
        yield _unpinned(path, f"the pin of program '{path.name}' is gone")
    yield _unpinned(pins.folder / COMPLETE, "the mark is gone")
    for name in (*HASHES, *ARRAYS, "apps", "port_dirs", "port_pages"):
        told = f"table '{name}' was changed"
        yield Deed("entry changed", name, _with(House.change, name), told)
        if name in HASHES:
            yield Deed("entry added", name, _with(House.add, name), told)
            yield Deed("entry removed", name, _with(House.drop, name), told)


def _with(method: Callable[[House, str], None], name: str) -> Callable[[House], None]:
    return lambda house: method(house, name)


def _unpinned(path: Path, expected: str) -> Deed:
    return Deed("pin removed", path.name, lambda h: h.unpin(path), expected)


class Watchdog:
    """What systemd would hear; read as it comes, for else the agent would wait."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._fed = 0
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def _hear(self) -> None:
        while self._open:
            if select.select([self._socket], [], [], 0.2)[0]:
                self.count()

    def count(self) -> int:
        """How often it was fed until now: whatever was sent has been read."""
        with self._lock:
            while True:
                try:
                    text = self._socket.recv(4096, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return self._fed
                self._fed += b"WATCHDOG=1" in text

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()


class _Round:
    """An agent, somebody who is governed, and what became of each deed."""

    def __init__(self, scene: Scene, agents: Agents, watchdog: Watchdog) -> None:
        told = (f"NOTIFY_SOCKET={watchdog.path}", f"WATCHDOG_USEC={int(WATCHDOG_S * 1e6)}")
        wrapper = ("/usr/bin/env", *told)
        self.agent, self.policy = agents.start(POLICY, wrapper=wrapper)
        self.house, self.watchdog = House(self.agent), watchdog
        self.talk = scene.programs.talk(scene.workshop.install("tampered"))
        self.told: Counter[str] = Counter()
        self.latest = 0.0
        self.fed = self.proofs = 0
        self._then = self._now()

    def check_whole(self, deed: Deed) -> None:
        """Nothing is wrong, and the policy is in force."""
        done = self.agent.command("status")
        deadline = time.monotonic() + PATIENCE
        while done.returncode and time.monotonic() < deadline:
            time.sleep(0.2)  # it looks once a second
            done = self.agent.command("status")
        right = self.talk.reaches("tcp", "127.0.0.1", ALLOWED)
        wrong = self.talk.reaches("tcp", "127.0.0.1", DENIED)
        if done.returncode or not right or wrong:
            said = (right, wrong, done.stdout[-2000:], self.agent.stderr()[-1000:])
            raise SoakError(f"not put right after {deed.what} {deed.thing}: {said}")

    def _now(self) -> tuple[int, int]:
        """How often it was fed, and the proofs until the very same moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            before, fed = self._proofs(), self.watchdog.count()
            if self._proofs() == before:
                return fed, before
            if time.monotonic() > deadline:
                raise SoakError("too slow: no look at proofs lasts less than it takes to make one")

    def _proofs(self) -> int:
        return self.agent.counters()["self_test"]

    def check_fed(self, deed: Deed) -> None:
        """Since the last call each word to the watchdog had a proof, which the kernel counted."""
        now = self._now()
        fed, proofs = (one - other for one, other in zip(now, self._then, strict=True))
        self._then = now
        if deed.what == "pin removed" and deed.thing in (*MAPS, *UNKEYED_MAPS, COMPLETE):
            return  # then the next agent counts anew
        if fed > proofs + 1:  # one may have been under way at the last call
            raise SoakError(f"fed {fed} times by {proofs} proofs: {deed.what} {deed.thing}")
        self.fed, self.proofs = self.fed + fed, self.proofs + proofs

    def commit(self, deed: Deed) -> None:
        since = self.agent.mark()
        deed.do(self.house)
        done = time.time()
        event = self.find_event(since, deed)
        told = datetime.fromisoformat(field(event, "@timestamp"))  # it is written at once
        took = told.timestamp() - done
        self.latest = max(self.latest, took)
        if took > TOLD_S:
            raise SoakError(f"{deed.what} {deed.thing} was told {took:.1f} s later: {event}")
        self.told[deed.what] += 1

    def find_event(self, since: int, deed: Deed) -> Event:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for event in self.agent.stream(since):
                notice, message = field(event, "aegis.notice"), field(event, "message")
                if notice == "tampered" and deed.expected in message:
                    return event
            time.sleep(0.02)
        raise SoakError(f"nothing told {deed.what} {deed.thing}: {self.agent.stderr()[-1000:]}")

    def check_shown(self, deed: Deed, after: str) -> None:
        done = self.agent.command("status")
        if done.returncode != 1 or deed.expected not in done.stdout:
            raise SoakError(f"{deed.what} {deed.thing} is not shown {after}: {done.stdout[-1500:]}")

    def refused_reload(self) -> None:
        """Whatever else goes on: a policy that is in error changes nothing, here neither."""
        self.policy.replace(BROKEN)
        if "reload failed" not in self.agent.reload():
            raise SoakError("a broken policy was put in force")
        self.policy.replace(POLICY)

    def check_unfed(self, deed: Deed) -> None:
        """Where connect() is not refused any more there is no proof."""
        if deed.thing == "aegis_connect4" and deed.what != "pin removed":
            self.agent.wait_event(aegis__notice="self-test-failed")
            before = self.watchdog.count()
            time.sleep(1.5 * WATCHDOG_S)
            if self.watchdog.count() > before:
                raise SoakError(f"fed without a proof after {deed.what} {deed.thing}")
            self.told["watchdog left unfed"] += 1

    def put_right(self, deed: Deed, *, by_reload: bool) -> None:
        if by_reload and deed.thing in BY_RELOAD and deed.what != "pin removed":
            done = self.agent.command("reload")
            if done.returncode:
                raise SoakError(f"no reload after {deed.what} {deed.thing}: {done.stderr}")
            self.told["put right by a reload"] += 1
        else:
            self.agent.stop()
            self.agent.start()
            self.told["put right by the next agent"] += 1


def run(count: int, seed: int) -> Result:
    """*count* deeds at most, in a random order."""
    chance = Random(seed)  # noqa: S311
    with (
        Scene() as scene,
        closing(Watchdog(scene.folder)) as watchdog,
        closing(Servers(scene.network)) as servers,
        closing(Agents(scene.workshop, scene.scratch, scene.programs)) as agents,
    ):
        servers.open(ALLOWED, DENIED)
        made = _Round(scene, agents, watchdog)
        chosen = list(deeds(made.house))
        chance.shuffle(chosen)
        for deed in chosen[:count]:
            made.commit(deed)
            made.check_shown(deed, "at once")
            if chance.random() < 0.5:
                made.refused_reload()
                made.check_shown(deed, "after a reload that was refused")
            made.check_unfed(deed)
            made.put_right(deed, by_reload=chance.random() < 0.7)
            made.check_whole(deed)
            made.check_fed(deed)
    told = ", ".join(f"{number} {what}" for what, number in sorted(made.told.items()))
    return Result(
        made.fed > 0,
        f"evidence: {min(count, len(chosen))} of {len(chosen)} deeds (seed {seed}: {told}), each "
        f"an event, the latest after {made.latest:.2f} s, and status 1 until it was put right; "
        f"watchdog fed {made.fed} times, {made.proofs} proofs counted meanwhile",
    )
