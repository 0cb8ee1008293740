"""What the contenders share that feed through torch's DataLoader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpuseq.base.threads import cpu_count

from . import Contender, need

__all__ = ["LoaderContender"]


class _Images:
    """An indexable data set of (image, label)."""

    def __init__(self, count: int, read: Callable[[int], Any], transform: Callable[[Any], Any]) -> None:
        self.count, self.read, self.transform = count, read, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.read(index)), index % 10


def one_thread(_: int) -> None:
    """In a worker process: as many processes as cores, so one thread each."""
    import torch

    torch.set_num_threads(1)


class LoaderContender(Contender):
    """Worker processes, as many as cores, kept between epochs."""

    def open_loader(self, count: int, read: Callable[[int], Any], transform: Callable[[Any], Any]) -> None:
        self.torch = need("torch")
        num_workers = cpu_count()
        self.ahead = 2 * num_workers
        self.note = f"{num_workers} worker processes"
        self.loader = self.torch.utils.data.DataLoader(
            _Images(count, read, transform),
            batch_size=self.case.batch,
            shuffle=True,
            num_workers=num_workers,
            persistent_workers=True,
            worker_init_fn=one_thread,
            pin_memory=self.case.device == "cuda",
            multiprocessing_context="fork",
        )
        self.batches = iter(self.loader)

    def next_batch(self) -> Any:
        try:
            images, _ = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            images, _ = next(self.batches)
        return images.to(self.case.device, non_blocking=True)

    def to_host(self, batch: Any) -> np.ndarray:
        return np.asarray(batch.cpu())

    def synchronize(self) -> None:
        if self.case.device == "cuda":
            self.torch.cuda.synchronize()

    def file_names(self) -> list[str]:
        """Return the paths of the JPEG files."""
        from pathlib import Path

        return sorted(str(path) for path in Path(self.folder()).rglob("*.jpg"))
