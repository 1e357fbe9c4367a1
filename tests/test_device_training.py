"""The same training script on NumPy and on the device of `device.py`: equal losses, no waiting.

Inside a step (forget gradients, forward, loss, backward, clip, update) nothing is read from the
device and nothing but the batch goes there.
"""

from __future__ import annotations

import numpy as np
import pytest
from device import DEVICE, HOME, SLACK, staying
from samples import registered

import microgradnd as mg
from microgradnd import nn, optim

STEPS = 12


@pytest.fixture(autouse=True)
def device(only_the_device):
    with registered(DEVICE):
        yield DEVICE
        DEVICE.synchronize()


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), mg.tanh, nn.Linear(8, 3))


class Words(nn.Module):
    """Ids of words, some of them padding, to three numbers."""

    def __init__(self):
        self.table = nn.Embedding(7, 4, padding_idx=0)
        self.tail = nn.Sequential(nn.Flatten(), nn.PReLU(20), nn.LayerNorm(20), nn.Linear(20, 3))

    def forward(self, ids):
        return self.tail(self.table(ids))


MODELS = {
    "mlp": mlp,
    "maxout and dropout": lambda: nn.Sequential(
        nn.Maxout(6, 8, pieces=3), nn.Dropout(0.3), nn.Maxout(8, 8, pieces=2), nn.Dropout(0.5),
        nn.Linear(8, 3),
    ),
    # No bias before it: its gradient is 0 but for rounding, of which Adam makes steps.
    "batch norm": lambda: nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.LeakyReLU(), nn.Linear(8, 8, bias=False),
        nn.BatchNorm1d(8, momentum=None, affine=False), nn.ELU(), nn.Linear(8, 3),
    ),
    "layer norm": lambda: nn.Sequential(
        nn.LayerNorm(6), nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8, bias=False), nn.PReLU(),
        nn.Linear(8, 3),
    ),
    "embedding": Words,
    "noisy": lambda: nn.Sequential(nn.Linear(6, 8), nn.RReLU(), nn.MFM(), nn.Linear(4, 3)),
}  # fmt: skip
OPTIMIZERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.05),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01),
    "centered": lambda ps: optim.RMSprop(ps, lr=0.01, momentum=0.5, centered=True),
    "adam": lambda ps: optim.Adam(ps, lr=0.02),
    "amsgrad": lambda ps: optim.Adam(ps, lr=0.02, amsgrad=True, weight_decay=1e-2),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.02),
}
CLASSES, NUMBERS, BITS = "classes", "numbers", "bits"
LOSSES = {
    "MSELoss": (NUMBERS, {}),
    "L1Loss": (NUMBERS, {}),
    "HuberLoss": (NUMBERS, {"delta": 0.5}),
    "BCEWithLogitsLoss": (BITS, {"pos_weight": [1.0, 2.0, 0.5]}),
    "CrossEntropyLoss": (CLASSES, {"weight": [1.0, 2.0, 0.5], "label_smoothing": 0.1}),
    "NLLLoss": (CLASSES, {"weight": [1.0, 2.0, 0.5]}),
    "SmoothL1Loss": (NUMBERS, {"beta": 0.5}),
    "HingeLoss": (BITS, {"margin": 0.5}),
    "BCELoss": (BITS, {}),
    "KLDivLoss": (NUMBERS, {"log_target": True}),
}
#: What makes of a model's output the input that a loss wants.
BEFORE = {"NLLLoss": nn.LogSoftmax, "KLDivLoss": nn.LogSoftmax, "BCELoss": nn.Sigmoid}


def batches(inputs, targets):
    """What a script reads from its files, on the host."""
    rng = np.random.default_rng(0)
    ids = inputs == "ids"
    data = rng.integers(0, 7, (STEPS, 16, 5)) if ids else rng.normal(size=(STEPS, 16, 6))
    wanted = data[..., :3].astype(float) - (3 if ids else 0)
    if targets == CLASSES:
        wanted = wanted.argmax(-1)
        wanted[0, 3] = -100  # ignored
    elif targets == BITS:
        wanted = (wanted > 0).astype("float32")
    kinds = ["int64" if x.dtype.kind == "i" else "float32" for x in (data, wanted)]
    return list(zip(data.astype(kinds[0]), wanted.astype(kinds[1]), strict=True))


def train(home, make_model, make_optimizer, loss="CrossEntropyLoss", reduction="mean", order=2.0):
    """The training script; gives losses, norms, weights and buffers, read after the last step."""
    mg.manual_seed(5)
    model = nn.Sequential(make_model(), BEFORE.get(loss, nn.Identity)()).to(home)
    targets, options = LOSSES[loss]
    options = {k: mg.tensor(v) if isinstance(v, list) else v for k, v in options.items()}
    criterion = getattr(nn, loss)(reduction=reduction, **options).to(home)
    optimizer = make_optimizer(model.parameters())
    kept = []
    for x, y in batches("ids" if make_model is Words else "numbers", targets):
        with staying("the batch", uploads=2 if home == HOME else 0):
            x, y = mg.tensor(x).to(home), mg.tensor(y).to(home)
        with staying("the step") as counted:
            optimizer.zero_grad()
            value = criterion(model(x), y)
            if reduction == "none":
                value = value.sum()
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0, order)
            optimizer.step()
        assert counted is None or (counted.launches > 0) == (home == HOME)
        kept.append((value.detach(), norm))
    losses, norms = ([t.item() for t in column] for column in zip(*kept, strict=True))
    return losses, norms, {n: t.to("numpy").numpy() for n, t in model.state_dict().items()}


def same(*script, **options):
    """Run the script on both, compare, and give the losses."""
    losses, norms, state = train("numpy", *script, **options)
    theirs = train(HOME, *script, **options)
    np.testing.assert_allclose(theirs[0], losses, SLACK * 1e-5, SLACK * 1e-6)
    np.testing.assert_allclose(theirs[1], norms, SLACK * 1e-4, SLACK * 1e-6)
    for name, value in state.items():
        assert theirs[2][name].dtype == value.dtype
        np.testing.assert_allclose(theirs[2][name], value, SLACK * 1e-4, SLACK * 1e-5, err_msg=name)
    return losses


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer(kind):
    losses = same(mlp, OPTIMIZERS[kind])
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_layer(kind):
    losses = same(MODELS[kind], OPTIMIZERS["adamw"])
    assert len(set(losses)) == STEPS
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss, reduction):
    same(mlp, OPTIMIZERS["momentum"], loss=loss, reduction=reduction)


@pytest.mark.parametrize("order", [1.0, np.inf])
def test_every_norm(order):
    same(mlp, OPTIMIZERS["sgd"], order=order)


def test_every_loss_is_here():
    made = {name for name in nn.generated.MODULES if name.endswith("Loss")}
    assert made == LOSSES.keys()


def test_evaluation_waits_for_nothing_either():
    for make in MODELS.values():
        model = make().to(HOME).eval()
        x, _ = batches("ids" if make is Words else "numbers", CLASSES)[0]
        x = mg.tensor(x).to(HOME)
        with mg.no_grad(), staying("evaluation"):
            model(x)


def test_a_schedule_and_frozen_layers_cost_no_transfer():
    model = mlp().to(HOME)
    optimizer = optim.Adam(model.parameters())
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    (x, y), *_ = batches("numbers", CLASSES)
    x, y = mg.tensor(x).to(HOME), mg.tensor(y).to(HOME)
    with staying("training"):
        for step in range(6):
            model[0].requires_grad_(step % 2 == 0)
            optimizer.zero_grad(set_to_none=step % 3 == 0)
            mg.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
            nn.utils.max_norm_(model[0].weight, 2.0)
            optimizer.step()
            scheduler.step()
