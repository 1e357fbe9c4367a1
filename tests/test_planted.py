"""Faults that otherwise only a GPU would show: planted in a copy of the project, they are found.

Each is an edit of one line: a function that CuPy lacks, a copy to the host, a keyword that CuPy
refuses, a number of NumPy's. The tests that must find it run on the copy, without a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = ("tests/test_device_registry.py", "every_operation_is and tanh]")
STEPS = ("tests/test_device_training.py", "every_optimizer and sgd]")
ACTIVATIONS, SPACE = "microgradnd/ops/activations.py", "microgradnd/backend/namespace.py"
ALGORITHMS, LAYERS = "microgradnd/optim/algorithms.py", "microgradnd/nn/layers.py"
FORWARD, FORMULA, UPDATE = (
    "    return xp.tanh(x)\n", "tanh.vjp(x=lambda g, out: g * (1.0 - out * out))\n",
    "            return (p - lr * g,)\n",
)  # fmt: skip

pytestmark = pytest.mark.slow


class Plant(NamedTuple):
    """An edit, the tests that must find it, and words that they must say."""

    file: str
    old: str
    new: str
    tests: tuple[str, str]
    says: str


PLANTS = {
    # calls that only NumPy knows
    "a name outside the list": Plant(
        ACTIVATIONS, FORWARD, "    return xp.tanh(xp.nan_to_num(x))\n", OPERATIONS,
        "xp has no 'nan_to_num'",
    ),
    "a name that CuPy lacks": Plant(
        SPACE, "    matmul\n", "    matmul spacing\n", OPERATIONS,
        "module 'cupy' has no attribute 'spacing'",
    ),
    "NumPy's own function": Plant(
        ACTIVATIONS, FORWARD, "    return np.vectorize(math.tanh, otypes='f')(x)\n", OPERATIONS,
        "Implicit conversion to a NumPy array is not allowed",
    ),
    # copies to the host, waiting, uploads
    "a value looked at in a formula": Plant(
        ACTIVATIONS, FORMULA, FORMULA.replace("g * (", "g * (float(g.sum()) * 0.0 + "), OPERATIONS,
        "'waits':",
    ),
    "a value looked at in an update": Plant(
        ALGORITHMS, UPDATE, "            return (p - lr * g if bool((g == g).all()) else p,)\n",
        STEPS, "'waits':",
    ),
    "a mask as an index in an update": Plant(
        ALGORITHMS, UPDATE, "            g[g != g] = 0.0\n" + UPDATE, STEPS, "'waits':",
    ),
    "an upload in a layer": Plant(
        LAYERS, "return F.linear(x, self.weight, self.bias)",
        "return F.linear(x, self.weight, self.bias) + asarray([0.0]).to(x.backend.name)",
        STEPS, "'uploads':",
    ),
    # keywords that NumPy takes and CuPy does not
    "a keyword of a function": Plant(
        SPACE, "module.max(x, axis=axis, keepdims=True)",
        "module.max(x, axis=axis, keepdims=True, initial=-math.inf)", STEPS,
        "unexpected keyword argument 'initial'",
    ),
    "a keyword of a ufunc": Plant(
        ACTIVATIONS, FORWARD, "    return xp.tanh(x, where=True)\n", OPERATIONS,
        "Wrong arguments {'where': True}",
    ),
    "a keyword of a method": Plant(
        SPACE, "return x.astype(dtype, copy=False)",
        "return x.astype(dtype, casting='unsafe', copy=False)", STEPS,
        "casting is not supported yet",
    ),
    # numbers of NumPy's
    "a NumPy scalar in a formula": Plant(
        ACTIVATIONS, FORMULA, FORMULA.replace("1.0", "np.float64(1.0)"), OPERATIONS,
        "is on the host",
    ),
    "a NumPy scalar in an update": Plant(
        ALGORITHMS, UPDATE, UPDATE.replace("lr *", "np.float64(lr) *"), STEPS,
        "is on the host",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project, with nothing planted."""
    where = tmp_path_factory.mktemp("planted")
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    for folder in ("microgradnd", "tests"):
        shutil.copytree(ROOT / folder, where / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", where)
    return where


def run(where, *tests):
    """Run tests of the copy until one fails; gives whether all passed, and the output."""
    settings = {"PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    file, chosen = tests
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", file, "-k", chosen],
        cwd=where, env=inherited | settings, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=170,
    )  # fmt: skip
    return done.returncode == 0, done.stdout


@pytest.mark.parametrize("tests", [OPERATIONS, STEPS])
def test_without_a_fault_all_pass(copy, tests):
    passed, output = run(copy, *tests)
    assert passed, output
    assert " passed" in output


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(copy, name):
    plant = PLANTS[name]
    file = copy / plant.file
    text = file.read_text(encoding="utf-8")
    assert text.count(plant.old) >= 1, "the line is no longer there: plant it elsewhere"
    file.write_text(text.replace(plant.old, plant.new, 1), encoding="utf-8")
    try:
        passed, output = run(copy, *plant.tests)
    finally:
        file.write_text(text, encoding="utf-8")
    assert not passed, output
    assert plant.says in output, output
