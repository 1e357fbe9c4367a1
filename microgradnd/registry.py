"""What has been declared: filled by `primitives` and `protocols`, read by everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REGISTRY: dict[str, Any] = {}  # name -> primitive
COMPOSITES: dict[str, Callable[..., Any]] = {}  # name -> function made of primitives
#: Other names, most of them NumPy's.
ALIASES = {
    "abs": "absolute", "amax": "max", "amin": "min", "around": "round", "degrees": "rad2deg",
    "expit": "sigmoid", "fix": "trunc", "radians": "deg2rad",
}  # fmt: skip
OVERRIDES: dict[Any, Callable[..., Any]] = {}  # NumPy's function -> ours
