# SPDX-License-Identifier: Apache-2.0
"""A flood: no verdict is wrong, and every decision is accounted for exactly.

``AEGIS_TEST_FLOOD=1000000 pytest tests/kernel/test_flood.py`` is the run the
project promises a figure for; the default is a fifth of it.
"""

import json

import pytest

from tests.kernel.agent import Agent
from tests.kernel.conftest import StartAgent
from tests.kernel.programs import Programs
from tests.kernel.settings import AT_ROOT, FLOOD, PATIENCE
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
def agent(start_module_agent: StartAgent) -> Agent:
    started, _ = start_module_agent(POLICY)
    return started


def difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def assert_balanced(counters: dict[str, int]) -> None:
    outcomes = ("emitted", "suppressed", "lost", "quiet")
    assert counters["decided"] == sum(counters[name] for name in outcomes)
    verdicts = ("allowed", "blocked", "would_block")
    assert counters["decided"] == sum(counters[name] for name in verdicts)


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
    before, since = agent.counters(), agent.mark()
    assert_balanced(before)
    command = ["flood", "127.0.0.1", "10000", str(count), str(THREADS), str(spread)]
    outcome = programs.run(workshop.install(name), *command, patience=10 * PATIENCE)
    result = json.loads(outcome.stdout)
    assert (result["refused"], result["allowed"], result["failed"]) == (count, 0, 0)
    events = agent.settled_events(since, process__pid=outcome.pid)
    after = agent.counters()
    assert_balanced(after)
    spent = difference(after, before)
    assert spent["blocked"] == count
    if not AT_ROOT:  # there other programs of the host are decided about, too
        assert spent["decided"] == count + 1  # the fence
        assert len(events) == spent["emitted"] - 1
    print(f"{name}: {result['seconds']} s, {spent}")
