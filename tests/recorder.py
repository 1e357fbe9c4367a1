"""A backend that writes down what is called instead of computing it: the recorder's prototype.

Its arrays, `Recorded`, know a shape and a dtype and no values. Every call of `xp`, every operator
and every comparison becomes one line of a straight-line `Program`, and *one* rule gives the shape
and dtype of each result: NumPy's own function is run on dummies (one element, spread over the
operand's shape by zero strides). So a name that is added to the closed list is recordable as it
is. What needs values raises `Unrecordable` and says which operation asked.

    program = RECORDER.start()
    x = mg.asarray(program.input((2, 3), "float32")).requires_grad_()
    mg.tanh(x).sum().backward()
    program.outputs = [x.grad._array]
    print(program)
    (gradient,) = replay(program, [values])
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

import microgradnd.backend as backends
from microgradnd.backend import Backend
from microgradnd.backend.namespace import NAMES, decode

NUMPY = backends.named("numpy")
BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]
BINARY += ["lshift", "rshift"]
COMPARE = ["eq", "ne", "lt", "le", "gt", "ge"]
UNARY = ["neg", "pos", "abs", "invert"]
#: Functions of matrices that must have an inverse.
INVERTED = {"inv", "solve", "cholesky"}
#: Where these names have their index arrays.
INDEXED = {"getitem": 1, "setitem": 2, "scatter_add": 1}


class Unrecordable(RuntimeError):
    """An operation needs values, and a recording has none."""

    def __init__(self, name: str, why: str = "it needs values"):
        super().__init__(f"{name} cannot be recorded: {why}")


class Slot(NamedTuple):
    """Stands in the arguments of a call for an array: the number of the value."""

    number: int

    def __repr__(self) -> str:
        return f"v{self.number}"


class Call(NamedTuple):
    """One line of a program.

    Attributes:
        name: A function of `xp`, or `operator.<name>` for Python's operators.
        args, options: Its arguments, with a `Slot` in place of every array.
        outputs: The numbers of the values that it gives: one, or several, or (a check) none.
    """

    name: str
    args: Any
    options: dict[str, Any]
    outputs: list[int]

    @property
    def inputs(self) -> list[int]:
        """The numbers of the values that it reads, in order."""
        return [x.number for x in leaves([self.args, list(self.options.values())])]

    def __repr__(self) -> str:
        words = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.options.items())]
        call = f"{self.name}({', '.join(words)})"
        return f"{', '.join(f'v{n}' for n in self.outputs)} = {call}" if self.outputs else call


def leaves(tree: Any) -> Any:
    """Go through the slots in nested lists and tuples."""
    if type(tree) in (list, tuple):
        for item in tree:
            yield from leaves(item)
    elif type(tree) is Slot:
        yield tree


def swap(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Give nested lists and tuples with every leaf changed."""
    if type(tree) in (list, tuple):
        return type(tree)([swap(item, change) for item in tree])
    return change(tree)


class Program:
    """A straight-line program in which every value is assigned once.

    Attributes:
        inputs: The numbers of the values handed in, in order.
        constants: The arrays that were uploaded while recording, by number.
        calls: The lines.
        outputs: What a replay gives; set by whoever records.
    """

    def __init__(self) -> None:
        self.inputs: list[int] = []
        self.constants: dict[int, np.ndarray] = {}
        self.calls: list[Call] = []
        self.outputs: list[Recorded] = []
        self.count = 0

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.calls))

    def value(self, shape: Any, dtype: Any, base: Recorded | None = None) -> Recorded:
        """Give a new value, as yet made by nothing."""
        self.count += 1
        return Recorded(tuple(shape), np.dtype(dtype), self, self.count, base)

    def input(self, shape: Any, dtype: Any) -> Recorded:
        """Give a value that a replay will be handed."""
        value = self.value(shape, dtype)
        self.inputs.append(value.number)
        return value

    def constant(self, array: np.ndarray) -> Recorded:
        """Give a value that is known now."""
        value = self.value(array.shape, array.dtype)
        self.constants[value.number] = array.copy()
        return value

    def call(self, name: str, args: Any, options: dict[str, Any] | None = None) -> Any:
        """Write down a call; what it gives is found by calling NumPy on dummies."""
        options = options or {}
        key = INDEXED.get(name)
        if key is not None and any(i.dtype.kind == "b" for i in args[key]):
            raise Unrecordable(f"{name} with a boolean mask", "values decide how many it takes")
        dummies: list[tuple[Any, Recorded]] = []

        def lower(x: Any) -> Any:
            if type(x) is Recorded:
                if x.program is not self:
                    raise RuntimeError(f"{name}: an array of another recording")
                dummies.append((invertible(x) if name in INVERTED else dummy(x), x))
                return dummies[-1][0]
            if isinstance(x, np.ndarray):
                raise TypeError(f"{name}: a {type(x).__name__} among recorded arrays")
            return x

        low = swap(args, lower), {k: swap(v, lower) for k, v in options.items()}
        with np.errstate(all="ignore"):
            result = function(name)(*low[0], **low[1])
        for low_x, x in dummies:
            if result is low_x:  # given back as it is
                return x
        template = swap(args, slot), {k: swap(v, slot) for k, v in options.items()}
        several = isinstance(result, tuple)
        outs = []
        for part in result if several else () if result is None else (result,):
            part = np.asarray(part)
            shared = (x for low_x, x in dummies if np.may_share_memory(part, low_x))
            outs.append(self.value(part.shape, part.dtype, next(shared, None)))
        self.calls.append(Call(name, *template, [out.number for out in outs]))
        return tuple(outs) if several else outs[0] if outs else None


def slot(x: Any) -> Any:
    """Give the slot of a recorded array, and anything else as it is."""
    return Slot(x.number) if type(x) is Recorded else x


def dummy(x: Recorded) -> np.ndarray:
    """Give an array of one element, spread: 1, or (for a valid index) 0 among integers."""
    one = np.ones((), x.dtype) if x.dtype.kind == "f" else np.zeros((), x.dtype)
    return np.broadcast_to(one, x.shape)


def invertible(x: Recorded) -> np.ndarray:
    """Give a dummy that has an inverse and a square root: identity matrices."""
    if x.ndim < 2:
        return dummy(x)
    return np.broadcast_to(np.eye(*x.shape[-2:], dtype=x.dtype), x.shape)


def function(name: str) -> Callable[..., Any]:
    """Give what a line of a program calls, for NumPy arrays."""
    if name == "bits":
        return NUMPY.bits
    space, _, short = name.rpartition(".")
    return getattr(operator if space else NUMPY.xp, short)


def replay(program: Program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Run the lines of a program on NumPy arrays; gives its outputs."""
    values: dict[int, Any] = dict(zip(program.inputs, arrays, strict=True)) | program.constants

    def fetch(x: Any) -> Any:
        return values[x.number] if type(x) is Slot else x

    with np.errstate(all="ignore"):
        for call in program.calls:
            options = {k: swap(v, fetch) for k, v in call.options.items()}
            result = function(call.name)(*swap(call.args, fetch), **options)
            several = result if isinstance(result, tuple) else (result,)
            values.update(zip(call.outputs, map(np.asarray, several), strict=False))
    return [values[out.number] for out in program.outputs]


class Recorded:
    """An array without values.

    Writing into it makes a new value and lets this handle stand for it, so a program stays single-
    assignment; where another handle shares the memory, that would not be seen, and is refused.

    Attributes:
        shape, dtype: As of any array.
        program, number: Which value of which program it stands for.
        base: The array whose memory it may share, or None.
    """

    __slots__ = ("__weakref__", "base", "dtype", "number", "program", "shape", "views")
    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy's scalars defer to it

    def __init__(self, shape: Any, dtype: Any, program: Program, number: int, base: Any = None):
        self.shape, self.dtype, self.program, self.number = shape, dtype, program, number
        self.base = base if base is None or base.base is None else base.base
        self.views: WeakSet[Recorded] = WeakSet()
        if self.base is not None:
            self.base.views.add(self)

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: int(np.prod(self.shape, dtype=object)))
    nbytes = property(lambda self: self.size * self.dtype.itemsize)

    def __repr__(self) -> str:
        return f"v{self.number}: {self.dtype}{self.shape}"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def copy(self) -> Recorded:
        return self.program.call("copy", (self,))

    def reshape(self, shape: Any) -> Recorded:
        return self.program.call("reshape", (self, shape))

    def __getitem__(self, key: Any) -> Recorded:
        return self.program.call("getitem", (self, *taken_apart("[...]", key)))

    def __setitem__(self, key: Any, value: Any) -> None:
        indices, key = taken_apart("[...] =", key)
        if not isinstance(value, Recorded | int | float | bool | np.generic):
            raise TypeError(f"[...] =: a {type(value).__name__} among recorded arrays")
        self.become("[...] =", self.program.call("setitem", (self, value, indices, key)))

    def become(self, name: str, new: Recorded) -> Recorded:
        """Stand for another value from now on."""
        if self.base is not None or self.views:
            raise Unrecordable(f"{name} in place", "the memory is shared with a view")
        if new.shape != self.shape:
            raise ValueError(f"{name} in place: {new.shape} does not fit {self.shape}")
        if new.dtype != self.dtype:
            if not np.can_cast(new.dtype, self.dtype, "same_kind"):
                raise TypeError(f"{name} in place: cannot cast {new.dtype} to {self.dtype}")
            new = self.program.call("astype", (new, self.dtype))
        self.number = new.number
        return self


def taken_apart(name: str, key: Any) -> tuple[list[Recorded], tuple[Any, ...]]:
    """Give the index arrays of an index, and its static key."""
    items = key if isinstance(key, tuple) else (key,)
    indices = [item for item in items if type(item) is Recorded]
    static = tuple(
        "array" if type(item) is Recorded
        else (item.start, item.stop, item.step) if isinstance(item, slice)
        else item if item is None or item is Ellipsis else operator.index(item)
        for item in items
    )  # fmt: skip
    decode(static, indices)
    return indices, static


def equip() -> None:
    """Give `Recorded` its operators, and the refusals."""

    def known(x: Any) -> bool:
        return isinstance(x, Recorded | bool | int | float | np.generic)

    def add_binary(symbol: str) -> None:
        name = f"operator.{symbol}" + "_" * (symbol in ("and", "or"))

        def forward(self: Recorded, other: Any) -> Any:
            return self.program.call(name, (self, other)) if known(other) else NotImplemented

        def reflected(self: Recorded, other: Any) -> Any:
            return self.program.call(name, (other, self)) if known(other) else NotImplemented

        def in_place(self: Recorded, other: Any) -> Any:
            if not known(other):
                return NotImplemented
            return self.become(name, self.program.call(name, (self, other)))

        setattr(Recorded, f"__{symbol}__", forward)
        if symbol in BINARY:
            setattr(Recorded, f"__r{symbol}__", reflected)
            setattr(Recorded, f"__i{symbol}__", in_place)

    def add_unary(symbol: str) -> None:
        setattr(
            Recorded, f"__{symbol}__", lambda self: self.program.call(f"operator.{symbol}", (self,))
        )

    def refuse(name: str) -> None:
        def refused(self: Recorded, *args: Any, **options: Any) -> Any:
            raise Unrecordable(name)

        setattr(Recorded, name, refused)

    for symbol in BINARY + COMPARE:
        add_binary(symbol)
    for symbol in UNARY:
        add_unary(symbol)
    for name in (
        "__bool__", "__float__", "__int__", "__index__", "__iter__", "__contains__", "__array__",
        "__dlpack__", "__dlpack_device__", "item", "tolist",
    ):  # fmt: skip
        refuse(name)


equip()


class Recorder(Backend):
    """The backend whose arrays are `Recorded`: calls go into the current program."""

    name = "recorder"
    array_type = Recorded

    def __init__(self) -> None:
        self.program = Program()
        self.xp = Namespace(self)

    def start(self) -> Program:
        """Begin a new program."""
        self.program = Program()
        return self.program

    def asarray(self, data: Any, dtype: Any = None) -> Recorded:
        if type(data) is Recorded:
            return data if dtype is None else self.program.call("astype", (data, np.dtype(dtype)))
        return self.program.constant(np.asarray(data, dtype=dtype))

    def to_numpy(self, array: Recorded) -> Any:
        raise Unrecordable("reading values (item, numpy, float, bool, print)")

    def from_dlpack(self, data: Any) -> Any:
        raise Unrecordable("from_dlpack")

    def shares_memory(self, x: Recorded, y: Recorded) -> bool:
        roots = [a if a.base is None else a.base for a in (x, y)]
        return roots[0] is roots[1]

    def bits(self, key: tuple[int, int], counter: int, n: int) -> Recorded:
        return self.program.call("bits", (key, counter, n))


class Namespace:
    """The `xp` of a recording: exactly the closed list."""

    def __init__(self, recorder: Recorder) -> None:
        def recorded(name: str) -> Callable[..., Any]:
            def write_down(*args: Any, **options: Any) -> Any:
                return recorder.program.call(name, args, options)

            write_down.__name__ = name
            return write_down

        vars(self).update({name: recorded(name) for name in NAMES})


RECORDER = Recorder()
