"""Augmentations that sharpen and blur, with torchvision's names and arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gpuseq.plan.choices import Choices

from .augmentation import (
    Chosen,
    OneStep,
    Range,
    checked_call,
    checked_number,
    checked_range,
    checked_whole,
    one_step,
)

__all__ = ["GaussianBlur", "RandomAdjustSharpness"]


@checked_call
@dataclass(frozen=True, repr=False)
class RandomAdjustSharpness(OneStep):
    """Blend with a smoothed image, or away from it, with probability `p`.

    Attributes
    ----------
    sharpness_factor : float
        0 smooths, 1 changes nothing, 2 sharpens.
    p : float
        Within 0 and 1.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomAdjustSharpness``; Pillow's ``ImageEnhance.Sharpness``.
    """

    step: ClassVar[str] = "Sharpness"

    sharpness_factor: float
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        checked_number(self, "sharpness_factor", self.sharpness_factor, 0)
        super().__post_init__()

    @property
    def arguments(self) -> tuple[float, ...]:
        """Of the step."""
        return (self.sharpness_factor,)


@checked_call
@dataclass(frozen=True, repr=False)
class GaussianBlur(Chosen):
    """Weighted mean of the pixels around, always; ``RandomApply([GaussianBlur(3)], p=0.5)`` for a coin.

    Attributes
    ----------
    kernel_size : int or (int, int)
        Odd; width and height of the kernel in pixels. Images must be larger than half of it.
    sigma : float or (float, float)
        Range of the standard deviation in pixels.

    Raises
    ------
    ValueError
        If a side of the kernel is even, or `sigma` not positive.

    References
    ----------
    ``torchvision.transforms.v2.GaussianBlur``: its kernel and border, in double. Pillow's ``GaussianBlur`` is three box
    blurs, another function.
    """

    kernel_size: int | Sequence[int]
    sigma: float | Range = (0.1, 2.0)

    def __post_init__(self) -> None:
        """Check the values."""
        # Odd, so that a pixel has as many neighbours on either side.
        for side in self._sides:
            if checked_whole(self, "kernel_size", side, 1) % 2 == 0:
                raise ValueError(f"GaussianBlur: kernel_size must be odd; got {self.kernel_size!r}")
        checked_range(self, "sigma", self.sigma, least=math.ulp(0.0), fixed=True)

    @property
    def _sides(self) -> tuple[Any, Any]:
        given = self.kernel_size
        sides = tuple(given) if isinstance(given, Sequence) else (given, given)
        if len(sides) != 2:
            raise ValueError(f"GaussianBlur: kernel_size must be a whole number or a pair of them; got {given!r}")
        return sides

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time.

        Raises
        ------
        ValueError
            If the images are smaller than half of the kernel, which their border cannot fill.
        """
        width, height = self._sides
        # The border is reflected without its edge pixel, and needs so many pixels to reflect.
        if width // 2 >= image_size[1] or height // 2 >= image_size[0]:
            raise ValueError(
                f"GaussianBlur: kernel_size={self.kernel_size!r} does not fit images of {image_size[0]} rows and "
                f"{image_size[1]} columns"
            )
        within = checked_range(self, "sigma", self.sigma, least=0.0, fixed=True)
        return one_step("GaussianBlur", width, height, drawn=2, within=within)
