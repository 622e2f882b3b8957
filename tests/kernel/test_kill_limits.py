# SPDX-License-Identifier: Apache-2.0
"""Whom no rule kills, how many a rule may, and who dies along: whoever does the killing."""

import signal
import time
from pathlib import Path

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

BUDGET = 4
POLICY = """
[global]
never_kill = ["{spared}"]
kill_budget = {budget}
detent = 0

[[app]]
exe = "doomed"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
exe = "spared"
ports = ["8086"]
actions = ["log", "kill"]

[[app]]
exe = "family"
ports = ["8086"]
actions = ["log", "kill"]
kill_tree = true
"""
REFUSED = "EPERM"
FAMILY = """
sh -c 'echo $$ >>{pids}; sleep 600 & echo $! >>{pids}; wait' &
while [ "$(wc -l 2>/dev/null <{pids})" != 2 ]; do sleep 0.05; done
while :; do true 3<>/dev/tcp/127.0.0.1/8087; sleep 0.1; done 2>/dev/null
"""


@pytest.fixture
def agent(agents: Agents, workshop: Workshop, servers: Servers) -> Agent:
    servers.open(8086, 8087)
    agents.close()  # budgets are used up
    spared = workshop.install("spared")
    agent, _ = agents.start(POLICY.format(spared=spared, budget=BUDGET))
    return agent


def test_a_bad_rule_kills_no_more_than_its_budget(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """The others are refused like the dead, and each is an event that says why it lives."""
    since, doomed = agent.mark(), workshop.install("doomed")
    lives, dead = [], 0
    for _ in range(BUDGET + 3):
        talk = programs.talk(doomed)
        answer = talk.say("tcp 127.0.0.1 8087")
        assert answer in {REFUSED, ""}
        verdict = _fate(agent, since, talk.pid)
        if verdict == "over-budget":
            lives.append(talk.pid)
            assert talk.say("tcp 127.0.0.1 8086") == "OK"
            assert talk.end() == 0
        else:
            dead += 1
            assert talk.end() == -signal.SIGKILL
    assert (dead, len(lives)) == (BUDGET, 3)


def _fate(agent: Agent, since: int, pid: int) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for event in agent.events(since):
            if field(event, "process.pid") == pid and field(event, "aegis.kill") is not None:
                return str(field(event, "aegis.kill.status"))
        time.sleep(0.02)
    raise AssertionError(f"nothing was said of the kill of {pid}")


def test_a_program_of_never_kill_is_only_refused(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    since = agent.mark()
    talk = programs.talk(workshop.install("spared"))
    assert talk.say("tcp 127.0.0.1 8087") == REFUSED
    assert _fate(agent, since, talk.pid) == "protected"
    assert talk.say("tcp 127.0.0.1 8086") == "OK"
    assert talk.end() == 0


def test_kill_tree_takes_the_descendants_along(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """The kernel leaves the kill to the agent, or nobody would know whose they were."""
    family, folder = workshop.install("family", "/bin/bash"), workshop.new_folder()
    pids, script = folder / "pids", folder / "script"
    script.write_text(FAMILY.format(pids=pids))
    outcome = programs.run("sh", "-c", f"{family} {script}; echo $?")
    assert outcome.stdout.strip() == str(128 + signal.SIGKILL), outcome
    found = [Path("/proc", pid, "exe") for pid in pids.read_text().split()]
    assert len(found) == 2
    deadline = time.monotonic() + PATIENCE
    while any(exe.exists() for exe in found):
        assert time.monotonic() < deadline
        time.sleep(0.02)
