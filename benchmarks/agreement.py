"""Do two backends train alike, and does one train twice alike? Models, curves and comparisons.

Everything random is the same on every backend by construction: initial weights and shuffles are
drawn on the host, dropout masks come from the same counters. So losses differ by rounding alone,
and how fast that grows is measured beside it: by the distance of float32 from float64 on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import microgradnd as mg
from microgradnd import nn

FEATURES, CLASSES, WORDS, ROWS, BATCH = 32, 10, 50, 1024, 64
#: Relative differences of losses whose first step is reported.
MARKS = (1e-4, 1e-2)
#: How far a device's losses may be from the CPU's, relatively, within the first EARLY steps and in
#: all. The tests' stand-in that rounds as a GPU may stayed below 4e-7 and 5e-4 (4e-16 and 9e-16 in
#: float64), with several seeds: a unit whose sum is next to 0 may switch at another step, and
#: then float32 jumps to some 1e-4.
EARLY = 20
LIMITS = {"float32": (1e-5, 1e-2), "float64": (1e-13, 1e-9)}


class Words(nn.Module):
    """A table of words, a row of ids in: words repeat, so rows of its gradient add up."""

    def __init__(self) -> None:
        self.table = nn.Embedding(WORDS, 16)
        self.tail = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 64), nn.Tanh(), last(64))

    def forward(self, ids: Any) -> Any:
        """Look the words up and classify."""
        return self.tail(self.table(ids))


class Pooled(nn.Module):
    """Hidden units added into groups by `scatter_add`, whose index repeats."""

    def __init__(self) -> None:
        self.first, self.last = nn.Linear(FEATURES, 64), last(16)
        self.register_buffer("groups", mg.tensor(np.arange(64) * 7 % 16))

    def forward(self, x: Any) -> Any:
        """Add hidden units into groups, and classify."""
        h = mg.relu(self.first(x))
        return self.last(mg.scatter_add(h, (slice(None), self.groups), (h.shape[0], 16)))


def last(width: int) -> nn.Module:
    """Give the layer of the scores."""
    return nn.Linear(width, CLASSES)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": lambda: nn.Sequential(
        nn.Linear(FEATURES, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid(), last(64)
    ),
    "relu": lambda: nn.Sequential(
        nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), last(64)
    ),
    "maxout and dropout": lambda: nn.Sequential(
        nn.Maxout(FEATURES, 64, 3), nn.Dropout(0.3), nn.Maxout(64, 64, 2), nn.Dropout(0.3), last(64)
    ),
    # No bias before it: its gradient is 0 but for rounding, of which Adam makes whole steps.
    "batch norm": lambda: nn.Sequential(
        nn.Linear(FEATURES, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), last(64)
    ),
    "embedding": Words,
    "scatter": Pooled,
}
#: Models whose gradients or values are added by atomic operations on a GPU, in an order of chance.
ATOMIC = ("embedding", "scatter")


@dataclass(frozen=True)
class Run:
    """Losses by step, and parameters and buffers after the last."""

    losses: list[float]
    state: dict[str, Any]

    def fingerprint(self) -> str:
        """Give a hash of every bit."""
        digest = hashlib.sha256(np.asarray(self.losses).tobytes())
        for name in sorted(self.state):
            digest.update(name.encode() + np.ascontiguousarray(self.state[name]).tobytes())
        return digest.hexdigest()[:16]


def rows(words: bool) -> tuple[Any, Any]:
    """Give the examples, on the host: numbers or ids of words, and classes that can be learned."""
    rng = np.random.default_rng(8)
    ids = rng.integers(0, WORDS, (ROWS, 8))
    x = rng.normal(size=(ROWS, FEATURES))
    if words:
        scores = rng.normal(size=(WORDS, CLASSES))[ids].sum(1)
    else:
        scores = x @ rng.normal(size=(FEATURES, CLASSES))
    y = (scores + 2.0 * rng.normal(size=scores.shape)).argmax(1)
    return (ids if words else x), y


def train(name: str, dtype: str, steps: int, backend: str) -> Run:
    """Train a model on a backend; nothing but the batches goes there, and nothing is read.

    Raises:
        TransferError: If a step reads from the device.
    """
    x, y = rows(name == "embedding")
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    with mg.backend.use(backend):
        mg.manual_seed(3)
        model = MODELS[name]().to(dtype)
        loader = mg.data.DataLoader(
            mg.data.TensorDataset(x, y), BATCH, shuffle=True, generator=mg.random.Generator(1)
        )
        optimizer = mg.optim.Adam(model.parameters(), lr=2e-3)
        kept: list[Any] = []
        with mg.backend.forbid_transfers(uploads=True):
            while len(kept) < steps:
                for batch, target in loader:
                    optimizer.zero_grad()
                    loss = mg.cross_entropy(model(batch), target)
                    loss.backward()
                    optimizer.step()
                    kept.append(loss.detach())
                    if len(kept) == steps:
                        break
    losses = [float(loss.item()) for loss in kept]
    return Run(losses, {k: t.to("numpy").numpy() for k, t in model.state_dict().items()})


# ---------------------------------------------------------------------------------- agreement


def differences(mine: list[float], theirs: list[float]) -> Any:
    """Give the relative difference of two curves at each step; infinity where one has no number."""
    a, b = np.asarray(mine), np.asarray(theirs)
    with np.errstate(all="ignore"):
        relative = np.abs(a - b) / np.maximum(np.abs(b), np.finfo(np.float32).tiny)
    return np.where(np.isfinite(relative), relative, np.inf)


def first_above(values: Any, mark: float) -> int | None:
    """Give the first step (from 1) whose value is above a mark, or None."""
    above = np.flatnonzero(values > mark)
    return int(above[0]) + 1 if above.size else None


def compare(cpu: Run, device: Run, dtype: str) -> dict[str, Any]:
    """Compare a device's training with the CPU's: numbers for a report, and whether it passes."""
    apart = differences(device.losses, cpu.losses)
    early, late = LIMITS[dtype]
    weights = [
        float(np.abs(device.state[k] - v).max() / max(np.abs(v).max(), 1e-30))
        for k, v in cpu.state.items() if v.dtype.kind == "f"
    ]  # fmt: skip
    return {
        "largest": float(apart.max()),
        "largest early": float(apart[:EARLY].max()),
        "first above": {f"{mark:g}": first_above(apart, mark) for mark in MARKS},
        "weights": max(weights),
        "learned": bool(cpu.losses[-1] < cpu.losses[0]),
        "passed": bool(apart[:EARLY].max() <= early and apart.max() <= late),
        "cpu": cpu.losses,
        "device": device.losses,
    }


def agreement(
    steps: int, backend: str, note: Callable[[str, str, dict[str, Any]], None]
) -> list[str]:
    """Train every model in both precisions on the CPU and a device; gives what disagrees.

    Args:
        steps: How many.
        backend: The device's backend.
        note: Is told of each model and dtype as soon as it is compared.
    """
    wrong = []
    for name in MODELS:
        double = train(name, "float64", steps, "numpy")
        for dtype in LIMITS:
            cpu = double if dtype == "float64" else train(name, dtype, steps, "numpy")
            result = compare(cpu, train(name, dtype, steps, backend), dtype)
            result["of rounding"] = float(differences(cpu.losses, double.losses).max())
            note(name, dtype, result)
            if not result["passed"]:
                early, late = LIMITS[dtype]
                wrong.append(
                    f"{name}, {dtype}: losses differ by {result['largest early']:.1e} in the first "
                    f"{EARLY} steps ({early:g} is allowed), by {result['largest']:.1e} in all "
                    f"({late:g})"
                )
    return wrong


def picture(
    results: dict[str, dict[str, dict[str, Any]]], path: str, device: str = "the device"
) -> None:
    """Draw the relative differences up to each step: a panel for each dtype, a line for each model.

    Raises:
        ImportError: Without Matplotlib.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for i, dtype in enumerate(LIMITS):
        axes = figure.add_subplot(1, len(LIMITS), i + 1)
        for name, found in results.items():
            if dtype in found:
                apart = differences(found[dtype]["device"], found[dtype]["cpu"])
                apart = np.maximum.accumulate(np.clip(apart, 1e-17, 1e3))
                axes.plot(np.arange(1, len(apart) + 1), apart, label=name)
        for limit, style in zip(LIMITS[dtype], (":", "--"), strict=True):
            axes.axhline(limit, color="grey", linestyle=style, linewidth=1)
        axes.set(yscale="log", xlabel="step", title=dtype)
    figure.axes[0].set_ylabel("largest relative difference so far")
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside right", fontsize="small")
    figure.suptitle(f"Losses on {device} and on the CPU; dotted and dashed: what is allowed")
    figure.savefig(path, dpi=120)


# ---------------------------------------------------------------------------------- determinism

Array = Any
OPERATIONS: dict[str, tuple[bool, Callable[[Array, Array], Any]]] = {
    "matmul": (False, lambda x, ids: x.T @ x),
    "sum over rows": (False, lambda x, ids: x.sum(0)),
    "sum of all": (False, lambda x, ids: x.sum()),
    "var": (False, lambda x, ids: x.var(0)),
    "cumsum": (False, lambda x, ids: mg.cumsum(x, 0)),
    "einsum": (False, lambda x, ids: mg.einsum("ij,ik->jk", x, x)),
    "log_softmax": (False, lambda x, ids: mg.log_softmax(x, axis=1)),
    "gradient of max": (False, lambda x, ids: mg.grad(lambda t: (mg.max(t, 0) ** 2).sum())(x)),
    "gradient of maxout": (False, lambda x, ids: mg.grad(
        lambda t: (mg.maxout(t, 4) ** 2).sum())(x)),
    "scatter_add": (True, lambda x, ids: mg.scatter_add(x, ids, (16, x.shape[1]))),
    "gradient of x[ids]": (True, lambda x, ids: mg.grad(
        lambda t: (mg.sin(x) * t[ids]).sum())(x[:16])),
    "gradient of take": (True, lambda x, ids: mg.grad(
        lambda t: (mg.sin(x) * mg.take(t, ids, axis=0)).sum())(x[:16])),
}  # fmt: skip


def unsteady_operations(backend: str, rows: int = 20_000, times: int = 5) -> list[str]:
    """Compute each of the operations several times on the same numbers; gives those that differ."""
    rng = np.random.default_rng(0)
    with mg.backend.use(backend):
        x = mg.tensor(rng.normal(size=(rows, 64)).astype("float32"))
        ids = mg.tensor(rng.integers(0, 16, rows))
    unsteady = []
    for name, (_, function) in OPERATIONS.items():
        got = [function(x, ids).detach().numpy().tobytes() for _ in range(times)]
        if len(set(got)) > 1:
            unsteady.append(name)
    return unsteady


def unlike(one: Run, other: Run) -> str:
    """Say where two runs of one training differ first, or `""` if they are equal in every bit."""
    first = next((i for i, (a, b) in enumerate(zip(one.losses, other.losses, strict=True), 1)
                  if a != b), None)  # fmt: skip
    names = [k for k, v in one.state.items() if v.tobytes() != other.state[k].tobytes()]
    if first is None and not names:
        return ""
    at = f"losses from step {first} on" if first else "no loss"
    return f"{at}, and {', '.join(names) or 'no parameter'}"
