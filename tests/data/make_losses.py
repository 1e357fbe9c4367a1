"""Write `losses.json`: what PyTorch's losses and their gradients are, in float64.

The file maps the name of a primitive to a list of entries:

    {"operands": [...], "attrs": {...}, "y": ..., "gradients": [...]}

Operands are nested lists (of integers: class numbers), or null; `gradients` are those of the sum
of the result, null for what has none. Numbers are written with all their digits.

Run `python tests/data/make_losses.py`; it needs PyTorch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

Array = Any
REDUCTIONS = ("mean", "sum", "none")
random = torch.Generator().manual_seed(2)


def normal(*shape: int, scale: float = 2.0) -> Array:
    """Give random numbers of few bits."""
    return torch.round(scale * 64 * torch.randn(shape, generator=random, dtype=torch.float64)) / 64


def shares(*shape: int) -> Array:
    """Give random numbers in (0, 1)."""
    return torch.round(254 * torch.rand(shape, generator=random, dtype=torch.float64) + 1) / 256


def classes(n: int, *shape: int) -> Array:
    """Give random class numbers."""
    return torch.randint(n, shape, generator=random)


def cross_entropy(x: Array, target: Array, weight: Array = None, **attrs: Any) -> Array:
    """Call PyTorch's, whose weight is no positional argument here."""
    return functional.cross_entropy(x, target, weight=weight, **attrs)


def nll(x: Array, target: Array, weight: Array = None, **attrs: Any) -> Array:
    """Call PyTorch's, whose weight is no positional argument here."""
    return functional.nll_loss(x, target, weight=weight, **attrs)


def bce(x: Array, target: Array, weight: Array = None, **attrs: Any) -> Array:
    """Call PyTorch's on logits, with the weight of the positive part."""
    return functional.binary_cross_entropy_with_logits(x, target, pos_weight=weight, **attrs)


def entry(
    f: Callable[..., Array], operands: tuple[Array, ...], attrs: dict[str, Any], n: int
) -> dict[str, Any]:
    """Compute one entry; the first `n` operands have gradients if they are floats."""
    given = [None if x is None else x.clone() for x in operands]
    wanted = [x for x in given[:n] if x is not None and x.is_floating_point()]
    for x in wanted:
        x.requires_grad_()
    y = f(*given, **attrs)
    y.sum().backward()
    return {
        "operands": [None if x is None else x.tolist() for x in operands],
        "attrs": attrs,
        "y": y.tolist(),
        "gradients": [
            x.grad.tolist() if x is not None and x.grad is not None else None for x in given[:n]
        ],
    }


def pairs(
    f: Callable[..., Array], targets: Any, inputs: Any = normal, **attrs: Any
) -> list[Any]:
    """Compute entries of a loss of two operands of one shape."""
    rows = []
    for shape, reduction in itertools.product(((), (3,), (2, 3)), REDUCTIONS):
        operands = (inputs(*shape), targets(*shape))
        rows.append(entry(f, operands, {"reduction": reduction, **attrs}, 2))
    return rows


def classified(f: Callable[..., Array], logits: Any) -> list[Any]:
    """Compute entries of a loss on class numbers."""
    rows = []
    for (shape, target), reduction in itertools.product(
        (((4,), ()), ((3, 4), (3,)), ((2, 3, 2), (2, 2))), REDUCTIONS
    ):
        n = shape[1] if len(shape) > 1 else shape[0]
        ids = classes(n, *target)
        some = ids.clone()
        some.view(-1)[0] = -100
        for weight in (None, shares(n)):
            rows.append(entry(f, (logits(*shape), ids, weight), {"reduction": reduction}, 1))
            if target:
                rows.append(entry(f, (logits(*shape), some, weight), {"reduction": reduction}, 1))
                attrs = {"reduction": reduction, "ignore_index": int(ids.view(-1)[-1])}
                rows.append(entry(f, (logits(*shape), ids, weight), attrs, 1))
    return rows


def smoothed() -> list[Any]:
    """Compute entries of cross-entropy on probabilities, and with smoothing."""
    rows = []
    for shape, reduction in itertools.product(((4,), (3, 4), (2, 3, 2)), REDUCTIONS):
        n = shape[1] if len(shape) > 1 else shape[0]
        ids = classes(n, *shape[:1], *shape[2:]) if len(shape) > 1 else classes(n)
        for weight, smoothing in itertools.product((None, shares(n)), (0.0, 0.125)):
            attrs = {"reduction": reduction, "label_smoothing": smoothing}
            x = normal(*shape)
            rows.append(entry(cross_entropy, (x, shares(*shape), weight), attrs, 2))
            rows.append(entry(cross_entropy, (x, ids, weight), attrs, 1))
            if len(shape) > 1:
                some = ids.clone()
                some.view(-1)[0] = -100
                rows.append(entry(cross_entropy, (x, some, weight), attrs, 1))
    return rows


def divergences(log_target: bool) -> list[Any]:
    """Compute entries of the divergence of distributions, on logarithms."""
    rows = []
    for shape, reduction in itertools.product(((3,), (2, 3)), (*REDUCTIONS, "batchmean")):
        x, target = -shares(*shape), -shares(*shape) if log_target else shares(*shape)
        attrs = {"reduction": reduction, "log_target": log_target}
        rows.append(entry(functional.kl_div, (x, target), attrs, 2))
    return rows


def without(i: int, row: dict[str, Any]) -> dict[str, Any]:
    """Take one gradient out of an entry."""
    row["gradients"][i] = None
    return row


def extreme() -> list[Any]:
    """Compute entries where a naive formula overflows."""
    x = torch.tensor([[1000.0, 0.0, -1000.0], [1e4, 1e4, -1e300]], dtype=torch.float64)
    return [entry(cross_entropy, (x, torch.tensor([0, 1]), None), {"reduction": r}, 1)
            for r in REDUCTIONS]  # fmt: skip


def main() -> None:
    """Write the file next to this one."""
    confident = torch.tensor([1000.0, -1000.0, 40.0, -40.0], dtype=torch.float64)
    right = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    tables = {
        "mse": pairs(functional.mse_loss, normal),
        "l1": pairs(functional.l1_loss, normal),
        "huber": [
            row
            for delta in (1.0, 0.3, 2.5)
            for row in pairs(functional.huber_loss, normal, delta=delta)
        ],
        "binary_cross_entropy_with_logits": [
            *pairs(bce, shares),
            *(
                entry(bce, (normal(2, 3), shares(2, 3), shares(*s)), {"reduction": r}, 2)
                for s in ((), (3,))
                for r in REDUCTIONS
            ),
            entry(bce, (confident, right, None), {"reduction": "none"}, 2),
        ],
        "cross_entropy": [*classified(cross_entropy, normal), *smoothed(), *extreme()],
        "nll": classified(nll, lambda *shape: -shares(*shape)),
        "smooth_l1": [
            row
            for beta in (1.0, 0.25, 0.0)
            for row in pairs(functional.smooth_l1_loss, normal, beta=beta)
        ],
        "kl_div": [
            *(row for log in (False, True) for row in divergences(log)),
            without(1, entry(functional.kl_div, (normal(4), right), {"reduction": "none"}, 2)),
        ],
        "binary_cross_entropy": [
            *pairs(functional.binary_cross_entropy, shares, shares),
            # PyTorch's smallest divisor is a float32, and its slope by the target not held.
            *(without(0, without(1, entry(functional.binary_cross_entropy, (right, target), {}, 2)))
              for target in (shares(4), right, 1.0 - right)),
        ],
    }
    text = ",\n".join(
        f"{json.dumps(name)}:[\n"
        + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        + "\n]"
        for name, rows in tables.items()
    )
    Path(__file__).with_name("losses.json").write_text("{\n" + text + "\n}\n", encoding="ascii")


if __name__ == "__main__":
    main()
