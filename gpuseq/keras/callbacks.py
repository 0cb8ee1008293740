"""Callbacks for Keras: which epoch it is, and where the data stand, saved beside the model."""

from __future__ import annotations

import json
import os
from collections import deque
from typing import Any

from gpuseq.base.atomic import replacing
from gpuseq.base.errors import GpuseqError
from gpuseq.iterators.iterator import Iterator
from gpuseq.plan.state import at_batch

from .backend import keras
from .dataset import FitDataset

__all__ = ["SaveState", "SetEpoch"]


class _Callback(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback of Keras 3, which says so to tf_keras."""

    def _implements_train_batch_hooks(self) -> bool:
        # tf_keras asks this first, of each callback.
        raise GpuseqError(
            f"{type(self).__name__} is a callback of Keras 3. With tf_keras write "
            "tf_keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: dataset.set_epoch(epoch))"
        )


class SetEpoch(_Callback):
    """Tells data sets which epoch ``fit`` is in, so that ``initial_epoch`` and repeated calls give the right ones.

    Parameters
    ----------
    *datasets : Iterator
        Iterators of `gpuseq.keras`, what `to_keras` returns, or anything with ``set_epoch``.

    Raises
    ------
    TypeError
        If one has no ``set_epoch``, or is an iterator that ``fit`` does not take.
    """

    def __init__(self, *datasets: Any) -> None:
        super().__init__()
        for dataset in datasets:
            if not hasattr(dataset, "set_epoch"):
                raise TypeError(f"SetEpoch takes what fit takes, with set_epoch(epoch); got {type(dataset).__name__}")
            _refuse_plain(dataset, "SetEpoch")
        self.datasets = datasets

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go to the epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        logs : dict or None
            Not used.
        """
        for dataset in self.datasets:
            dataset.set_epoch(epoch)


class SaveState(_Callback):
    """Writes where the data stand beside the model's checkpoint: after the last batch that was trained on.

    Read it back with ``dataset.load_state_dict(json.load(open(path)))`` before ``fit``: the first batch is the one that
    would have come next, bit for bit.

    Parameters
    ----------
    dataset : Iterator
        What is handed to ``fit``.
    path : str or os.PathLike
        A JSON file; replaced whole, so that a crash leaves the old one or the new one.
    save_freq : "epoch" or int
        At the end of each epoch, or every so many batches.

    Raises
    ------
    TypeError
        If `dataset` is not what ``fit`` takes.
    GpuseqError
        If it has no state: a sequence of the user's own.
    ValueError
        If `save_freq` is neither.
    """

    def __init__(self, dataset: Any, path: str | os.PathLike[str], save_freq: str | int = "epoch") -> None:
        super().__init__()
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ValueError(f'save_freq must be "epoch" or a positive number of batches; got {save_freq!r}')
        _refuse_plain(dataset, "SaveState")
        if not isinstance(dataset, FitDataset):
            raise TypeError(
                f"SaveState takes an iterator of gpuseq.keras or iterator.to_keras(); got {type(dataset).__name__}"
            )
        # At construction, and not after the first epoch.
        dataset._fit.source.check_state()
        self.dataset: Any = dataset
        self.path = path
        self.save_freq = save_freq
        self._num_trained = 0
        self._num_in_epoch = 0
        self._last: tuple[int, int] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Count from here."""
        self._num_trained = 0
        self._last = None
        # From here on each place that is handed out is noted: Keras takes batches ahead of training.
        self.dataset._fit.progress.handed_out = deque()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the batches of the epoch from 0."""
        self._num_in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a batch as trained on, and save if it is time."""
        handed_out = self.dataset._fit.progress.handed_out
        # The last of several steps in one execution may lie beyond the end of the epoch.
        num_in_epoch = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        if len(handed_out) < num_in_epoch - self._num_in_epoch:
            raise GpuseqError(
                "fit trains on another data set than SaveState watches. Write model.fit(dataset, "
                "callbacks=[SaveState(dataset, path)]) with one dataset"
            )
        # Keras may call once for several batches (`steps_per_execution`).
        before = self._num_trained
        for _ in range(num_in_epoch - self._num_in_epoch):
            self._last = handed_out.popleft()
            self._num_trained += 1
        self._num_in_epoch = num_in_epoch
        if self.save_freq != "epoch" and self._num_trained // int(self.save_freq) > before // int(self.save_freq):
            self.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save."""
        if self.save_freq == "epoch":
            self.save()

    def save(self) -> None:
        """Write the file.

        Raises
        ------
        FileNotFoundError
            If its folder does not exist.
        """
        state = self.dataset.state_dict()
        if self._last is not None:
            epoch, index = self._last
            # The place after the last batch that was trained on; what was taken ahead is taken again.
            following = (epoch, index + 1) if index + 1 < len(self.dataset) else (epoch + 1, 0)
            state = at_batch(state, *following)
        with replacing(self.path) as path:
            path.write_text(json.dumps(state))


def _refuse_plain(dataset: Any, callback: str) -> None:
    if isinstance(dataset, Iterator) and not isinstance(dataset, FitDataset):
        raise TypeError(
            f"{callback} takes what fit takes, and fit does not take {type(dataset).__module__}."
            f"{type(dataset).__name__}. Write dataset = iterator.to_keras(), and hand dataset to both"
        )
