# SPDX-License-Identifier: Apache-2.0
"""Enforcement outlives the agent; only ``unload`` ends it."""

import argparse
import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from aegis.cli import unload
from aegis.cli.running import UNLOADED
from aegis.errors import ControlError
from tests.kernel.agent import Agent, field
from tests.kernel.cgroup import ScratchCgroup
from tests.kernel.conftest import Agents
from tests.kernel.flooding import flooding
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, BURST
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""


class House:
    """One agent for all, started again by those who come after its end."""

    def __init__(self, agents: Agents, talk: Talk) -> None:
        self.old = talk
        self.agent, self.policy = agents.start(POLICY)
        self._flags: tuple[str, ...] = ()

    def run(self, *flags: str) -> Agent:
        """The agent, running with *flags* and POLICY."""
        if self.agent.is_running and self._flags != flags:
            self.agent.stop()
        changed = self.policy.replace(POLICY)
        if not self.agent.is_running:
            self.agent.start(*flags)
        elif changed:
            assert "aegis: reloaded" in self.agent.reload()
        self._flags = flags
        return self.agent


@pytest.fixture(scope="module")
def house(agents: Agents, workshop: Workshop, programs: Programs, servers: Servers) -> House:
    servers.open(8086, 8087)
    agents.close()
    older_than_the_agent = programs.talk(workshop.install("restricted"))
    assert older_than_the_agent.reaches("tcp", "127.0.0.1", 8087)
    return House(agents, older_than_the_agent)


@pytest.fixture
def agent(house: House) -> Agent:
    return house.run()


@pytest.fixture
def policy(house: House) -> PolicyFile:
    return house.policy


@pytest.fixture
def talk(house: House, workshop: Workshop, programs: Programs) -> Iterator[Talk]:
    """A program that runs through it all."""
    talk = programs.talk(workshop.install("restricted"))
    yield talk
    assert talk.end() == 0


def is_enforced(talk: Talk) -> bool:
    """Whether POLICY is in force for a running program."""
    assert talk.reaches("tcp", "127.0.0.1", 8086)
    return not talk.reaches("tcp", "127.0.0.1", 8087)


def attached(scratch: ScratchCgroup) -> str:
    """What bpftool says is attached where the agent attaches."""
    place = scratch.path.parent if AT_ROOT else scratch.path
    command = ["bpftool", "cgroup", "show", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def assert_nothing_is_left(agent: Agent, talk: Talk, scratch: ScratchCgroup) -> None:
    assert talk.reaches("tcp", "127.0.0.1", 8087)
    assert "aegis" not in attached(scratch)
    status = agent.command("status")
    assert status.returncode == 1
    assert "nothing is in force" in status.stdout


def test_a_program_older_than_the_agent_is_governed_and_flagged(house: House) -> None:
    """What runs already is read from the live process: ``seeded``."""
    agent = house.run()
    since = agent.mark()
    assert is_enforced(house.old)
    [event] = agent.settled_events(since, process__pid=house.old.pid)
    assert "seeded" in field(event, "aegis.identity")
    assert field(event, "rule.name") == house.policy.rule('exe = "restricted"')
    assert field(event, "process.command_line").endswith("/restricted -")


def test_a_program_younger_than_the_agent_is_not_flagged(agent: Agent, talk: Talk) -> None:
    """``seeded`` is said only of those whose exec was not seen."""
    since = agent.mark()
    assert is_enforced(talk)
    [event] = agent.settled_events(since, process__pid=talk.pid)
    assert "seeded" not in field(event, "aegis.identity")


def reload(agent: Agent, by: str) -> None:
    if by == "SIGHUP":
        assert "aegis: reloaded" in agent.reload()
    else:
        finished = agent.command("reload")
        assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("by", ["SIGHUP", "command"])
def test_reload_puts_the_new_policy_in_force(
    by: str, agent: Agent, policy: PolicyFile, talk: Talk
) -> None:
    """Also for running programs, and events carry the new generation."""
    since = agent.mark()
    assert is_enforced(talk)
    policy.replace(POLICY.replace("8086", "8087"))
    reload(agent, by)
    assert talk.reaches("tcp", "127.0.0.1", 8087)
    assert not talk.reaches("tcp", "127.0.0.1", 8086)
    before, after = agent.settled_events(since, process__pid=talk.pid)
    assert field(after, "aegis.generation") > field(before, "aegis.generation")


BROKEN = [
    pytest.param(POLICY.replace("ports", "prots"), "prots", "SIGHUP", id="misspelt-key"),
    pytest.param(POLICY.replace('"8086"', "8086"), "8086", "SIGHUP", id="number-for-string"),
    pytest.param(POLICY + "[[app\n", "aegis.toml", "command", id="not-toml"),
]


@pytest.mark.parametrize(("text", "said", "by"), BROKEN)
def test_a_broken_policy_leaves_the_old_one_in_force(
    text: str, said: str, by: str, house: House, talk: Talk
) -> None:
    """An error with the place of the mistake, nothing changes, and the next reload works."""
    agent = house.run()
    house.policy.replace(text)
    if by == "SIGHUP":
        message = agent.reload()
        assert "reload failed" in message
    else:
        finished = agent.command("reload")
        assert finished.returncode != 0
        message = finished.stderr
    assert f"{house.policy.path}:" in message
    assert said in message
    assert is_enforced(talk)
    house.policy.replace(POLICY.replace("8086", "8087"))
    reload(agent, "SIGHUP")
    assert not talk.reaches("tcp", "127.0.0.1", 8086)


def test_a_policy_others_can_write_to_is_not_put_in_force(
    agent: Agent, policy: PolicyFile, talk: Talk
) -> None:
    """The trust check names the path; the policy in force stays."""
    policy.replace(POLICY.replace("8086", "8087"))
    policy.path.chmod(0o666)
    finished = agent.command("reload")
    assert finished.returncode != 0
    assert str(policy.path) in finished.stderr
    assert is_enforced(talk)


def test_no_verdict_is_wrong_while_policies_are_exchanged(
    agent: Agent, policy: PolicyFile, workshop: Workshop, programs: Programs
) -> None:
    """Five reloads under fire: what is allowed by both is never refused, nor the reverse."""
    text = POLICY.replace("detent = 0", "")  # a flood of events is another test
    policy.replace(text)
    reload(agent, "SIGHUP")
    allowed: list[str] = []
    refused: list[str] = []
    restricted = workshop.install("restricted")
    with (
        flooding(programs, restricted, 8086, allowed),
        flooding(programs, restricted, 8087, refused),
    ):
        for number in range(5):
            policy.replace(text.replace('["8086"', f'["{9000 + number}", "8086"'))
            reload(agent, "SIGHUP")
    assert allowed
    assert all('"refused": 0, "failed": 0' in answer for answer in allowed), allowed
    assert refused
    assert all('"allowed": 0,' in answer for answer in refused), refused


def test_a_second_agent_is_refused(house: House, agent: Agent, talk: Talk) -> None:
    """Two agents would undo each other's policies: a clear line, and nothing changes."""
    finished = agent.command("run", "-c", house.policy.path, "--observe")
    assert finished.returncode != 0
    assert "already" in finished.stderr
    assert is_enforced(talk)


def test_an_agent_killed_is_adopted_by_the_next_without_a_gap(
    agent: Agent, talk: Talk, workshop: Workshop, programs: Programs
) -> None:
    """SIGKILL under fire and a new agent: not one connection slips through, all is counted.

    What was executed in between is known exactly: the kernel took it down at exec.
    """
    before, answers = agent.counters(), list[str]()
    with flooding(programs, workshop.install("restricted"), 8087, answers):
        agent.stop(signal.SIGKILL)
        assert is_enforced(talk)
        between = programs.talk(workshop.install("restricted"))
        assert is_enforced(between)
        agent.start()
    assert answers
    assert all('"allowed": 0,' in answer for answer in answers), answers
    agent.settle()  # until then the ring may be full
    since, after = agent.mark(), agent.counters()
    assert after["blocked"] - before["blocked"] >= BURST * len(answers)
    assert after["decided"] == sum(
        after[name] for name in ("emitted", "suppressed", "lost", "quiet")
    )
    assert is_enforced(between)
    [event] = agent.settled_events(since, process__pid=between.pid)
    assert "seeded" not in field(event, "aegis.identity")


def test_sigterm_stops_the_agent_and_not_the_enforcement(
    agent: Agent, talk: Talk, workshop: Workshop, programs: Programs
) -> None:
    """Stopping is not unloading, for running programs and new ones; ``status`` says so.

    Nothing is told of it that somebody else had done.
    """
    since = agent.mark()
    assert agent.stop() == 0
    assert [e for e in agent.events(since) if field(e, "aegis.notice") == "tampered"] == []
    assert "not loaded" not in agent.stderr()
    assert is_enforced(talk)
    outcome = programs.run(workshop.install("restricted"), "tcp", "127.0.0.1", "8087")
    assert outcome.word == "EPERM"
    status = agent.command("status", "--json")
    assert status.returncode == 1
    state = json.loads(status.stdout)
    assert state["agent"] is None
    assert any("no agent" in problem for problem in state["problems"])
    assert agent.command("reload").returncode != 0


def test_unload_ends_it_without_an_agent(house: House, talk: Talk, scratch: ScratchCgroup) -> None:
    """What a killed agent left behind is taken out by the command alone; twice is fine."""
    if house.agent.is_running:
        house.agent.stop(signal.SIGKILL)
    assert is_enforced(talk)
    for _ in range(2):
        finished = house.agent.command("unload")
        assert finished.returncode == 0, finished.stderr
    assert_nothing_is_left(house.agent, talk, scratch)


def test_unload_ends_it_while_the_agent_runs(
    agent: Agent, talk: Talk, scratch: ScratchCgroup
) -> None:
    """After ``unload`` a fresh connection works and nothing of ours is attached."""
    assert is_enforced(talk)
    assert "aegis" in attached(scratch)
    finished = agent.command("unload")
    assert finished.returncode == 0, finished.stderr
    assert_nothing_is_left(agent, talk, scratch)
    assert agent.stop() == UNLOADED  # for systemd: not to be started anew


def test_unload_ends_it_while_the_agent_hangs(
    house: House, talk: Talk, scratch: ScratchCgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in force goes all the same; that the agent has to be ended is said."""
    agent = house.run()
    assert is_enforced(talk)
    monkeypatch.setattr(unload, "STOP_S", 0.3)
    monkeypatch.setattr(unload, "ANSWER_S", 0.1)
    place = None if AT_ROOT else scratch.path
    agent.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(ControlError, match="does not stop"):
            unload.run(argparse.Namespace(cgroup=place, json=False, history=agent.history))
        assert talk.reaches("tcp", "127.0.0.1", 8087)
    finally:
        agent.send_signal(signal.SIGCONT)
    agent.stop()
    assert_nothing_is_left(agent, talk, scratch)


def test_observe_flag_and_unload_on_exit(house: House, talk: Talk, scratch: ScratchCgroup) -> None:
    """``--observe`` outranks the file, also after a reload; then nothing is left behind."""
    agent = house.run("--observe", "--unload-on-exit")
    assert not is_enforced(talk)
    reload(agent, "SIGHUP")
    assert not is_enforced(talk)
    assert agent.stop() == 0
    assert_nothing_is_left(agent, talk, scratch)


def test_enforce_flag_outranks_the_file(house: House, talk: Talk) -> None:
    """``--enforce`` likewise."""
    agent = house.run("--enforce")
    house.policy.replace(POLICY.replace("detent", 'mode = "observe"\ndetent'))
    reload(agent, "SIGHUP")
    assert is_enforced(talk)
