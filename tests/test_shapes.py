"""Shapes, indices and products at their edges: NumPy's answers, NumPy's errors, the memory."""

from __future__ import annotations

import numpy as np
import pytest
from device import ARRAY, DEVICE, dev, host, staying
from samples import registered

import microgradnd as mg

X = np.arange(24.0).reshape(2, 3, 4)
ROW, ONE, NONE = np.arange(4), np.array(2.0), np.zeros((0, 3))

#: Calls that NumPy answers; ours gives the same, in value, shape, dtype and the kind of sequence.
SAME = [
    ("hstack", ([ONE, ROW],)), ("vstack", ([ROW],)), ("dstack", ([NONE, NONE],)),
    ("column_stack", ([ROW, X[0].T],)), ("atleast_1d", ()), ("atleast_3d", (ONE, NONE)),
    ("array_split", (NONE, 2)), ("array_split", (ROW, 7)), ("unstack", (NONE,)),
    ("append", (X, NONE)), ("append", (NONE, NONE, 0)), ("repeat", (X, 2, -2)),
    ("repeat", (X, [1, 0, 2], 1)), ("repeat", (ROW, [3])), ("repeat", (ONE, 3)),
    ("repeat", (NONE, 4, 1)), ("tile", (ONE, 3)), ("tile", (X, ())), ("tile", (NONE, (2, 1, 2))),
    ("roll", (X, (1, 5), (0, 0))), ("roll", (NONE, 4)), ("roll", (X, (1, 2), 1)),
    ("rot90", (X, -7, (2, 0))), ("rollaxis", (X, -1, -2)), ("rollaxis", (X, 0, 3)),
    ("meshgrid", ()), ("meshgrid", (ROW,)), ("meshgrid", (X, ONE, ROW)),
    ("broadcast_arrays", (ONE, NONE)), ("diagonal", (X, -2, 1, 0)), ("diagonal", (NONE, 1)),
    ("diag", (np.zeros(0),)), ("diag", (np.zeros(0), -2)), ("diag", (X[0], 9)), ("trace", (X, 5)),
    ("tril", (ROW, -1)), ("triu", (NONE,)), ("triu", (X, 9)), ("diff", (NONE, 1, 0)),
    ("diff", (ROW > 1,)), ("diff", (X, 2, -2, X[:, :1], ONE)), ("inner", (X, ONE)),
    ("inner", (np.zeros((2, 0)), np.zeros((3, 0)))), ("vdot", (NONE, NONE.T)),
    ("kron", (NONE, X)), ("kron", (ROW, ONE)), ("cross", (np.ones((0, 3)), ROW[:3])),
    ("vecdot", (ROW > 1, ROW > 0)), ("vecdot", (ROW.astype("u1") * 60, X.astype("u1"))),
    ("pad", (ONE, 3)), ("pad", (X, 0, "edge")), ("pad", (X > 3, ((1, 0), (2, 1), (0, 3)))),
    ("pad", (NONE, ((1, 2), (0, 0)))), ("pad", (NONE, ((0, 0), (1, 9)), "wrap")),
    ("nonzero", (X > 7,)), ("nonzero", (NONE,)), ("where", (X > 7,)),
    ("diff", (X, 1, np.int64(1))), ("take_along_axis", (X, np.array([23, 0, -1]), None)),
]  # fmt: skip


def alike(got, want):
    """Whether it is the same, layout and all."""
    if isinstance(want, (tuple, list)):
        return type(got) is type(want) and len(got) == len(want) and all(map(alike, got, want))
    return (got.shape, got.dtype) == (want.shape, want.dtype) and np.array_equal(got.numpy(), want)


def lifted(x):
    if isinstance(x, list):
        return [lifted(item) for item in x]
    return mg.tensor(x) if isinstance(x, np.ndarray) else x


@pytest.mark.parametrize(("name", "args"), SAME)
def test_the_edges_are_numpys(name, args):
    if not hasattr(np, name):
        pytest.skip("a newer NumPy has it")
    want = getattr(np, name)(*args)
    ours = getattr(np if name in ("trace", "where") else mg, name)  # `mg.trace` watches the tape
    assert alike(ours(*map(lifted, args)), want)


@pytest.mark.parametrize("mode", ["edge", "wrap", "reflect", "symmetric"])
def test_widths_of_any_size_are_padded_as_numpy_pads(mode):
    for n in range(1, 5):
        for before in range(10):
            want = np.pad(np.arange(n), (before, 9 - before), mode=mode)
            assert mg.pad(mg.arange(n), (before, 9 - before), mode=mode).tolist() == want.tolist()


#: Calls that fail: what is raised begins with the name, and says the rest.
REFUSED = [
    (lambda x: mg.hstack([x, x[0]]), ValueError, "hstack: concatenate: .*dimension"),
    (lambda x: mg.vstack([]), ValueError, "vstack: .*at least one"),
    (lambda x: mg.append(x, x[0], 0), ValueError, "append: .*dimensions"),
    (lambda x: mg.array_split(x, 0), ValueError, "array_split: at least one part"),
    (lambda x: mg.vsplit(x[0, 0], 2), ValueError, r"vsplit: at least 2 axes .*\(4,\)"),
    (lambda x: mg.hsplit(x, 2), ValueError, "hsplit: .*axis 1 has size 3"),
    (lambda x: mg.repeat(x, [1, 2], 1), ValueError, r"repeat: one count >= 0 or 3 .*\[1, 2\]"),
    (lambda x: mg.repeat(x, -1), ValueError, "repeat: .*got -1"),
    (lambda x: mg.repeat(x, 1.5), TypeError, "repeat: "),
    (lambda x: mg.tile(x, (2, -1)), ValueError, r"tile: .*\(2, -1\)"),
    (lambda x: mg.roll(x, 1, 3), np.exceptions.AxisError, "roll: axis 3"),
    (lambda x: mg.roll(x, (1, 2), (0, 1, 2)), ValueError, "roll: shape mismatch"),
    (lambda x: mg.roll(x, 1.5), TypeError, "roll: "),
    (lambda x: mg.rot90(x, axes=(1, -2)), ValueError, "rot90: two different axes"),
    (lambda x: mg.fliplr(x[0, 0]), ValueError, "fliplr: at least 2 axes"),
    (lambda x: mg.rollaxis(x, 0, 4), np.exceptions.AxisError, "rollaxis: axis 4"),
    (lambda x: mg.matrix_transpose(x[0, 0]), ValueError, "matrix_transpose: at least 2"),
    (lambda x: mg.broadcast_arrays(x, x[0, :2]), ValueError, r"broadcast_arrays: .*\(2, 4\) do no"),
    (lambda x: mg.meshgrid(x, indexing="ji"), ValueError, "meshgrid: .*'ji'"),
    (lambda x: mg.diag(x), ValueError, r"diag: a vector or a matrix .*\(2, 3, 4\)"),
    (lambda x: mg.diagonal(x, 0, 1, -2), ValueError, "diagonal: .*repeated axis"),
    (lambda x: x[0, 0].trace(), ValueError, "trace: at least 2"),
    (lambda x: mg.tril(x[0, 0, 0]), ValueError, "tril: at least 1"),
    (lambda x: mg.diff(x, -1), ValueError, "diff: n must not be negative, got -1"),
    (lambda x: mg.diff(x[0, 0, 0]), np.exceptions.AxisError, "diff: axis -1"),
    (lambda x: mg.pad(x, 1, mode="mean"), ValueError, "pad: mode must be constant.*'mean'"),
    (lambda x: mg.pad(x, (1, 2, 3)), ValueError, r"pad: one number, a pair or 3 pairs"),
    (lambda x: mg.pad(x, -1), ValueError, "pad: widths are integers >= 0, got -1"),
    (lambda x: mg.pad(x, 1.0), ValueError, "pad: widths are integers"),
    (lambda x: mg.pad(x[:0], 1, mode="wrap"), ValueError, "pad: axis 0 is empty; mode 'wrap'"),
    (lambda x: mg.put_along_axis(x, [0], 1.0, 0), ValueError, r"put_along_axis: .*3 axes"),
    (lambda x: mg.put_along_axis(x[0, 0], [4], 1.0, 0), IndexError, "put_along_axis: .*index 4"),
    (lambda x: mg.one_hot(x), TypeError, "one_hot: class numbers are integers, got float64"),
    (lambda x: mg.one_hot([[0, 1], [3, 2]], 3), IndexError, r"one_hot: target\[1\]\[0\] = 3"),
    (lambda x: mg.one_hot([0, -1], 3), IndexError, r"one_hot: target\[1\] = -1, classes 0..2"),
    (lambda x: mg.one_hot(np.array([], int)), ValueError, "one_hot: .*give num_classes"),
    (lambda x: mg.norm(x[0], mg.tensor(2.0)), TypeError, "norm: ord is static"),
    (lambda x: mg.norm(x[0, 0, 0], axis=(0, 1)), ValueError, "norm: one axis, or two different"),
    (lambda x: mg.nonzero(x[0, 0, 0]), ValueError, "nonzero: at least 1"),
    (lambda x: mg.inner(x, x[0, 0, :2]), ValueError, "inner: .*lengths"),
    (lambda x: mg.vdot(x, x[0]), ValueError, "vdot: .*not the same size"),
    (lambda x: mg.vecdot(x, x[..., :1]), ValueError, "vecdot: .*axis -1 differs in length"),
    (lambda x: mg.cross(x, x[..., :3]), ValueError, "cross: three components .*got 4, 3"),
    (lambda x: mg.tensordot(x, x, (3, 0)), np.exceptions.AxisError, "tensordot: axis 3 is out"),
    (lambda x: mg.outer(x, "a"), TypeError, "outer|identity"),
]  # fmt: skip


def test_arrays_to_be_joined_may_come_one_by_one():
    assert mg.hstack(mg.tensor([x]) for x in (1.0, 2.0)).tolist() == [1.0, 2.0]


def test_widths_may_be_given_for_some_axes():
    for mode in ("constant", "edge"):
        got = mg.pad(mg.tensor(X), {0: 1, -1: (0, 2)}, mode=mode)
        assert alike(got, np.pad(X, ((1, 1), (0, 0), (0, 2)), mode=mode))


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(call, kind, text):
    with pytest.raises(kind, match=f"^({text})"):
        call(mg.tensor(X))


def test_counts_for_each_place_take_one_upload_and_sum_their_gradients():
    for make, uploads in ((mg.tensor, 0), (dev, 1)):
        with registered(DEVICE):
            x = make([1.0, 2.0, 3.0]).requires_grad_()
            with staying(uploads=uploads):
                y = x.repeat([2, 0, 3])
                y.sum().backward()
            assert host(y).tolist() == [1.0, 1.0, 3.0, 3.0, 3.0]
            assert host(x.grad).tolist() == [2.0, 0.0, 3.0]


@pytest.mark.parametrize(
    "f", [lambda x: x.repeat(3, 1), lambda x: x.repeat(1, 0), lambda x: mg.tile(x, (1, 3)),
          lambda x: mg.tile(x, 1), lambda x: mg.roll(x, 0), lambda x: x.flatten()],
)  # fmt: skip
def test_copies_are_copies_where_the_memory_would_allow_a_view(f):
    x = mg.tensor([[1.0], [2.0]])
    y = f(x)
    y[...] = 7.0
    assert x.tolist() == [[1.0], [2.0]] and set(y.flatten().tolist()) == {7.0}


def test_numbers_and_lists_among_operands_do_not_widen_them_and_go_where_they_are():
    x = np.ones(3, "float16")
    for make, kind in ((mg.tensor, np.ndarray), (dev, ARRAY)):
        with registered(DEVICE):
            t = make(x)
            for y in (mg.append(t, 2.5), mg.diff(t, prepend=0, append=0.5), mg.dot(t, 2),
                      mg.pad(t, 1, constant_values=2.5), mg.kron(2.0, t), mg.hstack([1, t])):
                assert y.dtype == "float16" and type(y._array) is kind
            assert type(mg.append(t, [1.0])._array) is kind
            assert mg.append(t, [1.0]).dtype == "float32"


def test_numpys_put_along_axis_writes_and_ours_does_not():
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = mg.put_along_axis(x, [[1], [0]], 9.0, axis=1)
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert np.put_along_axis(x, np.array([[1], [0]]), 9.0, axis=1) is None
    assert x.tolist() == y.tolist() == [[1.0, 9.0], [9.0, 4.0]]
    v = mg.tensor(5.0, requires_grad=True)
    np.put_along_axis(x, np.array([[0, 1]]), v, axis=0)  # recorded
    (x * x).sum().backward()
    assert v.grad.item() == 20.0
    with pytest.raises(TypeError, match="an array does not take a Tensor's values"):
        np.put_along_axis(np.ones(2), np.array([0]), v, axis=0)


def test_class_numbers_as_rows():
    assert mg.one_hot([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert mg.one_hot(mg.tensor(np.array([], int)), 2).shape == (0, 2)
    row = mg.one_hot(mg.tensor(np.array(1, "u1")), 2)
    assert row.tolist() == [0, 1] and row.dtype == "int64"


def test_the_diagonal_of_a_matrix_is_a_view_of_it():
    x = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    d = x.diagonal()
    x[0, 0] = 7.0
    assert d.tolist() == [7.0, 4.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_long_rows_are_added_to_the_bit_as_short_ones_are(axis, dtype):
    rng = np.random.default_rng(0)
    v, ids = (9 * rng.normal(size=(20, 20, 20))).astype(dtype), rng.integers(-5, 5, 20)
    want = np.zeros((*v.shape[:axis], 5, *v.shape[axis + 1 :]), dtype)
    key = (slice(None),) * axis
    np.add.at(want, (*key, ids), v)
    got = mg.scatter_add(mg.tensor(v), (*key, mg.tensor(ids)), want.shape)
    assert got.dtype == dtype and np.array_equal(got.numpy(), want)
