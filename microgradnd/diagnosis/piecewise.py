"""Networks that are linear in pieces: what is computed from the input, step by step.

Frozen, in eval mode and in float64, such a network is a chain of affine maps and of operations that
choose the largest of a few affine functions: relu is max(0, z), and a Maxout says so itself. Where
the choice is the same, the network is one affine map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Backend, named, of
from ..functions import asarray
from ..modes import Switch
from ..nn.module import Module
from ..tape import Node, Tensor, raw
from .observe import clone, untouched

#: Where the slope of a function of one number changes, given the operation's attributes.
KINKS: dict[str, Callable[[Any], tuple[float, ...]]] = {
    "absolute": lambda a: (0.0,),
    "hard_sigmoid": lambda a: (-3.0, 3.0),
    "hard_tanh": lambda a: (a["min_val"], a["max_val"]),
    "leaky_relu": lambda a: (0.0,),
    "prelu": lambda a: (0.0,),
    "relu": lambda a: (0.0,),
    "relu6": lambda a: (0.0, 6.0),
    "rrelu": lambda a: (0.0,),
    "softshrink": lambda a: (-a["lambd"], a["lambd"]),
}
#: The largest or smallest of several numbers.
CHOICES = frozenset({"maximum", "maxout", "minimum"})
#: Affine in the data, if the other operands are constants.
AFFINE = frozenset(
    {
        "add", "astype", "broadcast_to", "concatenate", "conv", "copy", "cumsum", "divide",
        "einsum", "expand_dims", "flip", "getitem", "identity", "linear", "matmul", "mean",
        "moveaxis", "multiply", "negative", "positive", "reshape", "split", "squeeze", "stack",
        "subtract", "sum", "swapaxes", "take", "transpose", "unfold",
    }
)  # fmt: skip
#: Of these, those that are no longer affine when two operands depend on the data.
PRODUCTS = frozenset({"conv", "divide", "einsum", "linear", "matmul", "multiply"})


def host(array: Any) -> Any:
    """Give a raw array as NumPy's, in float64."""
    return np.asarray(of(array).to_numpy(array) if hasattr(array, "dtype") else array, np.float64)


def rivals(name: str, operands: Any, attrs: Any) -> Any:
    """Give what an operation chooses from: (rows, choices, k), of which the largest wins.

    A function with kinks at c, d, ... is a choice between 0, z - c, 2z - c - d, ...: as many kinks
    are passed as the number of the largest.
    """
    x = host(raw(operands[0]))
    if name in KINKS:
        steps = [x - kink for kink in KINKS[name](attrs)]
        options = np.stack([np.zeros_like(x), *np.cumsum(steps, axis=0)], axis=-1)
    elif name == "maxout":
        axis, k = attrs.get("axis", -1), attrs["pieces"]
        x = np.moveaxis(x, axis, -1)
        options = x.reshape(*x.shape[:-1], x.shape[-1] // k, k)
    else:
        both = np.broadcast_arrays(x, host(raw(operands[1])))
        options = np.stack(both, axis=-1) * (-1 if name == "minimum" else 1)
    return options.reshape(options.shape[0], -1, options.shape[-1])


class Follower:
    """Runs a model on float64 rows and hears of every operation on what depends on them.

    Args:
        model: A Module (a frozen clone is made), or a function.
        who: The caller's name, for errors.

    Attributes:
        input: The rows.
        place: The name of the last module with parameters, while the model runs.
    """

    def __init__(self, model: Any, who: str):
        self.model, self.who, self.original = clone(model), who, model
        backend: Backend = named("numpy")
        if isinstance(self.model, Module):
            self.model.eval().to("float64").requires_grad_(False)
            backend = next((p.backend for p in self.model.parameters()), backend)
        self.backend = backend
        parameters = self.model.named_parameters() if isinstance(self.model, Module) else ()
        self.names = {id(p._array): name.rpartition(".")[0] or name for name, p in parameters}
        self.place = ""
        self.data: set[int] = set()
        self.hear: Callable[..., None] = lambda *step: None

    def run(self, rows: Any, hear: Callable[..., None]) -> Any:
        """Give the outputs of rows as a NumPy array; `hear(node, operands, result, ...)`.

        Raises:
            ValueError: At an operation that is not linear in pieces.
        """
        x = asarray(self.backend.asarray(np.asarray(rows, np.float64))).requires_grad_()
        assert x._node is not None
        self.input, self.data, self.hear, self.place = x, {x._node.serial}, hear, ""
        with untouched(self.original), Switch(watch=self, recording=True):
            output = self.model(x)
        if not isinstance(output, Tensor) or output.shape[:1] != x.shape[:1]:
            raise ValueError(f"{self.who}: a model that gives one tensor with a row per example is "
                             f"wanted; got {getattr(output, 'shape', output)}")  # fmt: skip
        return host(output._array)

    def gradient(self, node: Node, g: Any) -> None:
        """Nothing: there is no reverse pass."""

    def record(
        self, node: Node, operands: Any, result: Any, residuals: Any, attrs: Any = None
    ) -> None:
        """Take a step that depends on the data."""
        following = [p is not None and p.serial in self.data for p in node.parents]
        if not any(following):
            return
        for r in [node, *(t._node for t in result)] if isinstance(result, list) else [node]:
            self.data.add(r.serial)
        op = node.op.name
        for x in operands:
            self.place = self.names.get(id(raw(x)), self.place)
        several = sum(following) > 1
        known = op in AFFINE or op in KINKS or op in CHOICES
        if not known or (several and op in PRODUCTS) or (op == "divide" and following[-1]):
            why = "" if not known else " of two things that depend on the input"
            raise ValueError(
                f"{self.who}: {op}{why}{self.after} is not linear in pieces; relu, leaky_relu, "
                "prelu, relu6, hard_tanh, abs and maxout between affine maps are"
            )
        self.hear(node, operands, result, residuals, attrs)

    @property
    def after(self) -> str:
        """Where an operation is, as text for errors."""
        return f" (after {self.place})" if self.place else ""
