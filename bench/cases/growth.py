# SPDX-License-Identifier: Apache-2.0
"""What a connect() costs as things grow; flat where it should be."""

import statistics
import time
from collections.abc import Iterator

from aegis.config.limits import APPS, ENTRIES
from bench.cases.udp_connect import decided, turn
from bench.interleave import differences, interleave
from bench.policies import FAR, OPEN, Shape
from bench.result import NO_PROGRAM, Chart, Finding
from bench.world import World

NAME = "growth"

_RULES = {"16": (16, 1), "256": (256, 1), "4,096": (4096, 1), "65,536 entries": (4096, 16)}


def measure(world: World) -> Iterator[Finding]:
    yield _rules(world)
    yield _threads(world)
    yield _processes(world)


def _rules(world: World) -> Chart:
    count, rounds = world.size.of(10000, 50), world.size.of(60)
    shapes = dict(list(_RULES.items())[: world.size.of(len(_RULES), 2)])
    once, again = ({name: f"{name}{end}" for name in shapes} for end in ("", " decided"))
    with world.places("empty", *shapes) as places:
        places["empty"].empty()
        for name, (rules, each) in shapes.items():
            places[name].govern(Shape(rules=rules, entries_each=each))
        turns = {name: turn(place, OPEN, count) for name, place in places.items()}
        turns |= {again[name]: decided(places[name], count) for name in shapes}
        found = interleave(turns, rounds, warm=3)
    lines = {
        what: [statistics.median(differences(found, name, "empty")) for name in names.values()]
        for what, names in (("recalled", once), ("decided each time", again))
    }
    return Chart(
        "Added to a connect()", "rules", "ns", list(shapes), lines,
        f"It ends at {APPS:,} rules since a policy with more is refused. What there may be "
        f"{ENTRIES:,} of are entries, prefixes with their ports; in the last column those rules "
        "have as many",
    )  # fmt: skip


def _threads(world: World) -> Chart:
    """Of all threads together, on all CPUs."""
    total, rounds = world.size.of(400_000, 6400), world.size.of(8)
    steps = (1, 8, 64)
    lines: dict[str, list[float]] = {NO_PROGRAM: [], "Aegis": []}
    with world.places("plain", "aegis") as places:
        places["aegis"].govern(Shape())
        loops = {NO_PROGRAM: places["plain"].loop(-1), "Aegis": places["aegis"].loop(-1)}
        for number in steps:
            order = f"threads {FAR} {OPEN} {total // number} {number}"
            turns = {
                name: (lambda loop=loop, order=order: total / int(loop.say(order).split()[0]) * 1e3)
                for name, loop in loops.items()
            }
            for name, values in interleave(turns, rounds).items():
                lines[name].append(statistics.median(values))
    return Chart(
        "Connects a second, half denied", "threads", "millions", [str(n) for n in steps], lines
    )


def _processes(world: World) -> Chart:
    count, rounds = world.size.of(10000, 50), world.size.of(40)
    steps = (10, 1000, 10000)[: world.size.of(3, 1)]
    added = []
    with world.places("empty", "aegis") as places:
        places["empty"].empty()
        places["aegis"].govern(Shape())
        turns = {name: turn(place, OPEN, count) for name, place in places.items()}
        for number in steps:
            crowd = places["aegis"].programs.start(world.peer, "crowd", str(number))
            assert crowd.stdout is not None and crowd.stdin is not None
            assert crowd.stdout.readline().strip() == "ready"
            found = interleave(turns, rounds, warm=3)
            crowd.stdin.close()
            crowd.wait()
            time.sleep(number / 5000)  # they die of it
            added.append(statistics.median(differences(found, "aegis", "empty")))
    return Chart(
        "Added to a connect()", "other processes", "ns", [f"{n:,}" for n in steps], {"Aegis": added}
    )
