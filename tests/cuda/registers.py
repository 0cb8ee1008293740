"""Prints the table of ``kernels/README.md``: what nvcc says of the usual variants. Needs nvcc, no GPU.

Run it with ``python -m tests.cuda.registers``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpuseq import kernels, ops_cuda
from gpuseq.options import AugmentOptions

ARCHITECTURES = ("sm_80", "sm_90")
EVERYDAY = AugmentOptions(
    data_format="channels_first", has_channel_shift=False, has_brightness=False, rescale=1 / 255, fill_mode="nearest"
)


def rows() -> list[tuple[str, str, kernels.Macros]]:
    """Return (what, kernel, macros)."""
    found = []

    def add(what: str, kernel: str, options: AugmentOptions, dtype: str = "uint8", channels: int = 3) -> None:
        statistics = options.featurewise_center, options.featurewise_std
        variant = ops_cuda._variant(options, np.dtype(dtype), channels, True, *statistics)
        found.append((what, kernel, getattr(variant, kernel)))

    add("RGB, channels first", "augment", EVERYDAY)
    add("the same, channels last", "augment", replace(EVERYDAY, data_format="channels_last"))
    for fill_mode in ("constant", "reflect", "wrap"):
        add(f"fill mode {fill_mode}", "augment", replace(EVERYDAY, fill_mode=fill_mode))  # type: ignore[arg-type]
    add("order 0", "augment", replace(EVERYDAY, order=0))
    add("float16 batch", "augment", replace(EVERYDAY, dtype="float16"))
    add("uint8 batch", "augment", replace(EVERYDAY, dtype="uint8", rescale=1.0))
    add("float32 source", "augment", EVERYDAY, "float32")
    add("float64 batch", "augment", replace(EVERYDAY, dtype="float64"))
    add("grey", "augment", EVERYDAY, channels=1)
    add("19 channels", "augment", EVERYDAY, channels=19)
    everything = replace(
        EVERYDAY,
        **dict.fromkeys(("has_channel_shift", "has_brightness", "samplewise_center", "samplewise_std"), True),
        **dict.fromkeys(("featurewise_center", "featurewise_std"), True),
    )
    add("channel shift, brightness, all normalisations", "augment", everything)
    add("its range", "sample_range", everything)
    add("its moments", "sample_moments", everything)
    for channels in (3, 4):
        found.append((f"resize, {channels} channels", "resample_pass", (("CHANNELS", str(channels)),)))
    return found


def measure(kernel: str, macros: kernels.Macros, architecture: str) -> tuple[int, int]:
    """Return registers per thread and bytes spilled (stores and loads)."""
    file = kernels.SIGNATURES[kernel][0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.cu")
        source.write_text(kernels.pasted_source(file, macros))
        # As CuPy compiles them: -ftz=true is its own addition.
        flags = ["-std=c++17", "--fmad=false", "-ftz=true", f"-arch={architecture}", "-Xptxas=-v"]
        command = ["nvcc", *flags, "-cubin"]
        run = subprocess.run(
            [*command, "-o", str(Path(folder, "out")), str(source)], capture_output=True, text=True, check=True
        )
    own = run.stderr.partition(f"entry function '{kernel}'")[2].partition("entry function")[0]
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", own)
    registers = re.search(r"Used (\d+) registers", own)
    assert spilled is not None
    assert registers is not None
    return int(registers[1]), int(spilled[1]) + int(spilled[2])


def main() -> None:
    """Print the table."""
    print("| variant | kernel | " + " | ".join(f"{name}: registers, spilled bytes" for name in ARCHITECTURES) + " |")
    print("|---|---|" + "---|" * len(ARCHITECTURES))
    for what, kernel, macros in rows():
        cells = [", ".join(map(str, measure(kernel, macros, architecture))) for architecture in ARCHITECTURES]
        print(f"| {what} | `{kernel}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
