"""What a generator makes of given pictures: the rows of a contact sheet, each variant with its drawn parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gpuseq.base.types import Device
from gpuseq.decode.images import img_to_array, load_img
from gpuseq.generator import ImageDataGenerator
from gpuseq.plan.columns import captions
from gpuseq.plan.plan import BatchPlan

from .sheet import Row, Tile

__all__ = ["AUGMENTATION", "format_arguments", "preview_rows"]

AUGMENTATION: dict[str, Any] = {
    "rotation_range": 25,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 8,
    "zoom_range": 0.2,
    "channel_shift_range": 25,
    "brightness_range": (0.7, 1.3),
    "horizontal_flip": True,
    "fill_mode": "reflect",
}
"""What the commands do when no argument says otherwise: some of everything."""


def preview_rows(
    arguments: Mapping[str, Any],
    files: Sequence[Path],
    *,
    root: Path,
    num_variants: int = 4,
    target_size: tuple[int, int] = (224, 224),
    seed: int = 0,
    device: Device = "auto",
) -> list[Row]:
    """Augment each picture several times and keep what was drawn.

    Parameters
    ----------
    arguments : mapping
        Keyword arguments of `ImageDataGenerator`: the augmentation, without rescaling or normalisation, so that the
        results are pictures.
    files : sequence of pathlib.Path
        The pictures, one row each.
    root : pathlib.Path
        Titles are paths relative to it.
    num_variants : int, optional
        Pictures per row, beside the original.
    target_size : (int, int), optional
        Rows and columns the pictures are resized to first, as `DirectoryIterator` does it, with
        ``interpolation="bilinear"``.
    seed : int, optional
        Same seed, same pictures.
    device : str, optional
        As in `ImageDataGenerator`.

    Returns
    -------
    list of Row
        In the order of `files`.

    Raises
    ------
    ImageFileError
        If a file cannot be decoded.
    """
    originals = np.stack([_load(file, target_size) for file in files])
    generator = ImageDataGenerator(**arguments, device=device)
    # One batch over repeated pictures: the variants are drawn by the iterator as any batch is, and the plan says how.
    iterator = generator.flow(
        np.repeat(originals, num_variants, axis=0), batch_size=len(files) * num_variants, shuffle=False, seed=seed
    )
    # The plan first and the batch of it after: captions tell what was drawn for these very pictures.
    plan = iterator.plan_batch(0)
    batch = to_pictures(iterator.replay(plan))
    rows = []
    for index, (file, original) in enumerate(zip(files, originals, strict=True)):
        variants = tuple(
            Tile(batch[sample], f"variant {number}", _captions(plan, sample))
            for number, sample in enumerate(range(index * num_variants, (index + 1) * num_variants), start=1)
        )
        rows.append(Row(Tile(original, _title(file, root), _sizes(file, target_size)), variants))
    return rows


def _captions(plan: BatchPlan, sample: int) -> tuple[tuple[str, str], ...]:
    """Return what was drawn for a sample: the ranges' parameters, then the steps of the augmentations."""
    steps = [(name, " ".join(f"{value:.4g}" for value in args) or "yes") for name, *args in plan.describe(sample)]
    return (*captions(plan.params[sample]), *steps)


def to_pictures(batch: Any) -> np.ndarray:
    """Return a batch of 0..255 values as uint8 on the host, rounded and clipped.

    Parameters
    ----------
    batch : array
        Shape ``(N, H, W, C)``, any dtype, NumPy or CuPy.

    Returns
    -------
    numpy.ndarray
        Same shape, uint8.
    """
    # A batch without rescaling holds levels, as floats.
    host = batch.get() if hasattr(batch, "get") else batch
    pictures: np.ndarray = np.clip(np.rint(np.asarray(host, np.float32)), 0, 255).astype(np.uint8)
    return pictures


def format_arguments(arguments: Mapping[str, Any]) -> str:
    """Return keyword arguments as they would be typed: ``rotation_range=25, horizontal_flip=True``.

    Parameters
    ----------
    arguments : mapping
        Names and values.
    """
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _title(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else file.name


def _sizes(file: Path, target_size: tuple[int, int]) -> tuple[tuple[str, str], ...]:
    """Return the size in the file and the one the augmentation saw: columns by rows, as viewers show it."""
    with warnings.catch_warnings():
        # Of many pixels; it was decoded a moment ago.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            width, height = image.size
    return (("file", f"{width} x {height}"), ("resized to", f"{target_size[1]} x {target_size[0]}"))


def _load(file: Path, target_size: tuple[int, int]) -> np.ndarray:
    # As arrays of uint8, which every augmentation takes; Keras' own way from a file, so that a preview is what training
    # sees.
    image = load_img(file, target_size=target_size, interpolation="bilinear")
    pixels: np.ndarray = img_to_array(image, dtype="uint8")
    return pixels
