"""`Loader`: an iterator of this package as a training loop wants it: one pass per epoch, and a state to resume from.

What the loaders of the frameworks share. A loader walks by epoch: batch i of epoch e is always the same batch, whoever
asks, so a pass can be left and begun again, and a state is two numbers.
"""

from __future__ import annotations

from collections.abc import Iterator as IteratorABC
from typing import Any

from gpuseq.base.devices import synchronize
from gpuseq.base.errors import EmptyBatchError
from gpuseq.iterators.iterator import Iterator

from .lookahead import pass_over, plan_at

__all__ = ["Loader"]


class Loader:
    """Passes over an iterator, one per ``for`` loop: epoch 0, epoch 1 and so on, or what `set_epoch` says.

    ``iter(loader)`` does nothing until a batch is asked for. A pass that ends moves on to the next epoch; one that is
    left early is begun again.

    A batch of which nothing is left, all of its files being bad, is passed over; the pass is that much shorter. With
    `shard` it is an error: ranks that have fewer batches than others would leave them waiting.

    Parameters
    ----------
    iterator : Iterator
        From ``generator.flow(...)`` and its kin. Counts by epoch from now on, and belongs to the loader.

    Raises
    ------
    TypeError
        If `iterator` is something else.
    """

    def __init__(self, iterator: Iterator) -> None:
        if not isinstance(iterator, Iterator):
            raise TypeError(
                "a loader takes an iterator of gpuseq: loader(ImageDataGenerator(...).flow_from_directory(...)); got "
                f"{type(iterator).__module__}.{type(iterator).__name__}. For batches of your own see gpuseq.to_device"
            )
        # What the iterator has put on the device so far is there, whichever stream the batches will be asked for on.
        synchronize(getattr(iterator, "device", "cpu"))
        self.iterator = iterator
        start = iterator.epoch, iterator.batch_index
        plan_at_start(iterator)
        self._start = start
        self._pass: _Pass | None = None
        self._resumed = True  # stands where somebody put it, and no batch was asked for since

    def __len__(self) -> int:
        """Return the number of batches in an epoch: the same on every rank."""
        return len(self.iterator)

    def __iter__(self) -> IteratorABC[Any]:
        """Begin a pass over the current epoch."""
        return _Pass(self, *self._part())

    @property
    def batch_size(self) -> int:
        """Samples per batch and rank."""
        return self.iterator.batch_size

    @property
    def sampler(self) -> Sampler:
        """What frameworks call ``set_epoch`` on."""
        return Sampler(self)

    @property
    def epoch(self) -> int:
        """The epoch that the next pass walks, or goes on with."""
        return self._position()[0]

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass walk this epoch, from its start.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        if self._resumed and self._start[0] == epoch:
            return  # a loop that resumes in mid-epoch says which epoch it is in, too
        self.iterator.set_epoch(epoch)
        self._start = (int(epoch), 0)
        self._pass = None
        self._resumed = True

    def state_dict(self) -> dict[str, int | str]:
        """Return where the walk stands: what was handed out is behind it, nothing else is.

        Returns
        -------
        dict
            Integers and strings.
        """
        return self._state(*self._position())

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on where `state_dict` was taken, at once: a pass that is under way jumps there.

        Parameters
        ----------
        state : dict
            From `state_dict` of a loader or an iterator over the same data.

        Raises
        ------
        ValueError
            If the state was taken from other data or in another random mode.
        """
        self.iterator.load_state_dict(state)
        self._start = (self.iterator.epoch, self.iterator.batch_index)
        self._resumed = True
        if self._pass is not None:
            self._pass.jump(*self._start)

    get_state = state_dict
    set_state = load_state_dict

    def __repr__(self) -> str:
        # Keras shows this line when somebody hands the loader to fit.
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name} of {len(self)} batches: for model.fit write model.fit(loader.iterator.to_keras())>"

    def close(self) -> None:
        """Stop what runs in the background."""
        self.iterator.close()

    # What the frameworks' loaders say themselves.

    def _part(self) -> tuple[int, int]:
        """Return (first, step): which batches of an epoch this process makes."""
        return 0, 1

    def _make(self, epoch: int, index: int) -> Any:
        """Return a batch as the framework's own arrays."""
        return self.iterator.replay(plan_at(self.iterator, epoch, index))

    # Where the walk stands.

    def _position(self) -> tuple[int, int]:
        epoch, index = self._start if self._pass is None else self._pass.position
        return (epoch, index) if index < len(self) or not len(self) else (epoch + 1, 0)

    def _state(self, epoch: int, index: int) -> dict[str, int | str]:
        return self.iterator.state_dict() | {
            "by_epoch": 1,
            "epoch": epoch,
            "batch_index": index,
            "served": int(index > 0),
            "order": "",
        }


class Sampler:
    """The part of ``torch.utils.data.DistributedSampler`` that training loops call.

    Parameters
    ----------
    loader : Loader
        Whose epochs these are.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass walk this epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        self._loader.set_epoch(epoch)

    def __len__(self) -> int:
        return self._loader.iterator.n


class _Pass:
    """One pass: an iterator with a state of its own, which begins where the loader stands at the first batch."""

    def __init__(self, loader: Loader, first: int, step: int) -> None:
        self._loader = loader
        self._first = first
        self._step = step
        self._epoch = -1
        self._index = 0
        self._is_empty = False

    def __iter__(self) -> _Pass:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        loader = self._loader
        if self._epoch < 0:
            self.jump(*loader._start)
            self._index += self._first
            self._is_empty = self._index == 0 and self._step == 1
        loader._pass = self
        loader._resumed = False
        loader.iterator._stride = self._step
        problem: EmptyBatchError | None = None
        while self._index < len(loader):
            index = self._index
            self.jump(self._epoch, index + self._step)
            try:
                batch = loader._make(self._epoch, index)
            except EmptyBatchError as error:
                pass_over(loader.iterator, error)
                problem = error
                continue
            self._is_empty = False
            return batch
        if problem is not None and self._is_empty:
            raise problem  # nothing is left of the whole epoch
        raise StopIteration

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and number of the next batch."""
        return self._epoch, self._index

    def jump(self, epoch: int, index: int) -> None:
        """Go on there."""
        self._epoch, self._index = epoch, index
        if index >= len(self._loader):
            # Over with the last batch: who counts batches never asks for one more.
            self._loader._start = (epoch + 1, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Return where this pass stands; see `Loader.state_dict`."""
        epoch, index = self._loader._start
        return self._loader._state(*((epoch, index + self._first) if self._epoch < 0 else self.position))

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on there; see `Loader.load_state_dict`."""
        self._loader.iterator.load_state_dict(state)
        self.jump(self._loader.iterator.epoch, self._loader.iterator.batch_index)
        self._loader._pass = self

    get_state = state_dict
    set_state = load_state_dict


def plan_at_start(iterator: Iterator) -> None:
    """Let an iterator count by epoch, where it stands, with a seed: without one it has no state."""
    if not iterator.counts_by_epoch:
        iterator.set_epoch(iterator.epoch)
    _ = iterator._seed
