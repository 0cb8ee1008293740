"""Keras 3's preprocessing layers, in the chain their guide shows, on the backend of this process."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.work import picture

from . import Absent, Contender, need

__all__ = ["KerasLayers"]


class KerasLayers(Contender):
    """Each layer resamples once more: Keras has no layer that composes them."""

    note = "four layers, each resamples"

    def prepare(self) -> None:
        if self.case.files or self.case.dtype != "float32":
            raise Absent("not measured: layers work on float32 arrays")
        self.backend = os.environ.get("KERAS_BACKEND", "torch")
        self.library: Any = need(self.backend)
        self.keras = need("keras")
        layers = self.keras.layers
        common = {"fill_mode": "nearest", "interpolation": "bilinear"}
        slope = float(np.tan(np.deg2rad(10)))
        self.layers = self.keras.Sequential(
            [
                layers.RandomFlip("horizontal", seed=1),
                layers.RandomRotation(20 / 360, seed=2, **common),
                layers.RandomTranslation(0.1, 0.1, seed=3, **common),
                layers.RandomShear(slope, seed=4, **common),
                layers.RandomZoom((-0.2, 0.2), (-0.2, 0.2), seed=5, **common),
                layers.Rescaling(1 / 255),
            ]
        )
        self.common = common

    def rotate(self, degrees: float) -> np.ndarray | None:
        layer = self.keras.layers.RandomRotation((degrees / 360, degrees / 360), **self.common)
        turned = layer(picture()[None].astype(np.float32), training=True)
        return np.asarray(self.keras.ops.convert_to_numpy(turned))[0]

    def start(self) -> None:
        self.images = self.array()
        self.rng = np.random.default_rng(1)
        self.order = np.empty(0, int)
        if self.backend == "torch":
            self.images = self.library.from_numpy(self.images)
            if self.case.device == "cuda":
                self.images = self.images.cuda()
        elif self.case.device == "cuda":
            self.images = self.library.device_put(self.images)

    def next_batch(self) -> Any:
        if len(self.order) < self.case.batch:
            self.order = self.rng.permutation(len(self.images))
        rows, self.order = self.order[: self.case.batch], self.order[self.case.batch :]
        if self.backend != "torch":
            return self.layers(self.images[rows], training=True)
        with self.library.no_grad():
            return self.layers(self.images[rows], training=True)

    def to_host(self, batch: Any) -> np.ndarray:
        return np.asarray(self.keras.ops.convert_to_numpy(batch))

    @property
    def waits_each_batch(self) -> bool:  # type: ignore[override]
        return self.backend == "jax"

    def synchronize(self) -> None:
        if self.backend == "jax":
            self.library.effects_barrier()
        elif self.case.device == "cuda":
            self.library.cuda.synchronize()
