"""Drawn parameters to inverse affine maps. Keras' conventions, its centre and its axis swap included, live here."""

from __future__ import annotations

import numpy as np

from gpuseq.plan.columns import is_at_rest

__all__ = ["inverse_maps", "is_identity"]


def is_identity(params: np.ndarray) -> np.ndarray:
    """Tell which rows leave the geometry alone, so that Keras does not resample at all.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)``, bool.
    """
    # Keras tests the drawn numbers and not the matrix: a rotation by 360 degrees is resampled.
    return is_at_rest(params, "affine")


def inverse_maps(params: np.ndarray, height: int, width: int, conventions: str = "keras") -> np.ndarray:
    """Build the map from output pixel to source coordinate, for every sample at once.

    ``source = map[:, :2] @ (row, col) + map[:, 2]``. The matrices are multiplied as Keras multiplies them, through
    NumPy's BLAS, so that the two agree to the last bit: with ``fill_mode="constant"`` the last bit decides whether a
    whole row of pixels lies on the border or beyond it. The kernel writes the same products out with ``fma``.

    Parameters
    ----------
    params : numpy.ndarray
        Shape ``(N,)``, dtype `~gpuseq.plan.columns.PARAMS_DTYPE`, on the host.
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
    num_samples = len(params)
    theta, shear = np.deg2rad(params["theta"]), np.deg2rad(params["shear"])
    swapped = conventions == "corrected"
    # Whole 3 x 3 matrices and real products, though most entries are 0 and 1: BLAS rounds as Keras' own `np.dot` does.
    rotation, shift, slant, zoom, forth, back = np.broadcast_to(np.eye(3), (6, num_samples, 3, 3)).copy()
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(theta)
    rotation[:, 1, 0] = np.sin(theta)
    rotation[:, 0, 1] = -rotation[:, 1, 0]
    shift[:, 0, 2], shift[:, 1, 2] = params["ty" if swapped else "tx"], params["tx" if swapped else "ty"]
    slant[:, 0, 1], slant[:, 1, 1] = -np.sin(shear), np.cos(shear)
    zoom[:, 0, 0], zoom[:, 1, 1] = params["zx"], params["zy"]
    # Half a pixel less than half the side, as Keras 3 has it; keras-preprocessing 1.1 adds it and differs.
    center = np.array([width, height] if swapped else [height, width]) / 2 - 0.5
    forth[:, :2, 2], back[:, :2, 2] = center, -center
    centered = forth @ (rotation @ shift @ slant @ zoom) @ back
    # Keras exchanges the two axes of the finished matrix where the column axis follows the row axis, which it always
    # does here.
    return np.ascontiguousarray(centered[:, [1, 0]][:, :, [1, 0, 2]])
