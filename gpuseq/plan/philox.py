"""Numbers by key: what NumPy's counter-based generator Philox gives, for many samples at once."""

from __future__ import annotations

import numpy as np

__all__ = ["philox_rows", "philox_uniform"]

# One entry for each of the two halves of a Philox block, to be broadcast over (2, N, blocks).
_PHILOX_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)[:, None, None]
_PHILOX_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox_uniform(sample_ids: np.ndarray, num_doubles: int, *, seed: int, epoch: int) -> np.ndarray:
    """Doubles in [0, 1) for each sample, from Philox4x64-10 with key (seed, epoch) and the sample id as counter.

    Equal to ``Generator(Philox(key=(seed, epoch)))`` advanced to the sample's row of ``ceil(num_doubles / 4)`` blocks,
    for all samples in one vectorised pass.

    Parameters
    ----------
    sample_ids : numpy.ndarray
        Shape ``(N,)``, non-negative integers.
    num_doubles : int
        Numbers per sample.
    seed, epoch : int
        The two words of the key.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, num_doubles)``, float64.

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. ``numpy.random.Philox``.
    """
    num_blocks = -(-num_doubles // 4)
    # NumPy's bit generator increments its counter before it produces a block: the first block has counter 1.
    # The number of blocks is part of the counter, so another number of columns changes all pictures: what is drawn
    # beside the ranges has counters of its own (`philox_rows`).
    counters = sample_ids.astype(np.uint64)[:, None] * np.uint64(num_blocks) + np.arange(
        1, num_blocks + 1, dtype=np.uint64
    )
    even = np.stack([counters, np.zeros_like(counters)])  # words 0 and 2
    return _philox(even, np.zeros_like(even), num_doubles, seed, epoch)


def philox_rows(sample_ids: np.ndarray, num_doubles: int, *, seed: int, epoch: int, place: int) -> np.ndarray:
    """Doubles in [0, 1) for each sample that have nothing in common with those of `philox_uniform`.

    The counter's words are the sample id, the block, ``1 + place`` and 0, where those of `philox_uniform` have 0 in the
    third. So what is drawn at another place, or how many numbers are, changes none of them.

    Parameters
    ----------
    sample_ids : numpy.ndarray
        Shape ``(N,)``, non-negative integers.
    num_doubles : int
        Numbers per sample.
    seed, epoch : int
        The two words of the key.
    place : int
        From 0: which of several independent rows of a sample.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, num_doubles)``, float64.

    References
    ----------
    As `philox_uniform`.
    """
    num_blocks = -(-num_doubles // 4)
    ids, blocks = np.broadcast_arrays(sample_ids.astype(np.uint64)[:, None], np.arange(num_blocks, dtype=np.uint64))
    # Words 0 and 2; the third is never 0, which keeps these counters apart from those of `philox_uniform`.
    even = np.stack([ids, np.full_like(ids, 1 + place)])
    return _philox(even, np.stack([blocks, np.zeros_like(blocks)]), num_doubles, seed, epoch)


def _philox(even: np.ndarray, odd: np.ndarray, num_doubles: int, seed: int, epoch: int) -> np.ndarray:
    """Return doubles from counters ``(2, N, blocks)``: words 0 and 2, and words 1 and 3."""
    _, num_samples, num_blocks = even.shape
    # Ten rounds, as in NumPy. The two halves of a block are computed as one array: each round multiplies words 0 and 2,
    # and crosses the products over to the other half.
    key = [seed, epoch]
    for _ in range(10):
        high, low = _multiply_wide(_PHILOX_MULTIPLIERS, even)
        even = high[::-1] ^ odd
        even ^= np.array(key, np.uint64)[:, None, None]
        odd = low[::-1]
        key = [(word + step) & 0xFFFFFFFFFFFFFFFF for word, step in zip(key, _PHILOX_WEYL, strict=True)]
    # 53 bits of each word, as NumPy makes a double of it.
    words: np.ndarray = np.stack([even[0], odd[0], even[1], odd[1]], axis=-1).reshape(num_samples, 4 * num_blocks)
    uniform: np.ndarray = np.right_shift(words[:, :num_doubles], np.uint64(11)) * 2.0**-53
    return uniform


def _multiply_wide(factor: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the high and low 64 bits of the 128-bit products, by halves (NumPy has no wider integer)."""
    factor_high, factor_low = factor >> _32, factor & _LOW_32
    words_high, words_low = words >> _32, words & _LOW_32
    # In place where it can be: `words_low` and `words_high` are new arrays of this call's own. Of the lower halves
    # only what is carried into the upper one is wanted.
    middle = factor_low * words_low
    middle >>= _32
    words_low *= factor_high
    middle += words_low
    high = factor_high * words_high
    words_high *= factor_low
    words_high += middle & _LOW_32
    words_high >>= _32
    middle >>= _32
    high += middle
    high += words_high
    return high, factor * words
