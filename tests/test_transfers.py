"""Hidden traffic with a device is found: `forbid_transfers`, page-locked uploads, device flags."""

from __future__ import annotations

import copy
import re
import threading
from contextlib import ExitStack

import numpy as np
import pytest
import standin
from samples import registered

import microgradnd as mg
from microgradnd import nn, optim
from microgradnd.backend import TransferError, cupy_backend, forbid_transfers, transfers
from microgradnd.backend.cupy_backend import CupyBackend
from microgradnd.backend.interface import Staged
from microgradnd.data import DataLoader, TensorDataset

DEVICE = CupyBackend(standin.cupy, standin.special, name="standin")


@pytest.fixture(autouse=True)
def device():
    with registered(DEVICE):
        yield DEVICE
        DEVICE.synchronize()
    assert not sum(transfers._watchers.values())


def dev(data, dtype="f4"):
    return mg.asarray(DEVICE.asarray(np.asarray(data, dtype)))


# ------------------------------------------------------------------------------ forbid_transfers

READS = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0]),
    "int": lambda x: int(x[0]),
    "numpy": lambda x: x.numpy(),
    "tolist": lambda x: x.tolist(),
    "repr": lambda x: repr(x),
    "format": lambda x: f"{x[0]:.2f}",
    "in": lambda x: 2.0 in x,
    "to": lambda x: x.to("numpy"),
    "mask": lambda x: x[x > 1.0],
    "written mask": lambda x: x.__setitem__(x > 1.0, 0.0),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "raw float": lambda x: float(x.data[0]),
    "raw get": lambda x: x.data.get(),
    "raw asnumpy": lambda x: standin.cupy.asnumpy(x.data),
    "raw nonzero": lambda x: x.data.nonzero(),
    "raw print": lambda x: print(x.data),
}
WAITS = {"synchronize": lambda x: DEVICE.synchronize()}
UPLOADS = {
    "tensor": lambda x: mg.tensor([1.0, 2.0]).to("standin"),
    "list as index": lambda x: x[[0, 1]],
    "asarray": lambda x: DEVICE.asarray([1.0]),
    "random": lambda x: mg.random.normal(shape=3, backend=DEVICE),
}


def counted(call, x):
    with standin.counting() as seen:
        call(x)
    return seen


@pytest.mark.parametrize("name", READS | WAITS)
def test_reading_and_waiting_raise_and_name_the_line(name):
    call, x = (READS | WAITS)[name], dev([1.0, 2.0, 3.0])
    assert counted(call, x).syncs  # so there is something to forbid
    for uploads in (False, True):
        with forbid_transfers(uploads), pytest.raises(TransferError) as caught:
            call(x)
        text = str(caught.value)
        assert text.startswith(("a copy from the device at ", "a wait for the device at "))
        assert f" at test_transfers.py:{call.__code__.co_firstlineno}, `" in text
    call(x)  # and after the block nothing is left of it


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_raises_unless_it_is_allowed(name):
    call, x = UPLOADS[name], dev([1.0, 2.0, 3.0])
    assert counted(call, x).uploads
    with forbid_transfers(), pytest.raises(TransferError, match=r"^an upload to the device at "):
        call(x)
    with forbid_transfers(uploads=True):
        call(x)


def test_the_message_shows_the_line_and_what_to_do():
    loss = dev([1.0, 2.0]).sum()
    with forbid_transfers(), pytest.raises(TransferError) as caught:
        print(f"loss {loss.item():.3f}")
    assert "`print(f\"loss {loss.item():.3f}\")`" in str(caught.value)
    assert str(caught.value).endswith("keep the Tensor, and read it after the block")


def test_a_block_inside_does_not_allow_what_the_outer_one_forbids():
    x = dev([1.0, 2.0])
    with forbid_transfers(), forbid_transfers(uploads=True):
        with pytest.raises(TransferError):
            x[[0]]
        with pytest.raises(TransferError):
            x[0].data.get()
    with forbid_transfers():
        with forbid_transfers():
            pass
        with pytest.raises(TransferError):
            x[0].data.get()


def test_blocks_that_end_in_another_order_leave_nothing_forbidden():
    def inside():
        with forbid_transfers():
            yield

    first, second, x = inside(), inside(), dev([1.0])
    next(first)
    next(second)
    first.close()
    with pytest.raises(TransferError):
        x.tolist()
    second.close()
    assert x.tolist() == [1.0]


def test_a_block_is_used_again_and_takes_only_a_truth_value():
    block, x = forbid_transfers(uploads=True), dev([1.0])
    for _ in range(2):
        with block, block, pytest.raises(TransferError):
            x.tolist()
    for wrong in ("no", 1, None):
        with pytest.raises(TypeError, match="uploads is True or False, got"):
            forbid_transfers(wrong)


def test_a_decorated_function_runs_in_several_threads_at_once():
    x, wrong, ready = dev([1.0]), [], threading.Barrier(2)

    @forbid_transfers()
    @mg.backend.use("standin")
    def work():
        ready.wait(10)  # both are inside
        if mg.backend.get() is not DEVICE:
            wrong.append("another backend")
        with pytest.raises(TransferError):
            x.tolist()

    def call():
        work()
        if x.tolist() != [1.0] or mg.backend.get().name != "numpy":
            wrong.append("something is left")

    def guarded():
        try:
            call()
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_line_is_the_user_s_and_not_the_standard_library_s():
    x = dev([1.0])
    with forbid_transfers(), pytest.raises(TransferError) as caught:
        copy.deepcopy([x])
    assert "`copy.deepcopy([x])`" in str(caught.value)


@pytest.mark.parametrize("make", [mg.zeros, mg.ones, lambda n: mg.full((n,), 2.5), mg.eye])
def test_constants_are_made_on_the_device(make):
    with mg.backend.use("standin"), forbid_transfers():
        assert make(3).backend is DEVICE


def test_other_threads_go_on_reading():
    x, seen = dev([1.0, 2.0]), []
    with forbid_transfers():
        thread = threading.Thread(target=lambda: seen.append((x.tolist(), x.data.get().tolist())))
        thread.start()
        thread.join()
    assert seen == [([1.0, 2.0], [1.0, 2.0])]


def test_the_array_class_is_as_before_after_the_last_block():
    plain = vars(standin.ndarray)["get"]
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(forbid_transfers())
        assert vars(standin.ndarray)["get"] is not plain
    assert vars(standin.ndarray)["get"] is plain

    class Sub(standin.ndarray):  # `cupy.ndarray` inherits it
        __slots__ = ()

    heir = CupyBackend(standin.cupy, standin.special, name="heir")
    heir.array_type = Sub
    twin = CupyBackend(standin.cupy, standin.special, name="twin")
    twin.array_type = Sub
    first, second = heir.watched(), twin.watched()
    first.__enter__()
    second.__enter__()  # of another thread, say: it ends last
    first.__exit__(None, None, None)
    assert "get" in vars(Sub)
    second.__exit__(None, None, None)
    assert "get" not in vars(Sub)
    with pytest.raises(ZeroDivisionError), heir.watched():
        assert "get" in vars(Sub)
        raise ZeroDivisionError
    assert "get" not in vars(Sub)


def test_it_is_a_decorator_and_nothing_is_forbidden_on_numpy():
    @forbid_transfers()
    def step(x):
        return (x * x).sum().item()

    for _ in range(2):
        assert step(mg.tensor([1.0, 2.0])) == 5.0
    with pytest.raises(TransferError):
        step(dev([1.0, 2.0]))


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_a_training_step_passes_and_a_read_loss_does_not(optimizer):
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).to("standin")
    update = optimizer(model.parameters(), lr=0.1)
    x, y = dev(np.ones((5, 4))), dev([0, 1, 2, 0, 1], "i8")
    with forbid_transfers():
        for _ in range(3):
            update.zero_grad()
            loss = mg.cross_entropy(model(x), y)
            loss.backward()
            update.step()
            with pytest.raises(TransferError):
                loss.item()
    assert loss.item() > 0


def test_a_whole_epoch_of_fit_needs_no_copy_but_its_end():
    model = nn.Linear(4, 3).to("standin")
    update = optim.SGD(model.parameters(), lr=0.1)

    class Steps(mg.train.Callback):
        def on_epoch_begin(self, loop):
            self.block = forbid_transfers(uploads=True)
            self.block.__enter__()

        def on_step_end(self, loop):
            if loop.step == 5:
                self.block.__exit__(None, None, None)

    with mg.backend.use("standin"):
        data = np.ones((20, 4), "f4"), np.arange(20) % 3
        history = mg.train.fit(
            model, nn.CrossEntropyLoss(), update, data, epochs=1, batch_size=4, progress=False,
            callbacks=[Steps()],
        )  # fmt: skip
    assert history["loss"][0] > 0


# ------------------------------------------------------------------------------ uploads


@pytest.mark.parametrize("shape", [(2, 3), (), (5,), (0, 3)])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "?", "u1"])
def test_what_was_staged_is_uploaded_as_it_was(shape, dtype):
    host = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3).astype(dtype)
    staged = DEVICE.stage(host)
    array = DEVICE.asarray(staged)
    assert (array.dtype, array.shape) == (host.dtype, host.shape)
    np.testing.assert_array_equal(array.get(), host)
    assert type(staged) is (Staged if host.size else np.ndarray)
    assert not np.may_share_memory(staged, host)
    np.testing.assert_array_equal(mg.backend.named("numpy").asarray(staged), host)


def test_a_staged_array_of_another_order_or_dtype_is_converted():
    host = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    array = DEVICE.asarray(DEVICE.stage(host), "f4")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.get(), host)


class Pairs:
    """A dataset whose items are made by Python."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return np.array([i, -1.0], "f4"), (i, "label")


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_loader_that_reads_ahead_uploads_from_page_locked_memory(prefetch):
    x, y = np.arange(12.0, dtype="f4").reshape(6, 2), np.arange(6)
    loader = DataLoader(TensorDataset(x, y), 2, prefetch=prefetch)
    with mg.backend.use("standin"), standin.counting() as seen, forbid_transfers(uploads=True):
        batches = list(loader)
    assert (seen.uploads, seen.pinned) == (6, 6 if prefetch else 0)
    assert (seen.syncs, seen.host_copies) == (0, 0)
    assert [t.tolist() for t, _ in batches] == x.reshape(3, 2, 2).tolist()
    assert [t.dtype for t in batches[0]] == [np.float32, np.int64]


def test_items_of_python_are_staged_too_and_what_is_no_array_passes():
    def collate(items):
        numbers, ids = zip(*items, strict=True)
        return mg.data.collate(list(numbers)), [i for _, i in ids]

    loader = DataLoader(Pairs(), 3, prefetch=2, collate_fn=collate)
    with mg.backend.use("standin"), standin.counting() as seen:
        (x, labels), _ = loader
    assert seen.pinned == seen.uploads == 2
    assert x.tolist() == [[0.0, -1.0], [1.0, -1.0], [2.0, -1.0]]
    assert labels == ("label",) * 3
    words = DataLoader(Pairs(), 3, prefetch=2, collate_fn=lambda items: np.array(["a"]))
    with pytest.raises(TypeError, match="made of numbers"):
        list(words)


def test_on_numpy_nothing_is_copied():
    host = np.ones(3)
    assert mg.backend.named("numpy").stage(host) is host


# ------------------------------------------------------------------------------ index checks

KEPT = 16


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(cupy_backend, "KEPT", KEPT)


def test_many_steps_without_reading_wait_for_nothing_and_keep_little(few):
    x, good = dev(np.ones((2, 4))), dev([0, 3], "i8")
    with standin.counting() as seen:
        for _ in range(3 * KEPT):
            mg.cross_entropy(x, good)
            mg.take(x, good, axis=1)
    assert (seen.syncs, seen.host_copies) == (0, 0)
    assert [len(kept) <= KEPT for kept in DEVICE._checks.values()] == [True, True]


def test_what_is_kept_of_indices_is_small():
    x, pool = dev(np.ones(4)), standin.cupy.get_default_memory_pool()
    for _ in range(3):
        ids = dev(np.zeros(100_000), "i8")
        mg.take(x, ids)
    del ids
    before = pool.used_bytes()
    DEVICE.synchronize()
    assert before - pool.used_bytes() < 1000


@pytest.mark.parametrize("bad", [0, 1, KEPT // 2, KEPT + 1, 3 * KEPT - 1])
def test_a_fault_is_found_however_long_ago_it_was(few, bad):
    x, good, far = dev(np.ones((2, 4))), dev([0, 3], "i8"), dev([1, 7], "i8")
    later = dev([9, 9], "i8")
    for step in range(3 * KEPT):
        mg.take(x, far if step == bad else later if step > bad else good, axis=1)
        mg.take(x, dev([[1]], "u1"), axis=1)  # another shape and dtype
    with pytest.raises(IndexError, match=r"^take: .*index 7 is out of bounds for size 4") as caught:
        x.tolist()
    line = test_a_fault_is_found_however_long_ago_it_was.__code__.co_firstlineno
    note, *_ = caught.value.__notes__
    assert note.endswith(", and told once, at the first reading since then.")
    found = re.findall(r"test_transfers\.py:(\d+)", note)  # of one call, or both of the loop
    assert found
    assert all(line < int(n) < line + 8 for n in found)
    x.tolist()  # said once


@pytest.mark.parametrize("dtype", ["i8", "i4", "u1", "i2"])
def test_an_index_that_is_overwritten_before_anybody_looks_is_found_all_the_same(dtype):
    x, ids = dev(np.ones(4)), dev([1, 9], dtype)
    picked = x[ids]
    with mg.no_grad():
        ids[1] = 0
    with pytest.raises(IndexError, match=r"^getitem: axis 0: index 9 is out of bounds for size 4"):
        picked.sum().item()


def test_all_faults_are_told_at_once():
    x = dev(np.ones(4))
    x[dev([0, 9], "i8")]
    mg.take(x, dev([7], "i8"))
    with pytest.raises(IndexError, match=r"^getitem: axis 0: index 9") as caught:
        x.tolist()
    (_, other) = caught.value.__notes__
    assert other.startswith("Also take: axis 0: index 7 is out of bounds for size 4. Found by ")
    with pytest.raises(IndexError, match=r"^getitem: .*9") as caught, mg.detect_anomaly():
        y = x.requires_grad_()[dev([0, 9], "i8")]  # at the call
        y.tolist()
    assert len(caught.value.__notes__) == 1


def test_a_shown_tensor_tells_of_a_fault():
    picked = dev(np.ones(4))[dev([9], "i8")]
    with pytest.raises(IndexError, match="index 9 is out of bounds"):
        repr(picked)
    assert repr(picked).startswith("Tensor([")


def test_faults_of_other_operations_are_kept_apart(few):
    x = dev(np.ones((2, 4)))
    for step in range(KEPT + 10):
        mg.nll(x, dev([0, 5 if step == 3 else 1], "i8"))
        mg.take(x, dev([0, 1], "i8"), axis=0)
    with pytest.raises(IndexError, match=r"^nll: .*target\[1\] = 5, classes 0..3"):
        DEVICE.synchronize()
    for step in range(KEPT + 10):  # of several shapes the place is not known
        mg.nll(dev(np.ones((step + 1, 4))), dev([-2 if step == 3 else 1] * (step + 1), "i8"))
    with pytest.raises(IndexError, match=r"^nll: .*a target = -2, classes 0..3"):
        DEVICE.synchronize()
    with pytest.raises(IndexError, match=r"^nll: .*target = 4, classes 0..3"):
        mg.nll(dev(np.ones(4)), dev(4, "i8")).item()


def test_threads_that_check_and_read_at_once_lose_no_fault(few):
    x, faults, good = dev(np.ones(4)), [], dev([0, 3], "i8")

    def work(bad):
        for step in range(4 * KEPT):
            mg.take(x, dev([bad + 4], "i8") if step == KEPT else good)
            with np.errstate(all="ignore"):
                try:
                    x.tolist()
                except IndexError as error:
                    faults.append(str(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(faults) <= 4
    DEVICE.synchronize()


# ------------------------------------------------------------------------------ the real CuPy

REAL_READS = [float, int, bool, complex, str, repr, lambda s: s.item(), lambda s: s.tolist(),
              lambda s: s.get(), lambda s: f"{s:.2f}"]  # fmt: skip


@pytest.mark.parametrize("read", [*REAL_READS, "asnumpy"])
def test_every_reading_of_a_real_cupy_array_is_seen(read):
    real = pytest.importorskip("cupy")
    from cupyx.scipy import special

    backend = CupyBackend(real, special, name="real")
    host = np.ones((), "f4")
    if real.cuda.runtime.driverGetVersion():
        scalar = real.ones((), "f4")
    else:  # an array over host memory: looking at it is possible without a device, copying is not
        memory = real.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
        scalar = real.ndarray((), "f4", memptr=real.cuda.MemoryPointer(memory, 0))
    with backend.watched(), mg.backend.forbid_transfers(), pytest.raises(TransferError):
        (real.asnumpy if read == "asnumpy" else read)(scalar)
    assert "get" not in vars(real.ndarray)
