"""Geometric steps of the NumPy engine, as Pillow does them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuseq.ops.maps import coefficients, fits_fixed_point, is_projective, summed_positions

from .resize import premultiply, unpremultiply

__all__ = ["move"]


def move(image_hwc: np.ndarray, name: str, args: Sequence[float], bilinear: bool, fill: np.ndarray) -> np.ndarray:
    """Return an image after a geometric step.

    Parameters
    ----------
    image_hwc : numpy.ndarray
        Shape ``(H, W, C)``, uint8.
    name : str
        Of the step.
    args : sequence of float
        Its arguments.
    bilinear : bool
        Whether pixels between pixels are read; else the nearest is taken.
    fill : numpy.ndarray
        Shape ``(4,)``, uint8: the level of each channel where no pixel comes from; the first for more channels.

    Returns
    -------
    numpy.ndarray
        The shape of `image_hwc`, new or a view.

    References
    ----------
    Pillow's ``Image.transform`` with ``AFFINE`` and ``PERSPECTIVE``.
    """
    if name == "HorizontalFlip":
        return image_hwc[:, ::-1]
    if name == "VerticalFlip":
        return image_hwc[::-1]
    height, width, channels = image_hwc.shape
    quarters, rest = divmod(args[0] % 360.0, 90.0) if name == "Rotate" else (0.0, 1.0)
    if rest == 0 and (quarters % 2 == 0 or height == width):
        return np.rot90(image_hwc, int(quarters))  # as Pillow: whole pixels, whatever alpha is
    matrix = coefficients(name, args, height, width)
    filling = fill[:channels] if channels <= len(fill) else np.full(channels, fill[0])
    has_alpha = channels in (2, 4)
    if not bilinear:
        if is_projective(name):
            rows, cols = _floors(*_positions(matrix, height, width))
        else:
            # Affine and projective maps differ at nearest: Pillow counts the former in fixed point.
            rows, cols = _nearest(matrix, height, width)
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        # Pixels outside read pixel (0, 0), which is there, and are filled afterwards.
        moved = image_hwc[np.where(inside, rows, 0), np.where(inside, cols, 0)]
        moved[~inside] = filling
        return moved
    # As Pillow: the colour of a transparent pixel has no part in its neighbours.
    source = premultiply(image_hwc) if has_alpha else image_hwc
    moved = _bilinear(source, *_positions(matrix, height, width), filling)
    return unpremultiply(moved) if has_alpha else moved


def _positions(matrix: Sequence[float], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return source rows and columns, float64 of shape ``(H, W)``; each product and sum is rounded by itself."""
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    a, b, c, d, e, f = matrix[:6]
    # The horizon of a projective map lies at infinity, and so may what a tiny scale reads: outside of the image.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        cols, rows = a * x + b * y + c, d * x + e * y + f
        if len(matrix) > 6:
            depth = matrix[6] * x + matrix[7] * y + 1
            cols, rows = cols / depth, rows / depth
    return rows, cols


def _floors(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels that positions lie in; far ones stay far outside, whatever an integer holds."""
    far = 2.0**30
    row_at, col_at = (np.floor(np.clip(np.nan_to_num(at, nan=-far), -far, far)).astype(np.int64) for at in (rows, cols))
    return row_at, col_at


def _nearest(matrix: Sequence[float], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return source rows and columns of an affine map, int64, by the one of Pillow's three loops that it would take."""
    a, b, c, d, e, f = matrix
    if b == 0 and d == 0:
        # Positions are summed up along each axis.
        cols = _steps(c + a * 0.5, a, width)
        rows = _steps(f + e * 0.5, e, height)
        row_at, col_at = np.broadcast_arrays(*_floors(rows[:, None], cols[None]))
        return row_at, col_at
    # In integers, so the order of the sums does not matter, and the shift is a floor, of negative numbers too.
    if fits_fixed_point(matrix, height, width):
        x, y = np.arange(width), np.arange(height)[:, None]
        cols = _fixed(c + a * 0.5 + b * 0.5) + x * _fixed(a) + y * _fixed(b)
        rows = _fixed(f + d * 0.5 + e * 0.5) + x * _fixed(d) + y * _fixed(e)
        return rows >> 16, cols >> 16
    return _floors(*summed_positions(matrix, height, width))


def _fixed(value: float) -> int:
    return int(np.floor(value * 65536.0 + 0.5))


def _steps(start: float, step: float, count: int) -> np.ndarray:
    """Return ``start``, ``start + step``, ..., each the rounded sum of the one before and the step."""
    values = np.full(count, step)
    values[0] = start
    sums: np.ndarray = np.add.accumulate(values)
    return sums


def _bilinear(image_hwc: np.ndarray, rows: np.ndarray, cols: np.ndarray, filling: np.ndarray) -> np.ndarray:
    """Blend the four pixels around each position in double and truncate."""
    height, width, _ = image_hwc.shape
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    row_at, col_at = np.where(inside, rows, 0) - 0.5, np.where(inside, cols, 0) - 0.5
    row, col = np.floor(row_at).astype(np.int64), np.floor(col_at).astype(np.int64)
    below, right = (row_at - row)[..., None], (col_at - col)[..., None]
    # Pillow tests the position and holds the taps at the border: no blend with the fill. An inside position has its
    # first tap at -1 or later, and its second at the border's other side at most.
    upper, lower = np.maximum(row, 0), np.minimum(row + 1, height - 1)
    left_col, right_col = np.maximum(col, 0), np.minimum(col + 1, width - 1)

    def along_row(at: np.ndarray) -> np.ndarray:
        left = image_hwc[at, left_col].astype(np.float64)
        # This form: weights times pixels, added up, truncates constant areas a level down.
        blended: np.ndarray = left + (image_hwc[at, right_col] - left) * right
        return blended

    top = along_row(upper)
    moved: np.ndarray = (top + (along_row(lower) - top) * below).astype(np.uint8)
    moved[~inside] = filling
    return moved
