"""Steps of a program from numbers in [0, 1): which of a space, how strong, whether at all; and their order."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .philox import philox_rows
from .program import IDENTITY, STEP_DTYPE, as_bytes, code_of

__all__ = [
    "LINE_DTYPE",
    "Choices",
    "Compiled",
    "choose_steps",
    "draw_steps",
    "put_identities_last",
    "strengths",
    "use_compiled",
    "write_mixes",
    "write_shares",
    "write_steps",
]

LINE_DTYPE = np.dtype(
    [
        ("factor", np.float64),
        ("is_whole", np.float64),  # 1: what is below a whole number is cut off
        ("signs", np.float64, (2,)),  # factors where the sign's number lies above a half, and where it does not
        ("offset", np.float64),
        ("least", np.float64),
        ("most", np.float64),
    ]
)
"""How an argument follows from a level: ``min(max(signs * floor(factor * level) + offset, least), most)``."""


# By its identity: what follows from it is kept, and the arrays are never changed.
@dataclass(frozen=True, eq=False)
class Choices:
    """What each step of a policy is chosen from, and by which numbers.

    E is how many there are to choose from. T is 1 where all steps of a sample are chosen from the same ones, else the
    number of steps.

    Attributes
    ----------
    steps : numpy.ndarray
        Shape ``(T, E)``, dtype `~gpuseq.plan.program.STEP_DTYPE`: whole but for the first argument.
    columns : numpy.ndarray
        Shape ``(S, 4)``, int64: which of a sample's numbers are a step's, for its choice, its strength, its sign and
        its coin. Any where no such number is asked for.
    num_uniform : int
        Numbers of a sample.
    arguments : numpy.ndarray or None
        Shape ``(T, E, B, 2)``, float64: the first argument at each of B bins, where the sign's number lies above a
        half, and where it does not. None: `lines` has it.
    lines : numpy.ndarray or None
        Shape ``(T, E)``, dtype `LINE_DTYPE`.
    spread, unit : float
        The strength's number times `spread` is a magnitude, and that by `unit` the level that `lines` take.
    normal : (float, float, float) or None
        In the place of `spread`: a magnitude is normal around the first with the second as its deviation, cut off at 0
        and at the third.
    within : numpy.ndarray or None
        Shape ``(T, E, 2)``, float64: a step is done where its coin lies from the first on and below the second. None:
        all are.
    argument : int
        Which argument is drawn; the first, unless it is said.
    orders : numpy.ndarray or None
        Shape ``(O, S)``, int64: which steps come one after another in each of O orders. None: as they are numbered.
    order : int
        Which number chooses the order.
    """

    steps: np.ndarray
    columns: np.ndarray
    num_uniform: int
    arguments: np.ndarray | None = None
    lines: np.ndarray | None = None
    spread: float = 1.0
    unit: float = 1.0
    normal: tuple[float, float, float] | None = None
    within: np.ndarray | None = None
    argument: int = 0
    orders: np.ndarray | None = None
    order: int = 0

    @property
    def num_bins(self) -> int:
        """B, or 0 without."""
        return 0 if self.arguments is None else self.arguments.shape[2]


class Compiled(Protocol):
    """What does the same in less time."""

    def choose_steps(self, choices: Choices, uniform: np.ndarray) -> np.ndarray | None:
        """As the function of that name; None where it is left to NumPy."""

    def draw_steps(
        self,
        choices: Choices,
        program: np.ndarray,
        sample_ids: np.ndarray,
        kept: np.ndarray | None,
        *,
        seed: int,
        epoch: int,
        place: int,
    ) -> bool:
        """As the function of that name; False where it is left to NumPy, and what was written is to be overwritten."""

    def write_mixes(self, program: np.ndarray, numbers: np.ndarray, logarithms: np.ndarray) -> bool:
        """As the function of that name; False where it is left to NumPy, and nothing was done."""

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


def draw_steps(
    choices: Choices,
    program: np.ndarray,
    sample_ids: np.ndarray,
    *,
    seed: int,
    epoch: int,
    place: int,
    kept: np.ndarray | None = None,
) -> None:
    """Draw the steps of a batch from the numbers of a key, in one call of the library.

    Parameters
    ----------
    choices : Choices
        What is chosen from.
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`; the steps of a sample lie one after another. Written
        to, steps that do nothing last.
    sample_ids, seed, epoch, place
        Of the numbers: see `~gpuseq.plan.philox.philox_rows`.
    kept : numpy.ndarray or None
        Shape ``(N, K)``, float64, C-contiguous. Written to: the first K numbers of each sample.
    """
    key = {"seed": seed, "epoch": epoch, "place": place}
    if _compiled is not None and _compiled.draw_steps(choices, program, sample_ids, kept, **key):
        return
    uniform = philox_rows(sample_ids, choices.num_uniform, **key)
    if kept is not None:
        kept[...] = uniform[:, : kept.shape[1]]
    write_steps(program, choose_steps(choices, uniform))


def write_steps(program: np.ndarray, drawn: np.ndarray) -> None:
    """Copy what was drawn into a part of a program, steps that do nothing last.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`. Written to.
    drawn : numpy.ndarray
        Like it, C-contiguous. Written to.
    """
    put_identities_last(drawn)
    as_bytes(program)[...] = as_bytes(drawn)


def choose_steps(choices: Choices, uniform: np.ndarray) -> np.ndarray:
    """Return the steps that numbers ask for.

    Parameters
    ----------
    choices : Choices
        What is chosen from.
    uniform : numpy.ndarray
        Shape ``(N, num_uniform)``, float64 in [0, 1); of strengths that `lines` take, also finite ones above.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, S)``, dtype `~gpuseq.plan.program.STEP_DTYPE`.
    """
    if _compiled is not None:
        drawn = _compiled.choose_steps(choices, uniform)
        if drawn is not None:
            return drawn
    choice, strength, sign, coin = choices.columns.T
    num_tables, num_choices = choices.steps.shape
    # Never the number of choices itself: for the largest double below 1 the product rounds to the double below.
    place = (uniform[:, choice] * num_choices).astype(np.intp)
    if num_tables > 1:
        place += np.arange(0, num_tables * num_choices, num_choices)
    steps: np.ndarray = choices.steps.take(place)
    is_low = uniform[:, sign] <= 0.5
    if choices.arguments is not None:
        bins = place * choices.num_bins
        if choices.num_bins > 1:
            bins += (uniform[:, strength] * choices.num_bins).astype(np.intp)
        values = choices.arguments.take(2 * bins + is_low)
    else:
        assert choices.lines is not None
        number = uniform[:, strength]
        magnitude = number * choices.spread if choices.normal is None else _normal(number, *choices.normal)
        values = strengths(choices.lines.take(place), magnitude / choices.unit, is_low)
    steps["arg"][..., choices.argument] = values
    if choices.within is not None:
        number, limits = uniform[:, coin], choices.within.reshape(-1, 2).take(place, axis=0)
        steps[(number < limits[..., 0]) | (number >= limits[..., 1])] = np.zeros((), STEP_DTYPE)
    if choices.orders is not None:
        which = (uniform[:, choices.order] * len(choices.orders)).astype(np.intp)
        order = choices.orders.take(which, axis=0) + np.arange(len(steps))[:, None] * len(choice)
        steps = steps.reshape(-1).take(order)
    return steps


def _normal(uniform: np.ndarray, middle: float, deviation: float, most: float) -> np.ndarray:
    from statistics import NormalDist  # here, because it takes longer to import than all of this

    # The generator's least number stands for 0, which is at minus infinity.
    numbers = np.maximum(uniform, 2.0**-54)
    quantile = NormalDist(middle, deviation).inv_cdf
    magnitudes = np.array([*map(quantile, numbers.ravel().tolist())], np.float64).reshape(numbers.shape)
    return np.clip(magnitudes, 0.0, most)


def strengths(lines: np.ndarray, level: np.ndarray | float, is_low: np.ndarray) -> np.ndarray:
    """Return what steps take at a level.

    Parameters
    ----------
    lines : numpy.ndarray
        Any shape, dtype `LINE_DTYPE`.
    level : numpy.ndarray or float
        Finite, and not negative.
    is_low : numpy.ndarray
        Bool: whether the sign's number lies at a half or below.

    Returns
    -------
    numpy.ndarray
        The shape of all three together, float64.
    """
    values = level * lines["factor"]
    values = np.where(lines["is_whole"] != 0, np.floor(values), values)
    values = values * np.where(is_low, lines["signs"][..., 1], lines["signs"][..., 0]) + lines["offset"]
    held: np.ndarray = np.minimum(np.maximum(values, lines["least"]), lines["most"])
    return held


def write_mixes(program: np.ndarray, numbers: np.ndarray) -> None:
    """Write the first step of samples that are mixed, with weights of Dirichlet's distribution with alpha 1.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, 1)``, dtype `~gpuseq.plan.program.STEP_DTYPE`. Written to.
    numbers : numpy.ndarray
        Shape ``(N, 1 + C)``, float64 in [0, 1), C-contiguous: the share of the mixture, and one for each of C chains.
    """
    # By NumPy in any case: logarithms of other libraries differ from its own in their last digits.
    logarithms = np.log1p(-numbers[:, 1:])
    if _compiled is not None and _compiled.write_mixes(program, numbers, logarithms):
        return
    # Exponential numbers divided by their sum are Dirichlet's with alpha 1.
    waiting = -logarithms
    # One after another, as the library adds them: NumPy's own sum may be of pairs.
    total = functools.reduce(np.add, waiting.T)
    write_shares(program, numbers[:, 0], waiting / np.maximum(total, 2.0**-1000)[:, None])


def write_shares(program: np.ndarray, share: np.ndarray, weights: np.ndarray) -> None:
    """Write the first step of samples that are mixed.

    Parameters
    ----------
    program : numpy.ndarray
        Shape ``(N, 1)``, dtype `~gpuseq.plan.program.STEP_DTYPE`. Written to.
    share : numpy.ndarray
        Shape ``(N,)``: of the mixture.
    weights : numpy.ndarray
        Shape ``(N, C)``: of C chains in it.
    """
    program[...] = np.zeros((), STEP_DTYPE)
    program["op"] = code_of("AugMix")
    # timm blends in float32: weights are rounded to it here, so that a plan holds what is computed with.
    args = program["arg"][:, 0]
    args[:, 0], args[:, 1] = share.astype(np.float32), weights.shape[1]
    args[:, 2 : 2 + weights.shape[1]] = weights.astype(np.float32)


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
