"""Programs on the NumPy engine: step after step on uint8, sample by sample. The oracle of the other engines.

Pillow, torchvision on PIL images and timm are the oracle of this one. Runs of steps that are tables become one table,
which is exact; everything else is done as it is written.
"""

from __future__ import annotations

import numpy as np

from gpuseq.base.threads import cpu_count, for_each
from gpuseq.ops.crops import size_after
from gpuseq.ops.levels import autocontrast_table, blend, contrast_table, equalize_table, luminance, table
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.plan.program import STEPS, has_kind

from .augment import empty_batch, standardize_into
from .erase import erase
from .moves import move
from .pixels import gaussian_blur, permute, recolour, rotate_hue, sharpen
from .resize import resize_one

__all__ = ["erase_rectangles", "run_geometry", "run_program", "run_steps"]


def run_program(
    images: np.ndarray,
    program: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """NumPy twin of `gpuseq.ops.dispatch.run_program`; the contract is written there."""
    images_nhwc = images if options.source_format == "channels_last" else images.transpose(0, 2, 3, 1)
    height, width = size_after(program, images_nhwc.shape[1:3])
    num_samples, num_channels = len(program), images_nhwc.shape[3]
    if out is None:
        out = empty_batch(num_samples, height, width, num_channels, options)
    out_nchw = out.transpose(0, 3, 1, 2) if options.data_format == "channels_last" else out

    def work_on(sample: int) -> None:
        image = run_steps(images_nhwc[sample if indices is None else indices[sample]], program[sample])
        # A sample at a time through the rest: it lies in the cache, and a crop or a chain gives images of changing
        # size.
        levels_nchw = image.transpose(2, 0, 1)[None].astype(options.compute_dtype)
        standardize_into(levels_nchw, options, statistics, out_nchw[sample : sample + 1])

    for_each(work_on, num_samples, cpu_count())
    # After the loop, on the finished batch: erasing is done in units of the batch, and counts its pixels in rows and
    # columns.
    erase(out_nchw.transpose(0, 2, 3, 1), program)
    return out


def erase_rectangles(batch: np.ndarray, program: np.ndarray, data_format: str) -> None:
    """NumPy twin of `gpuseq.ops.dispatch.erase`; the contract is written there."""
    erase(batch if data_format == "channels_last" else batch.transpose(0, 2, 3, 1), program)


def run_geometry(
    images: np.ndarray, program: np.ndarray, source_format: str, *, indices: np.ndarray | None = None
) -> np.ndarray:
    """NumPy twin of `gpuseq.ops.dispatch.run_geometry`; the contract is written there."""
    last = source_format == "channels_last"
    images_nhwc = images if last else images.transpose(0, 2, 3, 1)
    num_channels = images_nhwc.shape[3]
    size = size_after(program, images_nhwc.shape[1:3])
    out = np.empty((len(program), *size, num_channels) if last else (len(program), num_channels, *size), images.dtype)
    out_nhwc = out if last else out.transpose(0, 2, 3, 1)

    def work_on(sample: int) -> None:
        out_nhwc[sample] = run_steps(images_nhwc[sample if indices is None else indices[sample]], program[sample])

    for_each(work_on, len(program), cpu_count())
    return out


def run_steps(image_hwc: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Do the steps of one sample, apart from erasing.

    Parameters
    ----------
    image_hwc : numpy.ndarray
        Shape ``(H, W, C)``, uint8. Not written to.
    steps : numpy.ndarray
        Shape ``(S,)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.

    Returns
    -------
    numpy.ndarray
        Shape ``(H, W, C)``, uint8; `image_hwc` itself where nothing is done.
    """
    pending: np.ndarray | None = None  # a table for each channel, of the steps before that have not been done yet
    chains = has_kind(steps, "mix")
    for position, values in enumerate(steps):
        step, args = STEPS[values["op"]], values["arg"].tolist()
        if step.kind in ("none", "erase") or (chains and values["chain"]):
            continue
        if step.kind == "table":
            pending = _after(pending, table(step.name, args)[None])
            continue
        # Every other step reads levels, so the tables have to be done first.
        if pending is not None:
            image_hwc, pending = _look_up(image_hwc, pending), None
        if step.kind == "measured":
            pending = _measured(image_hwc, step.name, args)
        elif step.kind == "pixel":
            image_hwc = _coloured(image_hwc, step.name, args)
        elif step.name == "Sharpness":
            image_hwc = _beside_alpha(image_hwc, sharpen(_colours(image_hwc), args[0]))
        elif step.name == "GaussianBlur":
            image_hwc = gaussian_blur(image_hwc, int(args[0]), int(args[1]), args[2])
        elif step.kind == "geometry":
            image_hwc = move(image_hwc, step.name, args, bool(values["bilinear"]), values["fill"])
        elif step.kind == "crop":
            top, left, height, width, *target = (int(value) for value in args[:6])
            # Cut out and then resized, as torchvision does. `resize_one(box=)` is another function: it reads beyond the
            # rim, and 3.8 % of the values of 64 x 64 differ.
            box = image_hwc[top : top + height, left : left + width]
            interpolation = "bilinear" if values["bilinear"] else "nearest"
            image_hwc = resize_one(box, (target[0], target[1]), interpolation)
        else:
            image_hwc = _mixed(image_hwc, args, _chains(steps[position + 1 :]))
    return image_hwc if pending is None else _look_up(image_hwc, pending)


def _after(pending: np.ndarray | None, tables: np.ndarray) -> np.ndarray:
    """Return tables that do the pending ones and then these; each has one row, or one per channel."""
    if pending is None:
        return tables
    if len(tables) == 1:
        composed: np.ndarray = tables[0][pending]
        return composed
    if len(pending) == 1:
        return tables[:, pending[0]]
    # Tables per channel after tables per channel.
    return np.take_along_axis(tables, pending.astype(np.intp), axis=1)


def _colours(image_hwc: np.ndarray) -> np.ndarray:
    """Return the channels that have a colour: alpha stays as it is."""
    return image_hwc[..., :-1] if image_hwc.shape[2] in (2, 4) else image_hwc


def _beside_alpha(image_hwc: np.ndarray, colours_hwc: np.ndarray) -> np.ndarray:
    if colours_hwc.shape[2] == image_hwc.shape[2]:
        return colours_hwc
    return np.concatenate([colours_hwc, image_hwc[..., -1:]], axis=2)


def _look_up(image_hwc: np.ndarray, tables: np.ndarray) -> np.ndarray:
    colours = _colours(image_hwc)
    if len(tables) == 1:
        looked_up = tables[0].take(colours)
    else:
        looked_up = np.empty(colours.shape, np.uint8)
        for channel, levels in enumerate(tables):
            looked_up[..., channel] = levels.take(colours[..., channel])
    return _beside_alpha(image_hwc, looked_up)


def _measured(image_hwc: np.ndarray, name: str, args: list[float]) -> np.ndarray:
    """Return the tables of a step that needs a look at the image."""
    colours = _colours(image_hwc)
    height, width, channels = colours.shape
    if name == "Contrast":
        # Contrast's mean is that of the luminance, one for all channels; grey is its own.
        light = luminance(colours) if channels == 3 else colours
        return contrast_table(int(light.sum(dtype=np.int64)), height * width, args[0])[None]
    make = autocontrast_table if name == "AutoContrast" else equalize_table
    # A histogram and a table for each channel: Pillow treats them apart.
    return np.stack(
        [make(np.bincount(colours[..., channel].reshape(-1), minlength=256)) for channel in range(channels)]
    )


def _coloured(image_hwc: np.ndarray, name: str, args: list[float]) -> np.ndarray:
    """Do a step on each pixel's colours; grey has none to change."""
    colours = _colours(image_hwc)
    if colours.shape[2] == 1:
        return image_hwc
    if name == "Color" or name == "Grayscale":
        changed = recolour(colours, args[0] if name == "Color" else 0.0)
    elif name == "Hue":
        changed = rotate_hue(colours, args[0])
    else:
        changed = permute(colours, tuple(int(value) for value in args[:3]))
    return _beside_alpha(image_hwc, changed)


def _chains(steps: np.ndarray) -> list[np.ndarray]:
    """Return the steps of each chain up to the next step that belongs to none."""
    ends = np.flatnonzero((steps["chain"] == 0) & (steps["op"] != 0))
    own = steps[: ends[0]] if len(ends) else steps
    chains = []
    # As many as the AugMix step has weights for.
    for number in range(1, 6):
        chain = own[own["chain"] == number].copy()
        chain["chain"] = 0
        chains.append(chain)
    return chains


def _mixed(image_hwc: np.ndarray, args: list[float], chains: list[np.ndarray]) -> np.ndarray:
    """Blend what the chains make of an image, weighted, and blend that with the image.

    References
    ----------
    timm's ``AugMixAugment``.
    """
    share, width, *weights = args
    total = np.zeros(image_hwc.shape, np.float32)
    for weight, chain in zip(weights[: int(width)], chains, strict=False):
        # In float32 and in the order of the chains, as timm sums.
        total += np.float32(weight) * run_steps(image_hwc, chain).astype(np.float32)
    np.clip(total, 0, 255, out=total)
    return blend(image_hwc.astype(np.int32), total.astype(np.uint8).astype(np.int32), share)
