# SPDX-License-Identifier: Apache-2.0
"""One process that makes noise does not hide what another one does."""

import time
from pathlib import Path

from tests.kernel.agent import field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "noisy-neighbour"
ports = ["8086"]
detent = 0
actions = ["log", "block"]

[[app]]
exe = "small-neighbour"
ports = ["8086"]
actions = ["log", "block"]
"""
FLOWS = 4000


def test_flows_of_another_are_all_told_while_one_fills_the_ring(
    agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    agent, _ = agents.start(POLICY)
    small = workshop.compile("small-neighbour", Path(__file__).parents[1] / "load.c")
    noisy = workshop.install("noisy-neighbour")
    before, since = agent.counters(), agent.mark()
    noise = programs.start(noisy, "flood", "127.0.0.1", "8087", "100000000", "2", "10")
    try:
        time.sleep(0.5)  # until it is known to be noisy
        assert programs.run(small, str(FLOWS), "2000", str(FLOWS)).code == 0
    finally:
        noise.kill()
    agent_lost = agent.counters()["lost"] - before["lost"]
    assert agent_lost  # else there was no flood, and this test shows nothing
    deadline = time.monotonic() + 20
    told: set[tuple[object, object]] = set()
    while len(told) < FLOWS and time.monotonic() < deadline:
        told = {
            (field(event, "destination.ip"), field(event, "destination.port"))
            for event in agent.stream(since)
            if field(event, "process.name") == small.name
        }
    assert len(told) == FLOWS
    agents.close()
