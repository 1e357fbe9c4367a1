"""Charts as SVG text: axes with ticks, lines, bars, and histograms over time.

Colours come from the page, by classes, so that light and dark need no second drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

from .catalogue import number
from .series import Points

#: Size of a chart, and the room for its labels: left, right, top, bottom.
WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 34
#: Opacities that a histogram's cells may have.
SHADES = 6


class Chart:
    """A chart whose axes span the given points; logarithmic ones take positive numbers only.

    Args:
        points: All that are to be shown.
        xlabel: What goes to the right.
        log: Whether y is logarithmic.
        include: Values of y that are to be on it, too.
        whole: Whether x has only whole numbers.
        label: What the chart shows, for those who cannot see it.
    """

    def __init__(
        self, points: Points, xlabel: str = "", log: bool = False, include: Sequence[float] = (),
        whole: bool = True, label: str = "", height: int = HEIGHT,
    ):  # fmt: skip
        self.log, self.height, self.label = log, height, label
        xs, ys = [x for x, _ in points], [y for _, y in points] + list(include)
        if log:
            ys = [log10(y) for y in ys if y > 0]
        self.x0, self.x1 = _span(xs, 0.0)
        self.y0, self.y1 = _span(ys, 0.06, least=1.0 if log else 0.0)
        self.parts: list[str] = []
        self._axes(xlabel, whole)

    def x(self, value: float) -> float:
        """Give the place of a value on the horizontal axis."""
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Give the place of a value on the vertical axis."""
        value = log10(value) if self.log else value
        inner = self.height - TOP - BOTTOM
        return TOP + (self.y1 - value) / (self.y1 - self.y0) * inner

    def _axes(self, xlabel: str, whole: bool) -> None:
        bottom = self.height - BOTTOM
        marks = decades(self.y0, self.y1) if self.log else ticks(self.y0, self.y1)
        for value in marks:
            text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if self.log else (
                number(value))  # fmt: skip
            y = self.y(value)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                              f'y1="{y:.1f}" y2="{y:.1f}"/>')  # fmt: skip
            self.parts.append(words(LEFT - 6, y + 4, text, "end"))
        for value in ticks(self.x0, self.x1, 6):
            if value == round(value) or not whole:
                self.parts.append(words(self.x(value), bottom + 15, number(value), "middle"))
        self.parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                          f'y1="{bottom}" y2="{bottom}"/>')  # fmt: skip
        self.parts.append(words(WIDTH - RIGHT, self.height - 4, xlabel, "end"))

    def line(self, points: Points, css: str, dots: bool = False, title: str = "") -> None:
        """Add a line through points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        tip = f"<title>{escape(title)}</title>" if title else ""
        if len(points) > 1:
            self.parts.append(f'<polyline class="line {css}" points="{path}">{tip}</polyline>')
        if dots or len(points) == 1:
            for x, y in points:
                told = escape(f"{title} {number(x)}: {number(y)}".strip())
                self.parts.append(f'<circle class="dot {css}" cx="{self.x(x):.1f}" '
                                  f'cy="{self.y(y):.1f}" r="3"><title>{told}</title>'
                                  "</circle>")  # fmt: skip

    def level(self, value: float, text: str, css: str = "level") -> None:
        """Add a dashed horizontal line with a name."""
        if isfinite(value) and (value > 0 or not self.log):
            y = self.y(value)
            self.parts.append(f'<line class="{css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                              f'y1="{y:.1f}" y2="{y:.1f}"/>')  # fmt: skip
            self.parts.append(words(WIDTH - RIGHT - 2, y - 4, text, "end", "small"))

    def __str__(self) -> str:
        return drawing(WIDTH, self.height, "".join(self.parts), self.label)


def drawing(width: float, height: float, inner: str, label: str) -> str:
    """Give an SVG element that fits its panel."""
    return (f'<svg viewBox="0 0 {width:g} {height:g}" role="img" '
            f'aria-label="{escape(label)}">{inner}</svg>')  # fmt: skip


def words(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    """Give a text within a drawing."""
    known = f' class="{css}"' if css else ""
    return f'<text{known} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def bars(
    rows: Sequence[tuple[str, Sequence[tuple[str, str, float, float]]]], label: str,
    told: Callable[[float], str],
) -> str:  # fmt: skip
    """Draw shares as horizontal bars, several to a row, and where they were before as thin lines.

    Args:
        rows: The name of each, and of its bars class, name, share, and share before.
        label: What the drawing shows.
        told: A share as text.
    """
    parts, y, length = [], 2.0, WIDTH - LEFT - 50
    for name, group in rows:
        top = y
        for css, what, share, before in group:
            share, tip = (share if isfinite(share) else 0.0), escape(f"{name}: {what} ")
            parts.append(f'<rect class="slot" x="{LEFT}" y="{y:g}" width="{length}" height="7"/>'
                         f'<rect class="{css}" x="{LEFT}" y="{y:g}" width="{share * length:.1f}" '
                         f'height="7"><title>{tip}{told(share)}</title></rect>')  # fmt: skip
            if isfinite(before):
                x = LEFT + before * length
                parts.append(f'<line class="before" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 1:g}" '
                             f'y2="{y + 8:g}"/>')  # fmt: skip
            if share >= 0.005:
                parts.append(words(LEFT + length + 5, y + 7, told(share), css="small"))
            y += 9
        parts.append(words(LEFT - 6, (top + y) / 2 + 3, name, "end"))
        y += 6
    return drawing(WIDTH, y, "".join(parts), label)


def heat(columns: Sequence[Sequence[float]], label: str, width: int = 150, height: int = 96) -> str:
    """Draw columns of shares: the larger, the darker. Cells of one shade are one path."""
    shades: list[list[str]] = [[] for _ in range(SHADES)]
    w, h = width / max(len(columns), 1), height / max(len(columns[0]) if columns else 1, 1)
    for i, column in enumerate(columns):
        for k, share in enumerate(column):
            if share > 0.01:  # the root, so that the few are seen beside the many
                shade = min(int(share**0.5 * SHADES), SHADES - 1)
                corner = f"M{i * w:.1f} {height - (k + 1) * h:.1f}"
                shades[shade].append(f"{corner}h{w:.1f}v{h:.1f}h-{w:.1f}z")
    paths = "".join(
        f'<path class="heat" fill-opacity="{(s + 1) / SHADES:.2f}" d="{"".join(cells)}"/>'
        for s, cells in enumerate(shades) if cells
    )  # fmt: skip
    frame = f'<rect class="frame" x="0" y="0" width="{width}" height="{height}"/>'
    return drawing(width, height, frame + paths, label)


def sketch(lines: Sequence[tuple[Points, str]], label: str, size: int = 110) -> str:
    """Draw small curves without scales, with the axes where they are within."""
    points = [p for line, _ in lines for p in line]
    (x0, x1), (y0, y1) = _span([x for x, _ in points], 0.04), _span([y for _, y in points], 0.06)
    parts = [f'<rect class="frame" x="0" y="0" width="{size}" height="{size}"/>']

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - x0) / (x1 - x0) * size, (y1 - y) / (y1 - y0) * size

    if x0 < 0 < x1:
        parts.append(f'<line class="grid" x1="{place(0, 0)[0]:.1f}" x2="{place(0, 0)[0]:.1f}" '
                     f'y1="0" y2="{size}"/>')  # fmt: skip
    if y0 < 0 < y1:
        parts.append(f'<line class="grid" y1="{place(0, 0)[1]:.1f}" y2="{place(0, 0)[1]:.1f}" '
                     f'x1="0" x2="{size}"/>')  # fmt: skip
    for line, css in lines:
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line)
        parts.append(f'<polyline class="line {css}" points="{path}"/>')
    return drawing(size, size, "".join(parts), label)


def _span(values: Sequence[float], room: float, least: float = 0.0) -> tuple[float, float]:
    """Give the ends of an axis, never the same, and at least so far from each other."""
    good = [v for v in values if isfinite(v)]
    low, high = (min(good), max(good)) if good else (0.0, 1.0)
    if high - low <= least:
        middle, half = (low + high) / 2, max(least, 1.0) / 2
        low, high = middle - half, middle + half
    more = room * (high - low)
    return low - more, high + more


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Give round numbers within the ends of an axis.

    Example:
        >>> ticks(0.0, 1.0), ticks(3, 47)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0, 40.0])
    """
    rough = (high - low) / most
    base = 10.0 ** floor(log10(rough))
    step = next(m * base for m in (1, 2, 5, 10) if m * base >= rough * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def decades(low: float, high: float, most: int = 6) -> list[float]:
    """Give round numbers within the ends of a logarithmic axis, which are exponents.

    Example:
        >>> decades(-7.2, -0.5), decades(-0.9, 0.1)
        ([1e-07, 1e-05, 0.001, 0.1], [0.2, 0.5, 1.0])
    """
    whole = range(ceil(low), floor(high) + 1)
    if len(whole) > 2:
        return [float(f"1e{k}") for k in whole[:: ceil(len(whole) / most)]]
    fine = [float(f"{m}e{k}") for k in range(floor(low), ceil(high) + 1) for m in (1, 2, 5)]
    return [v for v in fine if low <= log10(v) <= high]
