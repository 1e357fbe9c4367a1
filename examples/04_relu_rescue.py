"""ReLU's slope is exactly 1 on its positive side: with it very deep networks learn.

With sigmoid 10 layers learn nothing, and 30 layers nothing either, not even with Adam; with ReLU
both fit the training set. ReLU only compares, so by itself it is several times cheaper than what
needs an exponential; but most of a training step is other work, and the step as a whole gains much
less. About half of all outputs are zero. That is no death: after training nearly every unit is
positive for some of the examples. (At the start more units are not, in the later layers. They are
not trained themselves, but the layers before them are, and so some of them come to life.)
"""

import time
from statistics import median

import lesson

import microgradnd as mg

ACTIVATIONS = {"relu": mg.relu, "sigmoid": mg.sigmoid, "tanh": mg.tanh, "gelu": mg.gelu}
COLOURS = {"relu": "tab:blue", "sigmoid": "tab:red"}
#: Layers: optimizer, rates, epochs. Plain SGD is not the tool for 30 layers, even of ReLU.
RUNS = {
    10: ("SGD", {"relu": 0.05, "sigmoid": 0.5}, 15),
    30: ("Adam", {"relu": 1e-3, "sigmoid": 1e-3}, 12),
}
ELEMENTS, REPEATS = 500_000, 9


def seconds(work):
    """Give the median time of a piece of work; a device is waited for before the clock is read."""
    times = []
    for i in range(REPEATS + 2):
        began = time.perf_counter()
        work()
        mg.backend.get().synchronize()
        if i >= 2:  # the first ones warm up
            times.append(time.perf_counter() - began)
    return median(times)


def clock(name, x, y):
    """Time an activation, and a training step of 10 layers that have it.

    Gives nanoseconds per element forward, the same with backward, and milliseconds of the step.
    """
    function, model = ACTIVATIONS[name], lesson.network(10, name, init=lesson.INIT["relu"])
    z = mg.random.normal(0.0, 1.0, (ELEMENTS,)).requires_grad_()
    ones = mg.ones_like(z)
    with mg.no_grad():
        forward = seconds(lambda: function(z))
    both = seconds(lambda: function(z).backward(ones))
    step = seconds(lambda: mg.cross_entropy(model(x), y).backward())
    return forward / ELEMENTS * 1e9, both / ELEMENTS * 1e9, step * 1e3


def zeros(model, x, y):
    """Give, for each layer, the share of outputs that are 0 and of units that always give 0."""
    outputs = [z for z, _ in lesson.flow(model, x, y)]
    return [((z <= 0).mean().item(), (z.max(axis=0) <= 0).mean().item()) for z in outputs]


def measure(seed):
    """Look at the function, train 10 and 30 layers with it, and time it."""
    x, y, _, _ = lesson.digits(seed)
    z = mg.tensor([-2.0, -0.0, 0.0, 3.0], requires_grad=True)
    mg.relu(z).sum().backward()
    found = {"z": z.tolist(), "f": mg.relu(z).tolist(), "slope": z.grad.tolist()}
    # Nair and Hinton: ReLU is the sum of many sigmoids, each one step further to the right.
    line = mg.linspace(-5.0, 5.0, 1001, dtype="float64").reshape(-1, 1)
    steps = mg.sigmoid(line - mg.arange(1, 60) + 0.5).sum(axis=1, keepdims=True)
    found["sum of sigmoids"] = mg.abs(steps - mg.softplus(line)).max().item()
    found["curves"], found["train"], found["zeros"] = {}, {}, {}
    for depth, (optimizer, rates, epochs) in RUNS.items():
        for name, rate in rates.items():
            model = lesson.network(depth, name)
            if (depth, name) == (10, "relu"):
                found["zeros"]["at the start"] = zeros(model, x, y)
            adjust = getattr(mg.optim, optimizer)(model.parameters(), lr=rate)
            history = lesson.train(model, adjust, (x, y), epochs=epochs)
            found["curves"][depth, name] = history["accuracy"]
            found["train"][depth, name] = lesson.accuracy(model, x, y)
            if (depth, name) == (10, "relu"):
                found["zeros"]["after training"] = zeros(model, x, y)
    found["times"] = {}
    for backend in (name for name, state in mg.backend.available().items() if state == "ok"):
        batch = [part[: lesson.BATCH].to(backend) for part in (x, y)]
        with mg.backend.use(backend):
            for name in ACTIVATIONS:
                found["times"][backend, name] = clock(name, *batch)
    return found


def report(found):
    """Print the function, the accuracies, the times and the zeros."""
    rows = zip(found["z"], found["f"], found["slope"], strict=True)
    lesson.table(("x", "relu(x)", "slope"), rows)
    error = found["sum of sigmoids"]
    print(f"59 sigmoids in a row add up to softplus, a smooth ReLU: to {error:.4f}\n")
    rows = [(depth, name, *RUNS[depth][::2], a) for (depth, name), a in found["train"].items()]
    lesson.table(("layers", "activation", "by", "epochs", "training accuracy"), rows)
    rows = []
    for (backend, name), (forward, both, step) in found["times"].items():
        _, least, short = found["times"][backend, "relu"]
        rows.append((backend, name, forward, both, f"x{both / least:.1f}", step,
                     f"x{step / short:.1f}"))  # fmt: skip
    lesson.table(("backend", "activation", "ns forward", "and backward", "to relu", "ms step",
                  "to relu"), rows)  # fmt: skip
    rows = [(i + 1, *a, *b) for i, (a, b) in enumerate(zip(*found["zeros"].values(), strict=True))]
    lesson.table(("layer", "start: zeros", "dead", "trained: zeros", "dead"), rows)
    return {f"training accuracy, {depth} layers of {name}": round(found["train"][depth, name], 3)
            for depth, name in ((10, "sigmoid"), (10, "relu"), (30, "relu"))}  # fmt: skip


def check(found):
    """ReLU is what it is, learns in 10 and 30 layers, and its zeros are not death."""
    assert found["f"] == [0, 0, 0, 3] and found["slope"] == [0, 0, 0, 1]
    assert found["sum of sigmoids"] < 0.012
    train = found["train"]
    assert train[10, "relu"] >= 0.85 and train[10, "sigmoid"] <= 0.2  # .92 to .999
    assert train[30, "relu"] >= 0.75 and train[30, "sigmoid"] <= 0.2  # .86 to .94
    start, trained = found["zeros"].values()
    assert 0.4 < sum(share for share, _ in start) / len(start) < 0.6
    assert all(share > 0.3 and dead < 0.2 for share, dead in trained)


def draw(found, plt):
    """The function and its slope, training curves, times, and zeros."""
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7))
    ax = axes[0, 0]
    for name, colour in COLOURS.items():
        z = mg.linspace(-6.0, 6.0, 481).requires_grad_()
        f = ACTIVATIONS[name](z)
        f.sum().backward()
        ax.plot(z.tolist(), f.tolist(), color=colour, label=name)
        ax.plot(z.tolist(), z.grad.tolist(), "--", color=colour, label=f"slope of {name}")
    ax.set(title="ReLU's slope is 1, sigmoid's at most 1/4", xlabel="x", ylim=(-0.1, 3))
    ax.legend(loc="upper left")
    ax = axes[0, 1]
    for (depth, name), curve in found["curves"].items():
        ax.plot(range(1, len(curve) + 1), curve, "-" if depth == 10 else "--",
                color=COLOURS[name], label=f"{name}, {depth} layers")  # fmt: skip
    ax.set(title="training: sigmoid stays at chance", xlabel="epoch", ylabel="accuracy",
           ylim=(0, 1.05))  # fmt: skip
    ax.legend(loc="center right")
    ax = axes[1, 0]
    backend = mg.backend.get().name
    for i, name in enumerate(ACTIVATIONS):
        forward, both, step = found["times"][backend, name]
        ax.barh(i, both, color="tab:gray", label="forward and backward" if i == 0 else None)
        ax.barh(i, forward, height=0.4, color="tab:orange", label="forward" if i == 0 else None)
        ax.text(both, i, f" step: {step:.1f} ms", va="center")
    ax.set(title=f"on {backend}, an element and a step of 10 layers", xlabel="nanoseconds",
           yticks=range(len(ACTIVATIONS)), yticklabels=ACTIVATIONS)  # fmt: skip
    ax.invert_yaxis()
    ax.set_xlim(0, 1.3 * max(both for _, both, _ in found["times"].values()))
    ax.legend(loc="center right")
    ax = axes[1, 1]
    for (when, shares), style in zip(found["zeros"].items(), ("--", "-"), strict=True):
        layers = range(1, len(shares) + 1)
        zero, dead = zip(*shares, strict=True)
        ax.plot(layers, zero, "o" + style, color="tab:blue", label=f"outputs that are 0, {when}")
        ax.plot(layers, dead, "s" + style, color="black", label=f"units always 0, {when}")
    ax.set(title="ReLU, 10 layers: many zeros, few dead units", xlabel="layer", ylabel="share",
           ylim=(-0.02, 1), xticks=layers)  # fmt: skip
    ax.legend(loc="upper right")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
