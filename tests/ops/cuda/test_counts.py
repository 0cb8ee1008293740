"""The machine code of everyday variants costs what `kernels/README.md` says; the counting itself is tested first."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.ops.cuda import counts, program_counts
from tests.ops.cuda.sass import Listing, num_double
from tests.standin.ptx import compiler

pytest.importorskip("cupy.cuda")

HELD = (
    "RGB, channels first",
    "a sample in it that asks for nothing",
    "RGB, channels last",
    "float16 batch",
    "channel shift and brightness",
    "its range",
    "resize, 3 channels, a pixel of four taps",
    "augmentations, none of them: a copy",
    "a segment of one step, without the step",
    "intermediate images and looks at them",
)
ROOM = 0.03
ROOM_OF_ANOTHER_COMPILER = 0.10


def listing(body: str) -> Listing:
    """Number the lines of a body as nvdisasm does; a line that ends with a colon is a label."""
    lines, address = [".text.other:", "        /*0000*/  NOP ;   /* 0x0000000000000000 */", ".text.kernel:"], 0
    for line in body.splitlines():
        if line.endswith(":"):
            lines.append(line.strip())
        elif line.strip():
            lines.append(f"        /*{address:04x}*/   {line.strip()} ;   /* 0x{address:016x} */")
            lines.append(f"                     /* 0x{1:016x} */")
            address += 16
    return Listing("\n".join([*lines, "$function:", "        /*0000*/  DADD ;   /* 0x0000000000000000 */"]), "kernel")


NEST = """
    S2R R1, SR_TID.X
    @P1 BRA `(.L_x_0)
    STS [R1], R2
    STS [R1], R3
    FADD R1, R1, R1
.L_x_0:
    MOV R3, R4
.L_x_1:
    MOV R4, R5
.L_x_2:
    LDG.E.U8 R5, [R6]
    @!P0 BRA P2, `(.L_x_3)
    DADD R5, R5, R5
    DSETP.LT P0, R5, R6
.L_x_3:
    @P3 CALL.REL.NOINC `($division)
    @P4 BRA `(.L_x_5)
    STG.E [R6], R5
.L_x_5:
    @P0 BRA `(.L_x_2)
    @!P0 BRA `(.L_x_1)
    EXIT
.L_x_9:
    BRA `(.L_x_9)
"""


def test_the_shortest_way_that_does_the_work_is_found() -> None:
    kernel = listing(NEST)
    assert len(kernel.instructions) == 18
    work = [("LDG*", 1), ("STG*", 1)]
    heads = kernel.nest(work)
    assert len(heads) == 2
    once = kernel.once_round(work, heads[0])
    assert once == Counter(LDG=1, BRA=3, CALL=1, STG=1)  # by the jump over the two in double
    assert num_double(once) == 0
    careful = kernel.once_round([*work, ("DADD", 1)], heads[0])
    assert num_double(careful) == 2
    assert careful.total() == once.total() + 2
    assert kernel.once_round([("LDG*", 1)], heads[0])["STG"] == 0


def test_a_launch_goes_round_each_loop_as_often_as_is_said() -> None:
    kernel = listing(NEST)
    work = [("LDG*", 1), ("STG*", 1)]
    heads = kernel.nest(work)
    inner, outer = (kernel.once_round(work, head).total() for head in heads)
    assert (inner, outer) == (6, 8)  # the outer loop's own two, and the inner one once
    once = kernel.whole(work, (), ())
    assert once.total() == 12
    assert kernel.whole(work, heads, (1, 1)) == once
    assert kernel.whole(work, heads, (5, 3)).total() == 12 + 2 * 8 + 3 * 4 * 6
    assert kernel.most("STS", work) == 2
    assert kernel.whole([*work, ("STS", 2)], (), ()).total() == 12 + 3


def test_a_jump_table_leads_to_each_of_its_targets() -> None:
    kernel = listing(NEST.replace("BRA P2, `(.L_x_3)", 'BRX R2 -0x30 (*"BRANCH_TARGETS .L_x_3,.L_x_5"*)'))
    heads = kernel.nest([("LDG*", 1)])
    assert kernel.once_round([("LDG*", 1)], heads[0])["STG"] == 0
    assert kernel.once_round([("LDG*", 1), ("STG*", 1)], heads[0])["STG"] == 1
    with pytest.raises(ValueError, match="a jump without a target: BRX R2"):
        listing(NEST.replace("BRA P2, `(.L_x_3)", "BRX R2"))


def test_what_no_way_does_is_named() -> None:
    kernel = listing(NEST)
    with pytest.raises(ValueError, match=r"no loop of the kernel does \{'LDG\*': 2\}"):
        kernel.nest([("LDG*", 2)])
    with pytest.raises(ValueError, match="no code of a kernel 'kernel'"):
        Listing("", "kernel")


@pytest.mark.skipif(counts.disassembler() is None, reason="nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
def test_a_digest_changes_with_the_code() -> None:
    assert listing(NEST).digest == listing(NEST).digest
    assert listing(NEST).digest != listing(NEST.replace("    MOV R3, R4\n", "")).digest
    grey, colour = (row for row in counts.rows() if row.what in ("grey", "RGBA"))
    digests = {counts.compiled(row.kernel, row.macros, "sm_90")[0].digest for row in (grey, colour, grey)}
    assert len(digests) == 2


def test_the_table_has_a_line_for_each_variant() -> None:
    _, found = counts.recorded()
    assert [(what, kernel) for what, kernel, _ in found] == [(row.what, row.kernel) for row in counts.rows()]


@pytest.mark.skipif(counts.disassembler() is None, reason="nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("architecture", counts.ARCHITECTURES)
@pytest.mark.parametrize("what", HELD)
def test_an_everyday_variant_costs_what_the_table_says(what: str, architecture: str) -> None:
    version, found = counts.recorded()
    rows = counts.rows()
    at = next(number for number, row in enumerate(rows) if row.what == what)
    is_same = counts.nvrtc_version() == version
    room = ROOM if is_same else ROOM_OF_ANOTHER_COMPILER
    said = found[at][2][counts.ARCHITECTURES.index(architecture)]
    counted = counts.count(rows[at], architecture)
    now = counts.cells(counted)
    remedy = "python -m tests.ops.cuda.counts --write, if that is meant"
    if what in counts.DIGESTED and is_same:
        # Who asks for no augmentations has this code, whatever is added for them to the texts that are shared.
        digest = counts.recorded_digests()[what][counts.ARCHITECTURES.index(architecture)]
        assert counted.digest == digest, f"the code has changed ({remedy})"
    for heading, was, value in zip(counts.HEADINGS, said, now, strict=True):
        if was is None or value is None:
            assert was == value, heading
        elif heading in ("registers", "spilled bytes", "in local memory"):
            if is_same:
                assert value <= was, f"{heading} ({remedy})"
        elif heading == "threads at once":
            if is_same:
                assert value >= was, f"{heading} ({remedy})"
        else:
            assert abs(value - was) <= room * was, f"{heading}: {was} became {value} ({remedy})"


def test_the_recorded_kernels_fill_a_multiprocessor_as_before_they_were_made_leaner() -> None:
    """Threads that fit, by registers: what the variants took before, on both architectures."""
    before = {
        "the same without an affine map": (32, 36),
        "order 0": (48, 48),
        "resize, 3 channels, four taps": (48, 32),
    }
    before |= {"float16 batch": (64, 63), "float32 source": (63, 56), "grey": (57, 56)}
    headings = {heading: at for at, heading in enumerate(counts.HEADINGS)}
    for what, kernel, by_architecture in counts.recorded()[1]:
        for at, (architecture, numbers) in enumerate(zip(counts.ARCHITECTURES, by_architecture, strict=True)):
            registers, threads = numbers[headings["registers"]], numbers[headings["threads at once"]]
            was = before[what][at] if what in before else 64
            assert threads is not None
            assert registers is not None
            if kernel != "prepare":
                assert threads >= counts.num_threads(was, 256, 0, architecture), what
                assert registers <= -(-was // 8) * 8, what


@pytest.mark.parametrize(
    ("registers", "block", "shared", "threads"),
    [
        *((32, 256, 0, 2048), (33, 256, 0, 1536), (40, 256, 0, 1536), (41, 256, 0, 1280), (48, 256, 0, 1280)),
        *((49, 256, 0, 1024), (56, 256, 0, 1024), (57, 256, 0, 1024), (64, 256, 0, 1024), (65, 256, 0, 768)),
        *((32, 32, 0, 1024), (32, 128, 40_000, 512), (64, 256, 3184, 1024)),
    ],
)
def test_threads_at_once(registers: int, block: int, shared: int, threads: int) -> None:
    """As NVIDIA's table of occupancy has it for compute capability 8.0."""
    assert counts.num_threads(registers, block, shared, "sm_80") == threads


@pytest.mark.skipif(not compiler.is_installed(), reason="NVRTC is not installed")
@pytest.mark.parametrize("kind", program_counts.KINDS)
def test_a_step_costs_what_the_table_says(kind: str) -> None:
    said = program_counts.recorded(counts.README.read_text(encoding="utf-8"))
    assert tuple(said) == program_counts.KINDS
    room = ROOM if counts.nvrtc_version() == counts.recorded()[0] else ROOM_OF_ANOTHER_COMPILER
    for was, value in zip(said[kind], program_counts.interpreted(kind), strict=True):
        assert abs(value - was) <= room * was, f"{was} became {value} (tests.ops.cuda.counts --write)"
