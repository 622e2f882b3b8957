# SPDX-License-Identifier: Apache-2.0
"""TCP connect() and close() to a listener at the other end of a veth pair."""

import subprocess
from collections.abc import Callable, Iterator, Mapping

from bench.interleave import interleave, ratios
from bench.policies import OPEN, Shape
from bench.result import Finding, at_least, at_most, row
from bench.world import Place, World

NAME = "tcp-connect"

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


def measure(world: World) -> Iterator[Finding]:
    count, rounds = world.size.of(500, 20), world.size.of(100)
    tails: dict[str, list[float]] = {}
    with world.places("plain", "nftables", "aegis", "outbound") as places:
        turns = take_turns(places, count, tails)
        places["nftables"].network.call(
            subprocess.run, ["nft", "-f", "-"], input=_NFT, text=True, check=True
        )
        places["aegis"].govern(Shape())
        places["outbound"].govern(Shape(settings="inbound = false"))
        found = interleave(turns, rounds)
        assert places["aegis"].agent.counters()["allowed"] >= rounds * count
    tails = {name: values[-rounds:] for name, values in tails.items()}
    for name, who, goals in (
        ("aegis", "Aegis", (at_least(0.98), at_most(1.05))),
        ("outbound", "Aegis, inbound = false", (at_least(0.98), at_most(1.05))),
        ("nftables", "an nftables output rule", (None, None)),
    ):
        yield row(
            f"TCP connect+close over veth with {who}: throughput",
            ratios(found, "plain", name), against="plain", goal=goals[0],
        )  # fmt: skip
        yield row(
            f"TCP connect+close over veth with {who}: p99",
            ratios(tails, name, "plain"), against="plain", goal=goals[1],
        )  # fmt: skip
    yield row("TCP connect+close over veth, plain", found["plain"], unit="ns")


def take_turns(
    places: Mapping[str, Place], count: int, tails: dict[str, list[float]]
) -> dict[str, Callable[[], float]]:
    """Of each place *count* connections to a server of its own: mean ns; *tails* gets the p99."""
    turns = {}
    for name, place in places.items():
        place.serve(place.peer(), place.world.peer, "serve", str(OPEN), ready="ready")
        turns[name] = _turn(place, count, tails.setdefault(name, []))
    return turns


def _turn(place: Place, count: int, tail: list[float]) -> Callable[[], float]:
    loop = place.loop(0)

    def once() -> float:
        mean, _, slow = loop.say(f"tcp 10.77.0.2 {OPEN} {count}").split()
        tail.append(float(slow))
        return float(mean)

    return once
