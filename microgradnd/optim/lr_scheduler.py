"""Schedules of the learning rate, each a function of the number of steps taken, `last_epoch`.

A schedule sets `group["lr"]` when it is made and at each `step()`, which is called after the
optimizer's, once per epoch or once per batch as the user counts. The first rate of a group is kept
as `group["initial_lr"]`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from .optimizer import Optimizer

__all__ = [
    "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip


def _checked(scheduler: Any, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"{type(scheduler).__name__}: an Optimizer is wanted, got {type(optimizer).__name__}"
        )
    return optimizer


class LRScheduler:
    """A schedule in closed form; subclasses define `rate`.

    A rate that something else has changed, another schedule or the user, is multiplied by the
    schedule's factor of the step; so schedules chain, as in PyTorch.

    Args:
        optimizer: Whose rates are set.

    Attributes:
        base_lrs: The first rate of each group.
        last_epoch: How often `step` was called.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = _checked(self, optimizer)
        self.base_lrs = [group.setdefault("initial_lr", group["lr"])
                         for group in optimizer.param_groups]  # fmt: skip
        self.last_epoch = 0
        for i, (group, base) in enumerate(zip(optimizer.param_groups, self.base_lrs, strict=True)):
            group["lr"] = _onward(group["lr"], base, self.rate(base, 0, i))

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate of a group after t steps, from its first rate."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on by one, and set the rates."""
        t = self.last_epoch
        groups, known = self.optimizer.param_groups, len(self.base_lrs)
        # Groups that were added since are treated as if they had been there from the start.
        self.base_lrs += [group.setdefault("initial_lr", group["lr"]) for group in groups[known:]]
        for i, (group, base) in enumerate(zip(groups, self.base_lrs, strict=True)):
            before, after = self.rate(base, t, i), self.rate(base, t + 1, i)
            group["lr"] = _onward(group["lr"], before, after) if i < known else after
        self.last_epoch = t + 1

    def get_last_lr(self) -> list[float]:
        """Give the rates that are set now, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Give all that changes, in JSON's types; functions are not part of it."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs),
                "last_lr": self.get_last_lr()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` gave, the rates of that moment included.

        Raises:
            ValueError: If the number of groups differs.
        """
        if len(state["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"load_state_dict of {type(self).__name__}: {len(state['base_lrs'])} groups, "
                f"{len(self.base_lrs)} are wanted"
            )
        self.last_epoch, self.base_lrs = int(state["last_epoch"]), list(state["base_lrs"])
        for group, rate in zip(self.optimizer.param_groups, state["last_lr"], strict=True):
            group["lr"] = rate


def _onward(rate: float, before: float, after: float) -> float:
    """The next rate, where the schedule goes from one to another; exact if it is the only one."""
    return after if rate == before or not before else rate * (after / before)


class LambdaLR(LRScheduler):
    r"""The first rate times a function of the number of steps: :math:`\eta_0 f(t)`.

    Args:
        optimizer: Whose rates are set.
        lr_lambda: f, or one per group.
    """

    def __init__(
        self, optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
    ):  # fmt: skip
        n = len(_checked(self, optimizer).param_groups)
        if not callable(lr_lambda) and not isinstance(lr_lambda, (list, tuple)):
            raise TypeError(f"LambdaLR: a function (or one per group) is wanted, got {lr_lambda!r}")
        self.lr_lambdas = lr_lambda if callable(lr_lambda) else list(lr_lambda)
        if isinstance(self.lr_lambdas, list) and len(self.lr_lambdas) != n:
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions for {n} groups")
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the first rate times f(t)."""
        f = self.lr_lambdas
        return float(base * (f[group] if isinstance(f, list) else f)(t))


class StepLR(LRScheduler):
    r"""A factor after every so many steps: :math:`\eta_0 \gamma^{\lfloor t / s \rfloor}`.

    Args:
        optimizer: Whose rates are set.
        step_size: s.
        gamma: The factor.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1):
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate after t steps."""
        return float(base * self.gamma ** (t // self.step_size))


class MultiStepLR(LRScheduler):
    """A factor at each milestone.

    Args:
        optimizer: Whose rates are set.
        milestones: Numbers of steps.
        gamma: The factor.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1):
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate after t steps."""
        return float(base * self.gamma ** bisect_right(self.milestones, t))


class ExponentialLR(LRScheduler):
    r"""A factor at every step: :math:`\eta_0 \gamma^t`.

    Args:
        optimizer: Whose rates are set.
        gamma: The factor.
    """

    def __init__(self, optimizer: Optimizer, gamma: float):
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate after t steps."""
        return float(base * self.gamma**t)


class CosineAnnealingLR(LRScheduler):
    r"""Half a cosine: :math:`\eta_{min} + (\eta_0 - \eta_{min})(1 + \cos(\pi t / T)) / 2`.

    Args:
        optimizer: Whose rates are set.
        T_max: T; after it the rate comes up again.
        eta_min: The lowest rate.

    Source: Loshchilov and Hutter, SGDR (ICLR 2017).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0):
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate after t steps."""
        half = (1.0 + math.cos(math.pi * t / self.T_max)) / 2.0
        return self.eta_min + (base - self.eta_min) * half


class LinearLR(LRScheduler):
    r"""Warm-up: the first rate times a factor that goes from one number to another in a line.

    Args:
        optimizer: Whose rates are set.
        start_factor: The factor at the beginning.
        end_factor: The factor after `total_iters` steps and later.
        total_iters: The length of the way.

    Source: Goyal et al., Accurate, large minibatch SGD (2017).
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3.0, end_factor: float = 1.0,
        total_iters: int = 5,
    ):  # fmt: skip
        if not start_factor > 0.0 or total_iters < 1:
            raise ValueError(
                f"LinearLR: start_factor must be positive and total_iters at least 1, got "
                f"{start_factor} and {total_iters}"
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate after t steps."""
        share = min(t / self.total_iters, 1.0)
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


class SequentialLR(LRScheduler):
    """One schedule after the other, each counting from its own beginning: a warm-up, then a decay.

    Args:
        optimizer: Whose rates are set.
        schedulers: The schedules, made for the same optimizer.
        milestones: The numbers of steps at which the next one takes over.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ):
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        if len(self.milestones) != len(self.schedulers) - 1 or sorted(milestones) != list(
            milestones
        ):
            raise ValueError(
                f"SequentialLR: {len(self.schedulers)} schedules want "
                f"{len(self.schedulers) - 1} growing milestones, got {list(milestones)}"
            )
        for s in self.schedulers:
            if not isinstance(s, LRScheduler):
                raise TypeError(f"SequentialLR: a {type(s).__name__} has no rates of its own")
        if any(s.optimizer is not optimizer for s in self.schedulers):
            raise ValueError("SequentialLR: a schedule belongs to another optimizer")
        for group in optimizer.param_groups:  # the schedules have set theirs when they were made
            group["lr"] = group["initial_lr"]
        super().__init__(optimizer)

    def rate(self, base: float, t: int, group: int) -> float:
        """Give the rate of the schedule whose turn it is."""
        turn = bisect_right(self.milestones, t)
        begun = self.milestones[turn - 1] if turn else 0
        return self.schedulers[turn].rate(base, t - begun, group)


class ReduceLROnPlateau:
    """Lowers the rate when a measure has stopped getting better.

    Args:
        optimizer: Whose rates are set.
        mode: `"min"` if lower is better, `"max"` if higher.
        factor: What the rate is multiplied by.
        patience: Calls without improvement that are let pass.
        threshold: By how much a measure must be better to count.
        threshold_mode: `"rel"`, as a share of the best, or `"abs"`.
        cooldown: Calls after a change in which nothing is counted.
        min_lr: The lowest rate, or one per group.
        eps: Changes of the rate below this are not made.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8,
    ):  # fmt: skip
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: mode is 'min' or 'max' and threshold_mode 'rel' or 'abs', got "
                f"{mode!r} and {threshold_mode!r}"
            )
        if not 0.0 < factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must be in (0, 1), got {factor}")
        n = len(_checked(self, optimizer).param_groups)
        self.min_lrs = [min_lr] * n if isinstance(min_lr, (int, float)) else list(min_lr)
        if len(self.min_lrs) != n:
            raise ValueError(f"ReduceLROnPlateau: {len(self.min_lrs)} min_lr for {n} groups")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def _better(self, value: float) -> bool:
        low = self.mode == "min"
        if self.threshold_mode == "rel":  # of the best itself, whatever its sign, as in PyTorch
            bound = self.best * (1.0 - self.threshold if low else 1.0 + self.threshold)
        else:
            bound = self.best - self.threshold if low else self.best + self.threshold
        return value < bound if low else value > bound

    def step(self, metrics: Any) -> None:
        """Take the newest measure, and lower the rates if it is time."""
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for i, group in enumerate(self.optimizer.param_groups):
                lowest = self.min_lrs[min(i, len(self.min_lrs) - 1)]  # groups were added perhaps
                lower = max(group["lr"] * self.factor, lowest)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """Give the rates that are set now, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Give all that changes, in JSON's types."""
        return {name: getattr(self, name) for name in (
            "best", "num_bad_epochs", "cooldown_counter", "last_epoch")}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` gave; the rates are part of the optimizer's state."""
        self.best = float(state["best"])
        for name in ("num_bad_epochs", "cooldown_counter", "last_epoch"):
            setattr(self, name, int(state[name]))
