"""`Walk`: epochs, shards and numbers. At each moment it knows which batch is next, and makes none.

Batches are counted in one of two ways. *Keras' way*, the default: batch number b since construction is drawn from
``seed + b``, whatever was asked for in between. *By epoch*, after `set_epoch`, with shards or with ``rng="keyed"``:
batch i of epoch e is always the same batch, so any order of access, any number of threads and any resume give it.
Walked in order from the start, the two are one.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from gpuseq.base.arguments import check_count, checked_arguments
from gpuseq.base.errors import BatchIndexError, GpuseqError
from gpuseq.base.threads import PerProcess
from gpuseq.base.types import identity_params
from gpuseq.plan.draw import draw_keyed, draw_params
from gpuseq.plan.order import KerasStream, epoch_permutation, num_batches, position_of, shard_indices, shard_size
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.policies.recipe import Recipe
from gpuseq.plan.ranges import TransformRanges
from gpuseq.plan.sharding import checked_walk
from gpuseq.plan.state import WalkState

from .sequence import Sequence

__all__ = ["Walk"]


class Walk(PerProcess, Sequence):
    """The part of `~gpuseq.Iterator` that counts, orders and draws; what its arguments mean is written there."""

    @checked_arguments("workers", "use_multiprocessing", "max_queue_size")
    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        *,
        rng: str = "keras",
        shard: tuple[int, int] | str | None = None,
        remainder: str = "pad",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.walk = checked_walk(batch_size, shuffle, seed, rng=rng, shard=shard, remainder=remainder)
        if rng == "keyed" and seed is None:
            seed = int(np.random.randint(2**31))
        self.dataset_size = n
        self.n = shard_size(n, self.walk.world, self.walk.remainder)
        self.batch_size = int(batch_size)
        self.seed = None if seed is None else int(seed)
        self.shuffle = shuffle
        self.batch_index = 0
        self.total_batches_seen = 0
        self.index_array: np.ndarray | None = None
        self._weights: np.ndarray | None = None
        self._by_epoch = self.walk.rng == "keyed" or self.walk.world > 1
        self._epoch = 0
        self._served = False
        self._order_position = ""
        self._last_position = 0
        self._foreseen: tuple[Any, tuple[np.ndarray, np.ndarray | None]] | None = None
        self._stream = KerasStream(self.seed)
        self._stream.reseed(0)
        self.index_generator = _IndexGenerator(self)

    _ranges: TransformRanges | None = None
    _recipe: Recipe | None = None
    _image_size = (1, 1)
    _is_over = False  # the epoch's last sample numbers were handed out, and may yet be drawn for
    _stride = 1  # to the next batch that this process makes
    _file_number_limit = 0

    def _announce(self, current: np.ndarray, batch_index: int, *, walking: bool) -> None:
        """Tell the source what is being made and that batch `batch_index` is next: 0 of a new epoch when `walking`."""

    def _upcoming(self, batch_index: int, count: int, *, walking: bool) -> list[np.ndarray]:
        """Return the sample numbers of the next batches, into the next epoch as far as it is decided; draws nothing."""
        begun = walking and batch_index == 0  # next() has gone over to the next epoch
        batches: list[np.ndarray] = []
        if self.index_array is not None and not begun:
            batches = self._batches_of(self.index_array, batch_index, count)
        if len(batches) < count and (walking or self._by_epoch) and self._stride == 1:
            order = self._next_order(0 if begun else len(self) - batch_index, begun=begun)
            if order is not None:
                batches += self._batches_of(order, 0, count - len(batches))
        return batches

    def _batches_of(self, order: np.ndarray, first: int, count: int) -> list[np.ndarray]:
        starts = range(first * self.batch_size, self.n, self._stride * self.batch_size)
        return [order[start : start + self.batch_size] for start in starts[:count]]

    def _next_order(self, num_left: int, *, begun: bool) -> np.ndarray | None:
        """Return the order of the next epoch, `num_left` batches from here; None where it is not decided yet."""
        if self.shuffle and self.seed is None:
            return None
        if self._by_epoch:
            return self._order() if begun else self._foresee(self._epoch + 1)[0]
        if not self.shuffle:
            return self.index_array
        stream = KerasStream(self.seed)
        stream.reseed(self.total_batches_seen + num_left)
        return stream.permutation(self.dataset_size)

    def _foresee(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return order and weights of an epoch by number; kept, because they are wanted again when it begins."""
        key = (epoch, self.seed, self.shuffle)
        if self._foreseen is None or self._foreseen[0] != key:
            permutation = np.arange(self.dataset_size)
            if self.shuffle:
                first = None if self.walk.rng == "keyed" else epoch * len(self) * self.walk.world
                permutation = epoch_permutation(self.dataset_size, seed=self._seed, epoch=epoch, first_batch=first)
            part = shard_indices(permutation, self.walk.rank, self.walk.world, self.walk.remainder)
            self._foreseen = (epoch, self.seed, self.shuffle), part
        return self._foreseen[1]

    def __len__(self) -> int:
        """Return the number of batches in an epoch: the same on every rank."""
        return num_batches(self.n, self.batch_size)

    def _checked_index(self, index: int) -> int:
        length = len(self)
        if not hasattr(index, "__index__"):
            raise TypeError(f"a batch is asked for by its number, an integer; got {index!r}")
        if not -length <= index < length:
            raise BatchIndexError(
                f"Asked to retrieve element {index}, but the Sequence has length {length}: valid are 0 to {length - 1}"
            )
        return int(index) % length

    def _next_indices(self) -> np.ndarray:
        self._leave_epoch()
        self._begin_batch(self.batch_index if self._by_epoch else None)
        if self.batch_index == 0 and not self._by_epoch:
            self._set_index_array()
        self._last_position = self.batch_index
        start = self.batch_index * self.batch_size
        self.batch_index = self.batch_index + 1 if self.n > start + self.batch_size else 0
        self._is_over = self._by_epoch and self.batch_index == 0
        return self._order()[start : start + self.batch_size]

    def _item_indices(self, index: int) -> np.ndarray:
        self._leave_epoch()
        self._begin_batch(index if self._by_epoch else None)
        return self._order()[self.batch_size * index : self.batch_size * (index + 1)]

    def _begin_batch(self, epoch_position: int | None) -> None:
        """Count a batch and start its numbers: by batches seen, or by its place in the epoch."""
        if epoch_position is None:
            self._stream.reseed(self.total_batches_seen)
        elif self.walk.rng == "keras":
            first = self._epoch * len(self)
            if epoch_position == 0 and self.walk.rank == 0 and self.shuffle:
                # The first batch's numbers follow the permutation's in one stream.
                self._stream.reseed(first * self.walk.world)
                self._stream.permutation(self.dataset_size)
            else:
                self._stream.reseed((first + epoch_position) * self.walk.world + self.walk.rank)
        self.total_batches_seen += 1
        self._served = True

    def _order(self) -> np.ndarray:
        """Return the current order; on first access it is made."""
        if self.index_array is None:
            self._set_index_array()
        assert self.index_array is not None
        return self.index_array

    def _set_index_array(self) -> None:
        if self._by_epoch:
            self.index_array, self._weights = self._foresee(self._epoch)
            self._foreseen = None
            return
        permutation = np.arange(self.dataset_size)
        if self.shuffle:
            permutation = self._stream.permutation(self.dataset_size)
            self._order_position = self._stream.position
        self.index_array, self._weights = shard_indices(
            permutation, self.walk.rank, self.walk.world, self.walk.remainder
        )

    @property
    def _seed(self) -> int:
        if self.seed is None:
            self.seed = int(np.random.randint(2**31))
            self._stream = KerasStream(self.seed)
        return self.seed

    def _draw_params(self, stream: Any, num_samples: int) -> np.ndarray:
        """Draw the parameters of a batch in Keras' random mode."""
        height, width = self._image_size
        return draw_params(stream, self._ranges or TransformRanges(), num_samples, height, width)

    def _draw(self, indices: np.ndarray, position: int | None) -> BatchPlan:
        """Draw the numbers of batch `position` of the order; None: of samples that somebody chose."""
        height, width = self._image_size
        ranges = self._ranges
        if ranges is None:
            params = identity_params(len(indices))
        elif self.walk.rng == "keyed":
            params = draw_keyed(ranges, indices, height, width, seed=self._seed, epoch=self._epoch)
        else:
            params = self._stream.params(self._draw_params, len(indices))
        program = self._draw_program(indices)
        file_numbers = None
        if self._file_number_limit:
            file_numbers = self._stream.file_numbers(len(indices), self._file_number_limit)
        weights = None
        if self._weights is not None:
            if position is None:
                position = position_of(indices, self._order(), self.batch_size)
            weights = np.ones(len(indices), np.float32)
            if position is not None:
                weights = self._weights[self.batch_size * position : self.batch_size * position + len(indices)]
        return BatchPlan(
            indices=indices.copy(),
            params=params,
            file_numbers=file_numbers,
            weights=weights,
            epoch=self._epoch if self._by_epoch else -1,
            batch_index=position or 0,
            image_size=(height, width),
            program=program,
        )

    def _draw_program(self, indices: np.ndarray) -> np.ndarray | None:
        """Draw the steps of the augmentations from numbers of their own: those of the ranges stay as they are."""
        recipe = self._recipe
        if recipe is None:
            return None
        if self.walk.rng == "keyed":
            return recipe.draw(indices, self._image_size, seed=self._seed, epoch=self._epoch)
        seed, number = self._stream.key
        return recipe.draw(np.arange(len(indices)), self._image_size, seed=seed, epoch=number)

    @property
    def epoch(self) -> int:
        """The epoch that the walk is in: as `set_epoch` has it, or the full epochs of batches seen so far."""
        return self._epoch + self._is_over if self._by_epoch else self.total_batches_seen // max(1, len(self))

    @property
    def counts_by_epoch(self) -> bool:
        """Whether batch i of an epoch is always the same batch, whatever was asked for before it."""
        return self._by_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, and from now on count by epoch: ``iterator[i]`` is batch i of that epoch.

        Walked from the start without it, epoch e of ``next()`` is the same. Without a seed one is drawn now, from
        NumPy's global stream.

        Parameters
        ----------
        epoch : int
            From 0.

        Raises
        ------
        ValueError
            If `epoch` is not a non-negative integer.
        """
        check_count("epoch", epoch, least=0, or_none=False)
        with self.lock:
            if self.shuffle or self._ranges is not None:
                _ = self._seed
            self._by_epoch = True
            self.batch_index = 0
            self._start_epoch(int(epoch))

    def _start_epoch(self, epoch: int) -> None:
        if epoch != self._epoch or self.walk.rng == "keras":
            self.index_array = None
        self._epoch = epoch
        self._served = self._is_over = False

    def _leave_epoch(self) -> None:
        """Go over to the next epoch where the last sample numbers of this one were handed out."""
        if self._is_over:
            self._start_epoch(self._epoch + 1)

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch, from wherever the stream stands, as Keras does.

        Counting by epoch, go to the next one if a batch of this one was asked for: frameworks also call this before the
        first epoch.
        """
        with self.lock:
            if not self._by_epoch:
                self._set_index_array()
            elif self._served:
                self.batch_index = 0
                self._start_epoch(self._epoch + 1)

    def reset(self) -> None:
        """Let ``next()`` start an epoch."""
        self.batch_index = 0

    def state_dict(self) -> dict[str, int | str]:
        """Return where the walk stands, as a small dictionary of integers and strings that JSON can hold.

        Returns
        -------
        dict
            For `load_state_dict` of an iterator made with the same arguments.

        Raises
        ------
        GpuseqError
            Without a seed: the numbers then come from NumPy's global stream, which is not the iterator's to restore.
        """
        if self.seed is None:
            raise GpuseqError(
                "state_dict() needs a seed: without one the order and the transforms come from NumPy's global stream. "
                'Pass seed=..., or rng="keyed"'
            )
        with self.lock:
            return WalkState(
                rng=self.walk.rng,
                seed=self.seed,
                dataset_size=self.dataset_size,
                shuffle=int(self.shuffle),
                remainder=self.walk.remainder,
                world=self.walk.world,
                batch_size=self.batch_size,
                by_epoch=int(self._by_epoch),
                epoch=self._epoch + self._is_over,
                served=int(self._served and not self._is_over),
                batch_index=self.batch_index,
                total_batches_seen=self.total_batches_seen,
                order=self._order_position if self.index_array is not None else "",
                stream=self._stream.position,
            ).as_dict()

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go to where `state_dict` was taken: the next batch is the one that would have come next, bit for bit.

        Parameters
        ----------
        state : dict
            From `state_dict`.

        Raises
        ------
        ValueError
            If the state was taken from an iterator over other data or made otherwise, or is not whole. The iterator
            then stands where it stood.
        TypeError
            If it is no dictionary.
        """
        found = WalkState.parse(state)
        here: dict[str, int | str] = {"batch_size": self.batch_size, "world": self.walk.world}
        found.check(
            rng=self.walk.rng,
            dataset_size=self.dataset_size,
            shuffle=int(self.shuffle),
            remainder=self.walk.remainder,
            **(here if self.walk.rng == "keras" else {}),
        )
        step = self.batch_size * self.walk.world
        if found.global_position % step:
            raise ValueError(
                f"this state stands at sample {found.global_position} of the epoch, which is not the start of a batch: "
                f"batches here (all ranks together) have {step} samples"
            )
        stream, order, weights = KerasStream(found.seed), None, None
        if not found.by_epoch:
            if found.order:
                permutation = stream.restore(found.order, self._draw_params)
                assert permutation is not None
                order, weights = shard_indices(permutation, 0, 1, self.walk.remainder)
            stream.restore(found.stream, self._draw_params)
        epoch, index, served = found.epoch, found.global_position // step, bool(found.served)
        if found.by_epoch and index >= len(self):  # this shard's part of it is served
            epoch, index, served = epoch + 1, 0, False
        with self.lock:
            self.seed, self._stream = found.seed, stream
            self._by_epoch = bool(found.by_epoch)
            self._epoch = epoch
            self._served, self._is_over = served, False
            self.batch_index = index
            self.total_batches_seen = found.total_batches_seen
            self._order_position = found.order
            self.index_array, self._weights = order, weights

    def _renew(self) -> None:
        # Taken again within itself by who does two things at once: see `gpuseq.feed.lookahead.plan_at`.
        self.lock = threading.RLock()


class _IndexGenerator:
    """Keras' ``index_generator``: the sample numbers of the next batch, of one after it, and so on without end."""

    def __init__(self, iterator: Walk) -> None:
        self._iterator = iterator

    def __iter__(self) -> _IndexGenerator:
        return self

    def __next__(self) -> np.ndarray:
        return self._iterator._next_indices()
