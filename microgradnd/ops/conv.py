"""Convolution and pooling over any number of spatial axes: arrays are (N, C, *space).

A convolution is linear in its input and in its weight. It and its two adjoints, `conv_input` and
`conv_weight`, are three primitives, and the formulas of each are the other two. Likewise `unfold`,
which gives the windows that pooling looks at, and `fold`, which adds them up.

In all of them `how` is `(stride, padding, dilation)`, with `groups` for convolutions, a number (of
padding two: before and after) for each spatial axis.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..primitives import primitive
from ..protocols import composite
from ..tape import Tensor, wrap
from .elementwise import identity
from .reductions import mean, sum
from .references import adjoint, convolved, windows
from .shaping import expand_dims, squeeze

# ----------------------------------------------------------------------------- geometry


def _each(what, value, n, least=1):
    """One number for each of n spatial axes."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    whole = [hasattr(v, "__index__") and not isinstance(v, bool) and v >= least for v in values]
    if len(values) != n or not all(whole):
        raise ValueError(
            f"{what} must be an integer of at least {least}, or {n} of them, got {value!r}"
        )
    return tuple(map(operator.index, values))


def _reach(kernel, dilation):
    return [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]


def geometry(
    space: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
) -> Any:
    """`(stride, padding, dilation)` with a number, or a pair, for each axis."""
    n = len(space)
    stride, dilation = _each("stride", stride, n), _each("dilation", dilation, n)
    reach = _reach(kernel, dilation)
    if isinstance(padding, str):
        if padding not in ("same", "valid") or (padding == "same" and set(stride) != {1}):
            raise ValueError("padding must be numbers, 'valid' or (with stride 1) 'same', got "
                             f"{padding!r} with stride {stride}")  # fmt: skip
        grow = [r - 1 if padding == "same" else 0 for r in reach]
        pairs = [(m // 2, m - m // 2) for m in grow]
    else:
        pairs = [(p, p) for p in _each("padding", padding, n, 0)]
    if ceil_mode:
        for i, (r, size, (a, b), s) in enumerate(zip(reach, space, pairs, stride, strict=True)):
            last = -((a + size + b - r) // -s)  # a last window may reach out, but begins inside
            last -= last * s >= a + size
            pairs[i] = (a, max(b, last * s + r - a - size))
    if any(r > a + size + b for r, size, (a, b) in zip(reach, space, pairs, strict=True)):
        raise ValueError(f"a kernel that reaches over {tuple(reach)} does not fit an input of "
                         f"{space}, padded by {tuple(pairs)}")  # fmt: skip
    return stride, tuple(pairs), dilation


def _batched(n, x):
    """The input as a batch, and whether it was one."""
    if x.ndim not in (n + 1, n + 2):
        space = "L" if n == 1 else "H, W"
        raise ValueError(f"an input (N, C, {space}) or without N is wanted, got shape {x.shape}")
    return (x, True) if x.ndim == n + 2 else (expand_dims(x, 0), False)


def _as_given(out, batched):
    return out if batched else squeeze(out, 0)


# ----------------------------------------------------------------------------- convolution

#: Geometries for the tests: (stride, padding, dilation, groups).
PLAIN = ((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
ODD = ((2, 1), ((1, 1), (0, 1)), (1, 2), 2)
LINE = ((2,), ((1, 0),), (2,), 1)


@primitive(
    module=None,
    cases=(
        (((1, 2, 3, 3), (2, 2, 2, 2), (2,)), {"how": PLAIN}),
        (((2, 4, 4, 3), (2, 2, 3, 2)), {"how": ODD}),
        (((2, 1, 6), (2, 1, 3), (2,)), {"how": LINE}),
    ),
    reference=convolved,
)
def conv(xp, x, weight, bias=None, /, *, how):
    r"""A convolution (unturned, as is usual) over any number of axes: what `conv2d` records.

    Takes (N, C, \*space), a weight (O, C / groups, \*kernel) and a bias (O,). See `conv2d`.

    Example:
        >>> import microgradnd as mg
        >>> how = ((1,), ((0, 0),), (1,), 1)
        >>> x, w = mg.tensor([[[1.0, 2.0, 4.0]]]), mg.tensor([[[3.0, 1.0]]])
        >>> f = lambda x: mg.conv(x, w, None, how=how)
        >>> f(x), mg.grad(lambda x: f(x).sum())(x)
        (Tensor([[[ 5., 10.]]]), Tensor([[[3., 4., 1.]]]))
    """
    return xp.conv(x, weight, bias, how)


@primitive(
    module=None,
    cases=(
        (((1, 2, 2, 2), (2, 2, 2, 2)), {"space": (3, 3), "how": PLAIN}),
        (((2, 2, 2, 2), (2, 2, 3, 2)), {"space": (4, 3), "how": ODD}),
        (((2, 2, 2), (2, 1, 3)), {"space": (6,), "how": LINE}),
    ),
    reference=lambda y, weight, space, how: adjoint(
        lambda x: convolved(x, weight, how=how), (len(y), weight.shape[1] * how[-1], *space), y
    ),
)
def conv_input(xp, y, weight, /, space, how):
    r"""The adjoint of a convolution for its input, of that space: a transposed convolution."""
    return xp.conv_input(y, weight, space, how)


@primitive(
    module=None,
    cases=(
        (((1, 2, 2, 2), (1, 2, 3, 3)), {"kernel": (2, 2), "how": PLAIN}),
        (((2, 2, 2, 2), (2, 4, 4, 3)), {"kernel": (3, 2), "how": ODD}),
        (((2, 2, 2), (2, 1, 6)), {"kernel": (3,), "how": LINE}),
    ),
    reference=lambda y, x, kernel, how: adjoint(
        lambda w: convolved(x, w, how=how), (y.shape[1], x.shape[1] // how[-1], *kernel), y
    ),
)
def conv_weight(xp, y, x, /, kernel, how):
    r"""The adjoint of a convolution for its weight, of that kernel."""
    return xp.conv_weight(y, x, kernel, how)


conv.vjp(
    x=lambda xp, g, weight, shapes, how: xp.conv_input(g, weight, shapes[0][2:], how),
    weight=lambda xp, g, x, shapes, how: xp.conv_weight(g, x, shapes[1][2:], how),
    bias=lambda xp, g: xp.sum(g, axis=(0, *range(2, g.ndim))),
)
conv_input.vjp(
    y=lambda xp, g, weight, how: xp.conv(g, weight, None, how),
    weight=lambda xp, g, y, shapes, how: xp.conv_weight(y, g, shapes[1][2:], how),
)
conv_weight.vjp(
    y=lambda xp, g, x, how: xp.conv(x, g, None, how),
    x=lambda xp, g, y, shapes, how: xp.conv_input(y, g, shapes[1][2:], how),
)


def _convolve(n, x, weight, bias, stride, padding, dilation, groups):
    x, batched = _batched(n, x)
    (groups,) = _each("groups", groups, 1)
    if weight.ndim != n + 2 or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(f"an input of shape {x.shape} for a weight of {weight.shape}; the weight "
                         f"must be (O, C / groups, {n} sizes), groups={groups}")  # fmt: skip
    _each("the kernel's sizes", weight.shape[2:], n)
    if weight.shape[0] % groups:
        raise ValueError(f"{weight.shape[0]} channels do not divide into {groups} groups")
    bias = bias if bias is None or isinstance(bias, Tensor) else identity(bias)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"a bias of shape {bias.shape} for a weight of {weight.shape}")
    how = geometry(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return _as_given(conv(x, weight, bias, (*how, groups)), batched)


@composite(
    module=None,
    operands=2,
    cases=(
        (((2, 2, 5), (3, 2, 2), (3,)), {}),
        (((2, 5), (2, 1, 3)), {"padding": "same", "groups": 2}),
    ),
    reference=lambda x, weight, bias=0.0, padding=0, groups=1: convolved(
        x.reshape(-1, 2, 5), weight, bias,
        how=((1,), ((1, 1) if padding else (0, 0),), (1,), groups),
    ).reshape(*x.shape[:-2], len(weight), -1),
)  # fmt: skip
def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    r"""A convolution along one axis (see `conv2d`): (N, C, L) becomes (N, O, L').

    Example:
        >>> import microgradnd as mg
        >>> x, w = mg.tensor([[[1.0, 2.0, 4.0]]]), mg.tensor([[[-1.0, 1.0]]])
        >>> mg.conv1d(x, w), mg.grad(lambda x: mg.conv1d(x, w).sum())(x)
        (Tensor([[[1., 2.]]]), Tensor([[[-1.,  0.,  1.]]]))
    """
    return _convolve(1, x, weight, bias, stride, padding, dilation, groups)


@composite(
    module=None,
    operands=2,
    cases=(
        (((2, 2, 3, 3), (2, 2, 2, 2), (2,)), {}),
        (((1, 2, 4, 3), (2, 1, 3, 2)), {"stride": (2, 1), "padding": 1, "groups": 2}),
    ),
    reference=lambda x, weight, bias=0.0, stride=(1, 1), padding=0, groups=1: convolved(
        x, weight, bias, how=(stride, ((padding, padding),) * 2, (1, 1), groups)
    ),
)
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    r"""A convolution over images, :math:`y_{noij} = b_o + \sum_{cuv} w_{ocuv} x_{n,c,si+du,sj+dv}`.

    Takes (N, C, H, W) or (C, H, W), a weight (O, C / groups, kh, kw) and a bias (O,); gives
    (N, O, H', W') with :math:`H' = \lfloor (H + 2p - d (kh - 1) - 1) / s \rfloor + 1`. The kernel
    is not turned around, as everywhere in this field.

    Args:
        x: The input.
        weight: The kernels.
        bias: A number for each channel of the output.
        stride: Steps s of the kernel; like `padding` and `dilation` one number, or two.
        padding: Zeros p around the input, `"valid"` for none, or `"same"` for an output as large
            as the input.
        dilation: Steps d within the kernel.
        groups: In so many groups the channels are convolved for themselves.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> import microgradnd as mg
        >>> x, w = mg.arange(9.0).reshape(1, 1, 3, 3), mg.tensor([[[[1.0, 0.0], [0.0, -1.0]]]])
        >>> mg.conv2d(x, w).tolist(), mg.grad(lambda w: mg.conv2d(x, w).sum())(w).tolist()
        ([[[[-4.0, -4.0], [-4.0, -4.0]]]], [[[[8.0, 12.0], [20.0, 24.0]]]])
    """
    return _convolve(2, x, weight, bias, stride, padding, dilation, groups)


# ----------------------------------------------------------------------------- windows


@primitive(
    module=None,
    view=True,
    cases=(
        (((1, 2, 3, 3),), {"kernel": (2, 2), "how": PLAIN[:3]}),
        (((2, 1, 4, 3),), {"kernel": (3, 2), "how": ODD[:3]}),
        (((2, 1, 6),), {"kernel": (3,), "how": LINE[:3], "fill": -1.0}),
    ),
    reference=windows,
)
def unfold(xp, x, /, kernel, how, fill=0.0):
    r"""The windows under a kernel: (N, C, \*space) becomes (N, C, \*places, \*kernel).

    Where there is no padding the result is a view.

    Example:
        >>> import microgradnd as mg
        >>> x, how = mg.tensor([[[1.0, 2.0, 4.0]]]), ((1,), ((0, 0),), (1,))
        >>> mg.unfold(x, (2,), how).tolist()
        [[[[1.0, 2.0], [2.0, 4.0]]]]
        >>> mg.grad(lambda x: mg.unfold(x, (2,), how).sum())(x)
        Tensor([[[1., 2., 1.]]])
    """
    return xp.unfold(x, kernel, how, fill)


@primitive(
    module=None,
    cases=(
        (((1, 2, 2, 2, 2, 2),), {"space": (3, 3), "how": PLAIN[:3]}),
        (((2, 1, 2, 2, 3, 2),), {"space": (4, 3), "how": ODD[:3]}),
        (((2, 1, 2, 3),), {"space": (6,), "how": LINE[:3]}),
    ),
    reference=lambda x, space, how: adjoint(
        lambda y: windows(y, x.shape[-len(space) :], how), (*x.shape[:2], *space), x
    ),
)
def fold(xp, x, /, space, how):
    r"""Windows put back where they were taken from, sums where they overlap: `unfold`'s adjoint.

    Example:
        >>> import microgradnd as mg
        >>> x, how = mg.tensor([[[[1.0, 2.0], [4.0, 8.0]]]]), ((1,), ((0, 0),), (1,))
        >>> mg.fold(x, (3,), how)
        Tensor([[[1., 6., 8.]]])
    """
    return xp.fold(x, space, how)


unfold.vjp(x=lambda xp, g, shapes, how: xp.fold(g, shapes[0][2:], how))
fold.vjp(x=lambda xp, g, shapes, space, how: xp.unfold(g, shapes[0][len(space) + 2 :], how, 0.0))


# ----------------------------------------------------------------------------- pooling


@primitive(
    module=None,
    residuals=("winner",),
    cases=(
        (((1, 2, 4, 4),), {"kernel": (2, 2), "how": ((2, 2), ((0, 0), (0, 0)), (1, 1))}),
        (((2, 1, 4, 3),), {"kernel": (3, 2), "how": ODD[:3]}),
        (((2, 1, 6),), {"kernel": (3,), "how": LINE[:3]}),
    ),
    conventions=tuple(
        (f"max pooling, {case}", ([[x]],), {"kernel": (2,), "how": ((2,), padding, (1,))}, ([[g]],))
        for case, x, padding, g in (
            ("at a tie", [1.0, 1.0], ((0, 0),), [1.0, 0.0]),
            ("with a NaN", [1.0, math.nan], ((0, 0),), [0.0, 1.0]),
            ("only -inf beside padding", [-math.inf], ((1, 0),), [1.0]),
        )
    ),
    reference=lambda x, kernel, how: windows(x, kernel, how, -np.inf).max(
        axis=tuple(range(-len(kernel), 0))
    ),
)
def max_pool(xp, x, /, kernel, how):
    r"""The largest of each window; what `max_pool2d` records.

    The gradient goes to the first winner of each window; a NaN wins, padding never does.

    Example:
        >>> import microgradnd as mg
        >>> x, how = mg.tensor([[[1.0, 3.0, 3.0, 2.0]]]), ((1,), ((0, 0),), (1,))
        >>> f = lambda x: mg.max_pool(x, (2,), how)
        >>> f(x), mg.grad(lambda x: f(x).sum())(x)
        (Tensor([[[3., 3., 3.]]]), Tensor([[[0., 2., 1., 0.]]]))
    """
    n = len(kernel)
    out, winner = xp.max_and_winner(xp.unfold(x, kernel, how, -math.inf), n)
    if any(before for before, _ in how[1]):  # beside nothing but -inf padding came first
        inner = xp.unfold(xp.ones((1, 1, *x.shape[2:]), dtype=x.dtype), kernel, how, 0.0)
        winner = xp.where(out == -math.inf, xp.max_and_winner(inner, n)[1], winner)
    return out, (winner,)


def _to_winners(xp, g, winner, shapes, kernel, how):
    routed = xp.route(g, winner, math.prod(kernel))
    return xp.fold(xp.reshape(routed, (*g.shape, *kernel)), shapes[0][2:], how)


max_pool.vjp(x=_to_winners)


def _pooled(n, x, kernel_size, stride, padding, dilation, ceil_mode):
    """The batch, whether it was one, the kernel, and how it goes."""
    x, batched = _batched(n, x)
    kernel = _each("kernel_size", kernel_size, n)
    if any(2 * p > k for p, k in zip(_each("padding", padding, n, 0), kernel, strict=True)):
        raise ValueError(f"padding must be at most half of the kernel, got {padding!r} for "
                         f"a kernel of {kernel}")  # fmt: skip
    stride = kernel if stride is None else stride
    return x, batched, kernel, geometry(
        x.shape[2:], kernel, stride, padding, dilation, ceil_mode
    )


def _largest(n, x, *options):
    x, batched, kernel, how = _pooled(n, x, *options)
    if x.dtype.kind != "f" and any(map(any, how[1])):
        raise TypeError(f"integers have no -inf for the padding, got {x.dtype}; use x.astype(...)")
    return _as_given(max_pool(x, kernel, how), batched)


def _average(n, x, kernel_size, stride, padding, ceil_mode, count_include_pad):
    x, batched, kernel, how = _pooled(n, x, kernel_size, stride, padding, 1, ceil_mode)
    seen, axes = unfold.bare(x, kernel, how), tuple(range(-n, 0))
    pads = _each("padding", padding, n, 0)
    own = pads if count_include_pad else (0,) * n  # padding that counts
    rest = tuple((a - o, b - o) for (a, b), o in zip(how[1], own, strict=True))
    if not any(map(any, rest)):
        return _as_given(mean(seen, axis=axes), batched)
    space = tuple(size + 2 * o for size, o in zip(x.shape[2:], own, strict=True))
    ones = wrap(x.backend.xp.ones((1, 1, *space), dtype=x.dtype))
    counts = sum(unfold.bare(ones, kernel, (how[0], rest, how[2])), axis=axes)
    return _as_given(sum(seen, axis=axes) / counts, batched)


@composite(
    cases=((((2, 1, 5),), {"kernel_size": 2}),),
    reference=lambda x, kernel_size: x[..., :4].reshape(2, 1, 2, 2).max(-1),
)
def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    r"""The largest of each window along one axis (see `max_pool2d`).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[[1.0, 3.0, 3.0, 2.0]]])
        >>> mg.max_pool1d(x, 2), mg.grad(lambda x: mg.max_pool1d(x, 2).sum())(x)
        (Tensor([[[3., 3.]]]), Tensor([[[0., 1., 1., 0.]]]))
    """
    return _largest(1, x, kernel_size, stride, padding, dilation, ceil_mode)


@composite(
    cases=((((1, 2, 4, 5),), {"kernel_size": 2}),),
    reference=lambda x, kernel_size: x[..., :4].reshape(1, 2, 2, 2, 2, 2).max((3, 5)),
)
def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    r"""The largest of each window of images (N, C, H, W), or (C, H, W).

    The gradient goes to the first winner of each window; a NaN wins, padding never does.

    Args:
        x: The input.
        kernel_size: The size of a window; like `stride`, `padding`, `dilation` one number, or two.
        stride: Steps of the window; its size if None.
        padding: Places around the input, at most half of a window.
        dilation: Steps within the window.
        ceil_mode: Whether a last window may reach beyond the input.

    Raises:
        ValueError: If the sizes do not fit.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[[[1.0, 3.0], [3.0, 2.0]]]])
        >>> mg.max_pool2d(x, 2).tolist(), mg.grad(lambda x: mg.max_pool2d(x, 2).sum())(x).tolist()
        ([[[[3.0]]]], [[[[0.0, 1.0], [0.0, 0.0]]]])
    """
    return _largest(2, x, kernel_size, stride, padding, dilation, ceil_mode)


@composite(
    cases=((((2, 1, 5),), {"kernel_size": 2}),),
    reference=lambda x, kernel_size: x[..., :4].reshape(2, 1, 2, 2).mean(-1),
)
def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    r"""The mean of each window along one axis (see `avg_pool2d`).

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[[1.0, 3.0, 3.0, 2.0]]])
        >>> mg.avg_pool1d(x, 2), mg.grad(lambda x: mg.avg_pool1d(x, 2).sum())(x)
        (Tensor([[[2. , 2.5]]]), Tensor([[[0.5, 0.5, 0.5, 0.5]]]))
    """
    return _average(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


@composite(
    cases=(
        (((1, 2, 4, 5),), {"kernel_size": 2}),
        (((1, 1, 3, 3),), {"kernel_size": 2, "padding": 1, "count_include_pad": False}),
    ),
    reference=lambda x, kernel_size, padding=0, count_include_pad=True: np.nanmean(
        windows(x, (2, 2), ((2, 2), ((padding,) * 2,) * 2, (1, 1)), np.nan), (-2, -1)
    ),
)
def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    r"""The mean of each window of images (N, C, H, W), or (C, H, W).

    Args:
        x: The input.
        kernel_size: The size of a window; like `stride` and `padding` one number, or two.
        stride: Steps of the window; its size if None.
        padding: Zeros around the input, at most half of a window.
        ceil_mode: Whether a last window may reach beyond the input; what lies out there never
            counts.
        count_include_pad: Whether the zeros count.

    Raises:
        ValueError: If the sizes do not fit.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([[[[1.0, 3.0], [3.0, 2.0]]]])
        >>> mg.avg_pool2d(x, 2).tolist(), mg.grad(lambda x: mg.avg_pool2d(x, 2).sum())(x).tolist()
        ([[[[2.25]]]], [[[[0.25, 0.25], [0.25, 0.25]]]])
    """
    return _average(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


@composite(
    cases=((((2, 2, 4, 6),), {"output_size": (1, 3)}), (((2, 2, 3, 2),), {"output_size": 1})),
    reference=lambda x, output_size: x.reshape(
        (2, 2, 1, x.shape[2], -1, 2)
    ).mean((3, 5)),
)  # fmt: skip
def adaptive_avg_pool2d(x, output_size):
    r"""The means of so many equal parts of images: 1 for one mean of a channel.

    Raises:
        ValueError: If the sizes of the image are no multiples of `output_size`.

    Example:
        >>> import microgradnd as mg
        >>> mg.adaptive_avg_pool2d(mg.tensor([[[1.0, 3.0], [3.0, 2.0]]]), 1).tolist()
        [[[2.25]]]
        >>> mg.grad(lambda x: mg.adaptive_avg_pool2d(x, 1).sum())(mg.ones((1, 2, 2))).tolist()
        [[[0.25, 0.25], [0.25, 0.25]]]
    """
    size = _each("output_size", output_size, 2)
    space = x.shape[-2:]
    if len(space) < 2 or any(n % m for n, m in zip(space, size, strict=True)):
        raise ValueError(f"an input of shape {x.shape} does not divide into {size} equal parts")
    kernel = tuple(n // m for n, m in zip(space, size, strict=True))
    return _average(2, x, kernel, None, 0, False, True)
