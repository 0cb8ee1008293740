"""Numbers by key from the library: those of `gpuseq.plan.philox`, which asks here first once this is imported."""

from __future__ import annotations

import numpy as np

from gpuseq.plan.philox import use_compiled

from .library import chosen

__all__ = ["as_counters", "fits_a_key", "uniform_rows"]


def uniform_rows(sample_ids: np.ndarray, num_doubles: int, *, seed: int, epoch: int, space: int) -> np.ndarray | None:
    """Compiled twin of `gpuseq.plan.philox.philox_rows`; None where it is left to NumPy.

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
    # What is no key is NumPy's to refuse.
    if instruction_set is None or not fits_a_key(seed, epoch):
        return None
    ids = as_counters(sample_ids)
    drawn = np.empty((len(ids), num_doubles))
    instruction_set.functions.gpuseq_philox(
        ids.ctypes.data, len(ids), num_doubles, seed, epoch, space, drawn.ctypes.data
    )
    return drawn


def fits_a_key(seed: int, epoch: int) -> bool:
    """Tell whether both are words of 64 bits; ctypes would cut others off without a word."""
    return 0 <= seed < 1 << 64 and 0 <= epoch < 1 << 64


def as_counters(sample_ids: np.ndarray) -> np.ndarray:
    """Return sample numbers as words of 64 bits that lie one after another: themselves where they do."""
    # None is negative, so that int64 has the bits of uint64.
    return sample_ids if sample_ids.dtype == np.int64 and sample_ids.flags.c_contiguous else _copied(sample_ids)


def _copied(sample_ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(sample_ids).astype(np.uint64)


use_compiled(uniform_rows)
