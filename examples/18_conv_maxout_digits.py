"""A convolution knows which pixels are neighbours: shuffle them, and it reads digits less well.

A network of two convolutions with Maxout over channels, 11,000 weights, reads the 8x8 digits; then
the same network, from the same start, reads the same digits with their pixels in another order (one
for all images), which takes nothing away but who is whose neighbour. A unit of Maxout is two
kernels, of which at each place of the image the stronger one counts: the picture shows which.
"""

import lesson
import numpy as np

import microgradnd as mg
from microgradnd import nn

SPLITS, EPOCHS, PIECES = 3, 12, 2


def network():
    """Two layers of convolution, Maxout, batch normalization and pooling; then one that decides."""
    layers = []
    for n, m in ((1, 16), (16, 32)):
        layers += [nn.MaxoutConv2d(n, m, 3, PIECES, padding=1), nn.BatchNorm2d(m), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), lesson.linear(32 * 2 * 2, 10))


def images(x, order=None):
    """The rows as images of one channel, their pixels in another order if one is given."""
    return (x if order is None else x[:, mg.tensor(order)]).reshape(-1, 1, 8, 8)


def trained(seed, shuffled):
    """Give a trained network, the images to test it on with their labels, and both accuracies."""
    x, y, tx, ty = lesson.digits(seed)
    order = np.random.default_rng(seed).permutation(64) if shuffled else None
    x, tx = images(x, order), images(tx, order)
    mg.manual_seed(seed)
    model = network()
    adam = mg.optim.Adam(model.parameters(), lr=0.01)
    steps = EPOCHS * -(-len(x) // lesson.BATCH)
    falling = mg.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    lesson.train(model, adam, (x, y), epochs=EPOCHS,
                 callbacks=[mg.train.Schedule(falling, per="step")])  # fmt: skip
    accuracies = lesson.accuracy(model, x, y), lesson.accuracy(model, tx, ty)
    return model, tx, ty, *accuracies


def measure(seed):
    """Give both networks' accuracies on several splits of the digits, and the first network."""
    found = {"accuracies": {}, "model": None}
    for name in ("as they are", "shuffled"):
        for i in range(SPLITS):
            model, tx, ty, *accuracies = trained(seed + i, name == "shuffled")
            found["accuracies"].setdefault(name, []).append(accuracies)
            if found["model"] is None:
                found |= {"model": model, "x": tx, "y": ty}
    found["weights"] = sum(p.size for p in found["model"].parameters())
    return found


def means(found):
    """Give the mean accuracies over the splits, `{name: (train, test)}`."""
    return {name: np.mean(rows, axis=0).tolist() for name, rows in found["accuracies"].items()}


def report(found):
    """The accuracies; the test of one split is 360 images, of all 1080."""
    rows = [(name, *mean, " ".join(f"{test:.3f}" for _, test in found["accuracies"][name]))
            for name, mean in means(found).items()]  # fmt: skip
    lesson.table(("pixels", "train", "test", "tests of the splits"), rows)
    print(f"{found['weights']} weights\n")
    return {f"test, {name}": round(mean[1], 3) for name, mean in means(found).items()}


def check(found):
    """The convolution reads the digits, and better than those of shuffled pixels."""
    (_, plain), (_, shuffled) = means(found).values()
    assert plain >= 0.985
    assert plain > shuffled


def winners(layer, x):
    """Give the outputs of a layer's units, (N, units, H, W), and which piece won there."""
    with mg.no_grad():
        z = mg.conv2d(x, layer.weight, layer.bias, padding=layer.padding).to("numpy").numpy()
    z = z.reshape(len(z), -1, PIECES, *z.shape[2:])
    return z.max(axis=2), z.argmax(axis=2)


def draw(found, plt):
    """Both kernels of some units, and where in some digits which of them wins."""
    layer = found["model"][0]
    labels = found["y"].to("numpy").numpy().tolist()
    shown = [labels.index(digit) for digit in range(8)]
    x = found["x"][mg.tensor(shown)]
    out, won = winners(layer, x)
    share = won.mean(axis=(0, 2, 3))
    units = np.argsort(abs(share - 0.5))[:5]  # both pieces win there, each in its places
    kernels = layer.weight.detach().to("numpy").numpy().reshape(-1, PIECES, 3, 3)
    figure = plt.figure(figsize=(10.4, 6))
    grid = figure.subplots(1 + len(units), PIECES + len(shown), squeeze=False)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    colours = np.array([[0.85, 0.25, 0.1], [0.1, 0.35, 0.8]])  # of the pieces
    for piece in range(PIECES):
        ax = grid[0, piece]
        ax.axis("off")
        ax.text(0.5, 0.1, f"kernel {piece + 1}", ha="center", color=colours[piece], weight="bold")
    for column, image in enumerate(x.to("numpy").numpy()[:, 0], PIECES):
        grid[0, column].imshow(image, cmap="gray_r")
    for row, unit in enumerate(units, 1):
        grid[row, 0].set_ylabel(f"unit {unit}")
        most = abs(kernels[unit]).max()
        for piece in range(PIECES):
            grid[row, piece].imshow(kernels[unit, piece], cmap="PuOr", vmin=-most, vmax=most)
        size = out[:, unit] - out[:, unit].min()
        for column in range(len(shown)):
            strength = (size[column] / max(size.max(), 1e-9))[..., None]
            picture = 1 - strength * (1 - colours[won[column, unit]])
            grid[row, PIECES + column].imshow(picture)
    figure.suptitle("two kernels of a unit, and where in a digit which of them wins "
                    "(the stronger the colour, the larger the output)")  # fmt: skip
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
