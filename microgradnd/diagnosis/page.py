"""The report as one HTML page: everything is within it, nothing runs, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from .. import __version__
from . import series
from .catalogue import known, number
from .evidence import Finding, Score
from .facts import finite
from .svg import Chart, bars, element, heat, sketch

if TYPE_CHECKING:
    from .report import Report
    from .rules import Answer

__all__ = ["PANELS", "page"]

#: Learned activations, and weights, that are shown.
SHAPES, WEIGHTS = 12, 12
_MARK = {"yes": "yes", "warning": "warn", "no": "no"}


def page(report: Report) -> str:
    """Give the page as text."""
    say = report.say
    css = (resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    narrow = "".join(_panel(report, name, draw) for name, draw in NARROW.items())
    wide = "".join(_panel(report, name, draw) for name, draw in WIDE.items())
    code = report.findings[0].code if report.findings else say("word.ok")
    language = {"zh": "zh-Hans"}.get(report.lang, report.lang)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(code)} - {escape(say('word.title'))}</title>\n<style>\n{css}</style>\n"
        f'</head>\n<body>\n<main>\n{_header(report)}<div class="panels">\n{narrow}</div>\n{wide}'
        f"<footer>{escape(say('word.written', version=__version__))}</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _panel(report: Report, name: str, draw: Callable[[Report], str]) -> str:
    """Give a panel with its title and its (?)."""
    title, told = (report.say(f"panel.{name}.{part}") for part in ("title", "help"))
    summary = element("summary", "?", title=told, aria_label=f"{title}: ?")
    hint = element("details", [summary, element("p", told)], class_="help")
    body = draw(report) or element("p", report.say("word.nothing"), class_="none")
    return element("section", ["\n", element("h2", title), "\n", hint, "\n", body, "\n"],
                   class_="panel", id=name) + "\n"  # fmt: skip


def _header(report: Report) -> str:
    """Give the verdict, the scores and the three checks."""
    e, say = report.evidence, report.say
    chips = []
    scores = [("set_train", e.train.metric), ("set_test", e.test.metric if e.test else nan),
              ("constant", e.chance if e.metric else nan)]  # fmt: skip
    for name, value in scores:
        if known(value):
            css = "bad" if report.bad and name == "set_train" else ""
            words = escape(f"{say(f'word.{name}')}{say('word.colon')}")
            chips.append(element("li", [words, element("b", f"{value:.3f}")], class_=css))
    for answer in report.checks:
        css = {"ok": "fine", "bad": "bad"}.get(answer.outcome, "soft")
        told = f"{say(f'answer.{answer.outcome}')} {', '.join(answer.codes)}".rstrip()
        words = escape(f"{say(f'check.{answer.step}')} ")
        chips.append(element("li", [words, element("b", told)], class_=css))
    parts = [element("h1", say("word.title")), "\n", element("p", report.verdict, class_="say"),
             "\n", element("ul", chips, class_="chips"), "\n"]  # fmt: skip
    return element("header", ["\n", *parts], class_=f"verdict {report.severity}") + "\n"


# ------------------------------------------------------------------------------------ in words


def _path(report: Report) -> str:
    """Draw the decision tree; what was answered is lit."""
    say, rank = report.say, ("", "no", "warn", "yes")
    groups: dict[str, list[str]] = {key: [] for key in ("0", "1", "1x", "2", "3")}
    worst = dict.fromkeys(groups, "")
    for answer in report.path:
        key = answer.step if answer.step in groups else "1x"
        mark = _MARK.get(answer.outcome, "")
        if answer.step == "3":
            worst[key] = "no" if mark == "yes" else ""
            continue
        asked = mark and not (key == "2" and report.bad)
        worst[key] = max(worst[key], mark if asked else "", key=rank.index)
        told = mark and known(answer.value) and answer.limit  # not of what simply is, or is not
        told = told and not (mark == "no" and _beyond(answer))  # other numbers decided
        numbers = f"{number(answer.value)} / {number(answer.limit)}" if told else ""
        cells = [element("span", say(f"answer.{answer.outcome}"), class_="a"),
                 element("span", say(f"finding.{answer.codes[0]}.title")),
                 element("span", numbers, class_="n")]  # fmt: skip
        groups[key].append(element("li", cells, class_=mark or "dim"))
    lit = {"": "", "yes": "lit stop"}
    items = [element("li", [element("b", say(f"part.{key}")), element("ol", inner)],
                     class_=lit.get(worst[key], "lit"))
             for key, inner in groups.items()]  # fmt: skip
    return element("ol", items, class_="tree")


def _beyond(answer: Answer) -> bool:
    """Say whether a number is on the bad side of its limit."""
    low = answer.codes[0] in ("TRAIN_BAD", "LR_LOW")
    return answer.value < answer.limit if low else answer.value >= answer.limit


def _findings(report: Report) -> str:
    """Give all findings with their numbers."""
    if report.ok:
        return element("p", report.verdict)
    return "".join(_finding(report, finding) for finding in report.findings)


def _finding(report: Report, f: Finding) -> str:
    say, causes = report.say, report.roots
    symptom = f.severity == "fault" and f not in causes
    by = [cause.code for cause in causes if f.code in cause.explains]
    notes = [say(f"word.{f.severity}"), say("word.confidence", value=f.confidence)]
    if layer := report.layer(f.layer):
        notes.append(layer)
    if symptom and by:
        notes.append(say("word.explained", codes=", ".join(by)))
    if f.source:
        notes.append(f"{say('word.source')}{say('word.colon')}{report.source(f.source)}")
    rows = [[name, value, f.threshold.get(name)] for name, value in f.evidence.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)]  # fmt: skip
    title = [element("b", f.code, class_="code"), " ", escape(say(f"finding.{f.code}.title"))]
    more = [element("summary", say("word.comma").join(notes), class_="small"),
            _table(report, ("name", "value", "limit"), rows)]  # fmt: skip
    parts = [element("p", title), element("p", report.describe(f) + say("word.end")),
             element("details", more)]  # fmt: skip
    return element("div", parts, class_=f"finding {'symptom' if symptom else f.severity}")


def _remedies(report: Report) -> str:
    """Give what may help, with what it was worth."""
    say = report.say
    if not report.remedies:
        return element("p", say("word.none_needed")) if report.ok else ""
    words = {True: "word.helped", False: "word.did_not_help", None: "word.untried"}
    rows = [[report.remedy(remedy), say(f"word.set_{remedy.side}"), report.gained(remedy),
             say(words[report.helped(remedy)])] for remedy in report.remedies]  # fmt: skip
    tried = any(remedy.gain for remedy in report.remedies)
    hint = "" if tried else element("p", say("word.verify"), class_="small")
    return _table(report, ("remedy", "side", report.measure, ""), rows) + hint


def _comparisons(report: Report) -> str:
    """Give the networks that were trained to compare with."""
    e, say = report.evidence, report.say
    if not e.comparisons and not e.not_made:
        return ""

    def scores(*found: Score | None) -> list[str]:
        known_ones = [score or Score() for score in found]
        return [number(s.metric if known(s.metric) else s.loss) for s in known_ones]

    rows = [[say("word.yours"), *scores(e.train, e.test), str(e.plan.steps or "")]]
    if e.metric and known(e.chance):
        rows.append([say("word.constant"), number(e.chance), "", ""])
    for c in e.comparisons:
        cut = "" if c.complete else say("word.open") + say("word.cut") + say("word.close")
        rows.append([report.compared(c) + cut, *scores(c.train, c.test), str(c.steps)])
    notes = [element("p", say("report.not_made", reasons=report.not_made(reason)), class_="small")
             for reason in e.not_made]  # fmt: skip
    return _table(report, ("network", "train", "test", "steps"), rows, (1, 2, 3)) + "".join(notes)


def _thresholds(report: Report) -> str:
    """Give the table of all thresholds."""
    rows = [[name, value, report.meaning(name), report.source(source)]
            for name, value, _, source in report.thresholds.table()]  # fmt: skip
    table = _table(report, ("name", "value", "meaning", "source"), rows)
    return element("div", [table], class_="scroll")


def _table(
    report: Report, header: Sequence[str], rows: Sequence[Sequence[Any]],
    numeric: Sequence[int] = (),
) -> str:  # fmt: skip
    """Give a table under words of the catalogue; numbers stand on the right."""
    if not rows:
        return ""
    right = {i for i in range(len(header))
             if i in numeric or any(isinstance(row[i], (int, float)) for row in rows)}  # fmt: skip

    def line(cells: Iterable[Any], tag: str) -> str:
        return element("tr", [element(tag, "" if cell is None else number(cell),
                                      class_="n" if i in right else "")
                              for i, cell in enumerate(cells)])  # fmt: skip

    words = [name and report.say(f"word.{name}") for name in header]
    return element("table", [element("thead", [line(words, "th")]),
                             element("tbody", [line(row, "td") for row in rows])])  # fmt: skip


# ------------------------------------------------------------------------------------ drawings


def _curves(report: Report) -> str:
    """Draw loss and metric over the steps."""
    e, say, out = report.evidence, report.say, ""
    batches, keys = series.losses(e), dict[str, str]()
    for what, level in (("metric", e.chance), ("loss", e.constant)):
        lines = [(side, series.curve(e, side, what)) for side in ("train", "test")]
        single = batches if what == "loss" else []
        points = [p for _, line in lines for p in line] + single
        if not points:
            continue
        name = say("word.loss") if what == "loss" else report.common()["measure"]
        least = min(y for _, y in points)
        logarithmic = what == "loss" and least > 0 and max(y for _, y in points) > 30 * least
        chart = Chart(points, say("word.step"), log=logarithmic, include=finite([level]),
                      label=name, height=200)  # fmt: skip
        chart.line(single, "c-batch")
        keys |= {"c-batch": say("word.batches")} if single else {}
        for side, line in lines:
            chart.line(line, f"c-{side}", dots=len(line) < 40, title=say(f"word.{side}"))
            keys |= {f"c-{side}": say(f"word.set_{side}")} if line else {}
        chart.level(level, say("word.constant"))
        out += element("h3", name) + str(chart)
    return out and _key(keys.items()) + out


def _flow(report: Report) -> str:
    """Draw the gradient's size per layer, before training and now."""
    e, say = report.evidence, report.say
    lines = [(when, css, series.flow(e, when))
             for when, css in (("init", "c-init"), ("now", "c-now"))]  # fmt: skip
    points = [p for _, _, line in lines for p in line]
    if not points:
        return ""
    chart = Chart(points, say("word.layers"), log=True, label=say("panel.flow.title"))
    keys = []
    for when, css, line in lines:
        word = say("word.before" if when == "init" else "word.now")
        chart.line(line, css, dots=True, title=word)
        missing = "" if line else f"{say('word.colon')}{say('word.nothing')}"
        keys.append((css, word + missing))
    return _key(keys) + str(chart)


def _shares(report: Report) -> str:
    """Draw dead units, zeros and saturated values per layer."""
    e, say = report.evidence, report.say
    now, before = series.states(e, "now"), series.states(e, "init")
    rows = []
    for i in series.shown(e) if now else []:
        group = [(name, say(f"word.{name}"), series.share(now[i], name),
                  series.share(before[i], name) if before else nan)
                 for name in ("dead", "zeros", "saturated")]  # fmt: skip
        if e.layers[i].output or not any(isfinite(share) for _, _, share, _ in group):
            continue
        rows.append((str(i + 1), group))
    if not rows:
        return ""
    if not any(max(finite(bar[2:]), default=0) >= 0.005 for _, group in rows for bar in group):
        return element("p", say("word.no_shares"), class_="none")
    keys = [(name, say(f"word.{name}")) for name in ("dead", "zeros", "saturated")]
    more = [("", f"| {say('word.before')}")] if before else []
    chart = bars(rows, say("panel.shares.title"), lambda share: f"{share:.0%}")
    return _key([*keys, *more]) + chart + _hidden(report)


def _updates(report: Report) -> str:
    """Draw the relative size of the steps over time, layer by layer."""
    e, say = report.evidence, report.say
    lines = series.updates(e)
    points = [p for _, line in lines for p in line]
    if not points:
        return ""
    chart = Chart(points, say("word.step"), log=True, include=(1e-3,),
                  label=say("panel.updates.title"))  # fmt: skip
    keys = []
    for k, (i, line) in enumerate(lines):
        css = f"c-l{k * (series.LAYERS - 1) // max(len(lines) - 1, 1)}"
        name = report.layer(e.layers[i].name) or ""
        chart.line(line, css, dots=len(line) < 12, title=name)
        keys.append((css, name))
    chart.level(1e-3, say("word.good_ratio"))
    return str(chart) + _key(keys) + _hidden(report)


def _histograms(report: Report) -> str:
    """Draw each layer's activations over time."""
    e, say, key, figures = report.evidence, report.say, "", []
    for i in series.shown(e):
        low, high, when, columns = series.histogram(e, i)
        if columns:
            activation = say("word.open") + e.layers[i].activation + say("word.close")
            name = f"{report.layer(e.layers[i].name)}{activation}"
            told = [escape(name), "<br>", escape(f"{number(low)} .. {number(high)}")]
            figures.append(_figure(heat(columns, name), told))
            time = f"{say('word.step')}{say('word.colon')}{when[0]:g} .. {when[-1]:g}"
            key = _key([("", time)])
    return (key + element("div", figures, class_="grid") + _hidden(report)) if figures else ""


def _figure(drawn: str, told: str | list[str]) -> str:
    return element("figure", [drawn, element("figcaption", told)])


def _sensitivity(report: Report) -> str:
    """Give the weights that matter most, and how the change of one travels through the layers."""
    say, found = report.say, report.extras.get("sensitivity") or {}
    rows = [[row["parameter"] + (str(row["index"]) if row["index"] else ""),
             *(float(row[key]) for key in ("value", "change", "difference", "gradient"))]
            for row in found.get("weights", ())[:WEIGHTS]]  # fmt: skip
    if not rows:
        return ""
    table = _table(report, ("parameter", "weight", "change", "difference", "gradient"), rows)
    out = element("p", say("word.added", eps=float(found["eps"])), class_="small")
    out += element("div", [table], class_="scroll")
    stops = [(i + 1.0, float(stop["change"])) for i, stop in enumerate(found.get("travel", ()))]
    if line := [(x, y) for x, y in series.finite(stops) if y > 0]:
        title = say("word.travel", parameter=found["followed"])
        chart = Chart(line, say("word.layers"), log=True, label=title, height=180)
        chart.line(line, "c-now", dots=True, title=say("word.layers"))
        out += element("h3", title) + str(chart)
    return out


def _shapes(report: Report) -> str:
    """Draw what Maxout and PReLU have learned; without curves, a PReLU by its slopes."""
    e, say = report.evidence, report.say
    figures, seen = [], set()

    def add(layer: str, unit: str, told: str, lines: list[tuple[series.Points, str]]) -> None:
        name = say("word.comma").join((report.layer(layer) or "", unit))
        name += say("word.colon") + told
        figures.append(_figure(sketch(lines, name), name))
        seen.add(layer)

    shapes = (report.extras.get("shapes") or {}).get("shapes", [])
    for shape in (shapes[k] for k in series.spread(len(shapes), SHAPES)):
        line = series.finite(zip(map(float, shape["x"]), map(float, shape["y"]), strict=True))
        unit = say("word.unit", number=shape["unit"])
        add(shape["layer"], unit, shape["kind"], [(line, "c-now")])
    shown = set(seen)
    for layer, state in zip(e.layers, series.states(e, "now"), strict=False):
        if state.slopes and layer.name not in shown:
            low, high = state.slopes[0], state.slopes[-1]
            lines = [([(-1.0, -slope), (0.0, 0.0), (1.0, 1.0)], css)
                     for slope, css in ((low, "c-init"), (high, "c-now"))]  # fmt: skip
            add(layer.name, "PReLU", say("word.slopes", low=low, high=high), lines)
    note = ""
    if e.layers and not {"maxout", "prelu"} & {layer.activation for layer in e.layers}:
        note = element("p", say("word.no_shapes"), class_="none")
    return element("div", [*figures, note], class_="grid small") if figures else note


def _hidden(report: Report) -> str:
    """Say how many layers are not shown, if any."""
    count = len(report.evidence.layers) - len(series.shown(report.evidence))
    text = report.say("word.not_shown", count=count)
    return element("p", text, class_="small") if count > 0 else ""


def _key(entries: Iterable[tuple[str, str]]) -> str:
    marks = [element("span", [element("i", class_=css) if css else "", escape(text)])
             for css, text in entries]  # fmt: skip
    return element("div", marks, class_="key")


#: Panels side by side, and panels of full width.
NARROW: dict[str, Callable[[Report], str]] = {
    "path": _path, "remedies": _remedies, "findings": _findings, "curves": _curves, "flow": _flow,
    "shares": _shares, "updates": _updates, "comparisons": _comparisons,
    "sensitivity": _sensitivity, "shapes": _shapes,
}  # fmt: skip
WIDE = {"histograms": _histograms, "thresholds": _thresholds}
#: The names of all panels, which are the ids of their sections.
PANELS = (*NARROW, *WIDE)
