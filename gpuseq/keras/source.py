"""Where the batches of a data set for Keras come from: an iterator of this package, or a sequence of the user's own."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn, Protocol

import numpy as np

from gpuseq.base.devices import place
from gpuseq.base.errors import EmptyBatchError, GpuseqError
from gpuseq.feed.lookahead import DeviceSequence, map_arrays, to_device
from gpuseq.iterators.explain import peek
from gpuseq.iterators.iterator import Iterator
from gpuseq.iterators.passing import first_left
from gpuseq.plan.sharding import PlanOptions

from .backend import backend

__all__ = ["FitSource", "IteratorSource", "SequenceSource"]


class FitSource(Protocol):
    """Where the batches of a data set come from, by their place in an epoch."""

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``: where they are made."""

    @property
    def options(self) -> PlanOptions | None:
        """Shard and random mode; None for batches of a user's own."""

    @property
    def has_lists(self) -> bool:
        """Whether a batch that is a list is one input of several parts, and not ``[x, y]``."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def batch_at(self, epoch: int, position: int, asked: int) -> Any:
        """Return batch `position` of an epoch's order; `asked` is the index that Keras asked for."""

    def batch(self, index: int, epoch: int | None) -> Any:
        """Return batch `index`, where batches are looked at by index: of an epoch, or (None) of the current one."""

    def another(self, error: EmptyBatchError) -> Any:
        """Return any batch of which something is left, or raise `error`."""

    def standing(self) -> tuple[int, int]:
        """Return epoch and number of the batch that is next without ``fit``."""

    @property
    def counts_by_epoch(self) -> bool:
        """Whether that batch is the same one whatever is asked for before it."""

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of an epoch."""

    def num_seen(self) -> int:
        """Return the number of batches asked for so far."""

    def check_state(self) -> None:
        """Raise a GpuseqError if there is nothing to save, whatever the seed."""

    def state_dict(self) -> dict[str, int | str]:
        """Return a state, or raise a GpuseqError if there is none."""

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on where a state was taken, or raise a GpuseqError if there is none."""

    def end_epoch(self, *, is_over: bool, fitted: bool) -> None:
        """Take note of an ``on_epoch_end``: whether an epoch is over, not a trial, and whether ``fit`` has begun."""

    def close(self) -> None:
        """Stop what runs in the background."""


class IteratorSource:
    """Batches of an iterator of this package, which shuffles its samples and reads ahead by itself.

    Parameters
    ----------
    iterator : Iterator
        Where this says ``Iterator.method(iterator)``, the iterator may be a data set itself, whose own methods of that
        name ask for the state of ``fit``, and through it for this source.
    counts_as_keras : bool
        Whether it counts as Keras' own before the first ``fit``: each ``on_epoch_end`` draws the next order.
    """

    def __init__(self, iterator: Iterator, *, counts_as_keras: bool) -> None:
        self.iterator = iterator
        self._counts_as_keras = counts_as_keras

    @property
    def device(self) -> str:
        """The iterator's."""
        device: str = getattr(self.iterator, "device", "cpu")
        return device

    @property
    def options(self) -> PlanOptions | None:
        """The iterator's."""
        return self.iterator._planner.options

    @property
    def has_lists(self) -> bool:
        """Whether further inputs come beside the images."""
        return bool(getattr(self.iterator, "x_misc", ()))

    def __len__(self) -> int:
        return len(self.iterator)

    def batch_at(self, epoch: int, position: int, asked: int) -> Any:
        """Make a batch; what Keras asked for does not matter, because the samples are shuffled already."""
        # By plan: `iterator[i]` is the data set's own method, which asks this source.
        return self.iterator.replay(self.iterator.plan_batch(position, epoch=epoch))

    def batch(self, index: int, epoch: int | None) -> Any:
        """Make a batch."""
        return self.iterator.replay(self.iterator.plan_batch(index, epoch=epoch))

    def another(self, error: EmptyBatchError) -> Any:
        """Make the first batch of which anything is left, and let the iterator stand where it stands."""
        return first_left(partial(self._peeked, index) for index in range(len(self)))

    def _peeked(self, index: int) -> Any:
        # A plan drawn by a copy: this one takes nothing from the stream.
        return self.iterator.replay(peek(self.iterator, index))

    def standing(self) -> tuple[int, int]:
        """Return epoch and number of the next batch."""
        return self.iterator.epoch, self.iterator.batch_index

    @property
    def counts_by_epoch(self) -> bool:
        """The iterator's."""
        return self.iterator._counts_by_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        # The plain iterator's method, here and below: that of the data set is what calls this one.
        Iterator.set_epoch(self.iterator, epoch)

    def num_seen(self) -> int:
        """Return the number of batches seen."""
        return self.iterator.total_batches_seen

    def check_state(self) -> None:
        """Do nothing: there is a state as soon as there is a seed."""

    def state_dict(self) -> dict[str, int | str]:
        """Return the iterator's own state."""
        return Iterator.state_dict(self.iterator)

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Load the iterator's own state."""
        Iterator.load_state_dict(self.iterator, state)

    def end_epoch(self, *, is_over: bool, fitted: bool) -> None:
        """Draw an order as Keras does, until ``fit`` has begun: from then on each request names its epoch."""
        # Keras calls this before its first epoch, too, which draws an order from the stream: its own iterators' numbers
        # follow from that, and ours have to.
        if self._counts_as_keras and not fitted and not self.iterator._counts_by_epoch:
            Iterator.on_epoch_end(self.iterator)

    def close(self) -> None:
        """Stop reading ahead."""
        self.iterator.close()


class SequenceSource:
    """Batches of a sequence of the user's own, made ahead by threads, in an order of this package's.

    Parameters
    ----------
    sequence : Sequence
        Anything that `gpuseq.to_device` takes.
    prefetch, workers : int
        See `gpuseq.to_device`.
    """

    options = None
    has_lists = False
    counts_by_epoch = True

    def __init__(self, sequence: Any, prefetch: int, workers: int) -> None:
        self.sequence = sequence
        self._reordered = _Reordered(sequence)
        # TensorFlow's way through PyDataset is the host's: `from_generator` calls `np.asarray`.
        where = "cpu" if backend() == "numpy" else "auto"
        # Over the reordered one: what is made ahead has to be what Keras gets next.
        self._ahead: DeviceSequence = to_device(self._reordered, prefetch, workers, device=where)
        self.device = self._ahead.device

    def __len__(self) -> int:
        return len(self.sequence)

    def batch_at(self, epoch: int, position: int, asked: int) -> Any:
        """Take a batch that was made ahead; the order of a pass is drawn from what Keras asks for first."""
        # What was made ahead was made in the order of the pass before.
        if position == 0:
            self._ahead.close()
            self._reordered.order = _batch_order(len(self), epoch, asked)
        return self._ahead[position]

    def batch(self, index: int, epoch: int | None) -> Any:
        """Take a batch of the sequence to the device."""
        return map_arrays(lambda array: place(array, self.device), self.sequence[index])

    def another(self, error: EmptyBatchError) -> Any:
        """Raise the error: the sequence is the user's own, and asked for nothing that Keras did not ask for."""
        raise error

    def standing(self) -> tuple[int, int]:
        """Return the start: a sequence stands nowhere."""
        return 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Do nothing."""

    def num_seen(self) -> int:
        """Return 0."""
        return 0

    def check_state(self) -> NoReturn:
        """Raise a GpuseqError."""
        raise GpuseqError("a Sequence has no state to save: what its batches hold is its own affair")

    def state_dict(self) -> dict[str, int | str]:
        """Raise a GpuseqError."""
        self.check_state()

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Raise a GpuseqError."""
        self.check_state()

    def end_epoch(self, *, is_over: bool, fitted: bool) -> None:
        """Tell the sequence when an epoch is over; Keras calls this before the first one, too."""
        if is_over:
            self._ahead.on_epoch_end()

    def close(self) -> None:
        """Stop the threads."""
        self._ahead.close()


class _Reordered:
    """A sequence in the order of one epoch."""

    def __init__(self, sequence: Any) -> None:
        self.sequence = sequence
        self.order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, position: int) -> Any:
        return self.sequence[position if self.order is None else int(self.order[position])]

    def on_epoch_end(self) -> None:
        end = getattr(self.sequence, "on_epoch_end", None)
        if end is not None:
            end()


def _batch_order(length: int, epoch: int, first_index: int) -> np.ndarray | None:
    """Return the order of a pass: as it is where Keras asks for batch 0 first, else drawn from what it asks for first.

    ``evaluate``, ``predict`` and ``fit(shuffle=False)`` begin with 0. A shuffled pass begins with any batch, from
    Python's own random numbers, so that ``keras.utils.set_random_seed`` repeats it.
    """
    if first_index == 0:
        return None
    # By epoch, too: a short data set may begin two epochs with the same batch.
    return np.random.RandomState([epoch, first_index]).permutation(length)
