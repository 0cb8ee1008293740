"""Numbers by key: what NumPy's counter-based generator Philox gives, for many samples at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["Compiled", "philox_rows", "philox_uniform", "use_compiled"]


class Compiled(Protocol):
    """What gives the same numbers in less time, or None where the environment asks for NumPy."""

    def __call__(  # noqa: D102
        self, sample_ids: np.ndarray, num_doubles: int, *, seed: int, epoch: int, space: int
    ) -> np.ndarray | None: ...


_compiled: Compiled | None = None


def use_compiled(function: Compiled) -> None:
    """Ask a function for numbers from now on, before NumPy: this room knows no library, and the one that has it calls.

    Parameters
    ----------
    function : Compiled
        Takes what `philox_rows` takes, and in the place of `place` the third word of the counters: 0 for those of
        `philox_uniform`.
    """
    global _compiled
    _compiled = function


# One row for each of the two halves of a Philox block.
_MULTIPLIERS = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
_ROUNDS = 10
# What the key has grown by in each round; like all of it, modulo 2**64.
_KEY_STEPS = np.arange(_ROUNDS, dtype=np.uint64)[:, None] * np.array(
    [0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64
)
# Arrays, because NumPy converts a number anew at every call.
_LOW_32, _32, _11 = (np.array(number, np.uint64) for number in (0xFFFFFFFF, 32, 11))


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
    if _compiled is not None:
        drawn = _compiled(sample_ids, num_doubles, seed=seed, epoch=epoch, space=0)
        if drawn is not None:
            return drawn
    num_blocks = -(-num_doubles // 4)
    # NumPy's bit generator increments its counter before it produces a block: the first block has counter 1.
    # The number of blocks is part of the counter, so another number of columns changes all pictures: what is drawn
    # beside the ranges has counters of its own (`philox_rows`).
    even, odd = np.zeros((2, 2, len(sample_ids), num_blocks), np.uint64)
    blocks = np.arange(1, num_blocks + 1, dtype=np.uint64)
    even[0] = sample_ids.astype(np.uint64)[:, None] * np.uint64(num_blocks) + blocks  # words 0 and 2
    return _philox(even, odd, num_doubles, seed, epoch)


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
    if _compiled is not None:
        drawn = _compiled(sample_ids, num_doubles, seed=seed, epoch=epoch, space=1 + place)
        if drawn is not None:
            return drawn
    num_blocks = -(-num_doubles // 4)
    even, odd = np.zeros((2, 2, len(sample_ids), num_blocks), np.uint64)
    # Words 0 and 2; the third is never 0, which keeps these counters apart from those of `philox_uniform`.
    even[0], even[1] = sample_ids.astype(np.uint64)[:, None], 1 + place
    odd[0] = np.arange(num_blocks, dtype=np.uint64)
    return _philox(even, odd, num_doubles, seed, epoch)


def _philox(even: np.ndarray, odd: np.ndarray, num_doubles: int, seed: int, epoch: int) -> np.ndarray:
    """Return doubles from counters ``(2, N, blocks)``: words 0 and 2, and words 1 and 3."""
    num_samples, num_blocks = even.shape[1:]
    size = num_samples * num_blocks
    # A batch is so small that a call of NumPy takes longer than its work, and several times as long where it has to
    # broadcast or to step backwards. So all arrays have one shape and hold both halves of the block, and one call
    # multiplies both halves of the words.
    words, odd, middle = even.reshape(2, size).copy(), odd.reshape(2, size), np.empty((2, size), np.uint64)
    products, keys = np.empty((2, 2, size), np.uint64), np.empty((_ROUNDS, 2, size), np.uint64)
    keys[...] = (np.array([seed, epoch], np.uint64) + _KEY_STEPS)[:, :, None]
    factors, (by_low, by_high) = np.empty((2, size), np.uint64), np.empty((2, 2, 2, size), np.uint64)
    factors[...], by_low[...], by_high[...] = _MULTIPLIERS, _MULTIPLIERS & _LOW_32, _MULTIPLIERS >> _32
    # Halves of 32 bits, the low ones first, and what they give by the low and by the high halves of the factors.
    halves, with_low, with_high = np.empty((3, 2, 2, size), np.uint64)
    low_half, high_half = halves
    (carried, crossed), (between, high) = with_low, with_high
    # Ten rounds, as in NumPy. Each multiplies words 0 and 2, and crosses the products over to the other half.
    for number, key in enumerate(keys):
        np.bitwise_and(words, _LOW_32, low_half)
        np.right_shift(words, _32, high_half)
        # The high 64 bits of the 128-bit products, by halves: NumPy has no wider integer. Of the lower halves only what
        # is carried into the upper one is wanted.
        np.multiply(halves, by_low, with_low)
        np.multiply(halves, by_high, with_high)
        np.right_shift(carried, _32, middle)
        np.add(middle, between, middle)
        np.bitwise_and(middle, _LOW_32, low_half)
        np.add(crossed, low_half, crossed)
        np.right_shift(crossed, _32, crossed)
        np.right_shift(middle, _32, middle)
        np.add(high, middle, high)
        np.add(high, crossed, high)
        low = products[number % 2]  # by turns: the odd words of one round are read in the next
        np.multiply(words, factors, low)
        np.bitwise_xor(high[1], odd[0], words[0])
        np.bitwise_xor(high[0], odd[1], words[1])
        np.bitwise_xor(words, key, words)
        odd = low[::-1]
    block = np.empty((size, 4), np.uint64)
    block[:, 0::2], block[:, 1::2] = words.T, odd.T
    # 53 bits of each word, as NumPy makes a double of it.
    uniform: np.ndarray = np.right_shift(block.reshape(num_samples, 4 * num_blocks)[:, :num_doubles], _11) * 2.0**-53
    return uniform
