"""Initial values of weights, written in place; PyTorch's names, with a trailing underscore.

Values are drawn on the host, from the default generator or a given one, so that a seed gives the
same weights on every backend.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from .. import backend as backends
from ..modes import no_grad
from ..random import Generator, default_generator
from ..tape import Tensor, wrap

HOST = backends.named("numpy")


def _write(tensor: Tensor, values: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"a Tensor is wanted, to write into, got a {type(tensor).__name__}")
    with no_grad():
        values = np.broadcast_to(np.asarray(values, tensor.dtype), tensor.shape)
        tensor.assign_(wrap(tensor.backend.asarray(np.ascontiguousarray(values))))
    return tensor


def _uniform(tensor: Tensor, a: float, b: float, generator: Generator | None) -> Tensor:
    if not a <= b:
        raise ValueError(f"the lower bound {a} is above the upper one {b}")
    draw = (generator or default_generator()).uniform
    return _write(tensor, draw(a, b, tensor.shape, dtype=tensor.dtype, backend=HOST)._array)


def _normal(tensor: Tensor, mean: float, std: float, generator: Generator | None) -> Tensor:
    if not std >= 0.0:
        raise ValueError(f"a standard deviation must not be negative, got {std}")
    draw = (generator or default_generator()).normal
    return _write(tensor, draw(mean, std, tensor.shape, dtype=tensor.dtype, backend=HOST)._array)


def fans(tensor: Tensor) -> tuple[int, int]:
    """Give the numbers of inputs and outputs of a weight (out, in, ...).

    Raises:
        ValueError: If it has fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(f"fan in and fan out need at least two axes, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return max(fans(tensor)[mode == "fan_out"], 1)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Give the factor by which a weight's standard deviation makes up for an activation.

    Args:
        nonlinearity: `linear`, `sigmoid`, `tanh`, `relu`, `leaky_relu`, `selu`, ...
        param: The negative slope of `leaky_relu` (0.01 by default).

    Raises:
        ValueError: If nothing is known about the name.
    """
    slope = 0.01 if param is None else param
    gains = {
        "tanh": 5.0 / 3.0,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1.0 + slope * slope)),
        "selu": 3.0 / 4.0,
    }
    ones = ("linear", "identity", "sigmoid", "conv1d", "conv2d", "conv3d")
    if nonlinearity in ones:
        return 1.0
    if nonlinearity not in gains:
        raise ValueError(
            f"calculate_gain: {nonlinearity!r} is not known; one of {', '.join([*ones, *gains])}"
        )
    return gains[nonlinearity]


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Draw from U(a, b); gives the tensor."""
    return _uniform(tensor, a, b, generator)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Draw from N(mean, std²); gives the tensor."""
    return _normal(tensor, mean, std, generator)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Draw from N(mean, std²) until every value is in [a, b]; gives the tensor.

    Raises:
        ValueError: If fewer than one draw in 10,000 would fall into the interval.
    """

    def below(x: float) -> float:
        return 0.5 * math.erfc((mean - x) / (std * math.sqrt(2.0)))

    if not (a < b and std > 0.0 and below(b) - below(a) > 1e-4):
        raise ValueError(f"trunc_normal_: [{a}, {b}] is hardly met by N({mean}, {std}^2)")
    draw = (generator or default_generator()).normal
    values = np.full(tensor.shape, np.nan)
    while (out := ~((values >= a) & (values <= b))).any():
        n = int(out.sum())
        values[out] = draw(mean, std, n, dtype="float64", backend=HOST)._array
    return _write(tensor, np.clip(values, a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Set every value to `val`; gives the tensor."""
    return _write(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Set every value to 0; gives the tensor."""
    return _write(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Set every value to 1; gives the tensor."""
    return _write(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Write the identity into a matrix; gives the tensor."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: a matrix is wanted, got shape {tensor.shape}")
    return _write(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor) -> Tensor:
    """Write a convolution's identity into a kernel (out, in, ...); gives the tensor."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"dirac_: a kernel of 3 to 5 axes is wanted, got shape {tensor.shape}")
    values = np.zeros(tensor.shape)
    n = min(tensor.shape[:2])
    middle: Any = tuple(size // 2 for size in tensor.shape[2:])
    for i in range(n):
        values[(i, i, *middle)] = 1.0
    return _write(tensor, values)


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    r"""Draw from U(-a, a), :math:`a = gain \sqrt{6 / (fan_{in} + fan_{out})}`; gives the tensor.

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks (AISTATS 2010).
    """
    bound = gain * math.sqrt(6.0 / max(sum(fans(tensor)), 1))
    return _uniform(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    r"""Draw from N(0, s²), :math:`s = gain \sqrt{2 / (fan_{in} + fan_{out})}`; gives the tensor."""
    return _normal(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(fans(tensor)), 1)), generator)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    r"""Draw from U(-b, b), :math:`b = gain \sqrt{3 / fan}`; gives the tensor.

    Args:
        tensor: A weight (out, in, ...).
        a: The negative slope of `leaky_relu`.
        mode: `"fan_in"` keeps the forward signal, `"fan_out"` the gradient.
        nonlinearity: See `calculate_gain`.
        generator: Where the numbers come from.

    Source: He et al., Delving deep into rectifiers (ICCV 2015).
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan(tensor, mode))
    return _uniform(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    r"""Draw from N(0, s²), :math:`s = gain / \sqrt{fan}`; arguments as of `kaiming_uniform_`."""
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return _normal(tensor, 0.0, std, generator)


def lecun_normal_(tensor: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Draw from N(0, 1 / fan_in): what SELU's fixed point asks for; gives the tensor.

    Source: LeCun et al., Efficient BackProp (1998); Klambauer et al. (NIPS 2017).
    """
    return _normal(tensor, 0.0, 1.0 / math.sqrt(_fan(tensor, "fan_in")), generator)


@cache
def maxout_constant(pieces: int) -> float:
    r"""Give :math:`c = 1 / E[\max(z_1, \dots, z_k)^2]` of k independent standard normals.

    The integral of :math:`x^2 k \varphi(x) \Phi(x)^{k-1}` by the trapezoidal rule, which is exact
    to rounding for so smooth a function.
    """
    n, end = 4000, 12.0
    total = 0.0
    for i in range(1, n):
        x = -end + 2.0 * end * i / n
        below = 0.5 * math.erfc(-x / math.sqrt(2.0))
        total += x * x * pieces * math.exp(-0.5 * x * x) * below ** (pieces - 1)
    return math.sqrt(2.0 * math.pi) * n / (2.0 * end * total)


def maxout_he_(tensor: Tensor, pieces: int, generator: Generator | None = None) -> Tensor:
    r"""Draw from N(0, c / fan_in) with Maxout's own c (1, 0.784, 0.645, 0.556 for 2 to 5 pieces).

    With it a layer of Maxout keeps the mean square of its signal. With ReLU's constant, 2, the
    signal of two pieces grows by the square root of 2 in every layer.

    Args:
        tensor: A weight (units * pieces, in).
        pieces: How many linear functions compete in a unit.
        generator: Where the numbers come from.

    Source: Tseran and Montufar, On the expected complexity of maxout networks (NeurIPS 2021).

    Raises:
        ValueError: If pieces is less than 1.

    Example:
        >>> from microgradnd.nn.init import maxout_constant
        >>> [round(maxout_constant(k), 5) for k in (1, 2, 3, 4, 5)]
        [1.0, 1.0, 0.78391, 0.64461, 0.55555]
    """
    if pieces < 1:
        raise ValueError(f"maxout_he_: pieces must be at least 1, got {pieces}")
    std = math.sqrt(maxout_constant(pieces) / _fan(tensor, "fan_in"))
    return _normal(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Write an orthogonal matrix (rows as axis 0, all other axes as columns), times `gain`.

    Source: Saxe et al., Exact solutions to the nonlinear dynamics of learning (ICLR 2014).
    """
    rows = tensor.shape[0] if tensor.ndim else 0
    if tensor.ndim < 2 or not tensor.size:
        raise ValueError(f"orthogonal_: at least two axes are wanted, got shape {tensor.shape}")
    columns = tensor.size // rows
    draw = (generator or default_generator()).normal
    flat = draw(0.0, 1.0, (rows, columns), dtype="float64", backend=HOST)._array
    q, r = np.linalg.qr(flat.T if rows < columns else flat)
    q = q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0)  # else the signs are not uniform
    q = q.T if rows < columns else q
    return _write(tensor, gain * q.reshape(tensor.shape))


def sparse_(
    tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None
) -> Tensor:
    """Draw from N(0, std²) and set a share of each column to 0; gives the tensor.

    Source: Martens, Deep learning via Hessian-free optimization (ICML 2010).
    """
    if tensor.ndim != 2:
        raise ValueError(f"sparse_: a matrix is wanted, got shape {tensor.shape}")
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparse_: sparsity must be in [0, 1], got {sparsity}")
    generator = generator or default_generator()
    values = generator.normal(0.0, std, tensor.shape, dtype="float64", backend=HOST)._array.copy()
    zeros = math.ceil(sparsity * tensor.shape[0])
    for column in range(tensor.shape[1]):
        values[generator.permutation(tensor.shape[0], backend=HOST)._array[:zeros], column] = 0.0
    return _write(tensor, values)
