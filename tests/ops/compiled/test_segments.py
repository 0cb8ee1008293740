"""Programs cut by the library are those that NumPy cuts, to the bit in every array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops import segments as numpy_segments
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled import segments as compiled_segments
from gpuseq.ops.segments import PART_BYTES, Known, Segments
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.program import STEPS, code_of, empty_program
from tests import compiled_library
from tests.compare import assert_same

SIZES = ((224, 224), (31, 17), (2, 9), (1, 1))
POLICIES: tuple[Any, ...] = (
    gpuseq.RandAugment(2, 9),
    gpuseq.RandAugment(3, 14, interpolation="bilinear", fill=(7, 8, 9)),
    gpuseq.TrivialAugmentWide(),
    gpuseq.AutoAugment("imagenet"),
    "rand-m9-mstd0.5-inc1",
    gpuseq.AugMix(),
    [gpuseq.GaussianBlur(1), gpuseq.AugMix()],
    [gpuseq.TrivialAugmentWide(), gpuseq.AugMix(), gpuseq.RandomErasing(0.5, value="random")],
    gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.1),
    gpuseq.RandomPhotometricDistort(),
    [gpuseq.RandomGamma((0.5, 2.0)), gpuseq.RandomPosterize(4), gpuseq.RandomInvert(), gpuseq.RandomSolarize(128)],
    [gpuseq.RandomHorizontalFlip(), gpuseq.RandomVerticalFlip(), gpuseq.RandomErasing(0.5)],
    [gpuseq.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 5), gpuseq.RandomRotation(180)],
    [gpuseq.RandomAffine(20, (0.1, 0.1), interpolation="bilinear"), gpuseq.RandomPerspective()],
    [gpuseq.GaussianBlur(1), gpuseq.RandomAdjustSharpness(2.0), gpuseq.RandomEqualize()],
    [gpuseq.TrivialAugmentWide()] * 20,
)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library be there, whatever is installed."""
    compiled_library.require()
    monkeypatch.setenv(library.ENGINE, "compiled")


def looked_up(codes: np.ndarray, rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Stand in for kept looks: tables that differ by all that is asked, and by colour."""
    asked = codes * 3 + rows * 5 + factors * 7
    return (np.arange(256) * (asked[:, None, None] + np.arange(3)[:, None])).astype(np.int64).astype(np.uint8)


def same(program: np.ndarray, size: tuple[int, int], num_channels: int = 3, **further: Any) -> Segments | None:
    """Cut by both, and compare; return what the library made, None where it left the batch to NumPy."""
    rows = np.random.default_rng(len(program)).integers(0, 1000, len(program))
    before, options = program.copy(), {"moved": None, "cval": 0.0, "known": None} | further
    if options["known"] is not None:
        options["known"] = Known(options["known"], looked_up)
    chosen = library.chosen()
    assert chosen is not None
    made = compiled_segments._cut(chosen, program, rows, size, num_channels == 1, *options.values())
    wanted = numpy_segments.cut(program, rows, *size, num_channels, **options)
    found = compiled_segments.cut(program, rows, *size, num_channels, **options)
    assert (found.flat is None) == (made is None)
    for each in [found] if made is None else [found, made]:
        for field in fields(Segments):
            if field.name != "flat":
                _assert_same_bits(getattr(each, field.name), getattr(wanted, field.name), field.name)
    assert program.tobytes() == before.tobytes()
    return made


def _assert_same_bits(found: Any, wanted: Any, name: str) -> None:
    if not isinstance(wanted, np.ndarray):
        assert found == wanted, name
        return
    assert_same(found, wanted, message=name)
    assert found.tobytes() == wanted.tobytes(), f"{name}: the sign of a zero"


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: repr(policy)[:40])
def test_policies(policy: Any) -> None:
    """Each on large, odd and tiny images, in colour and grey, after ranges for some samples, with looks or without."""
    recipe = Recipe.parse("augmentations", policy)
    assert recipe is not None
    for number, size in enumerate(SIZES):
        program = recipe.draw(np.arange(40), size, seed=number, epoch=0)
        moved = np.random.default_rng(number).random(40) < 0.4
        known, some = np.ones(40, bool), np.random.default_rng(number + 9).random(40) < 0.5
        for further in (
            {},
            {"moved": moved, "cval": 3.5},
            {"known": known},
            {"known": some, "moved": moved},
        ):
            assert same(program, size, 3 - 2 * (number % 2), **further) is not None


def _number(rng: np.random.Generator) -> float:
    """Return a number as programs have them: mostly small, of few values, zeros of both signs, quarter turns."""
    kind = rng.integers(0, 8)
    if kind < 3:
        return float(rng.normal())
    if kind == 3:
        return float(rng.integers(0, 5) - 2)
    return float(rng.choice([0.0, -0.0, 1.0, 0.5, 90.0, -90.0, 180.0, 45.0, 128.0, 2.0]))


def random_program(rng: np.random.Generator, num_samples: int, num_steps: int, *, mixes: bool) -> np.ndarray:
    """Return steps of any kind with numbers that the checks of a program let through, chains of no mix among them."""
    program = empty_program(num_samples, num_steps)
    weighted = [step for step in STEPS if step.kind not in ("mix", "crop") and step.name != "GaussianBlur"]
    for step in program.reshape(-1):
        if rng.random() < 0.15:
            continue
        chosen = weighted[rng.integers(len(weighted))]
        step["op"], step["bilinear"] = code_of(chosen.name), rng.integers(0, 2)
        step["fill"] = rng.integers(0, 256, 4)
        step["arg"][: len(chosen.arguments)] = [_number(rng) for _ in chosen.arguments]
        if chosen.name == "Posterize":
            step["arg"][0] = rng.integers(0, 9)
        if chosen.name == "Gamma":
            step["arg"][:2] = rng.choice([0.5, 1.0, 2.2], 2)
        if chosen.name == "Affine":
            step["arg"][3] = rng.choice([1.0, 0.9, 1.1, -1.0])
        if chosen.name == "Perspective":
            step["arg"] = np.array([0, 0, 30, 0, 30, 30, 0, 30]) + rng.normal(0, 2, 8)
        if mixes and rng.random() < 0.6:
            step["chain"] = rng.integers(0, 4)
        if mixes and rng.random() < 0.15:
            step["op"], step["chain"] = code_of("AugMix"), rng.random() < 0.1
            step["arg"] = [rng.random(), rng.integers(1, 6), *rng.random(5), 0.0]
    return program


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 40])
def test_random_chains(num_steps: int, mixes: bool) -> None:
    """Steps of all kinds in any order: what ends a segment, what begins a chain, what is in none."""
    rng = np.random.default_rng(num_steps + 100 * mixes)
    for number in range(12):
        size = SIZES[number % len(SIZES)]
        program = random_program(rng, 17, num_steps, mixes=mixes)
        moved = None if number % 3 else rng.random(17) < 0.5
        known = rng.random(17) < 0.7 if number % 2 else None
        same(program, size, 1 if number % 5 == 0 else 3, moved=moved, known=known)


def test_most_batches_are_cut_by_the_library() -> None:
    """The comparison of random chains means little where NumPy does the work."""
    rng = np.random.default_rng(5)
    left = [same(random_program(rng, 3, 2, mixes=True), (31, 17)) is None for _ in range(60)]
    assert sum(left) < 20


def _rotated(degrees: float) -> np.ndarray:
    program = empty_program(1, 1)
    program["op"], program["arg"][..., 0] = code_of("Rotate"), degrees
    return program


def _one(name: str, *args: float) -> np.ndarray:
    program = empty_program(2, 3)
    program[1, 1]["op"] = code_of(name)
    program[1, 1]["arg"][: len(args)] = args
    return program


LEFT: dict[str, Callable[[], np.ndarray]] = {
    "a shear that reads far outside": lambda: _one("ShearX", 1e4),
    "a scale that is not finite": lambda: _one("Affine", 0.0, 0.0, 0.0, 1e-320, 0.0, 0.0),
    "a factor that is no number": lambda: _one("Brightness", np.nan),
    "a factor without end": lambda: _one("Brightness", np.inf),
    "a mix of a part of a chain": lambda: _one("AugMix", 0.5, 1.5, 0.5),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_numpy(name: str) -> None:
    with np.errstate(all="ignore"):
        assert same(LEFT[name](), (31, 17)) is None


def test_chains_of_negative_numbers_are_left_to_numpy() -> None:
    program = _one("AugMix", 0.5, 2.0, 0.5, 0.5)
    program[1, 2]["op"], program[1, 2]["chain"] = code_of("Invert"), -1
    assert same(program, (31, 17)) is None


def test_batches_of_nothing() -> None:
    """No samples, no steps, steps that do nothing, and ranges alone."""
    for shape in ((0, 0), (0, 2), (3, 0), (3, 2)):
        for moved in (None, np.arange(shape[0]) % 2 == 0):
            assert same(empty_program(*shape), (31, 17), moved=moved) is not None


def test_programs_that_lie_elsewhere() -> None:
    """Every second sample, in reverse: no address of one array."""
    recipe = Recipe.parse("augmentations", [gpuseq.RandAugment(2, 9), gpuseq.RandomErasing(0.5)])
    assert recipe is not None
    program = recipe.draw(np.arange(20), (31, 17), seed=0, epoch=0)
    assert same(program[::-2], (31, 17), moved=(np.arange(40) % 3 == 0)[::-4]) is not None


def test_arrays_lie_as_they_are_uploaded() -> None:
    """One memory, each array at a multiple of what CuPy's own begin at, and zeros between them."""
    recipe = Recipe.parse("augmentations", [gpuseq.AugMix(), gpuseq.RandomErasing(0.5)])
    assert recipe is not None
    made = same(recipe.draw(np.arange(20), (31, 17), seed=0, epoch=0), (31, 17))
    assert made is not None
    assert made.flat is not None
    arrays = (made.samples, made.stages, made.steps, made.weights, made.erases, made.tables, made.lines)
    begins = [array.ctypes.data - made.flat.ctypes.data for array in arrays if array.size]
    assert begins == sorted(begins)
    assert [begin % PART_BYTES for begin in begins] == [0] * len(begins)
    used = np.zeros(len(made.flat), bool)
    for begin, array in zip(begins, [array for array in arrays if array.size], strict=True):
        used[begin : begin + array.nbytes] = True
    assert not made.flat[~used].any()


def test_an_engine_of_numpy_cuts_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ENGINE, "numpy")
    assert compiled_segments.cut(_rotated(30.0), np.arange(1), 9, 9, 3).flat is None


def test_large_batches_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_segments, "MAX_ROOM_BYTES", 1000)
    assert same(_rotated(30.0), (31, 17)) is None
