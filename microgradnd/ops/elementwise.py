"""Elementwise arithmetic, powers, rounding, exponentials, trigonometry, comparisons, logic."""

from __future__ import annotations

import math

import numpy as np

from ..arraylike import check_dtype
from ..backend.namespace import LARGEST
from ..modes import get_default_dtype
from ..primitives import primitive

LOG2 = math.log(2.0)
LOG10 = math.log(10.0)
TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
POSITIVE = (0.2, 3.0)

# ----------------------------------------------------------------------------- arithmetic


@primitive(elementwise=True, view=True, reference=np.array)
def identity(xp, x, /):
    r"""The operand itself, :math:`x`, as a new step of the tape."""
    return x


identity.vjp(x=lambda g: g)


@primitive(elementwise=True, numpy=np.positive, operator="pos")
def positive(xp, x, /):
    r"""A copy, :math:`+x`."""
    return xp.positive(x)


positive.vjp(x=lambda g: g)


@primitive(elementwise=True, numpy=np.negative, operator="neg")
def negative(xp, x, /):
    r"""The negative, :math:`-x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.negative)(2.0)
        (Tensor(-2.), Tensor(-1.))
    """
    return xp.negative(x)


negative.vjp(x=lambda g: -g)


@primitive(elementwise=True, numpy=np.add, operator="add", dtypes="fiu")
def add(xp, x, y, /):
    r"""The sum, :math:`x + y`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.add, (0, 1))(2.0, 3.0)
        (Tensor(5.), (Tensor(1.), Tensor(1.)))
    """
    return xp.add(x, y)


add.vjp(x=lambda g: g, y=lambda g: g)


@primitive(elementwise=True, numpy=np.subtract, operator="sub", dtypes="fiu")
def subtract(xp, x, y, /):
    r"""The difference, :math:`x - y`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.subtract, (0, 1))(2.0, 3.0)
        (Tensor(-1.), (Tensor(1.), Tensor(-1.)))
    """
    return xp.subtract(x, y)


subtract.vjp(x=lambda g: g, y=lambda g: -g)


@primitive(elementwise=True, numpy=np.multiply, operator="mul", dtypes="fiu")
def multiply(xp, x, y, /):
    r"""The product, :math:`x y`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.multiply, (0, 1))(2.0, 3.0)
        (Tensor(6.), (Tensor(3.), Tensor(2.)))
    """
    return xp.multiply(x, y)


multiply.vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)


@primitive(
    elementwise=True, numpy=np.divide, operator="truediv", domain={"x": (-3, 3), "y": POSITIVE}
)
def divide(xp, x, y, /):
    r"""The quotient, :math:`x / y`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.divide, (0, 1))(3.0, 2.0)
        (Tensor(1.5), (Tensor(0.5), Tensor(-0.75)))
    """
    return xp.divide(x, y)


divide.vjp(x=lambda g, y: g / y, y=lambda g, out, y: -g * out / y)


@primitive(
    elementwise=True,
    numpy=np.floor_divide,
    operator="floordiv",
    differentiable=False,
    dtypes="fiu",
    domain={"x": (-3, 3), "y": POSITIVE},
)
def floor_divide(xp, x, y, /):
    r"""The quotient rounded down, :math:`\lfloor x / y \rfloor`; it has no gradient.

    Example:
        >>> import microgradnd as mg
        >>> mg.floor_divide([7.0, -7.0], 2.0)
        Tensor([ 3., -4.])
    """
    return xp.floor_divide(x, y)


@primitive(
    elementwise=True,
    numpy=np.remainder,
    operator="mod",
    domain={"x": (4.9, 5.9), "y": (2.0, 2.4)},  # between two jumps
    conventions=(("remainder at a jump", ([4.0], [2.0]), {}, ([1.0], [-2.0])),),
)
def remainder(xp, x, y, /):
    r"""The remainder of floored division, :math:`x - y \lfloor x / y \rfloor`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.remainder, (0, 1))(7.0, 2.0)
        (Tensor(1.), (Tensor(1.), Tensor(-3.)))
    """
    return xp.remainder(x, y)


remainder.vjp(x=lambda g: g, y=lambda xp, g, x, y: -g * xp.floor_divide(x, y))


@primitive(
    elementwise=True,
    numpy=np.power,
    operator="pow",
    domain={"x": POSITIVE, "y": (-2, 2)},
    conventions=(
        ("0 ** 0", ([0.0], [0.0]), {}, ([0.0], [0.0])),
        ("0 ** 2", ([0.0], [2.0]), {}, ([0.0], [0.0])),
        ("0 ** 0.5", ([0.0], [0.5]), {}, ([math.inf], [0.0])),
        ("0 ** -1", ([0.0], [-1.0]), {}, ([-math.inf], [0.0])),
    ),
)
def power(xp, x, y, /):
    r"""The power, :math:`x^y`; the gradient to `y` at :math:`x = 0` is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.power)(2.0, 3.0)
        (Tensor(8.), Tensor(12.))
    """
    return x**y


def _power_slope(xp, x, y):
    """:math:`y x^{y-1}`, and 0 where :math:`y = 0` whatever `x` is."""
    if isinstance(y, (int, float)):
        return y * x ** (y - 1) if y else xp.zeros_like(x)
    zero = y == 0
    return xp.where(zero, 0.0, y * x ** xp.where(zero, 1.0, y - 1))


def _times_log(xp, out, x):
    r""":math:`x^y \ln x`, and 0 where :math:`x = 0` whatever `y` is."""
    if isinstance(x, (int, float)):
        return xp.zeros_like(out) if x == 0 else out * (math.log(x) if x > 0 else math.nan)
    zero = x == 0
    return xp.where(zero, 0.0, out) * xp.log(xp.where(zero, 1.0, x))


power.vjp(
    x=lambda xp, g, x, y: g * _power_slope(xp, x, y),
    y=lambda xp, g, out, x: g * _times_log(xp, out, x),
)


@primitive(elementwise=True, numpy=np.square)
def square(xp, x, /):
    r"""The square, :math:`x^2`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.square)(3.0)
        (Tensor(9.), Tensor(6.))
    """
    return xp.square(x)


square.vjp(x=lambda g, x: 2.0 * g * x)


@primitive(
    elementwise=True,
    numpy=np.sqrt,
    domain=POSITIVE,
    conventions=(("sqrt at 0", ([0.0],), {}, ([math.inf],)),),
)
def sqrt(xp, x, /):
    r"""The square root, :math:`\sqrt{x}`; its slope at 0 is infinite.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.sqrt)(4.0)
        (Tensor(2.), Tensor(0.25))
    """
    return xp.sqrt(x)


sqrt.vjp(x=lambda g, out: 0.5 * g / out)


@primitive(
    elementwise=True,
    numpy=np.cbrt,
    domain=POSITIVE,
    conventions=(("cbrt at 0", ([0.0],), {}, ([math.inf],)),),
)
def cbrt(xp, x, /):
    r"""The cube root, :math:`\sqrt[3]{x}`, of negative numbers too; its slope at 0 is infinite.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 4) for t in mg.value_and_grad(mg.cbrt)(-8.0)]
        [-2.0, 0.0833]
    """
    return xp.cbrt(x)


cbrt.vjp(x=lambda g, out: g / (3.0 * out * out))


@primitive(elementwise=True, numpy=np.reciprocal, domain=POSITIVE)
def reciprocal(xp, x, /):
    r"""The reciprocal, :math:`1 / x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.reciprocal)(2.0)
        (Tensor(0.5), Tensor(-0.25))
    """
    return xp.reciprocal(x)


reciprocal.vjp(x=lambda g, out: -g * out * out)


@primitive(
    elementwise=True,
    numpy=(np.absolute, np.fabs),
    operator="abs",
    kinks=(0,),
    conventions=(("abs at 0", ([0.0],), {}, ([0.0],)),),
)
def absolute(xp, x, /):
    r"""The magnitude, :math:`|x|`; its slope at 0 is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.absolute)(-2.0)
        (Tensor(2.), Tensor(-1.))
    """
    return xp.absolute(x)


absolute.vjp(x=lambda xp, g, x: g * xp.sign(x))


@primitive(
    elementwise=True,
    numpy=np.sign,
    kinks=(0,),
    conventions=(("sign at 0", ([0.0],), {}, ([0.0],)),),
)
def sign(xp, x, /):
    r"""The sign, :math:`x / |x|` (0 at 0); its slope is taken as 0 everywhere.

    Example:
        >>> import microgradnd as mg
        >>> mg.sign([-2.0, 0.0, 3.0]), mg.grad(mg.sign)(3.0)
        (Tensor([-1.,  0.,  1.]), Tensor(0.))
    """
    return xp.sign(x)


sign.vjp(x=lambda xp, g: xp.zeros_like(g))


def _halved(xp, g, x, y, wins):
    """What `x` gets of the gradient: all if it wins, half at a tie."""
    return xp.where(x == y, 0.5 * g, 0.0) + xp.where(wins, g, 0.0)


@primitive(
    elementwise=True,
    numpy=np.maximum,
    conventions=(
        ("maximum at a tie", ([1.0], [1.0]), {}, ([0.5], [0.5])),
        ("maximum with a NaN", ([math.nan], [1.0]), {}, ([1.0], [0.0])),
    ),
)
def maximum(xp, x, y, /):
    r"""The larger of two, :math:`\max(x, y)`; at a tie each gets half of the gradient.

    A NaN wins and takes the gradient.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.maximum, (0, 1))(2.0, 3.0)
        (Tensor(3.), (Tensor(0.), Tensor(1.)))
        >>> mg.grad(mg.maximum, (0, 1))(2.0, 2.0)
        (Tensor(0.5), Tensor(0.5))
    """
    return xp.maximum(x, y)


maximum.vjp(
    x=lambda xp, g, x, y: _halved(xp, g, x, y, (x > y) | (x != x)),
    y=lambda xp, g, x, y: _halved(xp, g, x, y, (y > x) | ((y != y) & (x == x))),
)


@primitive(
    elementwise=True,
    numpy=np.minimum,
    conventions=(
        ("minimum at a tie", ([1.0], [1.0]), {}, ([0.5], [0.5])),
        ("minimum with a NaN", ([1.0], [math.nan]), {}, ([0.0], [1.0])),
    ),
)
def minimum(xp, x, y, /):
    r"""The smaller of two, :math:`\min(x, y)`; at a tie each gets half of the gradient.

    A NaN wins and takes the gradient.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.minimum, (0, 1))(2.0, 3.0)
        (Tensor(2.), (Tensor(1.), Tensor(0.)))
        >>> mg.grad(mg.minimum, (0, 1))(2.0, 2.0)
        (Tensor(0.5), Tensor(0.5))
    """
    return xp.minimum(x, y)


minimum.vjp(
    x=lambda xp, g, x, y: _halved(xp, g, x, y, (x < y) | (x != x)),
    y=lambda xp, g, x, y: _halved(xp, g, x, y, (y < x) | ((y != y) & (x == x))),
)


@primitive(
    elementwise=True,
    numpy=np.fmax,
    conventions=(
        ("fmax at a tie", ([1.0], [1.0]), {}, ([0.5], [0.5])),
        ("fmax with a NaN", ([math.nan], [1.0]), {}, ([0.0], [1.0])),
    ),
)
def fmax(xp, x, y, /):
    r"""The larger of two, :math:`\max(x, y)`, where a NaN loses; at a tie each gets half.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.fmax, (0, 1))(float("nan"), 3.0)
        (Tensor(3.), (Tensor(0.), Tensor(1.)))
    """
    return xp.fmax(x, y)


fmax.vjp(
    x=lambda xp, g, x, y: _halved(xp, g, x, y, (x > y) | (y != y)),
    y=lambda xp, g, x, y: _halved(xp, g, x, y, (y > x) | ((x != x) & (y == y))),
)


@primitive(
    elementwise=True,
    numpy=np.fmin,
    conventions=(
        ("fmin at a tie", ([1.0], [1.0]), {}, ([0.5], [0.5])),
        ("fmin with a NaN", ([1.0], [math.nan]), {}, ([1.0], [0.0])),
    ),
)
def fmin(xp, x, y, /):
    r"""The smaller of two, :math:`\min(x, y)`, where a NaN loses; at a tie each gets half.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.fmin, (0, 1))(float("nan"), 3.0)
        (Tensor(3.), (Tensor(0.), Tensor(1.)))
    """
    return xp.fmin(x, y)


fmin.vjp(
    x=lambda xp, g, x, y: _halved(xp, g, x, y, (x < y) | (y != y)),
    y=lambda xp, g, x, y: _halved(xp, g, x, y, (y < x) | ((x != x) & (y == y))),
)


@primitive(
    elementwise=True,
    numpy=np.clip,
    method=True,
    front=lambda x, min=None, max=None, *, a_min=None, a_max=None: (
        (x, a_min if min is None else min, a_max if max is None else max), {}
    ),
    domain={"x": (-3, 3), "lo": (-1.2, -0.8), "hi": (0.8, 1.2)},
    conventions=(
        ("clip at an edge", ([-1.0, 1.0], -1.0, 1.0), {}, ([1.0, 1.0],)),
    ),
)  # fmt: skip
def clip(xp, x, lo=None, hi=None, /):
    r"""The value held between two bounds, :math:`\min(\max(x, lo), hi)`.

    The bounds count as inside: there the gradient goes to `x`.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([-2.0, 0.5, 1.0, 2.0])
        >>> mg.clip(x, -1.0, 1.0), mg.grad(lambda x: mg.clip(x, -1.0, 1.0).sum())(x)
        (Tensor([-1. ,  0.5,  1. ,  1. ]), Tensor([0., 1., 1., 0.]))
    """
    if lo is None and hi is None:
        return xp.copy(x)
    return xp.clip(x, lo, hi)


def _below(x, lo):
    return x < x if lo is None else x < lo


def _above(x, lo, hi):
    # The upper bound is applied last, so it wins where the bounds cross.
    return x < x if hi is None else (x > hi) if lo is None else (x > hi) | (lo > hi)


clip.vjp(
    x=lambda xp, g, x, lo, hi: xp.where(_below(x, lo) | _above(x, lo, hi), 0.0, g),
    lo=lambda xp, g, x, lo, hi: xp.where(
        (x < lo) & xp.logical_not(_above(x, lo, hi)), g, 0.0),
    hi=lambda xp, g, x, lo, hi: xp.where(_above(x, lo, hi), g, 0.0),
)  # fmt: skip


@primitive(
    elementwise=True,
    numpy=np.where,
    front=lambda condition, x, y: ((condition, x, y), {}),
    domain={"condition": "mask"},
)
def where(xp, condition, x, y, /):
    r"""The elements of two operands by a condition: :math:`x` where it holds, :math:`y` elsewhere.

    Both branches are computed before: a NaN in the gradient of the branch that is not taken stays
    NaN. Give it safe operands (see the page "Different from PyTorch, NumPy and JAX").

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([-2.0, 3.0])
        >>> mg.where(x > 0, x, 0.5), mg.grad(lambda x: mg.where(x > 0, x, 0.5).sum())(x)
        (Tensor([0.5, 3. ]), Tensor([0., 1.]))
    """
    if {type(x), type(y)} in ({float}, {float, int}, {float, bool}):  # numbers: the default dtype
        x = xp.full((), x, dtype=get_default_dtype())
    return xp.where(condition, x, y)


where.vjp(
    x=lambda xp, g, condition: xp.where(condition, g, 0.0),
    y=lambda xp, g, condition: xp.where(condition, 0.0, g),
)


# ----------------------------------------------------------------------------- rounding

WHOLE = tuple(range(-3, 4))
HALVES = tuple(i + 0.5 for i in range(-3, 3))


def _flat(xp, g):
    return xp.zeros_like(g)


@primitive(elementwise=True, numpy=np.floor, domain=(-3, 3), kinks=WHOLE, dtypes="fiub",
           conventions=(("floor at a jump", ([1.0],), {}, ([0.0],)),))
def floor(xp, x, /):
    r"""The largest integer not above `x`, :math:`\lfloor x \rfloor`; its slope is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.floor([-1.5, 1.5]), mg.grad(mg.floor)(1.5)
        (Tensor([-2.,  1.]), Tensor(0.))
    """
    return xp.floor(x)


floor.vjp(x=_flat)


@primitive(elementwise=True, numpy=np.ceil, domain=(-3, 3), kinks=WHOLE, dtypes="fiub",
           conventions=(("ceil at a jump", ([1.0],), {}, ([0.0],)),))
def ceil(xp, x, /):
    r"""The smallest integer not below `x`, :math:`\lceil x \rceil`; its slope is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.ceil([-1.5, 1.5]), mg.grad(mg.ceil)(1.5)
        (Tensor([-1.,  2.]), Tensor(0.))
    """
    return xp.ceil(x)


ceil.vjp(x=_flat)


@primitive(elementwise=True, numpy=(np.trunc, np.fix), domain=(-3, 3), kinks=WHOLE, dtypes="fiub",
           conventions=(("trunc at a jump", ([1.0],), {}, ([0.0],)),))
def trunc(xp, x, /):
    r"""`x` without its decimals, :math:`\mathrm{sign}(x) \lfloor |x| \rfloor`; its slope is 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.trunc([-1.5, 1.5]), mg.grad(mg.trunc)(1.5)
        (Tensor([-1.,  1.]), Tensor(0.))
    """
    return xp.trunc(x)


trunc.vjp(x=_flat)


@primitive(elementwise=True, numpy=np.rint, domain=(-3, 3), kinks=HALVES,
           conventions=(("rint at a jump", ([0.5],), {}, ([0.0],)),))
def rint(xp, x, /):
    r"""The nearest integer, of two the even one, :math:`\lfloor x \rceil`; its slope is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.rint([0.5, 1.5, 1.75]), mg.grad(mg.rint)(1.75)
        (Tensor([0., 2., 2.]), Tensor(0.))
    """
    return xp.rint(x)


rint.vjp(x=_flat)


@primitive(
    elementwise=True,
    numpy=(np.round, np.around),
    method=True,
    domain=(-1, 1),
    kinks=tuple(i / 20 for i in range(-20, 21)),
    variants=({"decimals": 0}, {"decimals": 1}),
    dtypes="fiu",
    conventions=(("round at a jump", ([0.5],), {}, ([0.0],)),),
)
def round(xp, x, /, decimals=0):
    r"""The nearest number of d decimals, :math:`10^{-d} \lfloor 10^d x \rceil`; its slope is 0.

    Of two equally near numbers it is the even one; negative `decimals` round to tens, hundreds...

    Example:
        >>> import microgradnd as mg
        >>> mg.round([0.5, 1.26, -1.5], 1), mg.round([0.5, 1.5, 2.5]), mg.grad(mg.round)(1.25)
        (Tensor([ 0.5,  1.3, -1.5]), Tensor([0., 2., 2.]), Tensor(0.))
    """
    return xp.round(x, decimals=decimals)


round.vjp(x=_flat)


@primitive(
    elementwise=True,
    numpy=np.nan_to_num,
    dtypes="fiub",
    variants=({}, {"nan": 1.0, "posinf": 2.0, "neginf": -2.0}),
    conventions=(
        ("nan_to_num", ([math.nan, math.inf, -math.inf, 2.0],), {}, ([0.0, 0.0, 0.0, 1.0],)),
    ),
)
def nan_to_num(xp, x, /, nan=0.0, posinf=None, neginf=None):
    r"""Finite numbers for others: `nan` for NaN, the largest for :math:`\pm\infty` unless given.

    What is replaced has the gradient 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.nan_to_num([float("nan"), float("inf"), 2.0], posinf=9.0)
        Tensor([0., 9., 2.])
        >>> mg.grad(mg.nan_to_num)(float("nan")), mg.grad(mg.nan_to_num)(2.0)
        (Tensor(0.), Tensor(1.))
    """
    if x.dtype.kind != "f":
        return xp.copy(x)
    high, low = LARGEST[x.dtype.char], -LARGEST[x.dtype.char]
    x = xp.where(x == math.inf, high if posinf is None else posinf, xp.where(x != x, nan, x))
    return xp.where(x == -math.inf, low if neginf is None else neginf, x)


nan_to_num.vjp(x=lambda xp, g, x: xp.where(xp.isfinite(x), g, 0.0))


# ----------------------------------------------------------------------------- exponentials


@primitive(elementwise=True, numpy=np.exp, method=True)
def exp(xp, x, /):
    r"""The exponential, :math:`e^x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.exp)(0.0)
        (Tensor(1.), Tensor(1.))
    """
    return xp.exp(x)


exp.vjp(x=lambda g, out: g * out)


@primitive(elementwise=True, numpy=np.exp2)
def exp2(xp, x, /):
    r"""The power of two, :math:`2^x`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.exp2)(3.0)]
        [8.0, 5.545]
    """
    return xp.exp2(x)


exp2.vjp(x=lambda g, out: g * out * LOG2)


@primitive(elementwise=True, numpy=np.expm1)
def expm1(xp, x, /):
    r"""The exponential less one, :math:`e^x - 1`, exact near 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.expm1)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.expm1(x)


expm1.vjp(x=lambda g, out: g * (out + 1.0))


@primitive(
    elementwise=True,
    numpy=np.log,
    method=True,
    domain=POSITIVE,
    conventions=(("log at 0, also inside a where that selects something else", ([0.0],), {},
                  ([math.inf],)),),
)  # fmt: skip
def log(xp, x, /):
    r"""The natural logarithm, :math:`\ln x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.log)(1.0)
        (Tensor(0.), Tensor(1.))
        >>> mg.grad(mg.log)(4.0)
        Tensor(0.25)
    """
    return xp.log(x)


log.vjp(x=lambda g, x: g / x)


@primitive(elementwise=True, numpy=np.log1p, domain=(-0.8, 3))
def log1p(xp, x, /):
    r"""The logarithm of one more, :math:`\ln(1 + x)`, exact near 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.log1p)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.log1p(x)


log1p.vjp(x=lambda g, x: g / (1.0 + x))


@primitive(elementwise=True, numpy=np.log2, domain=POSITIVE)
def log2(xp, x, /):
    r"""The logarithm to base two, :math:`\log_2 x`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.log2)(8.0)]
        [3.0, 0.18]
    """
    return xp.log2(x)


log2.vjp(x=lambda g, x: g / (x * LOG2))


@primitive(elementwise=True, numpy=np.log10, domain=POSITIVE)
def log10(xp, x, /):
    r"""The logarithm to base ten, :math:`\log_{10} x`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.log10)(100.0)]
        [2.0, 0.004]
    """
    return xp.log10(x)


log10.vjp(x=lambda g, x: g / (x * LOG10))


@primitive(
    elementwise=True,
    numpy=np.logaddexp,
    conventions=(
        ("logaddexp with +inf", ([math.inf], [0.0]), {}, ([1.0], [0.0])),
        ("logaddexp of -inf", ([-math.inf], [-math.inf]), {}, ([0.5], [0.5])),
    ),
)
def logaddexp(xp, x, y, /):
    r"""The logarithm of a sum of exponentials, :math:`\ln(e^x + e^y)`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.logaddexp, (0, 1))(1000.0, 0.0)
        (Tensor(1000.), (Tensor(1.), Tensor(0.)))
    """
    return xp.logaddexp(x, y)


def _share(xp, x, y, scale=1.0):
    r""":math:`e^x / (e^x + e^y) = \sigma(x - y)` (or of powers), a half at the same infinity."""
    lead = x - y
    return xp.sigmoid(scale * xp.where((lead != lead) & (x == y), 0.0, lead))


logaddexp.vjp(
    x=lambda xp, g, x, y: g * _share(xp, x, y),
    y=lambda xp, g, x, y: g * _share(xp, y, x),
)


@primitive(
    elementwise=True,
    numpy=np.logaddexp2,
    conventions=(
        ("logaddexp2 with +inf", ([math.inf], [0.0]), {}, ([1.0], [0.0])),
        ("logaddexp2 of -inf", ([-math.inf], [-math.inf]), {}, ([0.5], [0.5])),
    ),
)
def logaddexp2(xp, x, y, /):
    r"""The logarithm to base two of a sum of powers of two, :math:`\log_2(2^x + 2^y)`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.logaddexp2, (0, 1))(3.0, 3.0)
        (Tensor(4.), (Tensor(0.5), Tensor(0.5)))
    """
    return xp.logaddexp2(x, y)


logaddexp2.vjp(
    x=lambda xp, g, x, y: g * _share(xp, x, y, LOG2),
    y=lambda xp, g, x, y: g * _share(xp, y, x, LOG2),
)


@primitive(
    elementwise=True,
    front=lambda x, eps=None: ((x if eps is None else clip(x, eps, 1.0 - eps),), {}),
    domain=(0.05, 0.95),
    reference=lambda x: 2.0 * np.arctanh(2.0 * x - 1.0),
)
def logit(xp, x, /):
    r"""The inverse of the sigmoid, :math:`\ln\frac{x}{1 - x}`; NaN outside [0, 1].

    Called as `logit(x, eps=None)`; with eps, `x` is first held between eps and 1 - eps.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.logit)(0.5)
        (Tensor(0.), Tensor(4.))
        >>> mg.grad(mg.logit)(0.0, eps=0.25)
        Tensor(0.)
    """
    middle = xp.absolute(x - 0.5) < 0.25  # near 1/2 the logarithm of a quotient cancels
    far = xp.where(middle, 0.25, x)
    near = xp.arctanh(2.0 * xp.where(middle, x, 0.5) - 1.0)
    return xp.where(middle, 2.0 * near, xp.log(far / (1.0 - far)))


logit.vjp(x=lambda xp, g, x: xp.where((x < 0) | (x > 1), math.nan, g / x + g / (1.0 - x)))


@primitive(elementwise=True, reference=np.vectorize(math.erf, otypes=[float]))
def erf(xp, x, /):
    r"""The error function, :math:`\frac{2}{\sqrt\pi}\int_0^x e^{-t^2}\,dt`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.erf)(0.5)]
        [0.52, 0.879]
    """
    return xp.erf(x)


erf.vjp(x=lambda xp, g, x: g * (TWO_OVER_SQRT_PI * xp.exp(-x * x)))


@primitive(elementwise=True, reference=np.vectorize(math.erfc, otypes=[float]))
def erfc(xp, x, /):
    r"""The complement of the error function, :math:`1 - \mathrm{erf}(x)`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.erfc)(0.5)]
        [0.48, -0.879]
    """
    return xp.erfc(x)


erfc.vjp(x=lambda xp, g, x: g * (-TWO_OVER_SQRT_PI * xp.exp(-x * x)))


# ----------------------------------------------------------------------------- trigonometry


@primitive(elementwise=True, numpy=np.sin)
def sin(xp, x, /):
    r"""The sine, :math:`\sin x` (radians).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.sin)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.sin(x)


sin.vjp(x=lambda xp, g, x: g * xp.cos(x))


@primitive(elementwise=True, numpy=np.cos)
def cos(xp, x, /):
    r"""The cosine, :math:`\cos x` (radians).

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.cos)(1.0)]
        [0.54, -0.841]
    """
    return xp.cos(x)


cos.vjp(x=lambda xp, g, x: -g * xp.sin(x))


@primitive(elementwise=True, numpy=np.tan, domain=(-1.2, 1.2))
def tan(xp, x, /):
    r"""The tangent, :math:`\tan x` (radians).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.tan)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.tan(x)


tan.vjp(x=lambda g, out: g * (1.0 + out * out))


@primitive(elementwise=True, numpy=np.arcsin, domain=(-0.9, 0.9))
def arcsin(xp, x, /):
    r"""The inverse sine, :math:`\arcsin x`, in :math:`[-\pi/2, \pi/2]`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.arcsin)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.arcsin(x)


arcsin.vjp(x=lambda xp, g, x: g / xp.sqrt((1.0 - x) * (1.0 + x)))


@primitive(elementwise=True, numpy=np.arccos, domain=(-0.9, 0.9))
def arccos(xp, x, /):
    r"""The inverse cosine, :math:`\arccos x`, in :math:`[0, \pi]`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.arccos)(0.0)]
        [1.571, -1.0]
    """
    return xp.arccos(x)


arccos.vjp(x=lambda xp, g, x: -g / xp.sqrt((1.0 - x) * (1.0 + x)))


@primitive(elementwise=True, numpy=np.arctan)
def arctan(xp, x, /):
    r"""The inverse tangent, :math:`\arctan x`, in :math:`(-\pi/2, \pi/2)`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.arctan)(1.0)]
        [0.785, 0.5]
    """
    return xp.arctan(x)


arctan.vjp(x=lambda g, x: g / (1.0 + x * x))


def _part(xp, x, r):
    """:math:`x / r` of a vector of length r with a part x: 0 at 0, and finite where r is not."""
    x = x + xp.zeros_like(r)  # of a number, too, the sign is taken where r lives
    ratio = xp.where(r == 0, 0.0, x / xp.where(r == 0, 1.0, r))
    return xp.where(xp.isinf(r) & (ratio != ratio), xp.sign(x), ratio)


@primitive(
    elementwise=True,
    numpy=np.hypot,
    domain={"x": POSITIVE, "y": (-3, 3)},
    conventions=(
        ("hypot at (0, 0)", ([0.0], [0.0]), {}, ([0.0], [0.0])),
        ("hypot at (-inf, 1)", ([-math.inf], [1.0]), {}, ([-1.0], [0.0])),
    ),
)
def hypot(xp, x, y, /):
    r"""The length of a vector, :math:`\sqrt{x^2 + y^2}`, without overflow; its slope at 0 is 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.hypot, (0, 1))(3.0, 4.0)
        (Tensor(5.), (Tensor(0.6), Tensor(0.8)))
    """
    return xp.hypot(x, y)


hypot.vjp(
    x=lambda xp, g, out, x: g * _part(xp, x, out),
    y=lambda xp, g, out, y: g * _part(xp, y, out),
)


def _turn(xp, x, y):
    """:math:`x / (x^2 + y^2)`, without overflow; 0 at (0, 0)."""
    r = xp.hypot(x, y)
    return _part(xp, x, r) / xp.where(r == 0, 1.0, r)


@primitive(
    elementwise=True,
    numpy=np.arctan2,
    domain={"y": POSITIVE, "x": (-3, 3)},  # off the jump at y = 0, x < 0
    conventions=(
        ("arctan2 at (0, 0)", ([0.0], [0.0]), {}, ([0.0], [0.0])),
        ("arctan2 at (inf, inf)", ([math.inf], [math.inf]), {}, ([0.0], [0.0])),
    ),
)
def arctan2(xp, y, x, /):
    r"""The angle of the point (x, y), :math:`\arctan(y / x)` in the right quadrant (radians).

    Its slope at (0, 0) is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in (mg.arctan2(1.0, -1.0), mg.grad(mg.arctan2)(1.0, -1.0))]
        [2.356, -0.5]
    """
    return xp.arctan2(y, x)


arctan2.vjp(
    y=lambda xp, g, y, x: g * _turn(xp, x, y),
    x=lambda xp, g, y, x: -g * _turn(xp, y, x),
)


@primitive(
    elementwise=True,
    numpy=np.sinc,
    domain=(-1.3, 1.3),  # between zeros of the slope, which cancels there
    conventions=(("sinc at 0", ([0.0],), {}, ([0.0],)),),
)
def sinc(xp, x, /):
    r"""The sine over its argument, :math:`\frac{\sin \pi x}{\pi x}`, and 1 at 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.sinc([0.0, 1e-9])
        Tensor([1., 1.])
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.sinc)(0.5)]
        [0.637, -1.273]
    """
    z = math.pi * xp.where(x == 0, 1.0, x)
    return xp.where(x == 0, 1.0, xp.sin(z) / z)


#: :math:`(\cos z - \sin z / z) / z^2` in powers of :math:`z^2`, the highest first.
SINC = [(-1.0) ** k * 2 * k / math.factorial(2 * k + 1) for k in range(11, 0, -1)]


def _sinc_slope(xp, x):
    z = math.pi * x
    near = xp.absolute(z) < 1.0  # there the quotient cancels, at each order more
    small, far = xp.where(near, z, 0.0), xp.where(near, 1.0, z)
    square, total = small * small, SINC[0]
    for term in SINC[1:]:
        total = total * square + term
    return math.pi * xp.where(near, small * total, (xp.cos(far) - xp.sin(far) / far) / far)


sinc.vjp(x=lambda xp, g, x: g * _sinc_slope(xp, x))


@primitive(elementwise=True, numpy=(np.deg2rad, np.radians))
def deg2rad(xp, x, /):
    r"""Degrees as radians, :math:`\frac{\pi}{180} x`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 4) for t in mg.value_and_grad(mg.deg2rad)(180.0)]
        [3.1416, 0.0175]
    """
    return x * (math.pi / 180.0)


deg2rad.vjp(x=lambda g: g * (math.pi / 180.0))


@primitive(elementwise=True, numpy=(np.rad2deg, np.degrees))
def rad2deg(xp, x, /):
    r"""Radians as degrees, :math:`\frac{180}{\pi} x`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 4) for t in mg.value_and_grad(mg.rad2deg)(1.0)]
        [57.2958, 57.2958]
    """
    return x * (180.0 / math.pi)


rad2deg.vjp(x=lambda g: g * (180.0 / math.pi))


@primitive(elementwise=True, numpy=np.sinh)
def sinh(xp, x, /):
    r"""The hyperbolic sine, :math:`\sinh x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.sinh)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.sinh(x)


sinh.vjp(x=lambda xp, g, x: g * xp.cosh(x))


@primitive(elementwise=True, numpy=np.cosh)
def cosh(xp, x, /):
    r"""The hyperbolic cosine, :math:`\cosh x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.cosh)(0.0)
        (Tensor(1.), Tensor(0.))
    """
    return xp.cosh(x)


cosh.vjp(x=lambda xp, g, x: g * xp.sinh(x))


@primitive(elementwise=True, numpy=np.arcsinh)
def arcsinh(xp, x, /):
    r"""The inverse hyperbolic sine, :math:`\ln(x + \sqrt{x^2 + 1})`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.arcsinh)(0.0)
        (Tensor(0.), Tensor(1.))
    """
    return xp.arcsinh(x)


arcsinh.vjp(x=lambda xp, g, x: g / xp.sqrt(x * x + 1.0))


@primitive(elementwise=True, numpy=np.arccosh, domain=(1.2, 3))
def arccosh(xp, x, /):
    r"""The inverse hyperbolic cosine, :math:`\ln(x + \sqrt{x^2 - 1})`, for :math:`x \ge 1`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.arccosh)(1.25)]
        [0.693, 1.333]
    """
    return xp.arccosh(x)


arccosh.vjp(x=lambda xp, g, x: g / (xp.sqrt(x - 1.0) * xp.sqrt(x + 1.0)))


@primitive(elementwise=True, numpy=np.arctanh, domain=(-0.9, 0.9))
def arctanh(xp, x, /):
    r"""The inverse hyperbolic tangent, :math:`\frac12\ln\frac{1+x}{1-x}`, in (-1, 1).

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.arctanh)(0.5)]
        [0.549, 1.333]
    """
    return xp.arctanh(x)


arctanh.vjp(x=lambda g, x: g / ((1.0 - x) * (1.0 + x)))


# ----------------------------------------------------------------------------- comparisons


@primitive(elementwise=True, numpy=np.equal, operator="eq", dtypes="fiub")
def equal(xp, x, y, /):
    r"""Whether :math:`x = y`, as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.equal([1.0, 2.0], [1.0, 3.0])
        Tensor([ True, False])
    """
    return xp.equal(x, y)


@primitive(elementwise=True, numpy=np.not_equal, operator="ne", dtypes="fiub")
def not_equal(xp, x, y, /):
    r"""Whether :math:`x \ne y`, as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.not_equal([1.0, 2.0], [1.0, 3.0])
        Tensor([False,  True])
    """
    return xp.not_equal(x, y)


@primitive(elementwise=True, numpy=np.less, operator="lt", dtypes="fiub")
def less(xp, x, y, /):
    r"""Whether :math:`x < y`, as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.less([1.0, 2.0], 2.0)
        Tensor([ True, False])
    """
    return xp.less(x, y)


@primitive(elementwise=True, numpy=np.less_equal, operator="le", dtypes="fiub")
def less_equal(xp, x, y, /):
    r"""Whether :math:`x \le y`, as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.less_equal([1.0, 2.0, 3.0], 2.0)
        Tensor([ True,  True, False])
    """
    return xp.less_equal(x, y)


@primitive(elementwise=True, numpy=np.greater, operator="gt", dtypes="fiub")
def greater(xp, x, y, /):
    r"""Whether :math:`x > y`, as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.greater([2.0, 3.0], 2.0)
        Tensor([False,  True])
    """
    return xp.greater(x, y)


@primitive(elementwise=True, numpy=np.greater_equal, operator="ge", dtypes="fiub")
def greater_equal(xp, x, y, /):
    r"""Whether :math:`x \ge y`, as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.greater_equal([1.0, 2.0, 3.0], 2.0)
        Tensor([False,  True,  True])
    """
    return xp.greater_equal(x, y)


@primitive(elementwise=True, numpy=np.logical_and, dtypes="fiub")
def logical_and(xp, x, y, /):
    r"""Whether both are true (not 0), as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.logical_and([True, True, False], [True, False, False])
        Tensor([ True, False, False])
    """
    return xp.logical_and(x, y)


@primitive(elementwise=True, numpy=np.logical_or, dtypes="fiub")
def logical_or(xp, x, y, /):
    r"""Whether one is true (not 0), as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.logical_or([True, True, False], [True, False, False])
        Tensor([ True,  True, False])
    """
    return xp.logical_or(x, y)


@primitive(elementwise=True, numpy=np.logical_xor, dtypes="fiub")
def logical_xor(xp, x, y, /):
    r"""Whether exactly one is true (not 0), as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.logical_xor([True, True, False], [True, False, False])
        Tensor([False,  True, False])
    """
    return xp.logical_xor(x, y)


@primitive(elementwise=True, numpy=np.logical_not, dtypes="fiub")
def logical_not(xp, x, /):
    r"""Whether it is false (0), as booleans.

    Example:
        >>> import microgradnd as mg
        >>> mg.logical_not([0.0, 2.0])
        Tensor([ True, False])
    """
    return xp.logical_not(x)


@primitive(elementwise=True, numpy=np.bitwise_and, operator="and", dtypes="iub")
def bitwise_and(xp, x, y, /):
    r"""The bits set in both; for booleans, whether both are true.

    Example:
        >>> import microgradnd as mg
        >>> mg.bitwise_and(6, 3)
        Tensor(2)
    """
    return xp.bitwise_and(x, y)


@primitive(elementwise=True, numpy=np.bitwise_or, operator="or", dtypes="iub")
def bitwise_or(xp, x, y, /):
    r"""The bits set in one of them; for booleans, whether one is true.

    Example:
        >>> import microgradnd as mg
        >>> mg.bitwise_or(6, 3)
        Tensor(7)
    """
    return xp.bitwise_or(x, y)


@primitive(elementwise=True, numpy=np.bitwise_xor, operator="xor", dtypes="iub")
def bitwise_xor(xp, x, y, /):
    r"""The bits set in exactly one; for booleans, whether exactly one is true.

    Example:
        >>> import microgradnd as mg
        >>> mg.bitwise_xor(6, 3)
        Tensor(5)
    """
    return xp.bitwise_xor(x, y)


@primitive(elementwise=True, numpy=np.invert, operator="invert", dtypes="iub")
def invert(xp, x, /):
    r"""The bits turned over; for booleans, the negation.

    Example:
        >>> import microgradnd as mg
        >>> mg.invert([0, 5]), mg.invert([True, False])
        (Tensor([-1, -6]), Tensor([False,  True]))
    """
    return xp.invert(x)


@primitive(elementwise=True, numpy=np.isnan, dtypes="fiub")
def isnan(xp, x, /):
    r"""Whether the element is not a number.

    Example:
        >>> import microgradnd as mg
        >>> mg.isnan([1.0, float("nan"), float("inf")])
        Tensor([False,  True, False])
    """
    return xp.isnan(x)


@primitive(elementwise=True, numpy=np.isinf, dtypes="fiub")
def isinf(xp, x, /):
    r"""Whether the element is infinite.

    Example:
        >>> import microgradnd as mg
        >>> mg.isinf([1.0, float("nan"), float("inf")])
        Tensor([False, False,  True])
    """
    return xp.isinf(x)


@primitive(elementwise=True, numpy=np.isfinite, dtypes="fiub")
def isfinite(xp, x, /):
    r"""Whether the element is neither infinite nor NaN.

    Example:
        >>> import microgradnd as mg
        >>> mg.isfinite([1.0, float("nan"), float("inf")])
        Tensor([ True, False, False])
    """
    return xp.isfinite(x)


@primitive(
    elementwise=True,
    method=True,
    front=lambda x, dtype: ((x,), {"dtype": check_dtype(dtype)}),
    defaults_for_tests={"dtype": np.dtype("float64")},
    reference=np.ndarray.astype,
)
def astype(xp, x, /, dtype):
    r"""The same values, :math:`x`, in another dtype; the gradient comes back in the operand's.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(lambda x: mg.astype(x, "float64"))(2.0)
        (Tensor(2., dtype=float64), Tensor(1.))
    """
    return xp.copy(x) if x.dtype == dtype else xp.astype(x, dtype)


astype.vjp(x=lambda g: g)
