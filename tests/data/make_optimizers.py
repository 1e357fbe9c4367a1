"""Write `optimizers.json`: 50 steps of PyTorch's optimizers, and rates of its schedulers.

The file holds

- `"start"`: the parameters of every run, float32;
- `"gradients"`: for each step and parameter the gradient times `"scale"`, in integers, so that both
  sides have the same float32 numbers; null where there is none, `"frozen"` where moreover the
  parameter does not require a gradient;
- `"runs"`: title to {"name", "options", "groups", "lr", "parameters", "state"}. The parameters 0, 1
  and 2 are the first group, the others the second, whose own options are `groups[1]`. `lr` maps a
  step to the rate that the first group has from this step on. `parameters` maps a step to the
  parameters after it (counted from 1), `state` is PyTorch's after the last step, by its names of
  slots, with the number of steps that each parameter took.
- `"schedules"`: title to {"build", "rates"} and, for plateaus, "metrics". A build is [name,
  arguments, options]; the arguments of a SequentialLR are builds, the functions of a LambdaLR
  names. `rates` holds the rates of the two groups, which begin with `"bases"`, before the first
  step and after each of 60.

Run `python tests/data/make_optimizers.py`; it needs PyTorch.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

Array = Any
random = torch.Generator().manual_seed(5)
torch.set_num_threads(1)

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 3), (1,), (5, 1), (7,)]
STEPS = 50
STORED = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50)
SCALE = 64
#: Steps in which a parameter has no gradient, and those in which it is frozen.
ABSENT = {1: (4, 5, 17, 50), 3: (1, 2, 30), 5: (8,)}
FROZEN = {4: range(11, 21)}

SECOND = {
    "SGD": {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.02},
    "Adagrad": {"lr": 0.2, "eps": 1e-6},
    "RMSprop": {"lr": 0.002, "alpha": 0.9, "eps": 1e-6},
    "Adam": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6},
    "AdamW": {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.25},
}
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"lr": 0.01, "momentum": 0.9}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.11}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.11, "nesterov": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.25, "weight_decay": 0.11}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.11}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "lr": 0.001}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"weight_decay": 0.11}),
    ("RMSprop", {"lr": 0.001, "momentum": 0.5, "centered": True, "weight_decay": 0.11}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.11}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.11}),
    ("AdamW", {"lr": 0.01, "amsgrad": True}),
]
#: Rates that change on the way, as schedulers do it.
CHANGED = [
    ("SGD", {"lr": 0.02, "momentum": 0.9}, {11: 0.005, 31: 0.05}),
    ("Adam", {"lr": 0.02}, {11: 0.005, 31: 0.05}),
]


def plain(x: Array) -> Any:
    """Give nested lists with the shortest floats that are the same in float32."""
    x = x.detach().numpy()
    assert x.dtype == np.float32
    # Of NumPy's own scalars: a Python float would be written with the digits of float64.
    return np.reshape([float(str(v)) for v in x.ravel()], x.shape).tolist()


def drawn() -> tuple[list[Array], list[list[Any]]]:
    """Draw the first parameters, and the integers of all gradients."""
    start = [torch.round(32 * torch.randn(s, generator=random)) / 32 for s in SHAPES]
    gradients = []
    for step in range(1, STEPS + 1):
        row: list[Any] = []
        for i, p in enumerate(start):
            # Around a mean that turns over the steps and differs among elements: not only noise.
            mean = 40 * torch.cos(torch.arange(p.numel()).reshape(p.shape) + step / 15)
            g = torch.round(mean + 30 * torch.randn(p.shape, generator=random)).int()
            row.append("frozen" if step in FROZEN.get(i, ()) else g.tolist())
            if step in ABSENT.get(i, ()):
                row[i] = None
        gradients.append(row)
    return start, gradients


def run(
    name: str,
    options: dict[str, Any],
    start: list[Array],
    gradients: list[list[Any]],
    rates: dict[int, float],
) -> dict[str, Any]:
    """Let one optimizer take its steps."""
    params = [torch.nn.Parameter(p.clone()) for p in start]
    groups = [{"params": params[:3]}, {"params": params[3:], **SECOND[name]}]
    optimizer = getattr(torch.optim, name)(groups, **options)
    after = {}
    for step, row in enumerate(gradients, 1):
        if step in rates:
            optimizer.param_groups[0]["lr"] = rates[step]
        for i, (p, g) in enumerate(zip(params, row, strict=True)):
            p.requires_grad_(g != "frozen")
            missing = g is None or g == "frozen"
            p.grad = None if missing else torch.tensor(g, dtype=torch.float32) / SCALE
            if p.grad is not None and name != "AdamW":
                # Divided by their own root, terms that cancel leave the direction to rounding.
                decay = optimizer.param_groups[i > 2]["weight_decay"]
                assert decay == 0 or (p.grad + decay * p).abs().min() > 1e-5
        optimizer.step()
        if step in STORED:
            after[step] = [plain(p) for p in params]
    state = {}
    for i, p in enumerate(params):
        slots = {k: v for k, v in optimizer.state[p].items() if v is not None and k != "step"}
        state[i] = {k: plain(v) for k, v in slots.items()}
        state[i]["step"] = sum(row[i] not in (None, "frozen") for row in gradients)
        if "step" in optimizer.state[p]:
            assert state[i]["step"] == int(optimizer.state[p]["step"])
    return {
        "name": name,
        "options": options,
        "groups": [{}, SECOND[name]],
        "lr": rates,
        "parameters": after,
        "state": state,
    }


# ------------------------------------------------------------------------------ schedules

BASES = (0.5, 0.03)
EPOCHS = 60
FUNCTIONS = {
    "inverse": lambda epoch: 1 / (1 + 0.25 * epoch),
    "power": lambda epoch: 0.95**epoch,
}
WARM = ["LinearLR", [], {"start_factor": 0.1, "total_iters": 8}]
SCHEDULES: list[list[Any]] = [
    ["StepLR", [7], {}],
    ["StepLR", [], {"step_size": 10, "gamma": 0.5}],
    ["MultiStepLR", [[5, 20, 21]], {}],
    ["MultiStepLR", [], {"milestones": [10, 10, 40], "gamma": 0.5}],
    ["ExponentialLR", [0.9], {}],
    ["CosineAnnealingLR", [60], {}],
    ["CosineAnnealingLR", [], {"T_max": 60, "eta_min": 0.001}],
    ["CosineAnnealingLR", [20, 0.001], {}],
    ["LambdaLR", ["inverse"], {}],
    ["LambdaLR", [["inverse", "power"]], {}],
    ["LinearLR", [], {}],
    ["LinearLR", [0.01], {"end_factor": 0.5, "total_iters": 20}],
    ["SequentialLR", [WARM, ["CosineAnnealingLR", [52], {}]], {"milestones": [8]}],
    ["SequentialLR", [WARM, ["StepLR", [5, 0.5], {}], ["ExponentialLR", [0.9], {}]],
     {"milestones": [8, 30]}],
]  # fmt: skip
#: Falls, then stays, falls a little, rises, falls below 0: improvements on either scale of many
#: sizes, with runs of none. For the mode "max" it is 3 less these.
METRICS = [
    round(float(v), 6)
    for v in np.concatenate([
        np.linspace(2.0, 1.0, 8), np.full(7, 1.0), 1.0 - 0.000005 * np.arange(12),
        np.linspace(1.0, 1.2, 6), np.linspace(0.9, 0.01, 9), 0.01 - 0.00002 * np.arange(9),
        np.linspace(0.0, -0.5, 4), np.full(5, -0.45),
    ])
]  # fmt: skip
PLATEAUS: list[dict[str, Any]] = [
    {},
    {"patience": 3, "factor": 0.5},
    {"patience": 1, "factor": 0.5, "threshold": 0.2, "threshold_mode": "rel"},
    {"patience": 1, "factor": 0.5, "threshold": 0.2, "threshold_mode": "abs"},
    {"patience": 2, "cooldown": 4, "factor": 0.5},
    {"patience": 0, "factor": 0.5, "min_lr": 0.01, "threshold": 0.001},
    {"patience": 0, "factor": 0.5, "min_lr": [0.1, 0.001], "threshold": 0.001},
    {"patience": 0, "factor": 0.1, "eps": 0.001, "cooldown": 1},
]


def schedule(build: list[Any], optimizer: Any) -> Any:
    """Construct the scheduler of a build."""
    name, arguments, options = build
    if name == "SequentialLR":
        arguments = [[schedule(part, optimizer) for part in arguments]]
    if name == "LambdaLR":
        (f,) = arguments
        arguments = [FUNCTIONS[f] if isinstance(f, str) else [FUNCTIONS[k] for k in f]]
    return getattr(lr_scheduler, name)(optimizer, *arguments, **options)


def rates(build: list[Any], metrics: list[float] | None = None) -> dict[str, Any]:
    """Compute the rates of one schedule."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in BASES]
    optimizer = torch.optim.SGD(groups)
    scheduler = schedule(build, optimizer)
    table = [[group["lr"] for group in optimizer.param_groups]]
    for epoch in range(EPOCHS):
        optimizer.step()
        scheduler.step(*(() if metrics is None else metrics[epoch : epoch + 1]))
        table.append([group["lr"] for group in optimizer.param_groups])
        assert scheduler.get_last_lr() == table[-1]
    return {"build": build, "rates": table} | ({} if metrics is None else {"metrics": metrics})


def title(name: str, options: dict[str, Any], *more: Any) -> str:
    """Write a call as one would in Python."""
    return f"{name}({', '.join([*more, *(f'{k}={v!r}' for k, v in options.items())])})"


def main() -> None:
    """Write the file next to this one."""
    warnings.filterwarnings("ignore", message=".*epoch parameter in `scheduler.step")
    start, gradients = drawn()
    runs = {title(name, kw): run(name, kw, start, gradients, {}) for name, kw in RUNS}
    for name, kw, changes in CHANGED:
        runs[title(name, kw) + ", rates change"] = run(name, kw, start, gradients, changes)
    schedules = {}
    for build in SCHEDULES:
        name, arguments, options = build
        parts = [p[0] if isinstance(p, list) and name == "SequentialLR" else repr(p)
                 for p in arguments]  # fmt: skip
        schedules[title(name, options, *parts)] = rates(build)
    for options in PLATEAUS:
        given = {"mode": "max", **options}
        schedules[title("ReduceLROnPlateau", options)] = rates(
            ["ReduceLROnPlateau", [], options], METRICS
        )
        schedules[title("ReduceLROnPlateau", given)] = rates(
            ["ReduceLROnPlateau", [], given], [round(3 - m, 6) for m in METRICS]
        )
    assert len(METRICS) == EPOCHS and all(math.isfinite(m) for m in METRICS)
    tables = {
        "scale": SCALE,
        "start": [plain(p) for p in start],
        "gradients": gradients,
        "bases": BASES,
        "runs": runs,
        "schedules": schedules,
    }
    compact: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False}
    parts = []
    for key, value in tables.items():
        if isinstance(value, dict):
            rows = (f"{json.dumps(k)}:{json.dumps(v, **compact)}" for k, v in value.items())
            parts.append(f'"{key}":{{\n' + ",\n".join(rows) + "\n}")
        else:
            parts.append(f'"{key}":{json.dumps(value, **compact)}')
    text = "{" + ",\n".join(parts) + "}\n"
    Path(__file__).with_name("optimizers.json").write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
