"""Programs on the compiled engine equal the NumPy engine, and so Pillow, to the bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.compiled import augment as compiled_augment
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled import program as compiled_program
from gpuseq.ops.listing import steps_of
from gpuseq.ops.numpy import program as numpy_program
from gpuseq.ops.options import AugmentOptions, Statistics
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.program import as_text, code_of, dicts_to_program, empty_program
from tests import compiled_library
from tests.compare import assert_same, read_only
from tests.ops.cuda.test_program_on_host import FURTHER, POLICIES
from tests.ops.pillow_steps import CASES, FAR, FAR_IDS, pictures, step

UINT8 = AugmentOptions(dtype="uint8")


@pytest.fixture(params=["avx512", "avx2", "baseline"], autouse=True)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return each instruction set's name, with the engine told to take it."""
    compiled_library.require()
    found = library.instruction_sets()
    assert not isinstance(found, str)
    if request.param not in {item.name for item in found}:
        pytest.skip(f"this CPU does not run {request.param}")
    monkeypatch.setenv(library.ENGINE, f"compiled:{request.param}")
    return str(request.param)


def _same(images: np.ndarray, program: np.ndarray, options: AugmentOptions = UINT8, **further: Any) -> None:
    """Run both engines; where they differ, say at which sample's steps."""
    wanted = numpy_program.run_program(images, program, options, **further)
    got = compiled_program.run_program(read_only(images), program, options, **further)
    for sample, steps in enumerate(program):
        assert_same(got[sample], wanted[sample], message=as_text(steps))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_step(mode: str) -> None:
    """Each case of the grid that is held against Pillow, and the steps that Pillow has not, on every picture."""
    for image in pictures(mode):
        height, width = image.shape[:2]
        rows = [case.steps for case in CASES if case.name != "ResizedCrop"]
        rows += [one for one in FURTHER if min(height, width) >= 7]
        program = np.stack(rows if height < 200 else rows[::5])
        assert len(steps_of(program, height, width, image.shape[2]).numbers)
        _same(image[None], program, indices=np.zeros(len(program), np.int64))


@pytest.mark.parametrize(("size", "steps"), FAR, ids=FAR_IDS)
def test_maps_beyond_fixed_point(size: tuple[int, int], steps: np.ndarray) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    assert len(steps_of(steps[None], *size, 3).lines)
    _same(batch, np.stack([steps, steps]))


@pytest.mark.parametrize("channels", [2, 5])
def test_sharpness_of_any_channels(channels: int) -> None:
    """Two are grey and alpha, which stays."""
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 7, channels), np.uint8)
    _same(images, step("Sharpness", 2.7)[None])


@pytest.mark.parametrize("bilinear", [False, True])
def test_what_looks_at_infinity(bilinear: bool) -> None:
    """The horizon of a projective map, and scales of next to nothing, are as the NumPy engine has them, unwarned."""
    rows = [
        step("Perspective", 0, 0, 4, 0, 2, 2, 1, 3, bilinear=bilinear),
        step("Affine", 30, 0, 0, 1e-308, bilinear=bilinear),
        step("Affine", 0, 0, 0, 5e-324, bilinear=bilinear),
    ]
    _same(np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8), np.stack(rows))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_policies(policy: Any) -> None:
    recipe = Recipe.parse("augmentations", policy)
    assert recipe is not None
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (7, 43, 51, 3), np.uint8)
    images[::2] //= 3
    _same(images, recipe.draw(np.arange(150), (43, 51), seed=5, epoch=0), indices=rng.integers(0, 7, 150))


@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16"])
def test_what_follows(dtype: str, last: bool) -> None:
    """Layouts, casts, modes, normalisation and erasing after all of them; steps that only NumPy has."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (5, 12, 17, 3), np.uint8)
    x = images if last else np.ascontiguousarray(np.moveaxis(images, 3, 1))
    erasing = gpuseq.RandomErasing(0.7, value="random")
    statistics = Statistics(np.array([1.5, 2.5, 3.5]), np.array([0.5, 2.0, 30.0]))
    for first in (gpuseq.RandAugment(), gpuseq.AugMix(), gpuseq.RandomResizedCrop((7, 9))):
        recipe = Recipe.parse("augmentations", [first, erasing])
        assert recipe is not None
        program = recipe.draw(np.arange(12), (12, 17), seed=1, epoch=0)
        for extra in ({"rescale": 1 / 255}, {"preprocessing": "caffe"}, {"featurewise_center": True}):
            options = AugmentOptions(
                source_format="channels_last" if last else "channels_first",
                data_format="channels_first" if last else "channels_last",
                dtype=dtype,
                **extra,  # type: ignore[arg-type]
            )
            _same(x, program, options, indices=rng.integers(0, 5, 12), statistics=statistics)


def test_images_that_lie_anyhow() -> None:
    """Views with steps between rows, columns and channels."""
    images = np.random.default_rng(3).integers(0, 256, (6, 30, 40, 6), np.uint8)
    recipe = Recipe.parse("augmentations", gpuseq.RandAugment(2, 20))
    assert recipe is not None
    for view in (images[::-2, 3:, ::3, 1::2], images[:3, ::-1, :, :3], images[:3, ..., :1]):
        program = recipe.draw(np.arange(len(view)), view.shape[1:3], seed=1, epoch=0)
        _same(view, program)
    _same(np.empty((0, 5, 5, 3), np.uint8), program[:0])


def test_saturation_by_any_factor() -> None:
    """All pairs of red and blue: products at whole numbers and one bit beside them, and absurd ones."""
    red, blue = np.meshgrid(np.arange(256), np.arange(256))
    image = np.stack([red, (7 * red + 13 * blue) % 256, blue], axis=-1).astype(np.uint8)
    shares = np.array([1 / 3, 13 / 51, 100 / 127, 1.0, 7 / 5, 299 / 255], np.float32)
    factors = [0.0, 1e-40, -1e-40, -0.4, 4194303.0, 4194305.0, 1e9, -1e9, 1e30, -1e30]
    factors += [float(np.nextafter(share, np.float32(end))) for share in shares for end in (share, 0, 9)]
    program = dicts_to_program([{"op": "Color", "factor": factor}] for factor in factors)
    _same(image[None], program, indices=np.zeros(len(program), np.int64))


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("shape", [(23, 31, 1), (16, 16, 3), (37, 29, 3), (9, 31, 4)], ids=str)
def test_levels_that_are_only_scaled(
    shape: tuple[int, int, int], streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Floats that the last step writes itself, and rectangles that are put in as the levels are scaled."""
    monkeypatch.setattr(compiled_augment, "STREAMED_BYTES", -1 if streams else 1 << 40)
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (4, *shape), np.uint8)
    jitter = gpuseq.ColorJitter(0.4, 0.4, 0.4)
    firsts: list[list[Any]] = [[], [gpuseq.RandomSolarize(100.0, p=0.5)], [jitter], [gpuseq.RandomEqualize(p=1.0)]]
    lasts: list[list[Any]] = [
        [gpuseq.RandomErasing(0.8)],
        [gpuseq.RandomErasing(1.0, value=(0.25, -1.0, 3e7)), gpuseq.RandomErasing(0.5, value=7)],
        [gpuseq.RandomErasing(0.8, value="random"), gpuseq.RandomErasing(0.5)],
    ]
    for first, last in itertools.product(firsts, lasts):
        recipe = Recipe.parse("augmentations", first + last)
        assert recipe is not None
        program = recipe.draw(np.arange(16), shape[:2], seed=1, epoch=0)
        for data_format in ("channels_last", "channels_first"):
            options = AugmentOptions(data_format=data_format, rescale=1 / 255)  # type: ignore[arg-type]
            _same(images, program, options, indices=rng.integers(0, 4, 16))


def test_rectangles_at_the_rims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_augment, "STREAMED_BYTES", -1)
    images = np.random.default_rng(2).integers(0, 256, (1, 10, 13, 3), np.uint8)
    boxes = [(0, 0, 10, 13), (0, 0, 1, 1), (9, 12, 1, 1), (0, 5, 10, 3)]
    boxes += [(4, 0, 2, 13), (3, 3, 0, 5), (3, 3, 5, 0), (9, 0, 1, 13)]
    program = empty_program(len(boxes), 1)
    for erasing, box in zip(program[:, 0], boxes, strict=True):
        erasing["op"], erasing["arg"] = code_of("Erase"), (*box, 1.0, 2.0, 3.0, 4.0)
    _same(images, program, AugmentOptions(rescale=1 / 255), indices=np.zeros(len(boxes), np.int64))


@pytest.mark.parametrize("num_threads", ["1", "3"])
def test_the_answer_does_not_depend_on_the_cut(num_threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", num_threads)
    monkeypatch.setattr(compiled_program, "SOLO_PIXELS", 0)
    monkeypatch.setattr(compiled_augment, "STREAMED_BYTES", -1)
    images = np.random.default_rng(4).integers(0, 256, (5, 11, 13, 3), np.uint8)
    recipe = Recipe.parse("augmentations", [gpuseq.ColorJitter(0.4, 0.4, 0.4), gpuseq.RandomErasing(0.5)])
    assert recipe is not None
    for num_samples, call_pixels in itertools.product((1, 2, 7, 29), (1, 300, 1 << 20)):
        monkeypatch.setattr(compiled_program, "CALL_PIXELS", call_pixels)
        program = recipe.draw(np.arange(num_samples), (11, 13), seed=1, epoch=0)
        _same(images, program, AugmentOptions(rescale=1 / 255), indices=np.arange(num_samples) % 5)


def test_memory_for_chains_and_blurs_is_asked_for_by_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread keeps the room of its largest program: what most policies never use is not part of it."""
    monkeypatch.setenv("GPUSEQ_NUM_THREADS", "1")
    asked: dict[str, int] = {}
    scratch = compiled_program.scratch
    images = np.random.default_rng(4).integers(0, 256, (2, 24, 20, 3), np.uint8)
    for policy in (gpuseq.RandomSolarize(128, p=1.0), gpuseq.GaussianBlur(3), gpuseq.AugMix()):
        name = type(policy).__name__
        monkeypatch.setattr(
            compiled_program,
            "scratch",
            lambda key, shape, dtype, name=name: (asked.update({name: shape[0]}), scratch(key, shape, dtype))[1],
        )
        recipe = Recipe.parse("augmentations", policy)
        assert recipe is not None
        _same(images, recipe.draw(np.arange(2), (24, 20), seed=5, epoch=0))
    sums = 24 * 20 * 3 * np.dtype(np.float32).itemsize
    assert asked["GaussianBlur"] >= asked["RandomSolarize"] + sums
    assert asked["AugMix"] >= asked["RandomSolarize"] + sums
