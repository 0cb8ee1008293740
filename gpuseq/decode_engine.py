"""What `gpuseq.decode_device` runs on: nvImageCodec and its buffers on a GPU (for tests, the CPU), and its memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np

from . import decode_nvimgcodec, ops
from .arrays import Array
from .compat import cpu_count
from .options import DecodeOptions

__all__ = ["Block", "CpuEngine", "Engine", "GpuEngine", "Ring", "open_engine"]


class GpuEngine:
    """nvImageCodec on one GPU, and a stream of our own for all that belongs to decoding.

    Parameters
    ----------
    device : str
        ``"cuda:N"``.
    options : DecodeOptions
        Its `hw_decoder_load`, `deterministic` and `num_threads`.

    Raises
    ------
    MissingDependencyError
        If nvImageCodec is not installed.
    """

    def __init__(self, device: str, options: DecodeOptions) -> None:
        import cupy

        codec = decode_nvimgcodec.check()
        self.device = device
        self._cupy = cupy
        self._ordinal = int(device.partition(":")[2])
        with cupy.cuda.Device(self._ordinal):
            self._stream = cupy.cuda.Stream(non_blocking=True)
        load = 0.0 if options.deterministic else options.hw_decoder_load
        threads = options.num_threads or cpu_count()
        self._buffers = _Buffers(codec, self._ordinal, _gpu_backends(codec, load), threads, self._stream.ptr)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Make the device current, and its stream: what CuPy does within is queued there."""
        with self._cupy.cuda.Device(self._ordinal), self._stream:
            yield

    def decode(self, encoded: list[bytes]) -> list[Any]:
        """Return nvImageCodec's image for each, in the order of the stream, None where it failed; valid until the next.

        Parameters
        ----------
        encoded : list of bytes
            Whole JPEG files.
        """
        with self.here():
            return self._buffers.decode(encoded)

    def array(self, image: Any) -> Array:
        """Return a view of an image, ``(H, W, 3)``, uint8, on the device."""
        return self._cupy.asarray(image)

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


class CpuEngine:
    """The same on the CPU, where everything has happened when a call returns. For tests.

    Parameters
    ----------
    options : DecodeOptions
        Its `num_threads`.

    Raises
    ------
    MissingDependencyError
        If nvImageCodec is not installed.
    """

    device = "cpu"

    def __init__(self, options: DecodeOptions) -> None:
        codec = decode_nvimgcodec.check()
        backends = [codec.Backend(codec.BackendKind.CPU_ONLY)]
        threads = options.num_threads or cpu_count()
        self._buffers = _Buffers(codec, codec.NVIMGCODEC_DEVICE_CPU_ONLY, backends, threads, 0)

    def here(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def decode(self, encoded: list[bytes]) -> list[Any]:
        """As `GpuEngine.decode`."""
        return self._buffers.decode(encoded)

    def array(self, image: Any) -> Array:
        """Return a view of an image, ``(H, W, 3)``, uint8, on the host."""
        return np.asarray(image.cpu())

    def synchronize(self) -> None:
        """Do nothing."""

    def copy_out(self, images: Array) -> tuple[Array, Any]:
        """Return a copy, and nothing to wait for."""
        return images.copy(), None

    def wait(self, event: Any) -> None:
        """Do nothing."""


Engine: TypeAlias = GpuEngine | CpuEngine


def open_engine(device: str, options: DecodeOptions) -> Engine:
    """Return the engine of a device.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda:N"``.
    options : DecodeOptions
        How to decode.
    """
    return CpuEngine(options) if device == "cpu" else GpuEngine(device, options)


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
    engine : GpuEngine or CpuEngine
        Where the blocks are.
    """

    def __init__(self, engine: Engine) -> None:
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


class _Buffers:
    """A decoder and the images that it writes to: nvImageCodec's own memory, used again by every call."""

    def __init__(self, codec: Any, device_id: int, backends: list[Any], num_threads: int, stream: int) -> None:
        self._codec = codec
        self._stream = stream
        # Pillow smooths subsampled chroma, which nvJPEG does only when asked.
        self._decoder = codec.Decoder(
            device_id=device_id, max_num_cpu_threads=num_threads, backends=backends, options=":fancy_upsampling=1"
        )
        self._params = decode_nvimgcodec.params(codec, "RGB")
        self._images: list[Any] = []

    def decode(self, encoded: list[bytes]) -> list[Any]:
        num_reused = min(len(encoded), len(self._images))
        found = self._decode(encoded[:num_reused], self._images[:num_reused]) + self._decode(encoded[num_reused:], None)
        # A buffer whose file failed stays in its place; it is as good for the next one.
        for number, image in enumerate(found[:num_reused]):
            self._images[number] = self._images[number] if image is None else image
        self._images += [image for image in found[num_reused:] if image is not None]
        return found

    def _decode(self, encoded: list[bytes], images: list[Any] | None) -> list[Any]:
        if not encoded:
            return []
        streams = [self._codec.CodeStream(data) for data in encoded]
        reuse = {} if images is None else {"images": images}
        return list(self._decoder.decode(streams, params=self._params, cuda_stream=self._stream, **reuse))


def _gpu_backends(codec: Any, hw_decoder_load: float) -> list[Any]:
    """Return nvImageCodec's backends for a GPU, in the order in which they are asked."""
    kinds = codec.BackendKind
    backends = [codec.Backend(kinds.HW_GPU_ONLY, load_hint=hw_decoder_load)] if hw_decoder_load > 0 else []
    # What neither takes (arithmetic coding, say) comes back as None and goes to the host.
    return [*backends, codec.Backend(kinds.GPU_ONLY), codec.Backend(kinds.HYBRID_CPU_GPU)]
