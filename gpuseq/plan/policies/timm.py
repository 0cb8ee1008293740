"""timm's RandAugment and AugMix, whose steps are Pillow's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gpuseq.plan.choices import (
    LINE_DTYPE,
    Choices,
    choose_steps,
    draw_steps,
    strengths,
    write_mixes,
    write_shares,
    write_steps,
)
from gpuseq.plan.program import code_of, empty_program

from .augmentation import (
    Augmentation,
    Chosen,
    Fill,
    Interpolation,
    checked_call,
    checked_number,
    checked_probability,
    checked_whole,
    reading,
    steps_named,
)
from .dirichlet import NUM_UNIFORM, shares

__all__ = ["AugMix", "TimmRandAugment"]

_UNIT = 10.0
"""Magnitude at which a level is 1."""


def _line(
    factor: float,
    *,
    whole: bool = False,
    signs: tuple[float, float] = (1.0, 1.0),
    offset: float = -0.0,
    least: float = -math.inf,
    most: float = math.inf,
) -> np.ndarray:
    # A negative zero, because a zero added is one digit of a negative zero.
    return np.array((factor, whole, signs, offset, least, most), LINE_DTYPE)


_NOTHING = _line(0.0)


# timm negates where `random() > 0.5`, torchvision where it is at most 0.5: the sign of what lies above comes first.
_EITHER = (-1.0, 1.0)
_SHARED = {
    "AutoContrast": _NOTHING,
    "Equalize": _NOTHING,
    "Invert": _NOTHING,
    "Rotate": _line(30.0, signs=_EITHER),
    "ShearX": _line(0.3, signs=_EITHER),
    "ShearY": _line(0.3, signs=_EITHER),
    # timm moves the picture left where a shift is positive; TranslateX moves it right. The sign is a coin's in both.
    # In shares of a side, see `_lines`.
    "TranslateX": _line(0.45, signs=(1.0, -1.0)),
    "TranslateY": _line(0.45, signs=(1.0, -1.0)),
    "SolarizeAdd": _line(110, whole=True, most=128),
}
_ENHANCE = ("Color", "Contrast", "Brightness", "Sharpness")
_RISING = {
    **_SHARED,
    "Posterize": _line(4, whole=True, signs=(-1.0, -1.0), offset=4, least=0),
    "Solarize": _line(256, whole=True, signs=(-1.0, -1.0), offset=256, least=0),
    **dict.fromkeys(_ENHANCE, _line(0.9, signs=_EITHER, offset=1, least=0.1)),
}
# timm without `inc`: strength is not monotone in the magnitude. Factors of 0.1 + 1.8 x are nearly neutral at x = 0.5,
# and posterize keeps more bits the higher it is. `inc1` is there for that.
_PLAIN = {
    **_SHARED,
    "Posterize": _line(4, whole=True, most=8),
    "Solarize": _line(256, whole=True, most=256),
    **dict.fromkeys(_ENHANCE, _line(1.8, offset=0.1)),
}
_RAND_STEPS = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd"),
    *_ENHANCE,
    *("ShearX", "ShearY", "TranslateX", "TranslateY"),
)
# timm leaves these two out of AugMix.
_MIX_STEPS = tuple(step for step in _RAND_STEPS if step not in ("Invert", "SolarizeAdd"))
_WEIGHTS = {
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    "TranslateX": 1.0,
    "TranslateY": 1.0,
    "Color": 0.25,
    "Sharpness": 0.25,
    "AutoContrast": 0.25,
}
_WEIGHT_OF_OTHERS = 0.05


def _strength(
    names: tuple[str, ...],
    lines_of: dict[str, np.ndarray],
    image_size: tuple[int, int],
    magnitude: float,
    std: float,
    most: float,
) -> dict[str, Any]:
    """Return how strong the steps of a space are, as keyword arguments of `Choices`; all steps of a sample alike."""
    lines = np.array([lines_of[name] for name in names])
    for name, side in (("TranslateY", image_size[0]), ("TranslateX", image_size[1])):
        lines["signs"][names.index(name)] *= side
    if std == 0:  # a magnitude for all
        is_low = np.array([False, True])
        return {"arguments": strengths(lines[:, None], magnitude / _UNIT, is_low)[None, :, None]}
    drawn = {"spread": magnitude} if math.isinf(std) else {"normal": (magnitude, std, most)}
    return {"lines": lines[None], "unit": _UNIT, **drawn}


def _steps(names: tuple[str, ...], owner: Any) -> np.ndarray:
    steps = steps_named(names, **reading(owner))
    steps["arg"][steps["op"] == code_of("SolarizeAdd"), 1] = 128.0
    return steps


@lru_cache(maxsize=64)
def _rand_choices(owner: TimmRandAugment, image_size: tuple[int, int]) -> Choices:
    """Return what timm's RandAugment chooses from: by a choice, a coin, a magnitude and a sign for each layer."""
    levels = _RISING if owner.increasing or owner.weighted else _PLAIN
    # A slot whose coin falls the other way stays empty: timm's `p` is of each step, not of the policy.
    within = np.zeros((1, len(_RAND_STEPS), 2))
    within[..., 1] = owner.p
    return Choices(
        steps=_steps(_RAND_STEPS, owner)[None],
        columns=np.arange(0, 4 * owner.num_layers, 4)[:, None] + np.array((0, 2, 3, 1)),
        num_uniform=owner.num_uniform,
        within=within,
        **_strength(_RAND_STEPS, levels, image_size, owner.magnitude, owner.magnitude_std, _checked_most(owner)),
    )


@checked_call
@dataclass(frozen=True, repr=False)
class TimmRandAugment(Chosen):
    """timm's RandAugment, for ``"rand-m9-mstd0.5-inc1"``: each step with its own coin and a magnitude that varies.

    Attributes
    ----------
    magnitude : float
        0 to 10, or to `magnitude_max`.
    num_layers : int
        Steps per sample, drawn from 15 with replacement.
    p : float
        Of each step, within 0 and 1.
    magnitude_std : float
        Standard deviation of the magnitude; inf draws it uniformly from 0 to `magnitude`.
    magnitude_max : float or None
        The magnitude's upper end. None: 10.
    increasing : bool
        Steps that all grow stronger with the magnitude.
    weighted : bool
        Draw by timm's weights and without replacement; takes the increasing steps.
    interpolation, fill
        As in `~gpuseq.RandAugment`. timm draws between bilinear and bicubic; this is bilinear.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``timm.data.auto_augment.rand_augment_transform``; Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", 2006, for the weighted choice.
    """

    magnitude: float = 10
    num_layers: int = 2
    p: float = 0.5
    magnitude_std: float = 0.0
    magnitude_max: float | None = None
    increasing: bool = False
    weighted: bool = False
    interpolation: Interpolation = "bilinear"
    fill: Fill = 128

    def __post_init__(self) -> None:
        """Check the values."""
        most = _checked_most(self)
        checked_number(self, "magnitude", self.magnitude, 0, most)
        _check_deviation(self)
        checked_whole(self, "num_layers", self.num_layers, 1, len(_RAND_STEPS) if self.weighted else None)
        checked_probability(self, self.p)
        reading(self)  # for its checks

    @property
    def num_steps(self) -> int:
        """One for each layer."""
        return self.num_layers

    @property
    def num_uniform(self) -> int:
        """For each layer a choice, a coin, a magnitude and a sign; weighted, a number for each step too."""
        return 4 * self.num_layers + (len(_RAND_STEPS) if self.weighted else 0)

    @property
    def changes_colours(self) -> bool:
        """Most of its steps do."""
        return True

    def choices(self, image_size: tuple[int, int]) -> Choices:
        """Return what is chosen from for images of a size, the same object each time."""
        return _rand_choices(self, image_size)

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        choices = self.choices(image_size)
        if self.weighted:
            # Exponential waiting times, divided by the weights: the k that come first are a weighted choice without
            # replacement, from one number per step.
            weights = np.array([_WEIGHTS.get(step, _WEIGHT_OF_OTHERS) for step in _RAND_STEPS])
            waiting = -np.log1p(-uniform[:, 4 * self.num_layers :]) / weights
            chosen = np.argsort(waiting, axis=1)[:, : self.num_layers]
            uniform = uniform.copy()
            # A number in the middle of those that choose it.
            uniform[:, choices.columns[:, 0]] = (chosen + 0.5) / len(_RAND_STEPS)
        return choose_steps(choices, uniform)

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
        # At once where all numbers are taken as they are drawn.
        of_all = Augmentation if self.weighted else Chosen
        of_all.draw_to(self, program, sample_ids, image_size, seed=seed, epoch=epoch, place=place)


_MOST_CHAINS = 5
_MOST_DEPTH = 3


@checked_call
@dataclass(frozen=True, repr=False)
class AugMix(Augmentation):
    """Several chains of steps of the same image, blended with each other and with the image.

    Attributes
    ----------
    severity : float
        Largest magnitude, 0 to 10.
    mixture_width : int
        Chains, 1 to 5.
    chain_depth : int
        Steps of a chain, 1 to 3; -1 draws it for each.
    alpha : float
        Above 0: of the Dirichlet and Beta distributions of the weights. 1.0 makes both uniform, less makes one chain
        count most.
    magnitude_std : float
        inf draws magnitudes uniformly from 0 to `severity`, another number normally around it.
    interpolation, fill
        As in `TimmRandAugment`.

    Raises
    ------
    ValueError
        If a value lies outside its limits.

    References
    ----------
    ``timm.data.auto_augment.AugMixAugment``, unblended; Hendrycks et al., "AugMix: A simple data processing method to
    improve robustness and uncertainty", 2020.
    """

    severity: float = 3
    mixture_width: int = 3
    chain_depth: int = -1
    alpha: float = 1.0
    magnitude_std: float = math.inf
    interpolation: Interpolation = "bilinear"
    fill: Fill = 128

    def __post_init__(self) -> None:
        """Check the values."""
        checked_number(self, "severity", self.severity, 0, _UNIT)
        _check_deviation(self)
        checked_whole(self, "mixture_width", self.mixture_width, 1, _MOST_CHAINS)
        if self.chain_depth != -1:
            checked_whole(self, "chain_depth", self.chain_depth, 1, _MOST_DEPTH)
        if not checked_number(self, "alpha", self.alpha, 0) > 0:
            raise ValueError(f"AugMix: alpha must be a number above 0; got {self.alpha!r}")
        reading(self)  # for its checks

    @property
    def _depth(self) -> int:
        return _MOST_DEPTH if self.chain_depth == -1 else self.chain_depth

    @property
    def num_steps(self) -> int:
        """The blend, and the chains."""
        return 1 + self.mixture_width * self._depth

    @property
    def num_uniform(self) -> int:
        """The blend; for each chain a weight and a depth; for each step a choice, a magnitude and a sign."""
        return self._num_plain + (0 if self.alpha == 1 else (2 + self.mixture_width) * NUM_UNIFORM)

    @property
    def _num_plain(self) -> int:
        return 1 + 2 * self.mixture_width + 3 * self.mixture_width * self._depth

    @property
    def changes_colours(self) -> bool:
        """Most of its steps do."""
        return True

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), self.num_steps)
        write_steps(program[:, 1:], choose_steps(_mix_choices(self, image_size), uniform))
        if self.alpha == 1:
            write_mixes(program[:, :1], np.ascontiguousarray(uniform[:, : 1 + self.mixture_width]))
            return program
        further = uniform[:, self._num_plain :].reshape(len(uniform), 2 + self.mixture_width, NUM_UNIFORM)
        write_shares(program[:, :1], shares(further[:, :2], self.alpha)[:, 0], shares(further[:, 2:], self.alpha))
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
        if self.alpha != 1:
            super().draw_to(program, sample_ids, image_size, **key)
            return
        # The chains at once, and the mixture from what was kept of their numbers: its first step, whatever they are.
        kept = np.empty((len(sample_ids), 1 + self.mixture_width))
        draw_steps(_mix_choices(self, image_size), program[:, 1:], sample_ids, kept=kept, **key)
        write_mixes(program[:, :1], kept)


@lru_cache(maxsize=64)
def _mix_choices(owner: AugMix, image_size: tuple[int, int]) -> Choices:
    """Return what the chains choose from: by a choice, a magnitude and a sign for each step, a depth for each chain."""
    width, depth = owner.mixture_width, owner._depth
    number = np.arange(width * depth)
    chain, position = np.divmod(number, depth)
    first = 1 + 2 * width + 3 * number
    # One row for each step, because each knows its chain.
    steps = np.tile(_steps(_MIX_STEPS, owner), (len(number), 1))
    steps["chain"] = (chain + 1)[:, None]
    within = None
    if owner.chain_depth == -1:
        # Steps beyond a chain's drawn depth are drawn all the same, and left empty: each sample takes as many numbers.
        least = np.array([_least(place, depth) for place in position.tolist()])
        within = np.broadcast_to(np.stack([least, np.full(len(least), np.inf)], axis=1)[:, None], (*steps.shape, 2))
    strength = _strength(_MIX_STEPS, _RISING, image_size, owner.severity, owner.magnitude_std, _UNIT)
    for name in {"arguments", "lines"}.intersection(strength):
        strength[name] = np.repeat(strength[name], len(number), axis=0)
    return Choices(
        steps=steps,
        columns=np.stack([first, first + 1, first + 2, 1 + width + chain], axis=1),
        num_uniform=owner.num_uniform,
        within=within,
        **strength,
    )


def _least(place: int, depth: int) -> float:
    """Return the least number that draws a depth above `place`: its product with `depth` is rounded to `place`."""
    number = place / depth
    while number > 0 and number * depth >= place:
        number = math.nextafter(number, 0.0)
    while number * depth < place:
        number = math.nextafter(number, 1.0)
    return number


def _check_deviation(owner: TimmRandAugment | AugMix) -> None:
    # inf is a word for a uniform magnitude, see `_magnitudes`.
    if owner.magnitude_std != math.inf:
        checked_number(owner, "magnitude_std", owner.magnitude_std, 0)


def _checked_most(owner: TimmRandAugment) -> float:
    if owner.magnitude_max is None:
        return _UNIT
    return checked_number(owner, "magnitude_max", owner.magnitude_max, 0)
