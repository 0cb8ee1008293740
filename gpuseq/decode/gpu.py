"""Files to a batch of images on one GPU: JPEG decoded there by DALI or nvImageCodec, the rest on the host.

What can be tried without one (routing, colour, orientation, crop and resize, the life of the buffers) the tests try on
the decoders' CPU side, and those marked ``gpu`` on a GPU: ``docs/parity.md`` says what has run there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from gpuseq.base.devices import array_module
from gpuseq.base.errors import ImageFileError
from gpuseq.base.streams import Buffer, Ring
from gpuseq.base.threads import cpu_count
from gpuseq.base.types import COLOR_CHANNELS, Array
from gpuseq.ops import dispatch as ops

from . import host as decode
from .gpu_backend import GpuBackend
from .gpu_files import EncodedFiles, chosen_of, given, read_files
from .options import DecodeOptions
from .orientation import orientation_of
from .pillow import center_crop_box
from .reading import FileReader

__all__ = ["DeviceBatch", "DeviceDecoder", "WholeFiles"]


T = TypeVar("T")


class _InBlock:
    """What one call decoded, in a block that is filled again once it has been read.

    Attributes
    ----------
    errors : list
        Item i is None where there is an image of file i, else the error that names the file.
    decoders : list of str
        Who decoded file i: "device", "host", or "" for an error.
    """

    def __init__(
        self,
        errors: list[ImageFileError | None],
        decoders: list[str],
        block: Buffer,
        ring: Ring,
        backend: GpuBackend,
    ) -> None:
        self.errors = errors
        self.decoders = decoders
        self._block: Buffer | None = block
        self._ring = ring
        self._backend = backend

    def _read(self, work: Callable[[], Array]) -> Array:
        """Return what `work` makes of the block on the caller's current stream, and give the block back, once."""
        assert self._block is not None, "the batch was taken before"
        made, self._block.last_use = self._backend.read_out(work)
        self._ring.give(self._block)
        self._block = None
        return made


class DeviceBatch(_InBlock):
    """Files that one call decoded and resized.

    Attributes
    ----------
    rows : numpy.ndarray
        Shape ``(N,)``: the row of the block that belongs to each file.
    errors : list
        Item i is None where there is an image of file i, else the error that names the file.
    decoders : list of str
        Who decoded file i: "device", "host", or "" for an error.
    """

    def __init__(self, rows: np.ndarray, images: Array, **further: Any) -> None:
        super().__init__(**further)
        self.rows = rows
        self._images = images

    def take(self) -> Array:
        """Copy the images out, on the caller's current stream, and give the block back. To be called once.

        The copy costs the time of one pass over uint8 images, which is nothing beside their decoding, and buys that no
        memory is ever read by one stream while another writes to it: the next decode into the block waits for it.

        Returns
        -------
        array
            Shape ``(N, H, W, C)``, uint8 (wider where grey files are), new, on the decoder's device. Rows of files that
            failed are of no meaning.
        """
        return self._read(self._images.copy)


class WholeFiles(_InBlock):
    """Files that one call decoded, each of its own size.

    Attributes
    ----------
    images : list of array
        Item i is file i, ``(h, w, C)``, on the device where that decoded it, else on the host, as `host.decode_files`
        has it; None where it failed. Not to be read but by `read`.
    errors, decoders : list
        As of a `DeviceBatch`.
    """

    def __init__(self, images: list[Array | None], **further: Any) -> None:
        super().__init__(**further)
        self.images = images

    def read(self, work: Callable[[], Array]) -> Array:
        """Let `work` make an array of the images, and give the block back. To be called once.

        Parameters
        ----------
        work : callable
            Puts what reads the images on the caller's current stream, and returns what it makes of them.
        """
        return self._read(work)


class DeviceDecoder:
    """Read, decode, crop and resize files into batches on one GPU, on a stream and in memory of its own.

    nvJPEG's hardware decoder has been reported to write to its output before work queued earlier on the caller's stream
    has ended. So what it writes to is read by this object's own stream alone, and the host waits for that stream before
    the next decode begins. The calling thread waits: it should be one that decodes ahead.

    Parameters
    ----------
    options : DecodeOptions
        How; needs a `target_size`. Its `decoder` ("dali", else nvImageCodec), `hw_decoder_load` and `deterministic`
        choose among the GPU's decoders.
    device : str
        ``"cuda:N"``.
    backend : GpuBackend or None
        What decodes. None: a `GpuBackend` on the device.

    Raises
    ------
    MissingDependencyError
        If the decoder is not installed.

    References
    ----------
    pytorch/vision pull request 9606 and meta-pytorch/torchcodec pull request 1634, on the hardware decoder's writes.
    """

    def __init__(
        self,
        options: DecodeOptions,
        device: str = "cuda:0",
        backend: GpuBackend | None = None,
    ) -> None:
        self.options = options
        self.device = device
        self.num_threads = options.num_threads or cpu_count()
        self._backend = GpuBackend(device, options, self.num_threads) if backend is None else backend
        self._ring = Ring(lambda num_bytes: Buffer(ops.empty((num_bytes,), "uint8", device), num_bytes))
        # Beyond this many bytes of decoded images at their own size, the rest of a batch is decoded on the host.
        self._max_bytes = ops.free_memory(device) // 8
        self._reader = FileReader(self.num_threads)
        self._lock = threading.Lock()

    @property
    def num_blocks(self) -> int:
        """How many blocks wait to be filled: as many as batches were alive at once."""
        return len(self._ring)

    def decode_files(self, paths: Sequence[str]) -> DeviceBatch:
        """Read and decode files; see `decode`.

        Parameters
        ----------
        paths : sequence of str
            Local paths or fsspec URLs.
        """
        return self._batch(read_files(self._reader, paths, self.options))

    def decode_whole_files(self, paths: Sequence[str]) -> WholeFiles:
        """Read and decode files, and leave them as large as they are, for whoever cuts something out of them.

        Parameters
        ----------
        paths : sequence of str
            Local paths or fsspec URLs.

        Returns
        -------
        WholeFiles
            Complete: the host has waited for it.

        Raises
        ------
        MissingDependencyError, DeviceError
            As `decode`.
        """
        files = read_files(self._reader, paths, self.options)
        images, order, further = self._decoded(files, replace(self.options, target_size=None), self._pack)
        by_file = [image for _, image in sorted(zip(order, images, strict=True), key=itemgetter(0))]
        return WholeFiles(by_file, **further)

    def decode(self, encoded: Sequence[bytes | None], names: Sequence[str]) -> DeviceBatch:
        """Decode encoded images, each wherever it can be.

        Parameters
        ----------
        encoded : sequence of bytes or None
            Whole image files; None gives an error.
        names : sequence of str
            What to call them in errors.

        Returns
        -------
        DeviceBatch
            Complete: the host has waited for it.

        Raises
        ------
        MissingDependencyError
            As `gpuseq.decode.host.decode`.
        DeviceError
            If the device has no room for the batch.
        """
        return self._batch(given(encoded, names, self.options))

    def _batch(self, files: EncodedFiles) -> DeviceBatch:
        images, order, further = self._decoded(files, self.options, self._fill)
        rows = np.empty(len(order), np.int64)
        rows[order] = np.arange(len(order))
        return DeviceBatch(rows, images, **further)

    def _decoded(
        self,
        files: EncodedFiles,
        options: DecodeOptions,
        write: Callable[[list[Array], Sequence[np.ndarray | ImageFileError]], tuple[T, Buffer]],
    ) -> tuple[T, list[int], dict[str, Any]]:
        """Return what `write` makes in a block, whose files it holds in order, and the rest that is said of them."""
        chosen = chosen_of(files.sizes, self._max_bytes)
        backend = self._backend
        # One batch at a time, whichever thread asks for it, the one that decodes ahead or another: the decoder's own
        # images are overwritten by its next call. What it reads is held until it has done so. Tried on an H100: a
        # second decoder, for a second thread. Alone two got more done, epochs of an iterator no more than by chance.
        with self._lock:
            found = backend.decode([data for index in chosen if (data := files.data[index]) is not None])
            taken = {index: image for index, image in zip(chosen, found, strict=True) if image is not None}
            rest = [index for index in range(len(files.data)) if index not in taken]
            by_host = self._by_host(files, rest, options)
            with backend.here():
                on_device = [self._finish(backend.array(image), files, index) for index, image in taken.items()]
                images, block = write(on_device, by_host)
                # The host waits here, on the thread that decodes ahead: the next call may write to the same buffers
                # before work that was queued earlier has ended.
                backend.synchronize()
        errors: list[ImageFileError | None] = [None] * len(files.data)
        decoders = ["device"] * len(files.data)
        for index, outcome in zip(rest, by_host, strict=True):
            errors[index] = (files.errors[index] or outcome) if isinstance(outcome, ImageFileError) else None
            decoders[index] = "" if errors[index] else "host"
        further = {"errors": errors, "decoders": decoders, "block": block, "ring": self._ring, "backend": backend}
        # The block holds what the device decoded first, then what the host did.
        return images, [*taken, *rest], further

    def _by_host(
        self, files: EncodedFiles, indices: Sequence[int], options: DecodeOptions
    ) -> list[np.ndarray | ImageFileError]:
        encoded = [None if (data := files.data[index]) is None else bytes(data) for index in indices]
        return decode.decode(encoded, options, [files.names[index] for index in indices])

    def _finish(self, pixels: Array, files: EncodedFiles, index: int) -> Array:
        if self.options.exif_orientation:
            data = files.data[index]
            assert data is not None, "it was decoded"
            pixels = turn(pixels, files.orientations[index] or orientation_of(bytes(data), files.names[index]))
        return to_color_mode(pixels, self.options.color_mode)

    def _fill(self, on_device: list[Array], by_host: Sequence[np.ndarray | ImageFileError]) -> tuple[Array, Buffer]:
        """Write one block: what the device decoded, resized by our kernel, then what the host did, as it is."""
        assert self.options.target_size is not None
        height, width = self.options.target_size
        decoded = [outcome for outcome in by_host if not isinstance(outcome, ImageFileError)]
        dtype = decode.common_dtype(decoded)
        shape = (len(on_device) + len(by_host), height, width, COLOR_CHANNELS[self.options.color_mode])
        block = self._ring.take(int(np.prod(shape)) * dtype.itemsize)
        images = block.memory[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
        if on_device:
            boxes = None
            if self.options.keep_aspect_ratio:
                sizes = [(image.shape[1], image.shape[0]) for image in on_device]
                # Pillow's box and Pillow's resize, by our kernel: DALI's own resize is up to 38 levels off.
                boxes = np.array([center_crop_box(size, (width, height)) for size in sizes], np.float32)
            part = images[: len(on_device)]
            # Grey files of 16 bits on the host widen the block; the kernel writes bytes.
            narrow = part if dtype == np.uint8 else None
            resized = ops.resize(on_device, (height, width), self.options.interpolation, boxes=boxes, out=narrow)
            if narrow is None:
                part[...] = resized
        if decoded:
            # One upload for all of them; rows of files that failed go along and are of no meaning.
            rows = np.empty((len(by_host), *shape[1:]), dtype)
            for row, outcome in zip(rows, by_host, strict=True):
                if not isinstance(outcome, ImageFileError):
                    row[...] = outcome
            images[len(on_device) :] = ops.upload(rows, self.device)
        return images, block

    def _pack(
        self, on_device: list[Array], by_host: Sequence[np.ndarray | ImageFileError]
    ) -> tuple[list[Array | None], Buffer]:
        """Write one block: what the device decoded, as it is, one image behind the other."""
        block = self._ring.take(sum(image.size for image in on_device))
        images: list[Array | None] = []
        start = 0
        for image in on_device:
            view = block.memory[start : start + image.size].reshape(image.shape)
            view[...] = image
            images.append(view)
            start += image.size
        # What the host decoded stays there: of a large file little is left once it is cropped.
        return [*images, *(None if isinstance(image, ImageFileError) else image for image in by_host)], block


def turn(pixels: Array, orientation: int) -> Array:
    """Turn an image as its EXIF orientation says.

    Parameters
    ----------
    pixels : array
        ``(H, W, C)``, on the host or a device.
    orientation : int
        1 to 8.

    Returns
    -------
    array
        ``(H, W, C)`` or ``(W, H, C)``; `pixels` itself for 1, else a view.

    References
    ----------
    ``PIL.ImageOps.exif_transpose``.
    """
    # Orientations as a transpose and two mirrors: 5 to 8 exchange the axes.
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def to_color_mode(pixels: Array, color_mode: str) -> Array:
    """Turn RGB into the colour mode, in Pillow's integers.

    Parameters
    ----------
    pixels : array
        ``(H, W, 3)``, uint8, on the host or a device.
    color_mode : {"rgb", "rgba", "grayscale"}
        What is wanted.

    Returns
    -------
    array
        ``(H, W, C)``, uint8, on the same device; `pixels` itself where nothing changes.

    References
    ----------
    ITU-R BT.601 luma, as ``PIL.Image.Image.convert("L")`` rounds it.
    """
    if color_mode == "rgb":
        return pixels
    height, width, _ = pixels.shape
    if color_mode == "rgba":
        opaque = array_module(pixels).empty((height, width, 4), np.uint8)
        opaque[:, :, :3] = pixels
        opaque[:, :, 3] = 255
        return opaque
    red, green, blue = (pixels[:, :, channel].astype(np.uint32) for channel in range(3))
    # Pillow's integers: the decoders' own grey is 1 to 5 levels off.
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.astype(np.uint8)[:, :, None]
