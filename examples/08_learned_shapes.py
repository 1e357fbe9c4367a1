"""A Maxout unit learns its own activation: convex, with at most as many pieces as a group holds.

A unit alone is fitted to a shape on [-1, 1]. Two pieces learn ReLU and |x| exactly; of x² they and
their like make the best curve of K straight pieces, whose error falls as 1/K². sin(πx) is not
convex: the largest of any number of lines cannot follow it, the difference of two Maxout units
comes far closer. There is a catch: a piece that wins nowhere gets no gradient. From lines drawn at
random hardly a unit of four or five uses all of them in the end; from tangents to a bowl, each of
which wins somewhere at the start, nearly all do.
"""

import math

import lesson

import microgradnd as mg
from microgradnd import nn

STEPS, STARTS, POINTS = 800, 16, 257
SHAPES = {"relu": mg.relu, "|x|": mg.abs, "x²": lambda x: x * x,
          "sin πx": lambda x: mg.sin(math.pi * x)}  # fmt: skip
TASKS = [("relu", 2), ("|x|", 2), ("x²", 2), ("x²", 3), ("x²", 4), ("x²", 5), ("sin πx", 5)]
#: The error of the best K pieces for x²: least squares on K intervals of length h, h² / sqrt(180).
BEST = {k: (2 / k) ** 2 / math.sqrt(180) for k in (2, 3, 4, 5)}


def unit(pieces, spread):
    """Give units that are fitted side by side, their pieces tangents to a bowl, or at random."""
    layer = nn.Maxout(1, STARTS, pieces)
    with mg.no_grad():
        if spread:
            slopes = mg.concatenate([mg.linspace(-1.5, 1.5, pieces)] * STARTS)
            noise = mg.random.normal(0.0, 0.05, (2, STARTS * pieces))
            layer.weight.assign_((slopes + noise[0]).reshape(-1, 1))
            layer.bias.assign_(slopes * slopes / -4 + noise[1])
        else:
            nn.init.uniform_(layer.weight, -2.0, 2.0)
            nn.init.uniform_(layer.bias, -1.0, 0.0)
    return layer


def learn(shape, layers):
    """Fit the first layer (minus the second, if there is one) to a shape; give the errors."""
    x = mg.linspace(-1.0, 1.0, POINTS).reshape(POINTS, 1)
    target = SHAPES[shape](x)
    adam = mg.optim.Adam(nn.ModuleList(layers).parameters(), lr=0.02)
    cosine = mg.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)

    def error():
        out = layers[0](x) if len(layers) == 1 else layers[0](x) - layers[1](x)
        return ((out - target) ** 2).mean(axis=0)  # of each unit

    for _ in range(STEPS):
        adam.zero_grad()
        error().sum().backward()
        adam.step()
        cosine.step()
    with mg.no_grad():
        return mg.sqrt(error()).tolist()


@mg.no_grad
def pieces_of(layer, number):
    """Give slopes and heights of a unit's pieces, and the numbers of those that win somewhere."""
    k = layer.pieces
    slopes = layer.weight.reshape(-1, k)[number]
    heights = layer.bias.reshape(-1, k)[number]
    x = mg.linspace(-1.0, 1.0, POINTS).reshape(POINTS, 1)
    return slopes.tolist(), heights.tolist(), sorted(set((x * slopes + heights).argmax(1).tolist()))


def full(layer):
    """Give the share of units all of whose pieces win somewhere."""
    return sum(len(pieces_of(layer, i)[2]) == layer.pieces for i in range(STARTS)) / STARTS


def bend(pieces):
    """Give by how much a unit's curve is above its chords, at most, over many pairs of points."""
    slopes, heights, _ = map(mg.tensor, pieces)

    def f(x):
        return mg.max(x.reshape(-1, 1) * slopes + heights, axis=1)

    u, v = mg.random.uniform(-3.0, 3.0, (2, 10_000))
    return mg.max(f((u + v) / 2) - (f(u) + f(v)) / 2).item()


def measure(seed):
    """Fit everything; give for each task error, pieces, bend, and how random starts end."""
    found = {}
    for shape, k in TASKS:
        layer = unit(k, spread=True)
        errors = learn(shape, [layer])
        best = pieces_of(layer, errors.index(min(errors)))
        found[shape, k] = {"error": min(errors), "pieces": best, "bend": bend(best),
                           "full": full(layer)}  # fmt: skip
    for k in BEST:
        layer = unit(k, spread=False)
        learn("x²", [layer])
        found["x²", k]["full, drawn"] = full(layer)
    pair = [unit(5, spread=True), unit(5, spread=True)]
    errors = learn("sin πx", pair)
    number = errors.index(min(errors))
    found["pair"] = {"error": min(errors), "pieces": [pieces_of(p, number) for p in pair]}
    return found


def report(found):
    """Print errors, used pieces, and what became of pieces drawn at random."""
    rows = []
    for shape, k in TASKS:
        f = found[shape, k]
        best = BEST[k] if shape == "x²" else 0.0 if k == 2 else ""
        rows.append((shape, str(k), f["error"], best, len(f["pieces"][2])))
    rows.append(("sin πx", "5 - 5", found["pair"]["error"], "", ""))
    lesson.table(("shape", "K", "error (rms)", "best possible", "pieces used"), rows)
    rows = [(k, found["x²", k]["full"], found["x²", k]["full, drawn"]) for k in BEST]
    lesson.table(("K", "units that use all K, from tangents", "from lines at random"), rows)
    return {"error of abs(x) with 2 pieces": round(found["|x|", 2]["error"], 4)} | {
        f"of x² with {k} pieces": round(found["x²", k]["error"], 4) for k in BEST}  # fmt: skip


def check(found):
    """Exact where it can be, the best of K pieces where it cannot, always convex."""
    assert max(found["relu", 2]["error"], found["|x|", 2]["error"]) < 1e-3
    for k, best in BEST.items():
        assert 0.95 * best <= found["x²", k]["error"] <= 1.1 * best
        assert len(found["x²", k]["pieces"][2]) == k
    for task in TASKS:
        assert found[task]["bend"] <= 1e-6
        assert len(found[task]["pieces"][2]) <= task[1]
    assert found["sin πx", 5]["error"] > 0.3 and found["pair"]["error"] < 0.12  # 0.06 to 0.08
    assert found["x²", 5]["full"] > 0.5 > found["x²", 5]["full, drawn"]


def draw(found, plt):
    """Above: two pieces learn three shapes. Below: more pieces, their error, and sin."""
    x = mg.linspace(-1.0, 1.0, POINTS)
    xs = x.tolist()
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.4))

    def curve(pieces):
        return [max(a * u + b for a, b in zip(*pieces[:2], strict=True)) for u in xs]

    def panel(ax, task):
        pieces = found[task]["pieces"]
        for slope, height in zip(*pieces[:2], strict=True):
            ax.plot(xs, [slope * u + height for u in xs], ":", color="tab:green", lw=1)
        ax.plot(xs, SHAPES[task[0]](x).tolist(), color="black", lw=1, label=f"{task[0]}, wanted")
        ax.plot(xs, curve(pieces), color="tab:orange", lw=3, alpha=0.7, label="learned")
        ax.set(title=f"{task[0]} with {task[1]} pieces (dotted)", ylim=(-1.1, 1.5), xlabel="x")
        ax.legend(loc="upper center")

    for ax, task in zip(axes[0], TASKS, strict=False):
        panel(ax, task)
    panel(axes[1, 0], ("x²", 4))
    ax = axes[1, 1]
    ks, errors = list(BEST), [found["x²", k]["error"] for k in BEST]
    ax.loglog(ks, list(BEST.values()), "k--", label="best possible, 0.298 / K²")
    ax.loglog(ks, errors, "o", color="tab:orange", label="learned")
    ax.set(title="x²: the error falls as 1/K²", xlabel="pieces K", ylabel="error (rms)")
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.set_yticks([0.01, 0.02, 0.04, 0.08], ["0.01", "0.02", "0.04", "0.08"])
    ax.minorticks_off()
    ax.legend()
    panel(axes[1, 2], ("sin πx", 5))
    first, second = map(curve, found["pair"]["pieces"])
    axes[1, 2].plot(xs, [a - b for a, b in zip(first, second, strict=True)], color="tab:blue",
                    lw=1.5, label="difference of two units")  # fmt: skip
    axes[1, 2].set(title="sin πx is not convex: one unit, and two", ylim=(-1.6, 2.8))
    axes[1, 2].legend(loc="upper left")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
