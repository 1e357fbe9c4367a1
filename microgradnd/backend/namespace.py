"""The closed list of functions that forwards and gradient formulas may use: `xp`.

Every name means the same on each backend, whatever the library below calls it. `SAME` are functions
that NumPy and CuPy spell alike and agree on (checked from their signatures); `OWN` are those
that one of them lacks, or that behave differently on the two. A new name is one more line here, an
implementation, and a taped twin (the primitive of that name, or an entry of `CONSTANT`).
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from . import matrices, windows


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SAME = _words(
    """
    add subtract multiply divide floor_divide remainder power negative positive absolute sign sqrt
    square reciprocal exp exp2 expm1 log log1p log2 log10 sin cos tan arcsin arccos arctan sinh cosh
    tanh arcsinh arccosh arctanh maximum minimum logaddexp
    fmax fmin cbrt hypot arctan2 logaddexp2 floor ceil trunc rint round
    sort cumprod
    equal not_equal less less_equal greater greater_equal
    logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_xor invert
    isnan isinf isfinite
    where clip sum prod max min mean any all argmax argmin cumsum
    reshape transpose swapaxes moveaxis expand_dims squeeze broadcast_to concatenate stack flip
    zeros ones full zeros_like ones_like full_like arange eye
    matmul
    """
)
OWN = _words(
    """
    argsort astype copy erf erfc sigmoid log_softmax einsum getitem scatter_add setitem take
    take_along_axis
    collect route one_hot pick max_and_winner count_classes check_indices
    inv solve det cofactors cholesky svd_factors qr_factors eigh_factors slogdet_parts refuse
    conv conv_input conv_weight unfold fold
    """
)
NAMES = SAME | OWN
#: Names for forwards only: formulas need no taped twin of them.
FORWARD_ONLY = frozenset(
    {"check_indices", "count_classes", "max_and_winner", "pick", "cholesky", "qr_factors",
     "eigh_factors", "slogdet_parts"}
)
#: Names whose results depend on no operand's values: no gradient goes through them.
CONSTANT = _words("zeros ones full zeros_like ones_like full_like arange eye one_hot refuse")

#: The largest finite number of each float dtype.
LARGEST = {"e": 65504.0, "f": 3.4028234663852886e38, "d": 1.7976931348623157e308}
ARRAY = "array"  # stands in an index key where an index array goes


def decode(key: tuple[Any, ...], indices: Any) -> tuple[Any, ...]:
    """Rebuild an index from its static key and its index arrays (see `ops.indexing.encode`)."""
    arrays = iter(indices)
    return tuple(
        slice(*item) if type(item) is tuple else next(arrays) if item == ARRAY else item
        for item in key
    )


def smallest(n: int) -> str:
    """Give the smallest unsigned integer dtype that counts to `n`."""
    return next(f"u{size}" for size in (1, 2, 4, 8) if n <= 256**size)


class Namespace(SimpleNamespace):
    """A backend's `xp`; it says so when asked for more than it has."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"xp has no {name!r}; formulas use only {', '.join(sorted(NAMES))}")


def build(module: Any, special: Any, **own: Any) -> Namespace:
    """Make the namespace of a NumPy-like `module`: its own functions, `special`'s, and `own`.

    Raises:
        AttributeError: If the module lacks a name of the list, or `own` offers one outside it.
    """
    functions = {name: getattr(module, name) for name in SAME - own.keys()}
    functions |= {"erf": special.erf, "erfc": special.erfc}

    def astype(x: Any, dtype: Any) -> Any:
        return x.astype(dtype, copy=False)

    def getitem(x: Any, indices: Any, key: Any) -> Any:
        index = decode(key, indices)
        # NumPy gives a number for a full set of integers; with `...` it gives a view, as CuPy does.
        return x[index] if indices or Ellipsis in index else x[(*index, ...)]

    def setitem(x: Any, v: Any, indices: Any, key: Any) -> Any:
        out = x.copy()
        out[decode(key, indices)] = v
        return out

    def scatter_add(v: Any, indices: Any, shape: Any, key: Any) -> Any:
        out = module.zeros(shape, dtype=v.dtype)
        index = decode(key, indices)
        if any(i.dtype.kind != "b" for i in indices):  # only integers can repeat
            module.add.at(out, index, v)
        else:
            out[index] = v
        return out

    def sigmoid(x: Any) -> Any:
        e = module.exp(-module.abs(x))
        return module.where(x >= 0, 1.0, e) / (1.0 + e)

    def log_softmax(x: Any, axis: Any) -> Any:
        m = module.max(x, axis=axis, keepdims=True)
        # Where m is infinite x - m is no number: the limits are 0 for the largest and -inf for the
        # others, and NaN if all are -inf.
        most = LARGEST.get(x.dtype.char, math.inf)
        z = module.minimum(x, most) - module.maximum(m, -most)
        z = module.where(x == m, module.where(m < -most, math.nan, 0.0), z).astype(z.dtype)
        return z - module.log(module.sum(module.exp(z), axis=axis, keepdims=True))

    def pick(x: Any, ids: Any, axis: int, ignored: int) -> Any:
        hit = one_hot(ids, x.shape[axis], axis, bool) & module.expand_dims(ids != ignored, axis)
        return module.where(hit, x, 0.0).sum(axis=axis, dtype=x.dtype)

    def one_hot(ids: Any, n: int, axis: int, dtype: Any) -> Any:
        row = tuple(n if i == axis else 1 for i in range(ids.ndim + 1))
        hit = module.expand_dims(ids, axis) == module.reshape(module.arange(n), row)
        return hit.astype(dtype)

    def max_and_winner(x: Any, axes: int = 1) -> Any:
        x = x if axes == 1 else x.reshape((*x.shape[:-axes], math.prod(x.shape[-axes:])))
        winner = module.argmax(x, axis=-1)
        return collect(x, winner), winner.astype(smallest(x.shape[-1]))

    def collect(x: Any, winner: Any) -> Any:
        places = module.expand_dims(winner.astype("int64"), -1)
        return module.squeeze(module.take_along_axis(x, places, -1), -1)

    def route(x: Any, winner: Any, pieces: int) -> Any:
        hit = module.expand_dims(winner, -1) == module.arange(pieces)
        return module.where(hit, module.expand_dims(x, -1), 0.0).astype(x.dtype, copy=False)

    functions |= {
        "argsort": lambda x, axis=-1: module.argsort(x, axis=axis, kind="stable"),
        "astype": astype,
        "sigmoid": sigmoid,
        "collect": collect,
        "route": route,
        "max_and_winner": max_and_winner,
        "log_softmax": log_softmax,
        "pick": pick,
        "one_hot": one_hot,
        "take": lambda x, indices, axis: module.take(x, indices, axis=axis),
        "copy": module.copy,
        "getitem": getitem,
        "setitem": setitem,
        "scatter_add": scatter_add,
        "einsum": lambda xs, subscripts: module.einsum(subscripts, *xs),
        "take_along_axis": lambda x, indices, axis: module.take_along_axis(x, indices, axis),
        **windows.build(module, None),
        **matrices.functions(module, own["refuse"]),
        **own,
    }
    if functions.keys() != NAMES:
        raise AttributeError(f"xp: missing or surplus names {sorted(functions.keys() ^ NAMES)}")
    return Namespace(**functions)
