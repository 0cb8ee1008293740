"""Registers, spills and instructions of the usual variants, from the code that NVRTC makes with CuPy's options.

``python -m tests.ops.cuda.counts`` prints the table, and that of `tests.ops.cuda.program_counts`; ``--write`` puts them
into ``kernels/README.md``, and ``--digests`` prints what tells whether a variant's code changed at all. Needs NVRTC and
nvdisasm, no GPU and no driver.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpuseq.ops.cuda import augment as ops_cuda
from gpuseq.ops.cuda import compile as kernels
from gpuseq.ops.cuda import program as cuda_program
from gpuseq.ops.options import AugmentOptions
from tests.ops.cuda.sass import Listing, Work, num_double

__all__ = [
    "ARCHITECTURES",
    "README",
    "Counts",
    "Row",
    "count",
    "disassembler",
    "nvrtc_version",
    "recorded",
    "recorded_digests",
    "rows",
]

README = Path(__file__).resolve().parents[3] / "kernels" / "README.md"
ARCHITECTURES = ("sm_80", "sm_90")
BEGIN, END = "<!-- counts: python -m tests.ops.cuda.counts --write -->", "<!-- end of counts -->"
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
"""What CuPy adds to whatever it compiles."""

DIGESTED = ("RGB, channels first", "RGB, channels last")
"""Rows whose machine code is recorded, too: variants of generators without augmentations."""

BATCH = (256, 224, 224)
"""Samples, rows and columns of the launch that is counted as a whole."""

WARPS = ops_cuda.MAX_BLOCK // 32
EVERYDAY = AugmentOptions(
    data_format="channels_first", has_channel_shift=False, has_brightness=False, rescale=1 / 255, fill_mode="nearest"
)


@dataclass(frozen=True)
class Row:
    """One variant of the table.

    Attributes
    ----------
    what : str
        Its name there.
    kernel : str
        Key of `gpuseq.ops.cuda.compile.SIGNATURES`.
    macros : Macros
        The variant.
    work : Work
        What tells a pixel inside the image from any other; nothing where there is no one way to count.
    rounds : tuple of int or None
        How often a thread goes round the loops about that work, innermost first, in a launch over `BATCH`; None where
        the launch depends on the images.
    block, dynamic_bytes : int
        Threads of a block, and its dynamic shared memory.
    at_once : int
        Pixels of a thread that one round of the innermost loop does.
    """

    what: str
    kernel: str
    macros: kernels.Macros
    work: Work
    rounds: tuple[int, ...] | None
    block: int = ops_cuda.MAX_BLOCK
    dynamic_bytes: int = 0
    at_once: int = 1


@dataclass(frozen=True)
class Counts:
    """What is counted of a variant on one architecture.

    Attributes
    ----------
    registers : int
        Of a thread.
    spilled : int
        Bytes that are stored to and loaded from local memory, as the assembler counts them.
    inside : int or None
        Instructions for a pixel inside the image, or for one value of it where its channels have a loop of their own.
    double : int or None
        How many of these compute in double.
    local : int or None
        How many of these read or write local memory, where what is spilled lies.
    threads : int
        That a multiprocessor holds at once, for its registers and its shared memory.
    launch : int or None
        Instructions of the whole launch, divided by its pixels.
    digest : str
        Of the machine code.
    """

    registers: int
    spilled: int
    inside: int | None
    double: int | None
    local: int | None
    threads: int
    launch: int | None
    digest: str


def rows() -> list[Row]:
    """Return the variants in the order of the table."""
    found: list[Row] = []

    def add(
        what: str,
        options: AugmentOptions,
        *,
        kernel: str = "augment",
        dtype: str = "uint8",
        channels: int = 3,
        reads: int = 4,
        also: Work = (),
        rounds: tuple[int, ...] = (),
    ) -> None:
        statistics = options.featurewise_center, options.featurewise_std
        variant = ops_cuda._variant(options, np.dtype(dtype), channels, True, *statistics)
        geometry = ops_cuda._geometry(*BATCH, variant.tile_cols, variant.sample_range is not None)
        across = variant.tile_cols * geometry.groups_across
        down = geometry.rows_per_band // (geometry.block // across)
        together = channels if channels <= 4 else 1  # channels that one round reads
        macros = getattr(variant, kernel)
        load = {"uint8": "LDG.E.U8*", "float32": "LDG.E"}[dtype]  # the table's are LDG.E.64
        work = [(load, reads * together), *also]
        if reads == 4 and ("IN_WORDS", "1") in macros:
            work[0] = ("LDG.E", {3: 6, 4: 4}[channels])
        if kernel == "augment":
            work.append(("STG*", together))
        staged = variant.pixel_bytes * geometry.block if variant.is_staged and kernel == "augment" else 0
        rounds = (*rounds, down, BATCH[2] // across)
        found.append(Row(what, kernel, macros, work, rounds, geometry.block, staged))

    add("RGB, channels first", EVERYDAY)
    add("a sample in it that asks for nothing", EVERYDAY, reads=1)
    add("the same without an affine map", replace(EVERYDAY, has_affine=False), reads=1)
    last = replace(EVERYDAY, data_format="channels_last")
    add("RGB, channels last", last)
    add("a sample in it that asks for nothing", last, reads=1)
    add("the same without an affine map", replace(last, has_affine=False), reads=1)
    for fill_mode in ("constant", "reflect", "wrap"):
        add(f"fill mode {fill_mode}", replace(EVERYDAY, fill_mode=fill_mode))  # type: ignore[arg-type]
    add("order 0", replace(EVERYDAY, order=0), reads=1, also=[("DADD", 2)])
    add("float16 batch", replace(EVERYDAY, dtype="float16"))
    add("uint8 batch", replace(EVERYDAY, dtype="uint8", rescale=1.0))
    add("uint8 batch, channels last", replace(last, dtype="uint8", rescale=1.0))
    add("float32 source", EVERYDAY, dtype="float32")
    add("float64 batch", replace(EVERYDAY, dtype="float64"))
    add("grey", EVERYDAY, channels=1)
    add("RGBA", EVERYDAY, channels=4)
    add("19 channels, one of them", EVERYDAY, channels=19, also=[("DADD", 4)], rounds=(19,))
    shifted = [("FADD*", 3), ("FRND*", 6)]  # what a sample without them would leave out
    colour = replace(EVERYDAY, has_channel_shift=True, has_brightness=True)
    add("channel shift and brightness", colour, also=shifted)
    add("its range", colour, kernel="sample_range")
    add("channel shift and brightness, channels last", replace(colour, data_format="channels_last"), also=shifted)
    everything = replace(
        colour,
        **dict.fromkeys(("samplewise_center", "samplewise_std", "featurewise_center", "featurewise_std"), True),
    )
    add("and all normalisations", everything, also=shifted)
    add("its moments", everything, kernel="sample_moments", also=shifted)
    for channels in (3, 4):
        macros = (("CHANNELS", str(channels)),)
        four: Work = [("LDG.E", 4), ("LDG.E.U8*", 4 * channels)]  # the weights are whole words; the loop is unrolled
        found.append(Row(f"resize, {channels} channels, four taps", "resample_pass", macros, four, None))
        whole: Work = [*four, ("STG*", channels)]
        found.append(Row(f"resize, {channels} channels, a pixel of four taps", "resample_pass", macros, whole, None))
    # A round of a plain segment does four pixels: in words where they stay in place, in bytes where not.
    for what, options, channels, load, pixels in (
        ("augmentations, none of them: a copy", EVERYDAY, 3, "LD.E", 4),
        ("the same, channels last, uint8 batch", replace(last, dtype="uint8", rescale=1.0), 3, "LD.E", 4),
        ("the same, grey", EVERYDAY, 1, "LD.E", 4),
        ("a segment that moves four pixels, without its steps", EVERYDAY, 3, "LD.E.U8", 4),
        ("a segment of one step, without the step", EVERYDAY, 3, "LD.E.U8", 1),
    ):
        macros = cuda_program._macros(options, channels, False, False)
        values = channels * pixels if load == "LD.E.U8" else channels
        work = [(load, values), ("STG*", values)]
        a_unit = cuda_program.UNIT_PIXELS // cuda_program.PROGRAM_BLOCK // pixels
        found.append(Row(what, "program", macros, work, (a_unit, 1), cuda_program.PROGRAM_BLOCK, at_once=pixels))
    macros = cuda_program._macros(EVERYDAY, 3, False, False)
    found.append(Row("intermediate images and looks at them", "prepare", macros, (), None, cuda_program.PREPARE_BLOCK))
    ranges = replace(EVERYDAY.unnormalised(), data_format="channels_last", dtype="uint8", round_affine=True)
    first = cuda_program._macros(EVERYDAY, 3, False, False, ranges)
    found.append(Row("a segment after Keras' ranges", "program", first, (), None, cuda_program.PROGRAM_BLOCK))
    found.append(Row("intermediate images after Keras' ranges", "prepare", first, (), None, cuda_program.PREPARE_BLOCK))
    erased: Work = [("LDG.E.64*", 6), ("STG*", 1)]
    found.append(Row("a value erased", "erase", macros, erased, None, cuda_program.PROGRAM_BLOCK))
    return found


def disassembler() -> str | None:
    """Return the path of nvdisasm: of the package ``nvidia-cuda-nvdisasm``, else of the search path."""
    try:
        files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("nvdisasm", "nvdisasm.exe") and (path := Path(str(file.locate()))).is_file():
            return str(path)
    return shutil.which("nvdisasm")


def nvrtc_version() -> str:
    """Return the compiler's version, ``"13.0"``."""
    from cupy.cuda import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def compiled(kernel: str, macros: kernels.Macros, architecture: str) -> tuple[Listing, str]:
    """Return the machine code of a variant and the assembler's own words about it."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(kernels.pasted_source(kernels.SIGNATURES[kernel][0], macros), f"{kernel}.cu", [], [])
    options = [*kernels.COMPILE_OPTIONS, *CUPY_OPTIONS, f"-arch={architecture}", "--ptxas-options=-v"]
    try:
        nvrtc.compileProgram(program, options)
        # CuPy takes the last byte for the end of a string; the file ends with a zero.
        cubin, words = nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)
    tool = disassembler()
    if tool is None:
        raise FileNotFoundError("nvdisasm is missing. Install it with: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        run = subprocess.run([tool, "-c", "-hex", str(path)], capture_output=True, text=True, check=True)
    return Listing(run.stdout, kernel), words.partition(f"entry function '{kernel}'")[2].partition("entry function")[0]


def count(row: Row, architecture: str) -> Counts:
    """Compile one variant for one architecture and count."""
    listing, words = compiled(row.kernel, row.macros, architecture)
    registers = re.search(r"Used (\d+) registers", words)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", words)
    assert registers is not None
    assert spilled is not None
    shared = shared_bytes(words) + row.dynamic_bytes
    threads = num_threads(int(registers[1]), row.block, shared, architecture)
    taken = int(registers[1]), int(spilled[1]) + int(spilled[2])
    if not row.work:
        return Counts(*taken, None, None, None, threads, None, listing.digest)
    heads = listing.nest(row.work)
    inside = listing.once_round(row.work, heads[0])
    launch = None
    if row.rounds is not None:
        rounds = (*row.rounds, *(1,) * (len(heads) - len(row.rounds)))
        # One warp of a block makes the sample's numbers and its rows' terms; the others go by.
        first_warp = [*row.work, ("STS*", listing.most("STS*", row.work))]
        further = listing.whole(first_warp, (), ()).total() - listing.whole(row.work, (), ()).total()
        total = listing.whole(row.work, heads, rounds).total() + further / WARPS
        launch = round(total / (row.rounds[-1] * row.rounds[-2] * row.at_once))
    inside = [inside.total(), num_double(inside), inside["LDL"] + inside["STL"]]
    return Counts(*taken, *(round(each / row.at_once) for each in inside), threads, launch, listing.digest)


def shared_bytes(words: str) -> int:
    """Return the static shared memory of a block, from what the assembler says of a kernel."""
    said = re.search(r"(\d+) bytes smem", words)
    return int(said[1]) if said else 0


def num_threads(registers: int, block: int, shared: int, architecture: str) -> int:
    """Return how many threads a multiprocessor holds at once.

    Registers are dealt out to warps by 256, that is 8 for a thread, from 65,536; shared memory to blocks by 128 bytes,
    and 1 KB more for each.

    Parameters
    ----------
    registers : int
        Of a thread.
    block : int
        Threads of a block.
    shared : int
        Bytes of shared memory of a block.
    architecture : str
        One of `ARCHITECTURES`.

    References
    ----------
    NVIDIA, CUDA C++ Programming Guide, "Compute Capabilities", technical specifications.
    """
    blocks = min(2048 // block, 32, 65536 // (-(-registers // 8) * 8 * block))
    return block * min(blocks, _SHARED_BYTES[architecture] // (-(-shared // 128) * 128 + 1024))


_SHARED_BYTES = {"sm_80": 164 << 10, "sm_90": 228 << 10}

HEADINGS = (
    *("registers", "spilled bytes", "threads at once", "a pixel inside"),
    *("of these in double", "in local memory", "the whole launch, by pixel"),
)


def cells(counts: Counts) -> tuple[int | None, ...]:
    """Return the numbers in the order of `HEADINGS`."""
    numbers = counts.registers, counts.spilled, counts.threads, counts.inside, counts.double, counts.local
    return *numbers, counts.launch


def _written(number: int | None) -> str:
    return "–" if number is None else str(number)


def table() -> str:
    """Return the part of the README between `BEGIN` and `END`."""
    lines = [
        BEGIN,
        f"NVRTC {nvrtc_version()} with CuPy's options; {' / '.join(ARCHITECTURES)} where they differ.",
        "",
        "| variant | kernel | " + " | ".join(HEADINGS) + " |",
        "|---|---|" + "--:|" * len(HEADINGS),
    ]
    for row in rows():
        of_each = zip(*(cells(count(row, architecture)) for architecture in ARCHITECTURES), strict=True)
        numbers = [" / ".join(dict.fromkeys(map(_written, several))) for several in of_each]
        lines.append(f"| {row.what} | `{row.kernel}` | " + " | ".join(numbers) + " |")
    return "\n".join([*lines, "", _digests(), END])


def _digests() -> str:
    """Return the line that records the machine code of `DIGESTED`."""
    by_name = {row.what: row for row in reversed(rows()) if row.what in DIGESTED}
    said = []
    for what in DIGESTED:
        row = by_name[what]
        codes = (compiled(row.kernel, row.macros, architecture)[0].digest for architecture in ARCHITECTURES)
        said.append(f"{what}: " + " / ".join(f"`{code}`" for code in codes))
    return f"Digests of the machine code without augmentations: {'; '.join(said)}."


def recorded_digests() -> dict[str, list[str]]:
    """Read the line of `_digests`: name of a row -> a digest for each architecture."""
    line = next(line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("Digests of"))
    found = {}
    for part in line.partition("augmentations: ")[2].rstrip(".").split("; "):
        what, _, codes = part.partition(": ")
        found[what] = re.findall(r"`(\w+)`", codes)
    return found


def recorded() -> tuple[str, list[tuple[str, str, list[list[int | None]]]]]:
    """Read the README's table: the compiler's version, then (what, kernel, numbers by architecture) of each row."""
    text = README.read_text(encoding="utf-8")
    part = text[text.index(BEGIN) : text.index(END)]
    version = re.search(r"NVRTC ([\d.]+) with", part)
    assert version is not None
    found = []
    for line in part.splitlines():
        if not line.startswith("| ") or line.startswith("| variant"):
            continue
        what, kernel, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        by_column: list[list[Any]] = []
        for cell in numbers:
            several = [None if each == "–" else int(each) for each in cell.split(" / ")]
            by_column.append(several if len(several) == len(ARCHITECTURES) else several * len(ARCHITECTURES))
        found.append((what, kernel.strip("`"), [list(each) for each in zip(*by_column, strict=True)]))
    return version[1], found


def main(arguments: list[str] | None = None) -> None:
    """Print or write what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.ops.cuda.counts", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {README.name}")
    parser.add_argument("--digests", action="store_true", help="print a digest of each variant's machine code")
    asked = parser.parse_args(arguments)
    if asked.digests:
        for row in rows():
            digests = (compiled(row.kernel, row.macros, each)[0].digest for each in ARCHITECTURES)
            print(*digests, f"{row.kernel}: {row.what}")
        return
    from tests.ops.cuda import program_counts

    made = [(table(), BEGIN, END), (program_counts.table(), program_counts.BEGIN, program_counts.END)]
    text = README.read_text(encoding="utf-8")
    for part, begin, end in made:
        text = text[: text.index(begin)] + part + text[text.index(end) + len(end) :]
    if asked.write:
        README.write_text(text, encoding="utf-8")
    else:
        print("\n\n".join(part for part, _, _ in made))


if __name__ == "__main__":
    main()
