"""Random erasing: a rectangle of the normalised image is overwritten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuseq.plan.boxes import NUM_KEYS, draw_box
from gpuseq.plan.program import empty_program

from .augmentation import Augmentation, Range, checked_call, checked_probability, checked_range, put

__all__ = ["RandomErasing"]


@checked_call
@dataclass(frozen=True, repr=False)
class RandomErasing(Augmentation):
    """Overwrite a drawn rectangle, with probability `p`, after everything else: rescale and normalisation too.

    Attributes
    ----------
    p : float
        Within 0 and 1.
    scale : (float, float)
        Range of the rectangle's share of the area.
    ratio : (float, float)
        Range of its height over its width.
    value : float, sequence of float or "random"
        What is written, in units of the finished batch: one number, one per channel, or for each pixel and channel a
        normal number of mean 0 and variance 1.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomErasing``, timm's ``RandomErasing``; Zhong et al., "Random Erasing Data
    Augmentation", 2017.
    """

    p: float = 0.5
    scale: Range = (0.02, 0.33)
    ratio: Range = (0.3, 3.3)
    value: float | Sequence[float] | str = 0

    def __post_init__(self) -> None:
        """Check the values."""
        checked_probability(self, self.p)
        checked_range(self, "scale", self.scale, least=0.0, most=1.0)
        checked_range(self, "ratio", self.ratio, least=math.ulp(0.0))
        _ = self._levels

    @property
    def _levels(self) -> tuple[float, ...] | None:
        """Four values, or None for noise."""
        if isinstance(self.value, str):
            if self.value != "random":
                raise ValueError(f"RandomErasing: value must be numbers or 'random'; got {self.value!r}")
            return None
        values: tuple[Any, ...] = tuple(self.value) if isinstance(self.value, Sequence) else (self.value,)
        if len(values) not in (1, 3, 4) or not all(
            isinstance(value, int | float | np.number) and math.isfinite(value) for value in values
        ):
            raise ValueError(f"RandomErasing: value must be one number, or 3 or 4 of them; got {self.value!r}")
        # Three values are for three channels; a fourth is 0.
        values = values * 4 if len(values) == 1 else values + (0.0,) * (4 - len(values))
        return tuple(float(value) for value in values)

    @property
    def num_uniform(self) -> int:
        """Ten tries of an area and a ratio, the corner, a coin and the key of the noise."""
        return 24

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), 1)
        height, width = image_size

        def fits(heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
            # Strictly smaller than the image, as torchvision and timm have it: no image is erased whole.
            return (heights > 0) & (heights < height) & (widths > 0) & (widths < width)

        # The ratio is of height over width, where the crop's is of width over height: both as torchvision has it.
        box = draw_box(uniform[:, 2:], image_size, self.scale, self.ratio, fits, tall=True)
        where = (uniform[:, 0] < self.p) & (box[:, 2] > 0)
        levels = self._levels
        if levels is None:
            # A step holds doubles, and pixels' noise is a function of this number: it has to survive JSON exactly.
            key = np.floor(uniform[:, 1] * NUM_KEYS)
            put(program[:, 0], "EraseNoise", *box[where].T, key[where], where=where)
        else:
            put(program[:, 0], "Erase", *box[where].T, *levels, where=where)
        return program
