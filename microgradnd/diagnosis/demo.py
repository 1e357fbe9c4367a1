"""Faults to look at: small networks that are trained before one's eyes, and then diagnosed.

This is the command `microgradnd demo vanishing`, and the like.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import log10
from typing import Any, TextIO

import numpy as np

from .. import backend as backends
from .. import data, nn, optim
from ..functions import asarray
from ..ops.losses import cross_entropy
from ..random import manual_seed
from ..train import Callback, Loop, fit
from .catalogue import number, say
from .evidence import Layer, Sample
from .examination import diagnose
from .observe import look, untouched
from .recorder import Recorder
from .report import Report
from .tables import bar

__all__ = ["ACTIVATIONS", "DEMOS", "run"]

#: Examples to train on and to test on, inputs, classes, and the width of a layer.
TRAIN, TEST, FEATURES, CLASSES, WIDTH = 1000, 500, 32, 10, 48
#: Activations, and the initial weights that suit them.
INIT: dict[str, Any] = {
    "relu": nn.init.kaiming_normal_, "leaky_relu": nn.init.kaiming_normal_,
    "sigmoid": nn.init.xavier_normal_, "tanh": nn.init.xavier_normal_,
    "elu": nn.init.lecun_normal_, "selu": nn.init.lecun_normal_, "maxout": nn.init.maxout_he_,
}  # fmt: skip
LAYERS: dict[str, Any] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
    "elu": nn.ELU, "selu": nn.SELU,
}  # fmt: skip
ACTIVATIONS = tuple(INIT)
#: For networks to compare with.
SECONDS = 5.0
#: Powers of ten that a bar spans, and cells of one.
DECADES, CELLS = 8, 32


@dataclass(frozen=True)
class Demo:
    """One network, and how it is trained: by SGD, in mini-batches of 32."""

    depth: int
    activation: str
    rate: float
    epochs: int = 12
    examples: int = TRAIN
    noise: float = 6.0  # of the examples: how far the classes overlap
    foreign_init: bool = False  # Maxout with the weights of ReLU
    clip: float | None = None  # of the gradient's norm: units die, and the loss stays finite


DEMOS = {
    "vanishing": Demo(10, "sigmoid", 0.5),
    "dying": Demo(3, "relu", 4.0, clip=2.0),
    "exploding": Demo(10, "maxout", 0.02, foreign_init=True),
    "overfit": Demo(1, "relu", 0.1, epochs=60, examples=40, noise=9.0),
    "lr": Demo(3, "relu", 1e-5),
    "maxout": Demo(6, "maxout", 0.02),
}


def run(
    name: str, depth: int | None = None, activation: str | None = None,
    backend: str | None = None, lang: str = "en", out: TextIO | None = None,
) -> Report:  # fmt: skip
    """Train one of `DEMOS` and show its layers meanwhile; gives the report, which is printed.

    Args:
        name: Which one.
        depth: Hidden layers, in place of its own.
        activation: One of `ACTIVATIONS`, in place of its own.
        backend: Where to compute, `"numpy"` or `"cupy"`; None: the default.
        lang: `"en"` or `"zh"`.
        out: Where to write; None: the standard output.

    Raises:
        KeyError: If there is no such demo.
        BackendError: If the backend cannot be used.
    """
    demo, out = DEMOS[name], out or sys.stdout
    depth, activation = depth or demo.depth, activation or demo.activation
    title = say(lang, f"demo.{name}", depth=depth, activation=activation)
    print(f"{name}: {title}\n", file=out)
    quiet = np.errstate(all="ignore")  # what explodes shall do so
    with backends.use(backend or backends.get()), untouched(None), quiet:
        manual_seed(0)
        train, test = _data(demo.examples, demo.noise)
        model = _network(depth, activation, demo.foreign_init and activation == "maxout")
        optimizer = optim.SGD(model.parameters(), lr=demo.rate)
        record = Recorder(model, optimizer, cross_entropy, train=train, test=test)
        show = _Show(train, lang, out)
        fit(model, cross_entropy, optimizer, train, epochs=demo.epochs, progress=False,
            clip_norm=demo.clip, on_nonfinite="ignore", callbacks=[record, show])  # fmt: skip
        report = diagnose(model, cross_entropy, train, test, record=record, baseline=SECONDS,
                          lang=lang)  # fmt: skip
    print(f"\n{report}", file=out)
    return report


def _data(examples: int, noise: float) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Draw ten clouds that overlap a little; also as Tensors of the current backend."""
    x, y = data.blobs(examples + TEST, std=noise, seed=0, centers=CLASSES, features=FEATURES)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return (asarray(x[:examples]), asarray(y[:examples])), (
        asarray(x[examples:]), asarray(y[examples:]))  # fmt: skip


def _network(depth: int, activation: str, foreign: bool) -> nn.Sequential:
    """Make hidden layers of one kind with the weights that suit them, and an output layer."""
    layers: list[nn.Module] = []
    for i in range(depth):
        inputs = WIDTH if i else FEATURES
        layer: Any
        if activation == "maxout":
            layer = nn.Maxout(inputs, WIDTH, 2)
            layers.append(layer)
            if foreign:
                nn.init.kaiming_normal_(layer.weight)
            continue
        layer = nn.Linear(inputs, WIDTH)
        INIT[activation](layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, LAYERS[activation]()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


class _Show(Callback):
    """Draws the layers after each epoch; in a terminal always in the same place."""

    def __init__(self, train: tuple[Any, Any], lang: str, out: TextIO):
        x, y = train
        self.rows, self.lang, self.out = (x[:256], y[:256]), lang, out
        self.above = 0  # lines to go up

    def on_train_begin(self, loop: Loop) -> None:
        """Draw the beginning."""
        self._draw(loop, 0)

    def on_epoch_end(self, loop: Loop) -> None:
        """Draw what became of it; where lines stay, only the last epoch's."""
        if self.out.isatty() or loop.epoch == loop.epochs:
            self._draw(loop, loop.epoch)

    def _draw(self, loop: Loop, epoch: int) -> None:
        layers, sample = look(loop.model, cross_entropy, *self.rows)
        if self.above and self.out.isatty():
            print(f"\x1b[{self.above}A\x1b[J", end="", file=self.out)
        lines = self._lines(layers, sample, epoch)
        print("\n".join(lines), file=self.out, flush=True)
        self.above = len(lines)

    def _lines(self, layers: list[Layer], sample: Sample, epoch: int) -> list[str]:
        def word(name: str) -> str:
            return say(self.lang, f"word.{name}")

        top = max((s.delta for s in sample.layers if s.delta > 0), default=1.0)
        legend = word("comma").join(map(word, ("dead", "zeros", "saturated")))
        lines = [say(self.lang, "demo.columns", epoch=epoch, loss=number(sample.loss),
                     legend=legend)]  # fmt: skip
        for i, (layer, state) in enumerate(zip(layers, sample.layers, strict=True)):
            size = 1 + log10(state.delta / top) / DECADES if state.delta > 0 else 0.0
            shares = " ".join(f"{share:4.0%}" for share in (state.dead, state.zeros,
                              state.saturated)) if not layer.output else ""  # fmt: skip
            lines.append(f"{i + 1:3} {layer.activation:10} {bar(size, CELLS):{CELLS}} "
                         f"{number(state.delta):>8} {shares}".rstrip())  # fmt: skip
        return lines
