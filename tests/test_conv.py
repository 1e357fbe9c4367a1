"""Convolution and pooling: loops as the reference, blocks of columns, edges, errors, whole nets."""

from __future__ import annotations

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import microgradnd as mg
from benchmarks import convolution
from microgradnd import nn
from microgradnd.backend import windows
from microgradnd.registry import REGISTRY

inf, nan = math.inf, math.nan


def slow(x, w, bias, stride, padding, dilation, groups):
    """A convolution of images, one product at a time."""
    (n, _, h, v), (o, c, kh, kw) = x.shape, w.shape
    (s, t), (p, q), (d, e) = stride, padding, dilation
    rows = (h + 2 * p - d * (kh - 1) - 1) // s + 1
    columns = (v + 2 * q - e * (kw - 1) - 1) // t + 1
    out = np.zeros((n, o, rows, columns)) + bias[:, None, None]
    for at in itertools.product(range(n), range(o), range(rows), range(columns)):
        a, k, i, j = at
        for b, y, z in itertools.product(range(c), range(kh), range(kw)):
            row, column = i * s + y * d - p, j * t + z * e - q
            if 0 <= row < h and 0 <= column < v:
                channel = k // (o // groups) * c + b
                out[at] += x[a, channel, row, column] * w[k, b, y, z]
    return out


def drawn(seed):
    """Random sizes that fit, and numbers for them."""
    rng = np.random.default_rng(seed)
    pick = lambda low, high: tuple(rng.integers(low, high + 1, 2).tolist())  # noqa: E731
    groups = int(rng.integers(1, 4))
    options = {"stride": pick(1, 3), "padding": pick(0, 2), "dilation": pick(1, 2)}
    kernel = pick(1, 3)
    space = [d * (k - 1) + 1 + int(rng.integers(0, 4))
             for d, k in zip(options["dilation"], kernel, strict=True)]  # fmt: skip
    x = rng.normal(size=(int(rng.integers(1, 4)), 2 * groups, *space))
    w = rng.normal(size=(3 * groups, 2, *kernel))
    return x, w, rng.normal(size=3 * groups), options | {"groups": groups}


@pytest.mark.parametrize("seed", range(20))
def test_a_convolution_is_its_sum_and_its_gradients_are_the_adjoints(seed):
    x, w, bias, options = drawn(seed)
    xs = [mg.tensor(a, requires_grad=True) for a in (x, w, bias)]
    out = mg.conv2d(*xs, **options)
    np.testing.assert_allclose(out.detach().numpy(),
                               slow(x, w, bias, **options), rtol=1e-12, atol=1e-12)  # fmt: skip
    g = np.random.default_rng(seed).normal(size=out.shape)
    out.backward(mg.tensor(g))
    linear = (out.detach().numpy() - bias[:, None, None]) * g
    for operand in xs[:2]:  # linear in each
        assert (operand.grad * operand).sum().item() == pytest.approx(linear.sum(), rel=1e-9)
    np.testing.assert_allclose(xs[2].grad.numpy(), g.sum((0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("block", [1, 700, 5000])
def test_blocks_of_columns_change_nothing(seed, block):
    x, w, bias, options = drawn(seed)
    padding = tuple((p, p + 1) for p in options["padding"])
    how = (options["stride"], padding, options["dilation"], options["groups"])
    whole, parts = windows.build(np, None), windows.build(np, block)
    out = whole["conv"](x, w, bias, how)
    for name, args in {
        "conv": (x, w, bias, how), "conv_input": (out, w, x.shape[2:], how),
        "conv_weight": (out, x, w.shape[2:], how),
    }.items():  # fmt: skip
        np.testing.assert_allclose(parts[name](*args), whole[name](*args), 1e-12, 1e-12)


def test_images_stay_as_they_lie_in_memory_from_layer_to_layer():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                        nn.MaxoutConv2d(4, 4, 3, pieces=2), nn.AvgPool2d(2))  # fmt: skip
    x = mg.zeros((5, 1, 8, 8))
    for layer in net:
        x = layer(x)
        steps = x.data.strides
        assert steps[1] >= steps[2] >= steps[3] > steps[0] == 4, layer


def test_a_window_that_may_reach_out_may_be_larger_than_the_input():
    x = mg.tensor([[1.0, 5.0, 3.0]])
    assert mg.max_pool1d(x, 4, 2, ceil_mode=True).tolist() == [[5.0]]
    assert mg.avg_pool1d(x, 4, 2, ceil_mode=True).tolist() == [[3.0]]


@pytest.mark.parametrize(("name", "best"), [("max", np.max), ("avg", np.mean)])
@pytest.mark.parametrize("kernel", [1, (2, 3), 4])
@pytest.mark.parametrize("stride", [None, 1, (3, 2)])
def test_pooling_is_a_loop_over_windows(name, best, kernel, stride):
    x = np.random.default_rng(0).permutation(2 * 2 * 7 * 6).reshape(2, 2, 7, 6).astype(float)
    (a, b), (s, t) = (k if isinstance(k, tuple) else (k, k) for k in (kernel, stride or kernel))
    want = np.array([
        [best(x[:, :, i : i + a, j : j + b], axis=(2, 3)) for j in range(0, 6 - b + 1, t)]
        for i in range(0, 7 - a + 1, s)
    ])  # fmt: skip
    pool = getattr(mg, f"{name}_pool2d")
    t = mg.tensor(x, requires_grad=True)
    out = pool(t, kernel, stride)
    np.testing.assert_allclose(out.detach().numpy(), want.transpose(2, 3, 0, 1), rtol=1e-14)
    out.sum().backward()
    assert (t.grad >= 0).all().item()
    assert t.grad.sum().item() == pytest.approx(out.size, rel=1e-14)  # no more and no less
    if name == "max":  # the winners, as often as they won
        won = np.bincount(want.astype(int).ravel(), minlength=x.size)
        np.testing.assert_array_equal(t.grad.numpy(), won[x.astype(int)])


@pytest.mark.parametrize("layout", ["NCHW", "CHWN"])
def test_no_number_is_too_special_for_a_maximum(layout):
    def lying(x):
        x = np.asarray(x, np.float32)
        return x if layout == "NCHW" else np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(
            3, 0, 1, 2)  # fmt: skip

    rows = [[[1, 1], [1, 1]], [[-inf, -inf], [-inf, -inf]], [[inf, 2], [inf, 1]],
            [[0, nan], [inf, nan]]]  # fmt: skip
    x = mg.asarray(lying([[row] for row in rows])).requires_grad_()
    out = mg.max_pool2d(x, 2)
    np.testing.assert_array_equal(out.data.ravel(), [1, -inf, inf, nan])
    out.backward(mg.tensor([[[[g]]] for g in (2.0, inf, -inf, 3.0)], dtype="float32"))
    want = [[[2, 0], [0, 0]], [[inf, 0], [0, 0]], [[-inf, 0], [0, 0]], [[0, 3], [0, 0]]]
    np.testing.assert_array_equal(x.grad.numpy()[:, 0], want)
    x.grad = None
    out = mg.max_pool2d(x[1:2], 2, 1, 1)  # of nothing but -inf, padding is never the winner
    out.sum().backward()
    assert x.grad.sum().item() == out.size == 9


def test_a_large_window_and_float16():
    x = mg.tensor(np.random.default_rng(0).normal(size=(2, 3, 13, 13)), dtype="float16")
    out = mg.max_pool2d(x.requires_grad_(), 13)
    assert out.dtype == np.float16
    assert out.data.ravel().tolist() == x.data.reshape(6, -1).max(1).tolist()
    w = mg.ones((2, 3, 3, 3), dtype="float16").requires_grad_()
    (mg.conv2d(x, w, padding="same").sum() + mg.avg_pool2d(x, 2).sum() + out.sum()).backward()
    assert (x.grad.dtype, w.grad.dtype) == (np.float16, np.float16)


def test_no_examples_are_no_trouble():
    x = mg.zeros((0, 2, 5, 5)).requires_grad_()
    layer = nn.Conv2d(2, 4, 3)
    out = mg.max_pool2d(mg.avg_pool2d(layer(x), 2, 1), 2)
    out.sum().backward()
    assert (out.shape, x.grad.shape) == ((0, 4, 1, 1), (0, 2, 5, 5))
    assert layer.weight.grad.data.any() == np.False_


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "max_pool1d", "max_pool2d", "avg_pool2d"])
def test_one_example_may_come_without_a_batch(name):
    n = int(name[-2])
    x = mg.tensor(np.random.default_rng(1).normal(size=(2, *(5,) * n)))
    args = (mg.ones((3, 2, *(2,) * n), dtype="float64"),) if "conv" in name else (2,)
    alone, batch = (getattr(mg, name)(a, *args) for a in (x, x.reshape((1, *x.shape))))
    assert np.array_equal(alone.numpy(), batch.numpy()[0])


X, W = mg.zeros((2, 4, 5, 5)), mg.zeros((6, 4, 3, 3))
ERRORS = {
    "a matrix": (lambda: mg.conv2d(X[0, 0], W), r"conv2d: an input \(N, C, H, W\).*\(5, 5\)"),
    "images": (lambda: mg.conv1d(X, W[0]), r"conv1d: an input \(N, C, L\).*\(2, 4, 5, 5\)"),
    "channels": (lambda: mg.conv2d(X[:, :3], W), r"conv2d: .*\(2, 3, 5, 5\).*\(6, 4, 3, 3\)"),
    "groups": (lambda: mg.conv2d(X, W[:3, :2], groups=2), "conv2d: 3 channels .* 2 groups"),
    "groups=0": (lambda: mg.conv2d(X, W, groups=0), "conv2d: groups must be .* got 0"),
    "bias": (lambda: mg.conv2d(X, W, mg.zeros(4)), r"conv2d: a bias of shape \(4,\)"),
    "kernel": (lambda: mg.conv2d(X[..., :2], W), r"conv2d: a kernel .*\(3, 3\).*\(5, 2\)"),
    "dilation": (lambda: mg.conv2d(X, W, dilation=(1, 3)), r"\(3, 7\) does not fit .*\(5, 5\)"),
    "stride": (lambda: mg.conv2d(X, W, stride=(1, 0)), r"stride must be .* got \(1, 0\)"),
    "strides": (lambda: mg.conv2d(X, W, stride=(1, 1, 1)), "stride must be .* 2 of them"),
    "padding": (lambda: mg.conv2d(X, W, padding=-1), "padding must be .* at least 0.* got -1"),
    "word": (lambda: mg.conv2d(X, W, padding="full"), "'valid' or .*'same', got 'full'"),
    "same": (lambda: mg.conv2d(X, W, stride=2, padding="same"), r"got 'same' with stride \(2, 2\)"),
    "ceil": (lambda: mg.max_pool1d(X[0, :, 0], 7, 2, ceil_mode=True), r"\(7,\) does not fit"),
    "nothing": (lambda: mg.conv2d(X, W[..., :0]), r"conv2d: the kernel's sizes .* got \(3, 0\)"),
    "pool": (lambda: mg.max_pool2d(X, 6), r"max_pool2d: a kernel .*\(6, 6\).*\(5, 5\)"),
    "half": (lambda: mg.avg_pool2d(X, 2, padding=2), "avg_pool2d: padding must be at most half"),
    "size": (lambda: mg.max_pool1d(X[0], 2.0), "max_pool1d: kernel_size must be .* got 2.0"),
    "adaptive": (lambda: mg.adaptive_avg_pool2d(X, 2), r"adaptive_avg_pool2d: .*\(2, 4, 5, 5\)"),
    "layer": (lambda: nn.Conv2d(3, 4, 3, groups=2), "Conv2d: 3 and 4 channels .*groups=2"),
    "layer's kernel": (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "Conv2d: .*2 of them"),
    "layer's size": (lambda: nn.Conv1d(3, 4, 0), "Conv1d: kernel_size must be .* got 0"),
    "layer's stride": (lambda: nn.Conv2d(3, 4, 3, stride=0), "Conv2d: stride must be .* got 0"),
    "layer's padding": (lambda: nn.Conv1d(3, 4, 3, padding="SAME"), "Conv1d: padding .* 'SAME'"),
    "pieces": (lambda: nn.MaxoutConv2d(3, 4, 3, pieces=0), "MaxoutConv2d: pieces .* got 0"),
    "norm": (lambda: nn.BatchNorm2d(4)(X[0]), r"BatchNorm2d\(4\): \(N, 4, H, W\).*\(4, 5, 5\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_said_with_its_numbers(case):
    call, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_have_a_largest_but_not_beside_padding():
    x = mg.tensor([[1, 3, 2, 5]])
    assert mg.max_pool1d(x, 2).tolist() == [[3, 5]]
    with pytest.raises(TypeError, match=r"^max_pool1d: integers have no -inf .*int64"):
        mg.max_pool1d(x, 2, padding=1)


def test_layers_begin_as_their_activation_wants():
    mg.manual_seed(0)
    plain, maxout = nn.Conv2d(8, 64, 5, groups=2), nn.MaxoutConv2d(8, 32, 5, pieces=3)
    bound = 1.0 / math.sqrt(4 * 25)
    for p in (plain.weight, plain.bias):
        assert 0.9 * bound < np.abs(p.data).max() <= bound
    assert maxout.weight.shape == (96, 8, 5, 5)
    want = math.sqrt(nn.init.maxout_constant(3) / 200)
    assert maxout.weight.data.std() == pytest.approx(want, rel=0.02)
    assert not maxout.bias.data.any()
    assert nn.Conv2d(1, 1, 1, bias=False).bias is None
    assert repr(plain) == "Conv2d(8, 64, kernel_size=(5, 5), groups=2)"


def network(activation):
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), activation(), nn.MaxPool2d(2),
        nn.MaxoutConv2d(6, 4, 3, pieces=2, padding=1), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip


def test_the_table_of_a_network_shows_images(capsys):
    nn.summary(network(nn.ReLU), (4, 1, 8, 8))
    printed = capsys.readouterr().out
    for text in ("(4, 6, 8, 8)          60", "(4, 4, 4, 4)         440", "parameters: 563"):
        assert text in printed


def test_the_diagnosis_sees_channels_as_units():
    mg.manual_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = mg.tensor(rng.normal(size=(60, 1, 8, 8)) + y[:, None, None, None], dtype="float32")
    y = mg.tensor(y)
    model = network(nn.ReLU)
    with mg.no_grad():
        model[1].bias[2] = -100.0  # a channel that is dead
    optimizer = mg.optim.SGD(model.parameters(), lr=0.05)
    recorder = mg.diagnosis.Recorder(model, optimizer)
    mg.train.fit(model, mg.cross_entropy, optimizer, (x, y), epochs=2, batch_size=20,
                 progress=False, callbacks=[recorder])  # fmt: skip
    layers = recorder.record.layers
    assert [(k.name, k.activation, k.units, k.fan_in) for k in layers] == [
        ("0", "relu", 6, 9), ("4", "maxout", 4, 54), ("7", "none", 3, 16),
    ]  # fmt: skip
    found, sample = mg.diagnosis.observe.look(model, mg.cross_entropy, x, y)
    assert [k.units for k in found] == [6, 4, 3]
    assert sample.layers[0].dead == pytest.approx(1 / 6)
    assert len(sample.layers[1].wins) == 2
    assert min(state.delta for state in sample.layers) > 0
    assert "0" in str(mg.diagnosis.gradient_flow(model, mg.cross_entropy, x, y))
    report = mg.diagnose(model, mg.cross_entropy, (x, y), record=recorder, baseline=None)
    assert "accuracy" in str(report)


def test_the_two_adjoints_are_primitives_of_their_own():
    how = ((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    y, w = mg.ones((1, 1, 2, 2)), mg.ones((1, 1, 2, 2))
    out = REGISTRY["conv_input"](y, w, (3, 3), how)
    assert out.tolist() == [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]]
    assert REGISTRY["conv_weight"](y, out, (2, 2), how).tolist() == [[[[9, 9], [9, 9]]]]


# ----------------------------------------------------------------------------- the benchmark


def test_the_benchmark_times_what_it_names(monkeypatch, capsys):
    monkeypatch.setattr(convolution, "CONVOLUTIONS", {"conv": ((2, 1, 4, 4), (2, 3, 1))})
    monkeypatch.setattr(convolution, "POOLS", {"pool": ((2, 1, 4, 4), ("max", 2, 2, 0))})
    convolution.worker("microgradnd", 0.0)
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["conv", "pool", convolution.STEP]
    assert all(row["seconds"] > 0 for row in found.values())


def test_the_benchmark_takes_no_figures_of_peers_that_disagree(monkeypatch, capsys, tmp_path):
    sums = {"microgradnd": 1.0, "torch": 1.0}
    monkeypatch.setattr(convolution, "ask", lambda python, peer, *_: {
        "conv": {"sum": sums[peer], "seconds": 3e-3 if peer == "torch" else 6e-3}})  # fmt: skip
    convolution.main(["--rounds", "2", "--json", str(tmp_path / "found.json")])
    assert " ".join(capsys.readouterr().out.split()).endswith("conv 6 ms 3 ms 2.00")
    saved = json.loads((tmp_path / "found.json").read_text())["results"]
    assert saved == {"threads": 2, "seconds": {"conv": {"microgradnd": 6e-3, "torch": 3e-3}}}
    sums["torch"] = 1.01
    with pytest.raises(SystemExit, match="conv: the peers do not agree"):
        convolution.main(["--rounds", "1"])
    failed = SimpleNamespace(returncode=1, stderr="No module named 'torch'")
    monkeypatch.undo()
    monkeypatch.setattr(convolution.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="torch: No module named 'torch'; --torch-python PATH"):
        convolution.ask("python", "torch", 0.1, 1)
