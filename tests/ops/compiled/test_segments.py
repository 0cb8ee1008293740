"""Programs cut by the library are those that NumPy cuts, to the bit in all that goes to a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops import segments as numpy_segments
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled import segments as compiled_segments
from gpuseq.ops.looks import Known, Looked
from gpuseq.ops.segments import PART_BYTES, Packed
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
    [gpuseq.RandomAffine(20, (0.1, 0.1), center=(3, 0.1)), gpuseq.RandomRotation(180, "bilinear", center=(-2, 9))],
    [gpuseq.GaussianBlur(1), gpuseq.RandomAdjustSharpness(2.0), gpuseq.RandomEqualize()],
    [gpuseq.TrivialAugmentWide()] * 20,
)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library be there, whatever is installed."""
    compiled_library.require()
    monkeypatch.setenv(library.ENGINE, "compiled")


NUM_IMAGES = 50
_noise = np.random.default_rng(1)
LOOKED = {
    colours: Looked(
        _noise.integers(0, 256, NUM_IMAGES, np.uint8),
        _noise.integers(0, 256, (NUM_IMAGES, 2, colours, 256), np.uint8),
        _noise.random(NUM_IMAGES) < 0.9,
    )
    for colours in (1, 3)
}
"""In the place of kept looks: tables that differ by image, step and colour."""


def written(packed: Packed) -> np.ndarray:
    """Return the memory of what was packed, where whatever is not written shows."""
    memory = np.full(packed.begins[-1] + 1, 0xA5, np.uint8)
    packed.write(memory.ctypes.data)
    assert memory[-1] == 0xA5
    return memory[:-1]


ARRAYS = ("samples", "stages", "steps", "weights", "erases", "tables", "lines")


def same(program: np.ndarray, size: tuple[int, int], num_channels: int = 3, **further: Any) -> Packed | None:
    """Cut by both, and compare; return what the library made, None where it left the batch to NumPy."""
    rows = np.random.default_rng(len(program)).integers(0, 1000, len(program))
    before, options = program.copy(), {"moved": None, "cval": 0.0, "known": None} | further
    if options["known"] is not None:
        slots = np.where(options["known"], rows[::-1] % NUM_IMAGES, -1)
        options["known"] = Known(slots, LOOKED[1 if num_channels == 1 else 3])
    chosen = library.chosen()
    assert chosen is not None
    made = compiled_segments._packed(chosen, program, rows, size, num_channels == 1, *options.values())
    wanted = numpy_segments.pack(numpy_segments.cut(program, rows, *size, num_channels, **options))
    whole = written(wanted)
    found = compiled_segments.pack(program, rows, *size, num_channels, **options)
    for each in [found] if made is None else [found, made]:
        for name in ("begins", "rounds", "num_looks", "num_slots", "num_erases", "has_noise", "asks"):
            assert getattr(each, name) == getattr(wanted, name), name
        memory = written(each)
        for name, begin, end in zip(ARRAYS, wanted.begins, wanted.begins[1:], strict=False):
            # Of numbers the bits, the signs of zeros too.
            assert_same(memory[begin:end], whole[begin:end], message=name)
    assert program.tobytes() == before.tobytes()
    return made


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: repr(policy)[:40])
def test_policies(policy: Any) -> None:
    """Each on large, odd and tiny images, in colour and grey, after ranges for some samples, with looks or without."""
    recipe = Recipe.parse("augmentations", policy)
    assert recipe is not None
    for number, size in enumerate(SIZES):
        program = recipe.draw(np.arange(40), size, seed=number, epoch=0)
        moved = np.random.default_rng(number).random(40) < 0.4
        num_channels = 3 - 2 * (number % 2)
        known, some = np.ones(40, bool), np.random.default_rng(number + 9).random(40) < 0.5
        for further in (
            {},
            {"moved": moved, "cval": 3.5},
            {"known": known},
            {"known": some, "moved": moved},
        ):
            assert same(program, size, num_channels, **further) is not None


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
        if chosen.name in ("Affine", "AffineAbout"):
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
    program = recipe.draw(np.arange(20), (31, 17), seed=0, epoch=0)
    segments = numpy_segments.cut(program, np.arange(20), 31, 17, 3)
    packed = numpy_segments.pack(segments)
    memory, used = written(packed), np.zeros(packed.begins[-1], bool)
    assert [begin % PART_BYTES for begin in packed.begins] == [0] * 8
    for name, begin, end in zip(ARRAYS, packed.begins, packed.begins[1:], strict=False):
        array = getattr(segments, name)
        assert array.nbytes <= end - begin
        assert memory[begin : begin + array.nbytes].tobytes() == array.tobytes(), name
        used[begin : begin + array.nbytes] = True
    assert not memory[~used].any()
    assert not used.all()


def test_what_was_packed_is_written_once() -> None:
    """The scratch in which it lies is another batch's from then on."""
    packed = compiled_segments.pack(_rotated(30.0), np.arange(1), 9, 9, 3)
    written(packed)
    with pytest.raises(IndexError):
        packed.write(0)


def test_threads_have_scratch_of_their_own() -> None:
    """What is packed and not written yet is no other batch's to write to."""
    recipe = Recipe.parse("augmentations", gpuseq.RandAugment(2, 9))
    assert recipe is not None
    programs = [recipe.draw(np.arange(20), (31, 17), seed=seed, epoch=0) for seed in range(3)]
    at_once = [compiled_segments.pack(program, np.arange(20), 31, 17, 3) for program in programs]
    for packed, program in zip(at_once, programs, strict=True):
        assert_same(written(packed), written(compiled_segments.pack(program, np.arange(20), 31, 17, 3)))


def test_scratch_grows_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_segments, "LEAST_ROOM_BYTES", 64)
    monkeypatch.setattr(compiled_segments, "_idle", [])
    recipe = Recipe.parse("augmentations", gpuseq.RandAugment(2, 9))
    assert recipe is not None
    assert same(recipe.draw(np.arange(20), (31, 17), seed=0, epoch=0), (31, 17)) is not None
    assert same(recipe.draw(np.arange(40), (31, 17), seed=0, epoch=0), (31, 17)) is not None


def test_a_factor_that_is_no_number_is_left_to_numpy() -> None:
    """Of a contrast whose image has been looked at: the table is made of it now."""
    with np.errstate(all="ignore"):
        assert same(_one("Contrast", np.nan), (31, 17), known=np.ones(2, bool)) is None
    assert same(_one("Contrast", 1e8), (31, 17), known=np.ones(2, bool)) is not None


def test_an_engine_of_numpy_cuts_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ENGINE, "numpy")
    monkeypatch.setattr(compiled_segments, "_packed", None)
    assert len(written(compiled_segments.pack(_rotated(30.0), np.arange(1), 9, 9, 3)))


def test_large_batches_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_ROOM_BYTES", 1000), ("LEAST_ROOM_BYTES", 64), ("_idle", [])):
        monkeypatch.setattr(compiled_segments, name, value)
    assert same(_rotated(30.0), (31, 17)) is None
