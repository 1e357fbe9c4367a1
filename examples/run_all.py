"""Run the examples as a reader would, each in a process of its own, and compare with the page.

    python examples/run_all.py                 each once; CI does this
    python examples/run_all.py --seeds 5       each for five seeds; the nightly check
    python examples/run_all.py --update        write numbers and pictures into examples/README.md

An example fails if its claim does not hold, if it draws no picture, or if `README.md` quotes
numbers that are not those of seed 0: to 0.05, or a quarter of what is above 1; within a factor of
ten where they are tiny.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "README.md"
PICTURES = HERE.parent / "docs" / "images" / "lesson"
LIMIT = 20.0  # seconds on two idle cores; said, not asserted
TINY = 1e-3


def run(script, seed, folder):
    """Run one example in a folder; gives its output, and the seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), "--seed", str(seed)], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
        env=os.environ | {"MPLBACKEND": "Agg"},
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}:\n{done.stdout[-2000:]}")
    picture = Path(folder) / f"{script.stem}.png"
    if not picture.exists() or picture.read_bytes()[:4] != b"\x89PNG":
        raise RuntimeError(f"no picture:\n{done.stdout[-2000:]}")
    return done.stdout, seconds


def headline(output):
    """Give the numbers that an example prints for the page."""
    line = next(line for line in output.splitlines() if line.startswith("headline: "))
    return json.loads(line.removeprefix("headline: "))


def shown(value):
    """A number as it stands on the page."""
    if not isinstance(value, float):
        return str(value)
    small = value != 0 and (abs(value) < TINY or abs(value) >= 1e5)
    return f"{value:.1e}" if small else f"{value:.3f}".rstrip("0").rstrip(".")


def cell(numbers):
    """The numbers of an example as a cell of the table."""
    return "; ".join(f"{name}: {shown(value)}" for name, value in numbers.items())


def close(have, want):
    """Whether two numbers are the same for a reader."""
    if max(abs(have), abs(want)) < TINY:
        return have == want or (have * want > 0 and 0.1 <= have / want <= 10.0)
    return abs(have - want) <= (0.25 * abs(want) if abs(want) > 1.0 else 0.05)


def rows():
    """Give the page's lines that name a command, `{script: line number}`."""
    found = {}
    for i, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines()):
        for name in re.findall(r"`python examples/(\w+\.py)`", line):
            found.setdefault(name, []).append(i)
    return found


def compare(name, numbers):
    """Raise if the page quotes other numbers for an example."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    places = rows().get(name)
    if not places:
        raise RuntimeError("README.md has no row for it")
    if not (PICTURES / name.replace(".py", ".png")).exists():
        raise RuntimeError("its picture is not among those of README.md; use --update")
    quoted = [c.strip() for i in places for c in lines[i].split("|")]
    for key, value in numbers.items():
        said = [c for line in quoted for c in line.split("; ") if c.startswith(f"{key}: ")]
        if len(said) != 1:
            raise RuntimeError(f"README.md says {key!r} {len(said)} times, not once")
        text = said[0].removeprefix(f"{key}: ")
        if isinstance(value, (int, float)):
            if not close(float(value), float(text)):
                raise RuntimeError(f"README.md says {said[0]!r}, it is {shown(value)}")
        elif text != str(value):
            raise RuntimeError(f"README.md says {said[0]!r}, it is {value}")


def update(name, numbers, picture):
    """Write an example's numbers into its rows, and keep its picture."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    shutil.copy(picture, PICTURES / picture.name)
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for i in rows().get(name, ()):
        cells = lines[i].split("|")
        for j, text in enumerate(cells):
            # A row quotes the numbers whose names stand there already; {} asks for all of them.
            names = [part.strip().rpartition(": ")[0] for part in text.split(";")]
            if text.strip() == "{}":
                cells[j] = f" {cell(numbers)} "
            elif any(n in numbers for n in names):
                cells[j] = f" {cell({n: numbers[n] for n in names if n in numbers})} "
        lines[i] = "|".join(cells)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(argv=None):
    """Run, print a line for each, and give 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all examples if none")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 on")
    parser.add_argument("--update", action="store_true", help="write into README.md")
    options = parser.parse_args(argv)
    scripts = [s for s in sorted(HERE.glob("[0-9][0-9]_*.py"))
               if not options.names or any(n in s.name for n in options.names)]  # fmt: skip
    failed = [f"{name}, of README.md" for name in rows() if not (HERE / name).exists()]
    for name in failed:
        print(f"{name}: there is no such file")
    for script in scripts:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    output, seconds = run(script, seed, folder)
                    numbers = headline(output)
                    if seed == 0 and options.update:
                        update(script.name, numbers, Path(folder) / f"{script.stem}.png")
                    elif seed == 0:
                        compare(script.name, numbers)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed.append(f"{script.name}, seed {seed}")
                    print(f"{script.name:28} seed {seed}  FAILED: {error}", flush=True)
                    continue
            slow = f"  more than {LIMIT:.0f} s" if seconds > LIMIT else ""
            print(f"{script.name:28} seed {seed}  {seconds:5.1f} s  {cell(numbers)}{slow}",
                  flush=True)  # fmt: skip
    print(f"{len(scripts) * options.seeds} runs, failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
