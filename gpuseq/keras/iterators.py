"""The iterators as data sets for Keras: each is a ``PyDataset``, and ``model.fit`` takes it as it is.

Before the first ``fit`` they count as Keras' own do, from then on by epoch.
"""

from __future__ import annotations

from gpuseq.iterators import arrays, folders, frames, iterator

from .backend import PY_DATASET
from .dataset import for_fit

__all__ = ["DataFrameIterator", "DirectoryIterator", "Iterator", "NumpyArrayIterator"]


@for_fit
class Iterator(iterator.Iterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.Iterator` as a ``PyDataset``, for subclasses that make their own batches."""

    device = "cpu"


@for_fit
class NumpyArrayIterator(arrays.NumpyArrayIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.NumpyArrayIterator` as a ``PyDataset``."""


@for_fit
class DirectoryIterator(folders.DirectoryIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DirectoryIterator` as a ``PyDataset``."""


@for_fit
class DataFrameIterator(frames.DataFrameIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DataFrameIterator` as a ``PyDataset``."""
