"""The training loop: what a step does, what is counted, called back, saved, stopped."""

import builtins
import gc
import json
import math
import signal
import sys
import threading
import weakref

import numpy as np
import pytest
import standin
from samples import registered

import microgradnd as mg
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.train import (
    Callback,
    Checkpoint,
    EarlyStopping,
    History,
    Schedule,
    accuracy,
    evaluate,
    fit,
)

LOSS = mg.nn.CrossEntropyLoss()
MSE = mg.nn.MSELoss()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
Y = (X @ RNG.normal(size=(4, 3))).argmax(1)
#: One number is learned: y = w x with w = 2.
LINE = (np.linspace(-1, 1, 8, dtype="float32")[:, None],) * 2


def network(seed=0, dropout=0.0):
    mg.manual_seed(seed)
    return mg.nn.Sequential(
        mg.nn.Linear(4, 8, bias=False), mg.nn.BatchNorm1d(8), mg.nn.ReLU(), mg.nn.Dropout(dropout),
        mg.nn.Linear(8, 3),
    )  # fmt: skip


def adam(model, lr=0.01):
    return mg.optim.Adam(model.parameters(), lr=lr)


def host(tensor):
    return tensor.detach().numpy().copy()


def state(model):
    """All that a model holds, as bytes."""
    return {name: t.numpy().tobytes() for name, t in model.state_dict().items()}


def train(model, optimizer=None, data=(X, Y), **options):
    options = {"epochs": 2, "batch_size": 8, "progress": False} | options
    return fit(model, LOSS, optimizer or adam(model), data, **options)


def loader(**options):
    return mg.data.DataLoader(mg.data.TensorDataset(X, Y), **({"batch_size": 8} | options))


class Watch(Callback):
    """Calls a function at one event."""

    def __init__(self, **functions):
        for event, function in functions.items():
            setattr(self, event, function)


# --------------------------------------------------------------------------------- what it computes


def test_it_does_what_a_loop_by_hand_does():
    one, two = network(), network()
    first, second = adam(one), adam(two)
    mg.manual_seed(5)
    history = train(one, first, epochs=3, metrics="accuracy", validation=(X[:9], Y[:9]))
    mg.manual_seed(5)
    data = loader(shuffle=True)
    for epoch in range(3):
        total = right = 0.0
        for x, y in data:
            second.zero_grad()
            output = two(x)
            loss = LOSS(output, y)
            loss.backward()
            second.step()
            total += loss.item() * len(y)
            right += float((output.detach().numpy().argmax(1) == y.numpy()).sum())
        row = history.rows[epoch]
        assert row["loss"] == pytest.approx(total / 50, rel=1e-12)
        assert row["accuracy"] == pytest.approx(right / 50, rel=1e-12)
    assert state(one) == state(two)
    two.eval()
    with mg.no_grad():
        output = two(mg.tensor(X[:9]))
        assert row["val_loss"] == pytest.approx(LOSS(output, mg.tensor(Y[:9])).item(), rel=1e-6)
    assert row["val_accuracy"] == (output.numpy().argmax(1) == Y[:9]).mean()
    assert list(row) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    assert history["epoch"] == [1, 2, 3] and history["lr"] == [0.01] * 3
    assert history["loss"][2] < history["loss"][0]


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}])
def test_accumulated_batches_are_one_large_batch(clip):
    def weights(batch_size, accumulate):
        mg.manual_seed(0)
        model = mg.nn.Linear(4, 3)
        sgd = mg.optim.SGD(model.parameters(), lr=0.5)
        steps = []
        watch = Watch(on_step_end=lambda loop: steps.append(host(model.weight)))
        history = train(
            model, sgd, batch_size=batch_size, accumulate=accumulate, shuffle=False, epochs=1,
            callbacks=[watch], metrics=["accuracy"], **clip,
        )  # fmt: skip
        return steps, history.rows[0]

    # 50 rows: 8 + 8 + 8 + 8, and a last group of 8 + 8 + 2.
    (few, row), (many, row4) = weights(32, 1), weights(8, 4)
    assert len(few) == len(many) == 2
    for a, b in zip(few, many, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-7)
    assert row == pytest.approx(row4, rel=1e-6)


def test_clipping_is_between_backward_and_step():
    model = mg.nn.Linear(4, 3)
    sgd = mg.optim.SGD(model.parameters(), lr=1.0)
    seen = []

    def norm(loop):
        seen.append(math.sqrt(sum((p.grad.numpy() ** 2).sum() for p in model.parameters())))

    watch = Watch(on_backward_end=norm, on_step_end=norm)
    train(model, sgd, epochs=1, clip_norm=0.01, callbacks=[watch])
    assert min(seen[::2]) > 0.05
    np.testing.assert_allclose(seen[1::2], 0.01, rtol=1e-3)
    train(model, sgd, epochs=1, clip_value=0.001, callbacks=[
        Watch(on_step_end=lambda loop: seen.append(np.abs(model.weight.grad.numpy()).max()))
    ])  # fmt: skip
    np.testing.assert_allclose(seen[-1], 0.001, rtol=1e-5)


def test_functions_lists_of_batches_and_several_inputs():
    w = mg.tensor([[0.0]], requires_grad=True)
    x, y = LINE
    data = [(x[:3], x[:3], 4 * y[:3]), (x[3:], x[3:], 4 * y[3:])]
    sgd = mg.optim.SGD([w], lr=0.2)
    history = fit(lambda a, b: (a + b) @ w, MSE, sgd, data, epochs=30, progress=False)
    assert w.item() == pytest.approx(2.0, abs=1e-3)
    assert history["loss"][-1] < 1e-6
    assert evaluate(lambda a, b: (a + b) @ w, MSE, data)["loss"] < 1e-6


def test_it_trains_inside_no_grad_and_leaves_it():
    model = network()
    before = state(model)
    with mg.no_grad():
        train(model, epochs=1)
        assert not mg.is_grad_enabled()
    assert state(model) != before


# ------------------------------------------------------------------------------------------ metrics


def test_accuracy_of_classes_distributions_and_yes_or_no():
    scores = mg.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    assert accuracy(scores, mg.tensor([0, 1])).item() == 0.5
    assert accuracy(scores, mg.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])).item() == 1.0
    assert accuracy(mg.tensor([1.0, -1.0, -2.0]), mg.tensor([1, 1, 0])).item() == 2 / 3
    assert accuracy(mg.tensor([[1.0], [-1.0]]), mg.tensor([[True], [True]])).item() == 0.5
    with pytest.raises(ValueError, match=r"\(2, 3\) do not fit targets \(2, 1\)"):
        accuracy(scores, mg.tensor([[0], [1]]))
    with pytest.raises(ValueError, match=r"\(2, 1\) do not fit targets \(2,\)"):
        accuracy(mg.tensor([[1.0], [-1.0]]), mg.tensor([1, 1]))


def test_own_metrics_are_weighted_by_batch_size():
    model = network()
    metrics = {"rows": lambda output, target: float(len(target)), "mean": lambda o, t: t.mean()}
    got = evaluate(model, LOSS, (X, Y), metrics, batch_size=30)
    assert got["rows"] == (30 * 30 + 20 * 20) / 50
    assert got["mean"] == pytest.approx(Y.mean())
    assert evaluate(model, LOSS, (X, Y))["loss"] == pytest.approx(got["loss"], rel=1e-6)
    line = evaluate(lambda x: 3 * x, MSE, (LINE[0], LINE[1]), ["mse", "mae"], batch_size=3)
    assert line["mse"] == pytest.approx(line["loss"]) == pytest.approx(4 * (LINE[0] ** 2).mean())
    assert line["mae"] == pytest.approx(2 * np.abs(LINE[0]).mean())


@pytest.mark.parametrize(
    ("metrics", "error"),
    [
        ("acuracy", "'acuracy' is not one of accuracy, mae, mse"),
        (["accuracy", "f1"], "'f1' is not one of"),
        ({"f1": 3}, "'f1' is not one of"),
        ({"loss": accuracy}, "needs the name 'loss'"),
        ({"val_f1": accuracy}, "needs the name 'val_f1'"),
    ],
)
def test_wrong_metrics(metrics, error):
    with pytest.raises(ValueError, match=error):
        train(network(), metrics=metrics)
    with pytest.raises(ValueError, match=error):
        evaluate(network(), LOSS, (X, Y), metrics)


def test_what_is_no_mean_is_refused_before_the_step():
    model = network()
    before = [host(p) for p in model.parameters()]
    with pytest.raises(ValueError, match=r"f1 must be one number, .* got shape \(8, 3\)"):
        train(model, metrics={"f1": lambda output, target: output})
    with pytest.raises(ValueError, match="reduce with"):
        fit(model, mg.nn.CrossEntropyLoss(reduction="none"), adam(model), (X, Y), epochs=1,
            progress=False)  # fmt: skip
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(host(p), old)


# -------------------------------------------------------------------------------------------- modes


def test_modes_are_kept_module_by_module():
    model = network(dropout=0.5)
    model[1].eval()  # a frozen normalization
    frozen = model[1].running_mean.numpy().copy()
    seen = []
    look = Watch(
        on_step_begin=lambda loop: seen.append([m.training for m in model.modules()]),
    )
    train(model, validation=(X, Y), callbacks=[look])
    modes = [True, True, False, True, True, True]
    assert seen == [modes] * 14 and [m.training for m in model.modules()] == modes
    np.testing.assert_array_equal(model[1].running_mean.numpy(), frozen)
    evaluate(model, LOSS, (X, Y))
    assert [m.training for m in model.modules()] == modes
    model.eval()
    seen.clear()
    train(model, callbacks=[look])
    assert seen == [[True] * 6] * 14 and not any(m.training for m in model.modules())


def test_evaluation_is_in_eval_mode_without_gradients_and_ends_cleanly():
    model, seen = network(), []

    def look(output, target):
        seen.append((model[3].training, mg.is_grad_enabled(), output.requires_grad))
        return 0.0

    evaluate(model, LOSS, (X, Y), {"look": look})
    assert seen == [(False, False, False)]
    with pytest.raises(ZeroDivisionError):
        evaluate(model, LOSS, (X, Y), {"f1": lambda output, target: 1 / 0})
    assert all(m.training for m in model.modules()) and mg.is_grad_enabled()


def test_nothing_is_held_afterwards():
    model = network()
    history = train(model, validation=(X, Y), callbacks=[EarlyStopping()], metrics="accuracy")
    held = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert held() is None and len(history) == 2
        model = network()
        held = weakref.ref(model)
        with pytest.raises(ZeroDivisionError) as caught:
            train(model, callbacks=[Watch(on_step_end=lambda loop: 1 / 0)])
        del model, caught
        assert held() is None
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("options", "kind", "error"),
    [
        ({"epochs": -1}, ValueError, "epochs must be at least 0, got -1"),
        ({"epochs": 1.5}, TypeError, "float"),
        ({"accumulate": 0}, ValueError, "accumulate must be at least 1, got 0"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm must be positive, got 0.0"),
        ({"clip_value": math.nan}, ValueError, "clip_value must be positive, got nan"),
        ({"on_nonfinite": "stop"}, ValueError, "'ignore', got 'stop'"),
        ({"data": (X, Y[:-1])}, ValueError, r"train: .* got lengths \[50, 49\]"),
        ({"data": (X,)}, ValueError, r"train: .* got lengths \[50\]"),
        ({"validation": (X[:3], Y)}, ValueError, r"validation: .* got lengths \[3, 50\]"),
        ({"data": (X[:0], Y[:0])}, ValueError, "train: there is no batch"),
        ({"data": []}, ValueError, "train: there is no batch"),
        ({"data": iter([(X, Y)])}, TypeError, "once per epoch; got list_iterator"),
        ({"data": mg.data.TensorDataset(X, Y)}, TypeError, "got TensorDataset"),
        ({"data": mg.tensor(X)}, TypeError, "got Tensor"),
        ({"callbacks": [EarlyStopping]}, TypeError, "is no callback"),
        ({"callbacks": [print]}, TypeError, "is no callback; it has none of on_train_begin"),
        ({"callbacks": [EarlyStopping()]}, ValueError, "no 'val_loss' to monitor, only loss"),
        ({"callbacks": [Checkpoint("x", monitor="val_loss")]}, ValueError, "Checkpoint: there is"),
        ({"callbacks": [Checkpoint("x", model=1)]}, ValueError, "the name 'model' is taken"),
    ],
)
def test_mistakes_are_told_at_the_call(options, kind, error):
    model = network()
    before = state(model)
    with pytest.raises(kind, match=error):
        train(model, **options)
    assert state(model) == before


def test_an_optimizer_of_another_model_is_told():
    model = network()
    with pytest.raises(ValueError, match="none of the model's parameters"):
        train(model, adam(network()))
    with pytest.raises(TypeError, match="got Sequential, Adam, CrossEntropyLoss"):
        fit(model, adam(model), LOSS, (X, Y), epochs=1)
    head = mg.optim.SGD(model[4].parameters(), lr=0.1)  # a part is fine
    before = state(model)
    train(model, head)
    changed = {name for name, data in state(model).items() if data != before[name]}
    assert {"4.weight", "4.bias"} <= changed and not changed & {"0.weight", "1.weight"}


def test_a_loader_without_length_that_gives_nothing():
    class Nothing:
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match="no batch"):
        train(network(), data=Nothing())
    with pytest.raises(ValueError, match="no batch"):
        evaluate(network(), LOSS, Nothing())


def test_no_epochs_is_an_empty_history():
    model = network()
    before = state(model)
    history = train(model, epochs=0)
    assert len(history) == 0 and state(model) == before
    assert repr(history) == "History of no epoch"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: EarlyStopping(patience=0), "patience must be at least 1"),
        (lambda: EarlyStopping("val_thing"), "is less or more of 'val_thing' better"),
        (lambda: EarlyStopping(mode="most"), "is less or more"),
        (lambda: Checkpoint("x", every=0), "at least 1"),
        (lambda: Checkpoint("x", every_steps=-1), "at least 1"),
        (lambda: Checkpoint("x", every_steps=1, monitor="loss"), "leave out every_steps"),
        (lambda: Schedule(step_lr(), per="batch"), "'epoch' or 'step' here, got 'batch'"),
        (lambda: Schedule(plateau(), per="step"), "must be 'epoch' here, got 'step'"),
    ],
)
def test_wrong_callbacks(make, error):
    with pytest.raises(ValueError, match=error):
        make()


# -------------------------------------------------------------------------------------- callbacks


def test_the_order_of_the_calls_and_what_the_loop_carries():
    calls = []
    model = network()
    optimizer = adam(model)

    class Recorder:  # no subclass: the names of the methods are enough
        def on_train_begin(self, loop):
            calls.append("begin")
            assert (loop.epoch, loop.step, loop.resumed, loop.epochs) == (0, 0, False, 2)
            assert (loop.model, loop.loss_fn, loop.optimizer) == (model, LOSS, optimizer)

        def on_step_begin(self, loop):
            calls.append(("step", loop.epoch, loop.step))
            assert loop.batch[0].shape == (25, 4)
            self.before = state(model)

        def on_backward_end(self, loop):
            calls.append("gradients")
            assert all(p.grad is not None for p in model.parameters())
            assert {n for n, b in state(model).items() if b != self.before[n]} <= {
                "1.running_mean", "1.running_var", "1.num_batches_tracked"
            }  # fmt: skip
            assert loop.loss.shape == () and not loop.loss.requires_grad
            assert loop.output.shape == (25, 3)

        def on_epoch_end(self, loop):
            calls.append(("end", loop.epoch, loop.step))
            assert loop.history.rows[-1] == loop.logs and loop.logs["epoch"] == loop.epoch

        def on_train_end(self, loop):
            calls.append(("over", loop.error))

    train(model, optimizer, batch_size=25, callbacks=[Recorder()])
    one = ["gradients"]
    assert calls == [
        "begin", ("step", 1, 0), *one, ("step", 1, 1), *one, ("end", 1, 2),
        ("step", 2, 2), *one, ("step", 2, 3), *one, ("end", 2, 4), ("over", None),
    ]  # fmt: skip


def test_stop_closes_the_epoch_after_the_step():
    model = network()
    stop = Watch(on_step_end=lambda loop: loop.stop() if loop.step == 10 else None)
    history = train(model, epochs=5, callbacks=[stop], validation=(X, Y))
    assert history["epoch"] == [1, 2] and len(history["val_loss"]) == 2


def test_train_end_is_called_for_all_whatever_happens():
    ended = []

    def fail(loop):
        ended.append("first")
        raise KeyError("first")

    callbacks = [
        Watch(on_train_end=fail),
        Watch(on_train_end=lambda loop: ended.append(loop.error)),
        Watch(on_backward_end=lambda loop: 1 / 0),
    ]
    with pytest.raises(KeyError, match="first"):
        train(network(), callbacks=callbacks)
    assert ended[0] == "first" and isinstance(ended[1], ZeroDivisionError) and len(ended) == 2


def test_early_stopping_gives_the_best_state_back():
    model, states = network(), []
    stopping = EarlyStopping("val_score", patience=2, mode="min", min_delta=0.1)
    history = train(
        model, epochs=10, validation=(X, Y), metrics=scores([5, 3, math.nan, 2.95, 2, 1]),
        callbacks=[stopping, Watch(on_epoch_end=lambda loop: states.append(state(model)))],
    )  # fmt: skip
    assert len(history) == 4 and stopping.best_epoch == 2 and stopping.best.value == 3.0
    assert state(model) == states[1] != states[3]


def scores(numbers):
    """A metric that gives these numbers on the validation data, one per epoch."""
    numbers = iter(numbers)

    def score(output, target):
        return next(numbers) if len(target) == 50 else 0.0

    return {"score": score}


def step_lr(gamma=0.5):
    optimizer = adam(mg.nn.Linear(1, 1))
    return mg.optim.lr_scheduler.StepLR(optimizer, 1, gamma)


def plateau():
    return mg.optim.lr_scheduler.ReduceLROnPlateau(adam(mg.nn.Linear(1, 1)), patience=0)


def test_early_stopping_may_keep_the_last_state_and_begins_anew():
    model, states = network(), []
    stopping = EarlyStopping("val_score", patience=1, restore_best=False)
    options = {
        "epochs": 10, "validation": (X, Y),
        "callbacks": [stopping, Watch(on_epoch_end=lambda loop: states.append(state(model)))],
    }  # fmt: skip
    assert len(train(model, metrics=scores([1, 2, 2]), **options)) == 3
    assert state(model) == states[-1] and stopping.best_epoch == 2
    assert len(train(model, metrics=scores([1, 1]), **options)) == 2
    # an error in training is no moment to change the model
    stopping = EarlyStopping("val_score")
    states.clear()
    options["callbacks"] = [stopping, options["callbacks"][1]]
    with pytest.raises(RuntimeError, match="score"):
        train(model, metrics=scores([2, 1, 0]) | {"f": failing(3)}, **options)
    assert stopping.best_epoch == 1 and state(model) not in states[:1]


def failing(epoch):
    """A metric that raises in the given epoch's validation."""
    calls = iter(range(1, 100))

    def metric(output, target):
        if len(target) == 50 and next(calls) == epoch:
            raise RuntimeError("score")
        return 0.0

    return metric


def test_early_stopping_of_a_function():
    w = mg.tensor([[0.0]], requires_grad=True)
    sgd = mg.optim.SGD([w], lr=2.5)  # too much
    seen = []
    fit(
        lambda x: x @ w, MSE, sgd, (LINE[0], 2 * LINE[1]), epochs=4, progress=False, batch_size=8,
        callbacks=[
            EarlyStopping("loss", patience=4),
            Watch(on_epoch_end=lambda loop: seen.append((loop.logs["loss"], w.item()))),
        ],
    )  # fmt: skip
    assert seen[0][0] < seen[1][0] and w.item() == seen[0][1] != seen[3][1]


@pytest.mark.parametrize(("per", "lrs"), [("epoch", [8, 4, 2]), ("step", [2, 0.5, 0.125])])
def test_schedule(per, lrs):
    model = network()
    optimizer = mg.optim.SGD(model.parameters(), lr=8e-3)
    scheduler = mg.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    history = train(
        model, optimizer, epochs=3, batch_size=25, callbacks=[Schedule(scheduler, per)]
    )
    np.testing.assert_allclose(history["lr"], np.array(lrs) * 1e-3, rtol=1e-6)


def test_schedule_of_a_plateau_gets_the_monitored_number():
    model = network()
    optimizer = adam(model, lr=1.0)
    scheduler = mg.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    history = train(
        model, optimizer, epochs=4, validation=(X, Y), metrics=scores([3, 2, 2, 2]),
        callbacks=[Schedule(scheduler, monitor="val_score")],
    )  # fmt: skip
    np.testing.assert_allclose(history["lr"], [1, 1, 1, 0.1], rtol=1e-6)
    with pytest.raises(ValueError, match="Schedule: there is no 'val_loss'"):
        train(model, optimizer, callbacks=[Schedule(scheduler)])


# ------------------------------------------------------------------------------- checkpoints


class Killed(Exception):
    pass


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True}, "Adagrad": {}, "RMSprop": {"centered": True},
    "Adam": {"amsgrad": True}, "AdamW": {},
}  # fmt: skip


def resumable(
    path=None, kill_at=None, resume=None, every_steps=None, optimizer="Adam", **options
):  # fmt: skip
    """A run with everything in it that has a state; gives its history and final state."""
    model = network(dropout=0.3)
    made = getattr(mg.optim, optimizer)
    optimizer = made(model.parameters(), lr=0.02, **OPTIMIZERS[optimizer])
    scheduler = mg.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    stopping = EarlyStopping("val_loss", patience=3)
    own = mg.random.Generator(9)

    def noise(loop):
        loop.batch[0].assign_(loop.batch[0] + own.normal(0.0, 0.1, loop.batch[0].shape))

    def kill(loop):
        if loop.step == kill_at:
            raise Killed

    callbacks = [Watch(on_step_begin=noise, on_step_end=kill)]
    if path is not None:
        callbacks.insert(0, Checkpoint(path, every_steps=every_steps, own=own))
    else:
        callbacks.append(Checkpoint("never", every=99, own=own))
    callbacks += [Schedule(scheduler), stopping]
    if resume is not None:
        mg.manual_seed(12345)  # all comes from the file
        own.manual_seed(99)
    else:
        mg.manual_seed(7)
    history = train(
        model, optimizer, epochs=4, metrics="accuracy", validation=(X[:20], Y[:20]),
        callbacks=callbacks, resume=resume, **options,
    )  # fmt: skip
    end = mg.random.default_generator().state
    return history.rows, state(model), json.dumps(own.state), end, stopping.state_dict()["wait"]


# An epoch is 7 batches, or 4 steps of 2, 2, 2 and 1.
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 3, 4, 7, 8, 14])
def test_a_run_resumes_bit_for_bit_in_the_middle_of_an_epoch(tmp_path, step, accumulate):
    path = tmp_path / "run.safetensors"
    want = resumable(accumulate=accumulate)
    with pytest.raises(Killed):
        resumable(path, kill_at=step + 1, every_steps=step, accumulate=accumulate)
    assert resumable(resume=path, accumulate=accumulate) == want


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_resumes_bit_for_bit_with_every_optimizer_and_prefetch(tmp_path, optimizer):
    path = tmp_path / "run.safetensors"

    def run(**options):
        data = loader(shuffle=True, prefetch=2, generator=mg.random.Generator(3))
        return resumable(data=data, optimizer=optimizer, **options)

    want = run()
    with pytest.raises(Killed):
        run(path=path, kill_at=12, every_steps=5)
    assert run(resume=path) == want


def test_a_run_resumes_at_the_end_of_an_epoch(tmp_path):
    path = tmp_path / "run.safetensors"
    want = resumable()
    with pytest.raises(Killed):
        resumable(path, kill_at=16)  # two epochs of 7 are written
    assert resumable(resume=path) == want
    assert resumable(path) == want
    assert resumable(resume=path) == want  # nothing is left to do


def test_a_run_that_was_stopped_early_stays_so(tmp_path):
    path = tmp_path / "run.safetensors"

    def run(numbers, **options):
        model = network()
        stopping = EarlyStopping("val_score", patience=2)
        history = train(
            model, epochs=9, validation=(X, Y), metrics=scores(numbers),
            callbacks=[Checkpoint(path), stopping], **options,
        )  # fmt: skip
        return history.rows, state(model), stopping.best_epoch

    want = run([1, 2, 1, 1])
    assert want[2] == 2 and len(want[0]) == 4
    assert run([], resume=path) == want


def test_a_list_of_batches_resumes_too(tmp_path):
    path = tmp_path / "run.safetensors"
    data = [(mg.tensor(X[i : i + 8]), mg.tensor(Y[i : i + 8])) for i in range(0, 50, 8)]

    def run(**options):
        model = network()
        return train(model, data=data, **options).rows, state(model)

    want = run()
    with pytest.raises(Killed):
        run(callbacks=[Checkpoint(path, every_steps=3), Watch(on_step_end=raise_at(5))])
    model = network(seed=3)
    assert (train(model, data=data, resume=path).rows, state(model)) == want


def test_a_function_resumes_with_its_parameters(tmp_path):
    path = tmp_path / "run.safetensors"

    def run(value, **options):
        w = mg.tensor([[value]] * 4, requires_grad=True)
        optimizer = mg.optim.SGD([w], lr=0.1, momentum=0.9)
        data = (X[:, :1], Y)
        rows = mg.train.fit(
            lambda x: x @ w.T, mg.cross_entropy, optimizer, data, progress=False, **options
        ).rows
        return rows, w.tolist()

    mg.manual_seed(2)
    want = run(0.0, epochs=4)
    mg.manual_seed(2)
    run(0.0, epochs=2, callbacks=[Checkpoint(path)])
    assert run(5.0, epochs=4, resume=path, callbacks=[Checkpoint(path)]) == want


def raise_at(step):
    def callback(loop):
        if loop.step == step:
            raise Killed

    return callback


def test_the_file_has_the_documented_parts(tmp_path):
    path = tmp_path / "run.safetensors"
    model = network()
    optimizer = adam(model)
    scheduler = mg.optim.lr_scheduler.StepLR(optimizer, 1)
    extra = mg.tensor([1.0])
    train(model, optimizer, callbacks=[
        Checkpoint(path, extra=extra), Schedule(scheduler), Schedule(step_lr(), "step"),
        Checkpoint(tmp_path / "other.safetensors", every=2, extra=extra),
    ])  # fmt: skip
    parts = mg.load(path)
    assert list(parts) == [
        "model", "optimizer", "loader", "generator", "training", "scheduler", "scheduler_",
        "checkpoint", "checkpoint_", "extra",
    ]  # fmt: skip
    other = network(seed=4)
    mg.load(path, model=other)
    assert state(other) == state(model)


def test_checkpoints_of_the_best_and_of_every_second_epoch(tmp_path):
    model, states = network(), []
    train(
        model, epochs=5, validation=(X, Y), metrics=scores([1, 3, math.nan, 2, 3]),
        callbacks=[
            Watch(on_epoch_end=lambda loop: states.append(state(model))),
            Checkpoint(tmp_path / "best", monitor="val_score"),
            Checkpoint(tmp_path / "2nd", every=2),
        ],
    )  # fmt: skip
    for name, epoch in (("best", 2), ("2nd", 4)):
        mg.load(tmp_path / name, model=model)
        assert state(model) == states[epoch - 1]


def test_the_best_of_every_second_epoch_is_written(tmp_path):
    train(
        network(), epochs=4, validation=(X, Y), metrics=scores([9, 1, 8, 2]),
        callbacks=[Checkpoint(tmp_path / "best", every=2, monitor="val_score")],
    )  # fmt: skip
    assert len(mg.load(tmp_path / "best")["training"]["history"]["rows"]) == 4


def test_the_best_is_remembered_over_a_resume_but_not_over_another_run(tmp_path):
    def run(numbers, epochs, resume=None):
        best = Checkpoint(tmp_path / "best", monitor="val_score")
        every, model = Checkpoint(tmp_path / "every"), network()
        options = {"validation": (X, Y), "callbacks": [best, every], "epochs": epochs}
        train(model, metrics=scores(numbers), resume=resume, **options)
        return best, model, options

    _, model, options = run([1, 3, 2], 3)
    run([2.5], 4, resume=tmp_path / "every")
    assert len(mg.load(tmp_path / "best")["training"]["history"]["rows"]) == 2
    train(model, metrics=scores([0, 1, 0.5]), **options)
    assert mg.load(tmp_path / "best")["training"]["history"]["rows"][1]["val_score"] == 1.0


def test_resuming_from_a_file_that_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "run.safetensors"
    train(network(), callbacks=[Checkpoint(path)])
    model = network(seed=2)
    before = state(model)
    with pytest.raises(ValueError, match="batch_size"):
        train(model, batch_size=9, resume=path)
    with pytest.raises(ValueError, match="early_stopping"):
        train(model, callbacks=[EarlyStopping("loss")], resume=path)
    with pytest.raises(FileNotFoundError):
        train(model, resume=tmp_path / "none")
    assert state(model) == before


# ----------------------------------------------------------------------------------------- Ctrl-C


@pytest.fixture
def sigint():
    """The handler of SIGINT is Python's own before, and afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def calls_until(action, number=None):
    """Run a function; send SIGINT at its `number`th call of a function. Gives the calls made."""
    calls = 0

    def count(frame, event, arg):
        nonlocal calls
        calls += 1
        if calls == number:
            signal.raise_signal(signal.SIGINT)

    gc.disable()  # finalizers would be calls too
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def test_an_interrupt_at_any_moment_leaves_whole_steps(sigint):
    model = network(dropout=0.2)
    start, states, ended = model.state_dict(), [], []
    start = {name: t.clone() for name, t in start.items()}
    note = Watch(
        on_step_end=lambda loop: states.append(state(model)),
        on_train_end=lambda loop: ended.append(type(loop.error)),
    )

    def run(callbacks=()):
        train(model, epochs=2, batch_size=25, validation=(X, Y), metrics="accuracy",
              callbacks=callbacks)  # fmt: skip

    def again():
        model.load_state_dict(start)
        mg.manual_seed(1)

    again()
    states.append(state(model))
    run([note])
    assert len(states) == 5 and ended == [type(None)]
    again()
    total = calls_until(run)
    assert total > 500
    modes = [m.training for m in model.modules()]
    found = set()
    for number in np.linspace(20, total - 20, 100).astype(int):
        again()
        with pytest.raises(KeyboardInterrupt):
            calls_until(run, number)
        found.add(states.index(state(model)))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert mg.is_grad_enabled() and [m.training for m in model.modules()] == modes
    assert found >= {1, 2, 3, 4}


def test_the_first_interrupt_waits_and_the_second_does_not(sigint):
    model, ended = network(), []

    def interrupt(times):
        def callback(loop):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            ended.append("went on")

        end = Watch(on_train_end=lambda loop: ended.append((type(loop.error), loop.step)))
        return [Watch(on_backward_end=callback), end]

    with pytest.raises(KeyboardInterrupt):
        train(model, callbacks=interrupt(1))
    assert ended == ["went on", (KeyboardInterrupt, 1)]
    ended.clear()
    with pytest.raises(KeyboardInterrupt):
        train(model, callbacks=interrupt(2))
    assert ended == [(KeyboardInterrupt, 0)]


def test_an_interrupt_in_the_validation_ends_it_after_the_batch(sigint):
    calls, model = [], network()

    def metric(output, target):
        if not model.training:
            calls.append(len(target))
            signal.raise_signal(signal.SIGINT)
        return 0.0

    batches = [(mg.tensor(X[:20]), mg.tensor(Y[:20]))] * 3
    rows = []
    end = Watch(on_train_end=lambda loop: rows.extend(loop.history.rows))
    with pytest.raises(KeyboardInterrupt):
        train(model, validation=batches, metrics={"m": metric}, callbacks=[end])
    assert calls == [20] and rows == [] and model.training


def test_an_interrupt_at_the_very_end_is_not_lost(sigint):
    at_end = Watch(on_train_end=lambda loop: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(network(), callbacks=[at_end])


def test_another_handler_is_called_later_and_restored():
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        seen = []

        def interrupt(loop):
            if loop.step == 0:
                signal.raise_signal(signal.SIGINT)
            seen.append(len(calls))

        history = train(network(), epochs=1, callbacks=[Watch(on_backward_end=interrupt)])
        assert len(history) == 1 and seen[:2] == [0, 1] and calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
        for other in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGINT, other)
            look = Watch(on_step_end=lambda loop: seen.append(signal.getsignal(signal.SIGINT)))
            train(network(), epochs=1, callbacks=[look])
            assert seen[-7:] == [other] * 7
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handler_is_restored_after_an_error(sigint):
    with pytest.raises(ZeroDivisionError):
        train(network(), callbacks=[Watch(on_step_end=lambda loop: 1 / 0)])


def test_outside_the_main_thread_nothing_is_changed(sigint):
    seen = []

    def run():
        look = Watch(on_step_end=lambda loop: seen.append(signal.getsignal(signal.SIGINT)))
        train(network(), epochs=1, callbacks=[look])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler] * 7


# -------------------------------------------------------------------------------- not finite


def exploding(**options):
    model = mg.nn.Linear(1, 1)
    sgd = mg.optim.SGD(model.parameters(), lr=1e30)
    with np.errstate(all="ignore"):
        return fit(model, MSE, sgd, LINE, epochs=4, batch_size=4, progress=False, **options)


def test_a_loss_that_is_not_finite_is_warned_of_once():
    with pytest.warns(RuntimeWarning, match=r"training loss of epoch \d is (nan|inf)") as seen:
        history = exploding()
    assert len(seen) == 1 and seen[0].filename == __file__
    assert len(history) == 4 and not math.isfinite(history["loss"][-1])
    assert len(exploding(on_nonfinite="ignore")) == 4


def test_a_loss_that_is_not_finite_raises_before_a_checkpoint(tmp_path):
    rows = []
    end = Watch(on_train_end=lambda loop: rows.extend(loop.history.rows))
    with pytest.raises(FloatingPointError, match="epoch 1"):
        exploding(on_nonfinite="raise", callbacks=[Checkpoint(tmp_path / "x"), end])
    assert len(rows) == 1 and not list(tmp_path.iterdir())


# --------------------------------------------------------------------- progress and history


def test_the_bar_of_tqdm(capsys):
    pytest.importorskip("tqdm")
    train(network(), epochs=3, progress=True, accumulate=2)
    out, err = capsys.readouterr()
    assert not out and "epoch 3/3: 100%" in err and "12/12" in err and "loss 1." in err


def test_lines_without_tqdm(capsys, monkeypatch):
    plain = builtins.__import__
    monkeypatch.setitem(sys.modules, "tqdm", None)  # importing it is an ImportError
    history = train(network(), progress=True, validation=(X, Y))
    out, err = capsys.readouterr()
    assert builtins.__import__ is plain and not out
    lines = err.splitlines()
    assert len(lines) == 2
    row = history.rows[1]
    assert lines[1] == (
        f"epoch 2/2: loss {row['loss']:.4g}, val_loss {row['val_loss']:.4g}, lr {row['lr']:.4g}"
    )


def test_silence(capsys):
    train(network())
    assert capsys.readouterr() == ("", "")


def test_history_is_a_table_and_goes_through_json():
    history = History({"epoch": i, "loss": 1 / i} for i in (1, 2, 3))
    history.rows[1]["val_loss"] = math.inf
    assert repr(history).splitlines() == [
        "epoch     loss  val_loss",
        "    1        1          ",
        "    2      0.5       inf",
        "    3  0.33333          ",
    ]
    assert history["val_loss"] == [None, math.inf, None]
    assert history.columns == ["epoch", "loss", "val_loss"]
    with pytest.raises(KeyError, match=r"no column 'acc'; it has .*'val_loss'"):
        history["acc"]
    other = History()
    other.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert other.rows == history.rows and other.rows is not history.rows
    long = repr(History({"epoch": i} for i in range(1, 101))).split()
    numbers = [*range(1, 7), "...", *range(95, 101)]
    assert long == ["epoch", *map(str, numbers)]


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    history = train(network(), metrics="accuracy", validation=(X, Y))
    figure = history.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"
    assert [(a.get_xlabel(), a.get_ylabel()) for a in figure.axes] == [
        ("epoch", "loss"), ("epoch", "accuracy")
    ]  # fmt: skip
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        train_line, val_line = axes.get_lines()
        np.testing.assert_array_equal(train_line.get_ydata(), history[name])
        np.testing.assert_array_equal(val_line.get_ydata(), history[f"val_{name}"])
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["training", "validation"]
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert not pyplot.get_fignums()
    shown = History([{"epoch": 1, "loss": 1.0}]).plot()
    assert pyplot.get_fignums() == [shown.number] and len(shown.axes[0].get_lines()) == 1
    pyplot.close(shown)


# -------------------------------------------------------------------------------- on the device


DEVICE = CupyBackend(standin.cupy, standin.special, name="standin")


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_device_gives_the_same_losses(optimizer):
    def run(backend):
        with mg.backend.use(backend):
            model = network(dropout=0.2)
            made = getattr(mg.optim, optimizer)(model.parameters(), lr=0.01)
            return train(
                model, made, epochs=3, metrics="accuracy", validation=(X, Y), clip_norm=1.0,
                accumulate=2,
            )  # fmt: skip

    with registered(DEVICE):
        got, want = run(DEVICE), run("numpy")
    for name in want.columns:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_model_on_the_device_resumes_while_numpy_is_current(tmp_path):
    path = tmp_path / "run.safetensors"
    with registered(DEVICE):
        data = [mg.tensor(part).to("standin") for part in (X, Y)]

        def run(**options):
            model = network().to("standin")
            stopping = EarlyStopping("loss", patience=1, mode="max")  # stops when it falls
            train(
                model, data=tuple(data), epochs=9, callbacks=[Checkpoint(path), stopping], **options
            )
            assert stopping.best_epoch == 1
            return state(model)

        want = run()
        assert run(resume=path) == want


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0, "clip_value": 0.1}])
def test_a_step_uploads_the_batch_and_waits_for_nothing(clip):
    counts = []
    with registered(DEVICE), mg.backend.use(DEVICE), standin.counting() as counted:

        def note(loop):
            counts.append((counted.syncs, counted.host_copies, counted.uploads))

        model = network(dropout=0.2)
        train(
            model, epochs=2, metrics="accuracy", validation=(X, Y), callbacks=[
                Watch(on_step_end=note, on_epoch_begin=note, on_epoch_end=note)
            ], **clip,
        )  # fmt: skip
        assert type(model[0].weight._array) is standin.ndarray
    # Of each epoch: 7 steps, then its end, then the next one's beginning.
    steps = [tuple(row) for row in np.diff(counts, axis=0).tolist()]
    for epoch in (steps[:8], steps[9:]):
        assert len(epoch) == 8
        for syncs, copies, uploads in epoch[:7]:
            assert (syncs, copies, uploads) == (0, 0, 2)  # x and y
        # The end of an epoch fetches the sums twice, each after a look at the device's faults.
        assert epoch[7] == (4, 4, 2)


def test_a_model_may_give_several_outputs():
    mg.manual_seed(0)
    x, y = mg.ones((8, 2)), mg.zeros((8, 1))
    layer = mg.nn.Linear(2, 1)

    class Two(mg.nn.Module):
        def __init__(self):
            self.layer = layer

        def forward(self, x):
            return self.layer(x), {"norm": (self.layer.weight**2).sum(), "name": "two"}

    class Look(Callback):
        def on_backward_end(self, loop):
            out, extra = loop.output
            assert not out.requires_grad and not extra["norm"].requires_grad
            assert extra["name"] == "two"

    model = Two()
    sgd = mg.optim.SGD(model.parameters(), lr=0.1)
    history = fit(
        model, lambda out, t: mg.mse(out[0], t) + 0.01 * out[1]["norm"], sgd, (x, y), epochs=3,
        callbacks=[Look()], progress=False,
    )  # fmt: skip
    assert history["loss"][-1] < history["loss"][0]


def test_classes_schedules_and_single_callbacks_are_refused_with_a_hint():
    layer = mg.nn.Linear(2, 2)
    sgd = mg.optim.SGD(layer.parameters())
    data = mg.ones((4, 2)), mg.zeros(4, "int64")
    loss = mg.nn.CrossEntropyLoss()
    with pytest.raises(TypeError, match="loss_fn is the class CrossEntropyLoss; make an instance"):
        fit(layer, mg.nn.CrossEntropyLoss, sgd, data, epochs=1)
    with pytest.raises(TypeError, match="callbacks come in a list"):
        fit(layer, loss, sgd, data, epochs=1, callbacks=EarlyStopping())
    with pytest.raises(TypeError, match=r"wrap a schedule in mg.train.Schedule"):
        schedule = mg.optim.lr_scheduler.StepLR(sgd, 1)
        fit(layer, loss, sgd, data, epochs=1, callbacks=[schedule])
