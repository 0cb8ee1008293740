"""simplejpeg: JPEG files through libjpeg-turbo with nothing around it, to Pillow's pixels. Imported at first use."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import PIL
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from gpuseq.base.errors import MissingDependencyError, require
from gpuseq.base.forks import forks_wait
from gpuseq.ops.compiled.library import InstructionSet
from gpuseq.ops.numpy.affine import scratch

from .headers import Header, read_header
from .options import DecodeOptions
from .pillow import load_pixels as load_with_pillow
from .pillow import open_image, pixel_limit, resized_array

__all__ = ["check", "load_pixels", "problem"]

_MODES = {"rgb": "RGB", "grayscale": "L"}
"""Colour mode -> the mode of the files that are decoded to it as they are; all others are converted, by Pillow."""

_COLOR_SPACES = {"RGB": "RGB", "L": "GRAY"}


def check() -> None:
    """Import simplejpeg, and compare it with Pillow.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or decodes to other pixels than the installed Pillow.
    """
    require("simplejpeg", extra="jpeg", purpose='decoder="simplejpeg"')
    reason = problem()
    if reason is not None:
        raise MissingDependencyError(
            f'decoder="simplejpeg" needs a simplejpeg that decodes as Pillow does, and {reason}. Install the newest of '
            'both, or use decoder="pillow"'
        )


# Asked once a batch: to look for a package that is not there searches all of `sys.path`.
@cache
def problem() -> str | None:
    """Return why simplejpeg cannot stand in for Pillow, None where it can."""
    try:
        with forks_wait("the import of simplejpeg"):
            version = importlib.import_module("simplejpeg").__version__
    except Exception as error:  # one that was built for another NumPy raises as it likes
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == "simplejpeg"
        return "it is not installed" if is_absent else f"it does not import: {error}"
    kind = _first_difference()
    return None if kind is None else f"simplejpeg {version} and Pillow {PIL.__version__} differ on {kind}"


def load_pixels(
    encoded: bytes,
    options: DecodeOptions,
    name: str,
    instruction_set: InstructionSet | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Do as `gpuseq.decode.pillow.load_pixels` does, in less time where the file is a plain JPEG.

    Parameters
    ----------
    encoded, options, name, instruction_set, out
        As there.

    Raises
    ------
    ImageFileError
        If Pillow cannot decode it.

    Notes
    -----
    Pillow decodes whatever is not plain: CMYK, a conversion to another colour mode, an EXIF orientation that counts.
    It also decodes what libjpeg has a warning for, and decides whether the file is bad: the same files are bad
    with either decoder.
    """
    mode = _MODES.get(options.color_mode)
    header = None if options.exif_orientation else read_header(encoded)
    pixels = None
    if mode is not None and header is not None and _is_plain(header, mode):
        pixels = _decoded(encoded, header, options, name)
    if pixels is None:
        return load_with_pillow(encoded, options, name, instruction_set, out)
    return resized_array(pixels, options, instruction_set, out)


def _is_plain(header: Header, mode: str) -> bool:
    return header.format == "JPEG" and header.plain and header.bits == 8 and header.mode == mode


def _decoded(encoded: bytes, header: Header, options: DecodeOptions, name: str) -> np.ndarray | None:
    """Return the pixels, None where Pillow has to look at the file; they last until this thread decodes the next."""
    try:
        image = open_image(encoded, pixel_limit(options), name)
    except Exception:  # Pillow's formats raise their own; whatever it is, it comes again from `load_with_pillow`
        return None
    size = (header.width, header.height)
    if image.mode != header.mode or image.size != size:
        return None
    shape = (header.height, header.width, len(image.getbands()))
    is_resized = options.target_size is not None and options.target_size != shape[:2]
    # Pixels that are resized right away lie where those of the last file lay: fresh memory costs a page fault for every
    # 4 KiB, a tenth of the decoding.
    room = scratch("simplejpeg", shape, np.uint8) if is_resized else np.empty(shape, np.uint8)
    return _decode(encoded, header.mode, room)


def _decode(encoded: bytes, mode: str, room: np.ndarray) -> np.ndarray | None:
    decode: Any = importlib.import_module("simplejpeg").decode_jpeg
    try:
        # The accurate DCT and the smooth upsampling are libjpeg's defaults, and Pillow's.
        pixels = decode(encoded, _COLOR_SPACES[mode], fastdct=False, fastupsample=False, buffer=room, strict=True)
    except ValueError:  # an error, or a warning
        return None
    return pixels if pixels.shape == room.shape else None


def _first_difference() -> str | None:
    """Return what simplejpeg and Pillow decode differently, None if nothing.

    Each brings a libjpeg of its own. Releases have differed in how they upsample chroma, which every file would show;
    so small files of each kind tell. They take some milliseconds, once a process.
    """
    for kind, encoded in _probes():
        image = JpegImageFile(io.BytesIO(encoded))  # `Image.open` would hold it to a limit of the user's, and warn
        wanted = np.asarray(image).reshape(image.height, image.width, -1)
        found = _decode(encoded, image.mode, np.empty(wanted.shape, np.uint8))
        if found is None or not np.array_equal(found, wanted):
            return kind
    return None


def _probes() -> Iterator[tuple[str, bytes]]:
    """Yield the name of a kind of JPEG file, and a file: odd sides, and noise over a slope, so that all steps round."""
    rows, cols = np.mgrid[:45, :67]
    noise = np.random.default_rng(0).integers(0, 60, (45, 67, 3))
    pixels = (noise + np.stack([4 * rows, 2 * cols, rows + cols], axis=2)).clip(0, 255).astype(np.uint8)
    for progressive in (False, True):
        coding = "progressive" if progressive else "baseline"
        for sampling in ("4:4:4", "4:2:2", "4:2:0"):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=85, subsampling=sampling, progressive=progressive)
            yield f"{coding} {sampling}", file.getvalue()
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, 0]).save(file, "JPEG", quality=85, progressive=progressive)
        yield f"{coding} grey", file.getvalue()
