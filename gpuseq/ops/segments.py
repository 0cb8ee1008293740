"""Programs cut into segments: what a kernel does to each sample, as tables of numbers made on the host.

A *segment* is a run of steps that needs no image but the one it starts from. A cut falls before a step that reads
several pixels and is not the first of its segment (bilinear geometry, sharpness, blur), and before one whose table
follows from a look at the image (contrast, autocontrast, equalize). What lies before the last cut of a sample is a
*level*: an intermediate image, a look at one, or both; a sample with levels is a *job* of the kernel ``prepare``. The
last segment is done by the kernel ``program`` together with everything that follows.

The numbers of a step, first to last: its code, eight arguments, the fill as four bytes of one number. Codes are those
of ``kernels/program.cuh``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.plan.program import IDENTITY, STEPS, Step

from .levels import table
from .maps import coefficients, fits_fixed_point, is_projective
from .weights import gaussian_weights

__all__ = ["Lists", "Segments", "cut", "listed"]

# Widths of the rows below; kernels/program.cuh and program.cu have the same numbers.
STEP_COLUMNS = 10
LEVEL_COLUMNS = 8
ERASE_COLUMNS = 9
SAMPLE_COLUMNS = 6
MAX_STEPS = 16
"""Of a segment."""

MAX_SIDE = 1 << 15
"""Rows and columns stay below this, as Pillow's fixed-point numbers do."""

FIXED, LINES, PROJECTIVE, TABLE, COLOR, GREY, HUE, PERMUTE, BILINEAR, SHARPNESS, BLUR = range(1, 12)
CONTRAST, AUTOCONTRAST, EQUALIZE = range(12, 15)
"""Steps that look at the image themselves: of `listed` alone."""

_Unpacked: TypeAlias = tuple[Step, int, int, list[int], list[float]]
"""A step as Python's own numbers: kind, chain, bilinear, fill, arguments."""

SOURCE = -1
"""In the place of a slot: the source image."""

_LOOKS = {"Contrast": 1, "AutoContrast": 2, "Equalize": 3}
_LOOKING = {"Contrast": CONTRAST, "AutoContrast": AUTOCONTRAST, "Equalize": EQUALIZE}
_PIXEL_CODES = {"Color": COLOR, "Grayscale": GREY, "Hue": HUE, "PermuteChannels": PERMUTE}


@dataclass
class Segments:
    """The tables of a batch, as ``prepare`` and ``program`` read them.

    Attributes
    ----------
    samples : numpy.ndarray
        Shape ``(N, 6)``, float64: source row, where the last segment starts from (a slot of the scratch, or -1 for the
        source), its first step, its steps, the first erasing step, erasing steps.
    jobs : numpy.ndarray
        Shape ``(J, 3)``, float64: source row, first level, levels.
    levels : numpy.ndarray
        Shape ``(L, 8)``, float64: where it starts from, first step, steps, the slot that it writes or -1, what it looks
        at the image for (0 nothing, 1 contrast, 2 autocontrast, 3 equalize), the table that it writes, a factor.
    steps : numpy.ndarray
        Shape ``(K, 10)``, float64.
    tables : numpy.ndarray
        Shape ``(T, 3, 256)``, uint8: those that need no look at an image.
    lines : numpy.ndarray
        int32: source positions of nearest maps along one axis.
    weights : numpy.ndarray
        float64: sides of Gaussian kernels.
    erases : numpy.ndarray
        Shape ``(E, 9)``, float64: top, left, height, width, four values or a key, and whether it is a key.
    num_looks : int
        Tables that ``prepare`` makes.
    num_slots : int
        Intermediate images.
    """

    samples: np.ndarray
    jobs: np.ndarray
    levels: np.ndarray
    steps: np.ndarray
    tables: np.ndarray
    lines: np.ndarray
    weights: np.ndarray
    erases: np.ndarray
    num_looks: int
    num_slots: int


def cut(program: np.ndarray, rows: np.ndarray, height: int, width: int, num_channels: int) -> Segments:
    """Cut the programs of a batch.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    rows : numpy.ndarray
        Shape ``(N,)``, int64: the source image of each sample.
    height, width, num_channels : int
        Of an image.

    Raises
    ------
    DeviceError
        If a step, or its map, is one that the kernels do not have.
    """
    if max(height, width) >= MAX_SIDE:
        raise DeviceError(
            f"images of {height} x {width} are too large for augmentations on a GPU, whose maps count to {MAX_SIDE}: "
            "resize them, or take device='cpu'"
        )
    # One set of lists for the batch: samples share tables, lines and weights that are equal.
    lists = Lists(height, width, num_channels)
    samples = np.empty((len(program), SAMPLE_COLUMNS))
    for sample, (steps, row) in enumerate(zip(_unpacked(program), rows.tolist(), strict=True)):
        samples[sample] = lists.add(steps, row)
    return lists.tables_of(samples)


def listed(program: np.ndarray, height: int, width: int, num_channels: int) -> Segments | None:
    """List the steps of a batch uncut, for an engine that goes from image to image.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    height, width, num_channels : int
        Of an image.

    Returns
    -------
    Segments or None
        In ``samples`` are the third and fourth number those of a sample's steps; jobs and levels are empty. None where
        a step or its map is one that such an engine does not have.
    """
    if max(height, width) >= MAX_SIDE:
        return None
    lists = Lists(height, width, num_channels)
    samples = np.zeros((len(program), SAMPLE_COLUMNS))
    try:
        for sample, steps in enumerate(_unpacked(program)):
            first = len(lists.steps)
            lists.steps += lists.uncut(steps)
            samples[sample, 2:4] = first, len(lists.steps) - first
    # The caller then takes NumPy for this batch: on the host there is always an engine that can.
    except DeviceError:
        return None
    return lists.tables_of(samples)


def _unpacked(program: np.ndarray) -> Iterator[list[_Unpacked]]:
    """Yield each sample's steps, without those that do nothing, as Python's own numbers: NumPy's are slow alone."""
    fields = [program[name].tolist() for name in ("op", "chain", "bilinear", "fill", "arg")]
    for row in zip(*fields, strict=True):
        yield [(STEPS[op], *rest) for op, *rest in zip(*row, strict=True) if op != IDENTITY]


def _array(rows: Sequence[Sequence[float]], num_columns: int) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, num_columns)


@dataclass
class Lists:
    """The tables while they grow."""

    height: int
    width: int
    num_channels: int
    jobs: list[list[float]] = field(default_factory=list)
    levels: list[list[float]] = field(default_factory=list)
    steps: list[list[float]] = field(default_factory=list)
    tables: list[np.ndarray] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    erases: list[list[float]] = field(default_factory=list)
    num_looks: int = 0
    num_slots: int = 0
    known: dict[Any, int] = field(default_factory=dict)
    names: dict[int, Any] = field(default_factory=dict)

    def add(self, steps: Sequence[_Unpacked], row: int) -> list[float]:
        """Cut one sample's steps and return its row."""
        # `start` is the image from which the segment in hand reads; `slots` are the scratch images of this sample.
        first_level, first_erase = len(self.levels), len(self.erases)
        start, segment = SOURCE, list[list[float]]()
        slots: list[int] = []

        def level(*, writes: bool, look: int = 0, factor: float = 0.0) -> None:
            nonlocal start, segment
            target = SOURCE
            if writes:
                # Two intermediate images are enough: one is read while the other is written.
                if len(slots) < 2:
                    slots.append(self.num_slots)
                    self.num_slots += 1
                target = slots[-1] if start != slots[-1] else slots[0]
            # A level without a slot only looks at the image that it starts from.
            self.levels.append([start, len(self.steps), len(segment), target, look, self.num_looks, factor, 0.0])
            self.num_looks += look != 0
            self.steps += segment
            start, segment = (target if writes else start), []

        for step, chain, bilinear, fill, args in steps:
            if step.kind == "erase":
                self.erases.append([*args[:8], 0.0] if step.name == "Erase" else [*args[:5], 0.0, 0.0, 0.0, 1.0])
                continue
            if step.kind in ("mix", "crop") or chain:
                raise DeviceError(f"{step.name} does not run on a GPU yet: take device='cpu' for it")
            if step.kind == "pixel" and self.num_channels == 1:
                continue  # grey has no colours to change
            # With nothing before it in the segment the image is there already and need not be written again.
            if step.kind == "measured":
                level(writes=bool(segment), look=_LOOKS[step.name], factor=args[0])
                # Negative numbers are tables that `prepare` makes: -1 the first. `level` has just counted it.
                segment.append(_step(TABLE, -self.num_looks))  # the table just made
                continue
            if step.kind == "table":
                self._look_up(segment, step.name, args)
            else:
                made = self._made(step.name, args, bool(bilinear), fill)
                if made is None:
                    continue
                # A step that reads several pixels needs them finished: it may only stand at the front of a segment.
                if (made[0] >= BILINEAR and segment) or len(segment) == MAX_STEPS:
                    level(writes=True)
                segment.append(made)
            # `_look_up` adds without asking for room.
            if len(segment) > MAX_STEPS:
                last = segment.pop()
                level(writes=True)
                segment.append(last)
        first_step = len(self.steps)
        self.steps += segment
        num_levels = len(self.levels) - first_level
        if num_levels:
            self.jobs.append([row, first_level, num_levels])
        return [row, start, first_step, len(segment), first_erase, len(self.erases) - first_erase]

    def tables_of(self, samples: np.ndarray) -> Segments:
        """Return what the lists hold as arrays, beside the rows of the samples."""
        return Segments(
            # Empty lists keep their number of columns, which the kernels' signatures want.
            samples=samples,
            jobs=_array(self.jobs, 3),
            levels=_array(self.levels, LEVEL_COLUMNS),
            steps=_array(self.steps, STEP_COLUMNS),
            tables=np.array(self.tables, np.uint8).reshape(-1, 3, 256),
            lines=np.array(self.lines, np.int32),
            weights=np.array(self.weights, np.float64),
            erases=_array(self.erases, ERASE_COLUMNS),
            num_looks=self.num_looks,
            num_slots=self.num_slots,
        )

    def uncut(self, steps: Sequence[_Unpacked]) -> list[list[float]]:
        """Return one sample's steps in order, erasing apart."""
        done: list[list[float]] = []
        for step, chain, bilinear, fill, args in steps:
            if step.kind == "erase" or (step.kind == "pixel" and self.num_channels == 1):
                continue
            if step.kind in ("mix", "crop") or chain:
                raise DeviceError(f"{step.name} is done by NumPy")
            # An image at a time is done step by step, so a step may look at it where it stands.
            if step.kind == "measured":
                done.append(_step(_LOOKING[step.name], args[0]))
            elif step.kind == "table":
                self._look_up(done, step.name, args)
            else:
                made = self._made(step.name, args, bool(bilinear), fill)
                done += [] if made is None else [made]
        return done

    def _look_up(self, segment: list[list[float]], name: str, args: list[float]) -> None:
        """Add a table that needs no look: one for all that ask for it, or one with that before it, which is exact."""
        key = (name, *args)
        # A table after a table composes exactly: each maps a level to a level. After one that `prepare` makes (a
        # negative number, which has no name here) it stays a step of its own.
        before = self.names.get(int(segment[-1][1])) if segment and segment[-1][0] == TABLE else None
        if before is not None:
            key = (before, key)
            if key not in self.known:
                composed = table(name, args)[self.tables[self.known[before]]]
                self._remember(key, composed)
            segment[-1] = _step(TABLE, self.known[key])
            return
        if key not in self.known:
            self._remember(key, np.broadcast_to(table(name, args), (3, 256)))
        segment.append(_step(TABLE, self.known[key]))

    def _remember(self, key: Any, levels: np.ndarray) -> None:
        self.known[key] = len(self.tables)
        self.names[self.known[key]] = key
        self.tables.append(levels)

    def _made(self, name: str, args: list[float], bilinear: bool, fill: list[int]) -> list[float] | None:
        """Return the numbers of a step that is no table; None where it changes nothing."""
        if name in _PIXEL_CODES:
            return _step(_PIXEL_CODES[name], *args[:3])
        if name == "Sharpness":
            # Pillow keeps the outermost ring of pixels, and such an image has no other.
            return None if min(self.height, self.width) < 3 else _step(SHARPNESS, args[0])
        if name == "GaussianBlur":
            places = [self._weights(int(side), args[2]) for side in args[:2]]
            return _step(BLUR, args[0], args[1], *places)
        return self._map(name, args, bilinear, fill)

    def _weights(self, side: int, sigma: float) -> int:
        key = ("weights", side, sigma)
        if key not in self.known:
            self.known[key] = len(self.weights)
            self.weights += gaussian_weights(side, sigma).tolist()
        return self.known[key]

    def _map(self, name: str, args: list[float], bilinear: bool, fill: list[int]) -> list[float]:
        height, width = self.height, self.width
        # Flips as 16.16 maps: whole pixels, and no path of their own in the kernels.
        if name == "HorizontalFlip":
            return _step(FIXED, -65536, 0, (width - 1) << 16, 0, 65536, 0)
        if name == "VerticalFlip":
            return _step(FIXED, 65536, 0, 0, 0, -65536, (height - 1) << 16)
        matrix = coefficients(name, args, height, width)
        # Pillow transposes at quarter turns, whatever the interpolation; nearest gives the same pixels. A turn by 90
        # degrees of an image that is not square does not fit and is no transpose.
        quarter = name == "Rotate" and args[0] % 90.0 == 0 and (args[0] % 180.0 == 0 or height == width)
        if bilinear and not quarter:
            return _step(BILINEAR, *matrix, fill=fill)
        if is_projective(name):
            return _step(PROJECTIVE, *matrix, fill=fill)
        a, b, c, d, e, f = matrix
        # Pillow adds these positions up in double along each axis, which depends on the row or column alone: one list
        # an axis.
        if b == 0 and d == 0:
            return _step(LINES, self._line(c, a, width), self._line(f, e, height), fill=fill)
        if not fits_fixed_point(matrix, height, width):
            raise DeviceError(f"{name} {args[0]:g} reads too far outside of an image for the GPU: take device='cpu'")
        # The centre of pixel (0, 0), then everything rounded to 16 bits after the point, as Pillow's fixed-point loop.
        numbers = a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5
        return _step(FIXED, *(float(np.floor(value * 65536.0 + 0.5)) for value in numbers), fill=fill)

    def _line(self, offset: float, step: float, side: int) -> int:
        """Return where the source positions along an axis begin: sums of doubles, one after another, as Pillow's."""
        key = ("line", offset, step, side)
        if key not in self.known:
            positions = np.full(side, step)
            positions[0] = offset + step * 0.5
            # Clipped to just outside the image: what lies far beyond it need not fit an int32.
            positions = np.floor(np.clip(np.add.accumulate(positions), -1.0, MAX_SIDE))
            self.known[key] = len(self.lines)
            self.lines += positions.astype(np.int32).tolist()
        return self.known[key]


def _step(code: int, *args: float, fill: Sequence[int] = (0, 0, 0, 0)) -> list[float]:
    packed = sum(int(level) << (8 * channel) for channel, level in enumerate(fill))
    return [float(code), *(float(value) for value in args), *([0.0] * (8 - len(args))), float(packed)]
