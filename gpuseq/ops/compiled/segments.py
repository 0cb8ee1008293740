"""Programs cut into segments by the library: what `gpuseq.ops.segments.cut` does in some hundred calls of NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from gpuseq.ops import segments as ops_segments
from gpuseq.ops.levels import tables_of
from gpuseq.ops.listing import (
    CODE_OF_RANK,
    ERASE_COLUMNS,
    FIRST_RANKS,
    MAX_SIDE,
    NAMES,
    RANKS,
    RANKS_OF_GREY,
    STEP_COLUMNS,
    Runs,
)
from gpuseq.ops.maps import turns, write_maps
from gpuseq.ops.segments import SAMPLE_COLUMNS, STAGE_COLUMNS, Known, Segments
from gpuseq.ops.weights import gaussian_weights
from gpuseq.plan.program import STEP_DTYPE

from .library import CutFound, CutJob, InstructionSet, chosen

__all__ = ["cut"]

MAX_ROOM_BYTES = 1 << 26
"""Larger batches are left to NumPy, whose calls are the least of what these take."""

KEPT_ROOM_BYTES = 1 << 23
"""Scratch beyond this is not kept for the next batch."""

# `Map` and `Levels` of kernels/host/segments.h: how the map or the table of a step comes about. 0: it is made here.
_MADE = {
    "Rotate": 1,
    "ShearX": 2,
    "ShearY": 3,
    "TranslateX": 4,
    "TranslateY": 5,
    "HorizontalFlip": 6,
    "VerticalFlip": 7,
    "Brightness": 8,
    "Posterize": 9,
    "Solarize": 10,
    "SolarizeAdd": 11,
    "Invert": 12,
}
_MADE_BY_RANK = np.array([_MADE.get(name, 0) for name in NAMES], np.int8)
_GIVEN = [
    (rank, name) for rank, name in enumerate(NAMES) if FIRST_RANKS[1] <= rank < FIRST_RANKS[2] and name not in _MADE
]
_CONSTANTS = {
    is_grey: (ranks.ctypes.data, CODE_OF_RANK.ctypes.data, _MADE_BY_RANK.ctypes.data)
    for is_grey, ranks in ((False, RANKS), (True, RANKS_OF_GREY))
}
_LAYOUT = (len(RANKS), len(NAMES), *FIRST_RANKS, NAMES.index("AugMix"), NAMES.index("EraseNoise"))

_idle_rooms: list[np.ndarray] = []


def cut(
    program: np.ndarray,
    rows: np.ndarray,
    height: int,
    width: int,
    num_channels: int,
    *,
    moved: np.ndarray | None = None,
    cval: float = 0.0,
    known: Known | None = None,
) -> Segments:
    """Compiled twin of `gpuseq.ops.segments.cut`, which does what the library leaves to it.

    Parameters
    ----------
    program, rows, height, width, num_channels, moved, cval, known
        As there.

    Raises
    ------
    DeviceError
        As there.
    """
    found = None
    instruction_set = chosen()
    # Sides that are too large are refused in one place.
    if instruction_set is not None and max(height, width) < MAX_SIDE:
        found = _cut(instruction_set, program, rows, (height, width), num_channels == 1, moved, cval, known)
    if found is None:
        return ops_segments.cut(program, rows, height, width, num_channels, moved=moved, cval=cval, known=known)
    return found


def _cut(
    instruction_set: InstructionSet,
    program: np.ndarray,
    rows: np.ndarray,
    size: tuple[int, int],
    is_grey: bool,
    moved: np.ndarray | None,
    cval: float,
    known: Known | None,
) -> Segments | None:
    """Return the segments; None where the library leaves them to NumPy."""
    functions = instruction_set.functions
    program, rows = np.ascontiguousarray(program), np.ascontiguousarray(rows, np.int64)
    moved = None if moved is None else np.ascontiguousarray(moved, np.bool_)
    are_known = None if known is None else np.ascontiguousarray(known.samples, np.bool_)
    address = program.ctypes.data
    if address % 8 or program.dtype != STEP_DTYPE:
        return None
    num_samples, num_steps = program.shape
    job = CutJob(
        *(*_CONSTANTS[is_grey], address, rows.ctypes.data),
        *(None if marks is None else marks.ctypes.data for marks in (moved, are_known)),
        None,
        *(None, None, None, None, None, None, cval, ops_segments.COMPOSED_FROM),
        *(num_samples, num_steps, *size, 0, 0, 0, *_LAYOUT, ops_segments.PART_BYTES),
    )
    here, found = ctypes.addressof(job), CutFound()
    there = ctypes.addressof(found)
    num_bytes = functions.gpuseq_cut_room(here)
    if not 0 <= num_bytes <= MAX_ROOM_BYTES:
        return None
    room = _room(num_bytes)
    try:
        job.room = room.ctypes.data
        if not functions.gpuseq_list_steps(here, there):
            return None
        # A job holds addresses, which keep nothing alive: `held` does.
        held = _made(job, found, room, rows, size, known)
        if not functions.gpuseq_cut_steps(here, there):
            return None
        begins = found.begins[:]
        flat = np.empty(begins[-1], np.uint8)
        functions.gpuseq_write_segments(here, there, flat.ctypes.data)
        rounds = np.ndarray((found.num_rounds,), np.int64, room, found.rounds).tolist()
        del held
    finally:
        if len(room) <= KEPT_ROOM_BYTES:
            _idle_rooms.append(room)
    return Segments(
        samples=np.ndarray((num_samples, SAMPLE_COLUMNS), np.float64, flat, begins[0]),
        stages=np.ndarray((found.num_stages, STAGE_COLUMNS), np.float64, flat, begins[1]),
        rounds=rounds,
        steps=np.ndarray((found.num_steps, STEP_COLUMNS), np.float64, flat, begins[2]),
        tables=np.ndarray((found.num_final_tables, 3, 256), np.uint8, flat, begins[5]),
        lines=np.ndarray((found.num_lines,), np.int32, flat, begins[6]),
        weights=np.ndarray((found.num_weights,), np.float64, flat, begins[3]),
        erases=np.ndarray((found.num_erases, ERASE_COLUMNS), np.float64, flat, begins[4]),
        num_looks=found.num_looks,
        num_slots=found.num_slots,
        flat=flat,
    )


def _room(num_bytes: int) -> np.ndarray:
    """Return scratch that nobody else has: fresh memory would come from the system, one page fault after another."""
    try:
        room = _idle_rooms.pop()  # atomic: no other thread gets this one
    except IndexError:
        room = None
    return room if room is not None and len(room) >= num_bytes else np.empty(num_bytes, np.uint8)


def _made(
    job: CutJob,
    found: CutFound,
    room: np.ndarray,
    rows: np.ndarray,
    size: tuple[int, int],
    known: Known | None,
) -> list[np.ndarray]:
    """Make what the listed steps need that is not the library's to make, and tell the job where it is."""
    held: list[np.ndarray] = []

    def kept(array: np.ndarray) -> int:
        held.append(array)
        return int(array.ctypes.data)

    def asked(count: int, columns: int, offset: int) -> np.ndarray:
        return np.ndarray((count, columns), np.float64, room, offset)

    if found.num_gammas:
        job.gammas = kept(tables_of("Gamma", asked(found.num_gammas, 2, found.gammas)))
    if found.num_looked:
        assert known is not None
        codes, samples, factors = asked(found.num_looked, 3, found.looked).T.copy()
        job.found = kept(np.ascontiguousarray(known.tables(codes, rows[samples.astype(np.intp)], factors)))
    # NumPy's sines differ from one machine to another, and those of another library's from Python's.
    if found.num_turns:
        job.turns = kept(turns(asked(found.num_turns, 1, found.turns)[:, 0]))
    if found.num_given:
        counts = np.ndarray((len(NAMES),), np.int64, room, found.ranks).tolist()
        maps = np.zeros((8, found.num_given))
        write_maps(maps, _runs(counts), asked(found.num_given, 8, found.given), *size)
        job.given = kept(maps)
    if found.num_kernels:
        weights, begins, first = [], [], 0
        for *sides, sigma in asked(found.num_kernels, 3, found.kernels).tolist():
            for side in sides:
                weights.append(gaussian_weights(int(side), sigma))
                begins.append(float(first))
                first += len(weights[-1])
        job.kernels, job.weights, job.num_weights = kept(np.array(begins)), kept(np.concatenate(weights)), first
    return held


def _runs(counts: Sequence[int]) -> Runs:
    runs, first = [], 0
    for rank, name in _GIVEN:
        if counts[rank]:
            runs.append((name, first, first + counts[rank]))
            first += counts[rank]
    return runs
