"""How weights begin decides whether signal and gradient survive: each activation has its own rule.

A layer should keep the size of the signal going forward, and that of the gradient going back.
Glorot's rule nearly does for tanh, He's for ReLU, which loses half of the square in each layer,
LeCun's for ELU and SELU. Maxout is no ReLU: the largest of K numbers has a mean square of its own,
1 for two, 1.8 for five, so the weights get variance 1 / (inputs x that). With ReLU's rule a signal
of two pieces grows by the square root of 2 per layer: after 10 layers the first loss is absurd,
after 30 the signal has exploded. With sigmoid, three quarters of the gradient go in each layer.
"""

import math

import lesson

import microgradnd as mg
from microgradnd import nn

DRAWS, WIDTH, EPOCHS = 10, 64, 8
ROWS = {  # name: activation, initial weights, what one layer leaves of the gradient
    "sigmoid, Glorot": ("sigmoid", nn.init.xavier_normal_, 0.25),
    "tanh, Glorot": ("tanh", nn.init.xavier_normal_, None),
    "relu, Glorot": ("relu", nn.init.xavier_normal_, math.sqrt(1 / 2)),
    "relu, He": ("relu", lesson.INIT["relu"], 1.0),
    "relu, N(0, 0.05)": (
        "relu", lambda w: nn.init.normal_(w, 0.0, 0.05), 0.05 * math.sqrt(WIDTH / 2)),
    "elu, LeCun": ("elu", nn.init.lecun_normal_, None),
    "selu, LeCun": ("selu", nn.init.lecun_normal_, None),
    "maxout 2, Maxout-He": (2, lambda w: nn.init.maxout_he_(w, 2), 1.0),
    "maxout 2, He": (2, lesson.INIT["relu"], math.sqrt(2)),
}  # fmt: skip
DEEP = {  # rows of the above, and one more, that a signal is sent through for 30 layers
    "relu, He": ROWS["relu, He"][:2],
    "relu, Glorot": ROWS["relu, Glorot"][:2],
    "maxout 2, Maxout-He": ROWS["maxout 2, Maxout-He"][:2],
    "maxout 2, He": ROWS["maxout 2, He"][:2],
    "maxout 4, He": (4, lesson.INIT["relu"]),
}
TRAINED = ("relu, He", "relu, Glorot", "relu, N(0, 0.05)", "maxout 2, Maxout-He")
COLOURS = ("tab:red", "tab:green", "tab:cyan", "tab:blue", "tab:gray", "tab:orange", "tab:olive",
           "tab:purple", "black")  # fmt: skip


def network(depth, activation, init):
    """Give `depth` hidden layers: of an activation by name, of Maxout by the number of pieces."""
    if isinstance(activation, str):
        return lesson.network(depth, activation, init=init)
    layers = []
    for _ in range(depth):
        layers.append(nn.Maxout(WIDTH, WIDTH, activation))
        init(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
    return nn.Sequential(*layers, lesson.linear(WIDTH, 10))


def gradients(activation, init, x, y):
    """Give the size of the gradient at each of 10 layers, a geometric mean over some draws."""
    logs = [0.0] * 10
    for _ in range(DRAWS):
        model = network(10, activation, init).to("float64")
        for i, (_, g) in enumerate(lesson.flow(model, x, y)):
            logs[i] += math.log(lesson.rms(g)) / DRAWS
    return [math.exp(v) for v in logs]


def factor(sizes):
    """Give what one layer leaves of the gradient, on the way from the last layer to the first."""
    return (sizes[0] / sizes[-1]) ** (1 / (len(sizes) - 1))


@mg.no_grad
def squares(activation, init, x, depth=30, draws=3):
    """Give the mean square of what each layer gives, a geometric mean over some draws."""
    logs = []
    for _ in range(draws):
        parts, a = list(network(depth, activation, init)), x
        for part in parts[:-1]:
            a = part(a)
            if not isinstance(part, nn.Linear):
                logs.append(2 * math.log(lesson.rms(a)))
    return [math.exp(sum(logs[i::depth]) / draws) for i in range(depth)]


@mg.no_grad
def selu():
    """Give mean and variance of SELU of standard normal numbers, and after 50 layers of it."""
    z = mg.selu(mg.random.normal(0.0, 1.0, (500_000,)).astype("float64"))
    a = mg.random.normal(0.0, 1.0, (256, 256))
    for _ in range(50):
        a = mg.selu(lesson.linear(256, 256, nn.init.lecun_normal_)(a))
    return [(t.mean().item(), ((t - t.mean()) ** 2).mean().item()) for t in (z, a)]


def start(name, data, seed):
    """Give the first loss, and the accuracy after some epochs of 10 layers with SGD."""
    mg.manual_seed(seed)
    model = network(10, *ROWS[name][:2])
    loss = mg.cross_entropy(model(data[0]), data[1]).item()
    if name not in TRAINED:
        return loss, None
    lesson.train(model, mg.optim.SGD(model.parameters(), lr=0.05), data, epochs=EPOCHS)
    return loss, lesson.accuracy(model, *data)


def measure(seed):
    """Send gradients back and signals forward; sample Maxout's constants; train some."""
    x, y, _, _ = lesson.digits(seed)
    few, labels = x[:256].astype("float64"), y[:256]
    found = {"back": {name: gradients(*row[:2], few, labels) for name, row in ROWS.items()}}
    signal = mg.random.normal(0.0, 1.0, (256, WIDTH))
    found["forward"] = {name: squares(*row, signal) for name, row in DEEP.items()}
    z = mg.random.normal(0.0, 1.0, (400_000, 5))
    found["constants"] = {k: 1 / (z[:, :k].max(axis=1) ** 2).mean().item() for k in (2, 3, 4, 5)}
    found["selu"] = selu()
    found["start"] = {name: start(name, (x, y), seed) for name in (*TRAINED, "maxout 2, He")}
    return found


def report(found):
    """Print factors per layer, the signal, the constants and the training."""
    rows = [(name, factor(found["back"][name]), "" if law is None else law)
            for name, (_, _, law) in ROWS.items()]  # fmt: skip
    lesson.table(("activation, weights", "gradient per layer", "theory"), rows)
    lesson.table(("signal through 30 layers", "mean square: layer 1", "10", "30"),
                 [(name, s[0], s[9], s[29]) for name, s in found["forward"].items()])  # fmt: skip
    rows = [(k, c, nn.init.maxout_constant(k)) for k, c in found["constants"].items()]
    lesson.table(("Maxout, pieces", "1 / E[max^2], sampled", "used by maxout_he_"), rows)
    lesson.table(("SELU", "mean", "variance"), [
        (what, *row) for what, row in zip(
            ("of normal numbers", "after 50 layers"), found["selu"], strict=True)])  # fmt: skip
    print(f"10 layers, SGD 0.05, {EPOCHS} epochs (knowing nothing costs a loss of ln 10 = 2.3):")
    rows = [(name, loss, "" if train is None else train)
            for name, (loss, train) in found["start"].items()]  # fmt: skip
    lesson.table(("", "first loss", "train"), rows)
    names = "sigmoid, Glorot", "relu, He", "maxout 2, Maxout-He", "maxout 2, He"
    return {name.replace(",", ""): round(factor(found["back"][name]), 3) for name in names}


def check(found):
    """The factors are those of theory; Maxout needs a rule of its own; ReLU without He is slow."""
    for name, (_, _, law) in ROWS.items():
        assert law is None or abs(factor(found["back"][name]) / law - 1) < 0.1, name
    assert all(0.8 < factor(found["back"][name]) < 1.2 for name in
               ("tanh, Glorot", "elu, LeCun", "selu, LeCun"))  # fmt: skip
    last = {name: s[-1] for name, s in found["forward"].items()}
    assert 0.03 < last["maxout 2, Maxout-He"] < 30 and 0.01 < last["relu, He"] < 30
    assert last["maxout 2, He"] > 1e6 and last["maxout 4, He"] > 1e12
    assert last["relu, Glorot"] < 1e-6  # (1/2)^30 is 1e-9
    for k, c in found["constants"].items():
        assert abs(c / nn.init.maxout_constant(k) - 1) < 0.01
    (mean, variance), (deep_mean, deep_variance) = found["selu"]
    assert abs(mean) < 0.01 and abs(variance - 1) < 0.02
    assert abs(deep_mean) < 0.15 and 0.6 < deep_variance < 1.4
    begun = found["start"]
    assert begun["relu, He"][1] - begun["relu, N(0, 0.05)"][1] >= 0.4  # .69 to .88
    assert begun["maxout 2, Maxout-He"][1] >= 0.9
    assert begun["maxout 2, He"][0] > 4 * math.log(10)  # 16 to 43


def draw(found, plt):
    """The gradient on its way back through 10 layers, and the signal forward through 30."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.6))
    colours = dict(zip(ROWS, COLOURS, strict=True))
    ax = axes[0]
    for name, sizes in found["back"].items():
        ax.semilogy(range(1, 11), [s / sizes[-1] for s in sizes], "o-", ms=3, color=colours[name],
                    label=f"{name}: {factor(sizes):.2f} per layer")  # fmt: skip
    ax.set(title="going back: only the right start keeps the gradient", xlabel="layer",
           ylabel="gradient, last layer = 1", xticks=range(1, 11))  # fmt: skip
    ax.legend(fontsize=7.5, loc="lower right")
    ax = axes[1]
    for name, sizes in found["forward"].items():
        ax.semilogy(range(1, 31), sizes, color=colours.get(name, "tab:pink"), label=name)
    ax.set(title="going forward: with ReLU's rule Maxout explodes", xlabel="layer",
           ylabel="mean square of the outputs")  # fmt: skip
    ax.legend(loc="upper left")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
