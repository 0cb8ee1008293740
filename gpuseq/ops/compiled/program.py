"""Programs on the compiled engine: each sample's steps and its normalisation, one after the other, in the cache."""

from __future__ import annotations

import ctypes

import numpy as np

from gpuseq.base.devices import aligned_empty
from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.numpy.affine import scratch
from gpuseq.ops.numpy.program import erase_rectangles, run_geometry
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.ops.segments import Segments, listed

from .augment import finisher
from .library import ProgramJob, chosen

__all__ = ["erase_rectangles", "run_geometry", "run_program"]

MAX_CHANNELS = 16


def run_program(
    images: np.ndarray,
    program: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Compiled twin of `gpuseq.ops.dispatch.run_program`; AugMix and crops are done by NumPy, to the same bits."""
    images_nhwc = images if options.source_format == "channels_last" else images.transpose(0, 2, 3, 1)
    height, width, channels = images_nhwc.shape[1:]
    # Past MAX_CHANNELS a pixel does not fit the library's arrays.
    segments = listed(program, height, width, channels) if channels <= MAX_CHANNELS else None
    if segments is None:
        return numpy_program.run_program(images, program, options, indices=indices, statistics=statistics, out=out)
    if options.preprocessing in ("caffe", "torch") and channels != 3:
        raise ValueError(
            f"preprocessing {options.preprocessing!r} is defined for 3 channels; the images have {channels}"
        )
    num_samples, last = len(program), options.data_format == "channels_last"
    if out is None:
        shape = (num_samples, height, width, channels) if last else (num_samples, channels, height, width)
        out = aligned_empty(shape, options.dtype)
    if out.size == 0:
        return out
    batch = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    _run(images_nhwc, segments, indices, options, statistics, batch)
    # After the pool, by NumPy: rectangles are few, and are in units of the finished batch.
    erase_rectangles(batch, program, options.data_format)
    if batch is not out:
        out[...] = batch
    return out


def _run(
    images_nhwc: np.ndarray,
    segments: Segments,
    indices: np.ndarray | None,
    options: AugmentOptions,
    statistics: Statistics | None,
    batch: np.ndarray,
) -> None:
    """Do the listed steps of each sample, and standardise it at once; `batch` is written to."""
    instruction_set = chosen()
    assert instruction_set is not None, "callers ask `chosen` first"
    functions, number = instruction_set.functions, instruction_set.number
    height, width, channels = images_nhwc.shape[1:]
    row_stride, col_stride, channel_stride = images_nhwc.strides[1:]
    is_tight = (row_stride, col_stride, channel_stride) == (width * channels, channels, 1)
    first_steps, num_steps = segments.samples[:, 2:4].astype(np.int64).T.tolist()
    tables, lines, weights = (array.ctypes.data for array in (segments.tables, segments.lines, segments.weights))
    steps, step_bytes = segments.steps.ctypes.data, segments.steps.strides[0]
    source, source_bytes = images_nhwc.ctypes.data, images_nhwc.strides[0]
    finish = finisher(instruction_set, (height, width, channels), options, statistics, batch)

    def work_on(sample: int) -> None:
        image = source + (sample if indices is None else int(indices[sample])) * source_bytes
        # Nothing to do, and already as `finish` reads it: the copy is spared.
        if is_tight and not num_steps[sample]:
            finish(sample, image)
            return
        # uint8 levels of one image between the steps and the normalisation, which reads them while they are in the
        # cache.
        levels = scratch("levels", (height, width, channels), np.uint8).ctypes.data
        job = ProgramJob(
            *(image, row_stride, col_stride, channel_stride, levels),
            *(steps + first_steps[sample] * step_bytes, tables, lines, weights),
            *(num_steps[sample], height, width, channels),
        )
        address = ctypes.addressof(job)
        room = scratch("program", (functions.gpuseq_program_scratch(number, address),), np.uint8)
        functions.gpuseq_program(number, address, room.ctypes.data)
        finish(sample, levels)

    for_each(work_on, len(batch), cpu_count())
