"""Run the examples as a reader would, each in a process of its own, and compare with the page.

    python examples/run_all.py                 each once; CI does this
    python examples/run_all.py --seeds 5       each for five seeds; the nightly check
    python examples/run_all.py --update        write numbers and pictures into examples/README.md
    python examples/run_all.py --standin       each as on a GPU, on the tests' stand-in for CuPy

An example fails if its claim does not hold, if it draws no picture, or if `README.md` quotes
numbers that are not those of seed 0: to 0.05, or a quarter of what is above 1; within a factor of
ten where they are tiny.

On the stand-in the claims are the same, and the numbers may be twice as far from the page, for sums
are rounded in another order: on NumPy already, one unit in the last place of one weight moves the
accuracy of 30 ReLU layers (04) between 0.89 and 0.96. There an example also fails if a training
step (from `zero_grad` to the optimizer's `step`) copies anything between host and device or waits
for the device, or if the script reads a number after more than one step in ten.
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE / "README.md"
PICTURES = HERE.parent / "docs" / "images" / "lesson"
LIMIT = 20.0  # seconds on two idle cores; said, not asserted
TINY = 1e-3

PRETEND = HERE.parent / "tests" / "pretend"
#: Where the host waits after every step, and why that is meant.
READS = {
    "00_why_activations.py": "an epoch is one step there, and fit's history has a row per epoch",
}
#: Where a recorder looks closely at some steps, while they are made.
LOOKS = frozenset({"13_diagnose_everything.py"})
#: What takes minutes on the stand-in, where these run only by name: convolutions, and the diagnosis
#: (whose tests run on it anyway).
LONG = LOOKS | {"18_conv_maxout_digits.py"}


def run(script, seed, folder, standin=False):
    """Run one example in a folder; gives its output, and the seconds.

    On the stand-in, what its steps did is in `steps.json` then.
    """
    began = time.perf_counter()
    command, settings = [script, "--seed", seed], {"MPLBACKEND": "Agg"}
    if standin:
        command = [PRETEND / "count_steps.py", "steps.json", *command]
        path = [PRETEND, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        settings |= {"MICROGRADND_BACKEND": "cupy", "OPENBLAS_NUM_THREADS": "1",
                     "PYTHONPATH": os.pathsep.join(str(p) for p in path if p)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
        env=os.environ | settings,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}:\n{done.stdout[-2000:]}")
    pictures = list(Path(folder).glob("*.png"))
    if not pictures or pictures[0].read_bytes()[:4] != b"\x89PNG":
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


def close(have, want, slack=1.0):
    """Whether two numbers are the same for a reader."""
    if max(abs(have), abs(want)) < TINY:
        return have == want or (have * want > 0 and 0.1 <= have / want <= 10.0)
    return abs(have - want) <= slack * (0.25 * abs(want) if abs(want) > 1.0 else 0.05)


def rows():
    """Give the page's lines that name a command, `{script: line number}`."""
    found = {}
    for i, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines()):
        for name in re.findall(r"`python examples/(\w+\.py)`", line):
            found.setdefault(name, []).append(i)
    return found


def compare(name, numbers, slack=1.0):
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
            if not close(float(value), float(text), slack):
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


def traffic(name, steps):
    """Raise if an example's training steps had traffic with the device; give a row of the table."""
    inside = steps["inside"]
    if any(inside.values()) and name not in LOOKS:
        where = ", ".join(f"{line} ({n} times)" for line, n in steps["lines"].items())
        raise RuntimeError(f"traffic within training steps: {inside}, from {where}")
    if steps["waits between"] > steps["steps"] / 10 and name not in READS:
        raise RuntimeError(f"numbers are read after {steps['waits between']} of the "
                           f"{steps['steps']} training steps: it should be few")  # fmt: skip
    return (name, steps["steps"], steps["launches"], *inside.values(), steps["waits between"],
            steps["between"]["uploads"])  # fmt: skip


def pretended(script):
    """Run one example as on a GPU; give a row of the table, its numbers, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        output, seconds = run(script, 0, folder, standin=True)
        steps = json.loads((Path(folder) / "steps.json").read_text(encoding="utf-8"))
        if script.name == "quickstart.py":
            numbers, (other, _) = correct(output), run(script, 0, folder)
            if not close(numbers["test accuracy"], correct(other)["test accuracy"]):
                raise RuntimeError(f"{numbers}, but on NumPy {correct(other)}")
        else:
            numbers = headline(output)
            compare(script.name, numbers, slack=2.0)
    return traffic(script.name, steps), numbers, seconds


def correct(output):
    """Give what the quickstart prints of the test."""
    return {"test accuracy": float(re.search(r"test accuracy: +([.\d]+)", output)[1])}


def on_standin(names):
    """Run examples on the stand-in, some side by side; print, and give 1 if one failed."""
    scripts = [s for s in [*HERE.glob("[0-9][0-9]_*.py"), HERE / "quickstart.py"]
               if any(n in s.name for n in names or [""])
               and (names or s.name not in LONG)]  # fmt: skip
    rows, failed = [], []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        # The last ones take longest.
        work = {pool.submit(pretended, s): s.name for s in sorted(scripts, reverse=True)}
        for done in as_completed(work):
            try:
                row, numbers, seconds = done.result()
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed.append(work[done])
                print(f"{work[done]:28} FAILED: {error}", flush=True)
                continue
            rows.append(row)
            print(f"{work[done]:28} {seconds:5.1f} s  {cell(numbers)}", flush=True)
    print("\nWithin a training step: calls on the device (the median; views are none), waits,")
    print("copies to the host, uploads, all steps together. Between steps: how many were followed")
    print("by a wait, and the uploads, of batches as a rule.\n")
    header = ("example", "steps", "calls", "waits", "copies", "uploads", "| waits", "uploads")
    for row in [header, *sorted(rows)]:
        print(f"{row[0]:28}" + "".join(f"{value:>9}" for value in row[1:]))
    for name in sorted({row[0] for row in rows} & READS.keys()):
        print(f"\n{name}: {READS[name]}")
    print(f"\n{len(scripts)} runs on the stand-in, failed: {', '.join(failed) or 'none'}")
    return bool(failed)


def main(argv=None):
    """Run, print a line for each, and give 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all examples if none")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 on")
    parser.add_argument("--update", action="store_true", help="write into README.md")
    parser.add_argument("--standin", action="store_true", help="as on a GPU, without one")
    options = parser.parse_args(argv)
    if options.standin:
        return on_standin(options.names)
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
