"""gpuseq itself."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpuseq
from benchmarks.work import augmentation, labels, picture
from gpuseq.base.devices import place, synchronize
from gpuseq.base.errors import MissingDependencyError

from . import Absent, Contender

__all__ = ["Gpuseq"]


class Gpuseq(Contender):
    """The iterator, on its default settings. Batches of files are decoded ahead."""

    def prepare(self) -> None:
        ranges = augmentation(self.case.dtype) if self.case.augment else {"rescale": 1 / 255}
        self.generator = gpuseq.ImageDataGenerator(**ranges, dtype=self.case.dtype, device=self.case.device)
        self.iterator: Any = None
        self.ahead = 2 if self.case.files else 0

    def rotate(self, degrees: float) -> np.ndarray | None:
        image = place(picture().astype(np.float32), self.generator.device)  # where the batches are made
        turned = self.generator.apply_transform(image, {"theta": degrees})
        return self.to_host(turned)

    def start(self) -> None:
        try:
            self._start()
        except MissingDependencyError as error:
            raise Absent(str(error)) from error

    def _start(self) -> None:
        case = self.case
        if self.iterator is not None:
            self.iterator.close()
        if case.files:
            self.iterator = self.generator.flow_from_directory(
                self.folder(),
                target_size=(case.size, case.size),
                batch_size=case.batch,
                interpolation="bilinear",
                seed=1,
                cache=case.cache,
                decoder=case.decoder,
                verbose=False,
            )
        else:
            x = self.array()
            self.iterator = self.generator.flow(x, labels(len(x)), batch_size=case.batch, seed=1)

    def next_batch(self) -> Any:
        return next(self.iterator)[0]

    def to_host(self, batch: Any) -> np.ndarray:
        return batch.get() if hasattr(batch, "get") else batch

    def synchronize(self) -> None:
        synchronize(self.generator.device)

    def close(self) -> None:
        if self.iterator is not None:
            self.iterator.close()
