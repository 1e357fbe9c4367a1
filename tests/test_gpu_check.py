"""The check for GPU machines, on the stand-in: it passes there, and it sees what is planted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import standin
from rough import rough
from samples import registered

import microgradnd as mg
from benchmarks import agreement, gpu_check
from benchmarks.__main__ import main as benchmarks_main
from benchmarks.gpu_check import FAILED, PASSED, REFUSED, SKIPPED, Outcome, Task
from microgradnd.backend.cupy_backend import CupyBackend

BACKEND = CupyBackend(standin.cupy, standin.special, name="cupy")


@pytest.fixture(autouse=True)
def device():
    with registered(BACKEND):
        yield BACKEND
        BACKEND.synchronize()


@pytest.fixture
def task(tmp_path):
    return Task("a step", tmp_path, 60.0, quick=True)


def few(monkeypatch, *names):
    monkeypatch.setattr(agreement, "MODELS", {n: agreement.MODELS[n] for n in names})


# ------------------------------------------------------------------------------ agreement


def compared(steps=25):
    found = {}
    wrong = agreement.agreement(
        steps, "cupy", lambda name, dtype, result: found.update({(name, dtype): result})
    )
    return found, wrong


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rough_stand_in_is_rough_and_not_wrong(dtype):
    xp, x = standin.cupy, np.random.default_rng(0).uniform(0.1, 0.9, (50, 50)).astype(dtype)
    functions = {
        "exp": lambda m, a: m.exp(a), "log": lambda m, a: m.log(a), "tanh": lambda m, a: m.tanh(a),
        "power": lambda m, a: a**1.5, "sum": lambda m, a: m.sum(a, axis=0),
        "mean": lambda m, a: a.mean(), "matmul": lambda m, a: a @ a,
    }  # fmt: skip
    for name, function in functions.items():
        want, once = function(np, x), function(xp, xp.asarray(x)).get()
        with rough():
            got, again = (function(xp, xp.asarray(x)).get() for _ in range(2))
            assert (xp.asarray(x) * 3).get().tolist() == (x * 3).tolist()  # correctly rounded
        assert (got != once).any(), name
        assert got.dtype == once.dtype
        np.testing.assert_array_equal(got, again)
        np.testing.assert_allclose(got, want, 8 * np.finfo(dtype).eps, err_msg=name)


def test_a_device_that_rounds_in_its_own_way_agrees(monkeypatch):
    few(monkeypatch, "sigmoid", "embedding")
    with rough():
        found, wrong = compared()
    assert wrong == []
    assert len(found) == 4
    for (_, dtype), result in found.items():
        eps = np.finfo(dtype).eps
        assert eps / 8 < result["largest"] < 16 * eps
        assert result["learned"]
        assert result["first above"] == {"0.0001": None, "0.01": None}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "seen"), [(1e-3, ["float32", "float64"]), (1e-9, ["float64"])])
def test_a_planted_error_is_seen_in_the_model_that_has_it(monkeypatch, size, seen):
    few(monkeypatch, "sigmoid", "scatter")
    plain = BACKEND.xp.sigmoid
    monkeypatch.setattr(BACKEND.xp, "sigmoid", lambda x: plain(x) * (1.0 + size))
    found, wrong = compared()
    assert [text.split(":")[0] for text in wrong] == [f"sigmoid, {dtype}" for dtype in seen]
    assert found["scatter", "float32"]["passed"]


def test_no_number_counts_as_infinitely_far():
    apart = agreement.differences([1.0, 2.0, np.nan], [1.0, 2.5, 1.0])
    assert apart.tolist() == [0.0, pytest.approx(0.2), np.inf]
    assert agreement.first_above(apart, 1e-2) == 2
    assert agreement.first_above(apart[:1], 1e-2) is None


def test_a_step_that_reads_from_the_device_is_an_error(monkeypatch):
    few(monkeypatch, "relu")
    plain = mg.cross_entropy

    def curious(*args):
        loss = plain(*args)
        assert loss.item() > 0
        return loss

    monkeypatch.setattr(mg, "cross_entropy", curious)
    with pytest.raises(mg.backend.TransferError):
        compared(2)


def test_the_step_writes_its_curves_and_its_picture(monkeypatch, task):
    few(monkeypatch, "relu")
    outcome = gpu_check.agreement(task)
    assert (outcome.status, outcome.line) == (
        PASSED, "2 of 2 trainings of 10 steps agree with the CPU's"
    )  # fmt: skip
    curves = json.loads((task.scratch / "agreement.json").read_text())["results"]["relu"]
    assert len(curves["float32"]["cpu"]) == len(curves["float64"]["device"]) == 10
    partial = Outcome(**json.loads((task.scratch / "a step.outcome").read_text()))
    assert partial.status == FAILED  # until the step itself has ended
    assert len(partial.findings) == 2


# ------------------------------------------------------------------------------ determinism


def atomic_calls(function):
    """Whether a function adds at an index on the device."""
    before = set(standin._used)
    standin._used -= {call for call in before if call[0] == "add.at"}
    try:
        function()
        return any(call[0] == "add.at" for call in standin._used)
    finally:
        standin._used |= before


@pytest.mark.parametrize("name", agreement.MODELS)
def test_what_adds_by_atomic_operations_is_known(name):
    uses = atomic_calls(lambda: agreement.train(name, "float32", 1, "cupy"))
    assert uses == (name in agreement.ATOMIC)


def shaken(monkeypatch, owner, name):
    """Make a function's result change in its last digits from call to call."""
    plain, rng = getattr(owner, name), random.Random(0)

    def other(*args, **options):
        return plain(*args, **options) * (1.0 + rng.choice((0.0, 1e-6, 2e-6, 3e-6)))

    monkeypatch.setattr(owner, name, other)


def judged(names, steps=3):
    prints, where = {}, {}
    for name in names:
        one, two = (agreement.train(name, "float32", steps, "cupy") for _ in range(2))
        prints[name], where[name] = one.fingerprint(), agreement.unlike(one, two)
    unsteady = agreement.unsteady_operations("cupy", 50)
    return gpu_check.judge(steps, prints, where, [prints, prints], unsteady)


def test_the_stand_in_trains_twice_alike():
    outcome = judged(["relu", "embedding"])
    assert outcome.status == PASSED
    assert outcome.findings == []
    assert outcome.line.startswith("2 of 2 models train to equal bits in 3 steps, 12 of 12")


def test_atomic_sums_that_differ_are_expected_and_said(monkeypatch):
    shaken(monkeypatch, BACKEND.xp, "scatter_add")
    outcome = judged(["relu", "embedding", "scatter"])
    assert outcome.status == PASSED
    assert outcome.line.startswith("1 of 3 models train to equal bits")
    assert len(outcome.findings) == 5
    assert all(f.startswith("expected (sums by atomic operations): ") for f in outcome.findings)
    atomic = {name for name, (flag, _) in agreement.OPERATIONS.items() if flag}
    assert set(outcome.numbers["operations that differ"]) == atomic


def test_a_product_that_differs_is_not_expected(monkeypatch):
    shaken(monkeypatch, BACKEND.xp, "matmul")
    outcome = judged(["relu"])
    assert outcome.status == FAILED
    assert outcome.numbers["operations that differ"] == ["matmul"]
    assert outcome.findings[0].startswith(
        "NOT expected to differ: the model 'relu', twice in one process: "
    )
    assert "0.weight" in outcome.findings[0]


def test_a_fresh_process_that_differs_is_said():
    outcome = gpu_check.judge(3, {"relu": "a"}, {"relu": ""}, [{"relu": "a"}, {"relu": "b"}], [])
    assert outcome.status == FAILED
    assert "a fresh process gives other bits" in outcome.findings[0]


# ------------------------------------------------------------------------------ steps by themselves


def test_the_environment_is_described(task):
    outcome = gpu_check.environment(task)
    assert outcome.status == PASSED
    assert outcome.numbers["error of a float32 product"] < 1e-5
    assert outcome.numbers["packages"]["numpy"] == np.__version__
    json.dumps(outcome.numbers)


def test_products_in_reduced_precision_are_seen(monkeypatch, task):
    plain = BACKEND.xp.matmul

    def tf32(x):
        """Eleven bits of each factor, as TF32 keeps them."""
        m, e = np.frexp(x.get())
        return standin.cupy.asarray(np.ldexp(np.rint(m * 2048) / 2048, e).astype("float32"))

    monkeypatch.setattr(BACKEND.xp, "matmul", lambda x, y: plain(tf32(x), tf32(y)))
    outcome = gpu_check.environment(task)
    assert outcome.status == FAILED
    assert "as with TF32" in outcome.findings[-1]


def test_without_a_usable_cupy_it_refuses(monkeypatch, task):
    monkeypatch.setattr(mg.backend, "available", lambda: {"numpy": "ok", "cupy": "no driver"})
    outcome = gpu_check.environment(task)
    assert (outcome.status, outcome.line) == (REFUSED, "no driver")


def test_the_stand_in_is_refused_unless_it_is_asked_for(monkeypatch, task):
    monkeypatch.setattr(standin.cupy, "__version__", "14+standin")
    outcome = gpu_check.environment(task)
    assert (outcome.status, outcome.line) == (REFUSED, "the tests' stand-in for CuPy is no GPU")
    task.pretend = True
    outcome = gpu_check.environment(task)
    assert outcome.status == PASSED
    assert "NO GPU was used" in outcome.line
    assert outcome.numbers["device"]["name"] == "STAND-IN, NO GPU"
    assert task.command("fresh", 9.0)[-1] == "--pretend"


def test_the_picture_of_the_losses_says_that_there_was_no_gpu(monkeypatch, task):
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib draws the picture")
    few(monkeypatch, "relu")
    said = []
    monkeypatch.setattr(figure.Figure, "suptitle", lambda self, text: said.append(text))
    monkeypatch.setattr(standin.cupy, "__version__", "14+standin")
    gpu_check.agreement(task)
    assert said[0].startswith("Losses on STAND-IN, NO GPU and on the CPU")


@pytest.mark.parametrize(
    ("change", "status", "line"),
    [
        ({}, PASSED, "all 2 lines are as committed"),
        ({"a + 1": "2.0"}, FAILED, "1 of 2 lines are not as committed"),
        ({"c": "new"}, FAILED, "1 of 3 lines are not as committed"),
    ],
)
def test_lines_of_the_contract_that_differ_are_listed(change, status, line, monkeypatch, task):
    def file(outcomes, date):
        source = f"CuPy 14 on {date}"
        rows = [{"snippet": k, "outcome": v, "source": source} for k, v in outcomes.items()]
        return json.dumps({"versions": {"cupy": "14"}, "date": date, "lines": rows})

    folder = task.scratch / "tests" / "data"
    folder.mkdir(parents=True)
    known = {"a + 1": "1.0", "a.get(": "SyntaxError"}
    (folder / "cupy_contract.json").write_text(file(known, "then"))
    (folder / "make_cupy_contract.py").write_text(
        f"import sys\nopen(sys.argv[2], 'w').write({file(known | change, 'now')!r})\n"
    )
    monkeypatch.setattr(gpu_check, "ROOT", task.scratch)
    monkeypatch.setattr(gpu_check, "pretended", lambda: False)
    outcome = gpu_check.contract(task)
    assert (outcome.status, outcome.line) == (status, line)
    assert [text.split("`")[1] for text in outcome.findings] == list(change)


def test_a_contract_that_cannot_be_made_fails(monkeypatch, task):
    monkeypatch.setattr(gpu_check, "ROOT", task.scratch)
    monkeypatch.setattr(gpu_check, "pretended", lambda: False)
    assert gpu_check.contract(task).status == SKIPPED
    folder = task.scratch / "tests" / "data"
    folder.mkdir(parents=True)
    (folder / "cupy_contract.json").write_text("{}")
    (folder / "make_cupy_contract.py").write_text("raise SystemExit(2)")
    outcome = gpu_check.contract(task)
    assert (outcome.status, outcome.line) == (FAILED, "make_cupy_contract.py ended with status 2")


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        ("", "1 of 2 lines were answered, 0 differ"),
        ("raise SystemExit(3)", "1 of 2 lines were answered, 0 differ; make_cupy_contract.py ended "
         "with status 3"),
        ("import time; time.sleep(60)", "1 of 2 lines were answered, 0 differ; "
         "make_cupy_contract.py came to no end in its time"),
    ],
)  # fmt: skip
def test_a_contract_of_which_little_was_answered_fails(ends, line, monkeypatch, tmp_path):
    def file(source):
        rows = [{"snippet": "a", "outcome": "1", "source": source},
                {"snippet": "b", "outcome": "2", "source": "from documentation and source"}]
        return json.dumps({"lines": rows})  # fmt: skip

    folder = tmp_path / "tests" / "data"
    folder.mkdir(parents=True)
    (folder / "cupy_contract.json").write_text(file("from documentation and source"))
    (folder / "make_cupy_contract.py").write_text(
        f"import sys\nopen(sys.argv[2], 'w').write({file('CuPy 14 on Some GPU')!r})\n{ends}\n"
    )
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "pretended", lambda: False)
    outcome = gpu_check.contract(Task("contract", tmp_path, 6.0))
    assert (outcome.status, outcome.line) == (FAILED, line)


SANITIZERS = {
    "good": (
        "echo '========= ERROR SUMMARY: 0 errors'",
        PASSED, "memcheck: ERROR SUMMARY: 0 errors",
    ),
    "bad": (
        "echo '========= Invalid __global__ read of size 4 bytes'\n"
        "echo '========= ERROR SUMMARY: 1 error'\nexit 99",
        FAILED, "memcheck: ERROR SUMMARY: 1 error",
    ),
    "broken": ("exit 3", FAILED, "memcheck: no summary, status 3"),
    "slow": ("exec sleep 30", SKIPPED, "memcheck: no end within 0 s"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SANITIZERS)
def test_the_sanitizer_s_word_is_taken(kind, monkeypatch, tmp_path):
    script, status, line = SANITIZERS[kind]
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    outcome = gpu_check.sanitizer(Task("sanitizer", tmp_path, 5.0 if kind == "slow" else 60.0))
    assert (outcome.status, outcome.line.split(";")[0]) == (status, line)
    told = "memcheck: Invalid __global__ read of size 4 bytes" in outcome.findings
    assert told == (kind == "bad")


def test_missing_tools_skip_their_steps(monkeypatch, task):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_PATH", str(task.scratch))
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    for step in (gpu_check.sanitizer, gpu_check.suite, gpu_check.exchange):
        outcome = step(task)
        assert outcome.status == SKIPPED
        assert outcome.line


def test_a_copy_where_none_should_be_is_named():
    tensor = SimpleNamespace(data=SimpleNamespace(data=SimpleNamespace(ptr=4096)))
    assert gpu_check.unshared(tensor, 4096, "from PyTorch") == []
    assert gpu_check.unshared(tensor, 16, "from PyTorch") == [
        "from PyTorch: copied, 0x1000 is not 0x10"
    ]


GOOD = {"kind": "step", "name": "tiny", "cells": {"cupy": {"median": 1.0}}, "errors": {}}
BAD = GOOD | {"cells": {"cupy": None}, "errors": {"cupy": "planted"}}


@pytest.mark.parametrize(
    ("rows", "ended", "status"),
    [([GOOD, GOOD | {"cells": {}}], 0, PASSED), ([GOOD, BAD], 1, FAILED), ([BAD], 0, FAILED)],
)
@pytest.mark.parametrize("pretend", [False, True])
def test_the_benchmark_is_asked_in_its_own_words(rows, ended, status, pretend, monkeypatch, task):
    asked = []
    task.pretend = pretend

    def run(command, cwd):
        asked.extend(command[3:])
        path = command[command.index("--json") + 1]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"rows": rows, "empty": {"torch": "not installed"}}, file)
        return SimpleNamespace(returncode=ended)

    monkeypatch.setattr(gpu_check.subprocess, "run", run)
    outcome = gpu_check.benchmark(task)
    assert outcome.status == status
    assert outcome.line.startswith(f"{rows.count(GOOD)} of {len(rows)} rows were timed")
    assert any("planted" in text for text in outcome.findings) == (BAD in rows)
    assert float(asked[asked.index("--minutes") + 1]) * 60 < task.left()
    assert ("--pretend" in asked) == pretend
    # no such file, and not SystemExit, for an option that it does not know
    assert benchmarks_main([*asked, "--table", str(task.scratch / "none.json")]) == 2


# ------------------------------------------------------------------------------ the suite's runs


def test_what_is_left_out_of_the_suite_exists():
    for path, names in gpu_check.AS_THEY_STAND.items():
        text = (gpu_check.ROOT / path).read_text(encoding="utf-8")
        for name in names:
            assert f"\ndef {name}(" in text, name
    assert all((gpu_check.ROOT / path).exists() for path in gpu_check.ON_DEVICE)


def test_shards_are_all_tests_once(monkeypatch):
    seen, left_out = [], []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.append(len(items)))
    for number in range(3):
        items = list(range(10))
        monkeypatch.setenv("MICROGRADND_SHARD", f"{number}/3")
        gpu_check.pytest_collection_modifyitems(SimpleNamespace(hook=hook), items)
        seen += items
    assert sorted(seen) == list(range(10))
    assert left_out == [6, 7, 7]


def test_every_file_of_the_suite_is_run_by_some_process(tmp_path):
    jobs = gpu_check.suite_jobs(tmp_path, bare=False, quick=False)
    files = {path for command, _ in jobs.values() for path in command if path.startswith("tests/")}
    assert {f for f in files if "::" not in f} == {*gpu_check.ON_DEVICE, *gpu_check.AS_THEY_STAND}
    assert len({env["XML"] for _, env in jobs.values()}) == len(jobs) == 16
    bare = gpu_check.suite_jobs(tmp_path, bare=True, quick=False)
    assert len(bare) == 6


@pytest.mark.slow
def test_the_tests_of_the_device_run_without_hypothesis(tmp_path):
    (tmp_path / "hypothesis.py").write_text("raise ImportError('planted')\n")
    for command, env in gpu_check.suite_jobs(tmp_path, bare=True, quick=True).values():
        path = os.pathsep.join([str(tmp_path), str(gpu_check.PRETEND), str(gpu_check.ROOT)])
        done = subprocess.run(
            [*command, "-p", "no:hypothesispytest"], cwd=gpu_check.ROOT, capture_output=True,
            text=True, env=env | {"PYTHONPATH": path}, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_failing_test_and_a_dying_process_are_reported(monkeypatch, task):
    (task.scratch / "test_one.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'planted'\n"
        "def test_none(): pytest.skip('no reason')\n"
        "def test_lacks(): raise ImportError('mg.save needs safetensors, of the extra io')\n"
    )
    (task.scratch / "test_two.py").write_text("import os\ndef test_dies(): os.abort()\n")

    def jobs(scratch, bare, quick):
        return {
            name: (
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
                 f"--junitxml={scratch / name}.xml", str(scratch / f"test_{name}.py")],
                {"XML": str(scratch / f"{name}.xml")},
            )
            for name in ("one", "two")
        }  # fmt: skip

    monkeypatch.setattr(gpu_check, "suite_jobs", jobs)
    outcome = gpu_check.suite(task)
    assert outcome.status == FAILED
    assert outcome.line == "1 passed, 1 failed, 2 skipped on the device"
    assert any("test_bad: AssertionError: planted" in text for text in outcome.findings)
    assert any(text.startswith("two: pytest ended with -6") for text in outcome.findings)
    for why in ("no reason", "safetensors is not installed"):
        assert f"skipped, 1 tests: {why}" in outcome.findings


@pytest.mark.slow
def test_what_was_done_before_the_time_was_over_counts(monkeypatch, task):
    (task.scratch / "test_slow.py").write_text(
        "import time\ndef test_first(): pass\ndef test_second(): time.sleep(60)\n"
    )
    xml = task.scratch / "slow.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
               f"--junitxml={xml}", str(task.scratch / "test_slow.py")]  # fmt: skip
    jobs = {"slow": (command, {"XML": str(xml)}), "later": (command, {"XML": str(xml) + "2"})}
    monkeypatch.setattr(gpu_check, "suite_jobs", lambda *args: dict(jobs))
    monkeypatch.setattr(gpu_check, "usable_cores", lambda: 1)
    task.seconds = 23.0  # ten are kept to clean up; a busy machine takes long to begin
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background
    try:
        outcome = gpu_check.suite(task)
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.status == FAILED
    assert outcome.numbers["passed"] == 1
    assert outcome.findings[-2:] == ["slow: not done in time", "later: not done in time"]


# ------------------------------------------------------------------------------ processes

PYTHON = [sys.executable, "-c"]
WRITES = (
    "import json, pathlib, sys, time\n"
    "pathlib.Path('{scratch}/a.outcome').write_text(json.dumps("
    "dict(status='{status}', line='so far')))\n"
)


def ended(code, scratch, limit=20.0, status=PASSED):
    code = code.replace("WRITE", WRITES.format(scratch=scratch, status=status))
    env = os.environ | {"PYTHONFAULTHANDLER": "1"}
    return gpu_check.run_step("a", [*PYTHON, code], scratch, limit, env)


def test_a_step_that_writes_its_outcome(tmp_path):
    assert ended("WRITE", tmp_path).status == PASSED


def test_a_step_that_crashes_fails_with_its_last_words(tmp_path):
    outcome = ended("raise ValueError('planted')", tmp_path)
    assert (outcome.status, outcome.line) == (FAILED, "it ended with status 1: no result")
    assert outcome.findings == ["its last words: ValueError: planted"]
    outcome = ended("WRITE; import os; os.abort()".replace("; ", "\n"), tmp_path)
    assert (outcome.status, outcome.line) == (FAILED, "it ended with status -6: so far")


def test_a_step_that_says_nothing_fails(tmp_path):
    outcome = ended("pass", tmp_path)
    assert (outcome.status, outcome.line) == (FAILED, "no result")


@pytest.mark.slow
def test_a_step_that_hangs_is_stopped_with_its_children(tmp_path):
    code = (
        "WRITE\nimport subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    began = time.monotonic()
    outcome = ended(code, tmp_path, 1.5)
    assert time.monotonic() - began < 20
    assert (outcome.status, outcome.line) == (FAILED, "no end within 2 s: so far")
    log = (tmp_path / "a.log").read_text()
    assert "Current thread" in log  # where it was
    child = int(log.split()[0])
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if is_zombie(child):
            return
        time.sleep(0.05)
    raise AssertionError("the child still runs")


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
def test_the_tests_of_the_device_hold_on_one_that_rounds_in_its_own_way():
    tests = gpu_check.ROOT / "tests"
    path = os.pathsep.join(map(str, (gpu_check.ROOT, gpu_check.PRETEND, tests)))
    env = os.environ | {"PYTHONPATH": path, "MICROGRADND_TEST_DEVICE": "cupy"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "rough",
         "-k", "every_kind_of_layer or tanh or softmax", *gpu_check.ON_DEVICE],
        cwd=gpu_check.ROOT, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------------------ the report


def test_logs_lose_their_middle_and_texts_their_paths(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("a" * 3000 + "b" * 3000)
    short = gpu_check.tail(log, 600)
    assert len(short) < 700
    assert (short[0], short[-1]) == ("a", "b")
    assert "left out" in short
    text = gpu_check.clean(f"{tmp_path}/kernels {gpu_check.ROOT}/tests", tmp_path)
    assert text == "SCRATCH/kernels ./tests"


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    if mg.backend.named("cupy") is not BACKEND or has_gpu():
        pytest.skip("this machine has a GPU that CuPy can use")
    out = tmp_path / "out"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(out)], cwd=gpu_check.ROOT,
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "There is no GPU to check: CuPy" in done.stderr
    assert not out.exists()


def test_the_stand_in_as_cupy_is_no_gpu_to_check(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(out)], cwd=gpu_check.ROOT,
        env=os.environ | {"PYTHONPATH": str(gpu_check.PRETEND)}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "There is no GPU to check: the tests' stand-in for CuPy is no GPU"
    )
    assert not out.exists()


def has_gpu():
    code = "import microgradnd as mg; print(mg.backend.available()['cupy'])"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*PYTHON, code], cwd=gpu_check.ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip() == "ok"


@pytest.mark.slow
def test_the_whole_command_on_the_stand_in(tmp_path):
    out = tmp_path / "out"
    steps = ["suite", "determinism"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(out), "--pretend", "--quick",
         "--seconds", "1000", "--only", *steps],
        cwd=gpu_check.ROOT, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"summary.md", "gpu_check.json", "log.txt"}
    text = (out / "summary.md").read_text()
    assert "NO GPU was used" in text
    for path in out.iterdir():
        assert str(gpu_check.ROOT) not in path.read_text(encoding="utf-8")
    result = json.loads((out / "gpu_check.json").read_text())
    states = {name: outcome["status"] for name, outcome in result.items()}
    assert states == dict.fromkeys(("environment", *steps), PASSED)
    assert result["suite"]["numbers"]["passed"] > 40
