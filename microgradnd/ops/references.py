"""What only the tests of operations need: second opinions in plain NumPy, and samples to draw."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..backend.namespace import decode

# ----------------------------------------------------------------------------- indices


def added(v, *indices, shape, key):
    """Add at an index to zeros."""
    out = np.zeros(shape)
    np.add.at(out, decode(key, indices), v)
    return out


def written(x, v, *indices, key):
    """Write at an index of a copy."""
    out = x.copy()
    out[decode(key, indices)] = v
    return out


def put(x, indices, values, axis):
    """Write along an axis."""
    np.put_along_axis(x, indices, values, axis)
    return x


# ----------------------------------------------------------------------------- convolution


def windows(x, kernel, how, fill=0.0):
    """The windows of a convolution, by NumPy's view."""
    stride, padding, dilation = how[:3]
    n = len(kernel)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    view = sliding_window_view(x, reach, tuple(range(2, n + 2)))
    steps = [slice(None, None, s) for s in (*stride, *dilation)]
    return view[(slice(None), slice(None), *steps)]


def convolved(x, weight, bias=0.0, *, how):
    """A convolution, a group at a time, as a product over its windows."""
    n, groups = x.ndim - 2, how[-1]
    views = np.split(windows(x, weight.shape[2:], how), groups, 1)
    weights = np.split(weight, groups)
    over = (1, *range(-n, 0)), range(1, n + 2)
    parts = [np.tensordot(v, w, over) for v, w in zip(views, weights, strict=True)]
    return np.moveaxis(np.concatenate(parts, -1) + bias, -1, 1)


def adjoint(f, shape, g):
    """The adjoint of a linear function, from its values at the unit vectors."""
    units = np.eye(math.prod(shape)).reshape(-1, *shape)
    return np.array([np.vdot(f(unit), g) for unit in units]).reshape(shape)


# ----------------------------------------------------------------------------- matrices


def spread_values(rng, shape):
    """Draw matrices whose singular values lie apart, the smallest near 0.75."""
    *batch, m, n = shape
    k = min(m, n)
    left, right = (np.linalg.qr(rng.normal(size=(*batch, i, i)))[0][..., :k] for i in (m, n))
    values = 0.75 * np.arange(1, k + 1) + rng.uniform(-0.1, 0.1, (*batch, k))
    return left * values[..., None, :] @ right.mT


def positive_definite(rng, shape):
    """Draw symmetric positive definite matrices whose eigenvalues lie apart."""
    vectors = np.linalg.qr(rng.normal(size=shape))[0]
    values = 0.75 * np.arange(1, shape[-1] + 1) + rng.uniform(-0.1, 0.1, shape[:-1])
    x = vectors * values[..., None, :] @ vectors.mT
    return (x + x.mT) / 2.0


def of_symmetric(f):
    """The function of the symmetric part: on symmetric matrices no element moves alone."""
    return lambda x: f((x + x.mT) * 0.5)


def without_signs(f):
    """The function, with the signs of vectors (rows of what is last) divided out: they jump."""

    def run(x):
        left, *middle, right = f(x)
        signs = left[..., :1, : right.shape[-2]]
        return [left[..., : right.shape[-2]] * signs, *middle, right * signs.mT]

    return run


def vectors_without_signs(f):
    """The same for eigenvalues and eigenvectors."""
    return of_symmetric(lambda x: [(out := f(x))[0], out[1] * out[1][..., :1, :]])
