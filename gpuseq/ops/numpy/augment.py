"""The ops on NumPy: reference, fallback without a GPU, and oracle of the kernels.

Samples are worked on in groups of about `GROUP_PIXELS` pixels, planar (N, C, H, W), one group per thread at a time;
larger ones are warped in bands of rows of that size. NumPy releases the GIL in every step, and taking it back costs a
thread that shares it more than a cache miss does: several threads take larger steps than one, which stays within its
second-level cache.
"""

from __future__ import annotations

import contextlib
import math
import mmap

import numpy as np

from gpuseq.base.devices import ALIGNMENT
from gpuseq.base.forks import LINEAR_ALGEBRA, forks_wait
from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.options import AugmentOptions, Statistics

from .affine import inverse_maps, is_warped, scratch, warp, warp_spline
from .blocks import KEPT_BYTES, kept_block
from .resize import resize

__all__ = [
    "GROUP_PIXELS",
    "SOLO_GROUP_PIXELS",
    "augment",
    "empty_batch",
    "resize",
    "standardize",
    "standardize_into",
    "warp_spline",
    "whiten",
]

# Images a second of 224 x 224, measured: with two threads 891, where groups of 2^14 gave 649; with one thread 720 for
# 2^14, and 578 for 2^16.
GROUP_PIXELS = 1 << 16
"""With several threads."""

SOLO_GROUP_PIXELS = 1 << 14
"""With one."""

IMAGENET_BGR_MEAN = (103.939, 116.779, 123.68)
IMAGENET_RGB_MEAN = (0.485, 0.456, 0.406)
IMAGENET_RGB_STD = (0.229, 0.224, 0.225)


def augment(
    images: np.ndarray,
    params: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """NumPy twin of `gpuseq.ops.dispatch.augment`; the contract is written there."""
    planar_view = (0, 3, 1, 2) if options.source_format == "channels_last" else (0, 1, 2, 3)
    num_channels, height, width = (images.shape[axis] for axis in planar_view[1:])
    num_samples = len(params)
    # Gathered group by group within the threads, so that no copy of the whole batch is made.
    rows = np.arange(num_samples) if indices is None else indices
    if out is None:
        out = empty_batch(num_samples, height, width, num_channels, options)
    out_nchw = out.transpose(0, 3, 1, 2) if options.data_format == "channels_last" else out
    maps = inverse_maps(params, height, width, options.conventions) if options.has_affine else None
    identity = None if maps is None else ~is_warped(params)
    num_threads = cpu_count()
    group_pixels = GROUP_PIXELS if num_threads > 1 else SOLO_GROUP_PIXELS
    group = max(1, group_pixels // max(1, height * width))

    def work_on(number: int) -> None:
        part = slice(number * group, min((number + 1) * group, num_samples))
        source_nchw = images[rows[part]].transpose(planar_view)
        # Keras casts images to the compute dtype before it transforms them; the warp would otherwise start from more
        # digits.
        if source_nchw.dtype == np.float64 and options.compute_dtype == np.float32:
            source_nchw = source_nchw.astype(np.float32)
        work_nchw = scratch("work", source_nchw.shape, options.compute_dtype)
        at_rest = None if identity is None else identity[part]
        if at_rest is None or at_rest.any():
            _copy_flipped(source_nchw, work_nchw, params[part], at_rest, options)
        # Samples at rest were copied above, as Keras leaves them alone.
        if maps is not None and at_rest is not None and not at_rest.all():
            moving = np.flatnonzero(~at_rest)
            warp(source_nchw, work_nchw, moving, maps[part], params[part], options, group_pixels)
        _recolour(work_nchw, params[part], options)
        standardize_into(work_nchw, options, statistics, out_nchw[part])

    for_each(work_on, -(-num_samples // group), num_threads)
    return out


def empty_batch(num_samples: int, height: int, width: int, num_channels: int, options: AugmentOptions) -> np.ndarray:
    """Return a batch of any content on the host, whose memory frameworks take without a copy.

    Parameters
    ----------
    num_samples, height, width, num_channels : int
        N, H, W and C.
    options : AugmentOptions
        Its axis order and dtype.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)``, C-contiguous; begins at a multiple of
        `~gpuseq.base.devices.ALIGNMENT`.
    """
    last = options.data_format == "channels_last"
    shape = (num_samples, height, width, num_channels) if last else (num_samples, num_channels, height, width)
    dtype = np.dtype(options.dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    block = kept_block(num_bytes, _new_pages) if num_bytes in KEPT_BYTES else _new_block(num_bytes)
    batch: np.ndarray = block.view(dtype).reshape(shape)
    return batch


def _new_pages(num_bytes: int) -> np.ndarray:
    """As `_new_block`, on pages of its own, large ones where the system has them.

    What the C library hands out may lie on small pages that were something else's: to write a batch there takes up to a
    third longer.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return _new_block(num_bytes)
    try:
        # Private: of shared memory a forked process would write into the batch of its parent.
        pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for a batch of {num_bytes} bytes: {error}") from error
    # Only a wish: kernels without large pages refuse it.
    with contextlib.suppress(OSError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def _new_block(num_bytes: int) -> np.ndarray:
    # NumPy aligns to 16 bytes only. Enough is taken to shift the start; the view keeps the whole of it alive.
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + num_bytes]


def standardize(
    batch: np.ndarray, options: AugmentOptions, statistics: Statistics | None = None, *, out: np.ndarray | None = None
) -> np.ndarray:
    """NumPy twin of `gpuseq.ops.dispatch.standardize`; the contract is written there."""
    axes = (0, 3, 1, 2) if options.source_format == "channels_last" else (0, 1, 2, 3)
    source_nchw = batch.transpose(axes)
    if out is None:
        num_samples, num_channels, height, width = source_nchw.shape
        out = empty_batch(num_samples, height, width, num_channels, options)
    out_nchw = out.transpose(0, 3, 1, 2) if options.data_format == "channels_last" else out
    # A copy in any case: it is worked on in place.
    work_nchw = source_nchw.astype(options.compute_dtype)
    standardize_into(work_nchw, options, statistics, out_nchw)
    return out


def whiten(batch: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """NumPy twin of `gpuseq.ops.dispatch.whiten`; the contract is written there."""
    with forks_wait(LINEAR_ALGEBRA):
        whitened: np.ndarray = (batch.reshape(len(batch), -1) @ matrix).reshape(batch.shape)
    return whitened.astype(batch.dtype, copy=False)


def _copy_flipped(
    source_nchw: np.ndarray,
    work_nchw: np.ndarray,
    params: np.ndarray,
    chosen: np.ndarray | None,
    options: AugmentOptions,
) -> None:
    """Copy the samples that need no resampling, mirrored as their rows ask."""
    if not options.has_flip and chosen is None:
        work_nchw[...] = source_nchw
        return
    for sample in range(len(params)) if chosen is None else np.flatnonzero(chosen):
        rows = slice(None, None, -1 if params["flip_vertical"][sample] else 1)
        cols = slice(None, None, -1 if params["flip_horizontal"][sample] else 1)
        work_nchw[sample] = source_nchw[sample, :, rows, cols]


def _recolour(work_nchw: np.ndarray, params: np.ndarray, options: AugmentOptions) -> None:
    """Channel shift and brightness, in place. Flips before or after make no difference to either."""
    shifts, factors = params["channel_shift_intensity"], params["brightness"]
    shifted = options.has_channel_shift and not np.isnan(shifts).all()
    brightened = options.has_brightness and not np.isnan(factors).all()
    if not shifted and not brightened:
        return
    for sample, image_chw in enumerate(work_nchw):
        if shifted and not np.isnan(shifts[sample]):
            # Keras clips to the image's own range after the affine map, filled borders included.
            low, high = image_chw.min(), image_chw.max()
            image_chw += float(shifts[sample])
            np.clip(image_chw, low, high, out=image_chw)
        if brightened and not np.isnan(factors[sample]):
            _brighten(image_chw, float(factors[sample]))


def _brighten(image_chw: np.ndarray, factor: float) -> None:
    """Scale an image's colours by `factor` as Keras does through Pillow's 8-bit blend with black; alpha stays.

    References
    ----------
    ``apply_brightness_shift`` of Keras 3.15 with ``scale=False``; Pillow's ``ImageEnhance.Brightness``.
    """
    low, high = image_chw.min(), image_chw.max()
    # Keras stretches an image that is no picture of levels to 0..255 and back; the test is on its values, not its
    # dtype.
    stretch = low < 0 or high > 255
    levels = image_chw.astype(np.float32)
    if stretch:
        levels -= levels.min()
        top = levels.max()
        if top != 0:
            levels /= top
        levels *= 255
    # The blend with black is a function of one level: 256 products instead of one for each pixel.
    table = np.clip(np.float32(factor) * np.arange(256, dtype=np.float32), 0, 255).astype(np.uint8)
    colours = slice(0, 3) if len(image_chw) == 4 else slice(None)
    levels_u8 = levels.astype(np.uint8)
    levels_u8[colours] = table.take(levels_u8[colours])
    image_chw[...] = levels_u8
    if stretch:
        image_chw /= 255
        image_chw *= high - low
        image_chw += low


def standardize_into(
    work_nchw: np.ndarray, options: AugmentOptions, statistics: Statistics | None, out_nchw: np.ndarray
) -> None:
    """Take the steps from the preprocessing mode on, in Keras' order, and store. `work_nchw` is spent."""
    if options.preprocessing is not None:
        _preprocess(work_nchw, options.preprocessing)
    plain = not (
        options.samplewise_center or options.samplewise_std or options.featurewise_center or options.featurewise_std
    )
    # One pass instead of two: the product goes straight into the batch.
    if plain and out_nchw.dtype == work_nchw.dtype:
        if options.rescale == 1.0:
            np.copyto(out_nchw, work_nchw)
        else:
            np.multiply(work_nchw, work_nchw.dtype.type(options.rescale), out=out_nchw)
        return
    if options.rescale != 1.0:
        work_nchw *= work_nchw.dtype.type(options.rescale)
    if options.samplewise_center:
        work_nchw -= _means(work_nchw).astype(work_nchw.dtype)
    if options.samplewise_std:
        # Two passes, deviations from the mean: the difference of squares loses the digits of a bright, even image.
        offsets = np.subtract(work_nchw, _means(work_nchw), dtype=np.float64)
        deviation = np.sqrt(_means(np.square(offsets, out=offsets))).astype(work_nchw.dtype)
        work_nchw /= deviation + work_nchw.dtype.type(1e-6)
    if statistics is not None and options.featurewise_center and statistics.mean is not None:
        work_nchw -= statistics.mean.astype(work_nchw.dtype)[:, None, None]
    if statistics is not None and options.featurewise_std and statistics.std is not None:
        work_nchw /= (statistics.std.astype(work_nchw.dtype) + work_nchw.dtype.type(1e-6))[:, None, None]
    # A cast alone would wrap around: 256 becomes 0.
    if out_nchw.dtype == np.uint8:
        np.clip(work_nchw, 0, 255, out=work_nchw)
    np.copyto(out_nchw, work_nchw, casting="unsafe")


def _means(values_nchw: np.ndarray) -> np.ndarray:
    """Return each sample's mean in double, shape ``(N, 1, 1, 1)``, summed in the order that the engines share.

    Rows are added in pairs, the sums of pairs in pairs and so on, what is left over carried along; then the columns of
    that one row in pairs; then the channels. NumPy's own sum is as exact, but its order follows from the memory layout.
    """
    sums: np.ndarray = values_nchw
    for axis in (2, 3):
        sums = sums.swapaxes(axis, 0)
        while len(sums) > 1:
            # The first level adds in double, so the image itself need not be in double.
            pairs = np.add(sums[0 : len(sums) - 1 : 2], sums[1::2], dtype=np.float64)
            sums = np.concatenate([pairs, sums[-1:]]) if len(sums) % 2 else pairs
        sums = sums.swapaxes(axis, 0)
    total = sums[:, :1].astype(np.float64)
    for channel in range(1, sums.shape[1]):
        total += sums[:, channel : channel + 1]
    return total / math.prod(values_nchw.shape[1:])


def _preprocess(work_nchw: np.ndarray, mode: str) -> None:
    """Keras' ``imagenet_utils.preprocess_input`` for the three modes, in place."""
    dtype = work_nchw.dtype
    if mode == "tf":
        work_nchw /= dtype.type(127.5)
        work_nchw -= dtype.type(1)
    elif mode == "torch":
        work_nchw /= dtype.type(255)
        work_nchw -= np.array(IMAGENET_RGB_MEAN, dtype)[:, None, None]
        work_nchw /= np.array(IMAGENET_RGB_STD, dtype)[:, None, None]
    else:
        # caffe's models were trained on BGR; only channels 0 and 2 change places.
        work_nchw[:, [0, 2]] = work_nchw[:, [2, 0]]
        work_nchw -= np.array(IMAGENET_BGR_MEAN, dtype)[:, None, None]
