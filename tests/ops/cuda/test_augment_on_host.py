"""The kernels of `augment.cu` and `reduce.cu`, run on the CPU, equal their NumPy twins, SciPy and Pillow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.options import AugmentOptions
from tests import naive
from tests.cases import identity, images
from tests.compare import assert_same
from tests.ops.cuda.catalogue import CASES, Case, Run, sums_on_the_edge
from tests.ops.cuda.variants import cut
from tests.standin import host_runner
from tests.standin.host_runner import HostRun, Launch

pytest.importorskip("scipy")


def compute(engine: Any, case: Case, run: Run) -> np.ndarray:
    """Run one call of the catalogue on an engine."""
    if case.standardize_only:
        return engine.standardize(run.images, case.options, run.statistics)
    return engine.augment(run.images, run.params, case.options, indices=run.indices, statistics=run.statistics)


def near_twin(case: Case) -> dict[str, Any]:
    """How far the twins may lie apart: not at all, but for sums taken in another order and the last bits of doubles."""
    options = case.options
    if options.samplewise_center or options.samplewise_std:
        return {"atol": 2e-5 if options.rescale != 1 or options.samplewise_std else 1e-4}
    return {"atol": 1e-11} if options.dtype == "float64" else {}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> HostRun:
    return host_runner.install(monkeypatch)


def test_numpy_knows_bfloat16() -> None:
    """The package registers the dtype that the cases name; CuPy needs it for the same."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert np.dtype("bfloat16") == ml_dtypes.bfloat16


@pytest.mark.parametrize("name", CASES)
def test_equals_the_numpy_twin(name: str, host: HostRun) -> None:
    case = CASES[name]
    if case.options.dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    for run in case.runs():
        wanted = compute(ops_numpy, case, run)
        run.images.flags.writeable = False
        got = compute(ops_cuda, case, run)
        assert got.flags.c_contiguous
        assert_same(got, wanted, message=run.label, **near_twin(case))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.standardize_only])
def test_equals_scipy_and_pillow(name: str, host: HostRun) -> None:
    case = CASES[name]
    if case.options.dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    for run in case.runs(num_seeds=1):
        got = compute(ops_cuda, case, run)
        wanted = naive.augment(run.images, run.params, case.options, indices=run.indices, statistics=run.statistics)
        near = 0.0 if case.exact else 1e-10 if case.options.dtype == "float64" else 5e-5
        assert_same(got, wanted, atol=near, message=run.label)


@pytest.mark.parametrize("specials", [(np.nan,), (np.inf,), (-np.inf,), (np.nan, np.inf, -np.inf)])
def test_pixels_that_are_no_numbers(specials: tuple[float, ...], host: HostRun) -> None:
    """A range has a NaN in it as NumPy's ``min`` and ``max`` have, and what Keras casts to uint8 becomes 0."""
    params = identity(3)
    params["channel_shift_intensity"], params["brightness"] = (3.0, -20.0, 0.5), (0.5, 1.5, np.nan)
    for place in (0, 130, 9 * 11 * 3 - 1):
        batch = images((3, 9, 11, 3), "float32")
        for step, value in enumerate(specials):
            batch.reshape(3, -1)[:, place - 19 * step] = value
        with np.errstate(all="ignore"):
            got, wanted = (engine.augment(batch.copy(), params, AugmentOptions()) for engine in (ops_cuda, ops_numpy))
        assert_same(got, wanted, message=f"{place}: ")


LAUNCHES = {
    "one_thread": (Launch((1,)), 1, 1, 1, 1),
    "one_thread_whole_image": (Launch((3,)), 1, 1, 1, 64),
    "three_threads": (Launch((2,)), 3, 1, 1, 2),
    "odd_block": (Launch((7, 2), reverse=True), 48, 16, 1, 3),
    "narrow_tiles": (Launch((1,), reverse=True), 32, 4, 2, 64),
    "one_block": (Launch((1,)), 256, 32, 1, 64),
    "more_blocks_than_work": (Launch((200,)), 32, 32, 1, 5),
    "from_the_last_thread": (Launch(None, reverse=True), 256, 8, 4, 16),
}
"""Name -> grid and thread order, threads, tile columns, groups across, rows of a band."""


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("name", ["affine_1_reflect", "layout_first_first_19", "shift", "everything", "both_half"])
def test_the_answer_does_not_depend_on_the_launch(name: str, launch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    how, block, tile_cols, across, rows_per_band = LAUNCHES[launch]
    host_runner.install(monkeypatch, flags=host_runner.OPTIMIZED)
    wanted = [compute(ops_cuda, case, run) for run in case.runs(num_seeds=1)]
    host_runner.install(monkeypatch, how)
    cut(monkeypatch, block=block, tile_cols=tile_cols, across=across, rows_per_band=rows_per_band)
    for run, expected in zip(case.runs(num_seeds=1), wanted, strict=True):
        near = {"max_ulp": 8} if case.options.samplewise_std else {}
        assert_same(compute(ops_cuda, case, run), expected, message=run.label, **near)


def test_sums_on_the_edge_of_two_floats_are_rounded_as_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused sum differs from SciPy's in its last bits; where that could show in a float, SciPy's order is taken."""
    num_samples = 4000
    batch, params, middle = sums_on_the_edge(num_samples)
    options = CASES["affine_1_reflect"].options

    host_runner.install(monkeypatch)
    cut(monkeypatch, block=16, tile_cols=4, across=1, rows_per_band=None)
    got = ops_cuda.augment(batch, params, options)
    assert_same(got, naive.augment(batch, params, options))
    distance = np.abs(got[:, 1, 1, 0].astype(np.float64) - middle)
    assert np.count_nonzero(distance <= np.spacing(got[:, 1, 1, 0]) * 0.5000001) > num_samples // 2


@pytest.mark.parametrize(
    ("num_samples", "height", "width"), [(1, 1, 1), (256, 224, 224), (1, 4000, 6000), (3, 5000, 1), (10**6, 8, 8)]
)
@pytest.mark.parametrize("tile_cols", [8, 16, 32])
@pytest.mark.parametrize("has_range", [False, True])
def test_every_row_is_in_one_band(num_samples: int, height: int, width: int, tile_cols: int, has_range: bool) -> None:
    made = ops_cuda._geometry(num_samples, height, width, tile_cols, has_range)
    assert 1 <= made.rows_per_band <= ops_cuda.MAX_BAND_ROWS
    assert (made.num_bands - 1) * made.rows_per_band < height <= made.num_bands * made.rows_per_band
    assert made.block <= ops_cuda.MAX_BLOCK
    assert made.block % (tile_cols * made.groups_across) == 0
    assert made.groups_across in (1, 2, 4)
    assert made.grid == (made.num_bands, min(num_samples, 65535))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
def test_threads_side_by_side_write_whole_sectors(data_format: Any, dtype: Any, channels: int) -> None:
    options = replace(CASES["affine_1_reflect"].options, data_format=data_format, dtype=dtype)
    variant = ops_cuda._variant(options, np.dtype(np.uint8), channels, True, False, False)
    assert variant.pixel_bytes == np.dtype(dtype).itemsize * (channels if data_format == "channels_last" else 1)
    assert variant.tile_cols in (8, 16, 32)
    assert variant.tile_cols * variant.pixel_bytes >= 32
    assert variant.tile_cols == 8 or variant.tile_cols * variant.pixel_bytes < 64
    assert dict(variant.augment)["TILE_COLS"] == str(variant.tile_cols)


def test_a_small_batch_runs_at_once_and_the_blocks_of_a_large_one_end_together() -> None:
    one = ops_cuda._geometry(1, 224, 224, 8, False)
    assert one.num_bands == 28  # the lowest bands that there are
    for num_samples in (16, 32, 64, 100, 128):
        blocks = num_samples * ops_cuda._geometry(num_samples, 224, 224, 8, False).num_bands
        assert 300 < blocks <= ops_cuda.BLOCKS_AT_ONCE
    for num_samples in (256, 512):
        blocks = num_samples * ops_cuda._geometry(num_samples, 224, 224, 8, False).num_bands
        assert blocks > 3 * ops_cuda.BLOCKS_AT_ONCE
    assert ops_cuda._geometry(1024, 224, 224, 8, False).rows_per_band == 56  # without low ones it has enough


def test_bands_are_high_where_each_block_reads_the_range_of_every_band() -> None:
    for num_samples in (1, 64, 256, 1024):
        without, with_range = (ops_cuda._geometry(num_samples, 224, 224, 8, has_range) for has_range in (False, True))
        assert with_range.rows_per_band >= without.rows_per_band
    assert ops_cuda._geometry(256, 224, 224, 8, True).num_bands == 4
    assert ops_cuda._geometry(256, 224, 224, 8, False).num_bands == 10
    # One image: 28 bands would be looked through by each of 28 blocks.
    assert ops_cuda._geometry(1, 224, 224, 8, True).num_bands < 28


def test_a_reduction_is_launched_only_where_it_is_needed(host: HostRun) -> None:
    for name, kernels in {
        "affine_1_nearest": ["augment"],
        "brightness": ["augment"],
        "brightness_outside": ["sample_range", "augment"],
        "shift": ["sample_range", "augment"],
        "samplewise_mean": ["sample_moments", "augment"],
        "samplewise": ["sample_range", "sample_moments", "augment"],
    }.items():
        host.variants.clear()
        compute(ops_cuda, CASES[name], next(CASES[name].runs()))
        assert [kernel for kernel, _ in host.variants] == kernels, name


def test_an_empty_batch_launches_nothing(host: HostRun) -> None:
    run = next(CASES["copy"].runs())
    got = ops_cuda.augment(run.images, run.params[:0], CASES["copy"].options, indices=np.zeros(0, np.int64))
    assert got.shape == (0, *run.images.shape[1:])
    assert host.num_launches == 0


def test_out_is_filled_and_returned(host: HostRun) -> None:
    case = CASES["affine_1_reflect"]
    run = next(case.runs())
    wanted = compute(ops_cuda, case, run)
    out = np.full_like(wanted, np.nan)
    assert ops_cuda.augment(run.images, run.params, case.options, out=out) is out
    assert_same(out, wanted)


def test_an_image_that_is_not_contiguous_is_copied(host: HostRun) -> None:
    case = CASES["affine_1_reflect"]
    run = next(run for run in case.runs() if run.images.size > 100)
    strided = np.repeat(run.images, 2, axis=2)[:, :, ::2]
    assert not strided.flags.c_contiguous
    got = ops_cuda.augment(strided, run.params, case.options)
    assert_same(got, compute(ops_cuda, case, run))
