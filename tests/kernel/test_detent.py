# SPDX-License-Identifier: Apache-2.0
"""Detent silences the report, never the enforcement, and tells what it silenced."""

import time

import pytest

from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.servers import Servers
from tests.kernel.settings import AT_ROOT
from tests.kernel.workshop import Workshop

# Long enough for a burst on a slow machine to fit in, short enough to wait for.
SHORT = 8 if AT_ROOT else 2
TRIES = 5

POLICY = f"""
[[app]]
exe = "patient"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "impatient"
ports = ["8086"]
detent = {SHORT}
actions = ["log", "block"]

[[app]]
exe = "each"
ports = ["8086"]
detent = 0
actions = ["log", "block"]
"""


@pytest.fixture(scope="module")
def agent(servers: Servers, agents: Agents) -> Agent:
    servers.open(8086, 8087)
    started, _ = agents.share(POLICY)
    return started


def test_detent_reports_once_and_refuses_always(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Thirty attempts: thirty refusals, one report, twenty-nine counted as suppressed."""
    before, since = agent.counters(), agent.mark()
    outcome = programs.run(workshop.install("patient"), "tcp", "127.0.0.1", "8087", "30")
    assert outcome.stdout.split() == ["EPERM"] * 30
    [event] = agent.settled_events(since, process__pid=outcome.pid)
    assert field(event, "aegis.count") == 1
    after = agent.counters()
    assert after["suppressed"] - before["suppressed"] == 29
    assert after["blocked"] - before["blocked"] == 30


def test_detent_is_of_the_program_not_of_the_process(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """A program started again is not news."""
    patient = workshop.install("patient")
    programs.run(patient, "tcp", "127.0.0.1", "9001")
    since = agent.mark()
    again = programs.run(patient, "tcp", "127.0.0.1", "9001")
    assert again.word == "EPERM"
    assert agent.settled_events(since, process__pid=again.pid) == []


@pytest.mark.parametrize(
    "flow",
    [
        pytest.param(("tcp", "127.0.0.1", 9003), id="another-port"),
        pytest.param(("tcp", "127.0.0.2", 9002), id="another-address"),
        pytest.param(("udp-send", "127.0.0.1", 9002), id="another-protocol"),
    ],
)
def test_detent_does_not_silence_something_else(
    flow: tuple[str, str, int], agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Another destination of the same program is reported at once."""
    talk, since = programs.standing(workshop.install("patient")), agent.mark()
    assert not talk.reaches("tcp", "127.0.0.1", 9002)
    assert not talk.reaches(*flow)
    [*_, event] = agent.settled_events(since, process__pid=talk.pid)
    transport, address, port = flow[0].split("-")[0], *flow[1:]
    assert field(event, "network.transport") == transport
    assert field(event, "destination") == {"ip": address, "port": port}


def test_the_next_report_carries_what_was_silenced(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """After the detent the count says how many there were since the last report."""
    talk = programs.standing(workshop.install("impatient"))
    for port in range(8087, 8087 + TRIES):
        since, begun = agent.mark(), time.monotonic()
        for _ in range(20):
            assert not talk.reaches("tcp", "127.0.0.1", port)
        ended = time.monotonic()
        time.sleep(SHORT + 0.1)
        assert not talk.reaches("tcp", "127.0.0.1", port)
        events = agent.settled_events(since, process__pid=talk.pid)
        if ended - begun < SHORT:
            assert [field(event, "aegis.count") for event in events] == [1, 20]
            return
    pytest.fail("this machine is too slow: no burst fitted in")


def test_detent_zero_reports_each(agent: Agent, workshop: Workshop, programs: Programs) -> None:
    """Thirty attempts, thirty events, in order."""
    since = agent.mark()
    outcome = programs.run(workshop.install("each"), "tcp", "127.0.0.1", "8087", "30")
    events = agent.settled_events(since, process__pid=outcome.pid)
    assert [field(event, "aegis.count") for event in events] == [1] * 30
