"""Charts as SVG text: axes with ticks, lines, bars, and histograms over time.

Colours come from the page, by classes, so that light and dark need no second drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from typing import Any

from .catalogue import number
from .series import Points

#: Size of a chart, and the room for its labels: left, right, top, bottom.
WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 34
#: Opacities that a histogram's cells may have.
SHADES = 6


def element(tag: str, inner: str | Iterable[str] = "", **attributes: Any) -> str:
    """Give an element as text: what is in it is a text, or a list of elements.

    Example:
        >>> element("p", "a < b", class_="soft"), element("p", [element("br")], stroke_width=0.25)
        ('<p class="soft">a &lt; b</p>', '<p stroke-width="0.2"><br></br></p>')
    """
    told = ""
    for name, value in attributes.items():
        if value not in ("", None):
            text = f"{value:.1f}" if isinstance(value, float) else escape(str(value))
            told += f' {name.rstrip("_").replace("_", "-")}="{text}"'
    body = escape(inner) if isinstance(inner, str) else "".join(inner)
    return f"<{tag}{told}>{body}</{tag}>"


class Chart:
    """A chart whose axes span the given points; logarithmic ones take positive numbers only.

    Args:
        points: All that are to be shown; x is a whole number.
        xlabel: What goes to the right.
        log: Whether y is logarithmic.
        include: Values of y that are to be on it, too.
        label: What the chart shows, for those who cannot see it.
        height: Of the chart.
    """

    def __init__(
        self, points: Points, xlabel: str = "", log: bool = False, include: Sequence[float] = (),
        label: str = "", height: int = HEIGHT,
    ):  # fmt: skip
        self.log, self.height, self.label = log, height, label
        xs, ys = [x for x, _ in points], [y for _, y in points] + list(include)
        if log:
            ys = [log10(y) for y in ys if y > 0]
        self.x0, self.x1 = _span(xs, 0.0)
        self.y0, self.y1 = _span(ys, 0.06, least=1.0 if log else 0.0)
        self.parts: list[str] = []
        for value in decades(self.y0, self.y1) if log else ticks(self.y0, self.y1):
            text = f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if log else number(value)
            self._across("grid", self.y(value))
            self.parts.append(words(LEFT - 6, self.y(value) + 4, text, "end"))
        for value in ticks(self.x0, self.x1, 6):
            if value == round(value):
                place = self.x(value), height - BOTTOM + 15
                self.parts.append(words(*place, number(value), "middle"))
        self._across("axis", height - BOTTOM)
        self.parts.append(words(WIDTH - RIGHT, height - 4, xlabel, "end"))

    def x(self, value: float) -> float:
        """Give the place of a value on the horizontal axis."""
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Give the place of a value on the vertical axis."""
        value = log10(value) if self.log else value
        inner = self.height - TOP - BOTTOM
        return TOP + (self.y1 - value) / (self.y1 - self.y0) * inner

    def _across(self, css: str, y: float) -> None:
        self.parts.append(element("line", class_=css, x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))

    def line(self, points: Points, css: str, dots: bool = False, title: str = "") -> None:
        """Add a line through points."""
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        tip = [element("title", title)] if title else ""
        if len(points) > 1:
            self.parts.append(element("polyline", tip, class_=f"line {css}", points=path))
        for x, y in points if dots or len(points) == 1 else ():
            tip = [element("title", f"{title} {number(x)}: {number(y)}".strip())]
            self.parts.append(element("circle", tip, class_=f"dot {css}", cx=self.x(x),
                                      cy=self.y(y), r=3))  # fmt: skip

    def level(self, value: float, text: str) -> None:
        """Add a dashed horizontal line with a name."""
        if isfinite(value) and (value > 0 or not self.log):
            self._across("level", self.y(value))
            self.parts.append(words(WIDTH - RIGHT - 2, self.y(value) - 4, text, "end", "small"))

    def __str__(self) -> str:
        return drawing(WIDTH, self.height, self.parts, self.label)


def drawing(width: float, height: float, parts: Iterable[str], label: str) -> str:
    """Give an SVG element that fits its panel."""
    return element("svg", parts, viewBox=f"0 0 {width:g} {height:g}", role="img",
                   aria_label=label)  # fmt: skip


def words(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    """Give a text within a drawing."""
    return element("text", text, class_=css, x=float(x), y=float(y), text_anchor=anchor)


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
    parts, y, length = [], 2, WIDTH - LEFT - 50
    for name, group in rows:
        parts.append(words(LEFT - 6, y + 4.5 * len(group) + 3, name, "end"))
        for css, what, share, before in group:
            share = share if isfinite(share) else 0.0
            tip = [element("title", f"{name}: {what} {told(share)}")]
            parts += [element("rect", class_="slot", x=LEFT, y=y, width=length, height=7),
                      element("rect", tip, class_=css, x=LEFT, y=y, width=share * length, height=7)]
            if isfinite(before):
                x = LEFT + before * length
                parts.append(element("line", class_="before", x1=x, x2=x, y1=y - 1, y2=y + 8))
            if share >= 0.005:
                parts.append(words(LEFT + length + 5, y + 7, told(share), css="small"))
            y += 9
        y += 6
    return drawing(WIDTH, y, parts, label)


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
    paths = [element("path", class_="heat", fill_opacity=f"{(s + 1) / SHADES:.2f}",
                     d="".join(cells)) for s, cells in enumerate(shades) if cells]  # fmt: skip
    return drawing(width, height, [_frame(width, height), *paths], label)


def _frame(width: int, height: int) -> str:
    return element("rect", class_="frame", x=0, y=0, width=width, height=height)


def sketch(lines: Sequence[tuple[Points, str]], label: str, size: int = 110) -> str:
    """Draw small curves without scales, with the axes where they are within."""
    points = [p for line, _ in lines for p in line]
    (x0, x1), (y0, y1) = _span([x for x, _ in points], 0.04), _span([y for _, y in points], 0.06)
    parts = [_frame(size, size)]

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - x0) / (x1 - x0) * size, (y1 - y) / (y1 - y0) * size

    x, y = place(0, 0)
    if x0 < 0 < x1:
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=0, y2=size))
    if y0 < 0 < y1:
        parts.append(element("line", class_="grid", y1=y, y2=y, x1=0, x2=size))
    for line, css in lines:
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        parts.append(element("polyline", class_=f"line {css}", points=path))
    return drawing(size, size, parts, label)


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
