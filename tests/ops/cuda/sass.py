"""Counts instructions in a kernel's machine code: the shortest way through it that does a stated piece of work.

A listing of nvdisasm is cut into basic blocks. A pixel inside the image is the shortest way once round a loop that
reads its taps and writes its channels: what guards borders, ties and slow divisions lies on longer ways. None is run.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

__all__ = ["Instruction", "Listing", "Work"]

Work = Sequence[tuple[str, int]]
"""What a way must do at least: (a pattern of opcodes, how many of them)."""

_DOUBLE = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")
_LABEL = re.compile(r"(\.L_\w+|\.text\.\w+):")
_LINE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?(\w+)\s+)?(\S+?)(?:\s+(.*?))?\s*;\s*/\* (0x[0-9a-f]{16}) \*/")
_SECOND_WORD = re.compile(r"\s+/\* (0x[0-9a-f]{16}) \*/")
_TARGET = re.compile(r"`\((\.L_\w+)\)")
_TABLE = re.compile(r"BRANCH_TARGETS ([\w.,]+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its guard's register or None, its opcode with all suffixes, its operands, its 16 bytes."""

    guard: str | None
    opcode: str
    operands: str
    encoding: str

    @property
    def is_conditional(self) -> bool:
        """Whether what follows it may be executed although it is a jump or an exit."""
        return (
            self.guard not in (None, "PT") or re.match(r"!?U?P\d", self.operands) is not None or ".DIV" in self.opcode
        )


@dataclass(frozen=True)
class _Block:
    instructions: tuple[Instruction, ...]
    following: tuple[int, ...]  # blocks that may come next; none after an exit


@dataclass(frozen=True)
class _Way:
    """A way that ends with a block, linked backwards."""

    length: int
    block: int
    before: _Way | None

    def instructions(self, blocks: Sequence[_Block]) -> list[Instruction]:
        found: list[Instruction] = []
        way: _Way | None = self
        while way is not None:
            found[:0] = blocks[way.block].instructions
            way = way.before
        return found


class Listing:
    """The machine code of one kernel.

    Parameters
    ----------
    text : str
        What ``nvdisasm -c -hex`` prints of a cubin.
    kernel : str
        The kernel's name.

    Raises
    ------
    ValueError
        If `text` holds no code of that name.
    """

    def __init__(self, text: str, kernel: str) -> None:
        self.instructions: list[Instruction] = []
        labels: dict[str, int] = {}
        inside = False
        for line in text.splitlines():
            if label := _LABEL.match(line):
                if label[1].startswith(".text."):
                    inside = label[1] == f".text.{kernel}"
                elif inside:
                    labels[label[1]] = len(self.instructions)
            elif line.startswith("$"):  # a function of its own, behind the kernel: division where no shorter way does
                inside = False
            elif inside and (found := _LINE.match(line)):
                _, guard, opcode, operands, encoding = found.groups()
                self.instructions.append(Instruction(guard, opcode, operands or "", encoding))
            elif inside and (rest := _SECOND_WORD.match(line)):
                last = self.instructions[-1]
                self.instructions[-1] = Instruction(last.guard, last.opcode, last.operands, last.encoding + rest[1][2:])
        if not self.instructions:
            raise ValueError(f"the listing holds no code of a kernel {kernel!r}")
        self._blocks = _blocks(self.instructions, labels)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of the code's SHA-256: two variants with the same are the same to the GPU."""
        return hashlib.sha256("".join(each.encoding for each in self.instructions).encode()).hexdigest()[:16]

    def most(self, opcode: str, work: Work) -> int:
        """Return how many instructions of a pattern a way from the start to the end that does `work` can have."""
        best = [0] * len(self._blocks)
        for block in reversed(self._order):
            ahead = [best[to] for to in self._blocks[block].following if (block, to) not in self._back]
            best[block] = max(ahead, default=0) + _count(self._blocks[block].instructions, opcode)
        everywhere = range(len(self._blocks))
        return next(
            number
            for number in range(best[0], -1, -1)
            if self._shortest(0, None, everywhere, [*work, (opcode, number)]) is not None
        )

    def nest(self, work: Work) -> tuple[int, ...]:
        """Return the heads of the loops around `work`, innermost first: those round which it is done most cheaply.

        Raises
        ------
        ValueError
            If no loop does it.
        """
        ways = {head: way for head in self._bodies if (way := self._round(head, work)) is not None}
        if not ways:
            raise ValueError(f"no loop of the kernel does {dict(work)}")
        innermost = min(ways, key=lambda head: ways[head].length)
        around = [head for head, body in self._bodies.items() if innermost in body]
        return tuple(sorted(around, key=lambda head: len(self._bodies[head])))

    def once_round(self, work: Work, head: int) -> Counter[str]:
        """Count the shortest way once round a loop that does `work`: instructions by opcode, without suffixes."""
        way = self._round(head, work)
        if way is None:
            raise ValueError(f"no way round the loop does {dict(work)}")
        return _opcodes(way.instructions(self._blocks))

    def whole(self, work: Work, heads: Sequence[int], rounds: Sequence[int]) -> Counter[str]:
        """Count a launch: from the start to the end, with each loop of a nest as often round as is said.

        Parameters
        ----------
        work : Work
            Of one round of the innermost loop.
        heads : sequence of int
            The loops, innermost first, as `nest` returns them.
        rounds : sequence of int
            How often each is gone round, for one round of the loop around it.
        """
        found = self._shortest(0, None, range(len(self._blocks)), work)
        if found is None:
            raise ValueError(f"no way through the kernel does {dict(work)}")
        total = _opcodes(found.instructions(self._blocks))
        times = 1
        for head, count in reversed(list(zip(heads, rounds, strict=True))):
            for opcode, number in self.once_round(work, head).items():
                total[opcode] += times * (count - 1) * number
            times *= count
        return total

    def _round(self, head: int, work: Work) -> _Way | None:
        ends = {block for block, to in self._back if to == head}
        return self._shortest(head, ends, self._bodies[head], work)

    def _shortest(self, start: int, ends: set[int] | None, inside: Iterable[int], work: Work) -> _Way | None:
        """Return the shortest way over the blocks `inside`, without going back, to an end of a loop or to an exit."""
        allowed = set(inside)
        wanted = tuple(number for _, number in work)
        reached: list[dict[tuple[int, ...], _Way]] = [{} for _ in self._blocks]
        done: list[_Way] = []
        for block in self._order:
            if block not in allowed:
                continue
            own = self._blocks[block].instructions
            counts = [_count(own, opcode) for opcode, _ in work]
            arrived = dict(reached[block])
            if block == start:
                arrived = {(0,) * len(work): _Way(0, -1, None)}
            for have, way in arrived.items():
                now = tuple(min(a + b, most) for a, b, most in zip(have, counts, wanted, strict=True))
                here = _Way(way.length + len(own), block, way if way.block >= 0 else None)
                following = self._blocks[block].following
                if now == wanted and (not following if ends is None else block in ends):
                    done.append(here)
                for to in following:
                    if (block, to) in self._back:
                        continue
                    known = reached[to].get(now)
                    if known is None or here.length < known.length:
                        reached[to][now] = here
        return min(done, key=lambda way: way.length, default=None)

    @cached_property
    def _order(self) -> list[int]:
        """The blocks that can be reached, each behind those before it but for the ends of loops."""
        seen: set[int] = set()
        order: list[int] = []
        stack: list[tuple[int, bool]] = [(0, False)]
        while stack:
            block, is_done = stack.pop()
            if is_done:
                order.append(block)
            elif block not in seen:
                seen.add(block)
                stack.append((block, True))
                stack += [(to, False) for to in self._blocks[block].following if to not in seen]
        return order[::-1]

    @cached_property
    def _back(self) -> set[tuple[int, int]]:
        """Edges to a block that every way has passed before: where a loop begins again."""
        before: dict[int, list[int]] = {block: [] for block in self._order}
        for block in self._order:
            for to in self._blocks[block].following:
                before[to].append(block)
        passed = {block: set(self._order) for block in self._order}
        passed[0] = {0}
        has_changed = True
        while has_changed:
            has_changed = False
            for block in self._order[1:]:
                now = set.intersection(*(passed[each] for each in before[block])) | {block}
                has_changed |= now != passed[block]
                passed[block] = now
        return {(block, to) for block in self._order for to in self._blocks[block].following if to in passed[block]}

    @cached_property
    def _bodies(self) -> dict[int, set[int]]:
        """The blocks of each loop, by its head."""
        before: dict[int, list[int]] = {}
        for block in self._order:
            for to in self._blocks[block].following:
                before.setdefault(to, []).append(block)
        bodies: dict[int, set[int]] = {}
        for block, head in self._back:
            body = bodies.setdefault(head, {head})
            stack = [block]
            while stack:
                each = stack.pop()
                if each not in body:
                    body.add(each)
                    stack += before.get(each, [])
        return bodies


def _blocks(instructions: Sequence[Instruction], labels: dict[str, int]) -> list[_Block]:
    """Cut the code behind every jump and before every target."""
    starts = {0, *(at for at in labels.values() if at < len(instructions))}
    for at, each in enumerate(instructions[:-1]):
        if _is_jump(each) or each.opcode.partition(".")[0] in ("EXIT", "RET"):
            starts.add(at + 1)
    cuts = sorted(starts)
    index = {at: number for number, at in enumerate(cuts)}
    blocks = []
    for start, stop in zip(cuts, [*cuts[1:], len(instructions)], strict=True):
        last = instructions[stop - 1]
        ends = _is_jump(last) or last.opcode.partition(".")[0] in ("EXIT", "RET")
        following = []
        if (not ends or last.is_conditional) and stop < len(instructions):
            following.append(index[stop])
        if _is_jump(last):
            # A jump table lists its targets behind the register that chooses among them.
            table = _TABLE.search(last.operands)
            targets = table[1].split(",") if table else _TARGET.findall(last.operands)
            if not targets:
                raise ValueError(f"a jump without a target: {last.opcode} {last.operands}")
            following += [index[labels[target]] for target in targets if target in labels]
        blocks.append(_Block(tuple(instructions[start:stop]), tuple(following)))
    return blocks


def _is_jump(instruction: Instruction) -> bool:
    """Tell a jump from a call that comes back: for sm_80 the assembler also jumps by calls to labels of the kernel."""
    opcode = instruction.opcode.partition(".")[0]
    return opcode in ("BRA", "BRX") or (opcode == "CALL" and _TARGET.search(instruction.operands) is not None)


def _count(instructions: Iterable[Instruction], pattern: str) -> int:
    return sum(fnmatchcase(each.opcode, pattern) for each in instructions)


def _opcodes(instructions: Iterable[Instruction]) -> Counter[str]:
    return Counter(each.opcode.partition(".")[0] for each in instructions)


def num_double(counts: Counter[str]) -> int:
    """Return how many of the counted instructions compute in double."""
    return sum(counts[opcode] for opcode in _DOUBLE)
