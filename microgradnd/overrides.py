"""NumPy's functions on Tensors: its two protocols, and its own signatures read as ours.

What a function of NumPy calls `a`, `ary` or `indices_or_sections` is known here by its place; what
has our name goes by name; the few options that ours lack (`dtype`, `initial`, ...) are carried out
around the call. Only where a result is to be written, and how, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .registry import COMPOSITES, OVERRIDES, REGISTRY
from .tape import Tensor

#: What does the work of a ufunc's own methods.
WHOLE = {
    ("add", "reduce"): "sum",
    ("add", "accumulate"): "cumsum",
    ("add", "at"): "scatter_add",
    ("multiply", "reduce"): "prod",
    ("multiply", "accumulate"): "cumprod",
    ("multiply", "outer"): "outer",
    ("maximum", "reduce"): "max",
    ("minimum", "reduce"): "min",
    ("logaddexp", "reduce"): "logsumexp",
    ("logical_and", "reduce"): "all",
    ("logical_or", "reduce"): "any",
}
#: What comes nearest to some of NumPy's functions whose names do not tell.
NEAREST = {
    "argwhere": "nonzero", "array_equal": "allclose", "average": "mean", "block": "concatenate",
    "cond": "linalg.svdvals", "convolve": "conv1d", "correlate": "conv1d",
    "cumulative_prod": "cumprod", "cumulative_sum": "cumsum", "divmod": "remainder",
    "eig": "linalg.eigh", "eigvals": "linalg.eigvalsh", "fmod": "remainder", "gradient": "diff",
    "isclose": "allclose", "lstsq": "linalg.pinv", "matrix_norm": "norm",
    "matrix_rank": "linalg.svdvals", "matvec": "matmul", "multi_dot": "matmul", "partition": "sort",
    "percentile": "sort", "quantile": "sort", "select": "where", "tensorinv": "linalg.inv",
    "tensorsolve": "linalg.solve", "trapezoid": "sum", "vector_norm": "norm",
}  # fmt: skip
#: Options that say where a result is written, or how: not for Tensors; and what there is instead.
REFUSED = {
    "casting": "", "order": ", whose order is C's always", "out": "", "subok": "",
    "where": ", of what mg.where(mask, x, ...) or x[mask] gives",
}  # fmt: skip
#: The parameters of builtins, which do not tell them in every NumPy.
BUILTIN = {
    "concatenate": "arrays, /, axis=0, out=None, *, dtype=None, casting='same_kind'",
    "dot": "a, b, out=None",
    "inner": "a, b, /",
    "vdot": "a, b, /",
    "where": "condition, x=None, y=None, /",
}


def _called(op: Any) -> str:
    space = getattr(op, "data", {}).get("space")
    return f"mg.{space}.{op.__name__}" if space else f"mg.{op.__name__}"


def _named(function: Any) -> str:
    space = getattr(function, "__module__", None) or "numpy"  # ufuncs have none
    return f"{space.replace('numpy', 'np', 1)}.{getattr(function, '__name__', function)}"


def _nearest(function: Any) -> str:
    """Say what comes near, by the table or because its name is part of NumPy's."""
    name = getattr(function, "__name__", "").removeprefix("nan")
    plain = [n for n, op in (REGISTRY | COMPOSITES).items() if not op.data.get("space")]
    inside = [n for n in plain if n == name or (len(n) > 3 and n in name)]
    near = NEAREST.get(name) or max(inside, key=len, default=None)
    return f"; the nearest is mg.{near}" if near else "; docs/operations.md lists what does"


def _array_ufunc(self: Tensor, ufunc: Any, how: str, *args: Any, **kwargs: Any) -> Any:
    op: Any = OVERRIDES.get(ufunc)
    if op is None:
        raise TypeError(f"{_named(ufunc)} does not take Tensors{_nearest(ufunc)}")
    dtype = kwargs.pop("dtype", None) if how == "__call__" else None
    if how != "__call__" or kwargs:
        what = f"np.{ufunc.__name__}" + (f".{how}" if how != "__call__" else "")
        options = f" with {', '.join(kwargs)}=" if kwargs else ""
        if how == "__call__" and list(kwargs) == ["out"]:
            raise TypeError(
                f"np.{ufunc.__name__} with out= (`a += t` on an array) does not take Tensors; use "
                f"mg.{op.name} for a new tensor (`a = a + t`)"
            )
        ours = WHOLE.get((op.name, how), op.name)
        instead = "".join(REFUSED.get(key, "") for key in kwargs)
        raise TypeError(f"{what}{options} does not take Tensors; use mg.{ours}{instead}")
    return op(*([_cast(x, dtype) for x in args] if dtype else args))


# ------------------------------------------------------------------------------ NumPy's signatures


@cache
def parameters(function: Any) -> Any:
    """Give the signature of NumPy's function."""
    from inspect import signature

    try:
        return signature(function)
    except ValueError:
        return signature(eval(f"lambda {BUILTIN[function.__name__]}: None"))


@cache
def plan(function: Any) -> dict[str, int | str | None]:
    """Say of each of NumPy's parameters by which place or name it goes to ours; None if to none."""
    from inspect import signature

    op: Any = OVERRIDES[function]
    ours = list(signature(op).parameters.values())
    named = {p.name for p in ours if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    theirs = parameters(function).parameters
    alone = getattr(op, "front", None) or getattr(op, "rest", None)
    leading = getattr(op, "leading", None) or (1 if alone else len(getattr(op, "operands", "x")))
    found: dict[str, int | str | None] = {}
    for place, (name, p) in enumerate(theirs.items()):
        by_place = place < len(ours) and ours[place].kind is not p.KEYWORD_ONLY
        if by_place and place < leading:
            found[name] = place
        elif name in named:
            found[name] = name
        else:
            named_only = p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD)
            lacking = named_only or name in OPTIONS or not by_place
            found[name] = None if lacking or ours[place].name in theirs else place
    return found


def _refused(function: Any, key: str) -> TypeError:
    ours = _called(OVERRIDES[function]) + REFUSED.get(key, "")
    return TypeError(f"{_named(function)} with {key}= does not take Tensors; use {ours}")


def _array_function(self: Tensor, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    op: Any = OVERRIDES.get(function)
    if op is None:
        raise TypeError(f"{_named(function)} does not take Tensors{_nearest(function)}")
    if kwargs.keys() <= {"axis", "keepdims", "ddof"} and len(args) == 1:
        return op(*args, **kwargs)  # the same for both, and most calls
    signature = parameters(function)
    places: list[Any] = []
    ours: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in signature.bind(*args, **kwargs).arguments.items():
        p, to = signature.parameters[key], plan(function)[key]
        if key in REFUSED:
            if not _is_default(p, value):
                raise _refused(function, key)
        elif p.kind is p.VAR_POSITIONAL:
            places += value
        elif p.kind is p.VAR_KEYWORD:
            ours |= value
        elif isinstance(to, int):
            places.append(value)
        elif to is not None:
            ours[to] = value
        elif not _is_default(p, value):
            if key not in OPTIONS:
                raise _refused(function, key)
            options[key] = value
    call: Callable[..., Any] = op
    for key, value in options.items():
        call = OPTIONS[key](call, function, value)
    return call(*places, **ours)


def _is_default(p: Any, value: Any) -> bool:
    plain = isinstance(value, (bool, int, str, type(None)))
    return value is None or value is p.default or bool(plain and value == p.default)


# ------------------------------------------------------------------------ options that ours lack


def _cast(x: Any, dtype: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [_cast(item, dtype) for item in x]
    return REGISTRY["astype"](x, dtype) if hasattr(x, "dtype") else x


def _dtype(call: Any, function: Any, dtype: Any) -> Any:
    """Compute in another dtype."""
    return lambda *args, **options: call(*(_cast(x, dtype) for x in args), **options)


JOINED = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}


def _initial(call: Any, function: Any, initial: Any) -> Any:
    """Begin a reduction with a value; of nothing it is the result."""
    name = JOINED[OVERRIDES[function].name]  # type: ignore[attr-defined]

    def begun(x: Tensor, **options: Any) -> Any:
        if x.size:
            return REGISTRY[name](call(x, **options), initial)
        host = function(np.empty(x.shape, x.dtype), initial=initial, **options)
        return REGISTRY["identity"](x.backend.asarray(host))

    return begun


def _mean(call: Any, function: Any, mean: Any) -> Any:
    """Take the deviations, of variance or standard deviation, from a mean that is given."""
    root = REGISTRY["sqrt"] if function is np.std else REGISTRY["identity"]

    def around(x: Tensor, *, ddof: Any = 0, axis: Any = None, keepdims: bool = False) -> Any:
        squares = REGISTRY["square"](x - mean)
        total = REGISTRY["sum"](squares, axis=axis, keepdims=keepdims)
        return root(total / (squares.size / max(total.size, 1) - ddof))

    return around


def _mode(call: Any, function: Any, mode: str) -> Any:
    """Bring indices that are out of bounds inside."""
    if mode not in ("wrap", "clip"):
        raise ValueError(f"np.take: mode must be 'raise', 'wrap' or 'clip', got {mode!r}")

    def inside(x: Tensor, *args: Any, indices: Any = None, axis: Any = None) -> Any:
        n = x.size if axis is None else x.shape[axis]
        indices = args[0] if args else indices
        if mode == "wrap":
            return call(x, REGISTRY["remainder"](indices, n), axis=axis)
        return call(x, REGISTRY["clip"](indices, 0, n - 1), axis=axis)

    return inside


def _copy(call: Any, function: Any, copy: bool) -> Any:
    """Copy always, or never."""
    if function is np.nan_to_num:
        raise TypeError("np.nan_to_num with copy=False does not take Tensors; use mg.nan_to_num")

    def checked(x: Tensor, *args: Any, **options: Any) -> Any:
        out = call(x, *args, **options)
        if copy:
            return REGISTRY["copy"](out)
        if function is np.reshape and not x.backend.shares_memory(x._array, out._array):
            raise ValueError("np.reshape with copy=False: the new shape needs a copy")
        return out

    return checked


def _device(call: Any, function: Any, device: Any) -> Any:
    if device != "cpu":
        raise ValueError(f"np.{function.__name__}: NumPy's only device is 'cpu', got {device!r}")
    return call


#: What changes only how a result is computed; sorts are always stable.
IGNORED = ("kind", "optimize", "overwrite_input", "stable")


#: What an option that ours lack makes of a call.
OPTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "copy": _copy,
    "correction": lambda call, function, n: lambda *args, **options: call(
        *args, **options | {"ddof": n}
    ),
    "device": _device,
    "dtype": _dtype,
    "initial": _initial,
    "mean": _mean,
    "mode": _mode,
    **dict.fromkeys(IGNORED, lambda call, function, value: call),
}

Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
