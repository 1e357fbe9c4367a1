"""Reading and writing by index, with exact gradients where an index repeats.

An index is taken apart into a static key and the index arrays, which are operands. In a key a slice
is `(start, stop, step)`, and `ARRAY` marks the place of an array.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..arraylike import to_array
from ..backend.namespace import ARRAY, decode
from ..operands import admit, mixed
from ..primitives import primitive
from ..tape import Tensor, raw, sum_to
from .elementwise import identity
from .shaping import ints, on_axis

FULL = (None, None, None)


def _number(value):
    return None if value is None else operator.index(value)


def encode(x, index):
    """Take an index apart: `(key, arrays)`.

    Raises:
        IndexError: If something is no index, or there are too many of them.
    """
    key, arrays = [], []
    for item in index if isinstance(index, tuple) else (index,):
        if item is None or item is Ellipsis:
            key.append(item)
        elif isinstance(item, slice):
            key.append((_number(item.start), _number(item.stop), _number(item.step)))
        elif isinstance(item, (int, np.integer)) and not isinstance(item, (bool, np.bool_)):
            key.append(int(item))
        else:
            key.append(ARRAY)
            arrays.append(_index_array(x, item))
    if key.count(Ellipsis) > 1:
        raise IndexError("getitem: an index can have only one ellipsis ('...')")
    return tuple(key), arrays


def _index_array(x, item):
    if isinstance(item, float) or item is False or item is True or isinstance(item, str):
        raise IndexError(f"getitem: {item!r} is no index; use integers, slices, arrays or None")
    if isinstance(item, (list, tuple, range, int, np.integer)):
        item = np.asarray(item)
        item = item.astype(int) if item.size == 0 else item
        item = to_array(item, None, getattr(x, "backend", None))
    got = getattr(item, "dtype", type(item).__name__)
    if getattr(got, "kind", "") not in ("i", "u", "b"):
        raise IndexError(f"getitem: an index array must be integer or boolean, got {got}")
    return item


def _check(where, x, key, indices, shape=None):
    """Raise for an index that does not fit, with the same text on every backend."""
    shape = x.shape if shape is None else shape
    ndim = len(shape)
    for array in indices:
        if type(raw(array)) is not x.backend.array_type:
            raise mixed(where, [x._array, raw(array)])
    arrays = map(raw, indices)
    used = sum(i.ndim if i.dtype.kind == "b" else 1 for i in indices) + sum(
        1 for item in key if isinstance(item, (int, tuple))
    )
    if used > ndim:
        raise IndexError(f"{where}: {used} indices for a tensor of {ndim} axes, {shape}")
    axis = 0
    for item in key:
        if item is None:
            continue
        if item is Ellipsis:
            axis += ndim - used
        elif item == ARRAY:
            array = next(arrays)
            if array.dtype.kind == "b":
                have, want = array.shape, shape[axis : axis + array.ndim]
                if have != want:
                    raise IndexError(f"{where}: a boolean index of shape {have} for axes {want}")
                axis += array.ndim
                continue
            x.backend.xp.check_indices(array, shape[axis], f"{where}: axis {axis}")
            axis += 1
        else:
            size = shape[axis]
            if isinstance(item, int) and not -size <= item < size:
                raise IndexError(
                    f"{where}: axis {axis}: index {item} is out of bounds for size {size}"
                )
            axis += 1


def _tensor(x):
    return x if isinstance(x, Tensor) else identity(x)


def _getitem_front(x, index):
    x = _tensor(x)
    key, arrays = encode(x, index)
    _check("getitem", x, key, arrays)
    return (x, *arrays), {"key": key}


def _setitem_front(x, index, value):
    x = _tensor(x)
    key, arrays = encode(x, index)
    _check("setitem", x, key, arrays)
    if isinstance(value, (list, tuple)):
        value = to_array(value, None, x.backend, x.dtype)
    elif not np.isscalar(value) and type(raw(value)) is not x.backend.array_type:
        raise mixed("setitem", [x._array, admit("setitem", raw(value))])
    return (x, value, *arrays), {"key": key}


INDEX_CASES: Any = (
    (((4, 3),), {"key": (1,)}),
    (((4, 3),), {"key": (Ellipsis, (None, None, -2))}),
    (((4, 3),), {"key": (None, (1, 3, None), 0)}),
    (((4, 3), [0, 2, 0, -1]), {"key": (ARRAY,)}),
    (((4, 3), [[0, 2], [0, 0]], [1, 1]), {"key": (ARRAY, ARRAY)}),
    (((4, 3), [True, False, True, True]), {"key": (ARRAY,)}),
)


@primitive(
    view=True,
    method="__getitem__",
    front=_getitem_front,
    cases=INDEX_CASES,
    reference=lambda x, *indices, key: x[decode(key, indices)],
    why="a boolean index: values decide how many elements it takes",
)
def getitem(xp, x, /, *indices, key):
    r"""The elements at an index: numbers, slices, `...`, `None`, integer and boolean arrays.

    The gradient of an element that is taken several times is the sum over its uses.

    Raises:
        IndexError: For an index out of bounds, on every backend with the same text.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(lambda x: x[[0, 0, 2]].sum())(mg.tensor([1.0, 2.0, 4.0]))
        (Tensor(6.), Tensor([2., 0., 1.]))
    """
    return xp.getitem(x, indices, key)


getitem.vjp(x=lambda xp, g, indices, shapes, key: xp.scatter_add(g, indices, shapes[0], key))


SCATTER_CASES = tuple(
    ((shape, *operands[1:]), attrs | {"shape": operands[0]})
    for (operands, attrs), shape in zip(
        INDEX_CASES, ((3,), (4, 2), (1, 2), (4, 3), (2, 2), (3, 3)), strict=True
    )
)


def _added(v, *indices, shape, key):
    out = np.zeros(shape)
    np.add.at(out, decode(key, indices), v)
    return out


def _written(x, v, *indices, key):
    out = x.copy()
    out[decode(key, indices)] = v
    return out


def _scatter_front(v, index, shape):
    v, shape = _tensor(v), ints(shape)
    key, arrays = encode(v, index)
    _check("scatter_add", v, key, arrays, shape)
    return (v, *arrays), {"shape": shape, "key": key}


@primitive(
    front=_scatter_front,
    cases=SCATTER_CASES,
    reference=_added,
    why="a boolean index: values decide how many elements it takes",
)
def scatter_add(xp, v, /, *indices, shape, key):
    r"""Zeros of a shape with `v` added at an index: :math:`y_{index} \mathrel{+}= v`.

    Called as `scatter_add(v, index, shape)`, the index as in `x[index]`; where it repeats, values
    add up. So `x + scatter_add(v, index, x.shape)` is `x` with `v` added there.

    Raises:
        IndexError: For an index out of bounds.

    Example:
        >>> import microgradnd as mg
        >>> mg.scatter_add(mg.tensor([1.0, 2.0, 4.0]), [0, 2, 0], (3,))
        Tensor([5., 0., 2.])
    """
    return xp.scatter_add(v, indices, shape, key)


scatter_add.vjp(v=lambda xp, g, indices, key: xp.getitem(g, indices, key))


def _written_gradient(xp, g, indices, shapes, key):
    got = xp.getitem(g, indices, key)
    if any(i.dtype.kind != "b" for i in indices):  # where an index repeats, the last value stays
        n = 1
        for length in got.shape:
            n *= length
        number = xp.reshape(xp.arange(n), got.shape)
        written = xp.setitem(xp.full(shapes[0], -1, dtype="int64"), number, indices, key)
        got = xp.where(xp.getitem(written, indices, key) == number, got, 0.0)
    return sum_to(xp, got, shapes[1])


@primitive(
    front=_setitem_front,
    cases=(
        (((4, 3), (3,)), {"key": (1,)}),
        (((4, 3), ()), {"key": (Ellipsis, (None, None, -2))}),
        (((4, 3), (2, 3), [0, 2]), {"key": (ARRAY,)}),
        (((4, 3), (2, 3), [1, 1]), {"key": (ARRAY,)}),
        (((4, 3), (1, 3), [True, False, True, True]), {"key": (ARRAY,)}),
    ),
    reference=_written,
    why="a boolean index: values decide how many elements it takes",
)
def setitem(xp, x, v, /, *indices, key):
    r"""A copy of `x` with `v` (broadcast) written at an index: what `x[index] = v` records."""
    return xp.setitem(x, v, indices, key)


setitem.vjp(
    x=lambda xp, g, indices, key: xp.setitem(g, 0.0, indices, key),
    v=_written_gradient,
)

def _take_key(ndim, axis):
    return (FULL,) * (axis % ndim) + (ARRAY,)


@primitive(
    numpy=np.take,
    method=True,
    front=lambda x, indices, axis=None: ((x, _index_array(x, indices)), {"axis": axis}),
    cases=(
        (((4, 3), [0, 2, 0]), {"axis": 0}),
        (((4, 3), [[0, -1], [1, 1]]), {"axis": 1}),
        (((4, 3), [11, 0]), {}),
    ),
)
def take(xp, x, indices, /, axis=None):
    r"""The elements at integer indices along an axis (of the flattened array without one).

    Raises:
        IndexError: For an index out of bounds.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0, 4.0])
        >>> mg.take(x, [0, 0, 2]), mg.grad(lambda x: mg.take(x, [0, 0, 2]).sum())(x)
        (Tensor([1., 1., 4.]), Tensor([2., 0., 1.]))
    """
    if axis is None:
        x, axis = xp.reshape(x, (-1,)), 0
    xp.check_indices(indices, x.shape[on_axis(axis, x.ndim)], f"take: axis {axis}")
    return xp.take(x, indices, axis=axis)


def _take_gradient(xp, g, indices, shapes, axis):
    shape = shapes[0]
    if axis is None:
        n = 1
        for length in shape:
            n *= length
        return xp.reshape(xp.scatter_add(g, [indices], (n,), (ARRAY,)), shape)
    return xp.scatter_add(g, [indices], shape, _take_key(len(shape), axis))


take.vjp(x=_take_gradient)


@primitive(
    numpy=np.take_along_axis,
    cases=(
        (((2, 3), [[0, 2, 0], [1, 1, 1]]), {"axis": 1}),
        (((3, 2), [[2, 0]]), {"axis": 0}),
    ),
)
def take_along_axis(xp, x, indices, /, axis=-1):
    r"""Elements picked along an axis by an array of indices of the same number of axes.

    Raises:
        IndexError: For an index out of bounds.

    Example:
        >>> import microgradnd as mg
        >>> x, best = mg.tensor([[1.0, 3.0, 2.0]]), mg.tensor([[1]])
        >>> mg.take_along_axis(x, best), mg.grad(lambda x: mg.take_along_axis(x, best).sum())(x)
        (Tensor([[3.]]), Tensor([[0., 1., 0.]]))
    """
    size = x.shape[on_axis(axis, x.ndim)]
    xp.check_indices(indices, size, f"take_along_axis: axis {axis}")
    return xp.take_along_axis(x, indices, axis)


def _along_gradient(xp, g, indices, shapes, axis):
    shape = shapes[0]
    axis = axis % len(shape)
    grid = [
        indices if i == axis else xp.reshape(
            xp.arange(n) * (shape[i] != 1),  # an axis of length 1 was broadcast
            tuple(n if j == i else 1 for j in range(len(shape))))
        for i, n in enumerate(g.shape)
    ]  # fmt: skip
    return xp.scatter_add(g, grid, shape, (ARRAY,) * len(shape))


take_along_axis.vjp(x=_along_gradient)


@primitive(
    cases=((((2, 3), [[0, 2, 1], [1, 1, 0]]), {"pieces": 3}),),
    reference=lambda x, winner, pieces: x[..., None] * (winner[..., None] == np.arange(pieces)),
)
def route(xp, x, winner, /, pieces):
    r"""Zeros with a new last axis of length `pieces`, and `x` at the winner's place along it."""
    return xp.route(x, winner, pieces)


@primitive(
    cases=((((2, 3, 4), [[0, 2, 1], [1, 3, 0]]), {}),),
    reference=lambda x, winner: np.take_along_axis(x, winner[..., None], -1)[..., 0],
)
def collect(xp, x, winner, /):
    r"""The elements at the winner's place along the last axis, which goes away."""
    return xp.collect(x, winner)


route.vjp(x=lambda xp, g, winner: xp.collect(g, winner))
collect.vjp(x=lambda xp, g, winner, shapes: xp.route(g, winner, shapes[0][-1]))
