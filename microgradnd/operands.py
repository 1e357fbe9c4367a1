"""What goes into an operation, and what is said when it does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import backend as backends
from .arraylike import check_dtype, host_array
from .modes import MODE

ERRORS = (ValueError, TypeError, IndexError)  # what a forward may raise for its operands
NUMBERS = frozenset({float, int, bool})  # weak: they take the dtype of the arrays
PLAIN = frozenset({float, int, bool, type(None)})  # operands that stay as they are


class Inadmissible(TypeError):
    """Something that cannot be an operand."""


def static(where: str, name: str, value: Any) -> Any:
    """Give an attribute in hashable form: lists as tuples, NumPy's numbers as Python's.

    Raises:
        TypeError: For arrays and Tensors, and for an axis that is not an integer.
    """
    if hasattr(value, "_array") or isinstance(value, np.ndarray):
        raise TypeError(f"{where}: {name} is static and cannot be a {type(value).__name__}")
    if isinstance(value, (list, tuple)):
        value = tuple(static(where, name, item) for item in value)
    elif isinstance(value, np.generic):
        value = value.item()
    if name == "keepdims" and not isinstance(value, bool):
        raise TypeError(f"{where}: keepdims must be a bool, got {value!r}; several axes: one tuple")
    if name == "axis" and not isinstance(value, tuple) and (
        isinstance(value, bool) or not isinstance(value, (int, type(None)))
    ):
        raise TypeError(f"{where}: axis must be an integer or a tuple of them, got {value!r}")
    return value


def admit(where: str, x: Any) -> Any:
    """Give a raw operand that an operation may take: an array, a NumPy number, a list of numbers.

    Raises:
        TypeError: For anything else: complex numbers, text, other libraries' arrays.
    """
    if type(x) in backends.BY_TYPE or isinstance(x, (np.ndarray, np.generic)):
        check_dtype(x.dtype)
        return x if type(x) in backends.BY_TYPE or isinstance(x, np.generic) else np.asarray(x)
    if isinstance(x, (list, tuple)):
        return [x]
    if isinstance(x, (bool, int, float)):
        return x
    if type(x).__module__.partition(".")[0] == "cupy":
        return backends.of(x) and x
    if x is None:
        raise Inadmissible(f"{where}: None is no operand")
    if isinstance(x, complex):
        raise Inadmissible(f"{where}: complex numbers are not supported, got {x}")
    raise Inadmissible(
        f"{where}: a {type(x).__module__}.{type(x).__qualname__} is no operand; convert it with "
        "mg.asarray() or mg.tensor()"
    )


def mixed(where: str, arrays: list[Any]) -> TypeError:
    """Describe operands of different backends."""
    names = [backends.BY_TYPE[type(a)].name for a in arrays if type(a) in backends.BY_TYPE]
    return TypeError(
        f"{where}: operands on {' and '.join(map(repr, dict.fromkeys(names)))}; nothing is moved "
        "silently, use tensor.to(...), or mg.asarray(...) for an array"
    )


def place(op: Any, arrays: list[Any], homes: list[Any]) -> tuple[Any, list[Any]]:
    """Give the backend of the operands; put lists there, and numbers that cannot stay as they are.

    Beside arrays an elementwise operation takes Python numbers as they are; for others they become
    arrays, of a dtype that does not widen the others (an index or class number stays an integer).

    Raises:
        TypeError: If the operands live on different backends.
    """
    backend = None
    for home in homes:
        if home is not backend and home is not None:
            if backend is not None:
                raise mixed(op.name, arrays)
            backend = home
    kinds = {type(a) for a in arrays}
    if backend is not None and list not in kinds and (op.elementwise or not kinds & NUMBERS):
        return backend, arrays
    floats = MODE.get().default_dtype
    strong = [getattr(a, "dtype", floats) for a in arrays if type(a) not in PLAIN]
    number = not strong or not op.elementwise
    alone = backend is None
    backend = backend or backends.get()

    def put(a: Any, i: int) -> Any:
        if type(a) is list:
            return backend.asarray(host_array(a[0], floats))
        if alone and isinstance(a, np.generic):
            return backend.asarray(a)
        if type(a) not in NUMBERS or not number:
            return a
        if not strong:
            return backend.asarray(host_array(a, floats))
        index = type(a) is int and i < len(op.operands)
        return backend.xp.full((), a, dtype="int64" if index else np.result_type(*strong, a))

    return backend, [put(a, i) for i, a in enumerate(arrays)]


def explain(op: Any, error: Exception, arrays: list[Any]) -> Exception:
    """Give an error of the library below with the operation's name and the shapes."""
    text = str(error)
    if isinstance(error, np.linalg.LinAlgError):  # it names the operation and the matrix
        return np.linalg.LinAlgError(text)
    shapes = " and ".join(str(a.shape) for a in arrays if hasattr(a, "shape"))
    if op.elementwise and isinstance(error, ValueError) and "broadcast" in text:
        return ValueError(f"{op.name}: shapes {shapes} do not broadcast together")
    return reworded(error, f"{op.name}: {text} (operands of shape {shapes})")


def reworded(error: Exception, text: str) -> Exception:
    """Give an error of the same kind that says something else."""
    kinds = (np.exceptions.AxisError, IndexError, np.linalg.LinAlgError, ValueError, TypeError)
    return next(kind for kind in kinds if isinstance(error, kind))(text)


def unruled(op: Any, out: Any) -> None:
    """Make sure that a float result without a gradient is meant.

    Raises:
        TypeError: If nobody gave the primitive a formula, or said that it has none.
    """
    floats = any(o.dtype.kind == "f" for o in (out if op.outputs else [out]))
    if floats and op.data.get("differentiable", True):
        raise TypeError(
            f"{op.name} has no gradient formula; attach one with {op.name}.vjp(...), or declare it "
            "with differentiable=False"
        )
