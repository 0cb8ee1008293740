"""Steps that send each level to a level: tables of 256, made on the host for every engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "LEVELS",
    "autocontrast_table",
    "blend",
    "contrast_table",
    "equalize_table",
    "luminance",
    "table",
    "tables_of",
]

LEVELS = np.arange(256)
"""All levels, int64."""

_IDENTITY = LEVELS.astype(np.uint8)
# A product with the rounded quotient and not a division: torchvision's conversion to float, to the bit.
_PER_LEVEL = np.float32(1 / 255)


def blend(low: np.ndarray, high: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """Return ``low + factor (high - low)`` in float32, cut off at 0 and 255 and truncated.

    Parameters
    ----------
    low, high : array
        Levels, signed integers.
    factor : float or numpy.ndarray
        0 is `low`, 1 is `high`, beyond them extrapolates. An array, float32, is spread over the levels.

    Returns
    -------
    numpy.ndarray
        uint8.

    References
    ----------
    Pillow's ``Image.blend``.
    """
    # The difference is taken in integers and exact; product and sum are rounded one by one, because Pillow's C does not
    # fuse them. The cast truncates, as Pillow's does.
    mixed = (factor if isinstance(factor, np.ndarray) else np.float32(factor)) * (high - low).astype(np.float32)
    mixed += low.astype(np.float32)
    levels: np.ndarray = np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)
    return levels


def luminance(image: np.ndarray) -> np.ndarray:
    """Return Pillow's "L" of RGB levels: the last axis holds the channels.

    References
    ----------
    Pillow's ``Image.convert("L")``: ITU-R 601-2 in 16 bits of fraction.
    """
    # The largest sum is 65,536 times 255 and a half, which int32 holds.
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def table(name: str, args: Sequence[float]) -> np.ndarray:
    """Return the table of a step that needs no look at the image: shape ``(256,)``, uint8. As `tables_of` of one."""
    levels: np.ndarray = tables_of(name, np.array([[*args, 0.0][:2]], np.float64))[0]
    return levels


def tables_of(name: str, args: np.ndarray) -> np.ndarray:
    """Return the tables of steps that need no look at the image.

    Parameters
    ----------
    name : str
        Of the steps.
    args : numpy.ndarray
        Shape ``(T, 2)``, float64: their arguments.

    Returns
    -------
    numpy.ndarray
        Shape ``(T, 256)``, uint8.

    References
    ----------
    Pillow's ``ImageEnhance.Brightness``, ``ImageOps.posterize``, ``solarize`` and ``invert``; timm's ``solarize_add``;
    ``torchvision.transforms.v2.functional.adjust_gamma`` of tensors.
    """
    first, second = args[:, :1], args[:, 1:2]
    if name == "Brightness":
        return blend(np.array(0), LEVELS, first.astype(np.float32))
    if name == "Posterize":
        return _IDENTITY & (256 - (1 << (8 - first.astype(np.int64)))).astype(np.uint8)
    # The threshold may be a fraction: torchvision's bins are. So it is compared and not cast.
    if name == "Solarize":
        return np.where(first > LEVELS, _IDENTITY, 255 - _IDENTITY)
    if name == "SolarizeAdd":
        lighter = np.minimum(255, LEVELS + first.astype(np.int64))
        return np.where(second > LEVELS, lighter, LEVELS).astype(np.uint8)
    if name == "Invert":
        return np.repeat(255 - _IDENTITY[None], len(args), axis=0)
    assert name == "Gamma", name
    # Made here and nowhere else: `pow` of a device or another library rounds otherwise. 255.999 is torchvision's: so
    # 1.0 becomes 255, and the shares before it their own level.
    shares = np.power(LEVELS.astype(np.float32) * _PER_LEVEL, first.astype(np.float32)) * second.astype(np.float32)
    levels: np.ndarray = (np.clip(shares, 0, 1) * np.float32(255.999)).astype(np.uint8)
    return levels


def contrast_table(luminances: int, num_pixels: int, factor: float) -> np.ndarray:
    """Return the table of a contrast step.

    Parameters
    ----------
    luminances : int
        Sum of the image's.
    num_pixels : int
        How many.
    factor : float
        0 is grey, 1 changes nothing.

    References
    ----------
    Pillow's ``ImageEnhance.Contrast``.
    """
    # Pillow's mean is an integer of integer luminances, so the order in which an engine adds them does not matter.
    middle = int(luminances / num_pixels + 0.5)
    return blend(np.array(middle), LEVELS, factor)


def autocontrast_table(histogram: np.ndarray) -> np.ndarray:
    """Return the table that stretches one channel to 0 to 255.

    Parameters
    ----------
    histogram : numpy.ndarray
        Shape ``(256,)``, integers.

    References
    ----------
    Pillow's ``ImageOps.autocontrast``.
    """
    used = np.flatnonzero(histogram)
    low, high = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    if high <= low:
        return _IDENTITY
    scale = 255.0 / (high - low)
    # In double and in this form, `i * scale + (-low * scale)`: Pillow's, of which the last bit decides where it
    # truncates.
    stretched = np.trunc(LEVELS * scale + -low * scale)
    levels: np.ndarray = np.clip(stretched, 0, 255).astype(np.uint8)
    return levels


def equalize_table(histogram: np.ndarray) -> np.ndarray:
    """Return the table that flattens one channel's histogram.

    Parameters
    ----------
    histogram : numpy.ndarray
        Shape ``(256,)``, integers.

    References
    ----------
    Pillow's ``ImageOps.equalize``.
    """
    used = np.flatnonzero(histogram)
    if len(used) < 2:
        return _IDENTITY
    # The pixels of the last level do not count for the step, as in Pillow: so that level lands at the top.
    step = int(histogram.sum() - histogram[used[-1]]) // 255
    if step == 0:
        return _IDENTITY
    # How many pixels lie below each level, itself not counted.
    below = np.cumsum(histogram) - histogram
    levels: np.ndarray = np.minimum(255, (step // 2 + below) // step).astype(np.uint8)
    return levels
