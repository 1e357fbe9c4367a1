"""The primitives: formulas and nothing else; importing this package fills the registry."""

from . import activations, elementwise, indexing, layers, linalg, losses, reductions, shaping

__all__ = [
    "activations", "elementwise", "indexing", "layers", "linalg", "losses", "reductions", "shaping",
]  # fmt: skip
