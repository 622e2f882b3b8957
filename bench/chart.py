# SPDX-License-Identifier: Apache-2.0
"""Charts as one SVG, small enough to write by hand: bars of what is compared, and lines below."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import cycle

from bench.result import NO_PROGRAM, Chart, Result, Row

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 220, 56, 44, 46
_OTHERS, *_COLOURS = ("#7d8590", "#1f6feb", "#bf8700", "#2da44e")  # seen on white and on black
_NAMES, _BAR, _GAP, _NUMBERS = 176, 18, 8, 56  # of the bars
# An image is drawn for who looks at it in the dark, too.
_STYLE = """<style>
text{font-family:sans-serif;font-size:11px;fill:#57606a}
.ground{fill:#fff} .rule{stroke:#d0d7de}
@media(prefers-color-scheme:dark){text{fill:#c9d1d9} .ground{fill:#0d1117} .rule{stroke:#30363d}}
</style>"""
_BARS = "TCP connections a second, connect and close over veth (plain: 1)"


def svg(result: Result) -> str:
    """The bars of *result*, and all its charts, two a row."""
    bars = [row for rows in result.rows.values() for row in rows if row.bar]
    bars.sort(key=lambda row: -row.median)
    top = 76 + (len(bars) + 1) * (_BAR + _GAP) if bars else 0
    charts = result.charts
    height, width = top + -(-len(charts) // 2) * _HEIGHT, 2 * _WIDTH
    view = f"width='{width}' height='{height}' viewBox='0 0 {width} {height}'"
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' {view}>", _STYLE]
    parts.append(f"<rect class='ground' width='{width}' height='{height}'/>")
    if bars:
        parts.extend(_draw_bars(bars))
    for place, chart in enumerate(charts):
        x, y = place % 2 * _WIDTH, top + place // 2 * _HEIGHT
        parts.append(f"<g transform='translate({x} {y})'>")
        parts.extend(_draw(chart))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_bars(rows: Sequence[Row]) -> Iterator[str]:
    """From 0 on, so that lengths may be compared; half of the rounds are within the thin line."""
    yield _text(8, 16, _BARS, weight="bold")
    most = max(1.0, *(row.high for row in rows))
    wide = (2 * _WIDTH - _NAMES - _NUMBERS) / most
    bars = [("plain", 1.0, 1.0, 1.0)] + [(row.bar, row.median, row.low, row.high) for row in rows]
    end = 30 + len(bars) * (_BAR + _GAP)
    for part in range(5):
        x = _NAMES + wide * part / 4
        yield f"<path class='rule' d='M{x:.1f} 28V{end}' stroke-width='0.5'/>"
        yield _text(x, end + 14, f"{part / 4:g}", anchor="middle")
    for place, (name, median, low, high) in enumerate(bars):
        y = 32 + place * (_BAR + _GAP)
        colour = _COLOURS[0] if name.startswith("Aegis") else _OTHERS
        yield _text(_NAMES - 8, y + 13, name, anchor="end")
        yield (
            f"<rect x='{_NAMES}' y='{y}' width='{wide * median:.1f}' height='{_BAR}' "
            f"fill='{colour}'/>"
        )
        middle = y + _BAR / 2
        yield (
            f"<path class='spread' d='M{_NAMES + wide * low:.1f} {middle}H"
            f"{_NAMES + wide * high:.1f}' stroke='#d1242f' stroke-width='2'/>"
        )
        yield _text(_NAMES + wide * max(median, high) + 6, y + 13, f"{median:.2f}")


def _draw(chart: Chart) -> Iterator[str]:
    top = _round_up(max((max(values) for values in chart.lines.values()), default=1))
    wide, high = _WIDTH - _LEFT - 16, _HEIGHT - _TOP - _BOTTOM
    yield _text(8, 16, f"{chart.title} ({chart.unit})", weight="bold")
    for part in range(5):
        y = _TOP + high * (1 - part / 4)
        yield f"<path class='rule' d='M{_LEFT} {y:.1f}h{wide}' stroke-width='0.5'/>"
        yield _text(_LEFT - 5, y + 4, f"{top * part / 4:,.4g}", anchor="end")
    for index, step in enumerate(chart.steps):
        yield _text(_x(index, chart.steps, wide), _HEIGHT - _BOTTOM + 15, step, anchor="middle")
    yield _text(_LEFT + wide / 2, _HEIGHT - 12, chart.axis, anchor="middle")
    colours = cycle(_COLOURS)
    for number, (name, values) in enumerate(chart.lines.items()):
        points = [
            (_x(index, chart.steps, wide), _TOP + high * (1 - value / top))
            for index, value in enumerate(values)
        ]
        colour = _OTHERS if name == NO_PROGRAM else next(colours)
        yield from _draw_line(number, name, colour, points)


def _draw_line(
    number: int, name: str, colour: str, points: Sequence[tuple[float, float]]
) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
    for x, y in points:
        yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>"
    yield f"<rect x='{8 + number * 118}' y='24' width='10' height='10' fill='{colour}'/>"
    yield _text(22 + number * 118, 33, name)


def _round_up(value: float) -> float:
    """So that a quarter of it is a number one can read."""
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value / 4))
    parts = (1, 1.5, 2, 2.5, 3, 4, 5, 10, 20)  # the last: for what is rounded in between
    return 4 * power * next(part for part in parts if value / 4 <= part * power)


def _x(index: int, steps: Sequence[str], wide: float) -> float:
    return _LEFT + wide * (index + 0.5) / len(steps)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-weight='{weight}'>"
        f"{escape(text)}</text>"
    )
