# SPDX-License-Identifier: Apache-2.0
"""exec and fork: what is noted of each program is noted for the whole machine.

So here Aegis is loaded and unloaded in turn.
"""

import statistics
from collections.abc import Iterator

from bench.interleave import interleave
from bench.policies import Shape
from bench.result import Finding, at_most, row
from bench.world import World

NAME = "spawn"


_CALLS = {"fork": "fork()", "vfork": "vfork()"}


def measure(world: World) -> Iterator[Finding]:
    count, batches, rounds = world.size.of(100, 5), world.size.of(6), world.size.of(10)
    pairs: dict[str, list[float]] = {call: [] for call in _CALLS}
    added: dict[str, list[float]] = {call: [] for call in _CALLS}
    with world.places("aegis") as places:
        place = places["aegis"]
        loop = place.loop(0)

        def block() -> dict[str, float]:
            turns = {
                call: (lambda call=call: float(loop.say(f"{call} /bin/true {count}")))
                for call in _CALLS
            }
            found = interleave(turns, batches)
            return {call: statistics.median(values) for call, values in found.items()}

        for _ in range(rounds):
            before = block()
            agent = place.govern(Shape())
            during = block()
            agent.close()
            after = block()
            for call in _CALLS:
                plain = (before[call] + after[call]) / 2
                pairs[call].append(during[call] / plain)
                added[call].append((during[call] - plain) / 1000)
    for call, name in _CALLS.items():
        what = f"{name}, exec of /bin/true and wait"
        yield row(f"{what}: time", pairs[call], against="plain", goal=at_most(1.03))
        yield row(f"{what}: added", added[call], against="plain", unit="us")
