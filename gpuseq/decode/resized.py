"""A decoded image to pixels of the target size: by the compiled engine where it is at work, else by Pillow.

Both give the same bits. Pillow's resize costs more than its decoding; the compiled one reads Pillow's own memory where
Pillow lends it (through the Arrow interface, from 11.2 on), and its copy as an array where not.
"""

from __future__ import annotations

import ctypes

import numpy as np
from PIL import Image

from gpuseq.ops.compiled.library import InstructionSet, chosen
from gpuseq.ops.compiled.resize import resize_pixels

from .options import DecodeOptions
from .pillow import center_crop_box, finish, to_array

__all__ = ["resized"]

_BYTES = {"L": (1, 1), "RGB": (3, 4), "RGBA": (4, 4)}
"""Mode -> channels, and bytes from one pixel to the next in Pillow's memory."""


class _ArrowArray(ctypes.Structure):
    """``ArrowArray`` of the Arrow C data interface; what stands after these fields is not read."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


def resized(image: Image.Image, options: DecodeOptions, out: np.ndarray | None = None) -> np.ndarray:
    """Crop to the target's aspect ratio where asked, and resize, as Keras does.

    Parameters
    ----------
    image : PIL.Image.Image
        Decoded, in its colour mode.
    options : DecodeOptions
        Its `target_size`, `interpolation` and `keep_aspect_ratio`.
    out : numpy.ndarray or None
        Written to and returned where the compiled engine can: shape of the result, uint8, C-contiguous.

    Returns
    -------
    numpy.ndarray
        Shape ``(H, W, C)``; uint8, or uint16 and int32 for 16- and 32-bit grey.

    References
    ----------
    ``keras.utils.load_img`` (Keras 3.15); ``PIL.Image.Image.resize``.
    """
    instruction_set = chosen()
    target_size = options.target_size
    is_asked = target_size is not None and image.size != target_size[::-1]
    if instruction_set is None or not is_asked or image.mode not in _BYTES:
        return to_array(finish(image, options))
    assert target_size is not None
    shape = (*target_size, _BYTES[image.mode][0])
    if out is None or out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        out = np.empty(shape, np.uint8)
    box = None
    if options.keep_aspect_ratio:
        box = tuple(map(float, center_crop_box(image.size, target_size[::-1])))
    _resize_into(instruction_set, image, out, options.interpolation, box)
    return out


def _resize_into(
    instruction_set: InstructionSet,
    image: Image.Image,
    out: np.ndarray,
    interpolation: str,
    box: tuple[float, ...] | None,
) -> None:
    image.load()
    channels, pixel_bytes = _BYTES[image.mode]
    lent = _lent_pixels(image, pixel_bytes)
    if lent is not None:
        address, capsules = lent
        pixels = (address, image.width * pixel_bytes, image.height, image.width, channels, pixel_bytes)
        resize_pixels(instruction_set, pixels, out, interpolation, box)
        del capsules  # the memory was Pillow's for as long as they lived
        return
    array = np.ascontiguousarray(to_array(image))
    pixels = (array.ctypes.data, array.strides[0], image.height, image.width, channels, channels)
    resize_pixels(instruction_set, pixels, out, interpolation, box)


def _lent_pixels(image: Image.Image, pixel_bytes: int) -> tuple[int, object] | None:
    """Return the address of an image's pixels in Pillow's memory and what keeps it; None where it is not lent."""
    lend = getattr(image, "__arrow_c_array__", None)
    if lend is None:
        return None
    try:
        capsules = lend()
    except (ValueError, MemoryError):  # a large image lies in several blocks
        return None
    array = _ArrowArray.from_address(_pointer_of(capsules[1], b"arrow_array"))
    num_bytes = array.length
    if pixel_bytes > 1:  # a list of pixels, whose child holds their bytes
        if array.n_children != 1:
            return None
        array = array.children[0].contents
        num_bytes = array.length
    if array.n_buffers != 2 or array.offset or num_bytes != image.width * image.height * pixel_bytes:
        return None
    address = array.buffers[1]
    return None if not address else (address, capsules)
