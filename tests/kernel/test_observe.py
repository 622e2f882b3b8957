# SPDX-License-Identifier: Apache-2.0
"""Observe mode: everything is said, nothing is done."""

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.hooks import Hooks
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.workshop import Workshop

POLICY = """
[global]
mode = "{mode}"
script_dirs = ["{scripts}"]
detent = 0

[[app]]
exe = "curl"
ports = ["8086"]
actions = ["log", "notify", "block"]

[[app]]
exe = "killed"
ports = ["8086"]
actions = ["log", "kill"]
"""


@pytest.fixture(scope="module")
def hooks(workshop: Workshop) -> Hooks:
    return Hooks(workshop.new_folder())


@pytest.fixture(scope="module")
def agent(servers: Servers, hooks: Hooks, agents: Agents) -> Agent:
    servers.open(8086, 8087)
    started, _ = agents.share(POLICY.format(mode="observe", scripts=hooks.directory))
    return started


def test_observe_lets_pass_what_it_would_block(
    agent: Agent, programs: Programs, servers: Servers
) -> None:
    """The connection is made and the event says ``would-block``."""
    before, since = servers.connections(8087), agent.mark()
    outcome = programs.curl("curl", "http://127.0.0.1:8087/")
    assert (outcome.code, outcome.stdout) == (0, "hi\n"), outcome.stderr
    assert servers.connections(8087) == before + 1
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "aegis.verdict") == "would-block"
    assert field(event, "aegis.mode") == "observe"
    assert field(event, "event.outcome") == "success"
    assert field(event, "aegis.would_kill") is False


def test_observe_spares_what_it_would_kill(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """The program lives on; the event says that it would have been killed."""
    since, talk = agent.mark(), programs.talk(workshop.install("killed"))
    assert talk.say("tcp 127.0.0.1 8087") == "OK"
    [event] = agent.settled_events(since, process__pid=talk.pid)
    assert field(event, "aegis.verdict") == "would-block"
    assert field(event, "aegis.would_kill") is True
    assert talk.say("tcp 127.0.0.1 8086") == "OK"
    assert talk.end() == 0


def test_observe_still_runs_scripts(agent: Agent, hooks: Hooks, programs: Programs) -> None:
    """``notify`` acts as written, so hooks can be tried before anything is enforced."""
    outcome = programs.curl("curl", "http://127.0.0.1:8087/")
    run = hooks.wait(str(outcome.pid))
    assert run.environment["AEGIS_VERDICT"] == "would-block"


def test_observe_counts_what_it_would_block(agent: Agent, programs: Programs) -> None:
    """The counters tell what enforcing would have cost."""
    before = agent.counters()
    programs.curl("curl", "http://127.0.0.1:8087/")
    after = agent.counters()
    assert after["would_block"] == before["would_block"] + 1
    assert after["blocked"] == before["blocked"]
