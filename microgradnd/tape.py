"""The tape: tensors, the nodes behind them, and the pass that walks the nodes backwards.

A `Tensor` is an array and, when somebody may ask for a gradient, the `Node` that made it. Nodes
point to the nodes of their operands and never forward, so a graph that nobody holds is freed at
once. A counter numbers them as they are made: operands come before results, hence the order of
creation *is* a topological order, and the reverse pass only has to take the newest node first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from heapq import heappop, heappush
from itertools import count
from sys import getrefcount
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import backend as backends
from .arraylike import ArrayLike, to_array
from .backend.namespace import CONSTANT, FORWARD_ONLY, NAMES, decode
from .modes import MODE, Switch

new = object.__new__


# ----------------------------------------------------------------------------- the graph

serial = count(1).__next__
FREED: Any = object()  # in place of what a node kept, once `Tensor.backward` has been there


class Storage:
    """What all tensors over the same memory share: its version, `[number of writes]`.

    Tensors hold the storage and nodes hold its version, so the reference counts of the two tell
    whether there are other views, and whether a node still keeps the values.
    """

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = [0]


class Node:
    """One step of the tape: an operation applied, or (without operation) a leaf.

    Attributes:
        op: The primitive, or None for a leaf.
        parents: The operands' nodes, in order; None for an operand that needs no gradient.
        kept: What the gradient formulas asked for, in the order of `op.needs`.
        guards: `(version, number)` for each array in `kept`, to notice later writes.
        shape, dtype: Of the result, and so of its gradient. A tuple of shapes if there are several.
        serial: The place on the tape.
        grad: The gradient of a leaf, a Tensor, or None.
        hooks: Functions of the gradient, by number; None if there are none.
    """

    __slots__ = (
        "__weakref__", "dtype", "grad", "guards", "hooks", "kept", "op", "parents", "serial",
        "shape",
    )  # fmt: skip

    def __init__(self, op: Any, parents: Any, kept: Any, guards: Any, shape: Any, dtype: Any):
        self.op = op
        self.parents = parents
        self.kept = kept
        self.guards = guards
        self.shape = shape
        self.dtype = dtype
        self.serial = serial()
        self.grad = None
        self.hooks = None


def wrap(array: Any, node: Node | None = None, storage: Storage | None = None) -> Tensor:
    """Make a Tensor of a raw array, without copy or check: the engine's own constructor."""
    self = new(Tensor)
    self._array = array
    self._node = node
    self._storage = storage
    return self


def storage_of(x: Tensor) -> Storage:
    """Give a tensor's storage, making it when it is first wanted."""
    if x._storage is None:
        x._storage = Storage()
    return x._storage


def pick_each(node: Node, outs: list[Any]) -> list[Tensor]:
    """Make the results of a node that has several: one node each, which picks it."""
    picks = [Node(PICK, (node,), (i,), (), o.shape, o.dtype) for i, o in enumerate(outs)]
    return [wrap(out, pick) for out, pick in zip(outs, picks, strict=True)]


def raw(x: Any) -> Any:
    """Give the array inside a Tensor, and anything else as it is."""
    return x._array if isinstance(x, Tensor) else x


class Tensor(ArrayLike):
    """An n-dimensional array that remembers how it was made.

    Operators, methods and NumPy's functions act on it as on a NumPy array; `backward` then gives
    every leaf with `requires_grad` the derivative of a scalar with respect to it.

    Args:
        data: Numbers, (nested) lists, an array or a Tensor; copied. Floats in lists become the
            default dtype, arrays keep theirs.
        dtype: The dtype wanted, if not that.
        requires_grad: Whether to record what is computed from it.

    Raises:
        TypeError: For data that are not real numbers; for `requires_grad` without a float dtype.
        ValueError: For ragged lists.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        Tensor([2., 4., 6.])
    """

    __slots__ = ("__weakref__", "_array", "_node", "_storage")
    __hash__ = object.__hash__

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False):
        self._array = to_array(raw(data), dtype, floats=MODE.get().default_dtype, copy=True)
        self._node = None
        self._storage = None
        if requires_grad:
            self.requires_grad_()

    # --- gradients

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    def requires_grad_(self, flag: bool = True) -> Tensor:
        """Start (or stop) recording what is computed from this leaf; gives the tensor itself.

        Raises:
            TypeError: If its dtype is not a float.
            RuntimeError: If it is a result whose recording cannot be switched off.
        """
        if flag and self._node is None:
            if self._array.dtype.kind != "f":
                raise TypeError(
                    f"only float tensors can require a gradient, got {self._array.dtype}; "
                    "use .astype('float32')"
                )
            self._node = Node(None, (), (), (), self._array.shape, self._array.dtype)
        elif not flag and self._node is not None:
            if self._node.op is not None:
                raise RuntimeError(
                    f"this is the result of {self._node.op.name}; use .detach() for a tensor "
                    "that needs no gradient"
                )
            self._node = None
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._node is None or self._node.op is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` left here (a Tensor), or None."""
        return None if self._node is None else self._node.grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if self._node is None:
                raise RuntimeError("this tensor does not require a gradient; none can be assigned")
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape:
                raise ValueError(f"grad has shape {value.shape}, the tensor {self.shape}")
            for what, have, want in (
                ("dtype", value.dtype, self.dtype),
                ("backend", value.backend.name, self.backend.name),
            ):
                if have != want:
                    raise TypeError(f"grad has {what} {have}, the tensor {want}")
        if self._node is not None:
            self._node.grad = value

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        r"""Add :math:`\partial\,\mathrm{self}/\partial\,\mathrm{leaf}` to the `grad` of each leaf.

        Args:
            gradient: The cotangent, of this tensor's shape; 1 for a tensor of one element.
            retain_graph: Keep what the graph holds, for another pass (default: `create_graph`).
            create_graph: Record the pass itself, so that the gradients can be differentiated. The
                graph and `grad` then hold each other; set `grad` to None to let go.

        Raises:
            RuntimeError: If nothing requires a gradient, the graph was freed by an earlier pass,
                or a value that it needs was overwritten.
            ValueError: If the gradient is missing for several elements, or has another shape.
        """
        node = self._node
        if node is None:
            raise RuntimeError(
                "backward: no input of this tensor requires a gradient; was it computed under "
                "no_grad() or from detached tensors?"
            )
        if gradient is None:
            if self.size != 1:
                raise ValueError(
                    f"backward: the gradient of a scalar is wanted, got shape {self.shape}; pass "
                    "gradient= of that shape, or reduce with .sum() or .mean()"
                )
            gradient = wrap(self.backend.xp.ones(self.shape, dtype=self.dtype))
        else:
            gradient = cotangent(gradient, self, "backward")
        retain = create_graph if retain_graph is None else retain_graph
        leaves = reverse([(node, gradient)], taped=create_graph, free=not retain)
        with ACCUMULATE:
            for leaf, g in leaves:
                if leaf.grad is None:
                    leaf.grad = g
                elif create_graph:
                    leaf.grad = leaf.grad + g
                else:
                    leaf.grad = wrap(self.backend.asarray(leaf.grad._array + g._array))

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is known; what it gives replaces it.

        Returns:
            A function that removes the hook again.
        """
        node = self._need_node("register_hook")
        node.hooks = node.hooks or {}
        number = serial()
        node.hooks[number] = hook
        return lambda: node.hooks.pop(number, None) and None

    def retain_grad(self) -> None:
        """Also leave this intermediate result's gradient in its `grad`."""
        node = self._need_node("retain_grad")
        if node.op is not None:
            node.hooks = node.hooks or {}
            node.hooks["retain"] = None

    def _need_node(self, what: str) -> Node:
        if self._node is None:
            raise RuntimeError(f"{what}: this tensor does not require a gradient")
        return self._node

    def detach(self) -> Tensor:
        """Give the same values, in the same memory, outside the tape."""
        return wrap(self._array, None, storage_of(self))

    @property
    def data(self) -> Any:
        """The raw array: the same memory, read-only (on NumPy) while the tape keeps its values."""
        array, storage = self._array, self._storage
        if storage is not None and getrefcount(storage.version) > UNKEPT:
            array = array.view()
            if hasattr(array, "setflags"):
                array.setflags(write=False)
        return array

    # --- writing in place

    def assign_(self, value: Any) -> Tensor:
        """Overwrite all values, keeping shape and dtype; gives the tensor itself.

        Raises:
            RuntimeError: While recording, on a leaf that requires a gradient, and on a tensor that
                shares its memory with another.
        """
        self[...] = value
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        setitem = TAPED["setitem"]

        def write() -> None:
            (_, v, *indices), attrs = setitem.front(self, index, value)
            self._array[decode(attrs["key"], map(raw, indices))] = raw(v)

        self._write("x[index] = value", write, lambda: setitem(self, index, value))

    def _write(self, what: str, write: Callable[[], Any], taped: Callable[[], Tensor]) -> Tensor:
        """The one door for writing: into the array or, while recording, into a new one."""
        storage = self._storage
        if not MODE.get().recording:
            write()
            if storage is not None:
                storage.version[0] += 1
            return self
        if self._node is not None and self._node.op is None:
            raise RuntimeError(
                f"{what}: this leaf requires a gradient and cannot be overwritten while "
                "recording; do it inside `with mg.no_grad():`"
            )
        if storage is not None and getrefcount(storage) > UNSHARED:
            raise RuntimeError(
                f"{what}: this tensor shares its memory with another (a view, or detach()); use "
                "mg.where or mg.scatter_add for a new tensor, or write inside `with mg.no_grad():`"
            )
        result = taped()
        if result.shape != self.shape:
            raise ValueError(f"{what}: the result has shape {result.shape}, not {self.shape}")
        if result.dtype != self.dtype:
            if not np.can_cast(result.dtype, self.dtype, "same_kind"):
                raise TypeError(f"{what}: cannot cast from {result.dtype} to {self.dtype}")
            result = TAPED["astype"](result, self.dtype)
        self._array, self._node, self._storage = result._array, result._node, result._storage
        return self


#: The taped twins of the names in `xp`: primitives enter themselves (see `primitives`).
TAPED: dict[str, Any] = {}


@cache
def taped_namespace(backend: backends.Backend) -> SimpleNamespace:
    """Give the `xp` of a recorded pass: the same names, acting on Tensors."""

    def constant(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: wrap(function(*map(raw, args), **kwargs))

    def find(name: str) -> Any:
        return constant(getattr(backend.xp, name)) if name in CONSTANT else TAPED[name].bare

    return SimpleNamespace(**{name: find(name) for name in NAMES - FORWARD_ONLY})


def _alone() -> int:
    array = np.empty(0)
    return getrefcount(array)


def _unshared() -> int:
    tensor = wrap(None, None, Storage())
    storage = tensor._storage
    return getrefcount(storage)


def _unkept() -> int:
    storage = Storage()
    return getrefcount(storage.version)


# What `getrefcount` says, on this Python, of an array that one local name holds, of a storage that
# one tensor and one local name hold, and of a version that no node holds.
ALONE, UNSHARED, UNKEPT = _alone(), _unshared(), _unkept()
ACCUMULATE = Lock()


# ----------------------------------------------------------------------------- the reverse pass


class Pick:
    """Stands as the operation of a node that is one output of several: `kept` is `(number,)`."""

    name = "pick"
    elementwise = outputs = False

    @staticmethod
    def pull(node: Node, g: Any, xp: Any, taped: bool) -> list[tuple[Any, Any]]:
        """Hand the gradient on; `_pull` puts it into the slot of this output."""
        return [(node.parents[0], g)]


PICK = Pick()


def reverse(
    seeds: list[tuple[Node, Tensor]],
    *,
    taped: bool,
    free: bool = False,
    since: int = 0,
    targets: frozenset[int] | None = None,
) -> list[tuple[Node, Tensor]]:
    """Walk the tape backwards from the seeds, newest node first.

    A node's gradient is complete when its turn comes, for everything that used its result is newer.

    Args:
        seeds: Nodes and their cotangents.
        taped: Compute on Tensors, recording, so that the gradients can be differentiated in turn.
        free: Let go of what the nodes kept, as soon as it has been used.
        since: Do not walk nodes older than this serial.
        targets: Serials of the nodes whose gradients are wanted (the walk stops there); by default
            the leaves.

    Returns:
        The wanted nodes and their gradients, which share no memory with anything.

    Raises:
        RuntimeError: If the graph was freed, or a kept value was overwritten.
    """
    backend = seeds[0][1].backend
    xp = taped_namespace(backend) if taped else backend.xp
    watch = MODE.get().watch
    pending: dict[int, tuple[Node, Any, bool]] = {}  # the bool: may be added to in place
    heap: list[int] = []
    found = []
    with Switch(recording=True) if taped else nullcontext(), backend.quiet():
        for node, seed in seeds:
            _add(pending, heap, node, seed if taped else seed._array)
        del seed
        while heap:
            number = -heappop(heap)
            node, g, ours = pending.pop(number)
            if node.hooks is not None:
                g = _run_hooks(node, g, taped)
            if watch is not None:
                watch.gradient(node, g)
            home = backends.BY_TYPE.get(type(g._array if taped and node.op is None else g))
            if home is not backend and home is not None:  # the graph crossed to another backend
                backend, xp = home, taped_namespace(home) if taped else home.xp
            if number in targets if targets is not None else node.op is None:
                if not taped:
                    alone = ours or (g.base is None and getrefcount(g) == ALONE)
                    g = wrap(backend.asarray(g if alone else g.copy()))
                found.append((node, g))
            elif node.op is not None:
                _pull(node, g, xp, taped, pending, heap, since, targets)
                if free:
                    node.kept = FREED
                    node.guards = ()
    return found


def _pull(
    node: Node, g: Any, xp: Any, taped: bool, pending: Any, heap: Any, since: int, targets: Any
) -> None:
    """Give a node's gradient on to its parents by the formulas of its operation."""
    op = node.op
    if node.kept is FREED:
        raise RuntimeError(
            f"the graph of {op.name} was freed by an earlier backward(); call that one with "
            "retain_graph=True to go through it again"
        )
    for version, number in node.guards:
        if version[0] != number:
            raise RuntimeError(
                f"backward of {op.name}: a value that it needs was overwritten in place "
                f"(version {version[0]}, wanted {number}); write to a copy, or after backward()"
            )
    if op.outputs:
        g = [xp.zeros(s, dtype=d) if h is None else h
             for h, s, d in zip(g, node.shape, node.dtype, strict=True)]  # fmt: skip
    for parent, gi in op.pull(node, g, xp, taped):
        if parent is None or (parent.serial < since and parent.serial not in (targets or ())):
            continue
        if op is PICK:
            slots = pending.get(parent.serial)
            if slots is None:
                slots = (parent, [None] * len(parent.shape), False)
                pending[parent.serial] = slots
                heappush(heap, -parent.serial)
            slots[1][node.kept[0]] = gi
            continue
        if gi.shape != parent.shape:
            assert op.elementwise, f"{op.name}: a gradient of shape {gi.shape}, not {parent.shape}"
            gi = sum_to(xp, gi, parent.shape)
        if gi.dtype != parent.dtype:
            gi = xp.astype(gi, parent.dtype)
        _add(pending, heap, parent, gi, not taped)


def _add(pending: Any, heap: Any, node: Node, g: Any, in_place: bool = False) -> None:
    """Add to the gradient of a node that waits for its turn."""
    number = node.serial
    waiting = pending.get(number)
    if waiting is None:
        pending[number] = (node, g, False)
        heappush(heap, -number)
    elif waiting[2]:
        total = waiting[1]
        total += g
        pending[number] = (node, total, True)
    else:  # the first sum is a new array, so it is ours
        pending[number] = (node, waiting[1] + g, in_place)


def sum_to(xp: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient down to an operand's shape: the transpose of broadcasting."""
    lead = g.ndim - len(shape)
    if g.shape[lead:] == shape:
        return xp.sum(g, axis=tuple(range(lead)))
    axes = tuple(
        i for i, n in enumerate(g.shape) if i < lead or (shape[i - lead] == 1 and n != 1)
    )
    return xp.reshape(xp.sum(g, axis=axes), shape)


def _run_hooks(node: Node, g: Any, taped: bool) -> Any:
    tensor = g if taped else wrap(g)
    with Switch(recording=taped):
        for key, hook in list(node.hooks.items()):
            result = None if key == "retain" else hook(tensor)
            if result is not None:
                tensor = cotangent(result, wrap(g if not taped else g._array), "hook")
    if "retain" in node.hooks:
        node.grad = tensor if taped else wrap(tensor._array.copy())
    return tensor if taped else tensor._array


def cotangent(value: Any, like: Tensor, what: str) -> Tensor:
    """Give a gradient handed in by a user as a Tensor of the shape and dtype of `like`.

    Raises:
        ValueError: If the shape differs; nothing is broadcast silently.
    """
    if not isinstance(value, Tensor):
        value = wrap(to_array(value, like.dtype, like.backend))
    if value.shape != like.shape:
        raise ValueError(f"{what}: a gradient of shape {value.shape} for shape {like.shape}")
    return value if value.dtype == like.dtype else TAPED["astype"](value, like.dtype)
