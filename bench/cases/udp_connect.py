# SPDX-License-Identifier: Apache-2.0
"""What Aegis adds to a connect() that does nothing else: of a UDP socket, to an open port."""

import statistics
from collections.abc import Callable, Iterator

from bench.interleave import differences, interleave, ratios
from bench.policies import FAR, OPEN, SHUT, Shape
from bench.result import Finding, at_most, row
from bench.world import Place, World
from tests.kernel.network import PRIVATE4

NAME = "udp-connect"

Turn = Callable[[], float]

_FULL = Shape(rules=4096, entries_each=16)


# Flows that come round again before the kernel's 4,096 places for well-known ones are enough.
_MANY = 30000


def turn(place: Place, port: int, count: int, *, to: str = FAR, spread: int = 1) -> Turn:
    """Nanoseconds of one connect() in *place*, to *spread* ports from *port* on."""
    loop = place.loop(0)
    return lambda: float(loop.say(f"udp {to} {port} {count} {spread}"))


def measure(world: World) -> Iterator[Finding]:
    count, rounds = world.size.of(_MANY, 200), world.size.of(200)
    with world.places("nothing", "empty", "aegis", "full") as places:
        places["empty"].empty()
        places["aegis"].govern(Shape())
        places["full"].govern(_FULL if not world.size.smoke else Shape(rules=64, entries_each=16))
        turns = {name: turn(place, OPEN, count) for name, place in places.items()}
        turns["denied"] = turn(places["aegis"], SHUT, count)
        found = interleave(turns, rounds, warm=3)
        counters = places["aegis"].agent.counters()
        assert counters["blocked"] >= rounds * count, counters
        assert counters["allowed"] >= rounds * count, counters
        # Afterwards: they take the places of the well-known ones.
        many = interleave(
            {
                name: turn(places[name], 1024, count, to=PRIVATE4, spread=min(count, _MANY))
                for name in ("empty", "aegis", "full")
            },
            world.size.of(60),
            warm=3,
        )
    medians = {name: statistics.median(values) for name, values in found.items()}
    told = ", ".join(f"{name} {value:.0f}" for name, value in medians.items())
    extra = differences(found, "aegis", "empty")
    base = statistics.median(extra)
    yield row(
        "allowed UDP connect(), 16 rules: added",
        extra, against="an empty program", unit="ns", goal=at_most(40),
        note=f"whole calls, ns: {told}",
    )  # fmt: skip
    yield row(
        "allowed UDP connect(), 16 rules: added",
        differences(found, "aegis", "nothing"), against="no program", unit="ns",
    )  # fmt: skip
    yield row(
        "allowed UDP connect(), 16 rules: whole call",
        ratios(found, "aegis", "nothing"), against="no program",
    )  # fmt: skip
    yield row(
        "what 4,096 rules with 65,536 entries add",
        [value / base for value in differences(found, "full", "empty")],
        against="what 16 rules add", goal=at_most(1.3),
    )  # fmt: skip
    for name, rules in (("aegis", "16 rules"), ("full", "65,536 entries")):
        yield row(
            f"allowed UDP connect() to {_MANY:,} ports in turn, {rules}: added",
            differences(many, name, "empty"),
            against="an empty program", unit="ns",
            note="nothing is known from before: each one is decided",
        )  # fmt: skip
    yield row(
        "denied UDP connect(), reported once: whole call",
        ratios(found, "denied", "aegis"), against="an allowed one", goal=at_most(1),
    )  # fmt: skip
    yield row(
        "denied UDP connect(), reported once: whole call",
        ratios(found, "denied", "nothing"), against="no program",
    )  # fmt: skip
