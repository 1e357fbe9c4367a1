"""The stand-in for CuPy is as strict as CuPy, and says so in the same words.

The first table holds for both: where the real wheel is installed, the same snippets run on it, on
arrays made over host memory, as far as that goes without a GPU.
"""

import copy
import gc
import inspect
import math
import operator
import pickle
import sys
import warnings

import numpy as np
import pytest
import standin
from standin import TABLE, counting, cupy, ndarray, special

IMPLICIT = (
    "TypeError: Implicit conversion to a NumPy array is not allowed. "
    "Please use `.get()` to construct a NumPy array explicitly."
)
INCORRECT = "TypeError: Argument '{}' has incorrect type (expected cupy._core.core._ndarray_base, "
INCORRECT += "got {})"
FILL = "ValueError: non-scalar numpy.ndarray cannot be used for fill"
ZEROS = "array([0., 0., 0.], dtype=float32)"
REFUSED = "TypeError: operand type(s) all returned NotImplemented from __array_ufunc__("
REFUSED += "<ufunc '{}'>, '__call__', " + ZEROS + ", {}): 'ndarray', '{}'"


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


# `a` has shape (3,), `b` (3, 4), `s` (), all float32; `i` is int64 of shape (2,), `m` a wrong mask.
ON_BOTH = {
    # mixing, implicit conversion
    "np.asarray(a)": IMPLICIT,
    "np.asarray([s, s])": IMPLICIT,
    "np.ones(3)[s]": IMPLICIT,
    "a + [1]": REFUSED.format("add", "[1]", "list"),
    "a < [1]": REFUSED.format("less", "[1]", "list"),
    "a @ [1]": REFUSED.format("matmul", "[1]", "list"),
    "a + None": REFUSED.format("add", "None", "NoneType"),
    "a == 'x'": REFUSED.format("equal", "'x'", "str"),
    "a @ np.ones(3)": INCORRECT.format("b", "numpy.ndarray"),
    "np.ones(3) @ a": INCORRECT.format("a", "numpy.ndarray"),
    "a @ 2.0": INCORRECT.format("b", "float"),
    "xp.matmul(np.ones(3), np.ones(3))": INCORRECT.format("a", "numpy.ndarray"),
    "xp.tensordot(np.ones(3), a, 1)": INCORRECT.format("a", "numpy.ndarray"),
    "xp.stack([np.ones(3)])": INCORRECT.format("a", "numpy.ndarray"),
    "xp.broadcast_to(np.ones(3), (2, 3))": INCORRECT.format("array", "numpy.ndarray"),
    "xp.expand_dims(np.ones(3), 0)": INCORRECT.format("a", "numpy.ndarray"),
    "xp.moveaxis(np.ones((3, 2)), 0, 1)": INCORRECT.format("a", "numpy.ndarray"),
    "xp.cumsum(np.ones(3))": INCORRECT.format("a", "numpy.ndarray"),
    "xp.may_share_memory(a, np.ones(3))": INCORRECT.format("b", "numpy.ndarray"),
    "xp.any(np.ones(3))": "TypeError: 'a' must be a cupy.ndarray object, "
    "not <class 'numpy.ndarray'>.",
    "xp.mean([1, 2])": "AttributeError: 'list' object has no attribute 'mean'",
    "xp.zeros_like([1.0])": "AttributeError: 'list' object has no attribute 'dtype'",
    "xp.astype(np.ones(2), 'f4')": "TypeError: Input should be a CuPy array. "
    "It is a <class 'numpy.ndarray'> instead.",
    "xp.add.at(np.ones(2), np.array([0]), 1.0)": "AttributeError: 'numpy.ndarray' object has no "
    "attribute '_scatter_op'",
    "xp.from_dlpack(np.ones(2))": "TypeError: CPU arrays cannot be directly imported to CuPy. "
    "Use `cupy.array(numpy.from_dlpack(input))` instead.",
    "type(xp.sum(np.ones(3))).__name__": "float64",  # in silence
    "type(xp.reshape(np.ones(4), (2, 2))).__name__": "ndarray",
    "isinstance(xp.transpose(np.ones(4)), np.ndarray)": "True",
    "xp.get_array_module(np.ones(2)) is np": "True",
    "xp.get_array_module(np.ones(2), a) is xp": "True",
    # names that are absent
    "xp.errstate": "AttributeError: module 'cupy' has no attribute 'errstate'",
    "[n for n in 'errstate seterr vecdot matvec geomspace unstack block insert nditer einsum_path "
    "spacing frompyfunc object_ __array_namespace__'.split() if hasattr(xp, n)]": "[]",
    "[n for n in '__index__ __contains__ __imatmul__ __round__ ctypes resize'.split() "
    "if hasattr(a, n)]": "[]",
    "xp.float32 is np.float32, xp.bool_ is np.bool_, xp.newaxis": "(True, True, None)",
    "np.block([a])": "TypeError: no implementation found for 'numpy.block' on types that implement "
    "__array_function__: [<class 'cupy.ndarray'>]",
    "np.spacing(a)": "TypeError: operand type(s) all returned NotImplemented from "
    f"__array_ufunc__(<ufunc 'spacing'>, '__call__', {ZEROS}): 'ndarray'",
    # keywords and counts of arguments
    "xp.sum(a, where=1)": "TypeError: sum() got an unexpected keyword argument 'where'",
    "xp.sum(a, initial=1)": "TypeError: sum() got an unexpected keyword argument 'initial'",
    "a.sum(where=1)": "TypeError: sum() got an unexpected keyword argument 'where'",
    "a.max(initial=1)": "TypeError: max() got an unexpected keyword argument 'initial'",
    "xp.sum(a, 1, 2, 3, 4, 5, 6)": "TypeError: sum() takes from 1 to 5 positional arguments but 7 "
    "were given",
    "xp.take(a, i, mode='wrap')": "TypeError: take() got an unexpected keyword argument 'mode'",
    "xp.zeros(3, device=None)": "TypeError: zeros() got an unexpected keyword argument 'device'",
    "xp.asarray(a, like=None)": "TypeError: asarray() got an unexpected keyword argument 'like'",
    "xp.clip(a)": "TypeError: clip() missing 2 required positional arguments: 'a_min' and 'a_max'",
    "xp.clip(a, min=0)": "TypeError: clip() got an unexpected keyword argument 'min'",
    "a.transpose(axes=(0,))": "TypeError: transpose() got an unexpected keyword argument 'axes'",
    "xp.exp(a, foo=1)": "TypeError: Wrong arguments {'foo': 1}",
    "xp.add(a, a, where=True)": "TypeError: Wrong arguments {'where': True}",
    "np.exp(a, where=True)": "TypeError: Wrong arguments {'where': True}",
    "xp.add(a)": "TypeError: Wrong number of arguments for 'cupy_add'. It must be either 2 or 3 "
    "(with outputs), but given 1.",
    "xp.maximum.reduce(a)": "NotImplementedError: `cupy_maximum.reduce` is not supported yet",
    "np.maximum.reduce(a)": "NotImplementedError: `cupy_maximum.reduce` is not supported yet",
    "xp.multiply.at(a, i, 1.0)": "NotImplementedError: `cupy_multiply.at` is not supported yet",
    "xp.where(a, a)": "ValueError: Must provide both 'x' and 'y' or neither.",
    "a.astype('f4', casting='safe')": "TypeError: casting is not supported yet",
    "xp.zeros(3, dtype=object)": "ValueError: Unsupported dtype object",
    "xp.exp.nin, xp.add.nout, xp.add.nargs": "(1, 1, 3)",
    "xp.result_type(a, 1.0), xp.result_type(a, np.float64(1))": "(dtype('float32'), "
    "dtype('float64'))",
    # indexing
    "a[5]": "IndexError: Index 5 is out of bounds for axis 0 with size 3",
    "a[-4]": "IndexError: Index -4 is out of bounds for axis 0 with size 3",
    "a.__setitem__(7, 1.0)": "IndexError: Index 7 is out of bounds for axis 0 with size 3",
    "b[0, 0, 0]": "IndexError: too many indices for array: array is 2-dimensional, but 3 were "
    "indexed",
    "b[..., 4]": "IndexError: Index 4 is out of bounds for axis 1 with size 4",
    "b[::0]": "ValueError: Slice step must be nonzero.",
    "b[a]": "IndexError: arrays used as indices must be of integer or boolean type. "
    "(actual: <class 'numpy.float32'>)",
    "b[m]": "IndexError: boolean index did not match indexed array along dimension 0; dimension is "
    "3 but corresponding boolean dimension is 2",
    "b[1.0].shape": "(4,)",
    "b.__setitem__(slice(None), np.ones((3, 4)))": FILL,
    "b.__setitem__(0, [1, 2, 3, 4])": FILL,
    "a.fill([1, 2])": FILL,
    "xp.take_along_axis(b, b, 0)": "IndexError: `indices` must be an integer array",
    "xp.take_along_axis(b, i, 0)": "ValueError: `indices` and `a` must have the same number of "
    "dimensions",
    # scalars, sizes, objects
    "len(s)": "TypeError: len() of unsized object",
    "iter(s)": "TypeError: iteration over a 0-d array",
    "bool(a)": "ValueError: The truth value of an array with more than one element is ambiguous. "
    "Use a.any() or a.all()",
    "a.item()": "ValueError: can only convert an array of size 1 to a Python scalar",
    "range(s)": "TypeError: 'ndarray' object cannot be interpreted as an integer",
    "xp.zeros(s)": "TypeError: 'ndarray' object cannot be interpreted as an integer",
    "hash(a)": "TypeError: unhashable type: 'ndarray'",
    "a.foo": "AttributeError: 'ndarray' object has no attribute 'foo'",
    "a.reshape(5)": "ValueError: cannot reshape array of size 3 into shape (5,)",
    "a.__array_priority__": "100",
    # deferring to others
    "a + Protocol()": "('add', '__call__', ['ndarray', 'Protocol'], {})",
    "a @ Protocol()": "('matmul', '__call__', ['ndarray', 'Protocol'], {})",
    "a < Protocol()": "('less', '__call__', ['ndarray', 'Protocol'], {})",
    "a + Aloof(), a @ Aloof(), a < Aloof()": "('radd', 'rmatmul', 'gt')",
    "a + Prior()": "radd",
    # views: how the result lies, and whose memory it uses
    "owner(b[1:], b)": "view (2, 4) [16, 4]",
    "owner(b[0], b)": "view (4,) [4]",
    "owner(b[0, 0], b)": "view () []",
    "owner(b[None], b)": "view (1, 3, 4) [16, 4]",
    "owner(b[...], b)": "view (3, 4) [16, 4]",
    "owner(b[:2][:1], b)": "view (1, 4) [4]",
    "owner(s[()], s)": "view () []",
    "owner(b.T, b)": "view (4, 3) [4, 16]",
    "owner(b.mT, b)": "view (4, 3) [4, 16]",
    "owner(a.T, a)": "self (3,) [4]",
    "owner(b.reshape(3, 4), b)": "view (3, 4) [16, 4]",
    "owner(xp.reshape(b, (4, 3)), b)": "view (4, 3) [12, 4]",
    "owner(b.ravel(), b)": "view (12,) [4]",
    "owner(b.view(), b)": "view (3, 4) [16, 4]",
    "owner(b.transpose(1, 0), b)": "view (4, 3) [4, 16]",
    "owner(xp.transpose(b, (1, 0)), b)": "view (4, 3) [4, 16]",
    "owner(xp.broadcast_to(b, (2, 3, 4)), b)": "view (2, 3, 4) [0, 16, 4]",
    "owner(xp.moveaxis(b, 0, 1), b)": "view (4, 3) [4, 16]",
    "owner(xp.flip(b, 0), b)": "view (3, 4) [-16, 4]",
    "owner(b.squeeze(), b)": "self (3, 4) [16, 4]",
    "owner(xp.squeeze(b[:1], 0), b)": "view (4,) [4]",
    "owner(b.astype('f4', copy=False), b)": "self (3, 4) [16, 4]",
    "owner(xp.ascontiguousarray(b), b)": "self (3, 4) [16, 4]",
    "owner(next(iter(b)), b)": "view (4,) [4]",
    "xp.may_share_memory(b, b[:1]), xp.may_share_memory(b[:1], b[1:])": "(True, False)",
    "a.flags.c_contiguous, a.flags.owndata, b[1:].flags.owndata, b.T.flags.f_contiguous": "(True, "
    "True, False, True)",
}


def real_cupy():
    """Give the real CuPy and a maker of arrays over host memory, which work without a driver."""
    real = pytest.importorskip("cupy")
    if real.cuda.runtime.driverGetVersion():
        return real, real.zeros

    class Shown(real.ndarray):
        def __repr__(self):
            return ZEROS

    Shown.__name__, Shown.__qualname__, Shown.__module__ = "ndarray", "ndarray", "cupy"

    def make(shape, dtype):
        host = np.zeros(shape, dtype)
        memory = real.cuda.UnownedMemory(host.ctypes.data, max(host.nbytes, 1), host, 0)
        return Shown(shape, dtype, memptr=real.cuda.MemoryPointer(memory, 0))

    return real, make


def owner(result, of):
    """Say whose memory a result uses, and how it lies there (an axis of length one has no step)."""
    who = "self" if result is of else "view" if result.base is of else "other"
    steps = [step for n, step in zip(result.shape, result.strides, strict=True) if n > 1]
    return f"{who} {result.shape} {steps}"


def outcome(snippet, xp, make):
    names = {
        "a": make((3,), "f4"), "b": make((3, 4), "f4"), "s": make((), "f4"),
        "i": make((2,), "i8"), "m": make((2,), "?"), "xp": xp, "np": np, "owner": owner,
        "Protocol": Protocol, "Aloof": Aloof, "Prior": Prior,
    }  # fmt: skip
    try:
        return str(eval(snippet, names))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("snippet", ON_BOTH)
def test_stand_in_answers_as_cupy(snippet):
    assert outcome(snippet, cupy, cupy.zeros) == ON_BOTH[snippet]


@pytest.mark.parametrize("snippet", ON_BOTH)
def test_real_cupy_answers_so(snippet):
    assert outcome(snippet, *real_cupy()) == ON_BOTH[snippet]


def test_table_is_that_of_the_installed_cupy():
    real, _ = real_cupy()
    if real.__version__ != TABLE["version"]:
        pytest.skip(f"the table is of {TABLE['version']}")
    from data import make_cupy_signatures as maker

    for name, signature in TABLE["functions"].items():
        assert maker.function_signature(getattr(real, name)) == signature
    for name, entry in TABLE["ufuncs"].items():
        assert maker.ufunc_entry(getattr(real, name)) == entry


def test_own_functions_have_the_signatures_of_the_table():
    for name, signature in TABLE["functions"].items():
        own = str(inspect.signature(getattr(cupy, name)))[1:-1].replace("<class 'float'>", "float")
        assert own == signature or name == "from_dlpack"
    for name, signature in TABLE["methods"].items():
        assert str(inspect.signature(getattr(ndarray, name)))[1:-1] == signature


# What follows is known from CuPy's source and needs a device there.


def dev(data, dtype="f4"):
    return cupy.asarray(np.asarray(data, dtype))


def says(text):
    return pytest.raises(TypeError, match=text)


def test_array_is_no_numpy_array():
    assert not isinstance(dev([1]), np.ndarray)
    assert not issubclass(ndarray, np.ndarray)


def test_mixing_with_host_arrays_is_refused():
    host, x = np.ones(3, "f4"), dev([1, 2, 3])
    for call in (
        lambda: x + host, lambda: host + x, lambda: cupy.add(x, host), lambda: x < host,
        lambda: cupy.where(x > 1, host, x), lambda: cupy.clip(x, host, 1),
        lambda: operator.iadd(host, x), lambda: operator.iadd(x, host), lambda: cupy.outer(x, host),
    ):  # fmt: skip
        with says("^Unsupported type <class 'numpy.ndarray'>$"):
            call()
    for call in (lambda: cupy.add(x, [1]), lambda: operator.iadd(x, [1])):
        with says("^Unsupported type <class 'list'>$"):
            call()
    with says("Unsupported type .*Protocol"):
        x += Protocol()  # in place, CuPy asks nobody
    with says("^Only cupy arrays can be concatenated$"):
        cupy.concatenate([x, host])
    with says("Output arguments type"):
        cupy.add(x, x, host)
    assert (x < np.array(2.0)).get().tolist() == [True, False, False]


def test_python_scalars_are_weak_and_numpy_scalars_strong():
    x = dev([1, 2, 3])
    assert (x * 2.0).dtype == (x + 1).dtype == (2 / x).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    assert (np.float64(2) * x).dtype == np.float64
    assert cupy.where(x > 1, x, 0.0).dtype == np.float32
    assert cupy.maximum(x.astype("f2"), 0).dtype == np.float16
    assert (dev([1], "i4") / 2).dtype == np.float64
    with says("^Cannot cast output operand from dtype.'float64'. to dtype.'float32'. according"):
        cupy.multiply(x, np.float64(2), out=x, casting="safe")


def test_reductions_and_indexing_give_arrays():
    x = dev([[1, 2], [3, 4]])
    for result in (
        x.sum(), cupy.sum(x), x.max(), x.mean(), x.argmax(), x.any(), x[0, 0], x[1][1], x[0, 0][()],
        cupy.einsum("ij->", x), cupy.add(1, 2), cupy.tensordot(x, x), x[0] @ x[1],
    ):  # fmt: skip
        assert type(result) is ndarray
        assert result.shape == ()


def test_operators_agree_with_numpy():
    host = np.array([[1.5, -2, 3], [4, 5, 0.25]], "f4")
    other = np.array([2, 0.5, -1], "f4")
    x, y = dev(host), dev(other)
    for name in "add sub mul truediv floordiv mod lt le eq ne gt ge".split():  # noqa: SIM905
        f = getattr(operator, name)
        for device, wanted in ((f(x, y), f(host, other)), (f(2.0, y), f(2.0, other))):
            assert device.dtype == wanted.dtype
            np.testing.assert_array_equal(device.get(), wanted)
    assert (x @ dev(host.T)).get().tolist() == (host @ host.T).tolist()
    for f in (operator.neg, operator.pos, operator.abs):
        assert f(x).get().tolist() == f(host).tolist()
    assert (~(x > 0)).get().tolist() == (~(host > 0)).tolist()
    assert (dev([2, 3]) ** 2).tolist() == [4, 9]
    assert (2 ** dev([2, 3])).tolist() == [4, 8]
    k, n = dev([5, 6], "u8"), np.array([5, 6], "u8")
    assert ((k << np.uint64(3)) ^ k | (k >> 1) & 1).get().tolist() == (
        (n << np.uint64(3)) ^ n | (n >> np.uint64(1)) & np.uint64(1)
    ).tolist()


def test_in_place_writes_into_the_array():
    x = dev([1, 2, 3])
    same = x
    x += 1
    x *= x
    assert same is x
    assert x.tolist() == [4, 9, 16]
    n = dev([1, 2], "i4")
    with says("according to the rule 'same_kind'"):
        n /= 2
    with pytest.raises(ValueError, match="Out shape is mismatched"):
        x += dev([[1, 2, 3]] * 2)


def test_functions_agree_with_numpy():
    """Every function of the table runs; the results are NumPy's."""
    x = np.linspace(-1, 2, 12, dtype="f4").reshape(3, 4)
    i = np.array([[0, 2, 1, 1]])
    calls = {
        "arange": (5,), "array": (x,), "array_equal": (x, x), "asarray": (x,), "astype": (x, "f8"),
        "broadcast_arrays": (x, x), "broadcast_shapes": ((3, 1), (4,)), "can_cast": ("f4", "f8"),
        "broadcast_to": (x, (2, 3, 4)), "clip": (x, 0, 1), "concatenate": ([x, x], 1),
        "copyto": (x.copy(), x), "dot": (x, x.T), "einsum": ("ij,kj->ik", x, x), "eye": (3, 4),
        "expand_dims": (x, 1), "full": ((2,), 7), "full_like": (x, 7), "linspace": (0, 1, 5),
        "matmul": (x, x.T), "moveaxis": (x, 0, 1), "ones": (3,), "outer": (x[0], x[0]),
        "put_along_axis": (x.copy(), i, 1.0, 0), "repeat": (x, 2, 1), "reshape": (x, (4, -1)),
        "result_type": (x, 1.0), "roll": (x, 1, 0), "split": (x, 2, 1), "stack": ([x, x], 1),
        "swapaxes": (x, 0, 1), "take": (x, i, 1), "take_along_axis": (x, i, 0), "tile": (x, 2),
        "tensordot": (x, x), "where": (x > 0, x, 0.0), "zeros": ((2, 3),),
    }  # fmt: skip
    own = {"asnumpy", "empty", "empty_like", "get_array_module", "get_default_memory_pool"}
    own |= {"is_available", "may_share_memory", "shares_memory"}

    def upload(value):
        if isinstance(value, list | tuple):
            return type(value)(map(upload, value))
        return dev(value, value.dtype) if isinstance(value, np.ndarray) else value

    for name in TABLE["functions"].keys() - own:
        args = calls.get(name, (x,))
        got, wanted = getattr(cupy, name)(*upload(args)), getattr(np, name)(*args)
        if isinstance(wanted, list | tuple) and isinstance(got, list | tuple):
            got = [g.get() if isinstance(g, ndarray) else g for g in got]
        np.testing.assert_array_equal(got.get() if isinstance(got, ndarray) else got, wanted, name)


def test_ufuncs_agree_with_numpy_on_every_type():
    for name, entry in TABLE["ufuncs"].items():
        host = getattr(np, name)
        for kind in "bhiqBefd":
            args = [np.array([1, 2, 3], kind), np.array([3, 1, 2], kind)][: entry["nin"]]
            try:
                with np.errstate(all="ignore"):
                    wanted = host(*args)
            except TypeError:
                continue
            got = getattr(cupy, name)(*(dev(x, kind) for x in args))
            if kind not in "efd" and name in ("ceil", "fix", "floor", "trunc"):
                continue  # integers stay integers in CuPy, and in NumPy from 2.1 on
            assert got.dtype == wanted.dtype or {got.dtype.char, wanted.dtype.char} == {"l", "q"}
            np.testing.assert_allclose(got.get(), wanted, 1e-6, err_msg=f"{name} {kind}")


def test_special_functions_follow_the_loops_of_the_wheel():
    assert special.erf(dev([0.5])).dtype == np.float32
    assert special.erf(dev([0.5], "f2")).dtype == np.float64  # so a backend must cast back
    assert special.erfc(dev([0.5], "f8")).item() == math.erfc(0.5)


def test_integer_arrays_wrap_and_repeats_keep_the_first():
    x, far = dev([10, 20, 30]), dev([3, -4, 7], "i8")
    assert x[far].tolist() == cupy.take(x, far).tolist() == [10, 30, 20]
    assert cupy.take_along_axis(x, far, 0).tolist() == [10, 30, 20]
    x[dev([4], "i8")] = 5
    assert x.tolist() == [10, 5, 30]
    x[dev([0, 0, 3], "i8")] = dev([1, 2, 3])
    assert x.tolist() == [1, 5, 30]
    cupy.put_along_axis(x, dev([2, 2], "i8"), dev([7, 8]), 0)
    assert x.tolist() == [1, 5, 7]
    grid = dev(np.zeros((2, 3)))
    grid[1, dev([0, 2, 0], "i8")] = dev([1, 2, 3])
    assert grid.tolist() == [[0, 0, 0], [1, 0, 2]]


def test_add_at_accumulates_and_wraps():
    x = dev(np.zeros(3))
    cupy.add.at(x, dev([0, 0, 3, -1], "i8"), dev([1, 2, 4, 8]))
    assert x.tolist() == [7, 0, 8]
    cupy.add.at(x, (slice(0, 2),), 1.0)
    np.add.at(x, dev([1], "i8"), 1.0)
    assert x.tolist() == [8, 2, 8]
    with says(
        "^cupy.add.at only supports int32, int64, float16, float32, float64, uint32, uint64 "
    ):
        cupy.add.at(dev([0], "i2"), dev([0], "i8"), 1)


def test_values_that_differ_from_numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (dev([1, 2], "i4") // 0).tolist() == [0, 0]
        assert (dev([1]) / 0).tolist() == [math.inf]
        assert (dev([1e-30]) * dev([1e-10])).tolist() == [0]
        assert (dev([1e-30], "f8") * 1e-10).item() > 0
        assert cupy.log(dev([-1.0])).tolist() != [0]
    assert all(map(math.isnan, cupy.empty(3).tolist()))
    assert (dev([1]) == None).tolist() == [False]  # noqa: E711
    assert (dev([1]) != None).tolist() == [True]  # noqa: E711


def test_numpy_functions_run_on_the_device():
    x = dev([1, 4, 9])
    with counting() as seen:
        for result in (
            np.sqrt(x),
            np.concatenate([x, x]),
            np.sum(x),
            np.add(1, x),
            np.where(x, x, x),
        ):
            assert type(result) is ndarray
    assert (seen.launches, seen.syncs, seen.host_copies) == (5, 0, 0)
    assert np.exp(x, out=x) is x

    class Stranger:
        def __array_function__(self, func, types, args, kwargs):
            return NotImplemented

    with says("^no implementation found for 'numpy.concatenate'"):
        np.concatenate([x, Stranger()])


def test_reading_is_counted():
    x = dev(2.0)
    for read in (
        float, int, bool, complex, str, repr, "{:.2f}".format, ndarray.item, ndarray.get,
        ndarray.tolist, cupy.asnumpy, lambda x: f"{x}", lambda x: math.sqrt(x),
    ):  # fmt: skip
        with counting() as seen:
            read(x)
        assert (seen.syncs, seen.host_copies, seen.launches) == (1, 1, 0), read


def test_what_waits_for_the_device_is_counted():
    x, mask = dev([1, 0, 2]), dev([1, 0, 1], "?")
    for call, syncs, copies in (
        (lambda: x[mask], 1, 1), (lambda: x.nonzero(), 1, 1), (lambda: cupy.nonzero(x), 1, 1),
        (lambda: cupy.unique(x), 1, 1), (lambda: cupy.where(mask), 1, 1), (lambda: x[0], 0, 0),
        (lambda: x.__setitem__(mask, 0.0), 1, 1), (lambda: cupy.where(mask, x, 0.0), 0, 0),
        (lambda: x.sum(), 0, 0), (lambda: cupy.cuda.Device().synchronize(), 1, 0),
        (lambda: cupy.cuda.Stream.null.synchronize(), 1, 0),
    ):  # fmt: skip
        with counting() as seen:
            call()
        assert (seen.syncs, seen.host_copies) == (syncs, copies)


def test_uploads_from_page_locked_memory_and_events():
    x, event = dev([0, 0]), cupy.cuda.Event()
    pinned = np.ndarray((2,), "f4", cupy.cuda.alloc_pinned_memory(8))
    for host, count in ((pinned, 1), (pinned[:].view(), 1), (np.ones(2, "f4"), 0)):
        with counting() as seen:
            x.set(host)
        assert (seen.uploads, seen.pinned, seen.syncs) == (1, count, 0)
    event.record()
    later = cupy.cuda.get_current_stream().record()
    assert cupy.cuda.get_elapsed_time(event, later) >= 0
    with counting() as seen:
        later.synchronize()
    assert seen.syncs == 1
    for wrong in (np.ones(2), np.ones(3, "f4"), [1.0, 2.0]):
        with pytest.raises((TypeError, ValueError), match="set|Shape mismatch"):
            x.set(wrong)


def test_silent_copies_are_counted():
    x, index = dev([1, 0, 2]), np.array([0, 2])
    for call in (
        lambda: x[index], lambda: x[[0, 2]], lambda: cupy.take(x, index), lambda: x[index, ...],
        lambda: x.__setitem__(dev(index, "i8"), np.ones(2)), lambda: cupy.einsum("i->", np.ones(2)),
        lambda: cupy.take_along_axis(x, index, 0),
    ):  # fmt: skip
        with counting() as seen:
            call()
        assert seen.host_copies == 1
        assert seen.uploads >= 1
    with counting() as seen:
        cupy.asarray([1.0])
        cupy.asarray(x)
        cupy.asarray([x, x])
    assert (seen.uploads, seen.host_copies) == (1, 0)


def test_counters_and_record():
    standin.counters.reset()
    x = dev([1, 2])
    with counting() as outer, counting() as seen:
        y = x * x + 1
        y.reshape(2, 1).sum(axis=0, keepdims=True)
    assert vars(outer) == vars(seen)
    assert (seen.launches, seen.views, seen.uploads) == (4, 1, 0)
    assert standin.counters.launches == 5
    assert standin.counters.uploads == 1
    assert ("multiply", 2, (), ("float32", "float32")) in standin.used_calls()
    assert ("add", 2, (), ("float32", "int")) in standin.used_calls()
    assert any(
        call[:3] == ("ndarray.sum", 1, ("axis", "keepdims")) for call in standin.used_calls()
    )


def test_ownership_shows_in_references():
    x = dev(np.zeros((2, 3)))
    alone = sys.getrefcount(x)
    y = x + 1
    view = x[0]
    assert sys.getrefcount(x) == alone + 1
    assert view.base is x
    assert view[1:].base is x
    assert y.base is None
    del view
    assert sys.getrefcount(x) == alone


def test_memory_pool_forgets_at_once():
    pool = cupy.get_default_memory_pool()
    gc.disable()
    try:
        before = pool.used_bytes()
        x = cupy.zeros((100, 10))
        view = x.T
        garbage = cupy.empty(4, "f4")
        assert pool.used_bytes() == before + 8016
        del x, garbage
        assert pool.used_bytes() == before + 8000
        del view
        assert pool.used_bytes() == before
        assert pool.total_bytes() >= before + 8016
        pool.free_all_blocks()
        assert pool.total_bytes() == before
    finally:
        gc.enable()


def test_dlpack():
    x = dev([1, 2])
    assert x.__dlpack_device__() == (2, 0)
    assert cupy.from_dlpack(x).base is x
    with pytest.raises(BufferError, match="no device in the stand-in"):
        x.__dlpack__()
    with counting() as seen:
        capsule_owner = type("Copy", (), {
            "__dlpack__": lambda _, **__: x.__dlpack__(dl_device=(1, 0)),
            "__dlpack_device__": lambda _: (1, 0),
        })()  # fmt: skip (np.from_dlpack takes `device=` only from NumPy 2.1 on)
        assert np.from_dlpack(capsule_owner).tolist() == [1, 2]
    assert seen.host_copies == 1


def test_copies():
    x = dev([1, 2])
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.copy()):
        assert type(other) is ndarray
        assert not cupy.may_share_memory(x, other)
        assert other.tolist() == [1, 2]


def test_module():
    assert cupy.__version__ == "14.2.0"
    assert cupy.is_available()
    assert cupy.cuda.runtime.getDeviceCount() == 1
    assert cupy.cuda.runtime.driverGetVersion() >= cupy.cuda.runtime.runtimeGetVersion() > 0
    with pytest.warns(DeprecationWarning, match="empty array is ambiguous"):
        assert not cupy.zeros(0)
