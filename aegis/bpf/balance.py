# SPDX-License-Identifier: Apache-2.0
"""The conservation laws: every decision is told or counted, and in history or counted."""

from collections.abc import Mapping

SLACK = 1000  # decisions under way between two reads are counted on one side only

_SUMS = {
    "outcomes": ("emitted", "suppressed", "lost", "quiet"),
    "verdicts": ("allowed", "blocked", "would_block"),
}


def balance(counters: Mapping[str, int], history: Mapping[str, int]) -> dict[str, int]:
    """Return by law what is accounted for of ``counters["decided"]``.

    *history*: the decisions it has, wherever they are.
    """
    sums = {law: sum(counters[name] for name in names) for law, names in _SUMS.items()}
    return {**sums, "history": counters["history_lost"] + sum(history.values())}


def holds(decided: int, accounted: int, moved: int = 0) -> bool:
    """*moved*: how many were made while the two were read."""
    return abs(decided - accounted) <= SLACK + moved
