"""Gradients and weights held in bounds, and parameters as one vector; nothing synchronizes here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..modes import no_grad
from ..registry import REGISTRY
from ..tape import Tensor, wrap


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _write(grad: Tensor, array: Any) -> None:
    """Overwrite a gradient in its own memory; a tape that kept it (`create_graph`) notices."""
    grad.assign_(wrap(grad.backend.asarray(array)))


@no_grad
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:  # fmt: skip
    r"""Scale all gradients by :math:`\min(1, c / (\|g\| + 10^{-6}))`, g being all of them together.

    Args:
        parameters: Tensors; those without a gradient are left out.
        max_norm: The bound c.
        norm_type: 1, 2, ... (any positive number) or infinity.
        error_if_nonfinite: Raise if the norm is NaN or infinite; this reads it from the device.

    Returns:
        The norm before, a 0-d tensor; float32 for float16.

    Raises:
        ValueError: If `max_norm` is negative or NaN, or `norm_type` is not positive.
        FloatingPointError: If the norm is not finite and that was asked for; nothing was changed.

    Source: Pascanu et al., On the difficulty of training recurrent neural networks (ICML 2013).
    """
    if not max_norm >= 0.0:
        raise ValueError(f"clip_grad_norm_: max_norm must not be negative, got {max_norm}")
    if not norm_type > 0.0:
        raise ValueError(f"clip_grad_norm_: norm_type must be positive, got {norm_type}")
    grads = [p.grad for p in _listed(parameters) if p.grad is not None and p.size]
    if not grads:
        return wrap(REGISTRY["sum"]([])._array)
    backend = grads[0].backend
    with backend.quiet():  # a gradient that overflowed is no reason to warn
        total = wrap(backend.asarray(_norm(backend.xp, [g._array for g in grads], norm_type)))
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise FloatingPointError(
                f"clip_grad_norm_: the norm of the gradients is {total.item()}"
            )
        factor = backend.xp.minimum(max_norm / (total._array + 1e-6), 1.0)
        for grad in grads:
            _write(grad, grad._array * backend.xp.astype(factor, grad.dtype))
    return total


def _norm(xp: Any, arrays: list[Any], order: float) -> Any:
    flat = [xp.absolute(xp.reshape(a, (-1,))) for a in arrays]
    # Squares of float16 overflow from 256 on, and vanish below 1e-4.
    flat = [xp.astype(f, "float32") if f.dtype.itemsize < 4 else f for f in flat]
    if order == math.inf:
        return xp.max(xp.stack([xp.max(f) for f in flat]))
    if order == 2.0:
        return xp.sqrt(xp.sum(xp.stack([xp.sum(f * f) for f in flat])))
    return xp.sum(xp.stack([xp.sum(f**order) for f in flat])) ** (1.0 / order)


@no_grad
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    r"""Hold every element of every gradient in :math:`[-c, c]`.

    Raises:
        ValueError: If `clip_value` is negative or NaN.
    """
    if not clip_value >= 0.0:
        raise ValueError(f"clip_grad_value_: clip_value must not be negative, got {clip_value}")
    for p in _listed(parameters):
        if p.grad is not None:
            _write(p.grad, p.grad.backend.xp.clip(p.grad._array, -clip_value, clip_value))


@no_grad
def max_norm_(weight: Tensor, max_norm: float, axis: int = 1) -> Tensor:
    r"""Scale each unit's incoming weights down to a norm of at most c; gives the weight.

    Args:
        weight: A weight (out, in).
        max_norm: The bound c.
        axis: Over which the norm is taken: 1, a row, for weights (out, in).

    Source: Srebro and Shraibman (2005), as used by Goodfellow et al., Maxout networks (ICML 2013).

    Raises:
        ValueError: If `max_norm` is not positive.
    """
    if not max_norm > 0.0:
        raise ValueError(f"max_norm_: max_norm must be positive, got {max_norm}")
    norm = REGISTRY["euclidean"](weight, axis=axis, keepdims=True)
    weight *= max_norm / REGISTRY["maximum"](norm, max_norm)
    return weight


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Give all parameters as one vector, on the tape.

    Raises:
        ValueError: If there are none.
    """
    parts = [p.reshape(-1) for p in _listed(parameters)]
    if not parts:
        raise ValueError("parameters_to_vector: there are no parameters")
    return REGISTRY["concatenate"](parts)


@no_grad
def vector_to_parameters(vector: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write a vector back into the parameters that it was made of.

    Raises:
        ValueError: If it has another length; nothing was changed.
    """
    tensors = _listed(parameters)
    total = sum(p.size for p in tensors)
    if vector.shape != (total,):
        raise ValueError(f"vector_to_parameters: ({total},) is wanted, got {vector.shape}")
    start = 0
    for p in tensors:
        p.assign_(vector[start : start + p.size].reshape(p.shape))
        start += p.size
