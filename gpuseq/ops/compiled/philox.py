"""Numbers by key from the library: those of `gpuseq.plan.philox`, which asks here first once this is imported."""

from __future__ import annotations

import numpy as np

from gpuseq.plan.philox import use_compiled

from .library import chosen

__all__ = ["uniform_rows"]


def uniform_rows(sample_ids: np.ndarray, num_doubles: int, *, seed: int, epoch: int, space: int) -> np.ndarray | None:
    """Compiled twin of `gpuseq.plan.philox.philox_rows`; None where the environment asks for NumPy.

    Parameters
    ----------
    sample_ids, num_doubles, seed, epoch
        As there.
    space : int
        The third word of the counters; 0 stands for those of `~gpuseq.plan.philox.philox_uniform`.

    References
    ----------
    As `~gpuseq.plan.philox.philox_uniform`.
    """
    instruction_set = chosen()
    if instruction_set is None:
        return None
    # As NumPy does, this refuses what does not fit a word of the key.
    key = np.array([seed, epoch], np.uint64)
    ids, drawn = sample_ids.astype(np.uint64), np.empty((len(sample_ids), num_doubles))
    instruction_set.functions.gpuseq_philox(
        ids.ctypes.data, len(ids), num_doubles, key.ctypes.data, space, drawn.ctypes.data
    )
    return drawn


use_compiled(uniform_rows)
