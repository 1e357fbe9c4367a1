"""Write `cupy_signatures.json`: what the real CuPy offers, for the stand-in of the tests.

Run it with an interpreter that has CuPy; a GPU is not needed:

    python tests/data/make_cupy_signatures.py
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from cupyx.scipy import special

#: Functions besides ufuncs that a backend may plausibly use. `from_dlpack` has no signature.
FUNCTIONS = [
    "all",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "array",
    "array_equal",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "astype",
    "atleast_1d",
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_to",
    "can_cast",
    "clip",
    "concatenate",
    "copy",
    "copyto",
    "cumprod",
    "cumsum",
    "diagonal",
    "dot",
    "einsum",
    "empty",
    "empty_like",
    "expand_dims",
    "eye",
    "flip",
    "full",
    "full_like",
    "get_array_module",
    "get_default_memory_pool",
    "is_available",
    "linspace",
    "matmul",
    "max",
    "may_share_memory",
    "mean",
    "min",
    "moveaxis",
    "nonzero",
    "ones",
    "ones_like",
    "outer",
    "prod",
    "put_along_axis",
    "ravel",
    "repeat",
    "reshape",
    "result_type",
    "roll",
    "round",
    "shares_memory",
    "sort",
    "split",
    "squeeze",
    "stack",
    "std",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "tensordot",
    "tile",
    "transpose",
    "tril",
    "triu",
    "unique",
    "var",
    "where",
    "zeros",
    "zeros_like",
]
#: Methods of arrays; their signatures stand in the first line of their documentation.
METHODS = [
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "astype",
    "clip",
    "copy",
    "cumprod",
    "cumsum",
    "dot",
    "fill",
    "flatten",
    "get",
    "item",
    "max",
    "mean",
    "min",
    "nonzero",
    "prod",
    "ravel",
    "repeat",
    "reshape",
    "sort",
    "squeeze",
    "std",
    "sum",
    "swapaxes",
    "take",
    "tolist",
    "transpose",
    "var",
    "view",
]
#: Functions of `cupy.linalg`.
LINALG = ["cholesky", "det", "eigh", "qr", "slogdet", "solve", "svd"]
#: Ufuncs with complex numbers or two results are of no use here.
SKIP = {"conj", "conjugate"}


def function_signature(function: Any) -> str:
    """Give a function's parameters as Python source, without annotations."""
    parameters = [
        p.replace(annotation=p.empty, default=Name(p.default) if isinstance(p.default, type)
                  and p.default is not p.empty else p.default)
        for p in inspect.signature(function).parameters.values()
    ]  # fmt: skip
    return str(inspect.Signature(parameters))[1:-1]


class Name:
    """A class as a default value, written by its name."""

    def __init__(self, value: type) -> None:
        self.value = value

    def __repr__(self) -> str:
        return self.value.__name__


def method_signature(name: str) -> str:
    """Give a method's parameters as Python source, without C types."""
    line = getattr(cupy.ndarray, name).__doc__.split("\n")[0]
    inside = line[line.index("(") + 1 : line.rindex(")")]
    return ", ".join(part.split()[-1] for part in inside.split(", "))


def ufunc_entry(ufunc: Any) -> dict[str, Any]:
    """Give a ufunc's counts and its loops over real numbers, in the order they are tried."""
    loops = [t for t in ufunc.types if not set("FDV") & set(t)]
    return {"name": ufunc.name, "nin": ufunc.nin, "nout": ufunc.nout, "types": " ".join(loops)}


def main() -> None:
    """Write the table beside this script."""
    ufuncs = {
        name: ufunc_entry(value)
        for name, value in vars(cupy).items()
        if isinstance(value, cupy.ufunc) and value.nout == 1
        and isinstance(getattr(np, name, None), np.ufunc) and name not in SKIP
    }  # fmt: skip
    same = [
        name
        for name, value in vars(cupy).items()
        if name[0] != "_" and isinstance(value, type | float | None) and name in vars(np)
        and (vars(np)[name] is value or value != value)
    ]  # fmt: skip
    table = {
        "version": cupy.__version__,
        "numpy": np.__version__,
        "functions": {name: function_signature(getattr(cupy, name)) for name in FUNCTIONS},
        "linalg": {name: function_signature(getattr(cupy.linalg, name)) for name in LINALG},
        "methods": {name: method_signature(name) for name in METHODS},
        "ufuncs": dict(sorted(ufuncs.items())),
        "special": {name: ufunc_entry(getattr(special, name)) for name in ("erf", "erfc")},
        "same": sorted(same),
    }
    path = Path(__file__).with_name("cupy_signatures.json")
    path.write_text(dump(table))


def dump(table: dict[str, Any]) -> str:
    """Give JSON with one line for each function."""
    parts = []
    for key, value in table.items():
        if isinstance(value, dict):
            rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            parts.append(f"{json.dumps(key)}: {{\n{rows}\n }}")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
