"""Change an early weight a little: each sigmoid layer shrinks the effect, the loss hardly moves.

The simplest way to ask how much a weight matters: change it, and look at the loss. On the way
forward each sigmoid layer shrinks the change; on the way back each shrinks the gradient. Both are
the same product of chain-rule factors, taken from either end: at every layer, the change that has
come so far times the gradient that has come back gives the same change of the loss, dL. The weight
is the one of the first layer that matters most.

In float32 the change of the loss is lost in rounding: 0 there does not mean that the weight does
not matter at all.
"""

import lesson

import microgradnd as mg
from microgradnd import nn

DEPTH, STEP = 10, 0.1
COLOURS = {"sigmoid": "tab:red", "relu": "tab:blue", "maxout": "tab:orange"}
# Small enough to cross hardly a kink; for sigmoid large enough for a loss with 16 digits.
CLOSE = {"sigmoid": 1e-2, "relu": 1e-6, "maxout": 1e-6}


@mg.no_grad
def outcome(model, x, y, place, step):
    """Give activations and loss when one weight of the first layer is shifted by a step."""
    weight = model[0].weight
    before = weight.clone()
    shift = mg.zeros_like(weight)
    shift[place] = step
    weight.assign_(before + shift)
    activations = []
    for part in model:
        x = part(x)
        if not isinstance(part, nn.Linear):
            activations.append(x)
    weight.assign_(before)
    return activations, mg.cross_entropy(x, y).item()


def pushed(model, x, place):
    """Give dz of each hidden layer per unit of the weight's change: the chain rule, forward."""
    unit, source = place
    z = model[0](x).detach()
    direction = mg.zeros_like(z)
    direction[:, unit] = x[:, source]

    def onward(z):
        outputs = [z]
        for part in model[1:-1]:
            z = part(z)
            if isinstance(part, nn.Linear):
                outputs.append(z)
        return tuple(outputs)

    return mg.jvp(onward, [z], [direction])[1]


def perturb(name, x, y):
    """Look at the most influential weight of the first layer from both ends."""
    model = lesson.network(DEPTH, name)
    mg.cross_entropy(model(x), y).backward()
    gradient = model[0].weight.grad
    place = divmod(mg.abs(gradient).argmax().item(), gradient.shape[1])
    rounded = outcome(model, x, y, place, STEP)[1] - outcome(model, x, y, place, 0.0)[1]

    model.to("float64")
    x, near = x.astype("float64"), CLOSE[name]
    old, loss = outcome(model, x, y, place, 0.0)
    new, moved = outcome(model, x, y, place, STEP)
    above, below = (outcome(model, x, y, place, e)[1] for e in (near, -near))
    model.zero_grad()
    mg.cross_entropy(model(x), y).backward()
    weights = [part.weight for part in model if isinstance(part, nn.Linear)][:DEPTH]
    gradients = [w.grad for w in weights]
    flow = lesson.flow(model, x, y)
    forward = pushed(model, x, place)
    return {
        "forward": [mg.abs(b - a).mean().item() for a, b in zip(old, new, strict=True)],
        "backward": [lesson.rms(g) for _, g in flow],
        "product": [(g * dz).sum().item() for (_, g), dz in zip(flow, forward, strict=True)],
        "influence": [mg.max(mg.abs(g)).item() for g in gradients],
        "dw": gradients[0][place].item(), "difference": (above - below) / (2 * near),
        "loss": moved - loss, "loss in float32": rounded,
    }  # fmt: skip


def measure(seed):
    """Perturb one weight of each network."""
    x, y, _, _ = lesson.digits(seed)
    return {name: perturb(name, x[:256], y[:256]) for name in COLOURS}


def report(found):
    """Print both directions per layer, and the change of the loss."""
    for name, row in found.items():
        lesson.table((name, "change forward", "gradient backward", "product: dL/dw", "max |dL/dw|"),
                     zip(range(1, DEPTH + 1), row["forward"], row["backward"],
                         (f"{p:.9e}" for p in row["product"]), row["influence"],
                         strict=True))  # fmt: skip
    lesson.table((f"weight + {STEP}", "dL/dw", "by differences", "loss changes by", "in float32"),
                 [(name, row["dw"], row["difference"], row["loss"], row["loss in float32"])
                  for name, row in found.items()])  # fmt: skip
    return {f"the loss changes, with {name}, by": float(f"{abs(found[name]['loss']):.0e}")
            for name in ("sigmoid", "relu")}  # fmt: skip


def check(found):
    """The same dL from every layer; only sigmoid shrinks what goes through it, by about 1/4."""
    for name, row in found.items():
        dw = row["dw"]
        assert all(abs(p - dw) < 1e-9 * abs(dw) for p in row["product"])
        assert abs(row["difference"] - dw) < (1e-2 if name == "sigmoid" else 1e-3) * abs(dw)
        forward = row["forward"]  # from layer 2 on, for in layer 1 one unit of 64 changes
        kept = (forward[-1] / forward[1]) ** (1 / (DEPTH - 2))
        assert 0.1 < kept < 0.4 if name == "sigmoid" else 0.8 < kept < 1.25  # 0.24; 0.96 to 1.09
    sigmoid = found["sigmoid"]
    assert abs(found["relu"]["loss"]) > 1e3 * abs(sigmoid["loss"])  # 4e5 and more
    assert sigmoid["influence"][0] < 1e-4 * sigmoid["influence"][-1]
    assert abs(sigmoid["loss in float32"] - sigmoid["loss"]) > 0.5 * abs(sigmoid["loss"])


def draw(found, plt):
    """Forward, backward, and their product, which is the same at every layer."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 4))
    layers = range(1, DEPTH + 1)
    for name, colour in COLOURS.items():
        row = found[name]
        axes[0].semilogy(layers, row["forward"], "o-", color=colour, label=name)
        axes[1].semilogy(layers, row["backward"], "o-", color=colour, label=name)
        axes[2].semilogy(layers, [abs(p) for p in row["product"]], "o-", color=colour, label=name)
    axes[0].set(title=f"forward: change after one weight + {STEP}", ylabel="mean |change of a|")
    axes[1].set(title="backward: gradient that arrives", ylabel="RMS of dL/dz")
    axes[2].set(title="their product: the same at every layer", ylabel="|dL/dw|")
    for ax in axes:
        ax.set(xlabel="layer (1 is next to the input)", xticks=layers)
        ax.legend()
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
