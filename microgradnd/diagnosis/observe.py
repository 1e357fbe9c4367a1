"""Looking at a network while it computes: its layers are found on the tape, whatever its classes.

A layer is a weight: a leaf of two or more axes that goes into a product (`linear`, `matmul`,
`einsum`, a convolution). z is what comes of the product after bias and normalization, a = f(z), and
f the next nonlinear operation on z. So a `Sequential`, a class with activations written into its
`forward`, and a plain function are seen alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from math import log, nan, sqrt
from typing import Any
from weakref import ref

import numpy as np

from ..backend import of
from ..functions import asarray
from ..modes import MODE, Switch, enable_grad, no_grad
from ..nn.module import NONE, Module
from ..random import default_generator
from ..tape import Node, Tensor, raw, reverse, wrap
from .evidence import BINS, Layer, LayerState, Sample

#: Products whose operand may be a layer's weight.
PRODUCTS = frozenset({"linear", "matmul", "einsum", "conv"})
#: What z may go through on its way to the activation: bias, normalization, another shape, pooling.
CARRIERS = frozenset({
    "add", "subtract", "multiply", "divide", "standardize", "reshape", "expand_dims", "squeeze",
    "transpose", "swapaxes", "moveaxis", "astype", "clone", "identity", "broadcast_to",
    "dropout", "max_pool",
})  # fmt: skip
#: Elementwise operations that are no activation: they are there to compute something else.
NOT_ACTIVATIONS = frozenset({"negative", "positive", "power", "square"})
#: The largest slope of the activations that are flat at both ends.
STEEPEST = {
    "sigmoid": 0.25, "tanh": 1.0, "softsign": 1.0, "hard_sigmoid": 1 / 6, "hard_tanh": 1.0,
    "erf": 2 / sqrt(np.pi), "arctan": 1.0,
}  # fmt: skip
#: Rows at a time.
ROWS = 256
#: Below this share of the steepest slope a value counts as saturated (sigmoid: |z| > 5).
FLAT = 0.027


class Seen:
    """One use of a layer in one forward pass: tensors z and a, and raw arrays beside them.

    Attributes:
        layer: What is known of the layer.
        number: Its place among the layers.
        z, a: Tensors.
        axis: Where z has its units: 1 (channels) of a convolution, else the last axis.
        slope: f'(z) as a raw array, units along the last axis; None without activation.
        winner: Of a Maxout: index of the winning piece per group, its groups along the last axis.
        pieces: Of a Maxout: z with groups and pieces as its last two axes.
        delta: dL/dz (of a Maxout dL/da), a raw array, as soon as backward was there.
        slopes: As of a `LayerState`.
    """

    __slots__ = (
        "__weakref__", "a", "axis", "delta", "layer", "number", "pieces", "slope", "slopes",
        "winner", "z",
    )  # fmt: skip

    def __init__(self, layer: Layer, number: int, z: Tensor, axis: int = -1):
        self.layer, self.number, self.z, self.a, self.axis = layer, number, z, z, axis
        self.slope: Any = None
        self.winner: Any = None
        self.pieces: Any = None
        self.delta: Any = None
        self.slopes: list[float] = []

    def listen(self) -> None:
        """Note the gradient when a reverse pass comes, and now what it will free."""
        self.slopes = learned(self.a._node)
        tensor = self.a if self.pieces is not None else self.z
        seen = ref(self)  # the node holds the hook, and we hold the node

        def note(gradient: Tensor) -> None:
            if (me := seen()) is not None:
                me.delta = gradient._array

        if tensor._node is not None:
            tensor.register_hook(note)


class Watcher:
    """A watcher of the tape that finds layers: `with Switch(watch=watcher):` around a forward pass.

    Args:
        model: Whose parameters give the layers their names; None, or a function, has none.

    Attributes:
        layers: The layers in the order of their first use, over all passes.
        seen: What was seen in this pass; `forget()` begins another.
        tallies: The sums of each layer, by its number.
    """

    def __init__(self, model: Any = None):
        named = model.named_parameters() if hasattr(model, "named_parameters") else ()
        self.parameters: dict[str, Tensor] = dict(named)
        self.names = {p._node.serial: n for n, p in self.parameters.items() if p._node is not None}
        self.tallies: dict[int, Tally] = {}
        self.layers: list[Layer] = []
        self.weights: list[Tensor | None] = []
        self.numbers: dict[int, int] = {}  # serial of a weight -> number of its layer
        self.outer: Any = None
        self.forget()

    def forget(self) -> None:
        """Begin a new pass; the layers stay known."""
        self.seen: list[Seen] = []
        self.on_weights: dict[int, int] = {}  # serial of a node -> serial of the weight it views
        self.carried: dict[int, list[Seen]] = {}  # serial of a node -> whose z it is

    def listen(self) -> None:
        """When the forward pass is over: note the gradients of the reverse pass to come."""
        for seen in self.seen:
            seen.listen()
        if self.layers:
            for i, layer in enumerate(self.layers):
                layer.output = i == len(self.layers) - 1

    def tally(self, seen: Iterable[Seen]) -> None:
        """Add uses to the sums of their layers."""
        for use in seen:
            self.tallies.setdefault(use.number, Tally(use.layer)).add(use)

    # --- what the engine tells

    def gradient(self, node: Node, g: Any) -> None:
        """Pass on; the gradients that count here come by hooks."""
        if self.outer is not None:
            self.outer.gradient(node, g)

    def record(
        self, node: Node, operands: Any, result: Any, residuals: Any, attrs: Any = None
    ) -> None:
        """Sort a step: a product with a weight, something that carries z, or an activation."""
        if self.outer is not None:
            self.outer.record(node, operands, result, residuals, attrs)
        if not isinstance(result, Tensor):
            return
        name, parents = node.op.name, [p for p in node.parents if p is not None]
        weights = [self._weight(p, len(node.shape)) for p in parents]
        if name in PRODUCTS:
            found = [(w, p) for w, p in zip(weights, parents, strict=True) if w is not None]
            if len(found) == 1:  # of two weights none is a layer's: it is a product of parameters
                self._product(*found[0], operands, result)
            return
        if len(parents) == 1 and weights[0] is not None:  # a view of a weight, W.T for one
            if name in CARRIERS:
                self.on_weights[node.serial] = weights[0]
            return
        carried = [s for p in parents for s in self.carried.get(p.serial, ())]
        if not carried:
            return
        if name in CARRIERS:
            for seen in carried:
                if seen.slope is None and seen.pieces is None:  # no side branch of an activation
                    seen.z = seen.a = result
            self.carried[node.serial] = carried
        elif name == "maxout":
            self._maxout(carried, operands[0], result, residuals[0], attrs or {})
        elif node.op.elementwise and name not in NOT_ACTIVATIONS:
            self._activation(carried, node, result)

    def _weight(self, node: Node, axes: int) -> int | None:
        """Give the serial of the weight that a node is, or is a view of."""
        if node.serial in self.on_weights:
            return self.on_weights[node.serial]
        known = node.serial in self.names or not self.names
        return node.serial if node.op is None and len(node.shape) > 1 and known else None

    def _product(self, weight: int, node: Node, operands: Any, result: Tensor) -> None:
        made: Any = result._node
        axis = 1 if made.op.name == "conv" else -1
        units = result.shape[axis] if result.ndim else 1
        if weight not in self.numbers:
            self.numbers[weight] = number = len(self.layers)
            name = self.names.get(weight, f"weight_{number}")
            place = name.rpartition(".")[0] or name
            self.layers.append(Layer(place, name, units=units))
            tensor = next((x for x in operands if getattr(x, "_node", None) is node), None)
            self.weights.append(tensor)
            self.layers[number].fan_in = _fan_in(tensor, units if result.ndim else 0)
        number = self.numbers[weight]
        seen = Seen(self.layers[number], number, result, axis)
        self.seen.append(seen)
        self.carried[made.serial] = [seen]

    def _activation(self, carried: list[Seen], node: Node, result: Tensor) -> None:
        with no_grad():
            pulled = node.op.pull(node, of(result._array).xp.ones_like(result._array),
                                  of(result._array).xp, False)  # fmt: skip
        for seen in carried:
            if seen.slope is None and seen.pieces is None:
                seen.layer.activation = node.op.name
                seen.a = result
                z = seen.z._node
                slope = next((g for p, g in pulled if p is z), None)
                if slope is not None and seen.axis == 1 and slope.ndim > 2:
                    slope = of(slope).xp.moveaxis(slope, 1, -1)
                seen.slope = slope
        # What z is used for afterwards (x * sigmoid(x)) is no other activation of it.

    def _maxout(
        self, carried: list[Seen], z: Any, result: Tensor, winner: Any, attrs: dict[str, Any]
    ) -> None:
        axis, k = attrs.get("axis", -1), attrs["pieces"]
        array = raw(z)
        xp = of(array).xp
        last = xp.moveaxis(array, axis, -1)
        grouped = xp.reshape(last, (*last.shape[:-1], last.shape[-1] // k, k))
        for seen in carried:
            if seen.slope is None and seen.pieces is None:
                seen.layer.activation, seen.layer.pieces = "maxout", k
                seen.layer.units = grouped.shape[-2]
                seen.a, seen.pieces, seen.winner = result, grouped, winner


def _fan_in(weight: Tensor | None, units: int) -> int:
    """Count the inputs of one unit: `linear` has (out, in), a product with W has (in, out)."""
    return weight.size // units if weight is not None and units and not weight.size % units else 0


# ------------------------------------------------------------------------------------ numbers


def rms(x: Any) -> float:
    """Give the root of the mean square; right for numbers whose squares would underflow."""
    x = np.asarray(x)
    if not x.size:
        return nan
    if x.dtype.char in "fd":  # quick, and right to the fifth digit, unless squares are tiny or huge
        flat = x.reshape(-1)
        with np.errstate(all="ignore"):
            mean = float(np.dot(flat, flat)) / x.size
        if 1e-24 < mean < 1e24:
            return sqrt(mean)
    largest = float(np.max(np.abs(x)))
    if not largest or not np.isfinite(largest):
        return largest
    scaled = x.astype(np.float64) / largest
    return largest * sqrt(float(np.mean(scaled * scaled)))


class Tally:
    """Sums up one layer over uses and batches; everything is computed on the host, in float64."""

    def __init__(self, layer: Layer):
        self.layer = layer
        self.count = self.rows = 0
        self.sums = dict.fromkeys(("a", "aa", "z", "zz", "zeros", "slope", "flat"), 0.0)
        self.sloped = 0  # values with a known slope
        self.delta, self.deltas = 0.0, 0  # of squares
        self.alive: Any = None
        self.low = self.high = nan
        self.counts = np.zeros(BINS, np.int64)
        self.wins: Any = None
        self.ties = self.groups = 0
        self.slopes: list[float] = []

    def add(self, seen: Seen) -> None:
        """Add one use. Its gradient is that of a mean; times the rows it is that of one example."""
        host = of(seen.a._array).to_numpy
        self.slopes = seen.slopes
        a = host(seen.a._array).astype(np.float64)
        z = a if seen.z is seen.a else host(seen.z._array).astype(np.float64)
        self.count += a.size
        with np.errstate(all="ignore"):
            for name, value in (("a", a), ("z", z)):
                # A Maxout has more numbers in z than in a; both are means.
                self.sums[name] += float(value.mean()) * a.size if value.size else 0.0
                self.sums[name * 2] += float((value * value).mean()) * a.size if value.size else 0.0
            self.sums["zeros"] += float((a == 0).sum())
            self._histogram(a)
            if seen.slope is not None:
                self._slopes(np.abs(host(seen.slope).astype(np.float64)))
            if seen.pieces is not None:
                self._pieces(host(seen.pieces), host(seen.winner))
        if seen.delta is not None:
            delta = host(seen.delta)
            size = rms(delta) * (len(delta) if delta.ndim else 1)
            self.delta += size**2 * delta.size if delta.size else 0.0
            self.deltas += delta.size

    def _histogram(self, a: Any) -> None:
        """Count values in bins; the first batch says which, what lies outside goes to the ends."""
        good = a[np.isfinite(a)]
        if not good.size:
            return
        if self.low != self.low:
            self.low, self.high = float(good.min()), float(good.max())
        width = (self.high - self.low) / BINS
        bins = ((good - self.low) / width if width else np.zeros(good.shape)).clip(0, BINS - 1)
        self.counts += np.bincount(bins.astype(np.int64).ravel(), minlength=BINS)

    def _slopes(self, slope: Any) -> None:
        self.sloped += slope.size
        self.sums["slope"] += float(slope.sum())
        steepest = STEEPEST.get(self.layer.activation)
        if steepest:
            self.sums["flat"] += float((slope < FLAT * steepest).sum())
        rows = slope.reshape(-1, slope.shape[-1]) if slope.ndim else slope.reshape(1, 1)
        alive = (rows != 0).any(axis=0)
        self.alive = alive if self.alive is None else self.alive | alive

    def _pieces(self, pieces: Any, winner: Any) -> None:
        k = pieces.shape[-1]
        groups = pieces.shape[-2]
        self.sloped += winner.size
        self.sums["slope"] += winner.size
        flat = winner.reshape(-1, groups).astype(np.int64)
        counted = np.bincount((np.arange(groups) * k + flat).ravel(), minlength=groups * k)
        wins = counted.reshape(groups, k)
        self.wins = wins if self.wins is None else self.wins + wins
        best = pieces.max(axis=-1, keepdims=True)
        self.ties += int(((pieces == best).sum(axis=-1) > 1).sum())
        self.groups += winner.size

    def state(self, weight: Any = None, gradient: Any = None, bias: Any = None) -> LayerState:
        """Give the numbers; weight, its gradient and the bias are raw arrays, if known."""
        n = max(self.count, 1)
        sums = {name: value / n for name, value in self.sums.items()}
        state = LayerState(
            delta=sqrt(self.delta / self.deltas) if self.deltas else nan,
            mean=sums["a"], std=sqrt(max(sums["aa"] - sums["a"] ** 2, 0.0)),
            z_mean=sums["z"], z_std=sqrt(max(sums["zz"] - sums["z"] ** 2, 0.0)),
            zeros=sums["zeros"], low=self.low, high=self.high, counts=self.counts.tolist(),
            slopes=self.slopes,
        )  # fmt: skip
        if self.sloped:
            state.slope = self.sums["slope"] / self.sloped
            state.saturated = self.sums["flat"] / self.sloped
        else:
            state.slope, state.saturated = 1.0, 0.0
        state.dead = 0.0 if self.alive is None else float(1 - self.alive.mean())
        if self.wins is not None:
            share = self.wins / max(self.wins[0].sum(), 1)
            state.wins = (self.wins.sum(axis=0) / max(self.wins.sum(), 1)).tolist()
            with np.errstate(all="ignore"):
                terms = np.where(share > 0, -share * np.log(share), 0.0)
            k = self.wins.shape[1]
            state.entropy = float(terms.sum(axis=1).mean()) / log(k) if k > 1 else 0.0
            state.unused = float((self.wins == 0).mean())
            state.single = float(((self.wins > 0).sum(axis=1) == 1).mean())
            state.ties = self.ties / max(self.groups, 1)
        if weight is not None:
            weight = of(weight).to_numpy(weight)
            state.weight = rms(weight)
            state.same = alike(weight, None if bias is None else of(bias).to_numpy(bias),
                               self.layer.fan_in)  # fmt: skip
        if gradient is not None:
            gradient = of(gradient).to_numpy(gradient)
            state.gradient = rms(gradient)
            state.gradient_zeros = float((gradient == 0).mean()) if gradient.size else nan
        return state


def alike(weight: Any, bias: Any, fan_in: int) -> float:
    """Give the share of units that have the same incoming weights and bias as another one.

    Two projections of each unit's weights are compared: equal units have equal projections, and
    different ones have not, but for chance.
    """
    if not fan_in or weight.size < fan_in or not np.isfinite(weight).all():
        return nan
    first = weight.ndim > 1 and weight.shape[0] * fan_in == weight.size
    rows = (weight if first else np.moveaxis(weight, -1, 0)).reshape(-1, fan_in).astype(np.float64)
    if len(rows) < 2:
        return 0.0
    if bias is not None and bias.size == len(rows):
        rows = np.concatenate([rows, bias.reshape(-1, 1)], axis=1)
    turn = np.arange(rows.shape[1]) + 1.0
    seen = rows @ np.stack([np.cos(turn * 1.7), np.sin(turn * 2.3)], axis=1)
    near = 1e-6 * rms(rows) * sqrt(rows.shape[1])
    order = np.argsort(seen[:, 0], kind="stable")
    close = (np.abs(np.diff(seen[order], axis=0)) <= near).all(axis=1)
    twin = np.zeros(len(rows), bool)
    twin[order[1:]] |= close
    twin[order[:-1]] |= close
    return float(twin.mean())


def learned(node: Node | None) -> list[float]:
    """Give least, mean and largest slope of the PReLU that made a node; [] for anything else."""
    if node is None or node.op is None or node.op.name != "prelu":
        return []
    slope = next((p for p in node.parents[1:] if p is not None), None)
    kept = dict(zip(node.op.needs, node.kept, strict=False)) if slope is not None else {}
    array = kept.get("slope")
    if array is None or not hasattr(array, "dtype"):
        return []
    host = of(array).to_numpy(array).astype(np.float64)
    return [float(host.min()), float(host.mean()), float(host.max())]


# ------------------------------------------------------------------------------------ sandbox


def clone(model: Any) -> Any:
    """Give a deep copy of a model without its hooks; a function is given as it is."""
    if not isinstance(model, Module):
        return model
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:  # a result somebody has kept
                memo[id(value)] = value.detach()
        for hooks in (module._before, module._after):
            memo[id(hooks)] = NONE
    return copy.deepcopy(model, memo)


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Put modes, buffers and the default generator back at the end, as they were."""
    modules = list(model.modules()) if isinstance(model, Module) else []
    modes = [(m, m.training) for m in modules]
    buffers = [(b, b._array.copy()) for m in modules for b in m.buffers()]
    generator = default_generator()
    state = dict(generator.state)
    try:
        yield
    finally:
        generator.state = state
        for module, training in modes:
            if module.training != training:
                module.training = training
        with no_grad():
            for buffer, array in buffers:
                buffer._array[...] = array


def measuring(model: Any) -> Any:
    """Set modes for a look at a clone: no dropout, but batch statistics where there are any.

    In eval mode a normalization that was not trained yet would not normalize.
    """
    if isinstance(model, Module):
        model.eval()
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.training = True
    return model


def batches(n: int, size: int) -> list[slice]:
    """Cut n rows into parts of nearly one size, none of a single row (if n is larger)."""
    parts = max(-(-n // max(size, 2)), 1)
    edges = [round(i * n / parts) for i in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def look(
    model: Any, loss_fn: Any, inputs: Any, target: Any = None, batch: int = ROWS,
) -> tuple[list[Layer], Sample]:  # fmt: skip
    """Measure every layer on all given rows, forward and (with a loss) backward, on a clone.

    Args:
        model: A Module (cloned), or a function (called as it is).
        loss_fn: Gives the mean over the batch, of output and target; None: forward only.
        inputs: An array or Tensor (N, ...), or a tuple of them.
        target: (N, ...).
        batch: Rows at a time.

    Returns:
        The layers, and a `Sample` with their states; its `loss` is the mean over all rows.
    """
    y = None if loss_fn is None or target is None else asarray(target)
    total, examples = 0.0, 0
    gradients: dict[int, Any] = {}
    for seen, rows, share, output in walk(model, inputs, batch=batch):
        watcher, examples = seen, rows.stop
        loss = None if y is None else loss_fn(output, y[rows])
        total += nan if loss is None else loss.item() * share
        if loss is not None and loss._node is not None:
            one = wrap(of(loss._array).xp.ones_like(loss._array))
            for leaf, g in reverse([(loss._node, one)], taped=False, free=True):
                gradients[leaf.serial] = gradients.get(leaf.serial, 0.0) + g._array * share
    states = []
    for number, (layer, weight) in enumerate(zip(watcher.layers, watcher.weights, strict=True)):
        node = getattr(weight, "_node", None)
        gradient = None if node is None else gradients.get(leaf_of(node))
        bias = raw(watcher.parameters.get(layer.bias))
        states.append(watcher.tallies[number].state(raw(weight), gradient, bias))
    return watcher.layers, Sample(loss=total, examples=examples, layers=states)


def walk(
    model: Any, inputs: Any, watch: Any = Watcher, batch: int = ROWS
) -> Iterator[tuple[Any, slice, float, Any]]:
    """Run all rows through a clone: gives its watcher and the rows, share and output of each part.

    When the next part comes, what was seen is added to the watcher's tallies.
    """
    xs = tuple(map(asarray, inputs if isinstance(inputs, tuple) else (inputs,)))
    with untouched(model), enable_grad():
        copied = measuring(clone(model))
        if isinstance(copied, Module):
            copied.requires_grad_()
        watcher = watch(copied)
        for rows in batches(len(xs[0]), batch):
            watcher.forget()
            with watching(watcher):
                output = copied(*(x[rows] for x in xs))
            watcher.listen()
            yield watcher, rows, (rows.stop - rows.start) / max(len(xs[0]), 1), output
            watcher.tally(watcher.seen)


def survey(model: Any, inputs: Any, watch: Any = Watcher) -> Any:
    """Run all rows through a clone, and give what watched them."""
    return [watcher for watcher, *_ in walk(model, inputs, watch)][-1]


def ancestors(root: Node, since: int = 0) -> dict[int, Node]:
    """Give a node and what it was made of, by serial; what is as old as `since` ends the search."""
    found, todo = {root.serial: root}, [root]
    while todo:
        node = todo.pop()
        for parent in node.parents if node.serial > since else ():
            if parent is not None and parent.serial not in found:
                found[parent.serial] = parent
                todo.append(parent)
    return found


def leaf_of(node: Node) -> int:
    """Give the serial of the leaf that a node is a view of."""
    while node.op is not None:
        node = next(p for p in node.parents if p is not None)
    return node.serial


def flatten(output: Any) -> list[Tensor]:
    """Give the tensors in what a model gave: a tensor, or tuples, lists and dicts of them."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in flatten(part)]
    return []


def watching(watcher: Watcher) -> Switch:
    """Give the mode switch that installs a watcher inside of another one, if there is one."""
    watcher.outer = MODE.get().watch
    return Switch(watch=watcher)
