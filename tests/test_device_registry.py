"""Every primitive on the device of `device.py`: the values, gradients and dtypes of NumPy.

And nothing on the way: no synchronisation, no copy to or from the host, no NumPy number or array
among the operands of a launch, no device that is left.
"""

from __future__ import annotations

import numpy as np
import pytest
from device import ARRAY, DEVICE, HOME, SLACK, dev, host, staying
from samples import (
    NAMES,
    Sample,
    call,
    differentiate,
    gradients,
    place_all,
    registered,
    samples,
    whole_samples,
)

import microgradnd as mg
from microgradnd.registry import COMPOSITES, REGISTRY

DTYPES = ("float16", "float32", "float64")
#: What only moves and chooses elements: its values are equal to the last bit, and its gradients
#: are too unless they are sums over operands that broadcast or elements that are taken twice.
ROUTING = {
    "identity", "positive", "negative", "absolute", "sign", "maximum", "minimum", "clip", "where",
    "reshape", "transpose", "swapaxes", "moveaxis", "expand_dims", "squeeze", "broadcast_to",
    "concatenate", "stack", "split", "flip", "copy", "getitem", "setitem", "take",
    "take_along_axis", "collect", "route", "max", "min", "maxout", "mfm", "relu", "relu6", "crelu",
    "hard_tanh", "hardshrink", "threshold", "fmax", "fmin", "floor", "ceil", "trunc", "rint",
    "nan_to_num", "sort", "topk",
}  # fmt: skip
OTHER = [np.dtype(bool), np.dtype("int64")]  # of comparisons and of argmax
SUMMED = {"broadcast_to", "getitem", "take", "take_along_axis"}


@pytest.fixture(autouse=True)
def device():
    with registered(DEVICE), np.errstate(all="ignore"):
        yield DEVICE
        DEVICE.synchronize()  # no test leaves a fault behind


def run(sample, order=2):
    """Run a sample on NumPy, then on the device; gives both results."""
    handed = []

    def keep(array):
        handed.append(array)
        return array

    want = differentiate(sample, place_all(sample, keep), keep, order)
    queue = [DEVICE.asarray(array) for array in handed]
    place = lambda array: queue.pop(0)  # noqa: E731
    operands = place_all(sample, place)
    with staying(sample, waiting=sample.masked):
        got = differentiate(sample, operands, place, order)
    assert not queue
    return got, want


def repeats(sample):
    """Whether a written index repeats: CuPy then keeps an unspecified value."""
    return sample.name == "setitem" and any(
        len(np.unique(i)) < i.size for i in sample.operands[2:] if i.dtype.kind != "b"
    )


def exact(sample, is_gradient):
    """Whether a result has nothing computed in it: chosen elements, no sums."""
    if sample.name not in ROUTING:
        return False
    shapes = {x.shape for x in sample.operands if isinstance(x, np.ndarray)}
    summed = sample.name in SUMMED or (sample.name in REGISTRY and len(shapes) > 1)
    return not (is_gradient and summed)


def near(sample, got, want, is_gradient=False):
    """Compare an array with NumPy's by what the operation is."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype), sample
    if repeats(sample):
        return  # tested by itself
    if got.dtype.kind != "f" or exact(sample, is_gradient):
        np.testing.assert_array_equal(got, want, str(sample))
        return
    op = REGISTRY.get(sample.name)
    sizes = [x.size for x in sample.operands if isinstance(x, np.ndarray)]
    ulps = 8 if op is not None and op.elementwise else 64 * max(sizes) ** 0.5
    allowed = SLACK * ulps * np.finfo(want.dtype).eps
    np.testing.assert_allclose(got, want, allowed, allowed, err_msg=str(sample))


def on_host(x):
    """Whether something that a node kept, or a part of it, is NumPy's."""
    if isinstance(x, list | tuple):
        return any(map(on_host, x))
    return isinstance(x, np.ndarray | np.generic)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("only_the_device")
def test_every_operation_is_numpy_s_and_stays_on_the_device(name):
    for dtype in DTYPES:
        for sample in samples(name, dtype):
            got, want = run(sample)
            for mine, theirs in zip(got, want, strict=True):
                for t, u in zip(mine, theirs, strict=True):
                    assert (t is None) == (u is None), sample
                    if t is not None:
                        assert type(t._array) is ARRAY, sample
                        near(sample, host(t), host(u), mine is not got.outs)
                        assert t.dtype in (dtype, *OTHER) or name == "astype", sample
            for t, u in zip(got.outs, want.outs, strict=True):
                node = t._node
                assert node is None or not on_host(node.kept), f"{sample} keeps {node.kept}"
                assert t.requires_grad == u.requires_grad


def test_integers_and_booleans_give_what_numpy_gives():
    tried = 0
    # Before NumPy 2.1 whole numbers were rounded to floats; CuPy does as NumPy does now.
    floats = set() if np.floor(1).dtype.kind == "i" else {"ceil", "floor", "trunc"}
    for name in set(NAMES) - floats:
        for sample in whole_samples(name):
            got, want = run(sample, 0)
            for mine, theirs in zip(got.outs, want.outs, strict=True):
                near(sample, host(mine), host(theirs))
            tried += 1
    assert tried > 300


CONVENTIONS = [
    (name, *row) for name, op in REGISTRY.items() for row in op.data.get("conventions", ())
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "case", "operands", "attributes", "wanted"),
    CONVENTIONS,
    ids=[f"{row[0]}-{row[1]}" for row in CONVENTIONS],
)
def test_conventions_hold_on_the_device(name, case, operands, attributes, wanted, dtype):
    op = REGISTRY[name]
    operands = [np.asarray(x) if isinstance(x, list) else x for x in operands]
    floats = [getattr(x, "dtype", None) == np.float64 for x in operands]
    operands = [x.astype(dtype) if f else x for x, f in zip(operands, floats, strict=True)]
    operands += [None] * (len(op.operands) - len(operands))
    sample = Sample(name, operands, op.data.get("defaults_for_tests", {}) | attributes)
    leaves = place_all(sample, DEVICE.asarray)
    for out in call(sample, leaves):
        if out.requires_grad:
            out.sum().backward()
    for got, want in zip(gradients(leaves), wanted, strict=False):
        if want is not None:
            tolerance = SLACK * 4 * np.finfo(dtype).eps
            mine = 0.0 if got is None else host(got)
            np.testing.assert_allclose(mine, want, tolerance, tolerance, err_msg=case)


@pytest.mark.parametrize("name", NAMES)
def test_operands_of_two_backends_are_refused_by_name(name):
    message = f"'{HOME}' and 'numpy'|'numpy' and '{HOME}'"
    for sample in samples(name):
        places = [i for i, x in enumerate(sample.operands) if isinstance(x, np.ndarray)]
        for i in places if len(places) > 1 else ():
            for alone, rest in ((DEVICE.asarray, np.asarray), (np.asarray, DEVICE.asarray)):
                operands = [
                    mg.asarray((alone if j == i else rest)(x)) if isinstance(x, np.ndarray) else x
                    for j, x in enumerate(sample.operands)
                ]
                with pytest.raises(TypeError, match=message):
                    call(sample, operands)
                operands[i] = operands[i]._array  # a raw array is no better
                with pytest.raises(TypeError, match=message):
                    call(sample, operands)


MIXED = {
    "x + numpy array": lambda x, y: x + y._array,
    "numpy array + x": lambda x, y: y._array + x,
    "x[numpy index]": lambda x, y: x[np.array([0])],
    "numpy[index]": lambda x, y: y[dev([0])],
    "x.take(numpy index)": lambda x, y: mg.take(x, np.array([0])),
    "x[0] = numpy": lambda x, y: x.__setitem__(0, y[0]),
    "x[numpy index] = 1": lambda x, y: x.__setitem__(np.array([0]), 1.0),
    "x += numpy": lambda x, y: x.__iadd__(y),
    "numpy += x": lambda x, y: y.__iadd__(x),
    "x.assign_(numpy)": lambda x, y: x.assign_(y),
    "maximum": lambda x, y: np.maximum(x, y),
    "allclose": lambda x, y: mg.allclose(x, y),
}


@pytest.mark.parametrize("recording", [True, False], ids=["recording", "no_grad"])
@pytest.mark.parametrize("case", MIXED)
def test_no_door_lets_another_backend_in(case, recording):
    x, y = dev([1.0, 2.0]), mg.tensor([1.0, 2.0], dtype="float64")
    with pytest.raises(TypeError, match=f"(?s)'{HOME}'.*'numpy'|'numpy'.*'{HOME}'"):
        if recording:
            MIXED[case](x, y)
        else:
            with mg.no_grad():
                MIXED[case](x, y)
    assert host(x).tolist() == y.tolist() == [1.0, 2.0]


def test_a_gradient_from_another_backend_is_refused():
    x = dev([1.0, 2.0], requires_grad=True)
    for gradient in (np.ones(2), mg.ones(2, dtype="float64")):
        with pytest.raises(TypeError, match=f"'numpy' for a tensor on '{HOME}'"):
            (x * x).backward(gradient)


# ---------------------------------------------------------------------------------------- indices


def write(x, ids, value):
    with mg.no_grad():
        x[ids] = value


INDEXED = {
    "getitem": ((3, 4), lambda x, ids: x.requires_grad_()[:, ids]),
    "setitem": ((4, 3), lambda x, ids: write(x, ids, 2.0)),
    "take": ((3, 4), lambda x, ids: mg.take(x, ids, axis=1)),
    "take_along_axis": ((4,), lambda x, ids: mg.take_along_axis(x, ids, axis=0)),
    "cross_entropy": ((2, 4), mg.cross_entropy),
    "nll": ((2, 4), lambda x, ids: mg.nll(x, ids, reduction="sum")),
}


@pytest.mark.parametrize("name", INDEXED)
def test_an_index_out_of_bounds_is_reported_at_the_next_sync_by_name(name):
    shape, function = INDEXED[name]
    lowest = 0 if name in ("cross_entropy", "nll") else -4
    inside, outside = dev([3, lowest]), [dev([0, 4]), dev([lowest - 1, 0])]
    reads = [DEVICE.synchronize, dev([1.0]).tolist, dev(2.0).item, lambda: f"{dev(1.0):.1f}"]
    for ids, read in zip(outside * 2, reads, strict=True):
        x = dev(np.ones(shape))
        with staying(name):
            function(x, ids)
        with pytest.raises(IndexError, match=f"^{name}: "):
            read()
        DEVICE.synchronize()  # said once
    function(dev(np.ones(shape)), inside)
    DEVICE.synchronize()


def test_the_oldest_fault_is_the_one_that_is_reported():
    x = dev(np.ones(3))
    mg.take(x, dev([3]))
    x[dev([4])]
    with pytest.raises(IndexError, match=r"^take"):
        DEVICE.synchronize()
    DEVICE.synchronize()


def test_what_python_knows_is_refused_at_the_call():
    x = dev(np.ones((3, 4)))
    for index in (3, (0, -5), (0, 0, 0)):
        with pytest.raises(IndexError, match=r"^getitem"):
            x[index]
    with pytest.raises(IndexError, match="boolean"):
        x[dev([True, False])]


def test_ignored_classes_are_no_fault():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    for target, ignored in (([0, -100, 2, 1], -100), ([0, 2, 2, 1], 2), ([0, 7, 1, 1], 7)):
        losses = [
            mg.cross_entropy(make(logits), make(target), ignore_index=ignored)
            for make in (mg.tensor, dev)
        ]
        DEVICE.synchronize()
        assert losses[0].dtype == losses[1].dtype == np.float32
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=SLACK * 1e-6)


def test_numbers_and_lists_as_indices_are_uploaded():
    x, rows = np.arange(12.0).reshape(4, 3), [2, 0]
    for pick in (
        lambda t: mg.take(t, 1, axis=0),
        lambda t: mg.take(t, rows, axis=1),
        lambda t: np.take(t, -1),
        lambda t: t[rows],
        lambda t: t[:, range(2)],
        lambda t: t[[True, False, True, True]],
        lambda t: t[...],
        lambda t: t[1, 2],
        lambda t: t[[]],
    ):
        got, want = pick(dev(x)), pick(mg.tensor(x))
        assert type(got._array) is ARRAY
        np.testing.assert_array_equal(host(got), host(want))


def test_where_a_written_index_repeats_the_gradient_follows_the_value_that_stayed():
    x = dev(np.zeros((4, 2)), requires_grad=True)
    v = dev(np.arange(1.0, 7.0).reshape(3, 2), requires_grad=True)
    out = REGISTRY["setitem"](x, dev([1, 1, 3]), v)
    (out * dev(np.arange(8.0).reshape(4, 2))).sum().backward()
    stayed, rows, got = host(out)[1], host(v)[:2], host(v.grad)
    here = rows == stayed  # by element: nobody promises that a row comes from one place
    assert here.sum(0).tolist() == [1, 1]
    assert got[:2].tolist() == np.where(here, [2.0, 3.0], 0.0).tolist()
    assert got[2].tolist() == [6.0, 7.0]
    assert host(x.grad).tolist() == [[0, 1], [0, 0], [4, 5], [0, 0]]


# ---------------------------------------------------------------------------------------- training


def parameters(make):
    rng = np.random.default_rng(1)
    shapes = [(5, 12), (12,), (4, 3), (3,)]
    return [make(rng.normal(0, 0.5, s).astype("float32")).requires_grad_() for s in shapes]


def training_step(x, target, parameters, momentum):
    """Forward, cross-entropy, backward and a step of SGD with momentum in place."""
    hidden, bias, out, offset = parameters
    z = mg.maxout(x @ hidden + bias, 3)
    loss = mg.cross_entropy(z @ out + offset, target, label_smoothing=0.1)
    loss.backward()
    with mg.no_grad():
        for p, m in zip(parameters, momentum, strict=True):
            m *= 0.9
            m += p.grad
            p -= 0.1 * m
            p.grad = None
    return loss


def test_a_training_step_is_numpy_s_and_never_waits():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(16, 5)).astype("float32"), rng.integers(0, 3, 16)
    trained, losses = [], []
    for make in (mg.tensor, dev):
        batch, ids = make(x), make(target)
        ps = parameters(make)
        momentum = [make(np.zeros(p.shape, "float32")) for p in ps]
        arrays = [p._array for p in ps]
        with staying("20 steps"):
            steps = [training_step(batch, ids, ps, momentum) for _ in range(20)]
        assert all(p._array is a for p, a in zip(ps, arrays, strict=True))  # in place
        trained.append([host(p) for p in ps])
        losses.append([loss.item() for loss in steps])
    assert losses[0][-1] < 0.8 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], SLACK * 1e-5)
    for mine, theirs in zip(*reversed(trained), strict=True):
        np.testing.assert_allclose(mine, theirs, SLACK * 1e-5, SLACK * 1e-5)


def test_transforms_and_checkpoints_on_the_device():
    a = np.random.default_rng(2).normal(size=(3, 4)).astype("float32")
    v = np.ones((4,), "float32")

    def f(x):
        return (mg.tanh(mg.maxout(x * x, 2)) ** 2).sum()

    def all_of_them(make):
        x, w = make(v), make(a)
        return [
            *mg.value_and_grad(f)(x),
            mg.hvp(f, x, make(v)),
            mg.hessian(f)(x),
            mg.jacobian(lambda x: w @ x)(x),
            *mg.jvp(lambda x: mg.softmax(w @ x), [x], [make(v)]),
            mg.grad(lambda x: mg.checkpoint(lambda y: mg.exp(y) * y)(x).sum())(x),
        ]

    for got, want in zip(all_of_them(dev), all_of_them(mg.tensor), strict=True):
        assert type(got._array) is ARRAY
        np.testing.assert_allclose(host(got), host(want), SLACK * 1e-5, SLACK * 1e-6)


def test_gradients_cross_over_to_the_other_backend_and_back():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    y = x.to(HOME)
    assert type(y._array) is ARRAY
    assert y.to(HOME) is y
    ((y * y).to("numpy") * x).sum().backward()
    assert type(x.grad._array) is np.ndarray
    assert x.grad.tolist() == [3.0, 12.0]


# ---------------------------------------------------------------------------------------- random


@pytest.mark.parametrize("counter", [0, 3, 5, 2**64 - 2, 4 * (2**64 - 1), 4 * (2**128 - 2) + 1])
@pytest.mark.parametrize("seed", [0, 2**64 - 1, 2**127 + 12345])
def test_random_bits_are_equal_bit_for_bit(seed, counter):
    key = (seed & (2**64 - 1), seed >> 64)
    mine = DEVICE.module.asnumpy(DEVICE.bits(key, counter, 23))
    np.testing.assert_array_equal(mine, mg.backend.named("numpy").bits(key, counter, 23))
    assert mine.dtype == np.uint64


DRAWS = {
    "bernoulli": lambda g, where: g.bernoulli(0.3, (5, 7), where),
    "never": lambda g, where: g.bernoulli(0.0, 4, where),
    "always": lambda g, where: g.bernoulli(1.0, 4, where),
    "uniform16": lambda g, where: g.uniform(-1.0, 2.0, (3, 5), "float16", where),
    "uniform32": lambda g, where: g.uniform(-1.0, 2.0, (), "float32", where),
    "uniform64": lambda g, where: g.uniform(shape=9, dtype="float64", backend=where),
    "integers": lambda g, where: g.integers(-3, 11, (4, 4), where),
    "normal": lambda g, where: g.normal(1.0, 2.0, (3, 3), "float32", where),
    "permutation": lambda g, where: g.permutation(17, where),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_equal_bit_for_bit(name):
    ours, theirs = mg.random.Generator(11), mg.random.Generator(11)
    for _ in range(3):
        with staying(name, uploads=int(name in ("normal", "permutation"))):
            mine = DRAWS[name](ours, DEVICE)
        assert type(mine._array) is ARRAY
        want = DRAWS[name](theirs, mg.backend.named("numpy"))
        assert mine.dtype == want.dtype
        np.testing.assert_array_equal(host(mine), host(want))
    assert ours.state == theirs.state


def test_training_noise_is_drawn_where_the_operand_lives():
    x = np.linspace(-1, 1, 9, dtype="float32")
    mine, want = (
        mg.rrelu(make(x), training=True, generator=mg.random.Generator(4))
        for make in (dev, mg.tensor)
    )
    np.testing.assert_array_equal(host(mine), host(want))


def test_every_composite_has_operands_here():
    assert COMPOSITES.keys() <= set(NAMES)
    for name in COMPOSITES:
        assert samples(name)
