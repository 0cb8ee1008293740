"""Programs on the compiled engine: one call of the library for each sample, then the batch's normalisation."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np

from gpuseq.base.machine import cpu_count
from gpuseq.base.threads import for_each
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.numpy.affine import scratch
from gpuseq.ops.numpy.program import erase_rectangles, run_geometry
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.ops.segments import Segments, listed

from .augment import standardize
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
    segments = listed(program, height, width, channels) if channels <= MAX_CHANNELS else None
    if segments is None:
        return numpy_program.run_program(images, program, options, indices=indices, statistics=statistics, out=out)
    levels = np.empty((len(program), height, width, channels), np.uint8)
    _run_steps(images_nhwc, segments, indices, levels)
    batch = standardize(levels, replace(options, source_format="channels_last"), statistics, out=out)
    erase_rectangles(batch, program, options.data_format)
    return batch


def _run_steps(
    images_nhwc: np.ndarray, segments: Segments, indices: np.ndarray | None, levels_nhwc: np.ndarray
) -> None:
    """Do the listed steps of each sample; `levels_nhwc` is written to."""
    instruction_set = chosen()
    assert instruction_set is not None, "whoever calls this has asked `chosen` first"
    functions, number = instruction_set.functions, instruction_set.number
    _, height, width, channels = levels_nhwc.shape
    first_steps, num_steps = (
        segments.samples[:, 2].astype(np.int64).tolist(),
        segments.samples[:, 3].astype(int).tolist(),
    )
    row_stride, col_stride, channel_stride = images_nhwc.strides[1:]
    tables, lines, weights = (array.ctypes.data for array in (segments.tables, segments.lines, segments.weights))
    steps, step_bytes = segments.steps.ctypes.data, segments.steps.strides[0]
    source, source_bytes = images_nhwc.ctypes.data, images_nhwc.strides[0]
    target, target_bytes = levels_nhwc.ctypes.data, levels_nhwc.strides[0]

    def work_on(sample: int) -> None:
        row = sample if indices is None else int(indices[sample])
        job = ProgramJob(
            *(source + row * source_bytes, row_stride, col_stride, channel_stride),
            *(target + sample * target_bytes, steps + first_steps[sample] * step_bytes, tables, lines, weights),
            *(num_steps[sample], height, width, channels),
        )
        address = ctypes.addressof(job)
        room = scratch("program", (functions.gpuseq_program_scratch(number, address),), np.uint8)
        functions.gpuseq_program(number, address, room.ctypes.data)

    if levels_nhwc.size:
        for_each(work_on, len(levels_nhwc), cpu_count())
