"""Rectangles that are drawn, beside torchvision's loop over tries."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from gpuseq.plan.boxes import NUM_KEYS, NUM_UNIFORM, crop_boxes, with_boxes
from gpuseq.plan.philox import philox_rows
from gpuseq.plan.policies.erasing import RandomErasing
from gpuseq.plan.program import IDENTITY, code_of, empty_program
from tests.compare import assert_same

NUM_TRIES = 10


def sides_of_tries(
    numbers: np.ndarray, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Yield the sides of each try: the first is longer where the ratio is above 1."""
    height, width = size
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for share, place in zip(numbers[: 2 * NUM_TRIES : 2], numbers[1 : 2 * NUM_TRIES : 2], strict=True):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = math.exp(low + (high - low) * place)
        yield round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def one_by_one(
    numbers: np.ndarray, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, tuple[int, int, int, int]]:
    """Return which try fits, `NUM_TRIES` for none, and the box: ``RandomResizedCrop.make_params`` of torchvision."""
    height, width = size
    for number, (cols, rows) in enumerate(sides_of_tries(numbers, size, scale, ratio)):
        if 0 < rows <= height and 0 < cols <= width:
            return number, (int(numbers[-2] * (height - rows + 1)), int(numbers[-1] * (width - cols + 1)), rows, cols)
    rows, cols = height, width
    if width / height < ratio[0]:
        rows = round(width / ratio[0])
    elif width / height > ratio[1]:
        cols = round(height * ratio[1])
    return NUM_TRIES, ((height - rows) // 2, (width - cols) // 2, rows, cols)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((31, 23), (0.08, 1.0), (0.75, 4 / 3)),
        # Rows and columns that round to none are tries that fail, as those that are too long are.
        ((3, 40), (0.001, 0.6), (0.1, 10.0)),
        ((40, 3), (0.001, 0.6), (0.1, 10.0)),
        ((50, 4), (0.9, 1.0), (0.5, 2.0)),
        ((4, 50), (0.9, 1.0), (0.5, 2.0)),
        ((8, 8), (4.0, 5.0), (1.0, 1.0)),
    ],
)
def test_a_crop_is_the_first_try_that_fits(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    numbers = np.random.default_rng(7).random((300, 2 * NUM_TRIES + 2))
    tries, wanted = zip(*(one_by_one(row, size, scale, ratio) for row in numbers), strict=True)
    assert_same(crop_boxes(numbers, size, scale, ratio), np.array(wanted))
    assert min(tries) > 0 or len(set(tries)) > 2, "some tries fail"


def erased_one_by_one(
    numbers: np.ndarray, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, tuple[int, int, int, int]]:
    """Return which try fits, and the box, zeros for none: ``RandomErasing.make_params`` of torchvision."""
    height, width = size
    for number, (rows, cols) in enumerate(sides_of_tries(numbers, size, scale, ratio)):
        if 0 < rows < height and 0 < cols < width:
            return number, (int(numbers[-2] * (height - rows + 1)), int(numbers[-1] * (width - cols + 1)), rows, cols)
    return NUM_TRIES, (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((31, 23), (0.02, 0.33), (0.3, 3.3)),
        ((9, 11), (0.5, 1.0), (0.1, 9.0)),
        ((40, 3), (0.001, 0.6), (0.1, 10.0)),
        ((5, 5), (1.0, 1.0), (1.0, 1.0)),
        ((1, 1), (0.5, 1.0), (1.0, 1.0)),
    ],
)
def test_a_rectangle_is_erased_that_is_the_first_try_smaller_than_the_image(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    # The coin and the key of the noise come first.
    numbers = np.random.default_rng(8).random((300, 2 + 2 * NUM_TRIES + 2))
    tries, wanted = zip(*(erased_one_by_one(row[2:], size, scale, ratio) for row in numbers), strict=True)
    steps = RandomErasing(0.75, scale, ratio, value=(-1.5, 0.25, 3)).draw(numbers, size)[:, 0]
    erases = (numbers[:, 0] < 0.75) & (np.array(tries) < NUM_TRIES)
    assert_same(steps["op"], np.where(erases, code_of("Erase"), IDENTITY).astype(np.int16))
    assert_same(steps["arg"][erases, :4], np.array(wanted, np.float64)[erases])
    assert (steps["arg"][erases, 4:] == (-1.5, 0.25, 3, 0)).all()
    assert not steps["arg"][~erases].any(), "a step that does nothing holds no numbers"
    assert max(tries) > 0, "some tries fail"


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [
        ((0.08, 1.0), (0.75, 4 / 3)),
        ((0.9, 1.0), (0.01, 0.02)),
        ((0.0, 1.0), (5e-324, 1e308)),
        # A side of four and a half pixels: which way it is rounded is NumPy's to say.
        ((20.25 / 100, 20.25 / 100), (1.0, 1.0)),
    ],
)
def test_a_crop_by_key_is_the_box_of_its_numbers(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Files of many sizes, one after another and all at once; the key's numbers are Philox's."""
    keys = np.random.default_rng(0).integers(0, NUM_KEYS, 150)
    program = empty_program(len(keys), 2)
    program["op"][:, 1], program["bilinear"][:, 1] = code_of("CropByKey"), 1
    program["arg"][:, 1, 0], program["arg"][:, 1, 1:7] = keys, (*scale, *ratio, 7, 9)
    sizes = [(10, 10), (1, 1), (31, 170), (500, 3), (480, 640)] * 30
    with np.errstate(over="ignore", divide="ignore"):
        made = with_boxes(program, sizes)
        for key, size, steps in zip(keys, sizes, made, strict=True):
            uniform = philox_rows(np.array([key]), NUM_UNIFORM, seed=0, epoch=0, place=0)
            wanted = (*crop_boxes(uniform, size, scale, ratio)[0].tolist(), 7, 9, 0, 0)
            assert steps["op"].tolist() == [IDENTITY, code_of("ResizedCrop")]
            assert steps["arg"][1].tolist() == list(wanted)
            assert steps["bilinear"][1] == 1
        assert (with_boxes(program[:5], (31, 170))["arg"][2] == made["arg"][2]).all()
