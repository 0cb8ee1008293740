"""The affine map on NumPy, as SciPy computes it: resampling at orders 0 and 1, and SciPy itself for splines.

Keras' conventions, its centre and its axis swap included, live in `inverse_maps`.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from gpuseq.base.forks import LINEAR_ALGEBRA, forks_wait
from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import COLUMNS

__all__ = ["inverse_maps", "is_warped", "scratch", "warp", "warp_spline"]

_AT_REST = {column.name: column.neutral for column in COLUMNS.groups["affine"]}
"""Column that the map is made of -> the number that leaves it alone."""

KEEP_BYTES = 8 << 20
"""Larger buffers are given back after use: one large image must not cost each thread its memory for good."""


# Fresh memory of the size of a group comes from the system, one page fault after another.
class _Scratch(threading.local):
    """Buffers that each thread keeps from one group to the next, unless they are large."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, Any], np.ndarray] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size, key = math.prod(shape), (name, dtype)
        if size * np.dtype(dtype).itemsize > KEEP_BYTES:
            return np.empty(shape, dtype)
        buffer = self.buffers.get(key)
        if buffer is None or buffer.size < size:
            buffer = self.buffers[key] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


scratch = _Scratch()


def inverse_maps(params: np.ndarray, height: int, width: int, conventions: str = "keras") -> np.ndarray:
    """Build the map from output pixel to source coordinate, for every sample at once.

    ``source = map[:, :2] @ (row, col) + map[:, 2]``. The matrices are multiplied as Keras multiplies them, through
    NumPy's BLAS, so that the two agree to the last bit: with ``fill_mode="constant"`` the last bit decides whether a
    whole row of pixels lies on the border or beyond it. The kernel writes the same products out with ``fma``.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`, on the host.
    height, width : int
        Size of the images in pixels.
    conventions : {"keras", "corrected"}
        "keras" turns non-square images about a point with the half-sizes exchanged and lets the height shift move
        columns, as Keras 3 does. "corrected" turns about the centre and lets the height shift move rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, 2, 3)``, float64, on the host; rows are (row, column) of the source.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.apply_affine_transform`` and ``transform_matrix_offset_center`` (Keras 3.15);
    the exchanged axes are reported in keras#17398.
    """
    num_samples = len(params)
    theta, shear = np.deg2rad(params["theta"]), np.deg2rad(params["shear"])
    swapped = conventions == "corrected"
    # Whole 3 x 3 matrices and real products, though most entries are 0 and 1: BLAS rounds as Keras' own `np.dot` does.
    rotation, shift, slant, zoom, forth, back = np.broadcast_to(np.eye(3), (6, num_samples, 3, 3)).copy()
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(theta)
    rotation[:, 1, 0] = np.sin(theta)
    rotation[:, 0, 1] = -rotation[:, 1, 0]
    shift[:, 0, 2], shift[:, 1, 2] = params["ty" if swapped else "tx"], params["tx" if swapped else "ty"]
    slant[:, 0, 1], slant[:, 1, 1] = -np.sin(shear), np.cos(shear)
    zoom[:, 0, 0], zoom[:, 1, 1] = params["zx"], params["zy"]
    # Half a pixel less than half the side, as Keras 3 has it; keras-preprocessing 1.1 adds it and differs.
    center = np.array([width, height] if swapped else [height, width]) / 2 - 0.5
    forth[:, :2, 2], back[:, :2, 2] = center, -center
    with forks_wait(LINEAR_ALGEBRA):
        centered = forth @ (rotation @ shift @ slant @ zoom) @ back
    # Keras exchanges the two axes of the finished matrix where the column axis follows the row axis, which it always
    # does here.
    return np.ascontiguousarray(centered[:, [1, 0]][:, :, [1, 0, 2]])


def is_warped(params: np.ndarray) -> np.ndarray:
    """Tell which samples are resampled, by the drawn numbers and not by the map: a turn by 360 degrees is, as in Keras.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)``, bool.
    """
    warped = np.zeros(len(params), bool)
    for name, neutral in _AT_REST.items():
        warped |= params[name] != neutral
    return warped


def warp_spline(images: np.ndarray, params: np.ndarray, options: AugmentOptions) -> np.ndarray:
    """Warp by splines of order 2 to 5, one SciPy call per plane, and nothing else: the first pass of two.

    Parameters
    ----------
    images : numpy.ndarray
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.source_format` says. Not written to.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`. Only the affine fields are used.
    options : AugmentOptions
        Order, fill mode, `cval`, conventions and dtype are used.

    Returns
    -------
    numpy.ndarray
        Same shape and axis order as `images`, in the compute dtype; uint8 with `options.round_affine`.

    Raises
    ------
    MissingDependencyError
        If SciPy is not installed.

    References
    ----------
    ``scipy.ndimage.affine_transform``.
    """
    from gpuseq.base.errors import require

    ndimage = require("scipy.ndimage", extra="splines", purpose=f"interpolation_order={options.order}")
    channel_axis = 3 if options.source_format == "channels_last" else 1
    planes_nchw = np.moveaxis(images, channel_axis, 1)
    out = images.astype(np.uint8 if options.round_affine else options.compute_dtype)
    out_nchw = np.moveaxis(out, channel_axis, 1)
    num_channels, height, width = planes_nchw.shape[1:]
    maps = inverse_maps(params, height, width, options.conventions)
    moving = np.flatnonzero(is_warped(params))

    def warp_one(task: int) -> None:
        sample, channel = moving[task // num_channels], task % num_channels
        # Cast first: Keras hands SciPy images in the compute dtype, which the output then has.
        plane = planes_nchw[sample, channel].astype(out.dtype, copy=False)
        ndimage.affine_transform(
            plane,
            maps[sample, :, :2],
            maps[sample, :, 2],
            output=out_nchw[sample, channel],
            order=options.order,
            mode=options.fill_mode,
            cval=options.cval,
        )

    for_each(warp_one, len(moving) * num_channels, cpu_count())
    return out


def warp(
    source_nchw: np.ndarray,
    work_nchw: np.ndarray,
    moving: np.ndarray,
    maps_n23: np.ndarray,
    params: np.ndarray,
    options: AugmentOptions,
    group_pixels: int,
) -> None:
    """Resample the samples `moving` of a group into `work_nchw`, flips included.

    Arithmetic and order of operations are SciPy's (>= 1.16) ``ndimage.affine_transform`` at orders 0 and 1, in double:
    equal to the last bit. The border is one pixel of edge values around each plane, so the four taps of a pixel are
    one index into four shifted views of one flat buffer.
    """
    _, num_channels, height, width = source_nchw.shape
    num_moving = len(moving)
    padded_width = width + 2
    plane_size = (height + 2) * padded_width
    # Two spare rows let the shifted views start one row and one column late without running off the end.
    flat = scratch("padded", (num_channels, num_moving * plane_size + padded_width + 1), np.float64)
    padded = flat[:, : num_moving * plane_size].reshape(num_channels, num_moving, height + 2, padded_width)
    inner = source_nchw if num_moving == len(source_nchw) else source_nchw[moving]
    padded[:, :, 1:-1, 1:-1] = inner.transpose(1, 0, 2, 3)
    padded[:, :, 0, 1:-1], padded[:, :, -1, 1:-1] = padded[:, :, 1, 1:-1], padded[:, :, -2, 1:-1]
    padded[:, :, :, 0], padded[:, :, :, -1] = padded[:, :, :, 1], padded[:, :, :, -2]

    out_row, out_col = _out_coordinates(params[moving], height, width)
    linear = maps_n23[moving]
    # (offset + row term) + column term, in this order: SciPy has added the offset first since 1.16, and at quarter
    # turns another order moves whole pixels. The first sum is the same for a row and the second term for a column.
    by_row = [linear[:, axis, 2, None] + out_row * linear[:, axis, 0, None] for axis in (0, 1)]
    by_col = [out_col * linear[:, axis, 1, None] for axis in (0, 1)]
    # Where each plane's pixel (0, 0) lies: one row and one column of border come before it.
    starts = np.arange(num_moving) * plane_size + padded_width + 1.0
    # So many rows that the ten or so buffers of `_warp_band` stay in the cache.
    # In bands 224 x 224 takes 1.48 ms for 1.66, and 512 x 512 takes 8.2 ms for 12.9.
    band = max(1, group_pixels // max(1, num_moving * width))
    for top in range(0, height, band):
        rows = slice(top, min(top + band, height))
        coordinates = [(row_part[:, rows], col_part) for row_part, col_part in zip(by_row, by_col, strict=True)]
        total = _warp_band(flat, padded_width, starts, coordinates, height, options)
        # Without the index array this is one strided copy.
        if num_moving == len(work_nchw):
            np.copyto(work_nchw[:, :, rows], total.transpose(1, 0, 2, 3), casting="same_kind")
        else:
            work_nchw[moving, :, rows] = total.transpose(1, 0, 2, 3)


def _warp_band(
    flat: np.ndarray,
    padded_width: int,
    starts: np.ndarray,
    coordinates: list[tuple[np.ndarray, np.ndarray]],
    height: int,
    options: AugmentOptions,
) -> np.ndarray:
    """Interpolate a band of rows of some samples: shape ``(C, N, rows, W)``, float64, in scratch memory.

    A source coordinate is the sum of what its row gives, ``(N, rows)``, and what its column gives, ``(N, W)``.
    """
    num_channels, width = len(flat), padded_width - 2
    shape = (*coordinates[0][0].shape, width)
    row_coord, col_coord, row_base, col_base = (scratch(f"coord{k}", shape, np.float64) for k in range(4))
    outside = None
    for coord, size, (row_part, col_part) in zip((row_coord, col_coord), (height, width), coordinates, strict=True):
        np.add(row_part[:, :, None], col_part[:, None, :], out=coord)
        beyond = _fold(coord, size, options.fill_mode)
        if beyond is not None:
            outside = beyond if outside is None else outside | beyond

    # Order 0 takes the pixel at floor(c + 0.5), which is not round(c) at ties.
    if options.order == 0:
        row_coord += 0.5
        col_coord += 0.5
    np.floor(row_coord, out=row_base)
    np.floor(col_coord, out=col_base)
    if options.order == 1:
        row_coord -= row_base
        col_coord -= col_base
    if options.fill_mode == "nearest":
        # Beyond the border both taps are the edge pixel, and their weights still sum to one only up to rounding.
        np.clip(row_base, -1.0, height - 1.0, out=row_base)
        np.clip(col_base, -1.0, width - 1.0, out=col_base)
    row_base *= padded_width
    row_base += col_base
    row_base += starts[:, None, None]
    first = scratch("index", shape, np.intp)
    # The index was computed in double, which holds it exactly, so that one cast is enough.
    np.copyto(first, row_base, casting="unsafe")

    total = scratch("total", (num_channels, *shape), np.float64)
    # Measured otherwise: one `take` for all channels gave 672 images a second for 720 with one thread; two taps in one
    # `take`, as complex numbers, and RGBX packed into 64 bits gained nothing; `take` along an axis of a sliced buffer
    # takes 2 to 5 times as long, because it copies first.
    for channel in range(num_channels):  # a plane at a time: `take` copies what is not contiguous
        flat[channel].take(first, out=total[channel], mode="clip")
    if options.order == 1:
        tap = scratch("tap", (num_channels, *shape), np.float64)
        # 1 - (1 - f) is not f to the last bit, and SciPy takes the former.
        row_weights = (np.subtract(1.0, row_coord, out=row_base), np.subtract(1.0, row_base, out=row_coord))
        col_weights = (np.subtract(1.0, col_coord, out=col_base), np.subtract(1.0, col_base, out=col_coord))
        # (value * row weight) * column weight, summed tap by tap: SciPy's order.
        total *= row_weights[0]
        total *= col_weights[0]
        for row_tap, col_tap in ((0, 1), (1, 0), (1, 1)):
            for channel in range(num_channels):
                flat[channel, row_tap * padded_width + col_tap :].take(first, out=tap[channel], mode="clip")
            tap *= row_weights[row_tap]
            tap *= col_weights[col_tap]
            total += tap
    if outside is not None:
        np.copyto(total, options.cval, where=outside)
    if options.round_affine:
        total += 0.5
        np.clip(total, 0, 255, out=total)
        np.floor(total, out=total)
    return total


def _out_coordinates(params: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each output pixel before the flips, shapes (N, H) and (N, W)."""
    row, col = np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64)
    flip_row, flip_col = params["flip_vertical"][:, None] != 0, params["flip_horizontal"][:, None] != 0
    return np.where(flip_row, row[::-1], row), np.where(flip_col, col[::-1], col)


def _fold(coord: np.ndarray, size: int, fill_mode: str) -> np.ndarray | None:
    """Bring coordinates outside [0, size - 1] back in place; return where the pixel is `cval` instead, or None.

    References
    ----------
    ``map_coordinate`` of SciPy's ``ni_interpolation.c``, which these formulas follow.
    """
    last = size - 1.0
    if fill_mode == "nearest":
        return None  # the taps are held at the border, not the coordinate
    # An affine map takes its extremes at the corners, so four values tell whether any pixel needs folding.
    corners = coord[:, :: max(1, coord.shape[1] - 1), :: max(1, coord.shape[2] - 1)]
    if corners.min() >= 0 and corners.max() <= last:
        return None
    if fill_mode == "constant":
        outside: np.ndarray = ~((coord >= 0) & (coord <= last))
        np.clip(coord, 0.0, last, out=coord)
        return outside
    # Both masks before anything is written: a coordinate that was folded from below must not be folded again.
    below, above = coord < 0, coord > last
    if size <= 1:
        coord[below | above] = 0
        return None
    low, high = coord[below], coord[above]
    if fill_mode == "reflect":
        period = 2.0 * size
        low = np.where(low < -period, low + period * np.trunc(-low / period), low)
        coord[below] = np.where(low < -size, low + period, np.where(low > -1e-15, 1e-15, -low) - 1)
        high -= period * np.trunc(high / period)
        coord[above] = np.where(high >= size, period - high - 1, high)
    else:  # wrap, whose period is size - 1 in SciPy
        coord[below] = low + last * (np.trunc(-low / last) + 1)
        coord[above] = high - last * np.trunc(high / last)
    return None
