"""Encoded files to host images: one result per file, an array or the reason it failed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image

from gpuseq.base.arguments import check_choice, warn
from gpuseq.base.errors import ImageFileError
from gpuseq.base.forks import InheritedLockError
from gpuseq.base.threads import cpu_count, for_each
from gpuseq.base.types import COLOR_CHANNELS, DecoderChoice, literals
from gpuseq.files.reading import read_bytes
from gpuseq.ops.compiled.library import InstructionSet
from gpuseq.ops.dispatch import host_engine

from . import dali as decode_dali
from . import nvimgcodec as decode_nvimgcodec
from . import simplejpeg as decode_simplejpeg
from .headers import is_complete, read_header
from .options import DecodeOptions
from .orientation import orientation_of, transpose
from .pillow import (
    convert,
    load_converted,
    load_encoded,
    load_pixels,
    open_image,
    pixel_limit,
    resized,
    why_not_an_image,
)
from .routes import Decoder, Layout, route

__all__ = [
    "check_decoder",
    "check_files",
    "common_dtype",
    "decode",
    "decode_files",
    "decode_into",
    "guarded_each",
    "load_image",
    "read_image",
]

_CODECS: dict[str, Any] = {"dali": decode_dali, "nvimgcodec": decode_nvimgcodec}


def check_decoder(decoder: str) -> Decoder:
    """Return the decoder that `decoder` means on the host, after making sure that it can be had.

    Parameters
    ----------
    decoder : {"auto", "dali", "nvimgcodec", "pillow", "simplejpeg"}
        On the host "auto" is simplejpeg where it is installed and decodes to Pillow's pixels, else Pillow.

    Raises
    ------
    ValueError
        If it is none of these.
    MissingDependencyError
        If its package is not installed, and the message names the extra that brings it; or if simplejpeg is named, and
        the installed one decodes to other pixels than Pillow.
    """
    # The usual answers first: each batch asks.
    if decoder == "pillow":
        return "pillow"
    if decoder == "auto":
        return "pillow" if decode_simplejpeg.problem() else "simplejpeg"
    check_choice("decoder", decoder, literals(DecoderChoice))
    if decoder == "simplejpeg":
        decode_simplejpeg.check()
    elif decoder in _CODECS:
        _CODECS[decoder].check()
    return cast(Decoder, decoder)


def read_image(path: str) -> bytes:
    """Read an image file, unless it is far larger than its picture: a sparse file, a log with a picture's name.

    Parameters
    ----------
    path : str
        A local path or an fsspec URL.

    Raises
    ------
    ImageFileError
        If it cannot be read, or is no image file of that size.
    StorageError, MissingDependencyError
        As `~gpuseq.files.reading.read_bytes`.
    """
    return read_bytes(path, why_not_an_image)


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

    Raises
    ------
    MissingDependencyError
        If the decoder, or what a URL needs, is not installed. A bad file never raises.

    References
    ----------
    ``keras.utils.load_img`` and ``keras.utils.img_to_array`` (Keras 3.15), which give the same values.
    """
    return _collect(len(paths), lambda index: read_image(paths[index]), paths, options)


def decode(
    encoded: Sequence[bytes | None], options: DecodeOptions, names: Sequence[str] | None = None
) -> list[np.ndarray | ImageFileError]:
    """Decode and resize encoded images on host threads.

    Parameters
    ----------
    encoded : sequence of bytes or None
        Whole image files; None stands for one that could not be had and gives an error.
    options : DecodeOptions
        How.
    names : sequence of str, optional
        What to call them in errors.

    Returns
    -------
    list
        As `decode_files`.

    Raises
    ------
    ValueError
        If `names` and `encoded` differ in length.
    MissingDependencyError
        If the decoder is not installed.
    """
    if names is None:
        names = [f"<image {index}>" for index in range(len(encoded))]
    if len(names) != len(encoded):
        raise ValueError(f"names must name each image: got {len(names)} names for {len(encoded)} images")

    def fetch(index: int) -> bytes:
        data = encoded[index]
        if data is None:
            raise ImageFileError(names[index], "it was not read")
        return data

    return _collect(len(encoded), fetch, names, options)


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
    MissingDependencyError
        As `decode_files`.
    """
    channels = COLOR_CHANNELS[options.color_mode]
    if options.target_size is None:
        raise ValueError("decode_into needs options.target_size: rows of one block have one size")
    expected = (len(paths), *options.target_size, channels)
    if out.shape != expected:
        raise ValueError(f"out must have shape {expected}; got {out.shape}")

    # Checked before it is stored: NumPy would wrap the values of a 16-bit file around in a block of bytes.
    def store(index: int, pixels: np.ndarray, row: np.ndarray | None) -> None:
        if not np.can_cast(pixels.dtype, out.dtype, "same_kind" if out.dtype.kind == "f" else "safe"):
            raise ImageFileError(paths[index], f"its {pixels.dtype} pixels do not fit a {out.dtype} block")
        if pixels is not row:
            out[index] = pixels

    return _decode_each(len(paths), lambda index: read_image(paths[index]), paths, options, store, out)


def common_dtype(images: Sequence[np.ndarray]) -> np.dtype[Any]:
    """Return the dtype of a block that holds decoded images: uint8, or wider where grey files hold 16 or 32 bits.

    Parameters
    ----------
    images : sequence of numpy.ndarray
        From `decode` or `decode_files`.
    """
    # float32 for what is wider than 16 bits: the ops read it, and batches are made in it.
    dtype = np.result_type(np.uint8, *{image.dtype for image in images})
    return dtype if dtype in (np.uint8, np.uint16) else np.dtype(np.float32)


def load_image(path: str | bytes | os.PathLike[str] | io.BytesIO, options: DecodeOptions) -> Image.Image:
    """Load one image as ``keras.utils.load_img`` does.

    Parameters
    ----------
    path : str, bytes, os.PathLike or io.BytesIO
        A local path, an fsspec URL, or a buffer that holds a whole image file.
    options : DecodeOptions
        Colour mode, size, interpolation and the rest; its `decoder` is not used, Pillow decodes.

    Returns
    -------
    PIL.Image.Image
        In mode RGB, RGBA or L; 16- and 32-bit grey keep their mode under ``color_mode="grayscale"``.

    Raises
    ------
    ImageFileError
        If it cannot be read or decoded.
    TypeError
        If `path` is neither path-like nor a BytesIO.

    References
    ----------
    ``keras.utils.load_img`` (Keras 3.15).
    """
    if isinstance(path, io.BytesIO):
        return load_encoded(path.getvalue(), options, "<BytesIO>")
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path should be path-like or io.BytesIO, not {type(path)}")
    name = os.fsdecode(path)
    return load_encoded(read_image(name), options, name)


def check_files(
    paths: Sequence[str], options: DecodeOptions | None = None, *, progress: bool = False
) -> Iterator[tuple[str, str | None]]:
    """Decode every file and say which fail.

    Parameters
    ----------
    paths : sequence of str
        Local paths or fsspec URLs.
    options : DecodeOptions, optional
        How; by default as `flow_from_directory` does, at the files' own size.
    progress : bool
        Show a progress bar on stderr.

    Yields
    ------
    (str, str or None)
        The path, and None or the reason it fails, in the order of `paths`.

    Raises
    ------
    MissingDependencyError
        As `decode_files`.
    """
    options = options or DecodeOptions()
    chunk = 16 * (options.num_threads or cpu_count())  # bounds the memory, and the work that an early stop wastes
    from tqdm import tqdm

    with tqdm(total=len(paths), unit="file", disable=not progress) as bar:
        for begin in range(0, len(paths), chunk):
            some = paths[begin : begin + chunk]
            errors = _check(some, options)
            for path, error in zip(some, errors, strict=True):
                bar.update()
                yield path, error.reason if error else None


def _check(paths: Sequence[str], options: DecodeOptions) -> list[ImageFileError | None]:
    # Without a store: pixels are made for their errors alone, so that a folder of any size can be checked.
    return _decode_each(len(paths), lambda index: read_image(paths[index]), paths, options, None)


def _collect(
    count: int, fetch: Callable[[int], bytes], names: Sequence[str], options: DecodeOptions
) -> list[np.ndarray | ImageFileError]:
    images: list[np.ndarray | None] = [None] * count

    def store(index: int, pixels: np.ndarray, row: np.ndarray | None) -> None:
        images[index] = pixels

    errors = _decode_each(count, fetch, names, options, store)
    results: list[np.ndarray | ImageFileError] = []
    for index, (image, error) in enumerate(zip(images, errors, strict=True)):
        outcome = error if image is None else image
        results.append(ImageFileError(names[index], "it was not decoded") if outcome is None else outcome)
    return results


def guarded_each(work: Callable[[int], None], count: int, num_threads: int) -> list[ImageFileError | None]:
    """Call ``work(i)`` for every i in ``range(count)``, on several threads, and collect what is wrong with files.

    Parameters
    ----------
    work : callable
        Takes an index. An `ImageFileError` of one call stops no other; whatever else it raises is raised here.
    count : int
        Number of indices.
    num_threads : int
        Threads in all, the caller included.

    Returns
    -------
    list
        Item i is None where ``work(i)`` returned, else its error, which holds on to nothing: a traceback, and the
        causes' own, would keep the file's bytes alive for as long as the error is kept.
    """
    errors: list[ImageFileError | None] = [None] * count

    def run(index: int) -> None:
        try:
            work(index)
        except ImageFileError as error:
            error.__cause__ = error.__context__ = None
            errors[index] = error.with_traceback(None)

    for_each(run, count, num_threads)
    return errors


_Store: TypeAlias = Callable[[int, np.ndarray, np.ndarray | None], None]
"""Takes the number of an image, its pixels, and the row that was there for them, which they may be in already."""


def _decode_each(
    count: int,
    fetch: Callable[[int], bytes],
    names: Sequence[str],
    options: DecodeOptions,
    store: _Store | None,
    block: np.ndarray | None = None,
) -> list[ImageFileError | None]:
    """Fetch, decode and store each image, in any order, on several threads; return what went wrong with which.

    With `block`, an image may be resized into its row of it. Without `store` nothing is kept, and nothing is resized.
    """
    decoder = check_decoder(options.decoder)
    instruction_set = host_engine()  # once for all files
    if decoder in _CODECS:
        return _decode_with_codec(_Codec(decoder, options), count, fetch, names, instruction_set, store, block)

    load = decode_simplejpeg.load_pixels if decoder == "simplejpeg" else load_pixels

    def work_on(index: int) -> None:
        encoded = fetch(index)  # lives for one call: nothing of the batch is held but the images
        if store is None:
            load_converted(encoded, options, names[index])
            return
        row = None if block is None else block[index]
        store(index, load(encoded, options, names[index], instruction_set, row), row)

    return guarded_each(work_on, count, options.num_threads or cpu_count())


def _decode_with_codec(
    codec: _Codec,
    count: int,
    fetch: Callable[[int], bytes],
    names: Sequence[str],
    instruction_set: InstructionSet | None,
    store: _Store | None,
    block: np.ndarray | None,
) -> list[ImageFileError | None]:
    """As `_decode_each`, in three steps: all are read, the codec gets its part in one call, each is finished.

    A file that the codec is not to see, or that it fails on, is decoded by Pillow, which may know better, and else says
    what is wrong. A file whose header Pillow cannot read is refused, whatever decodes.
    """
    encoded: list[bytes] = [b""] * count
    layouts: list[Layout | None] = [None] * count

    def read(index: int) -> None:
        encoded[index] = fetch(index)
        layouts[index] = codec.layout(encoded[index], names[index])

    # Unlike with Pillow all files of a batch are held at once: the codec takes its part in one call.
    unread = guarded_each(read, count, codec.num_threads)
    pixels = codec.decode(encoded, layouts)

    def complete(index: int) -> None:
        # Raised again within the guard, which puts it in its place among the others.
        if (error := unread[index]) is not None:
            raise error
        decoded = pixels[index]
        if decoded is None:
            image = load_converted(encoded[index], codec.options, names[index])
        else:
            image = codec.finish(decoded, encoded[index], names[index])
        if store is not None:
            row = None if block is None else block[index]
            store(index, resized(image, codec.options, instruction_set, row), row)

    return guarded_each(complete, count, codec.num_threads)


class _Codec:
    """A decoder other than Pillow, for one call."""

    def __init__(self, decoder: Decoder, options: DecodeOptions) -> None:
        self.decoder = decoder
        self.options = options
        self.num_threads = options.num_threads or cpu_count()
        self.limit = pixel_limit(options)

    def layout(self, encoded: bytes, name: str) -> Layout | None:
        """Return what to ask for, None for Pillow, which also says what is wrong with the header."""
        header = read_header(encoded)
        layout = route(header, self.options, self.decoder)
        if header is None or layout is None:
            return None
        if not is_complete(encoded, header):
            return None
        # A file whose header Pillow cannot read goes to Pillow, which says why. The codec may know better, and then it
        # would depend on the decoder what is a bad file. What Pillow finds while it decodes is not looked for.
        try:
            open_image(encoded, self.limit, name)
        except Exception:  # Pillow's formats raise their own
            return None
        return layout

    def decode(self, encoded: Sequence[bytes], layouts: Sequence[Layout | None]) -> list[np.ndarray | None]:
        """Decode what has a layout; None for the rest, for what failed, and for all where the codec cannot be used."""
        pixels: list[np.ndarray | None] = [None] * len(encoded)
        layout: Layout
        # A call for each layout, since its parameters hold for the whole call.
        for layout in ("RGB", "RGBA"):
            chosen = [index for index, wanted in enumerate(layouts) if wanted == layout]
            if not chosen:
                continue
            some = [encoded[index] for index in chosen]
            try:
                found = _CODECS[self.decoder].decode_host(some, layout, self.num_threads)
            except InheritedLockError as error:
                # What has a layout has Pillow's pixels (`routes`): the batch is the same, and later.
                warn(f"Pillow decodes in the place of {self.decoder!r}: {error}", RuntimeWarning)
                break
            for index, image in zip(chosen, found, strict=True):
                pixels[index] = image
        return pixels

    def finish(self, pixels: np.ndarray, encoded: bytes, name: str) -> Image.Image:
        """Do to decoded pixels what Pillow does after decoding, up to the crop and the resize."""
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if self.options.exif_orientation:
            image = transpose(image, orientation_of(encoded, name))
        return convert(image, self.options)
