"""The kernels of programs on the compiled code equal the NumPy engine to the bit: see `test_catalogue` for the ways."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests.cases import images
from tests.ops.cuda.test_program_on_host import (
    CASES,
    DTYPES,
    FURTHER,
    POLICIES,
    RANGES,
    SIDES,
    _same,
    check_plain,
    check_ranges,
    check_rectangles,
)
from tests.standin.ptx import compiler
from tests.standin.ptx.test_catalogue import WAYS, install

pytestmark = pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.exhaustive
def test_every_step(way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, way)
    program = np.stack([*(case.steps for case in CASES if case.name != "ResizedCrop"), *FURTHER])
    _same(images((1, 9, 11, 3)), program, indices=np.zeros(len(program), np.int64))


@pytest.mark.parametrize(
    ("policy", "way"),
    [
        pytest.param(policy, WAYS[at % len(WAYS)], marks=() if at == 0 else pytest.mark.exhaustive)
        for at, policy in enumerate(POLICIES)
    ],
    ids=str,
)
def test_policies(policy: Any, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains: what one level of a launch writes, its next reads again."""
    made = install(monkeypatch, way)
    recipe = Recipe.parse("augmentations", policy)
    assert recipe is not None
    program = recipe.draw(np.arange(30), (13, 11), seed=5, epoch=0)
    _same(images((7, 13, 11, 3), seed=1), program, indices=np.arange(30) % 7)
    no_ranges = dict.fromkeys(("has_affine", "has_flip", "has_channel_shift", "has_brightness"), False)
    assert made.launches == Counter(cuda_program.launches(AugmentOptions(**no_ranges), program))


@pytest.mark.parametrize(
    ("case", "way"),
    [
        pytest.param(case, WAYS[at % len(WAYS)], marks=() if at == 1 else pytest.mark.exhaustive)
        for at, case in enumerate(RANGES)
    ],
)
def test_ranges_are_done_in_the_same_launch(case: str, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = install(monkeypatch, way)
    check_ranges(case, lambda: sum(made.launches.values()))


@pytest.mark.parametrize(
    ("channels", "way"),
    [
        pytest.param(channels, WAYS[channels % len(WAYS)], marks=() if channels == 3 else pytest.mark.exhaustive)
        for channels in (1, 2, 3, 4, 5)
    ],
)
def test_plain_segments(channels: int, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that begin where none may, and pixels beyond an image or a unit, are faults here."""
    install(monkeypatch, way)
    for dtype in DTYPES:
        check_plain(channels, dtype, SIDES[4:6] if channels == 3 else SIDES)


@pytest.mark.parametrize("out_last", [True, False], ids=["to_last", "to_first"])
def test_rectangles_over_one_another(out_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one thread wrote and another writes over it, without a barrier in between, is a race here."""
    install(monkeypatch, WAYS[1 if out_last else 3])
    check_rectangles(out_last)
