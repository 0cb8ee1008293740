"""What `gpuseq.decode.gpu` runs on: a decoder and a stream on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from gpuseq.base.devices import ordinal_of
from gpuseq.base.streams import own_stream, recorded
from gpuseq.base.types import Array

from . import dali as decode_dali
from . import nvimgcodec as decode_nvimgcodec
from .options import DecodeOptions
from .routes import Encoded

__all__ = ["GpuBackend", "decoder_of"]


class GpuBackend:
    """DALI or nvImageCodec on one GPU, and a stream of our own for all that belongs to decoding.

    Parameters
    ----------
    device : str
        ``"cuda:N"``.
    options : DecodeOptions
        Its `decoder` ("dali", else nvImageCodec), `hw_decoder_load` and `deterministic`.
    num_threads : int
        The decoder's own threads, on the host.

    Raises
    ------
    MissingDependencyError
        If the decoder is not installed.
    """

    def __init__(self, device: str, options: DecodeOptions, num_threads: int) -> None:
        import cupy

        self.device = device
        self._cupy = cupy
        self._ordinal = ordinal_of(device)
        self._stream = own_stream(self, self._ordinal)
        # Which images go to the JPEG hardware depends on what else is in the call, and its pixels need not be those of
        # the other decoders.
        load = 0.0 if options.deterministic else options.hw_decoder_load
        self._images: Images = decoder_of(options)(self._ordinal, self._stream.ptr, num_threads, load)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Make the device current, and its stream: what CuPy does within is queued there."""
        with self._cupy.cuda.Device(self._ordinal), self._stream:
            yield

    def decode(self, encoded: Sequence[Encoded]) -> list[Any]:
        """Return the decoder's image for each, in the order of the stream, None where it failed; valid until the next.

        Parameters
        ----------
        encoded : sequence of bytes or numpy.ndarray
            Whole JPEG files, to be held until the stream is through with them. One that is damaged is no error.
        """
        with self.here():
            return self._images.decode(encoded)

    def array(self, image: Any) -> Array:
        """Return a view of an image, ``(H, W, 3)``, uint8, on the device."""
        return self._images.view(image)

    def synchronize(self) -> None:
        """Let the host wait for the stream."""
        self._stream.synchronize()

    def read_out(self, work: Callable[[], Array]) -> tuple[Array, Any]:
        """Return what `work` makes on the caller's current stream, and the event after which it is made."""
        with self._cupy.cuda.Device(self._ordinal):
            made = work()
            return made, recorded(self._cupy.cuda.get_current_stream())


Images: TypeAlias = decode_dali.DeviceImages | decode_nvimgcodec.DeviceImages


def decoder_of(options: DecodeOptions) -> type[Images]:
    """Return what decodes: DALI where it is asked for, else nvImageCodec."""
    return decode_dali.DeviceImages if options.decoder == "dali" else decode_nvimgcodec.DeviceImages
