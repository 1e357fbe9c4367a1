"""A small attention model, written out here, learns to spell the project's own documentation.

The text is this repository's: README and docs, characters one by one. The model sees up to 32 of
them and gives probabilities for the next. Its blocks are not part of the framework; they are a few
lines of `nn.Linear`, `nn.LayerNorm` and `mg.softmax` below. It is measured in bits per character
on a tenth of the text that it has not seen, beside what plain counting of characters, and of pairs,
achieves there. A mask keeps it from looking ahead: a later character changes no earlier output.
"""

import math
import sys
from pathlib import Path

import lesson
import numpy as np

import microgradnd as mg
from microgradnd import nn

ROOT = Path(__file__).resolve().parent.parent
CONTEXT, WIDTH, HEADS, BLOCKS = 32, 48, 2, 2
STEPS, WARM_UP, BATCH, RATE = 400, 40, 16, 1e-2
PART = 20 * (CONTEXT + 1)  # the text is cut into parts; every tenth is held back


def text():
    """Give the documentation as numbers, and the characters that they stand for."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if not all(file.is_file() for file in files) or len(files) < 3:
        sys.exit(f"this example reads README.md and docs/*.md of the repository, not in {ROOT}")
    whole = "\n".join(file.read_text(encoding="utf-8") for file in files)
    characters = sorted(set(whole))
    number = {c: i for i, c in enumerate(characters)}
    return np.array([number[c] for c in whole]), characters


class Attention(nn.Module):
    """Each position takes a weighted mean of what earlier ones offer, in several heads."""

    def __init__(self, width, heads):
        self.heads = heads
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        places = mg.arange(CONTEXT)
        self.register_buffer("ahead", places.reshape(CONTEXT, 1) < places, persistent=False)
        self.seen = None  # the weights of the last call, to look at

    def forward(self, x):
        """Map (examples, positions, width) to the same shape."""
        n, t, width = x.shape
        parts = self.project(x).reshape(n, t, 3, self.heads, width // self.heads)
        query, key, value = parts.transpose((2, 0, 3, 1, 4))  # each (n, heads, t, width / heads)
        scores = query @ key.swapaxes(-1, -2) / math.sqrt(width // self.heads)
        weights = mg.softmax(mg.where(self.ahead[:t, :t], -math.inf, scores), axis=-1)
        self.seen = weights.detach()
        return self.out((weights @ value).transpose((0, 2, 1, 3)).reshape(n, t, width))


class Block(nn.Module):
    """Attention, then a small network at each position; both add to what comes in."""

    def __init__(self, width, heads):
        self.before, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width),
            nn.GELU("tanh"), nn.Linear(4 * width, width),
        )  # fmt: skip

    def forward(self, x):
        """Map (examples, positions, width) to the same shape."""
        x = x + self.attention(self.before(x))
        return x + self.network(x)


class Speller(nn.Module):
    """Characters in, scores of the next character out, at each position."""

    def __init__(self, characters):
        self.table = nn.Embedding(characters, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.register_buffer("order", mg.arange(CONTEXT), persistent=False)
        for table in (self.table, self.places):  # from N(0, 1) it ends half a bit worse
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS) for _ in range(BLOCKS)))
        self.last = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters))

    def forward(self, ids):
        """Map (examples, positions) to (examples, positions, characters)."""
        x = self.table(ids) + self.places(self.order[: ids.shape[1]])
        return self.last(self.blocks(x))


def bits(model, x, y):
    """Give the mean number of bits per character, on the tape."""
    scores = model(x)
    return mg.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1)) / math.log(2)


def windows(ids, starts):
    """Give pieces of the text as tensors: characters, and for each the next one."""
    pieces = np.stack([ids[s : s + CONTEXT + 1] for s in starts])
    return mg.tensor(pieces[:, :-1]), mg.tensor(pieces[:, 1:])


def counted(train, held, n):
    """Give the bits per character of counting: none, single ones, and pairs (one added to all)."""
    single = np.bincount(train, minlength=n) + 1.0
    pairs = np.ones((n, n))
    np.add.at(pairs, (train[:-1], train[1:]), 1.0)
    single, pairs = single / single.sum(), pairs / pairs.sum(axis=1, keepdims=True)
    return {"no knowledge": math.log2(n), "single characters": -np.log2(single[held[1:]]).mean(),
            "pairs": -np.log2(pairs[held[:-1], held[1:]]).mean()}  # fmt: skip


@mg.no_grad
def write(model, ids, length):
    """Continue a text, drawing each character by its probability."""
    ids = list(ids)
    for _ in range(length):
        scores = model(mg.tensor([ids[-CONTEXT:]]))[0, -1]
        below = mg.cumsum(mg.softmax(scores)) < mg.random.uniform()
        ids.append(min(int(below.sum().item()), len(scores) - 1))
    return ids


@mg.no_grad
def leak(model, x):
    """Give how much the outputs before the last position change when its character does."""
    other = x.clone()
    other[:, -1] = (x[:, -1] + 1) % 10
    return mg.max(mg.abs(model(x)[:, :-1] - model(other)[:, :-1])).item()


def measure(seed):
    """Train on nine tenths of the text, measure on the rest."""
    ids, characters = text()
    parts = ids[: len(ids) // PART * PART].reshape(-1, PART)
    held, train = parts[9::10].reshape(-1), np.delete(parts, np.s_[9::10], axis=0).reshape(-1)
    model = Speller(len(characters))
    adam = mg.optim.AdamW(model.parameters(), lr=RATE)
    rates = mg.optim.lr_scheduler
    schedule = rates.SequentialLR(adam, [
        rates.LinearLR(adam, 0.1, total_iters=WARM_UP),
        rates.CosineAnnealingLR(adam, STEPS - WARM_UP, eta_min=RATE / 20),
    ], milestones=[WARM_UP])  # fmt: skip
    draw = np.random.default_rng(seed)
    test = windows(held, range(0, len(held) - CONTEXT, CONTEXT))
    curve, measured = [], []
    for step in range(STEPS):
        x, y = windows(train, draw.integers(0, len(train) - CONTEXT, BATCH))
        adam.zero_grad()
        loss = bits(model, x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        curve.append(loss.detach())  # on a GPU a number would be waited for
        if (step + 1) % 100 == 0:
            with mg.no_grad():
                measured.append((step + 1, bits(model, *test).item()))
    with mg.no_grad():
        seen = bits(model, *windows(train, range(0, len(train) - CONTEXT, 9 * CONTEXT))).item()
    start = "# What "
    sample = write(model, [characters.index(c) for c in start], 100)
    letters = [sum(characters[i].isalpha() for i in row) for row in test[0].tolist()]
    best = letters.index(max(letters))  # a piece of prose, not of a table
    x = test[0][best : best + 1]
    model(x)
    return {
        "length": len(ids), "characters": len(characters), "bits": measured[-1][1], "seen": seen,
        "counted": counted(train, held, len(characters)), "curve": mg.stack(curve).tolist(),
        "measured": measured,
        "leak": leak(model, x), "sample": "".join(characters[i] for i in sample),
        "text": "".join(characters[i] for i in x[0].tolist()),
        "map": model.blocks[-1].attention.seen[0, 0].tolist(),
        "parameters": sum(p.size for p in model.parameters()),
    }  # fmt: skip


def report(found):
    """Print the bits per character, and a sample."""
    print(f"{found['length']:,} characters, {found['characters']} different ones; a model of "
          f"{found['parameters']:,} numbers, {STEPS} steps\n")  # fmt: skip
    rows = [(name, float(b)) for name, b in found["counted"].items()]
    rows += [("attention", found["bits"]), ("attention, on text it has seen", found["seen"])]
    lesson.table(("knowing", "bits per character"), rows)
    print(f"a later character changes earlier outputs by {found['leak']:.1e}")
    print(f"it writes:\n{found['sample']}\n")
    return {"attention": round(found["bits"], 2)} | {
        name: round(float(b), 2) for name, b in found["counted"].items()}  # fmt: skip


def check(found):
    """Better than counting, and blind for what is ahead."""
    # The text grows with the project; in its first form 2.7 to 2.8 bits, 3.8 for pairs.
    assert found["bits"] < found["counted"]["pairs"] - 0.4
    assert found["leak"] < 1e-5


def draw(found, plt):
    """The curve beside what counting achieves; where the last block looks."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6))
    ax = axes[0]
    ax.plot(range(1, STEPS + 1), found["curve"], lw=0.7, color="tab:blue", label="batch")
    ax.plot(*zip(*found["measured"], strict=True), "o-", color="tab:orange", label="unseen text")
    for name, value in found["counted"].items():
        ax.axhline(value, color="grey", ls="--", lw=1)
        ax.text(STEPS, value, name, ha="right", va="bottom", color="dimgrey")
    ax.set(title="bits per character", xlabel="step", ylabel="bits")
    ax.legend()
    ax = axes[1]
    shown = 32
    ax.imshow([row[:shown] for row in found["map"][:shown]], cmap="Blues")
    letters = [c if c.isprintable() and c != " " else "·" for c in found["text"][:shown]]
    ax.set_xticks(range(shown), letters)
    ax.set_yticks(range(shown), letters)
    ax.tick_params(labelsize=7, length=0)
    ax.grid(False)
    ax.set(title="where a character (row) looks: only back", xlabel="earlier character")
    return figure


if __name__ == "__main__":
    lesson.run(__file__, __doc__, measure, report, check, draw)
