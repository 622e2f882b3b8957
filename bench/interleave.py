# SPDX-License-Identifier: Apache-2.0
"""A B A B: what is compared takes turns, so that a busy moment hits both."""

from collections.abc import Callable, Mapping


def interleave(
    turns: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """Measure each of *turns* once a round, in alternating order, and not count the first ones."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(-warm, rounds):
        for name in names if number % 2 else reversed(names):
            value = turns[name]()
            if number >= 0:
                found[name].append(value)
    return found


def ratios(found: Mapping[str, list[float]], name: str, against: str) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(found[name], found[against], strict=True)]


def differences(found: Mapping[str, list[float]], name: str, against: str) -> list[float]:
    return [a - b for a, b in zip(found[name], found[against], strict=True)]
