"""Data sets of a known best result: each says what the rule that made it gets on its examples.

That is what makes a criterion of "trained well" that is independent of every diagnosis: a result
near the best possible one. Inputs have mean 0 and variance 1 by feature, if nothing else is said.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import microgradnd as mg

TEST = 600  # examples


@dataclass
class Data:
    """Training and test set.

    Attributes:
        x, y, tx, ty: float32 (or ids); targets are ids, or float32 of shape (n, outputs).
        best, test_best: The metric of the rule that made the data, on each set.
        outputs: Classes, or numbers in a target.
        regression: Whether the metric is R2 rather than accuracy.
        words: Ids that inputs are made of, if they are ids.
    """

    x: Any
    y: Any
    tx: Any
    ty: Any
    best: float
    test_best: float
    outputs: int
    regression: bool = False
    words: int = 0


def _classes(x: Any, y: Any, truth: Any, n: int) -> Data:
    """Cut into training and test set; `truth` is what the rule says, `y` what is told."""
    x = x if x.dtype.kind == "i" else _standard(x).astype(np.float32)
    right = y == truth
    return Data(
        x[:n], y[:n], x[n:], y[n:], right[:n].mean(), right[n:].mean(), int(truth.max()) + 1,
        words=int(x.max()) + 1 if x.dtype.kind == "i" else 0,
    )  # fmt: skip


def _numbers(rng: Any, x: Any, f: Any, n: int, noise: float) -> Data:
    """Make targets of mean 0 and variance 1 from what the rule says, f, and noise."""
    f = _standard(f.reshape(len(x), -1))
    y = f + noise * rng.normal(size=f.shape)
    rest = [1 - np.mean((y[s] - f[s]) ** 2) / np.var(y[s]) for s in (slice(n), slice(n, None))]
    x, y = _standard(x).astype(np.float32), y.astype(np.float32)
    return Data(x[:n], y[:n], x[n:], y[n:], *rest, y.shape[1], regression=True)


def _standard(x: Any) -> Any:
    return (x - x.mean(0)) / x.std(0)


def mixture(
    rng: Any, n: int, classes: int = 4, features: int = 2, spread: float = 0.5,
    first: float = 0.0,
) -> Data:  # fmt: skip
    """Gaussians around random centres; `first` is the first one's share, if it is larger."""
    centres = rng.normal(size=(40, classes, features))
    gaps = np.linalg.norm(centres[:, :, None] - centres[:, None], axis=-1) + 1e9 * np.eye(classes)
    centres = centres[gaps.min((1, 2)).argmax()]  # the draw whose centres lie farthest apart
    spread = spread * gaps.min((1, 2)).max() / 2
    shares = np.full(classes, (1 - first) / (classes - 1) if first else 1 / classes)
    shares[0] = first or shares[0]
    y = rng.choice(classes, size=n + TEST, p=shares)
    x = centres[y] + spread * rng.normal(size=(n + TEST, features))
    distance = ((x[:, None] - centres) ** 2).sum(-1) / (2 * spread**2)
    return _classes(x, y, (np.log(shares) - distance).argmax(1), n)


def circles(rng: Any, n: int, rings: int = 2) -> Data:
    """Rings around each other."""
    y = rng.integers(0, rings, n + TEST)
    angle = rng.uniform(0, 2 * np.pi, n + TEST)
    radius = y + 0.6 + 0.12 * rng.normal(size=n + TEST)
    return _classes(_polar(radius, angle), y, y, n)


def spirals(rng: Any, n: int, arms: int = 2) -> Data:
    """Arms that wind three quarters around the middle."""
    y, t = rng.integers(0, arms, n + TEST), rng.uniform(0.1, 1, n + TEST)
    angle = 1.5 * np.pi * t + 2 * np.pi * y / arms + 0.1 * rng.normal(size=n + TEST)
    return _classes(_polar(t, angle), y, y, n)


def moons(rng: Any, n: int, noise: float = 0.1) -> Data:
    """Two half circles that reach into each other."""
    y, angle = rng.integers(0, 2, n + TEST), rng.uniform(0, np.pi, n + TEST)
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(y, -1, 1)[:, None]
    x = x + np.where(y[:, None], [1, 0.4], 0) + noise * rng.normal(size=x.shape)
    return _classes(x, y, y, n)


def xor(rng: Any, n: int, features: int = 2) -> Data:
    """Whether the first two numbers have the same sign; there is a gap around 0."""
    x = rng.uniform(0.15, 1, (n + TEST, features)) * rng.choice([-1, 1], (n + TEST, features))
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    return _classes(x, y, y, n)


def words(rng: Any, n: int, count: int = 20, length: int = 6) -> Data:
    """Ids; the class is that of the ids which have the majority."""
    x = rng.integers(0, count, (n + TEST, length))
    votes = (np.arange(count) % 3)[x]
    y = (votes[..., None] == np.arange(3)).sum(1).argmax(1)
    return _classes(x, y, y, n)


def digits(rng: Any, n: int) -> Data:
    """Real ones: 8 x 8 pixels from 0 to 1."""
    x, y, tx, ty = mg.data.digits(int(rng.integers(1000)))
    return Data(x[:n], y[:n], tx, ty, 1.0, 0.97, 10)


def sine(rng: Any, n: int, noise: float = 0.1) -> Data:
    """One wave and a half of one number."""
    x = rng.uniform(-1, 1, (n + TEST, 1))
    return _numbers(rng, x, np.sin(4.5 * x), n, noise)


def friedman(rng: Any, n: int, noise: float = 0.2) -> Data:
    """Friedman's first function: five of ten numbers matter."""
    x = rng.uniform(0, 1, (n + TEST, 10))
    f = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    return _numbers(rng, x, f + 10 * x[:, 3] + 5 * x[:, 4], n, noise)


def linear(rng: Any, n: int, features: int = 8, outputs: int = 1, noise: float = 0.3) -> Data:
    """Weighted sums."""
    x = rng.normal(size=(n + TEST, features))
    return _numbers(rng, x, x @ rng.normal(size=(features, outputs)), n, noise)


def product(rng: Any, n: int, outputs: int = 1, noise: float = 0.1) -> Data:
    """Mixtures of products of two out of three numbers, and of absolute values."""
    x = rng.uniform(-1, 1, (n + TEST, 3))
    f = np.concatenate([x * x[:, [1, 2, 0]], abs(x)], 1) @ rng.normal(size=(6, outputs))
    return _numbers(rng, x, f, n, noise)


def _polar(radius: Any, angle: Any) -> Any:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


#: Function, options, examples and steps of the optimizer that suffice in most cases.
SETS: dict[str, tuple[Callable[..., Data], dict[str, Any], int, int]] = {
    "blobs": (mixture, {}, 300, 300),
    "blobs8": (mixture, {"classes": 8, "features": 10, "spread": 0.4}, 400, 300),
    "blobs20": (mixture, {"classes": 20, "features": 20, "spread": 0.35}, 900, 400),
    "overlap": (mixture, {"classes": 3, "features": 2, "spread": 1.0}, 600, 300),
    "overlap2": (mixture, {"classes": 2, "features": 5, "spread": 0.8}, 500, 300),
    "rare": (mixture, {"classes": 3, "spread": 0.4, "first": 0.9}, 500, 300),
    "circles": (circles, {}, 300, 400),
    "rings": (circles, {"rings": 4}, 400, 500),
    "moons": (moons, {}, 300, 400),
    "spirals": (spirals, {}, 300, 600),
    "spirals3": (spirals, {"arms": 3}, 400, 700),
    "xor": (xor, {}, 300, 400),
    "xor6": (xor, {"features": 6}, 800, 500),
    "digits": (digits, {}, 1000, 400),
    "words": (words, {}, 600, 500),
    "sine": (sine, {}, 300, 500),
    "friedman": (friedman, {}, 1200, 500),
    "linear": (linear, {}, 800, 300),
    "linear5": (linear, {"features": 20, "outputs": 5}, 1200, 400),
    "product": (product, {}, 400, 500),
    "product12": (product, {"outputs": 12}, 400, 500),
}


def make(name: str, n: int, seed: int, flip: float = 0.0) -> Data:
    """Make a set of `n` examples; of ids, a share `flip` is another one than the rule says."""
    function, options, usual, _ = SETS[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    data = function(rng, n or usual, **options)
    if flip:
        for what, best in (("y", "best"), ("ty", "test_best")):
            y = getattr(data, what)
            wrong = rng.uniform(size=len(y)) < flip
            other = (y + rng.integers(1, data.outputs, len(y))) % data.outputs
            setattr(data, what, np.where(wrong, other, y))
            setattr(data, best, getattr(data, best) - wrong.mean())
    return data
