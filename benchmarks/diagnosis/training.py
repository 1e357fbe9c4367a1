"""One configuration as settings; the network and the loop that they describe; what came of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import microgradnd as mg
from microgradnd import nn
from microgradnd.registry import REGISTRY

from . import data as sets


@dataclass(frozen=True)
class Settings:
    """A training run, but for its seed. Defaults are a usual network that trains.

    Attributes:
        data, n, flip: The set, its training examples (0: the usual number), wrong labels.
        logit: Two classes as one yes-or-no question.
        depth, width, act, pieces: Hidden layers; `act` may be one name or several, `"tanh+relu"`.
        init, gain, bias: Of the hidden layers: a rule of `nn.init` (default: the activation's
            own), a number for the standard deviation or, `"constant"`; a factor; the biases.
        head: A factor for the output layer's weights.
        norm, dropout: Within a hidden layer.
        opt, rate, batch, steps: Of the training (0 steps: the usual number).
        units, shift: Inputs are multiplied, and shifted, by these; `"ragged"` units: the first
            feature alone.
        whole: Inputs are integers (as float32).
        style: `"sequential"`, `"class"`, or `"factory"` (a Sequential and a function that makes
            others).
        plant: A fault that is no number; one of the names in this file.
        scale: A factor for the loss (SGD's rate is divided by it).
        remeasured: Inputs come in other units, and are scaled back.
    """

    data: str = "digits"
    n: int = 0
    flip: float = 0.0
    logit: bool = False
    depth: int = 2
    width: int = 32
    act: str = "relu"
    pieces: int = 2
    init: str = ""
    gain: float = 1.0
    bias: float = 0.0
    head: float = 1.0
    norm: str = ""
    dropout: float = 0.0
    opt: str = "sgd"
    rate: float = 0.1
    batch: int = 32
    steps: int = 0
    units: float = 1.0
    shift: float = 0.0
    ragged: bool = False
    whole: bool = False
    style: str = "sequential"
    plant: str = ""
    scale: float = 1.0
    remeasured: bool = False


# ------------------------------------------------------------------- activations that are at fault


def _crooked(name: str, f: Callable[..., Any], slope: Callable[..., Any]) -> Any:
    """Make a primitive of a formula and its (wrong) gradient; it is not left in the registry."""

    def forward(xp: Any, x: Any, /) -> Any:
        return f(xp, x)

    forward.__name__ = name
    made = mg.primitive(forward)
    made.vjp(x=slope)
    del REGISTRY[name]
    return made


#: Name: the right one, and one with an error that people make.
CROOKED: dict[str, tuple[str, Any]] = {
    "sign": ("relu", _crooked("relu_sign", lambda xp, x: xp.maximum(x, 0),
                              lambda xp, g, x: xp.where(x > 0, -g, 0))),
    "mask": ("relu", _crooked("relu_mask", lambda xp, x: xp.maximum(x, 0),
                              lambda xp, g, x: xp.where(x < 0, g, 0))),
    "order": ("tanh", _crooked("tanh_order", lambda xp, x: xp.tanh(x),
                               lambda g, out: (g * (1 - out * out))[::-1])),
    "slope": ("tanh", _crooked("tanh_slope", lambda xp, x: xp.tanh(x),
                               lambda g, out: g * (out * out - 1))),
    "inner": ("softplus", _crooked("softplus_inner", lambda xp, x: xp.log1p(xp.exp(x)),
                                   lambda xp, g, x: g / (1 + xp.exp(x)) - 0.6 * g)),
    "mean": ("leaky_relu", _crooked("leaky_mean", lambda xp, x: xp.maximum(x, 0.01 * x),
                                    lambda xp, g, x: xp.zeros_like(x) + xp.mean(g, axis=0))),
}  # fmt: skip


def _root(x: Any) -> Any:
    return mg.sqrt(mg.relu(x))


def _logarithm(x: Any) -> Any:
    return mg.log(mg.relu(x)) + 1


def _ratio(x: Any) -> Any:
    return x / mg.relu(x) * mg.relu(x)


def _safe_root(x: Any) -> Any:
    return mg.sqrt(mg.relu(x) + 0.01)


def _safe_logarithm(x: Any) -> Any:
    return mg.log(mg.relu(x) + 0.3) + 1


#: Functions that are not finite for inputs that occur, and the careful ones.
EDGES: dict[str, tuple[Any, Any]] = {
    "root": (_safe_root, _root),
    "logarithm": (_safe_logarithm, _logarithm),
    "ratio": (mg.relu, _ratio),
}


# --------------------------------------------------------------------------------------- networks

OWN = {
    "relu": "he", "leaky_relu": "he", "prelu": "he", "elu": "lecun", "selu": "lecun",
    "gelu": "he", "silu": "he", "mish": "he", "softplus": "glorot", "tanh": "glorot",
    "sigmoid": "glorot", "softsign": "glorot", "hard_sigmoid": "glorot", "hard_tanh": "glorot",
    "identity": "glorot", "maxout": "maxout",
}  # fmt: skip


class Embed(nn.Module):
    """The sum of the ids' vectors."""

    def __init__(self, count: int, size: int):
        super().__init__()
        self.table = nn.Embedding(count, size)

    def forward(self, x: Any) -> Any:
        """Give (n, size)."""
        return self.table(x).sum(1)


class Net(nn.Module):
    """A network whose `forward` is written by hand."""

    def __init__(self, parts: list[Any]):
        super().__init__()
        self.parts = nn.ModuleList([p for p in parts if isinstance(p, nn.Module)])
        self.order = [p if not isinstance(p, nn.Module) else None for p in parts]

    def forward(self, x: Any) -> Any:
        """Apply one part after the other."""
        modules = iter(self.parts)
        for function in self.order:
            x = function(x) if function else next(modules)(x)
        return x


def _draw(weight: Any, rule: str, act: str, pieces: int, gain: float) -> None:
    rule = rule or OWN[act]
    if rule == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    elif rule == "maxout":
        nn.init.maxout_he_(weight, pieces)
    elif rule == "constant":
        nn.init.constant_(weight, 0.1)
    elif rule in ("lecun", "glorot"):
        {"lecun": nn.init.lecun_normal_, "glorot": nn.init.xavier_normal_}[rule](weight)
    else:
        nn.init.normal_(weight, 0.0, float(rule))
    with mg.no_grad():
        weight *= gain


def function(act: str, s: Settings) -> Any:
    """Give what stands behind a layer's linear part."""
    kind, _, which = s.plant.partition(":")
    if kind in ("crooked", "edge"):
        table: Any = CROOKED if kind == "crooked" else EDGES
        return table[which][1]
    if kind == "careful":
        return EDGES[which][0]
    return nn.PReLU() if act == "prelu" else getattr(mg, act)


def hidden(s: Settings, inputs: int, act: str) -> list[Any]:
    """Make a hidden layer."""
    maxout = act == "maxout"
    layer: Any = nn.Maxout(inputs, s.width, s.pieces) if maxout else nn.Linear(inputs, s.width)
    _draw(layer.weight, s.init, act, s.pieces, s.gain)
    nn.init.constant_(layer.bias, s.bias)
    if s.plant == "idle":  # of each group only the first piece ever wins
        with mg.no_grad():
            for piece in range(1, s.pieces):
                layer.bias[piece :: s.pieces] = -30.0
    if s.init == "constant" and s.gain == 1:
        nn.init.constant_(layer.bias, 0.1)
    parts = [layer]
    parts += [nn.BatchNorm1d(s.width)] if s.norm == "batch" else []
    parts += [nn.LayerNorm(s.width)] if s.norm == "layer" else []
    parts += [] if maxout else [function(act, s)]
    return parts + ([nn.Dropout(s.dropout)] if s.dropout else [])


def network(s: Settings, data: sets.Data) -> Any:
    """Make the network, with the weights that the default generator gives."""
    size = data.x.shape[1]
    parts: list[Any] = []
    if data.words:
        parts, size = [Embed(data.words, 8)], 8
    acts = s.act.split("+")
    for i in range(s.depth):
        if s.plant == "detach" and i == s.depth - 1:
            parts.append(lambda x: x.detach())
        parts += hidden(s, size, acts[i % len(acts)])
        size = s.width
    head = nn.Linear(size, 1 if s.logit else data.outputs)
    _draw(head.weight, s.init if s.init == "constant" else "glorot", "identity", 1, s.head)
    nn.init.zeros_(head.bias)
    if s.plant == "detach head":
        parts.append(lambda x: x.detach())
    elif s.plant == "unwrapped":
        parts.append(lambda x: mg.tensor(np.asarray(x.detach().numpy())))
    parts.append(head)
    if s.plant in ("softmax", "sigmoid", "tanh", "relu", "hard_sigmoid", "softsign"):
        end = getattr(mg, s.plant)
        parts.append((lambda x: end(x, axis=1)) if s.plant == "softmax" else end)
    return Net(parts) if s.style == "class" else nn.Sequential(*parts)


# ------------------------------------------------------------------------------------------- loss


def loss_of(s: Settings, data: sets.Data) -> Any:
    """Give the loss function."""
    if s.logit:
        plain: Any = mg.binary_cross_entropy_with_logits
    else:
        plain = mg.mse if data.regression else mg.cross_entropy
    if s.scale == 1:
        return plain

    def scaled(output: Any, target: Any) -> Any:
        return plain(output, target) * s.scale

    return scaled


# ------------------------------------------------------------------------------------------- data


def _units(s: Settings, x: Any) -> Any:
    if x.dtype.kind == "i":
        return x
    factor = np.ones(x.shape[1], np.float32)
    factor[: 1 if s.ragged else None] = s.units
    x = x * factor + s.shift
    if s.remeasured:
        x = ((x * np.float32(37) + np.float32(5)) - np.float32(5)) / np.float32(37)
    return (np.round(x) if s.whole else x).astype(np.float32)


def prepare(s: Settings, seed: int) -> tuple[sets.Data, sets.Data]:
    """Give the data as they are, and as the run of these settings gets them."""
    clean = sets.make(s.data, s.n, seed, s.flip)
    if s.logit:
        clean.y, clean.ty = (y.astype(np.float32)[:, None] for y in (clean.y, clean.ty))
    given = dataclasses.replace(clean, x=_units(s, clean.x), tx=_units(s, clean.tx))
    clean = dataclasses.replace(given)
    rng = np.random.default_rng(seed)
    some = rng.choice(len(given.x), max(len(given.x) // 50, 1), replace=False)
    kind, _, how = s.plant.partition(":")
    if kind == "bad input":
        given.x = given.x.copy()
        given.x[some, rng.integers(0, given.x.shape[1])] = float(how)
    elif kind == "bad target":
        given.y = given.y.copy()
        given.y[some] = float(how)
    elif kind == "targets":  # yes and no in other numbers than 1 and 0; or odds for classes
        if s.logit:
            no, yes = map(float, how.split(","))
            given.y = np.where(given.y > 0.5, yes, no).astype(np.float32)
            given.ty = np.where(given.ty > 0.5, yes, no).astype(np.float32)
        else:
            given.y, given.ty = (_odds(y, given.outputs, how) for y in (given.y, given.ty))
    return clean, given


def _odds(y: Any, classes: int, how: str) -> Any:
    table = np.eye(classes, dtype=np.float32)[y]
    return {"cold": 1 - table, "signs": 2 * table - 1, "many": 255 * table}[how]


# ---------------------------------------------------------------------------------------- training


@dataclass
class Run:
    """What came of a training.

    Attributes:
        model, loss, given, clean, recorder: The trained network and what it was trained with.
        train, test: The metric on each set, in eval mode.
        reported: The last metric on the test set that the user's own loop computed.
        factory: Makes another network of a depth and an activation, or None.
    """

    model: Any
    loss: Any
    given: sets.Data
    clean: sets.Data
    recorder: Any
    train: float
    test: float
    reported: float
    factory: Any


def metric(data: sets.Data, output: Any, y: Any) -> float:
    """Give accuracy, or R2."""
    if data.regression:
        return float(1 - np.mean((output - y) ** 2) / np.mean((y - y.mean(0)) ** 2))
    guess = output.argmax(1) if output.shape[1] > 1 else output[:, 0] > 0
    truth = y if y.ndim == 1 else y[:, 0] > 0.5
    bad = ~np.isfinite(output).all(1)
    return float(((guess == truth) & ~bad).mean())


def answer(model: Any, x: Any) -> Any:
    """Give the outputs, in the mode in which the model is."""
    with mg.no_grad():
        return model(mg.tensor(x)).numpy()


def optimizer_of(s: Settings, model: Any, data: sets.Data) -> Any:
    """Make the optimizer; some plants give it other parameters."""
    parameters = list(model.parameters())
    if s.plant == "biases only":
        parameters = [p for p in parameters if p.ndim == 1]
    elif s.plant == "first only":
        parameters = parameters[:2]
    elif s.plant == "last bias":
        parameters = parameters[-1:]
    elif s.plant == "other model":
        parameters = list(network(s, data).parameters())
    kinds: dict[str, Any] = {
        "sgd": mg.optim.SGD, "adam": mg.optim.Adam, "rmsprop": mg.optim.RMSprop,
        "momentum": lambda p, lr: mg.optim.SGD(p, lr=lr, momentum=0.9),
    }  # fmt: skip
    rate = s.rate / s.scale if s.opt in ("sgd", "momentum") else s.rate
    return kinds[s.opt](parameters, lr=rate)


def train(s: Settings, seed: int, record: bool = True) -> Run:
    """Train a configuration from a seed; with `record`, a recorder watches."""
    clean, given = prepare(s, seed)
    mg.manual_seed(seed)
    model, loss_fn = network(s, given), loss_of(s, given)
    optimizer = optimizer_of(s, model, given)
    recorder = None
    tensors = tuple(map(mg.tensor, (given.x, given.y, given.tx, given.ty)))
    if record:
        from microgradnd.diagnosis import Recorder

        recorder = Recorder(model, optimizer, loss_fn, train=tensors[:2], test=tensors[2:])
    steps = s.steps or sets.SETS[s.data][3]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if seed == 1 and not s.plant:  # a third goes through `fit`
            mg.train.fit(
                model, loss_fn, optimizer, tensors[:2], batch_size=s.batch,
                epochs=max(round(steps * s.batch / len(given.x)), 1), progress=False,
                on_nonfinite="ignore", callbacks=[recorder] if recorder else [],
            )  # fmt: skip
            reported = float("nan")
        else:
            reported = _loop(s, model, loss_fn, optimizer, given, steps, seed)
        if recorder:
            recorder.remove()
        mode = model.training
        model.eval()
        results = [metric(clean, answer(model, x), y)
                   for x, y in ((clean.x, clean.y), (clean.tx, clean.ty))]  # fmt: skip
        model.train(mode)
    factory = None
    if s.style == "factory":
        def factory(depth: int, act: str) -> Any:
            return network(dataclasses.replace(s, depth=depth, act=act, init=""), given)
    return Run(model, loss_fn, given, clean, recorder, *results, reported, factory)


def _loop(
    s: Settings, model: Any, loss_fn: Any, optimizer: Any, data: sets.Data, steps: int, seed: int
) -> float:
    """Train as a user's own loop does, with what is wrong in it; give what it reports."""
    rng, reported = np.random.default_rng(seed), float("nan")
    x, y = mg.tensor(data.x), mg.tensor(data.y)
    order: list[int] = []
    for step in range(steps):
        if len(order) < s.batch:
            order += rng.permutation(len(data.x)).tolist()
        some, order = order[: s.batch], order[s.batch :]
        if s.plant != "no zero_grad":
            optimizer.zero_grad()
        loss_fn(model(x[some]), y[some]).backward()
        optimizer.step()
        if s.plant in ("train mode", "eval mode") and step % 40 == 39:
            model.train(s.plant == "train mode")
            reported = metric(data, answer(model, data.tx), data.ty)
            model.train()
    return reported
