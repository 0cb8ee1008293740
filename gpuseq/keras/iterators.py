"""The iterators as data sets for Keras: each is a ``PyDataset``, and ``model.fit`` takes it as it is.

Before the first ``fit`` they count as Keras' own do, from then on by epoch.
"""

from __future__ import annotations

from gpuseq.iterators import arrays, files, iterator

from .backend import PY_DATASET
from .dataset import FitDataset, FitSource, IteratorSource

__all__ = ["DataFrameIterator", "DirectoryIterator", "Iterator", "NumpyArrayIterator"]


class _FitIterator(FitDataset):
    """An iterator that is its own source."""

    def _fit_source(self) -> FitSource:
        assert isinstance(self, iterator.Iterator)
        return IteratorSource(self, counts_as_keras=True)


class Iterator(_FitIterator, iterator.Iterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.Iterator` as a ``PyDataset``, for subclasses that make their own batches."""

    device = "cpu"


class NumpyArrayIterator(_FitIterator, arrays.NumpyArrayIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.NumpyArrayIterator` as a ``PyDataset``."""


class DirectoryIterator(_FitIterator, files.DirectoryIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DirectoryIterator` as a ``PyDataset``."""


class DataFrameIterator(_FitIterator, files.DataFrameIterator, PY_DATASET):  # type: ignore[misc]
    """`gpuseq.DataFrameIterator` as a ``PyDataset``."""
