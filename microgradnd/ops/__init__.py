"""The primitives: formulas and nothing else; importing this package fills the registry."""

from . import (
    activations,
    conv,
    elementwise,
    indexing,
    layers,
    linalg,
    losses,
    products,
    reductions,
    shaping,
    sorting,
)

__all__ = [
    "activations", "conv", "elementwise", "indexing", "layers", "linalg", "losses", "products",
    "reductions", "shaping", "sorting",
]  # fmt: skip
