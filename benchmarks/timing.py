"""What all benchmarks share: timing one function, describing the machine, tables, JSON.

Nothing but the standard library is imported here, so that a peer's interpreter can use it too.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Timing:
    """Seconds for one call: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        spread = (self.high - self.low) / 2 / self.median
        return f"{readable(self.median)} ±{spread:.0%}"


def readable(seconds: float) -> str:
    """Give a duration with three digits and its unit."""
    for unit, size in ("s", 1.0), ("ms", 1e-3), ("us", 1e-6):
        if seconds >= size or unit == "us":
            return f"{seconds / size:.3g} {unit}" if seconds < 100 * size else (
                f"{seconds / size:.0f} {unit}")  # fmt: skip
    raise AssertionError


def measure(
    function: Callable[[], Any], seconds: float = 0.5, wait: Callable[[], None] = lambda: None
) -> Timing:
    """Time a function: warm it up, then take samples of at least 2 ms for some seconds.

    Args:
        function: What to time; it should leave things as it found them.
        seconds: How long to go on; at least five samples are taken.
        wait: Waits for the device; called before a sample's clock is read.
    """

    def sample(calls: int) -> float:
        began = perf_counter()
        for _ in range(calls):
            function()
        wait()
        return perf_counter() - began

    calls = 1
    sample(3)
    while sample(calls) < 2e-3:
        calls *= 2
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < 5 or perf_counter() < end:
        samples.append(sample(calls) / calls)
    low, _, high = quantiles(samples, n=4)
    return Timing(median(samples), low, high)


def machine() -> dict[str, Any]:
    """Describe the machine and the versions, without any name or path of it."""
    import numpy

    import microgradnd
    from microgradnd.cli import blas

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "microgradnd": microgradnd.__version__,
        **blas(),
    }


def busy() -> str:
    """Say how busy the machine is with everything that runs on it, for figures to be judged by."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    note = ": too many, take no figure from this run" if load > 1.5 * cores else ""
    return f"on average {load:.1f} processes wanted the {cores} cores{note}"


def processor() -> str:
    """Give the processor's model."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows in columns, the first one to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def save(path: str | Path, results: Any) -> None:
    """Write results and the description of the machine as JSON."""
    text = json.dumps({"machine": machine(), "results": results}, indent=1, default=asdict)
    Path(path).write_text(text + "\n", encoding="utf-8")
