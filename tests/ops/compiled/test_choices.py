"""Steps chosen by the library are those that NumPy chooses, to the bit, and the plans ask for them there."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.base.types import Rng
from gpuseq.ops import dispatch  # noqa: F401  from here on plans ask the library
from gpuseq.ops.compiled import choices as compiled_choices
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled.choices import ChoosingLibrary
from gpuseq.plan import choices
from gpuseq.plan.policies.augmentation import Augmentation
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.policies.timm import TimmRandAugment, _least
from gpuseq.plan.program import STEPS, empty_program
from tests import compiled_library

POLICIES: tuple[Augmentation, ...] = (
    gpuseq.RandAugment(2, 9),
    gpuseq.RandAugment(1, 0),
    gpuseq.RandAugment(5, 3, num_magnitude_bins=4, interpolation="bilinear", fill=(1, 2, 3)),
    gpuseq.TrivialAugmentWide(),
    gpuseq.TrivialAugmentWide(num_magnitude_bins=2, interpolation="bilinear"),
    gpuseq.TrivialAugmentWide(fill=255),
    gpuseq.AutoAugment(),
    gpuseq.AutoAugment("svhn", "bilinear", (1, 2, 3)),
    gpuseq.AugMix(),
    gpuseq.AugMix(10, 5, 2, 0.3, 0, "nearest", 7),
    gpuseq.AugMix(1, 1, 1, magnitude_std=2),
    TimmRandAugment(9),
    TimmRandAugment(9, 4, 0.7, 0.5, increasing=True),
    TimmRandAugment(25, 3, 1.0, math.inf, 30),
    TimmRandAugment(25, 3, 0.0, math.inf, 30, increasing=True),
    TimmRandAugment(9, 5, weighted=True),
    gpuseq.ColorJitter(0.4, (0.5, 1.5), 0.4, 0.1),
    gpuseq.ColorJitter(contrast=0.3),
    gpuseq.ColorJitter(),
    gpuseq.RandomGamma((0.5, 2.0), 1.5),
    gpuseq.GaussianBlur(1, (0.1, 1.0)),
    gpuseq.RandomRotation((-10, 20), "bilinear", fill=7),
    gpuseq.RandomRotation((-10, 20), center=(3, 0.1), fill=7),
    gpuseq.RandomPosterize(3, 1 / 3),
    gpuseq.RandomVerticalFlip(0.0),
)
ENGINES = ("numpy", "compiled")


@pytest.fixture(autouse=True)
def _library() -> None:
    compiled_library.require()


def test_the_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = choices._compiled
    assert isinstance(compiled, ChoosingLibrary)
    for engine in ENGINES:
        monkeypatch.setenv(library.ENGINE, engine)
        assert compiled.put_identities_last(empty_program(2, 2)) == (engine == "compiled")
        table = gpuseq.RandAugment().choices((9, 9))
        assert (compiled.choose_steps(table, np.zeros((1, 4))) is not None) == (engine == "compiled")
        is_done = compiled.draw_steps(table, empty_program(3, 2), np.arange(3), None, seed=0, epoch=0, place=0)
        assert is_done == (engine == "compiled")


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_steps(policy: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers, and those where a choice, a bin or a sign changes; rows that are part of a wider array."""
    rng = np.random.default_rng(0)
    halves = [0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)]
    edges = np.array([0.0, *halves, np.nextafter(1.0, 0), 1 / 14, 2 / 31, 1 / 3, np.nextafter(2 / 3, 0), 2 / 3, 0.7])
    for size in ((224, 224), (31, 17), (1, 1)):
        for number in (0, 1, 200):
            wide = rng.random((number, policy.num_uniform + 2))
            wide[::3] = rng.choice(edges, wide[::3].shape)
            drawn = []
            for engine in ENGINES:
                monkeypatch.setenv(library.ENGINE, engine)
                drawn.append(policy.draw(wide[:, 1:-1], size))
            assert drawn[0].shape == drawn[1].shape == (number, policy.num_steps)
            assert drawn[0].tobytes() == drawn[1].tobytes()


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_batches(policy: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn from a key in one call or in three: alone, where all is one call, and beside others."""
    for augmentations in ((policy,), (gpuseq.RandomInvert(), policy, gpuseq.RandomErasing())):
        recipe = Recipe(augmentations)
        for size in (1, 2, 3, 37, 300):
            for ids in (
                np.arange(size),
                np.arange(3 * size, dtype=np.uint64)[::-3] + 2**62,
                np.arange(size, dtype="i4"),
            ):
                drawn = []
                for engine in ENGINES:
                    monkeypatch.setenv(library.ENGINE, engine)
                    drawn.append(recipe.draw(ids, (31, 170), seed=2**64 - 1 - size, epoch=size << 40))
                assert drawn[0].shape == (size, recipe.num_steps)
                assert drawn[0].tobytes() == drawn[1].tobytes()


@pytest.mark.parametrize("rng", ["keras", "keyed"])
@pytest.mark.parametrize("seed", [0, 5, 2**31])
def test_plans(rng: Rng, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What iterators draw over two epochs, with and without Keras' own ranges beside it."""
    for ranges in ({}, {"rotation_range": 20, "horizontal_flip": True}):
        for policy in (gpuseq.RandAugment(2, 9), gpuseq.AugMix()):
            plans = []
            for engine in ENGINES:
                monkeypatch.setenv(library.ENGINE, engine)
                generator = gpuseq.ImageDataGenerator(augmentations=policy, rng=rng, device="cpu", **ranges)
                iterator = generator.flow(np.zeros((11, 5, 5, 3), np.uint8), batch_size=4, seed=seed)
                plans.append([iterator.plan_batch() for _ in range(6)])
            assert plans[0] == plans[1]
            assert plans[0][0] != plans[0][3]


def test_more_numbers_than_are_kept_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps 1,024 of a sample at a time."""
    for num_ops in (512, 513):
        policy = gpuseq.RandAugment(num_ops)
        drawn = []
        for engine in ENGINES:
            monkeypatch.setenv(library.ENGINE, engine)
            drawn.append(Recipe((policy,)).draw(np.arange(3), (9, 9), seed=1, epoch=2))
        assert drawn[0].tobytes() == drawn[1].tobytes()
        program, table = empty_program(3, num_ops), policy.choices((9, 9))
        is_done = ChoosingLibrary().draw_steps(table, program, np.arange(3), None, seed=1, epoch=2, place=0)
        assert is_done == (num_ops == 512)


def test_quantiles_of_normal_distributions_are_pythons_or_python_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """NormalDist of this Python, both tails and the middle; where one number differs the library draws none."""
    monkeypatch.setenv(library.ENGINE, "compiled")
    chosen = library.chosen()
    assert chosen is not None
    numbers = np.concatenate([np.random.default_rng(0).random(4000), 2.0 ** np.linspace(-60, -1, 999), [0.075, 0.925]])
    found = np.empty_like(numbers)
    chosen.functions.gpuseq_normal_quantiles(numbers.ctypes.data, len(numbers), 3.0, 1.5, found.ctypes.data)
    wanted = [NormalDist(3.0, 1.5).inv_cdf(number) for number in numbers.tolist()]
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)
    is_pythons = compiled_choices._has_pythons_quantiles(chosen)
    assert is_pythons == (found.tolist() == wanted)
    policy = TimmRandAugment(9, magnitude_std=0.5, increasing=True)
    table, uniform = policy.choices((9, 9)), np.random.default_rng(1).random((50, policy.num_uniform))
    wanted_steps = policy.draw(uniform, (9, 9)).tobytes()
    assert (ChoosingLibrary().choose_steps(table, uniform) is not None) == is_pythons
    monkeypatch.setattr(compiled_choices, "_has_pythons_quantiles", lambda instruction_set: False)
    assert ChoosingLibrary().choose_steps(table, uniform) is None
    assert not ChoosingLibrary().draw_steps(table, empty_program(5, 2), np.arange(5), None, seed=0, epoch=0, place=0)
    assert policy.draw(uniform, (9, 9)).tobytes() == wanted_steps


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depths_change_where_the_product_is_rounded_to_them(depth: int) -> None:
    """A chain has a step at a place where its number times the depth, as a double, is not below the place."""
    for place in range(depth):
        least = _least(place, depth)
        assert least * depth >= place
        assert place == 0 or math.nextafter(least, 0) * depth < place


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("outside", [1.5, -2.0])
def test_numbers_outside_are_refused(engine: str, outside: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read beyond the tables."""
    monkeypatch.setenv(library.ENGINE, engine)
    uniform = np.full((3, 4), 0.5)
    uniform[1, 2] = outside
    with pytest.raises(IndexError):
        gpuseq.RandAugment(2, 9).draw(uniform, (9, 9))


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (4, 1), (50, 2), (50, 9)])
def test_identities_come_last(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds keep their order, and all of their bytes: a step that does nothing may stand in a chain."""
    rng = np.random.default_rng(1)
    program = rng.integers(0, 256, empty_program(*shape).nbytes, np.uint8).view(empty_program(1, 1).dtype)
    program = program.reshape(shape)
    program["op"] = np.where(rng.random(shape) < 0.4, 0, rng.integers(1, len(STEPS), shape))
    wanted: list[Any] = [
        step.tobytes() for steps in program for step in sorted(steps, key=lambda step: bool(step["op"] == 0))
    ]
    for engine in ENGINES:
        monkeypatch.setenv(library.ENGINE, engine)
        made = program.copy()
        choices.put_identities_last(made)
        assert [step.tobytes() for step in made.reshape(-1)] == wanted
