"""Reductions: sums, means, extremes, spreads, cumulative sums, tests of all elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend.namespace import LARGEST
from ..primitives import primitive
from ..protocols import composite

#: Operands and attributes for the generated tests of every reduction over one or several axes.
CASES: Any = (
    (((3, 4),), {}),
    (((3, 4),), {"axis": 0}),
    (((3, 4),), {"axis": -1, "keepdims": True}),
    (((2, 3, 2),), {"axis": (0, -1)}),
    (((2, 3),), {"axis": ()}),
    (((),), {}),
)
ONE_AXIS: Any = (
    (((3, 4),), {}),
    (((3, 4),), {"axis": 0}),
    (((2, 3, 2),), {"axis": -2}),
)


def axes_of(shape, axis):
    """The reduced axes as a tuple of non-negative numbers."""
    if axis is None:
        return tuple(range(len(shape)))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(a % len(shape) for a in axes)


def count(shape, axis):
    """How many elements go into one result."""
    n = 1
    for a in axes_of(shape, axis):
        n *= shape[a]
    return n


def kept(shape, axis):
    """The shape without the reduced axes."""
    axes = axes_of(shape, axis)
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def spread(xp, g, shape, axis):
    """A reduced array again with the reduced axes, of length 1."""
    axes = axes_of(shape, axis)
    return xp.reshape(g, tuple(1 if i in axes else n for i, n in enumerate(shape)))


@primitive(numpy=np.sum, method=True, cases=CASES, dtypes="fiub", kind="reduction")
def sum(xp, x, /, axis=None, keepdims=False):
    r"""The sum over the given axes, :math:`\sum_i x_i`; of nothing 0; `axis=()` reduces nothing.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.sum)(mg.tensor([1.0, 2.0]))
        (Tensor(3.), Tensor([1., 1.]))
    """
    return xp.sum(x, axis=axis, keepdims=keepdims)


sum.vjp(
    x=lambda xp, g, shapes, axis: xp.broadcast_to(spread(xp, g, shapes[0], axis), shapes[0])
)


def _share(shape, axis):
    """One by the number of elements; a division by the number would overflow float16."""
    n = count(shape, axis)
    return 1.0 / n if n else 0.0


@primitive(numpy=np.mean, method=True, cases=CASES, dtypes="fiub", kind="reduction")
def mean(xp, x, /, axis=None, keepdims=False):
    r"""The mean over the given axes, :math:`\frac1n \sum_i x_i`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.mean)(mg.tensor([1.0, 3.0]))
        (Tensor(2.), Tensor([0.5, 0.5]))
    """
    return xp.mean(x, axis=axis, keepdims=keepdims)


mean.vjp(
    x=lambda xp, g, shapes, axis: xp.broadcast_to(
        spread(xp, g * _share(shapes[0], axis), shapes[0], axis), shapes[0]
    )
)


def _order(shape, axis):
    """The axes with the reduced ones at the end."""
    axes = axes_of(shape, axis)
    return tuple(i for i in range(len(shape)) if i not in axes) + axes


def flat_last(xp, x, axis):
    """The reduced axes moved to the end and made one."""
    moved = xp.transpose(x, _order(x.shape, axis))
    return xp.reshape(moved, (*kept(x.shape, axis), count(x.shape, axis)))


def unflat(xp, flat, shape, axis):
    """What `flat_last` did, undone."""
    order = _order(shape, axis)
    back = tuple(order.index(i) for i in range(len(shape)))
    return xp.transpose(xp.reshape(flat, tuple(shape[i] for i in order)), back)


def _shifted(xp, x, by, first, fill=1.0):
    """`x` moved along the last axis, ones (or `fill`) coming in (at the front if `first`)."""
    new = xp.full_like(xp.getitem(x, (), (..., (None, by, None))), fill)
    rest = xp.getitem(x, (), (..., (None, -by, None) if first else (by, None, None)))
    return xp.concatenate([new, rest] if first else [rest, new], axis=-1)


def _others(xp, x):
    """For every element the product of all others along the last axis: exact with zeros."""
    sides = []
    for first in (True, False):
        side, by = _shifted(xp, x, 1, first), 1
        while by < x.shape[-1]:
            side = side * _shifted(xp, side, by, first)
            by *= 2
        sides.append(side)
    return sides[0] * sides[1]


def _prod_gradient(xp, g, x, axis):
    if x.size == 0:
        return xp.zeros_like(x)
    others = _others(xp, flat_last(xp, x, axis))
    return spread(xp, g, x.shape, axis) * unflat(xp, others, x.shape, axis)


@primitive(
    numpy=np.prod,
    method=True,
    cases=CASES,
    dtypes="fiub",
    kind="reduction",
    conventions=(
        ("prod with one zero", ([0.0, 2.0, 3.0],), {}, ([6.0, 0.0, 0.0],)),
        ("prod with two zeros", ([0.0, 0.0, 3.0],), {}, ([0.0, 0.0, 0.0],)),
    ),
)
def prod(xp, x, /, axis=None, keepdims=False):
    r"""The product over the given axes, :math:`\prod_i x_i`; of nothing 1; exact with zeros.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.prod)(mg.tensor([2.0, 0.0, 3.0]))
        (Tensor(0.), Tensor([0., 6., 0.]))
    """
    return xp.prod(x, axis=axis, keepdims=keepdims)


prod.vjp(x=_prod_gradient)


def _to_extremes(xp, g, out, x, axis):
    """The gradient shared equally among the tied extremes; NaN elements count as extremes."""
    out = spread(xp, out, x.shape, axis)
    hit = (x == out) | (x != x)
    ties = xp.sum(xp.astype(hit, x.dtype), axis=axes_of(x.shape, axis), keepdims=True)
    return xp.where(hit, spread(xp, g, x.shape, axis) / ties, 0.0)


def refuse_empty(name, x, axis):
    """Refuse an empty axis, where a result is one of the elements."""
    if x.size == 0 and count(x.shape, axis) == 0:
        raise ValueError(f"{name}: an empty axis has no such element, shape {x.shape}, axis {axis}")


@primitive(
    numpy=(np.max, np.amax),
    method=True,
    cases=CASES,
    kind="reduction",
    conventions=(
        ("max at a tie", ([1.0, 1.0, 0.0],), {}, ([0.5, 0.5, 0.0],)),
        ("max over an axis, at a tie", ([[1.0, 1.0, 0.0]],), {"axis": 1}, ([[0.5, 0.5, 0.0]],)),
        ("max with a NaN", ([1.0, float("nan"), 0.0],), {}, ([0.0, 1.0, 0.0],)),
    ),
)
def max(xp, x, /, axis=None, keepdims=False):
    r"""The largest element, :math:`\max_i x_i`; tied elements share the gradient equally.

    A NaN wins and takes the gradient.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.max)(mg.tensor([1.0, 3.0, 3.0]))
        (Tensor(3.), Tensor([0. , 0.5, 0.5]))
    """
    refuse_empty("max", x, axis)
    return xp.max(x, axis=axis, keepdims=keepdims)


max.vjp(x=_to_extremes)


@primitive(
    numpy=(np.min, np.amin),
    method=True,
    cases=CASES,
    kind="reduction",
    conventions=(("min at a tie", ([0.0, 0.0, 1.0],), {}, ([0.5, 0.5, 0.0],)),),
)
def min(xp, x, /, axis=None, keepdims=False):
    r"""The smallest element, :math:`\min_i x_i`; tied elements share the gradient equally.

    A NaN wins and takes the gradient.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.min)(mg.tensor([1.0, 1.0, 3.0]))
        (Tensor(1.), Tensor([0.5, 0.5, 0. ]))
    """
    refuse_empty("min", x, axis)
    return xp.min(x, axis=axis, keepdims=keepdims)


min.vjp(x=_to_extremes)


@composite(numpy=np.ptp, cases=CASES[:-2], kind="reduction")
def ptp(x, axis=None, keepdims=False):
    r"""The range of the elements, :math:`\max_i x_i - \min_i x_i`; those at an end share equally.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.ptp)(mg.tensor([1.0, 4.0, 2.0]))
        (Tensor(3.), Tensor([-1.,  1.,  0.]))
    """
    return max(x, axis=axis, keepdims=keepdims) - min(x, axis=axis, keepdims=keepdims)


def _variance(xp, x, axis, ddof, keepdims):
    centred = x - xp.mean(x, axis=axis, keepdims=True)
    n = count(x.shape, axis) - ddof
    dtype = centred.dtype
    wide = xp.astype(centred, "float32") if dtype.char == "e" else centred  # squares overflow
    total = xp.sum(wide * wide, axis=axis, keepdims=keepdims)
    return xp.astype(total / (n if n > 0 else 0.0 * total), dtype)


def _centred(xp, x, axis, ddof):
    return (x - xp.mean(x, axis=axis, keepdims=True)) * (
        1.0 / n if (n := count(x.shape, axis) - ddof) > 0 else float("nan")
    )


@primitive(
    numpy=np.var,
    method=True,
    cases=(*CASES, (((3, 4),), {"axis": 1, "ddof": 1})),
    kind="reduction",
    conventions=(
        ("var of a constant", ([2.0, 2.0],), {}, ([0.0, 0.0],)),
        ("var of one value, with ddof (NaN, and a warning)", ([2.0],), {"ddof": 1}, ([math.nan],)),
    ),
)
def var(xp, x, /, axis=None, ddof=0, keepdims=False):
    r"""The variance, :math:`\frac{1}{n - ddof}\sum_i (x_i - \bar x)^2`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.var)(mg.tensor([1.0, 3.0]))
        (Tensor(1.), Tensor([-1.,  1.]))
    """
    return _variance(xp, x, axis, ddof, keepdims)


var.vjp(
    x=lambda xp, g, x, axis, ddof: (
        2.0 * spread(xp, g, x.shape, axis) * _centred(xp, x, axis, ddof)
    )
)


def over_or_zero(xp, g, out):
    """:math:`g / out`, and 0 where the result is 0, to any order."""
    zero = out == 0
    return xp.where(zero, 0.0, g / xp.where(zero, 1.0, out))


@primitive(
    numpy=np.std,
    method=True,
    cases=(*CASES[:-2], (((3, 4),), {"axis": 1, "ddof": 1})),
    kind="reduction",
    conventions=(("std of a constant", ([2.0, 2.0],), {}, ([0.0, 0.0],)),),
)
def std(xp, x, /, axis=None, ddof=0, keepdims=False):
    r"""The standard deviation, the square root of the variance; of a constant its slope is 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.std)(mg.tensor([1.0, 3.0]))
        (Tensor(1.), Tensor([-0.5,  0.5]))
    """
    return xp.sqrt(_variance(xp, x, axis, ddof, keepdims))


std.vjp(
    x=lambda xp, g, out, x, axis, ddof: (
        spread(xp, over_or_zero(xp, g, out), x.shape, axis) * _centred(xp, x, axis, ddof)
    )
)


def shifted(xp, x, m):
    """:math:`x - m`, never above 0, and 0 at the maximum even if that is infinite."""
    return xp.minimum(x - xp.minimum(m, LARGEST.get(x.dtype.char, math.inf)), 0.0)


@primitive(
    cases=CASES,
    method=True,
    kind="reduction",
    reference=lambda x, axis=None, keepdims=False: np.log(
        np.sum(np.exp(x), axis=axis, keepdims=keepdims)
    ),
    conventions=(
        ("logsumexp with +inf", ([math.inf, 0.0],), {}, ([1.0, 0.0],)),
        ("logsumexp of -inf only (the value is -inf)", ([-math.inf, -math.inf],), {},
         ([math.nan, math.nan],)),
    ),
)  # fmt: skip
def logsumexp(xp, x, /, axis=None, keepdims=False):
    r"""The logarithm of the sum of exponentials, :math:`\ln\sum_i e^{x_i}`, without overflow.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.logsumexp)(mg.tensor([1000.0, 0.0]))
        (Tensor(1000.), Tensor([1., 0.]))
    """
    refuse_empty("logsumexp", x, axis)
    m = xp.max(x, axis=axis, keepdims=True)
    if axis == ():
        return xp.copy(x)
    total = xp.sum(xp.exp(shifted(xp, x, xp.where(xp.isfinite(m) | (m > 0), m, 0.0))),
                   axis=axis, keepdims=True)  # fmt: skip
    out = m + xp.log(xp.where(total == 0, 1.0, total))
    return out if keepdims else xp.reshape(out, kept(x.shape, axis))


def _shares(xp, out, x, axis):
    """Softmax; the division also shares equally among several infinities."""
    e = xp.exp(shifted(xp, x, spread(xp, out, x.shape, axis)))
    return e / xp.sum(e, axis=axes_of(x.shape, axis), keepdims=True)


logsumexp.vjp(
    x=lambda xp, g, out, x, axis: spread(xp, g, x.shape, axis) * _shares(xp, out, x, axis)
)


@primitive(numpy=np.cumsum, method=True, cases=ONE_AXIS, dtypes="fiu")
def cumsum(xp, x, /, axis=None):
    r"""The running sum along an axis, :math:`y_i = \sum_{j \le i} x_j`; flattened without one.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0, 3.0])
        >>> mg.cumsum(x), mg.grad(lambda x: mg.cumsum(x).sum())(x)
        (Tensor([1., 3., 6.]), Tensor([3., 2., 1.]))
    """
    return xp.cumsum(x, axis=axis)


def _cumsum_gradient(xp, g, shapes, axis):
    along = 0 if axis is None else axis
    total = xp.flip(xp.cumsum(xp.flip(g, axis=along), axis=along), axis=along)
    return xp.reshape(total, shapes[0])


cumsum.vjp(x=_cumsum_gradient)


@primitive(
    numpy=np.cumprod,
    method=True,
    cases=ONE_AXIS,
    dtypes="fiu",
    conventions=(
        ("cumprod with one zero", ([2.0, 0.0, 3.0],), {}, ([1.0, 8.0, 0.0],)),
        ("cumprod with two zeros", ([0.0, 0.0, 3.0],), {}, ([1.0, 0.0, 0.0],)),
    ),
)
def cumprod(xp, x, /, axis=None):
    r"""The running product along an axis, :math:`y_i = \prod_{j \le i} x_j`; exact with zeros.

    Without an axis the array is flattened.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([2.0, 0.0, 3.0])
        >>> mg.cumprod(x), mg.grad(lambda x: mg.cumprod(x).sum())(x)
        (Tensor([2., 0., 0.]), Tensor([1., 8., 0.]))
    """
    return xp.cumprod(x, axis=axis)


def _cumprod_gradient(xp, g, x, axis):
    flat = xp.reshape(x, (-1,)) if axis is None else xp.moveaxis(x, axis, -1)
    total = g if axis is None else xp.moveaxis(g, axis, -1)
    # r_i = g_i + x_{i+1} r_{i+1}, by doubling; then what goes before: the product of x_0..x_{i-1}.
    factor, by = _shifted(xp, flat, 1, False, 0.0), 1
    while by < flat.shape[-1]:
        total = total + factor * _shifted(xp, total, by, False, 0.0)
        factor, by = factor * _shifted(xp, factor, by, False, 0.0), 2 * by
    total = total * xp.cumprod(_shifted(xp, flat, 1, True), axis=-1)
    return xp.reshape(total, x.shape) if axis is None else xp.moveaxis(total, -1, axis)


cumprod.vjp(x=_cumprod_gradient)


@primitive(numpy=np.argmax, method=True, cases=ONE_AXIS, dtypes="fiub")
def argmax(xp, x, /, axis=None, keepdims=False):
    r"""The index of the first largest element (a NaN counts as largest).

    Example:
        >>> import microgradnd as mg
        >>> mg.argmax([1.0, 3.0, 3.0])
        Tensor(1)
    """
    refuse_empty("argmax", x, axis)
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@primitive(numpy=np.argmin, method=True, cases=ONE_AXIS, dtypes="fiub")
def argmin(xp, x, /, axis=None, keepdims=False):
    r"""The index of the first smallest element (a NaN counts as smallest).

    Example:
        >>> import microgradnd as mg
        >>> mg.argmin([2.0, 1.0, 1.0])
        Tensor(1)
    """
    refuse_empty("argmin", x, axis)
    return xp.argmin(x, axis=axis, keepdims=keepdims)


@primitive(numpy=np.any, method=True, cases=CASES, dtypes="fiub", kind="reduction")
def any(xp, x, /, axis=None, keepdims=False):
    r"""Whether any element is true (not 0).

    Example:
        >>> import microgradnd as mg
        >>> mg.any([0.0, 2.0]), mg.any([[0.0, 2.0], [0.0, 0.0]], axis=1)
        (Tensor(True), Tensor([ True, False]))
    """
    return xp.any(x, axis=axis, keepdims=keepdims)


@primitive(numpy=np.all, method=True, cases=CASES, dtypes="fiub", kind="reduction")
def all(xp, x, /, axis=None, keepdims=False):
    r"""Whether all elements are true (not 0).

    Example:
        >>> import microgradnd as mg
        >>> mg.all([0.0, 2.0]), mg.all([[1.0, 2.0], [0.0, 2.0]], axis=1)
        (Tensor(False), Tensor([ True, False]))
    """
    return xp.all(x, axis=axis, keepdims=keepdims)


@primitive(numpy=np.count_nonzero, cases=CASES, dtypes="fiub", kind="reduction")
def count_nonzero(xp, x, /, axis=None, keepdims=False):
    r"""How many elements are not 0 (a NaN is not).

    Example:
        >>> import microgradnd as mg
        >>> mg.count_nonzero([[0.0, 2.0], [3.0, 4.0]], axis=1)
        Tensor([1, 2])
    """
    return xp.sum(x != 0, axis=axis, keepdims=keepdims)
