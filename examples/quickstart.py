"""Train a Maxout network on handwritten digits and look at the activations that it has learned.

Run `python examples/quickstart.py`; with `MICROGRADND_BACKEND=cupy` the same lines run on a GPU.
"""

import argparse
import math
import sys
import time

import numpy as np

import microgradnd as mg

UNITS, PIECES, CLASSES = 48, 4, 10
EPOCHS, BATCH, LEARNING_RATE, MOMENTUM, DECAY = 40, 32, 0.05, 0.9, 1e-3
#: 1 / E[(the largest of k standard normals)^2]: weights of variance c / fan_in keep the signal.
SCALE = {1: 1.0, 2: 1.0, 3: 0.78391, 4: 0.64461, 5: 0.55555}


def digits(seed):
    """Give 1437 images to train on and 360 to test on, 64 numbers in [0, 1] each, and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit('the digits come with scikit-learn: pip install -e ".[examples]"')
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = (images[order] / 16).astype("float32"), labels[order]
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def layer(inputs, units, pieces):
    """Give the parameters of `units` groups of `pieces` linear functions."""
    std = math.sqrt(SCALE[pieces] / inputs)
    weight = mg.random.normal(0.0, std, (inputs, units * pieces)).requires_grad_()
    return weight, mg.zeros(units * pieces, requires_grad=True)


def network(parameters, x):
    """Give the logits of a batch: two Maxout layers and a linear one."""
    w1, b1, w2, b2, w3, b3 = parameters
    h = mg.maxout(x @ w1 + b1, PIECES)
    h = mg.maxout(h @ w2 + b2, PIECES)
    return h @ w3 + b3


def train(parameters, x, y):
    """Minimise the cross-entropy by gradient descent with momentum; give the loss per epoch."""
    velocities = [mg.zeros_like(p) for p in parameters]
    losses = []
    epochs = progress(EPOCHS)
    for epoch in epochs:
        rate = LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * epoch / EPOCHS))
        order = mg.random.permutation(len(x))
        total = mg.zeros(())
        for start in range(0, len(x), BATCH):
            batch = order[start : start + BATCH]
            loss = mg.cross_entropy(network(parameters, x[batch]), y[batch])
            loss.backward()
            with mg.no_grad():
                for p, v in zip(parameters, velocities, strict=True):
                    v *= MOMENTUM
                    v += p.grad + DECAY * p
                    p -= rate * v
                    p.grad = None
                total += loss * len(batch)
        losses.append(total.item() / len(x))  # the only number fetched from the device
        epochs.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
    return losses


def progress(n):
    """Give `range(n)` with a progress bar: tqdm's, or plain text where that is not installed."""
    try:
        from tqdm import trange
    except ImportError:
        return PlainProgress(n)
    return trange(n, desc="training", unit="epoch", ncols=78)


class PlainProgress:
    """A progress bar of plain text, with the two methods of tqdm that are used here."""

    def __init__(self, n):
        self.n = n
        self.done = 0

    def __iter__(self):
        while self.done < self.n:
            self.done += 1
            yield self.done - 1
        print(file=sys.stderr)

    def set_postfix(self, loss, refresh):
        """Draw the bar with the loss of the epoch behind it."""
        bar = "#" * (30 * self.done // self.n)
        print(f"\rtraining [{bar:30}] loss {loss}", end="", file=sys.stderr, flush=True)


@mg.no_grad
def accuracy(parameters, x, y):
    """Give the share of images whose largest logit is the right one."""
    return (network(parameters, x).argmax(axis=1) == y).mean().item()


def shape(pieces, bias, images):
    """Give one Maxout unit along the direction in which its pieces differ most.

    The direction goes through the mean image. Returns where the images lie along it, a grid of
    such places, and the value of each piece on that grid.
    """
    direction = np.linalg.svd(pieces - pieces.mean(0))[2][0]
    centre = images.mean(0)
    along = (images - centre) @ direction
    grid = np.linspace(along.min(), along.max(), 200)
    return along, grid, (centre + grid[:, None] * direction) @ pieces.T + bias


def picture(path, losses, parameters, images, title):
    """Draw the loss, and the six hidden units that share their range best among their pieces."""
    try:
        import matplotlib
    except ImportError:
        return "none, for matplotlib is not installed"
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    weight, bias = (p.detach().to("numpy").numpy() for p in parameters[:2])
    units = weight.T.reshape(UNITS, PIECES, -1)
    shapes = [shape(*unit, images) for unit in zip(units, bias.reshape(UNITS, -1), strict=True)]
    wins = [np.bincount(lines.argmax(1), minlength=PIECES) for _, _, lines in shapes]
    chosen = np.argsort([-np.minimum(w, 50).sum() for w in wins], kind="stable")[:6]

    figure, axes = plt.subplot_mosaic(
        [["loss", 0, 1, 2], ["loss", 3, 4, 5]], figsize=(11, 5), width_ratios=[1.5, 1, 1, 1],
        layout="constrained",
    )  # fmt: skip
    figure.suptitle(title, fontsize=12)
    axes["loss"].semilogy(range(1, len(losses) + 1), losses, color="tab:blue")
    axes["loss"].set(xlabel="epoch", ylabel="mean cross-entropy", title="training loss")
    axes["loss"].grid(alpha=0.3)
    for place, unit in enumerate(chosen):
        ax, (along, grid, lines) = axes[place], shapes[unit]
        thin = ax.plot(grid, lines, color="0.6", linewidth=0.9)[0]
        (thick,) = ax.plot(grid, lines.max(1), color="tab:red", linewidth=2)
        behind = ax.twinx()
        counts, _, bars = behind.hist(along, 30, color="tab:blue", alpha=0.18)
        behind.set(yticks=[], ylim=(0, 3 * counts.max()))
        ax.set_title(f"unit {unit}", fontsize=9)
        ax.tick_params(labelsize=8)
        if place >= 3:
            ax.set_xlabel("input along one direction", fontsize=9)
        if place % 3 == 0:
            ax.set_ylabel("output", fontsize=9)
    names = ["a piece (linear)", "the unit: the largest piece", "where the training images lie"]
    figure.legend([thin, thick, bars], names, loc="outside lower right", ncols=3, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def main(argv=None):
    """Train, print the accuracies, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", default="maxout-digits.png", metavar="PATH",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the weights")
    options = parser.parse_args(argv)
    began = time.perf_counter()
    mg.manual_seed(options.seed)
    train_x, train_y, test_x, test_y = digits(options.seed)
    print(f"backend: {mg.backend.get().name}")
    parameters = [
        *layer(64, UNITS, PIECES), *layer(UNITS, UNITS, PIECES), *layer(UNITS, CLASSES, 1)
    ]  # fmt: skip
    x, y = mg.tensor(train_x), mg.tensor(train_y)
    losses = train(parameters, x, y)
    fitted = accuracy(parameters, x, y)
    correct = accuracy(parameters, mg.tensor(test_x), mg.tensor(test_y))
    print(f"training accuracy: {fitted:.4f} ({len(train_x)} images)")
    print(f"test accuracy:     {correct:.4f} ({len(test_x)} images)")
    title = (f"A 64-{UNITS}-{UNITS}-{CLASSES} network with Maxout of {PIECES} pieces: "
             f"test accuracy {correct:.1%}")  # fmt: skip
    where = picture(options.save, losses, parameters, train_x, title)
    print(f"picture: {where}")
    print(f"time: {time.perf_counter() - began:.1f} s")
    return correct


if __name__ == "__main__":
    main()
