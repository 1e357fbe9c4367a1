"""Every primitive holds to every property: made from the registry, one test per property.

The checks themselves are in `microgradnd.testing`, where users find them for their own primitives.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgradnd as mg
from microgradnd import Tensor, testing
from microgradnd.backend.namespace import NAMES
from microgradnd.registry import COMPOSITES, REGISTRY

DATA = Path(__file__).parent / "data"
STORED = json.loads((DATA / "references.json").read_text(encoding="ascii"))
STORED |= json.loads((DATA / "losses.json").read_text(encoding="ascii"))
OPS = {
    name: op for name, op in sorted((REGISTRY | COMPOSITES).items())
    if op.__module__.startswith("microgradnd")
}  # fmt: skip
SMOOTH = [name for name, op in OPS.items() if op.formulas]
ELEMENTWISE = [name for name, op in OPS.items() if op.elementwise]
PAIRS = [name for name in ELEMENTWISE if len(OPS[name].operands) == 2]
REDUCTIONS = [name for name, op in OPS.items() if op.data.get("kind") == "reduction"]


def every(names):
    return pytest.mark.parametrize("name", list(names))


def drawn(name, data, order=1):
    return data.draw(testing.samples(OPS[name], order))


# ----------------------------------------------------------------------------- derivatives

@every(SMOOTH)
@given(data=st.data())
def test_first_derivatives_are_those_of_finite_differences(name, data):
    done = testing.check_first(OPS[name], drawn(name, data))
    assert done.weak * 100 <= max(done.comparisons, 100)


@every(SMOOTH)
@given(data=st.data())
def test_second_derivatives_are_those_of_finite_differences(name, data):
    done = testing.check_second(OPS[name], drawn(name, data, order=2))
    assert done.weak * 100 <= max(done.comparisons, 100)


@every(SMOOTH)
def test_every_declared_case_has_right_derivatives(name):
    rng = np.random.default_rng(7)
    for shapes, attrs in testing.cases(OPS[name]):
        testing.check_first(OPS[name], testing.make(OPS[name], shapes, attrs, rng))


@every(SMOOTH)
@given(data=st.data())
def test_the_recorded_pass_gives_what_the_raw_pass_gives(name, data):
    testing.check_paths(OPS[name], drawn(name, data))


@every(name for name in SMOOTH if len(OPS[name].operands) > 1 and OPS[name].elementwise)
def test_a_broadcast_operand_gets_the_sum_of_the_gradients_of_its_copies(name):
    op = OPS[name]
    shapes = ((3, 1), (1, 4), (4,))[: len(op.operands)]
    sample = testing.make(op, shapes, testing.attributes(op)[0], np.random.default_rng(3))
    full = np.broadcast_arrays(*sample.operands)
    ct = testing.cotangents([np.empty((3, 4))])
    got = testing.gradients(op, sample.operands, sample.attrs, ct)
    each = testing.gradients(op, full, sample.attrs, ct)
    for i, g, whole in zip(testing.differentiable(op, full), got, each, strict=True):
        axes = tuple(a for a, n in enumerate(np.atleast_2d(sample.operands[i]).shape) if n == 1)
        axes = (0,) if shapes[i] == (4,) else axes
        want = whole.sum(axis=axes, keepdims=len(shapes[i]) == 2)
        assert np.allclose(g, want, rtol=1e-14, atol=1e-14)


# ----------------------------------------------------------------------------- choices


@every(name for name in OPS if OPS[name].data.get("conventions"))
def test_gradients_at_kinks_and_ties_are_those_of_the_table(name):
    testing.check_conventions(OPS[name])


@every(SMOOTH)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_at_ties_and_kinks_the_gradient_stays_between_the_slopes_on_both_sides(name, data, seed):
    testing.check_ties(OPS[name], drawn(name, data), seed)


SELECTIONS = {
    "maximum": (((4,), (4,)), {}),
    "minimum": (((4,), (4,)), {}),
    "max": (((3, 4),), {"axis": 1}),
    "min": (((3, 4),), {"axis": 0}),
    "maxout": (((2, 6),), {"pieces": 3}),
    "fmax": (((4,), (4,)), {}),
    "fmin": (((4,), (4,)), {}),
    "sort": (((3, 4),), {"axis": 0}),
    "median": (((3, 4),), {"axis": 1}),
}


@every(SELECTIONS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_selection_hands_on_the_whole_gradient_and_no_more(name, seed):
    shapes, attrs = SELECTIONS[name]
    rng = np.random.default_rng(seed)
    operands = [rng.integers(0, 2, shape).astype(float) for shape in shapes]
    found = testing.gradients(OPS[name], operands, attrs)
    assert all((g >= 0).all() for g in found)
    out = testing.results(OPS[name], operands, attrs)[0]
    assert sum(g.sum() for g in found) == pytest.approx(out.size, rel=1e-14)


# ----------------------------------------------------------------------------- values


@every(OPS)
@given(data=st.data())
def test_values_are_those_of_an_independent_reference(name, data):
    if testing.independent(OPS[name]) is None:
        assert STORED.get(name), f"{name} needs numpy=, reference= or stored data"
        return
    testing.check_reference(OPS[name], drawn(name, data))


@every(STORED)
def test_values_and_derivatives_are_those_of_the_stored_tables(name):
    for entry in STORED[name]:
        testing.check_stored(OPS[name], entry)


@every(REDUCTIONS)
def test_reductions_over_all_axes(name):
    op = OPS[name]
    sample = testing.make(op, ((2, 3, 2),), {}, np.random.default_rng(1))
    for axis in (None, 0, 1, -1, -3, (0,), (0, 2), (-1, 1), (2, 0, 1), ()):
        for keepdims in (False, True):
            attrs = {"axis": axis, "keepdims": keepdims}
            testing.check_reference(op, sample._replace(attrs=attrs))
            if op.formulas:
                testing.check_paths(op, sample._replace(attrs=attrs))


@every(REDUCTIONS)
def test_reductions_of_nothing(name):
    op = OPS[name]
    x = np.zeros((0, 3))
    assert testing.results(op, [x], {"axis": 1})[0].shape == (0,)
    if name in ("max", "min", "logsumexp"):
        with pytest.raises(ValueError, match=f"{name}: an empty axis"):
            testing.results(op, [x], {"axis": 0})
    elif name in ("sum", "prod", "any", "all", "euclidean"):
        assert testing.results(op, [x], {"axis": 0})[0].shape == (3,)
        for g in testing.gradients(op, [x], {"axis": 0}):
            assert g.shape == (0, 3)


@every(OPS)
def test_results_are_arrays_never_numbers(name):
    op = OPS[name]
    rng = np.random.default_rng(0)
    for shapes, attrs in testing.cases(op):
        sample = testing.make(op, shapes, attrs, rng)
        out = testing.call(op, [Tensor(x) if x is not None else x for x in sample.operands], attrs)
        for o in out if op.outputs else [out]:
            assert type(o) is Tensor and type(o.data) is np.ndarray


# ----------------------------------------------------------------------------- dtypes


@every(name for name in OPS if "f" in OPS[name].data.get("dtypes", "f"))
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@given(data=st.data())
def test_low_precision_stays_and_agrees_with_float64(name, dtype, data):
    testing.check_dtypes(OPS[name], drawn(name, data), dtype)


KINDS = {"i": ("int64", "int32"), "u": ("uint8",), "b": ("bool",)}


@every(name for name in OPS if set(OPS[name].data.get("dtypes", "")) & set("iub"))
def test_integers_and_booleans_give_what_numpy_gives(name):
    op = OPS[name]
    rng = np.random.default_rng(0)
    for kind in set(op.data["dtypes"]) & set("iub"):
        for dtype in KINDS[kind]:
            for shapes, attrs in testing.cases(op):
                xs = [
                    rng.integers(kind != "b", 2 if kind == "b" else 5, s).astype(dtype)
                    if isinstance(s, tuple)
                    else np.asarray(s)
                    for s in shapes
                ]
                testing.check_reference(op, testing.Sample(tuple(xs), attrs, 0.0))


@every(name for name in PAIRS if OPS[name].formulas)
def test_numbers_are_weak_and_mixed_precisions_promote(name):
    op = OPS[name]
    rng = np.random.default_rng(0)
    x, y = testing.make(op, ((3,), (3,)), {}, rng).operands
    low, high = np.float16, np.float32
    assert op.bare(Tensor(x.astype(low)), float(y[0])).dtype == low
    assert op.bare(float(x[0]), Tensor(y.astype(low))).dtype == low
    mixed = [x.astype(low), y.astype(high)]
    assert testing.results(op, mixed, {})[0].dtype == high
    found = testing.gradients(op, mixed, {})
    for i, g in zip(testing.differentiable(op, mixed), found, strict=True):
        assert g.dtype == mixed[i].dtype
    number = Tensor(x.astype(low), requires_grad=True)
    op.bare(number, float(y[0])).sum().backward()
    assert number.grad.dtype == low


# ----------------------------------------------------------------------------- memory


@every(name for name in OPS if "f" in OPS[name].data.get("dtypes", "f"))
@given(data=st.data(), layout=st.sampled_from(list(testing.LAYOUTS)))
def test_the_layout_in_memory_changes_nothing(name, data, layout):
    testing.check_layouts(OPS[name], drawn(name, data), layout)


@every(OPS)
@given(data=st.data())
def test_only_views_share_memory_with_an_operand(name, data):
    testing.check_memory(OPS[name], drawn(name, data))


# ----------------------------------------------------------------------------- doors


@every(name for name in OPS if OPS[name].numpy)
@given(data=st.data())
def test_numpys_function_on_tensors_is_ours(name, data):
    testing.check_numpy(OPS[name], drawn(name, data))


@every(OPS)
def test_the_entry_has_what_tests_and_documentation_need(name):
    testing.check_declaration(OPS[name])


# ----------------------------------------------------------------------------- lint


def faults(source):
    """What formulas must not do: names outside the list, NumPy inside, writing into arrays."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, (ast.FunctionDef, ast.Lambda)):
            continue
        names = {a.arg for a in (*function.args.posonlyargs, *function.args.args)}
        body = function.body if isinstance(function.body, list) else [function.body]
        for node in (n for statement in body for n in ast.walk(statement)):
            if "xp" in names and isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else None
                if owner == "xp" and node.attr not in NAMES:
                    found.append(f"{node.lineno}: xp.{node.attr} is not in the list")
                if owner == "np" and node.attr != "dtype":
                    found.append(f"{node.lineno}: np.{node.attr} in a formula")
            if "xp" in names or "g" in names:
                targets = node.targets if isinstance(node, ast.Assign) else (
                    [node.target] if isinstance(node, ast.AugAssign) else []
                )  # fmt: skip
                if any(isinstance(t, ast.Subscript) for t in targets):
                    local = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
                    if local & (names | {"out"}):
                        found.append(f"{node.lineno}: an array is written into")
    return found


FORMULAS = sorted(Path(mg.__file__).parent.glob("ops/*.py"))


@pytest.mark.parametrize("path", FORMULAS, ids=lambda path: path.name)
def test_formulas_keep_to_the_closed_list_of_functions(path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["def f(xp, x, /):\n    return xp.lexsort(x)", "lambda xp, g, x: np.exp(x)",
     "def f(xp, g, x):\n    g[0] = x", "def f(xp, x, /):\n    x[0] += 1.0"],
)  # fmt: skip
def test_the_lint_finds_faults(text):
    assert len(faults(text)) == 1
