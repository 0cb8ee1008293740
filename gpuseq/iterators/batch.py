"""From a plan to a batch: images fetched, transformed, saved where asked, and put beside their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from gpuseq.base.atomic import replacing
from gpuseq.base.devices import array_module, is_cupy, on_device, place
from gpuseq.base.types import Array, DataFormat
from gpuseq.decode.images import array_to_img
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.plan import BatchPlan
from gpuseq.sources.files import FileSource
from gpuseq.sources.masks import PairedMasks
from gpuseq.sources.source import Fetched, Source
from gpuseq.transforms.batch import reordered
from gpuseq.transforms.masks import warp_masks
from gpuseq.transforms.protocol import ImageGenerator

__all__ = ["Layout", "MadeImages", "assemble", "gathered", "make_batch", "make_images", "save_images"]


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
        """Return the labels of a batch, where it is made; None without any."""


@dataclass(frozen=True)
class Layout:
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


@dataclass(frozen=True)
class MadeImages:
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
    with on_device(device):  # whichever is current in this thread
        made = make_images(plan, iterator._source, iterator._masks, iterator.image_data_generator, layout)
        if iterator.save_to_dir is not None:
            save_images(made, iterator.save_to_dir, iterator.save_prefix, iterator.save_format, layout.data_format)
        # Labels follow the images: a substituted file brings the label of its substitute.
        samples, shard_weights = made.sample_indices, made.plan.weights
        y = iterator._labels_of(made.images, samples) if made.masks is None else made.masks
        # Without labels or masks beside them Keras leaves the weights out.
        weights = None if y is None else iterator.sample_weight
        return assemble(
            made.images,
            y,
            None if weights is None else gathered(weights, samples, device),
            further_inputs=[gathered(item, samples, device) for item in iterator._further_inputs],
            shard_weights=None if shard_weights is None else place(shard_weights, device),
        )


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
    with fetched.reading() as images:
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
        with fetched.reading() as images:
            made.append(
                warp_masks(
                    images, fetched.rows, plan, options, dtype=dtype, device=masks.device, label=masks.ignore_value or 0
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
    found = values[sample_indices]
    return found if found.dtype == object else place(found, device)


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
