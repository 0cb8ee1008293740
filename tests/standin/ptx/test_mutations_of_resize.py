"""The comparison sees what is wrong with a pass of the resize: see `test_mutations`. Every mutant is tried."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gpuseq.ops.cuda import resize as ops_cuda_resize
from gpuseq.ops.numpy import resize as ops_numpy_resize
from tests.compare import assert_same
from tests.standin.host_runner import Launch
from tests.standin.ptx import compiler, machine, runner
from tests.standin.ptx.errors import LaunchError
from tests.standin.ptx.machine import Program
from tests.standin.ptx.survivors import Rule, check, survey

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed"),
]

EDGE = "edge on the other side"
RULES = (
    Rule(
        "resample_pass", r"kind == HORIZONTAL \|\| kind == VERTICAL", EDGE, "there is no kind of pass behind these two"
    ),
    Rule("", "", EDGE, "every pass has a tap", r"^setp\.(gt\.s32 %p\d+, %r\d+, 0|lt\.s32 %p\d+, %r\d+, 1)$"),
    Rule("sum_taps", r"pixel\[channel\] < 0 \?", EDGE, "0 for 0"),
)


def parts(channels: int) -> list[tuple[list[np.ndarray], np.ndarray, tuple[str, ...], tuple[tuple[int, int], ...]]]:
    """Return batches with boxes, filters and grids.

    Small images; boxes far from the first line, where the second pass does not begin at 0; and boxes of 2 to 12 taps
    that all count, for the loops that take four of them at once, columns first and rows first.
    """
    rng = np.random.default_rng(0)
    small = [(5, 7), (9, 4), (6, 8), (6, 5), (11, 8)]
    boxes = np.array([(0, 0, width, height) for height, width in small], np.float32)
    boxes[0], boxes[-1] = (1.5, 1.0, 6.25, 4.75), (2, 3, 8, 11)
    large = [(40, 31), (31, 50), (60, 12)]
    inside = np.array([(9.5, 11.0, 29.0, 38.5), (20.0, 9.0, 49.0, 24.0), (3.0, 30.0, 11.0, 59.0)], np.float32)
    scales = [half / 2 for half in range(2, 12)]
    even = [(int(rows * scale), int(8 * scale)) for rows in (6, 34) for scale in scales]
    evenly = np.array([(0, 0, 8 * scale, 6 * scale) for _ in (6, 34) for scale in scales], np.float32)
    found = []
    for sizes, limits, names, grids in (
        (small, boxes, ("nearest", "bicubic"), ((3, 2), (1, 7), (11, 3))),  # of the last one some blocks have no pixel
        (large, inside, ("nearest", "bicubic"), ((3, 2),)),
        (even, evenly, ("box", "bilinear"), ((3, 2),)),
    ):
        batch = [rng.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
        if channels == 4:
            for image in batch:
                image[..., 3].flat[::3], image[..., 3].flat[1::5] = 0, 255
        found.append((batch, limits, names, grids))
    return found


@pytest.fixture
def _tall_images_go_by_rows_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever Pillow is installed: the NumPy engine, which is equal to it in both orders, takes the same."""
    for module in (ops_cuda_resize, ops_numpy_resize):
        monkeypatch.setattr(module, "vertical_first", lambda height, width, _: height > 4 * width)
    ops_cuda_resize._plan.cache_clear()
    yield
    ops_cuda_resize._plan.cache_clear()


@pytest.mark.usefixtures("_tall_images_go_by_rows_first")
@pytest.mark.parametrize("channels", [3, 4])
def test_changed_instructions_of_the_resize_are_seen(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAX_STEPS", 3_000_000)  # a loop's wrong end must not take minutes
    run = runner.install(monkeypatch)
    cases = [
        (batch, boxes, name, grids, ops_numpy_resize.resize(batch, (6, 8), name, boxes=boxes))
        for batch, boxes, names, grids in parts(channels)
        for name in names
    ]
    monkeypatch.setattr(ops_cuda_resize, "BLOCK", 5)  # 15 threads take images 8 across in strides

    def sees(program: Program) -> bool:
        run.replaced = {"resample_pass": program}
        try:
            for batch, boxes, name, grids, wanted in cases:
                for grid in grids:
                    run.how = Launch(grid)
                    monkeypatch.setattr(ops_cuda_resize, "_kept", type(ops_cuda_resize._kept)())
                    assert_same(ops_cuda_resize.resize(batch, (6, 8), name, boxes=boxes), wanted)
        except (AssertionError, LaunchError):
            return True
        return False

    found = survey(run, "resample_pass", (("CHANNELS", str(channels)),), sees)
    assert found.number > 250
    check([found], RULES, 0.93)
