"""The picture of the break-even curves: points, fits, and where they cross."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import rows
from .breakeven import CURVES
from .devices import name_of
from .report import EMPTY

COLORS = {rows.CPU: "#1f5fa8", rows.GPU: "#d1611b"}
NAMES = {rows.CPU: "CPU", rows.GPU: "GPU"}


def draw(result: dict[str, Any], file: str | Path) -> None:
    """Draw one panel for each curve.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = result["curves"]
    figure = Figure(figsize=(5.4 * max(len(found), 1), 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, max(len(found), 1), squeeze=False)[0], found,
                          strict=False):  # fmt: skip
        panel(axes, name, result)
    device = result["device"]
    machine = f"{result['machine']['processor']}, {result['machine']['usable cores']} cores"
    figure.suptitle(
        f"A training step in float32: {machine}" + (f"; {name_of(device)}" if device else ""),
        fontsize=10,
    )
    figure.savefig(file)


def panel(axes: Any, name: str, result: dict[str, Any]) -> None:
    """Draw points with their quartiles, the fits, and the crossing with its interval."""
    curve, found = CURVES[name], result["curves"][name]
    mine = [row for row in result["rows"] if row.get("curve") == name]
    for column, color in COLORS.items():
        points = [(row["value"], t) for row in mine if (t := row["cells"].get(column))]
        if not points:
            axes.plot([], [], "o", color=color, label=f"{NAMES[column]}: {EMPTY}")
            continue
        values = np.array([value for value, _ in points], float)
        low, middle, high = (
            np.array([t[key] for _, t in points]) * 1e3 for key in ("low", "median", "high")
        )
        bars = [middle - low, high - middle]
        fit = found["fits"].get(column)
        label = f"{NAMES[column]}; the line is off by {fit['error']:.0%}" if fit else NAMES[column]
        axes.errorbar(values, middle, bars, fmt="o", ms=4, color=color, label=label)
        if fit:
            dense = np.geomspace(values[0], values[-1], 200)
            work = np.array([curve.work(v) for v in dense])
            line = fit["fixed"] + fit["per_work"] * work
            axes.plot(dense, line * 1e3, "-", lw=1, color=color)
    cross = found["crossing"]
    if cross:
        text = f"GPU wins from {cross['value']:.3g} on"
        axes.axvline(cross["value"], color="#555555", lw=1, ls="--", label=text)
        left, right = axes.get_xlim()
        axes.axvspan(cross["low"] or left, cross["high"] or right, color="#555555", alpha=0.15)
    measured = any(row["cells"].get(column) for row in mine for column in COLORS)
    scale = "log" if measured else "linear"  # without a point there is no logarithm to take
    axes.set(
        xscale=scale, yscale=scale, xlabel=name, ylabel="milliseconds for a step",
        title=curve.title,
    )  # fmt: skip
    axes.grid(alpha=0.3, which="major")
    axes.legend(fontsize=8, loc="upper left")
