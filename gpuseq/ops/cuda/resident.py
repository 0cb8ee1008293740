"""Arrays that stay on a device and are read on any stream: each read comes after the writes that it must see.

CuPy's pool knows nothing of streams other than the one on which a block was taken: what frees it hands it to that
stream's next allocation, whatever else still reads it. And nothing puts the work of two streams in order by itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gpuseq.base.streams import PER_THREAD, key_of, recorded
from gpuseq.base.types import Array

__all__ = ["DeviceResident", "Resident"]


class Resident:
    """An array in the host's memory, where a write is done when it returns.

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

    def appending(self) -> AbstractContextManager[Array]:
        """Return a context that gives the array, within which work may be put there that writes what is not read."""
        return nullcontext(self.array)

    def overwriting(self) -> AbstractContextManager[Array]:
        """As `appending`, for what will not be read any more, but may have been read until now."""
        return nullcontext(self.array)

    def __reduce__(self) -> Any:
        with self.reading() as array:  # what is pickled is copied to the host on the current stream
            return type(self), (array,)


class DeviceResident(Resident):
    """An array on a GPU, of which a part is written before its place is handed out, and not while it may be read.

    So a reader has one event to wait for, that of the last write: each write comes after the one before it. It waits on
    the device, once for each stream, and on the stream that the array was made on, its home, it mostly has none to wait
    for. No writer waits for readers. Nothing here synchronises the host.

    What is kept of the reads on other streams than home is for the end: when the object goes, home waits for them, and
    only then lets go of the array.

    Parameters
    ----------
    array : array
        CuPy, written on the current stream of its device, and allocated there: the caller of an array that was
        allocated on another stream keeps it alive for as long as its batches are in the making.
    """

    def __init__(self, array: Array) -> None:
        import cupy

        super().__init__(array)
        self._device = array.device.id
        self._current = cupy.cuda.get_current_stream
        self._home = self._current(self._device)
        self._lock = threading.Lock()
        self._home_key = key_of(self._home)
        self._behind = {self._home_key}  # the streams whose work comes after the last write
        # The last use on each stream but home; on home too where other threads cannot name it.
        self._uses: dict[tuple[int, int], Any] = {}
        with array.device:
            self._written = recorded(self._home)
        # Called before the object lets go of the array.
        weakref.finalize(self, _let_go, array.device, self._home, self._uses).atexit = False

    def reading(self) -> AbstractContextManager[Array]:
        """Let the current stream's work come after the last write; what it reads is kept until it has been read."""
        return _Reading(self)

    @contextmanager
    def appending(self) -> Iterator[Array]:
        """Let the current stream's work come after the last write, and every later read and write after it."""
        stream = self._current(self._device)
        with self._lock:  # until the event is there: the next write must come after this one
            key = key_of(stream)
            self._follow(stream, key)
            try:
                yield self.array
            finally:
                with self.array.device:
                    self._written = recorded(stream)
                self._behind = {key}
                if self._is_noted(key):
                    self._uses[key] = self._written

    @contextmanager
    def overwriting(self) -> Iterator[Array]:
        """As `appending`, and after all reads that were put on any stream until now."""
        stream = self._current(self._device)
        with self._lock, self.array.device:
            if key_of(stream) != self._home_key and self._home.ptr != PER_THREAD:
                stream.wait_event(recorded(self._home))  # of the reads at home nothing is kept
            for event in self._uses.values():
                stream.wait_event(event)
        with self.appending() as array:
            yield array

    def _follow(self, stream: Any, key: tuple[int, int]) -> None:
        if key not in self._behind:
            with self.array.device:
                stream.wait_event(self._written)
            self._behind.add(key)

    def _is_noted(self, key: tuple[int, int]) -> bool:
        return key != self._home_key or self._home.ptr == PER_THREAD


class _Reading:
    """The context of `DeviceResident.reading`. A class and no generator, which would take twice as long, per batch."""

    __slots__ = ("_key", "_resident", "_stream")

    def __init__(self, resident: DeviceResident) -> None:
        self._resident = resident

    def __enter__(self) -> Array:
        resident = self._resident
        self._stream = resident._current(resident._device)
        self._key = key_of(self._stream)
        with resident._lock:
            resident._follow(self._stream, self._key)
        return resident.array

    def __exit__(self, *error: object) -> None:
        resident = self._resident
        if resident._is_noted(self._key):
            with resident._lock, resident.array.device:  # in one step, so that the event that is kept is the latest
                resident._uses[self._key] = recorded(self._stream)


def _let_go(device: Any, home: Any, uses: dict[tuple[int, int], Any]) -> None:
    """Let what comes next on a block's home stream wait for the last uses on others."""
    with device:
        for event in uses.values():
            if home.ptr == PER_THREAD:
                event.synchronize()  # another thread may let go, and its stream of that number is another one
            else:
                home.wait_event(event)
