"""What makes a data set one for Keras: its base classes, the backend's tensors, class weights, the calls of ``fit``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from gpuseq.base.devices import array_module, on_device
from gpuseq.base.errors import DeviceError, EmptyBatchError, GpuseqError, MissingDependencyError, require
from gpuseq.base.types import Array
from gpuseq.feed.lookahead import map_arrays
from gpuseq.feed.tensors import host_array, jax_array, torch_memory, torch_tensor
from gpuseq.iterators.explain import peek
from gpuseq.iterators.iterator import Iterator

from .fit_progress import FitWalk

__all__ = ["PY_DATASET", "FitDataset", "backend", "class_weights", "join_tf_keras", "keras"]

logger = logging.getLogger("gpuseq")

NUM_SAMPLED = 2
"""Batches that Keras takes at most to see their shapes."""


def _import_keras() -> Any:
    try:
        return require("keras", extra="keras", purpose="gpuseq.keras")
    except MissingDependencyError:
        raise
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"Keras is installed, but {error.name!r}, which its backend needs, is not. Say which backend is there "
            'before anything imports keras: os.environ["KERAS_BACKEND"] = "torch" (or "jax"); or install it'
        ) from error


keras = _import_keras()

PY_DATASET: Any = getattr(keras.utils, "PyDataset", None) or keras.utils.Sequence
_TELLS_EPOCHS = hasattr(PY_DATASET, "on_epoch_begin")


def backend() -> str:
    """Return for which backend of Keras 3 batches are made: "torch", "jax", or "numpy" for all others."""
    name = keras.config.backend() if _TELLS_EPOCHS else "numpy"
    return name if name in ("torch", "jax") else "numpy"


def join_tf_keras(kind: type) -> None:
    """Make a class one of tf_keras' data sets, too, if that is loaded by now: it may be imported first or last.

    Parameters
    ----------
    kind : type
        A class of `gpuseq.keras`, or a user's subclass of one.
    """
    base = getattr(getattr(sys.modules.get("tf_keras"), "utils", None), "Sequence", None)
    if base is not None and not issubclass(kind, base):
        for owner in kind.__mro__:
            if PY_DATASET in owner.__bases__:
                owner.__bases__ = (*owner.__bases__, base)


class FitDataset:
    """What makes an iterator or a sequence a data set for Keras."""

    device: str
    _class_weight: dict[int, float] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object whose class `fit` of each Keras that is loaded knows."""
        join_tf_keras(cls)
        return super().__new__(cls)

    @property
    def _fit_walk(self) -> FitWalk:
        walk: FitWalk | None = self.__dict__.get("_walk")
        if walk is None:
            # TensorFlow's prefetch makes a trial of any length.
            self.__dict__["_walk"] = walk = FitWalk(None if backend() == "numpy" else 2)
        return walk

    # What subclasses say.

    def _walked(self, epoch: int, position: int, index: int) -> Any:
        raise NotImplementedError

    def _plain(self, index: int) -> Any:
        raise NotImplementedError

    def _resume(self) -> tuple[int, int]:
        return 0, 0

    def _num_seen(self) -> int:
        return 0

    def check_state(self) -> None:
        """Raise a GpuseqError if there is no state to save."""

    # What Keras asks.

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch."""
        walk = self._fit_walk
        walk.opened()
        if not walk.used and not walk.inside:
            self._mark()
        return len(self)  # type: ignore[arg-type]

    def _mark(self) -> None:
        """Remember where the walk stands: TensorFlow takes batches by index, to see their shapes, before an epoch."""
        here = self._num_seen(), self._resume()
        marked = self.__dict__.get("_before_fit")
        sampled = marked is not None and here[0] - marked[0] <= NUM_SAMPLED and here[1][1] == marked[1][1]
        if not sampled:
            self.__dict__["_before_fit"] = here

    def _start(self) -> tuple[int, int]:
        """Return the first batch for ``fit``: where the walk stood before TensorFlow took its samples."""
        self._mark()
        start: tuple[int, int] = self.__dict__.pop("_before_fit")[1]
        return start

    def __getitem__(self, index: int) -> Any:
        """Return batch `index` as a tuple of the backend's tensors; within ``fit``, the next batch.

        Parameters
        ----------
        index : int
            0 to ``len(self) - 1``.

        Raises
        ------
        IndexError
            If `index` is outside; a ValueError too.
        """
        walk = self._fit_walk
        # Only Keras 3 tells when an epoch begins; tf_keras takes arrays of NumPy.
        taker = "numpy" if "tf_keras" in sys.modules and not walk.inside else backend()
        with on_device(self.device), torch_memory(self.device if taker == "torch" else "cpu") as blocks:
            if walk.is_reading:
                if not walk.used:
                    walk.go_to(*self._start())
                batch = self._next_of(walk, index)
            else:
                batch = self._sampled(walk, index)
            batch = self._weighted(self._tupled(batch))
            if taker == "torch":
                return map_arrays(lambda array: torch_tensor(array, blocks), batch)
            if taker == "jax":
                return map_arrays(jax_array, batch)
            return _without_lists(map_arrays(host_array, batch))

    def _sampled(self, walk: FitWalk, index: int) -> Any:
        """Return batch `index`; where nothing is left of it, and TensorFlow wants to see shapes, another one."""
        try:
            return self._plain(index)
        except EmptyBatchError:
            source = getattr(self, "source", self)
            if not walk.is_opening or not isinstance(source, Iterator):
                raise
            for other in range(len(source)):
                with suppress(EmptyBatchError):
                    return source.replay(peek(source, other))
            raise

    def _next_of(self, walk: FitWalk, index: int) -> Any:
        """Return the next batch of a walk of which anything is left once bad files are passed over."""
        length = len(self)  # type: ignore[arg-type]
        place = walk.take(length)
        for _ in range(length):
            try:
                return self._walked(*place, index)
            except EmptyBatchError as error:
                problem = error
                place = walk.pass_over(place, length)
        raise problem

    def on_epoch_begin(self) -> None:
        """Note that ``fit``, ``evaluate`` or ``predict`` begins an epoch.

        Raises
        ------
        ValueError
            If there are no batches.
        GpuseqError
            If the data are sharded here and by Keras' distribution.
        """
        if not len(self):  # type: ignore[arg-type]
            raise ValueError(f"{type(self).__module__}.{type(self).__name__} holds no batches: there are no samples")
        self._refuse_double_sharding()
        self._fit_walk.begin()

    @property
    def workers(self) -> int:
        """1: this package reads ahead on its own threads, and Keras starts none."""
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        self.__dict__["_asked_workers"] = value

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
        if getattr(self, "device", "cpu") != "cpu":
            raise DeviceError(
                f"use_multiprocessing=True cannot work with batches made on {self.device!r}: a CUDA context does not "
                "survive a fork. Leave the argument out: files are read ahead on threads"
            )
        logger.info("use_multiprocessing=True is not needed and has no effect: files are read ahead on threads")

    @property
    def class_weight(self) -> dict[int, float] | None:
        """Weight of each class, 1 for those not named: multiplied into the sample weights, where the batch is made.

        Raises
        ------
        ValueError
            When it is set to something else than classes from 0 with finite weights.
        """
        return self._class_weight

    @class_weight.setter
    def class_weight(self, value: Mapping[int, float] | None) -> None:
        if value is not None:
            good = isinstance(value, Mapping) and all(
                isinstance(key, (int, np.integer)) and key >= 0 and np.isfinite(weight) for key, weight in value.items()
            )
            if not good:
                raise ValueError(f"class_weight must map class indices from 0 to finite weights; got {value!r}")
            value = {int(key): float(weight) for key, weight in value.items()}
        self._class_weight = value

    # What becomes of a batch.

    def _tupled(self, batch: Any) -> tuple[Any, ...]:
        map_arrays(_refuse_words, batch)
        if isinstance(batch, list) and not getattr(getattr(self, "source", self), "x_misc", ()):
            batch = tuple(batch)  # as Keras does; a flow's list is an image with further inputs
        if not isinstance(batch, tuple):
            return (batch,)
        if not 1 <= len(batch) <= 3:
            raise ValueError(
                f"{type(self).__module__}.{type(self).__name__} made a batch of {len(batch)} parts. "
                "Return (x,), (x, y) or (x, y, sample_weight)"
            )
        return batch

    def _weighted(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._class_weight or len(batch) == 1:
            return batch
        labels = batch[1]
        if labels is None or isinstance(labels, (tuple, list, Mapping)) or labels.ndim > 2:
            raise ValueError("class_weight needs one class per sample: labels of shape (N,), (N, 1) or (N, classes)")
        weights = class_weights(labels, self._class_weight)
        return (batch[0], labels, weights if len(batch) == 2 else batch[2] * weights)

    def _refuse_double_sharding(self) -> None:
        planner = getattr(getattr(self, "source", self), "planner", None)
        walk = None if planner is None else planner.options
        if walk is None or walk.world == 1 or not hasattr(keras, "distribution"):
            return
        distribution = keras.distribution.distribution()
        if getattr(distribution, "_is_multi_process", False) and getattr(distribution, "auto_shard_dataset", False):
            raise GpuseqError(
                f"the data are sharded twice: shard=({walk.rank}, {walk.world}) here, and Keras' distribution shards "
                "again. Write distribution.auto_shard_dataset = False, or make it so: "
                "keras.distribution.DataParallel(auto_shard_dataset=False)"
            )


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
    table = np.ones(max(weights) + 2, np.float32)
    table[list(weights)] = list(weights.values())
    return xp.asarray(table)[xp.clip(classes, 0, len(table) - 1)]
