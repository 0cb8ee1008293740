"""`fit` and its kin: a generator's statistics from arrays, batches, folders and files.

Functions that `~gpuseq.ImageDataGenerator` has as its methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from gpuseq.base.arguments import checked_arguments, warn
from gpuseq.base.errors import EmptyBatchError
from gpuseq.base.types import ColorMode, Interpolation, Size
from gpuseq.sources.options import READ_ARGUMENTS
from gpuseq.transforms import fitting
from gpuseq.transforms.protocol import ImageGenerator

from .arrays import as_array
from .folders import DirectoryIterator
from .iterator import Iterator

__all__ = ["FittedGenerator", "fit", "fit_batches", "fit_directory", "load_statistics", "save_statistics"]

DIRECTORY_OPTIONS = ("classes", "follow_links", "keep_aspect_ratio", "verbose", *READ_ARGUMENTS)
"""What `fit_directory` hands on to the iterator."""


class FittedGenerator(ImageGenerator, Protocol):
    """A generator whose statistics are asked for."""

    def fit_batches(self, batches: Iterable[Any]) -> None:
        """Find them in batches; a subclass may have its own way."""


@checked_arguments()
def fit(  # numpydoc ignore=PR01
    self: ImageGenerator, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None
) -> None:
    """Find the mean, standard deviation and whitening matrix of sample data.

    Sets `mean` and `std`, each shape ``(1, 1, C)`` or ``(C, 1, 1)``, and `zca_whitening_matrix`, as asked for at
    construction. Sums are taken in float64.

    Parameters
    ----------
    x : array
        Rank 4, in the generator's axis order; on the host or a device. Not written to.
    augment : bool
        Fit on randomly transformed images, with the generator's augmentations but for erasing.
    rounds : int
        How many transformed copies of `x` to fit on.
    seed : int or None
        For the transforms.

    Raises
    ------
    ValueError
        If `x` has another rank.
    TypeError
        If `x` is no array; the message names the method for what it is.
    MemoryError
        If whitening would need more memory than there is; the message says how much.

    References
    ----------
    ``ImageDataGenerator.fit`` of Keras 3.15.
    """
    _refuse_iterators(x)
    if not isinstance(augment, (bool, int, np.bool_)):
        raise TypeError(f"fit() takes images and no labels: augment must be True or False; got {augment!r:.60}")
    # Not copied, and in its own dtype: pieces of it are cast as they are looked at.
    x = as_array(x, "fit_directory(path)", "fit_batches(batches)")
    if x.ndim != 4:
        raise ValueError(
            f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}. Images are "
            "(n, rows, columns, channels): x[..., None] for grey ones, x[None] for a single one"
        )
    num_channels = x.shape[self.channel_axis]
    if num_channels not in (1, 3, 4):
        warn(
            "Expected input to be images (as Numpy array) following the data format convention "
            f'"{self.data_format}" (channels on axis {self.channel_axis}), i.e. expected either 1, 3 or 4 '
            f"channels on axis {self.channel_axis}. However, it was passed an array with shape {x.shape} "
            f"({num_channels} channels)."
        )
    if isinstance(rounds, bool) or not isinstance(rounds, (int, np.integer)) or rounds < 1:
        raise ValueError(f"rounds must be a positive integer; got {rounds!r}")
    fitting.fit_images(self, x, rounds if augment else 0, seed)


@checked_arguments()
def fit_batches(self: ImageGenerator, batches: Iterable[Any]) -> None:  # numpydoc ignore=PR01
    """Find mean and standard deviation of data that come in batches, in one pass and in bounded memory.

    Parameters
    ----------
    batches : iterable of array
        Each of rank 4, in the generator's axis order, before rescaling; taken once.

    Raises
    ------
    ValueError
        With ``zca_whitening``, which needs all images at once, or if there is no batch.
    TypeError
        If `batches` is an iterator of this package, whose images are transformed and without end.
    """
    if self.zca_whitening:
        raise ValueError("zca_whitening needs all images at once: use fit(x) on an array that fits in memory")
    _refuse_iterators(batches)
    fitting.fit_batches(self, batches)


@checked_arguments(*DIRECTORY_OPTIONS)
def fit_directory(  # numpydoc ignore=PR01
    self: FittedGenerator,
    directory: str | os.PathLike[str],
    target_size: Size = (256, 256),
    color_mode: ColorMode = "rgb",
    batch_size: int = 32,
    interpolation: Interpolation = "nearest",
    *,
    progress: bool = True,
    **options: Any,
) -> None:
    """Find mean and standard deviation of the images in a folder, larger than memory or not.

    Parameters
    ----------
    directory : str or os.PathLike
        A folder with one subfolder per class.
    target_size : (int, int)
        Rows and columns to resize to.
    color_mode : {"rgb", "rgba", "grayscale"}
        3, 4 or 1 channels.
    batch_size : int
        Samples per batch.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter for the resize.
    progress : bool
        Show a progress bar on the terminal.
    **options
        Those of `flow_from_directory` that say which files there are and how they are read.

    Raises
    ------
    ValueError
        With ``zca_whitening``, or if there are no images.
    """
    from tqdm import tqdm

    # Without a generator: images as they are decoded, float32, in the order of the folder, so that sums are the
    # same in every run.
    iterator = DirectoryIterator(
        directory,
        None,
        target_size=target_size,
        color_mode=color_mode,
        batch_size=batch_size,
        interpolation=interpolation,
        data_format=self.data_format,
        class_mode=None,
        shuffle=False,
        **{"verbose": False, **options},
    )
    with tqdm(total=iterator.n, unit="img", desc="fit", disable=not progress, leave=False) as bar:

        def batches() -> Iterable[Any]:
            # By index: `next` makes up for a batch without good files by one of the next epoch, which would count
            # twice.
            for index in range(len(iterator)):
                try:
                    batch = iterator[index]
                except EmptyBatchError:  # its files were bad, and on_error passes over them
                    continue
                yield batch
                bar.update(len(batch))

        try:
            self.fit_batches(batches())
        # Else the thread that reads ahead would outlive the call.
        finally:
            iterator.close()


def save_statistics(self: ImageGenerator, path: str | os.PathLike[str], **facts: Any) -> None:  # numpydoc ignore=PR01
    """Write mean and standard deviation to a JSON file, for `load_statistics`; ``gpuseq fit`` writes the same.

    Parameters
    ----------
    path : str or os.PathLike
        The file; written whole or not at all.
    **facts : JSON values
        Written beside them, to be read: what they were computed over.

    Raises
    ------
    ValueError
        If nothing was fitted, or it is more than one number per channel: keep those, and a whitening matrix, with
        ``numpy.save``.
    """
    fitting.save(self, path, facts)


def load_statistics(self: ImageGenerator, path: str | os.PathLike[str]) -> None:  # numpydoc ignore=PR01
    """Read the mean and standard deviation that `save_statistics` or ``gpuseq fit`` wrote, in the place of `fit`.

    Sets `mean` and `std` as asked for at construction. Values that were computed under another ``rescale`` are
    brought to this generator's.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Raises
    ------
    ValueError
        If the generator asks for neither, or the file does not hold what it asks for.
    FileNotFoundError
        If there is no such file.
    """
    fitting.load(self, path)


def _refuse_iterators(images: object) -> None:
    if isinstance(images, Iterator):
        raise TypeError(
            f"a {type(images).__name__} has no end and hands out what it has transformed already, and statistics are "
            "those of plain images: use fit_directory(folder), or fit(x)"
        )
