"""The few things that the CUDA launchers ask of CuPy: memory, and uploads that the host does not wait for."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array

__all__ = ["address", "contiguous", "empty", "place_key", "to_device", "upload"]

MAX_SLOTS = 16
"""Pinned buffers per device. With all of them in flight the host waits for the oldest: it is 16 batches ahead."""


class _Slot:
    """A pinned buffer and the event after which the device has read it. Made on the current device."""

    def __init__(self, num_bytes: int) -> None:
        import cupy

        self.memory = cupy.cuda.alloc_pinned_memory(num_bytes)
        self.num_bytes = num_bytes
        self.bytes = np.frombuffer(self.memory, np.uint8, num_bytes)
        self.event = cupy.cuda.Event(disable_timing=True)


class _Ring:
    """Pinned buffers of one device, oldest first. A slot that is taken out belongs to its taker."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque()
        self._num_slots = 0
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> _Slot:
        with self._lock:
            if self._slots and (self._slots[0].event.done or self._num_slots >= MAX_SLOTS):
                slot = self._slots.popleft()
            else:
                slot = None
                self._num_slots += 1
        if slot is None:
            return _Slot(max(num_bytes, 1 << 15))
        slot.event.synchronize()
        return slot if slot.num_bytes >= num_bytes else _Slot(2 * num_bytes)

    def give(self, slot: _Slot) -> None:
        self._slots.append(slot)


_rings: dict[int, _Ring] = {}


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return a C-contiguous array on the current device, uninitialised and aligned to 256 bytes by CuPy's pool."""
    import cupy

    return cupy.empty(shape, dtype)


def contiguous(array: Array) -> Array:
    """Return `array` itself if it is C-contiguous, else a copy on the current stream."""
    if array.flags.c_contiguous:
        return array
    import cupy

    return cupy.ascontiguousarray(array)


def address(array: Array) -> int:
    """Return where the first element of `array` lies in device memory."""
    return int(array.data.ptr)


def to_device(array: Any) -> Array:
    """Return a small array on the current device: for what is uploaded once and kept."""
    import cupy

    return cupy.asarray(array)


def place_key() -> tuple[int, int]:
    """Return the current device and stream: what may be kept and read again without a thought for order."""
    import cupy

    return cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr


def upload(shape: tuple[int, ...], dtype: Any, fill: Callable[[np.ndarray], None]) -> Array:
    """Let `fill` write a pinned buffer, and copy it to the current device in one asynchronous copy.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Dtype of the array.
    fill : callable
        Gets the NumPy view of the buffer, uninitialised, and writes all of it.

    Returns
    -------
    array
        On the current device, valid in the order of the current stream. The host does not wait.
    """
    import cupy

    runtime = cupy.cuda.runtime
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    ring = _rings.setdefault(runtime.getDevice(), _Ring())
    slot = ring.take(num_bytes)
    try:
        fill(slot.bytes[:num_bytes].view(dtype).reshape(shape))
        array = cupy.empty(shape, dtype)
        stream = cupy.cuda.get_current_stream()
        runtime.memcpyAsync(array.data.ptr, slot.memory.ptr, num_bytes, runtime.memcpyHostToDevice, stream.ptr)
        slot.event.record(stream)
    finally:
        ring.give(slot)
    return array
