"""Backends: which array library computes, how it is chosen, how arrays move between them.

The namespace follows the arrays: an operation runs where its operands live. The *current* backend
only decides where new arrays (from numbers and lists) are made. It is `numpy` unless
`MICROGRADND_BACKEND` says `cupy` or `auto`; the variable is read once, when first needed.
"""

from __future__ import annotations

import os
import sys
from contextlib import ContextDecorator, ExitStack
from contextvars import ContextVar
from typing import Any

from .interface import Backend, BackendError, MissingBackendError
from .numpy_backend import NumpyBackend
from .transfers import BLOCKS, COPY, UPLOAD, WAIT, TransferError, leave

__all__ = [
    "Backend", "BackendError", "MissingBackendError", "TransferError", "available",
    "forbid_transfers", "get", "of", "set", "use",
]  # fmt: skip

_numpy = NumpyBackend()
_loaded: dict[str, Backend] = {"numpy": _numpy}
BY_TYPE: dict[type, Backend] = {_numpy.array_type: _numpy}
_default: Backend | None = None
#: The blocks of `use` around, each with its backend.
_current: ContextVar[tuple[tuple[object, Backend], ...]] = ContextVar(
    "microgradnd_backend", default=()
)


def register(backend: Backend) -> Backend:
    """Make a backend known under its name and array type."""
    _loaded[backend.name] = backend
    BY_TYPE[backend.array_type] = backend
    return backend


def _load(name: str, variable: bool = False) -> Backend:
    if not isinstance(name, str):
        raise TypeError(f"a backend is named by text, 'numpy' or 'cupy', got {name!r}")
    name = name.strip().lower()
    if name in _loaded:
        return _loaded[name]
    if name == "cupy":
        from . import cupy_backend

        asked = "MICROGRADND_BACKEND=cupy, but " if variable else ""
        return register(cupy_backend.load(asked))
    if name == "auto":
        try:
            chosen, why = _load("cupy"), "CuPy found a usable device"
        except BackendError as error:
            chosen, why = _numpy, str(error)
        print(f"microgradnd: auto took {chosen.name}: {why}", file=sys.stderr)
        return chosen
    raise ValueError(
        ("MICROGRADND_BACKEND=" if variable else "")
        + f"{name!r} is not a backend; choose 'numpy', 'cupy' or 'auto'."
    )


def get() -> Backend:
    """Give the current backend: where arrays made from numbers and lists live.

    Raises:
        ValueError: If `MICROGRADND_BACKEND` names no backend.
        BackendError: If the backend it names cannot be used here; nothing falls back silently.
    """
    global _default
    if blocks := _current.get():
        return blocks[-1][1]
    if _default is None:
        _default = _load(os.environ.get("MICROGRADND_BACKEND", "").strip() or "numpy", True)
    return _default


def set(name: str | Backend) -> Backend:
    """Choose the default backend of this process by name; gives it back."""
    global _default
    _default = name if isinstance(name, Backend) else _load(name)
    return _default


class use(ContextDecorator):
    """Make another backend current inside a `with` block, or a decorated function.

    It holds in this thread. Without `with` it changes nothing; `set` does, for the process.

    Args:
        name: `"numpy"`, `"cupy"`, or a backend.

    Raises:
        ValueError: For an unknown name, at the call.
        BackendError: If the backend cannot be used here.
    """

    def __init__(self, name: str | Backend):
        self._backend = name if isinstance(name, Backend) else _load(name)

    def __enter__(self) -> Backend:
        _current.set((*_current.get(), (self, self._backend)))
        return self._backend

    def __exit__(self, *error: object) -> None:
        leave(_current, self)


class forbid_transfers(ContextDecorator):
    """Turn hidden traffic with a device into errors; a `with` block, also a decorator.

    Inside, in this thread, reading a value of a device array (`item`, `numpy`, `float`, `print`,
    a boolean mask as index), waiting for the device, and an upload of host data raise. A training
    step needs none of these: upload the batch before the block, and read the loss behind it. On
    NumPy there is no traffic, so nothing raises. Raw CuPy arrays are watched too, but for the
    uploads that CuPy makes of host arrays by itself.

    Args:
        uploads: Allow uploads, for a block that takes batches from a loader.

    Raises:
        TransferError: Where it happens; the message names the line.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([1.0, 2.0], requires_grad=True)
        >>> with mg.backend.forbid_transfers():
        ...     (x * x).sum().backward()
        >>> x.grad
        Tensor([2., 4.])
    """

    def __init__(self, uploads: bool = False):
        if not isinstance(uploads, bool):
            raise TypeError(f"forbid_transfers: uploads is True or False, got {uploads!r}")
        self._kinds = frozenset((COPY, WAIT) if uploads else (UPLOAD, COPY, WAIT))

    def __enter__(self) -> None:
        with ExitStack() as stack:
            for backend in list(_loaded.values()):
                stack.enter_context(backend.watched())
            BLOCKS.set((*BLOCKS.get(), (self, self._kinds, stack.pop_all())))

    def __exit__(self, *error: object) -> None:
        if block := leave(BLOCKS, self):
            block[2].close()


def named(name: str) -> Backend:
    """Give a backend by name, loading it if need be."""
    return _load(name)


def available() -> dict[str, str]:
    """Say of every backend whether it can be used: its name, and `"ok"` or the reason why not."""
    report = {}
    for name in dict.fromkeys(["numpy", "cupy", *_loaded]):
        try:
            _load(name)
            report[name] = "ok"
        except BackendError as error:
            report[name] = str(error)
    return report


def of(array: Any) -> Backend:
    """Give the backend that an array belongs to.

    Raises:
        TypeError: If it is no array of a loaded backend.
    """
    backend = BY_TYPE.get(type(array))
    if backend is None and type(array).__module__.partition(".")[0] == "cupy":
        backend = _load("cupy")
    if backend is None:
        raise TypeError(f"{type(array).__name__} is not an array of any loaded backend")
    return backend
