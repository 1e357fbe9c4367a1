"""The command line: what `microgradnd info` says, and the exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import microgradnd as mg
from microgradnd import backend, cli

ROOT = Path(__file__).resolve().parents[1]


def command(*arguments, **variables):
    """Run `python -m microgradnd` in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "MICROGRADND_BACKEND"}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "microgradnd", *arguments],
        capture_output=True, text=True, check=False, env=environment, timeout=60,
    )  # fmt: skip


@pytest.fixture
def choice(monkeypatch):
    """Set `MICROGRADND_BACKEND` as if the process had just begun."""

    def choose(value):
        monkeypatch.setattr(backend, "_default", None)
        monkeypatch.setattr(backend, "_current", type(backend._current)("fresh", default=None))
        monkeypatch.delenv("MICROGRADND_BACKEND", raising=False)
        if value is not None:
            monkeypatch.setenv("MICROGRADND_BACKEND", value)

    return choose


def test_info_in_a_fresh_process():
    done = command("info")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert f"microgradnd  {mg.__version__}" in lines
    assert f"NumPy        {np.__version__}" in lines
    assert f"  numpy      importable: yes ({np.__version__}), usable: yes" in lines
    assert "  chosen     numpy (MICROGRADND_BACKEND is not set)" in lines
    for name in ("BLAS", "kernel", "threads"):
        assert any(line.startswith(f"  {name} ") for line in lines), name


def test_an_unknown_backend_is_named_and_fails():
    done = command("info", MICROGRADND_BACKEND="cuppy")
    assert done.returncode == 1
    assert "MICROGRADND_BACKEND='cuppy' is not a backend; choose 'numpy'" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_wrong_usage_is_2_with_the_usage(arguments):
    done = command(*arguments)
    assert done.returncode == 2
    assert "usage: microgradnd" in done.stderr


def test_help_and_version(capsys):
    for arguments, wanted in (["--help"], "info"), (["--version"], mg.__version__):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
        assert wanted in capsys.readouterr().out


def test_every_backend_is_listed_with_the_reason_why_not(choice, capsys, monkeypatch):
    choice(None)
    monkeypatch.setattr(backend, "available", lambda: {"numpy": "ok", "cupy": "no driver here"})
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "cupy       importable: no, usable: no\n             no driver here\n" in out


def test_a_backend_that_cannot_be_had_is_exit_code_1(choice, capsys, monkeypatch):
    choice("cupy")

    def load(name, variable=False):
        raise backend.BackendError("no driver here")

    monkeypatch.setattr(backend, "available", lambda: {"numpy": "ok", "cupy": "no driver here"})
    monkeypatch.setattr(backend, "_load", load)
    assert cli.main(["info"]) == 1
    assert "chosen     none (MICROGRADND_BACKEND=cupy): see above" in capsys.readouterr().out


def test_the_variable_is_stripped_and_lower_cased(choice, capsys):
    choice("  NumPy ")
    assert cli.main(["info"]) == 0
    assert "chosen     numpy (MICROGRADND_BACKEND=  NumPy )" in capsys.readouterr().out


def test_blas_with_and_without_threadpoolctl(monkeypatch):
    pool = {"user_api": "blas", "architecture": "Haswell", "num_threads": 2}
    monkeypatch.setattr(cli, "loaded_blas", lambda: pool)
    report = cli.blas()
    assert (report["kernel"], report["threads"]) == ("Haswell", "2")
    monkeypatch.setattr(cli, "loaded_blas", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    report = cli.blas()
    assert "threadpoolctl" in report["kernel"]
    assert "OMP_NUM_THREADS=3" in report["threads"]
    assert "advice" not in report


@pytest.mark.parametrize(
    ("kernel", "wide", "core", "advised"),
    [
        ("Haswell", True, None, True),
        ("Zen", True, None, True),
        ("Haswell", False, None, False),
        ("SkylakeX", True, None, False),
        ("Haswell", True, "Haswell", False),
    ],
)
def test_advice_is_given_only_where_it_helps(kernel, wide, core, advised, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if core:
        monkeypatch.setenv("OPENBLAS_CORETYPE", core)
    assert cli.advisable(kernel, wide) is advised
    if advised:
        monkeypatch.setattr(cli, "loaded_blas", lambda: {"architecture": kernel})
        extensions = {"SIMD Extensions": {"found": ["X86_V4"]}}
        monkeypatch.setattr(cli.np, "show_config", lambda mode: extensions)
        assert "OPENBLAS_CORETYPE=SkylakeX" in cli.blas()["advice"]


def test_threadpoolctl_that_is_not_installed_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert cli.loaded_blas() is None


def test_threadpoolctl_that_finds_no_blas_is_no_error(monkeypatch):
    stub = type(sys)("threadpoolctl")
    stub.threadpool_info = lambda: [{"user_api": "openmp"}]
    monkeypatch.setitem(sys.modules, "threadpoolctl", stub)
    assert cli.loaded_blas() == {}
    assert cli.blas()["kernel"] == "unknown"
