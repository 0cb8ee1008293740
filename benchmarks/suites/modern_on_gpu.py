"""The modern augmentations on a GPU, beside torchvision v2, Kornia and Keras' layers.

256 photographs lie on the device as uint8, and a float32 batch in 0..1 is made of them there, the drawing included. A
slice ends when the device has done all of it. Each library is in a process of its own, which stays for all policies: to
import it takes longer than to measure it.
"""

from __future__ import annotations

from benchmarks.contenders.policies import POLICIES
from benchmarks.measure import Row, Settings, Worker, race
from benchmarks.work import pictures

from .field import augmenters

__all__ = ["case_name", "run"]

SIZE, BATCH = 224, 256


def case_name(policy: str, size: int = SIZE, batch: int = BATCH) -> str:
    """Return what a policy's race is called in the tables."""
    return f"{policy}, batch of {batch}, {size}x{size}"


def run(settings: Settings) -> list[Row]:
    """Race each policy, what matters most first."""
    size, batch = (24, 4) if settings.smoke else (SIZE, BATCH)
    pictures(batch, size)  # else each process would make them
    numbers = {"size": size, "batch": batch, "samples": batch}
    kept: dict[str, Worker] = {}
    rows: list[Row] = []
    try:
        for policy in POLICIES:
            runners = augmenters(numbers | {"device": settings.device, "policy": policy}, settings)
            rows += race("modern", case_name(policy, size, batch), runners, settings, at=numbers, kept=kept)
    finally:
        for worker in kept.values():
            worker.close(at_once=settings.is_late)
    return rows
