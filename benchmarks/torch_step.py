"""Training steps and updates against PyTorch's and against straight-line NumPy.

`functions` is the step written with operations, `SGD` and `Adam` are the same with modules and an
optimizer, and `Adam update` is `optimizer.step()` alone. Each peer runs in a process of its own
(two libraries' thread pools disturb each other), two threads, the processes interleaved; the
median over the rounds counts. Run `python -m benchmarks.torch_step --torch-python PATH`, the
interpreter that has torch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from . import steps
from .timing import ROOT, busy, measure, readable, save, table

TASKS: dict[str, dict[str, Callable[..., Callable[[], Any]]]] = {
    "functions": {
        "microgradnd": steps.microgradnd_step,
        "torch": steps.torch_step,
        "torch, bare update": partial(steps.torch_step, bare=True),
        "NumPy by hand": steps.numpy_step,
    },
    "SGD": {
        "microgradnd": partial(steps.microgradnd_modules, optimizer="SGD"),
        "torch": partial(steps.torch_modules, optimizer="SGD"),
    },
    "Adam": {
        "microgradnd": partial(steps.microgradnd_modules, optimizer="Adam"),
        "torch": partial(steps.torch_modules, optimizer="Adam"),
        "torch, fused": partial(steps.torch_modules, optimizer="Adam", fused=True),
    },
    "Adam update": {
        "microgradnd": partial(steps.microgradnd_modules, optimizer="Adam", update_only=True),
        "torch": partial(steps.torch_modules, optimizer="Adam", update_only=True),
        "torch, fused": partial(
            steps.torch_modules, optimizer="Adam", update_only=True, fused=True
        ),
    },
}


def worker(task: str, peer: str, size: str, seconds: float) -> None:
    """Time one peer in this process; print the loss and the median."""
    step = TASKS[task][peer](*steps.SIZES[size])
    loss = float(step())
    print(json.dumps({"loss": loss, "seconds": measure(step, seconds).median}))


def ask(python: str, task: str, peer: str, size: str, seconds: float) -> dict[str, float]:
    """Time one peer in a fresh process."""
    own = {f"{name}_NUM_THREADS": "2" for name in ("OMP", "OPENBLAS", "MKL")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [python, "-m", "benchmarks.torch_step", "--worker", peer, "--task", task, "--size", size,
         "--seconds", str(seconds)],
        capture_output=True, text=True, check=False, env=os.environ | own,
    )  # fmt: skip
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        hint = (
            "; give the interpreter that has torch with --torch-python PATH"
            if "No module named 'torch'" in reason[0]
            else ""
        )
        raise SystemExit(f"{peer}: {reason[0]}{hint}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main(argv: list[str] | None = None) -> None:
    """Time all peers, interleaved, and print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_step", description=__doc__)
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH",
                        help="an interpreter with torch and numpy (default: this one)")  # fmt: skip
    parser.add_argument("--task", choices=TASKS, default=next(iter(TASKS)))
    parser.add_argument("--size", choices=steps.SIZES, default=next(iter(steps.SIZES)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per peer and round")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        return worker(options.task, options.worker, options.size, options.seconds)
    rounds: dict[str, list[float]] = {peer: [] for peer in TASKS[options.task]}
    losses = {}
    for _ in range(options.rounds):
        for peer in rounds:
            python = options.torch_python if peer.startswith("torch") else sys.executable
            answer = ask(python, options.task, peer, options.size, options.seconds)
            rounds[peer].append(answer["seconds"])
            losses[peer] = answer["loss"]
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise SystemExit(f"the peers do not compute the same loss: {losses}")
    reference = median(rounds["torch"])
    rows = [
        (peer, readable(median(times)), f"{readable(min(times))} to {readable(max(times))}",
         f"{median(times) / reference:.2f}")
        for peer, times in rounds.items()
    ]  # fmt: skip
    print(f"{options.task}: {options.size}, relu, float32, {options.rounds} rounds of "
          f"{options.seconds:g} s")  # fmt: skip
    print(f"{busy()}\n")
    print(table(("one call", "median", "rounds", "of torch"), rows))
    if options.json:
        save(options.json, {"task": options.task, "size": options.size, "seconds": rounds})
    return None


if __name__ == "__main__":
    main()
