"""Train a Maxout network on handwritten digits and look at the activations that it has learned.

Run `python examples/quickstart.py`; with `MICROGRADND_BACKEND=cupy` the same lines run on a GPU.
"""

import argparse
import sys
import time

import numpy as np

import microgradnd as mg
from microgradnd import nn

UNITS, PIECES, CLASSES = 48, 4, 10
EPOCHS, BATCH = 40, 32


def train(model, x, y):
    """Minimise the cross-entropy by gradient descent with momentum; give the history."""
    optimizer = mg.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    cosine = mg.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    return mg.train.fit(
        model, nn.CrossEntropyLoss(), optimizer, (x, y), epochs=EPOCHS, batch_size=BATCH,
        callbacks=[mg.train.Schedule(cosine)],
    )  # fmt: skip


@mg.no_grad
def accuracy(model, x, y):
    """Give the share of images whose largest logit is the right one."""
    return (model(x).argmax(axis=1) == y).mean().item()


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


def picture(path, losses, layer, images, title):
    """Draw the loss, and the six hidden units that share their range best among their pieces."""
    try:
        import matplotlib
    except ImportError:
        return "none, for matplotlib is not installed"
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    weight, bias = (p.detach().to("numpy").numpy() for p in layer.parameters())
    units = weight.reshape(UNITS, PIECES, -1)
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
    try:
        images, labels, test_images, test_labels = mg.data.digits(options.seed)
    except ImportError as error:
        sys.exit(str(error))
    print(f"backend: {mg.backend.get().name}")
    model = nn.Sequential(
        nn.Maxout(64, UNITS, PIECES), nn.Maxout(UNITS, UNITS, PIECES), nn.Linear(UNITS, CLASSES)
    )
    x, y = mg.tensor(images), mg.tensor(labels)
    history = train(model, x, y)
    fitted = accuracy(model, x, y)
    correct = accuracy(model, mg.tensor(test_images), mg.tensor(test_labels))
    print(f"training accuracy: {fitted:.4f} ({len(images)} images)")
    print(f"test accuracy:     {correct:.4f} ({len(test_images)} images)")
    title = (f"A 64-{UNITS}-{UNITS}-{CLASSES} network with Maxout of {PIECES} pieces: "
             f"test accuracy {correct:.1%}")  # fmt: skip
    where = picture(options.save, history["loss"], model[0], images, title)
    print(f"picture: {where}")
    print(f"time: {time.perf_counter() - began:.1f} s")
    return correct


if __name__ == "__main__":
    main()
