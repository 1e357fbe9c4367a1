"""Given the input, a ReLU network is a thinner linear one: units that give 0 can be taken out.

Of each input we keep the units that are above 0, multiply what is left of the matrices, and get the
same output, and the same Jacobian, from one small matrix. A tiny step keeps the units and so the
matrix; a far input has other units and another matrix: the network is linear piece by piece.

How many pieces? One layer of n units in d dimensions has exactly C(n, 0) + ... + C(n, d). Along a
line, 60 units make about 60 pieces before training, be they in one layer or in six.
"""

import math
from itertools import combinations, pairwise

import lesson

import microgradnd as mg
from microgradnd import nn

SIZES, OUTPUTS, INPUTS = (2, 12, 12, 12), 3, 200
ONE_LAYER = ((20, 1), (5, 2), (10, 2))  # units, dimensions
SHAPES, DRAWS = ((60,), (30, 30), (20, 20, 20), (10,) * 6), 30


def network(sizes, outputs):
    """Give a ReLU network in float64, with biases that are not 0."""
    layers = []
    for n, m in pairwise(sizes):
        layers += [lesson.linear(n, m, lesson.INIT["relu"]), mg.relu]
        nn.init.normal_(layers[-2].bias)
    return nn.Sequential(*layers, lesson.linear(sizes[-1], outputs)).to("float64")


def live(model, x):
    """Give, of each hidden layer, which units are above 0."""
    masks = []
    for part in model[:-1]:
        x = part(x)
        if not isinstance(part, nn.Linear):
            masks.append(x > 0)
    return masks


def thin(model, x):
    """Take the units out that give 0 for one input; multiply the rest to a matrix and a vector."""
    layers = [part for part in model if isinstance(part, nn.Linear)]
    weight, bias = mg.eye(len(x), dtype=x.dtype), mg.zeros(len(x), dtype=x.dtype)
    before = mg.ones(len(x), dtype=bool)
    for layer, keep in zip(layers, [*live(model, x), mg.ones(OUTPUTS, dtype=bool)], strict=True):
        smaller = layer.weight[keep][:, before]
        weight, bias = smaller @ weight, smaller @ bias + layer.bias[keep]
        before = keep
    return weight, bias


def regions(lines):
    """Count the pieces into which lines (a, b, c), ax + by + c = 0, cut the plane.

    In general position each piece has a corner where two lines cross, and each crossing is the
    corner of four pieces. A piece is known by the side of each line on which it lies.
    """
    found = set()
    for (i, (a, b, c)), (j, (d, e, f)) in combinations(enumerate(lines), 2):
        x, y = (b * f - c * e) / (a * e - b * d), (c * d - a * f) / (a * e - b * d)
        sides = [p * x + q * y + r > 0 for p, q, r in lines]
        for sides[i] in (False, True):
            for sides[j] in (False, True):
                found.add(tuple(sides))
    return len(found)


def intervals(points):
    """Count the pieces into which units (a, c), ax + c = 0, cut a line, in the same way."""
    cuts = sorted(-c / a for a, c in points)
    middles = [(s + t) / 2 for s, t in pairwise(cuts)]
    return len({tuple(a * x + c > 0 for a, c in points)
                for x in [cuts[0] - 1, *middles, cuts[-1] + 1]})  # fmt: skip


def pieces_on_a_line(hidden):
    """Count the linear pieces of a network of one input, on 20001 points of the whole line."""
    edge = math.pi / 2 - 1e-4
    x = mg.tan(mg.linspace(-edge, edge, 20001, dtype="float64")).reshape(-1, 1)
    on = mg.concatenate(live(network((1, *hidden), 1), x), axis=1)
    return 1 + (on[1:] != on[:-1]).any(axis=1).sum().item()


@mg.no_grad
def measure(seed):
    """Compare thin and whole network; count pieces."""
    model = network(SIZES, OUTPUTS)
    x = mg.random.normal(0.0, 1.0, (INPUTS, 2), dtype="float64")
    whole = model(x)
    small = [thin(model, row) for row in x]
    thinner = mg.stack([w @ row + b for (w, b), row in zip(small, x, strict=True)])
    found = {"apart": (mg.max(mg.abs(whole - thinner)) / mg.max(mg.abs(whole))).item()}
    found["kept"] = mg.concatenate(live(model, x), axis=1).mean().item()

    slope = mg.jacobian(model)
    change = {"the thin matrix": [], "the Jacobian 1e-6 away": [], "the Jacobian at -x": []}
    for row, (weight, _) in zip(x[:20], small, strict=False):
        here = slope(row)
        for other, apart in zip((weight, slope(row + 1e-6), slope(-row)), change.values(),
                                strict=True):  # fmt: skip
            apart.append(mg.max(mg.abs(here - other)).item())
    found["change"] = change

    found["counted"] = []
    for n, d in ONE_LAYER:
        units = mg.random.normal(0.0, 1.0, (n, d + 1), dtype="float64").tolist()
        exact = sum(math.comb(n, j) for j in range(d + 1))
        found["counted"].append((n, d, (intervals if d == 1 else regions)(units), exact))
    found["mean"] = {hidden: sum(pieces_on_a_line(hidden) for _ in range(DRAWS)) / DRAWS
                     for hidden in SHAPES}  # fmt: skip

    ticks = [-3 + 6 * i / 299 for i in range(300)]
    plane = mg.tensor([[a, b] for b in ticks for a in ticks], dtype="float64")
    on = mg.concatenate(live(model, plane), axis=1)
    colour = mg.random.uniform(0.0, 1.0, on.shape[1], dtype="float64")
    colours = mg.remainder(on.astype("float64") @ colour, 1.0)
    found["map"] = ticks, colours.reshape(300, 300).tolist()
    found["two"] = [(p, [m.tolist() for m in live(model, mg.tensor(p, dtype="float64"))])
                    for p in ([1.5, 1.0], [-1.5, -1.0])]  # fmt: skip
    return found


def differing(distances):
    """Count the distances that are more than rounding."""
    return sum(d > 1e-3 for d in distances)


def report(found):
    """Print what was taken out, what changes, and how many pieces there are."""
    print(f"{INPUTS} inputs: {found['kept']:.0%} of the hidden units kept on average; outputs of "
          f"the thin network differ by {found['apart']:.0e} of the largest\n")  # fmt: skip
    lesson.table(("Jacobian at x against", "inputs where it differs", "at most by"),
                 [(what, f"{differing(d)} of {len(d)}", max(d))
                  for what, d in found["change"].items()])  # fmt: skip
    lesson.table(("units", "dimensions", "pieces counted", "formula"), found["counted"])
    lesson.table(("units per layer", "mean pieces along a line"), found["mean"].items())
    return {"outputs differ by": float(f"{found['apart']:.0e}"),
            "units kept": round(found["kept"], 2)}  # fmt: skip


def check(found):
    """The same outputs, the same Jacobian nearby, another far away; the pieces as counted."""
    assert found["apart"] < 1e-12 and 0.25 < found["kept"] < 0.75  # 0.38 to 0.57 over five seeds
    matrix, near, far = found["change"].values()
    assert max(matrix) < 1e-10 and max(near) < 1e-10
    assert differing(far) >= 15  # of 20; an input near 0 may share its piece with its opposite
    assert all(counted == exact for _, _, counted, exact in found["counted"])
    assert all(45 < mean < 75 for mean in found["mean"].values())  # 57 to 63


def draw(found, plt):
    """The network with what is live for two inputs, and the plane coloured by linear piece."""
    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.4))
    for ax, ((a, b), masks), colour in zip(axes, found["two"], ("tab:blue", "tab:red"),
                                           strict=False):  # fmt: skip
        layers = [[True] * SIZES[0], *masks, [True] * OUTPUTS]
        for i, (left, right) in enumerate(pairwise(layers)):
            for on in (False, True):  # the faint lines first
                for j, p in enumerate(left):
                    for k, q in enumerate(right):
                        if (p and q) == on:
                            ends = (height(j, left), height(k, right))
                            ax.plot((i, i + 1), ends, color=colour if on else "lightgrey",
                                    lw=0.8 if on else 0.3, zorder=1 + on)  # fmt: skip
        for i, layer in enumerate(layers):
            for j, on in enumerate(layer):
                ax.plot(i, height(j, layer), "o", ms=9, mec=colour if on else "lightgrey",
                        mfc=colour if on else "white", zorder=3)  # fmt: skip
        count = sum(map(sum, masks))
        ax.set(title=f"input ({a:g}, {b:g}): {count} of {sum(SIZES[1:])} units are live")
        ax.axis("off")
    ticks, plane = found["map"]
    axes[2].pcolormesh(ticks, ticks, plane, cmap="Pastel1", rasterized=True)
    for ((a, b), _), colour in zip(found["two"], ("tab:blue", "tab:red"), strict=True):
        axes[2].plot(a, b, "o", ms=10, color=colour, mec="black")
    axes[2].set(title="each colour patch: one linear network", xlabel="first input",
                ylabel="second input", aspect="equal")  # fmt: skip
    axes[2].grid(False)
    return figure


def height(i, layer):
    """Give where to draw unit i of a layer."""
    return (len(layer) - 1) / 2 - i


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
