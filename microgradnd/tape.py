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
from .arraylike import ArrayLike, cotangent, to_array
from .backend.namespace import CONSTANT, FORWARD_ONLY, NAMES
from .gradients import HasGradient, announce, run_hooks
from .inplace import Storage, Writable, storage_of
from .modes import MODE, Switch
from .registry import REGISTRY

new = object.__new__
serial = count(1).__next__
FREED: Any = object()  # in place of what a node kept, once `Tensor.backward` has been there


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
        self.grad: Any = None
        self.hooks: Any = None


def wrap(array: Any, node: Node | None = None, storage: Storage | None = None) -> Tensor:
    """Make a Tensor of a raw array, without copy or check: the engine's own constructor."""
    self = new(Tensor)
    self._array = array
    self._node = node
    self._storage = storage
    return self


def wrap_gradient(g: Any) -> Tensor:
    """Make a Tensor of a raw gradient, which on NumPy may be a number for 0-d arrays."""
    return wrap(g if type(g) in backends.BY_TYPE else np.asarray(g))


def pick_each(node: Node, outs: list[Any]) -> list[Tensor]:
    """Make the results of a node that has several: one node each, which picks it."""
    picks = [Node(PICK, (node,), (i,), (), o.shape, o.dtype) for i, o in enumerate(outs)]
    return [wrap(out, pick) for out, pick in zip(outs, picks, strict=True)]


def raw(x: Any) -> Any:
    """Give the array inside a Tensor, and anything else as it is."""
    return x._array if isinstance(x, Tensor) else x


class Tensor(Writable, HasGradient, ArrayLike):
    """An n-dimensional array that remembers how it was made.

    Operators, methods and NumPy's functions act on it as on a NumPy array; `backward` then gives
    every leaf with `requires_grad` the derivative of a scalar with respect to it.

    Args:
        data: Numbers, (nested) lists, an array or a Tensor; copied. Floats in lists become the
            default dtype, arrays keep theirs.
        dtype: The dtype wanted, if not that.
        requires_grad: Whether to record what is computed from it.

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

    def requires_grad_(self, flag: bool = True) -> Tensor:
        """Start (or stop) recording what is computed from this leaf; gives the tensor itself."""
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
        announce(self)
        leaves = reverse([(node, gradient)], taped=create_graph, free=not retain)
        with ACCUMULATE:
            for leaf, g in leaves:
                if leaf.grad is None:
                    leaf.grad = g
                elif create_graph:
                    leaf.grad = leaf.grad + g
                else:
                    leaf.grad = wrap(g.backend.asarray(leaf.grad._array + g._array))

    def detach(self) -> Tensor:
        """Give the same values, in the same memory, outside the tape."""
        storage = storage_of(self)
        storage.taped = storage.taped or self._node is not None
        return wrap(self._array, None, storage)


@cache
def taped_namespace(backend: backends.Backend) -> SimpleNamespace:
    """Give the `xp` of a recorded pass: the same names, acting on Tensors."""

    def constant(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: wrap(function(*map(raw, args), **kwargs))

    def find(name: str) -> Any:
        return constant(getattr(backend.xp, name)) if name in CONSTANT else REGISTRY[name].bare

    return SimpleNamespace(**{name: find(name) for name in NAMES - FORWARD_ONLY})


def _alone() -> int:
    array = np.empty(0)
    return getrefcount(array)


ALONE = _alone()  # what `getrefcount` says, on this Python, of an array that one local name holds
ACCUMULATE = Lock()


class Pick:
    """Stands as the operation of a node that is one output of several: `kept` is `(number,)`."""

    name = "pick"
    elementwise = outputs = False

    def pull(self, node: Node, g: Any, xp: Any, taped: bool) -> list[tuple[Any, Any]]:
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
        since: Do not walk nodes older than this serial, unless they are targets.
        targets: Serials of the wanted nodes, where the walk stops; by default the leaves.

    Returns:
        The wanted nodes and their gradients, which share no memory with anything.
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
            node, g, _ = pending.pop(number)
            if node.hooks is not None:
                tensor = run_hooks(node, g if taped else wrap_gradient(g.copy()), taped)
                g = tensor if taped else tensor._array
                del tensor
            if watch is not None:
                watch.gradient(node, g)
            probe = next(h for h in g if h is not None) if type(g) is list else g
            home = backends.BY_TYPE.get(type(probe._array if taped else probe))
            if home is not backend and home is not None:  # the graph crossed to another backend
                backend, xp = home, taped_namespace(home) if taped else home.xp
            del probe
            if number in targets if targets is not None else node.op is None:
                if not taped:
                    alone = g.base is None and getrefcount(g) == ALONE
                    g = wrap(backend.asarray(g if alone else g.copy()))
                else:
                    g = wrap(g._array.copy(), g._node)
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
            i = node.kept[0]
            slots[1][i] = gi if slots[1][i] is None else slots[1][i] + gi
            continue
        if gi.shape != parent.shape:
            if not op.elementwise:
                raise RuntimeError(f"{op.name}: a gradient of shape {gi.shape}, not {parent.shape}")
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
        return xp.sum(g, axis=tuple(range(lead))) if lead else g
    axes = tuple(
        i for i, n in enumerate(g.shape) if i < lead or (shape[i - lead] == 1 and n != 1)
    )
    return xp.reshape(xp.sum(g, axis=axes), shape)
