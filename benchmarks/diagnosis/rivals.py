"""The published rules of other tools, from their descriptions, applied to the same recordings.

They are read in their favour. A rule fires only if it does so at two samples in a row (no tool but
one asks for that), a symptom counts as right for every cause that it may come from, and what a tool
checks of absent things (Keras layers) is left out. The size of a gradient is taken from its RMS as
if it were Gaussian: the mean is 0.8 of it, the median 0.67.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import erf, isfinite, sqrt
from typing import Any

from microgradnd.diagnosis.evidence import Evidence, Layer, LayerState, Sample

#: What a symptom may mean.
MEANS: dict[str, frozenset[str]] = {
    name: frozenset(codes.split())
    for name, codes in {
        "vanishing": "VANISHING INIT_SCALE SATURATED",
        "exploding": "EXPLODING LR_HIGH LOSS_AT_INIT INPUT_SCALE",
        "dead": "DEAD LR_HIGH",
        "zero gradients": "DEAD LR_HIGH SYMMETRIC UNREACHED UNUSED_PIECE",
        "saturated": "SATURATED LR_HIGH INPUT_SCALE",
        "unstable": "LR_HIGH ZERO_GRAD",
        "rate high": "LR_HIGH ZERO_GRAD",
        "rate low": "LR_LOW",
        "slow": "LR_LOW CAPACITY VANISHING INIT_SCALE",
        "bad start": "INIT_SCALE EXPLODING LOSS_AT_INIT",
        "bad numbers": "NONFINITE TARGETS LR_HIGH EXPLODING",
        "inputs": "INPUT_SCALE",
        "unchanged": "NOT_OPTIMIZED UNREACHED",
        "overfitting": "OVERFIT",
        "too good": "",
        "out of range": "EXPLODING INIT_SCALE INPUT_SCALE LOSS_AT_INIT",
    }.items()
}


# ---------------------------------------------------------------------------------- what they read


def samples(e: Evidence) -> list[Sample]:
    """Give what was recorded, with the state after training as the last one."""
    return [s for s in [*e.samples, e.now] if s.layers]


def twice(e: Evidence, rule: Callable[[Sample], bool]) -> bool:
    """Whether a rule holds at two samples in a row."""
    return any(a and b for a, b in pairwise([rule(s) for s in samples(e)]))


def norms(e: Evidence, s: Sample) -> list[float]:
    """Give the norm of each weight's gradient."""
    return [x.gradient * sqrt(max(y.units * max(y.pieces, 1) * y.fan_in, 1))
            for x, y in zip(s.layers, e.layers, strict=True)]  # fmt: skip


def hidden(e: Evidence, s: Sample) -> Iterator[tuple[Layer, LayerState]]:
    """Give the layers that have an activation."""
    return ((y, x) for x, y in zip(s.layers, e.layers, strict=True) if not y.output)


def any_layer(e: Evidence, rule: Callable[[Layer, LayerState], bool]) -> bool:
    """Whether one hidden layer fulfils a rule at two samples in a row."""
    return twice(e, lambda s: any(rule(y, x) for y, x in hidden(e, s)))


def bad_loss(e: Evidence, limit: float = float("inf")) -> bool:
    """Whether a loss was not finite, or above a limit."""
    return any(not x <= limit or not isfinite(x) for x in e.losses)


def metrics(e: Evidence) -> list[float]:
    """Give the training metric at the samples."""
    return [s.train.metric for s in [*e.samples, e.now] if s.train]


def beyond(x: LayerState, limit: float) -> float:
    """Give the share of z whose size is above a limit, if z is Gaussian."""
    if not x.z_std > 0:
        return 0.0

    def below(z: float) -> float:
        return 0.5 * (1 + erf((z - x.z_mean) / x.z_std / sqrt(2)))

    return 1 - below(limit) + below(-limit)


def validation(e: Evidence) -> list[tuple[float, float]]:
    """Give the losses on both sets at the samples."""
    found = [(s.train.loss, s.test.loss) for s in e.samples if s.train and s.test]
    if e.test:
        found.append((e.train.loss, e.test.loss))
    return found


def relu(layer: Layer) -> bool:
    """Whether a layer has ReLU's kind of activation."""
    return layer.activation in ("relu", "leaky_relu", "prelu")


# ---------------------------------------------------------------------------------------- the rules


def autotrainer(e: Evidence) -> Iterator[tuple[str, bool]]:
    """AUTOTRAINER (Zhang et al., ICSE 2021): in this order, and only below the wanted accuracy."""
    poor = not e.train.metric >= 0.7

    def ratio(s: Sample) -> tuple[float, float]:
        found = norms(e, s)
        return found[0] / found[-1] if found[-1] > 0 else 1.0, found[0]

    yield "inputs", e.inputs is not None and abs(e.inputs.mean) >= 10
    yield "bad numbers", bad_loss(e, 1e3)
    yield "dead", poor and twice(e, lambda s: any(x.gradient_zeros >= 0.7 for x in s.layers))
    yield "exploding", poor and twice(e, lambda s: ratio(s)[0] > 70)
    yield "vanishing", poor and twice(e, lambda s: ratio(s)[0] < 1e-3 and ratio(s)[1] < 1e-4)
    steps = [abs(b - a) for a, b in pairwise(metrics(e))]
    turns = [b - a for a, b in pairwise(metrics(e))]
    swings = sum(x < -0.03 for x in turns)
    yield "unstable", poor and bool(steps) and swings >= 0.2 * len(steps)
    yield "slow", poor and bool(steps) and max(steps) < 0.01


def deep_diagnosis(e: Evidence) -> Iterator[tuple[str, bool]]:
    """DeepDiagnosis (Wardat et al., ICSE 2022); its rate rule is given a band of a hundred."""
    yield "bad numbers", bad_loss(e)
    yield "dead", any_layer(e, lambda y, x: relu(y) and x.zeros >= 0.7)
    yield "saturated", any_layer(e, lambda y, x: x.saturated > 0.5)
    yield "vanishing", twice(e, lambda s: any(0.8 * x.gradient < 1e-7 for x in s.layers))
    yield "out of range", any_layer(e, lambda y, x: not 1e-5 <= x.std**2 <= 10)
    yield "unchanged", e.events is not None and bool(e.events.unchanged)
    yield "rate low", twice(e, lambda s: all(x.update < 1e-5 for x in s.layers))
    yield "rate high", twice(e, lambda s: any(x.update > 1e-1 for x in s.layers))


def sagemaker(e: Evidence) -> Iterator[tuple[str, bool]]:
    """The built-in rules of SageMaker Debugger."""
    flat = {"sigmoid": 20.0, "tanh": 9.5}
    yield "vanishing", twice(e, lambda s: all(0.8 * x.gradient < 1e-7 for x in s.layers))
    yield "dead", any_layer(e, lambda y, x: relu(y) and x.dead > 0.5)
    yield "saturated", any_layer(
        e, lambda y, x: y.activation in flat and beyond(x, flat[y.activation]) > 0.5
    )
    yield "rate low", twice(e, lambda s: any(x.update < 1e-8 for x in s.layers))
    yield "rate high", twice(e, lambda s: any(x.update > 10 for x in s.layers))
    spreads = [x.std**2 for _, x in hidden(e, e.init)] if e.init else []
    yield "bad start", bool(spreads) and max(spreads) > 10 * min(spreads)
    half = len(e.losses) // 2
    before, after = sum(e.losses[:half]), sum(e.losses[len(e.losses) - half :])
    yield "slow", not after < 0.999 * before
    yield "overfitting", any(b[1] - b[0] > 0.1 * abs(b[0]) for b in validation(e)[-1:])
    yield "out of range", any_layer(e, lambda y, x: not 1e-5 <= x.std**2 <= 10)


def umlaut(e: Evidence) -> Iterator[tuple[str, bool]]:
    """UMLAUT (Schoop et al., CHI 2021), without what it says of Keras layers."""
    i = e.inputs
    if i is not None and not i.ids:
        yield "inputs", i.low < -1 or i.high > 1 or i.dtype.startswith(("int", "uint"))
    yield "bad numbers", bad_loss(e) or (i is not None and i.nonfinite > 0)
    both = validation(e)
    yield "overfitting", any(b[1] > a[1] and b[0] < a[0] for a, b in pairwise(both))
    yield "too good", e.test is not None and e.task == "classification" and e.test.metric > 0.95


def bttackler(e: Evidence) -> Iterator[tuple[str, bool]]:
    """BTTackler, with the thresholds of its description."""

    def quotients(s: Sample) -> list[float]:
        return [a.gradient / b.gradient for a, b in pairwise(s.layers) if b.gradient > 0]

    yield "vanishing", twice(
        e, lambda s: any(0.67 * x.gradient < 1e-5 for x in s.layers) or min(quotients(s), default=1)
        < 1e-4,
    )  # fmt: skip
    yield "exploding", bad_loss(e) or twice(e, lambda s: max(quotients(s), default=1) > 1e3)
    yield "zero gradients", twice(e, lambda s: any(x.gradient_zeros > 0.5 for x in s.layers))
    last = [x for x in e.losses[len(e.losses) // 2 :] if isfinite(x)]
    mean = sum(last) / max(len(last), 1)
    spread = sqrt(sum((x - mean) ** 2 for x in last) / max(len(last), 1))
    yield "slow", bool(last) and spread < 0.01 * abs(mean)


def neuroscope(e: Evidence) -> Iterator[tuple[str, bool]]:
    """NeuroScope 0.2."""

    def growing(s: Sample) -> bool:
        found = [(a.gradient / b.gradient) ** 2 for a, b in pairwise(s.layers) if b.gradient > 0]
        return sum(found) > 2 * len(found) > 0

    yield "vanishing", twice(e, growing)
    yield "vanishing", twice(e, lambda s: any(x.gradient < 1e-5 for x in s.layers))
    yield "dead", any_layer(e, lambda y, x: relu(y) and (x.zeros > 0.9 or x.dead > 0.1))
    yield "exploding", twice(e, lambda s: sqrt(sum(n * n for n in norms(e, s))) > 5)


def nnscope(e: Evidence) -> Iterator[tuple[str, bool]]:
    """The rules of nnscope 0.1.2."""

    def ratio(s: Sample) -> float:
        a, b = s.layers[0].gradient, s.layers[-1].gradient
        return b / a if a > 0 else (float("inf") if b > 0 else 1.0)

    def update(s: Sample) -> float:
        found = sorted(x.update for x in s.layers)
        return found[len(found) // 2]

    yield "vanishing", twice(e, lambda s: ratio(s) > 1e3)
    yield "exploding", bad_loss(e) or twice(e, lambda s: any(x.gradient > 125 for x in s.layers))
    yield "rate high", twice(e, lambda s: update(s) > 0.1)
    yield "rate low", twice(e, lambda s: update(s) < 1e-6)
    yield "dead", any_layer(e, lambda y, x: relu(y) and x.dead >= 0.5)
    both = validation(e)
    if both:
        at = min(range(len(both)), key=lambda i: both[i][1])
        worse = both[-1][1] > 1.15 * both[at][1]
        yield "overfitting", worse and both[-1][0] < 0.9 * both[at][0]


RIVALS: dict[str, Callable[[Evidence], Any]] = {
    "AUTOTRAINER": autotrainer,
    "DeepDiagnosis": deep_diagnosis,
    "SageMaker Debugger": sagemaker,
    "UMLAUT": umlaut,
    "BTTackler": bttackler,
    "NeuroScope": neuroscope,
    "nnscope": nnscope,
}


def findings(name: str, evidence: Evidence) -> list[frozenset[str]]:
    """Give what a tool finds, in its order, each as the codes that it may mean."""
    return [MEANS[symptom] for symptom, fires in RIVALS[name](evidence) if fires]
