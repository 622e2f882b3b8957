# SPDX-License-Identifier: Apache-2.0
"""A flood: no verdict is wrong, and every decision is accounted for exactly.

``AEGIS_TEST_FLOOD=1000000 pytest tests/kernel/test_flood.py`` is the run the
project promises a figure for; the default is a fifth of it.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.kernel.agent import Agent, Event, field
from tests.kernel.conftest import Agents
from tests.kernel.flooding import flooding
from tests.kernel.programs import Programs
from tests.kernel.settings import AT_ONCE, AT_ROOT, FLOOD, PATIENCE
from tests.kernel.workshop import Workshop

THREADS = 8

POLICY = """
[[app]]
exe = "flood-of-events"
ports = ["8086"]
detent = 0
actions = ["log", "block"]

[[app]]
exe = "flood-of-repeats"
ports = ["8086"]
actions = ["log", "block"]
"""

# Emitted ones become a line each: as many as the disk of a small machine bears.
EVENTS = min(FLOOD, 1_000_000) // 4 // THREADS * THREADS
REPEATS = (FLOOD - EVENTS) // THREADS * THREADS


@pytest.fixture(scope="module")
def agent(agents: Agents) -> Agent:
    started, _ = agents.share(POLICY)
    return started


def difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def assert_balanced(counters: dict[str, int]) -> None:
    outcomes = ("emitted", "suppressed", "lost", "quiet")
    assert counters["decided"] == sum(counters[name] for name in outcomes)
    verdicts = ("allowed", "blocked", "would_block")
    assert counters["decided"] == sum(counters[name] for name in verdicts)


def connections(agent: Agent, since: int) -> Iterator[Event]:
    """Events of connections; notices are left out."""
    return (event for event in agent.stream(since) if field(event, "aegis.notice") is None)


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(("flood-of-events", EVENTS, 500), id="each-reported"),
        pytest.param(("flood-of-repeats", REPEATS, 2000), id="most-suppressed"),
    ],
)
def test_every_decision_of_a_flood_is_accounted_for(
    flood: tuple[str, int, int], agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """decided = emitted + suppressed + lost + quiet, exactly, while the agent reads."""
    name, count, spread = flood
    agent.settle()  # an earlier flood may not be written yet
    before, since, fences = agent.counters(), agent.mark(), agent.fences
    assert_balanced(before)
    command = ["flood", "127.0.0.1", "10000", str(count), str(THREADS), str(spread)]
    outcome = programs.run(workshop.install(name), *command, patience=10 * PATIENCE)
    result = json.loads(outcome.stdout)
    assert (result["refused"], result["allowed"], result["failed"]) == (count, 0, 0)
    agent.settle()
    after = agent.counters()
    assert_balanced(after)
    spent = difference(after, before)
    assert spent["blocked"] == count
    if not AT_ROOT:  # there other programs of the host are decided about, too
        assert spent["decided"] == count + agent.fences - fences
        assert sum(1 for _ in connections(agent, since)) == spent["emitted"]
    print(f"{name}: {result['seconds']} s, {spent}")


def test_a_flood_of_events_does_not_hold_up_a_reload(
    agent: Agent, workshop: Workshop, programs: Programs
) -> None:
    """Whoever makes noise must not keep the administrator from changing the policy."""
    answers: list[str] = []
    before = agent.counters()["blocked"]
    with flooding(programs, workshop.install("flood-of-events"), 8087, answers):
        deadline = time.monotonic() + PATIENCE
        while agent.counters()["blocked"] == before:
            assert time.monotonic() < deadline
        begun = time.monotonic()
        agent.ask("reload")
        seconds = time.monotonic() - begun
    if not AT_ROOT:  # how long an emulated processor takes was not measured
        assert seconds < AT_ONCE
