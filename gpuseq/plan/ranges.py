"""What may be drawn for a sample: Keras' ranges, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["ShiftRange", "TransformRanges"]


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
