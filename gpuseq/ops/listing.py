"""The steps of a batch as tables of numbers, made on the host for every engine, all samples at once.

The numbers of a step, first to last: its code, eight arguments, the fill as four bytes of one number. Codes are those
of ``kernels/program.cuh`` and ``kernels/host/moves.h``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.plan.program import STEPS, Step, code_of, of_kind

from .levels import tables_of
from .maps import fits_fixed_point, is_projective, maps_of, summed_positions
from .weights import gaussian_weights

__all__ = ["MAX_SIDE", "Steps", "steps_of"]

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
    erasing = of_kind(program, "erase")
    # Grey has no colours to change.
    idle = of_kind(program, "none", "crop", *(("pixel",) if num_channels == 1 else ()))
    sample, steps = _taken(program, ~(erasing | idle))
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
    erases_of, erases = _erases(program, erasing)
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
    places = np.flatnonzero(wanted)
    return places // max(1, program.shape[1]), program.reshape(-1).take(places)


def _joined(parts: list[np.ndarray], none: np.ndarray) -> np.ndarray:
    return np.concatenate(parts) if parts else none


def _erases(program: np.ndarray, erasing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whose they are, and their numbers."""
    sample, steps = _taken(program, erasing)
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
    kept = np.flatnonzero((chain == 0) | own)
    if len(kept) < len(steps):
        sample, steps, chain, before = (values.take(kept) for values in (sample, steps, chain, before))
    keys = [8 * before + chain]
    mixes = np.flatnonzero(steps["op"] == _MIX)
    args = steps["arg"].take(mixes, axis=0)
    closing = []
    for number in (1, 2, 3, 4, 5, _LAST):
        at = np.arange(len(mixes)) if number == _LAST else np.flatnonzero(args[:, 1] >= number)
        rows = np.zeros((len(at), 1 + STEP_COLUMNS))
        rows[:, 0], rows[:, 1] = sample[mixes[at]], MIX_END if number == _LAST else CHAIN_END
        rows[:, 2] = args[at, 0 if number == _LAST else 1 + number]
        closing.append(rows)
        keys.append(8 * before[mixes[at]] + number)
    # By the place of the mix, then the chain; what is equal stays as it came, a chain's end behind its steps.
    return sample, steps, (np.argsort(np.concatenate(keys), kind="stable"), np.concatenate(closing))


def _by_op(ops: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each op that occurs, ascending, and where."""
    order = np.argsort(ops, kind="stable")
    counts = np.bincount(ops, minlength=len(STEPS)).tolist()
    for op, (count, end) in enumerate(zip(counts, itertools.accumulate(counts), strict=True)):
        if count:
            yield op, order[end - count : end]


class _Lists:
    """The numbers of steps, and what they point into."""

    def __init__(self, height: int, width: int, steps: np.ndarray) -> None:
        self.height, self.width = height, width
        self.tables: list[np.ndarray] = []
        self.lines: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []
        ops = steps["op"]
        self.numbers = np.empty((len(steps), STEP_COLUMNS))
        self.numbers[:, 0] = _CODE_OF[ops]
        self.numbers[:, 1:9] = steps["arg"]
        self.numbers[:, 9] = np.ascontiguousarray(steps["fill"]).view("<u4")[:, 0]
        if not len(steps):
            return
        moves = []
        for op, places in _by_op(ops):
            name, kind = STEPS[op].name, STEPS[op].kind
            if kind == "table":
                self._look_up(name, places)
            elif kind == "geometry":
                moves.append((op, places))
            elif name == "GaussianBlur":
                self._weigh(places)
            elif name == "Sharpness" and min(height, width) < 3:
                self.numbers[places, 0] = 0  # Pillow keeps the outermost ring of pixels, and there is no other
        if moves:
            self._move(moves, steps["bilinear"] != 0)

    def _look_up(self, name: str, places: np.ndarray) -> None:
        # One table for all steps of the same arguments: policies of bins have few. Pairs sort as complex numbers.
        pairs = np.ascontiguousarray(self.numbers[places, 1:3]).view(np.complex128)[:, 0]
        distinct, which = np.unique(pairs, return_inverse=True)
        self.numbers[places, 1] = sum(map(len, self.tables)) + which
        tables = tables_of(name, distinct.view(np.float64).reshape(-1, 2))
        # One for each of three channels, as tables of a look at the image are: a step reads both kinds in the same way.
        self.tables.append(np.repeat(tables[:, None], 3, axis=1))

    def _weigh(self, places: np.ndarray) -> None:
        for place in places.tolist():
            *sides, sigma = self.numbers[place, 1:4].tolist()
            for column, side in enumerate(sides, 3):
                self.numbers[place, column] = sum(map(len, self.weights))
                self.weights.append(gaussian_weights(int(side), sigma))

    def _move(self, moves: list[tuple[int, np.ndarray]], is_bilinear: np.ndarray) -> None:
        """Write the maps: their coefficients, or what Pillow makes of them for nearest pixels."""
        ops = np.repeat([op for op, _ in moves], [len(own) for _, own in moves])
        places = np.concatenate([own for _, own in moves])
        made = [maps_of(_NAMES[op], self.numbers[own, 1:9], self.height, self.width) for op, own in moves]
        matrices = np.zeros((len(places), 8))
        for maps, end in zip(made, itertools.accumulate(map(len, made)), strict=True):
            matrices[end - len(maps) : end, : maps.shape[1]] = maps
        # Pillow transposes at quarter turns, whatever the interpolation; nearest gives the same pixels. A turn by 90
        # degrees of an image that is not square does not fit and is no transpose. Flips move whole pixels too.
        angle = self.numbers[places, 1]
        quarter = (angle % 90.0 == 0) & ((angle % 180.0 == 0) | (self.height == self.width))
        bilinear = is_bilinear[places] & ~(((ops == _ROTATE) & quarter) | _IS_FLIP[ops])
        projective = _IS_PROJECTIVE[ops]
        self.numbers[places, 1:9] = matrices
        self.numbers[places, 0] = np.where(bilinear, BILINEAR, np.where(projective, PROJECTIVE, FIXED))
        nearest = ~(bilinear | projective)
        # Without a turn or a shear Pillow takes another loop, of doubles: see `_lines`.
        straight = nearest & (matrices[:, 1] == 0) & (matrices[:, 3] == 0)
        fits = fits_fixed_point(matrices[:, :6].T, self.height, self.width)
        # Whole pixels need no line where they fit: their sums are exact, and so are fixed-point numbers.
        a, c, e, f = (matrices[:, column] for column in (0, 2, 4, 5))
        straight &= ~(fits & (a == 1) & (e == 1) & (c % 1 == 0) & (f % 1 == 0))
        if straight.any():
            own = places[straight]
            self.numbers[own, 0], self.numbers[own, 3:5] = LINES, 0.0
            self.numbers[own, 1] = self._lines(c[straight], a[straight], self.width)
            self.numbers[own, 2] = self._lines(f[straight], e[straight], self.height)
        turned = nearest & ~straight
        fixed = np.flatnonzero(turned & fits)
        if len(fixed):
            self._count(places[fixed], matrices[fixed, :6])
        for own in np.flatnonzero(turned & ~fits).tolist():
            self._list(int(places[own]), matrices[own, :6].tolist(), _NAMES[ops[own]])

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

    def _count(self, places: np.ndarray, matrices: np.ndarray) -> None:
        """Write maps as 16.16 numbers."""
        # The centre of pixel (0, 0), then everything rounded to 16 bits after the point, as Pillow's fixed-point loop.
        a, b, c, d, e, f = matrices.T
        matrices[:, 2] = c + a * 0.5 + b * 0.5
        matrices[:, 5] = f + d * 0.5 + e * 0.5
        self.numbers[places, 1:7] = np.floor(matrices * 65536.0 + 0.5)

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
