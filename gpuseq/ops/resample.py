"""Pillow's resampling as tables: which pixels of a line make an output pixel, and with which integer weights.

All engines resize by these tables, in integers, so they agree with each other and with Pillow to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import PIL

__all__ = ["PRECISION_BITS", "LineTable", "line_table", "nearest_indices", "vertical_first"]

PRECISION_BITS = 22
"""Weights are fixed-point numbers with this many bits after the point: 32 less 8 of the pixels less 2 of headroom."""


@dataclass(frozen=True, eq=False)
class LineTable:
    """How a line of pixels becomes a line of another length.

    Attributes
    ----------
    first : numpy.ndarray
        Shape ``(n_out,)``, int32: the first input pixel of each output pixel. Not to be written to.
    weights : numpy.ndarray
        Shape ``(taps, n_out)``, int32: the weight of input pixel ``first + tap``, in units of ``2**-PRECISION_BITS``;
        zero past the filter's support. Not to be written to.
    count : numpy.ndarray
        Shape ``(n_out,)``, int32: how many of the taps count; the others may lie outside the line.
    """

    first: np.ndarray
    count: np.ndarray
    weights: np.ndarray

    @property
    def span(self) -> tuple[int, int]:
        """The first input pixel that is read, and the one after the last."""
        return int(self.first[0]), int((self.first + self.count).max())


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _hamming(x: np.ndarray) -> np.ndarray:
    safe = np.where(x == 0, 1.0, x) * np.pi
    # Pillow writes these two constants as floats.
    window = np.float64(np.float32(0.54)) + np.float64(np.float32(0.46)) * np.cos(safe)
    return np.where(x == 0, 1.0, np.where(np.abs(x) >= 1, 0.0, np.sin(safe) / safe * window))


def _bicubic(x: np.ndarray) -> np.ndarray:
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _sinc(x: np.ndarray) -> np.ndarray:
    safe = np.where(x == 0, 1.0, x) * np.pi
    return np.where(x == 0, 1.0, np.sin(safe) / safe)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@lru_cache(maxsize=4096)
def line_table(n_in: int, n_out: int, interpolation: str, start: float, stop: float) -> LineTable:
    """Return the table that resizes ``[start, stop)`` of a line of `n_in` pixels to `n_out` pixels.

    Parameters
    ----------
    n_in, n_out : int
        Pixels of the line before and after.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter.
    start, stop : float
        The part of the line to resize, as float32 values; ``0, n_in`` is all of it.

    Returns
    -------
    LineTable
        Kept for the next call with the same arguments.

    References
    ----------
    ``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in Pillow's ``Resample.c``.
    """
    # Kept by size: the photographs of a folder come in a few.
    weigh, support = _FILTERS[interpolation]
    # Pillow's box is float32: the difference is taken there, the quotient in double.
    scale = float(np.float32(stop) - np.float32(start)) / n_out
    # An image that shrinks widens the filter over all pixels that fall into one; one that grows keeps it.
    filter_scale = max(scale, 1.0)
    support *= filter_scale
    center = start + (np.arange(n_out) + 0.5) * scale
    # int() of C truncates towards zero, as np.trunc; np.floor differs left of the line.
    first = np.maximum(np.trunc(center - support + 0.5), 0).astype(np.int32)
    count = np.minimum(np.trunc(center + support + 0.5), n_in).astype(np.int32) - first
    taps = np.arange(int(count.max()))[:, None]
    inside = taps < count
    weights = np.where(inside, weigh((taps + first - center + 0.5) * (1.0 / filter_scale)), 0.0)
    total = np.cumsum(weights, axis=0)[-1]  # one after the other, as Pillow adds; a pairwise sum can round otherwise
    # Pillow, too, divides only where the sum is not 0.
    weights = np.divide(weights, total, out=weights, where=total != 0)
    # Rounded half away from zero, as Pillow's cast of `w * 2**22 +- 0.5`.
    fixed = np.trunc(weights * (1 << PRECISION_BITS) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    fixed[~inside] = 0
    table = LineTable(first, count, fixed)
    # Shared by all callers with the same arguments.
    for array in (first, count, fixed):
        array.flags.writeable = False
    return table


@lru_cache(maxsize=4096)
def nearest_indices(n_in: int, n_out: int, start: float, stop: float) -> np.ndarray:
    """Return which pixel of a line each output pixel takes without interpolation.

    Parameters
    ----------
    n_in, n_out : int
        Pixels of the line before and after.
    start, stop : float
        As in `line_table`.

    Returns
    -------
    numpy.ndarray
        Shape ``(n_out,)``, int32; not to be written to.

    References
    ----------
    ``ImagingScaleAffine`` in Pillow's ``Geometry.c``, which adds the step up in double: the closed form rounds
    differently.
    """
    step = float(np.float32(stop) - np.float32(start)) / n_out
    steps = np.full(n_out, step)
    steps[0] = start + step * 0.5
    # The closed form `(i + 0.5) * step` differs in 1,374 of 7,581 pairs of sizes.
    indices = np.minimum(np.cumsum(steps).astype(np.int32), n_in - 1)
    indices.flags.writeable = False
    return indices


@cache
def _weighs_passes() -> bool:
    """Return whether the installed Pillow picks the order of its two passes by their cost, as it does from 13.0 on."""
    return int(PIL.__version__.partition(".")[0]) >= 13


def vertical_first(height: int, width: int, target_size: tuple[int, int]) -> bool:
    """Return whether the installed Pillow resizes columns before rows; the 8-bit result in between depends on it.

    Parameters
    ----------
    height, width : int
        Of the whole image.
    target_size : (int, int)
        Rows and columns of the result.
    """
    saved_rows, saved_cols = height - target_size[0], width - target_size[1]
    # Pillow 13 compares what each order saves; before, rows always came first. The wrong order is up to 53 levels off
    # on noise.
    return _weighs_passes() and saved_rows > 0 and saved_rows > 2 * saved_cols
