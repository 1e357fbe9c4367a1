"""Forty mistakes and mishaps: what is raised and said, at the call, and that nothing has changed.

`FAULTS` is the table, and each test says with `@fault(number)` to which row it belongs. What the
refusals say is collected in `TOLD`; `docs/tools/make_faults.py` makes `docs/faults.md` of both.
"""

import copy
import errno
import gc
import importlib.util
import json
import math
import operator
import os
import pickle
import stat
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import standin
import test_resume
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from test_backend import fake, status
from test_io import DTYPES, Box, files, raw_file, same

import microgradnd as mg
from microgradnd import backend, io, nn, optim
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.io import CheckpointError, load, save
from microgradnd.modes import MODE

#: Row: the fault, and what is wanted of us.
FAULTS = {
    1: ("`backward()` of a tensor with several elements",
        "ValueError with the shape; pass `gradient=`, or reduce first"),
    2: ("`backward(gradient)` with a gradient of another shape",
        "ValueError with both shapes; nothing is broadcast"),
    3: ("a second `backward()` through a graph that the first one freed",
        "RuntimeError naming the operation and `retain_graph=True`"),
    4: ("`backward()` of a constant", "RuntimeError: nothing requires a gradient, and why"),
    5: ("`requires_grad=True` for integers or booleans", "TypeError with the dtype and what to do"),
    6: ("a tensor of text, None, objects or ragged lists; such an operand",
        "TypeError or ValueError with the first item that is wrong"),
    7: ("complex numbers", "TypeError; an imaginary part is never dropped"),
    8: ("operands whose shapes do not broadcast", "ValueError: operation, both shapes"),
    9: ("a matrix product whose sizes do not fit, or of a number",
        "ValueError: both shapes, the sizes that differ, and `.T` where that helps"),
    10: ("an axis out of range, named twice, or no integer",
         "AxisError (an IndexError and a ValueError, as in NumPy), ValueError, TypeError"),
    11: ("`axis=()`", "nothing is reduced, and the gradient passes unchanged"),
    12: ("a shape that the elements do not fill, or with two unknown sizes",
         "ValueError with the sizes"),
    13: ("an index out of bounds, on the host and on a device",
         "IndexError with the index and the size; nothing wraps around"),
    14: ("a boolean mask of another length", "IndexError with both shapes"),
    15: ("the largest element of nothing", "ValueError; a sum of nothing is 0, a product 1, and "
         "their gradients are empty"),
    16: ("maxout of a size that the pieces do not divide, of no pieces, of half a piece",
         "ValueError with axis, size and pieces; TypeError"),
    17: ("writing into the array that a tensor was made of", "the tensor is a copy"),
    18: ("writing into what backward still needs",
         "ValueError from NumPy (read-only), or a RuntimeError in backward naming the operation; "
         "never a wrong gradient"),
    19: ("writing into a leaf that requires a gradient", "RuntimeError: under `no_grad()`"),
    20: ("a `grad` of another shape, dtype, type or backend",
         "ValueError or TypeError naming both"),
    21: ("operands on two backends", "TypeError naming both; nothing is copied silently"),
    22: ("CuPy that is not installed, or finds no device",
         "what to install or update; NumPy goes on working"),
    23: ("taking an array or a number out of a tensor that requires a gradient",
         "RuntimeError: `detach()` first; `float` and `item` take one element, `repr` never fails"),
    24: ("an exception inside `no_grad`, `detect_anomaly`, `trace`, another backend or a decorator",
         "modes are as before, and the next backward works"),
    25: ("a NaN that appears, in backward or before",
         "under `detect_anomaly()` a FloatingPointError: operation, line, index; else it flows"),
    26: ("sigmoid, tanh, softplus, softmax, logsumexp, cross-entropy far out and at infinity",
         "finite values or the limits, and no warning"),
    27: ("targets of a cross-entropy that are out of range, floats or too many",
         "IndexError, TypeError, ValueError"),
    28: ("a chain of 200,000 operations, and an exception in the middle of its backward",
         "no recursion, no crash, no partial gradient; the memory comes back"),
    29: ("`y = y + y`, sixty times", "linear time, and exactly 2 to the 60"),
    30: ("losses kept in a list, and with each its graph",
         "`item()` and `detach()` keep nothing; `live_nodes()` counts what is alive"),
    31: ("threads, of which some record and some do not", "all are right"),
    32: ("an optimizer of nothing, of a spent generator, of a parameter twice, of no leaf, with a "
         "rate that is negative or NaN", "ValueError or TypeError, before any step"),
    33: ("`step()` without some gradients, or with some that are not finite",
         "None is left out; `on_nonfinite` raises, or skips the step and counts it, and no "
         "parameter changes"),
    34: ("`load_state_dict` with names missing, unexpected, of another shape or dtype",
         "one ValueError with all of them; the model is as before"),
    35: ("a checkpoint cut off at any byte, or with any bit changed",
         "CheckpointError with path and reason; nothing is loaded in part"),
    36: ("a checkpoint that is something else: a pickle, an archive, text, huge, with names twice; "
         "weights that are NaN",
         "CheckpointError that says what it is; NaN are loaded with a warning"),
    37: ("saving arrays of every dtype in every layout; a reserved name",
         "the same bits come back; ValueError for the name"),
    38: ("a disk that is full, a kill or Ctrl-C while a checkpoint is saved",
         "the old file is intact, or the new one is complete; no other file stays; the error is "
         "raised; permissions are kept"),
    39: ("a kill in the middle of an epoch, for each optimizer and with dropout",
         "the resumed run has the same losses and weights, to the bit"),
    40: ("misuse of modules: before the constructor, a parameter overwritten, layers in a list, "
         "shared layers, a probability of 1.5, one value to normalize",
         "no constructor is needed; TypeError, ValueError, a warning; what is shared counts once"),
}  # fmt: skip
TESTS = {}  # row: the names of its tests
TOLD = []  # of the error of each refusal, in order: type, text, and the type of its cause


def fault(number):
    """Say to which row a test belongs."""

    def mark(test):
        TESTS.setdefault(number, []).append(test.__name__)
        return test

    return mark


def test_every_row_has_its_tests_in_the_order_of_the_table():
    assert list(FAULTS) == list(TESTS) == list(range(1, 41))


# ----------------------------------------------------------------------------- nothing changed


def contents(x):
    """What must be as before: values, nodes and gradients, modes, steps, files."""
    if isinstance(x, mg.Tensor):
        return repr(x.tolist()), x._node, id(x.grad), contents(x.grad)
    if isinstance(x, nn.Module):
        return contents(x._saved()), [module.training for module in x.modules()]
    if isinstance(x, optim.Optimizer):
        return repr(x.state_dict())
    if isinstance(x, Path) and x.exists():
        return [contents(p) for p in sorted(x.iterdir())] if x.is_dir() else (x, x.read_bytes())
    if isinstance(x, mg.Generator | Box):
        return contents(x.state) if isinstance(x, Box) else x.state
    if isinstance(x, dict):
        return {key: contents(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [contents(item) for item in x]
    return x.tobytes() if isinstance(x, np.ndarray) else None


@contextmanager
def refusing(error, match=None, of=()):
    """Check that a block raises, and that it leaves modes, random numbers and `of` alone."""
    rng = mg.random.default_generator()
    before = contents(of), MODE.get(), backend.get(), rng.state, np.geterr()
    with pytest.raises(error, match=match) as caught:
        yield caught
    assert before == (contents(of), MODE.get(), backend.get(), rng.state, np.geterr())
    error = caught.value
    TOLD.append((type(error), str(error), type(error.__cause__)))


def refused(call, error, *parts):
    """Check that a call raises, with all parts in the message, and leaves alone what it uses."""
    used = [cell.cell_contents for cell in call.__closure__ or ()] + list(call.__defaults__ or ())
    with refusing(error, of=used) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
    return caught.value


def leaf(values, dtype=None):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


@pytest.fixture(params=["numpy", "standin"])
def home(request):
    """Both backends, one after the other, as the current one."""
    if request.param == "standin":
        try:
            backend.named("standin")
        except ValueError:
            backend.register(CupyBackend(standin.cupy, standin.special, name="standin"))
    with backend.use(request.param) as current:
        yield current
        current._faults = []  # what a device noted and nobody read


# ----------------------------------------------------------------------------- 1 to 4: backward


@fault(1)
def test_backward_of_several_elements():
    x = leaf([1.0, 2.0, 3.0])
    y = x * 2.0
    refused(lambda: y.backward() or x, ValueError, "scalar", "(3,)", "gradient=", ".sum()", "mean")
    y.backward(mg.ones(3))  # the graph was not freed
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


@fault(2)
@pytest.mark.parametrize("shape", [(4,), (1,), (), (1, 3), (2, 3)])
def test_backward_with_a_gradient_of_another_shape(shape):
    x = leaf([1.0, 2.0, 3.0])
    y = x * 2.0
    for gradient in (mg.ones(shape), np.ones(shape)):
        refused(lambda g=gradient: (y.backward(g), x), ValueError, str(shape), "(3,)", "backward")
    y.backward(np.ones(3))
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


@fault(3)
def test_a_second_backward():
    x = leaf([1.0, 2.0])
    y = mg.exp(x)
    y.sum().backward()
    refused(lambda: (y.sum().backward(), x), RuntimeError, "exp", "freed", "retain_graph=True")


@fault(4)
def test_backward_of_a_constant():
    x = leaf([1.0])
    with mg.no_grad():
        under = x.sum()
    for t in (mg.tensor(1.0), under, x.detach(), x > 0):
        refused(lambda t=t: t.backward(), RuntimeError, "requires a gradient", "no_grad", "detach")


# ----------------------------------------------------------------------------- 5 to 7: data


@fault(5)
@pytest.mark.parametrize(("data", "dtype"), [([1, 2], "int64"), ([True], "bool"), (3, "int64")])
def test_only_floats_require_gradients(data, dtype):
    refused(lambda: mg.Tensor(data, requires_grad=True), TypeError, dtype, "float", "astype")
    t = mg.tensor(data)
    refused(lambda: t.requires_grad_(), TypeError, dtype, "astype")
    assert t.astype("float32").requires_grad_().requires_grad


@fault(6)
@pytest.mark.parametrize(
    ("data", "error", "part"),
    [
        ("a", TypeError, "'a'"),
        (None, TypeError, "None"),
        ([1.0, "b", None], TypeError, "'b'"),
        ([[1, 2], [3, None]], TypeError, "None"),
        (np.array([1, "x"], dtype=object), TypeError, "object"),
        (np.array(["2020-01-01"], dtype="M8[D]"), TypeError, "datetime64"),
        (object(), TypeError, "object"),
        ({"a": 1}, TypeError, "a"),
        ([[1, 2], [3]], ValueError, "expected a sequence of length 2 at dim 1, got 1"),
        ([[[1], [2]], [[3], [4, 5]]], ValueError, "of length 1 at dim 2, got 2"),
        ([1, [2]], ValueError, "dim"),
        (np.longdouble(1.0), TypeError, "float16/32/64"),
        (np.ma.array([1.0, 2.0]), TypeError, "filled"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_numbers(data, error, part):
    for make in (mg.Tensor, mg.tensor, mg.asarray):
        refused(lambda make=make: make(data), error, part)


@fault(6)
def test_what_is_no_operand():
    x = leaf([1.0])
    for other in ("a", None, object(), {"a": 1}):
        refused(lambda o=other: x + o, TypeError, "add")
        refused(lambda o=other: mg.maximum(x, o), TypeError, "maximum")
    refused(lambda: mg.add(x, [1.0, "b"]), TypeError, "'b'")
    refused(lambda: x * [[1.0], [1.0, 2.0]], ValueError, "dim 1")


@fault(7)
@pytest.mark.parametrize("data", [1j, [1.0, 2j], np.array([1j]), np.complex64(1j)])
def test_complex_numbers(data):
    refused(lambda: mg.tensor(data), TypeError, "complex")
    x = leaf([1.0])
    refused(lambda: x * data, TypeError, "complex")
    refused(lambda: data * x, TypeError, "complex")
    refused(lambda: mg.tensor([1.0], dtype="complex128"), TypeError, "complex")


# ----------------------------------------------------------------------------- 8 to 12: shapes


@fault(8)
def test_shapes_that_do_not_broadcast(home):
    x, y = leaf(np.ones((2, 3))), mg.ones(4)
    refused(lambda: x + y, ValueError, "add", "(2, 3)", "(4,)")
    refused(lambda: y / x, ValueError, "divide", "(2, 3)", "(4,)")
    refused(lambda: mg.where(x > 0, x, y), ValueError, "where", "(2, 3)", "(4,)")
    refused(lambda: mg.mse(x, y), ValueError, "mse", "(2, 3)", "(4,)")
    refused(lambda: mg.broadcast_to(x, (3, 2)), ValueError, "broadcast_to", "(2, 3)", "(3, 2)")
    refused(lambda: mg.concatenate([x, y]), ValueError, "concatenate", "(2, 3)", "(4,)")
    refused(lambda: mg.stack([x, y]), ValueError, "stack", "(2, 3)", "(4,)")


@fault(9)
def test_products_that_do_not_fit(home):
    x, y, scalar = leaf(np.ones((2, 3))), mg.ones((4, 5)), mg.tensor(2.0)
    refused(lambda: x @ y, ValueError, "matmul: (2, 3) @ (4, 5): inner sizes 3 and 4 differ")
    t = mg.ones((5, 3))
    refused(lambda: x @ t, ValueError, "(2, 3) @ (5, 3)", "did you mean", ".T")
    refused(lambda: x @ scalar, ValueError, "matmul", "()")
    refused(lambda: scalar @ x, ValueError, "matmul", "()")
    refused(lambda: mg.tensordot(x, y, 1), ValueError, "tensordot", "3", "4")
    refused(lambda: mg.einsum("ij,jk->ik", x, y), ValueError, "einsum", "(2, 3)", "(4, 5)")


@fault(10)
def test_axes(home):
    x = leaf(np.ones((2, 3)))
    for f in (mg.sum, mg.mean, mg.max, mg.prod, mg.std, mg.logsumexp, mg.any, mg.norm):
        error = refused(lambda f=f: f(x, axis=5), ValueError, f.name, "5", "2")
        assert isinstance(error, IndexError)  # as NumPy's AxisError
        refused(lambda f=f: f(x, axis=(0, 0)), ValueError, f.name, "axis")
        refused(lambda f=f: f(x, axis=(0, -2)), ValueError, f.name, "axis")
        refused(lambda f=f: f(x, axis=1.0), TypeError, f.name, "1.0")
        refused(lambda f=f: f(x, axis=(0, 1.0)), TypeError, f.name, "1.0")
        refused(lambda f=f: f(x, axis="0"), TypeError, f.name, "'0'")
    for f in (mg.softmax, mg.log_softmax, mg.argmax, mg.cumsum, mg.flip):
        assert isinstance(
            refused(lambda f=f: f(x, axis=5), ValueError, f.name, "5", "2"), IndexError
        )
    for f in (mg.concatenate, mg.stack):
        refused(lambda f=f: f([x, x], axis=5), ValueError, f.name, "5")
    refused(lambda: mg.split(x, 2, axis=5), (ValueError, IndexError), "split", "5")
    refused(lambda: mg.maxout(x, 3, axis=5), ValueError, "maxout", "5")
    refused(lambda: mg.take(x, [0], axis=5), ValueError, "take", "5")
    refused(lambda: mg.take_along_axis(x, mg.tensor([[0]]), 5), ValueError, "take_along", "5")
    scalar = leaf(1.0)
    refused(lambda: mg.maxout(scalar, 1), ValueError, "maxout", "axis -1")
    refused(lambda: mg.transpose(x, (0, 0)), ValueError, "transpose")


@fault(11)
def test_the_empty_tuple_reduces_nothing(home):
    values = [[1.0, -2.0], [3.0, 4.0]]
    for f in (mg.sum, mg.mean, mg.max, mg.min, mg.prod, mg.logsumexp):
        x = leaf(values)
        y = f(x, axis=())
        assert y.tolist() == values
        y.backward(mg.tensor([[1.0, 10.0], [100.0, 1000.0]]))
        assert x.grad.tolist() == [[1.0, 10.0], [100.0, 1000.0]]


@fault(12)
def test_reshape(home):
    x = leaf(np.ones((2, 3)))
    refused(lambda: x.reshape(4, 2), ValueError, "reshape", "6", "(2, 3)", "(4, 2)")
    refused(lambda: x.reshape(-1, -1), ValueError, "reshape", "one", "(-1, -1)")
    refused(lambda: x.reshape(-1, 4), ValueError, "reshape", "(-1, 4)")
    refused(lambda: x.reshape(-2, -3), ValueError, "reshape", "(-2, -3)")
    refused(lambda: x.reshape(-1, 0), ValueError, "reshape", "(-1, 0)")
    refused(lambda: x.reshape(2.0, 3), TypeError, "shape", "2.0")
    refused(lambda: mg.split(x, 4, axis=1), ValueError, "split", "3", "4")
    refused(lambda: mg.squeeze(x, axis=0), ValueError, "squeeze", "0")


# ----------------------------------------------------------------------------- 13, 14: indices


@fault(13)
def test_indices_out_of_bounds(home):
    x = leaf([1.0, 2.0])
    on_host = x if home.name == "numpy" else ()  # a device has written before anybody asks it
    for index in (5, -3, [0, 5], [-3]):
        bad = 5 if index in (5, [0, 5]) else -3

        def use(index=index):
            y = x[index]
            y.tolist()  # a device is asked here

        def write(index=index):
            with mg.no_grad():
                x[index] = 7.0
            x.tolist()

        for call in (use, write, lambda index=index: mg.take(x, index).tolist()):
            with refusing(IndexError, r"out of bounds.*size 2", of=on_host) as caught:
                call()
            if home.name == "numpy":  # a device says later, and not which
                assert str(bad) in str(caught.value)
    refused(lambda: x[0, 0], IndexError, "2 indices", "(2,)")
    refused(lambda: x[..., ...], IndexError, "ellipsis")
    for index in (1.0, "0", [0.5], object()):
        refused(lambda index=index: x[index], IndexError, "index")


@fault(14)
def test_masks_of_the_wrong_length(home):
    x = leaf(np.ones((3, 2)))
    refused(lambda: x[[True, False]], IndexError, "boolean", "(2,)", "(3,)")
    refused(lambda: x[mg.tensor([[True, False]])], IndexError, "boolean", "(1, 2)", "(3, 2)")

    def write():
        with mg.no_grad():
            x[[True, False]] = 7.0

    refused(write, IndexError, "boolean", "(2,)", "(3,)")
    assert x.tolist() == [[1.0, 1.0]] * 3


# ----------------------------------------------------------------------------- 15, 16: nothing


@fault(15)
def test_reductions_of_nothing(home):
    x = leaf(np.ones((2, 0)))
    for f in (mg.max, mg.min, mg.argmax, mg.argmin, mg.logsumexp):
        refused(lambda f=f: f(x), ValueError, f.name, "(2, 0)")
        refused(lambda f=f: f(x, axis=1), ValueError, f.name, "(2, 0)")
        assert f(x, axis=0).shape == (0,)
    refused(lambda: mg.maxout(x, 2), ValueError, "maxout", "axis -1", "empty")
    for f, value in ((mg.sum, 0.0), (mg.prod, 1.0)):
        y = f(x)
        assert y.item() == value and f(x, axis=1).tolist() == [value, value]
        x.grad = None
        y.backward()
        assert x.grad.shape == (2, 0)


@fault(16)
def test_maxout_of_what_does_not_divide(home):
    x = leaf(np.ones((2, 4)))
    refused(lambda: mg.maxout(x, 5, axis=1), ValueError, "axis 1 has size 4, not divisible by 5")
    refused(lambda: mg.maxout(x, 3), ValueError, "has size 4, not divisible by 3")
    for pieces in (0, -2):
        refused(lambda p=pieces: mg.maxout(x, p), ValueError, "maxout", "pieces", str(pieces))
    for pieces in (2.0, "2", True, None):
        refused(lambda p=pieces: mg.maxout(x, p), TypeError, "maxout", "pieces", repr(pieces))


# ----------------------------------------------------------------------------- 17 to 21: memory


@fault(17)
def test_the_source_of_a_tensor_may_change():
    source = np.array([1.0, 2.0])
    x = leaf(source)
    y = (x * x).sum()
    source[:] = 9.0
    y.backward()
    assert x.tolist() == [1.0, 2.0] and x.grad.tolist() == [2.0, 4.0]


@fault(18)
def test_kept_values_cannot_be_changed_unseen():
    x = leaf([1.0, 2.0])
    y = mg.exp(x)
    loss = (y + x * x).sum()

    def write(array):
        array[0] = 9.0

    refused(lambda: write(x.data), ValueError, "read-only")
    refused(lambda: write(y.detach().numpy()), ValueError, "read-only")
    refused(lambda: write(np.asarray(x.detach())), ValueError, "read-only")
    copied = copy.copy(x)
    copied.data[0] = 9.0  # a copy is free
    with mg.no_grad():
        y += 1.0
    refused(lambda: (loss.backward(), x), RuntimeError, "exp", "overwritten in place", "version 1")


@fault(19)
def test_writing_into_a_leaf():
    x = leaf([1.0, 2.0])
    for call in (lambda: operator.iadd(x, 1.0), lambda: operator.setitem(x, 0, 1.0),
                 lambda: x.assign_(x)):  # fmt: skip
        refused(call, RuntimeError, "leaf", "no_grad()")


@fault(20)
def test_a_grad_that_does_not_fit(home):
    x = leaf([1.0, 2.0])
    elsewhere = backend.named("numpy") if home.name != "numpy" else None

    def assign(value):
        x.grad = value

    refused(lambda: (assign(mg.ones(3)), x), ValueError, "(3,)", "(2,)")
    refused(lambda: (assign(mg.ones(2, "float64")), x), TypeError, "float64", "float32")
    refused(lambda: (assign(np.ones(2, "float32")), x), TypeError, "ndarray", "Tensor")
    if elsewhere:
        refused(lambda: (assign(mg.ones(2).to(elsewhere)), x), TypeError, "numpy", "standin")
    constant = mg.ones(2)
    with refusing(RuntimeError, "does not require a gradient", of=constant):
        constant.grad = mg.ones(2)
    x.grad = mg.ones(2)
    assert x.grad.tolist() == [1.0, 1.0]


@fault(21)
@pytest.mark.parametrize("home", ["standin"], indirect=True)
def test_mixing_backends(home):
    with backend.use("numpy"):
        x = leaf([1.0, 2.0])
    y = leaf([1.0, 2.0])
    for call in (lambda: x + y, lambda: y @ x, lambda: mg.mse(x, y), lambda: np.ones(2) - y,
                 lambda: mg.stack([x, y])):  # fmt: skip
        refused(call, TypeError, "'numpy'", "'standin'", "to(")


# ----------------------------------------------------------------------------- 22: no CuPy


@fault(22)
def test_cupy_that_is_not_there(monkeypatch):
    if importlib.util.find_spec("cupy"):
        monkeypatch.setitem(sys.modules, "cupy", None)
        monkeypatch.delitem(backend._loaded, "cupy", raising=False)
    x = leaf([1.0])
    for ask in (lambda: x.to("cupy"), lambda: backend.set("cupy")):
        error = refused(ask, ImportError, "cupy-cuda13x", "cupy-cuda12x", "CuPy is not installed")
        assert isinstance(error, RuntimeError)
    (x * x).backward()
    assert x.grad.tolist() == [2.0]


@fault(22)
def test_cupy_without_a_device(monkeypatch):
    cupy = fake(0)
    cupy.ones = lambda *args: (_ for _ in ()).throw(status(35))
    for name, module in (("cupy", cupy), ("cupyx", SimpleNamespace()),
                         ("cupyx.scipy", SimpleNamespace(special=None))):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(backend._loaded, "cupy", raising=False)
    x = leaf([1.0])
    for ask in (lambda: x.to("cupy"), lambda: backend.set("cupy")):
        error = refused(ask, RuntimeError, "CuPy 14.2.0 is installed", "no NVIDIA driver")
        assert not isinstance(error, ImportError) and error.__cause__ is not None
    assert "no NVIDIA driver" in backend.available()["cupy"]
    (x * x).backward()
    assert x.grad.tolist() == [2.0]


# ----------------------------------------------------------------------------- 23, 24


@fault(23)
def test_leaving_the_tape():
    x = leaf([1.5])
    for t in (x, x * 2.0):
        refused(lambda t=t: np.asarray(t), RuntimeError, "t.detach().numpy()")
        refused(lambda t=t: t.numpy(), RuntimeError, "t.detach().numpy()")
        refused(lambda t=t: np.from_dlpack(t), RuntimeError, "detach()")
        assert float(t) == t.item() and repr(t).startswith("Tensor(")
        assert t.detach().numpy().tolist() == t.tolist()
    y = leaf([1.0, 2.0])
    refused(lambda: float(y), ValueError, "(2,)")
    refused(lambda: bool(y > 0), ValueError, "any()", "all()")


@fault(24)
def test_an_exception_restores_the_modes():
    x = leaf([1.0, 2.0])
    for mode in (mg.no_grad, mg.enable_grad, mg.detect_anomaly, mg.trace,
                 lambda: backend.use("numpy")):  # fmt: skip
        with refusing(ValueError, "reshape", of=x), mode():
            x.reshape(7)
        x.grad = None
        (x * x).sum().backward()
        assert x.grad.tolist() == [2.0, 4.0]
    for mode in (mg.no_grad, mg.enable_grad, mg.detect_anomaly()):
        refused(mode(lambda: x.reshape(7)), ValueError, "reshape")
        assert (x * x).requires_grad


# ----------------------------------------------------------------------------- 25, 26: NaN, inf


@fault(25)
def test_anomalies_are_named():
    x = leaf([1.0, 0.0, 4.0])

    def nan_in_backward():
        return mg.where(x > 0, mg.sqrt(x) * 0.0, 0.0).sum()  # inf times 0

    nan_in_backward().backward()
    assert np.isnan(x.grad.tolist()).tolist() == [False, True, False]  # without it, NaN flows
    x.grad = None
    with mg.detect_anomaly():
        loss = nan_in_backward()
        error = refused(lambda: (loss.backward(), x), FloatingPointError, "sqrt", "[1]")
    line = nan_in_backward.__code__.co_firstlineno + 1
    assert f"test_faults.py:{line}" in str(error)
    with mg.detect_anomaly(), np.errstate(invalid="ignore"):
        refused(lambda: mg.sqrt(x - 2.0), FloatingPointError, "sqrt", "[0]")
        target = mg.tensor([0.0, 1.0, np.nan])
        refused(lambda: mg.mse(x, target), FloatingPointError, "mse", "target", "constant", "[2]")
        (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 8.0]


@fault(26)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_extremes_are_finite_or_limits(dtype, home):
    inf = np.inf
    ends = [-inf, -1e4, 0.0, 1e4, inf]
    rows = {
        mg.sigmoid: ([0.0, 0.0, 0.5, 1.0, 1.0], [0.0, 0.0, 0.25, 0.0, 0.0]),
        mg.tanh: ([-1.0, -1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0, 0.0]),
        mg.softplus: ([0.0, 0.0, np.log(2), 1e4, inf], [0.0, 0.0, 0.5, 1.0, 1.0]),
    }
    for f, (values, slopes) in rows.items():
        x = leaf(ends, dtype)
        y = f(x)
        y.sum().backward()  # warnings are errors
        assert y.tolist() == pytest.approx(values, rel=2e-3)
        assert x.grad.tolist() == pytest.approx(slopes, abs=2e-3)
    for values, shares in (
        ([1e4, -1e4, 0.0], [1.0, 0.0, 0.0]),
        ([inf, 0.0, -inf], [1.0, 0.0, 0.0]),
        ([-inf, 0.0, 0.0], [0.0, 0.5, 0.5]),
        ([1e4, 1e4, -inf], [0.5, 0.5, 0.0]),
    ):
        x = leaf(values, dtype)
        assert mg.softmax(x).tolist() == shares
        top = mg.logsumexp(x)
        top.backward()
        more = np.log(2) if 0.5 in shares else 0.0
        assert top.item() == pytest.approx(max(values) + more, rel=1e-3)
        assert x.grad.tolist() == pytest.approx(shares, abs=1e-3)
        x.grad = None
        loss = mg.cross_entropy(x[None], mg.tensor([int(np.argmax(values))]))
        loss.backward()
        assert loss.item() == pytest.approx(more, abs=1e-3)
        right = np.array(shares) - np.eye(3)[np.argmax(values)]
        assert x.grad.tolist() == pytest.approx(right.tolist(), abs=1e-3)
    x = leaf([[-inf, -inf]], dtype)
    assert mg.logsumexp(x).item() == -inf
    with np.errstate(invalid="ignore"):  # the one documented NaN
        assert np.isnan(mg.softmax(x).tolist()).all()
    loss = mg.cross_entropy(leaf([[1e4, -1e4]], dtype), mg.tensor([1]))
    assert loss.item() == 2e4


# ----------------------------------------------------------------------------- 27: cross-entropy


@fault(27)
def test_cross_entropy_with_wrong_targets(home):
    x = leaf(np.zeros((2, 3)))
    for target in ([0, 7], [0, -1], [3, 0]):
        bad = next((i, t) for i, t in enumerate(target) if not 0 <= t < 3)
        ids = mg.tensor(target)
        error = refused(
            lambda ids=ids: mg.cross_entropy(x, ids).item(), IndexError, "cross_entropy", "0..2"
        )
        if home.name == "numpy":
            assert "target[{}] = {}".format(*bad) in str(error)
    for f in (mg.cross_entropy, mg.nll):
        floats, three = mg.tensor([0.0, 1.0]), mg.tensor([0, 1, 2])
        refused(lambda f=f, t=floats: f(x, t), TypeError, f.name, "float32")
        refused(lambda f=f, t=three: f(x, t), ValueError, f.name, "(3,)", "(2, 3)", "(2,)")
    good, weight = mg.tensor([0, 1]), mg.ones(2)
    refused(lambda: mg.cross_entropy(x, good, weight), ValueError, "weight", "(2,)", "(3,)")
    refused(lambda: mg.cross_entropy(x, good, reduction="avg"), ValueError, "'avg'", "'mean'")
    refused(lambda: mg.cross_entropy(x, good, label_smoothing=2.0), ValueError, "label_smoothing")
    probabilities = mg.ones((3, 2))
    refused(lambda: mg.cross_entropy(x, probabilities), ValueError, "(3, 2)", "(2, 3)")
    ignored = mg.cross_entropy(x, mg.tensor([0, -100]))
    assert ignored.item() == pytest.approx(np.log(3))
    with np.errstate(invalid="ignore"):
        row = mg.cross_entropy(leaf([[-np.inf] * 3]), mg.tensor([0]))
    assert not np.isfinite(row.item())


# ----------------------------------------------------------------------------- 28 to 31


@fault(28)
@pytest.mark.slow
def test_a_chain_of_two_hundred_thousand():
    gc.disable()
    try:
        x = y = leaf(1.0)
        middle = None
        for i in range(200_000):
            y = y * 1.0
            if i == 100_000:
                middle = y
        middle.register_hook(lambda g: 1 / 0)
        ref = weakref.ref(middle._node)
        del middle
        with pytest.raises(ZeroDivisionError):  # `refusing` would keep the traceback in a cycle
            y.backward()
        assert x.grad is None
        del y
        assert ref() is None
    finally:
        gc.enable()
    (x * x).backward()
    assert x.grad.item() == 2.0


@fault(29)
def test_sixty_doublings():
    x = y = leaf(1.0, "float64")
    for _ in range(60):
        y = y + y
    y.backward()
    assert y.item() == x.grad.item() == 2.0**60


@fault(30)
def test_losses_that_are_kept():
    gc.disable()
    try:
        x = leaf([1.0, 2.0])
        before = mg.live_nodes()
        losses, numbers = [], []
        for steps in (1, 2, 3):
            losses.append(mg.cosh(x).sum())
            numbers += [losses[-1].item(), losses[-1].detach()]
            assert mg.live_nodes()["cosh"] == steps + before.get("cosh", 0)  # which grows
        losses.clear()
        assert mg.live_nodes() == before
    finally:
        gc.enable()


@fault(31)
def test_two_threads():
    wrong, start = [], threading.Barrier(4)

    def run(record):
        start.wait()
        x = leaf([1.0, 2.0])
        for _ in range(300):
            with mg.enable_grad() if record else mg.no_grad():
                y = (x * x).sum()
            if y.requires_grad is not record:
                wrong.append(record)
            if record:
                x.grad = None
                y.backward()
                if x.grad.tolist() != [2.0, 4.0]:
                    wrong.append(x.grad)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(i % 2 == 0,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


# ----------------------------------------------------------------------------- 32, 33: optimizers


P = nn.Parameter([1.0])


def spent():
    generator = iter([P])
    list(generator)
    return generator


OPTIMIZERS = {
    "empty": (lambda: optim.SGD([]), ValueError, "SGD: there are no parameters"),
    "spent": (lambda: optim.Adam(spent()), ValueError, "generator used twice"),
    "spent in a group": (lambda: optim.SGD([{"params": spent()}]), ValueError, "generator used"),
    "twice": (lambda: optim.SGD([P, P]), ValueError, "twice"),
    "twice in groups": (lambda: optim.SGD([{"params": [P]}, {"params": [P]}]), ValueError,
                        r"shape \(1,\) comes twice"),
    "no leaf": (lambda: optim.SGD([P * 2]), ValueError, r"result of an operation \(multiply\)"),
    "a tensor": (lambda: optim.SGD(P), TypeError, "list.*Parameter"),
    "a dict": (lambda: optim.SGD({"params": [P]}), TypeError, "list.*dict"),
    "a module": (lambda: optim.SGD(nn.Identity()), TypeError, "list.*Identity"),
    "a number": (lambda: optim.SGD([1.0]), TypeError, "a parameter is a Tensor, got a float"),
    "an array": (lambda: optim.SGD([np.ones(1)]), TypeError, "ndarray"),
    "integers": (lambda: optim.SGD([mg.tensor([1])]), TypeError, "must be float, got int64"),
    "mixed": (lambda: optim.SGD([{"params": [P]}, P]), TypeError, "groups and a Parameter"),
    "no params": (lambda: optim.SGD([{"lr": 1.0}]), ValueError, "no 'params'"),
    "unknown": (lambda: optim.SGD([{"params": [P], "betas": 1}]), TypeError, r"\['betas'\].*'lr'"),
    "lr": (lambda: optim.SGD([P], lr=-0.1), ValueError, r"SGD: lr .*got -0\.1"),
    "lr nan": (lambda: optim.Adam([P], lr=math.nan), ValueError, "Adam: lr .*nan"),
    "lr inf": (lambda: optim.Adam([P], lr=math.inf), ValueError, "inf"),
    "group lr": (lambda: optim.SGD([{"params": [P], "lr": -1.0}]), ValueError, r"got -1\.0"),
    "decay": (lambda: optim.AdamW([P], weight_decay=-1.0), ValueError, "AdamW: weight_decay"),
    "momentum": (lambda: optim.SGD([P], momentum=-1.0), ValueError, "momentum"),
    "nesterov": (lambda: optim.SGD([P], nesterov=True), ValueError, "wants a momentum"),
    "dampened": (lambda: optim.SGD([P], momentum=0.9, dampening=0.1, nesterov=True), ValueError,
                 "no dampening"),
    "betas": (lambda: optim.Adam([P], betas=(0.9, 1.0)), ValueError, r"\(0\.9, 1\.0\)"),
    "one beta": (lambda: optim.Adam([P], betas=(0.9,)), ValueError, "two numbers"),
    "eps": (lambda: optim.RMSprop([P], eps=-1.0), ValueError, "eps"),
    "alpha": (lambda: optim.RMSprop([P], alpha=-1.0), ValueError, "alpha"),
    "lr_decay": (lambda: optim.Adagrad([P], lr_decay=-1.0), ValueError, "lr_decay"),
    "start": (lambda: optim.Adagrad([P], initial_accumulator_value=-1.0), ValueError, "initial"),
}  # fmt: skip


@fault(32)
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_what_no_optimizer_can_be_made_of(case):
    make, error, said = OPTIMIZERS[case]
    array = P._array
    with refusing(error, said, of=P):
        make()
    if "twice in" not in case and case not in ("mixed", "unknown", "no params", "group lr"):
        assert P._array is array


@fault(33)
def test_a_step_without_some_gradients(home):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    net[1](mg.ones(2)).sum().backward()
    before, moved = contents(net[0]), contents(net[1])
    optimizer.step()
    assert contents(net[0]) == before and contents(net[1]) != moved
    assert sorted(optimizer.state_dict()["state"]) == [2, 3]


@fault(33)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam], ids=lambda make: make.__name__)
def test_a_step_with_gradients_that_are_not_finite(home, make, bad):
    net = nn.Linear(2, 2)
    optimizer = make(net.parameters(), lr=0.1)
    net(mg.ones(2)).sum().backward()
    optimizer.step()
    good = net.bias.grad
    net.bias.grad = mg.tensor([1.0, bad])
    optimizer.on_nonfinite = "raise"
    refused(lambda: optimizer.step() or net, FloatingPointError, make.__name__, str(bad),
            "parameter 1 of group 0", "(2,)", "[1]", "detect_anomaly")  # fmt: skip
    optimizer.on_nonfinite = "skip"
    before = contents([net, optimizer])
    assert optimizer.step(lambda: 7.0) == 7.0  # a closure has its say
    optimizer.step()
    assert contents([net, optimizer]) == before and optimizer.skipped == 2
    net.bias.grad = good
    optimizer.step()
    assert contents([net, optimizer]) != before and optimizer.skipped == 2
    net.bias.grad = mg.tensor([1.0, bad])
    optimizer.on_nonfinite = "ignore"
    optimizer.step()
    assert not np.isfinite(net.bias.tolist()[1])  # as it is unless it is asked for


@fault(33)
def test_an_unknown_policy():
    optimizer = optim.SGD([nn.Parameter([1.0])])

    def choose():
        optimizer.on_nonfinite = "stop"

    refused(choose, ValueError, "'stop'", "'raise'", "'skip'")
    assert optimizer.on_nonfinite == "ignore"


# ----------------------------------------------------------------------------- 34: states


@fault(34)
def test_all_faults_of_a_state_are_told_at_once_and_nothing_changes():
    net = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1), nn.Linear(1, 1))
    before = {n: t.numpy().copy() for n, t in net.state_dict().items()}
    state = {n: a + 1 for n, a in before.items()}
    state["0.wieght"] = state.pop("0.weight")
    state["0.bias"] = np.zeros(3, "float32")
    state["1.weight"] = np.zeros(1, "int64")
    state["1.num_batches_tracked"] = np.zeros((), "float32")
    state["1.bias"] = [[1.0], [2.0, 3.0]]
    state["1.running_mean"] = None
    state["1.running_var"] = np.ones(1, "complex64")
    with refusing(ValueError, "load_state_dict of Sequential", of=net) as raised:
        net.load_state_dict(state)
    for said in (
        "missing '0.weight' (there is '0.wieght')",
        "unexpected '0.wieght' (there is '0.weight')",
        "'0.bias' has shape (3,), (1,) is wanted",
        "'1.weight' is int64, float32 is wanted",
        "'1.num_batches_tracked' is float32, int64 is wanted",
        "'1.bias' is a list",
        "'1.running_mean' is a NoneType",
        "'1.running_var' is complex64",
    ):
        assert said in str(raised.value)
    with refusing(ValueError, r"0\.bias", of=net) as raised:
        net.load_state_dict(state, strict=False)
    assert "missing" not in str(raised.value)
    with refusing(TypeError, "list", of=net):
        net.load_state_dict(list(before.values()))


# ----------------------------------------------------------------------------- 35, 36: files


def small(path):
    save(path, model={"w": mg.tensor([1.0, 2.0])}, opt={"v": np.float16(0.5), "lr": 1e-3})
    return path.read_bytes()


@fault(35)
def test_a_file_cut_off_anywhere_is_refused(path):
    data, w = small(path), Box(w=mg.zeros(2))
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with refusing(CheckpointError, r"run\.safetensors", of=w):
            load(path, model=w)


@fault(35)
@pytest.mark.slow
def test_no_flipped_bit_is_believed(path):
    data = small(path)
    wanted = load(path)
    believed = 0
    for i in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :])
            try:
                got = load(path)
            except CheckpointError:
                continue
            believed += 1
            assert same(got, wanted), (i, bit)
    assert believed <= 8  # such as spaces that became other white space


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TEXT = json.dumps(ENTRY)


def ours(text, tensors=None):
    tensors = {} if tensors is None else tensors
    return to_bytes(tensors, metadata={"microgradnd": text})


def signed(objects, **other):
    """A file of ours whose checksum is right, with a description that may not be."""
    meta = {"schema": 1, "version": "0", "objects": objects} | other
    return ours(json.dumps(meta | {"crc32": io._checksum(meta, {})}))


def npz():

    np.savez(file := BytesIO(), a=np.ones(2))
    return file.getvalue()


DAMAGED = {
    "empty": (b"", "0 bytes"),
    "short": (b"\x01\x00", "2 bytes"),
    "pickle": (pickle.dumps({"w": [1.0] * 9}), "a pickle"),
    "npz": (npz(), "a zip archive"),
    "text": (b"epoch,loss\n1,0.5\n", "another format"),
    "huge header": ((10**12).to_bytes(8, "little") + b"{}", "header of 1000000000000"),
    "negative header": (b"\xff" * 8 + b"{}", "another format"),
    "not JSON": (raw_file(b"{hello}"), "checkpoint"),
    "not UTF-8": (raw_file(b'{"\xff": 1}'), "checkpoint"),
    "a list": (raw_file([1]), "checkpoint"),
    "no entry": (raw_file({"w": 3}), "checkpoint"),
    "deep": (raw_file(b"[" * 100_000), "checkpoint"),
    "twice": (raw_file(f'{{"w": {TEXT}, "w": {TEXT}}}'.encode(), b"1234"), "occurs twice"),
    "twice below": (raw_file(b'{"__metadata__": {"a": "1", "a": "2"}}'), "occurs twice"),
    "hole": (raw_file({"w": ENTRY | {"data_offsets": [4, 8]}}, b"12345678"), "checkpoint"),
    "size": (raw_file({"w": ENTRY | {"shape": [2]}}, b"1234"), "checkpoint"),
    "overflow": (raw_file({"w": ENTRY | {"shape": [2**63, 2**63]}}, b"1234"), "checkpoint"),
    "negative": (raw_file({"w": ENTRY | {"shape": [-1]}}, b"1234"), "checkpoint"),
    "trailing": (raw_file({"w": ENTRY}, b"123456"), "checkpoint"),
    "complex": (to_bytes({"w": np.ones(1, "c8")}), "dtype C64"),
    "float8": (raw_file({"w": ENTRY | {"dtype": "F8_E4M3", "shape": [4]}}, b"1234"), "F8_E4M3"),
    "metadata of numbers": (raw_file({"__metadata__": {"a": 1}}), "checkpoint"),
    "our metadata": (ours("{"), "checkpoint"),
    "our metadata, a list": (ours("[]"), "checkpoint"),
    "our metadata, twice": (ours('{"schema": 1, "schema": 1}'), "occurs twice"),
    "our metadata, empty": (ours("{}"), "no 'schema'"),
    "schema": (signed({}, schema=2), "schema is 2, written by version 0; this is"),
    "schema of text": (signed({}, schema="1"), "schema is '1'"),
    "checksum": (ours('{"schema": 1, "version": "", "objects": {}, "crc32": 5}'), "checksum"),
    "no such tensor": (signed({"a": {"$tensor": "w"}}), "metadata are damaged"),
    "unknown tag": (signed({"a": {"$eval": "1"}}), "metadata are damaged"),
    "odd float": (signed({"a": {"$float": "1"}}), "metadata are damaged"),
    "odd dict": (signed({"a": {"$dict": [1]}}), "metadata are damaged"),
    "odd key": (signed({"a": {"$dict": [[[1], 1]]}}), "metadata are damaged"),
    "odd objects": (signed([1]), "metadata are damaged"),
}


@fault(36)
@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_and_foreign_files_are_refused(path, what):
    data, told = DAMAGED[what]
    path.write_bytes(data)
    box = Box(x=0)
    for objects in ({}, {"model": box}):
        with refusing(CheckpointError, r"run\.safetensors", of=box) as caught:
            load(path, **objects)
        assert told in str(caught.value)


@fault(36)
def test_weights_that_are_nan_are_told(path):
    save(path, model={"w": mg.tensor([1.0, math.nan]), "v": mg.ones(1)}, lr=math.nan)
    w = mg.zeros(2)
    with pytest.warns(RuntimeWarning, match=r"run\.safetensors: NaN in w$"):
        got = load(path)
    assert math.isnan(got["model"]["w"][1].item())
    save(path, w=mg.tensor([1.0, math.nan]))
    with refusing(RuntimeWarning, match="NaN"):  # as an error, it comes before any change
        load(path, w=w)
    assert w.tolist() == [0.0, 0.0]


# ----------------------------------------------------------------------------- 37, 38: saving


LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "reversed": lambda a: np.flip(a) if a.ndim else a,
    "step": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "broadcast": lambda a: np.broadcast_to(a, (3, *a.shape)),
    "swapped": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b"?" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, 1, -1) if a.ndim else a,
}


@fault(37)
@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    bits=st.binary(min_size=64, max_size=64),
)
def test_arrays_of_every_dtype_and_layout_survive(tmp_path_factory, layout, shape, bits):
    path = tmp_path_factory.mktemp("layout") / "a.safetensors"
    values, wanted = {}, {}
    for code in DTYPES:
        patterns = np.frombuffer(bits, np.dtype(code)) if code != "?" else np.array([True, False])
        a = np.resize(patterns, shape)
        if layout == "windows" and 0 in shape:
            a = patterns[:2]
        values[code] = LAYOUTS[layout](a)
        native = values[code].dtype.newbyteorder("=")
        wanted[code] = np.array(values[code], native, order="C")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN are drawn too
        save(path, model=values, tensors={k: mg.asarray(v) for k, v in values.items()})
        got = load(path)
        assert same(wanted, got["model"])
        assert same(wanted, {k: v.numpy() for k, v in got["tensors"].items()})
        stored = load_file(path)
    for code, array in wanted.items():
        assert same(array, stored[code])


@fault(37)
def test_names_that_collide_or_are_reserved_are_refused(path):
    one = mg.ones(1)
    with refusing(ValueError, match=r"keeps the name '__metadata__'"):
        save(path, model={"__metadata__": one})
    with refusing(ValueError, match="under the name 'a/b'"):
        save(path, model={"a/b": one, "a": {"b": one}})
    with refusing(ValueError, match="under the name 'x/y'"):
        save(path, model={"x/y": one}, x={"y": one})
    with refusing(ValueError, match="nothing to save"):
        save(path)
    assert files(path) == []


class Faulty:
    """A file of which one method fails."""

    def __init__(self, file, name, error):
        self.file, self.name, self.error = file, name, error

    def __getattr__(self, name):
        if name == self.name:
            if name == "write":
                self.file.write(b"half")
            raise self.error
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *args):
        return self.file.__exit__(*args)


def opened(name, mode, where, error):
    file = open(name, mode)  # noqa: SIM115
    return Faulty(file, where, error) if "x" in mode else file


def broken(monkeypatch, where, error):
    def fail(*args, **kwargs):
        raise error

    if where in ("write", "flush"):
        monkeypatch.setattr(io, "open", lambda *args: opened(*args, where, error), raising=False)
    elif where == "open":
        monkeypatch.setattr(io, "open", fail, raising=False)
    elif where == "read back":
        monkeypatch.setattr(io, "_read", fail)
    elif where == "lock":
        monkeypatch.setattr(io, "fcntl", SimpleNamespace(flock=fail, LOCK_EX=0, LOCK_NB=0))
    elif where == "fsync of the folder":
        fsync = os.fsync

        def sync(handle):
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise error
            fsync(handle)

        monkeypatch.setattr(io.os, "fsync", sync)
    else:
        monkeypatch.setattr(io.os, where, fail)


PLACES = [
    "open", "lock", "write", "flush", "chmod", "fsync", "read back", "replace",
    "fsync of the folder",
]  # fmt: skip


@fault(38)
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("where", PLACES)
def test_a_save_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch, where, error):
    save(path, value="old")
    old = path.read_bytes()
    with monkeypatch.context() as patch:
        broken(patch, where, error)
        with refusing(type(error)) as caught:
            save(path, value="new")
        assert caught.value is error
    assert files(path) == [path.name]
    if where == "fsync of the folder":  # it is in its place already
        assert load(path) == {"value": "new"}
    else:
        assert path.read_bytes() == old
    save(path, value="newer")
    assert load(path) == {"value": "newer"}


@fault(38)
@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_disk_that_is_full_leaves_the_old_file(path):
    save(path, value="old")
    script = """if True:
        import resource, signal, sys
        import numpy as np
        from microgradnd.io import save
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            save(sys.argv[1], value=np.ones(10_000))
        except OSError as error:
            print(error.errno)"""
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG}\n", "")
    assert load(path) == {"value": "old"} and files(path) == [path.name]


@fault(38)
def test_the_file_keeps_its_permissions(path):
    umask = os.umask(0o027)
    try:
        save(path, x=1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        save(path, x=2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(umask)


@fault(38)
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_process_killed_at_any_time_leaves_a_sound_file(path):
    # A child that saves without pause is forked, and killed some time later, many times.
    script = """if True:
        import os, sys, time
        import numpy as np
        from microgradnd.io import save
        path, w = sys.argv[1], np.ones(50_000)
        save(path, n=0, w=w * 0)
        print("ready", flush=True)
        for line in sys.stdin:
            child = os.fork()
            if not child:
                n = int(line)
                while True:
                    n += 1
                    save(path, n=n, w=w * n)
            time.sleep(0.001 + 0.0007 * (int(line) % 41))
            os.kill(child, 9)
            os.waitpid(child, 0)
            print("killed", flush=True)"""
    litter, last = 0, -1
    with subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout.readline() == "ready\n"
        for run in range(100):
            parent.stdin.write(f"{1000 * (run + 1) + run}\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "killed\n"
            got = load(path)
            assert (got["w"] == got["n"]).all() and got["n"] >= last
            last = got["n"]
            litter += len(files(path)) > 1
        parent.stdin.close()
    assert litter  # some were killed while writing, else this shows nothing
    assert last > 1000
    save(path, n=0)
    assert files(path) == [path.name]


# ----------------------------------------------------------------------------- 39: resumed


@fault(39)
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_resumed_in_a_fresh_process_after_the_first_was_killed(tmp_path):
    def program(what):
        done = subprocess.run(
            [sys.executable, test_resume.__file__, what, tmp_path],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout

    assert program("kill").split() == ["9"] * len(test_resume.RUNS)
    # JSON makes lists of tuples; compare like with like.
    plain = {name: test_resume.Run(name).train(16).print(8) for name in test_resume.RUNS}
    assert json.loads(program("resume")) == json.loads(json.dumps(plain))


# ----------------------------------------------------------------------------- 40: modules


@fault(40)
def test_the_base_constructor_is_not_needed_and_harmless():
    class With(nn.Module):
        def __init__(self, first):
            if first:
                super().__init__()
            self.layer = nn.Linear(1, 1)
            if not first:
                super().__init__()

    for first in (True, False):
        assert len(list(With(first).parameters())) == 2
    module = With(True)
    refused(lambda: module(1), NotImplementedError, "With does not define forward")


@fault(40)
def test_a_parameter_is_not_overwritten_by_something_else():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    for value in (mg.ones((2, 2)), np.ones((2, 2)), 1.0):
        with refusing(TypeError, rf"Linear\.weight.*{type(value).__name__}.*Parameter", of=layer):
            layer.weight = value
        assert layer.weight is weight
    with refusing(TypeError, match="'w' is a Tensor"):
        layer.register_parameter("w", mg.ones(2))
    layer.register_parameter("w", None)
    layer.register_parameter("w", nn.Parameter([1.0]))
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias", "w"]


@fault(40)
def test_modules_in_a_plain_list_are_warned_of():
    module = nn.Module()
    for value in ([nn.Linear(1, 1)], (nn.Linear(1, 1),), {"a": nn.Linear(1, 1)}):
        with pytest.warns(UserWarning, match=r"Module\.layers is a .*ModuleList") as caught:
            module.layers = value
        assert len(caught) == 1
        assert caught[0].filename == __file__
    module.numbers = [1, 2]
    assert not list(module.parameters())


@fault(40)
def test_what_is_shared_is_counted_and_saved_once(path):
    def shared():
        layer = nn.Linear(3, 3)
        net = nn.Sequential(layer, mg.tanh, layer)
        net.again = layer
        return net

    net, other = shared(), shared()
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    save(path, model=net)
    assert load(path, model=other) == {}
    assert contents(list(other.parameters()))[0][0] == contents(list(net.parameters()))[0][0]
    assert other[2].weight is other[0].weight is other.again.weight
    net(mg.ones(3)).sum().backward()
    before = net[0].bias.tolist()
    optimizer.step()
    after = [b - 0.1 * g for b, g in zip(before, net[0].bias.grad.tolist(), strict=True)]
    assert net[0].bias.tolist() == pytest.approx(after)


@fault(40)
def test_options_that_a_layer_cannot_have():
    for p in (1.5, -0.1, math.nan):
        refused(lambda p=p: nn.Dropout(p), ValueError, "Dropout", "[0, 1]", str(p))
    x = mg.ones(3)
    refused(lambda: nn.functional.dropout(x, 1.5), ValueError, "dropout", "[0, 1]", "1.5")
    refused(lambda: nn.Linear(0, 1), ValueError, "in_features", "0")
    refused(lambda: nn.Module()(1.0), NotImplementedError, "Module", "forward")
    net = nn.Dropout()
    refused(lambda: net.train("no"), TypeError, "train", "'no'")


@fault(40)
def test_a_batch_that_is_refused_is_not_tracked():
    norm = nn.BatchNorm1d(2)
    one = mg.ones((1, 2))
    refused(lambda: norm(one), ValueError, "batch_norm", "one value", "(1, 2)", "eval()")
    assert norm(mg.ones((1, 2, 5))).shape == (1, 2, 5)
    assert norm.eval()(mg.ones((1, 2))).shape == (1, 2)
