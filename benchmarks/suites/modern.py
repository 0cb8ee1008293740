"""The modern augmentations on the host, beside torchvision v2, timm, albumentations and Kornia.

A batch of 32 photographs from uint8 to float32 in 0..1, drawing and the making of arrays included, each library that is
installed in turn. Each draws other numbers, so the steps differ from batch to batch; a slice is of many.

On a GPU it is another race: see `benchmarks.suites.modern_on_gpu`. With DataLoaders and on all cores:
`benchmarks.suites.policies`.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import gpuseq
from benchmarks.measure import Row, Settings, row

from . import modern_on_gpu
from .cost import UNIT, keep_freed_memory, one_thread

__all__ = ["run"]

SIZE, BATCH = 224, 32
Work = Callable[[], Any]


def run(settings: Settings) -> list[Row]:
    """Race each policy: the processor time of an image on one thread; on a GPU, images per second."""
    if settings.device == "cuda":
        return modern_on_gpu.run(settings)
    rows: list[Row] = []
    keep_freed_memory()
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case, contenders in policies(photographs(24 if settings.smoke else SIZE)).items():
            wanted = {
                name: work
                for name, work in contenders.items()
                if settings.wants(name.partition(" ")[0].rstrip(",").lower())
            }
            for name, values in _race(wanted, settings).items():
                rows.append(row("modern", case, name, UNIT, values))
                settings.say(f"  modern | {case} | {name}: {rows[-1]['median']:.1f} {UNIT}")
    return rows


def _race(contenders: dict[str, Work], settings: Settings) -> dict[str, list[float]]:
    """Return each one's values, a slice in turn; the first batch is not measured."""
    names, seconds = list(contenders), 0.0 if settings.smoke else settings.seconds / settings.rounds
    for work in contenders.values():
        work()
    slices: dict[str, list[float]] = {name: [] for name in names}
    for number in range(settings.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started, spent, batches = time.perf_counter(), time.process_time(), 0
            while not batches or time.perf_counter() - started < seconds:
                contenders[name]()
                batches += 1
            slices[name].append((time.process_time() - spent) / batches / BATCH * 1e6)
    return slices


def photographs(size: int) -> np.ndarray:
    """Return a batch of the photographs that ship, (N, H, W, C) uint8."""
    found = sorted(Path(gpuseq.__file__).with_name("photos").rglob("*.jpg"))
    loaded = [np.asarray(gpuseq.load_img(path, target_size=(size, size), interpolation="bilinear")) for path in found]
    return np.stack([loaded[number % len(loaded)] for number in range(BATCH)])


def ours(images: np.ndarray, augmentations: Any) -> Work:
    generator = gpuseq.ImageDataGenerator(augmentations=augmentations, rescale=1 / 255, device="cpu")
    iterator = generator.flow(images, batch_size=BATCH, shuffle=False, seed=1)
    return lambda: next(iterator)


def on_pictures(images: np.ndarray, transform: Callable[[Any], Any] | None, after: Any = None) -> Work:
    """PIL images through a transform, then torchvision's way to a float tensor."""
    import torch
    from torchvision.transforms import v2

    pictures = [Image.fromarray(image) for image in images]
    steps = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), *([] if after is None else [after])]
    finish = v2.Compose(steps)
    return lambda: torch.stack([finish(picture if transform is None else transform(picture)) for picture in pictures])


def on_tensors(images: np.ndarray, transform: Any, *, scaled_first: bool = False) -> Work:
    """uint8 tensors, image by image, or scaled before where a transform works on floats."""
    import torch

    tensors = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    if scaled_first:
        return lambda: transform(tensors.float() / 255)
    return lambda: torch.stack([transform(tensor) for tensor in tensors]).float() / 255


def on_arrays(images: np.ndarray, transform: Any) -> Work:
    return lambda: np.stack([transform(image=image)["image"] for image in images]).astype(np.float32) / 255


def policies(images: np.ndarray) -> dict[str, dict[str, Work]]:
    """Return what is raced: per policy each contender that is installed."""
    has = {
        name: importlib.util.find_spec(name) is not None for name in ("torchvision", "timm", "albumentations", "kornia")
    }
    table: dict[str, dict[str, Work]] = {
        "RandAugment(2, 9)": {"gpuseq": ours(images, gpuseq.RandAugment(2, 9))},
        "rand-m9-mstd0.5-inc1": {"gpuseq": ours(images, "rand-m9-mstd0.5-inc1")},
        "TrivialAugmentWide()": {"gpuseq": ours(images, gpuseq.TrivialAugmentWide())},
        "ColorJitter(0.4, 0.4, 0.4)": {"gpuseq": ours(images, gpuseq.ColorJitter(0.4, 0.4, 0.4))},
        "RandomErasing(1.0)": {"gpuseq": ours(images, gpuseq.RandomErasing(1.0))},
    }
    if has["torchvision"]:
        from torchvision.transforms import v2

        for name, transform in (
            ("RandAugment(2, 9)", v2.RandAugment(2, 9)),
            ("TrivialAugmentWide()", v2.TrivialAugmentWide()),
            ("ColorJitter(0.4, 0.4, 0.4)", v2.ColorJitter(0.4, 0.4, 0.4)),
        ):
            table[name]["torchvision v2, PIL"] = on_pictures(images, transform)
            table[name]["torchvision v2, tensors"] = on_tensors(images, transform)
        table["RandomErasing(1.0)"]["torchvision v2"] = on_pictures(images, None, v2.RandomErasing(1.0))
    if has["timm"] and has["torchvision"]:
        from timm.data import auto_augment, random_erasing

        policy = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {})

        def transform(picture: Any) -> Any:
            try:
                return policy(picture)
            except ValueError:  # Pillow 13 refuses posterize to 0 bits, which the strongest magnitude asks for
                return picture

        table["rand-m9-mstd0.5-inc1"]["timm"] = on_pictures(images, transform)
        erasing = random_erasing.RandomErasing(1.0, device="cpu")
        table["RandomErasing(1.0)"]["timm"] = on_tensors(images, erasing, scaled_first=True)
    if has["albumentations"]:
        import albumentations

        ends = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4)}
        jitter = albumentations.ColorJitter(**ends, hue=(0, 0), p=1)
        table["ColorJitter(0.4, 0.4, 0.4)"]["albumentations (other formulas)"] = on_arrays(images, jitter)
    if has["kornia"]:
        from kornia import augmentation
        from kornia.augmentation import auto

        chosen_once = {"RandAugment(2, 9)": auto.RandAugment(n=2, m=9), "TrivialAugmentWide()": auto.TrivialAugment()}
        for name, whole in chosen_once.items():
            table[name]["Kornia (one choice for the batch)"] = on_tensors(images, whole, scaled_first=True)
        jiggle = augmentation.ColorJiggle(0.4, 0.4, 0.4, 0.0, p=1.0)
        table["ColorJitter(0.4, 0.4, 0.4)"]["Kornia"] = on_tensors(images, jiggle, scaled_first=True)
        table["RandomErasing(1.0)"]["Kornia"] = on_tensors(images, augmentation.RandomErasing(p=1.0), scaled_first=True)
    return table
