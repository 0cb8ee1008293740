"""Kornia's augmentations on whole batches, eager and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.work import picture

from . import Absent, Contender, need

__all__ = ["Kornia", "KorniaCompiled"]


class Kornia(Contender):
    """RandomAffine composes rotation, shift, zoom and shear in one map, per image."""

    def prepare(self) -> None:
        if self.case.files or self.case.dtype != "float32":
            raise Absent("not measured: Kornia works on float32 tensors in memory")
        self.torch = need("torch")
        need("kornia")
        import kornia.augmentation as augmentation

        self.kornia = augmentation
        affine = augmentation.RandomAffine(
            20, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=10, padding_mode="border", p=1.0, same_on_batch=False
        )
        self.steps: Any = self.torch.nn.Sequential(affine, augmentation.RandomHorizontalFlip(p=0.5))

    def rotate(self, degrees: float) -> np.ndarray | None:
        affine = self.kornia.RandomAffine((degrees, degrees), padding_mode="border", p=1.0)
        image = self.torch.from_numpy(picture()).permute(2, 0, 1)[None].float() / 255
        return (affine(image)[0].permute(1, 2, 0) * 255).numpy()

    def start(self) -> None:
        self.images = self.torch.from_numpy(self.array()).permute(0, 3, 1, 2).contiguous().to(self.case.device)
        self.rng = np.random.default_rng(1)
        self.order = np.empty(0, int)

    def next_batch(self) -> Any:
        if len(self.order) < self.case.batch:
            self.order = self.rng.permutation(len(self.images))
        rows, self.order = self.order[: self.case.batch], self.order[self.case.batch :]
        with self.torch.no_grad():
            return self.steps(self.images[self.torch.from_numpy(rows).to(self.case.device)].float() / 255)

    def to_host(self, batch: Any) -> np.ndarray:
        return batch.cpu().numpy()

    def synchronize(self) -> None:
        if self.case.device == "cuda":
            self.torch.cuda.synchronize()


class KorniaCompiled(Kornia):
    """The same through ``torch.compile``."""

    note = "torch.compile"

    def prepare(self) -> None:
        super().prepare()
        self.steps = self.torch.compile(self.steps)
