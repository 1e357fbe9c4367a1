"""Each classical fault is found by its own measure, and `mg.diagnose` names it.

A recorder sees the training, from before the first step on; the verdict comes afterwards. The two
looks tell cause from symptom: tanh with a learning rate of 2 ends saturated and without gradient,
like a bad start, but it began in good health. A network is called overfitted only if it is good on
the examples that it was trained on.
"""

import math

import lesson

import microgradnd as mg
from microgradnd import nn

SMALL = {"init": lambda w: nn.init.normal_(w, 0.0, 0.05)}
LARGE = {"init": lambda w: nn.init.normal_(w, 0.0, 1.0)}
#: What is wrong, if it is not the network of 3 layers of 64 ReLUs with a rate of 0.1, and its name.
GALLERY = {
    "no fault": ({}, None),
    "sigmoid, 10 layers": ({"activation": "sigmoid", "depth": 10, "rate": 0.5}, "VANISHING"),
    "weights too small": ({"depth": 5, **SMALL}, "INIT_SCALE"),
    "Maxout, ReLU's weights": ({"activation": "maxout", "depth": 10, "rate": 0.05,
                                "init": lesson.INIT["relu"]}, "EXPLODING"),
    "weights too large": ({"activation": "tanh", **LARGE}, "SATURATED"),
    "tanh, rate 2": ({"activation": "tanh", "rate": 2.0}, "LR_HIGH"),
    "rate 1": ({"rate": 1.0}, "LR_HIGH"),
    "biases at -3": ({"bias": -3.0}, "DEAD"),
    "rate 0.0001": ({"rate": 1e-4}, "LR_LOW"),
    "only 2 units": ({"depth": 1, "width": 2}, "CAPACITY"),
    "only 50 examples": ({"width": 128, "examples": 50, "epochs": 60}, "OVERFIT"),
}  # fmt: skip


def case(x, y, tx, ty, activation="relu", depth=3, rate=0.1, epochs=10, examples=None,
         **start):  # fmt: skip
    """Train one network of the gallery under the eyes of a recorder, and have it diagnosed."""
    data = x[:examples], y[:examples]
    model = lesson.network(depth, activation, **start)
    optimizer = mg.optim.SGD(model.parameters(), lr=rate)
    record = mg.diagnosis.Recorder(model, optimizer)
    lesson.train(model, optimizer, data, epochs=epochs, callbacks=[record])
    report = mg.diagnose(model, mg.cross_entropy, data, (tx, ty), record=record)
    e = report.evidence
    return {"causes": [f.code for f in report.roots], "report": report,
            "faults": [f.code for f in report.findings if f.severity == "fault"],
            "train": e.train.metric, "test": e.test.metric,
            "start": look(e, e.init), "end": look(e, e.now)}  # fmt: skip


def look(evidence, state):
    """Give the gradient of each hidden layer; saturated values and dead units of the worst one."""
    hidden = [s for s, layer in zip(state.layers, evidence.layers, strict=True) if not layer.output]
    return {"sizes": [s.delta for s in hidden], "flat": max(s.saturated for s in hidden),
            "dead": max(s.dead for s in hidden)}  # fmt: skip


def slope(sizes):
    """Give how many powers of ten the gradient loses per layer, on its way back to the input."""
    if not min(sizes) > 0:
        return math.nan  # somewhere no gradient is left
    return math.log10(sizes[-1] / sizes[0]) / max(len(sizes) - 1, 1)


def measure(seed):
    """Train and diagnose the whole gallery."""
    data = lesson.digits(seed)
    return {name: case(*data, **settings) for name, (settings, _) in GALLERY.items()}


def report(found):
    """Print the gallery with the causes that were named, and two of the verdicts."""
    print("slope: powers of ten that the gradient loses per layer on its way back; flat, dead: "
          "share in the\nworst layer (each at the start > at the end); behind the cause what it "
          "explains\n")  # fmt: skip
    rows = []
    for name, row in found.items():
        start, end = row["start"], row["end"]
        slopes = f"{slope(start['sizes']):.2f} > {slope(end['sizes']):.2f}".replace("nan", "none")
        both = (f"{start[what]:.2f} > {end[what]:.2f}" for what in ("flat", "dead"))
        others = [code for code in row["faults"] if code not in row["causes"]]
        verdict = " ".join([*row["causes"], *([f"({', '.join(others)})"] if others else [])])
        rows.append((name, row["train"], row["test"], slopes, *both, verdict or "none"))
    lesson.table(("fault", "train", "test", "slope", "flat", "dead", "found"), rows)
    for name in ("sigmoid, 10 layers", "tanh, rate 2"):
        print(f"{name}\n{found[name]['report']}\n")
    right = sum(found[name]["causes"] == [code] * bool(code)
                for name, (_, code) in GALLERY.items())  # fmt: skip
    lost = slope(found["sigmoid, 10 layers"]["start"]["sizes"])
    return {"named right": f"{right} of {len(GALLERY)}",
            "powers of ten lost per sigmoid layer": round(lost, 2),
            "saturated by too high a rate":
            round(found["tanh, rate 2"]["end"]["flat"], 2)}  # fmt: skip


def check(found):
    """Each fault is named, alone; overfitting only where the training result is good."""
    for name, (_, code) in GALLERY.items():
        assert found[name]["causes"] == [code] * bool(code), (name, found[name]["causes"])
        good = found[name]["train"] > 0.9
        assert good or "OVERFIT" not in found[name]["faults"], name
    assert not found["no fault"]["faults"]
    assert "OVERFIT" in found["weights too large"]["faults"]  # a symptom there, of the weights
    fall = {name: slope(row["start"]["sizes"]) for name, row in found.items()}
    assert fall["sigmoid, 10 layers"] > 0.5 and abs(fall["tanh, rate 2"]) < 0.15
    assert found["tanh, rate 2"]["start"]["flat"] < 0.05  # 1.0 at the end
    assert found["rate 1"]["start"]["dead"] < 0.3 < 0.7 < found["rate 1"]["end"]["dead"]


def draw(found, plt):
    """One small picture per fault: the gradient per layer before training and after."""
    figure, axes = plt.subplots(2, 6, figsize=(14, 5.4), sharey=True)
    for ax, (name, row) in zip(axes.flat, found.items(), strict=False):
        for when, colour, mark in (("start", "tab:blue", "o-"), ("end", "tab:red", "s--")):
            sizes = row[when]["sizes"]
            layers = range(1, len(sizes) + 1)
            known = [g if 0 < g < math.inf else math.nan for g in sizes]
            ax.semilogy(layers, known, mark, ms=5, color=colour)
        if not max(row["start"]["sizes"]) > 0:
            ax.text(0.5, 0.5, "no gradient", ha="center", transform=ax.transAxes)
        shares = (f"{what} {row['start'][what]:.2f} > {row['end'][what]:.2f}"
                  for what in ("flat", "dead"))  # fmt: skip
        ax.text(0.04, 0.04, "\n".join((*shares, f"train {row['train']:.2f}, test "
                                       f"{row['test']:.2f}")), fontsize=8,
                transform=ax.transAxes)  # fmt: skip
        ax.set(title=f"{name}\n{', '.join(row['causes']) or 'no finding'}",
               xticks=layers if len(layers) < 6 else layers[::3], ylim=(1e-18, 1e3),
               xlim=(0.5, len(layers) + 0.5), xlabel="layer")  # fmt: skip
    for ax in axes[:, 0]:
        ax.set(ylabel="RMS of dL/dz")
    last = axes.flat[-1]
    last.plot([], [], "o-", color="tab:blue", label="before training")
    last.plot([], [], "s--", color="tab:red", label="after training")
    last.legend(loc="upper center")
    last.text(0.5, 0.05, "above each: the fault that was\nmade, the cause that was named;\n"
              "flat, dead: share of saturated\nvalues and of dead units in\nthe worst layer, "
              "before >\nafter training", ha="center", fontsize=8, transform=last.transAxes)
    last.axis("off")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
