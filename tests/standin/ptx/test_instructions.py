"""Every instruction of the catalogue computes what PTX says, to the bit: against exact arithmetic, not against C++."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.standin.ptx.encode import FLAGS
from tests.standin.ptx.errors import LaunchError
from tests.standin.ptx.machine import Entry, catalogue
from tests.standin.ptx.oracle import WIDTHS, expected, is_float, same
from tests.standin.ptx.probe import launch, probe

MOVING = ("ld", "st", "atom", "red", "pack", "unpack", "cvta", "mov")
FLOWING = ("bar", "barrier", "membar", "bra", "ret", "exit", "trap", "shfl", "vote")
"""What has no formula: `test_memory`, `test_machine` and the tests below run these."""

COMPUTING = {
    base: [entry for entry in entries if entry.name != "mov.pred"]
    for base, entries in itertools.groupby(catalogue().values(), lambda entry: entry.name.split(".")[0])
    if base not in MOVING + FLOWING
}

_EDGES = (
    *(
        "0",
        "0x1p-149",
        "0x1.fffffcp-127",
        "0x1p-126",
        "0x1.fffffep-126",
        "1",
        "0x1.000002p0",
        "0.5",
        "1.5",
        "2.5",
        "0xff",
    ),
    *("0x1p23", "0x1.fffffep23", "0x1p24", "0x1p31", "0x1.fffffep30", "0x1p32", "0x1.fffffep31", "0x1p63", "0x1p64"),
    *("0x1.fffffep62", "0x1.fffffep63", "0x1.fffffep127", "inf", "nan"),
)
"""What is a float32, too."""

_WIDE_EDGES = (
    *("0x1p-1074", "0x1p-1022", "0x0.fffffffffffffp-1022", "0x1.0000000000001p0", "0x1p52", "0x1.0000000000001p52"),
    *("0x1.fffffffcp30", "0x1.fffffffep31", "0x1.fffffffffffffp62", "0x1.fffffffffffffp1023", "0x1.ffffffp127"),
    *("0x1.fffffefp127", "0x1p-150", "0x1.0000000000001p-150", "0x1.fffffffcp-127", "0x1.0000010000000p0"),
)
"""What is not: among them the ends of the integers and of float32, and the middles between two float32."""

EDGES = {
    "f16": np.array([0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0x7E00], np.uint16).view(np.float16),
    "f32": np.array([float.fromhex(text) for text in _EDGES], np.float32),
    "f64": np.array([float.fromhex(text) for text in (*_EDGES, *_WIDE_EDGES)]),
}


def values(kind: str, count: int, seed: int) -> np.ndarray:
    """Return bits of a type: its edges with both signs, whole and half numbers, near neighbours, and noise."""
    rng = np.random.default_rng([seed, len(kind), WIDTHS[kind]])
    width = WIDTHS[kind]
    if kind == "pred":
        return rng.integers(0, 2, count).astype(np.uint64)
    noise = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    if kind in EDGES:
        edges = EDGES[kind]
        small = (rng.integers(-2000, 2000, count // 4) / 4).astype(edges.dtype)
        near = small + rng.integers(-3, 4, small.size).astype(small.dtype) * np.spacing(small)
        floats = np.concatenate([edges, -edges, small, near])
        written = [floats.view(f"u{width // 8}").astype(np.uint64)]
    else:
        top = 1 << width - 1
        edges = [*(0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256), *(top - 1, top, top + 1, 2 * top - 1)]
        written = [np.array(edges, np.uint64), rng.integers(0, 70, count // 4).astype(np.uint64)]
    made = np.concatenate([*written, noise])[: 2 * count] & np.uint64((1 << width) - 1)
    return rng.permutation(made)[:count]


def spellings(entry: Entry) -> list[str]:
    """Return every way in which an instruction may be written: with each rounding, flushing and saturation."""
    base, *rest = entry.name.split(".")
    kinds = [one for one in rest if one in WIDTHS]
    words = [one for one in rest if one not in kinds]
    allowed = {name for name, flag in FLAGS.items() if entry.flags & flag}
    joins = ["", *sorted(allowed & {"and", "or", "xor"})]
    if base == "cvt":
        roundings = _of_conversion(kinds, allowed)
    else:
        roundings = ["", *sorted(allowed & {"rn", "rz", "rm", "rp"})]
    written = []
    for join, rounding, ftz, sat in itertools.product(joins, roundings, ("", "ftz"), ("", "sat")):
        if {ftz, sat} - {""} <= allowed:
            written.append(".".join(filter(None, [base, *words, join, rounding, ftz, sat, *kinds])))
    return written


def _of_conversion(kinds: list[str], allowed: set[str]) -> list[str]:
    to, source = kinds
    whole = sorted(allowed & {"rni", "rzi", "rmi", "rpi"})
    if whole:
        return whole if to != source else ["", *whole]
    return sorted(allowed & {"rn", "rz", "rm", "rp"}) or [""]


@pytest.mark.parametrize("base", COMPUTING)
def test_equals_exact_arithmetic(base: str) -> None:
    for entry in COMPUTING[base]:
        results, _, sources = entry.operands.partition("=")
        kinds = [one for one in entry.name.split(".") if one in WIDTHS]
        for opcode in spellings(entry):
            taken = sources + ("p" if set(opcode.split(".")) & {"and", "or", "xor"} and base == "setp" else "")
            operands = np.stack([values(_type(kind, kinds, k, base), 120, k) for k, kind in enumerate(taken)])
            if base in ("div", "rem") and not is_float(kinds[-1]):
                operands[1][operands[1] == 0] = 1  # the other way is tried below
            got = probe(opcode, results, taken, operands)
            for column, bits in zip(operands.T.tolist(), got.tolist(), strict=True):
                wanted, kind = expected(opcode, column)
                shown = f"{opcode} {', '.join(map(hex, column))} -> {bits:#x}, not {wanted:#x}"
                assert same(bits & ((1 << WIDTHS[kind]) - 1), wanted, kind), shown


def _type(kind: str, kinds: list[str], position: int, base: str) -> str:
    """Return the type to draw an operand from."""
    if kind == "p":
        return "pred"
    if base == "mad" and position == 2:
        return {"h": "u16", "w": "u32", "d": "u64"}[kind]
    own = kinds[-1]
    is_own = WIDTHS[own] == {"b": 8, "h": 16, "w": 32, "d": 64}[kind.lower()]
    return own if is_own and not (base in ("shl", "shr", "bfe", "bfi") and position) else "u32"


@pytest.mark.parametrize("opcode", ["div.s32", "div.u64", "rem.s16", "rem.u32"])
def test_a_division_by_zero_is_no_number(opcode: str) -> None:
    kind = {"16": "h", "32": "w", "64": "d"}[opcode[-2:]]
    with pytest.raises(LaunchError, match="it divides by zero"):
        probe(opcode, kind, kind * 2, np.array([[7], [0]], np.uint64))


def test_fused_sums_where_the_two_roundings_differ() -> None:
    """Random operands seldom show it: here a product rounded by itself would lose what the sum needs."""
    rng = np.random.default_rng(5)
    a, b = rng.uniform(1, 2, (2, 2000))
    c = -(a * b)
    operands = np.stack([a, b, c]).view(np.uint64)
    got = probe("fma.rn.f64", "d", "ddd", operands)
    wanted = [expected("fma.rn.f64", column)[0] for column in operands.T.tolist()]
    assert got.tolist() == wanted
    assert np.count_nonzero(got.view(np.float64)) > 1900, "an unfused sum would be zero everywhere"


def test_every_float_becomes_the_half_that_numpy_makes_of_it() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    floats = halves.view(np.float16).astype(np.float32)
    finite = np.isfinite(floats)
    middles = ((floats[finite][:-1].astype(np.float64) + floats[finite][1:]) / 2).astype(np.float32)
    around = (np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf))
    tried = np.concatenate([floats[finite], middles, *around])
    got = probe("cvt.rn.f16.f32", "h", "w", tried.view(np.uint32).astype(np.uint64)[None])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got.astype(np.uint16), tried.astype(np.float16).view(np.uint16))
    back = probe("cvt.f32.f16", "w", "h", halves[finite].astype(np.uint64)[None])
    np.testing.assert_array_equal(back.astype(np.uint32), floats[finite].view(np.uint32))


def test_a_comparison_may_give_its_negation_too() -> None:
    data = np.array([3, 9, 0, 0], np.uint64)
    launch(
        "ld.param.u64 %rd0, [data]; ld.global.u64 %rd1, [%rd0]; ld.global.u64 %rd2, [%rd0+8];"
        "setp.lt.u64 %p1|%p2, %rd1, %rd2; setp.eq.and.u64 %p3|%p4, %rd1, %rd1, !%p1;"
        "selp.b64 %rd3, 1, 0, %p1; selp.b64 %rd4, 2, 0, %p2; selp.b64 %rd5, 4, 0, %p3; selp.b64 %rd6, 8, 0, %p4;"
        "or.b64 %rd3, %rd3, %rd4; or.b64 %rd3, %rd3, %rd5; or.b64 %rd3, %rd3, %rd6; st.global.b64 [%rd0+16], %rd3;",
        data,
    )
    assert data[2] == 1, "less; not not less; equal and not less is no; not equal and not less is no"


def test_registers_go_apart_and_together() -> None:
    data = np.array([0x1122334455667788, 0, 0, 0], np.uint64)
    launch(
        "ld.param.u64 %rd0, [data]; ld.global.b64 %fd1, [%rd0]; mov.b64 {%r1, %r2}, %fd1; mov.b64 %rd2, {%r2, %r1};"
        "st.global.b64 [%rd0+8], %rd2; { .reg .b32 %temp; mov.b64 {%temp, %r3}, %fd1; } st.global.b32 [%rd0+16], %r3;"
        "mov.b64 {_, %r4}, %fd1; mov.b32 {%rs1, %rs2}, %r4; mov.b32 %r5, {%rs2, %rs1}; st.global.b32 [%rd0+24], %r5;"
        "mov.b32 %f1, 0f3F800000; mov.b32 %r6, %f1; st.global.b32 [%rd0+28], %r6;",
        data,
    )
    assert [hex(value) for value in data[1:3]] == ["0x5566778811223344", "0x11223344"]
    assert data[3:].view(np.uint32).tolist() == [0x33441122, 0x3F800000]


def test_the_oracle_knows_every_instruction() -> None:
    """What is added to the machine gets its test by itself, or this fails."""
    tested = {entry.name for entries in COMPUTING.values() for entry in entries}
    rest = {name for name in catalogue() if name not in tested and name.split(".")[0] not in MOVING + FLOWING}
    assert not rest
    assert len(tested) > 250
