"""A bad result is first looked for on the training set: deeper sigmoid networks fit it worse.

Networks of 1 to 10 hidden layers learn handwritten digits. With sigmoid, from some depth on they
are bad on the test, and just as bad on the examples that they were trained on: that is no
overfitting. With ReLU the same depth is learned.
"""

import lesson

import microgradnd as mg

SIGMOID = (1, 2, 3, 4, 5, 10)
RELU = (1, 3, 10)
RATE = {"sigmoid": 0.5, "relu": 0.05}
CURVES = (2, 10)  # the sigmoid networks whose test accuracy is followed


def measure(seed):
    """Give accuracies, `{(activation, depth): ((train, test), history)}`."""
    x, y, tx, ty = lesson.digits(seed)
    found = {}
    for activation, depths in (("sigmoid", SIGMOID), ("relu", RELU)):
        for depth in depths:
            model = lesson.network(depth, activation)
            optimizer = mg.optim.SGD(model.parameters(), lr=RATE[activation])
            test = (tx, ty) if activation == "sigmoid" and depth in CURVES else None
            history = lesson.train(model, optimizer, (x, y), test=test)
            final = lesson.accuracy(model, x, y), lesson.accuracy(model, tx, ty)
            found[activation, depth] = final, history
    return found


def report(found):
    """Print the accuracies and what to say of them."""
    rows = []
    for (activation, depth), ((train, test), _) in found.items():
        good = train > 0.9
        verdict = "fits" if good else "bad on the training set: not overfitting"
        rows.append((activation, depth, train, test, verdict))
    lesson.table(("activation", "layers", "train", "test", "verdict"), rows)
    return {f"accuracy of {depth} layers, {side}": round(accuracy, 3) for depth in CURVES
            for side, accuracy in zip(("train", "test"), found["sigmoid", depth][0], strict=True)
            }  # fmt: skip


def check(found):
    """More layers of sigmoid are worse on the training set itself; of ReLU they are not."""
    final = {key: value[0] for key, value in found.items()}
    assert min(final["sigmoid", d][0] for d in (1, 2)) >= 0.93
    assert max(final["sigmoid", d][0] for d in SIGMOID if d >= 4) <= 0.2
    assert all(abs(final["sigmoid", d][0] - final["sigmoid", d][1]) <= 0.1 for d in SIGMOID)
    assert final["relu", 10][0] >= 0.97


def draw(found, plt):
    """Accuracy over depth on both sets, and two training runs."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5))
    for side, name in enumerate(("training", "test")):
        ax = axes[0, side]
        for activation, colour in (("sigmoid", "tab:red"), ("relu", "tab:blue")):
            points = [(d, v[0][side]) for (a, d), v in found.items() if a == activation]
            ax.plot(*zip(*points, strict=True), "o-", color=colour, label=activation)
        ax.set(title=f"accuracy on the {name} set", xlabel="hidden layers", ylim=(0, 1.05))
        ax.legend()
        ax = axes[1, side]
        for depth, colour in zip(CURVES, ("tab:orange", "tab:red"), strict=True):
            curve = found["sigmoid", depth][1][("accuracy", "val_accuracy")[side]]
            ax.plot(range(1, len(curve) + 1), curve, color=colour, label=f"{depth} layers")
        ax.set(title=f"sigmoid, {name} set", xlabel="epoch", ylabel="accuracy", ylim=(0, 1.05),
               xticks=range(0, len(curve) + 1, 4))  # fmt: skip
        ax.legend()
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
