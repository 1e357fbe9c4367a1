"""Layers are found on the tape whatever the model's classes, and measured without a trace."""

import numpy as np
import pytest
from device import DEVICE, dev
from samples import registered

import microgradnd as mg
from microgradnd import nn
from microgradnd.diagnosis.observe import (
    Tally,
    alike,
    batches,
    clone,
    flatten,
    look,
    rms,
    untouched,
)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64") + (x[:, 1] > 1)


def by_hand(model, x, y):
    """The pre-activations of a Sequential of linear layers and activations, and their gradients."""
    zs, h = [], mg.tensor(x)
    for part in model:
        h = part(h)
        if isinstance(part, nn.Linear):
            h.retain_grad()
            zs.append(h)
    mg.cross_entropy(h, mg.tensor(y)).backward()
    gradients = [p.grad.numpy().copy() for p in model.parameters() if p.ndim == 2]
    model.zero_grad()
    return [(z.detach().numpy(), z.grad.numpy()) for z in zs], gradients


def test_numbers_equal_those_taken_by_hand(data):
    x, y = data
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 6), nn.ReLU(),
                          nn.Linear(6, 3))  # fmt: skip
    with mg.no_grad():
        model[0].weight.assign_(model[0].weight * 8)
    seen, gradients = by_hand(model, x, y)
    layers, sample = look(model, mg.cross_entropy, x, y)
    assert [(layer.name, layer.activation, layer.units, layer.fan_in) for layer in layers] == [
        ("0", "sigmoid", 8, 4), ("2", "relu", 6, 8), ("4", "none", 3, 6)]  # fmt: skip
    assert [layer.output for layer in layers] == [False, False, True]
    for state, (z, g), gw in zip(sample.layers, seen, gradients, strict=True):
        assert state.delta == pytest.approx(np.sqrt(np.mean((g * 60) ** 2)), rel=1e-4)
        assert state.gradient == pytest.approx(np.sqrt(np.mean(gw**2)), rel=1e-4)
        assert state.z_mean == pytest.approx(z.mean(), abs=1e-5)
        assert state.z_std == pytest.approx(z.std(), rel=1e-4)
        assert sum(state.counts) == z.size
    first, second, _ = sample.layers
    z = seen[0][0].astype("float64")
    s = 1 / (1 + np.exp(-z))
    assert first.slope == pytest.approx((s * (1 - s)).mean(), rel=1e-5)
    assert 0 < first.saturated == pytest.approx((s * (1 - s) < 0.027 * 0.25).mean(), abs=1e-9)
    assert first.saturated == pytest.approx((np.abs(z) > 5).mean(), abs=0.02)
    z = seen[1][0]
    assert second.zeros == second.zeros and second.zeros == pytest.approx((z <= 0).mean())
    assert second.slope == pytest.approx((z > 0).mean()) and second.saturated == 0
    loss = mg.cross_entropy(model(mg.tensor(x)), mg.tensor(y)).item()
    assert sample.loss == pytest.approx(loss, rel=1e-6) and sample.examples == 60


def test_the_batch_size_changes_nothing(data):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Maxout(8, 5, 3), nn.Linear(5, 3))
    whole, parts = (look(model, mg.cross_entropy, *data, batch=n)[1] for n in (60, 7))
    for a, b in zip(whole.layers, parts.layers, strict=True):
        for name in ("delta", "gradient", "mean", "std", "slope", "unused", "single", "entropy"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-4, nan_ok=True), name
    assert whole.layers[1].wins == pytest.approx(parts.layers[1].wins)


class Written(nn.Module):
    """Activations inside `forward`, products without `Linear`, batch statistics."""

    def __init__(self):
        self.first, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.second = nn.Parameter(mg.random.normal(0.0, 0.5, (8, 3)))
        self.shift = nn.Parameter(mg.zeros(3))

    def forward(self, x):
        return mg.maximum(self.norm(self.first(x)), 0.0) @ self.second + self.shift


def test_classes_functions_and_transposed_weights(data):
    layers, sample = look(Written(), mg.cross_entropy, *data)
    assert [(a.name, a.weight, a.activation, a.units, a.fan_in) for a in layers] == [
        ("first", "first.weight", "maximum", 8, 4), ("second", "second", "none", 3, 8)]  # fmt: skip
    # z is taken behind the normalization, which uses the statistics of the batch
    assert abs(sample.layers[0].z_mean) < 1e-3 and abs(sample.layers[0].z_std - 1) < 1e-3
    w = mg.tensor(np.ones((3, 4), "float32"), requires_grad=True)
    (layer,), sample = look(lambda x: mg.tanh(x @ w.T), mg.cross_entropy, *data)
    assert (layer.activation, layer.units, layer.fan_in) == ("tanh", 3, 4)
    assert sample.layers[0].weight == 1 and sample.layers[0].same == 1
    assert w.grad is None


def test_a_layer_used_several_times_is_one_layer(data):
    class Loop(nn.Module):
        def __init__(self):
            self.enter, self.turn, self.leave = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            h = self.enter(x)
            for _ in range(3):
                h = mg.tanh(self.turn(h))
            return self.leave(h)

    layers, sample = look(Loop(), mg.cross_entropy, *data)
    assert [layer.name for layer in layers] == ["enter", "turn", "leave"]
    assert sum(sample.layers[1].counts) == 3 * 60 * 5


def test_dead_units_are_dead_for_all_rows_not_for_most(data):
    x, _ = data
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    with mg.no_grad():
        model[0].weight.assign_(np.eye(4, dtype="float32"))
        model[0].bias.assign_([-100.0, -np.sort(x[:, 1])[-2], 0.0, 100.0])
    state = look(model, None, x)[1].layers[0]
    assert state.dead == 0.25 and state.zeros > 0.5  # unit 1 is above 0 for a single example
    assert np.isnan(state.delta) and np.isnan(state.gradient)


def test_pieces_of_a_maxout(data):
    model = nn.Maxout(4, 2, 3)
    with mg.no_grad():
        model.weight.assign_(np.vstack([np.eye(4)[0], -np.eye(4)[0], np.zeros(4)] * 2))
        model.bias.assign_([0, 0, -9, 50, 0, 0])
    state = look(model, lambda out, _: out.sum(), data[0], data[1])[1].layers[0]
    assert state.unused == pytest.approx(3 / 6) and state.single == 0.5
    assert state.entropy == pytest.approx(0.5 * np.log(2) / np.log(3), rel=0.02)
    assert sum(state.wins) == pytest.approx(1)


def test_learned_slopes(data):
    model = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3), nn.Linear(3, 3))
    with mg.no_grad():
        model[1].weight.assign_([0.1, 0.2, 0.6])
    layers, sample = look(model, mg.cross_entropy, *data)
    assert layers[0].activation == "prelu"
    assert sample.layers[0].slopes == pytest.approx([0.1, 0.3, 0.6])


def test_nothing_of_the_users_is_touched(data):
    x, y = data
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5),
                          nn.Linear(8, 3))  # fmt: skip
    model[3].eval()
    model[0].bias.requires_grad_(False)
    called = []
    model[0].register_forward_hook(lambda *_: called.append(1))
    mg.cross_entropy(model(mg.tensor(x)), mg.tensor(y)).backward()
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.numpy().copy() for p in model.parameters()]
    state, modes = dict(mg.random.default_generator().state), [m.training for m in model.modules()]
    look(model, mg.cross_entropy, x, y, batch=16)
    assert called == [1]
    assert modes == [m.training for m in model.modules()]
    assert state == mg.random.default_generator().state
    for name, t in model.state_dict().items():
        assert (before[name] == t.numpy()).all(), name
    for p, g in zip(model.parameters(), gradients, strict=True):
        assert (p.grad is None and g is None) or (p.grad.numpy() == g).all()
    assert not model[0].bias.requires_grad


def test_a_clone_has_no_hooks_and_results_that_were_kept_are_detached(data):
    model = nn.Sequential(nn.Linear(4, 2))
    model.register_forward_hook(lambda *_: 1 / 0)
    model.last = model[0](mg.tensor(data[0]))
    copied = clone(model)
    assert copied(mg.tensor(data[0])).shape == (60, 2) and copied.last.is_leaf
    assert copied[0].weight is not model[0].weight
    function = print
    assert clone(function) is function


def test_untouched_also_after_an_error():
    model = nn.BatchNorm1d(2)
    with pytest.raises(ZeroDivisionError), untouched(model):
        model(mg.tensor([[1.0, 2.0], [3.0, 4.0]]))
        model.eval()
        mg.random.uniform()
        1 / 0  # noqa: B018
    assert model.training and model.running_mean.tolist() == [0, 0]


def test_small_helpers():
    assert rms([3.0, -4.0]) == pytest.approx(np.sqrt(12.5))
    assert rms(np.full(5, 1e-30, "float32")) == pytest.approx(1e-30)  # its square would be 0
    assert np.isnan(rms([])) and rms([0.0]) == 0 and np.isinf(rms([np.inf]))
    assert [s.stop - s.start for s in batches(513, 256)] == [171, 171, 171]
    assert batches(1, 256) == [slice(0, 1)] and len(batches(257, 256)) == 2
    t = mg.tensor([1.0])
    assert flatten({"a": t, "b": (t, [t], "text")}) == [t, t, t]
    rows = np.random.default_rng(1).standard_normal((6, 3))
    rows[4] = rows[1]
    assert alike(rows, None, 3) == pytest.approx(2 / 6)
    assert alike(rows, np.arange(6.0), 3) == 0  # biases tell them apart
    assert alike(rows.T, None, 3) == pytest.approx(2 / 6)
    assert Tally(look(nn.Linear(2, 2), None, np.ones((3, 2)))[0][0]).state().counts == [0] * 40


def test_on_a_device_the_numbers_are_the_same(data):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Maxout(8, 5, 2), nn.Linear(5, 3))
    _, host = look(model, mg.cross_entropy, *data)
    with registered(DEVICE):
        _, there = look(model.to(DEVICE), mg.cross_entropy, *map(dev, data))
    for a, b in zip(host.layers, there.layers, strict=True):
        assert a.delta == pytest.approx(b.delta, rel=1e-4) and a.dead == b.dead
        assert a.wins == pytest.approx(b.wins)
