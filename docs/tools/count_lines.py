"""Count the package's lines of code: no docstrings, no comments, no blank lines.

    python docs/tools/count_lines.py            a table
    python docs/tools/count_lines.py --check    fail if it has grown over its bounds

The decorators of the operations, and the references that stand in them, are counted apart: samples,
kinks and second opinions are data for tests and documentation, and no operation runs them.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

import microgradnd as mg

PACKAGE = Path(mg.__file__).parent
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
#: Most operations take four to six lines; factorizations, convolutions and indices take more.
BOUNDS = {"an operation": 9.5, "engine and operations": 5500}
NETWORKS = {"nn", "optim", "data.py", "io.py", "train.py"}
TOOLS = {"testing.py", "cli.py", "tracing.py", "__main__.py"}


def code(source: str) -> tuple[int, int]:
    """How many lines have code, and how many of these are in decorators."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    decorators: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                decorators |= set(range(decorator.lineno, (decorator.end_lineno or 0) + 1))
    return len(lines), len(lines & decorators)


def family(path: Path) -> str:
    """Which part of the package a module belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    if first in NETWORKS:
        return "networks and training"
    if first == "diagnosis" or first in TOOLS:
        return "diagnosis" if first == "diagnosis" else "testing, tracing, commands"
    return "operations" if first == "ops" else "engine and backends"


def main() -> int:
    """Print the table; with --check, say what is over its bound."""
    lines: Counter[str] = Counter()
    declared = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        total, decorators = code(path.read_text(encoding="utf-8"))
        if family(path) == "operations":
            decorators = total if path.stem == "references" else decorators
            declared += decorators
            total -= decorators
        lines[family(path)] += total
    number = len(mg.REGISTRY) + len(mg.COMPOSITES)
    rows = [*lines.items(), ("what operations declare for tests", declared)]
    for name, count in rows:
        print(f"{count:6d}  {name}")
    print(f"{sum(count for _, count in rows):6d}  in all")
    found = {
        "an operation": lines["operations"] / number,
        "engine and operations": lines["operations"] + lines["engine and backends"],
    }
    print(f"{number} operations, {found['an operation']:.1f} lines of code each")
    over = [f"{k}: {found[k]:.1f} of at most {v}" for k, v in BOUNDS.items() if found[k] > v]
    print(*over, sep="\n")
    return bool(over) if "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    raise SystemExit(main())
