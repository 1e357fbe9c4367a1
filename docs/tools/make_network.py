"""Write `docs/network.md`: modules, optimizers, data, training and checkpoints, from the source.

Names stand in the order in which the source defines them. What a public base class already says is
not said again: of a class only the methods are listed that are new with it.

    python docs/tools/make_network.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import is_dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from describe import ROOT, Parameter, docstring, emit, joined, markdown, report

#: The sections: the module, and where its public names are defined if not in it.
SECTIONS = {
    "nn": ["nn.module", "nn.layers", "nn.generated", "nn.summary"],
    "nn.functional": [],
    "nn.init": [],
    "nn.utils": [],
    "optim": ["optim.optimizer", "optim.algorithms"],
    "optim.lr_scheduler": [],
    "data": [],
    "train": [],
    "io": [],
    "random": [],
}
#: What users find in the package itself.
TOP = {"io": ("CheckpointError", "save", "load"), "random": ("manual_seed",)}


def public(section: str) -> dict[str, Any]:
    """The public names of a module in the order of their definitions."""
    module = import_module(f"microgradnd.{section}")
    homes = [import_module(f"microgradnd.{home}") for home in SECTIONS[section]] or [module]
    found = {name: thing for home in homes for name, thing in vars(home).items()}
    names = getattr(module, "__all__", None) or [
        name for name, thing in found.items()
        if getattr(thing, "__module__", "").startswith((module.__name__, "microgradnd.ops."))
        and callable(thing) and not name.startswith("_")
    ]  # fmt: skip
    wanted = {n for n in names if not isinstance(getattr(module, n), ModuleType)}
    if lost := wanted - set(found):
        raise LookupError(f"{section}: {sorted(lost)} are in none of {SECTIONS[section]}")
    wanted.update(TOP.get(section, ()))
    return {name: thing for name, thing in found.items() if name in wanted}


def signature(name: str, thing: Any, bound: bool = True) -> str:
    """The signature as it is read, without types; `bound` is False for a method with its self."""
    given = list(inspect.signature(thing).parameters.values())[0 if bound else 1 :]
    params = [Parameter(p.name, p.kind, p.default, "") for p in given]
    return f"{name}({', '.join(joined(params, lambda p: p.plain))})"


def summary(thing: Any) -> str:
    """The first line of a docstring."""
    return markdown(docstring(thing).partition("\n")[0])


def methods(cls: type) -> list[str]:
    """The methods and properties that are new with a class."""
    lines = []
    for name, thing in vars(cls).items():
        if name.startswith("_") or any(hasattr(base, name) for base in cls.__mro__[1:]):
            continue
        if isinstance(thing, property):
            lines.append(f"- `{name}`: {summary(thing)}")
        elif callable(thing) or isinstance(thing, (staticmethod, classmethod)):
            text = signature(name, getattr(cls, name), bound=not inspect.isfunction(thing))
            lines.append(f"- `{text}`: {summary(thing)}")
    return lines


def anchor(heading: str) -> str:
    """GitHub's name for a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def entry(name: str, thing: Any) -> str:
    """The part of one class, function or table."""
    if isinstance(thing, dict):
        return f"A dict with the keys {', '.join(f'`{key}`' for key in thing)}."
    parts = []
    if not is_dataclass(thing) and not (isinstance(thing, type) and issubclass(thing, Exception)):
        parts.append(f"`{signature(name, thing)}`")  # the others are made for the user
    parts.append(markdown(docstring(thing)))
    if isinstance(thing, type) and (listed := methods(thing)):
        parts.append("**Methods**\n\n" + "\n".join(listed))
    return "\n\n".join(parts)


def link(op: Any) -> str:
    """An operation, and where it is described."""
    return f"[`mg.{op.__name__}`](operations.md#{op.__name__})"


def table(rows: list[tuple[str, ...]]) -> str:
    """A table whose head is the first row."""
    rows = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def generated(classes: dict[str, Any]) -> dict[str, str]:
    """The classes that are made of operations, in tables."""
    out = {}
    for family in ("activations", "losses", "conv"):
        rows: list[tuple[str, ...]] = [("class", "arguments", "formula", "operation")]
        for name, cls in classes.items():
            if cls._op.__module__.endswith(family):
                arguments = signature("", cls)[1:-1]
                formula = summary(cls._op).replace("|", r"\vert ")  # a bar would end the cell
                arguments = f"`{arguments}`" if arguments else ""
                rows.append((f"`nn.{name}`", arguments, formula, link(cls._op)))
        out[f"nn: {'pooling' if family == 'conv' else family}"] = table(rows)
    return out


def spellings(functions: dict[str, Any]) -> dict[str, str]:
    """The operations that `nn.functional` has, under all their names there."""
    names: dict[str, list[str]] = {}
    for name, op in functions.items():
        names.setdefault(link(op), []).append(f"`{name}`")
    rows: list[tuple[str, ...]] = [("name", "operation")]
    rows += [(", ".join(names[op]), op) for op in names]
    return {"nn.functional: operations": table(rows)}


def part(section: str) -> str:
    """The section of one module."""
    entries: dict[str, str] = {}
    made: dict[str, Any] = {}
    for name, thing in public(section).items():
        if hasattr(thing, "_op") or ".ops." in getattr(thing, "__module__", ""):
            made[name] = thing
        else:
            name = name if name in TOP.get(section, ()) else f"{section}.{name}"
            entries[name] = entry(name, thing)
    if made:
        entries |= generated(made) if section == "nn" else spellings(made)
    links = ", ".join(f"[{name if ': ' in name else f'`{name}`'}](#{anchor(name)})"
                      for name in entries)  # fmt: skip
    parts = [f"### {name}\n\n{text}" for name, text in entries.items()]
    doc = markdown(docstring(import_module(f"microgradnd.{section}")))
    return "\n\n".join([f"\n## mg.{section}", doc, links, *parts]) + "\n"


def page() -> str:
    """The text of `network.md`."""
    links = "".join(f"- [mg.{section}](#{anchor(f'mg.{section}')})\n" for section in SECTIONS)
    text = (
        "# The network side\n\n"
        "Generated by `docs/tools/make_network.py` from signatures and docstrings; do not edit. "
        "Names are as behind `mg.`; the operations themselves are in "
        f"[operations.md](operations.md).\n\n{links}{''.join(map(part, SECTIONS))}"
    )
    if found := re.search(r".* at 0x[0-9a-f]+.*", text):
        raise ValueError(f"an address, which is another in each run: {found[0]}")
    return text


if __name__ == "__main__":
    written = emit(ROOT / "docs" / "network.md", page(), "--check" in sys.argv[1:])
    raise SystemExit(report([written], "make_network.py"))
