"""Launches of a batch by policy, counted: every policy on arrays and files, Keras' ranges before it or not.

``python -m tests.ops.cuda.launches`` prints the table; ``--write`` puts it into ``kernels/README.md``. The iterators
run on the stand-in for CuPy, whose kernels g++ compiles: no GPU is needed, and no time is told.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.ops import looks
from tests.cases import images
from tests.ops.cuda.counts import README
from tests.standin import cupy as standin
from tests.standin import work
from tests.standin.host_runner import HostRun

__all__ = ["BEGIN", "END", "POLICIES", "RANGES", "counted", "recorded", "table"]

BEGIN, END = "<!-- launches: python -m tests.ops.cuda.launches --write -->", "<!-- end of launches -->"
NUM_SAMPLES, SIDE = 64, 24
"""Of a batch: so many that each kind of step of a policy occurs."""

RANGES: dict[str, Any] = {
    "rotation_range": 25,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "zoom_range": 0.3,
    "horizontal_flip": True,
}
POLICIES: tuple[Any, ...] = (
    None,
    gpuseq.TrivialAugmentWide(),
    gpuseq.RandAugment(),
    "rand-m9-mstd0.5-inc1",
    gpuseq.AutoAugment("imagenet"),
    gpuseq.AutoAugment("cifar10"),
    gpuseq.AutoAugment("svhn"),
    gpuseq.AugMix(),
    gpuseq.ColorJitter(0.4, 0.4, 0.4, 0.1),
    gpuseq.ColorJitter(brightness=0.4, saturation=0.4, hue=0.1),
    gpuseq.RandomPhotometricDistort(),
    [gpuseq.RandomGrayscale(), gpuseq.RandomPosterize(4), gpuseq.RandomSolarize(128), gpuseq.RandomInvert()],
    gpuseq.RandomEqualize(),
    gpuseq.RandomAutocontrast(),
    gpuseq.RandomAdjustSharpness(2.0),
    gpuseq.GaussianBlur(3),
    gpuseq.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 5),
    gpuseq.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 5, interpolation="bilinear"),
    gpuseq.RandomPerspective(),
    gpuseq.RandomErasing(),
    gpuseq.RandomErasing(value="random"),
    gpuseq.RandomResizedCrop(SIDE),
)
COLUMNS = ("an array", "after Keras' ranges", "files", "after Keras' ranges")


def _flow(source: np.ndarray | Path, policy: Any, ranges: dict[str, Any]) -> Any:
    generator = gpuseq.ImageDataGenerator(
        rescale=1 / 255, augmentations=policy, rng="keyed", conventions="corrected", device="cuda", **ranges
    )
    if isinstance(source, np.ndarray):
        return generator.flow(source, batch_size=NUM_SAMPLES, seed=5)
    size = (SIDE, SIDE)
    more = {"class_mode": None, "verbose": False, "decoder": "pillow"}
    return generator.flow_from_directory(source, size, batch_size=NUM_SAMPLES, seed=5, **more)


def counted(policy: Any, folder: Path, run: HostRun) -> list[list[str]]:
    """Return the kernels of a batch in each of `COLUMNS`, in the order of their launches; the stand-in is in place."""
    array = images((NUM_SAMPLES, SIDE, SIDE, 3), "uint8")
    found = []
    for source in (array, folder):
        for ranges in ({}, RANGES):
            flow = _flow(source, policy, ranges)
            # The first batch of this array has all of its images, and looks at them for those after it.
            if source is array:
                next(flow)
            said = dict(flow.explain().path)["engine"].partition("launch(es), ")[2].split(" then ")
            before, num_loaded = work.done(), len(run.variants)
            next(flow)
            flow.close()
            times = work.done() - before
            found.append([name for name, _ in run.variants[num_loaded:]])
            assert found[-1] == said, f"explain() of {policy!r} says {said}"
            assert len(found[-1]) == sum(number for (what, _), number in times.items() if what != work.DECODED)
    return found


def write_files(folder: Path) -> Path:
    """Write the files of the table: JPEGs of two sizes, none of them that of the batch."""
    (folder / "all").mkdir()
    for number, pixels in enumerate(images((NUM_SAMPLES, 31, 37, 3), "uint8")):
        Image.fromarray(pixels[: 31 - number % 2 * 5]).save(folder / "all" / f"{number:02}.jpg")
    return folder


def _cell(names: list[str]) -> str:
    several = Counter(names)
    return f"{len(names)}: " + ", ".join(name if times == 1 else f"{times} x {name}" for name, times in several.items())


def table() -> str:
    """Return the part of the README between `BEGIN` and `END`."""
    lines = [
        BEGIN,
        "| augmentations | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        run, files = standin.install(patch), write_files(Path(folder))
        # As of images of 91 x 91 and more: these here are small so that a table takes seconds.
        patch.setattr(looks, "MAX_SHARE", 1.0)
        for policy in POLICIES:
            what = "none" if policy is None else f"`{policy}`" if isinstance(policy, str) else f"`{policy!r}`"
            lines.append(f"| {what} | " + " | ".join(map(_cell, counted(policy, files, run))) + " |")
    return "\n".join([*lines, END])


def recorded() -> str:
    """Return the README's table as `table` writes it."""
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def main(arguments: list[str] | None = None) -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.ops.cuda.launches", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {README.name}")
    asked, made = parser.parse_args(arguments), table()
    if not asked.write:
        print(made)
        return
    text = README.read_text(encoding="utf-8")
    text = text[: text.index(BEGIN)] + made + text[text.index(END) + len(END) :]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
