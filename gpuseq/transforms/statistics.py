"""Statistics of a data set by mergeable partial sums: per-channel mean and standard deviation, and the ZCA matrix.

And the JSON files that mean and standard deviation are kept in.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuseq.base.atomic import replacing
from gpuseq.base.devices import array_module, is_cupy, on_device
from gpuseq.base.forks import LINEAR_ALGEBRA, forks_wait
from gpuseq.base.machine import available_memory
from gpuseq.base.types import Array

__all__ = [
    "ChannelMoments",
    "Fitted",
    "fit_chunks",
    "fit_dtype",
    "image_chunks",
    "per_channel",
    "per_channel_of",
    "read_statistics",
    "rescaled",
    "whitening_matrix",
    "write_statistics",
]

CHUNK_VALUES = 1 << 24
"""Values that `fit` looks at together: 64 MiB of float32."""

NOT_PER_CHANNEL = (
    "save_statistics() keeps one mean and std per channel: keep a whitening matrix, or statistics per pixel, with "
    "numpy.save(path, generator.zca_whitening_matrix)"
)


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
            # Two passes over a part that fits in memory: deviations from its mean keep the digits that the square of a
            # sum loses.
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
        # By the distance of the means (Chan, Golub and LeVeque): sums of squares would lose the digits of bright, even
        # images.
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
    # Asked before the work: the result and its factors in double, LAPACK's copies in the dtype of the images.
    needed = 8 * size * (size + rank) + flat_nd.itemsize * size * (2 * rank + 2 * num_samples)
    free = available_memory()
    if needed > free:
        raise MemoryError(
            f"zca_whitening of {num_samples} images of {size} values needs about {needed / 1e9:.1f} GB for a "
            f"{size} x {size} matrix and its factors; {free / 1e9:.1f} GB are free. Use smaller images, or "
            "featurewise_std_normalization"
        )
    # As Keras, of the transposed images, whose left vectors are the components: a D x D covariance would square the
    # condition.
    with forks_wait(LINEAR_ALGEBRA):
        basis, singular, _ = np.linalg.svd(flat_nd.T, full_matrices=False)
    # Keras' formula, U S^-1 U^T, with the columns of U scaled in the place of a diagonal matrix.
    scaled: np.ndarray = basis * (np.sqrt(np.float64(num_samples)) / (singular + epsilon))
    with forks_wait(LINEAR_ALGEBRA):
        matrix: np.ndarray = scaled.dot(basis.T)
    return matrix


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` found; None for what was not asked for.

    Attributes
    ----------
    mean, std : numpy.ndarray or None
        Shape ``(1, 1, C)`` or ``(C, 1, 1)``, float32, or float64 for a generator of that dtype.
    whitening : numpy.ndarray or None
        Shape ``(D, D)``, float64.
    """

    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    whitening: np.ndarray | None = None


def fit_dtype(dtype: str) -> np.dtype[np.floating]:
    """Return the dtype that images are looked at in, and that statistics are kept in.

    Parameters
    ----------
    dtype : str
        Of the generator's batches.
    """
    return np.dtype(np.float64 if dtype == "float64" else np.float32)


def per_channel(values: np.ndarray, channel_axis: int, dtype: Any) -> np.ndarray:
    """Return one number per channel in the shape and dtype that `fit` gives them.

    Parameters
    ----------
    values : numpy.ndarray
        Shape ``(C,)``.
    channel_axis : int
        1 or 3, of a batch.
    dtype : dtype
        See `fit_dtype`.
    """
    shape = [1, 1, 1]
    shape[channel_axis - 1] = values.size
    return values.astype(dtype).reshape(shape)


def per_channel_of(values: Any, num_channels: int, data_format: str) -> np.ndarray | None:
    """Return a user's mean or std as one number per channel, shape ``(C,)``, on the host.

    Parameters
    ----------
    values : array, number or None
        Whatever broadcasts against an image, as far as Keras is concerned.
    num_channels : int
        Of the images.
    data_format : {"channels_last", "channels_first"}
        Axis order of the images that it is subtracted from.

    Raises
    ------
    ValueError
        If it is not one number per channel: one per pixel, or of other channels.
    """
    if values is None:
        return None
    values = np.asarray(values.get() if is_cupy(values) else values)
    if values.ndim == 0:
        return np.full(num_channels, values)
    axis = values.ndim - (1 if data_format == "channels_last" else 3)
    if axis < 0 or values.shape[axis] != values.size or values.size not in (1, num_channels):
        raise ValueError(f"shape {values.shape} is not one number for each of {num_channels} channels")
    return np.broadcast_to(values.reshape(-1), num_channels).copy()


def rescaled(images: Array, dtype: Any, rescale: float | None) -> Array:
    """Return a copy of images in a floating dtype, multiplied with a factor where there is one.

    Parameters
    ----------
    images : array
        On the host or a device.
    dtype : dtype
        See `fit_dtype`.
    rescale : float or None
        The factor.
    """
    with on_device(images):
        copy = images.astype(dtype)
        if rescale:
            copy *= copy.dtype.type(rescale)
        return copy


def image_chunks(
    num_images: int, image_shape: tuple[int, ...], total: int, make: Callable[[np.ndarray, slice], Array]
) -> Iterator[Array]:
    """Yield what `fit` looks at, in pieces of bounded size.

    Parameters
    ----------
    num_images : int
        How many there are.
    image_shape : tuple of int
        Of each.
    total : int
        How many are looked at: the images one after the other, as often as it takes.
    make : callable
        Gets the rows of the images, int64, and the part of `total` that they are; returns the piece.
    """
    step = max(1, CHUNK_VALUES // max(1, math.prod(image_shape)))
    for start in range(0, total, step):
        part = slice(start, min(start + step, total))
        # Modulo, because further rounds take the same images again.
        yield make(np.arange(part.start, part.stop) % num_images, part)


def fit_chunks(
    chunks: Iterable[Array], channel_axis: int, dtype: Any, *, center: bool, std: bool, whitening_epsilon: float | None
) -> Fitted:
    """Find statistics of rescaled images that come in pieces; each is looked at once, and kept only for whitening.

    Parameters
    ----------
    chunks : iterable of array
        Each of rank 4, on the host or a device.
    channel_axis : int
        1 or 3.
    dtype : dtype
        See `fit_dtype`.
    center, std : bool
        What is asked for.
    whitening_epsilon : float or None
        Added to the singular values. None: no whitening matrix.

    Raises
    ------
    ValueError
        If there is no image.
    MemoryError
        See `whitening_matrix`.
    """
    moments: ChannelMoments | None = None
    kept: list[np.ndarray] = []
    for chunk in chunks:
        part = ChannelMoments.of(chunk, channel_axis)
        moments = part if moments is None else moments.merge(part)
        if whitening_epsilon is not None:
            # On the host, where LAPACK works: the matrix needs all of the images at once, and a device may not hold
            # them.
            kept.append(chunk.get() if is_cupy(chunk) else chunk)
    if moments is None:
        raise ValueError("fit() found no images")
    mean = per_channel(moments.mean, channel_axis, dtype) if center else None
    matrix = None
    if whitening_epsilon is not None:
        # Centred only where the generator centres, as in Keras.
        flat = np.concatenate([(chunk if mean is None else chunk - mean).reshape(len(chunk), -1) for chunk in kept])
        matrix = whitening_matrix(flat, whitening_epsilon)
    return Fitted(mean, per_channel(moments.std, channel_axis, dtype) if std else None, matrix)


# Files of statistics.


def write_statistics(
    path: str | os.PathLike[str], found: Mapping[str, Any], rescale: float, facts: Mapping[str, Any]
) -> None:
    """Write mean and std to a JSON file, whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    found : mapping of str to array
        "mean" and "std", one number per channel each.
    rescale : float
        What the images were multiplied with.
    facts : mapping
        Written beside them.

    Raises
    ------
    ValueError
        If one is more than one number per channel.
    """
    lists = {}
    for name, values in found.items():
        host = np.asarray(values.get() if is_cupy(values) else values)
        # One axis has all values, whichever it is.
        if host.size != max(host.shape, default=1):
            raise ValueError(NOT_PER_CHANNEL)
        lists[name] = host.reshape(-1).tolist()
    import json

    with replacing(path) as temporary:
        text = json.dumps({**lists, "rescale": rescale, **facts}, indent=2)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_statistics(path: str | os.PathLike[str], names: Iterable[str], rescale: float) -> dict[str, np.ndarray]:
    """Read mean or std, brought to a factor that images are multiplied with.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    names : iterable of str
        "mean", "std".
    rescale : float
        The generator's factor; the file says under which one its values were found.

    Returns
    -------
    dict of str to numpy.ndarray
        Shape ``(C,)``, float64.

    Raises
    ------
    ValueError
        If the file does not hold them.
    FileNotFoundError
        If there is no such file.
    """
    import json

    names = list(names)
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        values = {name: _numbers(name, found[name]) for name in names}
        (divisor,) = _numbers("rescale", [found.get("rescale", 1.0)])
        if not divisor:
            raise ValueError("rescale is 0")
        if len({len(per_channel) for per_channel in values.values()}) > 1:
            raise ValueError("mean and std have different numbers of channels")
        # A mean follows the factor with its sign, a deviation without.
        factors = {"mean": rescale / divisor, "std": abs(rescale / divisor)}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} does not hold the {' and '.join(names)} that this generator asks for "
            f"({type(error).__name__}: {error}). Such files are written by save_statistics() and `gpuseq fit`"
        ) from None
    return {name: per_channel * factors[name] for name, per_channel in values.items()}


def _numbers(name: str, values: Any) -> np.ndarray:
    if not isinstance(values, list) or not values:
        raise TypeError(f"{name} is no list of numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} holds {value!r}, which is no number")
        # Also refuses NaN and infinity, which Python's json reads.
        if not abs(value) <= sys.float_info.max or (name == "std" and value < 0):
            raise ValueError(f"{name} holds {value!r}")
    return np.array(values, np.float64)
