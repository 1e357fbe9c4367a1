"""The checker itself: right primitives pass, and each planted fault turns it red."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgradnd as mg
from microgradnd import tape, testing
from microgradnd.registry import OVERRIDES, REGISTRY
from microgradnd.testing import check_primitive, gradcheck, gradgradcheck

X = np.array([0.3, -1.2, 2.0])
Y = np.array([0.7, 0.4, -1.1])


@pytest.fixture
def declare():
    """`mg.primitive` whose entries disappear after the test."""
    before = dict(REGISTRY), dict(OVERRIDES)
    yield mg.primitive
    for now, old in zip((REGISTRY, OVERRIDES), before, strict=True):
        now.clear()
        now.update(old)


def planted(declare, formula, **data):
    """The sine with a formula of its own."""

    @declare(elementwise=True, reference=np.sin, **data)
    def planted_sine(xp, x, /):
        r"""The sine, :math:`\sin x`."""
        return xp.sin(x)

    planted_sine.vjp(x=formula)
    return planted_sine


# ----------------------------------------------------------------------------- right ones pass


def test_a_right_primitive_passes(declare):
    done = check_primitive(planted(declare, lambda xp, g, x: g * xp.cos(x)))
    assert done.comparisons >= 10
    assert done.weak == 0


def test_a_right_primitive_with_every_kind_of_data_passes(declare):
    @declare(
        elementwise=True,
        domain={"x": (-3, 3), "y": (0.5, 2)},
        kinks={"x": (0,)},
        conventions=(("at 0", ([0.0], [2.0]), {}, ([0.0], [0.0])),),
        variants=({"scale": 1.0}, {"scale": 3.0}),
        reference=lambda x, y, scale: scale * np.abs(x) * y,
    )
    def sized(xp, x, y, /, scale):
        r"""The product, :math:`s |x| y`."""
        return xp.absolute(x) * y * scale

    sized.vjp(
        x=lambda xp, g, x, y, scale: g * xp.sign(x) * y * scale,
        y=lambda xp, g, x, scale: g * xp.absolute(x) * scale,
    )
    assert check_primitive(sized).comparisons > 50


@pytest.mark.parametrize("name", ["tanh", "maximum", "max", "maxout", "concatenate", "split"])
def test_our_own_pass_by_name(name):
    assert check_primitive(name).weak == 0


def test_gradcheck_counts_and_takes_what_users_have():
    assert gradcheck(mg.tanh, mg.tensor(X)) == (3, 0)
    assert gradcheck(lambda x, y: x * y, X, 2.0) == (4, 0)
    assert gradcheck(lambda x, n: x[n], X, np.array([0, 0])) == (3, 0)
    assert gradcheck(lambda x, y: x * y, X, Y, argnums=(1,)) == (3, 0)
    assert gradcheck(lambda x: mg.split(x, 3), X) == (3, 0)
    assert gradcheck(lambda x: x * 2.0, np.zeros((0, 3))) == (0, 0)
    assert gradgradcheck(mg.tanh, X) == (6, 0)


def test_gradcheck_of_more_than_24_elements_takes_three_directions():
    x = np.linspace(0.1, 1.0, 25)
    assert gradcheck(mg.sin, x) == (3, 0)


def test_an_argument_that_does_nothing_has_gradient_zero():
    assert gradcheck(lambda x, y: x + 0.0, X, Y) == (6, 0)


def test_a_weak_comparison_is_counted():
    """A jump that is 8e-9 of the slope: the tableaus disagree, within the cap."""
    near = np.array([2.0**-7])
    done = gradcheck(lambda x: x + 8e-9 * mg.relu(x), near, step=2.0**-3)
    assert done == (1, 1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_gradcheck_wants_float64(dtype):
    with pytest.raises(TypeError, match=f"argument 0 is {dtype}; differences are taken in float64"):
        gradcheck(mg.tanh, X.astype(dtype))
    with pytest.raises(TypeError, match="no argument is a float64 array"):
        gradcheck(lambda n: n, np.array([1]))


def test_the_package_does_not_import_hypothesis():
    code = "import sys, microgradnd as mg; mg.testing; assert 'hypothesis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------- wrong ones do not


@pytest.mark.parametrize("error", [1e-6, -1e-6, 1e-7, 0.5])
def test_a_relative_error_in_a_formula_turns_red(declare, error):
    op = planted(declare, lambda xp, g, x: g * xp.cos(x) * (1.0 + error))
    with pytest.raises(AssertionError, match=r"gradcheck of planted_sine: argument 0, element"):
        check_primitive(op)
    with pytest.raises(AssertionError, match=r"element \(0,\): numeric .*, analytic -?[0-9]"):
        gradcheck(op, X)


def test_an_error_in_one_element_of_many_turns_red():
    weights = np.ones(40)
    weights[17] += 1e-5

    wrong = mg.tensor(weights)
    with pytest.raises(AssertionError, match="direction 0"):
        gradcheck(lambda x: _scaled_gradient(x, wrong), np.linspace(0.1, 1.0, 40))
    assert gradcheck(lambda x: x * 1.0, np.linspace(0.1, 1.0, 40)).weak == 0


def _scaled_gradient(x, weights):
    """The operand; its gradient is multiplied by the weights."""
    y = x * 1.0
    if y.requires_grad:
        y.register_hook(lambda g: g * weights)
    return y


def test_an_error_in_the_second_derivative_turns_red(declare):
    """The value of the slope is right, its dependence on the operand is not."""
    op = planted(declare, lambda xp, g, x: g * xp.cos(x * 1.0) + 0.0 * x)
    assert gradgradcheck(op, X).weak == 0
    op = planted(declare, lambda xp, g, x: g * mg.cos(x).detach() if isinstance(x, mg.Tensor)
                 else g * xp.cos(x))  # fmt: skip
    assert gradcheck(op, X).weak == 0
    with pytest.raises(AssertionError, match="gradcheck of the gradient of planted_sine"):
        check_primitive(op)


def tied(declare, ours, theirs, **data):
    @declare(elementwise=True, reference=np.maximum, **data)
    def larger(xp, x, y, /):
        r"""The larger, :math:`\max(x, y)`."""
        return xp.maximum(x, y)

    larger.vjp(x=ours, y=theirs)
    return larger


def test_a_tie_that_pays_twice_turns_red(declare):
    op = tied(declare, lambda g, x, y: g * (x >= y), lambda g, x, y: g * (y >= x))
    gradcheck(op, X, Y)  # away from ties there is nothing to see
    with pytest.raises(AssertionError, match="larger: at a tie or kink"):
        check_primitive(op)


def test_a_tie_that_pays_nobody_turns_red(declare):
    op = tied(declare, lambda g, x, y: g * (x > y), lambda g, x, y: g * (y > x))
    with pytest.raises(AssertionError, match="larger: at a tie or kink"):
        check_primitive(op)


def test_ties_that_pay_the_first_or_both_halves_pass(declare):
    check_primitive(tied(declare, lambda g, x, y: g * (x >= y), lambda g, x, y: g * (y > x)))
    check_primitive("maximum")


def test_a_maxout_that_pays_all_winners_turns_red(declare):
    @declare(
        cases=((((2, 3),), {}),), reference=lambda x: np.max(x, axis=-1)
    )
    def winners(xp, x, /):
        r"""The largest of each row, :math:`\max_i x_i`."""
        return xp.max(x, axis=-1)

    winners.vjp(x=lambda xp, g, x, out: xp.expand_dims(g, -1) * (x == xp.expand_dims(out, -1)))
    with pytest.raises(AssertionError, match="winners: at a tie or kink"):
        check_primitive(winners)


def test_a_broken_convention_turns_red(declare):
    op = tied(
        declare,
        lambda g, x, y: g * (x >= y),
        lambda g, x, y: g * (y > x),
        conventions=(("a tie", ([1.0], [1.0]), {}, ([0.5], [0.5])),),
    )
    with pytest.raises(AssertionError, match=r"larger, a tie: gradient 0 is \[1.0\], not \[0.5\]"):
        check_primitive(op)


def test_a_convention_with_an_infinite_second_derivative_turns_red(declare):
    @declare(
        elementwise=True,
        domain=(0.5, 2.0),
        reference=lambda x: np.sqrt(x) * x,
        conventions=(("at 0", ([0.0],), {}, ([0.0],)),),
    )
    def to_three_halves(xp, x, /):
        r"""The power, :math:`x^{3/2}`."""
        return xp.sqrt(x) * x

    to_three_halves.vjp(x=lambda xp, g, x: 1.5 * g * xp.sqrt(x))
    with pytest.raises(AssertionError, match="at 0: the second derivative by operand 0 is"):
        check_primitive(to_three_halves)


def test_a_wrong_dtype_turns_red(declare):
    @declare(elementwise=True, reference=np.sin)
    def widened(xp, x, /):
        r"""The sine, :math:`\sin x`."""
        return xp.sin(xp.astype(x, "float64"))

    widened.vjp(x=lambda xp, g, x: g * xp.cos(x))
    with pytest.raises(AssertionError, match="widened: float16 operands gave float64, not float16"):
        check_primitive(widened)


def test_low_precision_inside_a_formula_turns_red(declare):
    op = planted(declare, lambda xp, g, x: g * xp.astype(xp.cos(xp.astype(x, "float16")), x.dtype))
    with pytest.raises(AssertionError):
        check_primitive(op)


def test_a_wrong_value_turns_red(declare):
    @declare(elementwise=True, reference=np.sin)
    def shifted_sine(xp, x, /):
        r"""The sine, :math:`\sin x`."""
        return xp.sin(x) + 1e-12

    shifted_sine.vjp(x=lambda xp, g, x: g * xp.cos(x))
    with pytest.raises(AssertionError, match=r"shifted_sine: the value is .* the reference says"):
        check_primitive(shifted_sine)


# ----------------------------------------------------------------------------- memory


def test_a_formula_that_gives_the_cotangent_itself_is_no_fault(declare):
    """The engine copies what is not its own."""

    @declare(elementwise=True, reference=np.add)
    def plus(xp, x, y, /):
        r"""The sum, :math:`x + y`."""
        return xp.add(x, y)

    plus.vjp(x=lambda g: g, y=lambda g: g)
    assert check_primitive(plus).weak == 0


def test_gradients_that_share_memory_turn_red(monkeypatch):
    """As if the engine took every array for its own."""
    monkeypatch.setattr(tape, "getrefcount", lambda array: tape.ALONE)
    with pytest.raises(AssertionError, match="shares memory with the cotangent"):
        gradcheck(lambda x, y: x + y, X, Y)


def test_a_formula_that_writes_into_the_cotangent_turns_red(declare):
    def formula(xp, g, x):
        if isinstance(g, np.ndarray):
            g *= np.cos(x)
            return g + 0.0
        return g * xp.cos(x)

    with pytest.raises(AssertionError, match="the cotangent was written to"):
        check_primitive(planted(declare, formula))


def test_a_forward_that_writes_into_its_operand_turns_red(declare):
    @declare(elementwise=True, reference=np.negative)
    def spoiler(xp, x, /):
        r"""The negative, :math:`-x`."""
        np.negative(x, out=x)
        return xp.copy(x)

    spoiler.vjp(x=lambda g: -g)
    with pytest.raises(AssertionError, match="argument 0 was written to"):
        gradcheck(spoiler, X.copy())
    with pytest.raises(AssertionError, match="forward wrote to operand 0"):
        testing.check_memory(spoiler, testing.Sample((X.copy(),), {}, 0.1))
    with pytest.raises(AssertionError):
        check_primitive(spoiler)


def test_an_undeclared_view_turns_red(declare):
    @declare(elementwise=True, reference=np.array)
    def aliased(xp, x, /):
        r"""The same, :math:`x`."""
        return x

    aliased.vjp(x=lambda g: g)
    with pytest.raises(AssertionError, match="shares memory with operand 0, and view=True"):
        check_primitive(aliased)


def test_passes_that_differ_turn_red(declare):
    rng = np.random.default_rng(0)
    op = planted(declare, lambda xp, g, x: g * xp.cos(x) * (1.0 + 1e-15 * rng.integers(1, 9)))
    with pytest.raises(AssertionError, match="two passes gave different gradients"):
        check_primitive(op)


def test_a_gradient_that_ignores_the_cotangent_turns_red(declare):
    op = planted(declare, lambda xp, g, x: xp.cos(x))
    with pytest.raises(AssertionError, match="a zero cotangent gave"):
        check_primitive(op)


def test_a_recorded_pass_that_differs_turns_red(declare):
    op = planted(declare, lambda xp, g, x: g * xp.cos(x) * (1.0 + 1e-9 * isinstance(g, mg.Tensor)))
    with pytest.raises(AssertionError, match=r"the raw pass gave .* the recorded pass"):
        check_primitive(op)


def test_a_result_that_depends_on_the_layout_turns_red(declare):
    @declare(elementwise=True, reference=np.array)
    def strided(xp, x, /):
        r"""The same, :math:`x`."""
        return x + (1e-9 if x.strides and x.strides[0] < 0 else 0.0)

    strided.vjp(x=lambda g: g)
    with pytest.raises(AssertionError, match="strided, reversed layout"):
        check_primitive(strided)


# ----------------------------------------------------------------------------- missing data


def test_no_cases_for_what_is_not_elementwise(declare):
    @declare(reference=np.sum)
    def caseless(xp, x, /):
        r"""The sum, :math:`\sum_i x_i`."""
        return xp.sum(x)

    with pytest.raises(AssertionError, match="caseless: it is not elementwise, so its tests need"):
        check_primitive(caseless)


def test_no_reference(declare):
    @declare(elementwise=True)
    def alone(xp, x, /):
        r"""The sine, :math:`\sin x`."""
        return xp.sin(x)

    alone.vjp(x=lambda xp, g, x: g * xp.cos(x))
    with pytest.raises(AssertionError, match="alone: its tests need a second opinion: numpy="):
        check_primitive(alone)
    table = {"attrs": {}, "x": ["0x0p+0"], "y": ["0x0p+0"], "dy": ["0x1p+0"]}
    check_primitive(alone, stored=[table])
    with pytest.raises(AssertionError, match=r"the derivative dy at 0.0 .* the reference says 2.0"):
        check_primitive(alone, stored=[table | {"dy": ["0x1p+1"]}])
    with pytest.raises(AssertionError, match=r"alone\(0.0\) with {} is 0.0; the reference says 1"):
        check_primitive(alone, stored=[table | {"y": ["0x1p+0"]}])


def test_no_docstring_and_no_formula_in_it(declare):
    for text, message in ((None, "needs to end in a period"), ("The sine.", "has no formula")):
        op = planted(declare, lambda xp, g, x: g * xp.cos(x))
        op.__doc__ = text
        with pytest.raises(AssertionError, match=message):
            check_primitive(op)


def test_no_reason_for_what_cannot_be_recorded(declare):
    op = planted(declare, lambda xp, g, x: g * xp.cos(x), recordable=False)
    with pytest.raises(AssertionError, match="recordable=False needs a reason"):
        check_primitive(op)


# ----------------------------------------------------------------------------- strategies


@given(data=st.data())
def test_operands_broadcast_and_keep_their_distance(data):
    x, y = data.draw(testing.operands(mg.divide))
    np.broadcast_shapes(x.shape, y.shape)
    assert ((y > 0.2) & (y < 3.0)).all()
    everything = np.sort(np.concatenate([x.ravel(), y.ravel()]))
    assert (np.diff(everything) > 0.0).all()


@given(sample=testing.samples(mg.relu6))
def test_samples_keep_away_from_kinks_and_ties(sample):
    (x,) = sample.operands
    for kink in (0.0, 6.0):
        assert (np.abs(x - kink) >= 4.0 * sample.step).all()
    assert (np.diff(np.sort(x.ravel())) >= 8.0 * sample.step).all()


@given(data=st.data(), ndim=st.integers(0, 3))
def test_axes_are_such_as_numpy_takes(data, ndim):
    chosen = data.draw(testing.axes(ndim))
    np.sum(np.zeros((2,) * ndim), **chosen)


def test_axes_draw_every_kind():
    seen = set()

    @given(chosen=testing.axes(2))
    def look(chosen):
        seen.add(type(chosen["axis"]))

    from hypothesis import settings

    settings(max_examples=100, derandomize=True, database=None)(look)()
    assert seen == {type(None), int, tuple}


@given(data=st.data())
def test_layouts_hold_the_same_values(data):
    x = np.arange(6.0).reshape(2, 3)
    laid = data.draw(testing.layouts(x))
    assert laid.shape in (x.shape, ())
    assert laid.ravel()[0] == 0.0


def test_layouts_are_what_they_are_called():
    x = np.arange(6.0).reshape(2, 3)
    made = {name: lay(x) for name, lay in testing.LAYOUTS.items()}
    assert made["C"].flags.c_contiguous
    assert made["Fortran"].flags.f_contiguous
    assert not made["transposed"].flags.c_contiguous
    assert made["every second"].strides == (48, 16)
    assert made["reversed"].strides == (-24, -8)
    assert made["broadcast"].strides[0] == 0
    assert made["0-d"].shape == ()
    assert not made["read-only"].flags.writeable
    for name, y in made.items():
        if name not in ("broadcast", "0-d"):
            assert np.array_equal(x, y)
