"""`diagnose` measures, compares and tries remedies, and leaves no trace."""

import json
import re
from math import inf, isnan, log, nan

import numpy as np
import pytest
from device import DEVICE, dev
from samples import registered

import microgradnd as mg
from microgradnd import nn
from microgradnd.diagnosis import examination as ex
from microgradnd.diagnosis import variants
from microgradnd.diagnosis.evidence import (
    Comparison,
    Evidence,
    Finding,
    Inputs,
    Layer,
    LayerState,
    Plan,
    Record,
    Remedy,
    Sample,
    Score,
    plain,
)
from microgradnd.diagnosis.examination import examine, from_record
from microgradnd.diagnosis.measure import describe, first_output, pair, problem, sandbox
from microgradnd.diagnosis.observe import clone, look
from microgradnd.diagnosis.perturb import gradient_check
from microgradnd.diagnosis.remedies import TRY, verify
from microgradnd.diagnosis.rules import decide, roots
from microgradnd.registry import REGISTRY


def blobs(n=420, classes=4, features=6, seed=0, noise=0.4):
    """Clouds that hardly overlap."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((classes, features)) * 1.5
    y = rng.integers(0, classes, n)
    return (centers[y] + noise * rng.standard_normal((n, features))).astype("float32"), y


def network(depth=2, width=16, activation=nn.ReLU, inputs=6, outputs=4, seed=0, init=None):
    """Hidden layers that begin as suits their activation."""
    mg.manual_seed(seed)
    init = init or (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))
    parts = []
    for i in range(depth):
        layer = nn.Linear(width if i else inputs, width)
        init(layer.weight)
        nn.init.zeros_(layer.bias)
        parts += [layer, activation()]
    return nn.Sequential(*parts, nn.Linear(width if depth else inputs, outputs))


def recorded(model, optimizer, loss_fn, train, steps=150, batch=32, do=True):
    """Train, and write down what a recorder would: the beginning, the losses, and the plan."""
    layers, first = look(model, loss_fn, train[:-1], train[-1])
    record = Record(layers=layers, samples=[first])
    record.initial = {n: np.array(p.detach().to("numpy").numpy())
                      for n, p in model.named_parameters()}  # fmt: skip
    options = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    record.plan = Plan(type(optimizer).__name__, options, steps, batch)
    *xs, y = map(mg.asarray, train)
    draw = mg.random.Generator(5)
    for step in range(steps if do else 0):
        rows = draw.integers(0, len(y), batch).numpy()
        optimizer.zero_grad()
        loss = loss_fn(model(*(x[rows] for x in xs)), y[rows])
        loss.backward()
        optimizer.step()
        record.losses.append(loss.item())
        record.loss_steps.append(step)
    return record


def run(model, rate=0.1, train=None, test=None, loss_fn=mg.cross_entropy, steps=150, **more):
    """Train a network, and examine it."""
    train = train or blobs()
    optimizer = mg.optim.SGD(model.parameters(), lr=rate)
    record = recorded(model, optimizer, loss_fn, train, steps)
    return examine(model, loss_fn, train, test, record=record, **more)


@pytest.fixture
def quick(monkeypatch):
    """A reference of few steps, where it is not looked at how well it does."""
    monkeypatch.setattr(variants, "LEAST", 20)


def codes(evidence):
    return [finding.code for finding in roots(decide(evidence))]


def bits(model):
    return {name: t.detach().numpy().tobytes()
            for name, t in [*model.named_parameters(), *model.named_buffers()]}  # fmt: skip


# ------------------------------------------------------------------------------ leaves no trace


def test_nothing_of_the_users_is_touched(quick):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Dropout(0.5),
                          nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))  # fmt: skip
    optimizer = mg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = blobs()
    record = recorded(model, optimizer, mg.cross_entropy, (x, y), steps=3)
    mg.cross_entropy(model(mg.tensor(x)), mg.tensor(y)).backward()
    model.eval()
    model[1].train()
    called = []
    handle = model.register_forward_hook(lambda *args: called.append(args))
    generator = mg.random.default_generator()
    before = bits(model)
    gradients = {n: p.grad.numpy().tobytes() for n, p in model.named_parameters()}
    momenta = [s["momentum_buffer"].numpy().tobytes() if "momentum_buffer" in s else s["step"]
               for s in optimizer.state_dict()["state"].values()]  # fmt: skip
    state, modes = dict(generator.state), [m.training for m in model.modules()]
    kept = plain(record.samples), {k: v.tobytes() for k, v in record.initial.items()}
    data = x.tobytes(), y.tobytes()

    evidence = examine(model, mg.cross_entropy, (x, y), (x[:50], y[:50]), record=record)
    case = ex._case(model, mg.cross_entropy, (x, y), None, record, None, "auto")
    case.problem = problem(mg.cross_entropy, first_output(case.model, case.inputs), case.target)
    case.evidence = evidence
    remedies = [Remedy("normalize", "train"), Remedy("dropout", "test")]
    verify(case, evidence, [Finding("X", "fault", remedies=remedies)])
    assert evidence.compared("shallow") and evidence.compared("normalize")
    assert not called
    assert bits(model) == before
    assert {n: p.grad.numpy().tobytes() for n, p in model.named_parameters()} == gradients
    after = [s["momentum_buffer"].numpy().tobytes() if "momentum_buffer" in s else s["step"]
             for s in optimizer.state_dict()["state"].values()]  # fmt: skip
    assert after == momenta
    assert [m.training for m in model.modules()] == modes
    assert (plain(record.samples), {k: v.tobytes() for k, v in record.initial.items()}) == kept
    assert (x.tobytes(), y.tobytes()) == data
    assert dict(generator.state) == state
    model(mg.tensor(x))
    assert len(called) == 1  # the hook is still there
    handle.remove()


def test_the_sandbox_draws_the_same_numbers_and_gives_the_generator_back():
    state = dict(mg.random.default_generator().state)
    drawn = []
    for _ in range(2):
        with sandbox(), mg.no_grad(), sandbox():
            assert mg.tensor(1.0, requires_grad=True) * 2 is not None
            drawn.append(mg.random.uniform(shape=3).tolist())
    assert drawn[0] == drawn[1] and dict(mg.random.default_generator().state) == state


def test_the_same_call_gives_the_same_evidence(quick):
    model = network(3)
    record = recorded(model, mg.optim.SGD(model.parameters(), lr=0.1), mg.cross_entropy, blobs())
    texts = []
    for seed in (1, 2):
        mg.manual_seed(seed)
        found = examine(model, mg.cross_entropy, blobs(), blobs(seed=0), record=record)
        texts.append(json.dumps(plain(found)))
    assert texts[0] == texts[1] and found.compared("reference").complete


# --------------------------------------------------------------------------------- the problem


ONE = np.array([[0.0], [1.0], [1.0], [1.0]], "float32")
LOGITS = nn.BCEWithLogitsLoss()
PROBLEMS = {
    "ids": (mg.cross_entropy, np.zeros((4, 3), "f4"), np.array([0, 1, 1, 2]),
            "classification", 3, 0.5, 1.5 * log(2)),
    "one-hot": (mg.cross_entropy, np.zeros((4, 2), "f4"), np.eye(2, dtype="f4")[[0, 1, 1, 1]],
                "classification", 2, 0.75, log(4) - 0.75 * log(3)),
    "logit": (LOGITS, np.zeros((4, 1), "f4"), ONE,
              "classification", 2, 0.75, log(4) - 0.75 * log(3)),
    "share": (mg.mse, np.zeros((4, 1), "f4"), ONE, "classification", 2, 0.75, 3 / 16),
    "signs": (lambda z, y: mg.relu(1 - z * y).mean(), np.zeros(4, "f4"), np.array([-1, 1, 1, 1.0]),
              "classification", 2, 0.75, 0.5),
    "numbers": (mg.mse, np.zeros((4, 1), "f4"), ONE * 3 - 1.5, "regression", 0, 0.0, 27 / 16),
    "absolute": (nn.L1Loss(), np.zeros((4, 1), "f4"), ONE * 3, "regression", 0, 0.0, 0.75),
    "positions": (mg.cross_entropy, np.zeros((2, 2, 3), "f4"), np.array([[0, 1, 1], [1, -100, 1]]),
                  "classification", 2, 0.8, log(5) - 0.8 * log(4)),
    "scaled": (lambda z, y: 1000 * mg.mse(z, y), np.zeros((4, 1), "f4"), ONE * 3 - 1.5,
               "regression", 0, 0.0, 27000 / 16),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_kind_of_problem_and_the_best_constant(name):
    loss_fn, output, target, task, classes, chance, constant = PROBLEMS[name]
    found = problem(loss_fn, mg.tensor(output), mg.tensor(target))
    assert (found.task, found.classes) == (task, classes)
    assert found.chance == pytest.approx(chance)
    assert found.constant == pytest.approx(constant, rel=2e-3)


def test_what_no_metric_is_known_for():
    assert problem(mg.mse, (mg.zeros(3),), mg.zeros(3)).task == "other"
    assert problem(None, mg.zeros((4, 2)), mg.zeros((4, 5))).task == "other"
    found = examine(lambda x: (x, x), lambda z, y: mg.mse(z[0], y), (ONE, ONE * 2))
    assert found.task == "other" and isnan(found.train.metric) and found.train.loss > 0
    assert found.not_made == ["reference: what the outputs mean is unknown"]


def test_scores_are_those_taken_by_hand():
    x, y = blobs(n=300)
    model = network()
    xs, t = pair((x, y), "train", model)
    known = problem(mg.cross_entropy, first_output(model, xs), t)
    score = known.score(model, mg.cross_entropy, xs, t, batch=64)
    output = model(xs[0])
    assert score.n == 300
    assert score.loss == pytest.approx(mg.cross_entropy(output, t).item(), rel=1e-5)
    assert score.metric == pytest.approx(mg.train.accuracy(output, t).item())
    numbers = x[:, :2] * 3 + 1
    model = nn.Linear(6, 2)
    xs, t = pair((x, numbers), "train", model)
    known = problem(mg.mse, first_output(model, xs), t)
    error = ((model(xs[0]).detach().numpy() - numbers) ** 2).sum()
    wanted = 1 - error / ((numbers - numbers.mean(axis=0)) ** 2).sum()
    assert known.score(model, mg.mse, xs, t).metric == pytest.approx(wanted, rel=1e-4)
    with mg.no_grad():
        model.weight.assign_(model.weight * inf)
    assert known.score(model, mg.mse, xs, t).metric == -inf


def test_dropout_is_off_where_scores_are_taken_and_padding_does_not_count():
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.9), nn.Linear(16, 4))
    xs, t = pair(blobs(), "train", model)
    known = problem(mg.cross_entropy, first_output(model, xs), t)
    scores = {known.score(model, mg.cross_entropy, xs, t).loss for _ in range(3)}
    assert len(scores) == 1 and model.training
    padded = np.where(np.arange(420) < 200, t.numpy(), -100)
    part = tuple(v[:200] for v in (*xs, t))
    all_, some = (known.score(model, mg.cross_entropy, (a,), mg.tensor(b)) for a, b in
                  ((xs[0], padded), (part[0], part[1].numpy())))  # fmt: skip
    assert all_.metric == pytest.approx(some.metric)


def test_statistics_of_inputs():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5)).astype("float32") * [1, 1, 1, 40, 0] + [0, 0, 30, 0, 7]
    x[3, 0] = np.nan
    found = describe(None, (mg.tensor(x),), mg.tensor(np.arange(400) % 3), mg.zeros((4, 3)))
    assert found.nonfinite == 1 and found.constant == pytest.approx(0.2)
    assert found.features == 5 and found.outputs == 3
    assert found.shift == pytest.approx(30, rel=0.1) and found.ratio == pytest.approx(40, rel=0.1)
    assert (found.target_low, found.target_high) == (0, 2)
    assert found.low == pytest.approx(np.nanmin(x)) and found.std == pytest.approx(np.nanstd(x))
    table = nn.Sequential(nn.Embedding(10, 3), nn.Flatten(), nn.Linear(6, 2))
    ids = mg.tensor(np.arange(8).reshape(4, 2))
    assert describe(table, (ids,), mg.zeros(4)).ids
    assert not describe(nn.Linear(2, 2), (ids,), mg.zeros(4)).ids
    assert describe(None, (ids,), mg.zeros(4)).target_high == 0


# -------------------------------------------------------------------------------- the gradient


def check(model, loss_fn=mg.cross_entropy, data=None):
    xs, t = pair(data or blobs(), "train", model)
    return gradient_check(model, loss_fn, xs, t)


def test_right_gradients_pass_also_with_kinks_dropout_and_float16():
    models = [
        network(3), network(2, activation=nn.Tanh).to("float16"),
        nn.Sequential(nn.Maxout(6, 8, 3), nn.Dropout(0.5), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)),
    ]  # fmt: skip
    for model in models:
        dtype = next(model.parameters()).dtype
        x, y = blobs()
        found = check(model, data=(x.astype(dtype), y))
        assert found.checked >= 8 and found.worst < 1e-4, model


def test_a_kink_at_the_weight_itself_is_no_mismatch():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)  # every pre-activation is exactly 0
    found = check(model)
    assert found.checked and found.worst < 1e-4


@mg.primitive(name="wrong_cube", domain=(-1, 1), reference=lambda x: x**3)
def wrong_cube(xp, x, /):
    """A cube whose formula forgets the factor."""
    return x * x * x


wrong_cube.vjp(x=lambda g, x: g * x * x)
del REGISTRY["wrong_cube"]  # which the tests of all operations go through


def test_a_wrong_formula_is_found():
    model = network(2, activation=lambda: nn.as_module(wrong_cube)())
    found = check(model)
    assert found.worst == pytest.approx(8 / 9, rel=1e-3)  # two of them in a row
    assert found.parameter.startswith("0.")


def test_what_backward_does_not_reach_is_no_wrong_gradient():
    class Cut(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x):
            return self.b(mg.tanh(self.a(x)).detach())

    found = check(Cut())
    assert found.checked and found.worst < 1e-4 and found.parameter.startswith("b.")


# -------------------------------------------------------------------------------- comparisons


def case_of(model, record, train, make_model=None, loss_fn=mg.cross_entropy):
    """A case whose evidence is there, without comparisons."""
    case = ex._case(model, loss_fn, train, None, record, make_model, None)
    ex._examine(case, None, nan)
    return case


@pytest.fixture
def trained():
    model = network(4, 12)
    record = recorded(model, mg.optim.SGD(model.parameters(), lr=0.1), mg.cross_entropy, blobs())
    return model, record, case_of(model, record, blobs())


def test_the_shallow_variant_begins_with_the_users_weights(trained):
    _, record, case = trained
    found = variants.shallow(case)
    assert [type(m).__name__ for m in found.model] == ["Linear", "ReLU", "Linear"]
    for name, mine in (("0.weight", found.model[0].weight), ("8.bias", found.model[2].bias),
                       ("8.weight", found.model[2].weight)):  # fmt: skip
        assert mine.detach().numpy().tobytes() == record.initial[name].tobytes()
    assert found.steps == 150 and found.batch == 32 and found.depth == 1
    optimizer = found.optimizer(found.model.parameters())
    assert type(optimizer) is mg.optim.SGD and optimizer.param_groups[0]["lr"] == 0.1


def test_a_head_that_does_not_fit_is_drawn_anew_at_the_same_scale():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 40), nn.LayerNorm(40), nn.Tanh()),
                          nn.Linear(40, 8), nn.Tanh(), nn.Linear(8, 4))  # fmt: skip
    record = recorded(model, mg.optim.Adam(model.parameters(), betas=(0.8, 0.9)),
                      mg.cross_entropy, blobs(), do=False)  # fmt: skip
    record.plan.options["betas"] = [0.8, 0.9]  # as it comes from a file
    found = variants.shallow(case_of(model, record, blobs()))
    head, old = found.model[-1], model[-1]
    assert head.weight.shape == (4, 40)
    scale = float(head.weight.detach().numpy().std() * np.sqrt(40))
    assert scale == pytest.approx(float(old.weight.detach().numpy().std() * np.sqrt(8)), rel=0.3)
    optimizer = found.optimizer(found.model.parameters())
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_the_wider_variant():
    model = nn.Sequential(
        nn.Linear(6, 2), nn.BatchNorm1d(2), nn.PReLU(2), nn.Linear(2, 20), nn.LayerNorm(20),
        lambda z: mg.maxout(z, 2), nn.Linear(10, 4),
    )  # fmt: skip
    record = recorded(model, mg.optim.SGD(model.parameters()), mg.cross_entropy, blobs(), do=False)
    found = variants.wider(case_of(model, record, blobs()))
    shapes = [p.shape for p in found.model.parameters() if p.ndim == 2]
    assert shapes == [(64, 6), (160, 64), (4, 80)]
    assert found.model(mg.tensor(blobs()[0])).shape == (420, 4)


def test_what_cannot_be_taken_apart_says_so(quick):
    class Own(nn.Module):
        def __init__(self):
            self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4)

        def forward(self, x):
            return self.c(mg.relu(self.b(mg.relu(self.a(x)))))

    model = Own()
    record = recorded(model, mg.optim.SGD(model.parameters()), mg.cross_entropy, blobs(), do=False)
    found = examine(model, mg.cross_entropy, blobs(), record=record)
    assert [c.what for c in found.comparisons] == ["reference"]
    assert "shallow: the model is a Own, no Sequential (give make_model=)" in found.not_made
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Own())
    with pytest.raises(variants.Impossible, match="Own has weights"):
        variants.parts(inner)
    layer = nn.Linear(6, 6)
    with pytest.raises(variants.Impossible, match="twice"):
        variants.parts(nn.Sequential(layer, nn.ReLU(), layer))
    with pytest.raises(variants.Impossible, match="no Linear"):
        variants.parts(nn.Sequential(nn.ReLU()))

    asked = []

    def make(depth, activation):
        asked.append((depth, activation))
        return network(depth)

    found = examine(model, mg.cross_entropy, blobs(), record=record, make_model=make)
    assert asked == [(1, "relu")]
    assert found.compared("shallow").depth == 1 and found.compared("shallow").steps == 150


def test_without_a_record_only_the_reference_is_trained(quick):
    found = examine(network(3), mg.cross_entropy, blobs())
    assert [c.what for c in found.comparisons] == ["reference"]
    assert any("nobody recorded the training" in text for text in found.not_made)
    assert found.init is None and found.events is None


def test_an_own_optimizer_and_a_frozen_network_are_said(quick):
    model = network(3)
    record = recorded(model, mg.optim.SGD(model.parameters()), mg.cross_entropy, blobs(), do=False)
    record.plan.optimizer = ""
    found = examine(model, mg.cross_entropy, blobs(), record=record)
    assert any("its optimizer is none of mg.optim" in text for text in found.not_made)
    record.plan.optimizer = "SGD"
    model.requires_grad_(False)
    found = examine(model, mg.cross_entropy, blobs(), record=record)
    assert any("shallow: it raised ValueError" in text for text in found.not_made)


@pytest.mark.slow
def test_the_reference_learns_what_can_be_learned():
    x, y = blobs(n=600)
    noisy = np.where(np.random.default_rng(1).random(600) < 0.4, (y + 1) % 4, y)
    fine, bad = (examine(network(1), mg.cross_entropy, (x, t)).compared("reference")
                 for t in (y, noisy))  # fmt: skip
    assert fine.test.metric > 0.95 and fine.test.n == 120 and fine.steps == 300
    assert bad.test.metric < 0.72  # 0.6 of the labels are right
    few = examine(network(1), mg.cross_entropy, (x[:100], y[:100])).compared("reference")
    assert few.test.n == 100 and few.train.n == 80  # each fifth was held out once
    line = examine(nn.Linear(6, 1), mg.mse, (x, x @ np.ones((6, 1), "f4") * 900)).compared(
        "reference")  # fmt: skip
    assert line.test.metric > 0.95
    assert line.test.loss < 0.1 * examine(nn.Linear(6, 1), mg.mse, (x, x[:, :1] * 900)).constant


def test_baselines():
    model, own = network(2), network(1, seed=3)
    found = examine(model, mg.cross_entropy, blobs(), baseline=own)
    score = found.compared("shallow").train
    output = own(mg.tensor(blobs()[0]))
    assert score.loss == pytest.approx(
        mg.cross_entropy(output, mg.tensor(blobs()[1])).item(), rel=1e-5
    )
    made = Comparison("mine", train=Score(420, 0.1, 0.9))
    assert examine(model, mg.cross_entropy, blobs(), baseline=made).compared(
        "shallow").train.metric == 0.9  # fmt: skip
    none = examine(model, mg.cross_entropy, blobs(), baseline=None)
    assert none.comparisons == [] and "baseline=None" in none.not_made[0]
    short = examine(model, mg.cross_entropy, blobs(), baseline=0.2)
    assert not short.compared("reference").complete
    assert 75 <= short.compared("reference").steps < 300
    tiny = examine(model, mg.cross_entropy, blobs(), baseline=0.01)
    assert any(text.startswith("reference: the time allows") for text in tiny.not_made)


def test_the_budget_is_an_estimate_of_work_and_not_the_clock(trained, monkeypatch):
    _, _, case = trained
    case.seconds = 20.0
    assert [case.allowed(10**9, 2, 0) for _ in range(3)] == [
        int(20 / 4 / 6e-4), int(20 / 8 / 6e-4), int(20 / 16 / 6e-4)]  # fmt: skip
    assert case.allowed(100, 2, 0) == 100
    variant = variants.shallow(case)
    now = iter(range(0, 10**9, 40))
    monkeypatch.setattr(variants.time, "monotonic", lambda: next(now))
    case.seconds, case.began = 170, None
    made = variants.trained(case, variant)  # a clock that runs away ends it, too
    assert made.steps < 150 and not made.complete


# ------------------------------------------------------------------------------ what is decided


def deep(activation=nn.Sigmoid, depth=8):
    return network(depth, 16, activation, init=nn.init.xavier_normal_)


def test_a_healthy_network_has_no_fault():
    found = run(network(3), train=blobs(n=600), test=blobs(n=600)[:2])
    assert found.train.metric > 0.95 and codes(found) == []


@pytest.mark.slow
def test_deep_sigmoids_vanish_and_another_activation_is_the_remedy():
    model, train = deep(), blobs()
    record = recorded(model, mg.optim.SGD(model.parameters(), lr=0.5), mg.cross_entropy, train)
    case = ex._case(model, mg.cross_entropy, train, None, record, None, "auto")
    found = ex._examine(case, "auto", nan)
    findings = decide(found)
    assert codes(found)[0] == "VANISHING"
    assert found.compared("shallow").train.metric > found.train.metric + 0.3
    verify(case, found, roots(findings))
    gains = {r.details.get("name", r.key): r.gain for r in roots(findings)[0].remedies}
    assert gains["relu"].train.metric > 0.9 and gains["maxout"].train.metric > 0.9
    assert len([c for c in found.comparisons if c.what in TRY]) <= 4


def test_adam_helps_a_little_depth_only():
    model, train = deep(depth=12), blobs(n=400)
    record = recorded(model, mg.optim.SGD(model.parameters(), lr=0.5), mg.cross_entropy, train)
    case = case_of(model, record, train)
    remedy = Remedy("adaptive", "train")
    verify(case, case.evidence, [Finding("VANISHING", "fault", remedies=[remedy])])
    assert remedy.gain.changed == "Adam 0.01" and remedy.gain.train.metric < 0.6


@pytest.mark.slow
def test_too_little_capacity():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (500, 2)).astype("float32")
    y = (np.hypot(*x.T) < 0.75).astype("int64") + (np.hypot(*x.T) < 0.4)
    model = network(1, 1, inputs=2, outputs=3, init=nn.init.xavier_normal_)
    nn.init.zeros_(model[-1].bias)
    found = run(model, rate=0.5, train=(x, y), steps=800)
    assert found.compared("wider").train.metric > found.train.metric + 0.1
    assert codes(found) == ["CAPACITY"]


@pytest.mark.slow
def test_unscaled_inputs_are_tried_scaled():
    x, y = blobs(n=400)
    found = run(network(2), rate=0.1, train=(x * 3000 + 9000, y))
    assert found.compared("scaled").train.metric > 0.9 > found.train.metric
    assert codes(found)[0] == "INPUT_SCALE"
    ids = variants.unscaled(Evidence(inputs=Inputs(high=500.0, low=0, ids=True)))
    assert not ids


@pytest.mark.slow
def test_the_losss_unit_changes_no_verdict(quick):
    def thousand(output, target):
        return mg.cross_entropy(output, target) * 1000

    for make, rate in ((lambda: network(3), 0.1), (deep, 0.5)):
        plain_ = run(make(), rate)
        scaled = run(make(), rate / 1000, loss_fn=thousand)
        assert codes(plain_) == codes(scaled)
        assert scaled.constant == pytest.approx(1000 * plain_.constant, rel=1e-5)


# ------------------------------------------------------------------------------------ remedies


@pytest.mark.parametrize("key", TRY)
def test_every_remedy_can_be_tried(key):
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Maxout(10, 8, 3), nn.Linear(8, 4),
                          nn.Softmax(1))  # fmt: skip
    record = recorded(model, mg.optim.SGD(model.parameters(), lr=0.1), mg.cross_entropy, blobs(),
                      steps=14)  # fmt: skip
    case = case_of(model, record, blobs())
    case.evidence.not_made.clear()
    remedy = Remedy(key, "train", {"name": "relu", "rate": 0.2, "epoch": 1})
    verify(case, case.evidence, [Finding("X", "fault", remedies=[remedy])])
    assert case.evidence.not_made == []
    steps = {"more_steps": 56}.get(key, 14)
    assert remedy.gain.what == key and remedy.gain.steps == steps
    assert remedy.gain.train.metric == remedy.gain.train.metric


def test_leading_remedies_come_first_and_the_same_is_trained_once(trained):
    _, _, case = trained
    case.evidence.comparisons.clear()
    first = Finding("A", "fault", remedies=[Remedy("clip", "train"), Remedy("l2", "test"),
                                            Remedy("connect", "train")])  # fmt: skip
    second = Finding("B", "fault", remedies=[Remedy("clip", "train"), Remedy("dropout", "test"),
                                             Remedy("zero_bias", "train"),
                                             Remedy("normalize", "train")])  # fmt: skip
    verify(case, case.evidence, [first, second])
    assert [c.what for c in case.evidence.comparisons] == ["clip", "l2", "dropout", "zero_bias"]
    assert first.remedies[0].gain is second.remedies[0].gain
    assert first.remedies[2].gain is None and second.remedies[3].gain is None


def test_a_remedy_that_cannot_be_tried_says_why(trained):
    _, _, case = trained
    case.evidence.not_made.clear()
    remedies = [Remedy("early_stopping", "test", {"epoch": nan}), Remedy("remove_softmax", "train"),
                Remedy("fewer_pieces", "train"),
                Remedy("activation", "train", {"name": "nothing"})]  # fmt: skip
    verify(case, case.evidence, [Finding("X", "fault", remedies=remedies)])
    assert all(remedy.gain is None for remedy in remedies)
    assert [text.partition(":")[0] for text in case.evidence.not_made] == [r.key for r in remedies]


# ------------------------------------------------------------------------------ compare_depths


@pytest.mark.slow
def test_depths_are_compared_on_the_training_set():
    state = dict(mg.random.default_generator().state)

    def make(depth, activation="sigmoid"):
        parts = []
        for i in range(depth):
            parts += [nn.Linear(16 if i else 6, 16), getattr(mg, activation)]
        return nn.Sequential(*parts, nn.Linear(16 if depth else 6, 4))

    def sgd(parameters):
        return mg.optim.SGD(parameters, lr=0.5)

    data = blobs()
    found = mg.diagnosis.compare_depths(make, [1, 8], mg.cross_entropy, data, data, optimizer=sgd)
    assert found.worse == [8] and found.deeper_is_worse and found.metric == "accuracy"
    assert "not overfitting" in str(found) and str(found).splitlines()[1].split()[0] == "1"
    good = mg.diagnosis.compare_depths(make, [1, 3], mg.cross_entropy, data, activation="relu")
    assert not good.deeper_is_worse and good.rows[0].test is None and "-" in str(good)
    again = mg.diagnosis.compare_depths(make, [1, 3], mg.cross_entropy, data, activation="relu")
    assert again == good and dict(mg.random.default_generator().state) == state
    with pytest.raises(ValueError, match="at least one depth"):
        mg.diagnosis.compare_depths(make, [], mg.cross_entropy, data)
    model = network()
    for change, text in (
        ({"make_model": model}, "gives a new network, got a Sequential"),
        ({"depths": 3}, r"such as \[1, 3, 6\], got 3"),
        ({"optimizer": mg.optim.SGD(model.parameters(), lr=0.1)}, "that makes one.*, got a SGD"),
        ({"make_model": lambda depth: depth}, "must give a Module, gave a int"),
    ):
        given = {"make_model": make, "depths": [1], "loss_fn": mg.cross_entropy, "train": data}
        with pytest.raises(TypeError, match=text):
            mg.diagnosis.compare_depths(**given | change)


def test_the_picture_of_depths(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    rows = [variants.Depth(d, Score(9, 1.0, m), Score(9, 1.0, m)) for d, m in ((1, 0.9), (5, 0.1))]
    variants.Depths(rows, "accuracy").plot(tmp_path / "depths.png")
    assert (tmp_path / "depths.png").stat().st_size > 1000


# -------------------------------------------------------------------------------------- records


def test_what_a_record_alone_says():
    score = Score(9, 0.5, 0.75)
    states = [LayerState(delta=1.0), LayerState(delta=2.0)]
    record = Record(
        layers=[Layer("0", "0.weight"), Layer("2", "2.weight", output=True)],
        samples=[Sample(0, layers=states), Sample(8, layers=states), Sample(9, train=score)],
        losses=[2.0, 0.5], loss_steps=[1, 9], task="classification", chance=0.5,
    )  # fmt: skip
    found = from_record(record)
    assert found.init.step == 0 and found.now.step == 8 and found.train == score
    assert found.task == "classification" and found.chance == 0.5 and found.losses == [2.0, 0.5]
    assert found.comparisons == [] and "no data" in found.not_made[0]
    decide(found)
    assert from_record(Record()).init is None
    with pytest.raises(TypeError, match="record must be"):
        from_record(3)


def test_records_of_another_network_are_refused_and_layers_are_sorted(trained):
    model, record, _ = trained
    with pytest.raises(ValueError, match="another network"):
        other = Record(layers=[Layer("x", "x.weight")], samples=[Sample()])
        examine(model, mg.cross_entropy, blobs(), record=other)
    turned = Record(layers=record.layers[::-1],
                    samples=[Sample(0, layers=record.samples[0].layers[::-1])])  # fmt: skip
    found = examine(model, mg.cross_entropy, blobs(), record=turned, baseline=None)
    assert [s.delta for s in found.init.layers] == [s.delta for s in record.samples[0].layers]


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        ({"depth": 2, "width": 12}, "4.weight is of shape (4, 12) in the record, and of shape (12, "
                                    "12) in the model"),
        ({"depth": 5, "width": 12}, "8.weight is of shape (12, 12) in the record, and of shape (4, "
                                    "12) in the model"),
        ({"depth": 1, "outputs": 12, "width": 12}, "4.weight is missing in the record, and of"),
    ],
)  # fmt: skip
def test_records_of_networks_that_share_some_shapes_are_refused(theirs, text, trained):
    model, other = trained[0], network(**theirs)
    initial = {name: p.detach().numpy() for name, p in other.named_parameters()}
    with pytest.raises(ValueError, match=f"another network: {re.escape(text)}"):
        examine(model, mg.cross_entropy, blobs(), record=Record(samples=[Sample()],
                                                                initial=initial))  # fmt: skip
    # Without the initial parameters (of large networks there are none) the layers tell.
    if len(other) != 3:
        layers = look(other, None, blobs()[0][:9])[0]
        with pytest.raises(ValueError, match="another network"):
            examine(model, mg.cross_entropy, blobs(),
                    record=Record(layers=layers, samples=[Sample()]))  # fmt: skip


def test_frozen_parameters_and_records_of_a_function_fit():
    model = network()
    model[0].requires_grad_(False)
    optimizer = mg.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    x, y = blobs(60)
    for watched in (model, lambda x: model(x)):
        with mg.diagnosis.Recorder(watched, optimizer) as recorder:
            mg.cross_entropy(watched(mg.tensor(x)), mg.tensor(y)).backward()
            optimizer.step()
        found = examine(model, mg.cross_entropy, (x, y), record=recorder, baseline=None)
        assert found.events.steps == 1 and len(found.layers) == 3


def test_a_record_that_saw_no_training_is_as_none_and_said():
    model, data = network(), blobs(60)
    record = mg.diagnosis.Recorder(model, mg.optim.SGD(model.parameters(), lr=0.1))
    found = examine(model, mg.cross_entropy, data, record=record, baseline=None)
    assert found.not_made[0] == ex.NO_TRAINING
    found.not_made.pop(0)
    bare = examine(model, mg.cross_entropy, data, baseline=None)
    assert plain(found) == plain(bare) and found.events is None
    assert from_record(record).not_made[0] == ex.NO_TRAINING and from_record(record).events is None
    told = str(mg.diagnose(model, mg.cross_entropy, data, record=record, baseline=None))
    assert "saw no training" in told
    told = str(mg.diagnose(model, mg.cross_entropy, data, record=record, baseline=None, lang="zh"))
    assert "它没有看到训练" in told


def test_the_beginning_is_measured_on_all_examples(trained):
    model, record, _ = trained
    few = look(clone(model), mg.cross_entropy, blobs()[0][:5], blobs()[1][:5])[1]
    short = Record(layers=record.layers, samples=[few], initial=record.initial)
    found = examine(model, mg.cross_entropy, blobs(), record=short, baseline=None)
    assert found.init.examples == 420
    whole = record.samples[0].layers
    assert [s.dead for s in found.init.layers] == pytest.approx([s.dead for s in whole])


@pytest.mark.slow
def test_from_the_recorder_to_the_report(tmp_path, quick):
    """Three lines in a user's own script."""
    train, test = blobs(), blobs(n=200)
    model = deep()
    optimizer = mg.optim.SGD(model.parameters(), lr=0.5)
    record = mg.diagnosis.Recorder(model, optimizer, mg.cross_entropy, train, test)
    x, y = map(mg.tensor, train)
    draw = mg.random.Generator(0)
    for _ in range(60):
        rows = draw.integers(0, 420, 32)
        optimizer.zero_grad()
        mg.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    before = bits(model), dict(mg.random.default_generator().state)
    steps = record.record.events.steps, record.record.events.evaluations
    report = mg.diagnose(model, mg.cross_entropy, train, test, record=record, verify=True)
    assert (bits(model), dict(mg.random.default_generator().state)) == before
    assert (record.record.events.steps, record.record.events.evaluations) == steps
    assert not report.ok and "VANISHING" in str(report) and str(report).count("\n") < 12
    assert roots(report.findings)[0].remedies[0].gain.steps == 60
    weights = report.extras["sensitivity"]["weights"]
    assert weights[0]["parameter"] in before[0] and json.dumps(report.extras, allow_nan=False)
    again = mg.diagnose(model, mg.cross_entropy, train, test, record=record)
    assert str(again.evidence.now) == str(report.evidence.now)
    record.save(tmp_path / "record.npz")
    alone = from_record(tmp_path / "record.npz")
    assert codes(alone)[0] == "VANISHING" and alone.train.n > 0 and alone.chance < 0.4
    read = mg.diagnose(model, mg.cross_entropy, train, test, record=tmp_path / "record.npz")
    assert codes(read.evidence) == codes(report.evidence)


def test_learned_activations_are_kept_for_the_page(quick):
    model = nn.Sequential(nn.Maxout(6, 40, 2), nn.Linear(40, 8), nn.PReLU(), nn.Linear(8, 4))
    report = mg.diagnose(model, mg.cross_entropy, blobs())
    shapes = report.extras["shapes"]["shapes"]
    assert len(shapes) == 24 and {shape["layer"] for shape in shapes} == {"0", "2"}
    assert report.evidence.not_made == [text for text in report.evidence.not_made
                                        if "raised" not in text]  # fmt: skip


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"model": nn.Linear}, TypeError, "the class Linear"),
        ({"loss_fn": 3}, TypeError, "loss_fn must be"),
        ({"train": 5}, TypeError, r"train must be a tuple \(inputs, target\)"),
        ({"train": (np.zeros((3, 6)),)}, TypeError, "got 1 of them"),
        ({"train": (np.zeros((3, 6)), np.zeros(4))}, ValueError, "one row per example"),
        ({"train": (np.zeros((0, 6)), np.zeros(0))}, ValueError, "one row per example"),
        ({"test": (np.zeros((3, 6)), np.zeros(3), np.zeros(3))}, ValueError, "test has 2 inputs"),
        ({"baseline": "yes"}, ValueError, "baseline must be"),
        ({"baseline": True}, ValueError, "baseline must be"),
        ({"baseline": -1}, ValueError, "baseline must be"),
        ({"record": [1]}, TypeError, "record must be a Recorder"),
        ({"make_model": 3}, TypeError, "make_model must be a function"),
        ({"make_model": network()}, TypeError, "gives a new network, got a Sequential"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, "one number"),
    ],
)  # fmt: skip
def test_mistakes_are_named_at_the_call(change, error, text):
    given = {"model": network(), "loss_fn": mg.cross_entropy, "train": blobs()} | change
    with pytest.raises(error, match=text):
        examine(**given)


def test_thresholds_are_no_dict():
    with pytest.raises(TypeError, match=r"Thresholds\(margin=0\.1\), got a dict"):
        mg.diagnose(network(), mg.cross_entropy, blobs(), thresholds={"margin": 0.1})
    with pytest.raises(TypeError, match="must be a Thresholds"):
        mg.diagnosis.diagnose_arrays(train=0.5, thresholds={})


def test_a_model_that_raises_gets_a_note():
    with pytest.raises(ValueError, match="last axis") as caught:
        examine(network(inputs=5), mg.cross_entropy, blobs())
    assert "the diagnosis called it with float32 (256, 6)" in caught.value.__notes__[0]


def test_targets_out_of_range_are_evidence_and_no_exception():
    x, y = blobs()
    found = examine(network(outputs=3), mg.cross_entropy, (x, y))
    assert found.inputs.target_high == 3 and isnan(found.train.loss) and found.check is None
    assert "targets of 0 to 3 do not fit 3 classes (0 to 2)" in found.not_made[0]
    assert "TARGETS" in codes(found)


# ------------------------------------------------------------------------------- unusual things


class Positions(nn.Module):
    """A class for each of several positions: (N, L, F) becomes (N, C, L)."""

    def __init__(self):
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return mg.swapaxes(self.layer(x), 1, 2)


class Two(nn.Module):
    """Two inputs."""

    def __init__(self):
        self.a, self.b = nn.Linear(6, 5), nn.Linear(7, 4)

    def forward(self, x, z):
        return self.b(mg.concatenate([mg.tanh(self.a(x)), z], axis=1))


def unusual():
    rng = np.random.default_rng(0)
    x, y = blobs(n=60)
    nans = x.copy()
    nans[3, 1] = np.nan
    norm = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(),
                         nn.Linear(8, 4))  # fmt: skip
    table = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(),
                          nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))  # fmt: skip
    return {
        "nothing to train": (nn.Identity(), mg.cross_entropy, (x, y)),
        "a function": (lambda v: v[:, :4] * 2.0, mg.cross_entropy, (x, y)),
        "NaN": (network(), mg.cross_entropy, (nans, y)),
        "all NaN": (network(), mg.cross_entropy, (nans * np.nan, y)),
        "one example": (norm, mg.cross_entropy, (x[:1], y[:1])),
        "batch statistics": (norm, mg.cross_entropy, (x, y)),
        "ids": (table, mg.cross_entropy, (rng.integers(0, 9, (60, 3)), y)),
        "numbers": (network(outputs=2), mg.mse, (x, x[:, :2])),
        "one logit": (network(outputs=1), LOGITS, (x, (x[:, :1] > 0).astype("float32"))),
        "positions": (Positions(), mg.cross_entropy,
                      (rng.standard_normal((40, 5, 6)).astype("f4"), rng.integers(0, 4, (40, 5)))),
        "two inputs": (Two(), mg.cross_entropy, (x, x[:, :2], y)),
        "float16": (network().to("float16"), mg.cross_entropy, (x.astype("float16"), y)),
        "float64": (network().to("float64"), mg.cross_entropy, (x.astype("float64"), y)),
        "bytes": (network(), mg.cross_entropy, (x, y.astype("uint8"))),
        "one-hot": (network(), mg.cross_entropy, (x, np.eye(4, dtype="float32")[y])),
        "integers": (network(), mg.cross_entropy, ((x * 9).astype("int64"), y)),
        "lists": (network(), mg.cross_entropy, (x.tolist(), y.tolist())),
    }  # fmt: skip


@pytest.mark.parametrize("name", unusual())
def test_unusual_models_and_data_are_examined(name, quick):
    model, loss_fn, data = unusual()[name]
    record = None
    if isinstance(model, nn.Module) and any(True for _ in model.parameters()):
        record = Record(plan=Plan("SGD", {"lr": 0.1}, 20, 16), samples=[Sample()])
        record.initial = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
    with mg.no_grad():  # also where nothing is recorded
        found = examine(model, loss_fn, data, data, record=record)
    json.dumps(plain(found), allow_nan=False)
    decide(found)
    assert found.test == found.train or "NaN" in name
    assert found.train.n == len(data[-1])
    reference = found.compared("reference")
    assert (reference is None) == (name in ("NaN", "all NaN", "ids", "one example"))


def test_models_on_a_device(quick):
    with registered(DEVICE):
        with mg.backend.use(DEVICE.name):
            model = network(2, 8)
        x, y = blobs(n=40)
        record = Record(plan=Plan("SGD", {"lr": 0.1}, 3, 16), samples=[Sample()])
        record.initial = {n: p.detach().to("numpy").numpy() for n, p in model.named_parameters()}
        found, other = (examine(model, mg.cross_entropy, data, record=record)
                        for data in ((x, y), (dev(x), dev(y))))  # fmt: skip
        assert json.dumps(plain(found)) == json.dumps(plain(other))
        assert {c.what for c in found.comparisons} >= {"shallow", "reference"}
        assert all(p.backend is DEVICE for p in model.parameters())


def test_test_targets_out_of_range_are_said_and_the_training_set_is_judged():
    x, y = blobs()
    model = network(1)
    found = examine(model, mg.cross_entropy, (x, y), (x, y + 20), baseline=None)
    assert found.test is None and np.isfinite(found.train.metric)
    assert any(text.startswith("test set: targets of") for text in found.not_made)


def test_the_gradient_of_a_loss_near_zero_is_not_called_wrong():
    x, y = blobs(n=60, classes=3, noise=0.05)
    model = network(2, width=32, outputs=3)
    adam = mg.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        adam.zero_grad()
        loss = mg.cross_entropy(model(mg.tensor(x)), mg.tensor(y))
        loss.backward()
        adam.step()
    assert loss.item() < 1e-5
    found = examine(model, mg.cross_entropy, (x, y), baseline=None)
    assert not found.check.worst > 1e-3
