"""`NumpyArrayIterator`: batches of an array in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from gpuseq.base.arguments import checked_arguments, checked_data_format, checked_dtype, warn
from gpuseq.base.devices import is_cupy, on_device
from gpuseq.base.errors import require
from gpuseq.base.machine import available_memory
from gpuseq.base.text import array_text, bytes_text
from gpuseq.base.types import Array, BatchDType, DataFormat, Labels, Remainder, Rng, Shard, Subset, Weights
from gpuseq.files.folders import split_bounds
from gpuseq.plan.draw import Drawing
from gpuseq.plan.plan import BatchPlan
from gpuseq.sources.arrays import ArraySource
from gpuseq.sources.masks import masks_of_arrays
from gpuseq.sources.options import check_ignore_value
from gpuseq.transforms.protocol import ImageGenerator

from .batch import Layout, make_batch
from .checks import FURTHER_ARGUMENTS, check_generator, check_save_to_dir, checked_split
from .iterator import Iterator

__all__ = ["NumpyArrayIterator", "as_array", "as_images"]

# What every engine reads; another dtype is cast once, at construction.
SOURCE_DTYPES = (np.uint8, np.uint16, np.float32, np.float64)

FILE_NUMBERS = 10_000
"""The numbers in the names of saved files are below it, as in Keras."""

DLPACK_CUDA = 2
"""``kDLCUDA`` of DLPack's ``DLDeviceType``."""

LARGE_COPY = 2**28
"""Bytes of an array in a file that are read into memory without a word."""


class NumpyArrayIterator(Iterator[Labels, Weights]):
    """Batches of an array in memory, kept in its own dtype and gathered by index.

    Parameters
    ----------
    x : array or (array, array or list of array)
        Images, shape ``(n, H, W, C)`` or ``(n, C, H, W)`` as `data_format` says; with a pair, the second holds further
        inputs of length n that come beside the images unchanged. uint8, uint16, float32 and float64 are kept as they
        are until an op needs floats; not copied, not written to.
    y : array or None
        Labels, length n.
    image_data_generator : ImageDataGenerator
        What is done to the images.
    batch_size : int
        Samples per batch.
    shuffle : bool
        A new order each epoch.
    seed : int or None
        Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are Keras'
        own way.
    sample_weight : array or None
        Shape ``(n,)``.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of `x` and of the batches. None: "channels_last".
    save_to_dir, save_prefix, save_format
        Write each image of each batch to this existing folder, as ``prefix_index_number.format``.
    subset : {"training", "validation"} or None
        Which part, with the generator's ``validation_split``.
    ignore_class_split : bool
        Do not check that both subsets have all classes.
    dtype : str or None
        Of the batches: float32 (default), float16, float64, uint8; bfloat16 on a device.
    rng : {"keras", "keyed"} or None
        Keras' own numbers, or numbers that depend on (seed, epoch, sample) only. None: the generator's.
    shard : None, (int, int) or "auto"
        ``(rank, world)``: take only this rank's part of each epoch. "auto" asks the launcher.
    remainder : {"pad", "drop", "exact"}
        Samples that do not divide by the world size are filled up, left out, or filled up with sample weight 0.
    **kwargs
        ``workers``, ``use_multiprocessing`` and ``max_queue_size``, those of `~gpuseq.Sequence`.
    masks : array, list of array or None
        In the place of `y`: ``(n, H, W)``, or like `x` with any number of channels. Each mask gets the affine map and
        the flips of its image, with nearest-neighbour resampling, and nothing else; its dtype stays.
    ignore_value : int or None
        The level, 0 to 255, that masks get where the transform shows what lies beyond the border, for a loss that
        leaves it out (``ignore_class`` in Keras, ``ignore_index`` in PyTorch). None: they are filled as the images are,
        by `fill_mode`.
    memory_limit : int or None
        Bytes that `x` may take on a GPU; a larger array stays on the host, and each batch is copied. None: 70 % of what
        is free.

    Raises
    ------
    ValueError
        If lengths, ranks or options do not fit.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.NumpyArrayIterator`` (Keras 3.15).
    """

    image_data_generator: ImageGenerator
    _source: ArraySource

    @checked_arguments(*FURTHER_ARGUMENTS)
    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: DataFormat | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: Subset | None = None,
        ignore_class_split: bool = False,
        dtype: BatchDType | None = None,
        *,
        rng: Rng | None = None,
        shard: Shard | None = None,
        remainder: Remainder = "pad",
        masks: Any = None,
        ignore_value: int | None = None,
        memory_limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_data_generator = image_data_generator
        self.data_format = checked_data_format(data_format)
        self._is_told_format = data_format is not None
        self.device: str = image_data_generator.device
        self.dtype = checked_dtype(dtype, self.device)
        split = checked_split(subset, image_data_generator)
        self.save_to_dir = check_save_to_dir(save_to_dir, save_format)
        self.save_prefix = save_prefix
        self.save_format = save_format
        x, x_misc = _with_further_inputs(x)
        x = as_images(x, self.dtype)
        _check_shape(x, self.data_format)
        for item in x_misc:
            _check_length("All of the arrays in `x`", x, "x[?]", item)
        check_ignore_value(ignore_value, has_masks=masks is not None)
        if masks is not None and y is not None:
            raise ValueError("with masks the batches are (x, masks): pass y=None, or the masks as y and no transforms")
        y = None if y is None else _per_sample("`x` (images tensor) and `y` (labels)", x, "y", y)
        weight = sample_weight
        if weight is not None:
            weight = _per_sample("`x` (images tensor) and `sample_weight`", x, "sample_weight", weight)
        # Masks are cut to the subset where they are made ready: their length is compared with all of the images.
        part, whole = slice(None), x
        if split is not None:
            part = _part(split, len(x), y, ignore_class_split)
            x, x_misc = x[part], [item[part] for item in x_misc]
            y = None if y is None else y[part]
            weight = None if weight is None else weight[part]
        _check_scale(x, image_data_generator)
        self.x_misc = x_misc
        self.y = y
        self.sample_weight = weight
        self._source = ArraySource(x, self.device, memory_limit)
        # What the source holds, so that an array that was moved to a GPU is not kept on the host by this attribute as
        # well.
        self.x = self._source.images
        self._masks = None
        if masks is not None:
            self._masks = masks_of_arrays(masks, whole, self.data_format, self.device, part, ignore_value)
        rng = image_data_generator.rng if rng is None else rng
        super().__init__(len(x), batch_size, shuffle, seed, rng=rng, shard=shard, remainder=remainder, **kwargs)
        check_generator(image_data_generator, rng, self._image_size, self._source)

    def _make(self, plan: BatchPlan) -> Any:
        own, dtype = self.data_format, self.dtype
        # The last argument: Keras holds the array in the batches' dtype, so with uint8 the map's values are stored as
        # integers, which SciPy rounds. Images of files are float32 up to the cast, which truncates.
        return make_batch(self, plan, Layout(own, self._batch_format or own, own, dtype, dtype, dtype == "uint8"))

    def _labels_of(self, images: Array, sample_indices: np.ndarray) -> Any:
        return None if self.y is None else self.y[sample_indices]

    @property
    def _further_inputs(self) -> Sequence[np.ndarray]:
        return self.x_misc

    @property
    def _image_size(self) -> tuple[int, int]:
        rows = 1 if self.data_format == "channels_last" else 2
        return self.x.shape[rows], self.x.shape[rows + 1]

    def _drawing(self) -> Drawing:
        limit = FILE_NUMBERS if self.save_to_dir else 0
        return self.image_data_generator._drawing(self.x.shape[1:], limit)


def _with_further_inputs(x: Any) -> tuple[Any, list[np.ndarray]]:
    """Take apart what Keras takes: images, or a pair of images and one or more further inputs."""
    if not isinstance(x, (tuple, list)):
        return x, []
    # Two images of rank 3 are a list of images and no pair of images and inputs, which have rank 4.
    shapes = [np.shape(item) for item in x[:2]] if all(hasattr(item, "shape") for item in x) else []
    # Keras reads items 0 and 1 of any list and says nothing of the others.
    if len(x) != 2 or any(len(shape) == 3 for shape in shapes[:1]):
        same = len({np.shape(item) for item in x if hasattr(item, "shape")}) <= 1
        remedy = "x=np.stack(images)" if same else "their sizes differ: resize them to one (load_img(target_size=...))"
        raise ValueError(
            f"a {type(x).__name__} is read as (images, further inputs), as in Keras, and this one has {len(x)} "
            f"items. For a list of images: {remedy}"
        )
    return x[0], [np.asarray(item) for item in (x[1] if isinstance(x[1], list) else [x[1]])]


def _channel_axis(data_format: str) -> int:
    return 3 if data_format == "channels_last" else 1


def _check_shape(x: Array, data_format: str) -> None:
    """Refuse what is no batch of images, and warn as Keras does of odd numbers of channels."""
    if x.ndim != 4:
        raise ValueError(
            "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with shape "
            f"{x.shape}. Images are (n, rows, columns, channels): x[..., None] for grey ones, x[None] for "
            "a single one, np.stack(x) for a list"
        )
    if 0 in x.shape[1:]:
        raise ValueError(f"images must have at least one row, column and channel; got shape {x.shape}")
    axis = _channel_axis(data_format)
    if x.shape[axis] not in (1, 3, 4):
        # The channels of the other axis order are looked at for the remedy: a wrong `data_format` is the usual reason.
        other = "channels_first" if axis == 3 else "channels_last"
        remedy = f' Pass data_format="{other}" to the generator?' if x.shape[_channel_axis(other)] in (1, 3, 4) else ""
        warn(
            f'NumpyArrayIterator is set to use the data format convention "{data_format}" (channels on axis '
            f"{axis}), i.e. expected either 1, 3, or 4 channels on axis {axis}. However, it was "
            f"passed an array with shape {x.shape} ({x.shape[axis]} channels).{remedy}"
        )


def _per_sample(what: str, x: Array, name: str, values: Any) -> np.ndarray:
    """Return labels or weights as an array with one entry per image."""
    array: np.ndarray = np.asarray(values)
    # `len` of one number raises a TypeError that names neither the argument nor the images.
    if array.ndim == 0:
        raise ValueError(f"{name} must hold one entry for each of the {len(x)} images; got {values!r}")
    _check_length(what, x, name, array)
    return array


def _check_length(what: str, x: Array, name: str, other: np.ndarray) -> None:
    if len(x) != len(other):
        raise ValueError(
            f"{what} should have the same length. Found: x.shape = {x.shape}, {name}.shape = {other.shape}"
        )


def _check_scale(x: Array, generator: Any) -> None:
    """Warn where floats from 0 to 1 would be rescaled once more; a few images tell."""
    if not len(x) or x.dtype.kind != "f" or not generator.rescale or not 0 < generator.rescale <= 1 / 128:
        return
    # All of them would be read from the disk where they are a memmap.
    few = x[:8]
    with on_device(x):
        low, high = float(few.min()), float(few.max())
    if 0 < high <= 1 and low >= 0:
        warn(
            f"the images are floats from 0 to 1 already, and rescale={generator.rescale:.6g} would make them nearly "
            "black: leave rescale out, or pass images from 0 to 255"
        )


def _part(split: tuple[float, float], length: int, y: np.ndarray | None, ignore_class_split: bool) -> slice:
    """Return the slice of Keras' split."""
    part = split_bounds(split, length)
    if part.start == part.stop:
        raise ValueError(
            f"the subset is empty: validation_split={split[0] or split[1]} of {length} images is less than one image, "
            "or all of them. Use another split, or more images"
        )
    # As Keras: labels are compared before and after the border of the split, whichever subset is asked for.
    middle = part.start or part.stop
    if (
        middle < length
        and y is not None
        and not ignore_class_split
        and not np.array_equal(np.unique(y[:middle]), np.unique(y[middle:]))
    ):
        raise ValueError(
            "Training and validation subsets have different number of classes after the split. If your numpy arrays "
            "are sorted by the label, you might want to shuffle them. ignore_class_split=True leaves them as they are"
        )
    return part


def as_images(x: Any, dtype: str) -> Array:
    """Return `x` as an array in a dtype that the ops read: its own, unless `dtype` cannot hold it.

    Parameters
    ----------
    x : array or nested sequence
        NumPy and CuPy arrays are taken as they are, anything with ``__dlpack__`` or ``__array__`` is read once.
    dtype : str
        Of the batches to be made.

    Returns
    -------
    array
        uint8, uint16, float32 or float64; not copied where it already fits.

    Raises
    ------
    TypeError
        If `x` holds no numbers.
    MemoryError
        If `x` is an array in a file that does not fit into memory in that dtype.
    """
    is_mapped = isinstance(x, np.memmap)
    x = as_array(x, "flow_from_directory(path)", "x=np.stack(list(images)), or a subclass of gpuseq.Sequence")
    compute = np.dtype({"float64": np.float64, "uint8": np.uint8}.get(dtype, np.float32))
    # "safe": float64 images do not stay float64 for float32 batches, while uint8 and uint16 do.
    if x.dtype in SOURCE_DTYPES and np.can_cast(x.dtype, compute, "safe"):
        return x
    if is_mapped:
        _announce_copy(f"x is a memmap of {x.dtype}, and is cast to {compute.name} whole", x.size * compute.itemsize)
    with on_device(x):
        return x.astype(compute)


def as_array(x: Any, for_a_path: str, for_a_stream: str) -> Array:
    """Return anything array-like as an array of numbers, or say what to call in its place.

    Parameters
    ----------
    x : array-like
        NumPy and CuPy arrays are returned as they are; anything with ``__dlpack__`` or ``__array__`` is read.
    for_a_path, for_a_stream : str
        What takes the path of a folder, or images that come one after another.

    Returns
    -------
    array
        Where `x` lives.

    Raises
    ------
    TypeError
        If `x` holds no numbers.
    ValueError
        If it is a list of images of several sizes.
    MemoryError
        If it is an array in a file that does not fit into memory.
    """
    if is_cupy(x):
        return cast(Array, x)
    if isinstance(x, (str, os.PathLike)):
        raise TypeError(f"images must be an array; got the path {os.fspath(x)!r}: use {for_a_path}")
    if type(x).__name__ == "DataFrame":
        raise TypeError("images must be an array; got a data frame: use flow_from_dataframe(frame, directory)")
    if x is None or hasattr(x, "__next__"):
        shown = "None" if x is None else f"a {type(x).__name__}, which gives them one by one: use {for_a_stream}"
        raise TypeError(f"images must be an array; got {shown}")
    # PyTorch refuses to export a tensor that gradients flow through.
    if getattr(x, "requires_grad", False):
        x = x.detach()
    # By protocol and not by library: tensors of PyTorch, JAX and TensorFlow on a GPU come without a copy.
    if hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == DLPACK_CUDA:
        return cast(Array, require("cupy", extra="cuda13", purpose="a tensor on a GPU").from_dlpack(x))
    # Without a word 15 GB were read, or memory ended in the middle.
    if not isinstance(x, np.ndarray) and not hasattr(x, "__dlpack__") and hasattr(x, "shape") and hasattr(x, "dtype"):
        # Arrays in files (h5py, zarr) read what is asked for, and this asks for all of it.
        kind = f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"
        nbytes = math.prod(x.shape) * np.dtype(x.dtype).itemsize
        _announce_copy(f"x is a {kind} of {array_text(x.shape, x.dtype, nbytes)}, and is read whole", nbytes)
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(
            "images must have one size to make an array, and these differ: resize them to one, with "
            f"load_img(target_size=...), or use {for_a_path}, which does"
        ) from None
    if array.dtype.kind not in "buif":
        raise TypeError(f"images must be an array of numbers (NumPy, CuPy or DLPack); got dtype {array.dtype}")
    return array


def _announce_copy(what: str, nbytes: int) -> None:
    """Say that much memory is taken where an array in a file was handed over, or refuse before memory ends."""
    free = available_memory()
    remedy = "np.load(path, mmap_mode='r') of uint8, uint16 or float32 is read batch by batch"
    if nbytes > free:
        raise MemoryError(f"{what}: {bytes_text(nbytes)}, and {bytes_text(free)} are free. {remedy}")
    if nbytes >= LARGE_COPY:
        warn(f"{what}: {bytes_text(nbytes)} of memory. {remedy}")
