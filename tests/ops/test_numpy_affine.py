"""`ops_numpy.augment` equals SciPy's `affine_transform` to the last bit, and obeys the laws of a batch."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from gpuseq.ops import dispatch as ops
from gpuseq.ops.numpy import affine as ops_numpy_affine
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.numpy.affine import KEEP_BYTES, scratch
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.columns import COLUMNS, PARAMS_DTYPE, identity_params, is_at_rest
from tests import naive
from tests.cases import DTYPES, FILL_MODES, LINEAR_ORDERS, SHAPES, draw_params, identity, images, transposed
from tests.compare import assert_same, read_only

pytest.importorskip("scipy")
pytestmark = pytest.mark.each_cpu_engine

SIZES = [pytest.param(shape, id=name) for name, shape in SHAPES.items()]


def affine_only(**changes: object) -> AugmentOptions:
    """Return options that only move pixels."""
    return replace(AugmentOptions(has_channel_shift=False, has_brightness=False), **changes)


@pytest.mark.parametrize("order", LINEAR_ORDERS)
@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SIZES)
def test_equals_scipy(shape: tuple[int, int, int, int], dtype: str, fill_mode: str, order: int) -> None:
    batch = read_only(images(shape, dtype))
    num_samples, height, width, _ = shape
    out_dtype = "float64" if dtype == "float64" else "float32"
    options = affine_only(dtype=out_dtype, fill_mode=fill_mode, order=order, cval=-7.5)
    for seed in range(3):
        params = draw_params(num_samples, height, width, seed=seed)
        got = ops.augment(batch, params, options)
        assert_same(got, naive.augment(batch, params, options), message=f"seed {seed}")


@pytest.mark.parametrize("order", LINEAR_ORDERS)
@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("shape", SIZES)
def test_uint8_is_rounded_as_scipy_rounds(shape: tuple[int, int, int, int], fill_mode: str, order: int) -> None:
    batch = images(shape, "uint8")
    options = affine_only(dtype="uint8", round_affine=True, fill_mode=fill_mode, order=order, cval=200.0)
    for seed in range(3):
        params = draw_params(shape[0], shape[1], shape[2], seed=seed)
        assert_same(ops.augment(batch, params, options), naive.augment(batch, params, options), message=f"seed {seed}")


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("order", LINEAR_ORDERS)
@pytest.mark.parametrize(
    "move",
    [
        {"theta": 90.0},
        {"theta": 180.0},
        {"theta": -270.0},
        {"tx": 1.0},
        {"ty": -2.0},
        {"tx": 0.5, "ty": 0.5},
        {"tx": 1000.0},
        {"ty": -1e9},
        {"zx": 0.5, "zy": 0.5},
        {"zx": 2.0, "zy": 2.0},
        {"zx": -1.0},
        {"zx": 1e-3, "zy": 1e-3},
        {"zx": 50.0},
        {"shear": 45.0},
        {"shear": 89.9},
    ],
    ids=lambda move: "_".join(f"{name}{value:g}" for name, value in move.items()),
)
def test_ties_and_extremes_equal_scipy(move: dict[str, float], order: int, fill_mode: str) -> None:
    """Quarter turns, half pixels and far shifts put coordinates exactly on borders and ties."""
    for height, width in ((1, 1), (1, 6), (4, 4), (5, 5), (4, 7)):
        batch = images((1, height, width, 2), "float32")
        params = identity(1)
        for name, value in move.items():
            params[name] = value
        options = affine_only(fill_mode=fill_mode, order=order, cval=9.0)
        got = ops.augment(batch, params, options)
        assert_same(got, naive.augment(batch, params, options), message=f"{height}x{width}")


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("order", LINEAR_ORDERS)
def test_corrected_conventions_turn_about_the_centre(shape: tuple[int, int, int, int], order: int) -> None:
    batch = images(shape, "float32")
    params = draw_params(shape[0], shape[1], shape[2], seed=5)
    options = affine_only(conventions="corrected", order=order, fill_mode="reflect")
    assert_same(ops.augment(batch, params, options), naive.augment(batch, params, options))


def test_corrected_half_turn_of_a_wide_image_is_two_flips() -> None:
    batch = images((1, 5, 12, 3), "uint8")
    params = identity(1)
    params["theta"] = 180.0
    options = affine_only(order=0, conventions="corrected")
    assert_same(ops.augment(batch, params, options), batch[:, ::-1, ::-1].astype(np.float32))


def test_corrected_height_shift_moves_rows_and_keras_moves_columns() -> None:
    batch = images((1, 6, 9, 1), "uint8")
    params = identity(1)
    params["tx"] = 2.0
    corrected = ops.augment(
        batch, params, affine_only(order=0, conventions="corrected", fill_mode="constant", cval=0.0)
    )
    keras = ops.augment(batch, params, affine_only(order=0, conventions="keras", fill_mode="constant", cval=0.0))
    assert_same(corrected[:, :-2], batch[:, 2:].astype(np.float32))
    assert_same(keras[:, :, :-2], batch[:, :, 2:].astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SIZES)
def test_identity_rows_are_copied_exactly(shape: tuple[int, int, int, int], dtype: str) -> None:
    batch = images(shape, dtype)
    out_dtype = "float64" if dtype == "float64" else "float32"
    for fill_mode in FILL_MODES:
        got = ops.augment(batch, identity(shape[0]), affine_only(dtype=out_dtype, fill_mode=fill_mode))
        assert_same(got, batch.astype(out_dtype))


@pytest.mark.parametrize("flips", [(0, 1), (1, 0), (1, 1)], ids=["vertical", "horizontal", "both"])
@pytest.mark.parametrize("has_affine", [False, True])
@pytest.mark.parametrize("shape", SIZES)
def test_flips_are_exact(shape: tuple[int, int, int, int], has_affine: bool, flips: tuple[int, int]) -> None:
    batch = images(shape, "uint8")
    params = identity(shape[0])
    params["flip_horizontal"], params["flip_vertical"] = flips
    wanted = batch[:, :: -1 if flips[1] else 1, :: -1 if flips[0] else 1].astype(np.float32)
    assert_same(ops.augment(batch, params, affine_only(has_affine=has_affine)), wanted)


# The laws.


def test_what_is_warped_is_what_the_table_says_of_the_affine_columns() -> None:
    params = identity_params(len(COLUMNS) + 1)
    for row, column in enumerate(COLUMNS):
        params[column.name][row] = 360.0
    assert_same(ops_numpy_affine.is_warped(params), ~is_at_rest(params, "affine"))


@pytest.mark.parametrize("order", LINEAR_ORDERS)
@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_a_batch_equals_its_single_images(fill_mode: str, order: int) -> None:
    batch = images((7, 13, 9, 3), "uint8")
    params = draw_params(7, 13, 9, colour=True)
    options = AugmentOptions(fill_mode=fill_mode, order=order, samplewise_center=True, samplewise_std=True)
    together = ops.augment(batch, params, options)
    for sample in range(7):
        alone = ops.augment(batch[sample : sample + 1], params[sample : sample + 1], options)
        assert_same(alone, together[sample : sample + 1], message=f"sample {sample}")


@pytest.mark.parametrize("group_pixels", [1, 117, 118, 500])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_answer_does_not_depend_on_groups_or_threads(
    group_pixels: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = images((9, 13, 9, 3), "float32")
    params = draw_params(9, 13, 9, colour=True)
    options = AugmentOptions(rescale=1 / 255, samplewise_center=True, samplewise_std=True)
    wanted = ops.augment(batch, params, options)
    monkeypatch.setattr(ops_numpy, "GROUP_PIXELS", group_pixels)
    monkeypatch.setattr(ops_numpy, "SOLO_GROUP_PIXELS", group_pixels)
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", str(num_threads))
    assert_same(ops.augment(batch, params, options), wanted)


def test_scratch_of_a_larger_call_does_not_leak_into_a_smaller_one() -> None:
    small, params = images((2, 5, 4, 3), "uint8"), draw_params(2, 5, 4, colour=True)
    options = AugmentOptions(fill_mode="constant")
    wanted = ops.augment(small, params, options)
    ops.augment(images((6, 40, 37, 4), "float32"), draw_params(6, 40, 37), affine_only())
    assert_same(ops.augment(small, params, options), wanted)


def test_a_large_image_costs_its_thread_no_memory_for_good() -> None:
    """Counted by what NumPy reports that it allocates, on all threads: what the system keeps for a process varies."""
    params, options = draw_params(1, 1600, 1500), affine_only()
    ops.augment(images((1, 300, 300, 3), "uint8"), params, options)
    large = np.zeros((1, 1600, 1500, 3), np.uint8)
    tracemalloc.start()
    try:
        # Of NumPy's: the memory that the op takes for a batch has pages of its own, which nobody counts.
        batch = ops.augment(large, params, options, out=np.empty(large.shape, np.float32))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak >= batch.nbytes == 4 * large.size  # or nothing was counted
    assert held - batch.nbytes < 32 << 20, f"{held / 1e6:.0f} MB"
    assert max(buffer.nbytes for buffer in scratch.buffers.values()) <= KEEP_BYTES


def test_buffers_that_are_kept_and_that_are_not_make_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, params = images((3, 40, 37, 3), "uint8"), draw_params(3, 40, 37, colour=True)
    options = AugmentOptions(fill_mode="reflect")
    wanted = ops.augment(batch, params, options)
    monkeypatch.setattr(ops_numpy_affine, "KEEP_BYTES", 1000)
    assert_same(ops.augment(batch, params, options), wanted)


@pytest.mark.parametrize("source_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_layouts_agree(source_format: str, data_format: str) -> None:
    last = images((4, 9, 11, 3), "uint8")
    params = draw_params(4, 9, 11, colour=True)
    batch = last if source_format == "channels_last" else transposed(last)
    wanted = ops.augment(last, params, AugmentOptions())
    got = ops.augment(batch, params, AugmentOptions(source_format=source_format, data_format=data_format))
    assert got.flags.c_contiguous
    assert_same(got if data_format == "channels_last" else got.transpose(0, 2, 3, 1), wanted)


def test_rows_are_gathered_by_index() -> None:
    store = read_only(images((8, 7, 6, 3), "uint8"))
    indices = np.array([5, 0, 5, 7], np.int64)
    params = draw_params(4, 7, 6)
    assert_same(
        ops.augment(store, params, affine_only(), indices=indices), ops.augment(store[indices], params, affine_only())
    )


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_out_is_filled_and_returned(data_format: str) -> None:
    batch, params = images((3, 6, 5, 2), "uint8"), draw_params(3, 6, 5)
    options = affine_only(data_format=data_format)
    wanted = ops.augment(batch, params, options)
    out = np.full(wanted.shape, np.nan, np.float32)
    assert ops.augment(batch, params, options, out=out) is out
    assert_same(out, wanted)


def test_an_empty_batch_is_empty() -> None:
    got = ops.augment(
        images((4, 6, 5, 3), "uint8"), np.zeros(0, PARAMS_DTYPE), affine_only(), indices=np.zeros(0, np.int64)
    )
    assert_same(got, np.zeros((0, 6, 5, 3), np.float32))


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("source_format", ["channels_last", "channels_first"])
def test_splines_equal_scipy(order: int, source_format: str) -> None:
    last = images((3, 11, 8, 2), "float32")
    params = draw_params(3, 11, 8)
    batch = read_only(last if source_format == "channels_last" else transposed(last))
    rows = np.array([2, 0, -1])
    for fill_mode in FILL_MODES:
        options = affine_only(fill_mode=fill_mode, cval=4.0, source_format=source_format, order=order)
        wanted = naive.augment(last[rows], params, replace(options, source_format="channels_last"))
        got = ops.augment(batch, params, options, indices=rows)
        assert_same(got, wanted, max_ulp=4, atol=1e-4)


def test_splines_warp_nothing_where_that_is_promised() -> None:
    batch, params = images((3, 11, 8, 2), "float32"), draw_params(3, 11, 8)
    options = affine_only(has_affine=False, order=3)
    assert_same(ops.augment(batch, params, options), ops.augment(batch, params, replace(options, order=1)))
