"""Kernels with one instruction changed: what a wrong compiler, or a wrong kernel, would run.

`test_mutations` shows that the comparison, or a fault, sees nearly all of them, and names those that nothing can see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from gpuseq.ops.cuda import compile as kernels

from .compiler import compile_ptx
from .encode import FLAGS, Code, encode
from .machine import Program, catalogue
from .parse import parse

__all__ = ["MUTATIONS", "Mutant", "Place", "compiled", "mutants"]

Row = np.void


@dataclass(frozen=True)
class Place:
    """Where an instruction comes from: a line of a kernel file, its comment and its function."""

    file: str = ""
    line: int = 0
    text: str = ""
    comment: str = ""
    function: str = ""


@dataclass(frozen=True)
class Mutant:
    """A kernel with one instruction changed."""

    mutation: str
    index: int
    instruction: str
    place: Place
    program: Program


@cache
def compiled(kernel: str, macros: kernels.Macros, architecture: str = "compute_80") -> tuple[Code, dict[int, str]]:
    """Return a variant as it is compiled with the lines of its source, and the names of its files."""
    source = kernels.pasted_source(kernels.SIGNATURES[kernel][0], macros)
    module = parse(compile_ptx(source, (*kernels.COMPILE_OPTIONS, "-lineinfo"), architecture))
    return encode(module, kernel, catalogue()), module.files


@cache
def _lines(file: str) -> list[str]:
    return (kernels.kernel_folder() / file).read_text(encoding="utf-8").splitlines()


_FUNCTION = re.compile(r'^(?:template <[^>]*> )?(?:DEVICE|extern "C").*?(\w+)\((?!\w+_BLOCK\b)')


def _place(code: Code, files: dict[int, str], index: int) -> Place:
    """Return where an instruction comes from; what is inlined, from the line of its own."""
    number, line = code.kernel.instructions[index].source or (0, 0)
    file = files.get(number, "").rpartition("/")[2]
    if not line or not file:
        return Place()
    lines = _lines(file)
    text, _, comment = (part.strip() for part in lines[line - 1].partition("//"))
    above = (_FUNCTION.match(lines[at]) for at in range(line - 1, -1, -1))
    found = next((match for match in above if match), None)
    return Place(file, line, text, comment, found[1] if found else "")


def _named(row: Row, name: str) -> Row:
    changed = row.copy()
    changed["entry"] = catalogue()[name].number
    return changed


def _flagged(row: Row, old: str, new: str) -> Row:
    changed = row.copy()
    changed["flags"] = int(row["flags"]) & ~FLAGS[old] | FLAGS[new]
    return changed


def _with(row: Row, **fields: int) -> Row:
    changed = row.copy()
    for name, value in fields.items():
        changed[name] = value
    return changed


_EDGES = {
    "lt": "le",
    "gt": "ge",
    "eq": "ne",
    "ltu": "leu",
    "gtu": "geu",
    "equ": "neu",
    "num": "nan",
    "lo": "ls",
    "hi": "hs",
}
_EDGES |= {new: old for old, new in _EDGES.items()}
_WIDTH = {"8": 1, "6": 2, "2": 4, "4": 8}


def _signed(row: Row, name: list[str], index: int) -> Row | None:
    return (
        _named(row, ".".join([{"add": "sub", "sub": "add"}[name[0]], *name[1:]])) if name[0] in ("add", "sub") else None
    )


def _edge(row: Row, name: list[str], index: int) -> Row | None:
    return _named(row, ".".join(["setp", _EDGES[name[1]], *name[2:]])) if name[0] == "setp" else None


def _selected(row: Row, name: list[str], index: int) -> Row | None:
    if name[0] != "selp":
        return None
    changed = row.copy()
    changed["from"][:2] = row["from"][1], row["from"][0]
    return changed


def _joined(row: Row, name: list[str], index: int) -> Row | None:
    other = {"and.pred": "or.pred", "or.pred": "and.pred"}.get(".".join(name))
    return None if other is None else _named(row, other)


def _extreme(row: Row, name: list[str], index: int) -> Row | None:
    return (
        _named(row, ".".join([{"min": "max", "max": "min"}[name[0]], *name[1:]])) if name[0] in ("min", "max") else None
    )


def _floored(row: Row, name: list[str], index: int) -> Row | None:
    return _flagged(row, "rm", "rn") if int(row["flags"]) & FLAGS["rm"] else None


def _cast(row: Row, name: list[str], index: int) -> Row | None:
    to_float = name[0] == "cvt" and name[1:] == ["f32", "f64"]
    return _flagged(row, "rn", "rz") if to_float and int(row["flags"]) & FLAGS["rn"] else None


def _truncated(row: Row, name: list[str], index: int) -> Row | None:
    return _flagged(row, "rzi", "rni") if int(row["flags"]) & FLAGS["rzi"] else None


def _multiplied(row: Row, name: list[str], index: int) -> Row | None:
    return _named(row, ".".join(["mul", *name[1:]])) if name[0] == "mad" else None


def _negated(row: Row, name: list[str], index: int) -> Row | None:
    return _named(row, f"mov.{name[1]}") if name[0] == "neg" else None


def _neighbour(row: Row, name: list[str], index: int) -> Row | None:
    if name[0] != "ld" or name[1] == "param":
        return None
    return _with(row, offset=row["offset"] + int(row["vector"]) * _WIDTH[name[-1][-1]])


def _dropped(row: Row, name: list[str], index: int) -> Row | None:
    return _skipped(row, index) if name[0] in ("st", "atom", "red") else None


def _turned(row: Row, name: list[str], index: int) -> Row | None:
    return _with(row, guard_negated=1 - row["guard_negated"]) if name[0] == "bra" and row["guard"] >= 0 else None


def _waited(row: Row, name: list[str], index: int) -> Row | None:
    return _skipped(row, index) if name[0] in ("bar", "membar") else None


def _skipped(row: Row, index: int) -> Row:
    changed = _with(_named(row, "bra"), target=index + 1)
    changed["from"] = -1
    return changed


MUTATIONS: dict[str, Callable[[Row, list[str], int], Row | None]] = {
    "no barrier": _waited,
    "add for sub, sub for add": _signed,
    "a comparison's edge on the other side": _edge,
    "a selection the other way": _selected,
    "and for or, or for and": _joined,
    "min for max, max for min": _extreme,
    "to nearest for down": _floored,
    "to zero for to nearest, from double to float": _cast,
    "to nearest for truncation": _truncated,
    "a sum left out of a multiply-add": _multiplied,
    "no negation": _negated,
    "a load of the next": _neighbour,
    "no store": _dropped,
    "a branch the other way": _turned,
}
"""What it is called -> the row that takes an instruction's place, or None where it has nothing to change there."""


def mutants(kernel: str, macros: kernels.Macros, mutations: tuple[str, ...] = tuple(MUTATIONS)) -> Iterator[Mutant]:
    """Yield a variant's mutants, each with one instruction changed."""
    code, files = compiled(kernel, macros)
    names = {entry.number: entry.name.split(".") for entry in catalogue().values()}
    for index, (row, instruction) in enumerate(zip(code.rows, code.kernel.instructions, strict=True)):
        for mutation in mutations:
            changed = MUTATIONS[mutation](row, names[int(row["entry"])], index)
            if changed is not None:
                rows = code.rows.copy()
                rows[index] = changed
                program = Program(replace(code, rows=rows))
                yield Mutant(mutation, index, instruction.text, _place(code, files, index), program)
