"""The recorder: what it notes in any loop and in `fit`, and that it changes nothing."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
import weakref
from math import isnan, nan

import numpy as np
import pytest
from device import DEVICE, HOME, staying
from samples import registered

import microgradnd as mg
from benchmarks import recorder as benchmark
from benchmarks import timing
from microgradnd import nn, optim
from microgradnd.diagnosis import Recorder, load, recorder
from microgradnd.diagnosis.evidence import plain
from microgradnd.gradients import Passes
from microgradnd.modes import MODE
from microgradnd.random import default_generator

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(0, 2, (3, 4))
Y = RNG.integers(0, 3, 60)
X = (CENTRES[Y] + RNG.normal(0, 0.5, (60, 4))).astype("f4")
XT, YT = mg.tensor(X), mg.tensor(Y)


def network(*extra):
    mg.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *extra, nn.Linear(8, 3))


def setup(*extra, lr=0.1, **options):
    model = network(*extra)
    sgd = optim.SGD(model.parameters(), lr=lr)
    return model, sgd, Recorder(model, sgd, **options)


def step(model, optimizer, i=0, loss_fn=mg.cross_entropy, x=XT, y=YT):
    """One step of a usual loop on a batch of 20; gives the loss."""
    rows = slice(i % 3 * 20, i % 3 * 20 + 20)
    optimizer.zero_grad()
    loss = loss_fn(model(x[rows]), y[rows])
    loss.backward()
    optimizer.step()
    return loss.item()


# ------------------------------------------------------------------------------------ what is noted


def test_a_usual_loop():
    model, sgd, record = setup(loss_fn=mg.cross_entropy, train=(X, Y), test=(X[:9], Y[:9]))
    before = {n: p.numpy().copy() for n, p in model.state_dict().items()}
    losses = [step(model, sgd, i) for i in range(60)]
    got = record.record
    assert got.losses == losses and got.loss_steps == list(range(60))
    assert [s.step for s in got.samples] == [0, 10, 50]
    assert [s.loss for s in got.samples[1:]] == [losses[10], losses[50]]
    assert [(layer.name, layer.weight, layer.activation, layer.units, layer.output)
            for layer in got.layers] == [("0", "0.weight", "relu", 8, False),
                                         ("2", "2.weight", "none", 3, True)]  # fmt: skip
    assert got.initial.keys() == before.keys()
    assert all(np.array_equal(got.initial[n], before[n]) for n in before)
    first, last = got.samples[0], got.samples[-1]
    assert first.examples == 60 and last.examples == 20 and last.rate == 0.1 and isnan(last.epoch)
    assert first.train.metric < 0.7 < 0.9 < last.train.metric and last.train.n == 60
    assert last.test.n == 9 and last.test.metric == 1.0
    assert first.train.loss == pytest.approx(first.loss, rel=1e-5) and last.train.loss < 0.3
    for state in first.layers + last.layers:
        assert state.delta > 0 and state.gradient > 0 and 0 < state.update < 1
        assert sum(state.counts) == first.examples * 8 or sum(state.counts) in (180, 160, 60)
    plan = got.plan
    assert (plan.optimizer, plan.options["lr"], plan.steps, plan.batch, plan.loss) == (
        "SGD", 0.1, 60, 20, "cross_entropy")  # fmt: skip
    assert "Linear(in_features=4" in plan.model
    assert (got.task, got.metric, got.classes) == ("classification", "accuracy", 3)
    assert got.inputs.features == 4 and 0.3 < got.chance < 0.5 and got.constant > 0.9
    events = got.events
    assert (events.steps, events.backwards, events.batch) == (60, 60, 20)
    assert events.checked > 3 and events.stale == 0 and isnan(events.epochs)
    assert events.loss == ["cross_entropy"] and events.squashed == ""
    assert not (events.not_optimized or events.foreign or events.unreached or events.unchanged)
    assert events.nonfinite_step is None and events.evaluations == 0
    assert "60 steps, 3 samples, recording" in repr(record)


@pytest.mark.parametrize("given", [False, True])
def test_training_is_the_same_bit_for_bit(given):
    """With dropout and batch statistics, so random numbers, modes and buffers are in it, too."""

    def run(recorded):
        model = network(nn.BatchNorm1d(8), nn.Dropout(0.5))
        adam = optim.Adam(model.parameters(), lr=0.01)
        sets = {"train": (X, Y), "test": (X, Y), "loss_fn": mg.cross_entropy} if given else {}
        record = Recorder(model, adam, every=2, **sets) if recorded else None
        losses = [step(model, adam, i) for i in range(7)]
        grads = [p.grad.numpy() for p in model.parameters()]
        state = [t.numpy() for t in model.state_dict().values()]
        return losses, grads, state, default_generator().state, [m.training for m in
                                                                 model.modules()], record

    *plain_run, _ = run(False)
    *watched, record = run(True)
    assert plain_run[0] == watched[0] and plain_run[3:] == watched[3:]
    for a, b in zip(plain_run[1] + plain_run[2], watched[1] + watched[2], strict=True):
        assert np.array_equal(a, b)
    assert len(record.record.samples) == 4


def test_without_data_the_first_batch_stands_for_the_beginning():
    model, sgd, record = setup()
    step(model, sgd)
    first = record.record.samples[0]
    assert first.step == 0 and first.examples == 20 and first.train is None
    assert first.loss == record.record.losses[0]
    assert all(s.delta > 0 and s.same == 0 and s.update > 0 for s in first.layers)
    assert isnan(record.record.chance) and record.record.inputs is None


def size(x):
    return float(np.sqrt(np.mean(np.square(x, dtype="f8"))))


@pytest.mark.parametrize("make", [
    lambda ps: optim.SGD(ps, lr=0.1), lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
    lambda ps: optim.Adam(ps, lr=0.01), lambda ps: optim.RMSprop(ps, lr=0.01),
])  # fmt: skip
def test_updates_and_gradients_are_those_of_the_step(make):
    model = network()
    optimizer = make(model.parameters())
    record = Recorder(model, optimizer, every=3)
    for i in range(3):
        step(model, optimizer, i)
    old = [p.numpy().copy() for p in model.state_dict().values()]
    step(model, optimizer)
    new = [p.numpy().copy() for p in model.state_dict().values()]
    for i, state in enumerate(record.record.samples[-1].layers):
        assert state.weight == pytest.approx(size(old[2 * i]), rel=1e-5)
        assert state.update == pytest.approx(size(new[2 * i] - old[2 * i]) / size(old[2 * i]), 1e-4)
        assert state.gradient == pytest.approx(size(model[2 * i].weight.grad.numpy()), rel=1e-5)


def test_deltas_are_of_one_example_whatever_the_batch():
    found = []
    for n in (20, 60):
        model, sgd, record = setup()
        sgd.zero_grad()
        mg.cross_entropy(model(XT[:20] if n == 20 else mg.concatenate([XT[:20]] * 3)),
                         YT[:20] if n == 20 else mg.concatenate([YT[:20]] * 3)).backward()
        sgd.step()
        found.append([s.delta for s in record.record.samples[0].layers])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_maxout_prelu_and_dead_units():
    mg.manual_seed(0)
    model = nn.Sequential(nn.Maxout(4, 6, pieces=3), nn.Linear(6, 5), nn.PReLU(),
                          nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))  # fmt: skip
    with mg.no_grad():
        model[3].bias[:2] = -1e3
    sgd = optim.SGD(model.parameters(), lr=0.01)
    record = Recorder(model, sgd, every=1)
    for i in range(3):
        step(model, sgd, i)
    got = record.record
    assert [layer.activation for layer in got.layers] == ["maxout", "prelu", "relu", "none"]
    maxout, prelu, relu, _ = got.samples[-1].layers
    assert len(maxout.wins) == 3 and sum(maxout.wins) == pytest.approx(1.0)
    assert prelu.slopes == [pytest.approx(0.25, abs=0.02)] * 3
    assert relu.dead >= 0.25 and relu.zeros >= 0.25


def test_a_unit_that_was_active_in_one_of_the_last_batches_is_not_dead():
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with mg.no_grad():
        model[0].weight.assign_([[1.0]])
        model[0].bias.assign_([0.0])
    sgd = optim.SGD(model.parameters(), lr=1e-9)
    record = Recorder(model, sgd, every=1)
    for i in range(8):
        sgd.zero_grad()
        x = mg.full((2, 1), 1.0 if i == 1 else -1.0)
        mg.mse(model(x), mg.ones((2, 1))).backward()
        sgd.step()
    assert [s.layers[0].dead for s in record.record.samples] == [1, 0, 0, 0, 0, 1, 1, 1]


def test_much_is_thinned_out(monkeypatch):
    monkeypatch.setattr(recorder, "LOSSES", 20)
    monkeypatch.setattr(recorder, "SAMPLES", 6)
    monkeypatch.setattr(recorder, "WAITING", 7)
    model, sgd, record = setup(every=1)
    losses = [step(model, sgd, i) for i in range(90)]
    got = record.record
    assert got.loss_steps == list(range(0, 90, 8))
    assert got.losses == losses[::8]
    steps = [s.step for s in got.samples]
    assert steps[0] == 0 and len(steps) <= 6 and steps == sorted(set(steps)) and steps[-1] > 60
    assert got.events.steps == 90


def test_a_first_loss_that_is_not_finite_is_found_although_losses_are_thinned(monkeypatch):
    monkeypatch.setattr(recorder, "LOSSES", 8)
    model, sgd, record = setup()
    for i in range(33):
        step(model, sgd, i)
    step(model, sgd, x=XT * nan)
    assert record.record.events.nonfinite_step == 33


# ----------------------------------------------------------------------------------------- the loss


def test_the_loss_is_what_backward_began_with():
    model, sgd, record = setup()
    sgd.zero_grad()
    loss = mg.cross_entropy(model(XT), YT) * 1000.0
    loss.backward()
    sgd.step()
    assert record.record.losses == [loss.item()]
    assert record.record.events.loss == ["cross_entropy", "multiply"]


def test_gradients_that_are_summed_up_are_of_the_sum_of_losses():
    model, sgd, record = setup()
    for _ in range(3):
        sgd.zero_grad()
        losses = [mg.cross_entropy(model(XT[i : i + 20]), YT[i : i + 20]) / 3 for i in (0, 20, 40)]
        for loss in losses:
            loss.backward()
        sgd.step()
        assert record.record.losses[-1] == pytest.approx(sum(x.item() for x in losses))
    assert record.record.events.stale == 0 and record.record.events.backwards == 9
    assert record.record.samples[0].layers[0].delta > 0
    assert record.record.events.evaluations == 0


def test_of_a_loss_that_was_thrown_away_nothing_is_left():
    model, sgd, record = setup()
    mg.mse(model(XT), mg.ones((60, 3))).backward()  # and then zero_grad()
    loss = step(model, sgd)
    assert record.record.losses == [loss]


def test_other_models_are_not_ours():
    model, sgd, record = setup()
    other = nn.Linear(4, 3)
    elsewhere = optim.SGD(other.parameters(), lr=0.1)
    for i in range(3):
        step(other, elsewhere, i)
        loss = step(model, sgd, i)
        step(other, elsewhere, i)
        assert record.record.losses[-1] == loss
    assert record.record.events.backwards == record.record.events.steps == 3


def test_two_outputs_two_calls_and_a_model_inside_of_itself():
    class Twice(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x, deep=True):
            if deep:
                return self(self(x, False)["hidden"], False)
            hidden = mg.tanh(self.a(x))
            return {"hidden": hidden, "out": [self.b(hidden), "no tensor"]}

    mg.manual_seed(0)
    model = Twice()
    sgd = optim.SGD(model.parameters(), lr=0.1)
    record = Recorder(model, sgd, every=2)
    for _ in range(5):
        sgd.zero_grad()
        first, second = (model(x)["out"][0] for x in (XT[:20], XT[20:40]))
        loss = mg.cross_entropy(first, YT[:20]) + mg.cross_entropy(second, YT[20:40])
        loss.backward()
        sgd.step()
        assert record.record.losses[-1] == loss.item()
    got = record.record
    assert got.events.evaluations == 0 and got.events.backwards == 5
    assert [layer.name for layer in got.layers] == ["a", "b"] and got.events.batch == 20
    assert [s.step for s in got.samples] == [0, 2, 4]
    assert all(state.delta > 0 for s in got.samples for state in s.layers)
    assert got.events.loss == ["cross_entropy", "cross_entropy", "add"]


@pytest.mark.parametrize("close", [True, False])
def test_a_checkpointed_model(close):
    model, sgd, record = setup(nn.Dropout(0.5))
    if not close:
        step(model, sgd)
    sgd.zero_grad()
    loss = mg.cross_entropy(mg.checkpoint(model)(XT), YT)
    loss.backward()
    sgd.step()
    assert record.record.losses[-1] == loss.item()
    assert record.record.events.evaluations == 0


def test_value_and_grad():
    model, sgd, record = setup()
    for i in range(3):
        def loss_of(weight, i=i):
            hidden = mg.relu(XT @ weight.T)
            return mg.cross_entropy(model[2](hidden) + model(XT) * 0.0, YT)

        value, gradient = mg.value_and_grad(loss_of)(model[0].weight.detach())
        sgd.zero_grad()
        model[0].weight.grad = gradient
        sgd.step()
        assert record.record.losses[-1] == value.item()
    assert record.record.events.unreached == ["0.bias", "2.bias", "2.weight"]


def test_a_loss_per_example():
    model, sgd, record = setup()
    sgd.zero_grad()
    losses = mg.nn.functional.cross_entropy(model(XT), YT, reduction="none")
    losses.backward(mg.full((60,), 1 / 60))
    sgd.step()
    assert record.record.losses == [pytest.approx(losses.mean().item())]


def test_a_closure():
    model, sgd, record = setup(every=1)

    def closure():
        sgd.zero_grad()
        loss = mg.cross_entropy(model(XT), YT)
        loss.backward()
        return loss

    losses = [sgd.step(closure).item() for _ in range(3)]
    assert record.record.losses == losses
    assert all(0 < state.update < 1 for s in record.record.samples for state in s.layers)


def test_functions_and_direct_calls_of_forward():
    weight = mg.tensor(RNG.normal(size=(4, 3)), requires_grad=True, dtype="float32")
    sgd = optim.SGD([weight], lr=0.1)
    model = network()
    direct = optim.SGD(model.parameters(), lr=0.1)
    for call, optimizer, whole in (
        (lambda x: x @ weight, sgd, lambda x: x @ weight), (model.forward, direct, model)
    ):  # fmt: skip
        record = Recorder(whole, optimizer, mg.cross_entropy, (X, Y))
        losses = [step(call, optimizer, i) for i in range(12)]
        got = record.record
        assert got.losses == losses and got.events.steps == 12
        assert got.samples[0].layers[-1].delta > 0 and got.samples[0].train.n == 60
        assert got.samples[1].step == 10 and got.samples[1].train.loss < got.samples[0].train.loss
        assert got.initial and not got.events.unchanged and not got.events.not_optimized
        record.remove()
    assert got.plan.model.startswith("Sequential")


# --------------------------------------------------------------------------------------- the events


def test_gradients_that_were_not_forgotten():
    model, sgd, record = setup()
    for _ in range(12):
        mg.cross_entropy(model(XT), YT).backward()
        sgd.step()
    events = record.record.events
    assert events.checked == 4 and events.stale == 4  # at steps 1, 2, 3 and 10


@pytest.mark.parametrize("forget", [
    lambda model, sgd: sgd.zero_grad(set_to_none=False), lambda model, sgd: model.zero_grad(),
    lambda model, sgd: [p.grad.assign_(mg.zeros_like(p.grad)) for p in model.parameters()
                        if p.grad is not None],
])  # fmt: skip
@pytest.mark.parametrize("between", [True, False])
def test_gradients_that_were_forgotten(forget, between):
    """Also between forward and backward, and with a penalty that has a backward of its own."""
    model, sgd, record = setup()
    for _ in range(12):
        out = model(XT) if between else None
        with mg.no_grad():
            forget(model, sgd)
        out = model(XT) if out is None else out
        (model[0].weight ** 2).mean().backward()
        mg.cross_entropy(out, YT).backward()
        sgd.step()
    events = record.record.events
    assert events.checked == 4 and events.stale == 0


def test_parameters_that_nobody_trains_or_reaches():
    model = network()
    model[1].extra = nn.Linear(4, 4)
    own, others = [*model[0].parameters(), *model[1].extra.parameters()], nn.Linear(2, 2)
    sgd = optim.SGD([*own, *others.parameters()], lr=0.1)
    model[0].frozen = nn.Parameter(1.0, requires_grad=False)
    model[0].bias.requires_grad_(False)
    record = Recorder(model, sgd)
    for i in range(3):
        step(model, sgd, i)
    events = record.record.events
    assert events.not_optimized == ["2.weight", "2.bias"]
    assert events.foreign == 2
    assert events.unreached == ["1.extra.bias", "1.extra.weight"]
    assert sorted(events.unchanged) == ["1.extra.bias", "1.extra.weight"]


def test_what_another_optimizer_trains_is_trained():
    model = network()
    one, two = (optim.SGD(part.parameters(), lr=0.1) for part in (model[0], model[2]))
    record = Recorder(model, one)
    for i in range(2):
        two.zero_grad()
        step(model, one, i)
        two.step()
    assert record.record.events.not_optimized == []


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "log_softmax"])
def test_an_output_that_is_squashed(name):
    last = (lambda x: x, lambda x: x.reshape(-1, 3))[name == "sigmoid"]
    model = nn.Sequential(*network(), lambda x: last(getattr(mg, name)(x)))
    sgd = optim.SGD(model.parameters(), lr=0.1)
    record = Recorder(model, sgd)
    step(model, sgd)
    assert record.record.events.squashed == name
    model, sgd, record = setup()
    step(model, sgd, loss_fn=lambda out, y: mg.cross_entropy(getattr(mg, name)(out), y))
    assert record.record.events.squashed == ""
    assert record.record.events.loss == [name, "cross_entropy"]


@pytest.mark.parametrize("noisy", [nn.Dropout(0.3), nn.BatchNorm1d(8)])
@pytest.mark.parametrize("recording", [True, False])
def test_evaluations_in_train_mode(noisy, recording):
    model, sgd, record = setup(copy.deepcopy(noisy))
    for i in range(15):
        step(model, sgd, i)
        with mg.enable_grad() if recording else mg.no_grad():
            model(XT)
    events = record.record.events
    assert (events.evaluations, events.noisy_evaluations) == (15, 15)
    model.eval()
    with mg.no_grad():
        model(XT)
    assert (record.record.events.evaluations, record.record.events.noisy_evaluations) == (16, 15)


def test_no_dropout_no_noise():
    model, sgd, record = setup(nn.Dropout(0.0))
    step(model, sgd)
    with mg.no_grad():
        model(XT)
    assert (record.record.events.evaluations, record.record.events.noisy_evaluations) == (1, 0)


class Log(nn.Module):
    def forward(self, x):
        return mg.log(x - x)


def broken(kind):
    """A training step whose loss becomes NaN or infinite, by four ways."""
    model, sgd, record = setup(*([Log()] if kind == "operation" else []))
    y, x = YT, XT
    with mg.backend.named("numpy").quiet():
        if kind != "operation":
            step(model, sgd)
        if kind == "inputs":
            x = XT * nan
        if kind == "parameter":
            with mg.no_grad():
                model[2].weight[0, 0] = nan
        loss_fn = mg.cross_entropy
        if kind == "loss":
            loss_fn = lambda out, y: mg.cross_entropy(out, y) * nan  # noqa: E731
        step(model, sgd, x=x, y=y, loss_fn=loss_fn)
        step(model, sgd)
    return record.record.events


@pytest.mark.parametrize("kind, at, where", [
    ("inputs", 1, "the inputs"), ("parameter", 1, "the parameter 2.weight"),
    ("loss", 1, "the loss (cross_entropy)"), ("operation", 0, "forward of log at"),
])  # fmt: skip
def test_where_a_nan_begins(kind, at, where):
    events = broken(kind)
    assert events.nonfinite_step == at
    assert events.nonfinite_where.startswith(where)


# ---------------------------------------------------------------------------------------------- fit


def fit(model, optimizer, callbacks, epochs=3, **options):
    return mg.train.fit(
        model, mg.cross_entropy, optimizer, (X, Y), epochs=epochs, batch_size=20, progress=False,
        callbacks=callbacks, **options,
    )  # fmt: skip


def test_fit_tells_epochs_losses_and_metrics():
    model, sgd, record = setup(nn.Dropout(0.1))
    history = fit(model, sgd, [record], validation=(X[:9], Y[:9]), metrics=["accuracy"])
    got = record.record
    assert len(got.losses) == got.events.steps == 9 and got.events.epochs == 3
    epochs = [s for s in got.samples if not s.layers]
    assert [(s.step, s.epoch) for s in epochs] == [(3, 1), (6, 2), (9, 3)]
    for sample, row in zip(epochs, history.rows, strict=True):
        assert (sample.loss, sample.rate) == (row["loss"], row["lr"])
        assert plain(sample.train) == {"n": 60, "loss": row["loss"], "metric": row["accuracy"]}
        assert plain(sample.test) == {
            "n": 9, "loss": row["val_loss"], "metric": row["val_accuracy"]
        }  # fmt: skip
    mean = [np.mean(got.losses[i : i + 3]) for i in (0, 3, 6)]
    assert mean == pytest.approx(history["loss"])
    assert got.events.evaluations == 3 and got.events.noisy_evaluations == 0  # the validation's
    assert got.plan.loss == "cross_entropy"
    assert got.samples[0].epoch == 0.0


def test_fit_without_metrics_gets_scores_of_its_own():
    model, sgd, record = setup(train=(X, Y), test=(X[:9], Y[:9]))
    fit(model, sgd, [record], epochs=2)
    first, last = record.record.samples[0], record.record.samples[-1]
    assert first.train.n == 60 and first.train.loss > last.train.loss  # fit told its loss function
    assert last.epoch == 2 and last.test.n == 9 and last.test.metric > 0.5


def test_fit_with_accumulated_gradients():
    model, sgd, record = setup()
    history = fit(model, sgd, [record], epochs=2, accumulate=3)
    assert record.record.losses == pytest.approx(history["loss"])
    assert record.record.events.batch == 20


def test_resumed_as_if_it_had_never_stopped(tmp_path):
    path = tmp_path / "run.safetensors"

    def run(epochs, resume=None, every=None):
        model, adam = network(nn.Dropout(0.2)), None
        adam = optim.Adam(model.parameters(), lr=0.01)
        record = Recorder(model, adam, train=(X, Y), every=2)
        checkpoint = mg.train.Checkpoint(path, every_steps=every) if every else None
        fit(model, adam, [record, *([checkpoint] if checkpoint else [])], epochs, resume=resume)
        return record.record

    whole = run(4)
    run(2, every=4)
    resumed = run(4, resume=path)
    assert plain(resumed.events) | {"checked": 0} == plain(whole.events) | {"checked": 0}
    assert resumed.losses == whole.losses and plain(resumed.plan) == plain(whole.plan)
    assert [s.step for s in resumed.samples] == [s.step for s in whole.samples]
    assert plain(resumed.samples[0]) == plain(whole.samples[0])
    assert plain(resumed.samples[-1].train) == plain(whole.samples[-1].train)
    assert all(np.array_equal(resumed.initial[n], whole.initial[n]) for n in whole.initial)


def test_a_resumed_run_looks_closely_again_and_watches_nothing_afterwards(tmp_path):
    path = tmp_path / "run.safetensors"

    def run(epochs, resume=None):
        model = network()
        sgd = optim.SGD(model.parameters(), lr=0.01)
        record = Recorder(model, sgd)
        fit(model, sgd, [record, mg.train.Checkpoint(path)], epochs, resume=resume)
        return record.record

    run(2)
    seen = run(30, resume=path)  # further than to the next of the steps that are looked at
    assert len([s for s in seen.samples if s.layers]) == 3
    assert MODE.get().watch is None


# ----------------------------------------------------------------------------------------- the file


def test_a_file_holds_everything(tmp_path):
    model, sgd, record = setup(train=(X, Y), loss_fn=mg.cross_entropy, every=2)
    for i in range(5):
        step(model, sgd, i, x=XT if i < 4 else XT * nan)
    path = tmp_path / "a record"
    record.save(path)
    got, want = load(path), record.record
    assert repr(got) == repr(want)  # NaN is not equal to itself
    assert all(got.initial[n].dtype == np.float32 for n in got.initial)
    record.save(path)  # over the old one
    data = path.read_bytes()
    path.write_bytes(data[:-200])
    with pytest.raises(ValueError, match="a record is no record of a training"):
        load(path)


def test_a_file_that_is_something_else(tmp_path):
    path = tmp_path / "file"
    header = lambda **kw: np.frombuffer(repr(kw).replace("'", '"').encode(), np.uint8)  # noqa: E731
    for write in (
        lambda f: f.write(b""), lambda f: f.write(b"no file of ours"),
        lambda f: np.savez(f, x=np.ones(3)), lambda f: np.save(f, np.ones(3)),
        lambda f: np.savez(f, header=np.array([{}], object)),
        lambda f: np.savez(f, header=header(format="other", version=1)),
        lambda f: np.savez(f, header=header(format=recorder.FORMAT, version=99)),
        lambda f: np.savez(f, header=header(format=recorder.FORMAT, version=1)),
    ):  # fmt: skip
        with open(path, "wb") as file:
            write(file)
        with pytest.raises(ValueError, match="is no record of a training") as caught:
            load(path)
        assert "pickled data" not in str(caught.value)  # to load a pickle is bad advice
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent")


# ----------------------------------------------------------------------------------- nothing breaks


def test_after_an_exception_in_forward_the_watch_is_over():
    model, sgd, record = setup()
    for _ in range(2):
        with pytest.raises(ValueError):
            model(mg.ones((2, 5)))
        assert MODE.get().watch is None
    loss = step(model, sgd)
    assert record.record.losses == [loss] and record.record.samples[0].layers[0].delta > 0
    assert record.record.events.evaluations == 0


def test_ctrl_c_in_a_step():
    model, sgd, record = setup()

    class Stop(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    model.add_module("stop", Stop())
    with pytest.raises(KeyboardInterrupt):
        model(XT)
    del model.stop
    assert MODE.get().watch is None
    loss = step(model, sgd)
    assert record.record.losses == [loss]


def test_other_threads():
    model, sgd, record = setup(every=1)
    errors = []

    def evaluate():
        try:
            for _ in range(20):
                with mg.no_grad():
                    model(XT)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=evaluate) for _ in range(3)]
    for thread in threads:
        thread.start()
    losses = [step(model, sgd, i) for i in range(20)]
    for thread in threads:
        thread.join()
    assert not errors and record.record.losses == losses
    assert record.record.events.evaluations == 60
    assert all(state.delta > 0 for s in record.record.samples for state in s.layers)


def test_two_recorders_do_not_see_each_other():
    model, sgd, one = setup(train=(X, Y), loss_fn=mg.cross_entropy, every=1)
    two = Recorder(model, sgd, mg.cross_entropy, (X, Y), every=1)
    for i in range(3):
        step(model, sgd, i)
    assert plain(one.record.samples) == plain(two.record.samples)
    assert one.record.losses == two.record.losses
    assert one.record.events.evaluations == two.record.events.evaluations == 0


def hooks(model, optimizer):
    gc.collect()
    found = [model._before, model._after, optimizer._before, optimizer._after, Passes.hooks]
    return [h for kind in found for h in kind.values() if "diagnosis" in repr(h)]


def test_removed_and_forgotten_recorders_leave_no_hooks():
    model, sgd, record = setup()
    before = len(hooks(model, sgd))
    with record:
        step(model, sgd)
    assert before > 0 and not hooks(model, sgd)
    assert "removed" in repr(record)
    step(model, sgd)
    record.remove()
    assert record.record.events.steps == 1
    record = Recorder(model, sgd)
    assert hooks(model, sgd)
    del record
    assert not hooks(model, sgd)


def test_copies_of_the_model_are_not_recorded():
    model, sgd, record = setup()
    step(model, sgd)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        elsewhere = optim.SGD(other.parameters(), lr=0.1)
        step(other, elsewhere)
        with mg.no_grad():
            other(XT)
    copy.deepcopy(sgd)
    assert record.record.events.backwards == record.record.events.steps == 1
    assert record.record.events.evaluations == 0


@pytest.mark.parametrize("last", ["step", "backward", "forward"])
def test_nothing_is_held(last):
    """With the garbage collector off, graphs go with the step, all else with its owner."""
    gc.collect()
    gc.disable()
    try:
        model, sgd, record = setup(train=(X, Y), loss_fn=mg.cross_entropy, every=1)
        graphs = []
        for i in range(3):
            sgd.zero_grad()
            loss = mg.cross_entropy(model(XT), YT)
            graphs.append(weakref.ref(loss._node))
            if last == "forward" and i == 2:
                break
            loss.backward()
            if last == "backward" and i == 2:
                break
            sgd.step()
        del loss
        assert [graph() for graph in graphs] == [None] * 3
        kept = record.record
        things = [weakref.ref(model), weakref.ref(sgd), weakref.ref(record)]
        del model, sgd, record
        assert [thing() for thing in things] == [None] * 3
        assert kept.losses
        assert gc.collect() < 50  # what pytest and NumPy make themselves
    finally:
        gc.enable()


def test_outputs_that_nobody_trains_with_are_not_collected(monkeypatch):
    monkeypatch.setattr(recorder, "PENDING", 10)
    model, sgd, record = setup()
    step(model, sgd)
    for _ in range(35):
        model(XT)
    assert len(record._pending) <= 10 and record.record.events.evaluations == 35


def test_sets_that_the_loss_function_does_not_take():
    model, sgd, record = setup(train=(X, Y + 7), test=(X, Y + 7), loss_fn=mg.cross_entropy)
    step(model, sgd)
    first = record.record.samples[0]
    assert first.layers[0].std > 0 and isnan(first.train.loss) and first.layers[0].update > 0


@pytest.mark.parametrize("arguments, error, text", [
    ((nn.Linear, None), TypeError, "a model"), ((3, None), TypeError, "a model"),
    ((nn.Linear(1, 1), "sgd"), TypeError, "an optimizer of mg.optim .* got a str"),
    (("sgd", 3), TypeError, "loss_fn is a function"),
    (("sgd", None, X), TypeError, "train must be a tuple"),
    (("sgd", None, (X, Y[:3])), ValueError, "one row per example"),
    (("sgd", None, None, (X,)), TypeError, "test must be a tuple"),
    (("sgd", None, None, None, 0), ValueError, "every is a number of steps"),
    (("sgd", None, None, None, 2.5), ValueError, "every is a number of steps"),
])  # fmt: skip
def test_arguments(arguments, error, text):
    model = network()
    sgd = optim.SGD(model.parameters())
    if arguments[0] == "sgd":
        arguments = (model, sgd, *arguments[1:])
    with pytest.raises(error, match=text):
        Recorder(*arguments)
    assert not hooks(model, sgd)


# --------------------------------------------------------------------------------------- the device


def test_on_a_device_ordinary_steps_wait_for_nothing(only_the_device):
    with registered(DEVICE):
        model = network().to(HOME)
        sgd = optim.SGD(model.parameters(), lr=0.1)
        record = Recorder(model, sgd, mg.cross_entropy, (X, Y), every=5)
        x, y = (mg.asarray(DEVICE.asarray(a)) for a in (X, Y))
        losses = []
        for i in range(11):
            loss = _device_step(model, sgd, x, y, ordinary=i % 5 and i > 3)
            losses.append(loss.item())
        got = record.record
        assert got.losses == pytest.approx(losses) and len(got.samples) == 3
        assert got.samples[0].layers[0].delta > 0 and got.samples[1].layers[1].update > 0
        assert got.samples[-1].train.metric > got.samples[0].train.metric
        assert isinstance(got.initial["0.weight"], np.ndarray)
        with mg.no_grad():
            model[2].bias.assign_(model[2].bias * nan)
        for _ in range(2):
            _device_step(model, sgd, x, y, ordinary=True)
        events = record.record.events
        assert events.nonfinite_step == 11 and events.nonfinite_where.startswith("the parameter")


def _device_step(model, sgd, x, y, ordinary):
    sgd.zero_grad()
    if not ordinary:
        loss = mg.cross_entropy(model(x), y)
        loss.backward()
        sgd.step()
        return loss
    with staying("an ordinary step"):
        loss = mg.cross_entropy(model(x), y)
        loss.backward()
        sgd.step()
    return loss


# --------------------------------------------------------------------------------- the benchmark


def test_the_benchmark(capsys, tmp_path, monkeypatch):
    tiny = {"own": ((4, 3, 10), 4, False), "fit": ((4, 3, 10), 4, True)}
    monkeypatch.setattr(benchmark, "TRAININGS", tiny)
    for module in (benchmark, recorder):
        monkeypatch.setattr(module, "EVERY", 100)
    monkeypatch.setattr(benchmark, "EPOCH", 10)
    found = benchmark.main(["--rounds", "1", "--json", str(tmp_path / "found.json")])
    assert found.keys() == tiny.keys() and all(t["ratio"] > 0 for t in found.values())
    assert "once, at the start" in capsys.readouterr().out and (tmp_path / "found.json").exists()


def test_the_page_of_results_shows_what_was_measured():
    results = timing.ROOT / "benchmarks" / "results"
    found = json.loads((results / "recorder.json").read_text())["results"]
    assert found.keys() == benchmark.TRAININGS.keys()
    assert all(t["ratio"] < 1.05 for t in found.values())
    page = (results / "README.md").read_text(encoding="utf-8")
    for row in [benchmark.HEADER, *benchmark.rows(found)]:
        assert f"| {' | '.join(row)} |" in page
