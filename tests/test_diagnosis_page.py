"""The page of a report: in itself complete, safe, and drawn by a real browser."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from diagnosis_samples import bare, empty, healthy, hostile, overfit, vanishing

import microgradnd
from microgradnd.diagnosis.page import NARROW, PANELS
from microgradnd.diagnosis.report import Report
from microgradnd.diagnosis.rules import decide
from microgradnd.diagnosis.series import LAYERS

SAMPLES = {make.__name__: make for make in (healthy, vanishing, overfit, bare, empty, hostile)}
EXTRAS = {
    "sensitivity": {
        "loss": 1.0, "eps": 1e-3, "followed": "0.weight[1, 2]", "warnings": [],
        "weights": [{"parameter": "0.weight", "index": [1, 2], "value": 0.1, "change": 1e-4,
                     "difference": 0.1, "gradient": 0.1, "resolved": True},
                    {"parameter": "scale", "index": [], "value": 0.1, "change": "nan",
                     "difference": "nan", "gradient": 0.1, "resolved": False}],
        "travel": [{"layer": str(2 * i), "activation": "relu", "change": 10.0 ** -i, "gain": 1.0}
                   for i in range(4)],
    },
    "shapes": {"shapes": [{"layer": "2", "unit": 7, "kind": "abs", "slopes": [-1.0, 1.0],
                           "breaks": [0.0], "x": [-1.0, 0.0, 1.0], "y": [1.0, 0.0, 1.0],
                           "direction": [1.0]}]},
}  # fmt: skip
VOID = {"meta", "br"}


def page(name, lang="en", extras=None):
    evidence = SAMPLES[name]()
    return Report(decide(evidence), evidence, lang=lang, extras=extras).to_html()


class Reader(HTMLParser):
    """Checks that tags are closed in turn, and keeps what is in them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], ""
        self.attributes = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_is_whole_and_needs_nothing_else(name, lang):
    found = Reader(page(name, lang, EXTRAS if name == "vanishing" else None))
    assert found.open == []
    assert sorted(i for i in found.ids if i in PANELS) == sorted(PANELS)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(found.tags)
    assert not [a for a in found.attributes if a[0] in ("src", "href") or a[0].startswith("on")]
    policy = dict(found.attributes).get("content") or ""
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes, policy


def test_names_are_escaped_wherever_they_stand():
    text = page("hostile", extras=EXTRAS)
    assert "<script" not in text and text.count("</style>") == 1
    assert "&lt;script&gt;" in text


def test_what_is_missing_is_said():
    found = page("empty")
    missing = re.findall(r'<section class="panel" id="(\w+)"[^>]*>(?:(?!</section>).)*not recorded',
                         found, re.S)  # fmt: skip
    assert {"curves", "flow", "histograms", "shares", "updates", "sensitivity", "shapes"} <= {
        *missing}  # fmt: skip
    assert "not recorded" not in re.search(r'id="thresholds".*', found, re.S)[0]


def test_the_path_lights_what_was_asked():
    def lit(name):
        parts = re.search(r'<ol class="tree">(.*?)</section>', page(name), re.S)[1]
        return re.findall(r'<li(?: class="(lit(?: stop)?)")?><b>', parts)

    assert lit("healthy") == ["lit", "lit", "", "lit", "lit"]
    assert lit("vanishing") == ["lit", "lit stop", "lit stop", "", ""]
    assert lit("overfit") == ["lit", "lit", "", "lit stop", ""]


def test_an_answer_no_has_no_number_beyond_its_limit():
    e = healthy()
    e.train.metric = 0.2  # bad, though steps have a good size
    found = Report(decide(e), e)
    assert found.bad
    answers = [a for a in found.path if a.outcome == "no" and a.limit and a.value == a.value]
    low = {"TRAIN_BAD", "LR_LOW"}
    wrong = [a for a in answers if (a.value < a.limit) == (a.codes[0] in low)]
    shown = re.search(r'<ol class="tree">(.*?)</section>', found.to_html(), re.S)[1]
    lines = re.findall(r'<li class="no">.*?</li>', shown, re.S)
    told = [line for line in lines if re.search(r'class="n">[^<]', line)]
    assert len(told) == len(answers) - len(wrong)


def test_what_cannot_be_is_not_called_unrecorded():
    text = Reader(page("healthy")).text
    assert "The network has no Maxout or PReLU" in text
    e = healthy()
    for sample in (e.init, e.now):
        for layer in sample.layers:
            layer.dead = layer.zeros = layer.saturated = 0.0
    text = Reader(Report([], e).to_html()).text
    assert "None dead, none zero, none saturated" in text


def test_each_layer_has_a_colour_and_a_name():
    e = healthy(depth=40)
    keys = re.search(r'id="updates".*?<div class="key">(.*?)</div>', Report([], e).to_html(), re.S)
    css, names = zip(*re.findall(r'<i class="(\S+)"></i>(.*?)</span>', keys[1]), strict=True)
    assert len(set(css)) == len(set(names)) == LAYERS
    style = (Path(microgradnd.diagnosis.__file__).parent / "page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"\.(c-l\d+) \{ color: (.*?); \}", style))
    assert set(css) <= set(colours) and len(set(colours.values())) == LAYERS


def test_panels_show_their_numbers():
    text = Reader(page("vanishing", extras=EXTRAS)).text
    for words in ("0.weight[1, 2]", "layer 2, unit 7: abs", "another activation: relu",
                  "each weight + 0.001", "fewer layers: 1 hidden layer", "cs231n: 1e-3 is good"):
        assert words in text, words  # fmt: skip
    assert "PReLU: learned slopes from 0.05 to 0.4" in Reader(
        Report([], healthy("prelu")).to_html()).text  # fmt: skip


# ------------------------------------------------------------------------------------ a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)  # fmt: skip
browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: apt-get install chromium (Debian, Ubuntu)"
)
#: Put before everything else: notes errors, and at the end measures what the browser drew.
PROBE = """<script>
const errors = [];
addEventListener("error", e => errors.push(String(e.message || e.target)), true);
addEventListener("securitypolicyviolation", e => errors.push("policy: " + e.blockedURI));
addEventListener("load", () => {
  const box = e => {
    const b = e.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom];
  };
  const panels = {};
  for (const p of document.querySelectorAll("section.panel")) {
    const parts = p.querySelectorAll("svg, table, ol.tree, p.none, .finding");
    panels[p.id] = {box: box(p), parts: [...parts].map(box)};
  }
  const told = document.createElement("pre");
  told.id = "probe";
  told.textContent = JSON.stringify({
    errors, panels, verdict: box(document.querySelector("p.say")), title: document.title,
    wide: document.documentElement.scrollWidth, view: innerWidth,
    requests: performance.getEntriesByType("resource").map(r => r.name),
  });
  document.body.append(told);
});
</script>"""


def drawn(text, tmp_path, width=1280, height=800):
    """What the browser made of a page: errors, the boxes of its panels, the width it takes."""
    assert "Content-Security-Policy" in text  # which forbids the probe, too
    text = re.sub(r"<meta http-equiv=[^>]*>", lambda found: PROBE, text)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}",
         "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    told = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert told, done.stderr[-2000:]
    return json.loads(told[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.slow
@browser
@pytest.mark.parametrize(
    "name, lang, width",
    [("vanishing", "en", 1280), ("vanishing", "zh", 1280), ("hostile", "en", 1280),
     ("healthy", "zh", 500)],
)  # fmt: skip
def test_a_browser_draws_every_panel_and_shows_the_verdict_at_once(name, lang, width, tmp_path):
    found = drawn(page(name, lang, EXTRAS), tmp_path, width)
    assert found["errors"] == [] and found["requests"] == []
    assert found["title"] != "broken"
    assert sorted(found["panels"]) == sorted(PANELS)
    columns = {}
    for name in NARROW:
        left, _, _, bottom = found["panels"][name]["box"]
        columns[left] = max(columns.get(left, 0), bottom)
    assert len(columns) == (1 if width < 900 else 2)
    assert min(columns.values()) > 0.85 * max(columns.values())  # no large blank in one of them
    tops = [found["panels"][name]["box"][1] for name in PANELS]
    assert width >= 900 or tops == sorted(tops)  # side by side or not, what matters most is first
    for panel, boxes in found["panels"].items():
        for left, top, right, bottom in [boxes["box"], *boxes["parts"]]:
            assert right - left > 50 and bottom - top > 8, panel
        assert boxes["parts"] or panel in ("remedies", "findings"), panel
    left, top, right, bottom = found["verdict"]
    assert 0 <= left < right <= width and 0 <= top < bottom <= 800
    assert found["wide"] <= found["view"]  # nothing is cut off, no scrolling to the side


@browser
def test_a_browser_sees_errors_where_there_are_some(tmp_path):
    text = page("healthy").replace("</main>", "<script>nothing.here()</script></main>")
    assert any("nothing" in error for error in drawn(text, tmp_path)["errors"])
