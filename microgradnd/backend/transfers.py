"""A guard against hidden traffic: copies between host and device, and waiting for the device.

A device backend calls `check` at each of its doors. What a program does with raw CuPy arrays goes
past these doors; readings of them (`get`, `float`, `print`, a boolean mask as index) are caught all
the same, for CuPy makes them all by `ndarray.get`. Uploads that CuPy makes by itself are not seen.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

from ..frames import line, place, user_frame

UPLOAD, COPY, WAIT = "an upload to", "a copy from", "a wait for"
_lock = Lock()
_watchers: Counter[type] = Counter()  # blocks that watch an array class, in all threads
_plain: dict[type, Any] = {}  # its own `get`, None if that is inherited
#: The blocks of `forbid_transfers` around: each with what it forbids, and what watches for it.
BLOCKS: ContextVar[tuple[tuple[object, frozenset[str], ExitStack], ...]] = ContextVar(
    "microgradnd_forbidden", default=()
)


class TransferError(RuntimeError):
    """Traffic between host and device where `forbid_transfers` allows none."""


def check(kind: str) -> None:
    """Raise if traffic of this kind is forbidden here.

    Raises:
        TransferError: It names the line of the user's code, and how it is avoided.
    """
    if not any(kind in kinds for _, kinds, _ in BLOCKS.get()):
        return
    frame = user_frame(sys._getframe(1))
    text = line(frame)
    text = f", `{text if len(text) <= 80 else text[:77] + '...'}`" if text else ""
    remedy = (
        "make it before the block, or with uploads=True" if kind is UPLOAD
        else "keep the Tensor, and read it after the block"
    )  # fmt: skip
    raise TransferError(
        f"{kind} the device at {place(frame)}{text}: inside forbid_transfers(); {remedy}"
    )


@contextmanager
def watching(kind: Any) -> Iterator[None]:
    """Check every call of an array class's `get` inside the block, and in nested ones."""
    with _lock:
        if not _watchers[kind]:
            own, plain = "get" in vars(kind), kind.get
            _plain[kind] = plain if own else None

            def get(array: Any, *args: Any, **options: Any) -> Any:
                check(COPY)
                return plain(array, *args, **options)

            kind.get = get
        _watchers[kind] += 1
    try:
        yield
    finally:
        with _lock:
            _watchers[kind] -= 1
            if not _watchers[kind]:
                if _plain[kind] is None:
                    del kind.get
                else:
                    kind.get = _plain[kind]


def leave(blocks: ContextVar[Any], owner: object) -> Any:
    """Take the innermost block of an owner from those around, and give it.

    Threads have blocks of their own, also of one owner. Blocks may end in any order, as those
    inside of generators do.
    """
    around = blocks.get()
    for i in reversed(range(len(around))):
        if around[i][0] is owner:
            blocks.set((*around[:i], *around[i + 1 :]))
            return around[i]
    return None
