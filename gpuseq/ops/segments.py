"""Programs cut into segments: what a kernel does to each sample, as tables of numbers made on the host.

A *segment* is a run of steps that needs no image but the one it starts from. A cut falls before a step that reads
several pixels and is not the first of its segment (bilinear geometry, sharpness, blur, a mix of chains), and before one
whose table follows from a look at the image (contrast, autocontrast, equalize). What lies before the last cut of a
sample is a *stage*: an intermediate image, a look at one, or both. The first stages of all samples are a *round* of the
kernel ``prepare``, their second ones the next. The last segment is done by the kernel ``program`` together with
everything that follows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpuseq.base.errors import DeviceError

from .listing import (
    AUTOCONTRAST,
    BILINEAR,
    BLUR,
    CHAIN_END,
    CONTRAST,
    EQUALIZE,
    KERAS,
    MAX_SIDE,
    MIX,
    MIX_END,
    SHARPNESS,
    TABLE,
    Steps,
    steps_of,
)
from .looks import Known

__all__ = ["Packed", "Segments", "cut", "fill_in", "pack"]

# Widths of the rows below: kernels/program.cu reads by the same.
STAGE_COLUMNS = 8
SAMPLE_COLUMNS = 6
MAX_STEPS = 16
"""Of a segment."""

COMPOSED_FROM = 1 / 16
"""Share of the steps from which on pairs of tables are composed: of fewer the kernel reads both, in less time than the
host takes to compose them."""

PART_BYTES = 256
"""Where a part of an upload begins, as CuPy's own arrays do."""

SOURCE = -1
"""In the place of a slot: the source image."""


@dataclass
class Segments:
    """The tables of a batch, as ``prepare`` and ``program`` read them.

    Attributes
    ----------
    samples : numpy.ndarray
        Shape ``(N, 6)``, float64: source row, where the last segment starts from (a slot of the scratch, or -1 for the
        source), its first step, its steps, the first erasing step, erasing steps.
    stages : numpy.ndarray
        Shape ``(L, 8)``, float64, round by round: where it starts from, first step, steps, the slot that it writes or
        -1, what it looks at the image for (0 nothing, 1 contrast, 2 autocontrast, 3 equalize), the table that it
        writes, a factor, the source row.
    rounds : list of int
        How many stages each round has. A stage needs what those of its sample in the rounds before have made.
    steps : numpy.ndarray
        Shape ``(K, 10)``, float64. Of a mix: share, chains, the slot of the first one's image, its weight's place.
    tables, lines, weights, erases
        As `~gpuseq.ops.listing.Steps` has them.
    num_looks : int
        Tables that ``prepare`` makes.
    num_slots : int
        Intermediate images.
    asks : bool
        Whether looks would be taken of what is known if more source images were.
    """

    samples: np.ndarray
    stages: np.ndarray
    rounds: list[int]
    steps: np.ndarray
    tables: np.ndarray
    lines: np.ndarray
    weights: np.ndarray
    erases: np.ndarray
    num_looks: int
    num_slots: int
    asks: bool = False


class Packed(NamedTuple):
    """Segments as they go to a device: one piece of memory, and what the launches have to know of it.

    Attributes
    ----------
    begins : sequence of int
        Where each of the arrays begins, in bytes, each at a multiple of `PART_BYTES`: samples, stages, steps, weights,
        erases, tables, lines; and the end of all. Between two of them is 0, and so it is where one would be that is
        empty.
    rounds, num_looks, num_slots, asks
        As `Segments` has them.
    num_erases : int
        Erasing steps.
    has_noise : bool
        Whether one of them writes noise.
    write : callable
        Writes the memory, which begins at the address that it is given. Called once.
    """

    begins: Sequence[int]
    rounds: list[int]
    num_looks: int
    num_slots: int
    num_erases: int
    has_noise: bool
    asks: bool
    write: Callable[[int], None]


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
    """Cut the programs of a batch.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, without crops.
    rows : numpy.ndarray
        Shape ``(N,)``, int64: the source image of each sample.
    height, width, num_channels : int
        Of an image.
    moved : numpy.ndarray or None
        Shape ``(N,)``, bool: which samples Keras' ranges change first. None: none.
    cval : float
        What the ranges fill borders with, where they do.
    known : Known or None
        What makes tables of the steps that look at a source image. The others are looked at by a stage. None: all are.

    Raises
    ------
    DeviceError
        If an image, or what a map reads, is too far away for the kernels to count.
    """
    if max(height, width) >= MAX_SIDE:
        raise DeviceError(
            f"images of {height} x {width} are too large for augmentations on a GPU, whose maps count to {MAX_SIDE}: "
            "resize them, or take device='cpu'"
        )
    steps = steps_of(program, height, width, num_channels)
    num_listed = len(steps.tables)
    asks = known is not None and fill_in(steps, moved, known)
    # Those of a list are the same for all colours.
    _compose_tables(steps, 1 if len(steps.tables) == num_listed else 3)
    if moved is not None:
        _begin_with_ranges(steps, moved.nonzero()[0], cval)
    segments = _cut(steps, rows)
    segments.asks = asks
    return segments


def pack(segments: Segments) -> Packed:
    """Return segments as they go to a device."""
    arrays = [segments.samples, segments.stages, segments.steps, segments.weights]
    arrays += [segments.erases, segments.tables, segments.lines]
    begins = [0]
    for array in arrays:
        # Of what is empty something goes all the same: a kernel gets no null pointer that it may add to.
        begins.append(begins[-1] + -(-max(array.nbytes, 1) // PART_BYTES) * PART_BYTES)

    def write(to: int) -> None:
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * begins[-1]).from_address(to))
        memory.fill(0)
        for array, begin in zip(arrays, begins, strict=False):
            memory[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    has_noise = bool(len(segments.erases)) and bool(segments.erases[:, -1].any())
    counts = segments.num_looks, segments.num_slots, len(segments.erases)
    return Packed(begins, segments.rounds, *counts, has_noise, segments.asks, write)


PLAIN, FRONT, LOOK, APART = range(4)
"""What a step is to the cuts. A front needs an image that is finished, a plain step may stand anywhere in a segment,
and what opens or ends a chain is in no segment itself."""

_ROLES = np.full(KERAS + 1, PLAIN, np.int8)
_ROLES[[BILINEAR, SHARPNESS, BLUR, MIX_END]] = FRONT
_ROLES[[CONTRAST, AUTOCONTRAST, EQUALIZE]] = LOOK
_ROLES[[MIX, CHAIN_END]] = APART


class _Cuts:
    """The marks of a batch: the places of steps where a segment ends or begins, ascending.

    A segment goes from a mark to the next one of its sample, or to the sample's end. Where nothing is in a segment yet
    a mark is *empty*: at a sample's first step, and after what opens or ends a chain.
    """

    def __init__(self, steps: Steps, first: np.ndarray, count: np.ndarray) -> None:
        self.numbers = steps.numbers
        self.codes = codes = self.numbers[:, 0].astype(np.intp)
        roles = _ROLES.take(codes)
        self.busy = count.nonzero()[0]  # samples that have steps
        first_steps = first.take(self.busy)
        is_empty = np.zeros(len(codes), bool)
        is_empty[first_steps] = True
        if steps.has_mixes:
            is_empty[1:] |= roles[:-1] == APART
        is_mark = is_empty | (roles != PLAIN)
        most = int(count.max())
        if most > MAX_STEPS:
            place = np.arange(len(codes))
            # Steps since the segment began, which is behind what opens or ends a chain.
            since = place - np.maximum.accumulate(np.where(is_mark, place + (roles == APART), 0))
            is_mark |= (since > 0) & (since % MAX_STEPS == 0)
        self.marks = marks = is_mark.nonzero()[0]
        self.is_empty, self.roles, self.sample = is_empty.take(marks), roles.take(marks), steps.sample
        self.first_marks = marks.searchsorted(first_steps) if steps.has_mixes else self.is_empty.nonzero()[0]
        # The slot that a segment is written to which ends at a mark, and what a segment starts from that begins there.
        self.slot = np.empty(len(marks), np.intp)
        self.slot.fill(SOURCE)
        self._take_turns(most, steps.num_samples)
        self.start = self.slot
        is_stage = ~self.is_empty | (self.roles == LOOK)
        self.mixes = self.chain_ends = marks[:0]
        if steps.has_mixes:
            self._mix()
            is_stage[self.chain_ends] = True
        self.at = is_stage.nonzero()[0]
        self.looks = self.at[:0]

    def _take_turns(self, most: int, num_samples: int) -> None:
        """Give slots to the segments: two take turns in a sample, one is read while the other is written."""
        turning = (~self.is_empty & (self.roles != APART)).nonzero()[0]
        # Of two steps at most one ends such a segment.
        if most <= 2:
            self.num_slots = len(turning)
            self.slot[turning] = np.arange(len(turning))
            return
        owners = self.sample.take(self.marks.take(turning))
        first, count = spans(owners, num_samples)
        # Of a sample with one such segment the second slot is left out.
        own = np.minimum(count, 2)
        ends = own.cumsum()
        self.num_slots = int(ends[-1])
        self.slot[turning] = (ends - own).take(owners) + ((np.arange(len(turning)) - first.take(owners)) & 1)

    def _mix(self) -> None:
        """Give mixes their slots: what a mix starts from and the images of its chains stay until it is done."""
        apart = (self.roles == APART).nonzero()[0]
        is_mix = self.codes.take(self.marks.take(apart)) == MIX
        self.mixes, self.chain_ends = apart[is_mix], apart[~is_mix]
        self.slot[apart] = self.num_slots + np.arange(len(apart))
        self.num_slots += len(apart)
        # A mix that comes first writes nothing: its chains start from the source.
        origin = np.where(self.is_empty.take(self.mixes), SOURCE, self.slot.take(self.mixes))
        begins = is_mix.nonzero()[0]
        sizes = np.append(begins[1:], len(apart)) - begins
        self.num_chains = sizes - 1
        self.start = self.slot.copy()
        self.start[apart] = origin.repeat(sizes)
        # What follows them starts where they do.
        behind = self.is_empty & (self.roles != APART)
        behind[self.first_marks] = False
        places = behind.nonzero()[0]
        self.start[places] = self.start.take(places - 1)

    def end(self, samples: np.ndarray) -> None:
        """Write what the last segment of each sample starts from, and its first step."""
        last = np.empty(len(self.busy), np.intp)
        last[:-1], last[-1] = self.first_marks[1:] - 1, len(self.marks) - 1
        samples[self.busy, 1], samples[self.busy, 2] = self.start.take(last), self.marks.take(last)

    def stages(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the stages, and whose they are."""
        # An empty mark ends a segment of no steps, which begins there too.
        begins = self.at - 1 + self.is_empty.take(self.at)
        rows = np.zeros((len(self.at), STAGE_COLUMNS))
        rows[:, 0], rows[:, 1], rows[:, 3] = self.start.take(begins), self.marks.take(begins), self.slot.take(self.at)
        places = self.marks.take(self.at)
        rows[:, 2] = places - rows[:, 1]
        looking = (self.roles.take(self.at) == LOOK).nonzero()[0]
        self.looks = places.take(looking)
        rows[looking, 4] = self.codes.take(self.looks) - (CONTRAST - 1)
        rows[looking, 5] = np.arange(len(looking))
        rows[looking, 6] = self.numbers[:, 1].take(self.looks)
        return rows, self.sample.take(places)

    def finish_steps(self, num_weights: int) -> np.ndarray:
        """Write the steps as the kernels know them; return the weights of chains, which come after `num_weights`."""
        # Negative: a table that `prepare` makes, the first one -1.
        self.numbers[self.looks, 0] = TABLE
        self.numbers[self.looks, 1] = -1 - np.arange(len(self.looks))
        if not len(self.mixes):
            return np.empty(0)
        ends = (self.codes == MIX_END).nonzero()[0]
        # Behind the first of a mix's slots, which holds what it starts from, come the images of its chains.
        self.numbers[ends, 0], self.numbers[ends, 2] = MIX, self.num_chains
        self.numbers[ends, 3] = self.slot.take(self.mixes) + 1
        self.numbers[ends, 4] = num_weights + self.num_chains.cumsum() - self.num_chains
        chain_weights: np.ndarray = self.numbers[self.marks.take(self.chain_ends), 1]
        return chain_weights


def _cut(steps: Steps, rows: np.ndarray) -> Segments:
    num_samples, numbers, weights = steps.num_samples, steps.numbers, steps.weights
    samples = np.empty((num_samples, SAMPLE_COLUMNS))
    first, count = spans(steps.sample, num_samples)
    samples[:, 0], samples[:, 1], samples[:, 2] = rows, SOURCE, first
    samples[:, 4:] = 0.0
    if len(steps.erases_of):
        samples[:, 4], samples[:, 5] = spans(steps.erases_of, num_samples)
    stages, num_looks, num_slots = np.zeros((0, STAGE_COLUMNS)), 0, 0
    rounds: list[int] = []
    if len(numbers):
        cuts = _Cuts(steps, first, count)
        cuts.end(samples)
        stages, owners = cuts.stages()
        stages[:, 7] = rows.take(owners)
        stages, rounds = _in_rounds(stages, owners, num_samples)
        chain_weights = cuts.finish_steps(len(weights))
        if len(chain_weights):
            weights = np.concatenate([weights, chain_weights])
        num_looks, num_slots = len(cuts.looks), cuts.num_slots
    samples[:, 3] = first + count - samples[:, 2]
    return Segments(
        samples=samples,
        stages=stages,
        rounds=rounds,
        steps=numbers,
        tables=steps.tables,
        lines=steps.lines,
        weights=weights,
        erases=steps.erases,
        num_looks=num_looks,
        num_slots=num_slots,
    )


def _in_rounds(stages: np.ndarray, owners: np.ndarray, num_samples: int) -> tuple[np.ndarray, list[int]]:
    """Return the stages with the first ones of all samples first, then the second ones, and how many each are."""
    first, count = spans(owners, num_samples)
    most = int(count.max(initial=0))
    if most <= 1:
        return stages, [len(stages)] * most
    place = np.arange(len(owners)) - first.take(owners)
    return stages.take(place.argsort(kind="stable"), axis=0), np.bincount(place).tolist()


def fill_in(steps: Steps, moved: np.ndarray | None, known: Known) -> bool:
    """Make tables of the looks at source images: each sample's first step, where no ranges come before it.

    Parameters
    ----------
    steps : Steps
        Of the batch; changed.
    moved, known
        As in `cut`.

    Returns
    -------
    bool
        Whether there are such steps of images that are not known.
    """
    codes = steps.numbers[:, 0]
    wanted = _are_first(steps.sample) & (codes >= CONTRAST) & (codes <= EQUALIZE)
    if moved is not None:
        wanted &= ~moved[steps.sample]
    num_wanted = int(np.count_nonzero(wanted))
    wanted &= known.samples[steps.sample]
    places = wanted.nonzero()[0]
    if len(places):
        slots = known.slots[steps.sample[places]]
        found = known.looked.tables_of(codes[places], slots, steps.numbers[places, 1])
        steps.numbers[places, 0] = TABLE
        steps.numbers[places, 1] = len(steps.tables) + np.arange(len(places))
        steps.tables = np.concatenate([steps.tables, found])
    return len(places) < num_wanted


def _begin_with_ranges(steps: Steps, samples: np.ndarray, cval: float) -> None:
    """Put Keras' ranges before the first step of these samples; in the table of the ranges a sample has its own row."""
    numbers = np.zeros((len(samples), steps.numbers.shape[1]))
    numbers[:, 0], numbers[:, 1], numbers[:, 2] = KERAS, samples, cval
    first, _ = spans(steps.sample, steps.num_samples)
    # One order for both arrays, which `numpy.insert` would find twice.
    added = np.arange(len(samples))
    places = first.take(samples) + added
    is_old = np.ones(len(steps.sample) + len(samples), bool)
    is_old[places] = False
    order = np.empty(len(is_old), np.intp)
    order[places], order[is_old] = len(steps.sample) + added, np.arange(len(steps.sample))
    steps.numbers = np.concatenate([steps.numbers, numbers]).take(order, axis=0)
    steps.sample = np.concatenate([steps.sample, samples]).take(order)


def _are_first(sample: np.ndarray) -> np.ndarray:
    is_first = np.ones(len(sample), bool)
    np.not_equal(sample[1:], sample[:-1], out=is_first[1:])
    return is_first


def spans(owners: np.ndarray, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each sample where its rows begin and how many there are; `owners` is ascending."""
    count = np.bincount(owners, minlength=num_samples)
    return count.cumsum() - count, count


def _compose_tables(steps: Steps, colours: int) -> None:
    """Make one table of a table right after another: exact, and half the reads. Rows behind `colours` are the first."""
    is_table = steps.numbers[:, 0] == TABLE
    follows = is_table[1:] & is_table[:-1]
    follows &= steps.sample[1:] == steps.sample[:-1]
    followers = follows.nonzero()[0] + 1
    if not len(followers) or len(followers) < COMPOSED_FROM * len(is_table):
        return
    places = is_table.nonzero()[0]
    which = np.zeros(len(is_table), np.intp)
    which[places] = steps.numbers[:, 1].take(places)
    # The first of several in a row takes up the second, then the third, and so on.
    number = np.arange(len(followers))
    is_second = np.ones(len(followers), bool)
    np.not_equal(followers[1:], followers[:-1] + 1, out=is_second[1:])
    heads = followers.take(np.maximum.accumulate(np.where(is_second, number, 0))) - 1
    behind = followers - heads
    for distance in range(1, int(behind.max()) + 1):
        at = (behind == distance).nonzero()[0]
        first, second = heads.take(at), followers.take(at)
        which[first] = _composed(steps, which.take(first), which.take(second), colours)
    left = np.ones(len(is_table), bool)
    left[followers] = False
    kept = left.nonzero()[0]
    steps.numbers, steps.sample, which = steps.numbers.take(kept, axis=0), steps.sample.take(kept), which.take(kept)
    # Tables that were composed are no longer pointed at, and are not worth uploading.
    places = is_table.take(kept).nonzero()[0]
    which = which.take(places)
    used = np.zeros(len(steps.tables), bool)
    used[which] = True
    steps.tables = steps.tables.take(used.nonzero()[0], axis=0)
    steps.numbers[places, 1] = (used.cumsum() - 1).take(which)


def _composed(steps: Steps, before: np.ndarray, after: np.ndarray, colours: int) -> np.ndarray:
    """Add what pairs of tables make of each other, the same pair once; return the number of each."""
    num_tables = len(steps.tables)
    keys = before * num_tables + after
    order = keys.argsort()
    keys = keys.take(order)
    differs = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=differs[1:])
    number = np.empty(len(keys), np.intp)
    number[order] = differs.cumsum() + (num_tables - 1)
    before, after = np.divmod(keys[differs], num_tables)
    # Where each row of 256 levels begins among all tables, one behind another.
    begins = 256 * (3 * after[:, None, None] + np.arange(colours)[:, None])
    made = np.empty((len(after), 3, 256), np.uint8)
    made[...] = steps.tables.reshape(-1).take(begins + steps.tables[:, :colours].take(before, axis=0))
    steps.tables = np.concatenate([steps.tables, made])
    return number
