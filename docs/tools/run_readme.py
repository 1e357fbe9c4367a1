"""Run the Python blocks of README.md and compare what they print with what the page says.

The blocks run in order in one namespace. A block of `>>>` lines is a doctest. The output of any
other block must equal the `text` block that follows it directly, or be empty if none does. Such a
block may name itself in its first line (`# maxout.py`), so that messages which quote the user's
file and line read as they do for the reader. Links into the repository are followed too.
"""

from __future__ import annotations

import doctest
import io
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)[^)]*\)")


@dataclass
class Block:
    """A block of Python in the page, and the text that it should print."""

    line: int
    code: str
    output: str


def blocks(text: str) -> Iterator[Block]:
    """Give the Python blocks of a page with the text blocks that follow them."""
    fences = list(FENCE.finditer(text))
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        if fence[1] == "python":
            follows = after and after[1] == "text" and not text[fence.end() : after.start()].strip()
            line = text.count("\n", 0, fence.start()) + 2
            yield Block(line, fence[2], after[2] if after and follows else "")


def run(block: Block, names: dict[str, Any]) -> str:
    """Run one block; give what is wrong with it, or nothing."""
    if ">>> " in block.code:
        report = io.StringIO()
        test = doctest.DocTestParser().get_doctest(block.code, names, "README", "README.md", 0)
        test.globs = names  # the parser copies, but the next block goes on with these names
        test.lineno = block.line - 1
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        failed = runner.run(test, out=report.write, clear_globs=False).failed
        return report.getvalue() if failed else ""
    name = re.match(r"# (\S+\.py)\n", block.code)
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(block.code, name[1] if name else "README.md", "exec"), names)
    if output.getvalue() == block.output:
        return ""
    return f"README.md:{block.line} prints\n{output.getvalue()}and the page says\n{block.output}"


def missing_links(text: str) -> list[str]:
    """Give the links into the repository that lead nowhere."""
    return [link for link in LINK.findall(text) if not (ROOT / link).exists()]


def missing_message(text: str) -> list[str]:
    """Give the message for a CuPy that is not installed, unless the page quotes it as it is."""
    import microgradnd as mg
    from microgradnd.backend import cupy_backend

    there = sys.modules.get("cupy")
    sys.modules["cupy"] = None  # type: ignore[assignment]
    try:
        cupy_backend.load("MICROGRADND_BACKEND=cupy, but ")
    except mg.BackendError as error:
        return [] if str(error) in text else [str(error)]
    finally:
        del sys.modules["cupy"]
        if there is not None:
            sys.modules["cupy"] = there
    raise AssertionError("CuPy was hidden and found all the same")


def main() -> int:
    """Run the page; print what is wrong, and give 1 if anything is."""
    sys.path.insert(0, str(ROOT))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    found = list(blocks(text))
    with TemporaryDirectory() as folder, chdir(folder):  # the page writes files
        faults = [fault for block in found if (fault := run(block, names))]
    faults += [f"README.md links to {link}, which is not there" for link in missing_links(text)]
    faults += [f"README.md does not quote: {words}" for words in missing_message(text)]
    print("\n".join(faults) or f"README.md: {len(found)} blocks run as they say")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
