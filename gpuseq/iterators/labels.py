"""What stands beside the images of a batch, gathered by sample: labels, weights, masks, further inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuseq.base.devices import place
from gpuseq.base.types import Array

__all__ = ["assemble", "class_labels", "gathered", "raw_targets"]


def gathered(values: Any, sample_indices: np.ndarray, device: str) -> Any:
    """Return the entries of some samples where the batch is made.

    Parameters
    ----------
    values : numpy.ndarray
        Shape ``(n, ...)``, on the host: one entry per sample of the data set.
    sample_indices : numpy.ndarray
        Shape ``(N,)``, int64.
    device : str
        ``"cpu"`` or ``"cuda:N"``. Python objects stay on the host.
    """
    found = values[sample_indices]
    return found if found.dtype == object else place(found, device)


def raw_targets(values: Any) -> np.ndarray:
    """Return the values of one or several columns of a data frame as they are, lists of numbers stacked.

    Parameters
    ----------
    values : array
        What pandas gives for the columns: shape ``(n,)`` or ``(n, columns)``.

    Returns
    -------
    numpy.ndarray
        `values`, and of a column of rows of numbers one array with them, unless its dtype would change one of them:
        text beside numbers, a large integer beside a fraction, a truth value beside a number.
    """
    targets = np.asarray(values)
    is_rows = targets.dtype == object and targets.ndim == 1
    if not is_rows or not all(isinstance(row, (list, tuple, np.ndarray)) for row in targets):
        return targets
    stacked = np.array([np.asarray(row) for row in targets])
    before = np.array([np.asarray(row, object).tolist() for row in targets], object).ravel().tolist()
    # Python compares numbers of different types exactly.
    is_kept = all(
        (was == now or was != was) and isinstance(was, (bool, np.bool_)) == isinstance(now, bool)
        for was, now in zip(before, stacked.ravel().tolist(), strict=True)
    )
    return stacked if is_kept else targets


def class_labels(
    classes: Any, class_indices: Mapping[str, int], class_mode: str, sample_indices: np.ndarray, dtype: str
) -> np.ndarray:
    """Return class indices, or one-hot rows, of some samples.

    Parameters
    ----------
    classes : numpy.ndarray or list
        Class index of each sample of the data set; a list, as Keras keeps those of a data frame, may hold several per
        sample.
    class_indices : mapping
        Class name to index.
    class_mode : {"binary", "sparse", "categorical"}
        Indices for the first two, rows for the last.
    sample_indices : numpy.ndarray
        Shape ``(N,)``, int64.
    dtype : str
        Of the labels.

    Returns
    -------
    numpy.ndarray
        Shape ``(N,)`` or ``(N, classes)``, on the host.
    """
    if isinstance(classes, np.ndarray):
        found: Any = classes[sample_indices]
    else:
        found = [classes[index] for index in sample_indices.tolist()]
    if class_mode != "categorical":
        return np.asarray(found, dtype)
    one_hot = np.zeros((len(sample_indices), len(class_indices)), dtype)
    if isinstance(found, list) and any(isinstance(item, (list, tuple)) for item in found):
        for row, columns in enumerate(found):
            one_hot[row, columns] = 1
    else:
        one_hot[np.arange(len(found)), found] = 1
    return one_hot


def assemble(
    images: Array,
    labels: Any,
    sample_weight: Array | None,
    *,
    further_inputs: Sequence[Array] = (),
    masks: Any = None,
    shard_weights: Array | None = None,
) -> Any:
    """Put the parts of a batch together as Keras does: x, ``(x, y)`` or ``(x, y, sample_weight)``.

    Parameters
    ----------
    images : array
        The images.
    labels : array, list of array or None
        Theirs.
    sample_weight : array or None
        Shape ``(N,)``. Without labels or masks beside it, it is left out, as Keras leaves it out.
    further_inputs : sequence of array
        Beside the images: then x is a list.
    masks : array, list of array or None
        In the place of labels.
    shard_weights : array or None
        Shape ``(N,)``, float32: 0 for samples that only fill up a shard. Multiplied into the weights.
    """
    x = [images, *further_inputs] if further_inputs else images
    y = labels if masks is None else masks
    weight = None if y is None else sample_weight
    if shard_weights is not None:
        weight = shard_weights if weight is None else weight * shard_weights
    if weight is not None:
        return x, y, weight
    return x if y is None else (x, y)
