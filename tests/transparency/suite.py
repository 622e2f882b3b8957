# SPDX-License-Identifier: Apache-2.0
"""What a suite of programs is, and how two runs of it are compared."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Outcomes = dict[str, dict[str, str]]
"""Name of a part → test → its outcome in a word."""

Seen = dict[tuple[str, str], set[str]]
ABSENT = "absent"


@dataclass(frozen=True)
class Result:
    code: int
    output: str


class Run(Protocol):
    """Runs a command in the scratch cgroup and network to its end, within *seconds*."""

    def __call__(self, argv: Sequence[str], seconds: float) -> Result: ...


class Suite(Protocol):
    """Parts that can be run by name; *names* are all of them."""

    title: str
    names: tuple[str, ...]

    def run(self, names: Sequence[str], run: Run, folder: Path) -> Outcomes: ...


@dataclass
class Side:
    """Everything seen of one side: with Aegis in some mode, or without."""

    title: str
    seen: Seen = field(default_factory=lambda: defaultdict(set))
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, outcomes: Outcomes) -> None:
        for name, tests in outcomes.items():
            for test, outcome in tests.items():
                self.seen[name, test].add(outcome)

    def count(self, outcomes: Outcomes) -> None:
        """Outcomes of the first run, for the table."""
        self.counts = Counter(word for tests in outcomes.values() for word in tests.values())


def outcomes_of(side: Side, key: tuple[str, str]) -> set[str]:
    return side.seen.get(key) or {ABSENT}


def differing(bare: Side, other: Side) -> Iterator[tuple[str, str]]:
    """Tests that never had the same outcome on both sides."""
    for key in sorted(set(bare.seen) | set(other.seen)):
        if not outcomes_of(bare, key) & outcomes_of(other, key):
            yield key


def unsteady(*sides: Side) -> Iterator[tuple[str, str]]:
    """Tests that have more than one outcome on one and the same side, or did at first."""
    for key in sorted({key for side in sides for key in side.seen}):
        if len(set().union(*(outcomes_of(side, key) for side in sides))) > 1:
            yield key
