"""Runs the kernels on the CPU: g++ compiles each variant under `cuda_on_host.h`, ctypes launches it on NumPy arrays.

As in CuPy the text with its macros is what is compiled, once, whichever of its kernels is asked for first.

`HostKernel` stands in for `gpuseq.ops.cuda.compile.Kernel` and takes its arguments through the same `cast_arguments`,
so the launchers of `gpuseq.ops.cuda.augment` run unchanged; `install` puts it and NumPy-backed memory in their place.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuseq.ops.cuda import compile as kernels
from tests.standin import door, work

if TYPE_CHECKING:
    import pytest

__all__ = [
    "CACHE_FOLDER",
    "OPTIMIZED",
    "HostKernel",
    "HostRun",
    "Launch",
    "build",
    "forget_the_unused",
    "host_kernel",
    "install",
]

SHIM = Path(__file__).with_name("cuda_on_host.h")
CACHE_FOLDER = Path(
    os.environ.get("GPUSEQ_KERNEL_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gpuseq-tests"
)
"""Compiled variants, named by what they were made from: a second run of the tests compiles nothing."""

UNUSED_DAYS = 14
"""After which what was compiled goes: the text has changed since."""

COMPILER = (
    # Hundreds of variants run for milliseconds each: what an optimiser takes is more than what it saves.
    *("g++", "-std=c++17", "-O0", "-ffp-contract=off", "-fPIC"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-clobbered"),
    "-Wno-unused-parameter",  # a variant may leave some unread
    "-nostdinc++",  # the shim needs C's headers only; to load those of C++ took a quarter of the time of each variant
)
LINKED = ("-nodefaultlibs", "-lm", "-lc", "-lgcc")
"""Libraries of a variant without further flags, which asks for nothing of C++'s: half of the time to link."""

OPTIMIZED = ("-O1",)
"""Flags with which the compiler sees what it warns of only while it optimises, a variable that nothing has set."""

_locks: dict[Path, threading.Lock] = {}


def build(name: str, macros: kernels.Macros, flags: tuple[str, ...] = ()) -> Path:
    """Compile one variant to a shared library of all kernels of its file, or find the one that an earlier run made.

    Parameters
    ----------
    name : str
        Kernel, a key of `gpuseq.ops.cuda.compile.SIGNATURES`.
    macros : Macros
        The variant.
    flags : tuple of str
        Further compiler flags.

    Raises
    ------
    RuntimeError
        With the compiler's messages.
    """
    file = kernels.SIGNATURES[name][0]
    lines = [f'#include "{_precompiled_shim(flags)}"', kernels.pasted_source(file, macros)]
    arguments = "unsigned x, unsigned y, unsigned block, unsigned shared, int reverse, void **args"
    lines += [
        f'extern "C" int launch_{kernel}({arguments})\n'
        f"{{ return cuda_on_host::launch(&{kernel}, x, y, block, shared, reverse, args); }}"
        for kernel, (its_file, _) in kernels.SIGNATURES.items()
        if its_file == file
    ]
    source = "\n".join([*lines, ""])
    linked = () if flags else LINKED
    recipe = "\0".join([source, *COMPILER, *flags, *linked])
    options = ("-shared", *flags, "-x", "c++", "-", *linked)
    return _made(f"{Path(file).stem}-{_digest(recipe)}.so", options, f"{file} with {dict(macros)}", source)


@cache
def _precompiled_shim(flags: tuple[str, ...]) -> Path:
    """Return a copy of the shim beside its precompiled form, which g++ takes: a third less time for each variant."""
    text = SHIM.read_text()
    digest = _digest("\0".join([text, *COMPILER, *flags]))
    header = CACHE_FOLDER / f"shim-{digest}.h"
    if not header.exists():
        CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
        own = _own(header)
        own.write_text(text)
        own.replace(header)
    _made(f"{header.name}.gch", ("-x", "c++-header", *flags, str(header)), SHIM.name)
    return header


def _digest(recipe: str) -> str:
    return hashlib.sha256(recipe.encode()).hexdigest()[:20]


def _own(target: Path) -> Path:
    """Return a name beside `target` that no other process or thread has."""
    return target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}")


def _made(name: str, arguments: tuple[str, ...], what: str, source: str = "") -> Path:
    """Return a file of the cache, compiled now where no earlier run has."""
    target = CACHE_FOLDER / name
    with _locks.setdefault(target, threading.Lock()):
        if target.exists():
            os.utime(target)
            return target
        CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
        own = _own(target)
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        command = [*COMPILER, *arguments, "-o", str(own)]
        run = subprocess.run(command, input=source, text=True, capture_output=True, check=False, env=environment)
        if run.returncode:
            raise RuntimeError(f"g++ refused {what}:\n{run.stderr}")
        own.replace(target)
    return target


def forget_the_unused() -> None:
    """Remove from the cache what no run has asked for in `UNUSED_DAYS`."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for path in CACHE_FOLDER.glob("*"):
        with contextlib.suppress(OSError):  # another run removes it, too
            if path.is_file() and path.stat().st_mtime < oldest:
                path.unlink()


@dataclass(frozen=True)
class Launch:
    """What a test may change about every launch; None leaves it to the launcher."""

    grid: tuple[int, ...] | None = None
    reverse: bool = False


class HostKernel:
    """The CPU's `gpuseq.ops.cuda.compile.Kernel`."""

    def __init__(self, name: str, macros: kernels.Macros, how: Launch = Launch(), flags: tuple[str, ...] = ()) -> None:
        self.name = name
        self.macros = macros
        self.how = how
        self._launch = getattr(ctypes.CDLL(str(build(name, macros, flags))), f"launch_{name}")

    def launch(self, grid: tuple[int, ...], block: int, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
        """Run the kernel to its end."""
        cast = kernels.cast_arguments(self.name, arguments)
        cells: list[Any] = []
        for value in cast:
            if isinstance(value, np.ndarray):
                cells.append(ctypes.c_void_p(value.ctypes.data))
            else:
                cells.append((ctypes.c_char * value.itemsize).from_buffer_copy(value.tobytes()))
        pointers = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        grid_x, grid_y = ((*(self.how.grid or grid), 1))[:2]
        problem = self._launch(grid_x, grid_y, block, shared_bytes, int(self.how.reverse), pointers)
        work.add(self.name, work.COMPILED)
        if problem:
            what = {1: "some threads of a block never reached a barrier", 2: "the launch asks for too much"}[problem]
            raise RuntimeError(f"{self.name}: {what}")


@dataclass
class HostRun:
    """What `install` put in place, and what ran since."""

    how: Launch = field(default_factory=Launch)
    flags: tuple[str, ...] = ()
    variants: list[tuple[str, kernels.Macros]] = field(default_factory=list)
    num_launches: int = 0

    def load(self, name: str, macros: kernels.Macros) -> HostKernel:
        """Stand in for `gpuseq.ops.cuda.compile.load`."""
        self.num_launches += 1
        self.variants.append((name, macros))
        return host_kernel(name, macros, self.how, self.flags)


@cache
def host_kernel(name: str, macros: kernels.Macros, how: Launch = Launch(), flags: tuple[str, ...] = ()) -> HostKernel:
    """Return a kernel that is made once per process."""
    return HostKernel(name, macros, how, flags)


def _upload(shape: tuple[int, ...], dtype: Any, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    array = _poisoned(shape, dtype)
    fill(array)
    return array


def _poisoned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return memory that shows what was not written, alone in its allocation, so that a sanitizer sees each end."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(0xA5)
    return array


def install(patch: pytest.MonkeyPatch, how: Launch = Launch(), flags: tuple[str, ...] = ()) -> HostRun:
    """Let `gpuseq.ops.cuda.augment` run on NumPy arrays for as long as `patch` lasts."""
    run = HostRun(how, flags)
    door.replace(
        patch,
        load=run.load,
        empty=_poisoned,
        block=lambda num_bytes: _poisoned((num_bytes,), np.uint8),
        part=lambda memory, begin, end: memory[begin:end],
        send=lambda memory, num_bytes, write: write(memory.ctypes.data),
        address=lambda array: array.ctypes.data,
        contiguous=np.ascontiguousarray,
        to_device=np.asarray,
        place_key=lambda: (0, 0),
        upload=_upload,
    )
    return run
