"""The doors into the primitives: Python's operators, Tensor methods, NumPy's two protocols."""

from __future__ import annotations

import operator as operators
from collections.abc import Callable
from functools import wraps
from typing import Any

from .arraylike import host_array
from .backend import BY_TYPE
from .modes import MODE
from .operands import NUMBERS, Inadmissible, admit, mixed
from .registry import COMPOSITES, OVERRIDES, REGISTRY
from .tape import Tensor, raw

REFLECTED = frozenset(
    {"add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"}
)


def composite(
    *, numpy: Any = None, method: bool = False, operands: int = 1, **data: Any
) -> Callable[..., Any]:
    """Register a function made of primitives: a public name, and NumPy's function or a method.

    The first `operands` arguments reach it as Tensors, whatever they were.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            tensors = [
                x if isinstance(x, Tensor) else REGISTRY["identity"](x) for x in args[:operands]
            ]
            return function(*tensors, *args[operands:], **kwargs)

        run.data = data  # type: ignore[attr-defined]
        COMPOSITES[function.__name__] = run
        if numpy is not None:
            OVERRIDES[numpy] = run
        if method:
            setattr(Tensor, function.__name__, run)
        return run

    return declare


def refuse_takeover(op: Any) -> None:
    """Keep what microgradnd's own primitives do from being replaced by somebody else's.

    Raises:
        ValueError: If the name, NumPy's function, the method or the operator is taken.
    """
    ours = "microgradnd.ops."
    if (op.__module__ or "").startswith(ours):
        return
    taken = [REGISTRY.get(op.name), *(OVERRIDES.get(function) for function in op.numpy)]
    names = [name for name in (op.method, op.operator and f"__{op.operator}__") if name]
    if any(getattr(known, "__module__", "").startswith(ours) for known in taken) or any(
        hasattr(Tensor, name) and op.name not in REGISTRY for name in names
    ):
        raise ValueError(f"{op.name}: this name, method or NumPy function belongs to microgradnd")


def define_operator(op: Any, name: str) -> None:
    """Give Tensor a Python operator, with its reflected and in-place forms."""
    fast = op.fast

    def compare(x: Tensor, y: Any) -> Any:
        try:
            return fast(x, y)
        except Inadmissible:  # `tensor == None` is a question that has an answer
            return NotImplemented

    setattr(Tensor, f"__{name}__", compare if name in ("eq", "ne") else fast)
    if name not in REFLECTED:
        return
    setattr(Tensor, f"__r{name}__", lambda x, y: fast(y, x))
    in_place = getattr(operators, f"__i{name}__")

    def write(x: Tensor, y: Any) -> Tensor:
        value = y if type(y) in NUMBERS else raw(y) if isinstance(y, Tensor) else admit(name, y)
        if type(value) is list:
            value = x.backend.asarray(host_array(value[0], MODE.get().default_dtype))
        if type(value) in BY_TYPE and type(value) is not type(x._array):
            raise mixed(op.name, [x._array, value])
        return x._write(f"in-place {op.name}", y, lambda: in_place(x._array, value),
                        lambda: fast(x, y))  # fmt: skip

    setattr(Tensor, f"__i{name}__", write)


def define_method(op: Any, name: str) -> None:
    """Give Tensor a method that calls a primitive."""
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, op.__doc__
    method.__qualname__ = f"Tensor.{name}"
    setattr(Tensor, name, method)


#: What does the work of a ufunc's own methods.
WHOLE = {
    ("add", "reduce"): "sum",
    ("add", "accumulate"): "cumsum",
    ("add", "at"): "scatter_add",
    ("multiply", "reduce"): "prod",
    ("multiply", "outer"): "outer",
    ("maximum", "reduce"): "max",
    ("minimum", "reduce"): "min",
    ("logaddexp", "reduce"): "logsumexp",
    ("logical_and", "reduce"): "all",
    ("logical_or", "reduce"): "any",
}


#: What comes nearest to some of NumPy's functions whose names do not tell.
NEAREST = {
    "array_equal": "allclose",
    "average": "mean",
    "diff": "subtract",
    "isclose": "allclose",
    "median": "mean",
    "ravel": "reshape",
    "repeat": "take",
    "roll": "take",
    "sort": "take_along_axis",
    "vstack": "concatenate",
    "hstack": "concatenate",
}


def _nearest(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, REGISTRY | COMPOSITES, n=1, cutoff=0.6)
    near = NEAREST.get(name) or (close[0] if close else None)
    return f"; the nearest is mg.{near}" if near else "; docs/operations.md lists what does"


def _array_ufunc(self: Tensor, ufunc: Any, how: str, *args: Any, **kwargs: Any) -> Any:
    op: Any = OVERRIDES.get(ufunc)
    if op is None:
        raise TypeError(f"np.{ufunc.__name__} does not take Tensors{_nearest(ufunc.__name__)}")
    if how != "__call__" or kwargs:
        what = f"np.{ufunc.__name__}" + (f".{how}" if how != "__call__" else "")
        options = f" with {', '.join(kwargs)}=" if kwargs else ""
        if how == "__call__" and list(kwargs) == ["out"]:
            raise TypeError(
                f"np.{ufunc.__name__} with out= (`a += t` on an array) does not take Tensors; use "
                f"mg.{op.name} for a new tensor (`a = a + t`)"
            )
        ours = WHOLE.get((op.name, how), op.name)
        raise TypeError(f"{what}{options} does not take Tensors; use mg.{ours}")
    return op(*args)


def _array_function(self: Tensor, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    op: Any = OVERRIDES.get(function)
    name = getattr(function, "__name__", str(function))
    if op is None:
        raise TypeError(f"np.{name} does not take Tensors{_nearest(name)}")
    for option in ("out", "where", "initial", "casting"):
        if kwargs.pop(option, None) is not None:
            raise TypeError(f"np.{name} with {option}= does not take Tensors; use mg.{op.name}")
    return op(*args, **kwargs)


Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
