"""Write `modules.json`: what PyTorch's modules give, and their gradients, in float32.

`"modules"` maps a title to an entry:

    {"build": [name, arguments, options], "state": {...}, "calls": [...]}

The arguments of a `Sequential` are builds. `state` is the state dict before the first call. A
call is

    {"train": bool, "inputs": [...], "cotangent": ..., "output": ..., "gradients": [...],
     "parameters": {...}, "buffers": {...}}

with the gradients of the inputs (null for class numbers, ids and targets), those of the parameters
(fresh in each call) and the buffers afterwards. `"init"` holds gains (nonlinearity, parameter,
gain), fans (shape, fan in, fan out), what a filler writes (function, shape, options, values) and
the scale with which one draws (function, shape, options, distribution, bound or deviation).

All arrays are nested lists; floats are the shortest that give the same float32. Maxout, CReLU, MFM
and Squareplus, which PyTorch lacks, are put together here from its functions.

Run `python tests/data/make_modules.py`; it needs PyTorch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Array = Any
Build = list[Any]
random = torch.Generator().manual_seed(3)
torch.set_num_threads(1)


# ------------------------------------------------------------------------------ modules


class Maxout(nn.Module):
    """The largest of `pieces` neighbouring outputs of a linear layer."""

    def __init__(self, n: int, m: int, pieces: int, bias: bool = True) -> None:
        """Make room for the weights; `fill` sets them."""
        super().__init__()
        self.pieces = pieces
        self.weight = nn.Parameter(torch.zeros(m * pieces, n))
        self.bias = nn.Parameter(torch.zeros(m * pieces)) if bias else None

    def forward(self, x: Array) -> Array:
        """Give the largest of each group; a tie would leave the gradient undefined."""
        z = nn.functional.linear(x, self.weight, self.bias)
        best = z.reshape(*z.shape[:-1], -1, self.pieces).sort(-1).values
        assert self.pieces == 1 or (best[..., -1] - best[..., -2]).min() > 1e-3
        return best[..., -1]


class MaxoutConv2d(nn.Conv2d):
    """The largest of `pieces` neighbouring channels of a convolution."""

    def __init__(self, n: int, m: int, kernel: Any, pieces: int, **options: Any) -> None:
        """Make a convolution with more channels."""
        super().__init__(n, m * pieces, kernel, **options)
        self.pieces = pieces

    def forward(self, x: Array) -> Array:
        """Give the largest of each group; a tie would leave the gradient undefined."""
        best = super().forward(x).unflatten(-3, (-1, self.pieces)).sort(-3).values
        assert (best.select(-3, -1) - best.select(-3, -2)).min() > 1e-3
        return best.select(-3, -1)


class Formula(nn.Module):
    """A module of one function."""

    def __init__(self, f: Any) -> None:
        """Keep the function."""
        super().__init__()
        self.f = f

    def forward(self, *xs: Array) -> Array:
        """Call it."""
        return self.f(*xs)


def larger_half(x: Array, dim: int) -> Array:
    """Give the larger of two halves; a tie would leave the gradient undefined."""
    a, b = x.chunk(2, dim)
    assert (a != b).all()
    return torch.maximum(a, b)


def sparsemax(x: Array, dim: int) -> Array:
    """Martins and Astudillo's algorithm 1."""
    z = x.sort(dim, descending=True).values.movedim(dim, -1)
    support = 1 + torch.arange(1, z.shape[-1] + 1) * z > z.cumsum(-1)
    tau = (torch.where(support, z, 0.0).sum(-1, keepdim=True) - 1) / support.sum(-1, keepdim=True)
    return torch.relu(x - tau.movedim(-1, dim))


def hinge(reduction: str = "mean", margin: float = 1.0) -> Formula:
    """Make the loss of labels -1 and 1."""
    costs = Formula(lambda x, target: torch.relu(margin - target * x))
    how = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction]
    return Formula(lambda x, target: how(costs(x, target)))


OURS = {
    "HingeLoss": hinge,
    "Sparsemax": lambda dim=-1: Formula(lambda x: sparsemax(x, dim)),
    "Maxout": Maxout,
    "MaxoutConv2d": MaxoutConv2d,
    "Squareplus": lambda b=4.0: Formula(lambda x: (x + torch.sqrt(x * x + b)) / 2),
    "CReLU": lambda dim=-1: Formula(lambda x: torch.cat([x.relu(), (-x).relu()], dim)),
    "MFM": lambda dim=-1: Formula(lambda x: larger_half(x, dim)),
    "Softmax": lambda dim=-1: nn.Softmax(dim),
    "LogSoftmax": lambda dim=-1: nn.LogSoftmax(dim),
    "Softmin": lambda dim=-1: nn.Softmin(dim),
}


def made(build: Build) -> nn.Module:
    """Construct the module of a build."""
    name, arguments, options = build
    if name == "Sequential":
        return nn.Sequential(*map(made, arguments))
    options = {k: torch.tensor(v) if "weight" in k else v for k, v in options.items()}
    return OURS.get(name, getattr(nn, name, None))(*arguments, **options)


# ------------------------------------------------------------------------------ numbers


def odd(*shape: int, steps: int = 16) -> Array:
    """Give random odd multiples of 1/steps: few bits, and by default at no kink of a function."""
    return (2 * torch.round(0.75 * steps * torch.randn(shape, generator=random)) + 1) / steps


def distinct(*shape: int) -> Array:
    """Give numbers in random order, no two of them equal and none 0: an even count."""
    n = math.prod(shape)
    return (2 * torch.randperm(n, generator=random) - n + 1).reshape(shape) / 8


def shares(*shape: int) -> Array:
    """Give random numbers in (0, 1)."""
    return torch.round(62 * torch.rand(shape, generator=random) + 1) / 64


def classes(n: int, *shape: int) -> Array:
    """Give random class numbers."""
    return torch.randint(n, shape, generator=random)


def plain(x: Array) -> Any:
    """Give nested lists with the shortest floats that are the same in float32."""
    if x is None:
        return None
    x = x.detach().numpy()
    if x.dtype.kind in "ib":
        return x.tolist()
    assert x.dtype == np.float32
    # Of NumPy's own scalars: a Python float would be written with the digits of float64.
    return np.reshape([float(str(v)) for v in x.ravel()], x.shape).tolist()


def fill(module: nn.Module) -> None:
    """Set parameters and running statistics to random numbers of few bits."""
    with torch.no_grad():
        for name, p in [*module.named_parameters(), *module.named_buffers()]:
            if p.is_floating_point():
                p.copy_(shares(*p.shape) if name.endswith("running_var") else odd(*p.shape) / 2)
    for m in module.modules():
        if isinstance(m, nn.Embedding) and m.padding_idx is not None:
            with torch.no_grad():
                m.weight[m.padding_idx] = 0


def entry(build: Build, *batches: Any, train: Any = True, first: int | None = None) -> Any:
    """Compute one entry from tuples of inputs; `train` is one flag, or one for each batch.

    Only the first `first` inputs get gradients (all, if it is not given).
    """
    module = made(build)
    if not isinstance(module, nn.modules.loss._Loss):  # whose buffers are options
        fill(module)
    state = {k: plain(v) for k, v in module.state_dict().items()}
    flags = train if isinstance(train, tuple) else (train,) * len(batches)
    calls = []
    for inputs, flag in zip(batches, flags, strict=True):
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        given = [
            x.clone().requires_grad_(x.is_floating_point() and (first is None or i < first))
            for i, x in enumerate(inputs)
        ]
        module.train(flag)
        module.zero_grad()
        y = module(*given)
        assert y.dtype == torch.float32
        cotangent = odd(*y.shape, steps=2)
        if y.requires_grad:
            y.backward(cotangent)
        call = {
            "train": flag,
            "inputs": [plain(x) for x in inputs],
            "cotangent": plain(cotangent),
            "output": plain(y),
            "gradients": [plain(x.grad) for x in given],
            "parameters": {k: plain(p.grad) for k, p in module.named_parameters()},
            "buffers": {k: plain(b) for k, b in module.named_buffers()},
        }
        calls.append(call)
    return {"build": build, "state": state, "calls": calls}


# ------------------------------------------------------------------------------ tables


def layers() -> dict[str, Any]:
    """Compute the layers with parameters or options."""

    def norm(batches: Any, train: Any, *a: Any, **kw: Any) -> Any:
        return entry(["BatchNorm1d", list(a), kw], *batches, train=train)

    flat, long = [odd(4, 3) for _ in range(3)], [odd(2, 3, 2) for _ in range(3)]
    learn = (True, True, False)
    both = {"affine": False, "track_running_stats": False}
    embed = classes(5, 2, 4)
    embed[0, 0] = embed[1, 1] = 0
    embed[0, 1] = embed[1, 2] = 4
    net = [
        ["Linear", [3, 4], {"bias": False}],
        ["BatchNorm1d", [4], {}],
        ["ReLU", [], {}],
        ["Dropout", [0.0], {}],
        ["Sequential", [["Linear", [4, 3], {}], ["PReLU", [3], {}], ["LayerNorm", [3], {}]], {}],
        ["GELU", [], {}],
        ["Maxout", [3, 2, 2], {}],
        ["LogSoftmax", [], {}],
    ]
    text = [
        ["Embedding", [5, 3], {"padding_idx": 0}],
        ["Flatten", [], {}],
        ["Linear", [12, 2], {}],
        ["Tanh", [], {}],
    ]
    return {
        "linear, 1-d": entry(["Linear", [3, 4], {}], odd(3)),
        "linear, 2-d": entry(["Linear", [3, 4], {}], odd(5, 3), odd(1, 3)),
        "linear, 3-d": entry(["Linear", [3, 4], {}], odd(2, 2, 3)),
        "linear, no bias, 1-d": entry(["Linear", [3, 4, False], {}], odd(3)),
        "linear, no bias, 2-d": entry(["Linear", [3, 4], {"bias": False}], odd(5, 3)),
        "linear, no bias, 3-d": entry(["Linear", [3, 4], {"bias": False}], odd(2, 2, 3)),
        "maxout, 1-d": entry(["Maxout", [3, 2, 2], {}], odd(3)),
        "maxout, 2-d": entry(["Maxout", [3, 2, 3], {}], odd(4, 3)),
        "maxout, 3-d": entry(["Maxout", [3, 2], {"pieces": 4}], odd(2, 2, 3)),
        "maxout, no bias": entry(["Maxout", [3, 2, 5], {"bias": False}], odd(4, 3)),
        "maxout, one piece": entry(["Maxout", [3, 2, 1], {}], odd(4, 3)),
        "prelu, shared, 1-d": entry(["PReLU", [], {}], odd(5)),
        "prelu, shared, 2-d": entry(["PReLU", [], {"init": 0.5}], odd(3, 4)),
        "prelu, shared, 3-d": entry(["PReLU", [1], {}], odd(2, 3, 2)),
        "prelu, per channel, 2-d": entry(["PReLU", [3], {}], odd(4, 3)),
        "prelu, per channel, 3-d": entry(["PReLU", [], {"num_parameters": 3}], odd(2, 3, 4)),
        "batch norm, 2-d": norm(flat, learn, 3),
        "batch norm, 3-d": norm(long, learn, 3),
        "batch norm, options": norm(flat, learn, 3, 0.125, 0.25),
        "batch norm, momentum None": norm(flat, learn, 3, momentum=None),
        "batch norm, momentum None, 3-d": norm(long, learn, 3, momentum=None),
        "batch norm, eval": norm(flat[:1], False, 3),
        "batch norm, eval, 3-d": norm(long[:1], False, 3),
        "batch norm, not affine": norm(flat, learn, 3, affine=False),
        "batch norm, not tracked": norm(flat, learn, 3, track_running_stats=False),
        "batch norm, neither": norm(long, learn, 3, **both),
        "layer norm": entry(["LayerNorm", [4], {}], odd(3, 4), odd(2, 3, 4)),
        "layer norm, 1-d": entry(["LayerNorm", [4], {}], odd(4)),
        "layer norm, list": entry(["LayerNorm", [[4], 0.125], {}], odd(3, 4)),
        "layer norm, two axes": entry(["LayerNorm", [[2, 3]], {}], odd(2, 2, 3), odd(2, 3)),
        "layer norm, no bias": entry(["LayerNorm", [4], {"bias": False}], odd(3, 4)),
        "layer norm, not affine": entry(["LayerNorm", [[2, 3], 1e-3, False], {}], odd(2, 2, 3)),
        "embedding": entry(["Embedding", [5, 3], {}], torch.tensor([1, 4, 1, 1]), embed),
        "embedding, one id": entry(["Embedding", [5, 3], {}], torch.tensor(2)),
        "embedding, padding": entry(["Embedding", [5, 3, 0], {}], embed),
        "embedding, padding from the end": entry(["Embedding", [5, 3], {"padding_idx": -1}], embed),
        "flatten": entry(["Flatten", [], {}], odd(2, 3, 2), odd(2, 3)),
        "flatten, start": entry(["Flatten", [0], {}], odd(2, 3)),
        "flatten, both": entry(["Flatten", [], {"start_dim": 1, "end_dim": 2}], odd(2, 1, 3, 2)),
        "flatten, from the end": entry(["Flatten", [-3, -2], {}], odd(2, 2, 3, 1)),
        "dropout, eval": entry(["Dropout", [], {}], odd(3, 4), train=False),
        "dropout of nothing": entry(["Dropout", [0.0], {}], odd(3, 4)),
        "dropout of all": entry(["Dropout", [], {"p": 1.0}], odd(3, 4)),
        "identity": entry(["Identity", [], {}], odd(3, 2)),
        "sequential": entry(["Sequential", net, {}], odd(4, 3), odd(3, 3), odd(2, 3), train=learn),
        "sequential, text": entry(["Sequential", text, {}], embed),
        "sequential, nothing": entry(["Sequential", [], {}], odd(2, 2)),
    }


def images() -> dict[str, Any]:
    """Compute convolutions, pooling, and the batch normalization of images."""
    rows = {}

    def add(name: str, a: list[Any], kw: dict[str, Any], *inputs: Array, train: Any = True) -> None:
        key = f"{title(name, a, kw)} of {', '.join(str(tuple(x.shape)) for x in inputs)}"
        rows[key] = entry([name, a, kw], *inputs, train=train)

    add("Conv1d", [2, 3, 3], {}, odd(2, 2, 5), odd(2, 5))
    add("Conv1d", [2, 4, 2], {"stride": 2, "padding": 1, "groups": 2, "bias": False}, odd(2, 2, 5))
    add("Conv1d", [2, 2, 4], {"padding": "same", "dilation": 2}, odd(2, 2, 6))
    add("Conv2d", [2, 3, 3], {"padding": 1}, odd(2, 2, 4, 3), odd(1, 2, 3, 3))
    add("Conv2d", [2, 2, 3], {}, odd(2, 4, 5))
    add("Conv2d", [1, 2, [2, 3], 2, [1, 2], [2, 1]], {}, odd(2, 1, 5, 4))
    add("Conv2d", [4, 4, 2], {"groups": 4, "padding": "same"}, odd(1, 4, 3, 3))
    add("Conv2d", [4, 6, [1, 2]], {"groups": 2, "padding": "valid"}, odd(1, 4, 2, 3))
    add("Conv2d", [3, 2, 1], {"bias": False}, odd(2, 3, 2, 2))
    add("MaxoutConv2d", [2, 2, 2, 3], {"padding": 1}, odd(2, 2, 3, 3), odd(2, 3, 3))
    add("BatchNorm2d", [3], {}, odd(2, 3, 2, 2), odd(2, 3, 2, 2), train=(True, False))
    add("MaxPool1d", [2], {}, distinct(2, 1, 4), distinct(1, 6))
    add("MaxPool1d", [3, 2], {"padding": 1, "ceil_mode": True}, distinct(1, 2, 7))
    add("MaxPool2d", [2], {}, distinct(1, 2, 4, 5))
    add("MaxPool2d", [3, 1, 1], {}, distinct(1, 1, 4, 4), distinct(1, 2, 3))
    add("MaxPool2d", [[2, 3], [2, 1]], {"ceil_mode": True}, distinct(1, 2, 3, 4))
    add("MaxPool2d", [2], {"dilation": 2, "stride": 1, "padding": 1}, distinct(2, 1, 4, 4))
    add("AvgPool1d", [2], {}, odd(2, 1, 5))
    add("AvgPool1d", [3, 2, 1], {"ceil_mode": True, "count_include_pad": False}, odd(1, 2, 6))
    add("AvgPool2d", [2], {}, odd(1, 2, 4, 5), odd(2, 2, 2))
    add("AvgPool2d", [3, 2, 1], {}, odd(1, 2, 4, 4))
    for included in (True, False):
        options = {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": included}
        add("AvgPool2d", [[3, 2]], options, odd(1, 1, 4, 6))
    add("AdaptiveAvgPool2d", [1], {}, odd(2, 2, 3, 2), odd(2, 3, 2))
    add("AdaptiveAvgPool2d", [[2, 1]], {}, odd(1, 2, 4, 3))
    return rows


ACTIVATIONS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("ReLU", [], {}), ("ReLU6", [], {}), ("LeakyReLU", [], {}), ("LeakyReLU", [0.25], {}),
    ("LeakyReLU", [], {"negative_slope": 0.3}), ("RReLU", [], {}), ("RReLU", [0.1, 0.4], {}),
    ("RReLU", [], {"lower": 0.0, "upper": 0.5}), ("ELU", [], {}), ("ELU", [0.5], {}),
    ("ELU", [], {"alpha": 1.5}), ("CELU", [], {}), ("CELU", [2.0], {}),
    ("CELU", [], {"alpha": 0.5}), ("SELU", [], {}), ("Threshold", [0.25, 20.0], {}),
    ("Threshold", [], {"threshold": -0.5, "value": 1.0}), ("Sigmoid", [], {}),
    ("Hardsigmoid", [], {}), ("LogSigmoid", [], {}), ("Tanh", [], {}), ("Hardtanh", [], {}),
    ("Hardtanh", [-0.5, 2.0], {}), ("Hardtanh", [], {"min_val": -2.0, "max_val": 0.25}),
    ("Tanhshrink", [], {}), ("Softshrink", [], {}), ("Softshrink", [1.0], {}),
    ("Softshrink", [], {"lambd": 0.25}), ("Hardshrink", [], {}), ("Hardshrink", [1.0], {}),
    ("Hardshrink", [], {"lambd": 0.25}), ("Softsign", [], {}), ("Softplus", [], {}),
    ("Softplus", [2.0], {}), ("Softplus", [], {"beta": 0.5}), ("Squareplus", [], {}),
    ("Squareplus", [1.0], {}), ("Squareplus", [], {"b": 0.25}), ("SiLU", [], {}),
    ("Hardswish", [], {}), ("Mish", [], {}), ("GELU", [], {}), ("GELU", ["tanh"], {}),
    ("GELU", [], {"approximate": "tanh"}),
]  # fmt: skip
AXES = ("Softmax", "LogSoftmax", "Softmin", "GLU", "CReLU", "MFM")


def title(name: str, arguments: list[Any], options: dict[str, Any]) -> str:
    """Write a call as one would in Python."""
    return f"{name}({', '.join([*map(repr, arguments), *(f'{k}={options[k]}' for k in options)])})"


def activations() -> dict[str, Any]:
    """Compute the activations: at random numbers, at kinks, far out; then those along axes."""
    kinks = torch.tensor([-6.0, -3.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0])
    far = torch.tensor([-100.0, -30.0, -10.0, -0.001, 0.001, 10.0, 30.0, 100.0])
    rows = {}
    for name, a, kw in ACTIVATIONS:
        batches = (odd(2, 4), kinks) if a or kw else (odd(2, 4), kinks, far)
        rows[title(name, a, kw)] = entry([name, a, kw], *batches, train=False)
    for name in AXES:
        for a, kw, shape in (
            ([], {}, (3, 4)), ([], {"dim": 1}, (2, 4, 2)), ([0], {}, (4, 2)), ([-2], {}, (2, 2, 1)),
        ):  # fmt: skip
            rows[title(name, a, kw)] = entry([name, a, kw], distinct(*shape))
    return rows


def losses() -> dict[str, Any]:
    """Compute the losses with each reduction and option."""
    rows = {}

    def add(name: str, options: dict[str, Any], *inputs: Array) -> None:
        for reduction in ("mean", "sum", "none", None):  # None: what is taken if nothing is said
            if reduction is None and options:
                continue
            given = {**options, "reduction": reduction} if reduction else options
            key = title(name, [], given)
            key += f" of {' and '.join(str(tuple(x.shape)) for x in inputs)}"
            key += "" if inputs[-1].is_floating_point() else " class numbers"
            assert key not in rows
            rows[key] = entry([name, [], given], inputs, first=1)

    for name in ("MSELoss", "L1Loss", "HuberLoss"):
        add(name, {}, odd(2, 3), odd(2, 3) + 1 / 64)
    add("HuberLoss", {"delta": 0.5}, odd(2, 3), odd(2, 3))
    add("HuberLoss", {"delta": 2.0}, odd(5), odd(5))
    add("BCEWithLogitsLoss", {}, odd(2, 3), shares(2, 3))
    add("BCEWithLogitsLoss", {"pos_weight": plain(4 * shares(3))}, odd(2, 3), shares(2, 3))
    for shape in ((3, 4), (2, 3, 2), (4,)):
        rest = shape[:1] + shape[2:] if len(shape) > 1 else ()
        n = shape[len(shape) > 1]
        ids = classes(n, *rest)
        ignored = int(ids.view(-1)[-1])
        if rest:
            ids.view(-1)[0] = (ignored + 1) % n  # not all are ignored
        some = ids.clone()
        some.view(-1)[0] = -100
        weight = plain(4 * shares(n))
        for name in ("CrossEntropyLoss", "NLLLoss"):
            add(name, {}, odd(*shape), ids)
            add(name, {"weight": weight}, odd(*shape), some if rest else ids)
            if rest:
                add(name, {"ignore_index": ignored}, odd(*shape), ids)
                add(name, {"ignore_index": ignored, "weight": weight}, odd(*shape), ids)
        soft = {"label_smoothing": 0.125}
        add("CrossEntropyLoss", soft, odd(*shape), ids)
        add("CrossEntropyLoss", {**soft, "weight": weight}, odd(*shape), some if rest else ids)
        add("CrossEntropyLoss", {}, odd(*shape), shares(*shape))
        add("CrossEntropyLoss", {**soft, "weight": weight}, odd(*shape), shares(*shape))
    return rows


def further() -> dict[str, Any]:
    """Compute sparse shares, losses on probabilities, divergences, angles."""
    rows = {
        title("Sparsemax", a, kw): entry(["Sparsemax", a, kw], odd(*shape) + torch.rand(shape) / 8)
        for a, kw, shape in (([], {}, (3, 4)), ([], {"dim": 1}, (2, 4, 2)), ([0], {}, (4, 2)))
    }

    def add(name: str, options: dict[str, Any], *inputs: Array) -> None:
        rows[title(name, [], options)] = entry([name, [], options], inputs, first=1)

    for options in ({}, {"reduction": "sum"}, {"reduction": "none"}):
        add("BCELoss", options, shares(2, 3), shares(2, 3))
        add("SmoothL1Loss", options, odd(2, 3), odd(2, 3) + 1 / 64)
        add("KLDivLoss", options, -shares(2, 3), shares(2, 3))
        add("HingeLoss", options, odd(2, 3), torch.sign(odd(2, 3)))
    add("SmoothL1Loss", {"beta": 0.25}, odd(2, 3), odd(2, 3) + 1 / 64)
    add("KLDivLoss", {"reduction": "batchmean"}, -shares(2, 3), shares(2, 3))
    add("KLDivLoss", {"reduction": "batchmean", "log_target": True}, -shares(3, 2), -shares(3, 2))
    add("HingeLoss", {"margin": 0.5}, odd(5), torch.sign(odd(5)))
    add("CosineSimilarity", {}, odd(2, 3), odd(2, 3))
    add("CosineSimilarity", {"dim": -1, "eps": 1e-6}, odd(2, 2, 3), odd(2, 2, 3))
    return rows


class Spy(torch.Tensor):
    """A tensor that writes down how it was to be drawn."""

    def uniform_(self, low: float, high: float, generator: Any = None) -> Any:
        """Keep the bound."""
        assert low == -high
        self.drawn = ("uniform", high)
        return self

    def normal_(self, mean: float, std: float, generator: Any = None) -> Any:
        """Keep the deviation."""
        assert mean == 0
        self.drawn = ("normal", std)
        return self


def init() -> dict[str, Any]:
    """Compute gains, fans, what fillers write and the scales of what is drawn."""
    gains = [
        (name, param)
        for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")
        for param in ((None,) if name != "leaky_relu" else (None, 0.0, 0.2, 1))
    ]
    shapes = ((3, 5), (40, 60), (6, 4, 3), (30, 20, 3, 2))
    fans = [(s, *nn.init._calculate_fan_in_and_fan_out(torch.empty(s))) for s in shapes]
    fillers = [
        ("zeros_", (2, 3), {}), ("ones_", (3,), {}), ("constant_", (2,), {"val": 0.25}),
        ("eye_", (3, 2), {}), ("eye_", (2, 3), {}), ("dirac_", (2, 3, 3), {}),
        ("dirac_", (3, 2, 3, 3), {}),
    ]  # fmt: skip
    scales: list[Any] = []
    for shape in shapes[1::2]:
        for kind in ("uniform_", "normal_"):
            draws: list[Any] = [("xavier_" + kind, {}), ("xavier_" + kind, {"gain": 2.0})]
            for mode in ("fan_in", "fan_out"):
                for nonlinearity in ("leaky_relu", "relu", "tanh", "linear"):
                    options = {"mode": mode, "nonlinearity": nonlinearity}
                    draws.append(("kaiming_" + kind, options))
                draws.append(("kaiming_" + kind, {"mode": mode, "a": math.sqrt(5)}))
            draws += [("kaiming_" + kind, {})]
            for name, options in draws:
                spy = torch.empty(shape).as_subclass(Spy)
                getattr(nn.init, name)(spy, **options)
                scales.append([name, shape, options, *spy.drawn])
    return {
        "gains": [[n, p, nn.init.calculate_gain(n, p)] for n, p in gains],
        "fans": fans,
        "fillers": [
            [n, s, kw, plain(getattr(nn.init, n)(torch.full(s, 7.0), **kw))] for n, s, kw in fillers
        ],
        "scales": scales,
    }


def main() -> None:
    """Write the file next to this one."""
    modules = {**layers(), **activations(), **losses(), **images(), **further()}
    compact: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False}
    text = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, **compact)}" for k, v in modules.items())
    numbers = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, **compact)}" for k, v in init().items())
    text = f'{{"modules":{{\n{text}\n}},\n"init":{{\n{numbers}\n}}}}\n'
    Path(__file__).with_name("modules.json").write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
