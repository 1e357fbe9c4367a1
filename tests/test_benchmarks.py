"""The benchmarks work: every row runs, both columns are there, and an empty one says why."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import microgradnd as mg
from benchmarks import __main__ as cpu_gpu
from benchmarks import chain, import_time, steps, timing, torch_step

TINY = ((3, 4, 2), 5)


@pytest.fixture
def no_cupy(monkeypatch):
    states = {"numpy": "ok", "cupy": "CuPy is not installed."}
    monkeypatch.setattr(mg.backend, "available", lambda: states)


@pytest.fixture
def tiny(monkeypatch, no_cupy):
    monkeypatch.setattr(steps, "SIZES", {"3-4-2, batch 5": TINY})
    monkeypatch.setattr(cpu_gpu, "SHAPES", {"20": (2, 10)})

    def measure(function, *_):
        function()
        return timing.Timing(2.0, 1.0, 3.0)

    monkeypatch.setattr(cpu_gpu, "measure", measure)


def test_the_empty_gpu_column_says_why(tiny, capsys, tmp_path):
    file = tmp_path / "results.json"
    assert cpu_gpu.main(["--quick", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.count("GPU (cupy)") == 4
    assert out.count("The column GPU (cupy) is empty: CuPy is not installed.") == 2
    assert "maxout, 20" in out
    results = json.loads(file.read_text())
    assert results["results"]["training step"]["3-4-2, batch 5"]["numpy"]["median"] == 2.0
    assert results["results"]["activations"]["relu, 20"]["cupy"] is None
    assert results["machine"]["numpy"] == np.__version__


def test_a_backend_that_was_asked_for_and_is_not_there_fails(tiny, capsys):
    assert cpu_gpu.main(["--quick", "--backend", "cupy"]) == 1
    assert "CPU (numpy) is empty: not asked for (--backend cupy)" in capsys.readouterr().out


def test_both_columns_and_their_ratio(tiny, monkeypatch, capsys):
    monkeypatch.setattr(mg.backend, "named", lambda name: mg.backend.get())
    rows = iter([("a row", lambda backend: lambda: None)])
    cpu_gpu.compare("rows", rows, {"numpy": "", "cupy": ""}, 0.0)
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["a", "row", *["2", "s", "±50%"] * 2, "1.00"]


def test_every_activation_has_rows():
    names = {name.partition(",")[0] for name, _ in cpu_gpu.activations({"20": (2, 10)})}
    assert {"maxout", "relu", "prelu", "rrelu", "threshold", "gelu", "softmax", "glu"} <= names
    assert len(names) >= 31


def test_all_steps_compute_the_same_and_move_the_parameters(monkeypatch):
    monkeypatch.setattr(steps, "RATE", 0.5)
    ours, floor = steps.microgradnd_step(*TINY), steps.numpy_step(*TINY)
    for _ in range(3):
        loss = ours()
        assert loss.item() == pytest.approx(float(floor()), rel=1e-4)
    assert not math.isclose(loss.item(), steps.microgradnd_step(*TINY)().item(), rel_tol=1e-3)


def test_modules_compute_what_the_functions_do_and_the_update_moves_them(monkeypatch):
    monkeypatch.setattr(steps, "RATE", 0.5)
    functions, modules = steps.microgradnd_step(*TINY), steps.microgradnd_modules(*TINY, "SGD")
    functions()
    for _ in range(3):  # the modules have done one step already
        assert modules().item() == pytest.approx(functions().item(), rel=1e-5)
    update = steps.microgradnd_modules(*TINY, "Adam", update_only=True)
    assert update().item() == pytest.approx(steps.microgradnd_step(*TINY)().item(), rel=1e-5)


def test_measure_counts_calls_and_waits():
    calls, waits = [], []
    timed = timing.measure(lambda: calls.append(1), 0.0, lambda: waits.append(1))
    assert 0 < timed.low <= timed.median <= timed.high
    assert len(calls) >= 5 * len(waits) > 25


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2 s"), (0.1234, "123 ms"), (0.5e-3, "500 us"), (1.234e-6, "1.23 us")],
)
def test_durations_are_readable(seconds, text):
    assert timing.readable(seconds) == text


def test_the_machine_is_described_without_paths():
    text = json.dumps(timing.machine())
    assert "/" not in text.replace("w/", "")


def test_chain_and_import_time(capsys, tmp_path, monkeypatch):
    chain.main(["--length", "10", "--json", str(tmp_path / "chain.json")])
    assert "10 operations" in capsys.readouterr().out
    monkeypatch.setattr(import_time, "MODULES", ("math", "json"))
    ratio = import_time.main(["--rounds", "1", "--json", str(tmp_path / "import.json")])
    assert ratio > 0
    assert "import json" in capsys.readouterr().out


def test_peers_are_timed_in_their_own_processes(monkeypatch, capsys, tmp_path):
    answers = {"microgradnd": 1e-4, "NumPy by hand": 5e-5}

    def ask(python, task, peer, size, seconds):
        return {"loss": 0.5, "seconds": answers.get(peer, 2e-4)}

    monkeypatch.setattr(torch_step, "ask", ask)
    torch_step.main(["--rounds", "2", "--json", str(tmp_path / "peers.json")])
    row = next(r for r in capsys.readouterr().out.splitlines() if r.startswith("microgradnd"))
    assert row.endswith("0.50")
    monkeypatch.setattr(
        torch_step, "ask", lambda *a: {"loss": float(a[2] == "microgradnd"), "seconds": 1.0}
    )
    with pytest.raises(SystemExit, match="do not compute the same loss"):
        torch_step.main(["--rounds", "1"])


def test_a_missing_torch_is_said_plainly(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: No module named 'torch'")
    monkeypatch.setattr(torch_step.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SystemExit, match="--torch-python PATH"):
        torch_step.ask(sys.executable, "functions", "torch", next(iter(steps.SIZES)), 0.1)


@pytest.mark.parametrize("task", torch_step.TASKS)
def test_the_worker_prints_its_loss_and_time(task, monkeypatch, capsys):
    monkeypatch.setattr(steps, "SIZES", {"tiny": TINY})
    torch_step.worker(task, "microgradnd", "tiny", 0.0)
    answer = json.loads(capsys.readouterr().out)
    assert answer["seconds"] > 0
    assert answer["loss"] > 0
