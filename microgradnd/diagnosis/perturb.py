"""Change one weight a little and watch the loss: a large change, and the weight is influential."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import dropwhile
from math import isfinite, log10, sqrt
from operator import index as whole
from typing import Any

import numpy as np

from ..extras import Drawable
from ..modes import no_grad
from ..nn.module import Module
from ..random import Generator, manual_seed
from ..tape import Tensor
from .evidence import Check, Layer
from .measure import host, pair, sandbox, spread, taken
from .observe import ROWS, batches, clone, measuring, walk
from .tables import bar, number, table

#: Of a loss in float64: relative changes below this are rounding.
ROUNDING = 16 * float(np.finfo(np.float64).eps)
#: Weights whose gradient is checked, on at most so many examples.
CHECKED, CHECKED_ROWS = 20, 128
#: An error of differences above this share of the derivative makes it useless for the check.
USABLE = 1e-4


def double(t: Tensor) -> Tensor:
    """Give floats in float64, anything else as it is."""
    return t.astype("float64") if t.dtype.kind == "f" else t


@contextmanager
def moved(p: Tensor, spot: tuple[int, ...], by: float) -> Iterator[None]:
    """Change one weight meanwhile."""
    before = p.detach().clone()
    with no_grad():
        p[spot or ...] = before[spot or ...] + by
    try:
        yield
    finally:
        with no_grad():
            p.assign_(before)


@dataclass
class Weight:
    """One weight, and what the loss does when it is changed.

    Attributes:
        parameter, index: Which one.
        value: The weight.
        change: L(w + eps) - L(w).
        difference: (L(w + eps) - L(w - eps)) / 2 eps, beside
        gradient: what autograd says.
        resolved: Whether the change is larger than the rounding of the loss, in float64.
    """

    parameter: str
    index: list[int]
    value: float
    change: float
    difference: float
    gradient: float
    resolved: bool

    @property
    def name(self) -> str:
        """The weight as one writes it, `2.weight[3, 0]`."""
        return f"{self.parameter}{self.index if self.index else ''}"


@dataclass
class Stop:
    """How far the change came: RMS of the change of a layer's output, relative to eps too."""

    layer: str
    activation: str
    change: float
    gain: float


@dataclass(repr=False)
class Sensitivity(Drawable):
    """What single weights do to the loss; `plot` draws it, and how the first change travels.

    Attributes:
        loss: Without a change, in float64.
        eps: What was added to each weight.
        weights: The most influential first.
        followed: The name of one, the most influential of those nearest to the input, and
        travel: how its change goes through the layers.
        warnings: What to keep in mind when reading the numbers, as text.
    """

    loss: float
    eps: float
    weights: list[Weight]
    followed: str
    travel: list[Stop]
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        most = max((abs(w.change) for w in self.weights), default=0.0) or 1.0
        rows = [(w.name, w.change, w.difference, w.gradient, bar(abs(w.change) / most))
                for w in self.weights]  # fmt: skip
        texts = [
            f"loss {number(self.loss)}; each weight + {self.eps:g}",
            table(("weight", "change of the loss", "difference", "gradient", ""), rows),
        ]
        steps = [(s.layer, s.activation, s.change, s.gain, _log_bar(s.gain))
                 for s in dropwhile(lambda s: not s.change, self.travel)]  # fmt: skip
        if steps:
            header = ("layer", "activation", "change (RMS)", "by eps", "")
            texts += [f"how the change of {self.followed} travels (bars: 1e-10 to 1)",
                      table(header, steps)]  # fmt: skip
        return "\n".join([*texts, *self.warnings])

    def _canvas(self) -> dict[str, Any]:
        return dict(ncols=2, figsize=(10, 4))

    def _draw(self, pair: Any) -> None:
        """Draw the changes of the loss, and how the first one travels."""
        left, right = pair
        moved = [w for w in self.weights if w.change]
        left.barh([w.name for w in moved], [abs(w.change) for w in moved], log=bool(moved))
        left.invert_yaxis()
        left.set(xlabel=f"|change of the loss|, weight + {self.eps:g}")
        steps = [s for s in self.travel if s.change > 0]
        right.plot([s.layer for s in steps], [s.change for s in steps], "o-")
        right.set(xlabel="layer", ylabel="change of its output (RMS)", title=self.followed)
        if steps:
            right.set_yscale("log")


def _log_bar(gain: float) -> str:
    return bar(1 + log10(gain) / 10) if gain > 0 else ""


def sensitivity(
    model: Any, loss_fn: Any, x: Any, y: Any, parameter: Any = None, index: Any = None,
    eps: float = 1e-3, count: int = 20, seed: int = 0,
) -> Sensitivity:  # fmt: skip
    r"""Change single weights by eps and watch the loss: :math:`\partial L/\partial w` by hand.

    All is computed on a clone in float64, over all rows, without dropout. Where an activation is
    flat, the change dies on its way through the layers, and the loss does not notice.

    Args:
        model: A Module.
        loss_fn: Gives the mean over the batch, of output and target.
        x: Inputs (N, ...), or a tuple of them.
        y: Targets (N, ...).
        parameter: A parameter or its dotted name; None draws weights from all.
        index: Of the weight within the parameter, a tuple, or a number if it has one axis, counted
            as NumPy does; None takes all, or draws some.
        eps: What is added to the weight, not 0.
        count: How many weights are tried.
        seed: Of the draw.

    Raises:
        IndexError: If the parameter has no weight at that index.
        KeyError: If the model has no such parameter.
        TypeError: If the model is no Module.
        ValueError: If eps is 0 or not finite, or for an index without a parameter.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Linear(2, 1, bias=False)
        >>> with mg.no_grad():
        ...     _ = net.weight.assign_([[1.0, 2.0]])
        >>> x, y = mg.tensor([[1.0, 0.0], [0.0, 3.0]]), mg.zeros((2, 1))
        >>> found = mg.diagnosis.sensitivity(net, mg.mse, x, y, eps=0.5)
        >>> [(w.name, w.change, w.difference, w.gradient) for w in found.weights]
        [('weight[0, 1]', 10.125, 18.0, 18.0), ('weight[0, 0]', 0.625, 1.0, 1.0)]
    """
    if not isinstance(model, Module):
        raise TypeError(f"sensitivity: a Module is wanted, got {type(model).__name__}")
    if not eps or not isfinite(eps):
        raise ValueError(
            f"sensitivity: eps={eps} changes no weight; a small number such as 1e-3 is wanted"
        )
    inputs, target = pair((*(x if isinstance(x, tuple) else (x,)), y), "(x, y)", model)
    names: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.size}
    chosen = _choose(names, parameter, index, count, seed)
    with sandbox(model):
        copy = measuring(clone(model)).to("float64").requires_grad_()
        copy.zero_grad()
        xs, target, n = tuple(map(double, inputs)), double(target), len(target)

        def mean(backward: bool = False) -> float:
            """Give the mean loss over all rows, and leave its gradients if asked to."""
            manual_seed(0)  # a loss that draws numbers draws the same ones
            total = 0.0
            for rows in batches(n, ROWS):
                share = (rows.stop - rows.start) / n
                part = loss_fn(copy(*(x[rows] for x in xs)), target[rows])
                total += part.item() * share
                if backward and part.requires_grad:
                    (part * share).backward()
            return total

        def at(p: Tensor, spot: tuple[int, ...], by: float) -> float:
            with moved(p, spot, by), no_grad():
                return mean()

        loss, own, weights = mean(backward=True), dict(copy.named_parameters()), []
        for name, spot in chosen:
            p = own[name]
            up, down = at(p, spot, eps), at(p, spot, -eps)
            gradient = 0.0 if p.grad is None else float(p.grad[spot or ...].item())
            weights.append(Weight(
                name, list(spot), p.detach()[spot or ...].item(), up - loss,
                (up - down) / (2 * eps), gradient, abs(up - loss) > ROUNDING * abs(loss),
            ))  # fmt: skip
        weights.sort(key=lambda w: -abs(w.change))
        first = min(weights, key=lambda w: [*names].index(w.parameter))
        travel = _travel(copy, xs, own[first.parameter], tuple(first.index), eps)
    dtype = names[first.parameter].dtype
    return Sensitivity(loss, eps, weights, first.name, travel, _warnings(weights, loss, dtype))


def _choose(
    names: dict[str, Tensor], parameter: Any, index: Any, count: int, seed: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Give names and indices of the weights that are tried."""
    if parameter is not None:
        found = [n for n, p in names.items() if n == parameter or p is parameter]
        if not found:
            raise KeyError(f"sensitivity: the model has no parameter {parameter!r}; it has "
                           f"{[*names]}")  # fmt: skip
        names = {found[0]: names[found[0]]}
        if index is not None:
            spot = tuple(map(whole, index if isinstance(index, (tuple, list)) else (index,)))
            shape = names[found[0]].shape
            fits = len(spot) == len(shape)
            if not fits or not all(-n <= i < n for i, n in zip(spot, shape, strict=True)):
                raise IndexError(
                    f"sensitivity: {found[0]} has the shape {shape}, which the index {spot} is out "
                    f"of; {len(shape)} numbers are wanted, each below the size of its axis"
                )
            return [(found[0], tuple(i % n for i, n in zip(spot, shape, strict=True)))]
    elif index is not None:
        raise ValueError("sensitivity: an index is one of a parameter; say which")
    ends = np.cumsum([p.size for p in names.values()])
    total = int(ends[-1])
    drawn: Any = range(total)
    if total > count:
        drawn = Generator(seed).integers(0, total, 4 * count).tolist()
    chosen = []
    for place in list(dict.fromkeys(drawn))[:count]:
        which = int(np.searchsorted(ends, place, side="right"))
        name = list(names)[which]
        within = place - (int(ends[which - 1]) if which else 0)
        chosen.append((name, tuple(int(i) for i in np.unravel_index(within, names[name].shape))))
    return chosen


def _travel(model: Any, inputs: Any, p: Tensor, spot: tuple[int, ...], eps: float) -> list[Stop]:
    """Follow a change of a weight through the layers."""

    def outputs() -> list[tuple[int, Layer, Any]]:
        return [(seen.number, seen.layer, host(seen.a))
                for watcher, *_ in walk(model, inputs) for seen in watcher.seen]  # fmt: skip

    before = outputs()
    with moved(p, spot, eps):
        after = outputs()
    changes: dict[int, tuple[Layer, float, int]] = {}
    for (i, layer, a), (_, _, b) in zip(before, after, strict=True):
        _, square, size = changes.get(i, (layer, 0.0, 0))
        changes[i] = (layer, square + float(((b - a) ** 2).sum()), size + a.size)
    sizes = [(layer, sqrt(square / size)) for _, (layer, square, size) in sorted(changes.items())
             if size]  # fmt: skip
    return [Stop(layer.name, layer.activation, c, c / abs(eps)) for layer, c in sizes]


def _warnings(weights: list[Weight], loss: float, dtype: Any) -> list[str]:
    """Say which changes are smaller than what a float can tell."""
    hidden = sum(not w.resolved for w in weights)
    found = []
    if hidden:
        found.append(f"{hidden} of {len(weights)} changes are rounding, even in float64: the loss "
                     "does not notice these weights; a larger eps may show more")  # fmt: skip
    step = float(np.finfo(dtype).eps) * abs(loss)
    lost = sum(w.resolved and abs(w.change) < step for w in weights)
    if lost and dtype != np.float64:
        found.append(f"{lost} of {len(weights)} changes would be lost in the rounding of a {dtype} "
                     f"loss ({number(step)})")  # fmt: skip
    return found


# ---------------------------------------------------------------------------- gradient check


def gradient_check(
    model: Any, loss_fn: Any, inputs: Any, target: Any, seed: int = 0, unit: float = 0.0
) -> Check:
    r"""Compare autograd with :math:`(L(w + h) - L(w - h)) / 2h` at single weights, in float64.

    Weights are drawn from all parameters in turn. One is left out whose difference says nothing: it
    is too small beside rounding, two step sizes disagree, or there is a kink. `unit` is a loss of
    usual size, whose rounding a loss near 0 still has.
    """
    if not isinstance(model, Module):
        return Check()
    rows = spread(len(target), CHECKED_ROWS) if len(target) > 1 else np.zeros(2, np.int64)
    *xs, y = map(double, taken((*inputs, target), rows))
    copy = measuring(clone(model))
    copy.zero_grad()
    try:
        with sandbox(copy, seed):
            copy.to("float64").requires_grad_()
            return _compare(copy, lambda: loss_fn(copy(*xs), y), seed, unit)
    except (TypeError, ValueError):  # something that takes no float64
        return Check()


def _compare(model: Any, loss: Any, seed: int, unit: float) -> Check:
    def value() -> float:
        manual_seed(seed)  # a loss that draws numbers draws the same ones
        with no_grad():
            return float(loss().item())

    manual_seed(seed)
    now = loss()
    if not now.requires_grad or not np.isfinite(now.item()):
        return Check()
    now.backward()
    named = [(name, p) for name, p in model.named_parameters() if p.size]
    # Without a gradient nobody reaches it: another finding says so.
    reached = [(name, p) for name, p in named if p.grad is not None]
    check, worst, draw = Check(), -1.0, Generator(seed)
    for name, p in (reached[i] for i in spread(len(reached), CHECKED)):
        g = host(p.grad).reshape(-1)
        places = draw.integers(0, p.size, -(-CHECKED // len(named))).tolist()
        places[0] = int(np.abs(g).argmax())  # the steepest, and others
        for place in dict.fromkeys(places):
            slope, numeric = float(g[place]), _difference(p, place, value, unit)
            if numeric is not None:
                size = max(abs(slope), abs(numeric))
                error = abs(slope - numeric) / size if size else 0.0
                check.checked += 1
                if error > worst:
                    check.worst, check.parameter, worst = error, name, error
    return check


def _difference(p: Tensor, place: int, value: Any, unit: float) -> float | None:
    """Differentiate numerically by one weight; None if the result would not be worth anything."""
    spot = tuple(map(int, np.unravel_index(place, p.shape))) if p.ndim else ()
    weight = float(host(p).reshape(-1)[place])

    def at(shift: float) -> float:
        with moved(p, spot, shift):
            return float(value())

    h = 2.0**-13 * max(2.0 ** np.ceil(np.log2(max(abs(weight), 1e-3))), 2.0**-6)
    middle = value()
    ups, downs = zip(*((at(s), at(-s)) for s in (h, h / 2)), strict=True)
    whole, half = (ups[0] - downs[0]) / (2 * h), (ups[1] - downs[1]) / h
    slope = half + (half - whole) / 3
    # A loss near 0 is a difference of numbers of the size that losses have (`unit`) at first.
    noise = 1e-15 * max(abs(middle), unit if isfinite(unit) else 0.0) / h
    bends = [abs(u - 2 * middle + d) / s for u, d, s in zip(ups, downs, (h, h / 2), strict=True)]
    kink = bends[1] > 0.75 * bends[0] and bends[1] > USABLE * abs(slope) + noise
    doubt = abs(half - whole) + noise
    if kink or not np.isfinite(slope) or doubt > USABLE * abs(slope):
        return None
    return float(slope)
