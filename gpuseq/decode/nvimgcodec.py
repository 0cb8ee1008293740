"""nvImageCodec: encoded buffers in, images out, None for each that failed. Imported at first use."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuseq.base.errors import require
from gpuseq.base.forks import forks_wait, outlive_forks
from gpuseq.base.threads import per_thread
from gpuseq.base.types import Array

from .routes import Encoded, Layout

__all__ = ["DECODING", "DeviceImages", "check", "decode_host", "parses"]

DECODING = "decoding with nvImageCodec or DALI"
"""What a fork waits for. One name for both: DALI decodes with nvImageCodec."""


def check() -> Any:
    """Import nvImageCodec.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    return require("nvidia.nvimgcodec", extra="dali", purpose='decoder="nvimgcodec"')


def decode_host(encoded: Sequence[bytes], layout: Layout, num_threads: int) -> list[np.ndarray | None]:
    """Decode a batch on the CPU.

    Parameters
    ----------
    encoded : sequence of bytes
        Whole image files that `gpuseq.decode.routes.route` lets through.
    layout : {"RGB", "RGBA"}
        Channels wanted.
    num_threads : int
        The decoder's own threads.

    Returns
    -------
    list
        A host array ``(H, W, 3 or 4)``, uint8, or None where it failed.

    Raises
    ------
    MissingDependencyError
        If nvImageCodec is not installed.
    """
    if not encoded:
        return []
    codec = check()
    with forks_wait(DECODING):
        images = _host_decoder(num_threads).decode(list(encoded), params=_params(codec, layout))
        return [_to_host(image) for image in images]


def parses(encoded: Encoded) -> bool:
    """Return whether nvImageCodec finds a header, and the chunks it needs, in an encoded image (some microseconds).

    Parameters
    ----------
    encoded : bytes or numpy.ndarray
        A whole image file.
    """
    return _stream(check(), encoded) is not None


def _stream(codec: Any, encoded: Encoded) -> Any:
    """Return what nvImageCodec takes for an encoded image, None where it finds no header in it."""
    # 1.7 us a file, and 15 us with Pillow. The arrays and bytes are not copied.
    try:
        stream = codec.CodeStream(encoded)
        return stream if stream.height and stream.width else None
    except RuntimeError:
        return None


class DeviceImages:
    """A decoder and the images that it writes to: nvImageCodec's own memory, used again by every call.

    Parameters
    ----------
    device_id : int or None
        CUDA ordinal. None decodes on the CPU, into the host's memory.
    stream : int
        Handle of the CUDA stream on which everything is queued.
    num_threads : int
        The decoder's own threads.
    hw_decoder_load : float
        Share of a batch, 0 to 1, for the JPEG hardware of GPUs that have it; 0 leaves all to the CUDA decoder.

    Raises
    ------
    MissingDependencyError
        If nvImageCodec is not installed.
    """

    def __init__(self, device_id: int | None, stream: int, num_threads: int, hw_decoder_load: float) -> None:
        self._codec = check()
        self._stream = stream
        with forks_wait(DECODING):
            self._decoder = outlive_forks(
                self._codec.Decoder(
                    device_id=self._codec.NVIMGCODEC_DEVICE_CPU_ONLY if device_id is None else device_id,
                    max_num_cpu_threads=_most_threads(num_threads),
                    backends=_backends(self._codec, device_id, hw_decoder_load),
                    options=" ".join(_OPTIONS),
                )
            )
        self._params = _params(self._codec, "RGB")
        self._images: list[Any] = []

    def decode(self, encoded: Sequence[Encoded]) -> list[Any]:
        """Return an image ``(H, W, 3)``, uint8, for each, None where it failed; overwritten by the next call.

        Valid in the order of the stream.

        Parameters
        ----------
        encoded : sequence of bytes or numpy.ndarray
            Whole JPEG files.
        """
        parsed = [_stream(self._codec, data) for data in encoded]
        # A file that cannot be parsed is none of the call: the decoder would raise for all of them.
        streams = [stream for stream in parsed if stream is not None]
        if not streams:
            return [None] * len(parsed)
        # One call, whatever there is to reuse: the share of the JPEG hardware is a share of a call, so in two calls the
        # batches before would decide which decoder an image gets, and so its pixels.
        has_room = len(streams) <= len(self._images)
        reuse = {"images": self._images[: len(streams)]} if has_room else {}
        with forks_wait(DECODING):
            found = list(self._decoder.decode(streams, params=self._params, cuda_stream=self._stream, **reuse))
        if has_room:
            # A buffer whose file failed stays in its place; it is as good for the next one.
            for number, image in enumerate(found):
                self._images[number] = self._images[number] if image is None else image
        else:
            made = [image for image in found if image is not None]
            self._images = made + self._images[len(made) :]
        images = iter(found)
        return [None if stream is None else next(images) for stream in parsed]

    @staticmethod
    def view(image: Any) -> Array:
        """Return a CuPy array ``(H, W, 3)``, uint8, that shows an image on the device.

        To be read on the stream of this object alone: nothing here waits for another.

        Parameters
        ----------
        image : object
            From `decode`.
        """
        import cupy

        # A third of the time of DLPack (3 us of 9), which asks for the order of streams once more.
        interface = image.__cuda_array_interface__
        shape, device_id = interface["shape"], image.device_id
        if interface["typestr"] != "|u1" or interface["strides"] is not None:
            return cupy.from_dlpack(image)
        memory = cupy.cuda.UnownedMemory(interface["data"][0], math.prod(shape), image, device_id)
        return cupy.ndarray(shape, np.uint8, cupy.cuda.MemoryPointer(memory, 0))


_OPTIONS = (
    # Pillow smooths subsampled chroma, which nvJPEG does only when asked.
    ":fancy_upsampling=1",
    # The GPU undoes the Huffman coding of all images, and not of those over a megapixel alone. The pixels are the same.
    "nvjpeg_cuda_decoder:hybrid_huffman_threshold=0",
)


def _most_threads(num_threads: int) -> int:
    """Return what nvImageCodec takes of a number of threads; it leaves a core to the caller, and logs it otherwise."""
    return max(1, min(num_threads, (os.cpu_count() or 1) - 1))


def _backends(codec: Any, device_id: int | None, hw_decoder_load: float) -> list[Any]:
    """Return nvImageCodec's backends, in the order in which they are asked."""
    kinds = codec.BackendKind
    if device_id is None:
        return [codec.Backend(kinds.CPU_ONLY)]
    backends = [codec.Backend(kinds.HW_GPU_ONLY, load_hint=hw_decoder_load)] if hw_decoder_load > 0 else []
    # What neither takes (arithmetic coding, say) comes back as None and goes to the host.
    return [*backends, codec.Backend(kinds.GPU_ONLY), codec.Backend(kinds.HYBRID_CPU_GPU)]


def _to_host(image: Any) -> np.ndarray | None:
    if image is None:
        return None
    # Anything but 8-bit pixels is taken for a failure: Pillow then decodes the file.
    pixels = np.asarray(image.cpu())
    return pixels if pixels.dtype == np.uint8 and pixels.ndim == 3 else None


@per_thread
def _host_decoder(num_threads: int) -> Any:
    codec = check()
    # Both are needed: without the backend list the constructor still looks for a driver.
    decoder = codec.Decoder(
        device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=_most_threads(num_threads),
        backends=_backends(codec, None, 0.0),
    )
    return outlive_forks(decoder)


def _params(codec: Any, layout: Layout) -> Any:
    """Return the decode parameters that agree with Pillow."""
    # Four channels as they are: a conversion to RGB would drop alpha.
    color = codec.ColorSpec.SRGB if layout == "RGB" else codec.ColorSpec.UNCHANGED
    return codec.DecodeParams(apply_exif_orientation=False, color_spec=color, allow_any_depth=False)
