"""The compiled resize equals Pillow to the bit: every filter, mode, box and size, from arrays and Pillow's memory."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpuseq.base.types import COLOR_CHANNELS
from gpuseq.decode import pillow as decode_pillow
from gpuseq.decode.options import DecodeOptions
from gpuseq.decode.pillow import RESAMPLING, finish
from gpuseq.ops import resample
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled import resize as ops_compiled
from gpuseq.ops.numpy import resize as ops_numpy
from tests import compiled_library
from tests.compare import assert_same

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SIZES = [(1, 1), (1, 17), (13, 1), (7, 5), (37, 53), (64, 48), (150, 31)]


@pytest.fixture(params=["avx2", "baseline"], autouse=True)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with each instruction set that this CPU has."""
    compiled_library.require()
    found = library.instruction_sets()
    assert not isinstance(found, str)
    if request.param not in {item.name for item in found}:
        pytest.skip(f"this CPU does not run {request.param}")
    monkeypatch.setenv(library.ENGINE, f"compiled:{request.param}")


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Return noise with flat and extreme places, and alpha that is often 0 or 255."""
    rng = np.random.default_rng([height, width, channels, seed])
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    pixels[rng.random((height, width)) < 0.2] = 255
    pixels[rng.random((height, width)) < 0.2] = 0
    return pixels


def pillow(pixels: np.ndarray, target: tuple[int, int], interpolation: Any, box: Any = None) -> np.ndarray:
    """Resize by Pillow itself."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    assert image.mode == MODES[pixels.shape[2]]
    done = np.asarray(image.resize(target[::-1], RESAMPLING[interpolation], box=box))
    return done.reshape(*target, pixels.shape[2])


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize("channels", MODES)
def test_every_size_to_every_size(channels: int, interpolation: str) -> None:
    for size in SIZES:
        pixels = picture(*size, channels)
        for target in SIZES:
            got = ops_compiled.resize([pixels], target, interpolation)[0]
            assert_same(got, pillow(pixels, target, interpolation), message=f"{size} -> {target}")


@settings(max_examples=200)
@given(data=st.data())
def test_any_box(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    channels, target = data.draw(st.integers(1, 4)), (data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60)))
    interpolation = data.draw(st.sampled_from(list(RESAMPLING)))
    left, right = sorted(data.draw(st.tuples(st.floats(0, width, width=32), st.floats(0, width, width=32))))
    upper, lower = sorted(data.draw(st.tuples(st.floats(0, height, width=32), st.floats(0, height, width=32))))
    if right - left < 0.01 or lower - upper < 0.01:
        left, upper, right, lower = 0.0, 0.0, float(width), float(height)
    pixels = picture(height, width, channels, data.draw(st.integers(0, 100)))
    boxes = np.array([[left, upper, right, lower]], np.float32)
    got = ops_compiled.resize([pixels], target, interpolation, boxes=boxes)[0]
    assert_same(got, pillow(pixels, target, interpolation, tuple(map(float, boxes[0]))))


@pytest.mark.parametrize("vertical_first", [False, True])
@pytest.mark.parametrize("channels", MODES)
def test_both_orders_of_the_passes(channels: int, vertical_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow 13 weighs which pass goes first, older ones do not: NumPy's resize stands in for the one not installed."""
    for module in (ops_compiled, ops_numpy):
        monkeypatch.setattr(module, "vertical_first", lambda *arguments: vertical_first)
    for interpolation in ("bilinear", "lanczos"):
        pixels = picture(90, 40, channels)
        wanted = ops_numpy.resize([pixels], (20, 37), interpolation)
        assert_same(ops_compiled.resize([pixels], (20, 37), interpolation), wanted)
    assert resample.vertical_first(90, 40, (20, 37)) in (False, True)


def test_a_batch_of_all_sizes_and_strides() -> None:
    pictures = [picture(*size, 3) for size in SIZES]
    pictures += [picture(40, 60, 3)[::2], picture(40, 60, 3)[:, ::2], picture(40, 60, 3)[:, :, ::-1]]
    pictures += [picture(40, 60, 3)[::-1], picture(41, 60, 3)[:, 7:31], picture(300, 2, 3), picture(9, 900, 3)]
    assert_same(ops_compiled.resize(pictures, (24, 20), "bicubic"), ops_numpy.resize(pictures, (24, 20), "bicubic"))
    out = np.zeros((len(pictures), 24, 20, 6), np.uint8)[..., ::2]
    assert ops_compiled.resize(pictures, (24, 20), "bicubic", out=out) is out
    assert_same(np.ascontiguousarray(out), ops_numpy.resize(pictures, (24, 20), "bicubic"))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_a_kept_job_keeps_what_it_points_at(interpolation: str) -> None:
    """Jobs and tables are kept by size, each in a cache of its own: addresses in a job outlive what that one drops."""

    def tables() -> list[np.ndarray]:
        if interpolation == "nearest":
            return [resample.nearest_indices(37, 9, 0.0, 37.0), resample.nearest_indices(53, 14, 0.0, 53.0)]
        lines = resample.line_table(37, 9, interpolation, 0.0, 37.0), resample.line_table(53, 14, interpolation, 0, 53)
        return [array for line in lines for array in (line.first, line.count, line.weights)]

    caches = ops_compiled._template, resample.nearest_indices, resample.line_table
    for kept in caches:
        kept.cache_clear()
    pixels = picture(37, 53, 3)
    wanted = pillow(pixels, (9, 14), interpolation)
    assert_same(ops_compiled.resize([pixels], (9, 14), interpolation)[0], wanted)
    pointed_at = [weakref.ref(array) for array in tables()]
    for kept in caches[1:]:
        kept.cache_clear()
    assert all(array() is not None for array in pointed_at)
    assert_same(ops_compiled.resize([pixels], (9, 14), interpolation)[0], wanted)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "lanczos"])
@pytest.mark.parametrize("color_mode", COLOR_CHANNELS)
@pytest.mark.parametrize("is_lent", [True, False])
@pytest.mark.parametrize("keep_aspect_ratio", [True, False])
def test_pillows_images(
    color_mode: Any, interpolation: Any, is_lent: bool, keep_aspect_ratio: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_lent:
        monkeypatch.setattr(decode_pillow, "_lent_pixels", lambda *arguments: None)
    channels = COLOR_CHANNELS[color_mode]
    for size in SIZES:
        pixels = picture(*size, channels)
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).copy()
        for target in ((9, 14), size):
            options = DecodeOptions(color_mode, target, interpolation, keep_aspect_ratio)
            wanted = np.asarray(finish(image, options)).reshape(*target, channels)
            got = decode_pillow.resized(image, options, library.chosen())
            assert_same(got, wanted, message=f"{size} -> {target}")


@pytest.mark.parametrize("mode", decode_pillow._BYTES)
def test_pillow_lends_its_memory_where_it_can(mode: str) -> None:
    """And what it lends is the picture, at the bytes from pixel to pixel that its mode says."""
    channels, pixel_bytes = decode_pillow._BYTES[mode]
    pixels = picture(30, 20, channels)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).copy()
    assert image.mode == mode
    lent = decode_pillow._lent_pixels(image, pixel_bytes)
    assert (lent is not None) == hasattr(image, "__arrow_c_array__")
    if lent is not None:
        found = np.frombuffer(ctypes.string_at(lent[0], 30 * 20 * pixel_bytes), np.uint8)
        assert_same(found.reshape(30, 20, pixel_bytes)[:, :, :channels], pixels)


def test_grey_files_of_16_bits_are_pillows() -> None:
    image = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30))
    options = DecodeOptions("grayscale", (7, 9), "nearest")
    assert_same(decode_pillow.resized(image, options, library.chosen()), np.asarray(finish(image, options))[:, :, None])


def test_a_large_photograph_in_several_of_pillows_blocks() -> None:
    pixels = picture(2300, 2100, 3)
    image = Image.fromarray(pixels).copy()
    options = DecodeOptions("rgb", (224, 224), "bicubic")
    assert_same(decode_pillow.resized(image, options, library.chosen()), np.asarray(finish(image, options)))
