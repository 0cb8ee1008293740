"""From a plan to a batch: images fetched, transformed, saved where asked, and put beside their labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpuseq.base.atomic import replacing
from gpuseq.base.devices import NUMBERS, array_module, is_cupy, on_device, place
from gpuseq.base.types import Array, DataFormat
from gpuseq.decode.images import array_to_img
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.draw import Drawing
from gpuseq.plan.plan import BatchPlan
from gpuseq.sources.files import FileSource
from gpuseq.sources.masks import PairedMasks
from gpuseq.sources.source import Fetched, Source
from gpuseq.transforms.batch import reordered
from gpuseq.transforms.masks import warp_masks
from gpuseq.transforms.protocol import ImageGenerator

__all__ = [
    "Layout",
    "MadeImages",
    "assemble",
    "drawing_of_files",
    "gathered",
    "labels_of_files",
    "make_batch",
    "make_batch_of_files",
    "make_images",
    "save_images",
]

_FILE_NUMBERS = 10_000_000
"""The numbers in the names of saved files are below it, as in Keras."""


class ImageIterator(Protocol):
    """What an iterator over images says of its batches; read at each of them, because users set attributes."""

    device: str
    save_to_dir: str | None
    save_prefix: str
    save_format: str
    image_data_generator: Any
    _masks: PairedMasks | None

    @property
    def _source(self) -> Source:
        """Where the images are kept."""

    @property
    def _further_inputs(self) -> Sequence[np.ndarray]:
        """Per sample, beside the images."""

    @property
    def sample_weight(self) -> np.ndarray | None:
        """Weight of each sample."""

    def _labels_of(self, images: Array, sample_indices: np.ndarray) -> Any:
        """Return the labels of a batch, on the host or where the images are; None without any."""


class FileIterator(ImageIterator, Protocol):
    """What one over files says besides."""

    class_mode: str | None
    classes: Any
    class_indices: dict[str, int]
    data_format: DataFormat
    dtype: str
    image_shape: tuple[int, int, int]
    target_size: tuple[int, int]
    _batch_format: DataFormat | None
    _index_dtype: str | None
    _may_pass_over: bool
    _source: FileSource

    @property
    def _planner(self) -> Sized:
        """As many batches as in an epoch."""

    @property
    def labels(self) -> Any:
        """One entry per sample, with the class modes "raw" and "multi_output"."""

    def _report_bad_files(self) -> None:
        """Say which files failed since the last time."""


class Layout(NamedTuple):
    """What the images of a source, and those of the batches, look like.

    Attributes
    ----------
    source_format, data_format : {"channels_last", "channels_first"}
        Axis order of the source's images, and of the batches.
    own_format : {"channels_last", "channels_first"}
        Axis order that a user's own function and a whitening matrix go with: that of the iterator's ``data_format``.
    image_dtype, dtype : str
        What the generator makes, and what the batches are cast to.
    round_affine : bool
        See `~gpuseq.ops.options.AugmentOptions`.
    """

    source_format: DataFormat
    data_format: DataFormat
    own_format: DataFormat
    image_dtype: str
    dtype: str
    round_affine: bool = False


class MadeImages(NamedTuple):
    """The images of a batch, and what its labels need.

    Attributes
    ----------
    images : array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)``, where the batch is made.
    sample_indices : numpy.ndarray
        Shape ``(N,)``, int64: whose image each is.
    masks : array, list of array or None
        Beside `images`.
    plan : BatchPlan
        Of these samples: without those that were passed over.
    """

    images: Array
    sample_indices: np.ndarray
    masks: Any
    plan: BatchPlan


def make_batch(iterator: ImageIterator, plan: BatchPlan, layout: Layout) -> Any:
    """Make the batch of a plan: x, ``(x, y)`` or ``(x, y, sample_weight)``.

    Parameters
    ----------
    iterator : ImageIterator
        Whose batch.
    plan : BatchPlan
        What to make.
    layout : Layout
        What images look like before and after.

    Raises
    ------
    ImageFileError
        If a file fails and ``on_error`` says so.
    """
    # Read once: users may set it at any time, and all parts of a batch go to one device.
    device = iterator.device
    # Of a GPU whichever is current in this thread; on the host nothing has to be made current, and nothing moved.
    with nullcontext() if device == "cpu" else on_device(device):
        made = make_images(plan, iterator._source, iterator._masks, iterator.image_data_generator, layout)
        if iterator.save_to_dir is not None:
            save_images(made, iterator.save_to_dir, iterator.save_prefix, iterator.save_format, layout.data_format)
        # Labels follow the images: a substituted file brings the label of its substitute.
        samples, shard_weights = made.sample_indices, made.plan.weights
        y = _placed(iterator._labels_of(made.images, samples), device) if made.masks is None else made.masks
        # Without labels or masks beside them Keras leaves the weights out.
        weights = None if y is None else iterator.sample_weight
        return assemble(
            made.images,
            y,
            None if weights is None else gathered(weights, samples, device),
            further_inputs=[gathered(item, samples, device) for item in iterator._further_inputs],
            shard_weights=_placed(shard_weights, device),
        )


def make_batch_of_files(iterator: FileIterator, plan: BatchPlan) -> Any:
    """Make the batch of a plan from files; the last one of an epoch reports those that failed.

    Parameters
    ----------
    iterator : FileIterator
        Whose batch.
    plan : BatchPlan
        What to make.

    Raises
    ------
    ImageFileError
        If a file fails and ``on_error`` says so.
    """
    # Keras makes float32 images of files whatever the batch's dtype, and casts at the end.
    dtype, own = iterator.dtype, iterator.data_format
    image_dtype = "float32" if dtype == "float64" else dtype
    # Anew for each batch, because users set `dtype` and `data_format` at any time.
    layout = Layout("channels_last", iterator._batch_format or own, own, image_dtype, dtype)
    try:
        return make_batch(iterator, plan, layout)
    finally:
        # Also where the batch raised: its bad files belong to the report.
        if iterator._may_pass_over and plan.batch_index == len(iterator._planner) - 1:
            iterator._report_bad_files()


def make_images(
    plan: BatchPlan,
    source: Source,
    masks: PairedMasks | None,
    generator: ImageGenerator | None,
    layout: Layout,
) -> MadeImages:
    """Fetch the images of a plan and transform them.

    Parameters
    ----------
    plan : BatchPlan
        What to make.
    source : Source
        Where the images are kept.
    masks : PairedMasks or None
        Their masks.
    generator : ImageDataGenerator or None
        What is done to them; None lays them out and casts.
    layout : Layout
        What they look like before and after.

    Raises
    ------
    ImageFileError
        If a file fails and ``on_error`` says so.
    """
    if isinstance(source, FileSource) and source.crops:
        from gpuseq.plan.boxes import without_crops

        fetched = source.fetch_cropped(plan)
        plan = replace(plan, program=without_crops(plan.program))
    else:
        fetched = source.fetch(plan.indices)
    # Some files failed: the plan is cut to those that are there, so that parameters stay with their images.
    if fetched.positions is not None:
        plan = plan.take(fetched.positions)
    made_masks = None
    if masks is not None:
        shared = _mask_options(generator, masks)
        fetched, plan, found = masks.fetch(fetched, plan)
        made_masks = _make_masks(masks, found, plan, replace(shared, data_format=layout.data_format))
    # What reads the images is put on the stream within this context; see `gpuseq.ops.cuda.resident`.
    images = fetched.images
    with fetched.reading():
        if generator is None:
            batch = images if fetched.rows is None else images[fetched.rows]
            if layout.source_format != layout.data_format:
                batch = batch.transpose(0, 3, 1, 2)
        else:
            # A user's function sees the order that the iterator names; only the fused pass lays out another one at
            # once.
            made_format = layout.data_format
            if made_format != layout.own_format and not generator._batch_transform.is_fused:
                made_format = layout.own_format
            batch = generator.process(
                images,
                plan.params,
                fetched.rows,
                program=plan.program,
                source_format=layout.source_format,
                data_format=made_format,
                dtype=layout.image_dtype,
                round_affine=layout.round_affine,
                looks=fetched.looks,
            )
            if made_format != layout.data_format:
                batch = array_module(batch).ascontiguousarray(reordered(batch, made_format, layout.data_format))
        # float64 batches of files are float32 images, cast, as in Keras; order="C" because a transposed view keeps its
        # strides otherwise.
        if generator is None or layout.image_dtype != layout.dtype:
            batch = batch.astype(layout.dtype, order="C", copy=False)
    return MadeImages(batch, fetched.sample_indices, made_masks, plan)


def save_images(made: MadeImages, folder: str, prefix: str, extension: str, data_format: str) -> None:
    """Write each image of a batch to ``folder/prefix_index_number.extension``.

    Parameters
    ----------
    made : MadeImages
        The images; their plan holds the numbers.
    folder, prefix, extension : str
        As `check_save_to_dir` has seen them.
    data_format : {"channels_last", "channels_first"}
        Axis order of the images.
    """
    host = made.images.get() if is_cupy(made.images) else made.images
    plan = made.plan
    numbers = np.zeros(len(plan), np.int64) if plan.file_numbers is None else plan.file_numbers
    for image, index, number in zip(host, plan.indices, numbers, strict=True):
        name = f"{prefix}_{index}_{number}.{extension}"
        with replacing(os.path.join(folder, name)) as path:  # a full disk leaves no half a picture
            # Stretched to 0..255, as in Keras: a normalised batch holds no levels. Pictures of one batch so differ in
            # contrast.
            array_to_img(image, data_format, scale=True).save(path)


def _make_masks(masks: PairedMasks, found: list[Fetched], plan: BatchPlan, options: AugmentOptions) -> Any:
    made = []
    for fetched, dtype in zip(found, masks.dtypes, strict=True):
        with fetched.reading():
            made.append(
                warp_masks(
                    fetched.images,
                    fetched.rows,
                    plan,
                    options,
                    dtype=dtype,
                    device=masks.device,
                    label=masks.ignore_value or 0,
                )
            )
    return made if masks.as_list else made[0]


def _mask_options(generator: ImageGenerator | None, masks: PairedMasks) -> AugmentOptions:
    """Return what masks share with their images, and their own axis order."""
    if generator is not None and generator._is_customised:
        raise ValueError(
            f"{type(generator).__name__} overrides apply_transform or standardize, and what it does there to an "
            "image cannot be done to its mask: use preprocessing_function, or plan_batch() and replay()"
        )
    # The generator's own order, fill mode and conventions: only what a mask has of its own is replaced.
    options = AugmentOptions() if generator is None else generator._batch_transform.options
    if masks.ignore_value is not None:
        options = replace(options, fill_mode="constant", cval=float(masks.ignore_value))
    return replace(options, source_format=masks.source_format)


def gathered(values: Any, sample_indices: np.ndarray, device: str) -> Any:
    """Return the entries of some samples where the batch is made.

    Parameters
    ----------
    values : numpy.ndarray
        Shape ``(n, ...)``, on the host: one entry per sample of the data set.
    sample_indices : numpy.ndarray
        Shape ``(N,)``, int64.
    device : str
        ``"cpu"`` or ``"cuda:N"``. Python objects stay on the host.
    """
    # Gathered on the host: only the batch's entries travel.
    return _placed(values[sample_indices], device)


def _placed(values: Any, device: str) -> Any:
    """Return what goes beside the images, an array, a list of them or None, where the batch is made."""
    if device == "cpu" or values is None:
        return values
    if isinstance(values, list):
        return [_placed(item, device) for item in values]
    if isinstance(values, np.ndarray) and values.dtype.kind in NUMBERS:
        # By the page-locked buffers that tables go through: CuPy's own way takes the host three times as long.
        return ops.upload(values, device)
    return place(values, device)


def assemble(
    images: Array,
    y: Any,
    sample_weight: Array | None,
    *,
    further_inputs: Sequence[Array] = (),
    shard_weights: Array | None = None,
) -> Any:
    """Put the parts of a batch together as Keras does: x, ``(x, y)`` or ``(x, y, sample_weight)``.

    Parameters
    ----------
    images : array
        The images.
    y : array, list of array or None
        Their labels, or their masks.
    sample_weight : array or None
        Shape ``(N,)``.
    further_inputs : sequence of array
        Beside the images: then x is a list.
    shard_weights : array or None
        Shape ``(N,)``, float32: 0 for samples that only fill up a shard. Multiplied into the weights.
    """
    x = [images, *further_inputs] if further_inputs else images
    # With remainder="exact" there are weights without labels, too: (x, None, weight).
    weight = sample_weight
    if shard_weights is not None:
        weight = shard_weights if weight is None else weight * shard_weights
    if weight is not None:
        return x, y, weight
    return x if y is None else (x, y)


def drawing_of_files(iterator: FileIterator) -> Drawing:
    """Return what is drawn for the samples of a batch of files, as it stands now.

    Parameters
    ----------
    iterator : FileIterator
        Whose batch.
    """
    limit = _FILE_NUMBERS if iterator.save_to_dir else 0
    if iterator.image_data_generator is None:
        return Drawing(image_size=iterator.target_size, file_number_limit=limit)
    drawing: Drawing = iterator.image_data_generator._drawing(iterator.image_shape, limit, iterator._source.crops)
    return drawing


def labels_of_files(iterator: FileIterator, images: Array, sample_indices: np.ndarray) -> Any:
    """Return the labels of a batch of files, as the iterator's class mode has them; None without any.

    Parameters
    ----------
    iterator : FileIterator
        Whose batch.
    images : array
        Of the batch.
    sample_indices : numpy.ndarray
        Shape ``(N,)``, int64: whose image each is.
    """
    mode = iterator.class_mode
    if mode is None:
        return None
    if mode == "input":
        # A copy, so that a training loop that writes into x does not change y.
        return images.copy()
    # These and those of "raw" keep the data frame's dtype, as in Keras.
    if mode == "multi_output":
        return [output[sample_indices] for output in iterator.labels]
    if mode == "raw":
        return iterator.labels[sample_indices]
    # Labels have the batch's dtype, as in Keras; there is no bfloat16 of NumPy to make them in.
    dtype = "float32" if iterator.dtype == "bfloat16" else iterator.dtype
    # What the batches are handed to may want class indices as integers; see `Iterator._hand_out`.
    if mode == "sparse" and iterator._index_dtype is not None:
        dtype = iterator._index_dtype
    return _class_labels(iterator.classes, iterator.class_indices, mode, sample_indices, dtype)


def _class_labels(
    classes: Any, class_indices: Mapping[str, int], class_mode: str, sample_indices: np.ndarray, dtype: str
) -> np.ndarray:
    """Return class indices, shape ``(N,)``, or with "categorical" one-hot rows, of some samples, on the host.

    `classes` holds the index of each sample of the data set; a list, as Keras keeps those of a data frame, may hold
    several for one sample.
    """
    if isinstance(classes, np.ndarray):
        found: Any = classes[sample_indices]
    else:
        found = [classes[index] for index in sample_indices.tolist()]
    if class_mode != "categorical":
        return np.asarray(found, dtype)
    one_hot = np.zeros((len(sample_indices), len(class_indices)), dtype)
    # Several classes per sample, as a data frame's lists have them: one row with several ones.
    if isinstance(found, list) and any(isinstance(item, (list, tuple)) for item in found):
        for row, columns in enumerate(found):
            one_hot[row, columns] = 1
    else:
        one_hot[np.arange(len(found)), found] = 1
    return one_hot
