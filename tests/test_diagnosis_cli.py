"""The commands `diagnose` and `demo`: what they print and write, and their exit codes."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from device import DEVICE
from diagnosis_samples import healthy, overfit, vanishing
from samples import registered

import microgradnd as mg
from microgradnd import cli
from microgradnd.diagnosis import demo
from microgradnd.diagnosis import examination as examining

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The file of a recorder that saw a network of ten sigmoid layers."""
    generator = mg.random.default_generator()
    state = dict(generator.state)
    mg.manual_seed(0)
    x, y = mg.data.blobs(200, seed=0, features=8)
    layers = []
    for i in range(10):
        layers += [mg.nn.Linear(16 if i else 8, 16), mg.nn.Sigmoid()]
        mg.nn.init.xavier_normal_(layers[-2].weight)
    model = mg.nn.Sequential(*layers, mg.nn.Linear(16, 3))
    optimizer = mg.optim.SGD(model.parameters(), lr=0.5)
    recorder = mg.diagnosis.Recorder(model, optimizer, mg.cross_entropy, train=(x / 10, y))
    mg.train.fit(model, mg.cross_entropy, optimizer, (x / 10, y), epochs=8, progress=False,
                 callbacks=[recorder])  # fmt: skip
    path = tmp_path_factory.mktemp("record") / "run.npz"
    recorder.save(path)
    generator.state = state
    return path


def test_a_record_is_diagnosed_and_a_page_written(record, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert cli.main(["diagnose", str(record), "--html", str(page)]) == 2
    out = capsys.readouterr().out
    assert out.startswith("VANISHING: the gradient at layer 1 is ") and len(out.splitlines()) <= 12
    assert "VANISHING" in page.read_text(encoding="utf-8")


def test_json_and_chinese(record, capsys):
    assert cli.main(["diagnose", str(record), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["roots"] == ["VANISHING"]
    assert cli.main(["diagnose", str(record), "--lang", "zh"]) == 2
    assert "梯度消失" in capsys.readouterr().out


def test_the_exit_code_is_the_severity(record, monkeypatch, capsys):
    doubtful = healthy()
    doubtful.now.layers[1].dead = 0.4
    for evidence, code in ((healthy(), 0), (doubtful, 1), (overfit(), 2), (vanishing(), 2)):
        monkeypatch.setattr(examining, "from_record", lambda record, given=evidence: given)
        assert cli.main(["diagnose", str(record)]) == code
    assert "OK: accuracy is 0.98" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["absent", "text", "other", "folder"])
def test_a_file_that_is_no_record_is_3_with_the_reason(kind, tmp_path, capsys):
    path = tmp_path / "x.npz"
    if kind == "text":
        path.write_text("hello", encoding="utf-8")
    elif kind == "other":
        np.savez(path, a=np.zeros(3))
    elif kind == "folder":
        path.mkdir()
    assert cli.main(["diagnose", str(path)]) == 3
    seen = capsys.readouterr()
    assert seen.out == "" and seen.err.startswith("microgradnd diagnose: error: ")
    assert "x.npz" in seen.err and len(seen.err.splitlines()) == 1


def test_a_picture_is_no_record(tmp_path, capsys):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert cli.main(["diagnose", str(path)]) == 3
    assert capsys.readouterr().err == (f"microgradnd diagnose: error: {path} is no record of a "
        "training (Recorder.save writes them): it is no .npz file\n")  # fmt: skip


@pytest.mark.parametrize("depth", ["99", "0", "-1", "two", "1.5"])
def test_a_wrong_depth_is_told_the_range(depth, capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "vanishing", f"--depth={depth}"])
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"a number of hidden layers from 1 to 30 is wanted, got '{depth}'")


@pytest.mark.parametrize(
    "arguments",
    [["diagnose"], ["diagnose", "x", "--lang", "de"], ["demo", "nothing"],
     ["demo", "lr", "--depth", "0"]],
)  # fmt: skip
def test_wrong_usage_of_these_commands_is_3(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 3
    assert f"usage: microgradnd {arguments[0]}" in capsys.readouterr().err


def test_the_command_runs_in_a_process_of_its_own(record):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "microgradnd", "diagnose", str(record)],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("VANISHING")


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("command", ["diagnose", "demo", "info"])
def test_who_reads_may_stop_reading(command, record):
    arguments = {"diagnose": [str(record), "--json"], "demo": ["lr", "--depth=1"], "info": []}
    ours, theirs = os.pipe()
    os.close(ours)  # nobody reads
    try:
        done = subprocess.run(
            [sys.executable, "-m", "microgradnd", command, *arguments[command]], stdout=theirs,
            stderr=subprocess.PIPE, text=True, check=False, timeout=60, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (cli.UNREAD, "")


def test_a_record_without_data_tells_what_a_recorder_needs(tmp_path, capsys):
    x, y = mg.data.blobs(200, seed=0)
    data = mg.tensor(x / 5, dtype="float32"), mg.tensor(y)
    for options, known in (({}, False), ({"train": data, "loss_fn": mg.cross_entropy}, True)):
        mg.manual_seed(0)
        model = mg.nn.Sequential(mg.nn.Linear(2, 16), mg.nn.ReLU(), mg.nn.Linear(16, 3))
        optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
        recorder = mg.diagnosis.Recorder(model, optimizer, **options)
        for _ in range(200):
            optimizer.zero_grad()
            mg.cross_entropy(model(data[0]), data[1]).backward()
            optimizer.step()
        recorder.save(tmp_path / "run.npz")
        for lang, unknown, wanted in (("en", "the training result is not known: ", "loss_fn="),
                                      ("zh", "还不知道", "train=")):  # fmt: skip
            assert cli.main(["diagnose", str(tmp_path / "run.npz"), "--lang", lang]) == 0
            told = capsys.readouterr().out
            assert (unknown in told, wanted in told) == (not known, not known)


# ----------------------------------------------------------------------------------------- demos


@pytest.fixture
def quick(monkeypatch):
    """Demos without networks to compare with."""
    monkeypatch.setattr(demo, "SECONDS", None)


EXPECTED = {"vanishing": "VANISHING", "dying": "LR_HIGH", "exploding": "EXPLODING",
            "overfit": "OVERFIT", "lr": "LR_LOW", "maxout": None}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_each_demo_shows_its_fault(name, quick):
    out, state = StringIO(), dict(mg.random.default_generator().state)
    report = demo.run(name, out=out)
    assert (report.roots[0].code if report.roots else None) == EXPECTED[name], report
    text = out.getvalue()
    assert text.startswith(f"{name}: ") and text.endswith(f"\n{report}\n")
    assert text.count("epoch 0, loss") == 1 and text.count("█") > 10
    assert "\x1b" not in text  # no terminal
    assert mg.random.default_generator().state == state


def test_a_terminal_is_drawn_over(quick):
    class Terminal(StringIO):
        def isatty(self):
            return True

    out = Terminal()
    demo.run("overfit", out=out)
    assert out.getvalue().count("\x1b[3A\x1b[J") == demo.DEMOS["overfit"].epochs


def test_depth_activation_and_language_can_be_chosen(quick):
    out = StringIO()
    report = demo.run("vanishing", depth=2, activation="relu", lang="zh", out=out)
    assert [layer.activation for layer in report.evidence.layers] == ["relu", "relu", "none"]
    assert "2 层 relu" in out.getvalue() and report.roots == []


@pytest.mark.slow
def test_a_demo_runs_on_another_backend(quick):
    with registered(DEVICE):
        report = demo.run("lr", backend=DEVICE.name, out=StringIO())
    assert report.roots[0].code == "LR_LOW"


def test_the_command_knows_all_demos_and_activations(quick, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert all(name in told for name in (*demo.DEMOS, *demo.ACTIVATIONS))
    assert cli.main(["demo", "overfit", "--html", str(tmp_path / "d.html")]) == 0
    assert "OVERFIT: " in capsys.readouterr().out and (tmp_path / "d.html").exists()

    def unusable(*_):
        raise mg.backend.BackendError("no driver here")

    monkeypatch.setattr(demo, "run", unusable)
    assert cli.main(["demo", "lr", "--backend", "cupy"]) == 3
    assert "no driver here" in capsys.readouterr().err
