"""The order of work on GPUs: how what one stream made becomes another's, and when the host may fill a buffer again.

A stream does its work in the order in which it was put there. Between two streams, and between a stream and the host,
there is no order but what an event makes: it is recorded on one stream, and another, or the host, waits for it. And
CuPy's pool gives a block that was freed to the stream on which it was taken, whatever else may still read it. So

- `hand_over` copies to memory of the taker's own stream, and the maker's stream, to whose pool the original goes back,
  waits for that copy;
- `Ring` lends buffers whose last use the host has waited for;
- `gpuseq.ops.cuda.resident` keeps what stays on a device for many batches and streams.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .types import Array

__all__ = [
    "PER_THREAD",
    "Buffer",
    "Made",
    "Ring",
    "hand_over",
    "key_of",
    "made_here",
    "own_stream",
    "recorded",
    "to_host",
]

PER_THREAD = 2
"""CUDA's handle of the default stream of each thread: the same number means another stream in another thread."""


_thread = threading.local()
_numbers = itertools.count(1)


def recorded(stream: Any) -> Any:
    """Return an event that is over once what has been put on a stream until now is; its device must be current."""
    import cupy

    # Events that take no time are cheaper to record and to wait for.
    event = cupy.cuda.Event(disable_timing=True)
    event.record(stream)
    return event


def key_of(stream: Any) -> tuple[int, int]:
    """Return what tells a stream from the others of its device: its handle, and the thread where each has its own.

    Parameters
    ----------
    stream : cupy.cuda.Stream
        Current in this thread.
    """
    if stream.ptr != PER_THREAD:
        return stream.ptr, 0
    if not hasattr(_thread, "number"):
        _thread.number = next(_numbers)  # not the system's, which is given to another thread after this one
    return stream.ptr, _thread.number


@dataclass(frozen=True)
class Made:
    """Where an array was made, and the event after which it is.

    Attributes
    ----------
    stream : cupy.cuda.Stream
        On the array's device; its pool gets the array's block back.
    event : cupy.cuda.Event or None
        None where the host has waited.
    """

    stream: Any
    event: Any


_idle: dict[tuple[Any, int], list[Any]] = {}


def own_stream(owner: object, ordinal: int) -> Any:
    """Return a stream that is `owner`'s alone for as long as that lives, and is never destroyed.

    Memory of other libraries may outlive the object that asked for it, and is freed in the order of the stream on
    which it was made: with a destroyed stream that ends the process (nvImageCodec's images do so).

    Parameters
    ----------
    owner : object
        Whose; the next owner gets the stream when this one is gone.
    ordinal : int
        Of the device.

    Returns
    -------
    cupy.cuda.Stream
        Non-blocking: it neither waits for the legacy default stream nor makes that one wait.
    """
    import cupy

    idle = _idle.setdefault((cupy.cuda.Stream, ordinal), [])
    try:
        stream = idle.pop()  # atomic: no other thread gets this one
    except IndexError:
        with cupy.cuda.Device(ordinal):
            stream = cupy.cuda.Stream(non_blocking=True)
    # What the next owner queues comes after all that this one has.
    weakref.finalize(owner, idle.append, stream).atexit = False
    return stream


def made_here(device: Any) -> Made:
    """Return that something was made on the current stream of a device, by this thread, until now.

    Parameters
    ----------
    device : cupy.cuda.Device
        Which.
    """
    import cupy

    with device:
        stream = cupy.cuda.get_current_stream()
        if stream.ptr == PER_THREAD:
            stream.synchronize()  # no other thread can name this stream, and so none can let another one wait for it
            return Made(stream, None)
        return Made(stream, recorded(stream))


def hand_over(array: Array, ordinal: int, made: Made) -> Array:
    """Return an array of one stream as one of the current stream of a device, its own or another.

    Parameters
    ----------
    array : array
        CuPy.
    ordinal : int
        Of the device to which it goes.
    made : Made
        Where the array was made.

    Returns
    -------
    array
        `array` itself where it is on that stream already; else a copy, in memory that was taken on the taker's stream.
        Nothing here waits on the host.
    """
    import cupy

    device = cupy.cuda.Device(ordinal)
    with device:
        # Allocation follows the current stream: the copy's block then belongs to the pool of the taker's stream, and
        # may be freed without regard to other streams.
        stream = cupy.cuda.get_current_stream()
        # Handles of one number are one stream, but for the per-thread default stream (see PER_THREAD).
        if array.device == device and stream.ptr == made.stream.ptr != PER_THREAD:
            return array
        if made.event is not None:
            stream.wait_event(made.event)
        copy = array.copy() if array.device == device else cupy.asarray(array)
        copied = recorded(stream)
    if made.stream.ptr == PER_THREAD:
        copied.synchronize()  # as in `made_here`
        return copy
    with array.device:
        made.stream.wait_event(copied)  # before it writes anything else to the block that the array leaves
    return copy


def to_host(array: Array, made: Made) -> Any:
    """Return an array of a device as one on the host, which waits for it.

    Parameters
    ----------
    array : array
        CuPy.
    made : Made
        Where the array was made.
    """
    import cupy

    with array.device:
        if made.event is not None:
            cupy.cuda.get_current_stream().wait_event(made.event)
        # Copies on the current stream, which waits for the maker, and returns when the copy is there.
        return array.get()


class Buffer:
    """Memory that is filled again and again.

    Parameters
    ----------
    memory : object
        The memory.
    num_bytes : int
        Its size.

    Attributes
    ----------
    last_use : event or None
        After which it may be filled again; set before the buffer is given back.
    """

    def __init__(self, memory: Any, num_bytes: int) -> None:
        self.memory = memory
        self.num_bytes = num_bytes
        self.last_use: Any = None


class Ring:
    """Buffers that wait to be filled, oldest first. One that is lost on the way is simply not used again.

    A buffer is filled where no stream gives the order: by the host, or by a decoder that has been seen to write before
    its turn. So the host waits for the last use of what it takes.

    Parameters
    ----------
    make : callable
        Takes a number of bytes and returns a `Buffer` of at least that size.
    most : int
        With fewer buffers about, a new one is made rather than that the oldest one is waited for.
    """

    def __init__(self, make: Callable[[int], Buffer], most: int = 1) -> None:
        self._make = make
        self._most = most
        self._buffers: deque[Buffer] = deque()
        self._num_made = 0
        self._lock = threading.Lock()

    def take(self, num_bytes: int) -> Buffer:
        """Return a buffer that is not in use any more; it belongs to the caller until it is given back.

        Parameters
        ----------
        num_bytes : int
            Its size at least.
        """
        buffer, is_free = None, False
        with self._lock:
            if self._buffers:
                is_free = _is_free(self._buffers[0])
            if is_free or (self._buffers and self._num_made >= self._most):
                buffer = self._buffers.popleft()
            else:
                # Counted here and made outside the lock, so that a slow allocation holds no other thread up.
                self._num_made += 1
        if buffer is not None:
            if not is_free:
                buffer.last_use.synchronize()
            if buffer.num_bytes >= num_bytes:
                return buffer
        # A buffer that is too small is dropped here and its successor takes its place in the count.
        return self._make(num_bytes)

    def give(self, buffer: Buffer) -> None:
        """Put a buffer back, with the event of its last use."""
        # No lock: appending to a deque is atomic.
        self._buffers.append(buffer)

    def __len__(self) -> int:
        return len(self._buffers)


def _is_free(buffer: Buffer) -> bool:
    return buffer.last_use is None or bool(buffer.last_use.done)
