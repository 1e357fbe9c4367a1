"""A ReLU unit that is negative for all training data is dead: plain SGD never changes it again.

It gives 0 and gets no gradient. Plain SGD then leaves its weights as they are, bit for bit.
Momentum and Adam let it coast on the speed that it had, to a halt. Weight decay shrinks its weights
and its bias alike, which does not change the sign: still dead; decay of the bias alone wakes it up.
Units of Leaky ReLU, PReLU, ELU and Maxout that begin in the same place come back by themselves, as
some gradient reaches them there. (In a deeper layer a dead unit may come back, too, when the layers
before it move. Here there is one layer, whose inputs stay.) In later layers ELU keeps the mean
output nearer to zero, but on this small task it learns no faster than ReLU for that.
"""

import lesson

import microgradnd as mg
from microgradnd import nn

BIAS, RATE = -3.5, 0.5
#: Epochs: those that come back fast need no more.
KINDS = {"relu": 40, "leaky_relu": 40, "elu": 20, "prelu": 20, "maxout": 20}
PALETTE = ("tab:blue", "tab:green", "tab:orange", "tab:red", "tab:purple")
COLOURS = dict(zip(KINDS, PALETTE, strict=True))
TARGET = 0.98
STEPS, DECAY = 45, 0.03  # of an epoch; of all parameters, where there is weight decay


def born_low(kind):
    """Give a network of one hidden layer whose biases are so low that no unit is ever positive."""
    if kind == "maxout":
        layer = nn.Maxout(64, lesson.WIDTH, 2)
        nn.init.maxout_he_(layer.weight, 2)
        nn.init.constant_(layer.bias, BIAS)
        return nn.Sequential(layer, lesson.linear(lesson.WIDTH, 10))
    if kind == "prelu":
        model = lesson.network(1, "relu", bias=BIAS)
        return nn.Sequential(model[0], nn.PReLU(lesson.WIDTH), model[2])
    return lesson.network(1, kind, bias=BIAS)


@mg.no_grad
def silent(layer, x):
    """Give the share of units that are positive for no example."""
    return (layer(x).max(axis=0) <= 0).mean().item()


def revival(x, y):
    """Train networks whose units all begin below zero."""
    found = {}
    for kind, epochs in KINDS.items():
        model = born_low(kind)
        weight, before = model[0].weight, silent(model[0], x)
        start = weight.detach().clone()
        optimizer = mg.optim.SGD(model.parameters(), lr=RATE)
        history = lesson.train(model, optimizer, (x, y), epochs=epochs)
        found[kind] = {
            "curve": history["accuracy"], "train": lesson.accuracy(model, x, y),
            "before": before, "after": silent(model[0], x),
            "changed": (weight.detach() != start).mean().item(),
        }  # fmt: skip
    return found


#: How a network is trained in which one unit is killed: the optimizer of hidden layer and the rest.
DEATHS = {
    "SGD": lambda *p: mg.optim.SGD([*p], lr=0.1),
    "momentum 0.9": lambda *p: mg.optim.SGD([*p], lr=0.1, momentum=0.9),
    "Adam": lambda *p: mg.optim.Adam([*p], lr=1e-3),
    "weight decay": lambda *p: mg.optim.SGD([*p], lr=0.1, weight_decay=DECAY),
    "decay of biases": lambda w, b, *p: mg.optim.SGD(
        [{"params": [w, *p]}, {"params": [b], "weight_decay": 0.2}], lr=0.1),
}  # fmt: skip


def killed(optimizer, x, y):
    """Train for 2 epochs, kill the busiest unit by its bias, train for 5 more; say how it moved."""
    model = lesson.network(1, "relu")
    optimizer = optimizer(*model.parameters())
    lesson.train(model, optimizer, (x, y), epochs=2)
    weight, bias = (p.detach() for p in model[0].parameters())  # they share the memory
    unit = (model[0](x) > 0).mean(axis=0).argmax().item()
    w = weight[unit].clone()
    with mg.no_grad():
        bias[unit] = -10.0
    slots = optimizer.state_dict()["state"][0]
    speed = slots["momentum_buffer"][unit].clone() if "momentum_buffer" in slots else None
    lesson.train(model, optimizer, (x, y), epochs=5)
    now = weight[unit]
    found = {"bias": bias[unit].item(), "alive": (model[0](x)[:, unit].max() > 0).item(),
             "moved": lesson.rms(now - w), "size": lesson.rms(now) / lesson.rms(w)}  # fmt: skip
    if speed is not None:  # p <- p - lr v, v <- 0.9 v: the way to the halt is a geometric series
        found["coast"] = lesson.rms(speed) * 0.1 * 0.9 / (1 - 0.9)
    return found


def slopes(x, y, count):
    """Train three layers of PReLU; give the mean slope of each (they begin at 0.25)."""
    model = nn.Sequential(*(part if isinstance(part, nn.Linear) else nn.PReLU(count)
                            for part in lesson.network(3, "relu")))  # fmt: skip
    lesson.train(model, mg.optim.SGD(model.parameters(), lr=0.1), (x, y), epochs=10)
    return [part.weight.mean().item() for part in model if isinstance(part, nn.PReLU)]


class Reached(mg.train.Callback):
    """Stops when the accuracy on what `fit` takes for validation is good enough."""

    def on_epoch_end(self, loop):
        """Compare with the target."""
        if loop.logs["val_accuracy"] >= TARGET:
            loop.stop()


def means(kind, x, y, starts=10):
    """Give how far from 0 the mean output of a unit is, for 5 layers before training."""
    rows = []
    for _ in range(starts):
        hidden = lesson.flow(lesson.network(5, kind), x, y)
        rows.append([abs(getattr(mg, kind)(z).mean(axis=0)).mean().item() for z, _ in hidden])
    return [sum(column) / starts for column in zip(*rows, strict=True)]


def race(kind, x, y, starts=3):
    """Give how many epochs 5 layers need to the target, for some starts."""
    epochs = []
    for _ in range(starts):
        model = lesson.network(5, kind)
        optimizer = mg.optim.SGD(model.parameters(), lr=0.1)
        history = lesson.train(model, optimizer, (x, y), 25, test=(x, y), callbacks=[Reached()])
        epochs.append(len(history))
    return epochs


def high_rate(rate, x, y):
    """Train 3 ReLU layers with a rate; give the accuracy, and the dead units of the worst layer.

    Dead means: for all training data. Of one batch alone it looks worse than it is.
    """
    model = lesson.network(3, "relu")
    lesson.train(model, mg.optim.SGD(model.parameters(), lr=rate), (x, y), epochs=10)
    dead = [max((z.max(axis=0) <= 0).mean().item() for z, _ in lesson.flow(model, *part))
            for part in ((x, y), (x[: lesson.BATCH], y[: lesson.BATCH]))]  # fmt: skip
    return lesson.accuracy(model, x, y), *dead


def measure(seed):
    """Let networks begin dead, kill single units, and kill some by a high rate."""
    x, y, _, _ = lesson.digits(seed)
    return {
        "revival": revival(x, y),
        "killed": {name: killed(optimizer, x, y) for name, optimizer in DEATHS.items()},
        "slopes": {"one per layer": slopes(x, y, 1), "one per unit": slopes(x, y, lesson.WIDTH)},
        "means": {kind: means(kind, x[:512], y[:512]) for kind in ("relu", "elu")},
        "race": {kind: race(kind, x, y) for kind in ("relu", "elu")},
        "rates": {rate: high_rate(rate, x, y) for rate in (0.2, 1.0)},
    }


def report(found):
    """Print one table for each of the five questions."""
    rows = [(k, *(r[n] for n in ("train", "before", "after", "changed")))
            for k, r in found["revival"].items()]  # fmt: skip
    print(f"all biases begin at {BIAS}; units that are positive for no example:")
    lesson.table(("activation", "train", "at the start", "at the end", "weights changed"), rows)
    print("(of the others' silent units that are left, the gradient is not 0: they are not dead)\n")
    print("one unit of a trained ReLU network is killed (bias -10), and training goes on:")
    rows = [(name, r["moved"], r.get("coast", ""), r["size"], r["bias"], r["alive"])
            for name, r in found["killed"].items()]  # fmt: skip
    header = "optimizer", "weights moved", "coasting says", "their size", "bias", "alive"
    lesson.table(header, rows)
    print("PReLU's slopes below 0 after training (all began at 0.25); one slope for a whole layer")
    print("gets the gradients of all its units, so at the same rate it goes further:")
    lesson.table(("slopes", "layer 1", "layer 2", "layer 3"),
                 [(name, *row) for name, row in found["slopes"].items()])  # fmt: skip
    lesson.table(("|mean output| of a unit", *(f"layer {i}" for i in range(1, 6))),
                 [(kind, *row) for kind, row in found["means"].items()])  # fmt: skip
    lesson.table(("", f"epochs to {TARGET} on the training set"), found["race"].items())
    lesson.table(("ReLU, rate", "train", "dead units", "in one batch"),
                 [(rate, *r) for rate, r in found["rates"].items()])  # fmt: skip
    kinds = "relu", "leaky_relu", "elu"
    return {f"accuracy with dead-born {k}": round(found["revival"][k]["train"], 3) for k in kinds}


def check(found):
    """Dead ReLU units stay, bit for bit; the others come back; coasting is the geometric series."""
    revival = found["revival"]
    assert revival["relu"]["before"] == revival["relu"]["after"] == 1
    assert revival["relu"]["changed"] == 0 and revival["relu"]["train"] <= 0.15
    assert revival["leaky_relu"]["train"] >= 0.5  # .79 to .91
    assert min(revival[k]["train"] for k in ("elu", "prelu", "maxout")) >= 0.95
    dead = found["killed"]
    assert dead["SGD"]["moved"] == 0 and dead["SGD"]["bias"] == -10
    coast = dead["momentum 0.9"]
    assert coast["moved"] > 0 and abs(coast["moved"] / coast["coast"] - 1) < 1e-3
    assert dead["Adam"]["moved"] > 0
    shrunk = (1 - DECAY * 0.1) ** (5 * STEPS)
    assert abs(dead["weight decay"]["size"] / shrunk - 1) < 1e-3
    assert all(r["alive"] == (name == "decay of biases") for name, r in dead.items())
    shared, own = found["slopes"].values()
    assert max(abs(slope - 0.25) for slope in shared) > 0.3
    assert max(abs(slope - 0.25) for slope in own) < 0.1
    assert found["means"]["elu"][-1] < 0.85 * found["means"]["relu"][-1]
    assert found["rates"][0.2][1] < 0.3 and found["rates"][1.0][1] > 0.5  # .02-.08, .83-1


def draw(found, plt):
    """Networks that begin dead; the outputs' means; one killed unit; slopes that were learned."""
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7))
    ax = axes[0, 0]
    for kind, colour in COLOURS.items():
        curve = found["revival"][kind]["curve"]
        ax.plot(range(1, len(curve) + 1), curve, color=colour, label=kind)
    ax.set(title=f"all biases begin at {BIAS}: only ReLU stays dead", xlabel="epoch",
           ylabel="training accuracy", ylim=(0, 1.05))  # fmt: skip
    ax.legend(loc=(0.42, 0.48))
    ax = axes[0, 1]
    bars = found["killed"]
    ax.bar(range(len(bars)), [r["bias"] for r in bars.values()],
           color=["tab:green" if r["alive"] else "tab:gray" for r in bars.values()])  # fmt: skip
    for i, r in enumerate(bars.values()):
        text = "alive" if r["alive"] else "dead"
        ax.text(i, 0.2, f"{text}\n{r['moved']:.1g}", ha="center")
    ax.set(title="a killed unit 5 epochs later, and how far it moved", ylabel="its bias",
           xticks=range(len(bars)), ylim=(-10.5, 2))  # fmt: skip
    ax.set_xticklabels([name.replace(" ", "\n", 1) for name in bars])
    ax = axes[1, 0]
    x = mg.linspace(-2.0, 2.0, 401)
    for i, slope in enumerate(found["slopes"]["one per layer"]):
        ax.plot(x.tolist(), mg.leaky_relu(x, slope).tolist(), label=f"layer {i + 1}: {slope:.2f}")
    ax.plot(x.tolist(), mg.leaky_relu(x, 0.25).tolist(), "k--", lw=1, label="start: 0.25")
    ax.set(title="PReLU: the slopes that three layers learned", xlabel="x", ylabel="output")
    ax.legend(loc="upper left")
    ax = axes[1, 1]
    for kind, row in found["means"].items():
        ax.plot(range(1, 6), row, "o-", color=COLOURS[kind], label=kind)
    ax.set(title="before training: ELU is nearer to zero in later layers", xlabel="layer",
           ylabel="|mean output| of a unit", ylim=(0, None), xticks=range(1, 6))  # fmt: skip
    ax.legend(loc="lower left")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
