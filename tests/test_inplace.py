"""Writing in place: into the array under `no_grad`, functionally while recording, or refused."""

import gc
import operator

import numpy as np
import pytest

import microgradnd as mg


def leaf(values, dtype=None):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


def add_one(t):
    t += 1.0


def set_first(t):
    t[0] = 9.0


def assign(t):
    t.assign_(mg.tensor([9.0, 8.0]))


WRITES = pytest.mark.parametrize("write", [add_one, set_first, assign])

IN_PLACE = {
    "+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "/=": operator.itruediv,
    "//=": operator.ifloordiv, "%=": operator.imod, "**=": operator.ipow,
}  # fmt: skip


# ----------------------------------------------------------------------------- without recording


@WRITES
def test_no_grad_writes_into_the_array(write):
    x = leaf([1.0, 2.0])
    array, other = x._array, np.array([1.0, 2.0], "float32")
    with mg.no_grad():
        write(x)
        write(other) if write is not assign else other.__setitem__(..., [9.0, 8.0])
    assert x._array is array and array.tolist() == other.tolist()
    assert x.requires_grad and x.is_leaf


@pytest.mark.parametrize("name", IN_PLACE)
def test_every_operator_writes_in_place(name):
    x, array = mg.tensor([5.0, 7.0]), np.array([5.0, 7.0], "float32")
    same = x
    with mg.no_grad():
        x = IN_PLACE[name](x, 2.0)
    assert x is same
    assert x.tolist() == IN_PLACE[name](array, 2.0).tolist()
    y = same = mg.tensor([5.0, 7.0]) * 1.0
    y = IN_PLACE[name](y, mg.tensor([2.0, 2.0]))
    assert y is same and y.tolist() == array.tolist()


@WRITES
def test_an_overwritten_value_is_noticed_at_backward(write):
    x = leaf([1.0, 2.0])
    loss = mg.sinh(x).sum()
    with mg.no_grad():
        write(x)
    with pytest.raises(RuntimeError, match=r"sinh.*overwritten"):
        loss.backward()
    assert x.grad is None
    mg.sinh(x).sum().backward()  # a new forward is fine
    assert x.grad.tolist() == pytest.approx(np.cosh(x.tolist()).tolist())


@pytest.mark.parametrize(
    "other", [lambda t: t[1:], lambda t: t.reshape(2, 1), lambda t: t.T, lambda t: t.detach()]
)
def test_views_and_detach_share_the_version(other):
    x = leaf([1.0, 2.0])
    y = mg.exp(x)
    loss = y.sum()
    with mg.no_grad():
        shared = other(y)
        shared += 1.0
    assert y.tolist()[1] == pytest.approx(np.exp(2.0) + 1.0)
    with pytest.raises(RuntimeError, match=r"exp.*overwritten"):
        loss.backward()


def test_a_write_that_was_no_danger_is_no_error():
    x, c = leaf([1.0, 2.0]), mg.tensor([5.0, 5.0])
    y = x + c  # keeps neither
    z = y.sum()
    with mg.no_grad():
        c += 1.0
        y += 1.0
    z.backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_write_before_the_value_was_kept_is_no_error():
    x = leaf([1.0, 2.0])
    y = x * 1.0
    with mg.no_grad():
        y += 1.0
    (y * y).sum().backward()
    assert x.grad.tolist() == [4.0, 6.0]


@pytest.mark.parametrize(
    "fail",
    [
        lambda x: operator.setitem(x, 7, 1.0),
        lambda x: operator.iadd(x, mg.ones((3, 2))),
        lambda x: operator.iadd(x, mg.ones(3)),
        lambda x: x.assign_(mg.ones(3)),
        lambda x: operator.setitem(x, [True, False, True], 1.0),
        lambda x: operator.iadd(x, "one"),
    ],
)
def test_a_write_that_fails_changes_nothing(fail):
    x = leaf([1.0, 2.0])
    loss = (x * x).sum()
    with mg.no_grad(), pytest.raises((ValueError, IndexError, TypeError)):
        fail(x)
    loss.backward()
    assert x.tolist() == [1.0, 2.0] and x.grad.tolist() == [2.0, 4.0]


# ----------------------------------------------------------------------------- while recording


@WRITES
def test_a_leaf_that_requires_a_gradient_is_refused(write):
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"leaf.*no_grad"):
        write(x)
    assert x.tolist() == [1.0, 2.0] and x.is_leaf


def test_other_tensors_are_updated_functionally():
    x = leaf([1.0, 2.0], "float64")
    y = same = x * 1.0
    array = y._array
    z = y * y  # keeps y as it is now
    y += 1.0
    assert y is same and y._array is not array and array.tolist() == [1.0, 2.0]
    (z + y * y).sum().backward()  # x^2 + (x + 1)^2
    assert x.grad.tolist() == [6.0, 10.0]


def test_a_tensor_written_with_itself():
    x = leaf([3.0])
    y = x * 1.0
    y *= y
    y -= x * y
    y.backward()
    assert y.tolist() == [-18.0] and x.grad.tolist() == [-21.0]  # x^2 - x^3


@pytest.mark.parametrize(
    ("index", "value", "to_x", "to_v"),
    [
        (1, 5.0, [1.0, 0.0, 100.0, 1000.0], 10.0),
        (slice(1, 3), [5.0, 6.0], [1.0, 0.0, 0.0, 1000.0], [10.0, 100.0]),
        (slice(None, None, -2), 5.0, [1.0, 0.0, 100.0, 0.0], 1010.0),
        (..., 5.0, [0.0] * 4, 1111.0),
        ([3, 0], [5.0, 6.0], [0.0, 10.0, 100.0, 0.0], [1000.0, 1.0]),
        ([True, False, False, True], [5.0], [0.0, 10.0, 100.0, 0.0], [1001.0]),
        ([2, 2], [5.0, 6.0], [1.0, 10.0, 0.0, 1000.0], [0.0, 100.0]),  # the last one stays
    ],
)
def test_assigned_values_get_their_gradients(index, value, to_x, to_v):
    x, v = leaf([1.0, 2.0, 3.0, 4.0]), leaf(value)
    y = x * 1.0
    y[index] = v
    expected = np.array([1.0, 2.0, 3.0, 4.0])
    expected[index] = value
    assert y.tolist() == expected.tolist()
    (y * mg.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert x.grad.tolist() == to_x and v.grad.tolist() == to_v


def test_a_constant_becomes_part_of_the_graph():
    v, y = leaf(5.0), mg.zeros(3)
    y[1] = v
    (y * y).sum().backward()
    assert y.tolist() == [0.0, 5.0, 0.0] and v.grad.item() == 10.0


def test_assign_is_functional_too():
    x, v = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = x * 1.0
    assert y.assign_(v) is y
    (y * y).sum().backward()
    assert v.grad.tolist() == [6.0, 8.0]
    assert x.grad is None or x.grad.tolist() == [0.0, 0.0]


def test_shared_memory_is_not_written_to_while_recording():
    array = np.zeros(2, "float32")
    t = mg.asarray(array)
    t[0] = 1.0
    assert array.tolist() == [0.0, 0.0] and t.tolist() == [1.0, 0.0]
    t = mg.asarray(array)
    with mg.no_grad():
        t[0] = 1.0
    assert array.tolist() == [1.0, 0.0]


VIEWS = pytest.mark.parametrize(
    "view",
    [
        lambda t: t[:1], lambda t: t[...], lambda t: t[None], lambda t: t.reshape(2, 1),
        lambda t: t.T, lambda t: t.detach(), lambda t: mg.expand_dims(t, 0), lambda t: mg.flip(t),
        lambda t: mg.broadcast_to(t, (3, 2)), lambda t: mg.squeeze(t[None, 0:2]),
    ],
)  # fmt: skip


@VIEWS
@WRITES
def test_a_tensor_with_a_live_view_is_refused(view, write):
    x = leaf([1.0, 2.0])
    y = x * 1.0
    other = view(y)
    with pytest.raises(RuntimeError, match=r"mg\.where or mg\.scatter_add"):
        write(y)
    assert y.tolist() == [1.0, 2.0]
    del other
    write(y)
    assert y.tolist() != [1.0, 2.0]


def test_adding_to_a_part():
    y = leaf([1.0, 2.0]) * 1.0
    with pytest.raises(RuntimeError, match=r"mg\.where or mg\.scatter_add"):
        y[:1] += 1.0
    with mg.no_grad():
        y[:1] += 1.0
        y[1] += 10.0
    assert y.tolist() == [2.0, 12.0]


@VIEWS
def test_a_view_is_refused(view):
    y = leaf([1.0, 2.0]) * 1.0
    other = view(y)
    with pytest.raises(RuntimeError, match=r"mg\.where or mg\.scatter_add"):
        other += 1.0
    with pytest.raises(RuntimeError, match=r"mg\.where or mg\.scatter_add"):
        other[...] = 1.0
    assert y.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "copy", [lambda t: t.clone(), lambda t: t[[0, 1]], lambda t: t[t > 0], lambda t: +t]
)
def test_a_copy_is_no_view(copy):
    y = leaf([1.0, 2.0]) * 1.0
    other = copy(y)
    y += 1.0
    other *= 3.0
    assert y.tolist() == [2.0, 3.0] and other.tolist() == [3.0, 6.0]


# ----------------------------------------------------------------------------- read-only arrays


@pytest.mark.parametrize("way", [lambda t: t.data, lambda t: t.detach().numpy()])
def test_arrays_are_read_only_while_the_tape_keeps_them(way):
    x = leaf([1.0, 2.0])
    y = mg.exp(x)
    loss = (y * 2.0 + x * x).sum()
    for t in (x, y):
        array = way(t)
        assert np.shares_memory(array, t._array)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7.0
    loss.backward()
    for t in (x, y):
        way(t)[0] = 7.0
        assert t.tolist()[0] == 7.0


def test_arrays_are_writable_again_when_the_graph_is_dropped():
    gc.disable()
    try:
        x = leaf([1.0, 2.0])
        loss = (x * x).sum()
        assert not x.data.flags.writeable
        del loss
        x.data[0] = 7.0
    finally:
        gc.enable()
    assert x.tolist() == [7.0, 2.0]


def test_arrays_that_nothing_keeps_are_writable():
    x = leaf([1.0, 2.0])
    y = x + 1.0
    x.data[0] = y.data[0] = 7.0
    plain = mg.tensor([1.0])
    _ = plain * plain
    plain.numpy()[0] = 7.0
    assert (x.tolist(), y.tolist(), plain.tolist()) == ([7.0, 2.0], [7.0, 3.0], [7.0])


def test_a_view_of_a_kept_value_is_read_only():
    x = leaf([1.0, 2.0])
    y = x * x
    assert not x.detach().data.flags.writeable
    with mg.no_grad():
        assert not x[:1].data.flags.writeable
    y.sum().backward()
    assert x.detach().data.flags.writeable


# ----------------------------------------------------------------------------- dtype and shape


MODES = pytest.mark.parametrize("mode", [mg.no_grad, mg.enable_grad])


@MODES
def test_the_dtype_stays(mode):
    y = mg.tensor([1.0, 2.0], "float16")
    v = mg.tensor([0.5, 0.5], "float64")
    with mode():
        y += v
        y[0] = v[0]
        y.assign_(v)
        y *= np.float64(2.0)
    assert y.dtype == "float16" and y.tolist() == [1.0, 1.0]


@MODES
def test_floats_do_not_go_into_integers(mode):
    y = mg.tensor([1, 2])
    with mode():
        with pytest.raises(TypeError, match=r"float.*int64"):
            y += 0.5
        y += 1
    assert y.tolist() == [2, 3] and y.dtype == "int64"


@MODES
@pytest.mark.parametrize("way", [
    lambda y, v: operator.iadd(y, v),
    lambda y, v: operator.setitem(y, ..., v),
    lambda y, v: y.assign_(v),
])  # fmt: skip
def test_values_that_need_more_room_are_refused(mode, way):
    y = mg.tensor([1.0, 2.0]) * 1.0
    with mode(), pytest.raises(ValueError, match=r"\(3, 2\)|3,2"):
        way(y, mg.ones((3, 2)))
    assert y.tolist() == [1.0, 2.0]


def test_gradients_of_a_written_value_have_its_own_dtype():
    x, v = leaf([1.0, 2.0], "float16"), leaf([3.0], "float64")
    y = x * 1.0
    y += v
    y[0] = v[0]
    y.sum().backward()
    assert (x.grad.dtype, v.grad.dtype) == ("float16", "float64")
    assert x.grad.tolist() == [0.0, 1.0] and v.grad.tolist() == [2.0]
