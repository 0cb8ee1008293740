"""Looks at images of a cache are kept for the compiled engine, too: the NumPy engine's bits, and no second look."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.ops import dispatch as ops
from gpuseq.ops import looks as kept
from gpuseq.ops.compiled import library
from gpuseq.ops.listing import AUTOCONTRAST, CONTRAST, EQUALIZE
from gpuseq.ops.looks import KeptLooks, Looks
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions
from gpuseq.plan.policies.recipe import Recipe
from tests import compiled_library
from tests.compare import assert_same
from tests.ops.pillow_steps import step

LOOKING = [step("Equalize"), step("AutoContrast"), step("Contrast", 0.3), step("Contrast", 1.9)]
UINT8 = AugmentOptions(dtype="uint8")


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library.require()
    monkeypatch.setenv(library.ENGINE, "compiled")


def pictures(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Return images of some levels only, one of a single level, one of few."""
    images = np.random.default_rng(2).integers(40, 200, (count, height, width, channels), np.uint8)
    images[0], images[1] = 77, images[1] // 8 * 8
    return images


@pytest.mark.parametrize("first", LOOKING, ids=["equalize", "autocontrast", "less", "more"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["channels_last", "channels_first"])
def test_one_look_tells_what_all_steps_ask_for(first: np.ndarray, channels: int, order: Any) -> None:
    """Whichever step looked first, tables of all others are those of the NumPy engine."""
    images = pictures(7, 19, 23, channels)
    if order == "channels_first":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    options, looks = AugmentOptions(order, order, dtype="uint8"), Looks(KeptLooks(7, 1 if channels == 1 else 3))
    rows = np.array([6, 0, 1, 5, 3, 1, 2, 6, 0, 4])
    for steps in (first, *LOOKING):
        program = np.stack([np.concatenate([steps, step("Rotate", 9.0), LOOKING[at % 4]]) for at in range(10)])
        wanted = numpy_program.run_program(images, program, options, indices=rows)
        assert_same(ops.run_program(images, program, options, indices=rows, looks=looks), wanted)
        assert looks.known(np.arange(7)).all()


def test_a_known_image_is_not_looked_at() -> None:
    """Other pixels in its place, of which nobody was told, get the tables of the image before."""
    images, looks = pictures(6, 19, 23, 3), Looks(KeptLooks(6, 3))
    program = np.stack([step("AutoContrast")] * 6)
    before = ops.run_program(images, program, UINT8, looks=looks)
    images[:] = images[:, ::-1]  # the same levels at other places
    assert_same(ops.run_program(images, program, UINT8, looks=looks), before[:, ::-1])
    images[2:] = 90
    stretched = ops.run_program(images, program, UINT8, looks=looks)
    assert (stretched[2:] != 90).all()
    looks.kept.forget(np.array([2, 3]))
    stretched = ops.run_program(images, program, UINT8, looks=looks)
    assert (stretched[2:4] == 90).all()
    assert (stretched[4:] != 90).all()


def test_images_that_do_not_stay_are_looked_at_each_time() -> None:
    images, looks = pictures(4, 19, 23, 3), Looks(KeptLooks(3, 3), np.array([2, -1, 0, -1]))
    for at in range(4):
        program = np.stack([LOOKING[(at + sample) % 4] for sample in range(4)])
        wanted = numpy_program.run_program(images, program, UINT8)
        assert_same(ops.run_program(images, program, UINT8, looks=looks), wanted)
        assert looks.known(np.arange(4)).tolist() == [True, False, True, False]


def test_steps_before_a_look_and_chains_teach_nothing() -> None:
    """What they look at is no image of the cache, nor is what a crop leaves of one."""
    images, looks = pictures(4, 19, 23, 3), Looks(KeptLooks(4, 3))
    recipe = Recipe.parse("augmentations", gpuseq.AugMix())
    assert recipe is not None
    crops = np.stack([np.concatenate([step("ResizedCrop", 2, 3, 9, 9, 8, 8), step("Equalize")])] * 4)
    later = np.stack([np.concatenate([step("Invert"), step("Equalize")])] * 4)
    for program in (recipe.draw(np.arange(4), (19, 23), seed=1, epoch=0), later, crops):
        wanted = numpy_program.run_program(images, program, UINT8)
        assert_same(ops.run_program(images, program, UINT8, looks=looks), wanted)
    assert not looks.known(np.arange(4)).any()


def test_the_numpy_engine_looks_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the others are held against."""
    monkeypatch.setenv(library.ENGINE, "numpy")
    images, looks, program = pictures(4, 19, 23, 3), Looks(KeptLooks(4, 3)), np.stack(LOOKING)
    assert_same(ops.run_program(images, program, UINT8, looks=looks), numpy_program.run_program(images, program, UINT8))
    assert not looks.known(np.arange(4)).any()


def test_the_codes_are_in_the_order_of_the_tables() -> None:
    """kernels/host/program.cpp counts from contrast to equalize."""
    assert kept.LOOKS == (CONTRAST, AUTOCONTRAST, EQUALIZE)
    assert np.diff(kept.LOOKS).tolist() == [1, 1]


@pytest.mark.parametrize("room", [14, 6], ids=["all", "some"])
@pytest.mark.parametrize("policy", [gpuseq.TrivialAugmentWide(), gpuseq.RandomAutocontrast(1.0)], ids=["any", "one"])
def test_a_cache_on_the_host(policy: Any, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled, on threads, with a file that changes: the batches of a flow that keeps nothing."""
    monkeypatch.setattr(kept, "MAX_SHARE", 1.0)
    images, folder = pictures(14, 24, 24, 3), tmp_path / "a"
    folder.mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    flows: list[Any] = []
    for more in ({}, {"cache": "host", "memory_limit": room * 24 * 24 * 3}):
        generator = gpuseq.ImageDataGenerator(augmentations=policy, rng="keyed", device="cpu")
        both = {"class_mode": None, "verbose": False, "batch_size": 5, "seed": 4, "prefetch": 1}
        flows.append(generator.flow_from_directory(tmp_path, (24, 24), **both, **more))
    for epoch in range(6):
        for _ in range(3):
            assert_same(next(flows[1]), next(flows[0]))
        with ThreadPoolExecutor(3) as pool:
            got = list(pool.map(flows[1].__getitem__, [0, 1, 2] * 3))
        assert_same(np.concatenate(got), np.concatenate([flows[0][at] for at in [0, 1, 2] * 3]))
        if epoch == 2:
            changed = np.concatenate([images[3] // 2, images[3][:3]])
            Image.fromarray(changed).save(folder / "3.png")
    known = flows[1]._source.known(np.arange(14))
    assert known.sum() > room // 2
    for flow in flows:
        flow.close()
