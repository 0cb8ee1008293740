"""What all image iterators share, from a plan to the batch in the caller's hands; and `NumpyArrayIterator`."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import numpy as np

from .arrays import Array
from .compat import is_cupy, place
from .explain import Explanation, explain, iterator_html
from .iterators import Iterator
from .options import AugmentOptions, TransformRanges
from .paired import PairedMasks, masks_of_arrays
from .pictures import array_to_img, checked_data_format
from .plan import BatchPlan
from .sources import ArraySource, FileSource

__all__ = ["ImageIterator", "NumpyArrayIterator", "check_save_to_dir"]

logger = logging.getLogger("gpuseq")

DTYPES = ("float32", "float16", "bfloat16", "float64", "uint8")
SOURCE_DTYPES = (np.uint8, np.uint16, np.float32, np.float64)


class ImageIterator(Iterator):
    """An iterator whose batches come from a source of images through a generator. Not made directly.

    Attributes
    ----------
    image_data_generator : ImageDataGenerator or None
        Whose ranges are drawn from and whose options are applied, as they are when the batch is made.
    device : str
        ``"cpu"`` or ``"cuda:N"``: where batches are born.
    dtype : str
        Of the images of a batch.
    """

    image_data_generator: Any
    data_format: str
    dtype: str
    device: str
    save_to_dir: str | None
    save_prefix: str
    save_format: str
    _source: ArraySource | FileSource
    _hash_limit: int
    _num_channels: int
    _paired: PairedMasks | None = None

    @property
    def _ranges(self) -> TransformRanges | None:  # type: ignore[override]
        generator = self.image_data_generator
        return None if generator is None else generator.transform_ranges

    def _draw_params(self, stream: Any, num_samples: int) -> np.ndarray:
        generator = self.image_data_generator
        if generator is None:
            return super()._draw_params(stream, num_samples)
        last, size, channels = self.data_format == "channels_last", self._image_size, self._num_channels
        shape = (*size, channels) if last else (channels, *size)
        params: np.ndarray = generator.draw_batch(stream, num_samples, shape)
        return params

    def _check_generator(self) -> None:
        """Look at the generator together with the images and the random mode, once both are known."""
        if (generator := self.image_data_generator) is None:
            return
        if generator.draws_its_own and self.walk.rng == "keyed":
            raise ValueError(
                f'rng="keyed" draws the numbers of {type(generator).__name__} by key, and cannot ask the '
                'get_random_transform that it overrides: use rng="keras"'
            )
        generator.check_conventions(self._image_size)

    @property
    def _file_number_limit(self) -> int:  # type: ignore[override]
        return self._hash_limit if self.save_to_dir else 0

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        plan = self._plan_of(index_array)
        fetched = self._source.fetch(plan.indices)
        if fetched.positions is not None:
            plan = plan.take(fetched.positions)
        masks = None
        if self._paired is not None:
            fetched, plan, masks = self._paired.fetch(fetched, plan, self._geometry())
        batch_x = self._make_images(fetched.images, plan.params, fetched.rows)
        if self.save_to_dir:
            self._save(batch_x, plan)
        batch = self._with_labels(batch_x, fetched.sample_indices)
        if masks is not None:
            batch = (batch[0], masks, *batch[2:]) if isinstance(batch, tuple) else (batch, masks)
        return batch if plan.weights is None else _weighted(batch, place(plan.weights, self.device))

    def _geometry(self) -> AugmentOptions:
        """Return what masks share with their images."""
        generator = self.image_data_generator
        if generator is None:
            return AugmentOptions()
        if generator.is_customised:
            raise ValueError(
                f"{type(generator).__name__} overrides apply_transform or standardize, and what it does there to an "
                "image cannot be done to its mask: use preprocessing_function, or plan_batch() and replay()"
            )
        return AugmentOptions(
            fill_mode=generator.fill_mode, cval=float(generator.cval), conventions=generator.conventions
        )

    def _make_images(self, images: Array, params: np.ndarray, rows: np.ndarray | None) -> Array:
        raise NotImplementedError

    def _with_labels(self, batch_x: Array, sample_indices: np.ndarray) -> Any:
        raise NotImplementedError

    def _save(self, batch_x: Array, plan: BatchPlan) -> None:
        assert self.save_to_dir is not None
        host = batch_x.get() if is_cupy(batch_x) else batch_x
        numbers = np.zeros(len(plan), np.int64) if plan.file_numbers is None else plan.file_numbers
        for image, index, number in zip(host, plan.indices, numbers, strict=True):
            name = f"{self.save_prefix}_{index}_{number}.{self.save_format}"
            array_to_img(image, self.data_format, scale=True).save(os.path.join(self.save_to_dir, name))

    def _announce(self, current: np.ndarray, batch_index: int, *, walking: bool) -> None:
        if isinstance(self._source, FileSource) and self._source.prefetch:
            upcoming = self._upcoming(batch_index, self._source.prefetch, walking=walking)
            self._source.expect(upcoming, current)
            if self._paired is not None:
                self._paired.expect(upcoming, current)

    def explain(self, index: int | None = None) -> Explanation:
        """Say what a batch is going to be and how it is going to be made, and leave the iterator where it stands.

        Parameters
        ----------
        index : int or None
            Which batch of the current epoch. None: the one that ``next()`` would return.

        Returns
        -------
        Explanation
            Print it: the plan as a table, one line per sample, and the path: source, decoder, cache, engine, bytes.

        Raises
        ------
        IndexError
            If `index` is outside the epoch.
        """
        return explain(self, index)

    def _repr_html_(self) -> str:
        return iterator_html(self)

    def close(self) -> None:
        """Stop decoding ahead and wait for the worker thread. The iterator stays usable."""
        self._source.close()
        if self._paired is not None:
            self._paired.close()


class NumpyArrayIterator(ImageIterator):
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
    batch_size, shuffle, seed
        See `Iterator`.
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
    rng, shard, remainder
        See `Iterator`; `rng` defaults to the generator's.
    **kwargs
        See `Iterator`.
    masks : array, list of array or None
        In the place of `y`; see `~gpuseq.ImageDataGenerator.flow`.
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

    _hash_limit = 10_000

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: str | None = None,
        *,
        rng: str | None = None,
        shard: tuple[int, int] | str | None = None,
        remainder: str = "pad",
        masks: Any = None,
        memory_limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.data_format = checked_data_format(data_format)
        self.dtype = checked_dtype(dtype, image_data_generator.device)
        self.device = image_data_generator.device
        x_misc: list[Any] = []
        if isinstance(x, (tuple, list)):
            x_misc = [np.asarray(item) for item in (x[1] if isinstance(x[1], list) else [x[1]])]
            x = x[0]
        x = as_images(x, self.dtype)
        for item in x_misc:
            _check_length("All of the arrays in `x`", x, "x[?]", item)
        if masks is not None and y is not None:
            raise ValueError("with masks the batches are (x, masks): pass y=None, or the masks as y and no transforms")
        y = None if y is None else np.asarray(y)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        if y is not None:
            _check_length("`x` (images tensor) and `y` (labels)", x, "y", y)
        if weight is not None:
            _check_length("`x` (images tensor) and `sample_weight`", x, "sample_weight", weight)
        part = slice(None)
        whole = x
        if subset is not None:
            part = _subset(subset, len(x), y, image_data_generator._validation_split, ignore_class_split)
            x, x_misc = x[part], [item[part] for item in x_misc]
            y = None if y is None else y[part]
            weight = None if weight is None else weight[part]
        if x.ndim != 4:
            raise ValueError(
                "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with shape "
                f"{x.shape}. Images are (n, rows, columns, channels): x[..., None] for grey ones, x[None] for "
                "a single one, np.stack(x) for a list"
            )
        if 0 in x.shape[1:]:
            raise ValueError(f"images must have at least one row, column and channel; got shape {x.shape}")
        channels_axis = 3 if self.data_format == "channels_last" else 1
        if x.shape[channels_axis] not in (1, 3, 4):
            warnings.warn(
                f'NumpyArrayIterator is set to use the data format convention "{self.data_format}" (channels on axis '
                f"{channels_axis}), i.e. expected either 1, 3, or 4 channels on axis {channels_axis}. However, it was "
                f"passed an array with shape {x.shape} ({x.shape[channels_axis]} channels).",
                stacklevel=3,
            )
        self.x_misc = x_misc
        self.y = y
        self.sample_weight = weight
        self.image_data_generator = image_data_generator
        self.save_to_dir = check_save_to_dir(save_to_dir)
        self.save_prefix = save_prefix
        self.save_format = save_format
        self._source = ArraySource(x, self.device, memory_limit)
        self.x = self._source.images
        if masks is not None:
            self._paired = masks_of_arrays(masks, whole, self.data_format, self.device, part)
        first = 1 if self.data_format == "channels_last" else 2
        self._image_size = (x.shape[first], x.shape[first + 1])
        self._num_channels = x.shape[channels_axis]
        rng = image_data_generator.rng if rng is None else rng
        super().__init__(len(x), batch_size, shuffle, seed, rng=rng, shard=shard, remainder=remainder, **kwargs)
        self._check_generator()

    def _make_images(self, images: Array, params: np.ndarray, rows: np.ndarray | None) -> Array:
        return self.image_data_generator.process(
            images, params, rows, source_format=self.data_format, dtype=self.dtype, round_affine=self.dtype == "uint8"
        )

    def _with_labels(self, batch_x: Array, sample_indices: np.ndarray) -> Any:
        extras = [place(item[sample_indices], self.device) for item in self.x_misc]
        first = [batch_x, *extras] if extras else batch_x
        if self.y is None and (self._paired is None or self.sample_weight is None):
            return first
        labels = None if self.y is None else place(self.y[sample_indices], self.device)
        if self.sample_weight is None:
            return first, labels
        return first, labels, place(self.sample_weight[sample_indices], self.device)


def _weighted(batch: Any, weights: Array) -> tuple[Any, ...]:
    """Add weights to a batch, or multiply those it has."""
    if not isinstance(batch, tuple):
        return batch, None, weights
    if len(batch) == 2:
        return (*batch, weights)
    return (*batch[:2], batch[2] * weights)


def _subset(subset: str, length: int, y: np.ndarray | None, fraction: float, ignore_class_split: bool) -> slice:
    """Return the slice of Keras' split: validation comes first."""
    if subset not in ("training", "validation"):
        raise ValueError(f'Invalid subset name: {subset}; expected "training" or "validation".')
    middle = int(length * fraction)
    if y is not None and not ignore_class_split and not np.array_equal(np.unique(y[:middle]), np.unique(y[middle:])):
        raise ValueError(
            "Training and validation subsets have different number of classes after the split. If your numpy arrays "
            "are sorted by the label, you might want to shuffle them."
        )
    return slice(None, middle) if subset == "validation" else slice(middle, None)


def _check_length(what: str, x: Array, name: str, other: np.ndarray) -> None:
    if len(x) != len(other):
        raise ValueError(
            f"{what} should have the same length. Found: x.shape = {x.shape}, {name}.shape = {other.shape}"
        )


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
    """
    if not is_cupy(x):
        x = np.asarray(x)
        if x.dtype.kind not in "buif":
            raise TypeError(f"images must be an array of numbers (NumPy, CuPy or DLPack); got dtype {x.dtype}")
    compute = np.dtype({"float64": np.float64, "uint8": np.uint8}.get(dtype, np.float32))
    if x.dtype in SOURCE_DTYPES and np.can_cast(x.dtype, compute, "safe"):
        return x
    return x.astype(compute)


def checked_dtype(dtype: Any, device: str) -> str:
    """Return the name of an accepted output dtype, "float32" for None.

    Raises
    ------
    ValueError
        If `dtype` is not accepted on this device.
    """
    if dtype is None:
        return "float32"
    try:
        name = "bfloat16" if dtype == "bfloat16" else np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    accepted = DTYPES if device != "cpu" else tuple(item for item in DTYPES if item != "bfloat16")
    if name not in accepted:
        raise ValueError(f"dtype must be one of {', '.join(accepted)} on {device!r}; got {dtype!r}")
    return name


def check_save_to_dir(save_to_dir: str | None) -> str | None:
    """Return `save_to_dir` if it is None or an existing folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder. (Keras finds out at the first batch.)
    """
    if save_to_dir and not os.path.isdir(save_to_dir):
        raise FileNotFoundError(f"save_to_dir={save_to_dir!r} is not an existing folder: create it first")
    return save_to_dir or None
