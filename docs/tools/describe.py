"""What the registry says about each primitive: its public signature, its formulas, their source.

The stub, the page of operations and the page of conventions are made from this. `emit` writes a
generated file, or with `--check` says that it has drifted.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import microgradnd as mg

ROOT = Path(mg.__file__).resolve().parents[1]  # of what is described, so also of what is written
EMPTY = inspect.Parameter.empty
STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}

#: Types of parameters by name, where neither an annotation nor the default says more.
TYPES = {
    "axes": "int | Sequence[int] | None",
    "condition": "Operand",
    "destination": "int | Sequence[int]",
    "dtype": "DTypeLike",
    "generator": "Generator | None",
    "index": "Any",
    "indices": "Operand",
    "key": "tuple[Any, ...]",
    "max": "Operand | None",
    "min": "Operand | None",
    "a_max": "Operand | None",
    "a_min": "Operand | None",
    "ord": "int | str | None",
    "order": "int | Sequence[int] | None",
    "pieces": "int",
    "axis1": "int",
    "axis2": "int",
    "sections": "int | Sequence[int]",
    "shape": "int | Sequence[int]",
    "sizes": "int | Sequence[int]",
    "source": "int | Sequence[int]",
    "subscripts": "str",
    "threshold": "float",
    "value": "Operand",
    "xs": "Sequence[Operand]",
}


def literal(value: Any) -> str:
    """A default as it is written in our source, text in double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


@dataclass
class Parameter:
    """One parameter of a public signature."""

    name: str
    kind: Any
    default: Any
    annotation: str

    def __str__(self) -> str:
        text = f"{STARS.get(self.kind, '')}{self.name}: {self.annotation}"
        return text if self.default is EMPTY else f"{text} = {literal(self.default)}"

    @property
    def plain(self) -> str:
        """The parameter without its type."""
        text = STARS.get(self.kind, "") + self.name
        return text if self.default is EMPTY else f"{text}={literal(self.default)}"


def _annotation(op: Any, p: inspect.Parameter, operand: bool) -> str:
    if p.annotation is not EMPTY:
        return p.annotation if isinstance(p.annotation, str) else p.annotation.__name__
    if operand or p.name in op_names(op):
        return "Operand" if p.default is EMPTY else "Operand | None"
    if p.name == "axis":
        many = isinstance(op, mg.Primitive) and (op.view or op.data.get("kind") == "reduction")
        several = "int | Sequence[int]" if many else "int"
        return several + (" | None" if p.default is None else "")
    if p.name == "xs" and p.kind is p.VAR_POSITIONAL:
        return "Operand"
    if p.name in TYPES:
        maybe = " | None" if p.default is None and "None" not in TYPES[p.name] else ""
        return TYPES[p.name] + maybe
    if isinstance(p.default, (bool, int, float, str)):
        return type(p.default).__name__
    return "Any"


def op_names(op: Any) -> tuple[str, ...]:
    """Names that are operands: of a primitive those of its forward, of a composite x and y."""
    return op.operands if isinstance(op, mg.Primitive) else ("x", "y", "a", "b")


def parameters(op: Any) -> list[Parameter]:
    """The public parameters of a primitive or composite: those of its front where it has one."""
    if not isinstance(op, mg.Primitive) or op.front is not None:
        given = list(inspect.signature(getattr(op, "front", op) or op).parameters.values())
    else:
        given = []
        for p in list(inspect.signature(op.forward).parameters.values())[1:]:
            if p.kind is p.VAR_POSITIONAL:
                p = p.replace(kind=p.POSITIONAL_OR_KEYWORD, annotation="Sequence[Operand]")
            elif p.kind is p.POSITIONAL_ONLY or op.rest is not None:
                p = p.replace(kind=p.POSITIONAL_OR_KEYWORD)
            given.append(p)
    return [
        Parameter(p.name, p.kind, p.default, _annotation(op, p, p.name in op_names(op)))
        for p in given
    ]


def returns(op: Any) -> str:
    """The type of the result."""
    forward = op.forward if isinstance(op, mg.Primitive) else op
    said = forward.__annotations__.get("return")
    return said or ("list[Tensor]" if getattr(op, "outputs", False) else "Tensor")


def joined(params: Iterable[Parameter], show: Callable[[Parameter], str]) -> list[str]:
    """Parameters as text, with the star that begins the keyword-only ones."""
    out: list[str] = []
    starred = False
    for p in params:
        if p.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            out.append("*")
        starred = starred or p.kind in (p.kind.VAR_POSITIONAL, p.kind.KEYWORD_ONLY)
        out.append(show(p))
    return out


def public(op: Any) -> str:
    """The name by which users call it: `tanh`, `linalg.inv`."""
    name, space = op.__name__, op.data.get("space")
    return f"{space}.{name}" if space and name in getattr(mg, space).__all__ else name


def anchor(op: Any) -> str:
    """The place of its section on the page of operations."""
    return public(op).replace(".", "")


def call(op: Any) -> str:
    """The signature as it is read: `maxout(x, pieces, axis=-1)`."""
    return f"{public(op)}({', '.join(joined(parameters(op), lambda p: p.plain))})"


def docstring(op: Any) -> str:
    """The docstring without indentation."""
    return inspect.cleandoc(op.__doc__ or "")


def markdown(text: str) -> str:
    """A docstring as Markdown: sections as lists, mathematics as GitHub writes it."""
    text, _, example = text.partition("\nExample:\n")
    text = re.sub(r":math:`([^`]*)`", lambda m: f"$`{' '.join(m[1].split())}`$", text)
    text = re.sub(r"^([A-Z][a-z ,]+):\n((?:    .*(?:\n|$))+)", _section, text.rstrip(), flags=re.M)
    return text + (f"\n\n```python\n{dedent(example).strip()}\n```" if example else "")


def _section(found: re.Match[str]) -> str:
    """Entries as a list; other lines moved out, since four spaces would make them code."""
    body = re.sub(r"^    (\*{0,2}\w+(?:, \w+)*): ", r"- `\1`: ", found[2], flags=re.M)
    return f"**{found[1]}**\n\n" + re.sub(r"^    (?=\S)", "", body, flags=re.M)


def module_of(op: Any) -> ModuleType:
    """The module that declares a primitive or composite."""
    return sys.modules[op.__module__]


# ----------------------------------------------------------------------------- source


@cache
def tree(module: ModuleType) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(inspect.getsource(module))


def attached(op: Any, attribute: str = "vjp") -> dict[str, ast.expr]:
    """The formulas in the source: what `op.vjp(...)`, `op.vjp_all(...)` were called with."""
    for node in ast.walk(tree(module_of(op))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == attribute
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == op.name
        ):
            everything = {"*": node.args[0]} if node.args else {}
            return everything | {k.arg or "": k.value for k in node.keywords}
    return {}


def helpers(op: Any, node: ast.AST) -> dict[str, Callable[..., Any]]:
    """The functions of `ops` that a formula calls by name, and those that they call in turn."""
    found: dict[str, Callable[..., Any]] = {}
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    scope = op.forward.__globals__
    while names:
        name = names.pop()
        function = scope.get(name)
        if name in found or not inspect.isfunction(function):
            continue
        if not function.__module__.startswith(op.__module__.rpartition(".")[0]):
            continue
        found[name] = function
        scope = {**function.__globals__, **scope}
        names += [n for n in function.__code__.co_names if n in function.__globals__]
    return dict(sorted(found.items()))


# ----------------------------------------------------------------------------- files


def emit(path: Path, text: str, check: bool) -> bool:
    """Write a generated file or, when checking, print how it differs; says whether it is right."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return True
    if old == text:
        return True
    name = path.name
    lines = difflib.unified_diff(
        old.splitlines(), text.splitlines(), f"{name} (committed)", f"{name} (generated)", n=1,
        lineterm="",
    )  # fmt: skip
    print("\n".join(list(lines)[:60]))
    return False


def report(results: Iterable[bool], script: str) -> int:
    """The exit status of a generator; in case of drift with the command that mends it."""
    if all(list(results)):
        return 0
    print(f"\ndrift: run `python docs/tools/{script}` and commit what it writes")
    return 1
