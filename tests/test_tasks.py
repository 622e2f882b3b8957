# SPDX-License-Identifier: Apache-2.0
"""What is done again and again is done at the same moments."""

import asyncio

from aegis.tasks import TICK_S, tick, until_tick


def test_periodic_work_falls_on_the_same_ticks() -> None:
    """Whoever begins when, and however long the pause: an idle host is woken once for all."""

    async def scenario() -> list[float]:
        moments = []
        loop = asyncio.get_running_loop()
        for late, seconds in ((0.0, 1.0), (0.3, 1.0), (0.31, 5.0), (0.1, 0.2)):
            await asyncio.sleep(late)
            moments.append((loop.time() + until_tick(seconds)) / TICK_S)
        return moments

    assert all(abs(moment - round(moment)) < 1e-3 for moment in asyncio.run(scenario()))


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
