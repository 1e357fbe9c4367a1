"""Every primitive runs on arrays without values, first and second order, and can be replayed.

So `compile` has nothing to fear from the registry: a formula that looks at a value fails here.
"""

from __future__ import annotations

import numpy as np
import pytest
from recorder import NUMPY, RECORDER, Recorded, Recorder, Unrecordable, replay
from samples import NAMES as OPERATIONS
from samples import differentiate, place_all, registered, samples, whole_samples

import microgradnd as mg
import microgradnd.backend as backends
from microgradnd.backend.namespace import NAMES
from microgradnd.registry import REGISTRY

DTYPES = ("float32", "float16", "float64")


@pytest.fixture(autouse=True)
def recorder():
    with registered(RECORDER), np.errstate(all="ignore"):
        yield RECORDER


def layout(t):
    """What a recording can know of a tensor."""
    return None if t is None else (t.shape, t.dtype)


def record(sample, order=2):
    """Record a sample; gives its results, the program and the arrays to replay it on."""
    program, handed = RECORDER.start(), []

    def place(array):
        handed.append(array)
        return program.input(array.shape, array.dtype)

    results = differentiate(sample, place_all(sample, place), place, order)
    program.outputs = [t._array for t in results.each() if t is not None]
    return results, program, handed


def same_bits(x, y):
    """Whether two arrays are equal to the last bit; any NaN equals any other."""
    return x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y, equal_nan=True)


def compare(sample):
    """Record a sample and hold it against the eager run: layouts, and the bits of a replay."""
    eager = differentiate(sample, place_all(sample, lambda a: a), lambda a: a)
    results, program, handed = record(sample)
    for mine, theirs in zip(results, eager, strict=True):
        assert list(map(layout, mine)) == list(map(layout, theirs))
    for t in results.each():
        assert t is None or type(t._array) is Recorded
    want = [t._array for t in eager.each() if t is not None]
    return replay(program, handed), want


@pytest.mark.parametrize(
    "dtypes", [DTYPES[:1], pytest.param(DTYPES[1:], marks=pytest.mark.slow)], ids=["few", "more"]
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_recorded_and_replayed_to_second_order(name, dtypes):
    entry = REGISTRY[name].data if name in REGISTRY else {}
    done, refused = [], []
    for sample in (*whole_samples(name), *(s for dtype in dtypes for s in samples(name, dtype))):
        try:
            replayed, want = compare(sample)
        except Unrecordable as error:
            assert entry.get("why"), f"{sample}: {error}, and the entry does not say why"
            assert name in str(error)
            refused.append(sample)
            continue
        for mine, theirs in zip(replayed, want, strict=True):
            assert same_bits(mine, theirs), f"{sample}: {mine} for {theirs}"
        done.append(sample)
    assert bool(done) is entry.get("recordable", True)
    assert not entry.get("why") or refused, "the entry gives a reason for nothing"
    assert all(sample.masked for sample in refused) or not done


def test_nearly_all_of_the_registry_is_recordable():
    reasons = {
        name: REGISTRY[name].data.get("why")
        for name in OPERATIONS
        if name in REGISTRY and not REGISTRY[name].data.get("recordable", True)
    }
    assert all(reasons.values())
    assert len(reasons) <= 0.05 * len(OPERATIONS), reasons


def test_the_namespace_is_the_closed_list():
    assert vars(RECORDER.xp).keys() == NAMES
    with pytest.raises(AttributeError):
        RECORDER.xp.nonzero  # noqa: B018


def test_shape_and_dtype_are_those_of_numpy():
    program = RECORDER.start()
    x, k = program.input((4, 1), "float16"), program.input((3,), "int64")
    assert layout(x + k) == ((4, 3), np.dtype("float64"))
    assert layout(2.0 * x) == ((4, 1), np.dtype("float16"))
    assert layout(np.float32(2) * x) == ((4, 1), np.dtype("float32"))
    assert layout(x @ x.reshape((1, 4)) > 0) == ((4, 4), np.dtype(bool))
    assert layout(RECORDER.xp.sum(k)) == ((), np.dtype("int64"))
    assert layout(x[1:, None]) == ((3, 1, 1), np.dtype("float16"))
    assert layout(x[k]) == ((3, 1), np.dtype("float16"))
    assert (len(x), x.ndim, x.size, x.nbytes) == (4, 2, 4, 8)
    assert repr(x) == "v1: float16(4, 1)"
    assert repr(program).splitlines()[0] == "v3 = operator.add(v1, v2)"
    assert program.calls[0].inputs == [1, 2]
    with pytest.raises(ValueError):
        x @ x
    with pytest.raises(TypeError):
        x - [1.0]
    with pytest.raises(TypeError, match="ndarray among recorded arrays"):
        RECORDER.xp.add(x, np.ones(3))
    RECORDER.start()
    with pytest.raises(RuntimeError, match="another recording"):
        RECORDER.xp.tanh(x)


VALUES = {
    "__bool__": bool,
    "__float__": float,
    "__int__": int,
    "__index__": lambda x: [1, 2][x],
    "__iter__": list,
    "__contains__": lambda x: 1.0 in x,
    "__array__": np.asarray,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "getitem with a boolean mask": lambda x: x[x > 0],
    "setitem with a boolean mask": lambda x: x.__setitem__(x > 0, 1.0),
    "reading values": RECORDER.to_numpy,
}


@pytest.mark.parametrize("name", VALUES)
def test_what_needs_values_is_refused_by_name(name):
    x = RECORDER.start().input((2,), "float32")
    with pytest.raises(Unrecordable, match=f"^{name}.* cannot be recorded"):
        VALUES[name](x)


def test_tensors_refuse_as_their_arrays_do():
    x = mg.asarray(RECORDER.start().input((2,), "float32"))
    for read in (lambda: float(x[0]), lambda: bool(x[0]), x.tolist, x.numpy, lambda: 1.0 in x):
        with pytest.raises(Unrecordable, match=r"^reading values"):
            read()
    assert "Unrecordable" in repr(x)
    with pytest.raises(Unrecordable, match=r"^getitem with a boolean mask"):
        x[x > 0]
    assert [layout(row) for row in x] == [((), np.float32)] * 2  # the length is static


def test_a_formula_that_looks_at_values_is_found_out():
    def peeking(xp, x, /):
        return xp.negative(x) if (x < 0).any() else x  # not even `any` is there

    def branching(xp, x, /):
        return xp.negative(x) if xp.any(x < 0) else xp.copy(x)

    x = mg.asarray(RECORDER.start().input((2,), "float32"))
    try:
        with pytest.raises(AttributeError):
            mg.primitive(elementwise=True)(peeking)(x)
        with pytest.raises(Unrecordable, match=r"^__bool__"):
            mg.primitive(elementwise=True)(branching)(x)
    finally:
        REGISTRY.pop("peeking"), REGISTRY.pop("branching")


def test_backends_do_not_mix():
    x = mg.asarray(RECORDER.start().input((2,), "float32"))
    with pytest.raises(TypeError, match="'recorder' and 'numpy'"):
        x + mg.tensor([1.0, 2.0])


def test_writing_in_place_moves_the_handle_on():
    program = RECORDER.start()
    raw = program.input((3,), "float32")
    x = mg.asarray(raw)
    old = x + 0.0
    with mg.no_grad():
        x += 1.0
        x[1:] = 5.0
        x *= old
    program.outputs = [raw]
    array = np.array([1.0, 2.0, 3.0], "float32")
    assert replay(program, [array])[0].tolist() == [2.0, 10.0, 15.0]
    assert array.tolist() == [1.0, 2.0, 3.0]
    view = x[1:]
    with mg.no_grad():
        for target in (x, view):
            with pytest.raises(Unrecordable, match="shared with a view"):
                target += 1.0
        del view, target
        x += 1.0
        with pytest.raises(ValueError, match="does not fit"):
            x += mg.asarray(program.input((2, 3), "float32"))


def step(x, target, hidden, bias, out):
    """One step of training with everything that a compiled one has to hold; gives the loss."""
    keep = mg.random.Generator(3).bernoulli(0.75, (8, 12), backend=x.backend)
    z = mg.where(keep, mg.maxout(x @ hidden + bias, 3), 0.0)
    loss = mg.cross_entropy(z @ out, target)
    loss.backward()
    with mg.no_grad():
        for parameter in (hidden, bias, out):
            parameter -= 0.1 * parameter.grad
    return loss


def test_a_recorded_training_step_replays_bit_for_bit_on_other_values():
    shapes = [(8, 5), (8,), (5, 36), (36,), (12, 4)]
    dtypes = ["float32", "int64", "float32", "float32", "float32"]
    program = RECORDER.start()
    tensors = [mg.asarray(program.input(*what)) for what in zip(shapes, dtypes, strict=True)]
    loss = step(*tensors[:2], *(t.requires_grad_() for t in tensors[2:]))
    program.outputs = [t._array for t in (loss, *tensors[2:], *(t.grad for t in tensors[2:]))]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        arrays = [
            rng.integers(0, 4, shape) if dtype == "int64" else rng.normal(0, 1, shape).astype(dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        replayed = replay(program, arrays)
        tensors = [mg.tensor(a) for a in arrays]
        loss = step(*tensors[:2], *(t.requires_grad_() for t in tensors[2:]))
        eager = [t._array for t in (loss, *tensors[2:], *(t.grad for t in tensors[2:]))]
        for mine, theirs in zip(replayed, eager, strict=True):
            assert same_bits(mine, theirs)


def test_a_replay_checks_indices_as_the_eager_run():
    program = RECORDER.start()
    x, at = program.input((3, 4), "float32"), program.input((2,), "int64")
    program.outputs = [mg.take(mg.asarray(x), mg.asarray(at), axis=1)._array]
    values = np.arange(12, dtype="float32").reshape(3, 4)
    assert replay(program, [values, np.array([3, -1])])[0].tolist() == [[3, 3], [7, 7], [11, 11]]
    with pytest.raises(IndexError, match="take"):
        replay(program, [values, np.array([4, 0])])


def test_uploads_while_recording_are_constants():
    program = RECORDER.start()
    x = mg.asarray(program.input((3,), "float32"))
    program.outputs = [x[[2, 0]]._array]
    assert [a.tolist() for a in program.constants.values()] == [[2, 0]]
    assert replay(program, [np.array([1.0, 2.0, 3.0], "float32")])[0].tolist() == [3.0, 1.0]


def test_random_bits_are_recorded():
    program = RECORDER.start()
    program.outputs = [mg.random.Generator(5).bits(10, RECORDER)]
    assert replay(program, [])[0].tolist() == mg.random.Generator(5).bits(10, NUMPY).tolist()


def test_a_backend_of_the_tests_is_forgotten_again():
    other = Recorder()
    other.name = "other"
    with registered(other):
        assert backends.of(other.start().input((), "float32")) is other
    assert backends.of(RECORDER.start().input((), "float32")) is RECORDER
    assert "other" not in backends.available()
