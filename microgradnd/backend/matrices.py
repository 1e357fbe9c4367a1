"""Linear algebra of `xp`: the same names for NumPy, which raises, and CuPy, which does not look.

NumPy's error does not say which matrix of a batch it is about; here it does. On CuPy nothing is
raised, for that would wait for the device: what came out is tested there, by `refuse`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

SINGULAR = "is singular: it has no inverse; linalg.pinv gives what comes nearest"
INDEFINITE = "is not positive definite; add a multiple of the identity"
INFINITE = "has no singular values that could be found; is it finite?"
#: What goes wrong in NumPy's functions, and the function that tells of one matrix whether it does.
FAILURES: dict[str, tuple[str, Callable[..., Any]]] = {
    "inv": (SINGULAR, np.linalg.inv),
    "solve": (SINGULAR, np.linalg.inv),
    "cholesky": (INDEFINITE, np.linalg.cholesky),
    "svd": (INFINITE, np.linalg.svd),
}


def fault(where: str, what: str, place: int, batch: tuple[int, ...] | None) -> Exception:
    """Make the error about one matrix of a batch; of several batches the shape is None."""
    at = [int(i) for i in np.unravel_index(place, batch)] if batch else None
    which = f"matrix {at} of the batch" if at else "the matrix" if batch == () else "a matrix"
    return np.linalg.LinAlgError(f"{where}: {which} {what}")


def refuse(bad: Any, where: str, what: str, gaps: Any = None) -> None:
    """Raise LinAlgError for the first matrix of a batch that is bad, and say its smallest gap."""
    if np.any(bad):
        place = int(np.argmax(bad))
        what += "" if gaps is None else f" (the smallest gap is {np.ravel(gaps)[place]:.3g})"
        raise fault(where, what, place, np.shape(bad))


def located(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give NumPy's function with an error that names the operation and the matrix."""
    what, probe = FAILURES[name]

    def fails(matrix: Any) -> bool:
        try:
            probe(matrix)
        except np.linalg.LinAlgError:
            return True
        return False

    def run(x: Any, *rest: Any) -> Any:
        try:
            return function(x, *rest)
        except np.linalg.LinAlgError:
            bad = [fails(matrix) for matrix in x.reshape(-1, *x.shape[-2:])]
            refuse(np.reshape(bad, x.shape[:-2]), name, what)
            raise

    return run


def functions(module: Any, refuse: Callable[..., None]) -> dict[str, Callable[..., Any]]:
    """Give the functions for a library that does not look whether it failed."""
    linalg = module.linalg

    def finite(x: Any) -> Any:
        return module.isfinite(x).all(axis=(-2, -1))

    def solve(a: Any, b: Any) -> Any:
        """CuPy broadcasts no batches; a zero pivot leaves infinities."""
        column = b.ndim == 1
        b = module.expand_dims(b, -1) if column else b
        batch = module.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (module.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
        x = linalg.solve(a, b)
        refuse(finite(a) & finite(b) & ~finite(x), "solve", SINGULAR)
        return module.squeeze(x, -1) if column else x

    def inv(x: Any) -> Any:
        """As a solution: of a singular batch CuPy's own `inv` leaves what lay in memory."""
        one = module.broadcast_to(module.eye(x.shape[-1], dtype=x.dtype), x.shape)
        out = linalg.solve(x, one)
        refuse(finite(x) & ~finite(out), "inv", SINGULAR)
        return out

    def cholesky(x: Any) -> Any:
        out = linalg.cholesky(x)
        pivots = module.diagonal(out, 0, -2, -1)
        refuse(finite(x) & ~(pivots > 0).all(axis=-1), "cholesky", INDEFINITE)
        return out

    def svd_factors(x: Any, full_matrices: bool) -> Any:
        out = linalg.svd(x, full_matrices=full_matrices)
        refuse(~module.isfinite(out[1]).all(axis=-1), "svd", INFINITE)
        return tuple(out)

    def cofactors(x: Any) -> Any:
        r"""From the singular values: :math:`U \mathrm{diag}(\prod_{j \ne i} s_j) V^T`, signed."""
        broken = module.expand_dims(module.expand_dims(~finite(x), -1), -1)
        u, s, vh = linalg.svd(module.where(broken, 0.0, x), full_matrices=False)
        sign = linalg.det(u) * linalg.det(vh)
        own = module.eye(s.shape[-1], dtype=bool)
        others = module.prod(module.where(own, 1.0, module.expand_dims(s, -2)), axis=-1)
        others = module.expand_dims(module.expand_dims(sign, -1) * others, -2)
        return module.where(broken, math.nan, module.matmul(u * others, vh))

    return {
        "solve": solve,
        "inv": inv,
        "cholesky": cholesky,
        "svd_factors": svd_factors,
        "cofactors": cofactors,
        "det": linalg.det,
        "slogdet_parts": lambda x: tuple(linalg.slogdet(x)),
        "qr_factors": lambda x, mode: tuple(linalg.qr(x, mode=mode)),
        "eigh_factors": lambda x, UPLO: tuple(linalg.eigh(x, UPLO)),
    }


def numpy_functions(general: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Give what NumPy does itself, with the errors above."""

    def cofactors(x: Any) -> Any:
        """By the inverse, in a tenth of the time; not where the determinant leaves the range."""
        try:
            inverse = np.swapaxes(np.linalg.inv(x), -1, -2)
        except np.linalg.LinAlgError:
            return general(x)
        det = np.linalg.det(x)
        sound = np.logical_and.reduce(np.isfinite(det) & (det != 0), axis=None)
        return det[..., None, None] * inverse if sound else general(x)

    def svd_factors(x: Any, full_matrices: bool) -> Any:
        """Nothing but finite matrices: of an infinity OpenBLAS may search for ever."""
        refuse(~np.isfinite(x).all(axis=(-2, -1)), "svd", INFINITE)
        return tuple(np.linalg.svd(x, full_matrices))

    return {
        "solve": located("solve", np.linalg.solve),
        "inv": located("inv", np.linalg.inv),
        "cholesky": located("cholesky", np.linalg.cholesky),
        "svd_factors": located("svd", svd_factors),
        "cofactors": cofactors,
    }

