"""timm's RandAugment and AugMix, whose steps are Pillow's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from gpuseq.plan.program import IDENTITY, code_of, empty_program

from .augmentation import (
    Augmentation,
    Fill,
    Interpolation,
    checked_call,
    checked_number,
    checked_probability,
    checked_whole,
    choose,
    put,
    put_all,
    reading,
)
from .dirichlet import NUM_UNIFORM, shares

__all__ = ["AugMix", "TimmRandAugment"]

Level: TypeAlias = Callable[[np.ndarray, np.ndarray, tuple[int, int]], np.ndarray | None]
"""Of levels (magnitude / 10), signs and the image size: what the step takes, None for nothing."""

_UNIT = 10.0
"""Magnitude at which a level is 1."""


def _nothing(level: np.ndarray, sign: np.ndarray, size: tuple[int, int]) -> None:
    return None


def _increasing(level: np.ndarray, sign: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    factor: np.ndarray = np.maximum(0.1, 1.0 + sign * (level * 0.9))
    return factor


def _enhancing(level: np.ndarray, sign: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return level * 1.8 + 0.1


def _bits(level: np.ndarray) -> np.ndarray:
    # timm's int(), of what is never negative.
    bits: np.ndarray = np.floor(level * 4)
    return bits


def _threshold(level: np.ndarray) -> np.ndarray:
    threshold: np.ndarray = np.minimum(256, np.floor(level * 256))
    return threshold


# timm moves the picture left where a shift is positive; TranslateX moves it right. The sign is a coin's in both.
_SHARED: dict[str, Level] = {
    "AutoContrast": _nothing,
    "Equalize": _nothing,
    "Invert": _nothing,
    "Rotate": lambda level, sign, size: sign * (level * 30.0),
    "ShearX": lambda level, sign, size: sign * (level * 0.3),
    "ShearY": lambda level, sign, size: sign * (level * 0.3),
    "TranslateX": lambda level, sign, size: -sign * (level * 0.45) * size[1],
    "TranslateY": lambda level, sign, size: -sign * (level * 0.45) * size[0],
    "SolarizeAdd": lambda level, sign, size: np.minimum(128, np.floor(level * 110)),
}
_ENHANCE = ("Color", "Contrast", "Brightness", "Sharpness")
_RISING: dict[str, Level] = {
    **_SHARED,
    "Posterize": lambda level, sign, size: np.maximum(0, 4 - _bits(level)),
    "Solarize": lambda level, sign, size: 256 - _threshold(level),
    **dict.fromkeys(_ENHANCE, _increasing),
}
# timm without `inc`: strength is not monotone in the magnitude. Factors of 0.1 + 1.8 x are nearly neutral at x = 0.5,
# and posterize keeps more bits the higher it is. `inc1` is there for that.
_PLAIN: dict[str, Level] = {
    **_SHARED,
    "Posterize": lambda level, sign, size: np.minimum(8, _bits(level)),
    "Solarize": lambda level, sign, size: _threshold(level),
    **dict.fromkeys(_ENHANCE, _enhancing),
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


def _write(
    program: np.ndarray,
    steps: tuple[str, ...],
    levels: dict[str, Level],
    chosen: np.ndarray,
    magnitude: np.ndarray,
    sign: np.ndarray,
    image_size: tuple[int, int],
    owner: Any,
) -> None:
    """Write the chosen steps where their number is not negative; all arrays have the program's shape."""
    # The order of the steps in the tuple is the choice's number. Those of one number are made at once: sorted by it
    # they lie side by side. Eight bits, because these are sorted by counting.
    flat = chosen.astype(np.int8).reshape(-1)
    order = flat.argsort(kind="stable")
    ends = np.bincount(flat + 1, minlength=len(steps) + 1).cumsum().tolist()
    level = magnitude.reshape(-1).take(order) / _UNIT
    # timm negates where `random() > 0.5`, torchvision where it is at most 0.5.
    signs = np.where(sign.reshape(-1).take(order) > 0.5, -1.0, 1.0)
    made = np.zeros(flat.shape)
    for step, first, end in zip(steps, ends[:-1], ends[1:], strict=True):
        values = levels[step](level[first:end], signs[first:end], image_size)
        if values is not None:
            made[first:end] = values
    values = np.empty(chosen.shape)
    values.reshape(-1)[order] = made
    # A choice of -1 finds the code behind the last step's.
    codes = _codes(steps).take(chosen, mode="wrap")
    further = [np.where(codes == code_of("SolarizeAdd"), 128.0, 0.0)] if "SolarizeAdd" in steps else []
    put_all(program, codes, values, *further, **reading(owner))


@lru_cache(maxsize=8)
def _codes(steps: tuple[str, ...]) -> np.ndarray:
    return np.array([*map(code_of, steps), IDENTITY], np.int16)


def _magnitudes(uniform: np.ndarray, middle: float, std: float, most: float) -> np.ndarray:
    """Return magnitudes around `middle`: fixed, normal with deviation `std`, or uniform from 0 where that is inf."""
    if std == 0:
        drawn = np.full(uniform.shape, float(middle))
    elif math.isinf(std):
        drawn = uniform * middle
    else:
        from statistics import NormalDist  # here, because it takes longer to import than all of this

        # The generator's least number stands for 0, which is at minus infinity.
        quantile = NormalDist(middle, std).inv_cdf
        numbers = [quantile(max(number, 2.0**-54)) for number in uniform.ravel().tolist()]
        drawn = np.array(numbers, np.float64).reshape(uniform.shape)
    magnitudes: np.ndarray = np.clip(drawn, 0.0, most)
    return magnitudes


@checked_call
@dataclass(frozen=True, repr=False)
class TimmRandAugment(Augmentation):
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

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        program = empty_program(len(uniform), self.num_layers)
        levels = _RISING if self.increasing or self.weighted else _PLAIN
        layers = uniform[:, : 4 * self.num_layers].reshape(len(uniform), self.num_layers, 4)
        chosen = choose(layers[:, :, 0], len(_RAND_STEPS))
        if self.weighted:
            # Exponential waiting times, divided by the weights: the k that come first are a weighted choice without
            # replacement, from one number per step.
            weights = np.array([_WEIGHTS.get(step, _WEIGHT_OF_OTHERS) for step in _RAND_STEPS])
            waiting = -np.log1p(-uniform[:, 4 * self.num_layers :]) / weights
            chosen = np.argsort(waiting, axis=1)[:, : self.num_layers]
        coin, number, sign = (layers[:, :, column] for column in (1, 2, 3))
        magnitude = _magnitudes(number, self.magnitude, self.magnitude_std, _checked_most(self))
        # A slot whose coin falls the other way stays empty: timm's `p` is of each step, not of the policy.
        _write(program, _RAND_STEPS, levels, np.where(coin < self.p, chosen, -1), magnitude, sign, image_size, self)
        return program


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

    def _weights(self, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of the mixture, and those of the chains in it."""
        if self.alpha == 1:
            # Exponential numbers divided by their sum are Dirichlet's with alpha 1.
            weights = -np.log1p(-uniform[:, 1 : 1 + self.mixture_width])
            return uniform[:, 0], weights / np.maximum(weights.sum(axis=1, keepdims=True), 2.0**-1000)
        further = uniform[:, self._num_plain :].reshape(len(uniform), 2 + self.mixture_width, NUM_UNIFORM)
        return shares(further[:, :2], self.alpha)[:, 0], shares(further[:, 2:], self.alpha)

    @property
    def changes_colours(self) -> bool:
        """Most of its steps do."""
        return True

    def draw(self, uniform: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return the steps that these numbers ask for; see `Augmentation.draw`."""
        width, depth = self.mixture_width, self._depth
        program = empty_program(len(uniform), self.num_steps)
        share, weights = self._weights(uniform)
        # timm blends in float32: weights are rounded to it here, so that a plan holds what is computed with.
        put(program[:, 0], "AugMix", share.astype(np.float32), width, *weights.astype(np.float32).T)
        depths = choose(uniform[:, 1 + width : 1 + 2 * width], depth) + 1
        numbers = uniform[:, 1 + 2 * width : self._num_plain].reshape(len(uniform), width * depth, 3)
        choice, number, sign = (numbers[:, :, column] for column in range(3))
        chain, position = np.divmod(np.arange(width * depth), depth)
        # Steps beyond a chain's drawn depth are drawn all the same, and left empty: each sample takes as many numbers.
        is_there = (self.chain_depth != -1) | (position < depths[:, chain])
        chosen = np.where(is_there, choose(choice, len(_MIX_STEPS)), -1)
        magnitude = _magnitudes(number, self.severity, self.magnitude_std, _UNIT)
        chains = program[:, 1:]
        _write(chains, _MIX_STEPS, _RISING, chosen, magnitude, sign, image_size, self)
        # From 1 on, because an empty step is all zeros.
        chains["chain"] = np.where(is_there, chain + 1, 0)
        return program


def _check_deviation(owner: TimmRandAugment | AugMix) -> None:
    # inf is a word for a uniform magnitude, see `_magnitudes`.
    if owner.magnitude_std != math.inf:
        checked_number(owner, "magnitude_std", owner.magnitude_std, 0)


def _checked_most(owner: TimmRandAugment) -> float:
    if owner.magnitude_max is None:
        return _UNIT
    return checked_number(owner, "magnitude_max", owner.magnitude_max, 0)
