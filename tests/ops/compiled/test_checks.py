"""What the library lets through are the programs that the checks let through, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from gpuseq.ops import dispatch
from gpuseq.ops.checks import check_program
from gpuseq.ops.compiled import library
from gpuseq.ops.compiled.checks import are_within_limits
from gpuseq.plan.program import STEPS, Step, code_of, empty_program
from tests import compiled_library

UINT8 = np.dtype(np.uint8)
SIZE = (20, 17)
VALUES = (0.0, -0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 8.0, 9.0, 16.0, 17.0, 18.0, 20.0, 21.0, 39.0, 41.0)
ODD_VALUES = (0.5, 2.5, -1.0, np.nan, np.inf, -np.inf, 1e300)


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library be there, whatever is installed."""
    compiled_library.require()
    monkeypatch.setenv(library.ENGINE, "compiled")


def _is_let_through(program: np.ndarray) -> bool:
    try:
        with np.errstate(invalid="ignore"):
            check_program(program, UINT8, 3, SIZE)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_each_step(step: Step) -> None:
    """Numbers on both sides of every limit, in every place; of steps without limits all of them."""
    name = step.name
    rng = np.random.default_rng(0)
    let_through = 0
    for number in range(400):
        program = empty_program(3, 2)
        program[1, 1]["op"] = code_of(name)
        program[1, 1]["arg"] = rng.choice(VALUES, 8)
        if number % 2:
            program[1, 1]["arg"][rng.integers(0, 8)] = rng.choice(ODD_VALUES)
        is_crop = name in ("ResizedCrop", "CropByKey")
        wanted = not is_crop and _is_let_through(program)
        assert are_within_limits(program, SIZE) == wanted, program[1, 1]
        let_through += wanted
    assert is_crop or let_through


@pytest.mark.parametrize("name", ["Erase", "EraseNoise"])
@pytest.mark.parametrize("place", range(4))
def test_rectangles_end_where_the_image_ends(name: str, place: int) -> None:
    """The whole image, and corners of it: a pixel further, or a corner before the first pixel, is outside."""
    for box in ([0, 0, *SIZE], [5, 4, SIZE[0] - 5, SIZE[1] - 4]):
        program = empty_program(1, 1)
        program["op"], program["arg"][0, 0, :4] = code_of(name), box
        assert are_within_limits(program, SIZE)
        program["arg"][0, 0, place] += 1
        assert not are_within_limits(program, SIZE)
        assert not _is_let_through(program)
    program["arg"][0, 0, :4] = 2
    assert are_within_limits(program, SIZE)
    program["arg"][0, 0, place] = -1
    assert not are_within_limits(program, SIZE)
    assert not _is_let_through(program)


def test_codes_of_no_step_are_left_to_numpy() -> None:
    program = empty_program(1, 2)
    for code in (-1, len(STEPS), 1000):
        program[0, 1]["op"] = code
        assert not are_within_limits(program, SIZE)


def test_other_arrays_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second sample, steps of other columns, and an engine of NumPy."""
    program = empty_program(4, 2)
    assert are_within_limits(program, SIZE)
    assert not are_within_limits(program[::2], SIZE)
    assert not are_within_limits(np.zeros((4, 2), [("op", np.int16)]), SIZE)
    monkeypatch.setenv(library.ENGINE, "numpy")
    assert not are_within_limits(program, SIZE)


@pytest.mark.parametrize("asked", ["numpy", "compiled"])
def test_images_that_a_step_is_not_defined_on_are_refused_all_the_same(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.ENGINE, asked)
    program = empty_program(1, 1)
    program["op"], program["arg"][..., 0] = code_of("Brightness"), 1.5
    checked, has_crops = dispatch._checked(program, UINT8, 3, SIZE)
    assert checked is program
    assert not has_crops
    with pytest.raises(TypeError, match="Brightness is defined on uint8"):
        dispatch._checked(program, np.dtype(np.float32), 3, SIZE)
    with pytest.raises(ValueError, match="Brightness takes images of 1, 3 or 4 channels"):
        dispatch._checked(program, UINT8, 5, SIZE)
