"""What all benchmarks share: timing one function, describing the machine, tables, JSON.

Nothing but the standard library is imported here, so that a peer's interpreter can use it too.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Timing:
    """Seconds for one call in the steady state, and of the first call.

    Attributes:
        median: By the clock: a device's own, the host's for the host.
        low: The lower quartile.
        high: The upper quartile.
        wall: The host's clock over all calls and the one wait at their end, for one call.
        issue: The same without that wait: how long the host takes to ask for one call's work.
        first: The first call and a wait, by the host's clock; on a device it may compile kernels.
        samples: How many samples were taken.
        calls: How many calls a sample has.
        waited: The share of that time in which a process waited for a core; about 0 if the machine
            is ours alone, and figures from 0.1 on are no good. None where the system does not say.
    """

    median: float
    low: float
    high: float
    wall: float
    issue: float
    first: float
    samples: int
    calls: int
    waited: float | None = None

    def __str__(self) -> str:
        spread = (self.high - self.low) / 2 / self.median
        return f"{readable(self.median)} ±{spread:.0%}"


class Clock:
    """The host's clock; that of a device marks places in its queue of work instead."""

    def mark(self) -> Any:
        """Mark this moment."""
        return perf_counter()

    def seconds(self, start: Any, stop: Any) -> float:
        """Give the time between two marks, after `wait`."""
        seconds: float = stop - start
        return seconds

    def wait(self) -> None:
        """Wait until all that was asked for is done."""


def readable(seconds: float) -> str:
    """Give a duration with three digits and its unit."""
    for unit, size in ("s", 1.0), ("ms", 1e-3), ("us", 1e-6):
        if seconds >= size or unit == "us":
            return f"{seconds / size:.3g} {unit}" if seconds < 100 * size else (
                f"{seconds / size:.0f} {unit}")  # fmt: skip
    raise AssertionError


SHORTEST = 2e-3  # seconds that a sample takes at least
SLOW = 0.5  # a call of so many seconds is sampled three times instead of five
DISTURBED = 0.1  # a share of time in which somebody waited for a core
PAUSE = 2.0  # seconds before a measurement that was disturbed is made again


def measure(
    function: Callable[[], Any],
    seconds: float = 0.5,
    clock: Clock = Clock(),  # noqa: B008 - it has no state
    guard: Callable[[], AbstractContextManager[Any]] = nullcontext,
    check: Callable[[Any], None] = lambda value: None,
    patience: int = 0,
) -> Timing:
    """Time a function: call it once, warm it up, then take samples, and wait once, at their end.

    Args:
        function: What to time; it should leave things as it found them.
        seconds: How long to go on; at least five samples are taken, or three of slow calls.
        clock: Marks the bounds of the samples.
        guard: A context for the samples, such as one in which nothing may be read.
        check: Is given what the first call returned, before anything else is timed.
        patience: How often to try again where other processes wanted the cores; the least disturbed
            try counts.
    """
    began = perf_counter()
    value = function()
    clock.wait()
    first = perf_counter() - began
    check(value)
    del value
    tries = [steady(function, seconds, clock, guard, first)]
    while len(tries) <= patience and (tries[-1].waited or 0.0) > DISTURBED:
        sleep(PAUSE)
        tries.append(steady(function, seconds, clock, guard, first))
    return min(tries, key=lambda timing: timing.waited or 0.0)


def steady(
    function: Callable[[], Any], seconds: float, clock: Clock,
    guard: Callable[[], AbstractContextManager[Any]], first: float,
) -> Timing:  # fmt: skip
    """Time a function in its steady state."""

    def sample(calls: int) -> float:
        began = perf_counter()
        for _ in range(calls):
            function()
        clock.wait()
        return perf_counter() - began

    calls, spent = 1, sample(1)
    while spent < SHORTEST:
        calls *= 2
        spent = sample(calls)
    samples = max(3 if spent > SLOW else 5, min(int(seconds / spent), 1000))
    before = waited()
    with guard():
        began = perf_counter()
        marks = [clock.mark()]
        for _ in range(samples):
            for _ in range(calls):
                function()
            marks.append(clock.mark())
        issued = perf_counter()
    clock.wait()
    done = perf_counter()
    after = waited()
    share = None if before is None or after is None else (after - before) / (done - began)
    times = [clock.seconds(a, b) / calls for a, b in pairwise(marks)]
    low, _, high = quantiles(times, n=4)
    n = samples * calls
    return Timing(
        median(times), low, high, (done - began) / n, (issued - began) / n, first, samples, calls,
        share,
    )  # fmt: skip


def machine() -> dict[str, Any]:
    """Describe the machine and the versions, without any name or path of it."""
    import numpy

    import microgradnd
    from microgradnd.cli import blas

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "microgradnd": microgradnd.__version__,
        **blas(),
    }


def usable_cores() -> int:
    """Give how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Give how many processes wanted to run, on average over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def waited() -> float | None:
    """Give the seconds, since the start of the system, in which somebody waited for a core."""
    try:
        text = Path("/proc/pressure/cpu").read_text()
        return int(text.splitlines()[0].rpartition("=")[2]) * 1e-6
    except (OSError, ValueError):
        return None


def busy() -> str:
    """Say how busy the machine is with everything that runs on it, for figures to be judged by."""
    cores = os.cpu_count() or 1
    wanted = load()
    if wanted is None:
        return "how busy the machine is, this system does not say"
    note = ": too many, take no figure from this run" if wanted > 1.5 * cores else ""
    return f"on average {wanted:.1f} processes wanted the {cores} cores{note}"


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
