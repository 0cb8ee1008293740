"""The work that every contender does: the augmentation, arrays and a folder of JPEG files. Made once, then read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import REHEARSES
from .environment import ROOT

__all__ = [
    "AUGMENTATION",
    "augmentation",
    "device_work",
    "folder",
    "kept",
    "kernels_run",
    "labels",
    "picture",
    "pictures",
]

AUGMENTATION: dict[str, Any] = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 10,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "rescale": 1 / 255,
}
"""In the words of Keras' generator: bilinear, border pixels repeated."""

PHOTOS = ROOT / "gpuseq" / "photos"
RECIPE = 3


def device_work() -> tuple[int, int] | None:
    """Return how many kernels the stand-in for a GPU ran here, and files it decoded; None if this is real."""
    if not REHEARSES:
        return None
    from tests.standin import work

    return work.num_launches(), work.num_decodes()


def kernels_run() -> list[str]:
    """Return which kernels have run in this process on the stand-in, and by what: ``"augment by g++"``."""
    from tests.standin import work

    return sorted({f"{kernel} by {engine}" for kernel, engine in work.done() if kernel != work.DECODED})


def augmentation(dtype: str) -> dict[str, Any]:
    """Return `AUGMENTATION`; 8-bit batches keep 0..255."""
    return {key: value for key, value in AUGMENTATION.items() if key != "rescale" or dtype != "uint8"}


def kept() -> Path:
    """Return the folder in which all this is kept."""
    path = Path(os.environ.get("GPUSEQ_BENCH_DIR") or Path(tempfile.gettempdir()) / f"gpuseq-bench-{os.getuid()}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _crops(count: int, height: int, width: int, seed: int) -> Any:
    """Yield crops of the photographs in the package, each at a random place and scale."""
    rng = np.random.default_rng(seed)
    files = sorted(PHOTOS.rglob("*.jpg"))
    photos = [Image.open(file).convert("RGB") for file in files]
    for number in range(count):
        photo = photos[number % len(photos)]
        scale = rng.uniform(0.5, 1.0) * min(photo.width / width, photo.height / height)
        size = (scale * width, scale * height)
        left, upper = rng.uniform(0, photo.width - size[0]), rng.uniform(0, photo.height - size[1])
        box = (left, upper, left + size[0], upper + size[1])
        yield photo.resize((width, height), Image.Resampling.BICUBIC, box=box)


def pictures(count: int, size: int) -> np.ndarray:
    """Return an array of pictures, shape ``(count, size, size, 3)``, uint8, the same in every process."""
    file = kept() / f"pictures-{RECIPE}-{count}-{size}.npy"
    if not file.exists():
        distinct = np.stack([np.asarray(crop) for crop in _crops(min(count, 72), size, size, 1)])
        array = np.concatenate([distinct] * -(-count // len(distinct)))[:count]
        temporary = file.with_suffix(f".{os.getpid()}.npy")
        np.save(temporary, array)
        temporary.replace(file)
    loaded: np.ndarray = np.load(file)
    return loaded


def labels(count: int) -> np.ndarray:
    """Return class numbers below 10, shape ``(count,)``, int64."""
    return np.arange(count) % 10


def folder(count: int = 300, width: int = 500, height: int = 375) -> Path:
    """Return a folder of JPEG files in ten classes, quality 90, colour at half resolution as cameras write it."""
    root = kept() / f"jpegs-{RECIPE}-{count}-{width}x{height}"
    if not root.exists():
        temporary = root.with_name(f"{root.name}.{os.getpid()}")
        for number, crop in enumerate(_crops(count, height, width, 2)):
            place = temporary / f"class{number % 10}"
            place.mkdir(parents=True, exist_ok=True)
            crop.save(place / f"{number:05d}.jpg", quality=90, subsampling="4:2:0")
        with contextlib.suppress(OSError):  # another process was first
            temporary.rename(root)
    return root


def picture(size: int = 96) -> np.ndarray:
    """Return a smooth picture without symmetry, shape ``(size, size, 3)``, uint8: for comparing results."""
    row, col = np.mgrid[:size, :size] / size
    channels = (
        0.5 + 0.4 * np.sin(7 * row + 2 * col),
        0.2 + 0.6 * row * (1 - 0.5 * col),
        0.5 + 0.4 * np.cos(5 * col - 3 * row * row),
    )
    return np.round(np.stack(channels, axis=-1) * 255).clip(0, 255).astype(np.uint8)
