"""The stand-in answers every line of the contract, and so does CuPy, as far as it can here."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import contract
import numpy as np
import pytest
import standin
from contract import LINES, NUMPY, READ, WITHOUT
from data import make_cupy_contract as maker

from microgradnd.backend.namespace import NAMES

WRITTEN = maker.read(maker.FILE)
STANDIN = (standin.cupy, standin.special, standin.cupy.zeros)


@pytest.fixture(autouse=True)
def forget():
    """Calls that are wrong on purpose are no part of the record."""
    before = set(standin._used)
    yield
    standin._used.intersection_update(before)


@pytest.fixture(scope="module")
def real():
    """The installed CuPy, if it is the one that has answered."""
    cupy = pytest.importorskip("cupy", reason="the wheel of CuPy is not installed")
    wanted = json.loads(maker.FILE.read_text(encoding="utf-8"))["versions"]["cupy"]
    if cupy.__version__ != wanted:
        pytest.skip(f"the contract is with CuPy {wanted}, here is {cupy.__version__}")
    return contract.real_cupy()


def test_every_snippet_has_a_line_and_every_line_a_snippet():
    assert list(WRITTEN) == list(LINES), "run tests/data/make_cupy_contract.py"
    for snippet, line in WRITTEN.items():
        assert line["outcome"] is not None, snippet
        assert line.get("unspecified", False) == LINES[snippet].unspecified


def test_every_line_says_where_it_is_known_from():
    for line in WRITTEN.values():
        source = line["source"]
        assert source in (READ, NUMPY) or re.fullmatch(rf"CuPy [\d.]+\S* ({WITHOUT}|on .+)", source)
        assert ("where" in line) == (source == READ)
    assert len(LINES) > 300


def test_every_name_of_our_namespace_is_in_a_snippet():
    said = set(re.findall(r"\b(?:xp|ns|special)\.(\w+)", " ".join(LINES)))
    assert said >= NAMES


@pytest.mark.parametrize("snippet", LINES)
def test_stand_in_answers_as_cupy(snippet):
    assert contract.outcome(snippet, *STANDIN) == WRITTEN[snippet]["outcome"]


def test_cupy_answers_so(real):
    device = bool(real[0].cuda.runtime.driverGetVersion())
    said = {snippet: contract.outcome(snippet, *real, device) for snippet in LINES}
    answered = {snippet for snippet, text in said.items() if text is not None}
    assert answered >= {s for s, line in WRITTEN.items() if WITHOUT in line["source"]}
    wrong = {s: said[s] for s in answered if said[s] != WRITTEN[s]["outcome"]}
    assert not wrong


# A stand-in that drifts, being more lenient or another one than CuPy, fails a line.


DRIFTS = {
    "a host array is taken": ("operand", lambda x: standin.new(np.asarray(x))),
    "conversion is silent": ("ndarray.__array__", lambda self, dtype=None: self._data),
    "a sum takes initial": ("cupy.sum", lambda a, initial=0.0: a.sum() + initial),
    "an index is checked": ("ndarray.take", lambda self, i: standin.run("x", np.take, self, i)),
    "subnormals stay": ("TINY", 0.0),
    "an assignment is lost": ("ndarray.__setitem__", lambda self, i, v: None),
    "a number comes from a sum": ("ndarray.sum", lambda self, **_: self._data.sum()),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_stand_in_that_drifts_is_found(drift, monkeypatch):
    path, value = DRIFTS[drift]
    monkeypatch.setattr(f"standin.{path}", value)
    wrong = [s for s in LINES if contract.outcome(s, *STANDIN) != WRITTEN[s]["outcome"]]
    assert wrong


# The command, on the stand-in in the place of CuPy.


@pytest.fixture
def pretended(monkeypatch):
    """The stand-in as the installed CuPy, on a device or without."""

    def place(driver):
        runtime = SimpleNamespace(
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13020,
            getDeviceProperties=lambda device: {"name": b"Pretended 1"},
        )
        monkeypatch.setattr(standin.cupy.cuda, "runtime", runtime)
        monkeypatch.setattr(standin.cupy, "is_available", lambda: driver > 0)
        monkeypatch.setattr(contract, "real_cupy", lambda: STANDIN)

    return place


def test_on_a_device_every_line_is_written_anew(pretended, tmp_path, capsys):
    pretended(13020)
    out = tmp_path / "contract.json"
    assert maker.main(["--out", str(out)]) == 0
    assert ", 0 changed" in capsys.readouterr().out
    lines = maker.read(out)
    assert {n: line["outcome"] for n, line in lines.items()} == {
        n: line["outcome"] for n, line in WRITTEN.items()
    }
    assert {line["source"] for line in lines.values()} == {"CuPy 14.2.0 on Pretended 1"}
    found = json.loads(out.read_text(encoding="utf-8"))["versions"]
    assert (found["device"], found["cuda_driver"]) == ("Pretended 1", 13020)
    assert maker.main(["--check"]) == 0


def test_a_line_that_differs_is_printed_and_fails_the_check(pretended, capsys, monkeypatch):
    pretended(13020)
    monkeypatch.setattr(standin, "TINY", 0.0)
    before = maker.FILE.read_bytes()
    assert maker.main(["--check"]) == 1
    printed = capsys.readouterr().out
    assert "d([1e-30]) * d([1e-10])" in printed
    assert "is  (float32 (1,) [1e-40]" in printed
    assert maker.FILE.read_bytes() == before


def test_without_a_device_the_other_lines_are_kept(pretended, tmp_path, capsys, monkeypatch):
    pretended(0)
    assert maker.main([]) == 2
    assert "--without-device" in capsys.readouterr().err
    answered = "np.asarray(a)"
    monkeypatch.setattr(contract, "outcome", lambda s, *_: "other" if s == answered else None)
    out = tmp_path / "contract.json"
    assert maker.main(["--without-device", "--out", str(out)]) == 0
    lines = maker.read(out)
    assert lines[answered]["outcome"] == "other"
    assert lines[answered]["source"] == "CuPy 14.2.0 without a device"
    for snippet in lines.keys() - {answered}:
        assert lines[snippet]["outcome"] == WRITTEN[snippet]["outcome"]
        assert WITHOUT not in lines[snippet]["source"]
    printed = capsys.readouterr().out
    assert "1 of " in printed and "1 changed" in printed


def test_with_a_device_a_missing_library_is_an_answer_and_no_excuse(
    pretended, tmp_path, capsys, monkeypatch
):
    pretended(13020)

    def broken(*args):
        raise ImportError("libcublasLt.so.13 is not there")

    monkeypatch.setattr(standin.cupy, "matmul", broken)
    out = tmp_path / "contract.json"
    assert maker.main(["--out", str(out)]) == 0
    said = [line["outcome"] for name, line in maker.read(out).items() if "xp.matmul(" in name]
    assert "ImportError: libcublasLt.so.13 is not there" in said
    assert f"{len(LINES)} of {len(LINES)} lines answered" in capsys.readouterr().out


def test_what_was_answered_before_an_end_is_kept(pretended, tmp_path, monkeypatch):
    pretended(13020)
    asked = []

    def outcome(*args):
        if len(asked) == 60:
            raise KeyboardInterrupt
        asked.append(args[0])
        return "answered"

    monkeypatch.setattr(contract, "outcome", outcome)
    out = tmp_path / "contract.json"
    with pytest.raises(KeyboardInterrupt):
        maker.main(["--out", str(out)])
    lines = maker.read(out)
    assert lines.keys() == LINES.keys()
    new = [name for name, line in lines.items() if line["source"] == "CuPy 14.2.0 on Pretended 1"]
    assert new == asked[: len(new)]
    assert len(new) == 50


def test_a_new_snippet_waits_for_an_outcome(pretended, tmp_path, capsys, monkeypatch):
    pretended(0)
    monkeypatch.setitem(LINES, "new", contract.Line("new", READ, "somewhere", False))
    monkeypatch.setattr(contract, "outcome", lambda *_: None)
    out = tmp_path / "contract.json"
    assert maker.main(["--without-device", "--out", str(out)]) == 0
    assert maker.read(out)["new"]["outcome"] is None
    assert "no outcome yet: new" in capsys.readouterr().out


def test_without_cupy_the_command_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert maker.main(["--check"]) == 2
    assert "CuPy cannot be imported" in capsys.readouterr().err


def test_the_list_is_read_as_it_is_meant():
    lines = contract.parse("# here\na\n* b + \\\n    c\n# NUMPY\nd")
    assert lines["a"] == ("a", READ, "here", False)
    assert lines["b + c"].unspecified
    assert lines["d"] == ("d", NUMPY, "", False)
    with pytest.raises(ValueError, match="twice"):
        contract.parse("a\na")


def test_what_binds_the_calls_of_the_session_runs_last():
    import conftest

    names = ["test_real_cupy.py", "test_a.py", "test_real_cupy.py", "test_z.py"]
    items = [SimpleNamespace(path=SimpleNamespace(name=name), n=n) for n, name in enumerate(names)]
    conftest.binding_last(items)
    assert [item.n for item in items] == [1, 3, 0, 2]
