"""Augmentations where batches are born on a device: the stand-in, whose kernels g++ compiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuseq
from tests.compare import assert_same
from tests.standin import cupy as standin

CHOSEN = [gpuseq.RandAugment(3, 14, interpolation="bilinear"), gpuseq.RandomErasing(0.5, value=(0.25, 0.5, 1.0))]


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> None:
    standin.install(monkeypatch)


def on_host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


@pytest.mark.parametrize("extra", ["none", "ranges", "callable", "samplewise"])
def test_a_device_makes_the_hosts_batches(extra: str) -> None:
    """Resident images gathered by index; Keras' ranges before, a function of the user's or the sample's mean after."""
    options: dict[str, Any] = {
        "none": {},
        "ranges": {"rotation_range": 20, "horizontal_flip": True, "conventions": "corrected"},
        "callable": {"preprocessing_function": lambda image: image * 0.5},
        "samplewise": {"samplewise_center": True},
    }[extra]
    x = np.random.default_rng(0).integers(0, 256, (9, 14, 11, 3), np.uint8)
    masks = x[..., 0].astype(np.int32)
    batches = []
    for device in ("cpu", "cuda:0"):
        generator = gpuseq.ImageDataGenerator(augmentations=CHOSEN, rescale=1 / 255, device=device, **options)
        images, moved = next(generator.flow(x, masks=masks, batch_size=6, seed=4))
        batches.append((on_host(images), on_host(moved)))
    assert_same(batches[1][0], batches[0][0], atol=1e-5 if extra == "samplewise" else 0)
    assert_same(batches[1][1], batches[0][1])


@pytest.mark.parametrize("augmentations", ["augmix", [gpuseq.RandomResizedCrop((7, 9)), gpuseq.RandAugment()]], ids=str)
def test_mixes_and_crops(augmentations: Any) -> None:
    x = np.random.default_rng(0).integers(0, 256, (9, 14, 11, 3), np.uint8)
    batches = []
    for device in ("cpu", "cuda:0"):
        generator = gpuseq.ImageDataGenerator(augmentations=augmentations, rescale=1 / 255, device=device)
        batches.append(on_host(next(generator.flow(x, batch_size=6, seed=4))))
    assert_same(batches[1], batches[0])


def test_compose_works_where_the_images_are() -> None:
    import cupy

    x = np.random.default_rng(0).integers(0, 256, (5, 14, 11, 3), np.uint8)
    augment = gpuseq.Compose(CHOSEN, seed=3)
    done = augment(cupy.asarray(x), epoch=0)
    assert isinstance(done, cupy.ndarray)
    assert_same(on_host(done), augment(x, epoch=0))


def test_a_callable_takes_the_dtypes_of_its_device() -> None:
    """There is no bfloat16 of NumPy: only batches that are made on a GPU have it."""
    assert gpuseq.Compose(CHOSEN, dtype="bfloat16", device="cuda").dtype == "bfloat16"
    with pytest.raises(ValueError, match="on 'cpu'; got 'bfloat16'"):
        gpuseq.Compose(CHOSEN, dtype="bfloat16", device="cpu")
