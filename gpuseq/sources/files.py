"""Where images come from: a source turns sample numbers into uint8 (or the array's own dtype) images, ready to augment.

`ArraySource` holds an array; `FileSource` reads, decodes and resizes files, ahead of time on a worker thread if asked,
and keeps what it has decoded if asked. Neither draws a random number, so what they do early or late changes no batch.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpuseq.base.devices import is_cupy
from gpuseq.base.errors import EmptyBatchError, ImageFileError
from gpuseq.base.threads import PerProcess
from gpuseq.base.types import COLOR_CHANNELS, Array
from gpuseq.decode.gpu import DeviceBatch, DeviceDecoder
from gpuseq.decode.host import common_dtype, decode_files, decode_into
from gpuseq.decode.options import DecodeOptions
from gpuseq.ops import dispatch as ops

from .cache import ImageCache, Token
from .options import OnError

__all__ = ["ArraySource", "Fetched", "FileSource"]

logger = logging.getLogger("gpuseq")

MAX_CLAIMED = 8
"""How many batches that are planned, and not yet fetched, keep what was decoded ahead for them."""


@dataclass(frozen=True)
class Fetched:
    """Images for a batch.

    Attributes
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)``.
    rows : numpy.ndarray or None
        Shape ``(N,)``: the row of `images` for each sample; None where sample i is row i.
    positions : numpy.ndarray or None
        The positions of the asked-for samples that are there; None where all are.
    sample_indices : numpy.ndarray
        Shape ``(N,)``: whose image each sample is; differs from what was asked for where a file was substituted.
    resident : Resident or None
        What `images` are the array of, where they stay and are used again.
    """

    images: Array
    rows: np.ndarray | None
    positions: np.ndarray | None
    sample_indices: np.ndarray
    resident: ops.Resident | None = None

    def reading(self) -> AbstractContextManager[Array]:
        """Return a context that gives the images, within which work on them may be put on the current stream."""
        return nullcontext(self.images) if self.resident is None else self.resident.reading()


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
    """Nothing is read ahead."""

    def __init__(self, images: Array, device: str = "cpu", memory_limit: int | None = None) -> None:
        self.device = device
        self.is_resident = True
        if device != "cpu" and not is_cupy(images):
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
        self.images = images if self.resident is None else self.resident.array

    def fetch(self, indices: np.ndarray) -> Fetched:
        """Return the whole array and the rows, and copy nothing, where it is resident; else a copy of the rows.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.
        """
        if self.is_resident:
            return Fetched(self.images, indices, None, indices, self.resident)
        return Fetched(ops.upload(self.images, self.device, indices), None, None, indices)

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Do nothing: nothing is to be decoded."""

    def close(self) -> None:
        """Do nothing."""


class FileSource(PerProcess):
    """Images of a list of files, each read, decoded and resized when asked for.

    Parameters
    ----------
    paths : sequence of str
        Local paths or fsspec URLs; the position is the sample number.
    options : DecodeOptions
        How to decode; `target_size` is required.
    on_error : {"raise", "skip", "substitute"} or callable
        What to do about a file that cannot be read or decoded. "substitute" takes the next sample of the batch that
        can, with its label. A callable gets ``(path, error)`` and returns an image ``(H, W, C)``, or None to skip.
    prefetch : int
        How many announced batches are decoded ahead on a worker thread; 0 for none.
    cache : {None, "host", "device", "auto"}
        Keep decoded 8-bit images after their first visit; "auto" keeps them where the batches are made.
    memory_limit : int or None
        Bytes for the cache. None: 70 % of what is free.
    device : str
        ``"cpu"`` or ``"cuda:N"``: where images are handed over. On a GPU, with ``decoder="dali"`` or
        ``"nvimgcodec"``, JPEG files are decoded, and resized, there.

    Attributes
    ----------
    decodes_on_device : bool
        Whether they are.
    """

    _pending: dict[bytes, Future[_Decoded]]
    # Batches that are planned, not yet fetched, and whose plan is still there.
    _claimed: deque[tuple[bytes, weakref.ref[np.ndarray]]]
    _executor: ThreadPoolExecutor | None
    _device_decoder: DeviceDecoder | None
    _finalizer: Any = None

    def __init__(
        self,
        paths: Sequence[str],
        options: DecodeOptions,
        *,
        on_error: OnError = "raise",
        prefetch: int = 2,
        cache: str | None = None,
        memory_limit: int | None = None,
        device: str = "cpu",
    ) -> None:
        if options.target_size is None:
            raise ValueError("FileSource needs options.target_size: a batch has one size")
        self.paths = paths
        self.options = options
        self.on_error = on_error
        self.prefetch = prefetch
        self.bad_files: dict[str, str] = {}
        self.image_shape = (*options.target_size, COLOR_CHANNELS[options.color_mode])
        self.device = device
        self.decodes_on_device = device != "cpu" and options.decoder in ("dali", "nvimgcodec")
        self.cache: ImageCache | None = None
        if cache is not None:
            self.cache = ImageCache(paths, self.image_shape, "cpu" if cache == "host" else device, memory_limit)

    def fetch(self, indices: np.ndarray) -> Fetched:
        """Return the images of a batch, decoded ahead where it was announced.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.

        Raises
        ------
        ImageFileError
            If a file cannot be read or decoded and `on_error` is "raise".
        EmptyBatchError
            If no file of the batch can, under another policy.
        """
        key = indices.tobytes()
        with self._lock:
            pending = self._pending.pop(key, None)
            claims = [claim for claim in self._claimed if claim[0] == key]
            if claims:
                self._claimed.remove(claims[0])
        decoded = self._result(pending, indices)
        images: Array = decoded.images.take() if isinstance(decoded.images, DeviceBatch) else decoded.images
        errors, rows = decoded.errors, None
        if decoded.positions is not None:
            errors = [None] * len(indices)
            for position, error in zip(decoded.positions.tolist(), decoded.errors, strict=True):
                errors[position] = error
            if self.cache is None:
                rows = np.argsort(decoded.positions)
            else:
                is_good = np.array([error is None for error in decoded.errors], bool)
                images, rows = self.cache.merge(indices, decoded.positions, decoded.tokens, images, is_good)
        if self.device != "cpu" and not is_cupy(images):
            images, rows = ops.upload(images, self.device, rows), None  # of a cache on the host, just these rows
        kept = None if self.cache is None else self.cache.resident
        fetched = Fetched(images, rows, None, indices, kept if kept is not None and images is kept.array else None)
        return self._mend(fetched, errors) if any(errors) else fetched

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Announce the next batches, nearest first: they are decoded ahead, and what is no longer expected is dropped.

        Parameters
        ----------
        upcoming : sequence of numpy.ndarray
            The `indices` that `fetch` will be called with.
        current : numpy.ndarray or None
            Those of the batch that is being made: kept until it is fetched, or this array is no more.
        """
        if not self.prefetch:
            return
        # What is cached whole needs no worker: two threads would take turns over a few calls of stat.
        wanted = {
            indices.tobytes(): indices
            for indices in upcoming[: self.prefetch]
            if self.cache is None or self.cache.num_kept(indices) < len(indices)
        }
        with self._lock:
            if current is not None:
                self._claimed.append((current.tobytes(), weakref.ref(current)))
            claimed = {key for key, planned in self._claimed if planned() is not None}
            for key in [key for key in self._pending if key not in wanted and key not in claimed]:
                self._pending.pop(key).cancel()
            if self._executor is None and wanted:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="gpuseq-decode")
                self._finalizer = weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)
            for key, indices in wanted.items():
                if key not in self._pending and self._executor is not None:
                    self._pending[key] = self._executor.submit(self._load, indices)

    def close(self) -> None:
        """Stop decoding ahead and wait for the worker; the source stays usable."""
        with self._lock:
            executor, self._executor = self._executor, None
            for future in self._pending.values():
                future.cancel()
            self._pending.clear()
        if executor is not None:
            self._finalizer.detach()
            executor.shutdown(wait=True, cancel_futures=True)

    def _result(self, pending: Future[_Decoded] | None, indices: np.ndarray) -> _Decoded:
        if pending is not None:
            try:
                return pending.result()
            except CancelledError:  # by close(), from another thread
                pass
        return self._load(indices)

    def _load(self, indices: np.ndarray) -> _Decoded:
        """Decode what is not cached, on the calling thread: the caller's, or the one that works ahead."""
        if self.cache is None:
            return self._decode(indices)
        missing, tokens = self.cache.missing(indices)
        decoded = self._decode(indices[missing])
        if decoded.positions is None:
            return replace(decoded, positions=missing, tokens=tokens)
        order = decoded.positions
        return replace(decoded, positions=missing[order], tokens=[tokens[row] for row in order])

    def _decode(self, indices: np.ndarray) -> _Decoded:
        paths = [self.paths[index] for index in indices]
        if self.decodes_on_device:
            with self._lock:
                if self._device_decoder is None:
                    self._device_decoder = DeviceDecoder(self.options, self.device)
            batch = self._device_decoder.decode_files(paths)
            return _Decoded(batch, batch.errors, batch.positions)
        shape = (len(paths), *self.image_shape)
        if self.options.color_mode != "grayscale":
            images = np.empty(shape, np.uint8)
            return _Decoded(images, decode_into(paths, self.options, images))
        # Grey files may hold 16 or 32 bits, which Keras keeps.
        results = decode_files(paths, self.options)
        images = np.empty(shape, common_dtype([item for item in results if not isinstance(item, ImageFileError)]))
        for row, item in enumerate(results):
            if not isinstance(item, ImageFileError):
                images[row] = item
        return _Decoded(images, [item if isinstance(item, ImageFileError) else None for item in results])

    def _mend(self, fetched: Fetched, errors: list[ImageFileError | None]) -> Fetched:
        """Apply the policy to the files of a batch that failed."""
        images, rows, indices = fetched.images, fetched.rows, fetched.sample_indices
        rows = np.arange(len(indices)) if rows is None else rows.copy()
        sample_indices = indices.copy()
        keep = np.array([error is None for error in errors])
        good = np.flatnonzero(keep)
        is_own = False
        for position, error in enumerate(errors):
            if error is None:
                continue
            if self.on_error == "raise":
                raise error
            self.bad_files[error.path] = error.reason
            if callable(self.on_error):
                answer = self.on_error(error.path, error)
                if answer is not None:
                    if not is_own:
                        # A batch of its own: the images may be the cache's block.
                        is_own = True
                        with fetched.reading():
                            images = images[rows]
                        fetched, rows = replace(fetched, resident=None), np.arange(len(indices))
                    answered = self._answered(answer, error.path, images.dtype)
                    images[position] = ops.upload(answered[None], self.device)[0]
                    keep[position] = True
            elif self.on_error == "substitute" and len(good):
                donor = good[np.searchsorted(good, position) % len(good)]
                rows[position], sample_indices[position], keep[position] = rows[donor], indices[donor], True
        positions = np.flatnonzero(keep)
        if not len(positions):
            first = next(error for error in errors if error is not None)
            raise EmptyBatchError(first.path, f"{first.reason}; and no other file of its batch could be read")
        return Fetched(images, rows[positions], positions, sample_indices[positions], fetched.resident)

    def _answered(self, answer: Any, path: str, dtype: np.dtype[Any]) -> np.ndarray:
        image = np.asarray(answer)
        if image.ndim == 2:
            image = image[..., None]
        if image.shape != self.image_shape:
            raise ValueError(
                f"on_error returned an image of shape {image.shape} for {path!r}; expected {self.image_shape} or None"
            )
        exact = image.astype(dtype)
        if not np.array_equal(exact, image):
            raise ValueError(
                f"on_error returned {image.dtype} values for {path!r} that do not fit {dtype}: return uint8, 0 to 255, "
                "as decoded files have them"
            )
        return exact

    def _renew(self) -> None:
        """Begin without threads and without what they were at."""
        if self._finalizer is not None:
            self._finalizer.detach()  # it would shut down the parent's pool, whose lock may be held for ever
        self._lock = threading.Lock()
        self._pending, self._claimed = {}, deque(maxlen=MAX_CLAIMED)
        self._executor = self._finalizer = self._device_decoder = None


@dataclass(frozen=True)
class _Decoded:
    """What was decoded, on the host or the device, and what failed; row by row.

    `positions`: where in the batch each row belongs (None: row i is sample i); `tokens`: what a cache is to remember.
    """

    images: np.ndarray | DeviceBatch
    errors: list[ImageFileError | None]
    positions: np.ndarray | None = None
    tokens: list[Token] = field(default_factory=list)
