"""The rules of the tape: what is recorded, what is kept, what is freed, and what gradients are."""

import contextvars
import gc
import os
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import microgradnd as mg
from microgradnd.registry import COMPOSITES, OVERRIDES, REGISTRY
from microgradnd.tape import Node, Tensor


def leaf(values, dtype=None):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


def in_threads(*functions):
    """Run functions in threads of their own, switching as often as possible; raise what they do."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for error in errors:
        raise error


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def scratch_registry():
    """Forget the primitives that a test declares."""
    tables = [REGISTRY, COMPOSITES, OVERRIDES]
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


# ----------------------------------------------------------------------------- identity, counting


def test_the_gradient_lives_on_the_node_and_outlasts_the_tensor():
    x = leaf(3.0)
    loss = x * x
    node = x._node
    del x
    loss.backward()
    assert node.grad.item() == 6.0


def test_equal_leaves_are_different_leaves():
    x, y = leaf(2.0), leaf(2.0)
    (x * x * y).backward()
    assert (x.grad.item(), y.grad.item()) == (8.0, 4.0)


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda x: x - x, 0.0),
        (lambda x: x / x, 0.0),
        (lambda x: x * x, 6.0),
        (lambda x: x + x, 2.0),
        (lambda x: (x * x) * (x * x), 108.0),
        (lambda x: (lambda y: y * y + y)(x + 1.0), 9.0),  # a diamond
        (lambda x: mg.maximum(x, x), 1.0),
        (lambda x: mg.concatenate([x.reshape(1), x.reshape(1)]).sum(), 2.0),
        (lambda x: mg.einsum("i,i->", x.reshape(1), x.reshape(1)), 6.0),
        (lambda x: mg.where(x > 0, x, x), 1.0),
    ],
)
def test_every_use_counts_once(f, slope):
    x = leaf(3.0, "float64")
    f(x).backward()
    assert x.grad.item() == pytest.approx(slope, abs=1e-12)


def test_repeated_index_sums():
    x = leaf([1.0, 2.0, 3.0])
    (x[[0, 0, 2, 0, -1]] * mg.tensor([1.0, 10.0, 100.0, 1000.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [1011.0, 0.0, 101.0]


def test_a_node_is_visited_once_however_many_paths_lead_to_it():
    x = y = leaf(1.0, "float64")
    calls = []
    for _ in range(16):
        y = y + y
        y.register_hook(lambda g: calls.append(g.item()))
    y.backward()
    assert calls == [2.0**i for i in range(16)]
    assert x.grad.item() == 2.0**16


def test_sixty_doublings_take_linear_time():
    x = y = leaf(1.0, "float64")
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60


def test_a_leaf_younger_than_what_it_meets():
    x = leaf(2.0)
    y = x * x
    z = leaf(5.0)
    (y * z * y).backward()
    assert (x.grad.item(), z.grad.item()) == (160.0, 16.0)


# ----------------------------------------------------------------------------- memory


def test_a_dropped_graph_is_freed_at_once(no_gc):
    x = leaf([1.0, 2.0])
    y = mg.tanh(x)
    node, array = weakref.ref(y._node), weakref.ref(y._array)
    z = mg.exp(y * 2.0).sum()
    del y
    assert node() is not None and array() is not None  # the graph holds them
    del z
    assert node() is None and array() is None


def ours():
    return [x for x in gc.get_objects() if isinstance(x, Tensor | Node)]


@pytest.mark.slow
def test_a_thousand_training_steps_leave_nothing_behind(no_gc):
    rng = np.random.default_rng(0)
    x, ids = mg.tensor(rng.normal(size=(8, 4))), mg.tensor(rng.integers(0, 2, 8))
    w, v = leaf(rng.normal(size=(4, 6))), leaf(rng.normal(size=(3, 2)))

    def steps(n):
        for _ in range(n):
            loss = mg.cross_entropy(mg.maxout(x @ w, 2) @ v, ids)
            loss.backward()
            with mg.no_grad():
                for p in (w, v):
                    p -= 0.1 * p.grad
                    p.grad = None

    steps(10)
    before = len(ours())
    tracemalloc.start()
    try:
        steps(500)  # until Python's and NumPy's own caches of small objects are full
        start = tracemalloc.get_traced_memory()[0]
        steps(1000)
        growth = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert len(ours()) == before
    assert growth < 64 * 1000


@pytest.mark.parametrize("where", ["forward", "hook", "freed", "overwritten"])
def test_an_exception_pins_no_graph(no_gc, where):
    refs = []

    def fail():
        x = leaf([1.0, 2.0])
        y = mg.exp(x)
        refs.append(weakref.ref(y._node))
        if where == "forward":
            y.reshape(7)
        elif where == "hook":
            y.register_hook(lambda g: 1 / 0)
        elif where == "freed":
            y.sum().backward()
        else:
            with mg.no_grad():
                y += 1.0
        y.sum().backward()

    try:
        fail()
    except (ValueError, RuntimeError, ZeroDivisionError):
        failed = True
    assert failed and refs[0]() is None


def test_create_graph_is_the_one_cycle_and_grad_none_opens_it(no_gc):
    x = leaf(2.0)
    y = mg.exp(x)
    ref = weakref.ref(y._node)
    y.backward(create_graph=True)
    del y
    assert ref() is not None
    x.grad = None
    assert ref() is None


def chain(x, n):
    for _ in range(n):
        x = x * 1.0
    return x


@pytest.mark.slow
def test_a_long_chain_without_recursion():
    x = leaf(1.5)
    y = chain(x, 200_000)
    y.backward()
    del y
    assert x.grad.item() == 1.0
    z = chain(x, 50_000)  # dropped whole, nothing freed before
    ref = weakref.ref(z._node)
    del z
    assert ref() is None


@pytest.mark.skipif(not os.environ.get("MICROGRADND_SLOW"), reason="MICROGRADND_SLOW is not set")
@pytest.mark.slow
def test_a_chain_of_a_million():
    x = leaf(1.5)
    chain(x, 1_000_000).backward()
    assert x.grad.item() == 1.0


def test_only_what_formulas_name_is_kept():
    x, c = leaf([1.0, 2.0]), mg.tensor([3.0, 4.0])
    assert len((x + c)._node.kept) == 0
    t = mg.tanh(x)
    assert len(t._node.kept) == 1 and t._node.kept[0] is t._array
    h = x * 2.0
    ref = weakref.ref(h._array)
    t = mg.tanh(h)
    del h
    assert ref() is None
    m = x * c
    ref = weakref.ref(c._array)
    del c
    assert ref() is not None
    del m
    assert ref() is None


def test_formulas_of_operands_without_gradient_are_not_run(scratch_registry):
    ran = []

    @mg.primitive(elementwise=True)
    def noted(xp, x, y, /):
        return x * y

    noted.vjp(x=lambda g, y: ran.append("x") or g * y, y=lambda g, x: ran.append("y") or g * x)
    x = leaf(2.0)
    noted(x, mg.tensor(3.0)).backward()
    assert ran == ["x"] and x.grad.item() == 3.0


def test_a_misspelt_name_in_a_formula_fails_where_it_is_attached(scratch_registry):
    @mg.primitive(elementwise=True)
    def noted(xp, x, /):
        return x

    with pytest.raises(TypeError, match="outt"):
        noted.vjp(x=lambda g, outt: g)
    with pytest.raises(TypeError, match="'z'"):
        noted.vjp(z=lambda g: g)


# ----------------------------------------------------------------------------- freeing


def test_backward_frees_what_was_kept():
    x = leaf([1.0, 2.0])
    y = mg.exp(x)
    array = weakref.ref(y._array)
    loss = y.sum()
    del y
    assert array() is not None
    loss.backward()
    assert array() is None


def test_a_second_backward_names_the_operation_and_changes_nothing():
    x = leaf([1.0, 2.0])
    trunk = mg.sinh(x)
    trunk.sum().backward()
    before = x.grad.tolist()
    with pytest.raises(RuntimeError, match=r"sinh.*retain_graph=True"):
        (trunk * 2.0).sum().backward()
    assert x.grad.tolist() == before
    z = x + 1.0
    z.sum().backward()
    with pytest.raises(RuntimeError, match=r"add.*retain_graph=True"):
        z.sum().backward()


def test_retain_graph_keeps_and_gradients_add_up():
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    assert x.grad.item() == 4.0
    y.backward()
    assert x.grad.item() == 8.0
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_transforms_free_nothing():
    w = leaf(2.0)
    y = mg.exp(w)
    for _ in range(2):
        assert mg.grad(lambda x: x * y)(3.0).item() == pytest.approx(np.exp(2.0))
    y.backward()
    assert w.grad.item() == pytest.approx(np.exp(2.0))
    _, pull = mg.vjp(mg.exp, mg.tensor(1.0))
    assert pull(1.0)[0].item() == pull(1.0)[0].item() == pytest.approx(np.e)


# ----------------------------------------------------------------------------- gradients are copies


def test_gradients_share_no_memory_with_seeds_or_each_other():
    x, y = leaf([1.0, 2.0, 3.0]), leaf([1.0, 2.0, 3.0])
    seed = mg.tensor([1.0, 1.0, 1.0])
    z = x + y
    z.retain_grad()
    z.backward(seed, retain_graph=True)
    arrays = [seed._array, x.grad._array, y.grad._array, z.grad._array]
    for i, a in enumerate(arrays):
        for b in arrays[:i]:
            assert not np.shares_memory(a, b)
    z.backward(seed)
    assert seed.tolist() == [1.0, 1.0, 1.0]
    assert x.grad.tolist() == y.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "f",
    [
        mg.identity,
        lambda x: x.reshape(1, 4).reshape(4),
        lambda x: x[::-1],
        lambda x: mg.broadcast_to(x, (1, 4))[0],
        lambda x: mg.split(x, 2)[0],
        lambda x: mg.concatenate([x, x])[:4],
    ],
)
def test_a_view_of_the_seed_is_copied(f):
    x = leaf([1.0, 2.0, 3.0, 4.0])
    y = f(x)
    seed = np.ones(y.shape, "float32")
    y.backward(seed)
    assert not np.shares_memory(seed, x.grad._array)
    with mg.no_grad():
        x.grad += 1.0  # ours alone, so it can be written to
    assert (seed == 1.0).all()


def test_a_hook_and_grad_share_no_memory():
    x, seen = leaf([1.0, 2.0]), []
    x.register_hook(seen.append)
    (x + x).sum().backward()
    with mg.no_grad():
        x.grad += 5.0
    assert seen[0].tolist() == [2.0, 2.0]


def test_the_gradient_of_a_sum_can_be_written_to():
    x = leaf([1.0, 2.0])
    x.sum().backward()
    with mg.no_grad():
        x.grad[0] = 7.0
    assert x.grad.tolist() == [7.0, 1.0]


def test_what_a_hook_saw_does_not_change_later():
    x, seen = leaf([1.0]), []
    y = x * 2.0
    y.register_hook(seen.append)
    x.register_hook(seen.append)
    z = y + y + x
    z.backward()
    (x * 5.0).backward()
    assert [g.tolist() for g in seen] == [[2.0], [5.0], [5.0]]
    assert x.grad.tolist() == [10.0]


# ----------------------------------------------------------------------------- hooks, create_graph


def test_hooks_see_the_whole_gradient_once_and_may_replace_it():
    x = leaf(1.0)
    y = x * 3.0
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    remove = y.register_hook(lambda g: g * 10.0)
    (y * 2.0 + y * 5.0).backward(retain_graph=True)
    assert seen == [7.0] and x.grad.item() == 210.0
    remove()
    x.grad = None
    (y * 1.0).backward()
    assert x.grad.item() == 3.0


def test_a_hook_of_a_leaf_changes_its_grad():
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: g * 0.0 + 9.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [9.0, 9.0]


def test_a_hook_that_gives_another_shape_is_refused():
    x = leaf([1.0, 2.0])
    x.register_hook(lambda g: mg.ones(3))
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        x.sum().backward()
    assert x.grad is None


def test_hooks_need_a_tensor_that_requires_a_gradient():
    with pytest.raises(RuntimeError, match="register_hook"):
        mg.tensor(1.0).register_hook(print)
    with pytest.raises(RuntimeError, match="retain_grad"):
        mg.tensor(1.0).retain_grad()


def test_retain_grad():
    x = leaf([1.0, 2.0])
    y, z = x * 2.0, x * 3.0
    y.retain_grad()
    x.retain_grad()
    (y * y + z).sum().backward()
    assert y.grad.tolist() == [4.0, 8.0]
    assert z.grad is None
    assert x.grad.tolist() == [11.0, 19.0]


def test_create_graph_gives_gradients_that_can_be_differentiated():
    x = leaf(2.0, "float64")
    (x**3).backward(create_graph=True)
    g = x.grad
    assert g.item() == 12.0 and g.requires_grad
    x.grad = None
    g.backward(create_graph=True)
    h = x.grad
    assert h.item() == 12.0
    x.grad = None
    h.backward()
    assert x.grad.item() == 6.0 and not x.grad.requires_grad


def test_gradient_penalty():
    w = leaf([1.0, 2.0], "float64")
    x = leaf([3.0, 4.0], "float64")
    (w * x * x).sum().backward(create_graph=True)
    penalty = (x.grad * x.grad).sum()  # sum of 4 w^2 x^2
    w.grad = x.grad = None
    penalty.backward()
    assert w.grad.tolist() == [72.0, 256.0]  # 8 w x^2


def test_backward_returns_to_the_mode_of_the_caller():
    x = leaf(2.0)
    with mg.no_grad():
        assert not (x * x).requires_grad
    y = x * x
    with mg.no_grad():
        y.backward(create_graph=True)
        assert not mg.is_grad_enabled()
    assert x.grad.item() == 4.0 and x.grad.requires_grad


# ----------------------------------------------------------------------------- dtype and shape


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_are_kept_and_python_scalars_never_widen(dtype):
    x = leaf([1.0, 2.0], dtype)
    y = 1 - (2.5 * x + 1) ** 2 / 4 + True
    y = mg.maximum(mg.where(y > 0, y, 0.5), -3)
    y = mg.clip(y, -2.0, 10) - y.mean() + y.std()
    assert y.dtype == dtype
    y.sum().backward()
    assert x.grad.dtype == dtype and x.grad.shape == (2,)


def test_mixed_dtypes_promote_as_numpys_and_gradients_do_not():
    x, y = leaf([1.0, 2.0], "float16"), leaf([1.0, 2.0], "float64")
    n = mg.tensor([2, 3])
    z = x * y * n
    assert z.dtype == "float64"
    z.sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == ("float16", "float64")
    assert (np.float64(2.0) * leaf([1.0])).dtype == "float64"  # a NumPy scalar is no Python number


@pytest.mark.parametrize(
    ("a", "b"), [((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 3), (3,)), ((0,), (1,)), ((1, 1), ())]
)
def test_broadcasting_is_undone(a, b):
    x, y = leaf(np.ones(a)), leaf(np.full(b, 2.0))
    z = x * y
    z.sum().backward()
    assert x.grad.shape == a and y.grad.shape == b
    assert (x.grad.numpy() == 2.0 * z.size / max(x.size, 1)).all()
    assert (y.grad.numpy() == 1.0 * z.size / max(y.size, 1)).all()


@pytest.mark.parametrize(
    "f",
    [
        mg.sum, mg.mean, mg.prod, mg.max, mg.min, mg.var, mg.std, mg.norm, mg.logsumexp, mg.argmax,
        mg.argmin, mg.any, mg.all, lambda x: x[1], lambda x: x[0] * 2.0, lambda x: x @ x,
        lambda x: mg.einsum("i,i->", x, x), lambda x: mg.take(x, 1), lambda x: mg.exp(x[0]),
        lambda x: mg.cross_entropy(x, mg.tensor(1)), lambda x: x[0] < x[1], lambda x: -x[0],
        lambda x: mg.mse(x, x), lambda x: x[0].clone(), lambda x: mg.where(x[0] > 0, x[0], 1.0),
        lambda x: mg.maxout(x, 2)[0], lambda x: x.reshape(2, 1)[0, 0].astype("float64"),
        lambda x: mg.concatenate([x])[0], lambda x: mg.split(x, 2)[0].sum(),
    ],
)  # fmt: skip
def test_results_without_axes_are_arrays(f):
    x = leaf([1.0, 2.0])
    y = f(x)
    assert isinstance(y, Tensor)
    assert type(y.data) is np.ndarray and y.ndim == 0
    if y.requires_grad:
        y.retain_grad()
        y.backward()
        assert type(y.grad.data) is type(x.grad.data) is np.ndarray


@pytest.mark.parametrize("f", [
    lambda x: x < 1, lambda x: x <= 1, lambda x: x > 1, lambda x: x >= 1, lambda x: x == 1,
    lambda x: x != 1, lambda x: mg.less(1, x), mg.isnan, mg.isinf, mg.isfinite, mg.logical_not,
])  # fmt: skip
def test_comparisons_are_boolean_and_off_the_tape(f):
    y = f(leaf([0.5, 1.0]))
    assert isinstance(y, Tensor) and y.dtype == bool and not y.requires_grad


def test_only_floats_are_recorded():
    x = leaf([1.5, 2.5])
    assert not x.astype("int64").requires_grad
    assert not mg.argmax(x).requires_grad
    for data in ([1, 2], [True, False]):
        with pytest.raises(TypeError, match="float"):
            mg.tensor(data, requires_grad=True)


def test_the_reverse_pass_is_silent_and_forward_warns_as_numpy():
    x = leaf([0.0, 1.0])
    mg.sqrt(x).sum().backward()  # 1/0 in there; warnings are errors here
    assert x.grad.tolist() == [np.inf, 0.5]
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        mg.log(x)


# ----------------------------------------------------------------------------- modes


def test_modes_nest_and_decorate():
    x = leaf(1.0)
    with mg.no_grad():
        assert not mg.is_grad_enabled()
        with mg.enable_grad():
            assert (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    for off in (mg.no_grad, mg.no_grad()):
        assert not off(lambda: x * 2.0)().requires_grad
    for on in (mg.enable_grad, mg.enable_grad()):
        with mg.no_grad():
            assert on(lambda: x * 2.0)().requires_grad
    assert mg.is_grad_enabled()


def test_one_context_manager_used_twice_and_inside_itself():
    off = mg.no_grad()
    with off, off:
        assert not mg.is_grad_enabled()
    assert mg.is_grad_enabled()


def test_modes_are_restored_after_exceptions():
    @mg.no_grad
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert mg.is_grad_enabled()
    with mg.no_grad():
        with pytest.raises(KeyError), mg.enable_grad():
            raise KeyError
        assert not mg.is_grad_enabled()


def test_the_default_dtype_belongs_to_the_context():
    def inside():
        mg.set_default_dtype("float64")
        assert mg.tensor([1.0]).dtype == mg.zeros(2).dtype == "float64"
        assert mg.tensor(np.ones(1, "float16")).dtype == "float16"
        assert mg.tensor([1]).dtype == "int64"

    contextvars.copy_context().run(inside)
    assert mg.tensor([1.0]).dtype == "float32"
    with pytest.raises(TypeError, match="int32"):
        mg.set_default_dtype("int32")


def test_a_new_thread_starts_with_the_defaults():
    seen = []

    def look():
        seen.append((mg.is_grad_enabled(), str(mg.get_default_dtype())))

    def inside():
        mg.set_default_dtype("float64")
        with mg.no_grad():
            in_threads(look)

    contextvars.copy_context().run(inside)
    assert seen == [(True, "float32")]


def test_no_grad_in_one_thread_does_not_reach_another():
    wrong = []

    def train():
        for _ in range(300):
            x = leaf([1.0, 2.0])
            y = (x * x).sum()
            if not y.requires_grad:
                wrong.append("not recorded")
                continue
            y.backward()
            if x.grad.tolist() != [2.0, 4.0]:
                wrong.append(x.grad.tolist())

    def evaluate():
        x = leaf([1.0, 2.0])
        for _ in range(300):
            with mg.no_grad():
                if (x * x).sum().requires_grad:
                    wrong.append("recorded")

    in_threads(train, evaluate, train, evaluate)
    assert wrong == []


def test_threads_add_to_a_shared_leaf_exactly():
    w = leaf([1.0, 1.0], "float64")

    def train():
        for _ in range(300):
            (w * 3.0).sum().backward()

    in_threads(train, train, train, train)
    assert w.grad.tolist() == [3600.0, 3600.0]


# ----------------------------------------------------------------------------- operands


@pytest.mark.parametrize("other", [
    [3.0, 4.0], (3.0, 4.0), np.array([3.0, 4.0]), np.array([3, 4], "int8"), mg.tensor([3.0, 4.0]),
    [np.float32(3.0), 4],
])  # fmt: skip
def test_lists_and_arrays_are_operands_on_both_sides(other):
    x = leaf([1.0, 2.0])
    for y in (x * other, other * x, mg.multiply(other, x)):
        assert isinstance(y, Tensor) and y.tolist() == [3.0, 8.0]
        x.grad = None
        y.sum().backward()
        assert x.grad.tolist() == [3.0, 4.0]
    assert (other - x).tolist() == [2.0, 2.0]
    assert (x < other).tolist() == (other > x).tolist() == [True, True]


# ----------------------------------------------------------------------------- several outputs


def test_several_outputs_are_one_node():
    x = leaf([1.0, 2.0, 3.0, 4.0])
    a, b = mg.split(x, 2)
    assert a._node.parents[0] is b._node.parents[0]
    (a * 2.0 + a + b * 5.0).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 5.0, 5.0]


@pytest.fixture
def both(scratch_registry):
    @mg.primitive(outputs=True)
    def both(xp, x, /):
        return [xp.exp(x), xp.square(x)]

    both.vjp(x=lambda g, out, x: g[0] * out[0] + 2.0 * g[1] * x)
    return both


def test_several_outputs_that_keep_values_to_second_order(both):
    x = leaf(2.0, "float64")

    def f(x):
        a, b = both(x)
        return a + b

    assert mg.grad(f)(x).item() == pytest.approx(np.exp(2.0) + 4.0)
    assert mg.grad(mg.grad(f))(x).item() == pytest.approx(np.exp(2.0) + 2.0)


@pytest.mark.parametrize("overwritten", ["operand", "result"])
def test_several_outputs_notice_overwritten_values(both, overwritten):
    x = leaf([1.0, 2.0])
    a, b = both(x)
    with mg.no_grad():
        if overwritten == "operand":
            x += 1.0
        else:
            a += 1.0
    with pytest.raises(RuntimeError, match=r"both.*overwritten"):
        (a + b).sum().backward()


def test_outputs_that_are_no_floats_are_off_the_tape(scratch_registry):
    @mg.primitive(outputs=True)
    def largest(xp, x, /):
        return [xp.max(x), xp.argmax(x)]

    x = leaf([1.0, 3.0])
    with pytest.raises(TypeError, match="largest has no gradient formula"):
        largest(x)
    largest.data["differentiable"] = False
    assert not any(t.requires_grad for t in largest(x))
    largest.vjp(x=lambda xp, g, x: g[0] * (x == xp.max(x)))
    value, place = largest(x)
    assert value.requires_grad and not place.requires_grad and place.item() == 1
    value.backward()
    assert x.grad.tolist() == [0.0, 1.0]


def test_unused_outputs_count_as_zero():
    x = leaf([1.0, 2.0, 3.0, 4.0])
    a, b = mg.split(x, [1])
    del b
    (a * 7.0).sum().backward()
    assert x.grad.tolist() == [7.0, 0.0, 0.0, 0.0]


def test_several_outputs_to_second_order():
    x = leaf([1.0, 2.0, 3.0, 4.0], "float64")

    def f(x):
        a, b = mg.split(x, 2)
        return (a * a * b).sum()

    assert mg.grad(lambda x: mg.grad(f)(x).sum())(x).tolist() == [8.0, 12.0, 2.0, 4.0]
