"""The same classes for Keras: each is a ``keras.utils.PyDataset``, so ``model.fit(flow)`` takes it as it is.

``from gpuseq.keras import ImageDataGenerator`` is the whole migration. What ``fit`` gets follows Keras' backend: torch
tensors with torch, ``jax.Array`` with jax, NumPy arrays with tensorflow (which takes nothing else by this road); always
in a tuple. ``next(flow)``, ``flow[i]`` and `replay` return what Keras' own iterators return: arrays of NumPy, of CuPy
on a GPU, and x alone where there are no labels.

Within ``fit`` the n-th request of an epoch gets the n-th batch, whatever its index: see `gpuseq.keras.fit_progress`.
Keras' own worker threads are not used, because they mix up epochs and drop the order that is read ahead: ``workers``
may be set and reads 1. Files are read ahead on threads of this package.

Where ``tf_keras`` (Keras 2) is loaded when a data set is made, the data set is its ``Sequence``, too, and makes NumPy
arrays outside Keras 3's ``fit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuseq import generator
from gpuseq.decode.images import array_to_img, img_to_array, load_img, save_img
from gpuseq.feed.lookahead import DeviceSequence, check_batches
from gpuseq.iterators import iterator, sequence
from gpuseq.transforms.functions import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    flip_axis,
    random_brightness,
    random_channel_shift,
    random_rotation,
    random_shear,
    random_shift,
    random_zoom,
)

from .backend import PY_DATASET, join_tf_keras
from .callbacks import Saved, SaveState, SetEpoch
from .dataset import for_fit
from .iterators import DataFrameIterator, DirectoryIterator, Iterator, NumpyArrayIterator
from .source import FitSource, IteratorSource, SequenceSource

__all__ = [
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "KerasDataset",
    "NumpyArrayIterator",
    "SaveState",
    "Saved",
    "Sequence",
    "SetEpoch",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "array_to_img",
    "flip_axis",
    "img_to_array",
    "load_img",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "save_img",
    "to_keras",
]


class ImageDataGenerator(generator.ImageDataGenerator):
    """`gpuseq.ImageDataGenerator`, whose flows ``model.fit`` takes as they are."""

    _array_iterator = NumpyArrayIterator
    _directory_iterator = DirectoryIterator
    _frame_iterator = DataFrameIterator


class Sequence(sequence.Sequence, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.Sequence` as a ``PyDataset``: subclass it, and ``model.fit`` takes it as it is.

    Keras' own workers make its batches. For a lookahead onto the device, and each batch once with any number of
    workers, hand ``sequence.to_keras()`` to ``fit``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object whose class `fit` of each Keras that is loaded knows."""
        join_tf_keras(cls)
        return super().__new__(cls)


@for_fit
class KerasDataset(PY_DATASET):  # type: ignore[misc]
    """What `to_keras` returns.

    Parameters
    ----------
    source : Iterator or Sequence
        Of this package, or anything with ``__getitem__(index)`` and ``__len__()`` that makes batches by index.
    class_weight : mapping or None
        Weight of each class, applied where the batch is made.
    prefetch, workers : int
        For a sequence: how many batches may be ready and waiting, and threads that make them, 0 for none. Iterators
        read ahead by themselves.
    """

    def __init__(self, source: Any, class_weight: Mapping[int, float] | None, prefetch: int, workers: int) -> None:
        check_batches(source, "to_keras()")
        if isinstance(source, DeviceSequence):
            # Its threads and these would work against each other.
            source, prefetch, workers = source.sequence, source.prefetch, source.workers
        super().__init__()
        self.source = source
        self._batches: FitSource = (
            IteratorSource(source, counts_as_keras=False)
            if isinstance(source, iterator.Iterator)
            else SequenceSource(source, prefetch, workers)
        )
        self.device = self._batches.device
        self.class_weight = class_weight

    def _fit_source(self) -> FitSource:
        return self._batches

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.source)

    def close(self) -> None:
        """Stop the threads that work ahead. Usable again afterwards."""
        self._batches.close()


def to_keras(
    source: Any, class_weight: Mapping[int, float] | None = None, *, prefetch: int = 2, workers: int = 4
) -> KerasDataset:
    """Turn an iterator or a sequence into what ``model.fit`` takes.

    Parameters
    ----------
    source : Iterator or Sequence
        Of this package, or anything with ``__getitem__(index)`` and ``__len__()`` that makes batches by index.
    class_weight : mapping or None
        Weight of each class, applied where the batch is made.
    prefetch, workers : int
        For a sequence: how many batches may be ready and waiting, and threads that make them, 0 for none. Iterators
        read ahead by themselves.

    Returns
    -------
    KerasDataset
        A ``keras.utils.PyDataset``. In ``fit`` a sequence's batches come in an order of their own each epoch, unless
        ``shuffle=False``; an iterator shuffles its samples itself.

    Raises
    ------
    TypeError
        If `source` has no batches by index; the message names its class.
    """
    return KerasDataset(source, class_weight, prefetch, workers)


# As in `gpuseq`: what is public here says so.
for _name in __all__:
    if globals()[_name].__module__.startswith(__name__):
        globals()[_name].__module__ = __name__
del _name
