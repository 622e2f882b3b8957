# SPDX-License-Identifier: Apache-2.0
"""TCP connect() and close() to a listener at the other end of a veth pair."""

import subprocess
from collections.abc import Callable, Iterator, Mapping

from bench.interleave import interleave, ratios
from bench.policies import OPEN, Shape
from bench.result import Finding, Goal, at_least, at_most, row
from bench.world import Place, World

NAME = "tcp-connect"

WHAT = "TCP connect+close over veth"
# The local ports of a network are 28,232.
RESET = "closed by a reset: else each port waits for a minute, and all are used up in a second"

# What a firewall would have to say for the same: these ports and nothing else.
_NFT = """
table inet bench {
	chain output {
		type filter hook output priority 0; policy drop;
		ct state established,related accept
		ip daddr 10.0.0.0/8 tcp dport 8086 accept
	}
}
"""

# By place: who it is, whose bar it is in the chart, and whether there is something to reach.
_ROWS = (
    ("aegis", "Aegis at both ends", "Aegis", True),
    ("outbound", "Aegis at both ends, inbound = false", "Aegis, inbound = false", True),
    ("connecting", "Aegis where it connects; another host's listener", "", False),
    ("accepting", "Aegis where it is accepted; another host's client", "", False),
    ("nftables", "an nftables output rule", "nftables, output rule", False),
)


def measure(world: World) -> Iterator[Finding]:
    count, rounds = world.size.of(1000, 20), world.size.of(100)
    tails: dict[str, list[float]] = {}
    with world.places("plain", *(name for name, *_ in _ROWS)) as places:
        turns = take_turns(places, count, tails)
        places["nftables"].network.call(
            subprocess.run, ["nft", "-f", "-"], input=_NFT, text=True, check=True
        )
        for name in ("aegis", "connecting", "accepting"):
            places[name].govern(Shape())
        places["outbound"].govern(Shape(settings="inbound = false"))
        found = interleave(turns, rounds)
        _check(places, (rounds + 1) * count)  # one round is not counted
    tails = {name: values[-rounds:] for name, values in tails.items()}
    for name, who, bar, is_aim in _ROWS:
        goals: tuple[Goal | None, Goal | None] = (None, None)
        if is_aim:
            goals = at_least(0.98), at_most(1.05)
        yield row(
            f"{WHAT}, {who}: throughput",
            ratios(found, "plain", name), against="plain", goal=goals[0], bar=bar,
        )  # fmt: skip
        yield row(
            f"{WHAT}, {who}: p99",
            ratios(tails, name, "plain"), against="plain", goal=goals[1],
        )  # fmt: skip
    yield row(
        f"{WHAT}, plain", found["plain"], unit="ns",
        note="plain: a cgroup without a program and a network without a rule, while the others "
        f"have theirs; {RESET}",
    )  # fmt: skip


def _check(places: Mapping[str, Place], connects: int) -> None:
    """Both ends were decided about, or one."""
    for name, ends in (("aegis", 2), ("outbound", 1), ("connecting", 1), ("accepting", 1)):
        allowed = places[name].agent.counters()["allowed"]
        assert allowed // connects == ends, (name, allowed)


def take_turns(
    places: Mapping[str, Place], count: int, tails: dict[str, list[float]]
) -> dict[str, Callable[[], float]]:
    """Of each place *count* connections to a server of its own: mean ns; *tails* gets the p99."""
    turns = {}
    for name, place in places.items():
        is_far, is_near = name == "connecting", name == "accepting"
        place.serve(
            place.peer(), place.world.peer, "serve", str(OPEN), ready="ready", outside=is_far
        )
        turns[name] = _turn(place, count, tails.setdefault(name, []), outside=is_near)
    return turns


def _turn(place: Place, count: int, tail: list[float], *, outside: bool) -> Callable[[], float]:
    loop = place.loop(0, outside=outside)

    def once() -> float:
        mean, _, slow = loop.say(f"tcp 10.77.0.2 {OPEN} {count}").split()
        tail.append(float(slow))
        return float(mean)

    return once
