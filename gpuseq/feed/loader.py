"""`Loader`: an iterator of this package as a training loop wants it: one pass per epoch, and a state to resume from.

What the loaders of the frameworks share. A loader counts by epoch: batch i of epoch e is always the same batch, however
it is asked for, so a pass can be left and begun again, and a state is two numbers: see `Place`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator as IteratorABC
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpuseq.base.devices import synchronize
from gpuseq.iterators.iterator import Iterator
from gpuseq.iterators.passing import first_left
from gpuseq.plan.state import PlannerState, at_batch

__all__ = ["Loader"]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a pass stands: its epoch, and the number there of the batch that this process makes next.

    A process makes every `step`-th batch of a pass: all of them without worker processes, every n-th with n.

    An index below the number of batches means that this batch and those `step`, 2 `step` ... after it are still to be
    made. The number of batches itself means that this process has made all of its batches, and nothing more: other
    processes may have some left, so the place is not yet the next epoch's start. Whatever the index is, the pass after
    this one is that of epoch + 1, from 0, in every process.

    Compared by identity: two passes that begin at the same numbers were not therefore begun by the same call.

    Attributes
    ----------
    epoch, index : int
        From 0.
    """

    epoch: int
    index: int


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
        # Read before the iterator changes its way to count, which moves nothing.
        start = Place(iterator.epoch, iterator.batch_index)
        count_by_epoch(iterator)
        self._next = start  # of the pass after the current one
        self._pass: _Pass | None = None  # the one that was asked last
        self._resumed = True  # stands where it was put, and no batch was asked for since

    def __len__(self) -> int:
        """Return the number of batches in an epoch: the same on every rank."""
        return len(self.iterator)

    def __iter__(self) -> IteratorABC[Any]:
        """Begin a pass over the current epoch."""
        # Without workers nothing is decided here: frameworks call `iter` once more for a look, and that must not take
        # an epoch.
        worker = self._worker()
        if worker is None:
            return _Pass(self, 1)
        first, step = worker
        begun = _Pass(self, step)
        # A worker process makes batches ahead, so it cannot know how far the main process got before it left a pass, or
        # whether it did. What all of them know is how many passes were begun: each is the next epoch.
        begun.stand_at(Place(self._next.epoch, self._next.index + first))
        self._next = Place(self._next.epoch + 1, 0)
        self._pass = begun
        return begun

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
        """The epoch of the next pass, or the one that it goes on with."""
        return self._place().epoch

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be this epoch, from its start.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        if self._resumed and self._next.epoch == epoch:
            return  # a loop that resumes in mid-epoch says which epoch it is in, too
        self.iterator.set_epoch(epoch)
        self._next = Place(int(epoch), 0)
        self._pass = None
        self._resumed = True

    def state_dict(self) -> dict[str, int | str]:
        """Return the loader's place: what was handed out is behind it, nothing else is.

        Returns
        -------
        dict
            Integers and strings.
        """
        return self._state(self._place())

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
        self._next = Place(self.iterator.epoch, self.iterator.batch_index)
        self._resumed = True
        # The place itself is the pass' origin, by identity: its end then moves the loader on (`_Pass.stand_at`).
        if self._pass is not None:
            self._pass.stand_at(self._next, origin=self._next)

    get_state = state_dict
    set_state = load_state_dict

    def __repr__(self) -> str:
        # Keras shows this line where the loader is handed to fit.
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name} of {len(self)} batches: for model.fit write model.fit(loader.iterator.to_keras())>"

    def close(self) -> None:
        """Stop what runs in the background."""
        self.iterator.close()

    # What the frameworks' loaders say themselves.

    def _worker(self) -> tuple[int, int] | None:
        """Return, in a worker process of a framework's loader, its number and how many there are."""
        return None

    def _make(self, epoch: int, index: int) -> Any:
        """Return a batch as the framework's own arrays."""
        return self.iterator.replay(self.iterator.plan_batch(index, epoch=epoch))

    # The place.

    def _place(self) -> Place:
        place = self._next if self._pass is None else self._pass.place
        return place if place.index < len(self) or not len(self) else Place(place.epoch + 1, 0)

    def _state(self, place: Place) -> dict[str, int | str]:
        return at_batch(self.iterator.state_dict(), place.epoch, place.index)


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
        """Let the next pass be this epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        self._loader.set_epoch(epoch)

    def __len__(self) -> int:
        return self._loader.iterator.n


class _Pass:
    """One pass: an iterator with a state of its own.

    In the main process it begins where the loader stands when its first batch is asked for, because frameworks call
    ``iter`` without asking. In a worker process `Loader.__iter__` says where.
    """

    def __init__(self, loader: Loader, step: int) -> None:
        self._loader = loader
        self._step = step
        self._place: Place | None = None
        self._origin: Place | None = None
        self._is_empty = False

    def __iter__(self) -> _Pass:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        loader = self._loader
        if self._place is None:
            self.stand_at(loader._next, origin=loader._next)
            self._is_empty = self.place.index == 0
        # The pass that was asked last is the one that the loader's state speaks of.
        loader._pass = self
        loader._resumed = False
        # The iterator decodes ahead what this process will ask for: every n-th batch.
        loader.iterator._planner.stride = self._step
        batch = first_left(self._makers(), loader.iterator._planner.options, is_under_way=not self._is_empty)
        self._is_empty = False
        return batch

    def _makers(self) -> IteratorABC[Callable[[], Any]]:
        """Yield what makes each batch that is left of the pass, and stand behind it."""
        while self.place.index < len(self._loader):
            epoch, index = self.place.epoch, self.place.index
            # Before the batch is made: a batch that raises is behind the pass, and its successor is next.
            self.stand_at(Place(epoch, index + self._step), origin=self._origin)
            yield partial(self._loader._make, epoch, index)

    @property
    def place(self) -> Place:
        """Where the pass stands, or would begin."""
        return self._loader._next if self._place is None else self._place

    def stand_at(self, place: Place, *, origin: Place | None = None) -> None:
        """Go on there.

        Parameters
        ----------
        place : Place
            Where.
        origin : Place or None
            Where the pass began, if its end is to move the loader on; not where the loader was put elsewhere in
            the meantime.
        """
        self._place, self._origin = Place(place.epoch, min(place.index, len(self._loader))), origin
        if origin is not None and origin is self._loader._next and place.index >= len(self._loader):
            # Over with the last batch: a loop that counts batches never asks for one more.
            self._loader._next = Place(place.epoch + 1, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Return where this pass stands; see `Loader.state_dict`."""
        return self._loader._state(self.place)

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on there; see `Loader.load_state_dict`.

        A state from after the last batch is that of a pass that is over, here: the next pass is the next epoch.
        """
        loader = self._loader
        found = PlannerState.parse(state)
        loader.iterator.load_state_dict(state)
        # Counted in batches of this loader: the state may be of another batch size or world, with keyed numbers.
        place = Place(
            found.epoch, found.global_position // (loader.batch_size * loader.iterator._planner.options.world)
        )
        if loader._worker() is None:
            loader._next = place
            self.stand_at(place, origin=place)
        else:
            # As in `Loader.__iter__`: in a worker process each pass that was begun counts as an epoch.
            loader._next = Place(place.epoch + 1, 0)
            self.stand_at(place)
        loader._resumed = True
        loader._pass = self

    get_state = state_dict
    set_state = load_state_dict


def count_by_epoch(iterator: Iterator) -> None:
    """Let an iterator count by epoch, where it stands, with a seed: without one it has no state."""
    if not iterator._counts_by_epoch:
        # By the number of full epochs seen, so that the epochs that follow are those that would have come.
        iterator.set_epoch(iterator.epoch)
    iterator._planner.drawn_seed()
