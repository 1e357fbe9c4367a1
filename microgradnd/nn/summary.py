"""A network as a table: what each module gives, and how many parameters it has."""

from __future__ import annotations

from typing import Any

from ..functions import asarray, zeros
from ..modes import no_grad
from ..tape import Tensor
from .module import Module


def _shape(out: Any) -> str:
    if isinstance(out, Tensor):
        return str(out.shape)
    if isinstance(out, (list, tuple)):
        return ", ".join(map(_shape, out))
    return type(out).__name__


def summary(model: Module, input_shape: Any, dtype: Any = None) -> None:
    """Print a table of the modules: name, class, shape of the output, number of parameters.

    The model runs once, in evaluation mode and off the tape, on zeros; its modes are put back. A
    shared parameter is counted where it is first met.

    Args:
        model: The module.
        input_shape: The shape of one input, the batch included, or a Tensor to run on.
        dtype: Of the zeros; `"int64"` for ids.

    Example:
        >>> import microgradnd as mg
        >>> mg.nn.summary(mg.nn.Sequential(mg.nn.Linear(4, 3), mg.relu), (32, 4))
        module  class       output   parameters
                Sequential  (32, 3)          15
          0     Linear      (32, 3)          15
          1     relu        (32, 3)           0
        parameters: 15, trained: 15
    """
    shapes: dict[int, str] = {}
    modules = list(model.named_modules())
    modes = [module.training for _, module in modules]
    handles = [
        module.register_forward_hook(lambda m, _, out: shapes.__setitem__(id(m), _shape(out)))
        for _, module in modules
    ]
    x = input_shape if isinstance(input_shape, Tensor) else zeros(input_shape, dtype)
    backend = next((p.backend for p in model.parameters()), x.backend)
    try:
        with no_grad():
            model.eval()(asarray(x).to(backend))
    finally:
        for handle in handles:
            handle.remove()
        for (_, module), mode in zip(modules, modes, strict=True):
            module.training = mode
    counted: set[int] = set()
    rows = [("module", "class", "output", "parameters")]
    for name, module in modules:
        new = [p for p in module.parameters() if id(p) not in counted]
        if not list(module.children()):
            counted |= {id(p) for p in new}
        depth = name.count(".") + 1 if name else 0
        rows.append(("  " * depth + name, _kind(module), shapes.get(id(module), "not run"),
                     f"{sum(p.size for p in new):,}"))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = [cell.ljust(w) for cell, w in zip(row[:3], widths, strict=False)]
        print("  ".join([*cells, row[3].rjust(widths[3])]))
    parameters = list(model.parameters())
    trained = sum(p.size for p in parameters if p.requires_grad)
    print(f"parameters: {sum(p.size for p in parameters):,}, trained: {trained:,}")


def _kind(module: Module) -> str:
    function = getattr(module, "function", None)
    return getattr(function, "__name__", None) or type(module).__name__
