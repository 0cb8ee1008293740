"""What the arguments of an iterator over images are held to at construction."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gpuseq.base.arguments import check_choice, did_you_mean, warn
from gpuseq.base.types import FrameClassMode, Subset, literals
from gpuseq.sources.files import FileSource
from gpuseq.sources.source import Source
from gpuseq.transforms.protocol import ImageGenerator

from .iterator import Iterator

if TYPE_CHECKING:
    from gpuseq.plan.policies.recipe import Recipe

__all__ = [
    "DEPRECATED",
    "FURTHER_ARGUMENTS",
    "check_generator",
    "check_save_to_dir",
    "checked_split",
    "without_deprecated",
]

FURTHER_ARGUMENTS = ("shard", "remainder", "workers", "use_multiprocessing", "max_queue_size")
"""What every iterator takes by its ``**kwargs``."""

DEPRECATED = {
    "has_ext": "filenames in the dataframe have to match the exact filenames in disk.",
    "sort": "batches will be created in the same order than the filenames provided if `shuffle` is set to `False`.",
    "drop_duplicates": "you can drop duplicates by using the pandas.DataFrame.drop_duplicates method.",
}
"""Argument of `flow_from_dataframe` that Keras has deprecated -> what to do without it."""


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
        # Pillow's own list, plugins that were registered included.
        formats = [suffix[1:] for suffix in Image.registered_extensions()]
        if str(save_format).lower() not in formats:
            meant = did_you_mean(save_format, Iterator.white_list_formats)
            raise ValueError(f"save_format must be an extension that Pillow knows; got {save_format!r}{meant}")
    # Empty text is none, as in Keras.
    return save_to_dir or None


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
    # Here, because only now the size of the images is known: those that are square turn about the right point.
    generator._check_conventions(image_size)
    if (recipe := generator._recipe) is not None:
        _check_augmentations(generator, recipe, image_size, source)


def _check_augmentations(
    generator: ImageGenerator, recipe: Recipe, image_size: tuple[int, int], source: Source
) -> None:
    """Refuse at construction what the augmentations cannot be done to."""
    # At construction and not at the first batch: reading and decoding may come before that.
    if source.dtype != np.uint8:
        raise TypeError(
            f"augmentations={generator.augmentations!r} work on uint8 images, levels 0 to 255, as Pillow's do; x "
            f"holds {source.dtype}: hand in x.astype('uint8') of images in 0 to 255"
        )
    recipe.check_channels(math.prod(source.image_shape) // max(1, math.prod(image_size)))
    if generator._is_customised:
        raise ValueError(
            f"{type(generator).__name__} overrides apply_transform or standardize, which Keras calls with one "
            "image before it is normalised: augmentations have no place between the two. Leave out one of them"
        )
    if recipe.begins_with_crop and isinstance(source, FileSource):
        _check_crop(recipe, source, image_size)


def _check_crop(recipe: Recipe, source: FileSource, image_size: tuple[int, int]) -> None:
    """Refuse what does not go with a crop where files are decoded."""
    named = repr(recipe.augmentations[0])
    if recipe.image_size(image_size) != image_size:
        raise ValueError(
            f"{named} crops files to another size than target_size={image_size}: say the same in both, so that a file "
            "is resized once"
        )
    if source.cache is not None:
        raise ValueError(
            f"{named} crops files anew in each epoch, and cache= keeps them resized: leave out cache=, or read the "
            "files once into an array of images larger than the crop, and let flow() crop these"
        )
    if source.options.keep_aspect_ratio:
        raise ValueError(f"{named} has a ratio of its own: leave out keep_aspect_ratio=True")


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
    # Without a validation split the training subset is everything, as in Keras.
    if subset == "training":
        return fraction, 1.0
    if not fraction:
        raise ValueError(
            'subset="validation", but the generator sets nothing aside: ImageDataGenerator(validation_split=0.2)'
        )
    return 0.0, fraction


def without_deprecated(
    further: dict[str, Any], class_mode: FrameClassMode | None
) -> tuple[dict[str, Any], FrameClassMode | None]:
    """Return the arguments of `flow_from_dataframe` without what Keras has deprecated, and warn of that.

    Parameters
    ----------
    further : dict
        Its ``**kwargs``.
    class_mode : str or None
        Of which "other" is deprecated for "raw".
    """
    # Taken and dropped, as Keras does: scripts of many years pass them.
    for name in DEPRECATED.keys() & further.keys():
        warn(f"{name} is deprecated, {DEPRECATED[name]}", DeprecationWarning)
    # As text, because a type checker knows that the value is none of those accepted.
    if str(class_mode) == "other":
        warn('`class_mode="other"` is deprecated, please use `class_mode="raw"`.', DeprecationWarning)
        class_mode = "raw"
    return {name: value for name, value in further.items() if name not in DEPRECATED}, class_mode
