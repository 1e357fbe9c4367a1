"""Calls of every primitive and composite, and their gradients to second order, on any backend.

The operands are those of `microgradnd.testing`, made from the entries of the registry: a new
primitive is covered as soon as it is declared. They come from a seed, the same on every backend.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

import microgradnd as mg
import microgradnd.backend as backends
from microgradnd.registry import COMPOSITES, REGISTRY
from microgradnd.tape import Tensor
from microgradnd.testing import cases, make

#: Every primitive and composite that microgradnd itself declares.
OPS = {
    name: op for name, op in (REGISTRY | COMPOSITES).items()
    if op.__module__.startswith("microgradnd.ops.")
}  # fmt: skip
NAMES = list(OPS)


class Sample(NamedTuple):
    """One call: host arrays, Python's numbers or None as operands, and attributes."""

    name: str
    operands: list[Any]
    attributes: dict[str, Any]

    @property
    def masked(self) -> bool:
        """Whether a boolean array is an index here: values then decide a shape."""
        op = OPS[self.name]
        indices = self.operands[len(op.operands) :] if op.rest == "indices" else []
        return any(array.dtype.kind == "b" for array in indices)

    def __str__(self) -> str:
        operands = (
            f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else repr(x)
            for x in self.operands
        )  # fmt: skip
        options = (f"{k}={v!r}" for k, v in self.attributes.items())
        return f"{self.name}({', '.join([*operands, *options])})"


def samples(name: str, dtype: Any = "float32") -> list[Sample]:
    """Give calls of a primitive or composite; floats among the operands get this dtype."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))

    def cast(x: Any) -> Any:
        return x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x

    op = OPS[name]
    if dtype == "float16" and dtype not in op.data.get("precisions", (dtype,)):
        return []
    calls = []
    for shapes, attributes in cases(op):
        operands = list(map(cast, make(op, shapes, attributes, rng, 2).operands))
        if op.rest is None:
            operands += [None] * (len(op.operands) - len(operands))
        calls.append(Sample(name, operands, attributes))
    if op.elementwise and len(op.operands) == 2:  # Python's numbers are weak
        x, y = calls[-1].operands
        number = 2.0 if x.dtype.kind == "f" else 2
        calls += [Sample(name, [x, number], {}), Sample(name, [number, y], {})]
    return calls


def whole_samples(name: str) -> list[Sample]:
    """Give calls on integers and booleans, where the entry says that it takes them."""
    kinds = OPS[name].data.get("dtypes", "f")
    dtypes = [d for k, d in {"i": "int32", "u": "uint8", "b": "bool"}.items() if k in kinds]
    found = []
    for dtype in dtypes:
        for sample in samples(name, "float64"):
            operands = [
                np.asarray(np.abs(np.rint(x)), dtype) if isinstance(x, np.ndarray) else x
                for x in sample.operands
            ]
            if not any(type(x) is float for x in operands):  # a float widens integers
                found.append(sample._replace(operands=operands))
    return found


def place_all(sample: Sample, place: Any, leaves: bool = True) -> list[Any]:
    """Give the operands as Tensors over `place(host array)`; floats require a gradient."""
    return [
        mg.asarray(place(x)).requires_grad_(leaves and x.dtype.kind == "f")
        if isinstance(x, np.ndarray)
        else x
        for x in sample.operands
    ]


def call(sample: Sample, operands: list[Any]) -> list[Tensor]:
    """Run a sample on these operands, past the front; gives the list of its results.

    Where libraries may choose signs, they are divided out (`smooth`).
    """
    op = OPS[sample.name]

    def run(*operands: Any) -> Any:
        if sample.name in COMPOSITES:
            return op.bare(operands, **sample.attributes)
        return op.apply(operands, op.signature.complete(sample.attributes))

    out = op.data.get("smooth", lambda run: run)(run)(*operands)
    return list(out) if isinstance(out, (list, tuple)) else [out]


def weights(like: list[Any]) -> list[np.ndarray]:
    """Random cotangents in the shape and dtype of Tensors, on the host."""
    rng = np.random.default_rng(7)
    return [np.asarray(rng.uniform(0.5, 2.0, x.shape)).astype(x.dtype) for x in like]


class Results(NamedTuple):
    """What a sample gave: Tensors, or None for an operand without a gradient.

    `first` are gradients by the formulas on raw arrays, `taped` the same on Tensors, `second` those
    of a weighted sum of `taped`.
    """

    outs: list[Any]
    first: list[Any]
    taped: list[Any]
    second: list[Any]

    def each(self) -> list[Any]:
        """All of them in one list."""
        return [*self.outs, *self.first, *self.taped, *self.second]


def total(tensors: list[Any], by: list[Any]) -> Tensor:
    """The weighted sum of all elements of those that need a gradient."""
    terms = [(t * w).sum() for t, w in zip(tensors, by, strict=True) if t.requires_grad]
    return sum(terms[1:], terms[0])


def gradients(operands: list[Any]) -> list[Any]:
    """Take the gradients away from the leaves."""
    found = [x.grad if isinstance(x, Tensor) else None for x in operands]
    for x, g in zip(operands, found, strict=True):
        if g is not None:
            x.grad = None
    return found


def differentiate(sample: Sample, operands: list[Any], place: Any, order: int = 2) -> Results:
    """Run a sample and its formulas, and (order 2) the formulas of the formulas."""
    outs = call(sample, operands)
    nothing = [None] * len(operands)
    if order == 0 or not any(o.requires_grad for o in outs):
        return Results(outs, nothing, nothing, nothing)
    loss = total(outs, [mg.asarray(place(w)) for w in weights(outs)])
    loss.backward(retain_graph=True)
    first = gradients(operands)
    if order == 1:
        return Results(outs, first, nothing, nothing)
    loss.backward(create_graph=True)
    taped = gradients(operands)
    again = [g for g in taped if g is not None and g.requires_grad]
    second = nothing
    if again:
        total(again, [mg.asarray(place(w)) for w in weights(again)]).backward()
        second = gradients(operands)
    return Results(outs, first, taped, second)


@contextmanager
def registered(backend: backends.Backend) -> Any:
    """Make a backend known to the engine inside a `with` block, and forget it afterwards."""
    known = dict(backends._loaded), dict(backends.BY_TYPE)
    backends.register(backend)
    try:
        yield backend
    finally:
        for now, before in zip((backends._loaded, backends.BY_TYPE), known, strict=True):
            now.clear()
            now.update(before)
