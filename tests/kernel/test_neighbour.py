# SPDX-License-Identifier: Apache-2.0
"""One process that makes noise does not hide what another one does."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aegis._bpf import lib
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.programs import Programs
from tests.kernel.settings import PATIENCE
from tests.kernel.workshop import Workshop

POLICY = """
[[app]]
exe = "noisy-neighbour"
ports = ["8086"]
detent = 0
actions = ["log", "block"]

[[app]]
exe = "sprayer"
ports = ["8086"]
actions = ["log", "block"]

[[app]]
exe = "small-neighbour"
remotes = []
actions = ["log", "block"]
"""
FLOWS = 10_000
NOISE = 3 * lib.AEGIS_SHARE  # a second; with nothing else to do it is ten times that
AT_ONCE_S, TRIES = 1.5, 8
LOAD = Path(__file__).parents[1] / "load.c"


@contextmanager
def unread(agent: Agent) -> Iterator[None]:
    """Nobody reads the ring meanwhile."""
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(agent.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(("noisy-neighbour", "127.0.0.1", "8087", "2"), id="the-same-again"),
        pytest.param(("sprayer", "127.0.0.1", "10000", "2", "50000"), id="ever-other-ones"),
    ],
)
def test_flows_of_another_are_all_told_while_one_fills_the_ring(
    noise: tuple[str, ...], agents: Agents, workshop: Workshop, programs: Programs
) -> None:
    """10,000 at once, while nobody reads: what is left to the quiet has room for all of them.

    Each second who was noisy may report a share again, and half of what it made in a second counts
    in the next one: a machine that takes several seconds for it, or on which nobody gets to make
    much noise, says nothing of that.
    """
    small = workshop.compile("small-neighbour", LOAD)
    name, address, port, threads, *spread = noise
    command = (workshop.install(name), "flood", address, port, "100000000", threads, *spread)
    for _ in range(TRIES):
        agent, _ = agents.start(POLICY)
        before, since = agent.counters(), agent.mark()
        flood = programs.start(*map(str, command))
        try:
            wait_for_loss(agent, before["lost"])
            made = made_by_all(agent)
            with unread(agent):
                begun = time.monotonic()
                time.sleep(0.5)  # for the noise to fill what it may
                later = agent.mark()
                assert programs.run(small, str(FLOWS), "0", str(FLOWS)).code == 0
                seconds = time.monotonic() - begun
        finally:
            flood.kill()
        agent.settle()
        noise_a_second = (made_by_all(agent) - made - FLOWS) / seconds
        if seconds > AT_ONCE_S or noise_a_second < NOISE:
            continue
        assert told_of(agent, later, small) == FLOWS
        notice = agent.wait_event(since, aegis__notice="events-lost")
        lost = field(notice, "aegis.noisy")
        assert [one["pid"] for one in lost] == [flood.pid]
        assert lost[0]["executable"].endswith(f"/{name}") and lost[0]["lost"] > 0
        agents.close()
        return
    pytest.fail(f"too slow: {seconds:.1f} s, and {noise_a_second:.0f} noisy reports a second")


def made_by_all(agent: Agent) -> int:
    """Reports, told or lost."""
    counters = agent.counters()
    return counters["emitted"] + counters["lost"]


def wait_for_loss(agent: Agent, before: int) -> None:
    """Until the noise is known for what it is: else there is none, and nothing is shown.

    For long enough, too: of who is over its share by little, half is below it again.
    """
    deadline = time.monotonic() + PATIENCE
    while agent.counters()["lost"] < before + 4 * lib.AEGIS_SHARE:
        assert time.monotonic() < deadline


def told_of(agent: Agent, since: int, program: Path) -> int:
    """How many different flows of *program* are told."""
    told = {
        (field(event, "destination.ip"), field(event, "destination.port"))
        for event in agent.stream(since)
        if field(event, "process.executable") == str(program)
    }
    return len(told)
