"""Encoded files to images: one result per file, an array or the reason it failed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .arrays import COLOR_CHANNELS
from .compat import cpu_count
from .decode_pillow import load_image, to_array
from .errors import ImageFileError
from .options import DecodeOptions
from .readers import read_bytes
from .workers import for_each

__all__ = ["decode_files", "decode_into", "load_image"]


def decode_files(paths: Sequence[str], options: DecodeOptions) -> list[np.ndarray | ImageFileError]:
    """Read, decode and resize files on host threads.

    Parameters
    ----------
    paths : sequence of str
        Local paths or fsspec URLs.
    options : DecodeOptions
        How.

    Returns
    -------
    list
        Item i belongs to ``paths[i]``: a host array ``(H, W, C)``, or the error that names the file and the reason.
        uint8; under ``color_mode="grayscale"`` 16- and 32-bit grey files keep their values as uint16 and int32.
        The arrays are not writable.
    """
    results: list[np.ndarray | ImageFileError] = [ImageFileError(path, "not decoded") for path in paths]

    def work(index: int) -> None:
        try:
            results[index] = to_array(load_image(read_bytes(paths[index]), options, paths[index]))
        except ImageFileError as error:
            results[index] = error.with_traceback(None)

    for_each(work, len(paths), options.num_threads or cpu_count())
    return results


def decode_into(paths: Sequence[str], options: DecodeOptions, out: np.ndarray) -> list[ImageFileError | None]:
    """Read, decode and resize files into the rows of a block, without a copy per batch.

    Parameters
    ----------
    paths : sequence of str
        Local paths or fsspec URLs; N of them.
    options : DecodeOptions
        How; needs a `target_size`.
    out : numpy.ndarray
        Host array ``(N, H, W, C)``; uint8, or any dtype that holds the files' values. A row whose file failed is
        left as it was.

    Returns
    -------
    list
        Item i is None where row i holds the image, else the error that names the file and the reason. A 16- or
        32-bit grey file does not fit a uint8 block and is such an error: use a float32 block, or `decode_files`.

    Raises
    ------
    ValueError
        If `out` has the wrong shape.
    """
    channels = COLOR_CHANNELS[options.color_mode]
    if options.target_size is None:
        raise ValueError("decode_into needs options.target_size: rows of one block have one size")
    expected = (len(paths), *options.target_size, channels)
    if out.shape != expected:
        raise ValueError(f"out must have shape {expected}; got {out.shape}")
    results: list[ImageFileError | None] = [None] * len(paths)

    def work(index: int) -> None:
        path = paths[index]
        try:
            image = to_array(load_image(read_bytes(path), options, path))
            if not np.can_cast(image.dtype, out.dtype, "same_kind" if out.dtype.kind == "f" else "safe"):
                raise ImageFileError(path, f"its {image.dtype} pixels do not fit a {out.dtype} block")
            out[index] = image
        except ImageFileError as error:
            results[index] = error.with_traceback(None)

    for_each(work, len(paths), options.num_threads or cpu_count())
    return results
