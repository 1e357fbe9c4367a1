"""What a backend must offer: one array type, one namespace, and the way in and out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np


class BackendError(RuntimeError):
    """A backend that was asked for cannot be used; the message says what to install or to mend."""


class MissingBackendError(BackendError, ImportError):
    """The package behind a backend is not installed."""


class Staged(np.ndarray):
    """Host data that a backend has put where its upload needs no waiting."""


class Backend:
    """An array library as the engine sees it.

    The engine, the primitives and the transforms know arrays only through this interface, so a
    further backend (the strict stand-in of the tests, the recorder of the compiler) is one more
    instance and no change elsewhere.

    Attributes:
        name: What `MICROGRADND_BACKEND` and `Tensor.to` call it.
        array_type: The class of its arrays; exactly this type counts as an array of the backend.
        xp: The namespace that formulas use: the closed list of `microgradnd.backend.namespace`.
    """

    name: str
    array_type: type
    xp: Any

    def asarray(self, data: Any, dtype: Any = None) -> Any:
        """Give `data` (numbers, lists, a NumPy array, an own array) as an own array.

        An own array of the right dtype is returned as it is; host data is uploaded.
        """
        raise NotImplementedError

    def to_numpy(self, array: Any) -> Any:
        """Give the values as a NumPy array: the array itself on NumPy, a copy from a device."""
        raise NotImplementedError

    def from_dlpack(self, data: Any) -> Any:
        """Take over the memory of an object that exports DLPack, as an own array."""
        raise NotImplementedError

    def is_array(self, data: Any) -> bool:
        """Say whether `data` is an array of this backend."""
        return type(data) is self.array_type

    def shares_memory(self, x: Any, y: Any) -> bool:
        """Say whether two own arrays may overlap in memory (their bounds are compared)."""
        raise NotImplementedError

    def aligned(self, n: int, dtype: Any, alignment: int) -> Any:
        """Give n zeros that begin at a multiple of `alignment` bytes."""
        return self.xp.zeros((n,), dtype=dtype)  # what a device allocates is aligned to 256 bytes

    def stage(self, array: Any) -> Any:
        """Give host data in a buffer from which `asarray` uploads without waiting.

        For arrays that are uploaded once; any thread may do it. On NumPy, the array itself.
        """
        return array

    def watched(self) -> AbstractContextManager[Any]:
        """Have the library's own doors to the host checked too: inside `forbid_transfers`."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done; report faults found on the device."""

    def bits(self, key: tuple[int, int], counter: int, n: int) -> Any:
        """Give `n` raw 64-bit words of Philox4x64-10 from word `counter` on, an own uint64 array.

        Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
        """
        raise NotImplementedError

    def memory(self) -> dict[str, int]:
        """Bytes: `used` by live arrays and `held` from the system (0 where nobody counts them)."""
        return {"used": 0, "held": 0}

    def quiet(self) -> AbstractContextManager[Any]:
        """Silence floating-point warnings: the whole reverse pass runs inside one of these."""
        return nullcontext()
