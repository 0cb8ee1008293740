"""Turns a kernel that was read into rows of numbers for `core/machine.cpp`, and checks every operand on the way.

What instructions there are, which operands and which modifiers they take is asked of the machine's own catalogue, so
that the two cannot disagree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from .errors import PtxSyntaxError, UnknownInstructionError
from .parse import Instruction, Kernel, Module, Variable

__all__ = ["Code", "Entry", "encode"]

MAX_TO, MAX_FROM = 4, 5

ROW = np.dtype(
    [
        *((name, np.int32) for name in ("entry", "flags", "guard", "guard_negated", "target", "vector")),
        ("used_bytes", np.uint32),
        ("address_bits", np.int32),
        ("offset", np.int64),
        ("to", np.int32, (MAX_TO,)),
        ("from", np.int32, (MAX_FROM,)),
        ("reserved", np.int32),
    ]
)
"""``ptx::Instruction``."""

FLAGS: Final = {
    name: 1 << bit
    for bit, name in enumerate(
        ("rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "", "nc", "and", "or", "xor")
    )
    if name
}
"""Modifiers that are no part of an instruction's name in the catalogue, with their bit in ``ptx::Flag``."""

NEGATED = 1024

SPECIAL = tuple(
    [f"%{what}.{axis}" for what in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"] + ["%laneid", "%warpid"]
)
"""``ptx::Special``: the first registers."""

SPACES = ("param", "shared", "global", "const", "local")
VECTORS = {"v2": 2, "v4": 4}

# These say how caches and the scheduler are to treat an instruction, not what it computes. (The machine's memory has no
# caches, so that volatile and weak are the same; what is not in order is a race there.)
_HINTS = re.compile(r"uni|aligned|volatile|weak|ca|cg|cs|lu|cv|wb|wt|L1::\w+|L2::\w+")

_WIDTHS = {"p": 1, "b": 8, "h": 16, "w": 32, "d": 64}
_ADDRESS = re.compile(r"\[\s*([%$@\w.]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_INTEGER = re.compile(r"-?(?:0[xX][0-9A-Fa-f]+|\d+)U?")


@dataclass(frozen=True)
class Entry:
    """An instruction of the machine's catalogue; `operands` is explained in ``core/instructions.h``."""

    number: int
    name: str
    operands: str
    flags: int


@dataclass
class Code:
    """A kernel that can be made into a program.

    Attributes
    ----------
    rows : numpy.ndarray
        One `ROW` per instruction.
    constants : list of int
        What the operands -2, -3, ... stand for: the bits of 64-bit numbers.
    shared_bytes : int
        What the block's own variables take; dynamic shared memory begins there.
    local_bytes : int
        What each thread has for itself.
    globals : list of numpy.ndarray
        The module's variables, at the addresses that are written in `constants`.
    """

    kernel: Kernel
    rows: np.ndarray
    constants: list[int] = field(default_factory=list)
    num_registers: int = 0
    shared_bytes: int = 0
    local_bytes: int = 0
    globals: list[np.ndarray] = field(default_factory=list)


def encode(module: Module, name: str, catalogue: dict[str, Entry]) -> Code:
    """Encode a kernel of a module.

    Raises
    ------
    UnknownInstructionError
        At an instruction or a modifier that the catalogue does not have.
    PtxSyntaxError
        At an operand that is missing, unknown or too narrow.
    """
    return _Encoder(module, module.kernels[name], catalogue).run()


def _placed(variables: list[Variable]) -> tuple[dict[str, int], int]:
    """Lay variables out one after the other. Return where they begin and where they end."""
    addresses, end = {}, 0
    for variable in variables:
        addresses[variable.name] = -(-end // variable.alignment) * variable.alignment
        end = addresses[variable.name] + variable.size
    return addresses, end


class _Encoder:
    def __init__(self, module: Module, kernel: Kernel, catalogue: dict[str, Entry]) -> None:
        self._kernel, self._catalogue = kernel, catalogue
        self._code = Code(kernel, np.zeros(len(kernel.instructions), ROW))
        self._slots = {name: slot for slot, name in enumerate((*SPECIAL, *kernel.registers))}
        self._bits = {**dict.fromkeys(SPECIAL, 32), **kernel.registers}
        self._constant_slots: dict[int, int] = {}
        self._parameters = {parameter.name: parameter.offset for parameter in kernel.parameters}
        self._addresses, end = _placed(kernel.shared)
        if module.dynamic_shared:  # all dynamic arrays begin at one address, as they do in CUDA
            alignment = max(variable.alignment for variable in module.dynamic_shared)
            end = -(-end // alignment) * alignment
            self._addresses.update((variable.name, end) for variable in module.dynamic_shared)
        self._code.shared_bytes = end
        local, self._code.local_bytes = _placed(kernel.local)
        self._addresses |= local
        for variable in module.constants.values():
            data = np.frombuffer(variable.data or bytes(variable.size), np.uint8).copy()
            self._code.globals.append(data)
            self._addresses[variable.name] = data.ctypes.data
        self._code.num_registers = len(self._slots)

    def run(self) -> Code:
        for row, instruction in zip(self._code.rows, self._kernel.instructions, strict=True):
            self._encode(row, instruction)
        return self._code

    def _encode(self, row: np.void, at: Instruction) -> None:
        key, flags, vector = self._key(at)
        entry = self._catalogue.get(key)
        if entry is None:
            raise UnknownInstructionError(at.line, f"the interpreter does not know {at.opcode!r} ({at.text!r})")
        unknown = [name for name, flag in FLAGS.items() if flags & flag & ~entry.flags]
        if unknown:
            raise UnknownInstructionError(at.line, f"{at.opcode!r} with .{unknown[0]} is not known ({at.text!r})")
        row["entry"], row["vector"] = entry.number, vector
        row["used_bytes"] = at.used_bytes
        row["to"], row["from"] = -1, -1
        row["guard"] = -1 if at.guard is None else self._register(at, at.guard, 1)
        row["guard_negated"] = at.is_negated
        row["flags"] = flags | self._operands(row, at, entry, flags)

    def _key(self, at: Instruction) -> tuple[str, int, int]:
        """Return what the catalogue calls an instruction, its flags, and how long a vector it moves."""
        base, *modifiers = at.opcode.replace("::cta", "").split(".")
        modifiers = [one for one in modifiers if not _HINTS.fullmatch(one)]
        vector = 1
        if base in ("ld", "st"):
            vector = next((VECTORS[one] for one in modifiers if one in VECTORS), 1)
            modifiers = [one for one in modifiers if one not in VECTORS]
            if not any(one in SPACES for one in modifiers):
                modifiers.insert(0, "generic")
        # and, or and xor are modifiers of a comparison, and names of their own elsewhere.
        flags = {one: FLAGS[one] for one in modifiers if one in FLAGS}
        name = [base, *(one for one in modifiers if one not in flags)]
        if base == "mov" and any(operand.startswith("{") for operand in at.operands):
            name[0] = "unpack" if at.operands[0].startswith("{") else "pack"
        return ".".join(name), sum(flags.values()), vector

    def _operands(self, row: np.void, at: Instruction, entry: Entry, flags: int) -> int:
        """Fill in an instruction's operands. Return further flags."""
        results, _, sources = entry.operands.partition("=")
        if flags & (FLAGS["and"] | FLAGS["or"] | FLAGS["xor"]):
            sources += "p"
        written = list(at.operands)
        if entry.name in ("bar.sync", "barrier.sync") and written != ["0"]:
            raise UnknownInstructionError(at.line, f"only barrier 0 of the whole block is known ({at.text!r})")
        if entry.name == "bra":
            row["target"] = self._label(at, written)
            return 0
        if len(written) != len(results) + len(sources):
            raise PtxSyntaxError(at.line, f"{at.opcode} takes {len(results) + len(sources)} operands ({at.text!r})")
        vector = int(row["vector"])
        to: list[int] = []
        moved: list[int] = []
        more = 0
        for kind, operand in zip(results + sources, written, strict=True):
            is_result = len(to) == 0 and bool(results)
            if kind == "a":
                moved.append(self._address(row, at, operand))
            elif kind == "v" or operand.startswith("{"):
                parts = [part.strip() for part in operand.strip("{} ").split(",")]
                if len(parts) > MAX_TO or (kind != "v" and len(parts) != vector):
                    raise PtxSyntaxError(at.line, f"a vector of {len(parts)} is not understood ({at.text!r})")
                row["vector"] = len(parts)
                width = int(entry.name[-2:]) // len(parts) if kind == "v" else _WIDTHS[kind.lower()]
                (to if is_result else moved).extend(
                    self._value(at, part, width, kind != "v", is_result) for part in parts
                )
            elif vector > 1:
                raise PtxSyntaxError(at.line, f"a vector of {vector} is meant ({at.text!r})")
            elif is_result:
                first, *second = operand.split("|")  # a comparison's negation, or whether a lane was there
                to.append(self._value(at, first, _WIDTHS[kind.lower()], kind.isupper(), True))
                to.extend(self._value(at, part, 1, False, True) for part in second)
            else:
                if kind == "p" and operand.startswith("!") and entry.flags & NEGATED:
                    operand, more = operand[1:], NEGATED
                moved.append(self._value(at, operand, _WIDTHS[kind.lower()], kind.isupper(), False))
        row["to"][: len(to)] = to
        row["from"][: len(moved)] = moved
        return more

    def _label(self, at: Instruction, written: list[str]) -> int:
        if len(written) != 1 or written[0] not in self._kernel.labels:
            raise PtxSyntaxError(at.line, f"a branch to where there is no label ({at.text!r})")
        return self._kernel.labels[written[0]]

    def _address(self, row: np.void, at: Instruction, operand: str) -> int:
        found = _ADDRESS.fullmatch(operand)
        if not found:
            raise PtxSyntaxError(at.line, f"{operand!r} is no address ({at.text!r})")
        base, offset = found[1], int(found[2] or "0", 0)
        row["offset"], row["address_bits"] = offset, 64
        if base in self._slots:
            row["address_bits"] = self._bits[base]
            if self._bits[base] < 32:
                raise PtxSyntaxError(at.line, f"{base} is too narrow for an address ({at.text!r})")
            return self._slots[base]
        known = self._parameters if at.opcode.startswith("ld.param") else self._addresses
        if base not in known and not _INTEGER.fullmatch(base):
            raise PtxSyntaxError(at.line, f"there is no {base!r} to address ({at.text!r})")
        return self._constant(known[base] if base in known else int(base, 0))

    def _value(self, at: Instruction, operand: str, width: int, may_be_wider: bool, is_result: bool) -> int:
        if operand in self._slots:
            return self._register(at, operand, width, may_be_wider)
        if is_result:
            if operand == "_":
                return -1
            raise PtxSyntaxError(at.line, f"{operand!r} is no register to write to ({at.text!r})")
        if operand in self._addresses:
            return self._constant(self._addresses[operand])
        if found := re.fullmatch(r"0[fFdD]([0-9A-Fa-f]{8}|[0-9A-Fa-f]{16})", operand):
            if len(found[1]) * 4 != width:
                raise PtxSyntaxError(at.line, f"{operand} has another width than {width} bits ({at.text!r})")
            return self._constant(int(found[1], 16))
        if _INTEGER.fullmatch(operand):
            return self._constant(int(operand.rstrip("U"), 0))
        raise PtxSyntaxError(at.line, f"{operand!r} is neither a register nor a number ({at.text!r})")

    def _register(self, at: Instruction, name: str, width: int, may_be_wider: bool = False) -> int:
        if name not in self._slots:
            raise PtxSyntaxError(at.line, f"there is no register {name} ({at.text!r})")
        bits = self._bits[name]
        if bits != width and not (may_be_wider and bits > width > 1):
            raise PtxSyntaxError(at.line, f"{name} has {bits} bits where {width} are meant ({at.text!r})")
        return self._slots[name]

    def _constant(self, value: int) -> int:
        value %= 1 << 64
        if value not in self._constant_slots:
            self._constant_slots[value] = -2 - len(self._code.constants)
            self._code.constants.append(value)
        return self._constant_slots[value]
