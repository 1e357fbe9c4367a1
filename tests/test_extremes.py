"""Ties, zeros, infinities and NaN in sorting, running products and losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgradnd as mg
from microgradnd import testing

INF, NAN = math.inf, math.nan
SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def wide(values, **options):
    return mg.tensor(values, dtype="float64", **options)


def slopes(f, *xs):
    """The gradients of the sum, as lists."""
    out, pull = mg.vjp(f, *map(wide, xs))
    return [g.tolist() for g in pull(mg.ones_like(out))]


# ----------------------------------------------------------------------------- order


@given(rng=SEEDS, n=st.integers(1, 100))
def test_equal_elements_keep_their_order(rng, n):
    x, weights = rng.integers(0, 3, n).astype(float), rng.normal(size=n)
    order = np.argsort(x, kind="stable")
    assert mg.argsort(x).tolist() == order.tolist()
    (g,) = slopes(lambda x: mg.sort(x) * weights, x)
    assert np.array_equal(np.array(g)[order], weights)
    k = int(rng.integers(0, n + 1))
    for largest in (True, False):
        values, places = mg.topk(wide(x), k, largest=largest)
        want = sorted(range(n), key=lambda i: (-x[i] if largest else x[i], i))[:k]
        assert places.tolist() == want
        assert values.tolist() == x[want].tolist()


def test_nan_come_last_and_are_the_largest():
    x = wide([NAN, 1.0, INF, NAN, -INF])
    assert mg.argsort(x).tolist() == [4, 1, 2, 0, 3]
    assert mg.topk(x, 3)[1].tolist() == [0, 3, 2]
    assert mg.topk(x, 2, largest=False)[1].tolist() == [4, 1]
    assert mg.topk(mg.tensor([3, 255, 0], dtype="uint8"), 2)[1].tolist() == [1, 0]
    assert math.isnan(mg.median(x).item())
    assert mg.median(wide([-INF, 1.0, INF])).item() == 1.0
    assert mg.median(wide([INF, 1.0, INF, INF])).item() == INF


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mg.topk([1.0, 2.0], 3), ValueError, r"^topk: k must be in 0\.\.2.*got 3"),
        (lambda: mg.topk([1.0, 2.0], -1), ValueError, r"^topk: k must be in 0\.\.2.*got -1"),
        (lambda: mg.topk([1.0, 2.0], 1.5), TypeError, "float"),
        (lambda: mg.topk([[1.0]], 1, axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: mg.sort(1.0), ValueError, "axis -1 is out of bounds"),
        (lambda: mg.sort([[1.0]], axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: mg.median(mg.zeros((0, 2)), axis=0), ValueError, "^median: an empty axis"),
        (lambda: mg.median([1.0, 2.0], axis=1), ValueError, "axis 1 is out of bounds"),
        (lambda: mg.median([[1.0]], axis=(0, -3)), ValueError, "axis -3 is out of bounds"),
        (lambda: mg.sparsemax([[1.0]], axis=2), ValueError, "axis 2 is out of bounds"),
        (lambda: mg.hinge([1.0], [1.0, 1.0]), ValueError, "^hinge: input has shape"),
        (lambda: mg.kl_div([1.0], [1.0], "batch"), ValueError, "^kl_div: reduction must be"),
        (lambda: mg.smooth_l1([1.0], [1.0], beta=-1.0), ValueError, "^smooth_l1: .*positive, got"),
    ],
)
def test_what_does_not_fit_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------- products


def test_running_products_are_exact_with_zeros_to_second_order():
    for x in ([2.0, 0.0, 3.0, 1.5], [0.0, 2.0, 0.0, -1.0, 0.5], [0.0], [0.0, 0.0]):
        testing.gradcheck(mg.cumprod, wide(x))
        testing.gradgradcheck(mg.cumprod, wide(x))


@given(rng=SEEDS, n=st.integers(1, 40))
def test_the_gradient_of_a_long_running_product(rng, n):
    x = rng.integers(-1, 3, n).astype(float)
    weights = rng.integers(-2, 3, n).astype(float)
    want = [
        sum(weights[j] * np.prod(np.delete(x[: j + 1], i)) for j in range(i, n)) for i in range(n)
    ]
    (g,) = slopes(lambda x: mg.cumprod(x) * weights, x)
    assert g == pytest.approx(want, rel=1e-12)


# ----------------------------------------------------------------------------- elements


@pytest.mark.parametrize("x", [0.0, 1e-200, 1e-9, 1e-3, 0.3, 0.318309, 0.31831, 0.5, 2.7])
def test_sinc_has_its_derivatives_near_0(x):
    def series(order):
        z, total = math.pi * x, 0.0
        for k in range(60):
            if 2 * k >= order:
                power = math.perm(2 * k, order) * z ** (2 * k - order)
                total += (-1.0) ** k * power / math.factorial(2 * k + 1)
        return total * math.pi**order

    f = mg.sinc
    for order in range(4):
        tolerance = 1e-14 * 10**order if x < 1 else 1e-11
        assert f(wide(x)).item() == pytest.approx(series(order), rel=tolerance, abs=tolerance)
        f = mg.grad(f)


def test_logit_may_be_held_off_its_poles():
    x = [0.0, 0.25, 0.5, 1.0]
    got = mg.logit(wide(x), eps=0.25)
    assert got.tolist() == pytest.approx([-math.log(3), -math.log(3), 0.0, math.log(3)], rel=1e-15)
    want = [0.0, 1 / 0.1875, 4.0, 0.0]
    assert slopes(lambda x: mg.logit(x, eps=0.25), x) == [pytest.approx(want, rel=1e-15)]
    with np.errstate(divide="ignore"):
        assert mg.logit(wide([0.0, 1.0])).tolist() == [-INF, INF]
    assert mg.logit(wide(0.5 + 1e-12)).item() == pytest.approx(4e-12, rel=1e-4)
    assert mg.expit is mg.sigmoid


def test_what_is_no_finite_number_is_replaced():
    x = [NAN, INF, -INF, 1.0]
    got = mg.nan_to_num(wide(x), nan=7.0, posinf=8.0, neginf=-8.0)
    assert got.tolist() == [7.0, 8.0, -8.0, 1.0]
    for dtype in ("float16", "float32", "float64"):
        values = np.array(x, dtype)
        got = mg.nan_to_num(values)
        assert got.dtype == dtype
        assert np.array_equal(got.numpy(), np.nan_to_num(values))
    assert mg.nan_to_num(mg.tensor([1, 2])).dtype == "int64"


def test_lengths_and_angles_do_not_overflow():
    assert slopes(mg.hypot, [1e200, 5e-324], [0.0, 0.0]) == [[1.0, 1.0], [0.0, 0.0]]
    assert slopes(mg.hypot, [INF, 1.0], [1.0, -INF]) == [[1.0, 0.0], [0.0, -1.0]]
    unknown, known = slopes(mg.hypot, [NAN], [INF])
    assert math.isnan(unknown[0]) and known == [1.0]
    y, x = slopes(mg.arctan2, [1e200], [1e200])
    assert (y, x) == ([pytest.approx(5e-201)], [pytest.approx(-5e-201)])


def test_shares_of_huge_equal_numbers_are_halves():
    for f in (mg.logaddexp, mg.logaddexp2):
        assert slopes(f, [1e20, INF, -INF, 1e300], [1e20, INF, -INF, -1e300]) == [
            [0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 0.5, 0.0],
        ]  # fmt: skip


# ----------------------------------------------------------------------------- losses


def test_what_cannot_be_and_is_not_costs_nothing():
    with np.errstate(all="raise"):
        x, target = wide([[-INF, 0.0]], requires_grad=True), wide([[0.0, 1.0]], requires_grad=True)
        loss = mg.kl_div(x, target, reduction="batchmean")
        loss.backward()
        assert (loss.item(), x.grad.tolist()) == (0.0, [[0.0, -1.0]])
        assert np.isfinite(target.grad.numpy()).all()
        logs = mg.kl_div(wide([[-3.0, 0.0]]), wide([[-INF, 0.0]]), log_target=True)
        assert logs.item() == 0.0
    assert mg.kl_div(wide([-1.0, -2.0]), wide([0.5, 0.5]), "batchmean").item() == pytest.approx(
        mg.kl_div(wide([-1.0, -2.0]), wide([0.5, 0.5])).item()
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_certain_probabilities_have_finite_costs_and_gradients(dtype):
    x = mg.tensor([0.0, 0.0, 1.0, 1.0], dtype=dtype, requires_grad=True)
    target = mg.tensor([0.0, 1.0, 0.0, 1.0], dtype=dtype)
    with np.errstate(all="raise"):
        costs = mg.binary_cross_entropy(x, target, reduction="none")
    assert costs.tolist() == [0.0, 100.0, 100.0, 0.0]
    (costs * 1e-3).sum().backward()
    g = x.grad.numpy()
    assert np.isfinite(g).all()
    assert np.sign(g).tolist() == [0.0, -1.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_zero_vector_has_no_direction(dtype):
    x = mg.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype, requires_grad=True)
    y = mg.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=dtype)
    with np.errstate(all="raise", under="ignore"):
        out = mg.cosine_similarity(x, y)
    assert out.tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
    (out * 1e-3).sum().backward(create_graph=True)
    assert np.isfinite(x.grad.detach().numpy()).all()
    x.grad.sum().backward()
    assert np.isfinite(x.grad.detach().numpy()).all()


def test_losses_are_modules_with_pytorch_s_options():
    x, y = wide([[1.0, 2.0]]), wide([[2.0, 1.0]])
    assert mg.nn.CosineSimilarity(dim=1)(x, y).tolist() == pytest.approx([0.8])
    assert mg.nn.KLDivLoss(reduction="batchmean", log_target=True)(x, y).item() == pytest.approx(
        math.e**2 - math.e
    )
    assert mg.nn.SmoothL1Loss(beta=0.5)(x, y).item() == 0.75
    assert mg.nn.BCELoss()(wide([0.5]), wide([1.0])).item() == pytest.approx(math.log(2))
    assert mg.nn.HingeLoss(reduction="sum")(wide([0.5, -1.0]), mg.tensor([1, 1])).item() == 2.5
    assert mg.nn.Sparsemax(dim=0)(wide([2.0, 0.0])).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="MSELoss: reduction must be 'mean', 'sum' or 'none'"):
        mg.nn.MSELoss("batchmean")
