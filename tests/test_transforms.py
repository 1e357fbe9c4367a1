"""Transforms: derivatives as functions of functions, all of which nest, and checkpoint."""

import weakref
from collections import namedtuple

import numpy as np
import pytest

import microgradnd as mg


def leaf(values, dtype="float64"):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


def f64(values):
    return mg.tensor(values, dtype="float64")


def close(x, y, rtol=1e-12):
    return np.allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=1e-12)


X = [0.3, -1.2, 2.0]


# ----------------------------------------------------------------------------- nesting


def test_an_inner_derivative_is_differentiated():
    assert mg.grad(lambda x: mg.grad(lambda y: y * x)(x))(3.0).item() == 1.0


def test_an_inner_derivative_does_not_see_the_outer_variable():
    def f(x):
        return x * mg.grad(lambda y: x + y)(1.0)

    assert mg.grad(f)(1.0).item() == 1.0  # 2 if the two variables are confused
    assert mg.grad(lambda x: x * mg.grad(lambda y: x * y)(2.0))(3.0).item() == 6.0


def test_three_levels_of_different_variables():
    def f(x):
        return mg.grad(lambda y: mg.grad(lambda z: x**3 * y**2 * z)(1.0))(x)  # 2 x^4

    assert f(f64(3.0)).item() == 162.0
    assert mg.grad(f)(f64(3.0)).item() == 216.0


def test_the_same_argument_at_every_level():
    def f(x):
        return mg.grad(lambda y: mg.grad(lambda z: z * z * y)(y) * x)(x)  # d/dy (2 y^2 x) = 4 x^2

    assert mg.grad(f)(3.0).item() == 24.0


@pytest.mark.parametrize(
    ("f", "derivatives"),
    [
        (lambda x: x**5, [80.0, 160.0, 240.0, 240.0, 120.0]),
        (mg.sin, [np.cos(2.0), -np.sin(2.0), -np.cos(2.0), np.sin(2.0)]),
        (mg.exp, [np.exp(2.0)] * 4),
        (lambda x: 1 / x, [-1 / 4, 2 / 8, -6 / 16, 24 / 32]),
        (lambda x: x * x, [4.0, 2.0, 0.0, 0.0]),
    ],
)
def test_higher_orders(f, derivatives):
    for derivative in derivatives:
        f = mg.grad(f)
        assert f(f64(2.0)).item() == pytest.approx(derivative, abs=1e-12)


# ----------------------------------------------------------------------------- grad


def test_argnums():
    def f(x, y, scale=1.0):
        return scale * x * y**2

    assert mg.grad(f)(2.0, 3.0).item() == 9.0
    assert mg.grad(f, argnums=1)(2.0, 3.0).item() == 12.0
    assert mg.grad(f, argnums=-1)(2.0, 3.0, scale=10.0).item() == 120.0
    value, gradient = mg.value_and_grad(f, argnums=(1, 0))(2.0, 3.0)
    assert value.item() == 18.0
    assert isinstance(gradient, tuple) and [g.item() for g in gradient] == [12.0, 9.0]
    assert isinstance(mg.grad(f, argnums=(0,))(2.0, 3.0), tuple)


def test_has_aux():
    def f(x):
        return x * x, {"twice": 2 * x, "text": "kept"}

    (value, aux), gradient = mg.value_and_grad(f, has_aux=True)(3.0)
    assert (value.item(), gradient.item()) == (9.0, 6.0)
    assert aux["twice"].item() == 6.0 and aux["text"] == "kept"
    assert not aux["twice"].requires_grad
    gradient, aux = mg.grad(f, has_aux=True)(3.0)
    assert (gradient.item(), aux["text"]) == (6.0, "kept")


Pair = namedtuple("Pair", "w b")


def test_gradients_have_the_structure_of_the_argument():
    tree = {"layers": [Pair(f64([1.0, 2.0]), f64(3.0)), (f64([4.0]), [])], "scale": 2.0}

    def f(p):
        (w, b), (v, _) = p["layers"]
        return (p["scale"] * w * w).sum() + b * v.sum()

    g = mg.grad(f)(tree)
    assert list(g) == ["layers", "scale"] and isinstance(g["layers"][0], Pair)
    assert g["layers"][0].w.tolist() == [4.0, 8.0] and g["layers"][0].b.item() == 4.0
    assert g["layers"][1][0].tolist() == [3.0] and g["layers"][1][1] == []
    assert g["scale"].item() == 5.0
    assert tree["scale"] == 2.0 and not tree["layers"][0].w.requires_grad


def test_an_unused_argument_has_a_gradient_of_zeros():
    g = mg.grad(lambda x, y: (x * x).sum(), argnums=1)(f64([1.0]), mg.ones((2, 3), "float16"))
    assert g.shape == (2, 3) and g.dtype == "float16" and not g.numpy().any()
    assert mg.grad(lambda x: mg.tensor(1.0))(2.0).item() == 0.0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_gradients_have_the_dtype_of_the_argument(dtype):
    x = mg.tensor([1.0, 2.0], dtype)
    assert mg.grad(lambda x: (x * x).sum())(x).dtype == dtype
    assert mg.grad(mg.grad(lambda x: x**3))(x[0]).dtype == dtype
    assert mg.hessian(lambda x: (x**3).sum())(x).dtype == dtype


# ----------------------------------------------------------------------------- the outer tape


def test_results_are_off_the_tape_when_nothing_outside_needs_them():
    value, gradient = mg.value_and_grad(lambda x: (x * x).sum())(f64(X))
    out, pull = mg.vjp(mg.exp, f64(X))
    results = [value, gradient, out, pull(out)[0], *mg.jvp(mg.exp, [f64(X)], [f64(X)]),
               mg.hvp(lambda x: (x**3).sum(), f64(X), f64(X))]  # fmt: skip
    assert not any(r.requires_grad for r in results)


def test_grad_of_leaves_is_not_touched():
    w, x = leaf([2.0, 3.0]), leaf([1.0, 1.0])

    def f(x):
        return (w * x * x).sum()

    mg.grad(f)(x)
    mg.vjp(f, x)[1](1.0)
    mg.jvp(f, [x], [f64([1.0, 1.0])])
    mg.hvp(f, x, f64([1.0, 1.0]))
    mg.jacobian(f)(x)
    mg.hessian(f)(x)
    assert w.grad is None and x.grad is None


def test_a_gradient_can_be_differentiated_by_what_it_closes_over():
    w, x = leaf([2.0, 3.0]), leaf([5.0, 7.0])
    value, g = mg.value_and_grad(lambda x: (w * x * x).sum())(x)  # 2 w x
    assert g.requires_grad and value.requires_grad
    (g * mg.tensor([1.0, 10.0])).sum().backward()
    assert w.grad.tolist() == [10.0, 140.0] and x.grad.tolist() == [4.0, 60.0]


def test_the_pass_does_not_walk_what_is_older():
    w = leaf(2.0)
    y = mg.exp(w)
    walked = []
    y.register_hook(walked.append)
    assert mg.grad(lambda x: x * y)(3.0).item() == pytest.approx(np.exp(2.0))
    assert walked == []
    y.backward()
    assert mg.grad(lambda x: x * y)(3.0).item() == pytest.approx(np.exp(2.0))  # y's graph is freed


def test_an_argument_on_the_tape_is_wrapped():
    w = leaf(3.0)
    y = w * w
    g = mg.grad(lambda z: z**2 * w)(y)  # 2 y w = 2 w^3
    assert g.item() == 54.0
    g.backward()
    assert w.grad.item() == 54.0  # 6 w^2


def test_transforms_work_under_no_grad():
    w = leaf([2.0, 3.0])
    with mg.no_grad():
        value, g = mg.value_and_grad(lambda x: (w * x * x).sum())(w)
        second = mg.grad(lambda x: mg.grad(lambda y: y**3)(x))(2.0)
        product = mg.hvp(lambda x: (x**3).sum(), w, mg.ones(2, "float64"))
        _, tangent = mg.jvp(lambda x: w * x, [w], [mg.ones(2, "float64")])
        square = mg.jacobian(lambda x: w * x)(w)
        assert not mg.is_grad_enabled()
    assert value.item() == 35.0 and g.tolist() == [8.0, 18.0] and second.item() == 12.0
    assert product.tolist() == [12.0, 18.0] and tangent.tolist() == [2.0, 3.0]
    assert square.tolist() == [[2.0, 0.0], [0.0, 3.0]]
    assert not any(t.requires_grad for t in (value, g, second, product, tangent, square))


def test_no_grad_inside_makes_a_constant():
    def f(x):
        with mg.no_grad():
            c = x * x
        return c * x

    assert mg.grad(f)(3.0).item() == 9.0
    assert mg.grad(lambda x: x.detach() * x)(3.0).item() == 3.0


# ----------------------------------------------------------------------------- vjp, jvp, hvp


def test_vjp():
    x, y = f64(X), f64([1.0, 2.0, 3.0])
    out, pull = mg.vjp(lambda x, y: mg.sin(x) * y, x, y)
    assert close(out, np.sin(X) * [1.0, 2.0, 3.0])
    for ct in ([1.0, 1.0, 1.0], [2.0, 0.0, -1.0]):
        gx, gy = pull(f64(ct))
        assert close(gx, np.cos(X) * [1.0, 2.0, 3.0] * ct) and close(gy, np.sin(X) * ct)


def test_vjp_of_trees():
    out, pull = mg.vjp(lambda p: {"a": p[0] * p[1], "b": p[0]}, [f64(2.0), f64(3.0)])
    assert out["a"].item() == 6.0
    (g,) = pull({"a": 10.0, "b": 1.0})
    assert isinstance(g, list) and [v.item() for v in g] == [31.0, 20.0]


def test_jvp():
    v = [1.0, 10.0, 100.0]
    out, tangent = mg.jvp(lambda x, y: mg.exp(x) * y, [f64(X), f64(v)], [f64(v), f64(X)])
    assert close(out, np.exp(X) * v)
    assert close(tangent, np.exp(X) * v * v + np.exp(X) * X)
    _, tangent = mg.jvp(lambda x: x * x, [3.0], [2.0])
    assert tangent.item() == 12.0
    _, tangent = mg.jvp(lambda x: mg.ones(3), [3.0], [2.0])
    assert tangent.tolist() == [0.0, 0.0, 0.0]
    out, tangent = mg.jvp(lambda x: {"a": x, "b": x * x}, [3.0], [2.0])
    assert tangent["a"].item() == 2.0 and tangent["b"].item() == 12.0


def quartic(x):
    return (x**2).sum() ** 2  # Hessian: 8 x x^T + 4 |x|^2


HESSIAN = 8 * np.outer(X, X) + 4 * np.dot(X, X) * np.eye(3)


def test_hvp():
    v = [1.0, -2.0, 0.5]
    assert close(mg.hvp(quartic, f64(X), f64(v)), HESSIAN @ v)
    g = mg.hvp(lambda p: p["a"] * p["b"] ** 2, {"a": 2.0, "b": 3.0}, {"a": 1.0, "b": 10.0})
    assert g["a"].item() == 60.0 and g["b"].item() == 46.0


def test_jacobian_and_hessian():
    a = np.arange(6.0).reshape(2, 3)
    assert close(mg.jacobian(lambda x: f64(a) @ x)(f64(X)), a)
    assert close(mg.hessian(quartic)(f64(X)), HESSIAN)
    jac = mg.jacobian(lambda x: x[:, None] * x)(f64(X))
    assert jac.shape == (3, 3, 3)
    eye = np.eye(3)
    assert close(jac, np.einsum("ik,j->ijk", eye, X) + np.einsum("i,jk->ijk", X, eye))
    assert close(mg.jacobian(lambda x: (x * x).sum())(f64(X)), 2 * np.array(X))
    assert mg.jacobian(lambda x: x[:0])(f64(X)).shape == (0, 3)
    assert close(mg.jacobian(lambda s, x: s * x, argnums=1)(2.0, f64(X)), 2 * eye)


def test_transforms_nest_under_each_other():
    x, v = f64(X), f64([1.0, -2.0, 0.5])

    def cubes(x):
        return (x**3).sum()

    third = 6 * np.asarray(v) ** 2
    assert close(mg.jacobian(mg.jacobian(cubes))(x), np.diag(6 * np.array(X)))
    _, tangent = mg.jvp(mg.grad(cubes), [x], [v])
    assert close(tangent, 6 * np.array(X) * v)
    assert close(mg.grad(lambda x: mg.jvp(cubes, [x], [v])[1])(x), 6 * np.array(X) * v)
    assert close(mg.grad(lambda x: (mg.hvp(cubes, x, v) * v).sum())(x), third)
    assert close(mg.grad(lambda x: (mg.vjp(mg.grad(cubes), x)[1](v)[0] * v).sum())(x), third)
    _, tangent = mg.jvp(lambda x: mg.jvp(cubes, [x], [v])[1], [x], [v])
    assert close(tangent, (6 * np.array(X) * np.asarray(v) ** 2).sum())


# ----------------------------------------------------------------------------- checkpoint


def test_checkpoint_gives_the_same_gradients_also_to_parameters_from_outside():
    w, b, x = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([0.5, -0.5]), leaf([0.1, 0.2])

    def block(x):
        return mg.tanh(x @ w + b) * b

    gradients = []
    for f in (block, mg.checkpoint(block)):
        y = f(x)
        (y * y).sum().backward()
        gradients.append([p.grad.tolist() for p in (w, b, x)])
        w.grad = b.grad = x.grad = None
    assert gradients[0] == gradients[1]
    with mg.no_grad():
        assert not mg.checkpoint(block)(x).requires_grad
    assert mg.checkpoint(mg.exp)(f64(X)).tolist() == mg.exp(f64(X)).tolist()


def test_checkpoint_keeps_less():
    x, inside = leaf(X), []

    def block(x):
        for _ in range(4):
            x = mg.exp(x) * 0.1
            inside.append(weakref.ref(x._array))
        return x + 1.0

    y = mg.checkpoint(block)(x)
    assert not any(ref() is not None for ref in inside)
    y.sum().backward()
    z = leaf(X)
    block(z).sum().backward()
    assert x.grad.tolist() == z.grad.tolist()


def test_checkpoint_draws_the_same_random_numbers_again():
    x = leaf(np.ones(64))
    masks = []

    def dropout(x):
        masks.append(mg.random.bernoulli(0.5, x.shape))
        return mg.where(masks[-1], x * x, 0.0)

    mg.manual_seed(7)
    y = mg.checkpoint(dropout)(x)
    after = mg.random.bernoulli(0.5, 64).tolist()
    y.sum().backward()
    state = mg.random.default_generator().state
    assert len(masks) == 2 and masks[0].tolist() == masks[1].tolist()
    assert x.grad.tolist() == [2.0 * m for m in masks[0].tolist()]
    mg.manual_seed(7)
    dropout(x)
    assert mg.random.bernoulli(0.5, 64).tolist() == after  # what follows is what it was
    assert mg.random.default_generator().state == state


def test_checkpoint_of_several_results_and_of_trees():
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    out = mg.checkpoint(lambda p: {"product": p[0] * p[1], "parts": mg.split(p[0], 2)})((x, y))
    out["parts"][1].sum().backward(retain_graph=True)
    assert x.grad.tolist() == [0.0, 1.0]
    x.grad = y.grad = None
    (out["product"].sum() + 10.0 * out["parts"][0].sum()).backward()
    assert x.grad.tolist() == [13.0, 4.0] and y.grad.tolist() == [1.0, 2.0]


def test_checkpoint_passes_on_what_is_no_tensor_or_needs_no_gradient():
    x = leaf(2.0)
    y, text, constant = mg.checkpoint(lambda x: (x * x, "text", mg.ones(2)))(x)
    assert text == "text" and not constant.requires_grad
    y.backward()
    assert x.grad.item() == 4.0


def test_checkpoint_nests_and_differentiates_to_any_order():
    w = leaf(3.0)

    def block(x):
        return mg.checkpoint(lambda y: y**3 * w)(x) * x  # w x^4

    f = mg.checkpoint(block)
    assert mg.grad(f)(f64(2.0)).item() == 96.0
    assert mg.grad(mg.grad(f))(f64(2.0)).item() == 144.0
    assert mg.grad(mg.checkpoint(mg.grad(f)))(f64(2.0)).item() == 144.0
    x = leaf(2.0)
    f(x).backward()
    assert (x.grad.item(), w.grad.item()) == (96.0, 16.0)
    x.grad = w.grad = None
    f(x).backward(create_graph=True)
    g, w.grad, x.grad = x.grad, None, None
    g.backward()
    assert (x.grad.item(), w.grad.item()) == (144.0, 32.0)


def test_checkpoint_under_jvp_hvp_and_vjp():
    f = mg.checkpoint(lambda x: (x**3).sum())
    v = f64([1.0, -2.0, 0.5])
    assert close(mg.hvp(f, f64(X), v), 6 * np.array(X) * np.asarray(v))
    assert close(mg.jvp(f, [f64(X)], [v])[1], (3 * np.array(X) ** 2 * np.asarray(v)).sum())
    assert close(mg.vjp(f, f64(X))[1](1.0)[0], 3 * np.array(X) ** 2)


def test_checkpoint_notices_an_argument_that_was_overwritten():
    x = leaf(X)
    loss = mg.checkpoint(lambda x: (x**3).sum())(x)
    with mg.no_grad():
        x += 1.0
    with pytest.raises(RuntimeError, match=r"checkpoint.*overwritten"):
        loss.backward()


# ----------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mg.grad(lambda x: x * x)(f64(X)), ValueError, r"scalar.*\(3,\)"),
        (lambda: mg.grad(lambda x: x > 0)(1.0), (ValueError, TypeError), "bool"),
        (lambda: mg.grad(lambda x: x, argnums=2)(1.0), ValueError, "argument 2 of 1"),
        (lambda: mg.grad(lambda x: x)(mg.tensor([1, 2])), TypeError, "float.*int64"),
        (lambda: mg.grad(lambda x: x)("text"), TypeError, "text"),
        (lambda: mg.grad(lambda x: "text")(1.0), TypeError, "text"),
        (lambda: mg.vjp(mg.exp, f64(X))[1](f64([1.0])), ValueError, r"\(1,\).*\(3,\)"),
        (lambda: mg.vjp(mg.exp, f64(X))[1]([1.0, 2.0]), ValueError, "vjp"),
        (lambda: mg.jvp(mg.exp, [1.0], []), ValueError, "1 primals but 0 tangents"),
        (lambda: mg.jvp(mg.exp, [f64(X)], [1.0]), ValueError, r"\(\).*\(3,\)"),
        (lambda: mg.hvp(quartic, f64(X), f64([1.0])), ValueError, r"\(1,\).*\(3,\)"),
        (lambda: mg.hessian(mg.exp)(f64(X)), ValueError, r"scalar.*\(3,\)"),
    ],
)
def test_errors_say_what_is_wanted(call, error, message):
    with pytest.raises(error, match=message):
        call()
    assert mg.is_grad_enabled()


def test_an_exception_inside_leaves_no_mode_behind():
    def fail(x):
        raise KeyError("inside")

    with mg.no_grad():
        with pytest.raises(KeyError):
            mg.grad(fail)(1.0)
        assert not mg.is_grad_enabled()
    with pytest.raises(KeyError):
        mg.checkpoint(fail)(leaf(1.0))
    assert mg.grad(lambda x: x * x)(3.0).item() == 6.0
