"""DALI's eager decoder: encoded buffers in, images out, None for each that failed. Imported at first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from gpuseq.base.errors import require
from gpuseq.base.forks import forks_wait, outlive_forks
from gpuseq.base.threads import per_thread
from gpuseq.base.types import Array

from . import nvimgcodec as decode_nvimgcodec
from .routes import Encoded, Layout

__all__ = ["DeviceImages", "check", "decode_host"]

Decode: TypeAlias = Callable[[Any], Sequence[Any]]
"""A batch of encoded buffers to one image for each; RuntimeError if any of them is bad."""


def check() -> tuple[Any, Any]:
    """Import DALI's dynamic mode and its types (1.5 s and some 300 MB, once).

    Raises
    ------
    MissingDependencyError
        If DALI is not installed, or too old to have a dynamic mode.
    """
    dynamic = require("nvidia.dali.experimental.dynamic", extra="dali", purpose='decoder="dali"')
    types = require("nvidia.dali.types", extra="dali", purpose='decoder="dali"')
    return dynamic, types


def decode_host(encoded: Sequence[bytes], layout: Layout, num_threads: int) -> list[np.ndarray | None]:
    """Decode a batch on the CPU.

    Parameters
    ----------
    encoded : sequence of bytes
        Whole image files that `gpuseq.decode.routes.route` lets through.
    layout : {"RGB"}
        Channels wanted.
    num_threads : int
        DALI's own threads.

    Returns
    -------
    list
        A host array ``(H, W, 3)``, uint8, that keeps DALI's buffer alive; or None where it failed.

    Raises
    ------
    MissingDependencyError
        If DALI is not installed.

    Notes
    -----
    A fork waits for it (`gpuseq.base.forks.forks_wait`). DALI 2.4 takes the nodes of its lists of tasks from a pool of
    the process behind a spinlock (``dali::mm::detail::object_pool_allocator``): in a child that was forked while a
    thread held it, the first batch spins for ever, in whatever context.

    A sample that DALI cannot parse, in a batch with one that it cannot decode, has been seen to abort the process
    (DALI 2.4, truncated PNG files). So nvImageCodec, which DALI installs and decodes with, parses each file first.
    """
    dynamic, types = check()

    # The views that are returned are given back to DALI behind the wait, but by Python, and so with the GIL: no fork.
    def decode(batch: Any) -> list[np.ndarray]:
        images = dynamic.decoders.image(batch, device="cpu", output_type=types.RGB, **_AS_PILLOW)
        return [np.asarray(tensor) for tensor in images.tensors]

    with forks_wait(decode_nvimgcodec.DECODING), _host_context(num_threads):
        return _decode_sound(dynamic, decode, encoded)


@per_thread
def _host_context(num_threads: int) -> Any:
    """Return a context: it cannot be active in two threads, and each keeps its decoder instances."""
    return _new_context(check()[0], num_threads)


def _new_context(dynamic: Any, num_threads: int, **place: Any) -> Any:
    context = outlive_forks(dynamic.EvalContext(num_threads=num_threads, **place))
    # By itself, too: when the context is gone, its pool waits for the garbage collector, as DALI 2.4 leaves it.
    pool = getattr(context, "thread_pool", None)  # the first contexts with that name had none that is public
    if pool is not None:
        outlive_forks(pool)
    return context


class DeviceImages:
    """DALI's decoder on one GPU, on a stream of the caller's. Not for two threads at once.

    Parameters
    ----------
    device_id : int or None
        CUDA ordinal. None decodes on the CPU, into the host's memory.
    stream : int
        Handle of the CUDA stream on which everything is queued.
    num_threads : int
        DALI's own threads.
    hw_decoder_load : float
        Share of a batch, 0 to 1, for the JPEG hardware of GPUs that have it.

    Raises
    ------
    MissingDependencyError
        If DALI is not installed.
    """

    def __init__(self, device_id: int | None, stream: int, num_threads: int, hw_decoder_load: float) -> None:
        self._dynamic, types = check()
        # DALI works on the stream that is handed in: on one of its own it might use a buffer again while a kernel still
        # reads it.
        place = {} if device_id is None else {"device_id": device_id, "cuda_stream": stream}
        # A context belongs to one thread at a time and keeps its decoder instances, which are dear to make.
        self._context = per_thread(lambda: _new_context(self._dynamic, num_threads, **place))
        self._decode_options = {
            "device": "cpu" if device_id is None else "gpu",
            "output_type": types.RGB,
            "hw_decoder_load": hw_decoder_load,
            # Tied to the first cores, as DALI's threads are by default, those of several ranks would share them.
            "affine": False,
            **_AS_PILLOW,
        }

    def decode(self, encoded: Sequence[Encoded]) -> list[Any]:
        """Return DALI's tensor ``(H, W, 3)``, uint8, on the device for each image, or None where it failed.

        Valid in the order of the stream.

        Parameters
        ----------
        encoded : sequence of bytes or numpy.ndarray
            Whole JPEG files.
        """

        def decode(batch: Any) -> list[Any]:
            return list(self._dynamic.decoders.image(batch, **self._decode_options).evaluate().tensors)

        with forks_wait(decode_nvimgcodec.DECODING), self._context():
            return _decode_sound(self._dynamic, decode, encoded)

    @staticmethod
    def view(image: Any) -> Array:
        """Return a CuPy array ``(H, W, 3)``, uint8, that shows an image on the device.

        Parameters
        ----------
        image : object
            From `decode`.
        """
        import cupy

        # DLPack carries the order of streams, which DALI's other protocol does not.
        return cupy.from_dlpack(image)


# Keras does not turn images, and Pillow smooths subsampled chroma.
# The fast inverse DCT stays off: up to 67 levels away.
_AS_PILLOW = {"adjust_orientation": False, "jpeg_fancy_upsampling": True}


def _decode_sound(dynamic: Any, decode: Decode, encoded: Sequence[Encoded]) -> list[Any]:
    """Decode what can be parsed, in one batch or, with bad ones among them, in several."""
    results: list[Any] = [None] * len(encoded)
    # Parsed one by one beforehand, in some microseconds each: see `decode_host`.
    sound = [index for index, data in enumerate(encoded) if decode_nvimgcodec.parses(data)]
    decoded: list[Any] = [None] * len(sound)
    if sound:
        _decode_range(dynamic, decode, [encoded[index] for index in sound], decoded, 0, len(sound))
    for index, image in zip(sound, decoded, strict=True):
        results[index] = image
    return results


def _decode_range(
    dynamic: Any, decode: Decode, encoded: Sequence[Encoded], results: list[Any], begin: int, end: int
) -> None:
    # bytearray: DALI copies read-only arrays once more. Never output_type=ANY_DATA: a grey JPEG corrupts the heap.
    # Held until the images are there: `as_batch` makes a view, and asks its caller to keep alive what it shows.
    held = [
        data if isinstance(data, np.ndarray) else np.frombuffer(bytearray(data), np.uint8)
        for data in encoded[begin:end]
    ]
    batch = dynamic.as_batch(held)
    try:
        results[begin:end] = decode(batch)
    except RuntimeError:
        # One bad sample makes DALI raise for the whole batch, mostly without saying which: halve until it is alone.
        if end - begin > 1:
            middle = (begin + end) // 2
            _decode_range(dynamic, decode, encoded, results, begin, middle)
            _decode_range(dynamic, decode, encoded, results, middle, end)
