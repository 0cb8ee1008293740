"""Keras' image generators with the work on the GPU: same arguments, same seed, same batch."""

from gpuseq import image as image
from gpuseq.base.errors import DeviceError, GpuseqError, ImageFileError, MissingDependencyError, StorageError
from gpuseq.base.version import __version__  # noqa: F401
from gpuseq.compose import Compose
from gpuseq.decode.images import array_to_img, img_to_array, list_pictures, load_img, save_img
from gpuseq.feed.lookahead import to_device
from gpuseq.files.folders import validate_filename
from gpuseq.generator import ImageDataGenerator
from gpuseq.iterators.arrays import NumpyArrayIterator
from gpuseq.iterators.files import BatchFromFilesMixin, DataFrameIterator, DirectoryIterator
from gpuseq.iterators.iterator import Iterator, Sequence
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.policies.colour import (
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
from gpuseq.plan.policies.combine import RandomApply, RandomChoice, RandomOrder
from gpuseq.plan.policies.erasing import RandomErasing
from gpuseq.plan.policies.geometry import (
    RandomAffine,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
)
from gpuseq.plan.policies.sharpness import GaussianBlur, RandomAdjustSharpness
from gpuseq.plan.policies.spaces import AutoAugment, RandAugment, TrivialAugmentWide
from gpuseq.plan.policies.timm import AugMix, TimmRandAugment
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

# Each public name says that it lives here, whichever room it is written in: messages and reprs print what users import,
# and what is pickled by its name, such as a generator, outlives the next move.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
