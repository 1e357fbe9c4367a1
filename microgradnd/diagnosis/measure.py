"""What kind of problem a network has to solve, how well it does, and what its data look like.

Accuracy and R2 = 1 - squared error / variance are both "higher is better", and both are compared
with the best constant output. Its loss is computed by the user's own loss function, so that every
loss can be judged beside it, whatever its unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite, nan, prod
from typing import Any

import numpy as np

from ..functions import asarray
from ..modes import Switch, no_grad
from ..nn.layers import Embedding
from ..nn.module import Module
from ..random import manual_seed
from ..registry import REGISTRY
from ..tape import Tensor, wrap
from .evidence import Inputs, Score, Task
from .observe import batches, untouched

#: A class id that means "no class" (`ignore_index` of the cross-entropy).
IGNORED = -100
#: Statistics of inputs are taken on at most so many numbers, of rows evenly spread.
SEEN = 2**22


@contextmanager
def sandbox(model: Any = None, seed: int = 0) -> Iterator[None]:
    """Compute without a trace: modes, buffers and generator stay, warnings of NumPy are silent.

    Inside, the default generator draws from a seed of our own, so the same is drawn every time.
    """
    with untouched(model), Switch(recording=True, watch=None), np.errstate(all="ignore"):
        manual_seed(seed)
        yield


# ------------------------------------------------------------------------------------------ data


def pair(data: Any, name: str, model: Any = None) -> tuple[tuple[Tensor, ...], Tensor]:
    """Give inputs and target of `(x, y)` or `(x1, x2, y)` as Tensors where the model lives.

    Raises:
        TypeError: If it is no tuple of arrays.
        ValueError: If they are not of one length, or empty.
    """
    if not isinstance(data, (tuple, list)) or len(data) < 2:
        got = f"{len(data)} of them" if isinstance(data, (tuple, list)) else type(data).__name__
        raise TypeError(
            f"{name} must be a tuple (inputs, target) of arrays, got {got}; of a DataLoader, give "
            "the arrays that its dataset was made of"
        )
    home = home_of(model)
    *inputs, target = [asarray(part).detach() for part in data]
    lengths = [part.shape[0] if part.ndim else None for part in (*inputs, target)]
    if len(set(lengths)) > 1 or lengths[0] in (None, 0):
        shapes = [part.shape for part in (*inputs, target)]
        raise ValueError(f"{name} must be arrays with one row per example, got shapes {shapes}")
    *inputs, target = [p if p.backend is home or home is None else p.to(home.name)
                       for p in (*inputs, target)]  # fmt: skip
    return tuple(inputs), target


def home_of(model: Any) -> Any:
    """Give the backend of a model's parameters; None for a function, or without any."""
    parameters = model.parameters() if isinstance(model, Module) else ()
    return next((p.backend for p in parameters), None)


def taken(tensors: tuple[Tensor, ...], rows: Any) -> tuple[Tensor, ...]:
    """Give rows (a host array of numbers) of each tensor."""
    return tuple(
        wrap(t.backend.xp.take(t._array, t.backend.asarray(rows), 0)) for t in tensors
    )  # fmt: skip


def spread(n: int, most: int) -> Any:
    """Give at most so many row numbers of n, evenly spread."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def host(tensor: Tensor) -> Any:
    """Fetch a tensor as a NumPy array."""
    return tensor.backend.to_numpy(tensor._array)


def describe(
    model: Any, inputs: tuple[Tensor, ...], target: Tensor, output: Any = None
) -> Inputs:
    """Give the statistics of inputs and targets (of several inputs: the first that is float)."""
    x = next((t for t in inputs if t.dtype.kind == "f"), inputs[0])
    features = prod(x.shape[1:])
    rows = spread(x.shape[0], max(SEEN // max(features, 1), 2))
    seen = host(taken((x,), rows)[0]).astype(np.float64).reshape(len(rows), features)
    t = host(target)
    t = (t[t != IGNORED] if t.dtype.kind == "i" else t).astype(np.float64)
    found = Inputs(
        dtype=x.dtype.name, features=features, nonfinite=_nonfinite(x),
        target_dtype=target.dtype.name, target_nonfinite=_nonfinite(target),
        outputs=prod(output.shape[1:]) if isinstance(output, Tensor) else 0,
        ids=x.dtype.kind in "iu" and takes_ids(model),
    )  # fmt: skip
    if np.isfinite(t).any():
        found.target_low, found.target_high = map(float, _ends(t))
    good = np.isfinite(seen)
    if not good.any():
        return found
    with np.errstate(all="ignore"):
        found.low, found.high = map(float, _ends(seen))
        found.mean, found.std = float(seen[good].mean()), float(seen[good].std())
        count = good.sum(axis=0)
        kept = np.where(good, seen, 0.0)
        mean = kept.sum(axis=0) / count
        std = np.sqrt((np.where(good, seen - mean, 0.0) ** 2).sum(axis=0) / count)
    # Rounding leaves a constant feature a deviation of some ulp of its mean.
    varies = std > 1e-6 * np.abs(mean)
    found.constant = float(1 - varies.mean()) if len(rows) > 1 else nan
    if varies.any() and len(rows) > 1:
        found.shift = float(np.max(np.abs(mean[varies]) / std[varies]))
        found.ratio = float(std[varies].max() / np.median(std[varies]))
    return found


def _ends(values: Any) -> tuple[Any, Any]:
    good = values[np.isfinite(values)]
    return good.min(), good.max()


def _nonfinite(tensor: Tensor) -> int:
    if tensor.dtype.kind != "f":
        return 0
    return int((~REGISTRY["isfinite"](tensor)).sum().item())


def takes_ids(model: Any) -> bool:
    """Say whether a model has an embedding."""
    return isinstance(model, Module) and any(isinstance(m, Embedding) for m in model.modules())


# --------------------------------------------------------------------------------------- problem


@dataclass
class Problem(Task):
    """What a network is to do.

    Attributes:
        task, metric, classes, chance, constant, uniform: As in `Evidence`.
        kind: What targets are: `"classes"` (ids), `"weights"` (one per class, one-hot), `"binary"`
            (0 and 1), `"signs"` (-1 and 1), `"numbers"`, or "".
        form: What the loss wants outputs to be: of the best constant one, the kind that it was
            (`"log"` probabilities, `"shares"`, `"top"` class, `"logit"`, `"mean"`, `"median"`).
        shape: Of one output.
    """

    kind: str = ""
    form: str = ""
    shape: tuple[int, ...] = field(default=())

    def right(self, output: Tensor, target: Tensor) -> Tensor:
        """Give which answers are right (booleans), or squared errors of numbers."""
        if self.kind in ("classes", "weights"):
            truth = target.argmax(1) if self.kind == "weights" else target
            return output.argmax(1) == truth
        if self.kind in ("binary", "signs"):
            cut = 0.0 if self.kind == "signs" or self.form == "logit" else 0.5
            return (output > cut) == (target > (0.5 if self.kind == "binary" else 0.0))
        return (output.astype("float64") - target.astype("float64")) ** 2

    def score(
        self, model: Any, loss_fn: Any, inputs: tuple[Tensor, ...], target: Tensor,
        batch: int = 256,
    ) -> Score:  # fmt: skip
        """Give loss and metric on a set, in eval mode; numbers are fetched once, at the end.

        Args:
            model: A clone, or a function: hooks of the user's model would count this, too.
            loss_fn: May be None; then there is no loss.
            inputs: One or several, (N, ...).
            target: (N, ...).
            batch: Rows at a time.
        """
        n, losses, rights, parts = len(target), [], [], batches(len(target), batch)
        with sandbox(model), no_grad():
            if isinstance(model, Module):
                model.eval()
            for rows in parts:
                output, wanted = model(*(x[rows] for x in inputs)), target[rows]
                if loss_fn is not None:
                    losses.append(loss_fn(output, wanted))
                if self.kind:
                    rights.append(self.right(output, wanted).astype("float64").mean())
            share = np.array([rows.stop - rows.start for rows in parts]) / n
            return Score(n, _mean(losses, share), self._metric(_mean(rights, share), target))

    def _metric(self, mean: float, target: Tensor) -> float:
        if self.kind == "classes" and target.dtype.kind == "i":  # ignored ones counted as wrong
            counts = (target != IGNORED).astype("float64").mean().item()
            return mean / counts if counts else nan
        if self.kind != "numbers":
            return mean
        t = target.astype("float64")
        variance = ((t - t.mean(axis=0)) ** 2).mean().item()
        if not variance:
            return 1.0 if mean == 0 else nan
        # What is no number is no unknown result, but a bad one.
        return 1.0 - mean / variance if isfinite(mean) else -inf


def _mean(values: list[Any], share: Any) -> float:
    if not values:
        return nan
    if not all(isinstance(v, Tensor) and v.shape == () for v in values):
        shapes = {getattr(v, "shape", type(v).__name__) for v in values}
        raise ValueError(f"loss_fn must give one number, the mean over the batch; got {shapes}")
    stacked = REGISTRY["stack"]([v.detach().astype("float64") for v in values])
    return float(np.dot(host(stacked), share))


def problem(loss_fn: Any, output: Any, target: Tensor) -> Problem:
    """Find out what kind of problem it is.

    Args:
        loss_fn: Of output and target; None leaves the constant output's loss unknown.
        output: What the model gives for some rows.
        target: All targets, (N, ...).
    """
    if not isinstance(output, Tensor) or not output.ndim:
        return Problem()
    shape = tuple(output.shape[1:])
    kind = _kind(shape, target)
    found = Problem(kind=kind, shape=shape)
    if not kind:
        return found
    found.task = "regression" if kind == "numbers" else "classification"
    found.metric = "r2" if kind == "numbers" else "accuracy"
    found.chance, found.classes, constants = _constants(kind, shape, host(target))
    if loss_fn is not None:
        found.constant, found.form = _least(loss_fn, constants, output, target)
        if found.task == "classification":
            even = np.full_like(constants[found.form], 0.0 if found.form in ("log", "logit")
                                else 1 / max(found.classes, 1))  # fmt: skip
            found.uniform, _ = _least(loss_fn, {found.form: even}, output, target)
    return found


def _kind(shape: tuple[int, ...], target: Tensor) -> str:
    wanted = target.shape[1:]
    if target.dtype.kind in "biu" and shape[:1] > (1,) and wanted == shape[1:]:
        return "classes"
    if wanted != shape:
        return ""
    values = host(target)
    sums = values.astype(np.float64).sum(axis=1) if shape else values
    if shape[:1] > (1,) and (values >= 0).all() and (np.abs(sums - 1.0) < 1e-3).all():
        return "weights"
    if target.dtype.kind == "b":
        return "binary"
    found = set(np.unique(values).tolist()) if values.size else set()
    return "binary" if found == {0, 1} else "signs" if found == {-1, 1} else "numbers"


def impossible(output: Any, target: Tensor) -> str:
    """Say why no loss can be computed for these targets; "" if it can."""
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[1] < 2:
        return ""
    if target.dtype.kind not in "iu" or target.shape[1:] != output.shape[2:] or not target.size:
        return ""
    values = host(target)
    values = values[values != IGNORED]
    if not values.size:
        return ""
    low, high, classes = int(values.min()), int(values.max()), output.shape[1]
    if low >= 0 and high < classes:
        return ""
    return f"targets of {low} to {high} do not fit {classes} classes (0 to {classes - 1})"


def _constants(
    kind: str, shape: tuple[int, ...], target: Any
) -> tuple[float, int, dict[str, Any]]:
    """Give chance, number of classes, and constant outputs of which one should be the best."""
    if kind in ("classes", "weights"):
        count, rest = shape[0], (1,) * (len(shape) - 1)
        ids = target if kind == "classes" else target.argmax(1)
        good = ids[(ids >= 0) & (ids < count)].astype(np.int64)
        seen = np.bincount(good.ravel(), minlength=count) / max(good.size, 1)
        mean = seen if kind == "classes" else np.moveaxis(target, 1, -1).reshape(-1, count).mean(0)
        log = np.log(np.maximum(mean, 1e-3 / max(target.size, 1)))
        top = np.eye(count)[seen.argmax()]
        forms = {"log": log, "shares": mean, "top": top}
        return float(seen.max()), count, {k: v.reshape(count, *rest) for k, v in forms.items()}
    t = target.astype(np.float64)
    mean = t.mean(axis=0)
    if kind == "numbers":
        return 0.0, 0, {"mean": mean, "median": np.median(t, axis=0)}
    p = mean if kind == "binary" else (mean + 1) / 2
    inside = np.clip(p, 1e-3 / len(t), 1 - 1e-3 / len(t))
    forms = {"logit": np.log(inside / (1 - inside)), "mean": mean, "top": np.sign(p - 0.5)}
    return float(np.maximum(p, 1 - p).mean()), 2, forms


def _least(
    loss_fn: Callable[[Any, Any], Any], constants: dict[str, Any], output: Tensor, target: Tensor
) -> tuple[float, str]:
    """Give the least loss of the constant outputs, and which one has it."""
    best, form = nan, next(iter(constants))
    backend = output.backend
    for name, value in constants.items():
        one = backend.asarray(np.asarray(value, output.dtype))

        def constant(rows: Tensor, one: Any = one) -> Tensor:
            return wrap(backend.xp.broadcast_to(one, (len(rows), *output.shape[1:])))

        loss = Problem().score(constant, loss_fn, (target,), target).loss
        if isfinite(loss) and not loss >= best:
            best, form = loss, name
    return best, form


def first_output(model: Any, inputs: tuple[Tensor, ...], rows: int = 256) -> Any:
    """Give a model's output for its first rows, in eval mode; its exception gets a note."""
    with sandbox(model), no_grad():
        if isinstance(model, Module):
            model.eval()
        few = tuple(x[:rows] for x in inputs)
        try:
            return model(*few)
        except Exception as error:
            shapes = ", ".join(f"{x.dtype.name} {x.shape}" for x in few)
            error.add_note(f"The model raised this when the diagnosis called it with {shapes}.")
            raise
