"""`Planner`: which samples come next and which numbers are drawn for them. It makes no batch and opens no file.

Batches are counted in one of two ways. *Keras' way*, the default: batch number b since construction is drawn from
``seed + b``, whatever was asked for in between. *By epoch*, after `set_epoch`, with shards or with ``rng="keyed"``:
batch i of epoch e is always the same batch, so any order of access, any number of threads and any resume give it.
Taken in order from the start, the two are one.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from gpuseq.base.arguments import check_count
from gpuseq.base.errors import BatchIndexError, GpuseqError
from gpuseq.base.threads import PerProcess

from .columns import params_at_rest
from .draw import Drawing, KerasStream, draw_keyed, freeze
from .order import epoch_permutation, position_of, shard_indices, shard_size
from .plan import BatchPlan
from .sharding import PlanOptions
from .state import PlannerState, Position

__all__ = ["Planner"]


class Planner(PerProcess):
    """Plans batches of `num_samples` samples, epoch after epoch; see the module's docstring for the two ways to count.

    Parameters
    ----------
    num_samples : int
        Of the data set, all ranks together.
    batch_size : int
        Samples per batch and rank; the last batch of an epoch may have fewer.
    shuffle : bool
        A new order each epoch.
    seed : int or None
        None draws from NumPy's global stream, as Keras does; with ``rng="keyed"`` one is drawn from there once.
    options : PlanOptions
        Random mode and shard.
    set_order : callable or None
        Called in the place of `set_order` where an order is due: a user's own.

    Attributes
    ----------
    num_samples, n : int
        Samples of the data set, and of this rank's part of an epoch.
    index_array : numpy.ndarray or None
        Shape ``(n,)``, int64: the current epoch's order, None before it is made.
    weights : numpy.ndarray or None
        Shape ``(n,)``, float32: beside `index_array`, 0 for samples that fill up; None unless ``remainder="exact"``.
    total_batches_seen : int
        Batches planned since construction.
    stride : int
        To the next batch that this process makes, where several share an epoch.
    lock : threading.RLock
        Held while a batch is planned. Reentrant: code that moves the position and plans holds it over both.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        options: PlanOptions,
        set_order: Callable[[], None] | None = None,
    ) -> None:
        if options.rng == "keyed" and seed is None:
            # From the global stream, so that `numpy.random.seed` makes such an iterator repeatable, too.
            seed = int(np.random.randint(2**31))
        self.options = options
        self.num_samples = num_samples
        self.n = shard_size(num_samples, options.world, options.remainder)
        self.batch_size = int(batch_size)
        self.seed = None if seed is None else int(seed)
        self.shuffle = shuffle
        # Keras' count depends on the order in which batches are asked for: with four workers 8 of 8 batches differed
        # between two runs (keras-preprocessing#145). By epoch it does not.
        self.position = Position(by_epoch=options.rng == "keyed" or options.world > 1)
        self.total_batches_seen = 0
        self.stride = 1
        self.index_array: np.ndarray | None = None
        self.weights: np.ndarray | None = None
        self.stream = KerasStream(self.seed)
        # Keras draws an order that is asked for before the first batch from RandomState(seed).
        self.stream.reseed(0)
        self.index_generator = IndexGenerator(self)
        self._own_set_order = set_order
        self._order_position = ""
        self._planned = 0  # the number of the batch whose samples `next_indices` handed out last
        self._foreseen: tuple[Any, tuple[np.ndarray, np.ndarray | None]] | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch: the same on every rank."""
        return -(-self.n // self.batch_size)

    @property
    def batch_index(self) -> int:
        """The number, within its epoch, of the batch that ``plan(None)`` plans. May be set."""
        return self.position.batch

    @batch_index.setter
    def batch_index(self, value: int) -> None:
        self.position.batch = value

    # Plans.

    def plan(self, index: int | None, drawing: Drawing) -> BatchPlan:
        """Draw the plan of a batch; counts as a batch seen.

        Parameters
        ----------
        index : int or None
            Which batch of the current epoch, from 0. None: the next one.
        drawing : Drawing
            What is drawn.
        """
        with self.lock:
            if index is None:
                indices, number = next(self.index_generator), self._planned
            else:
                indices, number = self._item_indices(index), index
            plan = self.draw(indices, number, drawing)
            # After the numbers are drawn, which belong to the epoch that ends here.
            if index is None and self.position.by_epoch and self.position.batch == 0:
                self._start_epoch(self.position.epoch + 1)
        return plan

    def draw(self, indices: np.ndarray, number: int | None, drawing: Drawing) -> BatchPlan:
        """Draw the numbers of given samples, from wherever the stream stands.

        Parameters
        ----------
        indices : numpy.ndarray
            Shape ``(N,)``, int64: rows of the data set.
        number : int or None
            Which batch of the order they are. None: samples chosen by number, which may be one of its batches.
        drawing : Drawing
            What is drawn.
        """
        ranges = drawing.ranges
        height, width = drawing.image_size
        if ranges is None:
            params = params_at_rest(len(indices))
        elif self.options.rng == "keyed":
            seed, epoch = self.drawn_seed(), self.position.epoch
            params = draw_keyed(ranges, indices, height, width, seed=seed, epoch=epoch)
        elif drawing.own is None and ranges.spread.is_at_rest:
            # Keras takes the numbers of the two flips all the same.
            self.stream.pass_over(len(indices), ranges.spread.num_doubles)
            params = params_at_rest(len(indices))
        else:
            params = self.stream.params(drawing.params, len(indices))
        # The order is the contract of Keras' stream: all samples' parameters, then one number for each saved file. The
        # steps take nothing from it.
        program = self._draw_program(indices, drawing)
        limit = drawing.file_number_limit
        file_numbers = self.stream.file_numbers(len(indices), limit) if limit else None
        weights = None
        if self.weights is not None:
            if number is None:
                number = position_of(indices, self.current_order(), self.batch_size)
            # Samples that no batch of the order holds were chosen by number, and fill nothing up.
            weights = np.ones(len(indices), np.float32)
            if number is not None:
                weights = self.weights[self.batch_size * number : self.batch_size * number + len(indices)]
        indices = indices.copy()
        freeze(indices, params, program, file_numbers, weights)
        return BatchPlan(
            indices=indices,
            params=params,
            file_numbers=file_numbers,
            weights=weights,
            epoch=self.position.epoch if self.position.by_epoch else -1,
            batch_index=number or 0,
            image_size=(height, width),
            program=program,
        )

    def _draw_program(self, indices: np.ndarray, drawing: Drawing) -> np.ndarray | None:
        """Draw the steps of the augmentations from numbers of their own: those of the ranges stay as they are."""
        if drawing.recipe is None:
            return None
        if self.options.rng == "keyed":
            seed, epoch = self.drawn_seed(), self.position.epoch
            return drawing.recipe.draw(
                indices, drawing.image_size, seed=seed, epoch=epoch, crops_by_key=drawing.crops_by_key
            )
        # In Keras' mode a batch has its own key, so the samples are counted by their place in it.
        seed, number = self.stream.key
        return drawing.recipe.draw(
            _places(len(indices)), drawing.image_size, seed=seed, epoch=number, crops_by_key=drawing.crops_by_key
        )

    def checked_index(self, index: int) -> int:
        """Return the number of a batch as from 0.

        Raises
        ------
        TypeError
            If it is no integer.
        BatchIndexError
            If it is outside the epoch.
        """
        length = len(self)
        if not hasattr(index, "__index__"):
            raise TypeError(f"a batch is asked for by its number, an integer; got {index!r}")
        # Both classes of error: Python's iteration by index ends at an IndexError, Keras raises a ValueError.
        if not -length <= index < length:
            valid = f"valid are 0 to {length - 1}" if length else "there are no batches"
            raise BatchIndexError(f"Asked to retrieve element {index}, but the Sequence has length {length}: {valid}")
        return int(index) % length

    # Which samples.

    def next_indices(self) -> np.ndarray:
        """Return the sample numbers of the next batch, shape ``(N,)``, int64, and count it."""
        self._leave_epoch()
        position = self.position
        self._begin_batch(position.batch if position.by_epoch else None)
        # Here and not at the end of the epoch before, because Keras draws the order from the stream of the epoch's
        # first batch.
        if position.batch == 0 and not position.by_epoch:
            self._renew_order()
        self._planned = position.batch
        start = position.batch * self.batch_size
        position.batch = position.batch + 1 if self.n > start + self.batch_size else 0
        position.is_over = position.by_epoch and position.batch == 0
        return self.current_order()[start : start + self.batch_size]

    def _item_indices(self, index: int) -> np.ndarray:
        self._leave_epoch()
        self._begin_batch(index if self.position.by_epoch else None)
        return self.current_order()[self.batch_size * index : self.batch_size * (index + 1)]

    def _begin_batch(self, number: int | None) -> None:
        """Count a batch and start its numbers: by its number in the epoch, or (None) by the batches seen."""
        options = self.options
        if number is None:
            # Keras' rule: seed + batches seen.
            self.stream.reseed(self.total_batches_seen)
        elif options.rng == "keras":
            # Batches of all ranks are numbered through: rank r of w takes every w-th number, so no two batches of a run
            # share a seed, and one rank alone, taken in order, has Keras' own numbers.
            first = self.position.epoch * len(self)
            if number == 0 and options.rank == 0 and self.shuffle:
                # The first batch's numbers follow the permutation's in one stream.
                self.stream.reseed(first * options.world)
                self.stream.permutation(self.num_samples)
            else:
                self.stream.reseed((first + number) * options.world + options.rank)
        self.total_batches_seen += 1
        self.position.served = True

    def current_order(self) -> np.ndarray:
        """Return the current epoch's order, shape ``(n,)``, int64; it is made where it is not there yet."""
        if self.index_array is None:
            self._renew_order()
        assert self.index_array is not None
        return self.index_array

    def _renew_order(self) -> None:
        if self._own_set_order is None:
            self.set_order()
        else:
            self._own_set_order()

    def set_order(self) -> None:
        """Make the order that is due: by epoch that of the epoch, else one from wherever the stream stands."""
        if self.position.by_epoch:
            self.index_array, self.weights = self._foresee(self.position.epoch)
            self._foreseen = None
            return
        # In Keras' way there is no shard: `world` > 1 counts by epoch from the start.
        if self.shuffle:
            permutation = self.stream.permutation(self.num_samples)
            self._order_position = self.stream.position
        else:
            permutation = np.arange(self.num_samples)
        self.index_array, self.weights = shard_indices(
            permutation, self.options.rank, self.options.world, self.options.remainder
        )

    def upcoming(self, number: int, count: int, *, onward: bool) -> list[np.ndarray]:
        """Return the sample numbers of the next batches, into the next epoch as far as it is decided; draws nothing.

        Parameters
        ----------
        number : int
            The first of them, in the current epoch.
        count : int
            How many are wanted.
        onward : bool
            Whether ``next()`` asks: then batch 0 is that of an epoch that has begun.
        """
        # `next()` at batch 0 takes the order that is due, which may not be made yet: `index_array` is the old one.
        begun = onward and number == 0
        batches: list[np.ndarray] = []
        if self.index_array is not None and not begun:
            batches = self._batches_of(self.index_array, number, count)
        if len(batches) < count and (onward or self.position.by_epoch) and self.stride == 1:
            order = self._next_order(0 if begun else len(self) - number, begun=begun)
            if order is not None:
                batches += self._batches_of(order, 0, count - len(batches))
        return batches

    def _batches_of(self, order: np.ndarray, first: int, count: int) -> list[np.ndarray]:
        starts = range(first * self.batch_size, self.n, self.stride * self.batch_size)
        return [order[start : start + self.batch_size] for start in starts[:count]]

    def _next_order(self, num_left: int, *, begun: bool) -> np.ndarray | None:
        """Return the order of the next epoch, `num_left` batches from here; None where it is not decided yet."""
        if self.shuffle and self.seed is None:
            return None
        if self.position.by_epoch:
            return self.current_order() if begun else self._foresee(self.position.epoch + 1)[0]
        if not self.shuffle:
            return self.index_array
        # A stream of its own: the next epoch's first batch reseeds with this number and takes its order first, and
        # nothing of the planner's own stream may be taken for a look ahead.
        stream = KerasStream(self.seed)
        stream.reseed(self.total_batches_seen + num_left)
        return stream.permutation(self.num_samples)

    def _foresee(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return order and weights of an epoch by number; kept, because they are wanted again when it begins."""
        # Users set `seed` and `shuffle` on a living iterator, as with Keras.
        key = (epoch, self.seed, self.shuffle)
        if self._foreseen is None or self._foreseen[0] != key:
            options = self.options
            permutation = np.arange(self.num_samples)
            if self.shuffle:
                first = None if options.rng == "keyed" else epoch * len(self) * options.world
                permutation = epoch_permutation(
                    self.num_samples, seed=self.drawn_seed(), epoch=epoch, first_batch=first
                )
            part = shard_indices(permutation, options.rank, options.world, options.remainder)
            self._foreseen = (epoch, self.seed, self.shuffle), part
        return self._foreseen[1]

    def drawn_seed(self) -> int:
        """Return the seed; where there is none, one is drawn from NumPy's global stream now, and kept."""
        if self.seed is None:
            self.seed = int(np.random.randint(2**31))
            # The stream had no seed either, and would go on with the global one.
            self.stream = KerasStream(self.seed)
        return self.seed

    # Epochs.

    @property
    def epoch(self) -> int:
        """The current epoch: as `set_epoch` has it, or the full epochs of batches seen so far."""
        if self.position.by_epoch:
            return self.position.epoch + self.position.is_over
        return self.total_batches_seen // max(1, len(self))

    def set_epoch(self, epoch: int, drawing: Drawing) -> None:
        """Go to the start of an epoch, and from now on count by epoch. Without a seed one is drawn now.

        Parameters
        ----------
        epoch : int
            From 0.
        drawing : Drawing
            What is drawn: a seed is of use only where something is.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        check_count("epoch", epoch, least=0, or_none=False)
        with self.lock:
            if self.shuffle or drawing.ranges is not None:
                self.drawn_seed()
            self.position.by_epoch = True
            self.position.batch = 0
            self._start_epoch(int(epoch))

    def _start_epoch(self, epoch: int) -> None:
        # A keyed order follows from the epoch's number alone, so going back to the start of the same epoch keeps it. In
        # Keras' mode the order that is there may be one of the other way to count.
        if epoch != self.position.epoch or self.options.rng == "keras":
            self.index_array = None
        self.position.start(epoch)

    def _leave_epoch(self) -> None:
        """Go over to the next epoch where the last sample numbers of this one were handed out."""
        if self.position.is_over:
            self._start_epoch(self.position.epoch + 1)

    def end_epoch(self) -> None:
        """Draw the order of the next epoch, from wherever the stream stands, as Keras does.

        Counting by epoch, go to the next one if a batch of this one was asked for: frameworks also call this before the
        first epoch.
        """
        with self.lock:
            if not self.position.by_epoch:
                self._renew_order()
            elif self.position.served:
                self.position.batch = 0
                self._start_epoch(self.position.epoch + 1)

    # States.

    def state_dict(self) -> dict[str, int | str]:
        """Return the position, and how this planner was made, as integers and strings.

        Raises
        ------
        GpuseqError
            Without a seed: the numbers then come from NumPy's global stream, which is not the planner's to restore.
        """
        if self.seed is None:
            raise GpuseqError(
                "state_dict() needs a seed: without one the order and the transforms come from NumPy's global stream. "
                'Pass seed=..., or rng="keyed"'
            )
        with self.lock:
            position = self.position
            return PlannerState(
                rng=self.options.rng,
                seed=self.seed,
                dataset_size=self.num_samples,
                shuffle=int(self.shuffle),
                remainder=self.options.remainder,
                world=self.options.world,
                batch_size=self.batch_size,
                by_epoch=int(position.by_epoch),
                # An epoch of which all was handed out is written as the start of the next one: it is the same position.
                epoch=position.epoch + position.is_over,
                served=int(position.served and not position.is_over),
                batch_index=position.batch,
                total_batches_seen=self.total_batches_seen,
                order=self._order_position if self.index_array is not None else "",
                stream=self.stream.position,
            ).as_dict()

    def load_state_dict(self, state: dict[str, int | str], drawing: Drawing) -> None:
        """Go to where `state_dict` was taken: the next plan is the one that would have come next, bit for bit.

        Parameters
        ----------
        state : dict
            From `state_dict`.
        drawing : Drawing
            What is drawn: in Keras' way the numbers since the last reseed are drawn again.

        Raises
        ------
        ValueError
            If the state was taken from other data or made otherwise, or is not whole. Nothing is changed then.
        TypeError
            If it is no dictionary.
        """
        # All that can be refused comes first and into local names; attributes are set at the end, under the lock.
        found = PlannerState.parse(state)
        # With keyed numbers a picture depends on neither batch size nor world, so both may change in between.
        here: dict[str, int | str] = {"batch_size": self.batch_size, "world": self.options.world}
        found.check(
            rng=self.options.rng,
            dataset_size=self.num_samples,
            shuffle=int(self.shuffle),
            remainder=self.options.remainder,
            **(here if self.options.rng == "keras" else {}),
        )
        step = self.batch_size * self.options.world
        if found.global_position % step:
            raise ValueError(
                f"this state stands at sample {found.global_position} of the epoch, which is not the start of a batch: "
                f"batches here (all ranks together) have {step} samples"
            )
        # Two positions: the order was drawn from an earlier one than that of the numbers that come next.
        stream, order, weights = KerasStream(found.seed), None, None
        if not found.by_epoch:
            if found.order:
                permutation = stream.restore(found.order, drawing.params)
                assert permutation is not None
                order, weights = shard_indices(permutation, 0, 1, self.options.remainder)
            stream.restore(found.stream, drawing.params)
        epoch, batch, served = found.epoch, found.global_position // step, bool(found.served)
        if found.by_epoch and batch >= len(self):  # this shard's part of it is served
            epoch, batch, served = epoch + 1, 0, False
        with self.lock:
            self.seed, self.stream = found.seed, stream
            self.position = Position(bool(found.by_epoch), epoch, batch, served)
            self.total_batches_seen = found.total_batches_seen
            self._order_position = found.order
            self.index_array, self.weights = order, weights

    # For `explain`.

    def describe(self, drawing: Drawing) -> list[tuple[str, str]]:
        """Return where numbers come from, and what of that is slow, as steps of ``explain``.

        Parameters
        ----------
        drawing : Drawing
            What is drawn.
        """
        options = self.options
        text = f'rng="{options.rng}", ' + ("NumPy's global stream" if self.seed is None else f"seed {self.seed}")
        if options.world > 1:
            text += f", rank {options.rank} of {options.world}"
        if drawing.own is None:
            return [("plan", text)]
        return [
            ("plan", text),
            ("slow path", "a subclass with its own get_random_transform: a Python call per image"),
        ]

    # Copies.

    def copy(self, set_order: Callable[[], None] | None = None) -> Planner:
        """Return a planner that stands here and goes on by itself.

        Parameters
        ----------
        set_order : callable or None
            As in the constructor.
        """
        # Arrays are shared, because no one writes into them: an order is replaced and never changed.
        twin = copy.copy(self)
        twin.position = copy.copy(self.position)
        twin.stream = copy.deepcopy(self.stream)
        twin.index_generator = IndexGenerator(twin)
        twin._own_set_order = set_order
        return twin

    def _renew(self) -> None:
        # Reentrant: code that moves the position and then plans holds it over both.
        self.lock = threading.RLock()


@functools.lru_cache(maxsize=16)
def _places(num_samples: int) -> np.ndarray:
    """Return the numbers from 0 on, read-only and the same ones each time."""
    places = np.arange(num_samples)
    freeze(places)
    return places


class IndexGenerator:
    """Keras' ``index_generator``: the sample numbers of the next batch, of one after it, and so on without end."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def __iter__(self) -> IndexGenerator:
        return self

    def __next__(self) -> np.ndarray:
        return self._planner.next_indices()
