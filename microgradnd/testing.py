"""Checks of gradients: strict finite differences, and a conformance kit for primitives.

`gradcheck` compares a function's gradients with numerical derivatives that are good to about
1e-11, and looks at everything else that can be wrong with them; `gradgradcheck` does so with the
gradient itself. `check_primitive` runs all that a primitive must hold to, your own included.
`operands`, `layouts` and `axes` are hypothesis strategies; nothing else here needs hypothesis.

What a primitive declares for this, beside its formulas:

- `domain`: where operands are drawn, `(low, high)`, `"mask"` for booleans, a function of generator
  and shape, or a dict of these by operand; `kinks`, `kinks_second`: points that differences of
  first, second order stay away from;
- `cases`: `(operands, attributes)` of what is not elementwise: an operand is a shape (random floats
  of the domain), or a list or number taken as it is; `kind="reduction"` draws axes besides;
- `conventions`: `(case, operands, attributes, gradients of the sum)`, a None is not checked;
- `dtypes`: the kinds it takes (`"f"`, `"fiub"`); `variants`: attributes to test with as well;
- `reference`: an independent function of NumPy arrays, where no NumPy function is named;
  `tolerance`: in units in the last place; `differentiable=False`: a float result without gradient;
- `ordered=True`: which of equal elements is meant follows from their order, not from slopes;
- `smooth`: what makes of the operation a function that can be differenced, where it is none;
- `precisions`: `("float32",)` if it takes no float16;
- `recordable=False` with `why`: the result's shape depends on values.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import backend as backends
from .modes import Switch
from .primitives import Primitive
from .registry import COMPOSITES, REGISTRY
from .signatures import MISSING
from .tape import Tensor, reverse, wrap
from .transforms import vjp

EPS = float(np.finfo(np.float64).eps)
STEP = 2.0**-3  # where the steps begin; powers of two, so that x + h is exact
LEVELS = 8
SCALES = 8  # the second sequence of steps begins this much lower
ALL = 24  # up to so many elements each is checked, beyond it three directions
CAP = 1e-6  # the numerical error excuses no more than this, relatively
DOMAIN = (-3.0, 3.0)
GRID = 2.0**-30  # samples are multiples of it


# ----------------------------------------------------------------------------- finite differences


class Checked(NamedTuple):
    """How many derivatives were compared, and how many of them weakly.

    A comparison is weak if the numerical derivative is so inexact that its error decides, and is
    more than four times the fixed tolerance. More than one in a hundred is a fault of the test.
    """

    comparisons: int = 0
    weak: int = 0

    def __add__(self, other: Any) -> Checked:
        """Count both together."""
        return Checked(*(a + b for a, b in zip(self, other, strict=True)))


def _ridders(slope: Callable[[float], float], step: float) -> tuple[float, float]:
    """Extrapolate central differences to step 0: the value, and an estimate of its error.

    Source: Ridders, Accurate computation of F'(x) and F'(x) F''(x) (1982).
    """
    value, error = slope(step), math.inf
    row = [value]
    for level in range(1, LEVELS):
        previous, row = row, [slope(step * 2.0**-level)]
        factor = 4.0
        for column in range(level):
            row.append(row[-1] + (row[-1] - previous[column]) / (factor - 1.0))
            factor *= 4.0
            new = max(abs(row[-1] - row[-2]), abs(row[-1] - previous[column]))
            if new <= error:
                value, error = row[-1], new
        if abs(row[-1] - previous[-1]) >= 2.0 * error and level > 1:
            break  # rounding has taken over
    return value, error


def derivative(
    f: Callable[[float], np.ndarray], weights: np.ndarray, step: float = STEP
) -> tuple[float, float]:
    r"""Differentiate :math:`h \mapsto \langle w, f(h)\rangle` at 0 numerically.

    Two sequences of steps, one beginning eight times lower, must agree: with two jumps at h and one
    at h/2, a single tableau can report a wrong slope and the error 0.

    Returns:
        The derivative and an estimate of its error.
    """
    known: dict[float, float] = {}
    largest = 0.0

    def slope(h: float) -> float:
        nonlocal largest
        if h not in known:
            above, below = f(h), f(-h)
            largest = max(largest, float(np.abs(above * weights).sum()) if above.size else 0.0)
            known[h] = float(((above - below) * weights).sum()) / (2.0 * h)
        return known[h]

    first, second = _ridders(slope, step), _ridders(slope, step / SCALES)
    value, error = min(first, second, key=lambda pair: pair[1])
    floor = 4.0 * EPS * largest / step
    return value, max(error, abs(first[0] - second[0])) + floor


def _listed(outs: Any) -> list[Tensor]:
    """The results of a function as a list of Tensors."""
    outs = list(outs) if isinstance(outs, (list, tuple)) else [outs]
    return [o if isinstance(o, Tensor) else Tensor(o) for o in outs]


def _host(x: Any) -> np.ndarray:
    x = x._array if isinstance(x, Tensor) else x
    return backends.of(x).to_numpy(x)


def _same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


class _Problem:
    """A function with its arguments: which are differentiated, and what its results look like."""

    def __init__(self, f: Callable[..., Any], xs: Sequence[Any], argnums: Any, name: str | None):
        self.f = f
        self.name = name or getattr(f, "__name__", "f")
        self.args = [_plain(x) for x in xs]
        self.numbers = [
            i
            for i, x in enumerate(self.args)
            if hasattr(x, "dtype") and x.dtype.kind == "f" and (argnums is None or i in argnums)
        ]
        for i in self.numbers:
            if self.args[i].dtype != np.float64:
                raise TypeError(
                    f"gradcheck of {self.name}: argument {i} is {self.args[i].dtype}; differences "
                    "are taken in float64"
                )
        if not self.numbers:
            raise TypeError(f"gradcheck of {self.name}: no argument is a float64 array")
        self.home = backends.of(self.args[self.numbers[0]])

    def fill(self, values: Sequence[Any]) -> list[Any]:
        """The arguments, with others for those that are differentiated."""
        args = list(self.args)
        for i, value in zip(self.numbers, values, strict=True):
            args[i] = value
        return [wrap(a) if hasattr(a, "dtype") and not isinstance(a, Tensor) else a for a in args]

    def values(self, values: Sequence[Any]) -> list[Any]:
        """The raw results, not recorded."""
        with Switch(recording=False):
            return [o._array for o in _listed(self.f(*self.fill([wrap(v) for v in values])))]

    def gradients(self, cts: list[Any], taped: bool = False) -> list[Any]:
        """The gradients (Tensors) of a fresh graph, None where no result depends on an argument."""
        leaves = [wrap(self.args[i]).requires_grad_() for i in self.numbers]  # no copies
        with Switch(recording=True):
            outs = _listed(self.f(*self.fill(leaves)))
        seeds = [
            (o._node, wrap(ct))
            for o, ct in zip(outs, cts, strict=True)
            if o._node is not None
        ]
        found = dict(reverse(seeds, taped=taped, free=not taped)) if seeds else {}
        return [found.get(leaf._node) for leaf in leaves]


def _plain(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x._array
    if isinstance(x, float):
        return np.asarray(x)
    return np.asarray(x) if isinstance(x, np.generic) else x


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of both signs with magnitudes in [0.2, 1], none of which can hide an element."""
    sizes = np.round(rng.uniform(0.2, 1.0, shape) * 1024.0) / 1024.0
    return np.asarray(sizes * rng.choice([-1.0, 1.0], shape))


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    n = math.prod(shape)
    if n > ALL:
        for k in range(3):
            yield f"direction {k}", _random(rng, shape)
        return
    for index in np.ndindex(*shape):
        one = np.zeros(shape)
        one[index] = 1.0
        yield f"element {tuple(map(int, index))}", one


def gradcheck(
    f: Callable[..., Any],
    *xs: Any,
    argnums: tuple[int, ...] | None = None,
    step: float = STEP,
    seed: int = 0,
    name: str | None = None,
) -> Checked:
    r"""Compare the gradients of `f` with finite differences, strictly.

    Numerical derivatives are central differences, extrapolated (Ridders), from two step sizes
    that must agree; wanted is :math:`|n - a| \le 10^{-10} + 10^{-8} \max(|n|, |a|, 10^{-3}
    \max|\nabla|) + 16\,err` with a capped error. Every element is checked up to 24 of them, three
    random directions beyond. Besides: two passes give the same bits, a zero cotangent gives zeros,
    gradients have the shape, dtype and backend of their argument and share memory with nothing,
    and neither arguments nor cotangent are written to.

    Args:
        f: A function of Tensors with a Tensor, or a list of them, as the result.
        xs: Its arguments; what is no float array is handed on as it is.
        argnums: Which arguments to differentiate; all float ones by default.
        step: The first step; kinks must be further away than that from every argument.
        seed: For the random cotangent.
        name: What to call `f` in messages.

    Returns:
        How many derivatives were compared, and how many weakly.

    Raises:
        AssertionError: If something is wrong, naming argument and element, or the rule broken.
        TypeError: If an argument to differentiate is not float64.

    Example:
        >>> import microgradnd as mg
        >>> mg.testing.gradcheck(mg.tanh, mg.tensor([0.5, -2.0], dtype="float64"))
        Checked(comparisons=2, weak=0)
    """
    problem = _Problem(f, xs, argnums, name)
    what = f"gradcheck of {problem.name}"
    rng = np.random.default_rng(seed)
    home = problem.home
    xs = tuple(problem.args[i] for i in problem.numbers)
    cts = [home.asarray(_random(rng, o.shape)) for o in problem.values(xs)]
    weights = np.concatenate([np.array(_host(ct)).reshape(-1) for ct in cts])
    gradients = _check_rules(problem, what, cts)
    done = Checked()
    for place, (i, x) in enumerate(zip(problem.numbers, xs, strict=True)):
        analytic = np.zeros(x.shape) if gradients[place] is None else _host(gradients[place])
        scale = float(np.abs(analytic).max()) if analytic.size else 0.0
        for where, v in _directions(rng, x.shape):
            move = home.asarray(v)

            def moved(h: float, place: int = place, x: Any = x, move: Any = move) -> np.ndarray:
                values = [*xs[:place], home.asarray(x + h * move), *xs[place + 1 :]]
                return np.concatenate([_host(o).reshape(-1) for o in problem.values(values)])

            number, error = derivative(moved, weights, step)
            a = float((analytic * v).sum())
            size = max(abs(number), abs(a), 1e-3 * scale)
            fixed = 1e-10 + 1e-8 * size
            allowed = fixed + min(16.0 * error, CAP * size)
            if not abs(number - a) <= allowed:  # also if one of them is NaN
                raise AssertionError(
                    f"{what}: argument {i}, {where}: numeric {number!r}, analytic {a!r}, "
                    f"difference {abs(number - a):.3g}, allowed {allowed:.3g} (numerical error "
                    f"{error:.3g})"
                )
            done += Checked(1, 16.0 * error > 4.0 * fixed)
    return done


def _check_rules(problem: _Problem, what: str, cts: list[Any]) -> list[Any]:
    """What must hold for gradients besides their values; gives the gradients."""
    home = problem.home
    given = [
        *((f"argument {i}", problem.args[i]) for i in problem.numbers),
        *(("the cotangent", ct) for ct in cts),
    ]
    before = [np.array(_host(array)) for _, array in given]
    gradients = problem.gradients(cts)
    for (name, array), old in zip(given, before, strict=True):
        if not _same_bits(np.array(_host(array)), old):
            raise AssertionError(f"{what}: {name} was written to")
    again = problem.gradients(cts)
    zeros = problem.gradients([home.xp.zeros_like(ct) for ct in cts])
    for i, g, twin, zero in zip(problem.numbers, gradients, again, zeros, strict=True):
        if g is None:
            continue
        x = problem.args[i]
        for rule, have, want in (
            ("shape", g.shape, x.shape),
            ("dtype", g.dtype, x.dtype),
            ("backend", g.backend.name, home.name),
        ):
            if have != want:
                raise AssertionError(
                    f"{what}: the gradient of argument {i} has {rule} {have}, not {want}"
                )
        if not _same_bits(np.array(_host(g)), np.array(_host(twin))):
            raise AssertionError(f"{what}: argument {i}: two passes gave different gradients")
        if np.any(_host(zero) != 0.0):
            raise AssertionError(
                f"{what}: argument {i}: a zero cotangent gave {_host(zero).tolist()}"
            )
        for other, array in given:
            if home.shares_memory(g._array, array):
                raise AssertionError(
                    f"{what}: the gradient of argument {i} shares memory with {other}"
                )
        given.append((f"the gradient of argument {i}", g._array))
    return gradients


def gradgradcheck(
    f: Callable[..., Any],
    *xs: Any,
    argnums: tuple[int, ...] | None = None,
    step: float = STEP,
    seed: int = 0,
    name: str | None = None,
) -> Checked:
    """Compare second derivatives with finite differences of the gradient (see `gradcheck`).

    The function that is checked maps the arguments and a cotangent to the gradients: on Tensors
    for the analytic side, on plain arrays for the numerical one.

    Raises:
        AssertionError: If something is wrong. Arguments are counted with the cotangents last.

    Example:
        >>> import microgradnd as mg
        >>> mg.testing.gradgradcheck(mg.tanh, mg.tensor([0.5, -2.0], dtype="float64"))
        Checked(comparisons=4, weak=0)
    """
    problem = _Problem(f, xs, argnums, name)
    rng = np.random.default_rng(seed + 1)
    primals = [problem.args[i] for i in problem.numbers]
    cts = [problem.home.asarray(_random(rng, o.shape)) for o in problem.values(primals)]
    n = len(primals)

    def pullback(*args: Any) -> list[Any]:
        _, pull = vjp(lambda *values: _listed(f(*problem.fill(values))), *args[:n])
        return list(pull(list(args[n:])))

    return gradcheck(
        pullback, *primals, *cts, step=step, seed=seed, name=f"the gradient of {problem.name}"
    )


# ----------------------------------------------------------------------------- samples


class Sample(NamedTuple):
    """Operands (starred ones at the end) and attributes to try a primitive on.

    No two floats in it are closer than eight steps, and no kink is closer than four.
    """

    operands: tuple[Any, ...]
    attrs: dict[str, Any]
    step: float


def call(op: Any, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Call a primitive with its operands in a row, past its front."""
    n = len(op.operands)
    rest = [list(operands[n:])] if op.rest is not None else []
    return op.bare(*operands[:n], *rest, **attrs)


def _name(op: Any, i: int) -> str:
    return op.operands[i] if i < len(op.operands) else op.rest


def _kinks(op: Any, name: str, order: int) -> tuple[float, ...]:
    found: list[float] = []
    for key in ("kinks", "kinks_second")[:order]:
        kinks = op.data.get(key, ())
        found += kinks.get(name, ()) if isinstance(kinks, dict) else kinks
    return tuple(found)


def _domain(op: Any, name: str) -> Any:
    domain = op.data.get("domain")
    if isinstance(domain, dict):
        return domain.get(name, DOMAIN)
    kinks = _kinks(op, name, 2)
    return domain or (min(DOMAIN[0], *(k - 2.0 for k in kinks), 0.0),
                      max(DOMAIN[1], *(k + 2.0 for k in kinks), 0.0))  # fmt: skip


def make(
    op: Any, shapes: Sequence[Any], attrs: dict[str, Any], rng: np.random.Generator, order: int = 1
) -> Sample:
    """Draw operands of these shapes, away from ties and kinks by construction.

    The line is cut into cells; each element gets a cell of its own in its domain, none of them at
    a kink, and lies in the middle half of it. Nothing is drawn twice.

    Args:
        op: The primitive.
        shapes: A shape for each operand; None and lists stand for themselves.
        attrs: The attributes.
        rng: Where the numbers come from.
        order: 2 to stay away from jumps of the second derivative too.
    """
    names = [_name(op, i) for i in range(len(shapes))]
    whole = "f" not in op.data.get("dtypes", "f")
    floats = [
        i
        for i, s in enumerate(shapes)
        if isinstance(s, tuple) and not whole and isinstance(_domain(op, names[i]), tuple)
    ]
    total = sum(math.prod(shapes[i]) for i in floats)
    cell, cells = 0.25, {}
    while cell > 2.0**-12:
        for i in floats:
            low, high = _domain(op, names[i])
            centres = np.arange(math.ceil(low / cell), math.floor(high / cell)) + 0.5
            for kink in _kinks(op, names[i], order):
                centres = centres[np.abs(centres * cell - kink) >= cell]
            cells[i] = centres
        if all(len(c) >= total + 2 for c in cells.values()):
            break
        cell /= 2.0
    operands: list[Any] = [None] * len(shapes)
    used: set[float] = set()
    for i in sorted(floats, key=lambda i: len(cells[i])):
        free = np.array([c for c in cells[i] if c not in used])
        chosen = rng.choice(free, math.prod(shapes[i]), replace=False)
        used.update(chosen)
        values = cell * (chosen + rng.uniform(-0.25, 0.25, chosen.shape))
        operands[i] = (np.round(values / GRID) * GRID).reshape(shapes[i])
    for i, s in enumerate(shapes):
        if isinstance(s, tuple) and callable(draw := _domain(op, names[i])):
            operands[i] = np.round(draw(rng, s) / GRID) * GRID
        elif i not in floats and isinstance(s, tuple):
            operands[i] = rng.integers(0, 8, s) if whole else rng.integers(0, 2, s).astype(bool)
        elif s is not None and not isinstance(s, tuple):
            operands[i] = np.asarray(s)
    return Sample(tuple(operands), attrs, cell / 16.0)


SHAPES: dict[int, list[Any]] = {
    1: [((),), ((3,),), ((2, 3),), ((0,),)],
    2: [
        ((3, 1), (1, 4)), ((), ()), ((3,), (3,)), ((3,), ()), ((), (2,)), ((2, 3), (3,)),
        ((0,), (1,)), ((2, 1), (2, 3)), ((1,), (2, 0)),
    ],
    3: [
        ((3,), (3,), (3,)), ((), (), ()), ((3, 1), (1, 2), (1,)), ((2,), (), (2, 1)),
        ((0,), (1,), ()),
    ],
}  # fmt: skip


def attributes(op: Any) -> list[dict[str, Any]]:
    """The settings of the attributes under which an elementwise primitive is tested."""
    return list(op.data.get("variants", ())) or [dict(op.data.get("defaults_for_tests", {}))]


def cases(op: Any) -> list[tuple[Any, dict[str, Any]]]:
    """What a primitive is tried on: rows `(shapes, attributes)`.

    Raises:
        AssertionError: If it is not elementwise and has no `cases`.
    """
    given = [(tuple(shapes), dict(attrs)) for shapes, attrs in op.data.get("cases", ())]
    if not op.elementwise and not given:
        raise AssertionError(
            f"{op.name}: it is not elementwise, so its tests need cases=((operands, attributes), "
            "...), where an operand is a shape, or a list taken as it is"
        )
    if op.elementwise:
        n = len(op.operands)
        rows = SHAPES.get(n) or [((3,),) * n, ((),) * n, ((0,),) * n]
        given += list(itertools.product(rows, attributes(op)))
        lacking = [i for i, name in enumerate(op.operands) if name in op.signature.optional]
        for shapes, attrs in list(given[: len(rows)]) if lacking else ():
            for i in lacking:
                given.append((tuple(None if j == i else s for j, s in enumerate(shapes)), attrs))
    return given


def differentiable(op: Any, operands: Sequence[Any]) -> tuple[int, ...]:
    """The places of the operands that have a gradient formula and are float arrays."""
    return tuple(
        i
        for i, x in enumerate(operands)
        if isinstance(x, np.ndarray)
        and x.dtype.kind == "f"
        and ("*" in op.formulas or _name(op, i) in op.formulas)
    )


# ----------------------------------------------------------------------------- strategies


def samples(op: Any, order: int = 1) -> Any:
    """Give a hypothesis strategy for samples of a primitive: shapes, axes, attributes, values."""
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as arrays

    n = len(op.operands)
    rows = st.sampled_from(cases(op))
    if op.elementwise and n > 0:
        free = arrays.mutually_broadcastable_shapes(
            num_shapes=n, min_side=0, max_side=3, max_dims=3
        ).map(lambda drawn: drawn.input_shapes)
        rows |= st.tuples(free, st.sampled_from(attributes(op)))
    elif op.data.get("kind") == "reduction":
        shape = arrays.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3)
        rows |= shape.flatmap(lambda s: st.tuples(st.just((s,)), axes(len(s))))
    seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
    return st.builds(lambda row, rng: make(op, row[0], row[1], rng, order), rows, seeds)


def operands(op: Any, order: int = 1) -> Any:
    """Give a hypothesis strategy for the operands of an elementwise primitive.

    Shapes broadcast with each other (0-d, empty, (3, 1) with (1, 4), ...). Values lie in the
    primitive's domain, off its kinks, and no two are equal; by construction, nothing is rejected.
    """
    return samples(op, order).map(lambda sample: sample.operands)


def axes(ndim: int) -> Any:
    """Give a hypothesis strategy for `axis` (None, an integer, a tuple, `()`) and `keepdims`."""
    from hypothesis import strategies as st

    one = st.integers(-ndim, ndim - 1) if ndim else st.nothing()
    several = st.sets(st.integers(0, max(ndim - 1, 0)), max_size=ndim).flatmap(
        lambda chosen: st.tuples(*(st.sampled_from((a, a - ndim)) for a in sorted(chosen)))
    )
    return st.fixed_dictionaries(
        {"axis": st.none() | one | several, "keepdims": st.booleans()}
    )


def _read_only(x: np.ndarray) -> np.ndarray:
    out = x.copy()
    out.flags.writeable = False
    return out


def _spaced(x: np.ndarray) -> np.ndarray:
    out = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    out[...] = x
    return out


#: Ways to lay out an array (of one axis or more) in memory.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "every second": _spaced,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "0-d": lambda x: x[(0,) * x.ndim + (...,)],
    "read-only": _read_only,
}


def layouts(x: np.ndarray) -> Any:
    """Give a hypothesis strategy for the same array in other places and orders in memory.

    For stride 0 the first row is repeated, for 0-d the first element is taken: so compare with a
    copy of what is drawn.
    """
    from hypothesis import strategies as st

    spread = ("broadcast", "0-d", "every second")
    names = [name for name in LAYOUTS if (x.size and x.ndim) or name not in spread]
    return st.sampled_from(names).map(lambda name: LAYOUTS[name](x))


# ----------------------------------------------------------------------------- the kit


def _tensors(operands: Sequence[Any], wanted: Sequence[int] = ()) -> list[Any]:
    return [
        Tensor(x, requires_grad=i in wanted) if isinstance(x, np.ndarray) else x
        for i, x in enumerate(operands)
    ]


def results(op: Any, operands: Sequence[Any], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The results of a primitive on raw arrays, on the host."""
    with Switch(recording=False):
        return [_host(o) for o in _listed(call(op, _tensors(operands), attrs))]


def gradients(
    op: Any, operands: Sequence[Any], attrs: dict[str, Any], cts: Any = None, taped: bool = False
) -> list[np.ndarray]:
    """The gradients of <ct, result> (of the sum without `cts`), one per differentiable operand."""
    numbers = differentiable(op, operands)
    leaves = _tensors(operands, numbers)
    outs = _listed(call(op, leaves, attrs))
    cts = [np.ones(o.shape) for o in outs] if cts is None else cts
    seeds = [
        (o._node, Tensor(np.asarray(ct).astype(o.dtype)))
        for o, ct in zip(outs, cts, strict=True)
        if o._node is not None
    ]
    found = dict(reverse(seeds, taped=taped)) if seeds else {}
    return [
        _host(found[leaves[i]._node]) if leaves[i]._node in found else np.zeros_like(operands[i])
        for i in numbers
    ]


def cotangents(outs: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Random cotangents for results."""
    rng = np.random.default_rng(seed)
    return [_random(rng, np.shape(o)) for o in outs]


def _bound(op: Any, sample: Sample) -> Callable[..., Any]:
    smooth = op.data.get("smooth", lambda f: f)
    return smooth(lambda *tensors: call(op, tensors, sample.attrs))


def check_first(op: Any, sample: Sample) -> Checked:
    """First derivatives against finite differences."""
    numbers = differentiable(op, sample.operands)
    if not numbers:
        return Checked()
    return gradcheck(
        _bound(op, sample), *sample.operands, argnums=numbers, step=sample.step, name=op.name
    )


def check_second(op: Any, sample: Sample) -> Checked:
    """Second derivatives against finite differences of the first."""
    numbers = differentiable(op, sample.operands)
    if not numbers:
        return Checked()
    return gradgradcheck(
        _bound(op, sample), *sample.operands, argnums=numbers, step=sample.step, name=op.name
    )


def _close(x: np.ndarray, y: np.ndarray, ulps: float, whole: bool) -> bool:
    """Equal to so many units in the last place, of each element or of the largest one."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype.kind != "f" or not x.size:
        return np.array_equal(x, y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(all="ignore"):
        size = np.where(np.isfinite(y), np.abs(y), 0.0)
        size = np.minimum(size.max() if whole else size, 0.5 * np.finfo(x.dtype).max)
        gap = np.abs(x - y)
    return bool(np.all(same | (gap <= ulps * np.spacing(size.astype(x.dtype)))))


def check_paths(op: Any, sample: Sample) -> None:
    """The pass on raw arrays and the recorded pass give the same."""
    if not differentiable(op, sample.operands):
        return
    cts = cotangents(results(op, sample.operands, sample.attrs))
    raw = gradients(op, sample.operands, sample.attrs, cts)
    taped = gradients(op, sample.operands, sample.attrs, cts, taped=True)
    for i, a, b in zip(differentiable(op, sample.operands), raw, taped, strict=True):
        if not _close(a, b, 4.0 if op.elementwise else 16.0, not op.elementwise):
            raise AssertionError(
                f"{op.name}: operand {i}: the raw pass gave {a.tolist()}, the recorded pass "
                f"{b.tolist()}"
            )


def check_memory(op: Any, sample: Sample) -> None:
    """Forward writes to no operand, and gives no view of one without saying so (`view=True`)."""
    before = [np.array(x) for x in sample.operands]
    outs = _listed(call(op, [_wrapped(x) for x in sample.operands], sample.attrs))
    for i, (x, old) in enumerate(zip(sample.operands, before, strict=True)):
        if not isinstance(x, np.ndarray):
            continue
        if not _same_bits(np.array(x), old):
            raise AssertionError(f"{op.name}: forward wrote to operand {i}")
        for out in outs:
            if not (op.view and (i == 0 or op.outputs)) and np.shares_memory(out._array, x):
                raise AssertionError(
                    f"{op.name}: the result shares memory with operand {i}, and view=True is not "
                    "set"
                )


def check_dtypes(op: Any, sample: Sample, dtype: Any) -> None:
    """Low precision stays, in values and gradients, and agrees with float64."""
    dtype = np.dtype(dtype)
    if dtype.name not in op.data.get("precisions", ("float16", "float32")):
        return
    low = [x.astype(dtype) if _is_float(x) else x for x in sample.operands]
    high = [x.astype(np.float64) if _is_float(x) else x for x in low]
    outs, exact = (results(op, xs, sample.attrs) for xs in (low, high))
    cts = [ct.astype(np.float16).astype(np.float64) for ct in cotangents(exact)]
    length = max([_length(op, low, o) for o in outs], default=1.0)
    allowed = 32.0 * float(np.finfo(dtype).eps) * math.sqrt(length)
    for out, want in zip(outs, exact, strict=True):
        kept = sample.attrs.get("dtype", dtype if want.dtype == np.float64 else want.dtype)
        if out.dtype != kept:
            raise AssertionError(f"{op.name}: {dtype} operands gave {out.dtype}, not {kept}")
        _near(f"{op.name} in {dtype}: the value", out, want, allowed)
    if not differentiable(op, low):
        return
    pairs = zip(
        differentiable(op, low),
        gradients(op, low, sample.attrs, cts),
        gradients(op, high, sample.attrs, cts),
        strict=True,
    )
    for i, g, want in pairs:
        if g.dtype != dtype:
            raise AssertionError(f"{op.name}: the gradient of a {dtype} operand is {g.dtype}")
        _near(f"{op.name} in {dtype}: the gradient of operand {i}", g, want, allowed)


def _is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def _length(op: Any, operands: Sequence[Any], out: np.ndarray) -> float:
    """How many terms a sum in a primitive or its gradient may have."""
    sizes = [x.size for x in operands if _is_float(x) and x.size] or [1]
    if op.elementwise:
        return max(1.0, out.size / min(sizes))
    return float(max(out.size, *sizes, 1))


def _near(what: str, x: np.ndarray, want: np.ndarray, allowed: float) -> None:
    if not want.size:
        return
    gap = np.abs(x.astype(np.float64) - want)
    if not np.all((gap <= allowed * np.abs(want).max()) | (x == want)):
        raise AssertionError(f"{what} is {x.tolist()}, in float64 {want.tolist()}")


def check_layouts(op: Any, sample: Sample, layout: str) -> None:
    """The layout in memory changes no bit of an elementwise result.

    Where NumPy's own function gives other bits (its vectorised loops want contiguous memory), and
    for gradients and sums, a few units in the last place are allowed.
    """
    arrays = [x for x in sample.operands if isinstance(x, np.ndarray)]
    if not all(x.ndim and x.size for x in arrays):
        return
    if not op.elementwise and layout in ("broadcast", "0-d"):
        return
    laid = [LAYOUTS[layout](x) if isinstance(x, np.ndarray) else x for x in sample.operands]
    plain = [np.array(x, order="C") if isinstance(x, np.ndarray) else x for x in laid]
    reference = independent(op)
    steady = op.elementwise and reference is not None and np.array_equal(
        reference(*laid, **sample.attrs), reference(*plain, **sample.attrs)
    )  # fmt: skip
    outs, want = (
        [_host(o) for o in _listed(call(op, [_wrapped(x) for x in xs], sample.attrs))]
        for xs in (laid, plain)
    )
    for a, b in zip(outs, want, strict=True):
        if not _close(a, b, 0.0 if steady else 16.0, not op.elementwise):
            raise AssertionError(
                f"{op.name}, {layout} layout: {a.tolist()} instead of {b.tolist()}"
            )
    cts = cotangents(want)
    got, exact = (_laid_gradients(op, xs, sample.attrs, cts) for xs in (laid, plain))
    for a, b in zip(got, exact, strict=True):
        if not _close(a, b, 16.0, True):
            raise AssertionError(
                f"{op.name}, {layout} layout: gradient {a.tolist()} instead of {b.tolist()}"
            )


def _wrapped(x: Any) -> Any:
    return wrap(x) if isinstance(x, np.ndarray) else x


def _laid_gradients(op: Any, operands: Any, attrs: Any, cts: Any) -> list[np.ndarray]:
    """Gradients with respect to arrays as they lie (a Tensor would copy them)."""
    numbers = differentiable(op, operands)
    leaves = [_wrapped(x) for x in operands]
    for i in numbers:
        leaves[i].requires_grad_()
    outs = _listed(call(op, leaves, attrs))
    seeds = [(o._node, wrap(ct)) for o, ct in zip(outs, cts, strict=True) if o._node is not None]
    found = dict(reverse(seeds, taped=False)) if seeds else {}
    return [_host(found[leaves[i]._node]) for i in numbers if leaves[i]._node in found]


def check_conventions(op: Any) -> None:
    """Gradients at kinks and ties are exactly those of the table; finite, to second order too."""
    for case, values, attrs, wanted in op.data.get("conventions", ()):
        operands = tuple(np.array(v) if isinstance(v, list) else v for v in values)
        attrs = attributes(op)[0] | attrs
        numbers = differentiable(op, operands)
        for taped in (False, True):
            with np.errstate(all="ignore"):  # at a pole, as in 0 ** -1, NumPy warns
                found = gradients(op, operands, attrs, taped=taped)
            for i, want in enumerate(wanted):
                if want is None:
                    continue
                have = found[numbers.index(i)].tolist()
                if not np.array_equal(have, want, equal_nan=True):
                    raise AssertionError(f"{op.name}, {case}: gradient {i} is {have}, not {want}")
        finite = [w is None or bool(np.all(np.isfinite(w))) for w in wanted]
        plain = all(np.all(np.isfinite(x)) for x in operands if isinstance(x, np.ndarray))
        if all(finite) and plain:
            for i, second in zip(numbers, _second(op, operands, attrs), strict=True):
                if not np.all(np.isfinite(second)):
                    raise AssertionError(
                        f"{op.name}, {case}: the second derivative by operand {i} is "
                        f"{second.tolist()}"
                    )


def _second(op: Any, operands: Sequence[Any], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The gradients of the sum of all gradients of the sum."""
    numbers = differentiable(op, operands)
    leaves = _tensors(operands, numbers)
    outs = _listed(call(op, leaves, attrs))
    seeds = [(o._node, Tensor(np.ones(o.shape, o.dtype))) for o in outs if o._node is not None]
    first = [g for _, g in reverse(seeds, taped=True) if g._node is not None]
    again = [(g._node, Tensor(np.ones(g.shape, g.dtype))) for g in first]
    found = dict(reverse(again, taped=False)) if again else {}
    return [
        _host(found[leaves[i]._node]) if leaves[i]._node in found else np.zeros(leaves[i].shape)
        for i in numbers
    ]


def check_ties(op: Any, sample: Sample, seed: int = 0) -> None:
    """At kinks and ties the gradient stays between the slopes on both sides.

    Elements are set to very few values, so that many are equal, and to kinks. In each direction the
    gradient must lie between the one-sided derivatives: a tie that pays twice does not.
    """
    numbers = differentiable(op, sample.operands)
    rng = np.random.default_rng(seed)
    domains = [_domain(op, _name(op, i)) for i in numbers]
    if any(map(callable, domains)):
        return  # few values would not do
    low = max((d[0] for d in domains), default=0.0)
    high = min((d[1] for d in domains), default=0.0)
    common = (low + 0.25 * (high - low), 0.5 * (low + high))
    common = (0.0, 1.0) if low <= 0.0 and high >= 1.0 else common
    operands = list(sample.operands)
    for i, (a, b) in zip(numbers, domains, strict=True):
        choice = [*_kinks(op, _name(op, i), 1), *(c for c in common if low < high and a <= c <= b)]
        if choice:
            operands[i] = rng.choice(choice, operands[i].shape)
    if op.data.get("ordered") or not all(operands[i].size for i in numbers) or not numbers:
        return
    outs = results(op, operands, sample.attrs)
    cts = cotangents(outs, seed)
    found = gradients(op, operands, sample.attrs, cts)
    h = 2.0**-20
    for v in (*([s * np.ones(operands[i].shape) for i in numbers] for s in (1.0,)),
              *([_random(rng, operands[i].shape) for i in numbers] for _ in range(2))):  # fmt: skip
        moved = []
        for sign in (h, -h):
            xs = list(operands)
            for i, d in zip(numbers, v, strict=True):
                xs[i] = xs[i] + sign * d
            moved.append(results(op, xs, sample.attrs))
        lowest = highest = 0.0
        for out, up, down, ct in zip(outs, *moved, cts, strict=True):
            sides = np.stack([(up - out) * ct / h, (out - down) * ct / h])
            if np.abs(sides).max(initial=0.0) > 1e4:  # a jump, or an infinite slope
                return
            lowest += float(sides.min(axis=0).sum())
            highest += float(sides.max(axis=0).sum())
        have = sum(float((g * d).sum()) for g, d in zip(found, v, strict=True))
        slack = 1e-4 * (1.0 + abs(lowest) + abs(highest))
        if not lowest - slack <= have <= highest + slack:
            raise AssertionError(
                f"{op.name}: at a tie or kink, operands "
                f"{[np.asarray(x).tolist() for x in operands]}, the gradient says {have:.6g} "
                f"in a direction where the slopes on both sides are within {lowest:.6g} and "
                f"{highest:.6g}"
            )


def independent(op: Any) -> Callable[..., Any] | None:
    """Another way to compute the same: `reference`, or NumPy's function; None if there is none."""
    if "reference" in op.data:
        return op.data["reference"]
    if not op.numpy:
        return None
    return lambda *operands, **attrs: numpy_call(op, op.numpy[0], operands, attrs)


def numpy_call(op: Any, function: Any, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """Call NumPy's function for a primitive: lists of operands, required attributes by position."""
    if function is np.einsum:
        return function(attrs["subscripts"], *operands)
    required = [attrs[name] for name in op.attributes if op.defaults[name] is MISSING]
    optional = {name: v for name, v in attrs.items() if op.defaults[name] is not MISSING}
    listed = op.rest is not None if isinstance(op, Primitive) else op.listed
    return function(*([list(operands)] if listed else operands), *required, **optional)


def check_reference(op: Any, sample: Sample) -> None:
    """Values are those of the independent reference.

    Raises:
        AssertionError: If they differ, or if there is no reference.
    """
    reference = independent(op)
    if reference is None:
        raise AssertionError(
            f"{op.name}: its tests need a second opinion: numpy=, reference=, or stored data"
        )
    outs = results(op, sample.operands, sample.attrs)
    want = reference(*sample.operands, **sample.attrs)
    want = [np.asarray(w) for w in (want if op.outputs else [want])]
    tolerance = op.data.get("tolerance", 4.0)
    for out, w in zip(outs, want, strict=True):
        if not _close(out, w, tolerance if op.elementwise else 4.0 * tolerance, not op.elementwise):
            raise AssertionError(
                f"{op.name}: the value is {out.tolist()} ({out.dtype}), the reference says "
                f"{w.tolist()} ({w.dtype})"
            )


def check_stored(op: Any, entry: dict[str, Any]) -> None:
    """Values, and derivatives where they are given, are those of a stored table, without warnings.

    Where NumPy's own function warns, so may the primitive.
    """
    attrs = entry["attrs"]
    if "operands" in entry:
        return _check_row(op, entry)
    columns = entry["x"] if isinstance(entry["x"][0], list) else [entry["x"]]
    xs = [np.array([float.fromhex(v) for v in column]) for column in columns]
    want = np.array([float.fromhex(v) for v in entry["y"]])
    finite = np.all([np.isfinite(x) for x in xs], axis=0)
    overflows = finite & np.isinf(want)  # NumPy warns there, and so may we
    for chosen, allowed in ((~overflows, set()), (overflows, {"overflow"})):
        points = [x[chosen] for x in xs]
        allowed |= _warnings(op.numpy[0], *points) if op.numpy else set()
        extra = _warnings(lambda *given: results(op, given, attrs), *points) - allowed
        if extra:
            raise AssertionError(f"{op.name}: it warned on the stored points: {sorted(extra)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = results(op, xs, attrs)[0]
    tolerance = op.data.get("tolerance", 4.0)
    for i in range(len(want)):
        if not _close(out[i : i + 1], want[i : i + 1], tolerance, False):
            raise AssertionError(
                f"{op.name}({', '.join(repr(float(x[i])) for x in xs)}) with {attrs} is "
                f"{float(out[i])!r}; the reference says {float(want[i])!r}"
            )
    for name, slopes, floor in (("dy", gradients, 8.0), ("d2y", _second, 64.0)):
        if name not in entry:
            continue
        known = [i for i, v in enumerate(entry[name]) if v is not None]
        table = np.array([float.fromhex(entry[name][i]) for i in known])
        have = slopes(op, [xs[0][known]], attrs)[0]
        largest = np.abs(table).max()
        for i, h, w in zip(known, have, table, strict=True):
            if not abs(h - w) <= EPS * (16.0 * abs(w) + floor * max(largest, 0.5)):
                raise AssertionError(
                    f"{op.name}: the derivative {name} at {float(xs[0][i])!r} with {attrs} is "
                    f"{float(h)!r}; the reference says {float(w)!r}"
                )


def _check_row(op: Any, entry: dict[str, Any]) -> None:
    """One stored call: operands, attributes, value and gradients of the sum."""
    operands = [None if x is None else np.array(x) for x in entry["operands"]]
    attrs = entry["attrs"]
    where = f"{op.name} of {entry['operands']} with {attrs}"
    extra = _warnings(lambda: results(op, operands, attrs))
    if extra and not np.isnan(entry["y"]).any():
        raise AssertionError(f"{where}: it warned: {sorted(extra)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value, slopes = results(op, operands, attrs)[0], gradients(op, operands, attrs)
    if not _close(value, np.array(entry["y"]), op.data.get("tolerance", 16.0), True):
        raise AssertionError(f"{where} is {value.tolist()}; the reference says {entry['y']}")
    numbers = differentiable(op, operands)
    for i, have in zip(numbers, slopes, strict=True):
        want = entry["gradients"][i]
        if want is not None and not _close(have, np.array(want), 16.0, True):
            raise AssertionError(
                f"{where}: gradient {i} is {have.tolist()}; the reference says {want}"
            )


def _warnings(function: Callable[..., Any], *args: Any) -> set[str]:
    """Which floating-point warnings a call gives."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        function(*args)
    return {str(w.message).split(" encountered")[0] for w in seen}


def check_numpy(op: Any, sample: Sample) -> None:
    """NumPy's functions on Tensors give what the primitive gives, as Tensors."""
    for function in op.numpy:
        xs = _tensors(sample.operands)
        got = numpy_call(op, function, xs, sample.attrs)
        if not all(isinstance(o, Tensor) for o in (got if op.outputs else [got])):
            raise AssertionError(f"np.{function.__name__} gave no Tensor")
        want = results(op, sample.operands, sample.attrs)
        for a, b in zip(_listed(got), want, strict=True):
            if not _same_bits(np.array(_host(a)), np.array(b)):
                raise AssertionError(
                    f"np.{function.__name__} gave {_host(a).tolist()}, mg.{op.name} {b.tolist()}"
                )


def check_declaration(op: Any) -> None:
    """The data that tests and documentation need are there.

    Raises:
        AssertionError: Saying what is missing.
    """
    text = (op.__doc__ or "").strip()
    if not text.split("\n\n")[0].rstrip().endswith("."):
        raise AssertionError(f"{op.name}: the docstring's first sentence needs to end in a period")
    if op.formulas and op.elementwise and ":math:" not in text:
        raise AssertionError(f"{op.name}: its docstring has no formula (:math:`...`)")
    if op.data.get("recordable") is False and not op.data.get("why"):
        raise AssertionError(f"{op.name}: recordable=False needs a reason, why=")
    cases(op)


#: The properties that are tried on samples, by name.
PROPERTIES: dict[str, Callable[[Any, Sample], Any]] = {
    "first derivatives": check_first,
    "second derivatives": check_second,
    "raw and recorded passes": check_paths,
    "memory": check_memory,
    "float16": lambda op, sample: check_dtypes(op, sample, np.float16),
    "float32": lambda op, sample: check_dtypes(op, sample, np.float32),
    "ties and kinks": check_ties,
    "reference": check_reference,
    "NumPy's functions": check_numpy,
}


def check_primitive(op: Any, *, stored: Sequence[dict[str, Any]] = (), seed: int = 0) -> Checked:
    """Hold a primitive to everything that our own are held to.

    Derivatives to second order against finite differences, over shapes, broadcasting and the
    declared `cases`; ties and kinks; float16 and float32; layouts in memory; raw against recorded
    passes; memory and side effects; declared conventions; values against `numpy=`, `reference=` or
    the `stored` table.

    Args:
        op: The primitive, or its name.
        stored: Tables of values and derivatives, as in `tests/data/references.json`.
        seed: For the samples.

    Returns:
        How many derivatives were compared with finite differences, and how many weakly.

    Raises:
        AssertionError: Saying what is wrong, or which data are missing.

    Example:
        >>> import numpy as np
        >>> import microgradnd as mg
        >>> @mg.primitive(elementwise=True, reference=lambda x: x**3)
        ... def cubed(xp, x, /):
        ...     r"The cube, :math:`x^3`."
        ...     return x * x * x
        >>> cubed.vjp(x=lambda g, x: 3.0 * g * x * x)
        >>> mg.testing.check_primitive(cubed).weak
        0
    """
    op = (REGISTRY | COMPOSITES)[op] if isinstance(op, str) else op
    check_declaration(op)
    rng = np.random.default_rng(seed)
    done = Checked()
    for shapes, attrs in cases(op):
        for name, check in PROPERTIES.items():
            if name == "reference" and stored and independent(op) is None:
                continue
            sample = make(op, shapes, attrs, rng, 2 if name == "second derivatives" else 1)
            result = check(op, sample)
            if isinstance(result, Checked):
                done += result
        for layout in LAYOUTS:
            check_layouts(op, make(op, shapes, attrs, rng), layout)
    check_conventions(op)
    for entry in stored:
        check_stored(op, entry)
    return done
