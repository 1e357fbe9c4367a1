"""Exchange by DLPack: the same memory under two names, with NumPy, PyTorch, JAX, and a device.

What needs PyTorch or JAX is skipped where they are not installed. No device was at hand: what lies
in CUDA memory is played by the stand-in, with the real protocol's device numbers.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import standin
from samples import registered

import microgradnd as mg
from microgradnd import backend
from microgradnd.backend.cupy_backend import CupyBackend

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64",
]  # fmt: skip
#: NumPy 2.0 gives what it takes over read-only, and exports nothing read-only.
OLD = not np.from_dlpack(np.ones(1)).flags.writeable
recent = pytest.mark.skipif(OLD, reason=f"NumPy {np.__version__} takes memory over read-only")
#: Arrays whose layout is not the plain one.
LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.T,
    "strided": lambda x: x[::2, 1::2],
    "a number": lambda x: x[1, 2, ...],
    "empty": lambda x: x[:0],
    "broadcast": lambda x: np.broadcast_to(x[0], (3, 6)),
}


def numbers(dtype="float32"):
    return np.arange(24).reshape(4, 6).astype(dtype)


def address(tensor):
    return tensor._array.__array_interface__["data"][0]


class Exporter:
    """Another library's array: nothing but DLPack; a device and a dtype of its own, if given."""

    def __init__(self, array, device=None, dtype=None, fault=None):
        self.array, self.device, self.fault = array, device, fault
        if dtype is not None:
            self.dtype = dtype

    def __dlpack__(self, **options):
        if self.fault is not None:
            raise self.fault
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


# ------------------------------------------------------------------------- with NumPy alone


@recent
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_both_ways(dtype):
    array = numbers(dtype)
    for t in (mg.from_dlpack(Exporter(array)), mg.asarray(Exporter(array))):
        assert t.dtype == dtype and address(t) == array.__array_interface__["data"][0]
        back = np.from_dlpack(t)
        assert back.dtype == dtype and np.array_equal(back, array)
        assert np.shares_memory(back, array)


@recent
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_both_ways(layout):
    array = np.asarray(LAYOUTS[layout](numbers()))
    t = mg.from_dlpack(Exporter(array))
    assert t.shape == array.shape and t.tolist() == array.tolist()
    assert address(t) == array.__array_interface__["data"][0]
    assert np.array_equal(np.from_dlpack(t), array)


@recent
def test_writes_go_through_both_ways():
    array = numbers()
    t = mg.from_dlpack(Exporter(array))
    array[0, 0] = 50.0
    assert t[0, 0].item() == 50.0
    with mg.no_grad():  # while recording, a new array would take the old one's place
        t += 1.0
    assert array[0, 0] == 51.0 and array[3, 5] == 24.0
    assert np.from_dlpack(t)[3, 5] == 24.0


def test_a_copy_is_a_copy():
    array = numbers()
    t = mg.tensor(Exporter(array))
    array[0, 0] = 50.0
    assert t[0, 0].item() == 0.0
    wider = mg.asarray(Exporter(array), dtype="float64")
    assert wider.dtype == "float64" and not np.shares_memory(wider._array, array)


def test_the_exporter_may_go_before_the_tensor():
    t = mg.from_dlpack(Exporter(numbers()))
    assert (t + 1.0).sum().item() == sum(range(24)) + 24


@recent
def test_what_is_read_only_stays_so():
    array = numbers()
    array.flags.writeable = False
    t = mg.from_dlpack(Exporter(array))
    with pytest.raises(ValueError, match="read-only"), mg.no_grad():
        t += 1.0
    assert (t + 1.0)[0, 0].item() == 1.0 and array[0, 0] == 0.0


def test_on_the_tape_it_stays_here():
    t = mg.tensor([1.0, 2.0], requires_grad=True)
    for tensor in (t, t * 2.0):
        with pytest.raises(RuntimeError, match=r"DLPack export: .* t\.detach\(\)"):
            tensor.__dlpack__()
    assert np.shares_memory(np.from_dlpack(t.detach()), t._array)


def test_a_tensor_from_elsewhere_can_be_trained():
    array = numbers()
    w = mg.from_dlpack(Exporter(array)).requires_grad_()
    sgd = mg.optim.SGD([w], lr=0.5)
    (w * w).sum().backward()
    assert w.grad.tolist() == (2 * numbers()).tolist()
    sgd.step()
    assert w.tolist() == (0 * numbers()).tolist()


def test_views_that_go_backwards_are_refused():
    # PyTorch 2.13 ends the whole process when it is given one.
    for t in (mg.asarray(numbers())[::-1], mg.asarray(numbers())[:, ::-2]):
        with pytest.raises(BufferError, match=r"backwards through memory.*t\.clone\(\)"):
            t.__dlpack__()
        assert np.array_equal(np.from_dlpack(t.clone()), t.numpy())


@pytest.mark.parametrize("take", [mg.from_dlpack, mg.asarray, mg.tensor])
def test_dtypes_that_we_lack_are_named(take):
    # What NumPy says of any dtype that it does not know.
    fault = RuntimeError("Unsupported dtype in DLTensor.")
    with pytest.raises(TypeError, match=r"dtype bfloat16 is not supported; .* float16/32/64"):
        take(Exporter(numbers(), dtype="torch.bfloat16", fault=fault))
    with pytest.raises(TypeError, match="complex"):
        take(Exporter(numbers("complex64")))
    with pytest.raises(RuntimeError, match="the power is off"):
        take(Exporter(numbers(), fault=RuntimeError("the power is off")))


@pytest.mark.parametrize("take", [mg.from_dlpack, mg.asarray, mg.tensor])
def test_devices_that_we_lack_are_named(take):
    with pytest.raises(TypeError, match="Exporter on a device of DLPack's type 8 cannot"):
        take(Exporter(numbers(), device=(8, 0)))


# ----------------------------------------------------------------- memory of a device, played


class Foreign(standin.ndarray):
    """An array of another library in the memory of the pretended device."""

    __slots__ = ("owner",)

    def __init__(self, array):
        self._data, self.base, self.owner = array._data, array, array


@pytest.fixture
def device():
    with registered(CupyBackend(standin.cupy, standin.special)) as found:
        yield found


@pytest.mark.parametrize("take", [mg.from_dlpack, mg.asarray, mg.tensor])
def test_device_memory_goes_to_cupy(device, take):
    theirs = device.asarray(numbers())
    with standin.counting() as counted:
        t = take(Foreign(theirs))
    assert (counted.uploads, counted.host_copies, counted.syncs) == (0, 0, 0)
    assert type(t) is mg.Tensor and t.backend is device
    theirs[0, 0] = 50.0
    assert t[0, 0].item() == (0.0 if take is mg.tensor else 50.0)


def test_device_memory_goes_out_as_it_is(device):
    t = mg.tensor(numbers()).to("cupy")
    assert t.__dlpack_device__() == (2, 0) == t._array.__dlpack_device__()
    taken = standin.cupy.from_dlpack(t._array)
    taken[0, 0] = 50.0
    assert t[0, 0].item() == 50.0
    # NumPy would need a copy, and is not given one in silence.
    with pytest.raises(BufferError):
        np.from_dlpack(t)


def test_host_memory_stays_on_the_host_beside_a_device(device):
    with backend.use(device):
        t = mg.from_dlpack(Exporter(numbers()))
        assert t.backend.name == "numpy"
        assert mg.asarray(Exporter(numbers())).backend is device  # as every array of the host


@pytest.mark.parametrize("take", [mg.from_dlpack, mg.asarray, mg.tensor])
@pytest.mark.parametrize("number", [2, 13])
def test_device_memory_without_cupy(monkeypatch, take, number):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend._loaded, "cupy", raising=False)
    with pytest.raises(
        backend.MissingBackendError,
        match=r"Exporter in CUDA memory .* CuPy: CuPy is not installed\. Install one of",
    ):
        take(Exporter(numbers(), device=(number, 0)))


# --------------------------------------------------------------------------------- PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_every_dtype(torch, dtype):
    theirs = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    t = mg.from_dlpack(theirs)
    assert t.dtype == dtype and address(t) == theirs.data_ptr()
    assert t.tolist() == theirs.tolist()
    ours = mg.asarray(numbers(dtype))
    back = torch.from_dlpack(ours)
    assert back.dtype == getattr(torch, dtype) and back.data_ptr() == address(ours)
    assert back.tolist() == ours.tolist()


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "broadcast"])
def test_torch_every_layout(torch, layout):
    theirs = LAYOUTS[layout](torch.from_numpy(numbers()))
    t = mg.from_dlpack(theirs)
    assert t.shape == tuple(theirs.shape) and t.tolist() == theirs.tolist()
    assert not theirs.numel() or address(t) == theirs.data_ptr()
    ours = LAYOUTS[layout](mg.asarray(numbers()))
    back = torch.from_dlpack(ours)
    assert tuple(back.shape) == ours.shape and back.tolist() == ours.tolist()
    assert not ours.size or back.data_ptr() == address(ours)


@recent
def test_torch_writes_go_through(torch):
    theirs = torch.zeros(3)
    t = mg.from_dlpack(theirs)
    theirs[0] = 5.0
    with mg.no_grad():
        t += 1.0
    assert theirs.tolist() == t.tolist() == [6.0, 1.0, 1.0]
    back = torch.from_dlpack(t)
    back[2] = 7.0
    assert theirs.tolist() == [6.0, 1.0, 7.0]
    stretched = mg.from_dlpack(theirs[:1].expand(4))
    assert stretched.tolist() == [6.0] * 4 and address(stretched) == theirs.data_ptr()


def test_torch_gradients_do_not_cross(torch):
    with pytest.raises((BufferError, RuntimeError), match="require gradient"):
        mg.from_dlpack(torch.ones(3, requires_grad=True))
    w = torch.ones(3, requires_grad=True)
    assert address(mg.from_dlpack(w.detach())) == w.data_ptr()
    with pytest.raises(RuntimeError, match="detach"):
        torch.from_dlpack(mg.ones(3, requires_grad=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_torch_dtypes_that_we_lack(torch, dtype):
    for take in (mg.from_dlpack, mg.asarray, mg.tensor):
        with pytest.raises(TypeError, match=f"dtype {dtype} is not supported"):
            take(torch.ones(3, dtype=getattr(torch, dtype)))
    with pytest.raises(TypeError, match="complex"):
        mg.from_dlpack(torch.ones(3, dtype=torch.complex64))


def test_torch_is_spared_what_it_cannot_bear(torch):
    with pytest.raises(BufferError, match="backwards"):
        torch.from_dlpack(mg.asarray(numbers())[::-1])


# ------------------------------------------------------------------------------------- JAX


@pytest.fixture
def jax():
    return pytest.importorskip("jax", reason="JAX is not installed")


#: 64-bit numbers exist in JAX only when its option `jax_enable_x64` is set.
NARROW = [dtype for dtype in DTYPES if not dtype.endswith("64")]


def aligned(array):
    """The same numbers at a multiple of 64 bytes: JAX shares only what begins there."""
    space = backend.named("numpy").aligned(array.size, array.dtype, 64)
    space[:] = array.reshape(-1)
    return mg.asarray(space.reshape(array.shape))


@pytest.mark.parametrize("dtype", NARROW)
def test_jax_every_dtype(jax, dtype):
    theirs = jax.numpy.arange(6).reshape(2, 3).astype(dtype)
    t = mg.from_dlpack(theirs)
    assert t.dtype == dtype and address(t) == theirs.unsafe_buffer_pointer()
    assert t.tolist() == theirs.tolist()
    ours = aligned(numbers(dtype))
    back = jax.numpy.from_dlpack(ours, copy=False)
    assert back.dtype == dtype and back.unsafe_buffer_pointer() == address(ours)
    assert back.tolist() == ours.tolist()


def test_jax_layouts(jax):
    theirs = jax.numpy.arange(24.0).reshape(4, 6)
    for make in (LAYOUTS[name] for name in ("transposed", "strided", "a number", "empty")):
        assert mg.from_dlpack(make(theirs)).tolist() == make(theirs).tolist()
    ours = aligned(numbers())
    for make in (LAYOUTS[name] for name in ("transposed", "a number", "empty")):
        assert jax.numpy.from_dlpack(make(ours)).tolist() == make(ours).tolist()


def test_jax_copies_what_is_not_aligned(jax):
    part = aligned(numbers()).reshape(-1)[1:]
    back = jax.numpy.from_dlpack(part)
    assert back.tolist() == part.tolist() and back.unsafe_buffer_pointer() != address(part)
    with pytest.raises(ValueError, match="aligned"):
        jax.numpy.from_dlpack(part, copy=False)


def test_jax_arrays_cannot_be_written(jax):
    theirs = jax.numpy.zeros(3)
    t = mg.from_dlpack(theirs)
    with pytest.raises(ValueError, match="read-only"), mg.no_grad():
        t += 1.0
    assert theirs.tolist() == [0.0, 0.0, 0.0]


def test_jax_dtypes_that_we_lack(jax):
    with pytest.raises(TypeError, match="dtype bfloat16 is not supported"):
        mg.from_dlpack(jax.numpy.ones(3, dtype="bfloat16"))


def test_jax_gradients_do_not_cross(jax):
    with pytest.raises(RuntimeError, match="detach"):
        jax.numpy.from_dlpack(mg.ones(3, requires_grad=True))
