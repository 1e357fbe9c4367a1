"""Know which side a remedy helps: dropout helps a bad test result, and ruins a bad training result.

Two networks are bad, and each gets every remedy. One is bad on the training set: three layers of
sigmoid. Another activation or Adam helps it; dropout and weight decay make it worse. The other
learns even the wrong labels in its training set, and is bad on the test: there dropout, weight
decay and early stopping help, at a price on the training set, and what helped the first does not.
So look at the training set first, and again after each remedy for the test.

Sparse outputs are said to reduce overfitting. Here the networks with more zeros do have the smaller
gap on the whole, but weight decay makes the outputs denser and closes the gap as dropout does:
sparsity is not what it takes.
"""

import lesson

import microgradnd as mg
from microgradnd import nn

WRONG = 0.4  # of the labels of the second case are drawn by chance


def network(depth, activation, width, drop):
    """Give hidden layers, each followed by dropout."""
    layers = []
    for part in lesson.network(depth, activation, width=width):
        layers.append(part)
        if drop and not isinstance(part, nn.Linear):
            layers.append(nn.Dropout(drop))
    return nn.Sequential(*layers)


def cases(seed):
    """Give both cases: data to train on, to stop by, and to test on; and how they are trained."""
    x, y, test_x, test_y = lesson.digits(seed)
    wrong = mg.random.bernoulli(WRONG, y.shape) > 0
    noisy = mg.where(wrong, mg.random.integers(0, 10, y.shape).astype(y.dtype), y)
    test = test_x, test_y
    return {
        "bad on train": {
            "data": ((x[:1137], y[:1137]), (x[1137:], y[1137:]), test),
            "epochs": 20, "depth": 3, "width": 64, "activation": "sigmoid", "other": "relu",
            "rate": 0.5, "adam": 0.01, "decay": 1e-3, "patience": 5,
        },
        "bad on test": {
            "data": ((x[:400], noisy[:400]), (x[400:700], noisy[400:700]), test),
            "epochs": 80, "depth": 2, "width": 128, "activation": "relu", "other": "elu",
            "rate": 0.05, "adam": 1e-3, "decay": 2e-2, "patience": 10,
        },
    }  # fmt: skip


def run(seed, case, remedy):
    """Train one network with one remedy; give what it is worth on both sides."""
    mg.manual_seed(seed)
    train, held_out, test = case["data"]
    activation = case["other" if remedy == "other activation" else "activation"]
    drop = 0.5 if remedy == "dropout" else 0.0
    model = network(case["depth"], activation, case["width"], drop)
    if remedy == "Adam":
        optimizer = mg.optim.Adam(model.parameters(), lr=case["adam"])
    else:
        decay = case["decay"] if remedy == "weight decay" else 0.0
        optimizer = mg.optim.SGD(model.parameters(), lr=case["rate"], weight_decay=decay)
    stop = mg.train.EarlyStopping("val_loss", patience=case["patience"])
    callbacks = [stop] if remedy == "early stopping" else []
    history = lesson.train(model, optimizer, train, case["epochs"], test=held_out,
                           callbacks=callbacks)  # fmt: skip
    zeros = [(a == 0).mean().item() for a in outputs(model.eval(), train[0])]
    return {
        "train": lesson.accuracy(model, *train), "test": lesson.accuracy(model, *test),
        "gap": lesson.accuracy(model, *train) - lesson.accuracy(model, *held_out),
        "zeros": sum(zeros) / len(zeros), "curves": (history["loss"], history["val_loss"]),
        "best epoch": stop.best_epoch,
    }  # fmt: skip


@mg.no_grad
def outputs(model, x):
    """Give what each activation of a network gives."""
    found = []
    for part in list(model)[:-1]:
        x = part(x)
        if not isinstance(part, (nn.Linear, nn.Dropout)):
            found.append(x)
    return found


REMEDIES = ("nothing", "other activation", "Adam", "early stopping", "weight decay", "dropout")


def measure(seed):
    """Cross the remedies with the cases."""
    return {name: {remedy: run(seed, case, remedy) for remedy in REMEDIES}
            for name, case in cases(seed).items()}  # fmt: skip


def gains(found):
    """Give what each remedy changes, `{(case, remedy): (train, test)}`."""
    return {(case, remedy): tuple(r[side] - results["nothing"][side] for side in ("train", "test"))
            for case, results in found.items() for remedy, r in results.items()}  # fmt: skip


def relation(results):
    """Give the correlation of zeros and gap over the networks of ReLU."""
    pairs = [(r["zeros"], r["gap"]) for n, r in results.items() if n != "other activation"]
    zeros, gaps = ([v - sum(column) / len(column) for v in column]
                   for column in zip(*pairs, strict=True))  # fmt: skip
    product = sum(z * g for z, g in zip(zeros, gaps, strict=True))
    return product / (sum(z * z for z in zeros) * sum(g * g for g in gaps)) ** 0.5


def report(found):
    """Print what each remedy does to each side, and the zeros beside the gap."""
    changes, rows = gains(found), []
    for case, results in found.items():
        for remedy, r in results.items():
            change = [f"{g:+.3f}" for g in changes[case, remedy]]
            rows.append((case, remedy, r["train"], r["test"], *change))
    lesson.table(("case", "remedy", "train", "test", "train changes", "test changes"), rows)
    print(f"(of the second case's training labels {WRONG:.0%} are drawn by chance; the test's are")
    print("right; the gap below is that to 300 held-out examples with labels drawn likewise)\n")
    results = found["bad on test"]
    rows = [(remedy, r["zeros"], r["gap"]) for remedy, r in results.items()]
    lesson.table(("bad on test", "outputs that are 0", "gap"), rows)
    print(f"correlation of both, without the other activation: {relation(results):+.2f}\n")
    return {
        "bad on train, dropout: change on train": round(changes["bad on train", "dropout"][0], 3),
        "bad on test, dropout: change on test": round(changes["bad on test", "dropout"][1], 3),
    }


def check(found):
    """Each remedy helps its side; dropout ruins a bad training result; both need a second look."""
    change = gains(found)
    for remedy in ("other activation", "Adam"):
        assert change["bad on train", remedy][0] >= 0.1, remedy  # .17 to .32
    assert change["bad on train", "dropout"][0] <= -0.3  # -.57 to -.70
    assert change["bad on train", "weight decay"][0] <= -0.08  # -.17 to -.29
    assert max(change["bad on train", r][1] for r in ("dropout", "weight decay")) < 0
    for remedy, least in (("dropout", 0.03), ("weight decay", 0.03), ("early stopping", 0.01)):
        train, test = change["bad on test", remedy]  # test: .07 to .26, .06 to .19, .04 to .24
        assert test >= least and train < 0, remedy
    assert change["bad on test", "Adam"][1] < change["bad on test", "dropout"][1] - 0.05
    results = found["bad on test"]
    nothing, dropout, decay = (results[r] for r in ("nothing", "dropout", "weight decay"))
    assert decay["zeros"] < nothing["zeros"] < dropout["zeros"]
    assert max(decay["gap"], dropout["gap"]) < nothing["gap"]


def draw(found, plt):
    """What remedies change, when to stop, and sparsity beside the gap."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7))
    places = range(len(REMEDIES) - 1)
    for ax, case in zip(axes[0], found, strict=True):
        for side, colour in ((0, "tab:blue"), (1, "tab:orange")):
            values = [gains(found)[case, remedy][side] for remedy in REMEDIES[1:]]
            ax.bar([i + 0.4 * side - 0.2 for i in places], values, 0.4, color=colour,
                   label=("training set", "test set")[side])  # fmt: skip
        ax.axhline(0, color="black", lw=0.8)
        ax.set(title=f"{case}: what each remedy changes", ylabel="change of the accuracy",
               xticks=places)  # fmt: skip
        ax.set_xticklabels([remedy.replace(" ", "\n") for remedy in REMEDIES[1:]])
        ax.legend(loc="best")
    results = found["bad on test"]
    ax = axes[1, 0]
    for name, curve in zip(("training", "held out"), results["nothing"]["curves"], strict=True):
        ax.plot(range(1, len(curve) + 1), curve, label=name)
    ax.axvline(results["early stopping"]["best epoch"], color="black", ls="--",
               label="taken by early stopping")  # fmt: skip
    ax.set(title="bad on test: a lower training loss, a higher one elsewhere", xlabel="epoch",
           ylabel="loss")  # fmt: skip
    ax.legend(loc="center right")
    ax = axes[1, 1]
    for remedy, r in results.items():
        ax.plot(r["zeros"], r["gap"], "o", label=remedy)
    ax.set(title="bad on test: both sparser and denser close the gap", ylabel="gap",
           xlabel="share of outputs that are 0", xlim=(-0.05, 1))  # fmt: skip
    ax.legend(loc="upper right")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
