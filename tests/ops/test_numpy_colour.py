"""The colour and normalising half of `ops_numpy` equals Pillow and plain NumPy, one image at a time."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuseq.ops import dispatch as ops
from gpuseq.ops.numpy.program import run_steps
from gpuseq.ops.options import AugmentOptions, Statistics
from tests import naive
from tests.cases import DTYPES, draw_params, identity, images
from tests.compare import assert_same, read_only
from tests.ops.pillow_steps import step
from tests.tolerance import unit_of

STILL = AugmentOptions(has_affine=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colour_equals_pillow(channels: int, dtype: str) -> None:
    batch = read_only(images((40, 7, 5, channels), dtype))
    params = draw_params(40, 7, 5, colour=True)
    options = replace(STILL, dtype="float64" if dtype == "float64" else "float32")
    assert np.isnan(params["brightness"]).any()
    assert not np.isnan(params["brightness"]).all()
    got, wanted = ops.augment(batch, params, options), naive.augment(batch, params, options)
    assert_same(got, wanted, atol=1e-5 * unit_of(wanted))


@pytest.mark.parametrize("factor", np.linspace(0, 5, 41).tolist())
def test_brightness_of_every_level_equals_pillow(factor: float) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    params = identity(1)
    params["brightness"] = factor
    assert_same(ops.augment(levels, params, STILL), naive.augment(levels, params, STILL))


@pytest.mark.parametrize(("gamma", "gain"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (1.0, 0.3), (2.2, 1.2), (2.2, 0.0)])
def test_gamma_is_a_power_of_each_levels_share(gamma: float, gain: float) -> None:
    """torchvision's formula in double; a power in float32 may lie on the other side of a level."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    done = run_steps(levels, step("Gamma", gamma, gain))
    shares = np.minimum(gain * (levels / 255) ** gamma, 1)
    assert_same(done, (shares * 255.999).astype(np.uint8), atol=1)
    if gamma == gain == 1:
        assert_same(done, levels)


@pytest.mark.parametrize("turns", [-0.5, -0.31, 0.0, 0.02, 0.25, 0.5])
def test_hue_turns_as_that_of_colorsys(turns: float) -> None:
    """In double there; a product in float32 may lie on the other side of a level."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
    pixels[0] = rng.integers(0, 256, (20, 1), np.uint8)
    wanted = np.empty_like(pixels)
    for place in np.ndindex(20, 20):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[place] / 255).tolist())
        turned = colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)
        wanted[place] = (np.array(turned) * 255.999).astype(np.uint8)
    assert_same(run_steps(pixels, step("Hue", turns)), wanted, atol=1)


def test_channel_shift_stays_within_the_images_own_range() -> None:
    batch = images((2, 6, 6, 3), "uint8") // 2 + 40
    params = identity(2)
    params["channel_shift_intensity"] = (500.0, -500.0)
    got = ops.augment(batch, params, STILL)
    assert_same(got[0], np.full((6, 6, 3), batch[0].max(), np.float32))
    assert_same(got[1], np.full((6, 6, 3), batch[1].min(), np.float32))


NORMALISING: list[dict[str, Any]] = [
    {},
    {"rescale": 1 / 255},
    {"samplewise_center": True},
    {"samplewise_std": True},
    {"samplewise_center": True, "samplewise_std": True, "rescale": 1 / 127.5},
    {"featurewise_center": True},
    {"featurewise_center": True, "featurewise_std": True, "rescale": 2.0},
    {"samplewise_center": True, "samplewise_std": True, "featurewise_center": True, "featurewise_std": True},
    {"preprocessing": "tf"},
    {"preprocessing": "caffe", "rescale": 0.5},
    {"preprocessing": "torch", "featurewise_center": True},
]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("changes", NORMALISING, ids=lambda changes: "_".join(changes) or "nothing")
def test_normalising_equals_numpy(changes: dict[str, Any], dtype: str, data_format: str) -> None:
    batch = read_only(images((4, 9, 7, 3), "uint8"))
    statistics = Statistics(mean=np.array([1.0, 20.0, 3.0]), std=np.array([30.0, 4.0, 50.0]))
    options = replace(STILL, dtype=dtype, data_format=data_format, **changes)
    got = ops.augment(batch, identity(4), options, statistics=statistics)
    exact = replace(options, dtype="float64")
    wanted = naive.augment(batch, identity(4), exact, statistics=statistics)
    atol = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3}[dtype] * 255 * unit_of(wanted)
    assert got.dtype == dtype
    assert_same(got.astype(np.float64), wanted, atol=atol)
    again = ops.standardize(batch, options, statistics)
    assert_same(again, got, atol=atol, message="standardize of the same images")


def test_featurewise_without_statistics_changes_nothing() -> None:
    batch = images((2, 4, 4, 3), "uint8")
    options = replace(STILL, featurewise_center=True, featurewise_std=True)
    assert_same(ops.augment(batch, identity(2), options), batch.astype(np.float32))


def test_uint8_truncates_and_saturates() -> None:
    batch = np.array([-3.0, 0.0, 0.99, 1.5, 254.999, 255.0, 256.0, 1e9], np.float32).reshape(1, 2, 4, 1)
    got = ops.augment(batch, identity(1), replace(STILL, dtype="uint8"))
    assert got.dtype == np.uint8
    assert got.ravel().tolist() == [0, 0, 0, 1, 254, 255, 255, 255]


def test_the_callers_batch_is_not_written_to() -> None:
    batch = images((2, 4, 4, 3), "float32")
    before = batch.copy()
    options = replace(STILL, samplewise_center=True, samplewise_std=True, rescale=0.1)
    ops.augment(batch, identity(2), options)
    ops.standardize(batch, options)
    assert_same(batch, before)


@pytest.mark.parametrize("shape", [(5, 3, 4, 2), (1, 2, 2, 1)], ids=str)
def test_whitening_is_one_product_per_image(shape: tuple[int, ...]) -> None:
    batch = images(shape, "float32")
    size = int(np.prod(shape[1:]))
    matrix = images((size, size), "float64", seed=3)
    wanted = np.stack([(image.ravel().astype(np.float64) @ matrix).reshape(image.shape) for image in batch])
    got = ops.whiten(batch, matrix)
    assert got.dtype == np.float32
    assert_same(got.astype(np.float64), wanted, atol=1e-5 * np.abs(wanted).max())
