"""Datasets, the loader and its resumption, toy problems, digits, IDX files."""

from __future__ import annotations

import gc
import gzip
import hashlib
import itertools
import json
import struct
import sys
import threading
import weakref

import numpy as np
import pytest
import standin
from hypothesis import given
from hypothesis import strategies as st
from samples import registered

import microgradnd as mg
from microgradnd import data
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.data import DataLoader, TensorDataset
from microgradnd.random import Generator, default_generator

DEVICE = CupyBackend(standin.cupy, standin.special, name="standin")


@pytest.fixture
def device():
    with registered(DEVICE), mg.backend.use("standin"):
        yield DEVICE
        DEVICE.synchronize()  # no test leaves a fault behind


def prefetching():
    """The threads that read ahead."""
    return [t for t in threading.enumerate() if t.name.startswith("microgradnd-prefetch")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not prefetching()


def numbered(n):
    """A dataset whose rows tell their number."""
    return TensorDataset(np.arange(n, dtype="float32")[:, None] * [1, 10], np.arange(n))


def ids(batches):
    return [y.tolist() for _, y in batches]


class Squares:
    """A dataset of items; fails where it is told to."""

    def __init__(self, n, fails=None, error=None):
        self.n, self.fails, self.error = n, fails, error

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.fails:
            raise self.error
        return float(i * i), i


# ------------------------------------------------------------------------------ dataset


def test_a_dataset_gives_tuples_of_rows():
    x, y = np.arange(12.0).reshape(4, 3), mg.tensor([3, 2, 1, 0])
    dataset = TensorDataset(x, y)
    assert len(dataset) == 4
    assert dataset.arrays[0] is x and dataset.arrays[1] is y
    row, label = dataset[1]
    np.testing.assert_array_equal(row, x[1])
    assert label.item() == 2
    rows, labels = dataset[1:3]
    np.testing.assert_array_equal(rows, x[1:3])
    assert labels.tolist() == [2, 1]
    for index in ([-1, 0], np.array([-1, 0]), mg.tensor([-1, 0])):
        rows, labels = dataset[index]
        np.testing.assert_array_equal(rows, x[[-1, 0]])
        assert labels.tolist() == [0, 3]
    assert dataset[[]][0].shape == (0, 3)


def test_lists_take_the_default_dtype_and_arrays_keep_theirs():
    dataset = TensorDataset([0.5, 1.5], np.array([0.5, 1.5]), [1, 2], np.array([1, 2], "uint8"))
    assert [str(a.dtype) for a in dataset.arrays] == ["float32", "float64", "int64", "uint8"]
    (batch,) = DataLoader(dataset, batch_size=2)
    assert [str(t.dtype) for t in batch] == ["float32", "float64", "int64", "uint8"]
    assert all(isinstance(t, mg.Tensor) for t in batch)


@pytest.mark.parametrize(
    ("arrays", "error", "text"),
    [
        ((), ValueError, "same length are wanted, got []"),
        ((np.zeros(3), np.zeros(2)), ValueError, "same length are wanted, got [(3,), (2,)]"),
        ((np.zeros(()),), ValueError, "same length are wanted, got [()]"),
        ((["a"],), TypeError, "a tensor is made of numbers"),
        ((mg.tensor([1.0], requires_grad=True),), ValueError, "array 0 requires a gradient"),
    ],
)
def test_what_is_no_dataset(arrays, error, text):
    with pytest.raises(error) as caught:
        TensorDataset(*arrays)
    assert text in str(caught.value)


@pytest.mark.parametrize("index", [[0, 4], [-5], 4])
def test_rows_out_of_bounds(index):
    with pytest.raises(IndexError, match="out of bounds"):
        TensorDataset(np.zeros(4))[index]


def test_an_index_is_made_of_integers():
    with pytest.raises(TypeError, match="integers is wanted, got float64"):
        TensorDataset(np.zeros(4))[[0.0, 1.0]]


# ------------------------------------------------------------------------------ batches

SIZES = st.integers(0, 9), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 3)


@given(*SIZES)
def test_every_example_comes_once_in_each_epoch(n, size, shuffle, drop_last, prefetch):
    loader = DataLoader(numbered(n), size, shuffle, drop_last, Generator(n), prefetch)
    for epoch in range(3):
        assert loader.epoch == epoch
        batches = list(loader)
        given_ = ids(batches)
        flat = list(itertools.chain(*given_))
        assert len(batches) == len(loader)
        assert len(set(flat)) == len(flat) == (n - n % size if drop_last else n)
        assert all(len(ys) == size for ys in given_[: n // size])
        for x, y in batches:
            np.testing.assert_array_equal(x.numpy(), y.numpy()[:, None] * [1, 10])
        if not shuffle:
            assert flat == list(range(len(flat)))


def test_orders_differ_from_epoch_to_epoch_and_follow_the_seed():
    mg.manual_seed(3)
    loader = DataLoader(numbered(50), 7, shuffle=True)
    first, second = ids(loader), ids(loader)
    assert first != second
    mg.manual_seed(3)
    assert ids(DataLoader(numbered(50), 7, shuffle=True, prefetch=2)) == first
    order = mg.manual_seed(3).permutation(50).tolist()
    assert list(itertools.chain(*first)) == order


def test_a_batch_shares_no_memory_with_the_dataset():
    x, t = np.zeros(4), mg.zeros(4)
    for shuffle in (False, True):
        for a, b in DataLoader(TensorDataset(x, t), 4, shuffle):
            a += 1.0
            b += 1.0
    assert not x.any()
    assert not t.numpy().any()


def test_any_object_with_length_and_items_is_a_dataset():
    for prefetch in (0, 2):
        (x, y), (last, _) = DataLoader(Squares(5), 3, prefetch=prefetch)
        assert (x.tolist(), y.tolist()) == ([0.0, 1.0, 4.0], [0, 1, 2])
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert last.tolist() == [9.0, 16.0]
    (bare,) = DataLoader([mg.tensor([1.0, 2.0]), mg.tensor([3.0, 4.0])], 2)
    assert bare.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    (bare,) = DataLoader([np.zeros(3, "int8"), np.ones(3, "int8")], 2)
    assert (bare.shape, bare.dtype) == ((2, 3), np.int8)


def test_a_subclass_decides_what_its_items_are():
    class Doubled(TensorDataset):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return 2 * x, y

    (x, y), _ = DataLoader(Doubled(np.arange(4.0), np.arange(4)), 2)
    assert (x.tolist(), y.tolist()) == ([0.0, 2.0], [0, 1])


def test_a_collate_fn_makes_the_batch_of_items():
    def padded(items):
        rows = np.zeros((len(items), max(map(len, items))), "int32")
        for row, item in zip(rows, items, strict=True):
            row[: len(item)] = item
        return rows, [np.int64(len(items)), "kept as it is"]

    loader = DataLoader([[1], [2, 3]], 2, collate_fn=padded)
    ((rows, (count, text)),) = loader
    assert (rows.tolist(), rows.dtype) == ([[1, 0], [2, 3]], np.int32)
    assert isinstance(count, mg.Tensor) and count.item() == 2
    assert text == "kept as it is"


def test_items_that_do_not_stack():
    with pytest.raises(ValueError, match=r"several lengths, \[1, 2\]"):
        next(iter(DataLoader([(1,), (1, 2)], 2)))
    with pytest.raises(ValueError, match="ragged data"):
        next(iter(DataLoader([np.zeros(2), np.zeros(3)], 2)))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
        ({"batch_size": 1.5}, TypeError, "integer"),
        ({"prefetch": -1}, ValueError, "prefetch must be >= 0, got -1"),
        ({"generator": 7}, TypeError, "a mg.Generator is wanted, got 7"),
        ({"dataset": iter([])}, TypeError, "has no __len__"),
        ({"dataset": {1}}, TypeError, "a set has no __getitem__"),
    ],
)
def test_options_that_make_no_sense(options, error, text):
    with pytest.raises(error) as caught:
        DataLoader(**{"dataset": numbered(3), **options})
    assert text in str(caught.value)


# ------------------------------------------------------------------------------ on the device


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_host_data_cost_one_upload_for_each_array_and_batch(device, prefetch, shuffle):
    loader = DataLoader(numbered(10), 4, shuffle, prefetch=prefetch)
    with standin.counting() as counted:
        batches = list(loader)
    assert all(t.backend is device for batch in batches for t in batch)
    assert counted.uploads == 2 * len(batches)
    assert counted.host_copies == counted.syncs == 0
    assert sorted(itertools.chain(*ids(batches))) == list(range(10))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_device_data_are_indexed_on_the_device(device, prefetch):
    x, y = mg.tensor(np.arange(6.0)), mg.tensor(np.arange(6))
    loader = DataLoader(TensorDataset(x, y), 2, shuffle=True, prefetch=prefetch)
    with standin.counting() as counted:
        for _ in range(200):  # more than the device keeps unchecked indices for
            batches = list(loader)
    assert counted.uploads == 200 * len(batches)  # of the indices, once for both arrays
    assert counted.host_copies == counted.syncs == 0
    assert sorted(itertools.chain(*ids(batches))) == list(range(6))
    assert all(t.backend is device for batch in batches for t in batch)
    assert TensorDataset(x, y)[[1, -1]][1].tolist() == [1, 5]


def test_device_arrays_stay_and_host_tensors_stay(device):
    raw = device.asarray(np.arange(4.0))
    with mg.backend.use("numpy"):
        host = mg.tensor([4, 3, 2, 1])
    dataset = TensorDataset(raw, host)
    assert dataset.arrays[0]._array is raw
    ((x, y),) = DataLoader(dataset, 4)
    assert (x.backend.name, y.backend.name) == ("standin", "numpy")


def test_orders_are_the_same_on_every_backend(device):
    there = ids(DataLoader(numbered(20), 3, True, generator=Generator(5)))
    with mg.backend.use("numpy"):
        assert ids(DataLoader(numbered(20), 3, True, generator=Generator(5))) == there


# ------------------------------------------------------------------------------ reading ahead


def test_prefetch_reads_ahead_in_one_thread_and_in_the_callers_context():
    seen = []
    enough = threading.Semaphore(0)

    class Watched(Squares):
        def __getitem__(self, i):
            seen.append((threading.current_thread().name, mg.get_default_dtype().name))
            enough.release()
            return super().__getitem__(i)

    mg.set_default_dtype("float64")
    try:
        batches = iter(DataLoader(Watched(20), prefetch=3))
        x, _ = next(batches)
    finally:
        mg.set_default_dtype("float32")
    assert x.dtype == np.float64
    for _ in range(4):  # the batch given, and three behind it
        assert enough.acquire(timeout=60)
    assert not enough.acquire(timeout=0.05)
    assert len(prefetching()) == 1
    assert len(set(seen)) == 1 and seen[0][1] == "float64"
    assert seen[0][0] != threading.current_thread().name
    batches.close()
    assert not prefetching()


@pytest.mark.parametrize("error", [KeyError("row"), StopIteration(), KeyboardInterrupt()])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_errors_of_the_dataset_reach_the_consumer_in_their_turn(prefetch, error):
    loader = DataLoader(Squares(9, fails=5, error=error), 2, prefetch=prefetch)
    got = []
    # A StopIteration that passed would end the epoch in silence.
    with pytest.raises(RuntimeError if type(error) is StopIteration else type(error)):
        for _, y in loader:
            got.append(y.tolist())
    assert got == [[0, 1], [2, 3]]
    assert loader.state_dict()["batches"] == 2
    assert not prefetching()


def test_no_thread_survives_its_consumer():
    loader = DataLoader(Squares(50), prefetch=4)
    for _ in loader:
        assert len(prefetching()) == 1
        break
    assert not prefetching()

    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            1 / 0  # noqa: B018
    assert not prefetching()

    iter(loader)  # never asked for a batch
    waiting = iter(loader)
    next(waiting)
    alive = weakref.ref(loader)
    del loader, waiting
    gc.collect()
    assert alive() is None
    assert not prefetching()


def test_an_iterator_in_a_cycle_is_collected_with_its_thread():
    class Holder:
        pass

    holder = Holder()
    holder.loader = DataLoader(Squares(50), prefetch=2)
    holder.batches, holder.me = iter(holder.loader), holder
    next(holder.batches)
    assert len(prefetching()) == 1
    del holder
    gc.collect()
    assert not prefetching()


def test_a_thread_that_collects_its_own_iterator_ends_too():
    class Collecting(Squares):
        def __getitem__(self, i):
            if i == 3:
                go.wait(60)
                gc.collect()
                done.set()
            return super().__getitem__(i)

    go, done = threading.Event(), threading.Event()
    batches = iter(DataLoader(Collecting(9), prefetch=4))
    next(batches)
    cycle = [batches]
    cycle.append(cycle)
    (thread,) = prefetching()
    gc.disable()
    try:
        del batches, cycle
        go.set()
        assert done.wait(60)
        thread.join(60)
        assert not thread.is_alive()
    finally:
        gc.enable()


# ------------------------------------------------------------------------------ resuming


def step(batch):
    """What a training step leaves: the examples, and a draw of dropout."""
    return batch[1].tolist(), mg.random.uniform(shape=()).item()


def run(loader, steps):
    """Take steps as a training loop does, one epoch after the other."""
    done = []
    while len(done) < steps:
        for batch in loader:
            done.append(step(batch))
            if len(done) == steps:
                break
    return done


@given(
    n=st.integers(1, 9), size=st.integers(1, 4), shuffle=st.booleans(), drop_last=st.booleans(),
    own=st.booleans(), prefetch=st.integers(0, 2), again=st.integers(0, 2), data_=st.data(),
)  # fmt: skip
def test_a_run_resumes_bit_for_bit_at_every_position(
    n, size, shuffle, drop_last, own, prefetch, again, data_
):
    def new(ahead, seed):
        mg.manual_seed(seed)
        source = Generator(seed) if own else None
        return DataLoader(numbered(n), size, shuffle, drop_last, source, ahead)

    if not len(new(0, 0)):
        return
    total = 3 * len(new(0, 0)) + 1
    whole = run(new(0, 1), total)
    stop = data_.draw(st.integers(0, total))
    loader = new(prefetch, 1)
    head = run(loader, stop)
    saved = json.dumps([loader.state_dict(), default_generator().state])
    loader = new(again, 2)  # another seed: everything must come from what was saved
    mine, common = json.loads(saved)
    loader.load_state_dict(mine)
    assert json.loads(json.dumps(loader.state_dict())) == mine
    default_generator().state = common
    assert head + run(loader, total - stop) == whole


def test_the_order_of_loading_does_not_matter():
    mg.manual_seed(0)
    whole = DataLoader(numbered(9), 2, True)
    want = run(whole, 12)
    mg.manual_seed(0)
    loader = DataLoader(numbered(9), 2, True)
    run(loader, 3)
    mine, common = loader.state_dict(), default_generator().state
    for loader_first in (True, False):
        mg.manual_seed(8)
        fresh = DataLoader(numbered(9), 2, True)
        if loader_first:
            fresh.load_state_dict(mine)
            assert default_generator().state == {"seed": 8, "counter": 0}
        default_generator().state = common
        if not loader_first:
            fresh.load_state_dict(mine)
        assert run(fresh, 9) == want[3:]


@pytest.mark.parametrize("prefetch", [0, 3])
def test_the_state_counts_what_the_consumer_has(prefetch):
    loader = DataLoader(numbered(6), 2, True, prefetch=prefetch)
    fresh = loader.state_dict()
    assert (fresh["epoch"], fresh["batches"], fresh["permutation"]) == (0, 0, None)
    start = default_generator().state
    for i, _ in enumerate(loader, 1):
        state = loader.state_dict()
        if i < 3:
            assert (state["epoch"], state["batches"]) == (0, i)
            assert state["permutation"] == start
        else:  # inside the body of the last batch already
            assert (state["epoch"], state["batches"], state["permutation"]) == (1, 0, None)
    assert loader.state_dict() == state
    assert loader.epoch == 1


def test_a_state_between_the_draw_and_the_first_batch_keeps_the_order():
    mg.manual_seed(4)
    loader = DataLoader(numbered(9), 2, True)
    batches = iter(loader)
    mine, common = loader.state_dict(), default_generator().state
    want = run(batches, 5)
    fresh = DataLoader(numbered(9), 2, True)
    fresh.load_state_dict(mine)
    default_generator().state = common
    assert run(fresh, 5) == want


def test_only_the_first_loop_after_loading_goes_on_in_the_middle():
    loader = DataLoader(numbered(6), 2)
    loader.load_state_dict({**loader.state_dict(), "epoch": 4, "batches": 1})
    assert ids(loader) == [[2, 3], [4, 5]]
    assert loader.epoch == 5
    assert ids(loader) == [[0, 1], [2, 3], [4, 5]]
    loader.load_state_dict({**loader.state_dict(), "batches": 1})
    next(iter(loader))
    assert ids(loader) == [[0, 1], [2, 3], [4, 5]]


def test_an_older_iterator_does_not_move_the_position():
    loader = DataLoader(numbered(6), 2)
    old = iter(loader)
    next(old)
    new = iter(loader)
    next(old)
    assert loader.state_dict()["batches"] == 0
    next(new)
    assert loader.state_dict()["batches"] == 1


STATE = {"seed": 1, "counter": 4}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"length": 7}, "length is 7, here 6"),
        ({"batch_size": 3}, "batch_size is 3, here 2"),
        ({"shuffle": False}, "shuffle is False, here True"),
        ({"drop_last": True}, "drop_last is True, here False"),
        ({"drop_last": None}, "drop_last is None, here False"),
        ({"batches": 3}, "batches is 3, here 3 in an epoch"),
        ({"batches": -1}, "batches is -1"),
        ({"batches": 1.0}, "batches is 1.0"),
        ({"batches": 1, "permutation": None}, "permutation is None"),
        ({"permutation": {}}, "permutation is {}"),
        ({"permutation": {"seed": 1}}, "permutation is {'seed': 1}"),
        ({"permutation": {"seed": 1, "counter": -1}}, "permutation is {'seed': 1, 'counter': -1}"),
        ({"permutation": {"seed": 2**128, "counter": 0}}, "permutation is {'seed': 3402823669"),
        ({"epoch": "1"}, "epoch is '1'"),
        ({"generator": STATE}, "generator is {'seed': 1, 'counter': 4}, here None"),
        ({"length": 7, "batch_size": 3}, "length is 7, here 6; batch_size is 3, here 2"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, text):
    loader = DataLoader(numbered(6), 2, True)
    good = {**loader.state_dict(), "epoch": 1, "batches": 1, "permutation": STATE}
    loader.load_state_dict(good)
    with pytest.raises(ValueError) as caught:
        loader.load_state_dict({**good, "batches": 2, **change})
    assert text in str(caught.value)
    assert loader.state_dict() == good


def test_a_generator_of_its_own_must_be_there_on_both_sides():
    own = DataLoader(numbered(6), 2, True, generator=Generator(3))
    state = own.state_dict()
    assert state["generator"] == {"seed": 3, "counter": 0}
    with pytest.raises(ValueError, match=r"generator is {'seed': 3"):
        DataLoader(numbered(6), 2, True).load_state_dict(state)
    with pytest.raises(ValueError, match="generator is None, here <"):
        own.load_state_dict({**state, "generator": None})
    # The default generator is saved by itself, also when it was named.
    named = DataLoader(numbered(6), 2, True, generator=default_generator())
    assert named.state_dict()["generator"] is None
    unshuffled = DataLoader(numbered(6), 2)
    with pytest.raises(ValueError, match=r"permutation is {'seed': 1"):
        unshuffled.load_state_dict({**unshuffled.state_dict(), "permutation": STATE})


# ------------------------------------------------------------------------------ toy problems

TOYS = {"moons": 2, "circles": 2, "spirals": 2, "blobs": 3}


@pytest.mark.parametrize("name", TOYS)
def test_toy_problems_are_a_function_of_their_seed(name, device):
    make, classes = getattr(data, name), TOYS[name]
    before = default_generator().state, np.random.get_state()[1].tolist()
    x, y = make(101, 0.2, seed=7)
    assert (type(x), x.shape, x.dtype) == (np.ndarray, (101, 2), np.float32)
    assert (type(y), y.shape, y.dtype) == (np.ndarray, (101,), np.int64)
    counts = np.bincount(y)
    assert len(counts) == classes and counts.max() - counts.min() <= 1
    assert len({tuple(y[i : i + classes]) for i in range(0, 99, classes)}) > 1  # shuffled
    for again in (make(101, 0.2, 7), make(101, 0.2, Generator(7))):
        np.testing.assert_array_equal(again[0], x)
        np.testing.assert_array_equal(again[1], y)
    assert not np.array_equal(make(101, 0.2, 8)[0], x)
    source = Generator(7)
    make(101, 0.2, source)
    assert not np.array_equal(make(101, 0.2, source)[0], x)  # it goes on from where it was
    assert before == (default_generator().state, np.random.get_state()[1].tolist())


def test_points_without_noise_lie_on_their_curves():
    x, y = data.moons(60, noise=0)
    centre = np.where(y[:, None] == 0, [0.0, 0.0], [1.0, 0.5])
    np.testing.assert_allclose(np.hypot(*(x - centre).T), 1, rtol=1e-6)
    assert (np.where(y == 0, x[:, 1], 0.5 - x[:, 1]) >= -1e-6).all()

    x, y = data.circles(60, noise=0, factor=0.3)
    np.testing.assert_allclose(np.hypot(*x.T), np.where(y == 0, 1, 0.3), rtol=1e-6)

    x, y = data.spirals(60, noise=0, classes=3, turns=2)
    r = np.hypot(*x.T)
    assert 0 < r.min() <= r.max() <= 1 + 1e-6
    angle = np.arctan2(x[:, 1], x[:, 0]) - 2 * np.pi * (2 * r + y / 3)
    np.testing.assert_allclose(np.cos(angle), 1, atol=1e-6)

    x, y = data.blobs(30, std=0, centers=[[0, 0, 1], [5, 5, 5]])
    np.testing.assert_array_equal(x, np.array([[0, 0, 1], [5, 5, 5]])[y])
    assert data.blobs(10, centers=4, features=6)[0].shape == (10, 6)


def test_noise_has_the_standard_deviation_asked_for():
    x, y = data.blobs(20000, std=0.5, centers=[[0.0, 0.0], [9.0, 9.0]])
    assert np.std(x - 9.0 * y[:, None]) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("call", [
    lambda: data.moons(0), lambda: data.moons(9, noise=-1), lambda: data.spirals(9, classes=0),
    lambda: data.blobs(9, centers=[1.0, 2.0]), lambda: data.moons(9, noise=float("nan")),
])  # fmt: skip
def test_toy_problems_that_make_no_sense(call):
    with pytest.raises(ValueError, match=r"wanted|must be|shape"):
        call()


def test_one_example_of_one_class():
    assert data.moons(1)[0].shape == (1, 2)
    assert data.spirals(3, classes=1)[1].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------ digits


@pytest.mark.slow
def test_digits_are_split_by_the_seed():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y, test_x, test_y = data.digits(seed=3)
    assert (x.shape, test_x.shape) == ((1437, 64), (360, 64))
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert (x.min(), x.max()) == (0, 1)
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(3).permutation(1797)  # the split of examples/quickstart.py
    np.testing.assert_array_equal(np.concatenate([x, test_x]) * 16, images[order])
    np.testing.assert_array_equal(np.concatenate([y, test_y]), labels[order])
    assert len(data.digits(test=0)[2]) == 0
    with pytest.raises(ValueError, match=r"\[0, 1797\), got 1797"):
        data.digits(test=1797)


def test_digits_name_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"mg.data.digits needs sklearn.*microgradnd\[examples\]"):
        data.digits()


# ------------------------------------------------------------------------------ IDX files

CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def packed(array):
    """The bytes of an IDX file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[str(array.dtype)], array.ndim,
                       *array.shape)  # fmt: skip
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path, array, zipped=False):
    """Write an IDX file; gives its unpacked bytes."""
    content = packed(array)
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    return content


@given(
    st.sampled_from(sorted(CODES)), st.lists(st.integers(0, 4), max_size=4), st.booleans(),
    st.integers(0, 2**32),
)  # fmt: skip
def test_idx_files_are_read_as_they_were_written(tmp_path_factory, dtype, shape, zipped, seed):
    content = np.random.default_rng(seed).integers(-99, 99, shape)
    array = np.asarray(content / 4 if "float" in dtype else content).astype(dtype)
    path = tmp_path_factory.mktemp("idx") / "file"
    write_idx(path, array, zipped)
    got = data.read_idx(str(path))
    np.testing.assert_array_equal(got, array)
    assert (got.shape, got.dtype, got.dtype.isnative) == (array.shape, array.dtype, True)
    assert got.flags.writeable


WHOLE = packed(np.arange(6, dtype="int16").reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no IDX file, it begins with nothing"),
        (b"\0\0\x08", "no IDX file, it begins with 00 00 08"),
        (b"PNG..", "no IDX file, it begins with 50 4e 47 2e"),
        (b"\0\0\x0a\x01" + bytes(4), "no IDX file, it begins with 00 00 0a 01"),
        (WHOLE[:-1], "truncated: 23 bytes, 24 for [2, 3] of >i2"),
        (WHOLE[:9], "truncated"),
        (WHOLE + b"\0", "has bytes behind its end: 25 bytes, 24 for [2, 3] of >i2"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "truncated"),
        (gzip.compress(WHOLE)[:-9], "a damaged gzip file"),
        (gzip.compress(WHOLE)[:-8] + bytes(8), "a damaged gzip file"),
        (gzip.compress(WHOLE)[:12] + b"\xff" * 30, "a damaged gzip file"),
    ],
)
def test_what_is_no_whole_idx_file(tmp_path, content, text):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        data.read_idx(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


def publish(folder, monkeypatch, zipped=True):
    """Make a small set and let it be the published one; gives its four arrays."""
    rng, sums, arrays = np.random.default_rng(0), [], []
    for file in data._IDX_FILES:
        shape = (5, 4, 3) if "images" in file else (5,)
        array = rng.integers(0, 256, shape).astype("uint8")
        content = write_idx(folder / (file + ".gz" * zipped), array, zipped)
        sums.append(hashlib.md5(content, usedforsecurity=False).hexdigest())
        arrays.append(array)
    monkeypatch.setitem(data._PUBLISHED, "mnist", ("somewhere", tuple(sums)))
    return arrays


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_read_packed_and_unpacked(tmp_path, monkeypatch, zipped):
    arrays = publish(tmp_path, monkeypatch, zipped)
    x, y, test_x, test_y = data.mnist(tmp_path)
    assert (x.shape, x.dtype, y.dtype) == ((5, 12), np.float32, np.int64)
    np.testing.assert_allclose(x * 255, arrays[0].reshape(5, 12), rtol=1e-6)
    np.testing.assert_array_equal(y, arrays[1])
    np.testing.assert_allclose(test_x * 255, arrays[2].reshape(5, 12), rtol=1e-6)
    np.testing.assert_array_equal(test_y, arrays[3])
    assert 0 <= x.min() <= x.max() <= 1


def test_missing_files_are_named_with_the_place_to_get_them(tmp_path, monkeypatch):
    publish(tmp_path, monkeypatch)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        data.mnist(tmp_path)
    text = str(caught.value)
    assert "lacks train-labels-idx1-ubyte;" in text
    assert str(tmp_path) in text and "somewhere" in text and "nothing is downloaded" in text
    with pytest.raises(FileNotFoundError, match="zalandoresearch/fashion-mnist"):
        data.mnist(tmp_path / "absent", name="fashion")
    with pytest.raises(ValueError, match=r"\['fashion', 'mnist'\], got 'emnist'"):
        data.mnist(tmp_path, name="emnist")


def test_a_file_with_another_checksum_is_refused(tmp_path, monkeypatch):
    arrays = publish(tmp_path, monkeypatch)
    monkeypatch.setitem(data._PUBLISHED, "fashion", data._PUBLISHED["mnist"])
    monkeypatch.setitem(data._PUBLISHED, "mnist", ("somewhere", ("0" * 32,) * 4))
    with pytest.raises(ValueError, match="of 'mnist', it belongs to 'fashion'"):
        data.mnist(tmp_path)
    changed = arrays[2] ^ 1
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", changed, zipped=True)
    with pytest.raises(ValueError, match=r"t10k.* is not the published file of 'fashion' \(MD5"):
        data.mnist(tmp_path, "fashion")


def test_the_published_checksums_are_eight_different_ones():
    sums = [md5 for _, group in data._PUBLISHED.values() for md5 in group]
    assert len(set(sums)) == 8
    assert all(len(md5) == 32 and int(md5, 16) for md5 in sums)


def test_arrays_are_no_dataset():
    with pytest.raises(TypeError, match=r"use TensorDataset\(x, y\)"):
        DataLoader((np.ones((3, 2)), np.ones(3)))
