"""A sample that asks for nothing costs what a copy costs: its loads, its stores, and next to nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.options import AugmentOptions
from tests.cases import identity, images
from tests.ops.cuda import counts
from tests.standin.ptx import compiler, runner

pytestmark = pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")

SIDE, SAMPLES = 64, 2
WARPS = SAMPLES * SIDE * SIDE // 32
"""That it takes to visit every pixel once: no patch of 8 x 4 is cut off."""

COLOUR = replace(counts.EVERYDAY, has_channel_shift=True, has_brightness=True)


def last(options: AugmentOptions) -> AugmentOptions:
    return replace(options, data_format="channels_last")


def executed(options: AugmentOptions, **asked: Any) -> tuple[int, dict[str, Counter[str]]]:
    """Run a batch of samples that ask for `asked` only.

    Returns
    -------
    instructions : int
        Of all threads of all launches.
    by_kernel : dict
        Kernel -> how often warps ran each opcode, without what says how its result is rounded.
    """
    params = identity(SAMPLES)
    for name, value in asked.items():
        params[name] = value
    with pytest.MonkeyPatch.context() as patch:
        run = runner.install(patch)
        ops_cuda.augment(images((SAMPLES, SIDE, SIDE, 3)), params, options)
        variant = ops_cuda._variant(options, np.dtype(np.uint8), 3, True, False, False)
        found = {}
        for name, macros in (("sample_range", variant.sample_range), ("augment", variant.augment)):
            if macros is not None:
                source = kernels.pasted_source(kernels.SIGNATURES[name][0], macros)
                code = runner.program(source, kernels.COMPILE_OPTIONS, name, run.architecture).code
                found[name] = Counter[str]()
                for instruction, times in zip(
                    code.kernel.instructions, run.counts[name, len(code.rows)].tolist(), strict=True
                ):
                    found[name][instruction.opcode] += times
        return run.thread_steps, found


def of(opcodes: Counter[str], *prefixes: str, suffix: str = "") -> int:
    return sum(times for opcode, times in opcodes.items() if opcode.startswith(prefixes) and opcode.endswith(suffix))


@pytest.mark.parametrize("options", [counts.EVERYDAY, last(counts.EVERYDAY)], ids=["first", "last"])
def test_instructions(options: AugmentOptions) -> None:
    nothing, by_kernel = executed(options)
    copied, plain = executed(replace(options, has_affine=False))
    turned, _ = executed(options, theta=10.0)
    assert nothing < 1.2 * copied
    assert nothing < 0.5 * turned
    for opcodes in (by_kernel["augment"], plain["augment"]):
        assert of(opcodes, "ld.global", suffix="u8") == 3 * WARPS
        assert of(opcodes, "st.global") == 3 * WARPS
    # What is computed in double is the map that is not used: once in a block.
    geometry = ops_cuda._geometry(SAMPLES, SIDE, SIDE, 8, False)
    assert of(by_kernel["augment"], "add", "sub", "mul", "fma", suffix="f64") < 60 * SAMPLES * geometry.num_bands
    assert of(plain["augment"], "add", "sub", "mul", "fma", suffix="f64") == 0


def test_a_range_that_nobody_asks_for_is_not_looked_for() -> None:
    with_colours, _ = executed(COLOUR, brightness=1.2)
    nothing, by_kernel = executed(COLOUR)
    assert of(by_kernel["sample_range"], "ld.global", suffix="u8") == 0
    assert nothing < 0.55 * with_colours
    for asked in ({"brightness": 1.2}, {"channel_shift_intensity": 3.0}):
        _, looked = executed(COLOUR, **asked)
        assert of(looked["sample_range"], "ld.global", suffix="u8") == 3 * WARPS


@pytest.mark.skipif(counts.disassembler() is None, reason="nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("architecture", counts.ARCHITECTURES)
def test_machine_code(architecture: str) -> None:
    """Of a kernel that can turn images, the way of a sample that is not turned beside a kernel that only copies."""
    names = ("a sample in it that asks for nothing", "the same without an affine map")
    found = [row for row in counts.rows() if row.what in names]
    assert [row.what for row in found] == [*names, *names]  # channels first, channels last
    for nothing, copied in (found[:2], found[2:]):
        one, other = (counts.count(row, architecture) for row in (nothing, copied))
        assert one.launch is not None
        assert other.launch is not None
        assert one.launch <= other.launch + 3
        assert (one.double, one.local) == (0, 0)
