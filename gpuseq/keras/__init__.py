"""The same classes for Keras: each is a ``keras.utils.PyDataset``, so ``model.fit(flow)`` takes it as it is.

``from gpuseq.keras import ImageDataGenerator`` is the whole migration. What a batch is follows Keras' backend: torch
tensors with torch, ``jax.Array`` with jax, NumPy arrays with tensorflow (which takes nothing else by this road); always
in a tuple. `next()` and `replay` go on returning the iterator's own arrays.

Within ``fit`` the n-th request of an epoch gets the n-th batch, whatever its index: see `gpuseq.keras.fit_progress`.
Keras' own worker threads are not used, because they mix up epochs and drop the order that is read ahead: ``workers``
may be set and reads 1. Files are read ahead on threads of this package.

Where ``tf_keras`` (Keras 2) is loaded when a data set is made, the data set is its ``Sequence``, too, and makes NumPy
arrays outside Keras 3's ``fit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuseq import generator
from gpuseq.base.devices import place
from gpuseq.base.errors import GpuseqError
from gpuseq.decode.images import array_to_img, img_to_array, load_img, save_img
from gpuseq.feed.lookahead import DeviceSequence, check_batches, map_arrays, to_device
from gpuseq.iterators import arrays, files, iterator
from gpuseq.plan.state import at_batch
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

from .callbacks import SaveState, SetEpoch
from .dataset import PY_DATASET, FitDataset, backend, join_tf_keras

__all__ = [
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "KerasDataset",
    "NumpyArrayIterator",
    "SaveState",
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


class _WalkedIterator(FitDataset):
    """What the iterators' subclasses share. Before the first ``fit`` they count as Keras' do, from then on by epoch."""

    def _walked(self, epoch: int, position: int, index: int) -> Any:
        return self.replay(self.plan_batch(position, epoch=epoch))  # type: ignore[attr-defined]

    def _plain(self, index: int) -> Any:
        if self._fit_walk.used:
            position = self.planner.checked_index(index)  # type: ignore[attr-defined]
            return self._walked(self._fit_walk.epoch, position, index)
        return self.replay(self.plan_batch(index))  # type: ignore[attr-defined]

    def _resume(self) -> tuple[int, int]:
        return self.epoch, self.batch_index  # type: ignore[attr-defined]

    def _num_seen(self) -> int:
        return self.total_batches_seen  # type: ignore[attr-defined, no-any-return]

    def on_epoch_end(self) -> None:
        """Note that an epoch is over; Keras calls this before the first one, too."""
        walk = self._fit_walk
        walk.end()
        if not walk.used and not self.counts_by_epoch:  # type: ignore[attr-defined]
            super().on_epoch_end()  # type: ignore[misc]

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; where a resumed walk stands within it already, go on there.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        if not self._fit_walk.stands_in(epoch):
            super().set_epoch(epoch)  # type: ignore[misc]
            self._fit_walk.go_to(epoch, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Return where the walk stands: the next batch after the last one that was handed out.

        Keras takes batches ahead of training on some backends; `SaveState` knows what was trained on.

        Raises
        ------
        GpuseqError
            Without a seed.
        """
        walk = self._fit_walk
        state: dict[str, int | str] = super().state_dict()  # type: ignore[misc]
        return at_batch(state, walk.epoch, walk.position) if walk.used else state

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on where `state_dict` was taken.

        Parameters
        ----------
        state : dict
            From `state_dict` or `SaveState`.

        Raises
        ------
        ValueError
            If the state was taken from other data or in another random mode.
        """
        super().load_state_dict(state)  # type: ignore[misc]
        self._fit_walk.used = False
        if self.counts_by_epoch:  # type: ignore[attr-defined]
            self._fit_walk.go_to(*self._resume())


class Iterator(_WalkedIterator, iterator.Iterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.Iterator` as a ``PyDataset``, for subclasses that make their own batches."""

    device = "cpu"


class NumpyArrayIterator(_WalkedIterator, arrays.NumpyArrayIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.NumpyArrayIterator` as a ``PyDataset``."""


class DirectoryIterator(_WalkedIterator, files.DirectoryIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DirectoryIterator` as a ``PyDataset``."""


class DataFrameIterator(_WalkedIterator, files.DataFrameIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DataFrameIterator` as a ``PyDataset``."""


class ImageDataGenerator(generator.ImageDataGenerator):
    """`gpuseq.ImageDataGenerator`, whose flows ``model.fit`` takes as they are."""

    _array_iterator = NumpyArrayIterator
    _directory_iterator = DirectoryIterator
    _frame_iterator = DataFrameIterator


class Sequence(iterator.Sequence, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.Sequence` as a ``PyDataset``: subclass it, and ``model.fit`` takes it as it is.

    Keras' own workers make its batches. For a lookahead onto the device, and each batch once with any number of
    workers, hand ``sequence.to_keras()`` to ``fit``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object whose class `fit` of each Keras that is loaded knows."""
        join_tf_keras(cls)
        return super().__new__(cls)


class KerasDataset(FitDataset, PY_DATASET):  # type: ignore[misc]
    """What `to_keras` returns.

    Parameters
    ----------
    source, class_weight, prefetch, workers
        See `to_keras`.
    """

    def __init__(self, source: Any, class_weight: Mapping[int, float] | None, prefetch: int, workers: int) -> None:
        check_batches(source, "to_keras()")
        if isinstance(source, DeviceSequence):
            # Its threads and these would work against each other.
            source, prefetch, workers = source.sequence, source.prefetch, source.workers
        super().__init__()
        self.source = source
        self.class_weight = class_weight
        self._ahead: DeviceSequence | None = None
        if isinstance(source, iterator.Iterator):
            self.device = getattr(source, "device", "cpu")
        else:
            self._reordered = _Reordered(source)
            self._ahead = to_device(
                self._reordered, prefetch, workers, device="cpu" if backend() == "numpy" else "auto"
            )
            self.device = self._ahead.device

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.source)

    def _walked(self, epoch: int, position: int, index: int) -> Any:
        if self._ahead is None:
            return self.source.replay(self.source.plan_batch(position, epoch=epoch))
        if position == 0:
            self._ahead.close()
            self._reordered.order = _batch_order(len(self), epoch, index)
        return self._ahead[position]

    def _plain(self, index: int) -> Any:
        if self._ahead is None:
            walk = self._fit_walk
            return self.source.replay(self.source.plan_batch(index, epoch=walk.epoch if walk.used else None))
        return map_arrays(lambda array: place(array, self.device), self.source[index])

    def _num_seen(self) -> int:
        return int(getattr(self.source, "total_batches_seen", 0))

    def _resume(self) -> tuple[int, int]:
        return (self.source.epoch, self.source.batch_index) if self._ahead is None else (0, 0)

    def on_epoch_end(self) -> None:
        """Note that an epoch is over; a sequence hears of it when one was walked, not before the first one."""
        if self._fit_walk.end() and self._ahead is not None:
            self._ahead.on_epoch_end()

    def close(self) -> None:
        """Stop the threads that work ahead. Usable again afterwards."""
        close = getattr(self.source if self._ahead is None else self._ahead, "close", None)
        if close is not None:
            close()

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; where a resumed walk stands within it already, go on there.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        if not self._fit_walk.stands_in(epoch):
            self._fit_walk.go_to(epoch, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Return where the walk over an iterator stands.

        Raises
        ------
        GpuseqError
            Without a seed, or if the source is a sequence of the user's own.
        """
        self.check_state()
        walk = self._fit_walk
        state: dict[str, int | str] = self.source.state_dict()
        return at_batch(state, walk.epoch, walk.position) if walk.used else state

    def check_state(self) -> None:
        """Raise a GpuseqError if there is no state to save."""
        if self._ahead is not None:
            raise GpuseqError("a Sequence has no state to save: what its batches hold is its own affair")

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on where `state_dict` was taken.

        Parameters
        ----------
        state : dict
            From `state_dict` or `SaveState`.

        Raises
        ------
        ValueError
            If the state was taken from other data or in another random mode.
        GpuseqError
            If the source is a sequence of the user's own.
        """
        self.check_state()
        self.source.load_state_dict(state)
        self._fit_walk.go_to(*self._resume())


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
        For a sequence: see `gpuseq.to_device`. Iterators read ahead by themselves.

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


class _Reordered:
    """A sequence in the order of one epoch."""

    def __init__(self, sequence: Any) -> None:
        self.sequence = sequence
        self.order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, position: int) -> Any:
        return self.sequence[position if self.order is None else int(self.order[position])]

    def on_epoch_end(self) -> None:
        end = getattr(self.sequence, "on_epoch_end", None)
        if end is not None:
            end()


def _batch_order(length: int, epoch: int, first_index: int) -> np.ndarray | None:
    """Return the order of a pass: as it is where Keras asks for batch 0 first, else drawn from what it asks for first.

    ``evaluate``, ``predict`` and ``fit(shuffle=False)`` begin with 0. A shuffled pass begins with any batch, from
    Python's own random numbers, so that ``keras.utils.set_random_seed`` repeats it.
    """
    if first_index == 0:
        return None
    return np.random.RandomState([epoch, first_index]).permutation(length)
