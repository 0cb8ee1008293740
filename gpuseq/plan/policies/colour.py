"""Augmentations of colour, with torchvision's names and arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import ClassVar

import numpy as np

from gpuseq.plan.choices import Choices
from gpuseq.plan.program import empty_program

from .augmentation import (
    Augmentation,
    Chosen,
    OneStep,
    Range,
    between,
    checked_call,
    checked_number,
    checked_probability,
    checked_range,
    checked_whole,
    choose,
    one_step,
    put,
    spread_over,
    steps_named,
)

__all__ = [
    "ColorJitter",
    "RandomAutocontrast",
    "RandomEqualize",
    "RandomGamma",
    "RandomGrayscale",
    "RandomInvert",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomSolarize",
]

# All orders, so that one number chooses among them, and each sample takes as many numbers as any other.
_ORDERS = np.array(list(permutations(range(4))))
_CHANNEL_ORDERS = np.array(list(permutations(range(3))), np.float64)
# Steps have the names of Pillow's `ImageEnhance`, whose Color is torchvision's saturation.
_JITTER = (("Brightness", "brightness"), ("Contrast", "contrast"), ("Color", "saturation"), ("Hue", "hue"))


@checked_call
@dataclass(frozen=True, repr=False)
class ColorJitter(Chosen):
    """Brightness, contrast, saturation and hue, each by a drawn factor, in a drawn order.

    Attributes
    ----------
    brightness, contrast, saturation : float, (float, float) or None
        One number x draws from ``[max(0, 1 - x), 1 + x]``, a pair from itself. 0 and None leave it out.
    hue : float, (float, float) or None
        One number x, at most 0.5, draws from ``[-x, x]``: turns of the colour circle. 0 and None leave it out.

    Raises
    ------
    ValueError
        If a range is none, or lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.ColorJitter``; the first three are Pillow's ``ImageEnhance``, hue is torchvision's of
    tensors.
    """

    brightness: float | Range | None = 0.0
    contrast: float | Range | None = 0.0
    saturation: float | Range | None = 0.0
    hue: float | Range | None = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for _, name in _JITTER:
            # torchvision's own default.
            if getattr(self, name) is None:
                object.__setattr__(self, name, 0.0)
        for name in ("brightness", "contrast", "saturation"):
            checked_range(self, name, getattr(self, name), least=0.0, around=1.0)
        checked_range(self, "hue", self.hue, least=-0.5, most=0.5, plus_minus=True)

    @property
    def num_steps(self) -> int:
        """One for each of the four."""
        return 4

    @property
    def num_uniform(self) -> int:
        """The order and four factors."""
        return 5

    @property
    def changes_colours(self) -> bool:
        """Unless all four are left out."""
        return any(getattr(self, name) != 0 for _, name in _JITTER)

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        return _jitter_choices(self)


@lru_cache(maxsize=64)
def _jitter_choices(owner: ColorJitter) -> Choices:
    """Return the four steps, each by a factor's number, in an order by the first number."""
    names, lines = [], []
    for step, name in _JITTER:
        value = getattr(owner, name)
        # Left out and not drawn with an empty range: its step would be a step, and end a run of tables. Its number is
        # taken all the same.
        if isinstance(value, int | float) and value == 0:
            names.append("Identity")
            lines.append(spread_over(0.0, 0.0))
            continue
        names.append(step)
        if name == "hue":
            lines.append(spread_over(*checked_range(owner, name, value, plus_minus=True)))
        else:
            lines.append(spread_over(*checked_range(owner, name, value, least=0.0, around=1.0)))
    factors = np.arange(1, 5)
    return Choices(
        steps=steps_named(names)[:, None],
        columns=np.repeat(factors[:, None], 4, axis=1),
        num_uniform=owner.num_uniform,
        lines=np.array(lines)[:, None],
        orders=_ORDERS,
    )


@checked_call
@dataclass(frozen=True, repr=False)
class RandomPhotometricDistort(Augmentation):
    """Brightness, contrast, saturation, hue and the order of the channels, each with its own coin, as SSD has it.

    Attributes
    ----------
    brightness, contrast, saturation, hue : (float, float)
        Ranges of the factors; `hue` in turns of the colour circle.
    p : float
        Of each of the five, within 0 and 1.

    Raises
    ------
    ValueError
        If a range or `p` lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomPhotometricDistort``; Liu et al., "SSD: Single Shot MultiBox Detector", 2016.
    """

    brightness: Range = (0.875, 1.125)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-0.05, 0.05)
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("brightness", "contrast", "saturation"):
            checked_range(self, name, getattr(self, name), least=0.0)
        checked_range(self, "hue", self.hue, least=-0.5, most=0.5)
        checked_probability(self, self.p)

    @property
    def num_steps(self) -> int:
        """Contrast has two places, of which one is taken."""
        return 6

    @property
    def num_uniform(self) -> int:
        """Five coins, four factors, the place of contrast and the order of the channels."""
        return 11

    @property
    def changes_colours(self) -> bool:
        """Always."""
        return True

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), 6)
        # The factors are drawn for all samples, done or not: a coin moves no other number.
        is_done = uniform[:, :5] < self.p
        factors = [
            between(uniform[:, 5 + number], *getattr(self, name))
            for number, name in enumerate(("brightness", "contrast", "saturation", "hue"))
        ]
        # Both places take the same factor: only one of the two columns is written.
        early = uniform[:, 9] < 0.5
        steps = (
            (0, "Brightness", factors[0], is_done[:, 0]),
            (1, "Contrast", factors[1], is_done[:, 1] & early),
            (2, "Color", factors[2], is_done[:, 2]),
            (3, "Hue", factors[3], is_done[:, 3]),
            (4, "Contrast", factors[1], is_done[:, 1] & ~early),
        )
        for column, step, values, where in steps:
            put(program[:, column], step, values, where=where)
        # The identity is one of the six, as with torchvision's `randperm`.
        order = _CHANNEL_ORDERS[choose(uniform[:, 10], len(_CHANNEL_ORDERS))]
        put(program[:, 5], "PermuteChannels", *order.T, where=is_done[:, 4])
        return program


@checked_call
@dataclass(frozen=True, repr=False)
class RandomGrayscale(OneStep):
    """Luminance in all channels, with probability `p`.

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
    ``torchvision.transforms.v2.RandomGrayscale``; Pillow's ``convert("L")``.
    """

    step: ClassVar[str] = "Grayscale"

    p: float = 0.1


@checked_call
@dataclass(frozen=True, repr=False)
class RandomPosterize(OneStep):
    """Keep the highest `bits` of each level, with probability `p`.

    Attributes
    ----------
    bits : int
        0 to 8.
    p : float
        Within 0 and 1.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomPosterize``; Pillow's ``ImageOps.posterize``.
    """

    step: ClassVar[str] = "Posterize"

    bits: int
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        checked_whole(self, "bits", self.bits, 0, 8)
        super().__post_init__()

    @property
    def arguments(self) -> tuple[float, ...]:
        """Of the step."""
        return (self.bits,)


@checked_call
@dataclass(frozen=True, repr=False)
class RandomSolarize(OneStep):
    """Invert the levels from `threshold` on, with probability `p`.

    Attributes
    ----------
    threshold : float
        0 inverts all, 256 none.
    p : float
        Within 0 and 1.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandomSolarize``; Pillow's ``ImageOps.solarize``.
    """

    step: ClassVar[str] = "Solarize"

    threshold: float
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        checked_number(self, "threshold", self.threshold, 0, 256)
        super().__post_init__()

    @property
    def arguments(self) -> tuple[float, ...]:
        """Of the step."""
        return (self.threshold,)


@checked_call
@dataclass(frozen=True, repr=False)
class RandomInvert(OneStep):
    """Turn each level v into ``255 - v``, with probability `p`.

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
    ``torchvision.transforms.v2.RandomInvert``; Pillow's ``ImageOps.invert``.
    """

    step: ClassVar[str] = "Invert"

    p: float = 0.5


@checked_call
@dataclass(frozen=True, repr=False)
class RandomEqualize(OneStep):
    """Flatten each channel's histogram, with probability `p`.

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
    ``torchvision.transforms.v2.RandomEqualize``; Pillow's ``ImageOps.equalize``.
    """

    step: ClassVar[str] = "Equalize"

    p: float = 0.5


@checked_call
@dataclass(frozen=True, repr=False)
class RandomAutocontrast(OneStep):
    """Stretch each channel to 0 to 255, with probability `p`.

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
    ``torchvision.transforms.v2.RandomAutocontrast``; Pillow's ``ImageOps.autocontrast``.
    """

    step: ClassVar[str] = "AutoContrast"

    p: float = 0.5


@checked_call
@dataclass(frozen=True, repr=False)
class RandomGamma(Chosen):
    """Raise levels, as fractions of 255, to a drawn power, with probability `p`.

    Attributes
    ----------
    gamma : float or (float, float)
        Range of the exponent, or the one that is always taken.
    gain : float
        Multiplier after it.
    p : float
        Within 0 and 1.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.functional.adjust_gamma`` of tensors; the drawn range is albumentations'.
    """

    gamma: float | Range = (0.8, 1.2)
    gain: float = 1.0
    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        checked_range(self, "gamma", self.gamma, least=0, fixed=True)
        checked_number(self, "gain", self.gain, 0)
        checked_probability(self, self.p)

    @property
    def num_uniform(self) -> int:
        """A coin and the exponent."""
        return 2

    @property
    def changes_colours(self) -> bool:
        """Always."""
        return True

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        within = checked_range(self, "gamma", self.gamma, least=0, fixed=True)
        return one_step("Gamma", 0.0, self.gain, p=self.p, within=within)
