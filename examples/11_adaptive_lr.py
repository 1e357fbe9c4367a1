"""Adaptive rates rescue sigmoid networks of moderate depth, not deep ones; nor do schedules.

Adam divides each weight's gradient by its usual size, so layers that get a thousandth of the
gradient take steps of the usual size all the same: 4 sigmoid layers, hopeless with SGD, learn. In
10 layers that is not enough: there the signal has shrunk on its way forward, too, and at first the
last layer sees almost the same for every example. Changing the activation reaches further than
changing the optimizer. A schedule lets one rate fall (or rise first) for all layers. It cannot help
where no gradient arrives; where it does, and the rate is a bit too high for the end, it helps a
lot.
"""

import lesson

import microgradnd as mg
from microgradnd import nn

optim, rates = mg.optim, mg.optim.lr_scheduler
EPOCHS = 12
STEPS = 45  # of an epoch: 1437 examples, 32 at a time
OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.5),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.003),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
}
#: What makes a schedule's callback, of an optimizer; the rates begin at that of the optimizer.
SCHEDULES = {
    "constant": lambda o: [],
    "plateau": lambda o: [mg.train.Schedule(
        rates.ReduceLROnPlateau(o, factor=0.3, patience=1), monitor="loss")],
    "warm-up, cosine": lambda o: [mg.train.Schedule(rates.SequentialLR(o, [
        rates.LinearLR(o, 0.01, 1.0, 2 * STEPS),
        rates.CosineAnnealingLR(o, (EPOCHS - 2) * STEPS)], [2 * STEPS]), per="step")],
}  # fmt: skip


class Rates(mg.train.Callback):
    """Notes the learning rate of every step."""

    def __init__(self):
        self.seen = []

    def on_step_begin(self, loop):
        """Note it."""
        self.seen.append(loop.optimizer.param_groups[0]["lr"])


def run(seed, data, depth, activation, optimizer, schedule="constant"):
    """Train one network; all begin with the same random numbers, and see the same batches."""
    mg.manual_seed(seed)
    model = lesson.network(depth, activation)
    optimizer, noted = optimizer(model.parameters()), Rates()
    history = lesson.train(model, optimizer, data, epochs=EPOCHS,
                           callbacks=[noted, *SCHEDULES[schedule](optimizer)])  # fmt: skip
    final = mg.train.evaluate(model, mg.cross_entropy, data, "accuracy")
    return {"curve": history["accuracy"], "rates": noted.seen} | final


def differences(seed, data, depth):
    """Give how much the examples differ, before training, in what each layer computes."""
    mg.manual_seed(seed)
    outputs = [z for z, _ in lesson.flow(lesson.network(depth, "sigmoid"), *data)]
    return [lesson.rms(z - z.mean(axis=0)) for z in outputs]


def steps(seed, data, optimizer, count=10):
    """Give how far each layer's weights go in the first steps, as a share of their size."""
    mg.manual_seed(seed)
    model = lesson.network(4, "sigmoid")
    weights = [part.weight for part in model if isinstance(part, nn.Linear)]
    before = [w.detach().clone() for w in weights]
    few = tuple(part[: count * lesson.BATCH] for part in data)
    lesson.train(model, optimizer(model.parameters()), few, epochs=1)
    return [lesson.rms(w.detach() - old) / lesson.rms(old)
            for w, old in zip(weights, before, strict=True)]  # fmt: skip


def measure(seed):
    """Cross optimizers with depth, and schedules with networks that get a gradient or do not."""
    data = lesson.digits(seed)[:2]
    found = {"optimizers": {}, "schedules": {}}
    for depth, names in ((4, OPTIMIZERS), (10, ("SGD", "RMSprop", "Adam"))):
        for name in names:
            result = run(seed, data, depth, "sigmoid", OPTIMIZERS[name])
            found["optimizers"][depth, name] = result
    found["relu"] = run(seed, data, 10, "relu", lambda p: optim.SGD(p, lr=0.05))
    found["differences"] = differences(seed, data, 10)
    found["steps"] = {name: steps(seed, data, OPTIMIZERS[name]) for name in ("SGD", "Adam")}
    for name in SCHEDULES:
        found["schedules"][name] = run(seed, data, 10, "relu", lambda p: optim.SGD(p, lr=0.1), name)
    for depth in (4, 10):
        found["optimizers"][depth, "SGD, warm-up, cosine"] = run(
            seed, data, depth, "sigmoid", OPTIMIZERS["SGD"], "warm-up, cosine")  # fmt: skip
    return found


def report(found):
    """Print optimizers by depth, the size of steps, and schedules."""
    names = [name for depth, name in found["optimizers"] if depth == 4]
    rows = [(name, *(found["optimizers"][d, name]["accuracy"] if (d, name) in found["optimizers"]
                     else "" for d in (4, 10))) for name in names]  # fmt: skip
    rows.append(("(ReLU, SGD)", "", found["relu"]["accuracy"]))
    lesson.table(("sigmoid, trained by", "4 layers", "10 layers"), rows)
    rows = [(name, *row, row[0] / row[3]) for name, row in found["steps"].items()]
    layers = [f"layer {i}" for i in (1, 2, 3, 4)]
    print("4 sigmoid layers, the first 10 steps: how far the weights go, as a share of their size")
    lesson.table(("", *layers, "output", "1 / 4"), rows)
    print("10 sigmoid layers before training: how much the examples differ in layers 1, 4, 7, 10:",
          ", ".join(f"{v:.0e}" for v in found["differences"][::3]), "\n")  # fmt: skip
    rows = [(name, r["accuracy"], r["loss"]) for name, r in found["schedules"].items()]
    lesson.table(("10 ReLU layers, SGD from 0.1", "train", "loss"), rows)
    ways = found["optimizers"]
    return {f"accuracy of {name}, {depth} sigmoid layers": round(ways[depth, name]["accuracy"], 3)
            for depth, name in ((4, "SGD"), (4, "Adam"), (10, "Adam"))}  # fmt: skip


def check(found):
    """Adam trains 4 sigmoid layers, not 10; ReLU needs no such help; a schedule lowers the loss."""
    train = {key: r["accuracy"] for key, r in found["optimizers"].items()}
    assert train[4, "SGD"] <= 0.3 and train[4, "Adam"] >= 0.88  # .10 to .11, .96 to .97
    assert max(a for (depth, _), a in train.items() if depth == 10) <= 0.4  # .10 to .21
    assert train[4, "SGD, warm-up, cosine"] <= 0.3
    assert found["relu"]["accuracy"] >= 0.85  # .97 to .99
    sgd, adam = (row[0] / row[3] for row in found["steps"].values())
    assert adam > 10 * sgd  # 47 to 81 times
    assert found["differences"][9] < 1e-3 * found["differences"][0]
    loss = {name: r["loss"] for name, r in found["schedules"].items()}
    assert loss["warm-up, cosine"] < 0.7 * loss["constant"]  # .06 to .27 of it


def draw(found, plt):
    """Training curves by optimizer, sizes of steps, and schedules with what they lead to."""
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7))
    epochs = range(1, EPOCHS + 1)
    ax = axes[0, 0]
    for (depth, name), r in found["optimizers"].items():
        if "warm-up" not in name:
            colour = f"C{list(OPTIMIZERS).index(name)}"
            ax.plot(epochs, r["curve"], "-" if depth == 4 else "--", color=colour,
                    label=name if depth == 4 else None)  # fmt: skip
    ax.plot(epochs, found["relu"]["curve"], "k--", label="10 layers of ReLU, SGD")
    ax.set(title="sigmoid: 4 layers (lines), 10 layers (dashes)", xlabel="epoch",
           ylabel="training accuracy", ylim=(0, 1.05))  # fmt: skip
    ax.legend(loc=(0.61, 0.12), fontsize=7.5)
    ax = axes[0, 1]
    for name, row in found["steps"].items():
        ax.semilogy(range(1, 6), row, "o-", color=f"C{list(OPTIMIZERS).index(name)}", label=name)
    ax.set(title="4 sigmoid layers: Adam moves the first ones, too", ylabel="10 steps / size",
           xticks=range(1, 6), xticklabels=["layer 1", "2", "3", "4", "output"])  # fmt: skip
    ax.legend()
    for i, (name, r) in enumerate(found["schedules"].items()):
        axes[1, 0].plot(r["rates"], color=f"C{i}", label=name)
        axes[1, 1].plot(epochs, r["curve"], color=f"C{i}", label=f"{name}: loss {r['loss']:.3f}")
    axes[1, 0].set(title="schedules", xlabel="step", ylabel="learning rate")
    axes[1, 1].set(title="10 layers of ReLU with them", xlabel="epoch", ylabel="running accuracy",
                   ylim=(0, 1.05))  # fmt: skip
    axes[1, 0].legend(loc=(0.6, 0.55))
    axes[1, 1].legend(loc="lower right")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
