"""nvImageCodec on the CPU: encoded buffers in, arrays out, None for each that failed. Imported at first use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .compat import require
from .decode_routes import Layout

__all__ = ["check", "decode_host", "params", "parses"]

_local = threading.local()


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
        Whole image files that `gpuseq.decode_routes.route` lets through.
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
    images = _decoder(codec, num_threads).decode(list(encoded), params=params(codec, layout))
    return [_to_host(image) for image in images]


def parses(encoded: bytes) -> bool:
    """Return whether nvImageCodec finds a header, and the chunks it needs, in an encoded image (some microseconds).

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    """
    codec = check()
    try:
        stream = codec.CodeStream(encoded)
        return bool(stream.height and stream.width)
    except RuntimeError:
        return False


def _to_host(image: Any) -> np.ndarray | None:
    if image is None:
        return None
    pixels = np.asarray(image.cpu())
    return pixels if pixels.dtype == np.uint8 and pixels.ndim == 3 else None


def _decoder(codec: Any, num_threads: int) -> Any:
    decoders = _local.__dict__.setdefault("decoders", {})
    if num_threads not in decoders:
        # Both are needed: without the backend list the constructor still looks for a driver.
        decoders[num_threads] = codec.Decoder(
            device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
            max_num_cpu_threads=num_threads,
            backends=[codec.Backend(codec.BackendKind.CPU_ONLY)],
        )
    return decoders[num_threads]


def params(codec: Any, layout: Layout) -> Any:
    """Return the decode parameters that agree with Pillow.

    Parameters
    ----------
    codec : module
        From `check`.
    layout : {"RGB", "RGBA"}
        Channels wanted.
    """
    color = codec.ColorSpec.SRGB if layout == "RGB" else codec.ColorSpec.UNCHANGED
    return codec.DecodeParams(apply_exif_orientation=False, color_spec=color, allow_any_depth=False)
