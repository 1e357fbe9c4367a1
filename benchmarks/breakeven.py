"""From which batch or width on the GPU wins: a line through each one's times, and their crossing.

A step takes `fixed + per_work * work` seconds, `work` being the multiply-adds of its forward pass.
The line is fitted to relative errors, so that short steps count as much as long ones. It is a rough
model (caches, and products too small to fill a processor, bend the true curve): its error is given,
and so is the pair of measured points between which the faster one changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import steps

DRAWS = 4000
LEVEL = 0.9  # of the interval that is given with a crossing


@dataclass(frozen=True)
class Curve:
    """A network whose batch or width grows.

    Attributes:
        title: The network, for people.
        values: The batches or widths that are measured.
        quick: Fewer of them.
        size: Gives layers and batch for a value.
    """

    title: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    size: Callable[[int], tuple[tuple[int, ...], int]]

    def work(self, value: float) -> float:
        """Give the multiply-adds of the forward pass."""
        layers, batch = self.size(value)  # type: ignore[arg-type] - linear or quadratic in it
        return steps.work(layers, batch)

    def value(self, work: float) -> float:
        """Give the batch or width that has so much work, by bisection."""
        low, high = 1e-6, 1e9
        for _ in range(200):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.work(middle) < work else (low, middle)
        return (low * high) ** 0.5


CURVES = {
    "batch": Curve(
        "784-256-10", tuple(2**i for i in range(14)), (1, 8, 64, 512, 4096),
        lambda n: ((784, 256, 10), n),
    ),
    "width": Curve(
        "64-n-n-10, batch 128", tuple(2**i for i in range(4, 13)), (16, 64, 256, 1024),
        lambda n: ((64, n, n, 10), 128),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """A line through times, `fixed + per_work * work`.

    Attributes:
        fixed: Seconds that a step takes however small it is.
        per_work: Seconds for one multiply-add of the forward pass.
        covariance: Of these two.
        error: The relative error of the fit, root mean square.
        worst: The largest relative error.
    """

    fixed: float
    per_work: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    error: float
    worst: float

    def seconds(self, work: float) -> float:
        """Give the time of a step."""
        return self.fixed + self.per_work * work


def fit(work: Sequence[float], seconds: Sequence[float]) -> Fit | None:
    """Fit a line to relative errors, its two numbers not negative; None for fewer than 3 points."""
    if len(work) < 3:
        return None
    times, scale = np.asarray(seconds, float), float(max(work))
    rows = np.stack([1 / times, np.asarray(work, float) / scale / times], axis=1)
    ones = np.ones(len(times))
    best, covariance, least = np.zeros(2), np.zeros((2, 2)), np.inf
    for used in ([0, 1], [0], [1]):  # where one comes out negative it is 0, and the other remains
        chosen = rows[:, used]
        found, *_ = np.linalg.lstsq(chosen, ones, rcond=None)
        loss = float(np.sum((chosen @ found - 1) ** 2))
        if (found >= 0).all() and loss < least:  # both, where both may be: that is the least
            best, covariance, least = np.zeros(2), np.zeros((2, 2)), loss
            best[used] = found
            spread = loss / (len(times) - len(used))
            covariance[np.ix_(used, used)] = spread * np.linalg.inv(chosen.T @ chosen)
    off = np.abs(rows @ best - 1)
    units = np.array([1.0, 1 / scale])
    covariance *= np.outer(units, units)
    (a, b), (c, d) = covariance.tolist()
    fixed, per_work = (best * units).tolist()
    return Fit(fixed, per_work, ((a, b), (c, d)), float(np.sqrt(np.mean(off**2))), float(off.max()))


def crossing(curve: Curve, cpu: Fit, gpu: Fit) -> dict[str, float | None] | None:
    """Give where the fits cross, the GPU winning above, with an interval; None if they do not.

    The interval is that of the crossings of lines drawn from both fits' covariances; a bound is
    None where so many of these lines do not cross that it cannot be told.
    """
    fixed, gain = gpu.fixed - cpu.fixed, cpu.per_work - gpu.per_work
    if fixed <= 0 or gain <= 0:
        return None
    rng = np.random.default_rng(0)
    late, fast = (lines(gpu, rng) - lines(cpu, rng)) * [[1.0], [-1.0]]
    # A line that begins below crosses at nothing, and one that never gets there at infinity.
    works = np.full(DRAWS, np.inf)
    np.divide(late, fast, out=works, where=fast > 0)
    works[late <= 0] = 0.0
    low, high = np.quantile(works, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return {
        "value": curve.value(fixed / gain),
        "low": curve.value(low) if low > 0 else None,
        "high": curve.value(high) if np.isfinite(high) else None,
    }


def lines(line: Fit, rng: np.random.Generator) -> np.ndarray:
    """Draw lines from a fit's covariance: two rows, `fixed` and `per_work`, neither negative."""
    (a, b), (_, d) = line.covariance
    first, second = rng.normal(size=(2, DRAWS))
    side = b / a**0.5 if a else 0.0
    fixed = line.fixed + a**0.5 * first
    per_work = line.per_work + side * first + max(d - side**2, 0.0) ** 0.5 * second
    return np.maximum(np.stack([fixed, per_work]), 0)


def bracket(values: Sequence[int], cpu: Sequence[float], gpu: Sequence[float]) -> Any:
    """Give the two neighbours between which the GPU begins to win for good.

    `[None, v]` says that it wins at all values, `[v, None]` that it does not at the last one.
    """
    wins = [g < c for c, g in zip(cpu, gpu, strict=True)]
    if not wins[-1]:
        return [values[-1], None]
    losses = [i for i, win in enumerate(wins) if not win]
    return [values[losses[-1]], values[losses[-1] + 1]] if losses else [None, values[0]]


def evaluate(curve: Curve, times: dict[str, dict[int, float]]) -> dict[str, Any]:
    """Fit both columns' times (by value) and compare them.

    Returns:
        `fits` by column, `crossing` and `between` (None where a column is missing), and `text`.
    """
    fits = {
        column: fit([curve.work(v) for v in found], list(found.values()))
        for column, found in times.items()
    }
    cpu, gpu = fits.get("numpy"), fits.get("cupy")
    both = sorted(times.get("numpy", {}).keys() & times.get("cupy", {}).keys())
    cross = crossing(curve, cpu, gpu) if cpu and gpu else None
    columns = [[times[column][v] for v in both] for column in ("numpy", "cupy")] if both else []
    between = bracket(both, *columns) if both else None
    return {
        "fits": {column: asdict(f) if f else None for column, f in fits.items()},
        "crossing": cross,
        "between": between,
        "text": text(both, cross, between) if cpu and gpu else "",
    }


def text(values: Sequence[int], cross: dict[str, Any] | None, between: Any) -> str:
    """Say from where on the GPU wins, by the points and by the fits."""
    below, above = between
    if below is None:
        measured = f"the GPU wins at every value measured, from {above} on"
    elif above is None:
        measured = f"the GPU does not win at {below}, the largest value measured"
    else:
        measured = f"the GPU wins from between {below} and {above} on"
    if cross is None:
        return f"{measured}; the fits do not cross"
    low, high = cross["low"], cross["high"]
    interval = (
        f"{LEVEL:.0%}: {'below all' if low is None else f'{low:.3g}'} to "
        f"{'no bound' if high is None else f'{high:.3g}'}"
    )
    outside = not values[0] <= cross["value"] <= values[-1]
    note = ", outside what was measured" if outside else ""
    return f"{measured}; the fits cross at {cross['value']:.3g} ({interval}){note}"
