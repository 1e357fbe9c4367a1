"""Products of matrices and tensors."""

from __future__ import annotations

import math
import operator

import numpy as np

from ..primitives import primitive
from ..protocols import composite
from ..registry import OVERRIDES
from ..tape import sum_to
from .shaping import laced, moveaxis, on_axis, reshape, roll, transpose

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of einsum


def _check(x, y):
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"matmul: operands need at least one axis, got {x.shape} @ {y.shape}")
    inner, outer = x.shape[-1], y.shape[-2 if y.ndim > 1 else 0]
    if inner != outer:
        hint = ""
        if y.ndim == 2 and y.shape[1] == inner:
            hint = "; did you mean y.T?"
        raise ValueError(
            f"matmul: {x.shape} @ {y.shape}: inner sizes {inner} and {outer} differ{hint}"
        )


@primitive(
    numpy=(np.matmul, np.linalg.matmul),
    operator="matmul",
    dtypes="fiu",
    cases=(
        (((2, 3), (3, 4)), {}),
        (((3,), (3,)), {}),
        (((3,), (3, 2)), {}),
        (((2, 3), (3,)), {}),
        (((2, 1, 2, 3), (4, 3, 2)), {}),
        (((2, 2, 3), (3,)), {}),
        (((3,), (2, 3, 2)), {}),
    ),
)
def matmul(xp, x, y, /):
    r"""The matrix product, :math:`x y`, over the last two axes; the others broadcast.

    A vector on the left counts as a row, on the right as a column.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.matmul, (0, 1))(mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0]))
        (Tensor(11.), (Tensor([3., 4.]), Tensor([1., 2.])))
    """
    try:
        return xp.matmul(x, y)
    except ValueError:
        _check(x, y)
        raise


def _flipped(xp, a):
    return xp.swapaxes(a, -1, -2)


def _left(xp, g, y, shapes):
    """Gradient to the left operand, :math:`g y^T`."""
    if len(shapes[0]) == len(shapes[1]) == 2:
        return xp.matmul(g, _flipped(xp, y))
    if len(shapes[1]) == 1:  # g lacks the last axis: an outer product
        return sum_to(xp, xp.expand_dims(g, -1) * y, shapes[0])
    if len(shapes[0]) == 1:
        g = xp.matmul(xp.expand_dims(g, -2), _flipped(xp, y))
        return xp.reshape(sum_to(xp, g, (1, *shapes[0])), shapes[0])
    return sum_to(xp, xp.matmul(g, _flipped(xp, y)), shapes[0])


def _right(xp, g, x, shapes):
    """Gradient to the right operand, :math:`x^T g`."""
    if len(shapes[0]) == len(shapes[1]) == 2:
        return xp.matmul(_flipped(xp, x), g)
    if len(shapes[0]) == 1:
        if len(shapes[1]) == 1:
            return g * x
        return sum_to(xp, xp.expand_dims(x, -1) * xp.expand_dims(g, -2), shapes[1])
    if len(shapes[1]) == 1:
        return sum_to(xp, x * xp.expand_dims(g, -1), shapes[1])
    return sum_to(xp, xp.matmul(_flipped(xp, x), g), shapes[1])


matmul.vjp(x=_left, y=_right)


def _labels(subscripts, shapes):
    """The subscripts with every letter explicit: `(inputs, output)`, an ellipsis spelled out."""
    text = subscripts.replace(" ", "")
    left, arrow, output = text.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(shapes):
        raise ValueError(f"einsum: {subscripts!r} names {len(inputs)} operands, got {len(shapes)}")
    spare = [c for c in LETTERS if c not in text]
    width = 0
    for labels, shape in zip(inputs, shapes, strict=True):
        if "..." in labels:
            width = max(width, len(shape) - len(labels.replace("...", "")))
    dots = "".join(spare[:width])
    full = []
    for labels, shape in zip(inputs, shapes, strict=True):
        n = len(shape) - len(labels.replace("...", ""))
        full.append(labels.replace("...", dots[width - n :] if n else ""))
        if len(full[-1]) != len(shape):
            raise ValueError(f"einsum: {labels!r} does not fit an operand of shape {shape}")
    if arrow:
        output = output.replace("...", dots)
    else:
        letters = "".join(inputs).replace("...", "")
        output = dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return full, output


@primitive(
    view=True,  # NumPy gives views of diagonals and of exchanged axes
    numpy=np.einsum,
    front=lambda subscripts, *xs: (xs, {"subscripts": subscripts}),
    cases=(
        (((2, 3), (3, 4)), {"subscripts": "ij,jk->ik"}),
        (((2, 3), (3, 4)), {"subscripts": "ij,jk"}),
        (((3, 3),), {"subscripts": "ii->i"}),
        (((3, 3),), {"subscripts": "ii"}),
        (((2, 3),), {"subscripts": "ij->j"}),
        (((2, 3, 4), (2, 4, 3)), {"subscripts": "b...d,bd...->b..."}),
        (((2, 1), (3,), (2, 3)), {"subscripts": "...i,...j,ij->..."}),
        (((2,), (3,)), {"subscripts": "i,j->"}),
    ),
    reference=lambda *xs, subscripts: np.einsum(subscripts, *xs),
)
def einsum(xp, /, *xs, subscripts):
    r"""Einstein's sum, as `numpy.einsum(subscripts, *operands)` with letters and `...`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(lambda x: mg.einsum("i,i->", x, x))(mg.tensor([1.0, 2.0]))
        (Tensor(5.), Tensor([2., 4.]))
    """
    _labels(subscripts, [x.shape for x in xs])
    return xp.einsum(xs, subscripts)


def _einsum_gradients(xp, g, xs, shapes, subscripts, wanted):
    inputs, output = _labels(subscripts, shapes)
    unused = [c for c in LETTERS if c not in "".join(inputs)]
    gradients = []
    for i, (labels, shape) in enumerate(zip(inputs, shapes, strict=True)):
        if not wanted[i]:
            gradients.append(None)
            continue
        others = [j for j in range(len(xs)) if j != i]
        terms, names = [g, *(xs[j] for j in others)], [output, *(inputs[j] for j in others)]
        reach = {}  # the length of each label; an operand's 1 broadcasts
        for name, term in zip(names, terms, strict=True):
            for label, n in zip(name, term.shape, strict=True):
                reach[label] = n if reach.get(label, 1) == 1 else reach[label]
        target = ""
        for place, (label, n) in enumerate(zip(labels, shape, strict=True)):
            if label in target:  # a diagonal was taken: put the values back onto it
                twin = unused[place]
                terms.append(xp.eye(n, dtype=g.dtype))
                names.append(label + twin)
                label = twin
            elif label not in reach or reach[label] == 1 != n:  # the same everywhere along it
                terms.append(xp.ones((n,), dtype=g.dtype))
                names.append(label)
            target += label
        full = xp.einsum(terms, ",".join(names) + "->" + target)
        gradients.append(sum_to(xp, full, shape))
    return gradients


einsum.vjp_all(_einsum_gradients)


@composite(numpy=(np.outer, np.linalg.outer), operands=2, cases=((((3,), (2,)), {}),))
def outer(x, y):
    r"""The products of all pairs, :math:`x_i y_j`, of the flattened operands.

    Example:
        >>> import microgradnd as mg
        >>> mg.outer([1.0, 2.0], [3.0, 4.0]).tolist()
        [[3.0, 4.0], [6.0, 8.0]]
        >>> mg.grad(lambda x: mg.outer(x, [3.0, 4.0]).sum())(mg.tensor([1.0, 2.0]))
        Tensor([7., 7.])
    """
    return reshape(x, (-1, 1)) * reshape(y, (1, -1))


@composite(
    numpy=np.dot, method=True, operands=2, cases=((((2, 3), (4, 3, 2)), {}), (((3,), (3,)), {}))
)
def dot(x, y):
    r"""`numpy.dot`: the sum over the last axis of `x` and the last but one of `y`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.dot)(mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0]))
        (Tensor(11.), Tensor([3., 4.]))
    """
    if x.ndim == 0 or y.ndim == 0:
        return x * y
    return tensordot(x, y, ((-1,), (-2 if y.ndim > 1 else -1,)))


@composite(
    numpy=(np.tensordot, np.linalg.tensordot),
    operands=2,
    cases=((((2, 3, 4), (4, 3, 2)), {"axes": ((1, 2), (1, 0))}), (((2, 3), (3, 2)), {"axes": 1})),
)
def tensordot(x, y, axes=2):
    r"""The sum over some axes of `x` and as many of `y`; an integer means the last and the first.

    Raises:
        ValueError: If the lengths of the summed axes differ.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0, 4.0]])
        >>> mg.value_and_grad(mg.tensordot)(x, y)
        (Tensor(11.), Tensor([[3., 4.]]))
    """
    if isinstance(axes, int):
        axes = (range(-axes, 0), range(axes))
    left, right = ([a] if isinstance(a, int) else list(a) for a in axes)
    left, right = ([on_axis(a, z.ndim) for a in on] for z, on in ((x, left), (y, right)))
    lengths = [x.shape[a] for a in left], [y.shape[a] for a in right]
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"tensordot: shapes {x.shape} and {y.shape}: the summed axes have lengths "
            f"{lengths[0]} and {lengths[1]}"
        )
    rows = [i for i in range(x.ndim) if i not in left]
    columns = [i for i in range(y.ndim) if i not in right]
    above, below = [x.shape[i] for i in rows], [y.shape[i] for i in columns]
    n = math.prod(lengths[0])
    a = reshape(transpose(x, (*rows, *left)), (math.prod(above), n))
    b = reshape(transpose(y, (*right, *columns)), (n, math.prod(below)))
    return reshape(a @ b, (*above, *below))


@composite(
    numpy=np.inner, operands=2, dtypes="fiu",
    cases=((((2, 3), (4, 3)), {}), (((3,), (3,)), {}), (((), (2,)), {})),
)  # fmt: skip
def inner(x, y):
    r"""The sum over the last axis of both, :math:`\sum_k x_{ik} y_{jk}`.

    Raises:
        ValueError: If these axes differ in length.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.inner)(mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0]))
        (Tensor(11.), Tensor([3., 4.]))
    """
    return tensordot(x, y, ((-1,), (-1,))) if x.ndim and y.ndim else x * y


@composite(
    numpy=np.vdot, operands=2, dtypes="fiu", cases=((((2, 3), (6,)), {}), (((), ()), {}))
)
def vdot(x, y):
    r"""The sum of all products, :math:`\sum_i x_i y_i`, of the flattened operands.

    Raises:
        ValueError: If their sizes differ.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.vdot)(mg.tensor([[1.0, 2.0]]), mg.tensor([3.0, 4.0]))
        (Tensor(11.), Tensor([[3., 4.]]))
    """
    if x.size != y.size:
        raise ValueError(f"vdot: shapes {x.shape} and {y.shape} have not the same size")
    return reshape(x, (-1,)) @ reshape(y, (-1,))


@composite(
    numpy=np.linalg.vecdot, operands=2, dtypes="fiub",
    cases=((((2, 3), (3,)), {}), (((3, 2), (3, 1)), {"axis": 0})),
)  # fmt: skip
def vecdot(x, y, axis=-1):
    r"""The sum of products along an axis, :math:`\sum_k x_k y_k`; the other axes broadcast.

    Raises:
        ValueError: If the axis has not the same length in both.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([[1.0, 2.0], [0.0, 1.0]]), mg.tensor([3.0, 4.0])
        >>> mg.vecdot(x, y), mg.grad(lambda y: mg.vecdot(x, y).sum())(y)
        (Tensor([11.,  4.]), Tensor([1., 3.]))
    """
    if x.shape[on_axis(axis, x.ndim)] != y.shape[on_axis(axis, y.ndim)]:
        raise ValueError(f"vecdot: {x.shape} and {y.shape}: axis {axis} differs in length")
    return einsum("...i,...i->...", moveaxis(x, axis, -1), moveaxis(y, axis, -1))


OVERRIDES[np.vecdot] = vecdot  # a ufunc, which here takes no axis


@composite(
    numpy=np.cross, operands=2, dtypes="fi",
    cases=((((4, 3), (3,)), {}), (((3, 4), (4, 3)), {"axisa": 0, "axisc": 0}),
           (((3, 2), (3, 1)), {"axis": 0}), (((3,), (4, 3)), {"axisb": 1})),
)  # fmt: skip
def cross(x, y, axisa=-1, axisb=-1, axisc=-1, axis=None):
    r"""The vector product in three dimensions, :math:`x \times y`; other axes broadcast.

    Args:
        x: The left operand.
        y: The right one.
        axisa: The axis of the vectors in `x`.
        axisb: Their axis in `y`.
        axisc: Their axis in the result.
        axis: All three at once.

    Raises:
        ValueError: If the vectors have not three components.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([1.0, 0.0, 0.0]), mg.tensor([0.0, 1.0, 0.0])
        >>> mg.cross(x, y), mg.grad(lambda x: mg.cross(x, y).sum())(x)
        (Tensor([0., 0., 1.]), Tensor([ 1.,  0., -1.]))
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = moveaxis(x, axisa, -1), moveaxis(y, axisb, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ValueError(f"cross: three components are wanted, got {x.shape[-1]}, {y.shape[-1]}")
    return moveaxis(roll(x * roll(y, -1, -1) - roll(x, -1, -1) * y, -1, -1), -1, axisc)


OVERRIDES[np.linalg.cross] = cross  # with one axis for all


@composite(
    numpy=np.kron, operands=2, dtypes="fiu",
    cases=((((2, 3), (2, 1)), {}), (((2,), (2, 1, 2)), {}), (((), (2,)), {})),
)  # fmt: skip
def kron(x, y):
    r"""Kronecker's product: every element of `x` times all of `y`, in blocks.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.tensor([1.0, 2.0]), mg.tensor([1.0, 10.0])
        >>> mg.kron(x, y), mg.grad(lambda x: mg.kron(x, y).sum())(x)
        (Tensor([ 1., 10.,  2., 20.]), Tensor([11., 11.]))
    """
    n = max(x.ndim, y.ndim)
    left, right = ((1,) * (n - z.ndim) + z.shape for z in (x, y))
    a, b = LETTERS[:n], LETTERS[n : 2 * n]
    subscripts = f"{a},{b}->{''.join(laced(a, b))}"
    out = einsum(subscripts, reshape(x, left), reshape(y, right))
    return reshape(out, tuple(map(operator.mul, left, right)))
