"""Packages that are wanted only for some things: imported when needed, or named in the error."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def need(module: str, extra: str, who: str) -> Any:
    """Import an optional module on behalf of `who`.

    Raises:
        ImportError: If it is not installed; the message names the extra that brings it.

    Example:
        >>> need("json", "none", "mg.example").dumps([1])
        '[1]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f'{who} needs {package}, of the extra {extra!r}: pip install -e ".[{extra}]" in a '
            f'checkout, else pip install "microgradnd[{extra}]" (here: {error})',
            name=package,
        ) from error
