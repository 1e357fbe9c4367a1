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

from .evidence import Comparison, Evidence, Finding, Inputs, Remedy, Sample
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


def _sure(value: float, limit: float, below: bool = False) -> float:
    """Give a confidence: 0.6 at the threshold, up to 0.95 at twice of it (or half of it)."""
    beyond = over(limit, value) if below else over(value, limit)
    if beyond != beyond:  # value 0 below a limit, or no limit
        return 0.95
    return min(max(0.6 + 0.35 * (beyond - 1), 0.5), 0.95)


def _remedy(key: str, side: str = "train", **details: Any) -> Remedy:
    return Remedy(key, side, details)


def _activation(*names: str) -> list[Remedy]:
    return [_remedy("activation", name=name) for name in names]


def _grade(facts: Facts, certain: bool = False) -> str:
    return FAULT if certain or facts.bad else WARNING


# ------------------------------------------------------------------ step 0: data, gradient, loop


def nonfinite(facts: Facts) -> Finding | None:
    """NaN or infinity in inputs, or from the first steps on without a rise of the loss."""
    e = facts.e
    if e.inputs is not None and e.inputs.nonfinite:
        return Finding("NONFINITE", FAULT, evidence={"where": "inputs", "step": 0,
                       "count": e.inputs.nonfinite}, threshold={"count": 0},
                       remedies=[_remedy("fix_nonfinite", where="inputs")])  # fmt: skip
    if not facts.nonfinite:
        return None
    where = e.events.nonfinite_where if e.events else ""
    step = e.events.nonfinite_step if e.events else None
    if step is None:
        step = next((s for s, v in zip(e.loss_steps, e.losses, strict=False) if not isfinite(v)), 0)
    return Finding("NONFINITE", FAULT, evidence={"where": where, "step": step},
                   confidence=0.95 if where else 0.7,
                   remedies=[_remedy("fix_nonfinite", where=where)])  # fmt: skip


def targets(facts: Facts) -> Finding | None:
    """Targets that are NaN, that are no class or no probability, or all the same."""
    e, i = facts.e, facts.e.inputs
    if i is None:
        return None
    loss = e.events.loss if e.events else []
    last = float(max(e.classes - 1, 1))
    ignored = i.target_low == -100  # what cross-entropy leaves out by default
    signs = i.outputs == 1 and (i.target_low, i.target_high) == (-1.0, 1.0)  # of a hinge loss
    reasons = {
        "nonfinite": i.target_nonfinite > 0,
        "class": e.task == "classification"
        and ((i.target_low < 0 and not (ignored or signs)) or i.target_high > last),
        "probability": any(name.startswith("binary") for name in loss)
        and (i.target_low < 0 or i.target_high > 1),
        "constant": i.target_low == i.target_high and facts.e.train.n > 1,
        "unrelated": facts.nothing_to_learn and not facts.nonfinite,
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    if reason is None:
        return None
    reference = e.compared("reference")
    held = nan if reference is None or reference.test is None else reference.test.metric
    certain = reason not in ("constant", "unrelated")
    return Finding("TARGETS", _grade(facts, certain) if reason != "unrelated" else WARNING,
                   evidence={"reason": reason, "low": i.target_low, "high": i.target_high,
                             "dtype": i.target_dtype, "count": i.target_nonfinite, "held": held},
                   threshold={"low": 0.0, "high": last},
                   remedies=[_remedy("fix_targets", reason=reason)])  # fmt: skip


def grad_mismatch(facts: Facts) -> Finding | None:
    """Autograd's gradient differs from finite differences."""
    check, limit = facts.e.check, facts.t.gradient_error
    if check is None or not check.checked >= facts.t.few_checks or not check.worst > limit:
        return None
    return Finding("GRAD_MISMATCH", FAULT,
                   evidence={"error": check.worst, "parameter": check.parameter,
                             "checked": check.checked},
                   threshold={"error": limit}, confidence=_sure(check.worst, 5 * limit),
                   remedies=[_remedy("fix_gradient", parameter=check.parameter)])  # fmt: skip


def loss_mismatch(facts: Facts) -> Finding | None:
    """A softmax or sigmoid before a loss that has its own, or one that cannot reach the targets."""
    events, i = facts.e.events, facts.e.inputs
    last = facts.e.layers[-1].activation if facts.e.layers else ""
    name = (events.squashed if events else "") or last
    if events is None or not name:
        return None
    twice = next((x for x in events.loss if name in SELF_SQUASHING.get(x, ())), None)
    low, high = RANGES.get(name, (-inf, inf))
    narrow = i is not None and facts.e.task == "regression" and (
        i.target_low < low or i.target_high > high)  # fmt: skip
    if twice is None and not narrow:
        return None
    remedies = [_remedy("remove_softmax", name=name, loss=twice or "")]
    if i is None or twice is not None:
        return Finding("LOSS_MISMATCH", FAULT, evidence={"squashed": name, "loss": twice},
                       remedies=remedies)  # fmt: skip
    return Finding("LOSS_MISMATCH", _grade(facts),
                   evidence={"reason": "range", "squashed": name, "low": i.target_low,
                             "high": i.target_high},
                   threshold={"low": low, "high": high}, remedies=remedies)  # fmt: skip


def zero_grad(facts: Facts) -> Finding | None:
    """Backward added to gradients that a step had used already."""
    events, limit = facts.e.events, facts.t.stale
    if events is None or not events.checked or not events.stale / events.checked > limit:
        return None
    share = events.stale / events.checked
    return Finding("ZERO_GRAD", FAULT, evidence={"share": share, "steps": events.stale},
                   threshold={"share": limit}, remedies=[_remedy("zero_grad")])  # fmt: skip


def not_optimized(facts: Facts) -> Finding | None:
    """The optimizer does not have all parameters of the model."""
    events = facts.e.events
    if events is not None and events.backwards > 1 and not events.steps:
        return Finding("NOT_OPTIMIZED", FAULT, evidence={"reason": "step",
                       "backwards": events.backwards}, threshold={"steps": 1},
                       remedies=[_remedy("add_to_optimizer", reason="step")])  # fmt: skip
    if events is None or not events.not_optimized:
        return None
    names = events.not_optimized
    return Finding("NOT_OPTIMIZED", _grade(facts), layer=names[0].rpartition(".")[0] or names[0],
                   evidence={"count": len(names), "parameters": names, "foreign": events.foreign},
                   threshold={"count": 0}, remedies=[_remedy("add_to_optimizer")])  # fmt: skip


def unreached(facts: Facts) -> Finding | None:
    """Backward never reaches some parameters."""
    events = facts.e.events
    if events is not None and events.steps > 1 and not events.backwards:
        return Finding("UNREACHED", FAULT, evidence={"reason": "backward", "steps": events.steps},
                       threshold={"backwards": 1},
                       remedies=[_remedy("connect", reason="backward")])  # fmt: skip
    if events is None or not events.unreached or facts.nonfinite:
        return None
    names = events.unreached
    return Finding("UNREACHED", _grade(facts), layer=names[0].rpartition(".")[0] or names[0],
                   evidence={"count": len(names), "parameters": names},
                   threshold={"count": 0}, remedies=[_remedy("connect")])  # fmt: skip


def eval_mode(facts: Facts) -> Finding | None:
    """Evaluated in train mode, with dropout or batch statistics."""
    events, limit = facts.e.events, facts.t.noisy
    if events is None or not events.evaluations:
        return None
    share = events.noisy_evaluations / events.evaluations
    if not share > limit or events.noisy_evaluations < 2:  # one may be a step that was given up
        return None
    return Finding("EVAL_MODE", FAULT, side="test",
                   evidence={"share": share, "evaluations": events.evaluations},
                   threshold={"share": limit}, remedies=[_remedy("eval_mode", "test")])  # fmt: skip


def input_scale(facts: Facts) -> Finding | None:
    """Inputs that are large, far from 0, tiny, or of very unequal size."""
    e, i, t = facts.e, facts.e.inputs, facts.t
    if i is None or i.ids or i.nonfinite:
        return None
    size, largest = _size(i), max(finite([abs(i.low), abs(i.high)]), default=nan)
    odd = size > t.input_size or largest < t.input_small or i.ratio > t.input_size
    scaled, gain = e.compared("scaled"), nan
    if scaled is not None:
        gain = scaled.train.metric - first(e.train.metric, e.chance)
        blame = gain > t.margin
    else:
        blame = max(finite([size, i.ratio]), default=nan) > t.input_extreme
    blame = blame and bool(facts.bad)
    # A few large numbers among standardized ones do no harm as a rule.
    usual = max(abs(i.mean), i.std) < t.input_usual and not i.shift > t.input_size
    large = size > t.input_size or i.ratio > t.input_extreme
    if not odd or not (blame or (large and not usual)):
        return None
    return Finding("INPUT_SCALE", FAULT if blame else WARNING,
                   evidence={"size": size, "small": largest, "low": i.low, "high": i.high,
                             "shift": i.shift, "ratio": i.ratio, "constant": i.constant,
                             "dtype": i.dtype, "gain": gain},
                   threshold={"size": t.input_size, "small": t.input_small,
                              "ratio": t.input_extreme},
                   confidence=0.95 if gain > t.margin else 0.6,
                   remedies=[_remedy("scale_inputs")])  # fmt: skip


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
    return Finding("SYMMETRIC", _grade(facts), layer=name, evidence={"share": share},
                   threshold={"share": t.same},
                   remedies=[_remedy("random_init"), _remedy("init")])  # fmt: skip


def dead_at_first(facts: Facts) -> Finding | None:
    """Units that are off for all data before training."""
    share, name = facts.worst(facts.began, "dead")
    if not share >= facts.t.dead:
        return None
    finding = _dead(facts, share, name, facts.began, "init")
    finding.remedies = [_remedy("zero_bias"), _remedy("init"), _remedy("leaky"),
                        _remedy("normalize")]  # fmt: skip
    return finding


def dead(facts: Facts) -> Finding | None:
    """Units that are off for all data after training."""
    e, t = facts.e, facts.t
    share, name = facts.worst(e.now, "dead")
    if facts.nonfinite or not share >= t.dead_warning:
        return None
    if facts.worst(facts.began, "dead")[0] >= t.dead:
        return None
    finding = _dead(facts, share, name, e.now, "now")
    finding.remedies = [_remedy("lower_rate", rate=_lower(facts)), _remedy("leaky"),
                        _remedy("normalize")]  # fmt: skip
    if share < t.dead or not facts.bad:
        finding.severity = WARNING
    return finding


def _dead(facts: Facts, share: float, name: str | None, sample: Sample | None,
          when: str) -> Finding:  # fmt: skip
    zeros = next((s.zeros for layer, s in facts.states(sample) if layer.name == name), nan)
    return Finding("DEAD", _grade(facts), layer=name,
                   evidence={"share": share, "zeros": zeros, "when": when,
                             "before": facts.worst(facts.began, "dead")[0]},
                   threshold={"share": facts.t.dead},
                   confidence=_sure(share, facts.t.dead))  # fmt: skip


def saturated_at_first(facts: Facts) -> Finding | None:
    """Values on the flat ends of the activation before training."""
    share, name = facts.worst(facts.began, "saturated")
    if not share >= facts.t.saturated:
        return None
    return _saturated(facts, share, name, "init", _grade(facts, bool(_gap(facts))),
                      [_remedy("init"), _remedy("normalize"), *_activation("relu")])  # fmt: skip


def saturated(facts: Facts) -> Finding | None:
    """Values on the flat ends of the activation after training."""
    share, name = facts.worst(facts.e.now, "saturated")
    limit = facts.t.saturated
    if facts.nonfinite or not share >= limit:
        return None
    if facts.worst(facts.began, "saturated")[0] >= limit:
        return None
    return _saturated(facts, share, name, "now", _grade(facts),
                      [_remedy("lower_rate", rate=_lower(facts)), _remedy("normalize"),
                       *_activation("relu")])  # fmt: skip


def _saturated(facts: Facts, share: float, name: str | None, when: str, severity: str,
               remedies: list[Remedy]) -> Finding:  # fmt: skip
    return Finding("SATURATED", severity, layer=name,
                   evidence={"share": share, "when": when,
                             "before": facts.worst(facts.began, "saturated")[0]},
                   threshold={"share": facts.t.saturated},
                   confidence=_sure(share, facts.t.saturated), remedies=remedies)  # fmt: skip


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
    return Finding("EXPLODING", _grade(facts), layer=ends[0] if ends else None,
                   evidence={"decades": -decay, "per_layer": -slope, "ends": ends,
                             "growth": facts.growth, "loss": facts.first_loss},
                   threshold={"decades": t.explode, "per_layer": t.explode_slope,
                              "loss": t.explode_loss, "growth": t.explode_forward},
                   confidence=_sure(-decay, t.explode) if back else 0.7,
                   remedies=[_remedy("init", name=_own_init(facts)), _remedy("normalize"),
                             _remedy("clip"), _remedy("lower_rate",
                                                      rate=_lower(facts))])  # fmt: skip


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
    return _lost(facts, "VANISHING", not _steep(facts),
                 [*_activation("relu", "maxout"), _remedy("normalize"),
                  _remedy("adaptive")])  # fmt: skip


def init_scale(facts: Facts) -> Finding | None:
    """The gradient gets lost on its way back because weights are small, before training."""
    return _lost(facts, "INIT_SCALE", _steep(facts),
                 [_remedy("init", name=_own_init(facts)), _remedy("normalize"),
                  _remedy("adaptive")])  # fmt: skip


def _lost(facts: Facts, code: str, applies: bool, remedies: list[Remedy]) -> Finding | None:
    t = facts.t
    decay, slope, ends = facts.decay
    if not applies or not decay >= (t.vanish_likely if facts.bad else t.vanish):
        return None
    names = _names(facts)
    return Finding(code, _grade(facts), layer=ends[0],
                   evidence={"decades": decay, "per_layer": slope, "ends": ends,
                             "ratio": 10.0**-decay, "slope": facts.slope,
                             "activations": sorted(names)},
                   threshold={"decades": t.vanish, "slope": t.small_slope},
                   confidence=_sure(decay, t.vanish) * (1.0 if facts.began else 0.6),
                   remedies=remedies)  # fmt: skip


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
    return Finding("LOSS_AT_INIT", _grade(facts) if value >= t.first_loss_fault or far else WARNING,
                   evidence={"loss": facts.start, "constant": facts.e.constant, "relative": value},
                   threshold={"relative": limit}, confidence=_sure(value, 2 * limit),
                   remedies=[*large, _remedy("init", layer="output"),
                             _remedy("scale_inputs")])  # fmt: skip


# ------------------------------------------------------------------------------- in training


def _signs_of_high_rate(facts: Facts) -> dict[str, tuple[float, float]]:
    """Give what speaks for too large steps: name -> (value, limit)."""
    t, e = facts.t, facts.e
    signs = {
        "peak": (facts.peak, t.high_loss),
        "ratio": (facts.ratio, t.high_ratio),
        "rising": (facts.rising, t.rising),
        "lost": (facts.lost, t.margin),
    }
    if isfinite(facts.start):
        signs["end"] = (over(facts.end, max(finite((facts.start, facts.base)))), 1.05)
    for what, limit in (("dead", t.dead), ("saturated", t.saturated)):
        before, now = facts.worst(facts.began, what)[0], facts.worst(e.now, what)[0]
        if before < limit / 2:
            signs[what] = (now, limit)
    return {name: pair for name, pair in signs.items() if pair[0] > pair[1]}


def lr_high(facts: Facts) -> Finding | None:
    """Steps are so large that the loss rises, jumps, or units are lost."""
    signs = _signs_of_high_rate(facts)
    tiny = facts.largest < facts.t.tiny_step and not facts.peak > 5 * facts.t.high_loss
    if not signs or tiny or not (facts.bad or "ratio" in signs):
        return None
    return Finding("LR_HIGH", _grade(facts),
                   evidence={name: value for name, (value, _) in signs.items()}
                   | {"rate": facts.rate},
                   threshold={name: limit for name, (_, limit) in signs.items()},
                   confidence=min(0.6 + 0.15 * len(signs), 0.95),
                   remedies=[_remedy("lower_rate", rate=_lower(facts)), _remedy("clip"),
                             _remedy("normalize")])  # fmt: skip


def _lower(facts: Facts) -> float:
    """Give the rate, divided by the power of ten that brings steps to about 3e-3 of the weights."""
    powers = round(log10(facts.ratio / 3e-3)) if 0 < facts.ratio < inf else 1
    return float(facts.rate * 10.0 ** -max(powers, 1))


def _higher(facts: Facts) -> float:
    """Give the rate, times the power of ten that brings steps to about 3e-3 of the weights."""
    powers = round(log10(over(3e-3, facts.ratio))) if 0 < facts.ratio < inf else 1
    return float(facts.rate * 10.0 ** max(powers, 1))


def lr_low(facts: Facts) -> Finding | None:
    """Steps are so small, or so few, that weights hardly moved."""
    t = facts.t
    small = facts.ratio < t.low_ratio or facts.travel < t.travel
    settled = facts.late < t.settled and not facts.travel < t.still
    if not facts.bad or not small or facts.nonfinite or settled:
        return None
    few = not facts.ratio < t.low_ratio
    remedies = [_remedy("higher_rate", rate=_higher(facts)), _remedy("adaptive"),
                _remedy("more_steps")]  # fmt: skip
    return Finding("LR_LOW", FAULT,
                   evidence={"ratio": facts.ratio, "travel": facts.travel, "steps": facts.steps,
                             "late": facts.late, "rate": facts.rate},
                   threshold={"ratio": t.low_ratio, "travel": t.travel, "late": t.settled},
                   confidence=0.9 if facts.late >= 2 * t.settled else 0.6,
                   remedies=remedies[:0:-1] if few else remedies)  # fmt: skip


# -------------------------------------------------------------------------------- at the end


def idle_at_first(facts: Facts) -> Finding | None:
    """Of nearly all Maxout groups only one piece ever wins, before training already."""
    single = facts.single(facts.began)
    return _idle(facts, facts.began, "init") if single >= facts.t.single else None


def idle(facts: Facts) -> Finding | None:
    """Of nearly all Maxout groups only one piece wins after training: they are linear."""
    if facts.nonfinite or facts.single(facts.began) >= facts.t.single:
        return None
    return _idle(facts, facts.e.now, "now") if facts.single(facts.e.now) >= facts.t.single else None


def _idle(facts: Facts, sample: Sample | None, when: str) -> Finding:
    states = [(state.single, state.unused, layer.name) for layer, state in facts.states(sample)
              if layer.pieces > 1]  # fmt: skip
    _, unused, name = max(states)
    return Finding("UNUSED_PIECE", _grade(facts), layer=name,
                   evidence={"single": facts.single(sample), "unused": unused, "when": when,
                             "before": facts.single(facts.began)},
                   threshold={"single": facts.t.single},
                   confidence=_sure(facts.single(sample), facts.t.single),
                   remedies=[_remedy("init", name="maxout_he"), _remedy("fewer_pieces"),
                             _remedy("lower_rate", rate=_lower(facts))])  # fmt: skip


def capacity(facts: Facts) -> Finding | None:
    """A wider network is better on both sets, or there is nothing nonlinear in this one."""
    e, t = facts.e, facts.t
    if not facts.bad:
        return None
    wider = e.compared("wider")
    width = min((layer.units for layer, _ in facts.states(e.now)), default=0)
    linear = all(layer.activation == "none" for layer, _ in facts.states(e.now))
    gain = _gains(facts, wider)
    if not (_too_small(facts) or (linear and "reference" in facts.bad)):
        return None
    return Finding("CAPACITY", FAULT,
                   evidence={"width": width, "gain": gain, "linear": linear},
                   threshold={"gain": t.wider}, confidence=0.9 if gain > 2 * t.wider else 0.7,
                   remedies=[*(_activation("relu") if linear else ()),
                             _remedy("wider")])  # fmt: skip


def _too_small(facts: Facts) -> bool:
    """Whether a wider network is better on both sets, and makes up for most of what is missing."""
    e, t = facts.e, facts.t
    wider, reference = e.compared("wider"), e.compared("reference")
    if wider is None or not _gains(facts, wider) > t.wider:
        return False
    mine = first(e.train.metric, e.chance)
    goal = reference.test.metric if reference is not None and reference.test is not None else nan
    return not wider.train.metric - mine < t.wider_share * (goal - mine)


def _gains(facts: Facts, other: Comparison | None) -> float:
    """Give by how much a variant is better on both sets: the smaller gain; NaN if unknown."""
    if other is None:
        return nan
    e = facts.e
    mine = first(e.train.metric, e.chance)
    gains = [other.train.metric - mine]
    if other.test is not None:
        gains.append(other.test.metric - (e.test.metric if e.test else mine))
    return min(finite(gains), default=nan)


# -------------------------------------------------------------------------------- the result


def deeper_is_worse(facts: Facts) -> Finding | None:
    """A network with fewer layers is better on the training set."""
    if facts.deeper_is_worse is None:
        return None
    more, shallow = facts.deeper_is_worse
    return Finding("DEEPER_IS_WORSE", FAULT,
                   evidence={"metric": facts.e.train.metric, "shallow": shallow.train.metric,
                             "depth": len(facts.hidden), "shallow_depth": shallow.depth},
                   threshold={"margin": facts.t.margin}, confidence=_sure(more, facts.t.margin),
                   remedies=[*_activation("relu", "maxout"), _remedy("adaptive")])  # fmt: skip


def train_bad(facts: Facts) -> Finding | None:
    """The result is bad on the training set already."""
    if not facts.bad:
        return None
    reason, (value, limit) = next(iter(facts.bad.items()))
    remedies = [*_activation("relu", "maxout"), _remedy("adaptive"), _remedy("wider")]
    remedies.insert(0 if facts.falling > facts.t.settled else 4, _remedy("more_steps"))
    return Finding("TRAIN_BAD", FAULT,
                   evidence={"metric": facts.e.train.metric, "reason": reason, "value": value,
                             "chance": facts.e.chance, "reasons": list(facts.bad)},
                   threshold={"metric": limit},
                   confidence=0.95 if len(facts.bad) > 1 else 0.75 if facts.baseline else 0.5,
                   remedies=remedies)  # fmt: skip


def _gap(facts: Facts) -> tuple[float, float] | None:
    """Give training metric minus test metric, and the same in standard deviations, if large."""
    e, t = facts.e, facts.t
    if facts.bad or e.test is None or not facts.fits:
        return None
    gap = e.train.metric - e.test.metric
    n, m = e.train.n, e.test.n
    if e.metric == "accuracy" and n > 0 and m > 0:
        p = min(max((e.train.metric * n + e.test.metric * m) / (n + m), 0.0), 1.0)
        z = over(gap, sqrt(p * (1 - p) * (1 / n + 1 / m)))
    else:
        z = _log_ratio(e.test.loss, e.train.loss, n, m)
    if not (n and m):  # of how many is unknown, and so is how far it may be chance
        z = nan
    return (gap, z) if gap >= t.overfit_gap and not z < t.overfit_z else None


def _log_ratio(worse: float, better: float, n: int, m: int) -> float:
    """Give ln(worse / better) in standard deviations, for means of n and m squared errors."""
    if not (worse > 0 and better > 0 and n > 0 and m > 0):
        return nan
    return log(worse / better) / sqrt(4 / n + 4 / m)


def overfit(facts: Facts) -> Finding | None:
    """Good on the training set, worse on the test set."""
    e, t = facts.e, facts.t
    if facts.bad or e.test is None or not facts.fits:
        return None
    gap = _gap(facts)
    scored = [s for s in e.samples if s.test is not None and isfinite(s.test.loss)]
    best = min(scored, key=lambda s: s.test.loss if s.test else nan, default=None)
    least = best.test.loss if best is not None and best.test is not None else nan
    rise = over(e.test.loss, least)
    rose = rise > t.overfit_loss and over(e.test.loss - least, facts.base) > t.overfit_rise
    if gap is None and not rose:
        return None
    epoch = nan
    if best is not None:
        each = over(e.train.n, e.plan.batch)  # steps of an epoch
        epoch = first(best.epoch, round(over(best.step, each), 1))
    # If nobody knows a better moment, or the last one was the best, there is none to stop at.
    stop = [_remedy("early_stopping", "test", epoch=epoch)] if rise > 1.0 else []
    return Finding("OVERFIT", FAULT if gap and gap[1] == gap[1] else WARNING, side="test",
                   evidence={"train": e.train.metric, "test": e.test.metric,
                             "gap": e.train.metric - e.test.metric, "z": gap[1] if gap else nan,
                             "rise": rise, "epoch": epoch},
                   threshold={"gap": t.overfit_gap, "z": t.overfit_z, "rise": t.overfit_loss},
                   confidence=_sure(gap[0], t.overfit_gap) if gap else 0.5,
                   remedies=[*stop, _remedy("l2", "test"), _remedy("dropout", "test"),
                             _remedy("more_data", "test")])  # fmt: skip


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
    ("0", "INPUT_SCALE", lambda f: (_size(f.e.inputs), f.t.input_size)),
    ("0", "LOSS_AT_INIT", lambda f: (f.first_loss, f.t.first_loss)),
    ("1", "TRAIN_BAD", lambda f: (f.e.train.metric, max(f.limits.values(), default=nan))),
    ("1", "DEEPER_IS_WORSE", lambda f: (f.shallow - f.e.train.metric, f.t.margin)),
    ("1a", "EXPLODING", lambda f: (-f.decay[0], f.t.explode)),
    ("1b", "VANISHING", lambda f: (0.0 if _steep(f) else f.decay[0], f.t.vanish)),
    ("1b", "INIT_SCALE", lambda f: (f.decay[0] if _steep(f) else 0.0, f.t.vanish)),
    ("1c", "DEAD", lambda f: (f.worst(f.e.now, "dead")[0], f.t.dead)),
    ("1d", "SATURATED", lambda f: (f.worst(f.e.now, "saturated")[0], f.t.saturated)),
    ("1e", "LR_HIGH", lambda f: (f.ratio, f.t.high_ratio)),
    ("1f", "LR_LOW", lambda f: (f.ratio, f.t.low_ratio)),
    ("1g", "CAPACITY", lambda f: (_gains(f, f.e.compared("wider")), f.t.wider)),
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


def _size(inputs: Inputs | None) -> float:
    """Give the largest input, or the largest mean of a feature in its standard deviations."""
    if inputs is None or inputs.ids:
        return nan
    return max(finite([abs(inputs.low), abs(inputs.high), inputs.shift]), default=nan)
