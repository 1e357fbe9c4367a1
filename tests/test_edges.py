"""Cases that were wrong once, each with the way it is now."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

import microgradnd as mg
from microgradnd.registry import REGISTRY


def leaf(values, dtype=None):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


@pytest.fixture
def scratch():
    before = set(REGISTRY)
    yield
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


def test_second_order_through_a_kept_output_of_several(scratch):
    @mg.primitive(outputs=True)
    def pair(xp, x, /):
        return [xp.exp(x), xp.sin(x)]

    pair.vjp(x=lambda xp, g, out, x: g[0] * out[0] + g[1] * xp.cos(x))
    second = mg.grad(mg.grad(lambda x: pair(x)[0] ** 2))(mg.tensor(0.3, dtype="float64"))
    assert second.item() == pytest.approx(4.0 * math.exp(0.6), rel=1e-12)


@pytest.mark.parametrize("n", [3.5, mg.arange(3), "3"])
def test_a_permutation_of_no_number_draws_nothing(n):
    before = mg.random.default_generator().state
    with pytest.raises(TypeError):
        mg.random.permutation(n)
    assert mg.random.default_generator().state == before


def test_a_shape_in_the_place_of_a_number():
    with pytest.raises(TypeError, match=r"mean must be a number, got \(2,\); give the shape as"):
        mg.random.normal((2,))
    with pytest.raises(TypeError, match="low must be a number"):
        mg.random.uniform((2,), 0.0, 1.0)


def test_numbers_beside_arrays_do_not_widen():
    x = mg.tensor([1.0, 2.0])
    assert mg.stack([x.sum(), 2.0]).dtype == np.float32
    assert mg.concatenate([x, [3.0]]).dtype == np.float32
    assert mg.einsum("i,->i", x, 2.0).tolist() == [2.0, 4.0]
    assert mg.mse(x.sum(), 1.0).item() == 4.0
    assert mg.cross_entropy(x, 1).item() == pytest.approx(math.log1p(math.exp(-1)))
    assert mg.where(x > 1, 1.0, 0.0).dtype == np.float32
    with pytest.raises(ValueError, match=r"matmul: operands need at least one axis, got \(2,\)"):
        x @ 2.0


def test_lists_of_arrays_keep_the_dtype_of_the_arrays():
    assert mg.tensor([np.array([1.0]), np.array([2.0])]).dtype == np.float64
    assert mg.tensor([np.float16(1.0)]).dtype == np.float16
    assert mg.tensor([[1.0], [2.0]]).dtype == np.float32


def test_means_of_more_than_float16_can_count():
    x = mg.zeros(70_000, dtype="float16", requires_grad=True)
    x.mean().backward()
    assert x.grad[0].item() == pytest.approx(1 / 70_000, rel=0.05)
    logits = mg.zeros((70_000, 2), dtype="float16", requires_grad=True)
    loss = mg.cross_entropy(logits, np.zeros(70_000, int))
    loss.backward()
    assert loss.dtype == np.float16 and loss.item() == pytest.approx(math.log(2), rel=1e-3)
    assert logits.grad[0, 1].item() == pytest.approx(0.5 / 70_000, rel=0.05)


def test_gradients_of_a_recorded_pass_share_no_memory():
    a, b = leaf([1.0]), leaf([1.0])
    (a + b).backward(create_graph=True)
    assert not np.shares_memory(a.grad.data, b.grad.data)
    x = leaf([1.0, 2.0])
    x.sum().backward(create_graph=True)
    with mg.no_grad():
        x.grad *= 2.0
    assert x.grad.tolist() == [2.0, 2.0]
    for t in (a, b, x):
        t.grad = None


def test_a_hook_that_writes_spoils_nothing_of_others():
    seed, x = mg.ones(2), leaf([1.0, 2.0])
    x.register_hook(lambda g: g.__imul__(2.0))
    mg.identity(x).backward(seed)
    assert seed.tolist() == [1.0, 1.0] and x.grad.tolist() == [2.0, 2.0]


def test_a_checkpoint_notices_what_it_closes_over():
    w, x = leaf([1.0]), leaf([3.0])
    y = mg.checkpoint(lambda v: v * w)(x)
    with mg.no_grad():
        w += 5.0
    with pytest.raises(RuntimeError, match="backward of checkpoint: a value that it needs"):
        y.sum().backward()


def test_nothing_is_kept_for_a_constant():
    w, constant = leaf([1.0, 2.0]), mg.tensor([[3.0, 4.0]])
    y, z = (w * 2.0).sum(), (constant @ w).sum()
    with mg.no_grad():
        w += 1.0
    y.backward()
    z.backward()
    assert w.grad.tolist() == [5.0, 6.0]


def test_plain_tensors_are_written_like_arrays():
    x = mg.zeros(4)
    x[0] += 1.0
    x[1:3] += 2.0
    view = x[2:]
    view[...] = 5.0
    assert x.tolist() == [1.0, 2.0, 5.0, 5.0]
    w = leaf([1.0, 2.0])
    detached = w.detach()
    with pytest.raises(RuntimeError, match=r"mg\.where or mg\.scatter_add"):
        detached[0] = 9.0
    with pytest.raises(RuntimeError, match=r"mg\.where or mg\.scatter_add"):
        view += w  # a recorded value does not fit into shared memory
    assert w.tolist() == [1.0, 2.0]


def test_a_forgotten_formula_is_an_error(scratch):
    @mg.primitive
    def twice(xp, x, /):
        return x * 2

    with pytest.raises(TypeError, match=r"twice has no gradient formula; attach one with twice"):
        twice(leaf([1.0]))
    assert twice(mg.tensor([1.0])).tolist() == [2.0]

    @mg.primitive(differentiable=False)
    def steps(xp, x, /):
        return xp.sign(x)

    assert not steps(leaf([1.0])).requires_grad


def test_built_in_operations_cannot_be_taken_over(scratch):
    def same(xp, x, /):
        return x

    for meta in ({"numpy": np.tanh}, {"method": "sum"}, {"operator": "add"}):
        with pytest.raises(ValueError, match="belongs to microgradnd"):
            mg.primitive(**meta)(same)
    with pytest.raises(ValueError, match="belongs to microgradnd"):

        @mg.primitive
        def tanh(xp, x, /):
            return x

    assert np.tanh(mg.tensor(0.0)).item() == 0.0


def test_a_declaration_without_a_slash_is_refused():
    with pytest.raises(TypeError, match="with a slash behind the operands"):

        @mg.primitive
        def slanted(xp, x):
            return x


def test_a_formula_of_the_wrong_shape_is_named(scratch):
    @mg.primitive(differentiable=True)
    def total(xp, x, /):
        return xp.sum(x)

    total.vjp(x=lambda g: g)
    with pytest.raises(RuntimeError, match=r"total: a gradient of shape \(\), not \(2,\)"):
        total(leaf([1.0, 2.0])).backward()


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda x: mg.where(x), TypeError, "where"),
        (lambda x: x.mean(dim=0), TypeError, "as in NumPy it is 'axis'"),
        (lambda x: x.sum(0, 1), TypeError, "keepdims must be a bool"),
        (lambda x: x + None, TypeError, "add: None is no operand"),
        (lambda x: mg.zeros(2, 3), TypeError, r"mg\.zeros\(\(2, 3\)\)"),
        (lambda x: mg.jvp(mg.sin, 0.0, 1.0), TypeError, "primals and tangents are tuples"),
        (lambda x: mg.split(x, [2, 1]), ValueError, "do not ascend"),
        (lambda x: mg.maxout(x, 2, axis=None), TypeError, "one integer"),
        (lambda x: mg.grad(lambda a: a, (0, 0))(x), ValueError, "names an argument twice"),
        (lambda x: mg.grad(lambda a: a.sum(), has_aux=True)(x), TypeError, "pair"),
        (lambda x: mg.jacobian(mg.sin, (0,)), TypeError, "one argument"),
    ],
)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call(mg.tensor([1.0, 2.0, 3.0, 4.0]))


def test_shapes_that_were_forgotten():
    assert mg.dot(mg.zeros((2, 0)), mg.zeros((0, 3))).shape == (2, 3)
    assert [len(part) for part in mg.split(mg.arange(4), np.int64(2))] == [2, 2]
    x = leaf([[1.0], [2.0]])
    mg.concatenate([x, x], axis=None).sum().backward()
    assert x.grad.tolist() == [[2.0], [2.0]]
    t = leaf([[1.0], [2.0], [3.0]])
    mg.take_along_axis(t, mg.tensor([[0, 2, 2]]), axis=0).sum().backward()
    assert t.grad.tolist() == [[1.0], [0.0], [2.0]]


def test_limits_of_log_softmax():
    inf = math.inf
    rows = mg.tensor([[inf, 0.0], [-inf, 0.0], [3e38, 3e38]])
    assert mg.log_softmax(rows)[:2].tolist() == [[0.0, -inf], [-inf, 0.0]]
    assert mg.cross_entropy(rows[:1], [1]).item() == inf


def test_softsign_is_flat_at_infinity_to_second_order():
    x = mg.tensor([math.inf, -math.inf])
    assert mg.grad(lambda v: mg.softsign(v).sum())(x).tolist() == [0.0, 0.0]
    assert mg.grad(lambda v: mg.grad(lambda u: mg.softsign(u).sum())(v).sum())(x).tolist() == [0, 0]


def test_no_grad_covers_the_body_of_a_generator():
    @mg.no_grad
    def numbers():
        yield leaf([1.0]) * 2.0
        yield leaf([1.0]) * 3.0

    assert [t.requires_grad for t in numbers()] == [False, False]
    assert mg.is_grad_enabled()


def test_names_and_signatures():
    assert mg.abs is mg.absolute and mg.amax is mg.max and mg.amin is mg.min
    assert str(inspect.signature(mg.softmax)) == "(x, /, axis=-1)"
    assert str(inspect.signature(mg.clip)).startswith("(x, min=None, max=None")
