"""Every number that a verdict depends on, once, with its meaning and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

#: Where numbers come from; "measured" is the tuning half of `benchmarks/diagnosis`.
MEASURED = "measured on the fault suite's tuning half"
LESSON = "the lesson: a unit is dead if it is off for all training data"


def _number(value: float, meaning: str, source: str = MEASURED) -> Any:
    return field(default=value, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True)
class Thresholds:
    """What numbers are compared with; `table()` says the meaning and the source of each.

    None is in units of the loss or of the gradient: multiply the loss by 1000, and nothing changes.

    Example:
        >>> Thresholds(overfit_gap=0.1).overfit_gap
        0.1
        >>> Thresholds().table()[0][:2]
        ('margin', 0.05)
    """

    # --- the training result
    margin: float = _number(
        0.05, "training metric below that of a comparison by more than this is bad")
    chance_sds: float = _number(
        3.0, "training metric within so many standard deviations above chance is bad",
        "binomial test, 0.1 %")
    enough: float = _number(
        100.0, "held-out examples from which on it counts that nothing was learned",
        "binomial test, 0.1 %")
    no_baseline: float = _number(
        0.3, "without comparisons: bad below this share of the way from chance to 1")
    loss_kept: float = _number(
        0.8, "without a metric: bad if more than this share of the first loss is left")
    # --- step 0
    gradient_error: float = _number(
        1e-3, "relative difference of autograd and finite differences in float64",
        "truncation error of central differences is below 1e-6")
    few_checks: float = _number(
        3.0, "weights that must have been checked before a gradient is called wrong")
    input_size: float = _number(
        10.0, "largest input, or largest mean of a feature in its standard deviations",
        "AUTOTRAINER (omega = 10), UMLAUT")
    input_small: float = _number(
        0.1, "largest input below which inputs are to blame, if scaled ones train better")
    input_usual: float = _number(
        3.0, "|mean| and deviation of all inputs below which some large ones are usual",
        "standardized digits: 0 and 1, though the largest is above 10")
    input_extreme: float = _number(
        50.0, "the same, where it is to blame although nobody tried scaled inputs")
    first_loss: float = _number(
        1.5, "loss before training, relative to that of the best constant output, to warn",
        "Karpathy: it should be ln C")
    first_loss_fault: float = _number(10.0, "the same, where it is to blame for a bad result")
    first_loss_regression: float = _number(
        5.0, "the same of a regression, whose outputs may be larger than its targets")
    stale: float = _number(
        0.1, "share of steps that added to gradients that had been used already")
    noisy: float = _number(0.5, "share of evaluations that were made in train mode")
    # --- flow of the gradient before training, in powers of ten
    vanish: float = _number(
        1.5, "decades that the gradient loses from the last hidden layer to the first",
        "3 sigmoid layers (1.3) still train, 4 (1.9) never do")
    vanish_likely: float = _number(
        1.0, "the same, where the result is bad and nothing else to blame")
    explode: float = _number(
        0.7, "decades that the gradient grows on its way back to the input",
        MEASURED + "; AUTOTRAINER: 1.8")
    explode_slope: float = _number(0.1, "decades per layer that are needed for that")
    explode_loss: float = _number(
        2.0, "loss before training, relative to the constant's, with growing activations")
    explode_forward: float = _number(
        0.5, "decades that pre-activations grow from the first hidden layer to the last")
    small_slope: float = _number(
        0.4, "mean |f'| below which the activation is to blame, not the weights",
        "sigmoid: at most 0.25; ReLU: 0.5")
    # --- states of layers
    dead: float = _number(0.5, "share of a layer's units that are dead", "SageMaker; " + LESSON)
    dead_warning: float = _number(0.3, "the same, to warn", LESSON)
    saturated: float = _number(0.5, "share of a layer's values on flat ends", "DeepDiagnosis")
    same: float = _number(0.5, "share of a layer's units that are copies of others")
    single: float = _number(
        0.7, "share of all Maxout groups of which one piece always wins (mean over layers)")
    all_dead: float = _number(
        0.9, "share of a layer that is dead before training, whatever the size of the weights")
    thin: float = _number(
        0.8, "RMS of the weights times the root of the fan-in, below which weights are small",
        "LeCun, Glorot: 1; He: 1.41")
    # --- the size of steps
    high_ratio: float = _number(
        0.1, "median size of a step relative to the weights", "nnscope; cs231n: 1e-3 is good")
    tiny_step: float = _number(
        0.02, "largest step of any layer, below which no rate is too high")
    high_loss: float = _number(
        2.0, "largest loss during training, relative to the first and to the constant's")
    rising: float = _number(
        0.2, "share of samples in which the training metric falls by `swing`, or the loss rises",
        "AUTOTRAINER: 20 % of epochs")
    swing: float = _number(0.03, "such a fall", "AUTOTRAINER")
    low_ratio: float = _number(3e-4, "median size of a step", "cs231n: 1e-3 is good; measured")
    travel: float = _number(
        0.6, "steps times their median size: how far weights went, relative to their own size")
    settled: float = _number(
        0.12, "speed of the training loss at the end, relative to its mean speed: settled below it")
    still: float = _number(0.25, "the same as `travel`, where weights have not moved at all")
    # --- capacity
    wider: float = _number(0.05, "what a wider network is better by, on both sets")
    wider_share: float = _number(
        0.5, "share of what is missing to the reference that a wider network makes up for")
    # --- the test result
    overfit_gap: float = _number(
        0.07, "training metric minus test metric", "AUTOTRAINER; healthy runs: below 0.05")
    overfit_z: float = _number(2.6, "that gap in standard deviations", "two-proportion test, 1 %")
    overfit_loss: float = _number(1.15, "test loss relative to its best, to warn", "nnscope")
    overfit_rise: float = _number(
        0.05, "the same as a difference, relative to the loss of the best constant output")

    @classmethod
    def source(cls, name: str) -> str:
        """Give where a number comes from."""
        return next(str(f.metadata["source"]) for f in fields(cls) if f.name == name)

    def table(self) -> list[tuple[str, float, str, str]]:
        """Give name, number, meaning and source of each."""
        return [
            (f.name, getattr(self, f.name), f.metadata["meaning"], f.metadata["source"])
            for f in fields(self)
        ]
