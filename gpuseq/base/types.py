"""Names for arrays, axis orders and modes, shared by every layer. Imports NumPy only."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

__all__ = [
    "ALIGNMENT",
    "COLOR_CHANNELS",
    "PARAMS_DTYPE",
    "PARAM_FIELDS",
    "Array",
    "ColorMode",
    "DataFormat",
    "FillMode",
    "Interpolation",
    "aligned_empty",
    "identity_params",
    "literals",
]

Array: TypeAlias = Any
"""A NumPy or CuPy array. Where only one is meant the annotation says ``np.ndarray``."""

DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
FillMode: TypeAlias = Literal["nearest", "constant", "reflect", "wrap"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
ColorMode: TypeAlias = Literal["rgb", "rgba", "grayscale"]

COLOR_CHANNELS: dict[str, int] = {"rgb": 3, "rgba": 4, "grayscale": 1}

PARAM_FIELDS = (
    "theta",  # rotation, degrees
    "tx",  # Keras' tx: the height shift, pixels
    "ty",  # Keras' ty: the width shift, pixels
    "shear",  # degrees
    "zx",  # zoom factors, 1 is none
    "zy",
    "flip_horizontal",  # 0.0 or 1.0
    "flip_vertical",
    "channel_shift_intensity",  # NaN: not applied
    "brightness",  # NaN: not applied
)

PARAMS_DTYPE = np.dtype([(name, np.float64) for name in PARAM_FIELDS])
"""One row per sample, all float64: ``params.view(np.float64).reshape(-1, 10)`` is the table that a kernel reads."""


def identity_params(num_samples: int) -> np.ndarray:
    """Return `num_samples` rows that change nothing.

    Parameters
    ----------
    num_samples : int
        Number of rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(num_samples,)``, dtype `PARAMS_DTYPE`.
    """
    params = np.zeros(num_samples, PARAMS_DTYPE)
    params["zx"] = params["zy"] = 1.0
    params["channel_shift_intensity"] = params["brightness"] = np.nan
    return params


ALIGNMENT = 64
"""Bytes: where a batch on the host begins, so that JAX and TensorFlow can take it without a copy."""


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array of any content on the host that begins at a multiple of `ALIGNMENT`.

    Parameters
    ----------
    shape : tuple of int
        Of the array, C-contiguous.
    dtype : dtype
        Of the array.
    """
    dtype = np.dtype(dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    block = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    array: np.ndarray = block[start : start + num_bytes].view(dtype).reshape(shape)
    return array


def literals(alias: Any) -> tuple[str, ...]:
    """Return the accepted strings of a ``Literal`` alias, for checks and messages."""
    return get_args(alias)
