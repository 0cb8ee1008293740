"""Drawn parameters to inverse affine maps. Keras' conventions, its centre and its axis swap included, live here."""

from __future__ import annotations

import numpy as np

__all__ = ["inverse_maps", "is_identity"]


def is_identity(params: np.ndarray) -> np.ndarray:
    """Tell which rows leave the geometry alone, so that Keras does not resample at all.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.arrays.PARAMS_DTYPE`.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)``, bool.
    """
    at_rest = (params["theta"] == 0) & (params["tx"] == 0) & (params["ty"] == 0) & (params["shear"] == 0)
    identity: np.ndarray = at_rest & (params["zx"] == 1) & (params["zy"] == 1)
    return identity


def inverse_maps(params: np.ndarray, height: int, width: int, conventions: str = "keras") -> np.ndarray:
    """Build the map from output pixel to source coordinate, for every sample at once.

    ``source = map[:, :2] @ (row, col) + map[:, 2]``. The products are written out in the order in which Keras
    multiplies its matrices (rotation, shift, shear, zoom), so that the two agree to the last bits; the kernel does the
    same operations in the same order.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.arrays.PARAMS_DTYPE`, on the host.
    height, width : int
        Size of the images in pixels.
    conventions : {"keras", "corrected"}
        "keras" turns non-square images about a point with the half-sizes exchanged and lets the height shift move
        columns, as Keras 3 does. "corrected" turns about the centre and lets the height shift move rows.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, 2, 3)``, float64, on the host; rows are (row, column) of the source.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.apply_affine_transform`` and ``transform_matrix_offset_center`` (Keras 3.15);
    the exchanged axes are reported in keras#17398.
    """
    theta, shear = np.deg2rad(params["theta"]), np.deg2rad(params["shear"])
    zx, zy = params["zx"], params["zy"]
    if conventions == "keras":
        first_shift, second_shift = params["tx"], params["ty"]
        first_center, second_center = height / 2 - 0.5, width / 2 - 0.5
    else:
        first_shift, second_shift = params["ty"], params["tx"]
        first_center, second_center = width / 2 - 0.5, height / 2 - 0.5
    cos, sin = np.cos(theta), np.sin(theta)
    first_offset = cos * first_shift + -sin * second_shift
    second_offset = sin * first_shift + cos * second_shift
    slant, squeeze = -np.sin(shear), np.cos(shear)
    m00, m10 = cos * zx, sin * zx
    m01, m11 = (cos * slant + -sin * squeeze) * zy, (sin * slant + cos * squeeze) * zy
    maps = np.empty((len(params), 2, 3))
    maps[:, 0, 0], maps[:, 0, 1] = m11, m10
    maps[:, 1, 0], maps[:, 1, 1] = m01, m00
    maps[:, 0, 2] = (m10 * -first_center + m11 * -second_center) + (second_offset + second_center)
    maps[:, 1, 2] = (m00 * -first_center + m01 * -second_center) + (first_offset + first_center)
    return maps
