"""Random numbers that are the same on every backend: Philox4x64-10, counted word by word.

A generator is a key and a counter. Each draw reserves its range of counter words, so draws can be
repeated, skipped and split over threads. Masks compare raw 64-bit words and are equal bit for bit
on NumPy and CuPy; normal numbers are made on the host and uploaded.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import operator
from threading import Lock
from typing import Any

import numpy as np

from . import backend as backends
from .arraylike import check_dtype
from .backend import Backend
from .modes import get_default_dtype
from .tape import Tensor, wrap

__all__ = [
    "Generator", "bernoulli", "default_generator", "integers", "normal", "permutation", "uniform",
]  # fmt: skip


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, (tuple, list)) else [shape]
    return tuple(operator.index(n) for n in sizes)


class Generator:
    """A stream of random numbers.

    Args:
        seed: A non-negative integer below 2**128: the key of the stream.

    Raises:
        ValueError: For a seed outside that range.

    Example:
        >>> from microgradnd.random import Generator
        >>> Generator(0).integers(0, 10, 5).tolist() == Generator(0).integers(0, 10, 5).tolist()
        True
    """

    def __init__(self, seed: int = 0):
        self._lock = Lock()
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of another seed; gives the generator itself."""
        seed = operator.index(seed)
        if not 0 <= seed < 2**128:
            raise ValueError(f"seed must be in [0, 2**128), got {seed}")
        self.state = {"seed": seed, "counter": 0}
        return self

    @property
    def state(self) -> dict[str, int]:
        """The seed and the number of words drawn: all that there is to save and to set."""
        return {"seed": self._seed, "counter": self._counter}

    @state.setter
    def state(self, state: dict[str, int]) -> None:
        with self._lock:
            self._seed, self._counter = int(state["seed"]), int(state["counter"])

    def __getstate__(self) -> dict[str, int]:
        return self.state

    def __setstate__(self, state: dict[str, int]) -> None:
        self._lock = Lock()
        self.state = state

    def bits(self, n: int, backend: Backend | None = None) -> Any:
        """Draw `n` words of 64 random bits, as a raw uint64 array of the backend."""
        n = operator.index(n)
        with self._lock:
            start = self._counter
            self._counter += -(-n // 4) * 4  # whole blocks, so that a draw never splits one
        key = (self._seed & (2**64 - 1), self._seed >> 64)
        return (backend or backends.get()).bits(key, start, n)

    def _draw(self, shape: Any, backend: Backend | None) -> Any:
        shape = _shape(shape)
        words = self.bits(int(np.prod(shape, dtype=object)), backend)
        return words.reshape(shape)

    def uniform(
        self, low: float = 0.0, high: float = 1.0, shape: Any = (), dtype: Any = None,
        backend: Backend | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw from the uniform distribution on [low, high)."""
        _numbers(low=low, high=high)
        dtype = _float(dtype)
        backend = backend or backends.get()
        digits = 53 if dtype.char == "d" else 24 if dtype.char == "f" else 11
        words = self._draw(shape, backend) >> np.uint64(64 - digits)
        unit = backend.xp.astype(words, np.float64) * 2.0**-digits
        values = backend.xp.astype(unit * (high - low) + low, dtype)
        if low < high:  # rounding may reach the upper end, which does not belong to the interval
            values = backend.xp.minimum(values, float(np.nextafter(dtype.type(high), -np.inf)))
        return wrap(backend.asarray(values))

    def normal(
        self, mean: float = 0.0, std: float = 1.0, shape: Any = (), dtype: Any = None,
        backend: Backend | None = None,
    ) -> Tensor:  # fmt: skip
        """Draw from the normal distribution (Box and Muller, in float64 on the host)."""
        _numbers(mean=mean, std=std)
        dtype, shape = _float(dtype), _shape(shape)
        n = int(np.prod(shape, dtype=object))
        words = self.bits(2 * n, backends.named("numpy"))
        unit = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # never 0
        values = np.sqrt(-2.0 * np.log(unit[:n])) * np.cos(2.0 * np.pi * unit[n:])
        values = (values * std + mean).astype(dtype).reshape(shape)
        return wrap((backend or backends.get()).asarray(values))

    def integers(
        self, low: int, high: int, shape: Any = (), backend: Backend | None = None
    ) -> Tensor:
        """Draw integers of [low, high), int64; the bias is below (high - low) / 2**64.

        Raises:
            ValueError: If the range is empty.
        """
        low, high = operator.index(low), operator.index(high)
        if high <= low:
            raise ValueError(f"integers: the range [{low}, {high}) is empty")
        backend = backend or backends.get()
        words = self._draw(shape, backend)
        if high - low < 2**64:
            words = words % np.uint64(high - low)
        # Unsigned numbers wrap around, and so does the conversion: negative ranges come out right.
        words = words + np.uint64(low % 2**64)
        return wrap(backend.asarray(backend.xp.astype(words, np.int64)))

    def permutation(self, n: int, backend: Backend | None = None) -> Tensor:
        """Draw an order of 0..n-1, int64."""
        n = operator.index(n)
        words = self.bits(n, backends.named("numpy"))
        return wrap((backend or backends.get()).asarray(np.argsort(words, kind="stable")))

    def bernoulli(self, p: float, shape: Any = (), backend: Backend | None = None) -> Tensor:
        """Draw a boolean mask that is true with probability `p`; equal on every backend.

        Raises:
            ValueError: If p is outside [0, 1].
        """
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"bernoulli: p must be in [0, 1], got {p}")
        backend = backend or backends.get()
        words = self._draw(shape, backend)
        limit = int(p * 2.0**64)
        mask = words < np.uint64(limit) if limit < 2**64 else words == words
        return wrap(backend.asarray(mask))


def _numbers(**values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise TypeError(f"{name} must be a number, got {value!r}; give the shape as shape=")


def _float(dtype: Any) -> Any:
    dtype = check_dtype(dtype or get_default_dtype())
    if dtype.kind != "f":
        raise TypeError(f"a float dtype is wanted, got {dtype}")
    return dtype


_default = Generator(0)


def default_generator() -> Generator:
    """Give the generator that everything uses which is not given another."""
    return _default


def manual_seed(seed: int) -> Generator:
    """Start the default generator anew from a seed; gives the generator."""
    return _default.manual_seed(seed)


uniform = _default.uniform
normal = _default.normal
integers = _default.integers
permutation = _default.permutation
bernoulli = _default.bernoulli
