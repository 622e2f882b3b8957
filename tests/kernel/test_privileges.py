# SPDX-License-Identifier: Apache-2.0
"""Loading takes three capabilities; the agent that runs has what its reactions need."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.bpf.rights import CAPABILITIES
from aegis.privileges import KILLING, OTHER_USERS, PERMITTED
from tests.kernel.agent import Agent
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
SCRIPTS = '[global]\nscript_user = "nobody"\n' + BLOCKS
REFUSES = BLOCKS + '[[app]]\nexe = "server"\nlisten = ["8088"]\nactions = ["log", "block"]\n'
LOADING = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_admin", "--")
# As debian/aegis.service has it: nothing is gained by executing.
TIGHT = ("setpriv", "--no-new-privs", *LOADING)


def rights(pid: int) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
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


def wait_for_rights(agent: Agent, effective: frozenset[str], permitted: frozenset[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(found != (effective, permitted) for found in rights(agent.pid)):
        assert time.monotonic() < deadline, list(rights(agent.pid))
        time.sleep(0.05)


@pytest.fixture(scope="module")
def running(agents: Agents, servers: Servers) -> tuple[Agent, PolicyFile]:
    servers.open(8086, 8087)
    return agents.start(BLOCKS)


@pytest.fixture
def talk(programs: Programs, workshop: Workshop) -> Talk:
    return programs.standing(workshop.install("rightless"))


CASES = [
    pytest.param(BLOCKS, frozenset(), id="only-blocks"),
    pytest.param(KILLS, KILLING, id="kills"),
    pytest.param(SCRIPTS, KILLING | OTHER_USERS, id="script-user"),
    pytest.param(BLOCKS, frozenset(), id="and-back"),
]


@pytest.mark.parametrize(("text", "effective"), CASES)
def test_the_running_agent_has_what_its_reactions_need(
    text: str, effective: frozenset[str], running: tuple[Agent, PolicyFile], talk: Talk
) -> None:
    """All its threads; whatever the policy before needed."""
    agent, policy = running
    policy.replace(text)
    assert "aegis: reload" in agent.reload()
    wait_for_rights(agent, effective, PERMITTED)
    assert not talk.reaches("tcp", REMOTE4, 8087)
    assert agent.command("status").returncode == 0


def test_without_them_it_does_all_its_work(running: tuple[Agent, PolicyFile], talk: Talk) -> None:
    """Puts policies in force, on trial too, sees packets, keeps history, proves itself."""
    agent, policy = running
    policy.replace(BLOCKS)
    agent.reload()
    wait_for_rights(agent, frozenset(), PERMITTED)
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
    wait_for_rights(agent, frozenset(), PERMITTED)


def test_another_user_s_process_is_killed_nevertheless(
    running: tuple[Agent, PolicyFile], programs: Programs, workshop: Workshop
) -> None:
    """By the agent, which has to look at it first."""
    agent, policy = running
    policy.replace(BY_AGENT)
    assert "aegis: reloaded" in agent.reload()
    victim = programs.start(workshop.install("doomed"), "-", user=NOBODY)
    assert victim.stdin is not None
    victim.stdin.write(f"tcp {REMOTE4} 8087\n")
    victim.stdin.flush()
    assert victim.wait(PATIENCE) == -9


def test_loading_takes_three_capabilities(agents: Agents, talk: Talk) -> None:
    """BPF, PERFMON and NET_ADMIN, and nothing can be gained: as a service would be started."""
    agent, _ = agents.start(BLOCKS, wrapper=TIGHT)
    wait_for_rights(agent, frozenset(), frozenset({"CAP_NET_ADMIN"}))
    assert not talk.reaches("tcp", REMOTE4, 8087)
    assert agent.status()["missing"] == []
    assert agent.log.stat().st_mode & 0o777 == 0o640
    agents.close()
