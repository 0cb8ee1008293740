"""Finds and loads the library of the compiled engine, and picks the instruction set that runs here.

``GPUSEQ_CPU_ENGINE`` decides what computes on the host: ``auto`` takes the compiled engine where it is installed,
``numpy`` the NumPy engine, ``compiled`` insists, and ``compiled:baseline``, ``compiled:avx2`` or ``compiled:avx512``
name the instruction set. ``GPUSEQ_CPU_LIBRARY`` is the path of another build of the library: for developers.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpuseq.base.arguments import did_you_mean
from gpuseq.base.errors import MissingDependencyError

__all__ = [
    "ENGINE",
    "LIBRARY",
    "PATH",
    "BoxesTable",
    "ChoicesTable",
    "CutFound",
    "CutJob",
    "FileRecord",
    "InstructionSet",
    "Job",
    "ProgramJob",
    "ResizeJob",
    "asked_for",
    "chosen",
    "describe",
    "instruction_sets",
]

ENGINE = "GPUSEQ_CPU_ENGINE"
"""The environment variable that decides what computes on the host."""

PATH = "GPUSEQ_CPU_LIBRARY"
"""The environment variable that names another build of the library."""

# Not an extension module: it knows no Python, so one wheel serves every version of it.
LIBRARY = "gpuseq_cpu.so"

ABI = 16
"""Has to be the library's ``gpuseq_abi()``: what a job holds, and which functions there are."""

logger = logging.getLogger("gpuseq")

# Of a fixed width, as in the headers: `c_long` has 32 bits on Windows.
_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


class Job(ctypes.Structure):
    """``Job`` of ``kernels/host/job.h``, where its fields are explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("images", "table", "out", "mean_c", "divisor_c", "kept")),
        *((name, ctypes.c_double) for name in ("cval", "rescale")),
        *((name, _INT) for name in ("num_samples", "height", "width", "channels", "source_kind", "is_double")),
        *((name, _INT) for name in ("out_kind", "source_channels_last", "out_channels_last")),
        *((name, _INT) for name in ("order", "fill_mode", "corrected", "round_affine")),
        *((name, _INT) for name in ("has_affine", "has_flip", "has_channel_shift", "has_brightness", "has_range")),
        *((name, _INT) for name in ("preprocess", "samplewise_center", "samplewise_std", "streams", "rows_per_unit")),
        ("stage", _INT),
    )


class ProgramJob(ctypes.Structure):
    """``ProgramJob`` of ``kernels/host/program.h``, where its fields are explained."""

    _fields_ = (
        ("images", _POINTER),
        *((name, _LONG) for name in ("image_stride", "row_stride", "col_stride", "channel_stride")),
        *(
            (name, _POINTER)
            for name in ("rows", "samples", "steps", "tables", "lines", "weights", "erases", "quantiles")
        ),
        *((name, _POINTER) for name in ("learns", "learned")),
        *((name, _INT) for name in ("height", "width", "channels", "has_blur", "has_mix")),
    )


class LineTable(ctypes.Structure):
    """``LineTable`` of ``kernels/host/resize.h``."""

    _fields_ = (*((name, _POINTER) for name in ("first", "count", "weights")), ("length", _INT), ("taps", _INT))


class ResizeJob(ctypes.Structure):
    """``ResizeJob`` of ``kernels/host/resize.h``, where its fields are explained."""

    _fields_ = (
        *(("source", _POINTER), ("source_pitch", _LONG), ("target", _POINTER)),
        *(("across", LineTable), ("down", LineTable), ("rows", _POINTER), ("cols", _POINTER)),
        *((name, _INT) for name in ("height", "width", "channels", "pixel_bytes")),
        *((name, _INT) for name in ("target_rows", "target_cols", "down_first")),
    )


class FileRecord(ctypes.Structure):
    """``FileRecord`` of ``kernels/host/files.h``, where its fields are explained."""

    _fields_ = (
        *((name, _LONG) for name in ("path", "start", "num_bytes")),
        *((name, _INT) for name in ("state", "buffer", "width", "height")),
        *((name, ctypes.c_uint8) for name in ("components", "bits", "is_plain", "is_stored_as_rgb", "is_complete")),
        *(("orientation", ctypes.c_uint8), ("unused", ctypes.c_uint8 * 2)),
    )


class ChoicesTable(ctypes.Structure):
    """``ChoicesTable`` of ``kernels/host/choices.h``, where its fields are explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("steps", "columns", "arguments", "lines", "within", "orders")),
        *((name, _LONG) for name in ("num_tables", "num_choices", "num_bins", "num_steps", "num_uniform")),
        *((name, _LONG) for name in ("argument", "num_orders", "order")),
        *((name, ctypes.c_double) for name in ("spread", "unit", "middle", "deviation", "most")),
    )


class BoxesTable(ctypes.Structure):
    """``BoxesTable`` of ``kernels/host/boxes.h``, where its fields are explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("step", "otherwise")),
        *((name, ctypes.c_double) for name in ("rows", "cols", "most_rows", "most_cols")),
        *((name, ctypes.c_double * 2) for name in ("scale", "log_ratio")),
        *(("p", ctypes.c_double), ("num_before", _LONG), ("is_tall", _INT), ("has_key", _INT)),
    )


class CutJob(ctypes.Structure):
    """``CutJob`` of ``kernels/host/segments.h``, where its fields are explained."""

    _fields_ = (
        *((name, _POINTER) for name in ("ranks", "codes", "maps", "program", "rows", "moved")),
        *((name, _POINTER) for name in ("slots", "known", "middles", "looks", "room")),
        *(("room_bytes", _LONG), ("known_turns", _POINTER), ("num_known_turns", _LONG)),
        *((name, _POINTER) for name in ("gammas", "turns", "given", "kernels", "weights")),
        *(("cval", ctypes.c_double), ("composed_from", ctypes.c_double)),
        *((name, _LONG) for name in ("num_samples", "steps_per_sample", "height", "width", "num_weights")),
        *((name, _LONG) for name in ("num_listed", "num_mixes")),
        *((name, _INT) for name in ("num_program_codes", "num_ranks")),
        *((name, _INT) for name in ("first_table", "first_map", "first_other", "first_erase", "mix", "noise")),
        *((name, _INT) for name in ("look_colours", "part_bytes")),
    )


class CutFound(ctypes.Structure):
    """``CutFound`` of ``kernels/host/segments.h``."""

    _fields_ = (
        *((name, _LONG) for name in ("num_tables", "num_gammas", "num_looked", "num_unknown")),
        *((name, _LONG) for name in ("num_turns", "num_given")),
        *((name, _LONG) for name in ("num_kernels", "gammas", "turns", "given", "kernels", "ranks")),
        *((name, _LONG) for name in ("num_steps", "num_stages", "num_rounds", "num_looks", "num_slots", "num_lines")),
        *((name, _LONG) for name in ("num_weights", "num_erases", "num_noises", "num_final_tables", "rounds")),
        ("begins", _LONG * 8),
    )


@dataclass(frozen=True, eq=False)
class InstructionSet:
    """One compilation of the engine, which runs on this machine.

    Attributes
    ----------
    name : str
        ``"avx512"``, ``"avx2"`` or ``"baseline"``.
    number : int
        Its place in the library.
    functions : ctypes.CDLL
        The library; its functions take `number` first and release the GIL while they work.
    """

    name: str
    number: int
    functions: Any


_BUILT = str(Path(__file__).with_name(LIBRARY))
"""Where the build puts it; made once, because every call of an op asks for the engine."""


_WITH_GIL: dict[str, tuple[Any, ...]] = {
    "gpuseq_list_steps": (_LONG, _POINTER, _POINTER),
    "gpuseq_cut_steps": (ctypes.c_int, _POINTER, _POINTER),
    "gpuseq_write_segments": (None, _POINTER, _POINTER, _POINTER),
    "gpuseq_choose_steps": (ctypes.c_int, _POINTER, _POINTER, _LONG, _LONG, _POINTER),
    "gpuseq_normal_quantiles": (None, _POINTER, _LONG, ctypes.c_double, ctypes.c_double, _POINTER),
    "gpuseq_philox": (None, _POINTER, _LONG, _LONG, *(ctypes.c_uint64,) * 3, _POINTER),
    "gpuseq_draw_steps": (
        *(ctypes.c_int, _POINTER, _POINTER, _LONG, *(ctypes.c_uint64,) * 3),
        *(_POINTER, _LONG, _POINTER, _LONG),
    ),
    "gpuseq_write_mixes": (None, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG),
    "gpuseq_draw_boxes": (ctypes.c_int, _POINTER, _POINTER, _LONG, *(ctypes.c_uint64,) * 3, _POINTER, _LONG),
    "gpuseq_put_identities_last": (None, _POINTER, _LONG, _LONG),
    "gpuseq_are_within_limits": (ctypes.c_int, _POINTER, _LONG, _LONG, _LONG, _POINTER, _LONG),
}
"""Functions that hold the GIL: the type of the result, and those of the arguments."""


@lru_cache(maxsize=8)
def _load(path: str) -> ctypes.CDLL | str:
    """Return the library, or one line that says why there is none."""
    if not Path(path).is_file():
        return (
            "the library was not built: there was no C++ compiler when gpuseq was installed. Install one "
            "(apt-get install g++) and install gpuseq again"
        )
    try:
        # CDLL and not PyDLL, so that every call releases the GIL.
        library = ctypes.CDLL(path)
        abi, job, resize_job = library.gpuseq_abi(), library.gpuseq_job_bytes(), library.gpuseq_resize_job_bytes()
        # Older libraries lack a function, and the message below is better than that of the missing name.
        program_job = library.gpuseq_program_job_bytes() if abi > 1 else 0
        file_record = library.gpuseq_file_record_bytes() if abi > 5 else 0
        cut = (library.gpuseq_cut_job_bytes(), library.gpuseq_cut_found_bytes()) if abi > 6 else (0, 0)
        choices = library.gpuseq_choices_bytes() if abi > 7 else 0
        boxes = library.gpuseq_boxes_bytes() if abi > 12 else 0
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error}). Install gpuseq again"
    # The number alone is kept by hand; the sizes tell of a field that was added on one side only, before the library
    # reads past the end of a structure.
    sizes = tuple(
        map(ctypes.sizeof, (Job, ResizeJob, ProgramJob, FileRecord, CutJob, CutFound, ChoicesTable, BoxesTable))
    )
    if (abi, job, resize_job, program_job, file_record, *cut, choices, boxes) != (ABI, *sizes):
        return f"{path} is of another version of gpuseq (its interface is {abi}, not {ABI}). Install gpuseq again"
    # Undeclared, ctypes would take results and addresses for 32-bit integers and cut them.
    library.gpuseq_set_name.restype = ctypes.c_char_p
    for name in ("gpuseq_augment_scratch", "gpuseq_augment_kept", "gpuseq_program_scratch", "gpuseq_resize_scratch"):
        getattr(library, name).restype = _LONG
        jobs = 2 if name == "gpuseq_program_scratch" else 1
        getattr(library, name).argtypes = (ctypes.c_int, *(_POINTER,) * jobs)
    library.gpuseq_augment.restype = library.gpuseq_program.restype = library.gpuseq_resize.restype = None
    library.gpuseq_augment.argtypes = (ctypes.c_int, _POINTER, _LONG, _LONG, _POINTER)
    library.gpuseq_program.argtypes = (ctypes.c_int, _POINTER, _POINTER, _LONG, _LONG, _POINTER)
    library.gpuseq_resize.argtypes = (ctypes.c_int, _POINTER, _POINTER)
    library.gpuseq_read_files.restype = _LONG
    library.gpuseq_read_files.argtypes = (
        *(ctypes.c_char_p, _POINTER, _LONG, _POINTER, _LONG, _LONG),
        *(_INT, _LONG, _LONG, _INT),
    )
    # These take microseconds, and a thread that gives the GIL away may wait for milliseconds until it has it back.
    for name, (result, *arguments) in _WITH_GIL.items():
        setattr(library, name, ctypes.PYFUNCTYPE(result, *arguments)((name, library)))
    return library


def _path() -> str:
    return os.environ.get(PATH) or _BUILT


# AVX-512 was tried for `augment`: 353 us where AVX2 took 364, for a third more of library.
def instruction_sets() -> tuple[InstructionSet, ...] | str:
    """Return what of the library runs on this machine, the widest first; or one line that says why nothing does."""
    library = _load(_path())
    if isinstance(library, str):
        return library
    return _instruction_sets(library)


@lru_cache(maxsize=8)
def _instruction_sets(library: ctypes.CDLL) -> tuple[InstructionSet, ...]:
    found, number = [], 0
    # The library lists them, the widest first, and so decides what "auto" takes.
    while (name := library.gpuseq_set_name(number)) is not None:
        if library.gpuseq_set_runs_here(number):
            found.append(InstructionSet(name.decode(), number, library))
        number += 1
    return tuple(found)


def chosen() -> InstructionSet | None:
    """Return the instruction set that works on host arrays; None for the NumPy engine.

    Raises
    ------
    ValueError
        If ``GPUSEQ_CPU_ENGINE`` is none of the accepted values.
    MissingDependencyError
        If it insists on what is not there.
    """
    # The variables are read at every call, so they may be set after the import; the answer for them is kept.
    if _values is not None and os.environ is _environ:
        return asked_for(_values.get(_ENGINE_KEY), _values.get(_PATH_KEY))
    return asked_for(os.environ.get(ENGINE), os.environ.get(PATH))


# `os.environ` raises and catches an exception for a variable that is not set: most of 2 us for the two of each call, of
# which a batch makes several. The dictionary in which it keeps them, encoded, answers at once. Where an interpreter has
# none, or something else was put in the place of `os.environ`, that itself is asked.
_environ = os.environ
_values: dict[Any, Any] | None = getattr(os.environ, "_data", None)
_ENGINE_KEY, _PATH_KEY = os.environ.encodekey(ENGINE), os.environ.encodekey(PATH)


@lru_cache(maxsize=32)
def asked_for(asked: str | bytes | None, path: str | bytes | None) -> InstructionSet | None:
    """Return what `chosen` does under given values of the variables; the same object each time.

    Parameters
    ----------
    asked : str, bytes or None
        Of ``GPUSEQ_CPU_ENGINE``, as text or encoded. None and the empty string: "auto".
    path : str, bytes or None
        Of ``GPUSEQ_CPU_LIBRARY``, which has to be set to it.

    Raises
    ------
    ValueError, MissingDependencyError
        As `chosen`.
    """
    asked = os.fsdecode(asked or "auto")
    engine, _, wanted = asked.partition(":")
    accepted = ("auto", "numpy", "compiled", "compiled:avx512", "compiled:avx2", "compiled:baseline")
    if asked not in accepted:
        listed = ", ".join(map(repr, accepted))
        raise ValueError(
            f"the environment's {ENGINE} must be one of {listed}; got {asked!r}{did_you_mean(asked, accepted)}"
        )
    if engine == "numpy":
        return None
    # "auto" takes what there is; only a name insists.
    found = instruction_sets()
    if isinstance(found, str):
        if engine == "compiled":
            raise MissingDependencyError(f"{ENGINE}={asked} cannot be had: {found}. Or use {ENGINE}=auto")
        logger.info("CPU engine: NumPy, and not the compiled one: %s", found)
        return None
    for instruction_set in found:
        if not wanted or instruction_set.name == wanted:
            logger.debug("CPU engine: compiled, %s", instruction_set.name)
            return instruction_set
    names = ", ".join(item.name for item in found)
    raise MissingDependencyError(f"{ENGINE}={asked} cannot be had: this machine runs {names}. Or use {ENGINE}=compiled")


def describe() -> str:
    """Return which engine works on host arrays, in a few words: ``"compiled, avx2"`` or ``"numpy"`` and why."""
    instruction_set = chosen()
    if instruction_set is not None:
        return f"compiled, {instruction_set.name}"
    if os.environ.get(ENGINE) == "numpy":
        return f"numpy ({ENGINE}=numpy)"
    return f"numpy ({instruction_sets()})"
