"""Write the tables of `docs/diagnosis.md`: findings, thresholds, remedies, and the functions.

What stands above the mark in the page is written by hand; what is below is made from the rules, the
thresholds, the catalogue of texts and the docstrings.

    python docs/tools/make_diagnosis.py [--check]
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from textwrap import dedent
from typing import Any

from describe import ROOT, docstring, emit, markdown, report
from make_network import entry, table
from microgradnd import diagnosis
from microgradnd.diagnosis import rules
from microgradnd.diagnosis.catalogue import number, texts
from microgradnd.diagnosis.facts import Facts
from microgradnd.diagnosis.thresholds import Thresholds

PAGE = ROOT / "docs" / "diagnosis.md"
MARK = "<!-- Generated from here on by docs/tools/make_diagnosis.py; do not edit. -->\n"
PARTS = ("data, loss and loop", "before the first step", "in training", "at the end",
         "the training result", "the test result")  # fmt: skip
LIMITS = {field.name for field in fields(Thresholds)}


def tree(thing: Any) -> ast.AST:
    """The syntax tree of a function or property."""
    function = getattr(thing, "func", None) or getattr(thing, "fget", None) or thing
    return ast.parse(dedent(inspect.getsource(function)))


def reached(function: Callable[..., Any]) -> Iterator[ast.AST]:
    """The syntax of a rule, of what it calls in its module, and of the facts that it asks for.

    Whether the training result is bad is a rule of its own, and is not followed elsewhere.
    """
    waiting, seen = [function], set[str]()
    while waiting:
        for node in ast.walk(tree(waiting.pop(0))):
            yield node
            name, found = "", None
            if isinstance(node, ast.Name):
                name, found = node.id, vars(rules).get(node.id)
                found = found if inspect.isfunction(found) else None
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("facts", "self"):
                name, found = node.attr, vars(Facts).get(node.attr)
            skipped = name == "bad" and function is not rules.train_bad
            if found is not None and name not in seen and not skipped:
                seen.add(name)
                waiting.append(found)


def finding(part: int, function: Callable[..., Any]) -> tuple[str, ...]:
    """The row of one rule: part, code, meaning, thresholds, remedies."""
    nodes = list(reached(function))
    words = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    code = next(word for word in words if word in texts("en")["finding"])
    limits = [n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr in LIMITS
              and ast.unparse(n.value) in ("t", "facts.t", "self.t")]  # fmt: skip
    chinese = texts("zh")["finding"][code]["title"]
    return (PARTS[part], f"`{code}` {chinese}", docstring(function).rstrip("."),
            ", ".join(f"`{name}`" for name in dict.fromkeys(limits)))  # fmt: skip


def findings() -> str:
    """The table of all rules."""
    head = ("asked for", "finding", "what it means", "thresholds")
    return cells([head, *(finding(part, function) for part, function in rules.RULES)])


def cells(rows: list[tuple[str, ...]]) -> str:
    """A table; a bar in a cell would end it."""
    return table([tuple(cell.replace("|", "\\|") for cell in row) for row in rows])


def thresholds() -> str:
    """The table of all numbers."""
    rows = [(f"`{name}`", number(value), meaning, source)
            for name, value, meaning, source in Thresholds().table()]  # fmt: skip
    return cells([("threshold", "default", "meaning", "source"), *rows])


def remedies() -> str:
    """The table of all remedies, by their keys, as their plainest text says it."""
    rows = [(f"`{key}`", plainest(lines), plainest(texts("zh")["remedy"][key]))
            for key, lines in texts("en")["remedy"].items()]  # fmt: skip
    return cells([("key", "English", "中文"), *rows])


def plainest(lines: list[str]) -> str:
    """The last of the variants, which needs no field, without what is optional in it."""
    return lines[-1].partition("[[")[0]


def functions() -> str:
    """All public names, with their docstrings."""
    found = {name: getattr(import_module(f"microgradnd.diagnosis.{module}"), name)
             for module, names in diagnosis._WHERE.items() for name in names}  # fmt: skip
    return "\n\n".join(f"### diagnosis.{name}\n\n{entry(f'diagnosis.{name}', found[name])}"
                       for name in sorted(found))  # fmt: skip


def generated() -> str:
    """All that stands below the mark."""
    return "\n".join([
        "\n## Findings\n",
        "In the order in which they are asked for. A fault explains what comes in a later part; a "
        "fault that nothing explains is a *root*, and the first root is the cause to name.\n",
        findings(),
        "\n## Thresholds\n", markdown(docstring(Thresholds).partition("\n\nExample")[0]) + "\n",
        thresholds(),
        "\n## Remedies\n", remedies(),
        "\n## Functions and classes\n", functions() + "\n",
    ])  # fmt: skip


if __name__ == "__main__":
    above, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE} has no line {MARK}")
    written = emit(PAGE, above + mark + generated(), "--check" in sys.argv[1:])
    raise SystemExit(report([written], "make_diagnosis.py"))
