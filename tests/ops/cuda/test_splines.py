"""How far splines by cupyx may lie from SciPy's: the offset of a map added last where SciPy adds it first.

cupyx needs a GPU. The stand-in's makes coordinates in its order and precision, and lets SciPy read the pixels there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gpuseq.base.devices import place
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.numpy import affine as ops_numpy
from gpuseq.ops.options import AugmentOptions
from tests.cases import identity, images, transposed
from tests.compare import assert_same
from tests.standin import cupy as standin

pytest.importorskip("scipy.ndimage")
pytestmark = pytest.mark.filterwarnings("ignore:interpolation_order")

ATOL = 1e-8
"""On a scale of 0 to 255, in double. Positions in float32 would be 1e-3 off. On a GPU, whose compiler contracts sums,
`tests.ops.cuda.test_gpu_catalogue` allows 1e-3 of float32."""

THETAS = (3.0, 17.0, 45.0, 90.0, 180.0, -90.0, 0.0)


@pytest.fixture(autouse=True)
def _standin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch)
        yield


def warped(batch: np.ndarray, params: np.ndarray, options: AugmentOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return the batch by SciPy, and by cupyx."""
    got = ops_cuda.warp_spline(place(batch, "cuda:0"), params, options)
    return ops_numpy.warp_spline(batch, params, options), np.asarray(place(got, "cpu"))


def on_border(params: np.ndarray, size: int) -> np.ndarray:
    """Return which pixels lie on the border to some digits, shape ``(N, H, W)``."""
    maps = ops_numpy.inverse_maps(params, size, size, "keras")[:, :, None, None]
    rows, cols = np.mgrid[:size, :size].astype(np.float64)
    coordinates = maps[..., 0] * rows + maps[..., 1] * cols + maps[..., 2]
    border: np.ndarray = (np.minimum(np.abs(coordinates), np.abs(coordinates - (size - 1))) < 1e-9).any(axis=1)
    return border


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect", "constant", "wrap"])
def test_only_pixels_exactly_on_the_border_differ(order: int, fill_mode: str) -> None:
    options = AugmentOptions(order=order, fill_mode=fill_mode, cval=-50.0, dtype="float64")  # type: ignore[arg-type]
    num_flipped = 0
    for size in (9, 16, 23, 32):
        params = identity(len(THETAS))
        params["theta"] = THETAS
        wanted, got = warped(images((len(THETAS), size, size, 2), "uint8", seed=size), params, options)
        differs = (np.abs(got - wanted) > ATOL).any(axis=3)
        assert not (differs & ~on_border(params, size)).any(), size
        assert not differs[-1].any()
        num_flipped += np.count_nonzero(differs)
    if fill_mode in ("nearest", "reflect"):  # what lies on one side of the border is what lies on the other
        assert num_flipped == 0
    else:
        assert num_flipped > 0  # or nothing would need a warning


@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("rounded", [True, False], ids=["rounded", "float32"])
def test_axis_orders_and_dtypes(rounded: bool, last: bool) -> None:
    """Bytes are rounded and stop at 0 and 255 as SciPy's; the source is not written to."""
    batch = images((5, 19, 23, 3), "uint8", seed=3) // 128 * 255
    source = batch if last else transposed(batch)
    kept = source.copy()
    params = identity(5)
    params["theta"], params["zx"], params["tx"] = (3.0, 17.0, 0.0, -40.0, 0.0), 0.9, (0.3, 0.0, 0.0, 1.5, 0.0)
    params["zx"][2] = 1.0
    options = AugmentOptions(
        order=3,
        dtype="uint8" if rounded else "float32",
        source_format="channels_last" if last else "channels_first",
        round_affine=rounded,
    )
    wanted, got = warped(source, params, options)
    assert_same(got, wanted, atol=0 if rounded else 1e-4)
    assert_same(source, kept)
    assert (wanted == 0).any()
    assert (wanted == 255).any() or not rounded
