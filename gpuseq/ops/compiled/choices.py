"""Steps chosen by the library: those of `gpuseq.plan.choices`, which asks here first once this is imported."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np

from gpuseq.plan.choices import Choices, use_compiled
from gpuseq.plan.program import STEP_DTYPE

from .library import ChoicesTable, chosen

__all__ = ["ChoosingLibrary"]


class ChoosingLibrary:
    """Compiled twin of the functions of `gpuseq.plan.choices`."""

    def choose_steps(self, choices: Choices, uniform: np.ndarray) -> np.ndarray | None:
        """Return the steps that numbers ask for; None where they are left to NumPy."""
        instruction_set = chosen()
        if instruction_set is None:
            return None
        uniform = np.ascontiguousarray(uniform, np.float64)
        num_samples, num_uniform = uniform.shape
        program = np.empty((num_samples, choices.num_steps), STEP_DTYPE)
        table, _ = _table(choices)
        # Numbers outside of [0, 1), or too few of them, are NumPy's to refuse.
        is_done = instruction_set.functions.gpuseq_choose_steps(
            table, uniform.ctypes.data, num_samples, num_uniform, program.ctypes.data
        )
        return program if is_done else None

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
    held = choices.codes, choices.moves.astype(np.uint8), choices.arguments
    table = ChoicesTable(
        *(array.ctypes.data for array in held),
        *(len(choices.codes), choices.num_bins, choices.num_steps),
        *(choices.choice, choices.sign, choices.number, choices.stride, choices.bin, choices.bilinear),
        (ctypes.c_uint8 * 4)(*choices.fill),
    )
    return ctypes.addressof(table), (table, held)


use_compiled(ChoosingLibrary())
