"""The iterators as data sets for Keras: each is a ``PyDataset``, and ``model.fit`` takes it as it is.

Before the first ``fit`` they count as Keras' own do, from then on by epoch.
"""

from __future__ import annotations

from gpuseq.iterators import arrays, folders, frames, iterator

from .backend import PY_DATASET
from .dataset import FitDataset

__all__ = ["DataFrameIterator", "DirectoryIterator", "Iterator", "NumpyArrayIterator"]


class Iterator(FitDataset, iterator.Iterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.Iterator` as a ``PyDataset``, for subclasses that make their own batches."""

    device = "cpu"


class NumpyArrayIterator(FitDataset, arrays.NumpyArrayIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.NumpyArrayIterator` as a ``PyDataset``."""


class DirectoryIterator(FitDataset, folders.DirectoryIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DirectoryIterator` as a ``PyDataset``."""


class DataFrameIterator(FitDataset, frames.DataFrameIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DataFrameIterator` as a ``PyDataset``."""
