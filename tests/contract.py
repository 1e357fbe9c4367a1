"""The contract with CuPy: small snippets, and by what they are run.

Their outcomes stand in `data/cupy_contract.json`, each with its source; what
`data/make_cupy_contract.py` writes there on a machine with a GPU is CuPy's own answer. The tests
hold the stand-in to every line, and the real CuPy to those that it can answer.

A snippet sees `xp` (CuPy or the stand-in), `special`, `np`, the backend `be` over them with its
namespace `ns`, `d(data, dtype="f4")` (host data on the device), and these arrays of zeros, which
the real CuPy can also have without a device, in the host's memory: `a` (3,), `b` (3, 4) and `s` (),
all float32, `i` int64 (2,), `m` bool (2,), a mask that fits nothing.

A line that begins with `*` has an outcome that CuPy leaves open: the snippet asks whether it is one
of those that are possible. The words behind `#` on a line of its own say where the lines below are
known from until a device was seen: NUMPY, or a file of CuPy's or of CUDA's documentation.
"""

from __future__ import annotations

import math
import operator
import re
import warnings
from typing import NamedTuple

import numpy as np

from microgradnd.backend.cupy_backend import CupyBackend

WITHOUT = "without a device"
READ = "from documentation and source"
NUMPY = "NumPy's outcome, not checked on a device"
#: What CuPy raises where a device, or a library that only serves one, is missing.
NO_DEVICE = ("CUDARuntimeError", "CUDADriverError", "DynamicLibNotFoundError", "ImportError")


class Line(NamedTuple):
    """A snippet, where its outcome is known from without a device, and whether it is open."""

    snippet: str
    known: str
    where: str
    unspecified: bool


def parse(text: str) -> dict[str, Line]:
    """Read the list below."""
    lines: dict[str, Line] = {}
    known, where = NUMPY, ""
    for row in filter(None, map(str.strip, re.sub(r"\\\n\s*", "", text).splitlines())):
        if row.startswith("#"):
            said = row.lstrip("# ")
            known, where = (NUMPY, "") if said == "NUMPY" else (READ, said)
            continue
        snippet = row.removeprefix("*").strip()
        if snippet in lines:
            raise ValueError(f"twice in the contract: {snippet}")
        lines[snippet] = Line(snippet, known, where, row.startswith("*"))
    return lines


# ------------------------------------------------------------------------- what the snippets see


class Protocol:
    """Like our Tensor: answers NumPy's ufuncs."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return ufunc.__name__, method, [type(x).__name__ for x in inputs], kwargs


class Aloof:
    """Wants operators for itself."""

    __array_ufunc__ = None

    def __radd__(self, other):
        return "radd"

    def __rmatmul__(self, other):
        return "rmatmul"

    def __gt__(self, other):
        return "gt"


class Prior:
    """The old way to the same."""

    __array_priority__ = 1000

    def __radd__(self, other):
        return "radd"


def owner(result, of):
    """Say whose memory a result uses, and how it lies there (an axis of length one has no step)."""
    who = "self" if result is of else "view" if result.base is of else "other"
    steps = [step for n, step in zip(result.shape, result.strides, strict=True) if n > 1]
    return f"{who} {result.shape} {steps}"


def assigned(x, key, value):
    """Assign, and give the array."""
    x[key] = value
    return x


def added(xp, x, key, value):
    """Add at an index, and give the array."""
    xp.add.at(x, key, value)
    return x


def after(call, wait):
    """Call, then wait for the device, where faults of indices come to light."""
    call()
    return wait()


def filled(x, value):
    """Fill an array, and give it."""
    x.fill(value)
    return x


def kind(call):
    """Name the exception that a call raises: where the words are open or not known."""
    try:
        call()
    except Exception as error:
        if type(error).__name__ in NO_DEVICE:
            raise
        return type(error).__name__
    return "none"


def numbers(values):
    """Write nested lists of numbers, floats to four digits."""
    if isinstance(values, list):
        return f"[{', '.join(map(numbers, values))}]"
    return f"{values:.4g}" if isinstance(values, float) else str(values)


def show(x, xp):
    """Write a result: of arrays the dtype, the shape and the values."""
    if isinstance(x, tuple | list):
        return f"({', '.join(show(item, xp) for item in x)})"
    if isinstance(x, xp.ndarray):
        return f"{x.dtype} {x.shape} {numbers(x.get().tolist())}"
    if isinstance(x, np.ndarray):
        return f"host {x.dtype} {x.shape} {numbers(x.tolist())}"
    return str(x)


def names_for(xp, special, make):
    """Give what a snippet sees; `make(shape, dtype)` makes an array of zeros."""
    backend = CupyBackend(xp, special, name="contract")
    return {
        "a": make((3,), "f4"), "b": make((3, 4), "f4"), "s": make((), "f4"),
        "i": make((2,), "i8"), "m": make((2,), "?"),
        "xp": xp, "special": special, "np": np, "math": math, "operator": operator,
        "be": backend, "ns": backend.xp, "nan": math.nan, "inf": math.inf,
        "d": lambda data, dtype="f4": xp.asarray(np.asarray(data, dtype)),
        "kind": kind, "filled": filled, "added": lambda *args: added(xp, *args),
        "assigned": assigned, "after": after,
        "owner": owner, "Protocol": Protocol, "Aloof": Aloof, "Prior": Prior,
    }  # fmt: skip


def outcome(snippet, xp, special, make, device=True):
    """Run a snippet; gives its value or its exception as text, None where a device is missing.

    With a device no exception is excused: a library that is not found is CuPy's answer there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return show(eval(snippet, names_for(xp, special, make)), xp)
    except Exception as error:
        if not device and type(error).__name__ in NO_DEVICE:
            return None
        return f"{type(error).__name__}: {error}"


def real_cupy():
    """Give CuPy, its special functions and a maker of arrays, which work without a driver too.

    Raises:
        ImportError: If CuPy is not installed.
    """
    import cupy
    from cupyx.scipy import special

    if cupy.cuda.runtime.driverGetVersion():
        return cupy, special, cupy.zeros

    class Shown(cupy.ndarray):
        def __repr__(self):  # the true one would copy from the device
            return repr(np.zeros(self.shape, self.dtype))

    Shown.__name__, Shown.__qualname__, Shown.__module__ = "ndarray", "ndarray", "cupy"

    def make(shape, dtype):
        host = np.zeros(shape, dtype)
        memory = cupy.cuda.UnownedMemory(host.ctypes.data, max(host.nbytes, 1), host, 0)
        return Shown(shape, dtype, memptr=cupy.cuda.MemoryPointer(memory, 0))

    return cupy, special, make


# ----------------------------------------------------------------------------------- the snippets

LINES = parse(r"""
    # cupy/_core: mixing, implicit conversion
    np.asarray(a)
    np.asarray([s, s])
    np.ones(3)[s]
    a + [1]
    a < [1]
    a @ [1]
    a + None
    a == 'x'
    a @ np.ones(3)
    np.ones(3) @ a
    a @ 2.0
    xp.matmul(np.ones(3), np.ones(3))
    xp.tensordot(np.ones(3), a, 1)
    xp.stack([np.ones(3)])
    xp.broadcast_to(np.ones(3), (2, 3))
    xp.expand_dims(np.ones(3), 0)
    xp.moveaxis(np.ones((3, 2)), 0, 1)
    xp.cumsum(np.ones(3))
    xp.may_share_memory(a, np.ones(3))
    xp.any(np.ones(3))
    xp.mean([1, 2])
    xp.zeros_like([1.0])
    xp.astype(np.ones(2), 'f4')
    xp.add.at(np.ones(2), np.array([0]), 1.0)
    xp.from_dlpack(np.ones(2))
    type(xp.sum(np.ones(3))).__name__
    type(xp.reshape(np.ones(4), (2, 2))).__name__
    isinstance(xp.transpose(np.ones(4)), np.ndarray)
    xp.get_array_module(np.ones(2)) is np
    xp.get_array_module(np.ones(2), a) is xp

    # cupy/_core: names that are absent
    xp.errstate
    [n for n in 'errstate seterr vecdot matvec geomspace unstack block insert nditer einsum_path \
        spacing frompyfunc object_ __array_namespace__'.split() if hasattr(xp, n)]
    [n for n in '__index__ __contains__ __imatmul__ __round__ ctypes resize'.split() if \
        hasattr(a, n)]
    xp.float32 is np.float32, xp.bool_ is np.bool_, xp.newaxis
    np.block([a])
    np.spacing(a)

    # cupy/_core: keywords and counts of arguments
    xp.sum(a, where=1)
    xp.sum(a, initial=1)
    a.sum(where=1)
    a.max(initial=1)
    xp.sum(a, 1, 2, 3, 4, 5, 6)
    xp.take(a, i, mode='wrap')
    xp.zeros(3, device=None)
    xp.asarray(a, like=None)
    xp.clip(a)
    xp.clip(a, min=0)
    a.transpose(axes=(0,))
    xp.exp(a, foo=1)
    xp.add(a, a, where=True)
    np.exp(a, where=True)
    xp.add(a)
    xp.maximum.reduce(a)
    np.maximum.reduce(a)
    xp.multiply.at(a, i, 1.0)
    xp.where(a, a)
    a.astype('f4', casting='safe')
    xp.zeros(3, dtype=object)
    xp.exp.nin, xp.add.nout, xp.add.nargs
    xp.result_type(a, 1.0), xp.result_type(a, np.float64(1))

    # cupy/_core: indexing
    a[5]
    a[-4]
    a.__setitem__(7, 1.0)
    b[0, 0, 0]
    b[..., 4]
    b[::0]
    b[a]
    b[m]
    b[1.0].shape
    b.__setitem__(slice(None), np.ones((3, 4)))
    b.__setitem__(0, [1, 2, 3, 4])
    a.fill([1, 2])
    xp.take_along_axis(b, b, 0)
    xp.take_along_axis(b, i, 0)

    # cupy/_core: scalars, sizes, objects
    len(s)
    iter(s)
    bool(a)
    a.item()
    range(s)
    xp.zeros(s)
    hash(a)
    a.foo
    a.reshape(5)
    a.__array_priority__

    # cupy/_core: deferring to others
    a + Protocol()
    a @ Protocol()
    a < Protocol()
    a + Aloof(), a @ Aloof(), a < Aloof()
    a + Prior()

    # cupy/_core: views: how the result lies, and whose memory it uses
    owner(b[1:], b)
    owner(b[0], b)
    owner(b[0, 0], b)
    owner(b[None], b)
    owner(b[...], b)
    owner(b[:2][:1], b)
    owner(s[()], s)
    owner(b.T, b)
    owner(b.mT, b)
    owner(a.T, a)
    owner(b.reshape(3, 4), b)
    owner(xp.reshape(b, (4, 3)), b)
    owner(b.ravel(), b)
    owner(b.view(), b)
    owner(b.transpose(1, 0), b)
    owner(xp.transpose(b, (1, 0)), b)
    owner(xp.broadcast_to(b, (2, 3, 4)), b)
    owner(xp.moveaxis(b, 0, 1), b)
    owner(xp.flip(b, 0), b)
    owner(b.squeeze(), b)
    owner(xp.squeeze(b[:1], 0), b)
    owner(b.astype('f4', copy=False), b)
    owner(xp.ascontiguousarray(b), b)
    owner(next(iter(b)), b)
    xp.may_share_memory(b, b[:1]), xp.may_share_memory(b[:1], b[1:])
    a.flags.c_contiguous, a.flags.owndata, b[1:].flags.owndata, b.T.flags.f_contiguous
    # cupy/_core/_kernel.pyx
    a + np.ones(3)
    np.ones(3) + a
    xp.add(a, np.ones(3))
    xp.add(a, [1])
    a < np.ones(3)
    xp.where(a > 0, np.ones(3), a)
    operator.iadd(np.ones(3), a)
    operator.iadd(a, np.ones(3))
    xp.add(a, a, np.ones(3))
    xp.clip(a, np.ones(3), 1.0)
    xp.where(True, a, a)
    xp.concatenate([a, np.ones(3)])
    d([1, 2, 3]) < np.array(2.0)
    -m
    +m
    m - m
    xp.add(a, b.T)
    kind(lambda: assigned(a, slice(None), d([1, 2]))), kind(lambda: a + d([1, 2]))

    # cupy/_core/_kernel.pyx, NEP 50
    (a * 2.0).dtype, (a + 1).dtype, (2 / a).dtype, (a ** 2).dtype
    (a * np.float64(2)).dtype, (np.float64(2) * a).dtype
    (d([1], "f2") * 2.0).dtype, (d([1], "f2") + d([1])).dtype, (d([1]) + d([1], "f8")).dtype
    (d([1], "i4") / 2).dtype, (d([1], "i4") * 2.0).dtype, (d([1], "i4") + d([1])).dtype
    (d([1], "i1") + 1).dtype, (d([1], "u1") + d([1], "i1")).dtype, (d([1], "u8") + d([1], \
        "i8")).dtype
    (d([1], "?") + 1).dtype, (d([1], "?") * 1.0).dtype, (d([1], "?") + d([1], "?")).dtype
    (d([1], "?") / d([1], "?")).dtype, (d([1], "i1") / d([1], "i1")).dtype
    xp.exp(d([0], "i4")).dtype, xp.exp(d([0], "i1")).dtype, xp.exp(d([0], "?")).dtype
    xp.where(a > 0, a, 0.0).dtype, xp.where(a > 0, 1.0, 0.0).dtype, xp.where(a > 0, 1, 0).dtype
    xp.where(a > 0, d([1], "f2"), a).dtype
    xp.maximum(d([1], "f2"), 0).dtype, xp.minimum(d([1], "i4"), 0.5).dtype
    xp.clip(d([1], "f2"), 0, 1).dtype, xp.clip(a, np.float64(0), 1).dtype
    (a > 0).dtype, (a == 0).dtype, xp.isnan(a).dtype, xp.logical_not(a).dtype
    xp.multiply(a, np.float64(2), out=a).dtype
    xp.multiply(a, np.float64(2), out=a, casting="safe")
    operator.itruediv(d([1], "i4"), 2)
    operator.iadd(d([1, 2, 3]), d([[1, 2, 3]] * 2))
    xp.exp.types[:3], special.erf.types[:3], xp.isnan.types[:3]

    # cupy/_core/_routines_math.pyx
    d([7, -7, 5], "i4") // 0, d([7, -7, 5], "i4") % 0
    d([7, -7], "i4") // 2, d([7, -7], "i4") % 3, d([-7.5]) % 2, d([-7.5]) // 2
    d([1.0, -1.0]) % inf, d([1.0, -1.0]) // inf
    d([inf]) // 1.0, d([1.0]) // 0.0, d([1.0]) % 0.0
    xp.floor_divide(d([9, -9]), 4.0), xp.remainder(d([9, -9]), 4.0)
    d([2, 1, -1, 0], "i4") ** d([-1, -2, -3, -1], "i4")
    d([2, 3], "i4") ** 2, d([2.0, 0.0]) ** 0, d([4.0]) ** 0.5, 2.0 ** d([3.0])
    xp.power(d([nan, 1.0, -8.0]), d([0.0, nan, 1 / 3]))
    xp.reciprocal(d([2, 0, 1], "i4")), xp.reciprocal(d([2.0, 0.0]))
    xp.sign(d([-3.0, 0.0, nan, inf])), xp.sign(d([-3, 0, 5], "i4"))
    xp.sqrt(d([4.0, -1.0, inf])), xp.square(d([3.0])), xp.square(d([3], "i4"))
    xp.absolute(d([-2.0, 2.0, -inf])), xp.negative(d([2.0, -0.0])), xp.positive(d([2.0]))
    abs(d([-2], "i4")), -d([2], "i4"), -d([1], "u1")
    d([200], "u1") + d([100], "u1"), d([127], "i1") + d([1], "i1")
    xp.clip(d([-1.0, 0.5, 3.0, nan]), 0, 1)
    xp.clip(d([1.0, 2.0]), nan, 3.0), xp.clip(d([1.0, 2.0]), 0.0, nan)
    kind(lambda: xp.clip(d([1], "u1"), -1, 3)), kind(lambda: xp.where(d([1], "?"), d([1], "u1"), \
        300))
    xp.take(d([[1, 2], [3, 4]]), xp.argmax(d([[0, 0], [0, 1]], "?"))), xp.argmax(d([0, 0], "?"))
    xp.clip(d([1.0, 2.0, 3.0]), 2.5, 1.5)
    xp.clip(d([-1.0, 3.0]), None, 1.0), xp.clip(d([-1.0, 3.0]), 0.0, None)
    xp.sum(d([1, 2])).dtype, xp.sum(d([1], "f2")).dtype, xp.sum(d([1], "f8")).dtype
    xp.sum(d([1], "i4")).dtype, xp.sum(d([1], "i1")).dtype, xp.sum(d([1], "u1")).dtype
    xp.sum(d([1, 1, 0], "?")), xp.prod(d([1, 1], "?")), xp.prod(d([2, 3], "i4"))
    xp.sum(d([1, 2]), dtype="f8"), d([1, 2]).sum(dtype="f2"), xp.sum(d([200, 100], "u1"), \
        dtype="u1")
    xp.sum(d([])), xp.prod(d([])), xp.sum(xp.zeros((0, 3), "f4"), axis=0)
    xp.sum(d([[1, 2], [3, 4]]), axis=0), xp.sum(d([[1, 2], [3, 4]]), axis=-1, keepdims=True)
    xp.sum(d([[1, 2], [3, 4]]), axis=(0, 1)), xp.sum(d([[1, 2], [3, 4]]), axis=())
    xp.sum(d([nan, 1.0])), xp.sum(d([inf, -inf]))
    * 5000 - 16 <= float(xp.sum(xp.full(5000, 1.0, "f2"))) <= 5000 + 16
    xp.mean(xp.full(5000, 20.0, "f2"))
    xp.cumsum(d([1, 2, 3])), xp.cumsum(d([[1, 2], [3, 4]]), axis=1)
    xp.cumsum(d([1, 2], "i4")).dtype, xp.cumsum(d([1], "?")).dtype, xp.cumsum(d([1], "f2")).dtype
    xp.cumsum(d([[1, 2], [3, 4]]))
    xp.cumprod(d([2, 0, 3])), xp.cumprod(d([[1, 2], [3, 4]]), axis=-1), xp.cumprod(xp.zeros(0))
    xp.cumprod(d([1], "i4")).dtype, xp.cumprod(d([1], "f2")).dtype, xp.cumprod(d([[1, 2], [3, 4]]))

    # cupy/_sorting/sort.py, cupy/cuda/cupy_thrust.cu: NaN last, equal elements in their order
    xp.sort(d([3.0, nan, 1.0, inf, -inf])), xp.sort(d([[3, 1], [2, 4]]), axis=0), xp.sort(d([]))
    xp.sort(d([2, 1], "u1")), xp.sort(d([1, 0], "?")), xp.sort(d([2.0, nan, 1.0], "f2"))
    xp.argsort(d([2.0, 1.0, 2.0, 1.0])), xp.argsort(d([2.0, 1.0, 2.0]), axis=0, kind="stable")
    xp.argsort(d([nan, 1.0, nan, 0.0])), xp.argsort(d([[3, 1], [2, 4]]), axis=-1, kind="stable")
    ns.argsort(d([2.0, 1.0, 2.0, 1.0])), ns.argsort(d([[1, 1], [0, 1]], "?"), axis=0)
    kind(lambda: xp.sort(s)), kind(lambda: xp.argsort(a, axis=1))
    xp.argsort(a, kind="quicksort")

    # CUDA Programming Guide and NVRTC's -ftz=true in cupy/cuda/compiler.py
    d([1e-30]) * d([1e-10]), d([1e-30], "f8") * 1e-10
    d([1.0]) / 0, d([-1.0]) / 0, d([0.0]) / 0
    xp.log(d([0.0, -1.0])), xp.exp(d([1000.0, -1000.0])), xp.arctanh(d([1.0, 2.0]))
    * int(d([nan]).astype("i4")[0]) in (0, -(2**31)), int(d([inf]).astype("i4")[0]) in (-(2**31), \
        2**31 - 1)
    d([2.9, -2.9]).astype("i4"), d([0.0, 0.5, nan]).astype("?"), d([1, 0], "?").astype("f4")
    d([300], "i4").astype("u1"), d([-1], "i4").astype("u4"), d([70000.0]).astype("f2")

    # cupy/_core/_routines_statistics.pyx
    xp.max(d([1.0, nan, 3.0])), xp.min(d([1.0, nan, 3.0])), xp.max(d([1.0, nan], "f2"))
    xp.max(d([[1, 5], [7, 2]]), axis=1), xp.min(d([[1, 5], [7, 2]]), axis=0, keepdims=True)
    xp.max(d([1, 0], "?")), xp.max(d([3, 5], "i4")), xp.max(d([3, 5], "u1")).dtype
    xp.max(d([-inf, -inf])), xp.min(d([inf, 3.0]))
    xp.argmax(d([1.0, 3.0, 3.0])), xp.argmin(d([2.0, 1.0, 1.0])), xp.argmax(d([1, 0, 1], "?"))
    xp.argmax(d([[1, 3, 3], [2, 2, 0]]), axis=-1), xp.argmax(d([[1, 3], [1, 0]]), axis=0)
    xp.argmax(d([1.0, nan, 3.0])), xp.argmin(d([1.0, nan, 3.0]))
    * int(xp.argmax(d([1.0, nan, nan, 3.0]))) in (1, 2)
    * int(xp.argmax(d([[nan, nan, nan], [1, nan, nan]]), axis=1)[1]) in (1, 2)
    xp.argmax(a).dtype, xp.argmax(b, axis=0).dtype, xp.argmax(d([1], "f2")).dtype
    xp.mean(d([1, 2])), xp.mean(d([1, 2], "i4")), xp.mean(d([1, 2], "f2")).dtype
    xp.mean(d([[1, 2], [3, 4]]), axis=0), xp.mean(d([1, 0], "?"))
    xp.mean(xp.zeros(0, "f4"))
    xp.any(d([0.0, nan])), xp.all(d([1.0, 0.0])), xp.all(d([])), xp.any(d([]))
    xp.any(d([[1, 0], [0, 0]]), axis=1), xp.all(d([[1, 0], [1, 1]]), axis=1, keepdims=True)
    d([1.0, 3.0]).var(), d([1.0, 3.0]).std(ddof=1)
    kind(lambda: xp.max(xp.zeros(0))), kind(lambda: xp.argmax(xp.zeros(0)))
    xp.sum(a, axis=1)
    xp.max(a, axis=-2)
    xp.sum(b, axis=(0, 0))

    # cupy/_core/_routines_math.pyx, one kernel for an element
    xp.maximum(d([1.0, nan, 2.0]), d([nan, 1.0, 3.0])), xp.minimum(d([1.0, nan]), d([nan, 1.0]))
    xp.maximum(d([0.0]), d([-0.0])) == 0, xp.minimum(d([1, 5], "i4"), 3)
    xp.logaddexp(d([0.0, -inf, 1000.0]), d([-inf, -inf, 0.0]))
    xp.logaddexp(d([inf, nan]), d([inf, 0.0]))
    xp.logaddexp2(d([0.0, -inf, 2000.0]), d([-inf, -inf, 0.0])), xp.logaddexp2(d([inf]), d([inf]))
    xp.fmax(d([1.0, nan, nan]), d([nan, 2.0, nan])), xp.fmin(d([1.0, nan]), d([nan, 2.0]))
    xp.fmax(d([1, 5], "i4"), 3), xp.fmin(d([1.0], "f2"), 0.5)
    xp.floor(d([-1.5, inf, nan])), xp.ceil(d([-1.5, 0.25])), xp.trunc(d([-1.5, 1.5]))
    xp.floor(d([3], "u1")), xp.ceil(d([1], "?")), xp.trunc(d([-3], "i4")), xp.rint(d([3], "i4"))
    xp.rint(d([0.5, 1.5, -2.5])), xp.round(d([0.5, 1.5, -2.5])), xp.round(d([3], "i4"))
    xp.round(d([1.25, -0.06]), decimals=1), xp.round(d([15.0, 25.0]), decimals=-1)
    xp.equal(d([1.0, nan]), d([1.0, nan])), xp.not_equal(d([1.0, nan]), d([1.0, nan]))
    xp.less(d([1.0, nan]), 2.0), xp.less_equal(d([2.0]), 2.0), xp.greater(d([3.0]), 2.0)
    xp.greater_equal(d([2.0, nan]), 2.0)
    xp.less(d([1], "u8"), -1), d([1, 2], "i4") == 1.5
    d([1.0]) == None, d([1.0]) != None
    xp.isnan(d([nan, inf, 1.0])), xp.isinf(d([nan, -inf, 1.0])), xp.isfinite(d([nan, inf, 1.0]))
    xp.logical_and(d([2.0, 0.0, nan]), True), xp.logical_or(d([0.0, nan]), False)
    xp.logical_not(d([0.0, 3.0])), xp.logical_xor(d([1, 0], "?"), d([1, 1], "?"))
    xp.bitwise_and(d([6], "i4"), 3), xp.bitwise_or(d([6], "i4"), 1), xp.bitwise_xor(d([6], "i4"), \
        3)
    xp.invert(d([6], "i4")), xp.invert(d([1, 0], "?")), ~d([0], "u1")
    d([1, 3], "u8") << np.uint64(4), d([48], "u8") >> np.uint64(4)
    kind(lambda: a & 1), kind(lambda: a << 1), kind(lambda: ~a)

    # NUMPY
    xp.add(d([1.0]), 2.0), xp.subtract(d([1.0]), 2.0), xp.multiply(d([3.0]), 2.0)
    xp.divide(d([3.0]), 2.0), xp.divide(d([3], "i4"), 2)
    xp.exp(d([0.0, 1.0, -inf])), xp.exp2(d([3.0])), xp.expm1(d([0.0, 1e-6]))
    xp.log(d([1.0, math.e])), xp.log1p(d([0.0, 1e-6])), xp.log2(d([8.0])), xp.log10(d([1000.0]))
    xp.sin(d([0.0, 1.0])), xp.cos(d([0.0, 1.0])), xp.tan(d([0.0, 1.0]))
    xp.arcsin(d([0.5, 2.0])), xp.arccos(d([0.5])), xp.arctan(d([1.0, inf]))
    xp.sinh(d([1.0])), xp.cosh(d([1.0])), xp.tanh(d([1.0, 100.0, -inf]))
    xp.arcsinh(d([1.0])), xp.arccosh(d([2.0, 0.5])), xp.arctanh(d([0.5]))
    xp.cbrt(d([8.0, -27.0, -inf])), xp.hypot(d([3.0, 1e30]), d([4.0, 1e30]))
    xp.hypot(d([inf, nan]), d([nan, 1.0])), xp.hypot(d([3e4], "f2"), d([4e4], "f2"))
    xp.arctan2(d([1.0, -1.0, 0.0]), d([-1.0, -1.0, 0.0])), xp.arctan2(d([0.0, -0.0]), d([-1.0] * 2))
    xp.arctan2(d([inf, -inf]), d([inf, -inf]))
    xp.exp(d([1.0], "f2")), xp.tanh(d([0.5], "f2")), xp.log(d([2.0], "f8"))
    special.erf(d([0.5, -0.5, inf, nan])), special.erfc(d([0.5, 10.0]))
    special.erf(d([0.5], "f2")).dtype, special.erf(d([0.5], "f8")).dtype
    ns.erf(d([0.5], "f2")), ns.erfc(d([0.5], "f2")), ns.erfc(d([-inf, inf]))
    ns.sigmoid(d([0.0, 100.0, -100.0, -1000.0, nan]))
    ns.log_softmax(d([[1.0, 2.0, 3.0]]), -1), ns.log_softmax(d([[1000.0, 0.0]]), 1)
    ns.log_softmax(d([[inf, 0.0], [-inf, 0.0]]), 1), ns.log_softmax(d([[-inf, -inf]]), 1)
    ns.log_softmax(d([[inf, inf, 0.0]]), 1), ns.log_softmax(d([[nan, 0.0]]), 1)
    ns.log_softmax(d([[1.0, 2.0]], "f2"), 1).dtype, ns.log_softmax(d([[1.0], [1.0]]), 0)
    ns.one_hot(d([2, 0, -1, 3], "i8"), 3, 1, "f4"), ns.one_hot(d(1, "i8"), 3, 0, "f8").dtype
    ns.pick(d([[1.0, 2.0], [3.0, 4.0]]), d([1, -100], "i8"), 1, -100)
    ns.max_and_winner(d([[1.0, 3.0, 3.0], [4.0, 2.0, 4.0]]))
    ns.max_and_winner(d([[1.0, nan, 2.0]])), ns.max_and_winner(d([[-inf, -inf]]))
    ns.collect(d([[1.0, 2.0], [3.0, 4.0]]), d([1, 0], "u1"))
    ns.route(d([5.0, 6.0]), d([1, 0], "u1"), 2), ns.route(d([5.0], "f2"), d([1], "u1"), 2).dtype
    ns.astype(d([1.5]), "f8"), ns.astype(a, "f4") is a, ns.copy(d([1.0])), ns.copy(a) is a
    ns.take(d([1.0, 2.0, 3.0]), d([[2, 0]], "i8"), 0), ns.take(b, i, 1).shape
    ns.take_along_axis(d([[1.0, 2.0], [3.0, 4.0]]), d([[1, 0]], "i8"), 0)
    ns.getitem(d([[1.0, 2.0], [3.0, 4.0]]), [d([1, 1], "i8")], ("array", (None, 1, None)))
    ns.getitem(d([1.0, 2.0]), [], (0,)), ns.getitem(d([1.0, 2.0]), [d([0, 1], "?")], ("array",))
    ns.setitem(d([1.0, 2.0, 3.0]), d([9.0]), [d([1], "i8")], ("array",)), a
    ns.scatter_add(d([1.0, 2.0, 4.0]), [d([0, 0, 2], "i8")], (3,), ("array",))
    ns.scatter_add(d([1.0, 2.0], "f2"), [d([1, 1], "i8")], (3,), ("array",))
    ns.scatter_add(d([1.0, 2.0]), [d([1, 0, 1], "?")], (3,), ("array",))
    ns.count_classes(d([0, 2, -100], "i8"), 3, -100, "here")
    after(lambda: ns.count_classes(d([0, 3], "i8"), 3, -100, "here"), be.synchronize)
    after(lambda: ns.check_indices(d([0, -4], "i8"), 3, "here"), be.synchronize)
    after(lambda: ns.check_indices(d([2, -3], "i8"), 3, "here"), be.synchronize)
    ns.einsum([d([[1.0, 2.0]]), d([[3.0, 4.0]])], "ij,kj->ik")
    xp.lib.stride_tricks.as_strided(d([1.0, 2.0, 3.0]), (2, 2), (4, 4))
    owner(xp.lib.stride_tricks.as_strided(a, (2, 2), (4, 4)), a)
    xp.lib.stride_tricks.as_strided(d([1.0, 2.0, 3.0]), (2, 2), (4, 4)).reshape(4)
    xp.matmul(d([[[1.0, 2.0]]]), d([[[3.0], [4.0]]]), out=d([[[0.0]]]))
    ns.conv(d([[[1.0, 2.0, 4.0]]]), d([[[3.0, 1.0]]]), d([1.0]), ((1,), ((1, 0),), (1,), 1))
    ns.conv(d(np.ones((2, 4, 3, 3))), d(np.ones((2, 2, 2, 2))), None, \
        ((2, 1), ((1, 0), (0, 0)), (1, 2), 2)).shape
    ns.conv_input(d([[[1.0, 2.0]]]), d([[[3.0, 1.0]]]), (3,), ((1,), ((0, 0),), (1,), 1))
    ns.conv_weight(d([[[1.0, 2.0]]]), d([[[1.0, 2.0, 4.0]]]), (2,), ((1,), ((0, 0),), (1,), 1))
    ns.unfold(d([[[1.0, 2.0, 4.0]]]), (2,), ((2,), ((1, 0),), (1,)), -inf)
    ns.fold(d([[[[1.0, 2.0], [4.0, 8.0]]]]), (3,), ((1,), ((0, 0),), (1,)))
    ns.max_and_winner(d([[[1.0, 3.0], [4.0, 4.0]]]), 2)
    be.bits((1, 2), 5, 6)
    be.bits((2**64 - 1, 0), 4 * (2**64 - 1), 5)
    be.to_numpy(d([1.0, 2.0])), be.memory()["used"] > 0, be.shares_memory(b, b[:1])

    # cupy/_core/_routines_indexing.pyx
    d([10.0, 20.0, 30.0])[d([3, -4, 7], "i8")], xp.take(d([10.0, 20.0, 30.0]), d([3, -4, 7], "i8"))
    xp.take_along_axis(d([10.0, 20.0, 30.0]), d([3, -4, 7], "i8"), 0)
    d([[1, 2], [3, 4]])[d([2, -3], "i8"), d([0, 5], "i8")]
    assigned(d([1.0, 2.0, 3.0]), d([4], "i8"), 5.0)
    * assigned(d([0.0, 0.0]), d([1, 1], "i8"), d([3.0, 4.0])).get()[1] in (3, 4)
    * assigned(d([[0.0] * 2] * 2), d([1, 1], "i8"), d([[3.0] * 2, [4.0] * 2])).get()[1, 0] in (3, \
        4)
    added(d([0.0, 0.0, 0.0]), d([0, 0, 3, -1], "i8"), d([1.0, 2.0, 4.0, 8.0]))
    added(d([0, 0], "i8"), d([1, 1], "i8"), 2), added(d([0.0], "f2"), d([0, 0], "i8"), 1.0)
    added(d([0.0], "f8"), d([0, 0], "i8"), 1.0), added(d([1.0, 2.0]), slice(0, 1), 1.0)
    added(d([0], "i2"), d([0], "i8"), 1)
    xp.maximum.at(d([0.0], "f2"), d([0], "i8"), 1.0)
    d([1.0, 2.0, 3.0])[d([1, 0, 1], "?")], d([[1, 2], [3, 4]])[d([[1, 0], [0, 1]], "?")]
    assigned(d([1.0, 2.0, 3.0]), d([1, 0, 1], "?"), 0.0)
    assigned(d([1.0, 2.0, 3.0]), 1, 7), assigned(d([1.0, 2.0, 3.0]), slice(0, 2), d([8.0, 9.0]))
    assigned(d([[1.0, 2.0], [3.0, 4.0]]), (slice(None), 0), 5.0)
    assigned(d([1.0, 2.0]), slice(None), d([[3.0, 4.0]]))
    d([10.0, 20.0, 30.0])[np.array([0, 2])], d([10.0, 20.0, 30.0])[[0, 2]]
    d([1.0, 2.0])[[]], d([[1.0, 2.0], [3.0, 4.0]])[[1]], d([1.0, 2.0, 3.0])[::-1]
    d([1.0, 2.0])[0], d([[1, 2], [3, 4]])[1, 0], d([1.0])[0][()], d([[1, 2]])[..., 0], \
        d([1.0])[None]
    xp.take(d([10.0, 20.0, 30.0]), 4), xp.take(b, 1, axis=1).shape, xp.take(b, i).shape
    xp.take(xp.zeros((0,), "f4"), d([0], "i8"))
    xp.nonzero(d([0.0, 3.0, 4.0])), xp.where(d([0, 1], "?"))

    # cupy/_core/_routines_linalg.pyx
    d([[1, 2], [3, 4]]) @ d([[1, 0], [1, 1]]), d([1, 2]) @ d([3, 4]), d([[1, 2], [3, 4]]) @ d([1, \
        1])
    xp.matmul(d([[1, 2]], "i4"), d([[3], [4]], "i4")), xp.matmul(d([[1]], "f2"), d([[2]], "f2"))
    xp.matmul(d([[1]], "f2"), d([[2]])).dtype, xp.matmul(d([[1]]), d([[2]], "f8")).dtype
    xp.matmul(d(np.ones((2, 3, 4))), d(np.ones((4, 5)))).shape
    xp.matmul(d(np.ones((2, 1, 3, 4))), d(np.ones((5, 4, 2)))).shape
    xp.matmul(d(np.ones((2, 0))), d(np.ones((0, 3)))), xp.matmul(d(np.ones((0, 2))), b[:2]).shape
    xp.matmul(d(np.ones((2, 3, 4))), d(np.ones(4))).shape
    kind(lambda: a @ s), kind(lambda: b @ a)
    kind(lambda: d(np.ones((2, 2, 3))) @ d(np.ones((2, 2, 3))))
    kind(lambda: d(np.ones((2, 2, 3))) @ d(np.ones((3, 3, 2))))
    xp.full((1, 64), 64.0, "f2") @ xp.full((64, 1), 8.0, "f2")
    xp.einsum("ij,jk->ik", d([[1, 2]]), d([[3], [4]])), xp.einsum("ij->", d([[1, 2], [3, 4]]))
    xp.einsum("ij->ji", b).shape, xp.einsum("i,i->i", d([1, 2]), d([3, 4])), xp.einsum("ii->i", \
        b[:, :3])
    xp.einsum("bij,bjk->bik", d(np.ones((2, 1, 3))), d(np.ones((2, 3, 1))))
    xp.einsum("i,i->", d([1], "f2"), d([1], "f2")).dtype, xp.einsum("i,j->ij", a, d([1], \
        "f8")).dtype
    xp.einsum("...i,i->...", b[:, :3], a).shape
    kind(lambda: xp.einsum("ij,jk->ik", b, b))
    xp.einsum("i->i", a, foo=1)
    xp.tensordot(d([[1, 2]]), d([[3], [4]]), 1), xp.dot(d([1, 2]), d([3, 4])), xp.outer(d([1, \
        2]), d([3]))

    # cupy/linalg/_solve.py
    xp.linalg.solve(d([[2, 0], [0, 4]]), d([2, 4])), xp.linalg.solve(d([[2]], "f8"), d([[1, 2]]))
    xp.linalg.solve(d([[[2]], [[4]]]), d([[[8]], [[8]]]))
    xp.linalg.solve(d([[[2]], [[4]]]), d([8]))
    xp.linalg.solve(d(np.ones((0, 2, 2))), d(np.ones((0, 2, 1)))).shape
    kind(lambda: xp.linalg.solve(d(np.ones((2, 1, 1))), d(np.ones((1, 1)))))
    kind(lambda: xp.linalg.solve(d([[1]], "f2"), d([[1]], "f2")))
    xp.isfinite(xp.linalg.solve(d([[1, 2], [2, 4]]), d([1, 1]))).all()
    xp.isfinite(xp.linalg.solve(d([[[1]], [[0]]]), d([[[1]], [[1]]])))

    # cupy/linalg/_decomposition.py
    xp.linalg.cholesky(d([[4, 2], [2, 5]])), xp.linalg.cholesky(d([[[4]], [[9]]]))
    (xp.diagonal(xp.linalg.cholesky(d([[1, 2], [2, 1]])), 0, -2, -1) > 0).all()
    xp.diagonal(xp.linalg.cholesky(d([[[4]], [[-9]]])), 0, -2, -1) > 0
    [x.shape for x in xp.linalg.qr(d(np.ones((3, 2))))], \
        [x.shape for x in xp.linalg.qr(d(np.ones((2, 2, 3))), mode="complete")]
    [x.shape for x in xp.linalg.svd(b)], [x.shape for x in xp.linalg.svd(b, full_matrices=False)]
    xp.linalg.svd(d([[3, 0], [0, -4]]), full_matrices=False)[1], \
        [x.shape for x in xp.linalg.svd(d(np.ones((2, 4, 3))), full_matrices=False)]
    [x.shape for x in xp.linalg.svd(d(np.ones((2, 0, 3))), full_matrices=False)]
    xp.isfinite(xp.linalg.svd(d([[math.nan]]), full_matrices=False)[1])

    # cupy/linalg/_eigenvalue.py
    xp.linalg.eigh(d([[2, 9], [0, 1]]), "L")[0], xp.linalg.eigh(d([[2, 9], [0, 1]]).T, "U")[0]
    [x.shape for x in xp.linalg.eigh(d(np.ones((2, 3, 3))), "L")]

    # cupy/linalg/_norms.py
    xp.linalg.det(d([[2, 1], [1, 2]])), xp.linalg.slogdet(d([[2, 1], [4, 2]]))
    xp.linalg.det(d([[[2]], [[0]]])), xp.linalg.slogdet(d([[[1]], [[-1]]]))
    xp.linalg.det(d(np.ones((0, 0)))), xp.linalg.slogdet(d(np.ones((2, 0, 0))))

    # NUMPY
    ns.inv(d([[2, 0], [0, 4]])), ns.solve(d([[[2]], [[4]]]), d([[8]])), ns.solve(d([[2]]), d([8]))
    ns.cofactors(d([[2, 1], [4, 2]])), ns.det(d([[2, 1], [1, 2]])), ns.slogdet_parts(d([[2]]))
    ns.cholesky(d([[4]])), ns.qr_factors(d([[-2]]), "reduced"), ns.svd_factors(d([[2]]), True)[1]
    ns.eigh_factors(d([[2, 0], [0, 1]]), "L")[0], ns.refuse(d([0, 0], "?"), "where", "what")

    # NUMPY
    xp.zeros((2, 1)), xp.ones(2, "f4"), xp.full((2,), 7), xp.full((), 1.5), xp.full(2, 1, "f2")
    xp.zeros_like(b).shape, xp.ones_like(d([1], "i4")), xp.full_like(d([1, 2]), 3), \
        xp.zeros_like(a, "i4")
    xp.where(m, d([1, 2], "u1"), False).dtype, xp.where(m, m, False).dtype, \
        xp.where(m, False, d([1, 2], "f2")).dtype
    d([[1, 2], [3, 4]]).reshape(4)[0:6:3], d([1, 2]).nonzero(), \
        assigned(xp.zeros(4), (slice(0, 6, 3),), d([1, 2]))
    xp.arange(-2, 3) % 3, abs(xp.arange(-2, 3) - 1), xp.clip(xp.arange(-2, 3), 0, 1), \
        xp.expand_dims(xp.arange(2), 1) >= xp.arange(3)
    xp.arange(3), xp.arange(1.0, 2.0, 0.5), xp.arange(2, dtype="f4"), xp.arange(3, 0, -1)
    xp.eye(2), xp.eye(2, 3, 1, "f4"), xp.linspace(0, 1, 3)
    xp.asarray(1.5), xp.asarray([1, 2]), xp.asarray([True]), xp.asarray([1, 2.5]), xp.asarray([])
    xp.asarray(np.float32(2)), xp.asarray(np.ones(2, "f2")), xp.asarray([[1], [2]], "f4")
    xp.asarray(a) is a, xp.asarray(a, "f8").dtype, xp.array(a) is a, xp.array([s, s]).shape
    kind(lambda: xp.asarray([[1], [2, 3]]))
    xp.asarray(np.ones(2, "f4"))[0] + 1, xp.empty(3, "f4").shape
    xp.copy(d([1.0])), d([1.0, 2.0]).copy(), d([1.0]).astype("f4", copy=True) is a
    owner(a.astype("f4"), a)
    a.astype("f4", subok=False)
    a.astype("f4", order="C", copy=False) is a

    xp.reshape(d([[1, 2], [3, 4]]).T, (4,)), xp.reshape(d([1, 2]), (2, 1)), d([1, 2]).reshape(-1, \
        1).shape
    xp.transpose(b).shape, xp.transpose(d([[1, 2]]), (1, 0)), xp.swapaxes(b, 0, 1).shape
    xp.moveaxis(b, 0, -1).shape, xp.expand_dims(a, (0, 2)).shape, xp.squeeze(b[:1], 0).shape
    xp.broadcast_to(d([1, 2]), (2, 2)), xp.flip(d([1, 2, 3])), xp.flip(d([[1, 2], [3, 4]]), (0, 1))
    xp.concatenate([d([1]), d([2], "f8")]), xp.concatenate([d([[1]]), d([[2]])], 1)
    xp.concatenate([d([1], "i4"), d([1], "f2")]).dtype, xp.concatenate([b, b], -1).shape
    xp.stack([d([1]), d([2])]), xp.stack([a, a], axis=-1).shape, xp.stack([s, s]).shape
    xp.split(d([1, 2, 3, 4]), 2), xp.roll(d([1, 2, 3]), 1), xp.repeat(d([1, 2]), 2), \
        xp.tile(d([1]), 2)
    xp.reshape(a, (2, 2))
    xp.transpose(b, (0, 0))
    xp.transpose(b, (0,))
    xp.swapaxes(b, 0, 2)
    xp.moveaxis(b, 2, 0)
    xp.expand_dims(a, 3)
    xp.squeeze(b, 0)
    xp.broadcast_to(a, (2,))
    xp.broadcast_to(b, (3,))
    xp.concatenate([])
    kind(lambda: xp.concatenate([a, b])), kind(lambda: xp.concatenate([a, a], 1))
    kind(lambda: xp.stack([a, s])), kind(lambda: xp.cumsum(a, 1))
    xp.flip(b, 2)

    # cupy/_core/core.pyx, cupy/_core/dlpack.pyx
    xp.asarray("x")
    xp.asarray([None])
    float(d(2.5)), int(d(2.5)), bool(d([0.0])), d([3.5]).item(), f"{d(2.0):.1f}", d([[1, \
        2]]).tolist()
    math.sqrt(d(4.0)), complex(d(1.0)), str(d([1.0, 2.0])), repr(d([1.0, 2.0]))
    bool(xp.zeros(0))
    kind(lambda: float(a)), kind(lambda: int(a))
    type(d(1.0).get()).__name__, d([1.0]).get(), xp.asnumpy(d([1.0])), xp.asnumpy(np.ones(1)) is \
        None
    a.__dlpack_device__(), d([1.0]).__dlpack_device__()
    xp.from_dlpack(d([1.0, 2.0])), owner(xp.from_dlpack(a), a)[:4]
    * kind(lambda: np.from_dlpack(d([1.0]))) in ("BufferError", "RuntimeError")
    np.sqrt(d([4.0])), np.sum(d([1, 2])), np.concatenate([d([1]), d([2])]), np.where(a > 0, a, \
        a).shape
    type(np.exp(a)).__module__, type(np.add(1, a)).__module__
    d([1.0]).set(np.array([2.0], "f4")), d([1.0]).fill(3), filled(d([1.0, 2.0]), 3)
    a.set(np.ones(3))
    a.set(np.ones(2, "f4"))
    a.set([1.0])
    xp.cuda.get_current_stream().record().done in (True, False), xp.cuda.Event().record()
    xp.cuda.get_current_stream() == xp.cuda.Stream.null
    xp.array_equal(d([1.0]), d([1.0])), xp.unique(d([2, 1, 2]))
    [x for x in d([1.0, 2.0])][1], len(d([1.0, 2.0])), d([1.0]).base is None
""")
