"""Steps of a program from numbers in [0, 1): which of a space, at which magnitude; and their order at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .program import IDENTITY, empty_program

__all__ = ["Choices", "Compiled", "choose_steps", "put_identities_last", "use_compiled"]


# By its identity: what follows from it is kept, and the arrays are never changed.
@dataclass(frozen=True, eq=False)
class Choices:
    """What each step of a policy is chosen from, and by which numbers.

    Attributes
    ----------
    codes : numpy.ndarray
        Shape ``(E,)``, int16: of the steps to choose from.
    moves : numpy.ndarray
        Shape ``(E,)``, bool: which of them are geometry.
    arguments : numpy.ndarray
        Shape ``(E * B * 2,)``, float64: the argument of each step at each of B bins, where the sign's number lies above
        a half, and where it does not.
    num_steps : int
        Of a sample.
    choice, sign : int
        Which of a sample's numbers choose its first step, and the sign of that.
    number : int
        Which number chooses the bin. -1: none does.
    stride : int
        From the numbers of a step to those of the next.
    bin : int
        The bin where no number chooses it.
    bilinear : bool
        How geometry reads between pixels.
    fill : (int, int, int, int)
        What geometry puts where no pixel comes from.
    """

    codes: np.ndarray
    moves: np.ndarray
    arguments: np.ndarray
    num_steps: int
    choice: int
    sign: int
    number: int
    stride: int
    bin: int
    bilinear: bool
    fill: tuple[int, int, int, int]

    @property
    def num_bins(self) -> int:
        """B."""
        return len(self.arguments) // (2 * len(self.codes))


class Compiled(Protocol):
    """What does the same in less time."""

    def choose_steps(self, choices: Choices, uniform: np.ndarray) -> np.ndarray | None:
        """As the function of that name; None where it is left to NumPy."""

    def put_identities_last(self, program: np.ndarray) -> bool:
        """As the function of that name; False where it is left to NumPy, and nothing was done."""


_compiled: Compiled | None = None


def use_compiled(library: Compiled) -> None:
    """Ask a library from now on, before NumPy: this room knows none, and the one that has it calls.

    Parameters
    ----------
    library : Compiled
        Asked for every batch.
    """
    global _compiled
    _compiled = library


def choose_steps(choices: Choices, uniform: np.ndarray) -> np.ndarray:
    """Return the steps that numbers ask for.

    Parameters
    ----------
    choices : Choices
        What is chosen from.
    uniform : numpy.ndarray
        Shape ``(N, K)``, float64 in [0, 1).

    Returns
    -------
    numpy.ndarray
        Shape ``(N, num_steps)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    """
    if _compiled is not None:
        drawn = _compiled.choose_steps(choices, uniform)
        if drawn is not None:
            return drawn

    def column(first: int) -> np.ndarray:
        return uniform[:, first :: choices.stride][:, : choices.num_steps]

    # Never the number of choices itself: for the largest double below 1 the product rounds to the double below.
    chosen = (column(choices.choice) * len(choices.codes)).astype(np.intp)
    place = chosen * choices.num_bins
    if choices.number < 0:
        place += choices.bin
    else:
        place += (column(choices.number) * choices.num_bins).astype(np.intp)
    place *= 2
    place += column(choices.sign) <= 0.5
    program = empty_program(*chosen.shape)
    program["op"], program["arg"][..., 0] = choices.codes.take(chosen), choices.arguments.take(place)
    moves = choices.moves.take(chosen)
    program["bilinear"] = moves & choices.bilinear
    program["fill"][moves] = choices.fill
    return program


def put_identities_last(program: np.ndarray) -> None:
    """Let the steps of each sample that do something follow one another, in their order.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`, C-contiguous. Written to.
    """
    if program.shape[1] < 2 or (_compiled is not None and _compiled.put_identities_last(program)):
        return
    # Stable, so that the steps keep their order.
    order = np.argsort(program["op"] == IDENTITY, axis=1, kind="stable")
    # By places in the whole: `take` copies steps, an index of rows and columns takes ten times as long.
    order += np.arange(len(program))[:, None] * program.shape[1]
    program[...] = program.reshape(-1).take(order)
