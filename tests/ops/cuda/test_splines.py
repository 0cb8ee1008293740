"""How far splines by cupyx may lie from SciPy's: the offset of a map added last where SciPy adds it first.

cupyx needs a GPU. Its coordinates are made here, in its order, and SciPy reads the pixels there.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpuseq.ops.numpy.affine import inverse_maps
from tests.cases import identity, images

ndimage = pytest.importorskip("scipy.ndimage")

ATOL = 1e-3
"""What `tests.ops.cuda.test_gpu_catalogue` allows on a GPU, on a scale of 0 to 255."""


def warped(size: int, theta: float, order: int, fill_mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return SciPy's pixels, those at cupyx's coordinates, and whether a pixel lies on the border to some digits."""
    plane = images((size, size), "uint8", seed=size).astype(np.float64)
    params = identity(1)
    params["theta"] = theta
    (map_23,) = inverse_maps(params, size, size, "keras")
    wanted = ndimage.affine_transform(plane, map_23[:, :2], map_23[:, 2], order=order, mode=fill_mode, cval=-50.0)
    rows, cols = np.mgrid[:size, :size].astype(np.float64)
    coordinates = np.stack([(row[0] * rows + row[1] * cols) + row[2] for row in map_23])
    got = ndimage.map_coordinates(plane, coordinates, order=order, mode=fill_mode, cval=-50.0)
    on_border = (np.minimum(np.abs(coordinates), np.abs(coordinates - (size - 1))) < 1e-9).any(axis=0)
    return wanted, got, on_border


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect", "constant", "wrap"])
def test_only_pixels_exactly_on_the_border_differ(order: int, fill_mode: str) -> None:
    num_flipped = 0
    for size in (9, 16, 23, 32):
        for theta in (3.0, 17.0, 45.0, 90.0, 180.0, -90.0):
            wanted, got, on_border = warped(size, theta, order, fill_mode)
            differs = np.abs(got - wanted) > ATOL
            assert not (differs & ~on_border).any(), (size, theta)
            num_flipped += np.count_nonzero(differs)
    if fill_mode in ("nearest", "reflect"):  # what lies on one side of the border is what lies on the other
        assert num_flipped == 0
    else:
        assert num_flipped > 0  # or nothing would need a warning
