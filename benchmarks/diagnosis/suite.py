"""Drawing, training and examining the whole suite; what is stored of it, and how it is read."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microgradnd.diagnosis.evidence import Evidence, Sample, parse, plain

from .configurations import (
    DRAWN,
    FAULTS,
    HEALTHY,
    KEPT,
    SEEDS,
    Configuration,
    bites,
    draw,
    fine,
    side,
)
from .training import Run, train

FOLDER = Path(__file__).parent
SCREENED, STORED = FOLDER / "screened.json", FOLDER / "evidence.jsonl.gz"
#: Of each run so many samples with layers, and so many losses, are stored.
SAMPLES, LOSSES, FIGURES = 6, 120, 4
#: The first seeds of a faulty configuration, with which its twin is a healthy run.
TWINS = SEEDS[:2]
#: Runs that are repeated with other units of the loss or the inputs, which must change no verdict.
VARIANTS = {
    "LOSS_X_1000": "The loss times 1000 (the rate of SGD by 1000)",
    "OTHER_UNITS": "Inputs measured in other units, then scaled as before",
}


# -------------------------------------------------------------------------------------- screening


def screen(kind: str) -> dict[str, Any]:
    """Give the configurations of a class that are what their label says, for all seeds.

    Returns:
        `drawn`, how many were looked at, and `kept`, their numbers.
    """
    wanted = HEALTHY if kind == "HEALTHY" else KEPT
    most, kept, number = wanted * (DRAWN // KEPT), [], 0
    while len(kept) < wanted and number < most:
        if all(_true(draw(kind, number), seed) for seed in SEEDS):
            kept.append(number)
        number += 1
    return {"drawn": number, "kept": kept}


def _true(configuration: Configuration, seed: int) -> bool:
    if configuration.twin is None:
        return fine(train(configuration.settings, seed, record=False))
    twin = train(configuration.twin, seed, record=False)
    if not twin.train >= twin.clean.best - 0.05:
        return False
    return bites(configuration.kind, train(configuration.settings, seed, record=False), twin)


def screen_all(jobs: int) -> None:
    """Screen every class, and write down what is kept."""
    kinds = ["HEALTHY", *FAULTS]
    with ProcessPoolExecutor(jobs) as pool:
        found = dict(zip(kinds, pool.map(screen, kinds), strict=True))
    lines = (f' "{kind}": {json.dumps(row)}' for kind, row in found.items())
    SCREENED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def kept(kind: str) -> list[Configuration]:
    """Give the configurations of a class that were kept."""
    numbers = json.loads(SCREENED.read_text(encoding="utf-8"))[kind]["kept"]
    return [draw(kind, number) for number in numbers]


# ----------------------------------------------------------------------------------------- running


@dataclass
class Case:
    """A run that is stored.

    Attributes:
        kind: The class, or `"HEALTHY"`.
        name: Of the configuration; a twin's ends with `twin`.
        side: `"tuning"` or `"scoring"`.
        seed: Of data, weights and order.
        train, test, best: The metric on both sets, and of the rule that made the data, as the
            suite itself measured them.
        evidence: What the diagnosis has to go by.
    """

    kind: str
    name: str
    side: str
    seed: int
    train: float
    test: float
    best: float
    evidence: Evidence


def look(run: Run) -> Evidence:
    """Examine a run."""
    from microgradnd.diagnosis.examination import examine

    data = run.given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return examine(
            run.model, run.loss, (data.x, data.y), (data.tx, data.ty), record=run.recorder,
            make_model=run.factory,
        )  # fmt: skip


def small(evidence: Evidence) -> dict[str, Any]:
    """Give evidence as JSON without histograms, with fewer samples and figures."""
    step = max(-(-len(evidence.losses) // LOSSES), 1)
    samples = [s for s in evidence.samples if s.layers]
    every = max(-(-len(samples) // SAMPLES), 1)
    chosen = [s for i, s in enumerate(samples) if i % every == 0 or i == len(samples) - 1]
    slim = dataclasses.replace(
        evidence, init=evidence.init and _bare(evidence.init), now=_bare(evidence.now),
        samples=[_bare(s) for s in chosen], losses=evidence.losses[::step],
        loss_steps=evidence.loss_steps[::step],
    )  # fmt: skip
    return _without_defaults(Evidence(), plain(slim, FIGURES))


def _bare(sample: Sample) -> Sample:
    layers = [dataclasses.replace(s, counts=[], low=float("nan"), high=float("nan"))
              for s in sample.layers]  # fmt: skip
    return dataclasses.replace(sample, layers=layers)


def _without_defaults(usual: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a dataclass has by itself, at the top; below, NaN and what is empty."""
    return {k: _without_nan(v) for k, v in given.items() if v != getattr(usual, k, None)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: _without_nan(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v != "nan" and v not in ([], "", None)}
    return [_without_nan(v) for v in value] if isinstance(value, list) else value


def cases(kind: str) -> Iterator[Case]:
    """Train and examine a class, and the twins of its configurations as healthy runs."""
    if kind in VARIANTS:
        yield from _variants(kind)
        return
    configurations = kept(kind)
    sides = side([c.name for c in configurations])
    for c in configurations:
        for seed in SEEDS:
            yield _case(kind, c.name, sides[c.name], seed, train(c.settings, seed))
        for seed in TWINS if c.twin else ():
            run = train(c.twin, seed)
            if fine(run):
                yield _case("HEALTHY", f"{c.name} twin", sides[c.name], seed, run)


def _variants(kind: str) -> Iterator[Case]:
    """Repeat the first two configurations of each class, and of the healthy ones thirty."""
    change: Any = {"scale": 1000.0} if kind == "LOSS_X_1000" else {"remeasured": True}
    for label in ("HEALTHY", *FAULTS):
        configurations = kept(label)
        sides = side([c.name for c in configurations])
        for c in configurations[: 30 if label == "HEALTHY" else 2]:
            settings = dataclasses.replace(c.settings, **change)
            yield _case(kind, c.name, sides[c.name], SEEDS[0], train(settings, SEEDS[0]))


def _case(kind: str, name: str, side: str, seed: int, run: Run) -> Case:
    return Case(kind, name, side, seed, run.train, run.test, run.clean.best, look(run))


def line(case: Case) -> str:
    """Give a case as one line of JSON."""
    row = {f.name: getattr(case, f.name) for f in dataclasses.fields(case)}
    row |= {k: plain(row[k], FIGURES) for k in ("train", "test", "best")}
    return json.dumps(row | {"evidence": small(case.evidence)}, separators=(",", ":"))


def write(kind: str, folder: str) -> str:
    """Run a class into a file of its own, if it is not there yet."""
    path = Path(folder) / f"{kind}.jsonl"
    if not path.exists():
        lines = [line(case) for case in cases(kind)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return kind


def run_all(folder: str, jobs: int, kinds: list[str]) -> None:
    """Run all classes (or some, again), in a folder for the parts; then store all in one file."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        (Path(folder) / f"{kind}.jsonl").unlink(missing_ok=True)
    everything = ["HEALTHY", *FAULTS, *VARIANTS]
    with ProcessPoolExecutor(jobs) as pool:
        for kind in pool.map(write, everything, [folder] * len(everything)):
            print(kind, flush=True)
    text = "".join((Path(folder) / f"{k}.jsonl").read_text("utf-8") for k in everything)
    with gzip.GzipFile(STORED, "wb", mtime=0) as file:
        file.write(text.encode())


def load(path: Path = STORED) -> list[Case]:
    """Read the cases that are stored; a folder of parts, too."""
    if os.path.isdir(path):
        lines = [row for p in sorted(Path(path).glob("*.jsonl")) for row in p.open("rb")]
    else:
        with gzip.open(path) as file:
            lines = file.readlines()
    rows = map(json.loads, lines)
    return [_read(row) for row in rows]


def _read(row: dict[str, Any]) -> Case:
    numbers = {k: parse(float, row[k]) for k in ("train", "test", "best")}
    return Case(**(row | numbers | {"evidence": parse(Evidence, row["evidence"])}))
