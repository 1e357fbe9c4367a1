"""Linear algebra, as `numpy.linalg`: what can be differentiated there, and `solve_triangular`.

    >>> import microgradnd as mg
    >>> x = mg.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> mg.linalg.eigvalsh(x)
    Tensor([1., 3.])
    >>> mg.grad(mg.linalg.det)(x).tolist()
    [[2.0, -1.0], [-1.0, 2.0]]

All of it takes batches of matrices, in the last two axes; `float16` is refused, as by NumPy. Where
a value or a gradient does not exist there is a `LinAlgError`: on NumPy at once, on CuPy at the next
transfer, for a look at every call would wait for the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from .ops.indexing import trace as _trace
from .ops.linalg import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    inv,
    matrix_power,
    norm,
    pinv,
    qr,
    slogdet,
    solve,
    solve_triangular,
    svd,
    svdvals,
)
from .registry import OVERRIDES

__all__ = [
    "LinAlgError",
    "cholesky",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matrix_power",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "trace",
]


def trace(x: Any, /, *, offset: int = 0) -> Any:
    r"""The sum of the diagonal of each matrix, :math:`\sum_i x_{i, i + k}`; k is the `offset`.

    Example:
        >>> import microgradnd as mg
        >>> mg.grad(mg.linalg.trace)(mg.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return _trace(x, offset, -2, -1)


OVERRIDES[np.linalg.trace] = trace
