"""The ops on CuPy arrays: one launcher per kernel, no policy. What they do is said in `gpuseq.ops.dispatch`.

Everything is enqueued on CuPy's current stream of the current device, and nothing here synchronises the host. A launch
is prepared without a look at single samples: the host's time grows with the batch by a few vector operations only.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gpuseq.base.arguments import warn
from gpuseq.base.types import Array
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.ops.table import FILL_MODES, NUM_COLUMNS, OUT_KINDS, PREPROCESSING, fill_table, needs_range
from gpuseq.plan.columns import is_at_rest

from . import compile as kernels
from . import memory as device
from .resize import resize

__all__ = ["augment", "launches", "resize", "standardize", "warp_spline", "whiten"]

MAX_SAMPLE_VALUES = 2**31
"""Positions within a sample are 32-bit in the kernels."""

MAX_GRID_Y = 65535
MAX_BLOCK = 256
MAX_BAND_ROWS = 64
MAX_STAGED_CHANNELS = 16
MIN_SEGMENT_BYTES = 32
"""Least length of what a group of threads writes in one go: a sector of the second-level cache."""

BLOCKS_AT_ONCE = 660
"""Blocks that run at the same time on the largest of today's GPUs: 132 multiprocessors, five on each."""

PREPARATION = 3
"""What a block does before its first pixel and after its last, counted in pixels of one thread."""

FOLD = 1
"""What it takes to fold the range of one band of its sample, counted in the same."""

_SOURCE_TYPES = {
    np.dtype(np.uint8): "unsigned char",
    np.dtype(np.uint16): "unsigned short",
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
}


@dataclass(frozen=True)
class _Variant:
    """What of a call decides which kernels run; worked out once per combination."""

    augment: kernels.Macros
    sample_range: kernels.Macros | None
    sample_moments: kernels.Macros | None
    out_dtype: Any
    tile_cols: int  # threads that write a piece of a row together
    is_staged: bool  # the pixels of a group leave together, through shared memory
    pixel_bytes: int  # what a pixel takes in a row of the batch


@dataclass(frozen=True)
class _Geometry:
    """How a batch is cut into units of work; the answer does not depend on it."""

    grid: tuple[int, ...]
    block: int
    groups_across: int
    rows_per_band: int
    num_bands: int


def augment(
    images: Array,
    params: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: Array | None = None,
) -> Array:
    """CUDA twin of `gpuseq.ops.dispatch.augment`; the contract is written there.

    A ``bfloat16`` batch has the dtype of the `ml_dtypes` package, which CuPy 14 takes; without that package it is its
    bits as uint16.
    """
    return _run(images, params, options, indices, statistics, out)


def standardize(
    batch: Array, options: AugmentOptions, statistics: Statistics | None = None, *, out: Array | None = None
) -> Array:
    """CUDA twin of `gpuseq.ops.dispatch.standardize`; the contract is written there. `out` must not overlap `batch`."""
    return _run(batch, None, options, None, statistics, out)


def launches(options: AugmentOptions, source_dtype: np.dtype[Any]) -> list[str]:
    """Return the kernels that `augment` launches for images of a dtype, in order; nothing of CUDA is asked."""
    is_measured = options.samplewise_center or options.samplewise_std
    first = [("sample_range", needs_range(options, source_dtype)), ("sample_moments", is_measured)]
    return [*(name for name, is_launched in first if is_launched), "augment"]


def whiten(batch: Array, matrix: Array) -> Array:
    """CUDA twin of `gpuseq.ops.dispatch.whiten`; the contract is written there."""
    matrix = device.to_device(matrix).astype(batch.dtype, copy=False)
    return (batch.reshape(len(batch), -1) @ matrix).reshape(batch.shape)


def warp_spline(images: Array, params: np.ndarray, options: AugmentOptions) -> Array:
    """CUDA twin of `gpuseq.ops.numpy.affine.warp_spline`, by ``cupyx.scipy.ndimage``; the contract is written there.

    One chain of launches per plane, in double as SciPy's. CuPy adds the offset last where SciPy adds it first, so the
    two agree to rounding but not to the bit: where the fill mode is constant or wrap, a pixel that lies exactly on the
    border may fall to the other side of it. With orders 4 and 5 values 0.04 of 255 apart have been seen, on images of a
    few pixels. CuPy compiles these kernels for each size of image. Integers are rounded here: cupyx lets what
    overshoots wrap around, where SciPy stops at 0 and 255.
    """
    import cupy
    from cupyx.scipy import ndimage

    from gpuseq.ops.numpy.affine import inverse_maps

    _warn_of_splines()
    channel_axis = 3 if options.source_format == "channels_last" else 1
    out = images.astype(np.uint8 if options.round_affine else options.compute_dtype)
    out_nchw = out.transpose(0, 3, 1, 2) if channel_axis == 3 else out
    _, num_channels, height, width = out_nchw.shape
    maps_n23 = inverse_maps(params, height, width, options.conventions)
    device_maps = device.to_device(maps_n23)
    # Launch by launch from Python: splines are rare (see `_warn_of_splines`), and samples at rest are left out.
    for sample in np.flatnonzero(~is_at_rest(params, "affine")).tolist():
        for channel in range(num_channels):
            plane = ndimage.affine_transform(
                out_nchw[sample, channel].astype(np.float64),
                device_maps[sample, :, :2],
                tuple(maps_n23[sample, :, 2]),
                order=options.order,
                mode=options.fill_mode,
                cval=options.cval,
            )
            out_nchw[sample, channel] = cupy.clip(cupy.floor(plane + 0.5), 0, 255) if options.round_affine else plane
    return out


@cache
def _warn_of_splines() -> None:
    """Say what splines cost on a GPU, once in a process."""
    warn(
        "interpolation_order 2 to 5 on a GPU goes through cupyx: plane by plane, compiled anew for each size of image, "
        "and with fill_mode 'constant' or 'wrap' not SciPy's where a pixel lies exactly on the border. The fused "
        "kernel takes interpolation_order=1"
    )


def _run(
    images: Array,
    params: np.ndarray | None,
    options: AugmentOptions,
    indices: np.ndarray | None,
    statistics: Statistics | None,
    out: Array | None,
) -> Array:
    """Launch the reductions that are needed, then the fused kernel; without `params` only the standardisation."""
    if images.dtype not in _SOURCE_TYPES:
        # Masks of other integers, for instance: the kernels read four dtypes.
        images = images.astype(options.compute_dtype)
    images = device.contiguous(images)
    if options.source_format == "channels_last":
        height, width, channels = images.shape[1:]
    else:
        channels, height, width = images.shape[1:]
    if height * width * channels >= MAX_SAMPLE_VALUES:
        raise ValueError(
            f"an image of {height} x {width} x {channels} values is too large for the GPU, which counts them with 31 "
            'bits: resize it, or take device="cpu"'
        )
    num_samples = len(images) if params is None else len(params)
    mean = statistics.mean if statistics is not None and options.featurewise_center else None
    std = statistics.std if statistics is not None and options.featurewise_std else None
    variant = _variant(options, images.dtype, channels, params is not None, mean is not None, std is not None)
    if out is None:
        last = options.data_format == "channels_last"
        shape = (num_samples, height, width, channels) if last else (num_samples, channels, height, width)
        out = device.empty(shape, variant.out_dtype)
    # A grid of no blocks is an error of CUDA.
    if out.size == 0:
        return out

    table = None
    if params is not None:
        table = device.upload((num_samples, NUM_COLUMNS), np.float64, lambda rows: fill_table(rows, params, indices))
    mean_c = divisor_c = None
    if mean is not None or std is not None:
        assert statistics is not None
        mean_c, divisor_c = constants(statistics, options.compute_dtype)
    # One geometry for all three kernels: `augment` folds the partial results of the bands that the other two wrote.
    geometry = _geometry(num_samples, height, width, variant.tile_cols, variant.sample_range is not None)
    grid, block = geometry.grid, geometry.block
    bands = (num_samples, geometry.num_bands)
    tiling = (geometry.rows_per_band, geometry.num_bands, geometry.groups_across.bit_length() - 1)
    sizes = (num_samples, len(images), height, width, channels, *tiling)
    cval, rescale = options.cval, options.rescale
    # In this order, on one stream: moments follow from colours, and colours from ranges.
    ranges = moments = None
    if variant.sample_range is not None:
        ranges = device.empty((*bands, 2), np.float64)
        kernels.load("sample_range", variant.sample_range).launch(grid, block, (images, table, ranges, *sizes, cval))
    if variant.sample_moments is not None:
        moments = device.empty((*bands, 3), np.float64)
        arguments = (images, table, ranges, moments, *sizes, cval, rescale)
        kernels.load("sample_moments", variant.sample_moments).launch(grid, block, arguments)
    kernels.load("augment", variant.augment).launch(
        grid,
        block,
        (images, table, ranges, moments, mean_c, divisor_c, out, *sizes, cval, rescale),
        shared_bytes=variant.pixel_bytes * block if variant.is_staged else 0,
    )
    return out


# Looked up by the options themselves, since a batch of 256 leaves the host some 100 us: 1 ms of Python would cap
# everything at 256,000 images a second.
@lru_cache(maxsize=256)
def _variant(
    options: AugmentOptions, source_dtype: np.dtype[Any], channels: int, has_table: bool, has_mean: bool, has_std: bool
) -> _Variant:
    """Turn a call's constants into the macros of its kernels."""
    has_shift = has_table and options.has_channel_shift
    has_brightness = has_table and options.has_brightness
    has_affine = has_table and options.has_affine
    has_range = has_table and needs_range(options, source_dtype)
    has_moments = options.samplewise_center or options.samplewise_std
    # Whatever a call does not need stays out of its macros, so that calls which differ in it share a variant.
    out_channels_last = options.data_format == "channels_last"
    finished = out_dtype(options.dtype)
    pixel_bytes = finished.itemsize * (channels if out_channels_last else 1)
    # Channels first and in 8 bits a tile of eight columns would write 8 bytes at a time, and the cache takes a sector.
    tile_cols = 8
    while tile_cols < 32 and tile_cols * pixel_bytes < MIN_SEGMENT_BYTES:
        tile_cols *= 2
    shape = {
        "SOURCE_T": _SOURCE_TYPES[source_dtype],
        "COMPUTE_T": "double" if options.compute_dtype == np.float64 else "float",
        "CHANNELS": channels if channels <= MAX_STAGED_CHANNELS else 0,
        "SOURCE_CHANNELS_LAST": int(options.source_format == "channels_last"),
        "TILE_COLS": tile_cols,
        "HAS_TABLE": int(has_table),
        "HAS_AFFINE": int(has_affine),
    }
    if has_affine:
        shape |= {
            "ORDER": options.order,
            "FILL_MODE": FILL_MODES[options.fill_mode],
            "CORRECTED": int(options.conventions == "corrected"),
            "ROUND_AFFINE": int(options.round_affine),
        }
        # The two pixels of a row that a blend reads are neighbours: two or three aligned loads for six or eight bytes.
        if source_dtype == np.uint8 and channels in (3, 4) and options.source_format == "channels_last":
            shape["IN_WORDS"] = int(options.order == 1)
    colour = shape | {
        "HAS_FLIP": int(has_table and options.has_flip),
        "HAS_RANGE": int(has_range),
        "HAS_CHANNEL_SHIFT": int(has_shift),
        "HAS_BRIGHTNESS": int(has_brightness),
        "PREPROCESS": PREPROCESSING[options.preprocessing],
        "HAS_RESCALE": int(options.rescale != 1.0),
    }
    finish = colour | {
        "OUT_KIND": OUT_KINDS[options.dtype],
        "OUT_CHANNELS_LAST": int(out_channels_last),
        "SAMPLEWISE_CENTER": int(options.samplewise_center),
        "SAMPLEWISE_STD": int(options.samplewise_std),
        "FEATUREWISE_CENTER": int(has_mean),
        "FEATUREWISE_STD": int(has_std),
    }
    # Pixels of several channels are interleaved in the batch: written straight from registers each store of a warp
    # would touch every sector several times.
    is_staged = out_channels_last and 1 < channels <= MAX_STAGED_CHANNELS
    return _Variant(
        augment=_macros(finish),
        # Flips change neither minimum nor maximum; without them fewer variants are compiled.
        sample_range=_macros(shape | {"HAS_FLIP": 0}) if has_range else None,
        sample_moments=_macros(colour) if has_moments else None,
        out_dtype=finished,
        tile_cols=tile_cols,
        is_staged=is_staged,
        pixel_bytes=pixel_bytes,
    )


def _macros(values: dict[str, Any]) -> kernels.Macros:
    return tuple((name, str(value)) for name, value in values.items())


def out_dtype(name: str) -> Any:
    if name != "bfloat16":
        return np.dtype(name)
    # NumPy has no bfloat16; CuPy takes that of ml_dtypes.
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        return np.dtype(np.uint16)
    return np.dtype(ml_dtypes.bfloat16)


@lru_cache(maxsize=1024)
def _geometry(num_samples: int, height: int, width: int, tile_cols: int, has_range: bool) -> _Geometry:
    """Cut a batch into bands of as many rows as finish it soonest.

    High bands do the least work. Where the blocks do not all run at once, the next one begins as soon as there is room
    for it, and the last ones leave part of the GPU idle for about half of what a block takes. Where a sample's range is
    folded, each block reads that of every band.
    """
    # A row of a narrow image leaves threads idle, so the other groups of the block take further rows.
    groups_across = 1
    while tile_cols * groups_across < min(width, 32):
        groups_across *= 2
    step_rows = MAX_BLOCK // tile_cols // groups_across
    cols = -(-width // (tile_cols * groups_across))

    def duration(rows: int) -> float:
        bands = -(-height // rows)
        preparation = PREPARATION + FOLD * bands * has_range
        block = rows // step_rows * cols + preparation
        if num_samples * bands <= BLOCKS_AT_ONCE:
            return block
        return num_samples * (-(-height // step_rows) * cols + bands * preparation) / BLOCKS_AT_ONCE + block / 2

    rows_per_band = min(range(step_rows, MAX_BAND_ROWS + 1, step_rows), key=duration)
    num_bands = -(-height // rows_per_band)
    # CUDA allows 65,535 blocks in y; the kernel goes on in strides.
    grid = (num_bands, min(num_samples, MAX_GRID_Y))
    return _Geometry(grid, MAX_BLOCK, groups_across, rows_per_band, num_bands)


_constants_of: weakref.WeakKeyDictionary[Statistics, dict[Any, tuple[Array | None, Array | None]]] = (
    weakref.WeakKeyDictionary()
)


def constants(statistics: Statistics, dtype: np.dtype[Any]) -> tuple[Array | None, Array | None]:
    """Return mean and std + 1e-6 on the device, uploaded once for each device, stream and dtype."""
    known = _constants_of.setdefault(statistics, {})
    # A weak key: `Statistics` are frozen, so what was uploaded of one holds for as long as it lives.
    key = (*device.place_key(), dtype)
    if key not in known:
        mean, std = statistics.mean, statistics.std
        known[key] = (
            None if mean is None else device.to_device(mean.astype(dtype).ravel()),
            None if std is None else device.to_device(std.astype(dtype).ravel() + dtype.type(1e-6)),
        )
    return known[key]
