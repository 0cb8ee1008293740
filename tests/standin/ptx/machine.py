"""The machine that runs encoded kernels: `core/machine.cpp`, compiled by g++ once and called through ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.standin import work
from tests.standin.host_runner import CACHE_FOLDER

from .encode import ROW, Code, Entry
from .errors import LaunchError

__all__ = ["Array", "Grid", "Program", "Result", "build", "catalogue"]

SOURCES = Path(__file__).with_name("core")
COMPILER = (
    # -frounding-math: the directed roundings of PTX are set at run time.
    *("g++", "-std=c++20", "-O2", "-ffp-contract=off", "-frounding-math", "-fPIC", "-shared"),
    *("-Wall", "-Wextra", "-Werror"),
)
MAX_STEPS = 200_000_000


Schedule = Literal["lockstep", "random"]


class _Settings(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_int32 * 3),
        *((name, ctypes.c_int32) for name in ("block", "shared_bytes", "is_random", "watches_races", "num_resident")),
        *((name, ctypes.c_uint64) for name in ("seed", "max_steps")),
    )


class _Range(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("is_writable", ctypes.c_int32),
        ("_", ctypes.c_int32),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("instruction", "block", "thread")),
        *((name, ctypes.c_uint64) for name in ("steps", "thread_steps")),
        ("message", ctypes.c_char * 240),
    )


def build() -> Path:
    """Compile the machine, or find what an earlier run compiled."""
    sources = sorted(SOURCES.iterdir())
    recipe = hashlib.sha256("\0".join([*COMPILER, *(path.read_text() for path in sources)]).encode()).hexdigest()[:20]
    target = CACHE_FOLDER / f"ptx-machine-{recipe}.so"
    if target.exists():
        return target
    CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest come here at once
        if not target.exists():
            own = target.with_suffix(".new")
            command = [*COMPILER, str(SOURCES / "machine.cpp"), "-o", str(own)]
            run = subprocess.run(command, text=True, capture_output=True, check=False)
            if run.returncode:
                raise RuntimeError(f"g++ refused the PTX machine:\n{run.stderr}")
            own.replace(target)
    return target


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build()))
    pointer = ctypes.c_void_p
    library.ptx_entry.restype = ctypes.c_char_p
    library.ptx_entry.argtypes = (ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_char_p))
    library.ptx_make.restype = pointer
    library.ptx_make.argtypes = (pointer, ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int)
    library.ptx_free.argtypes = (pointer,)
    library.ptx_launch.argtypes = (pointer, pointer, pointer, pointer, ctypes.c_int, pointer, pointer)
    return library


@cache
def catalogue() -> dict[str, Entry]:
    """Return the instructions that the machine knows, by name."""
    library, found = _library(), {}
    for number in range(library.ptx_num_entries()):
        flags, operands = ctypes.c_int(), ctypes.c_char_p()
        name = library.ptx_entry(number, ctypes.byref(flags), ctypes.byref(operands)).decode()
        found[name] = Entry(number, name, (operands.value or b"").decode(), flags.value)
    return found


@dataclass(frozen=True)
class Array:
    """Memory that a launch may touch; what is not writable may only be read."""

    address: int
    size: int
    is_writable: bool = False


@dataclass(frozen=True)
class Grid:
    """How a kernel is launched.

    Attributes
    ----------
    blocks : tuple of int
        Up to three dimensions.
    threads : int
        Of a block, in one dimension.
    dynamic_bytes : int
        Dynamic shared memory.
    schedule : str
        ``"lockstep"``: one block and one warp after the other. ``"random"``: any threads of any of `num_resident`
        blocks.
    watches_races : bool
        Whether accesses to shared memory and to what may be written are watched.
    """

    blocks: tuple[int, ...]
    threads: int
    dynamic_bytes: int = 0
    schedule: Schedule = "lockstep"
    seed: int = 0
    watches_races: bool = True
    num_resident: int = 4


@dataclass(frozen=True)
class Result:
    """What a launch took.

    Attributes
    ----------
    counts : numpy.ndarray
        Per instruction of the kernel, how often a warp ran it for at least one thread.
    thread_steps : int
        Instructions, counted by threads.
    """

    counts: np.ndarray
    steps: int
    thread_steps: int


class Program:
    """A kernel, ready to be launched.

    Parameters
    ----------
    code : Code
        As `encode` returns it; `rows` may have been changed since.
    """

    def __init__(self, code: Code) -> None:
        self.code = code
        assert code.rows.dtype == ROW
        rows = np.ascontiguousarray(code.rows)
        constants = np.array(code.constants, np.uint64)
        self._handle = _library().ptx_make(
            rows.ctypes.data,
            len(rows),
            constants.ctypes.data,
            len(constants),
            code.num_registers,
            code.local_bytes,
        )
        self._release = _library().ptx_free

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", None):
            self._release(handle)

    def launch(self, grid: Grid, arguments: Sequence[Any], arrays: Iterable[Array]) -> Result:
        """Run the kernel to its end.

        Parameters
        ----------
        grid : Grid
            How.
        arguments : sequence of numpy.generic
            One per parameter of the kernel and of its size; a pointer is a ``numpy.uint64``.
        arrays : iterable of Array
            All that the kernel may touch. They do not overlap.

        Raises
        ------
        TypeError
            If the arguments are not those that the kernel takes.
        LaunchError
            At the first thing that a thread does wrong.
        """
        settings = self._settings(grid)
        buffer = self._buffer(arguments)
        given = [*arrays, *(Array(data.ctypes.data, data.size) for data in self.code.globals)]
        ranges = (_Range * max(len(given), 1))(
            *((item.address, item.size, item.is_writable, 0) for item in given if item.size)
        )
        num_ranges = sum(item.size > 0 for item in given)
        counts = np.zeros(len(self.code.rows), np.uint64)
        report = _Report()
        work.add(self.code.kernel.name, work.INTERPRETED)
        failed = _library().ptx_launch(
            self._handle,
            ctypes.addressof(settings),
            ctypes.addressof(buffer),
            ctypes.addressof(ranges),
            num_ranges,
            counts.ctypes.data,
            ctypes.addressof(report),
        )
        if failed:
            raise self._fault(report)
        return Result(counts, report.steps, report.thread_steps)

    def _settings(self, grid: Grid) -> _Settings:
        kernel = self.code.kernel
        if not 1 <= grid.threads <= kernel.max_threads:
            raise LaunchError(f"{kernel.name}: {grid.threads} threads in a block, not 1 to {kernel.max_threads}")
        settings = _Settings()
        settings.grid[:] = (*grid.blocks, 1, 1)[:3]
        settings.block = grid.threads
        settings.shared_bytes = self.code.shared_bytes + grid.dynamic_bytes
        settings.is_random = grid.schedule == "random"
        settings.watches_races = grid.watches_races
        settings.num_resident = grid.num_resident if settings.is_random else 1
        settings.seed, settings.max_steps = grid.seed, MAX_STEPS
        return settings

    def _buffer(self, arguments: Sequence[Any]) -> Any:
        parameters = self.code.kernel.parameters
        if len(arguments) != len(parameters):
            raise TypeError(f"{self.code.kernel.name} takes {len(parameters)} arguments, not {len(arguments)}")
        buffer = (ctypes.c_char * max((one.offset + one.size for one in parameters), default=1))()
        for parameter, value in zip(parameters, arguments, strict=True):
            raw = value.tobytes()
            if len(raw) != parameter.size:
                raise TypeError(f"{parameter.name} has {parameter.size} bytes, and the argument {len(raw)}")
            buffer[parameter.offset : parameter.offset + parameter.size] = raw
        return buffer

    def _fault(self, report: _Report) -> LaunchError:
        name, message = self.code.kernel.name, report.message.decode()
        if report.instruction < 0:
            return LaunchError(f"{name}: {message}")
        kernel = self.code.kernel
        if report.instruction >= len(kernel.instructions):
            return LaunchError(f"{name}, at its end: {message}")
        at = kernel.instructions[report.instruction]
        thread = f", thread {report.thread}" if report.thread >= 0 else ""
        return LaunchError(f"{name}, PTX line {at.line}, {at.text!r}, block {report.block}{thread}: {message}", at.line)
