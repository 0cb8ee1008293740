"""Image files, Pillow images and arrays: Keras' functions that turn one into another."""

from __future__ import annotations

import io
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from gpuseq.base.arguments import check_choice, checked_arguments, checked_data_format, warn
from gpuseq.base.devices import is_cupy
from gpuseq.base.types import ColorMode, Interpolation, literals
from gpuseq.files.folders import list_images

from . import host as decode
from .options import DecodeOptions

__all__ = [
    "array_to_img",
    "checked_size",
    "img_to_array",
    "list_pictures",
    "load_img",
    "save_img",
]


def checked_size(target_size: Any) -> tuple[int, int]:
    """Return `target_size` as two integers.

    Raises
    ------
    ValueError
        If it is not two positive integers.
    """
    # A pair of anything: lists, arrays and NumPy's integers are common.
    sides = target_size if np.ndim(target_size) == 1 else ()
    whole = [isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side > 0 for side in sides]
    if len(whole) != 2 or not all(whole):
        remedy = ""
        if np.ndim(target_size) == 0 and isinstance(target_size, (int, np.integer)):
            remedy = f": for squares write target_size=({target_size}, {target_size})"
        elif len(whole) == 3 and all(whole):
            remedy = ": the channels follow from color_mode"
        raise ValueError(f"target_size must be two positive integers (rows, columns); got {target_size!r}{remedy}")
    return int(target_size[0]), int(target_size[1])


@checked_arguments()
def load_img(
    path: str | os.PathLike[str] | io.BytesIO,
    color_mode: ColorMode = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: Interpolation = "nearest",
    keep_aspect_ratio: bool = False,
) -> Image.Image:
    """Load an image file as a Pillow image.

    Parameters
    ----------
    path : str, os.PathLike or io.BytesIO
        The file; URLs go through fsspec.
    color_mode : {"rgb", "rgba", "grayscale"}
        What to convert to. "grayscale" keeps 16- and 32-bit grey.
    target_size : (int, int) or None
        Rows and columns to resize to; None keeps the size.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}
        Pillow's filter.
    keep_aspect_ratio : bool
        Crop the centre to the target's aspect ratio first.

    Returns
    -------
    PIL.Image.Image
        EXIF orientation is not applied, as in Keras.

    Raises
    ------
    ImageFileError
        If the file cannot be read or decoded; an OSError too.
    ValueError
        If an argument is not one of the accepted values.
    TypeError
        If `path` is not a path.

    References
    ----------
    ``keras.utils.load_img``.
    """
    check_choice("color_mode", color_mode, literals(ColorMode))
    check_choice("interpolation", interpolation, literals(Interpolation))
    if not isinstance(path, (str, bytes, os.PathLike, io.BytesIO)):
        raise TypeError(f"path should be path-like or io.BytesIO, not {type(path)}")
    options = DecodeOptions(
        color_mode=color_mode,
        target_size=None if target_size is None else checked_size(target_size),
        interpolation=interpolation,
        keep_aspect_ratio=keep_aspect_ratio,
    )
    # Pillow decodes, whatever decoder batches use: the result is an image of Pillow's.
    return decode.load_image(os.fsdecode(path) if isinstance(path, bytes) else path, options)


@checked_arguments()
def img_to_array(img: Any, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """Turn a Pillow image into an array.

    Parameters
    ----------
    img : PIL.Image.Image or array
        The image.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of the result. None: "channels_last".
    dtype : dtype or None
        Of the result. None: float32.

    Returns
    -------
    numpy.ndarray
        Shape ``(H, W, C)`` or ``(C, H, W)``, on the host.

    Raises
    ------
    ValueError
        If the image has neither 2 nor 3 axes.

    References
    ----------
    ``keras.utils.img_to_array``.
    """
    first = checked_data_format(data_format) == "channels_first"
    array = np.asarray(img, dtype=np.float32 if dtype is None else dtype)
    if array.ndim == 2:
        return array[None] if first else array[..., None]
    if array.ndim != 3:
        raise ValueError(f"Unsupported image shape: {array.shape}")
    return array.transpose(2, 0, 1) if first else array


@checked_arguments()
def array_to_img(x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None) -> Image.Image:
    """Turn an array into a Pillow image.

    Parameters
    ----------
    x : array
        Shape ``(H, W, C)`` or ``(C, H, W)`` with C of 1, 3 or 4; on the host or a device.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of `x`. None: "channels_last".
    scale : bool
        Stretch the values to 0..255.
    dtype : dtype or None
        To compute in. None: float32.

    Returns
    -------
    PIL.Image.Image
        In mode L, RGB or RGBA; mode I for one channel with values above 255.

    Raises
    ------
    ValueError
        If the shape is not that of an image.

    References
    ----------
    ``keras.utils.array_to_img``.
    """
    first = checked_data_format(data_format) == "channels_first"
    x = np.asarray(x.get() if is_cupy(x) else x, dtype=np.float32 if dtype is None else dtype)
    if x.ndim != 3:
        raise ValueError(f"Expected image array to have rank 3 (single image). Got array with shape: {x.shape}")
    if first:
        x = x.transpose(1, 2, 0)
    # Stretched in any case, as in Keras: an image of 50 to 200 does not keep its levels unless scale=False.
    if scale:
        x = x - np.min(x)
        top = np.max(x)
        if top != 0:
            x /= top
        x *= 255
    if x.shape[2] in (3, 4):
        return Image.fromarray(np.ascontiguousarray(x.astype("uint8")))
    if x.shape[2] != 1:
        raise ValueError(f"Unsupported channel number: {x.shape[2]}; an image file holds 1, 3 or 4 channels")
    # One channel of more than 8 bits becomes mode I, as in Keras; three of them have no mode.
    return Image.fromarray(x[:, :, 0].astype("int32" if np.max(x) > 255 else "uint8"))


def save_img(
    path: Any, x: Any, data_format: str | None = None, file_format: str | None = None, scale: bool = True, **kwargs: Any
) -> None:
    """Save an array as an image file.

    Parameters
    ----------
    path : str, pathlib.Path or file object
        Where to.
    x : array
        Shape ``(H, W, C)`` or ``(C, H, W)``.
    data_format : {"channels_last", "channels_first"} or None
        Axis order of `x`. None: "channels_last".
    file_format : str or None
        Pillow's name of the format. None: from the extension.
    scale : bool
        Stretch the values to 0..255.
    **kwargs
        For ``PIL.Image.Image.save``.

    Raises
    ------
    ValueError
        If the shape is not that of an image.
    KeyError
        If Pillow writes no such format.
    OSError
        If the file cannot be written.

    References
    ----------
    ``keras.utils.save_img``.
    """
    if file_format is None and isinstance(path, (str, pathlib.Path)):
        file_format = pathlib.Path(path).suffix[1:].lower()
    # Pillow knows the format as JPEG only.
    if file_format and file_format.lower() == "jpg":
        file_format = "jpeg"
    img = array_to_img(x, data_format=data_format, scale=scale)
    # With Keras' own words; Pillow would refuse to write the file.
    if img.mode == "RGBA" and file_format == "jpeg":
        warn("The JPEG format does not support RGBA images, converting to RGB.")
        img = img.convert("RGB")
    img.save(path, format=file_format or None, **kwargs)


@checked_arguments()
def list_pictures(directory: str, ext: Any = ("jpg", "jpeg", "bmp", "png", "ppm", "tif", "tiff")) -> list[str]:
    """List the image files below a directory.

    Parameters
    ----------
    directory : str
        Where to look, subfolders included.
    ext : str or tuple of str
        Accepted extensions, without the dot.

    Returns
    -------
    list of str
        Paths that start with `directory`, by folder and then by name.

    Raises
    ------
    OSError
        If the directory cannot be read.

    References
    ----------
    ``keras_preprocessing.image.list_pictures`` (1.1.2).
    """
    endings = tuple(f".{item}" for item in ((ext,) if isinstance(ext, str) else ext))
    return [os.path.join(directory, name) for name in list_images(os.fspath(directory), endings, follow_links=False)]
