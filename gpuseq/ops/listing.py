"""The steps of a batch as tables of numbers, made on the host for every engine, all samples at once.

The numbers of a step, first to last: its code, eight arguments, the fill as four bytes of one number. Codes are those
of ``kernels/program.cuh`` and ``kernels/host/moves.h``.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.plan.program import STEPS, Kind, Step, code_of

from .levels import tables_of
from .maps import fits_fixed_point, is_projective, summed_positions, write_maps
from .weights import gaussian_weights

__all__ = ["CODE_OF_RANK", "FIRST_RANKS", "MAX_SIDE", "NAMES", "RANKS", "RANKS_OF_GREY", "Steps", "steps_of"]

# Doubles throughout: places in lists stand among coefficients, and whole numbers below 2**53 are exact.
STEP_COLUMNS = 10
ERASE_COLUMNS = 9

MAX_SIDE = 1 << 15
"""Rows and columns stay below this, as Pillow's fixed-point numbers do."""

MAX_LINES = 1 << 31
"""Source positions of a batch: the kernels count them with 31 bits."""

FIXED, LINES, PROJECTIVE, TABLE, COLOR, GREY, HUE, PERMUTE, BILINEAR, SHARPNESS, BLUR = range(1, 12)
CONTRAST, AUTOCONTRAST, EQUALIZE = range(12, 15)
"""Steps that look at the image themselves."""

MIX, CHAIN_END, MIX_END = range(15, 18)
"""AugMix: chains follow that all begin with the same image, each with its end and weight, and then the blend."""

KERAS = 18
"""What Keras' ranges make of the source image: in front of all others, and of the GPU's segments only."""

_CODES = {
    "Color": COLOR,
    "Grayscale": GREY,
    "Hue": HUE,
    "PermuteChannels": PERMUTE,
    "Contrast": CONTRAST,
    "AutoContrast": AUTOCONTRAST,
    "Equalize": EQUALIZE,
    "Sharpness": SHARPNESS,
    "GaussianBlur": BLUR,
    "AugMix": MIX,
}


def _code(step: Step) -> int:
    if step.kind == "geometry":
        return PROJECTIVE if is_projective(step.name) else FIXED
    return TABLE if step.kind == "table" else _CODES.get(step.name, 0)


# Steps by rank: those that are made alike lie side by side, what is not listed in front of all and erasing behind them.
_LOOSE: tuple[Kind, ...] = ("pixel", "measured", "neighbourhood", "mix")
_GROUPS: tuple[tuple[Kind, ...], ...] = (("none", "crop"), ("table",), ("geometry",), _LOOSE, ("erase",))
_RANKED = [step for kinds in _GROUPS for step in STEPS if step.kind in kinds]
NAMES = [step.name for step in _RANKED]
"""Of steps, by rank."""

RANKS = np.array([_RANKED.index(step) for step in STEPS], np.int8)
"""By a program's code."""

# Grey has no colours to change.
RANKS_OF_GREY = np.where([step.kind == "pixel" for step in STEPS], np.int8(0), RANKS)
CODE_OF_RANK = np.array([_code(step) for step in _RANKED], np.float64)
_SIZES = (sum(step.kind in kinds for step in STEPS) for kinds in _GROUPS[:-1])
FIRST_RANKS = tuple(itertools.accumulate(_SIZES))
"""The first rank of each group but that of what is not listed: tables, maps, others, erasing."""

_TABLES, _MAPS, _OTHERS, _ERASES = FIRST_RANKS
_MIX, _NOISE = NAMES.index("AugMix"), NAMES.index("EraseNoise")
_NO_PLACES = np.empty(0, np.intp)
_FLIPS = ("HorizontalFlip", "VerticalFlip")
_MOST_CHAINS = 5

Runs: TypeAlias = list[tuple[str, int, int]]
"""Steps of one name, side by side: the name, the first, and the one after the last."""


@dataclass
class Steps:
    """The steps of a batch, and what they point into.

    Attributes
    ----------
    num_samples : int
        Of the batch.
    sample : numpy.ndarray
        Shape ``(K,)``, int64: whose step it is; ascending.
    numbers : numpy.ndarray
        Shape ``(K, 10)``, float64.
    tables : numpy.ndarray
        Shape ``(T, 3, 256)``, uint8.
    lines : numpy.ndarray
        int32: source positions of nearest maps along one axis; of all pixels, where a map needs that.
    weights : numpy.ndarray
        float64: sides of Gaussian kernels.
    erases : numpy.ndarray
        Shape ``(E, 9)``, float64: top, left, height, width, four values or a key, and whether it is a key.
    erases_of : numpy.ndarray
        Shape ``(E,)``, int64: whose erasing step it is; ascending.
    has_mixes : bool
        Whether chains are mixed.
    """

    num_samples: int
    sample: np.ndarray
    numbers: np.ndarray
    tables: np.ndarray
    lines: np.ndarray
    weights: np.ndarray
    erases: np.ndarray
    erases_of: np.ndarray
    has_mixes: bool


def steps_of(program: np.ndarray, height: int, width: int, num_channels: int) -> Steps:
    """List the steps of a batch that change something, without crops.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    height, width, num_channels : int
        Of an image; both sides below `MAX_SIDE`.

    Raises
    ------
    DeviceError
        If the maps of a batch need more positions than the engines count.
    """
    flat, steps_per_sample = program.reshape(-1), max(1, program.shape[1])
    ranks = (RANKS_OF_GREY if num_channels == 1 else RANKS).take(flat["op"])
    counts = np.bincount(ranks, minlength=len(STEPS)).tolist()
    erasing = (ranks >= _ERASES).nonzero()[0] if sum(counts[_ERASES:]) else _NO_PLACES
    steps = Steps(
        num_samples=len(program),
        sample=_NO_PLACES,
        numbers=np.empty((0, STEP_COLUMNS)),
        tables=np.empty((0, 3, 256), np.uint8),
        lines=np.empty(0, np.int32),
        weights=np.empty(0),
        erases=_erases(flat.take(erasing), counts[_NOISE]),
        erases_of=erasing // steps_per_sample,
        has_mixes=counts[_MIX] > 0,
    )
    # Where programs only erase, which is done after all else, nothing is left.
    if sum(counts[_TABLES:_ERASES]):
        _list(steps, flat, steps_per_sample, ranks, counts, height, width)
    return steps


def _list(
    steps: Steps,
    flat: np.ndarray,
    steps_per_sample: int,
    ranks: np.ndarray,
    counts: list[int],
    height: int,
    width: int,
) -> None:
    """Write what a batch's steps are but for erasing; `counts` is of their ranks."""
    is_listed = ranks >= _TABLES
    if sum(counts[_ERASES:]):
        is_listed &= ranks < _ERASES
    places = is_listed.nonzero()[0]
    sample = places // steps_per_sample
    if steps.has_mixes:
        is_mix = ranks.take(places) == _MIX
        chain, before, is_stray = _chains(sample, is_mix, flat["chain"].take(places), flat["arg"][:, 1].take(places))
        if is_stray.any():
            # As if they were not there.
            ranks[places[is_stray]] = 0
            counts = np.bincount(ranks, minlength=len(STEPS)).tolist()
            steps.has_mixes = counts[_MIX] > 0
            _list(steps, flat, steps_per_sample, ranks, counts, height, width)
            return
    # All steps of a kind are made at once. A call of NumPy takes longer than its work on so few steps, so these are
    # sorted once, and then a slice holds those of a kind; at the end they go back to their places.
    first = sum(counts[:_TABLES])
    listed = ranks.argsort(kind="stable")[first : first + len(places)]
    lists = _Lists(height, width, flat.take(listed), ranks.take(listed), counts)
    position = np.empty(len(flat), np.intp)
    position[listed] = np.arange(len(listed))
    rows, numbers = position.take(places), lists.numbers
    if steps.has_mixes:
        sample, rows = _with_ends(sample, rows, is_mix, 8 * before + chain, numbers)
    numbers = numbers.take(rows, axis=0)
    if lists.has_dropped:
        kept = (numbers[:, 0] > 0).nonzero()[0]
        numbers, sample = numbers.take(kept, axis=0), sample.take(kept)
    steps.numbers, steps.sample, steps.tables = numbers, sample, lists.tables
    if lists.lines:
        steps.lines = np.concatenate(lists.lines)
    if lists.weights:
        steps.weights = np.concatenate(lists.weights)


def _erases(steps: np.ndarray, num_noise: int) -> np.ndarray:
    numbers = np.zeros((len(steps), ERASE_COLUMNS))
    if len(steps):
        numbers[:, :8] = steps["arg"]
        if num_noise:
            numbers[steps["op"] == code_of("EraseNoise"), 5:] = 0.0, 0.0, 0.0, 1.0
    return numbers


def _chains(
    sample: np.ndarray, is_mix: np.ndarray, chain: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each step's chain, the place of the step outside of chains before it, and whether no mix has its chain.

    All arrays have shape ``(K,)``, of the steps in their order; `width` is read of mixes alone.
    """
    # Where a sample has no mix its chain numbers say nothing, as for the NumPy engine.
    mixed = np.zeros(int(sample[-1]) + 1, bool)
    mixed[sample[is_mix]] = True
    chain = np.where(mixed.take(sample), chain, 0)
    is_alone = chain == 0
    # A chain belongs to the mix right before it: any other step of the sample ends that.
    before = np.maximum.accumulate(np.where(is_alone, np.arange(len(chain)), 0))
    is_own = (is_mix & is_alone).take(before) & (sample.take(before) == sample) & ~is_mix
    is_own &= chain <= width.take(before)
    return chain, before, ~(is_alone | is_own)


def _with_ends(
    sample: np.ndarray, rows: np.ndarray, is_mix: np.ndarray, keys: np.ndarray, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bring chains behind their mix, one after another, each with its end, and return samples and rows in that order.

    Parameters
    ----------
    sample, rows, is_mix, keys : numpy.ndarray
        Shape ``(K,)``, of the steps in their order: whose it is, its row of `numbers`, whether it is a mix, eight times
        the place of the mix and the chain's number.
    numbers : numpy.ndarray
        Shape ``(K + E, 10)`` at least. Written to: behind its first K rows, the ends of chains and mixes.
    """
    mixes = is_mix.nonzero()[0]
    own_args = numbers.take(rows.take(mixes), axis=0)[:, 1:8]
    is_there = np.ones((len(mixes), _MOST_CHAINS + 1), bool)
    np.less_equal(np.arange(1, _MOST_CHAINS + 1), own_args[:, 1:2], out=is_there[:, :-1])
    mix, end = is_there.nonzero()
    closing = numbers[len(rows) : len(rows) + len(mix)]
    closing[:, 2:] = 0.0
    closing[:, 0] = np.where(end == _MOST_CHAINS, MIX_END, CHAIN_END)
    closing[:, 1] = own_args.take([2, 3, 4, 5, 6, 0], axis=1)[is_there]
    mix = mixes.take(mix)
    # By the place of the mix, then the chain; the end of a chain behind its steps, that of the mix behind all. What is
    # equal stays as it came.
    order = np.concatenate([keys, keys.take(mix) + end + 1]).argsort(kind="stable")
    rows = np.concatenate([rows, len(rows) + np.arange(len(mix))]).take(order)
    return np.concatenate([sample, sample.take(mix)]).take(order), rows


def _runs(counts: list[int], first_rank: int, last_rank: int) -> Runs:
    """Return the runs of the steps of these ranks, counted from the first of them on; the last rank is left out."""
    runs, first = [], 0
    for rank in range(first_rank, last_rank):
        if counts[rank]:
            runs.append((NAMES[rank], first, first + counts[rank]))
            first += counts[rank]
    return runs


@functools.lru_cache(maxsize=64)
def _tables(name: str, args: bytes) -> np.ndarray:
    """Return the tables of steps of one name: policies of bins ask for the same ones batch after batch."""
    tables = tables_of(name, np.frombuffer(args).reshape(-1, 2))
    tables.flags.writeable = False
    return tables


class _Lists:
    """The numbers of steps that lie by rank, and what they point into."""

    def __init__(self, height: int, width: int, steps: np.ndarray, ranks: np.ndarray, counts: list[int]) -> None:
        self.height, self.width = height, width
        self.tables = np.empty((0, 3, 256), np.uint8)
        self.lines: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []
        # With room for the ends of chains and mixes.
        self.numbers = np.empty((len(steps) + (_MOST_CHAINS + 1) * counts[_MIX], STEP_COLUMNS))
        given = self.numbers[: len(steps)]
        given[:, 0], given[:, 1:9], given[:, 9:] = CODE_OF_RANK.take(ranks), steps["arg"], steps["fill"].view("<u4")
        tables, maps, others = (
            _runs(counts, first, last) for first, last in ((_TABLES, _MAPS), (_MAPS, _OTHERS), (_OTHERS, _ERASES))
        )
        last_table = last_map = tables[-1][2] if tables else 0
        if tables:
            self._look_up(tables, self.numbers[:last_table], ranks[:last_table])
        if maps:
            last_map += maps[-1][2]
            self._move(maps, self.numbers[last_table:last_map], steps["bilinear"][last_table:last_map] != 0)
        self.has_dropped = False
        for name, first, end in others:
            own = self.numbers[last_map + first : last_map + end]
            if name == "GaussianBlur":
                self._weigh(own)
            elif name == "Sharpness" and min(height, width) < 3:
                # Pillow keeps the outermost ring of pixels: there is no other.
                own[:, 0], self.has_dropped = 0, True

    def _look_up(self, runs: Runs, own: np.ndarray, ranks: np.ndarray) -> None:
        # One table for all steps of the same arguments: policies of bins have few. Pairs of arguments are sorted within
        # their runs, as complex numbers are.
        pairs = np.ascontiguousarray(own[:, 1:3]).view(np.complex128)[:, 0]
        order = np.lexsort((pairs, ranks))
        pairs = pairs.take(order)
        differs = np.empty(len(own), bool)
        np.not_equal(pairs[1:], pairs[:-1], out=differs[1:])
        differs[[first for _, first, _ in runs]] = True
        number = differs.cumsum()
        own[order, 1] = number - 1
        args = pairs[differs]
        self.tables = np.empty((len(args), 3, 256), np.uint8)
        # One for each of three channels, as tables of a look at the image are: a step reads both kinds in the same way.
        for name, first, end in runs:
            first, end = int(number[first]) - 1, int(number[end - 1])
            self.tables[first:end] = _tables(name, args[first:end].tobytes())[:, None]

    def _weigh(self, own: np.ndarray) -> None:
        for numbers in own:
            *sides, sigma = numbers[1:4].tolist()
            for column, side in enumerate(sides, 3):
                numbers[column] = sum(map(len, self.weights))
                self.weights.append(gaussian_weights(int(side), sigma))

    def _move(self, runs: Runs, own: np.ndarray, is_bilinear: np.ndarray) -> None:
        """Write the maps: their coefficients, or what Pillow makes of them for nearest pixels."""
        maps = np.zeros((8, len(own)))
        write_maps(maps, runs, own[:, 1:9], self.height, self.width)
        if is_bilinear.any():
            for name, first, end in runs:
                # Pillow transposes at quarter turns, whatever the interpolation; nearest gives the same pixels. A turn
                # by 90 degrees of an image that is not square does not fit and is no transpose. Flips move whole
                # pixels too.
                if name in _FLIPS:
                    is_bilinear[first:end] = False
                elif name == "Rotate":
                    angle = own[first:end, 1]
                    is_bilinear[first:end] &= (angle % 90.0 != 0) | ((angle % 180.0 != 0) & (self.height != self.width))
            own[is_bilinear, 0] = BILINEAR
        own[:, 1:9] = maps.T
        turned = own[:, 0] == FIXED
        fits = fits_fixed_point(maps[:6], self.height, self.width)
        all_fit = bool(fits.all())
        # Without a turn or a shear Pillow takes another loop, of doubles: see `_lines`.
        straight = (turned & (maps[1] == 0) & (maps[3] == 0)).nonzero()[0]
        # Whole pixels need no line where they fit: their sums are exact, and so are fixed-point numbers. Mostly that is
        # so of all of them.
        own_maps = maps[:6].take(straight, axis=1)
        scales, starts = own_maps[0:5:4], own_maps[2::3]
        if not (all_fit and (scales == 1).all() and (starts == np.floor(starts)).all()):
            is_whole = fits.take(straight) & (scales == 1).all(axis=0) & (starts == np.floor(starts)).all(axis=0)
            if not is_whole.all():
                straight = straight[~is_whole]
                a, _, c, _, e, f = maps[:6].take(straight, axis=1)
                own[straight, 0], own[straight, 3:5] = LINES, 0.0
                own[straight, 1] = self._lines(c, a, self.width)
                own[straight, 2] = self._lines(f, e, self.height)
                turned[straight] = False
        if not all_fit:
            names = [name for name, first, end in runs for _ in range(first, end)]
            for place in (turned & ~fits).nonzero()[0].tolist():
                self._list(own[place], maps[:6, place].tolist(), names[place])
            turned &= fits
        if turned.all():
            own[:, 1:7] = _counted(maps[:6]).T
        else:
            places = turned.nonzero()[0]
            own[places, 1:7] = _counted(maps[:6].take(places, axis=1)).T

    def _list(self, numbers: np.ndarray, matrix: list[float], name: str) -> None:
        """Write a map as the positions of all pixels: lines of which each row has one, and each column."""
        num_positions = 2 * self.height * self.width
        if sum(map(len, self.lines)) + num_positions > MAX_LINES:
            raise DeviceError(
                f"{name} reads so far outside of images of {self.height} x {self.width} that the positions of a batch "
                "are too many for this engine: take smaller batches, or device='cpu'"
            )
        rows, cols = summed_positions(matrix, self.height, self.width)
        numbers[:5] = LINES, self._added(cols), self._added(rows.T), self.width, self.height

    def _lines(self, offset: np.ndarray, step: np.ndarray, side: int) -> np.ndarray:
        """Return where the source positions along an axis begin: sums of doubles, one after another, as Pillow's."""
        positions = np.repeat(step[:, None], side, axis=1)
        # What a scale of next to nothing reads is no number: outside of the image, as all that is far.
        with np.errstate(over="ignore", invalid="ignore"):
            positions[:, 0] = offset + step * 0.5
            positions = np.add.accumulate(positions, axis=1)
        places: np.ndarray = self._added(positions) + np.arange(len(step)) * side
        return places

    def _added(self, positions: np.ndarray) -> int:
        """Keep the pixels of these positions, and return where they begin among the lines."""
        first = sum(map(len, self.lines))
        # Clipped to just outside the image: what lies far beyond it need not fit an int32, and what is no number, of
        # which fmax makes the other one, is outside.
        clipped = np.minimum(np.fmax(positions, -1.0), MAX_SIDE)
        self.lines.append(np.floor(clipped).astype(np.int32).ravel())
        return first


def _counted(maps: np.ndarray) -> np.ndarray:
    """Return maps, ``(6, T)``, as 16.16 numbers."""
    # The centre of pixel (0, 0), then everything rounded to 16 bits after the point, as Pillow's fixed-point loop.
    # A power of two first: it changes no digit of what is rounded after it.
    counted = maps * 65536.0
    by_axis = counted.reshape(2, 3, -1)
    halves = by_axis[:, :2] * 0.5
    by_axis[:, 2] += halves[:, 0]
    by_axis[:, 2] += halves[:, 1]
    counted += 0.5
    return np.floor(counted, out=counted)
