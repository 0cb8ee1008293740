"""The few things that the CUDA launchers ask of CuPy: memory, and uploads that the host does not wait for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpuseq.base.devices import ordinal_of
from gpuseq.base.errors import DeviceError
from gpuseq.base.streams import Buffer, Ring, key_of
from gpuseq.base.types import Array

__all__ = [
    "address",
    "block",
    "contiguous",
    "empty",
    "empty_on",
    "free_bytes",
    "part",
    "place_key",
    "send",
    "to_device",
    "upload",
    "upload_rows",
]

MAX_BUFFERS = 16
"""Pinned buffers per device for small tables. With all in flight the host waits for the oldest: it is far ahead."""

MAX_LARGE_BUFFERS = 3
"""The same for whole batches of images, of which one is filled while the others are on their way."""

# Two rings a device, so that the small table of the next batch does not wait for a large copy.
LARGE_BYTES = 1 << 22

CHUNK_BYTES = 1 << 25
"""Most that goes up in one copy, of what can be cut: page-locked memory is kept for good, and in powers of two."""


def _pinned(num_bytes: int) -> Buffer:
    """Return page-locked memory, some more than is asked for now: it is kept, and the next batch may be larger."""
    import cupy

    # At least 32 KB: the table of a batch of 256 samples.
    size = max(num_bytes, 1 << 15, min(num_bytes * 5 // 4, CHUNK_BYTES))
    return Buffer(cupy.cuda.alloc_pinned_memory(size), size)


_rings: dict[tuple[int, bool], Ring] = {}


def _ring(device: int, num_bytes: int) -> Ring:
    """Return a device's ring of buffers of about that size."""
    is_large = num_bytes > LARGE_BYTES
    key = (device, is_large)
    ring = _rings.get(key)
    if ring is None:
        # Of two threads that make the first one, one finds the other's.
        ring = _rings.setdefault(key, Ring(_pinned, MAX_LARGE_BUFFERS if is_large else MAX_BUFFERS))
    return ring


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return a C-contiguous array on the current device, uninitialised and aligned to 256 bytes by CuPy's pool.

    Raises
    ------
    DeviceError
        If the device has no room for it.
    """
    import cupy

    try:
        return cupy.ndarray(shape, dtype)  # what `cupy.empty` makes
    except cupy.cuda.memory.OutOfMemoryError:
        raise _no_room(math.prod(shape) * np.dtype(dtype).itemsize) from None


def _no_room(num_bytes: int) -> DeviceError:
    import cupy

    # CuPy's own message counts bytes of its pool; what a user can change is said here.
    device = f"cuda:{cupy.cuda.runtime.getDevice()}"
    return DeviceError(
        f"{device} has no room for {num_bytes / 1e9:.2f} GB: {free_bytes(device) / 1e9:.2f} GB are free. "
        "Pass a smaller memory_limit or batch_size"
    )


def block(num_bytes: int) -> Any:
    """Return a block of the current device's memory, uninitialised, as what `part` takes and `send` fills.

    It has no shape and no dtype: of the arrays that the launches of a batch hand to one another nobody asks for either,
    and to make one takes the host three times as long as to take its memory. Whoever holds the block or a part of it
    keeps it; once nobody does, CuPy's pool gives it to what is next allocated on the stream, whose work comes after all
    that was put there before. So it may be let go of as soon as the launches that read it are queued.

    Raises
    ------
    DeviceError
        If the device has no room for it.
    """
    import cupy

    try:
        return cupy.cuda.alloc(num_bytes)
    except cupy.cuda.memory.OutOfMemoryError:
        raise _no_room(num_bytes) from None


def part(memory: Any, begin: int, end: int) -> Any:
    """Return some bytes of a block, as a kernel takes them; what they are a part of lives as long.

    Parameters
    ----------
    memory : cupy.cuda.MemoryPointer
        From `block`.
    begin, end : int
        In bytes.
    """
    # CuPy knows where a part begins, and not where it ends: what stands in for it in the tests does.
    return memory + begin


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


def place_key() -> tuple[int, ...]:
    """Return the current device and stream: what may be kept and read again without a thought for order."""
    import cupy

    return cupy.cuda.runtime.getDevice(), *key_of(cupy.cuda.get_current_stream())


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
    array = empty(shape, dtype)
    _send(array, 0, shape, fill)
    return array


def send(memory: Any, num_bytes: int, write: Callable[[int], None]) -> None:
    """As `upload`, to the beginning of a block that is there already.

    Parameters
    ----------
    memory : cupy.cuda.MemoryPointer
        From `block`, on the current stream.
    num_bytes : int
        What is copied.
    write : callable
        Gets the address of the buffer, and writes all of it.
    """
    _copy(memory.ptr, num_bytes, lambda buffer: write(buffer.memory.ptr))


def _send(array: Array, offset: int, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> None:
    """Let `fill` write what lies `offset` bytes into an array of the current device, and put its copy on the stream."""
    dtype = array.dtype
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes:
        _copy(array.data.ptr + offset, num_bytes, lambda buffer: fill(np.ndarray(shape, dtype, buffer.memory)))


def _copy(target: int, num_bytes: int, write: Callable[[Buffer], None]) -> None:
    import cupy

    runtime = cupy.cuda.runtime
    # Of the host's pageable memory CUDA copies through a buffer of its own, and the host waits meanwhile.
    ring = _ring(runtime.getDevice(), num_bytes)
    buffer = ring.take(num_bytes)
    try:
        # Filled in place, so that nothing is copied twice.
        write(buffer)
        stream = cupy.cuda.get_current_stream()
        runtime.memcpyAsync(target, buffer.memory.ptr, num_bytes, runtime.memcpyHostToDevice, stream.ptr)
        if buffer.last_use is None:
            buffer.last_use = cupy.cuda.Event(disable_timing=True)  # of the current device, as the ring
        buffer.last_use.record(stream)
    finally:
        # Also after a write that failed: the buffer's last use is then that of the copy before.
        ring.give(buffer)


def free_bytes(device: str) -> int:
    """Return the bytes that could be allocated on a device now: free on the card, or kept free by CuPy's pool.

    Parameters
    ----------
    device : str
        ``"cuda:N"``.
    """
    import cupy

    # Both counts are of the current device.
    with cupy.cuda.Device(ordinal_of(device)):
        return int(cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes())


def upload_rows(images: np.ndarray, device: str, rows: np.ndarray | None) -> Array:
    """Gather rows into pinned memory and copy them to a device; the contract is `gpuseq.ops.dispatch.upload`'s.

    What is large goes in chunks: one is gathered while another is copied, and little memory is page-locked.
    """
    import cupy

    shape = images.shape if rows is None else (len(rows), *images.shape[1:])
    with cupy.cuda.Device(ordinal_of(device)):
        array = empty(shape, images.dtype.newbyteorder("="))  # the other byte order is turned while it is gathered
        if array.nbytes <= CHUNK_BYTES:
            _send(array, 0, shape, partial(_gather, images, rows))
            return array
        row_bytes = math.prod(shape[1:]) * images.itemsize
        step = max(1, CHUNK_BYTES // row_bytes)
        for start in range(0, shape[0], step):
            chunk = slice(start, start + step)
            gather = partial(_gather, images[chunk], None) if rows is None else partial(_gather, images, rows[chunk])
            _send(array, start * row_bytes, (min(step, shape[0] - start), *shape[1:]), gather)
    return array


def _gather(images: np.ndarray, rows: np.ndarray | None, buffer: np.ndarray) -> None:
    if rows is None:
        buffer[...] = images
    else:
        # The row numbers were checked by the caller. mode="clip" because "raise" makes NumPy fill a buffer of its own
        # before it writes to `out`.
        np.take(images, rows, axis=0, out=buffer, mode="clip")


def empty_on(shape: tuple[int, ...], dtype: str, device: str) -> Array:
    """Allocate on a device; the contract is `gpuseq.ops.dispatch.empty`'s."""
    import cupy

    with cupy.cuda.Device(ordinal_of(device)):
        return empty(shape, dtype)
