"""CPU against GPU: a training step at three sizes, and every activation at three sizes.

Both columns are always printed; a column that cannot be filled says why. Times are medians of
repeated samples, with half the distance of the quartiles beside them; the device is waited for
before a clock is read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import microgradnd as mg

from . import steps
from .timing import Timing, machine, measure, save, table

SHAPES = {"1e3": (10, 100), "1e5": (1000, 100), "1e6": (1000, 1000)}
COLUMNS = {"numpy": "CPU (numpy)", "cupy": "GPU (cupy)"}
Make = Callable[[str], Callable[[], Any]]


def training() -> Iterator[tuple[str, Make]]:
    """Give the rows of the training step: a name, and what makes the step on a backend."""
    for name, size in steps.SIZES.items():
        yield name, lambda backend, size=size: steps.microgradnd_step(*size, backend)


def activations(shapes: dict[str, tuple[int, ...]] | None = None) -> Iterator[tuple[str, Make]]:
    """Give the rows of the activations, all that the registry and the composites hold."""
    found: dict[str, Any] = {**mg.REGISTRY, **mg.COMPOSITES}
    for name in sorted(found):
        if found[name].__module__ == "microgradnd.ops.activations":
            for label, shape in (shapes or SHAPES).items():
                yield (
                    f"{name}, {label}",
                    lambda backend, op=found[name], shape=shape: both_passes(op, shape, backend),
                )


def both_passes(op: Any, shape: tuple[int, ...], backend: str) -> Callable[[], Any]:
    """Give an activation's forward and backward pass on float32 numbers of some shape."""
    data = getattr(op, "data", {})
    further = len(getattr(op, "operands", "x")) - 1  # slopes, one per column
    _, attributes = data.get("cases", (((), {}),))[0]
    attributes = data.get("defaults_for_tests", attributes)
    rng = np.random.default_rng(0)
    with mg.backend.use(backend):
        x = mg.tensor(rng.standard_normal(shape, dtype=np.float32), requires_grad=True)
        rest = [mg.full(shape[-1:], 0.2, requires_grad=True) for _ in range(further)]
        y = op(x, *rest, **attributes) if getattr(op, "front", None) is None else op(x)
        g = mg.ones_like(y)

    def run() -> None:
        y = op(x, *rest, **attributes) if getattr(op, "front", None) is None else op(x)
        y.backward(g)
        for leaf in (x, *rest):
            leaf.grad = None

    return run


def reasons(wanted: str | None) -> dict[str, str]:
    """Say of each column why it stays empty, or `""` if it is filled."""
    states = mg.backend.available()
    empty = {}
    for name in COLUMNS:
        why = "" if states.get(name) == "ok" else states.get(name, "not available")
        empty[name] = why if wanted in (None, name) else f"not asked for (--backend {wanted})"
    return empty


def compare(
    title: str, rows: Iterator[tuple[str, Make]], empty: dict[str, str], seconds: float
) -> dict[str, dict[str, Timing | None]]:
    """Time the rows on each backend that can be used; print and give the table."""
    results: dict[str, dict[str, Timing | None]] = {}
    for name, make in rows:
        results[name] = dict.fromkeys(COLUMNS)
        for backend in COLUMNS:
            if not empty[backend]:
                wait = mg.backend.named(backend).synchronize
                results[name][backend] = measure(make(backend), seconds, wait)
    cells = []
    for name, times in results.items():
        cpu, gpu = times["numpy"], times["cupy"]
        ratio = f"{cpu.median / gpu.median:.2f}" if cpu and gpu else "-"
        cells.append((name, cpu or "-", gpu or "-", ratio))
    print(f"\n{table((title, *COLUMNS.values(), 'CPU / GPU'), cells)}")
    for backend, why in empty.items():
        if why:
            print(f"The column {COLUMNS[backend]} is empty: {why}")
    return results


def main(argv: list[str] | None = None) -> int:
    """Print the tables; gives 1 if a backend that was asked for cannot be used, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short samples: ten seconds in all")
    parser.add_argument("--backend", choices=COLUMNS, help="fill one column only")
    parser.add_argument("--json", metavar="FILE", help="also write the results as JSON")
    options = parser.parse_args(argv)
    for key, value in machine().items():
        print(f"{key:12} {value}")
    empty = reasons(options.backend)
    long, short = (0.2, 0.05) if options.quick else (1.0, 0.3)
    results = {
        "training step": compare("training step", training(), empty, long),
        "activations": compare("forward and backward", activations(), empty, short),
    }
    if options.json:
        save(options.json, results)
    return int(options.backend is not None and bool(empty[options.backend]))


if __name__ == "__main__":
    sys.exit(main())
