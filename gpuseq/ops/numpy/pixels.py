"""Steps of the NumPy engine that look at one pixel's channels, or at those around it."""

from __future__ import annotations

import numpy as np

from gpuseq.ops.levels import blend, luminance
from gpuseq.ops.weights import gaussian_weights

__all__ = ["gaussian_blur", "permute", "recolour", "rotate_hue", "sharpen"]

_PER_LEVEL = np.float32(1 / 255)
_SIXTH = np.float32(1 / 6)
_ONE = np.float32(1)


def recolour(image_hwc: np.ndarray, factor: float) -> np.ndarray:
    """Blend an RGB image with its luminance: Pillow's ``ImageEnhance.Color``; factor 0 is ``convert("L")``.

    Parameters
    ----------
    image_hwc : numpy.ndarray
        Shape ``(H, W, 3)``, uint8.
    factor : float
        0 is grey, 1 changes nothing.
    """
    grey = luminance(image_hwc)[..., None]
    if factor == 0:
        # Pillow's blend returns its first image at 0.
        return np.repeat(grey.astype(np.uint8), 3, axis=2)
    return blend(grey, image_hwc.astype(np.int32), factor)


def permute(image_hwc: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Return the channels in another order: torchvision's ``permute_channels``."""
    return image_hwc[..., list(order)]


def rotate_hue(image_hwc: np.ndarray, shift: float) -> np.ndarray:
    """Turn an RGB image's hue by a share of the colour circle, in float32.

    Parameters
    ----------
    image_hwc : numpy.ndarray
        Shape ``(H, W, 3)``, uint8.
    shift : float
        Turns, -0.5 to 0.5.

    References
    ----------
    ``torchvision.transforms.v2.functional.adjust_hue`` of tensors; Smith, "Color gamut transform pairs", 1978.
    """
    red, green, blue = (image_hwc[..., channel].astype(np.float32) * _PER_LEVEL for channel in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    is_grey = most == least
    spread = most - least
    # Divisors of grey pixels are 1, which gives 0 and no warning: their hue is never seen.
    saturation = spread / np.where(is_grey, _ONE, most)
    divisor = np.where(is_grey, _ONE, spread)
    from_red, from_green, from_blue = ((most - colour) / divisor for colour in (red, green, blue))
    # Sixths of the circle from red; each sum is rounded in this order.
    sixths = np.where(
        most == red,
        from_blue - from_green,
        np.where(most == green, from_red + np.float32(2) - from_blue, from_green + np.float32(4) - from_red),
    )
    hue = np.fmod(sixths * _SIXTH + _ONE, _ONE)
    hue = np.remainder(hue + np.float32(shift), _ONE)

    six = hue * np.float32(6)
    whole = np.floor(six)
    part = saturation * (six - whole)
    pale = _ONE - saturation
    sinking = np.clip((_ONE - part) * most, 0, 1)
    rising = np.clip((part + pale) * most, 0, 1)
    low = np.clip(pale * most, 0, 1)
    sector = whole.astype(np.int32) % 6
    # Red, green and blue for each sixth of the circle.
    sources = np.stack([most, low, sinking, rising])
    picked = np.array([[0, 2, 1, 1, 3, 0], [3, 0, 0, 2, 1, 1], [1, 1, 3, 0, 0, 2]])
    turned = np.empty(image_hwc.shape, np.uint8)
    for channel in range(3):
        level = np.take_along_axis(sources, picked[channel][sector][None], axis=0)[0]
        turned[..., channel] = (level * np.float32(255.999)).astype(np.uint8)
    return turned


def sharpen(image_hwc: np.ndarray, factor: float) -> np.ndarray:
    """Blend an image with a smoothed one: Pillow's ``ImageEnhance.Sharpness``.

    Parameters
    ----------
    image_hwc : numpy.ndarray
        Shape ``(H, W, C)``, uint8.
    factor : float
        0 smooths, 1 changes nothing, 2 sharpens.
    """
    height, width, _ = image_hwc.shape
    if height < 3 or width < 3:
        return image_hwc
    levels = image_hwc.astype(np.int32)
    rows = levels[:-2] + levels[1:-1] + levels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * levels[1:-1, 1:-1]
    smooth = levels.copy()  # the outermost pixels stay
    # Thirteenths, rounded: none of them lies halfway.
    smooth[1:-1, 1:-1] = (2 * total + 13) // 26
    return blend(smooth, levels, factor)


def gaussian_blur(image_hwc: np.ndarray, kernel_width: int, kernel_height: int, sigma: float) -> np.ndarray:
    """Blur along the rows and then the columns in double, ``dcb|abcd|cba`` at the borders, rounding half to even.

    Parameters
    ----------
    image_hwc : numpy.ndarray
        Shape ``(H, W, C)``, uint8.
    kernel_width, kernel_height : int
        Odd, in pixels.
    sigma : float
        Standard deviation, in pixels.

    References
    ----------
    ``torchvision.transforms.v2.functional.gaussian_blur``, which sums in float32.
    """
    # The rows' result stays in double and is rounded once at the end.
    blurred = image_hwc.astype(np.float64)
    for axis, size in ((1, kernel_width), (0, kernel_height)):
        side = image_hwc.shape[axis]
        weights = gaussian_weights(size, sigma)
        total = np.zeros_like(blurred)
        for tap in range(size):
            place = np.abs(np.arange(side) + tap - size // 2)
            place = np.where(place >= side, 2 * (side - 1) - place, place)
            total += weights[tap] * blurred.take(place, axis=axis)
        blurred = total
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)
