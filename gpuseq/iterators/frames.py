"""`DataFrameIterator`: batches of image files that a data frame names and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseq.base.arguments import checked_arguments, checked_dtype
from gpuseq.base.types import (
    BatchDType,
    ColorMode,
    DataFormat,
    FrameClassMode,
    Interpolation,
    Labels,
    Rng,
    Size,
    Subset,
    Weights,
)
from gpuseq.files.folders import split_bounds
from gpuseq.files.frames import check_frame, filter_classes, filter_filenames, masks_by_column, raw_targets
from gpuseq.sources.masks import find_masks
from gpuseq.sources.options import READ_ARGUMENTS, MaskOptions

from .checks import FURTHER_ARGUMENTS
from .files import BatchFromFilesMixin

__all__ = ["DataFrameIterator"]


class DataFrameIterator(BatchFromFilesMixin[Labels, Weights]):
    """Batches of the image files that a data frame names and labels.

    Parameters
    ----------
    dataframe : pandas.DataFrame
        One row per file. Not changed.
    directory : str, os.PathLike or None
        The folder that names are relative to; None where they are paths already.
    image_data_generator : ImageDataGenerator or None
        What is done to the images.
    x_col : str
        The column of file names.
    y_col : str or list of str
        The column of labels, several with "multi_output" and "raw".
    weight_col : str or None
        The column of sample weights.
    target_size : (int, int)
        Rows and columns to resize to.
    color_mode : {"rgb", "rgba", "grayscale"}
        3, 4 or 1 channels.
    classes : sequence of str or None
        Labels to keep, in the order of the class indices. None: all, sorted.
    class_mode : {"categorical", "binary", "sparse", "input", "multi_output", "raw", None}
        Labels as one-hot rows, 0 or 1, class indices, the images themselves, a list of columns, the values of the
        column as they are, or none.
    batch_size : int
        Samples per batch.
    shuffle : bool
        A new order each epoch.
    seed : int or None
        Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are Keras'
        own way.
    data_format : {"channels_last", "channels_first"}
        Axis order of the batches.
    save_to_dir, save_prefix, save_format
        Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
    subset : {"training", "validation"} or None
        Which part, with the generator's ``validation_split``.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter for the resize.
    keep_aspect_ratio : bool
        Crop the centre to the target's aspect ratio before the resize.
    dtype : str
        Of the batches: float32, float16, float64, uint8; bfloat16 on a device.
    validate_filenames : bool
        Leave out rows whose file is missing or has another extension.
    rng : {"keras", "keyed"} or None
        Keras' own numbers, or numbers that depend on (seed, epoch, sample) only. None: the generator's.
    verbose : bool
        Print how many images were found, as Keras does.
    mask_col : str or None
        The column of the masks' file names, relative to `mask_directory`, else to `directory`. Masks are read and moved
        as `flow_from_directory` says; the batches are ``(x, masks)``, and neither `y_col` nor `class_mode` plays a
        part.
    mask_directory : str, os.PathLike or None
        What the names in `mask_col` are relative to. Without `mask_col` the mask of ``cats/1.jpg`` is ``cats/1`` in
        this folder, with any image extension.
    mask_suffix : str
        What a mask's name has behind the image's: with "_mask" that of ``1.jpg`` is ``1_mask.png``.
    ignore_value : int or None
        The level, 0 to 255, that masks get where the transform shows what lies beyond the border, for a loss that
        leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images are,
        by `fill_mode`.
    **kwargs
        What `~gpuseq.ImageDataGenerator.flow_from_directory` takes beyond Keras' arguments, `on_error` to
        `deterministic`, and `extensions`; ``shard``, ``remainder`` and the arguments of `Sequence`.

    Raises
    ------
    ValueError
        If a column is missing, labels are missing, or an argument is not one of the accepted values.
    TypeError
        If a column holds values of the wrong type.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.DataFrameIterator`` (Keras 3.15).
    """

    @checked_arguments(*READ_ARGUMENTS, *FURTHER_ARGUMENTS)
    def __init__(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        image_data_generator: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: Size = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: FrameClassMode | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: DataFormat | None = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: Subset | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: BatchDType | None = "float32",
        validate_filenames: bool = True,
        *,
        rng: Rng | None = None,
        verbose: bool = True,
        mask_col: str | None = None,
        mask_directory: str | os.PathLike[str] | None = None,
        mask_suffix: str = "",
        ignore_value: int | None = None,
        **kwargs: Any,
    ) -> None:
        masks = MaskOptions(mask_directory, mask_suffix, mask_col, ignore_value)
        # Masks take the labels' place, so columns of labels are not even looked for.
        class_mode = None if masks else class_mode
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
        # All that can be refused without a look at the disk comes before the files are looked up.
        check_frame(dataframe, x_col, y_col, weight_col, classes, class_mode)
        self.directory = "" if directory is None else os.fspath(directory)
        # Filters return another frame: the user's is not changed.
        frame = dataframe
        if validate_filenames:
            frame = filter_filenames(frame, x_col, self.directory, self.white_list_formats)
        labelled = class_mode in ("binary", "categorical", "sparse")
        if labelled:
            frame, names = filter_classes(frame, y_col, classes)
            self.class_indices = {name: index for index, name in enumerate(names)}
        # The split is taken after rows without files are left out, as in Keras: it is one over what remains.
        frame = frame.iloc[split_bounds(self.split, len(frame)), :]
        if labelled:
            self.classes = self.get_classes(frame, y_col)
        self.filenames = frame[x_col].tolist()
        self._sample_weight = np.asarray(frame[weight_col].values) if weight_col else None
        self._targets: Any = None
        if class_mode == "multi_output":
            self._targets = [np.array(frame[name].tolist()) for name in y_col]
        elif class_mode == "raw":
            self._targets = raw_targets(frame[y_col].values)
        self.samples = len(self.filenames)
        if not self.samples:
            raise ValueError(
                f"no usable rows: {len(dataframe)} in the data frame, none left after the checks of file names, "
                f"classes and subset. Names in {x_col!r} are looked up in directory={self.directory!r}"
            )
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        mask_paths = None
        if mask_col is not None:
            mask_paths = masks_by_column(frame, mask_col, os.fspath(mask_directory or self.directory))
        elif mask_directory is not None:
            mask_paths = find_masks(mask_directory, self.filenames, self.white_list_formats, mask_suffix)
        self._open(reader(self._filepaths), planning, mask_paths, ignore_value)
        validated = "validated" if validate_filenames else "non-validated"
        belonging = f" belonging to {len(self.class_indices)} classes" if labelled else ""
        self._say(f"Found {self.samples} {validated} image filenames{belonging}.", verbose)

    def get_classes(self, df: Any, y_col: str) -> list[Any]:
        """Return the class index of each row, or the list of indices where a row has several labels.

        Parameters
        ----------
        df : pandas.DataFrame
            The rows.
        y_col : str
            The column of labels.
        """
        return [
            [self.class_indices[name] for name in label]
            if isinstance(label, (list, tuple))
            else self.class_indices[label]
            for label in df[y_col]
        ]

    @property
    def labels(self) -> Any:
        """Targets for "raw" and "multi_output", class indices otherwise."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> np.ndarray | None:
        """Weights of the samples, shape ``(samples,)``, or None."""
        return self._sample_weight
