"""Write `cupy_contract.json`: what CuPy answers to the snippets of `tests/contract.py`.

On a machine with a GPU every line is asked anew:

    python tests/data/make_cupy_contract.py [--out FILE]

and the lines whose outcome has changed are printed. `--check` only compares, and ends with status 1
if a line differs. Without a device `--without-device` asks what CuPy answers there, and keeps the
other lines as they are; a new snippet gets the outcome null, for somebody to write down what
documentation and source say. Nothing but CuPy, NumPy and this repository is needed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

import contract  # noqa: E402

FILE = HERE / "cupy_contract.json"
OFTEN = 25  # answers between two writings: what was answered before a crash is kept


def versions(cupy: Any, device: bool) -> dict[str, Any]:
    """Give what the outcomes depend on, and the date."""
    runtime = cupy.cuda.runtime
    found = {
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cuda_driver": runtime.driverGetVersion() or None,
        "device": None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if device:
        name = runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
        found["device"] = name.decode() if isinstance(name, bytes) else name
    return found


def ask(
    answer: Any, old: dict[str, Any], source: str, keep: Any = lambda lines: None
) -> list[dict[str, Any]]:
    """Give the new lines: `answer(snippet)` with this source, or what was known before.

    Every `OFTEN` answers, `keep` gets all lines, the others as they were.
    """
    said = dict.fromkeys(contract.LINES)
    for n, snippet in enumerate(said, 1):
        said[snippet] = answer(snippet)
        if n % OFTEN == 0:
            keep(merge(said, old, source))
    return merge(said, old, source)


def merge(answers: dict[str, Any], old: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Give all lines: the answers with this source, and what was known before."""
    lines = []
    for snippet, line in contract.LINES.items():
        said = answers[snippet]
        if said is None:
            before = old.get(snippet, {"outcome": None, "source": ""})
            entry = {"outcome": before["outcome"], "source": line.known}
            if before["source"].startswith("CuPy") and " on " in before["source"]:
                entry["source"] = before["source"]
            elif line.where:
                entry["where"] = line.where
        else:
            entry = {"outcome": said, "source": source}
        if line.unspecified:
            entry["unspecified"] = True
        lines.append({"snippet": snippet, **entry})
    return lines


def changed(old: dict[str, Any], lines: list[dict[str, Any]]) -> list[str]:
    """Say which outcomes are not what they were."""
    return [
        f"{line['snippet']}\n    was {was['outcome']}\n    is  {line['outcome']}"
        for line in lines
        if (was := old.get(line["snippet"])) and was["outcome"] != line["outcome"]
    ]


def dump(found: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    """Give JSON with one line for each snippet."""
    rows = ",\n".join(f"  {json.dumps(line, ensure_ascii=False)}" for line in lines)
    return f'{{\n "versions": {json.dumps(found)},\n "lines": [\n{rows}\n ]\n}}\n'


def read(path: Path) -> dict[str, Any]:
    """Give the lines of a contract file by their snippets."""
    if not path.exists():
        return {}
    lines = json.loads(path.read_text(encoding="utf-8"))["lines"]
    return {line["snippet"]: line for line in lines}


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; the exit status is 0, 1 for a difference, 2 without a device."""
    parser = argparse.ArgumentParser(description="Ask CuPy what the contract says.")
    parser.add_argument("--out", type=Path, default=FILE, help="where to write (the file itself)")
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument(
        "--without-device", action="store_true", help="ask what CuPy answers without a device"
    )
    options = parser.parse_args(arguments)
    try:
        cupy, special, make = contract.real_cupy()
    except ImportError as error:
        print(f"CuPy cannot be imported: {error}", file=sys.stderr)
        return 2
    device = bool(cupy.cuda.runtime.driverGetVersion()) and cupy.is_available()
    if not device and not options.without_device:
        print(
            f"CuPy {cupy.__version__} finds no device here; --without-device asks the rest.",
            file=sys.stderr,
        )
        return 2
    found, old = versions(cupy, device), read(FILE)
    source = f"CuPy {cupy.__version__} " + (
        f"on {found['device']}" if device else contract.WITHOUT
    )

    def keep(lines: list[dict[str, Any]]) -> None:
        if not options.check:
            options.out.write_text(dump(found, lines), encoding="utf-8")

    lines = ask(
        lambda snippet: contract.outcome(snippet, cupy, special, make, device), old, source, keep
    )
    differences = changed(old, lines)
    for text in differences:
        print(text)
    answered = sum(line["source"] == source for line in lines)
    print(f"{answered} of {len(lines)} lines answered by {source}, {len(differences)} changed")
    for line in lines:
        if line["outcome"] is None:
            print(f"no outcome yet: {line['snippet']}")
    keep(lines)
    return int(options.check and bool(differences))


if __name__ == "__main__":
    sys.exit(main())
