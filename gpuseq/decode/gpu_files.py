"""Encoded files of a batch, and which of them a GPU is to decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpuseq.base.errors import ImageFileError
from gpuseq.base.threads import cpu_count

from . import host as decode
from .headers import is_complete, read_header
from .options import DecodeOptions
from .pillow import pixel_limit
from .reading import FileReader, header_of
from .routes import Encoded, route

__all__ = ["EncodedFiles", "chosen_of", "given", "read_files"]


class EncodedFiles(NamedTuple):
    """Encoded images of one call.

    Attributes
    ----------
    data : list
        Item i is image i, None where it could not be had.
    names : sequence of str
        What to call them in errors.
    sizes : numpy.ndarray
        Shape ``(N,)``, int64: bytes of a decoded image, 0 for one that is not for the GPU.
    orientations : list of int
        Item i is image i's EXIF orientation, 0 where Pillow is to be asked.
    errors : list
        Why image i could not be had, else None.
    """

    data: list[Encoded | None]
    names: Sequence[str]
    sizes: np.ndarray
    orientations: list[int]
    errors: list[ImageFileError | None]


def read_files(reader: FileReader, paths: Sequence[str], options: DecodeOptions) -> EncodedFiles:
    """Read files before anything is decoded: the decoder takes the batch in one call.

    Parameters
    ----------
    reader : FileReader
        Reads what is ordinary; the rest is read one by one.
    paths : sequence of str
        Local paths or fsspec URLs.
    options : DecodeOptions
        How they will be decoded.

    Raises
    ------
    StorageError, MissingDependencyError
        As `~gpuseq.files.reading.read_bytes`.
    """
    found = reader.read(paths)
    data: list[Encoded | None] = [*found.data]
    sizes = _sizes_of(found.records, options)
    errors: list[ImageFileError | None] = [None] * len(paths)
    left = [index for index, content in enumerate(data) if content is None]

    def read(number: int) -> None:
        index = left[number]
        data[index] = encoded = decode.read_image(paths[index])
        sizes[index] = _size_of(encoded, options)

    failures = decode.guarded_each(read, len(left), options.num_threads or cpu_count())
    for index, error in zip(left, failures, strict=True):
        errors[index] = error
    return EncodedFiles(data, paths, sizes, found.records["orientation"].tolist(), errors)


def given(encoded: Sequence[bytes | None], names: Sequence[str], options: DecodeOptions) -> EncodedFiles:
    """Return images that are in memory already.

    Parameters
    ----------
    encoded : sequence of bytes or None
        Whole image files; None for one that could not be had.
    names : sequence of str
        What to call them in errors.
    options : DecodeOptions
        How they will be decoded.
    """
    sizes = np.array([0 if data is None else _size_of(data, options) for data in encoded], np.int64)
    return EncodedFiles([*encoded], names, sizes, [0] * len(encoded), [None] * len(encoded))


def chosen_of(sizes: np.ndarray, most: int) -> list[int]:
    """Return which images the GPU gets, the largest first: so each of its buffers keeps to about one size.

    Parameters
    ----------
    sizes : numpy.ndarray
        Of `EncodedFiles`.
    most : int
        Bytes of all that it gets.
    """
    order: list[int] = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist()
    if sizes.sum() <= most:
        return order
    chosen, total = [], 0
    for index in order:
        # What does not fit is no error: the host decodes it.
        if total + sizes[index] <= most:
            chosen.append(index)
            total += sizes[index]
    return chosen


def _size_of(encoded: bytes, options: DecodeOptions) -> int:
    """Return the bytes of a decoded image, 0 for one that is not for the GPU."""
    header = read_header(encoded)
    # The GPU decodes JPEG; other formats it would hand to its CPU decoder and copy. DALI decodes by nvImageCodec: what
    # is said of one holds for both.
    if header is None or header.format != "JPEG" or not route(header, options, "nvimgcodec"):
        return 0
    if header.is_stored_as_rgb:
        return 0  # nvJPEG takes any three components for luma and chroma
    pixels, limit = header.width * header.height, pixel_limit(options)
    if limit is not None and pixels > limit:
        return 0  # the host path refuses it, and says why
    # Decoded to RGB, whatever the colour mode.
    return 3 * pixels if is_complete(encoded, header) else 0


def _sizes_of(records: np.ndarray, options: DecodeOptions) -> np.ndarray:
    """Return `_size_of` of a batch, from the headers that were read with it."""
    pixels, limit = records["width"].astype(np.int64) * records["height"], pixel_limit(options)
    is_taken = (records["is_complete"] == 1) & (records["is_stored_as_rgb"] == 0)
    if limit is not None:
        is_taken &= pixels <= limit
    # What decides the route: few kinds in a batch, mostly one.
    kinds = records["components"].astype(np.int32) << 16 | records["bits"].astype(np.int32) << 8 | records["is_plain"]
    kind_of: list[int] = kinds.tolist()
    one_of = dict(zip(kind_of, range(len(records)), strict=True))
    routes = {kind: bool(route(header_of(records[one]), options, "nvimgcodec")) for kind, one in one_of.items()}
    is_routed = np.array([routes[kind] for kind in kind_of], bool)
    return np.where(is_taken & is_routed, 3 * pixels, 0)
