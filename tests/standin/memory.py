"""Device memory of the stand-in: a pool as CuPy's, per device and stream, and pinned memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.standin.streams import Device, current_device, get_current_stream, timeline

__all__ = [
    "FREE_BYTES",
    "MemoryPointer",
    "MemoryPool",
    "OutOfMemoryError",
    "UnownedMemory",
    "allocate",
    "known_memory",
    "memory_at",
    "pool",
]

FREE_BYTES = 1 << 28
UNIT = 512
FRESH, FREED = 0xA5, 0xDB
"""What memory is filled with before it is handed out, and after it was given back."""

_by_address: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)")


class Memory:
    """A piece of memory, and who touched it last: stream -> (how manieth work, what)."""

    def __init__(self, ptr: int, size: int, device_id: int, owner: Any) -> None:
        self.ptr, self.size, self.device_id, self._owner = ptr, size, device_id, owner
        self.written: dict[Any, Any] = {}
        self.read: dict[Any, Any] = {}
        self.parts: dict[tuple[int, int], Part] = {}
        self.is_by_rows = False
        if ptr:
            _by_address[ptr] = self

    def part(self, start: int, stop: int) -> Part:
        """Return some of its bytes, which have a history of their own beside that of the whole."""
        return self.parts.setdefault((start, stop), Part(self, start, stop))

    def touched(self) -> list[Any]:
        """Return all pieces whose history a use of the whole must come after."""
        return [self, *self.parts.values()]

    def forget_parts(self) -> None:
        """After a write to the whole, which came after all that was done to them."""
        self.parts.clear()

    @property
    def device(self) -> Device:
        return Device(self.device_id)

    def bytes(self) -> np.ndarray:
        """Return a NumPy view."""
        view = np.frombuffer((ctypes.c_char * self.size).from_address(self.ptr), np.uint8)
        view.flags.writeable = True
        return view


class Part:
    """Bytes of a piece of memory: the rows of a block, each written when the others are in use."""

    def __init__(self, memory: Memory, start: int, stop: int) -> None:
        self.memory, self.start, self.stop, self.size = memory, start, stop, stop - start
        self.written: dict[Any, Any] = {}
        self.read: dict[Any, Any] = {}

    def touched(self) -> list[Any]:
        """Return the whole, itself, and the other parts that overlap it."""
        parts = self.memory.parts.values()
        return [self.memory, *(part for part in parts if part.start < self.stop and self.start < part.stop)]

    def forget_parts(self) -> None:
        """Nothing: it has none."""


class UnownedMemory(Memory):
    """``cupy.cuda.UnownedMemory``."""

    def __init__(self, ptr: int, size: int, owner: Any, device_id: int = -1) -> None:
        super().__init__(ptr, size, current_device() if device_id < 0 else device_id, owner)


class _Block:
    """A block on loan from the pool; it goes back when nothing refers to it."""

    def __init__(self, home: MemoryPool, memory: Memory, arena: Any) -> None:
        self._home, self.memory, self._arena = home, memory, arena

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def __del__(self) -> None:
        self._home._take_back(self.memory, self._arena)


class MemoryPointer:
    """``cupy.cuda.MemoryPointer``."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr = mem, mem.ptr + offset

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    @property
    def device_id(self) -> int:
        return int(self.mem.device_id)

    @property
    def device(self) -> Device:
        return Device(self.device_id)


class MemoryPool:
    """``cupy.cuda.MemoryPool`` of all devices: a block goes back to the stream on which it was taken."""

    def __init__(self) -> None:
        self._free: dict[Any, list[Memory]] = {}
        self._total = self._lent = 0
        self._lock = threading.RLock()

    def malloc(self, size: int) -> MemoryPointer:
        if not size:
            return MemoryPointer(Memory(0, 0, current_device(), None), 0)
        rounded = -(-size // UNIT) * UNIT
        arena = current_device(), get_current_stream().ptr, rounded
        with self._lock:
            waiting = self._free.get(arena)
            if waiting:
                memory = waiting.pop()
            else:
                if rounded > FREE_BYTES:
                    raise OutOfMemoryError(rounded, self._total)
                buffer = np.empty(rounded + 256, np.uint8)
                start = -buffer.ctypes.data % 256
                memory = Memory(buffer.ctypes.data + start, rounded, current_device(), buffer)
                self._total += rounded
            self._lent += rounded
        _by_address[memory.ptr] = memory  # again: the garbage collector forgets what comes back from a cycle
        memory.bytes().fill(FRESH)
        return MemoryPointer(_Block(self, memory, arena), 0)

    def _take_back(self, memory: Memory, arena: Any) -> None:
        if sys is None or sys.is_finalizing():
            return
        memory.bytes().fill(FREED)
        with self._lock:
            self._lent -= memory.size
            self._free.setdefault(arena, []).append(memory)

    def used_bytes(self) -> int:
        return self._lent

    def total_bytes(self) -> int:
        return self._total

    def free_bytes(self) -> int:
        return self._total - self._lent

    def n_free_blocks(self) -> int:
        return sum(map(len, self._free.values()))

    def free_all_blocks(self, stream: Any = None) -> None:
        with self._lock:
            self._total -= sum(memory.size for waiting in self._free.values() for memory in waiting)
            self._free.clear()


_pool = MemoryPool()


class _Local(threading.local):
    allocator: Callable[[int], MemoryPointer] | None = None


_local = _Local()


def pool() -> MemoryPool:
    """``cupy.get_default_memory_pool``."""
    return _pool


def restart() -> None:
    """Begin with an empty pool."""
    global _pool
    _pool = MemoryPool()


def allocate(size: int) -> MemoryPointer:
    """``cupy.cuda.alloc``."""
    return (_local.allocator or _pool.malloc)(size)


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    """``cupy.cuda.using_allocator``: for this thread."""
    before, _local.allocator = _local.allocator, allocator
    try:
        yield
    finally:
        _local.allocator = before


class PinnedMemory(np.ndarray):
    """What ``cupy.cuda.alloc_pinned_memory`` returns: a buffer with an address."""

    ptr: int
    mem: Memory


def alloc_pinned_memory(size: int) -> Any:
    """``cupy.cuda.alloc_pinned_memory``."""
    block = (ctypes.c_char * size)()
    pinned = np.frombuffer(block, np.uint8).view(PinnedMemory)
    pinned.ptr = ctypes.addressof(block)
    pinned.mem = Memory(pinned.ptr, size, -1, block)
    return pinned


def memory_at(address: int) -> Memory:
    """Return the piece that an address lies in: most often the one that begins there."""
    found = known_memory(address)
    if found is None:
        raise LookupError(f"no memory of a device lies at {address:#x}")
    return found


def known_memory(address: int) -> Memory | None:
    """Return the piece of a device's memory that an address lies in, or None where there is none."""
    if found := _by_address.get(address):
        return found
    # `values()` walks a dictionary that another thread may put memory into meanwhile; `valuerefs()` copies it at once.
    pieces = (reference() for reference in _by_address.valuerefs())
    return next((item for item in pieces if item and item.ptr <= address < item.ptr + item.size), None)


def array_at(address: int) -> Any:
    """Return the piece that an address lies in as what interpreted PTX may touch."""
    from tests.standin.ptx.machine import Array

    memory = memory_at(address)
    return Array(memory.ptr, memory.size)


def memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    """``cupy.cuda.runtime.memcpyAsync`` from pinned memory to a device."""
    assert kind == 1, "only to the device, here"
    source, target = _by_address[src], memory_at(dst)
    assert size <= source.size, "the copy reads past the pinned buffer"
    assert dst + size <= target.ptr + target.size, "the copy writes past the array"
    assert target.device_id == current_device(), "the array lies on another device than the current one"
    # The host has just written the buffer: nothing may still be reading it.
    timeline().hosts_turn("what fills a pinned buffer", source)
    timeline().enqueue("an upload", [source], [target], (current_device(), stream))
    ctypes.memmove(dst, src, size)
