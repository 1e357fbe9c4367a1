"""Make the stand-in round as a GPU may: functions some ulp off, sums in another order.

NumPy's results are moved by a share of what CUDA's documentation allows its functions and of what
another order of a sum can change. The share is a hash of the result, so that equal operands give
equal results, as on a device. Correctly rounded operations (`+ - * /`, `sqrt`) stay as they are.

`pytest -p rough`, with `tests/pretend` and `tests` on `PYTHONPATH`, runs tests on it.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import standin

#: Units in the last place that a function may be off, by CUDA's mathematical functions of floats.
ULPS = dict.fromkeys(["exp", "exp2", "log10", "sin", "cos", "cosh", "tanh"], 2.0)
ULPS |= dict.fromkeys(["arcsin", "arccos", "arctan", "erf", "logaddexp"], 2.0)
ULPS |= dict.fromkeys(["expm1", "log", "log1p", "log2"], 1.0)
ULPS |= dict.fromkeys(["sinh", "arcsinh", "arctanh"], 3.0)
ULPS |= dict.fromkeys(["tan", "arccosh", "power", "erfc"], 4.0)
SUMS = ["sum", "mean", "matmul", "einsum", "dot", "tensordot", "cumsum", "var", "std"]
UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def share(x):
    """Numbers in [-1, 1) that depend on the bits of floats and on nothing else."""
    bits = x.view(UNSIGNED[x.itemsize]).astype(np.uint64)
    return (bits * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) / 2.0**23 - 1.0


def moved(result, scale):
    """Move floats by up to `scale` (an array, or a number of ulps of each)."""
    result = np.asarray(result)
    if result.dtype.kind != "f" or not np.isfinite(result).any():
        return result
    if not isinstance(scale, np.ndarray):
        scale = scale * np.abs(result)
    with np.errstate(all="ignore"):
        step = share(result) * scale * np.finfo(result.dtype).eps
        return np.where(np.isfinite(result), result + step, result).astype(result.dtype)


def whole(x):
    """Whether all floats among a function's operands are whole numbers: then sums are exact."""
    if isinstance(x, list | tuple):
        return all(map(whole, x))
    return not (isinstance(x, np.ndarray) and x.dtype.kind == "f" and (x != np.rint(x)).any())


def magnitudes(x):
    """Absolute values of the floats among a function's operands."""
    if isinstance(x, list | tuple):
        return type(x)(map(magnitudes, x))
    return np.abs(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


@contextmanager
def rough():
    """Make the stand-in rough inside a block."""
    plain = standin.run

    def run(name, function, *args, **kwargs):
        def other(*args, **kwargs):
            result = np.asarray(function(*args, **kwargs))
            if result.dtype.kind != "f" or whole(args):
                return result
            options = {k: v for k, v in kwargs.items() if k != "out"}
            size = np.asarray(function(*magnitudes(args), **options))
            result = moved(result, size.astype(np.float64))
            if kwargs.get("out") is not None:
                kwargs["out"][...] = result
                return kwargs["out"]
            return result

        known = name.rpartition(".")[2] in SUMS or name == "add.reduce"
        return plain(name, other if known else function, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(standin, "run", run))
        for name, ulps in ULPS.items():
            ufunc = getattr(standin.special if name in ("erf", "erfc") else standin.cupy, name)

            def host(*args, function=ufunc.host, ulps=ulps):
                result = np.asarray(function(*args))
                if result.dtype.kind == "O":  # of what NumPy lacks
                    result = result.astype(np.result_type(*args))
                return moved(result, ulps)

            stack.enter_context(mock.patch.object(ufunc, "host", host))
        yield


def pytest_configure(config):
    """As a plugin of pytest: all tests run on it."""
    stack = ExitStack()
    stack.enter_context(rough())
    config.add_cleanup(stack.close)
