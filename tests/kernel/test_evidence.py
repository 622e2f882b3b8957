# SPDX-License-Identifier: Apache-2.0
"""Self-test and evidence: whoever changes what decides is told of within two seconds."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from aegis._bpf import lib
from aegis.bpf.cgroup import instance_name
from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout
from aegis.bpf.maps import KEY_OF_ONE
from aegis.bpf.object import BpfObject, open_map
from aegis.bpf.pins import COMPLETE, Pins
from aegis.bpf.trial import active_generation
from aegis.proving import PROVE_S
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4_OTHER
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "unheard-of"
ports = ["8086", "1000-2000", "3000"]
remotes = ["192.0.2.1:443", "198.51.100.0/24:1-80"]
actions = ["log", "block"]
"""
# So large that to compare all of it takes a while.
PLACES = ", ".join(
    f'"2001:db8:{{0:x}}::{place:x}", "2001:db8:{{0:x}}:{place:x}::/64"'
    for place in range(2, 1002, 2)
)
LARGE_RULE = f'[[app]]\nexe = "large{{0:x}}"\nremotes = [{PLACES}]\n'
LARGE = POLICY + "".join(map(LARGE_RULE.format, range(20)))
HALVES = {"apps", "port_dirs", "port_pages"}  # one of two is in force
TOLD_S = 20.0 if AT_ROOT else 2.0  # the latter is what is promised


def number_of(key: bytes) -> int:
    return int.from_bytes(key, sys.byteorder)


class House:
    """An agent, and root's hand in its tables."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.pins = Pins("root" if AT_ROOT else instance_name(agent.cgroup))

    @contextmanager
    def opened(self, path: Path) -> Iterator[int]:
        fd = self.pins.open(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def change(self, name: str) -> None:
        """One byte of the first entry that says something, of the half that is in force."""
        half = self.generation() & 1 if name in HALVES else 0
        with self.opened(self.pins.map_path(name)) as fd:
            table = open_map(name, fd)
            begin = half * table.room // 2  # of an array; keys of others are no numbers
            entries = ((k, v) for k, v in table.items() if any(v))
            key, value = next((k, v) for k, v in entries if not half or number_of(k) >= begin)
            table.put(key, bytes([value[0] ^ 1]) + value[1:])

    def add(self, name: str) -> None:
        """An entry beside the others."""
        with self.opened(self.pins.map_path(name)) as fd:
            table = open_map(name, fd)
            key, value = next(table.items())
            table.put(key[:-1] + bytes([key[-1] ^ 1]), value)

    def generation(self) -> int:
        """As the kernel has it, whatever else is wrong."""
        with self.opened(self.pins.map_path("active")) as fd:
            return number_of(open_map("active", fd).get(KEY_OF_ONE) or b"")

    def plant(self, listed: str, address: str) -> None:
        """What the policy says of *listed*, for *address*, by the number that comes next."""
        fresh = 1 + self.generation()
        old, new = (ip_address(each).packed for each in (listed, address))
        with self.opened(self.pins.map_path("hosts")) as fd:
            table = open_map("hosts", fd)
            key, value = next((k, v) for k, v in table.items() if k.endswith(old))
            table.put(index_key(fresh) + key[4:-4] + new, value)

    def drop(self, name: str) -> None:
        with self.opened(self.pins.map_path(name)) as fd:
            table = open_map(name, fd)
            table.clear(next(table.keys()))

    def observe(self) -> None:
        """The row in force, made harmless."""
        maps = {}
        with (
            self.opened(self.pins.map_path("active")) as active,
            self.opened(self.pins.map_path("configs")) as configs,
        ):
            maps = {"active": open_map("active", active), "configs": open_map("configs", configs)}
            key = index_key(active_generation(maps) & 1)
            row = layout("aegis_config").unpack(maps["configs"].get(key) or b"")
            fresh = row | {"mode": lib.AEGIS_MODE_OBSERVE}
            maps["configs"].put(key, layout("aegis_config").pack(**fresh))

    def detach(self, name: str) -> None:
        with self.opened(self.pins.link_path(name)) as fd:
            assert lib.aegis_link_detach(fd) == 0

    def replace(self, name: str) -> None:
        """Another program in its place; its own, loaded again."""
        loaded = BpfObject()
        try:
            with self.opened(self.pins.link_path(name)) as fd:
                assert lib.aegis_link_update(fd, loaded.program_fd(name)) == 0
        finally:
            loaded.close()

    def unpin(self, path: Path) -> None:
        path.rmdir() if path.is_dir() else path.unlink()

    def program_pins(self) -> list[Path]:
        """What the next agent takes over instead of loading it."""
        return sorted((self.pins.folder / "programs").glob("*/*"))


Deed = tuple[str, Callable[[House], None], str]

DEEDS: list[Deed] = [
    ("a link detached", lambda h: h.detach("aegis_connect6"), "aegis_connect6 was taken off"),
    ("a program replaced", lambda h: h.replace("aegis_bind4"), "aegis_bind4 was replaced"),
    ("a link's pin", lambda h: h.unpin(h.pins.link_path("aegis_bind6")), "pin of aegis_bind6"),
    ("tracing's pin", lambda h: h.unpin(h.pins.link_path("aegis_exec")), "pin of aegis_exec"),
    ("a table's pin", lambda h: h.unpin(h.pins.map_path("nets")), "pin of table 'nets'"),
    ("the ring's pin", lambda h: h.unpin(h.pins.map_path("events")), "pin of table 'events'"),
    ("an address", lambda h: h.change("hosts"), "table 'hosts' was changed"),
    ("another address", lambda h: h.add("hosts"), "table 'hosts' was changed"),
    ("one less", lambda h: h.drop("hosts"), "table 'hosts' was changed"),
    ("a network", lambda h: h.change("nets"), "table 'nets' was changed"),
    ("a selector", lambda h: h.change("rules"), "table 'rules' was changed"),
    ("a name", lambda h: h.change("exes"), "table 'exes' was changed"),
    ("a rule", lambda h: h.change("apps"), "table 'apps' was changed"),
    ("a port", lambda h: h.change("port_pages"), "table 'port_pages' was changed"),
    ("the mode", House.observe, "table 'configs' was changed"),
    ("a program's pin", lambda h: h.unpin(h.program_pins()[0]), "the pin of program '"),
    ("the mark of a start", lambda h: h.unpin(h.pins.folder / COMPLETE), "the mark is gone"),
]
# What a reload puts right, and what only the next agent does: all at once.
WRITTEN: list[Deed] = [
    ("an address", lambda h: h.change("hosts"), "table 'hosts' was changed"),
    ("another network", lambda h: h.add("nets"), "table 'nets' was changed"),
    ("a name", lambda h: h.change("exes"), "table 'exes' was changed"),
    ("another name", lambda h: h.add("exes"), "table 'exes' was changed"),
    ("a port", lambda h: h.change("port_pages"), "table 'port_pages' was changed"),
]
ENDED: list[Deed] = [
    ("until when", lambda h: h.change("configs"), "table 'configs' was changed"),
]
LASTING: list[Deed] = [
    ("a program replaced", lambda h: h.replace("aegis_bind4"), "aegis_bind4 was replaced"),
    ("who is spared", lambda h: h.add("spared"), "table 'spared' was changed"),
    ("a table's pin", lambda h: h.unpin(h.pins.map_path("procs")), "pin of table 'procs'"),
    ("a sum's pin", lambda h: h.unpin(h.pins.map_path("epoch")), "pin of table 'epoch'"),
    ("a program's pin", lambda h: h.unpin(h.program_pins()[0]), "the pin of program '"),
]


@pytest.fixture(scope="module")
def fresh(agents: Agents) -> Callable[[], House]:
    return lambda: House(agents.start(POLICY)[0])


@pytest.fixture(scope="module")
def watched(programs: Programs, workshop: Workshop, servers: Servers) -> Talk:
    """Whom the rule is about."""
    servers.open(8086, 8087, 443)
    return programs.standing(workshop.install("unheard-of"))


@pytest.mark.parametrize(("deed", "expected"), [d[1:] for d in DEEDS], ids=[d[0] for d in DEEDS])
def test_what_somebody_changes_is_told_and_shown(
    deed: Callable[[House], None], expected: str, fresh: Callable[[], House]
) -> None:
    """Within two seconds an event, and exit code 1 of status as long as it is so."""
    house = fresh()
    assert house.agent.command("status").returncode == 0
    time.sleep(0.2)
    since = house.agent.mark()
    deed(house)
    done = time.time()
    event = house.agent.wait_event(since, aegis__notice="tampered")
    told = datetime.fromisoformat(field(event, "@timestamp"))  # it is written at once
    assert told.timestamp() - done < TOLD_S
    assert expected in field(event, "message")
    finished = house.agent.command("status")
    assert finished.returncode == 1
    assert f"degraded: {field(event, 'message')}" in finished.stdout


@pytest.mark.parametrize("name", ["hosts", "nets"])
def test_of_a_large_policy_it_is_told_as_soon(name: str, agents: Agents) -> None:
    """Twenty thousand entries: also before a reload, which writes that very table."""
    agent, _ = agents.start(LARGE)
    house = House(agent)
    wait_whole(agent)
    for again in (False, True):
        since = agent.mark()
        (house.change if again else house.add)(name)
        done = time.time()
        if again:
            assert "aegis: reloaded" in agent.reload()
        event = agent.wait_event(since, aegis__notice="tampered")
        assert f"table '{name}' was changed" in field(event, "message")
        told = datetime.fromisoformat(field(event, "@timestamp"))
        assert told.timestamp() - done < TOLD_S
        if not again:
            assert "aegis: reloaded" in agent.reload()
        wait_whole(agent)


def wait_whole(agent: Agent) -> None:
    """Until nothing is wrong: it looks once a second."""
    deadline = time.monotonic() + PATIENCE
    while (finished := agent.command("status")).returncode:
        assert time.monotonic() < deadline, finished.stdout
        time.sleep(0.2)


def wait_told(agent: Agent, deeds: list[Deed]) -> None:
    """Until each is: it looks once a second."""
    deadline = time.monotonic() + PATIENCE
    while any(expected not in agent.stderr() for _, _, expected in deeds):
        assert time.monotonic() < deadline, agent.stderr()
        time.sleep(0.1)


def assert_shown(house: House, deeds: list[Deed]) -> None:
    finished = house.agent.command("status")
    assert finished.returncode == 1
    for what, _, expected in deeds:
        assert expected in finished.stdout, what


@pytest.mark.parametrize(
    ("deeds", "by_reload"),
    [
        pytest.param(WRITTEN, True, id="written"),
        pytest.param(ENDED, True, id="ended"),
        pytest.param(WRITTEN, False, id="found-so"),
        pytest.param(LASTING, False, id="lasting"),
    ],
)
def test_it_is_shown_until_it_is_put_right(
    deeds: list[Deed], by_reload: bool, agents: Agents, watched: Talk
) -> None:
    """A reload that is refused forgets nothing; one that is not writes the policy's tables anew.

    All else is put right by the next agent, which brings what lacks a pin anew.
    """
    agent, policy = agents.start(POLICY)
    house = House(agent)
    wait_whole(agent)
    for _, deed, _ in deeds:
        deed(house)
    wait_told(agent, deeds)
    policy.replace("[[app]]\nprots = 1\n")
    assert "reload failed" in agent.reload()
    assert_shown(house, deeds)
    policy.replace(POLICY)
    if by_reload or deeds is LASTING:
        assert "aegis: reloaded" in agent.reload()
    if not by_reload:
        assert_shown(house, deeds)
        agent.stop()
        agent.start()
    wait_whole(agent)
    assert watched.reaches("tcp", "127.0.0.1", 8086)
    assert not watched.reaches("tcp", "127.0.0.1", 8087)


@pytest.mark.parametrize("policy", [POLICY, LARGE], ids=["small", "large"])
def test_what_is_planted_for_the_next_policy_is_told_and_none_of_it(
    policy: str, agents: Agents, watched: Talk
) -> None:
    """Under the number that comes next, and a moment before it comes."""
    agent, _ = agents.start(policy)
    wait_whole(agent)
    House(agent).plant("192.0.2.1", REMOTE4_OTHER)
    assert "aegis: reloaded" in agent.reload()
    assert not watched.reaches("tcp", REMOTE4_OTHER, 443)
    event = agent.wait_event(aegis__notice="tampered")
    assert "table 'hosts' was changed" in field(event, "message")
    wait_whole(agent)


def test_what_we_do_ourselves_is_not_told(fresh: Callable[[], House]) -> None:
    """Reloads and trials write the very tables."""
    house = fresh()
    since = house.agent.mark()
    for _ in range(5):
        house.agent.reload()
        time.sleep(0.3)
    assert house.agent.command("apply", "--confirm", "2").returncode == 0
    deadline = time.monotonic() + PATIENCE
    while house.agent.status()["trial_s"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(2)  # it looks once a second
    assert house.agent.command("status").returncode == 0
    assert house.agent.settled_events(since, aegis__notice="tampered") == []


def test_a_refusal_is_proven_and_leaves_no_trace(fresh: Callable[[], House]) -> None:
    """It is counted apart: neither a decision, which history holds, nor an event."""
    house = fresh()
    before = house.agent.counters()
    deadline = time.monotonic() + 2 * PROVE_S + PATIENCE
    while house.agent.counters()["self_test"] < before["self_test"] + 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    status = house.agent.status()
    assert status["agent"]["proven_s"] < 2 * PROVE_S
    if not AT_ROOT:  # there, others are governed too
        assert {**status["counters"], "self_test": 0} == {**before, "self_test": 0}
    assert [e for e in house.agent.events() if field(e, "destination.port") == 1] == []


def test_without_the_hook_there_is_no_proof(fresh: Callable[[], House]) -> None:
    """Said in so many words; a proof is what tells a gap that no link shows."""
    house = fresh()
    since = house.agent.mark()
    house.detach("aegis_connect4")
    event = house.agent.wait_event(since, aegis__notice="self-test-failed")
    assert "was not: nothing refused it" in field(event, "message")
    assert "degraded: self-test" in house.agent.command("status").stdout


def test_the_watchdog_is_fed_by_a_proof_only(
    agents: Agents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times in its time; not once more after the hook was taken away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1500000")
        house = House(agents.start(POLICY)[0])
        systemd.settimeout(PATIENCE)
        heard = [systemd.recv(100).decode() for _ in range(6)]
        assert heard.count("WATCHDOG=1") >= 4
        since = house.agent.mark()
        house.detach("aegis_connect4")
        house.agent.wait_event(since, aegis__notice="self-test-failed")
        _drain(systemd)
        time.sleep(3)
        assert _drain(systemd) == []
    agents.close()


def _drain(systemd: socket.socket) -> list[str]:
    systemd.settimeout(0.05)
    heard = []
    while True:
        try:
            heard.append(systemd.recv(100).decode())
        except TimeoutError:
            return heard
