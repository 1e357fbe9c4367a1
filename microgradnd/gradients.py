"""Gradients as a user sees them: the flag that asks for one, `grad`, and hooks.

Hooks look at a gradient, or change it, when the reverse pass has it complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from types import MappingProxyType
from typing import Any

from .arraylike import check_gradient, cotangent
from .modes import Switch

_number = count(1).__next__
RETAIN = "retain"  # stands among the hooks of a node whose gradient is kept


class Passes:
    """Hooks that hear of every `backward` and `grad` of the process.

    After `attach(Passes, "hooks", f)`, `f(root)` gets the tensor that is differentiated, before any
    gradient is there, in the thread that does it.
    """

    hooks: Mapping[int, Callable[[Any], None]] = MappingProxyType({})


def announce(root: Any) -> None:
    """Tell the hooks of `Passes` that a reverse pass begins."""
    if Passes.hooks:
        for hook in Passes.hooks.values():
            hook(root)


class HasGradient:
    """The side of a Tensor that shows its node: flag, gradient and hooks all live there."""

    __slots__ = ()

    _node: Any
    requires_grad_: Callable[[bool], Any]

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        self.requires_grad_(flag)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._node is None or self._node.op is None

    @property
    def grad(self) -> Any:
        """The gradient that `backward` left here (a Tensor), or None."""
        return None if self._node is None else self._node.grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            check_gradient(value, self)
        if self._node is not None:
            self._node.grad = value

    def register_hook(self, hook: Callable[[Any], Any]) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is complete; what it gives replaces it.

        Returns:
            A function that removes the hook again.

        Raises:
            RuntimeError: If the tensor does not require a gradient.
        """
        hooks = self._hooks("register_hook")
        number = _number()
        hooks[number] = hook

        def remove() -> None:
            hooks.pop(number, None)

        return remove

    def retain_grad(self) -> None:
        """Also leave this intermediate result's gradient in its `grad`.

        Raises:
            RuntimeError: If the tensor does not require a gradient.
        """
        hooks = self._hooks("retain_grad")
        if self._node.op is not None:
            hooks[RETAIN] = None

    def _hooks(self, what: str) -> dict[Any, Any]:
        if self._node is None:
            raise RuntimeError(f"{what}: this tensor does not require a gradient")
        if self._node.hooks is None:
            self._node.hooks = {}
        return self._node.hooks


def run_hooks(node: Any, gradient: Any, taped: bool) -> Any:
    """Give a node's gradient (a Tensor) after its hooks, and keep it if that was asked for."""
    with Switch(recording=taped):
        for key, hook in list(node.hooks.items()):
            result = None if key == RETAIN else hook(gradient)
            if result is not None:
                gradient = cotangent(result, gradient, "hook")
    if RETAIN in node.hooks:
        node.grad = gradient if taped else gradient.clone()
    return gradient
