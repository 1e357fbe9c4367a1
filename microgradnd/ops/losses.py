"""Losses, each one primitive; `reduction` is `"mean"`, `"sum"` or `"none"`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..primitives import primitive
from ..protocols import composite
from . import reductions
from .activations import relu
from .elementwise import exp, log, maximum, where
from .linalg import norm
from .shaping import broadcast_arrays


def _reduced(xp, values, reduction):
    if reduction == "none":
        return values
    if reduction == "sum":
        return xp.sum(values)
    return xp.mean(values)


def _check(name, x, target, reduction):
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if x.shape != target.shape:
        raise ValueError(
            f"{name}: input has shape {x.shape}, target {target.shape}; nothing is broadcast here, "
            "reshape one of them"
        )
    if x.dtype.kind != "f" and target.dtype.kind != "f":
        raise TypeError(f"{name}: input {x.dtype} and target {target.dtype}; one must be float")


def _each(g, size, reduction):
    """The gradient of the unreduced losses."""
    return g * (1.0 / size) if reduction == "mean" and size else g


def _fits(shape, into):
    """Whether a shape broadcasts to another."""
    tail = into[len(into) - len(shape) :]
    return len(shape) <= len(into) and all(n in (1, m) for n, m in zip(shape, tail, strict=True))


def _least(x, eps):
    """A smallest divisor; in float16 one whose reciprocal is finite."""
    return max(eps, 1e-4) if x.dtype.itemsize == 2 else eps


PAIRS: Any = (
    (((3, 2), (3, 2)), {}),
    (((3,), (3,)), {"reduction": "sum"}),
    (((2, 2), (2, 2)), {"reduction": "none"}),
)


@primitive(module="MSELoss", cases=PAIRS)
def mse(xp, x, target, /, reduction="mean"):
    r"""The squared error, :math:`(x - t)^2`, reduced.

    Raises:
        ValueError: If the shapes differ; nothing is broadcast silently.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.mse)(mg.tensor([1.0, 2.0]), mg.tensor([1.0, 4.0]))
        (Tensor(2.), Tensor([ 0., -2.]))
    """
    _check("mse", x, target, reduction)
    return _reduced(xp, xp.square(x - target), reduction)


mse.vjp(
    x=lambda g, x, target, reduction: _each(g, x.size, reduction) * 2.0 * (x - target),
    target=lambda g, x, target, reduction: _each(g, x.size, reduction) * 2.0 * (target - x),
)


@primitive(
    module="L1Loss",
    cases=PAIRS,
    conventions=(("l1 at 0", ([0.0], [0.0]), {}, ([0.0], [0.0])),),
)
def l1(xp, x, target, /, reduction="mean"):
    r"""The absolute error, :math:`|x - t|`, reduced; its slope at 0 is 0.

    Raises:
        ValueError: If the shapes differ; nothing is broadcast silently.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.l1)(mg.tensor([1.0, 2.0]), mg.tensor([1.0, 4.0]))
        (Tensor(1.), Tensor([ 0. , -0.5]))
    """
    _check("l1", x, target, reduction)
    return _reduced(xp, xp.absolute(x - target), reduction)


l1.vjp(
    x=lambda xp, g, x, target, reduction: _each(g, x.size, reduction) * xp.sign(x - target),
    target=lambda xp, g, x, target, reduction: _each(g, x.size, reduction) * xp.sign(target - x),
)


HUBER = ([0.25, -2.5, 1.75, 0.125], [0.5, -0.25, -0.5, 0.75])  # two within 1, two further apart


@primitive(
    module="HuberLoss",
    cases=(
        (((3, 2), (3, 2)), {"delta": 7.0}),
        (HUBER, {}),
        (HUBER, {"reduction": "sum"}),
        (HUBER, {"reduction": "none"}),
    )
)
def huber(xp, x, target, /, reduction="mean", delta=1.0):
    r"""Squared error inside delta, linear outside, :math:`d^2/2` or :math:`\delta(|d| - \delta/2)`.

    Raises:
        ValueError: If the shapes differ, or delta is not positive.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.huber)(mg.tensor([0.5, 3.0]), mg.tensor([0.0, 0.0]))
        (Tensor(1.3125), Tensor([0.25, 0.5 ]))
    """
    _check("huber", x, target, reduction)
    if not delta > 0:
        raise ValueError(f"huber: delta must be positive, got {delta}")
    d = xp.absolute(x - target)
    inside = xp.minimum(d, delta)
    return _reduced(xp, inside * (d - 0.5 * inside), reduction)


huber.vjp(
    x=lambda xp, g, x, target, delta, reduction: _each(g, x.size, reduction)
    * xp.clip(x - target, -delta, delta),
    target=lambda xp, g, x, target, delta, reduction: _each(g, x.size, reduction)
    * xp.clip(target - x, -delta, delta),
)


@composite(module="SmoothL1Loss", operands=2, cases=((HUBER, {}), (HUBER, {"beta": 2.0})))
def smooth_l1(x, target, reduction="mean", beta=1.0):
    r"""Squared error inside beta, linear outside, :math:`d^2/2\beta` or :math:`|d| - \beta/2`.

    The Huber loss divided by beta; with `beta=0` it is the absolute error.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.smooth_l1)(mg.tensor([0.5, 3.0]), mg.tensor([0.0, 0.0]))
        (Tensor(1.3125), Tensor([0.25, 0.5 ]))
    """
    return huber(x, target, reduction, beta) / beta if beta else l1(x, target, reduction)


@composite(
    module="HingeLoss",
    operands=2,
    cases=(
        (([0.25, -2.5, 1.75, 0.5], [1.0, -1.0, 1.0, -1.0]), {}),
        (([0.25, -2.5, 1.75, 0.5], [-1.0, -1.0, 1.0, 1.0]), {"reduction": "none", "margin": 2.0}),
    ),
    conventions=(("hinge at the margin", ([1.0], [1.0]), {}, ([0.0], [0.0])),),
    reference=lambda x, target, reduction="mean", margin=1.0: (
        np.mean if reduction == "mean" else np.array
    )(np.where(target * x < margin, margin - target * x, 0.0)),
)
def hinge(x, target, reduction="mean", margin=1.0):
    r"""How much of a margin is lacking, :math:`\max(m - t x, 0)`, reduced; targets are -1 or 1.

    Its slope at the margin is 0.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.hinge)(mg.tensor([0.5, 2.0]), mg.tensor([1, 1]))
        (Tensor(0.25), Tensor([-0.5, -0. ]))
    """
    _check("hinge", x, target, reduction)
    target = target if target.dtype.kind == "f" else target.astype(x.dtype)
    return _reduced(reductions, relu(margin - target * x), reduction)


@composite(
    module="KLDivLoss",
    operands=2,
    domain=(0.1, 0.9),
    cases=(
        *PAIRS,
        (((3, 2), (3, 2)), {"reduction": "batchmean"}),
        (((3, 2), (3, 2)), {"log_target": True}),
    ),
    reductions=("mean", "sum", "none", "batchmean"),
)
def kl_div(x, target, reduction="mean", log_target=False):
    r"""The divergence of distributions, :math:`t (\ln t - x)`, reduced; x are log-probabilities.

    Targets are probabilities, of which 0 costs nothing, or their logarithms (`log_target`).
    `"batchmean"` divides the sum by the number of examples: the divergence as it is defined.
    `"mean"` divides it by that of all elements, as in PyTorch.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import microgradnd as mg
        >>> x, target = mg.log(mg.tensor([[0.5, 0.5]])), mg.tensor([[1.0, 0.0]])
        >>> loss = mg.kl_div(x, target, reduction="batchmean")
        >>> round(loss.item(), 4), mg.grad(mg.kl_div)(x, target, reduction="batchmean")
        (0.6931, Tensor([[-1.,  0.]]))
    """
    batch = reduction == "batchmean"
    _check("kl_div", x, target, "sum" if batch else reduction)
    zero = target == (-math.inf if log_target else 0)
    safe = where(zero, 0.0 if log_target else 1.0, target)
    share, logarithm = (exp(safe), safe) if log_target else (safe, log(safe))
    costs = where(zero, 0.0, share * (logarithm - where(zero, 0.0, x)))
    total = _reduced(reductions, costs, "sum" if batch else reduction)
    return total / (x.shape[0] if x.ndim else 1) if batch else total


@composite(
    operands=2,
    cases=(
        (((2, 3), (2, 3)), {}),
        (((3,), (2, 3)), {}),
        (((2, 1, 3), (2, 3)), {"axis": -1}),
    ),
    reference=lambda x, y, axis=1, eps=1e-8: np.sum(x * y, axis)
    / np.prod([np.linalg.norm(v, axis=axis) for v in np.broadcast_arrays(x, y)], axis=0),
    conventions=(
        ("cosine_similarity at 0", ([[0.0, 0.0]], [[3.0, 4.0]]), {},
         ([[6e7, 8e7]], [[0.0, 0.0]])),
    ),
)
def cosine_similarity(x, y, axis=1, eps=1e-8):
    r"""The cosine of the angle between vectors, :math:`\frac{x \cdot y}{|x| |y|}`, along an axis.

    Lengths below eps count as eps, so that it is 0 at the zero vector, with a finite gradient.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.cosine_similarity)(mg.tensor([3.0, 4.0]), [1.0, 0.0], axis=0)
        (Tensor(0.6), Tensor([ 0.128, -0.096]))
    """
    x, y = broadcast_arrays(x, y)
    lengths = (maximum(norm(v, axis=axis, keepdims=True), _least(v, eps)) for v in (x, y))
    return reductions.sum(x / next(lengths) * (y / next(lengths)), axis=axis)


@primitive(
    module="BCEWithLogitsLoss",
    cases=PAIRS,
    domain={"x": (-3, 3), "target": (0.1, 0.9), "pos_weight": (0.5, 2)},
)
def binary_cross_entropy_with_logits(xp, x, target, pos_weight=None, /, reduction="mean"):
    r"""Cross-entropy of a sigmoid, :math:`-w\,t\ln\sigma(x) - (1 - t)\ln(1 - \sigma(x))`, reduced.

    Takes logits, probabilities of the same shape, and a weight of the positive part (broadcasts).

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import microgradnd as mg
        >>> loss = mg.binary_cross_entropy_with_logits
        >>> mg.value_and_grad(loss)(mg.tensor([100.0]), mg.tensor([0.0]))
        (Tensor(100.), Tensor([1.]))
        >>> mg.grad(loss)(mg.tensor([0.0]), mg.tensor([1.0]))
        Tensor([-0.5])
    """
    _check("binary_cross_entropy_with_logits", x, target, reduction)
    if pos_weight is not None and not _fits(pos_weight.shape, x.shape):
        raise ValueError(
            f"binary_cross_entropy_with_logits: pos_weight of shape {pos_weight.shape} does not "
            f"broadcast to {x.shape}"
        )
    tail = xp.log1p(xp.exp(-xp.absolute(x)))
    right, wrong = tail - xp.minimum(x, 0.0), tail + xp.maximum(x, 0.0)
    right = right if pos_weight is None else right * pos_weight
    # 0 times an infinite logarithm is 0: a certain and right answer costs nothing.
    return _reduced(
        xp,
        xp.where(target == 0, 0.0, target * right)
        + xp.where(target == 1, 0.0, (1.0 - target) * wrong),
        reduction,
    )


def _bce_slope(xp, x, target, pos_weight):
    s = xp.sigmoid(x)
    if pos_weight is None:
        return s - target
    return (1.0 - target) * s - target * pos_weight * (1.0 - s)


def _bce_target_slope(xp, x, pos_weight):
    right = xp.logaddexp(-x, xp.zeros_like(x))
    right = right if pos_weight is None else right * pos_weight
    return right - xp.logaddexp(x, xp.zeros_like(x))


binary_cross_entropy_with_logits.vjp(
    x=lambda xp, g, x, target, pos_weight, reduction: _each(g, x.size, reduction)
    * _bce_slope(xp, x, target, pos_weight),
    target=lambda xp, g, x, pos_weight, reduction: _each(g, x.size, reduction)
    * _bce_target_slope(xp, x, pos_weight),
)


@primitive(module="BCELoss", cases=PAIRS, domain=(0.1, 0.9))
def binary_cross_entropy(xp, x, target, /, reduction="mean"):
    r"""Cross-entropy of probabilities, :math:`-t\ln x - (1 - t)\ln(1 - x)`, reduced.

    Logarithms are not below -100, as PyTorch's. With logits, which are exact, it is
    `binary_cross_entropy_with_logits`.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import microgradnd as mg
        >>> loss = mg.binary_cross_entropy
        >>> loss([0.0, 1.0], [1.0, 1.0]), mg.grad(loss)(mg.tensor([0.5]), mg.tensor([1.0]))
        (Tensor(50.), Tensor([-2.]))
    """
    _check("binary_cross_entropy", x, target, reduction)
    return _reduced(xp, (target - 1.0) * _log(xp, 1.0 - x) - target * _log(xp, x), reduction)


def _log(xp, x):
    """The logarithm, not below -100; without a warning at 0."""
    zero = x == 0
    return xp.where(zero, -100.0, xp.maximum(xp.log(xp.where(zero, 1.0, x)), -100.0))


def _bce_probability_slope(xp, x, target):
    return (x - target) / xp.maximum(x * (1.0 - x), _least(x, 1e-12))


binary_cross_entropy.vjp(
    x=lambda xp, g, x, target, reduction: _each(g, x.size, reduction)
    * _bce_probability_slope(xp, x, target),
    target=lambda xp, g, x, reduction: _each(g, x.size, reduction)
    * (_log(xp, 1.0 - x) - _log(xp, x)),
)


# ----------------------------------------------------------------------------- classes


def _class_check(xp, name, x, target, weight, ignore_index, reduction):
    """Raise for targets that do not fit; gives the class axis and how many examples count."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if x.ndim == 0:
        raise ValueError(f"{name}: logits need a class axis, got a 0-d tensor")
    axis = 1 if x.ndim > 1 else 0
    classes = x.shape[axis]
    ids = _ids(target)
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    if ids and target.shape != rest:
        raise ValueError(
            f"{name}: class numbers of shape {target.shape} for logits of shape {x.shape}; "
            f"{rest} is wanted"
        )
    if not ids and (target.dtype.kind != "f" or target.shape != x.shape):
        raise (TypeError if target.shape == rest else ValueError)(
            f"{name}: targets are integers of shape {rest} or probabilities of shape {x.shape}, "
            f"got {target.dtype} of shape {target.shape}"
        )
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"{name}: weight has shape {weight.shape}, ({classes},) is wanted")
    if not ids:
        return axis, target.size // classes if classes else 0
    return axis, xp.count_classes(target, classes, ignore_index, name)


def _ids(target):
    return target.dtype.kind in "iu"


def _targets(xp, target, like, weight, ignore_index, smoothing):
    """Targets as weighted probabilities of the logits' shape."""
    axis = 1 if like.ndim > 1 else 0
    classes = like.shape[axis]
    p = target
    if _ids(target):
        p = xp.one_hot(target, classes, axis, like.dtype)
        if 0 <= ignore_index < classes:
            p = p * xp.expand_dims(target != ignore_index, axis)
    if smoothing:
        counted = xp.sum(p, axis=axis, keepdims=True) if _ids(target) else 1.0
        p = p * (1.0 - smoothing) + counted * (smoothing / classes)
    return p if weight is None else p * _row(xp, weight, like)


def _row(xp, weight, like):
    """The weight of each class, along the class axis."""
    return xp.reshape(weight, tuple(-1 if i == (like.ndim > 1) else 1 for i in range(like.ndim)))


def _per_example(xp, g, share, axis, reduction):
    """The cotangent of the unreduced losses, with a class axis."""
    if reduction == "mean":
        return g * share
    return xp.expand_dims(g, axis) if reduction == "none" else g


CLASS_CASES: Any = (
    (((3, 4), [1, 0, 3]), {}),
    (((3, 4), [1, -100, 3], (4,)), {}),
    (((3, 4), (3, 4)), {}),
    (((3, 4), [1, 0, 3], (4,)), {"label_smoothing": 0.1}),
    (((2, 3, 2), [[1, 0], [2, 2]]), {"reduction": "sum"}),
    (((3, 4), [1, 0, 3]), {"reduction": "none"}),
    (((4,), 2), {}),
)


def _wide(xp, x):
    """Float16 numbers as float32: a sum of them soon leaves float16's range."""
    return xp.astype(x, "float32") if x.dtype.itemsize == 2 else x


def _cross(xp, name, log_p, target, weight, ignore_index, reduction, smoothing):
    """The loss, and the share of one example in its mean."""
    axis, n = _class_check(xp, name, log_p, target, weight, ignore_index, reduction)
    if _ids(target) and weight is None and not smoothing:
        costs = xp.pick(log_p, target, axis, ignore_index)
    else:
        if _ids(target) and weight is not None:
            n = xp.sum(_wide(xp, _targets(xp, target, log_p, weight, ignore_index, 0.0)))
        p = _targets(xp, target, log_p, weight, ignore_index, smoothing)
        # A class that cannot be and is not wanted costs nothing: 0, not 0 times -inf.
        costs = xp.sum(p * xp.where(p == 0, 0.0, log_p), axis=axis)
    if reduction == "none":
        return -costs, 1.0
    total = -xp.sum(_wide(xp, costs))
    if reduction == "mean":  # if nothing counts, the loss is NaN but its gradient 0, as PyTorch's
        total = total / (n or math.nan) if isinstance(n, int) else total / xp.astype(n, total.dtype)
    share = 1.0 / (n + (n == 0))
    share = share if isinstance(n, int) else xp.astype(share, log_p.dtype)
    return xp.astype(total, log_p.dtype), share


@primitive(
    module="CrossEntropyLoss",
    residuals=("log_p", "share"),
    cases=CLASS_CASES,
    domain={"x": (-3, 3), "target": (0.1, 0.9), "weight": (0.5, 2)},
)
def cross_entropy(
    xp, x, target, weight=None, /, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    r"""Cross-entropy of softmax, :math:`-\sum_c w_c\,t_c \ln\mathrm{softmax}(x)_c`, reduced.

    The class axis is 1 (0 for a single example). A mean over class numbers is weighted, as
    PyTorch's.

    Takes logits of shape (N, C), (N, C, ...) or (C,); class numbers of shape (N, ...) or
    probabilities of the logits' shape; a weight per class, (C,). Examples of class `ignore_index`
    do not count; `label_smoothing` is the share of a target that is spread over all classes.

    Raises:
        IndexError: For a class number outside 0..C-1.
        TypeError: For floats where class numbers are wanted.
        ValueError: If shapes do not fit.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.cross_entropy)(mg.tensor([[100.0, 0.0]]), mg.tensor([1]))
        (Tensor(100.), Tensor([[ 1., -1.]]))
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {label_smoothing}")
    log_p = xp.log_softmax(x, 1 if x.ndim > 1 else 0) if x.ndim else x
    loss, share = _cross(
        xp, "cross_entropy", log_p, target, weight, ignore_index, reduction, label_smoothing
    )
    return loss, (log_p, share)


cross_entropy.recompute(log_p=lambda xp, x: xp.log_softmax(x, 1 if x.ndim > 1 else 0))


def _cross_entropy_slope(
    xp, g, log_p, share, target, weight, ignore_index, reduction, label_smoothing
):
    p = _targets(xp, target, log_p, weight, ignore_index, label_smoothing)
    axis = 1 if log_p.ndim > 1 else 0
    softmax = xp.exp(log_p)
    whole = isinstance(share, float) and target.size > 1 and share == 1.0 / target.size
    if not (whole and _ids(target) and weight is None):  # else each row of p sums to 1
        softmax = softmax * xp.sum(p, axis=axis, keepdims=True)
    return _per_example(xp, g, share, axis, reduction) * (softmax - p)


def _cross_entropy_target_slope(xp, g, log_p, share, weight, reduction, label_smoothing):
    # Only probabilities have a gradient; a class that cannot be costs what its logarithm says.
    scale = 1.0 if weight is None else _row(xp, weight, log_p)
    g = _per_example(xp, g, share, 1 if log_p.ndim > 1 else 0, reduction)
    return -g * log_p * (scale * (1.0 - label_smoothing))


cross_entropy.vjp(x=_cross_entropy_slope, target=_cross_entropy_target_slope)


@primitive(
    module="NLLLoss",
    residuals=("share",),
    cases=(
        (((3, 4), [1, 0, 3]), {}),
        (((3, 4), [1, -100, 3], (4,)), {"reduction": "sum"}),
        (((2, 3, 2), [[1, 0], [2, 2]]), {"reduction": "none"}),
    ),
    domain={"log_p": (-3, -0.1), "weight": (0.5, 2)},
)
def nll(xp, log_p, target, weight=None, /, ignore_index=-100, reduction="mean"):
    r"""The negative log-likelihood of class numbers, :math:`-w_t \ln p_t`, reduced.

    Takes log-probabilities, (N, C) or (N, C, ...) or (C,), and class numbers of shape (N, ...).

    Raises:
        IndexError: For a class number outside 0..C-1.
        TypeError: For float targets.
        ValueError: If shapes do not fit.

    Example:
        >>> import microgradnd as mg
        >>> log_p, target = mg.tensor([[-1.0, -2.0]]), mg.tensor([1])
        >>> mg.nll(log_p, target), mg.grad(mg.nll)(log_p, target)[0, 1]
        (Tensor(2.), Tensor(-1.))
    """
    if not _ids(target):
        raise TypeError(f"nll: targets are class numbers, got {target.dtype}")
    loss, share = _cross(xp, "nll", log_p, target, weight, ignore_index, reduction, 0.0)
    return loss, (share,)


def _nll_slope(xp, g, log_p, share, target, weight, ignore_index, reduction):
    p = _targets(xp, target, log_p, weight, ignore_index, 0.0)
    return -_per_example(xp, g, share, 1 if log_p.ndim > 1 else 0, reduction) * p


nll.vjp(log_p=_nll_slope)
