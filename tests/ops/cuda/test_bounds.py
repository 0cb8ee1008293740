"""What a kernel takes for granted is checked before it: a device reads, and writes, whatever lies at an address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpuseq.base import devices as compat
from gpuseq.ops import dispatch as ops
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import resize as ops_cuda_resize
from gpuseq.ops.options import AugmentOptions
from tests.cases import draw_params, images
from tests.iterators.test_on_standin import generator
from tests.standin import cupy as standin

DATA = images((4, 5, 6, 3), "uint8")
OPTIONS = AugmentOptions()


@pytest.fixture(autouse=True)
def cuda() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield standin.install(patch)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("rows", [[0, 4], [0, 9], [-5, 0], [3, -(2**63)], [2**63 - 1, 0]])
def test_rows_that_there_are_not(cuda: Any, device: str, rows: list[int]) -> None:
    source, params = compat.place(DATA, device), draw_params(2, 5, 6)
    wrong = next(row for row in rows if not -4 <= row < 4)
    refused = pytest.raises(IndexError, match=f"index {wrong} is out of bounds for axis 0 with size 4")
    with refused:
        ops.augment(source, params, OPTIONS, indices=np.array(rows))
    with refused:
        ops.upload(DATA, device, np.array(rows))
    with refused:
        ops.upload(source, device, np.array(rows))
    assert not cuda.num_launches


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_negative_rows_count_from_the_end(device: str) -> None:
    source, params, rows = compat.place(DATA, device), draw_params(3, 5, 6), np.array([-1, 0, -4])
    got = compat.place(ops.augment(source, params, OPTIONS, indices=rows), "cpu")
    np.testing.assert_allclose(got, ops.augment(DATA, params, OPTIONS, indices=np.array([3, 0, 0])), atol=1e-4)
    np.testing.assert_array_equal(compat.place(ops.upload(DATA, device, rows), "cpu"), DATA[[3, 0, 0]])
    assert rows.tolist() == [-1, 0, -4]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_more_parameters_than_images(device: str) -> None:
    with pytest.raises(IndexError, match="parameters of 5 samples, and 4 images"):
        ops.augment(compat.place(DATA, device), draw_params(5, 5, 6), OPTIONS)


def test_no_rows_at_all() -> None:
    got = ops.augment(compat.place(DATA, "cuda:0"), draw_params(0, 5, 6), OPTIONS, indices=np.array([], np.int64))
    assert got.shape == (0, 5, 6, 3)


@pytest.mark.parametrize("memory_limit", [None, 10])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_keras_hook_refuses_what_numpy_refuses(device: str, memory_limit: int | None) -> None:
    flow = generator(device).flow(DATA, batch_size=2, seed=1, memory_limit=memory_limit)
    for rows in ([0, 9], [-5, 0]):
        with pytest.raises(IndexError, match="out of bounds"):
            flow._get_batches_of_transformed_samples(np.array(rows))
    got = compat.place(flow._get_batches_of_transformed_samples(np.array([-1, 1])), "cpu")
    np.testing.assert_array_equal(got, DATA[[3, 1]])


def test_an_image_of_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ops_cuda.MAX_SAMPLE_VALUES == 2**31
    source, params = compat.place(DATA, "cuda:0"), draw_params(4, 5, 6)
    monkeypatch.setattr(ops_cuda, "MAX_SAMPLE_VALUES", 91)
    ops.augment(source, params, OPTIONS)
    monkeypatch.setattr(ops_cuda, "MAX_SAMPLE_VALUES", 90)
    for call in (lambda: ops.augment(source, params, OPTIONS), lambda: ops.standardize(source, OPTIONS)):
        with pytest.raises(ValueError, match="5 x 6 x 3 values is too large for the GPU"):
            call()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_an_image_of_too_many_pixels(interpolation: str) -> None:
    limit = (46341, 46341)  # one more than the root of 2**31
    with pytest.raises(ValueError, match="46341 x 46341 pixels are too many for the GPU"):
        ops_cuda_resize._plan(4, 4, 3, 4, limit, interpolation, None)
    assert ops_cuda_resize._plan(4, 4, 3, 4, (46340, 46340), interpolation, None).last.rows == 46340


@pytest.mark.parametrize("order", [0, 1])
def test_white_in_double_is_now_and_then_brighter_than_white(order: int) -> None:
    """The weights' rounding lifts 255 by a bit; Keras takes that for an image to be stretched, and so must the GPU."""
    white, params = np.full((12, 9, 9, 1), 255, np.uint8), draw_params(12, 9, 9, seed=3)
    params["brightness"] = 0.5
    options = AugmentOptions(dtype="float64", order=order, has_channel_shift=False)  # type: ignore[arg-type]
    wanted = ops.augment(white, params, options)
    assert (wanted > 200).any() == (order == 1), "some are stretched"
    assert (wanted < 200).any()
    got = ops.augment(compat.place(white, "cuda:0"), params, options)
    np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=1e-6)
