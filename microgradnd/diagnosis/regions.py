"""Where a network that is linear in pieces is one linear map: regions, and the map of an example.

A network of ReLUs or Maxout units is affine wherever all its units choose alike. Such regions are
convex; along a line and in a plane they are found exactly, by cutting the line or the plane where
the choice of a unit changes, operation after operation: inside of what all earlier ones have left
whole, the next one is affine, so its values at the corners say where to cut.

Frozen, in eval mode and in float64, such a network is a chain of affine maps and of operations that
choose the largest of a few affine functions: relu is max(0, z), and a Maxout says so itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from itertools import count, pairwise
from typing import Any

import numpy as np

from ..backend import Backend, named, of
from ..extras import Drawable
from ..functions import asarray
from ..modes import Switch
from ..nn.module import Module
from ..random import Generator
from ..tape import Node, Tensor, raw, reverse, wrap
from .observe import clone, untouched
from .tables import bar, table

#: Regions whose share of the line or of the plane is smaller are rounding.
SMALLEST = 1e-14
#: Values closer to each other than this, relative to the largest, are the same.
EQUAL = 1e-12
#: Rows that are computed at once.
ROWS = 4096


# ------------------------------------------------------------------------------------ in pieces

#: Where the slope of a function of one number changes, given the operation's attributes.
KINKS: dict[str, Callable[[Any], tuple[float, ...]]] = {
    "hard_sigmoid": lambda a: (-3.0, 3.0),
    "hard_tanh": lambda a: (a["min_val"], a["max_val"]),
    "relu6": lambda a: (0.0, 6.0),
    "softshrink": lambda a: (-a["lambd"], a["lambd"]),
    **dict.fromkeys(("absolute", "leaky_relu", "prelu", "relu", "rrelu"), lambda a: (0.0,)),
}
#: The largest or smallest of several numbers.
CHOICES = frozenset({"maximum", "maxout", "minimum"})
#: Affine in the data, if the other operands are constants.
AFFINE = frozenset({
    "add", "astype", "broadcast_to", "concatenate", "conv", "copy", "cumsum", "divide", "einsum",
    "expand_dims", "flip", "getitem", "identity", "linear", "matmul", "mean", "moveaxis",
    "multiply", "negative", "positive", "reshape", "split", "squeeze", "stack", "subtract", "sum",
    "swapaxes", "take", "transpose", "unfold",
})  # fmt: skip
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


# ------------------------------------------------------------------------------------ regions


@dataclass(repr=False)
class Line(Drawable):
    """The linear regions between two points a and b, at a + t (b - a); `plot` draws the outputs.

    Attributes:
        count: How many there are.
        breaks: Where one ends and another begins: t between 0 and 1, ascending.
        places: Which operation bends there, `"2 relu"` for one after the module 2.
        t, outputs: The output, (len(t), ...), at 0, at the breaks, and at 1; straight in between.
    """

    count: int
    breaks: list[float]
    places: list[str]
    t: list[float]
    outputs: Any

    def __repr__(self) -> str:
        return f"{self.count} linear regions on the line{_by_place(Counter(self.places))}"

    def _canvas(self) -> dict[str, Any]:
        return dict(figsize=(6.5, 3.6))

    def _draw(self, axes: Any) -> None:
        """Draw the outputs along the line, with a tick where a region ends."""
        axes.plot(self.t, np.reshape(self.outputs, (len(self.t), -1)), lw=1.2)
        for t in self.breaks:
            axes.axvline(t, color="0.8", lw=0.5, zorder=0)
        axes.set(xlabel="t, from a to b", ylabel="output",
                 title=f"{self.count} linear regions")  # fmt: skip


@dataclass(repr=False)
class Plane(Drawable):
    """The linear regions in a plane, at origin + s u + t v, s and t in [-1, 1]; `plot` colors them.

    Attributes:
        count: How many there are; sampled: how many the points are in.
        exact: Whether the plane was cut, not sampled.
        cells: Of an exact count: each region's corners (s, t), in order around it.
        labels: Of a sampled one: the number of the region at each point, (resolution, resolution),
            t along the first axis.
    """

    count: int
    exact: bool
    cells: list[Any] = field(default_factory=list)
    labels: Any = None

    def __repr__(self) -> str:
        how = "" if self.exact else f" met by {self.labels.size} points"
        return f"{self.count} linear regions in the plane{how}"

    def _canvas(self) -> dict[str, Any]:
        return dict(figsize=(5, 5))

    def _draw(self, axes: Any) -> None:
        """Draw each region in a color of its own."""
        shades = Generator(0).uniform(0.25, 0.95, (self.count, 3), backend=named("numpy"))
        colors = shades.numpy()
        for cell, color in zip(self.cells, colors, strict=False):
            axes.fill(*np.transpose(cell), color=color, ec="black", lw=0.3)
        if self.labels is not None:
            axes.imshow(colors[self.labels], origin="lower", extent=(-1, 1, -1, 1))
        axes.set(xlabel="s", ylabel="t", aspect="equal", title=repr(self))


def linear_regions(
    model: Any, line: Any = None, plane: Any = None, resolution: int | None = None
) -> Line | Plane:
    r"""Count the regions in which the network is one affine map, along a line or in a plane.

    A region is where all units choose alike: on the same side of their kinks, and of each Maxout
    the same piece. One hidden layer of n ReLUs in general position has
    :math:`\sum_{j \le d} \binom{n}{j}` regions in d dimensions. The network is taken in eval mode
    and in float64; regions below 1e-14 of the line or plane are not seen.

    Args:
        model: A Module, or a function of rows, of affine maps and of relu, leaky_relu, prelu,
            relu6, hard_tanh, abs, maximum and maxout, connected in any way.
        line: Two examples (a, b): exact, between them.
        plane: Three arrays (origin, u, v): the points origin + s u + t v, s and t from -1 to 1.
        resolution: Of a plane, sample a grid of so many points each way; else it is cut exactly,
            which takes about a millisecond per region.

    Raises:
        ValueError: If not exactly one of line and plane is given, or another operation is found.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Sequential(mg.nn.Linear(1, 3), mg.relu)
        >>> with mg.no_grad():
        ...     _ = net[0].weight.assign_([[1.0], [1.0], [-1.0]])
        ...     _ = net[0].bias.assign_([1.0, 0.0, 0.5])
        >>> found = mg.diagnosis.linear_regions(net, line=([-2.0], [2.0]))
        >>> found.count, [round(-2 + 4 * t, 6) for t in found.breaks]
        (4, [-1.0, 0.0, 0.5])
    """
    if (line is None) == (plane is None):
        raise ValueError("linear_regions: give either line=(a, b) or plane=(origin, u, v)")
    corners = [host(raw(point)) for point in (plane if line is None else line)]
    wanted = 2 if plane is None else 3
    if len(corners) != wanted or len({c.shape for c in corners}) > 1:
        raise ValueError(f"linear_regions: {wanted} arrays of one shape are wanted, got "
                         f"{[c.shape for c in corners]}")  # fmt: skip
    origin, *ways = [corners[0], corners[1] - corners[0]] if plane is None else corners
    network = _Network(Follower(model, "linear_regions"), origin, np.stack(ways))
    if plane is None:
        return _line(network)
    if resolution is None:
        cells, _ = network.cut(np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]))
        return Plane(len(cells), True, cells)
    side = (2 * np.arange(resolution) + 1) / resolution - 1
    places = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    _, labels = np.unique(network.patterns(places), return_inverse=True)
    return Plane(int(labels.max()) + 1, False, labels=labels.reshape(resolution, resolution))


def _line(network: _Network) -> Line:
    cells, bends = network.cut(np.array([[0.0], [1.0]]))
    t = sorted({0.0, 1.0, *(float(cell.min()) for cell in cells)})
    outputs = network.outputs(np.reshape(t, (-1, 1)))
    return Line(len(cells), t[1:-1], [bends[at] for at in t[1:-1]], t, outputs)


class _Network:
    """A network seen from a line or a plane: points are coordinates along one or two ways."""

    def __init__(self, follower: Follower, origin: Any, ways: Any):
        self.follower, self.origin, self.ways = follower, origin, ways

    def _run(self, places: Any, hear: Callable[..., None]) -> Any:
        return self.follower.run(self.origin + np.tensordot(places, self.ways, axes=1), hear)

    def outputs(self, places: Any) -> Any:
        """Give the network's output at points."""
        return self._run(places, lambda *step: None)

    def choices(self, places: Any, number: int | None = None) -> list[tuple[str, Any]]:
        """Give name and `rivals` of every operation that chooses, or only of that number."""
        found: list[tuple[str, Any]] = []
        met = count()

        def hear(node: Any, operands: Any, result: Any, residuals: Any, attrs: Any) -> None:
            name = node.op.name
            if (name in KINKS or name in CHOICES) and number in (None, next(met)):
                place = f"{self.follower.place} {name}".lstrip()
                found.append((place, rivals(name, operands, attrs)))

        self._run(places, hear)
        return found

    def values(self, places: Any, number: int) -> tuple[Any, str]:
        """Give what the operation of that number chooses from, (points, units, k), and its name."""
        parts = [self.choices(places[i : i + ROWS], number) for i in range(0, len(places), ROWS)]
        options = [values for part in parts for _, values in part]
        return (np.concatenate(options), parts[0][0][0]) if options else (None, "")

    def patterns(self, places: Any) -> Any:
        """Give a number for what all units choose at each point: equal for equal choices."""
        sums = np.zeros(len(places), np.uint64)
        for start in range(0, len(places), ROWS):
            part, bits = slice(start, start + ROWS), Generator(0).bits
            for _, options in self.choices(places[part]):
                won = options.argmax(axis=-1).astype(np.uint64)
                sums[part] += won @ bits(won.shape[1], named("numpy"))
        return sums

    def cut(self, start: Any) -> tuple[list[Any], dict[float, str]]:
        """Cut a cell, given by its corners, into regions; on a line also say what bends where."""
        cells, number = [start], 0
        bends: dict[float, str] = {}
        least = SMALLEST * _extent(start)
        while True:
            values, name = self.values(np.concatenate(cells), number)
            if values is None:
                return cells, bends
            near = EQUAL * np.abs(values).max(axis=(0, 2))
            parts = np.split(values, np.cumsum([len(cell) for cell in cells])[:-1])
            cells = [new for cell, part in zip(cells, parts, strict=True)
                     for new in _divide(cell, part, near, least)]  # fmt: skip
            for cell in cells if start.shape[1] == 1 else ():
                bends.setdefault(float(cell.min()), name)
            number += 1


def _divide(cell: Any, values: Any, near: Any, least: float) -> list[Any]:
    """Cut a convex cell where the choice of a unit changes.

    Args:
        cell: Its corners, (n, d).
        values: At the corners what each unit chooses from, (n, units, k), affine in between.
        near: For each unit, a difference that is none.
        least: The smallest extent of a cell.
    """
    d, (units, k) = cell.shape[1], values.shape[1:]
    done = []
    todo = [(np.concatenate([cell, values.reshape(len(cell), -1)], axis=1), 0)]
    while todo:
        rows, first = todo.pop()
        options = rows[:, d:].reshape(-1, units, k)[:, first:]
        leads = options >= options.max(axis=-1, keepdims=True) - near[first:, None]
        open_ = ~leads.all(axis=0).any(axis=-1)  # units that no piece wins at all corners
        if not open_.any():
            done.append(rows[:, :d])
            continue
        unit = first + int(open_.argmax())
        for piece in range(k):
            part = rows
            for other in range(k):
                at = d + unit * k
                ahead = part[:, at + piece] - part[:, at + other]
                part = _clip(part, np.where(np.abs(ahead) <= near[unit], 0.0, ahead))
            if len(part) and _extent(part[:, :d]) > least:
                todo.append((part, unit + 1))
    return done


def _clip(rows: Any, ahead: Any) -> Any:
    """Give the part of a convex cell where a function, given at its corners, is not negative."""
    inside = ahead >= 0
    if inside.all():
        return rows
    kept = []
    for i in range(len(rows)):
        j = (i + 1) % len(rows)
        if inside[i]:
            kept.append(rows[i])
        if inside[i] != inside[j] and (len(rows) > 2 or i == 0):
            kept.append(rows[i] + ahead[i] / (ahead[i] - ahead[j]) * (rows[j] - rows[i]))
    return np.array(kept).reshape(-1, rows.shape[1])


def _extent(cell: Any) -> float:
    """Give the length of a piece of a line, or the area of a polygon."""
    if cell.shape[1] == 1:
        return float(cell.max() - cell.min())
    x, y = (cell - cell[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _by_place(places: Counter[str]) -> str:
    if not places:
        return ""
    most = max(places.values())
    rows = [(place, n, bar(n / most)) for place, n in places.items()]
    return "\n" + table(("bends at", "times", ""), sorted(rows))


# ------------------------------------------------------------------------------------ subnetwork


@dataclass(repr=False)
class ThinLayer:
    """An affine map between the units that an example uses: h = weight @ (h before) + bias.

    Attributes:
        name: Of the module whose weight it is.
        activation: What chose its units; it has become part of weight and bias.
        kept: The numbers of its units that depend on the input.
        units: How many there are in the whole network.
        weight, bias: NumPy arrays, (kept, kept before) and (kept,), float64.
    """

    name: str
    activation: str
    kept: Any
    units: int
    weight: Any
    bias: Any


@dataclass(repr=False)
class Thin:
    """The thin linear network that one example uses.

    Attributes:
        layers: Its layers; units that are constant near the example are in the next one's bias.
        shape: Of an example's output.
    """

    layers: list[ThinLayer]
    shape: tuple[int, ...]

    def forward(self, x: Any) -> Any:
        """Give the output for an example, as NumPy's: near the example it is the network's."""
        h = host(raw(x)).reshape(-1)
        for layer in self.layers:
            h = layer.weight @ h + layer.bias
        return h.reshape(self.shape)

    @property
    def matrix(self) -> Any:
        """The product of all weights, (outputs, inputs): the network's Jacobian."""
        return reduce(lambda product, layer: layer.weight @ product, self.layers[1:],
                      self.layers[0].weight)  # fmt: skip

    @property
    def bias(self) -> Any:
        """What is added to `matrix @ x`, (outputs,)."""
        return self.forward(np.zeros(self.layers[0].weight.shape[1])).reshape(-1)

    def __repr__(self) -> str:
        rows = [(x.name, x.activation, len(x.kept), x.units, bar(len(x.kept) / max(x.units, 1)))
                for x in self.layers]  # fmt: skip
        return table(("layer", "activation", "used", "of", ""), rows)


def active_subnetwork(model: Any, x: Any) -> Thin:
    """Give the thin linear network that one example uses: the units at work, and nothing else.

    A ReLU that is off is left out, of a Maxout unit only the winning piece stays, a leaky ReLU
    multiplies by its slope. What is left has no activation, gives the same output for the example,
    and is its network's derivative. The network is taken in eval mode and in float64.

    Args:
        model: A chain of modules or functions on rows, without branches: Linear, batch
            normalization, dropout, and what `linear_regions` takes.
        x: One example (features, ...).

    Raises:
        ValueError: If the network has branches, or an operation that is not linear in pieces; for
            several examples.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Sequential(mg.nn.Linear(3, 8), mg.relu, mg.nn.Linear(8, 2))
        >>> x = mg.tensor([1.0, -2.0, 0.5])
        >>> thin = mg.diagnosis.active_subnetwork(net, x)
        >>> mg.allclose(thin.matrix @ x.numpy() + thin.bias, net(x[None]).detach(), atol=1e-6)
        True
    """
    x = np.asarray(host(raw(x)))
    try:
        return Thin(*_Chain(Follower(model, "active_subnetwork"), x).layers())
    except ValueError as error:
        error.add_note(f"active_subnetwork: x was taken as one example of shape {x.shape}")
        raise


class _Chain:
    """Follows one example; a layer begins at each product, and takes what comes before the first.

    Attributes:
        names, activations: Of the layers.
        ends: The tensors between them, from the input on.
    """

    def __init__(self, follower: Follower, x: Any):
        self.follower, self.shape = follower, x.shape
        self.names: list[str] = []
        self.activations = ["none"]
        self.last: Any = None
        self.ends: list[Any] = []
        follower.run(x[None], self.hear)

    def hear(self, node: Any, operands: Any, result: Any, residuals: Any, attrs: Any) -> None:
        """Take the next operation."""
        op, data = node.op, self.follower.data
        nodes = [getattr(x, "_node", None) for x in operands]
        of_data = [i for i, n in enumerate(nodes) if n is not None and n.serial in data]
        x = operands[of_data[0]]
        if len(of_data) > 1 or (self.last is not None and self.last._node is not x._node):
            raise self._refused(f"{op.name} joins or leaves a branch")
        if op.name in ("linear", "matmul") and x.ndim > 2:
            raise ValueError(
                f"active_subnetwork: one example is wanted, and {op.name} got several rows of what "
                f"was given, of shape {self.shape}; of a batch give one example, x[0]"
            )
        if op.name in ("linear", "matmul") and of_data == [0] and x.ndim == 2:
            if self.names:
                self.ends.append(x)
                self.activations.append("none")
            self.names.append(self.follower.place or str(len(self.names)))
        elif op.name == "maxout" or (op.elementwise and x.shape == result.shape):
            if op.name in KINKS or op.name in CHOICES:
                self.activations[-1] = op.name
        elif op.name not in ("reshape", "squeeze", "expand_dims", "copy"):
            raise self._refused(f"{op.name} is none of them")
        self.last = result

    def _refused(self, why: str) -> ValueError:
        return ValueError(
            "active_subnetwork: a chain of affine maps of rows, elementwise operations and maxout "
            f"is wanted; {why}{self.follower.after}"
        )

    def layers(self) -> tuple[list[ThinLayer], tuple[int, ...]]:
        """Give the layers, and the shape of the output."""
        begin = self.follower.input
        end = begin if self.last is None else self.last
        ends = [begin, *self.ends, end]
        found, before = [], np.arange(ends[0].size)
        for name, activation, (a, b) in zip(self.names or [""], self.activations, pairwise(ends),
                                            strict=True):  # fmt: skip
            rows = _jacobian(b, a)[:, before]
            kept = np.flatnonzero(rows.any(axis=1) | (b is end))
            x, y = (host(raw(t)).reshape(-1) for t in (a, b))
            weight, bias = rows[kept], y[kept] - rows[kept] @ x[before]
            found.append(ThinLayer(name, activation, kept, b.size, weight, bias))
            before = kept
        return found, end.shape[1:]


def _jacobian(y: Any, x: Any) -> Any:
    """Give the derivatives of all numbers of y to all of x, (y.size, x.size)."""
    rows, target = np.zeros((y.size, x.size)), frozenset({x._node.serial})
    for i in range(y.size):
        one = y.backend.asarray(np.reshape(np.arange(y.size) == i, y.shape).astype(np.float64))
        for _, g in reverse([(y._node, wrap(one))], taped=False, targets=target):
            rows[i] = host(raw(g)).reshape(-1)
    return rows
