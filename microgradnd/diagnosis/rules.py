"""From evidence to findings: one small rule each, then which of them explain which others.

Every rule reads `Facts` and gives a finding or None. The order is that of the decision tree: what
is certain whatever the network (data, gradient, loop), what was wrong before the first step, what
went wrong in training, what is found at the end, and the result itself. A fault explains what
comes in a later part; within a part `WITHIN` says who explains whom. A fault that nothing explains
is a root, and the first root is the cause to name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, log, log10, nan, sqrt
from typing import Any

from .evidence import Evidence, Finding, Remedy, Sample
from .facts import Facts, finite, first, over
from .thresholds import Thresholds

__all__ = ["Answer", "Thresholds", "checks", "decide", "path", "roots"]

FAULT, WARNING = "fault", "warning"
#: Parts of the decision tree, in order.
LOOP, BEGIN, DURING, END, RESULT, TEST = range(6)
#: Activations that are flat at both ends, so that forward nothing can explode behind them.
BOUNDED = frozenset(
    {"sigmoid", "tanh", "softsign", "hard_sigmoid", "hard_tanh", "erf", "arctan"}
)  # fmt: skip
#: Losses that apply softmax or sigmoid themselves, and what must not stand before them.
SELF_SQUASHING = {
    "cross_entropy": ("softmax", "sigmoid", "log_sigmoid"),
    "nll": ("softmax", "sigmoid"),
    "binary_cross_entropy_with_logits": ("softmax", "sigmoid", "log_softmax", "log_sigmoid"),
}
#: Signs of too high a rate that cannot come of a network that is too small.
LOUD = frozenset({"peak", "ratio", "end", "lost"})
#: Where the outputs of what ends a model lie.
RANGES = {
    "sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0), "relu": (0.0, inf),
    "softplus": (0.0, inf), "relu6": (0.0, 6.0),
}  # fmt: skip


# -------------------------------------------------------------------------------------- helpers


def _sure(value: float, limit: float) -> float:
    """Give a confidence: 0.6 at the threshold, up to 0.95 at twice of it."""
    beyond = over(value, limit)
    return min(max(0.6 + 0.35 * (beyond - 1), 0.5), 0.95) if beyond == beyond else 0.95


def _finding(
    code: str, severity: str, *remedies: str | Remedy, side: str = "train",
    layer: str | None = None, confidence: float = 1.0, limits: dict[str, Any] | None = None,
    **seen: Any,
) -> Finding:  # fmt: skip
    """Make a finding: of what was seen a pair is a number with its limit.

    A remedy is one, or its key, or its key and a name.
    """
    made = []
    for remedy in remedies:
        if isinstance(remedy, str):
            key, _, name = remedy.partition(" ")
            remedy = _remedy(key, **({"name": name} if name else {}))
        remedy.side = side
        made.append(remedy)
    pairs = {name: pair for name, pair in seen.items() if isinstance(pair, tuple)}
    numbers = {**seen, **{name: value for name, (value, _) in pairs.items()}}
    limits = limits or {name: limit for name, (_, limit) in pairs.items()}
    return Finding(code, severity, side, layer, numbers, limits, confidence=confidence,
                   remedies=made)  # fmt: skip


def _remedy(key: str, **details: Any) -> Remedy:
    return Remedy(key, "train", details)


def _slower(facts: Facts) -> Remedy:
    """Offer the rate, divided by what brings steps to about 3e-3 of the weights."""
    return _remedy("lower_rate", rate=float(facts.rate * 10.0 ** -_powers(facts.ratio, 3e-3)))


def _powers(much: float, little: float) -> int:
    """Give how many powers of ten lie between two sizes, at least one."""
    known = 0 < much < inf and 0 < little < inf
    return max(round(log10(much / little)), 1) if known else 1


def _grade(facts: Facts, certain: bool = False) -> str:
    return FAULT if certain or facts.bad else WARNING


# ------------------------------------------------------------------ step 0: data, gradient, loop


def nonfinite(facts: Facts) -> Finding | None:
    """NaN or infinity in inputs, or from the first steps on without a rise of the loss."""
    e, events = facts.e, facts.events
    if e.inputs is not None and e.inputs.nonfinite:
        return _finding("NONFINITE", FAULT, _remedy("fix_nonfinite", where="inputs"),
                        where="inputs", step=0, count=(e.inputs.nonfinite, 0))  # fmt: skip
    if not facts.nonfinite:
        return None
    where, step = events.nonfinite_where, events.nonfinite_step
    if step is None:
        step = next((s for s, v in zip(e.loss_steps, e.losses, strict=False) if not isfinite(v)), 0)
    return _finding("NONFINITE", FAULT, _remedy("fix_nonfinite", where=where), where=where,
                    step=step, confidence=0.95 if where else 0.7)  # fmt: skip


def targets(facts: Facts) -> Finding | None:
    """Targets that are NaN, that are no class or no probability, or all the same."""
    e, i = facts.e, facts.e.inputs
    if i is None:
        return None
    last = float(max(e.classes - 1, 1))
    ignored = i.target_low == -100  # what cross-entropy leaves out by default
    signs = i.outputs == 1 and (i.target_low, i.target_high) == (-1.0, 1.0)  # of a hinge loss
    reasons = {
        "nonfinite": i.target_nonfinite > 0,
        "class": e.task == "classification"
        and ((i.target_low < 0 and not (ignored or signs)) or i.target_high > last),
        "probability": any(name.startswith("binary") for name in facts.events.loss)
        and (i.target_low < 0 or i.target_high > 1),
        "constant": i.target_low == i.target_high and e.train.n > 1,
        "unrelated": facts.nothing_to_learn and not facts.nonfinite,
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    if reason is None:
        return None
    severity = WARNING if reason == "unrelated" else _grade(facts, reason != "constant")
    return _finding("TARGETS", severity, _remedy("fix_targets", reason=reason), reason=reason,
                    low=(i.target_low, 0.0), high=(i.target_high, last), dtype=i.target_dtype,
                    count=i.target_nonfinite, held=facts.held("reference").metric)  # fmt: skip


def grad_mismatch(facts: Facts) -> Finding | None:
    """Autograd's gradient differs from finite differences."""
    check, limit = facts.e.check, facts.t.gradient_error
    if check is None or not check.checked >= facts.t.few_checks or not check.worst > limit:
        return None
    return _finding("GRAD_MISMATCH", FAULT, _remedy("fix_gradient", parameter=check.parameter),
                    error=(check.worst, limit), parameter=check.parameter, checked=check.checked,
                    confidence=_sure(check.worst, 5 * limit))  # fmt: skip


def loss_mismatch(facts: Facts) -> Finding | None:
    """A softmax or sigmoid before a loss that has its own, or one that cannot reach the targets."""
    e, i = facts.e, facts.e.inputs
    name = facts.events.squashed or (e.layers[-1].activation if e.layers else "")
    if e.events is None or not name:
        return None
    twice = next((x for x in e.events.loss if name in SELF_SQUASHING.get(x, ())), None)
    remedy = _remedy("remove_softmax", name=name, loss=twice or "")
    if twice is not None:
        return _finding("LOSS_MISMATCH", FAULT, remedy, squashed=name, loss=twice)
    low, high = RANGES.get(name, (-inf, inf))
    if i is None or e.task != "regression" or not (i.target_low < low or i.target_high > high):
        return None
    return _finding("LOSS_MISMATCH", _grade(facts), remedy, reason="range", squashed=name,
                    low=(i.target_low, low), high=(i.target_high, high))  # fmt: skip


def zero_grad(facts: Facts) -> Finding | None:
    """Backward added to gradients that a step had used already."""
    events, limit = facts.events, facts.t.stale
    share = over(events.stale, events.checked)
    if not share > limit:
        return None
    return _finding("ZERO_GRAD", FAULT, "zero_grad", share=(share, limit), steps=events.stale)


def not_optimized(facts: Facts) -> Finding | None:
    """The optimizer does not have all parameters of the model."""
    events = facts.events
    if events.backwards > 1 and not events.steps:
        return _finding("NOT_OPTIMIZED", FAULT, _remedy("add_to_optimizer", reason="step"),
                        reason="step", backwards=events.backwards, limits={"steps": 1})
    return _missing(facts, "NOT_OPTIMIZED", events.not_optimized, "add_to_optimizer",
                    foreign=events.foreign)  # fmt: skip


def unreached(facts: Facts) -> Finding | None:
    """Backward never reaches some parameters."""
    events = facts.events
    if events.steps > 1 and not events.backwards:
        return _finding("UNREACHED", FAULT, _remedy("connect", reason="backward"),
                        reason="backward", steps=events.steps, limits={"backwards": 1})
    return None if facts.nonfinite else _missing(facts, "UNREACHED", events.unreached, "connect")


def _missing(facts: Facts, code: str, names: list[str], remedy: str, **seen: Any) -> Finding | None:
    if not names:
        return None
    return _finding(code, _grade(facts), remedy, layer=names[0].rpartition(".")[0] or names[0],
                    count=(len(names), 0), parameters=names, **seen)  # fmt: skip


def eval_mode(facts: Facts) -> Finding | None:
    """Evaluated in train mode, with dropout or batch statistics."""
    events, limit = facts.events, facts.t.noisy
    share = over(events.noisy_evaluations, events.evaluations)
    if not share > limit or events.noisy_evaluations < 2:  # one may be a step that was given up
        return None
    return _finding("EVAL_MODE", FAULT, "eval_mode", side="test", share=(share, limit),
                    evaluations=events.evaluations)  # fmt: skip


def input_scale(facts: Facts) -> Finding | None:
    """Inputs that are large, far from 0, tiny, or of very unequal size."""
    e, i, t = facts.e, facts.e.inputs, facts.t
    if i is None or i.ids or i.nonfinite:
        return None
    size = facts.size
    scaled = e.compared("scaled")
    gain = nan if scaled is None else scaled.train.metric - facts.mine
    beyond = max(finite([size, i.ratio]), default=nan) > t.input_extreme
    blame = beyond if scaled is None else gain > t.margin
    blame = blame and bool(facts.bad)
    # A few large numbers among standardized ones do no harm as a rule.
    usual = max(abs(i.mean), i.std) < t.input_usual and not i.shift > t.input_size
    large = size > t.input_size or i.ratio > t.input_extreme
    if not facts.unscaled or not (blame or (large and not usual)):
        return None
    return _finding("INPUT_SCALE", FAULT if blame else WARNING, "scale_inputs",
                    size=(size, t.input_size), small=(facts.widest, t.input_small), low=i.low,
                    high=i.high, shift=i.shift, ratio=(i.ratio, t.input_extreme),
                    constant=i.constant, dtype=i.dtype, gain=gain,
                    confidence=0.95 if gain > t.margin else 0.6)  # fmt: skip


# ------------------------------------------------------------------- before the first step


def symmetric(facts: Facts) -> Finding | None:
    """Units of a hidden layer are copies of each other."""
    t, sample = facts.t, facts.began or facts.e.now
    found = [(state.same, layer.name) for layer, state in facts.states(sample)
             if layer.units > 1 and state.same >= t.same
             and not (layer.pieces and state.ties > t.same)]  # fmt: skip
    if not found:
        return None
    share, name = max(found)
    return _finding("SYMMETRIC", _grade(facts), "random_init", "init", layer=name,
                    share=(share, t.same))  # fmt: skip


def dead_at_first(facts: Facts) -> Finding | None:
    """Units that are off for all data before training."""
    return _off(facts, "DEAD", "init", facts.t.dead, "zero_bias", "init", "leaky", "normalize")


def dead(facts: Facts) -> Finding | None:
    """Units that are off for all data after training."""
    t = facts.t
    if facts.nonfinite or facts.worst(facts.began, "dead")[0] >= t.dead:
        return None
    found = _off(facts, "DEAD", "now", t.dead, _slower(facts), "leaky", "normalize",
                 least=t.dead_warning)  # fmt: skip
    if found is not None and found.evidence["share"] < t.dead:
        found.severity = WARNING
    return found


def saturated_at_first(facts: Facts) -> Finding | None:
    """Values on the flat ends of the activation before training."""
    found = _off(facts, "SATURATED", "init", facts.t.saturated, "init", "normalize",
                 "activation relu")  # fmt: skip
    if found is not None and _gap(facts):
        found.severity = FAULT
    return found


def saturated(facts: Facts) -> Finding | None:
    """Values on the flat ends of the activation after training."""
    limit = facts.t.saturated
    if facts.nonfinite or facts.worst(facts.began, "saturated")[0] >= limit:
        return None
    return _off(facts, "SATURATED", "now", limit, _slower(facts), "normalize", "activation relu")


def _off(
    facts: Facts, code: str, when: str, limit: float, *remedies: Any, least: float = nan
) -> Finding | None:
    """Find the layer with the largest share of what is dead or saturated, at that time."""
    sample = facts.began if when == "init" else facts.e.now
    share, name = facts.worst(sample, code.lower())
    if not share >= first(least, limit):
        return None
    seen: dict[str, Any] = {"share": (share, limit)}
    if code == "DEAD":
        seen["zeros"] = next(s.zeros for layer, s in facts.states(sample) if layer.name == name)
    return _finding(code, _grade(facts), *remedies, layer=name, **seen, when=when,
                    before=facts.worst(facts.began, code.lower())[0],
                    confidence=_sure(share, limit))  # fmt: skip


def _names(facts: Facts) -> set[str]:
    return {layer.activation for layer, _ in facts.states(facts.began or facts.e.now)}


def exploding(facts: Facts) -> Finding | None:
    """The gradient grows on its way back, or activations on their way forward, before training."""
    t = facts.t
    decay, slope, ends = facts.decay
    back = -decay >= t.explode and not -slope < t.explode_slope
    ahead = facts.first_loss >= t.explode_loss and facts.growth >= t.explode_forward
    if not facts.began or not (back or ahead):
        return None
    return _finding("EXPLODING", _grade(facts), f"init {_own_init(facts)}", "normalize", "clip",
                    _slower(facts), layer=ends[0] if ends else None, decades=(-decay, t.explode),
                    per_layer=(-slope, t.explode_slope), ends=ends,
                    growth=(facts.growth, t.explode_forward),
                    loss=(facts.first_loss, t.explode_loss),
                    confidence=_sure(-decay, t.explode) if back else 0.7)  # fmt: skip


def _own_init(facts: Facts) -> str:
    """Give the name of the initial weights that suit the (most frequent) activation."""
    states = facts.states(facts.e.now) or facts.states(facts.began)
    names = [layer.activation for layer, _ in states]
    most = max(sorted(set(names)), key=names.count) if names else ""
    if most == "maxout":
        return "maxout_he"
    if most in ("elu", "selu", "celu"):
        return "lecun"
    return "xavier" if most in BOUNDED or most in ("none", "") else "kaiming"


def _steep(facts: Facts) -> bool:
    """Whether |f'| is so large that a gradient gets lost in the weights, if it does."""
    return facts.slope >= facts.t.small_slope


def vanishing(facts: Facts) -> Finding | None:
    """The gradient gets lost on its way back because |f'| is small, before training."""
    return None if _steep(facts) else _lost(facts, "VANISHING", "activation relu",
                                            "activation maxout")  # fmt: skip


def init_scale(facts: Facts) -> Finding | None:
    """The gradient gets lost on its way back because weights are small, before training."""
    return _lost(facts, "INIT_SCALE", f"init {_own_init(facts)}") if _steep(facts) else None


def _lost(facts: Facts, code: str, *remedies: str) -> Finding | None:
    t = facts.t
    decay, slope, ends = facts.decay
    if not decay >= (t.vanish_likely if facts.bad else t.vanish):
        return None
    return _finding(code, _grade(facts), *remedies, "normalize", "adaptive", layer=ends[0],
                    decades=(decay, t.vanish), per_layer=slope, ends=ends, ratio=10.0**-decay,
                    slope=(facts.slope, t.small_slope), activations=sorted(_names(facts)),
                    confidence=_sure(decay, t.vanish) * (1.0 if facts.began else 0.6))  # fmt: skip


def loss_at_init(facts: Facts) -> Finding | None:
    """The first loss is far above that of the best constant output."""
    t, value, i = facts.t, facts.first_loss, facts.e.inputs
    regression = facts.e.task == "regression"
    ends = [] if i is None else finite([abs(i.target_low), abs(i.target_high)])
    far = regression and max(ends, default=0.0) > t.input_size
    limit = t.first_loss_regression if regression and not far else t.first_loss
    if not value > limit:
        return None
    large = [_remedy("fix_targets", reason="large")] if far else []
    return _finding("LOSS_AT_INIT", _grade(facts) if value >= t.first_loss_fault or far else
                    WARNING, *large, _remedy("init", layer="output"), "scale_inputs",
                    loss=facts.start, constant=facts.e.constant, relative=(value, limit),
                    confidence=_sure(value, 2 * limit))  # fmt: skip


# ------------------------------------------------------------------------------- in training


def lr_high(facts: Facts) -> Finding | None:
    """Steps are so large that the loss rises, jumps, or units are lost."""
    t = facts.t
    seen = {
        "peak": (facts.peak, t.high_loss),
        "ratio": (facts.ratio, t.high_ratio),
        "rising": (facts.rising, t.rising),
        "lost": (facts.lost, t.margin),
    }
    if isfinite(facts.start):
        seen["end"] = (over(facts.end, max(finite((facts.start, facts.base)))), 1.05)
    for what, limit in (("dead", t.dead), ("saturated", t.saturated)):
        before, now = facts.worst(facts.began, what)[0], facts.worst(facts.e.now, what)[0]
        if before < limit / 2:
            seen[what] = (now, limit)
    signs: dict[str, Any] = {name: pair for name, pair in seen.items() if pair[0] > pair[1]}
    tiny = facts.largest < t.tiny_step and not facts.peak > 5 * t.high_loss
    if not signs or tiny or not (facts.bad or "ratio" in signs):
        return None
    return _finding("LR_HIGH", _grade(facts), _slower(facts), "clip", "normalize", **signs,
                    rate=facts.rate, confidence=min(0.6 + 0.15 * len(signs), 0.95))  # fmt: skip


def lr_low(facts: Facts) -> Finding | None:
    """Steps are so small, or so few, that weights hardly moved."""
    t = facts.t
    small = facts.ratio < t.low_ratio or facts.travel < t.travel
    settled = facts.late < t.settled and not facts.travel < t.still
    if not facts.bad or not small or facts.nonfinite or settled:
        return None
    rate = float(facts.rate * 10.0 ** _powers(3e-3, facts.ratio))
    remedies: list[Any] = [_remedy("higher_rate", rate=rate), "adaptive", "more_steps"]
    few = not facts.ratio < t.low_ratio
    return _finding("LR_LOW", FAULT, *(remedies[:0:-1] if few else remedies),
                    ratio=(facts.ratio, t.low_ratio), travel=(facts.travel, t.travel),
                    steps=facts.steps, late=(facts.late, t.settled), rate=facts.rate,
                    confidence=0.9 if facts.late >= 2 * t.settled else 0.6)  # fmt: skip


# -------------------------------------------------------------------------------- at the end


def idle_at_first(facts: Facts) -> Finding | None:
    """Of nearly all Maxout groups only one piece ever wins, before training already."""
    return _idle(facts, facts.began, "init")


def idle(facts: Facts) -> Finding | None:
    """Of nearly all Maxout groups only one piece wins after training: they are linear."""
    if facts.nonfinite or facts.single(facts.began) >= facts.t.single:
        return None
    return _idle(facts, facts.e.now, "now")


def _idle(facts: Facts, sample: Sample | None, when: str) -> Finding | None:
    single, limit = facts.single(sample), facts.t.single
    if not single >= limit:
        return None
    _, unused, name = max((state.single, state.unused, layer.name)
                          for layer, state in facts.states(sample) if layer.pieces > 1)  # fmt: skip
    return _finding("UNUSED_PIECE", _grade(facts), "init maxout_he", "fewer_pieces", _slower(facts),
                    layer=name, single=(single, limit), unused=unused, when=when,
                    before=facts.single(facts.began), confidence=_sure(single, limit))  # fmt: skip


def capacity(facts: Facts) -> Finding | None:
    """A wider network is better on both sets, or there is nothing nonlinear in this one."""
    t, gain, states = facts.t, _gain(facts), facts.states(facts.e.now)
    linear = all(layer.activation == "none" for layer, _ in states)
    if not facts.bad or not (_too_small(facts) or (linear and "reference" in facts.bad)):
        return None
    return _finding("CAPACITY", FAULT, *(["activation relu"] if linear else []), "wider",
                    width=min((layer.units for layer, _ in states), default=0),
                    gain=(gain, t.wider), linear=linear,
                    confidence=0.9 if gain > 2 * t.wider else 0.7)  # fmt: skip


def _too_small(facts: Facts) -> bool:
    """Whether a wider network is better on both sets, and makes up for most of what is missing."""
    missing = facts.held("reference").metric - facts.mine
    enough = not facts.compared("wider").train.metric - facts.mine < facts.t.wider_share * missing
    return _gain(facts) > facts.t.wider and enough


def _gain(facts: Facts) -> float:
    """Give by how much a wider network is better on both sets: the smaller gain; NaN if unknown."""
    test = facts.e.test
    gains = [facts.compared("wider").train.metric - facts.mine,
             facts.held("wider").metric - (test.metric if test else facts.mine)]  # fmt: skip
    return min(finite(gains), default=nan)


# -------------------------------------------------------------------------------- the result


def deeper_is_worse(facts: Facts) -> Finding | None:
    """A network with fewer layers is better on the training set."""
    if facts.deeper_is_worse is None:
        return None
    more, shallow = facts.deeper_is_worse
    return _finding("DEEPER_IS_WORSE", FAULT, "activation relu", "activation maxout", "adaptive",
                    metric=facts.e.train.metric, shallow=shallow.train.metric,
                    depth=len(facts.hidden), shallow_depth=shallow.depth,
                    limits={"margin": facts.t.margin},
                    confidence=_sure(more, facts.t.margin))  # fmt: skip


def train_bad(facts: Facts) -> Finding | None:
    """The result is bad on the training set already."""
    if not facts.bad:
        return None
    reason, (value, limit) = next(iter(facts.bad.items()))
    remedies = ["activation relu", "activation maxout", "adaptive", "wider"]
    remedies.insert(0 if facts.falling > facts.t.settled else 4, "more_steps")
    return _finding("TRAIN_BAD", FAULT, *remedies, metric=(facts.e.train.metric, limit),
                    reason=reason, value=value, chance=facts.e.chance, reasons=list(facts.bad),
                    confidence=0.95 if len(facts.bad) > 1 else 0.75 if facts.baseline else
                    0.5)  # fmt: skip


def _gap(facts: Facts) -> tuple[float, float] | None:
    """Give training metric minus test metric, and the same in standard deviations, if large."""
    e, t = facts.e, facts.t
    if facts.bad or e.test is None or not facts.fits:
        return None
    gap = e.train.metric - e.test.metric
    n, m, z = e.train.n, e.test.n, nan
    if not (n > 0 and m > 0):  # of how many is unknown, and so is how far it may be chance
        pass
    elif e.metric == "accuracy":
        p = min(max((e.train.metric * n + e.test.metric * m) / (n + m), 0.0), 1.0)
        z = over(gap, sqrt(p * (1 - p) * (1 / n + 1 / m)))
    elif e.test.loss > 0 and e.train.loss > 0:  # means of n and m squared errors
        z = log(e.test.loss / e.train.loss) / sqrt(4 / n + 4 / m)
    return (gap, z) if gap >= t.overfit_gap and not z < t.overfit_z else None


def overfit(facts: Facts) -> Finding | None:
    """Good on the training set, worse on the test set."""
    e, t = facts.e, facts.t
    if facts.bad or e.test is None or not facts.fits:
        return None
    gap, z = _gap(facts) or (nan, nan)
    scored = [(s.test.loss, s) for s in e.samples if s.test is not None and isfinite(s.test.loss)]
    least, best = min(scored, key=lambda pair: pair[0], default=(nan, Sample(epoch=nan)))
    rise = over(e.test.loss, least)
    rose = rise > t.overfit_loss and over(e.test.loss - least, facts.base) > t.overfit_rise
    if gap != gap and not rose:
        return None
    each = over(e.train.n, e.plan.batch)  # steps of an epoch
    epoch = first(best.epoch, round(over(best.step, each), 1)) if scored else nan
    # If nobody knows a better moment, or the last one was the best, there is none to stop at.
    stop = [_remedy("early_stopping", epoch=epoch)] if rise > 1.0 else []
    return _finding("OVERFIT", FAULT if z == z else WARNING, *stop, "l2", "dropout", "more_data",
                    side="test", train=e.train.metric, test=e.test.metric,
                    gap=(e.train.metric - e.test.metric, t.overfit_gap), z=(z, t.overfit_z),
                    rise=(rise, t.overfit_loss), epoch=epoch,
                    confidence=_sure(gap, t.overfit_gap) if gap == gap else 0.5)  # fmt: skip


# ------------------------------------------------------------------------- who explains whom

Rule = Callable[[Facts], Finding | None]
#: The rules in the order of the tree, with the part that each belongs to.
RULES: tuple[tuple[int, Rule], ...] = (
    (LOOP, nonfinite), (LOOP, targets), (LOOP, grad_mismatch), (LOOP, loss_mismatch),
    (LOOP, zero_grad), (LOOP, not_optimized), (LOOP, unreached), (LOOP, input_scale),
    (BEGIN, symmetric), (BEGIN, idle_at_first), (BEGIN, dead_at_first),
    (BEGIN, saturated_at_first), (BEGIN, exploding), (BEGIN, vanishing), (BEGIN, init_scale),
    (BEGIN, loss_at_init),
    (DURING, lr_high), (DURING, lr_low),
    (END, dead), (END, saturated), (END, idle), (END, capacity),
    (RESULT, deeper_is_worse), (RESULT, train_bad),
    (TEST, eval_mode), (TEST, overfit),
)  # fmt: skip
#: Who explains whom within one part, and across parts where the order alone does not say it.
WITHIN: dict[str, tuple[str, ...]] = {
    "TARGETS": ("NONFINITE", "LOSS_AT_INIT"),
    "NONFINITE": ("GRAD_MISMATCH", "UNREACHED"),
    "UNREACHED": ("GRAD_MISMATCH",),
    "SYMMETRIC": ("DEAD", "SATURATED", "EXPLODING", "VANISHING", "INIT_SCALE", "LOSS_AT_INIT"),
    "DEAD": ("VANISHING", "INIT_SCALE", "UNUSED_PIECE", "CAPACITY"),
    "SATURATED": ("EXPLODING", "VANISHING", "INIT_SCALE", "LOSS_AT_INIT", "CAPACITY", "OVERFIT"),
    "EXPLODING": ("LOSS_AT_INIT",),
    "LR_HIGH": ("LR_LOW", "LOSS_AT_INIT"),
    "UNUSED_PIECE": ("EXPLODING", "INIT_SCALE", "LOSS_AT_INIT", "CAPACITY"),
    "DEEPER_IS_WORSE": ("TRAIN_BAD",),
    "EVAL_MODE": ("OVERFIT",),
}
#: The thresholds that decide a finding, which say where the numbers come from.
DECIDED_BY: dict[str, tuple[str, ...]] = {
    "GRAD_MISMATCH": ("gradient_error",), "ZERO_GRAD": ("stale",), "INPUT_SCALE": ("input_size",),
    "SYMMETRIC": ("same",), "UNUSED_PIECE": ("single",), "DEAD": ("dead",),
    "SATURATED": ("saturated",), "EXPLODING": ("explode", "explode_loss"),
    "VANISHING": ("vanish", "small_slope"), "INIT_SCALE": ("vanish", "small_slope"),
    "LOSS_AT_INIT": ("first_loss",), "LR_HIGH": ("high_ratio", "high_loss", "rising"),
    "LR_LOW": ("low_ratio", "travel"), "CAPACITY": ("wider", "wider_share"),
    "DEEPER_IS_WORSE": ("margin",), "TRAIN_BAD": ("chance_sds", "margin"), "EVAL_MODE": ("noisy",),
    "OVERFIT": ("overfit_gap", "overfit_z"),
}  # fmt: skip
#: The source of what needs no number: NaN, targets out of range, a parameter nobody trains.
CERTAIN = "wrong by definition, no threshold"
#: Faults of the loop that say nothing of the state before training.
NOT_BEGIN = frozenset({"ZERO_GRAD", "NOT_OPTIMIZED", "UNREACHED", "LOSS_MISMATCH"})


def decide(evidence: Evidence, thresholds: Thresholds | None = None) -> list[Finding]:
    """Give what is wrong: first the roots, then what they explain, then warnings.

    A pure function of the evidence. Each of the three groups is in the order of the decision tree.

    Args:
        evidence: What is known; unknown numbers are NaN, and no rule fires on them.
        thresholds: What they are compared with; None: the defaults.

    Example:
        >>> from microgradnd.diagnosis import Evidence
        >>> decide(Evidence())
        []
    """
    facts = Facts(evidence, thresholds or Thresholds())
    found: list[tuple[int, Finding]] = []
    for part, rule in RULES:
        finding = rule(facts)
        if finding is not None:
            found.append((_part(facts, finding, part), finding))
    _settle_doubts(facts, found)
    for part, finding in found:
        if finding.severity == FAULT:
            finding.explains = [
                other.code for later, other in found
                if other is not finding and _explains(part, finding, later, other)
            ]  # fmt: skip
        if not facts.baseline and finding.side == "train":
            finding.confidence *= 0.9
        own = _names(facts)
        if len(own) == 1:  # nobody is told to take what is there already
            finding.remedies = [r for r in finding.remedies
                                if r.key != "activation" or r.details.get("name") not in own]
        names = DECIDED_BY.get(finding.code, ())
        finding.source = "; ".join(dict.fromkeys(facts.t.source(name) for name in names)) or CERTAIN
    found.sort(key=lambda pair: pair[0])
    findings = [finding for _, finding in found]
    causes = roots(findings)
    return sorted(findings, key=lambda f: 0 if f in causes else 1 if f.severity == FAULT else 2)


def _part(facts: Facts, finding: Finding, part: int) -> int:
    """Give the part that a finding belongs to: what looks like a cause may be a symptom."""
    if finding.code == "NONFINITE" and finding.evidence["where"] != "inputs" and diverged(facts):
        return END  # the loss has run away to NaN, that is not where the trouble began
    if finding.code == "DEAD" and part == BEGIN:
        lost = facts.decay[0] >= facts.t.vanish_likely and facts.thin < facts.t.thin
        if lost and finding.evidence["share"] < facts.t.all_dead:
            return DURING  # so narrow or thin that what dies has got no signal
    return part


def diverged(facts: Facts) -> bool:
    """Whether steps too large, or a start that explodes, are what made the loss NaN."""
    wild = facts.largest > facts.t.high_ratio or facts.peak > facts.t.high_loss
    return wild or exploding(facts) is not None


def _settle_doubts(facts: Facts, found: list[tuple[int, Finding]]) -> None:
    """Let what is only likely be a warning where something else is to blame."""
    small = _too_small(facts)
    rate = next((f for _, f in found if f.code == "LR_HIGH"), None)
    high = rate is not None and not (small and not LOUD & set(rate.evidence))
    # With a mistake in the loop, a network that was trained without it is better for that alone.
    loop = any(f.code in ("GRAD_MISMATCH", "LOSS_MISMATCH", *NOT_BEGIN) for _, f in found)
    for part, finding in found:
        if finding.code in ("VANISHING", "INIT_SCALE"):
            doubtful = high and not finding.evidence["decades"] >= facts.t.vanish
        elif finding.code == "INPUT_SCALE":
            doubtful = loop and not finding.evidence["size"] > facts.t.input_extreme
        else:  # a network that is too small may lose units, too
            lost = finding is rate or (part == END and finding.code in ("DEAD", "SATURATED"))
            doubtful = lost and small and not high
        if doubtful:
            finding.severity = WARNING


def _explains(part: int, cause: Finding, later: int, other: Finding) -> bool:
    if other.code in WITHIN.get(cause.code, ()) and part <= later:
        return True
    if cause.side != other.side or part >= later:
        return False
    return not (part == LOOP and later == BEGIN and cause.code in NOT_BEGIN)


def roots(findings: list[Finding]) -> list[Finding]:
    """Give the faults that no other finding explains; the first is the cause to name."""
    explained = {code for finding in findings for code in finding.explains}
    return [f for f in findings if f.severity == FAULT and f.code not in explained]


# ---------------------------------------------------------------- the path through the tree


@dataclass
class Answer:
    """One question on the way through the decision tree, or one of the three classical checks.

    Attributes:
        step: `"0"`, `"1"`, `"1a"`, ..., or `"model"`, `"loss"`, `"optimizer"`.
        codes: What was asked for; of a check the roots that belong to it.
        outcome: `"yes"` (a fault), `"warning"`, `"no"`, `"unknown"` (not measured), or
            `"skipped"` (it is not asked after the answers before). Of a check: `"bad"`, `"ok"` or
            `"unknown"`.
        value, limit: The number that decided, and its threshold; NaN if there is none.
    """

    step: str
    codes: list[str]
    outcome: str
    value: float = nan
    limit: float = nan


Number = Callable[[Facts], tuple[float, float]]


def _events(what: Callable[[Any], float]) -> Number:
    return lambda facts: (nan if facts.e.events is None else what(facts.e.events), 0.0)


#: Step, code, and the number that is asked for with its limit.
TREE: tuple[tuple[str, str, Number], ...] = (
    ("0", "NONFINITE", lambda f: (float(f.nonfinite), 0.0)),
    ("0", "TARGETS", lambda f: (nan if f.e.inputs is None else f.e.inputs.target_nonfinite, 0.0)),
    ("0", "GRAD_MISMATCH", lambda f: (f.e.check.worst if f.e.check else nan, f.t.gradient_error)),
    ("0", "LOSS_MISMATCH", _events(lambda e: bool(e.squashed))),
    ("0", "ZERO_GRAD", _events(lambda e: e.stale / e.checked if e.checked else nan)),
    ("0", "NOT_OPTIMIZED", _events(lambda e: len(e.not_optimized))),
    ("0", "UNREACHED", _events(lambda e: len(e.unreached))),
    ("0", "INPUT_SCALE", lambda f: (f.size, f.t.input_size)),
    ("0", "LOSS_AT_INIT", lambda f: (f.first_loss, f.t.first_loss)),
    ("1", "TRAIN_BAD", lambda f: (f.e.train.metric, max(f.limits.values(), default=nan))),
    ("1", "DEEPER_IS_WORSE",
     lambda f: (f.compared("shallow").train.metric - f.e.train.metric, f.t.margin)),
    ("1a", "EXPLODING", lambda f: (-f.decay[0], f.t.explode)),
    ("1b", "VANISHING", lambda f: (0.0 if _steep(f) else f.decay[0], f.t.vanish)),
    ("1b", "INIT_SCALE", lambda f: (f.decay[0] if _steep(f) else 0.0, f.t.vanish)),
    ("1c", "DEAD", lambda f: (f.worst(f.e.now, "dead")[0], f.t.dead)),
    ("1d", "SATURATED", lambda f: (f.worst(f.e.now, "saturated")[0], f.t.saturated)),
    ("1e", "LR_HIGH", lambda f: (f.ratio, f.t.high_ratio)),
    ("1f", "LR_LOW", lambda f: (f.ratio, f.t.low_ratio)),
    ("1g", "CAPACITY", lambda f: (_gain(f), f.t.wider)),
    ("1h", "UNUSED_PIECE", lambda f: (f.single(f.e.now), f.t.single)),
    ("1i", "SYMMETRIC", lambda f: (f.worst(f.began or f.e.now, "same")[0], f.t.same)),
    ("2", "EVAL_MODE", _events(lambda e: e.noisy_evaluations)),
    ("2", "OVERFIT", lambda f: (f.e.train.metric - f.e.test.metric if f.e.test else nan,
                                f.t.overfit_gap)),
)  # fmt: skip
#: The three steps of classical machine learning, and the findings that belong to each.
CHECKS: dict[str, tuple[str, ...]] = {
    "model": ("GRAD_MISMATCH", "UNREACHED", "SYMMETRIC", "DEAD", "SATURATED", "EXPLODING",
              "VANISHING", "INIT_SCALE", "UNUSED_PIECE", "CAPACITY", "DEEPER_IS_WORSE"),
    "loss": ("NONFINITE", "TARGETS", "LOSS_MISMATCH", "INPUT_SCALE", "LOSS_AT_INIT"),
    "optimizer": ("ZERO_GRAD", "NOT_OPTIMIZED", "LR_HIGH", "LR_LOW"),
}  # fmt: skip


def path(
    evidence: Evidence, findings: list[Finding], thresholds: Thresholds | None = None
) -> list[Answer]:
    """Give the way through the decision tree, question by question."""
    facts = Facts(evidence, thresholds or Thresholds())
    severities: dict[str, str] = {}
    for finding in findings:
        severities.setdefault(finding.code, finding.severity)
    bad = "TRAIN_BAD" in severities
    answers = []
    for step, code, number in TREE:
        value, limit = number(facts)
        if code in severities:
            outcome = "yes" if severities[code] == FAULT else "warning"
        elif (code == "OVERFIT" and bad) or (len(step) > 1 and not bad):
            outcome = "skipped"
        else:
            outcome = "unknown" if value != value else "no"
        answers.append(Answer(step, [code], outcome, value, limit))
    fine = not any(severity == FAULT for severity in severities.values())
    return [*answers, Answer("3", ["OK"], "yes" if fine else "no")]


def checks(evidence: Evidence, findings: list[Finding]) -> list[Answer]:
    """Give the outcome of the three classical checks: model, loss, optimizer."""
    known = {
        "model": evidence.init is not None or bool(evidence.now.layers),
        "loss": evidence.inputs is not None or evidence.events is not None,
        "optimizer": bool(evidence.samples or evidence.losses),
    }
    causes = [f.code for f in roots(findings)]
    answers = []
    for name, codes in CHECKS.items():
        found = [code for code in causes if code in codes]
        outcome = "bad" if found else "ok" if known[name] else "unknown"
        answers.append(Answer(name, found, outcome))
    return answers
