"""Statistics of a data set by mergeable partial sums: per-channel mean and standard deviation, and the ZCA matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuseq.base.devices import array_module, on_device
from gpuseq.base.machine import available_memory
from gpuseq.base.types import Array

__all__ = ["ChannelMoments", "whitening_matrix"]


@dataclass(frozen=True)
class ChannelMoments:
    """Count, mean and sum of squared deviations per channel, in float64; those of two parts merge into the whole's.

    Attributes
    ----------
    count : int
        Pixels per channel.
    mean, deviation : numpy.ndarray
        Shape ``(C,)``, float64, on the host; `deviation` is the sum of ``(x - mean)**2``.

    References
    ----------
    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    count: int
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, batch: Array, channel_axis: int) -> ChannelMoments:
        """Take the moments of a batch.

        Parameters
        ----------
        batch : array
            Rank 4, on the host or a device.
        channel_axis : int
            1 or 3.
        """
        xp = array_module(batch)
        axes = tuple(axis for axis in range(4) if axis != channel_axis)
        with on_device(batch):
            mean = batch.mean(axis=axes, dtype=np.float64, keepdims=True)
            deviation = xp.square(batch - mean).sum(axis=axes)
            host = [item.get() if hasattr(item, "get") else item for item in (mean.reshape(-1), deviation)]
        return cls(batch.size // batch.shape[channel_axis], host[0], host[1])

    def merge(self, other: ChannelMoments) -> ChannelMoments:
        """Return the moments of both parts together.

        Parameters
        ----------
        other : ChannelMoments
            Of another part, same channels.
        """
        count = self.count + other.count
        step = other.mean - self.mean
        return ChannelMoments(
            count,
            self.mean + step * (other.count / count),
            self.deviation + other.deviation + step**2 * (self.count * other.count / count),
        )

    @property
    def std(self) -> np.ndarray:
        """Standard deviation (divided by the count), shape ``(C,)``, float64."""
        return np.sqrt(self.deviation / self.count)


def whitening_matrix(flat_nd: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the ZCA matrix of centred samples.

    Parameters
    ----------
    flat_nd : numpy.ndarray
        Shape ``(n, D)``, floating, on the host: one flattened, centred image per row.
    epsilon : float
        Added to the singular values.

    Returns
    -------
    numpy.ndarray
        Shape ``(D, D)``, float64, on the host.

    Raises
    ------
    MemoryError
        If it would need more than the machine has; the message says how much.

    References
    ----------
    ``ImageDataGenerator.fit`` of Keras 3.15; Bell and Sejnowski, "The independent components of natural scenes are edge
    filters", 1997.
    """
    num_samples, size = flat_nd.shape
    rank = min(num_samples, size)
    needed = 8 * size * (size + rank) + flat_nd.itemsize * size * (2 * rank + 2 * num_samples)
    free = available_memory()
    if needed > free:
        raise MemoryError(
            f"zca_whitening of {num_samples} images of {size} values needs about {needed / 1e9:.1f} GB for a "
            f"{size} x {size} matrix and its factors; {free / 1e9:.1f} GB are free. Use smaller images, or "
            "featurewise_std_normalization"
        )
    basis, singular, _ = np.linalg.svd(flat_nd.T, full_matrices=False)
    scaled: np.ndarray = basis * (np.sqrt(np.float64(num_samples)) / (singular + epsilon))
    matrix: np.ndarray = scaled.dot(basis.T)
    return matrix
