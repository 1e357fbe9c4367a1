"""What the examples share: the recipe on the digits, tables, pictures, and the command line.

Each example says four things, and `run` does the rest: `measure(seed)` gives what was found,
`report(found)` prints it and gives the headline, `check(found)` asserts the claim, and
`draw(found, plt)` gives a figure.
"""

import argparse
import inspect
import json
import os
import sys
import time
from pathlib import Path

if "--data" not in sys.argv:
    # Products of matrices as small as these are no faster on several threads, and on a busy machine
    # far slower. It has to be said before NumPy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import microgradnd as mg
from microgradnd import nn

WIDTH, BATCH, EPOCHS = 64, 32, 20
#: How the weights of a layer before each activation begin.
INIT = {
    "sigmoid": nn.init.xavier_normal_,
    "tanh": nn.init.xavier_normal_,
    "relu": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "leaky_relu": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "elu": nn.init.lecun_normal_,
    "selu": nn.init.lecun_normal_,
    "identity": nn.init.xavier_normal_,
    "maxout": lambda w: nn.init.maxout_he_(w, 2),
}


def digits(seed):
    """Give tensors: 1437 images to train on, their labels, 360 images to test on, their labels."""
    try:
        return tuple(map(mg.tensor, mg.data.digits(seed)))
    except ImportError as error:
        sys.exit(str(error))


def linear(inputs, outputs, init=nn.init.xavier_normal_, bias=0.0):
    """Give an affine layer whose weights are drawn by `init` and whose biases are one number."""
    layer = nn.Linear(inputs, outputs)
    init(layer.weight)
    nn.init.constant_(layer.bias, bias)
    return layer


def network(depth, activation, width=WIDTH, inputs=64, outputs=10, init=None, bias=0.0):
    """Give a network of `depth` hidden layers; weights begin as suits the activation.

    With `maxout` a layer computes two numbers per unit, and keeps the larger one.
    """
    paired = activation == "maxout"
    function = (lambda z: mg.maxout(z, 2)) if paired else getattr(mg, activation)
    layers = []
    for i in range(depth):
        n = inputs if i == 0 else width
        layers += [linear(n, width * (1 + paired), init or INIT[activation], bias), function]
    return nn.Sequential(*layers, linear(width if depth else inputs, outputs))


def train(model, optimizer, data, epochs=EPOCHS, batch=BATCH, test=None, callbacks=()):
    """Minimise the cross-entropy; give the history, with accuracies (on the test too, if given)."""
    return mg.train.fit(
        model, mg.cross_entropy, optimizer, data, epochs=epochs, batch_size=batch,
        validation=test, metrics=["accuracy"], callbacks=callbacks, progress=False,
        on_nonfinite="ignore",
    )  # fmt: skip


@mg.no_grad
def accuracy(model, x, y):
    """Give the share of examples whose largest output is the right one."""
    mode = model.training
    correct = (model.eval()(x).argmax(axis=1) == y).mean().item()
    model.train(mode)
    return correct


def flow(model, x, y):
    """Give, of each hidden layer of a Sequential, its output before the activation, and dL/d(it).

    A Maxout layer has no such output; of it these are what it gives.
    """
    outputs = []
    for part in model:
        x = part(x)
        if isinstance(part, (nn.Linear, nn.Maxout)):
            x.retain_grad()
            outputs.append(x)
    mg.cross_entropy(x, y).backward()
    model.zero_grad()
    return [(z.detach(), z.grad) for z in outputs[:-1]]


def rms(x):
    """Give the root of the mean square of a tensor; in float64, as tiny squares vanish else."""
    return size(x).item()


def size(x):
    """Give the same as a tensor: on a GPU, within a training step, a number would be waited for."""
    return mg.sqrt((x.astype("float64") ** 2).mean())


def table(header, rows):
    """Print rows under a header, numbers to three digits."""
    cells = [[_cell(value) for value in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for i, row in enumerate(cells):
        print("  ".join(cell.rjust(w) if i and _number(cell) else cell.ljust(w)
                        for cell, w in zip(row, widths, strict=True)).rstrip())  # fmt: skip
    print()


def _cell(value):
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-3
        return f"{value:.1e}" if small or abs(value) >= 1e5 else f"{value:.3f}"
    return str(value)


def _number(cell):
    return cell[:1].isdigit() or cell[:1] in "-+."


def run(file, doc, measure, report, check, draw, argv=None):
    """The command line of an example: measure, print, draw, and only then assert the claim.

    Prints the headline as the last line but one, as JSON: it is what `examples/README.md` quotes.
    """
    name = Path(file).stem
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and shuffles")
    parser.add_argument("--save", default=f"{name}.png", metavar="PATH",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    if "folder" in inspect.signature(measure).parameters:
        parser.add_argument("--data", metavar="FOLDER", help="where MNIST's files are, if anywhere")
    options = parser.parse_args(argv)
    began = time.perf_counter()
    mg.manual_seed(options.seed)
    extra = {"folder": options.data} if getattr(options, "data", None) else {}
    found = measure(options.seed, **extra)
    print(f"{name}: {doc.splitlines()[0]}\n")
    headline = report(found)
    print("picture:", picture(options.save, draw, found))
    print(f"time: {time.perf_counter() - began:.1f} s, seed {options.seed}")
    print("headline:", json.dumps(headline))
    check(found)
    print("the claim holds")
    return found


def picture(path, draw, found):
    """Draw into a file; gives its path, or why there is none."""
    try:
        import matplotlib
    except ImportError:
        return 'none, for matplotlib is not installed: pip install -e ".[examples]"'
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"axes.grid": True, "grid.alpha": 0.3, "font.size": 9, "axes.titlesize": 10,
                     "figure.constrained_layout.use": True}  # fmt: skip
    figure = draw(found, plt)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
