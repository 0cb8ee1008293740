"""Devices, streams and events of the stand-in for CuPy, and a watch over their order.

Work runs at once, but nothing counts as done before the host has waited for it: an event is ``done``, and a stream is,
only when some wait has covered it. Each piece of memory remembers which stream wrote and read it last, and work that
nothing puts after those is refused as a race, as a GPU might run it before, after or meanwhile. What one thread of the
host has waited for counts for all of them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["NUM_DEVICES", "Device", "Event", "RaceError", "Stream", "Timeline", "current_device", "timeline"]

NUM_DEVICES = 2

Key = tuple[int, int]
"""(device, address of the stream); address 0 is the legacy default stream."""

Clock = dict[Key, int]
"""For each stream, how much of its work is known to lie before."""


class RaceError(AssertionError):
    """Work on a device that nothing puts in order."""


class _Thread(threading.local):
    """What CUDA and CuPy keep for each thread."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, list[Stream]] = {}


_thread = _Thread()
_addresses = itertools.count(0x7000, 0x10)


def current_device() -> int:
    """``cudaGetDevice``."""
    return _thread.device


def set_device(device: int) -> None:
    """``cudaSetDevice``."""
    if not 0 <= device < NUM_DEVICES:
        raise RuntimeError(f"cudaErrorInvalidDevice: invalid device ordinal {device}")
    _thread.device = device


def _join(clock: Clock, other: Clock) -> None:
    for key, count in other.items():
        if clock.get(key, 0) < count:
            clock[key] = count


class Timeline:
    """Who waited for whom."""

    def __init__(self) -> None:
        self.host: Clock = {}
        self.clocks: dict[Key, Clock] = {}
        self.blocking: set[Key] = set()  # these wait for the legacy default stream, and it for them
        self.callbacks: dict[Key, list[Callable[[], Any]]] = {}
        self.num_checked = 0
        self.num_waits = 0  # for streams and devices; an event is waited for where it is long over
        self._lock = threading.RLock()

    def clock(self, key: Key) -> Clock:
        """Return what the work that is put on a stream now comes after."""
        with self._lock:
            clock = self.clocks.setdefault(key, {})
            _join(clock, self.host)
            if key[1] == 0:
                for other in self.blocking:
                    if other[0] == key[0]:
                        _join(clock, self.clocks[other])
            elif key in self.blocking:
                _join(clock, self.clocks.get((key[0], 0), {}))
            return clock

    def enqueue(self, what: str, reads: Iterable[Any], writes: Iterable[Any], key: Key | None = None) -> None:
        """Put work on a stream, the current one by default; `reads` and `writes` are pieces of memory.

        Raises
        ------
        RaceError
            If it could run before or beside work on the same memory.
        """
        key = key or _current_key()
        with self._lock:
            clock = self.clock(key)
            for memory in reads:
                for touched in memory.touched():
                    self._ordered(touched.written, clock, f"{what} on {_name(key)} reads what", touched)
            for memory in writes:
                for touched in memory.touched():
                    self._ordered(touched.written, clock, f"{what} on {_name(key)} overwrites what", touched)
                    self._ordered(touched.read, clock, f"{what} on {_name(key)} overwrites what", touched)
            clock[key] = clock.get(key, 0) + 1
            for memory in reads:
                memory.read[key] = (clock[key], what)
            for memory in writes:
                memory.written, memory.read = {key: (clock[key], what)}, {}
                memory.forget_parts()

    def _ordered(self, accesses: dict[Key, tuple[int, str]], clock: Clock, text: str, memory: Any) -> None:
        for key, (count, what) in accesses.items():
            self.num_checked += 1
            if clock.get(key, 0) < count:
                raise RaceError(f"{text} {what} on {_name(key)} may still be at ({memory.size} bytes)")

    def follow(self, key: Key) -> None:
        """Let a stream wait for what is on the current one, as an event between them would."""
        with self._lock:
            _join(self.clock(key), dict(self.clock(_current_key())))

    def hosts_turn(self, what: str, memory: Any) -> None:
        """Refuse the host's use of memory that a device may still be at."""
        with self._lock:
            for touched in memory.touched():
                self._ordered(touched.written, self.host, f"{what} on the host touches what", touched)
                self._ordered(touched.read, self.host, f"{what} on the host touches what", touched)

    def wait(self, clock: Clock) -> None:
        """Let the host wait for all that lies before."""
        with self._lock:
            _join(self.host, clock)
            due = [work for key, queue in self.callbacks.items() if key in clock for work in queue]
            for key in clock:
                self.callbacks.pop(key, None)
        for work in due:
            work()

    def covers(self, clock: Clock) -> bool:
        """Return whether the host is known to have waited for all of it."""
        return all(self.host.get(key, 0) >= count for key, count in clock.items())


_timeline = Timeline()


def timeline() -> Timeline:
    """Return the one in use."""
    return _timeline


def restart() -> None:
    """Forget all that was ever done."""
    global _timeline
    _timeline = Timeline()
    _thread.device = 0
    _thread.streams.clear()


def _name(key: Key) -> str:
    return f"cuda:{key[0]}, {'the default stream' if key[1] == 0 else f'stream {key[1]:#x}'}"


def _current_key() -> Key:
    return current_device(), get_current_stream().ptr


class Device:
    """``cupy.cuda.Device``: a context that makes it the current one."""

    def __init__(self, device: int | Device | None = None) -> None:
        self.id = current_device() if device is None else int(device)
        self._outer: list[int] = []

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        self._outer.append(current_device())
        set_device(self.id)
        return self

    def __exit__(self, *exception: object) -> None:
        set_device(self._outer.pop())

    def use(self) -> None:
        set_device(self.id)

    def synchronize(self) -> None:
        timeline().num_waits += 1
        for key in list(timeline().clocks):
            if key[0] == self.id:
                timeline().wait(timeline().clocks[key])


class Event:
    """``cupy.cuda.Event``."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.disable_timing = disable_timing
        self.device_id = current_device()
        self._clock: Clock = {}
        self._number = 0

    @property
    def done(self) -> bool:
        return timeline().covers(self._clock)

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or get_current_stream()
        key = stream._key()
        if key[0] != self.device_id:
            raise RuntimeError("cudaErrorInvalidResourceHandle: the event belongs to another device than the stream")
        self._clock = dict(timeline().clock(key))
        self._number = sum(self._clock.values())

    def synchronize(self) -> None:
        timeline().wait(self._clock)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """``cupy.cuda.get_elapsed_time``: not a time, but not zero either."""
    for event in (start_event, end_event):
        if event.disable_timing or not event.done:
            raise RuntimeError("cudaErrorInvalidResourceHandle or cudaErrorNotReady: the events cannot be compared")
    return 0.01 * (1 + end_event._number - start_event._number)


class Stream:
    """``cupy.cuda.Stream``."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        assert not ptds, "nobody here asks for per-thread default streams"
        self.ptr = 0 if null else next(_addresses)
        self.device_id = -1 if null else current_device()
        if not null and not non_blocking:
            timeline().clocks[self._key()] = {}
            timeline().blocking.add(self._key())

    @classmethod
    def from_external(cls, obj: Any) -> Stream:
        version, address = obj.__cuda_stream__()
        assert version == 0
        stream = cls(null=True)
        stream.ptr = address
        if address:
            stream.device_id = current_device()
        stream._foreign = obj  # type: ignore[attr-defined]
        return stream

    def _key(self) -> Key:
        return (current_device() if self.device_id < 0 else self.device_id), self.ptr

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def _checked_device(self) -> int:
        if self.device_id not in (-1, current_device()):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the current device "
                f"({current_device()})"
            )
        return current_device()

    def __enter__(self) -> Stream:
        _thread.streams.setdefault(self._checked_device(), []).append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _thread.streams[self._key()[0]].pop()

    def use(self) -> Stream:
        _thread.streams[self._checked_device()] = [self]
        return self

    @property
    def done(self) -> bool:
        return timeline().covers(timeline().clocks.get(self._key(), {})) and self._key() not in timeline().callbacks

    def synchronize(self) -> None:
        timeline().num_waits += 1
        timeline().wait(timeline().clock(self._key()))

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        _join(timeline().clock(self._key()), event._clock)

    def launch_host_func(self, callback: Callable[[Any], Any], arg: Any) -> None:
        """Run the function when its end is waited for: the latest moment that CUDA would choose."""
        timeline().enqueue("a host function", (), (), self._key())
        timeline().callbacks.setdefault(self._key(), []).append(lambda: callback(arg))


Stream.null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    """``cupy.cuda.get_current_stream``."""
    stack = _thread.streams.get(current_device() if device_id < 0 else device_id)
    return stack[-1] if stack else Stream.null
