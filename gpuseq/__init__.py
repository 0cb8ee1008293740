"""Keras' image generators with the work on the GPU: same arguments, same seed, same batch."""

from .array_iterator import NumpyArrayIterator
from .directory_iterator import DirectoryIterator
from .errors import DeviceError, GpuseqError, ImageFileError, MissingDependencyError
from .feeding import to_device
from .file_iterators import BatchFromFilesMixin
from .frame_iterator import DataFrameIterator
from .functions import (
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
from .image import ImageDataGenerator
from .iterators import Iterator
from .pictures import array_to_img, img_to_array, list_pictures, load_img, save_img
from .plan import BatchPlan
from .scan import validate_filename
from .sequence import Sequence

__version__ = "0.1.0"

__all__ = [
    "BatchFromFilesMixin",
    "BatchPlan",
    "DataFrameIterator",
    "DeviceError",
    "DirectoryIterator",
    "GpuseqError",
    "ImageDataGenerator",
    "ImageFileError",
    "Iterator",
    "MissingDependencyError",
    "NumpyArrayIterator",
    "Sequence",
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
