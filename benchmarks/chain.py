"""A chain of many operations: forward, backward, and dropping the graph; nothing recurses."""

from __future__ import annotations

import argparse
from itertools import pairwise
from time import perf_counter

import microgradnd as mg

from .timing import readable, save, table


def chain(length: int) -> dict[str, float]:
    """Record `length` operations on one number, go back through them, drop them; give the times."""
    x = mg.tensor(1.0, requires_grad=True)
    marks = [perf_counter()]
    y = x
    for _ in range(length // 2):
        y = y * 1.000001 + 0.000001
    marks.append(perf_counter())
    y.backward(retain_graph=True)  # the graph stays, so that the drop is measured on its own
    marks.append(perf_counter())
    del y
    marks.append(perf_counter())
    parts = [b - a for a, b in pairwise(marks)]
    return dict(zip(("forward", "backward", "drop"), parts, strict=True)) | {"all": sum(parts)}


def main(argv: list[str] | None = None) -> None:
    """Print the times of one chain."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chain", description=__doc__)
    parser.add_argument("--length", type=int, default=200_000)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    times = chain(options.length)
    rows = [(part, readable(t), f"{t / options.length * 1e6:.2f} us") for part, t in times.items()]
    print(table((f"{options.length} operations", "time", "each"), rows))
    if options.json:
        save(options.json, {"length": options.length, "seconds": times})


if __name__ == "__main__":
    main()
