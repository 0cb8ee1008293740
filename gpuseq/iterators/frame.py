"""`DataFrameIterator`: batches of the image files that a data frame names and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseq.base.arguments import checked_arguments, checked_dtype
from gpuseq.files.folders import split_bounds
from gpuseq.files.frames import check_frame, filter_classes, filter_filenames
from gpuseq.sources.options import READ_ARGUMENTS

from .files import BatchFromFilesMixin
from .images import FURTHER_ARGUMENTS

__all__ = ["DataFrameIterator"]


class DataFrameIterator(BatchFromFilesMixin):
    """Batches of the image files that a data frame names and labels.

    Parameters
    ----------
    dataframe : pandas.DataFrame
        One row per file. Not changed.
    directory : str, os.PathLike or None
        The folder that names are relative to; None where they are paths already.
    image_data_generator : ImageDataGenerator or None
        What is done to the images.
    x_col, y_col, weight_col, target_size, color_mode, classes, class_mode, batch_size, shuffle, seed, data_format, \
save_to_dir, save_prefix, save_format, subset, interpolation, keep_aspect_ratio, validate_filenames
        See `~gpuseq.ImageDataGenerator.flow_from_dataframe`.
    dtype : str
        Of the batches: float32, float16, float64, uint8; bfloat16 on a device.
    rng, verbose
        See `~gpuseq.ImageDataGenerator.flow_from_directory`.
    **kwargs
        What `~gpuseq.ImageDataGenerator.flow_from_directory` takes beyond Keras' arguments, `on_error` to
        `deterministic`; ``shard``, ``remainder`` and the arguments of `Sequence`.

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
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str | None = "float32",
        validate_filenames: bool = True,
        *,
        rng: str | None = None,
        verbose: bool = True,
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
        check_frame(dataframe, x_col, y_col, weight_col, classes, class_mode)
        self.directory = "" if directory is None else os.fspath(directory)
        frame = dataframe
        if validate_filenames:
            frame = filter_filenames(frame, x_col, self.directory, self.white_list_formats)
        labelled = class_mode in ("binary", "categorical", "sparse")
        if labelled:
            frame, names = filter_classes(frame, y_col, classes)
            self.class_indices = {name: index for index, name in enumerate(names)}
        frame = frame.iloc[split_bounds(self.split, len(frame)), :]
        if labelled:
            self.classes = self.get_classes(frame, y_col)
        self.filenames = frame[x_col].tolist()
        self._sample_weight = np.asarray(frame[weight_col].values) if weight_col else None
        self._targets: Any = None
        if class_mode == "multi_output":
            self._targets = [np.array(frame[name].tolist()) for name in y_col]
        elif class_mode == "raw":
            targets = np.asarray(frame[y_col].values)
            is_rows = targets.dtype == object and all(isinstance(row, (list, tuple, np.ndarray)) for row in targets)
            self._targets = np.array(targets.tolist()) if is_rows else targets
        self.samples = len(self.filenames)
        if not self.samples:
            raise ValueError(
                f"no usable rows: {len(dataframe)} in the data frame, none left after the checks of file names, "
                f"classes and subset. Names in {x_col!r} are looked up in directory={self.directory!r}"
            )
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self._open(reader(self._filepaths), walk)
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
