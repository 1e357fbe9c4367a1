"""Checkpoints: everything that a training run needs to go on, in one safetensors file.

The tensors of `model` carry their parameter names, as PyTorch writes them; those of the other
objects the path to them, as "optimizer/state/0.weight/exp_avg". Whatever is no tensor is JSON in
the metadata, under one key:

    {"schema": 1, "version": ..., "crc32": ..., "objects": {name: contents}}

`contents` is the state with each tensor replaced by `{"$tensor": key}`, an array by
`{"$array": key}`, a NumPy number by `{"$scalar": key}`; what JSON cannot say is written as
`{"$float": "nan"}`, `{"$tuple": [...]}`, `{"$dict": [[key, value], ...]}`. Nothing in a file is
ever executed.
"""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import secrets
import stat
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from . import __version__
from . import backend as backends
from .arraylike import host_array, to_array
from .extras import need
from .functions import asarray
from .modes import no_grad
from .random import Generator
from .tape import Tensor, raw, wrap

try:
    import fcntl
except ImportError:  # pragma: no cover: Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
KEY = "microgradnd"
SUFFIX = ".microgradnd-tmp"
LONGEST_HEADER = 100_000_000  # as in safetensors
DTYPES = {"BOOL": "|b1"} | {f"{k.upper()}{8 * n}": f"<{k}{n}" for k in "iuf" for n in (1, 2, 4, 8)}
OTHERS = {
    b"PK\x03\x04": "a zip archive, as torch.save and numpy.savez write",
    b"\x80": "a pickle, which could run any program",
}

Path = str | os.PathLike[str]
Arrays = dict[str, np.ndarray[Any, Any]]


class CheckpointError(ValueError):
    """A file that is no sound checkpoint, or does not fit what it shall be loaded into."""


# --- writing


def save(path: Path, /, *unnamed: Any, **objects: Any) -> None:
    """Write objects into one file, which replaces the old one at once or not at all.

    The file is flushed to the disk and read back before it takes the place of the old one, whose
    permissions it gets. An optimizer is stored under the names that its parameters have in the
    modules saved with it.

    Args:
        path: The file, customarily `*.safetensors`; a link is followed.
        objects: Modules, optimizers, schedulers, loaders (whatever has `state_dict` and
            `load_state_dict`), generators, Tensors, arrays, and (nested) lists, tuples and dicts
            of tensors, arrays, numbers, text and None. The tensors of `model`, or of the only
            object, are stored under their bare names, the others' names have a slash: so
            `safetensors.torch.load_file` gives PyTorch's state dict of a model that is saved alone.
        unnamed: None; an object without a name is a TypeError.

    Raises:
        TypeError: For what cannot be stored (complex numbers, objects, functions).
        ValueError: If two tensors would have the same name, if one is called `__metadata__`, or if
            a parameter of an optimizer belongs to nothing that is saved with it.
        OSError: If writing fails; the old file is intact.
        ImportError: If safetensors is not installed.

    Example:
        >>> import microgradnd as mg, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mg.save(f"{folder}/run.safetensors", weight=mg.tensor([1.0, 2.0]), epoch=3)
        ...     mg.load(f"{folder}/run.safetensors")
        {'weight': Tensor([1., 2.]), 'epoch': 3}
    """
    library = need("safetensors.numpy", "io", "mg.save")
    _refuse("save", path, unnamed)
    if not objects:
        raise ValueError("mg.save: nothing to save; name the objects, as in model=model")
    names = _parameter_names(objects)
    arrays: Arrays = {}
    structure = {}
    for name, thing in objects.items():
        prefix = "" if name == "model" or len(objects) == 1 else name
        state = _state(thing)
        if names and hasattr(thing, "param_groups"):
            state = _under_names(state, _labels(name, thing, names))
        structure[name] = _encode(state, prefix, name, arrays)
    meta = {"schema": SCHEMA, "version": __version__, "objects": structure}
    text = _json(meta | {"crc32": _checksum(meta, arrays)})
    _replace(path, library.save(arrays, metadata={KEY: text}))


def _refuse(what: str, path: Any, unnamed: Any) -> None:
    """Raise for objects without a name, and for PyTorch's order of the arguments."""
    if unnamed or not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"mg.{what}: the path comes first, and each object has a name, as in "
            f"mg.{what}('run.safetensors', model=model)"
        )


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _checksum(meta: dict[str, Any], arrays: Arrays) -> int:
    crc = zlib.crc32(_json([meta[k] for k in ("schema", "version", "objects")]).encode())
    for key in sorted(arrays):
        crc = zlib.crc32(f"{key} {arrays[key].dtype.str} {arrays[key].shape}".encode(), crc)
        crc = zlib.crc32(arrays[key].data, crc)
    return crc


def _state(thing: Any) -> Any:
    if isinstance(thing, Generator):
        return dict(thing.state)
    return thing.state_dict() if hasattr(thing, "load_state_dict") else thing


def _parameter_names(objects: Mapping[str, Any]) -> dict[int, str]:
    """Give the names under which parameters are stored, by identity; none without a module."""
    names: dict[int, str] = {}
    if not any(hasattr(thing, "named_parameters") for thing in objects.values()):
        return names
    for name, thing in sorted(objects.items(), reverse=True):  # of several names, the first
        prefix = "" if name == "model" else f"{name}/"
        if hasattr(thing, "named_parameters"):
            names.update({id(p): prefix + own for own, p in thing.named_parameters()})
        elif isinstance(thing, Tensor):
            names[id(thing)] = name
    return names


def _labels(name: str, optimizer: Any, names: Mapping[int, str]) -> list[str]:
    """Give the names of an optimizer's parameters, in its order."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    lost = [i for i, p in enumerate(parameters) if id(p) not in names]
    if lost:
        raise ValueError(
            f"{name}: {len(lost)} of its {len(parameters)} parameters (in its order: "
            f"{_some(lost)}) belong to no module given with it; name those modules too"
        )
    return [names[id(p)] for p in parameters]


def _under_names(state: Any, labels: Any) -> dict[str, Any]:
    """Exchange the keys of an optimizer's parameters, numbers for names or names for numbers."""
    groups = [g | {"params": [labels[i] for i in g["params"]]} for g in state["param_groups"]]
    own = {labels[i]: slots for i, slots in state["state"].items()}
    return {**state, "state": own, "param_groups": groups}


def _encode(value: Any, path: str, name: str, arrays: Arrays) -> Any:
    """Give the JSON of a value and put its tensors into `arrays`, each under its path."""
    kind = "tensor" if isinstance(value, Tensor) else "scalar"
    if isinstance(value, np.ndarray) or type(value) in backends.BY_TYPE:
        kind = "array"
    if kind != "scalar" or isinstance(value, np.generic):
        key = path or name
        if key == "__metadata__":
            raise ValueError(f"mg.save: {name}: safetensors keeps the name {key!r} for itself")
        if key in arrays:
            raise ValueError(f"mg.save: two tensors would be stored under the name {key!r}")
        arrays[key] = _plain(value, key)
        return {f"${kind}": key}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}

    def inner(item: Any, key: Any) -> Any:
        return _encode(item, f"{path}/{key}" if path else str(key), name, arrays)

    if isinstance(value, (list, tuple)):
        items = [inner(item, i) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: inner(item, k) for k, item in value.items()}
        odd: Arrays = {}
        keys = [k.item() if isinstance(k, np.generic) else k for k in value]
        pairs = [[_encode(k, path, name, odd), inner(value[k], k)] for k in keys]
        if odd:
            raise TypeError(f"mg.save: {path or name} has a tensor as the key of a dict")
        return {"$dict": pairs}
    raise TypeError(
        f"mg.save: {path or name} is a {type(value).__name__}; only tensors, arrays, numbers, "
        "text, None and lists, tuples and dicts of them can be saved, or under a name of its own "
        "what has state_dict() and load_state_dict()"
    )


def _plain(value: Any, key: str) -> np.ndarray[Any, Any]:
    """Give an array on the host, in C order and little-endian.

    safetensors writes wrong bytes for other layouts without saying so (safetensors#825).
    """
    value = raw(value)
    if type(value) in backends.BY_TYPE:
        value = backends.of(value).to_numpy(value)
    try:
        value = host_array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"mg.save: {key}: {error}") from error
    return np.asarray(value, value.dtype.newbyteorder("<"), order="C")


def _replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another so that a crash leaves the old one or the new one."""
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"mg.save: there is no folder {folder}; make it first")
    _sweep(folder, f".{name[:60]}.")
    temporary = ""
    try:
        while True:
            temporary = os.path.join(folder, f".{name[:60]}.{secrets.token_hex(8)}{SUFFIX}")
            with open(temporary, "xb") as file:
                if fcntl:  # alive, says this to `_sweep`; freed by any death
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX)
                    except OSError as error:  # a file system without locks: `_sweep` gets none
                        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                            raise
                if not os.fstat(file.fileno()).st_nlink:
                    continue  # swept away before it was locked
                file.write(data)
                file.flush()
                with suppress(FileNotFoundError):
                    os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
                os.fsync(file.fileno())
                _read(temporary)
                if not fcntl:  # pragma: no cover: Windows renames no open file
                    file.close()
                os.replace(temporary, target)
                break
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(folder: str, prefix: str) -> None:
    """Remove what killed processes left behind, but no file that is being written."""
    for name in os.listdir(folder):
        if name.startswith(prefix) and name.endswith(SUFFIX):
            with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(file.name)


# --- reading


def load(path: Path, /, *unnamed: Any, **objects: Any) -> dict[str, Any]:
    """Read a file that `save` or `safetensors.torch` wrote, into objects if some are given.

    All is read and checked before anything is changed, and if one object does not take its state,
    the others get back what they had. A file without our metadata, as PyTorch's, holds one object:
    the one asked for, or `model`. bfloat16 becomes float32, exactly.

    Args:
        path: The file.
        objects: What to load into, under the names of `save`: modules, optimizers (together with
            the modules of their parameters), schedulers, loaders, generators; Tensors and arrays
            are overwritten in place. Numbers, text, None, lists and dicts cannot be loaded into:
            their contents are given back.
        unnamed: None; an object without a name is a TypeError.

    Returns:
        The contents that were loaded into nothing, by name: Tensors (on the current backend),
        arrays, numbers, text, lists and dicts.

    Raises:
        CheckpointError: If the file is damaged, of another format or schema, or does not fit the
            objects; all faults at once.
        OSError: If the file cannot be read.

    Example:
        >>> import microgradnd as mg, tempfile
        >>> weight = mg.zeros(2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mg.save(f"{folder}/run.safetensors", weight=mg.tensor([1.0, 2.0]), epoch=3)
        ...     mg.load(f"{folder}/run.safetensors", weight=weight)
        {'epoch': 3}
        >>> weight
        Tensor([1., 2.])
    """
    _refuse("load", path, unnamed)
    structure, arrays = _read(path)
    if structure is None:
        only = next(iter(objects)) if len(objects) == 1 else "model"
        structure = {only: {key: {"$tensor": key} for key in arrays}}
    try:
        contents = {name: _decode(value, arrays) for name, value in structure.items()}
    except (LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata are damaged: {error!r}") from error
    nan = [k for k, a in arrays.items() if a.dtype.kind == "f" and np.isnan(a).any()]
    if nan:
        warnings.warn(f"{path}: NaN in {_some(nan)}", RuntimeWarning, stacklevel=2)
    names = _parameter_names(objects)
    faults: dict[str, Exception] = {}
    doors = {}
    for name, thing in objects.items():
        try:
            if name not in contents:
                raise ValueError(f"not in the file, which holds {_some([*contents])}")
            if thing is not None and not isinstance(thing, (int, float, str, list, tuple, dict)):
                doors[name] = _door(thing, names)
        except Exception as error:
            faults[name] = error
    undo: list[Any] = []
    try:
        # Schedulers set rates when they are loaded; those of the optimizer count.
        for name in sorted(doors, key=lambda name: hasattr(objects[name], "param_groups")):
            put, old = doors[name]
            undo.insert(0, (put, old))
            try:
                put(contents[name])
            except Exception as error:
                faults[name] = error
        if faults:
            told = [f"{path} does not fit; nothing was changed:"]
            for name in filter(faults.get, objects):
                fault = faults[name]
                told.append(f"{name}: {fault if isinstance(fault, ValueError) else repr(fault)}")
            raise CheckpointError("\n  ".join(told)) from faults.popitem()[1]
    except BaseException:
        with ExitStack() as stack:  # calls them all, the last one first, even if one raises
            for put, old in undo:
                stack.callback(put, old)
        raise
    return {name: value for name, value in contents.items() if name not in doors}


def _some(items: list[Any]) -> str:
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if items[5:] else "")


def _door(thing: Any, names: Mapping[int, str]) -> tuple[Callable[[Any], Any], Any]:
    """Give the function that checks a state and puts it into an object, and a copy of its own."""
    if hasattr(thing, "load_state_dict"):
        old = copy.deepcopy(thing.state_dict())
        if hasattr(thing, "param_groups"):
            return lambda state: thing.load_state_dict(_numbered(state, thing, names)), old
        return thing.load_state_dict, old
    if isinstance(thing, Generator):
        return lambda state: setattr(thing, "state", state), thing.state
    if not (isinstance(thing, Tensor) or type(thing) in backends.BY_TYPE):
        raise TypeError(f"nothing can be loaded into a {type(thing).__name__}")
    target = asarray(thing)

    def assign(state: Any) -> None:
        have = f"{state.dtype} {state.shape}" if hasattr(state, "shape") else type(state).__name__
        if have != (want := f"{target.dtype} {target.shape}"):
            raise ValueError(f"the file has {have}, {want} is wanted")
        with no_grad():
            target.assign_(wrap(to_array(raw(state), backend=target.backend)))

    return assign, wrap(target.backend.xp.copy(target._array))


def _numbered(state: Any, optimizer: Any, names: Mapping[int, str]) -> Any:
    """Give an optimizer's state under the numbers of its own parameters.

    Raises:
        ValueError: If the names in the file are not those of its parameters.
    """
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if groups is None or "state" not in state:
        raise ValueError("the file has no state of an optimizer under this name")
    if not any(isinstance(label, str) for group in groups for label in group["params"]):
        return state  # saved without its modules: by number
    if not names:
        raise ValueError("it was saved under parameter names; give its modules in the same call")
    order = iter(_labels("the optimizer", optimizer, names))
    own = [[next(order) for _ in group["params"]] for group in optimizer.param_groups]
    wanted = [sorted(group) for group in own]
    found = [sorted(group["params"]) for group in groups]
    if found != wanted:
        missing = sorted({n for g in wanted for n in g} - {n for g in found for n in g})
        unknown = sorted({n for g in found for n in g} - {n for g in wanted for n in g})
        raise ValueError(
            f"parameters missing in the file: {_some(missing) or 'none'}; unknown ones in it: "
            f"{_some(unknown) or 'none'}"
            + ("" if missing or unknown else "; the groups are others, or in another order")
        )
    number = {label: i for i, label in enumerate(label for group in own for label in group)}
    # As in PyTorch, a group's list of numbers says what belongs to its first parameter, and so on.
    own_order = [g | {"params": labels} for g, labels in zip(groups, own, strict=True)]
    return _under_names(state | {"param_groups": own_order}, number)


def _decode(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    tag: str = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: _decode(item, arrays) for key, item in value.items()}
    inner: Any = value[tag]
    if tag == "$float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[inner]
    if tag == "$tuple":
        return tuple(_decode(inner, arrays))
    if tag == "$dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in inner}
    native = arrays[inner].astype(arrays[inner].dtype.newbyteorder("="))  # a copy, aligned
    if tag == "$tensor":
        return Tensor(native)
    return {"$array": native, "$scalar": native[()]}[tag]


def _read(path: Path) -> tuple[dict[str, Any] | None, Arrays]:
    """Read and check a file; gives our description of its contents (if any) and its arrays.

    Raises:
        CheckpointError: If it is damaged or something else.
    """
    library = need("safetensors", "io", "mg.load")
    with open(path, "rb") as file:
        data = file.read()
    try:
        return _parse(data, library)
    except (KeyError, TypeError, ValueError, RecursionError, library.SafetensorError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{path} is no sound checkpoint: {told}") from error


def _parse(data: bytes, library: Any) -> tuple[dict[str, Any] | None, Arrays]:
    for magic, what in OTHERS.items():
        if data.startswith(magic) and data[8:9] != b"{":
            raise ValueError(f"it is {what}")
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, LONGEST_HEADER):
        raise ValueError(
            f"it is empty, cut off or of another format ({len(data)} bytes, header of {size})"
        )
    header = json.loads(data[8 : 8 + size], object_pairs_hook=_unique)
    arrays = {}
    for key, entry in library.deserialize(data):
        if entry["dtype"] not in {*DTYPES, "BF16"}:
            raise ValueError(f"{key} has the dtype {entry['dtype']}, which NumPy or we lack")
        array = np.frombuffer(entry["data"], DTYPES.get(entry["dtype"], "<u2"))
        if entry["dtype"] == "BF16":  # the upper half of a float32
            array = (array.astype("<u4") << 16).view("<f4")
        arrays[key] = array.reshape(entry["shape"])
    notes = header.get("__metadata__", {})
    if KEY not in notes:
        if any('"crc32":' in note for note in notes.values()):
            raise ValueError("its metadata are damaged")
        return None, arrays
    meta = json.loads(notes[KEY], object_pairs_hook=_unique)
    if meta["schema"] != SCHEMA:
        raise ValueError(
            f"its schema is {meta['schema']!r:.20}, written by version {meta['version']}; this is "
            f"version {__version__}, which reads schema {SCHEMA}"
        )
    if meta["crc32"] != _checksum(meta, arrays):
        raise ValueError("its checksum is wrong: the file is damaged, or was changed after mg.save")
    return meta["objects"], arrays


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a JSON key occurs twice")
    return dict(pairs)
