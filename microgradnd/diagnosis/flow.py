"""What flows through a network, layer by layer: gradients, activations, dead units, pieces, shapes.

Each part looks at all rows, on a clone: the model, its gradients, modes and buffers stay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf, log10
from typing import Any

import numpy as np

from ..backend import of
from ..extras import Drawable
from ..functions import asarray
from ..nn.layers import Maxout, PReLU
from ..nn.module import Module
from ..tape import Node, Tensor
from .evidence import Evidence, Layer, LayerState
from .facts import Facts
from .measure import host, spread, taken
from .observe import ROWS, Watcher, look, survey
from .tables import bar, table
from .thresholds import Thresholds

#: Points of a learned shape's curve.
POINTS = 61
#: What is drawn of many: panels of a picture.
PANELS = 24


@dataclass(repr=False)
class _Table:
    """Layers with their states."""

    layers: list[Layer]
    states: list[LayerState]

    def _pairs(self) -> list[tuple[Layer, LayerState]]:
        return list(zip(self.layers, self.states, strict=True))


# ------------------------------------------------------------------------------------ gradients


@dataclass(repr=False)
class Flow(_Table, Drawable):
    """The loss's derivatives, layer by layer; `plot` draws them.

    Attributes:
        layers, states: Of each layer `delta`, the RMS of an example's dL/dz, and `gradient`, that
            of dL/dW.
        decades: By how many powers of ten an example's gradient shrinks from the last hidden layer
            back to the first; negative if it grows, infinite if nothing arrives.
        per_layer: The same for one layer: 0.6 for sigmoid, about 0 if all is well.
    """

    decades: float
    per_layer: float

    @property
    def ratio(self) -> float:
        """What the first hidden layer gets of the last one's gradient."""
        return 0.0 if self.decades == inf else float(10**-self.decades)

    def __repr__(self) -> str:
        known = [s.delta for s in self.states if s.delta > 0]
        top = max(known, default=1.0)
        span = max(log10(top / min(known, default=1.0)), 1.0)
        rows = [
            (layer.name, layer.activation, s.delta, s.gradient,
             bar(max(1 - log10(top / s.delta) / span, 1e-9) if s.delta > 0 else 0.0))
            for layer, s in self._pairs()
        ]  # fmt: skip
        text = table(("layer", "activation", "dL/dz", "dL/dW", "dL/dz (log)"), rows)
        if not any(s.delta > 0 for layer, s in self._pairs() if not layer.output):
            return f"{text}\nno gradient comes to the hidden layers"
        if self.decades != self.decades:
            return text
        if self.decades == inf:
            return f"{text}\nnothing of the gradient arrives at the first layer"
        way = "gained" if self.decades < 0 else "lost"
        return (f"{text}\n{abs(self.decades):.1f} decades are {way} on the way back, "
                f"{abs(self.per_layer):.2f} per layer: the first hidden layer gets "
                f"{self.ratio:.2g} times what the last one gets")  # fmt: skip

    def _canvas(self) -> dict[str, Any]:
        return dict(figsize=(6.5, 3.6))

    def _draw(self, axes: Any) -> None:
        """Draw both gradients over the layers."""
        for name, label in (("delta", "dL/dz"), ("gradient", "dL/dW")):
            seen = [(i, getattr(s, name)) for i, s in enumerate(self.states)
                    if getattr(s, name) > 0]  # fmt: skip
            if seen:
                axes.semilogy(*zip(*seen, strict=True), "o-", label=f"{label} (RMS)")
                axes.legend()
        axes.set_xticks(range(len(self.layers)), [layer.name for layer in self.layers])
        axes.set(xlabel="layer", title="gradient flow")


def gradient_flow(model: Any, loss_fn: Any, x: Any, y: Any) -> Flow:
    r"""Measure the gradient at every layer: RMS of :math:`\partial L/\partial z` and to the weight.

    z is a layer's output before the activation (of a Maxout: after it), and the derivative that of
    one example's loss. Sizes are compared as `diagnose` does: RMS times the root of the units.

    Args:
        model: A Module, or a function.
        loss_fn: Gives the mean over the batch, of output and target.
        x: Inputs (N, ...), or a tuple of them.
        y: Targets (N, ...).

    Example:
        >>> import microgradnd as mg
        >>> _ = mg.manual_seed(0)
        >>> layers = [part for _ in range(6) for part in (mg.nn.Linear(8, 8), mg.nn.Sigmoid())]
        >>> x, y = mg.random.normal(shape=(32, 8)), mg.random.integers(0, 2, 32)
        >>> flow = mg.diagnosis.gradient_flow(
        ...     mg.nn.Sequential(*layers, mg.nn.Linear(8, 2)), mg.cross_entropy, x, y)
        >>> flow.per_layer > 0.5  # decades
        True
    """
    layers, sample = look(model, loss_fn, x, y)
    total, per_layer, _ = Facts(Evidence(layers=layers, now=sample), Thresholds()).flow(sample)
    return Flow(layers, sample.layers, total, per_layer)


# ------------------------------------------------------------------------------------ activations


@dataclass(repr=False)
class Activations(_Table, Drawable):
    """Of each layer's output a = f(z): `LayerState` with mean, std, zeros, saturated, dead, ...

    `plot` draws the histograms.
    """

    def __repr__(self) -> str:
        rows = [(layer.name, layer.activation, s.mean, s.std, s.zeros, s.saturated, s.dead,
                 _sparks(s.counts), f"{s.low:.3g} .. {s.high:.3g}")
                for layer, s in self._pairs()]  # fmt: skip
        return table(("layer", "activation", "mean", "std", "zeros", "saturated", "dead",
                      "histogram", "range"), rows)  # fmt: skip

    def _canvas(self) -> dict[str, Any]:
        n = len(self.layers)
        return dict(nrows=n, squeeze=False, figsize=(5, 1 + 0.9 * n))

    def _draw(self, grid: Any) -> None:
        """Draw the histogram of each layer's output."""
        for axes, (layer, s) in zip(grid[:, 0], self._pairs(), strict=True):
            edges = np.linspace(s.low, s.high, len(s.counts) + 1)
            axes.bar(edges[:-1], s.counts, np.diff(edges), align="edge")
            axes.set(ylabel=layer.name, yticks=[])
        grid[0, 0].set(title="outputs of the layers")


def _sparks(counts: list[int], width: int = 10) -> str:
    """Draw a histogram in one line of text."""
    if not counts:
        return ""
    sums = [sum(part) for part in np.array_split(counts, width)]
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * s // max(*sums, 1))] for s in sums)


def activation_stats(model: Any, x: Any) -> Activations:
    """Measure each layer's output: mean, deviation, zeros, saturated values, dead units, histogram.

    Zeros are a share of values, dead a share of units that no row wakes up: a sparse network is not
    a dead one. `saturated` counts values where the slope is below 2.7 % of its largest (sigmoid:
    |z| > 5, tanh: |z| > 2.5).

    Args:
        model: A Module, or a function.
        x: Inputs (N, ...), or a tuple of them.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Sequential(mg.nn.Linear(1, 2), mg.nn.ReLU())
        >>> with mg.no_grad():
        ...     _ = net[0].weight.assign_([[1.0], [-1.0]]), net[0].bias.assign_([0.0, -9.0])
        >>> state = mg.diagnosis.activation_stats(net, mg.tensor([[-1.0], [1.0]])).states[0]
        >>> state.zeros, state.dead
        (0.75, 0.5)
    """
    layers, sample = look(model, None, x)
    return Activations(layers, sample.layers)


@dataclass(repr=False)
class Dead:
    """Units that do nothing for any row.

    Attributes:
        units: How many there are, by layer.
        dead: The numbers of the dead ones, by layer.
    """

    units: dict[str, int]
    dead: dict[str, list[int]]

    @property
    def names(self) -> list[str]:
        """Give their names, `2[17]` for number 17 of layer 2."""
        return [f"{layer}[{i}]" for layer, dead in self.dead.items() for i in dead]

    @property
    def share(self) -> dict[str, float]:
        """The share of dead units, by layer."""
        return {layer: len(self.dead[layer]) / max(n, 1) for layer, n in self.units.items()}

    def __repr__(self) -> str:
        rows = [(layer, len(self.dead[layer]), n, bar(self.share[layer]), _few(self.dead[layer]))
                for layer, n in self.units.items()]  # fmt: skip
        return table(("layer", "dead", "of", "", "numbers"), rows)


def _few(numbers: list[int], most: int = 10) -> str:
    text = ", ".join(map(str, numbers[:most]))
    return f"{text}, ..." if len(numbers) > most else text


def dead_units(model: Any, x: Any) -> Dead:
    """Find units whose slope is exactly 0 for every row: no example trains them.

    A unit that is 0 for many rows is only sparse; so give all of the training set.

    Args:
        model: A Module, or a function.
        x: Inputs (N, ...), or a tuple of them.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Sequential(mg.nn.Linear(1, 3), mg.nn.ReLU(), mg.nn.Linear(3, 1))
        >>> with mg.no_grad():
        ...     _ = net[0].weight.assign_([[1.0], [-1.0], [0.5]])
        ...     _ = net[0].bias.assign_([0.0, -9.0, 1.0])
        >>> mg.diagnosis.dead_units(net, mg.tensor([[-1.0], [1.0]])).names
        ['0[1]']
    """
    found = Dead({}, {})
    for tally in survey(model, x).tallies.values():
        if tally.alive is not None:
            found.units[tally.layer.name] = len(tally.alive)
            found.dead[tally.layer.name] = np.flatnonzero(~tally.alive).tolist()
    return found


# ------------------------------------------------------------------------------------ maxout


@dataclass(repr=False)
class Pieces(Drawable):
    """How often each piece of each Maxout unit wins; `plot` draws the shares, unit by unit.

    Attributes:
        counts: By layer an array (units, pieces) of wins over all rows.
        states: By layer a `LayerState` with `entropy`, `unused`, `single` and `ties`.
    """

    counts: dict[str, Any] = field(default_factory=dict)
    states: dict[str, LayerState] = field(default_factory=dict)

    def __repr__(self) -> str:
        rows = [(layer, *self.counts[layer].shape, s.entropy, s.unused, s.single, s.ties,
                 _sparks([int(1e6 * w) for w in s.wins], len(s.wins)))
                for layer, s in self.states.items()]  # fmt: skip
        return table(("layer", "units", "pieces", "entropy", "unused", "single", "ties", "wins"),
                     rows) if rows else "no Maxout"  # fmt: skip

    def _canvas(self) -> dict[str, Any]:
        n = max(len(self.counts), 1)
        return dict(nrows=n, squeeze=False, figsize=(7, 1 + 1.6 * n))

    def _draw(self, grid: Any) -> None:
        """Draw the share of each piece's wins, unit by unit."""
        for axes, (layer, counts) in zip(grid[:, 0], self.counts.items(), strict=False):
            share = np.sort(counts, axis=1)[:, ::-1] / np.maximum(counts.sum(1), 1)[:, None]
            bottom = np.zeros(len(share))
            for piece in share.T:
                axes.bar(range(len(share)), piece, 1.0, bottom=bottom, ec="white", lw=0.3)
                bottom += piece
            axes.set(ylabel=layer, ylim=(0, 1))
        grid[-1, 0].set(xlabel="unit; its pieces by their share of wins")


def piece_usage(model: Any, x: Any) -> Pieces:
    """Count for every Maxout unit how often each of its pieces wins, over all rows.

    A piece that never wins is never trained; a unit of which one piece always wins is linear.
    `entropy` is that of a unit's wins relative to ln(pieces): 1 if all win equally often.

    Args:
        model: A Module, or a function.
        x: Inputs (N, ...), or a tuple of them.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Maxout(1, 1, pieces=3)
        >>> with mg.no_grad():
        ...     _ = net.weight.assign_([[1.0], [-1.0], [0.0]])
        >>> used = mg.diagnosis.piece_usage(net, mg.tensor([[-2.0], [1.0], [3.0]]))
        >>> [counts.tolist() for counts in used.counts.values()]
        [[[2, 1, 0]]]
    """
    tallies = [t for t in survey(model, x).tallies.values() if t.wins is not None]
    return Pieces({t.layer.name: t.wins for t in tallies},
                  {t.layer.name: t.state() for t in tallies})  # fmt: skip


# ------------------------------------------------------------------------------------ shapes


@dataclass
class Shape:
    """The function that a unit has learned, along one direction of its inputs.

    Attributes:
        layer, unit: Which unit.
        kind: `"linear"`, `"relu"`, `"leaky"`, `"abs"`, `"v"` (up on both sides, one side more), or
            `"3 pieces"`.
        slopes: Of the pieces that win in the range of `x`, from left to right, and
        breaks: where one ends and the next begins.
        x, y: Points of the curve.
        direction: The unit vector of the inputs that x goes along, from their mean.
    """

    layer: str
    unit: int
    kind: str
    slopes: list[float]
    breaks: list[float]
    x: list[float]
    y: list[float]
    direction: list[float] = field(default_factory=list)


@dataclass(repr=False)
class Shapes(Drawable):
    """Learned activations: `shapes`, one of each unit; `plot` draws the first ones."""

    shapes: list[Shape]

    def __repr__(self) -> str:
        if not self.shapes:
            return "no Maxout and no PReLU"
        by_layer: dict[str, Counter[str]] = {}
        for shape in self.shapes:
            by_layer.setdefault(shape.layer, Counter())[shape.kind] += 1
        rows = [(layer, sum(kinds.values()), ", ".join(f"{n} {kind}" for kind, n in
                 kinds.most_common())) for layer, kinds in by_layer.items()]  # fmt: skip
        return table(("layer", "units", "learned shapes"), rows)

    def _canvas(self) -> dict[str, Any]:
        n = min(max(len(self.shapes), 1), PANELS)
        rows, columns = -(-n // 6), min(n, 6)
        return dict(nrows=rows, ncols=columns, squeeze=False, figsize=(1.9 * columns, 1.7 * rows))

    def _draw(self, grid: Any) -> None:
        """Draw the curves of the first units."""
        for axes in grid.flat[len(self.shapes) :]:
            axes.set_axis_off()
        for axes, shape in zip(grid.flat, self.shapes, strict=False):
            axes.plot(shape.x, shape.y)
            for at in shape.breaks:
                axes.axvline(at, color="0.8", lw=0.8, zorder=0)
            axes.set_title(f"{shape.layer}[{shape.unit}]: {shape.kind}", fontsize=8)
            axes.tick_params(labelsize=7)


class _Inputs(Watcher):
    """Also keeps what goes into each layer."""

    def __init__(self, model: Any = None):
        super().__init__(model)
        self.inputs: dict[int, list[Any]] = {}

    def _product(self, weight: int, node: Node, operands: Any, result: Tensor) -> None:
        super()._product(weight, node, operands, result)
        data = next((t for t in operands if isinstance(t, Tensor) and t._node is not node), None)
        if data is not None and data.ndim:
            rows = host(data).astype(np.float64).reshape(-1, data.shape[-1])
            self.inputs.setdefault(self.numbers[weight], []).append(rows)


def learned_shapes(model: Any, x: Any = None) -> Shapes:
    """Give the activation that each Maxout unit and each PReLU has learned, as a curve.

    A Maxout unit of many inputs is shown along the direction in which its pieces differ most, from
    the mean of its inputs, over the range that the inputs have there; of a single input, over that
    input itself. The curve is convex, of straight pieces. A batch normalization before the maximum
    counts as part of the unit; a layer with something else in between is left out.

    Args:
        model: A Module.
        x: Inputs (N, ...), or a tuple of them, of which 256 rows are used. Without them only
            `nn.Maxout` and `nn.PReLU` are found, and the range is -3 to 3.

    Raises:
        TypeError: If the model is no Module.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Maxout(1, 1, pieces=3)
        >>> with mg.no_grad():
        ...     _ = net.weight.assign_([[1.0], [-1.0], [0.2]])
        ...     _ = net.bias.assign_([0.0, 0.0, -1.0])
        >>> shape = mg.diagnosis.learned_shapes(net).shapes[0]
        >>> shape.kind, shape.slopes, shape.breaks
        ('abs', [-1.0, 1.0], [0.0])
    """
    if not isinstance(model, Module):
        raise TypeError(f"learned_shapes: a Module is wanted, got {type(model).__name__}")
    found = []
    for name, weight, bias, pieces, inputs in _maxouts(model, x):
        rows = weight.reshape(-1, pieces, weight.shape[-1])
        for unit, (w, b) in enumerate(zip(rows, bias.reshape(-1, pieces), strict=True)):
            found.append(_shape(name, unit, w, b, inputs))
    for name, module in model.named_modules():
        if isinstance(module, PReLU):
            for unit, slope in enumerate(host(module.weight).astype(np.float64).tolist()):
                t = np.linspace(-3.0, 3.0, POINTS)
                y = np.where(t > 0, t, slope * t)
                kind = _kind([slope, 1.0])
                found.append(Shape(name, unit, kind, [slope, 1.0], [0.0], t.tolist(), y.tolist()))
    return Shapes(found)


def _maxouts(model: Module, x: Any) -> list[tuple[str, Any, Any, int, Any]]:
    """Give of each Maxout layer its name, weight (units * pieces, in), bias, pieces, and inputs."""
    found: list[tuple[str, Any, Any, int, Any]] = []
    if x is None:
        for name, m in model.named_modules():
            if isinstance(m, Maxout):
                w, b = _numbers(m.weight, m.bias)
                found.append((name, w, b, m.pieces, None))
        return found
    xs = tuple(map(asarray, x if isinstance(x, tuple) else (x,)))
    watcher = survey(model, taken(xs, spread(len(xs[0]), ROWS)), _Inputs)
    parameters = dict(model.named_parameters())
    for seen in watcher.seen:
        layer = seen.layer
        weight = parameters.get(layer.weight)
        if seen.pieces is None or weight is None or weight.ndim != 2:
            continue
        w, b = _numbers(weight, parameters.get(layer.bias))
        inputs = watcher.inputs[seen.number][-1]
        if w.shape[1] != inputs.shape[1] or len(w) != layer.units * layer.pieces:
            w = w.T  # x @ W
        z = of(seen.pieces).to_numpy(seen.pieces).astype(np.float64).reshape(len(inputs), -1)
        if len(w) == len(b) == z.shape[1] and _as_seen(w, b, inputs, z):
            found.append((layer.name, w, b, layer.pieces, inputs))
    return found


def _numbers(weight: Tensor, bias: Any) -> tuple[Any, Any]:
    w = np.array(host(weight), np.float64)
    return w, np.zeros(len(w)) if bias is None else np.array(host(bias), np.float64)


def _as_seen(w: Any, b: Any, inputs: Any, z: Any) -> bool:
    """Put into w and b what stands between product and Maxout; False if that is no scale and shift.

    (Batch normalization is one, of each unit.)
    """
    near = 1e-3 * np.abs(z).max()
    made = inputs @ w.T
    if np.abs(made + b - z).max() <= near:
        return True
    away = made - made.mean(axis=0)
    scale = (away * z).sum(axis=0) / np.maximum((away * away).sum(axis=0), 1e-300)
    w *= scale[:, None]
    b[:] = z.mean(axis=0) - scale * made.mean(axis=0)
    return bool(np.abs(inputs @ w.T + b - z).max() <= near)


def _shape(layer: str, unit: int, w: Any, b: Any, inputs: Any) -> Shape:
    """Give the curve of one unit, its pieces w (pieces, in) and b (pieces,)."""
    centre, low, high = np.zeros(w.shape[1]), -3.0, 3.0
    way = np.ones(1)
    if w.shape[1] > 1:
        way = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)[2][0]
        way = way * (np.sign(way.sum()) or 1.0)
        centre = centre if inputs is None else inputs.mean(axis=0)
    if inputs is not None:
        along = (inputs - centre) @ way
        low, high = float(along.min()), float(along.max())
    slopes, heights = w @ way, w @ centre + b
    used, breaks = envelope(slopes, heights, low, high)
    t = np.linspace(low, high, POINTS)
    y = (t[:, None] * slopes + heights).max(axis=1)
    chosen = slopes[used].tolist()
    return Shape(layer, unit, _kind(chosen), chosen, breaks, t.tolist(), y.tolist(), way.tolist())


def envelope(slopes: Any, heights: Any, low: float, high: float) -> tuple[list[int], list[float]]:
    """Give the lines that are the largest somewhere in a range, from left to right, and the breaks.

    Example:
        >>> envelope(np.array([1.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0]), -3.0, 3.0)
        ([1, 2, 0], [-1.0, 1.0])
    """
    at = low
    best = np.flatnonzero(slopes * at + heights >= (slopes * at + heights).max())
    now = int(best[np.argmax(slopes[best])])
    used = [now]
    breaks: list[float] = []
    while True:
        steeper = np.flatnonzero(slopes > slopes[now])
        if not steeper.size:
            return used, breaks
        meets = (heights[now] - heights[steeper]) / (slopes[steeper] - slopes[now])
        at = float(meets.min())
        if at >= high:
            return used, breaks
        first = steeper[meets <= at]
        now = int(first[np.argmax(slopes[first])])
        used.append(now)
        breaks.append(at + 0.0)


def _kind(slopes: list[float]) -> str:
    """Give a name to the shape of two pieces, by the ratio of their slopes."""
    if len(slopes) != 2:
        return "linear" if len(slopes) == 1 else f"{len(slopes)} pieces"
    flat, steep = sorted(slopes, key=abs)
    ratio = flat / steep if steep else 1.0
    if ratio > 0.9:
        return "linear"
    if abs(ratio) < 0.02:
        return "relu"
    return "leaky" if ratio > 0 else "v" if ratio > -0.9 else "abs"
