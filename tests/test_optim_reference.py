"""Optimizers and schedulers against PyTorch's: `data/make_optimizers.py` says how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import microgradnd as mg
from microgradnd import nn, optim
from microgradnd.optim import lr_scheduler

STORED = json.loads(
    (Path(__file__).parent / "data" / "optimizers.json").read_text(encoding="ascii")
)
RUNS, SCHEDULES = STORED["runs"], STORED["schedules"]
GRADIENTS, SCALE = STORED["gradients"], STORED["scale"]
FUNCTIONS = {
    "inverse": lambda epoch: 1 / (1 + 0.25 * epoch),
    "power": lambda epoch: 0.95**epoch,
}


def agrees(got, want, what):
    want = np.asarray(want, np.float32)
    got = got.detach().numpy()
    assert (got.shape, got.dtype) == (want.shape, want.dtype), what
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6, err_msg=what)


def started(run, params):
    """The run's optimizer of two groups."""
    groups = [
        {"params": part, **options}
        for part, options in zip((params[:3], params[3:]), run["groups"], strict=True)
    ]
    return getattr(optim, run["name"])(groups, **run["options"])


def advance(run, optimizer, params, steps):
    """Take some steps, and compare the parameters wherever PyTorch's are stored."""
    for step in steps:
        if str(step) in run["lr"]:
            optimizer.param_groups[0]["lr"] = run["lr"][str(step)]
        for p, g in zip(params, GRADIENTS[step - 1], strict=True):
            p.requires_grad_(g != "frozen")
            missing = g is None or g == "frozen"
            p.grad = None if missing else mg.tensor(np.asarray(g, np.float32) / np.float32(SCALE))
        optimizer.step()
        for i, want in enumerate(run["parameters"].get(str(step), ())):
            agrees(params[i], want, f"parameter {i} after step {step}")


def compare_state(run, optimizer):
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1, 2], [3, 4, 5]]
    for i, slots in run["state"].items():
        got = dict(state["state"][int(i)])
        assert got.pop("step") == slots["step"], f"steps of parameter {i}"
        assert set(got) == set(slots) - {"step"}
        for name, x in got.items():
            agrees(x, slots[name], f"{name} of parameter {i}")


@pytest.mark.parametrize("title", RUNS)
def test_steps_and_state_are_those_of_pytorch(title):
    run = RUNS[title]
    params = [nn.Parameter(np.asarray(p, np.float32)) for p in STORED["start"]]
    optimizer = started(run, params)
    advance(run, optimizer, params, range(1, len(GRADIENTS) + 1))
    compare_state(run, optimizer)


@pytest.mark.parametrize("title", RUNS)
def test_a_run_resumed_among_absent_gradients_stays_that_of_pytorch(title):
    run = RUNS[title]
    params = [nn.Parameter(np.asarray(p, np.float32)) for p in STORED["start"]]
    optimizer = started(run, params)
    for first, last in ((1, 1), (2, 14), (15, len(GRADIENTS))):
        advance(run, optimizer, params, range(first, last + 1))
        state = optimizer.state_dict()
        params = [nn.Parameter(p.detach()) for p in params]
        optimizer = started(run, params)
        optimizer.load_state_dict(state)
    compare_state(run, optimizer)


# ----------------------------------------------------------------------------- schedules


def schedule(build, optimizer):
    name, arguments, options = build
    if name == "SequentialLR":
        arguments = [[schedule(part, optimizer) for part in arguments]]
    if name == "LambdaLR":
        (f,) = arguments
        arguments = [FUNCTIONS[f] if isinstance(f, str) else [FUNCTIONS[k] for k in f]]
    return getattr(lr_scheduler, name)(optimizer, *arguments, **options)


def two_groups():
    return optim.SGD([{"params": [nn.Parameter([0.0])], "lr": lr} for lr in STORED["bases"]])


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def step(entry, optimizer, scheduler, epoch):
    optimizer.step()
    scheduler.step(*entry.get("metrics", [])[epoch : epoch + 1])
    assert scheduler.get_last_lr() == rates(optimizer)
    assert rates(optimizer) == pytest.approx(entry["rates"][epoch + 1], rel=1e-9, abs=0), epoch


@pytest.mark.parametrize("title", SCHEDULES)
def test_learning_rates_are_those_of_pytorch(title):
    entry = SCHEDULES[title]
    optimizer = two_groups()
    scheduler = schedule(entry["build"], optimizer)
    assert rates(optimizer) == pytest.approx(entry["rates"][0], rel=1e-9, abs=0)
    for epoch in range(len(entry["rates"]) - 1):
        step(entry, optimizer, scheduler, epoch)


@pytest.mark.parametrize("title", SCHEDULES)
def test_a_schedule_that_is_saved_as_json_goes_on_as_pytorch_does(title):
    entry = SCHEDULES[title]
    optimizer = two_groups()
    scheduler = schedule(entry["build"], optimizer)
    for epoch in range(len(entry["rates"]) - 1):
        if epoch in (0, 3, 8, 12, 33):
            saved, weights = json.dumps(scheduler.state_dict()), optimizer.state_dict()
            optimizer = two_groups()
            scheduler = schedule(entry["build"], optimizer)
            optimizer.load_state_dict(weights)
            scheduler.load_state_dict(json.loads(saved))
        step(entry, optimizer, scheduler, epoch)
