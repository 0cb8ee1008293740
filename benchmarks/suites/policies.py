"""The modern augmentations on all cores of the host: gpuseq's threads beside DataLoaders of as many processes.

Photographs lie in memory as uint8, and float32 batches in 0..1 are made of them. On a GPU it is another race: see
`benchmarks.suites.modern_on_gpu`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import LOADER
from benchmarks.contenders.policies import POLICIES
from benchmarks.measure import Row, Runner, Settings, Worker, race
from benchmarks.work import pictures

__all__ = ["case_name", "run"]

SIZE, BATCH, SAMPLES = 224, 32, 512


def case_name(policy: str, size: int = SIZE, batch: int = BATCH) -> str:
    """Return what a policy's race is called in the tables."""
    return f"{policy}, batch of {batch}, {size}x{size}"


def run(settings: Settings) -> list[Row]:
    """Race each policy, what matters most first."""
    size, batch, samples = (24, 4, 16) if settings.smoke else (SIZE, BATCH, SAMPLES)
    if settings.device == "cuda":
        return []
    for count in (samples, batch):
        pictures(count, size)  # else each process would make them
    kept: dict[str, Worker] = {}
    rows: list[Row] = []
    numbers = {"size": size, "batch": batch}
    try:
        for policy in POLICIES:
            case = numbers | {"samples": samples, "policy": policy, "device": "cpu"}
            runners = [runner for runner in _runners(case) if settings.wants(runner.contender.removesuffix(LOADER))]
            rows += race("policies", case_name(policy, size, batch), runners, settings, at=numbers, kept=kept)
    finally:
        for worker in kept.values():
            worker.close(at_once=settings.is_late)
    return rows


def _runners(case: dict[str, Any]) -> list[Runner]:
    runners = [
        Runner("gpuseq", "gpuseq, CPU", case | {"way": "iterator"}),
        Runner("torchvision-loader", "torchvision v2, PIL, DataLoader", case | {"way": "PIL"}),
        Runner("torchvision-loader", "torchvision v2, tensors, DataLoader", case | {"way": "tensors"}),
    ]
    # Their other policies are other ones.
    if case["policy"] == "RandomErasing(1.0)":
        runners.append(Runner("timm-loader", "timm, DataLoader", case))
    if case["policy"] == "ColorJitter(0.4, 0.4, 0.4)":
        runners.append(Runner("albumentations-loader", "albumentations, DataLoader", case))
    # It augments the batch that it is given: the same one again and again.
    return [*runners, Runner("kornia", "Kornia", case | {"samples": case["batch"]})]
