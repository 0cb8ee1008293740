"""Rectangles that are drawn, beside torchvision's loop over tries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpuseq.plan.boxes import crop_boxes
from tests.compare import assert_same

NUM_TRIES = 10


def one_by_one(
    numbers: np.ndarray, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, tuple[int, int, int, int]]:
    """Return which try fits, `NUM_TRIES` for none, and the box: ``RandomResizedCrop.make_params`` of torchvision."""
    height, width = size
    for number in range(NUM_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[2 * number])
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * numbers[2 * number + 1])
        rows, cols = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
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
