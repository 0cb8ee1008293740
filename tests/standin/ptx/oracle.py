"""What each instruction of PTX should compute, in Python's exact numbers: the oracle of `test_instructions`.

Floats are rounded here by their definition, from fractions, and share nothing with the machine's C++.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

__all__ = ["WIDTHS", "bits_of", "expected", "is_float", "same", "value_of"]

WIDTHS = {"pred": 1, **{f"{kind}{bits}": bits for kind in "busf" for bits in (8, 16, 32, 64)}}
_FORMATS = {"f16": ("<e", "<H"), "f32": ("<f", "<I"), "f64": ("<d", "<Q")}
_PRECISION = {"f16": (11, -14, 15), "f32": (24, -126, 127), "f64": (53, -1022, 1023)}


def is_float(kind: str) -> bool:
    """Return whether a type is a float."""
    return kind in _FORMATS


def value_of(bits: int, kind: str) -> Any:
    """Return the number that the low bits of a register are."""
    width = WIDTHS[kind]
    bits &= (1 << width) - 1
    if is_float(kind):
        as_float, as_int = _FORMATS[kind]
        return struct.unpack(as_float, struct.pack(as_int, bits))[0]
    return bits - (1 << width) if kind[0] == "s" and bits >> (width - 1) else bits


def bits_of(value: Any, kind: str) -> int:
    """Return the bits of a number; a NaN is the one that a GPU makes."""
    if not is_float(kind):
        return int(value) & ((1 << WIDTHS[kind]) - 1)
    if math.isnan(value):
        return {"f16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": 0x7FF8000000000000}[kind]
    as_float, as_int = _FORMATS[kind]
    return int(struct.unpack(as_int, struct.pack(as_float, value))[0])


def same(got: int, wanted: int, kind: str) -> bool:
    """Return whether two results are the same bits; the payload of a double NaN is free."""
    if kind == "f64" and math.isnan(value_of(wanted, kind)):
        return math.isnan(value_of(got, kind))
    return got == wanted


def _rounded(exact: Fraction, kind: str, mode: str = "rn") -> float:
    """Return a number, which is not zero, rounded to a format."""
    precision, least, most = _PRECISION[kind]
    size, is_negative = abs(exact), exact < 0
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** (max(exponent, least) - precision + 1)
    steps, rest = divmod(size / step, 1)
    away = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and steps % 2 == 1),
        "rz": False,
        "rm": is_negative and rest > 0,
        "rp": not is_negative and rest > 0,
    }[mode]
    size = (steps + away) * step
    largest = (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** most
    if size > largest:
        grows = mode == "rn" or mode == ("rm" if is_negative else "rp")
        return math.copysign(math.inf if grows else float(largest), -1 if is_negative else 1)
    return math.copysign(float(size), -1 if is_negative else 1)


def _flushed(value: Any, kind: str) -> Any:
    return math.copysign(0.0, value) if kind == "f32" and 0 < abs(value) < 2.0**-126 else value


def _sum(a: float, b: float, kind: str, mode: str, exact: Fraction | None = None) -> float:
    """Return a + b, or `exact` in its place: then `a` says the sign of a product."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a + b
    total = Fraction(a) + Fraction(b) if exact is None else exact
    if total:
        return _rounded(total, kind, mode)
    if a == 0 and b == 0 and math.copysign(1, a) == math.copysign(1, b):
        return a
    return -0.0 if mode == "rm" else 0.0


def _product(a: float, b: float, kind: str, mode: str) -> float:
    if not (math.isfinite(a) and math.isfinite(b)) or not a or not b:
        return a * b
    return _rounded(Fraction(a) * Fraction(b), kind, mode)


def _fused(a: float, b: float, c: float, kind: str, mode: str) -> float:
    if not all(map(math.isfinite, (a, b, c))):
        return math.nan if math.isnan(a * b) else c if math.isfinite(a) and math.isfinite(b) else a * b + c
    sign = math.copysign(1, a) * math.copysign(1, b)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return _sum(math.copysign(0.0, sign) if not a * b and not (a and b) else sign, c, kind, mode, exact)


def _quotient(a: float, b: float, kind: str, mode: str) -> float:
    if math.isnan(a) or math.isnan(b) or (math.isinf(a) and math.isinf(b)) or (not a and not b):
        return math.nan
    sign = math.copysign(1, a) * math.copysign(1, b)
    if math.isinf(a) or not b:
        return math.copysign(math.inf, sign)
    if math.isinf(b) or not a:
        return math.copysign(0.0, sign)
    return _rounded(Fraction(a) / Fraction(b), kind, mode)


def _root(a: float, kind: str, mode: str) -> float:
    if not a or math.isnan(a) or a == math.inf:
        return a
    if a < 0:
        return math.nan
    exact, places = Fraction(a), 1200  # binary; more than any root of a double needs
    scaled = exact.numerator * 4**places // exact.denominator
    root = math.isqrt(scaled)
    is_exact = root * root == scaled and exact.numerator * 4**places % exact.denominator == 0
    # Where it does not end, any number between it and the next of so many places is rounded alike.
    return _rounded(Fraction(2 * root + (not is_exact), 2 << places), kind, mode)


def _extreme(a: Any, b: Any, kind: str, sign: int) -> Any:
    if is_float(kind):
        if math.isnan(a) or math.isnan(b):
            return b if math.isnan(a) else a
        if a == b == 0:
            return sign * 0.0 if math.copysign(1, a) != math.copysign(1, b) else a
    return max(a, b) if sign > 0 else min(a, b)


FLOATS: dict[str, Callable[..., float]] = {
    "add": _sum,
    "sub": lambda a, b, kind, mode: _sum(a, -b, kind, mode),
    "mul": _product,
    "div": _quotient,
    "fma": _fused,
    "sqrt": _root,
    "rcp": lambda a, kind, mode: _quotient(1.0, a, kind, mode),
    "neg": lambda a, kind, mode: -a,
    "abs": lambda a, kind, mode: abs(a),
    "min": lambda a, b, kind, mode: _extreme(a, b, kind, -1),
    "max": lambda a, b, kind, mode: _extreme(a, b, kind, 1),
}


def _towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _field(a: int, start: int, count: int, kind: str) -> int:
    width, start, count = WIDTHS[kind], start & 255, count & 255
    last = min(start + count - 1, width - 1)
    fill = kind[0] == "s" and count > 0 and a >> last & 1
    return sum(((a >> start + bit & 1) if start + bit < width else fill) << bit for bit in range(min(count, width))) | (
        -1 << min(count, width) if fill else 0
    )


def _with_field(field: int, into: int, start: int, count: int, kind: str) -> int:
    start, count = start & 255, count & 255
    mask = ((1 << count) - 1) << start
    return (into & ~mask) | (field << start & mask)


def _permuted(a: int, b: int, how: int) -> int:
    found = (b << 32 | a).to_bytes(8, "little")
    picked = []
    for pick in (how >> 4 * at & 15 for at in range(4)):
        picked.append((255 if found[pick & 7] & 128 else 0) if pick & 8 else found[pick & 7])
    return int.from_bytes(picked, "little")


def _looked_up(a: int, b: int, c: int, table: int) -> int:
    return sum((table >> ((a >> k & 1) * 4 + (b >> k & 1) * 2 + (c >> k & 1)) & 1) << k for k in range(32))


def _reversed(a: int, kind: str) -> int:
    return int(f"{a:0{WIDTHS[kind]}b}"[::-1], 2)


INTEGERS: dict[str, Callable[..., int]] = {
    "add": lambda a, b, kind: a + b,
    "sub": lambda a, b, kind: a - b,
    "mul.lo": lambda a, b, kind: a * b,
    "mul.hi": lambda a, b, kind: a * b >> WIDTHS[kind],
    "mul.wide": lambda a, b, kind: a * b,
    "mad.lo": lambda a, b, c, kind: a * b + c,
    "mad.hi": lambda a, b, c, kind: (a * b >> WIDTHS[kind]) + c,
    "mad.wide": lambda a, b, c, kind: a * b + c,
    "div": lambda a, b, kind: _towards_zero(a, b),
    "rem": lambda a, b, kind: a - _towards_zero(a, b) * b,
    "min": lambda a, b, kind: min(a, b),
    "max": lambda a, b, kind: max(a, b),
    "neg": lambda a, kind: -a,
    "abs": lambda a, kind: abs(a),
    "and": lambda a, b, kind: a & b,
    "or": lambda a, b, kind: a | b,
    "xor": lambda a, b, kind: a ^ b,
    "not": lambda a, kind: (1 - a) if kind == "pred" else ~a,
    "shl": lambda a, by, kind: a << min(by, 64),
    "shr": lambda a, by, kind: a >> min(by, 64),
    "clz": lambda a, kind: WIDTHS[kind] - a.bit_length(),
    "popc": lambda a, kind: a.bit_count(),
    "brev": _reversed,
    "bfe": _field,
    "bfi": _with_field,
    "prmt": lambda a, b, c, kind: _permuted(a, b, c),
    "dp2a.lo": lambda a, b, c, kind: c + (a % 65536) * (b % 256) + (a // 65536) * (b // 256 % 256),
    "lop3": lambda a, b, c, table, kind: _looked_up(a, b, c, table),
    "shf.l.wrap": lambda a, b, by, kind: (b << 32 | a) << (by & 31) >> 32,
    "shf.r.wrap": lambda a, b, by, kind: (b << 32 | a) >> (by & 31),
    "shf.l.clamp": lambda a, b, by, kind: (b << 32 | a) << min(by, 32) >> 32,
    "shf.r.clamp": lambda a, b, by, kind: (b << 32 | a) >> min(by, 32),
    "selp": lambda a, b, which, kind: a if which else b,
    "mov": lambda a, kind: a,
}

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    **dict.fromkeys(("lt", "lo"), operator.lt),
    **dict.fromkeys(("le", "ls"), operator.le),
    **dict.fromkeys(("gt", "hi"), operator.gt),
    **dict.fromkeys(("ge", "hs"), operator.ge),
}


def _compared(how: str, a: Any, b: Any) -> bool:
    is_unordered = any(isinstance(one, float) and math.isnan(one) for one in (a, b))
    if how in ("num", "nan"):
        return is_unordered == (how == "nan")
    if how not in COMPARISONS:  # equ, neu, ...: yes where either is no number
        return is_unordered or COMPARISONS[how[:-1]](a, b)
    return not is_unordered and COMPARISONS[how](a, b)


def _limits(kind: str) -> tuple[int, int]:
    top = 1 << WIDTHS[kind] - (kind[0] == "s")
    return (-top if kind[0] == "s" else 0), top - 1


def _whole(value: float, mode: str) -> int:
    exact = Fraction(value)
    return {"rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil, "rni": round}[mode](exact)


def _converted(value: Any, to: str, source: str, flags: list[str]) -> Any:
    mode = next((flag for flag in flags if flag in ("rn", "rz", "rm", "rp")), "rn")
    whole = next((flag for flag in flags if flag in ("rni", "rzi", "rmi", "rpi")), None)
    if not is_float(source):
        if is_float(to):
            number = _rounded(Fraction(value), to, mode) if value else 0.0
            return min(max(number, 0.0), 1.0) if "sat" in flags else number
        if "sat" in flags:
            low, high = _limits(to)
            return min(max(value, low), high)
        return value
    if "ftz" in flags:
        value = _flushed(value, source)
    if not is_float(to):
        low, high = _limits(to)
        if math.isnan(value):
            return 0 if source != "f64" and WIDTHS[to] < 64 else 1 << WIDTHS[to] - 1
        if math.isinf(value):
            return high if value > 0 else low
        return min(max(_whole(value, whole or "rni"), low), high)
    if "sat" in flags:
        value = 0.0 if math.isnan(value) or value <= 0 else min(value, 1.0)
    if not math.isfinite(value) or not value:
        return value
    if whole:
        number = _whole(value, whole)
        return math.copysign(float(number), value) if not number else float(number)
    number = _rounded(Fraction(value), to, mode)
    return _flushed(number, to) if "ftz" in flags else number


def expected(opcode: str, operands: list[int]) -> tuple[int, str]:
    """Return the bits of an instruction's result and its type.

    Parameters
    ----------
    opcode : str
        As it is written, such as ``"add.rm.f64"``.
    operands : list of int
        The bits of the sources.
    """
    base, *modifiers = opcode.split(".")
    kinds = [one for one in modifiers if one in WIDTHS]
    flags = [one for one in modifiers if one in ("rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat")]
    kind = kinds[-1]
    if base == "cvt":
        to, source = kinds
        return bits_of(_converted(value_of(operands[0], source), to, source, flags), to), to
    name = ".".join([base, *(one for one in modifiers if one not in flags and one not in kinds)])
    values = [value_of(bits, kind) for bits in operands]
    if base == "setp":
        values[:2] = [_flushed(one, kind) for one in values[:2]] if "ftz" in flags else values[:2]
        answer = _compared(modifiers[0], *values[:2])
        third = bool(operands[2] & 1) if len(operands) > 2 else None
        joins = {"and": lambda: answer and third, "or": lambda: answer or third, "xor": lambda: answer != third}
        return int(joins[modifiers[1]]() if modifiers[1] in joins else answer), "pred"
    if is_float(kind) and name in FLOATS:
        mode = next((flag for flag in flags if flag != "ftz"), "rn")
        if "ftz" in flags:
            values = [_flushed(value, kind) for value in values]
        result = FLOATS[name](*values, kind, mode)
        return bits_of(_flushed(result, kind) if "ftz" in flags else result, kind), kind
    if name in ("selp", "mov") and is_float(kind):
        kind = f"b{WIDTHS[kind]}"
        values = [value_of(bits, kind) for bits in operands]
    if name in ("shl", "shr", "bfe", "bfi", "selp"):  # the last operands have a type of their own
        first = {"bfi": 2, "selp": 2}.get(name, 1)
        values = [*values[:first], *(bits & (1 if name == "selp" else 0xFFFFFFFF) for bits in operands[first:])]
    wide = kind if not name.endswith("wide") else f"{kind[0]}{2 * WIDTHS[kind]}"
    if name == "mad.wide":
        values[2] = value_of(operands[2], wide)
    result = INTEGERS[name](*values, kind)
    if name in ("clz", "popc"):
        wide = "u32"
    return bits_of(result, wide), wide
