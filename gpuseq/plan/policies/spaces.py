"""The learned and the simple policies, with torchvision's names, arguments and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from gpuseq.base.arguments import did_you_mean
from gpuseq.plan.choices import Choices

from .augmentation import Chosen, Fill, Interpolation, checked_call, checked_whole, reading, steps_named

__all__ = ["AutoAugment", "RandAugment", "TrivialAugmentWide"]

Strength: TypeAlias = Callable[[np.ndarray, int, tuple[int, int]], np.ndarray]
"""Of bins, the last bin, and rows and columns: what the step takes."""


@dataclass(frozen=True)
class _Entry:
    """One step of a policy's space: how bins become its argument, and whether a coin gives that a sign."""

    step: str
    strength: Strength | None = None
    signed: bool = False
    offset: float = 0.0


def _spaced(first: float, end: float, bins: np.ndarray, last: int) -> np.ndarray:
    """Return numbers from `first` to `end`, to the bit as torchvision has them: ``torch.linspace`` in float32.

    It goes from both ends towards the middle, with one rounding of product and sum.
    """
    from_first, from_end = float(np.float32(first)), float(np.float32(end))
    step = float((np.float32(end) - np.float32(first)) / np.float32(last))
    spaced = np.where(2 * bins < last, from_first + step * bins, from_end - step * (last - bins))
    return spaced.astype(np.float32).astype(np.float64)


def _up_to(limit: float) -> Strength:
    return lambda bins, last, size: _spaced(0.0, limit, bins, last)


def _posterize(bits: int) -> Strength:
    # Half to even, as torch.round.
    return lambda bins, last, size: np.round(8 - bins / (last / bits))


def _solarize(bins: np.ndarray, last: int, size: tuple[int, int]) -> np.ndarray:
    # From 255 down: a higher bin inverts more. The last threshold, 0, inverts all. Where a threshold is a hair beside a
    # whole level, that decides what becomes of the level.
    return 255.0 * _spaced(1.0, 0.0, bins, last)


def _pixels(axis: int, share: float | None) -> Strength:
    """Return shifts in whole pixels, up to a share of a side of the image, or 32 for None."""

    def shift(bins: np.ndarray, last: int, size: tuple[int, int]) -> np.ndarray:
        # A step that ends a hair below a whole pixel is one pixel less.
        pixels: np.ndarray = np.floor(_spaced(0.0, 32.0 if share is None else share * size[axis], bins, last))
        return pixels

    return shift


def _enhancing(limit: float) -> tuple[_Entry, ...]:
    names = ("Brightness", "Color", "Contrast", "Sharpness")
    # A factor of 1 changes nothing, so torchvision adds the signed magnitude to it.
    return tuple(_Entry(name, _up_to(limit), signed=True, offset=1.0) for name in names)


_WIDEST = 150.0 / 331.0
"""Largest shift, as a share of the side: that of AutoAugment's 331-pixel images."""

# No strength: these two look at the image itself.
_MEASURED = (_Entry("AutoContrast"), _Entry("Equalize"))


@dataclass(frozen=True, eq=False)
class _Space:
    """The steps that a policy chooses from, in the order of the choices."""

    entries: tuple[_Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the steps."""
        return tuple(entry.step for entry in self.entries)


def _arguments(space: _Space, last: int, image_size: tuple[int, int]) -> np.ndarray:
    """Return what each entry's step takes at each bin, as it is and negated where a coin gives it a sign.

    Shape ``(entries, last + 1, 2)``; 0 where a step takes nothing.
    """
    bins = np.arange(last + 1)
    made = [
        np.zeros(last + 1) if entry.strength is None else entry.strength(bins, last, image_size)
        for entry in space.entries
    ]
    strengths = np.stack(made)[:, :, None]
    is_signed, offsets = np.array([(entry.signed, entry.offset) for entry in space.entries]).T[:, :, None, None]
    return np.where(is_signed != 0, offsets + np.array([1.0, -1.0]) * strengths, strengths)


def _space_of(*, shear: float, share: float | None, degrees: float, factor: float, bits: int) -> _Space:
    """Return torchvision's 14 steps up to these limits. The paper's Invert is not among them."""
    moving = (
        _Entry("ShearX", _up_to(shear), signed=True),
        _Entry("ShearY", _up_to(shear), signed=True),
        _Entry("TranslateX", _pixels(1, share), signed=True),
        _Entry("TranslateY", _pixels(0, share), signed=True),
        _Entry("Rotate", _up_to(degrees), signed=True),
    )
    reducing = _Entry("Posterize", _posterize(bits)), _Entry("Solarize", _solarize)
    return _Space((_Entry("Identity"), *moving, *_enhancing(factor), *reducing, *_MEASURED))


_RAND_SPACE = _space_of(shear=0.3, share=_WIDEST, degrees=30.0, factor=0.9, bits=4)

# TrivialAugment's wide ranges: three to four times as far, and shifts in pixels instead of shares of a side.
_WIDE_SPACE = _space_of(shear=0.99, share=None, degrees=135.0, factor=0.99, bits=6)

# The same limits as RandAugment's, over ten bins; Invert is AutoAugment's alone.
_LEARNED_SPACE = _Space((*_RAND_SPACE.entries, _Entry("Invert")))


@lru_cache(maxsize=64)
def _rand_choices(owner: RandAugment, image_size: tuple[int, int]) -> Choices:
    """Return what RandAugment chooses from: at its one bin, by two numbers for each step."""
    every = _arguments(_RAND_SPACE, owner.num_magnitude_bins - 1, image_size)
    first = np.arange(0, owner.num_uniform, 2)
    return Choices(
        steps=steps_named(_RAND_SPACE.names, **reading(owner))[None],
        columns=np.stack([first, first, first + 1, first], axis=1),
        num_uniform=owner.num_uniform,
        arguments=every[None, :, [owner.magnitude]],
    )


@lru_cache(maxsize=64)
def _trivial_choices(owner: TrivialAugmentWide, image_size: tuple[int, int]) -> Choices:
    """Return what TrivialAugment chooses from, at all bins."""
    return Choices(
        steps=steps_named(_WIDE_SPACE.names, **reading(owner))[None],
        columns=np.array([(0, 1, 2, 0)]),
        num_uniform=owner.num_uniform,
        arguments=_arguments(_WIDE_SPACE, owner.num_magnitude_bins - 1, image_size)[None],
    )


@checked_call
@dataclass(frozen=True, repr=False)
class RandAugment(Chosen):
    """`num_ops` of 14 steps for each sample, drawn with replacement, all at one magnitude.

    Attributes
    ----------
    num_ops : int
        Steps per sample.
    magnitude : int
        Bin of the tables, below `num_magnitude_bins`.
    num_magnitude_bins : int
        Into how many each range is cut.
    interpolation : {"nearest", "bilinear"}
        How pixels are read between pixels.
    fill : None, float or sequence of float
        Level, or one per channel, where no pixel comes from; None is black.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.RandAugment`` on PIL images; Cubuk et al., "RandAugment: Practical automated data
    augmentation with a reduced search space", 2019.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    interpolation: Interpolation = "nearest"
    fill: Fill = None

    def __post_init__(self) -> None:
        """Check the values."""
        checked_whole(self, "num_ops", self.num_ops, 1)
        bins = checked_whole(self, "num_magnitude_bins", self.num_magnitude_bins, 2)
        checked_whole(self, "magnitude", self.magnitude, 0, bins - 1)
        reading(self)  # for its checks

    @property
    def num_steps(self) -> int:
        """One for each op."""
        return self.num_ops

    @property
    def num_uniform(self) -> int:
        """A choice and a sign for each op."""
        return 2 * self.num_ops

    @property
    def changes_colours(self) -> bool:
        """Most of its steps do."""
        return True

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        return _rand_choices(self, image_size)


@checked_call
@dataclass(frozen=True, repr=False)
class TrivialAugmentWide(Chosen):
    """One of 14 steps for each sample, at a magnitude drawn from all bins.

    Attributes
    ----------
    num_magnitude_bins : int
        Into how many each range is cut.
    interpolation, fill
        As in `RandAugment`.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``torchvision.transforms.v2.TrivialAugmentWide`` on PIL images; Müller and Hutter, "TrivialAugment: Tuning-free yet
    state-of-the-art data augmentation", 2021.
    """

    num_magnitude_bins: int = 31
    interpolation: Interpolation = "nearest"
    fill: Fill = None

    def __post_init__(self) -> None:
        """Check the values."""
        checked_whole(self, "num_magnitude_bins", self.num_magnitude_bins, 2)
        reading(self)  # for its checks

    @property
    def num_uniform(self) -> int:
        """The choice, the bin and the sign."""
        return 3

    @property
    def changes_colours(self) -> bool:
        """Most of its steps do."""
        return True

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        return _trivial_choices(self, image_size)


_LEARNED = {
    "imagenet": """
        Posterize .4 8, Rotate .6 9 | Solarize .6 5, AutoContrast .6 | Equalize .8, Equalize .6
        Posterize .6 7, Posterize .6 6 | Equalize .4, Solarize .2 4 | Equalize .4, Rotate .8 8
        Solarize .6 3, Equalize .6 | Posterize .8 5, Equalize 1 | Rotate .2 3, Solarize .6 8
        Equalize .6, Posterize .4 6 | Rotate .8 8, Color .4 0 | Rotate .4 9, Equalize .6
        Equalize 0, Equalize .8 | Invert .6, Equalize 1 | Color .6 4, Contrast 1 8
        Rotate .8 8, Color 1 2 | Color .8 8, Solarize .8 7 | Sharpness .4 7, Invert .6
        ShearX .6 5, Equalize 1 | Color .4 0, Equalize .6 | Equalize .4, Solarize .2 4
        Solarize .6 5, AutoContrast .6 | Invert .6, Equalize 1 | Color .6 4, Contrast 1 8
        Equalize .8, Equalize .6
    """,
    "cifar10": """
        Invert .1, Contrast .2 6 | Rotate .7 2, TranslateX .3 9 | Sharpness .8 1, Sharpness .9 3
        ShearY .5 8, TranslateY .7 9 | AutoContrast .5, Equalize .9 | ShearY .2 7, Posterize .3 7
        Color .4 3, Brightness .6 7 | Sharpness .3 9, Brightness .7 9 | Equalize .6, Equalize .5
        Contrast .6 7, Sharpness .6 5 | Color .7 7, TranslateX .5 8 | Equalize .3, AutoContrast .4
        TranslateY .4 3, Sharpness .2 6 | Brightness .9 6, Color .2 8 | Solarize .5 2, Invert 0
        Equalize .2, AutoContrast .6 | Equalize .2, Equalize .6 | Color .9 9, Equalize .6
        AutoContrast .8, Solarize .2 8 | Brightness .1 3, Color .7 0 | Solarize .4 5, AutoContrast .9
        TranslateY .9 9, TranslateY .7 9 | AutoContrast .9, Solarize .8 3 | Equalize .8, Invert .1
        TranslateY .7 9, AutoContrast .9
    """,
    "svhn": """
        ShearX .9 4, Invert .2 | ShearY .9 8, Invert .7 | Equalize .6, Solarize .6 6
        Invert .9, Equalize .6 | Equalize .6, Rotate .9 3 | ShearX .9 4, AutoContrast .8
        ShearY .9 8, Invert .4 | ShearY .9 5, Solarize .2 6 | Invert .9, AutoContrast .8
        Equalize .6, Rotate .9 3 | ShearX .9 4, Solarize .3 3 | ShearY .8 8, Invert .7
        Equalize .9, TranslateY .6 6 | Invert .9, Equalize .6 | Contrast .3 3, Rotate .8 4
        Invert .8, TranslateY 0 2 | ShearY .7 6, Solarize .4 8 | Invert .6, Rotate .8 4
        ShearY .3 7, TranslateX .9 3 | ShearX .1 6, Invert .6 | Solarize .7 2, TranslateY .6 7
        ShearY .8 4, Invert .8 | ShearX .7 9, TranslateY .8 3 | ShearY .8 5, AutoContrast .7
        ShearX .7 2, Invert .1
    """,
}
"""The pairs that were found: step, probability, bin of 10. Two steps make a pair, and a bar or a line's end ends it."""

_LEARNED_BINS = 10


def learned_pairs(policy: str) -> list[list[tuple[str, float, int | None]]]:
    """Return the 25 pairs of a learned policy, each step with its probability and its bin, None without one."""
    pairs = []
    for text in _LEARNED[policy].replace("\n", "|").split("|"):
        steps = [step.split() for step in text.split(",") if step.strip()]
        if steps:
            pairs.append([(step[0], float(step[1]), int(step[2]) if len(step) > 2 else None) for step in steps])
    return pairs


@lru_cache(maxsize=64)
def _learned_choices(owner: AutoAugment, image_size: tuple[int, int]) -> Choices:
    """Return a learned policy's pairs: what is chosen for the first step of a sample, and what for the second."""
    names = _LEARNED_SPACE.names
    every = _arguments(_LEARNED_SPACE, _LEARNED_BINS - 1, image_size)
    # One number chooses the pair; each of its steps has a coin and a sign.
    firsts, seconds = zip(*learned_pairs(owner.policy), strict=True)
    taken = [[(names.index(step), bin_ or 0) for step, _, bin_ in steps] for steps in (firsts, seconds)]
    # Below and not up to it: a probability of 0, which some pairs have, never happens, and one of 1 always, as numbers
    # lie in [0, 1). torchvision's `<=` lets a drawn 0 through.
    within = [[(0.0, share) for _, share, _ in steps] for steps in (firsts, seconds)]
    return Choices(
        steps=np.stack([steps_named([step[0] for step in steps], **reading(owner)) for steps in (firsts, seconds)]),
        columns=np.array([(0, 0, 3, 1), (0, 0, 4, 2)]),
        num_uniform=owner.num_uniform,
        arguments=np.array([[[every[number, bin_]] for number, bin_ in steps] for steps in taken]),
        within=np.array(within),
    )


@checked_call
@dataclass(frozen=True, repr=False)
class AutoAugment(Chosen):
    """One of 25 learned pairs of steps for each sample.

    Attributes
    ----------
    policy : {"imagenet", "cifar10", "svhn"}
        On which data the pairs were found.
    interpolation, fill
        As in `RandAugment`.

    Raises
    ------
    ValueError
        If a value is none of these.

    References
    ----------
    ``torchvision.transforms.v2.AutoAugment`` on PIL images; Cubuk et al., "AutoAugment: Learning augmentation policies
    from data", 2018.
    """

    policy: str = "imagenet"
    interpolation: Interpolation = "nearest"
    fill: Fill = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.policy not in _LEARNED:
            raise ValueError(
                f"AutoAugment: policy must be one of {', '.join(map(repr, _LEARNED))}; got {self.policy!r}"
                f"{did_you_mean(self.policy, _LEARNED)}"
            )
        reading(self)  # for its checks

    @property
    def num_steps(self) -> int:
        """A pair."""
        return 2

    @property
    def num_uniform(self) -> int:
        """The pair, and a coin and a sign for each step."""
        return 5

    @property
    def changes_colours(self) -> bool:
        """Most of its steps do."""
        return True

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        return _learned_choices(self, image_size)
