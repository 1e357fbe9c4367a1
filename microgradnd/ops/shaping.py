"""Shapes: reshaping, moving axes, broadcasting, joining, splitting, turning around."""

from __future__ import annotations

import operator
from itertools import pairwise

import numpy as np

from ..primitives import primitive
from ..tape import sum_to


def ints(*sizes):
    """A shape or a list of axes given as one sequence or as several numbers."""
    if len(sizes) == 1 and (sizes[0] is None or isinstance(sizes[0], (tuple, list))):
        sizes = sizes[0]
    return None if sizes is None else tuple(operator.index(n) for n in sizes)


def on_axis(axis, ndim):
    """The number of an axis counted from the front; an AxisError if there is none."""
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(f"axis must be one integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim)
    return axis % ndim


def _size(shape):
    n = 1
    for length in shape:
        n *= length
    return n


@primitive(
    view=True,
    numpy=np.reshape,
    method=True,
    front=lambda x, *sizes, shape=None: ((x,), {"shape": ints(*(sizes or (shape,)))}),
    cases=((((3, 4),), {"shape": (2, 6)}), (((3, 4),), {"shape": (-1,)}),
           (((1,),), {"shape": ()})),
)  # fmt: skip
def reshape(xp, x, /, shape):
    r"""The same elements in another shape; one length may be -1.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.reshape(x, (1, 3)), mg.tensor([1.0, 2.0, 3.0]))
        >>> y, pull(10 * y)
        (Tensor([[1., 2., 3.]]), (Tensor([10., 20., 30.]),))
    """
    known = _size(n for n in shape if n != -1)
    unknown = shape.count(-1)
    fits = known == x.size if not unknown else known and x.size % known == 0
    if unknown > 1 or not fits or any(n < -1 for n in shape):
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit {shape}")
    return xp.reshape(x, shape)


reshape.vjp(x=lambda xp, g, shapes: xp.reshape(g, shapes[0]))


@primitive(
    view=True,
    numpy=np.transpose,
    method=True,
    front=lambda x, *order, axes=None: ((x,), {"axes": ints(*(order or (axes,)))}),
    cases=((((2, 3, 4),), {"axes": (2, 0, 1)}), (((2, 3),), {}), (((2, 3),), {"axes": (-1, 0)})),
)
def transpose(xp, x, /, axes=None):
    r"""The axes in another order (reversed if none is given).

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.transpose, mg.tensor([[1.0, 2.0]]))
        >>> y.shape, pull(10 * y)
        ((2, 1), (Tensor([[10., 20.]]),))
    """
    return xp.transpose(x, axes)


def _inverse(axes, n):
    if axes is None:
        return None
    axes = [a % n for a in axes]
    return tuple(axes.index(i) for i in range(n))


transpose.vjp(x=lambda xp, g, axes: xp.transpose(g, _inverse(axes, g.ndim)))


@primitive(
    view=True,
    numpy=np.swapaxes,
    method=True,
    cases=((((2, 3, 4),), {"axis1": 0, "axis2": -1}),),
)
def swapaxes(xp, x, /, axis1, axis2):
    r"""Two axes exchanged.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.swapaxes(x, 0, 1), mg.tensor([[1.0, 2.0]]))
        >>> y.shape, pull(10 * y)
        ((2, 1), (Tensor([[10., 20.]]),))
    """
    return xp.swapaxes(x, axis1, axis2)


swapaxes.vjp(x=lambda xp, g, axis1, axis2: xp.swapaxes(g, axis1, axis2))


@primitive(
    view=True,
    numpy=np.moveaxis,
    cases=((((2, 3, 4),), {"source": 0, "destination": -1}),
           (((2, 3, 4),), {"source": (0, 1), "destination": (2, 0)})),
)  # fmt: skip
def moveaxis(xp, x, /, source, destination):
    r"""Some axes moved to other places, the rest keeping their order.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.moveaxis(x, 0, -1), mg.tensor([[[1.0], [2.0]]]))
        >>> y.shape, pull(10 * y)[0].shape
        ((2, 1, 1), (1, 2, 1))
    """
    return xp.moveaxis(x, source, destination)


moveaxis.vjp(x=lambda xp, g, source, destination: xp.moveaxis(g, destination, source))


@primitive(
    view=True,
    numpy=np.expand_dims,
    cases=((((2, 3),), {"axis": 1}), (((2, 3),), {"axis": (0, -1)})),
)
def expand_dims(xp, x, /, axis):
    r"""New axes of length 1 at the given places.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.expand_dims(x, 0), mg.tensor([1.0, 2.0]))
        >>> y, pull(10 * y)
        (Tensor([[1., 2.]]), (Tensor([10., 20.]),))
    """
    return xp.expand_dims(x, axis)


expand_dims.vjp(x=lambda xp, g, shapes: xp.reshape(g, shapes[0]))


@primitive(
    view=True,
    numpy=np.squeeze,
    method=True,
    cases=((((2, 1, 3, 1),), {}), (((2, 1, 3, 1),), {"axis": 1})),
)
def squeeze(xp, x, /, axis=None):
    r"""Axes of length 1 taken away (all of them, or the given ones).

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.squeeze, mg.tensor([[1.0, 2.0]]))
        >>> y, pull(10 * y)
        (Tensor([1., 2.]), (Tensor([[10., 20.]]),))
    """
    for a in () if axis is None else axis if isinstance(axis, tuple) else (axis,):
        if x.shape[on_axis(a, x.ndim)] != 1:
            raise ValueError(f"squeeze: axis {a} of shape {x.shape} has not the length 1")
    return xp.squeeze(x, axis)


squeeze.vjp(x=lambda xp, g, shapes: xp.reshape(g, shapes[0]))


@primitive(
    view=True,
    numpy=np.broadcast_to,
    front=lambda x, *sizes, shape=None: ((x,), {"shape": ints(*(sizes or (shape,)))}),
    cases=((((3, 1),), {"shape": (2, 3, 4)}), (((),), {"shape": (3,)})),
)
def broadcast_to(xp, x, /, shape):
    r"""The elements repeated along axes of length 1 and new axes, without a copy.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.broadcast_to(x, (3,)), 2.0)
        >>> y, pull(y)
        (Tensor([2., 2., 2.]), (Tensor(6.),))
    """
    try:
        return xp.broadcast_to(x, shape)
    except ValueError:
        raise ValueError(
            f"broadcast_to: shape {x.shape} does not broadcast to {shape}"
        ) from None


broadcast_to.vjp(x=lambda xp, g, shapes: sum_to(xp, g, shapes[0]))


def _parts(g, shapes, axis):
    """Where each operand of a concatenation lies in the result."""
    at = axis % g.ndim
    start, keys = 0, []
    for shape in shapes:
        keys.append(((None, None, None),) * at + ((start, start + shape[at], None),))
        start += shape[at]
    return keys


@primitive(
    numpy=np.concatenate,
    front=lambda xs, axis=0: (
        (tuple(xs), {"axis": axis}) if axis is not None
        else (tuple(reshape(x, -1) for x in xs), {"axis": 0})),
    cases=((((2, 3), (1, 3)), {}), (((2, 1), (2, 2), (2, 0)), {"axis": -1})),
)
def concatenate(xp, /, *xs, axis=0):
    r"""Arrays joined along an axis that they have.

    Example:
        >>> import microgradnd as mg
        >>> a, b = mg.tensor([1.0, 2.0]), mg.tensor([3.0])
        >>> y, pull = mg.vjp(lambda *xs: mg.concatenate(xs), a, b)
        >>> y, pull(10 * y)
        (Tensor([1., 2., 3.]), (Tensor([10., 20.]), Tensor([30.])))
    """
    if not xs:
        raise ValueError("concatenate: at least one array is needed")
    return xp.concatenate(xs, axis=axis)


concatenate.vjp_all(
    lambda xp, g, shapes, axis: [xp.getitem(g, (), key) for key in _parts(g, shapes, axis)]
)


@primitive(
    numpy=np.stack,
    front=lambda xs, axis=0: (tuple(xs), {"axis": axis}),
    cases=((((2, 3), (2, 3)), {}), (((2,), (2,)), {"axis": -1})),
)
def stack(xp, /, *xs, axis=0):
    r"""Arrays of one shape joined along a new axis.

    Example:
        >>> import microgradnd as mg
        >>> mg.stack([[1.0, 2.0], [3.0, 4.0]], axis=1).tolist()
        [[1.0, 3.0], [2.0, 4.0]]
        >>> mg.grad(lambda x, y: mg.stack([x, y])[1], (0, 1))(1.0, 2.0)
        (Tensor(0.), Tensor(1.))
    """
    if not xs:
        raise ValueError("stack: at least one array is needed")
    return xp.stack(xs, axis=axis)


stack.vjp_all(
    lambda xp, g, shapes, axis: [
        xp.getitem(g, (), ((None, None, None),) * (axis % g.ndim) + (i,))
        for i in range(len(shapes))
    ]
)


@primitive(
    numpy=np.split,
    outputs=True,
    front=lambda x, sections, axis=0: (
        (x,), {"sections": ints(sections) if isinstance(sections, (tuple, list))
               else operator.index(sections), "axis": axis}),
    cases=((((6, 2),), {"sections": 3}), (((2, 5),), {"sections": (1, 3), "axis": 1})),
)  # fmt: skip
def split(xp, x, /, sections, axis=0):
    r"""A list of parts along an axis: equal ones, or cut at the given places.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0, 3.0, 4.0])
        >>> mg.split(x, 2)
        [Tensor([1., 2.]), Tensor([3., 4.])]
        >>> mg.grad(lambda x: mg.split(x, [1])[1].sum())(x)
        Tensor([0., 1., 1., 1.])
    """
    length = x.shape[on_axis(axis, x.ndim)]
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ValueError(
                f"split: axis {axis} has size {length}, not divisible into {sections} equal parts"
            )
        cuts = [length // sections * i for i in range(sections + 1)]
    else:
        cuts = [0, *(min(c + length if c < 0 else c, length) for c in sections), length]
        if sorted(cuts) != cuts:
            raise ValueError(f"split: the places {sections} do not ascend within size {length}")
    at = ((None, None, None),) * (axis % x.ndim)
    return [
        xp.copy(xp.getitem(x, (), (*at, (a, b, None))))
        for a, b in pairwise(cuts)
    ]


split.vjp(x=lambda xp, g, axis: xp.concatenate(g, axis=axis))


@primitive(
    view=True,
    numpy=np.flip,
    cases=((((2, 3),), {}), (((2, 3),), {"axis": 1}), (((2, 3),), {"axis": (0, 1)})),
)
def flip(xp, x, /, axis=None):
    r"""The order of the elements turned around along the given axes (all by default).

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.flip, mg.tensor([1.0, 2.0, 3.0]))
        >>> y, pull(mg.tensor([1.0, 0.0, 0.0]))
        (Tensor([3., 2., 1.]), (Tensor([0., 0., 1.]),))
    """
    return xp.flip(x, axis=axis)


flip.vjp(x=lambda xp, g, axis: xp.flip(g, axis=axis))


@primitive(numpy=np.copy, method="clone", cases=((((2, 3),), {}),), dtypes="fiub")
def copy(xp, x, /):
    r"""A copy in memory of its own, on the tape.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.copy)(2.0)
        (Tensor(2.), Tensor(1.))
    """
    return xp.copy(x)


copy.vjp(x=lambda g: g)
