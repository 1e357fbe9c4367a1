"""What recording depends on: gradient mode, watchers, the default dtype; one state per context.

A new thread starts with the defaults, so one thread's `no_grad` never reaches another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

import numpy as np


class Mode:
    """What recording depends on; immutable, one per context (so per thread)."""

    __slots__ = ("default_dtype", "recording", "watch")

    def __init__(self, recording: bool = True, watch: Any = None, default_dtype: Any = None):
        self.recording = recording
        self.watch = watch  # sees every node and gradient: mg.trace, mg.detect_anomaly
        self.default_dtype = default_dtype or np.dtype("float32")

    def but(self, **changes: Any) -> Mode:
        """Give a copy with some fields changed."""
        return Mode(**{name: getattr(self, name) for name in Mode.__slots__} | changes)


MODE: ContextVar[Mode] = ContextVar("microgradnd_mode", default=Mode())  # noqa: B039 (immutable)


class Switch:
    """A change of mode, as a context manager (reentrant) and as a decorator."""

    def __init__(self, **changes: Any):
        self.changes = changes
        self.tokens: list[Any] = []

    def __enter__(self) -> Switch:
        self.tokens.append(MODE.set(MODE.get().but(**self.changes)))
        return self

    def __exit__(self, *exc: object) -> None:
        MODE.reset(self.tokens.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function; every call makes the change anew, so threads do not meet in it."""
        if getattr(function, "__code__", None) and function.__code__.co_flags & 0x20:

            @wraps(function)
            def stepped(*args: Any, **kwargs: Any) -> Any:  # a generator: each step by itself
                steps, sent = function(*args, **kwargs), None
                while True:
                    with Switch(**self.changes):
                        try:
                            item = steps.send(sent)
                        except StopIteration as end:
                            return end.value
                    sent = yield item

            return stepped

        @wraps(function)
        def switched(*args: Any, **kwargs: Any) -> Any:
            with Switch(**self.changes):
                return function(*args, **kwargs)

        return switched


def no_grad(function: Any = None) -> Any:
    """Compute without recording; a context manager, and a decorator with or without brackets."""
    return Switch(recording=False) if function is None else Switch(recording=False)(function)


def enable_grad(function: Any = None) -> Any:
    """Record again inside `no_grad`; a context manager, and a decorator."""
    return Switch(recording=True) if function is None else Switch(recording=True)(function)


def is_grad_enabled() -> bool:
    """Say whether operations are being recorded in this context."""
    return MODE.get().recording


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype that Python floats and lists of them become, in this context.

    Raises:
        TypeError: If it is not float16, float32 or float64.
    """
    dtype = np.dtype(dtype)
    if dtype.char not in "efd":
        raise TypeError(f"the default dtype must be float16, float32 or float64, got {dtype}")
    MODE.set(MODE.get().but(default_dtype=dtype))


def get_default_dtype() -> Any:
    """Give the dtype that Python floats become."""
    return MODE.get().default_dtype
