"""Memory of large batches on the host: what nobody holds any more is written to again by the next batch.

The C library gives large blocks back to the system once they are freed, from 32 MB on always. The next batch would be
handed out again page by page, each cleared before it is written to, which takes longer than to make the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["KEPT_BYTES", "kept_block"]

KEPT_BYTES = range(1 << 20, (1 << 28) + 1)
"""Sizes of blocks that are kept: smaller ones cost little to have anew, and larger ones too much to leave idle."""

# One while the batch before is still looked at, and one of another size: that of the last batch of an epoch.
_kept: deque[np.ndarray] = deque(maxlen=2)


def kept_block(num_bytes: int, new: Callable[[int], np.ndarray], kept: deque[np.ndarray] | None = None) -> np.ndarray:
    """Return bytes of any content: those of a block that no array is a part of any more, else new ones.

    Parameters
    ----------
    num_bytes : int
        How many, of `KEPT_BYTES`.
    new : callable
        Takes `num_bytes` and returns an array of so many uint8.
    kept : collections.deque of numpy.ndarray, optional
        Where blocks wait to be used again, with a `maxlen`. By default those of batches.

    Raises
    ------
    MemoryError
        If there is no memory for them, with nothing left that is kept.
    """
    return np.asarray(_Loan(num_bytes, new, _kept if kept is None else kept))


class _Loan:
    """Owns a block while any array is a part of it, and gives it back when the last of them is gone.

    NumPy makes the object whose ``__array_interface__`` it reads the base of the array, and the views of that array
    hold on to it. So do PyTorch, JAX and TensorFlow where they take an array without a copy.
    """

    def __init__(self, num_bytes: int, new: Callable[[int], np.ndarray], kept: deque[np.ndarray]) -> None:
        # Its own name for it, because the module's may be gone by the time the interpreter ends.
        self.kept = kept
        self.block = _taken(num_bytes, new, kept)
        self.__array_interface__ = self.block.__array_interface__

    def __del__(self) -> None:
        # The block is missing where there was no memory for it.
        block: Any = self.__dict__.pop("block", None)
        if block is not None:
            self.kept.append(block)


def _taken(num_bytes: int, new: Callable[[int], np.ndarray], kept: deque[np.ndarray]) -> np.ndarray:
    # An object may die in any thread and between any two instructions, so nothing here takes a lock: the steps of a
    # deque are atomic, and what another thread has taken meanwhile is only not found.
    for _ in range(len(kept)):
        try:
            block = kept.popleft()
        except IndexError:
            break
        if len(block) == num_bytes:
            return block
        kept.append(block)
    try:
        return new(num_bytes)
    except MemoryError:
        kept.clear()
        return new(num_bytes)
