"""Dirichlet's and Beta's distributions from a fixed count of numbers in [0, 1), so that no sample moves another's."""

from __future__ import annotations

import numpy as np

__all__ = ["NUM_UNIFORM", "shares"]

_TRIES = 8
"""Of which each is taken with a chance of more than 95 %, and the last one in any case."""

NUM_UNIFORM = 3 * _TRIES + 1
"""Numbers for each share."""


def shares(uniform: np.ndarray, alpha: float) -> np.ndarray:
    """Return shares with sum 1, from Dirichlet's distribution with the same parameter for all; two of them are Beta's.

    Parameters
    ----------
    uniform : numpy.ndarray
        Shape ``(N, S, NUM_UNIFORM)``, float64 in [0, 1).
    alpha : float
        Above 0.

    Returns
    -------
    numpy.ndarray
        Shape ``(N, S)``, float64.

    References
    ----------
    Marsaglia and Tsang, "A simple method for generating gamma variables", 2000; Box and Muller, "A note on the
    generation of random normal deviates", 1958.
    """
    kept = 1.0 - uniform  # in (0, 1]: it has a logarithm
    first, second, third = kept[..., 1::3], uniform[..., 2::3], kept[..., 3::3]
    normal = np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)
    # Below 1 the next higher parameter is taken, and a power of one more number makes up for it.
    shape = alpha + (alpha < 1.0) - 1 / 3
    # What is not above 0 has no logarithm. A tiny number in its place fails the comparison below, as the method has it.
    cube = np.maximum(1.0 + normal / np.sqrt(9.0 * shape), 2.0**-100) ** 3
    accepted = np.log(third) < 0.5 * normal**2 + shape * (1.0 - cube + np.log(cube))
    # A loop until one is accepted would take another count of numbers for each sample.
    accepted[..., -1] = True
    chosen = np.argmax(accepted, axis=-1)[..., None]
    logarithm = np.log(shape * np.take_along_axis(cube, chosen, axis=-1)[..., 0])
    if alpha < 1.0:
        logarithm += np.log(kept[..., 0]) / alpha
    # By their logarithms: with a small parameter all would be too small for a number.
    weights = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
    made: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return made
