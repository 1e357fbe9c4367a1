"""A narrow ReLU network may be born dead: one layer that gives only 0 ends everything behind it.

Each unit is off for a given input with probability 1/2, if weights are as often negative as
positive. A layer of N units is off as a whole with probability 1/2^N, and what is behind it then
does not see the input, and nothing before it gets a gradient. So L layers, the last of them the
output, are dead for that input with probability 1 - (1 - 1/2^N)^(L - 1). It tends to 1 with depth;
width is the remedy. Biases do not change it for one input, they only let fewer networks be dead for
all inputs at once. (The formula is that of Lu et al., Dying ReLU and initialization, 2019.)
"""

import math

import lesson

import microgradnd as mg

WIDTHS, DEEPEST, NETWORKS = (2, 3, 5, 10), 30, 20_000
DEPTHS = (2, 5, 10, 20, 30)
COLOURS = ("tab:red", "tab:orange", "tab:green", "tab:blue")


def theory(width, depth):
    """Give the probability that a network is born dead for one input."""
    return 1 - (1 - 0.5**width) ** (depth - 1)


def simulate(width, inputs, networks=NETWORKS, bias=0.0):
    """Draw networks of one input, all at once; give the shares that are dead, by depth.

    Returns:
        Two lists from depth 2 on: dead for the first of the inputs, and for all of them.
    """
    a = mg.tensor([[inputs]], dtype="float64")  # (networks, units, inputs)
    alive = mg.ones((networks, len(inputs)), dtype=bool)
    first, everywhere = [], []
    for _ in range(DEEPEST - 1):
        n = a.shape[1]
        reach = math.sqrt(6 / n)  # He's, uniform
        z = mg.random.uniform(-reach, reach, (networks, width, n), dtype="float64") @ a
        if bias:
            z = z + mg.random.normal(0.0, bias, (networks, width, 1), dtype="float64")
        a = mg.relu(z)
        alive = alive & (a > 0).any(axis=1)
        first.append(1 - alive[:, 0].mean().item())
        everywhere.append(1 - alive.any(axis=1).mean().item())
    return first, everywhere


def measure(seed):
    """Simulate narrow networks without and with biases, and wider ones."""
    # Without biases f(cx) = c f(x) for c > 0: the inputs 1 and -1 stand for the whole line.
    found = {width: simulate(width, [1.0, -1.0]) for width in WIDTHS}
    line = [1.0, *(-3 + 6 * i / 40 for i in range(41))]
    found["biases"] = simulate(2, line, networks=5000, bias=0.3)
    found["wide"] = simulate(32, [1.0, -1.0], networks=500)
    return found


def report(found):
    """Print the simulated share beside the formula."""
    rows = [(n, d, theory(n, d), found[n][0][d - 2], found[n][1][d - 2])
            for n in WIDTHS for d in DEPTHS]  # fmt: skip
    rows += [("2, biases 0.3", d, theory(2, d), *(f[d - 2] for f in found["biases"]))
             for d in DEPTHS]  # fmt: skip
    rows += [(32, 30, theory(32, 30), found["wide"][0][-1], found["wide"][1][-1])]
    lesson.table(("width", "layers", "formula", "dead for one input", "for all inputs"), rows)
    return {"2 units, 10 layers, formula": round(theory(2, 10), 3),
            "simulated": round(found[2][0][8], 3),
            "for all inputs": round(found[2][1][8], 3)}  # fmt: skip


def check(found):
    """The formula, to 4.5 standard errors in all widths and depths; less for all inputs at once."""
    for width, networks in [*((n, NETWORKS) for n in WIDTHS), ("biases", 5000)]:
        for depth in DEPTHS:
            p = theory(2 if width == "biases" else width, depth)
            error = math.sqrt(p * (1 - p) / networks) + 1 / networks
            assert abs(found[width][0][depth - 2] - p) < 4.5 * error, (width, depth)
    assert 0.80 < found[2][1][8] < found[2][0][8]  # 0.88 against 0.92
    assert found["biases"][1][8] < found[2][1][8]  # 0.76
    assert found["wide"][0][-1] == 0


def draw(found, plt):
    """The formula as lines with the simulation as dots; one input against all."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), sharey=True)
    depths = range(2, DEEPEST + 1)
    for width, colour in zip(WIDTHS, COLOURS, strict=True):
        axes[0].plot(depths, [theory(width, d) for d in depths], color=colour,
                     label=f"{width} units per layer")  # fmt: skip
        axes[0].plot(depths, found[width][0], ".", color=colour)
    axes[0].set(title="dead for one input: formula (lines), simulated (dots)")
    one, every = found[2]
    axes[1].plot(depths, one, color="tab:red", label="for one input")
    axes[1].plot(depths, found["biases"][0], "k.", ms=4, label="for one input, with biases")
    axes[1].plot(depths, every, "--", color="tab:red", label="for all inputs")
    axes[1].plot(depths, found["biases"][1], "k:", label="for all inputs, with biases")
    axes[1].set(title="2 units per layer: dead for whom?")
    axes[0].set(ylabel="share of networks born dead", ylim=(-0.02, 1.02))
    for ax in axes:
        ax.set(xlabel="layers")
        ax.legend(loc=(0.55, 0.1) if ax is axes[0] else "lower right")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
