"""Crops at the front of a program: done by the resize of an engine, before anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpuseq.base.errors import DeviceError
from gpuseq.plan.program import STEP_DTYPE, has_kind, of_kind

__all__ = ["cropped", "size_after"]


def size_after(program: np.ndarray, image_size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the images after a program.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    image_size : (int, int)
        Before it.

    Raises
    ------
    ValueError
        If the samples end with different sizes.
    """
    crops = of_kind(program, "crop")
    if not crops.any():
        return image_size
    sizes = np.unique(program["arg"][crops][:, 4:6], axis=0)
    if len(sizes) > 1 or not crops.any(axis=1).all():
        raise ValueError("a program crops its samples to different sizes, which make no batch")
    return int(sizes[0, 0]), int(sizes[0, 1])


def cropped(
    images_nhwc: Any,
    program: np.ndarray,
    indices: np.ndarray | None,
    resize: Callable[[Sequence[Any], tuple[int, int], str], Any],
) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Cut the rectangle of each sample out and resize it, where a program begins with that.

    Parameters
    ----------
    images_nhwc : array
        Shape ``(M, H, W, C)``, uint8. Not written to.
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    indices : numpy.ndarray or None
        Shape ``(N,)``: the image of each sample.
    resize : callable
        The engine's, of images, the size and the filter.

    Returns
    -------
    array, numpy.ndarray, numpy.ndarray or None
        Images, the program without crops, and the image of each sample: those that came in where nothing is cropped.

    Raises
    ------
    DeviceError
        If a crop comes after other steps.
    ValueError
        If the samples end with different sizes.
    """
    if not has_kind(program, "crop"):
        return images_nhwc, program, indices
    size = size_after(program, images_nhwc.shape[1:3])
    crops = of_kind(program, "crop")
    if crops[:, 1:].any():
        raise DeviceError("a crop comes first in a program of this engine; take device='cpu' for any other order")
    boxes = program["arg"][:, 0, :4].astype(np.int64).tolist()
    rows = range(len(program)) if indices is None else indices.tolist()
    # Views of any sizes: a resize reads each where it lies, and the images of a batch need not be alike.
    views = [
        images_nhwc[row, top : top + height, left : left + width]
        for row, (top, left, height, width) in zip(rows, boxes, strict=True)
    ]
    bilinear = program["bilinear"][:, 0] != 0
    interpolation = "bilinear" if bilinear.all() else "nearest"
    if bilinear.any() and not bilinear.all():
        raise DeviceError("the crops of a batch are all bilinear or all nearest: take device='cpu' for both at once")
    kept = program.copy()
    kept[crops] = np.zeros((), STEP_DTYPE)
    return resize(views, size, interpolation), kept, None
