"""`diagnose`: measure a trained network, compare it with others, decide, report."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from ..modes import no_grad
from ..nn.module import Module
from ..tape import wrap
from . import variants
from .evidence import Evidence, Layer, LayerState, Record, Sample, plain
from .measure import describe, first_output, impossible, pair, problem, sandbox, spread, taken
from .observe import clone, look
from .perturb import gradient_check
from .thresholds import Thresholds

if TYPE_CHECKING:
    from .report import Report

#: Examples that the panels of sensitivity and learned activations are made from, and how many of
#: the latter are kept.
SHOWN_ROWS, SHOWN_SHAPES = 256, 24
#: What is said of a record of a Recorder that was attached too late, or to another model.
NO_TRAINING = ("record: it saw no training (make the Recorder before the loop, of the loop's own "
               "model and optimizer)")  # fmt: skip


def diagnose(
    model: Any, loss_fn: Any, train: Any, test: Any = None, record: Any = None,
    make_model: Any = None, baseline: Any = "auto", verify: bool = False, lang: str = "en",
    target: float = nan, thresholds: Thresholds | None = None,
) -> Report:  # fmt: skip
    """Say why a trained network is not better: the training set first, then the test set.

    Everything is measured and trained on copies, with random numbers of their own: the model, its
    gradients, modes and buffers, the optimizer and the default generator stay bit for bit as they
    are, and the same call gives the same report.

    Args:
        model: The trained Module. A function is measured, too, but nothing can be compared with it.
        loss_fn: Gives the mean over the batch, of output and target.
        train: `(x, y)`, or `(x1, x2, y)`: arrays or Tensors with one row per example.
        test: The same, of examples that were not trained on.
        record: A `Recorder` that saw the training, its `Record`, or the path of a saved one.
            Without it, nothing is known of the beginning and of the loop.
        make_model: `make_model(depth, activation)` gives a new network of so many hidden layers,
            with an activation by name (`"relu"`, `"maxout"`). Without it, variants are made of
            a `Sequential`, and of other models none.
        baseline: `"auto"` trains networks to compare with, at most 20 s; a number of seconds;
            None trains none; or one that you trained, a Module or a `Comparison`.
        verify: Also train with the leading remedies, and report what each gained.
        lang: Of the report, `"en"` or `"zh"`.
        target: The training metric (accuracy or R2) that you want.
        thresholds: What findings are decided by, a `Thresholds`.

    Returns:
        A `Report`; `print` it, or `plot`, `to_html`, `to_json`.

    Raises:
        TypeError: For a class in place of an object, data that are no tuple, or thresholds that are
            no `Thresholds`.
        ValueError: For arrays of different lengths, an unknown baseline, or a record of another
            network.

    Example:
        >>> import microgradnd as mg
        >>> x, y = mg.data.blobs(200, seed=0)
        >>> x = x / 5
        >>> model = mg.nn.Sequential(mg.nn.Linear(2, 16), mg.nn.ReLU(), mg.nn.Linear(16, 3))
        >>> optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
        >>> record = mg.diagnosis.Recorder(model, optimizer)
        >>> _ = mg.train.fit(model, mg.cross_entropy, optimizer, (x, y), epochs=20,
        ...                  progress=False, callbacks=[record])
        >>> mg.diagnose(model, mg.cross_entropy, (x, y), record=record).ok
        True
    """
    from .remedies import verify as try_them
    from .report import Report
    from .rules import decide, roots

    limits = limits_of(thresholds)
    case = _case(model, loss_fn, train, test, record, make_model, baseline)
    evidence = _examine(case, baseline, target)
    findings = decide(evidence, limits)
    if verify:
        try_them(case, evidence, roots(findings))
    extras = _extras(case)
    return Report(findings, evidence, limits, lang=lang, extras=extras)


def examine(
    model: Any, loss_fn: Any, train: Any, test: Any = None, record: Any = None,
    make_model: Any = None, baseline: Any = "auto", target: float = nan,
) -> Evidence:  # fmt: skip
    """Measure everything that `decide` looks at; arguments as of `diagnose`."""
    case = _case(model, loss_fn, train, test, record, make_model, baseline)
    return _examine(case, baseline, target)


def limits_of(thresholds: Any) -> Thresholds:
    """Give the thresholds, or those by default for None.

    Raises:
        TypeError: For anything else.
    """
    limits = Thresholds() if thresholds is None else thresholds
    if not isinstance(limits, Thresholds):
        raise TypeError(
            "thresholds must be a Thresholds, such as mg.diagnosis.Thresholds(margin=0.1), got a "
            f"{type(limits).__name__}"
        )
    return limits


def from_record(record: Any) -> Evidence:
    """Give what a record alone says (a Recorder, a Record, or the path of one).

    There are no data: the state after training is the last one recorded, and the results are those
    on the rows that the recorder was given, if any.
    """
    seen = record_of(record)
    last = next((s for s in reversed(seen.samples) if s.layers), Sample())
    scored = next((s for s in reversed(seen.samples) if s.train is not None), Sample())
    found = Evidence(inputs=seen.inputs, layers=seen.layers, now=last, test=scored.test)
    found.adopt(seen)
    if scored.train is not None:
        found.train = scored.train
    if _empty(seen):
        found.not_made.append(NO_TRAINING)
    else:
        _recorded(found, seen)
    found.not_made.append("shallow, reference: a record holds no data")
    return found


def record_of(record: Any) -> Record:
    """Give the Record in a Recorder, a Record, or a file.

    Raises:
        TypeError: For anything else.
    """
    if isinstance(record, (str, os.PathLike)):
        from .recorder import load

        record = load(record)
    record = getattr(record, "record", record)
    if not isinstance(record, Record):
        raise TypeError(
            f"record must be a Recorder, a Record or a file's path, got a {type(record).__name__}"
        )
    return record


def _empty(record: Record) -> bool:
    return not (record.samples or record.losses or record.events.steps)


def _same_network(model: Any, record: Record) -> None:
    """Refuse a record whose initial parameters or layers are not the model's."""
    if not isinstance(model, Module):
        return
    ours: dict[str, Any] = {name: p.shape for name, p in model.named_parameters()}
    theirs: dict[str, Any] = {name: np.shape(value) for name, value in record.initial.items()}
    if list(theirs) == [f"parameter_{i}" for i in range(len(theirs))]:
        theirs = {}  # of a function: names that the recorder made up
    layers = [layer.weight for layer in record.layers if layer.weight not in ours]
    different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if theirs and different:
        name = different[0]
        there, here = (f"of shape {x[name]}" if name in x else "missing" for x in (theirs, ours))
        raise _other(f"{name} is {there} in the record, and {here} in the model")
    if ours and layers:
        raise _other(f"it has a layer with {layers[0]}, which the model has not")


def _other(why: str) -> ValueError:
    return ValueError(
        f"the record is of another network: {why}; give the record of this model's own training, "
        "or none"
    )


def _recorded(found: Evidence, record: Record) -> None:
    """Fill in what a recorder saw, its layers in the order of ours."""
    order = [layer.weight for layer in record.layers]
    weights = [layer.weight for layer in found.layers]
    if weights and order and not set(weights) & set(order):
        raise _other(f"it has layers with {', '.join(order)}, the model with {', '.join(weights)}")
    for ours, theirs in ((x, y) for x in found.layers for y in record.layers):
        sizes = [(x.units, x.fan_in, x.pieces) for x in (ours, theirs)]
        if ours.weight == theirs.weight and sizes[0] != sizes[1]:
            raise _other(
                f"{ours.weight} has {theirs.units} units of {theirs.fan_in} inputs in the record, "
                f"and {ours.units} of {ours.fan_in} in the model"
            )
    places = [order.index(x.weight) if x.weight in order else -1 for x in found.layers]
    found.samples = [
        replace(s, layers=[s.layers[i] if 0 <= i < len(s.layers) else LayerState()
                           for i in places] if s.layers else [])
        for s in record.samples
    ]  # fmt: skip
    first = found.samples[0] if found.samples else None
    found.init = first if first is not None and first.step == 0 else None
    found.losses, found.loss_steps = list(record.losses), list(record.loss_steps)
    found.events, found.plan = record.events, record.plan
    rates = [s.rate for s in found.samples if s.rate > 0]
    if rates and record.plan.options:  # after a warm-up; the first is no rate to train with
        found.plan = replace(record.plan, options={**record.plan.options, "lr": max(rates)})


def _case(
    model: Any, loss_fn: Any, train: Any, test: Any, record: Any, make_model: Any, baseline: Any
) -> variants.Case:
    """Check the arguments, and put together what all the measuring needs."""
    for name, thing in (("model", model), ("loss_fn", loss_fn)):
        if isinstance(thing, type) or not callable(thing):
            what = f"the class {thing.__name__}" if isinstance(thing, type) else repr(thing)
            raise TypeError(f"{name} must be a module or a function, got {what}")
    if make_model is not None:
        variants.check_maker(make_model)
    seconds = variants.budget(baseline)
    seen, unrecorded = None if record is None else record_of(record), ""
    if seen is not None and _empty(seen):
        seen, unrecorded = None, NO_TRAINING
    elif seen is not None:
        _same_network(model, seen)
    inputs, target = pair(train, "train", model)
    tested = None if test is None else pair(test, "test", model)
    if tested is not None and len(tested[0]) != len(inputs):
        raise ValueError(f"test has {len(tested[0])} inputs, train has {len(inputs)}")
    copy = clone(model)
    start, why = _start(copy, seen)
    return variants.Case(
        model=copy, start=start, no_start=why, loss_fn=loss_fn, inputs=inputs, target=target,
        test=tested, record=seen, unrecorded=unrecorded, make_model=make_model, seconds=seconds,
    )  # fmt: skip


def _start(model: Any, record: Record | None) -> tuple[Any, str]:
    """Give a copy of the model with its initial parameters, or None and why there is none."""
    if not isinstance(model, Module):
        return None, "the model is a function, of which there is no copy"
    if record is None:
        return None, "nobody recorded the training (record=)"
    start = clone(model)
    start.zero_grad()
    known = {name: np.shape(value) for name, value in record.initial.items()}
    missing = [name for name, p in start.named_parameters() if known.get(name) != p.shape]
    if missing:
        return None, f"the record has no initial values of {', '.join(missing[:3])}"
    with no_grad():
        for name, p in start.named_parameters():
            p.assign_(wrap(p.backend.asarray(np.asarray(record.initial[name], p.dtype))))
    return variants.fresh(start), ""


def _examine(case: variants.Case, baseline: Any, target: float) -> Evidence:
    """Measure the case, and make the comparisons."""
    found = Evidence(target=target)
    if case.unrecorded:
        found.not_made.append(case.unrecorded)
    output = first_output(case.model, case.inputs)
    found.inputs = describe(case.model, case.inputs, case.target, output)
    reason = impossible(output, case.target)
    case.problem = known = problem(None if reason else case.loss_fn, output, case.target)
    found.adopt(known)
    loss_fn = None if reason else case.loss_fn
    if reason:
        found.not_made.append(f"loss, gradient, comparisons: {reason}")
    found.train = known.score(case.model, loss_fn, case.inputs, case.target)
    unfit = "" if case.test is None else impossible(output, case.test[1])
    if unfit:  # without scores on it the training result is still worth a verdict
        found.not_made.append(f"test set: {unfit}")
        case.test = None
    if case.test is not None:
        found.test = known.score(case.model, loss_fn, *case.test)
    found.layers, found.now = _look(case, case.model, loss_fn)
    if case.record is not None:
        _recorded(found, case.record)
        found.now.step = found.plan.steps
    if case.start is not None and found.init is not None:
        # On all examples: units that are silent in one batch need not be dead.
        layers, seen = _look(case, case.start, loss_fn)
        if [x.weight for x in layers] == [x.weight for x in found.layers]:
            loss = seen.loss if loss_fn is not None else found.init.loss
            found.init = replace(found.init, layers=seen.layers, loss=loss, examples=seen.examples)
    if reason:
        return found
    # With the initial weights, where they are known: a loss that is nearly 0 is mostly rounding.
    started = case.model if case.start is None else case.start
    found.check = gradient_check(started, case.loss_fn, case.inputs, case.target,
                                 unit=abs(known.constant))  # fmt: skip
    case.evidence = found
    variants.compare(case, found, baseline)
    return found


def _look(case: variants.Case, model: Any, loss_fn: Any) -> tuple[list[Layer], Sample]:
    """Measure the layers on all examples; a single one twice, for the sake of batch statistics."""
    data = (*case.inputs, case.target)
    if len(case.target) == 1:
        data = taken(data, np.zeros(2, np.int64))
    with sandbox(model):
        return look(model, loss_fn, data[:-1], data[-1])


def _extras(case: variants.Case) -> dict[str, Any]:
    """Give what reports show besides: the most influential weights, and learned activations."""
    found = case.evidence
    if not isinstance(case.model, Module) or found.check is None or not found.layers:
        return {}
    (*inputs, target) = taken((*case.inputs, case.target), spread(len(case.target), SHOWN_ROWS))
    xs = tuple(inputs) if len(inputs) > 1 else inputs[0]
    parts: Any = import_module(__package__)
    extras: dict[str, Any] = {}
    wanted: dict[str, Any] = {
        "sensitivity": lambda: parts.sensitivity(case.model, case.loss_fn, xs, target)
    }
    if {"maxout", "prelu"} & {layer.activation for layer in found.layers}:
        wanted["shapes"] = lambda: parts.learned_shapes(case.model, xs)
    for name, measure in wanted.items():
        try:
            extras[name] = plain(measure())
        except Exception as error:  # a report without a panel is better than none
            text = f"{name}: it raised {type(error).__name__}: {error}".splitlines()[0]
            found.not_made.append(text)
    shapes = extras.get("shapes", {}).get("shapes", [])
    shapes[:] = [shapes[i] for i in spread(len(shapes), SHOWN_SHAPES)]
    return extras
