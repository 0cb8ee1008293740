"""Which samples, in what order: the algebra of epochs and shards. Pure NumPy; nothing here knows an image."""

from __future__ import annotations

import numpy as np

from .draw import KerasStream

__all__ = ["epoch_permutation", "keyed_permutation", "position_of", "shard_indices", "shard_size"]


def keyed_permutation(size: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch as a function of (seed, epoch) alone.

    Parameters
    ----------
    size : int
        Number of samples.
    seed, epoch : int
        The composite key, each below 2**64.

    Returns
    -------
    numpy.ndarray
        Shape ``(size,)``, int64. Its counter space is apart from that of `draw_keyed`.
    """
    # The fourth word of the counter is 0 wherever parameters are drawn.
    # Made whole: 0.06 s for 10^6 samples, 0.85 s for 10^7; 17.7 s and some 3 GB for 10^8.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, 1], np.uint64))
    return np.random.Generator(bits).permutation(size)


def epoch_permutation(size: int, *, seed: int, epoch: int, first_batch: int | None) -> np.ndarray:
    """Return the order of an epoch by its number.

    Parameters
    ----------
    size : int
        Number of samples.
    seed, epoch : int
        Of the iterator, and from 0.
    first_batch : int or None
        The number of the epoch's first batch, whose stream Keras draws the order from. None: `keyed_permutation`.

    Returns
    -------
    numpy.ndarray
        Shape ``(size,)``, int64.
    """
    if first_batch is None:
        return keyed_permutation(size, seed=seed, epoch=epoch)
    stream = KerasStream(seed)
    stream.reseed(first_batch)
    return stream.permutation(size)


def position_of(indices: np.ndarray, order: np.ndarray, batch_size: int) -> int | None:
    """Return which batch of an order holds these samples, one by one; None where none does.

    Parameters
    ----------
    indices, order : numpy.ndarray
        Shapes ``(N,)`` and ``(n,)``, int64.
    batch_size : int
        Samples per batch.
    """
    # More than one batch may begin with the same sample where a shard is filled up with samples of its start.
    for position in np.flatnonzero(order[::batch_size] == indices[:1]) if len(indices) else ():
        if np.array_equal(order[position * batch_size : (position + 1) * batch_size], indices):
            return int(position)
    return None


def shard_size(num_samples: int, world: int, remainder: str) -> int:
    """Return how many samples of an epoch a rank takes: the same number on each.

    Parameters
    ----------
    num_samples : int
        Size of the data set.
    world : int
        Number of ranks.
    remainder : {"pad", "drop", "exact"}
        "drop" leaves out what does not divide; the others fill up.
    """
    return num_samples // world if remainder == "drop" else -(-num_samples // world)


def shard_indices(
    permutation: np.ndarray, rank: int, world: int, remainder: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return one rank's part of an epoch's global order.

    Ranks take turns (rank r takes positions r, r + world, ...), so a batch of all ranks together is a contiguous piece
    of the global order.

    Parameters
    ----------
    permutation : numpy.ndarray
        Shape ``(n,)``, int64: the order of the epoch, the same on every rank.
    rank, world : int
        This process and how many there are.
    remainder : {"pad", "drop", "exact"}
        "pad" repeats samples from the start of the order; "exact" does so too, with weight 0.

    Returns
    -------
    indices : numpy.ndarray
        Shape ``(shard_size,)``, int64.
    weights : numpy.ndarray or None
        Shape ``(shard_size,)``, float32, 0 for repeated samples; None unless "exact".
    """
    num_samples = len(permutation)
    size = shard_size(num_samples, world, remainder)
    # The order as it is, and not a copy by positions, which takes 6 us for each 1,000 samples; of no samples there is
    # nothing to take a remainder by.
    if world == 1 or num_samples == 0:
        return permutation, np.ones(num_samples, np.float32) if remainder == "exact" else None
    # Positions past the end wrap around: the samples that fill up come from the start of the order.
    positions = rank + world * np.arange(size)
    weights = (positions < num_samples).astype(np.float32) if remainder == "exact" else None
    return permutation[positions % num_samples], weights
