"""What `import microgradnd` costs beside `import numpy`: fresh processes, interleaved, medians."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from statistics import median

from .timing import ROOT, readable, save, table

CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
MODULES = ("numpy", "microgradnd")


def seconds(module: str) -> float:
    """Import a module in a fresh process; give the time of the import statement."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module)],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    return float(done.stdout)


def main(argv: list[str] | None = None) -> float:
    """Print both medians and their ratio; gives the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    for module in MODULES:
        seconds(module)  # writes the byte code, and warms the file cache
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(options.rounds):
        for module in MODULES:
            times[module].append(seconds(module))
    numpy, ours = (median(times[module]) for module in MODULES)
    rows = [(f"import {m}", readable(median(t)), f"{median(t) / numpy:.2f}")
            for m, t in times.items()]  # fmt: skip
    print(table((f"median of {options.rounds} processes", "time", "of numpy"), rows))
    if options.json:
        save(options.json, times)
    return ours / numpy


if __name__ == "__main__":
    main()
