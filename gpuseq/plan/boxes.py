"""Rectangles of images from drawn numbers: which part is cropped, which is erased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from gpuseq.plan.philox import philox_rows
from gpuseq.plan.program import STEP_DTYPE, code_of, of_kind

__all__ = ["NUM_KEYS", "NUM_UNIFORM", "crop_boxes", "draw_box", "with_boxes", "without_crops"]

Range: TypeAlias = tuple[float, float]

NUM_KEYS = 1 << 53
"""Different keys of numbers that are drawn later: what a float64 holds exactly."""

NUM_TRIES = 10

NUM_UNIFORM = 2 * NUM_TRIES + 2
"""Numbers of a rectangle: an area and a ratio for each try, and the corner."""

_CROP, _BY_KEY = code_of("ResizedCrop"), code_of("CropByKey")


def draw_box(
    uniform: np.ndarray,
    image_size: tuple[int, int],
    largest: tuple[int, int],
    scale: Range,
    ratio: Range,
    *,
    tall: bool = False,
) -> np.ndarray:
    """Return for each sample the first of ten drawn rectangles that fits, or zeros.

    Parameters
    ----------
    uniform : numpy.ndarray
        Shape ``(N, 22)``: an area and a ratio per try, then top and left.
    image_size : (int, int)
        Rows and columns of the images.
    largest : (int, int)
        The most rows and columns that a rectangle may have.
    scale : (float, float)
        Range of the area as a share of the image's.
    ratio : (float, float)
        Range of the ratio, drawn by its logarithm.
    tall : bool
        Whether the ratio is of height over width rather than of width over height.

    Returns
    -------
    numpy.ndarray
        Shape ``(4, N)``, float64, whole numbers: top, left, height, width.
    """
    # All ten tries of all samples at once, and both sides in one array: a batch is so small that calls are what costs.
    # Peers stop at the first try that fits, which would take another count of numbers for each sample.
    num_samples, tries = len(uniform), uniform[:, : 2 * NUM_TRIES]
    area = image_size[0] * image_size[1] * _between(tries[:, 0::2], *scale)
    aspect = np.exp(_between(tries[:, 1::2], math.log(ratio[0]), math.log(ratio[1])))
    sides = np.empty((2, num_samples, NUM_TRIES))
    long, short = sides if tall else sides[::-1]
    np.multiply(area, aspect, long)
    np.divide(area, aspect, short)
    np.sqrt(sides, sides)
    np.rint(sides, sides)
    accepted = ((sides > 0) & (sides <= np.array(largest)[:, None, None])).all(axis=0)
    # argmax gives the first True, and 0 where there is none: those become zeros at the end.
    chosen = np.argmax(accepted, axis=1) + np.arange(0, num_samples * NUM_TRIES, NUM_TRIES)
    box = np.empty((4, num_samples))
    box[2:] = sides.reshape(2, -1).take(chosen, axis=1)
    # + 1: the last place is one of them, as with torchvision's `randint`.
    np.trunc(uniform[:, 2 * NUM_TRIES :].T * (np.array(image_size)[:, None] - box[2:] + 1), box[:2])
    fits = accepted.reshape(-1).take(chosen)
    if not fits.all():
        box[:, ~fits] = 0.0
    return box


def _between(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    spread: np.ndarray = low + (high - low) * uniform
    return spread


def crop_boxes(uniform: np.ndarray, image_size: tuple[int, int], scale: Range, ratio: Range) -> np.ndarray:
    """Return what is cropped of each sample: a drawn rectangle, or where none fits the largest one in the middle.

    Parameters
    ----------
    uniform, image_size, scale, ratio
        As in `draw_box`; the ratio is of width over height.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, 4)``, int64: top, left, height, width.

    References
    ----------
    ``torchvision.transforms.v2.RandomResizedCrop``.
    """
    height, width = image_size
    low, high = ratio
    largest_width, largest_height = width, height
    if width / height < low:
        largest_height = round(width / low)
    elif width / height > high:
        largest_width = round(height * high)

    box = draw_box(uniform, image_size, image_size, scale, ratio).T.astype(np.int64)
    middle = (height - largest_height) // 2, (width - largest_width) // 2, largest_height, largest_width
    box[box[:, 2] == 0] = middle
    return box


def with_boxes(program: np.ndarray, image_sizes: Sequence[tuple[int, int]] | tuple[int, int]) -> np.ndarray:
    """Return a program whose crops are rectangles: those of files are drawn once the size of the file is known.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    image_sizes : (int, int), or sequence of them
        Rows and columns of all images, or of each sample's.

    Returns
    -------
    numpy.ndarray
        `program` itself where nothing is drawn by a key.
    """
    by_key = program["op"] == _BY_KEY
    if not by_key.any():
        return program
    program = program.copy()
    # One after another: each file has a size of its own.
    for sample, column in np.argwhere(by_key).tolist():
        size = image_sizes if isinstance(image_sizes[0], int) else image_sizes[sample]
        step = program[sample, column : column + 1]
        key, *ranges = step["arg"][0, :5].tolist()
        uniform = philox_rows(np.array([int(key)], np.uint64), NUM_UNIFORM, seed=0, epoch=0, place=0)
        box = crop_boxes(uniform, size, (ranges[0], ranges[1]), (ranges[2], ranges[3]))  # type: ignore[arg-type]
        target = step["arg"][0, 5:7].copy()
        step["op"], step["arg"] = _CROP, 0.0
        step["arg"][0, :4], step["arg"][0, 4:6] = box[0], target
    return program


def without_crops(program: np.ndarray | None) -> np.ndarray | None:
    """Return what is left of a program once its crops are done."""
    if program is None:
        return None
    kept = program.copy()
    kept[of_kind(program, "crop")] = np.zeros((), STEP_DTYPE)
    return kept
