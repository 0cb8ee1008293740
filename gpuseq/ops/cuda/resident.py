"""Arrays that stay on a device and are used on any stream: each use comes after the writes and reads that it must.

CuPy's pool knows nothing of streams other than the one on which a block was taken: what frees it hands it to that
stream's next allocation, whoever else still reads it. And nothing puts the work of two streams in order by itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gpuseq.base.types import Array

__all__ = ["DeviceResident", "Resident"]


class Resident:
    """An array in the host's memory, which needs no order.

    Parameters
    ----------
    array : array
        NumPy; for CuPy see `DeviceResident`.
    """

    def __init__(self, array: Array) -> None:
        self.array = array

    def reading(self) -> AbstractContextManager[Array]:
        """Return a context that gives the array, within which work that reads it may be put on the current stream."""
        return nullcontext(self.array)

    def writing(self) -> AbstractContextManager[Array]:
        """Return a context that gives the array, within which work that writes to it may be put on the same."""
        return nullcontext(self.array)

    def __reduce__(self) -> Any:
        with self.reading() as array:  # what is pickled is copied to the host on the current stream
            return type(self), (array,)


class DeviceResident(Resident):
    """An array on a GPU, and the events of those who wrote and read it.

    On the stream that it was made on, its home, nothing is recorded and nobody waits. A reader on another stream waits,
    on the device, for the last write, once, and leaves an event behind. Who writes waits for all of them. The host
    waits for nothing but other threads that are about to put their work on another stream.

    When the object goes, its home stream waits for what other streams still read, and only then lets go of the array.

    Parameters
    ----------
    array : array
        CuPy, written on the current stream of its device, and allocated there: the caller of an array that was
        allocated on another stream keeps it alive for as long as its batches are in the making.
    """

    def __init__(self, array: Array) -> None:
        import cupy

        super().__init__(array)
        self._event = cupy.cuda.Event
        self._device = array.device.id
        self._current = cupy.cuda.get_current_stream
        self._home = self._current(self._device)
        self._turn = threading.Condition()  # reentrant
        self._inside: dict[int, int] = {}  # stream -> how many threads are about to put reads on it
        self._behind = {self._home.ptr}  # the streams whose work comes after the last write
        self._uses: dict[int, Any] = {}  # the last use on each stream but home
        with array.device:
            self._written = self._record(self._home)
        # Called before the object lets go of the array.
        weakref.finalize(self, _let_go, self._device, self._home, self._uses).atexit = False

    @contextmanager
    def reading(self) -> Iterator[Array]:
        """Let the current stream's work come after the last write; what it reads is kept until it has been read."""
        stream = self._current(self._device)
        key = stream.ptr
        with self._turn:
            if key not in self._behind:
                with self.array.device:
                    stream.wait_event(self._written)
                self._behind.add(key)
            self._inside[key] = self._inside.get(key, 0) + 1
        try:
            yield self.array
        finally:
            with self._turn:
                if key != self._home.ptr:
                    with self.array.device:
                        self._uses[key] = self._record(stream)
                self._inside[key] -= 1
                if not self._inside[key]:
                    del self._inside[key]
                    self._turn.notify_all()

    @contextmanager
    def writing(self) -> Iterator[Array]:
        """Let the current stream's work come after all that was written and read, and what is to come after it."""
        stream = self._current(self._device)
        key = stream.ptr
        with self._turn, self.array.device:
            self._turn.wait_for(lambda: all(other == key for other in self._inside))
            if key != self._home.ptr:
                stream.wait_event(self._record(self._home))  # home's reads
            for event in self._uses.values():
                stream.wait_event(event)
            try:
                yield self.array
            finally:
                self._written = self._record(stream)
                self._behind = {key}
                self._uses.clear()
                if key != self._home.ptr:
                    self._uses[key] = self._written

    def _record(self, stream: Any) -> Any:
        event = self._event(disable_timing=True)
        event.record(stream)
        return event


def _let_go(device: int, home: Any, uses: dict[int, Any]) -> None:
    """Let what comes next on a block's home stream wait for the last uses on others."""
    if not uses:
        return
    import cupy

    with cupy.cuda.Device(device):
        for event in uses.values():
            home.wait_event(event)
