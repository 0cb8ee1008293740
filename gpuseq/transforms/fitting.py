"""From images to a generator's mean, standard deviation and whitening matrix, and to and from its file of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpuseq.base.devices import on_device
from gpuseq.base.types import Array
from gpuseq.plan.draw import KerasStream

from .protocol import ImageGenerator
from .statistics import (
    NOT_PER_CHANNEL,
    fit_chunks,
    fit_dtype,
    image_chunks,
    per_channel,
    read_statistics,
    rescaled,
    write_statistics,
)

__all__ = ["fit_batches", "fit_images", "load", "save"]

_OPTIONS = {"mean": "featurewise_center", "std": "featurewise_std_normalization"}
"""Which option of a generator asks for which of its attributes."""


def fit_images(generator: ImageGenerator, x: Array, rounds: int, seed: int | None) -> None:
    """Set what a generator asks for, from images in memory.

    Parameters
    ----------
    generator : ImageGenerator
        Its `mean`, `std` and `zca_whitening_matrix` are set.
    x : array
        Rank 4, in the generator's axis order.
    rounds : int
        How many transformed copies of `x` to look at; 0 looks at `x` itself.
    seed : int or None
        For the transforms; None draws from NumPy's global stream.

    Raises
    ------
    TypeError
        If augmentations meet images that are not uint8.
    """
    # Where nothing is asked for the images are not looked at.
    if _asks(generator):
        with on_device(x):
            _fit(generator, _transformed(generator, x, rounds, seed) if rounds else _plain(generator, x))


def fit_batches(generator: ImageGenerator, batches: Iterable[Array]) -> None:
    """Set what a generator asks for, from batches that are taken once, one after another.

    Parameters
    ----------
    generator : ImageGenerator
        Its `mean` and `std` are set.
    batches : iterable of array
        Each of rank 4, before rescaling.

    Raises
    ------
    ValueError
        If there is no batch.
    """
    if _asks(generator):
        dtype = fit_dtype(generator.dtype)
        _fit(generator, (rescaled(batch, dtype, generator.rescale) for batch in batches))


def save(generator: ImageGenerator, path: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
    """Write a generator's mean and standard deviation to a JSON file.

    Raises
    ------
    ValueError
        If there is neither, or more than one number per channel.
    """
    found = {name: getattr(generator, name) for name in _OPTIONS if getattr(generator, name) is not None}
    if not found:
        raise ValueError("there is nothing to save: fit the generator first, with fit(x) or fit_directory(folder)")
    if generator.zca_whitening_matrix is not None:
        raise ValueError(NOT_PER_CHANNEL)
    write_statistics(path, found, float(generator.rescale or 1.0), facts)


def load(generator: ImageGenerator, path: str | os.PathLike[str]) -> None:
    """Set a generator's mean and standard deviation, as far as it asks for them, from a file that `save` wrote.

    Raises
    ------
    ValueError
        If it asks for neither, or the file does not hold what it asks for.
    """
    asked = [name for name, option in _OPTIONS.items() if getattr(generator, option)]
    if not asked:
        raise ValueError(
            "this generator uses neither: make it with featurewise_center=True, "
            "featurewise_std_normalization=True, or both"
        )
    for name, values in read_statistics(path, asked, float(generator.rescale or 1.0)).items():
        setattr(generator, name, per_channel(values, generator.channel_axis, fit_dtype(generator.dtype)))


def _asks(generator: ImageGenerator) -> bool:
    return bool(generator.featurewise_center or generator.featurewise_std_normalization or generator.zca_whitening)


def _fit(generator: ImageGenerator, chunks: Iterable[Array]) -> None:
    found = fit_chunks(
        chunks,
        generator.channel_axis,
        fit_dtype(generator.dtype),
        center=bool(generator.featurewise_center),
        std=bool(generator.featurewise_std_normalization),
        whitening_epsilon=generator.zca_epsilon if generator.zca_whitening else None,
    )
    # Through setattr, so that the generator forgets what it has derived from the old ones.
    for name, value in (("mean", found.mean), ("std", found.std), ("zca_whitening_matrix", found.whitening)):
        if value is not None:
            setattr(generator, name, value)


def _plain(generator: ImageGenerator, x: Array) -> Iterable[Array]:
    dtype = fit_dtype(generator.dtype)
    # In pieces: all of the images as floats take four times the memory of uint8.
    return image_chunks(len(x), x.shape[1:], len(x), lambda rows, part: rescaled(x[rows], dtype, generator.rescale))


def _transformed(generator: ImageGenerator, x: Array, rounds: int, seed: int | None) -> Iterable[Array]:
    """Yield pieces of so many transformed copies, drawn for as Keras draws: all of the numbers before the first."""
    total = len(x) * rounds
    stream: Any = np.random if seed is None else np.random.RandomState(seed)
    # Keras transforms round after round with one stream, so the parameters of all copies are one draw.
    params = generator._drawing(x.shape[1:]).params(stream, total)
    program = None
    if generator._recipe is not None:
        if x.dtype != np.uint8:
            raise TypeError(f"fit(augment=True) with augmentations takes uint8 images, levels 0 to 255; got {x.dtype}")
        # The key that the first batch of an iterator with this seed would have.
        keys = KerasStream(seed)
        keys.reseed(0)
        key, number = keys.key
        size = x.shape[generator.row_axis], x.shape[generator.col_axis]
        program = generator._recipe.draw(np.arange(total), size, seed=key, epoch=number)

    def make(rows: np.ndarray, part: slice) -> Array:
        return generator._batch_transform.augmented(
            x,
            rows,
            params[part],
            None if program is None else program[part],
            dtype=fit_dtype(generator.dtype).name,
            rescale=generator.rescale,
        )

    return image_chunks(len(x), x.shape[1:], total, make)
