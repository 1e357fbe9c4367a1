import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.diagnosis import data, rivals, scoring, suite
from benchmarks.diagnosis.configurations import (
    ACCEPTED,
    FAULTS,
    HEALTHY,
    SEEDS,
    bites,
    draw,
    fine,
    side,
)
from benchmarks.diagnosis.training import Settings, train
from microgradnd.diagnosis.evidence import Evidence, Layer, LayerState, Sample, Score
from microgradnd.diagnosis.rules import decide, roots

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases():
    return suite.load()


# ------------------------------------------------------------------------------ what is in it


def test_the_suite_is_as_large_as_it_says_and_has_as_many_healthy_runs_as_faulty_ones(cases):
    seeds = defaultdict(set)
    for case in cases:
        seeds[case.kind, case.name].add(case.seed)
    count = Counter(kind for (kind, _), found in seeds.items() if found == set(SEEDS))
    assert len(FAULTS) >= 16 and count["HEALTHY"] >= HEALTHY
    assert all(count[kind] >= 10 for kind in FAULTS)
    runs = Counter(c.kind for c in cases if c.kind not in suite.VARIANTS)
    assert runs["HEALTHY"] >= runs.total() / 2


def test_what_is_stored_is_what_was_screened(cases):
    stored = {c.name for c in cases if not c.name.endswith("twin")}
    assert stored == {c.name for kind in ("HEALTHY", *FAULTS) for c in suite.kept(kind)}


def test_a_half_has_whole_configurations_with_their_twins_and_half_of_each_class(cases):
    halves = defaultdict(set)
    for case in cases:
        halves[case.name.removesuffix(" twin")].add(case.side)
    assert all(len(found) == 1 for found in halves.values())
    for kind in ("HEALTHY", *FAULTS):
        names = [c.name for c in suite.kept(kind)]
        sides = side(names)
        assert sides == side(names[::-1])  # the order in which they were drawn is nothing to it
        assert all(halves[name] == {sides[name]} for name in names)
        count = Counter(sides.values())
        assert abs(count["tuning"] - count["scoring"]) <= 1


def test_the_split_is_the_one_that_was_fixed_in_advance():
    assert side(["a", "b", "c", "d"]) == {
        "d": "tuning", "c": "scoring", "b": "tuning", "a": "scoring"
    }  # fmt: skip


def test_a_configuration_is_the_same_each_time_and_its_twin_differs_in_the_fault_alone():
    for kind in FAULTS:
        c = draw(kind, 3)
        assert c == draw(kind, 3) and c.name == draw(kind, 3).name
        before, after = dataclasses.asdict(c.twin), dataclasses.asdict(c.settings)
        changed = {k for k in before if before[k] != after[k]}
        assert changed and not changed & {"data", "opt", "logit", "style", "flip"}


@pytest.mark.parametrize("name", [name for name in data.SETS if name != "digits"])
def test_the_best_result_is_one_that_the_data_allow(name):
    d = data.make(name, 0, 0)
    assert 0.75 < d.best <= 1 and 0.75 < d.test_best <= 1
    assert len(d.x) == len(d.y) == data.SETS[name][2] and len(d.tx) == data.TEST
    assert np.isfinite(d.x).all() and np.array_equal(d.x, data.make(name, 0, 0).x)
    if not d.regression:
        wrong = data.make(name, 0, 0, flip=0.2)
        assert d.best - wrong.best == pytest.approx((wrong.y != d.y).mean())


def run(train, test, best=1.0, reported=1.0):
    return SimpleNamespace(
        train=train, test=test, reported=reported, clean=SimpleNamespace(best=best)
    )


def test_a_label_follows_from_results_alone():
    nan, good = float("nan"), run(0.98, 0.97)
    assert bites("VANISHING", run(0.5, 0.5), good) and bites("LR_HIGH", run(nan, nan), good)
    assert not bites("VANISHING", run(0.93, 0.9), good)  # it does not hurt
    assert not bites("VANISHING", run(0.5, 0.5), run(0.9, 0.9))  # the twin is bad, too
    assert bites("OVERFIT", run(1.0, 0.8), good) and not bites("OVERFIT", run(0.9, 0.7), good)
    assert not bites("OVERFIT", run(1.0, 0.8), run(1.0, 0.82))  # more data do not help
    assert bites("EVAL_MODE", run(0.98, 0.97, reported=0.9), good)
    assert not bites("EVAL_MODE", good, good)
    assert fine(run(0.82, 0.8, best=0.85)) and not fine(run(0.82, 0.75, best=0.85))
    assert not fine(run(0.7, 0.75)) and not fine(run(nan, nan))


# -------------------------------------------------------------------------------- the results


@pytest.fixture(scope="module")
def result(cases):
    return json.loads(json.dumps(scoring.everything(cases)))


def test_the_tables_are_what_the_rules_give_on_the_stored_evidence(result):
    stored = json.loads(scoring.RESULTS.read_text(encoding="utf-8"))
    looks = stored.pop("looks")
    assert result == stored
    assert looks[-1] == {key: result["scoring"][scoring.OURS][key] for key in scoring.BARS}
    assert scoring.TABLE.read_text(encoding="utf-8") == scoring.report(result, looks)


def test_the_bars_hold_on_the_half_that_no_threshold_was_chosen_on(result):
    mine = result["scoring"][scoring.OURS]
    assert all(mine[key] >= bar for key, bar in scoring.BARS.items())
    assert mine["overfit"] == 0 == result["tuning"][scoring.OURS]["overfit"]


def test_other_units_change_hardly_any_verdict(result):
    for row in result["units"].values():
        assert row["runs"] > 50 and row["same"] >= 0.95 * row["runs"]


def test_scores_count_what_they_say():
    def case(kind, train=1.0):
        return suite.Case(kind, "", "tuning", 0, train, train, 1.0, Evidence())

    wanted = {"VANISHING": (["DEAD", "VANISHING"], ["DEAD", "VANISHING"]),
              "LR_LOW": (["LR_LOW", "OVERFIT"], ["LR_LOW"]), "HEALTHY": ([], []),
              "RATE_KILLS": (["LR_HIGH", "DEAD"], ["LR_HIGH"])}  # fmt: skip

    def verdict(case):
        return tuple([frozenset({c}) for c in part] for part in wanted[case.kind])

    found = scoring.score([case(kind, 0.2) for kind in wanted], verdict)
    assert found["recall"] == 1.0 and found["first"] == round(2 / 3, 4)
    assert found["precision"] == 0.75 and found["quiet"] == 1.0 and found["overfit"] == 1
    assert found["classes"]["VANISHING"] == [1, 1, 0]
    assert found["named"]["VANISHING"] == {"DEAD": 1}


# ------------------------------------------------------------------------------------- other tools


def history(*states, **more):
    """Three samples alike, of a hidden layer and an output layer."""
    layers = [Layer("0", activation="relu", units=4, fan_in=4), Layer("2", output=True, units=2)]
    usual = LayerState(gradient=0.1, gradient_zeros=0.0, update=1e-3, std=1.0, z_mean=0.0,
                       z_std=1.0, zeros=0.5, dead=0.0, saturated=0.0)  # fmt: skip
    states = [dataclasses.replace(usual, **s) for s in states or ({}, {})]
    samples = [Sample(i, layers=states, train=Score(9, 0.5, i / 10)) for i in range(3)]
    usual = {"train": Score(9, 0.1, 0.5), "losses": [1.0, 0.9, 0.8, 0.4, 0.3, 0.2]}
    return Evidence(layers=layers, init=samples[0], samples=samples[:2], now=samples[2],
                    **(usual | more))  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "evidence", "codes"),
    [
        ("AUTOTRAINER", history({"gradient": 1e-6}, {}), "VANISHING"),
        ("AUTOTRAINER", history({"gradient_zeros": 0.8}, {}), "DEAD"),
        ("AUTOTRAINER", history(losses=[1.0, 2e3]), "NONFINITE"),
        ("DeepDiagnosis", history({"zeros": 0.8}, {}), "DEAD"),
        ("DeepDiagnosis", history({"saturated": 0.6}, {}), "SATURATED"),
        ("SageMaker Debugger", history({"gradient": 1e-9}, {"gradient": 1e-9}), "VANISHING"),
        ("SageMaker Debugger", history(losses=[1.0] * 6), "LR_LOW"),
        ("UMLAUT", history(losses=[1.0, float("nan")]), "NONFINITE"),
        ("BTTackler", history({"gradient": 1e-6}, {}), "VANISHING"),
        ("NeuroScope", history({"gradient": 1.0}, {}), "VANISHING"),
        ("nnscope", history({"gradient": 1e-5}, {}), "VANISHING"),
        ("nnscope", history({"update": 0.5}, {"update": 0.5}), "LR_HIGH"),
    ],
)
def test_the_rules_of_other_tools_fire_where_they_say(tool, evidence, codes):
    found = rivals.findings(tool, evidence)
    assert any(codes in meant for meant in found)
    quiet = rivals.findings(tool, history())
    assert not any(codes in meant for meant in quiet)


# ----------------------------------------------------------------------------------- really trained

SMALL = Settings(data="moons", width=16, opt="adam", rate=0.01, steps=200)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"act": "sigmoid", "depth": 8, "opt": "sgd", "rate": 0.1}, "VANISHING"),
        ({"bias": -10.0}, "DEAD"),
        ({"plant": "crooked:sign"}, "GRAD_MISMATCH"),
        ({"plant": "other model"}, "NOT_OPTIMIZED"),
        ({"plant": "bad input:nan"}, "NONFINITE"),
    ],
)
def test_a_run_is_judged_and_what_is_stored_of_it_gives_the_same_verdict(change, code):
    found = train(dataclasses.replace(SMALL, **change), 0)
    case = suite.Case("", "", "", 0, found.train, found.test, 1.0, suite.look(found))
    causes = [f.code for f in roots(decide(case.evidence))]
    assert causes[:1] == ([code] if code else [])
    again = suite._read(json.loads(suite.line(case)))
    assert [f.code for f in decide(again.evidence)] == [f.code for f in decide(case.evidence)]


def test_a_recorder_changes_nothing_in_a_run():
    with_it, without = (train(SMALL, 0, record=r) for r in (True, False))
    assert (with_it.train, with_it.test) == (without.train, without.test)


def test_every_code_that_may_be_named_is_one_that_a_rule_can_give():
    from microgradnd.diagnosis import rules

    text = Path(rules.__file__).read_text(encoding="utf-8")
    assert all(f'"{code}"' in text for codes in ACCEPTED.values() for code in codes)
