"""AugMix of chains beside what timm does with Pillow: weighted sums in float32, blended with the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from gpuseq.ops import dispatch as ops
from gpuseq.ops.options import AugmentOptions
from tests.compare import assert_same
from tests.ops.pillow_steps import step


@pytest.mark.each_cpu_engine
@pytest.mark.parametrize("num_chains", [1, 2, 3, 4, 5])
def test_as_many_chains_as_there_are_weights(num_chains: int) -> None:
    rng = np.random.default_rng(num_chains)
    batch = rng.integers(0, 256, (2, 9, 13, 3), np.uint8)
    weights = rng.dirichlet(np.ones(num_chains)).astype(np.float32).tolist()
    share, thresholds = 0.6, [30 + 45 * number for number in range(num_chains)]
    rows = [step("AugMix", share, num_chains, *weights)]
    for number, threshold in enumerate(thresholds, 1):
        rows += [step("Solarize", threshold), step("HorizontalFlip")]
        for row in rows[-2:]:
            row["chain"] = number
    program = np.concatenate(rows)[None].repeat(2, axis=0)
    got = ops.run_program(batch, program, AugmentOptions(dtype="uint8"))
    for sample, picture in enumerate(map(Image.fromarray, batch)):
        mixed = np.zeros(batch.shape[1:], np.float32)
        for weight, threshold in zip(weights, thresholds, strict=True):
            mixed += weight * np.asarray(ImageOps.mirror(ImageOps.solarize(picture, threshold)), np.float32)
        wanted = Image.blend(picture, Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)), share)
        assert_same(got[sample], np.asarray(wanted))
