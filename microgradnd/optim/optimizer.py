"""What all optimizers share: groups, state, and parameters in flat buffers.

The parameters of a group that have one dtype and live on one backend are laid one after the other
in a buffer, and each becomes a view of its place there. A step then is a handful of calls on whole
buffers, however many layers there are. An algorithm says two things: `scalars`, the numbers of
a step, in plain Python; and `update`, a formula of `xp` and arrays, which gives new arrays
and writes into none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import is_
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import backend as backends
from ..arraylike import to_array
from ..backend import Backend
from ..functions import zeros_like
from ..hooks import Handle, attach
from ..modes import enable_grad
from ..tape import Tensor, raw, wrap

ALIGNMENT = 64  # bytes: of a cache line, and of the widest registers
FREE = ("initial_lr", "name")  # what a group may say besides the algorithm's options


class Flat:
    """Parameters in one buffer, with their slots (momenta and the like) in buffers of their own.

    Attributes:
        params: The Tensors, in order.
        views: Their places in the buffer; a parameter whose array is another was replaced.
        starts, stops: Where each begins and ends, counted in elements.
        gaps: What fills the space behind each, or None.
        slots: Buffers by name.
        steps: How often each parameter was updated.
    """

    def __init__(self, params: list[Tensor]):
        self.params = params
        home, self.dtype = params[0].backend, params[0].dtype
        unit = ALIGNMENT // self.dtype.itemsize
        self.starts, self.stops, self.gaps = [], [], []
        place = 0
        for p in params:
            self.starts.append(place)
            self.stops.append(place + p.size)
            place = -(-(place + p.size) // unit) * unit
            gap = place - self.stops[-1]
            self.gaps.append(home.xp.zeros((gap,), dtype=self.dtype) if gap else None)
        self.size = place
        self.buffer = home.aligned(place, self.dtype, ALIGNMENT)
        self.views = []
        for p, start, stop in zip(params, self.starts, self.stops, strict=True):
            view = self.buffer[start:stop].reshape(p.shape)
            view[...] = p._array
            p._array, p._storage = view, None
            self.views.append(view)
        self.slots: dict[str, Any] = {}
        self.steps = [0] * len(params)

    @property
    def backend(self) -> Backend:
        """Where the buffers live."""
        return backends.of(self.buffer)

    def intact(self) -> bool:
        """Whether every parameter still is its view of the buffer."""
        return all(p._array is view for p, view in zip(self.params, self.views, strict=True))

    def runs(self, scalars: Callable[[int], Any]) -> Iterator[tuple[int, int]]:
        """Give neighbours that have a gradient and the same numbers in this step: `[first, last)`.

        Args:
            scalars: Gives the numbers of a parameter's t-th step.
        """
        has = [p._node is not None and p._node.grad is not None for p in self.params]
        n = len(has)
        if all(has) and self.steps.count(self.steps[0]) == n:
            yield 0, n
            return
        kinds = {t: scalars(t + 1) for t in set(self.steps)}
        first = 0
        while first < n:
            last = first + 1
            if has[first]:
                kind = kinds[self.steps[first]]
                while last < n and has[last] and kinds[self.steps[last]] == kind:
                    last += 1
                yield first, last
            first = last

    def part(self, first: int, last: int) -> slice:
        """Give the place of a run; the last one ends with the buffer."""
        end = self.size if last == len(self.params) else self.stops[last - 1]
        return slice(self.starts[first], end)

    def gradient(self, first: int, last: int) -> Any:
        """Give the gradients of a run as one vector, gaps included."""
        parts = []
        for i in range(first, last):
            parts.append(self.params[i]._node.grad._array.reshape(-1))
            if self.gaps[i] is not None and (i + 1 < last or last == len(self.params)):
                parts.append(self.gaps[i])
        return self.backend.xp.concatenate(parts) if len(parts) > 1 else parts[0]

    def slot(self, name: str, value: float) -> Any:
        """Give a slot's buffer, made when it is first wanted."""
        if name not in self.slots:
            self.slots[name] = self.backend.xp.full((self.size,), value, dtype=self.dtype)
        return self.slots[name]

    def state(self, i: int, slots: dict[str, Any]) -> dict[str, Any]:
        """Give a parameter's number of steps and some slots, copied; nothing before its first."""
        if not self.steps[i]:
            return {}
        part, shape = slice(self.starts[i], self.stops[i]), self.params[i].shape
        copies = {n: wrap(s[part].reshape(shape).copy()) for n, s in slots.items()}
        return {"step": self.steps[i], **copies}

    def restore(self, i: int, state: dict[str, Any], initial: Callable[[str], float]) -> None:
        """Set a parameter's number of steps and its slots."""
        self.steps[i] = int(state.get("step", 0))
        part = slice(self.starts[i], self.stops[i])
        for name in self.slots.keys() - state.keys():  # of steps that are forgotten now
            self.slots[name][part] = initial(name)
        for name, value in state.items():
            if name != "step":
                values = to_array(raw(value), self.dtype, self.backend).reshape(-1)
                self.slot(name, initial(name))[part] = values


class Optimizer:
    """Updates parameters by their gradients; subclasses are the algorithms.

    A subclass defines `slots`, `scalars` and `update`, and may define `flags`. Use it as PyTorch's:
    `zero_grad()`, a loss, `backward()`, `step()`.

    Args:
        params: Parameters, `(name, parameter)` pairs, or dicts with `"params"` and options of their
            own (groups).
        defaults: The options of groups that say nothing else.

    Attributes:
        param_groups: A dict per group: `"params"`, and the options, which may be changed.
        on_nonfinite: What a step does about gradients with NaN or infinities: nothing
            (`"ignore"`, the default), `"raise"`, or `"skip"` itself. To look at them waits for a
            device. Set it after the optimizer is made.
        skipped: How many steps were skipped.

    Raises:
        TypeError: If something is no parameter.
        ValueError: If there are none, one comes twice, is no leaf, or an option is out of range.
    """

    _before: Mapping[int, Any] = MappingProxyType({})  # hooks; none until one is registered
    _after: Mapping[int, Any] = MappingProxyType({})

    def __init__(self, params: Any, defaults: dict[str, Any]):
        self.defaults = defaults
        self._policy, self.skipped = "ignore", 0
        self.param_groups: list[dict[str, Any]] = []
        self._flats: list[list[Flat]] = []
        self._laid: list[list[Tensor]] = []  # the parameters of each group that are in its buffers
        groups = _groups(params, type(self).__name__)
        for group in groups:
            self.add_param_group(group)

    # --- what an algorithm says

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Name the arrays that are kept for each parameter of a group."""
        return ()

    def initial(self, group: dict[str, Any], name: str) -> float:
        """Give the value that a slot begins with."""
        return 0.0

    def flags(self, group: dict[str, Any]) -> dict[str, bool]:
        """Give the choices that decide which formula `update` is."""
        return {}

    def scalars(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        """Give the numbers of step t = 1, 2, ...: plain Python, computed anew at each step."""
        raise NotImplementedError

    @staticmethod
    def update(xp: Any, p: Any, g: Any, *slots_and_scalars: Any, **flags: bool) -> tuple[Any, ...]:
        """Give the new parameter and the new slots as new arrays: a formula like a primitive's."""
        raise NotImplementedError

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options out of range."""
        _not_negative(type(self).__name__, group, "lr", "weight_decay", "eps", "momentum")

    # --- use

    @property
    def on_nonfinite(self) -> str:
        """What a step does about gradients that are not finite; see the class."""
        return self._policy

    @on_nonfinite.setter
    def on_nonfinite(self, policy: str) -> None:
        if policy not in ("ignore", "raise", "skip"):
            who = f"{type(self).__name__}: on_nonfinite"
            raise ValueError(f"{who} is 'ignore', 'raise' or 'skip', got {policy!r}")
        self._policy = policy

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with options of their own.

        Raises:
            TypeError: If something is no parameter, or an option is unknown.
            ValueError: See the class; nothing was changed.
        """
        who = type(self).__name__
        group = dict(group)
        params = _tensors(group.pop("params", None), who)
        unknown = [name for name in group if name not in (*self.defaults, *FREE)]
        if unknown:
            raise TypeError(f"{who}: unknown options {unknown}; it takes {list(self.defaults)}")
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for p in params:
            if id(p) in known:
                raise ValueError(f"{who}: a parameter of shape {p.shape} comes twice")
            known.add(id(p))
        group = {"params": params, **self.defaults, **group}
        self.check(group)
        self.param_groups.append(group)
        self._flats.append(_flatten(params))
        self._laid.append(list(params))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set those that exist to zero."""
        for group in self.param_groups:
            for p in group["params"]:
                if p._node is not None and p._node.grad is not None:
                    p._node.grad = None if set_to_none else zeros_like(p._node.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; all is computed before anything is written.

        Args:
            closure: Computes the loss and calls backward; what it gives is given back.

        Raises:
            FloatingPointError: If a gradient is not finite and `on_nonfinite` is `"raise"`.
        """
        if not (self._before or self._after):
            return self._step(closure)
        args: tuple[Any, ...] = () if closure is None else (closure,)
        kwargs: dict[str, Any] = {}
        for before in self._before.values():
            changed = before(self, args, kwargs)
            if changed is not None:
                args, kwargs = changed
        loss = self._step(*args, **kwargs)
        for after in self._after.values():
            after(self, args, kwargs)
        return loss

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step, without the hooks."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if len(self.param_groups) != len(self._flats):
            raise RuntimeError("step: param_groups has another length; use add_param_group")
        if self._policy != "ignore" and (told := self._nonfinite()):
            if self._policy == "raise":
                raise FloatingPointError(f"{type(self).__name__}: {told}; nothing was updated")
            self.skipped += 1
            return loss
        ready = []
        for number, group in enumerate(self.param_groups):
            names, flags = self.slots(group), self.flags(group)
            for flat in self._current(number):
                with flat.backend.quiet():
                    for first, last in flat.runs(partial(self.scalars, group)):
                        part = flat.part(first, last)
                        g = flat.gradient(first, last)
                        held = [flat.slot(n, self.initial(group, n))[part] for n in names]
                        # NumPy's numbers, of a schedule perhaps, would widen the arrays.
                        scalars = map(float, self.scalars(group, flat.steps[first] + 1))
                        new = self.update(
                            flat.backend.xp, flat.buffer[part], g, *held, *scalars, **flags
                        )
                        ready.append((flat, first, last, part, names, new))
        for flat, first, last, part, names, (p, *slots) in ready:
            flat.buffer[part] = p
            for name, slot in zip(names, slots, strict=True):
                if slot.size == flat.size:
                    flat.slots[name] = slot
                else:
                    flat.slots[name][part] = slot
            for i in range(first, last):
                flat.steps[i] += 1
                storage = flat.params[i]._storage
                if storage is not None:
                    storage.version[0] += 1
        return loss

    def _nonfinite(self) -> str:
        """Name the first gradient that is not finite, or give `""`; one wait for each buffer."""
        for number in range(len(self.param_groups)):
            for flat in self._current(number):
                held = [p for p in flat.params if p._node is not None and p._node.grad is not None]
                if not held:
                    continue
                xp = flat.backend.xp
                fine = xp.stack([xp.all(xp.isfinite(p._node.grad._array), axis=None) for p in held])
                bad = np.flatnonzero(~flat.backend.to_numpy(fine))
                if bad.size:
                    p = held[bad[0]]
                    i = next(i for i, q in enumerate(self.param_groups[number]["params"]) if q is p)
                    values = flat.backend.to_numpy(p._node.grad._array)
                    at = np.unravel_index(np.argmin(np.isfinite(values)), values.shape)
                    return (
                        f"the gradient of parameter {i} of group {number}, shape {p.shape}, has "
                        f"{values[at].item()} at index {[int(k) for k in at]}; "
                        "mg.detect_anomaly() says where it comes from"
                    )
        return ""

    def register_step_pre_hook(self, hook: Callable[[Any, Any, Any], Any]) -> Handle:
        """Call `hook(optimizer, args, kwargs)` before each step, with the arguments of `step`.

        It may give new ones, as a pair `(args, kwargs)`.

        Returns:
            A handle whose `remove()` takes the hook away.
        """
        return attach(self, "_before", hook)

    def register_step_post_hook(self, hook: Callable[[Any, Any, Any], Any]) -> Handle:
        """Call `hook(optimizer, args, kwargs)` after each step that did not raise."""
        return attach(self, "_after", hook)

    def _current(self, number: int) -> list[Flat]:
        """A group's buffers, made anew where the user replaced or moved a parameter."""
        flats, params = self._flats[number], self.param_groups[number]["params"]
        laid = self._laid[number]
        same = len(laid) == len(params) and all(map(is_, laid, params))
        if not same or not all(flat.intact() for flat in flats):
            group = self.param_groups[number]
            states = {
                id(p): flat.state(i, flat.slots)
                for flat in flats
                for i, p in enumerate(flat.params)
            }
            flats = self._flats[number] = _flatten(_tensors(params, type(self).__name__))
            self._laid[number] = list(params)
            for flat in flats:
                for i, p in enumerate(flat.params):
                    flat.restore(i, states.get(id(p), {}), partial(self.initial, group))
        return flats

    def _held(self, number: int, flat: Flat) -> dict[str, Any]:
        """The slots that a group's options ask for; those of earlier options are left out."""
        group = self.param_groups[number]
        return {name: flat.slot(name, self.initial(group, name)) for name in self.slots(group)}

    def _places(self) -> Iterator[tuple[Tensor, Flat, int]]:
        """Every parameter in the order of the groups, with its buffer and its number there."""
        for number, group in enumerate(self.param_groups):
            where = {
                id(p): (flat, i)
                for flat in self._current(number)
                for i, p in enumerate(flat.params)
            }
            for p in group["params"]:
                yield (p, *where[id(p)])

    # --- state

    def state_dict(self) -> dict[str, Any]:
        """Give `{"state": {number: {"step", slots}}, "param_groups": [...]}`, tensors copied.

        Parameters are numbered in the order of the groups; one that was never updated has no state.
        """
        owners = [k for k, group in enumerate(self.param_groups) for _ in group["params"]]
        state = {
            i: flat.state(k, self._held(owner, flat))
            for i, (owner, (_, flat, k)) in enumerate(zip(owners, self._places(), strict=True))
        }
        groups, start = [], 0
        for group in self.param_groups:
            numbers = list(range(start, start + len(group["params"])))
            groups.append({**group, "params": numbers})
            start += len(numbers)
        return {"state": {i: s for i, s in state.items() if s}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set state and options to those that `state_dict` gave, after checking all of it.

        Raises:
            ValueError: Naming what does not fit; nothing was changed.
        """
        who = f"load_state_dict of {type(self).__name__}"
        if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
            raise ValueError(f"{who}: a dict with 'state' and 'param_groups' is wanted")
        groups = state["param_groups"]
        have = [len(group["params"]) for group in self.param_groups]
        got = [len(group["params"]) for group in groups]
        if have != got:
            raise ValueError(f"{who}: groups of {got} parameters, {have} are wanted")
        saved = {int(i): s for i, s in state["state"].items()}
        numbers = [i for group in groups for i in group["params"]]
        places = list(self._places())
        options = [{**self.param_groups[k], **_options(group)} for k, group in enumerate(groups)]
        owners = [k for k, n in enumerate(have) for _ in range(n)]
        faults = []
        for k, group in enumerate(options):
            self.check(group)
            if unknown := group.keys() - self.defaults.keys() - set(FREE) - {"params"}:
                faults.append(f"group {k} has the unknown options {sorted(unknown)}")
        for i, owner, (p, _, _) in zip(numbers, owners, places, strict=True):
            own = saved.get(i, {})
            names = {"step", *self.slots(options[owner])} if own else set()
            if own.keys() != names:
                faults.append(f"parameter {i} has {sorted(own)}, {sorted(names)} are wanted")
            for name, value in own.items():
                what = f"{name} of parameter {i}"
                if name == "step":
                    if not hasattr(value, "__float__") or not float(value) >= 0.0:
                        faults.append(f"{what} is {value!r}, a number of steps is wanted")
                elif (shape := getattr(value, "shape", "none")) != p.shape:
                    faults.append(f"{what} has shape {shape}, {p.shape} is wanted")
                elif value.dtype.kind != "f":
                    faults.append(f"{what} is {value.dtype}, {p.dtype} is wanted")
        surplus = sorted(saved.keys() - set(numbers))
        if surplus:
            faults.append(f"state of the unknown parameters {surplus}")
        if faults:
            raise ValueError(f"{who}: " + "; ".join(faults))
        for group, new in zip(self.param_groups, options, strict=True):
            group.update(_options(new))
        for i, owner, (_, flat, k) in zip(numbers, owners, places, strict=True):
            group = self.param_groups[owner]
            flat.restore(k, saved.get(i, {}), partial(self.initial, group))

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for i, group in enumerate(self.param_groups):
            n = sum(p.size for p in group["params"])
            shown = ", ".join(f"{k}={v!r}" for k, v in group.items() if k != "params")
            lines.append(f"  group {i}: {len(group['params'])} parameters ({n:,} numbers), {shown}")
        return "\n".join([*lines, ")"])


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """The options of a group, with lists (of a file) as tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in group.items()
        if name != "params"
    }


def _groups(params: Any, who: str) -> list[dict[str, Any]]:
    """What the user gave, as groups."""
    if isinstance(params, (Tensor, dict, str)) or not isinstance(params, Iterable):
        raise TypeError(
            f"{who}: parameters come in a list, as in {who}(model.parameters()); got a "
            f"{type(params).__name__}"
        )
    given = list(params)
    if not given:
        raise ValueError(f"{who}: there are no parameters (was a generator used twice?)")
    if any(isinstance(item, dict) for item in given):
        wrong = next((item for item in given if not isinstance(item, dict)), None)
        if wrong is not None:
            raise TypeError(f"{who}: groups and a {type(wrong).__name__} in one list")
        return given
    return [{"params": given}]


def _tensors(params: Any, who: str) -> list[Tensor]:
    """A group's parameters, checked."""
    if params is None:
        raise ValueError(f"{who}: a group has no 'params'")
    given = [params] if isinstance(params, Tensor) else list(params)
    if not given:
        raise ValueError(f"{who}: a group has no parameters (was a generator used twice?)")
    tensors: list[Any] = [p[1] if isinstance(p, tuple) and len(p) == 2 else p for p in given]
    for p in tensors:
        if not isinstance(p, Tensor):
            raise TypeError(f"{who}: a parameter is a Tensor, got a {type(p).__name__}")
        if not p.is_leaf:
            raise ValueError(f"{who}: a parameter of shape {p.shape} is the result of an "
                             f"operation ({p._node.op.name}), no leaf")  # fmt: skip
        if p.dtype.kind != "f":
            raise TypeError(f"{who}: a parameter must be float, got {p.dtype}")
    if len({id(p) for p in tensors}) != len(tensors):
        raise ValueError(f"{who}: a parameter comes twice in one group")
    return tensors


def _flatten(params: list[Tensor]) -> list[Flat]:
    kinds: dict[Any, list[Tensor]] = {}
    for p in params:
        kinds.setdefault((p.backend.name, p.dtype), []).append(p)
    return [Flat(same) for same in kinds.values()]


def _not_negative(who: str, group: dict[str, Any], *names: str) -> None:
    for name in names:
        value = group.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise TypeError(f"{who}: {name} must be a number, got {value!r}")
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{who}: {name} must be 0 or positive and finite, got {group[name]}")
