"""Finds, pastes, compiles and launches ``kernels/*.cu``. The only module that names CuPy's ``RawModule``.

CuPy's raw kernels check nothing: a Python float handed to an ``int`` parameter is read as garbage. So every kernel
has a signature here, every launch casts to it, and a test holds the table against the text of the ``.cu`` files.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from gpuseq.base.devices import keep_kernels_in_memory
from gpuseq.base.version import PACKAGE
from gpuseq.ops.table import layout_check

__all__ = [
    "COMPILE_OPTIONS",
    "HEADERS",
    "SIGNATURES",
    "Kernel",
    "Macros",
    "cast_arguments",
    "kernel_folder",
    "load",
    "pasted_source",
]

Macros: TypeAlias = tuple[tuple[str, str], ...]
"""``(name, value)`` pairs in a fixed order: what makes one variant of a kernel, and the key of its cache."""

ArgumentKind: TypeAlias = Literal["pointer", "int32", "int64", "float64"]

COMPILE_OPTIONS = ("--std=c++17", "--fmad=false")
"""Given to NVRTC for every kernel. No FMA contraction: the pixels would leave SciPy's in the last bit."""

_SIZES: tuple[tuple[str, ArgumentKind], ...] = tuple(
    (name, "int32")
    for name in (
        "num_samples",
        "num_images",
        "height",
        "width",
        "channels",
        "rows_per_band",
        "num_bands",
        "across_bits",
    )
)


def _pointers(*names: str) -> tuple[tuple[str, ArgumentKind], ...]:
    return tuple((name, "pointer") for name in names)


def _counts(*names: str) -> tuple[tuple[str, ArgumentKind], ...]:
    return tuple((name, "int32") for name in names)


SIGNATURES: dict[str, tuple[str, tuple[tuple[str, ArgumentKind], ...]]] = {
    "augment": (
        "augment.cu",
        (
            ("images", "pointer"),
            ("table", "pointer"),
            ("ranges", "pointer"),
            ("moments", "pointer"),
            ("mean_c", "pointer"),
            ("divisor_c", "pointer"),
            ("out", "pointer"),
            *_SIZES,
            ("cval", "float64"),
            ("rescale", "float64"),
        ),
    ),
    "sample_range": (
        "reduce.cu",
        (("images", "pointer"), ("table", "pointer"), ("ranges", "pointer"), *_SIZES, ("cval", "float64")),
    ),
    "sample_moments": (
        "reduce.cu",
        (
            ("images", "pointer"),
            ("table", "pointer"),
            ("ranges", "pointer"),
            ("moments", "pointer"),
            *_SIZES,
            ("cval", "float64"),
            ("rescale", "float64"),
        ),
    ),
    "prepare": (
        "program.cu",
        (
            *_pointers("images", "stages", "steps", "lines", "weights", "tables", "table"),
            *_pointers("made", "partials", "tickets"),
            *_counts("num_stages", "num_made", "num_parts", "height", "width"),
        ),
    ),
    "program": (
        "program.cu",
        (
            *_pointers("images", "samples", "steps", "lines", "weights", "tables", "made", "erases", "quantiles"),
            *_pointers("mean_c", "divisor_c", "table", "out"),
            *_counts("num_samples", "num_made", "height", "width"),
            ("rescale", "float64"),
        ),
    ),
    "erase": (
        "program.cu",
        (
            *_pointers("samples", "erases", "quantiles", "batch"),
            *_counts("num_samples", "height", "width", "channels"),
        ),
    ),
    "resample_pass": ("resize.cu", (("passes", "pointer"), ("num_samples", "int32"))),
}
"""Kernel name -> (file, parameters in order, pointers first and reals last)."""

# The order counts: a text uses what those before it define.
HEADERS: dict[str, tuple[str, ...]] = {
    "augment.cu": ("common.cuh", "geometry.cuh", "sampling.cuh", "finish.cuh", "sample.cuh"),
    "reduce.cu": ("common.cuh", "geometry.cuh", "sampling.cuh", "finish.cuh", "sample.cuh"),
    "resize.cu": ("common.cuh",),
    "program.cu": ("common.cuh", "geometry.cuh", "sampling.cuh", "finish.cuh", "sample.cuh", "program.cuh"),
}
"""File -> the texts that are pasted before it, in order."""

# An argument is packed by its width: a Python int would take 8 bytes where the kernel reads 4.
_CASTS: dict[str, type[np.number[Any]]] = {"int32": np.int32, "int64": np.int64}
_REAL = np.float64
_NULL = np.uintp(0)


@cache
def kernel_folder() -> Path:
    """Return the folder of the ``.cu`` files: the wheel's ``gpuseq/_kernels``, else the checkout's ``kernels``.

    Never the other way round: beside an installed package, ``../kernels`` can be another package's.

    Raises
    ------
    FileNotFoundError
        If neither is there, which means a broken installation.
    """
    shipped, beside = PACKAGE / "_kernels", PACKAGE.parent / "kernels"
    # common.cuh and not the folder alone: a folder of that name may be another package's.
    for folder in (shipped, beside):
        if (folder / "common.cuh").is_file():
            return folder
    raise FileNotFoundError(f"the kernel files are missing: neither {shipped} nor {beside} holds them")


def pasted_source(file: str, macros: Macros = ()) -> str:
    """Return the text of `file` with its headers before it, as one translation unit.

    Pasted and not included, because CuPy's compile cache does not see what an ``#include`` brings in; the ``#line``
    directives make the compiler's messages point into the files all the same.

    Parameters
    ----------
    file : str
        Key of `HEADERS`.
    macros : Macros
        The variant, defined in the text and not by options: CuPy compiles an empty program for every set of options
        that a process has not used yet, though the kernel itself lies in its cache.
    """
    return "".join(f"#define {name} {value}\n" for name, value in macros) + _texts(file)


@cache
def _texts(file: str) -> str:
    texts = []
    for name in (*HEADERS[file], file):
        texts.append(f'#line 1 "{name}"\n{(kernel_folder() / name).read_text(encoding="utf-8")}')
        # Right behind the enumeration that it checks.
        if name == "geometry.cuh":
            texts.append(layout_check())
    return "\n".join(texts)


def cast_arguments(name: str, arguments: Sequence[Any]) -> list[Any]:
    """Check and cast the arguments of one launch to the kernel's signature.

    Parameters
    ----------
    name : str
        Kernel, a key of `SIGNATURES`.
    arguments : sequence
        One value per parameter. A pointer is a C-contiguous array, memory without a shape, as
        `gpuseq.ops.cuda.memory.part` returns it, or None for a null pointer.

    Returns
    -------
    list
        Arrays and memory as they are, null pointers as ``numpy.uintp(0)``, scalars as NumPy scalars of the declared
        width.

    Raises
    ------
    TypeError
        If there are too few or too many arguments.
    ValueError
        If an array is not C-contiguous.
    """
    num_pointers, num_whole, num_all = _layout(name)
    if len(arguments) != num_all:
        raise TypeError(f"kernel {name!r} takes {num_all} arguments; got {len(arguments)}")
    cast = []
    for value in arguments[:num_pointers]:
        if value is None:
            value = _NULL  # typed: None itself is no argument that CuPy packs
        elif type(value) not in _without_strides:
            _check_strides(name, value, arguments)
        cast.append(value)
    cast += _whole(name, tuple(arguments[num_pointers:num_whole]))
    for value in arguments[num_whole:]:
        cast.append(_REAL(value))
    return cast


_without_strides: set[type] = set()
"""Types of pointers that have none; CuPy's memory is one, and it comes here when it is first seen."""


def _check_strides(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """Refuse an array that is not C-contiguous."""
    if not hasattr(value, "flags"):
        _without_strides.add(type(value))
    elif not value.flags.c_contiguous:
        parameter = next(
            parameter for (parameter, _), each in zip(SIGNATURES[name][1], arguments, strict=True) if each is value
        )
        raise ValueError(
            f"argument {parameter!r} of kernel {name!r} must be C-contiguous; its strides are {value.strides}"
        )


# Kept, because they are the sizes of the batch before. Not so the reals: of these 0.0 and -0.0 would be one.
@lru_cache(maxsize=1024)
def _whole(name: str, values: tuple[Any, ...]) -> tuple[np.number[Any], ...]:
    """Return the whole numbers of a launch in their declared widths."""
    num_pointers, num_whole, _ = _layout(name)
    kinds = [kind for _, kind in SIGNATURES[name][1][num_pointers:num_whole]]
    return tuple(_CASTS[kind](value) for kind, value in zip(kinds, values, strict=True))


@cache
def _layout(name: str) -> tuple[int, int, int]:
    """Return how many arguments of a kernel are pointers, which come first, these or whole numbers, and of any kind."""
    kinds = [kind for _, kind in SIGNATURES[name][1]]
    num_pointers, num_real = kinds.count("pointer"), kinds.count("float64")
    return num_pointers, len(kinds) - num_real, len(kinds)


_CODES = {"pointer": "Q", "int32": "i", "int64": "q", "float64": "d"}


class _Arguments:
    """The arguments of a kernel's launches by one thread, as the driver reads them: where they lie, and their values.

    The driver has copied them when its call returns. Until then it reads without the GIL, so no other thread may write
    here.
    """

    def __init__(self, name: str) -> None:
        codes = [_CODES[kind] for _, kind in SIGNATURES[name][1]]
        packed = struct.Struct("@" + "".join(codes))
        # The last of some is as far from their end as it is long.
        ends = [struct.calcsize("@" + "".join(codes[: number + 1])) for number in range(len(codes))]
        self.memory = ctypes.create_string_buffer(packed.size)
        first = ctypes.addressof(self.memory)
        begins = [first + end - struct.calcsize(code) for end, code in zip(ends, codes, strict=True)]
        self._cells = (ctypes.c_void_p * len(codes))(*begins)
        self.at = ctypes.addressof(self._cells)
        self.pack = packed.pack_into


class Kernel:
    """One compiled variant of one kernel.

    Parameters
    ----------
    name : str
        Key of `SIGNATURES`.
    macros : Macros
        The variant. CuPy compiles it for the current device now, for another at its first launch there, and keeps the
        binaries on disk.
    """

    def __init__(self, name: str, macros: Macros) -> None:
        import cupy

        self.name = name
        self.macros = macros
        # CuPy keeps what it compiles on disk by this text, so a change of a comment in a kernel compiles it anew, once.
        code = pasted_source(SIGNATURES[name][0], macros)
        self._function = _kept_or_not(lambda: cupy.RawModule(code=code, options=COMPILE_OPTIONS).get_function(name))
        # What stands in for CuPy in the tests has no driver.
        self._cuda = cupy.cuda if hasattr(cupy.cuda, "driver") else None
        self._here = threading.local()

    def launch(self, grid: tuple[int, ...], block: int, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
        """Enqueue the kernel on CuPy's current stream; the host does not wait.

        Parameters
        ----------
        grid : tuple of int
            Number of blocks, one or two dimensions.
        block : int
            Threads per block.
        arguments : sequence
            As `cast_arguments` takes them.
        shared_bytes : int
            Dynamic shared memory.

        Raises
        ------
        TypeError, ValueError
            As `cast_arguments`.
        """
        cuda = self._cuda
        if cuda is not None:
            ready = self._here.__dict__.get(cuda.runtime.getDevice())
            if ready is not None and self._launch_packed(ready, grid, block, arguments, shared_bytes):
                return
        # At every launch: a wrong width or a strided array would be read as garbage and raise nothing.
        cast = cast_arguments(self.name, arguments)
        try:
            self._function(grid, (block,), cast, shared_mem=shared_bytes)
        except OSError as error:  # as in `_kept_or_not`, of which a launch need not make a function
            keep_kernels_in_memory(error)
            self._function(grid, (block,), cast, shared_mem=shared_bytes)
        if cuda is not None:
            # From now on it is compiled for this device, which is known to this thread.
            ready = _Arguments(self.name), self._function.kernel.ptr
            self._here.__dict__[cuda.runtime.getDevice()] = ready

    def _launch_packed(
        self, ready: tuple[_Arguments, int], grid: tuple[int, ...], block: int, values: Sequence[Any], shared_bytes: int
    ) -> bool:
        """Launch as CuPy does, by the driver, of arguments that are packed in one go; False where they do not fit.

        CuPy makes an object of each argument at each launch: 8 us of a batch's time, where this takes 3.
        """
        packed, function = ready
        cuda: Any = self._cuda
        num_pointers, _, _ = _layout(self.name)
        addresses = []
        for value in values[:num_pointers]:
            if value is None:
                addresses.append(0)
            elif type(value) in _without_strides:
                addresses.append(value.ptr)
            else:
                _check_strides(self.name, value, values)
                addresses.append(value.ptr if type(value) in _without_strides else value.data.ptr)
        try:
            packed.pack(packed.memory, 0, *addresses, *values[num_pointers:])
        except struct.error:
            return False  # `cast_arguments` casts them, or says what is wrong
        rows = grid[1] if len(grid) > 1 else 1
        stream = cuda.get_current_stream().ptr
        cuda.driver.launchKernel(function, grid[0], rows, 1, block, 1, 1, shared_bytes, stream, packed.at, 0)
        return True


def _kept_or_not(compiling: Callable[[], Any]) -> Any:
    """Call what compiles a kernel, once more where CuPy compiled it and then failed to keep it on disk."""
    try:
        return compiling()
    except OSError as error:
        keep_kernels_in_memory(error)
        return compiling()


@lru_cache(maxsize=512)
def load(name: str, macros: Macros) -> Kernel:
    """Return the variant of kernel `name`, made once per process.

    Raises
    ------
    MissingDependencyError
        If CuPy is not installed.
    """
    return Kernel(name, macros)
