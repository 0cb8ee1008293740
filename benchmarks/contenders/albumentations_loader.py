"""Albumentations (OpenCV), one image at a time in a DataLoader."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.work import picture

from . import Absent, need
from .torch_loader import LoaderContender

__all__ = ["Albumentations"]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


class Albumentations(LoaderContender):
    """Affine composes rotation, shift, zoom and shear in one map; outside it repeats the border."""

    def prepare(self) -> None:
        if self.case.dtype != "float32":
            raise Absent("not measured: float32 only")
        self.cv2 = need("cv2")
        self.library = need("albumentations")
        self.cv2.setNumThreads(0)

    def rotate(self, degrees: float) -> np.ndarray | None:
        turn = self.library.Affine(rotate=(degrees, degrees), border_mode=self.cv2.BORDER_REPLICATE, p=1.0)
        return np.asarray(turn(image=picture())["image"])

    def start(self) -> None:
        A, size = self.library, self.case.size
        steps: list[Any] = []
        if self.case.files:
            steps.append(A.Resize(size, size, interpolation=self.cv2.INTER_LINEAR))
        if self.case.augment:
            shift = {"x": (-0.1, 0.1), "y": (-0.1, 0.1)}
            steps.append(
                A.Affine(
                    rotate=(-20, 20),
                    translate_percent=shift,
                    shear=(-10, 10),
                    scale=(0.8, 1.2),
                    border_mode=self.cv2.BORDER_REPLICATE,
                    p=1.0,
                )
            )
            steps.append(A.HorizontalFlip(p=0.5))
        steps.append(A.ToFloat(max_value=255))
        compose = A.Compose(steps)

        def transform(image: np.ndarray) -> Any:
            return compose(image=image)["image"]

        if self.case.files:
            paths = self.file_names()
            cv2 = self.cv2
            self.open_loader(
                len(paths), lambda index: cv2.cvtColor(cv2.imread(paths[index]), cv2.COLOR_BGR2RGB), transform
            )
            self.note = f"{self.note}; resizes without antialiasing"
        else:
            images = self.array()
            self.open_loader(len(images), images.__getitem__, transform)
