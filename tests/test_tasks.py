# SPDX-License-Identifier: Apache-2.0
"""What is done again and again is done at the same moments."""

import asyncio
import math

from aegis.tasks import TICK_S, tick, until_tick
from tests.pace import HUNG_S


def test_periodic_work_falls_on_the_same_ticks() -> None:
    """Whoever begins when, and however long the pause: an idle host is woken once for all."""

    async def scenario() -> list[tuple[float, float]]:
        moments: list[tuple[float, float]] = []
        loop = asyncio.get_running_loop()
        waits = [(0.0, 1.0), (0.3, 1.0), (0.31, 5.0), (0.1, 0.2)]
        while waits:
            late, seconds = waits[0]
            await asyncio.sleep(late)
            begun, pause, ended = loop.time(), until_tick(seconds), loop.time()
            if ended - begun < 0.5 * TICK_S:  # else it says nothing
                moments.append(((begun + pause) / TICK_S, (ended + pause) / TICK_S))
                del waits[0]
        return moments

    # The moment meant is between these two, which are one but for who was asked to wait meanwhile.
    for first, last in asyncio.run(asyncio.wait_for(scenario(), HUNG_S)):
        assert math.floor(last + 1e-6) >= first - 1e-6


def test_a_tick_comes_soon_and_never_at_once() -> None:
    """What somebody else changed is to be told within two seconds; nobody spins."""

    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        before, pauses = loop.time(), []
        for _ in range(3):
            assert 0 < until_tick(TICK_S) <= 1.5 * TICK_S
            await tick()
            pauses.append(loop.time() - before)
            before = loop.time()
        return pauses

    assert all(pause > 0.4 for pause in asyncio.run(scenario()))
