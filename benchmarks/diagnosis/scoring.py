"""How good verdicts are: recall, precision, the cause that is named first; ours and the others'."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from microgradnd.diagnosis.rules import decide, roots

from . import rivals
from .configurations import ACCEPTED, DRAWN, FAULTS, HEALTHY, KEPT
from .suite import FOLDER, SCREENED, VARIANTS, Case

RESULTS, TABLE = FOLDER / "results.json", FOLDER / "RESULTS.md"
OURS = "microgradnd"
#: What must hold on the half that thresholds never saw.
BARS = {"recall": 0.95, "precision": 0.95, "first": 0.9}

#: Of each verdict: all faults, and among them the ones that nothing explains; each as its codes.
Verdict = tuple[list[frozenset[str]], list[frozenset[str]]]


def ours(case: Case) -> Verdict:
    """Apply the rules of this repository."""
    found = decide(case.evidence)
    faults = [frozenset({f.code}) for f in found if f.severity == "fault"]
    return faults, [frozenset({f.code}) for f in roots(found)]


def theirs(name: str) -> Callable[[Case], Verdict]:
    """Apply another tool's: it does not say what explains what."""

    def verdict(case: Case) -> Verdict:
        found = rivals.findings(name, case.evidence)
        return found, found

    return verdict


def score(cases: Sequence[Case], verdict: Callable[[Case], Verdict]) -> dict[str, Any]:
    """Score verdicts on cases.

    Returns:
        `recall`: faulty runs whose cause is among the faults found. `precision`: of the unexplained
        faults of all runs, those that are the cause. `first`: faulty runs whose first unexplained
        fault is the cause. `quiet`: healthy runs without any fault. `overfit`: how often
        overfitting is found although the training result is bad. `classes`: the same by class,
        `[runs, recalled, first]`, and `named`, what was named first.
    """
    right = wrong = quiet = overfit = 0
    classes: dict[str, list[int]] = {kind: [0, 0, 0] for kind in FAULTS}
    named: dict[str, Counter[str]] = {kind: Counter() for kind in ("HEALTHY", *FAULTS)}
    for case in cases:
        faults, causes = verdict(case)
        accepted = ACCEPTED.get(case.kind, frozenset())
        good = [bool(codes & accepted) for codes in causes]
        right, wrong = right + sum(good), wrong + len(good) - sum(good)
        named[case.kind]["/".join(sorted(causes[0])) if causes else "-"] += 1
        overfit += not case.train >= case.best - 0.1 and any("OVERFIT" in f for f in faults)
        if case.kind == "HEALTHY":
            quiet += not faults
            continue
        row = classes[case.kind]
        row[0] += 1
        row[1] += any(codes & accepted for codes in faults)
        row[2] += bool(good) and good[0]
    runs, recalled, first = map(sum, zip(*classes.values(), strict=True))
    healthy = len(cases) - runs
    return {
        "runs": runs, "healthy": healthy, "recall": _share(recalled, runs),
        "precision": _share(right, right + wrong), "first": _share(first, runs),
        "quiet": _share(quiet, healthy), "overfit": overfit, "classes": classes,
        "named": {kind: dict(count.most_common()) for kind, count in named.items()},
    }  # fmt: skip


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 1.0


def half(cases: Sequence[Case], side: str) -> list[Case]:
    """Give the cases of one half."""
    return [c for c in cases if c.side == side and c.kind not in VARIANTS]


def everything(cases: Sequence[Case]) -> dict[str, Any]:
    """Score both halves, ours and the others', and compare the runs in other units."""
    tools = {OURS: ours, **{name: theirs(name) for name in rivals.RIVALS}}
    return {
        "screened": json.loads(SCREENED.read_text(encoding="utf-8")),
        "scoring": {name: score(half(cases, "scoring"), f) for name, f in tools.items()},
        "tuning": {name: score(half(cases, "tuning"), f) for name, f in tools.items()},
        "units": {kind: units(cases, kind) for kind in VARIANTS},
    }


def units(cases: Sequence[Case], kind: str) -> dict[str, Any]:
    """Compare the verdicts on runs in other units with those on the runs themselves."""
    plain = {(c.name, c.seed): c for c in cases if c.kind not in VARIANTS}
    changed = [c for c in cases if c.kind == kind]
    other = []
    for case in changed:
        twin = plain[case.name, case.seed]
        a, b = ours(twin)[1][:1], ours(case)[1][:1]
        if a != b:
            other.append(f"{case.name} {case.seed}: {_name(a)}, {_name(b)}")
    return {"runs": len(changed), "same": len(changed) - len(other), "other": other}


def _name(causes: list[frozenset[str]]) -> str:
    return "/".join(sorted(causes[0])) if causes else "none"


# -------------------------------------------------------------------------------------- the tables


def report(result: dict[str, Any], looks: list[dict[str, float]]) -> str:
    """Give RESULTS.md."""
    mine = result["scoring"][OURS]
    screened = result["screened"]
    drawn = sum(row["drawn"] for row in screened.values())
    kept = sum(len(row["kept"]) for row in screened.values())
    lines = [
        "# The fault suite",
        "",
        "Made by `python -m benchmarks.diagnosis table` from the stored evidence; how it was made "
        "is said in `benchmarks/diagnosis/`.",
        "",
        f"{drawn} configurations were drawn by seeded generators ({len(FAULTS)} classes of faults, "
        f"and healthy ones), {kept} of them were kept: those that are what their label says by "
        "results alone, for all three seeds, before any rule saw them. Of each class at most "
        f"{KEPT} of {DRAWN} are kept, of the healthy ones {HEALTHY}. A faulty configuration's twin "
        "without the fault is one more healthy run, if it is fine on both sets.",
        "",
        "One plant was changed after the rules had seen it: UNUSED_PIECE raised winning pieces, "
        "which spoiled the first loss as well; now it lowers the others.",
        "",
        "Thresholds were chosen on the tuning half. A configuration lies on one side with all its "
        "seeds, in the order of the SHA-256 of the names. The scoring half was looked at "
        f"{len(looks)} time{'s' * (len(looks) != 1)}"
        + (", with these results:" if looks else "."),
        "",
        *(f"{i}. recall {x['recall']:.3f}, precision {x['precision']:.3f}, first-named cause "
          f"{x['first']:.3f}" for i, x in enumerate(looks, 1)),
        "",
        "After the first look somebody read its table by class, drew new configurations by it and "
        "wrote of them to those who kept the rules. The last rules, made after that from what "
        "readers of the reports found, are thus not wholly independent of this half.",
        "",
        f"## The scoring half: {mine['runs']} faulty runs, {mine['healthy']} healthy ones",
        "",
        "Recall: the cause is among the faults found. Precision: of the faults that no other "
        "explains, on all runs, those that are the cause. First: the fault named first is the "
        "cause. Quiet: healthy runs without a fault. Overfit: overfitting found although the "
        "training result is bad. The others' rules come from their descriptions, read in their "
        "favour (`rivals.py`).",
        "",
        *_tools(result["scoring"]),
        "",
        "## By class, on the scoring half",
        "",
        "| class | right if named | drawn | runs | recalled | named first | named first instead |",
        "|---|---|---|---|---|---|---|",
        *(_class(kind, mine, screened[kind]["drawn"]) for kind in FAULTS),
        "",
        f"Healthy runs, named first: {_others(mine['named']['HEALTHY'], frozenset())}.",
        "",
        "## The tuning half",
        "",
        *_tools(result["tuning"]),
        "",
        "## Units",
        "",
        *(f"{VARIANTS[kind]}: the same cause named first in {row['same']} of {row['runs']} runs"
          + "".join(f"; {x}" for x in row["other"]) + ".\n" for kind, row in
          result["units"].items()),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _tools(result: dict[str, Any]) -> list[str]:
    rows = (f"| {name} | {x['recall']:.3f} | {x['precision']:.3f} | {x['first']:.3f} | "
            f"{x['quiet']:.3f} | {x['overfit']} |" for name, x in result.items())  # fmt: skip
    return ["| tool | recall | precision | first | quiet | overfit |", "|---|---|---|---|---|---|",
            *rows]  # fmt: skip


def _class(kind: str, scores: dict[str, Any], drawn: int) -> str:
    runs, recalled, first = scores["classes"][kind]
    others = _others(scores["named"][kind], ACCEPTED[kind])
    codes = ", ".join(sorted(ACCEPTED[kind]))
    return f"| {kind} | {codes} | {drawn} | {runs} | {recalled} | {first} | {others} |"


def _others(named: dict[str, int], accepted: frozenset[str]) -> str:
    return ", ".join(f"{n} x {'nothing' if code == '-' else code}"
                     for code, n in named.items() if code not in accepted) or "-"  # fmt: skip


def write(cases: Sequence[Case]) -> dict[str, Any]:
    """Score everything, count the look at the scoring half, and write both files."""
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    result = everything(cases)
    look = {key: result["scoring"][OURS][key] for key in BARS}
    looks = before.get("looks", [])
    looks.append(look)  # one that shows nothing new is one, too
    result["looks"] = looks
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(report(result, looks), encoding="utf-8")
    return result


def details(cases: Sequence[Case]) -> list[str]:
    """Say of each case that is not judged rightly what was found."""
    lines = []
    for case in cases:
        found = decide(case.evidence)
        causes = [f.code for f in roots(found)]
        accepted = ACCEPTED.get(case.kind, frozenset())
        good = bool(causes) and causes[0] in accepted if accepted else not causes
        if good and all(code in accepted for code in causes):
            continue
        e = case.evidence
        shown = ", ".join(f"{f.code}{'' if f.severity == 'fault' else '?'}" for f in found)
        others = " ".join(f"{c.what}={c.train.metric:.3g}/{c.test.metric if c.test else 0:.3g}"
                          for c in e.comparisons)  # fmt: skip
        lines.append(
            f"{case.name} seed {case.seed}\n    train {e.train.metric:.3g} test "
            f"{e.test.metric if e.test else 0:.3g} chance {e.chance:.3g} best {case.best:.3g} | "
            f"{others} | roots {causes} | {shown}"
        )
    return lines
