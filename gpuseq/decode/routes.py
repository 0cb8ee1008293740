"""Which decoder gets which file: DALI or nvImageCodec only where their pixels are Pillow's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from .headers import Header
from .options import DecodeOptions

__all__ = ["Decoder", "Encoded", "Layout", "route"]

Decoder: TypeAlias = Literal["pillow", "simplejpeg", "dali", "nvimgcodec"]
Layout: TypeAlias = Literal["RGB", "RGBA"]

Encoded: TypeAlias = bytes | np.ndarray
"""A whole image file: bytes, or ``(num_bytes,)`` uint8 in a buffer of many files."""

# Not JPEG 2000, though the pixels agree: a damaged file has been seen to end the process in DALI 2.4's CPU decoder.
_FORMATS = frozenset({"JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP"})


def route(header: Header | None, options: DecodeOptions, decoder: Decoder) -> Layout | None:
    """Return what to ask of `decoder` for a file, or None where the file goes to Pillow.

    Parameters
    ----------
    header : Header or None
        From `gpuseq.decode.headers.read_header`.
    options : DecodeOptions
        Its `color_mode`.
    decoder : {"pillow", "dali", "nvimgcodec"}
        The decoder that was asked for.

    Notes
    -----
    Everything deeper than 8 bits goes to Pillow: the others rescale where Pillow clips, and Keras' grayscale mode keeps
    the raw values. Grey is computed from RGB, in Pillow's integers, because the decoders' own grey is not Pillow's.
    """
    # What is not plain: palettes in TIFF are off by one, its grey with alpha is wrong, animations and float are other
    # pixels.
    if decoder == "pillow" or header is None or not header.plain or header.bits > 8:
        return None
    if header.format not in _FORMATS:
        return None
    if options.color_mode != "rgba":
        return "RGB"
    if header.transparency:
        return None
    if header.mode not in ("LA", "RGBA"):
        return "RGB"
    # Only nvImageCodec hands out an alpha channel as it is in the file.
    return "RGBA" if decoder == "nvimgcodec" and header.mode == "RGBA" and header.format in ("PNG", "WEBP") else None
