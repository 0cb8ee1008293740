"""Programs cut into segments by the library: what `gpuseq.ops.segments.cut` does in some hundred calls of NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpuseq.ops import segments as ops_segments
from gpuseq.ops.levels import tables_of
from gpuseq.ops.listing import (
    CODE_OF_RANK,
    FIRST_RANKS,
    MAX_SIDE,
    NAMES,
    RANKS,
    RANKS_OF_GREY,
    Runs,
)
from gpuseq.ops.looks import Known
from gpuseq.ops.maps import turns, write_maps
from gpuseq.ops.segments import Packed
from gpuseq.ops.weights import gaussian_weights
from gpuseq.plan.program import STEP_DTYPE

from .library import CutFound, CutJob, InstructionSet, chosen

__all__ = ["pack"]

MAX_ROOM_BYTES = 1 << 26
"""Larger batches are left to NumPy, whose calls are the least of what these take."""

LEAST_ROOM_BYTES = 1 << 20
"""Scratch of a first batch, of 256 samples of two steps."""

KEPT_ROOM_BYTES = 1 << 23
"""Scratch beyond this is not kept for the next batch."""

MAX_KNOWN_TURNS = 64
"""Angles whose functions each piece of scratch keeps: those of the 31 bins of policies, both ways."""

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
_RANKS_AT = {False: RANKS.ctypes.data, True: RANKS_OF_GREY.ctypes.data}
_CONSTANTS: dict[str, Any] = {
    "codes": CODE_OF_RANK.ctypes.data,
    "maps": _MADE_BY_RANK.ctypes.data,
    "num_program_codes": len(RANKS),
    "num_ranks": len(NAMES),
    "mix": NAMES.index("AugMix"),
    "noise": NAMES.index("EraseNoise"),
    "composed_from": ops_segments.COMPOSED_FROM,
    "part_bytes": ops_segments.PART_BYTES,
    **dict(zip(("first_table", "first_map", "first_other", "first_erase"), FIRST_RANKS, strict=True)),
}


class _Work:
    """Scratch, and the structures that say what the library reads there and has found: for one batch at a time."""

    def __init__(self, num_bytes: int) -> None:
        self.room = np.empty(num_bytes, np.uint8)
        self.room_at = self.room.ctypes.data
        self.known_turns = np.empty((MAX_KNOWN_TURNS, 3))
        where = {"room": self.room_at, "room_bytes": num_bytes, "known_turns": self.known_turns.ctypes.data}
        self.job, self.found = CutJob(**_CONSTANTS, **where), CutFound()
        self.job_at, self.found_at = ctypes.addressof(self.job), ctypes.addressof(self.found)

    def learn_turns(self, degrees: np.ndarray, turned: np.ndarray) -> None:
        """Keep turns for the batches after this one, as many as there is room for."""
        known = self.job.num_known_turns
        for angle, turn in zip(degrees.tolist(), turned.tolist(), strict=True):
            if known == MAX_KNOWN_TURNS:
                break
            # What is no number is equal to none, and would only take room.
            if angle == angle and angle not in self.known_turns[:known, 0]:
                self.known_turns[known] = angle, turn.real, turn.imag
                known += 1
        self.job.num_known_turns = known


_idle: list[_Work] = []


def pack(
    program: np.ndarray,
    rows: np.ndarray,
    height: int,
    width: int,
    num_channels: int,
    *,
    moved: np.ndarray | None = None,
    cval: float = 0.0,
    known: Known | None = None,
) -> Packed:
    """Cut the programs of a batch, and say how they go to a device: `gpuseq.ops.segments.pack` of what its `cut` makes.

    Parameters
    ----------
    program, rows, height, width, num_channels, moved, cval, known
        As `gpuseq.ops.segments.cut` takes them. `program` is read once more when the memory is written.

    Raises
    ------
    DeviceError
        As there.
    """
    instruction_set = chosen()
    # Sides that are too large are refused in one place.
    if instruction_set is not None and max(height, width) < MAX_SIDE:
        packed = _packed(instruction_set, program, rows, (height, width), num_channels == 1, moved, cval, known)
        if packed is not None:
            return packed
    segments = ops_segments.cut(program, rows, height, width, num_channels, moved=moved, cval=cval, known=known)
    return ops_segments.pack(segments)


def _packed(
    instruction_set: InstructionSet,
    program: np.ndarray,
    rows: np.ndarray,
    size: tuple[int, int],
    is_grey: bool,
    moved: np.ndarray | None,
    cval: float,
    known: Known | None,
) -> Packed | None:
    """Return the segments; None where the library leaves them to NumPy."""
    functions = instruction_set.functions
    program, rows = np.ascontiguousarray(program), np.ascontiguousarray(rows, np.int64)
    moved = None if moved is None else np.ascontiguousarray(moved, np.bool_)
    address = program.ctypes.data
    if address % 8 or program.dtype != STEP_DTYPE:
        return None
    work = _taken()
    job, found = work.job, work.found
    job.ranks, job.program, job.rows = _RANKS_AT[is_grey], address, rows.ctypes.data
    job.moved = None if moved is None else moved.ctypes.data
    job.slots, slots = None, None
    if known is not None:
        looked, slots = known.looked, np.ascontiguousarray(known.slots, np.int64)
        # Most often the rows themselves.
        job.slots = job.rows if slots is rows else slots.ctypes.data
        job.known, job.middles, job.looks = looked.addresses
        job.look_colours = looked.tables.shape[2]
    job.cval, job.num_weights = cval, 0
    job.num_samples, job.steps_per_sample = program.shape
    job.height, job.width = size
    needed = functions.gpuseq_list_steps(work.job_at, work.found_at)
    if 0 < needed <= MAX_ROOM_BYTES:
        work = _grown(work, needed)
        job, found = work.job, work.found
        needed = functions.gpuseq_list_steps(work.job_at, work.found_at)
    if needed:
        _give_back(work)
        return None
    # A job holds addresses, which keep nothing alive: `held` does.
    held = [program, rows, moved, slots, known]
    if found.num_gammas or found.num_turns or found.num_given or found.num_kernels:
        held += _made(work, size)
    if not functions.gpuseq_cut_steps(work.job_at, work.found_at):
        _give_back(work)
        return None
    num_rounds = found.num_rounds
    rounds = (ctypes.c_int64 * num_rounds).from_address(work.room_at + found.rounds)[:] if num_rounds else []
    return Packed(
        found.begins[:],
        rounds,
        found.num_looks,
        found.num_slots,
        found.num_erases,
        found.num_noises > 0,
        found.num_unknown > 0,
        partial(_write, functions.gpuseq_write_segments, [work], held),
    )


def _write(write_segments: Callable[[int, int, int], None], works: list[_Work], held: list[Any], to: int) -> None:
    """Write the memory of what was packed, and give the scratch back, of which there must then be no further use."""
    work = works.pop()
    write_segments(work.job_at, work.found_at, to)
    held.clear()
    _give_back(work)


def _taken() -> _Work:
    """Return scratch that nobody else has: fresh memory would come from the system, one page fault after another."""
    try:
        return _idle.pop()  # atomic: no other thread gets this one
    except IndexError:
        return _Work(LEAST_ROOM_BYTES)


def _grown(work: _Work, num_bytes: int) -> _Work:
    """Return larger scratch, where the same job is."""
    larger = _Work(num_bytes)
    own = larger.job.room, larger.job.known_turns
    ctypes.memmove(larger.job_at, work.job_at, ctypes.sizeof(CutJob))
    larger.job.room, larger.job.known_turns = own
    larger.job.room_bytes, larger.job.num_known_turns = num_bytes, 0
    return larger


def _give_back(work: _Work) -> None:
    if len(work.room) <= KEPT_ROOM_BYTES:
        _idle.append(work)


def _made(work: _Work, size: tuple[int, int]) -> list[Any]:
    """Make what the listed steps need that is not the library's to make, and tell the job where it is."""
    job, found, held = work.job, work.found, list[Any]()

    def kept(array: np.ndarray) -> int:
        held.append(array)
        return int(array.ctypes.data)

    def asked(count: int, columns: int, offset: int) -> np.ndarray:
        return np.ndarray((count, columns), np.float64, work.room, offset)

    if found.num_gammas:
        job.gammas = kept(tables_of("Gamma", asked(found.num_gammas, 2, found.gammas)))
    # NumPy's sines differ from one machine to another, and those of another library's from Python's.
    if found.num_turns:
        degrees = asked(found.num_turns, 1, found.turns)[:, 0]
        turned = turns(degrees)
        job.turns = kept(turned)
        work.learn_turns(degrees, turned)
    if found.num_given:
        counts = np.ndarray((len(NAMES),), np.int64, work.room, found.ranks).tolist()
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
