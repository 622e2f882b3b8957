# SPDX-License-Identifier: Apache-2.0
"""Charts as one SVG, small enough to write by hand: bars side by side, and lines below."""

from collections.abc import Iterator, Sequence
from html import escape

from bench.result import Chart, Result

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 220, 56, 44, 46
_COLOURS = ("#888888", "#1f6feb", "#d29922", "#2da44e")
_STYLE = "font-family='sans-serif' font-size='11' fill='#57606a'"


def svg(result: Result) -> str:
    """All charts of *result*, two a row."""
    charts = result.charts
    rows = -(-len(charts) // 2)
    height, width = rows * _HEIGHT, 2 * _WIDTH
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'>"]
    parts.append(f"<rect width='{width}' height='{height}' fill='#ffffff'/>")
    for place, chart in enumerate(charts):
        x, y = place % 2 * _WIDTH, place // 2 * _HEIGHT
        parts.append(f"<g transform='translate({x} {y})'>")
        parts.extend(_draw(chart))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw(chart: Chart) -> Iterator[str]:
    top = max((max(values) for values in chart.lines.values()), default=1) * 1.1 or 1
    wide, high = _WIDTH - _LEFT - 16, _HEIGHT - _TOP - _BOTTOM
    yield _text(8, 16, f"{chart.title} ({chart.unit})", weight="bold")
    for part in range(5):
        y = _TOP + high * (1 - part / 4)
        yield f"<path d='M{_LEFT} {y:.1f}h{wide}' stroke='#d0d7de' stroke-width='0.5'/>"
        yield _text(_LEFT - 5, y + 4, f"{top * part / 4:,.4g}", anchor="end")
    for index, step in enumerate(chart.steps):
        yield _text(_x(index, chart.steps, wide), _HEIGHT - _BOTTOM + 15, step, anchor="middle")
    yield _text(_LEFT + wide / 2, _HEIGHT - 12, chart.axis, anchor="middle")
    for number, (name, values) in enumerate(chart.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [
            (_x(index, chart.steps, wide), _TOP + high * (1 - value / top))
            for index, value in enumerate(values)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
        for x, y in points:
            yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>"
        yield f"<rect x='{8 + number * 118}' y='24' width='10' height='10' fill='{colour}'/>"
        yield _text(22 + number * 118, 33, name)


def _x(index: int, steps: Sequence[str], wide: float) -> float:
    return _LEFT + wide * (index + 0.5) / len(steps)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-weight='{weight}' {_STYLE}>"
        f"{escape(text)}</text>"
    )
