"""Programs on the compiled engine: each sample's steps, normalisation and erasing, while it lies in the cache."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.crops import cropped
from gpuseq.ops.listing import BLUR, CONTRAST, EQUALIZE, MAX_SIDE, Steps, steps_of
from gpuseq.ops.looks import LOOKS, Looks
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.numpy.affine import scratch
from gpuseq.ops.numpy.augment import empty_batch
from gpuseq.ops.numpy.erase import normal_quantiles
from gpuseq.ops.numpy.program import erase_rectangles, run_geometry
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.ops.segments import fill_in, spans

from .augment import CALL_PIXELS, SOLO_PIXELS, finishing
from .library import ProgramJob, chosen
from .resize import resize

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
    looks: Looks | None = None,
) -> np.ndarray:
    """Compiled twin of `gpuseq.ops.dispatch.run_program`; maps that it cannot count are left to NumPy.

    An image that a first step looks at is looked at for all of `~gpuseq.ops.looks.LOOKS` then, if its looks are kept.
    """
    images_nhwc = images if options.source_format == "channels_last" else images.transpose(0, 2, 3, 1)
    try:
        images_nhwc, own, rows = cropped(images_nhwc, program, indices, resize)
        steps = _listed(own, images_nhwc)
    # Refused before `out` is written to, so NumPy makes the whole batch: on the host there is always an engine that
    # can.
    except DeviceError:
        return numpy_program.run_program(images, program, options, indices=indices, statistics=statistics, out=out)
    height, width, channels = images_nhwc.shape[1:]
    if options.preprocessing in ("caffe", "torch") and channels != 3:
        raise ValueError(
            f"preprocessing {options.preprocessing!r} is defined for 3 channels; the images have {channels}"
        )
    if out is None:
        out = empty_batch(len(program), height, width, channels, options)
    if out.size == 0:
        return out
    # The library writes whole images one behind the other, and knows no strides of a batch.
    batch = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    rows = np.arange(len(batch)) if rows is None else np.ascontiguousarray(rows, np.int64)
    learned = None
    # The rows of crops are those of other images.
    if looks is not None and own is program:
        fill_in(steps, None, looks.about(rows))
        learned = _learning(steps, looks.stay(rows))
    _run(images_nhwc, steps, rows, options, statistics, batch, learned)
    if looks is not None and learned is not None:
        colours = 1 if channels == 1 else 3
        looks.learn(rows[learned.places >= 0], lambda: learned.tables[:, :, :colours])
    if batch is not out:
        out[...] = batch
    return out


def _listed(program: np.ndarray, images_nhwc: np.ndarray) -> Steps:
    """Return the steps, or refuse what this engine has not."""
    height, width, channels = images_nhwc.shape[1:]
    if channels > MAX_CHANNELS or max(height, width) >= MAX_SIDE:
        raise DeviceError(f"the compiled engine does no steps on {height} x {width} x {channels} values")
    return steps_of(program, height, width, channels)


class _Learned(NamedTuple):
    """Where the library writes tables of looks for later batches."""

    places: np.ndarray  # (N,), int64: the row of `tables` for each sample; -1 where it learns nothing
    tables: np.ndarray  # (L, 3, 3, 256), in the order of `LOOKS`


def _learning(steps: Steps, stay: np.ndarray) -> _Learned | None:
    """Return room for what is seen by first steps that look at images which stay; None where none does."""
    is_first = np.ones(len(steps.sample), bool)
    np.not_equal(steps.sample[1:], steps.sample[:-1], out=is_first[1:])
    codes = steps.numbers[:, 0]
    samples = steps.sample[is_first & (codes >= CONTRAST) & (codes <= EQUALIZE) & stay[steps.sample]]
    if not len(samples):
        return None
    places = np.full(steps.num_samples, -1)
    places[samples] = np.arange(len(samples))
    return _Learned(places, np.empty((len(samples), len(LOOKS), 3, 256), np.uint8))


def _run(
    images_nhwc: np.ndarray,
    steps: Steps,
    rows: np.ndarray,
    options: AugmentOptions,
    statistics: Statistics | None,
    batch: np.ndarray,
    learned: _Learned | None,
) -> None:
    """Do the listed steps of each sample, and standardise it at once; `batch` is written to."""
    instruction_set = chosen()
    assert instruction_set is not None, "whoever calls this has asked `chosen` first"
    height, width, channels = images_nhwc.shape[1:]
    num_samples = len(batch)
    samples = np.zeros((num_samples, 4), np.int64)
    if len(steps.sample):
        samples[:, 0], samples[:, 1] = spans(steps.sample, num_samples)
    if len(steps.erases_of):
        samples[:, 2], samples[:, 3] = spans(steps.erases_of, num_samples)
    # Only for noise: making the table takes longer than a batch.
    quantiles = normal_quantiles() if len(steps.erases) and steps.erases[:, 8].any() else None
    job = ProgramJob(
        *(images_nhwc.ctypes.data, *images_nhwc.strides, rows.ctypes.data, samples.ctypes.data),
        # To ask for an address takes a microsecond, so nobody asks for that of nothing.
        *(
            array.ctypes.data if len(array) else None
            for array in (steps.numbers, steps.tables, steps.lines, steps.weights, steps.erases)
        ),
        None if quantiles is None else quantiles.ctypes.data,
        *((None, None) if learned is None else (learned.places.ctypes.data, learned.tables.ctypes.data)),
        *(height, width, channels),
        # The two steps that take more scratch memory: without them none of it is asked for.
        *(bool((steps.numbers[:, 0] == BLUR).any()), steps.has_mixes),
    )
    finish, held = finishing((height, width, channels), options, statistics, batch)
    number, functions = instruction_set.number, instruction_set.functions
    address, finish_address = ctypes.addressof(job), ctypes.addressof(finish)
    scratch_bytes = functions.gpuseq_program_scratch(number, address, finish_address)
    # To wake a thread takes longer than so little work.
    num_threads = 1 if num_samples * height * width <= SOLO_PIXELS else cpu_count()
    # A few calls for each thread even out what programs take, and none is so long that Ctrl-C has to wait for it.
    per_call = max(1, min(4 * CALL_PIXELS // (height * width), -(-num_samples // (4 * num_threads))))

    # A job holds addresses, which keep nothing alive: `_held` does.
    def call(part: int, _held: object = (images_nhwc, steps, rows, samples, job, finish, held, batch, learned)) -> None:
        room = scratch("program", (scratch_bytes,), np.uint8)
        first = part * per_call
        last = min(first + per_call, num_samples)
        functions.gpuseq_program(number, address, finish_address, first, last, room.ctypes.data)

    for_each(call, -(-num_samples // per_call), num_threads)
