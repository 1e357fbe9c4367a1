"""Linear algebra beyond what every operation is held to: failures, special matrices, conventions.

First and second derivatives at ordinary matrices are tested for every entry (`test_primitives`).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from device import DEVICE, HOME, dev, host
from samples import registered

import microgradnd as mg
from microgradnd import linalg
from microgradnd.ops.references import positive_definite, spread_values
from microgradnd.testing import gradcheck, gradgradcheck

INF = float("inf")
SINGULAR = [[1.0, 2.0], [2.0, 4.0]]
PAIR = [[[1.0, 0.0], [0.0, 2.0]], SINGULAR]


def leaf(values, dtype="float64"):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


def random(kind, *shape, seed=0):
    return kind(np.random.default_rng(seed), shape)


# ----------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linalg.inv(leaf(SINGULAR)), r"^inv: the matrix is singular.*pinv"),
        (lambda: linalg.inv(leaf(PAIR)), r"^inv: matrix \[1\] of the batch is singular"),
        (lambda: linalg.inv(leaf([PAIR, PAIR])), r"^inv: matrix \[0, 1\] of the batch"),
        (lambda: linalg.solve(leaf(PAIR), [1.0, 1.0]), r"^solve: matrix \[1\] of the batch"),
        (lambda: linalg.matrix_power(leaf(SINGULAR), -1), r"^matrix_power: inv: the matrix is"),
        (lambda: linalg.solve_triangular(leaf([[1.0, 1.0], [1.0, 0.0]]), [1.0, 1.0]), "singular"),
        (lambda: linalg.cholesky(leaf([[[4.0]], [[-1.0]]])), r"^cholesky: matrix \[1\] .*positive"),
        (lambda: linalg.svd(leaf([[math.nan]])), r"^svd: the matrix has no singular.*finite"),
        (lambda: linalg.norm(leaf([[INF, 1.0], [1.0, 2.0]]), 2), r"^norm: .*svd: .*finite"),
        (lambda: linalg.svdvals(leaf([SINGULAR, [[INF, 1.0], [1.0, 2.0]]])), r"svd: matrix \[1\]"),
        (lambda: linalg.inv(leaf([[1.0, 2.0]])), r"^inv: square matrices .* \(1, 2\)"),
        (lambda: linalg.det(leaf([1.0, 2.0])), r"^det: a matrix or a batch .* \(2,\)"),
        (lambda: linalg.eigvalsh(leaf([[1.0, 2.0]])), r"^eigvalsh: eigh: square matrices"),
        (lambda: linalg.qr(leaf([1.0, 2.0])), r"^qr: a matrix or a batch"),
    ],
)
def test_what_has_no_value_is_an_error_at_the_call(call, message):
    with pytest.raises(linalg.LinAlgError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: linalg.solve(x, [1.0, 2.0, 3.0]), ValueError, "^solve: b must have 2 rows"),
        (lambda x: linalg.solve(x, 1.0), ValueError, "^solve: b must have 2 rows"),
        (lambda x: linalg.qr(x, mode="raw"), ValueError, "^qr: mode .*'raw'"),
        (lambda x: linalg.eigh(x, UPLO="X"), ValueError, "^eigh: UPLO .*'X'"),
        (lambda x: linalg.matrix_power(x, 0.5), TypeError, "^matrix_power: n .*0.5"),
        (lambda x: linalg.solve_triangular(x, x, trans=2), ValueError, "trans .*2"),
        (lambda x: linalg.inv(x.astype("float16")), TypeError, "^inv: float16 .*astype"),
        (lambda x: linalg.svd(x.astype("float16")), TypeError, "^svd: float16 .*astype"),
        (lambda x: linalg.solve(x, x.astype("float16")), TypeError, "^solve: float16 .*astype"),
        (lambda x: mg.norm(x, 3), ValueError, "^norm: a matrix has ord .*3"),
        (lambda x: mg.norm(x[0], "fro"), ValueError, "^norm: ord='fro' is for matrices"),
        (lambda x: mg.norm(x[None], 1), ValueError, r"^norm: one axis, or two .*\(1, 2, 2\)"),
        (lambda x: mg.norm(x, 1, axis=(0, -2)), ValueError, "^norm: one axis, or two different"),
        (lambda x: mg.norm(x, 1, axis=2), ValueError, "^norm: .*axis 2"),
    ],
)
def test_wrong_arguments(call, kind, message):
    with pytest.raises(kind, match=message):
        call(leaf([[4.0, 1.0], [1.0, 3.0]]))


ROTATED = (lambda q: q @ np.diag([1.0, 1.0, 2.0]) @ q.T)(
    np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
)
REPEATED = np.stack([np.diag([1.0, 2.0, 3.0]), ROTATED])


@pytest.mark.parametrize(
    ("f", "x", "message"),
    [
        (lambda x: linalg.eigh(x)[1], np.eye(2), "^eigh: the matrix .* gap is 0"),
        (lambda x: linalg.eigh(x)[1], REPEATED, r"^eigh: matrix \[1\] .*gap is \d(\.\d+)?e-1[56]"),
        (lambda x: linalg.eigh(x)[1][..., 1], REPEATED, r"^eigh: matrix \[1\]"),
        (lambda x: linalg.svd(x).U, REPEATED, r"^svd: matrix \[1\] .*gap is \d(\.\d+)?e-1[56]"),
        (lambda x: linalg.svd(x).Vh, np.zeros((2, 2)), "^svd: the matrix .* gap is 0"),
        (lambda x: linalg.svd(x, False).U, np.ones((3, 2)), "^svd: .*singular value of 0"),
        (lambda x: linalg.svd(x).U, np.ones((2, 1)), "^svd: .*full_matrices=False"),
        (lambda x: linalg.qr(x).R, np.ones((2, 2)), "^qr: .*linearly dependent"),
        (lambda x: linalg.qr(x, "complete").Q, np.ones((2, 1)), "^qr: .*mode='reduced'"),
        (lambda x: linalg.slogdet(x)[1], np.array(PAIR), r"^slogdet: matrix \[1\] .*singular"),
    ],
)  # fmt: skip
def test_what_has_no_gradient_is_an_error_on_the_way_back(f, x, message):
    for taped in (False, True):
        out = f(leaf(x)).sum()
        with pytest.raises(linalg.LinAlgError, match=message):
            out.backward(create_graph=taped)


def test_what_is_not_used_needs_no_gradient():
    assert mg.grad(lambda x: linalg.eigvalsh(x)[0])(mg.tensor(np.eye(2))).sum().item() == 1.0
    assert np.allclose(mg.grad(lambda x: linalg.eigvalsh(x).sum())(mg.tensor(ROTATED)), np.eye(3))
    third = mg.grad(lambda x: (linalg.eigh(x)[1][:, 2] ** 2 * np.arange(3.0)).sum())
    assert np.isfinite(third(mg.tensor(ROTATED)).numpy()).all()
    x = random(spread_values, 3, 2)
    full = mg.grad(lambda x: (lambda out: out.S.sum() + out.U[0, 0])(linalg.svd(x)))
    slim = mg.grad(lambda x: (lambda out: out.S.sum() + out.U[0, 0])(linalg.svd(x, False)))
    assert full(mg.tensor(x)).tolist() == slim(mg.tensor(x)).tolist()
    whole = mg.grad(lambda x: linalg.qr(x, mode="complete").R.sum())
    part = mg.grad(lambda x: linalg.qr(x, mode="r").sum())
    np.testing.assert_allclose(whole(mg.tensor(x)), part(mg.tensor(x)), rtol=1e-14)
    pair = mg.grad(lambda x: linalg.slogdet(x).logabsdet[0])(mg.tensor(PAIR))
    assert pair.tolist() == [[[1.0, 0.0], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]]
    assert mg.grad(lambda x: linalg.svdvals(x).sum())(np.diag([1.0, 0.0])).shape == (2, 2)


@pytest.mark.parametrize("call, message", [
    (lambda x: linalg.inv(x), r"^inv: matrix \[1\] of the batch is singular"),
    (lambda x: linalg.solve(x, x), r"^solve: matrix \[1\] of the batch is singular"),
    (lambda x: linalg.cholesky(-x), r"^cholesky: matrix \[0\] of the batch"),
    (lambda x: linalg.svd(x / x[:, 1:, :1]), r"^svd: matrix \[0\] of the batch"),
    (lambda x: linalg.slogdet(x).logabsdet.sum().backward(), r"^slogdet: matrix \[1\]"),
])  # fmt: skip
def test_a_device_tells_at_the_next_transfer(call, message):
    with registered(DEVICE):
        x = dev(PAIR, "float64", requires_grad=True)
        with np.errstate(all="ignore"):
            call(x)
        with pytest.raises(linalg.LinAlgError, match=message) as caught:
            dev([1.0]).item()
        assert "test_linalg.py:" in "".join(caught.value.__notes__)
        assert dev([1.0]).item() == 1.0, "it is told once"
        assert x.backend.name == HOME


def test_a_device_says_nothing_of_what_is_sound():
    with registered(DEVICE):
        x = dev(random(positive_definite, 2, 3, 3), requires_grad=True)
        empty = dev(np.zeros((0, 2, 2)), requires_grad=True)
        for y in (x, empty, dev(np.zeros((2, 0, 0)), requires_grad=True)):
            out = [linalg.inv(y), linalg.cholesky(y), linalg.slogdet(y).logabsdet, linalg.pinv(y)]
            out += [*linalg.eigh(y), *linalg.svd(y), *linalg.qr(y), linalg.solve(y, y)]
            sum(o.sum() for o in out).backward()
            assert y.grad.shape == y.shape and np.isfinite(host(y.grad)).all()


# ----------------------------------------------------------------------------- what must hold


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 2), (2, 2, 4), (1, 1), (2, 0), (0, 3), (0, 2, 2)])
def test_factors_multiply_to_what_they_are_of(shape, dtype):
    x = random(spread_values, *shape).astype(dtype)
    near = dict(rtol=0, atol=64 * np.finfo(dtype).eps)
    for full in (False, True):
        u, s, vh = (o.numpy() for o in linalg.svd(mg.tensor(x), full_matrices=full))
        k = s.shape[-1]
        np.testing.assert_allclose(u[..., :k] * s[..., None, :] @ vh[..., :k, :], x, **near)
        q, r = (o.numpy() for o in linalg.qr(mg.tensor(x), mode="complete" if full else "reduced"))
        np.testing.assert_allclose(q @ r, x, **near)
    p = linalg.pinv(mg.tensor(x)).numpy()
    np.testing.assert_allclose(x @ p @ x, x, **near)
    np.testing.assert_allclose(p @ x @ p, p, **near)
    assert {o.dtype for o in (u, s, vh, q, r, p)} == {np.dtype(dtype)}
    if shape[-1] != shape[-2]:
        return
    inverse, unit = linalg.inv(mg.tensor(x)), np.broadcast_to(np.eye(shape[-1]), shape)
    np.testing.assert_allclose(x @ inverse.numpy(), unit, **near)
    np.testing.assert_allclose(x @ linalg.solve(x, x).numpy(), x, **near)
    sign, log = linalg.slogdet(mg.tensor(x))
    np.testing.assert_allclose(sign * mg.exp(log), linalg.det(mg.tensor(x)), **near)
    spd = random(positive_definite, *shape).astype(dtype)
    lower = linalg.cholesky(mg.tensor(spd))
    np.testing.assert_allclose(lower @ lower.mT, spd, **near)
    w, v = linalg.eigh(mg.tensor(spd))
    np.testing.assert_allclose((v * mg.expand_dims(w, -2)) @ v.mT, spd, **near)
    np.testing.assert_allclose(linalg.matrix_power(spd, 0), unit)


def minors(x):
    """The cofactors, one by one."""
    n = len(x)
    rows = [[i for i in range(n) if i != k] for k in range(n)]
    each = [[(-1) ** (i + j) * np.linalg.det(x[np.ix_(rows[i], rows[j])]) for j in range(n)]
            for i in range(n)]  # fmt: skip
    return np.array(each)


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 0, 3), (0, 0, 0), (1, 1, 1), (1e-9, 1, 1), (4,)])
def test_the_gradient_of_a_determinant_exists_at_every_matrix(values):
    n = len(values)
    left, right = np.linalg.qr(np.random.default_rng(3).normal(size=(2, n, n)))[0]
    for x in (np.diag(np.array(values, float)), left * values @ right, left * values @ left.T):
        found = mg.grad(linalg.det)(mg.tensor(x))
        np.testing.assert_allclose(found, minors(x), rtol=0, atol=1e-13)
        assert gradcheck(linalg.det, x, step=0.25).weak == 0
        assert gradgradcheck(linalg.det, x, step=0.25).weak == 0


def test_cofactors_of_a_determinant_that_leaves_the_range():
    for big in (1e30, 1e-30):
        x = mg.tensor(np.diag([big, big]), dtype="float32")
        with np.errstate(over="ignore"):
            out, slope = mg.value_and_grad(linalg.det)(x)
        assert out.item() in (0.0, INF)
        np.testing.assert_allclose(slope.numpy(), np.diag([big, big]), rtol=1e-5)


def test_the_hessian_of_a_determinant():
    swap = mg.hessian(linalg.det)(mg.tensor(np.zeros((2, 2))))
    assert swap.reshape(4, 4).tolist() == np.fliplr(np.diag([1.0, -1.0, -1.0, 1.0])).tolist()
    with np.errstate(invalid="ignore"):  # NumPy's det warns of a NaN
        both = mg.tensor([SINGULAR, [[math.nan, 1], [1, 1]]])
        broken = mg.grad(lambda x: linalg.det(x).sum())(both)
    assert broken[0].tolist() == [[4.0, -2.0], [-2.0, 1.0]] and np.isnan(broken[1].numpy()).all()


def test_only_one_triangle_is_read_and_the_gradient_is_symmetric():
    x = random(positive_definite, 3, 3)
    spoilt = {"L": np.tril(x) + np.triu(np.full((3, 3), 7.0), 1)}
    spoilt["U"] = spoilt["L"].T
    weights = np.random.default_rng(1).normal(size=(3, 3))
    for uplo, y in spoilt.items():
        upper = uplo == "U"
        for f in (
            lambda x, uplo=uplo: linalg.eigh(x, uplo).eigenvalues @ np.arange(3.0),
            lambda x, upper=upper: (linalg.cholesky(x, upper=upper) * weights).sum(),
        ):
            value, slope = mg.value_and_grad(f)(mg.tensor(y))
            want, exact = mg.value_and_grad(f)(mg.tensor(x))
            assert np.allclose(value, want, rtol=1e-14) and np.allclose(slope, exact, rtol=1e-12)
            assert np.allclose(slope.numpy(), slope.numpy().T, rtol=1e-14)


def test_the_pseudo_inverse_of_dependent_columns_has_the_gradient_at_that_rank():
    u, v = np.array([1.0, 2.0, -1.0]), np.array([0.5, -1.5])
    product = lambda u, v: linalg.pinv(mg.outer(u, v), rcond=1e-10)  # noqa: E731
    assert gradcheck(product, u, v, step=2.0**-6).weak == 0
    assert gradgradcheck(product, u, v, step=2.0**-6).weak == 0
    nearly = mg.tensor(np.diag([1.0, 1e-15]))
    for options in ({}, {"rtol": None}, {"rcond": None, "rtol": 1e-16}, {"rcond": 0.1}):
        want = np.linalg.pinv(nearly.numpy(), **options)
        assert np.linalg.pinv(nearly, **options).tolist() == want.tolist(), options


def test_numpys_functions_give_named_results():
    x = random(positive_definite, 2, 2)
    t = leaf(x)
    pairs = [
        (np.linalg.svd, ("U", "S", "Vh")), (np.linalg.qr, ("Q", "R")),
        (np.linalg.eigh, ("eigenvalues", "eigenvectors")),
        (np.linalg.slogdet, ("sign", "logabsdet")),
    ]  # fmt: skip
    for function, names in pairs:
        got, want = function(t), function(x)
        assert got._fields == want._fields == names
        assert [g.tolist() for g in got] == [w.tolist() for w in want]
    np.testing.assert_allclose(
        np.linalg.svd(t, compute_uv=False).tolist(), np.linalg.svdvals(x), rtol=1e-14
    )
    np.testing.assert_allclose(
        np.linalg.qr(t, mode="r").tolist(), np.linalg.qr(x, mode="r"), rtol=1e-14
    )
    assert np.linalg.solve(t, np.ones(2)).requires_grad
    assert not hasattr(mg, "inv") and np.linalg.norm(t).item() == mg.norm(x).item()


def test_integers_and_mixed_precisions():
    whole = np.array([[2, 1], [1, 1]])
    assert linalg.inv(mg.tensor(whole)).dtype == "float64"
    assert np.allclose(linalg.inv(whole.tolist()), [[1.0, -1.0], [-1.0, 2.0]])
    assert linalg.matrix_power(mg.tensor(whole), 3).tolist() == (whole @ whole @ whole).tolist()
    a, b = leaf(np.eye(2), "float32"), leaf(np.ones(2))
    out = linalg.solve(a, b)
    out.sum().backward()
    assert (out.dtype, a.grad.dtype, b.grad.dtype) == ("float64", "float32", "float64")


# ----------------------------------------------------------------------------- norms

VECTOR = [None, 0, 1, 2, 3, 0.5, -1, -2.5, INF, -INF]
MATRIX = [None, "fro", "nuc", 1, -1, 2, -2, INF, -INF]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_norms_are_numpys(dtype):
    low, high = (1, 20) if dtype == "int32" else (-3, 3)
    x = np.random.default_rng(0).uniform(low, high, (2, 3, 4)).astype(dtype)
    near = dict(rtol=64 * np.finfo("float64" if dtype == "int32" else dtype).eps)
    rows = [*itertools.product(VECTOR, [0, -1, (1,), [2]])]
    rows += itertools.product(MATRIX, [(0, 1), (2, 0), (-1, -2), [1, 2]])
    for (order, axis), keepdims in itertools.product(rows, [False, True]):
        axis_np = tuple(axis) if isinstance(axis, list) else axis
        want = np.linalg.norm(x, order, axis_np, keepdims)
        got = mg.norm(mg.tensor(x), order, axis, keepdims)
        assert got.dtype == want.dtype, (order, axis)
        np.testing.assert_allclose(got, want, **near, err_msg=f"{order}, {axis}")
    for order in MATRIX:
        want = np.linalg.norm(x[0], order)
        np.testing.assert_allclose(mg.norm(mg.tensor(x[0]), order), want, **near)


def test_norms_of_low_precision_and_of_nothing():
    x = leaf([3.0, -4.0], "float16")
    for order in VECTOR:
        out = mg.norm(x, order)
        assert out.dtype == "float16"
    mg.norm(x, 3).backward()
    assert x.grad.dtype == "float16"
    assert mg.norm(mg.tensor(np.zeros((0, 2))), 1, axis=0).tolist() == [0.0, 0.0]
    assert mg.norm(leaf([0.0, 2.0]), -1).item() == 0.0
    assert mg.norm(leaf([300.0, 400.0], "float16")).item() == 500.0  # and 300 ** 2 overflows
    assert mg.norm(leaf([INF, INF]), -3).item() == INF
    assert mg.norm(mg.tensor(np.zeros((0, 2))), -1, axis=0).tolist() == [INF, INF]


@pytest.mark.parametrize("order", [1, 1.5, 3, 0.5, INF, "nuc", 2, "fro"])
def test_at_0_the_gradient_of_a_norm_is_0_and_the_second_is_finite(order):
    shape = (2, 2) if order in ("nuc", 2, "fro") else (2,)
    slope = mg.grad(lambda x: mg.norm(x, order))
    assert not slope(mg.tensor(np.zeros(shape))).numpy().any()
    if order in (1.5, 3, 0.5):
        second = mg.hessian(lambda x: mg.norm(x, order))(mg.tensor([0.0, 2.0]))
        assert np.isfinite(second.numpy()).all()
