"""Functions of layers, activations and losses under PyTorch's spellings, which may say `dim`.

Every activation and loss of `mg` is here by its own name and by PyTorch's (`hard_tanh` and
`hardtanh`, `mse` and `mse_loss`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..arraylike import to_array
from ..functions import asarray
from ..modes import no_grad
from ..random import Generator, default_generator
from ..registry import COMPOSITES, REGISTRY
from ..tape import Tensor, wrap
from .generated import FAMILIES, options_of

linear, one_hot = REGISTRY["linear"], REGISTRY["one_hot"]


def _says_dim(op: Any) -> Callable[..., Any]:
    """The operation, whose axis may be called `dim`."""

    @wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "dim" in kwargs:
            if "axis" in kwargs:
                raise TypeError(f"{op.__name__}: axis and dim are two names of one thing; say one")
            kwargs["axis"] = kwargs.pop("dim")
        return op(*args, **kwargs)

    return call


#: PyTorch's names for operations that are called otherwise here.
TORCH = {
    "hard_sigmoid": "hardsigmoid",
    "hard_silu": "hardswish",
    "hard_tanh": "hardtanh",
    "huber": "huber_loss",
    "l1": "l1_loss",
    "log_sigmoid": "logsigmoid",
    "mse": "mse_loss",
    "nll": "nll_loss",
    "smooth_l1": "smooth_l1_loss",
}


def _spellings() -> dict[str, Any]:
    found = {}
    for name, op in (REGISTRY | COMPOSITES).items():
        if op.__module__ in FAMILIES and "how" not in options_of(op):  # not what layers are made of
            found[name] = _says_dim(op) if "dim" in options_of(op) else op
            found[TORCH.get(name, name)] = found[name]
    return found


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    r"""Set each element to 0 with probability p, and divide the others by :math:`1 - p`.

    Source: Srivastava et al., Dropout (JMLR 2014).

    Raises:
        ValueError: If p is outside [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}")
    x = asarray(x)
    if not training or p == 0.0:
        return x
    p = float(p)  # a NumPy number would widen x
    keep = (generator or default_generator()).bernoulli(1.0 - p, x.shape, backend=x.backend)
    return x * (keep.astype(x.dtype) * (1.0 / (1.0 - p) if p < 1.0 else 0.0))


def embedding(ids: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Give the rows of a table: ids (...) and weight (n, d) make (..., d).

    Args:
        ids: Integers of 0..n-1; -1 is the last row, and so on.
        weight: The table.
        padding_idx: A row that gets no gradient.

    Raises:
        IndexError: If an id is outside the table.
        TypeError: If the ids are no integers.
    """
    if not isinstance(ids, Tensor):  # lists go where the table is; arrays must be there
        home = None if hasattr(ids, "dtype") else weight.backend
        ids = wrap(to_array(ids, backend=home))
    ids = ids if ids.size else ids.astype("int64")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids are integers, got {ids.dtype}")
    out = REGISTRY["take"](weight, ids, axis=0)
    if padding_idx is None:
        return out
    n = weight.shape[0]
    padding = REGISTRY["expand_dims"](ids % n == padding_idx % n, axis=-1)
    return REGISTRY["where"](padding, out.detach(), out)


def layer_norm(
    x: Tensor, normalized_shape: int | tuple[int, ...], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    r"""Standardize the last axes of each example, then scale and shift, :math:`w \hat x + b`.

    Source: Ba et al., Layer normalization (2016).

    Raises:
        ValueError: If the last axes are not `normalized_shape`.
    """
    shape = normalized_shape
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    x = asarray(x)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: input {x.shape}, the last axes must be {shape}")
    out = REGISTRY["standardize"](x, axis=tuple(range(-len(shape), 0)), eps=eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def batch_norm(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    r"""Standardize each channel (axis 1) over the batch, then scale and shift.

    In training the batch's own mean and variance are used, and the running ones move towards them
    by `momentum` (the variance that of n - 1); otherwise the running ones are used, if there are
    any.

    Source: Ioffe and Szegedy, Batch normalization (ICML 2015).

    Raises:
        ValueError: If there is only one value per channel to average in training.
    """
    x = asarray(x)
    axes = (0, *range(2, x.ndim))

    def along(values: Tensor) -> Tensor:
        return values if x.ndim == 2 else values.reshape((1, -1) + (1,) * (x.ndim - 2))

    if training or running_mean is None or running_var is None:
        n = x.size // max(x.shape[1], 1)
        if n < 2:
            raise ValueError(
                "batch_norm: more than one value per channel is wanted in training, got "
                f"{x.shape}; use eval(), or leave out a last batch of one (drop_last)"
            )
        out = REGISTRY["standardize"](x, axis=axes, eps=eps)
        if training and running_mean is not None and running_var is not None:
            with no_grad():
                running_mean += (x.mean(axis=axes) - running_mean) * momentum
                running_var += (x.var(axis=axes, ddof=1) - running_var) * momentum
    else:
        scale = 1.0 / REGISTRY["sqrt"](running_var + eps)
        out = (x - along(running_mean)) * along(scale)
    out = out if weight is None else out * along(weight)
    return out if bias is None else out + along(bias)


def binary_cross_entropy_with_logits(
    x: Any, target: Any, *, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    r"""Cross-entropy of a sigmoid: `mg.binary_cross_entropy_with_logits`, options by name only.

    PyTorch's third argument is a weight of each element, which is not here.
    """
    return REGISTRY["binary_cross_entropy_with_logits"](
        x, target, pos_weight, reduction=reduction
    )


globals().update({name: op for name, op in _spellings().items() if name not in globals()})
