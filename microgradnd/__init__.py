"""microgradnd: an autograd engine and small neural-network framework on NumPy or CuPy.

    >>> import microgradnd as mg
    >>> x = mg.tensor([5.0, 7.0, -1.0, 1.0], requires_grad=True)
    >>> mg.maxout(x, 2).sum().backward()
    >>> x.grad
    Tensor([0., 1., 0., 1.])

Every primitive (`docs/operations.md`) is a function of this module. The backend is NumPy, or CuPy
with `MICROGRADND_BACKEND=cupy`.
"""

from typing import Any

from . import backend, linalg, ops, random
from .backend import Backend, BackendError
from .functions import (
    allclose,
    arange,
    asarray,
    eye,
    from_dlpack,
    full,
    full_like,
    is_tensor,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from .modes import enable_grad, get_default_dtype, is_grad_enabled, no_grad, set_default_dtype
from .ops.indexing import nonzero
from .primitives import Primitive, primitive
from .random import Generator, manual_seed
from .registry import ALIASES, COMPOSITES, REGISTRY
from .tape import Tensor
from .transforms import checkpoint, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp

__version__ = "0.1.0"
__all__ = [
    "Backend",
    "BackendError",
    "CheckpointError",
    "Generator",
    "Primitive",
    "Tensor",
    "allclose",
    "arange",
    "asarray",
    "backend",
    "checkpoint",
    "data",
    "detect_anomaly",
    "diagnose",
    "diagnosis",
    "enable_grad",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "get_default_dtype",
    "grad",
    "hessian",
    "hvp",
    "is_grad_enabled",
    "is_tensor",
    "jacobian",
    "jvp",
    "linalg",
    "linspace",
    "live_nodes",
    "load",
    "manual_seed",
    "nn",
    "no_grad",
    "nonzero",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "primitive",
    "random",
    "save",
    "set_default_dtype",
    "tensor",
    "testing",
    "trace",
    "train",
    "value_and_grad",
    "vjp",
    "zeros",
    "zeros_like",
]
_OPERATIONS = {
    name: op
    for name, op in (REGISTRY | COMPOSITES | {a: REGISTRY[op] for a, op in ALIASES.items()}).items()
    if op.data.get("space") is None  # else it is of a module of its own, as `linalg`
}
__all__ += sorted(_OPERATIONS)

globals().update(_OPERATIONS)

_MODULES = ("data", "diagnosis", "nn", "optim", "testing", "train")
_LAZY = {
    "CheckpointError": "io",
    "detect_anomaly": "tracing",
    "diagnose": "diagnosis.examination",
    "live_nodes": "tracing",
    "load": "io",
    "save": "io",
    "trace": "tracing",
}


def __getattr__(name: str) -> Any:
    """Import what costs time only when it is asked for."""
    from importlib import import_module

    from .protocols import missing

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(missing(f"module {__name__!r}", name))
