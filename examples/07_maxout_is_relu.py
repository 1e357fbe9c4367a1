"""Maxout with two pieces, one of them fixed at 0, is ReLU: the same outputs, the same gradients.

The largest of w x + b and 0 is ReLU of w x + b. Values and gradients agree in every number, and a
network of such units learns as its twin with ReLU does, as long as the second piece is held at 0.
The one difference is the kink itself: at exactly 0 both pieces are equal, and Maxout gives the
gradient to the first of them. If that is the fixed 0, the gradient is ReLU's there, too.
"""

import lesson

import microgradnd as mg
from microgradnd import nn

EXAMPLES, INPUTS, UNITS, STEPS = 4096, 8, 16, 20


def beside_zero(z, zero_first=False):
    """Give a tensor in which every number of z and a 0 form a group."""
    pair = [mg.zeros_like(z), z] if zero_first else [z, mg.zeros_like(z)]
    return mg.stack(pair, axis=-1).reshape(*z.shape[:-1], -1)


def outcome(layer, activation, x):
    """Give the output of a layer and what its weight and its bias get for the sum of squares."""
    layer.zero_grad()
    out = activation(layer(x))
    (out * out).sum().backward()
    return out.detach(), layer.weight.grad, layer.bias.grad


def hold(maxout, line):
    """Make the first pieces of a Maxout layer those of a linear one, and the second pieces 0."""
    with mg.no_grad():
        for mine, other in ((maxout.weight, line.weight), (maxout.bias, line.bias)):
            mine.assign_(mg.stack([other, mg.zeros_like(other)], axis=1).reshape(mine.shape))


def compare(dtype):
    """Give how many numbers differ on the same z, and how far two layers are apart."""
    x = mg.random.normal(0.0, 1.0, (EXAMPLES, INPUTS), dtype=dtype)
    line = nn.Linear(INPUTS, UNITS, dtype=dtype)
    relu = outcome(line, mg.relu, x)
    on_z = outcome(line, lambda z: mg.maxout(beside_zero(z), 2), x)
    differing = sum((a != b).sum().item() for a, b in zip(relu, on_z, strict=True))
    # A layer of 32 rows may be multiplied in another order than one of 16: no equal bits here.
    maxout = nn.Maxout(INPUTS, UNITS, 2, dtype=dtype)
    hold(maxout, line)
    apart = mg.max(mg.abs(maxout(x) - relu[0])).item() / mg.max(mg.abs(relu[0])).item()
    return sum(t.size for t in relu), differing, apart


def race(seed):
    """Train twins for a few steps; give the losses of the one with ReLU and the other."""
    x, y, _, _ = lesson.digits(seed)
    line = lesson.linear(64, 64, lesson.INIT["relu"])
    maxout = nn.Maxout(64, 64, 2)
    hold(maxout, line)
    last, twin = lesson.linear(64, 10), nn.Linear(64, 10)
    twin.load_state_dict(last.state_dict())
    nets = nn.Sequential(line, mg.relu, last), nn.Sequential(maxout, twin)
    steps = [mg.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    free = mg.tensor([1.0, 0.0])  # the first piece learns, the second does not
    losses = [], []
    for step in range(STEPS):
        batch = slice(32 * step, 32 * step + 32)
        for net, sgd, noted in zip(nets, steps, losses, strict=True):
            sgd.zero_grad()
            loss = mg.cross_entropy(net(x[batch]), y[batch])
            loss.backward()
            if net is nets[1]:
                maxout.weight.grad = (maxout.weight.grad.reshape(64, 2, 64)
                                      * free.reshape(1, 2, 1)).reshape(128, 64)  # fmt: skip
                maxout.bias.grad = (maxout.bias.grad.reshape(64, 2) * free).reshape(128)
            sgd.step()
            noted.append(loss.detach())  # a number would be waited for on a GPU, step by step
    return [mg.stack(noted).tolist() for noted in losses]


def slopes(x):
    """Give the slope at each x of ReLU, and of Maxout with the 0 behind x and before it."""
    functions = (mg.relu, lambda x: mg.maxout(beside_zero(x), 2),
                 lambda x: mg.maxout(beside_zero(x, zero_first=True), 2))  # fmt: skip
    return [mg.grad(lambda x, f=f: f(x).sum())(x).tolist() for f in functions]


def measure(seed):
    """Compare in both precisions, at the kink, and over a few steps of training."""
    found = {dtype: compare(dtype) for dtype in ("float32", "float64")}
    found["losses"] = race(seed)
    found["at 0"] = [slope[0] for slope in slopes(mg.tensor([0.0]))]
    return found


def report(found):
    """Print what differs."""
    lesson.table(("precision", "numbers", "differ", "two layers apart (relative)"),
                 [(dtype, *found[dtype]) for dtype in ("float32", "float64")])  # fmt: skip
    names = "ReLU", "Maxout of (z, 0)", "Maxout of (0, z)"
    lesson.table(("slope at z = 0", ""), zip(names, found["at 0"], strict=True))
    relu, maxout = found["losses"]
    gap = max(abs(a - b) for a, b in zip(relu, maxout, strict=True))
    print(f"{STEPS} steps of training: loss {relu[0]:.3f} to {relu[-1]:.3f} with ReLU and "
          f"{maxout[-1]:.3f} with Maxout, never more than {gap:.0e} apart\n")  # fmt: skip
    return {"differing numbers": found["float32"][1] + found["float64"][1]}


def check(found):
    """Equal where the arithmetic is the same, equal up to rounding where it is not."""
    assert found["float32"][1] == found["float64"][1] == 0
    assert found["float32"][2] < 1e-6 and found["float64"][2] < 1e-14
    assert found["at 0"] == [0, 1, 0]
    relu, maxout = found["losses"]
    assert relu[-1] < 0.9 * relu[0]  # they did learn: 0.64 to 0.81 over five seeds
    assert all(abs(a - b) < 1e-5 for a, b in zip(relu, maxout, strict=True))


def draw(found, plt):
    """The two pieces and their maximum with ReLU's dots on it; the slopes below."""
    x = mg.linspace(-2.0, 2.0, 81, dtype="float64")
    z = 1.5 * x - 0.6
    xs, few = x.tolist(), slice(None, None, 4)
    figure, axes = plt.subplots(2, 1, figsize=(6.5, 6), sharex=True, height_ratios=(2, 1))
    ax = axes[0]
    ax.plot(xs, z.tolist(), "--", color="tab:green", label="first piece: 1.5 x - 0.6")
    ax.plot(xs, [0.0] * len(xs), "--", color="tab:purple", label="second piece: 0")
    ax.plot(xs, mg.maxout(beside_zero(z), 2).tolist(), color="tab:orange", lw=4, alpha=0.6,
            label="Maxout: the larger of both")  # fmt: skip
    ax.plot(xs[few], mg.relu(z).tolist()[few], "k.", label="ReLU of 1.5 x - 0.6")
    ax.set(title="ReLU is Maxout with one piece fixed at 0", ylabel="output")
    ax.legend()
    relu, maxout, _ = slopes(z)
    axes[1].step(xs, [1.5 * s for s in maxout], where="mid", color="tab:orange", lw=4, alpha=0.6)
    axes[1].plot(xs[few], [1.5 * s for s in relu][few], "k.")
    axes[1].set(title="and their slopes are the same", xlabel="x", ylabel="slope in x")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
