"""Moving models, optimizers, data and files between NumPy and a device, in every order.

The device is that of `device.py`: the stand-in for CuPy or, on a machine with a GPU, CuPy itself.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from device import ARRAY, DEVICE, HOME, SLACK, host, staying
from samples import registered

import microgradnd as mg
from microgradnd import nn, optim

STEPS = 8
OPTIMIZERS = {
    "momentum": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.05),
    "adam": lambda ps: optim.Adam(ps, lr=0.02),
    "amsgrad": lambda ps: optim.AdamW(ps, lr=0.02, amsgrad=True),
}
#: Where the model is at each step, and whether it is there before its optimizer is made.
ORDERS = {
    "before the optimizer": (True, [HOME] * STEPS),
    "after the optimizer": (False, [HOME] * STEPS),
    "in the middle": (False, ["numpy"] * 3 + [HOME] * 5),
    "back again": (True, [HOME] * 3 + ["numpy"] * 5),
    "to and fro": (False, ["numpy", HOME] * (STEPS // 2)),
}


@pytest.fixture(autouse=True)
def device():
    with registered(DEVICE):
        yield DEVICE
        DEVICE.synchronize()


def network():
    """Parameters, buffers, random masks and a weight that is used twice."""
    mg.manual_seed(3)
    table = nn.Embedding(9, 6)
    last = nn.Linear(6, 9)
    last.weight = table.weight
    return nn.Sequential(
        table, nn.Flatten(), nn.Linear(30, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Dropout(0.2), nn.Maxout(8, 6, pieces=2), last,
    )  # fmt: skip


def batches():
    rng = np.random.default_rng(1)
    return rng.integers(0, 9, (STEPS, 16, 5)), rng.integers(0, 9, (STEPS, 16))


def train(kind, places, first=True):
    """Train on the place of each step; give the losses, the state of the model, and all of it."""
    model = network()
    if first:
        model.to(places[0])
    optimizer = OPTIMIZERS[kind](model.parameters())
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    losses = []
    for place, x, y in zip(places, *batches(), strict=True):
        model.to(place)
        x, y = mg.tensor(x).to(place), mg.tensor(y).to(place)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return [loss.item() for loss in losses], model, optimizer


def same(model, other):
    """The same values in two models, wherever they are."""
    theirs = other.state_dict()
    for name, tensor in model.state_dict().items():
        assert theirs[name].dtype == tensor.dtype
        np.testing.assert_allclose(host(tensor), host(theirs[name]), 1e-4 * SLACK, 1e-5 * SLACK,
                                   err_msg=name)  # fmt: skip


# ------------------------------------------------------------------------- models and optimizers


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_that_moves_is_the_run_that_stays(kind, order):
    first, places = ORDERS[order]
    losses, stayed, _ = train(kind, ["numpy"] * STEPS)
    moving, moved, optimizer = train(kind, places, first)
    np.testing.assert_allclose(moving, losses, 1e-5 * SLACK, 1e-6 * SLACK)
    assert len(set(losses)) == STEPS
    same(stayed, moved)
    at = mg.backend.named(places[-1])
    assert {t.backend for t in [*moved.parameters(), *moved.buffers()]} == {at}
    assert moved[0].weight is moved[7].weight  # still one
    state = optimizer.state_dict()["state"]
    assert len(state) == len(list(moved.parameters()))
    for slots in state.values():
        kept = [value for name, value in slots.items() if name != "step"]
        assert kept and {t.backend for t in kept} == {at}
        assert slots["step"] == STEPS


def test_moments_are_kept_and_not_begun_anew():
    _, model, adam = train("adam", ["numpy"] * STEPS)
    before = adam.state_dict()["state"]
    model.to(HOME)
    after = adam.state_dict()["state"]
    for number, slots in before.items():
        assert np.abs(slots["exp_avg"].numpy()).max() > 0
        for name in ("exp_avg", "exp_avg_sq"):
            assert after[number][name].backend is DEVICE
            assert np.array_equal(host(after[number][name]), host(slots[name]))


def test_after_a_move_a_step_is_again_a_few_calls_on_one_buffer():
    _, model, optimizer = train("adam", ["numpy", HOME] * (STEPS // 2))
    (flats,) = optimizer._flats
    (flat,) = flats
    assert flat.backend is DEVICE and len(flat.params) == len(list(model.parameters()))
    assert all(DEVICE.shares_memory(p._array, flat.buffer) for p in model.parameters())


def test_moving_costs_one_upload_for_each_tensor_and_moving_again_none():
    model = network()
    tensors = len(list(model.parameters())) + len(list(model.buffers()))
    with staying(uploads=tensors):
        model.to(HOME)
    with staying():
        model.to(HOME)


def test_gradients_go_along():
    x, y = (part[0] for part in batches())

    def step(move):
        model = network()
        sgd = OPTIMIZERS["momentum"](model.parameters())
        nn.functional.cross_entropy(model(mg.tensor(x)), mg.tensor(y)).backward()
        if move:
            model.to(HOME)
            assert {p.grad.backend for p in model.parameters()} == {DEVICE}
        sgd.step()
        return model

    same(step(False), step(True))


def test_a_graph_from_before_the_move_is_refused_not_lost():
    model, x = nn.Linear(3, 2), mg.ones((4, 3))
    loss = model(x).sum()
    model.to(HOME)
    with pytest.raises(RuntimeError, match=r"moved .* after this graph was made"):
        loss.backward()
    assert model.weight.grad is None
    model(x.to(HOME)).sum().backward()
    assert host(model.weight.grad).tolist() == [[4.0] * 3] * 2


def test_hooks_and_flags_go_along():
    model, seen = nn.Linear(3, 2), []
    model.bias.requires_grad_(False)
    remove = model.weight.register_hook(lambda g: seen.append(g.backend))
    model.to(HOME)
    assert model.weight.requires_grad and not model.bias.requires_grad
    model(mg.ones((4, 3)).to(HOME)).sum().backward()
    remove()
    model(mg.ones((4, 3)).to(HOME)).sum().backward()
    assert seen == [DEVICE] and model.bias.grad is None


def test_a_gradient_goes_back_through_a_move():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).to(HOME)
    assert y.backend is DEVICE
    (y * y).sum().backward()
    assert x.grad.backend.name == "numpy" and x.grad.tolist() == [4.0, 32.0]
    second = mg.hessian(lambda v: (v.to(HOME) ** 3).sum())(mg.tensor([1.0, 2.0]))
    assert second.backend.name == "numpy" and second.tolist() == [[6.0, 0.0], [0.0, 12.0]]


# ---------------------------------------------------------------------------- where data are


def test_a_model_there_and_data_here_is_an_error_that_names_both():
    x, y = (part[0] for part in batches())
    model = network().to(HOME)
    sgd = optim.SGD(model.parameters(), lr=0.1)
    before = {name: host(t).copy() for name, t in model.state_dict().items()}
    words = rf"operands on '{HOME}' and 'numpy'|operands on 'numpy' and '{HOME}'"
    with pytest.raises(TypeError, match=words):
        mg.train.fit(model, mg.cross_entropy, sgd, (x, y), epochs=1, progress=False)
    for name, t in model.state_dict().items():
        assert np.array_equal(host(t), before[name])


def test_inside_use_the_same_lines_upload_batch_by_batch():
    x, y = batches()
    x, y = x.reshape(-1, 5), y.reshape(-1)

    def run():
        model = network()
        adam = OPTIMIZERS["adam"](model.parameters())
        history = mg.train.fit(model, mg.cross_entropy, adam, (x, y), epochs=3, batch_size=16,
                               metrics=["accuracy"], progress=False)  # fmt: skip
        return history, model

    history, stayed = run()
    with mg.backend.use(HOME):
        there, moved = run()
    np.testing.assert_allclose(there["loss"], history["loss"], 1e-5 * SLACK)
    assert there["accuracy"] == history["accuracy"] or SLACK > 1
    assert {p.backend for p in moved.parameters()} == {DEVICE}
    same(stayed, moved)


def test_use_is_for_new_tensors_of_this_thread_and_ends_with_the_block():
    outside = mg.backend.get()
    elsewhere = []
    with mg.backend.use(HOME) as chosen:
        assert chosen is DEVICE is mg.backend.get()
        made = [mg.tensor([1.0]), mg.zeros(2), mg.arange(3), mg.random.normal(0.0, 1.0, (2,)),
                nn.Linear(2, 2).weight, mg.asarray(np.ones(2))]  # fmt: skip
        assert {type(t._array) for t in made} == {ARRAY}
        with mg.backend.use("numpy"):
            assert mg.zeros(2).backend.name == "numpy"
            assert (made[1] + 1.0).backend is DEVICE  # an operation is where its operands are
        thread = threading.Thread(target=lambda: elsewhere.append(mg.backend.get()))
        thread.start()
        thread.join()
        with pytest.raises(ZeroDivisionError), mg.backend.use("numpy"):
            raise ZeroDivisionError
        assert mg.backend.get() is DEVICE
    assert mg.backend.get() is outside and elsewhere == [outside]


def test_printing_raises_an_index_fault_and_does_not_swallow_it():
    rows = mg.ones((3, 2)).to(HOME)[mg.tensor([0, 5]).to(HOME)]
    with pytest.raises(IndexError, match="index 5 is out of bounds for size 3"):
        print(rows)
    assert repr(mg.ones(1).to(HOME)) == f"Tensor([1.], backend='{HOME}')"  # raised once


# -------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("start", "end"), [("numpy", HOME), (HOME, "numpy")])
def test_a_run_saved_on_one_goes_on_on_the_other(tmp_path, start, end):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    x, y = batches()
    x, y = x.reshape(-1, 5), y.reshape(-1)
    path = tmp_path / "run.safetensors"

    def run(place, epochs, resume=None):
        with mg.backend.use(place):
            model = network()
            adam = OPTIMIZERS["amsgrad"](model.parameters())
            schedule = optim.lr_scheduler.StepLR(adam, 2)
            callbacks = [mg.train.Schedule(schedule), mg.train.Checkpoint(path, every_steps=5)]
            history = mg.train.fit(
                model, mg.cross_entropy, adam, (x, y), epochs=epochs, batch_size=16,
                callbacks=callbacks, progress=False, resume=resume,
            )  # fmt: skip
        return history, model

    whole, stayed = run(start, 4)
    run(start, 2)  # the file is from its step 15 of 16
    resumed, moved = run(end, 4, resume=path)
    assert {t.backend.name for t in moved.state_dict().values()} == {end}
    np.testing.assert_allclose(resumed["loss"], whole["loss"], 1e-5 * SLACK)
    assert resumed["lr"] == whole["lr"] and len(resumed) == 4
    same(stayed, moved)


def test_weights_of_a_device_are_weights_for_any_machine(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    model, path = network().to(HOME), tmp_path / "weights.safetensors"
    mg.save(path, model=model)
    assert HOME not in {t.backend.name for t in mg.load(path)["model"].values()}
    other = network()
    with mg.no_grad():
        for p in other.parameters():
            p.assign_(mg.zeros_like(p))
    mg.load(path, model=other)
    assert {p.backend.name for p in other.parameters()} == {"numpy"}
    same(other, model)
