# SPDX-License-Identifier: Apache-2.0
"""``aegis load``: what was last in force is in force again, whatever became of the files."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis import last_good, loading
from aegis.bpf.cgroup import cgroup2_mount
from aegis.bpf.kernel import Kernel
from tests.kernel.agent import Agent, Finished, field
from tests.kernel.conftest import Agents
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT, PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[global]
detent = 0

[[app]]
exe = "restricted"
ports = ["8086"]
actions = ["log", "block"]
"""
BROKEN = "[[app\n"


class Machine:
    """One machine over its boots: an agent's end and ``unload`` stand for switching it off."""

    def __init__(self, agents: Agents, workshop: Workshop, talk: Talk) -> None:
        self.kept = workshop.new_folder() / "last-good"
        self.talk = talk
        self.agent: Agent
        self.policy: PolicyFile
        self.agent, self.policy = agents.start(POLICY, "--last-good", str(self.kept))

    def off(self) -> None:
        if self.agent.is_running:
            assert self.agent.stop() == 0
        assert self.agent.command("unload").returncode == 0
        assert not self.is_enforced()

    def load(self) -> Finished:
        return self.agent.command(
            "load", "-c", str(self.policy.path), "--last-good", str(self.kept)
        )

    def start(self) -> None:
        self.agent.start("--last-good", str(self.kept))

    def is_enforced(self) -> bool:
        assert self.talk.reaches("tcp", "127.0.0.1", 8086)
        return not self.talk.reaches("tcp", "127.0.0.1", 8087)


@pytest.fixture
def machine(
    agents: Agents, workshop: Workshop, programs: Programs, servers: Servers
) -> Iterator[Machine]:
    servers.open(8086, 8087)
    agents.close()
    talk = programs.talk(workshop.install("restricted"))
    yield Machine(agents, workshop, talk)
    agents.close()
    assert talk.end() == 0


def break_policy(policy: PolicyFile) -> None:
    policy.path.write_text(BROKEN)


def test_the_last_good_policy_needs_no_files_that_are_right(machine: Machine) -> None:
    """It is in force before an agent; one that cannot read the files leaves it so, and says it."""
    machine.off()
    break_policy(machine.policy)
    done = machine.load()
    assert done.returncode == 0, done.stderr
    assert f"from {machine.kept}" in done.stderr
    assert machine.is_enforced()
    with pytest.raises(AssertionError, match="the agent ended") as caught:
        machine.start()
    assert "no start; the policy in force before stays in force: generation 1" in str(caught.value)
    assert f"{machine.policy.path}:1" in str(caught.value)
    assert machine.is_enforced()


def test_an_agent_follows_and_names_what_was_judged_before_it(machine: Machine) -> None:
    """Records wait in the ring; the file says which rule they are of."""
    machine.off()
    assert machine.load().returncode == 0
    assert machine.is_enforced()
    assert machine.agent.command("status").returncode == 1  # nobody watches
    since = machine.agent.mark()
    machine.start()
    [event] = machine.agent.settled_events(since, process__pid=machine.talk.pid)
    assert field(event, "rule.name") == machine.policy.rule('exe = "restricted"')
    assert field(event, "aegis.generation") == 1
    assert machine.is_enforced()
    kept = machine.agent.status()["agent"]["last_good"]
    assert kept == {"path": str(machine.kept), "error": None}


def test_a_reload_is_what_the_next_boot_begins_with(machine: Machine) -> None:
    """Also when the agent had no time to end; what was refused is not kept."""
    machine.policy.replace(POLICY.replace("8086", "8087"))
    before = machine.kept.read_bytes() if machine.kept.exists() else b""
    assert "aegis: reloaded" in machine.agent.reload()
    wait_until_other(machine.kept, before)
    break_policy(machine.policy)
    assert "reload failed" in machine.agent.reload()
    machine.agent.stop()
    assert machine.agent.command("unload").returncode == 0
    assert machine.load().returncode == 0
    assert machine.talk.reaches("tcp", "127.0.0.1", 8087)
    assert not machine.talk.reaches("tcp", "127.0.0.1", 8086)


def wait_until_other(path: Path, before: bytes) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.read_bytes() == before:
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.02)


@pytest.mark.parametrize("damage", ["gone", "cut", "others"])
def test_without_a_last_good_policy_the_files_are_compiled(damage: str, machine: Machine) -> None:
    """And it is said why, in one line."""
    machine.off()
    if damage == "gone":
        machine.kept.unlink()
    elif damage == "cut":
        machine.kept.write_bytes(machine.kept.read_bytes()[:-9])
    else:
        machine.kept.chmod(0o666)
    done = machine.load()
    assert done.returncode == 0, done.stderr
    [why, what] = done.stderr.splitlines()
    assert why.startswith(f"aegis: no last good policy: {machine.kept}")
    assert f"from {machine.policy.path}" in what
    assert machine.is_enforced()
    assert machine.agent.command("unload").returncode == 0
    assert f"from {machine.kept}" in machine.load().stderr  # it is kept now


def test_with_neither_nothing_is_in_force_and_both_reasons_are_given(machine: Machine) -> None:
    """Half a policy is none, and the host stays reachable."""
    machine.off()
    machine.kept.write_bytes(b"x")
    break_policy(machine.policy)
    done = machine.load()
    assert done.returncode == 1
    assert str(machine.kept) in done.stderr
    assert f"{machine.policy.path}:1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not machine.is_enforced()
    assert "nothing is in force" in machine.agent.command("status").stdout


@pytest.mark.parametrize("agent", ["running", "stopped"])
def test_what_is_in_force_is_left_alone(agent: str, machine: Machine) -> None:
    """An upgrade of the package starts the unit again."""
    if agent == "stopped":
        assert machine.agent.stop() == 0
    machine.policy.replace(POLICY.replace("8086", "8087"))
    done = machine.load()
    assert done.returncode == 0
    assert "nothing done" in done.stderr
    assert machine.is_enforced()


def refuse(*_: object) -> None:
    raise OSError(5, os.strerror(5))


@pytest.mark.parametrize("what", ["close", "lock", "number"])
def test_what_fails_once_it_is_in_force_takes_nothing_back(
    what: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no command that has put a policy in force says that it failed."""
    machine.off()
    cgroup = cgroup2_mount() if AT_ROOT else machine.agent.cgroup
    with monkeypatch.context() as patch:
        if what == "close":
            close = Kernel.close
            patch.setattr(Kernel, "close", lambda kernel: refuse(close(kernel)))
        elif what == "lock":
            unlink = Path.unlink
            patch.setattr(
                Path,
                "unlink",
                lambda path, **how: refuse() if path.suffix == ".lock" else unlink(path, **how),
            )
        else:
            patch.setattr(last_good, "this_boot", refuse)
        done = loading.load(cgroup, machine.policy.path, machine.kept)
    assert (done.generation, done.source) == (1, machine.kept)
    # The number is the agent's to tell.
    assert ("Input/output error" in done.unfinished) is (what != "number")
    assert machine.is_enforced()
