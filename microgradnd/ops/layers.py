"""What layers compute besides activations: the affine map, and standardized values."""

from __future__ import annotations

import numpy as np

from ..primitives import primitive
from .reductions import count


def _rows(xp, x):
    """All axes but the last as one."""
    if x.ndim == 2:
        return x
    n = 1
    for length in x.shape[:-1]:
        n *= length
    return xp.reshape(x, (n, x.shape[-1]))


@primitive(
    cases=(
        (((3, 2), (4, 2), (4,)), {}),
        (((3, 2), (4, 2)), {}),
        (((2,), (3, 2), (3,)), {}),
        (((2, 3, 2), (4, 2), (4,)), {}),
    ),
    reference=lambda x, weight, bias=0.0: np.einsum("...i,oi->...o", x, weight) + bias,
)
def linear(xp, x, weight, bias=None, /):
    r"""The affine map of the last axis, :math:`x W^T + b`.

    Takes (..., n), a weight of shape (m, n) and, if there is one, a bias of shape (m,); gives
    (..., m).

    Raises:
        ValueError: If the sizes do not fit.

    Example:
        >>> import microgradnd as mg
        >>> x, w = mg.tensor([[1.0, 2.0]]), mg.tensor([[3.0, 4.0]])
        >>> mg.linear(x, w), mg.grad(lambda w: mg.linear(x, w).sum())(w)
        (Tensor([[11.]]), Tensor([[1., 2.]]))
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: an input of shape {x.shape} for a weight of shape {weight.shape}; the last "
            "axis of both must have the same size"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: a bias of shape {bias.shape} for a weight of {weight.shape}")
    out = xp.matmul(_rows(xp, x), xp.swapaxes(weight, -1, -2))
    if bias is not None:
        out = out + bias
    return out if x.ndim == 2 else xp.reshape(out, (*x.shape[:-1], weight.shape[0]))


linear.vjp(
    x=lambda xp, g, weight, shapes: xp.reshape(xp.matmul(_rows(xp, g), weight), shapes[0]),
    weight=lambda xp, g, x: xp.matmul(xp.swapaxes(_rows(xp, g), -1, -2), _rows(xp, x)),
    bias=lambda xp, g: xp.sum(_rows(xp, g), axis=0),
)


def _mean(xp, x, axis):
    """The mean along axes that stay; NumPy's own takes twice the time, but float16 needs it."""
    if x.dtype.char == "e":
        return xp.mean(x, axis=axis, keepdims=True)
    return xp.sum(x, axis=axis, keepdims=True) * (1.0 / max(count(x.shape, axis), 1))


def _scale(xp, x, axis, eps):
    """One by the standard deviation, and the deviations themselves."""
    d = x - _mean(xp, x, axis)
    wide = xp.astype(d, "float32") if d.dtype.char == "e" else d  # squares leave float16 soon
    return xp.astype(1.0 / xp.sqrt(_mean(xp, wide * wide, axis) + eps), d.dtype), d


@primitive(
    residuals=("scale",),
    cases=(
        (((5, 3),), {"axis": 0}),
        (((2, 6),), {}),
        (((3, 2, 4),), {"axis": (0, 2), "eps": 0.1}),
    ),
    reference=lambda x, axis=-1, eps=1e-5: (x - x.mean(axis=axis, keepdims=True))
    / np.sqrt(x.var(axis=axis, keepdims=True) + eps),
)
def standardize(xp, x, /, axis=-1, eps=1e-5):
    r"""Values of mean 0 and variance 1, :math:`(x - \bar x) / \sqrt{\sigma^2 + \epsilon}`.

    Mean and variance (of n, not n - 1) are taken over one axis or several: over the examples this
    is the heart of batch normalization, over the features that of layer normalization.

    Source: Ioffe and Szegedy, Batch normalization (ICML 2015); Ba et al. (2016).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 3.0])
        >>> mg.standardize(x, eps=0.0), mg.grad(lambda x: mg.standardize(x, eps=3.0)[1])(x)
        (Tensor([-1.,  1.]), Tensor([-0.1875,  0.1875]))
    """
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not x.size and any(x.shape[i] == 0 for i in axes):
        raise ValueError(f"standardize: no elements to average, the shape is {x.shape}")
    scale, d = _scale(xp, x, axis, eps)
    return d * scale, (scale,)


standardize.recompute(scale=lambda xp, x, axis, eps: _scale(xp, x, axis, eps)[0])
standardize.vjp(
    x=lambda xp, g, out, scale, axis: scale * (
        g - _mean(xp, g, axis) - out * _mean(xp, g * out, axis)
    )
)  # fmt: skip
