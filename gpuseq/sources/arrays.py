"""Images of one array."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuseq.base.devices import is_cupy
from gpuseq.base.text import array_text
from gpuseq.base.types import Array
from gpuseq.ops import dispatch as ops
from gpuseq.plan.plan import BatchPlan

from .source import Fetched

if TYPE_CHECKING:
    from gpuseq.ops.looks import Looks

__all__ = ["ArraySource"]

logger = logging.getLogger("gpuseq")


class ArraySource:
    """Images of one array, kept in its own dtype.

    On the batches' device, if it fits there, it is gathered by index inside the op; else it stays on the host, and the
    rows of each batch are copied.

    Parameters
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)``. Not copied where it is already in place, not written to.
    device : str
        ``"cpu"`` or ``"cuda:N"``: where the batches are made.
    memory_limit : int or None
        Bytes that the array may take there. None: 70 % of what is free.
    """

    prefetch = 0

    def __init__(self, images: Array, device: str = "cpu", memory_limit: int | None = None) -> None:
        self.device = device
        self.is_resident = True
        # An array that is on a device already stays there, whatever the limit.
        if device != "cpu" and not is_cupy(images):
            # Not all of it: batches and the model come on top, and a pool's blocks do not fit one another.
            limit = ops.free_memory(device) * 7 // 10 if memory_limit is None else memory_limit
            self.is_resident = images.nbytes <= limit
            logger.info(
                "the array (%.2f GB) %s within %.2f GB: it %s",
                images.nbytes / 1e9,
                "fits" if self.is_resident else "does not fit",
                limit / 1e9,
                f"moves to {device}" if self.is_resident else "stays on the host, and each batch is copied",
            )
        self.resident = ops.resident(ops.upload(images, device)) if self.is_resident else None
        self._looks: Looks | None = None
        # Of a copy of ours alone: what a user has put on the device may be written to between two batches.
        if self.is_resident and device != "cpu" and not is_cupy(images):
            # Who never asks a GPU needs no tables.
            from gpuseq.ops.looks import KeptLooks, Looks

            kept = KeptLooks.of(images.shape, images.dtype)
            self._looks = None if kept is None else Looks(kept)
        # The moved array where it was moved: the host's copy may go with the caller's last reference.
        self.images = images if self.resident is None else self.resident.array

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        dtype: np.dtype[Any] = self.images.dtype
        return dtype

    def fetch(self, indices: np.ndarray) -> Fetched:
        """Return the whole array and the rows, and copy nothing, where it is resident; else a copy of the rows.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.
        """
        if self.is_resident:
            # Nothing on the host has to be put in order.
            reading = nullcontext if self.resident is None or self.device == "cpu" else self.resident.reading
            return Fetched(self.images, indices, None, indices, reading, looks=self._looks)
        # Just these rows, gathered into page-locked memory on their way.
        return Fetched(ops.upload(self.images, self.device, indices), None, None, indices)

    def known(self, indices: np.ndarray) -> np.ndarray | None:
        """Tell of which samples it is known what a GPU has to look at; None: of none.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.
        """
        return None if self._looks is None else self._looks.known(indices)

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Do nothing: nothing is to be decoded."""

    def close(self) -> None:
        """Do nothing."""

    def describe(self, plan: BatchPlan) -> list[tuple[str, str]]:
        """Say where the array is, and how a batch's rows come out of it.

        Parameters
        ----------
        plan : BatchPlan
            Of the batch: all are made alike.
        """
        images = self.images
        place = f"on {self.device}" if is_cupy(images) else "in host memory"
        how = "gathered by index" if self.is_resident else f"each batch is copied to {self.device}"
        what = array_text(images.shape, images.dtype, images.nbytes)
        return [("source", f"{'resident: ' if self.is_resident else ''}{what} {place}, {how}")]
