r"""Error functions in plain NumPy, which has none: `erf` and `erfc` to 4 ulp in every float type.

With :math:`z = x^2` and :math:`s = (x - 2) / (x + 2)`, which maps :math:`[0, \infty)` to
:math:`[-1, 1)`:

* head: :math:`\mathrm{erf}(x) = x + x\,p(z)` for :math:`|x| < 1`;
* tail: :math:`\mathrm{erfc}(x) = e^{-x^2} q(s) / (x + 2)` for :math:`x \ge 0`.

The polynomials are our own minimax fits; `tests/data/make_erf.py` prints them.

Arrays are worked through in pieces that stay in the cache. Every piece takes both branches, and the
choice between them is made on the bits: `np.where` on an unpredictable mask costs as much as
fifteen additions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["erf", "erfc"]

_K = 2.0  # of the map s
_PIECE = 1 << 17  # bytes of one work array
_TWO_OVER_SQRT_PI = 1.1283791670955126
_ROUNDER = 1.5 * 2.0**31  # adding it to a float64 rounds to a multiple of 2^-21

# Highest power first. *32 is good to float32's precision, *64 to float64's.
_HEAD32 = (
    7.853844e-05,
    -0.0008010189,
    0.0051883273,
    -0.026853811,
    0.112835854,
    -0.37612626,
    0.12837917,
)
_TAIL32 = (
    -0.025412247,
    -0.037407678,
    0.2793821,
    -0.68716085,
    1.021583,
)
_FULL32 = (
    6.947546524591183e-05,
    4.693429167673016e-05,
    -0.000592554028015492,
    -0.0008320543979966216,
    0.0030626019645472176,
    0.006475874269221098,
    -0.02150572172373904,
    -0.036441782751787284,
    0.27947177081342417,
    -0.687160697124267,
    1.021582708678392,
)
_HEAD64 = (
    -7.77944891324782e-10,
    1.3710969859773255e-08,
    -1.6206311317613116e-07,
    1.644713125315939e-06,
    -1.492471227639966e-05,
    0.00012055293575585293,
    -0.0008548325929271576,
    0.00522397760611762,
    -0.026866170643111375,
    0.11283791670944185,
    -0.3761263890318352,
    0.12837916709551256,
)
_TAIL64 = (
    4.544182066801759e-05,
    0.00014606905565851092,
    3.365205814724882e-05,
    -0.0006633674599805726,
    -0.0008373142751078704,
    0.003090619552403039,
    0.006479186308792392,
    -0.021510661898002107,
    -0.03644223151881254,
    0.2794720925555823,
    -0.6871606844137945,
    1.0215827052420234,
)
_FULL64 = (
    -5.983467859718507e-09,
    -1.4957314596680287e-08,
    2.4683954717721033e-08,
    1.1214347861569963e-07,
    4.468151126122923e-08,
    -3.2033389240864675e-07,
    -6.157924628522551e-07,
    -4.5744597928050675e-09,
    2.0299601631508376e-06,
    3.6485589453269896e-06,
    -1.137826235549202e-06,
    -1.612293045493124e-05,
    -2.1692479687634566e-05,
    3.414942564469628e-05,
    0.00014446997133843388,
    3.4371349684133395e-05,
    -0.000663073400648664,
    -0.000837296054066471,
    0.003090612050781788,
    0.006479185067297829,
    -0.021510661889136,
    -0.036442231506868886,
    0.27947209255604905,
    -0.6871606844138106,
    1.021582705242023,
)

# head, tail, integer type of the same width, its bit pattern of 1.0
_ERF: dict[Any, tuple[tuple[float, ...], tuple[float, ...], Any, int]] = {
    np.dtype(np.float32): (_HEAD32, _TAIL32, np.int32, 0x3F800000),
    np.dtype(np.float64): (_HEAD64, _TAIL64, np.int64, 0x3FF0000000000000),
}


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """Evaluate a polynomial without its constant term into a new array, highest power first."""
    result = np.multiply(x, coefficients[0])
    for c in coefficients[1:-1]:
        result += c
        result *= x
    return result


def _over_gauss(coefficients: tuple[float, ...], x: Any, less: Any = None) -> Any:
    """Evaluate exp(x^2) erfc(x) - less for x >= 0 into a new array; `less` is used up."""
    below = x + _K
    s = np.divide(-2.0 * _K, below)
    s += 1.0  # (x - K) / (x + K), also at infinity
    result = _horner(coefficients, s)
    if less is not None:  # here, before the largest term is added, it costs the fewest digits
        less *= below
        result -= less
    result += coefficients[-1]
    result /= below
    return result


def _erf(x: Any) -> Any:
    head, tail, integer, one = _ERF[x.dtype]
    sign_bit = 8 * x.itemsize - 1
    size = np.absolute(x)
    z = x * x
    near = _horner(head, z)
    near += head[-1]
    near *= x
    near += x
    far = _over_gauss(tail, size)
    np.negative(z, out=z)
    far *= np.exp(z, out=z)
    np.subtract(1.0, far, out=far)
    # far, with the sign of x, gives way to near wherever |x| < 1: there, mask - one is negative,
    # and the shift spreads its sign over the word. Non-negative floats order as their bits do.
    chosen = far.view(integer)
    chosen |= x.view(integer) & (-1 << sign_bit)
    mask = size.view(integer)
    mask -= one
    mask >>= sign_bit
    mask &= chosen ^ near.view(integer)
    chosen ^= mask
    return far


def _reflect(value: Any, x: Any) -> Any:
    """Extend erfc to negative x, where it is 2 - erfc(-x), in place."""
    np.subtract(np.multiply(x < 0, 2.0), value, out=value)
    return np.absolute(value, out=value)


def _erfc32(x: Any) -> Any:
    """Erfc of float64 numbers, good to float32's precision."""
    size = np.absolute(x)
    np.minimum(size, 28.0, out=size)
    value = _over_gauss(_FULL32, size)
    size *= size
    np.negative(size, out=size)
    value *= np.exp(size, out=size)
    return _reflect(value, x)


def _erfc64(x: Any) -> Any:
    """Erfc of float64 numbers.

    The rounding error of x^2 would appear in exp(-x^2) some x^2 times larger. So x = a + h where a
    is the nearest multiple of 2^-21: its square and a + K are exact, and Taylor's series goes on:
    erfc(a + h) = erfc(a) - 2/sqrt(pi) exp(-a^2) h (1 - u + 2/3 u^2 ...), u = a h.
    """
    size = np.absolute(x)
    np.minimum(size, 28.0, out=size)
    a = size + _ROUNDER
    a -= _ROUNDER
    size -= a
    u = a * size
    step = u * (2.0 / 3.0)
    step -= 1.0
    step *= u
    step += 1.0
    step *= size
    step *= _TWO_OVER_SQRT_PI
    value = _over_gauss(_FULL64, a, step)
    a *= a
    np.negative(a, out=a)
    value *= np.exp(a, out=a)
    return _reflect(value, x)


def _by_pieces(name: str, x: Any, pick: Callable[[Any], tuple[Callable[[Any], Any], Any]]) -> Any:
    """Apply what `pick` gives for the result's dtype, a function and the dtype it computes in."""
    x = np.asarray(x)
    if x.dtype.kind not in "fiub" or x.itemsize > 8:
        raise TypeError(
            f"{name} takes float16, float32, float64 or integers, got {x.dtype}; convert it first"
        )
    if x.flags.fnc:  # keep the layout, and walk along the memory
        return _by_pieces(name, x.T, pick).T
    dtype = np.dtype(f"f{x.itemsize}") if x.dtype.kind == "f" else np.dtype(np.float64)
    function, working = pick(dtype)
    result = np.empty(x.shape, dtype)
    source, target = x.reshape(-1), result.reshape(-1)
    length = _PIECE // working.itemsize
    # Underflow, and overflow in the branch that is not taken, are no news to the caller.
    with np.errstate(all="ignore"):
        for i in range(0, source.size, length):
            piece = source[i : i + length].astype(working, copy=False)
            target[i : i + length] = function(piece)
    return result


def erf(x: Any) -> Any:
    r"""Error function, :math:`\frac{2}{\sqrt\pi} \int_0^x e^{-t^2} dt`, elementwise.

    Args:
        x: float16, float32, float64 or integers, of any shape.

    Returns:
        An array of the same shape and float type, integers giving float64; float16 is computed
        through float32.

    Raises:
        TypeError: for any other dtype.

    """
    return _by_pieces("erf", x, lambda dtype: (_erf, np.promote_types(dtype, np.float32)))


def erfc(x: Any) -> Any:
    r"""Complementary error function, :math:`1 - \mathrm{erf}(x)` without its cancellation.

    float32 is computed in float64 by a shorter polynomial: `np.exp` alone may be 2.5 ulp off in
    float32, which leaves too little for the rest, and an exponential of our own would be slower.

    Args:
        x: float16, float32, float64 or integers, of any shape.

    Returns:
        An array of the same shape and float type, integers giving float64.

    Raises:
        TypeError: for any other dtype.

    """
    double = np.dtype(np.float64)
    return _by_pieces("erfc", x, lambda dtype: (_erfc64 if dtype == double else _erfc32, double))
