"""With sigmoid, each layer takes three quarters of the gradient: the first layers hardly learn.

Sigmoid's slope is 1/4 at most, and on the way back to the input each layer multiplies by it. In ten
layers the gradient falls by five to six powers of ten. So while the last layer moves, the layers
near the input stay where chance has put them, and the last one learns from almost random features.
With tanh the gradient keeps nearly all of its size from layer to layer, and with ReLU all of it.

Where units are pushed into the flat ends of sigmoid (here by their biases) it is far worse. Large
weights lead there, too, but they also multiply the gradient: saturation alone does not say how
much of the gradient arrives.
"""

import math

import lesson

import microgradnd as mg
from microgradnd import nn

DEPTH, STARTS, EPOCHS = 10, 10, 5
COLOURS = {"sigmoid": "tab:red", "tanh": "tab:green", "relu": "tab:blue"}
RATE = {"sigmoid": 0.5, "relu": 0.05}
FLAT = 5.0  # beyond it sigmoid's slope is below 2.7 % of its largest, 1/4
SETTINGS = {
    "as above": {},
    "weights 5 times as large": {"init": lambda w: nn.init.xavier_normal_(w, gain=5.0)},
    "biases at 5": {"bias": 5.0},
}


def gradients(activation, x, y, **start):
    """Give the size of dL/dz per layer, a geometric mean over some starts, and the flat share."""
    sizes, flat = [0.0] * DEPTH, 0.0
    for _ in range(STARTS):
        for i, (z, g) in enumerate(lesson.flow(lesson.network(DEPTH, activation, **start), x, y)):
            sizes[i] += math.log(lesson.rms(g)) / STARTS
            flat += (mg.abs(z) > FLAT).mean().item() / STARTS / DEPTH
    return [math.exp(s) for s in sizes], flat


def movement(activation, x, y):
    """Train for a few epochs; give how far each layer's weights went, relative to their size."""
    model = lesson.network(DEPTH, activation)
    weights = [part.weight for part in model if isinstance(part, nn.Linear)][:DEPTH]
    before = [w.detach().clone() for w in weights]
    optimizer = mg.optim.SGD(model.parameters(), lr=RATE[activation])
    lesson.train(model, optimizer, (x, y), epochs=EPOCHS)
    return [lesson.rms(w.detach() - old) / lesson.rms(old)
            for w, old in zip(weights, before, strict=True)]  # fmt: skip


def measure(seed):
    """Look at gradients before training, at movement during it, and at saturated units."""
    x, y, _, _ = lesson.digits(seed)
    few = x[:512], y[:512]
    found = {"sizes": {name: gradients(name, *few)[0] for name in COLOURS}}
    found["moved"] = {name: movement(name, x, y) for name in RATE}
    found["saturated"] = {how: gradients("sigmoid", *few, **start)
                          for how, start in SETTINGS.items()}  # fmt: skip
    return found


def factor(sizes):
    """Give what one layer leaves of the gradient, on the way from the last layer to the first."""
    return (sizes[0] / sizes[-1]) ** (1 / (len(sizes) - 1))


def report(found):
    """Print gradients and movement per layer, and the factor per layer."""
    sizes, moved = found["sizes"], found["moved"]
    rows = [(i + 1, *(sizes[n][i] for n in COLOURS), *(moved[n][i] for n in RATE))
            for i in range(DEPTH)]  # fmt: skip
    rows.append(("factor", *(factor(sizes[n]) for n in COLOURS), "", ""))
    lesson.table(("layer", *(f"dL/dz {n}" for n in COLOURS),
                  *(f"moved, {n}" for n in RATE)), rows)  # fmt: skip
    rows = [(how, flat, factor(g)) for how, (g, flat) in found["saturated"].items()]
    lesson.table(("sigmoid", "in the flat part", "factor per layer"), rows)
    sizes, moved = sizes["sigmoid"], moved["sigmoid"]
    return {"gradient left by each sigmoid layer": round(factor(sizes), 3),
            "layer 1 beside layer 10": float(f"{sizes[0] / sizes[-1]:.1e}"),
            "movement of 1 beside 10": float(f"{moved[0] / moved[-1]:.0e}")}  # fmt: skip


def check(found):
    """Sigmoid leaves about 1/4 per layer, ReLU all; the first sigmoid layer stays where it was."""
    sizes, moved, saturated = found["sizes"], found["moved"], found["saturated"]
    sigmoid = factor(sizes["sigmoid"])
    assert abs(math.log10(4 * sigmoid)) <= 0.15 * math.log10(4)  # 1/4, to 15 % of a power
    assert 0.85 < factor(sizes["relu"]) < 1.15
    assert 0.8 < factor(sizes["tanh"]) < 1.05
    assert sizes["sigmoid"][0] / sizes["sigmoid"][-1] < 1e-4
    assert sizes["relu"][0] / sizes["relu"][-1] > 0.1
    assert moved["sigmoid"][0] / moved["sigmoid"][-1] < 1e-3  # 1e-5 over five seeds
    assert moved["relu"][0] / moved["relu"][-1] > 0.1
    assert factor(saturated["biases at 5"][0]) < sigmoid / 4  # 0.013 to 0.015
    assert factor(saturated["weights 5 times as large"][0]) > sigmoid


def draw(found, plt):
    """The gradient over the layers before training, and how far training moved each layer."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.2))
    layers = range(1, DEPTH + 1)
    ax = axes[0]
    for name, colour in COLOURS.items():
        ax.semilogy(layers, found["sizes"][name], "o-", color=colour, label=name)
    last = found["sizes"]["sigmoid"][-1]
    ax.semilogy(layers, [last / 4 ** (DEPTH - i) for i in layers], "k--", lw=1,
                label="1/4 per layer")  # fmt: skip
    ax.set(title="before training: gradient that arrives at each layer", ylabel="RMS of dL/dz")
    ax.legend(loc="lower right")
    ax = axes[1]
    for name, steps in found["moved"].items():
        ax.semilogy(layers, steps, "o-", color=COLOURS[name], label=name)
    ax.set(title=f"{EPOCHS} epochs: how far the weights of each layer moved",
           ylabel="change / size at the start")  # fmt: skip
    ax.legend(loc="lower right")
    for ax in axes:
        ax.set(xlabel="layer (1 is next to the input)", xticks=layers)
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
