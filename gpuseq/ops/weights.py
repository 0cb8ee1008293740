"""Weights of kernels, made on the host for every engine."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["gaussian_weights"]


def gaussian_weights(size: int, sigma: float) -> np.ndarray:
    """Return the weights of one side of a Gaussian kernel, float64, with sum 1."""
    # Beyond these the kernel is one pixel, or as many of one weight, and a square of sigma would be 0 or no number.
    sigma = min(max(sigma, 1e-100), 1e100)
    # Python's exp, and not NumPy's, whose last bit depends on the machine's instruction set.
    half = (size - 1) / 2
    bell = [math.exp(-((position - half) ** 2) / (2 * sigma**2)) for position in range(size)]
    total = math.fsum(bell)
    return np.array([weight / total for weight in bell])
