"""The compiled engine equals the NumPy engine to the bit: the kernels' catalogue, drawn cases, ties, cuts of work."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseq.ops.compiled import augment as ops_compiled
from gpuseq.ops.compiled import library
from gpuseq.ops.numpy import augment as ops_numpy
from gpuseq.ops.options import AugmentOptions, Statistics
from tests import compiled_library
from tests.cases import draw_params, identity, images, transposed
from tests.compare import assert_same, read_only
from tests.ops.cuda.catalogue import CASES, Case, Run

PLAIN = AugmentOptions(has_channel_shift=False, has_brightness=False)


@pytest.fixture(params=["avx2", "baseline"])
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return each instruction set's name, with the engine told to take it."""
    compiled_library.require()
    found = library.instruction_sets()
    assert not isinstance(found, str)
    if request.param not in {item.name for item in found}:
        pytest.skip(f"this CPU does not run {request.param}")
    monkeypatch.setenv(library.ENGINE, f"compiled:{request.param}")
    assert library.describe() == f"compiled, {request.param}"
    return str(request.param)


def compute(engine: Any, case: Case, run: Run) -> np.ndarray:
    """Run one call of the catalogue on an engine."""
    if case.standardize_only:
        return engine.standardize(run.images, case.options, run.statistics)
    return engine.augment(run.images, run.params, case.options, indices=run.indices, statistics=run.statistics)


@pytest.mark.parametrize("name", CASES)
def test_the_catalogue_to_the_bit(name: str, instruction_set: str) -> None:
    case = CASES[name]
    if case.options.dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    for run in case.runs():
        wanted = compute(ops_numpy, case, run)
        run.images.flags.writeable = False
        got = compute(ops_compiled, case, run)
        assert got.flags.c_contiguous
        assert_same(got, wanted, message=run.label)


@st.composite
def _calls(draw: st.DrawFn) -> tuple[AugmentOptions, Run]:
    num_samples, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    dtype = draw(st.sampled_from(["uint8", "uint8", "uint16", "float32", "float64"]))
    mode = draw(st.sampled_from([None, None, "tf", "caffe", "torch"]))
    channels = 3 if mode in ("caffe", "torch") else draw(st.integers(1, 6))
    out = draw(st.sampled_from(["float32", "float32", "float64", "float16", "uint8"]))
    seed = draw(st.integers(0, 2**20))
    options = AugmentOptions(
        source_format=draw(st.sampled_from(["channels_last", "channels_first"])),
        data_format=draw(st.sampled_from(["channels_last", "channels_first"])),
        dtype=out,
        fill_mode=draw(st.sampled_from(["nearest", "constant", "reflect", "wrap"])),
        cval=draw(st.sampled_from([0.0, -7.5, 300.0, 12.25])),
        order=draw(st.integers(0, 1)),
        conventions=draw(st.sampled_from(["keras", "corrected"])),
        has_affine=draw(st.booleans()),
        has_flip=draw(st.booleans()),
        has_channel_shift=draw(st.booleans()),
        has_brightness=draw(st.booleans()),
        round_affine=out == "uint8" and dtype == "uint8" and draw(st.booleans()),
        preprocessing=mode,
        rescale=draw(st.sampled_from([1.0, 1 / 255, 0.3])),
        samplewise_center=draw(st.booleans()),
        samplewise_std=draw(st.booleans()),
        featurewise_center=draw(st.booleans()),
        featurewise_std=draw(st.booleans()),
    )
    batch = images((num_samples + 1, height, width, channels), dtype, seed=seed)
    if options.source_format == "channels_first":
        batch = transposed(batch)
    params = draw_params(num_samples, height, width, seed=seed, colour=True)
    if not options.has_flip:  # it promises that no row asks for one
        params["flip_horizontal"] = params["flip_vertical"] = 0
    if draw(st.booleans()):
        params[0] = identity(1)[0]
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(0.1, 200, (2, channels)).astype(np.float32)
    indices = rng.integers(0, num_samples + 1, num_samples)
    return options, Run("drawn", batch, params, indices, Statistics(mean=mean, std=std))


@settings(max_examples=300)
@given(call=_calls())
def test_any_call_equals_numpys(call: tuple[AugmentOptions, Run]) -> None:
    if library.chosen() is None:
        compiled_library.require()
        pytest.skip(f"{library.ENGINE}=numpy")
    options, run = call
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        case = Case("drawn", options)
        assert_same(compute(ops_compiled, case, run), compute(ops_numpy, case, run), message=str(options))


def test_sums_next_to_the_middle_of_two_floats(instruction_set: str) -> None:
    """The fused sum differs from SciPy's in its last bits: pixels are put where that decides about a float."""
    rng = np.random.default_rng(3)
    num_samples = 40_000
    batch = rng.integers(1, 256, (num_samples, 3, 4, 3), dtype=np.uint8)
    row_fraction, col_fraction = rng.uniform(0.2, 0.8, (2, num_samples))
    left, right = batch[:, 1:, 1, 0].astype(np.float64).T, batch[:, 1:, 2, 0].astype(np.float64).T
    upper, lower = left + col_fraction * (right - left)
    wanted = (0.7 * upper + 0.3 * lower).astype(np.float32)
    middle = (wanted.astype(np.float64) + np.nextafter(wanted, np.float32(1e9))) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        solved = (middle - upper) / (lower - upper)
    row_fraction = np.where(np.isfinite(solved) & (solved > 0) & (solved < 1), solved, row_fraction)
    params = identity(num_samples)
    params["tx"], params["ty"] = col_fraction, row_fraction  # Keras' names move the other axis
    options = replace(PLAIN, fill_mode="reflect")
    for channels in (slice(0, 1), slice(0, 2), slice(0, 3)):
        part = np.ascontiguousarray(batch[..., channels])
        got = ops_compiled.augment(part, params, options)
        assert_same(got, ops_numpy.augment(part, params, options))
    distance = np.abs(got[:, 1, 1, 0].astype(np.float64) - middle)
    assert np.count_nonzero(distance <= np.spacing(got[:, 1, 1, 0]) * 0.5000001) > num_samples // 2


LARGE_MOVES: dict[str, dict[str, float]] = {
    "turned": {"theta": 25.0, "shear": 10.0},
    "tiny": {"zx": 0.05, "zy": 0.1},
    "far": {"tx": 3000.0},
    "out": {"zx": 9.0, "zy": 9.0},
}


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect", "wrap"])
@pytest.mark.parametrize("move", LARGE_MOVES.values(), ids=LARGE_MOVES)
@pytest.mark.parametrize("order", [0, 1])
def test_images_that_are_worked_on_in_blocks(
    fill_mode: Any, move: dict[str, float], order: int, instruction_set: str
) -> None:
    """Larger than the window that is copied whole; blocks with their own window, and rows with their own taps."""
    batch = images((2, 470, 390, 3), "uint8")
    params = identity(2)
    for field, value in move.items():
        params[field] = value
    params["flip_horizontal"][1] = params["flip_vertical"][1] = 1
    options = replace(PLAIN, fill_mode=fill_mode, order=order, cval=7.0, data_format="channels_first")
    assert_same(ops_compiled.augment(batch, params, options), ops_numpy.augment(batch, params, options))
    doubled = replace(options, dtype="float64", samplewise_center=True)
    assert_same(ops_compiled.augment(batch, params, doubled), ops_numpy.augment(batch, params, doubled))


@pytest.mark.parametrize("num_threads", ["1", "2", "7"])
@pytest.mark.parametrize("name", ["affine_1_reflect", "everything", "layout_first_first_19"])
def test_the_answer_does_not_depend_on_the_cut(name: str, num_threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", num_threads)
    monkeypatch.setattr(ops_compiled, "SOLO_PIXELS", 0)
    case = CASES[name]
    for run, call_pixels in itertools.product(case.runs(num_seeds=1), (1, 100, 1 << 20)):
        monkeypatch.setattr(ops_compiled, "CALL_PIXELS", call_pixels)
        monkeypatch.setattr(ops_compiled, "STREAMED_BYTES", call_pixels - 1)
        assert_same(compute(ops_compiled, case, run), compute(ops_numpy, case, run), message=run.label)


@pytest.mark.parametrize("num_samples", [1, 7, 8, 30])
def test_no_call_of_the_library_is_long(num_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C waits for the call that runs: images larger than a call are cut, however many of them there are."""
    compiled_library.require()
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", "2")
    monkeypatch.setattr(ops_compiled, "SOLO_PIXELS", 0)
    monkeypatch.setattr(ops_compiled, "CALL_PIXELS", 500)
    calls: list[int] = []
    for_each = ops_compiled.for_each
    monkeypatch.setattr(
        ops_compiled, "for_each", lambda call, count, threads: (calls.append(count), for_each(call, count, threads))
    )
    batch, params = images((num_samples, 40, 30, 3), "uint8"), draw_params(num_samples, 40, 30)
    options = AugmentOptions(has_channel_shift=False, has_brightness=False)
    assert_same(ops_compiled.augment(batch, params, options), ops_numpy.augment(batch, params, options))
    assert sum(calls) * 500 >= num_samples * 40 * 30


@given(
    num_samples=st.integers(1, 100),
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    num_threads=st.integers(1, 32),
)
def test_samples_are_cut_no_finer_than_it_takes(num_samples: int, height: int, width: int, num_threads: int) -> None:
    """Each band repeats the preparation of its sample: one fewer would be too few for the threads, or too large."""
    rows = ops_compiled._rows_per_unit(num_samples, height, width, num_threads)
    assert 1 <= rows <= height
    num_bands = -(-height // rows)
    if num_bands > 1:
        assert rows >= 16
        assert num_threads > 1
        is_too_few = num_samples * (num_bands - 1) < 4 * num_threads
        assert is_too_few or height * width > (num_bands - 1) * ops_compiled.CALL_PIXELS


@pytest.mark.parametrize("num_threads", [2, 3, 7])
@pytest.mark.parametrize("centers", [False, True])
@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_that_threads_share(
    num_threads: int, centers: bool, scales: bool, dtype: Any, instruction_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large sample is reduced by all threads, band by band, and its sums are those of one thread to the bit."""
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", str(num_threads))
    monkeypatch.setattr(ops_compiled, "SOLO_PIXELS", 0)
    monkeypatch.setattr(ops_compiled, "SHARED_PIXELS", 0)
    planned: list[int] = []
    stages = ops_compiled._stages
    monkeypatch.setattr(
        ops_compiled, "_stages", lambda options, bands: (planned.append(bands), stages(options, bands))[1]
    )
    options = AugmentOptions(dtype=dtype, samplewise_center=centers, samplewise_std=scales, rescale=1 / 255)
    for height, width, channels, call_pixels in ((1, 9, 3, 1), (33, 20, 3, 1 << 20), (150, 7, 1, 50), (64, 31, 4, 1)):
        monkeypatch.setattr(ops_compiled, "CALL_PIXELS", call_pixels)
        for num_samples in (1, num_threads - 1):
            batch = images((num_samples, height, width, channels), "float32", seed=height)
            params = draw_params(num_samples, height, width, seed=height, colour=True)
            got, wanted = (engine.augment(batch, params, options) for engine in (ops_compiled, ops_numpy))
            assert_same(got, wanted, message=f"{batch.shape}")
    assert len(planned) == 8
    assert max(planned) > 1


def test_absurd_and_missing_coordinates_are_no_address(instruction_set: str) -> None:
    batch = images((6, 9, 11, 3), "uint8")
    params = identity(6)
    params["tx"] = [1e300, -1e300, np.nan, np.inf, 2.0**51 + 0.5, -(2.0**60)]
    for fill_mode in ("nearest", "constant", "reflect", "wrap"):
        options = replace(PLAIN, fill_mode=fill_mode)
        with np.errstate(all="ignore"):
            got = ops_compiled.augment(batch, params, options)
            assert_same(got[4:], ops_numpy.augment(batch[4:], params[4:], options), message=fill_mode)


@pytest.mark.parametrize("specials", [(np.nan,), (np.inf,), (-np.inf,), (np.nan, np.inf, -np.inf)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pixels_that_are_no_numbers(dtype: str, specials: tuple[float, ...], instruction_set: str) -> None:
    """A range has a NaN in it as NumPy's ``min`` and ``max`` have, whichever lane meets it, and wherever it lies."""
    for place in range(0, 9 * 11 * 3, 37):
        batch = images((3, 9, 11, 3), dtype)
        for step, value in enumerate(specials):
            batch[:, :, :, :].reshape(3, -1)[:, (place + 19 * step) % (9 * 11 * 3)] = value
        for params in (draw_params(3, 9, 11, colour=True), identity(3)):
            params["channel_shift_intensity"], params["brightness"] = (3.0, -20.0, 0.5), (0.5, 1.5, np.nan)
            with np.errstate(all="ignore"):
                got, wanted = (
                    engine.augment(batch.copy(), params, AugmentOptions()) for engine in (ops_compiled, ops_numpy)
                )
            assert_same(got, wanted, message=f"{place}: ")


def test_out_is_filled_and_returned_whatever_its_strides() -> None:
    compiled_library.require()
    case = CASES["affine_1_reflect"]
    run = next(case.runs())
    wanted = compute(ops_numpy, case, run)
    out = np.full_like(wanted, np.nan)
    assert ops_compiled.augment(run.images, run.params, case.options, out=out) is out
    assert_same(out, wanted)
    strided = np.full((*wanted.shape[:-1], 2 * wanted.shape[-1]), np.nan, np.float32)[..., ::2]
    assert ops_compiled.augment(run.images, run.params, case.options, out=strided) is strided
    assert_same(np.ascontiguousarray(strided), wanted)


def test_nothing_beside_the_batch_is_written() -> None:
    compiled_library.require()
    for channels, width, dtype in itertools.product((1, 2, 3, 4, 5), (1, 3, 4, 7), ("float32", "uint8", "float16")):
        batch = read_only(images((3, 5, width, channels), "uint8"))
        params = draw_params(3, 5, width, seed=1)
        room = np.full(batch.size + 64, 77, dtype)
        out = room[32:-32].reshape(batch.shape)
        ops_compiled.augment(batch, params, replace(PLAIN, dtype=dtype), out=out)
        assert (room[:32] == 77).all()
        assert (room[-32:] == 77).all()


def test_an_empty_batch_and_other_dtypes() -> None:
    compiled_library.require()
    batch = images((2, 5, 4, 3), "uint8")
    got = ops_compiled.augment(batch, identity(0), PLAIN, indices=np.zeros(0, np.int64))
    assert got.shape == (0, 5, 4, 3)
    params = draw_params(2, 5, 4, seed=2)
    wanted = ops_compiled.augment(batch, params, PLAIN)
    assert_same(ops_compiled.augment(batch.astype(np.int16), params, PLAIN), wanted)


def test_a_mode_for_three_channels_says_so() -> None:
    compiled_library.require()
    with pytest.raises(ValueError, match=r"'caffe' is defined for 3 channels; the images have 1"):
        ops_compiled.standardize(images((1, 4, 4, 1), "float32"), replace(PLAIN, preprocessing="caffe"))
