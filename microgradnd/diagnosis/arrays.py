"""The diagnosis of networks that another framework trained: recorded arrays in, a report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, log, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from ..functions import asarray
from ..registry import REGISTRY
from ..transforms import vjp
from .evidence import Evidence, Layer, LayerState, Plan, Sample, Score
from .observe import Seen, Tally, rms
from .rules import decide

if TYPE_CHECKING:
    from .report import Report
    from .thresholds import Thresholds

__all__ = ["diagnose_arrays"]

#: What may be given of every layer.
PARTS = ("activations", "preactivations", "deltas", "weights", "gradients", "updates")


def diagnose_arrays(
    *, init: Mapping[str, Sequence[Any]] | None = None,
    now: Mapping[str, Sequence[Any]] | None = None, activation: str | Sequence[str] = "relu",
    names: Sequence[str] | None = None, losses: Sequence[float] = (),
    train: float | Sequence[float] = (), test: float | Sequence[float] = (),
    train_losses: Sequence[float] = (), test_losses: Sequence[float] = (), n_train: int = 0,
    n_test: int = 0, classes: int = 0, chance: float = nan, constant: float = nan,
    target: float = nan, steps: int = 0, rate: float = nan, lang: str = "en",
    thresholds: Thresholds | None = None,
) -> Report:  # fmt: skip
    """Diagnose a network from recorded arrays, whatever trained it. Everything is optional.

    `init` and `now` say what the layers looked like before the first step and after the last one.
    Each is a dict of lists with one array (NumPy's, or nested lists) per layer, in the order of
    execution, the output layer last; where an array is unknown, None. N examples, as many as
    possible, best the whole training set:

    - `"preactivations"`: z (N, units), before the activation; of a Maxout (N, units * pieces) with
      the pieces of a group side by side, and `"activations"` are needed, too;
    - `"activations"`: a = f(z) (N, units); without z, dead and saturated units are seen of ReLU,
      sigmoid and tanh only;
    - `"deltas"`: dL/dz (N, units), of a Maxout dL/da; in any unit, as long as it is one for all;
    - `"weights"`, `"gradients"`: W and dL/dW, (units, inputs) or (inputs, units);
    - `"updates"`: what a step added to W. In `now` of a late step; better a list of arrays from
      several steps, in place of one array.

    Args:
        init: Before training.
        now: After it.
        activation: The name of f (`"relu"`, `"maxout"`, ...), or one per layer; that of the last
            layer is not looked at.
        names: Of the layers, for the report.
        losses: Of the steps.
        train: Training metric at the end, or after every epoch. Accuracy if `classes` > 1, else R2.
        test: The same of the test set.
        train_losses: Loss on the training set after every epoch.
        test_losses: Loss on the test set after every epoch.
        n_train: Examples in the training set.
        n_test: Examples in the test set.
        classes: How many there are; 0: a regression.
        chance: Metric of the best constant output; NaN: 1 / classes, or 0.
        constant: Its loss; NaN: ln(classes), which is that of a cross-entropy.
        target: The training metric that is wanted.
        steps: Of the optimizer; 0: as many as `losses`.
        rate: The learning rate.
        lang: Of the report, `"en"` or `"zh"`.
        thresholds: What numbers are compared with.

    Returns:
        A `Report`.

    Raises:
        TypeError: If `thresholds` are no `Thresholds`.
        ValueError: If a part has an unknown name, or lists differ in length.

    Example:
        >>> deltas = [[[1e-5, 2e-5]], [[1e-3, 2e-3]], [[0.1, 0.2]], [[0.3]]]
        >>> before = {"deltas": deltas, "preactivations": [[[0.1, -0.1]]] * 3 + [[[0.0]]]}
        >>> report = diagnose_arrays(init=before, activation="sigmoid", train=0.1, classes=10)
        >>> report.findings[0].code
        'VANISHING'
    """
    from .examination import limits_of
    from .report import Report  # it draws, and is not needed for the numbers

    kind = "classification" if classes > 1 else "regression"
    metrics = [_series(train), _series(test)]
    parts = [_check(part, who) for part, who in ((init, "init"), (now, "now"))]
    count = max((len(p) for part in parts for p in part.values()), default=0)
    layers = _layers(count, activation, names)
    evidence = Evidence(
        task=kind, metric="accuracy" if classes > 1 else "r2", classes=max(classes, 0),
        chance=chance if isfinite(chance) else 1 / classes if classes > 1 else 0.0,
        constant=constant if isfinite(constant) else log(classes) if classes > 1 else nan,
        target=target, layers=layers, losses=[float(v) for v in losses],
        loss_steps=list(range(len(losses))),
        train=Score(n_train, _last(train_losses, losses), _last(metrics[0])),
        plan=Plan(steps=steps or len(losses), options={"lr": rate} if isfinite(rate) else {}),
    )  # fmt: skip
    if metrics[1] or len(test_losses):
        evidence.test = Score(n_test, _last(test_losses), _last(metrics[1]))
    if init:
        evidence.init = Sample(0, 0.0, rate, _first(losses), layers=_states(layers, parts[0]))
        evidence.samples.append(evidence.init)
    if now:
        evidence.now = Sample(steps or len(losses), layers=_states(layers, parts[1]))
    evidence.samples += _samples(evidence, metrics, train_losses, test_losses)
    limits = limits_of(thresholds)
    return Report(decide(evidence, limits), evidence, limits, lang)


def _series(value: float | Sequence[float]) -> list[float]:
    return [float(v) for v in np.atleast_1d(np.asarray(value, float))]


def _first(values: Sequence[float]) -> float:
    return float(values[0]) if len(values) else nan


def _last(*series: Sequence[float]) -> float:
    return next((float(values[-1]) for values in series if len(values)), nan)


def _check(part: Mapping[str, Sequence[Any]] | None, who: str) -> Mapping[str, Sequence[Any]]:
    part = part or {}
    for name in part:
        if name not in PARTS:
            raise ValueError(f"{who}: {name!r} is none of {', '.join(PARTS)}")
    lengths = {name: len(arrays) for name, arrays in part.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{who}: each list needs one entry per layer, None if unknown: {lengths}")
    return part


def _layers(
    count: int, activation: str | Sequence[str], names: Sequence[str] | None
) -> list[Layer]:
    kinds = [activation] * count if isinstance(activation, str) else list(activation)
    kinds += ["none"] * (count - len(kinds))
    if len(kinds) > count or (names is not None and len(names) != count):
        raise ValueError(f"there are arrays of {count} layers; activation and names have to fit")
    if kinds:
        kinds[-1] = "none"
    return [
        Layer(names[i] if names else str(i), activation=kind, output=i == count - 1)
        for i, kind in enumerate(kinds)
    ]


def _states(layers: list[Layer], part: Mapping[str, Sequence[Any]]) -> list[LayerState]:
    return [_state(layer, **{name: arrays[i] for name, arrays in part.items() if i < len(arrays)})
            for i, layer in enumerate(layers)]  # fmt: skip


def _state(
    layer: Layer, activations: Any = None, preactivations: Any = None, deltas: Any = None,
    weights: Any = None, gradients: Any = None, updates: Any = None,
) -> LayerState:  # fmt: skip
    """Measure one layer; what is not given stays unknown."""
    z, a = (None if x is None else np.asarray(x, np.float64) for x in (preactivations, activations))
    w = None if weights is None else np.asarray(weights, np.float64)
    if a is None and z is not None and layer.activation != "maxout":
        a = z if layer.activation == "none" else _apply(layer.activation, z)[0]
    known = deltas if a is None else a
    if known is not None and np.ndim(known):
        layer.units = np.shape(known)[-1]
    tally = Tally(layer)
    if a is not None:
        tally.add(_seen(layer, z, a))
    if w is not None:
        outputs = max(layer.units, 1) * max(layer.pieces, 1)
        w = w if w.ndim > 1 and w.shape[0] == outputs else w.T
        layer.fan_in = w.size // w.shape[0]
    state = tally.state(w, None if gradients is None else np.asarray(gradients))
    if a is None:
        state = LayerState(weight=state.weight, same=state.same, gradient=state.gradient,
                           gradient_zeros=state.gradient_zeros)  # fmt: skip
    elif z is None:
        state.z_mean = state.z_std = nan
    if deltas is not None:
        state.delta = rms(deltas)
    if updates is not None and w is not None:
        u = np.asarray(updates, np.float64)
        sizes = [rms(step) for step in (u if u.ndim > w.ndim else [u])]
        state.update = float(np.median(sizes)) / state.weight if state.weight else nan
    return state


def _apply(name: str, z: Any) -> tuple[Any, Any]:
    """Give f(z) and f'(z) of an activation of that name."""
    if name not in REGISTRY:
        raise ValueError(f"activation {name!r} is not known; write 'none' if there is no such name")
    with np.errstate(all="ignore"):
        out, pull = vjp(REGISTRY[name], asarray(z))
        return out.detach().numpy(), pull(asarray(np.ones_like(z)))[0].detach().numpy()


def _seen(layer: Layer, z: Any, a: Any) -> Seen:
    """Give what a watcher would have seen."""
    seen = Seen(layer, 0, asarray(a if z is None else z))
    seen.a = asarray(a)
    if layer.activation == "maxout" and z is not None:
        layer.pieces = z.shape[-1] // a.shape[-1]
        seen.pieces = z.reshape(*a.shape, layer.pieces)
        seen.winner = seen.pieces.argmax(axis=-1)
    elif layer.activation not in ("none", "maxout"):
        slopes = {"relu": lambda: a > 0, "sigmoid": lambda: a * (1 - a), "tanh": lambda: 1 - a * a}
        if z is not None:
            seen.slope = _apply(layer.activation, z)[1]
        elif layer.activation in slopes:
            seen.slope = slopes[layer.activation]().astype(np.float64)
    return seen


def _samples(
    evidence: Evidence, metrics: list[list[float]], train_losses: Sequence[float],
    test_losses: Sequence[float],
) -> list[Sample]:  # fmt: skip
    """Give one sample per epoch, of what was counted per epoch; the last has the steps' sizes."""
    lengths = [len(series) for series in (*metrics, train_losses, test_losses)]
    epochs = max(max(lengths), 1 if evidence.now.layers else 0)
    steps = evidence.plan.steps

    def at(series: Sequence[float], i: int) -> float:
        place = i - (epochs - len(series))  # short ones end where the others end
        return float(series[place]) if 0 <= place < len(series) else nan

    samples = []
    for i in range(epochs):
        sample = Sample(steps * (i + 1) // epochs, i + 1.0)
        sample.train = Score(evidence.train.n, at(train_losses, i), at(metrics[0], i))
        if evidence.test is not None:
            sample.test = Score(evidence.test.n, at(test_losses, i), at(metrics[1], i))
        samples.append(sample)
    if samples:
        samples[-1].layers = evidence.now.layers
    return samples
