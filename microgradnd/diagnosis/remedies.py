"""Remedies that are tried: a variant for each, trained on the same budget from the same start."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, sqrt
from typing import Any

from .. import optim
from ..nn import MODULES, init
from ..nn.init import maxout_constant
from ..nn.layers import BatchNorm1d, Dropout, Maxout, PReLU
from ..nn.module import Sequential
from . import variants
from .evidence import Comparison, Evidence, Finding, Remedy
from .facts import Facts, finite
from .measure import sandbox
from .thresholds import Thresholds
from .variants import AUTO, GAINS, Case, Impossible, Variant, attempt, like, trained

#: Remedies that are tried, at most.
TRIED = 4
#: Remedies after which the user's learning rate need not suit any more: if the result is further
#: than this below the best comparison's, a tenth of the rate is tried, too.
ANEW, MARGIN = frozenset({"activation", "init"}), 0.05
#: Where a remedy has a number and the finding names none.
RATE, DECAY, DROPPED, MORE, CLIP = 1e-2, 1e-2, 0.5, 4, 1.0


def verify(case: Case, found: Evidence, roots: list[Finding]) -> None:
    """Train with the leading remedies of the root findings; each is told what it gained.

    Every root's first remedy comes before any root's second one. What cannot be tried is left out,
    and said in `not_made` if it should have been possible.
    """
    case.seconds = max(case.seconds, AUTO)  # for each of them
    ranks = max((len(f.remedies) for f in roots), default=0)
    leading = [f.remedies[i] for i in range(ranks) for f in roots if i < len(f.remedies)]
    tried: dict[str, Comparison | None] = {}
    for remedy in leading:
        name = f"{remedy.key} {sorted(remedy.details.items())}"
        if remedy.key not in TRY:
            continue
        if name not in tried:
            if len(tried) == TRIED:
                continue
            case.began, case.spent = None, 0.0
            tried[name] = _try(case, remedy)
        remedy.gain = tried[name]


def _try(case: Case, remedy: Remedy) -> Comparison | None:
    key, options = remedy.key, case.plan.options

    def make(slower: bool = False) -> Comparison:
        variant = TRY[key](case, remedy.details)
        if slower:
            rate = float(options["lr"]) / 10
            variant = like(case, f"{variant.changed}, learning rate {rate:g}", variant.model,
                           lr=rate)  # fmt: skip
        variant.what = key
        return trained(case, variant)

    found = attempt(case, key, make)
    if found is None or key not in ANEW or "lr" not in options:
        return found
    if found.train.metric >= _goal(case.evidence):
        return found
    # A rate that a network bore in which nothing arrived can be far too high for another one.
    second = attempt(case, key, lambda: make(slower=True))
    if second is None:
        return found
    better, worse = sorted((second, found), key=lambda c: -c.train.metric)
    case.evidence.comparisons.remove(worse)
    return better


def _goal(found: Evidence) -> float:
    """Give the training metric that can be reached, as far as comparisons say."""
    facts = Facts(found, Thresholds())
    known = (found.train.metric, facts.compared("shallow").train.metric,
             facts.held("reference").metric)  # fmt: skip
    return max(finite(known), default=-inf) - MARGIN


def _rate(details: dict[str, Any], otherwise: float) -> float:
    rate = details.get("rate", otherwise)
    return float(rate) if isinstance(rate, (int, float)) and isfinite(rate) else otherwise


# --------------------------------------------------------------------------------- the optimizer


def _other_rate(case: Case, details: dict[str, Any]) -> Variant:
    rate = _rate(details, float(case.plan.options.get("lr", RATE)) / 10)
    return like(case, f"learning rate {rate:g}", lr=rate)


def _adaptive(case: Case, details: dict[str, Any]) -> Variant:
    rate = _rate(details, RATE)
    return like(case, f"Adam {rate:g}", optimizer=lambda p: optim.Adam(p, lr=rate))


def _steps(case: Case, times: float) -> Variant:
    steps = max(round(case.plan.steps * times), 1)
    return like(case, f"{steps} steps", steps=steps)


def _early_stopping(case: Case, details: dict[str, Any]) -> Variant:
    epoch = details.get("epoch")
    epochs = case.plan.steps / -(-len(case.target) // max(case.plan.batch, 1))
    if not isinstance(epoch, (int, float)) or not 0 < epoch <= epochs:
        raise Impossible("no epoch is known at which the test result was best")
    return _steps(case, epoch / epochs)


# ----------------------------------------------------------------------------------- the weights


def _init(case: Case, details: dict[str, Any]) -> Variant:
    """Draw weights so that each layer keeps the size of its signal."""
    model = case.initial()
    layers = case.evidence.layers
    if details.get("layer") == "output":
        layers = [layer for layer in layers if layer.output]
    named = dict(model.named_parameters())
    with sandbox(seed=7):
        for layer in layers:
            if layer.weight not in named or not layer.fan_in:
                raise Impossible("the model's weights are not known by name")
            pieces = max(layer.pieces, 1)
            gain = sqrt(maxout_constant(pieces)) if layer.activation == "maxout" else GAINS.get(
                layer.activation, 1.0)  # fmt: skip
            init.normal_(named[layer.weight], 0.0, gain / sqrt(layer.fan_in))
    return like(case, "initial weights that suit the activations", model)


def _zero_bias(case: Case, details: dict[str, Any]) -> Variant:
    model = case.initial()
    named = dict(model.named_parameters())
    for layer in case.evidence.layers:
        if layer.bias in named:
            init.zeros_(named[layer.bias])
    return like(case, "biases that begin at 0", model)


# ----------------------------------------------------------------------------------- the network


def _activation(case: Case, details: dict[str, Any]) -> Variant:
    """Replace the hidden layers' activation; weights begin as suits the new one."""
    name = str(details.get("name", "relu"))
    depth = len(case.hidden)
    if case.make_model is not None:
        return like(case, name, variants.made(case, depth, name))
    p = variants.parts(case.initial())
    with sandbox(seed=8):
        for i, block in enumerate(p.hidden):
            affine: Any = block[0]
            p.hidden[i] = [*_activated(affine, p.width(i), name),
                           *(m for m in block[1:] if not variants.activates(m))]  # fmt: skip
    return like(case, f"{name} with its own initial weights", p.joined())


def _activated(affine: Any, width: int, name: str) -> list[Any]:
    """Give a layer of so many units with an activation."""
    dtype = affine.weight.dtype
    if name == "maxout":
        return [Maxout(affine.in_features, width, 2, dtype=dtype)]
    linear = variants.drawn(affine, affine.in_features, width, GAINS.get(name, 1.0))
    return [linear, _function(name, dtype)]


def _function(name: str, dtype: Any) -> Any:
    if name == "prelu":
        return PReLU(dtype=dtype)
    found = {kind._op.__name__: kind for kind in MODULES.values()}  # type: ignore[attr-defined]
    if name not in found:
        raise Impossible(f"nobody knows an activation {name!r}")
    return found[name]()


def _leaky(case: Case, details: dict[str, Any]) -> Variant:
    """Replace every ReLU by a leaky one; weights begin as the user's."""
    p = variants.parts(case.initial())
    kinds = [layer.activation for layer in case.evidence.layers]
    for i, block in enumerate(p.hidden):
        if kinds[i : i + 1] == ["relu"]:
            p.hidden[i] = [_function("leaky_relu", None) if variants.activates(m) else m
                           for m in block]  # fmt: skip
    return like(case, "leaky_relu", p.joined())


def _normalize(case: Case, details: dict[str, Any]) -> Variant:
    """Put batch normalization behind each hidden affine layer."""
    p = variants.parts(case.initial())
    for i, block in enumerate(p.hidden):
        affine: Any = block[0]
        if not any(isinstance(m, BatchNorm1d) for m in block):
            norm = BatchNorm1d(affine.out_features, dtype=affine.weight.dtype)
            p.hidden[i] = [affine, norm, *block[1:]]
    return like(case, "batch normalization", p.joined())


def _dropout(case: Case, details: dict[str, Any]) -> Variant:
    p = variants.parts(case.initial())
    for block in p.hidden:
        block.append(Dropout(DROPPED))
    return like(case, f"dropout {DROPPED}", p.joined())


def _fewer_pieces(case: Case, details: dict[str, Any]) -> Variant:
    """Let every Maxout have two pieces."""
    modules = variants.listed(case.initial())
    if not any(isinstance(m, Maxout) and m.pieces > 2 for m in modules):
        raise Impossible("no nn.Maxout has more than 2 pieces")
    with sandbox(seed=9):
        modules = [
            Maxout(m.in_features, m.out_features, 2, m.bias is not None, m.weight.dtype)
            if isinstance(m, Maxout) and m.pieces > 2 else m
            for m in modules
        ]  # fmt: skip
    return like(case, "2 pieces", Sequential(*modules))


def _remove_softmax(case: Case, details: dict[str, Any]) -> Variant:
    """Leave out what squashes the output."""
    modules = variants.listed(case.initial())
    if not variants.activates(modules[-1]):
        raise Impossible("the last module of the Sequential is no softmax")
    return like(case, f"without the last {type(modules[-1]).__name__}",
                Sequential(*modules[:-1]))  # fmt: skip


TRY: dict[str, Callable[[Case, dict[str, Any]], Variant]] = {
    "activation": _activation, "adaptive": _adaptive, "lower_rate": _other_rate,
    "higher_rate": _other_rate, "init": _init, "random_init": _init,
    "clip": lambda case, _: like(case, f"gradients of norm {CLIP:g} at most", clip=CLIP),
    "normalize": _normalize, "scale_inputs": lambda case, _: variants.scaled(case),
    "wider": lambda case, _: variants.wider(case), "leaky": _leaky, "zero_bias": _zero_bias,
    "more_steps": lambda case, _: _steps(case, MORE),
    "zero_grad": lambda case, _: like(case, "our training loop, with all parameters"),
    "add_to_optimizer": lambda case, _: like(case, "our training loop, with all parameters"),
    "remove_softmax": _remove_softmax, "early_stopping": _early_stopping,
    "l2": lambda case, _: like(case, f"weight decay {DECAY:g}", weight_decay=DECAY),
    "dropout": _dropout, "fewer_pieces": _fewer_pieces,
}  # fmt: skip
