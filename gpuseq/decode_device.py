"""JPEG files decoded on the GPU by nvImageCodec, everything else on the host. Not yet run on a GPU.

What can be tried without one (routing, colour, orientation, the life of the buffers) is tried with the same class on
nvImageCodec's CPU decoder. Off by default: the host path is exact, the GPU's decoders are within a tolerance of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import decode, decode_nvimgcodec
from .arrays import Array
from .compat import array_module, cpu_count
from .decode_pillow import check_size, orientation_of, pixel_limit
from .decode_routes import route
from .errors import ImageFileError
from .headers import is_complete, read_header
from .options import DecodeOptions
from .readers import read_bytes
from .workers import for_each

__all__ = ["DeviceBatch", "DeviceDecoder"]


class DeviceBatch:
    """What one call decoded. The device images live in a buffer that is used again once the batch is released.

    Attributes
    ----------
    images : list
        Item i is a device array ``(H, W, C)``, uint8, at the file's own size; or a host array, already cropped and
        resized, that the host decoded; or the error that names the file. Read only.
    decoders : list of str
        Who decoded item i: "nvimgcodec" (on the device), "host", or "" for an error.
    """

    def __init__(self, images: list[Array | ImageFileError], decoders: list[str], slot: _Slot) -> None:
        self.images = images
        self.decoders = decoders
        self._slot = slot

    def release(self) -> None:
        """Give the buffer back: the work that reads it has been put on the current stream, and no more will come.

        The next decode into it waits for that work on the host, so it may still be running now.
        """
        self._slot.done = self._slot.queue.mark()
        self._slot.held = False


class DeviceDecoder:
    """Decode JPEG files on one GPU, into buffers of its own, on a stream of its own.

    nvJPEG's hardware decoder has been reported to write to its output before work queued earlier on the caller's stream
    has ended. So no output buffer is shared with anyone's allocator, and none is decoded into before the host has seen
    the event that its last reader left. The host also waits for each decode, which belongs on a decode-ahead thread.

    Parameters
    ----------
    options : DecodeOptions
        How. `target_size`, `interpolation` and `keep_aspect_ratio` concern only what the host decodes; images from the
        device are still to be cropped (`gpuseq.decode_pillow.center_crop_box`) and resized.
    device_id : int or None
        CUDA ordinal. None runs the same code on nvImageCodec's CPU decoder, for tests.
    hw_decoder_load : float
        Share of a batch, 0 to 1, for the JPEG engine of GPUs that have one. Its pixels differ slightly from those of
        the CUDA decoder.
    deterministic : bool
        Use the CUDA decoder alone, so that a file's pixels do not depend on its place in the batch.

    Raises
    ------
    MissingDependencyError
        If nvImageCodec is not installed.
    ValueError
        If `hw_decoder_load` is not within 0 and 1.

    References
    ----------
    pytorch/vision pull request 9606 and meta-pytorch/torchcodec pull request 1634, on the hardware decoder's writes.
    """

    def __init__(
        self,
        options: DecodeOptions,
        device_id: int | None = 0,
        *,
        hw_decoder_load: float = 0.65,
        deterministic: bool = False,
    ) -> None:
        if not 0 <= hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load must be within 0 and 1; got {hw_decoder_load!r}")
        self.options = options
        self.num_threads = options.num_threads or cpu_count()
        self._codec = decode_nvimgcodec.check()
        self._queue: _HostQueue | _CudaQueue = _HostQueue() if device_id is None else _CudaQueue(device_id)
        # Pillow smooths subsampled chroma, which nvJPEG does only when asked.
        self._decoder = self._codec.Decoder(
            device_id=self._codec.NVIMGCODEC_DEVICE_CPU_ONLY if device_id is None else device_id,
            max_num_cpu_threads=self.num_threads,
            backends=_backends(self._codec, device_id, 0.0 if deterministic else hw_decoder_load),
            options=":fancy_upsampling=1",
        )
        self._params = decode_nvimgcodec.params(self._codec, "RGB")
        self._slots: list[_Slot] = []

    @property
    def num_buffers(self) -> int:
        """How many buffers were made: one more than the largest number of batches that were held at once, or equal."""
        return len(self._slots)

    def decode_files(self, paths: Sequence[str]) -> DeviceBatch:
        """Read and decode files; see `decode`.

        Parameters
        ----------
        paths : sequence of str
            Local paths or fsspec URLs.
        """
        encoded: list[bytes | None] = [None] * len(paths)
        errors: dict[int, ImageFileError] = {}

        def read(index: int) -> None:
            try:
                encoded[index] = read_bytes(paths[index])
            except ImageFileError as error:
                error.__cause__ = error.__context__ = None
                errors[index] = error.with_traceback(None)

        for_each(read, len(paths), self.num_threads)
        batch = self.decode(encoded, paths)
        for index, error in errors.items():
            batch.images[index] = error
        return batch

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
            To be released once the work that reads it is queued.

        Raises
        ------
        MissingDependencyError
            As `gpuseq.decode.decode`.
        """
        slot = self._free_slot()
        try:
            return self._decode_into(slot, encoded, names)
        except BaseException:
            slot.held = False
            raise

    def _decode_into(self, slot: _Slot, encoded: Sequence[bytes | None], names: Sequence[str]) -> DeviceBatch:
        images: list[Array | ImageFileError | None] = [None] * len(encoded)
        chosen = [index for index, data in enumerate(encoded) if data is not None and self._takes(data, names[index])]
        self._decode_chosen(slot, [encoded[index] or b"" for index in chosen], [names[index] for index in chosen])
        for index, image in zip(chosen, slot.arrays, strict=True):
            images[index] = image
        decoders = ["nvimgcodec" if image is not None else "host" for image in images]
        rest = [index for index, image in enumerate(images) if image is None]
        by_host = decode.decode([encoded[index] for index in rest], self.options, [names[index] for index in rest])
        results: list[Array | ImageFileError] = [*images]
        for index, outcome in zip(rest, by_host, strict=True):
            results[index] = outcome
            if isinstance(outcome, ImageFileError):
                decoders[index] = ""
        return DeviceBatch(results, decoders, slot)

    def _takes(self, encoded: bytes, name: str) -> bool:
        header = read_header(encoded)
        # The GPU decodes JPEG; other formats it would hand to its CPU decoder and copy.
        if header is None or header.format != "JPEG" or not route(header, self.options, "nvimgcodec"):
            return False
        try:
            check_size(header.width, header.height, pixel_limit(self.options), name)
        except ImageFileError:
            return False  # the host path refuses it, and says why
        return is_complete(encoded, header) and decode_nvimgcodec.parses(encoded)

    def _free_slot(self) -> _Slot:
        for slot in self._slots:
            if not slot.held:
                slot.queue.wait(slot.done)
                break
        else:
            # Every buffer is being read: one more is safe, and waiting here for a caller that forgot is not.
            slot = _Slot(self._queue)
            self._slots.append(slot)
        slot.held = True
        return slot

    def _decode_chosen(self, slot: _Slot, encoded: list[bytes], names: list[str]) -> None:
        slot.arrays = []
        if not encoded:
            return
        with self._queue:
            reused = slot.buffers[: len(encoded)]
            found = self._decode_some(encoded[: len(reused)], reused) + self._decode_some(encoded[len(reused) :], None)
            # A buffer whose file failed stays in its place; it is as good for the next one.
            kept = [old if new is None else new for old, new in zip(reused, found, strict=False)]
            slot.buffers[: len(reused)] = kept
            slot.buffers += [image for image in found[len(reused) :] if image is not None]
            for image, data, name in zip(found, encoded, names, strict=True):
                slot.arrays.append(None if image is None else self._finish(self._queue.array(image), data, name))
            self._queue.synchronize()

    def _decode_some(self, encoded: list[bytes], buffers: list[Any] | None) -> list[Any]:
        if not encoded:
            return []
        streams = [self._codec.CodeStream(data) for data in encoded]
        reuse = {} if buffers is None else {"images": buffers}
        return list(self._decoder.decode(streams, params=self._params, cuda_stream=self._queue.handle, **reuse))

    def _finish(self, pixels: Array, encoded: bytes, name: str) -> Array:
        if self.options.exif_orientation:
            pixels = turn(pixels, orientation_of(encoded, name))
        pixels = to_color_mode(pixels, self.options.color_mode)
        return pixels if pixels.flags.c_contiguous else pixels.copy()  # in C order


class _Slot:
    """Buffers for one batch, and whether someone may still be reading them."""

    def __init__(self, queue: _HostQueue | _CudaQueue) -> None:
        self.queue = queue
        self.buffers: list[Any] = []  # nvImageCodec images, each with memory of its own
        self.arrays: list[Array | None] = []
        self.held = False
        self.done: Any = None


class _CudaQueue:
    """A stream of our own; everything that CuPy does inside ``with queue:`` goes on it."""

    def __init__(self, device_id: int) -> None:
        import cupy

        self._cupy = cupy
        self._device = cupy.cuda.Device(device_id)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self.handle: int = self._stream.ptr

    def __enter__(self) -> None:
        self._device.__enter__()
        self._stream.__enter__()

    def __exit__(self, *failure: object) -> None:
        self._stream.__exit__(*failure)
        self._device.__exit__(*failure)

    def array(self, image: Any) -> Array:
        return self._cupy.asarray(image)  # a view; `synchronize` orders it

    def synchronize(self) -> None:
        self._stream.synchronize()

    def mark(self) -> Any:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(self._cupy.cuda.get_current_stream())
        return event

    def wait(self, mark: Any) -> None:
        if mark is not None:
            mark.synchronize()


class _HostQueue:
    """The same on the CPU, where everything has happened when a call returns."""

    handle = 0

    def __enter__(self) -> None:
        return

    def __exit__(self, *failure: object) -> None:
        return

    def array(self, image: Any) -> Array:
        return np.asarray(image.cpu())

    def synchronize(self) -> None:
        return

    def mark(self) -> Any:
        return None

    def wait(self, mark: Any) -> None:
        return


def _backends(codec: Any, device_id: int | None, hw_decoder_load: float) -> list[Any]:
    kinds = codec.BackendKind
    if device_id is None:
        return [codec.Backend(kinds.CPU_ONLY)]
    backends = [codec.Backend(kinds.HW_GPU_ONLY, load_hint=hw_decoder_load)] if hw_decoder_load > 0 else []
    # What neither takes (arithmetic coding, say) comes back as None and goes to the host.
    return [*backends, codec.Backend(kinds.GPU_ONLY), codec.Backend(kinds.HYBRID_CPU_GPU)]


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
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.astype(np.uint8)[:, :, None]
