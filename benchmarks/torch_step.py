"""The eager training step against PyTorch's and against straight-line NumPy.

Each peer runs in a process of its own (two libraries' thread pools disturb each other), two
threads, the processes interleaved; the median over the rounds counts. Run
`python -m benchmarks.torch_step --torch-python PATH`, the interpreter that has torch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from statistics import median

from . import steps
from .timing import ROOT, busy, measure, readable, save, table

PEERS = {
    "microgradnd": steps.microgradnd_step,
    "torch, optim.SGD": steps.torch_step,
    "torch, bare update": lambda *size: steps.torch_step(*size, bare=True),
    "NumPy by hand": steps.numpy_step,
}


def worker(peer: str, size: str, seconds: float) -> None:
    """Time one peer in this process; print the loss and the median."""
    step = PEERS[peer](*steps.SIZES[size])
    loss = float(step())
    print(json.dumps({"loss": loss, "seconds": measure(step, seconds).median}))


def ask(python: str, peer: str, size: str, seconds: float) -> dict[str, float]:
    """Time one peer in a fresh process."""
    own = {f"{name}_NUM_THREADS": "2" for name in ("OMP", "OPENBLAS", "MKL")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [python, "-m", "benchmarks.torch_step", "--worker", peer, "--size", size,
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
    parser.add_argument("--size", choices=steps.SIZES, default=next(iter(steps.SIZES)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per peer and round")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        return worker(options.worker, options.size, options.seconds)
    rounds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    losses = {}
    for _ in range(options.rounds):
        for peer in PEERS:
            python = options.torch_python if peer.startswith("torch") else sys.executable
            answer = ask(python, peer, options.size, options.seconds)
            rounds[peer].append(answer["seconds"])
            losses[peer] = answer["loss"]
    if max(losses.values()) - min(losses.values()) > 1e-4:
        raise SystemExit(f"the peers do not compute the same loss: {losses}")
    reference = median(rounds["torch, optim.SGD"])
    rows = [
        (peer, readable(median(times)), f"{readable(min(times))} to {readable(max(times))}",
         f"{median(times) / reference:.2f}")
        for peer, times in rounds.items()
    ]  # fmt: skip
    print(f"{options.size}, relu, float32, {options.rounds} rounds of {options.seconds:g} s")
    print(f"{busy()}\n")
    print(table(("one training step", "median", "rounds", "of torch"), rows))
    if options.json:
        save(options.json, {"size": options.size, "seconds": rounds})
    return None


if __name__ == "__main__":
    main()
