"""NumPy as a backend; what is known about its fast call shapes lives here and nowhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from . import special
from .interface import Backend
from .namespace import build

_ONES: dict[tuple[int, np.dtype[Any]], np.ndarray] = {}


def _ones(n: int, dtype: Any) -> np.ndarray:
    """A shared vector of ones, for sums over the batch as products."""
    row = _ONES.get((n, dtype))
    if row is None:
        if len(_ONES) > 256:
            _ONES.clear()
        row = _ONES[n, dtype] = np.ones(n, dtype)
        row.flags.writeable = False
    return row


def matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrix product; `dot` takes 0.7 of `matmul`'s time on two small matrices."""
    if x.ndim == 2 and y.ndim == 2:
        return np.dot(x, y)
    return np.matmul(x, y)


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum; over the rows of a float matrix as a product with ones (a fifth of the time)."""
    if axis in (0, (0,)) and not keepdims and x.ndim == 2 and x.dtype.char in "fd" and x.size:
        return np.dot(_ones(x.shape[0], x.dtype), x)
    return np.add.reduce(x, axis=axis, keepdims=keepdims)


def check_indices(indices: np.ndarray, size: int, where: str) -> None:
    """Raise IndexError for the first index outside [-size, size)."""
    if not indices.size:
        return
    if indices.min() < -size or indices.max() >= size:
        bad = indices[(indices < -size) | (indices >= size)].flat[0]
        raise IndexError(f"{where}: index {bad} is out of bounds for size {size}")


def check_classes(target: np.ndarray, classes: int, ignore_index: int, where: str) -> None:
    """Raise IndexError for the first class number outside 0..classes-1 that is not ignored."""
    if not target.size or (target.min() >= 0 and target.max() < classes):
        return
    bad = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if bad.any():
        place = tuple(int(i[0]) for i in np.nonzero(bad)) if target.ndim else ()
        at = "".join(f"[{i}]" for i in place)
        raise IndexError(f"{where}: target{at} = {target[place]}, classes 0..{classes - 1}")


class NumpyBackend(Backend):
    """Arrays are `numpy.ndarray`, computed on the CPU."""

    name = "numpy"
    array_type = np.ndarray

    def __init__(self) -> None:
        self.xp = build(
            np,
            special,
            matmul=matmul,
            sum=sum,
            prod=np.multiply.reduce,
            reshape=lambda x, shape: x.reshape(shape),
            swapaxes=lambda x, a, b: x.swapaxes(a, b),
            transpose=lambda x, axes=None: x.transpose(axes),
            check_classes=check_classes,
            check_indices=check_indices,
        )

    def asarray(self, data: Any, dtype: Any = None) -> np.ndarray:
        return np.asarray(data, dtype=dtype)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array

    def from_dlpack(self, data: Any) -> np.ndarray:
        return np.from_dlpack(data)

    def shares_memory(self, x: np.ndarray, y: np.ndarray) -> bool:
        return np.may_share_memory(x, y)

    def bits(self, key: tuple[int, int], counter: int, n: int) -> np.ndarray:
        # NumPy's generator steps its block counter before the first block: start one block early.
        skip = counter % 4
        block = (counter // 4 - 1) % 2**256
        words = np.random.Philox(key=key[0] | key[1] << 64, counter=block).random_raw(skip + n)
        return words[skip:]

    def quiet(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")
