"""Runs part of the catalogue with kernels built under AddressSanitizer and UndefinedBehaviorSanitizer.

A program of its own: the sanitizer's runtime has to be loaded before Python. `test_sanitizers` starts it.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

import gpuseq
from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import program as ops_cuda_program
from gpuseq.ops.cuda import resize as ops_cuda_resize
from gpuseq.ops.options import AugmentOptions, RangesFirst
from gpuseq.plan.policies.recipe import Recipe
from tests.cases import draw_params
from tests.ops.cuda.catalogue import CASES
from tests.standin import host_runner
from tests.standin.host_runner import Launch

# Not optimised: every access of the text is looked at, and none is left out as needless.
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")

AUGMENT = (
    *("moves_0_wrap", "moves_1_constant", "moves_1_reflect", "affine_1_nearest", "source_uint8_float64"),
    *("layout_first_first_19", "channels_8", "out_float16", "out_uint8_first", "rounded_1_constant"),
    *("brightness_stretched", "everything", "standardize"),
)


def main(overrun: bool) -> None:
    """Run the cases; with `overrun`, read one image past the end, which has to be fatal."""
    with pytest.MonkeyPatch.context() as patch:
        host_runner.install(patch, Launch(None, reverse=True), FLAGS)
        if overrun:
            run = next(CASES["copy"].runs())
            ops_cuda.augment(run.images.copy(), run.params, CASES["copy"].options, indices=np.array([len(run.images)]))
            return
        num_runs = 0
        for name in AUGMENT:
            case = CASES[name]
            for run in case.runs(num_seeds=1):
                if case.standardize_only:
                    ops_cuda.standardize(run.images.copy(), case.options, run.statistics)
                else:
                    ops_cuda.augment(
                        run.images.copy(), run.params, case.options, indices=run.indices, statistics=run.statistics
                    )
                num_runs += 1
        for interpolation in ("nearest", "box", "lanczos"):
            for channels in (3, 4):
                images = [np.full((h, w, channels), 200, np.uint8) for h, w in ((1, 1), (31, 23), (9, 40))]
                boxes = np.array([(0, 0, 1, 1), (0.5, 20, 23, 31), (3, 0, 40, 8.25)], np.float32)
                ops_cuda_resize.resize(images, (7, 9), interpolation)
                ops_cuda_resize.resize(images, (30, 41), interpolation, boxes=boxes)
                num_runs += 2
        recipe = Recipe.parse(
            "augmentations", [gpuseq.RandAugment(4, 14, interpolation="bilinear"), gpuseq.GaussianBlur(3)]
        )
        erasing = Recipe.parse("augmentations", gpuseq.RandomErasing(1.0, value="random"))
        assert recipe is not None
        assert erasing is not None
        for channels in (1, 3, 4):
            for height, width in ((3, 2), (17, 9)):
                images = np.full((3, height, width, channels), 77, np.uint8)
                ids, size = np.arange(40), (height, width)
                steps = recipe.draw(ids, size, seed=1, epoch=0), erasing.draw(ids, size, seed=1, epoch=0)
                program, options = np.concatenate(steps, axis=1), AugmentOptions(rescale=0.5)
                ops_cuda_program.run_program(images, program, options, indices=ids % 3)
                num_runs += 1
        images, options = np.full((3, 17, 9, 3), 77, np.uint8), AugmentOptions(rescale=0.5)
        steps = recipe.draw(np.arange(40), (17, 9), seed=1, epoch=0)
        levels = AugmentOptions(dtype="uint8", fill_mode="constant", has_channel_shift=False, round_affine=True)
        ranges = RangesFirst(draw_params(40, 17, 9, colour=True), levels)
        ops_cuda_program.run_program(images, steps, options, indices=np.arange(40) % 3, ranges=ranges)
        num_runs += 1
        print(f"{num_runs} runs under the sanitizers")


if __name__ == "__main__":
    main("--overrun" in sys.argv)
