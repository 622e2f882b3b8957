# SPDX-License-Identifier: Apache-2.0
"""Self-test and evidence: whoever changes what decides is told of within two seconds."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from aegis._bpf import lib
from aegis.bpf.cgroup import instance_name
from aegis.bpf.generation import index_key
from aegis.bpf.layout import layout
from aegis.bpf.object import BpfObject, open_map
from aegis.bpf.pins import Pins
from aegis.bpf.trial import active_generation
from aegis.proving import PROVE_S
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.pace import at_most

POLICY = """
[[app]]
exe = "unheard-of"
ports = ["8086", "1000-2000", "3000"]
remotes = ["192.0.2.1:443", "198.51.100.0/24:1-80"]
actions = ["log", "block"]
"""
TOLD_S = 20.0 if AT_ROOT else 2.0  # the latter is what is promised


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
        """One byte of the first entry that says something."""
        with self.opened(self.pins.map_path(name)) as fd:
            table = open_map(name, fd)
            key, value = next((k, v) for k, v in table.items() if any(v))
            table.put(key, bytes([value[0] ^ 1]) + value[1:])

    def add(self, name: str) -> None:
        """An entry beside the others."""
        with self.opened(self.pins.map_path(name)) as fd:
            table = open_map(name, fd)
            key, value = next(table.items())
            table.put(key[:-1] + bytes([key[-1] ^ 1]), value)

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
        path.unlink()


DEEDS: list[tuple[str, Callable[[House], None], str]] = [
    ("a link detached", lambda h: h.detach("aegis_connect6"), "aegis_connect6 was taken off"),
    ("a program replaced", lambda h: h.replace("aegis_bind4"), "aegis_bind4 was replaced"),
    ("a link's pin", lambda h: h.unpin(h.pins.link_path("aegis_bind6")), "pin of aegis_bind6"),
    ("tracing's pin", lambda h: h.unpin(h.pins.link_path("aegis_exec")), "pin of aegis_exec"),
    ("a table's pin", lambda h: h.unpin(h.pins.map_path("nets")), "pin of table 'nets'"),
    ("an address", lambda h: h.change("hosts"), "table 'hosts' was changed"),
    ("another address", lambda h: h.add("hosts"), "table 'hosts' was changed"),
    ("one less", lambda h: h.drop("hosts"), "table 'hosts' was changed"),
    ("a network", lambda h: h.change("nets"), "table 'nets' was changed"),
    ("a selector", lambda h: h.change("rules"), "table 'rules' was changed"),
    ("a name", lambda h: h.change("exes"), "table 'exes' was changed"),
    ("a rule", lambda h: h.change("apps"), "table 'apps' was changed"),
    ("a port", lambda h: h.change("port_pages"), "table 'port_pages' was changed"),
    ("the mode", House.observe, "table 'configs' was changed"),
]


@pytest.fixture(scope="module")
def fresh(agents: Agents) -> Callable[[], House]:
    return lambda: House(agents.start(POLICY)[0])


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
    assert told.timestamp() - done < at_most(TOLD_S)
    assert expected in field(event, "message")
    finished = house.agent.command("status")
    assert finished.returncode == 1
    assert f"degraded: {field(event, 'message')}" in finished.stdout


def test_what_we_do_ourselves_is_not_told(fresh: Callable[[], House]) -> None:
    """Reloads and trials write the very tables."""
    house = fresh()
    since = house.agent.mark()
    for _ in range(5):
        house.agent.reload()
        time.sleep(0.3)
    assert house.agent.command("apply", "--confirm", "2").returncode == 0
    time.sleep(4)
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
        house.detach("aegis_connect4")
        since = house.agent.mark()
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
