"""What `mg.diagnosis.Recorder` adds to a training at its default setting.

The same training runs with and without it, in turns; every 1000 steps the recorder looks closely at
one. The start, where it looks at up to 512 rows of the training set, is timed apart.
Processor time is taken, which other processes hardly change.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import process_time
from typing import Any

import numpy as np

import microgradnd as mg
from microgradnd import nn
from microgradnd.diagnosis import Recorder
from microgradnd.diagnosis.recorder import EVERY

from .timing import readable, save, table

#: Widths, batch, and whether `fit` trains (an epoch has 45 steps).
TRAININGS: dict[str, tuple[tuple[int, ...], int, bool]] = {
    "64-64-10, batch 32, fit": ((64, 64, 10), 32, True),
    "64-64-10, batch 32": ((64, 64, 10), 32, False),
    "784-256-10, batch 100": ((784, 256, 10), 100, False),
    "64-10x64-10, batch 32": ((64, *[64] * 10, 10), 32, False),
}
EPOCH = 45
HEADER = ("training", "step", "recorded", "more", "once, at the start")


def training(
    widths: tuple[int, ...], batch: int, fit: bool, record: bool
) -> tuple[Callable[[int], None], Any]:
    """Give a function that makes so many steps, and the recorder (to be kept) if there is one."""
    mg.manual_seed(0)
    layers: list[Any] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    sgd = mg.optim.SGD(model.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    x, y = rng.random((EPOCH * batch, widths[0]), dtype="f4"), rng.integers(0, 10, EPOCH * batch)
    train, test = (mg.asarray(x), mg.asarray(y)), (mg.asarray(x[:360]), mg.asarray(y[:360]))
    recorder = Recorder(model, sgd, mg.cross_entropy, train, test) if record else None

    def epochs(steps: int) -> None:
        mg.train.fit(
            model, mg.cross_entropy, sgd, train, epochs=max(steps // EPOCH, 1), batch_size=batch,
            metrics=["accuracy"], callbacks=[recorder] if recorder else [], progress=False,
        )  # fmt: skip

    def loop(steps: int) -> None:
        for i in range(steps):
            rows = slice(i % EPOCH * batch, (i % EPOCH + 1) * batch)
            sgd.zero_grad()
            mg.cross_entropy(model(train[0][rows]), train[1][rows]).backward()
            sgd.step()

    return epochs if fit else loop, recorder


def seconds(function: Callable[[int], None], steps: int) -> float:
    """Give the processor's seconds for so many steps."""
    began = process_time()
    function(steps)
    return process_time() - began


def compare(name: str, rounds: int) -> dict[str, float]:
    """Train with and without a recorder in turns; give seconds and the median ratio."""
    size = TRAININGS[name]
    turn = EVERY // 10 // EPOCH * EPOCH if size[2] else EVERY // 10  # whole epochs
    plain, _ = training(*size, record=False)
    watched, recorder = training(*size, record=True)
    first = EPOCH if size[2] else 1
    starts = []
    for _ in range(5):
        pair = [training(*size, record=record) for record in (False, True)]
        without, with_it = (seconds(train, first) for train, _ in pair)
        starts.append(with_it - without)
    for train in (plain, watched):
        train(EVERY)
    ratios, both = [], {False: 0.0, True: 0.0}
    steps = turn * 10  # with a close look
    for _ in range(rounds):
        times = {False: 0.0, True: 0.0}
        for i in range(steps // turn):
            for record in (False, True) if i % 2 else (True, False):
                times[record] += seconds(watched if record else plain, turn)
        ratios.append(times[True] / times[False])
        both = {record: both[record] + times[record] for record in both}
    assert recorder.record.samples[-1].step >= EVERY
    per_step = {record: both[record] / rounds / (steps // turn) / turn for record in both}
    return {
        "step": per_step[False], "recorded": per_step[True], "ratio": median(ratios),
        "start": median(starts),
    }  # fmt: skip


def rows(found: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """Give the table's rows."""
    return [
        (name, readable(t["step"]), readable(t["recorded"]), f"{t['ratio'] - 1:+.1%}",
         readable(t["start"]))
        for name, t in found.items()
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Print a table of all trainings; gives it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorder", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of 1000 steps (default: 10)")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    found = {name: compare(name, options.rounds) for name in TRAININGS}
    print(table(HEADER, rows(found)))
    if options.json:
        save(options.json, found)
    return found


if __name__ == "__main__":
    main()
