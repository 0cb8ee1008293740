"""The steps of a batch as tables of numbers, made on the host for every engine, all samples at once.

The numbers of a step, first to last: its code, eight arguments, the fill as four bytes of one number. Codes are those
of ``kernels/program.cuh`` and ``kernels/host/moves.h``.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.plan.program import STEPS, Step, code_of

from .levels import tables_of
from .maps import fits_fixed_point, is_projective, summed_positions, write_maps
from .weights import gaussian_weights

__all__ = ["MAX_SIDE", "Steps", "numbered", "steps_of"]

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
    return TABLE if step.kind == "table" else FIXED if step.kind == "geometry" else _CODES.get(step.name, 0)


_CODE_OF = np.array([_code(step) for step in STEPS], np.float64)
_NAMES = [step.name for step in STEPS]
_IS_ERASE = np.array([step.kind == "erase" for step in STEPS])
_IS_LISTED = np.array([step.kind not in ("none", "crop", "erase") for step in STEPS])
# Grey has no colours to change.
_IS_LISTED_OF_GREY = _IS_LISTED & np.array([step.kind != "pixel" for step in STEPS])
_IS_FLIP = np.array([step.name in ("HorizontalFlip", "VerticalFlip") for step in STEPS])
_IS_PROJECTIVE = np.array([is_projective(step.name) for step in STEPS])
_MIX, _ROTATE, _NOISE = (code_of(name) for name in ("AugMix", "Rotate", "EraseNoise"))
_LAST = 6
"""Above all numbers of chains, and below 8."""


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
    """

    num_samples: int
    sample: np.ndarray
    numbers: np.ndarray
    tables: np.ndarray
    lines: np.ndarray
    weights: np.ndarray
    erases: np.ndarray
    erases_of: np.ndarray


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
    ops = program["op"].reshape(-1)
    sample, steps = _taken(program, (_IS_LISTED_OF_GREY if num_channels == 1 else _IS_LISTED).take(ops))
    sample, steps, ends = _chained(sample, steps)
    lists = _Lists(height, width, steps)
    numbers = lists.numbers
    if ends is not None:
        order, closing = ends
        numbers = np.concatenate([numbers, closing[:, 1:]]).take(order, axis=0)
        sample = np.concatenate([sample, closing[:, 0].astype(np.int64)]).take(order)
    kept = numbers[:, 0] > 0
    if not kept.all():
        numbers, sample = numbers[kept], sample[kept]
    erases_of, erases = _erases(program, _IS_ERASE.take(ops))
    return Steps(
        num_samples=len(program),
        sample=sample,
        numbers=numbers,
        tables=_joined(lists.tables, np.empty((0, 3, 256), np.uint8)),
        lines=_joined(lists.lines, np.empty(0, np.int32)),
        weights=_joined(lists.weights, np.empty(0)),
        erases=erases,
        erases_of=erases_of,
    )


def _taken(program: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return some of a program's steps, and whose they are."""
    # `take` copies whole steps; an index of rows and columns takes ten times as long.
    places = wanted.nonzero()[0]
    return places // max(1, program.shape[1]), program.reshape(-1).take(places)


def _joined(parts: list[np.ndarray], none: np.ndarray) -> np.ndarray:
    return np.concatenate(parts) if parts else none


def _erases(program: np.ndarray, erasing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whose they are, and their numbers."""
    sample, steps = _taken(program, erasing)
    if not len(steps):
        return sample, np.empty((0, ERASE_COLUMNS))
    numbers = np.zeros((len(steps), ERASE_COLUMNS))
    numbers[:, :8] = steps["arg"]
    is_noise = steps["op"] == _NOISE
    if is_noise.any():
        numbers[is_noise, 5:] = 0.0, 0.0, 0.0, 1.0
    return sample, numbers


def _chained(
    sample: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Bring chains behind their mix, one after another.

    Returns
    -------
    sample, steps : numpy.ndarray
        Without those that belong to no chain that is mixed.
    ends : (numpy.ndarray, numpy.ndarray) or None
        The order of the steps and, after them, of the ends of chains and mixes; and these: sample, code, arguments.
    """
    is_mix = steps["op"] == _MIX
    if not is_mix.any():
        return sample, steps, None
    # Where a sample has no mix its chain numbers say nothing, as for the NumPy engine.
    mixed = np.zeros(int(sample[-1]) + 1, bool)
    mixed[sample[is_mix]] = True
    place, chain = np.arange(len(steps)), np.where(mixed[sample], steps["chain"], 0)
    # A chain belongs to the mix right before it: any other step of the sample ends that.
    before = np.maximum.accumulate(np.where(chain == 0, place, 0))
    width = steps["arg"][:, 1][before]
    own = is_mix[before] & (sample[before] == sample) & (chain <= width) & ~is_mix
    kept = ((chain == 0) | own).nonzero()[0]
    if len(kept) < len(steps):
        sample, steps, chain, before = (values.take(kept) for values in (sample, steps, chain, before))
    keys = [8 * before + chain]
    mixes = (steps["op"] == _MIX).nonzero()[0]
    args = steps["arg"].take(mixes, axis=0)
    closing = []
    for number in (1, 2, 3, 4, 5, _LAST):
        at = np.arange(len(mixes)) if number == _LAST else (args[:, 1] >= number).nonzero()[0]
        rows = np.zeros((len(at), 1 + STEP_COLUMNS))
        rows[:, 0], rows[:, 1] = sample[mixes[at]], MIX_END if number == _LAST else CHAIN_END
        rows[:, 2] = args[at, 0 if number == _LAST else 1 + number]
        closing.append(rows)
        keys.append(8 * before[mixes[at]] + number)
    # By the place of the mix, then the chain; what is equal stays as it came, a chain's end behind its steps.
    return sample, steps, (np.argsort(np.concatenate(keys), kind="stable"), np.concatenate(closing))


def numbered(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different columns of ``(K, N)`` keys, ascending, and for each column its number among them."""
    # What `numpy.unique` does, in half of its calls: equal ones come to lie side by side.
    order = np.lexsort(keys[::-1])
    keys = keys.take(order, axis=1)
    differs = np.ones(keys.shape[1], bool)
    (keys[:, 1:] != keys[:, :-1]).any(axis=0, out=differs[1:])
    which = np.empty(len(order), np.intp)
    which[order] = differs.cumsum() - 1
    return keys[:, differs], which


def _runs(ops: np.ndarray) -> list[tuple[str, int, int]]:
    """Return the names in ascending ops, each with its first place and the one after its last."""
    counts = np.bincount(ops, minlength=len(STEPS)).tolist()
    ends = itertools.accumulate(counts)
    return [(name, end - count, end) for name, count, end in zip(_NAMES, counts, ends, strict=True) if count]


@functools.lru_cache(maxsize=64)
def _tables(name: str, args: bytes) -> np.ndarray:
    """Return the tables of steps of one name: policies of bins ask for the same ones batch after batch."""
    tables = tables_of(name, np.frombuffer(args).reshape(-1, 2))
    tables.flags.writeable = False
    return tables


class _Lists:
    """The numbers of steps, and what they point into."""

    def __init__(self, height: int, width: int, steps: np.ndarray) -> None:
        self.height, self.width = height, width
        self.tables: list[np.ndarray] = []
        self.lines: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []
        ops = steps["op"]
        self.numbers = np.empty((len(steps), STEP_COLUMNS))
        self.numbers[:, 0] = codes = _CODE_OF.take(ops)
        self.numbers[:, 1:9] = steps["arg"]
        self.numbers[:, 9] = np.ascontiguousarray(steps["fill"]).view("<u4")[:, 0]
        # All steps of a kind at once, and one after another only what there is of them to be made.
        places = (codes == TABLE).nonzero()[0]
        if len(places):
            self._look_up(ops, places)
        places = (codes == FIXED).nonzero()[0]
        if len(places):
            self._move(ops, places, steps["bilinear"] != 0)
        if min(height, width) < 3:
            self.numbers[codes == SHARPNESS, 0] = 0  # Pillow keeps the outermost ring of pixels: there is no other
        self._weigh((codes == BLUR).nonzero()[0])

    def _look_up(self, ops: np.ndarray, places: np.ndarray) -> None:
        # One table for all steps of the same arguments: policies of bins have few.
        keys = np.empty((3, len(places)))
        keys[0] = ops[places]
        keys[1:] = self.numbers[places, 1:3].T
        keys, self.numbers[places, 1] = numbered(keys)
        args = np.ascontiguousarray(keys[1:].T)
        tables = np.empty((len(args), 3, 256), np.uint8)
        # One for each of three channels, as tables of a look at the image are: a step reads both kinds in the same way.
        for name, first, end in _runs(keys[0].astype(np.intp)):
            tables[first:end] = _tables(name, args[first:end].tobytes())[:, None]
        self.tables.append(tables)

    def _weigh(self, places: np.ndarray) -> None:
        for place in places.tolist():
            *sides, sigma = self.numbers[place, 1:4].tolist()
            for column, side in enumerate(sides, 3):
                self.numbers[place, column] = sum(map(len, self.weights))
                self.weights.append(gaussian_weights(int(side), sigma))

    def _move(self, all_ops: np.ndarray, places: np.ndarray, is_bilinear: np.ndarray) -> None:
        """Write the maps: their coefficients, or what Pillow makes of them for nearest pixels."""
        ops = all_ops.take(places)
        order = np.argsort(ops, kind="stable")
        ops, places = ops.take(order), places.take(order)
        args = self.numbers.take(places, axis=0)
        maps = np.zeros((8, len(places)))
        write_maps(maps, _runs(ops), args[:, 1:9], self.height, self.width)
        codes, bilinear = np.where(_IS_PROJECTIVE.take(ops), PROJECTIVE, FIXED), is_bilinear.take(places)
        if bilinear.any():
            # Pillow transposes at quarter turns, whatever the interpolation; nearest gives the same pixels. A turn by
            # 90 degrees of an image that is not square does not fit and is no transpose. Flips move whole pixels too.
            angle = args[:, 1]
            quarter = (angle % 90.0 == 0) & ((angle % 180.0 == 0) | (self.height == self.width))
            codes[bilinear & ~(((ops == _ROTATE) & quarter) | _IS_FLIP.take(ops))] = BILINEAR
        self.numbers[places, 1:9] = maps.T
        self.numbers[places, 0] = codes
        turned = codes == FIXED
        fits = fits_fixed_point(maps[:6], self.height, self.width)
        # Without a turn or a shear Pillow takes another loop, of doubles: see `_lines`.
        a, b, c, d, e, f, *_ = maps
        straight = turned & (b == 0) & (d == 0)
        # Whole pixels need no line where they fit: their sums are exact, and so are fixed-point numbers.
        straight &= ~(fits & (a == 1) & (e == 1) & (c == np.floor(c)) & (f == np.floor(f)))
        if straight.any():
            own = places[straight]
            self.numbers[own, 0], self.numbers[own, 3:5] = LINES, 0.0
            self.numbers[own, 1] = self._lines(c[straight], a[straight], self.width)
            self.numbers[own, 2] = self._lines(f[straight], e[straight], self.height)
            turned &= ~straight
        if not fits.all():
            for own in (turned & ~fits).nonzero()[0].tolist():
                self._list(int(places[own]), maps[:6, own].tolist(), _NAMES[ops[own]])
            turned &= fits
        fixed = turned.nonzero()[0]
        self._count(places.take(fixed), maps[:6].take(fixed, axis=1))

    def _list(self, place: int, matrix: list[float], name: str) -> None:
        """Write a map as the positions of all pixels: lines of which each row has one, and each column."""
        num_positions = 2 * self.height * self.width
        if sum(map(len, self.lines)) + num_positions > MAX_LINES:
            raise DeviceError(
                f"{name} reads so far outside of images of {self.height} x {self.width} that the positions of a batch "
                "are too many for this engine: take smaller batches, or device='cpu'"
            )
        rows, cols = (np.nan_to_num(each, nan=-1.0) for each in summed_positions(matrix, self.height, self.width))
        self.numbers[place, :5] = LINES, self._added(cols), self._added(rows.T), self.width, self.height

    def _count(self, places: np.ndarray, maps: np.ndarray) -> None:
        """Write maps, ``(6, T)``, as 16.16 numbers."""
        # The centre of pixel (0, 0), then everything rounded to 16 bits after the point, as Pillow's fixed-point loop.
        by_axis = maps.reshape(2, 3, -1)
        by_axis[:, 2] = by_axis[:, 2] + by_axis[:, 0] * 0.5 + by_axis[:, 1] * 0.5
        self.numbers[places, 1:7] = np.floor(maps * 65536.0 + 0.5).T

    def _lines(self, offset: np.ndarray, step: np.ndarray, side: int) -> np.ndarray:
        """Return where the source positions along an axis begin: sums of doubles, one after another, as Pillow's."""
        positions = np.repeat(step[:, None], side, axis=1)
        positions[:, 0] = offset + step * 0.5
        places: np.ndarray = self._added(np.add.accumulate(positions, axis=1)) + np.arange(len(step)) * side
        return places

    def _added(self, positions: np.ndarray) -> int:
        """Keep the pixels of these positions, and return where they begin among the lines."""
        first = sum(map(len, self.lines))
        # Clipped to just outside the image: what lies far beyond it need not fit an int32.
        self.lines.append(np.floor(np.clip(positions, -1.0, MAX_SIDE)).astype(np.int32).ravel())
        return first
