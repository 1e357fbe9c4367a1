"""The chain rule, link by link: how a gradient comes from the loss to a parameter, or does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, log10, nan, prod
from typing import Any

import numpy as np

from ..backend import of
from ..modes import Switch, no_grad
from ..tape import FREED, PICK, Node, Tensor, reverse, sum_to, wrap
from ..tracing import home
from .observe import ancestors, rms
from .tables import bar, number, table

#: Operations that only show a weight in another shape.
VIEWS = frozenset({"expand_dims", "moveaxis", "reshape", "squeeze", "swapaxes", "transpose"})
#: Operations that are named in one line of text.
NAMED = 3


@dataclass
class Link:
    """One operation between the loss and the parameter.

    Attributes:
        operation: Its name.
        layer: The module whose weight it multiplies by, or whose result it acts on; "" if unknown.
        shape: Of its result.
        arriving: RMS of the loss's derivative to its result.
        leaving: RMS of what it hands on towards the parameter.
        ways: From how many operations its operand gets a gradient; the largest was followed.
        joins: Whether it makes one number of many: then its gain is mostly 1 / their number.
    """

    operation: str
    layer: str
    shape: tuple[int, ...]
    arriving: float
    leaving: float
    ways: int = 1
    joins: bool = False

    @property
    def gain(self) -> float:
        """What the operation multiplies the gradient by: leaving / arriving."""
        return self.leaving / self.arriving if self.arriving else nan


@dataclass(repr=False)
class Chain:
    """The way of a gradient, from the loss to a parameter.

    Attributes:
        parameter: Its name, or its shape as text.
        links: From the loss to the parameter; none if there is no way.
        gradient: RMS of the loss's derivative to the parameter, along all ways.
        cut: Where the gradient ends or becomes exactly 0, as text; "" if it arrives.
        reached: Of a model's parameters, those that the loss leads to.
    """

    parameter: str
    links: list[Link] = field(default_factory=list)
    gradient: float = 0.0
    cut: str = ""
    reached: list[str] = field(default_factory=list)

    @property
    def lost(self) -> dict[str, float]:
        """By operation, the decades that all links of its name take off together; most first.

        What joins many numbers (a mean, a loss) is left out.
        """
        sums: dict[str, float] = {}
        for link in self.links:
            if link.arriving and not link.joins:
                decades = -log10(link.gain) if link.gain else inf
                sums[link.operation] = sums.get(link.operation, 0.0) + decades
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def __repr__(self) -> str:
        if not self.links:
            return f"{self.parameter}: {self.cut}"
        top = max(link.arriving for link in self.links) or 1.0
        sizes = [x for link in self.links for x in (link.arriving, link.leaving) if x]
        span = max(log10(top / min(sizes)), 1.0) if sizes else 1.0
        worst = min((x.gain for x in self.links if x.arriving and not x.joins), default=nan)
        rows = []
        for link in self.links:
            share = max(1 - log10(top / link.leaving) / span, 1e-9) if link.leaving else 0.0
            mark = " <-" if link.gain == worst < 1 and not link.joins else ""
            rows.append((link.operation, link.layer, link.arriving, link.gain, bar(share) + mark))
        header = ("operation", "layer", "gradient", "gain", "what is left (log)")
        return "\n".join([table(header, rows), self._summary()])

    def _summary(self) -> str:
        text = f"{self.parameter}: gradient {number(self.gradient)} (RMS)"
        if self.cut:
            return f"{text}; {self.cut}"
        times = {name: sum(x.operation == name for x in self.links) for name in self.lost}
        lost = [f"{name} {decades:.1f} (in {times[name]})" for name, decades in self.lost.items()
                if decades >= 0.05][:NAMED]  # fmt: skip
        return f"{text}; decades lost in " + ", ".join(lost) if lost else text


def explain(loss: Tensor, parameter: Any, model: Any = None) -> Chain:
    r"""Follow a gradient from the loss back to a parameter, with the gain of every operation.

    A gain is the RMS of what an operation hands on, divided by the RMS of what arrives; their
    product along the chain is the RMS of :math:`\partial L/\partial w`. Where there are several
    ways, the chain is the one that brings most. Call it before `backward`, which frees the graph;
    it changes no `grad`, calls no hook and frees nothing.

    Args:
        loss: A scalar on the tape.
        parameter: A Tensor, or the dotted name of a parameter of the model.
        model: Gives the layers their names; wanted for a parameter's name.

    Raises:
        KeyError: If the model has no parameter of that name.
        RuntimeError: If the graph was freed, or nothing in it requires a gradient.
        TypeError: If the parameter is neither a Tensor nor a name, or a name without a model.
        ValueError: If the loss is not a single number.

    Example:
        >>> import microgradnd as mg
        >>> w = mg.tensor(0.5, requires_grad=True)
        >>> chain = mg.diagnosis.explain(mg.square(mg.sigmoid(w * 8.0)), w)
        >>> [(x.operation, round(x.gain, 4)) for x in chain.links]
        [('square', 1.964), ('sigmoid', 0.0177), ('multiply', 8.0)]
        >>> print(chain)
        operation  layer  gradient    gain  what is left (log)
        square                   1    1.96  ████████████████████
        sigmoid               1.96  0.0177  ▏ <-
        multiply            0.0347       8  ██████████▎
        the parameter of shape (): gradient 0.278 (RMS); decades lost in sigmoid 1.8 (in 1)
    """
    if not isinstance(loss, Tensor) or loss.size != 1:
        raise ValueError(f"explain: the loss is one number on the tape, got {loss!r}")
    names = dict(model.named_parameters()) if model is not None else {}
    if isinstance(parameter, str):
        if model is None:
            raise TypeError(
                f"explain: {parameter!r} is a name, and model= is wanted to look it up: "
                f"explain(loss, {parameter!r}, model=model)"
            )
        if parameter not in names:
            raise KeyError(f"explain: the model has no parameter {parameter!r}; it has {[*names]}")
        name, parameter = parameter, names[parameter]
    elif not isinstance(parameter, Tensor):
        raise TypeError(
            "explain: a parameter (a Tensor, or its name with model=) is wanted, got a "
            f"{type(parameter).__name__}"
        )
    else:
        name = next((n for n, p in names.items() if p is parameter),
                    f"the parameter of shape {parameter.shape}")  # fmt: skip
    root, goal = loss._node, parameter._node
    if root is None:
        raise RuntimeError("explain: nothing that this loss was computed from requires a gradient")
    known = {p._node.serial: n for n, p in names.items() if p._node is not None}
    nodes = ancestors(root)
    chain = Chain(name, reached=[n for serial, n in known.items() if serial in nodes])
    if goal is None or goal.serial not in nodes:
        chain.cut = _no_way(goal, chain.reached)
        return chain
    if any(node.kept is FREED for node in nodes.values()):
        raise RuntimeError(
            "explain: the graph was freed by backward(); call explain before it, or backward with "
            "retain_graph=True"
        )
    leading = {goal.serial}
    for serial in sorted(nodes):
        if any(p is not None and p.serial in leading for p in nodes[serial].parents):
            leading.add(serial)
    gradients = _gradients(root, loss, nodes, leading)
    chain.gradient = _size(gradients.get(goal.serial))
    steps = _links(root, goal, nodes, gradients)
    _name_layers(steps, known)
    chain.links = [link for _, link in steps]
    if not steps and root is not goal:
        chain.cut = "what it was used for has no derivative for that operand"
    dead = next((x for x in chain.links if x.arriving and not x.leaving), None)
    if dead is not None:
        at = f" of layer {dead.layer}" if dead.layer else ""
        chain.cut = f"exactly 0 from {dead.operation}{at} on"
    return chain


def _no_way(goal: Node | None, reached: list[str]) -> str:
    if goal is None:
        return "it does not require a gradient (frozen), so none is computed"
    leads = f" The loss leads to {', '.join(reached)}." if reached else ""
    return ("the loss does not depend on it, as far as the tape knows: it was not used, or what "
            "was made of it was detached, computed under no_grad, or turned into integers or NumPy "
            f"arrays.{leads}")  # fmt: skip


class _Noting:
    """A watcher that keeps the gradients of some nodes."""

    def __init__(self, wanted: set[int]):
        self.wanted, self.found = wanted, dict[int, Any]()

    def gradient(self, node: Node, g: Any) -> None:
        if node.serial in self.wanted:
            self.found[node.serial] = list(g) if isinstance(g, list) else g


@contextmanager
def _without_hooks(nodes: dict[int, Node]) -> Iterator[None]:
    """Keep the user's hooks, and those that leave a `grad`, out of a pass that is only a look."""
    hooks = {serial: node.hooks for serial, node in nodes.items() if node.hooks is not None}
    for serial in hooks:
        nodes[serial].hooks = None
    try:
        yield
    finally:
        for serial, kept in hooks.items():
            nodes[serial].hooks = kept


def _gradients(root: Node, loss: Tensor, nodes: dict[int, Node], leading: set[int]) -> Any:
    noting = _Noting(leading)
    one = wrap(of(loss._array).xp.ones_like(loss._array))
    with _without_hooks(nodes), no_grad(), Switch(watch=noting):
        reverse([(root, one)], taped=False)
    return noting.found


def _size(g: Any) -> float:
    """Give the RMS of a gradient, or of a list of them with gaps."""
    if g is None:
        return 0.0
    parts = [h for h in (g if isinstance(g, list) else [g]) if h is not None]
    return rms(np.concatenate([home(h).to_numpy(h).ravel() for h in parts]))


def _edges(node: Node, g: Any) -> list[tuple[Node, Any]]:
    """Give what a node hands on to each parent, of the parent's shape."""
    backend = home(next(h for h in (g if isinstance(g, list) else [g]) if h is not None))
    xp = backend.xp
    if node.op.outputs:
        g = [xp.zeros(s, dtype=d) if h is None else h
             for h, s, d in zip(g, node.shape, node.dtype, strict=True)]  # fmt: skip
    with backend.quiet():
        return [(p, h if node.op is PICK or h.shape == p.shape else sum_to(xp, h, p.shape))
                for p, h in node.op.pull(node, g, xp, False) if p is not None]  # fmt: skip


def _links(
    root: Node, goal: Node, nodes: dict[int, Node], gradients: Any
) -> list[tuple[Node, Link]]:
    """Go up from the parameter, to whatever brought most of the gradient, until the loss."""
    brought: dict[int, list[tuple[float, Node, Any]]] = {}
    for serial, g in gradients.items():
        for parent, h in _edges(nodes[serial], g) if nodes[serial].op is not None else ():
            if parent.serial in gradients:
                brought.setdefault(parent.serial, []).append((_size(h), nodes[serial], h))
    steps = []
    node = goal
    while node is not root:
        ways = brought.get(node.serial)
        if not ways:  # an operation that has no derivative for it
            return []
        leaving, node, h = max(ways, key=lambda way: way[0])
        if node.op is not PICK:
            shape = node.shape[0] if isinstance(node.shape, list) else node.shape
            link = Link(node.op.name, "", shape, _size(gradients[node.serial]), leaving, len(ways),
                        prod(shape) == 1 < getattr(h, "size", 1))  # fmt: skip
            steps.append((node, link))
    return steps[::-1]


def _name_layers(steps: list[tuple[Node, Link]], known: dict[int, str]) -> None:
    """Name the layer of each link: of its weight or, for a function, of what it acts on."""
    layer = ""
    for node, link in reversed(steps):
        own = next(filter(None, (_owner(p, known) for p in node.parents if p is not None)), "")
        layer = own or layer
        if own or node.op.elementwise or node.op.name == "maxout":
            link.layer = layer


def _owner(node: Node, known: dict[int, str]) -> str:
    """Give the module of a parameter, also if the node is a view of it."""
    while node.op is not None and node.op.name in VIEWS:
        node = next(p for p in node.parents if p is not None)
    name = known.get(node.serial, "")
    return name.rpartition(".")[0] or name
