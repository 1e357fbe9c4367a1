"""The doors into the primitives: operators, methods; and functions that are made of primitives."""

from __future__ import annotations

import operator as operators
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np

from .arraylike import host_array, to_array
from .backend import BY_TYPE
from .modes import MODE
from .operands import ERRORS, NUMBERS, Inadmissible, admit, mixed, reworded
from .registry import COMPOSITES, OVERRIDES, REGISTRY
from .signatures import MISSING, SPELLED
from .tape import Tensor, raw, wrap

REFLECTED = frozenset(
    {"add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"}
)


class Composite:
    """A function made of primitives; to tests and documentation it looks like one of these.

    Args:
        function: It gets Tensors, whatever its operands were.
        numpy: The NumPy function (or functions) that this one takes over on Tensors.
        method: The name of a Tensor method, or True for the function's own name.
        operands: How many arguments are operands; `"*"` if the first is a list of them, None if all
            that are given by position are.
        outputs: Whether the result is a list.
        view: Whether it may share memory with the first operand.
        data: As for a primitive.
    """

    elementwise = False
    rest, front, operator = "xs", None, None
    operands = residuals = ()

    def __init__(
        self, function: Callable[..., Any], *, numpy: Any = (), method: str | bool = False,
        operands: int | str | None = 1, outputs: bool = False, view: bool = False, **data: Any,
    ):  # fmt: skip
        update_wrapper(self, function)
        self.name = self.__name__ = function.__name__
        self.function, self.count, self.outputs, self.view = function, operands, outputs, view
        self.listed = operands == "*"
        self.leading = operands if isinstance(operands, int) else 1
        self.numpy = numpy if isinstance(numpy, tuple) else (numpy,)
        self.method = self.name if method is True else method or None
        self.formulas = {"*": function} if data.get("differentiable", True) else {}
        self.data = data
        COMPOSITES[self.name] = self
        OVERRIDES.update(dict.fromkeys(self.numpy, self))
        if self.method:
            define_method(self, self.method)

    def __repr__(self) -> str:
        return f"<composite {self.name}>"

    def __reduce__(self) -> str:
        return self.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on Tensors; errors of what it is made of begin with its own name."""
        n: Any = 1 if self.listed else len(args) if self.count is None else self.count
        operands = _tensors(self.name, args[0] if self.listed else args[:n])
        try:
            return self.function(*([operands] if self.listed else operands), *args[n:], **kwargs)
        except ERRORS as error:
            if str(error).startswith(self.name) or hasattr(error, "__notes__"):
                raise  # a note is of a fault on a GPU, which is told only once
            raise reworded(error, f"{self.name}: {error}") from error

    def bare(self, operands: Any, **attributes: Any) -> Any:
        """Call with the operands in a list."""
        return self(operands, **attributes) if self.listed else self(*operands, **attributes)

    @property
    def defaults(self) -> dict[str, Any]:
        """The attributes, each with its default, or `MISSING`."""
        import inspect

        parameters = list(inspect.signature(self.function).parameters.values())
        n: Any = 1 if self.listed or self.count is None else self.count
        return {p.name: MISSING if p.default is p.empty else p.default for p in parameters[n:]}

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes."""
        return tuple(self.defaults)


def _tensors(where: str, xs: Any) -> list[Tensor]:
    """Give operands as Tensors; lists go where the others are, and numbers do not widen them."""
    xs = list(xs)  # it may be a generator
    known = [x for x in xs if isinstance(x, Tensor)]

    def put(x: Any) -> Tensor:
        if known and type(x) in NUMBERS:
            dtype = np.result_type(*(t.dtype for t in known), x)
            return wrap(known[0].backend.xp.full((), x, dtype=dtype))
        if known and isinstance(x, (list, tuple)):
            return wrap(to_array(x, None, known[0].backend, MODE.get().default_dtype))
        return x if isinstance(x, Tensor) else REGISTRY["identity"](x)

    tensors = list(map(put, xs))
    if len({x.backend for x in tensors}) > 1:
        raise mixed(where, [x._array for x in tensors])
    return tensors


def composite(**meta: Any) -> Callable[..., Composite]:
    """Register a function made of primitives (see `Composite` for the arguments)."""
    return lambda function: Composite(function, **meta)


def refuse_takeover(op: Any) -> None:
    """Keep what microgradnd's own primitives do from being replaced by somebody else's.

    Raises:
        ValueError: If the name, NumPy's function, the method or the operator is taken.
    """
    ours = "microgradnd.ops."
    if (op.__module__ or "").startswith(ours):
        return
    taken = [REGISTRY.get(op.name), *(OVERRIDES.get(function) for function in op.numpy)]
    names = [name for name in (op.method, op.operator and f"__{op.operator}__") if name]
    if any(getattr(known, "__module__", "").startswith(ours) for known in taken) or any(
        hasattr(Tensor, name) and op.name not in REGISTRY for name in names
    ):
        raise ValueError(f"{op.name}: this name, method or NumPy function belongs to microgradnd")


def define_operator(op: Any, name: str) -> None:
    """Give Tensor a Python operator, with its reflected and in-place forms."""
    fast = op.fast

    def compare(x: Tensor, y: Any) -> Any:
        try:
            return fast(x, y)
        except Inadmissible:  # `tensor == None` is a question that has an answer
            return NotImplemented

    setattr(Tensor, f"__{name}__", compare if name in ("eq", "ne") else fast)
    if name not in REFLECTED:
        return
    setattr(Tensor, f"__r{name}__", lambda x, y: fast(y, x))
    in_place = getattr(operators, f"__i{name}__")

    def write(x: Tensor, y: Any) -> Tensor:
        value = y if type(y) in NUMBERS else raw(y) if isinstance(y, Tensor) else admit(name, y)
        if type(value) is list:
            value = x.backend.asarray(host_array(value[0], MODE.get().default_dtype))
        if type(value) in BY_TYPE and type(value) is not type(x._array):
            raise mixed(op.name, [x._array, value])
        return x._write(f"in-place {op.name}", y, lambda: in_place(x._array, value),
                        lambda: fast(x, y))  # fmt: skip

    setattr(Tensor, f"__i{name}__", write)


def define_method(op: Any, name: str) -> None:
    """Give Tensor a method that calls a primitive."""
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return op(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, op.__doc__
    method.__qualname__ = f"Tensor.{name}"
    setattr(Tensor, name, method)


def missing(of: str, name: str) -> str:
    """Say that there is no such attribute, and what there is instead."""
    op: Any = REGISTRY.get(name) or COMPOSITES.get(name)
    known = op and ".".join(filter(None, ["mg", op.data.get("space"), name]))
    ours = SPELLED.get(name, known)
    return f"{of} has no attribute {name!r}" + (f"; use {ours}" if ours else "")


def _no_attribute(self: Tensor, name: str) -> Any:
    of = f"{type(self).__name__!r} object"
    raise AttributeError(missing(of, name), name=name, obj=self)


Tensor.__getattr__ = _no_attribute  # type: ignore[attr-defined]
