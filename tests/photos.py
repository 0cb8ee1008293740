"""Small image files for the tests: every format and mode that the white list lets in, and the files that break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["CLASSES", "EXIF_ORIENTATION", "KINDS", "photo", "write_broken", "write_photo", "write_tree"]

CLASSES = ("ants", "bees", "cats")

EXIF_ORIENTATION = 0x0112


def photo(height: int, width: int, channels: int = 3, *, seed: int = 0) -> np.ndarray:
    """Return something like a photograph: smooth gradients, an edge and a little noise.

    Parameters
    ----------
    height, width, channels : int
        Size.
    seed : int
        Same seed, same picture.

    Returns
    -------
    numpy.ndarray
        ``(height, width, channels)``, uint8.
    """
    rng = np.random.default_rng([seed, height, width, channels])
    row = np.linspace(0, 1, height)[:, None, None]
    col = np.linspace(0, 1, width)[None, :, None]
    tint = rng.uniform(0.2, 1.0, (1, 1, channels))
    light = 0.6 * np.sin(rng.uniform(1, 5) * row + rng.uniform(1, 5) * col + rng.uniform(0, 6, (1, 1, channels))) ** 2
    light = light + 0.4 * (col > rng.uniform(0.2, 0.8)) * tint
    return np.clip(light * 235 + rng.normal(0, 8, (height, width, channels)) + 10, 0, 255).astype(np.uint8)


def _jpeg(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).save(path, "JPEG", quality=88, subsampling=seed % 3)


def _jpeg_gray(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, 1, seed=seed)[..., 0]).save(path, "JPEG", quality=80)


def _jpeg_cmyk(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, 3, seed=seed)).convert("CMYK").save(path, "JPEG", quality=90)


def _jpeg_progressive(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).save(path, "JPEG", quality=75, progressive=True)


def _jpeg_turned(path: Path, height: int, width: int, seed: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(photo(height, width, seed=seed)).save(path, "JPEG", quality=90, exif=exif)


def _png(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).save(path, "PNG")


def _png_gray(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, 1, seed=seed)[..., 0]).save(path, "PNG")


def _sixteen_bits(height: int, width: int, seed: int) -> np.ndarray:
    """Return levels up to 65535 of which many are below 256: Pillow clips them there on the way to RGB."""
    levels = photo(height, width, 1, seed=seed)[..., 0] / 255.0
    return (levels**4 * 65535).astype(np.uint16)


def _png_gray16(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(_sixteen_bits(height, width, seed)).save(path, "PNG")


def _png_rgba(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, 4, seed=seed)).save(path, "PNG")


def _png_la(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, 4, seed=seed)).convert("LA").save(path, "PNG")


def _png_palette(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).quantize(17).save(path, "PNG")


def _png_bits(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, 1, seed=seed)[..., 0]).convert("1").save(path, "PNG")


def _bmp(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).save(path, "BMP")


def _ppm(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).save(path, "PPM")


def _tif(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(photo(height, width, seed=seed)).save(path, "TIFF")


def _tif_gray16(path: Path, height: int, width: int, seed: int) -> None:
    Image.fromarray(_sixteen_bits(height, width, seed)).save(path, "TIFF")


KINDS: dict[str, tuple[str, Callable[[Path, int, int, int], None]]] = {
    "jpeg": (".jpg", _jpeg),
    "jpeg_gray": (".jpg", _jpeg_gray),
    "jpeg_cmyk": (".jpeg", _jpeg_cmyk),
    "jpeg_progressive": (".jpg", _jpeg_progressive),
    "jpeg_turned": (".jpg", _jpeg_turned),
    "png": (".png", _png),
    "png_gray": (".png", _png_gray),
    "png_gray16": (".png", _png_gray16),
    "png_rgba": (".png", _png_rgba),
    "png_la": (".png", _png_la),
    "png_palette": (".png", _png_palette),
    "png_bits": (".png", _png_bits),
    "bmp": (".bmp", _bmp),
    "ppm": (".ppm", _ppm),
    "tif": (".tif", _tif),
    "tif_gray16": (".tif", _tif_gray16),
}
"""Name of the kind -> (extension, writer(path, height, width, seed))."""


def write_photo(path: Path, kind: str = "jpeg", *, height: int = 24, width: int = 20, seed: int = 0) -> Path:
    """Write one picture of a kind and return its path, the extension appended where `path` has none."""
    extension, write = KINDS[kind]
    path = path if path.suffix else path.with_suffix(extension)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, height, width, seed)
    return path


def write_tree(root: Path, *, per_class: tuple[int, int, int] = (8, 5, 7)) -> Path:
    """Write three class folders with every kind of file in them, nested folders, other files and a link.

    ::

        root/ants/*.jpg|png|...  root/ants/wild/deep/*  root/ants/linked -> beside/   root/notes.txt
        root/bees/*              root/cats/*            root/cats/notes.txt

    Parameters
    ----------
    root : pathlib.Path
        A folder that may not exist yet.
    per_class : tuple of int
        Files straight in each class folder; the nested ones come on top.

    Returns
    -------
    pathlib.Path
        `root`.
    """
    kinds = list(KINDS)
    serial = 0
    for name, count in zip(CLASSES, per_class, strict=True):
        for number in range(count):
            kind = kinds[serial % len(kinds)]
            # Sizes: square, wide, tall, tiny, and the target sizes of the tests themselves.
            height, width = ((24, 24), (17, 40), (37, 13), (8, 9), (16, 16), (23, 31))[serial % 6]
            write_photo(root / name / f"{kind}_{number}", kind, height=height, width=width, seed=serial)
            serial += 1
        (root / name / "notes.txt").write_text("not an image")
    write_photo(root / "ants" / "wild" / "deep" / "nested", "png", height=19, width=21, seed=100)
    write_photo(root / "ants" / "SHOUTED.JPG", "jpeg", height=19, width=21, seed=101)
    (root / "notes.txt").write_text("not a class")
    beside = root.parent / f"{root.name}_beside"
    write_photo(beside / "linked_one", "jpeg", seed=102)
    write_photo(beside / "linked_two", "bmp", seed=103)
    (root / "ants" / "linked").symlink_to(beside, target_is_directory=True)
    return root


def write_broken(folder: Path, how: str) -> Path:
    """Write a file that cannot be decoded and return its path.

    Parameters
    ----------
    folder : pathlib.Path
        Where to.
    how : {"empty", "text", "truncated", "cut_png", "header_only"}
        What is wrong with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if how == "cut_png":
        path = write_photo(folder / "broken_cut.png", "png", height=30, width=30)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        return path
    path = folder / f"broken_{how}.jpg"
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is no image at all, whatever its name says\n" * 20)
    elif how == "truncated":
        write_photo(path, "jpeg", height=64, width=64, seed=7)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif how == "header_only":
        write_photo(path, "jpeg", height=64, width=64, seed=7)
        path.write_bytes(path.read_bytes()[:20])
    else:
        raise ValueError(how)
    return path
