"""Encoded images for the decode tests: every format and mode that one could meet in a folder, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, features

__all__ = ["SIZE", "broken", "corpus", "matrix", "picture", "png"]

SIZE = (37, 53)
"""Rows and columns: primes, so that every row is padded and every block is cut."""


def picture(channels: int, dtype: type = np.uint8, *, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return smooth colours with some noise: ``(H, W, channels)``, the whole range of an integer dtype."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[: size[0], : size[1]][:, :, :, None] / max(size)
    waves = np.sin(3 * row * rng.uniform(1, 3, channels) + 4 * col * rng.uniform(1, 3, channels) + rng.uniform(0, 6))
    unit = np.clip(0.5 + 0.45 * waves + rng.normal(0, 0.06, (*size, channels)), 0, 1)
    return (unit * np.iinfo(dtype).max).astype(dtype)


def _save(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(
    rows: np.ndarray, bits: int, colour: int, *, interlaced: bool = False, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """Write a PNG by hand, for the depths and orders that Pillow cannot write.

    `rows` is ``(H, W, samples)``; `chunks` go between IHDR and IDAT.
    """
    height, width, _ = rows.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def scanlines(part: np.ndarray) -> bytes:
        lines = []
        for line in part:
            flat = line.reshape(-1)
            if bits == 16:
                packed = flat.astype(">u2").tobytes()
            elif bits == 8:
                packed = flat.astype(np.uint8).tobytes()
            else:
                planes = np.unpackbits(flat.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
                packed = np.packbits(planes.reshape(-1)).tobytes()
            lines.append(b"\0" + packed)
        return b"".join(lines)

    adam7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    parts = [rows[r::dr, c::dc] for r, dr, c, dc in adam7] if interlaced else [rows]
    body = b"".join(scanlines(part) for part in parts if part.size)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    middle = b"".join(chunk(name, data) for name, data in chunks)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, *, order: str = "<", tile: int = 0) -> bytes:
    """Write an uncompressed RGB TIFF by hand, in either byte order, in one strip or in square tiles."""
    height, width, channels = pixels.shape
    if tile:
        rows, cols = -(-height // tile), -(-width // tile)
        padded = np.zeros((rows * tile, cols * tile, channels), np.uint8)
        padded[:height, :width] = pixels
        blocks = padded.reshape(rows, tile, cols, tile, channels).swapaxes(1, 2).reshape(rows * cols, -1)
    else:
        blocks = pixels.reshape(1, -1)
    data = blocks.tobytes()
    starts = [8 + index * blocks.shape[1] for index in range(len(blocks))]
    sizes = [blocks.shape[1]] * len(blocks)
    layout = {322: [tile], 323: [tile], 324: starts, 325: sizes} if tile else {273: starts, 278: [height], 279: sizes}
    tags = {256: [width], 257: [height], 258: [8] * channels, 259: [1], 262: [2], 277: [channels], 284: [1], **layout}
    position = 8 + len(data) + 2 + 12 * len(tags) + 4  # of the values that do not fit their entries
    entries, spill = b"", b""
    for tag in sorted(tags):
        values = tags[tag]
        wide = tag in (273, 279, 324, 325)
        packed = struct.pack(f"{order}{len(values)}{'I' if wide else 'H'}", *values)
        if len(packed) > 4:
            packed, spill = struct.pack(order + "I", position + len(spill)), spill + packed
        entries += struct.pack(order + "HHI", tag, 4 if wide else 3, len(values)) + packed.ljust(4, b"\0")
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    start = struct.pack(order + "I", 8 + len(data))
    return (b"II*\0" if order == "<" else b"MM\0*") + start + data + directory + spill


def _jpegs(rgb: Image.Image, grey: Image.Image, cmyk: Image.Image) -> dict[str, bytes]:
    files = {
        "jpeg_444": _save(rgb, "JPEG", quality=92, subsampling=0),
        "jpeg_422": _save(rgb, "JPEG", quality=85, subsampling=1),
        "jpeg_420": _save(rgb, "JPEG", quality=75, subsampling=2),
        "jpeg_progressive": _save(rgb, "JPEG", quality=80, progressive=True),
        "jpeg_restart": _save(rgb, "JPEG", quality=80, restart_marker_blocks=2),
        "jpeg_rgb": _save(rgb, "JPEG", quality=90, keep_rgb=True),
        "jpeg_grey": _save(grey, "JPEG", quality=85),
        "jpeg_cmyk": _save(cmyk, "JPEG", quality=90),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"jpeg_exif{orientation}"] = _save(rgb, "JPEG", quality=85, exif=exif)
    return files


def _pngs(rgb: Image.Image, rgba: Image.Image, grey: Image.Image, palette: Image.Image) -> dict[str, bytes]:
    grey_alpha = Image.merge("LA", (grey, rgba.getchannel("A")))
    colours = palette.getpalette() or []
    small = {bits: picture(1)[:, :, :] >> (8 - bits) for bits in (1, 2, 4)}
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "png_rgb": _save(rgb, "PNG"),
        "png_rgb_exif": _save(rgb, "PNG", exif=exif),
        "png_rgb_trns": _save(rgb, "PNG", transparency=rgb.getpixel((3, 4))),
        "png_rgba": _save(rgba, "PNG"),
        "png_grey": _save(grey, "PNG"),
        "png_grey_trns": _save(grey, "PNG", transparency=grey.getpixel((3, 4))),
        "png_grey_alpha": _save(grey_alpha, "PNG"),
        "png_1bit": _save(grey.convert("1"), "PNG"),
        "png_palette": _save(palette, "PNG"),
        "png_palette_trns": _save(palette, "PNG", transparency=bytes(range(0, 256, 2))),
        "png_palette_trns_one": _save(palette, "PNG", transparency=3),
        "png_grey16": _save(Image.fromarray(picture(1, np.uint16)[:, :, 0]), "PNG"),
        "png_rgb16": png(picture(3, np.uint16), 16, 2),
        "png_rgba16": png(picture(4, np.uint16), 16, 6),
        "png_grey_alpha16": png(picture(2, np.uint16), 16, 4),
        "png_rgb_interlaced": png(picture(3), 8, 2, interlaced=True),
        "png_rgba_interlaced": png(picture(4), 8, 6, interlaced=True),
        "png_rgb_gamma": png(picture(3), 8, 2, chunks=((b"gAMA", struct.pack(">I", 100000)),)),
        "png_rgb_srgb": png(picture(3), 8, 2, chunks=((b"sRGB", b"\0"),)),
        "png_animated": _save(rgb, "PNG", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)]),
    }
    for bits, values in small.items():
        files[f"png_grey_{bits}bit"] = png(values, bits, 0)
        files[f"png_palette_{bits}bit"] = png(values, bits, 3, chunks=((b"PLTE", bytes(colours[: 3 << bits])),))
    return files


def _tiffs(rgb: Image.Image, rgba: Image.Image, grey: Image.Image, others: dict[str, Image.Image]) -> dict[str, bytes]:
    flipped = rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    files = {
        "tiff_rgb": _save(rgb, "TIFF"),
        "tiff_rgba": _save(rgba, "TIFF"),
        "tiff_rgb_pages": _save(rgb, "TIFF", save_all=True, append_images=[flipped]),
        "tiff_rgb_orientation": _save(rgb, "TIFF", tiffinfo={274: 6}),
        "tiff_grey": _save(grey, "TIFF"),
        "tiff_grey_alpha": _save(Image.merge("LA", (grey, rgba.getchannel("A"))), "TIFF"),
        "tiff_1bit": _save(grey.convert("1"), "TIFF"),
        "tiff_palette": _save(others["palette"], "TIFF"),
        "tiff_cmyk": _save(others["cmyk"], "TIFF"),
        "tiff_grey16": _save(Image.fromarray(picture(1, np.uint16)[:, :, 0]), "TIFF"),
        "tiff_grey32": _save(Image.fromarray(picture(1, np.int32)[:, :, 0]), "TIFF"),
        "tiff_float": _save(Image.fromarray(picture(1)[:, :, 0].astype(np.float32) / 3), "TIFF"),
        "tiff_rgb_big_endian": tiff(picture(3), order=">"),
        "tiff_rgb_tiled": tiff(picture(3), tile=16),
    }
    if features.check_codec("libtiff"):
        for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
            files["tiff_rgb_" + name.removeprefix("tiff_")] = _save(rgb, "TIFF", compression=name)
        files["tiff_grey_lzw"] = _save(grey, "TIFF", compression="tiff_lzw")
    return files


def _netpbm(rgb: Image.Image, grey: Image.Image) -> dict[str, bytes]:
    height, width = SIZE
    ascii_rows = "\n".join(" ".join(map(str, row.reshape(-1))) for row in np.asarray(rgb))
    return {
        "ppm_rgb": _save(rgb, "PPM"),
        "ppm_grey": _save(grey, "PPM"),
        "ppm_1bit": _save(grey.convert("1"), "PPM"),
        "ppm_grey16": _save(Image.fromarray(picture(1, np.uint16)[:, :, 0]), "PPM"),
        "ppm_comment": f"P6\n# a comment\n{width} # another\n{height}\n255\n".encode() + np.asarray(rgb).tobytes(),
        "ppm_maximum": f"P6 {width} {height} 200\n".encode() + np.minimum(np.asarray(rgb), 200).tobytes(),
        "ppm_ascii": f"P3\n{width} {height}\n255\n{ascii_rows}\n".encode(),
    }


@cache
def matrix() -> dict[str, bytes]:
    """Return name -> encoded image; what the installed Pillow cannot write is left out."""
    rgb, rgba = Image.fromarray(picture(3)), Image.fromarray(picture(4))
    grey = Image.fromarray(picture(1)[:, :, 0])
    palette, cmyk = rgb.quantize(200), rgb.convert("CMYK")
    exif = Image.Exif()
    exif[0x0112] = 3
    files = {
        **_jpegs(rgb, grey, cmyk),
        **_pngs(rgb, rgba, grey, palette),
        **_tiffs(rgb, rgba, grey, {"palette": palette, "cmyk": cmyk}),
        **_netpbm(rgb, grey),
        "bmp_rgb": _save(rgb, "BMP"),
        "bmp_rgba": _save(rgba, "BMP"),
        "bmp_palette": _save(palette, "BMP"),
        "bmp_grey": _save(grey, "BMP"),
        "bmp_1bit": _save(grey.convert("1"), "BMP"),
        "gif": _save(palette, "GIF"),
        "gif_animated": _save(
            palette, "GIF", save_all=True, append_images=[palette.transpose(Image.Transpose.ROTATE_180)]
        ),
        "ico": _save(rgba.resize((32, 32)), "ICO", sizes=[(32, 32)]),
    }
    if features.check_module("webp"):
        files |= {
            "webp_rgb": _save(rgb, "WEBP", quality=80),
            "webp_rgb_exif": _save(rgb, "WEBP", quality=80, exif=exif),
            "webp_rgb_lossless": _save(rgb, "WEBP", lossless=True),
            "webp_rgba": _save(rgba, "WEBP", quality=80),
            "webp_rgba_lossless": _save(rgba, "WEBP", lossless=True, exact=True),
            "webp_animated": _save(
                rgb, "WEBP", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)]
            ),
        }
    if features.check_codec("jpg_2000"):
        files |= {
            "jpeg2000_rgb": _save(rgb, "JPEG2000"),
            "jpeg2000_rgb_lossy": _save(rgb, "JPEG2000", quality_mode="rates", quality_layers=[20], irreversible=True),
            "jpeg2000_grey": _save(grey, "JPEG2000"),
            "jpeg2000_rgba": _save(rgba, "JPEG2000"),
        }
    if features.check("avif"):
        files["avif_rgb"] = _save(rgb, "AVIF", quality=80)
    return files


def broken() -> dict[str, bytes]:
    """Return name -> bytes that no decoder should turn into an image."""
    good = matrix()
    return {
        "empty": b"",
        "one_byte": b"\xff",
        "zeros": bytes(2000),
        "text": b"this is not an image\n" * 20,
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "jpeg_cut_header": good["jpeg_420"][:40],
        "jpeg_truncated": good["jpeg_420"][: len(good["jpeg_420"]) // 2],
        "jpeg_magic_only": b"\xff\xd8\xff",
        "png_cut_header": good["png_rgb"][:20],
        "png_truncated": good["png_rgb"][: len(good["png_rgb"]) // 2],
        "bmp_truncated": good["bmp_rgb"][:200],
        "ppm_truncated": good["ppm_rgb"][:200],
        "tiff_cut_header": good["tiff_rgb"][:9],
        "tiff_truncated": good["tiff_rgb_lzw"][: len(good["tiff_rgb_lzw"]) // 2],
        "gif_truncated": good["gif"][:60],
    }


_XMP = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6' tiff:Orientation=\"3\"/>"


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _exif(order: str, *entries: tuple[int, int, int, bytes], spill: bytes = b"", start: int = 8) -> bytes:
    """Write an EXIF segment: tag, type, number and value, or offset, of each entry; `spill` follows the directory."""
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, number, value in entries:
        directory += struct.pack(order + "HHI", tag, kind, number) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return _segment(0xE1, b"Exif\0\0" + head + directory + bytes(4) + spill)


def _exifs() -> dict[str, bytes]:
    """EXIF segments, sound ones and others, with what may follow them."""

    def turned(value: int, order: str = "<", kind: int = 3, number: int = 1) -> tuple[int, int, int, bytes]:
        return 0x0112, kind, number, struct.pack(order + ("H" if kind == 3 else "I"), value)

    def at(offset: int, order: str = "<") -> bytes:
        return struct.pack(order + "I", offset)

    def camera(order: str, value: int) -> bytes:
        # The directory ends at 8 + 2 + 12 * 5 + 4.
        maker, width = (0x010F, 2, 9, at(74, order)), (0x011A, 5, 1, at(83, order))
        more = (0x8769, 4, 1, at(8, order)), (0x9999, 12, 1, at(91, order))
        return _exif(order, maker, turned(value, order), width, *more, spill=bytes(25))

    sound, none = camera("<", 6), _exif("<", (0x010F, 2, 3, b"ab\0"))
    xmp = _segment(0xE1, _XMP)
    return {
        "exif_camera": sound,
        "exif_camera_big": camera(">", 3),
        "exif_none": none,
        "exif_of_nothing": _exif("<"),
        "exif_zero": camera("<", 0),
        "exif_nine": camera("<", 9),
        "exif_then_xmp": sound + xmp,
        "exif_after_xmp": xmp + camera(">", 8),
        "exif_none_then_xmp": none + xmp,
        "exif_twice": sound + camera("<", 8),
        "exif_tag_twice": _exif("<", turned(5), turned(7)),
        "exif_long": _exif("<", turned(6, kind=4)),
        "exif_two_values": _exif("<", turned(6 | 7 << 16, number=2, kind=4)),
        "exif_two_shorts": _exif("<", (0x0112, 3, 2, b"\6\0\7\0")),
        "exif_no_value": _exif("<", turned(6, number=0)),
        "exif_odd_type": _exif("<", (0x010F, 77, 1, b""), turned(6)),
        "exif_none_then_sound": none + sound,
        "exif_signed": _exif("<", (0x0112, 8, 1, b"\6\0")),
        "exif_outside": _exif("<", (0x010F, 2, 30, at(60)), turned(6)),
        "exif_eight_outside": _exif("<", (0x011A, 5, 1, at(900)), turned(6)),
        "exif_far_outside": _exif("<", (0x010F, 5, 0xFFFFFFFF, at(0xFFFFFFFF)), turned(6)),
        "exif_overlapping": _exif("<", *[(tag, 2, 22, at(8)) for tag in range(0x010F, 0x0112)], turned(6)),
        "exif_cut_directory": _segment(0xE1, _exif("<", turned(6), turned(6))[4:-10]),
        "exif_no_directory": _segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0"),
        "exif_directory_in_next": _segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHII", 0x0112, 3, 1, 6))
        + _segment(0xFE, struct.pack("<II", 1, 0) + bytes(758)),
        "exif_directory_outside": _exif("<", turned(6), start=0x7FFFFFF0),
        "exif_of_large_tiff": _segment(0xE1, b"Exif\0\0II+\0" + bytes(40)),
        "exif_named_twice": _segment(0xE1, b"Exif\0\0" + sound[4:]),
        "exif_named": _segment(0xE1, b"Exif\0\0"),
        "exif_short": _segment(0xE1, b"Exif\0"),
        "exif_after_junk": sound + b"\0\0" + camera("<", 8),
    }


@cache
def corpus() -> dict[str, bytes]:
    """Files of every kind, and what else may stand before, between and behind the segments of a JPEG file."""
    files = {**matrix(), **broken()}
    plain = matrix()["jpeg_420"]
    bare = plain[:2] + plain[20:]
    names = bare.replace(b"\x01\x22\0\x02\x11\x01\x03\x11\x01", b"R\x22\0G\x11\x01B\x11\x01")
    assert names != bare
    between = {
        "adobe_rgb": _segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        "adobe_ycc": _segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"),
        "adobe_short": _segment(0xEE, b"Adobe"),
        "jfif": _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        "jfxx": _segment(0xE0, b"JFXX\0\x10"),
        "fill": b"\xff\xff\xff",
        "restart": b"\xff\xd3",
        "temporary": b"\xff\x01",
        "comment": _segment(0xFE, b"\xff\xd9 no end"),
        "profile": _segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(300)),
        "xmp": _segment(0xE1, _XMP),
        "empty_segment": b"\xff\xe3\0\2",
        "no_length": b"\xff\xe3\0\0",
        "junk": b"\0\0" + _segment(0xE1, _XMP),
        "extension": _segment(0xF3, _segment(0xE1, _XMP)),
        "start_again": b"\xff\xd8",
        "end": b"\xff\xd9\0\2",
        "tables": _segment(0xC4, b"\x08\0\7\0\6\3R\0\0G\0\0B\0\0"),
        "reserved": _segment(0xC8, b"\x08\0\7\0\6\3R\0\0G\0\0B\0\0"),
        "conditioning": _segment(0xCC, b"\x08\0\7\0\6\3R\0\0G\0\0B\0\0"),
        "frame_of_no_size": _segment(0xC0, b"\x08\0\0\0\0\3\1\x11\0\2\x11\0\3\x11\0"),
        "other_frame": _segment(0xC1, b"\x08\0\7\0\6\1\1\x11\0"),
        "lossless": _segment(0xC3, b"\x08\0\7\0\6\3\1\x11\0\2\x11\0\3\x11\0"),
        "two_colours": _segment(0xC3, b"\x0c\0\7\0\6\2\1\x11\0\2\x11\0"),
    }
    for name, data in between.items():
        for label, base in (("", plain), ("_bare", bare), ("_named", names)):
            for place, at in (("first", 2), ("last", base.index(b"\xff\xda"))):
                files[f"{name}{label}_{place}"] = base[:at] + data + base[at:]
    files |= {name: plain[:20] + data + plain[20:] for name, data in _exifs().items()}
    for padding in (1, 100, 4094, 4095, 4096, 9000):
        files[f"padded_{padding}"] = plain + bytes(padding)
    return files
