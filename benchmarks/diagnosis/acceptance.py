"""Experiments on 8x8 digits, each with what must be read from its report; over several seeds.

    python -m benchmarks.diagnosis.acceptance [--quick] [--seeds 5] [--only TEXT]

The table has the ranges of results and, of each experiment, how many seeds read as expected; the
exit code is 1 if one did not. Needs scikit-learn for the digits.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is loaded: matrices are small

import microgradnd as mg
from microgradnd import nn
from microgradnd.diagnosis.report import Report
from microgradnd.diagnosis.rules import roots

BATCH = 32
INIT: dict[str, Callable[[Any], Any]] = {
    "sigmoid": nn.init.xavier_normal_, "tanh": nn.init.xavier_normal_,
    "relu": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "leaky_relu": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "elu": nn.init.lecun_normal_, "maxout": lambda w: nn.init.maxout_he_(w, 2),
}  # fmt: skip


@dataclass
class Experiment:
    """One network, how it is trained, and what its report must say.

    Attributes:
        name: Of the row.
        expect: Is given the report; gives "" or what is wrong with it.
        depth, act, width, init, bias: Of the network (`init` by the name of an activation, or a
            standard deviation).
        rate, epochs, n: Of the training; `n` examples, 0 for all.
        verify: Whether remedies are tried.
        quick: Whether it is among the quick ones.
    """

    name: str
    expect: Callable[[Report], str]
    depth: int
    act: str
    rate: float = 0.1
    epochs: int = 20
    width: int = 64
    init: str | float = ""
    bias: float = 0.0
    n: int = 0
    verify: bool = False
    quick: bool = False


def network(e: Experiment) -> Any:
    """Make the network of an experiment."""
    draw = (lambda w: nn.init.normal_(w, 0.0, e.init)) if isinstance(e.init, float) else (
        INIT[e.init or e.act])  # fmt: skip
    parts: list[Any] = []
    for i in range(e.depth):
        inputs = e.width if i else 64
        layer: Any = (nn.Maxout(inputs, e.width, 2) if e.act == "maxout"
                      else nn.Linear(inputs, e.width))  # fmt: skip
        draw(layer.weight)
        nn.init.constant_(layer.bias, e.bias)
        parts += [layer] if e.act == "maxout" else [layer, getattr(mg, e.act)]
    head = nn.Linear(e.width, 10)
    nn.init.xavier_normal_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(*parts, head)


def report(e: Experiment, seed: int) -> Report:
    """Train it from a seed, and diagnose it."""
    x, y, tx, ty = map(mg.tensor, mg.data.digits(seed))
    if e.n:
        x, y = x[: e.n], y[: e.n]
    mg.manual_seed(seed)
    model = network(e)
    optimizer = mg.optim.SGD(model.parameters(), lr=e.rate)
    record = mg.diagnosis.Recorder(model, optimizer, mg.cross_entropy, (x, y), (tx, ty))
    mg.train.fit(model, mg.cross_entropy, optimizer, (x, y), epochs=e.epochs, batch_size=BATCH,
                 progress=False, on_nonfinite="ignore", callbacks=[record])  # fmt: skip
    found: Report = mg.diagnose(model, mg.cross_entropy, (x, y), (tx, ty), record=record,
                                verify=e.verify)  # fmt: skip
    return found


# ------------------------------------------------------------------------------- expectations


def codes(found: Report) -> list[str]:
    """Give the root causes, the first one first."""
    return [f.code for f in roots(found.findings)]


def ok(found: Report) -> str:
    """No fault."""
    return "" if not codes(found) else f"{codes(found)}"


def first(code: str, *explained: str, test: bool = False) -> Callable[[Report], str]:
    """A code is named first, it explains others if they are found, and nothing is overfitted."""

    def expect(found: Report) -> str:
        named = codes(found)
        if named[:1] != [code]:
            return f"{named or 'nothing'} in place of {code}"
        if not test and any(f.code == "OVERFIT" for f in found.findings):
            return "OVERFIT while the training result is bad"
        own = set(next(f for f in found.findings if f.code == code).explains)
        lost = {f.code for f in found.findings} & set(explained) - own
        return f"does not explain {sorted(lost)}" if lost else ""

    return expect


def vanishing(found: Report) -> str:
    """VANISHING first, with the ratio of the layers in the sentence that says so."""
    wrong = first("VANISHING", "TRAIN_BAD", "DEEPER_IS_WORSE")(found)
    text = " ".join(str(found).split())
    said = "Not overfitting" in text and " of layer " in text and "decades per layer" in text
    return wrong or ("" if said else f"says {text[:80]}")


def either(*expectations: Callable[[Report], str]) -> Callable[[Report], str]:
    """One of several."""

    def expect(found: Report) -> str:
        wrong = [e(found) for e in expectations]
        return "" if "" in wrong else " and ".join(wrong)

    return expect


def trained(found: Report) -> str:
    """No fault if the training result is good, else LR_HIGH."""
    return ok(found) if found.evidence.train.metric > 0.93 else first("LR_HIGH")(found)


def gains(low: float, high: float, key: str, otherwise: Callable[[Report], str]) -> Callable[
        [Report], str]:  # fmt: skip
    """A remedy was tried, and its training accuracy lies in a range."""

    def expect(found: Report) -> str:
        wrong = otherwise(found)
        if wrong:
            return wrong
        tried = found.evidence.compared(key)
        if tried is None:
            return f"{key} was not tried"
        inside = low <= tried.train.metric <= high
        return "" if inside else f"{key}: {tried.train.metric:.2f} is not in {low} to {high}"

    return expect


def exploding(found: Report) -> str:
    """EXPLODING, with Maxout's own initialisation as the first remedy."""
    wrong = first("EXPLODING")(found)
    remedy = None if wrong else roots(found.findings)[0].remedies[0]
    own = remedy is not None and (remedy.key, remedy.details.get("name")) == ("init", "maxout_he")
    return wrong or ("" if own else f"the remedy is {remedy}")


def born(code: str) -> Callable[[Report], str]:
    """A code is named first, and it was so before training."""

    def expect(found: Report) -> str:
        if found.evidence.train.metric > 0.9:
            return ok(found)
        wrong = first(code)(found)
        name = {"DEAD": "dead", "SATURATED": "saturated"}[code]
        states = [] if found.evidence.init is None else found.evidence.init.layers
        there = any(getattr(state, name) >= 0.5 for state in states)
        return wrong or ("" if there else "it was not so at the beginning")

    return expect


EXPERIMENTS = [
    Experiment("sigmoid, 1 layer, rate 0.5", ok, 1, "sigmoid", 0.5, quick=True),
    Experiment("sigmoid, 2 layers", ok, 2, "sigmoid", 0.5),
    # It still trains, but more slowly than one layer: that may be said, with its reason.
    Experiment("sigmoid, 3 layers", either(ok, vanishing, first("DEEPER_IS_WORSE"), first(
        "TRAIN_BAD")), 3, "sigmoid", 0.5),
    Experiment("sigmoid, 4 layers", gains(0.5, 1, "adaptive", vanishing), 4, "sigmoid", 0.5,
               verify=True, quick=True),
    Experiment("sigmoid, 5 layers", gains(0.5, 1, "adaptive", vanishing), 5, "sigmoid", 0.5,
               verify=True),
    Experiment("sigmoid, 7 layers", vanishing, 7, "sigmoid", 0.5),
    Experiment("sigmoid, 10 layers", gains(0, 0.4, "adaptive", gains(
        0.9, 1, "activation", vanishing)), 10, "sigmoid", 0.5, verify=True, quick=True),
    Experiment("relu, 1 layer", ok, 1, "relu", quick=True),
    Experiment("relu, 7 layers", ok, 7, "relu"),
    Experiment("relu, 10 layers", ok, 10, "relu", quick=True),
    Experiment("maxout, 7 layers", trained, 7, "maxout"),
    Experiment("maxout, 10 layers", trained, 10, "maxout"),
    Experiment("maxout, ReLU's init, 10 layers", exploding, 10, "maxout", init="relu", quick=True),
    Experiment("relu, 3 layers, rate 0.5", trained, 3, "relu", 0.5),
    Experiment("relu, 3 layers, rate 1", first("LR_HIGH", "DEAD"), 3, "relu", 1.0, quick=True),
    Experiment("relu, 3 layers, rate 2", first("LR_HIGH", "DEAD"), 3, "relu", 2.0),
    Experiment("relu, 3 layers, biases -1", born("DEAD"), 3, "relu", bias=-1.0),
    Experiment("relu, 3 layers, biases -3", born("DEAD"), 3, "relu", bias=-3.0, quick=True),
    Experiment("relu, 1 layer, biases -4", born("DEAD"), 1, "relu", bias=-4.0, epochs=60),
    Experiment("leaky, 1 layer, biases -4, 60 epochs", lambda r: "", 1, "leaky_relu", bias=-4.0,
               epochs=60),
    Experiment("elu, 1 layer, biases -4, 60 epochs", lambda r: "", 1, "elu", bias=-4.0, epochs=60),
    Experiment("relu, 3 layers, rate 1e-4", first("LR_LOW"), 3, "relu", 1e-4, epochs=10,
               quick=True),
    Experiment("relu, 3 layers, rate 1e-3", first("LR_LOW"), 3, "relu", 1e-3, epochs=10),
    Experiment("tanh, 3 layers, rate 2", first("LR_HIGH", "SATURATED"), 3, "tanh", 2.0, quick=True),
    Experiment("tanh, 3 layers, N(0, 1)", either(born("SATURATED"), first(
        "SATURATED", "OVERFIT", test=True)), 3, "tanh", init=1.0, quick=True),
    Experiment("relu, 5 layers, N(0, 0.05²)", first("INIT_SCALE", "DEAD"), 5, "relu", init=0.05),
    Experiment("width 128, 50 examples", first("OVERFIT", test=True), 1, "relu", width=128, n=50,
               epochs=60, quick=True),
    Experiment("width 128, 100 examples", first("OVERFIT", test=True), 1, "relu", width=128, n=100,
               epochs=60, verify=True),
    Experiment("2 units", first("CAPACITY"), 1, "relu", width=2, quick=True),
]  # fmt: skip


@dataclass
class Row:
    """What came of an experiment over the seeds."""

    name: str
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def measure(e: Experiment, seeds: int) -> Row:
    """Run an experiment from several seeds."""
    row = Row(e.name)
    for seed in range(seeds):
        found = report(e, seed)
        row.train.append(found.evidence.train.metric)
        row.test.append(found.evidence.test.metric if found.evidence.test else float("nan"))
        row.named.append((codes(found) or ["-"])[0])
        wrong = e.expect(found)
        row.wrong += [f"seed {seed}: {wrong}"] if wrong else []
    return row


def main(argv: list[str] | None = None) -> int:
    """Run them and print the table; 1 if a report does not read as expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="some of them, one seed")
    parser.add_argument("--seeds", type=int, default=0, help="how many (5; quick: 1)")
    parser.add_argument("--only", default="", help="experiments whose name has this in it")
    options = parser.parse_args(argv)
    seeds = options.seeds or (1 if options.quick else 5)
    chosen = [e for e in EXPERIMENTS
              if options.only in e.name and (e.quick or not options.quick)]  # fmt: skip
    print(f"{'experiment':44} {'train':13} {'test':13} {'first named':28} as expected")
    bad = 0
    for e in chosen:
        row = measure(e, seeds)
        spans = [f"{min(v):.3f}..{max(v):.3f}" for v in (row.train, row.test)]
        named = ", ".join(f"{row.named.count(n)}x {n}" for n in sorted(set(row.named)))
        good = f"{seeds - len(row.wrong)}/{seeds}"
        print(f"{e.name:44} {spans[0]:13} {spans[1]:13} {named:28} {good}", *row.wrong, flush=True)
        bad += len(row.wrong)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
