"""What has been declared: filled by `primitives` and `protocols`, read by everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REGISTRY: dict[str, Any] = {}  # name -> primitive
COMPOSITES: dict[str, Callable[..., Any]] = {}  # name -> function made of primitives
#: Other names, most of them NumPy's.
ALIASES = {
    "abs": "absolute", "acos": "arccos", "acosh": "arccosh", "amax": "max", "amin": "min",
    "around": "round", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan", "atan2": "arctan2",
    "atanh": "arctanh", "concat": "concatenate", "degrees": "rad2deg", "expit": "sigmoid",
    "fabs": "absolute", "fix": "trunc", "mod": "remainder", "pow": "power", "radians": "deg2rad",
    "true_divide": "divide",
}  # fmt: skip
OVERRIDES: dict[Any, Callable[..., Any]] = {}  # NumPy's function -> ours
