"""How far two answers may lie apart, said once.

The promise is made on a 0..255 scale: a pixel may differ by 1e-3, a normalised output by 1e-2. An output that was
rescaled or normalised carries that promise with it, in units of its own scale.
"""

from __future__ import annotations

import numpy as np

__all__ = ["EXACT", "NORMALISED", "PIXELS", "unit_of"]

EXACT = 0.0
"""Order 0, flips, decoding and resizing: the same bits."""

PIXELS = 1e-3
"""Augmented pixels, on a 0..255 scale."""

NORMALISED = 1e-2
"""Centred, divided or whitened outputs, on a 0..255 scale."""


def unit_of(expected: np.ndarray) -> float:
    """Return what one level of a 0..255 scale is worth in `expected`: its largest span from zero or from end to end.

    Parameters
    ----------
    expected : numpy.ndarray
        A batch or image of any shape and a real dtype, never written to.

    Returns
    -------
    float
        Positive; 1.0 where `expected` spans 0..255, and for an empty or all-zero array.
    """
    if expected.size == 0:
        return 1.0
    values = expected.astype(np.float64)
    span = max(float(np.abs(values).max()), float(np.ptp(values)))
    return span / 255.0 if span > 0 and np.isfinite(span) else 1.0
