"""`ImageDataGenerator`: Keras' argument list and methods, over the rooms that do the work."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from gpuseq.base.arguments import check_choice, checked_arguments, checked_data_format, checked_dtype, warn
from gpuseq.base.devices import resolve_device
from gpuseq.base.errors import EmptyBatchError
from gpuseq.base.types import (
    Array,
    BatchDType,
    Cache,
    ClassMode,
    ColorMode,
    Conventions,
    DataFormat,
    DecoderChoice,
    Device,
    FactorRange,
    FillMode,
    FrameClassMode,
    Interpolation,
    Preprocessing,
    Remainder,
    Rng,
    Shard,
    ShiftRange,
    Size,
    Subset,
    ZoomRange,
    literals,
)
from gpuseq.iterators.arrays import NumpyArrayIterator, as_array
from gpuseq.iterators.files import DataFrameIterator, DirectoryIterator
from gpuseq.iterators.iterator import Iterator
from gpuseq.plan.columns import params_to_dicts
from gpuseq.plan.draw import Drawing, draw_params, draw_with
from gpuseq.plan.ranges import TransformRanges
from gpuseq.sources.options import READ_ARGUMENTS, OnError
from gpuseq.transforms import fitting, settings
from gpuseq.transforms.batch import BatchTransform, checked_image

if TYPE_CHECKING:
    from gpuseq.plan.policies.recipe import Augmentations, Recipe

__all__ = ["ImageDataGenerator"]

logger = logging.getLogger("gpuseq")

DIRECTORY_OPTIONS = ("classes", "follow_links", "keep_aspect_ratio", "verbose", *READ_ARGUMENTS)
"""What `fit_directory` hands on to the iterator."""

_DEPRECATED = {
    "has_ext": "filenames in the dataframe have to match the exact filenames in disk.",
    "sort": "batches will be created in the same order than the filenames provided if `shuffle` is set to `False`.",
    "drop_duplicates": "you can drop duplicates by using the pandas.DataFrame.drop_duplicates method.",
}


class ImageDataGenerator:  # numpydoc ignore=PR02
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
    augmentations : Augmentation, str, list of them, or None
        Drawn for each sample, after the ranges above and before everything from `preprocessing_function` on, on uint8
        and as Pillow does them: ``[gpuseq.RandAugment(), gpuseq.RandomErasing(0.25)]``, ``"rand-m9-mstd0.5-inc1"``.
        What the ranges above make is rounded to uint8 for them. Their numbers are drawn apart from all others, which
        stay the same. Erasing comes last, on the normalised batch.

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

    _array_iterator: ClassVar[type[NumpyArrayIterator]] = NumpyArrayIterator
    _directory_iterator: ClassVar[type[DirectoryIterator]] = DirectoryIterator
    _frame_iterator: ClassVar[type[DataFrameIterator]] = DataFrameIterator

    @checked_arguments()
    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: ShiftRange = 0.0,
        height_shift_range: ShiftRange = 0.0,
        brightness_range: FactorRange | None = None,
        shear_range: float = 0.0,
        zoom_range: ZoomRange = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: FillMode = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Any], Any] | Preprocessing | None = None,
        data_format: DataFormat | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: BatchDType | None = None,
        *,
        device: Device = "auto",
        rng: Rng = "keras",
        conventions: Conventions = "keras",
        augmentations: Augmentations | None = None,
    ) -> None:
        # First: what dtypes there are depends on it.
        self.device = resolve_device(device)
        logger.info("device=%r: batches are made on %s", device, self.device)
        check_choice("rng", rng, literals(Rng))
        check_choice("conventions", conventions, literals(Conventions))
        check_choice("fill_mode", fill_mode, literals(FillMode))
        check_choice("interpolation_order", interpolation_order, tuple(range(6)))
        self.preprocessing_function = settings.checked_preprocessing(preprocessing_function)
        self.augmentations = augmentations
        self.rng = rng
        self.conventions = conventions
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = settings.checked_number("rotation_range", rotation_range)
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = settings.checked_number("shear_range", shear_range)
        self.zoom_range = settings.checked_zoom(zoom_range)
        self.channel_shift_range = settings.checked_number("channel_shift_range", channel_shift_range)
        self.fill_mode = fill_mode
        self.cval = settings.checked_number("cval", cval)
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = None if rescale is None else settings.checked_number("rescale", rescale)
        self.dtype = checked_dtype(dtype, self.device)
        settings.check_rescale(self.rescale, self.dtype)
        self.interpolation_order = int(interpolation_order)
        self.data_format: DataFormat = checked_data_format(data_format)
        self._is_told_format = data_format is not None
        last = self.data_format == "channels_last"
        self.channel_axis, self.row_axis, self.col_axis = (3, 1, 2) if last else (1, 2, 3)
        self._validation_split = settings.checked_split(validation_split)
        self.mean: Any = None
        self.std: Any = None
        self.zca_whitening_matrix: Any = None
        self.brightness_range = settings.checked_brightness(brightness_range)
        # The last attributes: options override each other once all of them are known.
        settings.settle(self)
        settings.check_flags(self)
        self._derived()  # bad shift ranges and augmentations fail here

    # What follows from the attributes.

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, and forget what was derived from the attributes: Keras reads them at every batch."""
        object.__setattr__(self, name, value)
        self.__dict__.pop("_kept", None)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, without what follows from them: for copies and pickles."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def _derived(self) -> _Derived:
        """Return what follows from the attributes: the same values for as long as none of them changes.

        Setting an attribute drops the list that they are kept in. A thread that is deriving them at that moment puts
        them into the dropped list, so that what follows from older attributes is never taken for newer.
        """
        # A list and no attribute of its own: whoever has it holds on to the one that was current when the deriving
        # began.
        kept: list[_Derived] = self.__dict__.setdefault("_kept", [])
        content = settings.content_of(self)
        if not kept or kept[-1].content != content:
            ranges = settings.ranges_of(self)
            recipe = _recipe_of(self.augmentations)
            one_image = self._transform_and_standardize if self._is_customised else None
            transform = BatchTransform.of(
                self, ranges, one_image, draws_its_own=self._draws_its_own, has_augmentations=recipe is not None
            )
            kept[:] = [_Derived(content, ranges, recipe, transform)]
        return kept[-1]

    @property
    def _transform_ranges(self) -> TransformRanges:
        """The ranges that parameters are drawn from."""
        return self._derived().ranges

    @property
    def _recipe(self) -> Recipe | None:
        """The augmentations that programs are drawn from, None without any."""
        return self._derived().recipe

    @property
    def _batch_transform(self) -> BatchTransform:
        """What is done to a batch whose parameters are drawn: a frozen value, another one once an attribute changes."""
        return self._derived().transform

    @property
    def _is_customised(self) -> bool:
        """Whether a subclass has its own way with single images, as Keras users write them."""
        # By the class and not by the instance, as Keras' users override methods.
        own, base = type(self), ImageDataGenerator
        return own.apply_transform is not base.apply_transform or own.standardize is not base.standardize

    @property
    def _draws_its_own(self) -> bool:
        """Whether a subclass has its own `get_random_transform`, which is then asked for each image, as in Keras."""
        return type(self).get_random_transform is not ImageDataGenerator.get_random_transform

    def _transform_and_standardize(self, image: Array, parameters: dict[str, Any]) -> Array:
        return self.standardize(self.apply_transform(image, parameters))

    @property
    def _told_format(self) -> DataFormat | None:
        """The axis order that a user chose; None where nobody did, and a framework may have its own."""
        return self.data_format if self._is_told_format or self.data_format != "channels_last" else None

    # Batches.

    @checked_arguments()
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
        subset: Subset | None = None,
        *,
        rng: Rng | None = None,
        shard: Shard | None = None,
        remainder: Remainder = "pad",
        masks: Any = None,
        memory_limit: int | None = None,
        ignore_value: int | None = None,
    ) -> NumpyArrayIterator:
        """Make batches of an array in memory.

        Parameters
        ----------
        x : array or (array, array or list of array)
            Images, shape ``(n, H, W, C)`` or ``(n, C, H, W)`` as `data_format` says; with a pair, the second holds
            further inputs of length n that come beside the images unchanged. uint8, uint16, float32 and float64 are
            kept as they are until an op needs floats; not copied, not written to.
        y : array or None
            Labels, length n.
        sample_weight : array or None
            Shape ``(n,)``.
        batch_size : int
            Samples per batch.
        shuffle : bool
            A new order each epoch.
        seed : int or None
            Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are
            Keras' own way.
        save_to_dir, save_prefix, save_format
            Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
        ignore_class_split : bool
            Do not check that both subsets have all classes.
        subset : {"training", "validation"} or None
            Which part, with the generator's ``validation_split``.
        rng : {"keras", "keyed"} or None
            Keras' own numbers, or numbers that depend on (seed, epoch, sample) only. None: the generator's.
        shard : None, (int, int) or "auto"
            ``(rank, world)``: take only this rank's part of each epoch. "auto" asks the launcher.
        remainder : {"pad", "drop", "exact"}
            Samples that do not divide by the world size are filled up, left out, or filled up with sample weight 0.
        masks : array, list of array or None
            In the place of `y`: ``(n, H, W)``, or like `x` with any number of channels. Each mask gets the affine map
            and the flips of its image, with nearest-neighbour resampling, and nothing else; its dtype stays.
        memory_limit : int or None
            Bytes that `x` may take on a GPU; a larger array stays on the host, and each batch is copied. None: 70 % of
            what is free.
        ignore_value : int or None
            The level, 0 to 255, that masks get where the transform shows what lies beyond the border, for a loss that
            leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images
            are, by `fill_mode`.

        Returns
        -------
        NumpyArrayIterator
            Its batches are x, ``(x, y)`` or ``(x, y, sample_weight)``, with a list for x where there are more inputs;
            with `masks` ``(x, masks)`` or ``(x, masks, sample_weight)``.

        Raises
        ------
        ValueError
            If an argument is not one of the accepted values.
        """
        return self._array_iterator(
            x,
            y,
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            data_format=self._told_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            ignore_class_split=ignore_class_split,
            dtype=self.dtype,
            rng=rng,
            shard=shard,
            remainder=remainder,
            masks=masks,
            memory_limit=memory_limit,
            ignore_value=ignore_value,
        )

    @checked_arguments()
    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: Size = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: ClassMode | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: Subset | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        *,
        on_error: OnError = "raise",
        prefetch: int = 2,
        cache: Cache | None = None,
        memory_limit: int | None = None,
        decoder: DecoderChoice = "auto",
        exif_orientation: bool = False,
        max_pixels: int | None = None,
        num_threads: int | None = None,
        hw_decoder_load: float = 0.65,
        deterministic: bool = False,
        rng: Rng | None = None,
        shard: Shard | None = None,
        remainder: Remainder = "pad",
        verbose: bool = True,
        mask_directory: str | os.PathLike[str] | None = None,
        mask_suffix: str = "",
        ignore_value: int | None = None,
        extensions: Sequence[str] | None = None,
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
        batch_size : int
            Samples per batch.
        shuffle : bool
            A new order each epoch.
        seed : int or None
            Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are
            Keras' own way.
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
        on_error : {"raise", "skip", "substitute"} or callable
            What to do about a file that cannot be read or decoded. "substitute" takes the next good image of the batch,
            with its label. A callable gets ``(path, error)`` and returns an image ``(H, W, C)``, or None to skip. Files
            passed over are listed in ``bad_files`` and logged at the end of the epoch. A batch of which nothing is
            left is passed over too: a loader's pass is that much shorter (with `shard` it is an error, as ranks need
            equally many batches); ``fit`` gets the next batch in its place, and ends its epoch that much further on.
        prefetch : int
            Batches decoded ahead on a worker thread.
        cache : {None, "host", "device", "auto"}
            Keep decoded images after their first visit.
        memory_limit : int or None
            Bytes for the cache. None: 70 % of what is free.
        decoder : {"auto", "dali", "nvimgcodec", "pillow", "simplejpeg"}
            The decoder; what it cannot decode exactly goes to Pillow. "auto" is simplejpeg where it is installed, else
            Pillow. On a GPU "dali" and "nvimgcodec" decode JPEG files there, to pixels that are close to Pillow's and
            not equal.
        exif_orientation : bool
            Turn images as their EXIF tag says. Keras does not.
        max_pixels : int or None
            Refuse larger images from their header. None: Pillow's own limit.
        num_threads : int or None
            For decoding. None: all the cores this process may use.
        hw_decoder_load : float
            Where the GPU decodes: share of a batch, 0 to 1, for the JPEG hardware of GPUs that have it.
        deterministic : bool
            Where the GPU decodes: let its CUDA decoder do all, so that pixels do not depend on a file's place in the
            batch; the JPEG hardware's differ slightly.
        rng : {"keras", "keyed"} or None
            Keras' own numbers, or numbers that depend on (seed, epoch, sample) only. None: the generator's.
        shard : None, (int, int) or "auto"
            ``(rank, world)``: take only this rank's part of each epoch. "auto" asks the launcher.
        remainder : {"pad", "drop", "exact"}
            Samples that do not divide by the world size are filled up, left out, or filled up with sample weight 0.
        verbose : bool
            Print how many images were found, as Keras does.
        mask_directory : str, os.PathLike or None
            A folder of masks built like `directory`: the mask of ``cats/1.jpg`` is ``cats/1`` with any image extension.
            It may lie within `directory`, or be the same one if `mask_suffix` tells masks from images. Masks are read
            as grey images, palettes as their indices, resized with "nearest", and get the geometry of their image's
            transform and nothing else. The batches are ``(x, masks)``; `class_mode` plays no part, and a folder
            without subfolders is taken as it is.
        mask_suffix : str
            What a mask's name has behind the image's: with "_mask" that of ``1.jpg`` is ``1_mask.png``.
        ignore_value : int or None
            The level, 0 to 255, that masks get where the transform shows what lies beyond the border, for a loss that
            leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images
            are, by `fill_mode`.
        extensions : sequence of str or None
            The file extensions that are taken, of all those that Pillow reads: ``["jpg", "png", "webp"]``; of an
            animation the first picture. None: Keras' own, png, jpg, jpeg, bmp, ppm, tif and tiff.

        Returns
        -------
        DirectoryIterator
            Its batches are ``(x, y)``, or x with ``class_mode=None``; masks are ``(N, H, W, 1)`` or ``(N, 1, H, W)``
            in the files' own dtype.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            If there is no such folder.
        ValueError
            If there are no images, or an argument is not one of the accepted values.
        """
        return self._directory_iterator(
            directory,
            self,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=self._told_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            keep_aspect_ratio=keep_aspect_ratio,
            dtype=self.dtype,
            on_error=on_error,
            prefetch=prefetch,
            cache=cache,
            memory_limit=memory_limit,
            decoder=decoder,
            exif_orientation=exif_orientation,
            max_pixels=max_pixels,
            num_threads=num_threads,
            hw_decoder_load=hw_decoder_load,
            deterministic=deterministic,
            rng=rng,
            shard=shard,
            remainder=remainder,
            verbose=verbose,
            mask_directory=mask_directory,
            mask_suffix=mask_suffix,
            ignore_value=ignore_value,
            extensions=extensions,
        )

    @checked_arguments("keep_aspect_ratio", *_DEPRECATED)
    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: Size = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: FrameClassMode | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: Subset | None = None,
        interpolation: Interpolation = "nearest",
        validate_filenames: bool = True,
        *,
        on_error: OnError = "raise",
        prefetch: int = 2,
        cache: Cache | None = None,
        memory_limit: int | None = None,
        decoder: DecoderChoice = "auto",
        exif_orientation: bool = False,
        max_pixels: int | None = None,
        num_threads: int | None = None,
        hw_decoder_load: float = 0.65,
        deterministic: bool = False,
        rng: Rng | None = None,
        shard: Shard | None = None,
        remainder: Remainder = "pad",
        verbose: bool = True,
        mask_col: str | None = None,
        mask_directory: str | os.PathLike[str] | None = None,
        mask_suffix: str = "",
        ignore_value: int | None = None,
        extensions: Sequence[str] | None = None,
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
        target_size : (int, int)
            Rows and columns to resize to.
        color_mode : {"rgb", "rgba", "grayscale"}
            3, 4 or 1 channels.
        batch_size : int
            Samples per batch.
        shuffle : bool
            A new order each epoch.
        seed : int or None
            Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are
            Keras' own way.
        subset : {"training", "validation"} or None
            Which part, with the generator's ``validation_split``.
        interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
            Pillow's filter for the resize.
        classes : sequence of str or None
            Labels to keep, in the order of the class indices. None: all, sorted.
        class_mode : {"categorical", "binary", "sparse", "input", "multi_output", "raw", None}
            Labels as one-hot rows, 0 or 1, class indices, the images themselves, a list of columns, the values of
            the column as they are, or none.
        save_to_dir, save_prefix, save_format
            Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
        validate_filenames : bool
            Leave out rows whose file is missing or has another extension.
        on_error : {"raise", "skip", "substitute"} or callable
            What to do about a file that cannot be read or decoded. "substitute" takes the next good image of the batch,
            with its label. A callable gets ``(path, error)`` and returns an image ``(H, W, C)``, or None to skip. Files
            passed over are listed in ``bad_files`` and logged at the end of the epoch. A batch of which nothing is left
            is passed over too: a loader's pass is that much shorter (with `shard` it is an error, as ranks need equally
            many batches); ``fit`` gets the next batch in its place, and ends its epoch that much further on.
        prefetch : int
            Batches decoded ahead on a worker thread.
        cache : {None, "host", "device", "auto"}
            Keep decoded images after their first visit.
        memory_limit : int or None
            Bytes for the cache. None: 70 % of what is free.
        decoder : {"auto", "dali", "nvimgcodec", "pillow", "simplejpeg"}
            The decoder; what it cannot decode exactly goes to Pillow. "auto" is simplejpeg where it is installed, else
            Pillow. On a GPU "dali" and "nvimgcodec" decode JPEG files there, to pixels that are close to Pillow's and
            not equal.
        exif_orientation : bool
            Turn images as their EXIF tag says. Keras does not.
        max_pixels : int or None
            Refuse larger images from their header. None: Pillow's own limit.
        num_threads : int or None
            For decoding. None: all the cores this process may use.
        hw_decoder_load : float
            Where the GPU decodes: share of a batch, 0 to 1, for the JPEG hardware of GPUs that have it.
        deterministic : bool
            Where the GPU decodes: let its CUDA decoder do all, so that pixels do not depend on a file's place in the
            batch; the JPEG hardware's differ slightly.
        verbose : bool
            Print how many images were found, as Keras does.
        rng : {"keras", "keyed"} or None
            Keras' own numbers, or numbers that depend on (seed, epoch, sample) only. None: the generator's.
        shard : None, (int, int) or "auto"
            ``(rank, world)``: take only this rank's part of each epoch. "auto" asks the launcher.
        remainder : {"pad", "drop", "exact"}
            Samples that do not divide by the world size are filled up, left out, or filled up with sample weight 0.
        mask_col : str or None
            The column of the masks' file names, relative to `mask_directory`, else to `directory`. Masks are read and
            moved as `flow_from_directory` says; the batches are ``(x, masks)``, and neither `y_col` nor `class_mode`
            plays a part.
        mask_directory : str, os.PathLike or None
            What the names in `mask_col` are relative to. Without `mask_col` the mask of ``cats/1.jpg`` is ``cats/1`` in
            this folder, with any image extension.
        mask_suffix : str
            What a mask's name has behind the image's: with "_mask" that of ``1.jpg`` is ``1_mask.png``.
        ignore_value : int or None
            The level, 0 to 255, that masks get where the transform shows what lies beyond the border, for a loss that
            leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images
            are, by `fill_mode`.
        extensions : sequence of str or None
            The file extensions that are taken, of all those that Pillow reads: ``["jpg", "png", "webp"]``; of an
            animation the first picture. None: Keras' own, png, jpg, jpeg, bmp, ppm, tif and tiff.
        **kwargs
            ``keep_aspect_ratio``, as in `flow_from_directory`; and Keras' deprecated ``has_ext``, ``sort`` and
            ``drop_duplicates``, which warn and do nothing.

        Returns
        -------
        DataFrameIterator
            Its batches are ``(x, y)``, ``(x, y, weight)``, or x with ``class_mode=None``; with masks ``(x, masks)`` or
            ``(x, masks, weight)``.

        Raises
        ------
        ValueError
            If a column or labels are missing, or an argument is not one of the accepted values.
        TypeError
            If a column holds values of the wrong type.
        """
        kwargs, class_mode = _without_deprecated(kwargs, class_mode)
        return self._frame_iterator(
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
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            data_format=self._told_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            dtype=self.dtype,
            validate_filenames=validate_filenames,
            on_error=on_error,
            prefetch=prefetch,
            cache=cache,
            memory_limit=memory_limit,
            decoder=decoder,
            exif_orientation=exif_orientation,
            max_pixels=max_pixels,
            num_threads=num_threads,
            hw_decoder_load=hw_decoder_load,
            deterministic=deterministic,
            rng=rng,
            shard=shard,
            remainder=remainder,
            verbose=verbose,
            mask_col=mask_col,
            mask_directory=mask_directory,
            mask_suffix=mask_suffix,
            ignore_value=ignore_value,
            extensions=extensions,
            **kwargs,
        )

    def _drawing(self, image_shape: tuple[int, ...], file_number_limit: int = 0) -> Drawing:
        """Return what is drawn for images of one shape, in the generator's axis order, as the attributes stand now.

        Its `params` draws from a stream. A subclass' own `get_random_transform` draws from ``numpy.random``: it finds
        the stream there while it is asked.
        """
        derived = self._derived()
        own = None
        if self._draws_its_own:
            # The user's method asks NumPy's global stream, as it does under Keras; `draw_with` puts the right one
            # there.
            own = partial(draw_with, self.get_random_transform, image_shape=image_shape)
        image_size = image_shape[self.row_axis - 1], image_shape[self.col_axis - 1]
        return Drawing(derived.ranges, derived.recipe, image_size, file_number_limit, own)

    def process(
        self,
        images: Array,
        params: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        program: np.ndarray | None = None,
        source_format: DataFormat | None = None,
        data_format: DataFormat | None = None,
        dtype: str | None = None,
        round_affine: bool = False,
    ) -> Array:
        """Transform and normalise a batch by given parameters; see `~gpuseq.transforms.batch.BatchTransform`."""
        return self._batch_transform(
            images,
            params,
            rows,
            program=program,
            source_format=source_format,
            data_format=data_format,
            dtype=dtype,
            round_affine=round_affine,
        )

    def _check_conventions(self, image_size: tuple[int, int]) -> None:
        """Warn, once per generator, where Keras' conventions and the arguments' names part ways."""
        # Past `__setattr__`, which would forget everything that was derived.
        if not self.__dict__.get("_told_conventions"):
            told = settings.warn_of_conventions(self, self._transform_ranges, image_size)
            self.__dict__["_told_conventions"] = told

    # Single images.

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
        return params_to_dicts(draw_params(stream, self._transform_ranges, 1, height, width))[0]

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
        return self._batch_transform.apply_transform(x, transform_parameters)

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
        return self._batch_transform.standardize(x)

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """Transform one image at random: `get_random_transform`, then `apply_transform`.

        Parameters
        ----------
        x : array
            Shape ``(H, W, C)`` or ``(C, H, W)``, on the host or a device.
        seed : int or None
            As in `get_random_transform`.
        """
        x = checked_image(x)
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    # Statistics.

    @checked_arguments()
    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
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
    def fit_batches(self, batches: Iterable[Any]) -> None:
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
    def fit_directory(
        self,
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
                for index in range(len(iterator)):
                    try:
                        batch = iterator[index]
                    except EmptyBatchError:  # its files were bad, and on_error passes over them
                        continue
                    yield batch
                    bar.update(len(batch))

            try:
                self.fit_batches(batches())
            finally:
                iterator.close()

    def save_statistics(self, path: str | os.PathLike[str], **facts: Any) -> None:
        """Write mean and standard deviation to a JSON file, for `load_statistics`; ``gpuseq fit`` writes the same.

        Parameters
        ----------
        path : str or os.PathLike
            The file; written whole or not at all.
        **facts : JSON values
            Written beside them, for people: what they were computed over.

        Raises
        ------
        ValueError
            If nothing was fitted, or it is more than one number per channel: keep those, and a whitening matrix, with
            ``numpy.save``.
        """
        fitting.save(self, path, facts)

    def load_statistics(self, path: str | os.PathLike[str]) -> None:
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

    # Texts.

    def __repr__(self) -> str:
        return settings.text_of(self, inspect.signature(ImageDataGenerator.__init__))

    def __str__(self) -> str:
        # Keras shows this line when somebody hands the generator itself to fit.
        return f"<{self!r}: for model.fit write model.fit(generator.flow_from_directory(...).to_keras())>"

    def _repr_html_(self) -> str:
        from gpuseq.iterators.explain import generator_html

        return generator_html(self)


def _recipe_of(augmentations: Augmentations | None) -> Recipe | None:
    """Read a generator's augmentations, and import what they are made of only where there are any."""
    if augmentations is None:
        return None
    from gpuseq.plan.policies.recipe import Recipe

    return Recipe.parse("augmentations", augmentations)


class _Derived(NamedTuple):
    """What follows from a generator's attributes, and the values in their lists and arrays that it follows from."""

    content: tuple[Any, ...]
    ranges: TransformRanges
    recipe: Recipe | None
    transform: BatchTransform


def _refuse_iterators(images: object) -> None:
    if isinstance(images, Iterator):
        raise TypeError(
            f"a {type(images).__name__} has no end and hands out what it has transformed already, and statistics are "
            "those of plain images: use fit_directory(folder), or fit(x)"
        )


def _without_deprecated(
    further: dict[str, Any], class_mode: FrameClassMode | None
) -> tuple[dict[str, Any], FrameClassMode | None]:
    """Return the arguments of `flow_from_dataframe` without what Keras has deprecated, and warn of that."""
    for name in _DEPRECATED.keys() & further.keys():
        warn(f"{name} is deprecated, {_DEPRECATED[name]}", DeprecationWarning)
    if str(class_mode) == "other":
        warn('`class_mode="other"` is deprecated, please use `class_mode="raw"`.', DeprecationWarning)
        class_mode = "raw"
    return {name: value for name, value in further.items() if name not in _DEPRECATED}, class_mode
