"""The flows of a generator: Keras' argument lists, from images to an iterator over them.

Functions that `~gpuseq.ImageDataGenerator` has as its methods.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gpuseq.base.arguments import checked_arguments
from gpuseq.base.types import (
    Cache,
    ClassMode,
    ColorMode,
    DataFormat,
    DecoderChoice,
    FrameClassMode,
    Interpolation,
    Remainder,
    Rng,
    Shard,
    Size,
    Subset,
)
from gpuseq.sources.options import OnError
from gpuseq.transforms.protocol import ImageGenerator

from .arrays import NumpyArrayIterator
from .checks import DEPRECATED, without_deprecated
from .folders import DirectoryIterator
from .frames import DataFrameIterator

if TYPE_CHECKING:
    from typing_extensions import Never, TypeVar

    # Defaults of type variables: what an argument that is left out stands for. An iterator's `next` follows from it.
    # Never adds nothing to a union, so that what is not typed at all stays so.
    GivenLabels = TypeVar("GivenLabels", default=None)
    GivenWeights = TypeVar("GivenWeights", default=None)
    GivenMasks = TypeVar("GivenMasks", default=Never)
    GivenRemainder = TypeVar("GivenRemainder", bound=Remainder, default=Never)
    MaskFolder = TypeVar("MaskFolder", bound=str | os.PathLike[str] | None, default=Never)
    MaskColumn = TypeVar("MaskColumn", bound=str | None, default=Never)
    WeightColumn = TypeVar("WeightColumn", bound=str | None, default=None)
    FolderLabels = TypeVar("FolderLabels", bound=ClassMode | None, default=Literal["categorical"])
    FrameLabels = TypeVar("FrameLabels", bound=FrameClassMode | None, default=Literal["categorical"])

__all__ = ["FlowingGenerator", "flow", "flow_from_dataframe", "flow_from_directory"]


class FlowingGenerator(ImageGenerator, Protocol):
    """A generator, and the iterators that its flows make."""

    @property
    def _told_format(self) -> DataFormat | None:
        """The axis order that a user chose."""

    @property
    def _array_iterator(self) -> type[NumpyArrayIterator]:
        """Over arrays."""

    @property
    def _directory_iterator(self) -> type[DirectoryIterator]:
        """Over class folders."""

    @property
    def _frame_iterator(self) -> type[DataFrameIterator]:
        """Over the files that a data frame names."""


@checked_arguments()
def flow(  # numpydoc ignore=PR01
    self: FlowingGenerator,
    x: Any,
    y: GivenLabels = None,  # type: ignore[assignment]
    batch_size: int = 32,
    shuffle: bool = True,
    sample_weight: GivenWeights = None,  # type: ignore[assignment]
    seed: int | None = None,
    save_to_dir: str | None = None,
    save_prefix: str = "",
    save_format: str = "png",
    ignore_class_split: bool = False,
    subset: Subset | None = None,
    *,
    rng: Rng | None = None,
    shard: Shard | None = None,
    remainder: GivenRemainder = "pad",  # type: ignore[assignment]
    masks: GivenMasks = None,  # type: ignore[assignment]
    memory_limit: int | None = None,
    ignore_value: int | None = None,
) -> NumpyArrayIterator[GivenLabels | GivenMasks, GivenWeights | GivenRemainder]:
    """Make batches of an array in memory.

    Parameters
    ----------
    x : array or (array, array or list of array)
        Images, shape ``(n, H, W, C)`` or ``(n, C, H, W)`` as `data_format` says; with a pair, the second holds further
        inputs of length n that come beside the images unchanged. uint8, uint16, float32 and float64 are kept as they
        are until an op needs floats; not copied, not written to.
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
        leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images are,
        by `fill_mode`.

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
    # The class is the generator's: that of `gpuseq.keras` makes iterators that Keras knows.
    return self._array_iterator(
        x,
        y,
        self,
        batch_size=batch_size,
        shuffle=shuffle,
        sample_weight=sample_weight,
        seed=seed,
        # None where none was chosen: a framework's loader may then choose its own order.
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
def flow_from_directory(  # numpydoc ignore=PR01
    self: FlowingGenerator,
    directory: str | os.PathLike[str],
    target_size: Size = (256, 256),
    color_mode: ColorMode = "rgb",
    classes: Sequence[str] | None = None,
    class_mode: FolderLabels = "categorical",  # type: ignore[assignment]
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
    remainder: GivenRemainder = "pad",  # type: ignore[assignment]
    verbose: bool = True,
    mask_directory: MaskFolder = None,  # type: ignore[assignment]
    mask_suffix: str = "",
    ignore_value: int | None = None,
    extensions: Sequence[str] | None = None,
) -> DirectoryIterator[FolderLabels | MaskFolder, GivenRemainder | None]:
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
        Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are Keras'
        own way.
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


@checked_arguments("keep_aspect_ratio", *DEPRECATED)
def flow_from_dataframe(  # numpydoc ignore=PR01
    self: FlowingGenerator,
    dataframe: Any,
    directory: str | os.PathLike[str] | None = None,
    x_col: str = "filename",
    y_col: str | Sequence[str] = "class",
    weight_col: WeightColumn = None,  # type: ignore[assignment]
    target_size: Size = (256, 256),
    color_mode: ColorMode = "rgb",
    classes: Sequence[str] | None = None,
    class_mode: FrameLabels = "categorical",  # type: ignore[assignment]
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
    remainder: GivenRemainder = "pad",  # type: ignore[assignment]
    verbose: bool = True,
    mask_col: MaskColumn = None,  # type: ignore[assignment]
    mask_directory: MaskFolder = None,  # type: ignore[assignment]
    mask_suffix: str = "",
    ignore_value: int | None = None,
    extensions: Sequence[str] | None = None,
    **kwargs: Any,
) -> DataFrameIterator[FrameLabels | MaskFolder | MaskColumn, WeightColumn | GivenRemainder]:
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
        Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are Keras'
        own way.
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
        passed over are listed in ``bad_files`` and logged at the end of the epoch. A batch of which nothing is left is
        passed over too: a loader's pass is that much shorter (with `shard` it is an error, as ranks need equally many
        batches); ``fit`` gets the next batch in its place, and ends its epoch that much further on.
    prefetch : int
        Batches decoded ahead on a worker thread.
    cache : {None, "host", "device", "auto"}
        Keep decoded images after their first visit.
    memory_limit : int or None
        Bytes for the cache. None: 70 % of what is free.
    decoder : {"auto", "dali", "nvimgcodec", "pillow", "simplejpeg"}
        The decoder; what it cannot decode exactly goes to Pillow. "auto" is simplejpeg where it is installed, else
        Pillow. On a GPU "dali" and "nvimgcodec" decode JPEG files there, to pixels that are close to Pillow's and not
        equal.
    exif_orientation : bool
        Turn images as their EXIF tag says. Keras does not.
    max_pixels : int or None
        Refuse larger images from their header. None: Pillow's own limit.
    num_threads : int or None
        For decoding. None: all the cores this process may use.
    hw_decoder_load : float
        Where the GPU decodes: share of a batch, 0 to 1, for the JPEG hardware of GPUs that have it.
    deterministic : bool
        Where the GPU decodes: let its CUDA decoder do all, so that pixels do not depend on a file's place in the batch;
        the JPEG hardware's differ slightly.
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
        leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images are,
        by `fill_mode`.
    extensions : sequence of str or None
        The file extensions that are taken, of all those that Pillow reads: ``["jpg", "png", "webp"]``; of an animation
        the first picture. None: Keras' own, png, jpg, jpeg, bmp, ppm, tif and tiff.
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
    kwargs, mode = without_deprecated(kwargs, class_mode)
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
        class_mode=mode,
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
