"""Is it the same work? Checked in each contender's process before it is timed."""

from __future__ import annotations

import numpy as np

from .contenders import Case
from .work import picture

__all__ = ["check_batch", "check_rotation"]


def check_rotation(turned: np.ndarray) -> None:
    """Check a turned test picture against SciPy's own rotation, about its centre, in either direction.

    Parameters
    ----------
    turned : numpy.ndarray
        `benchmarks.work.picture`, turned by 30 degrees: shape ``(H, W, 3)``, 0..255.

    Raises
    ------
    AssertionError
        If the disc that both show differs by more than 2 of 255 on average.
    """
    original = picture()
    assert turned.shape == original.shape, f"a turned picture has shape {turned.shape}, expected {original.shape}"
    size = len(original)
    row, col = np.mgrid[:size, :size] - (size - 1) / 2
    disc = np.hypot(row, col) < 0.4 * size
    differences = []
    for angle in (np.pi / 6, -np.pi / 6):
        source_row = np.cos(angle) * row - np.sin(angle) * col + (size - 1) / 2
        source_col = np.sin(angle) * row + np.cos(angle) * col + (size - 1) / 2
        differences.append(np.abs(turned.astype(float) - _bilinear(original, source_row, source_col))[disc].mean())
    assert min(differences) < 2, f"a turned picture is off by {min(differences):.1f} of 255 on average"


def _bilinear(image: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    top = np.clip(np.floor(row).astype(int), 0, len(image) - 2)
    left = np.clip(np.floor(col).astype(int), 0, len(image) - 2)
    down, right = (row - top)[..., None], (col - left)[..., None]
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    blended: np.ndarray = upper * (1 - down) + lower * down
    return blended


def check_batch(batch: np.ndarray, case: Case) -> None:
    """Check a batch's shape, dtype and range, and that it holds pictures and not a constant.

    Raises
    ------
    AssertionError
        If it does not look like the work that was asked for.
    """
    sizes = {(case.size, case.size, 3), (3, case.size, case.size)}
    assert batch.shape[1:] in sizes, f"images have shape {batch.shape[1:]}, expected one of {sorted(sizes)}"
    assert batch.dtype.name == case.dtype, f"the batch is {batch.dtype.name}, expected {case.dtype}"
    values = batch.astype(np.float64) / (255 if case.dtype == "uint8" else 1)
    inside = values.min() > -0.01 and values.max() < 1.01
    assert inside, f"values reach from {values.min():.3g} to {values.max():.3g}"
    assert values.max() > 0.1, f"values reach only {values.max():.3g}: scaled twice?"
    assert values.std() > 0.01, f"the pictures are flat: standard deviation {values.std():.3g}"
