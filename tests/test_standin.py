"""The stand-in for CuPy: what it counts, forgets, copies and refuses.

What it shares with CuPy, line by line, is in `test_contract.py`.
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
from contract import Protocol
from standin import TABLE, counting, cupy, ndarray, special


@pytest.fixture(autouse=True)
def forget():
    """Calls that are wrong on purpose are no part of the record."""
    before = set(standin._used)
    yield
    standin._used.intersection_update(before)


def test_table_is_that_of_the_installed_cupy():
    real = pytest.importorskip("cupy")
    if real.__version__ != TABLE["version"]:
        pytest.skip(f"the table is of {TABLE['version']}")
    from data import make_cupy_signatures as maker

    for name, signature in TABLE["functions"].items():
        assert maker.function_signature(getattr(real, name)) == signature
    for name, signature in TABLE["linalg"].items():
        assert maker.function_signature(getattr(real.linalg, name)) == signature
    for name, entry in TABLE["ufuncs"].items():
        assert maker.ufunc_entry(getattr(real, name)) == entry


def test_own_functions_have_the_signatures_of_the_table():
    for name, signature in TABLE["functions"].items():
        own = str(inspect.signature(getattr(cupy, name)))[1:-1].replace("<class 'float'>", "float")
        assert own == signature or name == "from_dlpack"
    for name, signature in TABLE["linalg"].items():
        assert str(inspect.signature(getattr(cupy.linalg, name)))[1:-1] == signature
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
        with pytest.raises((TypeError, ValueError), match=r"set|Shape mismatch"):
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
