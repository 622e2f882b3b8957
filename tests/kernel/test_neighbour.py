# SPDX-License-Identifier: Apache-2.0
"""One process that makes noise does not hide what another one does."""

import itertools
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aegis._bpf import lib
from tests.kernel.agent import Agent, field
from tests.kernel.conftest import Agents
from tests.kernel.counted import counted
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
TRIES = 8  # at least, and as long as there is time
ROOT = Path(__file__).parents[2]
LOAD = ROOT / "tests" / "load.c"
REPORT = (ROOT / "kernel" / "report.bpf.h").read_text()
[_SHIFT] = re.findall(r"^#define SHARE_WINDOW_SHIFT (\d+)", REPORT, re.MULTILINE)
SECOND_NS = 1 << int(_SHIFT)  # as the kernel counts shares
PROMPT_NS = SECOND_NS // 10
UNDER_WAY = 4 * lib.AEGIS_SHORT_EVENT  # of the threads that had looked whether there is room


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
    in the next one. So what is shown is shown within one of the kernel's seconds, before which
    there was enough noise: a machine that takes longer, or makes less, says nothing of that.
    """
    small = workshop.compile("small-neighbour", LOAD)
    name, address, port, threads, *spread = noise
    command = (workshop.install(name), "flood", address, port, "100000000", threads, *spread)
    deadline, made, in_time = time.monotonic() + 5 * PATIENCE, 0, False
    for tried in itertools.count():
        assert tried < TRIES or time.monotonic() < deadline, (
            f"nothing was shown: {made} noisy reports in a second, {in_time=}"
        )
        agent, _ = agents.start(POLICY)
        before, since = agent.counters(), agent.mark()
        flood = programs.start(*map(str, command))
        try:
            if not wait_for_loss(agent, before["lost"]):
                continue
            later = agent.mark()
            with unread(agent):
                second, made = noise_of_a_second(agent)
                assert programs.run(small, str(FLOWS), "0", str(FLOWS)).code == 0
                in_time = now() // SECOND_NS == second
        finally:
            flood.kill()
            flood.wait()
        agent.settle()
        if not in_time or made < NOISE:
            continue
        assert told_of(agent, later, small) == FLOWS
        notice = agent.wait_event(since, aegis__notice="events-lost")
        lost = field(notice, "aegis.noisy")
        assert [one["pid"] for one in lost] == [flood.pid]
        assert lost[0]["executable"].endswith(f"/{name}") and lost[0]["lost"] > 0
        agents.close()
        return


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def noise_of_a_second(agent: Agent) -> tuple[int, int]:
    """The kernel's second that has just begun, and how many reports were made in the one before.

    In the one before that there were as many, and of the ring no more was taken than the noisy may
    take: else none, as far as we know, as when we came too late to look.
    """
    seconds, made, waiting = [], [], []
    with counted(agent.instance) as kernel:
        for _ in range(3):
            wait_second()
            seconds.append(now() // SECOND_NS)
            made.append(kernel.made())
            waiting.append(kernel.waiting())
            if now() % SECOND_NS > PROMPT_NS:
                return seconds[-1], 0
    first, last = made[1] - made[0], made[2] - made[1]
    if seconds[-1] != seconds[0] + 2 or waiting[1] > lib.AEGIS_RING_NOISY + UNDER_WAY:
        return seconds[-1], 0
    return seconds[-1], min(first, last)


def wait_second() -> None:
    """For the next one of the kernel."""
    second = now() // SECOND_NS
    while now() // SECOND_NS == second:
        time.sleep(0.002)


def wait_for_loss(agent: Agent, before: int) -> bool:
    """Until the noise is known for what it is; False: there is none, and nothing is shown.

    For long enough, too: of who is over its share by little, half is below it again. And until
    what it could report before that has been read.
    """
    deadline = time.monotonic() + PATIENCE
    while agent.counters()["lost"] < before + 4 * lib.AEGIS_SHARE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    with counted(agent.instance) as kernel:
        while kernel.waiting() > lib.AEGIS_RING_NOISY + UNDER_WAY:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    return True


def told_of(agent: Agent, since: int, program: Path) -> int:
    """How many different flows of *program* are told."""
    told = {
        (field(event, "destination.ip"), field(event, "destination.port"))
        for event in agent.stream(since)
        if field(event, "process.executable") == str(program)
    }
    return len(told)
