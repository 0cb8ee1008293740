"""Names for arrays, axis orders and modes, shared by every layer. Imports NumPy only."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

__all__ = [
    "ALIGNMENT",
    "COLOR_CHANNELS",
    "Array",
    "ColorMode",
    "Conventions",
    "DataFormat",
    "FillMode",
    "Interpolation",
    "aligned_empty",
    "literals",
]

Array: TypeAlias = Any
"""A NumPy or CuPy array. Where only one is meant the annotation says ``np.ndarray``."""

DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
FillMode: TypeAlias = Literal["nearest", "constant", "reflect", "wrap"]
Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
ColorMode: TypeAlias = Literal["rgb", "rgba", "grayscale"]
Conventions: TypeAlias = Literal["keras", "corrected"]

COLOR_CHANNELS: dict[str, int] = {"rgb": 3, "rgba": 4, "grayscale": 1}

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
