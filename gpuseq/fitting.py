"""`fit`: from chunks of images to a generator's mean, standard deviation and whitening matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .arrays import Array
from .compat import is_cupy
from .stats import ChannelMoments, whitening_matrix

__all__ = ["fit_generator"]


def fit_generator(generator: Any, chunks: Iterable[Array]) -> None:
    """Set what `generator` wants fitted.

    Parameters
    ----------
    generator : ImageDataGenerator
        Its `mean`, `std` and `zca_whitening_matrix` are set as its options ask.
    chunks : iterable of array
        Rank 4, floating, in the generator's axis order; walked once. Kept only for whitening.

    Raises
    ------
    ValueError
        If there is no chunk.
    MemoryError
        If whitening would need more memory than there is.
    """
    axis = generator.channel_axis
    moments: ChannelMoments | None = None
    kept: list[np.ndarray] = []
    dtype = np.dtype(np.float64 if generator.dtype == "float64" else np.float32)
    wants = generator.featurewise_center or generator.featurewise_std_normalization or generator.zca_whitening
    for chunk in chunks if wants else ():
        part = ChannelMoments.of(chunk, axis)
        moments = part if moments is None else moments.merge(part)
        if generator.zca_whitening:
            kept.append(chunk.get() if is_cupy(chunk) else chunk)
    if not wants:
        return
    if moments is None:
        raise ValueError("fit() found no images")
    shape = [1, 1, 1]
    shape[axis - 1] = len(moments.mean)
    if generator.featurewise_center:
        generator.mean = moments.mean.astype(dtype).reshape(shape)
    if generator.featurewise_std_normalization:
        generator.std = moments.std.astype(dtype).reshape(shape)
    if generator.zca_whitening:
        flat = np.concatenate([(chunk - generator.mean).reshape(len(chunk), -1) for chunk in kept])
        generator.zca_whitening_matrix = whitening_matrix(flat, generator.zca_epsilon)
