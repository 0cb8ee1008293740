"""What every source of images offers, and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gpuseq.base.types import Array
from gpuseq.plan.plan import BatchPlan

if TYPE_CHECKING:
    from gpuseq.ops.looks import Looks

__all__ = ["Fetched", "Source"]


class Fetched(NamedTuple):
    """Images for a batch.

    Attributes
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)``. Others may read them at the same time: not to be written to.
    rows : numpy.ndarray or None
        Shape ``(N,)``: the row of `images` for each sample; None where sample i is row i.
    positions : numpy.ndarray or None
        The positions of the asked-for samples that are there; None where all are.
    sample_indices : numpy.ndarray
        Shape ``(N,)``: whose image each sample is; differs from what was asked for where a file was substituted.
    reading : callable
        Returns a context within which work on `images` may be put on the current stream: that of a
        `~gpuseq.ops.cuda.resident.Resident` where the images stay on a device and are used again.
    looks : Looks or None
        What is known of `images`, as far as they stay and nobody writes to them.
    parts : numpy.ndarray or None
        Shape ``(M, 6)``, int64: of which `~gpuseq.sources.crops.Part` of its file each of `images` was made; zeros for
        one that was made of none. None where files were not cropped.
    lease : object
        For as long as it lives, the rows hold the images of these samples; see `gpuseq.sources.cache.Lease`.
    """

    images: Array
    rows: np.ndarray | None
    positions: np.ndarray | None
    sample_indices: np.ndarray
    reading: Callable[[], AbstractContextManager[Any]] = nullcontext
    lease: Any = None
    looks: Looks | None = None
    parts: np.ndarray | None = None


class Source(Protocol):
    """Where images are kept. It turns sample numbers into images; it draws nothing, so what it does early is no matter.

    Attributes
    ----------
    prefetch : int
        How many announced batches it makes ready ahead; 0 where there is nothing to be made ready.
    device : str
        ``"cpu"`` or ``"cuda:N"``: where it hands them over.
    image_shape : tuple of int
        Shape of one image, in the source's own axis order.
    dtype : numpy.dtype
        Of the images; of files, that of most.
    """

    @property
    def prefetch(self) -> int:
        """How many announced batches are made ready ahead."""

    @property
    def device(self) -> str:
        """Where the images are handed over."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the images."""

    def fetch(self, indices: np.ndarray) -> Fetched:
        """Return the images of samples, numbers of shape ``(N,)``, int64."""

    def known(self, indices: np.ndarray) -> np.ndarray | None:
        """Tell of which samples it is known what a GPU has to look at; None: of none."""

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Take note of the samples that are fetched next, the nearest batch first; `current` is planned already."""

    def close(self) -> None:
        """Stop what works ahead. The source stays usable."""

    def describe(self, plan: BatchPlan) -> list[tuple[str, str]]:
        """Return what happens to a batch here, step by step: name and text of each, for ``explain``."""
