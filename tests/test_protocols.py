"""NumPy's functions on Tensors, Tensors as arrays, and DLPack."""

import inspect
import operator

import numpy as np
import pytest

import microgradnd as mg
from microgradnd import overrides, testing
from microgradnd.registry import COMPOSITES, REGISTRY


def leaf(values, dtype="float64"):
    return mg.tensor(values, dtype=dtype, requires_grad=True)


A = np.array([[1.0, 2.0], [3.0, 4.0]])
B = np.array([[0.5, -1.0], [2.0, 0.25]])


@pytest.mark.parametrize(
    "f",
    [
        lambda t, u: np.tanh(t),
        lambda t, u: np.add(t, u),
        lambda t, u: np.add(t, B),
        lambda t, u: np.multiply(A, u),
        lambda t, u: np.float64(2.0) * t,
        lambda t, u: np.int64(3) ** t,
        lambda t, u: A * t,
        lambda t, u: A @ t,
        lambda t, u: A - t,
        lambda t, u: A[0] / t,
        lambda t, u: t * A,
        lambda t, u: np.maximum(t, u),
        lambda t, u: np.sum(t, axis=0),
        lambda t, u: np.sum(t, axis=(0, 1), keepdims=True),
        lambda t, u: np.mean(t, 1),
        lambda t, u: np.max(t, axis=-1),
        lambda t, u: np.std(t, axis=0, ddof=1),
        lambda t, u: np.prod(t),
        lambda t, u: np.linalg.norm(t),
        lambda t, u: np.linalg.trace(t, offset=1),
        lambda t, u: np.linalg.cross(np.hstack([t, u])[:, 1:], np.ones((2, 3)), axis=-1),
        lambda t, u: np.cumsum(t, axis=1),
        lambda t, u: np.concatenate([t, u]),
        lambda t, u: np.concatenate((t, B), axis=1),
        lambda t, u: np.stack([A, u], axis=-1),
        lambda t, u: np.split(t, 2)[1],
        lambda t, u: np.where(A > 2, t, u),
        lambda t, u: np.clip(t, 1.5, 3.5),
        lambda t, u: np.reshape(t, (4,)),
        lambda t, u: np.transpose(t),
        lambda t, u: np.moveaxis(t, 0, 1),
        lambda t, u: np.expand_dims(t, 1),
        lambda t, u: np.take(t, [1, 0, 1], axis=1),
        lambda t, u: np.matmul(t, u),
        lambda t, u: np.dot(A, u),
        lambda t, u: np.einsum("ij,jk->ki", t, u),
        lambda t, u: np.outer(t, u),
        lambda t, u: np.tensordot(t, u, axes=1),
    ],
)
def test_numpys_functions_record(f):
    t, u = leaf(A), leaf(B)
    y = f(t, u)
    assert isinstance(y, mg.Tensor) and y.requires_grad
    assert np.allclose(y.detach().numpy(), f(A, B), rtol=1e-14)
    y.sum().backward()
    assert t.grad is not None or u.grad is not None


def test_values_and_gradients_of_a_few():
    t = leaf([1.0, 2.0, 4.0])
    np.sum(np.concatenate([t, np.float64(2.0) * t]) * np.arange(6.0)).backward()
    assert t.grad.tolist() == [6.0, 9.0, 12.0]
    t.grad = None
    (np.array([1.0, 10.0, 100.0]) / t).sum().backward()
    assert t.grad.tolist() == [-1.0, -2.5, -6.25]


def test_functions_of_tensors_that_give_no_tensors():
    t = mg.tensor([[1.0, 2.0, 3.0]])
    assert (np.shape(t), np.ndim(t), np.size(t)) == ((1, 3), 2, 3)
    assert np.allclose(t, [[1.0, 2.0, 3.0]]) is True
    assert np.zeros_like(t).shape == (1, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: np.add(t, t, out=np.zeros(2)), r"np\.add with out=.*mg\.add"),
        (lambda t: np.add(np.ones(2), np.ones(2), out=t), r"np\.add with out=.*mg\.add"),
        (lambda t: np.tanh(t, where=np.array([True, False])), r"np\.tanh with where=.*mg\.tanh"),
        (lambda t: np.add.reduce(t), r"np\.add\.reduce.*mg\.(add|sum)"),
        (lambda t: np.add.accumulate(t), r"np\.add\.accumulate.*mg\.(add|cumsum)"),
        (lambda t: np.multiply.outer(t, t), r"np\.multiply\.outer.*mg\.(multiply|outer)"),
        (lambda t: np.add.at(t, [0], 1.0), r"np\.add\.at.*mg\.(add|scatter_add)"),
        (lambda t: np.sum(t, out=np.zeros(())), r"np\.sum with out=.*mg\.sum"),
        (lambda t: np.sum(t, where=np.array([True, False])), r"np\.sum with where=.*mg\.sum"),
        (lambda t: np.nancumprod(t), r"np\.nancumprod.*nearest is mg\.cumprod"),
        (lambda t: np.nansum(t), r"np\.nansum.*nearest is mg\.sum"),
        (lambda t: np.signbit(t), r"np\.signbit.*nearest is mg\.sign"),
        (lambda t: np.fft.fft(t), r"np\.fft\.fft does not take Tensors; docs"),
        (lambda t: np.linalg.diagonal(t), r"np\.linalg\.diagonal does .*nearest is mg\.diagonal"),
        (lambda t: np.quantile(t, 0.3), r"np\.quantile.*nearest is mg\.sort"),
        (lambda t: np.interp(t, [0, 1], [0, 1]), r"np\.interp does not take Tensors; docs"),
        (lambda t: np.max(t, where=t > 1, initial=0), r"use mg\.max, of what mg\.where\(mask"),
        (lambda t: np.ravel(t, order="F"), r"np\.ravel with order=.*mg\.ravel, whose order is C's"),
    ],
)  # fmt: skip
def test_what_is_not_covered_raises_and_names_ours(call, message):
    t = mg.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=message):
        call(t)
    assert t.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("where", "name", "message"),
    [
        (mg.ones(2), "view", "'Tensor' object has no attribute 'view'; use mg.reshape"),
        (mg.ones(2), "sort", "'Tensor' object has no attribute 'sort'; use mg.sort"),
        (mg.nn.Parameter([1.0]), "inv", "'Parameter' object .* 'inv'; use mg.linalg.inv"),
        (mg.ones(2), "viwe", "'Tensor' object has no attribute 'viwe'$"),
        (mg, "cat", "module 'microgradnd' has no attribute 'cat'; use mg.concatenate"),
        (mg, "kat", "module 'microgradnd' has no attribute 'kat'$"),
    ],
)
def test_attributes_that_are_spelled_otherwise(where, name, message):
    with pytest.raises(AttributeError, match=message):
        getattr(where, name)


def test_what_is_said_to_be_used_is_there():
    from microgradnd.overrides import NEAREST
    from microgradnd.signatures import SPELLED

    x = mg.ones((2, 2))
    ours = [f"mg.{name}" for name in NEAREST.values()]
    for text in [*ours, *SPELLED.values()]:
        for name in text.split(", "):
            if "cupy" not in name and "=" not in name:
                assert eval(name, {"mg": mg, "x": x}) is not None



def test_options_that_are_given_their_defaults_do_no_harm():
    t = mg.tensor([1.0, 2.0])
    assert np.sum(t, axis=None, out=None, keepdims=False).item() == 3.0
    assert np.add(t, t, out=None).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("write", [operator.iadd, operator.imul, operator.isub, operator.itruediv])
def test_an_array_does_not_swallow_a_tensor(write):
    array = np.array([1.0, 2.0])
    with pytest.raises(TypeError, match="out="):
        write(array, leaf([1.0, 1.0]))
    assert array.tolist() == [1.0, 2.0]


# ----------------------------------------------------------------------------- as an array


def test_conversion_to_an_array():
    t = mg.tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(t), t._array)
    assert not np.shares_memory(np.array(t), t._array)
    assert np.asarray(t, dtype="float64").dtype == "float64"
    with pytest.raises(ValueError, match="copy"):
        np.asarray(t, dtype="float64", copy=False)
    assert np.asarray([t, t]).tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_conversion_of_what_requires_a_gradient_is_refused():
    t = leaf([1.0, 2.0])
    for convert in (np.asarray, np.array, lambda t: t.numpy(), np.from_dlpack):
        for x in (t, t * 2.0):
            with pytest.raises(RuntimeError, match=r"detach\(\)"):
                convert(x)
    assert np.asarray(t.detach()).tolist() == [1.0, 2.0]


def test_an_array_of_kept_values_is_read_only():
    t = leaf([1.0, 2.0])
    loss = (t * t).sum()
    assert not np.asarray(t.detach()).flags.writeable
    loss.backward()
    assert np.asarray(t.detach()).flags.writeable


def test_no_door_for_cupy_to_take_the_values_behind_our_back():
    for t in (mg.tensor([1.0]), leaf([1.0])):
        assert not hasattr(t, "__cuda_array_interface__")
        assert not hasattr(t, "__cupy_get_ndarray__")


# ----------------------------------------------------------------------------- DLPack


def test_dlpack_out():
    t = mg.tensor([[1.0, 2.0], [3.0, 4.0]])
    array = np.from_dlpack(t.T)
    assert array.tolist() == [[1.0, 3.0], [2.0, 4.0]] and np.shares_memory(array, t._array)
    assert t.__dlpack_device__() == np.zeros(1).__dlpack_device__()


class Exporter:
    """Another library's array: nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint32", "int64"])
def test_dlpack_in(dtype):
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    t = mg.from_dlpack(Exporter(array))
    assert t.dtype == dtype and t.tolist() == array.tolist()
    assert np.shares_memory(t._array, array)
    copied = mg.tensor(Exporter(array))
    assert copied.tolist() == array.tolist() and not np.shares_memory(copied._array, array)
    assert np.shares_memory(mg.asarray(Exporter(array))._array, array)


def test_dlpack_of_the_wrong_kind():
    with pytest.raises(TypeError, match="list does not export DLPack"):
        mg.from_dlpack([1.0])
    with pytest.raises(TypeError, match="complex"):
        mg.from_dlpack(Exporter(np.array([1j])))


# ------------------------------------------------------------------------- NumPy's own signatures


FUNCTIONS = {
    f"{f.__module__}.{f.__name__}": (f, op)
    for op in (REGISTRY | COMPOSITES).values()
    for f in op.numpy
    if not isinstance(f, np.ufunc) and op.__module__.startswith("microgradnd.ops.")
}
#: Values for the options of NumPy's functions that no case of ours has.
TRIED = {
    "axis": 0, "copy": True, "correction": 1, "ddof": 1, "device": "cpu", "dtype": "float32",
    "initial": 0.5, "keepdims": True, "kind": "stable", "mean": 0.25, "mode": "wrap",
    "optimize": True, "overwrite_input": True, "stable": True,
}  # fmt: skip
#: Calls with parameters that exclude those of the cases.
FURTHER = {
    "clip": {"a": np.arange(4.0), "a_min": 0.5, "a_max": 2.5},
    "pinv": {"a": np.array([[2.0, 9.0], [1.0, -1.0]]), "hermitian": True},
    "qr": {"a": np.eye(2), "mode": "r"},
    "svd": {"a": np.array([[2.0, 9.0], [1.0, -1.0]]), "compute_uv": False, "hermitian": True},
}


def alike(got, want):
    """Whether Tensors (one, or several) are what NumPy gives for arrays."""
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(map(alike, got, want))
    assert isinstance(got, mg.Tensor), type(got)
    got, want = got.detach().numpy(), np.asarray(want)
    close = np.allclose(got, want, rtol=1e-6, atol=1e-6)
    return got.shape == want.shape and got.dtype == want.dtype and close


def known(op, function, operands, attrs):
    """The arguments of a case by the names of NumPy's parameters."""
    ours = list(inspect.signature(op).parameters.values())
    listed = op.rest is not None if op.name in REGISTRY else op.listed or op.count is None
    if function is np.einsum:
        return {"operands": [attrs["subscripts"], *operands]}
    values = [operands] if listed else list(operands)
    named = attrs | {p.name: v for p, v in zip(ours, values, strict=False)}
    if function is np.clip and "min" not in overrides.plan(function):  # before NumPy 2.1
        named |= {f"a_{k}": named.get(k) for k in ("min", "max")}
    found = {}
    for name, to in overrides.plan(function).items():
        p = overrides.parameters(function).parameters[name]
        to = ours[to].name if isinstance(to, int) else to
        to = "shape" if to == "sizes" else to
        if p.kind is p.VAR_POSITIONAL:
            found[name] = list(operands)
        elif to in named and named[to] is not None:
            found[name] = named[to]
        elif p.kind is p.VAR_KEYWORD:
            found |= {k: v for k, v in attrs.items() if k not in found}
    assert attrs.keys() <= found.keys() | {ours[i].name for i in range(len(ours))}
    return found


def calls(function, given):
    """A call with as much by position as can be, and one with as much by name as can be."""
    parameters = overrides.parameters(function).parameters.values()
    for by_place in (True, False):
        args, options, open_ = [], {}, True
        for p in parameters:
            open_ = open_ and p.name in given
            if p.kind is p.VAR_POSITIONAL:
                args += given.get(p.name, [])
            elif p.name in given:
                free = by_place and open_ and p.kind is p.POSITIONAL_OR_KEYWORD
                if free or p.kind is p.POSITIONAL_ONLY:
                    args.append(given[p.name])
                else:
                    options[p.name] = given[p.name]
        extra = given.keys() - {p.name for p in parameters}
        yield args, options | {k: given[k] for k in extra}


def lifted(x):
    """Float arrays as Tensors, in lists too."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(lifted, x))
    return mg.tensor(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpys_function_takes_what_numpys_own_signature_says(name):
    function, op = FUNCTIONS[name]
    theirs = overrides.parameters(function).parameters
    further = FURTHER.get(function.__name__, {})
    lacking = theirs.keys() - overrides.REFUSED - further.keys()
    if further:
        assert alike(function(**{k: lifted(v) for k, v in further.items()}), function(**further))
    for shapes, attrs in testing.cases(op):
        sample = testing.make(op, shapes, attrs, np.random.default_rng(0))
        given = known(op, function, [x for x in sample.operands if x is not None], attrs)
        lacking -= given.keys()
        for option in [None, *(theirs.keys() & TRIED.keys() - given.keys())]:
            more = {} if option is None else {option: TRIED[option]}
            for args, options in calls(function, given | more):
                try:
                    want = function(*args, **options)
                except (TypeError, ValueError, IndexError, RuntimeWarning):
                    # The option does not fit this case; before NumPy 2.1 clip needed both bounds.
                    assert option is not None or function is np.clip
                    continue
                assert alike(function(*lifted(args), **{k: lifted(v) for k, v in options.items()}),
                             want), (args, options)  # fmt: skip
                lacking -= {option}
    lacking -= {p.name for p in theirs.values() if p.kind is p.VAR_KEYWORD}
    assert not lacking, f"no case and no option tries {lacking}"
