"""Training runs made by hand, for reports: what is known of a healthy network, and of faults."""

from dataclasses import replace
from math import nan

from microgradnd.diagnosis.evidence import (
    BINS,
    Check,
    Comparison,
    Events,
    Evidence,
    Inputs,
    Layer,
    LayerState,
    Plan,
    Sample,
    Score,
)

DEPTH, STEPS = 4, 400


def state(i, **values):
    """The state of layer i, with a histogram in the shape of a tent."""
    known = LayerState(
        delta=0.05, gradient=0.01, gradient_zeros=0.1, weight=0.17, update=3e-3, mean=0.2, std=0.5,
        z_mean=0.0, z_std=1.0, zeros=0.5, slope=0.5, saturated=0.02, dead=0.03, same=0.0,
        low=-1.0, high=2.0 + i, counts=[1 + min(k, BINS - k) for k in range(BINS)],
    )  # fmt: skip
    return replace(known, **values)


def healthy(activation="relu", depth=DEPTH):
    """A classifier of ten classes that trained well."""
    pieces = 2 if activation == "maxout" else 0
    layers = [Layer(str(2 * i), f"{2 * i}.weight", activation, 64, 64, pieces)
              for i in range(depth)]  # fmt: skip
    layers.append(Layer(str(2 * depth), f"{2 * depth}.weight", "none", 10, 64, output=True))
    slopes = [0.05, 0.2, 0.4] if activation == "prelu" else []

    def states():
        return [state(i, slopes=slopes) for i in range(depth + 1)]

    samples = [
        Sample(50 * i, i / 2, 0.1, 2.3 * 0.6**i, 512, Score(256, 2.3 * 0.6**i, 0.1 + 0.11 * i),
               Score(256, 2.4 * 0.6**i, 0.1 + 0.108 * i), states())
        for i in range(8)
    ]  # fmt: skip
    return Evidence(
        task="classification", metric="accuracy", classes=10, chance=0.1, constant=2.3,
        train=Score(1000, 0.05, 0.98), test=Score(300, 0.09, 0.965), layers=layers,
        init=samples[0], now=Sample(STEPS, 4.0, examples=1000, layers=states()), samples=samples,
        losses=[2.3 * 0.99**i + 0.02 for i in range(STEPS)], loss_steps=list(range(STEPS)),
        inputs=Inputs("float32", 64, 0.0, 1.0, 0.3, 0.3, 2.0, 1.0, 0.0, 0, "int64", 0, 9, 0, 10),
        events=Events(STEPS, STEPS, 20, loss=["cross_entropy"], evaluations=9, batch=32),
        plan=Plan("SGD", {"lr": 0.1}, STEPS, 32, "cross_entropy"),
        check=Check(20, 1e-7, "0.weight"),
        comparisons=[
            Comparison("shallow", "1 hidden layer", 1, Score(1000, 0.1, 0.97),
                       Score(300, 0.1, 0.95), STEPS),
            Comparison("reference", "64 ReLU", 1, Score(800, 0.01, 1.0), Score(200, 0.1, 0.96),
                       300),
        ],
    )  # fmt: skip


def vanishing(depth=10):
    """Sigmoid layers without gradient: bad on both sets."""
    e = healthy("sigmoid", depth)
    e.train, e.test = Score(1000, 2.3, 0.1), Score(300, 2.3, 0.09)
    e.losses = [2.3 + 0.01 * (-1) ** i for i in range(STEPS)]
    for sample in [e.now, *e.samples]:
        for i, layer in enumerate(sample.layers):
            layer.delta, layer.slope, layer.zeros = 0.3 * 10 ** (-0.63 * (depth - i)), 0.24, 0.0
            layer.dead, layer.update = 0.0, 0.01 * 10 ** (-0.6 * (depth - i))
        if sample.train:
            sample.train, sample.test = Score(256, 2.31, 0.1), Score(256, 2.32, 0.1)
    return e


def overfit():
    """Good on the training set, worse on the test set."""
    e = healthy()
    e.train, e.test = Score(100, 0.01, 1.0), Score(300, 0.9, 0.8)
    for sample in e.samples[4:]:
        sample.test = Score(256, 0.6, 0.79)
    return e


def bare():
    """Nothing but the scores."""
    return Evidence("classification", "accuracy", 10, 0.1, 2.3, train=Score(1000, 0.05, 0.98))


def empty():
    """Nothing at all."""
    return Evidence()


def hostile():
    """Names that would be markup, and numbers that are none."""
    e = vanishing(2)
    evil = "</style><script>document.title='broken'</script>\"'&{0}"
    for layer in e.layers:
        layer.name = layer.weight = layer.activation = f"{evil}{id(layer)}"
    e.comparisons[0].changed = e.check.parameter = evil
    e.not_made = [evil]
    e.now.layers[0] = LayerState(delta=float("inf"), counts=[1], low=nan, high=nan)
    e.events.not_optimized = [evil] * 9
    return e
