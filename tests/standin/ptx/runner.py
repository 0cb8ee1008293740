"""Runs the kernels of the package on interpreted PTX: what CuPy's ``RawModule`` would compile and launch.

The text and the options are those that `gpuseq.ops.cuda.compile` hands to CuPy. Each launch may touch the arrays that
it is given, to their exact ends, and write to its last one only; ``resample_pass`` may touch what its descriptors
point into.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import memory as device
from gpuseq.ops.cuda import resize as ops_cuda_resize
from tests.standin import cupy as standin
from tests.standin import door, host_runner
from tests.standin.host_runner import Launch

from .compiler import compile_ptx
from .encode import encode
from .machine import Array, Grid, Program, Schedule, catalogue
from .parse import parse

__all__ = ["PtxKernel", "PtxRun", "install", "program"]


@lru_cache(maxsize=256)
def program(source: str, options: tuple[str, ...], name: str, architecture: str) -> Program:
    """Return a kernel compiled by NVRTC, made once per process."""
    return Program(encode(parse(compile_ptx(source, options, architecture)), name, catalogue()))


@dataclass
class PtxRun:
    """How launches run, and what ran.

    Attributes
    ----------
    how : Launch
        What a test changes about every launch; ``reverse`` asks for the random schedule.
    find : callable
        address -> the memory that it lies in: for descriptors that hold addresses.
    replaced : dict
        Kernel -> a program that runs in its place, whatever the variant: for tests of what a change would do.
    launches : Counter
        By kernel.
    steps_of : Counter
        Kernel -> instructions, counted by threads.
    counts : dict
        Kernel and number of its instructions -> how often warps ran each of them.
    """

    architecture: str = "compute_80"
    schedule: Schedule = "lockstep"
    seed: int = 0
    how: Launch = field(default_factory=Launch)
    find: Callable[[int], Array] | None = None
    replaced: dict[str, Program] = field(default_factory=dict)
    launches: Counter[str] = field(default_factory=Counter)
    steps_of: Counter[str] = field(default_factory=Counter)
    counts: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    @property
    def num_launches(self) -> int:
        return self.launches.total()

    @property
    def thread_steps(self) -> int:
        """Instructions of all kernels, counted by threads."""
        return self.steps_of.total()

    def grid(self, grid: Sequence[int], block: int, shared_bytes: int) -> Grid:
        """Return how the next launch runs: at random, each in its own order."""
        return Grid(
            blocks=tuple(self.how.grid or grid),
            threads=block,
            dynamic_bytes=shared_bytes,
            schedule="random" if self.how.reverse else self.schedule,
            seed=self.seed + self.num_launches,
        )


class PtxKernel:
    """One kernel on the interpreter, over NumPy arrays.

    Parameters
    ----------
    name : str
        Key of `gpuseq.ops.cuda.compile.SIGNATURES`.
    source, options : str, tuple of str
        What CuPy's ``RawModule`` is given.
    run : PtxRun
        How it is launched, and where that is counted.
    """

    def __init__(self, name: str, source: str, options: tuple[str, ...], run: PtxRun) -> None:
        self.name, self.run = name, run
        self.program = program(source, options, name, run.architecture)

    def launch(self, grid: tuple[int, ...], block: int, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
        """Run the kernel to its end.

        Raises
        ------
        LaunchError
            At whatever a GPU would do in silence, or refuse.
        """
        pointers = [value for value in arguments if isinstance(value, np.ndarray | np.uintp)]
        values = [np.uint64(value.ctypes.data) if isinstance(value, np.ndarray) else value for value in arguments]
        values = [np.uint64(0) if value is None else value for value in values]
        how = self.run.grid(grid, block, shared_bytes)
        self.run.launches[self.name] += 1
        result = self.run.replaced.get(self.name, self.program).launch(how, values, self._memory(pointers))
        self.run.steps_of[self.name] += result.thread_steps
        key = self.name, len(result.counts)
        self.run.counts[key] = self.run.counts.get(key, 0) + result.counts

    def _memory(self, pointers: list[np.ndarray | np.uintp]) -> Iterable[Array]:
        if self.name != "resample_pass":
            # A kernel's outputs come last.
            first_written = len(pointers) - (3 if self.name == "prepare" else 1)
            given = [
                Array(array.ctypes.data, array.nbytes, position >= first_written)
                for position, array in enumerate(pointers)
                if isinstance(array, np.ndarray)
            ]
            return {one.address: one for one in given}.values()
        passes = pointers[0]
        assert isinstance(passes, np.ndarray)
        found = {passes.ctypes.data: Array(passes.ctypes.data, passes.nbytes)}
        assert self.run.find is not None
        columns = passes.reshape(-1, ops_cuda_resize.NUM_PASS_COLUMNS)
        is_nearest = columns[:, 5] == ops_cuda_resize.NEAREST
        written = set(columns[:, 2].tolist())
        for address in {*columns[:, [0, 2, 6]].ravel().tolist(), *columns[is_nearest, 7].tolist()} - {0}:
            memory = self.run.find(address)
            is_writable = address in written or found.get(memory.address, memory).is_writable
            found[memory.address] = Array(memory.address, memory.size, is_writable)
        return found.values()


class _Module:
    """``cupy.RawModule`` over NumPy arrays."""

    def __init__(self, run: PtxRun, code: str, options: tuple[str, ...]) -> None:
        self._run, self._code, self._options = run, code, options

    def get_function(self, name: str) -> Callable[..., None]:
        kernel = PtxKernel(name, self._code, self._options, self._run)

        def call(grid: Any, block: Any, arguments: Sequence[Any], *, shared_mem: int = 0) -> None:
            kernel.launch(grid, block[0], arguments, shared_mem)

        return call


def install(patch: pytest.MonkeyPatch, how: Launch | None = None, **settings: Any) -> PtxRun:
    """Let `gpuseq.ops.cuda` run on NumPy arrays and on interpreted PTX for as long as `patch` lasts.

    Parameters
    ----------
    patch : pytest.MonkeyPatch
        Takes it all away again.
    how : Launch, optional
        As for `tests.standin.host_runner.install`, whose place this takes.
    settings : object
        Further fields of `PtxRun`.
    """
    kept: list[np.ndarray] = []

    def keep(array: np.ndarray) -> np.ndarray:
        kept.append(array)
        return array

    def find(address: int) -> Array:
        for array in reversed(kept):
            if array.ctypes.data <= address < array.ctypes.data + array.nbytes:
                return Array(array.ctypes.data, array.nbytes)
        raise AssertionError(f"a descriptor points at {address:#x}, where there is no array")

    run = PtxRun(how=how or Launch(), find=find, **settings)
    host_runner.install(patch)
    poisoned, upload = device.empty, device.upload
    modules = standin.modules()
    vars(modules["cupy"])["RawModule"] = lambda *, code, options=(): _Module(run, code, options)
    door.replace_modules(patch, modules)
    door.replace(
        patch,
        load=lru_cache(maxsize=None)(kernels.Kernel),
        empty=lambda *arguments: keep(poisoned(*arguments)),
        upload=lambda *arguments: keep(upload(*arguments)),
        contiguous=lambda array: keep(np.ascontiguousarray(array)),
        address=lambda array: keep(array).ctypes.data,
    )
    return run
