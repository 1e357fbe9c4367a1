"""CPU against GPU: training steps, Maxout, activations, matrix products, transfers, first steps.

Both columns are always printed; one that cannot be filled says why. A GPU's times are by CUDA
events around many calls, after a warm-up, with one wait at their end and no reading before it; the
host's clock over the same calls stands beside them. Where a batch or a width is varied, a line is
fitted, and it is said from where on the GPU wins. PyTorch's column is filled where it is installed.

    python -m benchmarks --save                   everything; keeps it under benchmarks/results
    python -m benchmarks --quick                  a quarter of a minute
    python -m benchmarks --table FILE.json        Markdown of earlier results
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import microgradnd as mg

from . import breakeven, cold, devices, report, rows, torch_rows
from .timing import ROOT, load, machine, measure

RESULTS = ROOT / "benchmarks" / "results"
FORMAT = 1
PARTS = {"date", "machine", "device", "torch", "empty", "rows", "curves"}  # what a page needs
ROW = {"kind", "name", "cells", "errors"}
#: Seconds for the samples of one cell, in a long run and in a quick one.
SECONDS = {
    rows.STEP: (0.5, 0.2), rows.MAXOUT: (0.5, 0.2), rows.PRODUCT: (0.3, 0.1),
    rows.TRANSFER: (0.2, 0.1), rows.CURVE: (0.3, 0.1), rows.ACTIVATION: (0.1, 0.05),
}  # fmt: skip
OVER = "the time was over"


class Disagreement(Exception):
    """Two columns do not compute the same loss."""


class Refusal(Exception):
    """What was asked for cannot be done; nothing was measured."""


def absent(wanted: str | None, pretend: bool = False) -> dict[str, str]:
    """Say of each backend why its columns stay empty; only of those that do.

    Args:
        wanted: The only backend that is asked for.
        pretend: Whether the tests' stand-in for CuPy may fill the GPU's.
    """
    states = mg.backend.available()
    empty = {}
    for name in (rows.CPU, rows.GPU):
        why = "" if states.get(name) == "ok" else states.get(name, "not available")
        if name == rows.GPU and not why and not pretend:
            module = mg.backend.named(name).module  # type: ignore[attr-defined]
            why = devices.NO_GPU if devices.stands_in(module.__version__) else ""
        why = why if wanted in (None, name) else f"not asked for (--backend {wanted})"
        if why:
            empty[name] = why
    return empty


def run(
    options: argparse.Namespace,
    show: Callable[[str], None] = print,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Time what was asked for; show each kind's table, and keep the results so far, as it comes."""
    began = monotonic()
    end = began + 60 * options.minutes if options.minutes else float("inf")
    empty = absent(options.backend, options.pretend)
    gpu = None if rows.GPU in empty else mg.backend.named(rows.GPU)
    result: dict[str, Any] = {
        "format": FORMAT,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "quick": options.quick,
        "machine": machine() | {"load before": load()},
        "device": devices.describe(gpu.module) if gpu else None,
        "torch": None,
        "empty": empty,
        "rows": [],
        "curves": {},
    }
    show(report.heading(result))
    kinds = [kind for kind in rows.KINDS if options.only in (None, kind)]
    # PyTorch's column comes in a process of its own: two libraries' threads disturb each other.
    paired = [kind for kind in (rows.STEP, rows.MAXOUT, rows.PRODUCT) if kind in kinds]
    for kind in kinds:
        if kind == rows.COLD:
            found = first_steps(empty, end)
        else:
            found = [time_row(row, options, empty, end) for row in rows.rows(kind, options.quick)]
        result["rows"] += found
        keep(result)
        if paired and kind == paired[-1]:
            add_torch(result, paired, options, end)
        if kind not in paired:
            if kind == rows.CURVE:
                result["curves"] = curves(found)
            show(report.table_of(result, kind))
        elif kind == paired[-1]:
            for each in paired:
                show(report.table_of(result, each))
    if gpu:
        busy = partial(rows.product, 4096, "float32", gpu)
        result["device"]["computing"] = devices.under_load(busy, devices.clock_of(gpu).wait)
    result["seconds"] = monotonic() - began
    result["machine"]["load after"] = load()
    show(report.closing(result))
    return result


def time_row(
    row: rows.Row, options: argparse.Namespace, empty: dict[str, str], end: float
) -> dict[str, Any]:
    """Time the jobs of a row; a cell is its timing, or None with the reason under `why`."""
    cells: dict[str, Any] = {}
    why: dict[str, str] = {}
    errors: dict[str, str] = {}
    about = dict(row.about)

    def check(value: Any) -> None:
        if row.loss:
            loss = float(value.item())
            reason = torch_rows.differs(loss, about.setdefault("loss", loss))
            if reason:
                raise Disagreement(reason)

    for column, job in row.jobs.items():
        name = column.partition(",")[0]
        cells[column] = None
        if name in empty or monotonic() > end:
            why[column] = empty.get(name, OVER)
            continue
        home = mg.backend.named(name)
        try:
            cells[column] = asdict(
                measure(job.make(home), SECONDS[row.kind][options.quick], devices.clock_of(home),
                        job.guard, check, options.patience)
            )  # fmt: skip
        except (ArithmeticError, Disagreement, MemoryError, RuntimeError, TypeError) as error:
            errors[column] = f"{type(error).__name__}: {error}".splitlines()[0]
    return {"kind": row.kind, "name": row.name, "cells": cells, "why": why, "errors": errors,
            **about}  # fmt: skip


def first_steps(empty: dict[str, str], end: float) -> list[dict[str, Any]]:
    """Time the first steps of fresh processes: a row for each network, with seconds by stage."""
    found = []
    for name in cold.NETWORKS:
        row: dict[str, Any] = {
            "kind": rows.COLD, "name": name,
            "cells": dict.fromkeys((rows.CPU, cold.COMPILED, cold.CACHED)), "why": {}, "errors": {},
        }  # fmt: skip
        for backend in (rows.CPU, rows.GPU):
            if backend in empty or monotonic() > end:
                reason = empty.get(backend, OVER)
                row["why"] |= {c: reason for c in row["cells"] if c.partition(",")[0] == backend}
                continue
            try:
                row["cells"] |= cold.columns(name, backend)
            except RuntimeError as error:
                row["errors"][backend] = str(error)
        found.append(row)
    return found


def add_torch(
    result: dict[str, Any], kinds: list[str], options: argparse.Namespace, end: float
) -> None:
    """Fill PyTorch's columns, or say why they stay empty."""
    reason = torch_rows.missing(options.torch_python)
    if not reason and monotonic() > end:
        reason = OVER
    if reason:
        result["empty"]["torch"] = reason
        return
    mine = [row for row in result["rows"] if row["kind"] in kinds]
    task = {
        "kinds": kinds,
        "quick": options.quick,
        "seconds": SECONDS[rows.STEP][options.quick],
        "patience": options.patience,
        "limit": end - monotonic() if options.minutes else None,
        "losses": {row["name"]: row["loss"] for row in mine if "loss" in row},
    }
    try:
        versions, *cells = torch_rows.ask(options.torch_python, task)
    except RuntimeError as error:
        result["empty"]["torch"] = f"PyTorch cannot be run: {error}"
        return
    result |= versions
    if "cuda" not in versions["torch"]["devices"]:
        result["empty"]["torch, cuda"] = "PyTorch found no GPU that it can use"
    by_name = {(row["kind"], row["name"]): row for row in mine}
    for cell in cells:
        row = by_name[cell["kind"], cell["name"]]
        row["cells"][cell["column"]] = cell.get("timing")
        for part, key in (("why", "why"), ("errors", "error")):
            if key in cell:
                row[part][cell["column"]] = cell[key]


def curves(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit each break-even curve to its medians."""
    result = {}
    for name, curve in breakeven.CURVES.items():
        times: dict[str, dict[int, float]] = {}
        for row in found:
            for column, timing in row["cells"].items():
                if row["curve"] == name and timing:
                    times.setdefault(column, {})[row["value"]] = timing["median"]
        result[name] = {"title": curve.title, **breakeven.evaluate(curve, times)}
    return result


def files(options: argparse.Namespace, result: dict[str, Any]) -> tuple[Path | None, Path | None]:
    """Give where the results and the picture go."""
    target, image = (Path(f) if f else None for f in (options.json, options.picture))
    if options.save:
        device = result["device"]
        name = devices.slug(devices.name_of(device)) if device else "cpu"
        if device and not devices.stands_in(device.get("cupy")):
            name = f"gpu-{name}"
        target, image = target or RESULTS / f"{name}.json", image or RESULTS / f"{name}.png"
    return target, image


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse output paths that cannot be written, before anything is measured.

    Raises:
        Refusal: With what is wrong.
    """
    files = {"--json": options.json, "--picture": options.picture}
    if options.save:
        files["--save"] = RESULTS / "cpu.json"  # the device's name, and the file's, come later
    for option, file in files.items():
        if not file:
            continue
        path = Path(file)
        place = path if path.exists() and option != "--save" else path.parent
        if not path.parent.is_dir():
            raise Refusal(f"{option}: there is no folder {path.parent}")
        if path.is_dir():
            raise Refusal(f"{option}: {path} is a folder")
        if not os.access(place, os.W_OK):
            raise Refusal(f"{option}: {place} is not writable")
    if options.picture:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
        except ImportError:
            return  # `draw` says so
        known = sorted(FigureCanvasAgg.get_supported_filetypes())
        if Path(options.picture).suffix[1:].lower() not in known:
            raise Refusal(f"--picture: {options.picture} should end in one of .{', .'.join(known)}")


def read(file: str) -> dict[str, Any]:
    """Read results that an earlier run wrote.

    Raises:
        Refusal: If the file holds none.
    """
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"--table: {file}: {error.strerror}") from None
    except ValueError:
        raise Refusal(f"--table: {file} is not a result of python -m benchmarks: no JSON") from None
    whole = isinstance(result, dict) and result.keys() >= {"format", *PARTS}
    found = result["rows"] if whole and isinstance(result["rows"], list) else [None]
    if not all(isinstance(row, dict) and row.keys() >= ROW for row in found):
        raise Refusal(f"--table: {file} is not a result of python -m benchmarks")
    if result["format"] != FORMAT:
        raise Refusal(f"--table: {file} has format {result['format']}, and this reads {FORMAT}")
    return result


def more_than_zero(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Give what reads a finite number above 0 from the command line."""

    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not more than 0")
        return value

    number.__name__ = kind.__name__  # for "invalid int value"
    return number


def write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write the results, if a file was asked for."""
    target, _ = files(options, result)
    if target:
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def draw(result: dict[str, Any], image: Path) -> None:
    """Draw the picture, or say that matplotlib is not there to do it."""
    from .picture import draw

    try:
        draw(result, image)
    except ImportError as error:
        print(f"no picture: {error}; --table FILE.json --picture FILE draws it elsewhere")


def main(argv: list[str] | None = None) -> int:
    """Print the tables.

    Gives 1 if a backend that was asked for cannot be used or a row failed, 2 if it is not begun.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true",
                        help="a quarter of a minute: fewer sizes, short samples")  # fmt: skip
    parser.add_argument("--minutes", type=more_than_zero(float), metavar="N",
                        help="begin no row after so long; what is left out says so")  # fmt: skip
    parser.add_argument("--patience", type=more_than_zero(int), default=0, metavar="N",
                        help="try up to N times more where others wanted the cores")  # fmt: skip
    parser.add_argument("--backend", choices=(rows.CPU, rows.GPU), help="fill its columns only")
    parser.add_argument("--only", choices=rows.KINDS, metavar="KIND",
                        help=f"one kind of rows: {', '.join(rows.KINDS)}")  # fmt: skip
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH",
                        help="an interpreter with torch and numpy (default: this one)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the results")
    parser.add_argument("--picture", metavar="FILE", help="draw the break-even curves")
    parser.add_argument("--save", action="store_true",
                        help="write both to benchmarks/results, named after the GPU")  # fmt: skip
    parser.add_argument("--table", metavar="FILE.json",
                        help="measure nothing: print results as Markdown")  # fmt: skip
    parser.add_argument("--pretend", action="store_true", help=argparse.SUPPRESS)  # for tests
    options = parser.parse_args(argv)
    try:
        check_outputs(options)
        result = read(options.table) if options.table else None
    except Refusal as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    if result:
        print(report.markdown(result), flush=True)
        if options.picture:
            draw(result, Path(options.picture))
        return 0
    result = run(options, partial(print, flush=True), partial(write, options))
    _, image = files(options, result)
    write(options, result)
    if image:
        draw(result, image)
    failed = any(row["errors"] for row in result["rows"])
    return int(failed or options.backend in result["empty"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the flush at the end complains
        sys.exit(1)
