"""Choosing a backend, moving between two of them, and what is said when that cannot be done."""

import importlib.util
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import standin

import microgradnd as mg
from microgradnd import backend
from microgradnd.backend.cupy_backend import CupyBackend, explain

HIDE = 'import sys\nsys.modules["cupy"] = None\n'  # where CuPy is installed, as if it were not
NO_CUPY = "" if importlib.util.find_spec("cupy") is None else HIDE

MISSING = (
    "MICROGRADND_BACKEND=cupy, but CuPy is not installed. Install one of: "
    'pip install "cupy-cuda13x[ctk]" (CUDA 13 driver), '
    'pip install "cupy-cuda12x[ctk]" (CUDA 12 driver), or unset MICROGRADND_BACKEND to use NumPy.'
)


def python(code, variable=None):
    """Run code in a process of its own; give what it printed and what it complained about."""
    env = {k: v for k, v in os.environ.items() if k != "MICROGRADND_BACKEND"}
    if variable is not None:
        env["MICROGRADND_BACKEND"] = variable
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", NO_CUPY + code], env=env, capture_output=True, text=True, check=False
    )
    return done.stdout.strip(), done.stderr.strip()


@pytest.fixture
def other():
    """The stand-in for CuPy as a second backend in this process."""
    try:
        return backend.named("standin")
    except ValueError:
        second = CupyBackend(standin.cupy, standin.special, name="standin")
        return backend.register(second)


# ----------------------------------------------------------------------------- the variable


@pytest.mark.parametrize("variable", [None, "", "  ", "numpy", " NumPy\n", "NUMPY"])
def test_the_variable_is_stripped_and_lower_cased(variable):
    code = "import microgradnd as mg; print(mg.backend.get().name, mg.tensor([1.0]).backend.name)"
    assert python(code, variable) == ("numpy numpy", "")


def test_an_unknown_name_lists_the_choices():
    code = "import microgradnd as mg\ntry: mg.tensor([1.0])\nexcept ValueError as e: print(e)"
    said, _ = python(code, "Cuppy")
    for part in ("MICROGRADND_BACKEND='", "cuppy", "'numpy'", "'cupy'", "'auto'"):
        assert part in said.replace("Cuppy", "cuppy")


def test_cupy_without_cupy_says_what_to_install_and_nothing_falls_back():
    code = """
import microgradnd as mg
for _ in range(2):
    try: mg.zeros(2)
    except mg.BackendError as e: print(isinstance(e, ImportError), isinstance(e, RuntimeError), e)
"""
    said, complaints = python(code, " CuPy ")
    assert said.split("\n") == [f"True True {MISSING}"] * 2 and complaints == ""


def test_auto_says_what_it_took_and_why_once():
    code = "import microgradnd as mg; mg.zeros(2); print(mg.zeros(2).backend.name)"
    said, complaints = python(code, "auto")
    assert said == "numpy"
    assert complaints.count("\n") == 0 and "auto took numpy" in complaints
    assert "CuPy is not installed" in complaints


def test_the_variable_is_read_when_first_needed_and_once():
    code = """
import os
import microgradnd as mg
os.environ["MICROGRADND_BACKEND"] = "numpy"
print(mg.backend.get().name)
os.environ["MICROGRADND_BACKEND"] = "nonsense"
print(mg.backend.get().name, mg.ones(1).backend.name)
"""
    assert python(code, "nonsense") == ("numpy\nnumpy numpy", "")


def test_numpy_goes_on_working_after_a_failed_request():
    code = """
import microgradnd as mg
x = mg.tensor([1.0, 2.0], requires_grad=True)
for ask in (lambda: x.to("cupy"), lambda: mg.backend.set("cupy"), lambda: mg.backend.named("cupy")):
    try: ask()
    except mg.backend.MissingBackendError: print("missing")
(x * x).sum().backward()
print(mg.backend.get().name, x.grad.tolist())
"""
    assert python(code) == ("missing\nmissing\nmissing\nnumpy [2.0, 4.0]", "")


def test_import_brings_nothing_heavy():
    code = """
import sys
import numpy
before = set(sys.modules)
import microgradnd as mg
mg.tensor([1.0])
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    said, complaints = python(code)
    heavy = {"cupy", "cupyx", "hypothesis", "matplotlib", "scipy", "sklearn", "tqdm", "torch",
             "pytest", "_pytest", "inspect", "dis", "ast", "unittest", "difflib", "argparse",
             "dataclasses", "multiprocessing", "asyncio", "subprocess", "logging"}  # fmt: skip
    assert complaints == "" and not heavy & set(said.split())


# ----------------------------------------------------------------------------- CuPy, unusable


def fake(driver, runtime=13000):
    calls = SimpleNamespace(driverGetVersion=lambda: driver, runtimeGetVersion=lambda: runtime)
    return SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=calls))


def status(number, text="cudaErrorSomething: some text"):
    error = RuntimeError(text)
    error.status = number
    return error


@pytest.mark.parametrize(
    ("cupy", "error", "parts"),
    [
        (fake(0), status(35), ["CuPy 14.2.0 is installed", "no NVIDIA driver was found"]),
        (fake(12040), status(35), ["CUDA 12.4", "13.0", "update the driver"]),
        (fake(13000), status(100), ["no CUDA device is visible", "CUDA_VISIBLE_DEVICES='-1'"]),
        (fake(13000), ImportError("libnvrtc.so.13: cannot open"),
         ["cupy-cuda13x[ctk]", "CUDA_PATH", "libnvrtc.so.13: cannot open"]),
    ],
)  # fmt: skip
def test_why_an_installed_cupy_cannot_compute(monkeypatch, cupy, error, parts):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    said = explain(cupy, error)
    for part in parts:
        assert part in said


# ----------------------------------------------------------------------------- get, set, use


def test_set_and_use(other):
    before = backend.get()
    assert backend.set("standin") is other
    try:
        assert backend.get() is other and mg.ones(2).backend is other
    finally:
        backend.set(before)
    with backend.use("standin") as current:
        assert current is other and mg.tensor([1, 2]).backend is other
        assert mg.asarray(np.ones(2)).backend is other  # host data go to the current backend
        with backend.use(" Numpy "):
            assert mg.arange(3).backend.name == "numpy"
        assert mg.random.uniform(shape=2).backend is other
    assert backend.get() is before
    with pytest.raises(KeyError), backend.use("standin"):
        raise KeyError
    assert backend.get() is before


def test_an_unknown_name_changes_nothing():
    before = backend.get()
    for ask in (backend.set, lambda name: backend.use(name).__enter__(), mg.ones(1).to):
        with pytest.raises(ValueError, match=r"'cuppy'.*'numpy'.*'cupy'"):
            ask("cuppy")
    assert backend.get() is before


def test_use_checks_its_name_at_the_call_and_may_be_used_again(other):
    with pytest.raises(ValueError, match="'cuda' is not a backend"):
        backend.use("cuda")
    for wrong in (None, 0, np):
        with pytest.raises(TypeError, match="a backend is named by text, 'numpy' or 'cupy', got"):
            backend.use(wrong)
    block = backend.use("standin")
    assert backend.get().name == "numpy"
    for _ in range(2):
        with block as outer, backend.use("numpy"), block as inner:
            assert outer is inner is backend.get() is other
        assert backend.get().name == "numpy"

    @backend.use("standin")
    def made():
        return mg.ones(2).backend

    assert made() is made() is other


def test_use_holds_in_this_thread_only(other):
    seen = []
    with backend.use("standin"):
        thread = threading.Thread(target=lambda: seen.append(backend.get().name))
        thread.start()
        thread.join()
    assert seen == [backend.get().name] != ["standin"]


def test_available_says_why_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend._loaded, "cupy", raising=False)
    report = backend.available()
    assert report["numpy"] == "ok" and "CuPy is not installed" in report["cupy"]
    assert "auto" not in report


# ----------------------------------------------------------------------------- two in one process


def test_the_namespace_follows_the_arrays(other):
    x = mg.tensor([1.0, 2.0]).to("standin").requires_grad_()
    y = (mg.tanh(x) * x + 1.0).sum()
    y.backward()
    assert y.backend is x.grad.backend is other
    assert type(x.grad.data) is other.array_type
    t = np.tanh([1.0, 2.0])
    assert x.grad.tolist() == pytest.approx(t + (1 - t * t) * [1.0, 2.0])


def test_mixing_names_both(other):
    host = mg.tensor([1.0, 2.0])
    device = host.to("standin")
    for mix in (
        lambda: host + device, lambda: device * host, lambda: mg.concatenate([host, device]),
        lambda: mg.where(host > 0, device, 0.0), lambda: device @ host, lambda: np.ones(2) * device,
        lambda: device + np.ones(2), lambda: mg.allclose(host, device),
        lambda: mg.cross_entropy(device, mg.tensor(1)),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"'numpy'.*'standin'|'standin'.*'numpy'"):
            mix()
    assert (device * 2.0 + [1.0, 1.0]).tolist() == [3.0, 5.0]  # numbers and lists belong to nobody


def test_writes_and_gradients_do_not_mix_either(other):
    host = mg.tensor([1.0, 2.0], requires_grad=True)
    device = mg.ones(2).to("standin")
    with mg.no_grad():
        with pytest.raises(TypeError):
            host += device
        with pytest.raises(TypeError):
            host[0] = device[0]
    with pytest.raises(TypeError, match=r"standin.*numpy"):
        host.grad = device
    with pytest.raises(TypeError, match=r"standin.*numpy|numpy.*standin"):
        (host * 2.0).backward(device)
    assert host.tolist() == [1.0, 2.0] and host.grad is None


def test_to_and_back_with_gradients(other):
    x = mg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    there = (x * 2.0).to("standin")
    back = (there * there).to("numpy")
    assert there.backend is other and back.backend.name == "numpy"
    (back * x).sum().backward()  # 4 x^3
    assert x.grad.backend.name == "numpy" and x.grad.tolist() == [12.0, 48.0, 108.0]

    def f(x):
        there = x.to("standin")
        return (there * there * there).sum().to("numpy")

    assert mg.grad(lambda x: mg.grad(f)(x).sum())(x).tolist() == [6.0, 12.0, 18.0]
    assert x.to("numpy") is x and there.to(other) is there
    with mg.no_grad():
        assert not x.to("standin").requires_grad


def test_a_copy_on_another_backend_shares_nothing(other):
    x = mg.tensor([1.0, 2.0])
    there = x.to("standin")
    with mg.no_grad():
        there += 1.0
        x *= 5.0
    assert x.tolist() == [5.0, 10.0] and there.to("numpy").tolist() == [2.0, 3.0]


def test_to_with_a_dtype():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    for target in ("float64", np.float64, np.dtype("f8")):
        assert x.to(target).dtype == "float64"
    assert x.to("float32") is x


def test_a_device_tensor_is_not_an_array_of_the_host(other):
    t = mg.ones(2).to("standin")
    with pytest.raises(TypeError, match=r"standin.*numpy\(\)"):
        np.asarray(t)
    assert type(t.numpy()) is np.ndarray and t.numpy().tolist() == [1.0, 1.0]
    assert "standin" in repr(t)
    with pytest.raises(TypeError):
        memoryview(t)


def test_device_arrays_are_taken_as_they_are(other):
    array = standin.cupy.ones(3)
    t = mg.asarray(array)
    assert t.backend is other and t.data is array
    assert mg.tensor(array).backend is other and mg.tensor(array).data is not array
    assert mg.backend.of(array) is other


def test_masks_are_the_same_on_both(other):
    a = mg.random.Generator(4).bernoulli(0.3, (7, 9), backend=other)
    b = mg.random.Generator(4).bernoulli(0.3, (7, 9), backend=backend.named("numpy"))
    assert a.backend is other and a.tolist() == b.tolist()
    for draw in ("uniform", "normal"):
        a = getattr(mg.random.Generator(4), draw)(shape=9, backend=other)
        b = getattr(mg.random.Generator(4), draw)(shape=9, backend=backend.named("numpy"))
        assert a.backend is other and a.tolist() == b.tolist()
    a = mg.random.Generator(4).integers(-3, 9, 9, backend=other)
    assert a.tolist() == mg.random.Generator(4).integers(-3, 9, 9).tolist()


def test_memory_and_synchronize():
    for b in (backend.named("numpy"),):
        assert set(b.memory()) == {"used", "held"}
        assert b.synchronize() is None
        assert b.is_array(np.ones(1)) and not b.is_array(np.float64(1.0)) and not b.is_array([1])
    with pytest.raises(TypeError, match="list is not an array"):
        backend.of([1.0])
