"""What `diagnose` gives: the findings, and the verdict on them for people.

The verdict comes first, then what was checked, then what else was found and what may help. Remedies
are those of the side that is bad: what helps the test result does not help the training result.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from html import escape
from math import isnan
from pathlib import Path
from typing import Any

from .catalogue import known, number, say, texts, translated
from .evidence import Comparison, Evidence, Finding, Remedy, plain
from .rules import Answer, checks, path, roots
from .thresholds import Thresholds

__all__ = ["Report"]

#: Columns and lines of a printed report.
WIDTH, LINES = 100, 12
#: Names in a list, and remedies, before "and 7 more".
NAMES, REMEDIES = 3, 4


class Report:
    """The outcome of a diagnosis: print it, or write it as a page, a picture or JSON.

    Args:
        findings: As `decide` gives them.
        evidence: What they were made from.
        thresholds: What it was compared with; None: the defaults.
        lang: `"en"` or `"zh"`.
        extras: For the page only: plain data of `sensitivity` and `learned_shapes`.

    Example:
        >>> from microgradnd.diagnosis import Evidence
        >>> from microgradnd.diagnosis.evidence import Score
        >>> print(Report([], Evidence(metric="accuracy", train=Score(90, 0.1, 0.98))).verdict)
        OK: accuracy is 0.98 on the training set; nothing wrong was found.
    """

    def __init__(
        self, findings: Iterable[Finding], evidence: Evidence,
        thresholds: Thresholds | None = None, lang: str = "en",
        extras: dict[str, Any] | None = None,
    ):  # fmt: skip
        texts(lang)  # refuses what there is not
        self.findings, self.evidence, self.lang = list(findings), evidence, lang
        self.thresholds, self.extras = thresholds or Thresholds(), dict(extras or {})

    def translate(self, lang: str) -> Report:
        """Give the same report in another language, `"en"` or `"zh"`."""
        return Report(self.findings, self.evidence, self.thresholds, lang, self.extras)

    def say(self, key: str, fields: dict[str, Any] | None = None, **more: Any) -> str:
        """Give a text of the catalogue, in the report's language."""
        return say(self.lang, key, {**self.common(), **(fields or {}), **more})

    # --- what was found

    @property
    def roots(self) -> list[Finding]:
        """The faults that no other finding explains; the first is the cause."""
        faults = [f for f in self.findings if f.severity == "fault"]
        return roots(self.findings) or faults[:1]

    @property
    def severity(self) -> str:
        """`"ok"`, `"warning"` or `"fault"`: the worst of the findings."""
        found = {finding.severity for finding in self.findings}
        return "fault" if "fault" in found else "warning" if found else "ok"

    @property
    def ok(self) -> bool:
        """Whether there is no finding at all."""
        return not self.findings

    @property
    def checks(self) -> list[Answer]:
        """The three checks of classical machine learning: model, loss, optimizer."""
        return checks(self.evidence, self.findings)

    @property
    def path(self) -> list[Answer]:
        """The way through the decision tree, question by question."""
        return path(self.evidence, self.findings, self.thresholds)

    @property
    def measure(self) -> str:
        """The name of the metric: `"accuracy"`, `"r2"`, or `"metric"` for any other."""
        return self.evidence.metric if self.evidence.metric in ("accuracy", "r2") else "metric"

    @property
    def bad(self) -> bool:
        """Whether the result on the training set is bad, so that nothing can be overfitted."""
        return any(finding.code == "TRAIN_BAD" for finding in self.findings)

    @property
    def remedies(self) -> list[Remedy]:
        """What may help: first what was tried and helped, then what was not tried."""
        found: dict[str, Remedy] = {}
        for finding in self.roots or self.findings:
            for remedy in finding.remedies:
                found.setdefault(self.remedy(remedy), remedy)
        return sorted(found.values(), key=self._promise)

    def gain(self, remedy: Remedy) -> tuple[float, float] | None:
        """Give the metric of the remedy's side before and after, if it was tried."""
        if remedy.gain is None:
            return None
        pair = (self.evidence.train, remedy.gain.train)
        if remedy.side == "test" and self.evidence.test and remedy.gain.test:
            pair = (self.evidence.test, remedy.gain.test)
        before, after = (score.metric for score in pair)
        return None if isnan(before) or isnan(after) else (before, after)

    def helped(self, remedy: Remedy) -> bool | None:
        """Say whether a remedy helped; None if it was not tried."""
        gain = self.gain(remedy)
        if gain is None:
            return None
        before, after = gain
        if not known(before):  # the loss ran away: to be no worse than a constant is something
            return after >= (self.evidence.chance if known(self.evidence.chance) else 0.0)
        return after - before > self.thresholds.margin

    def gained(self, remedy: Remedy) -> str:
        """Give the metric before and after as text; "" if the remedy was not tried."""
        gain = self.gain(remedy)
        if gain is None:
            return ""
        before, after = (f"{m:.2f}" if abs(m) < 1000 else number(m) for m in gain)
        return self.say("word.gain", before=before, after=after)

    def _promise(self, remedy: Remedy) -> tuple[int, float]:
        gain, helped = self.gain(remedy), self.helped(remedy)
        if gain is None:
            return 1, 0.0
        return (0, max(gain[0], 0.0) - gain[1]) if helped else (2, 0.0)

    # --- in words

    @property
    def verdict(self) -> str:
        """The most important thing, in one to three sentences."""
        if self.ok:
            sentences = [self.say("verdict.ok")]
        elif not self.roots:
            sentences = [self.say("verdict.warning"), self.headline(self.findings[0])]
        else:
            root = self.roots[0]
            sentences = [self.headline(root), self._result(root)]
            if root.side == "test":
                sentences.append(self.say("verdict.recheck"))
        stop, end = self.say("word.stop"), self.say("word.end")
        return stop.join(filter(None, sentences)) + end

    def _result(self, root: Finding) -> str:
        """Say how good the training result is, and what to try first."""
        result = ""
        if self.bad:
            result = self.say("verdict.bad")
        elif root.code != "OVERFIT" and known(self.evidence.train.metric):
            result = self.say("verdict.good")
        return self.say("verdict.then").join(filter(None, (result, self._try(root))))

    def headline(self, finding: Finding) -> str:
        """Give a finding as `CODE: what is so`."""
        title = self.say(f"finding.{finding.code}.title")
        return self.say("verdict.finding", code=finding.code, title=title,
                        text=self.describe(finding))  # fmt: skip

    def describe(self, finding: Finding) -> str:
        """Say what was found, with its numbers."""
        return self.say(f"finding.{finding.code}.text", self.fields(finding))

    def remedy(self, remedy: Remedy, short: bool = False) -> str:
        """Say what a remedy is; in short, if it is said already what kind it is of."""
        return self.say(f"remedy.{remedy.key}", self._told(remedy.details), short=short)

    def layer(self, name: str | None) -> str | None:
        """Give a layer's number, and its name if that is more than a number."""
        names = [layer.name for layer in self.evidence.layers]
        if name not in names:
            return name
        shown = "" if name.replace(".", "").isdigit() else name
        return self.say("word.layer", number=names.index(name) + 1, name=shown)

    def meaning(self, name: str) -> str:
        """Give the meaning of a threshold."""
        return str(texts(self.lang)["threshold"][name])

    def source(self, english: str) -> str:
        """Give where a threshold comes from, or several do."""
        found = texts(self.lang).get("source", {})
        for key in sorted(found, key=len, reverse=True):
            english = english.replace(key, found[key])
        return english.replace("; ", self.say("word.semicolon"))

    def compared(self, comparison: Comparison) -> str:
        """Say what a network was that was trained to compare with."""
        kind = self.kind(comparison.what) if comparison.what in self._kinds else ""
        changed = translated(self.lang, comparison.changed)
        return self.say("word.colon").join(filter(None, (kind, changed))) or comparison.what

    def not_made(self, english: str) -> str:
        """Say what was not compared, and why."""
        what, _, why = english.partition(": ")
        kinds = self.say("word.comma").join(map(self.kind, what.split(", ")))
        return self.say("word.colon").join(filter(None, (kinds, translated(self.lang, why))))

    @property
    def _kinds(self) -> dict[str, str]:
        return dict(texts(self.lang)["comparison"])

    def kind(self, what: str) -> str:
        """Say what kind of network a comparison is with: a remedy's, for most of them."""
        if what in self._kinds:
            return self._kinds[what]
        remedy = what in texts(self.lang)["remedy"]
        return self.say(f"remedy.{what}") if remedy else translated(self.lang, what)

    def _try(self, root: Finding) -> str:
        """Name the most promising remedy; of several activations two."""
        if not root.remedies:
            return ""
        order = sorted(root.remedies, key=self._promise)
        alike = [r for r in order if r.key == order[0].key and self.helped(r) is not False]
        names = [self.remedy(r, short=True) for r in alike[:2] or order[:1]]
        return self.say("verdict.try", _flags({"key": order[0].key}),
                        remedies=self.say("word.or").join(names))  # fmt: skip

    def common(self) -> dict[str, Any]:
        """Give the fields that every text may use."""
        e = self.evidence
        reference, shallow = e.compared("reference"), e.compared("shallow")
        return {
            "measure": say(self.lang, f"word.{self.measure}"),
            "train": e.train.metric, "train_loss": e.train.loss,
            "test": e.test.metric if e.test else None,
            "test_loss": e.test.loss if e.test else None,
            "chance": e.chance if e.metric else None, "constant": e.constant,
            "reference_score": reference.test.metric if reference and reference.test else None,
            "shallow_score": shallow.train.metric if shallow else None,
        }  # fmt: skip

    def fields(self, finding: Finding) -> dict[str, Any]:
        """Give what a finding's text may use: its numbers, their limits, and flags of both."""
        found = self._told(finding.evidence)
        for name, limit in finding.threshold.items():
            found[f"limit_{name}"] = limit
            value = finding.evidence.get(name)
            if isinstance(value, (int, float)) and isinstance(limit, (int, float)):
                found[f"over_{name}"], found[f"under_{name}"] = value >= limit, value < limit
        found["layer"] = self.layer(finding.layer)
        ends = finding.evidence.get("ends") or [None, None]
        found["first"], found["last"] = map(self.layer, ends)
        if known(found.get("decades")):
            found["factor"] = 10.0 ** found["decades"]
        if names := finding.evidence.get("parameters"):
            found["parameters"] = self.listed(names)
        found["foreign"] = found.get("foreign") or None
        return found

    def _told(self, details: dict[str, Any]) -> dict[str, Any]:
        """Give details and flags of them; where something is, in the report's language."""
        where = translated(self.lang, str(details.get("where") or ""))
        return {**_flags(details), "where": where}

    def listed(self, names: list[str], most: int = NAMES) -> str:
        """Give names as text, no more than a few."""
        more = [self.say("report.more", count=len(names) - most)] if len(names) > most else []
        return self.say("word.comma").join([*map(str, names[:most]), *more])

    # --- printed

    def __repr__(self) -> str:
        codes = ", ".join(f.code for f in self.findings) or "OK"
        return f"<Report {self.severity}: {codes}>"

    def __str__(self) -> str:
        lines = [(9, self.verdict), *self._scores(), *self._rest()]
        while sum(len(fill(text)) for _, text in lines) > LINES and len(lines) > 1:
            lines.remove(min(lines[::-1], key=lambda line: line[0]))
        out = [fill(text, "  " if i else "") for i, (_, text) in enumerate(lines)]
        return "\n".join([line for block in out for line in block][:LINES])

    def _scores(self) -> list[tuple[int, str]]:
        """Give the numbers of the sets and the checks, with the weight of each line."""
        e, lines = self.evidence, []
        if known(e.train.metric) or known(e.train.loss):
            lines.append((7, self.say("report.scores")))
        if self.findings:
            checked = self.say("word.semicolon").join(map(self.checked, self.checks))
            lines.append((8, self.say("report.checked", checks=checked)))
        return lines

    def checked(self, answer: Answer) -> str:
        """Give the outcome of one of the three checks."""
        codes = self.say("word.open") + ", ".join(answer.codes) + self.say("word.close")
        name, outcome = self.say(f"check.{answer.step}"), self.say(f"answer.{answer.outcome}")
        return f"{name} {outcome}{codes if answer.codes else ''}"

    def _rest(self) -> list[tuple[int, str]]:
        causes, e = self.roots, self.evidence
        shown = [*causes[:1], *([] if causes else self.findings[:1])]
        lines = [(6, self.say("report.also", code=f.code, text=self.describe(f)))
                 for f in causes[1:3]]  # fmt: skip
        explained = {f.code for f in self.findings if f not in causes and f.severity == "fault"}
        for cause in causes:
            codes = [code for code in cause.explains if code in explained]
            explained -= set(codes)
            if codes:
                lines.append((5, self.say("report.explained", by=cause.code,
                                          codes=", ".join(dict.fromkeys(codes)))))  # fmt: skip
        doubts = [f for f in self.findings if f.severity == "warning" and f not in shown]
        lines += [(3, self.say("report.warning", code=f.code, text=self.describe(f)))
                  for f in doubts[:2]]  # fmt: skip
        for side in ("train", "test"):
            remedies = [self.offered(r) for r in self.remedies if r.side == side]
            if remedies and causes:
                text = self.say("word.semicolon").join(remedies[:REMEDIES])
                lines.append((4, self.say(f"report.remedies_{side}", remedies=text)))
        if e.not_made:
            reasons = self.say("word.semicolon").join(map(self.not_made, e.not_made[:2]))
            lines.append((2, self.say("report.not_made", reasons=reasons)))
        return lines

    def offered(self, remedy: Remedy) -> str:
        """Give a remedy with its gain, if it was tried."""
        numbers = self.gained(remedy)
        if not numbers:
            return self.remedy(remedy)
        vain = "" if self.helped(remedy) else self.say("word.comma") + self.say("word.did_not_help")
        open_, close = self.say("word.open"), self.say("word.close")
        return f"{self.remedy(remedy)}{open_}{numbers}{vain}{close}"

    # --- elsewhere

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain data, ready for JSON."""
        return {
            "severity": self.severity, "verdict": self.verdict,
            "roots": [f.code for f in self.roots], "findings": plain(self.findings),
            "checks": plain(self.checks), "path": plain(self.path),
            "evidence": plain(self.evidence), "thresholds": plain(self.thresholds),
            "extras": plain(self.extras),
        }  # fmt: skip

    def to_json(self, path: Any = None, indent: int | None = None) -> str:
        """Give the report as JSON text (NaN and infinity as text); also into a file.

        Args:
            path: Write it there.
            indent: As of `json.dumps`.
        """
        text = json.dumps(self.as_dict(), indent=indent, ensure_ascii=False, allow_nan=False)
        return _written(text, path)

    def to_html(self, path: Any = None) -> str:
        """Give the report as one page that needs nothing else; also into a file.

        Args:
            path: Write it there.
        """
        from .page import page

        return _written(page(self), path)

    def plot(self, path: Any = None) -> Any:
        """Draw six panels: curves, gradient flow, histograms, shares, steps, remedies.

        Args:
            path: Write the picture there.

        Returns:
            The matplotlib figure (closed, if it was written).

        Raises:
            ImportError: Without matplotlib.
        """
        from .pictures import six

        return six(self, path)

    def _repr_html_(self) -> str:
        """Give what notebooks show."""
        return f"<pre style='white-space:pre-wrap'>{escape(str(self))}</pre>"


def _flags(details: dict[str, Any]) -> dict[str, Any]:
    """Add flags that texts can ask for: of `when="init"` `when_init`, of numbers `plus_name`."""
    flags: dict[str, Any] = {}
    for name, value in details.items():
        if isinstance(value, str) and value:
            flags[f"{name}_{value.replace(' ', '_')}"] = True
        elif isinstance(value, (int, float)):
            flags[f"plus_{name}"] = value > 0
    return {**flags, **details}


def _written(text: str, path: Any) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    return text


def columns(text: str) -> int:
    """Count the columns that a text takes in a terminal: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fill(text: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """Break a text into lines: at spaces, and behind wide characters.

    Example:
        >>> fill("one two three", width=8)
        ['one two', '    three']
    """
    lines, line = [], indent
    for word in _words(text):
        if columns(line + word.rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line, word = "    ", word.lstrip()
        line += word
    return [*lines, line.rstrip()]


def _words(text: str) -> Iterable[str]:
    word = ""
    for c, after in zip(text, f"{text[1:]} ", strict=False):
        word += c
        glued = columns(after) == 2 and unicodedata.category(after) in ("Po", "Pe")
        glued = glued or unicodedata.category(c) == "Ps"
        if (c == " " or 2 in (columns(c), columns(after))) and not glued:
            yield word
            word = ""
    yield word
