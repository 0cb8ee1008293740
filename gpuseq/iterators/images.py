"""From a plan to the images of a batch: fetched, transformed, saved where asked. `labels` adds what stands beside."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from gpuseq.base.arguments import check_choice, did_you_mean
from gpuseq.base.atomic import replacing
from gpuseq.base.devices import is_cupy
from gpuseq.base.errors import DeviceError
from gpuseq.base.types import Array, DataFormat, Subset, literals
from gpuseq.decode.images import array_to_img
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.policies.geometry import RandomResizedCrop
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.policies.timm import AugMix
from gpuseq.sources.files import FileSource
from gpuseq.sources.masks import PairedMasks
from gpuseq.sources.source import Fetched, Source
from gpuseq.transforms.masks import warp_masks
from gpuseq.transforms.protocol import ImageGenerator

from .iterator import Iterator

__all__ = [
    "FURTHER_ARGUMENTS",
    "Layout",
    "MadeImages",
    "check_generator",
    "check_save_to_dir",
    "checked_split",
    "make_images",
    "save_images",
]

FURTHER_ARGUMENTS = ("shard", "remainder", "workers", "use_multiprocessing", "max_queue_size")
"""What every iterator takes by its ``**kwargs``."""


@dataclass(frozen=True)
class Layout:
    """What the images of a source, and those of the batches, look like.

    Attributes
    ----------
    source_format, data_format : {"channels_last", "channels_first"}
        Axis order of the source's images, and of the batches.
    image_dtype, dtype : str
        What the generator makes, and what the batches are cast to.
    round_affine : bool
        See `~gpuseq.ops.options.AugmentOptions`.
    """

    source_format: DataFormat
    data_format: DataFormat
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
    fetched = source.fetch(plan.indices)
    if fetched.positions is not None:
        plan = plan.take(fetched.positions)
    made_masks = None
    if masks is not None:
        shared = _mask_options(generator, masks)
        fetched, plan, found = masks.fetch(fetched, plan)
        made_masks = _make_masks(masks, found, plan, shared)
    with fetched.reading() as images:
        if generator is None:
            batch = images if fetched.rows is None else images[fetched.rows]
            if layout.source_format != layout.data_format:
                batch = batch.transpose(0, 3, 1, 2)
        else:
            batch = generator.process(
                images,
                plan.params,
                fetched.rows,
                program=plan.program,
                source_format=layout.source_format,
                data_format=layout.data_format,
                dtype=layout.image_dtype,
                round_affine=layout.round_affine,
            )
        if generator is None or layout.image_dtype != layout.dtype:
            batch = batch.astype(layout.dtype, order="C", copy=False)
    return MadeImages(batch, fetched.sample_indices, made_masks, plan)


def check_save_to_dir(save_to_dir: str | None, save_format: str) -> str | None:
    """Return `save_to_dir` if it is None or an existing folder for files of a format that Pillow writes.

    Raises
    ------
    FileNotFoundError
        If there is no such folder. (Keras finds out at the first batch.)
    ValueError
        If there is no such format. (And so of this.)
    """
    if save_to_dir and not os.path.isdir(save_to_dir):
        raise FileNotFoundError(f"save_to_dir={save_to_dir!r} is not an existing folder: create it first")
    if save_to_dir:
        formats = [suffix[1:] for suffix in Image.registered_extensions()]
        if str(save_format).lower() not in formats:
            meant = did_you_mean(save_format, Iterator.white_list_formats)
            raise ValueError(f"save_format must be an extension that Pillow knows; got {save_format!r}{meant}")
    return save_to_dir or None


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
    """Return what masks share with their images, and their own axis orders."""
    if generator is not None and generator._is_customised:
        raise ValueError(
            f"{type(generator).__name__} overrides apply_transform or standardize, and what it does there to an "
            "image cannot be done to its mask: use preprocessing_function, or plan_batch() and replay()"
        )
    options = AugmentOptions() if generator is None else generator._batch_transform.options
    if masks.ignore_value is not None:
        options = replace(options, fill_mode="constant", cval=float(masks.ignore_value))
    return replace(options, source_format=masks.source_format, data_format=masks.data_format)


def check_generator(generator: ImageGenerator | None, rng: str, image_size: tuple[int, int], source: Source) -> None:
    """Look at a generator together with the images and the random mode, once all are known.

    Parameters
    ----------
    generator : ImageDataGenerator or None
        What is done to the images.
    rng : {"keras", "keyed"}
        Whose numbers are drawn.
    image_size : (int, int)
        Rows and columns of the images.
    source : Source
        Where they are kept.

    Raises
    ------
    ValueError, TypeError
        If the numbers of a subclass cannot be drawn in this mode, or augmentations cannot be done to these images.
    DeviceError
        If augmentations cannot be done there.
    """
    if generator is None:
        return
    if generator._draws_its_own and rng == "keyed":
        raise ValueError(
            f'rng="keyed" draws the numbers of {type(generator).__name__} by key, and cannot ask the '
            'get_random_transform that it overrides: use rng="keras"'
        )
    generator._check_conventions(image_size)
    if (recipe := generator._recipe) is not None:
        _check_augmentations(generator, recipe, image_size, source)


def _check_augmentations(
    generator: ImageGenerator, recipe: Recipe, image_size: tuple[int, int], source: Source
) -> None:
    """Refuse at construction what the augmentations cannot be done to."""
    if source.dtype != np.uint8:
        raise TypeError(
            f"augmentations={generator.augmentations!r} work on uint8 images, levels 0 to 255, as Pillow's do; x "
            f"holds {source.dtype}: hand in x.astype('uint8') of images in 0 to 255"
        )
    if generator._is_customised:
        raise ValueError(
            f"{type(generator).__name__} overrides apply_transform or standardize, which Keras calls with one "
            "image before it is normalised: augmentations have no place between the two. Leave out one of them"
        )
    first = recipe.augmentations[0]
    if isinstance(first, RandomResizedCrop) and isinstance(source, FileSource):
        raise ValueError(
            f"{first!r} on files would crop what target_size={image_size} has already made small: use it on "
            "arrays, or with gpuseq.Compose"
        )
    if source.device != "cpu" and recipe.holds(AugMix, RandomResizedCrop):
        raise DeviceError(
            f"augmentations={generator.augmentations!r}: AugMix and RandomResizedCrop do not run on a GPU yet, and "
            f"batches are made on {source.device}: pass device='cpu' to the generator"
        )


def checked_split(subset: str | None, generator: ImageGenerator | None) -> tuple[float, float] | None:
    """Return which part of the samples a subset is, ``(from, to)``: validation comes first. None: all of them.

    Raises
    ------
    ValueError
        If there is no such subset, or nothing was set aside for it.
    """
    if subset is None:
        return None
    check_choice("subset", subset, literals(Subset))
    fraction = 0.0 if generator is None else generator._validation_split
    if subset == "training":
        return fraction, 1.0
    if not fraction:
        raise ValueError(
            'subset="validation", but the generator sets nothing aside: ImageDataGenerator(validation_split=0.2)'
        )
    return 0.0, fraction
