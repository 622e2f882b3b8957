# SPDX-License-Identifier: Apache-2.0
"""Rows for a terminal of 80 columns, and for docs/performance.md."""

import textwrap
from collections.abc import Iterator

from bench.result import Result, Row

_NOTE_WIDTH = 76


def number(value: float, unit: str) -> str:
    """With as many digits as mean something."""
    if unit == "":
        return f"{value:.3f}" if value < 10 else f"{value:.1f}"
    if abs(value) >= 1000:
        return f"{value:,.0f} {unit}"
    return f"{value:.1f} {unit}" if abs(value) >= 10 else f"{value:.2f} {unit}"


def spread(row: Row) -> str:
    """The half around the median."""
    low, high = number(row.low, row.unit), number(row.high, "" if row.unit == "" else row.unit)
    return f"{low.removesuffix(row.unit).strip()}..{high.removesuffix(row.unit).strip()}"


def goal(row: Row) -> str:
    if row.goal is None:
        return ""
    sign = "<=" if row.goal.kind == "max" else ">="
    met = "" if row.is_met else "  MISSED"
    return f"{sign} {row.goal.value:,g}{met}"


def text_lines(name: str, rows: list[Row]) -> Iterator[str]:
    """One benchmark, at most 80 columns wide."""
    yield f"--- {name}"
    for row in rows:
        told = f"{row.what}, against {row.against}" if row.against else row.what
        yield from textwrap.wrap(told, 78)
        line = f"  {number(row.median, row.unit):>14}  half within {spread(row):<19}"
        yield f"{line} n={row.samples:<4} {goal(row)}".rstrip()
        if row.note:
            yield from textwrap.wrap(
                row.note, _NOTE_WIDTH, initial_indent="    ", subsequent_indent="    "
            )


def markdown(result: Result) -> Iterator[str]:
    """Lines of a table of everything, for the page."""
    about = ", ".join(f"{name} {value}" for name, value in result.about.items())
    yield f"Measured: {about}."
    yield ""
    yield "| what | against | median | half within | n | reach | |"
    yield "|---|---|---|---|---|---|---|"
    for rows in result.rows.values():
        for row in rows:
            aim, missed, _ = goal(row).partition("  MISSED")
            verdict = "" if row.goal is None else "**missed**" if missed else "met"
            note = f"; {row.note}" if row.note else ""
            yield (
                f"| {row.what}{note} | {row.against or '-'} | {number(row.median, row.unit)} "
                f"| {spread(row)} | {row.samples} "
                f"| {aim.replace('<=', '≤').replace('>=', '≥')} | {verdict} |"
            )
    for chart in result.charts:
        yield ""
        yield f"{chart.title}, {chart.unit}:"
        yield ""
        yield f"| {chart.axis} | " + " | ".join(chart.steps) + " |"
        yield "|---" * (len(chart.steps) + 1) + "|"
        for name, values in chart.lines.items():
            yield f"| {name} | " + " | ".join(f"{value:,.1f}" for value in values) + " |"
        if chart.note:
            yield ""
            yield f"{chart.note}."
    for unable in result.unable:
        yield ""
        yield f"Could not run here: {unable.what}: {unable.why}"
