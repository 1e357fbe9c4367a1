"""Modules and initialisers against PyTorch's, in float32: `data/make_modules.py` says how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import microgradnd as mg
from microgradnd import nn

STORED = json.loads((Path(__file__).parent / "data" / "modules.json").read_text(encoding="ascii"))
MODULES, INIT = STORED["modules"], STORED["init"]
#: They compute nothing of their own.
BASES = {"Module", "ModuleDict", "ModuleList", "Operation"}


def array(numbers):
    """What nested lists hold: float32 or int64."""
    x = np.asarray(numbers)
    return x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int64)


def built(build):
    name, arguments, options = build
    if name == "Sequential":
        return nn.Sequential(*map(built, arguments))
    options = {k: mg.tensor(array(v)) if "weight" in k else v for k, v in options.items()}
    return getattr(nn, name)(*arguments, **options)


def agrees(got, want, what):
    """Assert shape, dtype and values, to 1e-5 absolute and relative; None only where it should."""
    if want is None:
        assert got is None, f"{what}: nothing is wanted"
        return
    assert got is not None, f"{what}: is missing"
    got, want = got.numpy(), array(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype), what
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=what)


def names(build):
    if build[0] != "Sequential":
        return {build[0]}
    return {"Sequential"}.union(*map(names, build[1]))


@pytest.mark.parametrize("title", MODULES)
def test_outputs_gradients_and_buffers_are_those_of_pytorch(title):
    entry = MODULES[title]
    module = built(entry["build"])
    assert set(module.state_dict()) == set(entry["state"])
    module.load_state_dict({name: mg.tensor(array(x)) for name, x in entry["state"].items()})
    for i, call in enumerate(entry["calls"]):
        module.train(call["train"])
        module.zero_grad()
        inputs = [
            mg.tensor(array(x), requires_grad=g is not None)
            for x, g in zip(call["inputs"], call["gradients"], strict=True)
        ]
        y = module(*inputs)
        agrees(y.detach(), call["output"], f"call {i}, output")
        if y.requires_grad:
            y.backward(mg.tensor(array(call["cotangent"])))
        for j, (x, g) in enumerate(zip(inputs, call["gradients"], strict=True)):
            agrees(x.grad, g, f"call {i}, gradient of input {j}")
        found = dict(module.named_parameters())
        assert list(found) == list(call["parameters"])  # optimizers count them in order
        for name, p in found.items():
            agrees(p.grad, call["parameters"][name], f"call {i}, gradient of {name}")
        buffers = dict(module.named_buffers())
        assert set(buffers) == set(call["buffers"])
        for name, b in buffers.items():
            agrees(b, call["buffers"][name], f"call {i}, {name} afterwards")


def test_every_module_has_a_reference():
    classes = {
        name
        for name in dir(nn)
        if isinstance(found := getattr(nn, name), type) and issubclass(found, nn.Module)
    }
    covered = set().union(*(names(entry["build"]) for entry in MODULES.values()))
    assert classes - BASES == covered


@pytest.mark.parametrize(("nonlinearity", "param", "gain"), INIT["gains"])
def test_gains_are_those_of_pytorch(nonlinearity, param, gain):
    assert nn.init.calculate_gain(nonlinearity, param) == pytest.approx(gain, rel=1e-15)


@pytest.mark.parametrize(("name", "shape", "options", "values"), INIT["fillers"])
def test_fillers_write_what_pytorch_writes(name, shape, options, values):
    tensor = mg.tensor(np.full(shape, 7.0, np.float32))
    assert getattr(nn.init, name)(tensor, **options) is tensor
    assert np.array_equal(tensor.numpy(), array(values))


@pytest.mark.parametrize(("name", "shape", "options", "law", "scale"), INIT["scales"])
def test_what_is_drawn_has_the_scale_of_pytorch(name, shape, options, law, scale):
    mg.manual_seed(11)
    tensor = mg.tensor(np.zeros(shape, np.float32))
    assert getattr(nn.init, name)(tensor, **options) is tensor
    x = tensor.numpy().astype(np.float64) / scale
    assert x.size >= 2400
    if law == "uniform":  # a largest of so many below 0.98 has probability 1e-21
        assert 0.98 < np.abs(x).max() <= 1 + 1e-6
        assert x.std() == pytest.approx(3**-0.5, rel=0.05)
    else:  # the deviation of so many is known to 1.4 %
        assert x.std() == pytest.approx(1, rel=0.06)
        assert 3 < np.abs(x).max() < 6
    assert abs(x.mean()) < 0.1


@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), INIT["fans"])
def test_fans_are_those_of_pytorch(shape, fan_in, fan_out):
    assert nn.init.fans(mg.tensor(np.zeros(shape, np.float32))) == (fan_in, fan_out)
