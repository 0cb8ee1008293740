"""The header reader agrees with Pillow, and never raises."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from gpuseq.decode.headers import is_complete, read_header
from tests.decode.imagefiles import broken, matrix, picture, png


@pytest.mark.parametrize("name", list(matrix()))
def test_agrees_with_pillow(name: str) -> None:
    encoded = matrix()[name]
    header = read_header(encoded)
    if name in ("ico", "avif_rgb"):
        assert header is None
        return
    assert header is not None
    image = Image.open(io.BytesIO(encoded))
    file_format = {"MPO": "JPEG"}.get(image.format or "", image.format)
    width, height = image.size
    if name == "tiff_rgb_orientation":  # Pillow swaps them before it turns the image
        width, height = height, width
    assert (header.format, header.width, header.height) == (file_format, width, height)
    if header.mode:
        assert header.mode == image.mode
    else:
        assert name.startswith(("bmp", "gif", "tiff"))
    if header.plain:
        assert header.bits in (1, 2, 4, 8, 16)
    if image.mode == "1":
        assert header.bits == 1
    if header.format == "PNG":
        assert header.transparency == ("transparency" in image.info)
        assert (header.bits == 16) == name.endswith("16")


@pytest.mark.parametrize("name", list(matrix()))
def test_reads_any_beginning_without_raising(name: str) -> None:
    encoded = matrix()[name]
    whole = read_header(encoded)
    found = [read_header(encoded[:length]) for length in range(min(len(encoded), 700))]
    assert found[0] is None
    for header in found:
        if header is not None and whole is not None:
            if header.format == "PPM":  # its numbers are texts, which may be cut
                assert str(whole.height).startswith(str(header.height))
                assert header.width == whole.width
            else:
                assert (header.width, header.height) == (whole.width, whole.height)


def test_reads_noise_without_raising() -> None:
    rng = random.Random(3)
    starts = [encoded[: rng.randint(2, 60)] for encoded in matrix().values()]
    for number in range(4000):
        noise = starts[number % len(starts)] + rng.randbytes(rng.randint(0, 80))
        header = read_header(noise)
        assert header is None or (header.width > 0 and header.height > 0)


@pytest.mark.parametrize("name", list(broken()))
def test_reads_broken_files_without_raising(name: str) -> None:
    header = read_header(broken()[name])
    assert header is None or (header.width > 0 and header.height > 0)
    if name in ("empty", "zeros", "text", "html", "one_byte", "jpeg_magic_only", "png_cut_header", "tiff_cut_header"):
        assert header is None


NOT_PLAIN = {"jpeg_cmyk", "png_animated", "gif", "gif_animated", "webp_animated", "bmp_rgba"} | {
    *("ppm_grey16", "ppm_maximum", "ppm_ascii", "jpeg2000_grey", "jpeg2000_rgba")
}
"""What decoders read in more than one way, beside TIFF: animations, inverted colours, levels that are not 0 to 255."""


@pytest.mark.parametrize("name", [name for name in matrix() if name not in ("ico", "avif_rgb")])
def test_what_is_plain(name: str) -> None:
    header = read_header(matrix()[name])
    assert header is not None
    wanted = name not in NOT_PLAIN
    if header.format == "TIFF":
        image = Image.open(io.BytesIO(matrix()[name]))
        wanted = image.mode in ("RGB", "L") and image.info["compression"] == "raw" and 274 not in image.tag_v2
    assert header.plain == wanted


def test_a_codestream_that_stands_alone_or_halves_its_colours_is_not_plain() -> None:
    if "jpeg2000_rgb" not in matrix():
        pytest.skip("this Pillow cannot write JPEG 2000")
    boxed = matrix()["jpeg2000_rgb"]
    size = boxed.index(b"\xff\x4f\xff\x51")
    for changed in (boxed[size:], boxed[: size + 46] + b"\2\2" + boxed[size + 48 :]):
        header = read_header(changed)
        assert header is not None
        assert (header.width, header.height, header.mode, header.plain) == (53, 37, "RGB", False)


@pytest.mark.parametrize("marker", range(0xD0, 0xD8))
def test_a_marker_without_a_length_is_passed_over(marker: int) -> None:
    """Between the segments, as Pillow passes over it: what follows would otherwise be taken for its length."""
    plain = matrix()["jpeg_420"]
    marked = plain[:2] + bytes([0xFF, marker]) + plain[2:]
    assert Image.open(io.BytesIO(marked)).size == Image.open(io.BytesIO(plain)).size
    assert read_header(marked) == read_header(plain)


JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def adobe(transform: int) -> bytes:
    return b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])


@pytest.mark.parametrize("name", ["jpeg_rgb", "jpeg_420", "jpeg_444", "jpeg_progressive", "jpeg_grey"])
@pytest.mark.parametrize("marked", [b"", JFIF, adobe(0), adobe(1), adobe(2), JFIF + adobe(0), adobe(0) + JFIF])
@pytest.mark.parametrize("is_late", [False, True])
def test_colours_stored_as_such_are_seen_as_pillow_sees_them(name: str, marked: bytes, is_late: bool) -> None:
    """With JFIF's marker three components are luma and chroma: where the pixels are others without it, they are not."""
    data = matrix()[name]
    bare = data[:2] + data[20:] if data[6:10] == b"JFIF" else data
    start = bare.index(b"\xff\xda") if is_late else 2
    # JFIF's own marker counts behind the file's start alone.
    file = bare[:start] + (marked if start == 2 else marked.replace(JFIF, b"")) + bare[start:]
    header = read_header(file)
    assert header is not None
    is_chroma = np.array_equal(pixels(file), pixels(bare[:2] + JFIF + bare[2:]))
    assert header.is_stored_as_rgb == (not is_chroma)


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def test_sees_transparency_only_before_the_pixels() -> None:
    late = png(picture(3), 8, 2)[:-12] + b"\0\0\0\6tRNS\0\1\0\1\0\1\0\0\0\0" + png(picture(3), 8, 2)[-12:]
    header = read_header(late)
    assert header is not None
    assert not header.transparency


@pytest.mark.parametrize(
    "name", ["jpeg_420", "png_rgb", "bmp_rgb", "bmp_palette", "bmp_1bit", "webp_rgb", "jpeg2000_rgb"]
)
def test_cut_files_are_not_complete(name: str) -> None:
    if name not in matrix():
        pytest.skip(f"this Pillow cannot write {name}")
    whole = matrix()[name]
    header = read_header(whole)
    assert header is not None
    assert is_complete(whole, header)
    assert is_complete(whole + bytes(100), header)
    for length in (len(whole) - 1, len(whole) - 5, len(whole) // 2):
        assert not is_complete(whole[:length], header)
