"""One encoded image through Pillow: open, size check, convert, crop, resize, exactly as Keras' ``load_img``.

To Pillow's image, or to pixels of the target size.
"""

from __future__ import annotations

import ctypes
import io
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gpuseq.base.errors import ImageFileError
from gpuseq.base.forks import InheritedLockError, forks_wait
from gpuseq.base.text import bytes_text
from gpuseq.base.types import Interpolation
from gpuseq.ops.compiled.library import InstructionSet
from gpuseq.ops.compiled.resize import resize_pixels

from .headers import read_header
from .options import DecodeOptions

__all__ = [
    "center_crop_box",
    "check_size",
    "convert",
    "decode_failure",
    "finish",
    "load_converted",
    "load_encoded",
    "load_pixels",
    "open_image",
    "pixel_limit",
    "resized",
    "resized_array",
    "to_array",
    "why_not_an_image",
]

RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# What each colour mode leaves as it is; the first is what everything else is converted to.
_KEPT_MODES = {"rgb": ("RGB",), "rgba": ("RGBA",), "grayscale": ("L", "I;16", "I")}


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


def pixel_limit(options: DecodeOptions) -> int | None:
    """Return the largest number of pixels (rows times columns) that is decoded, None for no limit.

    Parameters
    ----------
    options : DecodeOptions
        Its `max_pixels`, else twice ``PIL.Image.MAX_IMAGE_PIXELS``, where Pillow too starts to refuse.
    """
    # Pillow warns from 89,478,485 pixels on and raises from twice as many; the warning is left out.
    if options.max_pixels is not None:
        return options.max_pixels
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def check_size(width: int, height: int, limit: int | None, name: str) -> None:
    """Refuse an image that is too large to decode.

    Parameters
    ----------
    width, height : int
        Size, pixels.
    limit : int or None
        From `pixel_limit`.
    name : str
        For the message.

    Raises
    ------
    ImageFileError
        If ``width * height`` exceeds `limit`.
    """
    # For every decoder: DALI has no such guard, and took 17 s and 5.4 GB for a PNG of 109 kB and 30,000 x 30,000
    # pixels.
    if limit is not None and width * height > limit:
        raise ImageFileError(
            name,
            f"{width}x{height} is {width * height:,} pixels, more than the limit of {limit:,} "
            "(it could be a decompression bomb; max_pixels raises the limit)",
        )


# Formats of one picture; the others may hold any number of them.
_SINGLE = ("JPEG", "PNG", "BMP", "PPM", "JPEG2000")


def why_not_an_image(prefix: bytes, size: int) -> str | None:
    """Return why a file is not read that is far larger than its picture: a sparse file, a log with a picture's name.

    Parameters
    ----------
    prefix : bytes
        Its first bytes.
    size : int
        All of its bytes.
    """
    header = read_header(prefix)
    if header is None:
        image = _identify(io.BytesIO(prefix), prefix[:16])
        if not isinstance(image, str) or prefix[:4] in (b"II*\0", b"MM\0*"):  # TIFF's directory may stand at the end
            return None
        return f"{image}, and has {bytes_text(size)}"
    # Four channels of 32 bits, and metadata: more than any picture of that size needs.
    if header.format not in _SINGLE or size <= _METADATA + 16 * header.width * header.height:
        return None
    return f"has {bytes_text(size)}, and its header says {header.width}x{header.height} pixels"


_METADATA = 2**26


def open_image(encoded: bytes, limit: int | None, name: str) -> Image.Image:
    """Read the header of an encoded image; the pixels stay encoded until they are asked for.

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    limit : int or None
        Largest number of pixels, from `pixel_limit`.
    name : str
        For messages.

    Raises
    ------
    ImageFileError
        If `encoded` is empty, not an image, or larger than `limit`.
    """
    if not encoded:
        raise ImageFileError(name, "the file is empty")
    stream = io.BytesIO(encoded)
    image = _identify(stream, encoded[:16])
    if isinstance(image, str):
        raise ImageFileError(name, image)
    check_size(*image.size, limit, name)
    return image


_APPLE_DOUBLE = b"\x00\x05\x16\x07"


def _identify(stream: io.BytesIO, prefix: bytes) -> Image.Image | str:
    # Return the opened image, or why there is none.
    # Pillow's registry instead of Image.open: the size limit is ours (max_pixels may lie above or below Pillow's),
    # and Image.open's warning half-way to its limit would be an error under "-W error", or noise from every worker.
    reason = f"not an image that Pillow can read (it starts with {prefix[:8]!r})"
    if prefix.startswith(_APPLE_DOUBLE):
        return "no image, but what macOS notes about the file of that name without ._: find . -name '._*' -delete"
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init):
        _once(load_plugins)
        for format_name in [name for name in Image.ID if name not in tried]:
            tried.add(format_name)
            factory, accept = Image.OPEN[format_name]
            try:
                accepted = not accept or accept(prefix)
                if not accepted or isinstance(accepted, str):
                    continue
                stream.seek(0)
                return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # what Image.open takes for "not this format"
                if accept:
                    reason = f"it begins like {format_name}, but its header cannot be read"
    return reason


# Kept only when it is through: a child that is forked before that has to do it, or is told that it cannot.
@cache
def _once(load_plugins: Callable[[], object]) -> None:
    """Let Pillow import its plugins, which it does on whatever thread that comes up."""
    with forks_wait(f"Pillow's {load_plugins.__name__}()"):
        load_plugins()


def _reserve(image: Image.Image) -> None:
    # Pillow's TIFF plugin repeats its own size check, with its own warning, where it makes room for the pixels; our
    # check has passed, so large ones get their room here.
    size = getattr(image, "_tile_size", None)
    limit = Image.MAX_IMAGE_PIXELS
    if size is not None and limit is not None and size[0] * size[1] > limit:
        image.im = Image.new(image.mode, size).im


def load_encoded(encoded: bytes, options: DecodeOptions, name: str) -> Image.Image:
    """Decode one encoded image as ``keras.utils.load_img`` does.

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    options : DecodeOptions
        Colour mode, size, interpolation and the rest.
    name : str
        For messages.

    Returns
    -------
    PIL.Image.Image
        In mode RGB, RGBA or L; 16- and 32-bit grey keep their mode under ``color_mode="grayscale"``.

    Raises
    ------
    ImageFileError
        If it cannot be decoded; its reason is one clause.

    References
    ----------
    ``keras.utils.load_img`` (Keras 3.15); ``PIL.ImageOps.exif_transpose``.
    """
    image = load_converted(encoded, options, name)
    try:
        return finish(image, options)
    except Exception as error:
        raise ImageFileError(name, decode_failure(error)) from error


def load_converted(encoded: bytes, options: DecodeOptions, name: str) -> Image.Image:
    """Do the part of `load_encoded` before the crop and the resize.

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    options : DecodeOptions
        Colour mode and the rest; its size is not used.
    name : str
        For messages.

    Raises
    ------
    ImageFileError
        If it cannot be decoded; its reason is one clause.
    """
    try:
        image = open_image(encoded, pixel_limit(options), name)
        _reserve(image)
        if options.exif_orientation:
            ImageOps.exif_transpose(image, in_place=True)
        # Keras converts first and resizes then, which rounds otherwise than the other way round.
        image = convert(image, options)
        image.load()
        return image
    except (ImageFileError, InheritedLockError):  # the latter is not the file's fault
        raise
    except Exception as error:  # plugins raise nearly anything on damaged data
        raise ImageFileError(name, decode_failure(error)) from error


def load_pixels(
    encoded: bytes,
    options: DecodeOptions,
    name: str,
    instruction_set: InstructionSet | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decode one encoded image to pixels: `load_converted`, then `resized`.

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    options : DecodeOptions
        Colour mode, size, interpolation and the rest.
    name : str
        For messages.
    instruction_set, out
        As in `resized`.

    Raises
    ------
    ImageFileError
        If it cannot be decoded; its reason is one clause.
    """
    return resized(load_converted(encoded, options, name), options, instruction_set, out)


def convert(image: Image.Image, options: DecodeOptions) -> Image.Image:
    """Convert to the colour mode, as Keras does.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode.
    options : DecodeOptions
        Its `color_mode` and `keep_palette`.
    """
    kept = _KEPT_MODES[options.color_mode]
    if image.mode in kept or (options.keep_palette and image.mode == "P"):
        return image
    if kept[0] != "RGBA" and isinstance(image.info.get("transparency"), bytes):
        # It would not change the pixels, and Pillow would warn once per file.
        del image.info["transparency"]
    return image.convert(kept[0])


def finish(image: Image.Image, options: DecodeOptions) -> Image.Image:
    """Crop to the target's aspect ratio where asked, and resize, as Keras does.

    Parameters
    ----------
    image : PIL.Image.Image
        In its colour mode.
    options : DecodeOptions
        Its `target_size`, `interpolation` and `keep_aspect_ratio`.
    """
    if options.target_size is None:
        return image
    height, width = options.target_size
    # Pillow's resize would copy.
    if image.size == (width, height):
        return image
    box = center_crop_box(image.size, (width, height)) if options.keep_aspect_ratio else None
    return image.resize((width, height), RESAMPLING[options.interpolation], box=box)


def center_crop_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the largest centred box with the target's aspect ratio, in Keras' integer arithmetic.

    Parameters
    ----------
    size, target : (int, int)
        Width and height, pixels.

    Returns
    -------
    (int, int, int, int)
        Left, upper, right, lower.

    References
    ----------
    ``keras.utils.load_img(keep_aspect_ratio=True)`` (Keras 3.15).
    """
    width, height = size
    target_width, target_height = target
    crop_width = min(width, height * target_width // target_height)
    crop_height = min(height, width * target_height // target_width)
    left = (width - crop_width) // 2
    upper = (height - crop_height) // 2
    return left, upper, left + crop_width, upper + crop_height


def to_array(image: Image.Image) -> np.ndarray:
    """Return the pixels as ``(H, W, C)``; uint8, or uint16 and int32 for 16- and 32-bit grey.

    Parameters
    ----------
    image : PIL.Image.Image
        In mode RGB, RGBA, L, I;16 or I.

    Returns
    -------
    numpy.ndarray
        A view of a fresh copy of the pixels, not writable.
    """
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]


def resized(
    image: Image.Image,
    options: DecodeOptions,
    instruction_set: InstructionSet | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Crop to the target's aspect ratio where asked, and resize, as `finish` does, to pixels.

    The compiled engine does it where it is at work: it gives the same bits, and Pillow's resize costs more than its
    decoding. It reads Pillow's own memory where Pillow lends it (through the Arrow interface, from 11.2 on), and its
    copy as an array where not.

    Parameters
    ----------
    image : PIL.Image.Image
        Decoded, in its colour mode.
    options : DecodeOptions
        Its `target_size`, `interpolation` and `keep_aspect_ratio`.
    instruction_set : InstructionSet or None
        Of the compiled engine. None: Pillow resizes.
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
    is_asked = options.target_size is not None and image.size != options.target_size[::-1]
    if instruction_set is None or not is_asked or image.mode not in _BYTES:
        return to_array(finish(image, options))
    image.load()
    channels, pixel_bytes = _BYTES[image.mode]
    lent = _lent_pixels(image, pixel_bytes)
    if lent is None:
        return resized_array(np.ascontiguousarray(to_array(image)), options, instruction_set, out)
    address, capsules = lent
    pixels = (address, image.width * pixel_bytes, image.height, image.width, channels, pixel_bytes)
    out = _resized_from(pixels, options, instruction_set, out)
    del capsules  # the memory was Pillow's for as long as they lived
    return out


def resized_array(
    pixels: np.ndarray,
    options: DecodeOptions,
    instruction_set: InstructionSet | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Do as `resized` does, to pixels that are an array.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape ``(H, W, 1, 3 or 4)``, uint8, C-contiguous.
    options, instruction_set, out
        As in `resized`.

    Returns
    -------
    numpy.ndarray
        As `resized`; `pixels` itself where nothing is to be done.
    """
    height, width, channels = pixels.shape
    if options.target_size in (None, (height, width)):
        return pixels
    if instruction_set is None:
        return to_array(finish(Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels), options))
    lying = (pixels.ctypes.data, pixels.strides[0], height, width, channels, channels)
    return _resized_from(lying, options, instruction_set, out)


def _resized_from(
    pixels: tuple[int, int, int, int, int, int],
    options: DecodeOptions,
    instruction_set: InstructionSet,
    out: np.ndarray | None,
) -> np.ndarray:
    """Resize what lies in memory as `resize_pixels` takes it."""
    _, _, height, width, channels, _ = pixels
    assert options.target_size is not None
    shape = (*options.target_size, channels)
    if out is None or out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        out = np.empty(shape, np.uint8)
    box = None
    if options.keep_aspect_ratio:
        box = tuple(map(float, center_crop_box((width, height), options.target_size[::-1])))
    resize_pixels(instruction_set, pixels, out, options.interpolation, box)
    return out


def _lent_pixels(image: Image.Image, pixel_bytes: int) -> tuple[int, object] | None:
    """Return the address of an image's pixels in Pillow's memory and what keeps it; None where it is not lent."""
    lend = getattr(image, "__arrow_c_array__", None)
    if lend is None:
        return None
    try:
        capsules = lend()
    except (ValueError, MemoryError):  # a large image lies in several blocks
        return None
    # Read in place and checked field by field: should Pillow lay its images out otherwise, the copy below is taken.
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


def decode_failure(error: BaseException) -> str:
    """Turn what Pillow raised into one clause without the path.

    Parameters
    ----------
    error : BaseException
        The exception.
    """
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow can read"
    # One line: messages of some plugins span several.
    text = " ".join(str(error).split())
    if text == "Truncated File Read":
        return "the file ends within its header"
    if isinstance(error, (OSError, SyntaxError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
