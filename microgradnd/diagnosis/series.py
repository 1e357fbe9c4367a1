"""The numbers behind the panels of a report, as short lists: the page and the picture draw them."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, nan

from .evidence import Evidence, LayerState

Points = list[tuple[float, float]]
#: Layers, and points in time, that a panel shows at most.
LAYERS, TIMES = 16, 32
#: The rows of a histogram over time.
ROWS = 32


def spread(n: int, most: int) -> list[int]:
    """Choose at most so many of n things, evenly, the first and the last among them.

    Example:
        >>> spread(3, 5), spread(9, 3)
        ([0, 1, 2], [0, 4, 8])
    """
    if n <= most:
        return list(range(n))
    return [round(i * (n - 1) / (most - 1)) for i in range(most)]


def finite(points: Iterable[tuple[float, float]]) -> Points:
    """Give the points that have two finite coordinates."""
    return [(x, y) for x, y in points if isfinite(x) and isfinite(y)]


def steps(e: Evidence) -> int:
    """Give the number of the last step."""
    known = [s.step for s in e.samples] + [e.plan.steps, e.events.steps if e.events else 0]
    return max([*known, *e.loss_steps])


def curve(e: Evidence, side: str, what: str) -> Points:
    """Give loss or metric over the steps, on the training or the test set."""
    end = steps(e)  # where the whole set is known, in place of a part of it
    found = [(s.step, getattr(s, side)) for s in e.samples if s.step < end]
    found.append((end, getattr(e, side)))
    return finite((step, getattr(score, what)) for step, score in found if score is not None)


def losses(e: Evidence) -> Points:
    """Give the losses of the mini-batches."""
    return finite(zip(e.loss_steps, e.losses, strict=False))


def shown(e: Evidence) -> list[int]:
    """Give the numbers of the layers that panels show."""
    return spread(len(e.layers), LAYERS)


def states(e: Evidence, when: str) -> list[LayerState]:
    """Give the states of all layers, `"init"` or `"now"`; [] if nobody looked."""
    sample = e.init if when == "init" else e.now
    return sample.layers if sample and len(sample.layers) == len(e.layers) else []


def share(state: LayerState, name: str) -> float:
    """Give the share of `"dead"` units and the like; NaN where activations are no numbers."""
    return float(getattr(state, name)) if isfinite(state.std) else nan


def flow(e: Evidence, when: str) -> Points:
    """Give the gradient's size over the layers, counted from 1."""
    sizes = [(i + 1, state.delta) for i, state in enumerate(states(e, when))]
    return [(x, y) for x, y in finite(sizes) if y > 0]


def updates(e: Evidence) -> list[tuple[int, Points]]:
    """Give the relative size of the steps over time, for each layer shown that has any."""
    lines = []
    for i in shown(e):
        points = finite((s.step, s.layers[i].update) for s in e.samples if i < len(s.layers))
        if points := [(x, y) for x, y in points if y > 0]:
            lines.append((i, points))
    return lines


def histogram(e: Evidence, i: int) -> tuple[float, float, list[int], list[list[float]]]:
    """Give a layer's activations over time: least, largest, steps, and columns of shares.

    A column has `ROWS` shares from the least value up; its largest is 1. Columns are empty where
    nothing is known.
    """
    samples = [(s.step, s.layers[i]) for s in e.samples if i < len(s.layers)]
    if i < len(e.now.layers):
        samples.append((steps(e), e.now.layers[i]))
    known = [(n, s) for n, s in samples if s.counts and isfinite(s.low) and isfinite(s.high)]
    known = [known[k] for k in spread(len(known), TIMES)]
    low = min((s.low for _, s in known), default=0.0)
    high = max((s.high for _, s in known), default=0.0)
    return low, high, [n for n, _ in known], [_column(s, low, high) for _, s in known]


def _column(state: LayerState, low: float, high: float) -> list[float]:
    """Spread a histogram over rows that all columns share, so that colours can be compared."""
    rows = [0.0] * ROWS
    size, height = (state.high - state.low) / len(state.counts), (high - low) / ROWS
    for k, count in enumerate(state.counts):
        if not height or not size:
            rows[_row((state.low - low) / height if height else ROWS // 2)] += count
            continue
        a, b = ((state.low + j * size - low) / height for j in (k, k + 1))
        for r in range(_row(a), _row(b) + 1):  # what of the bin lies in the row
            rows[r] += count * max(min(b, r + 1) - max(a, r), 0.0) / (b - a)
    most = max(rows)
    return [r / most for r in rows] if most else rows


def _row(place: float) -> int:
    return min(max(int(place), 0), ROWS - 1)
