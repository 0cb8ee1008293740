"""Files whose levels do not fit into the 8 bits that ``color_mode="rgb"`` makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from gpuseq.base.errors import ImageFileError
from gpuseq.decode.host import decode_files
from gpuseq.decode.options import DecodeOptions

__all__ = ["saturating"]

_WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""Pillow's modes of more than 8 bits, all of them grey: it reads colours of 16 bits by their upper 8."""


def saturating(paths: Sequence[str], *, progress: bool = False) -> dict[str, str]:
    """Return the files whose levels Keras' conversion to RGB cuts at 255, and what there is to do about it.

    Parameters
    ----------
    paths : sequence of str
        Local files that can be decoded.
    progress : bool
        Show a progress bar on stderr.
    """
    found = {}
    options = DecodeOptions(color_mode="grayscale")
    for path in tqdm(paths, unit="file", disable=not progress):
        try:
            with open(path, "rb") as file:  # Pillow reads the header alone
                if _identify_mode(file) not in _WIDE:
                    continue
            pixels = decode_files([path], options)[0]
        except OSError:  # gone since it was decoded
            continue
        high = 0 if isinstance(pixels, ImageFileError) else int(np.max(pixels, initial=0))
        if high > 255:
            found[path] = (
                f'levels up to {high}, which color_mode="rgb" cuts at 255, as Keras does; "grayscale" keeps them'
            )
    return found


def _identify_mode(file: BinaryIO) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many pixels, which were decoded a moment ago
        try:
            with Image.open(file) as image:
                return image.mode
        except Image.DecompressionBombError:
            return ""
