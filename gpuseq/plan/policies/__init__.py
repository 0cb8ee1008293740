"""The modern augmentations as values: what may be drawn, and how drawn numbers become steps of a program.

Nothing here holds a generator or sees an image. Imported when the first augmentation is asked for: `import gpuseq` and
generators without any do without.
"""

from .colour import (
    ColorJitter,
    RandomAutocontrast,
    RandomEqualize,
    RandomGamma,
    RandomGrayscale,
    RandomInvert,
    RandomPhotometricDistort,
    RandomPosterize,
    RandomSolarize,
)
from .combine import RandomApply, RandomChoice, RandomOrder
from .erasing import RandomErasing
from .geometry import (
    RandomAffine,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
)
from .sharpness import GaussianBlur, RandomAdjustSharpness
from .spaces import AutoAugment, RandAugment, TrivialAugmentWide
from .timm import AugMix, TimmRandAugment

__all__ = [
    "AugMix",
    "AutoAugment",
    "ColorJitter",
    "GaussianBlur",
    "RandAugment",
    "RandomAdjustSharpness",
    "RandomAffine",
    "RandomApply",
    "RandomAutocontrast",
    "RandomChoice",
    "RandomEqualize",
    "RandomErasing",
    "RandomGamma",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomInvert",
    "RandomOrder",
    "RandomPerspective",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomSolarize",
    "RandomVerticalFlip",
    "TimmRandAugment",
    "TrivialAugmentWide",
]

# As in `gpuseq`, where users find them: messages and pickles name them there, whichever module has imported them first.
for _name in __all__:
    globals()[_name].__module__ = "gpuseq"
del _name
