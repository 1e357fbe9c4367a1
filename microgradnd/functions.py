"""Public functions that are no primitives: making tensors, moving them, comparing them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend as backends
from . import overrides  # noqa: F401 - NumPy's protocols
from .arraylike import check_dtype, imported, to_array
from .modes import MODE, get_default_dtype
from .registry import OVERRIDES, REGISTRY
from .tape import Node, Tensor, raw, wrap


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of numbers, lists, an array or a Tensor; the data are copied.

    Floats in lists become the default dtype (float32), arrays keep theirs; host data go to the
    current backend.

    Raises:
        TypeError: For data that are not real numbers; for `requires_grad` without a float dtype.
        ValueError: For ragged lists.

    Example:
        >>> import microgradnd as mg
        >>> mg.tensor([[1, 2], [3, 4]])
        Tensor([[1, 2],
                [3, 4]])
    """
    return Tensor(data, dtype, requires_grad)


def asarray(data: Any, dtype: Any = None) -> Tensor:
    """Give a Tensor of the data, sharing memory where that is possible.

    A Tensor of the right dtype is given back as it is. Writing into a shared NumPy array later
    cannot be noticed; `tensor` copies.
    """
    if isinstance(data, Tensor):
        same = dtype is None or check_dtype(dtype) == data.dtype
        return data if same else REGISTRY["astype"](data, dtype)
    return wrap(to_array(data, dtype, floats=get_default_dtype()))


def from_dlpack(data: Any) -> Tensor:
    """Take over the memory of an object that exports DLPack (a PyTorch or JAX array, say).

    What is in CPU memory becomes a tensor on NumPy, what is in CUDA memory one on CuPy.

    Raises:
        TypeError: If it exports none, or its dtype or device is not supported.
        BackendError: If it is in CUDA memory and CuPy cannot be used here.
    """
    if not hasattr(data, "__dlpack__"):
        raise TypeError(f"from_dlpack: a {type(data).__name__} does not export DLPack")
    return wrap(imported(data)[1])


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(map(operator.index, shape if isinstance(shape, (tuple, list)) else [shape]))


def _made(name: str, shape: Any, dtype: Any, requires_grad: bool, *value: Any) -> Tensor:
    if isinstance(dtype, int):
        raise TypeError(f"{name}: the shape is one argument, as in mg.{name}((2, 3))")
    make = getattr(backends.get().xp, name)
    out = wrap(make(_shape(shape), *value, dtype=check_dtype(dtype or get_default_dtype())))
    return out.requires_grad_() if requires_grad else out


def zeros(shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of zeros (of the default dtype, on the current backend)."""
    return _made("zeros", shape, dtype, requires_grad)


def ones(shape: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor of ones (of the default dtype, on the current backend)."""
    return _made("ones", shape, dtype, requires_grad)


def full(shape: Any, value: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor with one value everywhere; without a dtype, that of the value."""
    if dtype is None:
        home = backends.named("numpy") if np.isscalar(value) else None  # nothing is uploaded
        dtype = to_array(value, None, home, floats=get_default_dtype()).dtype
    return _made("full", shape, dtype, requires_grad, value)


def eye(n: int, m: int | None = None, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Make the identity matrix, n by m (square by default)."""
    m = n if m is None else m
    out = wrap(backends.get().xp.eye(n, m, dtype=check_dtype(dtype or get_default_dtype())))
    return out.requires_grad_() if requires_grad else out


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Tensor:
    """Make the numbers of [start, stop) at a distance; integers give int64, floats the default."""
    start, stop = (0, start) if stop is None else (start, stop)
    if dtype is None:
        whole = all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
        dtype = np.dtype("int64") if whole else get_default_dtype()
    return wrap(backends.get().asarray(np.arange(start, stop, step).astype(check_dtype(dtype))))


def linspace(start: float, stop: float, num: int = 50, dtype: Any = None) -> Tensor:
    """Make `num` numbers at equal distances from `start` to `stop`, both included."""
    dtype = check_dtype(dtype or get_default_dtype())
    return wrap(backends.get().asarray(np.linspace(start, stop, num).astype(dtype)))


def _like(name: str, x: Any, dtype: Any, shape: Any, *value: Any) -> Tensor:
    array = x._array if isinstance(x, Tensor) else to_array(x, floats=get_default_dtype())
    make = getattr(backends.of(array).xp, name)
    shape = array.shape if shape is None else _shape(shape)
    return wrap(make(shape, *value, dtype=check_dtype(dtype or array.dtype)))


def zeros_like(x: Any, dtype: Any = None, shape: Any = None) -> Tensor:
    """Make zeros with the dtype and backend (and the shape, unless given) of another tensor."""
    return _like("zeros", x, dtype, shape)


def ones_like(x: Any, dtype: Any = None, shape: Any = None) -> Tensor:
    """Make ones with the dtype and backend (and the shape, unless given) of another tensor."""
    return _like("ones", x, dtype, shape)


def full_like(x: Any, value: Any, dtype: Any = None, shape: Any = None) -> Tensor:
    """Make a constant with the dtype and backend (and the shape, unless given) of another."""
    return _like("full", x, dtype, shape, value)


def allclose(
    x: Any, y: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    r"""Say whether :math:`|x - y| \le atol + rtol |y|` everywhere."""
    x, y = asarray(x), asarray(y)
    if x.backend is not y.backend:
        raise TypeError(
            f"allclose: operands on {x.backend.name!r} and {y.backend.name!r}; use tensor.to(...)"
        )
    return bool(np.allclose(x._host(), y._host(), rtol, atol, equal_nan))


def is_tensor(x: Any) -> bool:
    """Say whether something is a Tensor."""
    return isinstance(x, Tensor)


class Transfer:
    """The operation of a node that crosses from one backend to another."""

    name = "to"
    elementwise = outputs = False

    def __init__(self, home: backends.Backend):
        self.home = home

    def pull(self, node: Node, g: Any, xp: Any, taped: bool) -> list[tuple[Any, Any]]:
        """Move the gradient back to where the operand lives."""
        if taped:
            return [(node.parents[0], to(g, self.home.name))]
        return [(node.parents[0], _move(g, self.home))]


def _move(array: Any, target: backends.Backend) -> Any:
    home = backends.BY_TYPE.get(type(array))
    return target.asarray(array if home is None or home is target else home.to_numpy(array))


def to(x: Tensor, target: Any) -> Tensor:
    """Give the tensor on another backend (`"numpy"`, `"cupy"`) or in another dtype.

    Where nothing changes it is the tensor itself; else a copy, through which gradients flow back.

    Raises:
        ValueError: If the backend is unknown.
        BackendError: If it cannot be used here.
    """
    if not isinstance(target, (str, backends.Backend)) or target in np.sctypeDict:
        return x if check_dtype(target) == x.dtype else REGISTRY["astype"](x, target)
    backend = target if isinstance(target, backends.Backend) else backends.named(target)
    if backend is x.backend:
        return x
    array = _move(x._array, backend)
    if x._node is None or not MODE.get().recording:
        return wrap(array)
    op = Transfer(x.backend)
    return wrap(array, Node(op, (x._node,), (), (), array.shape, array.dtype))


def _attach() -> None:
    """Give Tensor the methods and properties that are made of primitives."""
    for name, function in {
        "to": to,
        "copy": lambda x: REGISTRY["copy"](x),
        "T": property(lambda x: REGISTRY["transpose"](x), doc="The axes in reverse order."),
        "mT": property(
            lambda x: REGISTRY["swapaxes"](x, -1, -2), doc="The last two axes exchanged."
        ),
    }.items():
        setattr(Tensor, name, function)
    likes: dict[Any, Callable[..., Any]] = {
        np.zeros_like: zeros_like,
        np.ones_like: ones_like,
        np.full_like: full_like,
        np.allclose: allclose,
        np.shape: lambda x: raw(x).shape,
        np.ndim: lambda x: raw(x).ndim,
        np.size: lambda x, axis=None: raw(x).size if axis is None else raw(x).shape[axis],
    }
    OVERRIDES.update(likes)


_attach()
