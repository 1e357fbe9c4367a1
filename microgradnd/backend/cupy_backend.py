"""CuPy as a backend: the only module that imports cupy, and only when somebody asks for it."""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from .interface import Backend, BackendError, MissingBackendError, Staged
from .namespace import build
from .numpy_backend import check_indices, count_classes
from .transfers import COPY, UPLOAD, WAIT, check

INSTALL = (
    'pip install "cupy-cuda13x[ctk]" (CUDA 13 driver), pip install "cupy-cuda12x[ctk]" '
    "(CUDA 12 driver)"
)


def load(asked: str) -> CupyBackend:
    """Import CuPy and try it on a tiny product; `asked` begins the error.

    Raises:
        MissingBackendError: If CuPy is not installed.
        BackendError: If it is installed but cannot compute here: no driver, an old driver, no
            visible device, or missing CUDA libraries. The message says which.
    """
    try:
        import cupy
        from cupyx.scipy import special
    except ImportError as error:
        if importlib.util.find_spec("cupy") is not None:
            raise BackendError(f"{asked}CuPy cannot be imported: {error}") from error
        instead = ", or unset MICROGRADND_BACKEND to use NumPy" if asked else ""
        raise MissingBackendError(
            f"{asked}CuPy is not installed. Install one of: {INSTALL}{instead}."
        ) from error
    try:
        probe = cupy.ones((2, 2), "f4")
        (probe @ probe + 1).sum()
    except (ImportError, RuntimeError) as error:
        raise BackendError(explain(cupy, error)) from error
    return CupyBackend(cupy, special)


def explain(cupy: Any, error: Exception) -> str:
    """Say in plain words why an installed CuPy cannot compute on this machine."""
    head = f"CuPy {cupy.__version__} is installed, but "
    status = getattr(error, "status", None)
    driver = cupy.cuda.runtime.driverGetVersion()
    if driver == 0:
        return head + "no NVIDIA driver was found on this machine."
    if status == 35:
        have, want = (f"{v // 1000}.{v % 1000 // 10}" for v in (
            driver, cupy.cuda.runtime.runtimeGetVersion()))
        return head + (
            f"the driver supports CUDA {have} and CuPy needs {want}: update the driver or install "
            "the CuPy package for your driver's CUDA version."
        )
    if status == 100:
        import os

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return head + f"no CUDA device is visible (CUDA_VISIBLE_DEVICES={visible!r})."
    return head + f"it cannot load or run the CUDA libraries: {INSTALL}, or set CUDA_PATH. " + (
        f"CuPy said: {error}"
    )


def _philox(xp: Any, key: tuple[int, int], counter: int, n: int) -> Any:
    """Philox4x64-10 in array operations on unsigned 64-bit integers."""
    first, last = counter // 4, -(-(counter + n) // 4)
    mask = 2**64 - 1
    u = np.uint64
    low = xp.arange(last - first, dtype=u)
    base, words = first, []
    for _ in range(4):
        words.append(u(base & mask))
        base >>= 64
    c0 = low + words[0]
    carry = (c0 < low).astype(u)
    c = [c0]
    for word in words[1:]:
        nxt = carry + word
        # A carry runs on only through a word that was all ones.
        carry = ((nxt == u(0)) & (carry == u(1))).astype(u)
        c.append(nxt)
    k0, k1 = key

    def mulhilo(a: int, b: Any) -> tuple[Any, Any]:
        """High and low word of a 128-bit product, from four 32-bit products."""
        half, shift = u(0xFFFFFFFF), u(32)
        a_low, a_high = u(a & 0xFFFFFFFF), u(a >> 32)
        b_low, b_high = b & half, b >> shift
        low = b_low * a_low
        middle = b_high * a_low + (low >> shift)
        other = b_low * a_high + (middle & half)
        return b_high * a_high + (middle >> shift) + (other >> shift), b * u(a)

    for _ in range(10):
        h0, l0 = mulhilo(0xD2E7470EE14C6C93, c[0])
        h1, l1 = mulhilo(0xCA5A826395121157, c[2])
        c = [h1 ^ c[1] ^ u(k0), l1, h0 ^ c[3] ^ u(k1), l0]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    start = counter - 4 * first
    return xp.reshape(xp.stack(c, axis=1), (-1,))[start : start + n]


KEPT = 256  # flags of index checks that are kept one by one


class Fault(NamedTuple):
    """An index check whose outcome is still on the device."""

    bad: Any  # the flag
    key: Any  # what is checked, and against what
    complain: Callable[[Any], object]  # raises NumPy's error for the indices on the host
    ids: Any


class CupyBackend(Backend):
    """Arrays are `cupy.ndarray`, computed on the current CUDA device.

    Args:
        module: `cupy`, or something that behaves like it (the strict stand-in of the tests).
        special: `cupyx.scipy.special`, or its like.
        name: The backend's name.
    """

    def __init__(self, module: Any, special: Any, name: str = "cupy") -> None:
        self.module = module
        self.name = name
        self.array_type = module.ndarray
        self._faults: list[Fault] = []
        self._folded: dict[Any, Fault] = {}
        self._uploads: deque[tuple[Any, Staged]] = deque()
        self._watchers, self._lock = 0, Lock()
        self.xp = build(
            module,
            special,
            # Of two numbers compared comes a bool, which CuPy's `where` does not take.
            where=lambda condition, x, y: module.where(
                module.full((), condition) if isinstance(condition, bool) else condition, x, y
            ),
            # cupyx computes float16 as float64 and leaves it there.
            erf=lambda x: special.erf(x).astype(x.dtype, copy=False),
            erfc=lambda x: special.erfc(x).astype(x.dtype, copy=False),
            count_classes=self._count_classes,
            check_indices=self._check_indices,
        )

    def asarray(self, data: Any, dtype: Any = None) -> Any:
        if self.is_array(data):
            return data if dtype is None else data.astype(dtype, copy=False)
        check(UPLOAD)
        if not isinstance(data, Staged) or dtype not in (None, data.dtype):
            return self.module.asarray(data, dtype=dtype)
        array = self.module.empty(data.shape, data.dtype)
        array.set(data)
        # The buffer goes back to CuPy's pool, for others to write to, when nobody has it any more.
        self._uploads.append((self.module.cuda.get_current_stream().record(), data))
        while self._uploads and self._uploads[0][0].done:
            self._uploads.popleft()
        return array

    def to_numpy(self, array: Any) -> np.ndarray:
        check(COPY)
        self._report()
        return self.module.asnumpy(array)

    def stage(self, array: Any) -> Any:
        if not array.size:
            return array
        memory = self.module.cuda.alloc_pinned_memory(array.nbytes)
        buffer = Staged(array.shape, array.dtype, memory)
        buffer[...] = array
        return buffer

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Check `ndarray.get`, by which CuPy makes every copy to the host."""
        kind = self.array_type
        with self._lock:
            if not self._watchers:
                self._inherited = "get" not in vars(kind)
                self._get = plain = kind.get  # type: ignore[attr-defined]

                def get(array: Any, *args: Any, **options: Any) -> Any:
                    check(COPY)
                    return plain(array, *args, **options)

                kind.get = get  # type: ignore[attr-defined]
            self._watchers += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                if not self._watchers:
                    if self._inherited:
                        del kind.get  # type: ignore[attr-defined]
                    else:
                        kind.get = self._get  # type: ignore[attr-defined]

    def from_dlpack(self, data: Any) -> Any:
        return self.module.from_dlpack(data)

    def shares_memory(self, x: Any, y: Any) -> bool:
        return bool(self.module.may_share_memory(x, y))

    def synchronize(self) -> None:
        check(WAIT)
        self.module.cuda.Device().synchronize()
        self._report()

    def bits(self, key: tuple[int, int], counter: int, n: int) -> Any:
        return _philox(self.module, key, counter, n)

    def memory(self) -> dict[str, int]:
        pool = self.module.get_default_memory_pool()
        return {"used": pool.used_bytes(), "held": pool.total_bytes()}

    def _check_indices(self, indices: Any, size: int, where: str) -> None:
        """Note on the device whether an index is out of bounds; CuPy itself would wrap silently."""
        if indices.size:
            bad = ((indices < -size) | (indices >= size)).any()
            self._note(bad, (where, size), lambda ids: check_indices(ids, size, where), indices)

    def _count_classes(self, target: Any, classes: int, ignore_index: int, where: str) -> Any:
        counts = target != ignore_index
        if target.size:
            bad = (((target < 0) | (target >= classes)) & counts).any()
            self._note(
                bad, (where, classes, ignore_index),
                lambda ids: count_classes(ids, classes, ignore_index, where), target,
            )  # fmt: skip
        return counts.sum()

    def _note(self, bad: Any, key: Any, complain: Callable[[Any], object], ids: Any) -> None:
        """Keep a flag that is still being computed; reading it now would stop the pipeline.

        It is read at the next transfer, and `complain` then raises NumPy's error for it.
        """
        self._faults.append(Fault(bad, key, complain, ids))
        if len(self._faults) > KEPT:
            self._fold()

    def _fold(self) -> None:
        """Make one flag of those of each kind of check: so many steps keep little, and never wait.

        Of the oldest fault of a kind the indices are kept, chosen on the device: of checks of one
        kind and shape, the first bad one, else the last.
        """
        faults, self._faults = self._faults, []
        for fault in faults:
            key = (fault.key, fault.ids.shape, fault.ids.dtype)
            old = self._folded.get(key)
            if old is None:
                self._folded[key] = fault
            else:
                ids = self.module.where(old.bad, old.ids, fault.ids)
                self._folded[key] = Fault(old.bad | fault.bad, fault.key, fault.complain, ids)

    def _report(self) -> None:
        """Raise for the oldest fault that a device check has found since the last report."""
        faults = [*self._folded.values(), *self._faults]
        if not faults:
            return
        self._faults, self._folded = [], {}
        flags = self.module.asnumpy(self.module.stack([fault.bad for fault in faults]))
        for bad, fault in zip(flags, faults, strict=True):
            if bad:
                fault.complain(self.module.asnumpy(fault.ids))
