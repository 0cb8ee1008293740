"""Images of files: read, decoded and resized, ahead of time on a worker thread if asked, and kept if asked."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuseq.base.devices import is_cupy
from gpuseq.base.errors import EmptyBatchError, ImageFileError
from gpuseq.base.text import bytes_text
from gpuseq.base.threads import PerProcess, cpu_count, for_each, submit
from gpuseq.base.types import COLOR_CHANNELS, Array, Cache
from gpuseq.decode.host import check_decoder, common_dtype, decode_files, decode_into
from gpuseq.decode.options import DecodeOptions
from gpuseq.ops import dispatch as ops
from gpuseq.plan.plan import BatchPlan

from .cache import ImageCache, Kept
from .crops import NUM_PART_COLUMNS, Cut, Part, Whole, WholeOnHost, crop_mask, cut_image, resize_cuts
from .options import OnError
from .source import Fetched

if TYPE_CHECKING:
    from gpuseq.decode.gpu import DeviceBatch, DeviceDecoder

__all__ = ["FileSource"]

MAX_CLAIMED = 32
"""How many batches that are planned, and not yet fetched, keep what was decoded ahead for them: more than are usually
made at the same time, few enough for plans that are drawn and kept."""


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
    crops : bool
        Whether files are decoded whole, for `fetch_cropped` and `fetch_parts`. Set before anything is fetched.
    """

    dtype = np.dtype(np.uint8)

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
        cache: Cache | None = None,
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
        self.crops = False
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
        decoded = self._result(indices)
        assert decoded.images is not None, "files that are cropped are fetched by `fetch_cropped`"
        # On the caller's stream: `take` copies out of the decoder's ring.
        images: Array = decoded.images if isinstance(decoded.images, np.ndarray) else decoded.images.take()
        fetched = Fetched(images, decoded.rows, None, indices)
        if self.cache is not None and decoded.rows is not None and decoded.kept is not None:
            images, rows, slots = self.cache.merge(indices, decoded.kept, images, decoded.rows)
            is_block = images is self.cache.block
            looks = self.cache.looks(None if is_block else slots)
            reading = self.cache.resident.reading if is_block else nullcontext
            fetched = Fetched(images, rows, None, indices, reading, decoded.kept.lease, looks)
        return self._handed_over(fetched, decoded.errors)

    def fetch_cropped(self, plan: BatchPlan) -> Fetched:
        """Return the images of a batch, each cropped as its program begins, and resized.

        Parameters
        ----------
        plan : BatchPlan
            Of the batch. Images without a crop are resized whole.

        Raises
        ------
        ImageFileError, EmptyBatchError
            As from `fetch`.
        ValueError
            If a rectangle lies outside of its image.
        """
        decoded = self._result(plan.indices)
        whole = decoded.whole
        assert whole is not None, "crops is set before anything is fetched"
        cuts: list[Cut | None] = [None] * len(plan)
        # A row of zeros for what failed: an image that `on_error` answers with has no part, and its mask is whole.
        parts = np.zeros((len(plan), NUM_PART_COLUMNS), np.int64)
        for position, (index, error) in enumerate(zip(plan.indices.tolist(), decoded.errors, strict=True)):
            if error is None:
                step = None if plan.program is None else plan.program[position : position + 1, :1]
                cut = cut_image(whole.images[position], step, self.paths[index], self.options.interpolation)
                cuts[position], parts[position] = cut, cut.part

        def resize() -> Array:
            # On this thread's stream.
            return resize_cuts(cuts, self.image_shape, self.device if self.decodes_on_device else "cpu")

        return self._handed_over(Fetched(whole.read(resize), None, None, plan.indices, parts=parts), decoded.errors)

    def fetch_parts(self, indices: np.ndarray, parts: np.ndarray) -> Fetched:
        """Return the masks of a batch whose images were cropped.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.
        parts : numpy.ndarray
            Shape ``(N, 6)``: what was taken of each image, as `Fetched.parts` has it.

        Raises
        ------
        ImageFileError, EmptyBatchError
            As from `fetch`.
        """
        decoded = self._result(indices)
        whole = decoded.whole
        assert whole is not None, "crops is set before anything is fetched"
        found: list[np.ndarray | None] = [None] * len(indices)

        def crop(position: int) -> None:
            if decoded.errors[position] is None:
                found[position] = crop_mask(
                    whole.images[position], Part(*parts[position].tolist()), self.image_shape[:2]
                )

        for_each(crop, len(indices), self.options.num_threads or cpu_count())
        masks = np.zeros((len(indices), *self.image_shape), common_dtype([item for item in found if item is not None]))
        for row, mask in zip(masks, found, strict=True):
            if mask is not None:
                row[...] = mask
        return self._handed_over(Fetched(masks, None, None, indices), decoded.errors)

    def known(self, indices: np.ndarray) -> np.ndarray | None:
        """Tell of which samples it is known what a GPU has to look at; None: of none.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64.
        """
        return None if self.cache is None else self.cache.known(indices)

    def _handed_over(self, fetched: Fetched, errors: list[ImageFileError | None]) -> Fetched:
        """Bring what was fetched to where it is asked for, and apply the policy to files that failed."""
        if self.device != "cpu" and not is_cupy(fetched.images):
            # Of a cache on the host, just these rows.
            images = ops.upload(fetched.images, self.device, fetched.rows)
            looks = None if fetched.looks is None else fetched.looks.take(fetched.rows)
            fetched = fetched._replace(images=images, rows=None, reading=nullcontext, looks=looks)
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
            # A plan that was drawn and not made yet keeps its images for as long as its array lives: a dropped plan
            # gives them up by itself.
            claimed = {key for key, planned in self._claimed if planned() is not None}
            for key in [key for key in self._pending if key not in wanted and key not in claimed]:
                self._pending.pop(key).cancel()
            for key, indices in wanted.items():
                if key in self._pending:
                    continue
                if self._executor is None:
                    # One thread: a batch is decoded on several by itself, or by a GPU, which takes one after the other.
                    # Known: it hides no latency of a store. At 20 ms a request 58 images a second were read with as
                    # many decoding threads as cores (two), and 278 with num_threads=32.
                    self._executor = ThreadPoolExecutor(1, thread_name_prefix="gpuseq-decode")
                    # Without a wait: at the interpreter's end the batch that is being decoded is not needed.
                    self._finalizer = weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)
                future = submit(self._executor, self._load, indices)
                if future is None:  # without a thread each batch is decoded when it is fetched
                    self._finalizer()
                    self._executor = None
                    break
                self._pending[key] = future

    def close(self) -> None:
        """Stop decoding ahead and wait for the worker; the source stays usable."""
        # Taken out under the lock and shut down outside it: the worker may be waiting for the lock.
        with self._lock:
            executor, self._executor = self._executor, None
            for future in self._pending.values():
                future.cancel()
            self._pending.clear()
        if executor is not None:
            self._finalizer.detach()
            executor.shutdown(wait=True, cancel_futures=True)

    def describe(self, plan: BatchPlan) -> list[tuple[str, str]]:
        """Say what decodes the files, where and when, and how much of a batch is kept.

        Parameters
        ----------
        plan : BatchPlan
            Of the batch.

        Raises
        ------
        MissingDependencyError
            If the decoder is not installed.
        """
        options = self.options
        decoder = check_decoder(options.decoder)
        asked = "" if options.decoder == decoder else f" ({options.decoder})"
        others = "" if decoder == "pillow" else "; files that it does not decode as Pillow does go to Pillow"
        if self.decodes_on_device:
            # As the decoder is made: deterministic=True leaves the hardware out.
            load = 0.0 if options.deterministic else options.hw_decoder_load
            asked = f" on {self.device}, {load:.0%} of it by the GPU's JPEG hardware where there is any"
            others = "; what is not JPEG is decoded on the host"
        ahead = f"{self.prefetch} batch(es) ahead" if self.prefetch else "when asked for"
        threads = options.num_threads or cpu_count()
        rows, cols = self.image_shape[:2]
        resized = f"resized to {rows} x {cols}, {options.interpolation}"
        if self.crops:
            resized = f"cropped as the plan says, and resized to {rows} x {cols}"
        kept = 'none: every epoch decodes anew (cache="host" keeps the images)'
        if self.cache is not None:
            kept = (
                f"{self.cache.num_kept(plan.indices)} of this batch's {len(plan)} images; room for "
                f"{self.cache.capacity} of {len(self.paths)}; {bytes_text(self.cache.num_bytes)} kept so far"
            )
        return [
            ("source", f"decoded: {len(self.paths)} files, {ahead}, on {threads} thread(s)"),
            ("decoder", f"{decoder}{asked}{others}; {resized}"),
            ("cache", kept),
        ]

    def _result(self, indices: np.ndarray) -> _Decoded:
        """Return what was decoded ahead for a batch, or decode it now."""
        key = indices.tobytes()
        with self._lock:
            # Taken out: what was decoded ahead is handed out once.
            pending = self._pending.pop(key, None)
            claims = [claim for claim in self._claimed if claim[0] == key]
            if claims:
                self._claimed.remove(claims[0])
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
        kept = self.cache.look_up(indices)
        missing = np.flatnonzero(kept.slots < 0)
        decoded = self._decode(indices[missing])
        # The decoder numbers what it was given; the batch has further samples, which the cache holds.
        own = range(len(missing)) if decoded.rows is None else decoded.rows.tolist()
        errors: list[ImageFileError | None] = [None] * len(indices)
        rows = np.full(len(indices), -1)
        for position, row, error in zip(missing.tolist(), own, decoded.errors, strict=True):
            errors[position] = error
            rows[position] = row if error is None else -1
        return _Decoded(decoded.images, rows, errors, kept)

    def _decode(self, indices: np.ndarray) -> _Decoded:
        paths = [self.paths[index] for index in indices]
        if self.decodes_on_device:
            # Made by the thread that decodes, and not when the source is made: the decoder binds a CUDA context, which
            # a fork would not survive.
            with self._lock:
                if self._device_decoder is None:
                    from gpuseq.decode.gpu import DeviceDecoder

                    self._device_decoder = DeviceDecoder(self.options, self.device)
            if self.crops:
                files = self._device_decoder.decode_whole_files(paths)
                return _Decoded(None, None, files.errors, whole=files)
            batch = self._device_decoder.decode_files(paths)
            return _Decoded(batch, batch.rows, batch.errors)
        if self.crops:
            whole = decode_files(paths, replace(self.options, target_size=None))
            errors = [item if isinstance(item, ImageFileError) else None for item in whole]
            return _Decoded(None, None, errors, whole=WholeOnHost(whole))
        shape = (len(paths), *self.image_shape)
        if self.options.color_mode != "grayscale":
            images = np.empty(shape, np.uint8)
            return _Decoded(images, None, decode_into(paths, self.options, images))
        # Grey files may hold 16 or 32 bits, which Keras keeps.
        results = decode_files(paths, self.options)
        images = np.empty(shape, common_dtype([item for item in results if not isinstance(item, ImageFileError)]))
        for row, item in enumerate(results):
            if not isinstance(item, ImageFileError):
                images[row] = item
        return _Decoded(images, None, [item if isinstance(item, ImageFileError) else None for item in results])

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
                        fetched = fetched._replace(images=images, reading=nullcontext, looks=None)
                        rows = np.arange(len(indices))
                    answered = self._answered(answer, error.path, images.dtype)
                    images[position] = ops.upload(answered[None], self.device)[0]
                    keep[position] = True
            elif self.on_error == "substitute" and len(good):
                # The next one in the batch, cyclically, so that the choice depends on nothing but the batch.
                donor = good[np.searchsorted(good, position) % len(good)]
                rows[position], sample_indices[position], keep[position] = rows[donor], indices[donor], True
        positions = np.flatnonzero(keep)
        if not len(positions):
            first = next(error for error in errors if error is not None)
            raise EmptyBatchError(first.path, f"{first.reason}; and no other file of its batch could be read")
        return fetched._replace(
            rows=rows[positions], positions=positions, sample_indices=sample_indices[positions], images=images
        )

    def _answered(self, answer: Any, path: str, dtype: np.dtype[Any]) -> np.ndarray:
        image = np.asarray(answer)
        if image.ndim == 2:
            image = image[..., None]
        if image.shape != self.image_shape:
            raise ValueError(
                f"on_error returned an image of shape {image.shape} for {path!r}; expected {self.image_shape} or None"
            )
        # A float image of 0.5 would become 0, and 300 a 44: either is a picture that was not meant.
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
    """Files of a batch as they were decoded, in the order of the batch.

    Attributes
    ----------
    images : array, DeviceBatch or None
        What was decoded and resized, in any order. None where files are cropped.
    rows : numpy.ndarray or None
        Shape ``(N,)``: the row of `images` for each sample; None where sample i is row i. With a cache, -1 for what
        failed and what was there; without one, the row of what failed is of no meaning.
    errors : list
        N items: what is wrong with a sample's file, or None.
    kept : Kept or None
        What the cache had of the batch before.
    whole : Whole or None
        What was decoded of files that are cropped, in the order of the batch.
    """

    images: np.ndarray | DeviceBatch | None
    rows: np.ndarray | None
    errors: list[ImageFileError | None]
    kept: Kept | None = None
    whole: Whole | None = None
