"""An interrupted run goes on as if it had not been: the same losses and weights, to the bit.

As a program, `test_resume.py kill FOLDER` starts every run in a process of its own, which saves in
the middle of an epoch and kills itself; `test_resume.py resume FOLDER` goes on in a fresh process.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import microgradnd as mg

nn, optim, schedule = mg.nn, mg.optim, mg.optim.lr_scheduler
EPOCH = 6  # steps, the last one with a smaller batch
CUTS = {"at the end of an epoch": 6, "in the middle of an epoch": 8}
RUNS = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
    "SGD nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.01}),
    "RMSprop": (optim.RMSprop, {"weight_decay": 1e-3}),
    "RMSprop centered": (optim.RMSprop, {"centered": True, "momentum": 0.5}),
    "Adam": (optim.Adam, {"lr": 0.01}),
    "Adam amsgrad": (optim.Adam, {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.99)}),
    "AdamW": (optim.AdamW, {"lr": 0.01}),
}
SCHEDULES = [
    lambda o: schedule.StepLR(o, 3, 0.5),
    lambda o: schedule.MultiStepLR(o, [2, 9], 0.5),
    lambda o: schedule.ExponentialLR(o, 0.9),
    lambda o: schedule.CosineAnnealingLR(o, 20),
    lambda o: schedule.LambdaLR(o, lambda t: 1 / (1 + t)),
    lambda o: schedule.LinearLR(o, 0.1, total_iters=9),
    lambda o: schedule.ReduceLROnPlateau(o, factor=0.5, patience=1),
    lambda o: schedule.SequentialLR(
        o, [schedule.LinearLR(o, 0.1, total_iters=4), schedule.CosineAnnealingLR(o, 10)], [4]
    ),
    lambda o: schedule.StepLR(o, 1, 0.9),
]


class Run:
    """A model in training, and all that there is to save of it."""

    def __init__(self, name, prefetch=0, seed=0, own=True, reverse=False):
        mg.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.PReLU(16), nn.Dropout(0.3),
            nn.Maxout(16, 8, 2), nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 3),
        )  # fmt: skip
        self.model[0].bias.requires_grad_(False)
        make, options = RUNS[name]
        params = [*self.model.parameters()]
        order = -1 if reverse else 1
        groups = [{"params": params[:3][::order]}, {"params": params[3:][::order], "lr": 0.02}]
        self.optimizer = make(groups, **options)
        self.scheduler = SCHEDULES[[*RUNS].index(name)](self.optimizer)
        data = np.random.default_rng(0)
        x, y = data.normal(size=(23, 4)).astype("f4"), data.integers(0, 3, 23)
        self.loader = mg.data.DataLoader(
            mg.data.TensorDataset(x, y), batch_size=4, shuffle=True, prefetch=prefetch,
            generator=mg.Generator(seed + 1) if own else None,
        )  # fmt: skip
        self.losses = []

    def parts(self):
        return {
            "model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler,
            "loader": self.loader, "rng": mg.random.default_generator(),
        }  # fmt: skip

    def train(self, steps, after=None):
        """Go on for some steps; `after` is called with the number of each."""
        done = 0
        while done < steps:
            for x, y in self.loader:
                loss = mg.cross_entropy(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                plateau = isinstance(self.scheduler, schedule.ReduceLROnPlateau)
                self.scheduler.step(*[loss.item()] * plateau)
                self.losses.append(loss.item().hex())
                done += 1
                if after:
                    after(done)
                if done == steps:
                    break
        return self

    def print(self, last):
        """The last losses and a digest of everything else."""
        states = {name: part.state_dict() for name, part in self.parts().items() if name != "rng"}
        digest = hashlib.sha256(repr(hashable(states)).encode())
        return self.losses[-last:], digest.hexdigest(), mg.random.default_generator().state


def hashable(value):
    if isinstance(value, mg.Tensor):
        return value.dtype.str, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: hashable(item) for key, item in value.items()}
    return [hashable(item) for item in value] if isinstance(value, list | tuple) else value


def resumed(path, name, steps, **options):
    run = Run(name, seed=99, **options)  # all of whose numbers are others
    assert mg.load(path, **run.parts()) == {}
    return run.train(steps)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("prefetch", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, name, prefetch, cut):
    path, n = tmp_path / "run.safetensors", CUTS[cut]
    plain = Run(name, prefetch).train(2 * n).print(n)
    run = Run(name, prefetch)
    run.train(2 * n, lambda step: mg.save(path, **run.parts()) if step == n else None)
    assert run.print(n) == plain  # saving changes nothing
    assert len(set(plain[0])) > 1
    assert resumed(path, name, n, prefetch=prefetch).print(n) == plain


def test_resumed_with_the_default_generator_for_the_order_too(tmp_path):
    path, run = tmp_path / "run.safetensors", Run("Adam", own=False)
    run.train(16, lambda step: mg.save(path, **run.parts()) if step == 8 else None)
    wanted = run.print(8)
    assert resumed(path, "Adam", 8, own=False).print(8) == wanted


def test_resumed_with_the_parameters_in_another_order(tmp_path):
    path, run = tmp_path / "run.safetensors", Run("Adam amsgrad")
    run.train(16, lambda step: mg.save(path, **run.parts()) if step == 8 else None)
    assert resumed(path, "Adam amsgrad", 8, reverse=True).losses == run.losses[8:]


def test_resumed_again_and_again(tmp_path):
    path = tmp_path / "run.safetensors"
    wanted = Run("AdamW").train(20).print(1)
    run = Run("AdamW")
    mg.save(path, **run.parts())
    for _ in range(20):
        run = resumed(path, "AdamW", 1)
        mg.save(path, **run.parts())
    assert run.print(1) == wanted


@pytest.mark.parametrize("name", RUNS)
def test_a_load_that_fails_leaves_the_run_as_it_was(tmp_path, name):
    path = tmp_path / "run.safetensors"
    run = Run(name, seed=5).train(8)
    mg.save(path, **run.parts(), weight=mg.zeros(3))
    for steps in (0, 4):
        wanted = Run(name).train(steps)
        wanted = wanted.train(8).print(8)
        run = Run(name).train(steps)
        with pytest.raises(mg.CheckpointError, match="weight: the file has float32"):
            mg.load(path, **run.parts(), weight=mg.zeros(2))
        run.loader._resuming = False  # a failed load may let the epoch go on
        assert run.train(8).print(8) == wanted


def test_a_model_of_another_shape_is_refused_and_all_is_told(tmp_path):
    path, run = tmp_path / "run.safetensors", Run("Adam").train(2)
    mg.save(path, **run.parts())
    other = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 2))
    before = other.state_dict()["0.weight"].tolist()
    with pytest.raises(mg.CheckpointError) as caught:
        mg.load(path, model=other, optimizer=optim.Adam(other.parameters()))
    told = str(caught.value)
    assert "model: " in told and "missing '1.weight'" not in told and "'7.weight'" in told
    assert "optimizer: parameters missing in the file: none; unknown ones in it: 2.weight" in told
    assert other.state_dict()["0.weight"].tolist() == before


def test_tied_weights_are_tied_again(tmp_path):
    path = tmp_path / "tied.safetensors"

    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model, optim.SGD(model.parameters(), momentum=0.9)

    (model, optimizer), (other, another) = tied(), tied()
    model(mg.ones((2, 3))).sum().backward()
    optimizer.step()
    mg.save(path, model=model, optimizer=optimizer)
    assert mg.load(path, model=other, optimizer=another) == {}
    assert other[1].weight is other[0].weight
    assert other[0].weight.tolist() == model[0].weight.tolist()
    assert [*another.state_dict()["state"]] == [*optimizer.state_dict()["state"]]


def main(what, folder):
    paths = {name: Path(folder, f"{name}.safetensors") for name in RUNS}
    if what == "resume":
        print(json.dumps({name: resumed(p, name, 8).print(8) for name, p in paths.items()}))
        return
    for name, path in paths.items():
        child = os.fork()
        if not child:
            run = Run(name, prefetch=2)

            def die(step, run=run, path=path):
                if step == 8:
                    mg.save(path, **run.parts())
                    os.kill(os.getpid(), 9)

            run.train(16, die)
        print(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
