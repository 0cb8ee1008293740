"""Random erasing on the NumPy engine, and the normal numbers that every engine writes."""

from __future__ import annotations

from functools import cache

import numpy as np

from gpuseq.base.forks import forks_wait
from gpuseq.plan.program import STEPS

__all__ = ["erase", "normal_noise", "normal_quantiles", "philox_words"]

# The generator of 32-bit words, unlike that of `gpuseq.plan.draw`: devices multiply 32 bits in one instruction.
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def erase(batch_nhwc: np.ndarray, program: np.ndarray) -> None:
    """Overwrite the rectangles of a program's erasing steps, in place.

    Parameters
    ----------
    batch_nhwc : numpy.ndarray
        Shape ``(N, H, W, C)``, any dtype; a view of channels-first images does as well. Written to.
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`; its other steps are ignored.

    References
    ----------
    ``torchvision.transforms.v2.functional.erase``.
    """
    channels = batch_nhwc.shape[3]
    for image, steps in zip(batch_nhwc, program, strict=True):
        for values in steps:
            step, args = STEPS[values["op"]], values["arg"]
            if step.kind != "erase":
                continue
            top, left, height, width = (int(value) for value in args[:4])
            target = image[top : top + height, left : left + width]
            if step.name == "EraseNoise":
                target[...] = _as_levels(normal_noise(int(args[4]), target.size).reshape(target.shape), image.dtype)
            else:
                # A step holds four values: images of more channels take the first for all.
                filling = args[4:8] if channels <= 4 else np.full(channels, args[4])
                target[...] = _as_levels(filling[:channels], image.dtype)


def _as_levels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values as a batch's dtype stores them: truncated and cut off at the ends of an integer's range.

    They pass through float32, as all values of a batch do that is not float64.
    """
    values = values.astype(np.float64 if dtype == np.float64 else np.float32)
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    levels: np.ndarray = np.clip(np.trunc(values), limits.min, limits.max).astype(dtype)
    return levels


@cache
def normal_quantiles() -> np.ndarray:
    """Return 65,536 values that cut the normal distribution into equal shares, float32: a number for 16 random bits."""
    with forks_wait("the import of statistics"):
        from statistics import NormalDist  # here, because it takes longer to import than all of this

    # A table, and no Box-Muller: `log` and `cos` differ between host and device by bits, and a table does not. The
    # middle of each of the 65,536 shares, so neither end is infinite.
    inverse = NormalDist().inv_cdf
    table = np.array([inverse((number + 0.5) / 65536) for number in range(65536)], np.float32)
    table.setflags(write=False)
    return table


def normal_noise(key: int, count: int) -> np.ndarray:
    """Return normal numbers, float32: number i depends on `key` and i alone, so any order gives the same.

    Parameters
    ----------
    key : int
        0 to 2**64 - 1.
    count : int
        How many, from 0 on.

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011: Philox4x32-10, of which each
    word gives two numbers, its low half first.
    """
    words = philox_words(np.arange(-(-count // 8), dtype=np.uint64), key)
    # Eight numbers of each block of four words.
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=2).reshape(-1)
    drawn: np.ndarray = normal_quantiles()[halves[:count].astype(np.intp)]
    return drawn


def philox_words(blocks: np.ndarray, key: int) -> np.ndarray:
    """Return the four words of each block of Philox4x32-10, uint64 below 2**32: shape ``(blocks, 4)``.

    Parameters
    ----------
    blocks : numpy.ndarray
        Shape ``(B,)``, uint64 below 2**32: the counter's first words; the others are 0.
    key : int
        0 to 2**64 - 1: low half first.
    """
    # The counter's other words stay 0: 2^32 blocks are more than an image has.
    words = [blocks, *(np.zeros_like(blocks) for _ in range(3))]
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        first, second = _MULTIPLIERS[0] * words[0], _MULTIPLIERS[1] * words[2]
        words = [
            (second >> _32) ^ words[1] ^ np.uint64(keys[0]),
            second & _LOW_32,
            (first >> _32) ^ words[3] ^ np.uint64(keys[1]),
            first & _LOW_32,
        ]
        keys = [(part + step) & 0xFFFFFFFF for part, step in zip(keys, _WEYL, strict=True)]
    return np.stack(words, axis=1)
