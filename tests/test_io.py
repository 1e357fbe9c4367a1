"""Checkpoints: what goes in comes out, whatever the layout, and whatever happens on the way."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as to_bytes
from samples import registered

import microgradnd as mg
from microgradnd import io
from microgradnd.io import CheckpointError, load, save

DATA = Path(__file__).parent / "data"
DTYPES = "?bBhHiIqQefd"


class Box:
    """Something with a state; `refuses` makes it fail half-way, as nothing of ours should."""

    def __init__(self, refuses=False, **state):
        self.state, self.refuses = state, refuses

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = dict(state)
        if self.refuses:
            self.refuses = False
            raise ValueError("no, thanks")


class Part:
    """The little that `io` asks of a module."""

    def __init__(self, **tensors):
        self.tensors = tensors

    def named_parameters(self):
        return iter(self.tensors.items())

    def state_dict(self):
        return {name: t.detach() for name, t in self.tensors.items()}

    def load_state_dict(self, state):
        if set(state) != set(self.tensors):
            raise ValueError(f"names {sorted(state)}")
        with mg.no_grad():
            for name, t in self.tensors.items():
                t.assign_(state[name])


class Momentum:
    """The little that `io` asks of an optimizer."""

    def __init__(self, *groups):
        self.param_groups = [
            {"params": list(group), "lr": 0.1 + i} for i, group in enumerate(groups)
        ]
        self.state = [float(p.sum().item()) for group in groups for p in group]

    def state_dict(self):
        numbers = iter(range(len(self.state)))
        groups = [g | {"params": [next(numbers) for _ in g["params"]]} for g in self.param_groups]
        slots = {i: {"step": 1, "v": mg.full((2,), v)} for i, v in enumerate(self.state)}
        return {"state": slots, "param_groups": groups}

    def load_state_dict(self, state):
        self.state = [state["state"][i]["v"][0].item() for i in range(len(self.state))]
        for own, new in zip(self.param_groups, state["param_groups"], strict=True):
            own["lr"] = new["lr"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def same(a, b):
    """Equal, to the type and to the bit, of nested values."""
    if isinstance(a, mg.Tensor):
        return isinstance(b, mg.Tensor) and same(a._host(), b._host())
    if isinstance(a, np.ndarray | np.generic):
        return (type(a), a.dtype, a.shape) == (type(b), b.dtype, b.shape) and (
            a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return type(b) is dict and [*a] == [*b] and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and np.float64(a).tobytes() == np.float64(b).tobytes()
    return type(a) is type(b) and a == b


def files(path):
    return sorted(p.name for p in path.parent.iterdir())


# --- what goes in comes out

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text(max_size=3) | st.integers(-3, 3) | st.none() | st.booleans() | st.just("$tensor")
numbers = st.sampled_from(DTYPES).flatmap(lambda c: hnp.from_dtype(np.dtype(c), allow_nan=False))
nested = st.recursive(
    scalars | numbers,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@given(value=nested)
def test_nested_values_keep_their_types_and_their_bits(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("nested") / "a.safetensors"
    try:
        save(path, value=value, other=1)
    except (ValueError, UnicodeEncodeError) as error:  # {1: x, "1": y}, or half a character
        assert "under the name" in str(error) or "surrogates" in str(error)
    else:
        assert same(load(path), {"value": value, "other": 1})


@pytest.mark.parametrize(
    "value", [-0.0, 5e-324, 0.1, 1e16, math.inf, -math.inf, math.nan, 2**127 + 1, (), {}, {"$": 1}]
)
def test_numbers_come_back_exactly(path, value):
    save(path, value=value)
    assert same(load(path), {"value": value})


def test_keys_of_dicts_that_are_no_text(path):
    value = {1: "a", None: "b", (2, 3.5): "c", True + 2: "d", "$x": mg.ones(2)}
    save(path, value=value)
    assert same(load(path)["value"], value)
    save(path, value={np.int64(7): np.zeros(1)})
    assert same(load(path)["value"], {7: np.zeros(1)})


def test_the_model_has_bare_names_and_the_others_a_path(path):
    state = {"0.weight": mg.ones((2, 3)), "0.bias": mg.zeros(2)}
    save(path, model=Box(**state), ema={"decay": 0.9, "shadow": [mg.ones(1)]}, rng=mg.Generator(5))
    assert sorted(load_file(path)) == ["0.bias", "0.weight", "ema/shadow/0"]
    assert load(path)["rng"] == {"seed": 5, "counter": 0}
    save(path, net=Box(**state))
    assert sorted(load_file(path)) == ["0.bias", "0.weight"]  # the only object
    save(path, net=Box(**state), epoch=1)
    assert sorted(load_file(path)) == ["net/0.bias", "net/0.weight"]
    save(path, weight=mg.ones(2))
    assert sorted(load_file(path)) == ["weight"]


def test_the_bytes_depend_on_the_contents_only(path):
    once = {"b": np.ones(3, "f4"), "a": np.zeros(2)}
    save(path, model=once, lr=0.1)
    first = path.read_bytes()
    save(path, model=once, lr=0.1)
    assert path.read_bytes() == first


def test_tensors_on_a_device_are_fetched_and_put_back(path):
    import standin

    from microgradnd.backend.cupy_backend import CupyBackend

    device = CupyBackend(standin.cupy, standin.special, name="standin")
    with registered(device):
        x = mg.tensor([[1.0, 2.0], [3.0, 4.0]]).to("standin")
        save(path, model={"x": x.T, "raw": x._array})
        y = mg.zeros((2, 2)).to("standin")
        save(path, x=x, epoch=1)
        assert load(path, x=y) == {"epoch": 1}
        assert y.backend is device and y.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        save(path, model={"x": x.T, "raw": x._array})
        with mg.backend.use("standin"):
            got = load(path)["model"]
        assert got["x"].backend is device and got["x"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
        assert same(got["raw"], np.array([[1.0, 2.0], [3.0, 4.0]], "f4"))
        mg.backend.of(x._array).synchronize()


def test_a_model_and_its_optimizer_move_between_backends_through_a_file(path):
    import standin

    from microgradnd.backend.cupy_backend import CupyBackend

    device = CupyBackend(standin.cupy, standin.special, name="standin")
    with registered(device):

        def run(where):
            model = mg.nn.Sequential(mg.nn.Linear(3, 4), mg.nn.BatchNorm1d(4), mg.nn.Linear(4, 2))
            optimizer = mg.optim.Adam(model.to(where).parameters())
            return {"model": model, "optimizer": optimizer}, mg.ones((5, 3)).to(where)

        def digest(parts):
            states = parts["model"].state_dict(), parts["optimizer"].state_dict()["state"]
            return repr([states[0], {k: v.items() for k, v in states[1].items()}]).replace(
                ", backend='standin'", ""
            )

        there, x = run("standin")
        there["model"](x).sum().backward()
        there["optimizer"].step()
        save(path, **there)
        here, again = run("numpy")[0], run("standin")[0]
        load(path, **here)
        assert digest(here) == digest(there)
        save(path, **here)
        load(path, **again)
        assert digest(again) == digest(there)
        assert {p.backend for p in again["model"].parameters()} == {device}
        device.synchronize()


# --- what cannot be saved


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.ones(2, "c8"), "complex"),
        (np.float64(1) + 1j, "complex"),
        (1 + 1j, "complex"),
        (np.array([None]), "made of numbers"),
        (np.array(["a"]), "made of numbers"),
        (np.ma.masked_array([1.0], [True]), "masked"),
        (np.ones(2, np.longdouble), "not supported"),
        (np.array(["2020-01-01"], "M8[D]"), "made of numbers"),
        (np.zeros(2, [("a", "f4")]), "made of numbers"),
        (np.str_("a"), "made of numbers"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (len, "builtin_function"),
        (Odd(), "Odd"),
        ({"deep": [Odd()]}, "thing/deep/0 is a Odd"),
        ({(1, np.float32(2)): 1}, "key of a dict"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(path, value, told):
    save(path, old=1)
    with pytest.raises(TypeError, match="thing") as caught:
        save(path, thing=value, other=1)
    assert told in str(caught.value)
    assert load(path) == {"old": 1} and files(path) == [path.name]


def test_without_safetensors_the_error_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"mg.save needs safetensors.*microgradnd\[io\]"):
        save(path, x=1)
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=r"mg.load needs safetensors.*microgradnd\[io\]"):
        load(path)


# --- loading into objects


def test_loading_fills_what_is_given_and_gives_back_the_rest(path):
    save(path, box=Box(x=1, y=(2,)), weight=mg.ones(2), rng=mg.Generator(3), epoch=7, log=[1, 2])
    box, weight, rng, array = Box(), mg.zeros(2, requires_grad=True), mg.Generator(1), np.zeros(2)
    array = np.zeros(2, "f4")
    rest = load(path, box=box, weight=weight, rng=rng, log=[])
    assert rest == {"epoch": 7, "log": [1, 2]}
    assert box.state == {"x": 1, "y": (2,)} and rng.state == {"seed": 3, "counter": 0}
    assert weight.tolist() == [1.0, 1.0] and weight.requires_grad
    assert [*load(path, weight=array)] == ["box", "rng", "epoch", "log"]
    assert array.tolist() == [1.0, 1.0]


def test_all_faults_are_told_at_once_and_nothing_is_changed(path):
    save(path, a=Box(x=1), b=Box(x=2), t=mg.ones(2), i=mg.ones(2, "int64"), rng=3, epoch=1)
    a, b, t, i = Box(x=0), Box(x=0, refuses=True), mg.zeros(3), mg.zeros(2)
    rng, ok = mg.Generator(9), Box(x=0)
    with pytest.raises(CheckpointError) as caught:
        load(path, a=a, b=b, t=t, i=i, rng=rng, gone=ok, epoch=len)
    lines = str(caught.value).splitlines()
    assert str(path) in lines[0] and "nothing was changed" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "b", "t", "i", "rng", "gone", "epoch",
    ]  # fmt: skip
    for line, told in zip(
        lines[1:],
        ["no, thanks", "float32 (2,), float32 (3,) is wanted", "int64 (2,), float32 (2,) is wanted",
         "TypeError", "not in the file, which holds a, b, t, i, rng", "nothing can be loaded into"],
        strict=True,
    ):  # fmt: skip
        assert told in line
    assert a.state == {"x": 0} == ok.state and b.state == {"x": 0}
    assert t.tolist() == [0.0] * 3 and i.tolist() == [0.0] * 2
    assert rng.state == {"seed": 9, "counter": 0}


def test_states_are_taken_before_any_is_loaded_and_an_optimizer_has_the_last_word(path):
    class Schedule(Box):  # sets the rate when it is loaded, as ours do
        def load_state_dict(self, state):
            super().load_state_dict(state)
            w.param_groups[0]["lr"] = state["lr"]

    w = Momentum([mg.ones(1)])
    w.param_groups[0]["lr"] = 0.7  # set by hand
    save(path, schedule=Schedule(lr=0.3), opt=w, x=mg.ones(1))
    for wrong in ({}, {"x": mg.ones(2)}):
        for names in (("schedule", "opt"), ("opt", "schedule")):
            schedule = Schedule(lr=0.4)
            w.param_groups[0]["lr"] = 0.8
            objects = {name: {"schedule": schedule, "opt": w}[name] for name in names} | wrong
            if wrong:
                with pytest.raises(CheckpointError, match=r"x: the file has float32 \(1,\)"):
                    load(path, **objects)
            else:
                load(path, **objects)
            assert w.param_groups[0]["lr"] == (0.8 if wrong else 0.7)
            assert schedule.state == {"lr": 0.4 if wrong else 0.3}


def test_an_interrupt_while_loading_undoes_what_was_loaded(path):
    class Interrupted(Box):
        def load_state_dict(self, state):
            super().load_state_dict(state)
            if state["x"] == 1:
                raise KeyboardInterrupt

    save(path, t=mg.ones(2), a=Box(x=1), b=Box(x=1))
    t, a, b = mg.zeros(2), Box(x=0), Interrupted(x=0)
    with pytest.raises(KeyboardInterrupt):
        load(path, t=t, a=a, b=b)
    assert t.tolist() == [0.0, 0.0] and a.state == {"x": 0} == b.state


def test_an_optimizer_is_stored_under_the_names_of_its_parameters(path):
    parts = [mg.full((1,), v, requires_grad=True) for v in (1.0, 2.0, 3.0)]
    model = Part(a=parts[0], b=parts[1])
    save(path, model=model, head=Part(c=parts[2]), opt=Momentum(parts))
    assert {"opt/state/a/v", "opt/state/b/v", "opt/state/head/c/v"} < set(load_file(path))
    c, b, a = (mg.full((1,), 0.0, requires_grad=True) for _ in range(3))
    opt = Momentum([b, c, a])  # another order
    load(path, opt=opt, head=Part(c=c), model=Part(a=a, b=b))
    assert opt.state == [2.0, 3.0, 1.0]
    assert [t.item() for t in (a, b, c)] == [1.0, 2.0, 3.0]
    assert load(path)["opt"]["param_groups"] == [{"params": ["a", "b", "head/c"], "lr": 0.1}]


def test_a_parameter_of_two_modules_has_one_name_in_whatever_order_they_are_given(path):
    shared = mg.full((1,), 4.0)
    save(path, a=Part(x=shared), b=Part(y=shared), opt=Momentum([shared]))
    other = mg.zeros(1)
    opt = Momentum([other])
    load(path, b=Part(y=other), a=Part(x=other), opt=opt)
    assert opt.state == [4.0] and other.item() == 4.0


def test_an_optimizer_saved_alone_goes_by_order(path):
    parts = [mg.full((1,), v) for v in (1.0, 2.0)]
    save(path, opt=Momentum(parts), epoch=1)
    opt = Momentum([mg.zeros(1)], [mg.zeros(1)])
    opt.param_groups = [{"params": [*opt.param_groups[0]["params"], mg.zeros(1)]}]
    load(path, opt=opt)
    assert opt.state == [1.0, 2.0]


def test_parameters_without_a_name_and_other_names_are_refused(path):
    a, b, c = (mg.full((1,), v) for v in (1.0, 2.0, 3.0))
    model = Part(a=a, b=b)
    with pytest.raises(ValueError, match=r"opt: 1 of its 3 parameters \(in its order: 2\) belong"):
        save(path, model=model, opt=Momentum([a, b, c]))
    save(path, model=model, opt=Momentum([a, b]), free=c)
    opt = Momentum([a, b])
    for objects, told in (
        ({"opt": opt}, "give its modules in the same call"),
        (
            {"opt": Momentum([a, c]), "model": Part(a=a, c=c)},
            "missing in the file: c; unknown ones",
        ),
        ({"opt": opt, "model": model, "free": opt}, "no state of an optimizer"),
        ({"opt": Momentum([a], [b]), "model": model}, "another order"),
        ({"opt": Momentum([b, c]), "model": model}, "belong to no module"),
    ):
        with pytest.raises(CheckpointError, match=told):
            load(path, **objects)
    assert opt.state == [1.0, 2.0]


# --- files of others


def test_a_file_without_our_metadata_is_a_model(path):
    save_file({"0.weight": np.ones((2, 2), "f4")}, path, metadata={"format": "pt"})
    assert same(load(path), {"model": {"0.weight": mg.ones((2, 2))}})
    for name in ("model", "net"):
        part = Part(**{"0.weight": mg.zeros((2, 2))})
        assert load(path, **{name: part}) == {}
        assert part.tensors["0.weight"].tolist() == [[1.0, 1.0]] * 2
    with pytest.raises(CheckpointError, match="opt: not in the file, which holds model"):
        load(path, model=part, opt=Box())


# --- PyTorch's files, and ours as PyTorch read it: see data/make_torch_checkpoint.py


def build():
    nn = mg.nn
    return nn.Sequential(
        nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Linear(8, 8, bias=False), nn.PReLU(8), nn.LayerNorm(8), nn.Linear(8, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def torch_values():
    return json.loads((DATA / "torch_checkpoint.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["torch_model", "our_model"])
def test_weights_give_the_outputs_that_they_give_in_pytorch(name, torch_values):
    model = build()
    load(DATA / f"{name}.safetensors", model=model)
    got = model.eval()(mg.asarray(np.array(torch_values["x"]))).detach().numpy()
    wanted = torch_values["outputs"][name]
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
    assert model[3].num_batches_tracked.item() == 3


def test_a_file_that_pytorch_has_read_is_still_written_to_the_byte(path):
    stored = DATA / "our_model.safetensors"
    model = build()
    optimizer = mg.optim.Adam(model.parameters(), lr=0.5)
    load(stored, model=model, optimizer=optimizer)
    save(path, model=model, optimizer=optimizer)
    old, new = stored.read_bytes(), path.read_bytes()
    split = [8 + int.from_bytes(data[:8], "little") for data in (old, new)]
    assert old[split[0] :] == new[split[1] :]
    headers = [json.loads(data[8:at]) for data, at in zip((old, new), split, strict=True)]
    metas = [json.loads(header.pop("__metadata__")["microgradnd"]) for header in headers]
    assert headers[0] == headers[1]
    if metas[0]["version"] == metas[1]["version"]:
        assert old == new
    assert [meta["objects"] for meta in metas] == [metas[0]["objects"]] * 2


def test_bfloat16_of_pytorch(torch_values):
    got = load(DATA / "torch_bfloat16.safetensors")["model"]
    assert {name: t.tolist() for name, t in got.items()} == torch_values["bfloat16"]
    assert {t.dtype.name for t in got.values()} == {"float32"}


def raw_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_bfloat16_becomes_float32_exactly(path):
    values = np.array([1.0, -2.5, 3.0e38, 1e-40, np.inf, 0.0], "f4")
    half = (values.view("u4") >> 16).astype("<u2")
    entry = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
    path.write_bytes(raw_file({"w": entry}, half.tobytes()))
    got = load(path)["model"]["w"].numpy()
    assert got.dtype == np.float32 and got.shape == (2, 3)
    assert np.array_equal(got.ravel().view("u4"), half.astype("u4") << 16)


# --- damaged files


def test_a_missing_file_is_the_systems_error(path):
    with pytest.raises(FileNotFoundError):
        load(path)
    with pytest.raises(IsADirectoryError):
        load(path.parent)


def test_nothing_is_ever_unpickled_or_run(path):
    script = """if True:
        import sys
        seen = []
        def hook(event, args):
            if event.startswith("pickle.") or event in ("exec", "compile", "os.system"):
                seen.append(event)
        import numpy as np, safetensors.numpy, pickle, warnings
        import microgradnd as mg
        from microgradnd import io
        from microgradnd.io import CheckpointError, load, save
        save(sys.argv[1], model={"w": np.ones(2)}, value=(1, None, {3: "x"}))  # imports all
        load(sys.argv[1])
        sys.addaudithook(hook)
        w = np.zeros(2)
        t = mg.zeros(3)
        save(sys.argv[1], model={"w": np.ones(2)}, value=(1, None, {3: "x"}), t=t)
        load(sys.argv[1])
        load(sys.argv[1], t=t)
        class Evil:
            def __reduce__(self):
                return print, ("unpickled",)
        open(sys.argv[1], "wb").write(pickle.dumps(Evil()))
        try:
            load(sys.argv[1])
        except CheckpointError:
            print("refused")
        print(seen)
        pickle.loads(pickle.dumps(Evil()))
        print(seen)"""
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.split("\n")[:4] == ["refused", "[]", "unpickled", "['pickle.find_class']"]


# --- writing that fails


def test_what_was_written_is_read_back_before_it_replaces_anything(path, monkeypatch):
    save(path, value="old")
    with monkeypatch.context() as patch:
        wrong = to_bytes({"w": np.zeros(3)}, metadata={"microgradnd": "{}"})
        patch.setattr("safetensors.numpy.save", lambda *args, **kwargs: wrong)
        with pytest.raises(CheckpointError, match="no sound checkpoint"):
            save(path, w=np.ones(3))
    assert load(path) == {"value": "old"} and files(path) == [path.name]


def test_the_folder_is_told_when_it_is_missing(path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing; make it first"):
        save(path.parent / "missing" / "a", x=1)
    with pytest.raises(IsADirectoryError):
        save(path.parent, x=1)
    assert files(path) == [] and not [p for p in path.parent.parent.glob(f".{path.parent.name}*")]


def test_a_link_stays_a_link(path):
    link = path.parent / "latest"
    link.symlink_to(path.name)
    save(link, x=1)
    save(link, x=2)
    assert link.is_symlink() and load(path) == {"x": 2} == load(str(link))
    assert files(path) == ["latest", path.name]


def test_long_names_and_names_that_look_like_patterns(tmp_path):
    for name in ("x" * 255, "a[*]?", "ü" * 120):
        save(tmp_path / name, x=1)
        assert load(tmp_path / name) == {"x": 1}
        (tmp_path / name).unlink()


def test_only_what_the_dead_left_is_swept_away(path):
    fcntl = pytest.importorskip("fcntl")
    dead, alive = (path.parent / f".{path.name}.{x}{io.SUFFIX}" for x in ("dead", "alive"))
    other = path.parent / f".{path.name}.tmp"
    for file in (dead, alive, other):
        file.write_bytes(b"half")
    with open(alive, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        save(path, x=1)
        assert files(path) == sorted([alive.name, other.name, path.name])
    save(path, x=1)
    assert files(path) == sorted([other.name, path.name])


def test_a_temporary_that_is_swept_before_it_is_locked_is_made_anew(path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    swept = []

    def flock(file, how):
        if not swept:
            swept.append(file.name)
            os.unlink(file.name)
        fcntl.flock(file, how)

    names = SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr(io, "fcntl", names)
    save(path, x=1)
    assert len(swept) == 1 and load(path) == {"x": 1} and files(path) == [path.name]


def test_a_file_system_without_locks_is_written_to(path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    names = SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr(io, "fcntl", names)
    other = path.parent / f".{path.name}.perhaps-alive{io.SUFFIX}"
    other.write_bytes(b"half")
    save(path, x=1)
    assert load(path) == {"x": 1} and files(path) == sorted([other.name, path.name])


def test_threads_may_save_to_one_file(path):
    faults = []

    def work(number):
        try:
            for _ in range(20):
                save(path, number=number, w=np.full(100, number))
                got = load(path)
                assert (got["w"] == got["number"]).all()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == [] and files(path) == [path.name]


@pytest.mark.parametrize("arguments", [("path", mg.nn.Linear(1, 1)), ({"w": 1}, "path"), ({},)])
def test_objects_need_a_name_and_the_path_comes_first(arguments):
    for act, name in ((mg.save, "save"), (mg.load, "load")):
        with pytest.raises(TypeError, match=rf"mg.{name}\('run.safetensors', model=model\)"):
            act(*arguments)
