"""Batches for TensorFlow: eager tensors for loops of your own, a ``tf.data.Dataset``, and Keras without the host."""

from __future__ import annotations

from functools import partial
from typing import Any

from gpuseq.base.errors import GpuseqError, require
from gpuseq.feed.loader import Loader
from gpuseq.feed.lookahead import map_arrays
from gpuseq.feed.tensors import host_array, tensorflow_tensor
from gpuseq.iterators.iterator import Iterator
from gpuseq.iterators.passing import first_left

tf = require("tensorflow", extra="tensorflow", purpose="gpuseq.tensorflow")

__all__ = ["TensorflowLoader", "as_dataset", "experimental_adapter", "loader"]


def loader(iterator: Iterator) -> TensorflowLoader:
    """Turn an iterator into what a TensorFlow loop of your own iterates over.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.

    Returns
    -------
    TensorflowLoader
        Its batches are eager tensors, on the GPU where they are made there.

    Raises
    ------
    TypeError
        If `iterator` is something else.
    """
    return TensorflowLoader(iterator)


class TensorflowLoader(Loader):  # numpydoc ignore=PR02
    """An iterable with a length, ``set_epoch``, ``state_dict`` and ``load_state_dict``.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.
    """

    def _make(self, epoch: int, index: int) -> Any:
        batch = self.iterator.replay(self.iterator.plan_batch(index, epoch=epoch))
        return map_arrays(tensorflow_tensor, _listless(batch))


def as_dataset(iterator: Iterator) -> Any:
    """Return an iterator as a ``tf.data.Dataset``: each pass over it is the next epoch. Batches come from the host.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.

    Returns
    -------
    tf.data.Dataset
        With a known cardinality, unless `on_error` may leave nothing of a batch; the number of rows of a batch is left
        open for the last one.

    Raises
    ------
    TypeError
        If `iterator` is something else.
    ValueError
        If there are no batches.
    """
    batches = _HostLoader(iterator)
    if not len(batches):
        raise ValueError("there are no batches: a tf.data.Dataset needs one to know its shapes")
    # tf.data wants shapes and dtypes before the first batch; the number of rows stays open for the last one.
    example = _first(batches)
    signature = tf.nest.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), example)
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    # An asserted cardinality that is not met is an error of TensorFlow.
    if not iterator._may_pass_over:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return dataset.prefetch(1)


def experimental_adapter(iterator: Iterator) -> Any:
    """Return what ``model.fit`` takes on Keras' tensorflow backend to train on batches that never leave the GPU.

    Experimental: it stands on Keras' private ``DataAdapter`` (Keras 3.7 and later), and ``fit`` ignores
    ``class_weight`` and ``shuffle`` with it; the iterator shuffles as it does anyway.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.

    Raises
    ------
    TypeError
        If `iterator` is something else.
    GpuseqError
        If this Keras has no such class; the message names the route by the host.
    """
    batches = TensorflowLoader(iterator)
    try:
        # Within the call: the module works without Keras.
        from keras.src.trainers.data_adapters.data_adapter import DataAdapter
    except ImportError as error:
        raise GpuseqError(
            f"this Keras has no data adapters to build on ({error}). Write model.fit(iterator.to_keras()) instead"
        ) from error

    class Adapter(DataAdapter):  # type: ignore[misc]
        """Eager tensors, batch by batch."""

        def get_tf_dataset(self) -> Any:
            return _Tuples(batches)

        @property
        def num_batches(self) -> int | None:
            # Unknown where a pass may be shorter by each batch that is passed over.
            return None if iterator._may_pass_over else len(batches)

        @property
        def batch_size(self) -> int:
            return batches.batch_size

        @property
        def has_partial_batch(self) -> bool:
            return bool(iterator.n % iterator.batch_size)

        @property
        def partial_batch_size(self) -> int:
            return iterator.n % iterator.batch_size

    return Adapter()


def _first(batches: Loader) -> Any:
    """Return the first batch, or the first of which anything is left."""
    # By the loader's own place: the look moves nothing.
    place = batches._next
    return first_left(partial(batches._make, place.epoch, index) for index in range(place.index, len(batches)))


class _HostLoader(Loader):
    """NumPy batches, in tuples."""

    def _make(self, epoch: int, index: int) -> Any:
        return map_arrays(host_array, _listless(self.iterator.replay(self.iterator.plan_batch(index, epoch=epoch))))


class _Tuples:
    """What Keras' loop iterates over, again each epoch."""

    def __init__(self, batches: Loader) -> None:
        self._batches = batches

    def __iter__(self) -> Any:
        for batch in self._batches:
            yield batch if isinstance(batch, tuple) else (batch,)


def _listless(batch: Any) -> Any:
    """Turn lists into tuples, which TensorFlow takes for structure, and drop labels that are not there."""
    if isinstance(batch, tuple) and len(batch) == 3 and batch[1] is None:
        raise GpuseqError('remainder="exact" without labels gives (x, None, weights), which tf.data cannot hold')
    if isinstance(batch, (tuple, list)):
        return tuple(_listless(item) for item in batch)
    return batch
