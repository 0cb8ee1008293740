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
        _begin_with_ranges(steps, np.flatnonzero(moved), cval)
    return _cut(steps, rows)


class _Cuts:
    """Where the segments of a batch end: an array for each property of its steps, which stay where they are."""

    def __init__(self, steps: Steps) -> None:
        self.numbers, self.sample = steps.numbers, steps.sample
        self.sample_first, self.sample_count = spans(self.sample, steps.num_samples)
        self.codes = codes = self.numbers[:, 0]
        self.is_look = (codes >= CONTRAST) & (codes <= EQUALIZE)
        self.is_mix, self.is_end = codes == MIX, codes == CHAIN_END
        # Only steps that read several pixels need an image that is finished: others may stand anywhere in a segment.
        is_front = ((codes >= BILINEAR) & (codes < CONTRAST)) | (codes == MIX_END)
        place = np.arange(len(codes))
        # Where nothing is in the segment yet: at a sample's first step, and after what opens or ends a chain.
        self.empty = np.ones(len(codes), bool)
        self.empty[1:] = (self.sample[1:] != self.sample[:-1]) | self.is_mix[:-1] | self.is_end[:-1]
        self.cuts = self.is_look | (is_front & ~self.empty) | self.is_mix | self.is_end
        # The first step after a cut: what opens or ends a chain is in no segment itself.
        begins = np.where(self.is_mix | self.is_end, place + 1, place)
        opened = np.maximum.accumulate(np.where(self.cuts | self.empty, begins, 0))
        self.cuts |= (place > opened) & ((place - opened) % MAX_STEPS == 0)
        self.writes = (self.cuts & ~self.empty) | self.is_end
        self.opened = np.maximum.accumulate(np.where(self.cuts | self.empty, begins, 0))
        self.slot, self.num_slots = self._slots(steps.num_samples)
        # What the steps after a cut start from: the image that was written, or what the chains of a mix start from.
        self.written = np.where(self.writes, self.slot, SOURCE)
        mix = np.maximum.accumulate(np.where(self.is_mix, place, 0))
        self.written[self.is_end] = self.written[mix[self.is_end]]
        self.last_written = np.maximum.accumulate(np.where(self.writes | self.is_mix, place, -1))

    def _slots(self, num_samples: int) -> tuple[np.ndarray, int]:
        """Return the slot that each writing step writes, and how many there are.

        Two take turns in a sample: one is read while the other is written. What a mix starts from and the images of its
        chains stay until it is done, so they have slots of their own, in this order.
        """
        turning = self.writes & ~self.is_mix & ~self.is_end
        turn = np.cumsum(turning) - 1
        first, count = spans(self.sample[turning], num_samples)
        # Of a sample with one such step the second slot is left out.
        own = np.minimum(count, 2)
        base = np.cumsum(own) - own
        slot = base[self.sample] + (turn - first[self.sample]) % 2
        num_slots = int(own.sum())
        mixes = np.flatnonzero(self.is_mix)
        if len(mixes):
            sizes = 1 + self.numbers[mixes, 2].astype(np.int64)
            slot[mixes] = starts = num_slots + np.cumsum(sizes) - sizes
            ended = np.cumsum(self.is_end)  # of all mixes, up to here
            ends, which = np.flatnonzero(self.is_end), np.cumsum(self.is_mix) - 1
            slot[ends] = starts[which[ends]] + ended[ends] - ended[mixes][which[ends]]
            num_slots += int(sizes.sum())
        return slot, num_slots

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
        ends = np.flatnonzero(self.cuts & (self.writes | self.is_look))
        is_look, owners = self.is_look[ends], self.sample[ends]
        rows = np.zeros((len(ends), STAGE_COLUMNS))
        rows[:, 0], rows[:, 1] = self.segments_before(ends, owners)
        rows[:, 2] = ends - rows[:, 1]
        rows[:, 3] = np.where(self.writes[ends], self.slot[ends], SOURCE)
        rows[is_look, 4] = self.codes[ends[is_look]] - CONTRAST + 1
        rows[is_look, 5] = np.arange(int(is_look.sum()))
        rows[is_look, 6] = self.numbers[ends[is_look], 1]
        return rows, owners

    def finished_steps(self, num_weights: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps as the kernels know them, and the weights of chains, which come after `num_weights`."""
        numbers = self.numbers.copy()
        numbers[self.is_look, 0] = TABLE
        # Negative: a table that `prepare` makes, the first one -1.
        numbers[self.is_look, 1] = -1.0 - np.arange(int(self.is_look.sum()))
        ends, mixes = np.flatnonzero(self.codes == MIX_END), np.flatnonzero(self.is_mix)
        chains = numbers[mixes, 2]
        numbers[ends, 0] = MIX
        # Behind the first of a mix's slots, which holds what it starts from, come the images of its chains.
        numbers[ends, 2], numbers[ends, 3] = chains, self.slot[mixes] + 1
        numbers[ends, 4] = num_weights + np.cumsum(chains) - chains
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
        at_work = np.flatnonzero(count)
        jobs = np.stack([samples[at_work, 0], first[at_work], count[at_work]], axis=1)
        numbers, chain_weights = cuts.finished_steps(len(weights))
        weights = np.concatenate([weights, chain_weights])
        num_looks, num_slots = int(cuts.is_look.sum()), cuts.num_slots
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
    is_first = np.ones(len(codes), bool)
    is_first[1:] = steps.sample[1:] != steps.sample[:-1]
    if moved is not None:
        is_first &= ~moved[steps.sample]
    places = np.flatnonzero(is_first & (codes >= CONTRAST) & (codes <= EQUALIZE))
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


def spans(owners: np.ndarray, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each sample where its rows begin and how many there are; `owners` is ascending."""
    count = np.bincount(owners, minlength=num_samples)
    return np.cumsum(count) - count, count


def _compose_tables(steps: Steps) -> None:
    """Make one table of a table right after another: exact, and half the reads."""
    num_given = len(steps.tables)
    while True:
        is_table = steps.numbers[:, 0] == TABLE
        pairs = is_table[1:] & is_table[:-1] & (steps.sample[1:] == steps.sample[:-1])
        # Of three in a row the first two at first.
        pairs[1:] &= ~pairs[:-1]
        first = np.flatnonzero(pairs)
        if not len(first):
            break
        num_tables = len(steps.tables)
        before, after = (steps.numbers[place, 1].astype(np.intp) for place in (first, first + 1))
        distinct, which = np.unique(before * num_tables + after, return_inverse=True)
        steps.numbers[first, 1] = num_tables + which
        before, after = (steps.tables[place] for place in np.divmod(distinct, num_tables))
        steps.tables = np.concatenate([steps.tables, np.take_along_axis(after, before.astype(np.intp), axis=2)])
        kept = np.ones(len(steps.numbers), bool)
        kept[first + 1] = False
        steps.numbers, steps.sample = steps.numbers[kept], steps.sample[kept]
    if len(steps.tables) == num_given:
        return
    # Tables that were composed are no longer pointed at, and are not worth uploading.
    which = steps.numbers[is_table, 1].astype(np.intp)
    used = np.zeros(len(steps.tables), bool)
    used[which] = True
    steps.tables, steps.numbers[is_table, 1] = steps.tables[used], (np.cumsum(used) - 1)[which]
