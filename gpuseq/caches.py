"""Decoded images kept after their first visit, in one block of host or device memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from . import ops
from .arrays import Array
from .readers import stat_token
from .workers import renew_in_child

__all__ = ["ImageCache", "Token"]

logger = logging.getLogger("gpuseq")

Token: TypeAlias = "tuple[int, int] | None"
"""Size and time of change of a file, as `gpuseq.readers.stat_token` gives them."""


class ImageCache:
    """A block of uint8 images: one slot per sample as far as memory goes, filled at the first visit, never evicted.

    Parameters
    ----------
    paths : sequence of str
        The files; the position is the sample number.
    image_shape : tuple of int
        ``(H, W, C)`` of each.
    device : str
        ``"cpu"`` or ``"cuda:N"``: where the block lives.
    memory_limit : int or None
        Bytes. None: 70 % of what is free there.

    Attributes
    ----------
    block : array
        Shape ``(capacity, H, W, C)``, uint8, on `device`.
    """

    def __init__(
        self, paths: Sequence[str], image_shape: tuple[int, ...], device: str, memory_limit: int | None
    ) -> None:
        self._paths = paths
        self._device = device
        image_bytes = int(np.prod(image_shape))
        limit = ops.free_memory(device) * 7 // 10 if memory_limit is None else memory_limit
        self.capacity = min(len(paths), limit // image_bytes)
        logger.info(
            "cache on %s: room for %d of %d images (%.0f %%), %.1f MB",
            device,
            self.capacity,
            len(paths),
            100 * self.capacity / max(1, len(paths)),
            self.capacity * image_bytes / 1e6,
        )
        self.block: Array = ops.empty((self.capacity, *image_shape), "uint8", device)
        self.used = 0
        self._slots = np.full(len(paths), -1, np.int64)
        self._tokens: list[Token] = [None] * self.capacity
        self._renew()

    @property
    def num_bytes(self) -> int:
        """Bytes of the images kept so far."""
        return int(self.used * (self.block.nbytes // max(1, self.capacity)))

    def num_kept(self, indices: np.ndarray) -> int:
        """Return how many of a batch's samples have a slot.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers, shape ``(N,)``.
        """
        return int(np.count_nonzero(self._slots[indices] >= 0))

    def missing(self, indices: np.ndarray) -> tuple[np.ndarray, list[Token]]:
        """Return the positions of a batch whose files must be decoded, never seen or changed since, and their tokens.

        The tokens are taken before the files are read: one that changes meanwhile is found changed the next time.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers, shape ``(N,)``.
        """
        with self._lock:
            slots = self._slots[indices].tolist()
            kept = [None if slot < 0 else self._tokens[slot] for slot in slots]
        tokens = [stat_token(self._paths[index]) for index in indices]
        stale = np.flatnonzero([slot < 0 or token != old for slot, token, old in zip(slots, tokens, kept, strict=True)])
        return stale, [tokens[position] for position in stale]

    def merge(
        self,
        indices: np.ndarray,
        missing: np.ndarray,
        tokens: list[Token],
        decoded: Array,
        is_good: np.ndarray,
    ) -> tuple[Array, np.ndarray]:
        """Keep what was decoded, as far as there is room, and return the whole batch.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers of the batch, shape ``(N,)``.
        missing, tokens
            From `missing`, before the files were decoded; in any order.
        decoded : array
            Their images, ``(len(missing), H, W, C)``, on the host or on a device.
        is_good : numpy.ndarray
            Shape ``(len(missing),)``, bool: which of them hold an image.

        Returns
        -------
        images : array
            Where the block lives: the block itself, or a new array where something had no room in it.
        rows : numpy.ndarray
            Shape ``(N,)``: the row of `images` for each sample; of no meaning for those that are not good.
        """
        eight_bit = decoded.dtype == np.uint8
        with self._lock, ops._on(self.block):  # its device need not be the current one
            if eight_bit and len(missing):
                self._keep(indices[missing], tokens, decoded, is_good)
            slots = self._slots[indices]
            failed = np.zeros(len(indices), bool)
            failed[missing] = ~is_good
            if (slots[~failed] >= 0).all() and (eight_bit or not len(missing)):
                return self.block, np.maximum(slots, 0)
            kept = np.ones(len(indices), bool)
            kept[missing] = False
            dtype = self.block.dtype if eight_bit else decoded.dtype
            images = ops.empty((len(indices), *self.block.shape[1:]), dtype.name, self._device)
            images[np.flatnonzero(kept)] = self.block[slots[kept]]
            images[missing] = ops.upload(decoded, self._device)
        return images, np.arange(len(indices))

    def _keep(self, indices: np.ndarray, tokens: list[Token], decoded: Array, is_good: np.ndarray) -> None:
        rows, targets = [], []
        for row in np.flatnonzero(is_good).tolist():
            index = indices[row]
            slot = self._slots[index]
            if slot < 0:
                if self.used == self.capacity:
                    continue
                slot = self._slots[index] = self.used
                self.used += 1
            self._tokens[slot] = tokens[row]
            rows.append(row)
            targets.append(int(slot))
        if targets:
            self.block[np.array(targets)] = ops.upload(decoded, self._device, np.array(rows))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        renew_in_child(self)
