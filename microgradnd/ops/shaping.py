"""Shapes: reshaping, moving axes, broadcasting, joining, splitting, turning around."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Any

import numpy as np

from ..primitives import primitive
from ..protocols import composite
from ..registry import ALIASES
from ..tape import sum_to, wrap


def ints(*sizes):
    """A shape or a list of axes given as one sequence or as several numbers."""
    if len(sizes) == 1 and (sizes[0] is None or isinstance(sizes[0], (tuple, list))):
        sizes = sizes[0]
    for n in sizes or ():
        if not hasattr(n, "__index__"):
            raise TypeError(f"a shape, or an order of axes, is made of integers, got {n!r}")
    return None if sizes is None else tuple(operator.index(n) for n in sizes)


def on_axis(axis, ndim):
    """The number of an axis counted from the front; an AxisError if there is none."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis must be one integer, got {axis!r}")
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(axis, ndim)
    return int(axis) % ndim


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
        hint = "; one length at most may be -1" if unknown > 1 else ""
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit {shape}{hint}")
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
ALIASES["permute_dims"] = "transpose"


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


# ----------------------------------------------------------------------------- by those above


def at_least(name, x, n):
    """Raise unless there are so many axes."""
    if x.ndim < n:
        raise ValueError(f"{name}: at least {n} axes are wanted, got shape {x.shape}")


def laced(x, y):
    """Two tuples of one length as one: an element of the first, of the second, and so on."""
    return tuple(n for pair in zip(x, y, strict=True) for n in pair)


def _spread(x, reps, each=False):
    """Every axis so many times: each element by itself, or all in a row."""
    narrow, wide = (
        laced(x.shape, k) if each else laced(k, x.shape) for k in ((1,) * x.ndim, reps)
    )
    out = reshape(broadcast_to(reshape(x, narrow), wide), tuple(map(operator.mul, reps, x.shape)))
    # Where no axis was both long and repeated, the memory is still that of the operand.
    return copy(out) if all(1 in pair for pair in zip(reps, x.shape, strict=True)) else out


@composite(
    numpy=np.ravel, method=True, view=True, dtypes="fiub", cases=((((2, 3),), {}), (((),), {}))
)
def ravel(x):
    r"""All elements in one row: a view where the memory allows it.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.ravel, mg.tensor([[1.0, 2.0]]))
        >>> y, pull(10 * y)
        (Tensor([1., 2.]), (Tensor([[10., 20.]]),))
    """
    return reshape(x, (-1,))


def merged(name: str, x: Any, first: int, last: int) -> Any:
    """Neighbouring axes as one: a view where the memory allows it."""
    ends, n = (first, last), max(x.ndim, 1)  # as if a number were (1,)
    if not all(-n <= d < n for d in ends):
        raise IndexError(f"{name}{ends}: an input of shape {x.shape} has no such axis")
    first, last = (d % n for d in ends)
    if first > last:
        raise ValueError(f"{name}{ends}: no axes in {x.shape}")
    middle = _size(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], middle, *x.shape[last + 1 :]))


@composite(
    method=True, dtypes="fiub",
    cases=((((2, 3),), {}), (((2, 3, 2),), {"start_dim": 1}), (((2, 3, 2),), {"end_dim": 1})),
    reference=lambda x, start_dim=0, end_dim=-1: x.reshape(
        (*x.shape[:start_dim], -1, *x.shape[end_dim + 1 or x.ndim :])
    ),
)  # fmt: skip
def flatten(x, start_dim=0, end_dim=-1):
    r"""All elements in one row, in memory of its own; `ravel` copies only where it must.

    Args:
        x: The operand.
        start_dim: As in PyTorch, the first of the axes that become one: 1 spares the batch.
        end_dim: The last of them.

    Raises:
        IndexError: If there is no such axis.
        ValueError: If the first comes after the last.

    Example:
        >>> import microgradnd as mg
        >>> mg.tensor([[1.0], [2.0]]).flatten(), mg.zeros((5, 4, 2, 2)).flatten(1).shape
        (Tensor([1., 2.]), (5, 16))
        >>> mg.grad(lambda x: mg.flatten(x)[1])(mg.tensor([[1.0, 2.0]]))
        Tensor([[0., 1.]])
    """
    return copy(merged("flatten", x, start_dim, end_dim))


def _each(xs, lift):
    """One result for one operand, and a tuple for several."""
    out = tuple(map(lift, xs))
    return out[0] if len(out) == 1 else out


LIFTED: Any = ((((), (3,), (2, 3), (2, 3, 1)), {}),)


@composite(numpy=np.atleast_1d, operands=None, outputs=True, view=True, cases=LIFTED)
def atleast_1d(*xs):
    r"""Numbers as arrays of one element, other operands as they are; a tuple for several.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.atleast_1d, 2.0)
        >>> y, pull(10 * y)
        (Tensor([2.]), (Tensor(20.),))
    """
    return _each(xs, lambda x: x if x.ndim else reshape(x, (1,)))


@composite(numpy=np.atleast_2d, operands=None, outputs=True, view=True, cases=LIFTED)
def atleast_2d(*xs):
    r"""Operands with fewer than two axes as rows, (1, n); a tuple for several.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.atleast_2d, mg.tensor([1.0, 2.0]))
        >>> y, pull(10 * y)
        (Tensor([[1., 2.]]), (Tensor([10., 20.]),))
    """
    return _each(xs, lambda x: x if x.ndim > 1 else reshape(x, (1, -1)))


@composite(numpy=np.atleast_3d, operands=None, outputs=True, view=True, cases=LIFTED)
def atleast_3d(*xs):
    r"""Operands with fewer than three axes as (1, n, 1) or (m, n, 1); a tuple for several.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.atleast_3d, mg.tensor([1.0, 2.0]))
        >>> y.shape, pull(10 * y)
        ((1, 2, 1), (Tensor([10., 20.]),))
    """
    return _each(xs, lambda x: x if x.ndim > 2 else expand_dims(atleast_2d(x), -1))


@composite(
    numpy=np.hstack, operands="*", dtypes="fiub",
    cases=((((2, 3), (2, 1)), {}), (((3,), (), (0,)), {})),
)  # fmt: skip
def hstack(xs):
    r"""Arrays joined along their second axis, vectors and numbers along their only one.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda *xs: mg.hstack(xs), mg.tensor([1.0, 2.0]), 3.0)
        >>> y, pull(10 * y)
        (Tensor([1., 2., 3.]), (Tensor([10., 20.]), Tensor(30.)))
    """
    return concatenate(map(atleast_1d, xs), axis=int(any(x.ndim > 1 for x in xs)))


@composite(
    numpy=np.vstack, operands="*", dtypes="fiub",
    cases=((((2, 3), (3,)), {}), (((), ()), {})),
)  # fmt: skip
def vstack(xs):
    r"""Arrays joined along their first axis; vectors are rows.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])
        >>> mg.vstack([x, y]).tolist(), mg.grad(lambda x: mg.vstack([x, y])[0, 1])(x)
        ([[1.0, 2.0], [3.0, 4.0]], Tensor([0., 1.]))
    """
    return concatenate(map(atleast_2d, xs), axis=0)


@composite(
    numpy=np.dstack, operands="*", dtypes="fiub",
    cases=((((2, 3), (2, 3, 2)), {}), (((3,), (3,)), {})),
)  # fmt: skip
def dstack(xs):
    r"""Arrays joined along their third axis; matrices get one of length 1, vectors (1, n, 1).

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])
        >>> mg.dstack([x, y]).tolist(), mg.grad(lambda x: mg.dstack([x, y])[0, 1, 0])(x)
        ([[[1.0, 3.0], [2.0, 4.0]]], Tensor([0., 1.]))
    """
    return concatenate(map(atleast_3d, xs), axis=2)


@composite(
    numpy=np.column_stack, operands="*", dtypes="fiub",
    cases=((((2,), (2, 3)), {}), (((), ()), {})),
)  # fmt: skip
def column_stack(xs):
    r"""Matrices side by side; vectors are columns.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])
        >>> mg.column_stack([x, y]).tolist(), mg.grad(lambda x: mg.column_stack([x, y])[1, 0])(x)
        ([[1.0, 3.0], [2.0, 4.0]], Tensor([0., 1.]))
    """
    return concatenate([x if x.ndim > 1 else reshape(x, (-1, 1)) for x in xs], axis=1)


@composite(
    numpy=np.append, operands=2, dtypes="fiub",
    cases=((((2, 3), (2,)), {}), (((2, 3), (1, 3)), {"axis": 0})),
)  # fmt: skip
def append(x, values, axis=None):
    r"""`x` with values after it along an axis; without one, both flattened.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.append, mg.tensor([1.0, 2.0]), 3.0)
        >>> y, pull(10 * y)
        (Tensor([1., 2., 3.]), (Tensor([10., 20.]), Tensor(30.)))
    """
    return concatenate([x, values], axis=axis)


@composite(
    numpy=np.array_split, outputs=True, dtypes="fiub",
    cases=((((7, 2),), {"sections": 3}), (((2, 2),), {"sections": 3, "axis": -1}),
           (((5,),), {"sections": (1, -1)})),
)  # fmt: skip
def array_split(x, sections, axis=0):
    r"""A list of parts along an axis, as equal as can be (the first ones longer), or as `split`.

    Example:
        >>> import microgradnd as mg
        >>> mg.array_split(mg.tensor([1.0, 2.0, 3.0]), 2)
        [Tensor([1., 2.]), Tensor([3.])]
        >>> mg.grad(lambda x: mg.array_split(x, 2)[1].sum())(mg.tensor([1.0, 2.0, 3.0]))
        Tensor([0., 0., 1.])
    """
    if not isinstance(sections, (tuple, list)):
        if sections < 1:
            raise ValueError(f"array_split: at least one part is wanted, got {sections}")
        each, more = divmod(x.shape[on_axis(axis, x.ndim)], sections)
        sections = [each * i + min(i, more) for i in range(1, sections)]
    return split(x, sections, axis=axis)


@composite(
    numpy=np.vsplit, outputs=True, dtypes="fiub", cases=((((4, 2),), {"sections": 2}),)
)
def vsplit(x, sections):
    r"""`split` along the first axis, of two or more.

    Example:
        >>> import microgradnd as mg
        >>> [y.tolist() for y in mg.vsplit(mg.tensor([[1.0], [2.0]]), 2)]
        [[[1.0]], [[2.0]]]
    """
    at_least("vsplit", x, 2)
    return split(x, sections, axis=0)


@composite(
    numpy=np.hsplit, outputs=True, dtypes="fiub",
    cases=((((2, 3),), {"sections": (1,)}), (((4,),), {"sections": 2})),
)  # fmt: skip
def hsplit(x, sections):
    r"""`split` along the second axis, or along the only one.

    Example:
        >>> import microgradnd as mg
        >>> mg.hsplit(mg.tensor([1.0, 2.0]), 2)
        [Tensor([1.]), Tensor([2.])]
    """
    at_least("hsplit", x, 1)
    return split(x, sections, axis=min(x.ndim - 1, 1))


@composite(
    numpy=np.dsplit, outputs=True, dtypes="fiub", cases=((((1, 2, 3),), {"sections": (1,)}),)
)
def dsplit(x, sections):
    r"""`split` along the third axis.

    Example:
        >>> import microgradnd as mg
        >>> [y.tolist() for y in mg.dsplit(mg.tensor([[[1.0, 2.0]]]), 2)]
        [[[[1.0]]], [[[2.0]]]]
    """
    at_least("dsplit", x, 3)
    return split(x, sections, axis=2)


@composite(
    numpy=getattr(np, "unstack", ()), outputs=True, dtypes="fiub",  # NumPy 2.1
    cases=((((3, 2),), {}), (((2, 3, 2),), {"axis": -2})),
    reference=lambda x, axis=0: tuple(np.moveaxis(x, axis, 0)),
)  # fmt: skip
def unstack(x, axis=0):
    r"""The slices along an axis, as a tuple: what `stack` has joined.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> mg.unstack(x, axis=1)
        (Tensor([1., 3.]), Tensor([2., 4.]))
        >>> mg.grad(lambda x: mg.unstack(x)[1].sum())(x).tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    n = x.shape[on_axis(axis, x.ndim)]
    return tuple(squeeze(part, axis=axis) for part in (split(x, n, axis=axis) if n else ()))


@composite(
    numpy=np.repeat, method=True, dtypes="fiub",
    cases=((((2, 3),), {"repeats": 2, "axis": 1}), (((2, 3),), {"repeats": 3}),
           (((2, 3),), {"repeats": 0, "axis": -2})),
)  # fmt: skip
def repeat(x, repeats, axis=None):
    r"""Each element several times along an axis (of the flattened array without one).

    Args:
        x: The operand.
        repeats: How often: an integer, or one for each place along the axis.
        axis: The axis.

    Raises:
        ValueError: If the counts do not fit, or one is negative.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0])
        >>> mg.repeat(x, 2), mg.grad(lambda x: mg.repeat(x, [3, 1]).sum())(x)
        (Tensor([1., 1., 2., 2.]), Tensor([3., 1.]))
    """
    x, axis = (ravel(x), 0) if axis is None else (x, on_axis(axis, x.ndim))
    n, counts = x.shape[axis], np.asarray(repeats)
    if counts.shape not in ((), (1,), (n,)) or (counts < 0).any():
        raise ValueError(f"repeat: one count >= 0 or {n} of them are wanted, got {repeats}")
    if counts.size != 1:
        places = np.repeat(np.arange(n), counts)
        return x.take(wrap(x.backend.asarray(places)), axis=axis)
    k = operator.index(counts.item())
    return _spread(x, tuple(k if a == axis else 1 for a in range(x.ndim)), each=True)


@composite(
    numpy=np.tile, dtypes="fiub",
    cases=((((2, 3),), {"reps": 2}), (((2, 3),), {"reps": (2, 1, 2)}), (((),), {"reps": (2, 0)}),
           (((2, 1, 2),), {"reps": (3, 1)})),
)  # fmt: skip
def tile(x, reps):
    r"""Copies of the whole side by side: so many along each of the last axes.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0])
        >>> mg.tile(x, 2), mg.grad(lambda x: mg.tile(x, (2, 3)).sum())(x)
        (Tensor([1., 2., 1., 2.]), Tensor([6., 6.]))
    """
    reps = ints(reps)
    if any(k < 0 for k in reps):
        raise ValueError(f"tile: no count may be negative, got {reps}")
    n = max(x.ndim, len(reps))
    x = reshape(x, (1,) * (n - x.ndim) + x.shape)
    return _spread(x, (1,) * (n - len(reps)) + reps)


@composite(
    numpy=np.roll, dtypes="fiub",
    cases=((((2, 3),), {"shift": 1}), (((2, 3),), {"shift": -4, "axis": 1}),
           (((2, 3),), {"shift": (1, 2), "axis": (0, -1)}), (((0,),), {"shift": 2})),
)  # fmt: skip
def roll(x, shift, axis=None):
    r"""The elements moved along axes, those that leave at the end coming back at the front.

    Without an axis those of the flattened array are.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.roll(x, 1), mg.tensor([1.0, 2.0, 3.0]))
        >>> y, pull(10 * y)
        (Tensor([3., 1., 2.]), (Tensor([10., 20., 30.]),))
    """
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    for by, at in np.broadcast(shift, axis):
        at = on_axis(operator.index(at), x.ndim)
        cut = -operator.index(by) % max(x.shape[at], 1)
        x = concatenate(split(x, (cut,), axis=at)[::-1], axis=at)
    return x


@composite(
    numpy=np.rot90, view=True, dtypes="fiub",
    cases=((((2, 3),), {}), (((2, 3),), {"k": -2}), (((2, 3, 2),), {"k": 3, "axes": (2, 1)})),
)  # fmt: skip
def rot90(x, k=1, axes=(0, 1)):
    r"""The plane of two axes turned by `k` quarters, from the first axis towards the second.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> mg.rot90(x).tolist(), mg.grad(lambda x: mg.rot90(x)[0, 0])(x).tolist()
        ([[2.0, 4.0], [1.0, 3.0]], [[0.0, 1.0], [0.0, 0.0]])
    """
    first, second = (on_axis(a, x.ndim) for a in axes)
    if first == second:
        raise ValueError(f"rot90: two different axes are wanted, got {axes}")
    for _ in range(k % 4):
        x = swapaxes(flip(x, axis=second), first, second)
    return x


@composite(numpy=np.fliplr, view=True, dtypes="fiub", cases=((((2, 3, 2),), {}),))
def fliplr(x):
    r"""The order along the second axis turned around.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0]])
        >>> mg.fliplr(x), mg.grad(lambda x: mg.fliplr(x)[0, 0])(x)
        (Tensor([[2., 1.]]), Tensor([[0., 1.]]))
    """
    at_least("fliplr", x, 2)
    return flip(x, axis=1)


@composite(numpy=np.flipud, view=True, dtypes="fiub", cases=((((2, 3),), {}), (((2,),), {})))
def flipud(x):
    r"""The order along the first axis turned around.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0])
        >>> mg.flipud(x), mg.grad(lambda x: mg.flipud(x)[0])(x)
        (Tensor([2., 1.]), Tensor([0., 1.]))
    """
    at_least("flipud", x, 1)
    return flip(x, axis=0)


@composite(
    numpy=(np.matrix_transpose, np.linalg.matrix_transpose), view=True, dtypes="fiub",
    cases=((((2, 3, 4),), {}),),
)  # fmt: skip
def matrix_transpose(x):
    r"""The last two axes exchanged, as `x.mT`.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(mg.matrix_transpose, mg.tensor([[1.0, 2.0]]))
        >>> y.shape, pull(10 * y)
        ((2, 1), (Tensor([[10., 20.]]),))
    """
    at_least("matrix_transpose", x, 2)
    return swapaxes(x, -1, -2)


@composite(
    numpy=np.rollaxis, view=True, dtypes="fiub",
    cases=((((2, 3, 4),), {"axis": 2}), (((2, 3, 4),), {"axis": 0, "start": 3}),
           (((2, 3, 4),), {"axis": -2, "start": -1})),
)  # fmt: skip
def rollaxis(x, axis, start=0):
    r"""An axis moved to before another one; `moveaxis` is easier to read.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.rollaxis(x, 2), mg.tensor([[[1.0, 2.0]]]))
        >>> y.shape, pull(10 * y)
        ((2, 1, 1), (Tensor([[[10., 20.]]]),))
    """
    axis, start = on_axis(axis, x.ndim), start if start == x.ndim else on_axis(start, x.ndim)
    return moveaxis(x, axis, start - (axis < start))


@composite(
    numpy=np.broadcast_arrays, operands=None, outputs=True, view=True, dtypes="fiub",
    cases=((((3, 1), (2,), ()), {}), (((2, 0), (1,)), {})),
)  # fmt: skip
def broadcast_arrays(*xs):
    r"""All operands broadcast against each other, without a copy, as a tuple.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: mg.broadcast_arrays(x, [1.0, 2.0])[0], 3.0)
        >>> y, pull(y)
        (Tensor([3., 3.]), (Tensor(6.),))
    """
    shape = common_shape("broadcast_arrays", xs)
    return tuple(broadcast_to(x, shape) for x in xs)


def common_shape(name, xs):
    """The shape to which all operands broadcast."""
    try:
        return np.broadcast_shapes(*(x.shape for x in xs))
    except ValueError:
        shapes = " and ".join(str(x.shape) for x in xs)
        raise ValueError(f"{name}: shapes {shapes} do not broadcast together") from None


@composite(
    numpy=np.meshgrid, operands=None, outputs=True, view=True, dtypes="fiub",
    cases=((((3,), (2,)), {}), (((3,), (2,), ()), {"indexing": "ij"}),
           (((3,), (2,)), {"sparse": True, "copy": False})),
)  # fmt: skip
def meshgrid(*xs, indexing="xy", sparse=False, copy=True):
    r"""The coordinates of a grid, one array for each axis, as a tuple.

    Args:
        xs: The coordinates along each axis.
        indexing: `"ij"`: the axes in the order of the operands; `"xy"`: the first two exchanged.
        sparse: Leave the axes along which a result is constant at length 1.
        copy: Give the results memory of their own.

    Example:
        >>> import microgradnd as mg
        >>> [y.tolist() for y in mg.meshgrid([1.0, 2.0], [3.0])]
        [[[1.0, 2.0]], [[3.0, 3.0]]]
        >>> mg.grad(lambda y: mg.meshgrid([1.0, 2.0], y)[1].sum())(mg.tensor([3.0]))
        Tensor([2.])
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    n = len(xs)
    rows = [reshape(x, (1,) * i + (-1,) + (1,) * (n - 1 - i)) for i, x in enumerate(xs)]
    if indexing == "xy" and n > 1:
        rows = [swapaxes(x, 0, 1) for x in rows]
    rows = rows if sparse else broadcast_arrays(*rows)
    return tuple(x.clone() if copy else x for x in rows)
