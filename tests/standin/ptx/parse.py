"""Reads a PTX module: its kernels with their parameters, registers, shared variables, labels and instructions.

It knows the form of the language and nothing of what instructions do; that is `encode`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .errors import PtxError, PtxSyntaxError

__all__ = ["Instruction", "Kernel", "Module", "Parameter", "Variable", "parse"]

TYPE_BYTES = {f"{kind}{bits}": bits // 8 for kind in "busf" for bits in (8, 16, 32, 64)}

_NAME = r"[%$\w.]+"
_INSTRUCTION = re.compile(
    rf"(?:@(?P<negated>!?)(?P<guard>{_NAME})\s+)?(?P<opcode>[a-z][\w.:]*)\s*(?P<operands>.*)", re.S
)
_OPERAND = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|[^,]+?)\s*(?:,|$)")
_VARIABLE = re.compile(
    rf"\.(?P<type>[busf]\d+)\s+(?P<name>{_NAME})\s*(?:\[(?P<count>\d*)\])?\s*(?:=\s*(?P<values>.*))?", re.S
)
_ENTRY = re.compile(
    rf"(?:\.visible\s+)?\.entry\s+(?P<name>{_NAME})\s*\((?P<parameters>[^)]*)\)(?P<directives>.*)", re.S
)
_LINE = re.compile(r"\s*\.(version|target|address_size|file|loc)\s")
"""Directives that end with their line, and not with a semicolon."""


@dataclass(frozen=True)
class Parameter:
    """Where a parameter of a kernel lies in the buffer that a launch hands over."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Variable:
    """A variable of a module or of a block's shared memory; `size` 0 and `is_dynamic`: sized by the launch."""

    name: str
    alignment: int
    size: int
    is_dynamic: bool = False
    data: bytes = b""


@dataclass(frozen=True)
class Instruction:
    """One instruction as it is written.

    Attributes
    ----------
    line : int
        Line of the text, from 1.
    text : str
        The whole of it, for messages.
    used_bytes : int
        A bit for each byte that a load asks for: the compiler may read past what it needs.
    source : tuple of int or None
        File number and line of the source, where the text was compiled with ``-lineinfo``.
    """

    line: int
    text: str
    opcode: str
    operands: tuple[str, ...]
    guard: str | None = None
    is_negated: bool = False
    used_bytes: int = 0xFFFFFFFF
    source: tuple[int, int] | None = None


@dataclass
class Kernel:
    """One ``.entry``."""

    name: str
    line: int
    parameters: tuple[Parameter, ...]
    max_threads: int
    registers: dict[str, int] = field(default_factory=dict)
    """Name -> bits; 1 for a predicate."""
    shared: list[Variable] = field(default_factory=list)
    local: list[Variable] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    """Name -> index of the instruction that it stands before."""


@dataclass
class Module:
    """A PTX text."""

    kernels: dict[str, Kernel] = field(default_factory=dict)
    constants: dict[str, Variable] = field(default_factory=dict)
    dynamic_shared: list[Variable] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Piece:
    """What the text falls into: a statement, a label, or a brace that opens or closes a scope."""

    line: int
    kind: str
    text: str


def _bare(text: str) -> str:
    """Return the text without comments and what is for a debugger, each line where it was."""

    def emptied(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n")

    text = re.sub(r"/\*.*?\*/", emptied, text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r"^\s*\.section\s[^{]*\{[^}]*\}", emptied, text, flags=re.M)


def _pieces(text: str) -> Iterator[_Piece]:
    """Cut a text. A brace belongs to a statement that has begun, and else to a scope."""
    token, first, line = "", 0, 1
    depth = 0
    for mark in re.split(r"(\n|;|\{|\}|\"[^\"\n]*\"|(?<=\w):(?!:))", text):
        if mark == "\n":
            line += 1
            mark = " "
            if _LINE.match(token):
                yield _Piece(first, "statement", token.strip())
                token = ""
        is_scope = not token.strip() or ".entry" in token
        if mark == "{" and is_scope and not depth:
            if token.strip():
                yield _Piece(first, "statement", token.strip())
            yield _Piece(line, "open", "{")
            token = ""
        elif mark == "}" and not depth and not token.strip():
            yield _Piece(line, "close", "}")
        elif mark == ":" and re.fullmatch(rf"\s*{_NAME}", token):
            yield _Piece(first, "label", token.strip())
            token = ""
        elif mark == ";":
            yield _Piece(first, "statement", " ".join(token.split()))
            token = ""
        else:
            depth += {"{": 1, "}": -1}.get(mark, 0)
            if not token.strip() and mark.strip():
                first = line
            token += mark
    if token.strip():
        raise PtxSyntaxError(first, f"the text ends within {' '.join(token.split())[:60]!r}")


def _variable(line: int, text: str) -> Variable:
    """Read a declaration from its type on: ``.align 8 .b8 name[24] = {1, 2}``."""
    alignment = 1
    if found := re.match(r"\s*\.align\s+(\d+)\s+", text):
        alignment, text = int(found[1]), text[found.end() :]
    found = _VARIABLE.fullmatch(text.strip())
    if not found or found["type"] not in TYPE_BYTES:
        raise PtxSyntaxError(line, f"a declaration that is not understood: {text.strip()!r}")
    width = TYPE_BYTES[found["type"]]
    values = [item.strip() for item in (found["values"] or "").strip("{} ").split(",") if item.strip()]
    is_dynamic = found["count"] == ""
    count = int(found["count"] or (len(values) if is_dynamic and values else 1))
    try:
        data = b"".join(_number(item, found["type"]) for item in values)
    except ValueError:
        raise PtxSyntaxError(line, f"a value of {found['name']} is not understood: {found['values']}") from None
    size = 0 if is_dynamic and not values else width * count
    return Variable(found["name"], max(alignment, width), size, is_dynamic and not values, data.ljust(size, b"\0"))


def _number(text: str, kind: str) -> bytes:
    """Return the bytes of a number in an initializer."""
    if found := re.fullmatch(r"0[fFdD]([0-9A-Fa-f]+)", text):
        return bytes.fromhex(found[1])[::-1]
    if kind[0] == "f":
        return np.dtype(f"<{kind}".replace("<f32", "<f4").replace("<f64", "<f8")).type(text).tobytes()
    return (int(text.rstrip("U"), 0) % (1 << 8 * TYPE_BYTES[kind])).to_bytes(TYPE_BYTES[kind], "little")


def _entry(line: int, text: str) -> Kernel:
    found = _ENTRY.fullmatch(text)
    if not found:
        raise PtxSyntaxError(line, f"a kernel that is not understood: {text[:60]!r}")
    parameters, offset = [], 0
    for written in filter(None, (item.strip() for item in found["parameters"].split(","))):
        match = re.fullmatch(rf"\.param\s+\.([busf]\d+)\s+({_NAME})", written)
        if not match:
            raise PtxSyntaxError(line, f"a parameter that is neither a number nor a pointer: {written!r}")
        size = TYPE_BYTES[match[1]]
        offset = -(-offset // size) * size
        parameters.append(Parameter(match[2], offset, size))
        offset += size
    limit = re.search(r"\.(?:maxntid|reqntid)\s+(\d+)", found["directives"])
    return Kernel(found["name"], line, tuple(parameters), int(limit[1]) if limit else 1024)


class _Reader:
    """Goes through the pieces of a module."""

    def __init__(self) -> None:
        self.module = Module()
        self._kernel: Kernel | None = None
        self._scopes: list[dict[str, str]] = []
        self._num_scopes = 0
        self._used_bytes = 0xFFFFFFFF
        self._source: tuple[int, int] | None = None

    def take(self, piece: _Piece) -> None:
        if piece.kind == "open":
            self._scopes.append({})
            self._num_scopes += 1
        elif piece.kind == "close":
            if not self._scopes:
                raise PtxSyntaxError(piece.line, "a brace too many")
            self._scopes.pop()
            if not self._scopes:
                self._kernel = None
        elif piece.kind == "label":
            kernel = self._inside(piece)
            if piece.text in kernel.labels:
                raise PtxSyntaxError(piece.line, f"label {piece.text} is there twice")
            kernel.labels[piece.text] = len(kernel.instructions)
        elif piece.text.startswith("."):
            self._directive(piece)
        elif piece.text:
            self._instruction(piece)

    def _inside(self, piece: _Piece) -> Kernel:
        if self._kernel is None:
            raise PtxSyntaxError(piece.line, f"{piece.text!r} stands in no kernel")
        return self._kernel

    def _directive(self, piece: _Piece) -> None:
        text, line = piece.text, piece.line
        if ".entry" in text:
            self._kernel = _entry(line, text)
            self.module.kernels[self._kernel.name] = self._kernel
        elif text.startswith(".reg"):
            self._registers(piece)
        elif found := re.match(r"\.loc\s+(\d+)\s+(\d+)", text):
            self._source = int(found[1]), int(found[2])
        elif found := re.match(r'\.file\s+(\d+)\s+"([^"]*)"', text):
            self.module.files[int(found[1])] = found[2]
        elif text.startswith(".pragma"):
            if found := re.match(r'\.pragma\s+"used_bytes_mask\s+(\w+)"', text):
                self._used_bytes = int(found[1], 0)
        elif text.startswith(".extern"):
            found = re.match(r"\.extern\s+\.shared\s+(.*)", text)
            if not found:
                raise PtxSyntaxError(line, f"something of another module: {text!r}")
            self.module.dynamic_shared.append(_variable(line, found[1]))
        elif text.startswith(".shared"):
            self._inside(piece).shared.append(_variable(line, text.removeprefix(".shared")))
        elif text.startswith(".local"):
            self._inside(piece).local.append(_variable(line, text.removeprefix(".local")))
        elif found := re.match(r"(?:\.visible\s+|\.weak\s+)?\.(?:global|const)\s+(.*)", text, re.S):
            variable = _variable(line, found[1])
            self.module.constants[variable.name] = variable
        elif not _LINE.match(text):
            raise PtxSyntaxError(line, f"a directive that is not supported: {text.split()[0]} in {text[:60]!r}")

    def _registers(self, piece: _Piece) -> None:
        found = re.fullmatch(
            rf"\.reg\s+\.(pred|[busf]\d+)\s+({_NAME}(?:<\d+>)?(?:\s*,\s*{_NAME}(?:<\d+>)?)*)", piece.text
        )
        if not found:
            raise PtxSyntaxError(piece.line, f"registers that are not understood: {piece.text!r}")
        kernel = self._inside(piece)
        bits = 1 if found[1] == "pred" else 8 * TYPE_BYTES[found[1]]
        for written in found[2].split(","):
            name, _, count = written.strip().rstrip(">").partition("<")
            for one in [f"{name}{number}" for number in range(int(count))] if count else [name]:
                # A register of an inner scope hides an outer one of its name.
                own = one if len(self._scopes) == 1 else f"{one}@{self._num_scopes}"
                self._scopes[-1][one] = own
                kernel.registers[own] = bits

    def _own(self, text: str) -> str:
        """Return an operand with the registers of inner scopes by their own names."""
        if len(self._scopes) < 2:
            return text

        def own(found: re.Match[str]) -> str:
            return next((scope[found[0]] for scope in reversed(self._scopes) if found[0] in scope), found[0])

        return re.sub(r"%[\w.]+", own, text)

    def _instruction(self, piece: _Piece) -> None:
        kernel = self._inside(piece)
        found = _INSTRUCTION.fullmatch(piece.text)
        if not found:
            raise PtxSyntaxError(piece.line, f"not an instruction: {piece.text!r}")
        operands = tuple(self._own(one) for one in _OPERAND.findall(found["operands"]))
        guard = found["guard"]
        kernel.instructions.append(
            Instruction(
                line=piece.line,
                text=piece.text,
                opcode=found["opcode"],
                operands=operands,
                guard=None if guard is None else self._own(guard),
                is_negated=found["negated"] == "!",
                used_bytes=self._used_bytes,
                source=self._source,
            )
        )
        self._used_bytes = 0xFFFFFFFF


def parse(text: str) -> Module:
    """Read a PTX text.

    Raises
    ------
    PtxSyntaxError
        At a directive, a declaration or a statement that is not understood; it names the line.
    PtxError
        If there is no kernel in it.
    """
    reader = _Reader()
    for piece in _pieces(_bare(text)):
        reader.take(piece)
    if not reader.module.kernels:
        raise PtxError("the PTX holds no kernel (.entry)")
    return reader.module
