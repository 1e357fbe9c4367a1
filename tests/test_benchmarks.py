"""The benchmarks work: every row runs, also as on a GPU, and an empty column says why."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import standin
from samples import registered

import microgradnd as mg
from benchmarks import __main__ as cpu_gpu
from benchmarks import (
    breakeven,
    chain,
    cold,
    devices,
    import_time,
    report,
    rows,
    steps,
    timing,
    torch_rows,
    torch_step,
)
from benchmarks.timing import Timing
from microgradnd.backend.cupy_backend import CupyBackend

ROOT = Path(__file__).resolve().parents[1]
PRETEND = ROOT / "tests" / "pretend"
TINY = ((3, 4, 2), 5)
TIMING = Timing(2.0, 1.0, 3.0, 2.5, 0.5, 9.0, 5, 1)
NO_CUPY = "CuPy is not installed."


@pytest.fixture
def no_cupy(monkeypatch):
    states = {"numpy": "ok", "cupy": NO_CUPY}
    monkeypatch.setattr(mg.backend, "available", lambda: states)


@pytest.fixture
def device(monkeypatch):
    """The stand-in as `cupy`, by its own name, and no nvidia-smi."""
    monkeypatch.setenv("PATH", "")
    version = standin.cupy.__version__.removesuffix("+standin") + "+standin"
    monkeypatch.setattr(standin.cupy, "__version__", version)
    with registered(CupyBackend(standin.cupy, standin.special)) as backend:
        yield backend
        backend.synchronize()


@pytest.fixture
def tiny(monkeypatch):
    """Small sizes, and two calls for a time."""
    monkeypatch.setattr(steps, "SIZES", {"3-4-2, batch 5": TINY})
    monkeypatch.setattr(steps, "MAXOUT", {"3-4x2-2, batch 5": (*TINY, 2)})
    monkeypatch.setattr(rows, "SHAPES", {"20": (2, 10)})
    monkeypatch.setattr(rows, "PRODUCTS", (4, 8))
    monkeypatch.setattr(rows, "SIZES", {"4 kB": 4000})
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    monkeypatch.setattr(cpu_gpu, "SECONDS", dict.fromkeys(cpu_gpu.SECONDS, (0.0, 0.0)))
    curves = {n: replace(c, quick=(1, 2, 4)) for n, c in breakeven.CURVES.items()}
    monkeypatch.setattr(breakeven, "CURVES", curves)
    monkeypatch.setattr(rows, "CURVES", curves)

    def ask(name, backend, cache):
        return dict.fromkeys(cold.STAGES, 1.0)

    monkeypatch.setattr(cold, "ask", ask)


def run(tmp_path, *options):
    """Give the exit code and what was written."""
    file = tmp_path / "results.json"
    code = cpu_gpu.main(["--quick", "--json", str(file), *options])
    return code, json.loads(file.read_text())


# ------------------------------------------------------------------------------ the comparison


def test_without_a_gpu_its_column_is_empty_and_says_why(tiny, no_cupy, capsys, tmp_path):
    code, result = run(tmp_path)
    assert code == 0
    out = capsys.readouterr().out
    for kind in rows.KINDS:
        header = next(line for line in out.splitlines() if line.startswith(f"{kind}  "))
        assert "  GPU" in header
    assert f"GPU: {NO_CUPY}" in out
    assert "batch (784-256-10): where the GPU begins to win is not measured yet" in out
    assert result["device"] is None
    assert result["empty"]["cupy"] == NO_CUPY
    assert result["machine"]["numpy"] == np.__version__
    by_kind = {kind: [r for r in result["rows"] if r["kind"] == kind] for kind in rows.KINDS}
    for kind, found in by_kind.items():
        assert found, kind
        for row in found:
            assert not row["errors"]
            for column, cell in row["cells"].items():
                if column == "numpy":
                    assert cell
                else:
                    assert (cell, row["why"][column]) == (None, NO_CUPY)
    (step,) = by_kind[rows.STEP]
    assert step["cells"]["numpy"].keys() == asdict(TIMING).keys()
    assert step["loss"] == pytest.approx(float(steps.numpy_step(*TINY)()), rel=1e-4)


def test_on_a_device_every_row_is_filled_and_nothing_moves_unasked(tiny, device, capsys, tmp_path):
    code, result = run(tmp_path, "--pretend")
    assert code == 0
    out = capsys.readouterr().out
    assert report.EMPTY not in out
    assert re.search(f"GPU: name +{devices.STAND_IN}\n", out)
    for kind in rows.KINDS:
        assert f"\n{kind} ({devices.STAND_IN}) " in out
    assert "Error" not in out
    for row in result["rows"]:
        assert row["errors"] == row["why"] == {}
        for column, cell in row["cells"].items():
            assert cell, (row["name"], column)
    kinds = {row["kind"] for row in result["rows"]}
    assert kinds == set(rows.KINDS)
    assert result["device"]["cupy"] == standin.cupy.__version__
    assert result["device"]["at the start"] == {"nvidia-smi": "not found"}
    for curve in result["curves"].values():
        assert curve["fits"].keys() == {"numpy", "cupy"}
        assert "the GPU " in curve["text"]
    (step,) = (row for row in result["rows"] if row["kind"] == rows.STEP)
    assert step["cells"].keys() == {rows.CPU, rows.GPU, rows.UPLOADED, rows.PAGE_LOCKED}


def test_a_resident_batch_is_not_uploaded_and_another_one_is_at_each_step(device):
    def uploads(feed):
        step = steps.microgradnd_step(*TINY, device, feed=feed)
        step()
        with standin.counting() as counted:
            step()
        assert counted.syncs == counted.host_copies == 0
        return counted.uploads, counted.pinned

    assert uploads("resident") == (0, 0)
    assert uploads("uploaded") == (2, 0)
    assert uploads("page-locked") == (2, 2)


def test_a_reading_within_the_timed_calls_is_an_error_of_that_cell(tiny, device):
    loss = steps.microgradnd_step(*TINY, device)
    row = rows.Row(rows.STEP, "reads", {rows.GPU: rows.Job(lambda home: lambda: loss().item())})
    options = SimpleNamespace(quick=True, patience=0)
    done = cpu_gpu.time_row(row, options, {}, math.inf)
    assert done["cells"][rows.GPU] is None
    assert done["errors"][rows.GPU].startswith("TransferError: a copy from the device at ")


def test_a_device_that_computes_another_loss_is_not_timed(tiny, device, tmp_path, monkeypatch):
    right = steps.microgradnd_step

    def wrong(*args, **options):
        step = right(*args, **options)
        return (lambda: step() * 1.001) if options.get("feed") == "uploaded" else step

    monkeypatch.setattr(steps, "microgradnd_step", wrong)
    code, result = run(tmp_path, "--only", rows.STEP, "--pretend")
    assert code == 1
    (row,) = result["rows"]
    assert row["cells"][rows.UPLOADED] is None
    assert "Disagreement: its loss is" in row["errors"][rows.UPLOADED]
    assert row["cells"][rows.GPU]


@pytest.mark.parametrize("kind", [None, *rows.KINDS])
def test_a_backend_that_was_asked_for_and_is_not_there_fails(kind, tiny, no_cupy, capsys, tmp_path):
    code, _ = run(tmp_path, "--backend", "cupy", *(["--only", kind] if kind else []))
    assert code == 1
    assert "CPU: not asked for (--backend cupy)" in capsys.readouterr().out


def test_when_the_time_is_over_the_rest_says_so(tiny, no_cupy, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "empty.png"
    code, result = run(tmp_path, "--minutes", "1e-9", "--picture", str(picture))
    assert code == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"  # without a point
    assert {row["why"]["numpy"] for row in result["rows"] if "numpy" in row["cells"]} == {
        cpu_gpu.OVER
    }
    assert "rows were left out, for the time was over" in capsys.readouterr().out


def test_results_are_named_after_the_device(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_gpu, "RESULTS", tmp_path)
    options = SimpleNamespace(save=True, json=None, picture=None)
    assert cpu_gpu.files(options, {"device": None}) == (tmp_path / "cpu.json", tmp_path / "cpu.png")
    device = {"device": {"name": "NVIDIA H200 (80GB)"}}
    assert cpu_gpu.files(options, device)[0] == tmp_path / "gpu-nvidia-h200-80gb.json"
    device["device"]["cupy"] = "14+standin"
    assert cpu_gpu.files(options, device)[0] == tmp_path / "stand-in-no-gpu.json"
    options.save = False
    assert cpu_gpu.files(options, device) == (None, None)


def test_every_activation_has_rows(tiny):
    names = {row.about["operation"] for row in rows.rows(rows.ACTIVATION, False)}
    assert {"maxout", "relu", "prelu", "rrelu", "threshold", "gelu", "softmax", "glu"} <= names
    assert len(names) >= 31


def test_a_row_has_its_size_and_its_name_once():
    for quick in (False, True):
        found = [(r.kind, r.name) for kind in rows.KINDS if kind != rows.COLD
                 for r in rows.rows(kind, quick)]  # fmt: skip
        assert len(set(found)) == len(found) > 50
    assert len(list(rows.rows(rows.STEP, False))) == 5
    (net,) = rows.rows(rows.MAXOUT, False)
    assert net.about["work"] == 100 * (784 * 1200 + 1200 * 1200 + 1200 * 10)


# ------------------------------------------------------------------------------ the fit


def curve_of(fixed, per_value, noise=0.0, seed=0):
    """Times of a batch curve, by value."""
    rng = np.random.default_rng(seed)
    values = breakeven.CURVES["batch"].values
    return {v: (fixed + per_value * v) * (1 + noise * rng.normal()) for v in values}


def compared(cpu, gpu):
    return breakeven.evaluate(breakeven.CURVES["batch"], {"numpy": cpu, "cupy": gpu})


def test_the_fit_finds_a_line_and_the_crossing():
    found = compared(curve_of(1e-4, 1e-5), curve_of(6e-4, 1e-6))
    fit = breakeven.Fit(**found["fits"]["numpy"])
    curve = breakeven.CURVES["batch"]
    assert fit.fixed == pytest.approx(1e-4)
    assert fit.seconds(curve.work(500)) == pytest.approx(1e-4 + 500 * 1e-5)
    assert fit.error < fit.worst < 1e-9
    for bound in found["crossing"].values():
        assert bound == pytest.approx(5e-4 / 9e-6)
    assert found["between"] == [32, 64]
    assert found["text"] == (
        "the GPU wins from between 32 and 64 on; the fits cross at 55.6 (90%: 55.6 to 55.6)"
    )


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        times = [curve_of(1e-4, 1e-5, 0.1, seed), curve_of(6e-4, 1e-6, 0.1, 1000 + seed)]
        found = compared(*times)["crossing"]
        hits += found["low"] < 5e-4 / 9e-6 < found["high"]
        assert found["low"] < found["value"] < found["high"]
    assert 45 <= hits <= 60


def test_a_gpu_that_never_wins_or_always_does():
    cpu, slow, fast = curve_of(1e-4, 1e-5), curve_of(1e-2, 1e-3), curve_of(1e-6, 1e-7)
    never, always = compared(cpu, slow), compared(cpu, fast)
    assert (never["crossing"], never["between"]) == (None, [8192, None])
    assert (always["crossing"], always["between"]) == (None, [None, 1])
    assert "does not win at 8192, the largest value measured; the fits do not" in never["text"]
    assert "wins at every value measured, from 1 on" in always["text"]


def test_a_crossing_outside_what_was_measured_says_so():
    found = compared(curve_of(1e-4, 1e-5), curve_of(0.5, 1e-6))
    assert found["crossing"]["value"] == pytest.approx(0.4999 / 9e-6)
    assert found["between"] == [8192, None]
    assert found["text"].endswith("outside what was measured")


def test_lines_that_may_not_cross_leave_the_interval_open():
    found = compared(curve_of(1e-4, 1e-5, 0.3), curve_of(6e-4, 0.93e-5, 0.3, 3))
    assert found["crossing"] is None or found["crossing"]["high"] is None


def test_numbers_of_a_fit_are_not_negative():
    assert breakeven.fit([1, 2], [1, 2]) is None
    falling = breakeven.fit([1, 10, 100], [1.0, 0.9, 0.8])
    assert falling.per_work == 0
    assert 0.8 < falling.fixed < 1
    bent = breakeven.fit([1, 10, 100], [0.01, 10.0, 900.0])
    assert bent.fixed == 0
    assert bent.per_work > 0


def test_a_value_is_found_by_its_work():
    for curve in breakeven.CURVES.values():
        for value in curve.values:
            assert curve.value(curve.work(value)) == pytest.approx(value)


# ------------------------------------------------------------------------------ pages and picture


def filled(gpu):
    """Results with made-up times, to be shown."""
    cells = {"numpy": asdict(TIMING), "cupy": asdict(replace(TIMING, median=4.0)) if gpu else None,
             "torch": None}  # fmt: skip
    base = {"cells": cells, "why": {}, "errors": {}}
    found = [
        {"kind": rows.STEP, "name": "a step", **base},
        {"kind": rows.MAXOUT, "name": "a net", **base},
        {"kind": rows.ACTIVATION, "name": "relu, 20", "operation": "relu", **base},
        {"kind": rows.ACTIVATION, "name": "mish, 20", "operation": "mish", **base},
    ]
    curves = {}
    for name, curve in breakeven.CURVES.items():
        times = {"numpy": {v: 1e-4 + v * 1e-5 for v in curve.values}}
        if gpu:
            times["cupy"] = {v: 1e-3 + v * 1e-7 for v in curve.values}
        curves[name] = {"title": curve.title, **breakeven.evaluate(curve, times)}
        for value in curve.values:
            made = {
                column: asdict(replace(TIMING, median=t[value], low=t[value], high=t[value]))
                for column, t in times.items()
            }
            found.append({"kind": rows.CURVE, "name": f"{name} {value}", "curve": name,
                          "value": value, **base, "cells": made})  # fmt: skip
    stages = dict.fromkeys(cold.STAGES, 3.0) if gpu else None
    found += [
        {"kind": rows.TRANSFER, "name": "within the host", **base,
         "cells": {rows.CPU: cells["numpy"]}},
        {"kind": rows.TRANSFER, "name": "to the device", **base,
         "cells": {rows.GPU: cells["cupy"]}},
        {"kind": rows.COLD, "name": "a net", **base, "cells": {
            rows.CPU: dict.fromkeys(cold.STAGES, 0.5), cold.COMPILED: stages, cold.CACHED: stages}},
    ]  # fmt: skip
    device = {"name": "a GPU", "cupy": "14", "CUDA runtime": "13"} if gpu else None
    empty = {} if gpu else {"cupy": NO_CUPY}
    return {
        "format": cpu_gpu.FORMAT, "date": "2000-01-01", "machine": timing.machine(),
        "device": device, "torch": None, "empty": empty, "rows": found, "curves": curves,
    }  # fmt: skip


def test_the_page_without_a_gpu_has_empty_cells_and_the_reason(tmp_path, capsys):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(filled(False)))
    assert cpu_gpu.main(["--table", str(file)]) == 0
    out = capsys.readouterr().out
    assert "| training step | CPU | GPU |\n| --- | ---: | ---: |" in out
    assert "| a step | 2 s | not measured yet |" in out
    assert "| Maxout a net | 2 s | not measured yet |" in out
    assert "| relu, 20 elements | 2 s | not measured yet |" in out
    assert "mish" not in out
    assert "| transfer | CPU | GPU |" in out
    assert "| within the host | 2 s | - |" in out
    assert "| to the device | - | not measured yet |" in out
    assert "| first steps | CPU | GPU, kernels compiled | GPU, kernels on disk |" in out
    assert "| a net: step 1 | 500 ms | not measured yet | not measured yet |" in out
    assert f"GPU: not measured yet. {NO_CUPY}" in out


def test_the_page_with_a_gpu_compares():
    text = report.markdown(filled(True))
    assert "| training step | CPU | GPU | CPU / GPU |" in text
    assert "| a step | 2 s | 4 s | 0.50 |" in text
    assert "a GPU, CuPy 14, CUDA 13" in text
    assert "| transfer | CPU | GPU |\n" in text  # no ratio of what is not in one row
    assert "| to the device | - | 4 s |" in text
    assert "| a net: step 1 | 500 ms | 3 s | 3 s |" in text
    assert "the GPU wins from between" in text
    assert report.EMPTY not in text


def test_the_stand_in_is_no_gpu_on_pages_and_pictures(tmp_path, monkeypatch):
    result = filled(True)
    result["device"] |= {"name": "NVIDIA something", "cupy": "14+standin"}
    text = report.markdown(result)
    assert "STAND-IN, NO GPU, CuPy 14+standin" in text
    assert "NVIDIA" not in text
    titles = [line for line, rule in pairwise(text.splitlines()) if rule.startswith("| ---")]
    assert len(titles) == 4
    assert all("(STAND-IN, NO GPU) |" in title for title in titles)
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib draws the picture")
    from benchmarks import picture

    said = []
    monkeypatch.setattr(figure.Figure, "suptitle", lambda self, text, **options: said.append(text))
    picture.draw(result, tmp_path / "p.png")
    assert said[0].endswith("; STAND-IN, NO GPU")


def test_the_stand_in_fills_no_column_unless_it_is_asked_to(tiny, device, capsys, tmp_path):
    code, result = run(tmp_path, "--only", rows.STEP)
    assert code == 0
    assert result["device"] is None
    (row,) = result["rows"]
    assert row["cells"][rows.GPU] is None
    assert f"GPU: {devices.NO_GPU}" in capsys.readouterr().out
    assert run(tmp_path, "--only", rows.STEP, "--backend", "cupy")[0] == 1
    _, result = run(tmp_path, "--only", rows.STEP, "--pretend")
    assert result["device"]["name"] == devices.STAND_IN
    assert result["rows"][0]["cells"][rows.GPU]


def test_a_process_that_imports_the_stand_in_as_cupy_has_no_gpu():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", rows.TRANSFER, "--backend", "cupy"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(PRETEND)}, text=True, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"GPU: {devices.NO_GPU}" in done.stdout


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"), ("", "not a result of python -m benchmarks: no JSON"),
        ("[]", "not a result of python -m benchmarks"),
        ('{"rows": []}', "not a result of python -m benchmarks"),
        (json.dumps(filled(True) | {"rows": [{}]}), "not a result of python -m benchmarks"),
        (json.dumps(filled(True) | {"rows": [1]}), "not a result of python -m benchmarks"),
        (json.dumps(filled(True) | {"rows": None}), "not a result of python -m benchmarks"),
        (json.dumps(filled(True) | {"format": 99}), "has format 99, and this reads 1"),
        (ROOT / "benchmarks/results/adam_update.json", "not a result of python -m benchmarks"),
    ],
    ids=["missing", "empty", "list", "parts", "rows", "row", "none", "format", "another's"],
)  # fmt: skip
def test_a_file_without_results_is_refused_in_one_line(text, why, tmp_path, capsys):
    file = text if isinstance(text, Path) else tmp_path / "r.json"
    if isinstance(text, str):
        file.write_text(text)
    assert cpu_gpu.main(["--table", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"python -m benchmarks: --table: {file}")
    assert why in err
    assert err.count("\n") == 1


def test_a_closed_pipe_ends_quietly(tmp_path):
    file = tmp_path / "r.json"
    file.write_text(json.dumps(filled(True)))
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--table", str(file)], cwd=ROOT, text=True,
            stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def refused(capsys, *options):
    assert cpu_gpu.main(list(options)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_measured(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(cpu_gpu, "run", None)  # nothing is measured
    none = tmp_path / "none"
    for option, name in (("--json", "r.json"), ("--picture", "p.png")):
        assert f"{option}: there is no folder {none}" in refused(capsys, option, str(none / name))
        assert f"{option}: {tmp_path} is a folder" in refused(capsys, option, str(tmp_path))
    monkeypatch.setattr(cpu_gpu, "RESULTS", none)
    assert f"--save: there is no folder {none}" in refused(capsys, "--save")
    monkeypatch.setattr(cpu_gpu, "RESULTS", tmp_path)
    file = tmp_path / "r.json"
    file.touch()
    asked = []  # root may write everywhere, so the system's word is planted
    monkeypatch.setattr(cpu_gpu.os, "access", lambda path, mode: asked.append(path))
    assert f"--json: {file} is not writable" in refused(capsys, "--json", str(file))
    assert f"--save: {tmp_path} is not writable" in refused(capsys, "--save")
    assert asked == [file, tmp_path]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p.bmp", "p", "p.json"])
def test_a_picture_that_cannot_be_drawn_is_refused_first(name, monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib draws the picture")
    monkeypatch.setattr(cpu_gpu, "run", None)
    said = refused(capsys, "--picture", str(tmp_path / name))
    assert f"{name} should end in one of ." in said
    assert " .png, " in said
    file = tmp_path / "r.json"
    file.write_text(json.dumps(filled(False)))
    assert refused(capsys, "--table", str(file), "--picture", str(tmp_path / name)) == said
    assert cpu_gpu.main(["--table", str(file), "--picture", str(tmp_path / "p.PNG")]) == 0
    assert (tmp_path / "p.PNG").exists()


@pytest.mark.parametrize("option", ["--minutes", "--patience"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
def test_a_number_is_more_than_0(option, value, monkeypatch, capsys):
    monkeypatch.setattr(cpu_gpu, "run", None)
    with pytest.raises(SystemExit) as ended:
        cpu_gpu.main([option, value])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: " in said
    assert f"{value} is not more than 0" in said or f"invalid {said.split()[-3]} value" in said


def test_the_help_says_how_long_quick_takes(capsys):
    with pytest.raises(SystemExit):
        cpu_gpu.main(["--help"])
    text = capsys.readouterr().out
    assert text.count("a quarter of a minute") == 2
    assert "--pretend" not in text


STORED = sorted((ROOT / "benchmarks" / "results").glob("[cg]pu*.json"))


@pytest.mark.parametrize("file", STORED, ids=[file.stem for file in STORED])
def test_stored_results_can_be_shown_and_were_measured_undisturbed(file):
    result = json.loads(file.read_text())
    assert result["format"] == cpu_gpu.FORMAT
    assert not result["quick"]
    assert not devices.stands_in((result["device"] or {}).get("cupy"))
    assert {row["kind"] for row in result["rows"]} == set(rows.KINDS)
    assert (result["device"] is None) == ("cupy" in result["empty"])
    assert "| 2-16-16-2, batch 100 |" in report.markdown(result)
    for row in result["rows"]:
        assert not row["errors"]
        cells = [row["cells"].get(column) for column in ("numpy", "torch")]
        assert all((c.get("waited") or 0.0) < timing.DISTURBED for c in cells if c)


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True])
def test_the_picture_has_points_and_lines_for_what_was_measured(gpu, tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib draws the picture")
    from benchmarks import picture

    file = tmp_path / "p.png"
    picture.draw(filled(gpu), file)
    pixels = image.imread(file)[..., :3]
    height, width, _ = pixels.shape
    assert width > height > 300

    def seen(column):
        rgb = [int(picture.COLORS[column][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return (np.abs(pixels - rgb).max(-1) < 0.1).sum()

    half = np.abs(pixels - 1).max(-1) > 0.1
    assert half[:, : width // 2].mean() > 0.005
    assert half[:, width // 2 :].mean() > 0.005
    assert seen("numpy") > 1000
    if gpu:
        assert seen("cupy") > 1000


def test_without_matplotlib_there_is_no_picture_and_a_word(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    cpu_gpu.draw(filled(False), tmp_path / "p.png")
    assert "no picture: " in capsys.readouterr().out
    assert not (tmp_path / "p.png").exists()


# ------------------------------------------------------------------------------ clocks, devices


def test_measure_waits_once_behind_the_samples_and_reads_nothing_in_them():
    events = []

    class Ticks(timing.Clock):
        def mark(self):
            events.append("mark")
            return super().mark()

        def wait(self):
            events.append("wait")

    checked = []
    timed = timing.measure(lambda: events.append("call"), 0.0, Ticks(), check=checked.append)
    assert checked == [None]
    assert 0 < timed.low <= timed.median <= timed.high
    assert timed.samples == 5
    text = " ".join(events)
    samples = " ".join(["mark", *["call " * timed.calls + "mark"] * 5, "wait"])
    assert text.endswith(samples.replace("  ", " "))
    assert text.startswith("call wait call wait")
    assert text.count("wait") < 20


def test_a_disturbed_measurement_is_made_again_and_the_calmest_counts(monkeypatch):
    pauses = []
    monkeypatch.setattr(timing, "sleep", pauses.append)
    monkeypatch.setattr(timing, "SHORTEST", 0.0)

    def waited(patience, *seconds):
        """Let somebody have waited so long during each try."""
        moments = iter(m for i, s in enumerate(seconds) for m in (100 * i, 100 * i + s))
        monkeypatch.setattr(timing, "waited", lambda: next(moments))
        made = timing.measure(lambda: None, 0.0, patience=patience)
        left = len(pauses)
        pauses.clear()
        return made.waited, left

    share, again = waited(0, 1.0)
    assert share > timing.DISTURBED
    assert again == 0
    assert waited(3, 1.0, 0.0, 1.0, 1.0) == (0.0, 1)
    share, again = waited(2, 3.0, 1.0, 2.0)
    assert share > timing.DISTURBED
    assert again == 2


def test_without_the_systems_word_nothing_is_made_again(monkeypatch):
    monkeypatch.setattr(timing, "waited", lambda: None)
    assert timing.measure(lambda: None, 0.0, patience=3).waited is None


def test_slow_calls_are_sampled_less(monkeypatch):
    monkeypatch.setattr(timing, "SLOW", 0.0)
    assert timing.measure(lambda: None, 0.0).samples == 3


def test_a_device_is_timed_by_its_events(device, monkeypatch):
    clock = devices.clock_of(device)
    a, b = clock.mark(), clock.mark()
    clock.wait()
    assert isinstance(a, standin.cupy.cuda.Event)
    assert clock.seconds(a, b) >= 0
    monkeypatch.setattr(standin.cupy.cuda, "get_elapsed_time", lambda start, stop: 3.0)
    assert clock.seconds(a, b) == pytest.approx(3e-3)
    assert type(devices.clock_of(mg.backend.named("numpy"))) is timing.Clock


def test_torch_is_timed_by_its_events():
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        def elapsed_time(self, other):
            return 3.0

    clock = devices.TorchClock(
        SimpleNamespace(cuda=SimpleNamespace(Event=Event, synchronize=lambda: None))
    )
    clock.wait()
    assert clock.seconds(clock.mark(), clock.mark()) == pytest.approx(3e-3)


def smi(tmp_path, monkeypatch, script):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")


ANSWER = "H200, 580.65, P0, 1980 MHz, 1980 MHz, 3201 MHz, 3201 MHz, 690 W, 700 W, 50, Disabled, "


def test_nvidia_smi_is_asked_for_clocks_and_what_holds_them_back(tmp_path, monkeypatch):
    script = (
        "import sys\n"
        "assert '--id=1' in sys.argv\n"
        "if 'clocks_event_reasons' in sys.argv[1]: sys.exit('no such field')\n"
        f"print('{ANSWER}0x0000000000000024')"
    )
    smi(tmp_path, monkeypatch, script)
    found = devices.nvidia_smi()
    assert found["name"] == "H200"
    assert found["clocks.sm"] == "1980 MHz"
    assert found["power.limit"] == "700 W"
    assert found["held back by"] == "power cap, heat (software)"
    calls = []
    busy = devices.under_load(lambda: lambda: calls.append(1), lambda: None)
    assert busy == found
    assert calls


def test_an_nvidia_smi_that_fails_is_no_error(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "raise SystemExit(9)")
    assert devices.nvidia_smi() == {"nvidia-smi": "does not answer"}
    assert devices.reasons("0x0000000000000000") == "nothing"
    assert devices.reasons("[N/A]") == "[N/A]"


def test_a_device_is_described_by_what_it_tells(device, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    found = devices.describe(standin.cupy)
    assert found["CUDA runtime"] == "13.2"
    assert found["TF32"] == "on (CUPY_TF32=1)"
    properties = {"name": b"NVIDIA H100", "multiProcessorCount": 132}
    runtime = SimpleNamespace(
        getDeviceProperties=lambda i: properties, runtimeGetVersion=lambda: 12090,
        driverGetVersion=lambda: 13000,
    )  # fmt: skip
    card = SimpleNamespace(id=0, compute_capability="90", mem_info=(1, 2))
    module = SimpleNamespace(
        __version__="14", cuda=SimpleNamespace(runtime=runtime, Device=lambda: card)
    )
    found = devices.describe(module)
    assert [found[k] for k in ("name", "compute capability", "multiprocessors", "memory")] == [
        "NVIDIA H100", "90", 132, 2,
    ]  # fmt: skip
    assert (found["CUDA runtime"], found["CUDA of the driver"]) == ("12.9", "13.0")


# ------------------------------------------------------------------------------ first steps


def test_first_steps_come_in_order(device):
    times = cold.first_steps("784-1200-10, batch 100", "numpy")
    assert tuple(times) == cold.STAGES
    assert all(t > 0 for t in times.values())


def test_first_steps_on_a_device(device, monkeypatch):
    monkeypatch.setattr(cold, "NETWORKS", {"tiny": (*TINY, 2)})
    with standin.counting() as counted:
        assert tuple(cold.first_steps("tiny", "cupy")) == cold.STAGES
    assert counted.syncs == 12  # one at the end of each stage, and nothing was read


def test_kernels_are_compiled_in_an_empty_folder_and_found_there_again(monkeypatch):
    folders = []

    def ask(name, backend, cache):
        folders.append((cache, len(list(Path(cache).iterdir()))))
        (Path(cache) / str(len(folders))).touch()
        return {}

    monkeypatch.setattr(cold, "ask", ask)
    assert tuple(cold.columns("a net", "cupy")) == (cold.COMPILED, cold.CACHED)
    (first, empty), (second, kept) = folders
    assert first == second
    assert (empty, kept) == (0, 1)
    assert tuple(cold.columns("a net", "numpy")) == ("numpy",)


def test_the_process_of_first_steps_answers_and_fails_plainly(tmp_path, monkeypatch):
    name = next(iter(cold.NETWORKS))
    assert tuple(cold.ask(name, "numpy", str(tmp_path))) == cold.STAGES
    with pytest.raises(RuntimeError, match="'nonsense' is not a backend"):
        cold.ask(name, "nonsense", str(tmp_path))


# ------------------------------------------------------------------------------ beside PyTorch


def test_torchs_cells_are_filled_and_another_loss_is_not(tiny, no_cupy, monkeypatch, tmp_path):
    asked = []
    versions = {"torch": {"version": "2", "threads": 2, "devices": ["cpu"]}}

    def ask(python, task):
        asked.append(task)
        cell = {"column": "torch", "timing": asdict(TIMING)}
        return [
            versions,
            {"kind": rows.STEP, "name": "3-4-2, batch 5", **cell},
            {"kind": rows.PRODUCT, "name": "4 x 4, float32", "column": "torch", "error": "loss"},
        ]

    monkeypatch.setattr(torch_rows, "ask", ask)
    code, result = run(tmp_path, "--torch-python", "another python")
    assert code == 1  # for one row failed
    by_name = {row["name"]: row for row in result["rows"]}
    assert by_name["3-4-2, batch 5"]["cells"]["torch"] == asdict(TIMING)
    assert by_name["4 x 4, float32"]["errors"] == {"torch": "loss"}
    assert result["empty"]["torch, cuda"] == "PyTorch found no GPU that it can use"
    (task,) = asked
    assert task["losses"].keys() == {"3-4-2, batch 5", "3-4x2-2, batch 5"}
    assert json.dumps(task)


@pytest.mark.skipif(
    torch_rows.missing(sys.executable) == "", reason="PyTorch is installed in this interpreter"
)
def test_without_torch_its_column_says_so(tiny, no_cupy, capsys, tmp_path):
    code, result = run(tmp_path, "--only", rows.MAXOUT)
    assert code == 0
    assert "--torch-python PATH" in result["empty"]["torch"]
    assert "PyTorch is not installed here" in capsys.readouterr().out


def test_an_interpreter_that_cannot_do_it_is_said_plainly(tiny, no_cupy, tmp_path):
    code, result = run(tmp_path, "--only", rows.MAXOUT, "--torch-python", str(tmp_path / "none"))
    assert code == 0
    assert result["empty"]["torch"].startswith("PyTorch cannot be run: ")


class FakeTorch(SimpleNamespace):
    """As much of PyTorch as the worker itself asks of it."""

    def __init__(self):
        cuda = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True))
        super().__init__(
            __version__="2", backends=SimpleNamespace(cuda=cuda),
            cuda=SimpleNamespace(is_available=lambda: False), version=SimpleNamespace(cuda=None),
            set_num_threads=lambda n: None, get_num_threads=lambda: 2,
        )  # fmt: skip


def test_torchs_worker_compares_losses_before_it_times(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch())

    def step(layers, batch, **options):
        return lambda: 0.5

    monkeypatch.setattr(steps, "torch_step", step)
    task = {"kinds": [rows.STEP], "quick": True, "seconds": 0.0, "limit": None, "patience": 0}
    versions, right = torch_rows.worker(task | {"losses": {"3-4-2, batch 5": 0.50001}})
    assert versions["torch"]["TF32"] == "off"
    assert right["timing"]["samples"] == 5
    _, wrong = torch_rows.worker(task | {"losses": {"3-4-2, batch 5": 0.501}})
    assert wrong["timing"] is None
    assert wrong["error"] == "its loss is 0.5, and the first column's 0.501"
    _, late = torch_rows.worker(task | {"losses": {}, "limit": -1.0})
    assert late["why"] == cpu_gpu.OVER


# ------------------------------------------------------------------------------ single measurements


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


def test_the_pages_show_what_the_result_file_holds():
    folder = timing.ROOT / "benchmarks" / "results"
    text = report.markdown(json.loads((folder / "cpu.json").read_text(encoding="utf-8")))
    assert text.strip() in (folder / "README.md").read_text(encoding="utf-8")
    steps_table = text[text.index("| training step") : text.index("| matrix product")]
    readme = (timing.ROOT / "README.md").read_text(encoding="utf-8")
    assert steps_table.strip() in readme
