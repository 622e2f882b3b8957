# SPDX-License-Identifier: Apache-2.0
"""Events through all of Python, from the ring to lines in the log; the ring is never empty."""

import json
import time
from collections.abc import Iterator

from bench.policies import FAR, SHUT, Shape
from bench.result import Finding, at_least, row
from bench.world import World
from tests.kernel.agent import Agent

NAME = "pipeline"


def _counters(agent: Agent) -> dict[str, int]:
    """Also of an agent that says that its own proof got lost in such a flood."""
    finished = agent.command("status", "--json")
    counters = json.loads(finished.stdout)["counters"]
    assert isinstance(counters, dict)
    return counters


def measure(world: World) -> Iterator[Finding]:
    rounds, seconds = world.size.of(5, 1), world.size.of(2, 1)
    rates: list[float] = []
    lost = offered = 0
    with world.places("aegis") as places:
        agent = places["aegis"].govern(Shape(keys='actions = ["log", "block"]\ndetent = 0'))
        loop = places["aegis"].loop(-1)
        for _ in range(rounds):
            before, begun = _counters(agent), time.monotonic()
            while time.monotonic() < begun + seconds:
                loop.say(f"send {FAR} {SHUT} 20000")
            after, took = _counters(agent), time.monotonic() - begun
            rates.append((after["emitted"] - before["emitted"]) / took)
            lost += after["lost"] - before["lost"]
            offered += after["decided"] - before["decided"]
            time.sleep(1)
    yield row(
        "events a second into the log, every connect reported", rates,
        unit="/s", goal=at_least(100_000),
        note=f"one CPU offers all it can, {offered / sum([seconds] * rounds):,.0f}/s; "
        f"{lost / offered:.0%} found the ring full: counted, and not in the log",
    )  # fmt: skip
