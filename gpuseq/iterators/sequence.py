"""`Sequence`, the batch-by-index contract of Keras."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterator as IteratorABC
from importlib import import_module
from typing import Any

from gpuseq.base.arguments import checked_arguments

__all__ = ["Sequence"]


# A metaclass, so that iterators can be registered: they have methods of their own for all of it.
class Sequence(metaclass=ABCMeta):  # noqa: B024
    """A data set as batches by index: ``sequence[i]`` for i in ``range(len(sequence))``, each exactly once per epoch.

    Subclass it as you would ``keras.utils.Sequence``: write ``__getitem__`` and ``__len__``, and `on_epoch_end` if the
    data change between epochs. No Keras or TensorFlow is imported, whichever is installed.

    Parameters
    ----------
    workers : int
        How many threads may fetch batches at once.
    use_multiprocessing : bool
        Kept for code that passes it.
    max_queue_size : int
        How many batches may wait for their turn.

    References
    ----------
    ``keras.utils.Sequence`` (Keras 2) and ``keras.utils.PyDataset`` (Keras 3).
    """

    @checked_arguments()
    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`.

        Parameters
        ----------
        index : int
            0 to ``len(self) - 1``.

        Raises
        ------
        NotImplementedError
            Always, here: subclasses write it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

    def __len__(self) -> int:
        """Return the number of batches in an epoch.

        Raises
        ------
        NotImplementedError
            Always, here: subclasses write it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __len__()")

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch, under the name that Keras 3 asks for."""
        return len(self)

    def on_epoch_end(self) -> None:  # noqa: B027
        """Do what is due between epochs: nothing, unless a subclass says so."""

    def to_keras(self, **options: Any) -> Any:
        """Return this data set as a ``keras.utils.PyDataset`` for ``model.fit``. Imports Keras.

        Parameters
        ----------
        **options
            ``class_weight``, and for a sequence ``prefetch`` and ``workers``, as `gpuseq.keras.to_keras` takes them.

        Raises
        ------
        MissingDependencyError
            If Keras or its backend is not installed.
        """
        # The one way up from this room: by name and when called, so that no Keras is imported before it is asked for.
        return import_module("gpuseq.keras").to_keras(self, **options)

    def __repr__(self) -> str:
        # Keras shows this line where the object is handed to fit as it is.
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name}: for model.fit write model.fit(dataset.to_keras()), or subclass gpuseq.keras.Sequence>"

    def __iter__(self) -> IteratorABC[Any]:
        """Yield the batches of one epoch, in order."""
        # Once and not for ever, unlike an `Iterator`: without an end `list(sequence)` would have none.
        for index in range(len(self)):
            yield self[index]
