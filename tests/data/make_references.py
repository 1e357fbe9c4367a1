"""Write `references.json`: what elementwise functions are at fixed points, from mpmath.

The file maps a function's name to a list of entries, one for each setting of its attributes:

    {"attrs": {...}, "x": [...], "y": [...], "dy": [...], "d2y": [...]}

All numbers are `float.hex` strings, so they are exact; "inf", "-inf" and "nan" occur. `x` are
float64 numbers, for functions of two operands two lists of them; `y` is the value there, correctly
rounded to float64: what is too large becomes an infinity, what is too small a zero. Where the
*result* can be represented there is no overflow, whatever a formula may pass through on its way:
squareplus of the largest float is the largest float. The sign of a zero in `y` means nothing.

Activations also have the first and second derivative, `dy` and `d2y`, by numerical differentiation
with thousands of bits; null at kinks and at the extreme points. The definitions are PyTorch's, with
one exception: `softplus` is log(1 + exp(beta x)) / beta for every x, without a linear threshold.

Run `python tests/data/make_references.py`; it needs mpmath and ten seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import mpmath as mp

# Enough for x - tanh(x) at 1e-300: what cancels beyond is too small for a float64 anyway.
mp.mp.prec = 3000

ORDINARY = [
    s * m
    for m in (1e-300, 1e-8, 1e-3, 0.05, 0.2, 0.4, 0.75, 1.3, 2.1, 3.7, 5.2, 9.0, 17.0)
    for s in (-1, 1)
]
# For domains that leave out part of these: below one, around one, and large.
INSIDE = [s * m for m in (0.01, 0.3, 0.6, 0.9, 0.99, 1 - 1e-3, 1 - 1e-8) for s in (-1, 1)]
POSITIVE = [1e-5, 0.5, 1 - 1e-3, 1 - 1e-8, 1 + 1e-8, 1 + 1e-3, 2.0, 10.0, 50.0, 12345.678, 1e10]
LARGEST = 1.7976931348623157e308
EXTREME = [
    s * m
    for m in (0.0, 5e-324, 2.2e-308, 1e-20, 88.7, 100.0, 709.8, 1000.0, 1e4, 1e20, LARGEST)
    for s in (1, -1)
]


def rounded(value: mp.mpf) -> float:
    """Round to the nearest float64, to even at a tie, into subnormals, zero and infinity."""
    sign, man, exp, bits = value._mpf_
    if exp + bits > 1030:
        size = math.inf
    elif exp + bits < -1080:
        size = 0.0
    else:
        try:  # true division of integers is correctly rounded, also where results are subnormal
            size = (int(man) << max(exp, 0)) / (1 << max(-exp, 0))
        except OverflowError:
            size = math.inf
    return -size if sign else size


class Function(NamedTuple):
    """A function of one operand and all that is needed to tabulate it."""

    f: Callable[..., Any]  # of an mpf and the attributes
    left: Any  # the limit at -inf, and below at inf: a number, or a function of the attributes;
    right: Any  # None where infinity is outside the domain
    attrs: tuple[dict[str, Any], ...] = ({},)
    kinks: Callable[..., Iterable[float]] | None = None  # given: an activation, with derivatives
    lowest: float = -math.inf  # the domain, ends included
    highest: float = math.inf
    poles: Mapping[str, float] = MappingProxyType({})  # where it is infinite, zeros by their sign


def smooth(**attrs: Any) -> tuple[float, ...]:
    """No kinks."""
    return ()


def at_zero(**attrs: Any) -> tuple[float, ...]:
    """One kink, at zero."""
    return (0.0,)


def relu6(x: mp.mpf) -> mp.mpf:
    """Clip to [0, 6]."""
    return min(max(x, mp.mpf(0)), mp.mpf(6))


def elu(x: mp.mpf, alpha: float) -> mp.mpf:
    """Exponential linear unit."""
    return x if x > 0 else alpha * mp.expm1(x)


SELU_ALPHA = mp.mpf("1.6732632423543772848170429916717")
SELU_SCALE = mp.mpf("1.0507009873554804934193349852946")


def gelu(x: mp.mpf, approximate: str) -> mp.mpf:
    """Gaussian error linear unit."""
    if abs(x) > 1000:  # mpmath's erfc gives up far out, and the result is a zero long before
        return max(x, mp.mpf(0))
    if approximate == "none":
        return x * mp.erfc(-x / mp.sqrt(2)) / 2
    inner = mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)
    return x / (1 + mp.exp(-2 * inner))  # (1 + tanh(t)) / 2 = 1 / (1 + exp(-2 t))


def softplus(x: mp.mpf, beta: float) -> mp.mpf:
    """Softplus, log(1 + exp(beta x)) / beta."""
    return mp.log(1 + mp.exp(beta * x)) / beta


def squareplus(x: mp.mpf, b: float) -> mp.mpf:
    """Squareplus, (x + sqrt(x^2 + b)) / 2."""
    return b / (2 * (mp.sqrt(x * x + b) - x)) if x < 0 else (x + mp.sqrt(x * x + b)) / 2


def softshrink(x: mp.mpf, lambd: float) -> mp.mpf:
    """Move towards zero by lambd, and stop there."""
    return x - lambd if x > lambd else x + lambd if x < -lambd else mp.mpf(0)


INF = math.inf
LOG_POLES = {(0.0).hex(): -INF, (-0.0).hex(): -INF}
EDGES3 = {"kinks": lambda: (-3.0, 3.0)}
SHRINK: dict[str, Any] = {"attrs": ({"lambd": 0.5},), "kinks": lambda lambd: (-lambd, lambd)}

UNARY: dict[str, Function] = {
    "exp": Function(mp.exp, 0, INF),
    "expm1": Function(mp.expm1, -1, INF),
    "log": Function(mp.log, None, INF, lowest=0.0, poles=LOG_POLES),
    "log1p": Function(lambda x: mp.log(1 + x), None, INF, lowest=-1.0, poles={(-1.0).hex(): -INF}),
    "log2": Function(lambda x: mp.log(x, 2), None, INF, lowest=0.0, poles=LOG_POLES),
    "log10": Function(mp.log10, None, INF, lowest=0.0, poles=LOG_POLES),
    "sin": Function(mp.sin, None, None),
    "cos": Function(mp.cos, None, None),
    "tan": Function(mp.tan, None, None),
    "arcsin": Function(mp.asin, None, None, lowest=-1.0, highest=1.0),
    "arccos": Function(mp.acos, None, None, lowest=-1.0, highest=1.0),
    "arctan": Function(mp.atan, -mp.pi / 2, mp.pi / 2),
    "sinh": Function(mp.sinh, -INF, INF),
    "cosh": Function(mp.cosh, INF, INF),
    "tanh": Function(mp.tanh, -1, 1),
    "arcsinh": Function(mp.asinh, -INF, INF),
    "arccosh": Function(mp.acosh, None, INF, lowest=1.0),
    "arctanh": Function(
        mp.atanh,
        None,
        None,
        lowest=-1.0,
        highest=1.0,
        poles={(-1.0).hex(): -INF, (1.0).hex(): INF},
    ),
    "sqrt": Function(mp.sqrt, None, INF, lowest=0.0),
    "square": Function(lambda x: x * x, INF, INF),
    "reciprocal": Function(lambda x: 1 / x, 0, 0, poles={(0.0).hex(): INF, (-0.0).hex(): -INF}),
    "absolute": Function(abs, INF, INF),
    "negative": Function(lambda x: -x, INF, -INF),
    "sign": Function(mp.sign, -1, 1),
    "erf": Function(mp.erf, -1, 1),
    "relu": Function(lambda x: max(x, mp.mpf(0)), 0, INF, kinks=at_zero),
    "relu6": Function(relu6, 0, 6, kinks=lambda: (0.0, 6.0)),
    "leaky_relu": Function(
        lambda x, negative_slope: x if x > 0 else negative_slope * x,
        -INF,
        INF,
        ({"negative_slope": 0.01}, {"negative_slope": 0.3}),
        at_zero,
    ),
    "elu": Function(elu, lambda alpha: -alpha, INF, ({"alpha": 1.0}, {"alpha": 0.5}), at_zero),
    "celu": Function(
        lambda x, alpha: x if x > 0 else alpha * mp.expm1(x / alpha),
        lambda alpha: -alpha,
        INF,
        ({"alpha": 1.0}, {"alpha": 2.0}),
        at_zero,
    ),
    "selu": Function(
        lambda x: SELU_SCALE * elu(x, SELU_ALPHA), -SELU_SCALE * SELU_ALPHA, INF, kinks=at_zero
    ),
    "gelu": Function(gelu, 0, INF, ({"approximate": "none"}, {"approximate": "tanh"}), smooth),
    "silu": Function(lambda x: x / (1 + mp.exp(-x)), 0, INF, kinks=smooth),
    "mish": Function(lambda x: x * mp.tanh(softplus(x, 1)), 0, INF, kinks=smooth),
    "sigmoid": Function(lambda x: 1 / (1 + mp.exp(-x)), 0, 1, kinks=smooth),
    "hard_sigmoid": Function(lambda x: relu6(x + 3) / 6, 0, 1, **EDGES3),
    "log_sigmoid": Function(lambda x: -softplus(-x, 1), -INF, 0, kinks=smooth),
    "hard_tanh": Function(
        lambda x, min_val, max_val: min(max(x, mp.mpf(min_val)), mp.mpf(max_val)),
        lambda min_val, max_val: min_val,
        lambda min_val, max_val: max_val,
        ({"min_val": -1.0, "max_val": 1.0},),
        lambda min_val, max_val: (min_val, max_val),
    ),
    "tanhshrink": Function(lambda x: x - mp.tanh(x), -INF, INF, kinks=smooth),
    "softshrink": Function(softshrink, -INF, INF, **SHRINK),
    "hardshrink": Function(
        lambda x, lambd: x if abs(x) > lambd else mp.mpf(0), -INF, INF, **SHRINK
    ),
    "threshold": Function(
        lambda x, threshold, value: x if x > threshold else mp.mpf(value),
        lambda threshold, value: value,
        INF,
        ({"threshold": 0.1, "value": 20.0},),
        lambda threshold, value: (threshold,),
    ),
    "softsign": Function(lambda x: x / (1 + abs(x)), -1, 1, kinks=at_zero),
    "softplus": Function(softplus, 0, INF, ({"beta": 1.0}, {"beta": 2.0}), smooth),
    "squareplus": Function(squareplus, 0, INF, ({"b": 4.0},), smooth),
    "hard_silu": Function(lambda x: x * relu6(x + 3) / 6, 0, INF, **EDGES3),
    "cbrt": Function(lambda x: mp.sign(x) * mp.cbrt(abs(x)), -INF, INF),
    "floor": Function(mp.floor, -INF, INF),
    "ceil": Function(mp.ceil, -INF, INF),
    "trunc": Function(lambda x: mp.sign(x) * mp.floor(abs(x)), -INF, INF),
    "rint": Function(mp.nint, -INF, INF),
    "deg2rad": Function(mp.radians, -INF, INF),
    "rad2deg": Function(mp.degrees, -INF, INF),
    "logit": Function(
        lambda x: mp.log(x / (1 - x)), None, None, lowest=5e-324, highest=1.0 - 2.0**-53
    ),
}


def logaddexp(x: float, y: float) -> float:
    """Logarithm of exp(x) + exp(y)."""
    if math.isnan(x) or math.isnan(y):
        return math.nan
    if INF in (x, y):
        return INF
    if -INF in (x, y):
        return max(x, y)
    high, low = mp.mpf(max(x, y)), mp.mpf(min(x, y))
    return rounded(high + mp.log(1 + mp.exp(low - high)))


def power(x: float, y: float) -> float:
    """Power; at zeros, infinities and NaN as the C standard says."""
    if x == 0 or not math.isfinite(x) or not math.isfinite(y):
        try:
            return math.pow(x, y)
        except ValueError:  # Python's objection to a pole
            return -INF if math.copysign(1, x) < 0 and y % 2 == 1 else INF
    return rounded(mp.power(mp.mpf(x), mp.mpf(y)))


def logaddexp2(x: float, y: float) -> float:
    """Logarithm to base two of 2**x + 2**y."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return logaddexp(x, y)
    high, low = mp.mpf(max(x, y)), mp.mpf(min(x, y))
    return rounded(high + mp.log(1 + mp.power(2, low - high), 2))


def hypot(x: float, y: float) -> float:
    """Length of (x, y); with an infinity it is infinite, whatever the other is."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return math.hypot(x, y)
    return rounded(mp.sqrt(mp.mpf(x) ** 2 + mp.mpf(y) ** 2))


def arctan2(y: float, x: float) -> float:
    """Angle of (x, y); on the axes and at infinity as the C standard says."""
    if not (math.isfinite(x) and math.isfinite(y) and x and y):
        return math.atan2(y, x)
    return rounded(mp.atan2(mp.mpf(y), mp.mpf(x)))


LOGADDEXP_AT = [
    *((x, y) for x in (-17.0, -2.1, -1e-8, 0.0, 0.4, 3.7) for y in (-9.0, -2.1, 1e-3, 0.75, 3.7)),
    *((x, y) for x in (-1e4, -1000.0, -88.7, 709.8, 1e20, LARGEST) for y in (-1000.0, 1.3, 709.8)),
    *((x, y) for x in (-INF, INF, math.nan) for y in (-INF, -1.3, 0.0, 1000.0, INF, math.nan)),
    *((x, -x) for x in (1e-300, 1e-20, 0.0, 5.2, 100.0, 1e4, 1e20, LARGEST)),
    *((x, x) for x in (-LARGEST, -1e20, -709.8, -0.0, 1e-20, 0.05, 88.7, 709.8, 1e4)),
]
HYPOT_AT = [
    *((x, y) for x in (-17.0, -1e-8, 0.0, 0.4, 3.7) for y in (-9.0, -0.0, 1e-3, 0.75, 1e10)),
    *((x, y) for x in (5e-324, 2.2e-308, 1e-170, 1e170, LARGEST) for y in (5e-324, 1e-170, 1e170)),
    *((x, y) for x in (-INF, INF, math.nan, 0.0) for y in (-INF, -1.3, 0.0, INF, math.nan)),
    *((x, y) for x in (0.0, -0.0, 5e-324, LARGEST) for y in (1.0, -1.0, 0.0, -0.0)),
]
POWER_AT = [
    *((x, y) for x in (1e-8, 0.2, 0.75, 1.0, 1.3, 9.0) for y in (-2.1, -1.0, 0.0, 0.5, 1.0, 3.7)),
    *((x, y) for x in (-9.0, -1.0, -0.4) for y in (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0)),
    *((x, y) for x in (0.0, -0.0) for y in (-INF, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, INF)),
    *((x, y) for x in (INF, -INF) for y in (-INF, -3.0, -2.0, 0.0, 2.0, 3.0, INF, math.nan)),
    *((math.nan, y) for y in (-1.0, 0.0, 2.0, math.nan)),
    *((x, y) for x in (-1.0, 0.5, 1.0, 2.0) for y in (-INF, INF, math.nan)),
    *((2.0, y) for y in (-1080.0, -1074.0, -1022.5, 1023.5, 1024.0, 1e4, -1e4)),
    *((-2.0, y) for y in (-1075.0, 1023.0, 1025.0)),
    *((x, y) for x in (1 - 1e-8, 1 + 1e-8) for y in (-1e10, 1e3, 1e10, 1e20)),
    *((x, y) for x in (5e-324, 2.2e-308, 1e20, LARGEST) for y in (-1.0, -0.5, 0.5, 1.0, 2.0)),
]


def points(function: Function, attrs: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return the ordinary points in the domain, and the others, each without repeats."""
    ordinary = list(ORDINARY)
    if function.highest == 1.0:
        ordinary += INSIDE
    elif function.lowest > -INF:
        ordinary += POSITIVE
    if function.lowest == 1.0:
        ordinary += [1 + x for x in ORDINARY if x > 1e-9]
    if function.lowest == -1.0:
        ordinary += INSIDE
    kinks = function.kinks(**attrs) if function.kinks else ()
    ordinary += [k + d for k in kinks for d in (-1e-3, 1e-3)]
    ends = [x for x in (function.lowest, function.highest) if abs(x) == 1.0]
    special = [*kinks, *ends, *EXTREME]

    def inside(xs: list[float]) -> list[float]:
        kept = (x for x in xs if function.lowest <= x <= function.highest)
        return list({x.hex(): x for x in kept}.values())

    return sorted(inside(ordinary)), inside(special)


def table(function: Function, attrs: dict[str, Any]) -> dict[str, Any]:
    """Tabulate a function of one operand for one setting of its attributes."""
    exact = {k: mp.mpf(v) if isinstance(v, float) else v for k, v in attrs.items()}

    def f(x: mp.mpf) -> mp.mpf:
        return mp.mpf(function.f(x, **exact))

    def limit(value: Any) -> float:
        return float(value(**attrs) if callable(value) and not hasattr(value, "_mpf_") else value)

    def value(x: float) -> float:
        return function.poles[x.hex()] if x.hex() in function.poles else rounded(f(mp.mpf(x)))

    ordinary, special = points(function, attrs)
    x = [*ordinary, *special]
    y = [value(v) for v in x]
    for at, end in ((-INF, function.left), (INF, function.right)):
        if end is not None:
            x.append(at)
            y.append(limit(end))
    x.append(math.nan)
    y.append(math.nan)
    entry: dict[str, Any] = {"attrs": attrs, "x": [v.hex() for v in x], "y": [v.hex() for v in y]}
    if function.kinks:
        none = [None] * (len(x) - len(ordinary))
        for name, order in (("dy", 1), ("d2y", 2)):
            slopes = [rounded(mp.diff(f, mp.mpf(v), order)).hex() for v in ordinary]
            entry[name] = [*slopes, *none]
    return entry


def main() -> None:
    """Write the file next to this one."""
    tables = {name: [table(fn, attrs) for attrs in fn.attrs] for name, fn in UNARY.items()}
    for name, binary, at in (
        ("logaddexp", logaddexp, LOGADDEXP_AT), ("power", power, POWER_AT),
        ("logaddexp2", logaddexp2, LOGADDEXP_AT), ("hypot", hypot, HYPOT_AT),
        ("arctan2", arctan2, HYPOT_AT),
    ):  # fmt: skip
        x = [[pair[i].hex() for pair in at] for i in (0, 1)]
        tables[name] = [{"attrs": {}, "x": x, "y": [binary(*pair).hex() for pair in at]}]
    text = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(entries, separators=(',', ':'))}"
        for name, entries in tables.items()
    )
    Path(__file__).with_name("references.json").write_text("{\n" + text + "\n}\n", encoding="ascii")


if __name__ == "__main__":
    main()
