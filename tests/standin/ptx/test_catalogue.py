"""The catalogue of the kernels on the compiled code: NVRTC's PTX, interpreted, equals the NumPy twins.

Every case runs in four ways: two architectures, in lockstep and in a random order of threads, all with races watched. A
few run in one way in every run of the tests, and the rest with ``-m exhaustive``.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.numpy import augment as ops_numpy
from tests import naive
from tests.cases import draw_params, identity, images
from tests.compare import assert_same
from tests.ops.cuda.catalogue import CASES, sums_on_the_edge
from tests.ops.cuda.test_augment_on_host import LAUNCHES, compute, near_twin
from tests.ops.cuda.variants import cut
from tests.standin.ptx import compiler, runner
from tests.standin.ptx.runner import PtxRun

pytestmark = pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")

WAYS = tuple(product(compiler.ARCHITECTURES, ("lockstep", "random")))
QUICK = (
    *(
        "affine_0_reflect",
        "affine_1_nearest",
        "moves_1_constant",
        "source_float32_float32",
        "out_float16",
        "out_bfloat16",
    ),
    *("out_uint8", "channels_19", "layout_first_first_19", "rounded_1_constant", "shift", "brightness", "everything"),
    "standardize_double",
)


def everyway(names: Any) -> pytest.MarkDecorator:
    """Run a test for each case in each way; all but some cases in the first way are slow."""
    return pytest.mark.parametrize(
        ("name", "way"),
        [
            pytest.param(name, way, marks=() if name in QUICK and way == WAYS[0] else pytest.mark.exhaustive)
            for name, way in product(names, WAYS)
        ],
        ids=lambda value: value if isinstance(value, str) else "-".join(value),
    )


def install(patch: pytest.MonkeyPatch, way: tuple[str, str], **settings: Any) -> PtxRun:
    return runner.install(patch, architecture=way[0], schedule=way[1], **settings)


@everyway(CASES)
def test_equals_the_numpy_twin(name: str, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    if case.options.dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    made = install(monkeypatch, way)
    for run in case.runs(num_seeds=1 if name in QUICK and way == WAYS[0] else 2):
        wanted = compute(ops_numpy, case, run)
        assert_same(compute(ops_cuda, case, run), wanted, message=run.label, **near_twin(case))
    assert made.num_launches >= 5


@pytest.mark.parametrize("channels", [3, 4])
def test_words_lie_within_the_array(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch may read its arrays to their exact ends, wherever they begin; one byte beyond is a fault."""
    made = install(monkeypatch, WAYS[0])
    options = CASES["affine_1_nearest"].options
    memory = np.zeros(4096, np.uint8)
    for lead, (rows, height, width) in product(range(4), ((1, 4, 5), (3, 3, 7), (7, 1, 1), (4, 2, 1), (4, 1, 2))):
        batch = images((rows, height, width, channels), seed=lead)
        first = -memory.ctypes.data % 4 + lead
        held = memory[first : first + batch.size].reshape(batch.shape)
        held[:] = batch
        indices = np.tile(np.arange(rows), 2)
        params = np.concatenate([identity(rows), draw_params(rows, height, width, seed=lead)])
        params["tx"][:rows] = 0.25
        wanted = ops_numpy.augment(batch, params, options, indices=indices)
        assert_same(ops_cuda.augment(held, params, options, indices=indices), wanted, message=f"{lead}: {batch.shape}")
    assert made.num_launches == 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("name", ["affine_1_reflect", "layout_first_first_19", "shift", "everything", "both_half"])
def test_the_answer_does_not_depend_on_the_launch(name: str, launch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    how, block, tile_cols, across, rows_per_band = LAUNCHES[launch]
    runner.install(monkeypatch, how)
    cut(monkeypatch, block=block, tile_cols=tile_cols, across=across, rows_per_band=rows_per_band)
    for run in case.runs(num_seeds=1):
        wanted = compute(ops_numpy, case, run)
        assert_same(compute(ops_cuda, case, run), wanted, message=run.label, **near_twin(case))


@pytest.mark.exhaustive
@pytest.mark.parametrize("architecture", compiler.ARCHITECTURES)
@pytest.mark.parametrize("name", ["affine_1_nearest", "layout_last_first", "everything"])
def test_photographs_are_launched_as_in_production(
    name: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole tiles, whole warps, several bands: what small images do not reach."""
    case = CASES[name]
    batch = images((3, 224, 213, 3), case.dtype, seed=5)
    params = identity(2)
    params["theta"], params["tx"], params["zx"] = [17.0, -3.0], [5.5, -20.0], [0.9, 1.2]
    params["flip_horizontal"], params["channel_shift_intensity"], params["brightness"] = [True, False], 20.0, [0.5, 1.5]
    made = runner.install(monkeypatch, architecture=architecture)
    arguments = (batch, params, case.options)
    indices = np.array([2, 0])
    statistics = next(case.runs(1)).statistics
    got = ops_cuda.augment(*arguments, indices=indices, statistics=statistics)
    wanted = ops_numpy.augment(*arguments, indices=indices, statistics=statistics)
    assert_same(got, wanted, **near_twin(case))
    assert made.thread_steps > 10_000_000


@pytest.mark.exhaustive
@pytest.mark.parametrize("architecture", compiler.ARCHITECTURES)
def test_sums_on_the_edge_of_two_floats_are_rounded_as_scipys(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the test of this name on the host's compiler: here it is the GPU's that chose the instructions."""
    batch, params, _ = sums_on_the_edge(4000)
    options = CASES["affine_1_reflect"].options
    runner.install(monkeypatch, architecture=architecture)
    cut(monkeypatch, block=16, tile_cols=4, across=1, rows_per_band=None)
    assert_same(ops_cuda.augment(batch, params, options), naive.augment(batch, params, options))
