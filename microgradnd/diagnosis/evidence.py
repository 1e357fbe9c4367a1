"""What is known of a training run, as plain numbers: what rules read and reports show.

Nothing here computes. `Record` is what a recorder saw while a network was trained; `Evidence` adds
what was measured afterwards. Both consist of Python's numbers, texts, lists and dicts only (and the
record of the initial parameters, NumPy arrays), so they can be written to a file, read again, made
by hand, or be filled with numbers of another framework. An unknown number is NaN, an unknown thing
None.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cache
from math import nan
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

#: Bins of an activation's histogram.
BINS = 40


@dataclass
class Layer:
    """A weight and what is made of it: the pre-activation z, and a, which is f(z).

    Attributes:
        name: Of the module (or of the weight, if none owns it), `"2"` or `"encoder.fc1"`.
        weight: The dotted name of its parameter.
        activation: The operation f, `"relu"`, `"maxout"`, or `"none"`.
        units: Size of z along its unit axis (of a Maxout: number of groups).
        fan_in: Inputs of one unit.
        pieces: Elements of a Maxout's group, else 0.
        output: Whether it is the last one, whose z is the model's output.
    """

    name: str
    weight: str = ""
    activation: str = "none"
    units: int = 0
    fan_in: int = 0
    pieces: int = 0
    output: bool = False

    @property
    def bias(self) -> str:
        """The dotted name that its bias has, if it has one."""
        return f"{self.weight.rpartition('.')[0]}.bias".lstrip(".")


@dataclass
class LayerState:
    """One layer at one time. Shares are between 0 and 1; RMS is the root of the mean square.

    Attributes:
        delta: RMS over examples and units of the derivative of an example's loss to z. (Of a Maxout
            z has all pieces; here it is that to a, as only one piece of each group gets any.)
        gradient, gradient_zeros: RMS of dL/dW, and the share of its elements that are exactly 0.
        weight: RMS of W.
        update: RMS of the last step of W, relative to `weight`.
        mean, std: Of a.
        z_mean, z_std: Of z.
        zeros: Share of a that is exactly 0.
        slope: Mean of |f'(z)|.
        saturated: Share of z where |f'(z)| is below 2.7 % of the largest slope that f has
            (sigmoid: |z| > 5; tanh: |z| > 2.5); 0 for activations without flat ends, and for ReLU's
            kind, whose flat side is what `zeros` and `dead` speak of.
        dead: Share of units whose slope is exactly 0 for all examples seen.
        same: Share of units with the same incoming weights (and bias) as another unit.
        low, high, counts: Histogram of a, `BINS` bins of equal width.
        wins: Of a Maxout: share of wins of piece 0, 1, ... over all units and examples.
        entropy: Of a Maxout: of the pieces' usage within a group, relative to ln(pieces); mean.
        unused: Of a Maxout: share of pieces that win for no example.
        single: Of a Maxout: share of groups of which only one piece ever wins (a linear unit).
        ties: Of a Maxout: share of groups and examples in which the largest comes twice.
        slopes: Of a PReLU: least, mean and largest learned slope.
    """

    delta: float = nan
    gradient: float = nan
    gradient_zeros: float = nan
    weight: float = nan
    update: float = nan
    mean: float = nan
    std: float = nan
    z_mean: float = nan
    z_std: float = nan
    zeros: float = nan
    slope: float = nan
    saturated: float = nan
    dead: float = nan
    same: float = nan
    low: float = nan
    high: float = nan
    counts: list[int] = field(default_factory=list)
    wins: list[float] = field(default_factory=list)
    entropy: float = nan
    unused: float = nan
    single: float = nan
    ties: float = nan
    slopes: list[float] = field(default_factory=list)


@dataclass
class Score:
    """How good a model is on a set: mean loss and metric (higher is better) over n examples."""

    n: int = 0
    loss: float = nan
    metric: float = nan


@dataclass
class Sample:
    """The whole network at one time.

    Attributes:
        step: Optimizer steps done before it; 0 is the initial state.
        epoch: Epochs done, or NaN if nobody counted.
        rate: The learning rate.
        loss: Of the batch, at that step.
        examples: How many examples `layers` were seen on.
        train, test: On (a fixed part of) the sets, in eval mode.
        layers: In the order of execution; [] where only scores were taken.
    """

    step: int = 0
    epoch: float = nan
    rate: float = nan
    loss: float = nan
    examples: int = 0
    train: Score | None = None
    test: Score | None = None
    layers: list[LayerState] = field(default_factory=list)


@dataclass
class Inputs:
    """What the inputs and targets look like.

    Attributes:
        dtype: Of the inputs.
        features: Numbers in one example.
        low, high, mean, std: Over all numbers.
        shift: The largest |mean| / std of a feature that is not constant.
        ratio: The largest std of a feature divided by the median one.
        constant: Share of features that never change.
        nonfinite: How many inputs are NaN or infinite.
        target_dtype, target_low, target_high, target_nonfinite: The same of the targets.
        outputs: Numbers in one output.
        ids: Whether inputs are ids (an embedding takes them), so that size says nothing.
    """

    dtype: str = ""
    features: int = 0
    low: float = nan
    high: float = nan
    mean: float = nan
    std: float = nan
    shift: float = nan
    ratio: float = nan
    constant: float = nan
    nonfinite: int = 0
    target_dtype: str = ""
    target_low: float = nan
    target_high: float = nan
    target_nonfinite: int = 0
    outputs: int = 0
    ids: bool = False


@dataclass
class Events:
    """What a recorder noticed in the training loop.

    Attributes:
        steps, backwards: How many there were.
        checked: At how many steps it was looked whether old gradients were still there.
        stale: At how many of them backward added to gradients that a step had already used.
        not_optimized: Trainable parameters of the model that the optimizer does not have.
        foreign: How many parameters the optimizer has that are not the model's.
        unreached: Parameters that got no gradient at any step that was looked at.
        unchanged: Trainable ones that the optimizer has, with their initial values at the end.
        squashed: The operation that made the model's output, if it is `softmax`, `log_softmax`,
            `sigmoid` or the like, else "".
        loss: The operations between output and loss, in order, `["cross_entropy"]`.
        noisy_evaluations, evaluations: Forward passes without gradient, and how many of them were
            in train mode although the model has dropout or batch statistics.
        nonfinite_step: The first step whose loss was NaN or infinite, else None.
        nonfinite_where: Operation, layer or parameter in which that began, as text.
        batch: Examples in a batch (the median).
        epochs: Epochs, if somebody counted.
    """

    steps: int = 0
    backwards: int = 0
    checked: int = 0
    stale: int = 0
    not_optimized: list[str] = field(default_factory=list)
    foreign: int = 0
    unreached: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    squashed: str = ""
    loss: list[str] = field(default_factory=list)
    evaluations: int = 0
    noisy_evaluations: int = 0
    nonfinite_step: int | None = None
    nonfinite_where: str = ""
    batch: int = 0
    epochs: float = nan


@dataclass
class Plan:
    """How a network was trained, so that a variant can be trained alike.

    Attributes:
        optimizer: The class's name in `mg.optim`, or "".
        options: Its options (`{"lr": 0.1, "momentum": 0.9}`).
        steps, batch: Of the training.
        loss: The loss function's name.
        model: The model as text.
    """

    optimizer: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    batch: int = 0
    loss: str = ""
    model: str = ""


@dataclass
class Comparison:
    """A variant of the network that was trained to learn something from it.

    Attributes:
        what: `"shallow"`, `"reference"`, `"wider"`, `"scaled"`, or a remedy's key.
        changed: What is different, as text.
        depth: Hidden layers.
        train, test: On the training set, and on the test set (or on a part of the training set that
            was held out, if there is no test set).
        steps: Of the optimizer.
        complete: Whether the whole budget was used (False: stopped by the time limit).
    """

    what: str
    changed: str = ""
    depth: int = 0
    train: Score = field(default_factory=Score)
    test: Score | None = None
    steps: int = 0
    complete: bool = True


@dataclass
class Check:
    """Autograd's gradient beside finite differences, at single weights, in float64.

    Attributes:
        checked: Weights whose difference is large enough to be compared.
        worst: The largest relative error among them.
        parameter: Where that is.
    """

    checked: int = 0
    worst: float = nan
    parameter: str = ""


@dataclass
class Task:
    """What a network is to do; the attributes are explained in `Evidence`."""

    task: str = "other"
    metric: str = ""
    classes: int = 0
    chance: float = nan
    constant: float = nan
    uniform: float = field(default=nan, kw_only=True)

    def adopt(self, other: Task) -> None:
        """Take over what another one says of it."""
        for f in dataclasses.fields(Task):
            setattr(self, f.name, getattr(other, f.name))


@dataclass
class Evidence(Task):
    """Everything that `decide` looks at.

    Attributes:
        task: `"classification"`, `"regression"` or `"other"` (then there is no metric).
        metric: `"accuracy"`, or `"r2"`, which is 1 - squared error / variance of the targets.
        classes: How many there are, else 0.
        chance: The metric of the best constant output (share of the largest class; R2: 0), and
        constant: its loss, by the user's own loss function.
        uniform: The loss of an output that prefers no class (cross-entropy: the logarithm of
            `classes`), by the same function; NaN of a regression.
        target: The training metric that the user wants, or NaN.
        train, test: The trained network on the whole sets, in eval mode.
        layers: The layers; each `Sample.layers` has as many.
        init: The state before the first step, or None if nobody recorded it.
        now: The state after training, on the whole training set.
        samples: What was recorded in between, in order of steps (with `init`, without `now`).
        losses: The loss of steps, evenly thinned out; `loss_steps` says which steps.
        inputs, events, plan, check: As described there; None if unknown.
        comparisons: Variants that were trained.
        not_made: Comparisons that could not be made, with the reason, as text.
    """

    target: float = nan
    train: Score = field(default_factory=Score)
    test: Score | None = None
    layers: list[Layer] = field(default_factory=list)
    init: Sample | None = None
    now: Sample = field(default_factory=Sample)
    samples: list[Sample] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_steps: list[int] = field(default_factory=list)
    inputs: Inputs | None = None
    events: Events | None = None
    plan: Plan = field(default_factory=Plan)
    check: Check | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    not_made: list[str] = field(default_factory=list)

    def compared(self, what: str) -> Comparison | None:
        """Give the comparison of that kind, or None."""
        return next((c for c in self.comparisons if c.what == what), None)


@dataclass
class Record(Task):
    """What a recorder saw; `Evidence` without what needs the data afterwards.

    Attributes:
        layers, samples, losses, loss_steps, events, plan: As in `Evidence`.
        initial: The parameters before the first step, by name, as NumPy arrays ({} if too large).
        task, metric, classes, chance, constant, uniform, inputs: As in `Evidence`, if the recorder
            was given the training set.
    """

    layers: list[Layer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_steps: list[int] = field(default_factory=list)
    events: Events = field(default_factory=Events)
    plan: Plan = field(default_factory=Plan)
    initial: dict[str, Any] = field(default_factory=dict)
    inputs: Inputs | None = None


@dataclass
class Remedy:
    """What may help.

    Attributes:
        key: Its name in the catalogue, `"activation"`, `"adaptive"`, `"lower_rate"`, ...
        side: `"train"` or `"test"`: which result it can make better.
        details: Numbers and names for its text, `{"name": "relu"}`.
        gain: The comparison that was made with it, if it was tried.
    """

    key: str
    side: str
    details: dict[str, Any] = field(default_factory=dict)
    gain: Comparison | None = None


@dataclass
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        code: `"VANISHING"` and the like.
        severity: `"fault"` or `"warning"`.
        side: `"train"` or `"test"`: the result that suffers.
        layer: The name of the layer where it is worst, or None.
        evidence: The numbers that speak for it, by name.
        threshold: What they were compared with, by name.
        source: Where the threshold comes from.
        explains: Codes of other findings that are only its symptoms.
        confidence: Between 0 and 1.
        remedies: Of the matching side, the first to be tried first.
    """

    code: str
    severity: str
    side: str = "train"
    layer: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    threshold: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    explains: list[str] = field(default_factory=list)
    confidence: float = 1.0
    remedies: list[Remedy] = field(default_factory=list)


# ------------------------------------------------------------------------------- plain and back


def plain(thing: Any, digits: int = 0) -> Any:
    """Give dataclasses as dicts, and numbers that JSON lacks as "nan", "inf" and "-inf".

    Args:
        thing: A dataclass, or what may stand in one (no arrays).
        digits: Significant digits that floats keep; 0 for all.
    """
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {f.name: plain(getattr(thing, f.name), digits) for f in dataclasses.fields(thing)}
    if isinstance(thing, dict):
        return {str(key): plain(value, digits) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [plain(value, digits) for value in thing]
    if isinstance(thing, (bool, int, str, type(None))):
        return thing
    value = float(thing)
    if not math.isfinite(value):
        return str(value)
    return float(f"{value:.{digits}g}") if digits else value


_hints = cache(get_type_hints)  # to get them takes longer than all the rest


def parse(kind: Any, thing: Any) -> Any:
    """Make what `plain` was given from what it gave; unknown names are left out."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        return None if thing is None else parse(kinds[0], thing)
    if dataclasses.is_dataclass(kind):
        hints: Any = _hints(kind)  # type: ignore[arg-type]
        return kind(**{k: parse(hints[k], v) for k, v in thing.items() if k in hints})  # type: ignore[operator]
    if get_origin(kind) is list:
        return [parse(get_args(kind)[0], item) for item in thing]
    if get_origin(kind) is dict:
        return {key: parse(get_args(kind)[1], value) for key, value in thing.items()}
    if kind is float or thing in ("nan", "inf", "-inf"):
        number = float(thing)
        return number if number == number else nan  # always the same one, which equals itself
    return thing
