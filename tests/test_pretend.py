"""The folder `pretend`: scripts and pages as on a GPU, where `import cupy` gives the stand-in."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import standin

ROOT = Path(__file__).resolve().parents[1]
PRETEND = ROOT / "tests" / "pretend"
PAGE = ROOT / "docs" / "gpu.md"
#: Two steps; the second one looks at its loss.
SCRIPT = """
import microgradnd as mg

w = mg.ones(3, requires_grad=True)
sgd = mg.optim.SGD([w], lr=0.1)
for step in range(2):
    x = mg.tensor([1.0, 2.0, 3.0])
    sgd.zero_grad()
    loss = (w * x).sum()
    loss.backward()
    if step == 1:
        print(loss.item())
    sgd.step()
    print(w)
"""


def python(*arguments, backend="cupy", where=ROOT):
    """Run Python where `import cupy` gives the stand-in."""
    settings = {
        "PYTHONPATH": os.pathsep.join([str(PRETEND), str(ROOT)]), "MICROGRADND_BACKEND": backend,
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=where, env=os.environ | settings,
        capture_output=True, text=True, timeout=170, encoding="utf-8",
    )  # fmt: skip


def test_the_real_loader_takes_it_and_it_says_what_it_is():
    done = python("-c", "import microgradnd as mg\n"
                  "b = mg.backend.named('cupy')\n"
                  "print(b.name, b.module.__version__, mg.ones(2), b is mg.backend.get())\n"
                  "import cupy, standin\n"
                  "print(cupy is standin.cupy, cupy.ones is b.module.ones)")  # fmt: skip
    version = f"{standin.TABLE['version']}+standin"
    wanted = f"cupy {version} Tensor([1., 1.], backend='cupy') True\nTrue True\n"
    assert (done.returncode, done.stdout) == (0, wanted), done.stderr
    assert done.stderr.startswith("cupy: this is the tests' stand-in for CuPy, on the CPU;")
    assert len(done.stderr.splitlines()) == 1


def test_info_and_auto_say_it_too():
    done = python("-m", "microgradnd", "info", backend="auto")
    assert done.returncode == 0 and "chosen     cupy (MICROGRADND_BACKEND=auto)" in done.stdout
    assert "the tests' stand-in for CuPy" in done.stderr
    assert "auto took cupy" in done.stderr


def test_without_the_folder_it_is_not_there():
    assert str(PRETEND) not in sys.path
    assert not (set(sys.modules) & {"count_steps"})
    spec = importlib.util.find_spec("cupy")
    assert spec is None or "pretend" not in str(spec.origin)


def test_a_step_that_waits_is_counted_and_its_line_named(tmp_path):
    script = tmp_path / "looks.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = python(PRETEND / "count_steps.py", "steps.json", script, where=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "steps.json").read_text(encoding="utf-8"))
    assert found["steps"] == 2 and found["launches"] > 3
    assert found["inside"] == {"syncs": 1, "host_copies": 1, "uploads": 0}
    line = 1 + SCRIPT.splitlines().index("        print(loss.item())")
    assert found["lines"] == {f"looks.py:{line}": 1}
    # Between the two steps: the print, and the next batch. Before and after them nothing counts.
    assert found["between"] == {"syncs": 1, "host_copies": 1, "uploads": 1}
    assert found["waits between"] == 1
    plain = python(script, where=tmp_path)
    assert plain.stdout == done.stdout and "backend='cupy'" in plain.stdout


def test_an_example_with_hidden_traffic_fails(tmp_path):
    spec = importlib.util.spec_from_file_location("run_all", ROOT / "examples" / "run_all.py")
    run_all = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_all)
    quiet = {"steps": 50, "launches": 9, "waits between": 5, "lines": {},
             "inside": {"syncs": 0, "host_copies": 0, "uploads": 0},
             "between": {"syncs": 5, "host_copies": 5, "uploads": 50}}  # fmt: skip
    assert run_all.traffic("a.py", quiet) == ("a.py", 50, 9, 0, 0, 0, 5, 50)
    for kind in quiet["inside"]:
        loud = quiet | {"inside": quiet["inside"] | {kind: 1}, "lines": {"a.py:7": 1}}
        with pytest.raises(RuntimeError, match=rf"'{kind}': 1.*a\.py:7"):
            run_all.traffic("a.py", loud)
    loud = quiet | {"waits between": 6}
    with pytest.raises(RuntimeError, match="6 of the 50 training steps"):
        run_all.traffic("a.py", loud)
    (name,) = run_all.READS
    assert (ROOT / "examples" / name).exists() and run_all.traffic(name, loud)


def test_the_page_shows_what_the_stand_in_does():
    blocks = PAGE.read_text(encoding="utf-8").count("\n>>> ")
    done = python("-c", "import doctest\n"
                  f"print(doctest.testfile({str(PAGE)!r}, module_relative=False, encoding='utf-8',"
                  " optionflags=doctest.ELLIPSIS))")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"TestResults(failed=0, attempted={blocks})\n"
    assert blocks > 30


def test_the_page_links_to_what_is_there():
    links = re.findall(r"\]\((?!https?://)([^)#]+)", PAGE.read_text(encoding="utf-8"))
    assert links and all((PAGE.parent / link).exists() for link in links)
