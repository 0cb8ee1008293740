"""The array of the stand-in for CuPy: no NumPy array, and as unwilling as CuPy's to be mixed with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.standin.memory import MemoryPointer, allocate
from tests.standin.streams import Device, current_device, get_current_stream, timeline

__all__ = ["HOST_ONLY", "ndarray", "on_device", "wrapped"]

CODES = "?bhilqBHILQefdFD"


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """Return a dtype that CuPy knows: numbers, no structures, no text, no objects."""
    dtype = np.dtype(dtype)
    if dtype.char not in CODES and dtype.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801
    """``cupy.ndarray``: knows its device and its memory, and does not mix with host arrays."""

    __array_priority__ = 100
    __imatmul__ = None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: MemoryPointer | None = None, strides: Any = None, order: str = "C"
    ) -> None:
        dtype = checked_dtype(dtype)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memptr = allocate(size) if memptr is None else memptr
        if size:
            raw = memptr.mem.bytes()[memptr.ptr - memptr.mem.ptr :]
            host = np.ndarray(shape, dtype, raw.data, 0, strides, order)
        else:
            host = np.empty(shape, dtype)
        self._become(host, memptr)

    def _become(self, host: np.ndarray, memptr: MemoryPointer) -> None:
        self._host, self._memptr = host, memptr

    @classmethod
    def _view_of(cls, host: np.ndarray, source: ndarray) -> ndarray:
        made = cls.__new__(cls)
        offset = host.ctypes.data - source._memptr.mem.ptr if host.size else 0
        made._become(host, MemoryPointer(source._memptr.mem, offset))
        return made

    # What it is.

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: self._host.flags)
    data = property(lambda self: self._memptr)
    T = property(lambda self: self.transpose())

    @property
    def device(self) -> Device:
        return Device(self._memptr.device_id)

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get()[()], spec)

    # To the host: each of these waits.

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        with self.device:  # CuPy goes there for it
            use("a copy to the host", [self], [])
            get_current_stream().synchronize()
        return np.array(self._host, order="C")

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __reduce__(self) -> Any:
        return on_device, (self.get(),)

    # Items.

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[row] for row in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        indices = _arrays(key)
        if isinstance(key, np.ndarray) and key.dtype.kind == "i":
            use("indexing", [self], [], rows={id(self): key})
            return adopt(self._host[key], self)
        found = self._host[_plain(key, host_too=True)]
        if isinstance(found, np.ndarray) and np.may_share_memory(found, self._host):
            return ndarray._view_of(found, self)  # no work for a device
        use("indexing", [self, *indices], [])
        if any(index.dtype == bool for index in indices):
            get_current_stream().synchronize()  # how many are there?
        return adopt(found, self)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        rows = None
        if isinstance(key, np.ndarray) and key.dtype.kind == "i" and self.flags.c_contiguous:
            rows = {id(self): key}
            _memory(self).is_by_rows = True
        use("an assignment", [*_arrays(key), *_arrays(value)], [self], rows=rows)
        self._host[_plain(key, host_too=True)] = _plain(value)

    # NumPy's protocols.

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"numpy.{ufunc.__name__}.{method} was called on a device array")
        out = options.pop("out", ())
        return compute(ufunc, inputs, options, out[0] if out else None)

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> Any:
        if function is np.shape:
            return self.shape
        raise TypeError(f"numpy.{function.__name__} was called on a device array")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the frameworks on the other side have only the CPU

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        use("a hand-over", [self], [self])
        if stream not in (None, -1):  # CUDA's 1 is the legacy default stream, whose address is 0
            timeline().follow((current_device(), 0 if stream == 1 else stream))
        return lent(self._host, self).__dlpack__()

    # Methods that make arrays.

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        return ndarray._view_of(self._host if dtype is None else self._host.view(checked_dtype(dtype)), self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        dtype = checked_dtype(dtype)
        if not copy and dtype == self.dtype:
            return self
        use("a cast", [self], [])
        with np.errstate(invalid="ignore"):
            return adopt(self._host.astype(dtype, order=order), None)  # type: ignore[arg-type]

    def copy(self, order: str = "C") -> ndarray:
        use("a copy", [self], [])
        return adopt(self._host.copy(order=order), None)  # type: ignore[arg-type]


class _Lent:
    """Memory, and whoever must live as long as it is used."""

    def __init__(self, host: np.ndarray, owner: Any) -> None:
        self._owner = owner
        self.__array_interface__ = {**host.__array_interface__, "data": (host.ctypes.data, False)}


def lent(host: np.ndarray, owner: Any) -> np.ndarray:
    """Return the same memory, writable, in an array that keeps its owner, and so a block of the pool, alive."""
    return np.asarray(_Lent(host, owner)) if host.dtype.isbuiltin == 1 else host


HOST_ONLY = ("resize", "getfield", "setfield", "setflags", "to_device", "ctypes", "tofile", "byteswap", "__contains__")


def _method(name: str) -> Callable[..., Any]:
    def call(self: ndarray, *arguments: Any, **options: Any) -> Any:
        use(name, [self, *_arrays((arguments, options))], [])
        result = getattr(self._host, name)(
            *_plain(arguments, host_too=name in ("take", "transpose")), **_plain(options)
        )
        return adopt(result, self)

    call.__name__ = name
    return call


for _name in (
    *("all", "any", "argmax", "argmin", "argsort", "clip", "cumsum", "dot", "flatten", "max", "mean", "min", "nonzero"),
    *("prod", "ravel", "repeat", "reshape", "round", "squeeze", "std", "sum", "swapaxes", "take", "transpose", "var"),
):
    setattr(ndarray, _name, _method(_name))


def _arrays(value: Any) -> list[ndarray]:
    """Return the device arrays in arguments, keys and lists."""
    if isinstance(value, ndarray):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [array for item in value for array in _arrays(item)]
    return []


def _plain(value: Any, host_too: bool = False) -> Any:
    """Return arguments with NumPy's arrays in the place of the device's, and refuse those that were NumPy's already."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray) and not host_too:
        raise TypeError(f"Unsupported type {type(value)}: a host array meets a device array")
    if isinstance(value, dict):
        return {name: _plain(item, host_too) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(item, host_too) for item in value)
    return value


def _memory(array: ndarray) -> Any:
    return getattr(array._memptr.mem, "memory", array._memptr.mem)


def use(
    what: str,
    reads: list[ndarray],
    writes: list[ndarray],
    key: Any = None,
    rows: dict[int, np.ndarray] | None = None,
) -> None:
    """Put work on the current stream: all its arrays must lie on the current device.

    `rows` says by the identity of an array which of its rows are touched, where not all are. It counts for memory that
    has been written by rows before, so that most has one history only.
    """
    for array in (*reads, *writes):
        if array.size and array._memptr.device_id != current_device():
            raise ValueError(
                f"{what}: the array lies on cuda:{array._memptr.device_id}, and cuda:{current_device()} is current"
            )

    def pieces(array: ndarray) -> list[Any]:
        memory = _memory(array)
        if rows is None or id(array) not in rows or not memory.is_by_rows:
            return [memory]
        first, size = array._memptr.ptr - memory.ptr, array.nbytes // len(array)
        chosen = np.unique(rows[id(array)] % len(array)).tolist()
        return [memory.part(first + row * size, first + (row + 1) * size) for row in chosen]

    def memory(arrays: list[ndarray]) -> list[Any]:
        return [piece for array in arrays if array.size for piece in pieces(array)]

    timeline().enqueue(what, memory(reads), memory(writes), key)


def adopt(result: Any, source: ndarray | None) -> Any:
    """Return what NumPy computed as a device array: a view where it is one of `source`, else in memory of its own."""
    if isinstance(result, tuple):
        return tuple(adopt(item, source) for item in result)
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    host = np.asarray(result)
    if source is not None and isinstance(result, np.ndarray) and np.may_share_memory(host, source._host):
        return ndarray._view_of(host, source)
    if host.flags.c_contiguous or any(stride < 0 for stride in host.strides):
        made = ndarray(host.shape, host.dtype)
    else:  # a transposed copy stays transposed
        lengths = sorted(range(host.ndim), key=lambda axis: -abs(host.strides[axis]))
        made = ndarray([host.shape[axis] for axis in lengths], host.dtype)
        made._host = made._host.transpose(np.argsort(lengths))
    made._host[...] = host
    use("a result", [], [made])
    return made


def on_device(value: Any, dtype: Any = None) -> ndarray:
    """Copy a host array to the current device."""
    host = np.asarray(value, dtype)
    checked_dtype(host.dtype)
    made = ndarray(host.shape, host.dtype)
    made._host[...] = host
    use("an upload", [], [made])
    return made


def compute(function: Any, inputs: Any, options: dict[str, Any], out: ndarray | None) -> Any:
    """Call a NumPy function on the memory of device arrays."""
    plain, named = _plain(tuple(inputs)), _plain(options)
    arrays = _arrays((inputs, options))
    use(getattr(function, "__name__", str(function)), arrays, [] if out is None else [out])
    if out is None:
        shared = next((array for array in arrays), None)
        return adopt(function(*plain, **named), shared)
    if not isinstance(out, ndarray):
        raise TypeError(f"Output arguments type must be cupy.ndarray, not {type(out)}")
    function(*plain, **named, out=out._host)
    return out


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the device's version of a NumPy function."""

    def call(*arguments: Any, **options: Any) -> Any:
        return compute(function, arguments, options, options.pop("out", None))

    call.__name__ = function.__name__
    return call
