"""Policies as strings, as timm spells them."""

from __future__ import annotations

import math
import re
from typing import Any

from gpuseq.base.arguments import did_you_mean

from .augmentation import Augmentation
from .spaces import AutoAugment, TrivialAugmentWide
from .timm import AugMix, TimmRandAugment

__all__ = ["parse_policy"]

_KEYS = {"m": "magnitude", "n": "num_layers", "p": "p", "mstd": "magnitude_std", "mmax": "magnitude_max"}
_MIX_KEYS = {"m": "severity", "w": "mixture_width", "d": "chain_depth", "a": "alpha", "mstd": "magnitude_std"}
_CLASSES = {
    "randaugment": "rand-m9-mstd0.5-inc1",
    "trivialaugment": "trivial",
    "trivialaugmentwide": "trivial",
    "autoaugment": "imagenet",
}
"""What classes are called, as a word -> the string that is nearest to it."""
_TIMM_POLICIES = ("original", "originalr", "v0", "v0r", "3a")


def parse_policy(text: str) -> Augmentation:
    """Return what a string spells: timm's ``rand-...`` and ``augmix-...``, ``trivial``, or a learned policy's name.

    Parameters
    ----------
    text : str
        ``"rand-m9-mstd0.5-inc1"`` (keys m, n, p, mstd, mmax, inc, and tweights), ``"augmix-m3-w3"`` (keys m, w, d, a,
        mstd), ``"trivial"``, ``"imagenet"``, ``"cifar10"`` or ``"svhn"``.

    Returns
    -------
    Augmentation
        Its ``repr`` is the call that makes it.

    Raises
    ------
    ValueError
        If a word or a key is unknown, or its value lies outside its limits.

    References
    ----------
    ``timm.data.auto_augment.rand_augment_transform`` and ``augment_and_mix_transform``.
    """
    word, *sections = text.strip().split("-")
    if word == "trivial" and not sections:
        return TrivialAugmentWide()
    if word in ("imagenet", "cifar10", "svhn") and not sections:
        return AutoAugment(word)
    # Known and not here: taken for a typing error, the message would offer another policy without a word on what
    # differs.
    if word in _TIMM_POLICIES:
        raise ValueError(
            f"augmentations={text!r}: timm's AutoAugment policies {', '.join(_TIMM_POLICIES)} are not here; 'imagenet' "
            "holds the same pairs of steps as 'original', with torchvision's magnitudes, which go both ways"
        )
    if word.lower() in ("mixup", "cutmix"):
        raise ValueError(
            f"augmentations={text!r}: images are not mixed yet: apply MixUp and CutMix, of keras.layers or of "
            "torchvision's v2, to the batches"
        )
    if word not in ("rand", "augmix"):
        known = ("rand-m9-mstd0.5-inc1", "augmix-m3-w3", "trivial", "imagenet", "cifar10", "svhn")
        asked = _CLASSES.get(word.lower())
        near = f"; did you mean {asked!r}?" if asked else did_you_mean(word, ("rand", "augmix", *known[2:]))
        raise ValueError(f"augmentations={text!r} is no policy; known are {', '.join(map(repr, known))}{near}")
    is_rand = word == "rand"
    keys = _KEYS if is_rand else _MIX_KEYS
    values: dict[str, Any] = {}
    for section in sections:
        if is_rand and section == "tweights":
            values["weighted"] = True
            continue
        # timm splits a section where its digits begin.
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?|inf)", section)
        key, number = match.groups() if match else (section, "")
        # A flag and no number: with other digits it is refused below.
        if is_rand and key == "inc" and number in ("0", "1"):
            values["increasing"] = number == "1"
            continue
        if key not in keys or not number:
            listed = (*keys, *(("inc", "tweights") if is_rand else ()))
            raise ValueError(
                f"augmentations={text!r}: {section!r} is no section that can be taken; known keys are "
                f"{', '.join(listed)}{did_you_mean(key, listed)}"
            )
        name = keys[key]
        value = float(number)
        # timm takes any deviation above 100 for a uniform magnitude.
        if name == "magnitude_std" and value > 100:
            value = math.inf
        # Whole numbers as such, so that a policy prints as it was written.
        values[name] = int(value) if value.is_integer() else value
    return TimmRandAugment(**values) if is_rand else AugMix(**values)
