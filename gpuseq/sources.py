"""Where images come from: a source turns sample numbers into uint8 (or the array's own dtype) images, ready to augment.

`ArraySource` holds an array; `FileSource` reads, decodes and resizes files, ahead of time on a worker thread if asked,
and keeps what it has decoded if asked. Neither draws a random number, so what they do early or late changes no batch.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from .arrays import COLOR_CHANNELS, Array
from .compat import available_memory
from .decode import decode_files, decode_into
from .errors import ImageFileError
from .options import DecodeOptions
from .readers import stat_token

__all__ = ["ArraySource", "Fetched", "FileSource", "OnError"]

logger = logging.getLogger("gpuseq")

OnError: TypeAlias = "Literal['raise', 'skip', 'substitute'] | Callable[[str, ImageFileError], Any]"


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
    """

    images: Array
    rows: np.ndarray | None
    positions: np.ndarray | None
    sample_indices: np.ndarray


class ArraySource:
    """Images of one array, kept in its own dtype and gathered by index inside the op.

    Parameters
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)``, where the batches are to be made. Not copied, not written to.
    """

    def __init__(self, images: Array) -> None:
        self.images = images

    def fetch(self, indices: np.ndarray) -> Fetched:
        """Return the whole array and the rows; nothing is copied."""
        return Fetched(self.images, indices, None, indices)

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Do nothing: every image is already here."""

    def close(self) -> None:
        """Do nothing."""


class FileSource:
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
    cache : {None, "host", "auto"}
        Keep decoded 8-bit images in host memory after their first visit.
    memory_limit : int or None
        Bytes for the cache. None: 70 % of what is available.
    """

    def __init__(
        self,
        paths: Sequence[str],
        options: DecodeOptions,
        *,
        on_error: OnError = "raise",
        prefetch: int = 2,
        cache: str | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if options.target_size is None:
            raise ValueError("FileSource needs options.target_size: a batch has one size")
        self.paths = paths
        self.options = options
        self.on_error = on_error
        self.prefetch = prefetch
        self.bad_files: dict[str, str] = {}
        self.image_shape = (*options.target_size, COLOR_CHANNELS[options.color_mode])
        self._pending: dict[bytes, Future[_Block]] = {}
        # Batches that are planned and not yet fetched; a plan may never be made into a batch, so only so many are kept.
        self._claimed: deque[bytes] = deque(maxlen=64)
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._finalizer: Any = None
        self._cache = _HostCache(len(paths), self.image_shape, memory_limit) if cache else None

    def fetch(self, indices: np.ndarray) -> Fetched:
        """Return the images of a batch, decoded ahead where it was announced.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.

        Raises
        ------
        ImageFileError
            If a file cannot be read or decoded and `on_error` is "raise", or if no file of the batch can.
        """
        key = indices.tobytes()
        with self._lock:
            pending = self._pending.pop(key, None)
            if key in self._claimed:
                self._claimed.remove(key)
        block = pending.result() if pending is not None else self._load(indices)
        if not any(block.errors):
            return Fetched(block.images, block.rows, None, indices)
        return self._mend(indices, block)

    def expect(self, upcoming: Sequence[np.ndarray], current: np.ndarray | None = None) -> None:
        """Announce the next batches, nearest first: they are decoded ahead, and what is no longer expected is dropped.

        Parameters
        ----------
        upcoming : sequence of numpy.ndarray
            The `indices` that `fetch` will be called with.
        current : numpy.ndarray or None
            Those of the batch that is being made: kept until it is fetched.
        """
        if not self.prefetch:
            return
        wanted = {indices.tobytes(): indices for indices in upcoming[: self.prefetch]}
        with self._lock:
            if current is not None:
                self._claimed.append(current.tobytes())
            for key in [key for key in self._pending if key not in wanted and key not in self._claimed]:
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

    def _load(self, indices: np.ndarray) -> _Block:
        if self._cache is None:
            return self._decode(indices)
        return self._cache.load(indices, self.paths, self._decode)

    def _decode(self, indices: np.ndarray) -> _Block:
        paths = [self.paths[index] for index in indices]
        shape = (len(paths), *self.image_shape)
        if self.options.color_mode != "grayscale":
            images = np.empty(shape, np.uint8)
            return _Block(images, None, decode_into(paths, self.options, images))
        # Grey files may hold 16 or 32 bits, which Keras keeps.
        results = decode_files(paths, self.options)
        arrays = [item for item in results if not isinstance(item, ImageFileError)]
        dtype = np.result_type(np.uint8, *{item.dtype for item in arrays})
        if dtype not in (np.uint8, np.uint16):
            dtype = np.dtype(np.float32)
        images = np.empty(shape, dtype)
        for row, item in enumerate(results):
            if not isinstance(item, ImageFileError):
                images[row] = item
        return _Block(images, None, [item if isinstance(item, ImageFileError) else None for item in results])

    def _mend(self, indices: np.ndarray, block: _Block) -> Fetched:
        """Apply the policy to the files of a batch that failed."""
        rows = np.arange(len(indices)) if block.rows is None else block.rows.copy()
        sample_indices = indices.copy()
        images = block.images
        keep = np.array([error is None for error in block.errors])
        good = np.flatnonzero(keep)
        for position, error in enumerate(block.errors):
            if error is None:
                continue
            if self.on_error == "raise":
                raise error
            self.bad_files[error.path] = error.reason
            if callable(self.on_error):
                answer = self.on_error(error.path, error)
                if answer is not None:
                    images = np.concatenate([images, self._answered(answer, error.path, images.dtype)[None]])
                    rows[position], keep[position] = len(images) - 1, True
            elif self.on_error == "substitute" and len(good):
                donor = good[np.searchsorted(good, position) % len(good)]
                rows[position], sample_indices[position], keep[position] = rows[donor], indices[donor], True
        positions = np.flatnonzero(keep)
        if not len(positions):
            first = next(error for error in block.errors if error is not None)
            raise ImageFileError(first.path, f"{first.reason}; and no other file of its batch could be read")
        return Fetched(images, rows[positions], positions, sample_indices[positions])

    def _answered(self, answer: Any, path: str, dtype: np.dtype[Any]) -> np.ndarray:
        image = np.asarray(answer)
        if image.ndim == 2:
            image = image[..., None]
        if image.shape != self.image_shape:
            raise ValueError(
                f"on_error returned an image of shape {image.shape} for {path!r}; expected {self.image_shape} or None"
            )
        return image.astype(dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pending": {}, "_lock": None, "_executor": None, "_finalizer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


@dataclass(frozen=True)
class _Block:
    """Decoded images, the row of each asked-for sample (None: in order), and what failed, per asked-for sample."""

    images: np.ndarray
    rows: np.ndarray | None
    errors: list[ImageFileError | None]


class _HostCache:
    """One block of decoded uint8 images, filled on first visit, as large as the data set or the memory limit."""

    def __init__(self, num_samples: int, image_shape: tuple[int, ...], memory_limit: int | None) -> None:
        image_bytes = int(np.prod(image_shape))
        limit = available_memory() * 7 // 10 if memory_limit is None else memory_limit
        self.capacity = min(num_samples, limit // image_bytes)
        logger.info(
            "host cache: room for %d of %d images (%.0f %%), %.1f MB",
            self.capacity,
            num_samples,
            100 * self.capacity / max(1, num_samples),
            self.capacity * image_bytes / 1e6,
        )
        self.block = np.empty((self.capacity, *image_shape), np.uint8)
        self.slots = np.full(num_samples, -1, np.int64)
        self.tokens: list[tuple[int, int] | None] = [None] * self.capacity
        self.used = 0
        self._lock = threading.Lock()

    def load(self, indices: np.ndarray, paths: Sequence[str], decode: Callable[[np.ndarray], _Block]) -> _Block:
        """Return a batch, from the block where its files are unchanged, decoding and keeping the rest."""
        with self._lock:
            slots = self.slots[indices]
            tokens = [stat_token(paths[index]) for index in indices]
            stale = np.array(
                [slot < 0 or self.tokens[slot] != token for slot, token in zip(slots, tokens, strict=True)]
            )
            errors: list[ImageFileError | None] = [None] * len(indices)
            if not stale.any():
                return _Block(self.block, slots, errors)
            missing = np.flatnonzero(stale)
            fresh = decode(indices[missing])
            all_fit = fresh.images.dtype == np.uint8
            for row, position in enumerate(missing):
                errors[position] = fresh.errors[row]
                if fresh.errors[row] is None and fresh.images.dtype == np.uint8:
                    slot = self.slots[indices[position]]
                    if slot < 0 and self.used < self.capacity:
                        slot = self.used
                        self.used += 1
                        self.slots[indices[position]] = slot
                    if slot >= 0:
                        self.block[slot] = fresh.images[row]
                        self.tokens[slot] = tokens[position]
                        slots[position] = slot
                    all_fit = all_fit and slot >= 0
            if all_fit:
                return _Block(self.block, np.maximum(slots, 0), errors)
            images = np.empty((len(indices), *fresh.images.shape[1:]), fresh.images.dtype)
            kept = np.flatnonzero(~stale)
            images[kept] = self.block[slots[kept]]
            images[missing] = fresh.images
            return _Block(images, None, errors)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
