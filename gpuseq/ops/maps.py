"""Where an output pixel of a geometric step comes from: coefficients in double, made on the host for every engine.

Pillow's order: ``X = a (x + .5) + b (y + .5) + c`` and ``Y = d (x + .5) + e (y + .5) + f`` for output column x and row
y; in perspective both are divided by ``g (x + .5) + h (y + .5) + 1``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpuseq.base.forks import LINEAR_ALGEBRA, forks_wait
from gpuseq.plan.program import STEPS

__all__ = [
    "FIXED_LIMIT",
    "coefficients",
    "fits_fixed_point",
    "is_projective",
    "summed_positions",
    "turns",
    "write_maps",
]

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
    # Most steps change one number of the identity.
    maps[0:5:4] = 1.0
    for name, first, end in runs:
        _WRITE[name](maps[:, first:end], args[first:end], height, width)


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
    shape = np.shape(matrix[0])
    coefficients = np.asarray(matrix, np.float64).reshape(6, -1)
    # No corner is further away than the sizes of the three terms together, nor these than those of the largest ones:
    # rounding keeps the order of products and sums. Not a number is less than nothing.
    a, b, c, d, e, f = np.abs(coefficients).max(axis=1, initial=0.0).tolist()
    if a * width + b * height + c < FIXED_LIMIT and d * width + e * height + f < FIXED_LIMIT:
        return np.ones(shape, bool)
    # The columns' three coefficients and the rows'.
    maps = coefficients.reshape(2, 3, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        by_col, by_row, start = maps[:, 0] * width, maps[:, 1] * height, maps[:, 2]
        corners = np.stack([start, by_row + start, by_col + start, by_col + by_row + start])
        fits = (abs(corners) < FIXED_LIMIT).all(axis=(0, 1))
    return fits.reshape(shape)


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
        # The row's half pixel first, unlike Pillow's fixed-point loop: of numbers as large as these it shows.
        for first, down, across in ((f + e * 0.5 + d * 0.5, e, d), (c + b * 0.5 + a * 0.5, b, a))
    )
    return rows, cols


def _summed(first: float, down: float, across: float, height: int, width: int) -> np.ndarray:
    positions = np.full((height, width), across)
    positions[:, 0], positions[0, 0] = down, first
    # Sums beyond all numbers lie outside of any image.
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.accumulate(positions[:, 0], out=positions[:, 0])
        np.add.accumulate(positions, axis=1, out=positions)
    return positions


def _rotate(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    _turn(maps, args[:, 0], np.array(((width / 2,), (height / 2,))))


def _rotate_about(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    # A centre may lie as far away as a scale brings an image in `_affine`.
    with np.errstate(over="ignore", invalid="ignore"):
        _turn(maps, args[:, 0], args[:, 1:3].T)


def _turn(maps: np.ndarray, degrees: np.ndarray, center: np.ndarray) -> None:
    """Write maps that turn about a centre, column and row, of shape ``(2, 1)`` or ``(2, T)``."""
    turned = turns(degrees)
    cos, sin = turned.real, turned.imag
    # Both axes at once: by column, by row, and where they begin. Term by term as Pillow has it, the + 0.0 included.
    by_axis = maps[:6].reshape(2, 3, -1)
    by_axis[0, 0] = by_axis[1, 1] = cos
    by_axis[0, 1] = sin
    np.negative(sin, out=by_axis[1, 0])
    start = by_axis[:, 0] * -center[0]
    start += by_axis[:, 1] * -center[1]
    start += 0.0
    np.add(start, center, out=by_axis[:, 2])


# Policies of bins turn by few angles, those of others by new ones in each batch: these are not kept for ever.
_MOST_TURNS = 4096
_known_turns: dict[float, complex] = {}


def turns(degrees: np.ndarray) -> np.ndarray:
    """Return cosine and sine, as complex numbers, of turns the other way."""
    wanted = degrees.tolist()
    known = [*map(_known_turns.get, wanted)]
    if None not in known:
        return np.array(known)
    with np.errstate(invalid="ignore"):
        angles = (-np.deg2rad(degrees % 360.0)).tolist()
        made = np.empty(len(angles), np.complex128)
        # Rounded as Pillow does, so that a quarter turn moves whole pixels.
        made.real, made.imag = _rounded([*map(math.cos, angles)]), _rounded([*map(math.sin, angles)])
    if len(_known_turns) < _MOST_TURNS:
        _known_turns.update(zip(wanted, made.tolist(), strict=True))
    return made


def _rounded(values: list[float]) -> np.ndarray:
    """Return ``round(value, 15)`` of numbers from -1 to 1."""
    given = np.array(values)
    # The product with 10**15 in two parts: the first 26 bits by 5**15, a whole number of 61 bits, and the rest.
    high = np.rint(given * 2.0**26)
    product = high.astype(np.int64) * 5**15
    rest = (product & 2047) * 2.0**-11 + (given - high * 2.0**-26) * 1e15
    nearest = np.rint(rest)
    rounded: np.ndarray = np.copysign(((product >> 11) + nearest) / 1e15, given)
    # What lies as near to the middle as `rest` is exact, Python decides.
    for place in (abs(rest - nearest) > 0.4999).nonzero()[0].tolist():
        rounded[place] = round(values[place], 15)
    return rounded


def _affine(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    # Numbers beyond all images may overflow: such a map reads nothing of the image, which is no fault of the program.
    with np.errstate(over="ignore", invalid="ignore"):
        maps[:6] = _affine_coefficients(args, width * 0.5, height * 0.5)


def _affine_about(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        maps[:6] = _affine_coefficients(args, args[:, 6], args[:, 7])


def _affine_coefficients(
    args: np.ndarray, center_x: float | np.ndarray, center_y: float | np.ndarray
) -> tuple[np.ndarray, ...]:
    degrees, shift_x, shift_y, scale, *shears = args[:, :6].T
    turn, shear_x, shear_y = (np.deg2rad(angle) for angle in (degrees, *shears))
    upright, slant = _each(math.cos, shear_y), _each(math.tan, shear_x)
    # The forward map is a turn after two shears; its determinant is 1, so the inverse swaps and negates. Sums and
    # products in the order of torchvision's v2, which is not that of its v1: where the matrix differs in its last bit,
    # bilinear values that lie on a level are cut to the one below.
    first, third = _each(math.cos, turn - shear_y) / upright, _each(math.sin, turn - shear_y) / upright
    second, fourth = -(first * slant + _each(math.sin, turn)), _each(math.cos, turn) - third * slant
    a, b, d, e = fourth / scale, -second / scale, -third / scale, first / scale
    moved_x, moved_y = center_x + shift_x, center_y + shift_y
    # + 0.0: no negative zero is left.
    c = 0.0 + (center_x - a * moved_x - b * moved_y)
    f = 0.0 + (center_y - d * moved_x - e * moved_y)
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
        solved[~is_flat] = _solved(equations[~is_flat], wanted)
    for index in np.flatnonzero(is_flat):
        with forks_wait(LINEAR_ALGEBRA):
            solved[index] = np.linalg.lstsq(equations[index], wanted, rcond=None)[0]
    # torchvision hands the solution on in float32, and Pillow computes with that in double.
    coefficients: np.ndarray = solved.astype(np.float32).astype(np.float64)
    return coefficients


def _solved(equations: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the eight coefficients of each projective map, of which a ninth is 1."""
    with forks_wait(LINEAR_ALGEBRA):
        try:
            return np.linalg.solve(equations, np.broadcast_to(wanted[:, None], (*equations.shape[:2], 1)))[..., 0]
        except np.linalg.LinAlgError:
            if len(equations) > 1:
                return np.concatenate([_solved(equation[None], wanted) for equation in equations])
        # The corner (0, 0) of the result looks at infinity: the ninth is 0. Against others as large as these, 1 is
        # that.
        endless: np.ndarray = np.linalg.svd(equations)[2][:, -1] * 2.0**40
    return endless


def _perspective(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        maps[:] = perspective(args, height, width).T


def _of_one_number(row: int, sign: int) -> Callable[[np.ndarray, np.ndarray, int, int], None]:
    def write(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
        maps[row] = args[:, 0] if sign > 0 else -args[:, 0]

    return write


def _flip_columns(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    maps[0], maps[2] = -1.0, width


def _flip_rows(maps: np.ndarray, args: np.ndarray, height: int, width: int) -> None:
    maps[4], maps[5] = -1.0, height


# Each writes what is not as in the identity.
_WRITE: dict[str, Callable[[np.ndarray, np.ndarray, int, int], None]] = {
    "ShearX": _of_one_number(1, 1),
    "ShearY": _of_one_number(3, 1),
    "TranslateX": _of_one_number(2, -1),
    "TranslateY": _of_one_number(5, -1),
    "Rotate": _rotate,
    "RotateAbout": _rotate_about,
    "Affine": _affine,
    "AffineAbout": _affine_about,
    "Perspective": _perspective,
    "HorizontalFlip": _flip_columns,
    "VerticalFlip": _flip_rows,
}
assert {step.name for step in STEPS if step.kind == "geometry"} == {*_WRITE}
