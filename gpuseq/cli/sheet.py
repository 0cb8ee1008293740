"""Contact sheets: pictures in rows, an original and its variants, with captions; drawn as a picture or an HTML page."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gpuseq.base.atomic import replacing

__all__ = ["Row", "Tile", "draw_sheet", "html_page", "write_sheet"]


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet and what stands under it.

    Attributes
    ----------
    image : numpy.ndarray
        Shape ``(H, W, 3)`` or ``(H, W, 1)``, uint8, on the host; read only.
    title : str
        The first line under the picture.
    lines : tuple of (str, str)
        Name and value pairs under the title, one per line.
    """

    image: np.ndarray
    title: str
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """An original and its augmented variants, drawn side by side.

    Attributes
    ----------
    original : Tile
        The picture before augmentation.
    variants : tuple of Tile
        The pictures after it.
    """

    original: Tile
    variants: tuple[Tile, ...]


# Of JPEG without subsampling of colours, which blurs the edges of coloured captions.
PICTURES: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},  # not optimised, which takes 3 to 8 times as long for 2 to 6 % fewer bytes
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
}
PAGES = (".html", ".htm")


def write_sheet(path: str | os.PathLike[str], rows: Sequence[Row], *, heading: str, notes: Sequence[str] = ()) -> Path:
    """Write `rows` as one picture or one self-contained page, by the suffix of `path`, whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
        Where to write. ``.html`` and ``.htm`` make a page; ``.png`` and ``.webp`` a lossless, ``.jpg`` a lossy picture.
    rows : sequence of Row
        What to show, from the top down.
    heading : str
        The title.
    notes : sequence of str, optional
        Lines under the title.

    Returns
    -------
    pathlib.Path
        The absolute path of the file.

    Raises
    ------
    ValueError
        If `rows` is empty or the suffix of `path` is none of these.
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    target = check_sheet(path)
    suffix = target.suffix.lower()
    if suffix in PAGES:
        page = html_page(rows, heading=heading, notes=notes)
        with replacing(target) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return target
    sheet = draw_sheet(rows, heading=heading, notes=notes)
    with replacing(target) as temporary:
        sheet.save(temporary, **PICTURES[suffix])
    return target


def check_sheet(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a sheet that could be written, before any work is done for it.

    Parameters
    ----------
    path : str or os.PathLike
        See `write_sheet`.

    Raises
    ------
    ValueError
        If the suffix of `path` is none of the accepted ones.
    FileNotFoundError
        If the folder of `path` does not exist.
    PermissionError
        If nothing can be written there.
    """
    target = Path(path).absolute()
    if target.suffix.lower() not in (*PICTURES, *PAGES):
        accepted = ", ".join([*PICTURES, *PAGES])
        raise ValueError(f"the sheet's file name must end in one of {accepted}; got {os.fspath(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {os.fspath(target.parent)!r} does not exist; make it first")
    # A file that this user may not write to is not replaced either, though its folder would allow that.
    there = target if target.exists() else target.parent
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{os.fspath(there)!r} cannot be written to by this user; --out names another place")
    return target


# The picture

_PAPER, _CARD, _INK, _MUTED, _ACCENT, _RULE = "#f6f5f1", "#ffffff", "#1c1e21", "#6f7479", "#b4431f", "#dedbd3"
_MARGIN, _GAP, _PADDING = 36, 14, 8
_TITLE_SIZE, _LINE_SIZE, _LINE_HEIGHT = 15, 13, 18
_NAME_WIDTH, _NAME_GAP = 74, 6


def draw_sheet(rows: Sequence[Row], *, heading: str, notes: Sequence[str] = (), tile_size: int = 192) -> Image.Image:
    """Draw `rows` on one sheet, the originals in the first column.

    Parameters
    ----------
    rows : sequence of Row
        What to show, from the top down. Rows may have different numbers of variants.
    heading : str
        The title.
    notes : sequence of str, optional
        Lines under the title; long ones are broken at spaces.
    tile_size : int, optional
        Longest side of a picture on the sheet, in pixels.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ValueError
        If `rows` is empty.
    """
    _check_rows(rows)
    # Rows of unequal length share the columns of the longest.
    num_columns = 1 + max(len(row.variants) for row in rows)
    card_width = tile_size + 2 * _PADDING
    first_gap = 2 * _GAP  # the originals stand apart
    width = 2 * _MARGIN + num_columns * card_width + (num_columns - 2) * _GAP + first_gap
    note_lines = [line for note in notes for line in _wrapped(note, width - 2 * _MARGIN, _LINE_SIZE)]
    top = _MARGIN + 38 + _LINE_HEIGHT * len(note_lines) + _GAP

    tiles_of = [(row.original, *row.variants) for row in rows]
    card_heights = [
        max(_PADDING * 3 + tile_size + _LINE_HEIGHT * (1 + len(tile.lines)) for tile in tiles) for tiles in tiles_of
    ]
    height = top + sum(card_heights) + _GAP * (len(rows) - 1) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), heading, _INK, ImageFont.load_default(26))
    for index, line in enumerate(note_lines):
        draw.text((_MARGIN, _MARGIN + 34 + index * _LINE_HEIGHT), line, _MUTED, ImageFont.load_default(_LINE_SIZE))

    for tiles, card_height in zip(tiles_of, card_heights, strict=True):
        left = _MARGIN
        for column, tile in enumerate(tiles):
            _draw_card(sheet, draw, tile, (left, top, card_width, card_height), tile_size, is_original=column == 0)
            left += card_width + (first_gap if column == 0 else _GAP)
        top += card_height + _GAP
    return sheet


def _draw_card(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    tile: Tile,
    box: tuple[int, int, int, int],
    tile_size: int,
    *,
    is_original: bool,
) -> None:
    left, top, width, height = box
    draw.rounded_rectangle(
        (left, top, left + width - 1, top + height - 1),
        radius=6,
        fill=_CARD,
        outline=_ACCENT if is_original else _RULE,
        width=2 if is_original else 1,
    )
    picture = _as_image(tile.image)
    # By the longer side, so that portraits and landscapes share a grid.
    scale = tile_size / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    offset = ((tile_size - size[0]) // 2, (tile_size - size[1]) // 2)
    sheet.paste(picture, (left + _PADDING + offset[0], top + _PADDING + offset[1]))

    text_width = width - 2 * _PADDING
    text_top = top + 2 * _PADDING + tile_size - 2
    title_font, line_font = ImageFont.load_default(_TITLE_SIZE), ImageFont.load_default(_LINE_SIZE)
    title = _elided(tile.title, text_width, _TITLE_SIZE)
    draw.text((left + _PADDING, text_top), title, _ACCENT if is_original else _INK, title_font)
    # Values stand below each other, behind the longest name.
    widest = max((math.ceil(_text_width(name, _LINE_SIZE)) for name, _ in tile.lines), default=0)
    name_width = min(max(_NAME_WIDTH, widest), text_width // 2)
    for index, (name, value) in enumerate(tile.lines):
        row_top = text_top + _LINE_HEIGHT * (1 + index) + 1
        draw.text((left + _PADDING, row_top), _elided(name, name_width, _LINE_SIZE), _MUTED, line_font)
        start = left + _PADDING + name_width + _NAME_GAP
        draw.text((start, row_top), _elided(value, left + width - _PADDING - start, _LINE_SIZE), _INK, line_font)


def _text_width(text: str, size: int) -> float:
    return float(ImageFont.load_default(size).getlength(text))


def _elided(text: str, width: float, size: int) -> str:
    """Cut the middle out of `text` until it fits: the ends of a file name tell more than its middle."""
    if _text_width(text, size) <= width:
        return text
    # One character at a time: widths of letters differ, and titles are short.
    kept = len(text) - 1
    while kept > 1 and _text_width(f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}", size) > width:
        kept -= 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _wrapped(text: str, width: float, size: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and _text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            # Also a word wider than the sheet: it is drawn past the margin, as there is no place to break it.
            lines.append(word)
    return lines


def _as_image(image: np.ndarray) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            f"a tile's image must be uint8 of shape (H, W, 1) or (H, W, 3); got {image.dtype} {image.shape}"
        )
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")


def _check_rows(rows: Sequence[Row]) -> None:
    if not rows:
        raise ValueError("a contact sheet needs at least one row; got none")


# The page

_STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f1; --card: #fff; --ink: #1c1e21; --muted: #666b70; --rule: #dedbd3;
  --accent: #b4431f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --card: #1d2025; --ink: #eceae5; --muted: #9aa0a6; --rule: #31353b; --accent: #f08a5d; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2.5rem clamp(1rem, 4vw, 3rem); background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0 0 .5rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; }
header p { margin: .15rem 0; max-width: 80ch; color: var(--muted); overflow-wrap: anywhere; }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 1rem;
  padding: 1.5rem 0; border-top: 1px solid var(--rule); margin-top: 1.5rem; }
section + section { margin-top: 0; }
figure { margin: 0; padding: .6rem; background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; }
figure.original { border: 2px solid var(--accent); }
img { display: block; width: 100%; height: auto; border-radius: .3rem; }
figcaption { margin-top: .5rem; font-size: .9rem; font-weight: 600; overflow-wrap: anywhere; }
.original figcaption { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .5rem; margin: .25rem 0 0; font-size: .8rem; }
dt { color: var(--muted); }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
@media print { body { padding: 0; } figure { break-inside: avoid; } }
"""


def html_page(rows: Sequence[Row], *, heading: str, notes: Sequence[str] = ()) -> str:
    """Return `rows` as one HTML page that needs nothing beside itself: the pictures are ``data:`` URIs.

    Parameters
    ----------
    rows : sequence of Row
        What to show, from the top down.
    heading : str
        The title.
    notes : sequence of str, optional
        Paragraphs under the title.

    Returns
    -------
    str
        The page, UTF-8 declared, for light and dark screens and for print. All text is escaped.

    Raises
    ------
    ValueError
        If `rows` is empty.
    """
    _check_rows(rows)
    title = html.escape(heading)
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    sections = "\n".join(
        "<section>\n"
        + "\n".join(_figure(tile, is_original=column == 0) for column, tile in enumerate((row.original, *row.variants)))
        + "\n</section>"
        for row in rows
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<header><h1>{title}</h1>{paragraphs}</header>\n"
        f"<main>\n{sections}\n</main>\n</body>\n</html>\n"
    )


def _figure(tile: Tile, *, is_original: bool) -> str:
    buffer = io.BytesIO()
    picture = _as_image(tile.image)
    # In the page, so that one file can be sent; as JPEG, because PNG of photographs is several times as large.
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    spoken = html.escape(", ".join([tile.title, *(f"{name} {value}" for name, value in tile.lines)]), quote=True)
    title = html.escape(tile.title).replace("/", "/<wbr>")  # a path breaks at its folders
    pairs = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in tile.lines)
    return (
        f"<figure{' class=' + chr(34) + 'original' + chr(34) if is_original else ''}>"
        f'<img alt="{spoken}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/jpeg;base64,{data}"><figcaption>{title}</figcaption>'
        f"{f'<dl>{pairs}</dl>' if pairs else ''}</figure>"
    )
