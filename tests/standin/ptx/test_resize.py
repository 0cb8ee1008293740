"""``resample_pass`` on the compiled code equals Pillow to the bit: see `test_catalogue` for the four ways."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from gpuseq.ops.cuda import resize as ops_cuda_resize
from tests.compare import assert_same
from tests.ops.cuda.test_resize_on_host import FILTERS, MODES, TARGETS, by_pillow, crops, pictures
from tests.standin.host_runner import Launch
from tests.standin.ptx import compiler, runner
from tests.standin.ptx.test_catalogue import WAYS, install

pytestmark = pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")


@pytest.fixture(autouse=True)
def _no_tables_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_cuda_resize, "_kept", type(ops_cuda_resize._kept)())


@pytest.mark.parametrize(
    ("channels", "interpolation", "boxes", "way"),
    [
        pytest.param(*case, marks=() if case[2:] == ("fraction", WAYS[0]) and case[0] > 2 else pytest.mark.exhaustive)
        for case in product(MODES, FILTERS, ("whole", "fraction", "centre"), WAYS)
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_equals_pillow(
    channels: int, interpolation: str, boxes: str, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, way)
    batch = pictures(channels)
    for target_size in TARGETS:
        got = ops_cuda_resize.resize(batch, target_size, interpolation, boxes=crops(boxes))
        assert_same(got, by_pillow(batch, target_size, interpolation, crops(boxes)), message=f"{target_size}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "lanczos"])
def test_photographs_equal_pillow(interpolation: str, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, way)
    rng = np.random.default_rng(3)
    batch = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((375, 500, 3), (3, 4001, 3), (2999, 2, 3))]
    for target_size in ((3, 224), (299, 5), (64, 64)):
        got = ops_cuda_resize.resize(batch, target_size, interpolation)
        assert_same(got, by_pillow(batch, target_size, interpolation, None))


@pytest.mark.exhaustive
@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (40, 20)], ids=str)
@pytest.mark.parametrize("block", [1, 5, 256])
def test_the_answer_does_not_depend_on_the_launch(
    grid: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops_cuda_resize, "BLOCK", block)
    runner.install(monkeypatch, Launch(grid, reverse=grid == (3, 2)))
    batch = pictures(4)
    got = ops_cuda_resize.resize(batch, (7, 9), "hamming")
    assert_same(got, by_pillow(batch, (7, 9), "hamming", None))
