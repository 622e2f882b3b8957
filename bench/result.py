# SPDX-License-Identifier: Apache-2.0
"""What a run found: rows and charts, to JSON and back."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NO_PROGRAM = "no program"  # the line of a chart that is not ours


@dataclass(frozen=True)
class Goal:
    """What a row should reach: at most, or at least."""

    kind: str  # "max", "min"
    value: float

    def is_met(self, value: float) -> bool:
        return value <= self.value if self.kind == "max" else value >= self.value


@dataclass(frozen=True)
class Row:
    """The median of *samples* measurements, and the two between which half of them lie."""

    what: str
    against: str  # "": an absolute figure
    unit: str  # "": a ratio
    median: float
    low: float
    high: float
    samples: int
    goal: Goal | None = None
    note: str = ""
    bar: str = ""  # whose it is in the chart of what is compared; "": not in it

    @property
    def is_met(self) -> bool | None:
        return None if self.goal is None else self.goal.is_met(self.median)


@dataclass(frozen=True)
class Chart:
    """One line for each of *lines*, over the same *steps*."""

    title: str
    axis: str
    unit: str
    steps: list[str]
    lines: dict[str, list[float]]
    note: str = ""


@dataclass(frozen=True)
class Unable:
    """A benchmark, or a part of one, that cannot run here: said, never estimated."""

    what: str
    why: str


Finding = Row | Chart | Unable


@dataclass
class Result:
    """Of one run."""

    about: dict[str, str]
    rows: dict[str, list[Row]] = field(default_factory=dict)  # by benchmark
    charts: list[Chart] = field(default_factory=list)
    unable: list[Unable] = field(default_factory=list)

    def add(self, name: str, finding: Finding) -> None:
        if isinstance(finding, Row):
            self.rows.setdefault(name, []).append(finding)
        elif isinstance(finding, Chart):
            self.charts.append(finding)
        else:
            self.unable.append(finding)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Result":
        told = json.loads(text)
        return cls(
            told["about"],
            {name: [_row(row) for row in rows] for name, rows in told["rows"].items()},
            [Chart(**chart) for chart in told["charts"]],
            [Unable(**unable) for unable in told["unable"]],
        )


def _row(told: dict[str, Any]) -> Row:
    goal = told.pop("goal")
    return Row(**told, goal=Goal(**goal) if goal else None)


def row(
    what: str,
    samples: Sequence[float],
    *,
    against: str = "",
    unit: str = "",
    goal: Goal | None = None,
    note: str = "",
    bar: str = "",
) -> Row:
    """The row that *samples* make."""
    low, median, high = quartiles(samples)
    return Row(what, against, unit, median, low, high, len(samples), goal, note, bar)


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    if len(samples) < 2:
        return (samples[0],) * 3
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, median, high


def at_most(value: float) -> Goal:
    return Goal("max", value)


def at_least(value: float) -> Goal:
    return Goal("min", value)
