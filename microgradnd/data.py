"""Data: datasets, a loader that resumes where it stopped, toy problems, digits and MNIST."""

from __future__ import annotations

import gzip
import hashlib
import math
import operator
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np

from . import backend as backends
from .arraylike import host_array, to_array
from .backend.interface import Staged
from .extras import need
from .functions import asarray
from .modes import get_default_dtype
from .random import Generator, default_generator
from .registry import REGISTRY
from .tape import Tensor, wrap

__all__ = [
    "DataLoader", "TensorDataset", "blobs", "circles", "collate", "digits", "mnist", "moons",
    "read_idx", "spirals",
]  # fmt: skip


class TensorDataset:
    """Arrays of the same length along their first axis; `dataset[i]` is a tuple of a row of each.

    What is on the host stays there as NumPy arrays, Tensors stay where they are.

    Args:
        arrays: Arrays, Tensors or lists; lists of floats become the default dtype.

    Raises:
        ValueError: For no array, a 0-d one, other lengths, or a Tensor that requires a gradient.

    Example:
        >>> dataset = TensorDataset(np.eye(3), np.arange(3))
        >>> len(dataset), dataset[1]
        (3, (array([0., 1., 0.]), np.int64(1)))
    """

    def __init__(self, *arrays: Any):
        self.arrays = [_stored(array) for array in arrays]
        shapes = [array.shape for array in self.arrays]
        if not shapes or len({shape[:1] for shape in shapes}) > 1 or () in shapes:
            raise ValueError(f"TensorDataset: arrays of the same length are wanted, got {shapes}")
        for i, array in enumerate(self.arrays):
            if isinstance(array, Tensor) and array.requires_grad:
                raise ValueError(
                    f"TensorDataset: array {i} requires a gradient; a dataset holds data, use "
                    ".detach()"
                )

    def __len__(self) -> int:
        return self.arrays[0].shape[0]

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        if isinstance(index, slice) or (hasattr(index, "__index__") and np.ndim(index) == 0):
            return tuple(array[index] for array in self.arrays)
        rows = np.asarray(index)
        if rows.dtype.kind not in "iu" and rows.size:
            raise TypeError(f"TensorDataset: an index of integers is wanted, got {rows.dtype}")
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"TensorDataset: index {index} is out of bounds for {len(self)} rows")
        return self._place(self._read(rows.astype(np.int64)), upload=False)

    def _read(self, rows: Any) -> list[Any]:
        """Take rows of what is on the host; of a Tensor, which may be elsewhere, only say which."""
        return [a.take(rows, axis=0) if isinstance(a, np.ndarray) else rows for a in self.arrays]

    def _place(self, parts: list[Any], upload: bool = True) -> tuple[Any, ...]:
        """Upload what was read, and take the rows of Tensors where they are."""
        rows: dict[Any, Any] = {}  # the indices on each device, uploaded once
        out = []
        for array, part in zip(self.arrays, parts, strict=True):
            if isinstance(array, np.ndarray):
                out.append(_uploaded(part) if upload else part)
                continue
            home = array.backend
            if home not in rows:
                rows[home] = home.asarray(part)
            # Not array[...]: bounds were checked on the host, a device would have to be asked.
            out.append(wrap(home.xp.take(array._array, rows[home], 0)))
        return tuple(out)


def _stored(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data
    device = hasattr(data, "__dlpack_device__") and data.__dlpack_device__()[0] == 2
    home = None if device else backends.named("numpy")
    array = to_array(data, None, home, floats=get_default_dtype())
    return array if isinstance(array, np.ndarray) else wrap(array)


def collate(items: list[Any]) -> Any:
    """Stack items to a batch: tuples place by place, Tensors where they are, the rest on the host.

    Raises:
        ValueError: If the items have several lengths or shapes.

    Example:
        >>> collate([(1, [0.5, 1.5]), (2, [2.5, 3.5])])
        (array([1, 2]), (array([0.5, 2.5], dtype=float32), array([1.5, 3.5], dtype=float32)))
    """
    first = items[0]
    if isinstance(first, (tuple, list)):
        lengths = {len(item) for item in items}
        if len(lengths) > 1:
            raise ValueError(f"collate: items of several lengths, {sorted(lengths)}")
        return tuple(collate(list(column)) for column in zip(*items, strict=True))
    if isinstance(first, Tensor):
        return REGISTRY["stack"](items)
    return host_array(items, get_default_dtype())


def _tensors(batch: Any) -> Any:
    """Make Tensors of the arrays in a batch."""
    if isinstance(batch, (tuple, list)):
        return tuple(map(_tensors, batch))
    return _uploaded(batch) if isinstance(batch, (np.ndarray, np.generic)) else batch


def _uploaded(array: Any) -> Tensor:
    """Make a Tensor on the current backend; what was staged, it takes as it is."""
    return wrap(backends.get().asarray(array)) if type(array) is Staged else asarray(array)


def _staged(batch: Any) -> Any:
    """Copy the arrays in a batch to where their upload needs no waiting."""
    if isinstance(batch, (tuple, list)):
        return tuple(map(_staged, batch))
    if type(batch) is not np.ndarray:
        return batch
    return backends.get().stage(host_array(batch, get_default_dtype()))


class _Position:
    """Where an iterator is: epochs given, batches given of this one, what its order came from."""

    def __init__(self, epoch: int, batches: int = 0, drawn: dict[str, int] | None = None):
        self.epoch, self.batches, self.drawn = epoch, batches, drawn

    def end(self) -> None:
        """Go to the next epoch, whose order nobody has drawn yet."""
        self.epoch, self.batches, self.drawn = self.epoch + 1, 0, None


class DataLoader:
    """Batches of a dataset, as tuples of Tensors; one pass of a `for` loop is an epoch.

    Arrays on the host go to the current backend, in one upload for each batch; Tensors stay where
    they are. A batch never shares memory with a `TensorDataset`. A new `for` loop starts a new
    epoch, also after a `break`; only the first one after `load_state_dict` goes on in the middle.

    Args:
        dataset: A `TensorDataset`, or anything with `__len__` and `__getitem__`.
        batch_size: Examples in a batch.
        shuffle: Draw a new order for each epoch, when its loop begins.
        drop_last: Leave out the last batch if it is smaller.
        generator: Where orders are drawn from (default: the default generator).
        prefetch: How many batches a background thread reads ahead. It runs the dataset and the
            `collate_fn`, and copies host arrays to page-locked memory for a GPU; uploads stay in
            the caller's thread, and wait for nothing. Random numbers that the dataset draws
            need a generator of their own, or they mix with the caller's in an order of chance.
        collate_fn: What makes a batch of a list of items (default: `collate`).

    Raises:
        TypeError: For a dataset without length or index, a generator that is none.
        ValueError: For a batch size below 1, a negative `prefetch`.

    Example:
        >>> loader = DataLoader(TensorDataset(np.arange(5.0), np.arange(5)), batch_size=2)
        >>> [y.tolist() for x, y in loader]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, dataset: Any, batch_size: int = 1, shuffle: bool = False, drop_last: bool = False,
        generator: Generator | None = None, prefetch: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ):  # fmt: skip
        if isinstance(dataset, (tuple, Tensor)):
            raise TypeError("DataLoader: a dataset is wanted; use TensorDataset(x, y) for arrays")
        for name in ("__len__", "__getitem__"):
            if not hasattr(dataset, name):
                raise TypeError(f"DataLoader: a {type(dataset).__name__} has no {name}")
        if generator is not None and not isinstance(generator, Generator):
            raise TypeError(f"DataLoader: a mg.Generator is wanted, got {generator!r}")
        self.batch_size, self.prefetch = operator.index(batch_size), operator.index(prefetch)
        for name, least in (("batch_size", 1), ("prefetch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"DataLoader: {name} must be >= {least}, got {vars(self)[name]}")
        self.dataset, self.shuffle, self.drop_last = dataset, bool(shuffle), bool(drop_last)
        self.generator = None if generator is default_generator() else generator
        self.collate_fn = collate_fn
        # Rows of all arrays at once, unless a subclass says what an item is.
        own = getattr(type(dataset), "__getitem__", None) is TensorDataset.__getitem__
        self._whole = own and collate_fn is None
        self._position, self._resuming = _Position(0), False

    @property
    def epoch(self) -> int:
        """How many epochs have been given to their last batch."""
        return self._position.epoch

    def __len__(self) -> int:
        """Give the number of batches of an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        order, batches = np.arange(len(self.dataset)), len(self)
        position = self._position if self._resuming else _Position(self.epoch)
        self._position, self._resuming = position, False
        if self.shuffle:
            source = self.generator or default_generator()
            if position.drawn is None:
                position.drawn = source.state
            else:  # the order of a loaded state was drawn before that state was saved
                source = Generator()
                source.state = position.drawn
            order = source.permutation(len(order), backends.named("numpy"))._array
        if not batches:
            position.end()
        return self._batches(position, order, batches)

    def _batches(self, position: _Position, order: Any, batches: int) -> Iterator[Any]:
        size = self.batch_size
        rows = (order[i * size : (i + 1) * size] for i in range(position.batches, batches))
        place = self.dataset._place if self._whole else _tensors
        read = (lambda r: _staged(self._read(r))) if self.prefetch else self._read
        for part in _ahead(read, rows, self.prefetch):
            batch = place(part)
            position.batches += 1  # before it is given: a state taken then counts it
            if position.batches == batches:
                position.end()
            yield batch

    def _read(self, rows: Any) -> Any:
        if self._whole:
            return self.dataset._read(rows)
        return (self.collate_fn or collate)([self.dataset[i] for i in rows.tolist()])

    def _fits(self) -> dict[str, Any]:
        names = "batch_size", "shuffle", "drop_last"
        return {"length": len(self.dataset), **{name: getattr(self, name) for name in names}}

    def state_dict(self) -> dict[str, Any]:
        """Give the place behind the last batch that was given, as JSON values.

        A `generator` of the loader's own is part of it. The default generator is not: save its
        state beside this one, at the same moment. Behind the last batch of an epoch the place is
        the beginning of the next. After a `break` it is still behind the last batch given.
        """
        place, own = self._position, self.generator
        return {
            "epoch": place.epoch, "batches": place.batches,
            "permutation": None if place.drawn is None else dict(place.drawn),
            "generator": None if own is None else own.state, **self._fits(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `for` loop begin with the batch behind a saved place, in the same order.

        The default generator is neither drawn from nor set.

        Raises:
            ValueError: If the state is none of such a loader; it says what differs.
        """
        fits, batches, drawn = self._fits(), state.get("batches"), state.get("permutation")
        own, epoch = state.get("generator"), state.get("epoch")
        right = {name: state.get(name) == value for name, value in fits.items()} | {
            "epoch": type(epoch) is int and epoch >= 0,
            "batches": type(batches) is int and 0 <= batches < max(len(self), 1),
            "permutation": (self.shuffle and _is_state(drawn))
            or (drawn is None and not (self.shuffle and batches)),
            "generator": own is None if self.generator is None else _is_state(own),
        }
        fits |= {"batches": f"{len(self)} in an epoch", "generator": self.generator}
        wrong = [name for name, good in right.items() if not good]
        if wrong:
            here = {name: f", here {fits[name]}" if name in fits else "" for name in wrong}
            what = "; ".join(f"{name} is {state.get(name)!r}{here[name]}" for name in wrong)
            raise ValueError(f"DataLoader: the state does not fit: {what}")
        if self.generator is not None:
            self.generator.state = state["generator"]
        self._position = _Position(state["epoch"], state["batches"], drawn and dict(drawn))
        self._resuming = True


def _is_state(value: Any) -> bool:
    if not isinstance(value, Mapping) or value.keys() != {"seed", "counter"}:
        return False
    return all(type(n) is int and n >= 0 for n in value.values()) and value["seed"] < 2**128


def _ahead(read: Callable[[Any], Any], rows: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Give `read(r)` for each of the rows; a thread begins with `ahead` of them before their turn.

    The thread ends with this generator: at its end, by an exception, closed, or forgotten.
    """
    if not ahead:
        for r in rows:
            yield read(r)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[Future[Any]] = deque()
    context, pool = copy_context(), ThreadPoolExecutor(1, "microgradnd-prefetch")
    try:
        for r in rows:
            waiting.append(pool.submit(context.run, read, r))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # The collector may close this generator in the very thread that is to be joined.
        with suppress(RuntimeError):
            pool.shutdown(cancel_futures=True)


# ------------------------------------------------------------------------------ toy problems


def _classes(n: int, k: int, seed: int | Generator) -> tuple[Any, Any, Any, Generator]:
    """Give labels in turn, each example's number within its class, its class's size, a stream."""
    if operator.index(n) < 1 or operator.index(k) < 1:
        raise ValueError(f"at least one example and one class are wanted, got {n} and {k}")
    y = np.arange(n) % k
    source = seed if isinstance(seed, Generator) else Generator(seed)
    return y, np.arange(n) // k, (n - y + k - 1) // k, source


def _noisy(columns: Any, y: Any, noise: float, source: Generator) -> tuple[Any, Any]:
    """Add noise to the points, given by their columns, and shuffle them."""
    if not noise >= 0:
        raise ValueError(f"the standard deviation of the noise must be >= 0, got {noise}")
    host = backends.named("numpy")
    points = np.stack(columns, axis=1)
    points = points + source.normal(0.0, noise, points.shape, "float64", host)._array
    order = source.permutation(len(y), host)._array
    return points[order].astype(np.float32), y[order]


def moons(n: int = 200, noise: float = 0.1, seed: int | Generator = 0) -> tuple[Any, Any]:
    r"""Two half circles that grip each other.

    :math:`(\cos t, \sin t)` and :math:`(1 - \cos t, \frac12 - \sin t)`, :math:`t \in [0, \pi]`,
    with normal noise. All toy problems give X, float32 of shape (n, features), and the classes y,
    int64 of shape (n,), in random order; the same for the same seed on every backend.

    Args:
        n: Number of examples, shared out evenly to the classes.
        noise: Standard deviation of the noise.
        seed: A seed, or the generator to draw from.

    Example:
        >>> X, y = moons(100, noise=0.1, seed=0)
        >>> X.shape, y.shape
        ((100, 2), (100,))
    """
    y, i, m, source = _classes(n, 2, seed)
    t = np.pi * i / np.maximum(m - 1, 1)
    x = np.where(y == 0, np.cos(t), 1.0 - np.cos(t))
    return _noisy([x, np.where(y == 0, np.sin(t), 0.5 - np.sin(t))], y, noise, source)


def circles(
    n: int = 200, noise: float = 0.1, seed: int | Generator = 0, factor: float = 0.5
) -> tuple[Any, Any]:
    r"""A circle of radius 1 (class 0) around one of radius `factor` (class 1); see `moons`."""
    y, i, m, source = _classes(n, 2, seed)
    angle, radius = 2 * np.pi * i / m, np.where(y == 0, 1.0, factor)
    return _noisy([radius * np.cos(angle), radius * np.sin(angle)], y, noise, source)


def spirals(
    n: int = 200, noise: float = 0.05, seed: int | Generator = 0, classes: int = 2,
    turns: float = 1.0,
) -> tuple[Any, Any]:  # fmt: skip
    r"""Arms :math:`r = t, \varphi = 2\pi(\mathrm{turns}\,t + c/\mathrm{classes})`; see `moons`.

    Here :math:`t \in (0, 1]`, and c is the class.
    """
    y, i, m, source = _classes(n, classes, seed)
    t = (i + 1) / m
    angle = 2 * np.pi * (turns * t + y / classes)
    return _noisy([t * np.cos(angle), t * np.sin(angle)], y, noise, source)


def blobs(
    n: int = 200, std: float = 1.0, seed: int | Generator = 0, centers: Any = 3, features: int = 2
) -> tuple[Any, Any]:
    r"""Normal clouds :math:`x = \mathrm{center}_c + \mathrm{std}\,\varepsilon`; see `moons`.

    `centers` are points of shape (classes, features), or how many to draw from the cube
    :math:`[-10, 10)^\mathrm{features}`.
    """
    given = None if np.ndim(centers) == 0 else np.asarray(centers, np.float64)
    if given is not None and given.ndim != 2:
        raise ValueError(f"blobs: centers of shape (classes, features), got {given.shape}")
    y, _, _, source = _classes(n, centers if given is None else len(given), seed)
    if given is None:
        shape, host = (centers, features), backends.named("numpy")
        given = source.uniform(-10.0, 10.0, shape, "float64", host)._array
    return _noisy(given[y].T, y, std, source)


# ------------------------------------------------------------------------------ real data


def digits(seed: int = 0, test: int = 360) -> tuple[Any, Any, Any, Any]:
    """Give scikit-learn's 1797 handwritten digits: train X, train y, test X, test y.

    X is float32 of shape (n, 64) in [0, 1], y int64; the seed decides who is in the test.

    Raises:
        ImportError: Without scikit-learn; the message names the extra.
        ValueError: If `test` leaves nothing to train on.
    """
    load = need("sklearn.datasets", "examples", "mg.data.digits").load_digits
    images, labels = load(return_X_y=True)
    n = len(images) - operator.index(test)
    if not 0 < n <= len(images):
        raise ValueError(f"digits: test must be in [0, {len(images)}), got {test}")
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32), labels[order].astype(np.int64)
    return images[:n], labels[:n], images[n:], labels[n:]


_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_IDX_FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)  # fmt: skip
#: Where each set is published, and the MD5 sums of its unpacked files in the order above.
_PUBLISHED = {
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist/", (
        "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637",
    )),
    "fashion": ("https://github.com/zalandoresearch/fashion-mnist (data/fashion)", (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965",
    )),
}  # fmt: skip


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: a damaged gzip file: {error}") from error


def _parsed(data: bytes, path: Path) -> Any:
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES:
        raise ValueError(f"{path}: no IDX file, it begins with {data[:4].hex(' ') or 'nothing'}")
    dtype, start = np.dtype(_IDX_DTYPES[data[2]]), 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    wanted = start + math.prod(shape) * dtype.itemsize
    if len(data) != wanted or len(data) < start:
        what = "truncated" if len(data) < max(wanted, start) else "has bytes behind its end"
        raise ValueError(f"{path}: {what}: {len(data)} bytes, {wanted} for {shape} of {dtype}")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_idx(path: str | Path) -> Any:
    """Read an IDX file, packed by gzip or not, as a NumPy array.

    Raises:
        ValueError: If it is none, truncated, damaged, or longer than its header says.
    """
    return _parsed(_unpacked(Path(path)), Path(path))


def mnist(folder: str | Path, name: str = "mnist") -> tuple[Any, Any, Any, Any]:
    """Read MNIST, or `"fashion"` (Fashion-MNIST), from a folder: train X, y, test X, y.

    X is float32 of shape (n, 784) in [0, 1], y int64; 60000 and 10000 examples. The four files are
    used as they are published (`.gz`) or unpacked, and checked. Nothing is downloaded.

    Raises:
        FileNotFoundError: If files are missing; it says which, and where they are published.
        ValueError: For another name; for a file that is not the published one.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"mnist: name must be one of {sorted(_PUBLISHED)}, got {name!r}")
    folder, (where, sums) = Path(folder).expanduser(), _PUBLISHED[name]
    packed = [folder / f"{file}.gz" for file in _IDX_FILES]
    paths = [path if path.is_file() else path.with_suffix("") for path in packed]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"mnist: {folder} lacks {', '.join(missing)}; nothing is downloaded: put the four "
            f"files (.gz or unpacked) of {name} there, they are published at {where}"
        )
    arrays = []
    for path, md5 in zip(paths, sums, strict=True):
        data = _unpacked(path)
        array, got = _parsed(data, path), hashlib.md5(data, usedforsecurity=False).hexdigest()
        if got != md5:
            other = [f", it belongs to {s!r}" for s, (_, m) in _PUBLISHED.items() if got in m]
            raise ValueError(
                f"mnist: {path} is not the published file of {name!r}{''.join(other)} (MD5 of the "
                f"unpacked file {got}, wanted {md5}); get it again from {where}"
            )
        labels = array.ndim == 1
        arrays.append(array.astype(np.int64) if labels else array.reshape(len(array), -1))
    train, train_y, test, test_y = arrays
    return train / np.float32(255), train_y, test / np.float32(255), test_y
