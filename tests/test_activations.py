"""Every activation by name: its gradient against finite differences, to second order; Maxout first.

`check` compares the gradient, and the gradient of the gradient, with extrapolated differences in
float64 (`microgradnd.testing`), and sees that the call recorded a single step of the tape.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgradnd as mg
from microgradnd.ops import activations
from microgradnd.primitives import Primitive
from microgradnd.testing import gradcheck, gradgradcheck

STEP = 2.0**-6


def points(*shape):
    """Distinct odd multiples of 1/32, one to five if no shape is given.

    Kinks are multiples of 1/16, so none is closer than 1/32.
    """
    n = math.prod(shape) if shape else None
    whole = st.lists(st.integers(-90, 90), min_size=n or 1, max_size=n or 5, unique=True)
    return whole.map(lambda ks: (np.array(ks) / 16.0 + 1.0 / 32.0).reshape(shape or -1))


def steps(y):
    """The operations that the tape holds for a result."""
    seen, waiting = {}, [y._node]
    while waiting:
        node = waiting.pop()
        if node is not None and node.op is not None:
            seen[node.serial] = node.op.name
            waiting.extend(node.parents)
    return [seen[serial] for serial in sorted(seen)]


def check(f, *xs, **attrs):
    """First and second derivatives are right, and one call is one step of the tape."""
    for test in (gradcheck, gradgradcheck):
        done = test(lambda *ts: f(*ts, **attrs), *xs, step=STEP, name=f.__name__)
        assert done.weak * 100 <= max(done.comparisons, 100)
    assert len(steps(f(*(mg.tensor(x, requires_grad=True) for x in xs), **attrs))) == 1


def value_and_slope(f, x, **attrs):
    x = mg.tensor(x, requires_grad=True)
    y = f(x, **attrs)
    y.backward(mg.ones_like(y))
    return y.tolist(), x.grad.tolist()


# ----------------------------------------------------------------------------- maxout


@given(x=points(2, 6))
def test_maxout(x):
    for pieces in (1, 2, 3, 6):
        check(mg.maxout, x, pieces=pieces)


def test_maxout_worked_example():
    x = mg.tensor([5.0, 7.0, -1.0, 1.0], requires_grad=True)
    y = mg.maxout(x, 2)
    assert y.tolist() == [7.0, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert value_and_slope(mg.maxout, [1.0, 2.0, 4.0, 3.0], pieces=2) == (
        [2.0, 4.0],
        [0.0, 1.0, 1.0, 0.0],
    )


def test_maxout_in_two_layers_trains_only_what_was_used():
    x = mg.tensor([5.0, 7.0, -1.0, 1.0], requires_grad=True)
    mg.maxout(mg.maxout(x, 2), 2).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_maxout_of_equal_pieces_gives_all_to_the_first(pieces):
    _, slope = value_and_slope(mg.maxout, np.full((2, 12), 3.0), pieces=pieces)
    assert slope == [([1.0] + [0.0] * (pieces - 1)) * (12 // pieces)] * 2


def test_maxout_takes_the_first_of_several_winners_not_the_last():
    assert value_and_slope(mg.maxout, [1.0, 4.0, 4.0, 2.0], pieces=4)[1] == [0.0, 1.0, 0.0, 0.0]


def test_maxout_nan_wins_and_takes_the_gradient():
    values, slope = value_and_slope(
        mg.maxout, [1.0, math.nan, 2.0, math.nan, math.inf, math.nan, 7.0, 8.0], pieces=2
    )
    assert np.array_equal(values, [math.nan, math.nan, math.nan, 8.0], equal_nan=True)
    assert slope == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]


def test_maxout_of_infinities():
    assert value_and_slope(mg.maxout, [-math.inf, -math.inf, 0.0, math.inf], pieces=2) == (
        [-math.inf, math.inf],
        [1.0, 0.0, 0.0, 1.0],
    )


@given(seed=st.integers(0, 2**32 - 1), pieces=st.integers(1, 5), groups=st.integers(1, 4))
def test_maxout_gives_a_gradient_to_exactly_one_element_of_each_group(seed, pieces, groups):
    x = np.random.default_rng(seed).normal(size=(3, groups * pieces))
    _, slope = value_and_slope(mg.maxout, x, pieces=pieces)
    grouped = np.reshape(slope, (3, groups, pieces))
    assert (np.count_nonzero(grouped, axis=-1) == 1).all()
    assert (grouped.argmax(axis=-1) == x.reshape(3, groups, pieces).argmax(axis=-1)).all()
    assert (grouped.sum(axis=-1) == 1.0).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_maxout_along_an_axis(axis):
    x = np.random.default_rng(0).normal(size=(4, 6, 8))
    last = np.moveaxis(x, axis, -1)
    want = last.reshape(*last.shape[:-1], -1, 2).max(axis=-1)
    y = mg.maxout(mg.tensor(x), 2, axis=axis)
    assert np.array_equal(y.numpy(), np.moveaxis(want, -1, axis))
    check(mg.maxout, np.arange(24.0).reshape(2, 4, 3)[:, ::-1] / 4.0, pieces=2, axis=1)


def test_maxout_sizes_that_do_not_divide():
    x = mg.zeros((2, 4))
    with pytest.raises(ValueError, match="maxout: axis 1 has size 4, not divisible by 3"):
        mg.maxout(x, 3, axis=1)
    with pytest.raises(ValueError, match="maxout: pieces must be at least 1, got 0"):
        mg.maxout(x, 0)
    with pytest.raises(ValueError, match="maxout: pieces must be at least 1, got -2"):
        mg.maxout(x, -2)
    with pytest.raises(TypeError, match=r"maxout: pieces must be an integer, got 2\.0"):
        mg.maxout(x, 2.0)
    with pytest.raises(TypeError, match="maxout: pieces must be an integer, got True"):
        mg.maxout(x, True)
    with pytest.raises(ValueError, match="maxout: axis -1 is empty"):
        mg.maxout(mg.zeros((2, 0)), 2)
    with pytest.raises(np.exceptions.AxisError):
        mg.maxout(x, 2, axis=2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_maxout_keeps_the_dtype(dtype):
    x = mg.tensor(np.array([1.0, 2.5, -3.0, -4.0], dtype), requires_grad=True)
    y = mg.maxout(x, 2)
    (y * y).sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert y.tolist() == [2.5, -3.0]
    assert x.grad.tolist() == [0.0, 5.0, -6.0, 0.0]


def test_maxout_second_order():
    x = mg.tensor(np.array([1.0, 2.0, 4.0, 3.0]))
    hessian = mg.hessian(lambda x: (mg.maxout(x, 2) ** 3).sum())(x)
    assert hessian.tolist() == np.diag([0.0, 12.0, 24.0, 0.0]).tolist()


@given(x=points())
def test_maxout_with_a_zero_piece_is_relu(x):
    def with_zero(x):
        return mg.maxout(mg.stack([x, mg.zeros_like(x)], axis=-1).reshape(-1), 2)

    assert value_and_slope(with_zero, x) == value_and_slope(mg.relu, x)


def test_maxout_with_a_zero_piece_differs_from_relu_at_zero():
    """The first of the equal pieces is the operand, so the slope is 1 where relu has 0."""

    def with_zero(x):
        return mg.maxout(mg.stack([x, mg.zeros_like(x)], axis=-1).reshape(-1), 2)

    assert value_and_slope(with_zero, [0.0]) == ([0.0], [1.0])
    assert value_and_slope(mg.relu, [0.0]) == ([0.0], [0.0])


# ----------------------------------------------------------------------------- relu and its kin


@given(x=points())
def test_relu(x):
    check(mg.relu, x)


@given(x=points())
def test_relu6(x):
    check(mg.relu6, x + 2.0)


@given(x=points(), slope=st.sampled_from([0.0, 0.01, 0.3, 1.5]))
def test_leaky_relu(x, slope):
    check(mg.leaky_relu, x, negative_slope=slope)


@given(x=points(2, 3), slope=points(3))
def test_prelu(x, slope):
    check(mg.prelu, x, slope)


@given(x=points())
def test_rrelu(x):
    check(mg.rrelu, x)


def test_rrelu_draws_slopes_in_training():
    x = mg.tensor(np.full(1000, -1.0), requires_grad=True)
    y = mg.rrelu(x, 0.1, 0.3, training=True, generator=mg.Generator(0))
    y.sum().backward()
    assert np.array_equal(-y.detach().numpy(), x.grad.numpy())
    assert 0.1 <= x.grad.numpy().min() < 0.11 < 0.29 < x.grad.numpy().max() <= 0.3


@given(x=points(), alpha=st.sampled_from([1.0, 0.5, 2.0]))
def test_elu(x, alpha):
    check(mg.elu, x, alpha=alpha)


@given(x=points(), alpha=st.sampled_from([1.0, 0.5, 2.0]))
def test_celu(x, alpha):
    check(mg.celu, x, alpha=alpha)


@given(x=points())
def test_selu(x):
    check(mg.selu, x)


@given(x=points())
def test_threshold(x):
    check(mg.threshold, x, threshold=0.125, value=20.0)


# ----------------------------------------------------------------------------- sigmoid and its kin


@given(x=points())
def test_sigmoid(x):
    check(mg.sigmoid, x)


@given(x=points())
def test_hard_sigmoid(x):
    check(mg.hard_sigmoid, x)


@given(x=points())
def test_log_sigmoid(x):
    check(mg.log_sigmoid, x)


@given(x=points())
def test_tanh(x):
    check(mg.tanh, x)


@given(x=points(), bound=st.sampled_from([1.0, 2.5]))
def test_hard_tanh(x, bound):
    check(mg.hard_tanh, x, min_val=-1.0, max_val=bound)


@given(x=points())
def test_tanhshrink(x):
    check(mg.tanhshrink, x)


@given(x=points(), lambd=st.sampled_from([0.5, 0.0, 1.25]))
def test_softshrink(x, lambd):
    check(mg.softshrink, x, lambd=lambd)


@given(x=points(), lambd=st.sampled_from([0.5, 0.0, 1.25]))
def test_hardshrink(x, lambd):
    check(mg.hardshrink, x, lambd=lambd)


@given(x=points())
def test_softsign(x):
    check(mg.softsign, x)


@given(x=points(), beta=st.sampled_from([1.0, 0.5, 2.0]))
def test_softplus(x, beta):
    check(mg.softplus, x, beta=beta)


@given(x=points(), b=st.sampled_from([4.0, 1.0, 0.25]))
def test_squareplus(x, b):
    check(mg.squareplus, x, b=b)


# ----------------------------------------------------------------------------- smooth gates


@given(x=points())
def test_silu(x):
    check(mg.silu, x)


@given(x=points())
def test_hard_silu(x):
    check(mg.hard_silu, x)


@given(x=points())
def test_mish(x):
    check(mg.mish, x)


@given(x=points(), approximate=st.sampled_from(["none", "tanh"]))
def test_gelu(x, approximate):
    check(mg.gelu, x, approximate=approximate)


@pytest.mark.parametrize(
    ("f", "lowest", "at"),
    [(mg.silu, -0.278465, -1.27846), (mg.mish, -0.308843, -1.19243), (mg.gelu, -0.169971, -0.7518)],
)
def test_minima_in_float32(f, lowest, at):
    x = mg.tensor(np.linspace(-3.0, 0.0, 300001, dtype=np.float32), requires_grad=True)
    y = f(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32
    assert y.detach().numpy().min() == pytest.approx(lowest, abs=1e-6)
    rising = x.detach().numpy()[x.grad.numpy() > 0]
    assert rising[0] == pytest.approx(at, abs=2e-5)


# ----------------------------------------------------------------------------- over an axis


@given(x=points(2, 3), axis=st.sampled_from([0, 1, -1]))
def test_softmax(x, axis):
    check(mg.softmax, x, axis=axis)


@given(x=points(2, 3), axis=st.sampled_from([0, 1, -1]))
def test_log_softmax(x, axis):
    check(mg.log_softmax, x, axis=axis)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_softmax_with_infinities(dtype):
    def run(f, x):
        return f(mg.tensor(np.array(x, dtype))).tolist()

    inf = math.inf
    assert run(mg.softmax, [0.0, -inf, 0.0]) == [0.5, 0.0, 0.5]
    assert run(mg.log_softmax, [0.0, -inf])[1] == -inf
    assert run(mg.softmax, [3e4, -3e4]) == [1.0, 0.0]
    assert run(mg.softmax, [inf, 0.0]) == [1.0, 0.0]
    first, second = run(mg.log_softmax, [inf, 0.0])
    assert first == 0.0 and second == -math.inf


@given(
    rng=st.integers(0, 2**32 - 1).map(np.random.default_rng),
    n=st.integers(1, 60),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_sparsemax(rng, n, scale):
    x = scale * rng.normal(size=n)
    p = mg.sparsemax(x).numpy()
    assert p.sum() == pytest.approx(1.0, rel=1e-12)
    tau = (x - p)[p > 0]  # what is above 0 is moved by one number, which the others do not reach
    assert np.ptp(tau) <= 1e-12 * max(1.0, np.abs(x).max())
    assert np.all(x[p == 0] <= tau.mean() + 1e-12 * np.abs(x).max())


def test_sparsemax_with_infinities():
    def run(x, dtype="float64"):
        return mg.sparsemax(mg.tensor(np.array(x, dtype))).tolist()

    inf = math.inf
    assert run([inf, 0.0, 5.0]) == run([1e300, -1e300, 5.0]) == [1.0, 0.0, 0.0]
    assert run([inf, inf]) == [0.5, 0.5]
    assert run([-inf, 0.0]) == [0.0, 1.0]
    assert all(map(math.isnan, run([math.nan, 0.0])))
    assert run([6e4, -5e3, 6e4], "float16") == [0.5, 0.0, 0.5]


# ----------------------------------------------------------------------------- composed


def check_composed(f, x, n):
    gradcheck(f, x, step=STEP)
    gradgradcheck(f, x, step=STEP)
    assert len(steps(f(mg.tensor(x, requires_grad=True)))) == n


@given(x=points(2, 4))
def test_crelu(x):
    check_composed(mg.crelu, x, 4)
    assert mg.crelu(mg.tensor(x)).tolist() == np.maximum(np.hstack([x, -x]), 0.0).tolist()


@given(x=points(2, 4))
def test_glu(x):
    gradcheck(mg.glu, x, step=STEP)
    gradgradcheck(mg.glu, x, step=STEP)
    want = x[:, :2] / (1.0 + np.exp(-x[:, 2:]))
    assert np.allclose(mg.glu(mg.tensor(x)).numpy(), want, rtol=1e-14, atol=0.0)


@given(x=points(2, 4))
def test_softmin(x):
    check_composed(mg.softmin, x, 2)


@given(x=points(2, 4))
def test_mfm(x):
    gradcheck(mg.mfm, x, step=STEP)
    assert mg.mfm(mg.tensor(x)).tolist() == np.maximum(x[:, :2], x[:, 2:]).tolist()


# ----------------------------------------------------------------------------- all of them


def test_none_is_forgotten():
    made = {name for name, op in vars(activations).items()
            if isinstance(op, Primitive) and op.__module__ == activations.__name__}  # fmt: skip
    assert made <= {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    asked = """relu relu6 leaky_relu prelu rrelu elu celu selu gelu silu mish sigmoid hard_sigmoid
    log_sigmoid tanh hard_tanh tanhshrink softshrink hardshrink threshold softsign softplus
    squareplus hard_silu softmax log_softmax maxout"""
    assert set(asked.split()) <= made


POINTWISE = {
    f.__name__: (f, {})
    for f in (
        mg.relu, mg.relu6, mg.leaky_relu, mg.rrelu, mg.elu, mg.celu, mg.selu, mg.gelu, mg.silu,
        mg.mish, mg.sigmoid, mg.hard_sigmoid, mg.log_sigmoid, mg.tanh, mg.hard_tanh, mg.tanhshrink,
        mg.softshrink, mg.hardshrink, mg.softsign, mg.softplus, mg.squareplus, mg.hard_silu,
    )
} | {"gelu, tanh": (mg.gelu, {"approximate": "tanh"})}  # fmt: skip


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_low_precision_follows_float64_far_out(name, dtype):
    f, attrs = POINTWISE[name]
    low = np.linspace(-60.0, 60.0, 999).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    exact = value_and_slope(f, low.astype(np.float64), **attrs)
    for have, want in zip(value_and_slope(f, low, **attrs), exact, strict=True):
        gap = np.abs(np.subtract(have, want))
        assert (gap <= 16.0 * eps * np.maximum(np.abs(want), 1.0)).all(), low[gap.argmax()]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_far_out_nothing_is_nan_and_nothing_warns(dtype):
    """Pytest makes errors of warnings."""
    largest = float(np.finfo(dtype).max)
    x = np.array([0.0, -0.0, 1e4, -1e4, largest / 8.0, -largest / 8.0, math.inf, -math.inf], dtype)
    for name, (f, attrs) in POINTWISE.items():
        t = mg.tensor(x, requires_grad=True)
        y = f(t, **attrs)
        y.backward(mg.ones_like(y))
        assert y.dtype == t.grad.dtype == dtype
        assert not np.isnan(y.detach().numpy()).any(), name
        assert not np.isnan(t.grad.numpy()).any(), (name, t.grad)
