"""Callbacks for Keras: which epoch it is, and where the data stand, saved beside the model."""

from __future__ import annotations

import json
import os
from collections import deque
from typing import Any

from .atomic import replacing
from .fitdata import keras, state_at

__all__ = ["SaveState", "SetEpoch"]


class SetEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells data sets which epoch ``fit`` is in, so that ``initial_epoch`` and repeated calls give the right ones.

    Parameters
    ----------
    *datasets : Iterator
        Iterators of `gpuseq.keras`, what `to_keras` returns, or anything with ``set_epoch``.
    """

    def __init__(self, *datasets: Any) -> None:
        super().__init__()
        for dataset in datasets:
            if not hasattr(dataset, "set_epoch"):
                raise TypeError(f"SetEpoch takes what fit takes, with set_epoch(epoch); got {type(dataset).__name__}")
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


class SaveState(keras.callbacks.Callback):  # type: ignore[misc]
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
    """

    def __init__(self, dataset: Any, path: str | os.PathLike[str], save_freq: str | int = "epoch") -> None:
        super().__init__()
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ValueError(f'save_freq must be "epoch" or a positive number of batches; got {save_freq!r}')
        self.dataset = dataset
        self.path = path
        self.save_freq = save_freq
        self._num_trained = 0
        self._num_in_epoch = 0
        self._last: tuple[int, int] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Count from here."""
        self._num_trained = 0
        self._last = None
        self.dataset._fit_walk.handed_out = deque()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the batches of the epoch from 0."""
        self._num_in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a batch as trained on, and save if it is time."""
        handed_out = self.dataset._fit_walk.handed_out
        for _ in range(batch + 1 - self._num_in_epoch):
            self._last = handed_out.popleft()
            self._num_trained += 1
        self._num_in_epoch = batch + 1
        if self.save_freq != "epoch" and self._num_trained % int(self.save_freq) == 0:
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
            following = (epoch, index + 1) if index + 1 < len(self.dataset) else (epoch + 1, 0)
            state = state_at(state, *following)
        with replacing(self.path) as path:
            path.write_text(json.dumps(state))
