"""What a round works with: pictures whose samples can be told apart, iterators over them, processes, counts."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import gpuseq

from .ledger import TroubleError, numbers_of

__all__ = ["NUM_FILES", "PATIENCE", "SIDE", "Bench", "path_of", "write_photo", "write_photos"]

NUM_FILES = 60
SIDE = 6
PATIENCE = 300.0
"""Seconds after which a child process hangs."""


@dataclass
class Bench:
    """What a round works with.

    Attributes
    ----------
    rng : random.Random
        All that is drawn.
    folder : pathlib.Path
        Empty, its own, and taken away after it.
    photos : pathlib.Path
        `NUM_FILES` pictures in three classes, read only; sample i is of colour ``(i, 255 - i, 0)`` and class ``i % 3``.
    counts : collections.Counter
        What it has done so far.
    """

    rng: random.Random
    folder: Path
    photos: Path
    counts: Counter[str]

    def generator(self) -> gpuseq.ImageDataGenerator:
        """Return a generator that changes no picture of one colour."""
        some: dict[str, Any] = {"horizontal_flip": True, "rotation_range": 20, "zoom_range": 0.2}
        names = self.rng.sample(sorted(some), self.rng.randrange(len(some) + 1))
        return gpuseq.ImageDataGenerator(device="cpu", **{name: some[name] for name in names})

    def walk_options(self) -> dict[str, Any]:
        """Draw how an iterator goes through its samples."""
        return {
            "batch_size": self.rng.randrange(1, 17),
            "shuffle": self.rng.random() < 0.8,
            "seed": self.rng.randrange(2**31),
            "rng": self.rng.choice(["keras", "keyed"]),
        }

    def files(self, folder: Path | str, **options: Any) -> Any:
        """Return an iterator over a folder of pictures."""
        reading = {"prefetch": self.rng.randrange(4), "cache": self.rng.choice([None, "host"])}
        return self.generator().flow_from_directory(
            str(folder),
            target_size=(SIDE, SIDE),
            class_mode="sparse",
            verbose=False,
            **{**self.walk_options(), **reading, **options},
        )

    def iterator(self) -> tuple[Any, range]:
        """Return an iterator over files or arrays, and its samples."""
        if self.rng.random() < 0.5:
            return self.files(self.photos), range(NUM_FILES)
        number = self.rng.randrange(1, 120)
        images = np.broadcast_to(np.arange(number, dtype=np.uint8)[:, None, None, None], (number, SIDE, SIDE, 3))
        return self.generator().flow(images.copy(), np.arange(number) % 3, **self.walk_options()), range(number)

    def take(self, batch: Any) -> list[int]:
        """Return the samples of a batch, whose labels must be theirs, and count it."""
        images, labels = batch
        numbers = numbers_of(images)
        if [number % 3 for number in numbers] != [int(label) for label in labels]:
            raise TroubleError(f"labels {labels.tolist()} of samples {numbers}")
        self.counts["batches"] += 1
        self.counts["samples"] += len(numbers)
        return numbers

    def epoch(self, iterator: Any, epoch: int) -> list[int]:
        """Return the samples of a whole epoch, by index."""
        iterator.set_epoch(epoch)
        return [number for index in range(len(iterator)) for number in self.take(iterator[index])]

    def forked(self, function: Callable[[], None]) -> None:
        """Call a function in a forked process, and raise here what it raised there."""
        reading, writing = os.pipe()
        self.counts["forks"] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it forks beside threads is the point
            child = os.fork()
        if child == 0:
            signal.alarm(0)
            try:
                os.close(reading)
                before = Counter(self.counts)
                function()
                said: Any = {name: count for name, count in (self.counts - before).items() if count}
            except BaseException:
                said = traceback.format_exc()
            finally:
                os.write(writing, json.dumps(said).encode()[-60_000:])
                os._exit(0)
        os.close(writing)
        try:
            ready, _, _ = select.select([reading], [], [], PATIENCE)
            answer = os.read(reading, 65_536) if ready else b""
            if not ready:
                os.kill(child, signal.SIGKILL)
        finally:
            os.close(reading)
            os.waitpid(child, 0)
        if not answer:
            raise TroubleError("a forked process " + ("died" if ready else f"has hung for {PATIENCE:.0f} s"))
        said = json.loads(answer)
        if isinstance(said, str):
            raise TroubleError(f"in a forked process:\n{said}")
        self.counts.update(said)


def path_of(folder: Path, index: int) -> Path:
    return folder / "abc"[index % 3] / f"{index:03}.png"


def write_photo(folder: Path, index: int, version: int) -> None:
    """Put a picture in place in one step, as programs that write files carefully do."""
    path = path_of(folder, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    Image.new("RGB", (SIDE, SIDE), (index, 255 - index, version)).save(beside, "png")
    beside.replace(path)


def write_photos(folder: Path) -> None:
    """Write the pictures that no round changes."""
    for index in range(NUM_FILES):
        write_photo(folder, index, 0)
