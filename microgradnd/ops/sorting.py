"""Order: sorting, the largest elements and the middle one; equal elements keep their order."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..primitives import primitive
from ..protocols import composite
from .indexing import take_along_axis
from .reductions import CASES, count, flat_last, refuse_empty, spread, unflat
from .shaping import flip, on_axis

AXES: Any = ((((3, 4),), {}), (((3, 2),), {"axis": 0}), (((2, 3),), {"axis": None}))


def _chosen(xp, x, axis):
    """The operand and the axis to sort; without one it is flattened."""
    return (xp.reshape(x, (-1,)), 0) if axis is None else (x, on_axis(axis, x.ndim))


@primitive(
    numpy=np.argsort,
    method=True,
    cases=AXES,
    dtypes="fiub",
    reference=lambda x, axis=-1: np.argsort(x, axis, kind="stable"),
)
def argsort(xp, x, /, axis=-1):
    r"""The indices that sort along an axis (of the flattened array if it is None).

    Equal elements keep their order; NaN come last.

    Example:
        >>> import microgradnd as mg
        >>> mg.argsort([3.0, 1.0, 1.0])
        Tensor([1, 2, 0])
    """
    x, axis = _chosen(xp, x, axis)
    return xp.argsort(x, axis=axis)


@primitive(
    numpy=np.sort,
    cases=AXES,
    dtypes="fiub",
    residuals=("order",),
    ordered=True,
)
def sort(xp, x, /, axis=-1):
    r"""The elements in ascending order along an axis (of the flattened array if it is None).

    Equal elements keep their order, NaN come last; each gets its gradient back at its place.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.sort, mg.tensor([3.0, 1.0, 2.0]))
        >>> y, pull(mg.tensor([1.0, 10.0, 100.0]))
        (Tensor([1., 2., 3.]), (Tensor([100.,   1.,  10.]),))
    """
    x, axis = _chosen(xp, x, axis)
    order = xp.argsort(x, axis=axis)
    return xp.take_along_axis(x, order, axis), (order,)


def _unsorted(xp, g, order, shapes, axis):
    axis = 0 if axis is None else axis
    return xp.reshape(xp.take_along_axis(g, xp.argsort(order, axis=axis), axis), shapes[0])


sort.vjp(x=_unsorted)


def _largest(x, k, axis=-1, largest=True):
    order = np.argsort(-x if largest else x, axis, kind="stable").take(range(k), axis)
    return np.take_along_axis(x, order, axis), order


@composite(
    cases=((((2, 5),), {"k": 3}), (((4, 2),), {"k": 2, "axis": 0, "largest": False}),
           (((3,),), {"k": 0})),
    outputs=True,
    reference=_largest,
    conventions=(("largest with its index, at a tie", ([1.0, 1.0, 0.0],), {"k": 1},
                  ([1.0, 0.0, 0.0],)),),
)  # fmt: skip
def topk(x, k, axis=-1, largest=True):
    r"""The k largest (or smallest) elements along an axis, in order, and their indices.

    Of equal ones the first comes first; a NaN counts as the largest.

    Raises:
        ValueError: If there are not k elements.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 3.0, 2.0, 3.0])
        >>> mg.topk(x, 2), mg.grad(lambda x: mg.topk(x, 2)[0].sum())(x)
        ([Tensor([3., 3.]), Tensor([1, 3])], Tensor([0., 1., 0., 1.]))
    """
    place, k = on_axis(axis, x.ndim), operator.index(k)
    size, first = x.shape[place], (slice(None),) * place
    if not 0 <= k <= size:
        raise ValueError(f"topk: k must be in 0..{size}, the size of axis {axis}, got {k}")
    if largest:  # turned around twice, so that the first of equal ones stays the first
        order = size - 1 - flip(argsort(flip(x, axis=place), axis=place), axis=place)
    else:
        order = argsort(x, axis=place)
    order = order[(*first, slice(k))]
    return [take_along_axis(x, order, axis=place), order]


@primitive(
    numpy=np.median,
    cases=CASES,
    kind="reduction",
    ordered=True,
    residuals=("middle",),
    conventions=(
        ("median of an even count", ([1.0, 4.0, 3.0, 0.0],), {}, ([0.5, 0.0, 0.5, 0.0],)),
        ("median at a tie (the first of equal ones)", ([2.0, 2.0, 9.0],), {}, ([0.0, 1.0, 0.0],)),
        ("median with a NaN", ([1.0, np.nan, 0.0],), {}, ([0.0, 1.0, 0.0],)),
    ),
)
def median(xp, x, /, axis=None, keepdims=False):
    r"""The middle element over the given axes; of an even count the mean of the two middle ones.

    These get half of the gradient each. With a NaN the median is NaN.

    Raises:
        ValueError: If there is no element.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.median)(mg.tensor([5.0, 1.0, 4.0, 2.0]))
        (Tensor(3.), Tensor([0. , 0. , 0.5, 0.5]))
    """
    for a in () if axis is None else axis if isinstance(axis, tuple) else (axis,):
        on_axis(a, x.ndim)
    refuse_empty("median", x, axis)
    flat = flat_last(xp, x, axis)
    order, n = xp.argsort(flat, axis=-1), flat.shape[-1]
    middle = xp.getitem(order, (), (..., ((n - 1) // 2, n // 2 + 1, None)))
    last = xp.getitem(order, (), (..., (n - 1, None, None)))
    worst = xp.take_along_axis(flat, last, -1)  # NaN come last
    middle = xp.where(worst != worst, last, middle)
    out = xp.mean(xp.take_along_axis(flat, middle, -1), axis=-1)
    return spread(xp, out, x.shape, axis) if keepdims else out, (middle,)


def _to_middle(xp, g, middle, shapes, axis):
    hits = xp.one_hot(middle, count(shapes[0], axis), middle.ndim, g.dtype)
    return spread(xp, g, shapes[0], axis) * unflat(xp, xp.mean(hits, axis=-2), shapes[0], axis)


median.vjp(x=_to_middle)
