"""The recorder: what a network looks like while it is trained, noted by hooks, in passing.

An ordinary step costs some microseconds and never waits for a device: its loss is kept where it
was computed. At some steps the recorder looks closely: at the layers of that step's own forward
and backward pass, at the size of the update, and at the scores on (a part of) the sets.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from io import BytesIO
from itertools import chain
from math import isfinite, nan
from statistics import median_low
from threading import local
from typing import Any
from weakref import finalize, ref
from zipfile import BadZipFile

import numpy as np

from .. import optim
from ..backend import of
from ..gradients import Passes
from ..hooks import attach
from ..modes import MODE, no_grad
from ..nn.layers import Dropout
from ..nn.module import Module
from ..registry import REGISTRY
from ..tape import PICK, Node, Tensor, wrap
from ..tracing import detect_anomaly
from ..train import Loop
from . import measure
from .evidence import LayerState, Record, Sample, Score, parse, plain
from .measure import Problem, describe, pair, sandbox, spread, taken
from .observe import Seen, Watcher, ancestors, clone, flatten, look, rms

FORMAT, VERSION = "microgradnd record", 1
#: Steps at which the layers are looked at by default, and then every so many.
EARLY, EVERY = (0, 10, 50, 100, 200, 500), 1000
#: Under `fit`, steps between two scores that the recorder has to compute itself, at least.
BETWEEN = 200
#: Rows of the training set that are looked at before the first step, and of both sets for scores.
ROWS, SCORED = 512, 256
#: Losses and samples that are kept at most; then every other one is dropped.
LOSSES, SAMPLES = 2000, 400
#: Initial parameters are kept up to so many bytes.
INITIAL = 64 * 2**20
#: Losses on a device are fetched when there are so many; outputs wait for backward at most.
WAITING = PENDING = 1000
#: Samples over which it is looked whether a unit is ever active.
ALIVE = 4
#: Outputs that one of these made are no scores any more, unless a loss wants them so.
SQUASHING = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "hard_sigmoid"})
#: What an output may have gone through after that.
RESHAPING = frozenset({"reshape", "squeeze", "expand_dims", "transpose", "astype", "getitem"})

#: Whether a recorder computes something of its own, which no recorder is to see.
MEASURING: ContextVar[bool] = ContextVar("microgradnd_measuring", default=False)


@contextmanager
def _unseen() -> Iterator[None]:
    """Compute unseen by all recorders."""
    token = MEASURING.set(True)
    try:
        yield
    finally:
        MEASURING.reset(token)


#: A loss of these types can be read at once.
NUMPY = (np.ndarray, np.generic)


class Hook:
    """Calls a recorder's method without keeping it alive; a copy (of the model's) does nothing."""

    __slots__ = ("method", "recorder")

    def __init__(self, recorder: Recorder | None = None, method: Any = None):
        self.method = method  # a function: to look a name up takes longer
        self.recorder: Callable[[], Recorder | None] = (
            (lambda: None) if recorder is None else ref(recorder)
        )

    def __reduce__(self) -> Any:
        return Hook, ()

    def __call__(self, *args: Any) -> None:
        """Tell the recorder."""
        recorder = self.recorder()
        if recorder is not None:
            self.method(recorder, *args)


class Inside(local):
    """Where a thread is: how deep in calls of the model, and whether the outermost is watched."""

    depth = 0
    watching = False


class Recorder:
    """Note how a network is trained, for `mg.diagnose`: at once, by hooks, in any training loop.

    The state before the first step is noted at the first forward pass. Then the loss of every step
    is, and now and then layers, updates and scores. Among the callbacks of `fit` it also knows of
    epochs. Model, optimizer and random numbers are never changed.

    Args:
        model: A Module. (Of a function only losses are seen, and what `train` shows.)
        optimizer: That trains it.
        loss_fn: Gives the mean over the batch, of output and target; needed for scores on sets, and
            to look at more than the first batch before the first step. `fit` tells its own.
        train, test: `(inputs, target)`, arrays or Tensors; at most 512 rows, evenly spread, are
            used.
        every: Look closely every so many steps. By default at steps 0, 10, 50, 100, 200, 500, and
            every 1000. An ordinary step takes less than 5 % longer, even with a small network; the
            first look takes some hundredths of a second, each other one about five steps.

    Raises:
        TypeError: For what is no model, no optimizer, or no data.
        ValueError: If `every` is not at least 1.

    Example:
        >>> import microgradnd as mg
        >>> model = mg.nn.Linear(2, 1)
        >>> sgd = mg.optim.SGD(model.parameters(), lr=0.1)
        >>> record = mg.diagnosis.Recorder(model, sgd)
        >>> x, y = mg.ones((8, 2)), mg.zeros((8, 1))
        >>> for _ in range(3):
        ...     sgd.zero_grad()
        ...     mg.mse(model(x), y).backward()
        ...     sgd.step()
        >>> record.record.events.steps, len(record.record.losses), record.record.events.loss
        (3, 3, ['mse'])
    """

    name = "recorder"

    def __init__(
        self, model: Any, optimizer: Any, loss_fn: Any = None, train: Any = None, test: Any = None,
        every: int | None = None,
    ):  # fmt: skip
        if not callable(model) or isinstance(model, type):
            raise TypeError(f"Recorder: a model (a Module) is wanted, got {model!r:.80}")
        if not hasattr(optimizer, "register_step_post_hook"):
            raise TypeError(
                "Recorder: an optimizer of mg.optim is wanted as the second argument, got a "
                f"{type(optimizer).__name__}"
            )
        if loss_fn is not None and not callable(loss_fn):
            raise TypeError(
                f"Recorder: loss_fn is a function of output and target, got a "
                f"{type(loss_fn).__name__}"
            )
        if every is not None and (isinstance(every, bool) or every != int(every) or every < 1):
            raise ValueError(f"Recorder: every is a number of steps, at least 1, got {every!r}")
        self.model, self.optimizer, self.loss_fn = model, optimizer, loss_fn
        self.every = every
        self._train = _part(train, "train", model, ROWS)
        self._few = _part(self._train, "train", model, SCORED)
        self._test = _part(test, "test", model, SCORED)
        self._problem: Problem | None = None
        self._loss_fn_fails = False
        self._record = Record()
        self._steps = 0
        self._started = self._called = False
        self._thin = self._stride = 1  # 2, 4, ... when much was recorded
        self._batches: Counter[int] = Counter()
        self._unreached: set[str] | None = None
        self._noisy: list[Module] = []
        self._inside = Inside()
        # Since the last step: outputs without backward by the serials of their nodes, and whether
        # they are noisy; the loss; the arguments of the last call; where backward began last.
        self._pending: dict[tuple[int, ...], bool] = {}
        self._loss: Any = None
        self._args: Any = None
        self._root = 0
        self._next = 1  # the step after which there is something to be prepared or looked at
        self._used: list[Any] | None = None  # gradients of the last step, if it is to be looked
        self._waiting: list[tuple[int, Any]] = []  # losses that are not in the record yet
        # A close look: forward passes under way, their numbers, the weights before the step.
        self._watcher = Watcher()
        self._seen: list[Seen] = []
        self._before: dict[str, Any] = {}
        self._alive: dict[str, deque[Any]] = {}
        self._now = 0  # examples of the forward pass under way
        self._close = True  # whether this step is looked at closely
        # Under `fit`.
        self._loop: Loop | None = None
        self._scored = 0
        self._probe = next((p for g in optimizer.param_groups for p in g["params"]), None)
        self._handles = [
            optimizer.register_step_post_hook(Hook(self, Recorder._on_step)),
            attach(Passes, "hooks", Hook(self, Recorder._on_backward)),
        ]
        if isinstance(model, Module):
            after = Hook(self, Recorder._on_output)
            self._handles.append(model.register_forward_hook(after, always_call=True))
        self._before_call: list[Any] = []  # a hook, while there is a close look
        self._detach = finalize(self, _remove, self._handles, self._before_call)
        self._detach.atexit = False
        self._look(True)

    def remove(self) -> None:
        """Take all hooks away; what was recorded stays."""
        self._detach()
        self._forget()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "recording" if self._detach.alive else "removed"
        return f"<Recorder: {self._steps} steps, {len(self._record.samples)} samples, {state}>"

    # --- forward

    def _look(self, closely: bool) -> None:
        """Begin or end a close look: only then are calls of the model heard of (it takes time)."""
        self._close = closely
        if not closely:
            _remove(self._before_call)
            self._before_call.clear()
        elif isinstance(self.model, Module) and not self._before_call:
            hook = Hook(self, Recorder._on_call)
            self._before_call.append(self.model.register_forward_pre_hook(hook))

    def _on_call(self, model: Any, args: Any) -> None:
        """Before a forward pass; the outermost call counts, if the model calls itself."""
        inside = self._inside
        inside.depth += 1
        if inside.depth > 1 or MEASURING.get() or not MODE.get().recording:
            return
        if not self._started:
            self._begin()
        self._collect()
        self._watcher.names = {p._node.serial: name for name, p in self._named().items()
                               if p._node is not None}  # fmt: skip
        self._unwatch()  # of a forward pass whose end nobody told
        mode = MODE.get()
        self._watcher.outer, inside.watching = mode.watch, True
        MODE.set(mode.but(watch=self._watcher))

    def _unwatch(self) -> bool:
        """End the watch of this thread, if there is one; gives whether there was.

        Two recorders' watches do not end in the order in which a `with` would end them.
        """
        there, self._inside.watching = self._inside.watching, False
        if there:
            mode, own = MODE.get(), self._watcher
            if mode.watch is own:
                MODE.set(mode.but(watch=own.outer))
            else:
                inner = mode.watch
                while inner is not None and getattr(inner, "outer", None) is not own:
                    inner = getattr(inner, "outer", None)
                if inner is not None:
                    inner.outer = own.outer
            own.outer = None
        return there

    def _on_output(self, model: Any, args: Any, output: Any) -> None:
        """After a forward pass, also if it raised (then there is no output)."""
        node: Any = getattr(output, "_node", None)
        odd = node is None or self._close or self._noisy or len(self._pending) >= PENDING
        if not odd and not MEASURING.get():
            self._pending[node.serial,] = False
            self._args = args
            return
        inside = self._inside
        if inside.depth > 0:
            inside.depth -= 1
            if inside.depth:
                return
        watched = self._unwatch()
        if watched:
            self._watcher.listen()
            self._seen = self._watcher.seen
            self._remember()
        outputs = flatten(output)
        if not outputs or MEASURING.get():
            return
        noisy = any(module.training for module in self._noisy)
        nodes = tuple([t._node.serial for t in outputs if t._node is not None])
        if not nodes:
            self._evaluated(noisy)
            return
        self._called = True
        if len(self._pending) >= PENDING:  # nobody trains
            self._evaluated(self._pending.pop(next(iter(self._pending))))
        self._pending[nodes], self._args = noisy, args
        if watched:
            self._now = args[0].shape[0] if args and getattr(args[0], "shape", ()) else 0
            self._batches[self._now] += 1
            self._record.events.squashed = _squashed(outputs[0])

    def _evaluated(self, noisy: bool) -> None:
        events = self._record.events
        events.evaluations += 1
        events.noisy_evaluations += noisy

    # --- backward

    def _on_backward(self, root: Tensor) -> None:
        """When a reverse pass begins: is it one through our outputs?"""
        if root._node is None:
            return
        pending = self._pending
        if len(pending) == 1 and not self._close:  # as a rule the loss is one operation
            for parent in root._node.parents:
                if parent is not None and (parent.serial,) in pending:
                    pending.clear()
                    self._differentiated(root)
                    return
        if MEASURING.get():
            return
        if self._called:
            found = self._reached(root._node)
            for key in found:
                self._pending.pop(key, None)
            if not found:
                return
        elif not self._is_ours(root._node):
            return
        elif not self._started:
            self._begin()
        self._differentiated(root)

    def _differentiated(self, root: Tensor) -> None:
        """Note the loss whose reverse pass begins."""
        events, node, value = self._record.events, root._node, root._array
        assert node is not None
        events.backwards += 1
        self._root = node.serial
        if self._used is not None:
            events.checked += 1
            events.stale += self._stale(self._used)
            self._used = None
        if value.size != 1:
            value = value.mean()
        if isinstance(value, NUMPY):
            value = float(value)
        if self._loss is not None and self._probe is not None and self._probe.grad is not None:
            # Gradients that are summed up are of a sum of losses; zero_grad() begins a new one.
            value = self._loss + value
        self._loss = value
        if type(value) is float and not isfinite(value) and events.nonfinite_step is None:
            events.nonfinite_step = self._steps
            events.nonfinite_where = self._blame()

    def _reached(self, node: Node) -> list[tuple[int, ...]]:
        """Find which outputs a loss was made of; at a close look also, by what operations."""
        pending = self._pending
        if not pending:
            return []
        seen = ancestors(node, min(map(min, pending)))
        found = [key for key in pending if not seen.keys().isdisjoint(key)]
        if not found and any(n.op is not None and n.op.name == "checkpoint" for n in seen.values()):
            found = list(pending)  # its graph is hidden
        if found and self._close:
            self._record.events.loss = _chain(seen, {serial for key in found for serial in key})
        return found

    def _is_ours(self, node: Node) -> bool:
        """Whether a loss depends on our parameters: for models whose calls nobody hears of."""
        own = {p._node.serial for p in self._named().values() if p._node is not None}
        return not own.isdisjoint(ancestors(node))

    def _stale(self, used: list[Any]) -> bool:
        """Whether gradients that a step has used are still there, and not zero."""
        left = [g for p in _parameters(self.optimizer)
                if (g := p.grad) is not None and any(old() is g for old in used)]  # fmt: skip
        return any((g != 0).any().item() for g in left)

    # --- step

    def _on_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """After a step of the optimizer: note its loss, and whatever there is to do besides."""
        if not self._started:
            self._begin()
        step = self._steps
        self._steps = step + 1
        if self._loss is not None and not step % self._stride:
            self._waiting.append((step, self._loss))
        if step + 1 != self._next and not self._pending and not self._close:
            self._loss = self._args = None
            return
        self._inside.depth = 0
        if self._close:
            self._sample(step)
            self._look(False)
        for key, noisy in list(self._pending.items()):
            # What backward did not reach, and what was computed before it: an evaluation.
            if key[0] < self._root:
                self._evaluated(noisy)
            self._pending.pop(key, None)
        self._loss = self._args = None
        self._prepare()

    def _prepare(self) -> None:
        """Get ready for the step to come, and find out when there is something to do again."""
        step = self._steps
        if len(self._waiting) >= WAITING:
            self._fetch()
        every = (self.every or EVERY) * self._thin
        early = (1, 2, 3) if self.every else (1, 2, 3, *EARLY)
        if step % every == 0 or (self.every is None and step in EARLY):
            self._look(True)
        if self._close or step < 4:
            gradients = [p.grad for p in _parameters(self.optimizer)]
            self._used = [ref(g) for g in gradients if g is not None]
        soon = [s for s in early if s > step]
        self._next = min([*soon, (step // every + 1) * every, step + WAITING])

    def _fetch(self) -> None:
        """Note the losses that wait; those on a device come in one transfer."""
        waiting, self._waiting = self._waiting, []
        away = [loss for _, loss in waiting if type(loss) is not float]
        if away:
            with no_grad():
                stacked = REGISTRY["stack"]([wrap(x.reshape(())).astype("float64") for x in away])
            away = stacked.tolist()
        host = iter(away)
        record = self._record
        for step, loss in waiting:
            value = loss if type(loss) is float else next(host)
            if step % self._stride:
                continue
            record.loss_steps.append(step)
            record.losses.append(value)
            if not isfinite(value) and record.events.nonfinite_step is None:
                record.events.nonfinite_step = step
                record.events.nonfinite_where = self._bad_parameter()
        while len(record.losses) > LOSSES:
            self._stride *= 2
            kept = [i for i, step in enumerate(record.loss_steps) if step % self._stride == 0]
            record.losses = [record.losses[i] for i in kept]
            record.loss_steps = [record.loss_steps[i] for i in kept]

    # --- close looks

    def _begin(self) -> None:
        """Note the state before the first step."""
        self._started = True
        record, model = self._record, self.model
        named = self._named()
        if sum(p._array.nbytes for p in named.values()) <= INITIAL:
            record.initial = {name: np.array(of(p._array).to_numpy(p._array))
                              for name, p in named.items()}  # fmt: skip
        self._noisy = [m for m in _modules(model) if _is_noisy(m)]
        kind, group = type(self.optimizer).__name__, self.optimizer.param_groups[0]
        plan = record.plan
        plan.optimizer = kind if getattr(optim, kind, None) is type(self.optimizer) else ""
        plan.options = {k: _option(v) for k, v in group.items() if k in self.optimizer.defaults}
        plan.model = repr(model) if isinstance(model, Module) else _name(model)
        first = Sample(rate=float(group.get("lr", nan)))
        record.samples.append(first)
        if self._train is None:
            return
        record.adopt(self._find_problem())
        inputs, target = pair(self._train, "train", self.model)
        with _unseen(), sandbox(model):
            record.layers, seen = look(model, self._usable_loss(), inputs, target)
        first.layers, first.loss, first.examples = seen.layers, seen.loss, seen.examples
        self._score(first)

    def _find_problem(self) -> Problem:
        """Find out what the network has to do."""
        inputs, target = pair(self._train, "train", self.model)
        with _unseen(), sandbox(self.model):
            output = measure.first_output(self.model, inputs, len(target))
            self._record.inputs = describe(self.model, inputs, target, output)
            try:
                if self.loss_fn is not None:
                    self.loss_fn(output, target)
            except Exception:  # targets out of range, say: of that the loop will tell
                self._loss_fn_fails = True
            self._problem = measure.problem(self._usable_loss(), output, target)
        return self._problem

    def _usable_loss(self) -> Any:
        return None if self._loss_fn_fails else self.loss_fn

    def _collect(self) -> None:
        """Sum up what was seen of a forward pass, if backward has been there."""
        seen, self._seen = self._seen, []
        self._watcher.forget()
        self._watcher.tally(use for use in seen if use.delta is not None)

    def _remember(self) -> None:
        """Note the weights before a step that is looked at."""
        named, watcher = self._named(), self._watcher
        self._before = {layer.weight: named[layer.weight]._array.copy()
                        for layer in watcher.layers if layer.weight in named}  # fmt: skip

    def _sample(self, step: int) -> None:
        """Finish the close look at a step that was just made."""
        self._collect()
        record = self._record
        named = self._named()
        own = {id(p) for p in _parameters(self.optimizer)}
        events = record.events
        events.not_optimized = [n for n, p in named.items() if id(p) not in own and p.requires_grad]
        events.foreign = len(own - {id(p) for p in named.values()})
        if self._loss is not None:
            without = {n for n, p in named.items() if p.requires_grad and p.grad is None}
            self._unreached = without if self._unreached is None else self._unreached & without
        sample = record.samples[0] if step == 0 else Sample(step)
        states = self._states(step, named)
        for i, state in states.items():
            if i < len(sample.layers):  # seen on more than this batch
                sample.layers[i].update = state.update
            else:
                sample.layers += [LayerState() for _ in range(i - len(sample.layers))] + [state]
        sample.rate = float(self.optimizer.param_groups[0].get("lr", nan))
        if sample.loss != sample.loss and self._loss is not None:
            sample.loss = float(self._loss)
        sample.examples = sample.examples or self._now
        if self._loop is not None:
            sample.epoch = _epochs(self._loop)
        if step:
            if self._loop is None:
                self._score(sample)
            self._add(sample)
        self._watcher.tallies, self._before = {}, {}

    def _states(self, step: int, named: dict[str, Any]) -> dict[int, LayerState]:
        """Give the states of the layers that were seen, by their numbers in the record."""
        layers, found = self._record.layers, {}
        places = {layer.weight: i for i, layer in enumerate(layers)}
        for _, tally in sorted(self._watcher.tallies.items()):
            layer = tally.layer
            if layer.weight not in places:
                places[layer.weight] = len(layers)
                layers.append(layer)
            p, before = named.get(layer.weight), self._before.get(layer.weight)
            gradient = None if p is None or p.grad is None else p.grad._array
            alive = self._alive.setdefault(layer.weight, deque(maxlen=ALIVE))
            alive.append(tally.alive)
            if all(now is not None and now.shape == tally.alive.shape for now in alive):
                tally.alive = np.any(list(alive), axis=0)
            old = None if before is None else of(before).to_numpy(before)
            if step:
                state = tally.state(None, gradient)  # twins are looked for at the start only
                state.weight = nan if old is None else rms(old)
            else:
                state = tally.state(old, gradient, self._record.initial.get(layer.bias))
            if p is not None and old is not None:
                with np.errstate(all="ignore"):
                    state.update = rms(of(before).to_numpy(p._array) - old) / (state.weight or nan)
            found[places[layer.weight]] = state
        return found

    def _score(self, sample: Sample) -> None:
        """Score the model on the parts of the sets that there are, unless it has scores."""
        if self._problem is None:
            return
        loss_fn = self._usable_loss()
        for name, part in (("train", self._few), ("test", self._test)):
            if part is not None and getattr(sample, name) is None:
                inputs, target = pair(part, name, self.model)
                with _unseen():
                    score = self._problem.score(self.model, loss_fn, inputs, target, ROWS)
                setattr(sample, name, score)
        self._scored = self._steps

    def _add(self, sample: Sample) -> None:
        samples = self._record.samples
        samples.append(sample)
        if len(samples) > SAMPLES:
            del samples[1::2]
            self._thin *= 2

    def _named(self) -> dict[str, Any]:
        """Give the parameters by name; those of the optimizer, if the model is a function."""
        if isinstance(self.model, Module):
            return dict(self.model.named_parameters())
        return {f"parameter_{i}": p for i, p in enumerate(_parameters(self.optimizer))}

    def _blame(self) -> str:
        """Say where the NaN or infinity of the loss comes from, as far as can be seen."""
        args, model = self._args, self.model
        bad = self._bad_parameter()
        if bad or args is None or not isinstance(model, Module):
            return bad
        if any(not _finite(x._array) for x in flatten(args) if x.dtype.kind == "f"):
            return "the inputs"
        with _unseen(), sandbox(model):
            try:
                with detect_anomaly():
                    clone(model)(*args)
            except FloatingPointError as error:
                return str(error)
            except Exception:
                return ""
        return f"the loss ({', '.join(self._record.events.loss)})"

    def _bad_parameter(self) -> str:
        bad = (name for name, p in self._named().items() if not _finite(p._array))
        return next((f"the parameter {name}" for name in bad), "")

    def _forget(self) -> None:
        """Let go of everything that belongs to a step under way."""
        self._unwatch()
        self._watcher.forget()
        self._seen, self._watcher.tallies, self._before = [], {}, {}
        self._args = self._used = None

    # --- fit

    def on_train_begin(self, loop: Loop) -> None:
        """Know the loop, and its loss function."""
        self._loop = loop
        if self.loss_fn is None:
            self.loss_fn = loop.loss_fn

    def on_epoch_end(self, loop: Loop) -> None:
        """Note the epoch's losses and metrics, or scores if it has none."""
        self._record.events.epochs = float(loop.epoch)
        if loop.epoch % self._thin:
            return
        logs = loop.logs
        sample = Sample(self._steps, float(loop.epoch), logs["lr"], logs["loss"])
        for name, loader, prefix in (("train", loop.loader, ""), ("test", loop.validation, "val_")):
            part = getattr(self, f"_{name}")
            metric = logs.get(f"{prefix}accuracy", nan)
            if f"{prefix}loss" in logs and (part is None or metric == metric):
                setattr(sample, name, Score(_examples(loader), logs[f"{prefix}loss"], metric))
        if self._steps - self._scored >= BETWEEN:
            self._score(sample)
        self._add(sample)

    def on_train_end(self, loop: Loop) -> None:
        """Forget the loop; the last epoch gets all scores."""
        self._loop = None
        samples = self._record.samples
        if loop.error is None and samples and samples[-1].step == self._steps:
            self._score(samples[-1])

    # --- what was recorded

    @property
    def record(self) -> Record:
        """What was recorded so far, with the parameters as they are now."""
        self._fetch()
        kept = self._record
        for sample in kept.samples:  # a layer that was first used later
            missing = len(kept.layers) - len(sample.layers) if sample.layers else 0
            sample.layers += [LayerState() for _ in range(missing)]
        same, moved = [], set()
        own = {id(p) for p in _parameters(self.optimizer)}
        for name, p in self._named().items():
            if name in kept.initial:
                now = of(p._array).to_numpy(p._array)
                if not np.array_equal(now, kept.initial[name], equal_nan=True):
                    moved.add(name)
                elif p.requires_grad and id(p) in own and self._steps:
                    same.append(name)
        events, waiting = kept.events, list(self._pending.values())
        events = replace(
            events, steps=self._steps,
            not_optimized=[n for n in events.not_optimized if n not in moved],
            unreached=sorted(self._unreached or ()),
            unchanged=same,
            evaluations=events.evaluations + len(waiting),
            noisy_evaluations=events.noisy_evaluations + sum(waiting),
            batch=median_low(self._batches.elements()) if self._batches else 0,
        )  # fmt: skip
        loss = "" if self.loss_fn is None else _name(self.loss_fn)
        plan = replace(kept.plan, steps=self._steps, batch=events.batch, loss=loss)
        return replace(kept, events=events, plan=plan)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was recorded into one file (NumPy's .npz, without pickles); see `load`."""
        record = self.record
        names = list(record.initial)
        bare = replace(record, initial={}, losses=[], loss_steps=[])
        header = {"format": FORMAT, "version": VERSION, "names": names, "record": plain(bare)}
        arrays = {f"initial_{i}": record.initial[name] for i, name in enumerate(names)}
        memory = BytesIO()
        np.savez_compressed(
            memory, header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            losses=np.array(record.losses, np.float64),
            loss_steps=np.array(record.loss_steps, np.int64), **arrays,
        )  # fmt: skip
        with open(path, "wb") as file:
            file.write(memory.getbuffer())

    def state_dict(self) -> dict[str, Any]:
        """Give what was recorded so far, for a checkpoint of `fit`."""
        self._fetch()
        return {
            "record": plain(replace(self._record, initial={})), "initial": self._record.initial,
            "steps": self._steps, "started": self._started, "thin": self._thin,
            "stride": self._stride, "scored": self._scored,
            "batches": [list(pair) for pair in sorted(self._batches.items())],
            "unreached": None if self._unreached is None else sorted(self._unreached),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._record = parse(Record, state["record"])
        self._record.initial = {name: np.array(value) for name, value in state["initial"].items()}
        self._steps, self._started = state["steps"], state["started"]
        self._thin, self._stride, self._scored = state["thin"], state["stride"], state["scored"]
        self._batches = Counter({rows: count for rows, count in state["batches"]})
        known = state["unreached"]
        self._unreached = None if known is None else set(known)
        self._look(False)
        self._called = bool(self._batches)
        self._prepare()
        if self._started and self._train is not None and self._problem is None:
            self._find_problem()


def load(path: str | os.PathLike[str]) -> Record:
    """Read a file that `Recorder.save` wrote.

    Raises:
        ValueError: If it is something else, damaged, or of a later version.
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        if data[:2] != b"PK":  # else NumPy would take it for a pickle, and advise to load that
            raise ValueError("it is no .npz file")
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            if "header" not in arrays:
                raise ValueError("it has no header")
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r:.40}")
            if header["version"] != VERSION:
                raise ValueError(f"its version is {header['version']!r:.20}, {VERSION} is known")
            record: Record = parse(Record, header["record"])
            record.losses = arrays["losses"].tolist()
            record.loss_steps = arrays["loss_steps"].tolist()
            record.initial = {n: arrays[f"initial_{i}"] for i, n in enumerate(header["names"])}
    except (AttributeError, BadZipFile, EOFError, KeyError, TypeError, ValueError,
            zlib.error) as error:  # fmt: skip
        told = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{os.fspath(path)} is no record of a training (Recorder.save writes them): {told}"
        ) from error
    return record


# ---------------------------------------------------------------------------------------- details


def _part(data: Any, name: str, model: Any, rows: int) -> tuple[Tensor, ...] | None:
    """Give at most so many rows of a set, evenly spread."""
    if data is None:
        return None
    inputs, target = pair(data, name, model)
    return taken((*inputs, target), spread(len(target), rows))


def _modules(model: Any) -> list[Module]:
    return list(model.modules()) if isinstance(model, Module) else []


def _is_noisy(module: Module) -> bool:
    """Whether a module computes something else in training."""
    drops = isinstance(module, Dropout) and module.p > 0
    return drops or getattr(module, "running_mean", None) is not None


def _parameters(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _option(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_option(item) for item in value]
    if isinstance(value, (bool, str, int, type(None))):
        return value
    return float(value) if hasattr(value, "__float__") else _name(value)


def _name(thing: Any) -> str:
    """Give a function's name, or that of an object's class."""
    return str(getattr(thing, "__name__", None) or type(thing).__name__)


def _examples(loader: Any) -> int:
    """Give how many examples a loader has; 0 if it does not say."""
    data: Any = getattr(loader, "dataset", None)
    return len(data) if hasattr(data, "__len__") else 0


def _epochs(loop: Loop) -> float:
    """Give how many epochs were done, with the fraction of the one under way, if it is known."""
    size = loop.size
    return loop.epoch - 1 + (min(loop._batches / size, 1.0) if size else 0.0)


def _finite(array: Any) -> bool:
    home = of(array)
    return bool(home.to_numpy(home.xp.all(home.xp.isfinite(array), axis=None)))


def _squashed(output: Tensor) -> str:
    """Give the operation that turned the output into probabilities, or ""."""
    node = output._node
    while node is not None and node.op is not None and node.op.name in RESHAPING:
        node = next((p for p in node.parents if p is not None), None)
    name = "" if node is None or node.op is None else str(node.op.name)
    return name if name in SQUASHING else ""


def _chain(seen: dict[int, Node], outputs: set[int]) -> list[str]:
    """Give the operations on the way from outputs to the loss, in their order."""
    on_the_way, names = set(outputs), []
    for serial in sorted(seen):
        node = seen[serial]
        if serial not in outputs and any(p is not None and p.serial in on_the_way
                                         for p in node.parents):  # fmt: skip
            on_the_way.add(serial)
            if node.op is not PICK:
                names.append(str(node.op.name))
    return names[:50]


def _remove(*lists: list[Any]) -> None:
    for handle in chain.from_iterable(lists):
        handle.remove()
