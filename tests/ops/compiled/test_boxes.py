"""Rectangles drawn by the library are those that NumPy draws, to the bit, and the plans ask for them there."""

from __future__ import annotations

import numpy as np
import pytest

import gpuseq
from gpuseq.ops import dispatch  # noqa: F401  from here on plans ask the library
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled.boxes import draw_boxes
from gpuseq.plan import boxes
from gpuseq.plan.policies.augmentation import Augmentation
from gpuseq.plan.policies.erasing import _erase_boxes
from gpuseq.plan.policies.geometry import _crop_boxes
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.program import code_of, empty_program
from tests import compiled_library

ERASING = (
    gpuseq.RandomErasing(),
    gpuseq.RandomErasing(1.0, (0.1, 0.9), (0.2, 0.3), "random"),
    gpuseq.RandomErasing(0.3, (0.9, 1.0), (0.01, 100.0), (1, 2, 3)),
    gpuseq.RandomErasing(0.0),
)
CROPS = (
    gpuseq.RandomResizedCrop(224),
    gpuseq.RandomResizedCrop((3, 5), (0.0, 1.0), (1.0, 1.0), "nearest"),
    gpuseq.RandomResizedCrop(8, (0.9, 1.0), (0.01, 0.02)),
)
ENGINES = ("numpy", "compiled")
KEY = {"seed": 2**64 - 1, "epoch": 5 << 40}


@pytest.fixture(autouse=True)
def _library() -> None:
    compiled_library.require()


def test_the_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boxes._compiled is draw_boxes
    table = _crop_boxes(CROPS[0], (9, 9))
    for engine in ENGINES:
        monkeypatch.setenv(library.ENGINE, engine)
        assert draw_boxes(table, empty_program(2, 1), np.arange(2), place=0, **KEY) == (engine == "compiled")


@pytest.mark.parametrize(
    "augmentations",
    [(policy,) for policy in (*ERASING, *CROPS)] + [(CROPS[0], gpuseq.RandAugment(), *ERASING)],
    ids=repr,
)
def test_batches(augmentations: tuple[Augmentation, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and beside others, images of one pixel, wide and high ones; where the first try fits, and where none."""
    recipe = Recipe(augmentations)
    for size in ((224, 224), (1, 1), (31, 170), (500, 3)):
        for ids in (np.arange(3), np.arange(300), np.arange(600, dtype=np.uint64)[::-3] + 2**62):
            drawn = []
            for engine in ENGINES:
                monkeypatch.setenv(library.ENGINE, engine)
                drawn.append(recipe.draw(ids, size, **KEY))
            assert drawn[0].shape == (len(ids), recipe.num_steps)
            assert drawn[0].tobytes() == drawn[1].tobytes()


def test_sides_at_a_half_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The root of an area may lie at a half, and which way that is rounded must not hang on the library's exp."""
    at_a_half = gpuseq.RandomErasing(1.0, (20.25 / 100, 20.25 / 100), (1.0, 1.0))
    beside = gpuseq.RandomErasing(1.0, (20.26 / 100, 20.26 / 100), (1.0, 1.0))
    for policy, is_drawn in ((at_a_half, False), (beside, True)):
        program = empty_program(5, 1)
        monkeypatch.setenv(library.ENGINE, "compiled")
        assert draw_boxes(_erase_boxes(policy, (10, 10)), program, np.arange(5), place=0, **KEY) == is_drawn
        drawn = []
        for engine in ENGINES:
            monkeypatch.setenv(library.ENGINE, engine)
            drawn.append(Recipe((policy,)).draw(np.arange(5), (10, 10), **KEY))
        assert drawn[0].tobytes() == drawn[1].tobytes()
        assert (drawn[0]["op"] == code_of("Erase")).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("key", [{"seed": -1, "epoch": 0}, {"seed": 0, "epoch": 2**64}])
def test_keys_have_64_bits(engine: str, key: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ENGINE, engine)
    for policy in (CROPS[0], gpuseq.RandAugment(), gpuseq.AugMix()):
        with pytest.raises(OverflowError):
            Recipe((policy,)).draw(np.arange(3), (9, 9), **key)
