"""The real CuPy, without a device: it takes every call that the stand-in was given in this session.

That is why these tests run last (`conftest.py`). Run alone, they first make calls of their own: the
samples of every operation and the training step of every optimizer. Then: the names of CuPy in our
code, the device code on which lines of the contract rest, and what users read on a machine without
a driver. Where the wheel is not installed, all this is skipped.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import standin
from samples import NAMES, differentiate, place_all, registered, samples

import microgradnd as mg
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.backend.namespace import SAME

cupy = pytest.importorskip("cupy", reason="the wheel of CuPy is not installed")
special = pytest.importorskip("cupyx.scipy.special")

from data import make_cupy_signatures as maker  # noqa: E402 - it imports cupy

ROOT = Path(__file__).resolve().parents[1]
DRIVER = cupy.cuda.runtime.driverGetVersion()
WEAK = {"int": int, "float": float, "complex": complex}
UFUNC_KEYWORDS = {"out", "dtype", "casting"}


# --------------------------------------------------------------------------- binding of calls


def kinds_of(operands):
    """Give a ufunc's operands as NumPy's resolution of dtypes takes them: dtypes or weak types."""
    return [WEAK.get(kind) or np.dtype(kind) for kind in operands]


def loop_of(types, kinds):
    """Find the first of a ufunc's loops that takes the operands; Python's numbers are weak."""
    strong = [kind for kind in kinds if isinstance(kind, np.dtype)]
    kinds = [
        kind if isinstance(kind, np.dtype) else np.result_type(*strong, kind(0)) for kind in kinds
    ]
    for loop in types:
        if all(map(np.can_cast, kinds, map(np.dtype, loop.partition("->")[0]))):
            return loop
    return None


def refused_by_ufunc(ufunc, positional, keywords, operands):
    """Say why CuPy would refuse a call of a ufunc, or compute it in another type than NumPy."""
    if positional not in (ufunc.nin, ufunc.nargs):
        return f"takes {ufunc.nin} or {ufunc.nargs} operands, not {positional}"
    if set(keywords) - UFUNC_KEYWORDS:
        return f"Wrong arguments {sorted(set(keywords) - UFUNC_KEYWORDS)}"
    kinds = kinds_of(operands[: ufunc.nin])
    loop = loop_of(ufunc.types, kinds)
    if loop is None:
        return f"no loop for {kinds}"
    host = getattr(np, ufunc.name.removeprefix("cupy_"), None)
    if host is None or "dtype" in keywords:
        return None
    wanted = host.resolve_dtypes((*kinds, None))[-1]
    return None if wanted.kind + str(wanted.itemsize) == np.dtype(loop[-1]).str[1:] else (
        f"{loop} gives {np.dtype(loop[-1])}, NumPy {wanted}"
    )  # fmt: skip


def refused(call):
    """Say why the real CuPy would refuse a recorded call; None if it would not."""
    name, positional, keywords, operands = call
    if name.startswith("cupyx_scipy_special_"):
        function = getattr(special, name.removeprefix("cupyx_scipy_special_"), None)
    elif name.startswith("ndarray."):
        function = getattr(cupy.ndarray, name.removeprefix("ndarray."), None)
    else:
        first, *rest = name.split(".")
        function = getattr(cupy, first, None)
        if inspect.ismodule(function):
            function = functools.reduce(lambda f, part: getattr(f, part, None), rest, function)
    if function is None:
        return "there is no such name"
    if isinstance(function, cupy.ufunc) and "." not in name:
        return refused_by_ufunc(function, positional, keywords, operands)
    method = name.rpartition(".")[2]
    if isinstance(function, cupy.ufunc):
        if method == "reduce" and name not in ("add.reduce", "multiply.reduce"):
            return f"{name} is not supported"
        signature = signature_of(getattr(cupy.ufunc, method)).removeprefix("self, ")
    elif method.startswith("__") or name == "from_dlpack":
        return None  # of these CuPy tells no parameters
    else:
        signature = signature_of(function)
    try:
        inspect.signature(standin.stub(name, signature)).bind(
            *[None] * positional, **dict.fromkeys(keywords)
        )
    except TypeError as error:
        return str(error)
    return None


def signature_of(function):
    """Give the parameters of a function or, by the first line of its text, of a method."""
    try:
        return maker.function_signature(function)
    except ValueError:
        line = function.__doc__.split("\n")[0]
        inside = line[line.index("(") + 1 : line.rindex(")")]
        return ", ".join(part.split()[-1] for part in inside.split(", "))


@pytest.fixture(scope="module")
def calls():
    """What the session has recorded; if that is little, what is recorded now."""
    wanted = {getattr(getattr(standin.cupy, name), "short", name) for name in SAME}
    wanted |= {"ndarray.astype", "ndarray.get", "add.at", "einsum", "asarray", "take_along_axis"}
    if not {call[0] for call in standin.used_calls()} >= wanted:
        work()
    assert {call[0] for call in standin.used_calls()} >= wanted
    return standin.used_calls()


def work():
    """Make calls: every operation to second order, and the step of every optimizer."""
    backend = CupyBackend(standin.cupy, standin.special, name="standin")
    with registered(backend), np.errstate(all="ignore"):
        for name in NAMES:
            for dtype in ("float16", "float32", "float64"):
                for sample in samples(name, dtype):
                    operands = place_all(sample, backend.asarray)
                    differentiate(sample, operands, backend.asarray)
        for make in (mg.optim.SGD, mg.optim.Adam, mg.optim.AdamW, mg.optim.RMSprop,
                     mg.optim.Adagrad):  # fmt: skip
            model = mg.nn.Sequential(mg.nn.Maxout(4, 3, pieces=2), mg.nn.Dropout(0.5))
            model.to("standin")
            optimizer = make(model.parameters(), lr=0.1)
            out = model(mg.ones((5, 4)).to("standin"))
            mg.cross_entropy(out, mg.asarray(backend.asarray(np.array([0, 1, 2, 0, 1])))).backward()
            optimizer.step()
        mg.arange(3).to("standin").to("numpy")
        zeros = backend.xp.zeros((2,))
        for name, *args in (["where", zeros > 0, 1.0, 0.0], ["eye", 2], ["full", (2,), 1.0],
                            ["full_like", zeros, 1.0], ["isinf", zeros]):  # fmt: skip
            getattr(backend.xp, name)(*args)
        backend.synchronize()


def test_cupy_takes_every_call_that_the_stand_in_was_given(calls):
    wrong = {str(call): why for call in calls if (why := refused(call))}
    print(f"{len(calls)} calls of {len({call[0] for call in calls})} functions")
    assert not wrong
    assert len(calls) > 300


WRONG = {
    ("errstate", 0, (), ()): "no such name",
    ("ndarray.frobnicate", 1, (), ()): "no such name",
    ("sum", 1, ("where",), ("float32",)): "unexpected keyword argument 'where'",
    ("ndarray.sum", 1, ("initial",), ("float32",)): "unexpected keyword argument 'initial'",
    ("sum", 6, (), ("float32",)): "too many positional",
    ("clip", 1, (), ("float32",)): "missing a required argument: 'a_min'",
    ("ndarray.astype", 1, (), ("float32",)): "missing a required argument: 'dtype'",
    ("exp", 1, ("where",), ("float32",)): "Wrong arguments ['where']",
    ("exp", 3, (), ("float32",) * 3): "takes 1 or 2",
    ("bitwise_and", 2, (), ("float32", "float32")): "no loop",
    ("invert", 1, (), ("float16",)): "no loop",
    ("maximum.reduce", 1, (), ("float32",)): "not supported",
    ("add.reduce", 1, ("where",), ("float32",)): "unexpected keyword argument 'where'",
    ("cupyx_scipy_special_frobnicate", 1, (), ("float32",)): "no such name",
}


@pytest.mark.parametrize("call", WRONG, ids=str)
def test_a_call_that_cupy_refuses_is_found(call):
    assert WRONG[call] in (refused(call) or "")


RIGHT = [
    ("sum", 1, ("axis", "keepdims"), ("float32",)),
    ("ndarray.astype", 2, ("copy",), ("float32",)),
    ("exp", 1, ("out",), ("float32", "float32")),
    ("multiply", 2, (), ("float16", "float")),
    ("add", 3, (), ("int32", "int", "int32")),
    ("add.at", 3, (), ("float32", "int64", "float32")),
    ("ndarray.__getitem__", 0, (), ()),
]


@pytest.mark.parametrize("call", RIGHT, ids=str)
def test_a_call_that_cupy_takes_is_not(call):
    assert refused(call) is None


def test_another_dtype_than_numpy_s_is_found():
    class Narrow:
        """A ufunc with too few loops."""

        name, nin, nargs, types = "cupy_add", 2, 3, ["ff->f"]

    assert refused_by_ufunc(Narrow, 2, (), ("float32", "float32")) is None
    why = refused_by_ufunc(Narrow, 2, (), ("float16", "float16"))
    assert why == "ff->f gives float32, NumPy float16"
    assert "no loop" in refused_by_ufunc(Narrow, 2, (), ("float64", "float64"))


# ------------------------------------------------------------------------------ names in our code


def chains(path, roots):
    """Give the dotted names in a file that begin at one of these, as `self.module.cuda.Event`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            for root in roots:
                name = text.removeprefix(f"{root}.")
                if name != text and name.replace(".", "").isidentifier():
                    found.add(name)
    return found


def test_every_name_of_cupy_in_our_code_exists():
    backend = ROOT / "microgradnd" / "backend"
    names = chains(backend / "cupy_backend.py", ["self.module", "module", "cupy"])
    for name in ("namespace.py", "matrices.py", "windows.py"):
        names |= chains(backend / name, ["module"])
    for path in (ROOT / "benchmarks").glob("*.py"):
        names |= chains(path, ["cupy", "cp"])
    assert {"cuda.alloc_pinned_memory", "cuda.Device", "take_along_axis", "add.at"} <= names
    missing = []
    for name in names:
        thing = cupy
        for part in name.split("."):
            if not hasattr(thing, part):
                missing.append(name)
                break
            thing = getattr(thing, part)
    assert not missing


@pytest.mark.parametrize(
    "name",
    [
        "cuda.Stream.record", "cuda.Stream.synchronize", "cuda.Stream.null", "cuda.Event.record",
        "cuda.Event.done", "cuda.Event.synchronize", "cuda.get_elapsed_time", "ndarray.set",
        "ndarray.get", "ndarray.__dlpack__", "ndarray.__dlpack_device__", "ndarray.base",
    ],
)  # fmt: skip
def test_what_the_stand_in_offers_besides_exists(name):
    real, ours = cupy, standin.cupy
    for part in name.split("."):
        real = getattr(real, part)
        if name != "ndarray.base":
            ours = getattr(ours, part)


def test_methods_have_the_parameters_of_the_table():
    assert maker.method_signature("set") == "self, arr, stream=None"
    for name, wanted in standin.TABLE["methods"].items():
        assert maker.method_signature(name) == wanted


# ------------------------------------------------------------------ device code behind the contract


def kernel(ufunc, dtype):
    """Give the device code of a ufunc or a reduction for operands of one dtype."""
    for op in ufunc._ops.ops:
        if {t.char for t in op.in_types} == {dtype}:
            return op.routine
    raise LookupError(dtype)


def test_the_device_code_is_what_the_contract_rests_on():
    from cupy._core import _routines_indexing, _routines_math, _routines_statistics

    clip = kernel(_routines_math._clip, "f")
    assert clip == "out0 = in1 > in2 ? in2 : (in0 < in1 ? in1 : (in0 > in2 ? in2 : in0))"
    for dtype in "efd":
        assert kernel(cupy.remainder, dtype) == "out0 = in0 - _floor_divide(in0, in1) * in1"
        assert "isnan(in0) | isnan(in1)" in kernel(cupy.maximum, dtype)
        assert "isnan(in0) | isnan(in1)" in kernel(cupy.minimum, dtype)
        assert kernel(cupy.floor_divide, dtype) == "out0 = _floor_divide(in0, in1)"
    assert kernel(cupy.remainder, "i").endswith("* (in1 != 0)")
    assert kernel(cupy.reciprocal, "i") == "out0 = in0 == 0 ? 0 : (1 / in0)"
    assert "in0 == -1" in cupy.power._preamble
    assert kernel(_routines_math.sum_auto_dtype, "e")[3] == "float"  # half sums in float32
    assert "if (isnan(a.value)) return a;" in _routines_statistics.amax.preamble
    assert "if (out_i < 0) out_i += index_range;" in _routines_indexing._take_kernel_core
    header = Path(cupy.__file__).parent / "_core" / "include" / "cupy" / "carray.cuh"
    code = " ".join(header.read_text(encoding="utf-8").split())
    assert "float _floor_divide(float x, float y) { return floor(x / y); }" in code
    assert "int _floor_divide(int x, int y) { if (y == 0) return 0;" in code


# ------------------------------------------------------------------------- without a driver

without_driver = pytest.mark.skipif(DRIVER > 0, reason="a driver is here: the errors need none")
NO_DRIVER = f"CuPy {cupy.__version__} is installed, but no NVIDIA driver was found on this machine."


def command(*arguments, **variables):
    """Run Python in a process of its own; gives its status and both its outputs."""
    environment = {k: v for k, v in os.environ.items() if k != "MICROGRADND_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], text=True, capture_output=True, timeout=120,
        env=environment | {"PYTHONPATH": str(ROOT)} | variables, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@without_driver
def test_cupy_that_is_asked_for_says_that_there_is_no_driver():
    script = "import microgradnd as mg; mg.zeros(2)"
    status, _, said = command("-c", script, MICROGRADND_BACKEND="cupy")
    assert status == 1
    assert said.rstrip().endswith(f"BackendError: {NO_DRIVER}")
    assert "insufficient for CUDA runtime version" in said  # CuPy's own error is kept as the cause


@without_driver
def test_every_other_door_says_the_same():
    for door in (
        "mg.tensor([1.0]).to('cupy')", "mg.backend.set('cupy')", "mg.nn.Linear(2, 2).to('cupy')",
        "mg.backend.use('cupy').__enter__()",
    ):  # fmt: skip
        status, _, said = command("-c", f"import microgradnd as mg; {door}")
        assert status == 1, door
        assert said.rstrip().endswith(f"BackendError: {NO_DRIVER}")


@without_driver
def test_auto_takes_numpy_and_says_why():
    script = "import microgradnd as mg; print(type(mg.zeros(2).data).__module__)"
    status, out, said = command("-c", script, MICROGRADND_BACKEND="auto")
    assert (status, out.strip()) == (0, "numpy")
    assert said.strip() == f"microgradnd: auto took numpy: {NO_DRIVER}"


@without_driver
def test_info_and_available_say_why_not():
    assert mg.backend.available()["cupy"] == NO_DRIVER
    status, out, _ = command("-m", "microgradnd", "info")
    assert status == 0
    assert NO_DRIVER in out
    assert f"importable: yes ({cupy.__version__}), usable: no" in out
    status, out, _ = command("-m", "microgradnd", "info", MICROGRADND_BACKEND="cupy")
    assert status == 1
    assert NO_DRIVER in out


def test_a_cupy_that_is_not_there_says_what_to_install():
    script = (
        "import sys; sys.modules['cupy'] = None\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'cupy' else find(name, *a)\n"
        "import microgradnd as mg; mg.zeros(2)"
    )
    status, _, said = command("-c", script, MICROGRADND_BACKEND="cupy")
    assert status == 1
    assert "MICROGRADND_BACKEND=cupy, but CuPy is not installed. Install one of: " in said
    assert 'pip install "cupy-cuda13x[ctk]"' in said


@without_driver
def test_cupy_imports_without_a_driver_and_has_no_device():
    assert cupy.is_available() is False
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InsufficientDriver") as error:
        cupy.zeros(2)
    assert error.value.status == 35
