"""`ImageDataGenerator`: Keras' argument list, turned into options, plans and batches."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from . import ops
from .arrays import Array, DataFormat, FillMode, identity_params, literals
from .compat import array_module, is_cupy, resolve_device
from .draw import draw_params, params_to_dicts
from .file_iterators import DirectoryIterator
from .fitting import fit_generator
from .frame_iterator import DataFrameIterator
from .functions import checked_data_format, transform_image, without_affine
from .image_iterators import NumpyArrayIterator, checked_dtype
from .options import AugmentOptions, ShiftRange, Statistics, TransformRanges, check_choice
from .sources import OnError

__all__ = ["ImageDataGenerator"]

logger = logging.getLogger("gpuseq")

PREPROCESSING_MODES = ("tf", "caffe", "torch")
_PARAMETERS = ("theta", "tx", "ty", "shear", "zx", "zy", "flip_horizontal", "flip_vertical")
_UNFITTED = (
    "This ImageDataGenerator specifies `{}`, but it hasn't been fit on any training data. Fit it first by calling "
    "`.fit(numpy_data)`."
)


class ImageDataGenerator:
    """Random transforms and normalisation of image batches, on the GPU where there is one.

    Every argument up to `dtype` is Keras', with Keras' default and meaning.

    Parameters
    ----------
    featurewise_center, featurewise_std_normalization : bool
        Subtract the data set's mean, divide by its standard deviation, per channel; `fit` finds them.
    samplewise_center, samplewise_std_normalization : bool
        The same with each image's own mean and deviation, over all its channels.
    zca_whitening : bool
        Apply the whitening matrix that `fit` finds.
    zca_epsilon : float
        Added to the singular values in `fit`.
    rotation_range : float
        Degrees; drawn from +-`rotation_range`.
    width_shift_range, height_shift_range : float, int or sequence
        A float below 1 is a fraction of the side, from 1 on pixels; an int n draws one of 0..n-1 pixels and a sign; a
        sequence draws one of its values and a sign.
    brightness_range : (float, float) or None
        Factors, through Pillow's 8-bit blend.
    shear_range : float
        Degrees.
    zoom_range : float or (float, float)
        ``1 - z .. 1 + z``, or the two ends; rows and columns are drawn apart.
    channel_shift_range : float
        Added to all channels, clipped to the image's own extremes.
    fill_mode : {"nearest", "constant", "reflect", "wrap"}
        What lies beyond the border; drawn in `~gpuseq.apply_affine_transform`.
    cval : float
        The value of "constant".
    horizontal_flip, vertical_flip : bool
        Flip half of the images.
    rescale : float or None
        Multiplier after the transforms.
    preprocessing_function : callable, str or None
        Called with each image after the transforms (with a whole batch if its attribute ``batched`` is true); it gets
        arrays that live where the batch does. "tf", "caffe" and "torch" name Keras' ``imagenet_utils`` modes, which run
        inside the kernel.
    data_format : {"channels_last", "channels_first"} or None
        Axis order. None: "channels_last".
    validation_split : float
        Fraction for ``subset="validation"``.
    interpolation_order : int
        0 to 5; above 1 is the slow path through SciPy or cupyx.
    dtype : str or None
        Of the batches: float32 (default), float16, float64, uint8; bfloat16 on a device.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where batches are made. "auto" asks the environment's ``GPUSEQ_DEVICE``, then for a GPU.
    rng : {"keras", "keyed"}
        "keras" draws Keras' own numbers. With "keyed" the numbers of a sample depend on (seed, epoch, sample) only, so
        that workers, batch size, order and shards cannot change a picture.
    conventions : {"keras", "corrected"}
        "keras" lets the height shift move columns and turns non-square images about a wrong centre, as Keras 3 does
        (keras#17398). "corrected" does what the names say.

    Raises
    ------
    ValueError
        If an argument is not one of the accepted values; the message gives both.
    DeviceError
        If a GPU is asked for and none can be used.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.ImageDataGenerator`` (Keras 3.15).

    Examples
    --------
    >>> import numpy as np
    >>> from gpuseq import ImageDataGenerator
    >>> images = np.zeros((8, 32, 32, 3), np.uint8)
    >>> generator = ImageDataGenerator(rotation_range=20, rescale=1 / 255, device="cpu")
    >>> batch = next(generator.flow(images, batch_size=4, seed=1))
    >>> batch.shape, batch.dtype
    ((4, 32, 32, 3), dtype('float32'))
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Any = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Any], Any] | str | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
        *,
        device: str = "auto",
        rng: str = "keras",
        conventions: str = "keras",
    ) -> None:
        self.device = resolve_device(device)
        logger.info("device=%r: batches are made on %s", device, self.device)
        check_choice("rng", rng, ("keras", "keyed"))
        check_choice("conventions", conventions, ("keras", "corrected"))
        check_choice("fill_mode", fill_mode, literals(FillMode))
        check_choice("interpolation_order", interpolation_order, tuple(range(6)))
        if isinstance(preprocessing_function, str):
            check_choice("preprocessing_function", preprocessing_function, PREPROCESSING_MODES)
        elif preprocessing_function is not None and not callable(preprocessing_function):
            raise ValueError(
                "preprocessing_function must be callable or one of 'tf', 'caffe', 'torch'; "
                f"got {preprocessing_function!r}"
            )
        self.rng = rng
        self.conventions = conventions
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = _number("rotation_range", rotation_range)
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = _number("shear_range", shear_range)
        self.zoom_range = _zoom(zoom_range)
        self.channel_shift_range = _number("channel_shift_range", channel_shift_range)
        self.fill_mode = fill_mode
        self.cval = _number("cval", cval)
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = None if rescale is None else _number("rescale", rescale)
        self.preprocessing_function = preprocessing_function
        self.dtype = checked_dtype(dtype, self.device)
        self.interpolation_order = int(interpolation_order)
        self.data_format = checked_data_format(data_format)
        last = self.data_format == "channels_last"
        self.channel_axis, self.row_axis, self.col_axis = (3, 1, 2) if last else (1, 2, 3)
        if validation_split and not 0 < validation_split < 1:
            raise ValueError(f"`validation_split` must be strictly between 0 and 1.  Received: {validation_split}")
        self._validation_split = validation_split
        self.mean: Any = None
        self.std: Any = None
        self.zca_whitening_matrix: Any = None
        self.brightness_range = _brightness(brightness_range)
        self._settle("zca_whitening", "featurewise_center", True)
        self._settle("zca_whitening", "featurewise_std_normalization", False)
        self._settle("featurewise_std_normalization", "featurewise_center", True)
        self._settle("samplewise_std_normalization", "samplewise_center", True)
        _ = self.transform_ranges  # bad shift ranges fail here

    def _settle(self, cause: str, name: str, value: bool) -> None:
        """Let one option override another, with Keras' warning where that changes something."""
        if getattr(self, cause) and bool(getattr(self, name)) is not value:
            setattr(self, name, value)
            warnings.warn(
                f"This ImageDataGenerator specifies `{cause}`, which overrides setting of `{name}`.", stacklevel=3
            )

    def __setattr__(self, name: str, value: Any) -> None:
        # What was derived from the attributes is derived anew: Keras reads them at every batch.
        object.__setattr__(self, name, value)
        self.__dict__.pop("_derived", None)

    def _derive(self, key: Any, make: Callable[[], Any]) -> Any:
        derived = self.__dict__.setdefault("_derived", {})
        if key not in derived:
            derived[key] = make()
        return derived[key]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_derived"}

    # What the arguments mean to the layers below.

    @property
    def transform_ranges(self) -> TransformRanges:
        """The ranges that parameters are drawn from."""
        ranges: TransformRanges = self._derive("ranges", self._make_ranges)
        return ranges

    def _make_ranges(self) -> TransformRanges:
        return TransformRanges(
            rotation=float(self.rotation_range),
            height_shift=ShiftRange.parse("height_shift_range", self.height_shift_range),
            width_shift=ShiftRange.parse("width_shift_range", self.width_shift_range),
            shear=float(self.shear_range),
            zoom=(float(self.zoom_range[0]), float(self.zoom_range[1])),
            horizontal_flip=bool(self.horizontal_flip),
            vertical_flip=bool(self.vertical_flip),
            channel_shift=float(self.channel_shift_range),
            brightness=self.brightness_range and tuple(float(end) for end in self.brightness_range),
        )

    def _options(self, source_format: str, data_format: str, dtype: str, round_affine: bool) -> AugmentOptions:
        def make() -> AugmentOptions:
            mode = self.preprocessing_function
            return AugmentOptions(
                source_format=cast(DataFormat, source_format),
                data_format=cast(DataFormat, data_format),
                dtype=dtype,
                fill_mode=cast(FillMode, self.fill_mode),
                cval=float(self.cval),
                order=min(self.interpolation_order, 1),
                conventions=cast(Any, self.conventions),
                round_affine=round_affine,
                preprocessing=cast(Any, mode) if isinstance(mode, str) else None,
                rescale=float(self.rescale) if self.rescale else 1.0,
                samplewise_center=bool(self.samplewise_center),
                samplewise_std=bool(self.samplewise_std_normalization),
                featurewise_center=bool(self.featurewise_center) and self.mean is not None,
                featurewise_std=bool(self.featurewise_std_normalization) and self.std is not None,
            )

        options: AugmentOptions = self._derive(("options", source_format, data_format, dtype, round_affine), make)
        return options

    def _statistics(self, num_channels: int, data_format: str) -> Statistics | None:
        """Per-channel statistics; None where the user's own mean or std is not one number per channel."""

        def per_channel(values: Any) -> np.ndarray | None:
            if values is None:
                return None
            values = np.asarray(values.get() if is_cupy(values) else values)
            if values.ndim == 0:
                return np.full(num_channels, values)
            axis = values.ndim - 1 if data_format == "channels_last" else values.ndim - 3
            flat = values.reshape(-1)
            if axis < 0 or values.shape[axis] != values.size or values.size not in (1, num_channels):
                raise ValueError
            return np.broadcast_to(flat, num_channels).copy()

        def make() -> Statistics | None:
            try:
                return Statistics(per_channel(self.mean), per_channel(self.std), self.zca_whitening_matrix)
            except ValueError:
                return None

        statistics: Statistics | None = self._derive(("statistics", num_channels, data_format), make)
        return statistics

    def check_conventions(self, image_size: tuple[int, int]) -> None:
        """Warn, once per generator, where Keras' conventions and the arguments' names part ways.

        Parameters
        ----------
        image_size : (int, int)
            Rows and columns of the images to come.
        """
        ranges = self.transform_ranges
        differs = ranges.height_shift != ranges.width_shift or (ranges.has_affine and image_size[0] != image_size[1])
        if self.conventions == "keras" and differs and not self.__dict__.get("_told_conventions"):
            self._told_conventions = True
            warnings.warn(
                'conventions="keras": as in Keras 3, height_shift_range moves columns, width_shift_range moves rows, and '
                'non-square images turn about a point off their centre (keras#17398). Pass conventions="corrected" for '
                "what the names say.",
                stacklevel=5,
            )

    # Batches.

    def process(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        source_format: str | None = None,
        data_format: str | None = None,
        dtype: str | None = None,
        round_affine: bool = False,
    ) -> Array:
        """Transform and normalise a batch by given parameters; everything random is in them.

        Parameters
        ----------
        images : array
            Shape ``(M, H, W, C)`` or ``(M, C, H, W)``; uint8, uint16, float32 or float64. Not written to.
        params : numpy.ndarray
            Shape ``(N,)``, dtype `~gpuseq.arrays.PARAMS_DTYPE`, on the host.
        rows : numpy.ndarray or None
            Shape ``(N,)``, int64: the row of `images` for each sample. None: in order.
        source_format, data_format : {"channels_last", "channels_first"} or None
            Axis order of `images` and of the result. None: the generator's.
        dtype : str or None
            Of the result. None: the generator's.
        round_affine : bool
            See `~gpuseq.options.AugmentOptions`.

        Returns
        -------
        array
            Shape ``(N, ...)``, where `images` lives.
        """
        source_format = source_format or self.data_format
        data_format = data_format or self.data_format
        dtype = dtype or self.dtype
        options = self._options(source_format, data_format, dtype, round_affine)
        self._warn_unfitted()
        statistics = self._statistics(images.shape[3 if source_format == "channels_last" else 1], data_format)
        if statistics is None or self._is_customised:
            return self._process_each(images, params, rows, options)
        if self.interpolation_order > 1:
            images = ops.warp_spline(images if rows is None else images[rows], params, options, self.interpolation_order)
            rows, params = None, without_affine(params)
        whitens = bool(self.zca_whitening) and statistics.whitening is not None
        if not whitens and not callable(self.preprocessing_function):
            return ops.augment(images, params, options, indices=rows, statistics=statistics)
        compute = options.compute_dtype.name
        if callable(self.preprocessing_function):
            bare = AugmentOptions(
                **{name: getattr(options, name) for name in ("source_format", "data_format", "fill_mode", "cval", "order")},
                conventions=options.conventions,
                round_affine=round_affine,
                dtype=compute,
            )
            batch = self._preprocessed(ops.augment(images, params, bare, indices=rows))
            after = replace(options, source_format=options.data_format, dtype=compute if whitens else dtype)
            batch = ops.standardize(batch, after, statistics)
        else:
            wide = replace(options, dtype=compute)
            batch = ops.augment(images, params, wide, indices=rows, statistics=statistics)
        if whitens:
            xp = array_module(batch)
            batch = ops.whiten(batch, xp.asarray(self.zca_whitening_matrix)).astype(dtype, copy=False)
        return batch

    def _preprocessed(self, batch: Array) -> Array:
        function = cast(Callable[[Any], Any], self.preprocessing_function)
        xp = array_module(batch)
        if getattr(function, "batched", False):
            return xp.asarray(function(batch))
        for row in range(len(batch)):
            batch[row] = function(batch[row])
        return batch

    @property
    def _is_customised(self) -> bool:
        """Whether a subclass has its own way with single images, as Keras users write them."""
        own, base = type(self), ImageDataGenerator
        return own.apply_transform is not base.apply_transform or own.standardize is not base.standardize

    def _process_each(self, images: Array, params: np.ndarray, rows: np.ndarray | None, options: AugmentOptions) -> Array:
        """Keras' own loop, image by image: for subclasses, and for a mean or std that is not one number per channel."""
        xp = array_module(images)
        batch = images if rows is None else images[rows]
        if options.source_format != self.data_format:
            batch = xp.moveaxis(batch, 3, 1) if self.data_format == "channels_first" else xp.moveaxis(batch, 1, 3)
        done = []
        for image, parameters in zip(batch, params_to_dicts(params), strict=True):
            image = self.apply_transform(image.astype(options.compute_dtype), parameters)
            done.append(self.standardize(image))
        return xp.stack(done).astype(options.dtype, copy=False)

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
        *,
        rng: str | None = None,
        shard: tuple[int, int] | str | None = None,
        remainder: str = "pad",
    ) -> NumpyArrayIterator:
        """Make batches of an array in memory.

        Parameters
        ----------
        x, y, sample_weight
            See `~gpuseq.NumpyArrayIterator`.
        batch_size : int
            Samples per batch.
        shuffle : bool
            A new order each epoch.
        seed : int or None
            Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream, as Keras does.
        save_to_dir, save_prefix, save_format, ignore_class_split, subset
            See `~gpuseq.NumpyArrayIterator`.
        rng : {"keras", "keyed"} or None
            None: the generator's.
        shard : None, (int, int) or "auto"
            ``(rank, world)``: walk only this rank's part of each epoch. "auto" asks the launcher.
        remainder : {"pad", "drop", "exact"}
            Samples that do not divide by the world size are filled up, left out, or filled up with sample weight 0.

        Returns
        -------
        NumpyArrayIterator
            Its batches are x, ``(x, y)`` or ``(x, y, sample_weight)``, with a list for x where there are more inputs.

        Raises
        ------
        ValueError
            If an argument is not one of the accepted values.
        """
        return NumpyArrayIterator(
            x,
            y,
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            data_format=self.data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            ignore_class_split=ignore_class_split,
            subset=subset,
            dtype=self.dtype,
            rng=rng,
            shard=shard,
            remainder=remainder,
        )

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Any = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        *,
        on_error: OnError = "raise",
        prefetch: int = 2,
        cache: str | None = None,
        memory_limit: int | None = None,
        decoder: str = "auto",
        exif_orientation: bool = False,
        max_pixels: int | None = None,
        num_threads: int | None = None,
        rng: str | None = None,
        shard: tuple[int, int] | str | None = None,
        remainder: str = "pad",
        verbose: bool = True,
    ) -> DirectoryIterator:
        """Make batches of the image files in a folder with one subfolder per class.

        Parameters
        ----------
        directory : str or os.PathLike
            The folder.
        target_size : (int, int)
            Rows and columns to resize to.
        color_mode : {"rgb", "rgba", "grayscale"}
            3, 4 or 1 channels.
        classes : sequence of str or None
            Subfolders, in the order of the class indices. None: all, sorted.
        class_mode : {"categorical", "binary", "sparse", "input", None}
            Labels as one-hot rows, 0 or 1, class indices, the images themselves, or none.
        batch_size, shuffle, seed
            See `flow`.
        save_to_dir, save_prefix, save_format
            See `~gpuseq.NumpyArrayIterator`.
        follow_links : bool
            Enter symbolic links.
        subset : {"training", "validation"} or None
            Which part of each class, with ``validation_split``.
        interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
            Pillow's filter for the resize.
        keep_aspect_ratio : bool
            Crop the centre to the target's aspect ratio before the resize.
        on_error : {"raise", "skip", "substitute"} or callable
            What to do about a file that cannot be read or decoded. "substitute" takes the next good image of the batch,
            with its label. A callable gets ``(path, error)`` and returns an image ``(H, W, C)``, or None to skip. Files
            passed over are listed in ``bad_files`` and logged at the end of the epoch.
        prefetch : int
            Batches decoded ahead on a worker thread.
        cache : {None, "host", "device", "auto"}
            Keep decoded images after their first visit.
        memory_limit : int or None
            Bytes for the cache. None: 70 % of what is free.
        decoder : {"auto", "dali", "nvimgcodec", "pillow"}
            Who decodes; what it cannot decode exactly goes to Pillow.
        exif_orientation : bool
            Turn images as their EXIF tag says. Keras does not.
        max_pixels : int or None
            Refuse larger images from their header. None: Pillow's own limit.
        num_threads : int or None
            For decoding. None: all the cores this process may use.
        rng, shard, remainder
            See `flow`.
        verbose : bool
            Print how many images were found, as Keras does.

        Returns
        -------
        DirectoryIterator
            Its batches are ``(x, y)``, or x with ``class_mode=None``.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            If there is no such folder.
        ValueError
            If there are no images, or an argument is not one of the accepted values.
        """
        return DirectoryIterator(
            directory,
            self,
            target_size=target_size,
            color_mode=color_mode,
            keep_aspect_ratio=keep_aspect_ratio,
            classes=classes,
            class_mode=class_mode,
            data_format=self.data_format,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            dtype=self.dtype,
            on_error=on_error,
            prefetch=prefetch,
            cache=cache,
            memory_limit=memory_limit,
            decoder=decoder,
            exif_orientation=exif_orientation,
            max_pixels=max_pixels,
            num_threads=num_threads,
            rng=rng,
            shard=shard,
            remainder=remainder,
            verbose=verbose,
        )

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Any = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        *,
        on_error: OnError = "raise",
        prefetch: int = 2,
        cache: str | None = None,
        memory_limit: int | None = None,
        decoder: str = "auto",
        exif_orientation: bool = False,
        max_pixels: int | None = None,
        num_threads: int | None = None,
        rng: str | None = None,
        shard: tuple[int, int] | str | None = None,
        remainder: str = "pad",
        verbose: bool = True,
        **kwargs: Any,
    ) -> DataFrameIterator:
        """Make batches of the image files that a data frame names and labels.

        Parameters
        ----------
        dataframe : pandas.DataFrame
            One row per file. Not changed.
        directory : str, os.PathLike or None
            The folder that names are relative to; None where they are paths already.
        x_col : str
            The column of file names.
        y_col : str or list of str
            The column of labels, several with "multi_output" and "raw".
        weight_col : str or None
            The column of sample weights.
        target_size, color_mode, batch_size, shuffle, seed, subset, interpolation
            See `flow_from_directory`.
        classes : sequence of str or None
            Labels to keep, in the order of the class indices. None: all, sorted.
        class_mode : {"categorical", "binary", "sparse", "input", "multi_output", "raw", None}
            As in `flow_from_directory`; "raw" hands over the column's values, "multi_output" a list of columns.
        save_to_dir, save_prefix, save_format
            See `~gpuseq.NumpyArrayIterator`.
        validate_filenames : bool
            Leave out rows whose file is missing or has another extension.
        on_error, prefetch, cache, memory_limit, decoder, exif_orientation, max_pixels, num_threads, verbose
            See `flow_from_directory`.
        rng, shard, remainder
            See `flow`.
        **kwargs
            ``keep_aspect_ratio``, as in `flow_from_directory`; and Keras' deprecated ``has_ext``, ``sort`` and
            ``drop_duplicates``, which warn and do nothing.

        Returns
        -------
        DataFrameIterator
            Its batches are ``(x, y)``, ``(x, y, weight)``, or x with ``class_mode=None``.

        Raises
        ------
        ValueError
            If a column or labels are missing, or an argument is not one of the accepted values.
        TypeError
            If a column holds values of the wrong type.
        """
        for name, advice in _DEPRECATED.items():
            if name in kwargs:
                del kwargs[name]
                warnings.warn(f"{name} is deprecated, {advice}", DeprecationWarning, stacklevel=2)
        if class_mode == "other":
            warnings.warn(
                '`class_mode="other"` is deprecated, please use `class_mode="raw"`.', DeprecationWarning, stacklevel=2
            )
            class_mode = "raw"
        return DataFrameIterator(
            dataframe,
            directory,
            self,
            x_col=x_col,
            y_col=y_col,
            weight_col=weight_col,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            data_format=self.data_format,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            validate_filenames=validate_filenames,
            dtype=self.dtype,
            on_error=on_error,
            prefetch=prefetch,
            cache=cache,
            memory_limit=memory_limit,
            decoder=decoder,
            exif_orientation=exif_orientation,
            max_pixels=max_pixels,
            num_threads=num_threads,
            rng=rng,
            shard=shard,
            remainder=remainder,
            verbose=verbose,
            **kwargs,
        )

    # Single images.

    def standardize(self, x: Array) -> Array:
        """Normalise an image or a batch, in place where its dtype allows, as Keras does.

        Parameters
        ----------
        x : array
            Floating; one image or a batch, on the host or a device. Written to.

        Returns
        -------
        array
            Shape of `x`. Samplewise steps treat all of `x` as one sample.

        References
        ----------
        ``ImageDataGenerator.standardize`` of Keras 3.15.
        """
        xp = array_module(x)
        if isinstance(self.preprocessing_function, str):
            axis = x.ndim - 4 + self.channel_axis
            options = AugmentOptions(preprocessing=cast(Any, self.preprocessing_function), dtype=x.dtype.name)
            planes = xp.moveaxis(x, axis, -1)
            x = xp.moveaxis(ops.standardize(planes.reshape(-1, *planes.shape[-3:]), options).reshape(planes.shape), -1, axis)
        elif self.preprocessing_function:
            x = self.preprocessing_function(x)
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= xp.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= xp.std(x, keepdims=True) + 1e-6
        self._warn_unfitted()
        if self.featurewise_center and self.mean is not None:
            x -= xp.asarray(self.mean)
        if self.featurewise_std_normalization and self.std is not None:
            x /= xp.asarray(self.std) + 1e-6
        if self.zca_whitening and self.zca_whitening_matrix is not None:
            flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
            x = (flat @ xp.asarray(self.zca_whitening_matrix)).reshape(x.shape)
        return x

    def _warn_unfitted(self) -> None:
        wanted = {
            "featurewise_center": self.mean,
            "featurewise_std_normalization": self.std,
            "zca_whitening": self.zca_whitening_matrix,
        }
        for name, value in wanted.items():
            if getattr(self, name) and value is None:
                warnings.warn(_UNFITTED.format(name), stacklevel=4)

    def get_random_transform(self, img_shape: tuple[int, ...], seed: int | None = None) -> dict[str, float | None]:
        """Draw the parameters of one image.

        Parameters
        ----------
        img_shape : tuple of int
            Of the image, in the generator's axis order.
        seed : int or None
            Draw from ``RandomState(seed)``. None draws from NumPy's global stream.

        Returns
        -------
        dict
            theta, shear in degrees, tx, ty in pixels, zx, zy, flip_horizontal, flip_vertical, and
            channel_shift_intensity, brightness or None.

        References
        ----------
        ``ImageDataGenerator.get_random_transform`` of Keras 3.15.
        """
        stream: Any = np.random if seed is None else np.random.RandomState(seed)
        height, width = img_shape[self.row_axis - 1], img_shape[self.col_axis - 1]
        return params_to_dicts(draw_params(stream, self.transform_ranges, 1, height, width))[0]

    def apply_transform(self, x: Array, transform_parameters: dict[str, Any]) -> Array:
        """Transform one image by given parameters.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device. Not written to.
        transform_parameters : dict
            As `get_random_transform` gives it; what is missing is not applied.

        Returns
        -------
        array
            Shape of `x`, where `x` lives.

        References
        ----------
        ``ImageDataGenerator.apply_transform`` of Keras 3.15.
        """
        params = identity_params(1)
        for name in _PARAMETERS:
            if name in transform_parameters:
                params[name] = transform_parameters[name]
        for name in ("channel_shift_intensity", "brightness"):
            if transform_parameters.get(name) is not None:
                params[name] = transform_parameters[name]
        options = AugmentOptions(
            fill_mode=cast(FillMode, self.fill_mode), cval=float(self.cval), conventions=cast(Any, self.conventions)
        )
        if not is_cupy(x):
            x = np.asarray(x)
        axes = (self.row_axis - 1, self.col_axis - 1, self.channel_axis - 1)
        return transform_image(x.transpose(axes), params, options, self.interpolation_order).transpose(np.argsort(axes))

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """Transform one image at random: `get_random_transform`, then `apply_transform`.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device.
        seed : int or None
            As in `get_random_transform`.
        """
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    # Statistics.

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Find the mean, standard deviation and whitening matrix of sample data.

        Sets `mean` and `std`, each shape ``(1, 1, C)`` or ``(C, 1, 1)``, and `zca_whitening_matrix`, as asked for at
        construction. Sums are taken in float64.

        Parameters
        ----------
        x : array
            Rank 4, in the generator's axis order; on the host or a device. Not written to.
        augment : bool
            Fit on randomly transformed images.
        rounds : int
            How many transformed copies of `x` to fit on.
        seed : int or None
            For the transforms.

        Raises
        ------
        ValueError
            If `x` has another rank.
        MemoryError
            If whitening would need more memory than there is; the message says how much.

        References
        ----------
        ``ImageDataGenerator.fit`` of Keras 3.15.
        """
        x = x if is_cupy(x) else np.asarray(x)
        if x.ndim != 4:
            raise ValueError(f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}")
        num_channels = x.shape[self.channel_axis]
        if num_channels not in (1, 3, 4):
            warnings.warn(
                f'Expected input to be images (as Numpy array) following the data format convention "{self.data_format}" '
                f"(channels on axis {self.channel_axis}), i.e. expected either 1, 3 or 4 channels on axis "
                f"{self.channel_axis}. However, it was passed an array with shape {x.shape} ({num_channels} channels).",
                stacklevel=2,
            )
        fit_generator(self, _chunks(self, x, augment, rounds, seed))

    def fit_batches(self, batches: Iterable[Any]) -> None:
        """Find mean and standard deviation of data that come in batches, in one pass and in bounded memory.

        Parameters
        ----------
        batches : iterable of array
            Each of rank 4, in the generator's axis order, before rescaling; walked once.

        Raises
        ------
        ValueError
            With ``zca_whitening``, which needs all images at once, or if there is no batch.
        """
        if self.zca_whitening:
            raise ValueError("zca_whitening needs all images at once: use fit(x) on an array that fits in memory")
        dtype = np.float64 if self.dtype == "float64" else np.float32
        factor = self.rescale or 1.0
        fit_generator(self, (batch.astype(dtype) * dtype(factor) for batch in batches))

    def fit_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        batch_size: int = 32,
        interpolation: str = "nearest",
        *,
        progress: bool = True,
        **options: Any,
    ) -> None:
        """Find mean and standard deviation of the images in a folder, larger than memory or not.

        Parameters
        ----------
        directory : str or os.PathLike
            A folder with one subfolder per class.
        target_size, color_mode, batch_size, interpolation
            See `flow_from_directory`.
        progress : bool
            Show a progress bar on the terminal.
        **options
            Further options of `flow_from_directory`.

        Raises
        ------
        ValueError
            With ``zca_whitening``, or if there are no images.
        """
        from tqdm import tqdm

        reader = ImageDataGenerator(data_format=self.data_format, device=self.device)
        iterator = reader.flow_from_directory(
            directory,
            target_size=target_size,
            color_mode=color_mode,
            class_mode=None,
            batch_size=batch_size,
            shuffle=False,
            interpolation=interpolation,
            **{"verbose": False, **options},
        )
        with tqdm(total=iterator.n, unit="img", desc="fit", disable=not progress, leave=False) as bar:

            def batches() -> Iterable[Any]:
                for index in range(len(iterator)):
                    batch = iterator[index]
                    yield batch
                    bar.update(len(batch))

            try:
                self.fit_batches(batches())
            finally:
                iterator.close()

    def __repr__(self) -> str:
        from inspect import signature

        changed = []
        for name, parameter in signature(ImageDataGenerator.__init__).parameters.items():
            value = self._validation_split if name == "validation_split" else getattr(self, name, parameter.default)
            default = {"zoom_range": [1, 1], "dtype": "float32", "data_format": "channels_last"}.get(name, parameter.default)
            if name not in ("self", "device") and not np.array_equal(np.asarray(value), np.asarray(default)):
                changed.append(f"{name}={value!r}")
        return f"ImageDataGenerator({', '.join([*changed, f'device={self.device!r}'])})"


_DEPRECATED = {
    "has_ext": "filenames in the dataframe have to match the exact filenames in disk.",
    "sort": "batches will be created in the same order than the filenames provided if `shuffle` is set to `False`.",
    "drop_duplicates": "you can drop duplicates by using the pandas.DataFrame.drop_duplicates method.",
}


def _chunks(generator: ImageDataGenerator, x: Array, augment: bool, rounds: int, seed: int | None) -> Iterable[Array]:
    """Yield what `fit` looks at, in pieces: rescaled images, transformed where asked, parameters drawn as Keras does."""
    dtype = np.dtype(np.float64 if generator.dtype == "float64" else np.float32)
    scaled = replace(
        AugmentOptions(cval=float(generator.cval), dtype=dtype.name),
        fill_mode=cast(FillMode, generator.fill_mode),
        conventions=cast(Any, generator.conventions),
        source_format=cast(DataFormat, generator.data_format),
        data_format=cast(DataFormat, generator.data_format),
        order=min(generator.interpolation_order, 1),
    )
    height, width = x.shape[generator.row_axis], x.shape[generator.col_axis]
    stream: Any = np.random if seed is None else np.random.RandomState(seed)
    total = len(x) * rounds if augment else len(x)
    params = draw_params(stream, generator.transform_ranges, total, height, width) if augment else None
    step = max(1, (1 << 26) // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, total, step):
        stop = min(start + step, total)
        chunk = x[np.arange(start, stop) % len(x)].astype(dtype)
        if generator.rescale:
            chunk *= generator.rescale
        if params is not None:
            part = params[start:stop]
            if generator.interpolation_order > 1:
                chunk = ops.warp_spline(chunk, part, scaled, generator.interpolation_order)
                part = without_affine(part)
            chunk = ops.augment(chunk, part, scaled)
        yield chunk


def _number(name: str, value: Any) -> Any:
    if isinstance(value, (bool, int, float, np.integer, np.floating)) and np.isfinite(value):
        return value
    raise ValueError(f"`{name}` must be a finite number; got {value!r}")


def _zoom(value: Any) -> list[float]:
    if isinstance(value, (float, int)):
        pair = [1 - value, 1 + value]
    elif np.ndim(value) == 1 and len(value) == 2 and all(isinstance(end, (float, int, np.number)) for end in value):
        pair = [value[0], value[1]]
    else:
        raise ValueError(f"`zoom_range` should be a float or a tuple or list of two floats. Received: {value}")
    for end in pair:
        _number("zoom_range", end)
    return pair


def _brightness(value: Any) -> Any:
    if value is not None:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(f"`brightness_range should be tuple or list of two floats. Received: {value}")
        for end in value:
            _number("brightness_range", end)
    return value
