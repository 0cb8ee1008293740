"""Pillow's resize on NumPy, from the tables that the kernel reads too: its oracle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.resample import PRECISION_BITS, line_table, nearest_indices, vertical_first

__all__ = ["premultiply", "resize", "resize_one", "unpremultiply"]

HALF = 1 << (PRECISION_BITS - 1)


def resize(
    images: Sequence[np.ndarray],
    target_size: tuple[int, int],
    interpolation: str,
    *,
    boxes: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """NumPy twin of `gpuseq.ops.dispatch.resize`; the contract is written there."""
    if out is None:
        out = np.empty((len(images), *target_size, images[0].shape[2]), np.uint8)

    def work_on(sample: int) -> None:
        image = images[sample]
        height, width, _ = image.shape
        box = (0.0, 0.0, float(width), float(height)) if boxes is None else tuple(map(float, boxes[sample]))
        out[sample] = resize_one(image, target_size, interpolation, box)

    for_each(work_on, len(images), cpu_count())
    return out


def resize_one(
    image_hwc: np.ndarray,
    target_size: tuple[int, int],
    interpolation: str,
    box: tuple[float, ...] | None = None,
) -> np.ndarray:
    """Resize one image, or the part of it within `box` (left, upper, right, lower), which is read beyond its rim."""
    (height, width, channels), (target_height, target_width) = image_hwc.shape, target_size
    left, upper, right, lower = box or (0.0, 0.0, float(width), float(height))
    whole = (left, upper, right, lower) == (0.0, 0.0, float(width), float(height))
    # Pillow returns a copy here; nothing writes to what this returns.
    if whole and (height, width) == target_size:
        return image_hwc
    if interpolation == "nearest":
        rows = nearest_indices(height, target_height, upper, lower)
        cols = nearest_indices(width, target_width, left, right)
        return image_hwc.take(rows, axis=0).take(cols, axis=1)

    # A pass whose size does not change is left out, as in Pillow. With a box it is made although the sizes agree.
    passes = []
    if target_width != width or (left, right) != (0.0, width):
        passes.append((1, (width, target_width, interpolation, left, right)))
    if target_height != height or (upper, lower) != (0.0, height):
        passes.append((0, (height, target_height, interpolation, upper, lower)))
    if vertical_first(height, width, target_size):
        passes.reverse()
    # Not for nearest, which mixes no pixels.
    has_alpha = channels in (2, 4)
    pixels = premultiply(image_hwc) if has_alpha else image_hwc
    for axis, key in passes:
        pixels = _resample(pixels, axis, key)
    return unpremultiply(pixels) if has_alpha else pixels


def _resample(pixels_hwc: np.ndarray, axis: int, key: tuple[int, int, str, float, float]) -> np.ndarray:
    """Resize one axis: a weighted sum of gathered lines in int32, rounded and saturated to uint8."""
    table = line_table(*key)
    last = pixels_hwc.shape[axis] - 1
    shape = list(pixels_hwc.shape)
    shape[axis] = len(table.first)
    # int32 is enough: the largest sum seen is 1.37e9. It begins at a half, so that the shift rounds.
    total = np.full(shape, HALF, np.int32)
    along = (slice(None), None, None) if axis == 0 else (slice(None), None)
    for tap, weights in enumerate(table.weights):
        # A tap past the end of the line has weight 0, and reads the last pixel so as to read one that is there.
        lines = pixels_hwc.take(np.minimum(table.first + tap, last), axis=axis)
        total += lines.astype(np.int32) * weights[along]
    # Arithmetic, as in C: bicubic and Lanczos weights are negative in part. The result is uint8 between the passes,
    # too.
    total >>= PRECISION_BITS
    return np.clip(total, 0, 255, out=total).astype(np.uint8)


def premultiply(pixels_hwc: np.ndarray) -> np.ndarray:
    """Multiply the colours by alpha, which is the last channel, as Pillow's 8-bit ``MULDIV255`` does."""
    premultiplied = pixels_hwc.copy()
    product = pixels_hwc[..., :-1].astype(np.int32) * pixels_hwc[..., -1:] + 128
    premultiplied[..., :-1] = ((product >> 8) + product) >> 8
    return premultiplied


def unpremultiply(pixels_hwc: np.ndarray) -> np.ndarray:
    """Divide the colours by alpha, saturating; where alpha is 0 or 255 they stay."""
    straight = pixels_hwc.copy()
    alpha = pixels_hwc[..., -1:].astype(np.int32)
    quotient = np.minimum(255 * pixels_hwc[..., :-1].astype(np.int32) // np.maximum(alpha, 1), 255)
    straight[..., :-1] = np.where((alpha == 0) | (alpha == 255), pixels_hwc[..., :-1], quotient)
    return straight
