# SPDX-License-Identifier: Apache-2.0
"""exec and fork: what is noted of each program is noted for the whole machine, so here Aegis

is loaded and unloaded in turn.
"""

import statistics
from collections.abc import Iterator

from bench.policies import Shape
from bench.result import Finding, at_most, row
from bench.world import World

NAME = "spawn"


def measure(world: World) -> Iterator[Finding]:
    count, batches, rounds = world.size.of(100, 5), world.size.of(8), world.size.of(8)
    pairs, added = [], []
    with world.places("aegis") as places:
        place = places["aegis"]
        loop = place.loop(0)

        def block() -> float:
            loop.say(f"spawn /bin/true {count}")
            return statistics.median(
                float(loop.say(f"spawn /bin/true {count}")) for _ in range(batches)
            )

        for _ in range(rounds):
            before = block()
            agent = place.govern(Shape())
            during = block()
            agent.close()
            plain = (before + block()) / 2
            pairs.append(during / plain)
            added.append((during - plain) / 1000)
    yield row("fork, exec of /bin/true and wait: time", pairs, against="plain", goal=at_most(1.03))
    yield row("fork, exec of /bin/true and wait: added", added, against="plain", unit="us")
