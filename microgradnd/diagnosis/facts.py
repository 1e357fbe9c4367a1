"""What rules ask about a training run: measures drawn from `Evidence`, each free of units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from math import inf, isfinite, log10, nan, sqrt
from statistics import median

from .evidence import Comparison, Events, Evidence, Layer, LayerState, Sample, Score
from .thresholds import Thresholds


def finite(values: Iterable[float]) -> list[float]:
    """Give the numbers that are finite."""
    return [v for v in values if isfinite(v)]


def first(*values: float) -> float:
    """Give the first number that is finite, else NaN."""
    return next(iter(finite(values)), nan)


def middle(values: Iterable[float]) -> float:
    """Give the median of what is finite, else NaN."""
    good = finite(values)
    return median(good) if good else nan


def mean(values: Sequence[float]) -> float:
    """Give the mean, NaN of nothing."""
    return sum(values) / len(values) if values else nan


def over(value: float, limit: float) -> float:
    """Give value / limit; NaN if the limit is no positive number."""
    return value / limit if limit > 0 else nan


class Facts:
    """The measures, each computed when it is asked for."""

    def __init__(self, evidence: Evidence, thresholds: Thresholds):
        self.e, self.t = evidence, thresholds

    @property
    def events(self) -> Events:
        """What happened in the loop; nothing, if nobody recorded it."""
        return self.e.events or Events()

    def compared(self, what: str) -> Comparison:
        """Give a comparison; of one that was not made nothing is known."""
        return self.e.compared(what) or Comparison(what)

    def held(self, what: str) -> Score:
        """Give how a comparison does on what it was not trained on."""
        return self.compared(what).test or Score()

    # --- the result

    @cached_property
    def mine(self) -> float:
        """The training metric; of a loss that ran away the metric of guessing."""
        return first(self.e.train.metric, self.e.chance)

    def _spread(self, n: int) -> float:
        """Give one standard deviation of the metric of guessing."""
        p = self.e.chance
        counted = self.e.metric == "accuracy" and n > 0 and 0 <= p <= 1
        return sqrt(p * (1 - p) / n) if counted else 0.0

    def guessing(self, n: int) -> float:
        """Give the metric up to which n results are no better than the best constant output."""
        spread = self._spread(n)
        # With few examples, or a rare class, the deviations would reach beyond 1.
        most = (1.0 - self.e.chance) / 2 if spread else self.t.margin
        return self.e.chance + (min(self.t.chance_sds * spread, most) if spread else most)

    @cached_property
    def nonfinite(self) -> bool:
        """Whether a loss became NaN or infinite."""
        last = self.e.train.loss
        return (
            self.events.nonfinite_step is not None
            or any(not isfinite(v) for v in self.e.losses)
            # Without data, or of a record alone, it is just not known.
            or (self.e.now.examples > 0 and self.e.train.n > 0 and not isfinite(last))
        )

    @cached_property
    def baseline(self) -> bool:
        """Whether there is a network to compare with."""
        return any(isfinite(c.train.metric) for c in self.e.comparisons
                   if c.what in ("reference", "shallow"))  # fmt: skip

    def _learnable(self, score: Score) -> float:
        """What the comparison shows to be learnable: its metric less two standard deviations."""
        if self.e.metric != "accuracy" or score.n <= 0:
            return score.metric
        p = min(max(score.metric, 0.0), 1.0)
        return score.metric - 2 * sqrt((p * (1 - p) + 0.25 / score.n) / score.n)

    @cached_property
    def limits(self) -> dict[str, float]:
        """What the training metric must reach: reason -> limit, where it is known."""
        e, t = self.e, self.t
        found = {
            "target": e.target,
            "chance": nan if self.nothing_to_learn else self.guessing(e.train.n),
            "reference": self._learnable(self.held("reference")) - t.margin,
            # A difference of two examples is none.
            "shallow": nan if self.nothing_to_learn
            else self.compared("shallow").train.metric - t.margin
            - (2 / max(e.train.n, 1) if self._spread(e.train.n) else 0.0),
        }
        if not self.baseline:
            found["chance to 1"] = e.chance + t.no_baseline * (1 - e.chance)
        return {reason: limit for reason, limit in found.items() if isfinite(limit)}

    @cached_property
    def bad(self) -> dict[str, tuple[float, float]]:
        """Why the result on the training set is bad: reason -> (value, limit); {} if it is not."""
        m, t = self.e.train.metric, self.t
        found = {reason: (m, limit) for reason, limit in self.limits.items() if m < limit}
        if self.nonfinite:
            found = {"nonfinite": (nan, nan)} | found
        if not isfinite(m) and self.loss_left > t.loss_kept:
            found["loss"] = (self.loss_left, t.loss_kept)
        return found

    @cached_property
    def nothing_to_learn(self) -> bool:
        """Whether the reference learned nothing, either, or nothing that holds for new examples."""
        reference = self.e.compared("reference")
        if reference is None or not reference.complete:
            return False
        held = reference.test
        for score in (self.e.test, *(c.test for c in self.e.comparisons)):
            if score is not None and score.metric > self.guessing(score.n):
                return False  # somebody has learned something
        if held is None or held.n < self.t.enough:
            return reference.train.metric <= self.guessing(self.e.train.n)
        return held.metric <= self.guessing(held.n)

    @cached_property
    def fits(self) -> bool:
        """Whether the network fits what it was trained on, where nobody can say what is bad."""
        e = self.e
        return not self.nothing_to_learn or e.train.metric >= (e.chance + 1.0) / 2

    @cached_property
    def deeper_is_worse(self) -> tuple[float, Comparison] | None:
        """By how much the shallow network is better on the training set, if it is."""
        shallow = self.e.compared("shallow")
        if shallow is None or not self.bad or shallow.depth >= max(len(self.hidden), 1):
            return None
        if self.nothing_to_learn:
            return None
        worse = self.mine < self.limits.get("shallow", nan)
        return (shallow.train.metric - self.mine, shallow) if worse else None

    # --- inputs

    @cached_property
    def size(self) -> float:
        """The largest input, or the largest mean of a feature in its standard deviations."""
        i = self.e.inputs
        known = [] if i is None or i.ids else finite([self.widest, i.shift])
        return max(known, default=nan)

    @cached_property
    def widest(self) -> float:
        """The largest input."""
        i = self.e.inputs
        return nan if i is None else max(finite([abs(i.low), abs(i.high)]), default=nan)

    @cached_property
    def unscaled(self) -> bool:
        """Whether inputs are large, far from 0, tiny, or of very unequal size."""
        i, t = self.e.inputs, self.t
        if i is None or i.ids:
            return False
        return self.size > t.input_size or self.widest < t.input_small or i.ratio > t.input_size

    # --- losses

    @cached_property
    def start(self) -> float:
        """The loss before the first step."""
        init = self.e.init
        known = () if init is None else (init.loss, init.train.loss if init.train else nan)
        return first(*known, *self.e.losses[:1])

    @cached_property
    def base(self) -> float:
        """The loss of one who has learned nothing: of the best constant, else of the start."""
        return first(self.e.constant, self.start)

    @cached_property
    def end(self) -> float:
        """The loss after training; infinite, if it is NaN."""
        if self.nonfinite:
            return inf
        tail = finite(self.e.losses)
        return first(self.e.train.loss, mean(tail[-max(len(tail) // 10, 1) :]))

    @cached_property
    def loss_left(self) -> float:
        """The loss after training, relative to that of having learned nothing."""
        return over(self.end, self.base)

    @cached_property
    def first_loss(self) -> float:
        """The loss before training, relative to that of a constant or of an even output."""
        even = finite((self.e.constant, self.e.uniform))  # of rare classes the second is larger
        return over(self.start, max(even, default=nan))

    @cached_property
    def peak(self) -> float:
        """The largest loss in training, relative to the first and the constant's.

        One batch may be far worse than another: what counts is the third largest, or a fifth of the
        largest.
        """
        seen = sorted(finite([*self.e.losses, *(s.loss for s in self.e.samples)]), reverse=True)
        limit = max(finite((self.start, self.base)), default=nan)
        return over(max(seen[2], seen[0] / 5), limit) if len(seen) > 2 else nan

    @cached_property
    def late(self) -> float:
        """The speed at which the training loss falls at the end, relative to the mean speed.

        1 is a straight line, 0 a loss that has settled. NaN if it did not fall, or is not known.
        """
        scored = [(s.step, s.train.loss) for s in self.e.samples
                  if s.train is not None and isfinite(s.train.loss)
                  and 0.5 * self.steps <= s.step <= 0.85 * self.steps]  # fmt: skip
        fall = self.start - self.e.train.loss
        if not scored or not self.steps or not fall > 0.02 * self.start > 0:
            return nan
        step, loss = scored[-1]
        return (loss - self.e.train.loss) / fall / (1 - step / self.steps)

    @cached_property
    def falling(self) -> float:
        """The same as `late`, of the losses of single batches where there are no others."""
        if isfinite(self.late):
            return self.late
        n, seen = len(self.e.losses), self.e.losses
        if n < 40 or not all(map(isfinite, seen)):
            return nan
        begin, middle, end = (mean(seen[int(a * n) : int(b * n)])
                              for a, b in ((0.0, 0.05), (0.5, 0.65), (0.85, 1.0)))  # fmt: skip
        return over(middle - end, begin - end) / 0.35

    @cached_property
    def rising(self) -> float:
        """Share of samples in which the training result became worse; NaN if there are too few."""
        seen = [s.train for s in self.e.samples if s.train is not None]
        pairs = list(pairwise(seen))
        if len(pairs) < 5:
            return nan
        worse = [
            a.metric - b.metric >= self.t.swing
            or over(b.loss - a.loss, self.base) >= self.t.swing * 3
            for a, b in pairs
        ]
        return sum(worse) / len(pairs)

    @cached_property
    def lost(self) -> float:
        """By how much the training metric was better once, at a time when it was not bad."""
        limit = max(self.limits.values(), default=nan)
        seen = [s.train.metric for s in self.e.samples if s.train is not None]
        best = max(finite(seen), default=nan)
        return best - self.e.train.metric if best >= limit else nan

    # --- layers

    @cached_property
    def hidden(self) -> list[int]:
        """The numbers of the hidden layers."""
        return [i for i, layer in enumerate(self.e.layers) if not layer.output]

    def states(self, sample: Sample | None) -> list[tuple[Layer, LayerState]]:
        """Give the hidden layers with their states at that time."""
        if sample is None or len(sample.layers) != len(self.e.layers):
            return []
        return [(self.e.layers[i], sample.layers[i]) for i in self.hidden]

    @cached_property
    def began(self) -> Sample | None:
        """The state before training, if it was recorded."""
        return self.e.init if self.states(self.e.init) else None

    def worst(self, sample: Sample | None, what: str) -> tuple[float, str | None]:
        """Give the largest number of that name among hidden layers, and where it is."""
        found = [(getattr(state, what), layer.name) for layer, state in self.states(sample)
                 if isfinite(getattr(state, what)) and layer.units]  # fmt: skip
        return max(found, key=lambda pair: pair[0], default=(nan, None))

    def flow(self, sample: Sample | None) -> tuple[float, float, list[str]]:
        """Give the decades that the gradient loses on its way back, per layer too, and the ends.

        What counts is an example's gradient as a whole, its RMS times the root of the units: of
        weights that suit their fan-in it stays the same where widths change.
        """
        sizes = [(state.delta * sqrt(max(layer.units, 1)), layer.name)
                 for layer, state in self.states(sample) if state.delta >= 0]  # fmt: skip
        if len(sizes) < 2:
            return nan, nan, []
        (near, a), (far, b) = sizes[-1], sizes[0]
        if not near:  # nothing comes in (an output layer of zeros): nothing can get lost
            return nan, nan, [b, a]
        if not isfinite(far) or not isfinite(near):
            return (-inf if isfinite(near) else nan), nan, [b, a]
        total = log10(near) - log10(far) if far else inf
        return total, total / (len(sizes) - 1), [b, a]

    @cached_property
    def decay(self) -> tuple[float, float, list[str]]:
        """The flow before training; if nobody recorded that, the flow now."""
        return self.flow(self.began or self.e.now)

    @cached_property
    def slope(self) -> float:
        """Mean |f'| of the hidden layers before training (or now)."""
        return mean(finite(state.slope for _, state in self.states(self.began or self.e.now)))

    @cached_property
    def growth(self) -> float:
        """Decades by which pre-activations grow from the first to the last hidden layer at init."""
        sizes = [state.z_std for _, state in self.states(self.began) if state.z_std > 0]
        return log10(sizes[-1]) - log10(sizes[0]) if len(sizes) > 1 else nan

    @cached_property
    def thin(self) -> float:
        """RMS of a weight times the root of its fan-in, before training: the layers' median.

        It is 1 by LeCun's and Glorot's rules, and the root of 2 by He's.
        """
        return middle(state.weight * sqrt(layer.fan_in)
                      for layer, state in self.states(self.began) if layer.fan_in)  # fmt: skip

    def single(self, sample: Sample | None) -> float:
        """Share of Maxout groups that are linear units: the mean over the Maxout layers."""
        return mean(finite(s.single for layer, s in self.states(sample) if layer.pieces > 1))

    # --- steps

    @cached_property
    def ratios(self) -> list[float]:
        """The size of steps relative to the weights at each sample: the median over layers."""
        found = (middle(s.update for s in sample.layers) for sample in self.e.samples)
        return finite(found)

    @cached_property
    def foreseen(self) -> float:
        """The size of the first step as rate and gradient let expect it; NaN if unknown."""
        rate, init = self.rate, self.e.init
        if init is None or not rate > 0:
            return nan
        if not self.e.plan.optimizer:
            return nan
        plain = self.e.plan.optimizer == "SGD"  # the others make steps of the rate's size
        return middle(over(rate * (s.gradient if plain else 1.0), s.weight) for s in init.layers)

    @cached_property
    def rate(self) -> float:
        """The learning rate at the start, or NaN."""
        known = self.e.plan.options.get("lr", nan)
        rates = finite(s.rate for s in self.e.samples)
        return first(float(known) if isinstance(known, (int, float)) else nan, *rates)

    @cached_property
    def ratio(self) -> float:
        """The median size of a step, where there was one."""
        seen = [r for r in self.ratios if r > 0]
        return middle(seen) if seen else first(self.foreseen, *self.ratios)

    @cached_property
    def largest(self) -> float:
        """The largest step of any layer, relative to its weights, seen or foreseen."""
        seen = finite(s.update for sample in self.e.samples for s in sample.layers)
        return max(finite([*seen, self.foreseen]), default=nan)

    @cached_property
    def steps(self) -> int:
        """How many steps there were."""
        return max(self.e.plan.steps, self.events.steps, *self.e.loss_steps[-1:])

    @cached_property
    def travel(self) -> float:
        """How far weights went at most, relative to their own size."""
        return self.ratio * self.steps if self.steps else nan
