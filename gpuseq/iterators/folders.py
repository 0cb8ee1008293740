"""`DirectoryIterator`: batches of image files in a folder with one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np

from gpuseq.base.arguments import checked_arguments, checked_dtype
from gpuseq.base.types import (
    BatchDType,
    ClassMode,
    ColorMode,
    DataFormat,
    Interpolation,
    Labels,
    Rng,
    Size,
    Subset,
    Weights,
)
from gpuseq.files.folders import find_classes, scan_classes
from gpuseq.sources.masks import find_masks, masks_among
from gpuseq.sources.options import READ_ARGUMENTS, MaskOptions

from .checks import FURTHER_ARGUMENTS
from .files import BatchFromFilesMixin

__all__ = ["DirectoryIterator"]


class DirectoryIterator(BatchFromFilesMixin[Labels, Weights]):
    """Batches of the image files in a folder with one subfolder per class.

    Parameters
    ----------
    directory : str or os.PathLike
        The folder.
    image_data_generator : ImageDataGenerator or None
        What is done to the images.
    target_size : (int, int)
        Rows and columns to resize to.
    color_mode : {"rgb", "rgba", "grayscale"}
        3, 4 or 1 channels.
    classes : sequence of str or None
        Subfolders, in the order of the class indices. None: all, sorted.
    class_mode : {"categorical", "binary", "sparse", "input", None}
        Labels as one-hot rows, 0 or 1, class indices, the images themselves, or none.
    batch_size : int
        Samples per batch.
    shuffle : bool
        A new order each epoch.
    seed : int or None
        Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are Keras'
        own way.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of the batches. None: "channels_last".
    save_to_dir, save_prefix, save_format
        Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
    follow_links : bool
        Enter symbolic links.
    subset : {"training", "validation"} or None
        Which part of each class, with ``validation_split``.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter for the resize.
    keep_aspect_ratio : bool
        Crop the centre to the target's aspect ratio before the resize.
    dtype : str or None
        Of the batches: float32 (default), float16, float64, uint8; bfloat16 on a device.
    rng : {"keras", "keyed"} or None
        Keras' own numbers, or numbers that depend on (seed, epoch, sample) only. None: the generator's.
    verbose : bool
        Print how many images were found, as Keras does.
    mask_directory : str, os.PathLike or None
        A folder of masks built like `directory`: the mask of ``cats/1.jpg`` is ``cats/1`` with any image extension. It
        may lie within `directory`, or be the same one if `mask_suffix` tells masks from images. Masks are read as grey
        images, palettes as their indices, resized with "nearest", and get the geometry of their image's transform and
        nothing else. The batches are ``(x, masks)``; `class_mode` plays no part, and a folder without subfolders is
        taken as it is.
    mask_suffix : str
        What a mask's name has behind the image's: with "_mask" that of ``1.jpg`` is ``1_mask.png``.
    ignore_value : int or None
        The level, 0 to 255, that masks get where the transform shows what lies beyond the border, for a loss that
        leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images are,
        by `fill_mode`.
    **kwargs
        What `~gpuseq.ImageDataGenerator.flow_from_directory` takes beyond Keras' arguments, `on_error` to
        `deterministic`, and `extensions`; ``shard``, ``remainder`` and the arguments of `Sequence`.

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
        target_size: Size = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: ClassMode | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: DataFormat | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: Subset | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: BatchDType | None = None,
        *,
        rng: Rng | None = None,
        verbose: bool = True,
        mask_directory: str | os.PathLike[str] | None = None,
        mask_suffix: str = "",
        ignore_value: int | None = None,
        **kwargs: Any,
    ) -> None:
        masks = MaskOptions(mask_directory, mask_suffix, ignore_value=ignore_value)
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
        planning = self._planning(rng, batch_size=batch_size, shuffle=shuffle, seed=seed, **kwargs)
        # Labels that do not come from folders need none.
        names = find_classes(directory, classes, may_be_flat=bool(masks) or class_mode in (None, "input"))
        self.directory = os.fspath(directory)
        self.num_classes = len(names)
        # The order of `classes`, where it is given, and not the alphabet's: the one way to choose the indices, as in
        # Keras.
        self.class_indices = {name: index for index, name in enumerate(names)}
        self.filenames, self.classes = scan_classes(
            self.directory,
            names,
            self.white_list_formats,
            self.split,
            follow_links,
            masks_among(self.directory, masks),
        )
        self.samples = len(self.filenames)
        if not self.samples:
            raise ValueError(
                f"no images in subset={subset!r}: validation_split={image_data_generator._validation_split} of the few "
                f"files per class in {self.directory!r} is less than one file. Use a larger split, or more files"
            )
        # Joined once, and not at each visit of a file.
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        mask_paths = None
        if mask_directory is not None:
            self.class_mode = None
            mask_paths = find_masks(mask_directory, self.filenames, self.white_list_formats, mask_suffix)
        self._open(reader(self._filepaths), planning, mask_paths, ignore_value)
        self._say(f"Found {self.samples} images belonging to {self.num_classes} classes.", verbose)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each file, shape ``(samples,)``, int32."""
        return cast(np.ndarray, self.classes)

    sample_weight = None
    """Folders carry no weights."""
