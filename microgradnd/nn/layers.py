"""Layers with parameters or a state; what has neither is generated from the registry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..functions import asarray, full, ones, zeros
from ..modes import no_grad
from ..ops.conv import geometry
from ..ops.shaping import merged
from ..registry import COMPOSITES, REGISTRY
from ..tape import Tensor
from . import functional as F
from . import init
from .module import Module, Parameter


def _empty(*shape: int, dtype: Any = None) -> Parameter:
    return Parameter(zeros(shape, dtype))


def _sizes(where: str, **sizes: Any) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"{where}: {name} must be a positive integer, got {size!r}")


def _last(x: Any) -> tuple[int, ...]:
    """The size of the last axis, in a tuple; `numpy.shape` would go through NumPy's protocol."""
    return (x.shape if isinstance(x, Tensor) else np.shape(x))[-1:]


class Identity(Module):
    """Gives its input; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def forward(self, x: Any) -> Any:
        """Give the input."""
        return x


class Linear(Module):
    r"""The affine map of the last axis, :math:`x W^T + b`: (..., in) becomes (..., out).

    Args:
        in_features: The size of the last axis.
        out_features: The size that it gets.
        bias: Whether there is a bias b.
        dtype: Of the parameters; the default dtype if None.

    The weight, (out, in), and the bias, (out,), are drawn from U(-k, k), k = 1 / sqrt(in), as
    PyTorch's are.

    Raises:
        ValueError: If a size is not positive or, when called, the last axis has another size.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = None):
        _sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _empty(out_features, in_features, dtype=dtype)
        self.bias = _empty(out_features, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Any:
        """Apply the map."""
        if _last(x) != (self.in_features,):
            raise ValueError(
                f"Linear(in_features={self.in_features}, out_features={self.out_features}) got an "
                f"input of shape {np.shape(x)}; its last axis must be {self.in_features}"
            )
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Give the sizes."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class Maxout(Module):
    r"""A layer that learns its activation: :math:`y_j = \max_{p < k} (x W^T + b)_{jk + p}`.

    Each of the `out_features` units is the largest of `pieces` linear functions of the input, so
    a convex function of as many pieces; for each example only the winning piece is trained.
    With two pieces of which one stays 0, a unit is a ReLU.

    Args:
        in_features: The size of the last axis.
        out_features: The number of units, the size that it gets.
        pieces: Linear functions in a unit.
        bias: Whether there is a bias.
        dtype: Of the parameters; the default dtype if None.

    The weight, (out * pieces, in), is drawn by `init.maxout_he_`, the bias, (out * pieces,), is 0.

    Source: Goodfellow et al., Maxout networks (ICML 2013).

    Raises:
        ValueError: If a size is not positive or, when called, the last axis has another size.

    Example:
        >>> import microgradnd as mg
        >>> unit = mg.nn.Maxout(1, 1, pieces=2)
        >>> with mg.no_grad():
        ...     _ = unit.weight.assign_([[1.0], [-1.0]])
        >>> unit(mg.tensor([[-3.0], [2.0]]))  # |x|, the largest of x and -x
        Tensor([[3.],
                [2.]], op=maxout)
    """

    def __init__(
        self, in_features: int, out_features: int, pieces: int, bias: bool = True, dtype: Any = None
    ):
        _sizes("Maxout", in_features=in_features, out_features=out_features, pieces=pieces)
        self.in_features, self.out_features, self.pieces = in_features, out_features, pieces
        self.weight = _empty(out_features * pieces, in_features, dtype=dtype)
        self.bias = _empty(out_features * pieces, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.maxout_he_(self.weight, self.pieces)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Any) -> Any:
        """Apply the pieces and take the largest of each unit."""
        if _last(x) != (self.in_features,):
            raise ValueError(
                f"Maxout(in_features={self.in_features}, out_features={self.out_features}, "
                f"pieces={self.pieces}) got an input of shape {np.shape(x)}; its last axis must be "
                f"{self.in_features}"
            )
        return REGISTRY["maxout"](F.linear(x, self.weight, self.bias), self.pieces)

    def extra_repr(self) -> str:
        """Give the sizes."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, pieces={self.pieces}, bias={self.bias is not None}"


class Conv(Module):
    """What convolutions share; `Conv1d` and `Conv2d` say over how many axes they go."""

    axes: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        dtype: Any = None,
    ):  # fmt: skip
        name = type(self).__name__
        kernel = kernel_size if isinstance(kernel_size, (tuple, list)) else (kernel_size,)
        kernel = tuple(kernel) if len(kernel) == self.axes else (*kernel,) * self.axes
        _sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        for size in kernel:
            _sizes(name, kernel_size=size)
        if len(kernel) != self.axes or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: {in_channels} and {out_channels} channels must divide into groups="
                f"{groups}, and kernel_size={kernel_size!r} be a number or {self.axes} of them"
            )
        try:
            geometry((2**31,) * self.axes, kernel, stride, padding, dilation)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        units = self._units()
        self.weight = _empty(units, in_channels // groups, *kernel, dtype=dtype)
        self.bias = _empty(units, dtype=dtype) if bias else None
        self.reset_parameters()

    def _units(self) -> int:
        """Count the channels that the convolution gives."""
        return self.out_channels

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        if self.bias is not None:
            bound = 1.0 / math.sqrt(init.fans(self.weight)[0])
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Any:
        """Convolve."""
        convolve = COMPOSITES[f"conv{self.axes}d"]
        return convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation,
                        self.groups)  # fmt: skip

    def extra_repr(self) -> str:
        """Give the sizes and the options that are not the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != usual else ""
        return text + ("" if self.bias is not None else ", bias=False")


class Conv1d(Conv):
    """A convolution along one axis: (N, in, L) becomes (N, out, L').

    Arguments, initial values and errors are those of `Conv2d`, with one number for the axis.
    """

    axes = 1


class Conv2d(Conv):
    r"""A convolution over images: (N, in, H, W) becomes (N, out, H', W') (see `mg.conv2d`).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels that it gets.
        kernel_size: Of the kernel; like `stride`, `padding` and `dilation` a number, or two.
        stride: Steps of the kernel.
        padding: Zeros around the input, `"same"` or `"valid"`.
        dilation: Steps within the kernel.
        groups: In so many groups the channels are convolved for themselves.
        bias: Whether there is a bias.
        dtype: Of the parameters; the default dtype if None.

    The weight, (out, in / groups, kh, kw), and the bias, (out,), are drawn from U(-k, k),
    k = 1 / sqrt(in / groups * kh * kw), as PyTorch's are.

    Raises:
        ValueError: If a size is not positive, the channels do not divide into groups or, when
            called, the input does not fit.

    Example:
        >>> import microgradnd as mg
        >>> layer = mg.nn.Conv2d(1, 8, 3, padding=1)
        >>> layer(mg.zeros((5, 1, 28, 28))).shape, layer
        ((5, 8, 28, 28), Conv2d(1, 8, kernel_size=(3, 3), padding=1))
    """

    axes = 2


class MaxoutConv2d(Conv2d):
    r"""A convolution whose channels are each the largest of `pieces` kernels' outputs.

    So at each place a unit is a convex function of the image around it, and only the kernel that
    won there is trained. The weight, (out * pieces, in / groups, kh, kw), is drawn by
    `init.maxout_he_`, the bias, (out * pieces,), is 0.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels that it gets.
        kernel_size: Of the kernels.
        pieces: Kernels in a unit.
        options: As of `Conv2d`.

    Source: Goodfellow et al., Maxout networks (ICML 2013).

    Example:
        >>> import microgradnd as mg
        >>> layer = mg.nn.MaxoutConv2d(1, 8, 3, pieces=2)
        >>> layer.weight.shape, layer(mg.zeros((5, 1, 28, 28))).shape
        ((16, 1, 3, 3), (5, 8, 26, 26))
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, pieces: int, **options: Any
    ):
        _sizes("MaxoutConv2d", pieces=pieces)
        self.pieces = pieces
        super().__init__(in_channels, out_channels, kernel_size, **options)

    def _units(self) -> int:
        return self.out_channels * self.pieces

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.maxout_he_(self.weight, self.pieces)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Any) -> Any:
        """Convolve and take the largest of each unit."""
        return REGISTRY["maxout"](super().forward(x), self.pieces, axis=-3)

    def extra_repr(self) -> str:
        """Give the sizes and the options that are not the defaults."""
        return f"{super().extra_repr()}, pieces={self.pieces}"


class PReLU(Module):
    r"""Parametric ReLU: :math:`x` if :math:`x > 0`, else :math:`a x`, with a learned slope a.

    Args:
        num_parameters: 1 slope for all, or one per channel (axis 1).
        init: The slope to begin with.
        dtype: Of the slope; the default dtype if None.

    Do not decay this weight: that would pull the unit towards ReLU.

    Source: He et al., Delving deep into rectifiers (ICCV 2015).
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: Any = None):
        _sizes("PReLU", num_parameters=num_parameters)
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), init, dtype or zeros(()).dtype))

    def forward(self, x: Any) -> Any:
        """Apply the activation."""
        slope: Tensor = self.weight
        channels = self.num_parameters
        if channels > 1:
            shape = np.shape(x)
            if len(shape) < 2 or shape[1] != channels:
                raise ValueError(f"PReLU({channels}): axis 1 of the input must be {channels}, got "
                                 f"an input of shape {shape}")  # fmt: skip
            if len(shape) > 2:
                slope = slope.reshape((channels,) + (1,) * (len(shape) - 2))
        return REGISTRY["prelu"](x, slope)

    def extra_repr(self) -> str:
        """Give the number of slopes."""
        return f"num_parameters={self.num_parameters}"


class Dropout(Module):
    r"""In training sets each element to 0 with probability p and divides the others by 1 - p.

    Args:
        p: The probability.

    The masks come from the default generator and are the same on every backend.

    Raises:
        ValueError: If p is outside [0, 1].
    """

    def __init__(self, p: float = 0.5):
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        self.p = p

    def forward(self, x: Any) -> Any:
        """Drop, in training."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Give the probability."""
        return f"p={self.p}"


class BatchNorm(Module):
    r"""Standardizes each channel over the batch, then scales and shifts.

    Args:
        num_features: C.
        eps: Added to the variance.
        momentum: How far the running statistics move towards the batch's; None for their mean.
        affine: Whether scale and shift are learned.
        track_running_stats: Whether evaluation uses running statistics, else the batch's.
        dtype: Of parameters and buffers; the default dtype if None.

    Source: Ioffe and Szegedy, Batch normalization (ICML 2015).

    Raises:
        ValueError: If the input does not fit, or has one value per channel in training.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, dtype: Any = None,
    ):  # fmt: skip
        _sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(ones(num_features, dtype)) if affine else None
        self.bias = _empty(num_features, dtype=dtype) if affine else None
        track = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, dtype) if track else None)
        self.register_buffer("running_var", ones(num_features, dtype) if track else None)
        self.register_buffer("num_batches_tracked", zeros((), "int64") if track else None)

    shapes: dict[int, str]  # by the number of axes, what comes after the channels
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def forward(self, x: Any) -> Any:
        """Standardize, and track in training."""
        x = asarray(x)
        if x.ndim not in self.shapes or x.shape[1] != self.num_features:
            n = self.num_features
            wanted = " or ".join(f"(N, {n}{rest})" for rest in self.shapes.values())
            raise ValueError(f"{type(self).__name__}({n}): {wanted} is wanted, got {x.shape}")
        momentum: Any = self.momentum
        if self.training and self.num_batches_tracked is not None and x.size > self.num_features:
            with no_grad():
                self.num_batches_tracked += 1
                if momentum is None:
                    momentum = (1.0 / self.num_batches_tracked).astype(x.dtype)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training, momentum, self.eps)  # fmt: skip

    def extra_repr(self) -> str:
        """Give the options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(BatchNorm):
    """Batch normalization of (N, C) or (N, C, L); see `BatchNorm`."""

    shapes = {2: "", 3: ", L"}  # noqa: RUF012 - never written to


class BatchNorm2d(BatchNorm):
    """Batch normalization of (N, C, H, W); see `BatchNorm`."""

    shapes = {4: ", H, W"}  # noqa: RUF012


class LayerNorm(Module):
    r"""Standardizes the last axes of each example, then scales and shifts.

    Args:
        normalized_shape: The sizes of the last axes, or of the last one.
        eps: Added to the variance.
        elementwise_affine: Whether scale and shift are learned.
        bias: Whether there is a shift.
        dtype: Of the parameters; the default dtype if None.

    Source: Ba et al., Layer normalization (2016).

    Raises:
        ValueError: If the last axes of the input have other sizes.
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5,
        elementwise_affine: bool = True, bias: bool = True, dtype: Any = None,
    ):  # fmt: skip
        shape = normalized_shape
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        for size in shape or (0,):
            _sizes("LayerNorm", normalized_shape=size)
        self.normalized_shape = shape
        self.eps, self.elementwise_affine = eps, elementwise_affine
        affine = elementwise_affine
        self.weight = Parameter(ones(self.normalized_shape, dtype)) if affine else None
        self.bias = _empty(*self.normalized_shape, dtype=dtype) if affine and bias else None

    def forward(self, x: Any) -> Any:
        """Standardize."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Give the options."""
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class Embedding(Module):
    """A table of vectors: ids (...) become (..., embedding_dim).

    Args:
        num_embeddings: The number of rows, n.
        embedding_dim: The length of a row.
        padding_idx: A row that begins as 0 and gets no gradient.
        dtype: Of the table; the default dtype if None.

    Rows are drawn from N(0, 1).

    Raises:
        IndexError: If an id is outside -n..n-1 (or `padding_idx` is); -1 is the last row.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        dtype: Any = None,
    ):  # fmt: skip
        _sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise IndexError(f"Embedding: padding_idx {padding_idx} for {num_embeddings} rows")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = _empty(num_embeddings, embedding_dim, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, ids: Any) -> Any:
        """Look the rows up."""
        return F.embedding(ids, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Give the sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Flatten(Module):
    """Makes one axis of several neighbours, by default of all but the first.

    Args:
        start_dim: The first of them.
        end_dim: The last of them.

    Raises:
        IndexError: If the input has no such axis.
        ValueError: If the first comes after the last.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        """Reshape."""
        return merged("Flatten", x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Give the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
