"""Writing into tensors, and noticing it: versions of memory, and the one door for writing.

Without recording, values are written into the array and its version grows; a node that kept the
old values notices at backward. While recording, writing makes a new array and a new node instead,
inside the same Tensor; where that could not be seen by others it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getrefcount
from typing import Any

import numpy as np

from .backend.namespace import decode
from .modes import MODE
from .registry import REGISTRY


class Storage:
    """What all tensors over the same memory share: its version, `[number of writes]`.

    Tensors hold the storage and nodes hold its version, so the reference counts of the two tell
    whether there are other views, and whether a node still keeps the values.
    """

    __slots__ = ("taped", "version")

    def __init__(self) -> None:
        self.version = [0]
        self.taped = False  # whether one of the tensors has been on the tape


def storage_of(x: Any) -> Storage:
    """Give a tensor's storage, making it when it is first wanted."""
    if x._storage is None:
        x._storage = Storage()
    return x._storage


class Writable:
    """The side of a Tensor that can be written to."""

    __slots__ = ()

    _array: Any
    _node: Any
    _storage: Any
    shape: tuple[int, ...]
    dtype: Any

    @property
    def data(self) -> Any:
        """The raw array: the same memory, read-only (on NumPy) while the tape keeps its values."""
        array, storage = self._array, self._storage
        if storage is not None and getrefcount(storage.version) > UNKEPT:
            array = array.view()
            if hasattr(array, "setflags"):
                array.setflags(write=False)
        return array

    def assign_(self, value: Any) -> Any:
        """Overwrite all values, keeping shape and dtype; gives the tensor itself.

        Raises:
            RuntimeError: While recording, on a leaf that requires a gradient, and on a tensor that
                shares its memory with another.
        """
        self[...] = value
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        setitem = REGISTRY["setitem"]

        def write() -> None:
            (_, v, *indices), attrs = setitem.front(self, index, value)
            place = decode(attrs["key"], (getattr(i, "_array", i) for i in indices))
            self._array[place] = getattr(v, "_array", v)

        self._write("x[index] = value", value, write, lambda: setitem(self, index, value))

    def _is_plain(self, storage: Storage, value: Any) -> bool:
        """Whether no gradient is in play: then memory is shared as in NumPy."""
        return (
            self._node is None
            and not (storage.taped or getattr(value, "requires_grad", False))
            and getrefcount(storage.version) == UNKEPT
        )

    def _write(
        self, what: str, value: Any, write: Callable[[], Any], taped: Callable[[], Any]
    ) -> Any:
        """The one door for writing: into the array or, while recording, into a new one."""
        storage, recording = self._storage, MODE.get().recording
        shared = recording and storage is not None and getrefcount(storage) > UNSHARED
        if not recording or (shared and self._is_plain(storage, value)):
            write()
            if storage is not None:
                storage.version[0] += 1
            return self
        if self._node is not None and self._node.op is None:
            raise RuntimeError(
                f"{what}: this leaf requires a gradient and cannot be overwritten while "
                "recording; do it inside `with mg.no_grad():`"
            )
        if shared:
            raise RuntimeError(
                f"{what}: this tensor shares its memory with another (a view, or detach()); use "
                "mg.where or mg.scatter_add for a new tensor, or write inside `with mg.no_grad():`"
            )
        result = taped()
        if result.shape != self.shape:
            raise ValueError(f"{what}: the result has shape {result.shape}, not {self.shape}")
        if result.dtype != self.dtype:
            if not np.can_cast(result.dtype, self.dtype, "same_kind"):
                raise TypeError(f"{what}: cannot cast from {result.dtype} to {self.dtype}")
            result = REGISTRY["astype"](result, self.dtype)
        self._array, self._node, self._storage = result._array, result._node, result._storage
        return self


def _unshared() -> int:
    holder = [Storage()]
    storage = holder[0]
    return getrefcount(storage)


def _unkept() -> int:
    storage = Storage()
    return getrefcount(storage.version)


# What `getrefcount` says, on this Python, of a storage that one tensor and one local name hold, and
# of a version that no node holds.
UNSHARED, UNKEPT = _unshared(), _unkept()
