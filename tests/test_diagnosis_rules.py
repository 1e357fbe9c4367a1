"""The rules of the diagnosis, on evidence made by hand: both sides of each threshold."""

from __future__ import annotations

import copy
import dataclasses
from math import inf, isnan, log, nan

import numpy as np
import pytest

from microgradnd.diagnosis.evidence import (
    Check,
    Comparison,
    Events,
    Evidence,
    Inputs,
    Layer,
    LayerState,
    Plan,
    Sample,
    Score,
)
from microgradnd.diagnosis.rules import (
    CERTAIN,
    CHECKS,
    DECIDED_BY,
    RULES,
    TREE,
    Thresholds,
    checks,
    decide,
    path,
    roots,
)  # fmt: skip

T = Thresholds()
DEPTH, STEPS = 4, 400


def healthy(activation="relu", depth=DEPTH):
    """A classifier with 4 hidden layers that trained well; nothing is wrong with it."""
    layers = [Layer(str(2 * i), activation=activation, units=64, fan_in=64) for i in range(depth)]
    layers.append(Layer(str(2 * depth), units=10, fan_in=64, output=True))
    state = LayerState(
        delta=0.1, gradient=0.01, weight=0.17, update=5e-3, z_std=1.0, zeros=0.5, slope=0.5,
        saturated=0.0, dead=0.02, same=0.0,
    )  # fmt: skip

    def states():
        return [dataclasses.replace(state) for _ in layers]

    start = log(10)
    samples = [
        Sample(i * 50, i / 2, 0.1, start * 0.6**i, 64, Score(1000, start * 0.6**i, 0.1 + 0.11 * i),
               Score(300, start * 0.6**i, 0.1 + 0.1 * i), states()) for i in range(9)
    ]  # fmt: skip
    return Evidence(
        "classification", "accuracy", 10, 0.1, start, nan, Score(1000, 0.05, 0.98),
        Score(300, 0.06, 0.965), layers, samples[0], Sample(STEPS, layers=states()), samples,
        [start * 0.99**i + 0.02 for i in range(STEPS)], list(range(STEPS)),
        Inputs("float32", 64, 0.0, 1.0, 0.3, 0.3, 2.0, 1.0, 0.0, 0, "int64", 0, 9, 0, 10),
        Events(STEPS, STEPS, 20, loss=["cross_entropy"], evaluations=9),
        Plan("SGD", {"lr": 0.1}, STEPS, 32), Check(20, 1e-7, "0.weight"),
        [Comparison("shallow", depth=1, train=Score(1000, 0.1, 0.97), test=Score(300, 0.1, 0.95)),
         Comparison("reference", depth=1, train=Score(800, 0.01, 1.0),
                    test=Score(200, 0.1, 0.96))],
    )  # fmt: skip


def regression():
    e = healthy()
    e.task, e.metric, e.classes, e.chance, e.constant = "regression", "r2", 0, 0.0, 1.0
    e.inputs = dataclasses.replace(e.inputs, target_low=-2.0, target_high=2.0, outputs=1)
    return e


def bad(e=None, metric=0.12):
    """The same with a bad result on the training set, whose loss stays where it was."""
    e = e or healthy()
    e.train, e.test = Score(1000, e.constant * 0.99, metric), Score(300, e.constant, metric)
    e.losses = [e.constant * (1 + 0.01 * (-1) ** i) for i in range(STEPS)]
    for sample in e.samples:
        sample.loss = sample.train.loss = sample.test.loss = e.constant
        sample.train.metric = sample.test.metric = metric
    return e


def every(e, **values):
    """Set numbers of all hidden layers, at all times."""
    for sample in [e.init, e.now, *e.samples]:
        at(e, sample, **values)
    return e


def at(e, sample, **values):
    for layer, state in zip(e.layers, sample.layers, strict=True):
        if not layer.output:
            for name, value in values.items():
                setattr(state, name, value)
    return e


def lose(e, decades, slope=0.2):
    """Let the gradient lose decades on its way back before training."""
    at(e, e.init, slope=slope)
    for i, state in enumerate(e.init.layers[:-1]):
        state.delta = 0.1 * 10 ** (-decades * (1 - i / (len(e.init.layers) - 2)))
    return e


def codes(e, severity=None, thresholds=T):
    return [f.code for f in decide(e, thresholds) if severity in (None, f.severity)]


def causes(e):
    return [f.code for f in roots(decide(e))]


# ------------------------------------------------------------------------------------- healthy


@pytest.mark.parametrize("make", [healthy, regression, lambda: healthy("tanh"),
                                  lambda: healthy("maxout"), lambda: healthy(depth=1)])  # fmt: skip
def test_nothing_is_found_in_a_healthy_run(make):
    assert decide(make()) == []


def test_a_sparse_network_with_some_dead_units_is_healthy():
    assert decide(every(healthy(), zeros=0.83, dead=0.28)) == []


def test_a_network_that_learns_what_can_be_learned_of_noisy_labels_is_healthy():
    e = healthy()
    e.train, e.test = Score(1000, 1.4, 0.62), Score(300, 1.45, 0.6)
    e.comparisons = [Comparison("shallow", depth=1, train=Score(1000, 1.4, 0.63)),
                     Comparison("reference", train=Score(800, 0.1, 0.97),
                                test=Score(200, 2.0, 0.55))]  # fmt: skip
    assert codes(e, "fault") == []


def test_steep_decay_without_a_bad_result_is_only_a_warning():
    assert codes(lose(healthy(), 2.0), "fault") == []
    assert codes(lose(healthy(), 2.0), "warning") == ["VANISHING"]
    assert decide(lose(healthy(), 0.9)) == []


# --------------------------------------------------------- each finding, on both sides of its limit


def vanishing(above):
    return lose(bad(), T.vanish_likely + (0.05 if above else -0.05))


def init_scale(above):
    return lose(bad(), T.vanish_likely + (0.05 if above else -0.05), slope=0.9)


def exploding(above):
    return lose(bad(), -T.explode - (0.05 if above else -0.05))


def exploding_forward(above):
    e = bad()
    e.init.loss = e.losses[0] = e.constant * (T.explode_loss + 0.1)
    for i, state in enumerate(e.init.layers):
        state.z_std = 10 ** (i / (DEPTH - 1) * (T.explode_forward + (0.05 if above else -0.05)))
    return e


def dead_at_first(above):
    return every(bad(), dead=T.dead + (0.01 if above else -0.01))


def saturated_at_first(above):
    return every(bad(healthy("tanh")), saturated=T.saturated + (0.01 if above else -0.01))


def symmetric(above):
    return every(bad(), same=T.same + (0.01 if above else -0.01))


def idle_at_first(above):
    e = bad(healthy("maxout"))
    for layer in e.layers[:-1]:
        layer.pieces = 2
    return every(e, single=T.single + (0.01 if above else -0.01), unused=0.5)


def loss_at_init(above):
    e = bad()
    e.init.loss = e.losses[0] = e.constant * (T.first_loss_fault + (0.1 if above else -0.1))
    return e


def lr_high(above):
    return every(bad(), update=T.high_ratio * (1.1 if above else 0.9))


def loss_jumps(above):
    e = bad()
    e.losses[200:203] = [e.constant * 1.005 * (T.high_loss + (0.2 if above else -0.2))] * 3
    return every(e, update=0.05)


def result_swings(above):
    e = bad()
    fall = T.swing * (1.1 if above else 0.9)
    for i, sample in enumerate(e.samples):
        sample.train.metric = 0.2 - fall * (i % 2)
    return every(e, update=0.05)


def lr_low(above):
    e = bad()
    for sample in [e.init, e.now, *e.samples]:
        for state in sample.layers:
            state.update = T.low_ratio * (0.9 if above else 1.1)
    e.plan.steps = e.events.steps = 100 * STEPS
    return e


def settled(above):
    """Steps are few, but the loss falls no more: more of them would not help."""
    e = few_steps(True)
    e.init.loss = e.losses[0] = 2 * e.train.loss
    fall = T.settled * (0.9 if not above else 1.1) * e.train.loss
    e.samples = [e.init, Sample(e.plan.steps * 3 // 4, train=Score(1000, e.train.loss + fall / 4))]
    return e


def few_steps(above):
    e = bad()
    e.plan.steps = e.events.steps = round(T.travel / 5e-3 * (0.9 if above else 1.1))
    del e.losses[e.plan.steps :], e.loss_steps[e.plan.steps :]
    return e


def capacity(above):
    e = bad(metric=0.5)
    gain = T.wider + (0.01 if above else -0.01)
    e.comparisons.append(Comparison("wider", train=Score(1000, 0.1, 0.99),
                                    test=Score(300, 0.1, e.test.metric + gain)))  # fmt: skip
    return e


def train_bad(above):
    e = healthy()
    e.comparisons = e.comparisons[1:]
    held = e.comparisons[0].test
    limit = held.metric - 2 * ((0.96 * 0.04 + 0.25 / 200) / 200) ** 0.5 - T.margin
    e.train.metric = e.test.metric = limit + (-0.01 if above else 0.01)
    return e


def grad_mismatch(above):
    e = healthy()
    e.check.worst = T.gradient_error * (1.1 if above else 0.9)
    return e


def zero_grad(above):
    e = healthy()
    e.events.stale = 3 if above else 2
    return e


def eval_mode(above):
    e = healthy()
    e.events.noisy_evaluations = 5 if above else 4
    return e


def not_optimized(above):
    e = bad(metric=0.6)
    e.events.not_optimized = ["2.weight"] * above
    return e


def unreached(above):
    e = bad(metric=0.6)
    e.events.unreached = ["2.weight"] * above
    return e


def loss_mismatch(above):
    e = healthy()
    e.events.squashed = "softmax" if above else "log_softmax"  # that twice is the same as once
    return e


def targets(above):
    e = healthy()
    e.inputs.target_high = 10 if above else 9
    return e


def targets_out_of_reach(above):
    e = bad(regression())
    e.events.squashed = "tanh" if above else ""
    return e


def input_scale(above):
    e = bad()
    e.inputs.high = 16.0
    e.comparisons.append(Comparison("scaled", train=Score(1000, 0.1, 0.12 + T.margin
                                    + (0.01 if above else -0.01))))  # fmt: skip
    return e


def tiny_inputs(above):
    e = bad()
    e.inputs.low, e.inputs.high = -0.01, T.input_small * (0.9 if above else 1.1)
    e.comparisons.append(Comparison("scaled", train=Score(1000, 0.1, 0.9)))
    return e


def input_extreme(above):
    e = bad()
    e.inputs.high = T.input_extreme + (1 if above else -1)
    return e


def nonfinite_inputs(above):
    e = healthy()
    e.inputs.nonfinite = int(above)
    return e


def nonfinite(above):
    e = healthy()
    if above:
        e.events.nonfinite_step, e.events.nonfinite_where = 200, "sqrt"
    return e


def overfit(above):
    e = healthy()
    e.test.metric = e.train.metric - T.overfit_gap - (0.005 if above else -0.005)
    return e


def overfit_regression(above):
    e = regression()
    e.train, e.test = Score(400, 0.02, 0.98), Score(400, 0.02 * (1.5 if above else 1.1), 0.9)
    return e


FIRES = {
    vanishing: "VANISHING", init_scale: "INIT_SCALE", exploding: "EXPLODING",
    exploding_forward: "EXPLODING", dead_at_first: "DEAD", saturated_at_first: "SATURATED",
    symmetric: "SYMMETRIC", idle_at_first: "UNUSED_PIECE", loss_at_init: "LOSS_AT_INIT",
    lr_high: "LR_HIGH", loss_jumps: "LR_HIGH", result_swings: "LR_HIGH", lr_low: "LR_LOW",
    few_steps: "LR_LOW", settled: "LR_LOW", capacity: "CAPACITY", train_bad: "TRAIN_BAD",
    grad_mismatch: "GRAD_MISMATCH", zero_grad: "ZERO_GRAD", eval_mode: "EVAL_MODE",
    not_optimized: "NOT_OPTIMIZED", unreached: "UNREACHED", loss_mismatch: "LOSS_MISMATCH",
    targets: "TARGETS", targets_out_of_reach: "LOSS_MISMATCH", input_scale: "INPUT_SCALE",
    tiny_inputs: "INPUT_SCALE", input_extreme: "INPUT_SCALE", nonfinite_inputs: "NONFINITE",
    nonfinite: "NONFINITE", overfit: "OVERFIT", overfit_regression: "OVERFIT",
}  # fmt: skip


@pytest.mark.parametrize("make", FIRES, ids=lambda make: make.__name__)
def test_a_fault_is_found_above_its_threshold_and_named_alone(make):
    found = decide(make(True))
    assert [f.code for f in roots(found)] == [FIRES[make]]
    assert found[0].code == FIRES[make] and found[0].severity == "fault"


@pytest.mark.parametrize("make", FIRES, ids=lambda make: make.__name__)
def test_a_fault_is_not_found_below_its_threshold(make):
    assert FIRES[make] not in codes(make(False), "fault")


@pytest.mark.parametrize("make", FIRES, ids=lambda make: make.__name__)
def test_a_finding_says_side_numbers_confidence_and_remedies_of_its_side(make):
    for finding in decide(make(True)):
        assert finding.side == ("test" if finding.code in ("OVERFIT", "EVAL_MODE") else "train")
        assert finding.evidence and 0 < finding.confidence <= 1
        assert finding.remedies and {r.side for r in finding.remedies} == {finding.side}
        assert finding.code not in finding.explains
        sources = {name: source for name, _, _, source in T.table()}
        named = [sources[name] for name in DECIDED_BY.get(finding.code, ())]
        assert finding.source == ("; ".join(dict.fromkeys(named)) or CERTAIN)


def test_every_finding_of_the_tree_has_a_case_here():
    assert set(FIRES.values()) | {"DEEPER_IS_WORSE"} == {code for _, code, _ in TREE}
    assert {rule.__name__.upper() for _, rule in RULES} & {"TRAIN_BAD", "OVERFIT", "VANISHING"}


# ---------------------------------------------------------------------------------- who explains


def test_deeper_is_worse_compares_training_results_and_its_first_remedy_is_another_activation():
    e = bad()
    found = decide(e)
    assert [f.code for f in found] == ["DEEPER_IS_WORSE", "TRAIN_BAD"]
    assert found[0].explains == ["TRAIN_BAD"] and found[0].remedies[0].key == "activation"
    e.comparisons[0].train.metric = 0.12 + T.margin - 0.01
    assert "DEEPER_IS_WORSE" not in codes(e)


def test_a_cause_at_the_start_explains_what_comes_later():
    e = every(lose(bad(), 5.0), update=1e-6)
    at(e, e.now, saturated=0.9)
    found = decide(e)
    assert [f.code for f in found] == ["VANISHING", "LR_LOW", "SATURATED", "DEEPER_IS_WORSE",
                                       "TRAIN_BAD"]  # fmt: skip
    assert causes(e) == ["VANISHING"]
    assert set(found[0].explains) == {f.code for f in found[1:]}


@pytest.mark.parametrize(("what", "code"), [("dead", "DEAD"), ("saturated", "SATURATED")])
def test_units_lost_in_training_are_symptoms_of_the_rate(what, code):
    e = bad()
    at(every(e, update=0.05), e.now, **{what: 0.95})
    assert causes(e) == ["LR_HIGH"] and code in decide(e)[0].explains
    finding = next(f for f in decide(e) if f.code == code)
    assert finding.evidence["when"] == "now"


@pytest.mark.parametrize(("what", "code"), [("dead", "DEAD"), ("saturated", "SATURATED")])
def test_units_lost_before_training_are_the_cause(what, code):
    e = every(bad(), **{what: 0.95})
    assert causes(e) == [code]
    assert next(f for f in decide(e) if f.code == code).evidence["when"] == "init"


def test_units_lost_in_too_small_a_network_are_no_sign_of_the_rate():
    e = every(capacity(True), update=0.05)
    at(e, e.now, saturated=0.6)
    assert causes(e) == ["CAPACITY"]
    e.losses[100:200] = [3 * e.constant] * 100
    assert causes(e) == ["LR_HIGH"]


def test_one_bad_batch_and_tiny_steps_are_no_sign_of_too_high_a_rate():
    e = loss_jumps(True)
    e.losses[201:203] = [e.constant] * 2
    assert "LR_HIGH" not in codes(e)
    assert "LR_HIGH" not in codes(every(loss_jumps(True), update=T.tiny_step * 0.9))


def test_nan_is_a_symptom_where_the_loss_has_run_away_before():
    e = bad()
    e.losses[50:60] = [1e3, 1e6, 1e9, 1e20, 1e30, inf, nan, nan, nan, nan]
    e.events.nonfinite_step = 55
    assert causes(e) == ["LR_HIGH"]
    assert "NONFINITE" in decide(e)[0].explains
    assert causes(nonfinite(True)) == ["NONFINITE"]


def test_a_loss_that_is_nan_at_the_end_is_found_without_a_record():
    e = healthy()
    e.events = e.init = None
    e.samples = e.losses = e.loss_steps = []
    e.train.loss = nan
    assert decide(e) == []  # it may just not be known
    e.now.examples = 1000
    assert causes(e) == ["NONFINITE"]


def test_an_exploding_start_explains_the_first_loss_and_nan():
    e = exploding(True)
    e.init.loss = e.losses[0] = 1000.0
    e.losses[1:] = [nan] * (STEPS - 1)
    e.events.nonfinite_step = 1
    assert causes(e) == ["EXPLODING"]
    assert {"LOSS_AT_INIT", "NONFINITE"} <= set(decide(e)[0].explains)


def test_saturation_at_the_start_explains_a_gap_between_the_sets():
    e = every(overfit(True), saturated=0.75)
    assert causes(e) == ["SATURATED"] and codes(e) == ["SATURATED", "OVERFIT"]


def test_mild_decay_is_not_the_cause_where_the_loss_jumps():
    assert causes(lose(loss_jumps(True), 1.2)) == ["LR_HIGH"]
    assert causes(lose(loss_jumps(True), 2.0)) == ["VANISHING"]


def test_dead_units_in_a_network_of_tiny_weights_come_of_the_weights():
    e = every(lose(bad(), 3.0, slope=0.5), dead=0.6, weight=0.02)
    assert causes(e) == ["INIT_SCALE"]
    assert causes(every(e, weight=0.17)) == ["DEAD"]


def test_inputs_that_are_large_but_no_harm_are_a_warning():
    e = healthy()
    e.inputs.high, e.inputs.std = 1000.0, 100.0
    assert [(f.code, f.severity) for f in decide(e)] == [("INPUT_SCALE", "warning")]
    e.inputs.std = 0.9 * T.input_usual  # of standardized ones some are as large
    assert decide(e) == []


def test_inputs_that_harm_explain_the_state_before_training():
    e = exploding(True)
    e.inputs.high = 1000.0
    assert causes(e) == ["INPUT_SCALE"] and "EXPLODING" in decide(e)[0].explains


def test_a_loop_without_zero_grad_does_not_explain_the_state_before_training():
    e = vanishing(True)
    e.events.stale = 20
    assert set(causes(e)) == {"ZERO_GRAD"} | {"VANISHING"}


def test_a_lost_rate_of_evaluation_explains_the_gap():
    e = overfit(True)
    e.events.noisy_evaluations = 9
    assert causes(e) == ["EVAL_MODE"]


def test_one_noisy_evaluation_is_none():
    e = healthy()
    e.events.evaluations = e.events.noisy_evaluations = 1
    assert decide(e) == []


def test_nobody_is_told_to_stop_earlier_than_at_the_best_moment():
    e = overfit(True)
    for sample in e.samples:
        sample.test = Score(300, 9.0, e.test.metric)
    assert [r.key for r in decide(e)[0].remedies] == ["l2", "dropout", "more_data"]
    e.samples[3].test = Score(300, e.test.loss / 2, 0.9)
    (stop, *_) = decide(e)[0].remedies
    assert stop.key == "early_stopping" and stop.details["epoch"] == e.samples[3].epoch


def test_a_wider_network_that_stays_bad_shows_no_lack_of_capacity():
    e = capacity(True)
    (wider,) = [c for c in e.comparisons if c.what == "wider"]
    (goal,) = [c.test.metric for c in e.comparisons if c.what == "reference"]
    for share, found in ((0.45, False), (0.55, True)):
        wider.train.metric = e.train.metric + share * (goal - e.train.metric)
        assert ("CAPACITY" in codes(e)) == found


def test_a_result_that_was_good_once_was_lost_by_the_rate():
    e = every(capacity(True), update=0.05)
    e.samples[5].train.metric = 0.97
    (rate,) = [f for f in decide(e) if f.code == "LR_HIGH"]
    assert causes(e) == ["LR_HIGH"] and rate.evidence["lost"] == pytest.approx(0.47)
    e.samples[5].train.metric = 0.8  # better, but never good
    assert causes(e) == ["CAPACITY"]


def test_an_output_layer_of_zeros_is_no_fault():
    e = healthy()
    for state in e.init.layers[:-1]:
        state.delta = 0.0
    e.init.layers[-1].same = 1.0
    assert decide(e) == []


# --------------------------------------------------------------------------- training comes first


def test_a_result_below_the_users_target_is_bad():
    e = healthy()
    e.target = 0.99
    assert causes(e) == ["TRAIN_BAD"]
    assert decide(e)[0].evidence["reason"] == "target"


def test_without_comparisons_chance_is_what_a_result_is_measured_by():
    e = bad(metric=0.3)
    e.comparisons = []
    assert causes(e) == ["TRAIN_BAD"]
    sure = bad(metric=0.3)
    assert decide(e)[0].confidence < decide(sure)[0].confidence


def test_without_a_metric_the_loss_is():
    e = bad()
    e.train.metric = nan
    assert "TRAIN_BAD" in codes(e)
    e.train.loss = e.constant / 2
    assert decide(e) == []


@pytest.mark.parametrize("make", FIRES, ids=lambda make: make.__name__)
def test_overfitting_is_never_found_where_training_is_bad(make):
    e = make(True)
    e.train.metric, e.test = 0.15, Score(300, 10.0, 0.01)
    for sample in e.samples:
        sample.test = Score(300, 0.1, 0.5)
    assert "TRAIN_BAD" in codes(e) and "OVERFIT" not in codes(e)


def test_a_test_loss_that_rises_is_a_warning_with_the_epoch_to_stop_at():
    e = healthy()
    e.samples[4].test = Score(300, 0.2, 0.97)
    for sample in e.samples[5:]:
        sample.test = Score(300, 0.5, 0.965)
    e.test = Score(300, 0.6, 0.965)
    assert [(f.code, f.severity) for f in decide(e)] == [("OVERFIT", "warning")]
    assert decide(e)[0].remedies[0].details == {"epoch": 2.0}


def test_a_small_test_set_shows_no_overfitting_by_chance():
    e = healthy()
    e.train.n, e.test = 40, Score(20, 0.1, 0.88)
    assert decide(e) == []


# ------------------------------------------------------------------------------ the way, the checks


@pytest.mark.parametrize("make", [healthy, *FIRES], ids=lambda make: make.__name__)
def test_every_verdict_says_how_model_loss_and_optimizer_did(make):
    e = make(True) if make in FIRES else make()
    found = decide(e)
    answers = checks(e, found)
    assert [a.step for a in answers] == ["model", "loss", "optimizer"]
    assert {a.outcome for a in answers} <= {"ok", "bad"}
    named = [code for a in answers for code in a.codes]
    known = {code for row in CHECKS.values() for code in row}
    assert sorted(named) == sorted(set(f.code for f in roots(found)) & known)


def test_checks_of_what_nobody_recorded_are_unknown():
    assert [a.outcome for a in checks(Evidence(), [])] == ["unknown"] * 3


def test_the_path_of_a_healthy_run_ends_with_ok():
    answers = path(healthy(), [])
    assert (answers[-1].codes, answers[-1].outcome) == (["OK"], "yes")
    outcomes = {a.codes[0]: a.outcome for a in answers}
    assert outcomes["TRAIN_BAD"] == outcomes["OVERFIT"] == "no"
    assert outcomes["VANISHING"] == "skipped"


def test_the_path_of_a_bad_run_asks_for_the_cause_and_not_for_overfitting():
    e = lose(bad(), 5.0)
    answers = {a.codes[0]: a for a in path(e, decide(e))}
    assert answers["VANISHING"].outcome == "yes" and answers["LR_HIGH"].outcome == "no"
    assert answers["VANISHING"].value == pytest.approx(5.0)
    assert answers["VANISHING"].limit == T.vanish
    assert answers["OVERFIT"].outcome == "skipped" and answers["OK"].outcome == "no"


def test_each_threshold_has_a_meaning_and_a_source():
    table = T.table()
    assert len({row[0] for row in table}) == len(table) == len(dataclasses.fields(T))
    assert all(meaning and source for _, _, meaning, source in table)


def test_thresholds_can_be_chosen():
    assert codes(overfit(False), thresholds=Thresholds(overfit_gap=0.05)) == ["OVERFIT"]


def test_decide_changes_nothing_and_gives_the_same_again():
    for make in FIRES:
        e = make(True)
        before = copy.deepcopy(e)
        assert decide(e) == decide(e)
        assert repr(e) == repr(before)


# ------------------------------------------------------------------------------------- properties


def shake(e, rng, share):
    """Put NaN, infinities and other numbers into evidence, anywhere."""
    odd = [nan, inf, -inf, 0.0, -1.0, 1e-30, 1e30]

    def walk(thing):
        if isinstance(thing, list):
            for i, item in enumerate(thing):
                if isinstance(item, float) and rng.random() < share:
                    thing[i] = odd[rng.integers(len(odd))]
                elif not isinstance(item, (int, float, str)):
                    walk(item)
        elif dataclasses.is_dataclass(thing):
            for field in dataclasses.fields(thing):
                value = getattr(thing, field.name)
                if isinstance(value, float) and rng.random() < share:
                    setattr(thing, field.name, odd[rng.integers(len(odd))])
                elif dataclasses.is_dataclass(value) and rng.random() < share / 3:
                    setattr(thing, field.name, None if field.default is None else value)
                elif not isinstance(value, (int, str)):
                    walk(value)

    walk(e)
    return e


@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("make", [healthy, *FIRES], ids=lambda make: make.__name__)
def test_decide_never_raises_and_never_calls_a_bad_network_overfitted(make, share):
    rng = np.random.default_rng([len(make.__name__), round(100 * share)])
    for _ in range(4):
        e = shake(make(True) if make in FIRES else make(), rng, share)
        found = decide(e)
        path(e, found), checks(e, found)
        named = {f.code for f in found}
        assert not {"OVERFIT", "TRAIN_BAD"} <= named
        assert not any(isnan(f.confidence) for f in found)
        if any(f.severity == "fault" for f in found):
            assert roots(found)[0] is found[0]


UNKNOWN = [
    Evidence(), Evidence(layers=[Layer("0")]),
    Evidence(init=Sample(), now=Sample(layers=[LayerState()])),
]  # fmt: skip


@pytest.mark.parametrize("e", UNKNOWN)
def test_of_nothing_known_nothing_is_said(e):
    assert decide(e) == []


@pytest.mark.parametrize("factor", [1e3, 1e-3])
@pytest.mark.parametrize("make", [healthy, *FIRES], ids=lambda make: make.__name__)
def test_the_unit_of_the_loss_changes_nothing(make, factor):
    e = make(True) if make in FIRES else make()
    expected = codes(e)
    scores = [e.train, e.test, *(c.train for c in e.comparisons)]
    scores += [c.test for c in e.comparisons if c.test]
    e.constant *= factor
    e.losses = [v * factor for v in e.losses]
    seen = {id(s): s for s in (e.init, e.now, *e.samples)}
    for sample in seen.values():
        sample.loss *= factor
        scores += [s for s in (sample.train, sample.test) if s]
        for state in sample.layers:
            state.delta *= factor
            state.gradient *= factor
    for score in {id(s): s for s in scores}.values():
        score.loss *= factor
    e.plan.options["lr"] /= factor
    assert codes(e) == expected


# ------------------------------------------------------------------ what newcomers fell over


def test_targets_that_have_nothing_to_do_with_the_inputs_are_said_to_be_so():
    e = bad(metric=0.21)  # what a deep network learned by heart, a shallow one did better
    e.test = Score(300, 2.5, 0.1)
    for sample in e.samples:
        sample.train.metric = 0.2
    e.comparisons = [
        Comparison("shallow", depth=1, train=Score(1000, 2.0, 0.28), test=Score(300, 2.4, 0.1)),
        Comparison("reference", depth=1, train=Score(800, 1.0, 0.6), test=Score(200, 3.0, 0.11)),
    ]
    (finding,) = decide(e)
    assert (finding.code, finding.severity) == ("TARGETS", "warning")
    assert finding.evidence["reason"] == "unrelated" and finding.evidence["held"] == 0.11
    e.comparisons[1].test = Score(200, 2.0, 0.3)  # something can be learned after all
    assert "DEEPER_IS_WORSE" in codes(e) and "TARGETS" not in codes(e)


def test_something_can_be_learned_if_any_network_has():
    e = lose(bad(metric=0.11), 4.0)
    e.comparisons[1].test = Score(200, 9.0, 0.1)  # the reference learned by heart
    e.comparisons[0].test = Score(300, 0.1, 0.97)
    assert causes(e) == ["VANISHING"]
    e.comparisons[0].test = Score(300, 9.0, 0.1)
    assert "VANISHING" not in codes(e, "fault") and "TARGETS" in codes(e)


def test_with_few_held_out_examples_bad_luck_is_no_lack_of_a_relation():
    e = bad(metric=0.11)
    e.comparisons[1].test = Score(int(T.enough) - 1, 3.0, 0.1)
    assert "TARGETS" not in codes(e) and "TRAIN_BAD" in codes(e)


def test_a_mistake_in_the_loop_is_not_blamed_on_the_inputs():
    e = input_scale(True)
    assert causes(e) == ["INPUT_SCALE"]
    e.events.not_optimized = ["0.weight"]
    assert causes(e) == ["NOT_OPTIMIZED"]


def test_an_output_that_ends_in_relu_reaches_no_negative_targets():
    e = regression()
    e.layers[-1].activation = "relu"
    (finding,) = decide(bad(e, 0.3)) [:1]
    assert finding.code == "LOSS_MISMATCH" and finding.evidence["low"] == -2.0


def test_the_rate_to_try_brings_steps_to_a_good_size():
    e = every(lr_low(True), update=7e-7)
    e.plan.options = {"lr": 1e-5}
    (finding,) = [f for f in decide(e) if f.code == "LR_LOW"]
    (rate,) = [r.details["rate"] for r in finding.remedies if r.key == "higher_rate"]
    assert rate == pytest.approx(0.1)


def test_nobody_is_told_to_take_the_activation_that_is_there():
    e = bad()
    names = [r.details["name"] for f in decide(e) for r in f.remedies if r.key == "activation"]
    assert names and set(names) == {"maxout"}
    e.layers[0].activation = "tanh"
    names = [r.details["name"] for f in decide(e) for r in f.remedies if r.key == "activation"]
    assert "relu" in names


def test_large_targets_are_to_be_scaled():
    e = bad(regression(), 0.1)
    e.init.loss, e.inputs.target_high = 1e6, 5e4
    (finding,) = [f for f in decide(e) if f.code == "LOSS_AT_INIT"]
    assert finding.remedies[0].details == {"reason": "large"}


def test_an_unknown_loss_of_a_record_alone_is_not_nan():
    e = healthy()
    e.train, e.test, e.comparisons = Score(), None, []
    assert decide(e) == []


def test_a_loop_without_backward_or_without_step_is_named():
    e = bad(capacity(True))
    e.events.backwards = 0
    assert causes(e) == ["UNREACHED"] and decide(e)[0].evidence["reason"] == "backward"
    e.events.backwards, e.events.steps = 40, 0
    assert causes(e) == ["NOT_OPTIMIZED"] and decide(e)[0].evidence["reason"] == "step"


def test_two_examples_less_than_a_shallow_network_are_not_bad():
    e = healthy()
    e.train, e.comparisons = Score(30, 0.2, 28 / 30), e.comparisons[:1]
    e.comparisons[0].train = Score(30, 0.0, 1.0)
    assert "DEEPER_IS_WORSE" not in codes(e)
    e.train.metric = 26 / 30
    assert causes(e) == ["DEEPER_IS_WORSE"]


@pytest.mark.parametrize("n", [4, 8, 80, 1000])
@pytest.mark.parametrize("chance", [0.5, 0.9, 0.98])
def test_a_perfect_network_is_never_bad(n, chance):
    e = healthy()
    e.classes, e.chance, e.inputs.target_high = 2, chance, 1
    e.train, e.test = Score(n, 0.01, 1.0), Score(n, 0.01, 1.0)
    e.comparisons = [Comparison("reference", depth=1, train=Score(n, 0.01, 1.0),
                                test=Score(n, 0.01, 1.0))]  # fmt: skip
    assert decide(e) == []


def test_of_rare_classes_the_first_loss_is_that_of_no_preference():
    e = healthy()
    e.constant, e.uniform = 0.25, log(10)  # the start
    assert "LOSS_AT_INIT" not in codes(e)
    e.init.loss = e.init.train.loss = 3.1 * log(10)
    assert "LOSS_AT_INIT" in codes(e)


def test_a_gap_between_sets_of_unknown_size_is_a_warning():
    e = overfit(True)
    e.train.n = e.test.n = 0
    assert [(f.code, f.severity) for f in decide(e)] == [("OVERFIT", "warning")]


@pytest.mark.parametrize("what", ["not_optimized", "unreached"])
def test_layers_frozen_on_purpose_are_a_warning_where_the_result_is_good(what):
    e = healthy()
    setattr(e.events, what, ["0.weight"])
    assert [f.severity for f in decide(e)] == ["warning"]


def test_a_loss_that_still_falls_wants_more_steps_first():
    e = bad(metric=0.85)
    e.comparisons = e.comparisons[1:]
    for sample in e.samples:
        sample.train = None
    e.losses = [2.3 - 1.9 * i / STEPS for i in range(STEPS)]
    (finding,) = decide(e)
    assert finding.code == "TRAIN_BAD" and finding.remedies[0].key == "more_steps"
    e.losses = [0.4 + 1.9 * 0.9**i for i in range(STEPS)]
    assert [r.key for r in decide(e)[0].remedies][-1] == "more_steps"


def test_steps_of_a_good_size_are_not_made_larger():
    (finding,) = [f for f in decide(few_steps(True)) if f.code == "LR_LOW"]
    assert [r.key for r in finding.remedies] == ["more_steps", "adaptive"]


def test_one_weight_is_too_few_to_convict_a_gradient():
    e = grad_mismatch(True)
    e.check.checked = int(T.few_checks) - 1
    assert "GRAD_MISMATCH" not in codes(e)


def test_a_loss_that_nobody_saw_at_first_did_not_rise():
    e = bad()
    e.init, e.samples, e.losses, e.loss_steps = None, [], [], []
    e.train.loss = 1.2 * e.constant
    assert "LR_HIGH" not in codes(e)


def test_the_lower_rate_to_try_fits_the_size_of_the_steps():
    e = every(bad(), update=5.4)
    e.plan.options = {"lr": 50.0}
    (rate,) = [r.details["rate"] for f in decide(e) if f.code == "LR_HIGH" for r in f.remedies
               if r.key == "lower_rate"]  # fmt: skip
    assert rate == pytest.approx(0.05)
