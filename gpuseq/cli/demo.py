"""The demonstration: two epochs of augmented batches from a folder, their speed, and a contact sheet."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpuseq.base.devices import synchronize
from gpuseq.base.threads import cpu_count
from gpuseq.base.types import Device
from gpuseq.generator import ImageDataGenerator
from gpuseq.ops.compiled.library import describe

from .engine import engine_and_reason, quiet
from .folder import open_folder, pick, shipped_photos
from .passed_over import PassedOver
from .preview import AUGMENTATION, format_arguments, preview_rows
from .sheet import check_sheet, write_sheet

__all__ = ["DemoResult", "EpochResult", "run_demo"]

SHOWN = ("everyday/chelsea.jpg", "everyday/coffee.jpg", "space/astronaut.jpg", "space/rocket.jpg")
"""The shipped photographs that the contact sheet shows."""


@dataclass(frozen=True)
class EpochResult:
    """How one epoch went.

    Attributes
    ----------
    num_images : int
        Images that came out.
    seconds : float
        Wall time, the device synchronised at the end.
    """

    num_images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images per second of wall time."""
        return self.num_images / self.seconds


@dataclass(frozen=True)
class DemoResult:
    """What the demo did.

    Attributes
    ----------
    folder : pathlib.Path
        Where the photographs lie.
    num_files : int
        How many there are.
    device, reason : str
        Which engine ran, and why that one.
    epochs : tuple of EpochResult
        In order.
    sheet : pathlib.Path
        The contact sheet.
    """

    folder: Path
    num_files: int
    device: str
    reason: str
    epochs: tuple[EpochResult, ...]
    sheet: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the same facts as plain JSON-able values."""
        return {
            "folder": str(self.folder),
            "num_files": self.num_files,
            "device": self.device,
            "reason": self.reason,
            "epochs": [
                {"images": epoch.num_images, "seconds": epoch.seconds, "images_per_second": epoch.images_per_second}
                for epoch in self.epochs
            ],
            "sheet": str(self.sheet),
        }


def run_demo(
    directory: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] = "gpuseq-demo.png",
    device: Device = "auto",
    target_size: tuple[int, int] = (224, 224),
    batch_size: int = 32,
    num_epochs: int = 2,
    min_images: int = 256,
    seed: int = 1,
    augmentations: str | None = None,
    passed_over: PassedOver | None = None,
    say: Any = print,
) -> DemoResult:
    """Stream epochs of augmented batches from a folder, say how fast, and write a contact sheet.

    Parameters
    ----------
    directory : str or os.PathLike or None
        Photographs in class folders or in one flat folder. None takes those that ship with gpuseq.
    out : str or os.PathLike, optional
        The contact sheet; the suffix chooses the format, as in `gpuseq.cli.sheet.write_sheet`.
    device : str, optional
        As in `ImageDataGenerator`.
    target_size : (int, int), optional
        Rows and columns.
    batch_size, num_epochs : int, optional
        How much at a time, how many times.
    min_images : int, optional
        A folder with fewer files is taken several times per epoch, so that there is something to time.
    seed : int, optional
        Same seed, same batches.
    augmentations : str or None, optional
        A modern policy, as in `ImageDataGenerator`, in the place of Keras' ranges.
    passed_over : PassedOver or None, optional
        What to go on past; None: macOS' notes.
    say : callable, optional
        Called with each line for the user.

    Returns
    -------
    DemoResult
        The same facts as values.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no picture in it.
    ImageFileError
        If a file cannot be decoded; it names the file.
    DeviceError
        If a GPU is asked for that is not there.
    """
    # All that can be refused comes before the epochs.
    check_sheet(out)
    folder = open_folder(shipped_photos() if directory is None else directory)
    passed_over = passed_over or PassedOver("raise")
    resolved, reason = engine_and_reason(device)
    num_files = len(folder.streamed)
    what = f"{num_files} photographs in {folder.path}"
    say(f"Data         {what}{' (they ship with gpuseq; SOURCES.md there)' if directory is None else ''}")
    engine = f"{describe()}, on {cpu_count()} CPU thread(s)" if resolved == "cpu" else f"CUDA on {resolved}"
    say(f"Engine       {engine}: {reason}")
    chosen = dict(AUGMENTATION) if augmentations is None else {"augmentations": augmentations}
    say(f"Augmentation {format_arguments(chosen)}, rescale=1/255")

    generator = ImageDataGenerator(**chosen, rescale=1 / 255, device=device)
    with quiet(logging.ERROR):
        iterator = generator.flow_from_directory(
            **folder.as_arguments,
            target_size=target_size,
            batch_size=batch_size,
            interpolation="bilinear",
            seed=seed,
            on_error=passed_over,
            verbose=False,
        )
        # The shipped photographs are nine: one pass over them is over before it can be timed.
        passes = max(1, math.ceil(min_images / num_files))
        epochs = []
        for number in range(1, num_epochs + 1):
            epoch = _stream(
                iterator, passes * len(iterator), passes * num_files, resolved, f"epoch {number}/{num_epochs}"
            )
            epochs.append(epoch)
            repeated = f", each file {passes} times" if passes > 1 else ""
            say(
                f"Epoch {number}      {epoch.num_images} images{repeated}: {epoch.seconds:.2f} s, "
                f"{epoch.images_per_second:,.0f} img/s"
            )
        # After the epochs, which have found the bad files.
        good = [file for file in folder.streamed if str(file) not in passed_over.reasons]
        shown = pick(good, 4) if directory is not None else tuple(folder.path / name for name in SHOWN)
        rows = preview_rows(
            chosen, shown, root=folder.path, num_variants=5, target_size=target_size, seed=seed, device=device
        )
    notes = [format_arguments(chosen), f"seed={seed}  ·  {engine}"]
    sheet = write_sheet(out, rows, heading="gpuseq demo", notes=notes)
    passed_over.report(num_files)
    say(f"Sheet        {sheet}")
    return DemoResult(folder.path, num_files, resolved, reason, tuple(epochs), sheet)


def _stream(iterator: Any, num_batches: int, num_images: int, device: str, title: str) -> EpochResult:
    """Take `num_batches` batches, with a progress bar on standard error where that is a terminal."""
    started = time.perf_counter()
    streamed = 0
    with tqdm(total=num_images, desc=title, unit="img", disable=None, leave=False) as bar:
        for _ in range(num_batches):
            images = next(iterator)[0]
            streamed += len(images)
            bar.update(len(images))
    # Batches on a GPU are handed out before they are made.
    synchronize(device)
    return EpochResult(streamed, time.perf_counter() - started)
