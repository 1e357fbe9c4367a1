"""Linear algebra over the last two axes: inverses, determinants, factorizations, norms."""

from __future__ import annotations

import builtins
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..operands import static
from ..primitives import primitive
from ..protocols import composite
from ..tape import sum_to
from .elementwise import absolute, astype, power, where
from .reductions import CASES, max, min, over_or_zero, spread, sum
from .references import (
    of_symmetric,
    positive_definite,
    spread_values,
    vectors_without_signs,
    without_signs,
)
from .shaping import broadcast_to, copy, expand_dims, moveaxis, squeeze, swapaxes

EPS = {"f": 2.0**-23, "d": 2.0**-52}
REPEATED = "has {} within rounding of each other, so no gradient through their vectors"


def _matrices(name, x, square=True):
    if x.dtype.char == "e":
        raise TypeError(f"{name}: float16 is not supported; use x.astype('float32')")
    if x.ndim < 2:
        wanted = "a matrix or a batch of matrices is wanted"
        raise np.linalg.LinAlgError(f"{name}: {wanted}, got shape {x.shape}")
    if square and x.shape[-1] != x.shape[-2]:
        raise np.linalg.LinAlgError(f"{name}: square matrices are wanted, got shape {x.shape}")
    return x


def _t(xp, x):
    return xp.swapaxes(x, -1, -2)


def _column(xp, x):
    return xp.expand_dims(xp.expand_dims(x, -1), -1)


def _scaled(xp, x, s):
    """The columns of `x`, each times a number."""
    return x * xp.expand_dims(s, -2)


def _lower(xp, x, strict=False):
    """The lower triangle, with or without the diagonal."""
    m, n = x.shape[-2:]
    rows, columns = xp.reshape(xp.arange(m), (m, 1)), xp.arange(n)
    return xp.where(rows > columns if strict else rows >= columns, x, 0.0)


def _diagonal(xp, x):
    """The diagonal of square matrices."""
    return xp.sum(x * xp.eye(x.shape[-1], dtype=x.dtype), axis=-1)


def _used(xp, g):
    """Which columns of a cotangent are not all 0."""
    return xp.any(g != 0, axis=-2)


# ----------------------------------------------------------------------------- solutions

OPTIONS: Any = {"space": "linalg", "precisions": ("float32",), "domain": spread_values}
SQUARE: Any = ((((3, 3),), {}), (((2, 2, 2),), {}), (((1, 1),), {}), (((0, 0),), {}))


@primitive(numpy=np.linalg.inv, cases=SQUARE, tolerance=16, **OPTIONS)
def inv(xp, x, /):
    r"""The inverse of square matrices, :math:`X^{-1}`.

    Raises:
        LinAlgError: For a singular matrix, at the call; on CuPy at the next transfer.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[2.0, 0.0], [0.0, 4.0]])
        >>> mg.linalg.inv(x).tolist()
        [[0.5, 0.0], [0.0, 0.25]]
        >>> mg.grad(lambda x: mg.linalg.inv(x).sum())(x).tolist()
        [[-0.25, -0.125], [-0.125, -0.0625]]
    """
    return xp.inv(_matrices("inv", x))


inv.vjp(x=lambda xp, g, out: -xp.matmul(xp.matmul(_t(xp, out), g), _t(xp, out)))


@primitive(
    numpy=np.linalg.solve,
    cases=(
        (((3, 3), (3, 2)), {}),
        (((3, 3), (3,)), {}),
        (((2, 2, 2), (2,)), {}),
        (((2, 1, 2, 2), (3, 2, 1)), {}),
    ),
    tolerance=16,
    **OPTIONS | {"domain": {"a": spread_values}},
)
def solve(xp, a, b, /):
    r"""The solution of linear equations, :math:`A X = B`; batches broadcast.

    A `b` of one axis is a vector, every other one a matrix of columns or a batch of them.

    Raises:
        LinAlgError: For a singular matrix, at the call; on CuPy at the next transfer.

    Example:
        >>> import microgradnd as mg
        >>> a, b = mg.tensor([[2.0, 0.0], [0.0, 4.0]]), mg.tensor([1.0, 2.0])
        >>> mg.linalg.solve(a, b)
        Tensor([0.5, 0.5])
        >>> mg.grad(lambda a, b: mg.linalg.solve(a, b).sum(), 1)(a, b)
        Tensor([0.5 , 0.25])
    """
    n = _matrices("solve", a).shape[-1]
    if b.dtype.char == "e":
        raise TypeError("solve: float16 is not supported; use b.astype('float32')")
    if b.ndim == 0 or b.shape[-2 if b.ndim > 1 else 0] != n:
        raise ValueError(f"solve: b must have {n} rows as a has, got {a.shape} and {b.shape}")
    return xp.solve(a, b)


def _solve_gradients(xp, g, out, a, shapes, wanted):
    """:math:`A^{-T} g` to the right side, and minus that times :math:`X^T` to the matrix."""
    if len(shapes[1]) == 1:
        g, out = xp.expand_dims(g, -1), xp.expand_dims(out, -1)
    right = xp.solve(_t(xp, a), g)
    left = sum_to(xp, -xp.matmul(right, _t(xp, out)), shapes[0]) if wanted[0] else None
    return left, sum_to(xp, xp.squeeze(right, -1) if len(shapes[1]) == 1 else right, shapes[1])


solve.vjp_all(_solve_gradients)


@composite(
    operands=2,
    cases=(
        (((3, 3), (3, 2)), {"lower": True}),
        (((3, 3), (3,)), {"trans": 1}),
        (((2, 2, 2), (2, 1)), {"unit_diagonal": True}),
    ),
    reference=lambda a, b, trans=0, lower=False, unit_diagonal=False: np.linalg.solve(
        np.einsum("...ij->...ji" if trans else "...ij", (np.tril if lower else np.triu)(a))
        if not unit_diagonal else np.triu(a, 1) + np.eye(a.shape[-1]), b
    ),
    tolerance=64,
    **OPTIONS
    | {"domain": lambda rng, shape: rng.uniform(0.5, 1.5, shape) + 3.0 * np.eye(*shape[-2:])
       if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)},
)
def solve_triangular(a, b, trans=0, lower=False, unit_diagonal=False):
    r"""`scipy.linalg.solve_triangular`: :math:`A X = B` with one triangle of `a`; composed.

    The other triangle is not read, and gets no gradient; nor is a unit diagonal. NumPy has no such
    solver: this one costs what `solve` does, :math:`O(n^3)`.

    Args:
        a: Square matrices.
        b: A vector or matrices.
        trans: 1 (or "T") for :math:`A^T X = B`.
        lower: Whether the lower triangle is meant.
        unit_diagonal: Whether the diagonal is taken to be 1.

    Example:
        >>> import microgradnd as mg
        >>> a = mg.tensor([[2.0, 9.0], [1.0, 4.0]])
        >>> mg.linalg.solve_triangular(a, [2.0, 5.0], lower=True)
        Tensor([1., 1.])
        >>> mg.grad(lambda a: mg.linalg.solve_triangular(a, [2.0, 5.0], lower=True)[1])(a).tolist()
        [[0.125, 0.0], [-0.25, -0.25]]
    """
    if trans not in (0, 1, "N", "T"):
        raise ValueError(f"solve_triangular: trans must be 0, 1, 'N' or 'T', got {trans!r}")
    n = a.shape[-1]
    place = a.backend.xp.arange(n)
    rows, columns = place.reshape((n, 1)), place
    a = where(rows >= columns if lower else rows <= columns, a, 0.0)
    a = where(rows == columns, 1.0, a) if unit_diagonal else a
    return solve(swapaxes(a, -1, -2) if trans in (1, "T") else a, b)


@primitive(
    cases=((((3, 2),), {"rtol": 0.1}), (((2, 2, 3),), {"rtol": 0.1}), (((2, 0),), {"rtol": 0.1})),
    reference=lambda x, rtol: np.linalg.pinv(x, rtol),
    tolerance=64,
    **OPTIONS,
)
def pseudo_inverse(xp, x, /, rtol):
    r"""The pseudo-inverse, :math:`V S^{-1} U^T`; what is at most `rtol` times the largest is 0."""
    u, s, vh = xp.svd_factors(x, False)
    kept = s > rtol * xp.max(s, axis=-1, keepdims=True) if s.size else s > 0.0
    s = xp.where(kept, 1.0 / xp.where(kept, s, 1.0), 0.0)
    return xp.matmul(_scaled(xp, _t(xp, vh), s), _t(xp, u))


def _pinv_gradient(xp, g, out, x):
    p, g = _t(xp, out), _t(xp, g)
    within = xp.matmul(xp.matmul(p, _t(xp, g)), p)
    left = xp.matmul(g - xp.matmul(x, xp.matmul(out, g)), xp.matmul(out, p))
    right = xp.matmul(xp.matmul(p, out), g - xp.matmul(xp.matmul(g, out), x))
    return left + right - within


pseudo_inverse.vjp(x=_pinv_gradient)


@composite(
    numpy=np.linalg.pinv,
    cases=((((3, 2),), {"rtol": 0.01}), (((2, 3),), {"rcond": 0.1})),
    tolerance=64,
    **OPTIONS,
)
def pinv(x, rcond: float | None = None, hermitian=False, rtol: float | None = 1e-15):
    r"""The pseudo-inverse, :math:`V S^{-1} U^T`, without the singular values near 0.

    `pinv(a) @ b` is the least-squares solution of least norm. The gradient is that at constant
    rank, the only one there is.

    Args:
        x: Matrices.
        rcond: What `rtol` was called before; it goes first.
        hermitian: Whether only the lower triangle of a symmetric matrix is meant.
        rtol: What is at most `rtol` times the largest singular value counts as 0; None for the
            longer axis times the spacing of the dtype.

    Source: Golub and Pereyra, The differentiation of pseudo-inverses (1973).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[2.0], [0.0]])
        >>> mg.linalg.pinv(x)
        Tensor([[0.5, 0. ]])
        >>> mg.grad(lambda x: mg.linalg.pinv(x)[0, 0])(x).tolist()
        [[-0.25], [0.0]]
    """
    x = _matrices("pinv", x, square=hermitian)
    rtol = EPS.get(x.dtype.char, EPS["d"]) * builtins.max(x.shape[-2:]) if rtol is None else rtol
    return pseudo_inverse(mirrored(x) if hermitian else x, rtol if rcond is None else rcond)


@composite(
    numpy=np.linalg.matrix_power,
    cases=tuple((((3, 3),), {"n": n}) for n in (3, -2, 0)),
    tolerance=64,
    **OPTIONS,
)
def matrix_power(x, n: int):
    r"""A whole power of square matrices, :math:`X^n`; of the inverse if it is negative; composed.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 1.0], [0.0, 1.0]])
        >>> mg.linalg.matrix_power(x, 3).tolist()
        [[1.0, 3.0], [0.0, 1.0]]
        >>> mg.grad(lambda x: mg.linalg.matrix_power(x, 2)[0, 1])(x).tolist()
        [[1.0, 2.0], [0.0, 1.0]]
    """
    _matrices("matrix_power", x)
    if not isinstance(n, (int, np.integer)):
        raise TypeError(f"matrix_power: n must be an integer, got {n!r}")
    x, n = (inv(x), -n) if n < 0 else (x, n)
    if n == 0:
        return copy(broadcast_to(x.backend.xp.eye(x.shape[-1], dtype=x.dtype), x.shape))
    half = matrix_power(x, n // 2) if n > 1 else None
    return x if half is None else half @ half @ x if n % 2 else half @ half


# ----------------------------------------------------------------------------- determinants


@primitive(numpy=np.linalg.det, cases=SQUARE, tolerance=16, **OPTIONS)
def det(xp, x, /):
    r"""The determinant of square matrices, :math:`\det X`.

    Its gradient, the matrix of cofactors, is right for singular matrices too, as is the second
    derivative; that one needs memory for :math:`n^3` numbers.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[2.0, 1.0], [4.0, 2.0]])
        >>> mg.linalg.det(x)
        Tensor(0.)
        >>> mg.grad(mg.linalg.det)(x).tolist()
        [[2.0, -4.0], [-1.0, 2.0]]
    """
    return xp.det(_matrices("det", x))


det.vjp(x=lambda xp, g, x: _column(xp, g) * xp.cofactors(x))


@primitive(
    cases=SQUARE,
    reference=lambda x: np.linalg.det(x)[..., None, None] * np.linalg.inv(x).mT,
    tolerance=64,
    **OPTIONS,
)
def cofactors(xp, x, /):
    r"""The gradient of the determinant, :math:`\det(X) X^{-T}`, for singular matrices too."""
    return xp.cofactors(_matrices("cofactors", x))


def _cofactors_gradient(xp, g, x):
    """Between singular vectors, from the products of all singular values but two."""
    u, s, vh = xp.svd_factors(x, False)
    n = s.shape[-1]
    one = xp.eye(n, dtype=bool)
    left_out = xp.reshape(one, (n, 1, n)) | xp.reshape(one, (1, n, n))
    others = xp.prod(xp.where(left_out, 1.0, xp.expand_dims(xp.expand_dims(s, -2), -2)), axis=-1)
    others = xp.where(one, 0.0, others)
    g = xp.matmul(xp.matmul(_t(xp, u), g), _t(xp, vh))
    traces = xp.matmul(others, xp.expand_dims(_diagonal(xp, g), -1))
    inner = xp.where(one, traces, -others * _t(xp, g))
    sign = xp.sign(xp.det(u) * xp.det(vh))
    return _column(xp, sign) * xp.matmul(xp.matmul(u, inner), vh)


cofactors.vjp(x=_cofactors_gradient)


@primitive(outputs=True, cases=SQUARE, reference=np.linalg.slogdet, tolerance=16, **OPTIONS)
def slogdet_parts(xp, x, /):
    r"""The sign of the determinant and the logarithm of its size, :math:`\ln|\det X|`."""
    return xp.slogdet_parts(x)


def _slogdet_gradient(xp, g, out, x):
    nothing = "is singular: the logarithm of its determinant has no gradient"
    singular = out[1] == -float("inf")
    xp.refuse(singular & (g[1] != 0), "slogdet", nothing)
    x = xp.where(_column(xp, singular), xp.eye(x.shape[-1], dtype=x.dtype), x)
    return _column(xp, g[1]) * _t(xp, xp.inv(x))


slogdet_parts.vjp(x=_slogdet_gradient)


SlogdetResult = namedtuple("SlogdetResult", "sign logabsdet")


@composite(numpy=np.linalg.slogdet, outputs=True, cases=SQUARE, tolerance=16, **OPTIONS)
def slogdet(x) -> SlogdetResult:
    r"""`(sign, logabsdet)`: the sign of the determinant, and :math:`\ln|\det X|`.

    Raises:
        LinAlgError: On the reverse pass, for a singular matrix.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> mg.linalg.slogdet(x).sign
        Tensor(-1.)
        >>> mg.grad(lambda x: mg.linalg.slogdet(x).logabsdet)(x).reshape(-1)
        Tensor([-2. ,  1.5,  1. , -0.5])
    """
    return SlogdetResult(*slogdet_parts(_matrices("slogdet", x)))


# ----------------------------------------------------------------------------- factorizations


@primitive(
    cases=((((2, 3, 3),), {}),),
    reference=lambda x: np.tril(x) + np.tril(x, -1).mT,
    smooth=of_symmetric,
    **OPTIONS,
)
def mirrored(xp, x, /):
    r"""The symmetric matrix of which only the lower triangle is read; so is its gradient."""
    return xp.where(_lower(xp, xp.ones_like(x)) > 0, x, _t(xp, x))


mirrored.vjp(x=lambda xp, g: 0.5 * (g + _t(xp, g)))


@primitive(
    numpy=np.linalg.cholesky,
    cases=((((3, 3),), {}), (((2, 2, 2),), {"upper": True}), (((0, 0),), {})),
    smooth=of_symmetric,
    tolerance=16,
    **OPTIONS | {"domain": positive_definite},
)
def cholesky(xp, x, /, upper=False):
    r"""The lower triangle L of :math:`X = L L^T`, or the upper one of :math:`X = U^T U`.

    X is symmetric: only the triangle of that name is read, and the gradient is symmetric.

    Raises:
        LinAlgError: If X is not positive definite, at the call; on CuPy at the next transfer.

    Source: Murray, Differentiation of the Cholesky decomposition (2016).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[4.0, 2.0], [2.0, 5.0]])
        >>> mg.linalg.cholesky(x).tolist()
        [[2.0, 0.0], [1.0, 2.0]]
        >>> mg.grad(lambda x: mg.linalg.cholesky(x)[0, 0])(x).tolist()
        [[0.25, 0.0], [0.0, 0.0]]
    """
    _matrices("cholesky", x)
    return _t(xp, xp.cholesky(_t(xp, x))) if upper else xp.cholesky(x)


def _cholesky_gradient(xp, g, out, upper):
    lower, g = (_t(xp, out), _t(xp, g)) if upper else (out, g)
    inner = xp.matmul(_t(xp, lower), g)
    inner = 0.5 * (_lower(xp, inner) + _lower(xp, inner, strict=True))
    inverse = xp.inv(lower)
    whole = xp.matmul(xp.matmul(_t(xp, inverse), inner), inverse)
    return 0.5 * (whole + _t(xp, whole))


cholesky.vjp(x=_cholesky_gradient)


@primitive(
    outputs=True,
    cases=((((3, 3),), {}), (((2, 3, 2),), {}), (((2, 3),), {}), (((2, 2),), {"mode": "complete"})),
    reference=np.linalg.qr,
    smooth=without_signs,
    tolerance=32,
    **OPTIONS,
)
def qr_factors(xp, x, /, mode="reduced"):
    r"""The factors of :math:`X = Q R` as a list."""
    return xp.qr_factors(x, mode)


def _qr_gradient(xp, g, out):
    (q, r), (gq, gr) = out, g
    m, n = q.shape[-2], r.shape[-1]
    k = builtins.min(m, n)
    if q.shape[-1] > k:
        many = "has more rows than columns: use mode='reduced' for a gradient through Q"
        xp.refuse(xp.any(_used(xp, gq)[..., k:], axis=-1), "qr", many)
        q, r, gq, gr = q[..., :k], r[..., :k, :], gq[..., :k], gr[..., :k, :]
    pivots = xp.absolute(_diagonal(xp, r[..., :k]))
    small = pivots <= EPS.get(r.dtype.char, EPS["d"]) * n * xp.sum(pivots, -1, keepdims=True)
    dependent = "has linearly dependent columns, where Q R has no gradient"
    xp.refuse(xp.any(small, axis=-1), "qr", dependent)
    if n > k:  # the columns behind are Q^T X
        gq = gq + xp.matmul(xp.matmul(q, r[..., k:]), _t(xp, gr[..., k:]))
        behind = xp.matmul(q, gr[..., k:])
        r, gr = r[..., :k], gr[..., :k]
    inner = xp.matmul(r, _t(xp, gr)) - xp.matmul(_t(xp, gq), q)
    inner = _lower(xp, inner) + _t(xp, _lower(xp, inner, strict=True))
    front = _t(xp, xp.solve(r, _t(xp, gq + xp.matmul(q, inner))))
    return xp.concatenate([front, behind], axis=-1) if n > k else front


qr_factors.vjp(x=_qr_gradient)


QRResult = namedtuple("QRResult", "Q R")


@composite(
    numpy=np.linalg.qr,
    outputs=True,
    cases=((((3, 2),), {}),),
    smooth=without_signs,
    tolerance=32,
    **OPTIONS,
)
def qr(x, mode="reduced") -> Any:
    r"""`(Q, R)` with :math:`X = Q R`, Q orthogonal and R upper triangular; `mode="r"`: R alone.

    With `mode="complete"` the columns of Q that X does not determine have no gradient.

    Raises:
        LinAlgError: On the reverse pass, if the leading columns of X are linearly dependent, or if
            a gradient reaches undetermined columns of Q.

    Source: Liao et al., Differentiable programming tensor networks (2019).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[-3.0], [-4.0]])
        >>> mg.linalg.qr(x).R
        Tensor([[5.]])
        >>> mg.grad(lambda x: mg.linalg.qr(x).R.sum())(x).reshape(-1)
        Tensor([-0.6, -0.8])
    """
    if mode not in ("reduced", "complete", "r"):
        raise ValueError(f"qr: mode must be 'reduced', 'complete' or 'r', got {mode!r}")
    out = qr_factors(_matrices("qr", x, square=False), mode="reduced" if mode == "r" else mode)
    return out[1] if mode == "r" else QRResult(*out)


def _inverse_gaps(xp, name, what, w, used):
    """:math:`1 / (w_j - w_i)`, and 0 for those too near, which no gradient may have used."""
    gaps = xp.expand_dims(w, -2) - xp.expand_dims(w, -1)
    size = xp.sum(xp.absolute(w), axis=-1, keepdims=True) * builtins.max(w.shape[-1], 1) ** -0.5
    size = xp.expand_dims(size, -1)
    near = xp.absolute(gaps) <= 4.0 * EPS.get(w.dtype.char, EPS["d"]) * size
    other = xp.logical_not(xp.eye(w.shape[-1], dtype=bool))
    reached = xp.expand_dims(used, -2) | xp.expand_dims(used, -1)
    if w.shape[-1]:
        smallest = xp.min(xp.where(other, xp.absolute(gaps), float("inf")), axis=(-2, -1))
        bad = xp.any(near & other & reached, axis=(-2, -1))
        xp.refuse(bad, name, REPEATED.format(what), smallest)
    return xp.where(near, 0.0, 1.0 / xp.where(near, 1.0, gaps))


@primitive(
    outputs=True,
    cases=((((3, 3),), {}), (((2, 2, 2),), {"UPLO": "U"}), (((0, 0),), {})),
    reference=np.linalg.eigh,
    smooth=vectors_without_signs,
    tolerance=32,
    **OPTIONS | {"domain": positive_definite},
)
def eigh_factors(xp, x, /, UPLO="L"):
    r"""Eigenvalues and eigenvectors of symmetric matrices as a list."""
    return xp.eigh_factors(x, UPLO)


def _eigh_gradient(xp, g, out):
    (w, v), (gw, gv) = out, g
    inverse = _inverse_gaps(xp, "eigh", "eigenvalues", w, _used(xp, gv))
    inner = inverse * xp.matmul(_t(xp, v), gv)
    x = xp.matmul(xp.matmul(v, inner) + _scaled(xp, v, gw), _t(xp, v))
    return 0.5 * (x + _t(xp, x))


eigh_factors.vjp(x=_eigh_gradient)


EighResult = namedtuple("EighResult", "eigenvalues eigenvectors")


@composite(
    numpy=np.linalg.eigh,
    outputs=True,
    cases=((((2, 2),), {"UPLO": "U"}),),
    smooth=vectors_without_signs,
    tolerance=32,
    **OPTIONS | {"domain": positive_definite},
)
def eigh(x, UPLO="L") -> EighResult:
    r"""`(eigenvalues, eigenvectors)` of symmetric matrices, :math:`X = V \mathrm{diag}(w) V^T`.

    The eigenvalues ascend. Only the lower (`UPLO="U"`: upper) triangle is read; the gradient is
    that among symmetric matrices, itself symmetric, as in PyTorch and JAX. The sign of each
    eigenvector is left open, so a loss should not depend on it.

    Raises:
        LinAlgError: On the reverse pass, if a gradient reaches the vectors of eigenvalues that
            are equal within rounding. Through the eigenvalues alone there always is one.

    Source: Giles, Collected matrix derivative results for forward and reverse mode AD (2008).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> mg.linalg.eigh(x).eigenvalues
        Tensor([1., 3.])
        >>> mg.grad(lambda x: mg.linalg.eigh(x).eigenvalues[1])(x).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    if UPLO not in ("L", "U"):
        raise ValueError(f"eigh: UPLO must be 'L' or 'U', got {UPLO!r}")
    return EighResult(*eigh_factors(_matrices("eigh", x), UPLO=UPLO))


@composite(
    numpy=np.linalg.eigvalsh,
    cases=((((3, 3),), {"UPLO": "U"}),),
    smooth=of_symmetric,
    tolerance=32,
    **OPTIONS | {"domain": positive_definite},
)
def eigvalsh(x, UPLO="L"):
    r"""The eigenvalues of symmetric matrices, ascending (see `eigh`); composed.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> mg.linalg.eigvalsh(x)
        Tensor([1., 3.])
        >>> mg.grad(lambda x: mg.linalg.eigvalsh(x)[0])(x).tolist()
        [[0.0, 0.0], [0.0, 1.0]]
    """
    return eigh(x, UPLO).eigenvalues


@primitive(
    outputs=True,
    cases=(
        (((3, 3),), {}),
        (((2, 3, 2),), {}),
        (((2, 3),), {}),
        (((2, 2),), {"full_matrices": True}),
        (((0, 0),), {}),
    ),
    reference=lambda x, full_matrices=False: np.linalg.svd(x, full_matrices),
    smooth=without_signs,
    tolerance=32,
    **OPTIONS,
)
def svd_factors(xp, x, /, full_matrices=False):
    r"""The factors of the singular value decomposition as a list."""
    return xp.svd_factors(x, full_matrices)


def _svd_gradient(xp, g, out):
    (u, s, vh), (gu, gs, gvh) = out, g
    m, n, k = u.shape[-2], vh.shape[-1], s.shape[-1]
    v, gv = _t(xp, vh), _t(xp, gvh)
    if u.shape[-1] > k or v.shape[-1] > k:
        beyond = _used(xp, gu)[..., k:], _used(xp, gv)[..., k:]
        more = "is not square: use full_matrices=False for a gradient through U and Vh"
        xp.refuse(xp.any(xp.concatenate(beyond, axis=-1), axis=-1), "svd", more)
        u, v, gu, gv = u[..., :k], v[..., :k], gu[..., :k], gv[..., :k]
    used = _used(xp, gu) | _used(xp, gv)
    inverse = _inverse_gaps(xp, "svd", "singular values", s, used)
    total = xp.expand_dims(s, -2) + xp.expand_dims(s, -1)
    inverse = inverse / xp.where(total == 0, 1.0, total)
    left, right = xp.matmul(_t(xp, u), gu), xp.matmul(_t(xp, v), gv)
    left, right = inverse * (left - _t(xp, left)), inverse * (right - _t(xp, right))
    inner = _scaled(xp, left, s) + xp.expand_dims(s, -1) * right
    x = xp.matmul(xp.matmul(u, inner) + _scaled(xp, u, gs), _t(xp, v))
    if m == n:
        return x
    nothing = s <= EPS.get(s.dtype.char, EPS["d"]) * xp.sum(s, axis=-1, keepdims=True)
    zero = "has a singular value of 0, where no gradient through the vectors exists"
    xp.refuse(xp.any(nothing & used, axis=-1), "svd", zero)
    s = xp.where(nothing, 1.0, s)
    if m > k:
        rest = _scaled(xp, gu - xp.matmul(u, xp.matmul(_t(xp, u), gu)), 1.0 / s)
        return x + xp.matmul(rest, _t(xp, v))
    rest = _scaled(xp, gv - xp.matmul(v, xp.matmul(_t(xp, v), gv)), 1.0 / s)
    return x + xp.matmul(u, _t(xp, rest))


svd_factors.vjp(x=_svd_gradient)


SVDResult = namedtuple("SVDResult", "U S Vh")


@composite(
    numpy=np.linalg.svd,
    outputs=True,
    cases=((((3, 2),), {"full_matrices": False}), (((2, 2),), {})),
    smooth=without_signs,
    tolerance=32,
    **OPTIONS,
)
def svd(x, full_matrices=True, compute_uv=True, hermitian=False) -> Any:
    r"""`(U, S, Vh)` with :math:`X = U \mathrm{diag}(S) V^T`; without `compute_uv` S alone.

    The singular values descend. With `full_matrices` U and Vh are square: what X does not
    determine of them has no gradient. The signs of the vectors are left open, so a loss should not
    depend on them. With `hermitian` only the lower triangle of a symmetric matrix is meant.

    Raises:
        LinAlgError: On the reverse pass, if a gradient reaches the vectors of singular values that
            are equal within rounding (or 0, if X is not square), or undetermined vectors. Through
            the singular values alone there always is one.

    Source: Giles, Collected matrix derivative results for forward and reverse mode AD (2008).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[3.0, 0.0], [0.0, -1.0]])
        >>> mg.linalg.svd(x).S
        Tensor([3., 1.])
        >>> mg.grad(lambda x: mg.linalg.svd(x).S[1])(x).tolist()
        [[0.0, 0.0], [0.0, -1.0]]
    """
    x = _matrices("svd", x, square=hermitian)
    x = mirrored(x) if hermitian else x
    out = svd_factors(x, full_matrices=full_matrices and compute_uv)
    return SVDResult(*out) if compute_uv else out[1]


@composite(numpy=np.linalg.svdvals, cases=((((3, 2),), {}),), tolerance=32, **OPTIONS)
def svdvals(x):
    r"""The singular values, descending; composed.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[3.0, 0.0], [0.0, -1.0]])
        >>> mg.linalg.svdvals(x)
        Tensor([3., 1.])
        >>> mg.grad(lambda x: mg.linalg.svdvals(x).sum())(x).tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    return svd(x, compute_uv=False)


# ----------------------------------------------------------------------------- norms


@primitive(
    space="linalg",
    cases=CASES[:-2],
    kind="reduction",
    reference=lambda x, axis=None, keepdims=False: np.sqrt(
        np.sum(x * x, axis=axis, keepdims=keepdims)
    ),
)
def euclidean(xp, x, /, axis=None, keepdims=False):
    r"""The Euclidean norm over the given axes, :math:`\sqrt{\sum_i x_i^2}`; its slope at 0 is 0."""
    wide = {"f": x.dtype, "e": "float32"}.get(x.dtype.char, "float64")  # else squares overflow
    out = xp.astype(x, wide)
    out = xp.sqrt(xp.sum(out * out, axis=axis, keepdims=keepdims))
    return xp.astype(out, x.dtype) if x.dtype.kind == "f" else out


euclidean.vjp(x=lambda xp, g, out, x, axis: spread(xp, over_or_zero(xp, g, out), x.shape, axis) * x)


@composite(
    numpy=np.linalg.norm,
    method=True,
    cases=(
        (((4,),), {}),
        (((3, 4),), {"axis": -1, "keepdims": True}),
        (((2, 3),), {"ord": "fro"}),
        (((2, 3),), {"ord": 1}),
        (((2, 3, 2),), {"ord": -2, "axis": (0, 2)}),
        (((2, 3, 2),), {"ord": "nuc", "axis": (2, 0), "keepdims": True}),
        (((3, 2),), {"ord": float("inf")}),
        (((2, 3),), {"ord": 3, "axis": 0}),
        (((4,),), {"ord": -float("inf")}),
        (((4,),), {"ord": 1.5}),
    ),
    kinks=(0,),
    precisions=("float32",),
    tolerance=32,
    conventions=(
        ("norm at 0", ([0.0, 0.0],), {}, ([0.0, 0.0],)),
        ("norm, ord 1, at 0", ([0.0, 2.0],), {"ord": 1}, ([0.0, 1.0],)),
        ("norm, ord inf, at a tie", ([2.0, -2.0],), {"ord": float("inf")}, ([0.5, -0.5],)),
        ("norm, ord 3, at 0", ([0.0, 0.0],), {"ord": 3}, ([0.0, 0.0],)),
        ("norm, ord 'nuc', at 0", ([[0.0, 0.0]],), {"ord": "nuc"}, ([[0.0, 0.0]],)),
    ),
)
def norm(
    x,
    ord: float | str | None = None,
    axis: int | Sequence[int] | None = None,
    keepdims=False,
):
    r"""`numpy.linalg.norm`: of vectors :math:`(\sum_i |x_i|^p)^{1/p}`, or of matrices; composed.

    Args:
        x: Vectors or matrices.
        ord: Of a vector any number, infinity or 0 (how many are not 0); of a matrix "fro" (the
            default), "nuc", 2, -2 (of the singular values the sum, the largest, the smallest), 1,
            -1, inf, -inf (sums of columns, of rows: the largest, the smallest). Without an order
            and an axis, the Euclidean norm of all elements.
        axis: One axis for vectors, two for matrices.
        keepdims: Whether the reduced axes stay, with length 1.

    Where there is a corner the gradient is the shortest there is: 0 at 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.norm)(mg.tensor([3.0, 4.0]))
        (Tensor(5.), Tensor([0.6, 0.8]))
        >>> mg.value_and_grad(mg.norm)(mg.tensor([2.0, -2.0]), ord=float("inf"))
        (Tensor(2.), Tensor([ 0.5, -0.5]))
    """
    ord = static("norm", "ord", ord)
    if ord is None and axis is None:
        return euclidean(x, keepdims=keepdims)
    axis = tuple(range(x.ndim)) if axis is None else axis
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if len(axes) not in (1, 2) or (len(axes) == 2 and (axes[0] - axes[1]) % (x.ndim or 1) == 0):
        wanted = "one axis, or two different ones, have an order"
        raise ValueError(f"norm: {wanted}, got axis={axis}, shape {x.shape}")
    if ord in (None, "fro" if len(axes) == 2 else 2):
        return euclidean(x, axis=axes, keepdims=keepdims)
    x = x if x.dtype.kind == "f" else astype(x, "float64")
    out = (_vector_norm if len(axes) == 1 else _matrix_norm)(x, ord, axes)
    return out if keepdims else squeeze(out, axis=axes)


#: The orders of matrices that are extremes: of sums, or of singular values.
EXTREMES = {1: max, -1: min, 2: max, -2: min, float("inf"): max, -float("inf"): min}


def _vector_norm(x, ord, axes):
    if isinstance(ord, str):
        raise ValueError(f"norm: ord={ord!r} is for matrices, and one axis was given")
    if ord == 0:
        return sum(astype(x != 0, x.dtype), axis=axes, keepdims=True)
    x = absolute(x)
    if ord in (float("inf"), -float("inf")):
        return EXTREMES[ord](x, axis=axes, keepdims=True)
    if ord == 1:
        return sum(x, axis=axes, keepdims=True)
    zero = x == 0  # where powers have no slope, or an infinite one
    nothing = 0.0 if ord > 0 else float("inf")  # what 0 becomes, each way
    terms = where(zero, nothing, power(where(zero, 1.0, x), ord))
    total = sum(terms, axis=axes, keepdims=True)
    return where(total == 0, nothing, power(where(total == 0, 1.0, total), 1.0 / ord))


def _matrix_norm(x, ord, axes):
    rows, columns = axes
    if ord == "nuc" or ord in (2, -2):
        values = absolute(svdvals(moveaxis(x, axes, (-2, -1))))  # of 0, a corner
        out = (sum if ord == "nuc" else EXTREMES[ord])(values, axis=-1)
        return expand_dims(out, tuple(a % x.ndim for a in axes))
    if ord not in EXTREMES:
        raise ValueError(f"norm: a matrix has ord 'fro', 'nuc', 1, 2, inf or -inf, got {ord!r}")
    along, across = (rows, columns) if ord in (1, -1) else (columns, rows)
    return EXTREMES[ord](sum(absolute(x), axis=along, keepdims=True), axis=across, keepdims=True)
