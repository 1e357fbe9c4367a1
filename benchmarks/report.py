"""Results as text: tables for the terminal, and Markdown for pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from . import cold, rows
from .devices import STAND_IN, name_of, stands_in
from .timing import DISTURBED, Timing, readable, table

EMPTY = "not measured yet"
SHOWN = ("gelu", "maxout", "relu", "softmax")  # of the activations, on a page
TITLES = {
    rows.CPU: "CPU", rows.GPU: "GPU", rows.UPLOADED: "GPU, batch uploaded",
    rows.PAGE_LOCKED: "from page-locked", "torch": "torch, CPU", "torch, cuda": "torch, GPU",
    cold.COMPILED: "GPU, kernels compiled", cold.CACHED: "GPU, kernels on disk",
}  # fmt: skip
Row = dict[str, Any]
Result = dict[str, Any]


def heading(result: Result) -> str:
    """Describe machine and device."""
    known = dict(result["machine"])
    if device := result["device"]:
        known |= {f"GPU: {k}": v for k, v in (device | {"name": name_of(device)}).items()}
    width = max(map(len, known))
    return "\n".join(f"{key:{width}}  {shown(value)}" for key, value in known.items())


def titled(title: str, result: Result) -> str:
    """Give a table's title, which says so if a stand-in has filled the GPU's column."""
    device = result["device"]
    return f"{title} ({STAND_IN})" if device and stands_in(device["cupy"]) else title


def shown(value: Any) -> str:
    """Give a value of the description as text."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def seconds(row: Row, column: str) -> float | None:
    """Give the median of a cell."""
    timing = row["cells"].get(column)
    return timing["median"] if timing else None


def cell(row: Row, column: str) -> str:
    """Give a cell with its spread, `-` where the row has no such job."""
    if column not in row["cells"]:
        return "-"
    timing = row["cells"][column]
    if timing:
        return str(Timing(**timing))
    return "failed" if column in row["errors"] else EMPTY


def ratio(row: Row, over: str, under: str) -> str:
    """Give how many times longer one column takes than another, `-` unless both are there."""
    a, b = seconds(row, over), seconds(row, under)
    return f"{a / b:.2f}" if a and b else "-"


def part(key: str) -> Callable[[Row], str]:
    """Make a column of what else is known of the GPU's cell."""

    def give(row: Row) -> str:
        timing = row["cells"].get(rows.GPU)
        return readable(timing[key]) if timing else "-"

    return give


def rate(column: str, unit: str, amount: str) -> Callable[[Row], str]:
    """Make a column of work for each second, in billions."""

    def give(row: Row) -> str:
        time = seconds(row, column)
        return f"{row[amount] / time / 1e9:.3g} {unit}" if time else "-"

    return give


def columns(kind: str) -> dict[str, Callable[[Row], str]]:
    """Give the columns of a kind of rows."""

    def simple(*names: str) -> dict[str, Callable[[Row], str]]:
        return {TITLES[n]: lambda row, n=n: cell(row, n) for n in names}  # type: ignore[misc]

    both = simple(rows.CPU, rows.GPU)
    details: dict[str, Callable[[Row], str]] = {
        "host's clock": part("wall"), "queued in": part("issue"), "first": part("first"),
        "CPU / GPU": lambda row: ratio(row, rows.CPU, rows.GPU),
    }  # fmt: skip
    torch: dict[str, Callable[[Row], str]] = {
        **simple("torch"), "CPU / torch": lambda row: ratio(row, rows.CPU, "torch"),
        **simple("torch, cuda"), "GPU / torch": lambda row: ratio(row, rows.GPU, "torch, cuda"),
    }  # fmt: skip
    if kind in (rows.STEP, rows.MAXOUT):
        return both | details | simple(rows.UPLOADED, rows.PAGE_LOCKED) | torch
    if kind == rows.PRODUCT:
        rates = {f"{TITLES[c]}, GFLOP/s": rate(c, "", "flop") for c in (rows.CPU, rows.GPU)}
        return both | details | rates | torch
    if kind == rows.TRANSFER:
        speed = {f"{TITLES[c]}, speed": rate(c, "GB/s", "bytes") for c in (rows.CPU, rows.GPU)}
        return both | details | speed
    return both | details


def cells_of(result: Result, kind: str) -> tuple[list[str], list[list[str]]]:
    """Give the header and the cells of a kind's table, without columns that would say nothing."""
    found = [row for row in result["rows"] if row["kind"] == kind]
    if kind == rows.COLD:
        header, lines = first_steps(found)
        return [titled(kind, result), *header], lines
    kept = {}
    for title, column in columns(kind).items():
        values = [column(row) for row in found]
        if title in ("CPU", "GPU") or any(v not in ("-", EMPTY) for v in values):
            kept[title] = values
    lines = zip((row["name"] for row in found), *kept.values(), strict=True)
    return [titled(kind, result), *kept], [list(line) for line in lines]


def first_steps(found: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Give the columns and the lines of the first steps: a line for each stage."""
    names = (rows.CPU, cold.COMPILED, cold.CACHED)

    def one(row: Row, column: str, stage: str) -> str:
        if row["cells"][column]:
            return readable(row["cells"][column][stage])
        return "failed" if column.partition(",")[0] in row["errors"] else EMPTY

    lines = [
        [f"{row['name']}: {stage}", *(one(row, column, stage) for column in names)]
        for row in found
        for stage in cold.STAGES
    ]
    return [TITLES[name] for name in names], lines


def table_of(result: Result, kind: str) -> str:
    """Give a kind's table for the terminal, and what is to be said below it."""
    text = [f"\n{table(*cells_of(result, kind))}"]
    text += [f"{name}: {error}" for name, error in failures(result, kind)]
    if kind == rows.CURVE:
        text += list(fits(result))
    return "\n".join(text)


def failures(result: Result, kind: str) -> Iterator[tuple[str, str]]:
    """Give the rows of a kind that failed, and what was said."""
    for row in result["rows"]:
        if row["kind"] == kind:
            for column, error in row["errors"].items():
                yield f"{row['name']}, {TITLES.get(column, column)}", error


def fits(result: Result) -> Iterator[str]:
    """Say what the fits of the break-even curves are, and where they cross."""
    for name, curve in result["curves"].items():
        title = f"{name} ({curve['title']})"
        for column, fit in curve["fits"].items():
            if fit:
                yield (
                    f"{title}, {TITLES[column]}: {readable(fit['fixed'])} for a step and "
                    f"{readable(fit['per_work'] * 1e6)} for a million multiply-adds, off by "
                    f"{fit['error']:.0%} (at most {fit['worst']:.0%})"
                )
        yield f"{title}: {curve['text'] or 'where the GPU begins to win is ' + EMPTY}"


def closing(result: Result) -> str:
    """Say which columns are empty, and why; and how busy the machine was."""
    text = [""]
    for column, reason in result["empty"].items():
        text.append(f"{TITLES[column]}: {reason}")
    left = [row for row in result["rows"] if "the time was over" in row["why"].values()]
    if left:
        text.append(f"{len(left)} rows were left out, for the time was over")
    if result["device"]:
        text.append(f"the GPU while it computes: {shown(result['device']['computing'])}")
    machine = result["machine"]
    text.append(
        f"{result['seconds']:.0f} s; processes that wanted to run, before and after: "
        f"{shown(machine['load before'])}, {shown(machine['load after'])}"
    )
    cells = [cell for row in result["rows"] for cell in row["cells"].values() if cell]
    bad = sum((cell.get("waited") or 0.0) > DISTURBED for cell in cells)
    if bad:
        text.append(
            f"{bad} of {len(cells)} cells were measured while other processes wanted the cores: "
            "take no figure of them; --patience N tries again"
        )
    return "\n".join(text)


# ------------------------------------------------------------------------------------- Markdown


def markdown(result: Result) -> str:
    """Give results as a page's section: tables, few activations, and from where the GPU wins."""
    kinds = {row["kind"] for row in result["rows"]}
    parts = [about(result)]
    for title, wanted in {
        "training step": (rows.STEP, rows.MAXOUT),
        "matrix product": (rows.PRODUCT,),
        "activation, forward and backward": (rows.ACTIVATION,),
        rows.TRANSFER: (rows.TRANSFER,),
    }.items():
        found = [
            row for row in result["rows"]
            if row["kind"] in wanted and row.get("operation", SHOWN[0]) in SHOWN
        ]  # fmt: skip
        if found:
            found.sort(key=lambda row: row.get("operation", ""))
            parts.append(pipes(titled(title, result), found))
    if rows.COLD in kinds:
        parts.append(piped(*cells_of(result, rows.COLD)))
    if rows.CURVE in kinds:
        parts.append("\n".join(f"- {line}" for line in fits(result)))
    reasons = [f"{TITLES[c]}: {EMPTY}. {why}" for c, why in result["empty"].items()]
    return "\n\n".join([*parts, *reasons])


def about(result: Result) -> str:
    """Say in one sentence on what the results were measured."""
    machine, device, torch = result["machine"], result["device"], result["torch"]
    parts = [
        f"{machine['processor']}, {machine['usable cores']} cores, Python {machine['python']}, "
        f"NumPy {machine['numpy']} ({machine['BLAS']})"
    ]
    if device:
        parts.append(f"{name_of(device)}, CuPy {device['cupy']}, CUDA {device['CUDA runtime']}")
    if torch:
        parts.append(f"PyTorch {torch['version']}, {torch['threads']} threads")
    return f"Measured on {result['date']}: {'; '.join(parts)}. float32 without TF32; medians."


def pipes(title: str, found: list[Row]) -> str:
    """Give a table in Markdown: CPU, GPU and PyTorch, without columns that would say nothing."""
    gpu, cuda, torch = rows.GPU, "torch, cuda", "torch"
    table: dict[str, list[str]] = {title: [label(row) for row in found]}
    for column, over in (
        (rows.CPU, None), (torch, rows.CPU), (gpu, rows.CPU), (rows.UPLOADED, None), (cuda, gpu),
    ):  # fmt: skip
        values = [brief(row, column) for row in found]
        said = any(v not in ("-", EMPTY) for v in values)
        if said or column in (rows.CPU, gpu):
            table[TITLES[column]] = values
        ratios = [ratio(row, over, column) for row in found] if over else []
        if over and any(r != "-" for r in ratios):
            name = f"{TITLES[over].partition(',')[0]} / {TITLES[column].partition(',')[0]}"
            table[name] = ratios
    return piped(list(table), [list(line) for line in zip(*table.values(), strict=True)])


def piped(header: list[str], lines: list[list[str]]) -> str:
    """Lay out a table in Markdown, the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def label(row: Row) -> str:
    """Name a row where the rows of several kinds stand together."""
    if row["kind"] == rows.MAXOUT:
        return f"Maxout {row['name']}"
    return f"{row['name']} elements" if row["kind"] == rows.ACTIVATION else row["name"]


def brief(row: Row, column: str) -> str:
    """Give a cell's median alone."""
    time = seconds(row, column)
    return readable(time) if time else cell(row, column)
