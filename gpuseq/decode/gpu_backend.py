"""What `gpuseq.decode.gpu` runs on: decoders on a GPU, each with a stream, and who has which."""

from __future__ import annotations

import threading
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

__all__ = ["Backends", "GpuBackend", "decoder_of"]


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


class Backends:
    """Backends of one kind, each lent to one thread at a time, and made when it is first needed.

    A decoder's images are overwritten by its next call, so that it does one batch after the other. While one reads
    files' headers, and waits, the hardware can work for another.

    Parameters
    ----------
    open_backend : callable
        Makes one.
    most : int
        How many there are at most.
    """

    def __init__(self, open_backend: Callable[[], GpuBackend], most: int) -> None:
        self._open = open_backend
        self._most = most
        self._num_made = 0
        # With the thread that had it last: what a decoder keeps for a thread is made once.
        self._idle: list[tuple[int, GpuBackend]] = []
        self._changed = threading.Condition()

    @contextmanager
    def lent(self) -> Iterator[GpuBackend]:
        """Lend a backend for a ``with`` block; the thread waits while others have all of them."""
        me = threading.get_ident()
        backend = self._taken(me)
        try:
            if backend is None:
                backend = self._open()
            yield backend
        finally:
            with self._changed:
                if backend is None:
                    self._num_made -= 1
                else:
                    self._idle.append((me, backend))
                self._changed.notify()

    def _taken(self, thread: int) -> GpuBackend | None:
        """Return an idle backend, None where the caller has to make one, which is counted already."""
        with self._changed:
            while not self._idle and self._num_made == self._most:
                self._changed.wait()
            if not self._idle:
                self._num_made += 1
                return None
            known = [place for place, (last, _) in enumerate(self._idle) if last == thread]
            return self._idle.pop(known[-1] if known else -1)[1]


Images: TypeAlias = decode_dali.DeviceImages | decode_nvimgcodec.DeviceImages


def decoder_of(options: DecodeOptions) -> type[Images]:
    """Return what decodes: DALI where it is asked for, else nvImageCodec."""
    return decode_dali.DeviceImages if options.decoder == "dali" else decode_nvimgcodec.DeviceImages
