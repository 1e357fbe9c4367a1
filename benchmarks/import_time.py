"""What `import microgradnd` costs beside `import numpy`: fresh processes, interleaved, medians."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory

from .timing import ROOT, busy, readable, save, table

CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
MODULES = ("numpy", "microgradnd")


def seconds(module: str, cache: str) -> float:
    """Import a module in a fresh process; give the time of the import statement."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own["PYTHONPYCACHEPREFIX"] = cache
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module)],
        capture_output=True, text=True, check=True, env=own,
    )  # fmt: skip
    return float(done.stdout)


def main(argv: list[str] | None = None) -> float:
    """Print both medians and their ratio; gives the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    with TemporaryDirectory() as cache:
        for module in MODULES:
            seconds(module, cache)  # compiles, as an installation does, and warms the file cache
        for _ in range(options.rounds):
            for module in MODULES:
                times[module].append(seconds(module, cache))
    numpy, ours = (median(times[module]) for module in MODULES)
    rows = [(f"import {m}", readable(median(t)), f"{median(t) / numpy:.2f}")
            for m, t in times.items()]  # fmt: skip
    print(table((f"median of {options.rounds} processes", "time", "of numpy"), rows))
    print(busy())
    if options.json:
        save(options.json, times)
    return ours / numpy


if __name__ == "__main__":
    main()
