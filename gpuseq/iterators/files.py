"""`DirectoryIterator` and `DataFrameIterator`: batches of image files, in class folders or named by a data frame."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from gpuseq.base.arguments import check_choice, checked_arguments, checked_data_format, checked_dtype
from gpuseq.base.devices import place
from gpuseq.base.types import (
    COLOR_CHANNELS,
    Array,
    BatchDType,
    ClassMode,
    ColorMode,
    DataFormat,
    FrameClassMode,
    Interpolation,
    Labels,
    Rng,
    Size,
    Subset,
    literals,
)
from gpuseq.decode.host import check_decoder
from gpuseq.decode.images import checked_size
from gpuseq.decode.options import DecodeOptions
from gpuseq.files.folders import find_classes, scan_classes, split_bounds
from gpuseq.files.frames import check_frame, filter_classes, filter_filenames, masks_by_column, raw_targets
from gpuseq.plan.draw import Drawing
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.sharding import checked_options
from gpuseq.sources.files import FileSource
from gpuseq.sources.masks import find_masks, masks_among, masks_of_files
from gpuseq.sources.options import READ_ARGUMENTS, MaskOptions, ReadOptions
from gpuseq.transforms.protocol import ImageGenerator

from .batch import Layout, class_labels, gathered, make_batch
from .checks import FURTHER_ARGUMENTS, check_generator, check_save_to_dir, checked_split
from .iterator import Iterator

__all__ = ["BatchFromFilesMixin", "DataFrameIterator", "DirectoryIterator"]

logger = logging.getLogger("gpuseq")

FILE_NUMBERS = 10_000_000
"""The numbers in the names of saved files are below it, as in Keras."""


class BatchFromFilesMixin(Iterator[Labels]):
    """What `DirectoryIterator` and `DataFrameIterator` share: from file paths to batches. Not made directly."""

    allowed_class_modes: ClassVar[set[str | None]] = {
        "binary",
        "categorical",
        "input",
        "multi_output",
        "raw",
        "sparse",
        None,
    }
    class_mode: str | None
    dtype: str
    image_data_generator: ImageGenerator | None
    _source: FileSource  # narrower than the base's: there is one, and it is of files
    filenames: list[str]
    samples: int
    directory: str
    # Keras takes further inputs with arrays alone.
    _further_inputs = ()

    def set_processing_attrs(
        self,
        image_data_generator: Any,
        target_size: Size,
        color_mode: ColorMode,
        data_format: DataFormat | None,
        save_to_dir: str | None,
        save_prefix: str,
        save_format: str,
        subset: Subset | None,
        interpolation: Interpolation,
        keep_aspect_ratio: bool,
    ) -> None:
        """Check and set what turns files into batches.

        Parameters
        ----------
        image_data_generator : ImageDataGenerator or None
            What is done to the images; None only decodes.
        target_size : (int, int)
            Rows and columns.
        color_mode : {"rgb", "rgba", "grayscale"}
            3, 4 or 1 channels.
        data_format : {"channels_last", "channels_first"} or None
            Axis order of the batches.
        save_to_dir, save_prefix, save_format
            Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
        subset : {"training", "validation"} or None
            Which part, with the generator's ``validation_split``.
        interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
            Pillow's filter for the resize.
        keep_aspect_ratio : bool
            Crop the centre to the target's aspect ratio before the resize.

        Raises
        ------
        ValueError
            If a value is not one of the accepted ones.
        """
        self.target_size = checked_size(target_size)
        check_choice("color_mode", color_mode, literals(ColorMode))
        check_choice("interpolation", interpolation, literals(Interpolation))
        self.image_data_generator = image_data_generator
        self.device = "cpu" if image_data_generator is None else image_data_generator.device
        self.keep_aspect_ratio = keep_aspect_ratio
        self.color_mode = color_mode
        self.data_format = checked_data_format(data_format)
        self._is_told_format = data_format is not None
        channels = COLOR_CHANNELS[color_mode]
        last = self.data_format == "channels_last"
        # In the batches' order, as Keras has it; the source's own is channels last.
        self.image_shape = (*self.target_size, channels) if last else (channels, *self.target_size)
        self.save_to_dir = check_save_to_dir(save_to_dir, save_format)
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.interpolation = interpolation
        self.split = checked_split(subset, image_data_generator)
        self.subset = subset

    def _check_class_mode(self, class_mode: str | None) -> None:
        check_choice("class_mode", class_mode, tuple(sorted(self.allowed_class_modes, key=str)))
        self.class_mode = class_mode

    def _reader(self, arguments: dict[str, Any]) -> Callable[[Sequence[str]], FileSource]:
        """Take what concerns reading out of the arguments, check it, and return what makes the source of the files."""
        read = ReadOptions(**{name: arguments.pop(name) for name in READ_ARGUMENTS if name in arguments})
        if read.cache == "device" and self.device == "cpu":
            raise ValueError('cache="device" needs a GPU, and this iterator runs on the CPU: use cache="host"')
        if read.extensions is not None:
            self.white_list_formats = tuple(read.extensions)
        # Before folders are listed, which may take long.
        check_decoder(read.decoder)
        options = DecodeOptions(
            color_mode=self.color_mode,
            target_size=self.target_size,
            interpolation=self.interpolation,
            keep_aspect_ratio=self.keep_aspect_ratio,
            decoder=read.decoder,
            exif_orientation=read.exif_orientation,
            max_pixels=read.max_pixels,
            num_threads=read.num_threads,
            hw_decoder_load=read.hw_decoder_load,
            deterministic=read.deterministic,
        )
        return partial(
            FileSource,
            options=options,
            on_error=read.on_error,
            prefetch=read.prefetch,
            cache=read.cache,
            memory_limit=read.memory_limit,
            device=self.device,
        )

    def _planning(self, rng: str | None, **arguments: Any) -> dict[str, Any]:
        """Check how batches are planned, before it is known which files there are; return what `Iterator` takes."""
        default = "keras" if self.image_data_generator is None else self.image_data_generator.rng
        arguments["rng"] = default if rng is None else rng
        checked_options(**arguments)
        return arguments

    def _open(
        self,
        source: FileSource,
        planning: dict[str, Any],
        mask_paths: Sequence[str] | None = None,
        ignore_value: int | None = None,
    ) -> None:
        """Begin to hand out the files of a source, beside their masks where there are any."""
        self._source = source
        self._may_pass_over = source.on_error != "raise"
        self._masks = None
        self._reported: set[str] = set()
        if mask_paths is not None:
            self._masks = masks_of_files(mask_paths, source.options, source, self.device, ignore_value)
        if self.image_data_generator is not None and (recipe := self.image_data_generator._recipe) is not None:
            source.crops = recipe.begins_with_crop
            if source.crops and mask_paths is not None:
                raise ValueError(
                    f"{recipe!r} on files does not crop their masks yet: hand both in as arrays, flow(x, masks=)"
                )
        super().__init__(self.samples, **planning)
        check_generator(self.image_data_generator, planning["rng"], self.target_size, source)

    @property
    def bad_files(self) -> dict[str, str]:
        """Path and reason of each file, of an image or a mask, that failed so far and was skipped or substituted."""
        masks = () if self._masks is None else self._masks.sources
        sources = [source for source in (self._source, *masks) if isinstance(source, FileSource)]
        return {path: reason for source in sources for path, reason in source.bad_files.items()}

    @property
    def filepaths(self) -> list[str]:
        """Paths of the image files, one per sample."""
        return self._filepaths

    @property
    def labels(self) -> Any:
        """Labels of the samples, as `class_mode` has them."""
        raise NotImplementedError(f"{type(self).__name__} must define labels")

    @property
    def sample_weight(self) -> np.ndarray | None:
        """Weights of the samples, shape ``(samples,)``, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_weight")

    def _report_bad_files(self) -> None:
        new = {path: reason for path, reason in self.bad_files.items() if path not in self._reported}
        if new:
            # Each file once, however many epochs meet it.
            self._reported.update(new)
            listed = "".join(f"\n  {path!r}: {reason}" for path, reason in new.items())
            logger.warning("%d bad image file(s) were passed over:%s", len(new), listed)

    def _make(self, plan: BatchPlan) -> Any:
        # Keras makes float32 images of files whatever the batch's dtype, and casts at the end.
        image_dtype = "float32" if self.dtype == "float64" else self.dtype
        own = self.data_format
        try:
            layout = Layout("channels_last", self._batch_format or own, own, image_dtype, self.dtype)
            return make_batch(self, plan, layout)
        finally:
            # Also where the batch raised: its bad files belong to the report.
            if self._may_pass_over and plan.batch_index == len(self._planner) - 1:
                self._report_bad_files()

    def _labels_of(self, images: Array, sample_indices: np.ndarray) -> Any:
        if self.class_mode is None:
            return None
        if self.class_mode == "input":
            # A copy, so that a training loop that writes into x does not change y.
            return images.copy()
        # These and those of "raw" keep the data frame's dtype, as in Keras.
        if self.class_mode == "multi_output":
            return [gathered(output, sample_indices, self.device) for output in self.labels]
        if self.class_mode == "raw":
            return gathered(self.labels, sample_indices, self.device)
        # Labels have the batch's dtype, as in Keras; there is no bfloat16 of NumPy to make them in.
        dtype = "float32" if self.dtype == "bfloat16" else self.dtype
        # What the batches are handed to may want class indices as integers; see `Iterator._hand_out`.
        if self.class_mode == "sparse" and self._index_dtype is not None:
            dtype = self._index_dtype
        found = class_labels(self.classes, self.class_indices, self.class_mode, sample_indices, dtype)
        return place(found, self.device)

    @property
    def _drawing(self) -> Drawing:
        limit = FILE_NUMBERS if self.save_to_dir else 0
        if self.image_data_generator is None:
            return Drawing(image_size=self.target_size, file_number_limit=limit)
        drawing = self.image_data_generator._drawing(self.image_shape, limit)
        return replace(drawing, crops_by_key=self._source.crops)

    classes: Any
    class_indices: dict[str, int]
    _filepaths: list[str]

    def _say(self, message: str, verbose: bool) -> None:
        logger.info(message)
        # Printed and not only logged: Keras prints this line.
        if verbose:
            print(message)


class DirectoryIterator(BatchFromFilesMixin[Labels]):
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


class DataFrameIterator(BatchFromFilesMixin[Labels]):
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
