"""The configurations: kinds of faults, how they are drawn, and what a verdict may say first.

Nothing is picked by hand: a configuration's settings are drawn by a generator whose seed is the
class and a number. A fault is a change of settings, so each faulty configuration has a twin without
it. Whether the fault really hurts is decided by results alone (`bites`), before any rule sees it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import data as sets
from .training import CROOKED, EDGES, Run, Settings

#: Of each class the first so many that bite are kept, out of so many that are drawn at most.
KEPT, DRAWN = 12, 60
#: Of the healthy ones, which have no twins, this many (out of six times as many).
HEALTHY = 120
SEEDS = (0, 1, 2)

CLASSIFICATION = ("digits", "blobs", "blobs8", "rings", "moons", "spirals", "circles", "xor")
REGRESSION = ("sine", "friedman", "product")
HARD = ("rings", "spirals", "spirals3", "circles", "xor", "xor6")  # no line separates the classes
WIDE = ("digits", "blobs8", "blobs20", "friedman")


@dataclass(frozen=True)
class Configuration:
    """Settings with a name, which says its class and number.

    Attributes:
        kind: The class of its fault, or `"HEALTHY"`.
        number: Which one it is of the class.
        settings: With the fault.
        twin: Without; None for healthy ones.
    """

    kind: str
    number: int
    settings: Settings
    twin: Settings | None = None

    @property
    def name(self) -> str:
        """Class, number and the settings that are not the usual ones."""
        usual, s = Settings(), dataclasses.asdict(self.settings)
        parts = [f"{k}={v}" for k, v in s.items() if v != getattr(usual, k)]
        return f"{self.kind} {self.number:02d} {' '.join(parts)}"


class Pick:
    """Draws options; the same for a class and number each time."""

    def __init__(self, kind: str, number: int):
        self.rng = np.random.default_rng([zlib.crc32(kind.encode()), number])

    def __call__(self, *options: Any) -> Any:
        """Give one of the options."""
        return options[self.rng.integers(len(options))]

    def usual(self, *, data: Any = (), depth: Any = (1, 2, 3), width: Any = (16, 32, 64),
              act: Any = ("relu", "tanh", "leaky_relu", "elu", "maxout", "gelu"),
              opt: Any = ("sgd", "momentum", "adam"), **more: Any) -> Settings:  # fmt: skip
        """Draw a network that should train."""
        name = self(*(data or CLASSIFICATION + REGRESSION))
        opt = self(*opt)
        rate = self(*{"sgd": (0.05, 0.1), "momentum": (0.01, 0.03), "adam": (0.003, 0.01),
                      "rmsprop": (0.002, 0.005)}[opt])  # fmt: skip
        if name in (*REGRESSION, "linear") and opt in ("sgd", "momentum"):
            rate = rate / 3
        # One output for a two-class task, half of the time.
        logit = name in ("moons", "spirals", "circles", "xor", "xor6", "overlap2") and self(0, 1)
        return Settings(
            data=name, depth=self(*depth), width=self(*width), act=self(*act), opt=opt, rate=rate,
            logit=bool(logit), pieces=self(2, 2, 3, 4), batch=self(16, 32, 64),
            style=self("sequential", "sequential", "class", "factory"), **more,
        )  # fmt: skip


Drawn = tuple[Settings, dict[str, Any]]
FAULTS: dict[str, Callable[[Pick], Drawn]] = {}
#: What may be named first for each class: fixed before any rule was scored.
ACCEPTED: dict[str, frozenset[str]] = {}


def fault(kind: str, *codes: str) -> Callable[[Callable[[Pick], Drawn]], Callable[[Pick], Drawn]]:
    """Register a class under its name, with the codes that are right (default: its name)."""

    def register(draw: Callable[[Pick], Drawn]) -> Callable[[Pick], Drawn]:
        FAULTS[kind] = draw
        ACCEPTED[kind] = frozenset(codes or [kind])
        return draw

    return register


# ------------------------------------------------------------------------------- the first state


@fault("VANISHING")
def _vanishing(pick: Pick) -> Drawn:
    """Activations of small slope, many layers; the twin is a ReLU net at the same rate."""
    usual = pick.usual(depth=(4, 5, 6, 8, 10), act=("relu", "leaky_relu"), opt=("sgd", "momentum"))
    return usual, {"act": pick("sigmoid", "sigmoid", "sigmoid", "hard_sigmoid")}


@fault("EXPLODING")
def _exploding(pick: Pick) -> Drawn:
    """Weights too large for the depth; or Maxout with the weights that suit ReLU."""
    act = pick("maxout", "maxout", "relu", "leaky_relu", "elu", "prelu")
    usual = pick.usual(depth=(4, 5, 6, 8, 10), act=(act,))
    if act == "maxout":
        return usual, {"init": "he", "gain": pick(1.0, 1.0, 1.3)}
    return usual, {"gain": pick(1.7, 2.0, 2.5, 3.0)}


@fault("INIT_SCALE")
def _init_scale(pick: Pick) -> Drawn:
    """Weights too small for the depth, with activations that are steep."""
    usual = pick.usual(depth=(3, 4, 5, 6, 8),
                       act=("relu", "tanh", "leaky_relu", "elu", "maxout", "gelu"))  # fmt: skip
    return usual, pick({"gain": 0.3}, {"gain": 0.15}, {"init": "0.05"}, {"init": "0.02"})


@fault("DEAD_BY_BIAS", "DEAD")
def _dead_by_bias(pick: Pick) -> Drawn:
    """ReLUs whose biases are far below zero at the start."""
    return pick.usual(act=("relu",)), {"bias": pick(-2.0, -3.0, -5.0, -10.0)}


@fault("SATURATED")
def _saturated(pick: Pick) -> Drawn:
    """Flat activations with weights so large that most values lie on the flat ends."""
    usual = pick.usual(data=(*WIDE, "xor6", "spirals3", "linear5", "product12"), depth=(1, 2, 3, 4),
                       act=("tanh", "tanh", "sigmoid", "hard_tanh", "softsign"))  # fmt: skip
    return usual, {"gain": pick(10.0, 20.0, 40.0) * (2 if usual.act == "sigmoid" else 1)}


@fault("SYMMETRIC")
def _symmetric(pick: Pick) -> Drawn:
    """All weights the same number."""
    return pick.usual(), {"init": "constant", "gain": pick(0.0, 1.0, 2.0, 5.0)}


@fault("UNUSED_PIECE")
def _unused_piece(pick: Pick) -> Drawn:
    """One piece of each Maxout unit always wins: a linear network."""
    return pick.usual(data=(*HARD, *REGRESSION), act=("maxout",)), {"plant": "idle"}


@fault("LOSS_AT_INIT")
def _loss_at_init(pick: Pick) -> Drawn:
    """The output layer's weights are far too large."""
    return pick.usual(), {"head": pick(20.0, 50.0, 100.0, 300.0)}


# --------------------------------------------------------------------------------- during training


@fault("RATE_KILLS", "LR_HIGH")
def _rate_kills(pick: Pick) -> Drawn:
    """A rate with which ReLU units die."""
    usual = pick.usual(act=("relu",), data=CLASSIFICATION)
    return usual, {"rate": usual.rate * pick(20, 50, 100)}


@fault("LR_HIGH")
def _lr_high(pick: Pick) -> Drawn:
    """A rate that is far too high, with other activations."""
    usual = pick.usual(act=("tanh", "sigmoid", "elu", "leaky_relu", "maxout", "gelu", "silu"))
    return usual, {"rate": usual.rate * pick(20, 50, 100, 300)}


@fault("LR_LOW")
def _lr_low(pick: Pick) -> Drawn:
    """A rate that is far too low."""
    usual = pick.usual()
    return usual, {"rate": usual.rate / pick(100, 300, 1000)}


@fault("CAPACITY")
def _capacity(pick: Pick) -> Drawn:
    """Too few units, or no hidden layer at all where one is needed."""
    usual = pick.usual(data=("digits", "rings", "spirals3", "spirals", "friedman", "product12",
                             "xor6", "blobs20"))  # fmt: skip
    if usual.data not in ("digits", "blobs20") and pick(0, 0, 1):
        return usual, {"depth": 0}
    return usual, {"depth": 1, "width": pick(1, 2, 2)}


# --------------------------------------------------------------------------------------- the test


@fault("OVERFIT")
def _overfit(pick: Pick) -> Drawn:
    """Few examples or wrong labels, a wide network and many steps; the twin gets enough of both."""
    names = ("digits", "digits", "blobs8", "overlap", "overlap2", "friedman", "linear5", "xor6")
    usual = pick.usual(data=names, width=(64, 128), act=("relu", "tanh", "leaky_relu", "maxout"))
    few = {"digits": (50, 80), "blobs8": (40, 60), "friedman": (40, 60), "linear5": (40, 60),
           "xor6": (50, 80)}.get(usual.data, (60, 100))  # fmt: skip
    return usual, {"n": pick(*few), "batch": 16, "steps": 1000}


# -------------------------------------------------------------------------------- data, loss, loop


@fault("INPUT_SCALE")
def _input_scale(pick: Pick) -> Drawn:
    """Inputs in unsuitable units: large, far from zero, or one of them far larger."""
    usual = pick.usual()
    return usual, pick({"units": 100.0}, {"units": 1000.0}, {"shift": 100.0}, {"shift": 1000.0},
                       {"units": 1000.0, "ragged": True}, {"units": 255.0, "whole": True},
                       {"units": 1e-3})  # fmt: skip


@fault("NONFINITE")
def _nonfinite(pick: Pick) -> Drawn:
    """NaN or infinite inputs; a function that is not finite (or not differentiable) at the edge."""
    which = pick("bad input", "edge", "edge")
    if which == "edge":
        name = pick(*EDGES)
        return pick.usual(plant=f"careful:{name}"), {"plant": f"edge:{name}"}
    return pick.usual(), {"plant": f"bad input:{pick('nan', 'inf')}"}


@fault("GRAD_MISMATCH")
def _grad_mismatch(pick: Pick) -> Drawn:
    """An activation of one's own with a wrong gradient; the twin has the right one."""
    name = pick(*CROOKED)
    return pick.usual(act=(CROOKED[name][0],)), {"plant": f"crooked:{name}"}


@fault("LOSS_MISMATCH")
def _loss_mismatch(pick: Pick) -> Drawn:
    """A softmax or sigmoid before a loss that has it inside; an output that is too narrow."""
    usual = pick.usual(opt=("sgd", "sgd", "momentum", "adam"), depth=(1, 2, 3, 4))
    if usual.data in REGRESSION:
        return usual, {"plant": pick("sigmoid", "softmax", "tanh")}
    return usual, {"plant": "sigmoid" if usual.logit else pick("softmax", "softmax", "sigmoid")}


@fault("ZERO_GRAD")
def _zero_grad(pick: Pick) -> Drawn:
    """Nobody calls zero_grad."""
    return pick.usual(), {"plant": "no zero_grad"}


@fault("NOT_OPTIMIZED")
def _not_optimized(pick: Pick) -> Drawn:
    """The optimizer has other parameters than the model's, or only a few of them."""
    plant = pick("biases only", "first only", "last bias", "other model")
    return pick.usual(), {"plant": plant}


@fault("UNREACHED")
def _unreached(pick: Pick) -> Drawn:
    """Something in the forward pass leaves the tape; what is behind it stays as it was."""
    usual = pick.usual(depth=(2, 3, 4), width=(4, 8, 12), data=(*HARD, *WIDE, "sine"))
    return usual, {"plant": pick("detach", "detach head", "unwrapped")}


@fault("EVAL_MODE")
def _eval_mode(pick: Pick) -> Drawn:
    """Dropout still drops when the network is evaluated."""
    drop = pick(0.5, 0.6, 0.7)
    usual = pick.usual(data=("digits", "blobs8", "rings", "spirals3", "product", "xor6"),
                       width=(32, 64), opt=("momentum", "adam"), steps=800, plant="eval mode",
                       dropout=drop)  # fmt: skip
    return usual, {"plant": "train mode"}


@fault("TARGETS")
def _targets(pick: Pick) -> Drawn:
    """Targets that are NaN, out of range, or of another kind than the loss wants."""
    which = pick("bad target", "yes", "odds")
    if which == "bad target":
        usual = pick.usual(data=(*REGRESSION, "product12"))
        return usual, {"plant": f"bad target:{pick('nan', 'inf')}"}
    if which == "yes":
        usual = pick.usual(data=("moons", "spirals", "circles", "xor", "xor6", "overlap2"))
        usual = dataclasses.replace(usual, logit=True)
        return usual, {"plant": f"targets:{pick('1,2', '0,255', '-1,1', '0,10')}"}
    usual = pick.usual(data=("digits", "blobs", "blobs8", "rings", "spirals3"))
    return usual, {"plant": f"targets:{pick('cold', 'signs', 'many')}"}


# ----------------------------------------------------------------------------------------- healthy


def _healthy(pick: Pick) -> Settings:
    """Networks that train, of kinds that look faulty to a rule that is too simple."""
    everything = tuple(sets.SETS)
    kind = pick("sparse", "maxout", "few", "noisy", "regression", "batch", "rare", "smooth",
                "norm", "dropout", "adaptive", "units", "words", "logit", "wide", "linear",
                "sigmoid", "mixed", "long")  # fmt: skip
    usual, change = pick.usual, dataclasses.replace
    smooth = ("tanh", "elu", "selu", "leaky_relu", "prelu", "gelu", "silu", "softsign", "mish")
    if kind == "sparse":  # 80 % zeros, some dead units, and yet it trains
        return change(usual(data=("digits", "digits", "blobs8", "blobs20"), act=("relu",),
                            opt=("sgd",), width=(64, 128)), rate=pick(0.3, 0.5))  # fmt: skip
    if kind == "maxout":
        return usual(depth=(4, 6, 8, 10), act=("maxout",))
    if kind == "few":
        return change(usual(data=("blobs", "moons", "circles", "xor", "rare"),
                            width=(8, 16)), n=pick(60, 100))  # fmt: skip
    if kind == "noisy":
        noisy = usual(data=("overlap", "overlap2", "blobs", "moons", "digits", "rare"),
                      depth=(1, 2), width=(8, 16), opt=("sgd", "momentum"))  # fmt: skip
        return change(noisy, flip=pick(0.1, 0.2, 0.3), n=1000)
    if kind == "regression":
        return usual(data=("sine", "friedman", "linear", "linear5", "product", "product12"))
    if kind == "batch":
        return change(usual(data=everything), batch=pick(4, 8))
    if kind == "rare":
        return usual(data=("rare",))
    if kind == "smooth":
        return usual(depth=(3, 4, 6, 8, 10), act=smooth)
    if kind == "norm":
        return usual(norm=pick("batch", "layer"), act=("relu", "tanh", "elu", "sigmoid"))
    if kind == "dropout":
        return usual(dropout=pick(0.1, 0.2), width=(64, 128))
    if kind == "adaptive":
        return usual(data=everything, opt=("adam", "rmsprop"))
    if kind == "units":  # 0 to 16, as pixels and counts come, and no harm done
        return usual(data=("digits", "blobs", "moons"), units=pick(4.0, 16.0), shift=pick(0.0, 3.0))
    if kind == "words":
        return usual(data=("words",), opt=("adam", "momentum", "rmsprop"))
    if kind == "logit":
        return change(usual(data=("moons", "spirals", "circles", "xor", "overlap2")), logit=True)
    if kind == "wide":
        return usual(data=("blobs20", "product12", "linear5"))
    if kind == "linear":
        return usual(data=("linear", "linear5", "blobs", "digits", "overlap", "overlap2"),
                     depth=(0,))  # fmt: skip
    if kind == "sigmoid":  # few layers of it do train
        return usual(depth=(1, 2), act=("sigmoid",), opt=("adam", "momentum"))
    if kind == "mixed":
        return usual(depth=(3, 4), act=("tanh+relu", "maxout+relu", "relu+sigmoid", "elu+tanh"))
    longer = usual(data=("digits", "spirals", "rings", "blobs8"), width=(8, 64))
    return change(longer, steps=1200)


# --------------------------------------------------------------------------------- drawing, judging


def draw(kind: str, number: int) -> Configuration:
    """Draw a configuration of a class."""
    pick = Pick(kind, number)
    if kind == "HEALTHY":
        return Configuration(kind, number, _healthy(pick))
    usual, change = FAULTS[kind](pick)
    return Configuration(kind, number, dataclasses.replace(usual, **change), usual)


def fine(run: Run) -> bool:
    """Whether a run is healthy: near the best possible result on both sets, no gap between them."""
    return run.train >= run.clean.best - 0.05 and run.train - run.test < 0.05


def bites(kind: str, faulty: Run, twin: Run) -> bool:
    """Whether a fault hurts, by results alone: the twin is well trained, the faulty run is not."""
    learned = twin.train >= twin.clean.best - 0.05
    if kind == "OVERFIT":
        gap = faulty.train - faulty.test
        good = faulty.train >= faulty.clean.best - 0.05
        return learned and good and gap >= 0.12 and gap >= twin.train - twin.test + 0.06
    if kind == "EVAL_MODE":
        return learned and faulty.reported < faulty.test - 0.05
    lost = not faulty.train >= twin.train - 0.1
    if kind == "SATURATED":  # it may hurt the test alone
        lost = lost or not faulty.test >= twin.test - 0.1
    return learned and lost


def side(names: list[str]) -> dict[str, str]:
    """Put one class's configurations on two sides, all seeds of one on the same side.

    They are sorted by the SHA-256 of their names, and taken in turn.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {name: ("tuning", "scoring")[i % 2] for i, name in enumerate(order)}
