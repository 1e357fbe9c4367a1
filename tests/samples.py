"""Operands for every primitive of the registry, and its gradients to second order, on any backend.

The operands come from the entries themselves (`cases`, `domain`, `dtypes`, `variants`), so a new
primitive is covered as soon as it is declared. They are drawn from a seed: the same everywhere.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import microgradnd as mg
import numpy as np
from microgradnd.registry import COMPOSITES, REGISTRY
from microgradnd.tape import Tensor

#: What is elementwise is tried on pairs that broadcast, on scalars and on nothing.
SHAPES = (((2, 3), (3,), (2, 1)), ((), (2,), ()), ((0, 2), (2,), (1, 2)))
#: Attributes without a default, where the entry has no `defaults_for_tests`.
ATTRIBUTES = {"astype": {"dtype": np.dtype("float64")}}
#: Operands for what is composed of primitives.
COMPOSED = {
    "mfm": ([(2, 4)], {}),
    "softmin": ([(2, 3)], {"axis": 0}),
    "crelu": ([(2, 3)], {}),
    "glu": ([(2, 4)], {}),
    "outer": ([(3,), (2,)], {}),
    "dot": ([(2, 3), (4, 3, 2)], {}),
    "tensordot": ([(2, 3, 4), (4, 3, 2)], {"axes": ((1, 2), (1, 0))}),
}


class Sample(NamedTuple):
    """One call of a primitive: host arrays (or None) as operands, and attributes."""

    name: str
    operands: list[Any]
    attributes: dict[str, Any]

    @property
    def masked(self) -> bool:
        """Whether a boolean array is an index here: values then decide the shapes."""
        op = REGISTRY.get(self.name)
        rest = self.operands[len(op.operands) :] if op and op.rest == "indices" else []
        return any(array.dtype.kind == "b" for array in rest)

    def __str__(self) -> str:
        shapes = ",".join("-" if a is None else f"{a.dtype}{a.shape}" for a in self.operands)
        return f"{self.name}({shapes} {self.attributes})".replace(" {}", "")


def draw(rng: Any, domain: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Random numbers of a domain: floats inside it, or integers or booleans."""
    dtype = np.dtype(dtype)
    if domain == "mask" or dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -3
        return rng.integers(1 if isinstance(domain, tuple) and domain[0] > 0 else low, 4, shape).astype(
            dtype
        )
    return rng.uniform(*(domain or (-3, 3)), shape).astype(dtype)


def samples(name: str, dtype: Any = "float32") -> list[Sample]:
    """Give calls of a primitive or composite on operands of a dtype (floats; indices stay)."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name in COMPOSITES:
        shapes, attributes = COMPOSED[name]
        return [Sample(name, [draw(rng, None, s, dtype) for s in shapes], attributes)]
    op = REGISTRY[name]
    domains = op.data.get("domain")

    def domain(i: int) -> Any:
        operand = op.operands[i] if i < len(op.operands) else op.rest
        return domains.get(operand) if isinstance(domains, dict) else domains

    def operand(i: int, what: Any) -> Any:
        if isinstance(what, tuple):
            return draw(rng, domain(i), what, dtype)
        return np.asarray(what)

    if not op.elementwise:
        return [
            Sample(name, [operand(i, what) for i, what in enumerate(operands)], attributes)
            for operands, attributes in op.data["cases"]
        ]
    kinds = op.data.get("dtypes", "f")
    if "f" not in kinds:
        dtype = "int64"
    attributes = ATTRIBUTES.get(name, op.data.get("defaults_for_tests", {}))
    calls = [
        Sample(name, [draw(rng, domain(i), s, dtype) for i, s in enumerate(row)], attributes | more)
        for row in (shapes[: len(op.operands)] for shapes in SHAPES)
        for more in op.data.get("variants", ({},))
    ]
    full = calls[0].operands
    for optional in op.signature.optional:  # each operand that may be left out, left out
        row = [None if o == optional else x for o, x in zip(op.operands, full, strict=True)]
        calls.append(Sample(name, row, attributes))
    if "f" in kinds and len(op.operands) == 2 and not op.signature.optional:
        calls.append(Sample(name, [full[0], 2.0], attributes))  # Python's numbers are weak
        calls.append(Sample(name, [2.0, full[0]], attributes) if domain(0) is None else calls[0])
    return calls


def has_gradient(op: Any, operand: Any) -> bool:
    """Whether an operand is a float array."""
    return hasattr(operand, "dtype") and operand.dtype.kind == "f"


def wanted(sample: Sample) -> list[bool]:
    """Which operands a gradient is asked of: every float array."""
    return [hasattr(x, "dtype") and x.dtype.kind == "f" for x in sample.operands]


def cotangents(sample: Sample, like: list[Any]) -> list[Any]:
    """Random cotangents of the results, and of the operands for the second order."""
    rng = np.random.default_rng(7)
    return [draw(rng, (0.5, 2.0), x.shape, x.dtype) if x is not None else None for x in like]


def call(sample: Sample, operands: list[Any]) -> list[Tensor]:
    """Run a sample on these operands; gives the list of its results."""
    if sample.name in COMPOSITES:
        out = COMPOSITES[sample.name](*operands, **sample.attributes)
    else:
        op = REGISTRY[sample.name]
        out = op.apply(operands, op.signature.complete(sample.attributes))
    return out if isinstance(out, list) else [out]


class Results(NamedTuple):
    """What a sample gave: lists of Tensors, None for an operand without a gradient."""

    outs: list[Any]
    first: list[Any]
    taped: list[Any]
    second: list[Any]


def differentiate(sample: Sample, place: Any, order: int = 2) -> Results:
    """Run a sample, its formulas on raw arrays, on Tensors, and those of the formulas.

    Args:
        sample: The call.
        place: Gives a host array as a raw array of the backend wanted.
        order: 0 for the values alone, 1 for the gradients too, 2 for gradients of gradients too.
    """
    leaves = [
        mg.asarray(place(x)).requires_grad_(flag) if isinstance(x, np.ndarray) else x
        for x, flag in zip(sample.operands, wanted(sample), strict=True)
    ]
    outs = call(sample, leaves)
    results = Results(outs, *([None] * len(leaves) for _ in range(3)))
    if order == 0 or not any(o.requires_grad for o in outs):
        return results
    seeds = [mg.asarray(place(c)) for c in cotangents(sample, outs)]
    floats = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]

    def gather(into: list[Any]) -> None:
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                into[i] = leaf.grad
                if leaf.requires_grad:
                    leaf.grad = None

    def total(tensors: list[Any], weights: list[Any]) -> Tensor:
        terms = [(t * w).sum() for t, w in zip(tensors, weights, strict=True) if t.requires_grad]
        return sum(terms[1:], terms[0])

    loss = total(outs, seeds)
    loss.backward(retain_graph=True)
    gather(results.first)
    if order == 1:
        return results
    loss.backward(create_graph=True)
    gather(results.taped)
    grads = [g for g in results.taped if g is not None and g.requires_grad]
    if grads:
        weights = [mg.asarray(place(c)) for c in cotangents(sample, grads)]
        total(grads, weights).backward()
        gather(results.second)
    assert all(leaf.grad is None for leaf in floats)
    return results


def everything() -> list[str]:
    """The names of all primitives and composites that microgradnd itself declares."""
    own = [n for n, op in REGISTRY.items() if op.__module__.startswith("microgradnd.ops.")]
    return own + list(COMPOSITES)
