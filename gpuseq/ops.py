"""The seam between what is asked for and who computes it: each op is documented here and runs on NumPy or CUDA.

The engine follows from the arrays: NumPy arrays run on the host, CuPy arrays on their device, on the current stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from . import ops_numpy
from .arrays import Array
from .compat import is_cupy
from .options import AugmentOptions, Statistics

__all__ = ["augment", "resize", "standardize", "warp_spline", "whiten"]


def _engine(array: Array) -> ModuleType:
    if is_cupy(array):
        from . import ops_cuda

        return ops_cuda
    return ops_numpy


def augment(
    images: Array,
    params: np.ndarray,
    options: AugmentOptions,
    *,
    indices: np.ndarray | None = None,
    statistics: Statistics | None = None,
    out: Array | None = None,
) -> Array:
    """Gather, warp, recolour, standardise, lay out and cast a batch; on a GPU in one launch where nothing is reduced.

    Parameters
    ----------
    images : array
        Shape ``(M, H, W, C)`` or ``(M, C, H, W)`` as `options.source_format` says; uint8, uint16, float32 or float64;
        where it lives decides the engine. Not written to.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.arrays.PARAMS_DTYPE`, on the host.
    options : AugmentOptions
        What is done to every sample.
    indices : numpy.ndarray or None
        Shape ``(N,)``, int64, on the host: the row of `images` for each sample. None: row i for sample i.
    statistics : Statistics or None
        Per-channel mean and std where `options` asks for featurewise steps.
    out : array or None
        Written to where given: shape and dtype of the result, C-contiguous, where `images` lives.

    Returns
    -------
    array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.data_format` says, dtype `options.dtype`, where `images`
        lives.

    References
    ----------
    ``ImageDataGenerator.apply_transform`` and ``standardize`` of Keras 3.15; ``scipy.ndimage.affine_transform`` of
    SciPy 1.16 and later for the warp.
    """
    return _engine(images).augment(images, params, options, indices=indices, statistics=statistics, out=out)


def standardize(
    batch: Array, options: AugmentOptions, statistics: Statistics | None = None, *, out: Array | None = None
) -> Array:
    """Do the part of `augment` from the preprocessing mode on, for a batch that already exists.

    Parameters
    ----------
    batch : array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.source_format` says. Not written to.
    options : AugmentOptions
        Its colour and geometry fields are ignored.
    statistics : Statistics or None
        Per-channel mean and std where `options` asks for featurewise steps.
    out : array or None
        As in `augment`.

    Returns
    -------
    array
        As in `augment`.
    """
    return _engine(batch).standardize(batch, options, statistics, out=out)


def whiten(batch: Array, matrix: Array) -> Array:
    """Apply the ZCA matrix to a batch by one matrix product.

    Parameters
    ----------
    batch : array
        Shape ``(N, ...)``, floating; each sample is flattened in C order.
    matrix : array
        Shape ``(D, D)`` with D the size of one sample.

    Returns
    -------
    array
        Shape and dtype of `batch`, new.
    """
    return _engine(batch).whiten(batch, matrix)


def warp_spline(images: Array, params: np.ndarray, options: AugmentOptions, order: int) -> Array:
    """Warp by splines of order 2 to 5: the rare, slow path, one SciPy (or cupyx) call per plane.

    Parameters
    ----------
    images : array
        Shape ``(N, H, W, C)`` or ``(N, C, H, W)`` as `options.source_format` says.
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.arrays.PARAMS_DTYPE`. Only the affine fields are used.
    options : AugmentOptions
        Fill mode, `cval`, conventions and dtype are used.
    order : int
        Spline order, 2 to 5.

    Returns
    -------
    array
        Same shape and axis order as `images`, in the compute dtype.

    Raises
    ------
    MissingDependencyError
        On the host, if SciPy is not installed.

    References
    ----------
    ``scipy.ndimage.affine_transform``, ``cupyx.scipy.ndimage.affine_transform``.
    """
    return _engine(images).warp_spline(images, params, options, order)


def resize(
    images: Sequence[Array],
    target_size: tuple[int, int],
    interpolation: str,
    *,
    boxes: np.ndarray | None = None,
    out: Array | None = None,
) -> Array:
    """Resize a ragged list of 8-bit images into one batch, equal to Pillow to the bit.

    Parameters
    ----------
    images : sequence of array
        Each ``(h, w, C)`` uint8, all on the same side, C the same for all. Not written to.
    target_size : (int, int)
        Rows and columns of the result.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter.
    boxes : numpy.ndarray or None
        Shape ``(N, 4)``, float32: left, upper, right, lower of the part to resize. None: the whole image.
    out : array or None
        Written to where given: ``(N, H, W, C)`` uint8.

    Returns
    -------
    array
        Shape ``(N, H, W, C)``, uint8, where the images live.

    References
    ----------
    ``PIL.Image.Image.resize``.
    """
    return _engine(images[0]).resize(images, target_size, interpolation, boxes=boxes, out=out)
