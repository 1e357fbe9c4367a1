"""Variants of a network, trained alike, to compare it with: what a doubt is settled by.

All are made of copies, start from the user's initial weights where shapes fit, and are trained with
the user's optimizer, batch size and number of steps, in an order of examples of our own seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import inf, isfinite, log10, prod, sqrt
from typing import Any

import numpy as np

from .. import optim
from ..extras import Drawable
from ..modes import no_grad
from ..nn import init
from ..nn.layers import BatchNorm1d, Dropout, Flatten, Identity, LayerNorm, Linear, Maxout, PReLU
from ..nn.module import Lambda, Module, Sequential
from ..nn.utils import clip_grad_norm_
from ..random import Generator
from ..registry import REGISTRY
from ..tape import Tensor
from .evidence import Comparison, Evidence, Plan, Record, Score
from .facts import Facts
from .measure import Problem, first_output, host, pair, problem, sandbox, taken
from .observe import clone
from .thresholds import Thresholds

#: Seconds that `baseline="auto"` may take in all.
AUTO = 20.0
#: What training is estimated to take: seconds per step, per layer and step, per multiplication.
STEP, LAYER, PRODUCT = 3e-4, 1.5e-4, 2e-10
#: The reference network: units, rate, and the least and largest number of steps.
UNITS, RATE, LEAST, MOST = 64, 0.01, 300, 1000
#: Up to so many examples the reference is trained five times, each fifth held out once.
FEW = 400
#: Layers of more units than this are no question of capacity.
WIDE = 128
#: A result so far below the reference's is worth a further comparison (a finding wants 0.05).
POOR = 0.03
#: How weights begin before an activation, times 1 / sqrt(fan_in): what keeps the signal's size.
GAINS = {
    "relu": sqrt(2.0), "leaky_relu": sqrt(2.0), "prelu": sqrt(2.0), "relu6": sqrt(2.0),
    "gelu": sqrt(2.0), "silu": sqrt(2.0), "mish": sqrt(2.0), "hard_silu": sqrt(2.0),
}  # fmt: skip


class Impossible(Exception):
    """A variant cannot be made; the text says why."""


@dataclass
class Case:
    """A diagnosis under way: copies of the network, its data, and what is known of its training.

    Attributes:
        model, start: Copies: as trained, and with its initial weights (None: `no_start` says why).
        unrecorded: Why a record that was given is not used, as text.
        loss_fn, inputs, target, test, make_model: As given to `diagnose`; Tensors.
        record: What was recorded, or None.
        seconds: For comparisons, 0 for none.
        problem, evidence: What was found.
        began, spent: When the first comparison began, and what all are estimated to take.
    """

    model: Any
    start: Any
    no_start: str
    loss_fn: Any
    inputs: tuple[Tensor, ...]
    target: Tensor
    test: tuple[tuple[Tensor, ...], Tensor] | None = None
    record: Record | None = None
    unrecorded: str = ""
    make_model: Any = None
    seconds: float = AUTO
    problem: Problem = field(default_factory=Problem)
    evidence: Evidence = field(default_factory=Evidence)
    began: float | None = None
    spent: float = 0.0

    @property
    def plan(self) -> Plan:
        """How it was trained."""
        return self.evidence.plan

    @property
    def hidden(self) -> list[str]:
        """The activations of its hidden layers."""
        return [layer.activation for layer in self.evidence.layers if not layer.output]

    @property
    def activation(self) -> str:
        """The most frequent of them."""
        found = self.hidden
        return max(found, key=found.count) if found else "relu"

    def initial(self) -> Any:
        """Give a new copy with the initial weights."""
        if self.start is None:
            raise Impossible(self.no_start)
        return clone(self.start)

    def allowed(self, wanted: int, layers: int, products: float) -> int:
        """Give how many steps may be made: by an estimate, so that each time it is as many.

        All comparisons together are estimated to take half of the budget at most, and each half of
        what the earlier ones left.
        """
        step = STEP + layers * LAYER + products * PRODUCT
        left = self.seconds / 2 - self.spent
        steps = min(wanted, int(left / 2 / step)) if left < inf else wanted
        self.spent += steps * step
        return steps

    def late(self) -> bool:
        """Say whether the time is over: only if a machine is far slower than was estimated."""
        if self.began is None:
            self.began = time.monotonic()
        return time.monotonic() - self.began > self.seconds


@dataclass
class Variant:
    """A network to train.

    Attributes:
        what, changed, depth: As of a `Comparison`.
        model: To be trained.
        optimizer: Makes one of parameters.
        steps, batch: Of the training.
        inputs: In place of the case's, if they are others.
        test: In place of the case's.
        clip: The largest norm of a gradient.
    """

    what: str
    changed: str
    model: Any
    optimizer: Callable[[Any], Any]
    steps: int
    batch: int
    depth: int = 0
    inputs: Any = None
    test: Any = None
    clip: float = inf


def budget(baseline: Any) -> float:
    """Give the seconds that a `baseline` argument allows.

    Raises:
        ValueError: If it is none of what `diagnose` takes.
    """
    if baseline == "auto" or isinstance(baseline, (Comparison, Module)):
        return AUTO
    if baseline is None:
        return 0.0
    if type(baseline) not in (int, float) or not 0.0 < baseline < inf:
        raise ValueError(
            "baseline must be 'auto', a number of seconds, None, a trained module or a "
            f"Comparison, got {baseline!r}"
        )
    return float(baseline)


def check_maker(make_model: Any) -> None:
    """Refuse what makes no models.

    Raises:
        TypeError: If it is a network itself, or no function.
    """
    if isinstance(make_model, Module) or not callable(make_model):
        raise TypeError(
            "make_model must be a function make_model(depth, activation) that gives a new network, "
            f"got a {type(make_model).__name__}"
        )


def compare(case: Case, found: Evidence, baseline: Any) -> None:
    """Make the comparisons that the evidence so far asks for."""
    case.evidence = found
    if baseline is None:
        found.not_made.append("shallow, reference: not wanted (baseline=None)")
        return
    if isinstance(baseline, (Comparison, Module)):
        found.comparisons.append(given(case, baseline))
    elif len(case.hidden) > 1:
        attempt(case, "shallow", lambda: trained(case, shallow(case)))
    if not case.problem.kind:
        found.not_made.append("reference: what the outputs mean is unknown")
        return
    attempt(case, "reference", lambda: reference(case))
    if poor(found):
        if unscaled(found):
            attempt(case, "scaled", lambda: trained(case, scaled(case)))
        if sound(found):
            attempt(case, "wider", lambda: trained(case, wider(case)))


def attempt(case: Case, what: str, make: Callable[[], Comparison]) -> Comparison | None:
    """Make a comparison and add it, or note why there is none."""
    try:
        made = make()
    except Impossible as reason:
        case.evidence.not_made.append(f"{what}: {reason}")
        return None
    except Exception as error:  # a variant that the user's code does not bear
        text = f"{what}: it raised {type(error).__name__}: {error}".splitlines()[0]
        case.evidence.not_made.append(text)
        return None
    case.evidence.comparisons.append(made)
    return made


def given(case: Case, baseline: Any) -> Comparison:
    """Make a comparison of a network that the user trained, or take one that was made."""
    if isinstance(baseline, Comparison):
        return replace(baseline, what="shallow")
    train, test = scores(case, clone(baseline))
    return Comparison("shallow", "the baseline that was given", train=train, test=test)


def scores(
    case: Case, model: Any, inputs: Any = None, test: Any = None
) -> tuple[Score, Score | None]:
    """Measure a network on both sets; on the case's, if no others are given."""
    measure, test = case.problem.score, test or case.test
    train = measure(model, case.loss_fn, inputs or case.inputs, case.target)
    return train, None if test is None else measure(model, case.loss_fn, *test)


def poor(found: Evidence) -> bool:
    """Say whether the training result is far enough below what can be reached to look further."""
    metric, goal = found.train.metric, Facts(found, Thresholds()).held("reference").metric - POOR
    if not isfinite(metric) or metric < found.target:
        return True
    return metric < ((1.0 + found.chance) / 2 if goal != goal else goal)


def sound(found: Evidence) -> bool:
    """Say whether losses are finite and the gradient passes all layers at the start.

    A mean slope below 0.05 is that of units which are nearly all on their flat side.
    """
    hidden = [state for _, state in Facts(found, Thresholds()).states(found.init)]
    if any(not s.delta > 0 or s.slope < 0.05 for s in hidden):
        return False
    lost = log10(hidden[-1].delta) - log10(hidden[0].delta) if hidden else 0.0
    return abs(lost) < 1.0 and all(map(isfinite, found.losses))


def unscaled(found: Evidence) -> bool:
    """Say whether inputs are far from mean 0 and deviation 1."""
    seen = found.inputs
    return seen is not None and not seen.nonfinite and Facts(found, Thresholds()).unscaled


# ----------------------------------------------------------------------------------- training


def trained(case: Case, variant: Variant) -> Comparison:
    """Train a variant and measure it."""
    inputs = variant.inputs or case.inputs
    made = Comparison(variant.what, variant.changed, variant.depth)
    layers = case.evidence.layers
    products = sum(x.units * max(x.pieces, 1) * x.fan_in for x in layers) * 3.0 * variant.batch
    steps = case.allowed(variant.steps, len(layers), products * growth(case, variant.model))
    made.steps = fit(case, variant, inputs, case.target, steps)
    made.complete = enough(made.steps, variant.steps)
    made.train, made.test = scores(case, variant.model, inputs, variant.test)
    return made


def enough(steps: int, wanted: int) -> bool:
    """Say whether all steps were made; of so few that they show nothing there is no comparison."""
    if steps < wanted / 4:
        raise Impossible(f"the time allows {steps} of {wanted} steps only")
    return steps >= wanted


def growth(case: Case, model: Any) -> float:
    """Give how many times as many numbers a variant has as the network."""
    sizes = [sum(p.size for p in m.parameters()) for m in (model, case.model)]
    return sizes[0] / max(sizes[1], 1)


def fit(
    case: Case, variant: Variant, inputs: Any, target: Tensor, steps: int, seed: int = 1
) -> int:
    """Train for so many steps; gives how many were done when the time was over."""
    model, n, batch = variant.model, len(target), max(min(variant.batch, len(target)), 1)
    with sandbox(case.model, seed):
        model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = variant.optimizer(parameters)
        draw, at, order = Generator(seed), n, np.arange(0)
        for step in range(steps):
            if step % 16 == 0 and case.late():
                return step
            if at >= n or (n - at == 1 and batch > 1):
                order, at = host(draw.permutation(n)), 0
            *xs, y = taken((*inputs, target), order[at : at + batch])
            at += batch
            optimizer.zero_grad()
            loss = case.loss_fn(model(*xs), y)
            loss.backward()
            if variant.clip < inf:
                clip_grad_norm_(parameters, variant.clip)
            optimizer.step()
    return steps


def like(case: Case, changed: str, model: Any = None, what: str = "", **others: Any) -> Variant:
    """Give a variant (None: with the initial weights) that is trained as the network was.

    Raises:
        Impossible: If nobody knows how that was.
    """
    plan = case.plan
    if not plan.optimizer or not plan.steps:
        why = "its optimizer is none of mg.optim" if plan.steps else "nobody recorded the training"
        raise Impossible(f"how the network was trained is unknown: {why}")
    kind = getattr(optim, plan.optimizer, None)
    if kind is None:
        raise Impossible(f"mg.optim has no {plan.optimizer}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in plan.options.items()}
    options |= {name: others.pop(name) for name in ("lr", "weight_decay") if name in others}
    known = {k: v for k, v in options.items() if k in kind.__init__.__code__.co_varnames}
    model = case.initial() if model is None else model.to(case.inputs[0].backend.name)
    given: dict[str, Any] = {"optimizer": lambda params: kind(params, **known), "steps": plan.steps,
             "batch": plan.batch or 32, "depth": len(case.hidden)}  # fmt: skip
    return Variant(what, changed, model, **(given | others))


def fresh(model: Module) -> Module:
    """Begin running statistics anew; gives the model."""
    with no_grad():
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                for name, buffer in module.named_buffers():
                    init.constant_(buffer, float(name == "running_var"))
    return model


# ------------------------------------------------------------------------------ the reference


def reference(case: Case) -> Comparison:
    """Train a plain network that is known to learn, and measure it on what it has not seen.

    Standardized inputs, one hidden layer of 64 ReLUs (He), Adam with rate 0.01, and our own loss:
    no mistake in the user's network, loss or loop can be in it. A fifth of the training set is held
    out; in small sets each fifth in turn.
    """
    n, known = len(case.target), case.problem
    seen = case.evidence.inputs
    if any(x.dtype.kind not in "fiub" for x in case.inputs) or (seen is not None and seen.ids):
        raise Impossible("inputs are ids, no numbers")
    if seen is not None and seen.nonfinite:
        raise Impossible("inputs are not finite")
    if n < 10:
        raise Impossible(f"{n} examples are too few to hold some of them out")
    batch = min(max(case.plan.batch or 32, 32), n)
    folds = 5 if n <= FEW else 1
    steps = max(min(case.plan.steps, MOST if folds == 1 else 2 * LEAST), LEAST)
    order = np.argsort(host(Generator(2).permutation(n)))
    x = flat(case.inputs)
    made = Comparison("reference", f"one layer of {UNITS} ReLU, Adam {RATE}, scaled inputs", 1)
    train: list[Score] = []
    test: list[Score] = []
    products = 3.0 * batch * UNITS * (x.shape[1] + prod(known.shape or (1,)))
    allowed = case.allowed(steps * folds, 2, products) // folds
    made.complete = enough(allowed, steps)
    for fold in range(folds):
        out = order[fold::5]
        fitted = np.delete(order, np.s_[fold::5])
        net, parts, loss_fn = plain_network(case, x, fitted)
        alone = replace(case, loss_fn=loss_fn, began=case.began)
        adam = Variant("reference", "", net, lambda p: optim.Adam(p, lr=RATE), allowed, batch)
        done = fit(alone, adam, (parts,), taken((case.target,), fitted)[0], allowed)
        case.began = alone.began
        made.steps, made.complete = done, enough(done, steps) and made.complete
        net = Sequential(net, Lambda(as_user_wants(known)))
        for rows, into in ((fitted, train), (out, test)):
            given = scaled_by(x, fitted, rows)
            into.append(known.score(net, case.loss_fn, (given,), taken((case.target,), rows)[0]))
    made.train, made.test = replace(pooled(train), n=train[0].n), pooled(test)
    return made


def pooled(scores: list[Score]) -> Score:
    """Give the mean of scores, weighted by their examples."""
    n = sum(s.n for s in scores)
    return Score(n, *(sum(getattr(s, w) * s.n for s in scores) / n for w in ("loss", "metric")))


def flat(inputs: tuple[Tensor, ...]) -> Tensor:
    """Give all inputs as one matrix of floats."""
    kind = "float64" if inputs[0].dtype.char == "d" else "float32"
    parts = [x.reshape((x.shape[0], -1)).astype(kind) for x in inputs]
    return parts[0] if len(parts) == 1 else REGISTRY["concatenate"](parts, axis=1)


def standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and deviation of each feature; 1 for one that does not vary."""
    wide = x.astype("float64")
    mean, std = wide.mean(axis=0), wide.std(axis=0)
    return mean, REGISTRY["where"](std > 1e-6 * REGISTRY["absolute"](mean), std, 1.0)


def scaled_by(x: Tensor, fitted: Any, rows: Any) -> Tensor:
    """Give rows, scaled by the statistics of the fitted ones."""
    mean, std = standard(taken((x,), fitted)[0])
    return ((taken((x,), rows)[0] - mean) / std).astype(x.dtype)


def plain_network(case: Case, x: Tensor, fitted: Any) -> tuple[Any, Tensor, Any]:
    """Give the reference network, its inputs, and the loss that it is trained with."""
    shape, kind = case.problem.shape, case.problem.kind
    with sandbox(seed=3):
        first, last = (Linear(a, b, dtype=x.dtype)
                       for a, b in ((x.shape[1], UNITS), (UNITS, prod(shape))))  # fmt: skip
        init.kaiming_normal_(first.weight, nonlinearity="relu")
        init.zeros_(first.bias)  # type: ignore[arg-type]
        tail = Lambda(lambda h: h.reshape((h.shape[0], *shape)))
        net: Any = Sequential(first, Lambda(REGISTRY["relu"]), last, tail)
    net.to(x.backend.name)
    inputs = scaled_by(x, fitted, fitted)
    if kind == "numbers":
        mean, std = (t.astype(x.dtype) for t in standard(taken((case.target,), fitted)[0]))
        net = Sequential(net, Lambda(lambda z: z * std + mean))
        return net, inputs, lambda z, y: (((z - y) / std) ** 2).mean()
    if kind == "classes":
        return net, inputs, REGISTRY["cross_entropy"]
    if kind == "weights":
        return net, inputs, lambda z, y: REGISTRY["cross_entropy"](z, y.astype(z.dtype))
    logits = REGISTRY["binary_cross_entropy_with_logits"]
    return net, inputs, lambda z, y: logits(z, (y > 0).astype(z.dtype))


def as_user_wants(known: Problem) -> Callable[[Tensor], Tensor]:
    """Give what makes the user's kind of output of the reference's, so that their loss fits."""
    if known.kind in ("classes", "weights"):
        log = REGISTRY["log_softmax"]
        return (lambda z: log(z, axis=1)) if known.form == "log" else (
            lambda z: REGISTRY["exp"](log(z, axis=1)))  # fmt: skip
    if known.kind == "binary" and known.form != "logit":
        return lambda z: REGISTRY["sigmoid"](z)
    if known.kind == "signs" and known.form != "logit":
        return lambda z: REGISTRY["tanh"](z)
    return lambda z: z


# --------------------------------------------------------------------- variants of the network


@dataclass
class Parts:
    """A Sequential taken apart: what comes first, hidden blocks, and the head.

    A block is an affine layer (Linear or Maxout) with what follows it: normalization, activation,
    dropout. The last affine layer begins the head.
    """

    front: list[Module]
    hidden: list[list[Module]]
    head: list[Module]

    def width(self, i: int) -> int:
        """Give how many numbers block i hands on."""
        affine: Any = [*self.hidden[1:], self.head][i][0]
        return int(affine.in_features)

    def joined(self) -> Sequential:
        """Give them as a Sequential."""
        return Sequential(*self.front, *(m for block in self.hidden for m in block), *self.head)


def parts(model: Any) -> Parts:
    """Take a Sequential apart.

    Raises:
        Impossible: If it is none, or has layers that nobody could leave out.
    """
    modules = listed(model)
    if len({id(m) for m in modules}) < len(modules):
        raise Impossible("a module stands in the Sequential twice")
    known = (Linear, Maxout, BatchNorm1d, LayerNorm, PReLU)
    places = [i for i, m in enumerate(modules) if isinstance(m, (Linear, Maxout))]
    if not places:
        raise Impossible("the Sequential has no Linear or Maxout")
    for module in modules[places[0] :]:
        if not isinstance(module, known) and any(True for _ in module.parameters()):
            raise Impossible(f"a {type(module).__name__} has weights of its own (give make_model=)")
    ends = [*places[1:], len(modules)]
    blocks = [modules[a:b] for a, b in zip(places, ends, strict=True)]
    return Parts(modules[: places[0]], blocks[:-1], blocks[-1])


def listed(model: Any) -> list[Module]:
    """Give the modules of a Sequential, and of those in it, in their order."""
    if type(model) is not Sequential:
        raise Impossible(f"the model is a {type(model).__name__}, no Sequential (give make_model=)")
    return [part for m in model for part in (listed(m) if type(m) is Sequential else [m])]


def drawn(old: Any, inputs: int, outputs: int, gain: float | None = None) -> Any:
    """Give a Linear or Maxout of other sizes.

    Its weights have the old deviation, times what keeps the signal's size if there are other
    numbers of inputs; or the gain over the root of the inputs. Biases are as the old ones.
    """
    extra = (outputs, old.pieces) if isinstance(old, Maxout) else (outputs,)
    new = type(old)(inputs, *extra, bias=old.bias is not None, dtype=old.weight.dtype)
    w = host(old.weight).astype(np.float64)
    std = gain / sqrt(inputs) if gain else float(w.std()) * sqrt(old.in_features / inputs)
    init.normal_(new.weight, float(w.mean()) if not gain else 0.0, std)
    if old.bias is not None:
        b = host(old.bias).astype(np.float64)
        init.normal_(new.bias, float(b.mean()), 0.0 if gain else float(b.std()))
    return new.to(old.weight.backend.name)


def activates(module: Module) -> bool:
    """Say whether a module of a block is its activation."""
    others = (Linear, Maxout, BatchNorm1d, LayerNorm, Dropout, Flatten, Identity)
    return not isinstance(module, others)


def shallow(case: Case) -> Variant:
    """Give the network with one hidden layer."""
    if case.make_model is not None:
        model = made(case, 1, case.activation)
    else:
        p = parts(case.initial())
        if not p.hidden:
            raise Impossible("the Sequential has no hidden Linear or Maxout layer")
        width = p.width(0)
        with sandbox(seed=4):
            if p.head[0].in_features != width:  # type: ignore[attr-defined]
                p.head[0] = drawn(p.head[0], width, p.head[0].out_features)  # type: ignore[attr-defined]
        model = Parts(p.front, p.hidden[:1], p.head).joined()
    return like(case, f"1 hidden layer in place of {len(case.hidden)}", model, "shallow", depth=1)


def made(case: Case, depth: int, activation: str) -> Any:
    """Call the user's `make_model`, with random numbers of our own."""
    with sandbox(seed=5):
        model = case.make_model(depth, activation)
    if not isinstance(model, Module):
        raise Impossible(f"make_model gave a {type(model).__name__}, no Module")
    return clone(model).to(case.inputs[0].backend.name)  # it may give one that it has


def wider(case: Case) -> Variant:
    """Give the network with more units: eight times as many, and at least 64, if that is few."""
    p = parts(case.initial())
    if not p.hidden:
        raise Impossible("there is no hidden Linear or Maxout layer")
    old = [p.width(i) for i in range(len(p.hidden))]
    if min(old) > WIDE:
        raise Impossible(f"all layers have more than {WIDE} units")
    new = [min(max(8 * n, 64), max(2 * WIDE, n)) for n in old]
    with sandbox(seed=6):
        for i, block in enumerate(p.hidden):
            affine: Any = block[0]
            outputs = affine.out_features * new[i] // old[i]
            inputs = affine.in_features if i == 0 else new[i - 1]
            p.hidden[i] = [drawn(affine, inputs, outputs),
                           *(resized(m, old[i], new[i]) for m in block[1:])]  # fmt: skip
        head: Any = p.head[0]
        p.head[0] = drawn(head, new[-1], head.out_features)
    return like(case, f"{new} units in place of {old}", p.joined(), "wider")


def resized(module: Any, old: int, new: int) -> Any:
    """Give a module for another number of units."""
    dtype = next((t.dtype for t in module.parameters()), None)
    if isinstance(module, BatchNorm1d):
        return BatchNorm1d(module.num_features * new // old, module.eps, module.momentum,
                           module.affine, module.track_running_stats, dtype)  # fmt: skip
    if isinstance(module, LayerNorm):
        size = module.normalized_shape[-1] * new // old
        return LayerNorm(size, module.eps, module.elementwise_affine, dtype=dtype)
    if isinstance(module, PReLU) and module.num_parameters > 1:
        return PReLU(module.num_parameters * new // old, dtype=dtype)
    if any(True for _ in module.parameters()) and not isinstance(module, PReLU):
        raise Impossible(f"a {type(module).__name__} has a size of its own")
    return module


def scaled(case: Case) -> Variant:
    """Give the network with standardized inputs."""
    if case.evidence.inputs is not None and case.evidence.inputs.ids:
        raise Impossible("inputs are ids")
    model = case.initial()
    kind = next((p.dtype for p in model.parameters()), np.dtype("float32"))
    scales = [standard(x) for x in case.inputs]

    def apply(xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(((x - mean) / std).astype(kind)
                     for x, (mean, std) in zip(xs, scales, strict=True))  # fmt: skip

    test = None if case.test is None else (apply(case.test[0]), case.test[1])
    return like(case, "inputs of mean 0 and deviation 1", model, "scaled",
                inputs=apply(case.inputs), test=test)  # fmt: skip


# --------------------------------------------------------------------------------------- depths


@dataclass
class Depth:
    """A network of so many hidden layers: its results on the training and the test set."""

    depth: int
    train: Score
    test: Score | None = None


@dataclass
class Depths(Drawable):
    """What `compare_depths` found; `print` shows the table, `plot` draws both results.

    Attributes:
        rows: One per depth, in their order.
        metric: What `Score.metric` is, `"accuracy"` or `"r2"`.
        margin: By how much results must differ to count as different.
    """

    rows: list[Depth]
    metric: str = ""
    margin: float = 0.05

    @property
    def worse(self) -> list[int]:
        """The depths that do worse on the *training* set than a shallower network.

        Too much capacity cannot be the reason, nor overfitting: the deeper network could do what
        the shallower one does.
        """
        return [row.depth for row in self.rows
                if any(other.depth < row.depth
                       and not row.train.metric >= other.train.metric - self.margin
                       for other in self.rows)]  # fmt: skip

    @property
    def deeper_is_worse(self) -> bool:
        """Whether the deepest network does worse on the training set than a shallower one."""
        return bool(self.worse) and max(row.depth for row in self.rows) in self.worse

    def __str__(self) -> str:
        worse = self.worse
        lines = [f"depth  train {self.metric}  test {self.metric}".rstrip()]
        for row in self.rows:
            test = f"{row.test.metric:.3f}" if row.test is not None else "-"
            mark = "   worse than a shallower one" if row.depth in worse else ""
            train, wide = f"{row.train.metric:.3f}", len(self.metric)
            lines.append(f"{row.depth:5}  {train:>{6 + wide}}  {test:>{5 + wide}}{mark}")
        if self.deeper_is_worse:
            lines.append("Deeper is worse on the training set: not overfitting, not capacity. Try "
                         "another activation.")  # fmt: skip
        return "\n".join(lines)

    def _canvas(self) -> dict[str, Any]:
        return {"figsize": (4.5, 3.4)}

    def _draw(self, axes: Any) -> None:
        """Draw both results over depth."""
        for label in ("train", "test"):
            seen = [(row.depth, score.metric) for row in self.rows
                    if (score := getattr(row, label)) is not None]  # fmt: skip
            if seen:
                axes.plot(*zip(*seen, strict=True), marker="o", label=label)
        axes.set(xlabel="hidden layers", ylabel=self.metric)
        axes.legend()


def compare_depths(
    make_model: Callable[..., Module], depths: Iterable[int], loss_fn: Any, train: Any,
    test: Any = None, *, activation: str | None = None,
    optimizer: Callable[[Any], Any] | None = None, epochs: int = 20, batch_size: int = 32,
    seed: int = 0,
) -> Depths:  # fmt: skip
    """Train networks of several depths alike: is a deeper one worse on the *training* set?

    Args:
        make_model: `make_model(depth)` gives a new network of so many hidden layers; with an
            activation, `make_model(depth, activation)` is called.
        depths: Numbers of hidden layers.
        loss_fn: Gives the mean over the batch, of output and target.
        train: `(x, y)`, arrays or Tensors.
        test: The same, or None.
        activation: Handed to `make_model`.
        optimizer: Makes an optimizer of parameters (default: SGD with rate 0.1).
        epochs: Passes over the training set, for each depth.
        batch_size: Examples in a step.
        seed: Of weights and orders.

    Returns:
        A `Depths`. The default generator stays as it is.

    Raises:
        TypeError: For a network, an optimizer or a single depth in place of what makes them.
        ValueError: Without a depth.

    Example:
        >>> import microgradnd as mg
        >>> def make(depth):
        ...     layers = [mg.nn.Linear(2, 8), mg.sigmoid]
        ...     for _ in range(depth - 1):
        ...         layers += [mg.nn.Linear(8, 8), mg.sigmoid]
        ...     return mg.nn.Sequential(*layers, mg.nn.Linear(8, 3))
        >>> sgd = lambda parameters: mg.optim.SGD(parameters, lr=0.5)
        >>> data = mg.data.blobs(200, seed=0)
        >>> mg.diagnosis.compare_depths(make, [1, 6], mg.cross_entropy, data, optimizer=sgd).worse
        [6]
    """
    check_maker(make_model)
    if isinstance(depths, str) or not isinstance(depths, Iterable):
        raise TypeError(
            "compare_depths: depths must be numbers of hidden layers, such as [1, 3, 6], got "
            f"{depths!r}"
        )
    if optimizer is not None and not callable(optimizer):
        raise TypeError(
            "compare_depths: each network needs an optimizer of its own; optimizer must be a "
            "function that makes one, such as lambda parameters: mg.optim.SGD(parameters, lr=0.1), "
            f"got a {type(optimizer).__name__}"
        )
    rows, known = [], Problem()
    for depth in depths:
        with sandbox(seed=seed):
            given = make_model(depth) if activation is None else make_model(depth, activation)
        if not isinstance(given, Module):
            raise TypeError(
                f"compare_depths: make_model must give a Module, gave a {type(given).__name__}"
            )
        model = clone(given)  # it may give one that it has
        inputs, target = pair(train, "train", model)
        known = problem(loss_fn, first_output(model, inputs), target)
        case = Case(model, None, "", loss_fn, inputs, target, problem=known, seconds=inf)
        if test is not None:
            case.test = pair(test, "test", model)
        steps = epochs * -(-len(target) // batch_size)
        make = optimizer or (lambda parameters: optim.SGD(parameters, lr=0.1))
        variant = Variant("depth", "", model, make, steps, batch_size)
        fit(case, variant, inputs, target, steps, seed)
        rows.append(Depth(depth, *scores(case, model)))
    if not rows:
        raise ValueError("compare_depths: at least one depth is wanted")
    return Depths(rows, known.metric)
