"""NumPy as a backend; what is known about its fast call shapes lives here and nowhere else."""

from __future__ import annotations

import builtins
import math
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import numpy as np

from . import matrices, special, windows
from .interface import Backend
from .namespace import ARRAY, build


@lru_cache(256)
def _small_ones(n: int, dtype: Any) -> np.ndarray:
    row = np.ones(n, dtype)
    row.flags.writeable = False
    return row


def _ones(n: int, dtype: Any) -> np.ndarray:
    """A vector of ones for sums as products, shared (read-only) unless it takes much memory."""
    return _small_ones(n, dtype) if n <= 1 << 16 else np.ones(n, dtype)


REDUCE_ADD: Any = np.add.reduce  # without the checks of np.sum and np.max, in half their time
REDUCE_MAX: Any = np.maximum.reduce
REDUCE_MIN: Any = np.minimum.reduce
REDUCE_AND: Any = np.logical_and.reduce


@lru_cache(256)
def _small_count(n: int) -> np.ndarray:
    row = np.arange(n)
    row.flags.writeable = False
    return row


def _count(n: int) -> np.ndarray:
    """The numbers 0..n-1, shared (read-only) unless they take much memory."""
    return _small_count(n) if n <= 1 << 16 else np.arange(n)


@lru_cache(16)
def _one_hot_rows(n: int, dtype: Any) -> np.ndarray:
    """The rows of an identity matrix between two rows of zeros, for numbers outside 0..n-1."""
    rows = np.zeros((n + 2, n), dtype)
    rows[1:-1] = np.eye(n)
    rows.flags.writeable = False
    return rows


def one_hot(ids: np.ndarray, n: int, axis: int, dtype: Any) -> np.ndarray:
    """Rows of the identity matrix; a row of zeros for a number outside 0..n-1."""
    if n > 1024:
        return GENERAL.one_hot(ids, n, axis, dtype)
    out = _one_hot_rows(n, dtype).take(ids.astype(np.int64, copy=False) + 1, axis=0, mode="clip")
    return out if axis == out.ndim - 1 else np.moveaxis(out, -1, axis)


def matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrix product; `dot` takes 0.7 of `matmul`'s time on two small matrices."""
    if x.ndim == 2 and y.ndim == 2:
        return np.dot(x, y)
    return np.matmul(x, y)


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Sum; over one axis of a float matrix as a product with ones (a fifth of the time)."""
    if axis is not None and getattr(x, "ndim", 0) == 2 and x.dtype.char in "fd" and x.size:
        if axis == 0 or axis == (0,):
            out = np.dot(_ones(x.shape[0], x.dtype), x)
            return out[None] if keepdims else out
        if axis in (1, -1, (1,)) and x.shape[1] <= 1024:  # NumPy's pairwise sums are more exact
            out = np.dot(x, _ones(x.shape[1], x.dtype))
            return out[:, None] if keepdims else out
    return REDUCE_ADD(x, axis=axis, keepdims=keepdims)


def einsum(xs: Any, subscripts: str) -> np.ndarray:
    """Einstein's sum; large ones in an order that is looked for, and by BLAS where it fits."""
    large = len(xs) > 2 or builtins.sum(x.size for x in xs) > 4096
    return np.einsum(subscripts, *xs, optimize=large)


def expand_dims(x: np.ndarray, axis: Any) -> np.ndarray:
    """Insert axes; one axis by indexing takes a third of NumPy's time."""
    if type(axis) is int and -3 <= axis <= 0:
        where = (None, (..., None), (..., None, slice(None)), (..., None, slice(None), slice(None)))
        if -axis <= x.ndim + 1:
            return x[where[-axis]]
    return np.expand_dims(x, axis)


def largest(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> Any:
    """Maximum, without the checks that `np.max` adds; short rows by way of the transpose."""
    if axis in (1, -1) and x.ndim == 2 and 0 < x.shape[1] <= 64:
        out = np.maximum.reduce(x.T.copy(), axis=0)
        return out[:, None] if keepdims else out
    return REDUCE_MAX(x, axis=axis, keepdims=keepdims)


def smallest(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> Any:
    """Minimum, without the checks that `np.min` adds."""
    return REDUCE_MIN(x, axis=axis, keepdims=keepdims)


def check_indices(indices: np.ndarray, size: int, where: str) -> None:
    """Raise IndexError for the first index outside [-size, size)."""
    if not indices.size:
        return
    if indices.min() < -size or indices.max() >= size:
        bad = indices[(indices < -size) | (indices >= size)].flat[0]
        raise IndexError(f"{where}: index {bad} is out of bounds for size {size}")


def count_classes(target: np.ndarray, classes: int, ignore_index: int, where: str) -> int:
    """Count the class numbers that are not ignored; raise IndexError for one outside 0..n-1."""
    if _in_range(target, classes) and not 0 <= ignore_index < classes:
        return target.size
    counts = target != ignore_index
    bad = ((target < 0) | (target >= classes)) & counts
    if bad.any():
        place = tuple(int(i[0]) for i in np.nonzero(bad)) if target.ndim else ()
        at = "".join(f"[{i}]" for i in place)
        raise IndexError(f"{where}: target{at} = {target[place]}, classes 0..{classes - 1}")
    return int(np.count_nonzero(counts))


def _in_range(ids: np.ndarray, n: int) -> bool:
    """Whether all are in 0..n-1: as unsigned numbers the negative ones are the largest."""
    unsigned = ids if ids.dtype.kind == "u" else ids.view(f"u{ids.itemsize}")
    return not ids.size or bool(np.maximum.reduce(unsigned, axis=None) < n)


def pick(x: np.ndarray, ids: np.ndarray, axis: int, ignored: int) -> np.ndarray:
    """The element of each example's class, 0 for an ignored one."""
    if x.ndim == 2 and _in_range(ids, x.shape[1]) and not 0 <= ignored < x.shape[1]:
        return x[_count(len(ids)), ids]
    places = np.expand_dims(np.where(ids == ignored, 0, ids), axis)
    return np.where(ids == ignored, 0, np.take_along_axis(x, places, axis).squeeze(axis))


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of softmax; short rows of a matrix by way of its transpose."""
    if x.ndim == 2 and axis in (1, -1) and x.dtype.char in "fd" and 0 < x.shape[1] <= 64:
        m = np.maximum.reduce(x.T.copy(), axis=0)
        if REDUCE_AND(np.isfinite(m)):
            z = x - m[:, None]
            z -= np.log(np.dot(np.exp(z), _ones(x.shape[1], x.dtype)))[:, None]
            return z
    return GENERAL.log_softmax(x, axis)


MOST = 16, 128  # so many pieces are few: along one axis, and of a window


def max_and_winner(x: np.ndarray, axes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Maximum and the first winner along the last axes; few pieces are compared one by one.

    That takes a quarter of `argmax`'s time, but it cannot tell which NaN came first.
    """
    if not 0 < math.prod(x.shape[-axes:]) <= MOST[axes > 1] or x.dtype.char not in "fd":
        return GENERAL.max_and_winner(x, axes)
    pieces: Any = [x[(..., *at)] for at in np.ndindex(x.shape[-axes:])]
    if axes == 1 and x.strides[-1] == x.itemsize:
        pieces = np.ascontiguousarray(np.moveaxis(x, -1, 0))
    best = pieces[0].copy(order="K")
    winner = np.zeros_like(best, np.uint8)
    for j in range(1, len(pieces)):
        better = pieces[j] > best
        np.maximum(best, pieces[j], out=best)
        np.maximum(winner, better.view(np.uint8) * np.uint8(j), out=winner)
    return (best, winner) if np.isfinite(best.max(initial=0)) else GENERAL.max_and_winner(x, axes)


def _is_zero(x: Any) -> bool:
    return type(x) is float and x == 0.0 and math.copysign(1.0, x) > 0.0


def where(condition: Any, x: Any, y: Any) -> Any:
    """Choose by a mask; an array or 0 by its bits times the mask: on a random one a tenth."""
    if _is_zero(x) and type(condition) is np.ndarray:
        condition, x, y = np.logical_not(condition), y, x
    arrays = type(x) is type(condition) is np.ndarray and condition.dtype == bool
    if not (arrays and _is_zero(y) and x.ndim and x.dtype.kind == "f"):
        return np.where(condition, x, y)
    return np.multiply(x.view(f"u{x.itemsize}"), condition).view(x.dtype)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Mean; of windows (the last axes, with long steps in memory) by adding whole arrays."""
    n = len(axis) if isinstance(axis, tuple) and not keepdims else 0
    last = n > 1 and axis in (tuple(range(-n, 0)), tuple(range(x.ndim - n, x.ndim)))
    size = math.prod(x.shape[-n:]) if last else 0
    if not 0 < size <= MOST[1] or x.dtype.char not in "fd" or x.flags.c_contiguous:
        return np.mean(x, axis=axis, keepdims=keepdims)
    out = np.zeros_like(x[(..., *(0,) * n)])
    for at in np.ndindex(x.shape[-n:]):
        out += x[(..., *at)]
    out *= 1.0 / size
    return out


def scatter_add(v: np.ndarray, indices: Any, shape: Any, key: Any) -> np.ndarray:
    """Zeros with `v` added at an index; along one axis long rows are added one by one.

    That takes less than half the time of `add.at`, and gives the same bits.
    """
    axis = len(key) - 1
    if (
        key != ((None, None, None),) * axis + (ARRAY,)
        or v.ndim != len(shape)
        or indices[0].shape != v.shape[axis : axis + 1]
        or indices[0].dtype.kind == "b"
        or v.size < 256 * v.shape[axis]
    ):
        return GENERAL.scatter_add(v, indices, shape, key)
    out = np.zeros(shape, v.dtype)
    places = np.moveaxis(out, axis, 0)
    for i, row in zip(indices[0].tolist(), np.moveaxis(v, axis, 0), strict=True):
        places[i] += row
    return out


def route(x: np.ndarray, winner: np.ndarray, pieces: int) -> np.ndarray:
    """Zeros with a new last axis, and `x` at the winner's place: of a matrix by one flat index.

    Else the new axis is filled one by one, bits times 0 or 1: a tenth of a masked copy's time, and
    an infinity times 0 is no NaN. In memory it comes last, or second, after the channels, if that
    is how the images lie (`windows.py`).
    """
    if x.ndim <= 2:
        out = np.zeros((*x.shape, pieces), x.dtype)
        out.reshape(-1)[_count(x.size) * pieces + winner.reshape(-1)] = x.reshape(-1)
        return out
    order = np.argsort([-step for step in winner.strides], kind="stable").tolist()
    bits, chosen = x.view(f"u{x.itemsize}").transpose(order), winner.transpose(order)
    shape = list(bits.shape)
    shape.insert(1 if order[0] else x.ndim, pieces)
    out = np.moveaxis(np.empty(shape, bits.dtype), 1 if order[0] else x.ndim, -1)
    for j in range(pieces):
        np.multiply(bits, chosen == j, out=out[..., j])
    return out.view(x.dtype).transpose((*(order.index(i) for i in range(x.ndim)), x.ndim))


BLOCK = 1 << 22  # bytes of a convolution's columns that stay in the cache
GENERAL = build(
    np, special, check_indices=check_indices, count_classes=count_classes, refuse=matrices.refuse
)


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
            mean=mean,
            where=where,
            max=largest,
            min=smallest,
            one_hot=one_hot,
            log_softmax=log_softmax,
            expand_dims=expand_dims,
            reshape=lambda x, shape: x.reshape(shape),
            swapaxes=lambda x, a, b: x.swapaxes(a, b),
            transpose=lambda x, axes=None: x.transpose(axes),
            count_classes=count_classes,
            einsum=einsum,
            pick=pick,
            max_and_winner=max_and_winner,
            route=route,
            scatter_add=scatter_add,
            check_indices=check_indices,
            **windows.build(np, BLOCK),
            refuse=matrices.refuse,
            **matrices.numpy_functions(GENERAL.cofactors),
        )

    def asarray(self, data: Any, dtype: Any = None) -> np.ndarray:
        return np.asarray(data, dtype=dtype)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array

    def from_dlpack(self, data: Any) -> np.ndarray:
        return np.from_dlpack(data)

    def shares_memory(self, x: np.ndarray, y: np.ndarray) -> bool:
        return np.may_share_memory(x, y)

    def aligned(self, n: int, dtype: Any, alignment: int) -> np.ndarray:
        dtype = np.dtype(dtype)
        space = np.zeros(n + alignment // dtype.itemsize, dtype)
        skip = -space.ctypes.data % alignment // dtype.itemsize
        return space[skip : skip + n]

    def bits(self, key: tuple[int, int], counter: int, n: int) -> np.ndarray:
        # NumPy's generator steps its block counter before the first block: start one block early.
        skip = counter % 4
        block = (counter // 4 - 1) % 2**256
        words = np.random.Philox(key=key[0] | key[1] << 64, counter=block).random_raw(skip + n)
        return words[skip:]

    def quiet(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")
