"""The loaders of torch and JAX, and Keras' ``fit``, from files and arrays down to interpreted PTX; races watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.feed import tensors
from tests.cases import images
from tests.parity import quiet
from tests.photos import write_tree
from tests.standin import cupy as standin
from tests.standin import torch as standin_torch
from tests.standin import work
from tests.standin.ptx import compiler
from tests.standin.ptx.runner import PtxRun

pytestmark = pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")

DATA, LABELS = images((12, 16, 16, 3), "uint8"), np.arange(12) % 3
OPTIONS: dict[str, Any] = {
    "rotation_range": 25,
    "zoom_range": 0.3,
    "channel_shift_range": 9.0,
    "brightness_range": (0.5, 1.5),
    "rescale": 1 / 255,
}
CHAIN = [gpuseq.RandAugment(2, 9), gpuseq.RandomErasing(0.5)]


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    pytest.importorskip("keras")  # imported while torch has no GPU yet: it asks once
    before = work.done()
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch, PtxRun(schedule="random"))
        standin_torch.install(patch)
        yield patch
    done = work.done() - before
    assert {engine for _, engine in done} == {work.INTERPRETED}
    assert done.total() > 8


def flows(kind: str, folder: Path, library: Any = gpuseq) -> list[Any]:
    """Return the same flow on a device and on the CPU."""
    if kind == "folder":
        write_tree(folder)
    made = []
    for device in ("cuda:0", "cpu"):
        more = {"augmentations": CHAIN, "rescale": 1 / 255} if kind == "augmentations" else OPTIONS
        with quiet():
            generator = library.ImageDataGenerator(device=device, rng="keyed", **more)
            if kind != "folder":
                made.append(generator.flow(DATA, LABELS, batch_size=4, seed=1))
                continue
            size: dict[str, Any] = {"target_size": (16, 16), "batch_size": 4, "class_mode": "sparse", "verbose": False}
            made.append(
                generator.flow_from_directory(
                    folder, seed=1, cache="device" if device == "cuda:0" else None, decoder="pillow", **size
                )
            )
    return made


KINDS = ("array", "augmentations", "folder")


@pytest.mark.parametrize("kind", KINDS)
def test_torch(kind: str, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpuseq.torch import loader

    device, host = flows(kind, tmp_path / "tree")
    for _ in range(2):
        for got, wanted in zip(loader(device), loader(host), strict=True):
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_jax(kind: str, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jax = pytest.importorskip("jax")
    from gpuseq.jax import loader

    patch.setattr(jax, "default_backend", lambda: "gpu")
    patch.setattr(jax.dlpack, "from_dlpack", lambda array: jax.device_put(array.get()))
    patch.setattr(tensors, "_lent", type(tensors._lent)())
    device, host = flows(kind, tmp_path / "tree")
    for _ in range(2):
        for got, wanted in zip(loader(device), loader(host), strict=True):
            for one, other in zip(got, wanted, strict=True):
                assert isinstance(one, jax.Array)
                np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_keras(kind: str, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import keras

    from gpuseq import keras as faces

    losses = []
    for flow in flows(kind, tmp_path / "tree", faces):
        model = keras.Sequential(
            [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3, kernel_initializer="zeros")]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        losses.append([float(value) for value in model.fit(flow, epochs=2, shuffle=False, verbose=0).history["loss"]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0][0] != losses[0][1]
