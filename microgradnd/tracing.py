"""Seeing what the tape does: its table and its picture, and where a NaN or infinity begins.

Both are watchers: `Mode.watch` is told of every node when it is recorded (`record`) and of every
gradient when it is complete (`gradient`). A watcher hands on to the one outside it what it sees,
so blocks nest: an outer trace also lists what happens inside an inner one.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import isinf, isnan
from types import FrameType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np

from . import backend as backends
from .backend.namespace import ARRAY
from .frames import PACKAGE, place, user_frame
from .modes import MODE, Switch
from .protocols import Composite
from .tape import FREED, PICK, Node, Tensor, raw, reverse

CO_OPTIMIZED = 1  # of `inspect`: the code of a function, whose variables are in no dict
LISTED = 4  # operands of one row that are listed, not counted
SEARCHED = 2000  # objects that are looked at for the name of a tensor

# ----------------------------------------------------------------------------- numbers


class Range:
    """What is noted of a large array: the smallest and the largest number, and how many are NaN."""

    __slots__ = ("high", "low", "nans")

    def __init__(self, low: float, high: float, nans: int = 0):
        self.low, self.high, self.nans = low, high, nans

    def __repr__(self) -> str:
        text = f"{number(self.low)} .. {number(self.high)}"
        return f"{text}, {self.nans} nan" if self.nans else text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Range) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


def home(array: Any) -> Any:
    """Give the backend of a raw array, or of the NumPy number that arithmetic makes of 0-d ones."""
    return backends.BY_TYPE.get(type(array)) or backends.named("numpy")


def span(array: Any) -> Range:
    """Find the range of a raw array that is not empty, on its own device."""
    backend = home(array)
    xp = backend.xp
    low, high = (backend.to_numpy(f(array, axis=None)).item() for f in (xp.min, xp.max))
    if not isnan(low):
        return Range(low, high)
    host = backend.to_numpy(array)
    known = host[~np.isnan(host)]
    if known.size:
        low, high = known.min().item(), known.max().item()
    return Range(low, high, host.size - known.size)


def summary(array: Any, show: int) -> Any:
    """Give a copy of a small array as NumPy's, and the range of a larger one."""
    return np.array(home(array).to_numpy(array)) if array.size <= show else span(array)


def number(value: Any) -> str:
    """Write a number with 4 significant digits, without the sign of a negative zero."""
    if isinstance(value, (float, np.floating)):
        return f"{float(value) + 0.0:.4g}"
    return str(value)


def written(value: Any) -> str:
    """Write what a row notes: numbers in brackets, a range, or one of these per output."""
    if isinstance(value, np.ndarray):
        return written(value.tolist()) if value.ndim else number(value.item())
    if isinstance(value, tuple):  # several outputs
        return ", ".join(map(written, value))
    if isinstance(value, list):
        return f"[{' '.join(map(written, value))}]"
    return "" if value is None else number(value)


def winners(row: Row, x: Any, winner: Any, show: int) -> str:
    """Write a Maxout's groups, the winners in parentheses; of large ones, the pieces' shares."""
    pieces = x.size // max(winner.size, 1)
    winner = home(winner).to_numpy(winner)
    if x.size > show:
        wins = np.bincount(winner.ravel(), minlength=pieces) * 100 / winner.size
        shares = [f"{share:.0f}%" for share in wins[:LISTED]]
        return "wins " + " ".join(shares + ["..."] * (pieces > LISTED))
    axis = row.attributes.get("axis", -1)
    groups = np.moveaxis(home(x).to_numpy(x), axis, -1).reshape(*winner.shape, pieces)

    def mark(group: Any, won: Any) -> str:
        if group.ndim > 1:
            return f"[{' '.join(map(mark, group, won))}]"
        texts = [number(v) for v in group.tolist()]
        texts[int(won)] = f"({texts[int(won)]})"
        return f"[{' '.join(texts)}]"

    return mark(groups, winner)[1:-1]


# ----------------------------------------------------------------------------- the user's code


def in_reverse(frame: FrameType | None) -> bool:
    """Say whether a reverse pass is going on around a frame."""
    while frame is not None and frame.f_code is not reverse.__code__:
        frame = frame.f_back
    return frame is not None


def variables(frame: FrameType) -> dict[str, Any]:
    """Give the local variables of a frame.

    Before Python 3.13 a function's frame keeps the dict that `f_locals` makes, and with it every
    tensor in there until the function returns, even after `del`; so it is emptied again, unless
    somebody else has it from `locals()`. A module's variables are themselves such a dict.
    """
    found = frame.f_locals
    own = dict(found)
    made = sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED
    if made and sys.getrefcount(found) <= 3:  # the frame's, ours, the argument's
        found.clear()
    return own


def named(scope: Any) -> Iterator[tuple[str, Any]]:
    """Find the tensors and arrays that variables lead to: the shortest names first."""
    queue = [(str(name), value) for name, value in list(scope.items()) if str(name)[:1] != "_"]
    seen = set()
    for name, value in queue:  # which grows meanwhile
        if isinstance(value, Tensor) or type(value) in backends.BY_TYPE:
            yield name, value
            continue
        if id(value) in seen or len(queue) > SEARCHED or isinstance(value, (type, ModuleType)):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            queue += [(f"{name}[{key!r}]", item) for key, item in list(value.items())]
        elif isinstance(value, (list, tuple)):
            queue += [(f"{name}[{i}]", item) for i, item in enumerate(value)]
        elif callable(getattr(type(value), "named_parameters", None)):
            queue += [(f"{name}.{key}", item) for key, item in value.named_parameters()]
        elif hasattr(value, "__dict__"):
            ours = type(value).__module__.startswith(f"{__package__}.")  # what a recorder keeps
            queue += [(f"{name}.{key}", item) for key, item in list(vars(value).items())
                      if not (ours and str(key)[:1] == "_")]  # fmt: skip


def find_name(x: Any, frame: FrameType | None) -> str | None:
    """Find what the user calls an operand where it is used."""
    for scope in (variables(frame), frame.f_globals) if frame is not None else ():
        for name, value in named(scope):
            same_node = getattr(value, "_node", None) is getattr(x, "_node", None)
            if value is x or (same_node and raw(value) is raw(x)):
                return name
    return None


# ----------------------------------------------------------------------------- trace


class Row:
    """One step of a trace. It holds copies and ranges of values, never the graph.

    Attributes:
        number: Its place in the table, from 1.
        operation: The operation's name, or `"leaf"` or `"constant"`.
        attributes: Its static attributes that are not the defaults.
        operands: For each operand an earlier row, `(row, i)` for one of a row's several outputs,
            or a Python number.
        names: The user's name for the result (for each result, if there are several), or None.
        shape: The result's shape; a list of shapes if there are several.
        value: A copy as a NumPy array, or a `Range`; a tuple of these if there are several.
        winners: Of a Maxout, the groups with the winning elements marked.
        gradient: As `value`; of the last reverse pass that came here, None before.
        line: Where the user's code recorded it, `"file.py:12"`.
        reverse: Whether it was recorded while a reverse pass went on.
        node: A weak reference to its node; None for a constant.
    """

    __slots__ = (
        "attributes", "gradient", "line", "names", "node", "number", "operands", "operation",
        "reverse", "shape", "value", "winners",
    )  # fmt: skip

    def __init__(self, number: int, operation: str, shape: Any, value: Any, node: Node | None):
        self.number, self.operation, self.shape, self.value = number, operation, shape, value
        self.attributes: dict[str, Any] = {}
        self.operands: tuple[Any, ...] = ()
        self.names: list[str | None] = [None] * (len(shape) if isinstance(shape, list) else 1)
        self.winners, self.line, self.reverse = "", "", False
        self.gradient: Any = None
        self.node = None if node is None else ref(node)

    def __repr__(self) -> str:
        return f"<row {self.number}: {self.step} of {self.of}>"

    @property
    def name(self) -> str:
        """The names of its results, as far as they are known."""
        return ", ".join(name or "_" for name in self.names) if any(self.names) else ""

    @property
    def step(self) -> str:
        """The operation with its attributes, as text."""
        return " ".join([self.operation, *map(_attribute, self.attributes.items())])

    @property
    def of(self) -> str:
        """The operands, as text."""
        texts = [reference(operand) for operand in self.operands[:LISTED]]
        more = len(self.operands) - LISTED
        return ", ".join([*texts, f"{more} more"] if more > 0 else texts)

    @property
    def shown(self) -> str:
        """The value as text; that of a small Maxout are its groups with the winners marked."""
        if self.winners and isinstance(self.value, Range):
            return f"{self.value}, {self.winners}"
        return self.winners or written(self.value)


def reference(operand: Any) -> str:
    """Write an operand: its name, else `%3` for row 3 and `%3[0]` for its first output."""
    if isinstance(operand, Row):
        return operand.names[0] or f"%{operand.number}"
    if isinstance(operand, tuple):
        row, i = operand
        return row.names[i] or f"%{row.number}[{i}]"
    return written(operand)


def _attribute(item: tuple[str, Any]) -> str:
    name, value = item
    text = f"{name}={value!r}"
    if name == "key" and isinstance(value, tuple):  # an index; see `ops.indexing.encode`
        text = f"[{', '.join(map(_index, value))}]"
    text = text.replace(" ", "")
    return text if len(text) <= 40 else f"{text[:37]}..."


def _index(item: Any) -> str:
    if isinstance(item, tuple):
        start, stop, step = ("" if part is None else str(part) for part in item)
        return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
    return "..." if item is Ellipsis else "#" if item == ARRAY else str(item)


class Trace:
    """What `trace` gives: the steps in recording order, as rows, a table and a picture."""

    __slots__ = ("_constants", "_outer", "_refs", "_switch", "rows", "show")

    def __init__(self, show: int = 6):
        self.rows: list[Row] = []
        self.show = show
        self._refs: dict[int, Any] = {}  # serial of a node -> its row, or (row, output)
        self._constants: dict[int, Any] = {}  # id of an array -> (weak reference, row)
        self._switch: Switch | None = None
        self._outer: Any = None

    def __enter__(self) -> Trace:
        if self._switch is not None:
            raise RuntimeError("trace: this trace is being recorded already; make another one")
        self._outer = MODE.get().watch
        self._switch = Switch(watch=self).__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._switch is not None
        self._switch.__exit__(*exc)
        self._switch = self._outer = None
        self._give_names(sys._getframe(1))

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    # --- what the engine tells

    def record(
        self, node: Node, operands: Any, result: Any, residuals: Any, attrs: Any = None
    ) -> None:
        """Note a step; attributes that the engine does not tell are those that the node kept."""
        if self._outer is not None:
            self._outer.record(node, operands, result, residuals, attrs)
        frame = user_frame(sys._getframe(1))
        if not operands:  # of an operation with several results, the operands' nodes are known
            operands = [parent for parent in node.parents if parent is not None]
        refs = tuple(self._operand(x, frame) for x in operands if x is not None)
        several = isinstance(result, (list, tuple))
        values = tuple(summary(r._array, self.show) for r in (result if several else [result]))
        row = self._add(node.op.name, node.shape, values if several else values[0], node, frame)
        row.operands = refs
        row.attributes = _attributes(node, attrs)
        if node.op.name == "maxout":
            row.winners = winners(row, raw(operands[0]), residuals[0], self.show)
        if several:
            for i, r in enumerate(result):
                self._refs[r._node.serial] = (row, i)

    def gradient(self, node: Node, g: Any) -> None:
        """Note a gradient that is complete."""
        if self._outer is not None:
            self._outer.gradient(node, g)
        row = self._refs.get(node.serial)
        if not isinstance(row, Row):  # one output of several; or recorded before this trace
            return
        several = isinstance(g, (list, tuple))
        arrays = [None if h is None else raw(h) for h in (g if several else [g])]
        values = tuple(None if a is None else summary(a, self.show) for a in arrays)
        row.gradient = values if several else values[0]

    def _add(
        self, operation: str, shape: Any, value: Any, node: Node | None, frame: FrameType | None
    ) -> Row:
        row = Row(len(self.rows) + 1, operation, shape, value, node)
        row.line, row.reverse = place(frame), in_reverse(sys._getframe(2))
        self.rows.append(row)
        if node is not None:
            self._refs[node.serial] = row
        return row

    def _operand(self, x: Any, frame: FrameType | None) -> Any:
        """Give the row of an operand; a leaf has another one when its value has changed."""
        array: Any = None if isinstance(x, Node) else raw(x)
        node = x if isinstance(x, Node) else getattr(x, "_node", None)
        if node is None and type(array) not in backends.BY_TYPE:
            return np.asarray(array).tolist()
        if node is not None and node.op is not None:
            return self._refs.get(node.serial) or self._untold(node, array)
        if node is not None:
            known = self._refs.get(node.serial)
        else:
            alive, known = self._constants.get(id(array), (None, None))
            known = known if alive is not None and alive() is array else None
        value: Any = None if array is None else summary(array, self.show)
        if known is not None and (value is None or _same(known.value, value)):
            return known
        name = None if array is None else find_name(x, frame)
        if node is None and name is None and array.ndim == 0:
            return value.item()
        shape = node.shape if node is not None else array.shape
        row = self._add("leaf" if node is not None else "constant", shape, value, node, frame)
        row.names = [name]
        if node is None:
            self._constants[id(array)] = (ref(array), row)
        return row

    def _untold(self, node: Node, array: Any) -> Any:
        """Make the row of a step recorded before this trace began, or by `checkpoint`."""
        output = node.kept[0] if node.op is PICK and node.kept is not FREED else None
        step = node.parents[0] if output is not None else node
        row = self._refs.get(step.serial)
        if row is None:
            value = summary(array, self.show) if output is None and array is not None else None
            row = self._add(step.op.name, step.shape, value, step, None)
            row.operands = tuple(self._refs[p.serial] for p in step.parents
                                 if p is not None and p.serial in self._refs)  # fmt: skip
        self._refs[node.serial] = row if output is None else (row, output)
        return self._refs[node.serial]

    def _give_names(self, frame: FrameType) -> None:
        """Take the names of tensors from the frame of the `with` statement; make them unique."""
        found: set[tuple[int, int]] = set()
        for name, value in named(variables(frame)):
            node, array = getattr(value, "_node", None), raw(value)
            if node is not None:
                row = self._refs.get(node.serial)
            else:
                alive, row = self._constants.get(id(array), (None, None))
                row = row if alive is not None and alive() is array else None
            row, i = row if isinstance(row, tuple) else (row, 0)
            if row is not None and (row.number, i) not in found:
                found.add((row.number, i))
                row.names[i] = name
        taken: set[str] = set()
        for row in self.rows:
            for i, known in enumerate(row.names):
                if known in taken:
                    row.names[i] = f"{known}%{row.number}"
                taken.add(row.names[i] or "")

    # --- what it shows

    def __repr__(self) -> str:
        if not self.rows:
            return (
                "trace: nothing was recorded; inside the block, compute with tensors that require "
                "a gradient"
            )
        digits = len(str(len(self.rows)))
        head = ["#".rjust(digits), "operation", "operands", "shape", "value", "gradient", "line"]
        table = [
            [f"{row.number:{digits}} {row.name}", row.step, row.of, _shape(row.shape), row.shown,
             written(row.gradient), row.line]
            for row in self.rows
        ]  # fmt: skip
        width = [max(map(len, column)) for column in zip(*table, strict=True)]
        used = [i for i, w in enumerate(width) if w]

        def line(cells: list[str]) -> str:
            return "  ".join(cells[i].ljust(max(width[i], len(head[i]))) for i in used).rstrip()

        lines, passing = [line(head)], False
        for row, cells in zip(self.rows, table, strict=True):
            if row.reverse and not passing:
                lines.append("-- recorded by a reverse pass:")
            passing = row.reverse
            lines.append(line(cells))
        return "\n".join(lines)

    def to_mermaid(self) -> str:
        """Write the graph as a Mermaid flowchart: one node per row, edges from operand to result.

        GitHub, Jupyter and https://mermaid.live draw it. A label says the operation, the name and
        shape, the value, and after a reverse pass the gradient.
        """
        lines, edges = ["flowchart LR"], []
        for row in self.rows:
            drawn = [isinstance(operand, (Row, tuple)) for operand in row.operands]
            step = row.step
            if not all(drawn):  # numbers stand in the label, and a dot for what has an edge
                pairs = zip(row.operands, drawn, strict=True)
                step += " " + ", ".join("·" if edge else reference(x) for x, edge in pairs)
            result = f"{row.name} {_shape(row.shape)}".strip()
            texts = [step, result, written(row.value), row.winners]
            if row.gradient is not None:
                texts.append(f"grad {written(row.gradient)}")
            label = "<br/>".join(_escape(text) for text in texts if text)
            kind = row.operation if row.operation in ("leaf", "constant") else "step"
            lines.append(f'    n{row.number}["{label}"]:::{kind}')
            for operand in row.operands:
                if isinstance(operand, Row):
                    edges.append(f"    n{operand.number} --> n{row.number}")
                elif isinstance(operand, tuple):
                    edges.append(f'    n{operand[0].number} -->|"{operand[1]}"| n{row.number}')
        return "\n".join([
            *lines, *edges,
            "    classDef leaf fill:#dff5e1,stroke:#2e7d32,color:#000",
            "    classDef constant fill:#eeeeee,stroke:#777777,stroke-dasharray:4,color:#000",
            "    classDef step fill:#e3eefb,stroke:#1a5fb4,color:#000",
        ])  # fmt: skip

    def saved(self) -> list[tuple[Row, int]]:
        """List what backward holds now: rows, and the bytes that each is the first to keep.

        A view counts as the memory under it. What a checkpointed function closes over is not seen.
        """
        owners: dict[int, Any] = {}
        found = []
        for row in self.rows:
            node = row.node() if row.node is not None else None
            size = 0
            for array in _arrays(() if node is None or node.kept is FREED else node.kept):
                while type(base := getattr(array, "base", None)) is type(array):
                    array = base
                if id(array) not in owners:
                    owners[id(array)] = array
                    size += array.nbytes
            if size:
                found.append((row, size))
        return found

    def saved_bytes(self) -> int:
        """Count the bytes of the arrays that backward holds now, each memory once.

        After a `backward()` that freed its graph, or when the graph is dropped, this is 0.
        """
        return sum(size for _, size in self.saved())


def trace(show: int = 6) -> Trace:
    """Watch what is recorded and what flows back: `with mg.trace() as t:`.

    Afterwards `print(t)` is the table of all steps (operation, operands, shape, value, gradient,
    the user's line; of a Maxout the groups, winners in parentheses), `t.to_mermaid()` the picture,
    `t.saved_bytes()` what backward holds, `t.rows` the steps themselves. Operations on tensors that
    need no gradient are not recorded: their results appear as constants. The trace holds copies
    of small values and ranges of large ones, never the graph. Blocks nest: each sees what happens
    inside it. A step that several passes reach shows the gradient of the last.

    Args:
        show: Arrays of up to so many elements are shown in full, larger ones as a range.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor([5.0, 7.0, -1.0, 1.0], requires_grad=True)
        >>> with mg.trace() as t:
        ...     mg.maxout(x, 2).sum().backward()
        >>> [row.operation for row in t]
        ['leaf', 'maxout', 'sum']
        >>> t.rows[1].winners
        '[5 (7)] [-1 (1)]'
    """
    return Trace(show)


def live_nodes() -> dict[str, int]:
    """Count the steps of all graphs in memory, by operation, the most frequent first.

    If their sum grows from one training step to the next, somebody keeps results with their graphs,
    in a list of losses perhaps: keep `loss.item()` or `loss.detach()`.

    Example:
        >>> import microgradnd as mg
        >>> x = mg.tensor(1.0, requires_grad=True)
        >>> before = sum(mg.live_nodes().values())
        >>> kept = [mg.exp(x) for _ in range(3)]
        >>> sum(mg.live_nodes().values()) - before
        3
    """
    found = Counter(x.op.name for x in gc.get_objects() if type(x) is Node and x.op is not None)
    return dict(found.most_common())


def _attributes(node: Node, attrs: Any) -> dict[str, Any]:
    defaults = node.op.defaults
    if attrs is None:
        attrs = {k: v for k, v in zip(node.op.needs, node.kept, strict=True) if k in defaults}
    return {k: v for k, v in attrs.items() if defaults.get(k, FREED) != v}


def _arrays(kept: Any) -> Iterator[Any]:
    for item in kept:
        if isinstance(item, (list, tuple)):
            yield from _arrays(item)
        elif type(item) in backends.BY_TYPE:
            yield item


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return np.array_equal(x, y, equal_nan=y.dtype.kind == "f")
    return bool(type(x) is type(y) and x == y)


def _shape(shape: Any) -> str:
    if isinstance(shape, list):
        return " ".join(map(_shape, shape))
    return str(tuple(shape)).replace(" ", "")


def _escape(text: str) -> str:
    """Write what Mermaid would read as its own as a character number."""
    return "".join(f"#{ord(c)};" if c in "\"#<>&`\\" else c for c in text)


# ----------------------------------------------------------------------------- anomalies


class Place(NamedTuple):
    """Where something was recorded: the user's line, and what of ours it was in."""

    line: str
    chain: tuple[Any, ...]  # the modules and composites whose calls are going on, innermost first
    ranges: str  # of the operands, as text

    def __str__(self) -> str:
        modules = [x for x in self.chain if not isinstance(x, Composite)]
        if not modules:
            return self.line
        inner, whole = modules[0], modules[-1]
        path = next((f"{n} " for n, m in whole.named_modules() if m is inner and n), "")
        return f"{self.line} (in {path}{type(inner).__name__})"

    def label(self, name: str) -> str:
        """Write an operation with the composite that the user called."""
        whole = [x.name for x in self.chain if isinstance(x, Composite)][-1:]
        return " of ".join([name, *whole])


def surroundings(frame: FrameType | None) -> tuple[Any, ...]:
    """Find the modules and composites whose calls are going on around a frame."""
    found, calls = [], {Composite.__call__.__code__}
    if module := sys.modules.get(f"{PACKAGE}.nn.module"):
        calls.add(module.Module.__call__.__code__)
    while frame is not None:
        if frame.f_code in calls:
            found.append(variables(frame)["self"])
        frame = frame.f_back
    return tuple(found)


class Anomaly:
    """The watcher of `detect_anomaly`; it holds numbers and text, by weak references to nodes."""

    __slots__ = ("forward", "masked", "notes", "origins", "outer", "suspects")

    def __init__(self, outer: Any, forward: bool):
        self.outer, self.forward = outer, forward
        self.notes: Any = WeakKeyDictionary()  # node -> its Place
        self.origins: Any = WeakKeyDictionary()  # node -> how its result became bad
        self.masked: Any = WeakKeyDictionary()  # node -> Place of a `where` that uses its result
        self.suspects: dict[int, str] = {}  # serial -> how its gradient became bad

    def record(
        self, node: Node, operands: Any, result: Any, residuals: Any, attrs: Any = None
    ) -> None:
        """Raise for a result with a NaN, or with an infinity that no operand has."""
        if self.outer is not None:
            self.outer.record(node, operands, result, residuals, attrs)
        frame = sys._getframe(1)
        spans = [_float_span(raw(x)) for x in operands]
        known = [s for s in spans if s is not None]
        names = _operand_names(node.op, len(operands))
        ranges = "; ".join(f"{n}: {s}" for n, s in zip(names, spans, strict=True) if s is not None)
        self.notes[node] = Place(
            place(user_frame(frame)), surroundings(frame), f" (operands {ranges})" if ranges else ""
        )
        if not known:
            return
        results = result if isinstance(result, (list, tuple)) else [result]
        for i, out in enumerate(results):
            got = _float_span(out._array) or Range(0.0, 0.0)
            if not (got.nans or _infinite(got)):
                continue
            entered = [k for k, s in enumerate(spans) if s is not None and s.nans]
            new_inf = _infinite(got) and not any(s.nans or _infinite(s) for s in known)
            new = new_inf or (got.nans and not entered)
            if in_reverse(frame):
                if new and self.suspects:  # a formula on the tape; else its result is finite
                    raise FloatingPointError(self.suspects.popitem()[1])
                continue
            told = next((self.origins[p] for p in map(_step, operands) if p in self.origins), "")
            if new:
                which = f"result {i}" if len(results) > 1 else "result"
                arrays = [raw(x) for x in operands]
                told = self._forward(node, arrays, out._array, which, not new_inf)
            elif got.nans and not told:
                told = self._entered(node, names[entered[0]], operands[entered[0]], frame)
            if told and self.forward:
                raise FloatingPointError(told)
            if told:
                self.origins[node] = told

    def _forward(self, node: Node, arrays: list[Any], out: Any, which: str, only_nan: bool) -> str:
        op: Any = node.op
        note = self.notes[node]
        at, what = _first_bad(out, only_nan)
        text: str = f"forward of {note.label(op.name)} at {note}: the {which} has {what}{_at(at)}"
        if not op.elementwise or op.name in ("add", "subtract", "multiply"):
            return text + note.ranges
        hosts = [home(a).to_numpy(a) if type(a) in backends.BY_TYPE else a for a in arrays]
        there = [np.broadcast_to(h, out.shape)[at].item() for h in hosts if h is not None]
        return (
            f"{text}, {op.name}({', '.join(map(number, there))}){note.ranges}. If a where() is to "
            f"hide it, the value is right, but 0 * inf in backward is NaN: give {op.name} safe "
            f"operands, where(ok, {_safe(op)}, ...)"
        )

    def _entered(self, node: Node, name: str, x: Any, frame: FrameType | None) -> str:
        """Say from where a NaN comes that no operation of the block has made."""
        parent, note = _step(x), self.notes[node]
        known = find_name(x, user_frame(frame))
        what = "a constant" if type(raw(x)) in backends.BY_TYPE else "a number"
        hint = "; what stands for something missing is replaced before, where(isnan(x), 0, x)"
        if parent is not None and parent.op is not None:
            what, hint = f"the result of {parent.op.name}", ""
        elif parent is not None:
            what = "a leaf"
            hint = "; for a parameter, watch the steps before, or set its optimizer's on_nonfinite"
        if parent in self.notes:
            what += f" at {self.notes[parent]}, overwritten since"
        elif parent is not None and parent.op is not None:
            what += ", recorded before the block"
        array = raw(x)
        at, _ = _first_bad(array if type(array) in backends.BY_TYPE else np.asarray(array), True)
        return (
            f"forward of {note.label(node.op.name)} at {note}: a NaN enters here, in {name}: "
            f"{f'{known}, ' if known else ''}{what}, is nan{_at(at)}{note.ranges}{hint}"
        )

    def gradient(self, node: Node, g: Any) -> None:
        """Raise for a bad gradient; look ahead at what this node will give to its operands."""
        if self.outer is not None:
            self.outer.gradient(node, g)
        op = node.op
        several = isinstance(g, (list, tuple))
        arrays = [None if h is None else raw(h) for h in (g if several else [g])]
        if any(a is not None and _bad(a) for a in arrays):
            note = self.notes.get(node)
            raise FloatingPointError(self.suspects.get(node.serial) or (
                f"backward: the gradient of {'a leaf' if op is None else op.name}"
                f"{f' at {note}' if note else ''} is not finite: it was given to backward(), came "
                "from a hook, or a sum of gradients (or a cast) overflowed"
                f"{self._already(node)}"
            ))  # fmt: skip
        self.suspects.pop(node.serial, None)
        if op is None or node.kept is FREED or not hasattr(op, "formulas"):
            if op is PICK and node in self.masked:
                self.masked[node.parents[0]] = self.masked[node]
            return
        if any(version[0] != number for version, number in node.guards):
            return  # overwritten values: the pass says so itself
        xp = home(next(a for a in arrays if a is not None)).xp
        if several:
            arrays = [xp.zeros(s, dtype=d) if a is None else a
                      for a, s, d in zip(arrays, node.shape, node.dtype, strict=True)]  # fmt: skip
        line = self.notes.get(node) if op.name == "where" else self.masked.get(node)
        for parent, gi in op.pull(node, arrays if several else arrays[0], xp, False):
            if parent is None or gi is None:
                continue
            if line is not None:
                self.masked[parent] = line
            if _bad(gi):
                self.suspects[parent.serial] = self._backward(node, parent, arrays[0], gi)

    def _backward(self, node: Node, parent: Node, g: Any, gi: Any) -> str:
        op: Any = node.op
        note = self.notes.get(node, Place("", (), ""))
        name = _operand_names(op, len(node.parents))[
            next(i for i, p in enumerate(node.parents) if p is parent)
        ]
        at, what = _first_bad(gi)
        when = f"at {note}" if node in self.notes else "before the block"
        text: str = f"backward of {note.label(op.name)}, recorded {when}: the gradient of {name} "
        text += f"has {what}{_at(at)}"
        if not op.elementwise or g.shape != gi.shape:
            return text + note.ranges + self._already(node)
        incoming = home(g).to_numpy(g)[at].item()
        text += f", where {number(incoming)} came in{note.ranges}"
        if incoming == 0 and node in self.masked:
            text += (
                f". The where() at {self.masked[node]} does not select this element, but 0 * inf "
                f"is NaN: give {op.name} safe operands inside it, "
                f"where(ok, {_safe(op)}, ...)"
            )
        return text + self._already(node)

    def _already(self, node: Node) -> str:
        told = self.origins.get(node)
        return f". It began before: {told}" if told else ""


@contextmanager
def detect_anomaly(forward: bool = True) -> Iterator[None]:
    """Find where the first NaN or infinity is made: `with mg.detect_anomaly():`, or a decorator.

    Forward, that is the first recorded operation whose result has one that its operands do not
    have, or the first into which a leaf or a constant brings a NaN (infinite ones are often meant:
    masks); backward, the first operation whose formula makes one. Every gradient formula runs twice
    and every value is looked at, so use it for finding faults.

    Args:
        forward: Raise for values too. With False only gradients are faults, as in PyTorch; the
            message then still says where the values became bad.

    Raises:
        FloatingPointError: Naming the operation, the line that recorded it, the module that it is
            in, its operands' ranges, the first bad index, and a `where` that does not select it.
    """
    # NumPy's own warnings would come first, or be errors, and say less.
    with backends.named("numpy").quiet(), Switch(watch=Anomaly(MODE.get().watch, forward)):
        yield


def _float_span(x: Any) -> Range | None:
    """Give the range of a float operand; None for what cannot be infinite, or is empty."""
    if type(x) in backends.BY_TYPE:
        return span(x) if x.dtype.kind == "f" and x.size else None
    if isinstance(x, (float, np.floating)):
        return Range(float(x), float(x), int(isnan(x)))
    return None


def _step(x: Any) -> Node | None:
    """Give the node that made an operand: of one output of several, that of all."""
    node: Any = getattr(x, "_node", None)
    return node.parents[0] if node is not None and node.op is PICK else node


def _operand_names(op: Any, n: int) -> list[str]:
    """Give the names of an operation's operands; those of a list are numbered."""
    names = list(op.operands)
    return names + [f"operand {i}" for i in range(len(names), n)]


def _safe(op: Any) -> str:
    names = list(op.operands)
    at = 0 if op.name == "power" else -1  # the base, the divisor
    names[at] = f"where(ok, {names[at]}, 1)"
    return f"{op.name}({', '.join(names)})"


def _infinite(x: Range) -> bool:
    return isinf(x.low) or isinf(x.high)


def _bad(array: Any) -> bool:
    backend = home(array)
    return not backend.to_numpy(backend.xp.all(backend.xp.isfinite(array), axis=None))


def _first_bad(array: Any, only_nan: bool = False) -> tuple[tuple[int, ...], str]:
    """Give the index of the first NaN (or infinity), and what stands there."""
    host = home(array).to_numpy(array)
    where = np.isnan(host) if only_nan else ~np.isfinite(host)
    at = tuple(int(i) for i in np.unravel_index(np.argmax(where), host.shape))
    return at, number(host[at].item())


def _at(index: tuple[int, ...]) -> str:
    return f" at index [{', '.join(map(str, index))}]" if index else ""
