"""Modules: objects that hold parameters and other modules, with PyTorch's names and meanings.

A module's attributes are ordinary attributes; parameters, buffers and children are found among
them when they are asked for, in the order in which they were set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from warnings import warn

import numpy as np

from ..arraylike import check_dtype, to_array
from ..backend import Backend
from ..functions import zeros_like
from ..hooks import Handle, attach
from ..modes import no_grad
from ..tape import Tensor, raw, wrap

Self = TypeVar("Self", bound="Module")
NONE: Mapping[Any, Any] = MappingProxyType({})


class Parameter(Tensor):
    """A Tensor that a module counts among its parameters.

    Args:
        data: Numbers, (nested) lists, an array or a Tensor; copied.
        requires_grad: Whether it is trained.
        dtype: The dtype wanted, if not that of the data.

    Example:
        >>> import microgradnd as mg
        >>> mg.nn.Parameter([1.0, 2.0])
        Parameter([1., 2.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, dtype: Any = None):
        super().__init__(data, dtype, requires_grad)


class Keys(NamedTuple):
    """What `load_state_dict(strict=False)` did not find: names on one side only."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A part of a network: `forward` computes, the attributes hold what it computes with.

    Subclasses set parameters, modules and buffers as attributes in `__init__` and define
    `forward`. Calling the module runs `forward` between its hooks.

    Example:
        >>> import microgradnd as mg
        >>> class Scale(mg.nn.Module):
        ...     def __init__(self):
        ...         self.factor = mg.nn.Parameter(2.0)
        ...     def forward(self, x):
        ...         return self.factor * x
        >>> scale = Scale()
        >>> scale(mg.tensor([1.0, 2.0])).sum().backward()
        >>> [(name, p.grad.item()) for name, p in scale.named_parameters()]
        [('factor', 3.0)]
    """

    training: bool = True
    # Shared by all modules until one sets its own: there is nothing that `super().__init__()` must
    # do.
    _persistent: Mapping[str, bool] = NONE  # the buffers by name, and whether they are saved
    _before: Mapping[int, Any] = NONE
    _after: Mapping[int, tuple[Any, bool]] = NONE  # hooks, and whether errors do not stop them

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every module defines its own."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` between the hooks."""
        if not (self._before or self._after):
            return self.forward(*args, **kwargs)
        # Hooks are never changed in their dict: `attach` makes a new one. Their numbers grow.
        out, number = None, 0
        try:
            for before in self._before.values():
                changed = before(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
            out = self.forward(*args, **kwargs)
            for number, (after, _) in self._after.items():  # noqa: B007
                changed = after(self, args, out)
                out = out if changed is None else changed
        except BaseException as error:
            for later, (after, always) in self._after.items():
                if always and later > number:
                    try:
                        after(self, args, out)
                    except Exception as another:
                        error.add_note(f"and a forward hook raised {another!r}")
            raise
        return out

    # --- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless that would take a parameter or buffer away unnoticed.

        Raises:
            TypeError: If a parameter would be replaced by what is none, or a buffer by no tensor.
        """
        if isinstance(self.__dict__.get(name), Parameter) and not isinstance(
            value, (Parameter, type(None))
        ):
            raise TypeError(
                f"{type(self).__name__}.{name} is a parameter and cannot become a "
                f"{type(value).__name__}; use nn.Parameter(...), or .assign_() under no_grad()"
            )
        if name in self._persistent and isinstance(value, Parameter):
            delattr(self, name)  # a parameter from now on
        if name in self._persistent and not isinstance(value, (Tensor, type(None))):
            raise TypeError(
                f"{type(self).__name__}.{name} is a buffer and cannot become a "
                f"{type(value).__name__}; give it a Tensor or None"
            )
        if isinstance(value, (list, tuple, dict)) and _hides_modules(value):
            warn(
                f"{type(self).__name__}.{name} is a {type(value).__name__} of modules, whose "
                "parameters nobody finds; use nn.ModuleList or nn.ModuleDict",
                stacklevel=2,
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        if name in self._persistent:
            self._persistent = {n: saved for n, saved in self._persistent.items() if n != name}

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Set a tensor (or None) that moves and is saved with the module but is not trained.

        Args:
            name: The attribute's name, without a dot.
            tensor: A Tensor, or None.
            persistent: Whether `state_dict` has it.

        Raises:
            TypeError: If it is neither a Tensor nor None, or is a Parameter.
            ValueError: If the name has a dot.
            KeyError: If the attribute exists and is no buffer.
        """
        if "." in name:
            raise ValueError(f"register_buffer: the name {name!r} has a dot")
        if not isinstance(tensor, (Tensor, type(None))) or isinstance(tensor, Parameter):
            raise TypeError(f"register_buffer: a Tensor or None, got {type(tensor).__name__}")
        if hasattr(self, name) and name not in self._persistent:
            raise KeyError(f"register_buffer: {type(self).__name__} has an attribute {name!r}")
        self._persistent = {**self._persistent, name: persistent}
        setattr(self, name, tensor)

    def add_module(self, name: str, module: Module) -> None:
        """Set a child by name, which may be a number in text.

        Raises:
            TypeError: If it is no Module.
            KeyError: If the name is empty or has a dot, or is that of something else.
        """
        if not isinstance(module, Module):
            raise TypeError(f"add_module: {name!r} is a {type(module).__name__}, no Module")
        if not name or "." in name:
            raise KeyError(f"add_module: a name is not empty and has no dot, got {name!r}")
        if hasattr(self, name) and not isinstance(self.__dict__.get(name), Module):
            raise KeyError(f"add_module: {type(self).__name__} has an attribute {name!r}")
        setattr(self, name, module)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Set a parameter by name, or None where there is none."""
        if not isinstance(parameter, (Parameter, type(None))):
            raise TypeError(
                f"register_parameter: {name!r} is a {type(parameter).__name__}; wrap it in "
                "nn.Parameter"
            )
        setattr(self, name, parameter)

    # --- what is inside

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Give the modules that are attributes of this one, by name; each once."""
        seen: set[int] = set()
        for name, value in self.__dict__.items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """Give the modules that are attributes of this one."""
        return (module for _, module in self.named_children())

    def _places(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Every module under every name that leads to it, this one first."""
        yield prefix, self
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield from value._places(f"{prefix}.{name}" if prefix else name)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Give this module and all below it by dotted name; a shared one once."""
        return _once(self._places(prefix))

    def modules(self) -> Iterator[Module]:
        """Give this module and all below it; a shared one once."""
        return (module for _, module in self.named_modules())

    def _saved(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers, under all their names."""
        return {
            f"{place}.{name}" if place else name: value
            for place, module in self._places()
            for name, value in module.__dict__.items()
            if isinstance(value, Parameter)
            or (isinstance(value, Tensor) and module._persistent.get(name))
        }

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Give the parameters by dotted name; a shared one once, under its first name."""
        places = self._places(prefix) if recurse else [(prefix, self)]
        return _once(
            (f"{place}.{name}" if place else name, value)
            for place, module in places
            for name, value in module.__dict__.items()
            if isinstance(value, Parameter)
        )

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Give the parameters; a shared one once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Give the buffers by dotted name; a shared one once."""
        return _once(
            (f"{place}.{name}" if place else name, module.__dict__[name])
            for place, module in self._places(prefix)
            for name in module._persistent
            if module.__dict__[name] is not None
        )

    def buffers(self) -> Iterator[Tensor]:
        """Give the buffers; a shared one once."""
        return (b for _, b in self.named_buffers())

    # --- changes to all of it

    def apply(self: Self, function: Callable[[Module], Any]) -> Self:
        """Call a function on every module below this one, then on it; gives the module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode (dropout drops, batch normalization averages); gives the module."""
        if not isinstance(mode, bool):
            raise TypeError(f"train: mode must be True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode; gives the module."""
        return self.train(False)

    def requires_grad_(self: Self, flag: bool = True) -> Self:
        """Train all parameters or, with False, freeze them; gives the module."""
        for p in self.parameters():
            p.requires_grad_(flag)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or set those that exist to zero."""
        for p in self.parameters():
            if p.grad is not None:
                p.grad = None if set_to_none else zeros_like(p.grad)  # times 0 would keep NaN

    def to(self: Self, target: Any) -> Self:
        """Move everything to a backend (`"cupy"`) or floats to a dtype, in place; gives the module.

        Parameters stay the same objects, so optimizers keep them and take their state along.

        Raises:
            TypeError: For a dtype that is no float; nothing was changed.
        """
        named = isinstance(target, (str, Backend)) and target not in np.sctypeDict
        if not named and check_dtype(target).kind != "f":
            raise TypeError(f"to: parameters are floats and cannot become {np.dtype(target)}")
        for tensor in [*self.parameters(), *self.buffers()]:
            _move(tensor, target)
        return self

    # --- state

    def state_dict(self) -> dict[str, Tensor]:
        """Give parameters and persistent buffers by dotted name: the same memory, off the tape."""
        return {name: tensor.detach() for name, tensor in self._saved().items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Keys:
        """Overwrite parameters and persistent buffers with values by name.

        Everything is checked before anything is changed. Floats are converted to the dtype of the
        module's tensor; integers and floats are not mistaken for each other.

        Args:
            state: Tensors or arrays by dotted name, PyTorch's tensors too.
            strict: Whether every name must be on both sides; of a shared tensor's names, one.

        Returns:
            The missing and the unexpected names (none if strict).

        Raises:
            TypeError: If the state is no mapping.
            ValueError: Naming every name, shape and dtype that does not fit.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: a dict is wanted, got a {type(state).__name__}")
        own = self._saved()
        given = {id(tensor) for name, tensor in own.items() if name in state}
        missing = [name for name, tensor in own.items() if id(tensor) not in given]
        unexpected = [name for name in state if name not in own]
        faults = []
        if strict:
            faults += [f"missing {name!r}{_like(name, unexpected)}" for name in missing]
            faults += [f"unexpected {name!r}{_like(name, missing)}" for name in unexpected]
        values = {}
        for name in [name for name in own if name in state]:
            tensor, value = own[name], state[name]
            if hasattr(value, "__dlpack__") and not hasattr(value.dtype, "kind"):  # PyTorch's
                value = to_array(value)
            if not (hasattr(value, "shape") and hasattr(value, "dtype")):
                faults.append(f"{name!r} is a {type(value).__name__}, no tensor or array")
            elif tuple(value.shape) != tensor.shape:
                faults.append(f"{name!r} has shape {tuple(value.shape)}, {tensor.shape} is wanted")
            elif value.dtype.kind not in ("f" if tensor.dtype.kind == "f" else "biu"):
                faults.append(f"{name!r} is {value.dtype}, {tensor.dtype} is wanted")
            else:
                values[name] = to_array(raw(value), tensor.dtype, tensor.backend)
        if faults:
            within = [name for name in unexpected if isinstance(state[name], Mapping)]
            hint = f" (mg.load gives objects by name: pass [{within[0]!r}])" if within else ""
            raise ValueError(
                f"load_state_dict of {type(self).__name__}: {'; '.join(faults)}{hint}"
            )
        with no_grad():
            for name, array in values.items():
                own[name].assign_(wrap(array))
        return Keys(missing, unexpected)

    # --- hooks

    def register_forward_hook(
        self, hook: Callable[[Any, Any, Any], Any], *, always_call: bool = False
    ) -> Handle:
        """Call `hook(module, args, output)` after each forward; what it gives replaces the output.

        Args:
            hook: The function.
            always_call: Call it also if forward or another hook raises; the output then is None,
                or what there is of it. What it raises itself becomes a note of that error.

        Returns:
            A handle whose `remove()` takes the hook away.
        """
        return attach(self, "_after", (hook, always_call))

    def register_forward_pre_hook(self, hook: Callable[[Any, Any], Any]) -> Handle:
        """Call `hook(module, args)` before each forward; what it gives replaces the arguments."""
        return attach(self, "_before", hook)

    # --- looks

    def extra_repr(self) -> str:
        """Give what stands in brackets behind the name of the module's class."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.__dict__.items()
            if isinstance(child, Module)
        ]
        inside = "\n  ".join([self.extra_repr(), *lines] if self.extra_repr() else ["", *lines])
        return f"{type(self).__name__}({inside}" + ("\n)" if lines else ")")


def _once(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _hides_modules(values: Any) -> bool:
    items = values.values() if isinstance(values, dict) else values
    return any(isinstance(item, Module) for item in items)


def _like(name: str, others: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, others, n=1)
    return f" (there is {close[0]!r})" if close else ""


def _move(tensor: Tensor, target: Any) -> None:
    """Give a tensor another array, on a backend or of a float dtype; its gradient goes along."""
    with no_grad():
        moved = tensor.detach().to(target)
        if moved._array is tensor._array or (
            moved.backend is tensor.backend and tensor.dtype.kind != "f"
        ):
            return
        node, grad = tensor._node, tensor.grad
        tensor._array, tensor._node, tensor._storage = moved._array, None, None
        if node is not None:
            tensor.requires_grad_()
            tensor._node.hooks = node.hooks
            tensor._node.grad = None if grad is None else grad.to(target)
            node.hooks = {0: _lost}


def _lost(gradient: Any) -> None:
    """Refuse a gradient from a graph made before a move: no parameter would get it."""
    raise RuntimeError(
        "backward: a parameter was moved (Module.to) after this graph was made from it, so its "
        "gradient would be lost; move the model first, then compute the loss"
    )


class Lambda(Module):
    """A plain function as a module: what `Sequential` makes of one."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def forward(self, *args: Any) -> Any:
        """Call the function."""
        return self.function(*args)

    def extra_repr(self) -> str:
        """Give the function's name."""
        return getattr(self.function, "__name__", repr(self.function))


def _as_module(thing: Any) -> Module:
    if isinstance(thing, Module):
        return thing
    if isinstance(thing, type) or not callable(thing):
        hint = "; make one first" if isinstance(thing, type) else ""
        if isinstance(thing, (list, tuple)):
            hint = "; hand its items over one by one, as in Sequential(*modules)"
        raise TypeError(f"a module or a function is wanted, got {thing!r}{hint}")
    return Lambda(thing)


class ModuleList(Module):
    """A list of modules whose parameters are found."""

    def __init__(self, modules: Iterable[Any] = ()):
        if not isinstance(modules, Iterable):
            raise TypeError(f"ModuleList: a list of modules is wanted, got {modules!r}")
        self.extend(modules)

    def append(self: Self, module: Any) -> Self:
        """Add a module (or a function) at the end; gives the list."""
        number = len(self)  # type: ignore[arg-type]
        while str(number) in self.__dict__:  # a part of another list, with that one's numbers
            number += 1
        self.add_module(str(number), _as_module(module))
        return self

    def extend(self: Self, modules: Iterable[Any]) -> Self:
        """Add several modules at the end; gives the list."""
        for module in modules:
            self.append(module)  # type: ignore[attr-defined]
        return self

    def _names(self) -> list[str]:
        return [name for name, value in self.__dict__.items() if isinstance(value, Module)]

    def _items(self) -> list[Module]:
        return [self.__dict__[name] for name in self._names()]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def __getitem__(self, index: int | slice) -> Any:
        chosen = self._items()[index]
        return type(self)(chosen) if isinstance(chosen, list) else chosen

    def __setitem__(self, index: int, module: Any) -> None:
        setattr(self, self._names()[index], _as_module(module))


class Sequential(ModuleList):
    """Modules, or plain functions, one after the other.

    Args:
        modules: Modules and functions of one tensor, or one dict of them by name.

    Example:
        >>> import microgradnd as mg
        >>> net = mg.nn.Sequential(mg.nn.Linear(2, 3), mg.tanh, mg.nn.Linear(3, 1))
        >>> net(mg.zeros((5, 2))).shape
        (5, 1)
    """

    def __init__(self, *modules: Any):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, _as_module(module))
        else:
            self.extend(modules)

    def forward(self, x: Any) -> Any:
        """Hand the input from module to module."""
        for module in self._items():
            x = module(x)
        return x

    def __getitem__(self, index: int | slice) -> Any:
        """Give a module, or those of a slice as another Sequential under the same names."""
        if isinstance(index, slice):
            return type(self)({name: self.__dict__[name] for name in self._names()[index]})
        return self._items()[index]


class ModuleDict(Module):
    """Modules by name, whose parameters are found."""

    def __init__(self, modules: Mapping[str, Any] | None = None):
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: Any) -> None:
        self.add_module(name, _as_module(module))

    def __getitem__(self, name: str) -> Module:
        return dict(self.items())[name]

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def __len__(self) -> int:
        return len(self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.items()))

    def __contains__(self, name: object) -> bool:
        return name in dict(self.items())

    def keys(self) -> Any:
        """Give the names."""
        return dict(self.items()).keys()

    def values(self) -> Any:
        """Give the modules."""
        return dict(self.items()).values()

    def items(self) -> list[tuple[str, Module]]:
        """Give names and modules."""
        return [(n, value) for n, value in self.__dict__.items() if isinstance(value, Module)]
