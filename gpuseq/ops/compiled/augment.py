"""The ops of the compiled engine: one job a batch, cut into units of work for the kept threads.

A unit is a band of rows of a sample, or a whole sample where something of it is reduced first; a call of the library
takes several. Where there are fewer such samples than threads, and large ones, the threads share them in stages. The
library allocates nothing: each thread lends it its own scratch memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.numpy.affine import scratch, warp_spline
from gpuseq.ops.numpy.augment import empty_batch, whiten
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.ops.table import FILL_MODES, NUM_COLUMNS, OUT_KINDS, PREPROCESSING, fill_table, needs_range

from .library import InstructionSet, Job, chosen
from .resize import resize

__all__ = ["CALL_PIXELS", "SOLO_PIXELS", "augment", "finishing", "resize", "standardize", "warp_spline", "whiten"]

SOLO_PIXELS = 1 << 15
"""Pixels of a batch that one thread does alone: to wake another takes longer."""

CALL_PIXELS = 1 << 17
"""Pixels that one call of the library takes, about: Ctrl-C takes effect between two of them."""

SHARED_PIXELS = 1 << 18
"""Pixels of a sample from which on threads share it, where something of it is reduced: each stage waits for all."""

STREAMED_BYTES = 8 << 20
"""A batch of more leaves past the caches: it would only push the sources out of them."""

_SOURCE_KINDS = {np.dtype(name): kind for kind, name in enumerate(("uint8", "uint16", "float32", "float64"))}


def augment(
    images: np.ndarray,
    params: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Compiled twin of `gpuseq.ops.dispatch.augment`; the contract is written there."""
    return _run(images, params, options, indices, statistics, out)


def standardize(
    batch: np.ndarray, options: AugmentOptions, statistics: Statistics | None = None, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Compiled twin of `gpuseq.ops.dispatch.standardize`; the contract is written there."""
    return _run(batch, None, options, None, statistics, out)


def _run(
    images: np.ndarray,
    params: np.ndarray | None,
    options: AugmentOptions,
    indices: np.ndarray | None,
    statistics: Statistics | None,
    out: np.ndarray | None,
) -> np.ndarray:
    instruction_set = chosen()
    assert instruction_set is not None, "callers ask `chosen` first"
    if images.dtype not in _SOURCE_KINDS:
        # Masks of other integers, for instance: the library reads four dtypes.
        images = images.astype(options.compute_dtype)
    images = np.ascontiguousarray(images)
    if options.source_format == "channels_last":
        height, width, channels = images.shape[1:]
    else:
        channels, height, width = images.shape[1:]
    if options.preprocessing in ("caffe", "torch") and channels != 3:
        # NumPy would refuse the shapes by itself; the library reads three constants whatever there is.
        raise ValueError(
            f"preprocessing {options.preprocessing!r} is defined for 3 channels; the images have {channels}"
        )
    num_samples = len(images) if params is None else len(params)
    if out is None:
        out = empty_batch(num_samples, height, width, channels, options)
    if out.size == 0:
        return out
    # The library counts positions and knows no strides of the batch.
    target = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)

    dtype, has_table = options.compute_dtype, params is not None
    table = mean = divisor = None
    if params is not None:
        table = np.empty((num_samples, NUM_COLUMNS))
        fill_table(table, params, indices)
    if statistics is not None and options.featurewise_center and statistics.mean is not None:
        mean = _by_channel(statistics.mean.astype(dtype), channels)
    if statistics is not None and options.featurewise_std and statistics.std is not None:
        divisor = _by_channel(statistics.std.astype(dtype) + dtype.type(1e-6), channels)
    has_range = has_table and needs_range(options, images.dtype)
    is_reduced = has_range or options.samplewise_center or options.samplewise_std
    num_threads = 1 if num_samples * height * width <= SOLO_PIXELS else cpu_count()
    # A sample that is reduced is one unit, or is shared in stages, each of which has to wait for the one before.
    is_shared = is_reduced and num_samples < num_threads and height * width >= SHARED_PIXELS
    if is_shared:
        rows_per_unit = _shared_rows(num_samples, height, width, num_threads)
    else:
        rows_per_unit = height if is_reduced else _rows_per_unit(num_samples, height, width, num_threads)
    job = Job(
        *(_address(images), _address(table), _address(target), _address(mean), _address(divisor), None),
        *(options.cval, options.rescale),
        *(num_samples, height, width, channels),
        *(_SOURCE_KINDS[images.dtype], dtype == np.float64, OUT_KINDS[options.dtype]),
        *(options.source_format == "channels_last", options.data_format == "channels_last"),
        *(options.order, FILL_MODES[options.fill_mode], options.conventions == "corrected", options.round_affine),
        *(has_table and options.has_affine, has_table and options.has_flip),
        *(has_table and options.has_channel_shift, has_table and options.has_brightness, has_range),
        *(PREPROCESSING[options.preprocessing], options.samplewise_center, options.samplewise_std),
        *(target.nbytes > STREAMED_BYTES, rows_per_unit, 0),
    )
    kept = None
    if is_shared:
        sample_bytes = instruction_set.functions.gpuseq_augment_kept(instruction_set.number, ctypes.addressof(job))
        kept = scratch("shared", (num_samples, sample_bytes), np.uint8)
        job.kept = _address(kept)
    # A job holds addresses, which keep nothing alive.
    held = images, table, target, mean, divisor, kept
    num_bands = -(-height // rows_per_unit)
    for stage, num_parts in _stages(options, num_bands) if is_shared else [(0, num_bands)]:
        job.stage = stage
        num_units = num_samples * num_parts
        # At least one call for each thread, and no call so long that Ctrl-C has to wait for it.
        units_per_call = max(1, min(CALL_PIXELS // (rows_per_unit * width), -(-num_units // num_threads)))
        call = _caller(instruction_set, job, held, num_units, units_per_call)
        for_each(call, -(-num_units // units_per_call), num_threads)
    if target is not out:
        out[...] = target
    return out


def finishing(
    image_shape: tuple[int, int, int], options: AugmentOptions, statistics: Statistics | None, out: np.ndarray
) -> tuple[Job, tuple[Any, ...]]:
    """Return the job that standardises one uint8 image, channels last, into a batch; `program.cpp` says which image.

    Parameters
    ----------
    image_shape : (int, int, int)
        Rows, columns and channels.
    options, statistics
        As in `standardize`.
    out : numpy.ndarray
        The batch, C-contiguous; written to.

    Returns
    -------
    Job, tuple
        And what it points at, which has to live as long.
    """
    height, width, channels = image_shape
    dtype = options.compute_dtype
    mean = divisor = None
    if statistics is not None and options.featurewise_center and statistics.mean is not None:
        mean = _by_channel(statistics.mean.astype(dtype), channels)
    if statistics is not None and options.featurewise_std and statistics.std is not None:
        divisor = _by_channel(statistics.std.astype(dtype) + dtype.type(1e-6), channels)
    job = Job(
        out=_address(out),
        mean_c=_address(mean),
        divisor_c=_address(divisor),
        rescale=options.rescale,
        num_samples=1,
        height=height,
        width=width,
        channels=channels,
        source_kind=_SOURCE_KINDS[np.dtype(np.uint8)],
        is_double=dtype == np.float64,
        out_kind=OUT_KINDS[options.dtype],
        source_channels_last=True,
        out_channels_last=options.data_format == "channels_last",
        preprocess=PREPROCESSING[options.preprocessing],
        samplewise_center=options.samplewise_center,
        samplewise_std=options.samplewise_std,
        streams=out.nbytes > STREAMED_BYTES,
        rows_per_unit=height,
    )
    return job, (mean, divisor, out)


def _rows_per_unit(num_samples: int, height: int, width: int, num_threads: int) -> int:
    """Return whole samples where there are enough of them for all threads, else bands, a few for each thread."""
    if num_threads == 1 or (num_samples >= 4 * num_threads and height * width <= CALL_PIXELS):
        return height
    # Four units a thread even out what samples take; no band of less than 16 rows, which would repeat the preparation
    # of a unit too often.
    num_bands = max(-(-4 * num_threads // num_samples), -(-height * width // CALL_PIXELS))
    return max(1, min(height, max(16, -(-height // num_bands))))


def _shared_rows(num_samples: int, height: int, width: int, num_threads: int) -> int:
    """Return a power of two, so that sums of bands go on in the order of a whole sample: some two bands a thread."""
    wanted = min(num_samples * height // (2 * num_threads), CALL_PIXELS // width)
    return 1 << max(4, wanted.bit_length() - 1)


def _stages(options: AugmentOptions, num_bands: int) -> list[tuple[int, int]]:
    """Return the stages of samples that threads share, as ``kernels/host/job.h`` numbers them, and their bands."""
    centers, scales = options.samplewise_center, options.samplewise_std
    values, colours, gather_values, center, gather_centred, squares, gather_squares, batch = range(8)
    stages = [(values, num_bands), (colours, num_bands)]
    if centers or scales:
        stages.append((gather_values, 1))
    if centers:
        stages.append((center, num_bands))
    if centers and scales:
        stages.append((gather_centred, 1))
    if scales:
        stages += [(squares, num_bands), (gather_squares, 1)]
    return [*stages, (batch, num_bands)]


def _caller(
    instruction_set: InstructionSet, job: Job, held: tuple[Any, ...], num_units: int, units_per_call: int
) -> Callable[[int], None]:
    """Return what makes one part of a batch; it keeps alive what the job points at, though the caller may be gone."""
    number, functions = instruction_set.number, instruction_set.functions
    scratch_bytes = functions.gpuseq_augment_scratch(number, ctypes.addressof(job))

    # `held` is a default argument, so the arrays live as long as the function does, and not only as long as the call
    # that made the job.
    def call(part: int, _held: tuple[Any, ...] = held) -> None:
        room = scratch("compiled", (scratch_bytes,), np.uint8)
        first = part * units_per_call
        last = min(first + units_per_call, num_units)
        functions.gpuseq_augment(number, ctypes.addressof(job), first, last, room.ctypes.data)

    return call


def _by_channel(values: np.ndarray, channels: int) -> np.ndarray:
    # One value for all channels is repeated, as NumPy would broadcast it.
    return np.ascontiguousarray(np.broadcast_to(values.ravel(), (channels,)))


def _address(array: np.ndarray | None) -> Any:
    return None if array is None else array.ctypes.data
