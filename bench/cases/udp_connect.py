# SPDX-License-Identifier: Apache-2.0
"""What Aegis adds to a connect() that does nothing else: of a UDP socket, to an open port.

The kernel recalls what it decided before and did not report. Decided each time is a connect()
that is refused, one whose rule has `user`, and one for which history has no place of its own left.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from aegis._bpf import lib
from bench.interleave import differences, interleave, ratios
from bench.policies import FAR, OPEN, SHUT, Shape
from bench.result import Finding, at_most, row
from bench.world import Place, World
from tests.kernel.network import PRIVATE4

NAME = "udp-connect"

Turn = Callable[[], float]
Found = Mapping[str, list[float]]

_FULL = Shape(rules=4096, entries_each=16)
_SIZES = (("aegis", "16 rules"), ("full", "65,536 entries"))
# So many other flows of a process, and a new one finds no place: then it is not recalled.
_CROWD = lib.AEGIS_HISTORY_SHARE + 100
_LATER = 60000  # a port that is none of theirs
_MANY = 30000


def turn(
    place: Place, port: int, count: int, *, to: str = FAR, spread: int = 1,
    program: Path | None = None,
) -> Turn:  # fmt: skip
    """Nanoseconds of one connect() in *place*, to *spread* ports from *port* on."""
    loop = place.loop(0, program=program)
    return lambda: float(loop.say(f"udp {to} {port} {count} {spread}"))


def decided(place: Place, count: int) -> Turn:
    """The same of a connect() that is not recalled, and meets no rule with `user`."""
    loop = place.loop(0)

    def once() -> float:
        loop.say(f"udp {PRIVATE4} 1024 {_CROWD} {_CROWD}")
        return float(loop.say(f"udp {PRIVATE4} {_LATER} {count} 1"))

    return once


def measure(world: World) -> Iterator[Finding]:
    with world.places("nothing", "empty", "aegis", "full") as places:
        places["empty"].empty()
        places["aegis"].govern(Shape())
        places["full"].govern(_FULL if not world.size.smoke else Shape(rules=64, entries_each=16))
        found = _same_flow(world, places)
        many = _many_flows(world, places)  # afterwards: they take the places of well-known ones
    yield from _recalled(found)
    yield from _decided(found)
    yield from _others(found, many)


def _same_flow(world: World, places: Mapping[str, Place]) -> Found:
    count, rounds = world.size.of(_MANY, 200), world.size.of(200)
    turns = {name: turn(place, OPEN, count) for name, place in places.items()}
    turns["denied"] = turn(places["aegis"], SHUT, count)
    fewer = world.size.of(_MANY // 3, 200)  # these take longer
    turns["by user"] = turn(places["aegis"], OPEN, fewer, program=world.by_user)
    for name, _ in _SIZES:
        turns[f"{name} decided"] = decided(places[name], fewer)
    found = interleave(turns, rounds, warm=3)
    counters = places["aegis"].agent.counters()
    assert counters["blocked"] >= rounds * count, counters
    assert counters["allowed"] >= rounds * (count + 2 * fewer), counters
    return found


def _many_flows(world: World, places: Mapping[str, Place]) -> Found:
    count = world.size.of(_MANY, 200)
    turns = {
        name: turn(places[name], 1024, count, to=PRIVATE4, spread=count)
        for name in ("empty", "aegis", "full")
    }
    return interleave(turns, world.size.of(60), warm=3)


def _recalled(found: Found) -> Iterator[Finding]:
    medians = {name: statistics.median(values) for name, values in found.items()}
    told = ", ".join(f"{name} {value:.0f}" for name, value in medians.items())
    extra = differences(found, "aegis", "empty")
    yield row(
        "allowed UDP connect(), 16 rules: added",
        extra, against="an empty program", unit="ns", goal=at_most(40),
        note=f"the same flow again, so it is recalled; whole calls, ns: {told}",
    )  # fmt: skip
    yield row(
        "allowed UDP connect(), 16 rules: added",
        differences(found, "aegis", "nothing"), against="no program", unit="ns",
    )  # fmt: skip
    yield row(
        "allowed UDP connect(), 16 rules: whole call",
        ratios(found, "aegis", "nothing"), against="no program",
    )  # fmt: skip
    base = statistics.median(extra)
    yield row(
        "what 4,096 rules with 65,536 entries add",
        [value / base for value in differences(found, "full", "empty")],
        against="what 16 rules add", goal=at_most(1.3), note="recalled: no table of rules is asked",
    )  # fmt: skip


def _decided(found: Found) -> Iterator[Finding]:
    for name, rules in _SIZES:
        yield row(
            f"allowed UDP connect(), decided each time, {rules}: added",
            differences(found, f"{name} decided", "empty"), against="an empty program", unit="ns",
            note="not recalled: the destination is sought among the prefixes each time, and the "
            "sum in history's hash table",
        )  # fmt: skip
    base = statistics.median(differences(found, "aegis decided", "empty"))
    yield row(
        "what 4,096 rules with 65,536 entries add, decided each time",
        [value / base for value in differences(found, "full decided", "empty")],
        against="what 16 rules add",
    )  # fmt: skip
    yield row(
        "allowed UDP connect() by a rule with `user`, 16 rules: added",
        differences(found, "by user", "empty"), against="an empty program", unit="ns",
        note="not recalled either: the rule is sought by user and unit each time, too",
    )  # fmt: skip


def _others(found: Found, many: Found) -> Iterator[Finding]:
    for name, rules in _SIZES:
        yield row(
            f"allowed UDP connect() to {_MANY:,} ports in turn, {rules}: added",
            differences(many, name, "empty"), against="an empty program", unit="ns",
            note="more than are recalled: each is decided, and added up in one of 30,000 entries "
            "of a hash table, which is most of this",
        )  # fmt: skip
    yield row(
        "denied UDP connect(), reported once: whole call",
        ratios(found, "denied", "aegis"), against="an allowed one", goal=at_most(1),
    )  # fmt: skip
    yield row(
        "denied UDP connect(), reported once: whole call",
        ratios(found, "denied", "nothing"), against="no program",
    )  # fmt: skip
