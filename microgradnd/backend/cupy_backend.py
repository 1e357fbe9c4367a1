"""CuPy as a backend: the only module that imports cupy, and only when somebody asks for it."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ..frames import place as where_is
from ..frames import user_frame
from .interface import Backend, BackendError, MissingBackendError, Staged
from .matrices import fault
from .namespace import build
from .transfers import COPY, UPLOAD, WAIT, check, watching

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


KEPT = 256  # index checks of one kind that are kept one by one


class Finding(NamedTuple):
    """What the device found of one array of indices: two 0-d arrays that nobody waits for."""

    value: Any  # the first index that is out of bounds; any other if all are inside
    place: Any  # where it is, in the flattened array
    shape: tuple[int, ...] | None  # None of several arrays
    lines: frozenset[str]  # of the user's code


class Kind(NamedTuple):
    """A kind of index check: all that differs is the indices."""

    low: int
    high: int
    ignored: int | None  # of class numbers
    where: str

    def outside(self, values: Any) -> Any:
        """Say of indices, on the device or one of the host, whether they are out of bounds."""
        bad = (values < self.low) | (values >= self.high)
        return bad if self.ignored is None else bad & (values != self.ignored)

    def error(self, value: int, place: int, finding: Finding) -> Exception:
        """Make NumPy's error for it."""
        shape = finding.shape
        text = f"{self.where}: index {value} is out of bounds for size {self.high}"
        if self.ignored is not None:
            at = np.unravel_index(place, shape) if shape else ()
            named = "a target" if shape is None else "target" + "".join(f"[{i}]" for i in at)
            text = f"{self.where}: {named} = {value}, classes 0..{self.high - 1}"
        return IndexError(text)


class Failure(NamedTuple):
    """A kind of failure of linear algebra."""

    where: str
    what: str

    def outside(self, values: Any) -> Any:
        """Say of flags, on the device or one of the host, whether they are set."""
        return values != 0

    def error(self, value: int, place: int, finding: Finding) -> Exception:
        """Make NumPy's error for it."""
        return fault(self.where, self.what, place, finding.shape)


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
        self._checks: dict[Kind | Failure, list[Finding]] = {}
        self._lock = Lock()
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
            refuse=self._refuse,
        )

    def asarray(self, data: Any, dtype: Any = None) -> Any:
        if self.is_array(data):
            return data if dtype is None else data.astype(dtype, copy=False)
        check(UPLOAD)
        # From page-locked memory CuPy copies without waiting, and holds it until that is done;
        # anything else it first copies to page-locked memory of its own.
        return self.module.asarray(data, dtype=dtype)

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

    def watched(self) -> AbstractContextManager[None]:
        return watching(self.array_type)  # CuPy makes every copy to the host by `ndarray.get`

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
        self._note(indices, Kind(-size, size, None, where))

    def _count_classes(self, target: Any, classes: int, ignore_index: int, where: str) -> Any:
        self._note(target, Kind(0, classes, ignore_index, where))
        return (target != ignore_index).sum()

    def _refuse(self, bad: Any, where: str, what: str, gaps: Any = None) -> None:
        self._note(bad, Failure(where, what))

    def _note(self, indices: Any, kind: Kind | Failure) -> None:
        """Keep the first index that is out of bounds; reading it now would stop the pipeline.

        It is read at the next transfer, which then raises NumPy's error for it.
        """
        if not indices.size:
            return
        place = self.module.argmax(kind.outside(indices))
        value = self.module.take(indices, place).astype("int64", copy=False)
        lines = frozenset((where_is(user_frame(sys._getframe(2))),))
        with self._lock:
            kept = self._checks.setdefault(kind, [])
            kept.append(Finding(value, place, indices.shape, lines))
            if len(kept) > KEPT:  # many steps keep little, and never wait
                values = self.module.stack([finding.value for finding in kept])
                places = self.module.stack([finding.place for finding in kept])
                shapes = {finding.shape for finding in kept}
                first = self.module.argmax(kind.outside(values))
                value, place = (self.module.take(x, first) for x in (values, places))
                shape = shapes.pop() if len(shapes) == 1 else None
                lines = frozenset().union(*(finding.lines for finding in kept))
                kept[:] = [Finding(value, place, shape, lines)]

    def _report(self) -> None:
        """Raise for what checks on the device have found since the last report.

        The error is that of the oldest check of a kind; others are in its notes.
        """
        with self._lock:
            checks, self._checks = self._checks, {}
        rows = [(kind, finding) for kind, kept in checks.items() for finding in kept]
        if not rows:
            return
        scalars = [scalar for _, finding in rows for scalar in finding[:2]]
        numbers = self.module.asnumpy(self.module.stack(scalars)).reshape(-1, 2).tolist()
        errors = [
            (kind.error(value, place, finding), finding)
            for (kind, finding), (value, place) in zip(rows, numbers, strict=True)
            if kind.outside(value)
        ]
        for error, finding in errors:
            error.add_note(
                f"Found by a check on the GPU of {' or '.join(sorted(finding.lines)[:5])}, and "
                "told once, at the first reading since then."
            )
        if errors:
            first = errors[0][0]
            for error, _ in errors[1:6]:
                first.add_note(f"Also {error}. {error.__notes__[0]}")
            raise first
