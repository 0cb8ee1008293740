"""Decoded images kept after their first visit, in one block of host or device memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gpuseq.base.devices import on_device
from gpuseq.base.errors import ImageFileError
from gpuseq.base.threads import PerProcess
from gpuseq.base.types import Array
from gpuseq.files.reading import is_url, stat_token
from gpuseq.ops import dispatch as ops

__all__ = ["ImageCache", "Token"]

logger = logging.getLogger("gpuseq")

Token: TypeAlias = "tuple[int, int] | None"
"""Size and time of change of a file, by `gpuseq.files.reading.stat_token`; None where nobody asked, or could."""


class ImageCache(PerProcess):
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
    device : str
        Where the block lives.
    resident : Resident
        The block, and who reads and writes it.
    spare_bytes : int
        What the block leaves of the limit.
    """

    def __init__(
        self, paths: Sequence[str], image_shape: tuple[int, ...], device: str, memory_limit: int | None
    ) -> None:
        self._paths = paths
        self.device = device
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
        self.spare_bytes = limit - self.capacity * image_bytes
        self._image_shape = image_shape
        self._open()

    def _open(self) -> None:
        """Make an empty block."""
        self.resident = ops.resident(ops.empty((self.capacity, *self._image_shape), "uint8", self.device))
        self.used = 0
        self._slots = np.full(len(self._paths), -1, np.int64)
        self._tokens: list[Token] = [None] * self.capacity
        self._is_silent = False

    @property
    def block(self) -> Array:
        """All slots, shape ``(capacity, H, W, C)``, uint8; to be read by way of `resident`."""
        return self.resident.array

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

        A local file that has gone since it was kept, and any behind a URL, is served as it was kept.

        The tokens are taken before the files are read: one that changes meanwhile is found changed the next time.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers, shape ``(N,)``.
        """
        with self._lock:
            slots = self._slots[indices].tolist()
            kept = [None if slot < 0 else self._tokens[slot] for slot in slots]
        tokens = [_token(self._paths[index]) for index in indices]
        is_stale = [
            slot < 0 or (token is not None and token != old)
            for slot, token, old in zip(slots, tokens, kept, strict=True)
        ]
        stale = np.flatnonzero(is_stale)
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
        if not (eight_bit or self._is_silent):
            self._is_silent = True
            logger.warning("grey images of more than 8 bits are not cached: they are decoded again in every epoch")
        with self._lock, on_device(self.device):  # which need not be the current one
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
            images = ops.empty((len(indices), *self.block.shape[1:]), dtype.name, self.device)
            with self.resident.reading() as block:
                images[np.flatnonzero(kept)] = block[slots[kept]]
            images[missing] = ops.upload(decoded, self.device)
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
            with self.resident.writing() as block:
                block[np.array(targets)] = ops.upload(decoded, self.device, np.array(rows))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images behind: they may be gigabytes, and can be decoded again."""
        left_out = ("resident", "used", "_slots", "_tokens", "_is_silent")
        return {key: value for key, value in super().__getstate__().items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._open()


def _token(path: str) -> Token:
    """Return a local file's token. A store is not asked at every visit, over a network, whether an object changed."""
    if is_url(path):
        return None
    try:
        return stat_token(path)
    except ImageFileError:
        return None  # what was kept of it still serves; where nothing was, decoding it says what is wrong
