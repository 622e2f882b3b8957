# SPDX-License-Identifier: Apache-2.0
"""Loading takes three capabilities; the agent that runs has none in effect, its brokers have."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aegis.actions.processes import children
from aegis.bpf.rights import CAPABILITIES
from aegis.privileges import BROKERS
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.network import REMOTE4
from tests.kernel.policies import PolicyFile
from tests.kernel.programs import Programs, Talk
from tests.kernel.servers import Servers
from tests.kernel.settings import NOBODY, PATIENCE
from tests.kernel.workshop import Workshop

BLOCKS = '[[app]]\nexe = "rightless"\nports = ["8086"]\nactions = ["log", "block"]\n'
KILLS = BLOCKS + '[[app]]\nexe = "doomed"\nactions = ["kill"]\n'
# So that it is the agent who looks, and kills.
BY_AGENT = "[global]\nkill_tree = true\n" + KILLS
SCRIPTS = (
    '[global]\nscript_user = "nobody"\nscript_dirs = ["/etc/aegis/scripts"]\n'
    + BLOCKS.replace('"block"', '"block", "script:x"')
)
BOTH = SCRIPTS + '[[app]]\nexe = "doomed"\nactions = ["kill"]\n'
NAMED = BLOCKS + '[[app]]\nexe = "named"\nremotes = ["localhost:8086"]\n'
REFUSES = BLOCKS + '[[app]]\nexe = "server"\nlisten = ["8088"]\nactions = ["log", "block"]\n'
LOADING = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_admin", "--")
# As debian/aegis.service has it: nothing is gained by executing.
TIGHT = ("setpriv", "--no-new-privs", *LOADING)
Rights = tuple[frozenset[str], frozenset[str]]


def rights(pid: int) -> Iterator[Rights]:
    """Effective and permitted of each thread."""
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        lines = dict(
            line.split(":\t", 1)
            for line in (task / "status").read_text().splitlines()
            if "\t" in line
        )
        yield _names(lines["CapEff"]), _names(lines["CapPrm"])


def _names(text: str) -> frozenset[str]:
    held = int(text, 16)
    known = {name for name, bit in CAPABILITIES.items() if held >> bit & 1}
    rest = held & ~sum(1 << bit for bit in CAPABILITIES.values())
    return frozenset(known | ({f"others {rest:#x}"} if rest else set()))


def wait_for_rights(agent: Agent, held: frozenset[str]) -> None:
    """Until these, in effect and permitted, are those of each of its threads."""
    deadline = time.monotonic() + PATIENCE
    while (found := _held_by(agent)) != {(held, held)}:
        assert agent.is_running and time.monotonic() < deadline, found
        time.sleep(0.05)


def _held_by(agent: Agent) -> set[Rights]:
    """Of all its threads; of none if one ends meanwhile."""
    try:
        return set(rights(agent.pid))
    except OSError:
        return set()


@pytest.fixture
def running(agents: Agents, servers: Servers) -> tuple[Agent, PolicyFile]:
    servers.open(8086, 8087)
    return agents.share(BLOCKS)


@pytest.fixture
def fresh(agents: Agents, servers: Servers) -> Iterator[Callable[[str], Agent]]:
    """An agent of its own for each policy."""
    servers.open(8086, 8087)

    def start(text: str) -> Agent:
        agents.close()
        agent, _ = agents.start(text)
        return agent

    yield start
    agents.close()


@pytest.fixture
def talk(programs: Programs, workshop: Workshop) -> Talk:
    return programs.standing(workshop.install("rightless"))


def brokers_of(agent: Agent) -> dict[frozenset[Rights], int]:
    """What the threads of each broker of a running agent may do → its PID.

    One that ends, or has not given up its first rights yet, is among them as it is.
    """
    starter, found = agent.starter(), {}
    for pid in children().get(starter, ()) if starter else ():
        with suppress(OSError):  # ended meanwhile
            found[frozenset(rights(pid))] = pid
    return found


def wait_for_brokers(agent: Agent, wanted: set[frozenset[str]]) -> dict[frozenset[str], int]:
    """Until there are these and no other, all they may do in effect → their PIDs."""
    exactly = {frozenset({(held, held)}): held for held in wanted}
    deadline = time.monotonic() + PATIENCE
    while set(found := brokers_of(agent)) != set(exactly):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return {exactly[held]: pid for held, pid in found.items()}


@pytest.mark.parametrize("text", [BLOCKS, KILLS, SCRIPTS])
def test_the_running_agent_has_nothing_in_effect(
    text: str, running: tuple[Agent, PolicyFile], talk: Talk
) -> None:
    """All its threads, whatever its reactions need: that is its brokers'."""
    agent, policy = running
    policy.replace(text)
    assert "aegis: reload" in agent.reload()
    wait_for_rights(agent, frozenset())
    assert not talk.reaches("tcp", REMOTE4, 8087)
    assert agent.command("status").returncode == 0


def test_each_broker_has_what_its_reaction_takes(fresh: Callable[[str], Agent]) -> None:
    """One that no reaction needs is not even started."""
    assert wait_for_brokers(fresh(BLOCKS), set()) == {}
    assert wait_for_brokers(fresh(KILLS), {BROKERS["kill"]})
    wait_for_brokers(fresh(BOTH), {BROKERS["kill"], BROKERS["hooks"]})


def test_nothing_that_runs_all_the_time_has_openssl(fresh: Callable[[str], Agent]) -> None:
    """Python's asyncio takes it where it is; nobody here speaks TLS."""
    agent = fresh(BOTH)
    brokers = wait_for_brokers(agent, {BROKERS["kill"], BROKERS["hooks"]})
    for pid in (agent.pid, agent.starter(), *brokers.values()):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libpython" in maps or "python3" in maps
        assert "libcrypto" not in maps and "libssl" not in maps


def test_a_broker_ends_that_the_next_policy_does_not_need(agents: Agents) -> None:
    """By a reload: what it may do is not there any longer than what it is for."""
    agent, policy = agents.start(BOTH)
    wait_for_brokers(agent, {BROKERS["kill"], BROKERS["hooks"]})
    for text, wanted in (
        (SCRIPTS, {BROKERS["hooks"]}),
        (BLOCKS, set()),
        (KILLS, {BROKERS["kill"]}),
    ):
        policy.replace(text)
        assert "aegis: reloaded" in agent.reload()
        wait_for_brokers(agent, wanted)
        assert agent.command("status").returncode == 0
    agents.close()


def test_who_looks_names_up_has_no_rights_and_is_nobody(fresh: Callable[[str], Agent]) -> None:
    agent = fresh(NAMED)
    (pid,) = wait_for_brokers(agent, {frozenset()}).values()
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY


def test_a_broker_that_was_killed_comes_back(
    fresh: Callable[[str], Agent], programs: Programs, workshop: Workshop
) -> None:
    """Before it is needed; both are told, and a kill goes through it."""
    agent = fresh(BY_AGENT)
    (pid,) = wait_for_brokers(agent, {BROKERS["kill"]}).values()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while pid in (now := wait_for_brokers(agent, {BROKERS["kill"]}).values()):
        assert time.monotonic() < deadline, now
    end_of_another_user(programs, workshop)


def test_without_brokers_a_reaction_fails_and_is_told(
    fresh: Callable[[str], Agent], programs: Programs, workshop: Workshop
) -> None:
    """Who starts them is gone: ``status`` says what does not work; the policy stays in force."""
    agent = fresh(BY_AGENT)
    (pid,) = wait_for_brokers(agent, {BROKERS["kill"]}).values()
    starter = agent.starter()
    assert starter is not None
    for number in (starter, pid):
        os.kill(number, signal.SIGKILL)
    told = agent.wait_event(event__action="broker-failed")
    assert "the kill broker does not answer" in told["message"]
    status = agent.command("status")
    assert status.returncode != 0
    assert "the kill broker does not answer" in status.stdout
    victim = programs.start(workshop.install("doomed"), "-", user=NOBODY)
    assert victim.stdin is not None
    victim.stdin.write(f"tcp {REMOTE4} 8087\n")
    victim.stdin.flush()
    told = agent.wait_event(event__action="kill-skipped")
    assert "failed" in told["message"]
    assert victim.poll() is None
    assert len([e for e in agent.events() if field(e, "event.action") == "broker-failed"]) == 1


def test_without_them_it_does_all_its_work(running: tuple[Agent, PolicyFile], talk: Talk) -> None:
    """Puts policies in force, on trial too, sees packets, keeps history, proves itself."""
    agent, policy = running
    policy.replace(BLOCKS)
    agent.reload()
    wait_for_rights(agent, frozenset())
    policy.replace(REFUSES)
    assert "aegis: reloaded" in agent.reload()
    assert "aegis_ingress" in agent.status()["attached"]
    assert agent.command("apply", "--confirm", "60").returncode == 0
    assert agent.command("confirm").returncode == 0
    assert not talk.reaches("tcp", REMOTE4, 8087)
    assert agent.history.stat().st_size > 0
    before = agent.counters()["self_test"]
    deadline = time.monotonic() + PATIENCE
    while agent.counters()["self_test"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert agent.command("status").returncode == 0
    wait_for_rights(agent, frozenset())


def test_a_path_through_another_user_s_directory_is_followed(
    running: tuple[Agent, PolicyFile], programs: Programs, workshop: Workshop
) -> None:
    """By a broker that is there for no longer: the agent may not look into it."""
    agent, policy = running
    program, private = workshop.install("linked"), workshop.new_folder() / "private"
    private.mkdir(mode=0o700)
    (private / "current").symlink_to(program)
    os.chown(private, NOBODY, NOBODY)
    policy.replace(BLOCKS)
    agent.reload()
    wait_for_rights(agent, frozenset())
    rule = f'[[app]]\npath = "{private}/current"\nports = ["8086"]\nactions = ["block"]\n'
    policy.replace(BLOCKS + rule)
    said = agent.reload()
    assert "aegis: reloaded" in said
    assert f'"{program}" is meant' in agent.stderr()
    talk = programs.standing(program)
    assert talk.reaches("tcp", REMOTE4, 8086) and not talk.reaches("tcp", REMOTE4, 8087)
    wait_for_brokers(agent, set())
    wait_for_rights(agent, frozenset())


def test_without_brokers_a_reload_that_needs_one_fails_and_is_told(
    agents: Agents, servers: Servers, talk: Talk
) -> None:
    """Nobody is there to attach to packets: the old policy stays."""
    servers.open(8086, 8087)
    agents.close()
    agent, policy = agents.start(BLOCKS)
    wait_for_rights(agent, frozenset())
    starter = agent.starter()
    assert starter is not None
    os.kill(starter, signal.SIGKILL)
    before = agent.status()["generation"]
    policy.replace(REFUSES)
    said = agent.reload()
    assert "reload failed, the old policy stays in force" in said
    assert "the attach broker does not answer" in said
    agent.wait_event(event__action="reload-failed")
    status = agent.status()
    assert status["generation"] == before and "aegis_ingress" not in status["attached"]
    assert not status["agent"]["last_reload_ok"]
    assert talk.reaches("tcp", REMOTE4, 8086) and not talk.reaches("tcp", REMOTE4, 8087)
    agents.close()


def test_another_user_s_process_is_killed_nevertheless(
    running: tuple[Agent, PolicyFile], programs: Programs, workshop: Workshop
) -> None:
    """By the agent, which has to look at it first."""
    agent, policy = running
    policy.replace(BY_AGENT)
    assert "aegis: reloaded" in agent.reload()
    end_of_another_user(programs, workshop)


def end_of_another_user(programs: Programs, workshop: Workshop) -> None:
    victim = programs.start(workshop.install("doomed"), "-", user=NOBODY)
    assert victim.stdin is not None
    victim.stdin.write(f"tcp {REMOTE4} 8087\n")
    victim.stdin.flush()
    assert victim.wait(PATIENCE) == -9


def test_loading_takes_three_capabilities(agents: Agents, talk: Talk) -> None:
    """BPF, PERFMON and NET_ADMIN, and nothing can be gained: as a service would be started."""
    agent, _ = agents.start(BLOCKS, wrapper=TIGHT)
    wait_for_rights(agent, frozenset())
    assert not talk.reaches("tcp", REMOTE4, 8087)
    assert agent.status()["missing"] == []
    assert agent.log.stat().st_mode & 0o777 == 0o640
    agents.close()
