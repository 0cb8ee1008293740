"""The names of ``keras.preprocessing.image`` in one place, for code that says ``image.load_img``.

``from gpuseq import image`` stands for ``from keras.preprocessing import image`` of Keras 2, which is Keras 3's legacy
module, but for ``smart_resize``: ``load_img(target_size=, keep_aspect_ratio=True)`` crops as it does.
"""

from __future__ import annotations

from gpuseq.decode.images import array_to_img, img_to_array, list_pictures, load_img, save_img
from gpuseq.files.folders import validate_filename
from gpuseq.generator import ImageDataGenerator
from gpuseq.iterators.arrays import NumpyArrayIterator
from gpuseq.iterators.files import BatchFromFilesMixin
from gpuseq.iterators.folders import DirectoryIterator
from gpuseq.iterators.frames import DataFrameIterator
from gpuseq.iterators.iterator import Iterator
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
    "BatchFromFilesMixin",
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "NumpyArrayIterator",
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
    "transform_matrix_offset_center",
    "validate_filename",
]
