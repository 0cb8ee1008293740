"""Callbacks for Keras: which epoch it is, and where the data stand, saved beside the model."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from gpuseq.base.atomic import replacing
from gpuseq.base.errors import GpuseqError
from gpuseq.iterators.iterator import Iterator
from gpuseq.plan.state import at_batch

from .backend import keras
from .dataset import is_for_fit

__all__ = ["SaveState", "Saved", "SetEpoch"]


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


class Saved(NamedTuple):
    """What `SaveState.restore` found.

    Attributes
    ----------
    epoch, batch_index : int
        Of the batch that is next, from 0. A `batch_index` above 0 says that the epoch was interrupted there.
    model : str or None
        Path of the model that was saved with it.
    """

    epoch: int
    batch_index: int
    model: str | None


class SaveState(_Callback):
    """Writes where the data stand, after the last batch that was trained on; with `model` the model of that moment too.

    `restore` reads it back before ``fit``: the first batch is the one that would have come next, bit for bit. With
    `model` the two belong together whenever the process is killed: each model gets a file of its own, the JSON file
    names it, and is replaced when that is written whole.

    Parameters
    ----------
    dataset : Iterator
        What is handed to ``fit``.
    path : str or os.PathLike
        A JSON file; replaced whole, so that a crash leaves the old one or the new one.
    save_freq : "epoch" or int
        At the end of each epoch, or every so many batches.
    model : str, os.PathLike or None
        A name for the models, such as ``"run/model.keras"``: they are written beside it as ``run/model-2-100.keras``,
        for batch 100 of epoch 2, and the one before is removed; at the end of training too. None: no model is saved
        here.

    Raises
    ------
    TypeError
        If `dataset` is not what ``fit`` takes.
    GpuseqError
        If it has no state: a sequence of the user's own.
    ValueError
        If `save_freq` is neither, or `model` no name of a ``.keras`` file.
    """

    def __init__(
        self,
        dataset: Any,
        path: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        *,
        model: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        # True is an int in Python, and would write a file for each batch.
        is_count = hasattr(save_freq, "__index__") and not isinstance(save_freq, bool) and int(save_freq) > 0
        if save_freq != "epoch" and not is_count:
            raise ValueError(f'save_freq must be "epoch" or a positive number of batches; got {save_freq!r}')
        _refuse_plain(dataset, "SaveState")
        # Only what `fit` takes tells which batch was handed out when.
        if not is_for_fit(dataset):
            raise TypeError(
                f"SaveState takes an iterator of gpuseq.keras or iterator.to_keras(); got {type(dataset).__name__}"
            )
        # At construction, and not after the first epoch.
        dataset._fit.source.check_state()
        self.dataset: Any = dataset
        self.path = path
        self.save_freq = save_freq
        if model is not None and Path(model).suffix != ".keras":
            raise ValueError(f'model must be the name of a .keras file, such as "run/model.keras"; got {model!r}')
        self.model_path = None if model is None else Path(model)
        self._num_trained = 0
        self._num_in_epoch = 0
        self._last: tuple[int, int] | None = None
        self._saved: tuple[int, int] | None = None

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

    def on_train_end(self, logs: Any = None) -> None:
        """Save the last model; let the next ``fit`` begin with the epoch after the one that training has ended with."""
        following = self._following()
        if self.model_path is not None and following not in (None, self._saved):
            self.save()
        # Only where it was the end of an epoch: of a place within one `FitProgress` knows by itself what follows.
        if following is not None and following[1] == 0:
            self.dataset._fit.progress.trained(following[0])

    def _following(self) -> tuple[int, int] | None:
        """Return epoch and number of the batch after the last one that was trained on; None where none was.

        What was taken ahead of training is taken again.
        """
        if self._last is None:
            return None
        epoch, index = self._last
        return (epoch, index + 1) if index + 1 < len(self.dataset) else (epoch + 1, 0)

    def save(self) -> None:
        """Write the files.

        Raises
        ------
        FileNotFoundError
            If a folder does not exist.
        """
        state, following = self.dataset.state_dict(), self._following()
        # So that the end of training does not write the same model a second time.
        self._saved = following
        if following is not None:
            state = at_batch(state, *following)
        # In this order the JSON file names a whole model at any moment: killed before it is replaced the old pair
        # stands, and killed before the removal one model too many is left.
        if self.model_path is not None:
            place = f"{state['epoch']}-{state['batch_index']}"
            path = self.model_path.with_name(f"{self.model_path.stem}-{place}{self.model_path.suffix}")
            with replacing(path) as temporary:
                self.model.save(temporary)
            state["model"] = path.name
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(state))
        if self.model_path is not None:
            self._remove_all_but(path)

    def _remove_all_but(self, path: Path) -> None:
        """Remove the models that earlier states named, and what a killed process has left of one."""
        stem, suffix = re.escape(path.stem.rsplit("-", 2)[0]), re.escape(path.suffix)
        ours = re.compile(rf"{stem}-\d+-\d+{suffix}|\.{stem}-\d+-\d+-[0-9a-f]+{suffix}")
        for other in path.parent.iterdir():
            if other.name != path.name and ours.fullmatch(other.name):
                other.unlink(missing_ok=True)

    def restore(self) -> Saved | None:
        """Let the data set stand where the file says.

        Returns
        -------
        Saved or None
            Which batch is next, and the path of its model; None where nothing was saved yet.

        Raises
        ------
        ValueError
            If the file was saved for other data or in another random mode.
        FileNotFoundError
            If the model that it names is not there.
        """
        try:
            state = json.loads(Path(self.path).read_text())
        except FileNotFoundError:
            return None
        self.dataset.load_state_dict(state)
        name, model = state.get("model"), None
        if name is not None:
            folder = Path(self.path).parent if self.model_path is None else self.model_path.parent
            model = os.fspath(folder / name)
            if not os.path.isfile(model):
                raise FileNotFoundError(
                    f"{os.fspath(self.path)!r} names the model {name!r}, and it is not in {os.fspath(folder)!r}: move "
                    "the two together, or remove both to begin anew"
                )
        return Saved(int(state["epoch"]), int(state["batch_index"]), model)


def _refuse_plain(dataset: Any, callback: str) -> None:
    if isinstance(dataset, Iterator) and not is_for_fit(dataset):
        raise TypeError(
            f"{callback} takes what fit takes, and fit does not take {type(dataset).__module__}."
            f"{type(dataset).__name__}. Write dataset = iterator.to_keras(), and hand dataset to both"
        )
