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
from ..protocols import composite
from ..registry import OVERRIDES
from ..tape import Tensor, raw, sum_to, wrap
from .elementwise import identity, where
from .references import added, put, written
from .shaping import at_least, broadcast_to, concatenate, ints, moveaxis, on_axis, reshape

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


def _scatter_front(v, index, shape):
    v, shape = _tensor(v), ints(shape)
    key, arrays = encode(v, index)
    _check("scatter_add", v, key, arrays, shape)
    return (v, *arrays), {"shape": shape, "key": key}


@primitive(
    front=_scatter_front,
    cases=SCATTER_CASES,
    reference=added,
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
    reference=written,
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
    conventions=(("the same element twice", ([1.0, 2.0], [0, 0]), {}, ([2.0, 0.0],)),),
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
    front=lambda x, indices, axis=-1: (
        (reshape(x, -1) if axis is None else x, indices), {"axis": axis or 0}),
    cases=(
        (((2, 3), [[0, 2, 0], [1, 1, 1]]), {"axis": 1}),
        (((3, 2), [[2, 0]]), {"axis": 0}),
    ),
)
def take_along_axis(xp, x, indices, /, axis=-1):
    r"""Elements picked along an axis by an array of indices of the same number of axes.

    Without an axis (None) the array is flattened.

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


def _grid(xp, indices, lengths, shape, axis):
    """The index of every element of such lengths, that along an axis being given."""
    return [
        indices if i == axis else xp.reshape(
            xp.arange(n) * (shape[i] != 1),  # an axis of length 1 was broadcast
            tuple(n if j == i else 1 for j in range(len(shape))))
        for i, n in enumerate(lengths)
    ]  # fmt: skip


def _along_gradient(xp, g, indices, shapes, axis):
    grid = _grid(xp, indices, g.shape, shapes[0], axis % g.ndim)
    return xp.scatter_add(g, grid, shapes[0], (ARRAY,) * g.ndim)


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


# ----------------------------------------------------------------------------- by those above


def _diagonal(rows, columns, k):
    """Where the k-th diagonal lies in a flattened matrix."""
    n = max(0, min(rows + min(k, 0), columns - max(k, 0)))
    start = k if k >= 0 else -k * columns
    return slice(start, start + n * (columns + 1), columns + 1)


@composite(
    numpy=np.diagonal, method=True, view=True, dtypes="fiub",
    cases=((((3, 4),), {}), (((3, 2),), {"offset": -1}), (((2, 3),), {"offset": 3}),
           (((2, 3, 4),), {"offset": 1, "axis1": -1, "axis2": 0})),
)  # fmt: skip
def diagonal(x, offset=0, axis1=0, axis2=1):
    r"""The elements :math:`x_{i, i + k}` of two axes, along a new last axis.

    A view where the memory allows it; unlike NumPy's it can be written to.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> mg.diagonal(x), mg.grad(lambda x: mg.diagonal(x, 1).sum())(x).tolist()
        (Tensor([1., 4.]), [[0.0, 1.0], [0.0, 0.0]])
    """
    at_least("diagonal", x, 2)
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    *batch, rows, columns = x.shape
    return reshape(x, (*batch, rows * columns))[..., _diagonal(rows, columns, offset)]


@composite(
    numpy=np.trace, method=True, dtypes="fiu", space="linalg",  # `mg.trace` watches the tape
    cases=((((3, 3),), {}), (((2, 3, 4),), {"offset": -1, "axis1": 1, "axis2": 2})),
)  # fmt: skip
def trace(x, offset=0, axis1=0, axis2=1):
    r"""The sum of a diagonal of two axes, :math:`\sum_i x_{i, i + k}`.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> x.trace(), mg.grad(mg.linalg.trace)(x).tolist()
        (Tensor(5.), [[1.0, 0.0], [0.0, 1.0]])
    """
    at_least("trace", x, 2)
    return diagonal(x, offset, axis1, axis2).sum(axis=-1)


@composite(
    numpy=np.diag, view=True, dtypes="fiub",
    cases=((((3,),), {}), (((2,),), {"k": -2}), (((0,),), {"k": 1}), (((3, 4),), {"k": 1})),
)  # fmt: skip
def diag(x, k=0):
    r"""A matrix of zeros with a vector on its k-th diagonal; of a matrix, that diagonal.

    Raises:
        ValueError: For anything but one or two axes.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.diag, mg.tensor([1.0, 2.0]))
        >>> y.tolist(), pull(10 * y)
        ([[1.0, 0.0], [0.0, 2.0]], (Tensor([10., 20.]),))
    """
    if x.ndim not in (1, 2):
        raise ValueError(f"diag: a vector or a matrix is wanted, got shape {x.shape}")
    if x.ndim == 2:
        return diagonal(x, k)
    n = x.size + abs(k)
    return reshape(scatter_add(x, _diagonal(n, n, k), (n * n,)), (n, n))


def _below(name, x, k):
    """Where the last two axes are on or below the k-th diagonal."""
    at_least(name, x, 1)
    rows, columns = (x.shape * 2)[-2:]
    xp = x.backend.xp
    return wrap(xp.expand_dims(xp.arange(k, k + rows), 1) >= xp.arange(columns))


@composite(
    numpy=np.tril, dtypes="fiub",
    cases=((((3, 4),), {}), (((2, 3, 2),), {"k": -1}), (((3,),), {"k": 1})),
)  # fmt: skip
def tril(x, k=0):
    r"""The last two axes with zeros above the k-th diagonal.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> mg.tril(x).tolist(), mg.grad(lambda x: mg.tril(x, -1).sum())(x).tolist()
        ([[1.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [1.0, 0.0]])
    """
    return where(_below("tril", x, k), x, False)


@composite(
    numpy=np.triu, dtypes="fiub",
    cases=((((3, 4),), {}), (((2, 3, 2),), {"k": -1}), (((3,),), {"k": 1})),
)  # fmt: skip
def triu(x, k=0):
    r"""The last two axes with zeros below the k-th diagonal.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> mg.triu(x).tolist(), mg.grad(lambda x: mg.triu(x, 1).sum())(x).tolist()
        ([[1.0, 2.0], [0.0, 4.0]], [[0.0, 1.0], [0.0, 0.0]])
    """
    return where(_below("triu", x, k - 1), False, x)


@composite(
    numpy=np.diff, view=True, dtypes="fiub",
    cases=((((3, 4),), {}), (((4, 2),), {"n": 2, "axis": 0}), (((3,),), {"n": 0}),
           (((3,),), {"n": 4}), (((2, 3),), {"prepend": 0, "append": 1})),
)  # fmt: skip
def diff(x, n=1, axis=-1, prepend=None, append=None):
    r"""Differences of neighbours along an axis, :math:`x_{i+1} - x_i`, `n` times over.

    Args:
        x: The operand; of booleans, where neighbours are unequal.
        n: How often.
        axis: The axis.
        prepend: What comes before along the axis; a number stands for one place.
        append: What comes after.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 4.0, 9.0])
        >>> mg.diff(x), mg.diff(x, prepend=0), mg.grad(lambda x: mg.diff(x, 2).sum())(x)
        (Tensor([3., 5.]), Tensor([1., 3., 5.]), Tensor([ 1., -2.,  1.]))
    """
    at = on_axis(axis, x.ndim)
    if n < 0:
        raise ValueError(f"diff: n must not be negative, got {n}")
    ends = [None if v is None else _end(x, v, at) for v in (prepend, append)]
    if ends != [None, None]:
        x = concatenate([v for v in (ends[0], x, ends[1]) if v is not None], axis=at)
    for _ in range(n):
        later, former = (x[(slice(None),) * at + (s,)] for s in (slice(1, None), slice(-1)))
        x = later - former if x.dtype.kind != "b" else later != former
    return x


def _end(x, value, axis):
    """What is joined to `x` along an axis; a number does not widen floats."""
    if isinstance(value, (int, float)):
        dtype = x.dtype if x.dtype.kind == "f" else np.asarray(value).dtype
        value = x.backend.xp.full((), value, dtype=dtype)
    value = _tensor(value)
    return value if value.ndim else broadcast_to(value, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))


PADDED = {
    "edge": lambda xp, i, n: xp.clip(i, 0, n - 1),
    "wrap": lambda xp, i, n: i % n,
    "reflect": lambda xp, i, n: n - 1 - abs(i % max(2 * n - 2, 1) - (n - 1)),
    "symmetric": lambda xp, i, n: xp.minimum(i % (2 * n), 2 * n - 1 - i % (2 * n)),
}


@composite(
    numpy=np.pad, dtypes="fiub",
    cases=((((2, 3),), {"pad_width": 1}), (((2, 3),), {"pad_width": ((1, 0), (0, 2))}),
           (((3,),), {"pad_width": (2, 1), "constant_values": (4, 5)}),
           *((((3, 2),), {"pad_width": ((2, 4), (0, 3)), "mode": mode}) for mode in PADDED),
           *((((1,),), {"pad_width": 2, "mode": mode}) for mode in PADDED)),
)  # fmt: skip
def pad(x, pad_width, mode="constant", constant_values=0):
    r"""The array with more elements around it, as `numpy.pad`.

    Args:
        x: The operand.
        pad_width: How many before and after along each axis: one number, a pair, or pairs;
            or a dict of numbers and pairs by axis.
        mode: `"constant"`, `"edge"` (the outermost elements), `"wrap"` (periodic), `"reflect"`,
            `"symmetric"` (mirrored, without or with the outermost elements).
        constant_values: The constants, in the same forms.

    Raises:
        ValueError: For another mode, a width that is negative or does not fit, an empty axis that
            offers nothing to repeat.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0, 3.0])
        >>> mg.pad(x, 1), mg.grad(lambda x: mg.pad(x, 2, mode="reflect").sum())(x)
        (Tensor([0., 1., 2., 3., 0.]), Tensor([2., 3., 2.]))
    """
    if mode not in ("constant", *PADDED):
        raise ValueError(f"pad: mode must be constant, {', '.join(PADDED)}, got {mode!r}")
    widths, values = (_pairs(x, v) for v in (pad_width, constant_values))
    if any(not isinstance(w, int) or w < 0 for pair in widths for w in pair):
        raise ValueError(f"pad: widths are integers >= 0, got {pad_width}")
    xp, shape = x.backend.xp, x.shape
    zeros = mode == "constant" and not any(map(any, values))
    if zeros or not any(map(any, widths)):  # the usual case, in one step
        key = tuple(slice(w[0], w[0] + n) for w, n in zip(widths, shape, strict=True))
        return scatter_add(x, key, tuple(sum(w) + n for w, n in zip(widths, shape, strict=True)))
    for axis, ((before, after), n) in enumerate(zip(widths, shape, strict=True)):
        if mode == "constant":
            ends = [_constant(x, axis, *w) for w in zip((before, after), values[axis], strict=True)]
            x = concatenate([ends[0], x, ends[1]], axis=axis)
        elif before or after:
            if not n:
                raise ValueError(f"pad: axis {axis} is empty; mode {mode!r} has nothing to repeat")
            x = take(x, wrap(PADDED[mode](xp, xp.arange(-before, n + after), n)), axis=axis)
    return x


def _pairs(x, values):
    """NumPy's short forms spelled out: a pair for each axis."""
    if isinstance(values, dict):  # widths of some axes
        named = {on_axis(axis, x.ndim): pair for axis, pair in values.items()}
        values = [_pairs(x, named.get(axis, 0))[axis] for axis in range(x.ndim)]
    try:
        return np.broadcast_to(values, (x.ndim, 2)).tolist()
    except ValueError:
        raise ValueError(
            f"pad: one number, a pair or {x.ndim} pairs are wanted, got {values}"
        ) from None


def _constant(x, axis, width, value):
    """So many places along an axis, all of one value."""
    shape = (*x.shape[:axis], width, *x.shape[axis + 1 :])
    return wrap(x.backend.xp.full(shape, value, dtype=x.dtype))


@composite(
    operands=2,
    cases=((((2, 3), [[0], [2]], (2, 1)), {"axis": 1}), (((2, 3), [[1]], ()), {"axis": -1}),
           (((2, 3), [5, 0], (2,)), {"axis": None})),
    reference=lambda x, ids, values, axis: put(x.copy(), ids, values, axis),
)  # fmt: skip
def put_along_axis(x, indices, values, axis):
    r"""A copy of `x` with values written along an axis, where `take_along_axis` would read.

    `np.put_along_axis(x, ...)` writes into `x` itself, as `x[...] = ...` does, and gives None.

    Raises:
        IndexError: For an index out of bounds.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 3.0, 2.0]])
        >>> y, pull = mg.vjp(lambda x, v: mg.put_along_axis(x, [[1]], v, 1), x, 5.0)
        >>> y, pull(y)
        (Tensor([[1., 5., 2.]]), (Tensor([[1., 0., 2.]]), Tensor(5.)))
    """
    if axis is None:
        return reshape(setitem(reshape(x, (-1,)), indices, values), x.shape)
    if indices.ndim != x.ndim or indices.dtype.kind not in "iu":
        raise ValueError(
            f"put_along_axis: integers with {x.ndim} axes are wanted, got {indices.dtype} "
            f"{indices.shape}"
        )
    at = on_axis(axis, x.ndim)
    grid = _grid(x.backend.xp, indices._array, x.shape, x.shape, at)
    return setitem(x, tuple(map(wrap, grid)), values)


def _put_along_axis(x, indices, values, axis):
    if not isinstance(x, Tensor):
        raise TypeError("np.put_along_axis: an array does not take a Tensor's values; use mg's")
    x.assign_(put_along_axis(x, indices, values, axis))


OVERRIDES[np.put_along_axis] = _put_along_axis


def _one_hot_front(ids, num_classes=-1):
    ids = _tensor(ids)
    if num_classes == -1:
        if not ids.size:
            raise ValueError("one_hot: there is no class number; give num_classes")
        num_classes = int(ids.max()) + 1
    return (ids,), {"num_classes": num_classes}


@primitive(
    dtypes="i",
    front=_one_hot_front,
    cases=((([0, 2, 1],), {"num_classes": 3}), (([[1], [0]],), {"num_classes": 4})),
    reference=lambda ids, num_classes: np.eye(num_classes, dtype=int)[ids],
)
def one_hot(xp, ids, /, num_classes):
    r"""Rows with 1 at the place of the class number and 0 elsewhere, along a new last axis.

    The result is int64, as PyTorch's; `.astype(...)` gives floats. Without `num_classes` it is the
    largest number and one more, which has to be read from the device.

    Raises:
        TypeError: If the class numbers are no integers.
        IndexError: If one is outside 0..num_classes-1.
        ValueError: Without `num_classes`, if there is no class number.

    Example:
        >>> import microgradnd as mg
        >>> mg.one_hot(mg.tensor([0, 2]), 3).tolist()
        [[1, 0, 0], [0, 0, 1]]
        >>> w = mg.tensor([1.0, 2.0, 3.0])
        >>> mg.grad(lambda w: (mg.one_hot([0, 2], 3) @ w).sum())(w)
        Tensor([1., 0., 1.])
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"one_hot: class numbers are integers, got {ids.dtype}")
    xp.count_classes(ids, num_classes, -(2**31), "one_hot")
    return xp.one_hot(ids, num_classes, ids.ndim, "int64")


def nonzero(x):
    """The places of the elements that are not zero: an array of indices for each axis, as a tuple.

    Values decide the shape, so it has no gradient, and a device is waited for. `np.where` with the
    condition alone gives the same.

    Raises:
        ValueError: For a tensor without axes.

    Example:
        >>> import microgradnd as mg
        >>> mg.nonzero(mg.tensor([0.0, 3.0, 4.0]))
        (Tensor([1, 2]),)
    """
    x = _tensor(x)
    at_least("nonzero", x, 1)
    return tuple(map(wrap, x._array.nonzero()))


def _where(condition, x=None, y=None):
    return nonzero(condition) if x is None and y is None else where(condition, x, y)


OVERRIDES |= {np.nonzero: nonzero, np.where: _where}
Tensor.nonzero = nonzero  # type: ignore[method-assign]
