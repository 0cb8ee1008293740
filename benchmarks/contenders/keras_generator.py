"""Keras' own ImageDataGenerator: one Python thread, as it is."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from benchmarks.work import augmentation, labels, picture
from gpuseq.cli.bench import keras_generator

from . import Absent, Contender

__all__ = ["KerasGenerator"]


class KerasGenerator(Contender):
    """The iterator, called with ``next``."""

    def prepare(self) -> None:
        try:
            theirs, _ = keras_generator()
        except ImportError as error:
            raise Absent(str(error)) from error
        ranges = augmentation(self.case.dtype) if self.case.augment else {"rescale": 1 / 255}
        self.generator = theirs(**ranges, dtype=self.case.dtype)

    def rotate(self, degrees: float) -> np.ndarray | None:
        return np.asarray(self.generator.apply_transform(picture().astype(np.float32), {"theta": degrees}))

    def start(self) -> None:
        case = self.case
        if case.files:
            with contextlib.redirect_stdout(io.StringIO()):
                self.iterator = self.generator.flow_from_directory(
                    self.folder(),
                    target_size=(case.size, case.size),
                    batch_size=case.batch,
                    interpolation="bilinear",
                    seed=1,
                )
            return
        x = self.array()
        self.iterator = self.generator.flow(x, labels(len(x)), batch_size=case.batch, seed=1)

    def next_batch(self) -> Any:
        return next(self.iterator)[0]
