"""Batches for JAX: `loader` around an iterator, on one device or spread over a mesh."""

from __future__ import annotations

from typing import Any

from gpuseq.base.errors import require
from gpuseq.feed.loader import Loader
from gpuseq.feed.lookahead import map_arrays
from gpuseq.feed.tensors import host_array, jax_array
from gpuseq.iterators.iterator import Iterator

jax = require("jax", extra="jax", purpose="gpuseq.jax")

__all__ = ["JaxLoader", "loader"]


def loader(iterator: Iterator, sharding: Any = None) -> JaxLoader:
    """Turn an iterator into what a JAX training loop iterates over.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.
    sharding : jax.sharding.Sharding or None
        How a batch lies on the devices, such as ``NamedSharding(mesh, PartitionSpec("batch"))``. One process with
        several devices spreads its batches over them; of several processes, each gives its own batch, with
        ``shard="auto"``, as its part of a global array. None: whole, on one device.

    Returns
    -------
    JaxLoader
        Its batches are ``jax.Array``.

    Raises
    ------
    TypeError
        If `iterator` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuseq import ImageDataGenerator
    >>> from gpuseq.jax import loader
    >>> images = np.zeros((5, 8, 8, 3), np.uint8)
    >>> flow = ImageDataGenerator(device="cpu").flow(images, np.arange(5), batch_size=2, seed=1)
    >>> [images.shape[0] for images, labels in loader(flow)]
    [2, 2, 1]
    """
    return JaxLoader(iterator, sharding)


class JaxLoader(Loader):
    """An iterable with a length, ``state_dict`` and ``load_state_dict``; ``get_state`` and ``set_state`` as in Grain.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin.
    sharding : jax.sharding.Sharding or None
        How a batch lies on the devices, such as ``NamedSharding(mesh, PartitionSpec("batch"))``. One process with
        several devices spreads its batches over them; of several processes, each gives its own batch, with
        ``shard="auto"``, as its part of a global array. None: whole, on one device.
    """

    def __init__(self, iterator: Iterator, sharding: Any = None) -> None:
        super().__init__(iterator)
        self.sharding = sharding

    def _make(self, epoch: int, index: int) -> Any:
        batch = self.iterator.replay(self.iterator.plan_batch(index, epoch=epoch))
        if self.sharding is None:
            return map_arrays(jax_array, batch)
        return map_arrays(lambda array: self._spread(array, index), batch)

    def _spread(self, array: Any, index: int) -> Any:
        # Several processes can only give JAX what their host holds: it places each part on the devices itself.
        local = host_array(array) if jax.process_count() > 1 else jax_array(array)
        try:
            if jax.process_count() > 1:
                return jax.make_array_from_process_local_data(self.sharding, local)
            return jax.device_put(local, self.sharding)
        except ValueError as error:
            raise ValueError(
                f"batch {index}, shape {tuple(array.shape)}, does not lie evenly on {self.sharding}: choose a "
                "batch_size, and a number of samples, that the devices divide"
            ) from error
