"""What the first bytes of an image file say: format, size, mode. No decoder is asked and no pixel is touched."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Header", "is_complete", "read_header"]


@dataclass(frozen=True)
class Header:
    """What decides which decoders may decode a file.

    Attributes
    ----------
    format : str
        Pillow's name: JPEG, PNG, BMP, PPM, TIFF, WEBP, GIF, JPEG2000.
    width, height : int
        Size, pixels.
    mode : str
        The mode in which Pillow opens the file, ``""`` where only a full parse would tell.
    bits : int
        Bits per sample in the file.
    plain : bool
        False where the file uses a corner of its format that decoders treat differently (animation, lossless JPEG,
        TIFF orientation, ...).
    transparency : bool
        A colour or palette entry is marked transparent outside an alpha channel (PNG's ``tRNS``).
    is_stored_as_rgb : bool
        A JPEG file whose components are red, green and blue, where nearly all store a luma and two chroma.
    """

    format: str
    width: int
    height: int
    mode: str
    bits: int
    plain: bool = True
    transparency: bool = False
    is_stored_as_rgb: bool = False


def read_header(encoded: bytes) -> Header | None:
    """Read the header of an encoded image.

    Parameters
    ----------
    encoded : bytes
        A whole image file, or enough of its beginning.

    Returns
    -------
    Header or None
        None for unknown formats and headers that end too early.

    References
    ----------
    ITU-T T.81 (JPEG) and T.872 (its application markers), W3C PNG, TIFF 6.0, RFC 9649 (WebP), ISO/IEC 15444-1 (JPEG
    2000), Netpbm's PPM.
    """
    # By content and never by extension, as Pillow does.
    for signature, parse in _PARSERS:
        if encoded.startswith(signature):
            try:
                header = parse(encoded)
            # What a cut or damaged header raises while it is unpacked.
            except (struct.error, IndexError, ValueError):
                return None
            return header if header and header.width > 0 and header.height > 0 else None
    return None


def is_complete(encoded: bytes, header: Header) -> bool:
    """Return whether a file seems to reach its end.

    A cut file goes to Pillow, which reports it; the other decoders log noise, or make up the rows that are missing.

    Parameters
    ----------
    encoded : bytes
        A whole image file.
    header : Header
        Its header.

    Returns
    -------
    bool
        True also for formats that do not show it.
    """
    tail = encoded[-4096:]  # some programs write padding after the end
    if header.format in ("JPEG", "JPEG2000"):
        return b"\xff\xd9" in tail
    if header.format == "PNG":
        return b"IEND\xaeB`\x82" in tail
    if header.format == "WEBP":
        return len(encoded) >= 8 + int.from_bytes(encoded[4:8], "little")
    if header.format == "BMP":
        bits = int.from_bytes(encoded[28:30] if encoded[14] >= 40 else encoded[24:26], "little")
        rows = header.height * ((header.width * bits + 31) // 32 * 4)
        return len(encoded) >= int.from_bytes(encoded[10:14], "little") + rows
    return True


def _jpeg(data: bytes) -> Header | None:
    frame, has_jfif, transform, names = None, False, None, b""
    for marker, start in _segments(data):
        if marker == 0xE0 and data[start : start + 5] == b"JFIF\0":
            has_jfif = True
        elif marker == 0xEE and data[start : start + 5] == b"Adobe":
            transform = data[start + 11]
        elif frame is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker, *struct.unpack_from(">BHHB", data, start)
            names = data[start + 6 : start + 15 : 3]
    if frame is None:
        return None
    coding, bits, height, width, components = frame
    mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(components, "")
    # As libjpeg tells them apart: by JFIF's marker, else by Adobe's, else by the names of the components.
    is_rgb = mode == "RGB" and not has_jfif and (names == b"RGB" if transform is None else transform == 0)
    # Baseline, extended and progressive Huffman coding; not lossless, hierarchical or arithmetic. Whether CMYK is
    # stored inverted depends on a marker that decoders read differently.
    return Header(
        "JPEG", width, height, mode, bits, plain=mode in ("L", "RGB") and coding <= 0xC2, is_stored_as_rgb=is_rgb
    )


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment of a JPEG file before its first pixels, and where its content begins."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            position += 2
        elif marker in (0xD9, 0xDA):  # the end, or pixels
            return
        else:
            yield marker, position + 4
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _png(data: bytes) -> Header | None:
    length, name, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if name != b"IHDR" or length != 13:
        return None
    mode = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}.get(colour, "")
    if colour == 0 and bits in (1, 16):
        mode = "1" if bits == 1 else "I;16"
    elif colour == 4 and bits == 16:
        mode = "RGBA"
    plain, transparency = bool(mode), False
    position = 33
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        if name in (b"IDAT", b"IEND"):
            return Header("PNG", width, height, mode, bits, plain, transparency)
        plain = plain and name != b"acTL"  # an animation: its first frame may not be the default image
        transparency = transparency or name == b"tRNS"
        position += 12 + length


def _bmp(data: bytes) -> Header | None:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif size >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        return None
    # Palettes may be grey or 1-bit to Pillow; only it can say, so the mode of those stays open.
    mode = {24: "RGB", 32: "RGB"}.get(bits, "")
    plain = compression == 0 and bits in (1, 8, 24)
    return Header("BMP", abs(width), abs(height), mode, min(bits, 8), plain)


def _netpbm(data: bytes) -> Header | None:
    fields: list[int] = []
    # Bitmaps have no maximum; comments may stand between any two numbers.
    position, wanted = 2, 2 if data[1:2] in b"14" else 3
    while len(fields) < wanted:
        byte = data[position : position + 1]
        if byte == b"#":
            position = data.index(b"\n", position)
        elif byte.isspace():
            position += 1
        else:
            start = position
            while data[position : position + 1].isdigit():
                position += 1
            fields.append(int(data[start:position]))
    maximum = 1 if wanted == 2 else fields[2]
    kind = (data[1] - ord("1")) % 3
    mode = ("1", "L" if maximum < 256 else "I", "RGB")[kind]
    plain = data[1:2] in b"456" and (kind == 0 or maximum == 255)
    return Header("PPM", fields[0], fields[1], mode, maximum.bit_length(), plain)


def _tiff(data: bytes) -> Header | None:
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(offset + 2, offset + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        code = {1: "B", 3: "H", 4: "I"}.get(kind)
        if tag not in _TIFF_TAGS or code is None or not 0 < number <= 8:
            continue
        layout = f"{order}{number}{code}"
        (pointer,) = struct.unpack_from(order + "I", data, entry + 8)
        tags[tag] = struct.unpack_from(layout, data, entry + 8 if struct.calcsize(layout) <= 4 else pointer)
    bits = tags.get(258, (1,))
    samples = tags.get(277, (len(bits),))[0]
    photometric = tags.get(262, (None,))[0]
    ordinary = tags.get(274, (1,))[0] == 1 and tags.get(284, (1,))[0] == 1 and set(tags.get(339, (1,))) == {1}
    mode = ""
    if ordinary and set(bits) == {8} and 338 not in tags:
        # 2 is RGB, 6 YCbCr (JPEG inside), 5 CMYK, 1 grey with black as zero.
        mode = {(2, 3): "RGB", (6, 3): "RGB", (5, 4): "CMYK", (1, 1): "L"}.get((photometric or 0, samples), "")
    # Not the compressed ones: where their data is damaged Pillow refuses, and others make it up.
    plain = mode in ("RGB", "L") and tags.get(259, (1,))[0] == 1
    return Header("TIFF", tags[256][0], tags[257][0], mode, max(bits), plain) if 256 in tags and 257 in tags else None


_TIFF_TAGS = frozenset({256, 257, 258, 259, 262, 274, 277, 284, 338, 339})


def _webp(data: bytes) -> Header | None:
    if data[8:12] != b"WEBP" or len(data) < 30:
        return None
    chunk = data[12:16]
    # The two simple formats keep sizes of 14 bits in their first frame, the extended one 24 bits in a chunk of its own.
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF, "RGB", 8, plain=data[23:26] == b"\x9d\x01\x2a")
    if chunk == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        mode = "RGBA" if packed >> 28 & 1 else "RGB"
        return Header("WEBP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, mode, 8, plain=data[20] == 0x2F)
    if chunk == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return Header("WEBP", width, height, "RGBA" if data[20] & 0x10 else "RGB", 8, plain=not data[20] & 0x02)
    return None


def _gif(data: bytes) -> Header | None:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, "", 8, plain=False)


def _jpeg2000(data: bytes) -> Header | None:
    # The codestream's own SIZ segment: the boxes around it may be absent, or wrong.
    position = data.find(b"\xff\x4f\xff\x51", 0, 65536)
    if position < 0:
        return None
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, position + 8)
    (components,) = struct.unpack_from(">H", data, position + 40)
    depths = {data[position + 42 + 3 * index] for index in range(components)}
    sampling = {data[position + 43 + 3 * index : position + 45 + 3 * index] for index in range(components)}
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(components, "")
    boxed = data[:4] == b"\x00\x00\x00\x0c"
    # Bare codestreams, palettes and other colour spaces than sRGB (16 in the colour box) are left to Pillow.
    ordinary = boxed and b"colr\x01\x00\x00\x00\x00\x00\x10" in data[:position] and b"pclr" not in data[:position]
    return Header(
        "JPEG2000",
        x1 - x0,
        y1 - y0,
        mode,
        (max(depths) & 0x7F) + 1,
        plain=ordinary and mode == "RGB" and depths == {7} and sampling == {b"\x01\x01"},
    )


_PARSERS: list[tuple[bytes, Callable[[bytes], Header | None]]] = [
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
    (b"RIFF", _webp),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", _jpeg2000),
    (b"\xff\x4f\xff\x51", _jpeg2000),
    *((b"P%d" % digit, _netpbm) for digit in range(1, 7)),
]
