"""Calling conventions: which parameters of a forward are operands and which are attributes."""

from __future__ import annotations

import operator as operators
from collections.abc import Callable
from typing import Any

from .operands import static

MISSING: Any = object()  # the default of an attribute that has none


#: PyTorch's words for some of NumPy's arguments.
TORCH = {"dim": "axis", "keepdim": "keepdims", "unbiased": "ddof", "correction": "ddof"}
#: What functions and methods that are not here are called, or done with.
SPELLED = {
    "cat": "mg.concatenate", "chunk": "mg.split", "clamp": "mg.clip", "cpu": "x.to('numpy')",
    "cuda": "x.to('cupy')", "dim": "x.ndim", "double": "x.astype('float64')",
    "expand": "mg.broadcast_to", "flat": "mg.ravel", "float": "x.astype('float32')",
    "float32": "dtype='float32'", "from_numpy": "mg.asarray", "gather": "mg.take_along_axis",
    "masked_fill": "mg.where", "numel": "x.size", "permute": "mg.transpose", "pow": "mg.power",
    "rand": "mg.random.uniform", "randn": "mg.random.normal", "t": "x.T",
    "unsqueeze": "mg.expand_dims", "view": "mg.reshape",
}  # fmt: skip


class Signature:
    """The parameters of `f(xp, operands, /, attributes)`.

    Attributes:
        operands: Names before the slash, without `xp`.
        rest: The name of a starred parameter (a list of further operands), or None.
        attributes: Names after the slash.
        defaults: Every attribute's default, or `MISSING`; attribute values keep this order.
        optional: The defaults of the operands that may be left out.
        names: All of them, in the order of a call.
    """

    def __init__(self, forward: Callable[..., Any]):
        code, self.name = forward.__code__, forward.__name__
        names, count = code.co_varnames, code.co_argcount
        if not code.co_posonlyargcount or code.co_flags & 8:
            raise TypeError(
                f"{self.name}: write it as f(xp, operands, /, attributes), with a slash behind the "
                "operands and no **"
            )
        total = count + code.co_kwonlyargcount
        given = forward.__defaults__ or ()
        fallback = dict(zip(names[count - len(given) : count], given, strict=True))
        fallback |= forward.__kwdefaults__ or {}
        self.operands = names[1 : code.co_posonlyargcount]
        self.rest = names[total] if code.co_flags & 4 else None
        self.attributes = names[max(code.co_posonlyargcount, 1) : total]
        self.defaults = {name: fallback.get(name, MISSING) for name in self.attributes}
        self.optional = {name: fallback[name] for name in self.operands if name in fallback}
        self.names = (*self.operands, *filter(None, [self.rest]), *self.attributes)

    def bind(self, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        """Sort the arguments of a call into operands (a starred list is spread) and attributes.

        Raises:
            TypeError: For an argument too many, unknown, given twice or missing.
        """
        if len(args) > len(self.names):
            raise TypeError(
                f"{self.name}: at most {len(self.names)} arguments {self.names}, got {len(args)}"
            )
        given = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.names or name in given:
                problem = "got twice" if name in given else "unknown"
                if name in TORCH:
                    problem += f" (as in NumPy it is {TORCH[name]!r} here)"
                raise TypeError(f"{self.name}: argument {name!r} {problem}; it takes {self.names}")
            given[name] = value
        operands = []
        for name in self.operands:
            if name not in given and name not in self.optional:
                raise TypeError(f"{self.name}: operand {name!r} is missing")
            operands.append(given.pop(name, None))
        if self.rest is not None:
            operands.extend(given.pop(self.rest))
        return operands, self.complete(given)

    def complete(self, given: dict[str, Any]) -> dict[str, Any]:
        """Give all attributes in order, in static form.

        Raises:
            TypeError: For one that is missing, or that is not static.
        """
        attrs = self.defaults | {name: static(self.name, name, v) for name, v in given.items()}
        for name, value in attrs.items():
            if value is MISSING:
                raise TypeError(f"{self.name}: {name} is missing")
        return attrs


def public_signature(op: Any) -> Any:
    """Give a primitive's parameters for `inspect.signature` and `help`."""
    import inspect

    if op.front is not None:
        return inspect.signature(op.front)
    parameters = list(inspect.signature(op.forward).parameters.values())[1:]
    return inspect.Signature(parameters)


def getter(places: list[int]) -> Callable[[Any], tuple[Any, ...]]:
    """Give a function that takes these places out of a tuple, as a tuple."""
    if len(places) == 1:
        only = places[0]
        return lambda pool: (pool[only],)
    return operators.itemgetter(*places) if places else lambda pool: ()


def asked_by(op: Any, constant: tuple[bool, ...]) -> tuple[list[bool], list[int]]:
    """Say which of `op.needs`, and which operands, are read if some operands are constant."""
    if constant not in op.plans:
        read = {name for i, _, _ in op.rules if not constant[i] for name in op.read_by[i]}
        op.plans[constant] = (
            [name in read for name in op.needs],
            [i for i in op.kept_operands if op.operands[i] in read],
        )
    return op.plans[constant]
