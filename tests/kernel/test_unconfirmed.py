# SPDX-License-Identifier: Apache-2.0
"""A policy that was tried and not confirmed, and an agent that begins with new tables."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aegis import control
from aegis.bpf.cgroup import instance_name
from aegis.bpf.pins import Pins
from tests.kernel.agent import Agent
from tests.kernel.conftest import Agents
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""
TRIED = POLICY.replace("8086", "8087")
OLD_ABI = "0123456789abcdef"


class House:
    """An agent whose own file was tried, and not confirmed before it was killed."""

    def __init__(self, agents: Agents, talk: Talk, kept: Path) -> None:
        self.kept, self.talk = kept, talk
        self.agent: Agent
        self.policy: PolicyFile
        self.agent, self.policy = agents.start(POLICY, "--last-good", str(kept))
        self.instance = "root" if AT_ROOT else instance_name(self.agent.cgroup)
        deadline = time.monotonic() + PATIENCE
        while not kept.exists():
            assert time.monotonic() < deadline, "no last good policy"
            time.sleep(0.02)

    def try_out(self) -> None:
        self.policy.replace(TRIED)
        control.ask(self.instance, "apply", config="", seconds=600, knows=True)
        assert not self.is_before()
        self.agent.stop(signal.SIGKILL)

    def is_before(self) -> bool:
        """Whether POLICY decides; else TRIED does."""
        outcomes = [self.talk.reaches("tcp", "127.0.0.1", port) for port in (8086, 8087)]
        assert sorted(outcomes) == [False, True]
        return outcomes[0]

    def start(self, *flags: str) -> str:
        """What it said."""
        begin = len(self.agent.stderr().encode())
        self.agent.start("--last-good", str(self.kept), *flags)
        return self.agent.stderr(begin)


@pytest.fixture
def house(
    agents: Agents, workshop: Workshop, programs: Programs, servers: Servers
) -> Iterator[House]:
    servers.open(8086, 8087)
    agents.close()
    talk = programs.talk(workshop.install("restricted"))
    made = House(agents, talk, workshop.new_folder() / "last-good")
    made.try_out()
    yield made
    agents.close()
    assert talk.end() == 0


def of_another_layout(house: House) -> None:
    pins = Pins(house.instance)
    pins.folder.rename(pins.folder.with_name(OLD_ABI))


def without_a_map(house: House) -> None:
    Pins(house.instance).map_path("rules").unlink()


def after_a_boot(house: House) -> None:
    assert house.agent.command("unload").returncode == 0


NEW_TABLES = (of_another_layout, without_a_map, after_a_boot)


@pytest.mark.parametrize("become", NEW_TABLES, ids=lambda become: become.__name__)
def test_with_new_tables_the_policy_before_is_enforced(
    become: Callable[[House], None], house: House
) -> None:
    """As it was: it is in the file of the last good one, whatever the maps look like now."""
    become(house)
    said = house.start()
    assert "was tried and not confirmed: the one before it" in said
    assert house.is_before()
    finished = house.agent.command("status")
    assert finished.returncode == 1
    assert "the one before it, the last good, is in force" in finished.stdout
    assert Pins(house.instance).others() == []
    house.agent.stop(signal.SIGKILL)
    house.start()
    assert house.is_before()


def test_what_was_confirmed_without_an_agent_is_put_in_force(house: House) -> None:
    """Its note is where the agent has its history; of an agent that was killed it is left, too."""
    notes = list(house.agent.history.parent.glob("unconfirmed-*"))
    assert notes
    assert house.agent.command("confirm").returncode == 0
    assert all(note.exists() for note in notes)
    assert "not confirmed" not in house.start()
    assert not house.is_before()
    assert house.agent.command("status").returncode == 0
    assert not any(note.exists() for note in notes)


def test_nothing_else_under_that_number_was_confirmed(house: House) -> None:
    """Numbers begin anew with the tables, and with each boot."""
    [note] = house.agent.history.parent.glob("unconfirmed-*")
    digest, number, boot = note.read_text().split()
    assert house.agent.command("unload").returncode == 0
    house.start()
    assert house.is_before()
    generation = control.ask(house.instance, "status")["generation"]
    house.agent.stop(signal.SIGKILL)
    assert int(number) != generation
    note.write_text(f"{digest} {generation} {boot[::-1]}")
    assert "not confirmed" in house.start()
    assert house.is_before()


def test_without_a_last_good_policy_nothing_is_refused(house: House) -> None:
    """Of the policy before nothing is known then; why is said."""
    of_another_layout(house)
    house.kept.write_text("x")
    assert f"in observe mode: {house.kept}: damaged" in house.start()
    assert house.talk.reaches("tcp", "127.0.0.1", 8086)
    assert house.talk.reaches("tcp", "127.0.0.1", 8087)


def test_the_command_line_overrules_the_policy_before(house: House) -> None:
    """Who asks to observe, observes."""
    of_another_layout(house)
    house.start("--observe")
    assert house.talk.reaches("tcp", "127.0.0.1", 8086)
    assert house.talk.reaches("tcp", "127.0.0.1", 8087)
