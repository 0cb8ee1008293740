"""Steps that send each level to a level: tables of 256, made on the host for every engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["LEVELS", "autocontrast_table", "blend", "contrast_table", "equalize_table", "luminance", "table"]

LEVELS = np.arange(256)
"""All levels, int64."""

_IDENTITY = LEVELS.astype(np.uint8)
# A product with the rounded quotient and not a division: torchvision's conversion to float, to the bit.
_PER_LEVEL = np.float32(1 / 255)


def blend(low: np.ndarray, high: np.ndarray, factor: float) -> np.ndarray:
    """Return ``low + factor (high - low)`` in float32, cut off at 0 and 255 and truncated.

    Parameters
    ----------
    low, high : array
        Levels, signed integers.
    factor : float
        0 is `low`, 1 is `high`, beyond them extrapolates.

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
    mixed = np.float32(factor) * (high - low).astype(np.float32)
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
    """Return the table of a step that needs no look at the image.

    Parameters
    ----------
    name : str
        Of the step.
    args : sequence of float
        Its arguments.

    Returns
    -------
    numpy.ndarray
        Shape ``(256,)``, uint8.

    References
    ----------
    Pillow's ``ImageEnhance.Brightness``, ``ImageOps.posterize``, ``solarize`` and ``invert``; timm's ``solarize_add``;
    ``torchvision.transforms.v2.functional.adjust_gamma`` of tensors.
    """
    return _TABLES[name](args)


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


def _solarize(threshold: float) -> np.ndarray:
    # The threshold may be a fraction: torchvision's bins are. So it is compared and not cast.
    return np.where(threshold > LEVELS, LEVELS, 255 - LEVELS).astype(np.uint8)


def _solarize_add(addition: float, threshold: float) -> np.ndarray:
    return np.where(threshold > LEVELS, np.minimum(255, LEVELS + int(addition)), LEVELS).astype(np.uint8)


def _gamma(gamma: float, gain: float) -> np.ndarray:
    # Made here and nowhere else: `pow` of a device or another library rounds otherwise. 255.999 is torchvision's, so
    # that 1.0 becomes 255 and the shares before it their own level.
    shares = np.power(LEVELS.astype(np.float32) * _PER_LEVEL, np.float32(gamma)) * np.float32(gain)
    levels: np.ndarray = (np.clip(shares, 0, 1) * np.float32(255.999)).astype(np.uint8)
    return levels


_TABLES: dict[str, Callable[[Sequence[float]], np.ndarray]] = {
    "Brightness": lambda args: blend(np.array(0), LEVELS, args[0]),
    "Posterize": lambda args: (LEVELS & ~((1 << (8 - int(args[0]))) - 1)).astype(np.uint8),
    "Solarize": lambda args: _solarize(args[0]),
    "SolarizeAdd": lambda args: _solarize_add(args[0], args[1]),
    "Invert": lambda args: (255 - LEVELS).astype(np.uint8),
    "Gamma": lambda args: _gamma(args[0], args[1]),
}
