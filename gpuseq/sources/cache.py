"""Decoded images kept after their first visit, in one block of host or device memory."""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gpuseq.base.devices import on_device
from gpuseq.base.errors import ImageFileError, StorageError
from gpuseq.base.threads import PerProcess
from gpuseq.base.types import Array
from gpuseq.files.reading import is_url, stat_token
from gpuseq.ops import dispatch as ops

if TYPE_CHECKING:
    from gpuseq.ops.looks import KeptLooks, Looks

__all__ = ["ImageCache", "Kept", "Lease", "Token"]

logger = logging.getLogger("gpuseq")

Token: TypeAlias = "tuple[int, int] | None"
"""Size and time of change of a file, by `gpuseq.files.reading.stat_token`; None where there is none."""


class Lease:
    """For as long as it lives, no slot that was in use when it was taken is written to again."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True)
class Kept:
    """What a cache has of a batch.

    Attributes
    ----------
    slots : numpy.ndarray
        Shape ``(N,)``: where each sample is; -1 where its file must be decoded: never seen, or changed since.
    tokens : list of Token
        N items: of the files as they are now.
    lease : Lease
        Keeps the images in their slots.
    """

    slots: np.ndarray
    tokens: list[Token]
    lease: Lease


class ImageCache(PerProcess):
    """A block of uint8 images: one slot per sample as far as memory goes, filled at the first visit, never evicted.

    A slot is written once. A file that has changed gets another one, so reading a slot needs no order with any write.
    The old one is given to another file, changed or new, once no batch is left that may still read it; until then,
    where all slots are taken, the changed file is not kept, and decoded at each visit. So the block never grows,
    however often files change.

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
        The block, and the order of its reads and writes.
    used : int
        Slots that have been written to.
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
        # All of it is allocated now: a block that grows would be copied, and would move while it is read.
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
        self._lease = Lease()
        self._retired: deque[tuple[weakref.ref[Lease], int]] = deque()
        self._kept_looks: KeptLooks | None = None

    @property
    def block(self) -> Array:
        """All slots, shape ``(capacity, H, W, C)``, uint8; to be read by way of `resident`."""
        return self.resident.array

    @property
    def num_bytes(self) -> int:
        """Bytes of the images kept so far."""
        return int((self.used - len(self._retired)) * (self.block.nbytes // max(1, self.capacity)))

    def looks(self, slots: np.ndarray | None) -> Looks | None:
        """Return what looks at images say that are kept; None where they are too small for that.

        Parameters
        ----------
        slots : numpy.ndarray or None
            Shape ``(M,)``: where each image of an array is kept; -1 for one that is not. None: the array is the block.
            Take them with a lease in hand, and keep it until the images have been looked at.
        """
        from gpuseq.ops.looks import KeptLooks, Looks

        with self._lock:
            if self._kept_looks is None:
                self._kept_looks = KeptLooks.of((self.capacity, *self._image_shape), self.block.dtype)
            return None if self._kept_looks is None else Looks(self._kept_looks, slots)

    def known(self, indices: np.ndarray) -> np.ndarray | None:
        """Tell of which samples it is known what a GPU has to look at; None: of none.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers, shape ``(N,)``.
        """
        return None if self._kept_looks is None else self._kept_looks.known(self._slots[indices])

    def num_kept(self, indices: np.ndarray) -> int:
        """Return how many of a batch's samples have a slot.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers, shape ``(N,)``.
        """
        return int(np.count_nonzero(self._slots[indices] >= 0))

    def look_up(self, indices: np.ndarray) -> Kept:
        """Return where the samples of a batch are, as far as they are here and their files have not changed since.

        A local file that has gone since it was kept, and any behind a URL, is served as it was kept.

        The tokens are taken before the files are read: one that changes meanwhile is found changed the next time.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers, shape ``(N,)``.
        """
        # Outside the lock: a stat may wait for a disk, and other threads are at other batches.
        tokens = [_token(self._paths[index]) for index in indices]
        with self._lock:
            slots = self._slots[indices]
            for position, token in enumerate(tokens):
                # The slot itself stays with the old image: a batch that was told of it before may still read it.
                if slots[position] >= 0 and token is not None and token != self._tokens[slots[position]]:
                    slots[position] = -1
            return Kept(slots, tokens, self._lease)

    def merge(
        self, indices: np.ndarray, kept: Kept, decoded: Array, rows: np.ndarray
    ) -> tuple[Array, np.ndarray, np.ndarray]:
        """Keep what was decoded, as far as there is room, and return the whole batch.

        Parameters
        ----------
        indices : numpy.ndarray
            Sample numbers of the batch, shape ``(N,)``.
        kept : Kept
            From `look_up`, before the files were decoded. It must live until the batch has been read.
        decoded : array
            Images, shape ``(M, H, W, C)``, on the host or a device.
        rows : numpy.ndarray
            Shape ``(N,)``: the row of `decoded` for each sample; -1 where it was kept, or failed.

        Returns
        -------
        images : array
            Where the block lives: the block itself, or a new array where something had no room in it.
        rows : numpy.ndarray
            Shape ``(N,)``: the row of `images` for each sample; of no meaning for those that failed.
        slots : numpy.ndarray
            Shape ``(N,)``: where each sample is kept now; -1 where there was no room, and for those that failed.
        """
        old, new = np.flatnonzero(kept.slots >= 0), np.flatnonzero(rows >= 0)
        eight_bit = decoded.dtype == np.uint8
        if not (eight_bit or self._is_silent):
            self._is_silent = True
            logger.warning("grey images of more than 8 bits are not cached: they are decoded again in every epoch")
        slots = kept.slots.copy()
        with self._lock, on_device(self.device):  # which need not be the current one
            if eight_bit and len(new):
                # One lock over bookkeeping and writing: the next look-up may hand these slots out at once.
                slots[new] = self._keep(indices[new], [kept.tokens[position] for position in new], decoded, rows[new])
            # The whole block and the rows: nothing is copied.
            if (slots[new] >= 0).all():
                return self.block, np.maximum(slots, 0), slots
            dtype = self.block.dtype if eight_bit else decoded.dtype
            # Some had no room: a batch of its own, of what is kept and what was just decoded.
            images = ops.empty((len(indices), *self.block.shape[1:]), dtype.name, self.device)
            with self.resident.reading() as block:
                images[old] = block[slots[old]]
            images[new] = ops.upload(decoded, self.device, rows[new])
        return images, np.arange(len(indices)), slots

    def _keep(self, indices: np.ndarray, tokens: list[Token], decoded: Array, rows: np.ndarray) -> np.ndarray:
        """Write images to slots that are not read, and return the slots; -1 where there was none left."""
        slots = np.full(len(indices), -1)
        fresh: dict[int, int] = {}
        is_used_again = False
        for position, (index, token) in enumerate(zip(indices.tolist(), tokens, strict=True)):
            slot = int(self._slots[index])
            if index in fresh:  # twice in this batch
                slots[position] = slots[fresh[index]]
                continue
            if slot >= 0 and self._tokens[slot] == token:  # another thread was faster
                slots[position] = slot
                continue
            if slot >= 0:
                self._slots[index] = -1
                self._retire(slot)
            # A sample whose file changed gives its slot up before it gets one, but not to itself while others may read
            # it.
            slots[position], is_retired = self._free_slot()
            if slots[position] >= 0:
                fresh[index] = position
                is_used_again |= is_retired
        if fresh:
            positions = list(fresh.values())
            # Only a slot that has been in use before has readers to wait for.
            writing = self.resident.overwriting if is_used_again else self.resident.appending
            if is_used_again and self._kept_looks is not None:
                self._kept_looks.forget(slots[positions])
            with writing() as block:
                block[slots[positions]] = ops.upload(decoded, self.device, rows[positions])
            # Only now does a look-up find them. An exception before this line, or a fork, whose child sees no lock but
            # its own, finds slots that no look-up leads to: room is lost, and no image.
            for index, position in fresh.items():
                self._tokens[slots[position]] = tokens[position]
                self._slots[index] = slots[position]
        return slots

    def _retire(self, slot: int) -> None:
        """Let a slot be used again once every batch that was looked up until now has been read."""
        # Batches looked up until now hold this lease. Those from here on get another, and are no reason to wait.
        self._retired.append((weakref.ref(self._lease), slot))
        self._lease = Lease()

    def _free_slot(self) -> tuple[int, bool]:
        """Return a slot, -1 for none, and whether it has been used before."""
        if self.used < self.capacity:
            self.used += 1
            return self.used - 1, False
        # Oldest first: while a batch of before the first retirement is about, it holds back the later ones too.
        if self._retired and self._retired[0][0]() is None:
            return self._retired.popleft()[1], True
        return -1, False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images behind: they may be gigabytes, and can be decoded again."""
        left_out = ("resident", "used", "_slots", "_tokens", "_is_silent", "_lease", "_retired", "_kept_looks")
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
    except (ImageFileError, StorageError):
        return None  # what was kept of it still serves; where nothing was, decoding it says what is wrong
