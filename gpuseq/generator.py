"""`ImageDataGenerator`: Keras' argument list and methods, over the layers that do the work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from gpuseq.base.arguments import checked_arguments, warn
from gpuseq.fitting import FittedTransforms
from gpuseq.iterators.arrays import NumpyArrayIterator
from gpuseq.iterators.explain import generator_html
from gpuseq.iterators.files import DataFrameIterator, DirectoryIterator
from gpuseq.sources.options import OnError

__all__ = ["ImageDataGenerator"]

Made = TypeVar("Made")

_DEPRECATED = {
    "has_ext": "filenames in the dataframe have to match the exact filenames in disk.",
    "sort": "batches will be created in the same order than the filenames provided if `shuffle` is set to `False`.",
    "drop_duplicates": "you can drop duplicates by using the pandas.DataFrame.drop_duplicates method.",
}


class ImageDataGenerator(FittedTransforms):  # numpydoc ignore=PR02
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
        masks: Any = None,
        memory_limit: int | None = None,
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
            Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are
            Keras' own way.
        save_to_dir, save_prefix, save_format, ignore_class_split, subset
            See `~gpuseq.NumpyArrayIterator`.
        rng : {"keras", "keyed"} or None
            None: the generator's.
        shard : None, (int, int) or "auto"
            ``(rank, world)``: walk only this rank's part of each epoch. "auto" asks the launcher.
        remainder : {"pad", "drop", "exact"}
            Samples that do not divide by the world size are filled up, left out, or filled up with sample weight 0.
        masks : array, list of array or None
            In the place of `y`: ``(n, H, W)``, or like `x` with any number of channels. Each mask gets the affine map
            and the flips of its image, with nearest-neighbour resampling, and nothing else; its dtype stays.
        memory_limit : int or None
            Bytes that `x` may take on a GPU; a larger array stays on the host, and each batch is copied. None: 70 % of
            what is free.

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
        return self._make(self._array_iterator, locals())

    @checked_arguments()
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
        hw_decoder_load: float = 0.65,
        deterministic: bool = False,
        rng: str | None = None,
        shard: tuple[int, int] | str | None = None,
        remainder: str = "pad",
        verbose: bool = True,
        mask_directory: str | os.PathLike[str] | None = None,
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
            passed over are listed in ``bad_files`` and logged at the end of the epoch. A batch of which nothing is
            left is passed over too: a loader's pass is that much shorter (with `shard` it is an error, as ranks need
            equally many batches); ``fit`` gets the next batch in its place, and ends its epoch that much further on.
        prefetch : int
            Batches decoded ahead on a worker thread.
        cache : {None, "host", "device", "auto"}
            Keep decoded images after their first visit.
        memory_limit : int or None
            Bytes for the cache. None: 70 % of what is free.
        decoder : {"auto", "dali", "nvimgcodec", "pillow"}
            Who decodes; what it cannot decode exactly goes to Pillow. "auto" is Pillow. On a GPU "dali" and
            "nvimgcodec" decode JPEG files there, to pixels that are close to Pillow's and not equal.
        exif_orientation : bool
            Turn images as their EXIF tag says. Keras does not.
        max_pixels : int or None
            Refuse larger images from their header. None: Pillow's own limit.
        num_threads : int or None
            For decoding. None: all the cores this process may use.
        hw_decoder_load : float
            Where the GPU decodes: share of a batch, 0 to 1, for the JPEG engine of GPUs that have one.
        deterministic : bool
            Where the GPU decodes: let its CUDA decoder do all, so that pixels do not depend on a file's place in the
            batch; the JPEG engine's differ slightly.
        rng, shard, remainder
            See `flow`.
        verbose : bool
            Print how many images were found, as Keras does.
        mask_directory : str, os.PathLike or None
            A folder of masks built like `directory`: the mask of ``cats/1.jpg`` is ``cats/1`` with any image extension.
            Masks are read as grey images, resized with "nearest", and get the geometry of their image's transform and
            nothing else; the batches are ``(x, masks)``, and `class_mode` only says which files there are.

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
        return self._make(self._directory_iterator, locals())

    @checked_arguments("keep_aspect_ratio", *_DEPRECATED)
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
        hw_decoder_load: float = 0.65,
        deterministic: bool = False,
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
        on_error, prefetch, cache, memory_limit, decoder, exif_orientation, max_pixels, num_threads, \
hw_decoder_load, deterministic, verbose
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
        kwargs, class_mode = _without_deprecated(kwargs, class_mode)
        return self._make(self._frame_iterator, locals())

    def _make(self, iterator: Callable[..., Made], given: dict[str, Any]) -> Made:
        """Make an iterator of a flow's arguments, which are the iterator's by name, and of what the generator adds."""
        further = given.pop("kwargs", {})
        del given["self"]
        return iterator(image_data_generator=self, data_format=self.data_format, dtype=self.dtype, **given, **further)

    def __str__(self) -> str:
        # Keras shows this line when somebody hands the generator itself to fit.
        return f"<{self!r}: for model.fit write model.fit(generator.flow_from_directory(...).to_keras())>"

    def _repr_html_(self) -> str:
        return generator_html(self)


def _without_deprecated(further: dict[str, Any], class_mode: str | None) -> tuple[dict[str, Any], str | None]:
    """Return the arguments of `flow_from_dataframe` without what Keras has deprecated, and warn of that."""
    for name in _DEPRECATED.keys() & further.keys():
        warn(f"{name} is deprecated, {_DEPRECATED[name]}", DeprecationWarning)
    if class_mode == "other":
        warn('`class_mode="other"` is deprecated, please use `class_mode="raw"`.', DeprecationWarning)
        class_mode = "raw"
    return {name: value for name, value in further.items() if name not in _DEPRECATED}, class_mode
