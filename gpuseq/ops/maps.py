"""Where an output pixel of a geometric step comes from: coefficients in double, made on the host for every engine.

Pillow's order: ``X = a (x + .5) + b (y + .5) + c`` and ``Y = d (x + .5) + e (y + .5) + f`` for output column x and row
y; in perspective both are divided by ``g (x + .5) + h (y + .5) + 1``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from gpuseq.plan.program import STEPS

__all__ = ["FIXED_LIMIT", "coefficients", "fits_fixed_point", "is_projective", "summed_positions", "write_maps"]

FIXED_LIMIT = 32768.0
"""Source positions below this in size fit Pillow's numbers of 16 bits before and 16 after the point."""


def coefficients(name: str, args: Sequence[float], height: int, width: int) -> tuple[float, ...]:
    """Return the map of a geometric step: six coefficients, or eight of a projective one. As `write_maps` of one.

    Parameters
    ----------
    name : str
        Of the step.
    args : sequence of float
        Its arguments.
    height, width : int
        Rows and columns of the image.
    """
    maps = np.zeros((8, 1))
    write_maps(maps, [(name, 0, 1)], np.array([args], np.float64), height, width)
    return tuple(maps[: 8 if is_projective(name) else 6, 0].tolist())


def write_maps(
    maps: np.ndarray, runs: Sequence[tuple[str, int, int]], args: np.ndarray, height: int, width: int
) -> None:
    """Write the maps of geometric steps.

    Parameters
    ----------
    maps : numpy.ndarray
        Shape ``(8, T)``, float64, zeros. Written to: six coefficients, or eight of a projective map.
    runs : sequence of (str, int, int)
        Steps of one name: the name, the first, and the one after the last.
    args : numpy.ndarray
        Shape ``(T, K)``, float64: the arguments of each; what lies behind them is not read.
    height, width : int
        Rows and columns of the image.

    References
    ----------
    Pillow's ``Image.rotate`` and ``Image.transform``; ``torchvision.transforms.v2.functional.affine`` and
    ``perspective``; Wolberg, "Digital image warping", 1990, for the projective map of four corners.
    """
    # Numbers beyond all images may overflow: such a map reads nothing of the image, which is no fault of the program.
    with np.errstate(over="ignore", invalid="ignore"):
        for name, first, end in runs:
            made = _MAPS[name](args[first:end], height, width)
            if isinstance(made, np.ndarray):
                maps[:, first:end] = made.T
                continue
            for column, values in enumerate(made):
                maps[column, first:end] = values


def is_projective(name: str) -> bool:
    """Tell whether a step's map has eight coefficients."""
    return name == "Perspective"


def fits_fixed_point(matrix: Sequence[Any] | np.ndarray, height: int, width: int) -> Any:
    """Tell whether the map of an image's corners stays within what Pillow's fixed-point loop can hold.

    Parameters
    ----------
    matrix : sequence
        Six coefficients, each a number, or an array of those of several maps.
    height, width : int
        Rows and columns of the image.
    """
    # Six rows, of the columns' three coefficients and of the rows'.
    maps = np.asarray(matrix, np.float64).reshape(2, 3, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        by_col, by_row, start = maps[:, 0] * width, maps[:, 1] * height, maps[:, 2]
        # No corner is further away than the sizes of the three terms together: rounding keeps the order of sums.
        fits = (abs(by_col) + abs(by_row) + abs(start) < FIXED_LIMIT).all(axis=0)
        if not fits.all():
            corners = np.stack([start, by_row + start, by_col + start, by_col + by_row + start])
            fits = (abs(corners) < FIXED_LIMIT).all(axis=(0, 1))
    return fits.reshape(np.shape(matrix[0]))


def summed_positions(matrix: Sequence[float], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where Pillow's loop reads for what does not fit fixed point: sums of doubles, one after another.

    Down the first column at first, and from each of these along its row.

    Parameters
    ----------
    matrix : sequence of float
        Six coefficients.
    height, width : int
        Rows and columns of the image.

    Returns
    -------
    rows, cols : numpy.ndarray
        Shape ``(H, W)``, float64: the source position of each pixel.

    References
    ----------
    The last loop of ``ImagingTransformAffine`` in Pillow's ``Geometry.c``.
    """
    a, b, c, d, e, f = matrix
    rows, cols = (
        _summed(first, down, across, height, width)
        for first, down, across in ((f + d * 0.5 + e * 0.5, e, d), (c + a * 0.5 + b * 0.5, b, a))
    )
    return rows, cols


def _summed(first: float, down: float, across: float, height: int, width: int) -> np.ndarray:
    positions = np.full((height, width), across)
    positions[:, 0], positions[0, 0] = down, first
    np.add.accumulate(positions[:, 0], out=positions[:, 0])
    np.add.accumulate(positions, axis=1, out=positions)
    return positions


def _rotate(args: np.ndarray, height: int, width: int) -> _Columns:
    cos, sin, minus_sin = np.array([_turn(degrees) for degrees in args[:, 0].tolist()]).reshape(-1, 3).T
    middle_x, middle_y = width / 2, height / 2
    # Term by term as Pillow has it, the + 0.0 included.
    c = cos * -middle_x + sin * -middle_y + 0.0 + middle_x
    f = minus_sin * -middle_x + cos * -middle_y + 0.0 + middle_y
    return cos, sin, c, minus_sin, cos, f


# Policies turn by few angles: those of their bins.
@functools.lru_cache(maxsize=1024)
def _turn(degrees: float) -> tuple[float, float, float]:
    """Return cosine, sine and its negative of a turn the other way."""
    angle = -math.radians(degrees % 360.0)
    # Rounded as Pillow does, so that a quarter turn moves whole pixels.
    return round(math.cos(angle), 15), round(math.sin(angle), 15), round(-math.sin(angle), 15)


def _affine(args: np.ndarray, height: int, width: int) -> _Columns:
    degrees, shift_x, shift_y, scale, *shears = args[:, :6].T
    turn, shear_x, shear_y = (np.deg2rad(angle) for angle in (degrees, *shears))
    # The forward map is a turn after two shears; its determinant is 1, so the inverse swaps and negates.
    cos, sin = _each(math.cos, turn - shear_y), _each(math.sin, turn - shear_y)
    upright, slant = _each(math.cos, shear_y), _each(math.tan, shear_x)
    first = cos / upright
    second = -cos * slant / upright - _each(math.sin, turn)
    third = sin / upright
    fourth = -sin * slant / upright + _each(math.cos, turn)
    # Divided entry by entry and added in torchvision's order: at ties of the nearest pixel the last bit shows.
    a, b, d, e = fourth / scale, -second / scale, -third / scale, first / scale
    middle_x, middle_y = width * 0.5, height * 0.5
    c = 0.0 + (a * (-middle_x - shift_x) + b * (-middle_y - shift_y)) + middle_x
    f = 0.0 + (d * (-middle_x - shift_x) + e * (-middle_y - shift_y)) + middle_y
    return a, b, c, d, e, f


def _each(function: Callable[[float], float], values: np.ndarray) -> np.ndarray:
    """Apply one of Python's functions, as the references do; NumPy's may differ in the last bit."""
    return np.array([function(value) for value in values.tolist()])


def perspective(ends: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the maps that bring corners back to those of the image.

    Parameters
    ----------
    ends : numpy.ndarray
        Shape ``(N, 8)``, float64: where the corners go, column and row of each, clockwise from the top left.
    height, width : int
        Rows and columns of the image.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, 8)``: eight coefficients, float64 that were rounded to float32, as torchvision's are.
    """
    corners = np.array(((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)), np.float64)
    moved = ends.reshape(-1, 4, 2)
    by_corner = np.zeros((len(ends), 4, 2, 8))
    by_corner[:, :, 0, :2] = by_corner[:, :, 1, 3:5] = moved
    by_corner[:, :, 0, 2] = by_corner[:, :, 1, 5] = 1.0
    by_corner[:, :, :, 6:] = -corners[None, :, :, None] * moved[:, :, None, :]
    equations = by_corner.reshape(-1, 8, 8)
    wanted = corners.reshape(8)
    # Three corners on one line, which an image one pixel wide has, are no error: least squares then.
    sides = np.roll(moved, -1, axis=1) - moved
    after = np.roll(sides, -1, axis=1)
    is_flat = (sides[..., 0] * after[..., 1] == sides[..., 1] * after[..., 0]).any(axis=1) | (min(height, width) < 2)
    solved = np.empty((len(ends), 8))
    if not is_flat.all():
        right = np.broadcast_to(wanted[:, None], (int((~is_flat).sum()), 8, 1))
        solved[~is_flat] = np.linalg.solve(equations[~is_flat], right)[..., 0]
    for index in np.flatnonzero(is_flat):
        solved[index] = np.linalg.lstsq(equations[index], wanted, rcond=None)[0]
    # torchvision hands the solution on in float32, and Pillow computes with that in double.
    coefficients: np.ndarray = solved.astype(np.float32).astype(np.float64)
    return coefficients


_Columns: TypeAlias = tuple[float | np.ndarray, ...]
"""Coefficients one by one: of all maps, or of each."""

_MAPS: dict[str, Callable[[np.ndarray, int, int], _Columns | np.ndarray]] = {
    "ShearX": lambda args, height, width: (1.0, args[:, 0], 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda args, height, width: (1.0, 0.0, 0.0, args[:, 0], 1.0, 0.0),
    "TranslateX": lambda args, height, width: (1.0, 0.0, -args[:, 0], 0.0, 1.0, 0.0),
    "TranslateY": lambda args, height, width: (1.0, 0.0, 0.0, 0.0, 1.0, -args[:, 0]),
    "Rotate": _rotate,
    "Affine": _affine,
    "Perspective": perspective,
    "HorizontalFlip": lambda args, height, width: (-1.0, 0.0, float(width), 0.0, 1.0, 0.0),
    "VerticalFlip": lambda args, height, width: (1.0, 0.0, 0.0, 0.0, -1.0, float(height)),
}
assert {step.name for step in STEPS if step.kind == "geometry"} == {*_MAPS}
