"""The report as a picture of six panels, by matplotlib."""

from __future__ import annotations

from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from ..extras import need
from . import series
from .catalogue import known
from .facts import finite

if TYPE_CHECKING:
    from .report import Report

#: Fonts with Chinese characters, the usual one of each system first.
FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "SimHei",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Source Han Sans SC", "Arial Unicode MS",
)  # fmt: skip
BLUE, ORANGE, GREY, RED, AMBER = "#1f5fc4", "#d9722e", "#7f8b9b", "#c0272d", "#d39a17"


def six(report: Report, path: Any = None) -> Any:
    """Draw curves, gradient flow, histograms, shares, steps and remedies.

    Without a font that has Chinese characters, the picture is in English.

    Args:
        report: What to draw.
        path: Write the picture there, and close it.

    Returns:
        The matplotlib figure.

    Raises:
        ImportError: Without matplotlib.
    """
    plt = need("matplotlib.pyplot", "examples", "Report.plot")
    settings: dict[str, Any] = {"font.size": 9, "axes.titlesize": 10, "axes.grid": True,
                                "grid.alpha": 0.3}  # fmt: skip
    if report.lang == "zh":
        font = _font()
        report = report if font else report.translate("en")
        settings |= {"font.family": [font] if font else ["sans-serif"]}
    with plt.rc_context(settings):
        figure, grid = plt.subplots(2, 3, figsize=(14, 7.6), layout="constrained")
        panels = {"curves": _curves, "flow": _flow, "histograms": _histograms,
                  "shares": _shares, "updates": _updates, "remedies": _remedies}  # fmt: skip
        for axes, (name, draw) in zip(grid.flat, panels.items(), strict=True):
            axes.set_title(report.say(f"panel.{name}.title"))
            if not draw(report, axes):
                fine = name == "remedies" and report.ok
                word = "word.none_needed" if fine else "word.nothing"
                axes.text(0.5, 0.5, report.say(word), ha="center", color=GREY,
                          transform=axes.transAxes)  # fmt: skip
                axes.set(xticks=[], yticks=[])
            if axes.get_legend_handles_labels()[1]:  # below the panel, where it covers nothing
                axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4,
                            frameon=False)  # fmt: skip
        from .report import fill

        figure.suptitle("\n".join(fill(report.verdict, width=140)), x=0.01, ha="left")
        if path is not None:
            figure.savefig(path, dpi=100)
            plt.close(figure)
    return figure


def _font() -> str | None:
    manager = need("matplotlib.font_manager", "examples", "Report.plot")
    known_fonts = set(manager.get_font_names())
    return next((font for font in FONTS if font in known_fonts), None)


def _lines(report: Report, axes: Any, lines: list[tuple[str, series.Points, Any]]) -> list[float]:
    """Draw what there is of some lines, by name and style; give all their heights."""
    for word, points, style in lines:
        if points:
            axes.plot(*zip(*points, strict=True), label=report.say(f"word.{word}"), **style)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    return [y for _, points, _ in lines for _, y in points]


def _curves(report: Report, axes: Any) -> bool:
    """The metric, or the loss where nobody recorded the metric."""
    e = report.evidence
    metric = series.curve(e, "train", "metric")
    what = "metric" if len(metric) > 1 or (metric and not e.losses) else "loss"
    level = e.chance if what == "metric" else e.constant
    seen = _lines(report, axes, [
        ("batches", series.losses(e) if what == "loss" else [],
         {"color": BLUE, "alpha": 0.4, "lw": 0.8}),
        *((f"set_{side}", series.curve(e, side, what), {"color": colour, "marker": "o", "ms": 3})
          for side, colour in (("train", BLUE), ("test", ORANGE))),
    ])  # fmt: skip
    if seen and known(level):
        axes.axhline(level, color=GREY, ls="--", lw=1, label=report.say("word.constant"))
        seen.append(level)
    if seen:
        name = report.common()["measure"] if what == "metric" else report.say("word.loss")
        axes.set(xlabel=report.say("word.step"), title=name[:1].upper() + name[1:])
        if what == "loss" and min(seen) > 0 and max(seen) > 30 * min(seen):
            axes.set_yscale("log")
    return bool(seen)


def _flow(report: Report, axes: Any) -> bool:
    lines = [(word, series.flow(report.evidence, when), {"ms": 4, "color": colour, **style})
             for word, when, colour, style in (
                 ("before", "init", GREY, {"marker": "s", "ls": "--"}),
                 ("now", "now", BLUE, {"marker": "o"}))]  # fmt: skip
    seen = _lines(report, axes, lines)
    if seen:
        axes.set(xlabel=report.say("word.layers"), ylabel="RMS dL/dz", yscale="log")
    return bool(seen)


def _histograms(report: Report, axes: Any) -> bool:
    """The first, the middle and the last hidden layer, one above the other."""
    e = report.evidence
    hidden = [i for i, layer in enumerate(e.layers) if not layer.output] or [*range(len(e.layers))]
    drawn: list[str] = []
    for i in (hidden[k] for k in series.spread(len(hidden), 3)[::-1]):
        _, _, _, columns = series.histogram(e, i)
        if columns:
            image = [[column[r] ** 0.5 for column in columns] for r in range(series.ROWS)]
            axes.imshow(image, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=1,
                        extent=(0, 1, len(drawn), len(drawn) + 0.92))  # fmt: skip
            drawn.append(report.layer(e.layers[i].name) or "")
    if drawn:
        axes.set(xlim=(0, 1), ylim=(0, len(drawn)), xticks=[], xlabel=report.say("word.step"),
                 yticks=[k + 0.46 for k in range(len(drawn))], yticklabels=drawn)  # fmt: skip
        axes.grid(False)
    return bool(drawn)


def _shares(report: Report, axes: Any) -> bool:
    e, now = report.evidence, series.states(report.evidence, "now")
    layers = [i for i in series.shown(e) if not e.layers[i].output] if now else []
    drawn, most = False, 0.0
    for k, (name, colour) in enumerate((("dead", RED), ("zeros", "#8aa4cc"), ("saturated", AMBER))):
        values = [series.share(now[i], name) for i in layers]
        if any(isfinite(v) for v in values):
            axes.bar([i + 1 + (k - 1) * 0.27 for i in layers], values, 0.27, color=colour,
                     label=report.say(f"word.{name}"))  # fmt: skip
            drawn, most = True, max(most, *finite(values))
    if drawn:
        axes.set(ylim=(0, 1), xlabel=report.say("word.layers"))
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    if drawn and most < 0.005:
        axes.text(0.5, 0.5, report.say("word.no_shares"), ha="center", color=GREY,
                  transform=axes.transAxes)  # fmt: skip
    return drawn


def _updates(report: Report, axes: Any) -> bool:
    """The steps of each layer, in the colours of a scale beside it."""
    lines = series.updates(report.evidence)
    if not lines:
        return False
    colours = need("matplotlib.cm", "examples", "Report.plot").ScalarMappable(cmap="turbo")
    numbers = [i + 1 for i, _ in lines]
    colours.set_clim(numbers[0], max(numbers[-1], numbers[0] + 1))
    for i, line in lines:
        axes.semilogy(*zip(*line, strict=True), ".-", color=colours.to_rgba(i + 1))
    axes.axhline(1e-3, color=GREY, ls="--", lw=1, label=report.say("word.good_ratio"))
    axes.set(xlabel=report.say("word.step"))
    axes.figure.colorbar(colours, ax=axes, label=report.say("word.layers"), ticks=numbers)
    return True


def _remedies(report: Report, axes: Any) -> bool:
    """Before and after, of what was tried; the names of the others."""
    remedies = report.remedies[:6][::-1]
    gains = [report.gain(remedy) or (nan, nan) for remedy in remedies]
    low = max(min([0.0, *(1.1 * m for pair in gains for m in pair if m == m)]), -2.0)
    for y, (remedy, (before, after)) in enumerate(zip(remedies, gains, strict=True)):
        if after == after:  # what is worse than the scale goes to its end
            ends = [max(m, low) for m in (before, after)]
            axes.barh(y - 0.2, ends[1], 0.3, color=BLUE if report.helped(remedy) else GREY)
            axes.plot([ends[0], ends[0]], [y - 0.4, y], color="black", lw=2)
        axes.text(0.01, y + 0.04, report.offered(remedy), va="bottom", fontsize=8,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    if remedies:
        axes.set(xlim=(low, 1), ylim=(-0.6, len(remedies)), yticks=[],
                 xlabel=report.common()["measure"])  # fmt: skip
        if not any(isfinite(after) or after < 0 for _, after in gains):
            axes.set(xticks=[], xlabel=report.say("word.verify"))
        elif low < 0:
            axes.axvline(0, color=GREY, lw=1)
    return bool(remedies)
