"""Augmentations that move pixels, with torchvision's names and arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from gpuseq.plan.boxes import NUM_KEYS, NUM_UNIFORM, Boxes, crop_boxes, drawn_by_library, middle_box
from gpuseq.plan.choices import Choices
from gpuseq.plan.program import empty_program

from .augmentation import (
    Augmentation,
    Chosen,
    Fill,
    Interpolation,
    OneStep,
    Range,
    between,
    checked_call,
    checked_interpolation,
    checked_probability,
    checked_range,
    checked_whole,
    choose,
    one_step,
    put,
    reading,
    steps_named,
)

__all__ = [
    "RandomAffine",
    "RandomHorizontalFlip",
    "RandomPerspective",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomVerticalFlip",
]


@checked_call
@dataclass(frozen=True, repr=False)
class RandomHorizontalFlip(OneStep):
    """Mirror left and right, with probability `p`.

    Attributes
    ----------
    p : float
        Within 0 and 1.

    Raises
    ------
    ValueError
        If `p` lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomHorizontalFlip``.
    """

    step: ClassVar[str] = "HorizontalFlip"

    p: float = 0.5


@checked_call
@dataclass(frozen=True, repr=False)
class RandomVerticalFlip(OneStep):
    """Mirror top and bottom, with probability `p`.

    Attributes
    ----------
    p : float
        Within 0 and 1.

    Raises
    ------
    ValueError
        If `p` lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomVerticalFlip``.
    """

    step: ClassVar[str] = "VerticalFlip"

    p: float = 0.5


@checked_call
@dataclass(frozen=True, repr=False)
class RandomRotation(Chosen):
    """Turn about the middle or another point, counter-clockwise.

    Attributes
    ----------
    degrees : float or (float, float)
        One number x draws from ``[-x, x]``, a pair from itself.
    interpolation : {"nearest", "bilinear"}
        How pixels are read between pixels.
    expand : bool
        False: the images of a batch keep their size.
    center : (float, float) or None
        Column and row, in pixels from the top left corner, of the point that stays; it may lie outside of the image.
        None: the middle.
    fill : None, float or sequence of float
        Level, or one per channel, where no pixel comes from.

    Raises
    ------
    ValueError
        If a value is none of these.

    References
    ----------
    ``torchvision.transforms.v2.RandomRotation``; Pillow's ``Image.rotate``.
    """

    degrees: float | Range
    interpolation: Interpolation = "nearest"
    expand: bool = False
    center: Range | None = None
    fill: Fill = 0

    def __post_init__(self) -> None:
        """Check the values."""
        checked_range(self, "degrees", self.degrees, plus_minus=True)
        if self.expand is not False:
            raise ValueError(
                f"RandomRotation: expand must be False, as all images of a batch have one size; got {self.expand!r}. "
                "Name what comes after it: fill="
            )
        _center(self, self.center)  # for its checks
        reading(self)  # for its checks

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        within = checked_range(self, "degrees", self.degrees, plus_minus=True)
        if self.center is None:
            return one_step("Rotate", within=within, **reading(self))
        return one_step("RotateAbout", 0.0, *_center(self, self.center), within=within, **reading(self))


@checked_call
@dataclass(frozen=True, repr=False)
class RandomAffine(Augmentation):
    """Turn, shift, scale and shear about the middle or another point, in one map.

    Attributes
    ----------
    degrees : float or (float, float)
        One number x draws from ``[-x, x]``; 0 does not turn.
    translate : (float, float) or None
        Largest shifts as fractions of width and height; whole pixels are drawn.
    scale : (float, float) or None
        Range of the factor.
    shear : float, (float, float), (float, float, float, float) or None
        Degrees: one number x shears along the rows by ``[-x, x]``, a pair by itself, four along rows and columns.
    interpolation, fill, center
        As in `RandomRotation`.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomAffine``.
    """

    degrees: float | Range
    translate: Range | None = None
    scale: Range | None = None
    shear: float | Sequence[float] | None = None
    interpolation: Interpolation = "nearest"
    fill: Fill = 0
    center: Range | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        checked_range(self, "degrees", self.degrees, plus_minus=True)
        if self.translate is not None:
            if not isinstance(self.translate, Sequence) or len(self.translate) != 2:
                raise ValueError(
                    f"RandomAffine: translate must be a pair (of the width, of the height); got {self.translate!r}"
                )
            for share in self.translate:
                checked_probability(self, share, "translate")
        if self.scale is not None:
            # The least number above 0: a factor of 0 has no inverse, and engines map backwards.
            checked_range(self, "scale", self.scale, least=math.ulp(0.0))
        # For its checks: a wrong pair is refused here, where the user's line is, and not at the first batch.
        _ = self._shears
        _center(self, self.center)  # for its checks
        reading(self)  # for its checks

    @property
    def _shears(self) -> tuple[Range, Range]:
        # torchvision shears along x alone unless four numbers are given.
        if self.shear is None:
            return (0.0, 0.0), (0.0, 0.0)
        if isinstance(self.shear, Sequence) and len(self.shear) == 4:
            first, second = self.shear[:2], self.shear[2:]
            return checked_range(self, "shear", first), checked_range(self, "shear", second)
        return checked_range(self, "shear", self.shear, plus_minus=True), (0.0, 0.0)

    @property
    def num_uniform(self) -> int:
        """Angle, two shifts, scale and two shears."""
        # All of them whatever is given, so that one argument more leaves the others' numbers as they are.
        return 6

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), 1)
        # torchvision rounds shifts to whole pixels, half to even as Python's `round`, and orders them x, y.
        shift_x, shift_y = self.translate or (0.0, 0.0)
        most_x, most_y = shift_x * image_size[1], shift_y * image_size[0]
        put(
            program[:, 0],
            "Affine" if self.center is None else "AffineAbout",
            between(uniform[:, 0], *checked_range(self, "degrees", self.degrees, plus_minus=True)),
            np.round(between(uniform[:, 1], -most_x, most_x)),
            np.round(between(uniform[:, 2], -most_y, most_y)),
            between(uniform[:, 3], *(self.scale or (1.0, 1.0))),
            between(uniform[:, 4], *self._shears[0]),
            between(uniform[:, 5], *self._shears[1]),
            *_center(self, self.center),
            **reading(self),
        )
        return program


@checked_call
@dataclass(frozen=True, repr=False)
class RandomPerspective(Augmentation):
    """Move each corner inwards by whole pixels, with probability `p`.

    Attributes
    ----------
    distortion_scale : float
        Within 0 and 1: largest movement as a share of half a side.
    p : float
        Within 0 and 1.
    interpolation, fill
        As in `RandomRotation`.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomPerspective``.
    """

    distortion_scale: float = 0.5
    p: float = 0.5
    interpolation: Interpolation = "bilinear"
    fill: Fill = 0

    def __post_init__(self) -> None:
        """Check the values."""
        checked_probability(self, self.distortion_scale, "distortion_scale")
        checked_probability(self, self.p)
        reading(self)  # for its checks

    @property
    def num_uniform(self) -> int:
        """A coin and eight coordinates."""
        return 9

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), 1)
        height, width = image_size
        # Pairs x, y from the top left corner on, clockwise; whole pixels, the largest included, as torchvision's
        # `randint`.
        inward = np.empty((len(uniform), 8))
        inward[:, 0::2] = choose(uniform[:, 1::2], int(self.distortion_scale * (width // 2)) + 1)
        inward[:, 1::2] = choose(uniform[:, 2::2], int(self.distortion_scale * (height // 2)) + 1)
        corners = np.array([0, 0, width - 1, 0, width - 1, height - 1, 0, height - 1])
        signs = np.array([1, 1, -1, 1, -1, -1, 1, -1])
        # Numbers were taken for all samples, so that the coin of one moves no other's.
        where = uniform[:, 0] < self.p
        put(program[:, 0], "Perspective", *(corners + signs * inward).T, where=where, **reading(self))
        return program


@checked_call
@dataclass(frozen=True, repr=False)
class RandomResizedCrop(Augmentation):
    """Cut a drawn rectangle out and resize it; the batch then has this size. It must come first.

    Attributes
    ----------
    size : int or (int, int)
        Rows and columns of the result; one number for both.
    scale : (float, float)
        Range of the rectangle's share of the area.
    ratio : (float, float)
        Range of its width over its height.
    interpolation : {"nearest", "bilinear"}
        Of the resize; bilinear weighs all pixels below, as Pillow's does.
    antialias : bool
        True, as torchvision has it of PIL images: there is no bilinear resize here that leaves pixels out.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomResizedCrop``; Szegedy et al., "Going deeper with convolutions", 2015.
    """

    size: int | Sequence[int]
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.antialias is not True:
            raise ValueError(
                f"RandomResizedCrop: antialias must be True, as of PIL images; got {self.antialias!r}. "
                "interpolation='nearest' weighs no pixels"
            )
        _ = self.target_size
        checked_range(self, "scale", self.scale, least=0.0, most=1.0)
        checked_range(self, "ratio", self.ratio, least=math.ulp(0.0))
        checked_interpolation(self, self.interpolation)

    @property
    def target_size(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        given = self.size
        sides = tuple(given) if isinstance(given, Sequence) else (given,)
        if len(sides) not in (1, 2):
            raise ValueError(f"RandomResizedCrop: size must be a whole number or (rows, columns); got {given!r}")
        checked = [checked_whole(self, "size", side, 1) for side in sides]
        return checked[0], checked[-1]

    @property
    def num_uniform(self) -> int:
        """Ten tries of an area and a ratio, and the corner."""
        return NUM_UNIFORM

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), 1)
        box = crop_boxes(uniform, image_size, self.scale, self.ratio)
        put(program[:, 0], "ResizedCrop", *box.T, *self.target_size, bilinear=self.interpolation == "bilinear")
        return program

    def draw_to(
        self,
        program: np.ndarray,
        sample_ids: np.ndarray,
        image_size: tuple[int, int],
        *,
        seed: int,
        epoch: int,
        place: int,
    ) -> None:
        """Draw the steps of a batch; see `Augmentation.draw_to`."""
        key = {"seed": seed, "epoch": epoch, "place": place}
        if not drawn_by_library(_crop_boxes(self, image_size), program, sample_ids, **key):
            super().draw_to(program, sample_ids, image_size, **key)

    def draw_key(self, uniform: np.ndarray) -> np.ndarray:
        """Return the steps for files, whose sizes are not known yet: a key that the rectangle follows from.

        Parameters
        ----------
        uniform : numpy.ndarray
            As in `draw`.

        Returns
        -------
        numpy.ndarray
            Shape ``(N, 1)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
        """
        program = empty_program(len(uniform), 1)
        # A plan is drawn before a file is opened. What depends on the file's size follows from this one number,
        # whenever it is asked for.
        key = np.floor(uniform[:, 0] * NUM_KEYS)
        # Into the step: a plan that is replayed elsewhere must not take the ranges of the generator there.
        ranges = (*self.scale, *self.ratio)
        put(program[:, 0], "CropByKey", key, *ranges, *self.target_size, bilinear=self.interpolation == "bilinear")
        return program


def _center(owner: object, value: Any) -> tuple[float, ...]:
    """Return column and row of a centre, or nothing for the middle, or refuse what is neither."""
    if value is None:
        return ()
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if len(numbers) != 2 or not all(
        isinstance(number, int | float | np.number) and not isinstance(number, bool) and math.isfinite(number)
        for number in numbers
    ):
        raise ValueError(
            f"{type(owner).__name__}: center must be None or a pair of finite numbers (column, row); got {value!r}"
        )
    return float(numbers[0]), float(numbers[1])


@lru_cache(maxsize=64)
def _crop_boxes(owner: RandomResizedCrop, image_size: tuple[int, int]) -> Boxes:
    step = steps_named(["ResizedCrop"], bilinear=owner.interpolation == "bilinear")
    step["arg"][0, 4:6] = owner.target_size
    middle = step.copy()
    middle["arg"][0, :4] = middle_box(image_size, owner.ratio)
    return Boxes(step, middle, image_size, image_size, owner.scale, owner.ratio)
