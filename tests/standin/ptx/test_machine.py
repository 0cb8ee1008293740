"""Threads, barriers, memory: what a GPU would do wrong in silence is refused, and what is right is let through."""

from __future__ import annotations

import numpy as np
import pytest

from tests.standin.ptx import machine
from tests.standin.ptx.errors import LaunchError
from tests.standin.ptx.machine import Array, Grid
from tests.standin.ptx.probe import kernel, launch

SHARED = ".shared .align 16 .b8 own[512];\n"
START = "ld.param.u64 %rd0, [data]; mov.u32 %r0, %tid.x; mul.wide.u32 %rd1, %r0, 8; add.s64 %rd2, %rd0, %rd1;"
PLACE = "shl.b32 %r1, %r0, 2;\n mov.u32 %r2, own;\n add.s32 %r3, %r2, %r1;"
SCHEDULES = [{"schedule": "lockstep"}, *({"schedule": "random", "seed": seed} for seed in range(6))]
everyway = pytest.mark.parametrize("how", SCHEDULES, ids=str)


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.uint64)


# ---------------------------------------------------------------------------------------------------- threads
@everyway
def test_threads_know_their_place(how: dict[str, object]) -> None:
    data = zeros(2 * 3 * 40)
    body = (
        "ld.param.u64 %rd0, [data]; mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y;"
        "mov.u32 %r3, %nctaid.x; mov.u32 %r4, %ntid.x; mad.lo.s32 %r5, %r2, %r3, %r1; mad.lo.s32 %r6, %r5, %r4, %r0;"
        "mul.wide.s32 %rd1, %r6, 8; add.s64 %rd2, %rd0, %rd1; mov.u32 %r7, %laneid; mad.lo.s32 %r8, %r6, 100, %r7;"
        "st.global.u32 [%rd2], %r8; mov.u32 %r9, %nctaid.y; st.global.u32 [%rd2+4], %r9;"
    )
    launch(body, data, threads=40, blocks=(2, 3), **how)
    written = data.view(np.uint32).reshape(-1, 2)
    assert written[:, 0].tolist() == [100 * k + k % 40 % 32 for k in range(240)]
    assert (written[:, 1] == 3).all()


@everyway
def test_branches_part_and_meet(how: dict[str, object]) -> None:
    """Collatz: each thread takes a number of turns of its own, and both ways through each."""
    body = START + (
        "ld.global.u64 %rd3, [%rd2]; mov.u64 %rd4, 0;\n$LOOP: setp.eq.s64 %p1, %rd3, 1; @%p1 bra $END;"
        "and.b64 %rd5, %rd3, 1; setp.eq.s64 %p2, %rd5, 0; @%p2 bra $EVEN; mad.lo.s64 %rd3, %rd3, 3, 1; bra.uni $NEXT;"
        "\n$EVEN: shr.u64 %rd3, %rd3, 1;\n$NEXT: add.s64 %rd4, %rd4, 1; bra.uni $LOOP;"
        "\n$END: st.global.u64 [%rd2], %rd4;"
    )

    def turns(number: int) -> int:
        return 0 if number == 1 else 1 + turns(number // 2 if number % 2 == 0 else 3 * number + 1)

    data = np.arange(1, 71).astype(np.uint64)
    result = launch(body, data, threads=70, **how)
    assert data.tolist() == [turns(number) for number in range(1, 71)]
    assert result.counts.size
    assert result.thread_steps > 70 * 8
    assert result.counts.max() <= result.steps


def test_an_instruction_may_be_for_some_threads() -> None:
    data = zeros(32)
    launch(START + "setp.lt.u32 %p1, %r0, 5; @%p1 st.global.u64 [%rd2], 1; @!%p1 st.global.u64 [%rd2], 2;", data, 32)
    assert data.tolist() == [1] * 5 + [2] * 27


def test_some_threads_may_end_first() -> None:
    data = zeros(64)
    launch(START + "setp.lt.u32 %p1, %r0, 40; @%p1 ret; st.global.u64 [%rd2], 7;", data, 64)
    assert np.flatnonzero(data).tolist() == list(range(40, 64))


def test_an_endless_loop_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MAX_STEPS", 1000)
    with pytest.raises(LaunchError, match="has not ended after 1000 instructions"):
        launch("$LOOP: bra.uni $LOOP;", zeros(1))


def test_a_trap_is_a_fault() -> None:
    with pytest.raises(LaunchError, match=r"probe, PTX line 13, 'trap', block 0: it is a trap"):
        launch("trap;", zeros(1))


@pytest.mark.parametrize("threads", [0, 1025])
def test_blocks_of_a_size_that_was_not_compiled_for(threads: int) -> None:
    with pytest.raises(LaunchError, match=f"{threads} threads in a block, not 1 to 1024"):
        launch("", zeros(1), threads)


def test_arguments_are_those_of_the_kernel() -> None:
    with pytest.raises(TypeError, match="takes 1 arguments, not 2"):
        kernel("").launch(Grid((1,), 1), [np.uint64(0), np.uint64(0)], [])
    with pytest.raises(TypeError, match="data has 8 bytes, and the argument 4"):
        kernel("").launch(Grid((1,), 1), [np.uint32(0)], [])


def test_a_register_without_a_value_is_not_read() -> None:
    with pytest.raises(LaunchError, match="thread 3: it reads a register that nothing wrote"):
        launch(START + "setp.ne.u32 %p1, %r0, 3; @%p1 mov.u32 %r5, 1; add.s32 %r6, %r5, 1;", zeros(8), 8)
    launch(
        START
        + "mov.u32 %r6, %r5; selp.b32 %r8, %r6, %r5, %p1;".replace("%p1", "%p2").join(["setp.eq.u32 %p2, %r0, 0;", ""]),
        zeros(1),
    )


# ---------------------------------------------------------------------------------------------------- barriers
EXCHANGE = (
    START
    + PLACE
    + (
        "st.shared.u32 [%r3], %r0;{barrier} xor.b32 %r4, %r0, {other}; shl.b32 %r5, %r4, 2; add.s32 %r6, %r2, %r5;"
        "ld.shared.u32 %r7, [%r6]; st.global.u32 [%rd2], %r7;"
    )
)
"""Each thread takes what another one left."""


def exchange(barrier: str, other: int, **how: object) -> np.ndarray:
    data = zeros(64)
    launch(SHARED + EXCHANGE.format(barrier=barrier, other=other), data, 64, **how)
    return data


@everyway
@pytest.mark.parametrize(("barrier", "other"), [("bar.sync 0;", 33), ("bar.sync 0;", 1), ("bar.warp.sync -1;", 1)])
def test_barriers_put_accesses_in_order(barrier: str, other: int, how: dict[str, object]) -> None:
    assert exchange(barrier, other, **how).tolist() == [k ^ other for k in range(64)]


@everyway
@pytest.mark.parametrize(("barrier", "other"), [("", 1), ("", 33), ("bar.warp.sync -1;", 33)])
def test_without_them_there_is_a_race(barrier: str, other: int, how: dict[str, object]) -> None:
    problem = "a race: it (reads|writes) a byte that thread [0-9]+ of the grid (wrote|read)|nothing wrote"
    with pytest.raises(LaunchError, match=problem):
        exchange(barrier, other, **how)


SUMS = (
    START + "setp.eq.u32 %p1, %r0, 0; mov.u32 %r4, 0; @%p1 st.shared.u32 [own], %r4;{first} {add} [own], %r0;{second}"
    " ld.shared.u32 %r7, [own]; st.global.u32 [%rd2], %r7;"
)
"""Each thread adds its number to one place, and reads it."""


@everyway
@pytest.mark.parametrize("add", ["atom.shared.add.u32 %r9,", "red.shared.add.u32"])
def test_atomic_sums_need_barriers_before_and_after_alone(add: str, how: dict[str, object]) -> None:
    barrier = " bar.sync 0;"
    data = zeros(64)
    launch(SHARED + SUMS.format(first=barrier, add=add, second=barrier), data, 64, **how)
    assert data.tolist() == [64 * 63 // 2] * 64
    for first, second in ((barrier, ""), ("", barrier), (barrier, " bar.warp.sync -1;")):
        problem = "a race: it (reads|adds to|writes) a byte that .*, with no barrier between|nobody wrote"
        with pytest.raises(LaunchError, match=problem):
            launch(SHARED + SUMS.format(first=first, add=add, second=second), zeros(64), 64, **how)


def test_what_was_there_before_an_atomic_sum_has_no_value() -> None:
    """It depends on the order of the threads."""
    used = " add.s32 %r10, %r9, 1; bar.sync 0;"
    with pytest.raises(LaunchError, match="it reads a register that nothing wrote"):
        launch(SHARED + SUMS.format(first=" bar.sync 0;", add="atom.shared.add.u32 %r9,", second=used), zeros(64), 64)
    with pytest.raises(LaunchError, match="it adds to what nobody wrote"):
        launch(SHARED + START + "red.shared.add.u32 [own+4], %r0;", zeros(64), 64)


LAST = (
    START + "mov.u32 %r1, %ctaid.x; mad.lo.s32 %r2, %r1, 64, %r0; mul.wide.u32 %rd3, %r2, 8; add.s64 %rd4, %rd0, %rd3;"
    "st.global.u32 [%rd4], %r2;{written} setp.ne.u32 %p1, %r0, 0; @%p1 bra $TOLD;"
    "{shown} atom.global.add.u32 %r3, [%rd0+2560], 1;{seen} setp.eq.u32 %p2, %r3, 3; selp.u32 %r4, 1, 0, %p2;"
    "st.shared.u32 [own], %r4;\n$TOLD:{told} ld.shared.u32 %r5, [own]; setp.eq.u32 %p3, %r5, 0; @%p3 bra $END;"
    "ld.global.u32 %r6, [%rd2]; ld.global.u32 %r7, [%rd2+512]; add.s32 %r8, %r6, %r7;"
    "ld.global.u32 %r6, [%rd2+1024]; add.s32 %r8, %r8, %r6; ld.global.u32 %r7, [%rd2+1536]; add.s32 %r8, %r8, %r7;"
    "st.global.u32 [%rd2+2048], %r8;\n$END:"
)
"""Each thread of four blocks leaves a number; the block that draws the last ticket adds up what all have left."""

BARRIER, FENCE = " bar.sync 0;", " membar.gl;"
TOLD = {"written": BARRIER, "shown": FENCE, "seen": FENCE, "told": BARRIER}


def last_block(**changed: object) -> np.ndarray:
    data = zeros(5 * 64 + 1)
    pieces = {name: changed.pop(name, piece) for name, piece in TOLD.items()}
    launch(SHARED + LAST.format(**pieces), data, 64, blocks=(4,), **changed)
    return data


@everyway
def test_the_last_block_sees_what_the_others_wrote(how: dict[str, object]) -> None:
    assert last_block(**how)[256:].tolist() == [4 * k + 64 * 6 for k in range(64)] + [4]


@everyway
@pytest.mark.parametrize("name", TOLD)
def test_without_a_fence_or_a_barrier_it_may_not(name: str, how: dict[str, object]) -> None:
    with pytest.raises(LaunchError, match="a race: it (reads|writes) a byte that .*|nothing wrote"):
        last_block(**{name: ""}, **how)


@everyway
@pytest.mark.parametrize(("name", "piece"), [("written", FENCE), ("told", FENCE), ("shown", " bar.warp.sync -1;")])
def test_nor_with_the_one_for_the_other(name: str, piece: str, how: dict[str, object]) -> None:
    with pytest.raises(LaunchError, match="a race: it (reads|writes) a byte that .*|nothing wrote|never come here"):
        last_block(**{name: piece}, **how)


@everyway
def test_a_fence_shows_what_came_before_it_alone(how: dict[str, object]) -> None:
    """What a block writes after the fence and before it draws its ticket is not shown."""
    late = " st.global.u32 [%rd4], %r2;"
    assert last_block(shown=FENCE, written=late + BARRIER, **how)[320] == 4
    with pytest.raises(LaunchError, match="a race: it reads a byte that"):
        last_block(shown=FENCE + late, **how)


def test_the_watch_may_be_taken_away() -> None:
    """In lockstep a warp does by chance what was meant."""
    assert exchange("", 1, watches_races=False).tolist() == [k ^ 1 for k in range(64)]


TWO_READERS = (
    SHARED
    + START
    + PLACE
    + (
        "setp.eq.u32 %p1, %r0, {first}; @%p1 st.shared.u32 [own], 5; bar.sync 0; ld.shared.u32 %r4, [own]; {between}"
        "setp.eq.u32 %p2, %r0, {last}; @%p2 st.shared.u32 [own], 6;"
    )
)


@everyway
@pytest.mark.parametrize(
    ("between", "is_race"),
    [
        ("", True),
        ("bar.sync 0;", False),
        ("bar.warp.sync -1;", True),
        ("bar.warp.sync -1; @%p2 ld.shared.u32 %r5, [own];", True),
    ],
)
def test_what_several_read_is_not_overwritten(between: str, is_race: bool, how: dict[str, object]) -> None:
    body = TWO_READERS.format(first=0, last=40, between="setp.eq.u32 %p2, %r0, 40;" + between)
    if is_race:
        with pytest.raises(LaunchError, match=r"it writes a byte that .* read|it reads a byte that thread 40"):
            launch(body, zeros(64), 64, **how)
    else:
        launch(body, zeros(64), 64, **how)


def test_a_warps_own_barrier_is_enough_for_a_warp() -> None:
    body = TWO_READERS.format(
        first=0, last=3, between="bar.warp.sync -1; setp.eq.u32 %p3, %r0, 3; @%p3 ld.shared.u32 %r5, [own];"
    )
    launch(body, zeros(32), 32)


def test_two_threads_write_one_byte() -> None:
    with pytest.raises(LaunchError, match="thread 1: a race: it writes a byte that thread 0 of the grid wrote"):
        launch(SHARED + "st.shared.u32 [own], 1;", zeros(1), 2)


def test_blocks_are_never_in_order() -> None:
    body = "ld.param.u64 %rd0, [data]; bar.sync 0; st.global.u64 [%rd0], 1;"
    launch(body, zeros(1), 1)
    with pytest.raises(
        LaunchError, match="block 1, thread 0: a race: it writes a byte that thread 0 of the grid wrote"
    ):
        launch(body, zeros(1), 1, blocks=(2,))


@everyway
def test_a_barrier_that_not_all_reach(how: dict[str, object]) -> None:
    body = START + "setp.lt.u32 %p1, %r0, 3; @%p1 bra $A; bar.sync 0; ret;\n$A: bar.sync 0;"
    with pytest.raises(LaunchError, match="threads of the block wait at two different barriers"):
        launch(body, zeros(64), 64, **how)
    with pytest.raises(LaunchError, match="it waits at a barrier, and threads of its block have ended"):
        launch(START + "setp.lt.u32 %p1, %r0, 3; @%p1 ret; bar.sync 0;", zeros(64), 64, **how)
    with pytest.raises(LaunchError, match="it waits for lanes of its warp that never come here"):
        launch(START + "setp.lt.u32 %p1, %r0, 3; @%p1 ret; bar.warp.sync -1;", zeros(64), 64, **how)


def test_a_mask_that_leaves_lanes_out_is_not_supported() -> None:
    with pytest.raises(LaunchError, match="its mask leaves out lanes of the warp: not supported"):
        launch("bar.warp.sync 255;", zeros(1), 32)
    launch("bar.warp.sync 255;", zeros(1), 8)


@everyway
def test_lanes_exchange_values(how: dict[str, object]) -> None:
    body = START + (
        "shfl.sync.bfly.b32 %r4, %r0, 5, 31, -1; shfl.sync.down.b32 %r5|%p1, %r0, 30, 31, -1;"
        "shfl.sync.up.b32 %r6, %r0, 3, 0, -1; shfl.sync.idx.b32 %r7, %r0, 9, 31, -1; setp.lt.u32 %p2, %r0, 4;"
        "vote.sync.ballot.b32 %r8, %p2, -1; vote.sync.any.pred %p3, %p2, -1; vote.sync.all.pred %p4, !%p2, -1;"
        "selp.b32 %r9, 1, 0, %p3; selp.b32 %r10, 2, 0, %p4; add.s32 %r11, %r9, %r10;"
        "mad.lo.s32 %r12, %r4, 100, %r5; mad.lo.s32 %r13, %r12, 100, %r6; mad.lo.s32 %r14, %r13, 100, %r7;"
        "st.global.u32 [%rd2], %r14; mad.lo.s32 %r15, %r8, 10, %r11; st.global.u32 [%rd2+4], %r15;"
    )
    data = zeros(32)
    launch(body, data, 32, **how)
    expected = [
        (((k ^ 5) * 100 + (k + 30 if k < 2 else k)) * 100 + (k - 3 if k > 2 else k)) * 100 + 9 for k in range(32)
    ]
    written = data.view(np.uint32).reshape(-1, 2)
    assert written[:, 0].tolist() == expected
    assert (written[:, 1] == 151).all(), "four lanes say yes: any, and not all say no"


# ---------------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize(
    ("access", "problem"),
    [
        ("ld.global.u32 %r4, [%rd0+32];", "bytes 32 to 35 of an array of 32|lies in no array"),
        ("ld.global.u64 %rd4, [%rd0+28];", "no multiple of 8"),
        ("ld.global.v2.u64 {%rd4, %rd5}, [%rd0+24];", "no multiple of 16|bytes 24 to 39 of an array of 32"),
        ("ld.global.u32 %r4, [%rd0+-4];", "lies in no array"),
        ("st.global.u8 [%rd0+32], 1;", "lies in no array"),
        ("mov.u64 %rd4, 0; ld.global.u8 %rs1, [%rd4];", "address 0 lies in no array"),
        ("ld.shared.u32 %r4, [own+512];", "bytes 512 to 515 of 512 of shared memory"),
        ("ld.shared.u32 %r4, [own+-4];", "of 512 of shared memory"),
        ("ld.shared.u32 %r4, [own+2];", "no multiple of 4"),
        ("ld.global.nc.u32 %r4, [%rd0];", "as if that never changed"),
        ("ld.shared.u32 %r4, [own]; add.s32 %r5, %r4, 1;", "loaded from what nobody wrote"),
    ],
)
def test_accesses_that_are_refused(access: str, problem: str) -> None:
    data = np.zeros(8, np.uint64)[2:6]
    if data.ctypes.data % 16:
        data = np.zeros(9, np.uint64)[3:7]
    with pytest.raises(LaunchError, match=problem):
        launch(SHARED + START + access, data)


def test_what_a_launch_only_reads_is_not_written() -> None:
    data = np.array([5, 0], np.uint64)
    program = kernel(
        "ld.param.u64 %rd0, [data]; ld.param.u64 %rd1, [to]; ld.global.u64 %rd2, [%rd0]; st.global.u64 [%rd1], %rd2;",
        ".param .u64 data, .param .u64 to",
    )
    arrays = [Array(data.ctypes.data, 8), Array(data.ctypes.data + 8, 8, True)]
    program.launch(Grid((1,), 1), [np.uint64(one.address) for one in arrays], arrays)
    assert data[1] == 5
    with pytest.raises(LaunchError, match="it writes to an array that the launch only reads"):
        program.launch(Grid((1,), 1), [np.uint64(one.address) for one in arrays[::-1]], arrays)
    with pytest.raises(LaunchError, match="two arrays overlap"):
        program.launch(
            Grid((1,), 1), [np.uint64(one.address) for one in arrays], [*arrays, Array(data.ctypes.data, 16)]
        )


def test_vectors_signs_and_widths() -> None:
    data = zeros(6)
    data[:2] = np.array([-1, -2, 3, -4], np.int32).view(np.uint64)
    launch(
        "ld.param.u64 %rd0, [data]; ld.global.v4.u32 {%r0, _, %r2, %r3}, [%rd0];"
        "st.global.v2.u32 [%rd0+16], {%r2, %r0}; ld.global.s8 %r4, [%rd0]; st.global.u32 [%rd0+24], %r4;"
        "ld.global.u8 %r5, [%rd0]; st.global.u32 [%rd0+28], %r5;"
        "ld.global.s32 %rd5, [%rd0+4]; st.global.u64 [%rd0+32], %rd5; ld.global.u16 %rs1, [%rd0+12];"
        "cvt.u64.u16 %rd6, %rs1; st.global.u64 [%rd0+40], %rd6;",
        data if data.ctypes.data % 16 == 0 else (data := np.concatenate([zeros(1), data])[1:]),
    )
    assert data[2:4].view(np.int32).tolist() == [3, -1, -1, 255]
    assert data.view(np.int64)[4:].tolist() == [-2, 0xFFFC]


def test_generic_addresses_reach_both_memories() -> None:
    data = zeros(2)
    body = (
        "ld.param.u64 %rd0, [data]; mov.u64 %rd1, own; cvta.shared.u64 %rd2, %rd1; st.u32 [%rd2+4], 9;"
        "ld.shared.u32 %r0, [own+4]; ld.u32 %r1, [%rd2+4]; add.s32 %r2, %r0, %r1; cvta.global.u64 %rd3, %rd0;"
        "st.u32 [%rd3], %r2; cvta.to.shared.u64 %rd4, %rd2; ld.shared.u32 %r3, [%rd4+4];"
        "cvta.to.global.u64 %rd5, %rd3; st.global.u32 [%rd5+8], %r3;"
    )
    launch(SHARED + body, data)
    assert data.tolist() == [18, 9]


def test_dynamic_shared_memory_begins_after_the_blocks_own() -> None:
    data = zeros(1)
    before = ".extern .shared .align 16 .b8 more[];"
    body = SHARED + (
        "ld.param.u64 %rd0, [data]; mov.u32 %r0, more; st.shared.u32 [more+12], %r0; ld.shared.u32 %r1, [%r0+12];"
        "st.global.u32 [%rd0], %r1;"
    )
    launch(body, data, before=before, dynamic_bytes=16)
    assert data[0] == 512
    with pytest.raises(LaunchError, match="bytes 524 to 527 of 524 of shared memory"):
        launch(body, data, before=before, dynamic_bytes=12)


def test_a_load_may_ask_for_more_than_it_uses() -> None:
    body = SHARED + (
        "setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [own], 3; @!%p1 st.shared.u32 [own+4], 4; {pragma}"
        "ld.shared.v2.u32 {{%r4, %r5}}, [own]; selp.b32 %r6, %r4, %r5, %p1;"
    )
    with pytest.raises(LaunchError, match="a race: it reads"):
        launch(START + body.format(pragma=""), zeros(64), 2)
    with pytest.raises(LaunchError, match="thread 1: a race: it reads a byte that thread 0"):
        launch(START + body.format(pragma='.pragma "used_bytes_mask 15";'), zeros(64), 2)
    launch(START + body.format(pragma='.pragma "used_bytes_mask 15";'), zeros(64), 1)


def test_a_modules_variables_are_there_and_are_only_read() -> None:
    data = zeros(1)
    before = ".global .align 8 .u64 table[2] = {7, 8};"
    launch(
        "ld.param.u64 %rd0, [data]; mov.u64 %rd1, table; cvta.global.u64 %rd2, %rd1; cvta.to.global.u64 %rd3, %rd2;"
        "ld.global.u64 %rd4, [%rd3+8]; ld.global.u64 %rd5, [table]; add.s64 %rd6, %rd4, %rd5;"
        "st.global.u64 [%rd0], %rd6;",
        data,
        before=before,
    )
    assert data[0] == 15
    with pytest.raises(LaunchError, match="only reads"):
        launch("st.global.u64 [table], 1;", data, before=before)


def test_an_address_in_shared_memory_wraps_at_32_bits() -> None:
    """A pointer from below the beginning of an array, which compilers make of a loop that counts down."""
    data = zeros(1)
    launch(
        ".shared .align 8 .b8 block[64]; ld.param.u64 %rd0, [data]; mov.u32 %r0, block; st.shared.u32 [%r0+20], 7;"
        "add.s32 %r1, %r0, -1000; ld.shared.u32 %r2, [%r1+1020]; cvt.u64.u32 %rd1, %r2; st.global.u64 [%rd0], %rd1;",
        data,
    )
    assert data[0] == 7


@everyway
def test_each_thread_has_local_memory_of_its_own(how: dict[str, object]) -> None:
    data = zeros(40)
    body = (
        ".local .align 8 .b8 depot[24]; .reg .b64 %SP; .reg .b64 %SPL; mov.b64 %SPL, depot; cvta.local.u64 %SP, %SPL;"
        "st.local.u32 [%SPL+8], %r0; st.u32 [%SP+12], 7; ld.u32 %r1, [%SP+8]; ld.local.u32 %r2, [depot+12];"
        "cvta.to.local.u64 %rd5, %SP; ld.local.u32 %r3, [%rd5+8]; add.s32 %r4, %r1, %r2; add.s32 %r5, %r4, %r3;"
        "st.global.u32 [%rd2], %r5;"
    )
    launch(START + body, data, 40, **how)
    assert data.tolist() == [2 * k + 7 for k in range(40)]
    for access, problem in (
        ("ld.local.u32 %r1, [depot+24];", "bytes 24 to 27 of 24 of local memory"),
        ("ld.local.u32 %r1, [depot+16]; add.s32 %r2, %r1, 1;", "loaded from what nobody wrote"),
    ):
        with pytest.raises(LaunchError, match=problem):
            launch(START + body + access, zeros(40), 40)
