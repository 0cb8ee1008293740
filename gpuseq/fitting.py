"""`fit`: from arrays, batches or a folder to a generator's mean, standard deviation and whitening matrix."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from . import ops
from .arrays import Array, DataFormat, FillMode
from .compat import is_cupy
from .file_iterators import DirectoryIterator
from .functions import without_affine
from .options import AugmentOptions
from .stats import ChannelMoments, whitening_matrix
from .transforms import ImageTransforms

__all__ = ["fit_array", "fit_batches", "fit_directory"]

CHUNK_VALUES = 1 << 24
"""Values looked at together: 64 MiB of float32."""


def fit_array(generator: ImageTransforms, x: Any, augment: bool, rounds: int, seed: int | None) -> None:
    """Fit on an array; the contract is that of `~gpuseq.ImageDataGenerator.fit`."""
    x = x if is_cupy(x) else np.asarray(x)
    if x.ndim != 4:
        raise ValueError(f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}")
    num_channels = x.shape[generator.channel_axis]
    if num_channels not in (1, 3, 4):
        warnings.warn(
            "Expected input to be images (as Numpy array) following the data format convention "
            f'"{generator.data_format}" (channels on axis {generator.channel_axis}), i.e. expected either 1, 3 or 4 '
            f"channels on axis {generator.channel_axis}. However, it was passed an array with shape {x.shape} "
            f"({num_channels} channels).",
            stacklevel=3,
        )
    if isinstance(rounds, bool) or not isinstance(rounds, (int, np.integer)) or rounds < 1:
        raise ValueError(f"rounds must be a positive integer; got {rounds!r}")
    _fit_chunks(generator, _chunks(generator, x, augment, rounds, seed))


def fit_batches(generator: ImageTransforms, batches: Iterable[Array]) -> None:
    """Fit on batches; the contract is that of `~gpuseq.ImageDataGenerator.fit_batches`."""
    if generator.zca_whitening:
        raise ValueError("zca_whitening needs all images at once: use fit(x) on an array that fits in memory")
    dtype = _fit_dtype(generator)
    factor = dtype.type(generator.rescale or 1.0)
    _fit_chunks(generator, (batch.astype(dtype) * factor for batch in batches))


def fit_directory(
    generator: ImageTransforms, directory: str | os.PathLike[str], *, progress: bool, **options: Any
) -> None:
    """Fit on a folder; the contract is that of `~gpuseq.ImageDataGenerator.fit_directory`."""
    from tqdm import tqdm

    iterator = DirectoryIterator(
        directory,
        None,
        data_format=generator.data_format,
        class_mode=None,
        shuffle=False,
        **{"verbose": False, **options},
    )
    with tqdm(total=iterator.n, unit="img", desc="fit", disable=not progress, leave=False) as bar:

        def batches() -> Iterable[Any]:
            for index in range(len(iterator)):
                batch = iterator[index]
                yield batch
                bar.update(len(batch))

        try:
            fit_batches(generator, batches())
        finally:
            iterator.close()


def _fit_dtype(generator: ImageTransforms) -> np.dtype[Any]:
    return np.dtype(np.float64 if generator.dtype == "float64" else np.float32)


def _fit_chunks(generator: ImageTransforms, chunks: Iterable[Array]) -> None:
    """Set what `generator` wants fitted, from rescaled chunks that are walked once and kept only for whitening."""
    if not (generator.featurewise_center or generator.featurewise_std_normalization or generator.zca_whitening):
        return
    axis, dtype = generator.channel_axis, _fit_dtype(generator)
    moments: ChannelMoments | None = None
    kept: list[np.ndarray] = []
    for chunk in chunks:
        part = ChannelMoments.of(chunk, axis)
        moments = part if moments is None else moments.merge(part)
        if generator.zca_whitening:
            kept.append(chunk.get() if is_cupy(chunk) else chunk)
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


def _chunks(generator: ImageTransforms, x: Array, augment: bool, rounds: int, seed: int | None) -> Iterable[Array]:
    """Yield what `fit` looks at, in pieces: rescaled images, transformed where asked, drawn for as Keras draws."""
    dtype = _fit_dtype(generator)
    options = AugmentOptions(
        source_format=cast(DataFormat, generator.data_format),
        data_format=cast(DataFormat, generator.data_format),
        dtype=dtype.name,
        fill_mode=cast(FillMode, generator.fill_mode),
        cval=float(generator.cval),
        order=min(generator.interpolation_order, 1),
        conventions=cast(Any, generator.conventions),
    )
    stream: Any = np.random if seed is None else np.random.RandomState(seed)
    total = len(x) * rounds if augment else len(x)
    params = generator.draw_batch(stream, total, x.shape[1:]) if augment else None
    step = max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, total, step):
        stop = min(start + step, total)
        chunk = x[np.arange(start, stop) % len(x)].astype(dtype)
        if generator.rescale:
            chunk *= generator.rescale
        if params is not None:
            part = params[start:stop]
            if generator.interpolation_order > 1:
                chunk = ops.warp_spline(chunk, part, replace(options, order=1), generator.interpolation_order)
                part = without_affine(part)
            chunk = ops.augment(chunk, part, options)
        yield chunk
