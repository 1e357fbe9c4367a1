"""What a Tensor can do as an array without the tape: looks, conversions, exchange, copying."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backend as backends
from .backend import Backend

if TYPE_CHECKING:
    from .surface import Surface  # a stub, generated: the operators and methods by name
else:
    Surface = object
from .registry import REGISTRY

FLOATS = "efd"


def check_dtype(dtype: Any) -> Any:
    """Give a dtype in native byte order.

    Raises:
        TypeError: Unless it is bool, an integer, float16, float32 or float64.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        raise TypeError(f"complex numbers are not supported, got {dtype}; take .real and .imag")
    if dtype.kind not in "biuf" or (dtype.kind == "f" and dtype.char not in FLOATS):
        raise TypeError(f"dtype {dtype} is not supported; use bool, an integer or float16/32/64")
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def host_array(data: Any, floats: Any) -> np.ndarray:
    """Make a NumPy array of numbers, lists or an array; Python floats become `floats`.

    Raises:
        TypeError: For what is not made of real numbers.
        ValueError: For ragged lists.
    """
    if type(data).__name__ == "MaskedArray":  # numpy.ma itself is slow to import
        raise TypeError("masked arrays are not supported; use .filled() first")
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    plain = isinstance(first, (np.ndarray, np.generic, ArrayLike))  # these keep their dtype
    try:
        array = np.asarray(data)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(f"ragged data: {ragged(data)}") from error
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"a tensor is made of numbers, got {first_odd(data)!r} (dtype {array.dtype})"
        )
    dtype = check_dtype(array.dtype)
    return array.astype(dtype if plain or dtype.kind != "f" else floats, copy=False)


def ragged(data: Any) -> str:
    """Say where the lengths of nested lists disagree."""
    for dim in range(1, 65):
        lengths = [len(row) if hasattr(row, "__len__") else 0 for row in data]
        for length in lengths:
            if length != lengths[0]:
                return f"expected a sequence of length {lengths[0]} at dim {dim}, got {length}"
        data = [item for row in data for item in row]
    return "the lengths of its rows differ"


def first_odd(data: Any) -> Any:
    """Give the first element of nested lists that is not a number."""
    if isinstance(data, (list, tuple)):
        odd = [first_odd(item) for item in data]
        return next((item for item in odd if not isinstance(item, (int, float))), None)
    return data.flat[0] if isinstance(data, np.ndarray) and data.size else data


#: Device types of DLPack whose memory each backend takes over: the host's, pinned or not; CUDA's.
DLPACK = {1: "numpy", 3: "numpy", 11: "numpy", 2: "cupy", 13: "cupy"}


def imported(data: Any) -> tuple[Backend, Any]:
    """Take over the memory of an object that exports DLPack; gives backend and array.

    Raises:
        TypeError: For a dtype or a device that no backend has.
        BackendError: If it is in CUDA memory and CuPy cannot be used here.
    """
    what, device = type(data).__name__, data.__dlpack_device__()[0]
    if device not in DLPACK:
        raise TypeError(
            f"a {what} on a device of DLPack's type {int(device)} cannot be taken over, only one "
            "in CPU or CUDA memory; move it there first"
        )
    try:
        backend = backends.named(DLPACK[device])
    except backends.BackendError as error:
        raise type(error)(f"a {what} in CUDA memory is taken over by CuPy: {error}") from error
    try:
        array = backend.from_dlpack(data)
    except (RuntimeError, TypeError) as error:
        if "dtype" not in str(error):
            raise
        name = str(getattr(data, "dtype", "of its elements")).rpartition(".")[2]
        raise TypeError(
            f"dtype {name} is not supported; use bool, an integer or float16/32/64"
        ) from error
    check_dtype(array.dtype)
    return backend, array


def to_array(
    data: Any,
    dtype: Any = None,
    backend: Backend | None = None,
    floats: Any = np.float32,
    copy: bool = False,
) -> Any:
    """Make a raw array on `backend` (default: where `data` lives; host data: the current one).

    Args:
        data: Numbers, nested lists, an array, or an object that exports DLPack.
        dtype: The dtype wanted.
        backend: Where the array shall live.
        floats: What Python floats become.
        copy: Never share memory with `data`.

    Raises:
        TypeError: For text, objects, None, complex numbers.
        ValueError: For ragged lists.
    """
    kind = backends.BY_TYPE.get(type(data))
    if kind is None and hasattr(data, "__dlpack__") and not isinstance(data, np.ndarray):
        kind, data = imported(data)
    if kind is None or kind.name == "numpy":
        host = host_array(data, floats if dtype is None else np.float64)
        copy = copy and host is data
        data, kind = host, backends.named("numpy")
        backend = backend or backends.get()
    check_dtype(data.dtype)
    backend = backend or kind
    if dtype is not None and (dtype := check_dtype(dtype)) != data.dtype:
        data, copy = kind.xp.astype(data, dtype), False
    if backend is not kind:
        return backend.asarray(kind.to_numpy(data))
    return kind.xp.copy(data) if copy else data


def cotangent(value: Any, like: Any, what: str) -> Any:
    """Give a gradient handed in by a user as a Tensor of the shape and dtype of `like`.

    Raises:
        ValueError: If the shape differs; nothing is broadcast silently.
        TypeError: If it lives on another backend.
    """
    if not isinstance(value, ArrayLike):
        own = type(value) in backends.BY_TYPE
        value = REGISTRY["copy"](value if own else to_array(value, like.dtype, like.backend))
    if value.shape != like.shape:
        raise ValueError(
            f"{what}: the gradient has shape {value.shape}, the tensor {like.shape}; give one of "
            "the tensor's shape, nothing is broadcast here"
        )
    if value.backend is not like.backend:
        raise TypeError(
            f"{what}: a gradient on {value.backend.name!r} for a tensor on {like.backend.name!r}"
        )
    return value if value.dtype == like.dtype else REGISTRY["astype"](value, like.dtype)


def check_gradient(value: Any, tensor: Any) -> None:
    """Make sure that a value can be assigned as a tensor's `grad`.

    Raises:
        RuntimeError: If the tensor does not require a gradient.
        TypeError: If the value is no Tensor, or of another dtype or backend.
        ValueError: If its shape differs.
    """
    if not tensor.requires_grad:
        raise RuntimeError("this tensor does not require a gradient; none can be assigned")
    if not isinstance(value, ArrayLike):
        raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
    if value.shape != tensor.shape:
        raise ValueError(f"grad has shape {value.shape}, the tensor {tensor.shape}")
    for what, have, want in (
        ("dtype", value.dtype, tensor.dtype),
        ("backend", value.backend.name, tensor.backend.name),
    ):
        if have != want:
            raise TypeError(f"grad has {what} {have}, the tensor {want}")


def _rebuild(kind: Any, values: np.ndarray, backend: str, requires_grad: bool) -> Any:
    with backends.use(backend):
        return kind(values, requires_grad=requires_grad)


class ArrayLike(Surface):
    """The array side of a Tensor; the engine's side is in `tape`."""

    __slots__ = ()
    __array_priority__ = 200.0

    _array: Any
    requires_grad: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The length along each axis."""
        return self._array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def dtype(self) -> Any:
        """The NumPy dtype."""
        return self._array.dtype

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self._array.nbytes

    @property
    def backend(self) -> Backend:
        """The backend that the array belongs to."""
        return backends.of(self._array)

    # --- out of the library

    def _leaves_the_tape(self, what: str) -> None:
        if self.requires_grad:
            raise RuntimeError(
                f"{what}: this tensor requires a gradient; use t.detach() first, for example "
                "t.detach().numpy(), or mg.stack([...]) for a tensor of tensors"
            )

    def numpy(self) -> np.ndarray:
        """Give the values as a NumPy array: the same memory on NumPy, a copy from a device.

        The array is read-only while the tape keeps its values.

        Raises:
            RuntimeError: If the tensor requires a gradient.
        """
        self._leaves_the_tape("numpy()")
        return self.backend.to_numpy(self.data)  # type: ignore[attr-defined]

    def _host(self) -> np.ndarray:
        return self.backend.to_numpy(self._array)

    def item(self) -> float | int | bool:
        """Give the only element as a Python number.

        Raises:
            ValueError: If there is not exactly one.
        """
        if self.size != 1:
            raise ValueError(f"item: one element is wanted, got shape {self.shape}")
        return self._host().item()

    def tolist(self) -> Any:
        """Give the values as nested Python lists."""
        return self._host().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.ndim:
            raise TypeError(f"only a 0-d integer tensor is an index, got {self.dtype} {self.shape}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth value of a tensor of shape {self.shape} is ambiguous; use .any() or "
                ".all()"
            )
        return bool(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self._host() == getattr(value, "_array", value)).any())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._leaves_the_tape("conversion to a NumPy array")
        if self.backend.name != "numpy":
            raise TypeError(
                f"this tensor is on {self.backend.name!r}; nothing is moved silently, use .numpy()"
            )
        return np.array(self.data, dtype=dtype, copy=copy)  # type: ignore[attr-defined]

    def __dlpack__(self, **options: Any) -> Any:
        self._leaves_the_tape("DLPack export")
        if any(step < 0 for step in self._array.strides):  # PyTorch would end the process
            raise BufferError(
                "DLPack export: this tensor is a view that goes backwards through memory, which "
                "other libraries cannot take; export t.clone()"
            )
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    # --- copies

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_leaf:  # type: ignore[attr-defined]
            raise RuntimeError(
                "only leaves can be pickled or copied; use .detach(), or .clone() for a copy on "
                "the tape"
            )
        return _rebuild, (type(self), self._host(), self.backend.name, self.requires_grad)

    # --- looks

    def __repr__(self) -> str:
        try:
            return self._describe()
        except backends.TransferError:  # asked for by `forbid_transfers`
            raise
        except Exception as error:  # a debugger shows half-made and broken tensors too
            if isinstance(error, IndexError) and hasattr(error, "__notes__"):
                raise  # an index fault on a GPU, which is told only once
            return f"<{type(self).__name__} that cannot be shown: {type(error).__name__}: {error}>"

    def _describe(self) -> str:
        notes = [np.array2string(self._host(), separator=", ", prefix=f"{type(self).__name__}(")]
        if not self.size and self.ndim > 1:
            notes.append(f"shape={self.shape}")
        if self.dtype not in (np.float32, np.int64, np.bool_):
            notes.append(f"dtype={self.dtype}")
        if self.backend.name != "numpy":
            notes.append(f"backend={self.backend.name!r}")
        node = getattr(self, "_node", None)
        if node is not None:
            notes.append("requires_grad=True" if node.op is None else f"op={node.op.name}")
        return f"{type(self).__name__}({', '.join(notes)})"

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self.size != 1:
            raise TypeError(f"format {spec!r} needs one element, got shape {self.shape}")
        return format(self.item(), spec)
