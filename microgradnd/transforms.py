"""Functions of functions: derivatives as JAX spells them, all of which nest.

Each argument is wrapped in a fresh node, and the pass walks only nodes that are not older; so an
outer derivative never mixes with an inner one (no perturbation confusion). If the graph reaches
an older node, the pass is itself recorded, and the result can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any

from .arraylike import cotangent
from .gradients import announce
from .inplace import storage_of
from .modes import MODE, Switch
from .random import default_generator
from .registry import REGISTRY
from .tape import Node, Tensor, pick_each, reverse, serial, wrap, wrap_gradient

# ----------------------------------------------------------------------------- trees


def flatten(tree: Any) -> tuple[list[Any], Callable[[Any], Any]]:
    """Take nested lists, tuples and dicts apart: the leaves, and how to put leaves back."""
    if isinstance(tree, dict):
        keys, parts = list(tree), [flatten(v) for v in tree.values()]
        build: Callable[[list[Any]], Any] = lambda vs: dict(zip(keys, vs, strict=True))  # noqa: E731
    elif isinstance(tree, (list, tuple)):
        parts = [flatten(v) for v in tree]
        kind = type(tree)
        build = (lambda vs: kind(*vs)) if hasattr(tree, "_fields") else kind
    else:
        return [tree], lambda leaves: leaves[0]

    def rebuild(leaves: Any) -> Any:
        rest, out = list(leaves), []
        for part, put in parts:
            out.append(put(rest[: len(part)]))
            rest = rest[len(part) :]
        return build(out)

    return [leaf for part, _ in parts for leaf in part], rebuild


def as_tensor(x: Any, where: str) -> Tensor:
    """Give a float Tensor, or say that no derivative exists."""
    tensor = x if isinstance(x, Tensor) else Tensor(x)
    if tensor.dtype.kind in "iub" and isinstance(x, int) and not isinstance(x, bool):
        tensor = Tensor(float(x))
    if tensor.dtype.kind != "f":
        raise TypeError(f"{where}: only float arguments have a derivative, got {tensor.dtype}")
    return tensor


def fresh(x: Tensor) -> Tensor:
    """The same values behind a new node, which the outer tape (if any) reaches."""
    if x._node is not None and MODE.get().recording:
        return REGISTRY["identity"](x)
    return wrap(x._array, Node(None, (), (), (), x.shape, x.dtype), x.detach()._storage)


def outer_nodes(roots: list[Node], since: int, stop: frozenset[int] = frozenset()) -> list[Node]:
    """The older nodes that a graph reaches from its roots, in order."""
    seen, stack, found = set(stop), list(roots), {}
    while stack:
        node = stack.pop()
        if node.serial in seen:
            continue
        seen.add(node.serial)
        if node.serial < since:
            found[node.serial] = node
        else:
            stack.extend(p for p in node.parents if p is not None)
    return [found[s] for s in sorted(found)]


def kept_versions(roots: list[Node], since: int) -> list[tuple[list[int], int]]:
    """The versions that the nodes of a graph noted of what they keep, down to `since`."""
    seen, stack, found = set(), list(roots), []
    while stack:
        node = stack.pop()
        if node.serial not in seen and node.serial >= since:
            seen.add(node.serial)
            found += node.guards
            stack.extend(p for p in node.parents if p is not None)
    return found


class Pullback:
    """One run of a function on fresh nodes, and how to pull cotangents back through it."""

    def __init__(self, function: Callable[..., Any], leaves: list[Tensor], call: Any):
        self.outer = MODE.get().recording
        self.since = serial()
        self.inputs = [fresh(x) for x in leaves]
        with Switch(recording=True):
            self.out = call(function, self.inputs)

    def __call__(self, outs: list[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
        """Give the gradient of every input; zeros where the outputs do not depend on it."""
        seeds = [(o._node, ct) for o, ct in zip(outs, cotangents, strict=True)
                 if o._node is not None and o._node.serial > self.since]  # fmt: skip
        targets = frozenset(x._node.serial for x in self.inputs)
        found = {}
        if seeds:
            nodes = [node for node, _ in seeds]
            taped = self.outer and (
                any(ct.requires_grad for ct in cotangents)
                or bool(outer_nodes(nodes, self.since))
            )
            for node, g in reverse(seeds, taped=taped, since=self.since, targets=targets):
                found[node.serial] = g
        inputs = [(x._node.serial, x) for x in self.inputs]
        return [found[number] if number in found else zeros_like(x) for number, x in inputs]


def zeros_like(x: Tensor) -> Tensor:
    """Give zeros of the same shape, dtype and backend, off the tape."""
    return wrap(x.backend.asarray(x.backend.xp.zeros_like(x._array)))


def value_and_grad(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Make a function that gives `f`'s value and its gradient.

    Args:
        f: A function with a scalar result (or `(scalar, aux)` with `has_aux`).
        argnums: Which positional arguments to differentiate; nested lists, tuples and dicts of
            tensors are differentiated leaf by leaf.
        has_aux: Whether `f` gives something else beside the scalar, which is handed on.

    Returns:
        A function giving `(value, gradient)`, or `((value, aux), gradient)`; gradients have the
        structure of the argument, in a tuple if `argnums` is one.

    Raises:
        TypeError: If an argument is not made of floats, or the result is not a scalar Tensor.
        ValueError: If the result has more than one element.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(lambda x: x**3)(2.0)
        (Tensor(8.), Tensor(12.))
        >>> mg.value_and_grad(mg.multiply, argnums=(0, 1))(2.0, 3.0)
        (Tensor(6.), (Tensor(3.), Tensor(2.)))
    """
    name = getattr(f, "__name__", "f")
    several = isinstance(argnums, (tuple, list))
    numbers = tuple(argnums) if isinstance(argnums, (tuple, list)) else (argnums,)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"grad of {name}: argnums {argnums} names an argument twice")

    @wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        for i in numbers:
            if not -len(args) <= i < len(args):
                raise ValueError(f"grad of {name}: argument {i} of {len(args)} does not exist")
        leaves, rebuild = flatten([args[i] for i in numbers])
        tensors = [as_tensor(x, f"grad of {name}") for x in leaves]

        def call(function: Any, inputs: list[Tensor]) -> Any:
            full = list(args)
            for i, value in zip(numbers, rebuild(inputs), strict=True):
                full[i] = value
            return function(*full, **kwargs)

        pull = Pullback(f, tensors, call)
        if has_aux and not (isinstance(pull.out, tuple) and len(pull.out) == 2):
            raise TypeError(f"grad of {name}: with has_aux it must give a pair (scalar, aux)")
        value, aux = pull.out if has_aux else (pull.out, None)
        value = value if isinstance(value, Tensor) else Tensor(value)
        if value.size != 1 or value.dtype.kind != "f":
            raise ValueError(
                f"grad of {name}: a scalar float result is wanted, got {value.dtype} of shape "
                f"{value.shape}; reduce it, or use vjp or jacobian"
            )
        one = wrap(value.backend.xp.ones_like(value._array))
        announce(value)
        gradients = rebuild(pull([value], [one]))
        value = settle(value, pull)
        result = tuple(gradients) if several else gradients[0]
        return ((value, settle(aux, pull)) if has_aux else value), result

    return run


def settle(tree: Any, pull: Pullback) -> Any:
    """Take results off the tape, unless an outer derivative still needs them there."""
    leaves, rebuild = flatten(tree)
    return rebuild([settled(x, pull.since, pull.outer) for x in leaves])


def settled(x: Any, since: int, outer: bool) -> Any:
    """Give a result off the tape, unless it reaches nodes older than `since` and they count."""
    if not isinstance(x, Tensor) or x._node is None or (outer and outer_nodes([x._node], since)):
        return x
    return x.detach()


def grad(
    f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Make a function that gives the gradient of `f` (see `value_and_grad`).

    Example:
        >>> import microgradnd as mg
        >>> mg.grad(lambda x: x**3)(2.0).item()
        12.0
        >>> mg.grad(mg.grad(lambda x: x**3))(2.0).item()
        12.0
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return run


def vjp(f: Callable[..., Any], *xs: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Run `f(*xs)`; give the result and `pull(ct)`, which gives one gradient per argument.

    `pull` may be called any number of times; arguments, result and cotangent may be trees.

    Raises:
        TypeError: If an argument is not made of floats.
        ValueError: If a cotangent does not have its result's shape.

    Example:
        >>> import microgradnd as mg
        >>> y, pull = mg.vjp(lambda x: x**2, mg.tensor([1.0, 2.0]))
        >>> y, pull(mg.tensor([1.0, 10.0]))
        (Tensor([1., 4.]), (Tensor([ 2., 40.]),))
    """
    leaves, rebuild = flatten(list(xs))
    tensors = [as_tensor(x, "vjp") for x in leaves]
    run = Pullback(f, tensors, lambda function, inputs: function(*rebuild(inputs)))
    outs, _ = flatten(run.out)
    outs = [o if isinstance(o, Tensor) else Tensor(o) for o in outs]

    def pull(ct: Any) -> tuple[Any, ...]:
        given, _ = flatten(ct)
        if len(given) != len(outs):
            raise ValueError(f"vjp: {len(outs)} cotangents are wanted, got {len(given)}")
        cts = [cotangent(g, o, "vjp") for g, o in zip(given, outs, strict=True)]
        return tuple(rebuild(run(outs, cts)))

    return settle(run.out, run), pull


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    r"""Give `f(*primals)` and its derivative in the direction of the tangents.

    The pull-back is linear in its cotangent, and its transpose is the push-forward: so this is
    the gradient, with respect to the cotangent, of :math:`\langle pull(ct), t\rangle`.

    Raises:
        ValueError: If there are not as many tangents as primals, or shapes differ.

    Example:
        >>> import microgradnd as mg
        >>> mg.jvp(lambda x: x**2, [mg.tensor([1.0, 2.0])], [mg.tensor([1.0, 10.0])])
        (Tensor([1., 4.]), Tensor([ 2., 40.]))
    """
    if not (isinstance(primals, (list, tuple)) and isinstance(tangents, (list, tuple))):
        raise TypeError("jvp: primals and tangents are tuples, one entry per argument of f")
    primals, tangents = list(primals), list(tangents)
    if len(primals) != len(tangents):
        raise ValueError(f"jvp: {len(primals)} primals but {len(tangents)} tangents")
    flat, _ = flatten(primals)
    directions = [
        cotangent(t, as_tensor(x, "jvp"), "jvp")
        for t, x in zip(flatten(tangents)[0], flat, strict=True)
    ]
    outer, since = MODE.get().recording, serial()
    with Switch(recording=True):  # the inner pass has to be recorded for the outer one
        out, pull = vjp(f, *primals)
    outs, rebuild = flatten(out)
    outs = [o if isinstance(o, Tensor) else Tensor(o) for o in outs]

    def along(*cts: Tensor) -> Tensor:
        gradients, _ = flatten(list(pull(rebuild(list(cts)))))
        total = 0.0
        for g, t in zip(gradients, directions, strict=True):
            total = total + (g * t).sum()
        return total  # type: ignore[return-value]

    zeros = [zeros_like(o) for o in outs]
    with Switch(recording=True):
        pushed = grad(along, argnums=tuple(range(len(zeros))))(*zeros)
    return (
        rebuild([settled(o, since, outer) for o in flatten(out)[0]]),
        rebuild([settled(p, since, outer) for p in pushed]),
    )


def hvp(f: Callable[..., Any], x: Any, v: Any) -> Any:
    r"""Give the Hessian of a scalar function times a vector, :math:`\nabla^2 f(x)\,v`.

    Costs a small multiple of one gradient; `x` and `v` may be trees.

    Example:
        >>> import microgradnd as mg
        >>> mg.hvp(lambda x: (x**3).sum(), mg.tensor([1.0, 2.0]), mg.tensor([1.0, 10.0]))
        Tensor([  6., 120.])
    """
    directions, _ = flatten(v)

    def along(x: Any) -> Tensor:
        gradients, _ = flatten(grad(f)(x))
        total = 0.0
        for g, t in zip(gradients, directions, strict=True):
            total = total + (g * cotangent(t, g, "hvp")).sum()
        return total  # type: ignore[return-value]

    return grad(along)(x)


def jacobian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    r"""Make a function that gives all derivatives :math:`\partial f_i / \partial x_j`.

    The result has the shape of `f`'s result followed by that of the argument; one reverse pass per
    element of the result.

    Example:
        >>> import microgradnd as mg
        >>> mg.jacobian(lambda x: x**2)(mg.tensor([1.0, 2.0])).tolist()
        [[2.0, 0.0], [0.0, 4.0]]
    """
    if not isinstance(argnums, int):
        raise TypeError(f"jacobian: argnums is the number of one argument, got {argnums!r}")

    def run(*args: Any, **kwargs: Any) -> Tensor:
        def of_one(x: Any) -> Any:
            full = list(args)
            full[argnums] = x
            return f(*full, **kwargs)

        if isinstance(args[argnums], dict):
            raise TypeError("jacobian: the argument is one array; vjp and grad take containers")
        x = as_tensor(args[argnums], "jacobian")
        out, pull = vjp(of_one, x)
        out = out if isinstance(out, Tensor) else Tensor(out)
        xp = out.backend.xp
        basis = xp.reshape(xp.eye(out.size, dtype=out.dtype), (out.size, *out.shape))
        rows = [pull(wrap(basis[i, ...]))[0] for i in range(out.size)]
        shape = (*out.shape, *x.shape)
        if not rows:
            return wrap(x.backend.xp.zeros(shape, dtype=x.dtype))
        return REGISTRY["reshape"](REGISTRY["stack"](rows), shape)

    return run


def hessian(f: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    r"""Make a function that gives all second derivatives of a scalar function.

    Example:
        >>> import microgradnd as mg
        >>> mg.hessian(lambda x: (x**3).sum())(mg.tensor([1.0, 2.0])).tolist()
        [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacobian(grad(f, argnums), argnums)


# ----------------------------------------------------------------------------- checkpoint


class Replay:
    """The operation of a checkpointed node: runs the function again when a gradient comes."""

    name = "checkpoint"
    elementwise = False
    operands: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, function: Callable[[], list[Tensor]], state: Any, single: bool):
        self.function, self.state = function, state
        self.outputs = not single

    def pull(self, node: Node, g: Any, xp: Any, taped: bool) -> list[tuple[Node, Any]]:
        """Run again with the same random numbers and pull the cotangents through."""
        generator, now = default_generator(), default_generator().state
        generator.state = self.state
        try:
            with Switch(recording=True):
                since = serial()
                outs = self.function()
        finally:
            generator.state = now
        cts = [h if taped else wrap_gradient(h) for h in (g if self.outputs else [g])]
        seeds = [(o._node, ct) for o, ct in zip(outs, cts, strict=True) if o._node is not None]
        targets = frozenset(p.serial for p in node.parents)
        with Switch(recording=taped):
            found = reverse(seeds, taped=taped, since=since, targets=targets)
        return [(n, gi if taped else gi._array) for n, gi in found]


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """Make `f` forget its intermediate values: backward runs it again and so needs less memory.

    Tensors that `f` takes from outside (parameters) get their gradients too, and random numbers
    from the default generator are drawn again as they were.

    Example:
        >>> import microgradnd as mg
        >>> mg.value_and_grad(mg.checkpoint(lambda x: (x**3).sum()))(mg.tensor([1.0, 2.0]))
        (Tensor(9.), Tensor([ 3., 12.]))
    """

    @wraps(f)
    def run(*xs: Any, **kwargs: Any) -> Any:
        state = default_generator().state
        since = serial()
        leaves, rebuild = flatten(f(*xs, **kwargs))
        outs = [o for o in leaves if isinstance(o, Tensor) and o._node is not None]
        parents = outer_nodes([o._node for o in outs], since)
        if not parents:
            return rebuild(leaves)

        def again() -> list[Tensor]:
            return [o for o, known in zip(flatten(f(*xs, **kwargs))[0], leaves, strict=True)
                    if isinstance(known, Tensor) and known._node is not None]  # fmt: skip

        op = Replay(again, state, len(outs) == 1)
        guards = [
            (version := storage_of(x).version, version[0])
            for x in flatten([xs, kwargs])[0]
            if isinstance(x, Tensor)
        ] + kept_versions([o._node for o in outs], since)
        if len(outs) == 1:
            o = outs[0]
            made = [wrap(o._array, Node(op, parents, (), guards, o.shape, o.dtype))]
        else:
            shapes, dtypes = [o.shape for o in outs], [o.dtype for o in outs]
            node = Node(op, parents, (), guards, shapes, dtypes)
            made = pick_each(node, [o._array for o in outs])
        watch = MODE.get().watch
        if watch is not None:
            node = made[0]._node if len(outs) == 1 else made[0]._node.parents[0]
            inputs = [x for x in flatten([xs, kwargs])[0] if isinstance(x, Tensor)]
            watch.record(node, inputs, made[0] if len(outs) == 1 else made, (), {})
        numbers = {id(o): m for o, m in zip(outs, made, strict=True)}
        return rebuild([numbers.get(id(o), o) for o in leaves])

    return run
