"""Pillow's resize in the compiled engine, from the tables that the other engines read too."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.numpy.affine import scratch
from gpuseq.ops.resample import LineTable, line_table, nearest_indices, vertical_first

from .library import InstructionSet, ResizeJob, chosen
from .library import LineTable as CLineTable

__all__ = ["resize", "resize_pixels"]


def resize(
    images: Sequence[np.ndarray],
    target_size: tuple[int, int],
    interpolation: str,
    *,
    boxes: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Compiled twin of `gpuseq.ops.dispatch.resize`; the contract is written there."""
    instruction_set = chosen()
    assert instruction_set is not None, "callers ask `chosen` first"
    if out is None:
        out = np.empty((len(images), *target_size, images[0].shape[2]), np.uint8)

    def work_on(sample: int) -> None:
        image = images[sample]
        # Rows may be any distance apart, as in a cropped view; within a row pixels lie side by side.
        image = image if image.strides[1:] == (image.shape[2], 1) else np.ascontiguousarray(image)
        box = None if boxes is None else tuple(map(float, boxes[sample]))
        target = out[sample]
        # The library writes rows one behind the other, and knows no strides of its target.
        whole = target if target.flags.c_contiguous else np.empty(target.shape, np.uint8)
        height, width, channels = image.shape
        pixels = (image.ctypes.data, image.strides[0], height, width, channels, channels)
        resize_pixels(instruction_set, pixels, whole, interpolation, box)
        if whole is not target:
            target[...] = whole

    for_each(work_on, len(images), cpu_count())
    return out


def resize_pixels(
    instruction_set: InstructionSet,
    pixels: tuple[int, int, int, int, int, int],
    out: np.ndarray,
    interpolation: str,
    box: tuple[float, ...] | None = None,
) -> None:
    """Resize one image wherever its pixels lie; releases the GIL.

    Parameters
    ----------
    instruction_set : InstructionSet
        From `chosen`.
    pixels : tuple of int
        Address of the first pixel, bytes from one row to the next, rows, columns, channels (1 to 4), and bytes from one
        pixel to the next; channels are 8-bit and lie side by side.
    out : numpy.ndarray
        Shape ``(rows, cols, channels)``, uint8, C-contiguous; written to.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter.
    box : tuple of float or None
        Left, upper, right, lower of the part to resize, as float32 values. None: the whole image.

    References
    ----------
    ``PIL.Image.Image.resize``.
    """
    address, pitch, *layout = pixels
    target_size = out.shape[:2]
    down_first = vertical_first(layout[0], layout[1], target_size)
    template, room_bytes, held = _template(instruction_set, *layout, *target_size, down_first, interpolation, box)
    # A copy: threads share the template, and this image's addresses go into it.
    job = ResizeJob.from_buffer_copy(template)
    job.source, job.source_pitch, job.target = address, pitch, out.ctypes.data
    # Lent by the thread: the library allocates nothing, so nothing of it can fail or leak in the middle.
    room = scratch("resize", (room_bytes,), np.uint8)
    instruction_set.functions.gpuseq_resize(instruction_set.number, ctypes.addressof(job), room.ctypes.data)
    del held  # what the job points at; another thread may push the template out of its cache meanwhile


# The files of a folder have few sizes, and to fill in a job costs a tenth of a small image's resize.
@lru_cache(maxsize=1024)
def _template(
    instruction_set: InstructionSet,
    height: int,
    width: int,
    channels: int,
    pixel_bytes: int,
    rows: int,
    cols: int,
    down_first: bool,
    interpolation: str,
    box: tuple[float, ...] | None,
) -> tuple[ResizeJob, int, list[object]]:
    """Return a job without its image's and its target's address, the bytes of room it needs, what it points at."""
    left, upper, right, lower = box or (0.0, 0.0, float(width), float(height))
    job = ResizeJob(
        height=height,
        width=width,
        channels=channels,
        pixel_bytes=pixel_bytes,
        target_rows=rows,
        target_cols=cols,
        down_first=down_first,
    )
    # Nothing to resize: the library copies, and leaves out the bytes that Pillow keeps beside three channels.
    is_whole = (left, upper, right, lower) == (0.0, 0.0, width, height) and (rows, cols) == (height, width)
    held: list[object] = []
    if interpolation == "nearest" and not is_whole:
        indices = nearest_indices(height, rows, upper, lower), nearest_indices(width, cols, left, right)
        # Indices for nearest and tables for the rest: which of them are there tells the library what to do.
        job.rows, job.cols = (array.ctypes.data for array in indices)
        held.append(indices)
    elif not is_whole:
        if cols != width or (left, right) != (0.0, width):
            held.append(table := line_table(width, cols, interpolation, left, right))
            job.across = _line_table(table)
        if rows != height or (upper, lower) != (0.0, height):
            held.append(table := line_table(height, rows, interpolation, upper, lower))
            job.down = _line_table(table)
    scratch_bytes = instruction_set.functions.gpuseq_resize_scratch
    return job, scratch_bytes(instruction_set.number, ctypes.addressof(job)), held


def _line_table(table: LineTable) -> CLineTable:
    taps, length = table.weights.shape
    return CLineTable(table.first.ctypes.data, table.count.ctypes.data, table.weights.ctypes.data, length, taps)
