"""DALI's eager decoder on the CPU: encoded buffers in, arrays out, None for each that failed. Imported at first use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .compat import require
from .decode_routes import Layout

__all__ = ["check", "decode_host"]

_local = threading.local()


def check() -> Any:
    """Import DALI's dynamic mode (1.5 s and some 300 MB, once).

    Raises
    ------
    MissingDependencyError
        If DALI is not installed, or too old to have a dynamic mode.
    """
    return require("nvidia.dali.experimental.dynamic", extra="dali", purpose='decoder="dali"')


def decode_host(encoded: Sequence[bytes], layout: Layout, num_threads: int) -> list[np.ndarray | None]:
    """Decode a batch on the CPU.

    Parameters
    ----------
    encoded : sequence of bytes
        Whole image files that `gpuseq.decode_routes.route` lets through.
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
    """
    dynamic = check()
    results: list[np.ndarray | None] = [None] * len(encoded)
    if not encoded:
        return results
    with _context(dynamic, num_threads):
        _decode_range(dynamic, encoded, results, 0, len(encoded))
    return results


def _decode_range(
    dynamic: Any, encoded: Sequence[bytes], results: list[np.ndarray | None], begin: int, end: int
) -> None:
    # One bad sample makes DALI raise for the whole batch, mostly without saying which: halve until it stands alone.
    try:
        results[begin:end] = _decode_batch(dynamic, encoded[begin:end])
    except Exception:
        if end - begin == 1:
            return
        middle = (begin + end) // 2
        _decode_range(dynamic, encoded, results, begin, middle)
        _decode_range(dynamic, encoded, results, middle, end)


def _decode_batch(dynamic: Any, encoded: Sequence[bytes]) -> list[np.ndarray]:
    # bytearray: DALI copies read-only arrays once more. Never output_type=ANY_DATA: a grey JPEG corrupts the heap.
    batch = dynamic.as_batch([np.frombuffer(bytearray(data), np.uint8) for data in encoded])
    images = dynamic.decoders.image(
        batch,
        device="cpu",
        output_type=dynamic.ImageType.RGB,
        adjust_orientation=False,
        jpeg_fancy_upsampling=True,
    )
    return [np.asarray(tensor) for tensor in images.tensors]


def _context(dynamic: Any, num_threads: int) -> Any:
    # One per thread, for life: a context cannot be active in two threads, and each keeps its decoder instances.
    contexts = _local.__dict__.setdefault("contexts", {})
    if num_threads not in contexts:
        contexts[num_threads] = dynamic.EvalContext(num_threads=num_threads)
    return contexts[num_threads]
