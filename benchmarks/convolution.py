"""Convolution and pooling, forward and backward, against PyTorch's; float32.

Inputs and weights get gradients, and inputs lie in memory as NCHW. A training step is that of a
small network for images of 28 x 28, with Adam. Each peer runs in a process of its own (two
libraries' thread pools disturb each other), the processes interleaved; the median over the rounds
counts. Run `python -m benchmarks.convolution --torch-python PATH`, the interpreter that has torch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from .timing import ROOT, busy, measure, readable, save, table

#: Shape of the input; channels of the output, size of the kernel, and padding.
CONVOLUTIONS = {
    "conv 3x3, 1 to 16, 8x8": ((64, 1, 8, 8), (16, 3, 1)),
    "conv 3x3, 16 to 32, 8x8": ((64, 16, 8, 8), (32, 3, 1)),
    "conv 5x5, 1 to 32, 28x28": ((64, 1, 28, 28), (32, 5, 2)),
    "conv 3x3, 32 to 32, 28x28": ((64, 32, 28, 28), (32, 3, 1)),
    "conv 5x5, 32 to 32, 14x14": ((64, 32, 14, 14), (32, 5, 2)),
    "conv 1x1, 64 to 64, 14x14": ((64, 64, 14, 14), (64, 1, 0)),
}
#: Shape of the input; what is taken of a window, its size, stride and padding.
POOLS = {
    "largest of 2x2, 16 x 8x8": ((64, 16, 8, 8), ("max", 2, 2, 0)),
    "largest of 2x2, 32 x 28x28": ((64, 32, 28, 28), ("max", 2, 2, 0)),
    "largest of 3x3, 32 x 28x28": ((64, 32, 28, 28), ("max", 3, 2, 1)),
    "mean of 2x2, 32 x 28x28": ((64, 32, 28, 28), ("avg", 2, 2, 0)),
}
STEP = "training step, 28x28, batch 64"
PEERS = ("microgradnd", "torch")


def peer_of(name: str) -> tuple[Any, Any]:
    """Give a peer's library, and a function that makes a tensor of an array."""
    if name == "microgradnd":
        import microgradnd as mg

        return mg, lambda x, grad: mg.asarray(x).requires_grad_(grad)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return torch, lambda x, grad: torch.from_numpy(x).requires_grad_(grad)


def pulled(f: Callable[..., Any], leaves: list[Any]) -> Any:
    """Compute something and its gradients; give the result."""
    for leaf in leaves:
        leaf.grad = None
    out = f(*leaves)
    out.sum().backward()
    return out


def trained(library: Any, tensor: Any, rng: Any) -> Callable[[], Any]:
    """Give the training step; it gives the loss. The rate is so small that nothing changes."""
    nn = library.nn
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip
    state = {k: tensor(0.1 * rng.standard_normal(tuple(p.shape), np.float32), False)
             for k, p in model.named_parameters()}  # fmt: skip
    model.load_state_dict(state)
    adam = library.optim.Adam(model.parameters(), lr=1e-7)
    x = tensor(rng.standard_normal((64, 1, 28, 28), np.float32), False)
    y = tensor(rng.integers(0, 10, 64), False)
    loss_fn = nn.CrossEntropyLoss()

    def step() -> Any:
        adam.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        adam.step()
        return loss

    return step


def tasks(peer: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give what is timed, one by one; each gives a tensor by whose sum peers are compared."""
    library, tensor = peer_of(peer)
    F = library.nn.functional
    rng = np.random.default_rng(0)
    for name, (shape, (units, size, padding)) in CONVOLUTIONS.items():
        weight = rng.standard_normal((units, shape[1], size, size), np.float32)
        leaves = [tensor(rng.standard_normal(shape, np.float32), True), tensor(weight, True)]
        yield name, partial(pulled, partial(F.conv2d, padding=padding), leaves)
    for name, (shape, (kind, *options)) in POOLS.items():
        pool = getattr(F, f"{kind}_pool2d")
        leaves = [tensor(rng.standard_normal(shape, np.float32), True)]
        yield name, partial(pulled, lambda x, f=pool, o=options: f(x, *o), leaves)
    yield STEP, trained(library, tensor, rng)


def worker(peer: str, seconds: float) -> None:
    """Time one peer in this process; print medians and sums."""
    found = {}
    for name, call in tasks(peer):
        value = float(call().sum())
        found[name] = {"sum": value, "seconds": measure(call, seconds).median}
    print(json.dumps(found))


def ask(python: str, peer: str, seconds: float, threads: int) -> dict[str, dict[str, float]]:
    """Time one peer in a fresh process."""
    own = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [python, "-m", "benchmarks.convolution", "--worker", peer, "--seconds", str(seconds)],
        capture_output=True, text=True, check=False, env=os.environ | own,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        hint = "; --torch-python PATH names one that has torch" if "'torch'" in reason else ""
        raise SystemExit(f"{peer}: {reason}{hint}")
    answer: dict[str, dict[str, float]] = json.loads(done.stdout)
    return answer


def main(argv: list[str] | None = None) -> None:
    """Time both peers, interleaved, and print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolution", description=__doc__)
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH",
                        help="an interpreter with torch and numpy (default: this one)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="per task, peer and round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.worker:
        return worker(options.worker, options.seconds)
    pythons = dict(zip(PEERS, (sys.executable, options.torch_python), strict=True))
    rounds = []
    for _ in range(options.rounds):
        rounds.append({peer: ask(python, peer, options.seconds, options.threads)
                       for peer, python in pythons.items()})  # fmt: skip
    for name, ours in rounds[0][PEERS[0]].items():
        other = rounds[0][PEERS[1]][name]["sum"]
        if abs(ours["sum"] - other) > 1e-3 * max(abs(other), 1.0):
            raise SystemExit(f"{name}: the peers do not agree: {ours['sum']} and {other}")
    medians = {name: [median(r[peer][name]["seconds"] for r in rounds) for peer in PEERS]
               for name in rounds[0][PEERS[0]]}  # fmt: skip
    rows = [(name, *map(readable, pair), f"{pair[0] / pair[1]:.2f}")
            for name, pair in medians.items()]  # fmt: skip
    print(f"batch 64, float32, threads: {options.threads}, {options.rounds} rounds of "
          f"{options.seconds:g} s; {busy()}\n")  # fmt: skip
    print(table(("forward and backward", *PEERS, "of torch"), rows))
    if options.json:
        found = {name: dict(zip(PEERS, pair, strict=True)) for name, pair in medians.items()}
        save(options.json, {"threads": options.threads, "seconds": found})
    return None


if __name__ == "__main__":
    main()
