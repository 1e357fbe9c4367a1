"""What is timed: a row for each thing, a job for each column of its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import microgradnd as mg

from . import steps
from .breakeven import CURVES

Call = Callable[[], Any]
CPU, GPU = "numpy", "cupy"
UPLOADED, PAGE_LOCKED = "cupy, uploaded", "cupy, page-locked"
STEP, MAXOUT, ACTIVATION = "training step", "Maxout network", "activation"
PRODUCT, TRANSFER, COLD, CURVE = "matrix product", "transfer", "first steps", "break-even"
#: The kinds of rows, in the order of a run: what matters most comes first, should time be short.
KINDS = (STEP, MAXOUT, PRODUCT, TRANSFER, COLD, CURVE, ACTIVATION)

SHAPES = {"1e3": (10, 100), "1e5": (1000, 100), "1e6": (1000, 1000), "1e7": (10000, 1000)}
PRODUCTS = (64, 256, 1024, 4096)
SIZES = {"4 kB": 4_000, "1 MB": 1_000_000, "64 MB": 64_000_000}
#: Of `--quick`: this many of the sizes above, from the smallest on.
QUICK = {STEP: 3, ACTIVATION: 2, PRODUCT: 3, TRANSFER: 3}


class Job(NamedTuple):
    """One cell of the table.

    Attributes:
        make: Gives what is timed, on a backend.
        guard: In which it is timed: by default nothing may move between host and device.
    """

    make: Callable[[Any], Call]
    guard: Callable[[], AbstractContextManager[Any]] = mg.backend.forbid_transfers


@dataclass(frozen=True)
class Row:
    """One thing that is timed.

    Attributes:
        kind: One of `KINDS`.
        name: What is timed, unique within its kind.
        jobs: By column, which begins with the backend's name.
        torch: Gives the same step in PyTorch on a device ("cpu", "cuda") and so many threads.
        loss: Whether the call gives a loss, on which all columns must agree.
        about: Further numbers that belong to the row, such as its multiply-adds.
    """

    kind: str
    name: str
    jobs: Mapping[str, Job]
    torch: Callable[[str, int], Call] | None = None
    loss: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


def first(kind: str, things: Any, quick: bool) -> list[Any]:
    """Give the sizes of a kind of row, or the smaller ones."""
    return list(things)[: QUICK[kind] if quick else None]


def rows(kind: str, quick: bool) -> Iterator[Row]:
    """Give the rows of one kind; those of `first steps` are timed in processes of their own."""
    makers = {
        STEP: training, MAXOUT: maxout, PRODUCT: products, TRANSFER: transfers, CURVE: curves,
        ACTIVATION: activations,
    }  # fmt: skip
    return makers[kind](quick)


def step_row(kind: str, name: str, layers: tuple[int, ...], batch: int, pieces: int = 1) -> Row:
    """Give the row of a training step, with the batch on the device and uploaded at each step."""
    step = partial(steps.microgradnd_step, layers, batch, pieces=pieces)
    uploads = partial(mg.backend.forbid_transfers, uploads=True)
    jobs = {
        CPU: Job(step),
        GPU: Job(step),
        UPLOADED: Job(partial(step, feed="uploaded"), uploads),
        PAGE_LOCKED: Job(partial(step, feed="page-locked"), uploads),
    }

    def torch(device: str, threads: int) -> Call:
        return steps.torch_step(layers, batch, pieces=pieces, device=device, threads=threads)

    wide = (layers[0], *(n * pieces for n in layers[1:-1]), layers[-1])
    return Row(kind, name, jobs, torch, loss=True, about={"work": steps.work(wide, batch)})


def training(quick: bool) -> Iterator[Row]:
    """Give the rows of the training steps."""
    for name, size in first(STEP, steps.SIZES.items(), quick):
        yield step_row(STEP, name, *size)


def maxout(quick: bool) -> Iterator[Row]:
    """Give the row of the Maxout network's training step."""
    for name, size in steps.MAXOUT.items():
        yield step_row(MAXOUT, name, *size)


def curves(quick: bool) -> Iterator[Row]:
    """Give the rows of the break-even curves, whose step grows in its batch or its width."""
    for name, curve in CURVES.items():
        for value in curve.quick if quick else curve.values:
            layers, batch = curve.size(value)
            step = partial(steps.microgradnd_step, layers, batch)
            about = {"curve": name, "value": value, "work": steps.work(layers, batch)}
            jobs = {CPU: Job(step), GPU: Job(step)}
            yield Row(CURVE, f"{name} {value}", jobs, loss=True, about=about)


def activations(quick: bool) -> Iterator[Row]:
    """Give the rows of the activations, all that the registry and the composites hold."""
    found: dict[str, Any] = {**mg.REGISTRY, **mg.COMPOSITES}
    names = [n for n in sorted(found) if found[n].__module__ == "microgradnd.ops.activations"]
    for label, shape in first(ACTIVATION, SHAPES.items(), quick):
        for name in names:
            job = Job(partial(both_passes, found[name], shape))
            about = {"operation": name, "elements": shape[0] * shape[1]}
            yield Row(ACTIVATION, f"{name}, {label}", {CPU: job, GPU: job}, about=about)


def both_passes(op: Any, shape: tuple[int, ...], backend: Any) -> Call:
    """Give an activation's forward and backward pass on float32 numbers of some shape."""
    data = getattr(op, "data", {})
    further = len(getattr(op, "operands", "x")) - 1  # slopes, one per column
    _, attributes = data.get("cases", (((), {}),))[0]
    attributes = data.get("defaults_for_tests", attributes)
    rng = np.random.default_rng(0)
    with mg.backend.use(backend):
        x = mg.tensor(rng.standard_normal(shape, dtype=np.float32), requires_grad=True)
        rest = [mg.full(shape[-1:], 0.2, requires_grad=True) for _ in range(further)]
        y = op(x, *rest, **attributes) if getattr(op, "front", None) is None else op(x)
        g = mg.ones_like(y)

    def run() -> None:
        y = op(x, *rest, **attributes) if getattr(op, "front", None) is None else op(x)
        y.backward(g)
        for leaf in (x, *rest):
            leaf.grad = None

    return run


def products(quick: bool) -> Iterator[Row]:
    """Give the rows of the products of square matrices."""
    for dtype in ("float32", "float64"):
        for n in first(PRODUCT, PRODUCTS, quick):
            job = Job(partial(product, n, dtype))
            about = {"flop": 2 * n**3, "n": n, "dtype": dtype}
            yield Row(
                PRODUCT, f"{n} x {n}, {dtype}", {CPU: job, GPU: job},
                partial(torch_product, n, dtype), about=about,
            )  # fmt: skip


def square(n: int, dtype: str) -> np.ndarray:
    """Give a square matrix of numbers that keep a product's variance."""
    return (np.random.default_rng(0).standard_normal((n, n)) / n**0.5).astype(dtype)


def product(n: int, dtype: str, backend: Any) -> Call:
    """Give the product of a matrix with itself."""
    with mg.backend.use(backend):
        x = mg.tensor(square(n, dtype))
    return lambda: x @ x


def torch_product(n: int, dtype: str, device: str, threads: int) -> Call:
    """Give the same with PyTorch."""
    import torch

    torch.set_num_threads(threads)
    x = torch.from_numpy(square(n, dtype)).to(device)
    return lambda: x @ x


def transfers(quick: bool) -> Iterator[Row]:
    """Give the rows of the copies between host and device; on the CPU, one within its memory."""
    uploads = partial(mg.backend.forbid_transfers, uploads=True)
    for label, size in first(TRANSFER, SIZES.items(), quick):
        about = {"bytes": size}
        copy = Job(partial(host_copy, size))
        yield Row(TRANSFER, f"within the host, {label}", {CPU: copy}, about=about)
        for locked in (False, True):
            memory = "page-locked" if locked else "ordinary"
            up = Job(partial(upload, size, locked), uploads)
            yield Row(TRANSFER, f"to the device, {label}, {memory}", {GPU: up}, about=about)
            down = Job(partial(download, size, locked), nullcontext)
            yield Row(TRANSFER, f"to the host, {label}, {memory}", {GPU: down}, about=about)


def host_data(size: int) -> np.ndarray:
    """Give float32 numbers of so many bytes."""
    return np.random.default_rng(0).standard_normal(size // 4, dtype=np.float32)


def host_copy(size: int, backend: Any) -> Call:
    """Give a copy from one place of the host's memory to another."""
    source = host_data(size)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def upload(size: int, locked: bool, backend: Any) -> Call:
    """Give the upload of host data into a new array.

    What is not page-locked CuPy first copies into a page-locked buffer of its own.
    """
    source = host_data(size)
    if locked:
        source = backend.stage(source)
    return lambda: backend.asarray(source)


def download(size: int, locked: bool, backend: Any) -> Call:
    """Give the copy of an array to the host, into memory that is used again; it waits."""
    target = host_data(size)
    array = backend.asarray(target)
    if locked:
        target = backend.stage(target)
    return lambda: array.get(out=target)
