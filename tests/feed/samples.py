"""Data sets whose pixels say which sample they are, and pictures that a small network can tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuseq import ImageDataGenerator

GEOMETRY: dict[str, Any] = {
    "rotation_range": 30,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "conventions": "corrected",
}


def numbered(n: int, size: int = 6, channels: int = 3) -> np.ndarray:
    """Images ``(n, size, size, channels)``, float32, whose every pixel is the sample's number."""
    images = np.ones((n, size, size, channels), np.float32)
    return images * np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)


def photos(n: int = 24, size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Two classes of noisy pictures, uint8, that a small network can tell apart: bright left or bright right half."""
    rng = np.random.default_rng(11)
    labels = np.arange(n) % 2
    images = rng.integers(0, 90, (n, size, size, 3))
    for image, label in zip(images, labels, strict=True):
        half = slice(0, size // 2) if label else slice(size // 2, size)
        image[:, half] += 120
    return images.astype(np.uint8), labels.astype(np.float32)


def generator(**options: Any) -> ImageDataGenerator:
    return ImageDataGenerator(device="cpu", **options)
