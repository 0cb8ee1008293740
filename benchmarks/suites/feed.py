"""Seconds per training step on fresh batches against the same step on one constant batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import gpuseq
from benchmarks import REHEARSES
from benchmarks.measure import Row, Settings, row
from benchmarks.work import AUGMENTATION, labels, pictures
from gpuseq.base.devices import is_cupy
from gpuseq.cli.bench import keras_generator

from .networks import resnet50, small_cnn

__all__ = ["run"]

SLICE_S = 1.0
"""A feed has fewer steps than the others in a slice where they would take longer."""


def run(settings: Settings) -> list[Row]:
    """Train in slices of some steps, fed in turn by a constant batch, gpuseq and Keras' generator."""
    name = "ResNet-50, bfloat16, GPU" if settings.device == "cuda" else "small CNN, CPU"
    try:
        import torch
    except ImportError as error:
        return [row("feed", name, gpuseq.__name__, "ms per step", absent=f"PyTorch is not installed ({error})")]
    on_gpu = settings.device == "cuda"
    size, batch, samples = (16, 4, 12) if settings.smoke else (224, 64, 512) if on_gpu else (96, 32, 512)
    x, y = pictures(samples, size), labels(samples)
    feeds: dict[str, Any] = {}
    made = gpuseq.ImageDataGenerator(**AUGMENTATION, device=settings.device).flow(x, y, batch_size=batch, seed=1)
    constant = next(made)
    feeds["a constant batch"] = itertools.repeat(constant)
    feeds["gpuseq"] = made
    absent = None
    if settings.wants("keras"):
        try:
            theirs, _ = keras_generator()
            feeds["Keras ImageDataGenerator"] = theirs(**AUGMENTATION).flow(x, y, batch_size=batch, seed=1)
        except ImportError as error:
            absent = str(error)
    step = _training_step(torch, resnet50() if on_gpu and not REHEARSES else small_cnn(), on_gpu)
    most = 2 if settings.smoke else 20 if on_gpu else 8
    steps = dict.fromkeys(feeds, 2)
    times: dict[str, list[float]] = {key: [] for key in feeds}
    _slice(torch, step, feeds["a constant batch"], 2, on_gpu)  # the first steps choose algorithms
    for number in range(settings.rounds + 1):
        if number > 1 and settings.is_late:
            settings.say(f"  feed: out of time after {number - 1} of {settings.rounds} rounds")
            break
        # In another order each time: what comes after a slow feed meets a GPU that has slept.
        keys = list(feeds)
        for key in keys[number % len(keys) :] + keys[: number % len(keys)]:
            elapsed = _slice(torch, step, feeds[key], steps[key], on_gpu)
            if number:
                times[key].append(1e3 * elapsed / steps[key])
            else:
                steps[key] = max(2, min(most, int(SLICE_S / elapsed * 2)))
    rows = [
        row("feed", f"{name}, batch of {batch}, {size}x{size}", key, "ms per step", values, at={"images": batch})
        for key, values in times.items()
    ]
    if absent:
        rows.append(row("feed", name, "Keras ImageDataGenerator", "ms per step", absent=absent))
    for made_row in rows:
        if "median" in made_row:
            settings.say(f"  feed | {made_row['contender']}: {made_row['median']:.1f} ms per step")
    return rows


def _slice(torch: Any, step: Any, feed: Iterator[Any], count: int, on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        step(*next(feed)[:2])
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _training_step(torch: Any, network: Any, on_gpu: bool) -> Any:
    device = "cuda" if on_gpu else "cpu"
    network = network.to(device).train()
    if on_gpu:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def tensor(array: Any) -> Any:
        if is_cupy(array):
            return torch.from_dlpack(array)
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def step(images: Any, classes: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        # channels_last memory is what permute gives: no copy.
        batch = tensor(images).permute(0, 3, 1, 2)
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
            loss = torch.nn.functional.cross_entropy(network(batch), tensor(classes))
        loss.backward()
        optimizer.step()

    return step
