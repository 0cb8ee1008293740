"""What one image costs in processor time, on one thread, all contenders in one process and in turns.

Throughput depends on who else works on the machine, and on how many processes a library starts; the processor time of
one thread hardly does. The batches of all contenders are made in this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.measure import Row, Settings, row
from benchmarks.work import AUGMENTATION, folder, labels, pictures
from gpuseq.base.types import DecoderChoice
from gpuseq.generator import ImageDataGenerator
from gpuseq.ops.compiled import library

__all__ = ["UNIT", "keep_freed_memory", "one_thread", "run"]

UNIT = "us of CPU per image"
KERAS = "Keras ImageDataGenerator"
LIMITS = (-20, 20), (-0.1, 0.1), (-10, 10), (0.8, 1.2)
"""Rotation, shift, shear and scale of `AUGMENTATION`, as other libraries write them."""

Batches = Callable[[], Any]


def run(settings: Settings) -> list[Row]:
    """Time arrays of three sizes, then decoding and resizing of files."""
    rows: list[Row] = []
    keep_freed_memory()
    with one_thread():
        for size, count in ((24, 4),) if settings.smoke else ((32, 256), (224, 32), (512, 8)):
            images = pictures(max(count, 8), size)[:count]
            rows += _race(f"arrays, {size}x{size}", _in_arrays(images), count, settings)
        count, size = (8, 24) if settings.smoke else (48, 224)
        files = sorted(str(path) for path in folder().rglob("*.jpg"))[:count]
        rows += _race(f"decode and resize, {size}x{size}", _in_files(files, size), len(files), settings)
    return rows


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let all libraries in this process work on one thread."""
    outside = {name: os.environ.get(name) for name in ("GPUSEQ_NUM_THREADS", library.ENGINE)}
    os.environ["GPUSEQ_NUM_THREADS"] = "1"
    with contextlib.suppress(ImportError):
        importlib.import_module("torch").set_num_threads(1)
    with contextlib.suppress(ImportError):
        importlib.import_module("cv2").setNumThreads(0)
    try:
        yield
    finally:
        for name, value in outside.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for all contenders alike.

    Else what one of them frees decides whether the next one's batch comes from memory that the system has to hand out
    page by page again: 1.2 or 7.5 ms for the same image of 512x512, by chance.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**25)
        mallopt(trim_threshold, 2**31 - 1)


def _race(case: str, makers: dict[str, Callable[[], Batches]], count: int, settings: Settings) -> list[Row]:
    """Give each a batch in turn; the first round is not measured."""
    batches: dict[str, Batches] = {}
    absent: dict[str, str] = {}
    for name, make in makers.items():
        if not settings.wants(name.partition(" ")[0].rstrip(",").lower()):
            continue
        try:
            batches[name] = make()
            batches[name]()
        except ImportError as error:
            batches.pop(name, None)
            absent[name] = f"not installed ({error})"
    values: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(settings.rounds):
        for name, batch in batches.items():
            started = time.process_time()
            batch()
            values[name].append((time.process_time() - started) / count * 1e6)
    rows = [row("cost", case, name, UNIT, figures) for name, figures in values.items()]
    for made in rows:
        settings.say(f"  cost | {case} | {made['contender']}: {made['median']:.1f} {UNIT}")
    return rows + [row("cost", case, name, UNIT, absent=reason) for name, reason in absent.items()]


def _with_engine(engine: str, batch: Batches) -> Batches:
    def run_it() -> Any:
        os.environ[library.ENGINE] = engine
        return batch()

    return run_it


def _in_arrays(images: np.ndarray) -> dict[str, Callable[[], Batches]]:
    def ours(engine: str) -> Batches:
        generator = ImageDataGenerator(**AUGMENTATION, device="cpu")
        iterator = generator.flow(images, labels(len(images)), batch_size=len(images), seed=1)
        return _with_engine(engine, lambda: next(iterator))

    def keras() -> Batches:
        image = importlib.import_module("keras.src.legacy.preprocessing.image")
        generator = image.ImageDataGenerator(**AUGMENTATION)
        iterator = generator.flow(images, labels(len(images)), batch_size=len(images), seed=1)
        return lambda: next(iterator)

    def albumentations() -> Batches:
        package, cv2 = importlib.import_module("albumentations"), importlib.import_module("cv2")
        rotation, shift, shear, scale = LIMITS
        affine = package.Affine(
            rotate=rotation, translate_percent=shift, shear=shear, scale=scale, border_mode=cv2.BORDER_REPLICATE, p=1
        )
        both = package.Compose([affine, package.HorizontalFlip(p=0.5)])
        return lambda: np.stack([both(image=image)["image"].astype(np.float32) / 255 for image in images])

    def torchvision() -> Batches:
        torch, v2 = importlib.import_module("torch"), importlib.import_module("torchvision.transforms.v2")
        rotation, shift, shear, scale = LIMITS
        affine = v2.RandomAffine(
            rotation, (shift[1], shift[1]), scale, shear, interpolation=v2.InterpolationMode.BILINEAR
        )
        all_ = v2.Compose([affine, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
        planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return lambda: torch.stack([all_(image) for image in planes])

    def kornia() -> Batches:
        torch, package = importlib.import_module("torch"), importlib.import_module("kornia.augmentation")
        rotation, shift, shear, scale = LIMITS
        affine = package.RandomAffine(rotation, (shift[1], shift[1]), scale, shear, padding_mode="border", p=1.0)
        both = torch.nn.Sequential(affine, package.RandomHorizontalFlip())
        planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

        def batch() -> Any:
            with torch.no_grad():
                return both(planes.float() / 255)

        return batch

    return {
        "gpuseq, compiled": lambda: ours("auto"),
        "gpuseq, NumPy": lambda: ours("numpy"),
        KERAS: keras,
        "albumentations": albumentations,
        "torchvision v2": torchvision,
        "Kornia": kornia,
    }


def _in_files(files: list[str], size: int) -> dict[str, Callable[[], Batches]]:
    def ours(engine: str, decoder: DecoderChoice) -> Batches:
        from gpuseq.decode.host import decode_files
        from gpuseq.decode.options import DecodeOptions

        if decoder == "simplejpeg":
            importlib.import_module(decoder)
        options = DecodeOptions(target_size=(size, size), interpolation="bilinear", num_threads=1, decoder=decoder)
        return _with_engine(engine, lambda: decode_files(files, options))

    def keras() -> Batches:
        utils = importlib.import_module("keras.utils")
        return lambda: [
            utils.img_to_array(utils.load_img(file, target_size=(size, size), interpolation="bilinear"))
            for file in files
        ]

    def opencv() -> Batches:
        cv2 = importlib.import_module("cv2")
        return lambda: [
            cv2.cvtColor(cv2.resize(cv2.imread(file), (size, size), interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)
            for file in files
        ]

    def torchvision() -> Batches:
        io, v2 = importlib.import_module("torchvision.io"), importlib.import_module("torchvision.transforms.v2")
        resize = v2.Resize((size, size), antialias=True)
        return lambda: [resize(io.decode_image(file)) for file in files]

    return {
        "gpuseq, compiled": lambda: ours("auto", "pillow"),
        "gpuseq, compiled, simplejpeg": lambda: ours("auto", "simplejpeg"),
        "gpuseq, NumPy": lambda: ours("numpy", "pillow"),
        KERAS: keras,
        "OpenCV, no antialiasing": opencv,
        "torchvision v2": torchvision,
    }
