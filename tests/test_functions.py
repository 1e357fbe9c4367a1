"""Making tensors, looking at them, taking them out of the library, copying them."""

import copy
import math
import pickle

import numpy as np
import pytest

import microgradnd as mg


def leaf(values, dtype=None):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


# ----------------------------------------------------------------------------- making


@pytest.mark.parametrize(
    ("make", "like"),
    [
        (lambda **k: mg.zeros((2, 3), **k), np.zeros((2, 3))),
        (lambda **k: mg.ones(3, **k), np.ones(3)),
        (lambda **k: mg.ones((), **k), np.ones(())),
        (lambda **k: mg.full([2, 0], 7.0, **k), np.full((2, 0), 7.0)),
        (lambda **k: mg.full(2, 7.5, **k), np.full(2, 7.5)),
        (lambda **k: mg.eye(2, **k), np.eye(2)),
        (lambda **k: mg.eye(2, 3, **k), np.eye(2, 3)),
        (lambda **k: mg.arange(3.0, **k), np.arange(3.0)),
        (lambda **k: mg.arange(1.0, 2.0, 0.25, **k), np.arange(1.0, 2.0, 0.25)),
        (lambda **k: mg.linspace(0.0, 1.0, 5, **k), np.linspace(0.0, 1.0, 5)),
    ],
)
def test_creation(make, like):
    assert make().dtype == "float32"
    for dtype in ("float16", "float64", "int32"):
        t = make(dtype=dtype)
        assert t.dtype == dtype and t.tolist() == like.astype(dtype).tolist()
    assert make().shape == like.shape and type(make()._array) is np.ndarray
    assert not make().requires_grad


@pytest.mark.parametrize(
    "make", [lambda **k: mg.zeros(2, **k), lambda **k: mg.ones(2, **k),
             lambda **k: mg.full(2, 1.0, **k), lambda **k: mg.eye(2, **k)],
)  # fmt: skip
def test_creation_of_leaves(make):
    assert make(requires_grad=True).requires_grad and make(requires_grad=True).is_leaf
    with pytest.raises(TypeError, match="int64"):
        make(dtype="int64", requires_grad=True)


def test_dtypes_of_integers_and_of_full():
    assert mg.arange(3).dtype == mg.arange(1, 7, 2).dtype == "int64"
    assert mg.full(2, 7).dtype == "int64" and mg.full(2, True).dtype == bool
    assert mg.full(2, np.float64(1.0)).dtype == "float64"
    assert mg.arange(5, 1, -2).tolist() == [5, 3]


def test_like():
    x = leaf([[1.0, 2.0]], "float16")
    for t, value in ((mg.zeros_like(x), 0.0), (mg.ones_like(x), 1.0), (mg.full_like(x, 7), 7.0)):
        assert t.tolist() == [[value, value]] and t.dtype == "float16" and not t.requires_grad
    assert mg.zeros_like(x, dtype="int64").dtype == "int64"


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1, "int64"), (1.0, "float32"), (True, "bool"), ([1, 2.5], "float32"), ([], "float32"),
        ([[1], [2]], "int64"), ([True, False], "bool"), (np.float64(1.0), "float64"),
        (np.ones(2), "float64"), (np.ones(2, ">f8"), "float64"), (np.ones(2, "int8"), "int8"),
        (range(3), "int64"), (mg.tensor([1.0], "float16"), "float16"),
    ],
)  # fmt: skip
def test_dtypes_of_data(data, dtype):
    for make in (mg.tensor, mg.Tensor, mg.asarray):
        t = make(data)
        assert t.dtype == dtype and t.dtype.isnative
        assert make(data, dtype="float64").dtype == "float64"


def test_a_dtype_that_is_given_loses_no_digits():
    assert mg.tensor(0.1, dtype="float64").item() == 0.1
    assert mg.tensor([0.1, 1e300], dtype="float64").tolist() == [0.1, 1e300]
    assert mg.asarray([0.1], dtype="float64").item() == 0.1
    assert mg.tensor([16777217.0], dtype="int64").item() == 16777217
    assert mg.full(1, 0.1, dtype="float64").item() == 0.1
    assert mg.linspace(0.0, 0.1, 2, dtype="float64").tolist()[1] == 0.1
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert math.isinf(mg.tensor(1e300).item())


def test_tensor_copies_and_asarray_shares():
    array = np.array([1.0, 2.0])
    copied, shared, t = mg.tensor(array), mg.asarray(array), mg.tensor([1.0, 2.0])
    view = mg.tensor(t)
    array[0] = t.data[0] = 9.0
    assert copied.tolist() == view.tolist() == [1.0, 2.0] and shared.tolist() == [9.0, 2.0]
    assert mg.asarray(t) is t
    assert not np.shares_memory(mg.asarray(array, "float32")._array, array)
    read_only = np.array([1.0, 2.0])
    read_only.flags.writeable = False
    mg.tensor(read_only).data[0] = 3.0


def test_tensor_of_a_tensor_is_a_new_leaf():
    x = leaf([1.0])
    y = mg.tensor(x * 2.0, requires_grad=True)
    (y * y).backward()
    assert y.is_leaf and y.grad.tolist() == [4.0] and x.grad is None
    z = mg.asarray(x, "float64")  # on the tape
    z.backward()
    assert x.grad.tolist() == [1.0]


# ----------------------------------------------------------------------------- looking


def test_allclose():
    x = mg.tensor([1.0, math.nan])
    assert not mg.allclose(x, x) and mg.allclose(x, x, equal_nan=True)
    assert mg.allclose([1.0], leaf([1.0 + 1e-6])) is True
    assert not mg.allclose(1.0, 1.1) and mg.allclose(1.0, 1.1, atol=0.2)
    assert mg.allclose(1.0, 1.1, rtol=0.2)


def test_isnan_and_its_kin():
    x = mg.tensor([1.0, math.nan, math.inf, -math.inf])
    assert mg.isnan(x).tolist() == [False, True, False, False]
    assert mg.isinf(x).tolist() == [False, False, True, True]
    assert mg.isfinite(x).tolist() == [True, False, False, False]


def test_transposes():
    x = leaf(np.arange(6.0).reshape(1, 2, 3))
    assert x.T.shape == (3, 2, 1) and x.mT.shape == (1, 3, 2)
    (x.mT * mg.tensor(np.arange(6.0).reshape(1, 3, 2))).sum().backward()
    assert x.grad.tolist() == [[[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]]


def test_format():
    loss = leaf([[2.0]]) / 3.0
    assert f"{loss:.3f}" == "0.667" and f"{mg.tensor(7):04d}" == "0007"
    assert f"{loss}" == str(loss) == repr(loss)
    with pytest.raises(TypeError, match=r"'\.3f'.*\(2,\)"):
        f"{mg.ones(2):.3f}"


def test_iteration_length_and_membership():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    rows = list(x)
    assert len(x) == 2 and [r.tolist() for r in rows] == [[1.0, 2.0], [3.0, 4.0]]
    (rows[1] * 5.0).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [5.0, 5.0]]
    assert 3.0 in x and 5.0 not in x
    scalar = mg.tensor(1.0)
    for use in (len, iter, list):
        with pytest.raises(TypeError, match="0-d"):
            use(scalar)
    assert list(mg.zeros((0, 2))) == [] and len(mg.zeros((0, 2))) == 0


def test_numbers_of_one_element():
    for t in (leaf([[2.5]]), leaf(2.5) * 1.0):
        assert float(t) == t.item() == 2.5 and int(t) == 2 and bool(t) is True
        assert type(t.item()) is float
    assert type(mg.tensor(3).item()) is int and type(mg.tensor(True).item()) is bool
    assert [10, 20, 30][mg.tensor(1)] == 20
    assert not mg.tensor(0.0) and not mg.tensor([False])
    for convert in (float, int, mg.Tensor.item):
        with pytest.raises(ValueError, match=r"\(2,\)"):
            convert(mg.ones(2))
    for t in (mg.ones(2), mg.ones(0)):
        with pytest.raises(ValueError, match=r"any\(\).*all\(\)"):
            bool(t)
    with pytest.raises(TypeError, match="float32"):
        [1][mg.tensor(0.0)]


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (lambda: mg.tensor([1.0, 2.0]), "Tensor([1., 2.])"),
        (lambda: mg.tensor(1.5), "Tensor(1.5)"),
        (lambda: mg.tensor([]), "Tensor([])"),
        (lambda: mg.tensor([1, 2]), "Tensor([1, 2])"),
        (lambda: mg.tensor([1.0], "float64"), "Tensor([1.], dtype=float64)"),
        (lambda: leaf([1.0]), "Tensor([1.], requires_grad=True)"),
        (lambda: mg.exp(leaf([0.0])), "Tensor([1.], op=exp)"),
        (lambda: mg.split(leaf([0.0, 1.0]), 2)[1], "Tensor([1.], op="),
        (lambda: mg.checkpoint(mg.exp)(leaf([0.0])), "Tensor([1.], op=checkpoint)"),
        (lambda: mg.zeros((0, 3)), "Tensor([], shape=(0, 3))"),
        (lambda: mg.tensor([math.nan, math.inf]), "Tensor([nan, inf])"),
        (lambda: mg.zeros((100, 100)), "Tensor("),
    ],
)
def test_repr(t, text):
    assert repr(t()).startswith(text)


def test_repr_never_fails():
    x = leaf([1.0])
    y = mg.exp(x)
    y.sum().backward()
    assert "exp" in repr(y)  # freed
    assert "Tensor" in repr(mg.Tensor.__new__(mg.Tensor))  # as a debugger sees it in __init__
    broken = mg.tensor([1.0])
    broken._array = None
    assert "Tensor" in repr(broken)


# ----------------------------------------------------------------------------- taking out


def test_clone_detach_astype():
    x = leaf([1.0, 2.0])
    copied, shared, wide = x.clone(), x.detach(), x.astype("float64")
    assert copied.requires_grad and not np.shares_memory(copied._array, x._array)
    assert not shared.requires_grad and np.shares_memory(shared._array, x._array)
    (copied * 2.0 + wide * 3.0).sum().backward()
    assert x.grad.tolist() == [5.0, 5.0] and x.grad.dtype == "float32"
    assert x.astype("int64").tolist() == [1, 2]
    with pytest.raises(TypeError, match="complex"):
        x.astype("complex64")


def test_numpy_and_tolist():
    t = mg.tensor([[1.0, 2.0]])
    assert np.shares_memory(t.numpy(), t._array)
    assert leaf([[1.0, 2.0]]).tolist() == [[1.0, 2.0]] and leaf(3.0).tolist() == 3.0
    assert (t.shape, t.ndim, t.size, t.nbytes) == ((1, 2), 2, 2, 8)


def test_requires_grad_can_be_switched():
    x = mg.tensor([1.0])
    assert x.requires_grad_() is x and x.requires_grad
    x.requires_grad = False
    assert not x.requires_grad and not (x * 2.0).requires_grad
    y = x.requires_grad_() * 2.0
    with pytest.raises(RuntimeError, match=r"multiply.*detach\(\)"):
        y.requires_grad_(False)


# ----------------------------------------------------------------------------- copying


COPIES = pytest.mark.parametrize(
    "how", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)


@COPIES
@pytest.mark.parametrize(
    "t",
    [leaf([1.0, 2.0]), mg.tensor(1.5, "float16"), mg.tensor([[1, 2]]), mg.ones((0, 2)),
     mg.tensor([True]), leaf([0.1, 1e300], "float64"), mg.tensor([[1.0, 2.0]]).T],
)  # fmt: skip
def test_leaves_are_copied(how, t):
    c = how(t)
    assert c.tolist() == t.tolist() and c.shape == t.shape
    assert (c.dtype, c.requires_grad, c.is_leaf) == (t.dtype, t.requires_grad, True)
    assert c._node is not t._node or c._node is None
    assert not np.shares_memory(c._array, t._array)


@COPIES
def test_results_are_not(how):
    y = leaf([1.0]) * 2.0
    with pytest.raises(RuntimeError, match=r"leaves.*detach\(\)"):
        how(y)
    assert how(y.detach()).tolist() == [2.0]


def test_a_deep_copy_of_a_structure_keeps_its_sharing():
    x = leaf([1.0])
    a, b = copy.deepcopy([x, x])
    assert a is b and a is not x


def test_hash_and_equality():
    x, y = mg.tensor(1.0), mg.tensor(1.0)
    assert len({x, y, x}) == 2 and (x == y).item() is True


def test_small_integers_do_not_wrap_around_in_norms_and_losses():
    assert mg.norm(mg.tensor([200, 250], dtype="uint8")).item() == pytest.approx(320.156, abs=1e-3)
    for loss in (mg.mse, mg.l1, mg.huber):
        with pytest.raises(TypeError, match="one must be float"):
            loss(mg.tensor([0], dtype="uint8"), mg.tensor([200], dtype="uint8"))
