"""What a data set answers to ``model.fit``: `Fit` does it for a source of batches, and `FitDataset` has one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from collections.abc import Iterator as IteratorABC
from functools import partial
from types import FunctionType
from typing import Any, TypeVar

import numpy as np

from gpuseq.base.arguments import caller
from gpuseq.base.devices import array_module, on_device
from gpuseq.base.errors import DeviceError, EmptyBatchError, GpuseqError
from gpuseq.base.types import Array
from gpuseq.feed.lookahead import map_arrays
from gpuseq.feed.tensors import host_array, jax_array, torch_memory, torch_tensor
from gpuseq.iterators.iterator import Iterator
from gpuseq.iterators.passing import first_left
from gpuseq.plan.state import at_batch

from .backend import backend, join_tf_keras, keras
from .fit_progress import FitProgress
from .source import FitSource, IteratorSource

__all__ = ["Fit", "FitDataset", "class_weights", "for_fit", "is_for_fit"]

Dataset = TypeVar("Dataset")

logger = logging.getLogger("gpuseq")

NUM_SAMPLED = 2
"""Batches that Keras takes at most to see their shapes."""


class Fit:
    """What ``fit``, ``evaluate`` and ``predict`` ask of a data set, answered from a source.

    Parameters
    ----------
    source : FitSource
        Where the batches come from.
    owner : object
        The data set, for messages.

    Attributes
    ----------
    progress : FitProgress
        Which batch is next.
    class_weight : dict or None
        Class to weight, 1 for those not named.
    """

    def __init__(self, source: FitSource, owner: object) -> None:
        self.source = source
        self.owner = owner
        # TensorFlow's prefetch makes a trial of any length.
        self.progress = FitProgress(None if backend() == "numpy" else 2)
        self.class_weight: dict[int, float] | None = None
        self._before: tuple[int, tuple[int, int]] | None = None

    @property
    def _name(self) -> str:
        return f"{type(self.owner).__module__}.{type(self.owner).__name__}"

    # The calls around the batches.

    def open(self) -> None:
        """Note that the number of batches was asked for: so begins each pass."""
        self.progress.opened()
        if not self.progress.used and not self.progress.inside:
            self._mark()

    def begin_epoch(self) -> None:
        """Note that an epoch begins.

        Raises
        ------
        ValueError
            If there are no batches.
        GpuseqError
            If the data are sharded here and by Keras' distribution.
        """
        if not len(self.source):
            raise ValueError(f"{self._name} holds no batches: there are no samples")
        self._refuse_double_sharding()
        self.progress.begin()

    def end_epoch(self) -> None:
        """Note an ``on_epoch_end``: after an epoch, after a trial, or before the first one."""
        is_over = self.progress.end()
        self.source.end_epoch(is_over=is_over, fitted=self.progress.used)

    def _mark(self) -> None:
        """Remember where the source stands: TensorFlow takes batches by index, to see their shapes, before an epoch."""
        # By the count of batches: a sample of TensorFlow's moves the source by one or two, and it stands at the same
        # batch of the epoch otherwise.
        seen, standing = self.source.num_seen(), self.source.standing()
        marked = self._before
        sampled = marked is not None and seen - marked[0] <= NUM_SAMPLED and standing[1] == marked[1][1]
        if not sampled:
            self._before = seen, standing

    def _start(self) -> tuple[int, int]:
        """Return the first batch for ``fit``: where the source stood before TensorFlow took its samples."""
        self._mark()
        assert self._before is not None
        start, self._before = self._before[1], None
        return start

    # Where the data stand.

    def set_epoch(self, epoch: int) -> None:
        """Let the next request get the start of an epoch; where it stands within that one, it goes on there."""
        if not self.progress.stands_in(epoch):
            self.source.set_epoch(epoch)
            self.progress.go_to(epoch, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Return the source's state, at the batch that is next in ``fit``."""
        # In `fit` the source is asked by place and does not move; the progress knows what is next.
        state, progress = self.source.state_dict(), self.progress
        return at_batch(state, progress.epoch, progress.position) if progress.used else state

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Let the next request get the batch that a state names."""
        self.source.load_state_dict(state)
        self.progress.used = False
        self._before = None
        # A state of Keras' way to count has no epoch: the source stands there by itself.
        if self.source.counts_by_epoch:
            self.progress.go_to(*self.source.standing())

    # Batches.

    def batch(self, index: int) -> Any:
        """Return a batch: to ``fit`` the next one, whatever its index, as the backend's tensors; else that one.

        Who looks at a batch by index gets what the source makes: arrays, in the parts that Keras' own iterators give.
        """
        progress = self.progress
        if not progress.is_reading and not self._is_sampled():
            batch = self.source.batch(index, progress.epoch if progress.used else None)
            return self._weighted(self._tupled(batch)) if self.class_weight else batch
        # Only Keras 3 tells when an epoch begins; tf_keras takes arrays of NumPy.
        taker = "numpy" if "tf_keras" in sys.modules and not progress.inside else backend()
        device = self.source.device
        # Batch and weights are made within torch's memory, so that what torch gets is torch's own.
        with on_device(device), torch_memory(device if taker == "torch" else "cpu") as blocks:
            batch = self._weighted(self._tupled(self._next(index) if progress.is_reading else self._sampled(index)))
            # What each backend takes without a copy: torch its own tensor on the current device, jax its own array.
            # TensorFlow's way is the host's.
            if taker == "torch":
                return map_arrays(lambda array: torch_tensor(array, blocks), batch)
            if taker == "jax":
                return map_arrays(jax_array, batch)
            return _without_lists(map_arrays(host_array, batch))

    def _is_sampled(self) -> bool:
        """Return whether a batch by index is asked for by Keras, of either generation, on its way into ``fit``."""
        is_wrapped = (
            getattr(type(self.owner), "__getitem__", None) is not FitDataset.__getitem__
        )  # then a user's own line asks
        asks = caller().f_globals.get("__name__", "").startswith(("keras.", "tf_keras."))
        return asks or (is_wrapped and self.progress.is_opening)

    def _sampled(self, index: int) -> Any:
        """Return batch `index`; where nothing is left of it, another one to what counts on a batch.

        That is TensorFlow, which wants to see shapes, and tf_keras, which reads its epochs by index: there the next
        batch of the epoch of which anything is left takes the place, beside its own.
        """
        progress = self.progress
        # Once `fit` has begun, "the current epoch" is that of its progress: the source does not move with it.
        epoch = progress.epoch if progress.used else None
        if caller().f_globals.get("__name__", "").startswith("tf_keras."):
            length = len(self.source)
            return first_left(partial(self.source.batch, (index + more) % length, epoch) for more in range(length))
        try:
            return self.source.batch(index, epoch)
        except EmptyBatchError as error:
            if not progress.is_opening:
                raise
            return self.source.another(error)

    def _next(self, asked: int) -> Any:
        """Return the next batch of which anything is left once bad files are passed over."""
        progress, length = self.progress, len(self.source)
        # The first request of the first `fit` begins where the user left the iterator.
        if not progress.used:
            progress.go_to(*self._start())

        def makers() -> IteratorABC[Callable[[], Any]]:
            where = progress.take(length)
            yield partial(self.source.batch_at, *where, asked)
            for _ in range(length - 1):
                # `fit` counts on as many batches: the pass goes on into the next epoch.
                where = progress.pass_over(where, length)
                yield partial(self.source.batch_at, *where, asked)

        return first_left(makers())

    def _tupled(self, batch: Any) -> tuple[Any, ...]:
        map_arrays(_refuse_words, batch)
        if isinstance(batch, list) and not self.source.has_lists:
            batch = tuple(batch)  # as Keras does; a flow's list is an image with further inputs
        if not isinstance(batch, tuple):
            # Keras raises for a bare tensor.
            return (batch,)
        if not 1 <= len(batch) <= 3:
            raise ValueError(
                f"{self._name} made a batch of {len(batch)} parts. Return (x,), (x, y) or (x, y, sample_weight)"
            )
        return batch

    def _weighted(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.class_weight or len(batch) == 1:
            return batch
        labels = batch[1]
        if labels is None or isinstance(labels, (tuple, list, Mapping)) or labels.ndim > 2:
            raise ValueError("class_weight needs one class per sample: labels of shape (N,), (N, 1) or (N, classes)")
        # On the labels' device: Keras' own `class_weight` copies the labels to the host at every batch.
        with on_device(labels):  # which need not be the current one where the iterator makes no tensors
            weights = class_weights(labels, self.class_weight)
            return (batch[0], labels, weights if len(batch) == 2 else batch[2] * weights)

    def _refuse_double_sharding(self) -> None:
        options = self.source.options
        if options is None or options.world == 1 or not hasattr(keras, "distribution"):
            return
        # Keras shards a PyDataset by batch numbers, unequally, and ours is a part already.
        distribution = keras.distribution.distribution()
        if getattr(distribution, "_is_multi_process", False) and getattr(distribution, "auto_shard_dataset", False):
            raise GpuseqError(
                f"the data are sharded twice: shard=({options.rank}, {options.world}) here, and Keras' distribution "
                "shards again. Write distribution.auto_shard_dataset = False, or make it so: "
                "keras.distribution.DataParallel(auto_shard_dataset=False)"
            )


class FitDataset:
    """The methods of a ``PyDataset`` and of Keras' callbacks, over a `Fit`, which `for_fit` gives to a class.

    No base: an iterator for Keras is the plain iterator and a ``PyDataset``, and these stand before the methods of
    either.
    """

    def _fit_source(self) -> FitSource:
        """Return where the batches come from: an iterator is its own source."""
        assert isinstance(self, Iterator), "what is no iterator says where its batches come from"
        return IteratorSource(self, counts_as_keras=True)

    @property
    def _fit(self) -> Fit:
        """Made when it is first asked for; a copy of the data set has one of its own."""
        # Not in the constructor: a user's subclass may not call it, and a shallow copy would share the progress.
        found: Fit | None = self.__dict__.get("_made_fit")
        if found is not None and found.owner is self:
            return found
        fit = Fit(self._fit_source(), self)
        if found is not None:
            fit.class_weight = found.class_weight
        self.__dict__["_made_fit"] = fit
        return fit

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch."""
        fit = self._fit
        fit.open()
        return len(fit.source)

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`, as Keras' own iterators do; to ``fit`` the next batch, as the backend's tensors.

        Parameters
        ----------
        index : int
            0 to ``len(self) - 1``.

        Raises
        ------
        IndexError
            If `index` is outside; a ValueError too.
        """
        return self._fit.batch(index)

    def on_epoch_begin(self) -> None:
        """Note that ``fit``, ``evaluate`` or ``predict`` begins an epoch.

        Raises
        ------
        ValueError
            If there are no batches.
        GpuseqError
            If the data are sharded here and by Keras' distribution.
        """
        self._fit.begin_epoch()

    def on_epoch_end(self) -> None:
        """Note that an epoch is over; Keras calls this before the first one, too."""
        self._fit.end_epoch()

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; where a resumed run stands within it already, go on there.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        self._fit.set_epoch(epoch)

    def state_dict(self) -> dict[str, int | str]:
        """Return where the data stand: the next batch after the last one that was handed out.

        Keras takes batches ahead of training on some backends; `SaveState` knows what was trained on.

        Raises
        ------
        GpuseqError
            Without a seed, or if the batches are those of a sequence of the user's own.
        """
        return self._fit.state_dict()

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
            If the batches are those of a sequence of the user's own.
        """
        self._fit.load_state_dict(state)

    @property
    def workers(self) -> int:
        """1: this package reads ahead on its own threads, and Keras starts none."""
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        pass  # PyDataset's constructor sets it, and so do users: to refuse it would break lines that work with Keras

    @property
    def use_multiprocessing(self) -> bool:
        """False: threads do it, and a GPU cannot be used from a forked process.

        Raises
        ------
        DeviceError
            When it is set to True and batches are made on a GPU.
        """
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if not value:
            return
        device = getattr(self, "device", "cpu")
        if device != "cpu":
            raise DeviceError(
                f"use_multiprocessing=True cannot work with batches made on {device!r}: a CUDA context does not "
                "survive a fork. Leave the argument out: files are read ahead on threads"
            )
        # Not refused: it is common in code for Keras, and costs nothing here.
        logger.info("use_multiprocessing=True is not needed and has no effect: files are read ahead on threads")

    @property
    def class_weight(self) -> dict[int, float] | None:
        """Weight of each class, 1 for those not named: multiplied into the sample weights, where the batch is made.

        Raises
        ------
        ValueError
            When it is set to something else than classes from 0 with finite weights.
        """
        return self._fit.class_weight

    @class_weight.setter
    def class_weight(self, value: Mapping[int, float] | None) -> None:
        if value is not None:
            good = isinstance(value, Mapping) and all(
                isinstance(key, (int, np.integer)) and key >= 0 and np.isfinite(weight) for key, weight in value.items()
            )
            if not good:
                raise ValueError(f"class_weight must map class indices from 0 to finite weights; got {value!r}")
            # A copy of plain numbers: what the owner changes later, or NumPy's types as keys, must not reach the
            # batches.
            value = {int(key): float(weight) for key, weight in value.items()}
        self._fit.class_weight = value


_METHODS = {name: member for name, member in vars(FitDataset).items() if isinstance(member, (FunctionType, property))}


def for_fit(kind: type[Dataset]) -> type[Dataset]:
    """Give a class the methods of `FitDataset`, but for those that its body defines: a decorator.

    Parameters
    ----------
    kind : type
        A ``PyDataset``, and an `Iterator` of this package unless its body defines ``_fit_source``.
    """

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        # `fit` of each Keras that is loaded has to know the class, and which are loaded is known when an object is
        # made.
        join_tf_keras(cls)
        return super(kind, cls).__new__(cls)  # type: ignore[misc]  # of a decorated class

    for name, member in {"__new__": staticmethod(new), **_METHODS}.items():
        if name not in vars(kind):
            setattr(kind, name, member)
    return kind


def is_for_fit(dataset: object) -> bool:
    """Tell whether the class of an object, or a base of it, was given the methods of `FitDataset`.

    Parameters
    ----------
    dataset : object
        Whatever was handed to a callback.
    """
    return getattr(type(dataset), "_fit", None) is FitDataset._fit


def _refuse_words(array: Array) -> None:
    if array.dtype.kind in "OSUmM":
        raise TypeError(
            f"there are no tensors of dtype {array.dtype}: turn the labels into numbers first, as "
            "numpy.unique(labels, return_inverse=True)[1] does"
        )


def _without_lists(batch: Any) -> Any:
    """Turn lists into tuples: to ``tf.data`` a list is an array to be."""
    if isinstance(batch, Mapping):
        return {key: _without_lists(item) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_without_lists(item) for item in batch))
    return tuple(_without_lists(item) for item in batch) if isinstance(batch, (tuple, list)) else batch


def class_weights(labels: Array, weights: Mapping[int, float]) -> Array:
    """Return the weight of each sample, where the labels are.

    Parameters
    ----------
    labels : array
        Shape ``(N,)`` or ``(N, 1)``: classes; ``(N, K)``: one-hot rows.
    weights : mapping
        Class to weight; 1 for those not in it.

    Returns
    -------
    array
        Shape ``(N,)``, float32.
    """
    xp = array_module(labels)
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
    classes = xp.rint(labels).astype(np.int64)
    # One place more than the largest class at the end, and one before class 0: what lies above and below, such as the
    # label -1 of samples without a class, is clipped there, to weight 1.
    table = np.ones(max(weights) + 3, np.float32)
    table[[label + 1 for label in weights]] = list(weights.values())
    return xp.asarray(table)[xp.clip(classes, -1, len(table) - 2) + 1]
