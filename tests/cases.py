"""One catalogue of cases: the sizes where code breaks, the dtypes, the fill modes, the orders."""

from __future__ import annotations

import zlib

import numpy as np

from gpuseq.base.types import FillMode, literals
from gpuseq.plan.columns import PARAMS_DTYPE, identity_params

__all__ = [
    "DTYPES",
    "FILL_MODES",
    "LINEAR_ORDERS",
    "ORDERS",
    "SHAPES",
    "draw_params",
    "identity",
    "images",
    "transposed",
]

SHAPES: dict[str, tuple[int, int, int, int]] = {
    "one_pixel": (1, 1, 1, 1),
    "one_pixel_rgb": (3, 1, 1, 3),
    "one_row": (2, 1, 17, 3),
    "one_column": (2, 17, 1, 3),
    "primes": (3, 13, 7, 3),
    "primes_wide": (2, 11, 29, 4),
    "513_values": (1, 27, 19, 1),
    "single": (1, 8, 9, 4),
    "two_channels": (3, 6, 5, 2),
    "eight_channels": (2, 9, 11, 8),
    "square": (5, 16, 16, 3),
}
"""(N, H, W, C). 513 values are one more than a power of two that a block or a vector load may end at."""

DTYPES = ("uint8", "uint16", "float32", "float64")
FILL_MODES: tuple[str, ...] = literals(FillMode)
ORDERS = (0, 1, 2, 3, 4, 5)
LINEAR_ORDERS = (0, 1)


def images(shape: tuple[int, ...], dtype: str = "uint8", *, seed: int = 0) -> np.ndarray:
    """Return noise with its extremes in it: the whole range of an integer dtype, -50..300 for a float one.

    Parameters
    ----------
    shape : tuple of int
        Any.
    dtype : str
        One of `DTYPES`.
    seed : int
        Same seed, same images.

    Returns
    -------
    numpy.ndarray
        `shape` and `dtype`, C-contiguous.
    """
    rng = np.random.default_rng([zlib.crc32(f"{shape}{dtype}".encode()), seed])
    if dtype in ("uint8", "uint16"):
        top = np.iinfo(dtype).max
        noise = rng.integers(0, top, shape, dtype=dtype, endpoint=True)
        if noise.size > 1:
            noise.flat[0], noise.flat[-1] = 0, top
        return noise
    return rng.uniform(-50.0, 300.0, shape).astype(dtype)


def identity(num_samples: int) -> np.ndarray:
    """Return parameters that change nothing: shape ``(num_samples,)``, dtype ``PARAMS_DTYPE``."""
    return identity_params(num_samples)


def draw_params(num_samples: int, height: int, width: int, *, seed: int = 0, colour: bool = False) -> np.ndarray:
    """Return strong random parameters: turns all around, shifts beyond the border, zooms in and out, all flips.

    Parameters
    ----------
    num_samples : int
        Number of rows; the first is the identity where there are several.
    height, width : int
        Size of the images in pixels.
    colour : bool
        Also shift the channels and the brightness of about every other sample.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples,)``, dtype ``PARAMS_DTYPE``.
    """
    rng = np.random.default_rng([seed, num_samples, height, width])
    params = identity_params(num_samples)
    assert params.dtype == PARAMS_DTYPE
    params["theta"] = rng.uniform(-180, 180, num_samples)
    params["tx"] = rng.uniform(-1.5, 1.5, num_samples) * height
    params["ty"] = rng.uniform(-1.5, 1.5, num_samples) * width
    params["shear"] = rng.uniform(-40, 40, num_samples)
    params["zx"] = rng.uniform(0.3, 2.5, num_samples)
    params["zy"] = rng.uniform(0.3, 2.5, num_samples)
    params["flip_horizontal"] = rng.integers(0, 2, num_samples)
    params["flip_vertical"] = rng.integers(0, 2, num_samples)
    if colour:
        params["channel_shift_intensity"] = np.where(
            rng.random(num_samples) < 0.6, rng.uniform(-90, 90, num_samples), np.nan
        )
        params["brightness"] = np.where(rng.random(num_samples) < 0.6, rng.uniform(0, 2, num_samples), np.nan)
    if num_samples > 1:
        params[0] = identity_params(1)[0]
    return params


def transposed(batch: np.ndarray) -> np.ndarray:
    """Return ``(N, H, W, C)`` as C-contiguous ``(N, C, H, W)``."""
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
