"""The report as one HTML page: everything is within it, nothing runs, and nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from itertools import product
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from .. import __version__
from . import series
from .catalogue import known, number
from .evidence import Finding, Score
from .svg import WIDTH, Chart, bars, heat, sketch

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
    narrow = _columns([_panel(report, name, draw) for name, draw in NARROW.items()])
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


def _columns(panels: list[str]) -> str:
    """Share panels out between two columns of about the same height, in their order within each."""
    heights = [*map(_height, panels)]

    def cost(right: tuple[int, ...]) -> float:
        sides = [sum(h for h, r in zip(heights, right, strict=True) if r == k) for k in (0, 1)]
        moved = sum(right[i] > right[k] for k in range(len(right)) for i in range(k))
        return abs(sides[0] - sides[1]) + 20 * moved

    best = min(((0, *rest) for rest in product((0, 1), repeat=len(panels) - 1)), key=cost)
    sides = ("".join(p for p, r in zip(panels, best, strict=True) if r == k) for k in (0, 1))
    return "".join(f'<div class="column">\n{side}</div>\n' for side in sides)


def _height(panel: str) -> float:
    """Give about the height of a panel in a column of 600 pixels, with its details closed."""
    panel = re.sub(r"<table>.*?</table></details>", "", panel, flags=re.S)
    charts = [float(h) for w, h in re.findall(r'viewBox="0 0 (\d+) (\d+)"', panel)
              if int(w) == WIDTH]  # fmt: skip
    sketches = -(-(panel.count("<figure>")) // 5)
    return (95 + 1.27 * sum(charts) + 26 * panel.count("<tr>") + 20 * panel.count("<li ") + 25 *
            panel.count("<h3>") + 105 * panel.count('"finding ') + 150 * sketches)  # fmt: skip


def _panel(report: Report, name: str, draw: Callable[[Report], str]) -> str:
    """Give a panel with its title and its (?)."""
    title, told = (escape(report.say(f"panel.{name}.{part}")) for part in ("title", "help"))
    body = draw(report) or f'<p class="none">{escape(report.say("word.nothing"))}</p>'
    order = [*NARROW, *WIDE].index(name)
    return (f'<section class="panel" id="{name}" style="order: {order}">\n<h2>{title}</h2>\n'
            f'<details class="help"><summary title="{told}" aria-label="{title}: ?">?</summary>'
            f"<p>{told}</p></details>\n{body}\n</section>\n")  # fmt: skip


def _header(report: Report) -> str:
    """Give the verdict, the scores and the three checks."""
    e, say = report.evidence, report.say
    chips = []
    scores = [("set_train", e.train.metric), ("set_test", e.test.metric if e.test else nan),
              ("constant", e.chance if e.metric else nan)]  # fmt: skip
    for name, value in scores:
        if known(value):
            css = ' class="bad"' if report.bad and name == "set_train" else ""
            words = f"{say(f'word.{name}')}{say('word.colon')}"
            chips.append(f"<li{css}>{escape(words)}<b>{value:.3f}</b></li>")
    for answer in report.checks:
        css = {"ok": "fine", "bad": "bad"}.get(answer.outcome, "soft")
        codes = f" {escape(', '.join(answer.codes))}" if answer.codes else ""
        chips.append(f'<li class="{css}">{escape(say(f"check.{answer.step}"))} '
                     f"<b>{escape(say(f'answer.{answer.outcome}'))}{codes}</b></li>")  # fmt: skip
    return (f'<header class="verdict {report.severity}">\n<h1>{escape(say("word.title"))}</h1>\n'
            f'<p class="say">{escape(report.verdict)}</p>\n'
            f'<ul class="chips">{"".join(chips)}</ul>\n</header>\n')  # fmt: skip


# ------------------------------------------------------------------------------------ in words


def _path(report: Report) -> str:
    """Draw the decision tree; what was answered is lit."""
    say, groups = report.say, {key: "" for key in ("0", "1", "1x", "2", "3")}
    worst, rank = dict.fromkeys(groups, ""), ("", "no", "warn", "yes")
    for answer in report.path:
        key = answer.step if answer.step in groups else "1x"
        mark = _MARK.get(answer.outcome, "")
        if answer.step == "3":
            worst[key] = "no" if mark == "yes" else ""
            continue
        code, outcome = answer.codes[0], say(f"answer.{answer.outcome}")
        asked = mark and not (key == "2" and report.bad)
        worst[key] = max(worst[key], mark if asked else "", key=rank.index)
        told = mark and known(answer.value) and answer.limit  # not of what simply is, or is not
        told = told and not (mark == "no" and _beyond(answer))  # other numbers decided
        numbers = f"{number(answer.value)} / {number(answer.limit)}" if told else ""
        groups[key] += (
            f'<li class="{mark or "dim"}"><span class="a">{escape(outcome)}</span>'
            f"<span>{escape(say(f'finding.{code}.title'))}</span>"
            f'<span class="n">{escape(numbers)}</span></li>'
        )
    items = "".join(
        f'<li class="{_lit(worst[key])}"><b>{escape(say(f"part.{key}"))}</b><ol>{inner}</ol></li>'
        for key, inner in groups.items()
    )
    return f'<ol class="tree">{items}</ol>'


def _beyond(answer: Answer) -> bool:
    """Say whether a number is on the bad side of its limit."""
    low = answer.codes[0] in ("TRAIN_BAD", "LR_LOW")
    return answer.value < answer.limit if low else answer.value >= answer.limit


def _lit(mark: str) -> str:
    return {"": "", "yes": "lit stop"}.get(mark, "lit")


def _findings(report: Report) -> str:
    """Give all findings with their numbers."""
    if report.ok:
        return f"<p>{escape(report.verdict)}</p>"
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
    header = [say("word.name"), say("word.value"), say("word.limit")]
    return (
        f'<div class="finding {"symptom" if symptom else f.severity}"><p><b class="code">'
        f"{escape(f.code)}</b> {escape(say(f'finding.{f.code}.title'))}</p>"
        f"<p>{escape(report.describe(f))}{escape(say('word.end'))}</p>"
        f'<details><summary class="small">{escape(say("word.comma").join(notes))}</summary>'
        f"{_table(header, rows)}</details></div>"
    )


def _remedies(report: Report) -> str:
    """Give what may help, with what it was worth."""
    say = report.say
    if not report.remedies:
        return f"<p>{escape(say('word.none_needed'))}</p>" if report.ok else ""
    rows = []
    for remedy in report.remedies:
        told, helped = report.gained(remedy), report.helped(remedy)
        word = say({True: "word.helped", False: "word.did_not_help", None: "word.untried"}[helped])
        rows.append([report.remedy(remedy), say(f"word.set_{remedy.side}"), told, word])
    header = [say("word.remedy"), say("word.side"), report.common()["measure"], ""]
    tried = any(remedy.gain for remedy in report.remedies)
    hint = "" if tried else f'<p class="small">{escape(say("word.verify"))}</p>'
    return _table(header, rows) + hint


def _comparisons(report: Report) -> str:
    """Give the networks that were trained to compare with."""
    e, say = report.evidence, report.say
    if not e.comparisons and not e.not_made:
        return ""

    def scores(score: Score | None) -> str:
        value = nan if score is None else score.metric if known(score.metric) else score.loss
        return number(value)

    rows = [[say("word.yours"), scores(e.train), scores(e.test), str(e.plan.steps or "")]]
    if e.metric and known(e.chance):
        rows.append([say("word.constant"), number(e.chance), "", ""])
    for c in e.comparisons:
        name = report.compared(c)
        cut = "" if c.complete else say("word.open") + say("word.cut") + say("word.close")
        rows.append([name + cut, scores(c.train), scores(c.test), str(c.steps)])
    header = [say("word.network"), say("word.train"), say("word.test"), say("word.steps")]
    notes = "".join(f'<p class="small">{escape(say("report.not_made", reasons=reason))}</p>'
                    for reason in map(report.not_made, e.not_made))  # fmt: skip
    return _table(header, rows, numeric=(1, 2, 3)) + notes


def _thresholds(report: Report) -> str:
    """Give the table of all thresholds."""
    say = report.say
    rows = [[name, value, report.meaning(name), report.source(source)]
            for name, value, _, source in report.thresholds.table()]  # fmt: skip
    header = [say("word.name"), say("word.value"), say("word.meaning"), say("word.source")]
    return f'<div class="scroll">{_table(header, rows)}</div>'


def _table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], numeric: Sequence[int] = ()
) -> str:
    """Give a table; numbers stand on the right."""
    if not rows:
        return ""
    right = {i for i in range(len(header))
             if i in numeric or any(isinstance(row[i], (int, float)) for row in rows)}  # fmt: skip

    def line(cells: Iterable[Any], tag: str) -> str:
        out = ""
        for i, cell in enumerate(cells):
            text = "" if cell is None else number(cell)
            css = ' class="n"' if i in right else ""
            out += f"<{tag}{css}>{escape(text)}</{tag}>"
        return f"<tr>{out}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


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
        chart = Chart(points, say("word.step"), log=logarithmic, include=series.good([level]),
                      label=name, height=200)  # fmt: skip
        chart.line(single, "c-batch")
        keys |= {"c-batch": say("word.batches")} if single else {}
        for side, line in lines:
            chart.line(line, f"c-{side}", dots=len(line) < 40, title=say(f"word.{side}"))
            keys |= {f"c-{side}": say(f"word.set_{side}")} if line else {}
        chart.level(level, say("word.constant"))
        out += f"<h3>{escape(name)}</h3>{chart}"
    return _key(keys.items()) + out if out else out


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
    if not any(max(series.good(bar[2:]), default=0) >= 0.005 for _, group in rows for bar in group):
        return f'<p class="none">{escape(say("word.no_shares"))}</p>'
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
    e, say, key, out = report.evidence, report.say, "", ""
    for i in series.shown(e):
        low, high, when, columns = series.histogram(e, i)
        if columns:
            layer = e.layers[i]
            activation = say("word.open") + layer.activation + say("word.close")
            name = f"{report.layer(layer.name)}{activation}"
            ends = f"{number(low)} .. {number(high)}"
            out += (f"<figure>{heat(columns, name)}<figcaption>{escape(name)}<br>"
                    f"{escape(ends)}</figcaption></figure>")  # fmt: skip
            time = f"{say('word.step')}{say('word.colon')}{when[0]:g} .. {when[-1]:g}"
            key = _key([("", time)])
    return f'{key}<div class="grid">{out}</div>{_hidden(report)}' if out else ""


def _sensitivity(report: Report) -> str:
    """Give the weights that matter most, and how the change of one travels through the layers."""
    say, found = report.say, report.extras.get("sensitivity") or {}
    table = [[row["parameter"] + (str(row["index"]) if row["index"] else ""),
              *(_real(row[key]) for key in ("value", "change", "difference", "gradient"))]
             for row in found.get("weights", ())[:WEIGHTS]]  # fmt: skip
    if not table:
        return ""
    words = ("parameter", "weight", "change", "difference", "gradient")
    header = [say(f"word.{word}") for word in words]
    told = say("word.added", eps=_real(found["eps"]))
    out = f'<p class="small">{escape(told)}</p><div class="scroll">{_table(header, table)}</div>'
    stops = [(i + 1.0, _real(stop["change"])) for i, stop in enumerate(found.get("travel", ()))]
    if line := [(x, y) for x, y in series.finite(stops) if y > 0]:
        title = say("word.travel", parameter=found["followed"])
        chart = Chart(line, say("word.layers"), log=True, label=title, height=180)
        chart.line(line, "c-now", dots=True, title=say("word.layers"))
        out += f"<h3>{escape(title)}</h3>{chart}"
    return out


def _shapes(report: Report) -> str:
    """Draw what Maxout and PReLU have learned; without curves, a PReLU by its slopes."""
    e, say = report.evidence, report.say
    figures, seen = [], set()
    shapes = (report.extras.get("shapes") or {}).get("shapes", [])
    for shape in (shapes[k] for k in series.spread(len(shapes), SHAPES)):
        line = series.finite(zip(map(_real, shape["x"]), map(_real, shape["y"]), strict=True))
        unit = say("word.unit", number=shape["unit"])
        name = say("word.comma").join((report.layer(shape["layer"]) or "", unit))
        figures.append((f"{name}{say('word.colon')}{shape['kind']}", [(line, "c-now")]))
        seen.add(shape["layer"])
    for layer, state in zip(e.layers, series.states(e, "now"), strict=False):
        if state.slopes and layer.name not in seen:
            lines = [([(-1.0, -slope), (0.0, 0.0), (1.0, 1.0)], css) for slope, css in
                     zip((state.slopes[0], state.slopes[-1]), ("c-init", "c-now"), strict=True)]
            told = say("word.slopes", low=state.slopes[0], high=state.slopes[-1])
            name = say("word.comma").join((report.layer(layer.name) or "", "PReLU"))
            figures.append((f"{name}{say('word.colon')}{told}", lines))
    out = "".join(f"<figure>{sketch(lines, name)}<figcaption>{escape(name)}</figcaption></figure>"
                  for name, lines in figures)  # fmt: skip
    if e.layers and not {"maxout", "prelu"} & {layer.activation for layer in e.layers}:
        out += f'<p class="none">{escape(say("word.no_shapes"))}</p>'
    return f'<div class="grid small">{out}</div>' if figures else out


def _real(value: Any) -> float:
    """Give a number of plain data, where NaN and infinity are text."""
    return float(value)


def _hidden(report: Report) -> str:
    """Say how many layers are not shown, if any."""
    count = len(report.evidence.layers) - len(series.shown(report.evidence))
    text = report.say("word.not_shown", count=count)
    return f'<p class="small">{escape(text)}</p>' if count > 0 else ""


def _key(entries: Iterable[tuple[str, str]]) -> str:
    marks = (f'<span><i class="{css}"></i>{escape(text)}</span>' if css else
             f"<span>{escape(text)}</span>" for css, text in entries)  # fmt: skip
    return f'<div class="key">{"".join(marks)}</div>'


#: Panels side by side, and panels of full width.
NARROW: dict[str, Callable[[Report], str]] = {
    "path": _path, "remedies": _remedies, "findings": _findings, "curves": _curves, "flow": _flow,
    "shares": _shares, "updates": _updates, "comparisons": _comparisons,
    "sensitivity": _sensitivity, "shapes": _shapes,
}  # fmt: skip
WIDE = {"histograms": _histograms, "thresholds": _thresholds}
#: The names of all panels, which are the ids of their sections.
PANELS = (*NARROW, *WIDE)
