"""PyTorch's column: the same rows in PyTorch's interpreter, on the CPU and on a GPU it can use.

`python -m benchmarks` starts this once, with the losses that are to come out on its standard input
as JSON, and reads one line of JSON for each cell. Everything is float32 without TF32; a row whose
first loss is another one is not timed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from time import monotonic
from typing import Any

from . import rows
from .devices import TorchClock
from .timing import ROOT, Clock, measure, usable_cores

COLUMNS = {"cpu": "torch", "cuda": "torch, cuda"}
TOLERANCE = 1e-4  # of two float32 losses, relative


def differs(loss: float, wanted: float) -> str:
    """Say that two losses are not the same, or nothing."""
    if abs(loss - wanted) <= TOLERANCE * abs(wanted):
        return ""
    return f"its loss is {loss:.6g}, and the first column's {wanted:.6g}"


def worker(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Time the rows that have a twin in PyTorch; first tell the versions, then give the cells."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    threads = usable_cores()
    torch.set_num_threads(threads)
    yield {
        "torch": {
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "CUDA": torch.version.cuda,
            "TF32": "on" if torch.backends.cuda.matmul.allow_tf32 else "off",
            "devices": devices,
        }
    }
    end = monotonic() + task["limit"] if task["limit"] is not None else float("inf")
    for kind in task["kinds"]:
        for row in rows.rows(kind, task["quick"]):
            if row.torch is None:
                continue
            for device in devices:
                cell = {"kind": kind, "name": row.name, "column": COLUMNS[device]}
                if monotonic() > end:
                    yield cell | {"why": "the time was over"}
                    continue
                wanted = task["losses"].get(row.name) if row.loss else None
                try:
                    clock = TorchClock(torch) if device == "cuda" else Clock()
                    step = row.torch(device, threads)
                    why = differs(float(step()), wanted) if wanted is not None else ""
                    timing = None if why else asdict(
                        measure(step, task["seconds"], clock, patience=task["patience"])
                    )
                    yield cell | {"timing": timing} | ({"error": why} if why else {})
                except RuntimeError as error:  # memory, for one
                    yield cell | {"error": str(error).splitlines()[0]}
                step = None


def ask(python: str, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Have the rows timed by an interpreter; gives what `worker` gives.

    Raises:
        RuntimeError: With the reason, if that interpreter cannot do it.
    """
    own = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    try:
        done = subprocess.run(
            [python, "-m", "benchmarks.torch_rows"], input=json.dumps(task),
            capture_output=True, text=True, check=False, env=os.environ | own,
        )  # fmt: skip
    except OSError as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return map(json.loads, done.stdout.splitlines())


def missing(python: str) -> str:
    """Say why there is no column of PyTorch's, or nothing."""
    if python == sys.executable and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed here; --torch-python PATH names an interpreter that has it"
    return ""


def main() -> None:
    """Print a line of JSON for each cell."""
    for line in worker(json.load(sys.stdin)):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
