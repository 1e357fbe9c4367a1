"""The training steps that are timed: forward, softmax cross-entropy, backward, update; float32.

The learning rate is so small that the parameters stay as they are: a step that is repeated on one
batch would else reach denormal numbers, which are slow.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

RATE = 1e-7
SIZES = {
    "2-16-16-2, batch 100": ((2, 16, 16, 2), 100),
    "64-128-128-10, batch 128": ((64, 128, 128, 10), 128),
    "784-1200-10, batch 100": ((784, 1200, 10), 100),
    "784-2048-2048-10, batch 512": ((784, 2048, 2048, 10), 512),
    "1024-4096-4096-10, batch 1024": ((1024, 4096, 4096, 10), 1024),
}
MAXOUT = {"784-240x5-240x5-10, batch 100": ((784, 240, 240, 10), 100, 5)}
FEEDS = ("resident", "uploaded", "page-locked")


def work(layers: tuple[int, ...], batch: int) -> int:
    """Give the multiply-adds of the forward pass; the whole step has some three times as many."""
    return batch * sum(n * m for n, m in pairwise(layers))


def data(layers: tuple[int, ...], batch: int, pieces: int = 1) -> tuple[Any, Any, list[Any]]:
    """Give inputs, class numbers and parameters `[w1, b1, w2, b2, ...]` as NumPy arrays.

    With Maxout a hidden layer computes `pieces` times as many numbers as it passes on.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, layers[0]), dtype=np.float32)
    y = rng.integers(0, layers[-1], batch)
    parameters = []
    for i, (n, m) in enumerate(pairwise(layers), 2):
        m = m if i == len(layers) else m * pieces
        parameters.append(rng.standard_normal((n, m), dtype=np.float32) * (2 / n) ** 0.5)
        parameters.append(np.zeros(m, np.float32))
    return x, y, [p.astype(np.float32) for p in parameters]


def microgradnd_step(
    layers: tuple[int, ...], batch: int, backend: Any = "numpy", pieces: int = 1,
    feed: str = "resident",
) -> Callable[[], Any]:  # fmt: skip
    """Give the step written with microgradnd; it returns the loss.

    Args:
        layers: Inputs, hidden units, classes.
        batch: Examples in a step.
        backend: A backend or its name.
        pieces: Of a Maxout unit; 1 stands for ReLU.
        feed: Where the batch comes from: it lies on the device (`"resident"`), or is uploaded at
            each step, from ordinary or from page-locked memory.
    """
    import microgradnd as mg

    with mg.backend.use(backend) as home:
        x, y, values = data(layers, batch, pieces)
        parameters = [mg.tensor(p, requires_grad=True) for p in values]
        if feed == "page-locked":
            x, y = home.stage(x), home.stage(y)
        kept = mg.asarray(home.asarray(x)), mg.asarray(home.asarray(y))
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    (*hidden, (w, b)) = pairs
    upload = feed != "resident"

    def step() -> Any:
        h, target = [mg.asarray(home.asarray(a)) for a in (x, y)] if upload else kept
        for weight, bias in hidden:
            h = h @ weight + bias
            h = mg.relu(h) if pieces == 1 else mg.maxout(h, pieces)
        loss = mg.cross_entropy(h @ w + b, target)
        loss.backward()
        with mg.no_grad():
            for p in parameters:
                p -= RATE * p.grad
                p.grad = None
        return loss

    return step


def numpy_step(layers: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """Give the step as a straight line of NumPy calls into kept buffers: the floor."""
    x, y, parameters = data(layers, batch)
    weights, biases = parameters[::2], parameters[1::2]
    rows, ones = np.arange(batch), np.ones(batch, np.float32)
    classes = np.ones(layers[-1], np.float32)
    outs = [np.empty((batch, n), np.float32) for n in layers[1:]]
    ups = [np.empty((batch, n), np.float32) for n in layers[1:-1]]
    masks = [np.empty((batch, n), bool) for n in layers[1:-1]]
    gradients = [np.empty_like(p) for p in parameters]
    zero, rate, share = (np.float32(v) for v in (0.0, RATE, 1 / batch))

    def step() -> Any:
        h = x
        for w, b, out in zip(weights, biases, outs, strict=True):
            np.dot(h, w, out)
            np.add(out, b, out)
            h = out if out is outs[-1] else np.maximum(out, zero, out=out)
        np.subtract(h, np.maximum.reduce(h, axis=1, keepdims=True), h)
        right = h[rows, y]
        np.exp(h, h)
        total = np.dot(h, classes)
        loss = (np.log(total) - right).mean()
        h *= (share / total)[:, None]
        h[rows, y] -= share
        g = h
        for i in range(len(weights) - 1, -1, -1):
            below = outs[i - 1] if i else x
            np.dot(below.T, g, gradients[2 * i])
            np.dot(ones, g, gradients[2 * i + 1])
            if i:
                np.dot(g, weights[i].T, ups[i - 1])
                np.greater(below, zero, masks[i - 1])
                g = np.multiply(ups[i - 1], masks[i - 1], ups[i - 1])
        for p, gradient in zip(parameters, gradients, strict=True):
            np.multiply(gradient, rate, gradient)
            np.subtract(p, gradient, p)
        return loss

    return step


def torch_step(
    layers: tuple[int, ...], batch: int, bare: bool = False, pieces: int = 1, device: str = "cpu",
    threads: int = 2,
) -> Callable[[], Any]:  # fmt: skip
    """Give the step written with PyTorch: `torch.optim.SGD`, or a bare update under `no_grad`."""
    import torch
    from torch.nn.functional import cross_entropy, relu

    torch.set_num_threads(threads)
    x, y, values = data(layers, batch, pieces)
    x, y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    parameters = [torch.from_numpy(p).to(device).requires_grad_() for p in values]
    (*hidden, (w, b)) = list(zip(parameters[::2], parameters[1::2], strict=True))
    optimizer = torch.optim.SGD(parameters, lr=RATE)

    def step() -> Any:
        h = x
        for weight, bias in hidden:
            h = torch.addmm(bias, h, weight)
            h = relu(h) if pieces == 1 else h.view(batch, -1, pieces).max(-1).values
        loss = cross_entropy(torch.addmm(b, h, w), y)
        if bare:
            loss.backward()
            with torch.no_grad():
                for p in parameters:
                    p -= RATE * p.grad
                    p.grad = None
        else:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def microgradnd_modules(
    layers: tuple[int, ...], batch: int, optimizer: str, update_only: bool = False
) -> Callable[[], Any]:
    """Give the step written with modules and an optimizer of microgradnd, or its update alone."""
    import microgradnd as mg

    return _with_modules(mg, mg.tensor, mg.cross_entropy, layers, batch, optimizer, update_only)


def torch_modules(
    layers: tuple[int, ...], batch: int, optimizer: str, update_only: bool = False,
    fused: bool | None = None,
) -> Callable[[], Any]:  # fmt: skip
    """Give the same with PyTorch's modules."""
    import torch

    torch.set_num_threads(2)
    loss = torch.nn.functional.cross_entropy
    options = {} if fused is None else {"fused": fused}
    return _with_modules(
        torch, torch.from_numpy, loss, layers, batch, optimizer, update_only, **options
    )


def _with_modules(
    library: Any, tensor: Any, cross_entropy: Any, layers: tuple[int, ...], batch: int,
    optimizer: str, update_only: bool, **options: Any,
) -> Callable[[], Any]:  # fmt: skip
    """One text for both libraries: that is what the same names are for."""
    nn = library.nn
    x, y, values = data(layers, batch)
    x, y = tensor(x), tensor(y)
    parts: list[Any] = []
    for n, m in pairwise(layers):
        parts += [nn.Linear(n, m), nn.ReLU()]
    net = nn.Sequential(*parts[:-1])
    transposed = (np.ascontiguousarray(value.T) for value in values)
    net.load_state_dict(
        {name: tensor(v) for (name, _), v in zip(net.named_parameters(), transposed, strict=True)}
    )
    update = getattr(library.optim, optimizer)(net.parameters(), lr=RATE, **options)

    def step() -> Any:
        update.zero_grad()
        loss = cross_entropy(net(x), y)
        loss.backward()
        update.step()
        return loss

    loss = step()

    def only_update() -> Any:
        update.step()
        return loss

    return only_update if update_only else step
