"""The algorithms: what each keeps, its numbers at a step, and its formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .optimizer import Optimizer, _not_negative


class SGD(Optimizer):
    r"""Gradient descent: :math:`p \leftarrow p - \eta\,b`, with momentum :math:`b`.

    :math:`g' = g + \lambda p`, :math:`b \leftarrow \mu b + (1 - \tau) g'` (:math:`b = g'` at the
    first step), and with Nesterov's momentum :math:`g' + \mu b` takes the place of b.

    Args:
        params: See `Optimizer`.
        lr: The learning rate :math:`\eta`.
        momentum: :math:`\mu`.
        dampening: :math:`\tau`.
        weight_decay: :math:`\lambda`.
        nesterov: Look ahead; wants a momentum and no dampening.

    Source: Sutskever et al., On the importance of initialization and momentum (ICML 2013).
    """

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False,
    ):  # fmt: skip
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening,
            "weight_decay": weight_decay, "nesterov": nesterov,
        })  # fmt: skip

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options out of range, or Nesterov's momentum without one."""
        super().check(group)
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError("SGD: nesterov=True wants a momentum and no dampening")

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Keep the momentum, if there is one."""
        return ("momentum_buffer",) if group["momentum"] else ()

    def flags(self, group: dict[str, Any]) -> dict[str, bool]:
        """Say whether weights decay, and whose momentum it is."""
        return {"decays": group["weight_decay"] != 0, "nesterov": group["nesterov"]}

    def scalars(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        """Give lr, decay, momentum and the share of the gradient."""
        share = 1.0 if t == 1 else 1.0 - group["dampening"]
        return group["lr"], group["weight_decay"], group["momentum"], share

    @staticmethod
    def update(xp: Any, p: Any, g: Any, *rest: Any, decays: bool, nesterov: bool) -> Any:  # type: ignore[override]
        """Apply the formula of the class."""
        *held, lr, decay, momentum, share = rest
        if decays:
            g = g + decay * p
        if not held:
            return (p - lr * g,)
        buffer = momentum * held[0] + share * g
        return p - lr * (g + momentum * buffer if nesterov else buffer), buffer


class Adagrad(Optimizer):
    r"""Steps divided by the root of all squares so far: :math:`s \leftarrow s + g^2`.

    :math:`p \leftarrow p - \frac{\eta}{1 + (t - 1)\,d}\,\frac{g}{\sqrt s + \epsilon}`.

    Args:
        params: See `Optimizer`.
        lr: The learning rate :math:`\eta`.
        lr_decay: d.
        weight_decay: Times p, added to the gradient.
        initial_accumulator_value: What s begins with.
        eps: :math:`\epsilon`.

    Source: Duchi et al., Adaptive subgradient methods (JMLR 2011).
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0, eps: float = 1e-10,
    ):  # fmt: skip
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
        })  # fmt: skip

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options out of range."""
        super().check(group)
        _not_negative("Adagrad", group, "lr_decay", "initial_accumulator_value")

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Keep the sum of squares."""
        return ("sum",)

    def initial(self, group: dict[str, Any], name: str) -> float:
        """Give what the sum begins with."""
        return float(group["initial_accumulator_value"])

    def flags(self, group: dict[str, Any]) -> dict[str, bool]:
        """Say whether weights decay."""
        return {"decays": group["weight_decay"] != 0}

    def scalars(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        """Give the rate of this step, decay and eps."""
        rate = group["lr"] / (1.0 + (t - 1) * group["lr_decay"])
        return rate, group["weight_decay"], group["eps"]

    @staticmethod
    def update(  # type: ignore[override]
        xp: Any, p: Any, g: Any, total: Any, rate: Any, decay: Any, eps: Any, *, decays: bool
    ) -> Any:
        """Apply the formula of the class."""
        if decays:
            g = g + decay * p
        total = total + g * g
        return p - rate * (g / (xp.sqrt(total) + eps)), total


class RMSprop(Optimizer):
    r"""Steps divided by the root of a running mean of squares.

    :math:`v \leftarrow \alpha v + (1 - \alpha) g^2`,
    :math:`p \leftarrow p - \eta\,g / (\sqrt v + \epsilon)`. Centered, v less the square of the
    running mean of g takes its place; with momentum, :math:`b \leftarrow \mu b + g / (\dots)` is
    what is subtracted.

    Args:
        params: See `Optimizer`.
        lr: The learning rate :math:`\eta`.
        alpha: :math:`\alpha`.
        eps: :math:`\epsilon`.
        weight_decay: Times p, added to the gradient.
        momentum: :math:`\mu`.
        centered: Whether the mean is taken off.

    Source: Hinton, lecture 6e of Neural Networks for Machine Learning (2012); centered: Graves
    (2013).
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False,
    ):  # fmt: skip
        super().__init__(params, {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
            "momentum": momentum, "centered": centered,
        })  # fmt: skip

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options out of range."""
        super().check(group)
        _not_negative("RMSprop", group, "alpha")

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Keep the mean of squares, the mean if centered, the momentum if there is one."""
        more = [("grad_avg", group["centered"]), ("momentum_buffer", group["momentum"])]
        return ("square_avg", *(name for name, wanted in more if wanted))

    def flags(self, group: dict[str, Any]) -> dict[str, bool]:
        """Say whether weights decay, and which slots there are."""
        return {"decays": group["weight_decay"] != 0, "centered": bool(group["centered"]),
                "heavy": group["momentum"] != 0}  # fmt: skip

    def scalars(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        """Give lr, decay, alpha, its complement, eps and momentum."""
        alpha = group["alpha"]
        return (
            group["lr"], group["weight_decay"], alpha, 1.0 - alpha, group["eps"], group["momentum"],
        )  # fmt: skip

    @staticmethod
    def update(  # type: ignore[override]
        xp: Any, p: Any, g: Any, square: Any, *rest: Any,
        decays: bool, centered: bool, heavy: bool,
    ) -> Any:  # fmt: skip
        """Apply the formula of the class."""
        *held, lr, decay, alpha, other, eps, momentum = rest
        if decays:
            g = g + decay * p
        square = alpha * square + other * (g * g)
        slots = [square]
        spread = square
        if centered:
            mean = alpha * held[0] + other * g
            slots.append(mean)
            spread = square - mean * mean
        step = g / (xp.sqrt(spread) + eps)
        if heavy:
            step = momentum * held[-1] + step
            slots.append(step)
        return (p - lr * step, *slots)


class Adam(Optimizer):
    r"""Momentum over the root of the mean square, both without their bias to 0.

    :math:`m \leftarrow \beta_1 m + (1 - \beta_1) g`, :math:`v \leftarrow \beta_2 v +
    (1 - \beta_2) g^2`, :math:`p \leftarrow p - \eta\,\frac{m}{1 - \beta_1^t} \big/
    \left(\sqrt{\frac{v}{1 - \beta_2^t}} + \epsilon\right)`.

    Args:
        params: See `Optimizer`.
        lr: The learning rate :math:`\eta`.
        betas: :math:`\beta_1, \beta_2`.
        eps: :math:`\epsilon`.
        weight_decay: Times p, added to the gradient.
        amsgrad: Let the largest v so far take the place of v.

    Source: Kingma and Ba (ICLR 2015); amsgrad: Reddi et al. (ICLR 2018).
    """

    decoupled = False

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False,
    ):  # fmt: skip
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad,
        })  # fmt: skip

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options out of range."""
        super().check(group)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2 or not all(
            isinstance(beta, (int, float, np.number)) and 0.0 <= beta < 1.0 for beta in betas
        ):
            raise ValueError(
                f"{type(self).__name__}: betas must be two numbers in [0, 1), got {betas!r}"
            )

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Keep the two means, and the largest mean square for amsgrad."""
        return ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []))

    def flags(self, group: dict[str, Any]) -> dict[str, bool]:
        """Say whether weights decay, and whether apart from the gradient."""
        return {"decays": group["weight_decay"] != 0, "decoupled": self.decoupled}

    def scalars(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        """Give the rate and eps with the bias worked in, decay, and the betas with complements."""
        first, second = group["betas"]
        root = math.sqrt(1.0 - second**t)
        rate = group["lr"] * root / (1.0 - first**t)
        decay = group["weight_decay"]
        if self.decoupled:
            decay = 1.0 - group["lr"] * decay
        return rate, group["eps"] * root, decay, first, 1.0 - first, second, 1.0 - second

    @staticmethod
    def update(  # type: ignore[override]
        xp: Any, p: Any, g: Any, m: Any, v: Any, *rest: Any, decays: bool, decoupled: bool
    ) -> Any:
        """Apply the formula of the class, with sqrt(1 - beta_2^t) moved into rate and eps."""
        *held, rate, eps, decay, first, other, second, rest_ = rest
        if decays:
            p, g = (p * decay, g) if decoupled else (p, g + decay * p)
        m = first * m + other * g
        v = second * v + rest_ * (g * g)
        top = [xp.maximum(held[0], v)] if held else []
        return (p - rate * (m / (xp.sqrt(top[0] if top else v) + eps)), m, v, *top)


class AdamW(Adam):
    r"""Adam whose weight decay is apart from the gradient: :math:`p \leftarrow p - \eta\lambda p`.

    Args:
        params: See `Optimizer`.
        lr: The learning rate :math:`\eta`.
        betas: As of Adam.
        eps: As of Adam.
        weight_decay: :math:`\lambda`.
        amsgrad: As of Adam.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (ICLR 2019).
    """

    decoupled = True

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False,
    ):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)
