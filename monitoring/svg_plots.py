"""A plot as inline SVG: axes, lines, marks and points with tooltips; knows nothing of drift.

Colours come from the page's style sheet by class, so that the plot follows a light or dark scheme; series differ by
mark and dash as well, so that no colour has to be told from another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down")
"""Marks in order of series."""
_TICKS = 6
_LABELS = 9


@dataclass(frozen=True, slots=True)
class Plot:
    """A rectangle with two scales; `low` and `high` are the ends of the upright one, above 0 where it is logarithmic.

    Across it has either `columns` places or, for a scatter, the range `across`.
    """

    low: float
    high: float
    columns: int = 1
    across: tuple[float, float] | None = None
    logarithmic: bool = False
    width: int = 760
    height: int = 262

    left, right, top, bottom = 58, 36, 38, 44

    def x(self, place: float) -> float:
        """Pixels from the left of a place, from 0, or of a value across."""
        inside = self.width - self.left - self.right
        if self.across is not None:
            low, high = self.across
            return self.left + inside * (place - low) / max(high - low, 1e-12)
        return self.left + inside * (place + 0.5) / self.columns

    def beside(self, place: float, pixels: float) -> float:
        """The place that lies some pixels to the right of another, but in its own column."""
        part = pixels * self.columns / (self.width - self.left - self.right)
        return place + min(max(part, -0.25), 0.25)

    def y(self, value: float) -> float:
        """Pixels from the top; what lies outside the scale is put at its end."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        inside = self.height - self.top - self.bottom
        return self.top + inside * (high - at) / max(high - low, 1e-12)

    def ticks(self) -> list[float]:
        """A handful of round numbers between the ends."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first) / _TICKS))
            return [10.0**power for power in range(first, last + 1, step)]
        return _round_numbers(self.low, self.high)

    def frame(self, name: str, drawn: Sequence[str]) -> str:
        """The whole SVG with its upright axis; `name` is what a screen reader says."""
        right = self.width - self.right
        grid = "".join(
            f'<line class="grid" x1="{self.left}" x2="{right}" y1="{self.y(t):.1f}" y2="{self.y(t):.1f}"/>'
            f'<text class="tick" x="{self.left - 6}" y="{self.y(t) + 4:.1f}" text-anchor="end">{number(t)}</text>'
            for t in self.ticks()
        )
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(name)}">{grid}'
            f"{''.join(drawn)}</svg>"
        )

    def labels(self, texts: Sequence[tuple[str, str]]) -> str:
        """Two lines under each place, or under as many places as there is room for, the last always."""
        step = max(1, math.ceil(len(texts) / _LABELS))
        shown = [place for place in range(len(texts)) if (len(texts) - 1 - place) % step == 0]
        bottom = self.height - self.bottom
        return "".join(
            f'<text class="tick" x="{self.x(place):.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{escape(texts[place][0])}</text>"
            f'<text class="tick" x="{self.x(place):.1f}" y="{bottom + 31}" text-anchor="middle">'
            f"{escape(texts[place][1])}</text>"
            for place in shown
        )

    def level(self, value: float, text: str) -> str:
        """A dashed line across at a value, with its meaning."""
        y = self.y(value)
        return (
            f'<line class="limit" x1="{self.left}" x2="{self.width - self.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="limit-text" x="{self.left + 6}" y="{y - 5:.1f}">{escape(text)}</text>'
        )

    def upright(self, place: float, text: str, kind: str) -> str:
        """A line from top to bottom at a place, its meaning at the top, each kind of mark on a line of its own."""
        x, up = self.x(place), 6 if kind == "called" else 22
        return (
            f'<line class="mark {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{self.height - self.bottom}"/>'
            f'<text class="mark-text {kind}" x="{x:.1f}" y="{self.top - up}" text-anchor="middle">{escape(text)}</text>'
        )

    def line(self, points: Sequence[tuple[float, float]], series: int) -> str:
        """Places and values joined."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="line s{series}" points="{path}"/>' if len(points) > 1 else ""

    def interval(self, place: float, low: float, high: float, series: int) -> str:
        """An upright bar from one value to another."""
        x = self.x(place)
        return f'<line class="bar s{series}" x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(low):.1f}" y2="{self.y(high):.1f}"/>'

    def point(self, at: tuple[float, float], series: int, title: str = "", look: str = "solid") -> str:
        """A mark of the series' shape; `look` is solid, hollow, faint or large."""
        x, y = self.x(at[0]), self.y(at[1])
        said = f"<title>{escape(title)}</title>" if title else ""
        size = {"faint": 2.6, "large": 8.0}.get(look, 4.5)
        return f'<g class="point s{series} {look}">{said}{shape(SHAPES[series % len(SHAPES)], x, y, size)}</g>'


def shape(name: str, x: float, y: float, size: float) -> str:
    """One mark around a place."""
    if name == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    if name == "square":
        half = size * 0.9
        return f'<rect x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}"/>'
    corners = {
        "triangle": ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        "down": ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "cross": (
            (-1.2, -0.4), (-0.4, -0.4), (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4),
            (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4),
        ),
    }[name]  # fmt: skip
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'


def legend(names: Sequence[tuple[int, str]]) -> str:
    """Series and their names, each beside its mark."""
    items = "".join(
        f'<li><svg viewBox="0 0 26 14" aria-hidden="true"><line class="line s{series}" x1="1" x2="25" y1="7" y2="7"/>'
        f'<g class="point s{series} solid">{shape(SHAPES[series % len(SHAPES)], 13, 7, 4.5)}</g></svg>'
        f"{escape(name)}</li>"
        for series, name in names
    )
    return f'<ul class="legend">{items}</ul>'


def number(value: float) -> str:
    """Three digits, powers of ten from ten thousand on."""
    if value != 0 and (abs(value) >= 1e4 or abs(value) < 1e-3):
        mantissa, power = f"{value:.0e}".split("e")
        return f"{'' if mantissa == '1' else f'{mantissa}·'}10{_raised(int(power))}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _round_numbers(low: float, high: float) -> list[float]:
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if span / (step * part) <= _TICKS)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]
