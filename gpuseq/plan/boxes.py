"""Rectangles of images from drawn numbers: which part is cropped, which is erased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from gpuseq.plan.philox import philox_rows
from gpuseq.plan.program import STEP_DTYPE, code_of, of_kind

__all__ = [
    "NUM_KEYS",
    "NUM_UNIFORM",
    "Boxes",
    "Compiled",
    "crop_boxes",
    "draw_box",
    "drawn_by_library",
    "middle_box",
    "use_compiled",
    "with_boxes",
    "without_crops",
]

Range: TypeAlias = tuple[float, float]

NUM_KEYS = 1 << 53
"""Different keys of numbers that are drawn later: what a float64 holds exactly."""

NUM_TRIES = 10

NUM_UNIFORM = 2 * NUM_TRIES + 2
"""Numbers of a rectangle: an area and a ratio for each try, and the corner."""

_MOST_LOGARITHM = 300.0
"""Of a ratio. Beyond it a rectangle may have sides that no double holds: infinite to NumPy, and an error of Python."""

_CROP, _BY_KEY = code_of("ResizedCrop"), code_of("CropByKey")


# By its identity: what follows from it is kept, and the arrays are never changed.
@dataclass(frozen=True, eq=False)
class Boxes:
    """Steps that are a drawn rectangle, for images of one size: what the library has to know of them.

    Attributes
    ----------
    step : numpy.ndarray
        Shape ``(1,)``, dtype `~gpuseq.plan.program.STEP_DTYPE`: whole but for the rectangle and the key.
    otherwise : numpy.ndarray
        As `step`: what is there where no try fits.
    image_size, largest, scale, ratio, tall
        As of `draw_box`.
    p : float or None
        With a number: the first two of a sample are a coin, for steps that are done where it lies below `p`, and a key.
    has_key : bool
        Whether the key is the fifth argument.
    """

    step: np.ndarray
    otherwise: np.ndarray
    image_size: tuple[int, int]
    largest: tuple[int, int]
    scale: Range
    ratio: Range
    tall: bool = False
    p: float | None = None
    has_key: bool = False


class Compiled(Protocol):
    """What draws them in less time."""

    def __call__(  # noqa: D102
        self, boxes: Boxes, program: np.ndarray, sample_ids: np.ndarray, *, seed: int, epoch: int, place: int
    ) -> bool: ...


_compiled: Compiled | None = None


def use_compiled(function: Compiled) -> None:
    """Ask a function for steps from now on: this room knows no library, and the one that has it calls.

    Parameters
    ----------
    function : Compiled
        Takes what `drawn_by_library` takes.
    """
    global _compiled
    _compiled = function


def drawn_by_library(
    boxes: Boxes, program: np.ndarray, sample_ids: np.ndarray, *, seed: int, epoch: int, place: int
) -> bool:
    """Draw steps from the numbers of a key where a library does that; tell whether it did.

    Parameters
    ----------
    boxes : Boxes
        What is drawn.
    program : numpy.ndarray
        Shape ``(N, 1)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, the samples in any stride. Written to.
    sample_ids, seed, epoch, place
        Of the numbers: see `~gpuseq.plan.philox.philox_rows`.
    """
    return _compiled is not None and _compiled(boxes, program, sample_ids, seed=seed, epoch=epoch, place=place)


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
    box = draw_box(uniform, image_size, image_size, scale, ratio).T.astype(np.int64)
    box[box[:, 2] == 0] = middle_box(image_size, ratio)
    return box


def middle_box(image_size: tuple[int, int], ratio: Range) -> tuple[int, int, int, int]:
    """Return the largest rectangle in the middle of an image that a range of ratios allows: top, left, height, width.

    Parameters
    ----------
    image_size, ratio
        As in `crop_boxes`.
    """
    height, width = image_size
    low, high = ratio
    largest_width, largest_height = width, height
    if width / height < low:
        largest_height = round(width / low)
    elif width / height > high:
        largest_width = round(height * high)
    return (height - largest_height) // 2, (width - largest_width) // 2, largest_height, largest_width


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
        key, *ranges, rows, cols = step["arg"][0, :7].tolist()
        uniform = philox_rows(np.array([int(key)]), NUM_UNIFORM, seed=0, epoch=0, place=0)
        box = _crop_box(uniform, size, (ranges[0], ranges[1]), (ranges[2], ranges[3]))  # type: ignore[arg-type]
        step["op"], step["arg"] = _CROP, (*box, rows, cols, 0.0, 0.0)
    return program


def _crop_box(
    uniform: np.ndarray, image_size: tuple[int, int], scale: Range, ratio: Range
) -> tuple[int, int, int, int]:
    """Return the rectangle of one sample, as `crop_boxes` has it, in a tenth of the time."""
    rows, cols = image_size
    numbers = uniform[0].tolist()
    low, high = math.log(ratio[0]), math.log(ratio[1])
    if max(-low, high) < _MOST_LOGARITHM:
        for area, place in zip(numbers[: 2 * NUM_TRIES : 2], numbers[1 : 2 * NUM_TRIES : 2], strict=True):
            area = rows * cols * (scale[0] + (scale[1] - scale[0]) * area)
            aspect = math.exp(low + (high - low) * place)
            sides = math.sqrt(area / aspect), math.sqrt(area * aspect)
            # Whichever library's exp it was made with, a side is rounded to the same number, but next to a half: they
            # differ in the last digits, and NumPy's is another on each machine.
            if not all(abs(side % 1.0 - 0.5) > side * 1e-12 for side in sides):
                break
            height, width = map(round, sides)
            if 0 < height <= rows and 0 < width <= cols:
                return int(numbers[-2] * (rows - height + 1)), int(numbers[-1] * (cols - width + 1)), height, width
        else:
            return middle_box(image_size, ratio)
    top, left, height, width = crop_boxes(uniform, image_size, scale, ratio)[0].tolist()
    return top, left, height, width


def without_crops(program: np.ndarray | None) -> np.ndarray | None:
    """Return what is left of a program once its crops are done."""
    if program is None:
        return None
    kept = program.copy()
    kept[of_kind(program, "crop")] = np.zeros((), STEP_DTYPE)
    return kept
