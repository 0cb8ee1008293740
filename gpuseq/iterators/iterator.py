"""`Iterator`: batches one after another or by index, each made from its plan."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator as IteratorABC
from contextvars import ContextVar
from typing import Any

import numpy as np

from gpuseq.base.arguments import caller, warn
from gpuseq.plan.plan import BatchPlan

from .walk import Walk

__all__ = ["Iterator"]

_REPLAYED: ContextVar[list[Any] | None] = ContextVar("gpuseq_replayed", default=None)
"""The iterator and the plan of the batch that this thread is making."""


_NO_END = (
    "tf_keras takes this iterator for a generator without an end, whose first epoch is never over. Write "
    "model.fit(iterator.to_keras()), or import ImageDataGenerator from gpuseq.keras, or pass steps_per_epoch"
)


_SAME_NUMBERS = (
    "each worker process of a DataLoader draws the same random numbers here, and in every epoch again. Write "
    "DataLoader(gpuseq.torch.loader(iterator), batch_size=None, num_workers=...), or leave the workers out"
)


class Iterator(Walk):  # numpydoc ignore=PR02
    """Walks `n` samples in batches, epoch after epoch, and knows at each moment which batch is next.

    Subclasses that only know how to make a batch from sample numbers define ``_get_batches_of_transformed_samples``,
    as with Keras; the iterators of this package define ``replay``.

    Parameters
    ----------
    n : int
        Number of samples in the data set.
    batch_size : int
        Samples per batch; the last one of an epoch may have fewer.
    shuffle : bool
        A new order each epoch.
    seed : int or None
        See `~gpuseq.ImageDataGenerator.flow`.
    rng : {"keras", "keyed"}
        See `~gpuseq.ImageDataGenerator`.
    shard : None, (int, int) or "auto"
        ``(rank, world)``: walk only this rank's part of each epoch. "auto" asks the launcher.
    remainder : {"pad", "drop", "exact"}
        What happens to samples that do not divide by the world size: all ranks have equally many batches.
    **kwargs
        ``workers``, ``use_multiprocessing``, ``max_queue_size``: see `Sequence`.

    Attributes
    ----------
    n : int
        Samples that this iterator walks in an epoch: its shard's.
    batch_index, total_batches_seen : int
        As in Keras.
    index_array : numpy.ndarray or None
        Shape ``(n,)``: the order of the current epoch, None before the first batch.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If the seed is not an integer.
    """

    white_list_formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")

    def replay(self, plan: BatchPlan) -> Any:
        """Make the batch of a plan, this iterator's or that of another one over the same samples.

        Parameters
        ----------
        plan : BatchPlan
            From `plan_batch`. Give the plan of the images to the iterator of the masks, and the two cannot drift apart:
            geometry follows the plan; channel shift and brightness are done only where this iterator's generator has
            ranges for them, and what else is in the plan's program only where it has augmentations.

        Returns
        -------
        array or tuple
            What ``next()`` would have returned. Changes no state: the same plan gives the same batch.

        Raises
        ------
        ImageFileError
            If a file fails and ``on_error`` says so.
        TypeError, ValueError
            If it is no plan, or one over more samples than there are here.
        """
        if not isinstance(plan, BatchPlan):
            raise TypeError(f"replay() takes a BatchPlan, from plan_batch(); got {type(plan).__name__}")
        if len(plan) and plan.indices.max() >= self.dataset_size:
            raise ValueError(
                f"the plan was drawn for other data: it asks for sample {plan.indices.max()}, and there are "
                f"{self.dataset_size} here"
            )
        # By way of the method that subclasses written for Keras override; `_plan_of` finds the plan again.
        token = _REPLAYED.set([self, plan])
        try:
            return self._get_batches_of_transformed_samples(plan.indices.copy())
        finally:
            _REPLAYED.reset(token)

    def _plan_of(self, index_array: np.ndarray) -> BatchPlan:
        """Return the plan that is being replayed, once; for other samples, or a second view, draw one as Keras does."""
        replayed = _REPLAYED.get()
        if replayed is not None and replayed[0] is self and np.array_equal(replayed[1].indices, index_array):
            replayed[0] = None
            plan: BatchPlan = replayed[1]
            return plan
        with self.lock:
            return self._draw(np.asarray(index_array), None)

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} must define _get_batches_of_transformed_samples(index_array) to make a batch"
        )

    def __iter__(self) -> IteratorABC[Any]:
        """Return the iterator itself: it walks on and on, epoch after epoch, as Keras' does."""
        return self

    def __next__(self) -> Any:
        """Return the next batch; after the last one of an epoch comes the first one of the next."""
        if caller().f_globals.get("__name__", "").endswith("keras.src.engine.data_adapter"):
            warn(_NO_END)
        return self.replay(self.plan_batch())

    def next(self) -> Any:
        """Return the next batch, as ``next(iterator)`` does. Keras 2 has this method."""
        return next(self)

    def __getitem__(self, index: int) -> Any:
        """Return batch `index` of the current epoch.

        Parameters
        ----------
        index : int
            ``-len(self)`` to ``len(self) - 1``.

        Raises
        ------
        IndexError
            If `index` is outside; a ValueError too, as Keras raises.
        """
        worker = sys.modules.get("torch.utils.data._utils.worker")
        if worker is not None and worker._worker_info is not None and not self._by_epoch:
            warnings.warn(_SAME_NUMBERS, stacklevel=2)
        return self.replay(self.plan_batch(index))

    def plan_batch(self, index: int | None = None) -> BatchPlan:
        """Draw the plan of a batch without making the batch.

        Parameters
        ----------
        index : int or None
            Which batch of the current epoch. None: the one that ``next()`` would return.

        Returns
        -------
        BatchPlan
            Counts as a batch seen: ``iterator[i]`` is ``iterator.replay(iterator.plan_batch(i))``.

        Raises
        ------
        IndexError
            If `index` is outside the epoch.
        """
        if index is not None:
            index = self._checked_index(index)
        with self.lock:
            if index is None:
                indices, position = next(self.index_generator), self._last_position
            else:
                indices, position = self._item_indices(index), index
            plan = self._draw(indices, position)
            if index is None and self._by_epoch and self.batch_index == 0:
                self._start_epoch(self._epoch + 1)
            following = self.batch_index if index is None else position + self._stride
            self._announce(plan.indices, following, walking=index is None)
        return plan

    @property
    def _may_pass_over(self) -> bool:
        """Whether bad files may leave nothing of a batch, so that a pass can have fewer batches than ``len(self)``."""
        return False

    def close(self) -> None:
        """Stop what runs in the background. The iterator stays usable."""

    def __repr__(self) -> str:
        # Keras shows this line when somebody hands the iterator to fit as it is.
        name = f"{type(self).__module__}.{type(self).__name__}"
        advice = "for model.fit write model.fit(iterator.to_keras()), or import from gpuseq.keras"
        return f"<{name} of {self.n} samples: {advice}>"
