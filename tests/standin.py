"""A strict stand-in for CuPy: device semantics on NumPy, for tests on machines without a GPU.

`cupy` and `special` take the places of the modules `cupy` and `cupyx.scipy.special`. What exists,
and with which parameters, is read from `data/cupy_signatures.json`, written from the real wheel.
Arrays wrap NumPy's and never are one, so nothing mixes by accident; what CuPy refuses, does
differently or pays for with a synchronisation happens here too, with CuPy's words. `counting()`
tells what was launched, synchronised and copied; `used_calls()` what must exist in the real CuPy.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

TABLE = json.loads((Path(__file__).parent / "data" / "cupy_signatures.json").read_text())
DTYPES = "?bhilqBHILQefdFD"
SCALARS = {bool, int, float, complex}
TINY = np.finfo(np.float32).tiny
NOT_DEVICE = "Argument '{}' has incorrect type (expected cupy._core.core._ndarray_base, got {})"


# ------------------------------------------------------------------------ counters and the record


class Counters:
    """Calls, calls that gave only views, synchronisations, copies to and from the host.

    `pinned` are the uploads from page-locked memory, counted among the uploads too. A copy that
    CuPy makes in silence (a host array as an index) counts both ways.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        self.launches = self.views = self.syncs = self.host_copies = self.uploads = self.pinned = 0


counters = Counters()
_active = [counters]
_used = set()
_inside = []
_pool = {"used": 0, "held": 0}


def count(*fields):
    for active in _active:
        for field in fields:
            setattr(active, field, getattr(active, field) + 1)


@contextmanager
def counting():
    """Give counters for what happens inside the block."""
    _active.append(inside := Counters())
    try:
        yield inside
    finally:
        _active.remove(inside)


def used_calls():
    """Give every (name, positional count, keywords, types of the operands) seen so far."""
    return sorted({
        (*call, tuple(x.__name__ if isinstance(x, type) else str(x) for x in kinds))
        for *call, kinds in _used
    })  # fmt: skip


def launch(name, args=(), kwargs=()):
    """Count a call and, unless it is part of another one, write it down."""
    count("launches")
    if not _inside:
        note(name, args, kwargs)


def noted(name, function):
    """Write down the calls of a function that is written here, and none that it makes itself."""

    @functools.wraps(function)
    def noting(*args, **kwargs):
        _inside.append(name)
        try:
            result = function(*args, **kwargs)
        finally:
            _inside.pop()
        if not _inside:
            note(name, args, kwargs)
        return result

    return noting


def note(name, args, kwargs):
    """Write a call down, as `used_calls` gives it."""
    kinds = list(kinds_of(args))
    if kwargs:
        kinds += kinds_of(kwargs.values())
    _used.add((name, len(args), tuple(sorted(kwargs)), tuple(kinds)))


def kinds_of(operands):
    """Give the dtypes of arrays and NumPy's scalars, and the types of Python's, in nested lists."""
    for x in operands:
        if isinstance(x, ndarray | np.generic):
            yield x.dtype
        elif type(x) in SCALARS:
            yield type(x)
        elif isinstance(x, list | tuple):
            yield from kinds_of(x)


# ---------------------------------------------------------------- from the device to NumPy and back


def leaves(x):
    """Go through nested lists and tuples."""
    if isinstance(x, list | tuple):
        for item in x:
            yield from leaves(item)
    else:
        yield x


def kind(x):
    """Name an object's type as CuPy's messages do."""
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


def new(data, base=None):
    """Give a device array over host memory that nobody else sees."""
    if data.dtype.char not in DTYPES:
        raise ValueError(f"Unsupported dtype {data.dtype}")
    array = object.__new__(ndarray)
    array._data, array.base = data, base if base is None or base.base is None else base.base
    if base is None:
        _pool["used"] += data.nbytes
        _pool["held"] = max(_pool["held"], _pool["used"])
    return array


def upload(x, dtype=None):
    """Copy host data to the device in silence, as CuPy does in a few places."""
    count("uploads", "host_copies")
    return np.array(x, dtype=dtype)


def read_back(number):
    """Copy a number to the host, as CuPy does where a size depends on values."""
    new(np.asarray(number)).get()


def is_pinned(array):
    """Whether an array lies in memory of `alloc_pinned_memory`, directly or as a view."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array.obj if isinstance(array, memoryview) else array, Pinned)


class Pinned(bytearray):
    """Page-locked host memory."""


def wrap(result, owners):
    """Give results as device arrays, never scalars; what overlaps an operand is a view of it."""
    if isinstance(result, list | tuple):
        return type(result)([wrap(item, owners) for item in result])
    if not isinstance(result, np.ndarray | np.generic):
        return result
    for owner in owners:
        if result is owner._data:
            return owner
        if isinstance(result, np.ndarray) and np.may_share_memory(result, owner._data):
            count("views")
            return new(result, owner)
    return new(np.asarray(result))


def run(name, host, *args, **kwargs):
    """Call a NumPy function on the wrapped arrays; arrays of the host are refused."""
    launch(name, args, kwargs)
    owners = []

    def lower(x):
        if isinstance(x, ndarray):
            owners.append(x)
            return x._data
        if isinstance(x, np.ndarray):
            raise TypeError(f"Unsupported type {type(x)}")
        return type(x)(map(lower, x)) if type(x) in (list, tuple) else x

    args, kwargs = [lower(x) for x in args], {key: lower(x) for key, x in kwargs.items()}
    with np.errstate(all="ignore"):
        return wrap(host(*args, **kwargs), owners)


def operand(x):
    """Refuse what is neither a device array nor a scalar."""
    if isinstance(x, ndarray | np.generic) or type(x) in SCALARS:
        return x
    raise TypeError(f"Unsupported type {type(x)}")


# ------------------------------------------------------------------------------------- the array


class ndarray:
    """An array on the pretended device."""

    __slots__ = ("__weakref__", "_data", "base")
    __module__ = "cupy"
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        """Make an array of garbage, NaN if possible, so that reading it shows."""
        dtype = np.dtype(dtype)
        garbage = math.nan if dtype.kind in "fc" else 77
        made = new(np.full(shape, garbage, dtype, order))
        self._data, self.base, made.base = made._data, None, self

    def __del__(self):
        if getattr(self, "base", self) is None:
            _pool["used"] -= self._data.nbytes

    T = property(lambda self: self if self.ndim < 2 else new(self._data.T, self))
    mT = property(lambda self: new(self._data.mT, self))
    device = property(lambda self: cupy.cuda.Device())
    __cuda_array_interface__ = property(lambda self: self._data.__array_interface__)

    @property
    def flags(self):
        c, f = self._data.flags.c_contiguous, self._data.flags.f_contiguous
        return SimpleNamespace(c_contiguous=c, f_contiguous=f, owndata=self.base is None)

    # What needs values on the host waits for the device.

    def get(self, stream=None, order="C", out=None, blocking=True):
        count("syncs", "host_copies")
        if out is None:
            return np.array(self._data, order=order)
        out[...] = self._data
        return out

    def set(self, arr, stream=None):
        """Copy host data into the array; CuPy does not wait for it if the memory is page-locked."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(
                f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}"
            )
        count("uploads", *(["pinned"] if is_pinned(arr) else []))
        self._data[...] = arr

    def item(self):
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        if self.size == 0:
            text = "The truth value of an empty array is ambiguous. Returning False, but in future "
            text += "this will result in an error. Use `array.size > 0` to check that an array is "
            warnings.warn(text + "not empty.", DeprecationWarning, stacklevel=2)
            return False
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        return bool(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    def __array__(self, dtype=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __dlpack_device__(self):
        return 2, 0  # kDLCUDA

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if dl_device != (1, 0):
            raise BufferError("no device in the stand-in")
        if copy is False:
            raise ValueError("GPU memory cannot be exported to CPU without copy.")
        return self.get().__dlpack__()

    # NumPy's functions on device arrays run "on the device".

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        function = getattr(cupy, ufunc.__name__, None)
        known = all(
            isinstance(x, np.ndarray | np.generic) or type(x) in SCALARS
            or hasattr(x, "__cuda_array_interface__") for x in (*inputs, *out)
        )  # fmt: skip
        if function is None or not known:
            return NotImplemented
        if out:
            (kwargs["out"],) = out
        if ufunc.__name__ in COMPARISONS.values():  # the one place where 0-d host arrays may mix
            scalar = [isinstance(x, np.ndarray) and x.ndim == 0 for x in inputs]
            inputs = [x.item() if s else x for x, s in zip(inputs, scalar, strict=True)]
        return (function if method == "__call__" else getattr(function, method))(*inputs, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        path = [*func.__module__.split(".")[1:], func.__name__]
        try:
            function = functools.reduce(getattr, path, cupy)
        except AttributeError:
            return NotImplemented
        known = all(issubclass(t, ndarray | np.ndarray) for t in types)
        return function(*args, **kwargs) if known else NotImplemented

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self):
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        launch("ndarray.__getitem__")
        key, arrays = index(self, key)
        if arrays:
            return new(np.array(self._data[key]))
        count("views")
        return new(self._data[key if Ellipsis in key else (*key, ...)], self)

    def __setitem__(self, key, value):
        launch("ndarray.__setitem__")
        key, arrays = index(self, key)
        value = stored(self, value, arrays)
        with np.errstate(all="ignore"):
            if any(a.dtype.kind != "b" for a in arrays) and self.size:
                # With repeated indices CuPy keeps an unspecified value: here the first.
                places = np.arange(self.size).reshape(self.shape)[key]
                value = np.broadcast_to(value, places.shape).ravel()
                places, first = np.unique(places, return_index=True)
                key, value = np.unravel_index(places, self.shape), value[first]
            self._data[key] = value

    def fill(self, value):
        self[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        for name, given in (("casting", casting), ("subok", subok)):
            if given is not None:
                raise TypeError(f"{name} is not supported yet")
        return run("ndarray.astype", lambda x: x.astype(dtype, order, copy=copy), self)

    def squeeze(self, axis=None):
        result = run("ndarray.squeeze", np.squeeze, self, axis)
        return self if result.ndim == self.ndim else result  # CuPy gives the array itself

    def take(self, indices, axis=None, out=None):
        if not isinstance(indices, ndarray | int):
            indices = new(upload(indices, int))
        host = functools.partial(np.take, axis=axis, mode="wrap")
        return run("ndarray.take", host, self, indices, out=out)

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return array, (self.get(),)


def index(array, key):
    """Check an index as CuPy does; give it for NumPy, arrays in it wrapped, and those arrays."""
    items = list(key) if isinstance(key, tuple) else [key]
    for n, item in enumerate(items):
        if isinstance(item, ndarray):
            items[n] = item._data
        elif isinstance(item, slice) and item.step == 0:
            raise ValueError("Slice step must be nonzero.")
        elif item is None or item is Ellipsis or isinstance(item, slice):
            continue
        elif not np.isscalar(item) or isinstance(item, bool | np.bool_):
            items[n] = upload(item)
            if isinstance(item, list | tuple) and not items[n].size:
                items[n] = items[n].astype(np.int32)
            if items[n].dtype.char not in DTYPES:
                raise IndexError(
                    "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and "
                    "integer or boolean arrays are valid indices"
                )
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    used = [  # how many axes each item takes
        0 if item is None or item is Ellipsis
        else item.ndim if isinstance(item, np.ndarray) and item.dtype.kind == "b" else 1
        for item in items
    ]  # fmt: skip
    if sum(used) > array.ndim:
        raise IndexError(
            f"too many indices for array: array is {array.ndim}-dimensional, "
            f"but {sum(used)} were indexed"
        )
    axis = 0
    for n, item in enumerate(items):
        size = array.shape[axis] if used[n] else None
        if item is Ellipsis:
            axis += array.ndim - sum(used)
        elif isinstance(item, np.ndarray) and item.dtype.kind == "b":
            read_back(np.count_nonzero(item))  # how many are true decides the shape
            for i, length in enumerate(item.shape, axis):
                if length not in (0, array.shape[i]):
                    raise IndexError(
                        f"boolean index did not match indexed array along dimension {i}; dimension "
                        f"is {array.shape[i]} but corresponding boolean dimension is {length}"
                    )
        elif isinstance(item, np.ndarray):
            if item.dtype.kind not in "iu":
                raise IndexError(
                    "arrays used as indices must be of integer or boolean type. "
                    f"(actual: {item.dtype.type})"
                )
            items[n] = item.astype(np.int64) % (size or 1)
        elif used[n] and not isinstance(item, slice):
            items[n] = int(item)
            if not -size <= items[n] < size:
                raise IndexError(f"Index {item} is out of bounds for axis {axis} with size {size}")
        axis += used[n]
    return tuple(items), arrays


def stored(array, value, arrays):
    """Give what an assignment stores: a device array, a scalar or, beside index arrays, a list."""
    if isinstance(value, ndarray):
        lead = next((i for i, n in enumerate(value.shape) if n != 1), value.ndim)
        return value._data.reshape(value.shape[lead:])
    if np.ndim(value) == 0:
        return value
    if not arrays:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    return upload(value, array.dtype)


# ---------------------------------------------------------------------------------------- ufuncs

#: What `ufunc.at` can do, as CuPy's error message says it.
AT = dict.fromkeys(["bitwise_and", "bitwise_or", "bitwise_xor"], "int32, int64, uint32, uint64 as")
AT |= dict.fromkeys(["maximum", "minimum"], "int32, int64, float32, float64, uint32, uint64 as")
AT["add"] = "int32, int64, float16, float32, float64, uint32, uint64 as"
AT["subtract"] = "int32, uint32, as"


NOT_BOOLEAN = {
    "negative": "The cupy boolean negative, the `-` operator, is not supported, use the `~` "
    "operator or the logical_not function instead.",
    "positive": "The cupy boolean positive, the `+` operator, is not supported.",
    "subtract": "cupy boolean subtract, the `-` operator, is deprecated, use the bitwise_xor, the "
    "`^` operator, or the logical_xor function instead.",
}


def floor_divide(x, y):
    """Divide as CuPy's kernels do: floats by no more than a division and a floor."""
    quotient = np.floor_divide(x, y)
    return np.floor(np.true_divide(x, y)) if quotient.dtype.kind == "f" else quotient


def remainder(x, y):
    """Give what `floor_divide` leaves; CuPy has no other case for an infinite divisor."""
    rest = np.remainder(x, y)
    if rest.dtype.kind != "f":
        return rest
    wide = [np.asarray(z, np.promote_types(rest.dtype, "f4")) for z in (x, y)]
    return (wide[0] - floor_divide(*wide) * wide[1]).astype(rest.dtype)


def power(x, y):
    """Take powers; negative ones of integers are 0, but for 1 and -1."""
    if np.result_type(x, y).kind != "i" or np.all(np.asarray(y) >= 0):
        return np.power(x, y)
    negative = np.where(x == -1, np.where(y % 2, -1, 1), x == 1)
    return np.where(np.asarray(y) < 0, negative, np.power(x, np.maximum(y, 0)))


def reciprocal(x):
    """Give 1 / x, and 0 of the integer 0."""
    return np.reciprocal(x) if x.dtype.kind == "f" else np.where(x == 0, 0, 1 // np.where(x, x, 1))


def clamp(x, low, high, out=None):
    """Clip as CuPy's kernel does: a limit that is no number is none."""
    result = np.clip(x, low, high)
    if result.dtype.kind == "f":
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        inside = np.where(x < low, low, np.where(x > high, high, x))
        result = np.where(np.greater(low, high), high, inside).astype(result.dtype)
    if out is None:
        return result
    out[...] = result
    return out


OWN_UFUNCS = {
    "floor_divide": floor_divide, "remainder": remainder, "power": power, "reciprocal": reciprocal,
}  # fmt: skip


class Ufunc:
    """A function of each element: device arrays and scalars in, a device array out."""

    def __init__(self, host, *, name, nin, nout, types):
        """Wrap a NumPy function; `types` are the real CuPy's loops, in its order."""
        self.host, self.name, self.nin, self.nout = host, name, nin, nout
        self.nargs, self.types = nin + nout, types.split()
        self.short = name.removeprefix("cupy_")
        self.known = {}  # loops by what they were looked for

    def loop(self, args, dtype):
        """Find the first loop that takes the operands, or what was found for their like."""
        kinds = (
            x.dtype if isinstance(x, ndarray | np.generic) else x if type(x) is int else type(x)
            for x in args
        )  # the type of an integer may depend on its value
        key = (dtype, *kinds)
        if key not in self.known:
            self.known[key] = self.search(args, dtype)
        return self.known[key]

    def search(self, args, dtype):
        """Find the first loop that takes the operands; Python scalars are weak."""
        strong = [x.dtype for x in args if isinstance(x, ndarray | np.generic)]
        kinds = [x.dtype if hasattr(x, "dtype") else np.result_type(*strong, x) for x in args]
        for loop in self.types:
            fits = all(map(np.can_cast, kinds, map(np.dtype, loop)))
            if fits if dtype is None else loop[-1] == np.dtype(dtype).char:
                return loop
        raise TypeError(f"Wrong type ({','.join(map(str, kinds))}) of arguments for {self.name}")

    def __call__(self, *args, **kwargs):
        launch(self.short, args, kwargs)
        out, dtype = kwargs.pop("out", None), kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                f"{self.nargs} (with outputs), but given {len(args)}."
            )
        if len(args) == self.nargs:
            *args, out = args
        loop = self.loop([operand(x) for x in args], dtype)
        if loop[0] == "?" and self.short in NOT_BOOLEAN:
            raise TypeError(NOT_BOOLEAN[self.short])
        if out is not None and not isinstance(out, ndarray):
            raise TypeError("Output arguments type must be cupy.ndarray")
        args = [x._data if isinstance(x, ndarray) else x for x in args]
        with np.errstate(all="ignore"):
            cast = [
                x.astype(t, copy=False) if hasattr(x, "dtype") else x
                for x, t in zip(args, loop)  # noqa: B905 - a loop names the result, too
            ]
            result = np.asarray(self.host(*cast), dtype=loop[-1])
            if loop[-1] == "f":  # float32 kernels are compiled with -ftz=true
                np.multiply(result, 0.0, out=result, where=np.abs(result) < TINY)
            if out is None:
                return new(result)
            if not np.can_cast(result.dtype, out.dtype, casting):
                raise TypeError(
                    f"Cannot cast output operand from {result.dtype!r} to {out.dtype!r} "
                    f"according to the rule '{casting}'"
                )
            if np.broadcast_shapes(result.shape, out.shape) != out.shape:
                raise ValueError("Out shape is mismatched")
            out._data[...] = result
        return out

    def at(self, a, indices, b=None):
        """Apply in place at an index; repeats accumulate, what is out of bounds wraps."""
        if self.short not in AT:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if not isinstance(a, ndarray):
            raise AttributeError(f"'{kind(a)}' object has no attribute '_scatter_op'")
        launch(f"{self.short}.at", (a, indices, b))
        key, arrays = index(a, indices)
        if any(i.dtype.kind != "b" for i in arrays) and str(a.dtype) not in AT[self.short]:
            raise TypeError(f"cupy.{self.short}.at only supports {AT[self.short]} data type")
        self.host.at(a._data, key, np.asarray(stored(a, b, arrays)).astype(a.dtype))

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        if self.short not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        host = functools.partial(self.host.reduce, axis=axis, dtype=dtype, keepdims=keepdims)
        return run(f"{self.short}.reduce", host, operand(array), out=out)

    def outer(self, A, B, **kwargs):
        return self(A.reshape(A.shape + (1,) * B.ndim), B, **kwargs)


# ------------------------------------------------------------------------------------- functions

#: Parameters typed as device arrays, by function.
TYPED = {"broadcast_to": ["array"], "expand_dims": "a", "moveaxis": "a", "cumsum": "a"}
TYPED |= dict.fromkeys(["matmul", "tensordot", "may_share_memory", "shares_memory"], "ab")
#: Functions that only call the argument's method: host arrays go in and out in silence.
METHODS = {"max", "mean", "min", "prod", "sum", "std", "var", "argsort", "sort", "argmax", "argmin"}
METHODS |= {"amax", "amin", "copy", "dot", "flip", "ravel", "reshape", "swapaxes", "transpose"}
SYNCS = {"nonzero", "shares_memory", "unique"}


def stub(name, signature):
    """Make a function that only checks its arguments, so that errors name CuPy's parameters."""
    function = eval(f"lambda {signature}: None", {"float": float})
    function.__name__ = function.__qualname__ = name
    return function


def worded(name, host):
    """Make a NumPy function complain in CuPy's words."""

    def function(x, *args, **kwargs):
        try:
            return host(x, *args, **kwargs)
        except ValueError as error:  # as an AxisError is, too
            text, kind = str(error), type(error)
            if name == "reshape":
                text = re.sub(r",(?=[-\d])", ", ", text)
            elif name == "moveaxis":
                text = text.partition(": ")[2]
            elif name == "swapaxes":
                text, kind = "Axis out of range", ValueError
            elif len(args[0]) >= x.ndim:
                text = f"operands could not be broadcast together with shape {x.shape} "
                text += f"and requested shape {args[0]}"
            raise kind(text) from None

    return function


WORDED = {"broadcast_to", "moveaxis", "reshape", "swapaxes"}


def stable(host):
    """Make a sort of NumPy's one of CuPy's: always stable, and of no other kind."""

    def function(x, axis=-1, kind=None):
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        return host(x, axis, kind="stable")

    return function


def build(name, host, table="functions", prefix=""):
    """Make a function or method of the real signature from NumPy's of the same name."""
    host = stable(host) if name in ("argsort", "sort") else host
    host = worded(name, host) if name in WORDED else clamp if name == "clip" else host
    check, typed = stub(name, TABLE[table][name]), TYPED.get(name, ())
    by_method, truth = name in METHODS, name in ("all", "any", "nonzero")
    like, sized = name.endswith("_like"), name in ("zeros", "ones", "full", "eye")

    @functools.wraps(check)
    def function(*args, **kwargs):
        check(*args, **kwargs)
        first = args[0] if args else next(iter(kwargs.values()), None)
        for letter, x in zip(typed, args, strict=False):
            if not isinstance(x, ndarray):
                raise TypeError(NOT_DEVICE.format(letter, kind(x)))
        if by_method and not isinstance(first, ndarray):
            if not isinstance(first, np.ndarray):
                raise AttributeError(f"{kind(first)!r} object has no attribute {name!r}")
            return host(*args, **kwargs)
        if truth and not isinstance(first, ndarray):
            raise TypeError(f"'a' must be a cupy.ndarray object, not {type(first)}.")
        if like:  # these read the shape and dtype of host arrays too
            first.dtype  # noqa: B018 - lists have none
            args = [new(x) if isinstance(x, np.ndarray) else x for x in args]
        if sized and isinstance(first, ndarray):
            operator.index(first)  # a size on the device is none: there is no __index__
        if name in SYNCS:
            read_back(0)
        return run(prefix + name, host, *args, **kwargs)

    return function


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """Give a device array: of host data by an upload, of device arrays a copy or the same."""
    make = functools.partial(np.array, dtype=dtype, copy=copy, order=order or "K", ndmin=ndmin)
    parts = list(leaves(obj))
    if parts and all(isinstance(x, ndarray) for x in parts):
        return run("array", make, obj)
    launch("array", (None,))
    host = make(obj)
    count("uploads", *(["pinned"] if host.ndim and host.nbytes and is_pinned(host) else []))
    return new(np.array(host))


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def from_dlpack(obj, *, device=None, copy=None):
    if isinstance(obj, ndarray):
        return new(obj._data, obj)
    raise TypeError(
        "CPU arrays cannot be directly imported to CuPy. "
        "Use `cupy.array(numpy.from_dlpack(input))` instead."
    )


def astype(x, dtype, /, *, copy=True):
    if not isinstance(x, ndarray):
        raise TypeError(f"Input should be a CuPy array. It is a {type(x)} instead.")
    return x.astype(dtype, copy=copy)


def where(condition, x=None, y=None):
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return cupy.nonzero(condition)
    if not hasattr(condition, "astype"):
        raise AttributeError(f"{kind(condition)!r} object has no attribute 'astype'")
    condition, x, y = map(operand, (condition, x, y))
    for value, like in ((x, y), (y, x)):
        within(value, like)
    return run("where", np.where, condition, x, y)


def within(value, like):
    """Refuse a Python integer that the dtype of an integer array does not hold."""
    dtype = getattr(like, "dtype", np.dtype(float))
    if type(value) is not int or dtype.kind not in "iu":
        return
    if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise OverflowError(f"Python integer {value} out of bounds for {dtype}")


def clip(a, a_min, a_max, out=None):
    if not isinstance(a, ndarray):
        return a.clip(a_min, a_max)
    limits = [x if x is None else operand(x) for x in (a_min, a_max)]
    for limit in limits:
        within(limit, a)
    return run("clip", clamp, a, *limits, out=out)


def array_equal(a1, a2, equal_nan=False):
    if a1.shape != a2.shape:
        return array(False)
    if equal_nan:
        read_back(0)
        return array(np.array_equal(a1._data, a2._data, equal_nan=True))
    return (a1 == a2).all()


def einsum(*operands, **kwargs):
    """Sum products; host operands are uploaded in silence, as CuPy does."""
    if set(kwargs) - {"dtype", "optimize"}:
        raise TypeError(f"Did not understand the following kwargs: {list(kwargs)}")
    operands = [new(upload(x)) if isinstance(x, np.ndarray) else x for x in operands]
    return run("einsum", np.einsum, *operands, **kwargs)


def as_strided(x, shape=None, strides=None):
    """Give a view that does not say whose it is."""
    host = np.lib.stride_tricks.as_strided
    view = run("lib.stride_tricks.as_strided", host, x, shape, strides)
    view.base = None
    _pool["used"] += view.nbytes  # as it will be subtracted
    return view


def matrixwise(name):
    """Make a function of `cupy.linalg`, which raises nothing for the values of a matrix."""
    host, check = getattr(np.linalg, name), stub(name, TABLE["linalg"][name])
    probe = np.linalg.inv if name == "solve" else host

    def fails(matrix):
        try:
            probe(matrix)
        except np.linalg.LinAlgError:
            return True
        return False

    def quietly(x, *args, **kwargs):
        bad = np.array([fails(x[i]) for i in np.ndindex(x.shape[:-2])], bool).reshape(x.shape[:-2])
        out = host(np.where(bad[..., None, None], np.eye(*x.shape[-2:], dtype=x.dtype), x),
                   *args, **kwargs)  # fmt: skip
        parts = [np.array(part) for part in (out if isinstance(out, tuple) else (out,))]
        for part in parts:
            part[bad] = math.nan
        return tuple(parts) if isinstance(out, tuple) else parts[0]

    def function(*args, **kwargs):
        check(*args, **kwargs)
        if args[0].dtype == np.float16:
            raise TypeError("float16 is unsupported in linalg")
        if name == "solve" and args[1].ndim > 1 and args[0].shape[:-1] != args[1].shape[:-1]:
            raise ValueError(
                "a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b"
            )
        return run(f"linalg.{name}", quietly if args[0].ndim > 1 else host, *args, **kwargs)

    return functools.wraps(check)(function)


def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    if not all(isinstance(x, ndarray) for x in tup):
        raise TypeError("Only cupy arrays can be concatenated")
    if not len(tup):
        raise ValueError("Cannot concatenate from empty tuple")
    return run("concatenate", np.concatenate, list(tup), axis, out, dtype=dtype, casting=casting)


def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    for x in tup:
        if not isinstance(x, ndarray):
            raise TypeError(NOT_DEVICE.format("a", kind(x)))
    return run("stack", np.stack, list(tup), axis, out, dtype=dtype, casting=casting)


def along(a, indices, axis):
    """Give the index arrays of take_along_axis, as CuPy builds them."""
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    if a.ndim != indices.ndim:
        raise ValueError("`indices` and `a` must have the same number of dimensions")
    grid = [new(x) for x in np.ogrid[tuple(map(slice, a.shape))]]
    grid[axis] = indices
    return tuple(grid)


def take_along_axis(a, indices, axis):
    a, axis = (a.ravel(), 0) if axis is None else (a, axis)
    return a[along(a, indices, axis)]


def put_along_axis(arr, indices, values, axis):
    arr, axis = (arr.ravel(), 0) if axis is None else (arr, axis)
    arr[along(arr, indices, axis)] = values


def dtypes(args):
    return [x.dtype if isinstance(x, ndarray) else x for x in args]


#: What needs one line.
SHORT = {
    "asarray": lambda a, dtype=None, order=None, *, copy=None, blocking=False: array(
        a, dtype, copy, order
    ),
    "broadcast_shapes": lambda *args: np.broadcast_shapes(*args),
    "can_cast": lambda from_, to, casting="safe": np.can_cast(*dtypes([from_]), to, casting),
    "empty": lambda shape, dtype=float, order="C": ndarray(shape, dtype, order=order),
    "get_array_module": lambda *args: cupy if any(isinstance(x, ndarray) for x in args) else np,
    "get_default_memory_pool": lambda: POOL,
    "is_available": lambda: True,
    "result_type": lambda *arrays_and_dtypes: np.result_type(*dtypes(arrays_and_dtypes)),
    "squeeze": lambda a, axis=None: a.squeeze(axis),
    "take": lambda a, indices, axis=None, out=None: a.take(indices, axis, out),
}
#: Arrays leave `used_bytes` as soon as nobody refers to them.
POOL = SimpleNamespace(
    used_bytes=lambda: _pool["used"],
    total_bytes=lambda: _pool["held"],
    free_all_blocks=lambda: _pool.update(held=_pool["used"]),
)


# ------------------------------------------------------------------------------------ the module

BINARY = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power"}
BINARY |= {"floordiv": "floor_divide", "mod": "remainder", "matmul": "matmul", "or": "bitwise_or"}
BINARY |= {"and": "bitwise_and", "xor": "bitwise_xor"}
BINARY |= {"lshift": "left_shift", "rshift": "right_shift"}
COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
COMPARISONS |= {"eq": "equal", "ne": "not_equal"}
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def add_operator(symbol, name):
    """Add a binary operator: with a stranger, NumPy asks both sides' protocols, as for CuPy."""
    host = getattr(np, name)

    def defers(x, y):
        try:
            return y.__array_ufunc__ is None
        except AttributeError:
            return getattr(y, "__array_priority__", 0) > x.__array_priority__

    def forward(self, other):
        if isinstance(other, ndarray):
            return getattr(cupy, name)(self, other)
        if other is None and symbol in ("eq", "ne"):
            return cupy.full(self.shape, symbol == "ne")
        return NotImplemented if defers(self, other) else host(self, other)

    def reflected(self, other):
        return NotImplemented if defers(self, other) else host(other, self)

    setattr(ndarray, f"__{symbol}__", forward)
    if symbol in BINARY:
        setattr(ndarray, f"__r{symbol}__", reflected)
        if symbol != "matmul":
            setattr(ndarray, f"__i{symbol}__", lambda self, y: getattr(cupy, name)(self, y, self))


def equip():
    """Add to the array what follows one pattern."""
    for symbol, name in (BINARY | COMPARISONS).items():
        add_operator(symbol, name)
    for symbol, name in UNARY.items():
        setattr(ndarray, f"__{symbol}__", lambda self, name=name: getattr(cupy, name)(self))
    for cast in (float, int, complex, repr, str):
        setattr(ndarray, f"__{cast.__name__}__", lambda self, cast=cast: cast(self.get()))
    for name in ("shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides"):
        setattr(ndarray, name, property(operator.attrgetter(f"_data.{name}")))
    for name in (TABLE["methods"].keys() | {"set"}) & vars(ndarray).keys():
        setattr(ndarray, name, noted(f"ndarray.{name}", vars(ndarray)[name]))
    for name in TABLE["methods"].keys() - vars(ndarray).keys():
        host = getattr(np.ndarray, name)
        setattr(ndarray, name, build(name, host, "methods", "ndarray."))
    ndarray.__copy__ = ndarray.copy


class Device:
    """A CUDA device: only the waiting for it is counted."""

    def __init__(self, device=0):
        self.id = device

    def synchronize(self):
        count("syncs")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


class Event:
    """A CUDA event; what was asked for before it is done as soon as it is asked for."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.time = None

    done = True

    def record(self, stream=None):
        self.time = time.perf_counter()

    def synchronize(self):
        count("syncs")


class Stream(Device):
    """A CUDA stream."""

    def __init__(self, null=False, non_blocking=False, ptds=False):
        pass

    done = True

    def record(self, event=None):
        event = Event() if event is None else event
        event.record(self)
        return event


Stream.null = Stream(null=True)


def get_elapsed_time(start_event, end_event):
    """Milliseconds between two events."""
    return 1e3 * (end_event.time - start_event.time)


def make_module():
    """Build the namespace: a name that is not in the table does not exist."""
    module = ModuleType("cupy")
    runtime = SimpleNamespace(
        driverGetVersion=lambda: 13020, runtimeGetVersion=lambda: 13020, getDeviceCount=lambda: 1
    )
    vars(module).update({name: getattr(np, name) for name in TABLE["same"]})
    vars(module).update(
        __version__=TABLE["version"],
        ndarray=ndarray,
        from_dlpack=noted("from_dlpack", from_dlpack),
        lib=SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided)),
        linalg=SimpleNamespace(**{name: matrixwise(name) for name in TABLE["linalg"]}),
        cuda=SimpleNamespace(
            Device=Device, Stream=Stream, Event=Event, runtime=runtime,
            get_current_stream=lambda: Stream.null, get_elapsed_time=get_elapsed_time,
            alloc_pinned_memory=Pinned,
        ),
    )
    for name, entry in TABLE["ufuncs"].items():
        own = OWN_UFUNCS.get(entry["name"].removeprefix("cupy_"), getattr(np, name))
        setattr(module, name, Ufunc(own, **entry))
    for name, function in SHORT.items():
        function.__name__ = function.__qualname__ = name
    for name in TABLE["functions"]:
        own = SHORT.get(name) or globals().get(name)
        setattr(module, name, noted(name, own) if own else build(name, getattr(np, name)))
    return module


cupy = make_module()
special = SimpleNamespace(
    erf=Ufunc(np.frompyfunc(math.erf, 1, 1), **TABLE["special"]["erf"]),
    erfc=Ufunc(np.frompyfunc(math.erfc, 1, 1), **TABLE["special"]["erfc"]),
)
equip()
__name__ = "cupy.standin"  # its frames are CuPy's, not the user's
