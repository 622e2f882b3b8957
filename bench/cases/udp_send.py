# SPDX-License-Identifier: Apache-2.0
"""A flood of datagrams from an unconnected socket: each one is decided about."""

from collections.abc import Callable, Iterator

from bench.interleave import differences, interleave, ratios
from bench.policies import OPEN, Shape
from bench.result import Finding, at_least, row
from bench.world import Place, World

NAME = "udp-send"


def measure(world: World) -> Iterator[Finding]:
    count, rounds = world.size.of(5000, 50), world.size.of(100)
    with world.places("plain", "aegis") as places:
        for place in places.values():
            place.serve(place.peer(), world.peer, "serve", str(OPEN), ready="ready")
        turns = {name: _turn(place, count) for name, place in places.items()}
        places["aegis"].govern(Shape())
        found = interleave(turns, rounds)
        assert places["aegis"].agent.counters()["allowed"] >= rounds * count
    yield row(
        "unconnected UDP sendto() over veth: throughput",
        ratios(found, "plain", "aegis"), against="plain", goal=at_least(0.9),
    )  # fmt: skip
    yield row(
        "unconnected UDP sendto() over veth: added",
        differences(found, "aegis", "plain"), against="plain", unit="ns",
    )  # fmt: skip


def _turn(place: Place, count: int) -> Callable[[], float]:
    loop = place.loop(0)

    def once() -> float:
        took, failed = loop.say(f"send 10.77.0.2 {OPEN} {count}").split()
        assert failed == "0"
        return float(took)

    return once
