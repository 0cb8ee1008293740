"""Mutants that stay green: each has to be explained by a rule that is written down, or a test fails.

A rule names a function, what stands on the line, the kind of change, and why no input can show it. In CI one mutant in
so many is tried, `stride` says how many; ``GPUSEQ_TEST_MUTANTS=all`` tries all of them, and asks of every rule that it
explains something.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpuseq.ops.cuda import compile as kernels

from .machine import Program
from .mutations import MUTATIONS, Mutant, compiled, mutants
from .runner import PtxRun

__all__ = ["Rule", "Survey", "check", "stride", "survey"]

_TRIED = tuple(name for name in MUTATIONS if name != "no barrier")


@dataclass(frozen=True)
class Rule:
    """Changes that nothing can see.

    Attributes
    ----------
    function, text, mutation, instruction : str
        Patterns: of the whole name of a function, of what stands on the line of the source, of the kind of change, of
        the instruction.
    why : str
        What hides them.
    """

    function: str
    text: str
    mutation: str
    why: str
    instruction: str = ""

    def explains(self, mutant: Mutant) -> bool:
        """Whether a mutant is one of these."""
        place = mutant.place
        return (
            re.fullmatch(self.function, place.function) is not None
            and re.search(self.text, place.text) is not None
            and re.search(self.mutation, mutant.mutation) is not None
            and re.search(self.instruction, mutant.instruction) is not None
        )


@dataclass(frozen=True)
class Survey:
    """What came of a kernel's mutants.

    Attributes
    ----------
    number : int
        That were tried.
    green : sequence of Mutant
        Those that stayed green.
    seen : Counter
        Kind of change -> how many were seen.
    covered : float
        Share of the kernel's instructions that ran.
    """

    number: int
    green: Sequence[Mutant]
    seen: Counter[str]
    covered: float


def check(surveys: Iterable[Survey], rules: Iterable[Rule], share: float, room: int = 0) -> None:
    """Fail where a survivor has no rule, where less than a share of the mutants was seen, or where a rule is idle.

    Parameters
    ----------
    surveys : iterable of Survey
        What the rules are for.
    rules : iterable of Rule
        Why survivors survive. None may be idle where all mutants are tried.
    share : float
        Of the mutants of each survey that have to be seen.
    room : int
        Survivors without a rule in a sample: whoever changes a kernel moves it. None where all mutants are tried.
    """
    surveys, rules, is_all = list(surveys), list(rules), stride(2) == 1
    green = [one for each in surveys for one in each.green]
    unexplained = [one for one in green if not any(rule.explains(one) for rule in rules)]
    listed = "\n".join(f"{one.mutation}: {one.instruction} ({one.place})" for one in unexplained)
    assert len(unexplained) <= (0 if is_all else room), listed
    for each in surveys:
        assert len(each.green) <= (1 - share) * each.number, f"{len(each.green)} of {each.number} stayed green"
    if is_all:
        idle = [rule for rule in rules if not any(rule.explains(one) for one in green)]
        assert not idle, f"nothing survives that these explain: {idle}"


def stride(every: int) -> int:
    """Return how far apart the mutants lie that are tried."""
    return 1 if os.environ.get("GPUSEQ_TEST_MUTANTS") == "all" else every


def survey(run: PtxRun, kernel: str, macros: kernels.Macros, sees: Callable[[Program], bool], every: int = 1) -> Survey:
    """Change what a kernel executes in each way, one instruction in `every`."""
    program = Program(compiled(kernel, macros)[0])
    run.counts.clear()
    assert not sees(program), f"{kernel} as it is"
    executed = run.counts[kernel, len(program.code.rows)].copy()
    tried = [mutant for mutant in mutants(kernel, macros, _TRIED) if executed[mutant.index]][:: stride(every)]
    green, seen = [], Counter[str]()
    for mutant in tried:
        if sees(mutant.program):
            seen[mutant.mutation] += 1
        else:
            green.append(mutant)
    return Survey(len(tried), green, seen, float((executed > 0).mean()))
