"""The machine code of everyday variants costs what `kernels/README.md` says; the counting itself is tested first."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.ops.cuda import counts
from tests.ops.cuda.sass import Listing, num_double

pytest.importorskip("cupy.cuda")

HELD = (
    "RGB, channels first",
    "a sample in it that asks for nothing",
    "RGB, channels last",
    "float16 batch",
    "channel shift and brightness",
    "its range",
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
    room = ROOM if counts.nvrtc_version() == version else ROOM_OF_ANOTHER_COMPILER
    at = next(number for number, row in enumerate(counts.rows()) if row.what == what)
    said = found[at][2][counts.ARCHITECTURES.index(architecture)]
    now = counts.cells(counts.count(counts.rows()[at], architecture))
    for heading, was, value in zip(counts.HEADINGS, said, now, strict=True):
        assert was is not None
        assert value is not None
        if heading in ("registers", "spilled bytes") and room == ROOM:
            assert value <= was, heading
        elif heading != "spilled bytes":
            remedy = "python -m tests.ops.cuda.counts --write, if that is meant"
            assert abs(value - was) <= room * was, f"{heading}: {was} became {value} ({remedy})"
