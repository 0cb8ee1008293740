"""Steps chosen by the library: those of `gpuseq.plan.choices`, which asks here first once this is imported."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from gpuseq.plan.choices import Choices, use_compiled
from gpuseq.plan.program import STEP_DTYPE, code_of

from .library import ChoicesTable, InstructionSet, chosen
from .philox import as_counters, fits_a_key

__all__ = ["ChoosingLibrary"]

_MIX = code_of("AugMix")


class ChoosingLibrary:
    """Compiled twin of the functions of `gpuseq.plan.choices`."""

    def choose_steps(self, choices: Choices, uniform: np.ndarray) -> np.ndarray | None:
        """Return the steps that numbers ask for; None where they are left to NumPy."""
        instruction_set = chosen()
        if instruction_set is None:
            return None
        if choices.normal is not None and not _has_pythons_quantiles(instruction_set):
            return None
        uniform = np.ascontiguousarray(uniform, np.float64)
        num_samples, num_uniform = uniform.shape
        program = np.empty((num_samples, len(choices.columns)), STEP_DTYPE)
        table, _ = _table(choices)
        # Numbers outside of [0, 1), or too few of them, are NumPy's to refuse.
        is_done = instruction_set.functions.gpuseq_choose_steps(
            table, uniform.ctypes.data, num_samples, num_uniform, program.ctypes.data
        )
        return program if is_done else None

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
        """Draw the steps of a batch; False where they are left to NumPy."""
        instruction_set = chosen()
        # What is no key is NumPy's to refuse.
        if instruction_set is None or not fits_a_key(seed, epoch):
            return False
        if choices.normal is not None and not _has_pythons_quantiles(instruction_set):
            return False
        ids = as_counters(sample_ids)
        table, _ = _table(choices)
        is_done = instruction_set.functions.gpuseq_draw_steps(
            *(table, ids.ctypes.data, len(ids), seed, epoch, 1 + place),
            *(program.ctypes.data, program.strides[0] // STEP_DTYPE.itemsize),
            *(None, 0) if kept is None else (kept.ctypes.data, kept.shape[1]),
        )
        return bool(is_done)

    def write_mixes(self, program: np.ndarray, numbers: np.ndarray, logarithms: np.ndarray) -> bool:
        """Write the first step of each sample that is mixed; False where the environment asks for NumPy."""
        instruction_set = chosen()
        if instruction_set is None:
            return False
        assert numbers.flags.c_contiguous
        assert logarithms.flags.c_contiguous
        instruction_set.functions.gpuseq_write_mixes(
            *(numbers.ctypes.data, logarithms.ctypes.data, *logarithms.shape, _MIX),
            *(program.ctypes.data, program.strides[0] // STEP_DTYPE.itemsize),
        )
        return True

    def put_identities_last(self, program: np.ndarray) -> bool:
        """Bring the steps of each sample together; False where the environment asks for NumPy."""
        instruction_set = chosen()
        if instruction_set is None:
            return False
        assert program.flags.c_contiguous
        instruction_set.functions.gpuseq_put_identities_last(program.ctypes.data, *program.shape)
        return True


# The same for every batch: a table is kept, and what it points at with it.
@lru_cache(maxsize=64)
def _table(choices: Choices) -> tuple[int, Any]:
    """Return where the library reads choices, and what must live as long."""
    held = [
        None if array is None else np.ascontiguousarray(array)
        for array in (
            *(choices.steps, choices.columns, choices.arguments, choices.lines, choices.within),
            choices.orders,
        )
    ]
    table = ChoicesTable(
        *(None if array is None else array.ctypes.data for array in held),
        *choices.steps.shape,
        *(choices.num_bins, len(choices.columns), choices.num_uniform, choices.argument),
        *(0 if choices.orders is None else len(choices.orders), choices.order),
        *(choices.spread, choices.unit, *(choices.normal or (0.0, 0.0, 0.0))),
    )
    return ctypes.addressof(table), (table, held)


# Python's own was compiled by others: where that compiler joins products and sums, or the logarithm is another one,
# last digits differ. Then Python is asked for every number, as by NumPy's engine.
@lru_cache(maxsize=8)
def _has_pythons_quantiles(instruction_set: InstructionSet) -> bool:
    """Tell whether the library's quantiles of normal distributions are those of `statistics.NormalDist`, to the bit."""
    from statistics import NormalDist  # here, because it takes longer to import than all of this

    numbers = np.concatenate([np.linspace(2.0**-54, 1 - 2.0**-53, 1001), 2.0 ** np.linspace(-54, -1, 1000)])
    found = np.empty_like(numbers)
    instruction_set.functions.gpuseq_normal_quantiles(numbers.ctypes.data, len(numbers), 9.0, 0.5, found.ctypes.data)
    quantile = NormalDist(9.0, 0.5).inv_cdf
    return bool(found.tolist() == [*map(quantile, numbers.tolist())])


use_compiled(ChoosingLibrary())
