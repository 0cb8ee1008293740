"""Instructions a pixel of the modern augmentations, by kind of step: the compiled PTX of `program.cu`, executed.

Its kernels decide at run time what they do, so that no way through the machine code is a step's cost; the interpreter
counts what a batch of one step takes. `tests.ops.cuda.counts` writes the table beside its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.options import RangesFirst
from gpuseq.plan.columns import identity_params
from gpuseq.plan.policies.recipe import Recipe
from tests.cases import images
from tests.ops.cuda.counts import EVERYDAY
from tests.ops.pillow_steps import step
from tests.standin.ptx import compiler, runner

__all__ = ["BEGIN", "END", "KINDS", "interpreted", "recorded", "table"]

BEGIN, END = "<!-- steps: python -m tests.ops.cuda.counts --write -->", "<!-- end of steps -->"
ARCHITECTURE = "compute_90"
SIDE = 64
"""Of the square images: two units of `program`, so that no block is partly idle."""

_AFFINE = (20, 2, -1, 1.1, 5, -3)

STEPS: dict[str, np.ndarray] = {
    "nothing: a copy": step("Brightness", 1.0)[:0],
    "levels by a table (Posterize)": step("Posterize", 4),
    "Color": step("Color", 1.3),
    "Hue": step("Hue", 0.1),
    "PermuteChannels": step("PermuteChannels", 2, 0, 1),
    "nearest, affine (Rotate)": step("Rotate", 9.0),
    "nearest, perspective": step("Perspective", 1, 0, 60, 2, 58, 63, 0, 61),
    "bilinear, affine": step("Affine", *_AFFINE, bilinear=True),
    "bilinear, perspective": step("Perspective", 1, 0, 60, 2, 58, 63, 0, 61, bilinear=True),
    "Sharpness": step("Sharpness", 1.4),
    "GaussianBlur, 3 x 3": step("GaussianBlur", 3, 3, 1.0),
    "Contrast": step("Contrast", 1.3),
    "AutoContrast": step("AutoContrast"),
    "Equalize": step("Equalize"),
    "Rotate, then Sharpness": np.concatenate([step("Rotate", 9.0), step("Sharpness", 1.4)]),
}
"""Kind of step -> a program of it."""

RANGED: dict[str, np.ndarray] = {
    "Keras' affine map alone": step("Brightness", 1.0)[:0],
    "the same, then Rotate": step("Rotate", 9.0),
    "the same, then Sharpness": step("Sharpness", 1.4),
}
"""Kind of program -> what follows Keras' ranges in it."""

POLICIES: dict[str, Any] = {
    "RandAugment(), mean of 32 samples": gpuseq.RandAugment(),
    "TrivialAugmentWide(), mean of 32 samples": gpuseq.TrivialAugmentWide(),
    "RandomErasing with a value": gpuseq.RandomErasing(1.0, value=(1.0, 2.0, 3.0)),
    "RandomErasing with noise": gpuseq.RandomErasing(1.0, value="random"),
}


KINDS = (*STEPS, *RANGED, *POLICIES)
"""The table's lines."""


def _program(kind: str) -> np.ndarray:
    if (steps := STEPS.get(kind, RANGED.get(kind))) is not None:
        return steps[None] if len(steps) else np.zeros((1, 1), steps.dtype)
    recipe = Recipe.parse("augmentations", POLICIES[kind])
    assert recipe is not None
    return recipe.draw(np.arange(32), (SIDE, SIDE), seed=5, epoch=0)


def interpreted(kind: str) -> tuple[int, int]:
    """Return what a pixel takes of `prepare` and of `program`, RGB to float32 with channels first, rescaled."""
    program = _program(kind)
    found = []
    ranges = None
    if kind in RANGED:
        params = identity_params(1)
        params["theta"], params["tx"], params["zx"], params["zy"] = 9.0, 3.5, 0.9, 0.8
        levels = replace(EVERYDAY.unnormalised(), data_format="channels_last", dtype="uint8", round_affine=True)
        ranges = RangesFirst(params, levels)
    with pytest.MonkeyPatch.context() as patch:
        run = runner.install(patch, architecture=ARCHITECTURE)
        cuda_program.run_program(images((len(program), SIDE, SIDE, 3)), program, EVERYDAY, ranges=ranges)
        for kernel in ("prepare", "program"):
            found.append(round(run.steps_of[kernel] / (len(program) * SIDE * SIDE)))
    return found[0], found[1]


def table() -> str:
    """Return the part of the README between `BEGIN` and `END`."""
    major, minor = compiler.version()
    lines = [
        BEGIN,
        f"NVRTC {major}.{minor} with CuPy's options; PTX for {ARCHITECTURE}, images of {SIDE} x {SIDE}.",
        "",
        "| step | `prepare` | `program` |",
        "|---|--:|--:|",
    ]
    for kind in KINDS:
        prepared, finished = interpreted(kind)
        lines.append(f"| {kind} | {prepared or '–'} | {finished} |")
    return "\n".join([*lines, END])


def recorded(text: str) -> dict[str, tuple[int, int]]:
    """Read the table from the README's `text`: kind of step -> what `interpreted` returned."""
    found = {}
    for line in text[text.index(BEGIN) : text.index(END)].splitlines():
        if line.startswith("| ") and not line.startswith("| step"):
            kind, prepared, finished = (cell.strip() for cell in line.strip("|").split("|"))
            found[kind] = 0 if prepared == "–" else int(prepared), int(finished)
    return found
