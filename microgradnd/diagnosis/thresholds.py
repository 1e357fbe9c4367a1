"""Every number that a verdict depends on, once; the catalogue says what each means, and whence."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .catalogue import texts


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
    margin: float = 0.05
    chance_sds: float = 3.0
    enough: float = 100.0
    no_baseline: float = 0.3
    loss_kept: float = 0.8
    # --- step 0
    gradient_error: float = 0.001
    few_checks: float = 3.0
    input_size: float = 10.0
    input_small: float = 0.1
    input_usual: float = 3.0
    input_extreme: float = 50.0
    first_loss: float = 1.5
    first_loss_fault: float = 10.0
    first_loss_regression: float = 5.0
    stale: float = 0.1
    noisy: float = 0.5
    # --- flow of the gradient before training, in powers of ten
    vanish: float = 1.5
    vanish_likely: float = 1.0
    explode: float = 0.7
    explode_slope: float = 0.1
    explode_loss: float = 2.0
    explode_forward: float = 0.5
    small_slope: float = 0.4
    # --- states of layers
    dead: float = 0.5
    dead_warning: float = 0.3
    saturated: float = 0.5
    same: float = 0.5
    single: float = 0.7
    all_dead: float = 0.9
    thin: float = 0.8
    # --- the size of steps
    high_ratio: float = 0.1
    tiny_step: float = 0.02
    high_loss: float = 2.0
    rising: float = 0.2
    swing: float = 0.03
    low_ratio: float = 0.0003
    travel: float = 0.6
    settled: float = 0.12
    still: float = 0.25
    # --- capacity
    wider: float = 0.05
    wider_share: float = 0.5
    # --- the test result
    overfit_gap: float = 0.07
    overfit_z: float = 2.6
    overfit_loss: float = 1.15
    overfit_rise: float = 0.05

    @classmethod
    def source(cls, name: str) -> str:
        """Give where a number comes from."""
        known = texts("en")["sources"]
        return str(known.get(name, known["default"]))

    def table(self) -> list[tuple[str, float, str, str]]:
        """Give name, number, meaning and source of each."""
        meanings = texts("en")["threshold"]
        return [(name, number, meanings[name], self.source(name))
                for name, number in asdict(self).items()]  # fmt: skip
