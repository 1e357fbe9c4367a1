"""The page of conventions is complete, and what it says beside its table is so.

The rows themselves are tests of `test_primitives`, and of `test_device_registry`.
"""

import doctest
from pathlib import Path

import numpy as np
import pytest

import microgradnd as mg

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conventions.md"
OPS = mg.REGISTRY | mg.COMPOSITES


def listed(kinks):
    return [k for group in kinks.values() for k in group] if isinstance(kinks, dict) else kinks


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.data.get("kinks")])
def test_every_kink_has_its_row(name):
    op = OPS[name]
    points = {k for _, operands, *_ in op.data.get("conventions", ())
              for x in operands for k in np.ravel(x).tolist()}  # fmt: skip
    kinks = listed(op.data["kinks"])
    alike = len(kinks) > 4  # the jumps of a staircase
    assert points & set(kinks) if alike else points >= set(kinks), name


def test_the_examples_of_the_page():
    page = PAGE.read_text(encoding="utf-8")
    example = doctest.DocTestParser().get_doctest(page, {}, PAGE.name, None, 0)
    outcome = doctest.DocTestRunner(verbose=False).run(example)
    assert outcome.attempted == 4 and outcome.failed == 0


@pytest.mark.parametrize("f", [mg.var, mg.std], ids=lambda f: f.name)
def test_the_variance_of_one_value_is_undefined_with_a_warning(f):
    x = mg.tensor([5.0], requires_grad=True)
    with pytest.warns(RuntimeWarning, match="invalid value"):
        y = f(x, ddof=1)
    y.backward()
    assert np.isnan([y.item(), x.grad.item()]).all()


def test_powers_to_second_order_where_logarithms_are_infinite():
    for y, wanted in ((0.0, [[0.0, 0.0], [0.0, 0.0]]), (2.0, [[2.0, 0.0], [0.0, 0.0]])):
        f = lambda v: v[0] ** v[1]  # noqa: E731
        assert mg.hessian(f)(mg.tensor([0.0, y])).tolist() == wanted


@pytest.mark.parametrize(
    ("f", "wanted"),
    [
        (lambda x: mg.sort(x), [3.0, 1.0, 4.0, 2.0]),  # stable: equal ones stay in order
        (lambda x: mg.topk(x, 4)[0], [1.0, 3.0, 2.0, 4.0]),
        (lambda x: mg.take(x, mg.argsort(x)), [3.0, 1.0, 4.0, 2.0]),
        (lambda x: x[[1, 1, 0, 2]], [3.0, 3.0, 4.0, 0.0]),
    ],
    ids=["sort", "topk", "argsort", "index"],
)
def test_equal_elements_keep_their_order(f, wanted):
    x = mg.tensor([2.0, 1.0, 2.0, 1.0], requires_grad=True)
    f(x).backward(mg.tensor([1.0, 2.0, 3.0, 4.0]))
    assert x.grad.tolist() == wanted
