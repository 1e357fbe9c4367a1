"""Windows over arrays (N, C, *space), and convolutions as products of matrices.

Space has any number of axes. Whatever an array's axes are called, these functions leave it in
memory as (C, *space, N): examples lie side by side, so columns are copied in long runs, sums over
windows are whole vectors, and a layer finds what the one before it left. Columns are made a block
at a time, so that a block is still in the cache when it is multiplied; a GPU makes them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

Pairs = tuple[tuple[int, int], ...]


def inside(x: Any) -> Any:
    """(N, C, *space) seen as (C, *space, N)."""
    return x.transpose((*range(1, x.ndim), 0))


def outside(x: Any) -> Any:
    """(C, *space, N) seen as (N, C, *space)."""
    return x.transpose((x.ndim - 1, *range(x.ndim - 1)))


def place(space: Any, padding: Pairs) -> tuple[slice, ...]:
    """Give where an array of this space lies in its padded one."""
    return (slice(None), *(slice(low, low + n) for n, (low, _) in zip(space, padding, strict=True)))


def padded(space: Any, padding: Pairs) -> tuple[int, ...]:
    """Give the sizes of a space with its padding."""
    return tuple(low + n + high for n, (low, high) in zip(space, padding, strict=True))


def add_windows(out: Any, columns: Any, stride: Any, dilation: Any, first: int = 0) -> None:
    """Add windows (C, *kernel, *space, N) where they were taken from, those of one row first."""
    n = len(stride)
    shape = columns.shape
    for offset in product(*map(range, shape[1 : n + 1])):
        starts = [o * d for o, d in zip(offset, dilation, strict=True)]
        starts[0] += first * stride[0]
        where = tuple(
            slice(a, a + s * (m - 1) + 1, s)
            for a, s, m in zip(starts, stride, shape[n + 1 :], strict=False)
        )
        part = out[(slice(None), *where)]
        part += columns[(slice(None), *offset)]


def flat(x: Any) -> Any:
    """All axes but the first two as one."""
    return x.reshape((*x.shape[:2], math.prod(x.shape[2:])))


def build(module: Any, block: int | None) -> dict[str, Callable[..., Any]]:
    """Make the functions of a NumPy-like module; `block` is how many bytes of columns suit it."""
    as_strided = module.lib.stride_tricks.as_strided

    def pad(x: Any, padding: Pairs, fill: float) -> Any:
        shape = (x.shape[0], *padded(x.shape[1:-1], padding), x.shape[-1])
        out = module.full(shape, fill, dtype=x.dtype)
        out[place(x.shape[1:-1], padding)] = x
        return out

    def windows(x: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
        """A view (C, *kernel, *space, N) of (C, *space, N)."""
        n, steps = len(kernel), x.strides[1:-1]
        space = tuple(
            (size - d * (k - 1) - 1) // s + 1
            for size, k, s, d in zip(x.shape[1:], kernel, stride, dilation, strict=False)
        )
        return as_strided(
            x,
            (x.shape[0], *kernel, *space, x.shape[-1]),
            (x.strides[0], *(a * d for a, d in zip(steps, dilation, strict=True)),
             *(a * s for a, s in zip(steps, stride, strict=True)), x.strides[n + 1]),
        )  # fmt: skip

    def blocks(shape: Any, itemsize: int) -> list[slice]:
        """Cut the first axis of space, of windows of this shape."""
        n = shape[len(shape) // 2]
        row = itemsize * math.prod(shape) // max(n, 1)
        step = n if block is None else max(block // max(row, 1), 1)
        return [slice(i, min(i + step, n)) for i in range(0, n, max(step, 1))]

    def every(x: Any, kernel: Any, how: Any) -> Any:
        """The windows of a padded copy that lies as it should."""
        stride, padding, dilation, _ = how
        x = inside(x)
        bare = not any(map(any, padding))
        x = module.ascontiguousarray(x) if bare else pad(x, padding, 0.0)
        return windows(x, kernel, stride, dilation)

    def columns(view: Any, at: slice, groups: int) -> Any:
        n = view.ndim // 2
        part = view[(slice(None),) * n + (at,)]
        rows = math.prod(view.shape[:n]) // groups
        return part.reshape((groups, rows, math.prod(part.shape[n:])))

    def grouped(x: Any, groups: int) -> Any:
        """(N, C, *space) as (groups, C / groups, *space, N)."""
        x = module.ascontiguousarray(inside(x))
        return x.reshape((groups, x.shape[0] // groups, *x.shape[1:]))

    def conv(x: Any, weight: Any, bias: Any, how: Any) -> Any:
        view = every(x, weight.shape[2:], how)
        n, groups, units = view.ndim // 2, how[-1], weight.shape[0]
        rows = flat(weight.reshape((groups, units // groups, *weight.shape[1:])))
        dtype = module.result_type(*(a for a in (x, weight, bias) if a is not None))
        out = module.empty((groups, units // groups, *view.shape[n:]), dtype=dtype)
        for at in blocks(view.shape, view.dtype.itemsize):
            module.matmul(rows, columns(view, at, groups), out=flat(out[:, :, at]))
        out = out.reshape((units, *out.shape[2:]))
        if bias is not None:
            out += bias.reshape((units,) + (1,) * n)
        return outside(out)

    def conv_input(g: Any, weight: Any, space: Any, how: Any) -> Any:
        stride, padding, dilation, groups = how
        channels, kernel = weight.shape[1] * groups, weight.shape[2:]
        around = tuple(
            (d * (k - 1) - low, d * (k - 1) - high)
            for k, d, (low, high) in zip(kernel, dilation, padding, strict=True)
        )
        # Copying windows takes half the time of adding them, if there are not many more of them.
        if set(stride) == {1} and weight.shape[0] <= 2 * channels and min(map(min, around)) >= 0:
            turned = weight[(slice(None),) * 2 + (slice(None, None, -1),) * len(kernel)]
            turned = turned.reshape((groups, weight.shape[0] // groups, *weight.shape[1:]))
            turned = turned.swapaxes(1, 2).reshape((channels, -1, *kernel))
            return conv(g, turned, None, (stride, around, dilation, groups))
        g = grouped(g, groups)
        rows = flat(weight.reshape((*g.shape[:2], *weight.shape[1:]))).swapaxes(1, 2)
        dtype = module.result_type(g, weight)
        out = module.zeros((channels, *padded(space, padding), g.shape[-1]), dtype=dtype)
        shape = (channels, *kernel, *g.shape[2:])
        for at in blocks(shape, out.dtype.itemsize):
            part = g[:, :, at]
            some = module.matmul(rows, flat(part)).reshape((channels, *kernel, *part.shape[2:]))
            add_windows(out, some, stride, dilation, at.start)
        return outside(out[place(space, padding)])

    def conv_weight(g: Any, x: Any, kernel: Any, how: Any) -> Any:
        view, groups = every(x, kernel, how), how[-1]
        g = grouped(g, groups)
        size = view.shape[0] // groups * math.prod(kernel)
        out = module.zeros((*g.shape[:2], size), dtype=module.result_type(g, x))
        for at in blocks(view.shape, view.dtype.itemsize):
            out += module.matmul(flat(g[:, :, at]), columns(view, at, groups).swapaxes(1, 2))
        return out.reshape((g.shape[0] * g.shape[1], view.shape[0] // groups, *kernel))

    def unfold(x: Any, kernel: Any, how: Any, fill: float) -> Any:
        stride, padding, dilation = how
        x = inside(x)
        x = pad(x, padding, fill) if any(map(any, padding)) else x
        view = windows(x, kernel, stride, dilation)
        n = len(kernel) + 1
        return view.transpose((2 * n - 1, 0, *range(n, 2 * n - 1), *range(1, n)))

    def fold(columns: Any, space: Any, how: Any) -> Any:
        n, (stride, padding, dilation) = len(space), how
        columns = columns.transpose((1, *range(n + 2, 2 * n + 2), *range(2, n + 2), 0))
        shape = (columns.shape[0], *padded(space, padding), columns.shape[-1])
        out = module.zeros(shape, dtype=columns.dtype)
        add_windows(out, columns, stride, dilation)
        return outside(out[place(space, padding)])

    return {
        "conv": conv,
        "conv_input": conv_input,
        "conv_weight": conv_weight,
        "unfold": unfold,
        "fold": fold,
    }
