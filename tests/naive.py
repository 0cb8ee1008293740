"""Slow and obvious twins of the ops: one sample, one plane, one matrix at a time, by SciPy and Pillow themselves."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from gpuseq.ops.options import AugmentOptions, Statistics

__all__ = ["affine_image", "affine_matrix", "augment", "brighten_image", "standardize_image"]


def affine_matrix(row: np.void, height: int, width: int, conventions: str = "keras") -> np.ndarray | None:
    """Return the 3x3 map from output (row, column) to source, or None where nothing moves.

    "keras" multiplies Keras' matrices in (x, y), centres them at (height, width) and exchanges the axes; "corrected"
    centres at (width, height) and reads tx as rows.
    """
    theta, shear = np.deg2rad(row["theta"]), np.deg2rad(row["shear"])
    still = row["theta"] == 0 and row["shear"] == 0 and row["tx"] == 0 and row["ty"] == 0
    if still and row["zx"] == 1 and row["zy"] == 1:
        return None
    first, second = (row["tx"], row["ty"]) if conventions == "keras" else (row["ty"], row["tx"])
    rotation = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    shift = np.array([[1, 0, first], [0, 1, second], [0, 0, 1]])
    slant = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([row["zx"], row["zy"], 1.0])
    center = (height / 2 - 0.5, width / 2 - 0.5) if conventions == "keras" else (width / 2 - 0.5, height / 2 - 0.5)
    there = np.array([[1, 0, center[0]], [0, 1, center[1]], [0, 0, 1]])
    back = np.array([[1, 0, -center[0]], [0, 1, -center[1]], [0, 0, 1]])
    exchange = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    # Multiplied in Keras' order, so that even the last bits are its.
    return exchange @ (there @ (rotation @ shift @ slant @ zoom) @ back) @ exchange


def affine_image(image_hwc: np.ndarray, matrix: np.ndarray | None, options: AugmentOptions, order: int) -> np.ndarray:
    """Resample one image plane by plane, in its own dtype."""
    from scipy import ndimage

    if matrix is None:
        return image_hwc
    planes = [
        ndimage.affine_transform(
            image_hwc[..., channel],
            matrix[:2, :2],
            matrix[:2, 2],
            order=order,
            mode=options.fill_mode,
            cval=options.cval,
        )
        for channel in range(image_hwc.shape[-1])
    ]
    return np.stack(planes, axis=-1)


def brighten_image(image_hwc: np.ndarray, factor: float) -> np.ndarray:
    """Let Pillow brighten one image of 1, 3 or 4 channels, scaled to 0..255 and back where it does not fit."""
    low, high = image_hwc.min(), image_hwc.max()
    levels = image_hwc.astype(np.float32)
    stretched = bool(low < 0 or high > 255)
    if stretched:
        levels = levels - levels.min()
        if levels.max() != 0:
            levels = levels / levels.max()
        levels = levels * 255
    as_bytes = levels.astype(np.uint8)
    picture = Image.fromarray(as_bytes[..., 0] if as_bytes.shape[-1] == 1 else as_bytes)
    brighter = np.asarray(ImageEnhance.Brightness(picture).enhance(factor)).reshape(image_hwc.shape)
    brighter = brighter.astype(image_hwc.dtype)
    return brighter / 255 * (high - low) + low if stretched else brighter


def standardize_image(
    image_hwc: np.ndarray, options: AugmentOptions, statistics: Statistics | None, mode_done: bool = False
) -> np.ndarray:
    """Preprocessing mode, rescale, samplewise and featurewise steps on one floating image."""
    x = image_hwc
    if options.preprocessing == "tf":
        x = x / 127.5 - 1
    elif options.preprocessing == "torch":
        x = (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    elif options.preprocessing == "caffe":
        x = x[..., ::-1] - np.array([103.939, 116.779, 123.68])
    x = x * options.rescale
    if options.samplewise_center:
        x = x - x.mean()
    if options.samplewise_std:
        x = x / (x.std() + 1e-6)
    if options.featurewise_center and statistics is not None and statistics.mean is not None:
        x = x - statistics.mean
    if options.featurewise_std and statistics is not None and statistics.std is not None:
        x = x / (statistics.std + 1e-6)
    return x


def augment(
    images: np.ndarray,
    params: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
) -> np.ndarray:
    """Do to a batch what `gpuseq.ops.dispatch.augment` does, one sample after another."""
    batch = []
    for number, row in enumerate(params):
        image = images[number if indices is None else indices[number]]
        image_hwc = image if options.source_format == "channels_last" else image.transpose(1, 2, 0)
        height, width, _ = image_hwc.shape
        x = image_hwc if options.round_affine else image_hwc.astype(options.compute_dtype)
        if options.has_affine:
            x = affine_image(x, affine_matrix(row, height, width, options.conventions), options, options.order)
        x = x.astype(options.compute_dtype)
        if options.has_channel_shift and not np.isnan(row["channel_shift_intensity"]):
            x = np.clip(x + options.compute_dtype.type(row["channel_shift_intensity"]), x.min(), x.max())
        if options.has_flip and row["flip_horizontal"]:
            x = x[:, ::-1]
        if options.has_flip and row["flip_vertical"]:
            x = x[::-1]
        if options.has_brightness and not np.isnan(row["brightness"]):
            x = brighten_image(x, float(row["brightness"]))
        x = standardize_image(x, options, statistics)
        if options.dtype == "uint8":
            x = np.trunc(np.clip(x, 0, 255))
        batch.append(x if options.data_format == "channels_last" else x.transpose(2, 0, 1))
    return np.stack(batch).astype(options.dtype)
