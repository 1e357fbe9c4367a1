"""Primitives: functions of arrays with a gradient formula per operand, and the registry of them.

A primitive is written once, as a function of a namespace `xp` and arrays, with its formulas below:

    @primitive(elementwise=True, numpy=np.tanh)
    def tanh(xp, x, /):
        return xp.tanh(x)

    tanh.vjp(x=lambda g, out: g * (1 - out * out))

Before the slash stand the operands (arrays), after it the attributes (static and hashable). The
names of a formula's parameters say what it needs: `xp`, `g` (the cotangent), `out`, `shapes` (of
the operands), an operand, an attribute or a residual. What no formula names is not kept. The same
text runs on raw arrays, on Tensors (for gradients of gradients) and on whatever else a backend
calls an array. Tests, documentation and NumPy's protocols are made from the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .backend import BY_TYPE
from .inplace import Storage, storage_of
from .modes import MODE
from .operands import ERRORS, NUMBERS, PLAIN, admit, explain, mixed, place, unruled
from .protocols import define_method, define_operator, refuse_takeover
from .registry import OVERRIDES, REGISTRY
from .signatures import MISSING, Signature, asked_by, getter, public_signature
from .tape import Node, Tensor, pick_each, wrap


class Primitive:
    """A differentiable function of arrays.

    Args:
        forward: `f(xp, operands, /, attributes)`; a starred parameter is a list of operands.
            With `residuals` declared it gives `(out, residuals)`.
        elementwise: Operands broadcast; the engine sums gradients back to their shapes.
        numpy: The NumPy function (or functions) that this one takes over on Tensors.
        operator: The Python operator (`"add"` for `+`), its reflected and in-place forms included.
        method: The name of a Tensor method, or True for the primitive's own name.
        front: Turns the public arguments into `(operands, attributes)`, where these differ.
        residuals: Names of what forward hands to the formulas besides its result.
        outputs: Whether forward gives a list of results.
        view: Whether the result may share memory with the first operand.
        data: What tests and documentation need: `domain`, `kinks`, `conventions` (gradients where
            they are a matter of choice), `cases` (data for what is not elementwise), `dtypes`,
            `reference`, `tolerance`, `differentiable`; all described in `microgradnd.testing`.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        elementwise: bool = False,
        numpy: Any = (),
        operator: str | None = None,
        method: str | bool = False,
        front: Callable[..., Any] | None = None,
        residuals: tuple[str, ...] = (),
        outputs: bool = False,
        view: bool = False,
        **data: Any,
    ):
        self.forward, self.signature = forward, Signature(forward)
        self.name = self.__name__ = forward.__name__
        self.__doc__, self.__module__ = forward.__doc__, forward.__module__
        self.operands, self.rest = self.signature.operands, self.signature.rest
        self.attributes, self.defaults = self.signature.attributes, self.signature.defaults
        self.elementwise, self.front, self.residuals = elementwise, front, residuals
        self.outputs, self.view, self.data = outputs, view, data
        self.recomputed: dict[str, Callable[..., Any]] = {}
        self.formulas: dict[str, Callable[..., Any]] = {}  # by operand, or "*" for all at once
        self.needs: tuple[str, ...] = ()
        self.rules: list[tuple[int, Callable[..., Any], Callable[..., Any]]] = []
        self.simple = len(self.operands) in (1, 2) and not (
            front or residuals or outputs or view or self.rest or self.signature.optional
            or MISSING in self.defaults.values()
        )  # fmt: skip
        plain_call = not (front or self.rest or MISSING in self.defaults.values())
        self.needed = len(self.operands) - len(self.signature.optional) if plain_call else 1000
        self.plain = PLAIN if self.signature.optional else NUMBERS
        self.fast = _fast(self)
        self.numpy = numpy if isinstance(numpy, tuple) else (numpy,)
        self.operator, self.method = operator, self.name if method is True else method or None
        refuse_takeover(self)
        if front is not None:
            front.__name__ = front.__qualname__ = self.name  # for Python's errors about arguments
        REGISTRY[self.name] = self
        OVERRIDES.update(dict.fromkeys(self.numpy, self))
        if operator:
            define_operator(self, operator)
        if self.method:
            define_method(self, self.method)

    __signature__ = property(public_signature)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> str:
        return self.name

    def vjp(self, **formulas: Callable[..., Any]) -> None:
        """Attach a gradient formula per operand; an unknown name in it is a TypeError."""
        self._attach(formulas)

    def vjp_all(self, formula: Callable[..., Any]) -> None:
        """Attach one formula that gives the gradients of all operands, as a sequence."""
        self._attach({"*": formula})

    def _attach(self, formulas: dict[str, Callable[..., Any]]) -> None:
        stored = ("out", *self.operands, *filter(None, [self.rest]), *self.residuals,
                  *self.attributes, "shapes")  # fmt: skip
        reads = {}
        for operand, formula in (formulas | self.recomputed).items():
            code = formula.__code__
            reads[operand] = code.co_varnames[: code.co_argcount]
            for name in reads[operand]:
                if name not in stored and name not in ("xp", "g", "wanted"):
                    raise TypeError(f"{self.name}.vjp({operand}): there is no {name!r} to need")
            if operand not in (*self.operands, *self.residuals, "*"):
                raise TypeError(f"{self.name}.vjp: there is no operand {operand!r}")
        self.formulas = formulas
        self.needs = tuple(name for name in stored if any(name in r for r in reads.values()))
        pool = ("xp", "g", *self.needs, "wanted")
        self.save = getter([stored.index(name) for name in self.needs])
        self.keeps_out = "out" in self.needs
        self.keeps_shapes = "shapes" in self.needs
        self.keeps_rest = self.rest in self.needs
        self.simple = self.simple and not self.keeps_shapes
        self.kept_operands = [i for i, name in enumerate(self.operands) if name in self.needs]
        self.reads = {k: getter([pool.index(name) for name in v]) for k, v in reads.items()}
        deep = {k: sum((reads[n] for n in v if n in self.recomputed), v) for k, v in reads.items()}
        self.read_by = {self.operands.index(k): v for k, v in deep.items() if k in self.operands}
        self.plans: dict[Any, Any] = {}
        self.rules = [
            (-1 if operand == "*" else self.operands.index(operand), formula, self.reads[operand])
            for operand, formula in formulas.items()
        ]

    def recompute(self, **formulas: Callable[..., Any]) -> None:
        """Say how a residual follows from the operands in recorded passes (else a constant)."""
        self.recomputed = formulas
        self._attach(self.formulas)

    def pull(self, node: Node, g: Any, xp: Any, taped: bool) -> list[tuple[Node | None, Any]]:
        """Give the gradients of the operands that need one, with their nodes."""
        kept = node.kept if not taped else self._lift(node, xp)
        pool = (xp, g, *kept)
        parents = node.parents
        first, formula, read = self.rules[0]
        if first == -1:  # one formula for all; it may ask which operands want their gradient
            pool = (*pool, [parent is not None for parent in parents])
            return list(zip(parents, formula(*read(pool)), strict=True))
        return [
            (parents[i], formula(*read(pool)))
            for i, formula, read in self.rules
            if parents[i] is not None
        ]

    def _lift(self, node: Node, xp: Any) -> list[Any]:
        """Give what a node kept as Tensors on the tape, for a pass that is itself recorded."""

        def lift(value: Any, parent: Node | None) -> Any:
            return wrap(value, parent) if type(value) in BY_TYPE else value

        lifted: list[Any] = []
        for name, value in zip(self.needs, node.kept, strict=True):
            if name in self.operands:
                lifted.append(lift(value, node.parents[self.operands.index(name)]))
            elif name == self.rest:
                parents = node.parents[len(self.operands) :]
                lifted.append([lift(*pair) for pair in zip(value, parents, strict=True)])
            elif name == "out" and self.outputs:
                lifted.append(pick_each(node, value))
            else:
                lifted.append(lift(value, node if name == "out" else None))
        pool = (xp, None, *lifted)
        for name, formula in self.recomputed.items():
            lifted[self.needs.index(name)] = formula(*self.reads[name](pool))
        return lifted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the primitive by its public signature."""
        if not kwargs and self.needed <= len(args) <= len(self.operands):
            if self.simple:
                return self.fast(*args)
            return self.apply((*args, *[None] * (len(self.operands) - len(args))), self.defaults)
        if self.front is None:
            return self.bare(*args, **kwargs)
        operands, attrs = self.front(*args, **kwargs)
        return self.apply(operands, self.signature.complete(attrs))

    def bare(self, *args: Any, **kwargs: Any) -> Any:
        """Call without the front: operands (a starred one as a list), then attributes."""
        return self.apply(*self.signature.bind(args, kwargs))

    def apply(self, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Run forward on the raw arrays and, if an operand needs a gradient, record a node."""
        arrays, parents, homes, recorded = [], [], [], False
        for x in operands:
            if isinstance(x, Tensor):
                array, parent = x._array, x._node
                recorded = recorded or parent is not None
            else:
                array, parent = x if type(x) in self.plain else admit(self.name, x), None
            arrays.append(array)
            parents.append(parent)
            homes.append(BY_TYPE.get(type(array)))
        backend, arrays = place(self, arrays, homes)
        try:
            out = self.forward(backend.xp, *arrays, **attrs)
        except ERRORS as error:
            if str(error).startswith(self.name):
                raise
            raise explain(self, error, arrays) from error
        residuals: Any = ()
        if self.residuals:
            out, residuals = out
        if self.outputs:
            out = [backend.asarray(o) for o in out]
        elif type(out) is not backend.array_type:
            out = backend.asarray(out)
        storage = None
        if self.view and backend.shares_memory(out, arrays[0]):
            storage = storage_of(operands[0]) if isinstance(operands[0], Tensor) else Storage()
            storage.taped = storage.taped or recorded
        if not recorded:
            return [wrap(o) for o in out] if self.outputs else wrap(out, None, storage)
        return self._record(out, operands, arrays, parents, attrs, residuals, storage)

    def _record(
        self, out: Any, operands: Any, arrays: Any, parents: Any, attrs: Any = None,
        residuals: Any = (), storage: Storage | None = None,
    ) -> Any:  # fmt: skip
        """Put a result on the tape: its node keeps what the formulas need, and the versions."""
        mode = MODE.get()
        if not (mode.recording and self.rules and (self.outputs or out.dtype.kind == "f")):
            if mode.recording and not self.rules:
                unruled(self, out)
            return [wrap(o) for o in out] if self.outputs else wrap(out, None, storage)
        kept: Any = ()
        guards: list[tuple[list[int], int]] = []
        if self.needs:
            n = len(self.operands)
            if attrs is None and not self.keeps_shapes:
                kept = self.save((out, *arrays, *self.defaults.values()))
            else:
                fixed = arrays if self.rest is None else (*arrays[:n], arrays[n:])
                values = (self.defaults if attrs is None else attrs).values()
                shapes = [getattr(a, "shape", ()) for a in arrays] if self.keeps_shapes else None
                kept = self.save((out, *fixed, *residuals, *values, shapes))
            chosen = self.kept_operands
            if self.keeps_rest:
                chosen = [*chosen, *range(n, len(operands))]
            elif None in parents and len(self.rules) > 1:  # keep nothing for a constant's sake
                asked, chosen = asked_by(self, tuple([parent is None for parent in parents]))
                kept = [v if a else None for v, a in zip(kept, asked, strict=True)]
            for i in chosen:
                x = operands[i]
                if isinstance(x, Tensor):
                    version = storage_of(x).version
                    guards.append((version, version[0]))
        result: Any
        if self.outputs:  # one node for all, and one that picks each
            node = Node(self, parents, kept, guards, [o.shape for o in out], [o.dtype for o in out])
            result = [r if r.dtype.kind == "f" else wrap(r._array) for r in pick_each(node, out)]
        else:
            node = Node(self, parents, kept, guards, out.shape, out.dtype)
            result = wrap(out, node, storage)
        if self.keeps_out:
            for r in result if self.outputs else (result,):
                version = storage_of(r).version
                guards.append((version, version[0]))
        if mode.watch is not None:
            used = self.defaults if attrs is None else attrs
            mode.watch.record(node, operands, result, residuals, used)
        return result


def _fast(op: Primitive) -> Callable[..., Any]:
    """The call of a plain primitive of one or two operands: `apply` without its loops."""
    forward, name = op.forward, op.name
    weak = NUMBERS if op.elementwise else frozenset()

    def unary(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return op.apply((x,), op.defaults)
        array, parent = x._array, x._node
        backend = BY_TYPE[type(array)]
        try:
            out = forward(backend.xp, array)
        except ERRORS as error:
            if str(error).startswith(op.name):
                raise
            raise explain(op, error, [array]) from error
        if type(out) is not backend.array_type:
            out = backend.asarray(out)
        if parent is None:
            return wrap(out)
        return op._record(out, (x,), (array,), (parent,))

    def binary(x: Any, y: Any) -> Any:
        if isinstance(x, Tensor) and (isinstance(y, Tensor) or type(y) in weak):
            a, p = x._array, x._node
            b, q = (y._array, y._node) if isinstance(y, Tensor) else (y, None)
            backend = BY_TYPE[type(a)]
            if type(b) is not type(a) and type(b) not in NUMBERS:
                raise mixed(name, [a, b])
        elif type(x) in weak and isinstance(y, Tensor):
            a, p, b, q = x, None, y._array, y._node
            backend = BY_TYPE[type(b)]
        else:
            return op.apply((x, y), op.defaults)
        try:
            out = forward(backend.xp, a, b)
        except ERRORS as error:
            if str(error).startswith(op.name):
                raise
            raise explain(op, error, [a, b]) from error
        if type(out) is not backend.array_type:
            out = backend.asarray(out)
        if p is None and q is None:
            return wrap(out)
        return op._record(out, (x, y), (a, b), (p, q))

    return unary if len(op.operands) == 1 else binary


def primitive(forward: Any = None, /, **meta: Any) -> Any:
    """Turn a function of `xp` and arrays into a `Primitive` (see there for the arguments).

    Example:
        >>> import microgradnd as mg
        >>> @mg.primitive(elementwise=True)
        ... def cube(xp, x, /):
        ...     return x * x * x
        >>> cube.vjp(x=lambda g, x: 3 * g * x * x)
        >>> x = mg.Tensor(2.0, requires_grad=True)
        >>> cube(x).backward()
        >>> x.grad.item()
        12.0
    """

    def declare(forward: Callable[..., Any]) -> Primitive:
        return Primitive(forward, **meta)

    return declare if forward is None else declare(forward)
