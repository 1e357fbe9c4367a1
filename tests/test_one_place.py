"""Adding an operation is one edit in one file: it is made to a copy, and everything has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import microgradnd as mg

ROOT = Path(__file__).resolve().parents[1]
NAME = "conjugate"  # of real numbers
RIGHT = "g * out / x"
OPERATION = f'''

@primitive(
    elementwise=True,
    numpy=np.{NAME},
    method=True,
    domain=(0.3, 4),
    reference=lambda x: np.{NAME}(x),
)
def {NAME}(xp, x, /):
    r"""The complex conjugate, of a real number itself, :math:`|x| s = x` with its sign s."""
    return xp.sign(x) * xp.absolute(x)


{NAME}.vjp(x=lambda g, out, x: {RIGHT})
'''

pytestmark = pytest.mark.slow


def copy_with(tmp_path: Path, operation: str) -> Path:
    """A copy of the project whose one difference is an operation more in `ops/elementwise.py`."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    for folder in ("microgradnd", "tests", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "microgradnd" / "ops" / "elementwise.py", "a", encoding="utf-8") as file:
        file.write(operation)
    return tmp_path


def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the copy, which comes before any installed package."""
    settings = {"PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=where, env=inherited | settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=170,
    )  # fmt: skip


def generated_suite(where: Path) -> tuple[int, int, str]:
    """How many of the generated tests of the new operation passed and failed, and the output."""
    done = run(where, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", NAME,
               "tests/test_primitives.py")  # fmt: skip
    closing = done.stdout.strip().splitlines()[-1]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed)", closing)}
    return counts.get("passed", 0), counts.get("failed", 0), done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_with(tmp_path_factory.mktemp("right"), OPERATION)


def test_the_example_is_new():
    assert not hasattr(mg, NAME)


def test_the_generated_suite_covers_the_new_operation_and_passes(copy):
    passed, failed, output = generated_suite(copy)
    assert failed == 0, output
    assert passed >= 10, output


def test_a_wrong_formula_turns_the_generated_suite_red(tmp_path):
    wrong = OPERATION.replace(RIGHT, "g * out / (1.000001 * x)")
    assert wrong != OPERATION
    passed, failed, output = generated_suite(copy_with(tmp_path, wrong))
    assert failed >= 2, output  # of first and of second order
    assert passed >= 1, output  # what the formula does not touch: values, shapes, the protocol


def test_numpy_operators_and_methods_know_the_new_operation(copy):
    code = (
        "import numpy as np, microgradnd as mg\n"
        "t = mg.tensor([8.0], requires_grad=True)\n"
        f"assert np.{NAME}(t).item() == t.{NAME}().item() == mg.{NAME}(t).item()\n"
        f"np.{NAME}(t).backward()\n"
        "print(round(t.grad.item(), 4))\n"
    )
    done = run(copy, "-c", code)
    assert done.stdout.strip() == "1.0", done.stdout


def test_stub_and_page_are_generated_with_the_new_operation(copy):
    for script in ("make_stub.py", "make_operations.py"):
        tool = str(Path("docs") / "tools" / script)
        drifted = run(copy, tool, "--check")
        assert drifted.returncode == 1, drifted.stdout
        assert "drift" in drifted.stdout
        written = run(copy, tool)
        assert written.returncode == 0, written.stdout
        checked = run(copy, tool, "--check")
        assert checked.returncode == 0, checked.stdout
    stub = (copy / "microgradnd" / "__init__.pyi").read_text(encoding="utf-8")
    assert f"def {NAME}(x: Operand) -> Tensor:" in stub
    surface = (copy / "microgradnd" / "surface.pyi").read_text(encoding="utf-8")
    assert f"    def {NAME}(self) -> Tensor:" in surface
    page = (copy / "docs" / "operations.md").read_text(encoding="utf-8")
    section = page.partition(f"### {NAME}\n")[2].partition("\n### ")[0]
    assert f"gradient to `x`: `{RIGHT}`" in section
    assert f"takes over `np.{NAME}`" in section
    assert (copy / "docs" / "operations" / f"{NAME}.svg").exists()
