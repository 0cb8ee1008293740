"""Masks go through the plan of their images: the geometry is shared, colours and normalisation are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpuseq.base.devices import place
from gpuseq.base.types import Array
from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import put_to_rest
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.program import only_geometry

__all__ = ["warp_masks"]


def warp_masks(
    masks: Array,
    rows: np.ndarray | None,
    plan: BatchPlan,
    options: AugmentOptions,
    *,
    dtype: np.dtype[Any] | None,
    device: str,
    label: int = 0,
) -> Array:
    """Return the masks of a batch: each gets the affine map and the flips of its image, nearest neighbour, and no more.

    There is one plan for both, so the two cannot drift apart.

    Parameters
    ----------
    masks : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)`` as `options.source_format` says. Not written to.
    rows : numpy.ndarray or None
        Shape ``(N,)``: the row of `masks` for each sample; None where sample i is row i.
    plan : BatchPlan
        Of the images, N samples.
    options : AugmentOptions
        Of the images; axis orders, fill mode, `cval` and conventions are taken.
    dtype : numpy.dtype or None
        What is returned; None: as `masks` are.
    device : str
        Where it is returned.
    label : int
        0 to 255: what the geometry of a program leaves where no pixel comes from; `options.cval` is that of the ranges.

    Returns
    -------
    array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.data_format` says, on `device`.
    """
    # Labels have to survive the pass exactly: bytes as bytes, doubles as doubles, and what the sources hand out as
    # float32 fits it.
    own = masks.dtype
    options = replace(
        options.geometry(),
        dtype="uint8" if own == np.uint8 else "float64" if own == np.float64 else "float32",
    )
    warped = ops.augment(place(masks, device), put_to_rest(plan.params, "colour"), options, indices=rows)
    warped = warped.astype(own if dtype is None else dtype, copy=False)
    if plan.program is None:
        return warped
    return ops.run_geometry(warped, only_geometry(plan.program, label), options.data_format)
