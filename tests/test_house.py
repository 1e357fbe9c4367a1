"""The house rules that a linter does not know."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import microgradnd as mg

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(mg.__file__).parent
CORE = [PACKAGE / "tape.py", PACKAGE / "primitives.py"]
TOP = {
    "pyproject.toml", "README.md", "LICENSE", "microgradnd", "tests", "benchmarks", "examples",
    "docs",
}  # fmt: skip


def new_modules(code: str) -> set[str]:
    """What is loaded after some code that NumPy alone does not load, by top-level name."""
    before = "import sys, numpy\nbefore = set(sys.modules)"
    script = f"{before}\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_numpy_and_little_else():
    light = {"__future__", "_heapq", "heapq", "threading"}
    assert new_modules("import microgradnd") <= {"microgradnd"} | light


def test_using_the_package_loads_nothing_heavy():
    code = (
        "import microgradnd as mg\n"
        "x = mg.tensor([1.0, 2.0], requires_grad=True)\n"
        "mg.maxout(mg.tanh(x) @ x.T + mg.random.normal(shape=2), 2).sum().backward()\n"
        "mg.backend.get()"
    )
    heavy = {"cupy", "hypothesis", "inspect", "matplotlib", "pytest", "scipy", "torch", "tqdm"}
    assert not new_modules(code) & heavy


def test_the_core_is_read_in_one_sitting():
    lines = [line for path in CORE for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) <= 700
    assert max(map(len, lines)) <= 100


def test_no_statements_are_joined_in_the_core():
    for path in CORE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        starts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        assert len(starts) == len(set(starts)), path.name


def test_only_the_backend_package_names_cupy():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "backend":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.startswith("cupy")], path.name


def test_every_public_module_class_and_function_has_a_docstring():
    for name in mg.__all__:
        thing = getattr(mg, name)
        assert (getattr(thing, "__doc__", None) or "").strip(), name


def test_numpy_is_the_only_hard_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [d.split(">")[0] for d in project["dependencies"]]
    extras = project["optional-dependencies"]
    assert names == ["numpy"]
    names = sorted(d.split(">")[0] for d in extras["test"])
    assert names == ["hypothesis", "pytest", "safetensors"]
    assert extras["cupy"] == ["cupy-cuda13x[ctk]"]
    assert extras["cuda12"] == ["cupy-cuda12x[ctk]"]
    assert not [d for d in extras["bench"] if d.startswith("torch")]


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()
    for name in ("__init__.pyi", "surface.pyi"):
        ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def test_the_top_level_shows_what_it_should():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: other files may lie here")
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    top = {name.partition("/")[0] for name in done.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP


#: Not for users' calls.
WITHOUT_EXAMPLE = (
    "identity", "positive", "setitem", "route", "collect", "conv_input", "conv_weight",
    "cofactors", "eigh_factors", "euclidean", "mirrored", "pseudo_inverse", "qr_factors",
    "slogdet_parts", "svd_factors",
)  # fmt: skip


@pytest.mark.parametrize("name", [*mg.REGISTRY, *mg.COMPOSITES])
def test_the_example_of_an_operation_holds(name):
    op = (mg.REGISTRY | mg.COMPOSITES)[name]  # no function, so pytest's collection passes it by
    test = doctest.DocTestParser().get_doctest(op.__doc__ or "", {}, name, op.__module__, 0)
    assert doctest.DocTestRunner().run(test).failed == 0
    assert test.examples or name in WITHOUT_EXAMPLE
