"""Modules made of operations: every activation and every loss of the registry is a class here.

The class is called as the operation says (`module="LeakyReLU"`), or after the operation itself.
Its arguments are the operation's attributes, with an axis called `dim` as in PyTorch; operands that
may be left out (class weights) are arguments too, and become buffers.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..functions import asarray
from ..registry import COMPOSITES, REGISTRY
from ..tape import Tensor
from .module import Module

#: Where the operations are declared that become modules.
FAMILIES = ("microgradnd.ops.activations", "microgradnd.ops.losses", "microgradnd.ops.conv")


def module_name(op: Any) -> str | None:
    """Give the name of an operation's class, or None if it has none."""
    plain = "".join(word.capitalize() for word in op.__name__.split("_"))
    name: str | None = op.data.get("module", plain)
    return name


def _own(op: Any) -> list[inspect.Parameter]:
    """The parameters of an operation that are fixed when its module is made."""
    parameters = list(inspect.signature(op).parameters.values())
    skipped = ("training", "generator")  # a module knows its mode
    return [p for p in parameters[inputs_of(op) :] if p.name not in skipped]


def inputs_of(op: Any) -> int:
    """Count the operands that a module's call takes: the input, and a target."""
    return 2 if {"target", "y"} & inspect.signature(op).parameters.keys() else 1


def options_of(op: Any) -> dict[str, Any]:
    """Give what the module's constructor takes, with the defaults (`Parameter.empty` if none)."""
    return {"dim" if p.name == "axis" else p.name: p.default for p in _own(op)}


class Operation(Module):
    """An operation as a module; subclasses are made by `as_module`."""

    _op: Any
    _inputs: int
    _options: dict[str, Any]
    _operands: tuple[str, ...]  # those of the options that are arrays
    _modal: bool  # whether the operation asks for the mode
    __signature__: inspect.Signature

    def __init__(self, *args: Any, **kwargs: Any):
        signature = self.__signature__
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            wanted = ", ".join(map(str, signature.parameters.values())) or "nothing"
            raise TypeError(f"{type(self).__name__}: {error}; it takes {wanted}") from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name not in self._operands and isinstance(value, (Tensor, np.ndarray)):
                raise TypeError(
                    f"{type(self).__name__}: {name} cannot be an array; the constructor takes "
                    "options, the call takes the data"
                )
        reduction = bound.arguments.get("reduction", "mean")
        known = self._op.data.get("reductions", ("mean", "sum", "none"))
        if reduction not in known:
            raise ValueError(
                f"{type(self).__name__}: reduction must be {', '.join(map(repr, known[:-1]))} or "
                f"{known[-1]!r}, got {reduction!r}"
            )
        for name, value in bound.arguments.items():
            if name in self._operands:
                value = None if value is None else asarray(value).detach()
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        """Apply the operation."""
        if len(inputs) != self._inputs:
            wanted = ("an input", "an input and a target (or a second input)")[self._inputs - 1]
            raise TypeError(f"{type(self).__name__}: {wanted} wanted, got {len(inputs)} arguments")
        if not self._options:
            return self._op(*inputs)
        values = {name: getattr(self, name) for name in self._options}
        operands = [values.pop(name) for name in self._operands]
        if "dim" in values:
            values["axis"] = values.pop("dim")
        if self._modal:
            values["training"] = self.training
        return self._op(*inputs, *operands, **values)

    def extra_repr(self) -> str:
        """Give the options."""
        shown = [n for n in self._options if n not in self._operands]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


def as_module(op: Any, name: str | None = None) -> type[Module]:
    """Make a module class of an operation, your own included.

    Args:
        op: A primitive, or a function registered as a composite.
        name: The class's name, if not the one that the operation gives.

    Example:
        >>> import microgradnd as mg
        >>> leaky = mg.nn.as_module(mg.leaky_relu)(negative_slope=0.5)
        >>> leaky, leaky(mg.tensor([-2.0]))
        (LeakyReLU(negative_slope=0.5), Tensor([-1.]))
    """
    options = options_of(op)
    operands = getattr(op, "operands", ())
    summary = (op.__doc__ or "").partition("\n")[0]
    name = name or module_name(op) or op.__name__
    empty = inspect.Parameter.empty
    body = {
        "__doc__": f"{summary}\n\n{_described(options, empty)}`mg.{op.__name__}` as a module.",
        "__module__": __name__,
        "_op": staticmethod(op),
        "_inputs": inputs_of(op),
        "_options": options,
        "_operands": tuple(n for n in options if n in operands),
        "_modal": "training" in inspect.signature(op).parameters,
        "__signature__": _constructor(options, operands),
    }
    return type(name, (Operation,), body)


def _constructor(options: dict[str, Any], operands: Any) -> inspect.Signature:
    """The constructor's signature; of the operands only `weight` comes first in PyTorch."""

    def kind(name: str) -> Any:
        named = name in operands and name != "weight"
        return inspect.Parameter.KEYWORD_ONLY if named else inspect.Parameter.POSITIONAL_OR_KEYWORD

    parameters = [inspect.Parameter(n, kind(n), default=d) for n, d in options.items()]
    return inspect.Signature(sorted(parameters, key=lambda p: p.kind))


def _described(options: dict[str, Any], empty: Any) -> str:
    if not options:
        return ""
    said = {name: "wanted" if d is empty else f"{d!r} by default" for name, d in options.items()}
    lines = [f"    {name}: {text}." for name, text in said.items()]
    return "Args:\n" + "\n".join(lines) + "\n\n"


MODULES: dict[str, type[Module]] = {
    name: as_module(op, name)
    for op in (REGISTRY | COMPOSITES).values()
    if op.__module__ in FAMILIES and (name := module_name(op))
}
globals().update(MODULES)
