"""What `gpuseq.decode.gpu` runs on: a decoder and a stream on a GPU, and memory for batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from gpuseq.base.devices import ordinal_of
from gpuseq.base.machine import cpu_count
from gpuseq.base.types import Array
from gpuseq.ops import dispatch as ops

from . import dali as decode_dali
from . import nvimgcodec as decode_nvimgcodec
from .options import DecodeOptions

__all__ = ["Block", "GpuEngine", "Ring", "decoder_of"]


class GpuEngine:
    """DALI or nvImageCodec on one GPU, and a stream of our own for all that belongs to decoding.

    Parameters
    ----------
    device : str
        ``"cuda:N"``.
    options : DecodeOptions
        Its `decoder` ("dali", else nvImageCodec), `hw_decoder_load`, `deterministic` and `num_threads`.

    Raises
    ------
    MissingDependencyError
        If the decoder is not installed.
    """

    def __init__(self, device: str, options: DecodeOptions) -> None:
        import cupy

        self.device = device
        self._cupy = cupy
        self._ordinal = ordinal_of(device)
        with cupy.cuda.Device(self._ordinal):
            self._stream = cupy.cuda.Stream(non_blocking=True)
        load = 0.0 if options.deterministic else options.hw_decoder_load
        threads = options.num_threads or cpu_count()
        self._images: Images = decoder_of(options)(self._ordinal, self._stream.ptr, threads, load)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Make the device current, and its stream: what CuPy does within is queued there."""
        with self._cupy.cuda.Device(self._ordinal), self._stream:
            yield

    def decode(self, encoded: list[bytes]) -> list[Any]:
        """Return the decoder's image for each, in the order of the stream, None where it failed; valid until the next.

        Parameters
        ----------
        encoded : list of bytes
            Whole JPEG files.
        """
        with self.here():
            return self._images.decode(encoded)

    def array(self, image: Any) -> Array:
        """Return a view of an image, ``(H, W, 3)``, uint8, on the device."""
        # DLPack carries the order of streams, which DALI's other protocol does not.
        return self._cupy.from_dlpack(image)

    def synchronize(self) -> None:
        """Let the host wait for the stream."""
        self._stream.synchronize()

    def copy_out(self, images: Array) -> tuple[Array, Any]:
        """Return a copy made on the caller's current stream, and the event after which it is made."""
        with self._cupy.cuda.Device(self._ordinal):
            copy = images.copy()
            event = self._cupy.cuda.Event(disable_timing=True)
            event.record(self._cupy.cuda.get_current_stream())
        return copy, event

    def wait(self, event: Any) -> None:
        """Let the host wait for an event of `copy_out`, or for none."""
        if event is not None:
            event.synchronize()


Images: TypeAlias = decode_dali.DeviceImages | decode_nvimgcodec.DeviceImages


def decoder_of(options: DecodeOptions) -> type[Images]:
    """Return what decodes: DALI where it is asked for, else nvImageCodec."""
    return decode_dali.DeviceImages if options.decoder == "dali" else decode_nvimgcodec.DeviceImages


class Block:
    """Memory for one batch, and the event after which its last reader has left.

    Attributes
    ----------
    memory : array
        Flat, uint8.
    read : event or None
        From `GpuEngine.copy_out`.
    """

    def __init__(self, memory: Array) -> None:
        self.memory = memory
        self.read: Any = None


class Ring:
    """Blocks that wait to be filled, oldest first. One that is lost on the way is simply not used again.

    Parameters
    ----------
    engine : GpuEngine
        Where the blocks are.
    """

    def __init__(self, engine: GpuEngine) -> None:
        self.engine = engine
        self._blocks: deque[Block] = deque()

    def take(self, num_bytes: int) -> Block:
        """Return a block that nobody reads any more, a new one where there is none of that size.

        Parameters
        ----------
        num_bytes : int
            Its size at least.

        Raises
        ------
        DeviceError
            If the device has no room for a new one.
        """
        if self._blocks:
            block = self._blocks.popleft()
            self.engine.wait(block.read)
            if block.memory.size >= num_bytes:
                return block
        return Block(ops.empty((num_bytes,), "uint8", self.engine.device))

    def give(self, block: Block) -> None:
        """Put a block back, with its event."""
        self._blocks.append(block)

    def __len__(self) -> int:
        return len(self._blocks)
