"""Run the Python blocks of a Markdown file, in order, and compare what they print.

Blocks share one namespace, like a session. What a `print` gives stands as a comment behind it (a
comment in the same column below goes on), or in a `text` block right after the Python block, which
then holds everything that it prints. Three dots stand for anything. `>>>` blocks are doctests.

    python docs/tools/check_readme.py README.md
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)


def matches(wanted: str, got: str) -> bool:
    """Whether text is as wanted, but for white space and what three dots stand for."""
    parts = [re.escape(" ".join(part.split())) for part in wanted.split("...")]
    return re.fullmatch(r"\s*" + ".*".join(parts) + r"\s*", " ".join(got.split())) is not None


def comment_behind(lines: list[str], last: int) -> str | None:
    """The comment at the end of a line, with those that go on in its column."""
    line = lines[last]
    column = line.find("  # ")
    if column < 0:
        return None
    text = [line[column + 4 :]]
    for below in lines[last + 1 :]:
        if not (below.strip().startswith("#") and below.index("#") == column + 2):
            break
        text.append(below.strip().lstrip("# "))
    return "\n".join(text)


def run_block(code: str, names: dict[str, Any], where: str) -> tuple[str, list[str]]:
    """Run a block statement by statement: all that it printed, and what was not as announced."""
    lines, printed, wrong = code.splitlines(), [], []
    for statement in ast.parse(code).body:
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            exec(compile(ast.Module([statement], []), where, "exec"), names)
        printed.append(stream.getvalue())
        last = statement.end_lineno or statement.lineno
        wanted = comment_behind(lines, last - 1)
        shows = isinstance(statement, ast.Expr) and ast.unparse(statement).startswith("print(")
        if shows and wanted is not None and not matches(wanted, printed[-1]):
            wrong.append(f"{where}: {ast.unparse(statement)}\n  says {wanted!r}\n  printed "
                         f"{printed[-1].strip()!r}")  # fmt: skip
    return "".join(printed), wrong


def check(path: Path) -> list[str]:
    """Everything in a file that is not as it says."""
    text = path.read_text(encoding="utf-8")
    blocks = [(m.group(1), m.group(2), text.count("\n", 0, m.start()) + 2, m.end(), m.start())
              for m in FENCE.finditer(text)]  # fmt: skip
    names: dict[str, Any] = {"__name__": "__main__"}
    wrong, count = [], 0
    for i, (language, code, line, end, _) in enumerate(blocks):
        if language not in ("python", "pycon"):
            continue
        count += 1
        where = f"{path.name}:{line}"
        if code.lstrip().startswith(">>>"):
            out = io.StringIO()
            test = doctest.DocTestParser().get_doctest(code, names, where, str(path), line)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            runner.run(test, out=out.write, clear_globs=False)
            names |= test.globs
            wrong += [out.getvalue()] if runner.failures else []
            continue
        printed, problems = run_block(code, names, where)
        wrong += problems
        following = blocks[i + 1] if i + 1 < len(blocks) else None
        if (
            following is not None
            and following[0] == "text"
            and not text[end : following[4]].strip()
            and not matches(following[1], printed)
        ):
            wrong.append(f"{where}: the block printed\n{printed}\nand not\n{following[1]}")
    print(f"{path.name}: {count} blocks run, {len(wrong)} not as they say")
    return wrong if count else [*wrong, f"{path.name}: no Python block found"]


def main() -> int:
    """Check the files that are named."""
    wrong = []
    paths = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as scratch:  # whatever the examples save
        os.chdir(scratch)
        for path in paths:
            wrong += check(path)
        os.chdir(paths[0].parent)
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
