"""The training loop: `fit`, what it calls back, the `History` it gives, and `evaluate`.

A step never waits for the device: losses and metrics are summed where they are computed, and are
fetched once per epoch. Ctrl-C waits for the end of the step, so no parameter is left half-way.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite, nan
from operator import index
from threading import current_thread, main_thread
from typing import Any

from .extras import Drawable, need
from .modes import enable_grad, no_grad
from .random import default_generator
from .registry import REGISTRY
from .tape import Tensor

__all__ = [
    "METRICS", "Callback", "Checkpoint", "EarlyStopping", "History", "Loop", "Schedule",
    "accuracy", "evaluate", "fit",
]  # fmt: skip

Metric = Callable[[Any, Any], Any]

# ------------------------------------------------------------------------------------- measuring


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Give the share of right answers, a 0-d Tensor.

    Args:
        output: Scores (N, C, ...) of C > 1 classes; or logits of one yes-or-no question, (N,) or
            (N, 1), where a number above 0 says yes.
        target: Class ids (N, ...) or one weight per class (N, C, ...); or 0 and 1, as `output`.

    Raises:
        ValueError: If the shapes do not go together.

    Example:
        >>> import microgradnd as mg
        >>> mg.train.accuracy(mg.tensor([[1.0, 2.0], [3.0, 0.0]]), mg.tensor([1, 1])).item()
        0.5
    """
    if output.ndim > 1 and output.shape[1] > 1:
        guess = output.argmax(1)
        truth = target.argmax(1) if target.shape == output.shape else target
    else:
        guess, truth = output > 0, target > 0.5
    if guess.shape != truth.shape:  # they would broadcast, to a wrong number
        raise ValueError(f"accuracy: outputs {output.shape} do not fit targets {target.shape}")
    return (guess == truth).astype("float64").mean()


#: The metrics that have a name.
METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "mae": lambda output, target: REGISTRY["l1"](output, target),
    "mse": lambda output, target: REGISTRY["mse"](output, target),
}


class _Means:
    """_Means weighted by batch size, of numbers that stay on the device until they are fetched."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.count = 0

    def add(self, metrics: dict[str, Metric], loss: Any, output: Any, target: Any) -> None:
        n = len(target)
        values = {name: metric(output, target) for name, metric in metrics.items()}
        for name, value in [("loss", loss), *values.items()]:
            if getattr(value, "shape", ()) != ():
                raise ValueError(
                    f"{name} must be one number, the mean over the batch; got shape {value.shape}"
                )
            wide = value.astype("float64") if isinstance(value, Tensor) else value
            self.sums[name] = wide * n + self.sums.get(name, 0.0)
        self.count += n

    def fetch(self) -> dict[str, float]:
        """Give the sums as Python numbers: one transfer for all that are on a device."""
        tensors = [s for s in self.sums.values() if isinstance(s, Tensor)]
        host = iter(REGISTRY["stack"](tensors).tolist() if tensors else ())
        return {n: next(host) if isinstance(s, Tensor) else s for n, s in self.sums.items()}

    def means(self) -> dict[str, float]:
        if not self.count:
            raise ValueError("the loader gave no batch; at least one is wanted")
        return {name: total / self.count for name, total in self.fetch().items()}


@contextmanager
def _modes_kept(model: Any) -> Iterator[None]:
    """Put every module's `training` flag back at the end, each as it was."""
    before = [(m, m.training) for m in model.modules()] if hasattr(model, "modules") else []
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def evaluate(
    model: Callable[..., Any], loss_fn: Callable[[Any, Any], Any], data: Any, metrics: Any = None,
    *, batch_size: int = 256,
) -> dict[str, float]:  # fmt: skip
    """Give the mean loss and metrics of a model in eval mode; its modes are left as they were.

    Args:
        model: A Module, or any callable.
        loss_fn: Gives the mean over the batch, of output and target.
        data: A DataLoader (or another iterable of batches), or a tuple `(x, y)`.
        metrics: As for `fit`.
        batch_size: For a tuple.

    Returns:
        `{"loss": ..., metric: ...}`, Python numbers.
    """
    loader = _as_loader(data, "data", batch_size, shuffle=False)
    return _evaluate(model, loss_fn, loader, _as_metrics(metrics), lambda: None)


def _evaluate(
    model: Any, loss_fn: Any, loader: Any, metrics: dict[str, Metric], check: Callable[[], None]
) -> dict[str, float]:
    means = _Means()
    with _modes_kept(model), no_grad():
        if hasattr(model, "eval"):
            model.eval()
        for *inputs, target in loader:
            output = model(*inputs)
            means.add(metrics, loss_fn(output, target), output, target)
            check()
        return means.means()


# --------------------------------------------------------------------------------------- history


class History(Drawable):
    """What `fit` gives: one row per epoch, and its columns by name; `plot` draws them.

    Args:
        rows: Dicts; their keys are the columns.

    Example:
        >>> from microgradnd.train import History
        >>> History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])["loss"]
        [0.5, 0.25]
    """

    def __init__(self, rows: Iterable[Mapping[str, float]] = ()):
        self.rows = [dict(row) for row in rows]

    @property
    def columns(self) -> list[str]:
        """The names of what was noted."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise KeyError(f"the history has no column {name!r}; it has {self.columns}")
        return [row.get(name) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return "History of no epoch"
        cells = [self.columns] + [
            [f"{row[c]:.5g}" if c in row else "" for c in self.columns] for row in self.rows
        ]
        width = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.rjust, row, width)) for row in cells]
        if len(lines) > 13:
            lines[7:-6] = ["...".rjust(width[0])]
        return "\n".join(lines)

    @property
    def _curves(self) -> list[str]:
        return [n for n in self.columns if n not in ("epoch", "lr") and n[:4] != "val_"]

    def _canvas(self) -> dict[str, Any]:
        count = max(len(self._curves), 1)
        return {"ncols": count, "figsize": (4.5 * count, 3.4), "squeeze": False}

    def _draw(self, grid: Any) -> None:
        """Draw loss and metrics over the epochs, for training and validation."""
        for axes, name in zip(grid[0], self._curves, strict=False):
            for column, label in ((name, "training"), (f"val_{name}", "validation")):
                if column in self.columns:
                    axes.plot(self["epoch"], self[column], marker=".", label=label)
            axes.set(xlabel="epoch", ylabel=name)
            axes.legend()

    def state_dict(self) -> dict[str, Any]:
        """Give the rows, ready for JSON."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the rows over."""
        self.rows = [dict(row) for row in state["rows"]]


# ------------------------------------------------------------------------------------- callbacks


class Callback:
    """What `fit` calls; every method does nothing unless it is overridden, and gets the `Loop`.

    A callback with `state_dict` and `load_state_dict` is part of every checkpoint, under its
    `name` (default: that of its class, in lower case). With `last = True` it is called after the
    others.
    """

    def on_train_begin(self, loop: Loop) -> None:
        """Before the first epoch (after a checkpoint was loaded)."""

    def on_epoch_begin(self, loop: Loop) -> None:
        """Before an epoch, or what is left of it."""

    def on_step_begin(self, loop: Loop) -> None:
        """Before the forward pass; `loop.batch` is there."""

    def on_backward_end(self, loop: Loop) -> None:
        """When the gradients are complete, before they are clipped and used."""

    def on_step_end(self, loop: Loop) -> None:
        """After the optimizer's step."""

    def on_epoch_end(self, loop: Loop) -> None:
        """When `loop.logs` has the epoch's numbers."""

    def on_train_end(self, loop: Loop) -> None:
        """At the end, whatever it was: `loop.error` is the exception, or None."""


class _Best:
    """The best value seen of a monitored number; one that is not finite is never best."""

    def __init__(self, who: str, monitor: str, mode: str | None, min_delta: float = 0.0):
        if mode is None:
            low, high = ("loss", "error", "mae", "mse"), ("acc", "f1", "auc", "score", "r2")
            mode = next((m for m, words in (("min", low), ("max", high))
                         if any(word in monitor.lower() for word in words)), None)  # fmt: skip
        if mode not in ("min", "max"):
            raise ValueError(f"{who}: is less or more of {monitor!r} better? Give mode='min'|'max'")
        self.who, self.monitor, self.mode, self.min_delta = who, monitor, mode, min_delta
        self.value: float | None = None

    def improved(self, loop: Loop) -> bool:
        value = loop.monitored(self.who, self.monitor)
        gain = 0.0 if self.value is None else value - self.value
        gain = gain if self.mode == "max" else -gain
        if not isfinite(value) or (self.value is not None and gain <= self.min_delta):
            return False
        self.value = value
        return True


class EarlyStopping(Callback):
    """Stop when a monitored number has not become better for `patience` epochs.

    Args:
        monitor: A column of the history.
        patience: Epochs without gain that are borne.
        min_delta: What counts as a gain must be larger.
        mode: `"min"` or `"max"`; without it, told by the name (a loss shall fall).
        restore_best: Give the model the state of its best epoch at the end of training (not when
            an exception, Ctrl-C for one, ended it).
    """

    name = "early_stopping"

    def __init__(
        self, monitor: str = "val_loss", patience: int = 10, min_delta: float = 0.0,
        mode: str | None = None, restore_best: bool = True,
    ):  # fmt: skip
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        self.best = _Best("EarlyStopping", monitor, mode, min_delta)
        self.patience, self.restore_best = patience, restore_best
        self.wait = self.best_epoch = 0
        self.best_state: dict[str, Tensor] = {}

    def on_train_begin(self, loop: Loop) -> None:
        """Begin to count anew, unless a checkpoint was loaded."""
        loop.monitored("EarlyStopping", self.best.monitor)
        if not loop.resumed:
            self.load_state_dict({"best": None, "wait": 0, "best_epoch": 0, "best_state": {}})
        elif self.wait >= self.patience:  # the run had been stopped
            loop.stop()

    def on_epoch_end(self, loop: Loop) -> None:
        """Compare the epoch with the best."""
        self.wait += 1
        if self.best.improved(loop):
            self.wait, self.best_epoch = 0, loop.epoch
            if self.restore_best:
                self.best_state = {k: t.detach().clone() for k, t in loop.tensors().items()}
        if self.wait >= self.patience:
            loop.stop()

    def on_train_end(self, loop: Loop) -> None:
        """Give the model its best state."""
        if self.best_state and loop.error is None:
            with no_grad():
                for name, tensor in loop.tensors().items():
                    tensor.assign_(self.best_state[name].to(tensor.backend))

    def state_dict(self) -> dict[str, Any]:
        """Give the count, the best value and the best state."""
        return {
            "best": self.best.value, "wait": self.wait, "best_epoch": self.best_epoch,
            "best_state": dict(self.best_state),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved count."""
        self.best.value, self.wait = state["best"], state["wait"]
        self.best_epoch, self.best_state = state["best_epoch"], dict(state["best_state"])


class Schedule(Callback):
    """Step a learning-rate scheduler after every epoch, or after every step of the optimizer.

    Args:
        scheduler: Of `mg.optim.lr_scheduler`.
        per: `"epoch"` or `"step"`.
        monitor: The column that ReduceLROnPlateau watches.
    """

    name = "scheduler"

    def __init__(self, scheduler: Any, per: str = "epoch", monitor: str = "val_loss"):
        from .optim.lr_scheduler import ReduceLROnPlateau

        self.plateau = isinstance(scheduler, ReduceLROnPlateau)
        if per not in ("epoch", "step") or (self.plateau and per == "step"):
            known = "'epoch'" if self.plateau else "'epoch' or 'step'"
            raise ValueError(f"Schedule: per must be {known} here, got {per!r}")
        self.scheduler, self.per, self.monitor = scheduler, per, monitor
        self.state_dict, self.load_state_dict = scheduler.state_dict, scheduler.load_state_dict

    def on_train_begin(self, loop: Loop) -> None:
        """Make sure that there will be something to watch."""
        if self.plateau:
            loop.monitored("Schedule", self.monitor)

    def on_step_end(self, loop: Loop) -> None:
        """Step, if that is wanted per step."""
        if self.per == "step":
            self.scheduler.step()

    def on_epoch_end(self, loop: Loop) -> None:
        """Step, if that is wanted per epoch."""
        if self.per == "epoch":
            self.scheduler.step(*([loop.logs[self.monitor]] if self.plateau else []))


class Checkpoint(Callback):
    """Write one file from which `fit(..., resume=path)` continues bit for bit, also mid-epoch.

    It holds `model`, `optimizer`, `loader`, `generator` (the default one), `training` (epoch, step,
    history) and every callback that has a state (`scheduler`, `early_stopping`); `mg.load(path,
    model=model)` takes the weights alone. Of a model that is a function it holds the optimizer's
    parameters, `parameter_0` and so on. It is written after all other callbacks were called.

    Args:
        path: The file, replaced each time.
        every: Epochs between two (default 1, unless `every_steps` is given).
        every_steps: Steps of the optimizer between two.
        monitor: Write only when this column of the history is the best so far (with `every`, of
            the epochs at which it would be written).
        mode: As for `EarlyStopping`.
        **extra: Further objects that have a state, a generator of your own for example.
    """

    name, last = "checkpoint", True

    def __init__(
        self, path: Any, every: int | None = None, every_steps: int | None = None,
        monitor: str | None = None, mode: str | None = None, **extra: Any,
    ):  # fmt: skip
        if monitor is not None and every_steps is not None:
            raise ValueError("Checkpoint: monitor is known per epoch only; leave out every_steps")
        if min(every or 1, every_steps or 1) < 1 or 0 in (every, every_steps):
            raise ValueError("Checkpoint: every and every_steps must be at least 1")
        self.path, self.every_steps, self.extra = path, every_steps, extra
        self.every = every or (1 if every_steps is None else None)
        self.best = None if monitor is None else _Best("Checkpoint", monitor, mode)

    def on_train_begin(self, loop: Loop) -> None:
        """Make sure that everything can be named in the file."""
        loop.objects()
        if self.best is not None:
            loop.monitored("Checkpoint", self.best.monitor)
            self.best.value = self.best.value if loop.resumed else None

    def on_step_end(self, loop: Loop) -> None:
        """Write, if it is time."""
        if self.every_steps and loop.step % self.every_steps == 0:
            self.save(loop)

    def on_epoch_end(self, loop: Loop) -> None:
        """Write, if it is time and good enough."""
        due = self.every and loop.epoch % self.every == 0
        if due and (self.best is None or self.best.improved(loop)):
            self.save(loop)

    def save(self, loop: Loop) -> None:
        """Write the file now."""
        from .io import save

        save(self.path, **loop.objects())

    def state_dict(self) -> dict[str, Any]:
        """Give the best value."""
        return {"best": self.best and self.best.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a saved best value."""
        if self.best is not None:
            self.best.value = state["best"]


class _Progress(Callback):
    """A bar of tqdm, if that is installed, or else a line per epoch on the standard error."""

    def on_train_begin(self, loop: Loop) -> None:
        try:
            tqdm = need("tqdm", "examples", "the progress bar").tqdm
        except ImportError:
            self.bar = None
            return
        total = None if loop.size is None else -(-loop.size // loop.accumulate) * loop.epochs
        self.bar = tqdm(total=total, initial=loop.step, unit="step")

    def on_step_end(self, loop: Loop) -> None:
        if self.bar is not None:
            self.bar.update()  # no number of the step: it would have to be waited for

    def on_epoch_end(self, loop: Loop) -> None:
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in loop.logs.items() if k != "epoch")
        if self.bar is None:
            print(f"epoch {loop.epoch}/{loop.epochs}: {numbers}", file=sys.stderr, flush=True)
        else:
            self.bar.set_description(f"epoch {loop.epoch}/{loop.epochs}", refresh=False)
            self.bar.set_postfix_str(numbers)

    def on_train_end(self, loop: Loop) -> None:
        if self.bar is not None:
            self.bar.close()


class _Interrupts:
    """Holds SIGINT back until `check`; a second one before that acts at once.

    Where the signal is not handled in Python, or outside the main thread, nothing is changed.
    """

    def __enter__(self) -> _Interrupts:
        self.pending = False
        self.previous: Any = None
        if current_thread() is main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self.previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: Any) -> None:
        self.pending = not self.pending
        if not self.pending:
            self.previous(number, frame)

    def check(self) -> None:
        """Do what the signal would have done; KeyboardInterrupt, as a rule."""
        if self.pending:
            self.pending = False
            self.previous(signal.SIGINT, None)

    def __exit__(self, *exc: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.check()


# ------------------------------------------------------------------------------------------ loop


@dataclass(eq=False, repr=False)
class Loop:
    """A training run under way, as callbacks see it.

    Attributes:
        model, loss_fn, optimizer, loader, validation, metrics, callbacks, epochs: As given to
            `fit` (data as loaders).
        epoch: The number of the current epoch, from 1 on.
        step: How many steps the optimizer has done.
        batch, output, loss: Of the last (micro-)batch: `(*inputs, target)` and detached tensors.
        logs: The numbers of the last complete epoch.
        history: The rows so far.
        resumed: Whether the run continues from a checkpoint.
        error: The exception that ended it, for `on_train_end`.
    """

    model: Any
    loss_fn: Any
    optimizer: Any
    loader: Any
    validation: Any
    metrics: dict[str, Metric]
    callbacks: list[Any]
    epochs: int
    accumulate: int
    clip_norm: float | None
    clip_value: float | None
    on_nonfinite: str
    epoch: int = 0
    step: int = 0
    batch: Any = None
    output: Any = None
    loss: Any = None
    logs: dict[str, float] = field(default_factory=dict)
    history: History = field(default_factory=History)
    resumed: bool = False
    stopped: bool = False
    error: BaseException | None = None
    _finished: int = 0  # epochs
    _batches: int = 0  # of the epoch under way
    _means: _Means = field(default_factory=_Means)

    @property
    def size(self) -> int | None:
        """How many batches an epoch has; None for a loader without length."""
        return len(self.loader) if hasattr(self.loader, "__len__") else None

    def stop(self) -> None:
        """End the training after this step; the epoch is closed as if it were complete."""
        self.stopped = True

    def monitored(self, who: str, name: str) -> float:
        """Give a column of the current logs; NaN before the first epoch.

        Raises:
            ValueError: If there is no such column.
        """
        columns = ["loss", *self.metrics]
        columns += [f"val_{c}" for c in columns] if self.validation is not None else []
        if name not in [*columns, "lr"]:
            raise ValueError(f"{who}: there is no {name!r} to monitor, only {', '.join(columns)}")
        return self.logs.get(name, nan)

    def tensors(self) -> dict[str, Tensor]:
        """Give the model's parameters and buffers by name (the optimizer's, for a function)."""
        if hasattr(self.model, "state_dict"):
            return dict(self.model.state_dict())
        return {str(i): p for i, p in enumerate(_parameters_of(self.optimizer))}

    def objects(self) -> dict[str, Any]:
        """Give everything that a checkpoint holds, by name.

        Raises:
            ValueError: If two objects have the same name.
        """
        found = {"model": self.model, "optimizer": self.optimizer, "loader": self.loader}
        found = {name: thing for name, thing in found.items() if hasattr(thing, "state_dict")}
        if "model" not in found:  # a function: its parameters are known to the optimizer alone
            parameters = enumerate(_parameters_of(self.optimizer))
            found |= {f"parameter_{i}": p for i, p in parameters}
        found |= {"generator": default_generator(), "training": self}
        for callback in self.callbacks:
            if hasattr(callback, "state_dict"):
                name = getattr(callback, "name", type(callback).__name__.lower())
                while name in found:
                    name += "_"
                found[name] = callback
        for callback in self.callbacks:
            for name, thing in callback.extra.items() if isinstance(callback, Checkpoint) else ():
                if found.setdefault(name, thing) is not thing:
                    raise ValueError(f"Checkpoint: the name {name!r} is taken, give it another")
        return found

    def state_dict(self) -> dict[str, Any]:
        """Give epoch, step, history and the sums of the epoch under way."""
        return {
            "finished": self._finished, "batches": self._batches, "step": self.step,
            "history": self.history.state_dict(),
            "sums": self._means.fetch(), "count": self._means.count,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there when the loop runs."""
        self._finished, self._batches = state["finished"], state["batches"]
        self.step = state["step"]
        self.history.load_state_dict(state["history"])
        self._means = _Means()
        self._means.sums, self._means.count = dict(state["sums"]), state["count"]

    def call(self, event: str) -> None:
        """Call one method of all callbacks."""
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is not None:
                method(self)

    def run(self) -> History:
        """Train; `fit` has checked everything."""
        with _Interrupts() as interrupts, _modes_kept(self.model), enable_grad():
            try:
                if not getattr(self.model, "training", True):
                    self.model.train()
                self.call("on_train_begin")
                while self._finished < self.epochs and not self.stopped:
                    self._run_epoch(interrupts.check)
            except BaseException as error:
                self.error = error
                raise
            finally:
                with ExitStack() as stack:  # all are called, even if one raises
                    for callback in reversed(self.callbacks):
                        if hasattr(callback, "on_train_end"):
                            stack.callback(callback.on_train_end, self)
                self.error = None  # it holds this frame, and so the model
        return self.history

    def _run_epoch(self, check: Callable[[], None]) -> None:
        self.epoch = self._finished + 1
        self.call("on_epoch_begin")
        # Behind its last batch a loader is at the next epoch, but this one may still be to close.
        batches = iter(()) if self._batches == self.size else iter(self.loader)
        if not hasattr(self.loader, "load_state_dict"):
            list(islice(batches, self._batches))
        while not self.stopped and (group := list(islice(batches, self.accumulate))):
            self._run_step(group)
            check()
        logs = {"epoch": self.epoch} | self._means.means()
        if self.validation is not None:
            values = _evaluate(self.model, self.loss_fn, self.validation, self.metrics, check)
            logs |= {f"val_{name}": value for name, value in values.items()}
        logs["lr"] = float(self.optimizer.param_groups[0]["lr"])
        self.logs = logs
        self.history.rows.append(dict(logs))
        self._finished, self._batches, self._means = self.epoch, 0, _Means()
        self._check_finite()
        self.call("on_epoch_end")
        check()

    def _run_step(self, group: list[Any]) -> None:
        sizes = [len(batch[-1]) for batch in group]
        total = sum(sizes)
        self.batch, self.output = group[0], None
        self.call("on_step_begin")
        self.optimizer.zero_grad()
        for batch, n in zip(group, sizes, strict=True):
            *inputs, target = self.batch = batch
            output = self.model(*inputs)
            loss = self.loss_fn(output, target)
            (loss if n == total else loss * (n / total)).backward()
            self.loss, self.output = loss.detach(), _detached(output)
            with no_grad():
                self._means.add(self.metrics, self.loss, self.output, target)
        self.call("on_backward_end")
        for name, bound in (("norm", self.clip_norm), ("value", self.clip_value)):
            if bound is not None:
                from .nn import utils

                getattr(utils, f"clip_grad_{name}_")(_parameters_of(self.optimizer), bound)
        self.optimizer.step()
        self.step += 1
        self._batches += len(group)
        self.call("on_step_end")

    def _check_finite(self) -> None:
        loss = self.logs["loss"]
        if isfinite(loss) or self.on_nonfinite == "ignore":
            return
        text = (
            f"the mean training loss of epoch {self.epoch} is {loss}; a smaller learning rate or "
            "clip_norm may help, and mg.detect_anomaly() names the operation where it begins"
        )
        if self.on_nonfinite == "raise":
            raise FloatingPointError(text)
        if all(isfinite(row["loss"]) for row in self.history.rows[:-1]):
            warnings.warn(text, RuntimeWarning, stacklevel=5)


def _detached(output: Any) -> Any:
    """Give what a model gave, off the tape; it may be a tuple, a list or a dict of tensors."""
    if isinstance(output, (tuple, list)):
        return type(output)([_detached(part) for part in output])
    if isinstance(output, Mapping):
        return {name: _detached(part) for name, part in output.items()}
    return output.detach() if isinstance(output, Tensor) else output


def _parameters_of(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _as_loader(data: Any, what: str, batch_size: int, shuffle: bool) -> Any:
    """Give something that can be iterated over again and again; a tuple of arrays gets a loader."""
    if isinstance(data, tuple) and data and not any(isinstance(part, tuple) for part in data):
        from .data import DataLoader, TensorDataset

        lengths = [len(part) for part in data]
        if len(data) < 2 or len(set(lengths)) > 1:
            raise ValueError(
                f"{what}: inputs and targets of one length are wanted, got lengths {lengths}"
            )
        data = DataLoader(TensorDataset(*data), batch_size=batch_size, shuffle=shuffle)
    if not hasattr(data, "__iter__") or isinstance(data, (Iterator, str, Tensor)):
        raise TypeError(
            f"{what}: a tuple (x, y), a DataLoader or a list of batches is wanted, which can be "
            f"iterated over once per epoch; got {type(data).__name__}"
        )
    if hasattr(data, "__len__") and not len(data):
        raise ValueError(f"{what}: there is no batch in it (drop_last with too little data?)")
    return data


def _as_metrics(metrics: Any) -> dict[str, Metric]:
    """Give metrics as functions by name."""
    if not isinstance(metrics, Mapping):
        names = [metrics] if isinstance(metrics, str) else metrics or ()
        metrics = {name: METRICS.get(name) for name in names}
    for name, metric in metrics.items():
        if not callable(metric):
            raise ValueError(
                f"metrics: {name!r} is not one of {', '.join(METRICS)}; others are given as "
                "{name: function of (output, target)}"
            )
        if name in ("epoch", "loss", "lr") or name.startswith("val_"):
            raise ValueError(f"metrics: the history needs the name {name!r} itself")
    return dict(metrics)


def fit(
    model: Callable[..., Any], loss_fn: Callable[[Any, Any], Any], optimizer: Any, train: Any, *,
    epochs: int, validation: Any = None, metrics: Any = None, callbacks: Sequence[Any] = (),
    batch_size: int = 32, shuffle: bool = True, clip_norm: float | None = None,
    clip_value: float | None = None, accumulate: int = 1, progress: bool = True,
    on_nonfinite: str = "warn", resume: Any = None,
) -> History:  # fmt: skip
    r"""Train a model, :math:`\theta \leftarrow \theta - \text{step}(\nabla_\theta L)` per batch.

    A model in eval mode is put into train mode; if it is in train mode, modules of it that are in
    eval mode (frozen normalization) stay so. All modes are put back at the end.

    Ctrl-C in the main thread waits for the end of the step, so the model has done a whole number of
    steps when KeyboardInterrupt comes; a second Ctrl-C in that time does not wait.

    Args:
        model: A Module, or any callable.
        loss_fn: A function (or module) of output and target that gives the mean over the batch.
        optimizer: Of `mg.optim`, over the model's parameters.
        train: A tuple `(x, y)` of arrays with one row per example, or a DataLoader, or another
            iterable (no iterator) of batches `(x, y)`; several inputs may precede the target.
        epochs: How many there are in all; a resumed run does what is left.
        validation: Like `train`; evaluated after each epoch, in eval mode, without gradients.
        metrics: Names (`"accuracy"`, `"mae"`, `"mse"`) or `{name: function}`; a function of output
            and target gives the mean over the batch as a 0-d Tensor. In training they are measured
            while the weights change.
        callbacks: `Callback` objects.
        batch_size: For a tuple (validation takes 256 if this is less).
        shuffle: For a tuple: draw the order of the examples anew for each epoch.
        clip_norm: Scale the gradients so that their common norm is at most this.
        clip_value: Then clip each element to at most this size.
        accumulate: Sum the gradients of so many batches before a step: the gradient of the mean
            over all of them, also where the last ones are fewer.
        progress: Show a bar (tqdm) or a line per epoch.
        on_nonfinite: What happens when the mean loss of an epoch is NaN or infinite: `"warn"`
            (once), `"raise"` (before callbacks see the epoch, so no checkpoint is overwritten at
            its end) or `"ignore"`. Single steps are not looked at: that would wait for the device.
        resume: A file of `Checkpoint`, written by a run with the same arguments: model, optimizer,
            data position, random numbers and callbacks go on from there, bit for bit.

    Returns:
        The history: columns epoch, loss, the metrics, the same with `val_`, and lr (the first
        group's, as it was in the epoch).

    Raises:
        TypeError: For data or callbacks of a wrong kind.
        ValueError: For numbers out of range, an unknown metric, empty data, or an optimizer that
            has none of the model's parameters.
        FloatingPointError: See `on_nonfinite`.
        KeyboardInterrupt: After Ctrl-C.

    Example:
        >>> import microgradnd as mg
        >>> _ = mg.manual_seed(0)
        >>> x = mg.linspace(-1, 1, 64).reshape(64, 1)
        >>> model = mg.nn.Linear(1, 1)
        >>> sgd = mg.optim.SGD(model.parameters(), lr=0.5)
        >>> history = mg.train.fit(
        ...     model, mg.nn.MSELoss(), sgd, (x, 3 * x + 1), epochs=20, progress=False
        ... )
        >>> len(history), history["loss"][-1] < 1e-6, round(model.weight.item(), 3)
        (20, True, 3.0)
    """
    epochs, accumulate = index(epochs), index(accumulate)
    for name, value, least in (("epochs", epochs, 0), ("accumulate", accumulate, 1)):
        if value < least:
            raise ValueError(f"fit: {name} must be at least {least}, got {value}")
    for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if bound is not None and not bound > 0:
            raise ValueError(f"fit: {name} must be positive, got {bound}")
    if on_nonfinite not in ("warn", "raise", "ignore"):
        raise ValueError(f"fit: on_nonfinite is 'warn', 'raise' or 'ignore', got {on_nonfinite!r}")
    for name, thing in (("model", model), ("loss_fn", loss_fn)):
        if isinstance(thing, type):
            raise TypeError(f"fit: {name} is the class {thing.__name__}; make an instance of it")
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"fit: callbacks come in a list, got a {type(callbacks).__name__}")
    if not callable(model) or not callable(loss_fn) or not hasattr(optimizer, "param_groups"):
        kinds = ", ".join(type(thing).__name__ for thing in (model, loss_fn, optimizer))
        raise TypeError(f"fit: model, loss function and optimizer are wanted, got {kinds}")
    own = {id(p) for p in model.parameters()} if hasattr(model, "parameters") else None
    if own is not None and own.isdisjoint(map(id, _parameters_of(optimizer))):
        raise ValueError(
            "fit: the optimizer has none of the model's parameters; make it from "
            "model.parameters(), after the model has got its final layers"
        )
    events = [name for name in vars(Callback) if name.startswith("on_")]
    for callback in callbacks:
        if isinstance(callback, type) or not any(hasattr(callback, event) for event in events):
            hint = "; wrap a schedule in mg.train.Schedule" if hasattr(callback, "step") else ""
            raise TypeError(
                f"fit: {callback!r} is no callback; it has none of {', '.join(events)}{hint}"
            )
    called = sorted(callbacks, key=lambda callback: getattr(callback, "last", False))
    loop = Loop(
        model=model, loss_fn=loss_fn, optimizer=optimizer,
        loader=_as_loader(train, "train", batch_size, shuffle),
        validation=None if validation is None
        else _as_loader(validation, "validation", max(batch_size, 256), False),
        metrics=_as_metrics(metrics), callbacks=called + [_Progress()] * bool(progress),
        epochs=epochs, accumulate=accumulate, clip_norm=clip_norm, clip_value=clip_value,
        on_nonfinite=on_nonfinite,
    )  # fmt: skip
    if resume is not None:
        from .io import load

        load(resume, **loop.objects())
        loop.resumed = True
    return loop.run()
