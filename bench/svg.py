"""Pictures of measured data, as small SVG files that are legible on light and dark pages.

Two kinds: `strips`, a row of points for each series, and `curves`, lines over one x axis.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 860
ROW = 22
LEFT, RIGHT, TOP, BOTTOM = 230, 24, 76, 46
PLOT_HEIGHT = 320
POINTS = 300  # more than these of a row, spread over their order, cannot be told apart
COLOURS = (
    "#3b7dd8",
    "#d9822b",
    "#2e9e6b",
    "#c8463d",
    "#8a63d2",
    "#2aa3b5",
    "#a8862a",
    "#808890",
)

STYLE = """
.back { fill: #ffffff } .text { fill: #24292f } .faint { fill: #57606a }
.grid { stroke: #d0d7de } .axis { stroke: #57606a } .band { fill: #2e9e6b; opacity: .14 }
.median { stroke: #24292f; stroke-width: 2 } text { font: 12px sans-serif }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } .text { fill: #e6edf3 } .faint { fill: #9198a1 }
.grid { stroke: #30363d } .axis { stroke: #9198a1 } .band { opacity: .25 }
.median { stroke: #e6edf3 } }
"""


class Strip(NamedTuple):
    """One row: its name, its values, its group's colour, and the bounds of what is good."""

    name: str
    values: Sequence[float]
    colour: int = 0
    band: tuple[float, float] | None = None


class Curve(NamedTuple):
    """A line through points, in the colour of its group; of two in a group one is dashed."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """From low to high, by value or by its logarithm; with ticks of its own, or round ones."""

    title: str
    low: float
    high: float
    log: bool = False
    own_ticks: tuple[float, ...] = ()

    def share(self, value: float) -> float:
        """Tell how far along it a value is, 0 to 1."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def x(self, value: float) -> float:
        return LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (1 - self.share(value)) * PLOT_HEIGHT

    def ticks(self) -> list[float]:
        if self.own_ticks:
            return list(self.own_ticks)
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 4 else (1,)
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            step = _nice((self.high - self.low) / 6)
            found = [
                step * i
                for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
            ]
        return [tick for tick in found if self.low <= tick <= self.high]


def around(title: str, values: Sequence[float], *, log: bool = False) -> Axis:
    """Give an axis that has all of these values, and a little more."""
    low, high = min(values), max(values)
    if log:
        return Axis(title, low / 1.2, high * 1.2, log=True)
    margin = (high - low or 1) / 20
    return Axis(title, low - margin, high + margin)


def strips(title: str, note: str, axis: Axis, rows: Sequence[Strip]) -> str:
    """Draw a row of points for each series, its median as a line, and its band behind."""
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [*_frame(title, note, height), *_x_axis(axis, height)]
    for number, row in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        if row.band is not None:
            low, high = (axis.x(bound) for bound in row.band)
            parts.append(_rect("band", low, middle - ROW / 2 + 1, high - low, ROW - 2))
        parts.append(_text("text", LEFT - 8, middle + 4, row.name, "end"))
        parts += _points(axis, row, middle)
        at = axis.x(statistics.median(row.values))
        parts.append(_line("median", at, middle - 8, at, middle + 8))
    return _whole(parts, height)


def curves(
    title: str,
    note: str,
    across: Axis,
    up: Axis,
    series: Sequence[Curve],
    *,
    marks: bool = False,
) -> str:
    """Draw a line through the points of each series."""
    height = TOP + PLOT_HEIGHT + BOTTOM + 18 * len(series)
    bottom = TOP + PLOT_HEIGHT
    parts = [*_frame(title, note, height), *_x_axis(across, bottom + BOTTOM)]
    for tick in up.ticks():
        parts.append(_line("grid", LEFT, up.y(tick), WIDTH - RIGHT, up.y(tick)))
        parts.append(_text("faint", LEFT - 8, up.y(tick) + 4, _number(tick), "end"))
    parts.append(_text("faint", LEFT - 8, TOP - 12, up.title, "end"))
    for number, curve in enumerate(series):
        colour = COLOURS[curve.colour % len(COLOURS)]
        places = [(across.x(x), up.y(y)) for x, y in curve.points]
        parts.append(_path(places, colour, dashed=curve.dashed))
        if marks:
            parts += [_dot(x, y, 4, colour, 1) for x, y in places]
        y = bottom + BOTTOM + 18 * number + 4
        parts.append(_path([(LEFT - 30, y), (LEFT, y)], colour, dashed=curve.dashed))
        parts.append(_text("text", LEFT + 8, y + 4, curve.name, "start"))
    return _whole(parts, height)


def cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    """Give the points of an empirical distribution: x, and the percentage at or below it."""
    ordered = sorted(values)
    points: list[tuple[float, float]] = []
    for number, value in enumerate(ordered):
        points += [
            (value, 100 * number / len(ordered)),
            (value, 100 * (number + 1) / len(ordered)),
        ]
    return points


def _nice(step: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * 0.999)


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:g}"


def _whole(parts: Sequence[str], height: float) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _frame(title: str, note: str, height: float) -> Iterator[str]:
    yield f"<title>{escape(title)}</title>"
    yield _rect("back", 0, 0, WIDTH, height)
    yield f'<text class="text" x="16" y="24" style="font-size:15px">{escape(title)}</text>'
    yield _text("faint", 16, 42, note, "start")


def _x_axis(axis: Axis, height: float) -> Iterator[str]:
    bottom = height - BOTTOM
    for tick in axis.ticks():
        at = axis.x(tick)
        yield _line("axis" if tick == 0 else "grid", at, TOP, at, bottom)
        yield _text("faint", at, bottom + 16, _number(round(tick, 9)), "middle")
    yield _line("axis", LEFT, bottom, WIDTH - RIGHT, bottom)
    yield _text("faint", (LEFT + WIDTH - RIGHT) / 2, bottom + 34, axis.title, "middle")


def _points(axis: Axis, row: Strip, middle: float) -> Iterator[str]:
    ordered = sorted(row.values)
    every = max(1, len(ordered) // POINTS)
    colour = COLOURS[row.colour % len(COLOURS)]
    # The extremes always; and each a little off the middle, the same at each drawing.
    for number, value in enumerate([*ordered[::every], ordered[-1]]):
        yield _dot(axis.x(value), middle + (number * 7 % 11 - 5), 2.4, colour, 0.55)


def _dot(x: float, y: float, radius: float, colour: str, opacity: float) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}" opacity="{opacity}"/>'
    )


def _path(places: Sequence[tuple[float, float]], colour: str, *, dashed: bool) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def _rect(name: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}"/>'
    )


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(name: str, x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{name}" {place}>{escape(text)}</text>'
