"""What all image iterators share: from a plan to the batch in the caller's hands."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
from PIL import Image

from gpuseq.base.arguments import check_choice, did_you_mean
from gpuseq.base.devices import is_cupy, on_device, place
from gpuseq.base.errors import DeviceError
from gpuseq.base.types import Array
from gpuseq.decode.images import array_to_img
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.policies.geometry import RandomResizedCrop
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.ranges import TransformRanges
from gpuseq.sources.files import ArraySource, FileSource
from gpuseq.sources.masks import PairedMasks

from .explain import Explanation, explain, iterator_html
from .iterator import Iterator

__all__ = ["ImageIterator", "check_save_to_dir", "checked_split"]

logger = logging.getLogger("gpuseq")

FURTHER_ARGUMENTS = ("shard", "remainder", "workers", "use_multiprocessing", "max_queue_size")
"""What every iterator takes by its ``**kwargs``."""


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

    @property
    def _recipe(self) -> Recipe | None:  # type: ignore[override]
        generator = self.image_data_generator
        return None if generator is None else generator.recipe

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
        if generator.recipe is not None:
            self._check_augmentations(generator)

    def _check_augmentations(self, generator: Any) -> None:
        """Refuse at construction what the augmentations cannot be done to."""
        source_dtype = self._source.images.dtype if isinstance(self._source, ArraySource) else np.dtype(np.uint8)
        if source_dtype != np.uint8:
            raise TypeError(
                f"augmentations={generator.augmentations!r} work on uint8 images, levels 0 to 255, as Pillow's do; x "
                f"holds {source_dtype}: hand in x.astype('uint8') of images in 0 to 255"
            )
        if generator.is_customised:
            raise ValueError(
                f"{type(generator).__name__} overrides apply_transform or standardize, which Keras calls with one "
                "image before it is normalised: augmentations have no place between the two. Leave out one of them"
            )
        first = generator.recipe.augmentations[0]
        if isinstance(first, RandomResizedCrop) and isinstance(self._source, FileSource):
            raise ValueError(
                f"{first!r} on files would crop what target_size={self._image_size} has already made small: use it on "
                "arrays, or with gpuseq.Compose"
            )
        if self.device != "cpu":
            raise DeviceError(
                f"augmentations={generator.augmentations!r} do not run on a GPU yet, and batches are made on "
                f"{self.device}: pass device='cpu' to the generator"
            )

    @property
    def _file_number_limit(self) -> int:  # type: ignore[override]
        return self._hash_limit if self.save_to_dir else 0

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        plan = self._plan_of(index_array)
        with on_device(self.device):  # whichever is current in this thread
            return self._make_batch(plan)

    def _make_batch(self, plan: BatchPlan) -> Any:
        fetched = self._source.fetch(plan.indices)
        if fetched.positions is not None:
            plan = plan.take(fetched.positions)
        masks = None
        if self._paired is not None:
            fetched, plan, masks = self._paired.fetch(fetched, plan, self._geometry())
        with fetched.reading() as images:
            batch_x = self._make_images(images, plan, fetched.rows)
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

    def _make_images(self, images: Array, plan: BatchPlan, rows: np.ndarray | None) -> Array:
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


def _weighted(batch: Any, weights: Array) -> tuple[Any, ...]:
    """Add weights to a batch, or multiply those it has."""
    if not isinstance(batch, tuple):
        return batch, None, weights
    if len(batch) == 2:
        return (*batch, weights)
    return (*batch[:2], batch[2] * weights)


def checked_split(subset: str | None, generator: Any) -> tuple[float, float] | None:
    """Return which part of the samples a subset is, ``(from, to)``: validation comes first. None: all of them.

    Raises
    ------
    ValueError
        If there is no such subset, or nothing was set aside for it.
    """
    if subset is None:
        return None
    check_choice("subset", subset, ("training", "validation"))
    fraction = 0.0 if generator is None else generator._validation_split
    if subset == "training":
        return fraction, 1.0
    if not fraction:
        raise ValueError(
            'subset="validation", but the generator sets nothing aside: ImageDataGenerator(validation_split=0.2)'
        )
    return 0.0, fraction


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
