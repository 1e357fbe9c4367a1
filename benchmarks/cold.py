"""The first steps of a fresh process, to the steady state: what a user waits for.

On a GPU that is the start of CUDA and the compilation of every kernel, once; later processes find
the kernels on disk (`CUPY_CACHE_DIR`). `python -m benchmarks` starts this in processes of its own,
with an empty folder for the kernels and then with what the first one left there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from . import steps
from .devices import clock_of
from .timing import ROOT

STAGES = ("import", "backend", "set up", "step 1", "step 2", "step 10")
COMPILED, CACHED = "cupy, kernels compiled", "cupy, kernels on disk"
NETWORKS = {
    "784-1200-10, batch 100": ((784, 1200, 10), 100, 1),
    **steps.MAXOUT,
}


def first_steps(name: str, backend: str) -> dict[str, float]:
    """Import, load the backend, make a network, and take steps; give the seconds of each."""
    times = {}
    began = perf_counter()

    def stage(title: str) -> None:
        nonlocal began
        now = perf_counter()
        times[title], began = now - began, now

    import microgradnd as mg

    stage("import")
    home = mg.backend.named(backend)
    wait = clock_of(home).wait
    wait()
    stage("backend")
    layers, batch, pieces = NETWORKS[name]
    step = steps.microgradnd_step(layers, batch, home, pieces)
    wait()
    stage("set up")
    for number in range(1, 11):
        step()
        wait()
        stage(f"step {number}")
    return {title: times[title] for title in STAGES}


def ask(name: str, backend: str, cache: str) -> dict[str, float]:
    """Time the first steps in a fresh process, which keeps its kernels in the folder `cache`.

    Raises:
        RuntimeError: With the process's last line, if it fails.
    """
    own = {"CUPY_CACHE_DIR": cache}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold", "--backend", backend, "--network", name],
        capture_output=True, text=True, check=False, env=os.environ | own, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def columns(name: str, backend: str) -> dict[str, dict[str, float]]:
    """Give the columns of a network on a backend: with and without kernels on disk on a device."""
    with TemporaryDirectory() as cache:
        if backend == "numpy":
            return {"numpy": ask(name, backend, cache)}
        return {title: ask(name, backend, cache) for title in (COMPILED, CACHED)}


def main(argv: list[str] | None = None) -> None:
    """Print the times as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold", description=__doc__)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--network", choices=NETWORKS, default=next(iter(NETWORKS)))
    options = parser.parse_args(argv)
    times: dict[str, Any] = first_steps(options.network, options.backend)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
