"""The primitives: formulas and nothing else; importing this package fills the registry."""

from . import (
    activations,
    conv,
    elementwise,
    indexing,
    layers,
    losses,
    products,
    reductions,
    shaping,
)

__all__ = [
    "activations", "conv", "elementwise", "indexing", "layers", "losses", "products", "reductions",
    "shaping",
]  # fmt: skip
