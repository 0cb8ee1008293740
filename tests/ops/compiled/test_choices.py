"""Steps chosen by the library are those that NumPy chooses, to the bit, and the plans ask for them there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops import dispatch  # noqa: F401  from here on plans ask the library
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled.choices import ChoosingLibrary
from gpuseq.plan import choices
from gpuseq.plan.policies.augmentation import Augmentation
from gpuseq.plan.program import STEPS, empty_program
from tests import compiled_library

POLICIES: tuple[Augmentation, ...] = (
    gpuseq.RandAugment(2, 9),
    gpuseq.RandAugment(1, 0),
    gpuseq.RandAugment(5, 3, num_magnitude_bins=4, interpolation="bilinear", fill=(1, 2, 3)),
    gpuseq.TrivialAugmentWide(),
    gpuseq.TrivialAugmentWide(num_magnitude_bins=2, interpolation="bilinear"),
    gpuseq.TrivialAugmentWide(fill=255),
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


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_steps(policy: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers, and those where a choice, a bin or a sign changes; rows that are part of a wider array."""
    rng = np.random.default_rng(0)
    edges = np.array([0.0, 0.5, np.nextafter(0.5, 1), np.nextafter(1.0, 0), 1 / 14, 2 / 31])
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
