# SPDX-License-Identifier: Apache-2.0
"""Decisions a second, 64 threads at once, every second one refused: none wrong, none lost."""

from collections.abc import Iterator

from bench.policies import FAR, OPEN, Shape
from bench.result import Finding, at_least, row
from bench.world import World

NAME = "decisions"

_THREADS = 64


def measure(world: World) -> Iterator[Finding]:
    count, rounds = world.size.of(50000, 100), world.size.of(5)
    rates, plain = [], []
    with world.places("plain", "aegis") as places:
        agent = places["aegis"].govern(Shape())
        loop, bare = places["aegis"].loop(-1), places["plain"].loop(-1)
        order = f"threads {FAR} {OPEN} {count} {_THREADS}"
        before = agent.counters()
        for _ in range(rounds):
            took, allowed, refused, wrong = map(int, loop.say(order).split())
            assert wrong == 0 and allowed == refused == count * _THREADS // 2
            rates.append(count * _THREADS / took * 1e9)
            took = int(bare.say(order).split()[0])
            plain.append(count * _THREADS / took * 1e9)
        after = agent.counters()
    spent = {name: after[name] - before[name] for name in after}
    all_of_them = rounds * count * _THREADS
    assert spent["decided"] == all_of_them, spent
    assert spent["allowed"] == spent["blocked"] == all_of_them // 2, spent
    outcomes = ("emitted", "suppressed", "lost", "quiet")
    assert spent["decided"] == sum(spent[name] for name in outcomes), spent
    yield row(
        "decisions a second, 64 threads, half denied", rates,
        unit="/s", goal=at_least(1e6),
        note=f"{all_of_them:,} decisions, 0 wrong, the counters balance",
    )  # fmt: skip
    yield row("the same connects, no program", plain, unit="/s")
