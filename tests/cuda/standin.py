"""A stand-in for CuPy on the host, so that everything above the kernels runs with ``device="cuda"`` without a GPU.

`DeviceArray` is a NumPy array that refuses, as CuPy's does, to be mixed with host arrays or read as one; the kernels
run through `host_runner`. What it cannot show is what only a GPU has: streams, races, memory, speed.
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpuseq import compat, device, kernels
from tests.cuda import host_runner

__all__ = ["NUM_DEVICES", "DeviceArray", "install"]

NUM_DEVICES = 2
FREE_BYTES = 1 << 28


class _Current:
    device = 0


class Device:
    """``cupy.cuda.Device``: a context that makes it the current one."""

    def __init__(self, id: int | None = None) -> None:
        self.id = _Current.device if id is None else id
        assert 0 <= self.id < NUM_DEVICES
        self._outer: list[int] = []

    def __enter__(self) -> Device:
        self._outer.append(_Current.device)
        _Current.device = self.id
        return self

    def __exit__(self, *exception: object) -> None:
        _Current.device = self._outer.pop()


class DeviceArray(np.ndarray):
    """``cupy.ndarray``: knows its device, and does not mix with host arrays."""

    device_id: int = 0

    def __array_finalize__(self, parent: Any) -> None:
        self.device_id = getattr(parent, "device_id", _Current.device)

    @property
    def device(self) -> Device:  # type: ignore[override]
        return Device(self.device_id)

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def get(self) -> np.ndarray:
        return np.array(self.view(np.ndarray))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", ())
        for operand in (*inputs, *out):
            if type(operand) is np.ndarray and operand.ndim:
                raise TypeError(
                    f"Unsupported type {type(operand)}: a host array meets a device array in {ufunc.__name__}"
                )
        plain = [operand.view(np.ndarray) if isinstance(operand, DeviceArray) else operand for operand in inputs]
        if out:
            options["out"] = tuple(operand.view(np.ndarray) for operand in out)
        result = getattr(ufunc, method)(*plain, **options)
        return out[0] if out else _on_device(result)

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on a device array")

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(value) is np.ndarray and value.ndim:
            raise TypeError("a host array is assigned into a device array")
        np.ndarray.__setitem__(self.view(np.ndarray), key, value)

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")


def _on_device(result: Any) -> Any:
    if isinstance(result, (np.ndarray, np.generic)):
        return np.asarray(result).view(DeviceArray)
    return result


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        def plain(value: Any) -> Any:
            if isinstance(value, DeviceArray):
                return value.view(np.ndarray)
            return [plain(item) for item in value] if isinstance(value, list) else value

        return _on_device(function(*map(plain, arguments), **{name: plain(value) for name, value in options.items()}))

    return call


class _Event:
    done = True

    def __init__(self, **options: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None: ...


class _Stream:
    ptr = 0
    done = True

    def synchronize(self) -> None: ...

    def wait_event(self, event: Any) -> None: ...


class _PinnedMemory:
    """Pinned memory as CuPy has it: a buffer with an address."""

    def __new__(cls, num_bytes: int) -> Any:
        block = (ctypes.c_char * num_bytes)()
        view = np.frombuffer(block, np.uint8)

        class Memory(np.ndarray):
            ptr = ctypes.addressof(block)

        return view.view(Memory)


def _module(name: str, **members: Any) -> Any:
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``."""


def _empty(shape: Any, dtype: Any = np.float64) -> DeviceArray:
    if int(np.prod(shape)) * np.dtype(dtype).itemsize > FREE_BYTES:
        raise OutOfMemoryError
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(0xA5)
    return array.view(DeviceArray)


def _asarray(value: Any, dtype: Any = None) -> DeviceArray:
    if isinstance(value, DeviceArray):
        return value if dtype is None or value.dtype == dtype else value.astype(dtype)
    return np.array(value, dtype).view(DeviceArray)


def install(patch: pytest.MonkeyPatch) -> host_runner.HostRun:
    """Make ``import cupy`` find the stand-in, and the kernels run on the host, for as long as `patch` lasts."""
    run = host_runner.HostRun()
    runtime = _module(
        "cupy.cuda.runtime",
        CUDARuntimeError=RuntimeError,
        getDeviceCount=lambda: NUM_DEVICES,
        getDevice=lambda: _Current.device,
        memGetInfo=lambda: (FREE_BYTES, 2 * FREE_BYTES),
        memcpyHostToDevice=1,
        memcpyAsync=lambda target, source, size, kind, stream: ctypes.memmove(target, source, size),
    )
    cuda = _module(
        "cupy.cuda",
        runtime=runtime,
        Device=Device,
        Event=_Event,
        alloc_pinned_memory=_PinnedMemory,
        get_current_stream=lambda: _Stream(),
        memory=_module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError),
    )
    cupy = _module(
        "cupy",
        __version__="0 (stand-in)",
        ndarray=DeviceArray,
        cuda=cuda,
        asarray=_asarray,
        array=lambda value, dtype=None: _asarray(value, dtype).copy(),
        empty=_empty,
        get_default_memory_pool=lambda: types.SimpleNamespace(free_bytes=lambda: 0),
    )
    for name in (
        *("ascontiguousarray", "clip", "concatenate", "floor", "mean", "moveaxis", "square", "stack", "std", "where"),
        *("sqrt", "abs", "maximum", "minimum", "rollaxis"),
    ):
        setattr(cupy, name, _call(getattr(np, name)))
    for name, module in (("cupy", cupy), ("cupy.cuda", cuda), ("cupy.cuda.runtime", runtime)):
        patch.setitem(sys.modules, name, module)
    patch.setattr(kernels, "load", run.load)
    patch.setattr(device, "_rings", {})
    compat.gpu_problem.cache_clear()
    patch.setattr(compat, "gpu_problem", lambda: None)
    return run
