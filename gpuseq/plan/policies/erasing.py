"""Random erasing: a rectangle of the normalised image is overwritten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from gpuseq.plan.boxes import NUM_KEYS, NUM_UNIFORM, Boxes, draw_box, drawn_by_library
from gpuseq.plan.program import STEP_DTYPE, code_of, empty_program

from .augmentation import Augmentation, Range, checked_call, checked_probability, checked_range, steps_named

__all__ = ["RandomErasing"]

_ERASE, _NOISE = code_of("Erase"), code_of("EraseNoise")


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

    @cached_property
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
        """A coin, the key of the noise, and those of a rectangle."""
        return 2 + NUM_UNIFORM

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        height, width = image_size
        # Strictly smaller than the image, as torchvision and timm have it: no image is erased whole. The ratio is of
        # height over width, where the crop's is of width over height: both as torchvision has it.
        largest = height - 1, width - 1
        box = draw_box(uniform[:, 2:], image_size, largest, self.scale, self.ratio, tall=True)
        program = empty_program(len(uniform), 1)
        steps, levels = program[:, 0], self._levels
        args = steps["arg"]
        args[:, :4] = box.T
        if levels is None:
            steps["op"] = _NOISE
            # A step holds doubles, and pixels' noise is a function of this number: it has to survive JSON exactly.
            args[:, 4] = np.floor(uniform[:, 1] * NUM_KEYS)
        else:
            steps["op"] = _ERASE
            args[:, 4:] = levels
        idle = (uniform[:, 0] >= self.p) | (box[2] == 0)
        if idle.any():
            steps[idle] = np.zeros((), STEP_DTYPE)
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
        if not drawn_by_library(_erase_boxes(self, image_size), program, sample_ids, **key):
            super().draw_to(program, sample_ids, image_size, **key)


@lru_cache(maxsize=64)
def _erase_boxes(owner: RandomErasing, image_size: tuple[int, int]) -> Boxes:
    levels = owner._levels
    step = steps_named(["EraseNoise" if levels is None else "Erase"])
    step["arg"][0, 4:] = 0.0 if levels is None else levels
    nothing = np.zeros(1, STEP_DTYPE)
    # Strictly smaller than the image, as torchvision and timm have it: no image is erased whole.
    largest = image_size[0] - 1, image_size[1] - 1
    return Boxes(
        *(step, nothing, image_size, largest, owner.scale, owner.ratio),
        tall=True,
        p=owner.p,
        has_key=levels is None,
    )
