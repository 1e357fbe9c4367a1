"""Activation functions, each one primitive: one node on the tape, stable forward and backward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..primitives import primitive
from ..protocols import composite
from ..random import default_generator
from ..tape import Tensor
from .elementwise import identity
from .reductions import shifted
from .shaping import concatenate, on_axis, reshape, split

SQRT_HALF = math.sqrt(0.5)
INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
TANH_SCALE = math.sqrt(2.0 / math.pi)
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
#: By item size: numbers whose squares are finite.
SQUARABLE = {2: 200.0, 4: 1e18, 8: 1e150}
#: Below this exp(x) is 0 even in float64; x is held above it where it meets such a factor.
UNDERFLOW = -800.0


def at(point, gradient, case=None, **attrs):
    """One row of the table of conventions: the gradient at a kink of an activation."""
    return (case or f"at {point:g}", ([float(point)],), attrs, ([float(gradient)],))


# ----------------------------------------------------------------------------- maxout


@primitive(
    module=None,
    residuals=("winner",),
    method=True,
    cases=(
        (((2, 6),), {"pieces": 2}),
        (((6, 2),), {"pieces": 3, "axis": 0}),
        (((2, 4, 3),), {"pieces": 4, "axis": 1}),
        (((5,),), {"pieces": 1}),
    ),
    conventions=(
        ("maxout, the worked example, layer 1", ([5.0, 7.0, -1.0, 1.0],), {"pieces": 2},
         ([0.0, 1.0, 0.0, 1.0],)),
        ("maxout, the worked example, layer 2", ([1.0, 2.0, 4.0, 3.0],), {"pieces": 2},
         ([0.0, 1.0, 1.0, 0.0],)),
        ("maxout, all pieces equal", ([1.0, 1.0, 1.0, 1.0],), {"pieces": 2},
         ([1.0, 0.0, 1.0, 0.0],)),
        ("maxout with a NaN", ([1.0, math.nan, 2.0, math.nan],), {"pieces": 2},
         ([0.0, 1.0, 0.0, 1.0],)),
    ),
    reference=lambda x, pieces, axis=-1: np.stack(
        [np.max(group, axis) for group in np.split(x, x.shape[axis] // pieces, axis)], axis
    ),
)  # fmt: skip
def maxout(xp, x, /, pieces, axis=-1):
    r"""The largest of each group, :math:`y_j = \max_{0 \le p < k} x_{jk + p}`, k = `pieces`.

    Neighbours along `axis` form a group: (n·k) elements become n. The gradient goes to the first
    winner of each group and to nothing else, so with linear pieces each example trains only those
    that it used. A NaN wins. `maxout` over `(z, 0)` is relu, but at z = 0 the first piece, z,
    takes the gradient 1 where relu has 0.

    Source: Goodfellow et al., Maxout networks (ICML 2013).

    Raises:
        ValueError: If the size of the axis is not divisible by `pieces`, or `pieces` < 1.
        TypeError: If `pieces` is not an integer.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([5.0, 7.0, -1.0, 1.0], requires_grad=True)
        >>> y = mg.maxout(x, 2)
        >>> y
        Tensor([7., 1.], op=maxout)
        >>> y.sum().backward()
        >>> x.grad
        Tensor([0., 1., 0., 1.])
    """
    if isinstance(pieces, bool) or not isinstance(pieces, int):
        raise TypeError(f"maxout: pieces must be an integer, got {pieces!r}")
    if pieces < 1:
        raise ValueError(f"maxout: pieces must be at least 1, got {pieces}")
    on_axis(axis, x.ndim)
    grouped = _last(xp, x, axis, -1)
    size = grouped.shape[-1]
    if not size:
        raise ValueError(f"maxout: axis {axis} is empty")
    if size % pieces:
        raise ValueError(f"maxout: axis {axis} has size {size}, not divisible by {pieces}")
    grouped = xp.reshape(grouped, (*grouped.shape[:-1], size // pieces, pieces))
    out, winner = xp.max_and_winner(grouped)
    return _last(xp, out, -1, axis), (winner,)


def _last(xp, x, source, destination):
    """`moveaxis` between the last axis and another; nothing where they are the same."""
    return x if (destination - source) % x.ndim == 0 else xp.moveaxis(x, source, destination)


def _to_winner(xp, g, winner, pieces, axis):
    routed = xp.route(_last(xp, g, axis, -1), winner, pieces)
    flat = xp.reshape(routed, (*routed.shape[:-2], routed.shape[-2] * pieces))
    return _last(xp, flat, -1, axis)


maxout.vjp(x=_to_winner)


@composite(
    module="MFM",
    cases=((((2, 4),), {}),),
    reference=lambda x, axis=-1: np.maximum(*np.split(x, 2, axis)),
)
def mfm(x, axis=-1):
    r"""Max-feature-map: the larger of the two halves along an axis (strided groups of two).

    Composed of maxout; source: Wu et al., A light CNN for deep face representation (2018).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 5.0, 3.0, 2.0])
        >>> mg.mfm(x), mg.grad(lambda x: mg.mfm(x).sum())(x)
        (Tensor([3., 5.]), Tensor([0., 1., 1., 0.]))
    """
    front, back = split(x, 2, axis=axis)
    shape = list(x.shape)
    pairs = concatenate(
        [reshape(half, (*half.shape, 1)) for half in (front, back)], axis=-1
    )
    shape[axis] //= 2
    return reshape(maxout(pairs, 2), shape)


# ----------------------------------------------------------------------------- relu and its kin


@primitive(
    module="ReLU",
    elementwise=True,
    method=True,
    kinks=(0,),
    conventions=(at(0, 0), at(math.nan, 0, "at NaN (the value stays NaN)")),
)
def relu(xp, x, /):
    r"""Rectified linear unit, :math:`\max(x, 0)`; its slope at 0 is taken as 0, a NaN stays.

    Example:
        >>> import microgradnd as mg
        >>> mg.relu([-1.0, 0.0, 2.0]), mg.grad(mg.relu)(2.0)
        (Tensor([0., 0., 2.]), Tensor(1.))
    """
    return xp.maximum(x, 0)


relu.vjp(x=lambda g, out: g * (out > 0))


@primitive(module="ReLU6", elementwise=True, kinks=(0, 6), conventions=(at(0, 0), at(6, 0)))
def relu6(xp, x, /):
    r"""Relu held below 6, :math:`\min(\max(x, 0), 6)`; its slope at 0 and at 6 is taken as 0.

    Example:
        >>> import microgradnd as mg
        >>> mg.relu6([-1.0, 2.0, 7.0]), mg.grad(mg.relu6)(2.0)
        (Tensor([0., 2., 6.]), Tensor(1.))
    """
    return xp.clip(x, 0.0, 6.0)


relu6.vjp(x=lambda g, out: g * ((out > 0) & (out < 6)))


@primitive(
    module="LeakyReLU",
    elementwise=True,
    kinks=(0,),
    conventions=(at(0, 0.01), at(0, 0.3, "at 0, slope 0.3", negative_slope=0.3)),
)
def leaky_relu(xp, x, /, negative_slope=0.01):
    r"""Leaky relu: :math:`x` if :math:`x > 0`, else `negative_slope` times `x`.

    Its slope at 0 is `negative_slope`. Source: Maas et al. (ICML 2013).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.leaky_relu)(-2.0, negative_slope=0.25)
        (Tensor(-0.5), Tensor(0.25))
    """
    return xp.where(x > 0, x, x * negative_slope)


leaky_relu.vjp(x=lambda xp, g, x, negative_slope: xp.where(x > 0, g, g * negative_slope))


@primitive(
    module=None,
    elementwise=True,
    kinks={"x": (0,)},
    conventions=(("at 0, slope 0.25", ([0.0], [0.25]), {}, ([0.25], [0.0])),),
    reference=lambda x, slope: np.maximum(x, 0.0) + slope * np.minimum(x, 0.0),
)
def prelu(xp, x, slope, /):
    r"""Parametric relu: :math:`x` if :math:`x > 0`, else `slope` times `x`; the slope is learned.

    The slope broadcasts: one for all, or one per channel. Its own gradient is the sum of
    :math:`g \min(x, 0)`. Source: He et al., Delving deep into rectifiers (ICCV 2015).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.prelu, (0, 1))(-2.0, 0.25)
        (Tensor(-0.5), (Tensor(0.25), Tensor(-2.)))
    """
    return xp.where(x > 0, x, x * slope)


prelu.vjp(
    x=lambda xp, g, x, slope: xp.where(x > 0, g, g * slope),
    slope=lambda xp, g, x: xp.where(x > 0, 0.0, g * x),
)


def _rrelu_arguments(x, lower=1 / 8, upper=1 / 3, training=False, generator=None):
    if not training:
        return (x, (lower + upper) / 2), {}
    x = x if isinstance(x, Tensor) else identity(x)
    slope = (generator or default_generator()).uniform(lower, upper, x.shape, dtype=x.dtype,
                                                       backend=x.backend)  # fmt: skip
    return (x, slope), {}


@primitive(module="RReLU", elementwise=True, kinks={"x": (0,)}, front=_rrelu_arguments,
           domain={"x": (-3, 3), "slope": (0.1, 0.4)},
           conventions=(("at 0, slope 0.25", ([0.0], [0.25]), {}, ([0.25], None)),),
           reference=lambda x, slope: np.maximum(x, 0.0) + slope * np.minimum(x, 0.0))
def rrelu(xp, x, slope, /):
    r"""Randomized leaky relu: :math:`x` if :math:`x > 0`, else `slope` times :math:`x`.

    The slope is drawn from U(lower, upper) in training, else it is the mean of these. Called as
    `rrelu(x, lower=1/8, upper=1/3, training=False, generator=None)`. Source: Xu et al. (2015).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.rrelu)(-2.0, lower=0.25, upper=0.75)
        (Tensor(-1.), Tensor(0.5))
    """
    return xp.where(x > 0, x, x * slope)


rrelu.vjp(x=lambda xp, g, x, slope: xp.where(x > 0, g, g * slope))


@primitive(
    module="ELU",
    elementwise=True,
    kinks=(0,),
    conventions=(at(0, 1), at(0, 0.5, "at 0, alpha 0.5", alpha=0.5), at(1000, 1, "at 1000")),
)
def elu(xp, x, /, alpha=1.0):
    r"""Exponential linear unit: :math:`x` if :math:`x > 0`, else :math:`\alpha (e^x - 1)`.

    Its slope at 0 is alpha. Source: Clevert et al. (ICLR 2016).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.elu)(2.0)
        (Tensor(2.), Tensor(1.))
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.elu)(-1.0)]
        [-0.632, 0.368]
    """
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0)))


elu.vjp(
    x=lambda xp, g, x, alpha: xp.where(x > 0, g, g * (alpha * xp.exp(xp.minimum(x, 0.0))))
)


@primitive(module="CELU", elementwise=True, kinks=(0,), conventions=(at(0, 1),))
def celu(xp, x, /, alpha=1.0):
    r"""Continuously differentiable elu: :math:`\max(x, 0) + \min(\alpha(e^{x/\alpha} - 1), 0)`.

    Its slope at 0 is 1 for every alpha. Source: Barron (2017).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.celu)(2.0)
        (Tensor(2.), Tensor(1.))
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.celu)(-1.0, alpha=2.0)]
        [-0.787, 0.607]
    """
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0.0) / alpha))


celu.vjp(
    x=lambda xp, g, x, alpha: xp.where(x > 0, g, g * xp.exp(xp.minimum(x, 0.0) / alpha))
)


@primitive(
    module="SELU",
    elementwise=True,
    kinks=(0,),
    conventions=(at(0, SELU_SCALE * SELU_ALPHA),),
)
def selu(xp, x, /):
    r"""Scaled elu, :math:`\lambda\,\mathrm{elu}(x, \alpha)`, with fixed point mean 0, variance 1.

    Source: Klambauer et al., Self-normalizing neural networks (NIPS 2017).

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.selu)(1.0)]
        [1.051, 1.051]
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.selu)(-1.0)]
        [-1.111, 0.647]
    """
    return SELU_SCALE * xp.where(x > 0, x, SELU_ALPHA * xp.expm1(xp.minimum(x, 0.0)))


selu.vjp(
    x=lambda xp, g, x: g
    * (SELU_SCALE * xp.where(x > 0, 1.0, SELU_ALPHA * xp.exp(xp.minimum(x, 0.0))))
)


@primitive(
    elementwise=True,
    kinks=(0.1,),
    conventions=(at(0.1, 0, "at the threshold 0.1"),),
    defaults_for_tests={"threshold": 0.1, "value": 20.0},
)
def threshold(xp, x, /, threshold, value):
    r"""The operand above a threshold: :math:`x` if :math:`x > t`, else `value`.

    Example:
        >>> import microgradnd as mg
        >>> mg.threshold([0.5, 2.0], threshold=1.0, value=-1.0)
        Tensor([-1.,  2.])
        >>> mg.value_and_grad(mg.threshold)(2.0, threshold=1.0, value=-1.0)
        (Tensor(2.), Tensor(1.))
    """
    return xp.where((x > threshold) | (x != x), x, value)


threshold.vjp(x=lambda xp, g, x, threshold: xp.where(x > threshold, g, 0.0))


# ----------------------------------------------------------------------------- sigmoid and its kin


@primitive(elementwise=True, method=True, conventions=(at(-1000, 0, "at -1000"),))
def sigmoid(xp, x, /):
    r"""The logistic function, :math:`\sigma(x) = 1 / (1 + e^{-x})`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.sigmoid)(0.0)
        (Tensor(0.5), Tensor(0.25))
    """
    return xp.sigmoid(x)


sigmoid.vjp(x=lambda g, out: g * out * (1.0 - out))


@primitive(module="Hardsigmoid", elementwise=True, kinks=(-3, 3), conventions=(at(-3, 0), at(3, 0)))
def hard_sigmoid(xp, x, /):
    r"""A piecewise linear sigmoid, :math:`\mathrm{relu6}(x + 3) / 6`.

    Example:
        >>> import microgradnd as mg
        >>> mg.hard_sigmoid([-3.0, 0.0, 1.5, 3.0]), mg.grad(mg.hard_sigmoid)(4.0)
        (Tensor([0.  , 0.5 , 0.75, 1.  ]), Tensor(0.))
    """
    return xp.clip(x / 6.0 + 0.5, 0.0, 1.0)


hard_sigmoid.vjp(x=lambda xp, g, x: xp.where((x > -3) & (x < 3), g / 6.0, 0.0))


@primitive(elementwise=True)
def log_sigmoid(xp, x, /):
    r"""The logarithm of the sigmoid, :math:`-\ln(1 + e^{-x})`, without overflow.

    Example:
        >>> import microgradnd as mg
        >>> mg.log_sigmoid([-1000.0, 1000.0])
        Tensor([-1000.,     0.])
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.log_sigmoid)(0.0)]
        [-0.693, 0.5]
    """
    return xp.minimum(x, 0.0) - xp.log1p(xp.exp(-xp.absolute(x)))


log_sigmoid.vjp(x=lambda xp, g, out: -g * xp.expm1(out))


@primitive(elementwise=True, numpy=np.tanh, method=True)
def tanh(xp, x, /):
    r"""The hyperbolic tangent, :math:`\tanh x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.tanh)(0.0)
        (Tensor(0.), Tensor(1.))
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.tanh)(0.5)]
        [0.462, 0.786]
    """
    return xp.tanh(x)


tanh.vjp(x=lambda g, out: g * (1.0 - out * out))


@primitive(
    module="Hardtanh",
    elementwise=True,
    kinks=(-1, 1),
    conventions=(at(-1, 0), at(1, 0)),
)
def hard_tanh(xp, x, /, min_val=-1.0, max_val=1.0):
    r"""The operand held between two values, :math:`\min(\max(x, a), b)`.

    Its slope at the two values is taken as 0 (unlike that of `clip`).

    Example:
        >>> import microgradnd as mg
        >>> mg.hard_tanh([-2.0, 0.5, 2.0]), mg.grad(mg.hard_tanh)(0.5)
        (Tensor([-1. ,  0.5,  1. ]), Tensor(1.))
    """
    return xp.clip(x, min_val, max_val)


hard_tanh.vjp(
    x=lambda xp, g, x, min_val, max_val: xp.where((x > min_val) & (x < max_val), g, 0.0)
)


@primitive(elementwise=True)
def tanhshrink(xp, x, /):
    r"""The operand less its hyperbolic tangent, :math:`x - \tanh x`, exact near 0.

    There by Lambert's continued fraction, :math:`\tanh x = x / (1 + x^2 / (3 + x^2 / (5 + ...)))`.

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.tanhshrink)(1.0)]
        [0.238, 0.58]
    """
    near = xp.clip(x, -1.0, 1.0)
    square = near * near
    tail = square / 17.0
    for odd in (15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0):
        tail = square / (odd + tail)
    return xp.where(xp.absolute(x) < 1.0, near * (tail / (1.0 + tail)), x - xp.tanh(x))


tanhshrink.vjp(x=lambda xp, g, x: g * xp.square(xp.tanh(x)))


@primitive(
    elementwise=True, kinks=(-0.5, 0.5), conventions=(at(-0.5, 0), at(0.5, 0))
)
def softshrink(xp, x, /, lambd=0.5):
    r"""The operand moved towards 0 by lambda: :math:`x \mp \lambda` outside, 0 inside.

    Example:
        >>> import microgradnd as mg
        >>> mg.softshrink([-1.0, 0.25, 2.0]), mg.grad(mg.softshrink)(2.0)
        (Tensor([-0.5,  0. ,  1.5]), Tensor(1.))
    """
    inside = xp.where(x != x, x, 0.0)  # a NaN stays
    return xp.where(x > lambd, x - lambd, xp.where(x < -lambd, x + lambd, inside))


softshrink.vjp(x=lambda xp, g, x, lambd: xp.where((x > lambd) | (x < -lambd), g, 0.0))


@primitive(
    elementwise=True, kinks=(-0.5, 0.5), conventions=(at(-0.5, 0), at(0.5, 0))
)
def hardshrink(xp, x, /, lambd=0.5):
    r"""The operand where :math:`|x| > \lambda`, 0 elsewhere.

    Example:
        >>> import microgradnd as mg
        >>> mg.hardshrink([-1.0, 0.25, 2.0]), mg.grad(mg.hardshrink)(2.0)
        (Tensor([-1.,  0.,  2.]), Tensor(1.))
    """
    return xp.where((x > lambd) | (x < -lambd) | (x != x), x, 0.0)


hardshrink.vjp(x=lambda xp, g, x, lambd: xp.where((x > lambd) | (x < -lambd), g, 0.0))


@primitive(elementwise=True, kinks_second=(0,))
def softsign(xp, x, /):
    r"""Softsign, :math:`x / (1 + |x|)`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.softsign)(1.0)
        (Tensor(0.5), Tensor(0.25))
    """
    return xp.where(xp.isinf(x), xp.sign(x), x / (1.0 + xp.where(xp.isinf(x), 0.0, xp.absolute(x))))


softsign.vjp(x=lambda xp, g, x: g * xp.square(1.0 / (1.0 + xp.absolute(x))))


@primitive(elementwise=True)
def softplus(xp, x, /, beta=1.0):
    r"""A smooth relu, :math:`\ln(1 + e^{\beta x}) / \beta`, without overflow.

    Example:
        >>> import microgradnd as mg
        >>> mg.softplus([-200.0, 100.0])
        Tensor([  0., 100.])
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.softplus)(0.0)]
        [0.693, 0.5]
    """
    size = xp.minimum(xp.absolute(x), -UNDERFLOW / beta)
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-beta * size)) / beta


softplus.vjp(x=lambda xp, g, out, beta: -g * xp.expm1(-beta * out))


@primitive(elementwise=True)
def squareplus(xp, x, /, b=4.0):
    r"""An algebraic smooth relu, :math:`(x + \sqrt{x^2 + b}) / 2`, exact for large negative `x`.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.squareplus)(0.0)
        (Tensor(1.), Tensor(0.5))
    """
    z = _squarable(xp, x)
    root = xp.where(z == x, xp.sqrt(z * z + b), xp.absolute(x))
    half = 0.5 * root + 0.5 * xp.absolute(x)  # halved first: the sum may overflow
    return xp.where(x < 0, 0.25 * b / half, half)


def _squarable(xp, x):
    """The operand held where its square is finite; beyond, b is nothing beside it."""
    limit = SQUARABLE.get(x.dtype.itemsize, SQUARABLE[2])
    return xp.clip(x, -limit, limit)


squareplus.vjp(x=lambda xp, g, x, b: g * _squareplus_slope(xp, x, b))


def _squareplus_slope(xp, x, b):
    # (1 + x / sqrt(x^2 + b)) / 2, and for negative x the same without cancellation.
    x = _squarable(xp, x)
    root = xp.sqrt(x * x + b)
    return 0.5 * xp.where(x < 0, b / (root * (root - xp.minimum(x, 0.0))), 1.0 + x / root)


# ----------------------------------------------------------------------------- smooth gates


@primitive(module="SiLU", elementwise=True, method=True,
           conventions=(at(-math.inf, 0, "at -inf"), at(-1000, 0, "at -1000")))
def silu(xp, x, /):
    r"""Sigmoid-weighted linear unit (swish), :math:`x\,\sigma(x)`.

    Source: Elfwing et al. (2017), Ramachandran et al. (2017).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.silu)(0.0)
        (Tensor(0.), Tensor(0.5))
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.silu)(1.0)]
        [0.731, 0.928]
    """
    return xp.maximum(x, UNDERFLOW) * xp.sigmoid(x)


def _silu_slope(xp, x):
    s = xp.sigmoid(x)
    return s * (1.0 + xp.clip(x, UNDERFLOW, -UNDERFLOW) * (1.0 - s))


silu.vjp(x=lambda xp, g, x: g * _silu_slope(xp, x))


@primitive(
    module="Hardswish",
    elementwise=True,
    kinks=(-3, 3),
    conventions=(at(-3, 0), at(3, 1)),
)
def hard_silu(xp, x, /):
    r"""A piecewise quadratic silu, :math:`x\,\mathrm{relu6}(x + 3) / 6`.

    Source: Howard et al., Searching for MobileNetV3 (ICCV 2019).

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.hard_silu)(1.5)
        (Tensor(1.125), Tensor(1.))
    """
    return xp.maximum(x, -3.0) * xp.clip(x / 6.0 + 0.5, 0.0, 1.0)


hard_silu.vjp(
    x=lambda xp, g, x: g * xp.where(x <= -3, 0.0, xp.where(x < 3, x / 3.0 + 0.5, 1.0))
)


def _tanh_softplus(xp, x):
    # tanh(ln(1 + e^x)) = n / (n + 2) with n = e^x (e^x + 2); beyond 20 (float16: 5) it is 1.
    e = xp.exp(xp.minimum(x, 5.0 if x.dtype.itemsize == 2 else 20.0))
    n = e * (e + 2.0)
    return n / (n + 2.0)


@primitive(elementwise=True)
def mish(xp, x, /):
    r"""Mish, :math:`x \tanh(\ln(1 + e^x))`. Source: Misra (BMVC 2020).

    Example:
        >>> import microgradnd as mg
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.mish)(1.0)]
        [0.865, 1.049]
    """
    return xp.maximum(x, UNDERFLOW) * _tanh_softplus(xp, x)


def _mish_slope(xp, x):
    t = _tanh_softplus(xp, x)
    return t + xp.clip(x, UNDERFLOW, -UNDERFLOW) * xp.sigmoid(x) * (1.0 - t * t)


mish.vjp(x=lambda xp, g, x: g * _mish_slope(xp, x))


def _gelu(xp, x, approximate):
    x = xp.maximum(x, UNDERFLOW)
    if approximate == "tanh":
        z = xp.clip(x, -22.0, 22.0)  # beyond, the sigmoid is 0 or 1
        # (1 + tanh u) / 2 = sigmoid(2 u) keeps its precision where tanh u is near -1.
        return x * xp.sigmoid(2.0 * TANH_SCALE * (z + 0.044715 * z * z * z))
    return x * (0.5 * xp.erfc(-SQRT_HALF * x))


@primitive(module="GELU", elementwise=True, conventions=(at(-math.inf, 0, "at -inf"),),
           variants=({"approximate": "none"}, {"approximate": "tanh"}),
           tolerance=512)  # below 1e-60, where the exponent magnifies the rounding of what goes in
def gelu(xp, x, /, approximate="none"):
    r"""Gaussian error linear unit, :math:`x\,\Phi(x)`; `approximate="tanh"` is the usual formula.

    Source: Hendrycks and Gimpel (2016).

    Raises:
        ValueError: If `approximate` is neither "none" nor "tanh".

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.gelu)(0.0)
        (Tensor(0.), Tensor(0.5))
        >>> [round(t.item(), 3) for t in mg.value_and_grad(mg.gelu)(1.0)]
        [0.841, 1.083]
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _gelu(xp, x, approximate)


def _gelu_slope(xp, x, approximate):
    if approximate == "tanh":
        x = xp.clip(x, -22.0, 22.0)  # beyond, the sigmoid is 0 or 1
        s = xp.sigmoid(2.0 * TANH_SCALE * (x + 0.044715 * x * x * x))
        inner = 2.0 * TANH_SCALE * (1.0 + 0.134145 * x * x)
        return s * (1.0 + x * (1.0 - s) * inner)
    z = xp.clip(x, -40.0, 40.0)  # the density is 0 beyond, and z times 0 has no NaN
    return 0.5 * xp.erfc(-SQRT_HALF * x) + z * (INV_SQRT_2PI * xp.exp(-0.5 * z * z))


gelu.vjp(x=lambda xp, g, x, approximate: g * _gelu_slope(xp, x, approximate))


# ----------------------------------------------------------------------------- over an axis

AXIS_CASES: Any = ((((2, 3),), {}), (((3, 2),), {"axis": 0}), (((2, 3, 2),), {"axis": 1}))


def _exponentials(xp, x, axis):
    return xp.exp(shifted(xp, x, xp.max(x, axis=axis, keepdims=True)))


@primitive(
    method=True,
    cases=AXIS_CASES,
    reference=lambda x, axis=-1: np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True),
    conventions=(
        ("softmax of -inf only (the value is NaN)", ([-math.inf, -math.inf],), {},
         ([math.nan, math.nan],)),
    ),
)  # fmt: skip
def softmax(xp, x, /, axis=-1):
    r"""Shares that sum to 1, :math:`e^{x_i} / \sum_j e^{x_j}`; NaN where all are -inf.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([0.0, 0.0])
        >>> mg.softmax(x), mg.grad(lambda x: mg.softmax(x)[0])(x)
        (Tensor([0.5, 0.5]), Tensor([ 0.25, -0.25]))
    """
    e = _exponentials(xp, x, axis)
    return e / xp.sum(e, axis=axis, keepdims=True)


softmax.vjp(x=lambda xp, g, out, axis: out * (g - xp.sum(g * out, axis=axis, keepdims=True)))


@primitive(
    method=True,
    cases=AXIS_CASES,
    reference=lambda x, axis=-1: x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True)),
)
def log_softmax(xp, x, /, axis=-1):
    r"""The logarithm of softmax, :math:`x_i - \ln\sum_j e^{x_j}`, along an axis.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([100.0, 0.0])
        >>> mg.log_softmax(x), mg.grad(lambda x: mg.log_softmax(x)[1])(x)
        (Tensor([   0., -100.]), Tensor([-1.,  1.]))
    """
    return xp.log_softmax(x, axis)


log_softmax.vjp(
    x=lambda xp, g, out, axis: g - xp.exp(out) * xp.sum(g, axis=axis, keepdims=True)
)


def _projected(row):
    """The projection of a vector, from the mass above each threshold, which is linear between."""
    knots = np.sort([*row, row.min() - 1.0])
    mass = [np.maximum(row - knot, 0.0).sum() for knot in knots]
    return np.maximum(row - np.interp(-1.0, -np.array(mass), knots), 0.0)


@primitive(
    cases=(
        (((2, 3),), {}),  # so close together that nothing becomes 0
        (((3, 2),), {"axis": 0}),
        (([[0.5, 0.25, -1.0], [2.0, -3.0, 0.0]],), {}),
        (([[[0.5, 0.125]], [[0.25, 2.0]], [[-0.5, 1.5]]],), {"axis": 0}),
    ),
    domain=(-0.125, 0.125),
    conventions=(
        ("sparsemax with +inf", ([math.inf, 0.0],), {}, ([0.0, 0.0],)),
    ),
    reference=lambda x, axis=-1: np.apply_along_axis(_projected, axis, x),
)  # fmt: skip
def sparsemax(xp, x, /, axis=-1):
    r"""Shares of which many are 0: the point of the simplex next to x, :math:`\max(x - \tau, 0)`.

    The threshold is such that they sum to 1. An element at the threshold has the gradient 0.
    Source: Martins and Astudillo, From softmax to sparsemax (ICML 2016).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 0.5, -1.0])
        >>> mg.sparsemax(x), mg.grad(lambda x: mg.sparsemax(x)[0])(x)
        (Tensor([0.75, 0.25, 0.  ]), Tensor([ 0.5, -0.5,  0. ]))
    """
    on_axis(axis, x.ndim)
    # Nothing that is further than 1 below the largest is above 0: hold it there.
    z = xp.maximum(shifted(xp, x, xp.max(x, axis=axis, keepdims=True)), -1.0)
    rows = _last(xp, z, axis, -1)
    total = xp.cumsum(xp.flip(xp.sort(rows, axis=-1), axis=-1), axis=-1)
    # Of all k, the k largest elements give the threshold (their sum - 1) / k that is highest.
    tau = (total - 1.0) / xp.arange(1, rows.shape[-1] + 1, dtype=z.dtype)
    return xp.maximum(z - _last(xp, xp.max(tau, axis=-1, keepdims=True), -1, axis), 0.0)


def _sparsemax_gradient(xp, g, out, axis):
    used = out > 0
    count = xp.maximum(xp.sum(xp.astype(used, g.dtype), axis=axis, keepdims=True), 1.0)
    mean = xp.sum(xp.where(used, g, 0.0), axis=axis, keepdims=True) / count
    return xp.where(used, g - mean, 0.0)


sparsemax.vjp(x=_sparsemax_gradient)


@composite(
    cases=((((2, 3),), {"axis": 0}),),
    reference=lambda x, axis=-1: np.exp(-x) / np.exp(-x).sum(axis=axis, keepdims=True),
)
def softmin(x, axis=-1):
    r"""Softmax of the negative, :math:`e^{-x_i} / \sum_j e^{-x_j}`; composed.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([0.0, 0.0])
        >>> mg.softmin(x), mg.grad(lambda x: mg.softmin(x)[0])(x)
        (Tensor([0.5, 0.5]), Tensor([-0.25,  0.25]))
    """
    return softmax(-x, axis=axis)


@composite(
    module="CReLU",
    cases=((((2, 3),), {}),),
    kinks=(0,),
    conventions=(at(0, 0),),
    reference=lambda x, axis=-1: np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)], axis),
)
def crelu(x, axis=-1):
    r"""Relu of the operand and of its negative, side by side; composed.

    Source: Shang et al. (ICML 2016).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, -2.0])
        >>> mg.crelu(x), mg.grad(lambda x: mg.crelu(x).sum())(x)
        (Tensor([1., 0., 0., 2.]), Tensor([ 1., -1.]))
    """
    return concatenate([relu(x), relu(-x)], axis=axis)


@composite(
    module="GLU",
    cases=((((2, 4),), {}),),
    reference=lambda x, axis=-1: (p := np.split(x, 2, axis))[0] / (1.0 + np.exp(-p[1])),
)
def glu(x, axis=-1):
    r"""Gated linear unit, :math:`a\,\sigma(b)` of the two halves along an axis; composed.

    Source: Dauphin et al. (ICML 2017).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([2.0, 0.0])
        >>> mg.glu(x), mg.grad(lambda x: mg.glu(x).sum())(x)
        (Tensor([1.]), Tensor([0.5, 0.5]))
    """
    a, b = split(x, 2, axis=axis)
    return a * sigmoid(b)
