"""Reports: the sentences in both languages, the printed lines, JSON, and the picture."""

import ast
import doctest
import inspect
import json
import re
import string
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
from diagnosis_samples import bare, empty, healthy, hostile, overfit, vanishing

import microgradnd as mg
from microgradnd.diagnosis import catalogue, examination, remedies, rules, series, svg
from microgradnd.diagnosis import variants as training
from microgradnd.diagnosis.evidence import Comparison, Finding, Remedy, Score, plain
from microgradnd.diagnosis.report import LINES, WIDTH, Report, columns, fill
from microgradnd.diagnosis.rules import decide
from microgradnd.diagnosis.thresholds import Thresholds

SAMPLES = {make.__name__: make for make in (healthy, vanishing, overfit, bare, empty, hostile)}


def report(evidence, lang="en", **options):
    return Report(decide(evidence), evidence, lang=lang, **options)


def of(code, lang="en", layer=None, threshold=None, **evidence):
    """The sentence on a finding with these numbers."""
    finding = Finding(code, "fault", layer=layer, evidence=evidence, threshold=threshold or {})
    return Report([finding], healthy(), lang=lang).describe(finding)


def codes():
    """All codes that rules give, out of their source."""
    calls = [n for n in ast.walk(ast.parse(inspect.getsource(rules))) if isinstance(n, ast.Call)]
    named = {c.args[0].value for c in calls
             if getattr(c.func, "id", "") == "Finding" and isinstance(c.args[0], ast.Constant)}
    return named | {code for _, code, _ in rules.TREE}


def keys():
    """All keys of remedies that rules give, out of their source."""
    calls = [n for n in ast.walk(ast.parse(inspect.getsource(rules))) if isinstance(n, ast.Call)]
    return {c.args[0].value for c in calls
            if getattr(c.func, "id", "") == "_remedy" and isinstance(c.args[0], ast.Constant)}


# ------------------------------------------------------------------------------------ catalogue


def entries(lang):
    """All texts of a language by dotted key, each as a list of variants."""

    def walk(tree, path):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, (*path, key))
            else:
                yield ".".join((*path, key)), [value] if isinstance(value, str) else value

    return {key: found for key, found in walk(catalogue.texts(lang), ())
            if not key.startswith(("threshold.", "source.", "sources.", "said."))}


def names(text):
    """The fields of a text, shown and asked for."""
    flat = text.replace("[[", "").replace("]]", "")
    return {(name, how) for _, name, how, _ in string.Formatter().parse(flat) if name}


def test_both_languages_have_the_same_keys_and_shown_fields():
    english, chinese = entries("en"), entries("zh")
    assert english.keys() == chinese.keys()
    own = {"verdict.try", "verdict.finding", "verdict.bad"}  # what each language says of its own
    for key in english.keys() - own:
        assert [names(t) for t in english[key]] == [names(t) for t in chinese[key]], key
        assert [t.count("[[") for t in english[key]] == [t.count("[[") for t in chinese[key]], key


def test_every_text_can_be_read_and_no_bracket_is_left_open():
    for lang in catalogue.LANGUAGES:
        for key, variants in entries(lang).items():
            for text in variants:
                assert text.count("[[") == text.count("]]"), key
                names(text)  # raises for a brace too many


@pytest.mark.parametrize("lang", catalogue.LANGUAGES)
def test_every_code_remedy_and_check_has_its_texts(lang):
    for code in codes():
        assert catalogue.say(lang, f"finding.{code}.title")
        assert catalogue.say(lang, f"finding.{code}.text", measure="x"), code  # without numbers
    for key in keys() | set(remedies.TRY):
        assert catalogue.say(lang, f"remedy.{key}"), key
    for check in rules.CHECKS:
        assert catalogue.say(lang, f"check.{check}")
    for outcome in ("ok", "bad", "yes", "warning", "no", "unknown", "skipped"):
        assert catalogue.say(lang, f"answer.{outcome}")


def test_every_threshold_has_a_chinese_meaning_and_source():
    chinese = catalogue.texts("zh")
    table = Thresholds().table()
    assert set(chinese["threshold"]) == {name for name, *_ in table}
    sources = [source for *_, source in table]
    sources += [rules.CERTAIN, "; ".join(sources[:3]), "; ".join(dict.fromkeys(sources))]
    for source in sources:
        told = Report([], empty(), lang="zh").source(source)
        assert (told == source and " " not in source) or not re.search("[a-z]{3} [a-z]", told), told


def made_in_english():
    """What comparisons and reasons are called in the code, with words in place of fields.

    Of each: whether it is all of a line that says what was not made, and the text.
    """
    for module in (training, remedies, examination):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            found = []
            if name in ("Impossible", "found.not_made.append"):
                found = node.args[:1]
            elif name in ("like", "Comparison"):
                found = node.args[1:2]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "why":
                found = [node.value]
            elif isinstance(node, ast.Assign) and ast.unparse(node).startswith("text = f"):
                found = [node.value.value.func.value]  # of which the first line is taken
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                found = node.value.elts[1:]
            if found and isinstance(found[0], ast.IfExp):
                found = [found[0].body, found[0].orelse]
            for text in found:
                if isinstance(text, (ast.Constant, ast.JoinedStr)):
                    parts = getattr(text, "values", [text])
                    yield name.endswith("append") or ast.unparse(node).startswith("text"), "".join(
                        str(p.value) if isinstance(p, ast.Constant) else "X1" for p in parts
                    )


def test_what_is_made_in_english_is_shown_in_chinese():
    chinese = Report([], empty(), lang="zh")
    seen = [pair for pair in made_in_english() if re.search("[a-z]{2} [a-z]", pair[1])]
    assert len(seen) > 30
    for whole, text in [*seen, (True, examination.NO_TRAINING)]:
        told = chinese.not_made(text if whole else f"shallow: {text}")
        left = re.sub(r"mg\.optim|[a-z_]+=|nn\.\w+", "", told)
        assert re.search("[\u4e00-\u9fff]", told) and not re.search("[a-z]{2} [a-z]", left), told
    assert chinese.not_made("shallow, reference: a record holds no data") == (
        "层数更少的网络、输入标准化的普通网络\uff1a记录里没有数据"
    )
    assert chinese.not_made("dropout: it raised TypeError: no such axis") == (
        "dropout\uff1a出现异常 TypeError: no such axis"
    )
    assert "参数 0.weight" in of("NONFINITE", "zh", step=3, where="the parameter 0.weight")
    english = Report([], empty())
    assert english.compared(Comparison("adaptive", "Adam 0.01")) == "Adam 0.01"
    assert english.compared(Comparison("shallow", "")) == "fewer layers"


def test_fields_are_left_out_or_decide_between_variants():
    assert of("NONFINITE", step=3, where="log") == (
        "the loss is NaN or infinite from step 3 on; it began in log"
    )
    assert of("NONFINITE", step=3, where="") == "the loss is NaN or infinite from step 3 on"
    assert of("NONFINITE") == "there are NaN or infinite numbers"
    with pytest.raises(KeyError, match=r"word.confidence.*\['value'\]"):
        catalogue.say("en", "word.confidence", value=nan)
    with pytest.raises(ValueError, match="'en', 'zh', got 'de'"):
        Report([], empty(), lang="de")


def test_a_field_with_braces_is_shown_as_it_is():
    assert of("UNREACHED", parameters=["{0}", "[[a]]"]) == "no gradient ever reaches {0}, [[a]]"


@pytest.mark.parametrize(
    "value, text",
    [(2.4e-6, "2.4e-6"), (0.1, "0.1"), (0.12345, "0.123"), (123456.0, "1.2e5"), (-2.5, "-2.5"),
     (inf, "∞"), (-inf, "-∞"), (nan, "-"), (True, "True"), (10**7, "1e7"), (0.0, "0"), ("x", "x")],
)  # fmt: skip
def test_numbers_are_written_as_people_do(value, text):
    assert catalogue.number(value) == text


# ------------------------------------------------------------------------------------- verdicts


def test_the_verdict_on_a_vanishing_gradient_in_both_languages():
    found = report(vanishing())
    assert found.roots[0].code == "VANISHING"
    assert found.verdict == (
        "VANISHING: the gradient at layer 1 is 2.1e-6 of layer 10, 0.63 decades per layer. "
        "Not overfitting: training accuracy is 0.10. "
        "Try relu or maxout with its own initialisation."
    )
    chinese = found.translate("zh").verdict
    assert "第 1 层的梯度只有第 10 层的 2.1e-6" in chinese and "梯度消失" in chinese
    assert "训练集就没学好（0.10），不是过拟合；先换激活函数：relu 或 maxout" in chinese  # noqa: RUF001


def test_the_verdict_on_overfitting_names_the_remedies_of_its_side():
    found = report(overfit())
    assert [f.code for f in found.roots] == ["OVERFIT"]
    assert "training accuracy is 1.00, test accuracy 0.80" in found.verdict
    assert "Not overfitting" not in found.verdict
    assert found.verdict.endswith("Then look at the training result again.")
    assert {remedy.side for remedy in found.remedies} == {"test"}
    assert "过拟合" in found.translate("zh").verdict


def test_a_healthy_network_and_one_with_a_warning():
    found = report(healthy())
    assert found.ok and found.severity == "ok"
    assert found.verdict == (
        "OK: accuracy is 0.98 on the training set and 0.96 on the test set; "
        "nothing wrong was found."
    )
    doubt = Report([Finding("DEAD", "warning", layer="2", evidence={"share": 0.35})], healthy())
    assert (doubt.ok, doubt.severity, doubt.roots) == (False, "warning", [])
    assert doubt.verdict.startswith("No fault: training accuracy is 0.98, test accuracy 0.96. DEAD")
    assert "35% of the units of layer 2 are off" in doubt.verdict


def test_nobody_says_overfit_of_a_bad_training_result():
    for lang, word in (("en", "overfit"), ("zh", "过拟合")):
        text = str(report(vanishing(), lang)).lower()
        denied = {"en": "not overfitting", "zh": "不是过拟合"}[lang]
        assert text.count(word) == text.count(denied) == 1


def test_layers_are_counted_and_named_if_their_name_is_a_word():
    e = healthy()
    e.layers[1].name = "encoder.fc"
    found = Report([], e)
    assert found.layer("0") == "layer 1"
    assert found.layer("encoder.fc") == "layer 2 (encoder.fc)"
    assert found.layer("gone") == "gone" and found.layer(None) is None


# --------------------------------------------------------------------------------------- printed


@pytest.mark.parametrize("lang", catalogue.LANGUAGES)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_report_is_at_most_12_lines_that_fit(name, lang):
    lines = str(report(SAMPLES[name](), lang)).splitlines()
    assert 1 <= len(lines) <= LINES == 12
    if name != "hostile":  # its words are longer than a line
        assert max(map(columns, lines)) <= WIDTH


def test_the_least_important_lines_give_way():
    e = vanishing()
    e.not_made = ["why " * 60, "and why " * 60]
    found = report(e)
    many = [replace(f, code="DEAD", severity="warning") for f in found.findings] * 9
    long = Report([*found.findings, *many], e)
    lines = str(long).splitlines()
    assert len(lines) <= 12 and lines[0].startswith("VANISHING") and "not compared" not in lines[-1]
    assert any("checked: model at fault (VANISHING)" in line for line in lines)


def test_the_lines_say_checks_symptoms_and_remedies():
    text = str(report(vanishing()))
    assert "accuracy: training 0.100, test 0.090, best constant output 0.100" in text
    assert "checked: model at fault (VANISHING); loss in order; optimizer in order" in text
    assert "explained by VANISHING: " in text and "TRAIN_BAD" in text
    assert "for the training result: another activation: relu" in text
    assert "test result:" not in text


def test_lines_break_at_spaces_and_behind_chinese_characters():
    assert fill("one two three", width=8) == ["one two", "    three"]
    assert fill("一二三四五，六", width=9) == ["一二三四", "    五，", "    六"]  # noqa: RUF001
    assert fill("") == [""]


def gained(remedy, metric, test=nan):
    """The remedy, tried."""
    return replace(remedy, gain=Comparison(remedy.key, train=Score(9, 1.0, metric),
                                           test=Score(9, 1.0, test)))  # fmt: skip


def test_what_was_tried_and_helped_comes_first_and_what_did_not_help_is_said():
    e = vanishing()
    found = decide(e)
    relu, maxout, *_ = found[0].remedies
    adam = Remedy("adaptive", "train")
    found[0].remedies = [gained(adam, 0.1), maxout, gained(relu, 0.99)]
    shown = Report(found, e)
    assert [r.key for r in shown.remedies] == ["activation", "activation", "adaptive"]
    assert [shown.helped(r) for r in shown.remedies] == [True, None, False]
    assert "Try relu or maxout" in shown.verdict
    assert "another activation: relu (0.10 -> 0.99)" in shown.offered(shown.remedies[0])
    assert "adaptive learning rate (0.10 -> 0.10, did not help)" in shown.offered(shown.remedies[2])
    assert "没有用" in Report(found, e, lang="zh").offered(shown.remedies[2])


def test_a_remedy_of_the_test_side_is_measured_there():
    e = overfit()
    tried = gained(Remedy("dropout", "test"), metric=0.7, test=0.9)
    assert Report([], e).gain(tried) == (0.8, 0.9)
    assert Report([], e).gain(replace(tried, side="train")) == (1.0, 0.7)


# ------------------------------------------------------------------------------------- elsewhere


@pytest.mark.parametrize("name", SAMPLES)
def test_json_is_strict_and_complete(name, tmp_path):
    e = SAMPLES[name]()
    found = report(e, extras={"sensitivity": {"loss": nan}})
    text = found.to_json(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == text

    def never(constant):
        raise AssertionError(f"{constant} is not JSON")

    data = json.loads(text, parse_constant=never)
    assert data["evidence"] == json.loads(json.dumps(plain(e)))
    assert data["roots"] == [f.code for f in found.roots]
    assert data["extras"] == {"sensitivity": {"loss": "nan"}}
    assert data["severity"] == found.severity and data["verdict"] == found.verdict
    assert len(data["path"]) == len(found.path) and data["thresholds"]["margin"] == 0.05


def test_repr_and_what_notebooks_show():
    found = report(hostile())
    assert repr(report(healthy())) == "<Report ok: OK>"
    assert repr(found).startswith("<Report fault: ")
    assert "<script" not in found._repr_html_() and "&lt;" in found._repr_html_()


@pytest.mark.parametrize(
    "name",
    [pytest.param(s, marks=() if i == 0 else pytest.mark.slow) for i, s in enumerate(SAMPLES)],
)
def test_the_picture_has_six_panels(name, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lang = "zh" if name == "vanishing" else "en"
    figure = report(SAMPLES[name](), lang).plot(tmp_path / "r.png")
    assert 6 <= len(figure.axes) <= 7  # with the scale of the layers' colours
    drawn = [bool(a.lines or a.patches or a.images or a.texts) for a in figure.axes[:6]]
    assert all(drawn) and (tmp_path / "r.png").stat().st_size > 10000
    assert not plt.get_fignums()


def test_the_picture_draws_the_loss_of_steps_where_nobody_recorded_the_metric():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    e = healthy()
    for sample in e.samples:
        sample.train = sample.test = None
    figure = Report([], e).plot()
    assert figure.axes[0].get_title() == "Loss"
    assert [len(line.get_xdata()) for line in figure.axes[0].lines][:1] == [len(e.losses)]
    assert all(tick == round(tick) for tick in figure.axes[1].get_xticks())
    plt.close(figure)


def test_the_picture_says_why_there_are_no_bars():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    e = healthy()
    for layer in e.now.layers:
        layer.dead = layer.zeros = layer.saturated = 0.0
    figure = Report([], e).plot()
    assert [t.get_text() for t in figure.axes[3].texts] == ["None dead, none zero, none saturated."]
    plt.close(figure)


def test_remedies_of_a_loss_that_ran_away_or_of_a_bad_fit():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    e = replace(healthy(), metric="r2", chance=0.0, train=Score(300, nan, -inf))
    tried = [gained(Remedy("lower_rate", "train"), 0.4), gained(Remedy("clip", "train"), -1.3)]
    found = Report([Finding("LR_HIGH", "fault", remedies=tried)], e)
    assert [found.helped(r) for r in tried] == [True, False]
    assert found.offered(tried[0]) == "a lower learning rate (-∞ -> 0.40)"
    figure = found.plot()
    axes = figure.axes[5]
    assert sorted(bar.get_width() for bar in axes.patches) == [-1.3, 0.4]
    assert axes.get_xlim() == (-2.0, 1.0)
    plt.close(figure)


def test_the_picture_shows_what_remedies_were_worth():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    e = vanishing()
    found = decide(e)
    found[0].remedies = [gained(r, 0.9) for r in found[0].remedies[:2]]
    figure = Report(found, e).plot()
    assert [bar.get_width() for bar in figure.axes[5].patches] == [0.9, 0.9]
    plt.close(figure)


# ---------------------------------------------------------------------------- numbers of panels


def test_histograms_over_time_share_their_rows():
    e = healthy()
    low, high, when, shares = series.histogram(e, 1)
    assert (low, high) == (-1.0, 3.0)
    assert when == [*range(0, 400, 50), 400]
    assert all(len(column) == series.ROWS and max(column) == 1.0 for column in shares)
    e.samples[3].layers[1].low, e.samples[3].layers[1].high = 5.0, 5.0  # all values the same
    low, high, _, shares = series.histogram(e, 1)
    assert (low, high) == (-1.0, 5.0)
    assert [r for r, share in enumerate(shares[3]) if share] == [series.ROWS - 1]
    assert sum(shares[0][series.ROWS // 6 * 5 :]) == 0  # nothing between 3 and 5


def test_the_last_point_of_a_curve_is_of_the_whole_set():
    e = healthy()
    e.samples[-1].step = 400
    line = series.curve(e, "train", "metric")
    assert line[-1] == (400, 0.98) and len(line) == 8


def test_layers_shown_are_few_and_include_both_ends():
    e = healthy(depth=40)
    shown = series.shown(e)
    assert len(shown) == series.LAYERS and shown[0] == 0 and shown[-1] == 40
    assert "25 more are not shown" in report(e).to_html()


def test_the_page_in_docs_prints_what_it_says():
    root = Path(__file__).resolve().parents[1]
    text = (root / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    by_hand, mark, _ = text.partition("<!-- Generated from here on")
    generator = mg.random.default_generator()
    before = dict(generator.state)
    example = doctest.DocTestParser().get_doctest(by_hand, {}, "diagnosis.md", None, 0)
    outcome = doctest.DocTestRunner(verbose=False).run(example)
    generator.state = before
    assert mark and outcome.attempted > 10 and outcome.failed == 0


def test_ticks_are_round_and_within():
    assert svg.ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.decades(-7.2, -0.5) == [1e-7, 1e-5, 1e-3, 0.1]
    assert svg.decades(-0.9, 0.1) == [0.2, 0.5, 1.0]
