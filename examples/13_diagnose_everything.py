"""Each classical fault shows in another measure, if one looks before training and after it.

First what a look back is worth: data, the first loss, the gradient against differences. Then a
gallery of faults. The two looks tell cause from symptom: tanh with a learning rate of 2 ends
saturated and without gradient, like a bad start, but it began in good health. A network is called
overfitted only if it is good on the examples that it was trained on. There is no verdict here, only
measures: what each row means is said in its last column.
"""

import math

import lesson

import microgradnd as mg
from microgradnd import nn

SMALL = {"init": lambda w: nn.init.normal_(w, 0.0, 0.05)}
LARGE = {"init": lambda w: nn.init.normal_(w, 0.0, 1.0)}
#: What is wrong, if it is not the network of 3 layers of 64 ReLUs with a rate of 0.1, and the sign.
GALLERY = {
    "no fault": ({}, "good on both sets; measures as they should be"),
    "sigmoid, 10 layers": ({"activation": "sigmoid", "depth": 10, "rate": 0.5},
                           "the gradient vanishes at the start"),
    "weights too small": ({"depth": 5, **SMALL},
                          "it vanishes with ReLU, too: the weights are at fault"),
    # With a rate of 0.05, which Maxout's own weights bear, the loss is NaN in the first epoch.
    "Maxout, ReLU's weights": ({"activation": "maxout", "depth": 10, "rate": 0.003,
                                "epochs": 5, "init": lesson.INIT["relu"]},
                               "first loss far above ln 10: learns with tiny rates only"),
    "weights too large": ({"activation": "tanh", **LARGE}, "tanh saturated at the start"),
    "tanh, rate 2": ({"activation": "tanh", "rate": 2.0},
                     "saturated only at the end: the rate is at fault"),
    "rate 1": ({"rate": 1.0}, "dead only at the end: the rate is at fault"),
    "biases at -3": ({"bias": -3.0}, "dead at the start: the biases are at fault"),
    "rate 0.0001": ({"rate": 1e-4}, "steps tiny beside the weights"),
    "only 2 units": ({"depth": 1, "width": 2}, "all in order, yet bad on train: too small"),
    "only 50 examples": ({"width": 128, "examples": 50, "epochs": 60},
                         "good on train, worse on test: overfitted"),
}  # fmt: skip
FLAT = {"sigmoid": 5.0, "tanh": 2.5}  # beyond it the slope is below 2.7 % of its largest


class StepSizes(mg.train.Callback):
    """Note how large plain SGD's steps are beside the weights, in the first epoch."""

    def __init__(self):
        self.ratios = []

    @mg.no_grad
    def on_backward_end(self, loop):
        """Compare step and weight, layer by layer."""
        if loop.epoch > 1:
            return
        rate = loop.optimizer.param_groups[0]["lr"]
        self.ratios += [rate * lesson.size(p.grad) / lesson.size(p)
                        for p in loop.model.parameters() if p.ndim == 2]  # fmt: skip

    def median(self):
        """Give the middle one of all."""
        return sorted(mg.stack(self.ratios).tolist())[len(self.ratios) // 2]


def look(model, activation, x, y):
    """Look at all layers: the gradient's size; saturated values and dead units of the worst one.

    A ReLU unit is dead if it is above 0 for none of all examples.
    """
    flow = lesson.flow(model, x, y)
    limit = FLAT.get(activation, math.inf)
    flat = max((mg.abs(z) > limit).mean().item() for z, _ in flow)
    dead = max(1 - (z > 0).any(axis=0).mean().item() for z, _ in flow)
    return {"loss": mg.train.evaluate(model, mg.cross_entropy, (x, y))["loss"],
            "sizes": [lesson.rms(g) for _, g in flow], "flat": flat,
            "dead": dead if activation == "relu" else 0.0}  # fmt: skip


def slope(sizes):
    """Give how many powers of ten the gradient loses per layer, on its way back to the input."""
    if not min(sizes) > 0:
        return math.nan  # somewhere no gradient is left
    return math.log10(sizes[-1] / sizes[0]) / max(len(sizes) - 1, 1)


def case(x, y, tx, ty, activation="relu", depth=3, rate=0.1, epochs=10, examples=None,
         **start):  # fmt: skip
    """Train one network of the gallery, and look at it before and after."""
    x, y = x[:examples], y[:examples]
    model = lesson.network(depth, activation, **start)
    before, steps = look(model, activation, x, y), StepSizes()
    optimizer = mg.optim.SGD(model.parameters(), lr=rate)
    lesson.train(model, optimizer, (x, y), epochs=epochs, callbacks=[steps])
    good = lesson.accuracy(model, x, y), lesson.accuracy(model, tx, ty)
    return {"start": before, "end": look(model, activation, x, y), "step": steps.median(),
            "train": good[0], "test": good[1]}  # fmt: skip


def look_back(x, y):
    """Give what to check first of all: data, first loss, and the gradient against differences."""
    model = lesson.network(3, "relu")
    found = {"inputs between": (mg.min(x).item(), mg.max(x).item()),
             "examples per class": [(y == k).sum().item() for k in range(10)],
             "first loss": mg.cross_entropy(model(x), y).item()}  # fmt: skip
    model.to("float64")
    x, y, step, errors = x[:256].astype("float64"), y[:256], 1e-6, []
    mg.cross_entropy(model(x), y).backward()
    for weight in (p for p in model.parameters() if p.ndim == 2):
        before = weight.detach().clone()
        for place in mg.random.integers(0, weight.size, 5).tolist():
            place = divmod(place, weight.shape[1])
            gradient, losses = weight.grad[place].item(), []
            if abs(gradient) < 1e-5:
                continue  # too small for differences
            with mg.no_grad():
                for shift in (step, -step):
                    weight[place] = before[place] + shift
                    losses.append(mg.cross_entropy(model(x), y).item())
                weight.assign_(before)
            errors.append(abs((losses[0] - losses[1]) / (2 * step) / gradient - 1))
    return found | {"gradients": errors}


def measure(seed):
    """Look back first; then train the whole gallery."""
    data = lesson.digits(seed)
    found = {name: case(*data, **settings) for name, (settings, _) in GALLERY.items()}
    return {"look back": look_back(*data[:2]), "gallery": found}


def report(found):
    """Print what was looked at first, and the gallery."""
    back = found["look back"]
    low, high = back["inputs between"]
    print(f"inputs between {low:g} and {high:g}; {min(back['examples per class'])} to "
          f"{max(back['examples per class'])} examples per class; first loss "
          f"{back['first loss']:.2f}, ln 10 = {math.log(10):.2f};")  # fmt: skip
    print(f"{len(back['gradients'])} gradients differ from differences by "
          f"{max(back['gradients']):.0e} at most\n")  # fmt: skip
    print("slope: powers of ten that the gradient loses per layer on its way back; flat, dead: "
          "share in the\nworst layer (each at the start > at the end); step: of the first epoch, "
          "relative to the weights\n")  # fmt: skip
    rows = []
    for name, row in found["gallery"].items():
        start, end = row["start"], row["end"]
        slopes = f"{slope(start['sizes']):.2f} > {slope(end['sizes']):.2f}".replace("nan", "none")
        both = (f"{start[what]:.2f} > {end[what]:.2f}" for what in ("flat", "dead"))
        rows.append((name, row["train"], row["test"], f"{start['loss']:.2f}", slopes, *both,
                     f"{row['step']:.0e}", GALLERY[name][1]))  # fmt: skip
    lesson.table(("fault", "train", "test", "loss", "slope", "flat", "dead", "step",
                  "what one sees"), rows)  # fmt: skip
    gallery = found["gallery"]
    lost = slope(gallery["sigmoid, 10 layers"]["start"]["sizes"])
    return {"powers of ten lost per sigmoid layer": round(lost, 2),
            "saturated by too high a rate": round(gallery["tanh, rate 2"]["end"]["flat"], 2),
            "dead by too high a rate": round(gallery["rate 1"]["end"]["dead"], 2)}  # fmt: skip


def check(found):
    """Each fault in its own measure; in comments the ranges over five seeds."""
    back, gallery = found["look back"], found["gallery"]
    assert back["inputs between"] == (0, 1) and min(back["examples per class"]) > 100
    assert abs(back["first loss"] / math.log(10) - 1) < 0.5
    assert len(back["gradients"]) >= 5 and max(back["gradients"]) < 1e-3

    def at(when, name):
        state = gallery[name][when]
        return slope(state["sizes"]), state["flat"], state["dead"]

    def train(name):
        return gallery[name]["train"]

    fall, _, dead = at("start", "no fault")
    assert train("no fault") > 0.95 and abs(fall) < 0.1 and dead < 0.3  # 0.98; 0.02; 0.14
    assert 1e-3 < gallery["no fault"]["step"] < 5e-2  # 0.007 to 0.01
    assert at("start", "sigmoid, 10 layers")[0] > 0.5 and train("sigmoid, 10 layers") < 0.2  # 0.63
    assert at("start", "weights too small")[0] > 0.4 and train("weights too small") < 0.4  # 0.53
    name = "Maxout, ReLU's weights"
    assert gallery[name]["start"]["loss"] > 3 * math.log(10)  # 12 to 36, not 2.3
    assert at("start", name)[0] < -0.1  # -0.14 to -0.16: it grows on its way back
    assert at("start", "weights too large")[1] > 0.5  # 0.73 to 0.75
    fall, flat, _ = at("start", "tanh, rate 2")
    assert abs(fall) < 0.15 and flat < 0.05 and train("tanh, rate 2") < 0.3
    assert at("end", "tanh, rate 2")[1] > 0.8  # 1.0
    assert at("start", "rate 1")[2] < 0.3 and at("end", "rate 1")[2] > 0.7  # 0.14; 0.98 to 1.0
    assert at("start", "biases at -3")[2] == 1 and train("biases at -3") < 0.2
    assert gallery["rate 0.0001"]["step"] < 1e-4 and train("rate 0.0001") < 0.5  # 1e-5; 0.14
    assert train("only 2 units") < 0.8  # 0.37 to 0.57
    few = gallery["only 50 examples"]
    assert few["train"] > 0.95 and few["train"] - few["test"] > 0.07  # 0.18 to 0.24


def draw(found, plt):
    """One small picture per fault: the gradient per layer before training and after."""
    figure, axes = plt.subplots(2, 6, figsize=(14, 5.4), sharey=True)
    for ax, (name, row) in zip(axes.flat, found["gallery"].items(), strict=False):
        for when, colour, mark in (("start", "tab:blue", "o-"), ("end", "tab:red", "s--")):
            sizes = row[when]["sizes"]
            layers = range(1, len(sizes) + 1)
            ax.semilogy(layers, [g or math.nan for g in sizes], mark, ms=5, color=colour)
        if not max(row["start"]["sizes"]) > 0:
            ax.text(0.5, 0.5, "no gradient", ha="center", transform=ax.transAxes)
        shares = (f"{what} {row['start'][what]:.2f} > {row['end'][what]:.2f}"
                  for what in ("flat", "dead"))  # fmt: skip
        ax.text(0.04, 0.04, "\n".join((*shares, f"step {row['step']:.0e}")), fontsize=8,
                transform=ax.transAxes)  # fmt: skip
        ax.set(title=f"{name}\ntrain {row['train']:.2f}, test {row['test']:.2f}",
               xticks=layers if len(layers) < 6 else layers[::3], ylim=(1e-18, 10),
               xlim=(0.5, len(layers) + 0.5), xlabel="layer")  # fmt: skip
    for ax in axes[:, 0]:
        ax.set(ylabel="RMS of dL/dz")
    last = axes.flat[-1]
    last.plot([], [], "o-", color="tab:blue", label="before training")
    last.plot([], [], "s--", color="tab:red", label="after training")
    last.legend(loc="upper center")
    last.text(0.5, 0.1, "share of saturated values and\nof dead units in the worst layer,\n"
              "before > after training;\nsize of the first epoch's steps\nbeside the weights",
              ha="center", transform=last.transAxes)  # fmt: skip
    last.axis("off")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
