"""Draws measured points over both axes' logarithms, as SVG: nothing but lines, dots and words.

`chart` is all there is. A dotted line of slope 1 to each series' last point shows what growing in step with
the input would be; where nothing is to grow, one dotted level line is what all stay below. No drawing
library: the picture is small, and the file is read in a diff.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
INK = "#1f2328"
DOTTED = 'stroke-dasharray="3 4" opacity="0.6"'
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: its name and its points, by size, none of them 0."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis counts, and how a number on it is written.

    Attributes:
        least: The span begins no higher than here, where it is not 0.
    """

    title: str
    text: Callable[[float], str]
    least: float = 0


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Numbers to pixels, by their logarithms."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times each power where there is room, the powers alone where there is not."""
        steps = (1, 2, 5) if self.high - self.low < 2.5 else (1,)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        marks = [step * 10.0**power for power in powers for step in steps]
        slack = 1e-9
        return [mark for mark in marks if self.low - slack <= math.log10(mark) <= self.high + slack]


def chart(title: str, across: Axis, up: Axis, series: Sequence[Series], *, level: float = 0) -> str:
    """A whole SVG file.

    Args:
        level: Where the level line lies; 0: there is none, and each series has its line of slope 1.
    """
    x = _scale([x for one in series for x, _ in one.points], across.least, LEFT, WIDTH - RIGHT)
    heights = [y for one in series for _, y in one.points] + ([level] if level else [])
    y = _scale(heights, up.least, HEIGHT - BOTTOM, TOP)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 22, title, "start", 'font-size="14" font-weight="bold"'),
        *_grid(x, y, across, up),
    ]
    names = [(y.at(one.points[-1][1]), number) for number, one in enumerate(series) if one.points]
    for number, one in enumerate(series):
        if one.points:
            colour = COLOURS[number % len(COLOURS)]
            parts += _line(one, colour, x, y)
            parts += [] if level else [_slope_of_one(one.points[-1], colour, x, y)]
    if level:
        at = y.at(level)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="{INK}" {DOTTED}/>')
    floor = TOP - 16.0
    for height, number in sorted(names):
        floor = max(floor + 16, height)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_text(WIDTH - RIGHT + 10, floor + 4, series[number].name, "start", colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _scale(values: list[float], least: float, start: float, end: float) -> _Scale:
    low = math.log10(min([*values, least] if least else values))
    high = math.log10(max(values))
    room = max(0.05, (high - low) * 0.04)
    return _Scale(low=low - room, high=max(high, low + 1) + room, start=start, end=end)


def _grid(x: _Scale, y: _Scale, across: Axis, up: Axis) -> list[str]:
    line = 'stroke="#d0d7de" stroke-width="1"'
    parts = []
    for mark in x.ticks():
        at = x.at(mark)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" {line}/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 16, across.text(mark), "middle"))
    for mark in y.ticks():
        at = y.at(mark)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" {line}/>')
        parts.append(_text(LEFT - 6, at + 4, up.text(mark), "end"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 12, across.title, "middle"))
    parts.append(
        _text(
            0, 0, up.title, "middle", f'transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)"'
        )
    )
    return parts


def _line(one: Series, colour: str, x: _Scale, y: _Scale) -> list[str]:
    places = [(x.at(a), y.at(b)) for a, b in one.points]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in places]
    return parts


def _slope_of_one(point: tuple[float, float], colour: str, x: _Scale, y: _Scale) -> str:
    """From a point down to the left, one decade for one, as far as the picture goes."""
    size, value = (math.log10(number) for number in point)
    back = min(size - x.low, value - y.low)
    a, b = x.at(10 ** (size - back)), y.at(10 ** (value - back))
    c, d = x.at(point[0]), y.at(point[1])
    return f'<path d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" stroke="{colour}" {DOTTED}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "", colour: str = INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place} {more}>{escape(text)}</text>"
