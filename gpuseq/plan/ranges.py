"""What may be drawn for a sample: Keras' ranges, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from .columns import COLUMNS, identity_params

__all__ = ["BLOCK", "ShiftRange", "Spread", "TransformRanges", "in_pixels"]

BLOCK = 256
"""Samples whose numbers are turned into parameters at once."""

_AS_DRAWN = (0.0, 1.0)


@dataclass(frozen=True)
class ShiftRange:
    """One of Keras' two shift ranges, in the three forms that Keras takes.

    Attributes
    ----------
    choices : tuple of float or None
        An integer n stands for 0..n-1, a list for itself: one is chosen, then its sign. None: uniform in +-`limit`.
    limit : float
        Half-width of the uniform range.
    fractional : bool
        Whether the drawn value is a fraction of the image's side (every value below 1) rather than pixels.
    """

    choices: tuple[float, ...] | int | None
    limit: float
    fractional: bool

    @classmethod
    def parse(cls, name: str, value: object) -> ShiftRange | None:
        """Read a user's `width_shift_range` or `height_shift_range`; None where nothing is to be drawn.

        Raises
        ------
        ValueError
            If the value is neither a finite number nor a non-empty one-dimensional sequence of numbers.
        """
        accepted = f"`{name}` must be a float, an int or a one-dimensional sequence of numbers; got {value!r}"
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError(accepted) from None
        if array.dtype.kind not in "biuf" or array.ndim > 1 or not np.isfinite(array).all():
            raise ValueError(accepted)
        # Keras asks the largest value whether all are fractions of the side.
        if array.ndim == 1:
            if array.size == 0:
                return None
            return cls(tuple(array.tolist()), 0.0, bool(array.max() < 1))
        if array == 0:
            return None
        fractional = bool(array < 1)
        # A negative integer has no values 0 to n - 1 to choose from; it is taken as the width of a uniform range.
        # Keras calls `np.random.choice(range)` and draws uniformly where that raises: an integer n is a choice of 0 to
        # n - 1, a float raises before a number is taken.
        if array.dtype.kind in "iu" and array > 0:
            return cls(int(array), 0.0, fractional)
        return cls(None, float(array), fractional)


class Spread(NamedTuple):
    """How the numbers of a sample, each in [0, 1), become its parameters.

    Attributes
    ----------
    num_doubles : int
        Numbers of a sample, k.
    lows, widths : numpy.ndarray
        Shape ``(BLOCK, k)``, float64, all rows alike: a number u becomes ``low + width * u``. One row would do, but
        NumPy then begins a loop of k anew for each sample.
    runs : tuple of (slice, slice)
        Numbers in a row, and the columns of `COLUMNS` that they become.
    chosen : tuple of (int, int, ShiftRange, int)
        The first of two numbers, for choice and sign, the column, what is chosen from, and the axis that it is along: 0
        the image's height, 1 its width.
    fractional : tuple of (int, int)
        A number that becomes a fraction of a side of the image, and which: as with `chosen`.
    flips : tuple of (int, int)
        A number that flips where it is below a half, and the column.
    at_rest : numpy.ndarray
        Shape ``(1, columns)``, float64: the parameters of a sample of which nothing is drawn.
    dtype : numpy.dtype
        Of parameters: those columns as fields.
    is_at_rest : bool
        Whether no number becomes a parameter. Those of the flips are taken all the same.
    """

    num_doubles: int
    lows: np.ndarray
    widths: np.ndarray
    runs: tuple[tuple[slice, slice], ...]
    chosen: tuple[tuple[int, int, ShiftRange, int], ...]
    fractional: tuple[tuple[int, int], ...]
    flips: tuple[tuple[int, int], ...]
    at_rest: np.ndarray
    dtype: np.dtype[np.void]
    is_at_rest: bool


@dataclass(frozen=True)
class TransformRanges:
    """What may be drawn for a sample: the ranges of `ImageDataGenerator`, read and checked once.

    Attributes
    ----------
    rotation, shear : float
        Degrees; 0 draws nothing.
    height_shift, width_shift : ShiftRange or None
        None draws nothing.
    zoom : (float, float)
        ``(1, 1)`` draws nothing.
    horizontal_flip, vertical_flip : bool
        Whether the number that is always drawn for a flip has an effect.
    channel_shift : float
        0 draws nothing.
    brightness : (float, float) or None
        None draws nothing.
    """

    rotation: float = 0.0
    height_shift: ShiftRange | None = None
    width_shift: ShiftRange | None = None
    shear: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    channel_shift: float = 0.0
    brightness: tuple[float, float] | None = None

    @cached_property
    def draws_zoom(self) -> bool:
        """Whether the zoom pair is drawn."""
        return not (self.zoom[0] == 1 and self.zoom[1] == 1)

    @cached_property
    def has_affine(self) -> bool:
        """Whether any sample can need resampling."""
        return bool(self.rotation or self.height_shift or self.width_shift or self.shear or self.draws_zoom)

    @cached_property
    def spread(self) -> Spread:
        """How the numbers of a sample become its parameters."""
        factors: list[tuple[float, float]] = []
        uniform: list[tuple[int, int]] = []
        chosen: list[tuple[int, int, ShiftRange, int]] = []
        fractional: list[tuple[int, int]] = []
        flips: list[tuple[int, int]] = []

        def between(name: str, low: float, high: float) -> None:
            uniform.append((len(factors), COLUMNS.names.index(name)))
            factors.append((low, high - low))

        def shift(name: str, drawn: ShiftRange, axis: int) -> None:
            if drawn.choices is not None:
                chosen.append((len(factors), COLUMNS.names.index(name), drawn, axis))
                factors.extend((_AS_DRAWN, _AS_DRAWN))
                return
            if drawn.fractional:
                fractional.append((len(factors), axis))
            between(name, -drawn.limit, drawn.limit)

        # From here on the order is the contract: Keras takes the numbers of a sample in this one. The height shift
        # comes before the width shift, and is called tx.
        if self.rotation:
            between("theta", -self.rotation, self.rotation)
        if self.height_shift:
            shift("tx", self.height_shift, 0)
        if self.width_shift:
            shift("ty", self.width_shift, 1)
        if self.shear:
            between("shear", -self.shear, self.shear)
        if self.draws_zoom:
            between("zx", *self.zoom)
            between("zy", *self.zoom)
        for name, is_drawn in (("flip_horizontal", self.horizontal_flip), ("flip_vertical", self.vertical_flip)):
            # The number is taken in any case.
            if is_drawn:
                flips.append((len(factors), COLUMNS.names.index(name)))
            factors.append(_AS_DRAWN)
        if self.channel_shift:
            between("channel_shift_intensity", -self.channel_shift, self.channel_shift)
        if self.brightness:
            between("brightness", *self.brightness)
        lows, widths = (np.tile(row, (BLOCK, 1)) for row in np.array(factors, np.float64).T)
        parts = _runs(uniform), tuple(chosen), tuple(fractional), tuple(flips)
        at_rest = identity_params(1)
        columns = at_rest.view(np.float64).reshape(1, -1)
        return Spread(
            len(factors), lows, widths, *parts, columns, at_rest.dtype, is_at_rest=not (uniform or chosen or flips)
        )


@lru_cache(maxsize=32)
def in_pixels(num_doubles: int, fractional: tuple[tuple[int, int], ...], height: int, width: int) -> np.ndarray:
    """Return what numbers are multiplied by so that fractions become pixels: a side of the image, or 1.

    Parameters
    ----------
    num_doubles, fractional
        See `Spread`.
    height, width : int
        Size of the images in pixels.

    Returns
    -------
    numpy.ndarray
        Shape ``(BLOCK, num_doubles)``, float64, all rows alike; read-only. For a batch one product with all of it is
        done sooner than two with a column each.
    """
    sides = np.ones(num_doubles)
    for number, axis in fractional:
        sides[number] = (height, width)[axis]
    table = np.tile(sides, (BLOCK, 1))
    table.setflags(write=False)
    return table


def _runs(pairs: list[tuple[int, int]]) -> tuple[tuple[slice, slice], ...]:
    """Join pairs of places that follow each other on both sides: a copy of several columns costs little more than one.

    ``[(0, 0), (1, 1), (2, 3)]`` becomes ``0:2 to 0:2, 2:3 to 3:4``.
    """
    runs: list[tuple[slice, slice]] = []
    for number, column in pairs:
        source, target = slice(number, number + 1), slice(column, column + 1)
        if runs and (runs[-1][0].stop, runs[-1][1].stop) == (number, column):
            before = runs.pop()
            source, target = slice(before[0].start, source.stop), slice(before[1].start, target.stop)
        runs.append((source, target))
    return tuple(runs)
