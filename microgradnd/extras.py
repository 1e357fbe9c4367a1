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


class Drawable:
    """What can be drawn; a subclass says on which axes and how, and in its docstring what."""

    def _canvas(self) -> dict[str, Any]:
        """Give the arguments of `pyplot.subplots`."""
        raise NotImplementedError

    def _draw(self, axes: Any) -> None:
        """Draw on what `pyplot.subplots` gave."""
        raise NotImplementedError

    def plot(self, path: Any = None) -> Any:
        """Draw it.

        Args:
            path: Write the picture there.

        Returns:
            The matplotlib figure (closed, if it was written).

        Raises:
            ImportError: Without matplotlib.
        """
        plt = need("matplotlib.pyplot", "examples", f"{type(self).__name__}.plot")
        figure, axes = plt.subplots(layout="constrained", **self._canvas())
        self._draw(axes)
        if path is not None:
            figure.savefig(path)
            plt.close(figure)
        return figure
