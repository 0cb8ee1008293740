"""DALI's eager decoder on the CPU: encoded buffers in, arrays out, None for each that failed. Imported at first use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import decode_nvimgcodec
from .compat import require
from .decode_routes import Layout

__all__ = ["check", "decode_host"]

_local = threading.local()


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

    Notes
    -----
    A sample that DALI cannot parse, in a batch with one that it cannot decode, has been seen to abort the process
    (DALI 2.4, truncated PNG files). So nvImageCodec, which DALI installs and decodes with, parses each file first.
    """
    dynamic, types = check()
    results: list[np.ndarray | None] = [None] * len(encoded)
    sound = [index for index, data in enumerate(encoded) if decode_nvimgcodec.parses(data)]
    if not sound:
        return results
    decoded: list[np.ndarray | None] = [None] * len(sound)
    with _context(dynamic, num_threads):
        _decode_range(dynamic, types.RGB, [encoded[index] for index in sound], decoded, 0, len(sound))
    for index, image in zip(sound, decoded, strict=True):
        results[index] = image
    return results


def _decode_range(
    dynamic: Any, rgb: Any, encoded: Sequence[bytes], results: list[np.ndarray | None], begin: int, end: int
) -> None:
    # bytearray: DALI copies read-only arrays once more. Never output_type=ANY_DATA: a grey JPEG corrupts the heap.
    batch = dynamic.as_batch([np.frombuffer(bytearray(data), np.uint8) for data in encoded[begin:end]])
    try:
        images = dynamic.decoders.image(
            batch, device="cpu", output_type=rgb, adjust_orientation=False, jpeg_fancy_upsampling=True
        )
        results[begin:end] = [np.asarray(tensor) for tensor in images.tensors]
    except RuntimeError:
        # One bad sample makes DALI raise for the whole batch, mostly without saying which: halve until it is alone.
        if end - begin > 1:
            middle = (begin + end) // 2
            _decode_range(dynamic, rgb, encoded, results, begin, middle)
            _decode_range(dynamic, rgb, encoded, results, middle, end)


def _context(dynamic: Any, num_threads: int) -> Any:
    # One per thread, for life: a context cannot be active in two threads, and each keeps its decoder instances.
    contexts = _local.__dict__.setdefault("contexts", {})
    if num_threads not in contexts:
        contexts[num_threads] = dynamic.EvalContext(num_threads=num_threads)
    return contexts[num_threads]
