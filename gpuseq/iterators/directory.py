"""`DirectoryIterator`: batches of the image files in a folder with one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np

from gpuseq.base.arguments import checked_arguments, checked_dtype
from gpuseq.files.folders import find_classes, scan_classes
from gpuseq.sources.options import READ_ARGUMENTS

from .files import BatchFromFilesMixin
from .images import FURTHER_ARGUMENTS

__all__ = ["DirectoryIterator"]


class DirectoryIterator(BatchFromFilesMixin):
    """Batches of the image files in a folder with one subfolder per class.

    Parameters
    ----------
    directory : str or os.PathLike
        The folder.
    image_data_generator : ImageDataGenerator or None
        What is done to the images.
    target_size, color_mode, classes, class_mode, batch_size, shuffle, seed, data_format, save_to_dir, save_prefix, \
save_format, follow_links, subset, interpolation, keep_aspect_ratio
        See `~gpuseq.ImageDataGenerator.flow_from_directory`.
    dtype : str or None
        Of the batches: float32 (default), float16, float64, uint8; bfloat16 on a device.
    rng, verbose
        See `~gpuseq.ImageDataGenerator.flow_from_directory`.
    mask_directory : str, os.PathLike or None
        See `~gpuseq.ImageDataGenerator.flow_from_directory`.
    **kwargs
        What `~gpuseq.ImageDataGenerator.flow_from_directory` takes beyond Keras' arguments, `on_error` to
        `deterministic`; ``shard``, ``remainder`` and the arguments of `Sequence`.

    Attributes
    ----------
    samples, num_classes : int
        How many files and classes were found.
    classes : numpy.ndarray
        Shape ``(samples,)``, int32: class index of each file.
    class_indices : dict
        Class name to index.
    filenames, filepaths : list of str
        Relative to `directory`, and with it.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder.
    ValueError
        If there are no images, or an argument is not one of the accepted values.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.DirectoryIterator`` (Keras 3.15).
    """

    allowed_class_modes: ClassVar[set[str | None]] = {"categorical", "binary", "sparse", "input", None}

    @checked_arguments(*READ_ARGUMENTS, *FURTHER_ARGUMENTS)
    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_data_generator: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str | None = None,
        *,
        rng: str | None = None,
        verbose: bool = True,
        mask_directory: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.set_processing_attrs(
            image_data_generator,
            target_size,
            color_mode,
            data_format,
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        self._check_class_mode(class_mode)
        self.dtype = checked_dtype(dtype, self.device)
        reader = self._reader(kwargs)
        walk = self._walker(rng, batch_size=batch_size, shuffle=shuffle, seed=seed, **kwargs)
        names = find_classes(directory, classes)
        self.directory = os.fspath(directory)
        self.num_classes = len(names)
        self.class_indices = {name: index for index, name in enumerate(names)}
        self.filenames, self.classes = scan_classes(
            self.directory, names, self.white_list_formats, self.split, follow_links
        )
        self.samples = len(self.filenames)
        if not self.samples:
            raise ValueError(
                f"no images in subset={subset!r}: validation_split={image_data_generator._validation_split} of the few "
                f"files per class in {self.directory!r} is less than one file. Use a larger split, or more files"
            )
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self._open(reader(self._filepaths), walk, mask_directory)
        self._say(f"Found {self.samples} images belonging to {self.num_classes} classes.", verbose)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each file, shape ``(samples,)``, int32."""
        return cast(np.ndarray, self.classes)

    @property
    def sample_weight(self) -> None:
        """None: folders carry no weights."""
        return None
