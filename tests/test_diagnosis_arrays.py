"""The diagnosis of arrays that another framework has recorded."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import microgradnd as mg
from microgradnd.diagnosis import diagnose_arrays, observe
from microgradnd.diagnosis.rules import roots

N, WIDTH = 200, 32


def network(depth, f, slope, size, seed=0, classes=3):
    """A network in plain NumPy: its weights, and what one pass forward and back gives."""
    rng = np.random.default_rng(seed)
    widths = [2, *[WIDTH] * depth, classes]
    weights = [rng.normal(size=(n, m)) * size / np.sqrt(m)
               for m, n in pairwise(widths)]  # fmt: skip
    return weights, run(weights, f, slope)


def run(weights, f, slope, rows=N):
    rng = np.random.default_rng(1)
    a = x = rng.normal(size=(rows, 2))
    y = (x[:, 0] > 0) * 1 + (x[:, 1] > 0)
    inputs, zs, outs = [], [], []
    for i, w in enumerate(weights):
        inputs.append(a)
        z = a @ w.T
        a = f(z) if i < len(weights) - 1 else z
        zs, outs = [*zs, z], [*outs, a]
    p = np.exp(a - a.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    delta = (p - np.eye(len(weights[-1]))[y]) / rows
    deltas = [delta]
    for w, z in zip(weights[:0:-1], zs[-2::-1], strict=True):
        delta = delta @ w * slope(z)
        deltas.insert(0, delta)
    gradients = [d.T @ i for d, i in zip(deltas, inputs, strict=True)]
    return {"preactivations": zs, "activations": outs, "deltas": deltas, "weights": weights,
            "gradients": gradients}, x, y  # fmt: skip


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


SIGMOID = (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z)))
RELU = (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0)
BAD = {"train": [0.4] * 8, "test": [0.35] * 8, "losses": [1.1] * 200, "classes": 3,
       "n_train": 200, "n_test": 100, "chance": 0.4}  # fmt: skip
GOOD = BAD | {"train": np.linspace(0.5, 0.99, 8), "test": np.linspace(0.5, 0.97, 8),
              "losses": np.linspace(1.1, 0.02, 200)}  # fmt: skip


def test_arrays_are_measured_as_our_own_networks_are():
    weights, (before, x, y) = network(3, *RELU, 1.4)
    model = mg.nn.Sequential()
    for i, w in enumerate(weights):
        model.append(mg.nn.Linear(*w.shape[::-1], bias=False, dtype="float64"))
        with mg.no_grad():
            model[-1].weight.assign_(mg.tensor(w))
        if i < len(weights) - 1:
            model.append(mg.relu)
    layers, sample = observe.look(model, mg.cross_entropy, x, y)
    mine = diagnose_arrays(init=before, activation="relu", **GOOD).evidence
    for layer, other in zip(mine.layers, layers, strict=True):
        assert (layer.units, layer.fan_in, layer.output) == (
            other.units, other.fan_in, other.output)  # fmt: skip
    for state, other in zip(mine.init.layers, sample.layers, strict=True):
        for name in ("gradient", "weight", "mean", "std", "z_std", "zeros", "slope", "dead", "same",
                     "low", "high"):  # fmt: skip
            assert getattr(state, name) == pytest.approx(getattr(other, name), abs=1e-12), name
        # Ours is of one example's loss, theirs of the mean over all.
        assert state.delta * N == pytest.approx(other.delta), layer.name
        assert sum(state.counts) == sum(other.counts) > 0


def test_vanishing_is_named_in_arrays():
    _, (before, _, _) = network(8, *SIGMOID, 1.0)
    report = diagnose_arrays(init=before, now=before, activation="sigmoid", **BAD)
    assert [f.code for f in roots(report.findings)] == ["VANISHING"]
    assert report.findings[0].layer == "0"


def test_dead_units_are_seen_in_activations_alone():
    weights, (before, _, _) = network(3, *RELU, 1.4)
    now = {"activations": [*(np.zeros((N, WIDTH)) for _ in range(3)), np.zeros((N, 3))]}
    updates = [w * 0.3 for w in weights]
    report = diagnose_arrays(init=before, now=now | {"weights": weights, "updates": updates},
                             **BAD)  # fmt: skip
    assert [f.code for f in roots(report.findings)] == ["LR_HIGH"]
    assert "DEAD" in report.findings[0].explains


def test_a_good_network_is_good():
    weights, (before, _, _) = network(3, *RELU, 1.4)
    updates = [[w * 0.01, w * 0.02, w * 0.03] for w in weights]  # of three steps
    report = diagnose_arrays(init=before, now=before | {"updates": updates}, **GOOD)
    assert report.findings == []
    assert report.evidence.now.layers[0].update == pytest.approx(0.02)


def test_nested_lists_will_do_and_what_is_not_known_may_be_none():
    report = diagnose_arrays(
        init={"deltas": [[[1e-6]], None, [[1e-2]], [[0.1]]],
              "preactivations": [[[0.0]], [[0.0]], [[0.0]], None]},
        activation=["sigmoid", "sigmoid", "tanh"], names=["a", "b", "c", "head"], train=0.3,
        classes=10,
    )  # fmt: skip
    assert [layer.activation for layer in report.evidence.layers] == [
        "sigmoid", "sigmoid", "tanh", "none"]  # fmt: skip
    assert report.findings[0].layer == "a"


def test_maxout_pieces_are_counted():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, 6))
    z[:, 0] = 9.0  # the first piece of the first of three groups always wins
    a = z.reshape(N, 3, 2).max(axis=2)
    parts = {"preactivations": [z, a], "activations": [a, a], "weights": [np.eye(6), None]}
    state = diagnose_arrays(now=parts, activation="maxout", **GOOD).evidence.now.layers[0]
    assert state.single == pytest.approx(1 / 3) and state.unused == pytest.approx(1 / 6)


def test_a_regression_is_measured_by_r2():
    report = diagnose_arrays(train=[0.1, 0.2], test=[0.1, 0.1], train_losses=[0.9, 0.8])
    assert (report.evidence.metric, report.evidence.train.metric) == ("r2", 0.2)
    assert report.evidence.train.loss == 0.8 and len(report.evidence.samples) == 2


def test_overfitting_in_curves_alone():
    report = diagnose_arrays(train=0.99, test=0.8, n_train=1000, n_test=500, classes=2)
    assert [f.code for f in roots(report.findings)] == ["OVERFIT"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": {"grads": []}}, "'grads' is none of activations"),
        ({"now": {"deltas": [None], "weights": [None, None]}}, "one entry per layer"),
        ({"now": {"deltas": [None]}, "names": ["a", "b"]}, "arrays of 1 layers"),
        ({"now": {"preactivations": [[[1.0]], [[1.0]]]}, "activation": "rlue"}, "'rlue' is not"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        diagnose_arrays(**given)
