"""Functions that an object calls when it has done something, and how they are taken away again."""

from __future__ import annotations

from itertools import count
from threading import Lock
from typing import Any

_number = count(1).__next__  # of a hook: never given twice, so an old handle removes no new hook
_lock = Lock()


class Handle:
    """Takes a hook away again: call `remove()`."""

    def __init__(self, owner: Any, kind: str, number: int):
        self._owner, self._kind, self._number = owner, kind, number

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        with _lock:
            hooks = dict(getattr(self._owner, self._kind))
            hooks.pop(self._number, None)
            setattr(self._owner, self._kind, hooks)


def attach(owner: Any, kind: str, hook: Any) -> Handle:
    """Add a hook to those that an owner has by number in its attribute `kind`."""
    number = _number()
    with _lock:
        # A new dict: somebody may be going through the old one, or share it (a class, a copy).
        setattr(owner, kind, {**getattr(owner, kind), number: hook})
    return Handle(owner, kind, number)
