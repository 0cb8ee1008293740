"""Programs cut into segments: what a kernel does to each sample, as tables of numbers made on the host.

A *segment* is a run of steps that needs no image but the one it starts from. A cut falls before a step that reads
several pixels and is not the first of its segment (bilinear geometry, sharpness, blur, a mix of chains), and before one
whose table follows from a look at the image (contrast, autocontrast, equalize). What lies before the last cut of a
sample is a *stage*: an intermediate image, a look at one, or both; a sample with stages is a *job* of the kernel
``prepare``. The last segment is done by the kernel ``program`` together with everything that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gpuseq.base.errors import DeviceError

from .listing import (
    BILINEAR,
    CHAIN_END,
    CONTRAST,
    EQUALIZE,
    KERAS,
    MAX_SIDE,
    MIX,
    MIX_END,
    TABLE,
    Steps,
    numbered,
    steps_of,
)

__all__ = ["Segments", "cut"]

# Widths of the rows below: kernels/program.cu reads by the same.
STAGE_COLUMNS = 8
SAMPLE_COLUMNS = 6
MAX_STEPS = 16
"""Of a segment."""

SOURCE = -1
"""In the place of a slot: the source image."""

Known: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass
class Segments:
    """The tables of a batch, as ``prepare`` and ``program`` read them.

    Attributes
    ----------
    samples : numpy.ndarray
        Shape ``(N, 6)``, float64: source row, where the last segment starts from (a slot of the scratch, or -1 for the
        source), its first step, its steps, the first erasing step, erasing steps.
    jobs : numpy.ndarray
        Shape ``(J, 3)``, float64: source row, first stage, stages.
    stages : numpy.ndarray
        Shape ``(L, 8)``, float64: where it starts from, first step, steps, the slot that it writes or -1, what it looks
        at the image for (0 nothing, 1 contrast, 2 autocontrast, 3 equalize), the table that it writes, a factor.
    steps : numpy.ndarray
        Shape ``(K, 10)``, float64. Of a mix: share, chains, the slot of the first one's image, its weight's place.
    tables, lines, weights, erases
        As `~gpuseq.ops.listing.Steps` has them.
    num_looks : int
        Tables that ``prepare`` makes.
    num_slots : int
        Intermediate images.
    """

    samples: np.ndarray
    jobs: np.ndarray
    stages: np.ndarray
    steps: np.ndarray
    tables: np.ndarray
    lines: np.ndarray
    weights: np.ndarray
    erases: np.ndarray
    num_looks: int
    num_slots: int


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
    known : callable or None
        Returns the tables of steps that look at source images, of which nothing else has been done yet: it takes their
        codes, source rows and factors. None: such images are looked at by a stage.

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
    if known is not None:
        _fill_in(steps, rows, moved, known)
    _compose_tables(steps)
    if moved is not None:
        _begin_with_ranges(steps, moved.nonzero()[0], cval)
    return _cut(steps, rows)


class _Cuts:
    """Where the segments of a batch end: an array for each property of its steps, which stay where they are."""

    def __init__(self, steps: Steps) -> None:
        self.numbers, self.sample = steps.numbers, steps.sample
        self.sample_first, self.sample_count = spans(self.sample, steps.num_samples)
        self.codes = codes = np.ascontiguousarray(self.numbers[:, 0])
        self.is_look = (codes >= CONTRAST) & (codes <= EQUALIZE)
        # Only steps that read several pixels need an image that is finished: others may stand anywhere in a segment.
        is_front = (codes >= BILINEAR) & (codes < CONTRAST)
        place = np.arange(len(codes))
        # Where nothing is in the segment yet: at a sample's first step, and after what opens or ends a chain.
        self.empty = _are_first(self.sample)
        begins = place
        self.mixes = (codes == MIX).nonzero()[0]
        if len(self.mixes):
            self.is_mix, self.is_end = codes == MIX, codes == CHAIN_END
            is_front |= codes == MIX_END
            apart = self.is_mix | self.is_end
            self.empty[1:] |= apart[:-1]
            # The first step after a cut: what opens or ends a chain is in no segment itself.
            begins = place + apart
            self.cuts = self.is_look | (is_front & ~self.empty) | apart
        else:
            self.cuts = self.is_look | (is_front & ~self.empty)
        self.opened = np.maximum.accumulate(np.where(self.cuts | self.empty, begins, 0))
        if self.sample_count.max() > MAX_STEPS:
            self.cuts |= (place > self.opened) & ((place - self.opened) % MAX_STEPS == 0)
            self.opened = np.maximum.accumulate(np.where(self.cuts | self.empty, begins, 0))
        self.writes = self.cuts & ~self.empty
        # Two slots take turns in a sample: one is read while the other is written.
        turning = (self.writes & ~apart if len(self.mixes) else self.writes).nonzero()[0]
        owners = self.sample.take(turning)
        first, count = spans(owners, steps.num_samples)
        # Of a sample with one such step the second slot is left out.
        own = np.minimum(count, 2)
        base = own.cumsum() - own
        self.num_slots = int(own.sum())
        self.slot = np.full(len(codes), SOURCE)
        self.slot[turning] = base.take(owners) + (np.arange(len(turning)) - first.take(owners)) % 2
        # What the steps after a cut start from: the image that was written, or what the chains of a mix start from.
        self.written = self.slot
        marks = self.writes
        if len(self.mixes):
            self._mix()
            marks = self.writes | self.is_mix
        self.last_written = np.maximum.accumulate(np.where(marks, place, -1))

    def _mix(self) -> None:
        """Give mixes their slots: what a mix starts from and the images of its chains stay until it is done."""
        ends = self.is_end.nonzero()[0]
        self.writes |= self.is_end
        sizes = 1 + self.numbers[self.mixes, 2].astype(np.int64)
        self.slot[self.mixes] = starts = self.num_slots + sizes.cumsum() - sizes
        which = np.searchsorted(self.mixes, ends) - 1
        # The first of a mix's own ends has its first chain.
        self.slot[ends] = starts[which] + 1 + np.arange(len(ends)) - np.searchsorted(ends, self.mixes)[which]
        self.num_slots += int(sizes.sum())
        # A mix that comes first writes nothing: its chains start from the source.
        self.written = np.where(self.writes, self.slot, SOURCE)
        self.written[ends] = self.written[self.mixes[which]]

    def segments_before(self, ends: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the segments of these samples that end before these steps start from, and their first steps."""
        first = self.sample_first[owners]
        inside = ends > first
        before = np.where(inside, ends - 1, 0)
        written = self.last_written[before]
        start = np.where(inside & (written >= first), self.written[written], SOURCE)
        return start, np.where(inside, np.maximum(self.opened[before], first), first)

    def stages(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the stages, and whose they are."""
        ends = (self.cuts & (self.writes | self.is_look)).nonzero()[0]
        owners = self.sample.take(ends)
        rows = np.zeros((len(ends), STAGE_COLUMNS))
        rows[:, 0], rows[:, 1] = self.segments_before(ends, owners)
        rows[:, 2] = ends - rows[:, 1]
        rows[:, 3] = np.where(self.writes[ends], self.slot[ends], SOURCE)
        at = self.is_look[ends].nonzero()[0]
        looks = ends.take(at)
        rows[at, 4] = self.codes[looks] - CONTRAST + 1
        rows[at, 5] = np.arange(len(at))
        rows[at, 6] = self.numbers[looks, 1]
        return rows, owners

    def finished_steps(self, num_weights: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps as the kernels know them, and the weights of chains, which come after `num_weights`."""
        numbers = self.numbers.copy()
        looks = self.is_look.nonzero()[0]
        self.num_looks = len(looks)
        numbers[looks, 0] = TABLE
        # Negative: a table that `prepare` makes, the first one -1.
        numbers[looks, 1] = -1.0 - np.arange(len(looks))
        mixes = self.mixes
        if not len(mixes):
            return numbers, np.empty(0)
        ends = (self.codes == MIX_END).nonzero()[0]
        chains = numbers[mixes, 2]
        numbers[ends, 0] = MIX
        # Behind the first of a mix's slots, which holds what it starts from, come the images of its chains.
        numbers[ends, 2], numbers[ends, 3] = chains, self.slot[mixes] + 1
        numbers[ends, 4] = num_weights + chains.cumsum() - chains
        return numbers, numbers[self.is_end, 1]


def _cut(steps: Steps, rows: np.ndarray) -> Segments:
    num_samples = steps.num_samples
    samples = np.zeros((num_samples, SAMPLE_COLUMNS))
    samples[:, 0], samples[:, 1] = rows, SOURCE
    samples[:, 4], samples[:, 5] = spans(steps.erases_of, num_samples)
    stages, jobs, weights = np.zeros((0, STAGE_COLUMNS)), np.zeros((0, 3)), steps.weights
    numbers, num_looks, num_slots = steps.numbers, 0, 0
    if len(numbers):
        cuts = _Cuts(steps)
        ends = cuts.sample_first + cuts.sample_count
        samples[:, 1], samples[:, 2] = cuts.segments_before(ends, np.arange(num_samples))
        samples[:, 3] = ends - samples[:, 2]
        stages, owners = cuts.stages()
        first, count = spans(owners, num_samples)
        at_work = count.nonzero()[0]
        jobs = np.empty((len(at_work), 3))
        jobs[:, 0], jobs[:, 1], jobs[:, 2] = rows[at_work], first[at_work], count[at_work]
        numbers, chain_weights = cuts.finished_steps(len(weights))
        weights = np.concatenate([weights, chain_weights])
        num_looks, num_slots = cuts.num_looks, cuts.num_slots
    return Segments(
        samples=samples,
        jobs=jobs,
        stages=stages,
        steps=numbers,
        tables=steps.tables,
        lines=steps.lines,
        weights=weights,
        erases=steps.erases,
        num_looks=num_looks,
        num_slots=num_slots,
    )


def _fill_in(steps: Steps, rows: np.ndarray, moved: np.ndarray | None, known: Known) -> None:
    """Make tables of the looks at source images: each sample's first step, where no ranges come before it."""
    codes = steps.numbers[:, 0]
    wanted = _are_first(steps.sample)
    if moved is not None:
        wanted &= ~moved[steps.sample]
    places = (wanted & (codes >= CONTRAST) & (codes <= EQUALIZE)).nonzero()[0]
    if len(places):
        found = known(codes[places], rows[steps.sample[places]], steps.numbers[places, 1])
        steps.numbers[places, 0] = TABLE
        steps.numbers[places, 1] = len(steps.tables) + np.arange(len(places))
        steps.tables = np.concatenate([steps.tables, found])


def _begin_with_ranges(steps: Steps, samples: np.ndarray, cval: float) -> None:
    """Put Keras' ranges before the first step of these samples; in the table of the ranges a sample has its own row."""
    numbers = np.zeros((len(samples), steps.numbers.shape[1]))
    numbers[:, 0], numbers[:, 1], numbers[:, 2] = KERAS, samples, cval
    first, _ = spans(steps.sample, steps.num_samples)
    steps.numbers = np.insert(steps.numbers, first[samples], numbers, axis=0)
    steps.sample = np.insert(steps.sample, first[samples], samples)


def _are_first(sample: np.ndarray) -> np.ndarray:
    is_first = np.ones(len(sample), bool)
    np.not_equal(sample[1:], sample[:-1], out=is_first[1:])
    return is_first


def spans(owners: np.ndarray, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each sample where its rows begin and how many there are; `owners` is ascending."""
    count = np.bincount(owners, minlength=num_samples)
    return count.cumsum() - count, count


def _compose_tables(steps: Steps) -> None:
    """Make one table of a table right after another: exact, and half the reads."""
    num_given = len(steps.tables)
    while True:
        is_table = steps.numbers[:, 0] == TABLE
        pairs = is_table[1:] & is_table[:-1]
        pairs &= steps.sample[1:] == steps.sample[:-1]
        # Of three in a row the first two at first.
        pairs[1:] &= ~pairs[:-1]
        first = pairs.nonzero()[0]
        if not len(first):
            break
        num_tables = len(steps.tables)
        distinct, which = numbered(np.stack([steps.numbers[first, 1], steps.numbers[first + 1, 1]]))
        steps.numbers[first, 1] = num_tables + which
        before, after = distinct.astype(np.intp)
        # Where each row of 256 levels begins among all tables, one behind another.
        begins = 256 * (3 * after[:, None] + np.arange(3))
        composed = steps.tables.reshape(-1).take(begins[:, :, None] + steps.tables[before])
        steps.tables = np.concatenate([steps.tables, composed])
        kept = np.ones(len(steps.numbers), bool)
        kept[first + 1] = False
        left = kept.nonzero()[0]
        steps.numbers, steps.sample = steps.numbers.take(left, axis=0), steps.sample.take(left)
    if len(steps.tables) == num_given:
        return
    # Tables that were composed are no longer pointed at, and are not worth uploading.
    places = is_table.nonzero()[0]
    which = steps.numbers[places, 1].astype(np.intp)
    used = np.zeros(len(steps.tables), bool)
    used[which] = True
    steps.tables, steps.numbers[places, 1] = steps.tables[used], (used.cumsum() - 1).take(which)
