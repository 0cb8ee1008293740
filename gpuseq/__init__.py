"""Keras' image generators with the work on the GPU: same arguments, same seed, same batch.

`import gpuseq` loads what Keras' classes need. The modern augmentations, `Compose` and `image` come with their first
use (PEP 562): as a star import, an attribute, or `from gpuseq import RandAugment`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpuseq.base.errors import DeviceError, GpuseqError, ImageFileError, MissingDependencyError, StorageError
from gpuseq.base.version import __version__  # noqa: F401
from gpuseq.decode.images import array_to_img, img_to_array, list_pictures, load_img, save_img
from gpuseq.feed.lookahead import to_device
from gpuseq.files.folders import validate_filename
from gpuseq.generator import ImageDataGenerator
from gpuseq.iterators.arrays import NumpyArrayIterator
from gpuseq.iterators.files import BatchFromFilesMixin
from gpuseq.iterators.folders import DirectoryIterator
from gpuseq.iterators.frames import DataFrameIterator
from gpuseq.iterators.iterator import Iterator
from gpuseq.iterators.sequence import Sequence
from gpuseq.plan.plan import BatchPlan
from gpuseq.transforms.functions import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    flip_axis,
    random_brightness,
    random_channel_shift,
    random_rotation,
    random_shear,
    random_shift,
    random_zoom,
    transform_matrix_offset_center,
)

if TYPE_CHECKING:
    from gpuseq import image as image
    from gpuseq.compose import Compose
    from gpuseq.plan.policies import (
        AugMix,
        AutoAugment,
        ColorJitter,
        GaussianBlur,
        RandAugment,
        RandomAdjustSharpness,
        RandomAffine,
        RandomApply,
        RandomAutocontrast,
        RandomChoice,
        RandomEqualize,
        RandomErasing,
        RandomGamma,
        RandomGrayscale,
        RandomHorizontalFlip,
        RandomInvert,
        RandomOrder,
        RandomPerspective,
        RandomPhotometricDistort,
        RandomPosterize,
        RandomResizedCrop,
        RandomRotation,
        RandomSolarize,
        RandomVerticalFlip,
        TimmRandAugment,
        TrivialAugmentWide,
    )

__all__ = [
    "AugMix",
    "AutoAugment",
    "BatchFromFilesMixin",
    "BatchPlan",
    "ColorJitter",
    "Compose",
    "DataFrameIterator",
    "DeviceError",
    "DirectoryIterator",
    "GaussianBlur",
    "GpuseqError",
    "ImageDataGenerator",
    "ImageFileError",
    "Iterator",
    "MissingDependencyError",
    "NumpyArrayIterator",
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
    "Sequence",
    "StorageError",
    "TimmRandAugment",
    "TrivialAugmentWide",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "array_to_img",
    "flip_axis",
    "img_to_array",
    "list_pictures",
    "load_img",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "save_img",
    "to_device",
    "transform_matrix_offset_center",
    "validate_filename",
]

_LATER = {name: "gpuseq.plan.policies" for name in __all__ if name not in globals()}
_LATER |= {"Compose": "gpuseq.compose", "image": "gpuseq.image"}
"""Where the names are that come with their first use."""

_ELSEWHERE = {
    "Normalize": "rescale=, featurewise_center= and featurewise_std_normalization= of ImageDataGenerator do it, "
    "with its attributes mean and std",
    "ToTensor": "gpuseq.torch.loader hands out tensors",
    "Resize": "flow_from_directory and flow_from_dataframe resize to target_size=",
    "CenterCrop": "flow_from_directory(keep_aspect_ratio=True) takes the middle of each file",
    "RandomCrop": "RandomResizedCrop takes a part of each image",
}
"""What users of torchvision look for, and where that is here."""

if not TYPE_CHECKING:  # to a type checker a module with a `__getattr__` has every name

    def __getattr__(name: str) -> Any:
        if name in ("MixUp", "CutMix"):
            raise AttributeError(
                f"gpuseq has no {name} yet: apply keras.layers.{name} or torchvision's v2.{name} to its batches"
            )
        if name in _ELSEWHERE:
            raise AttributeError(f"gpuseq has no {name}: {_ELSEWHERE[name]}")
        if name not in _LATER:
            from gpuseq.base.arguments import did_you_mean  # for mistakes alone

            near = "" if name.startswith("_") else did_you_mean(name, __all__)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{near}")
        module = import_module(_LATER[name])
        found = globals()[name] = module if name == "image" else getattr(module, name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


# Each public name says that it lives here, whichever room it is written in: messages and reprs print what users import,
# and what is pickled by its name, such as a generator, outlives the next move.
for _name in __all__:
    if _name not in _LATER:
        globals()[_name].__module__ = __name__
del _name
