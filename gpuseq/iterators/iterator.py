"""`Iterator`: hands out batches that are made from plans, and knows at each moment which one is next."""

from __future__ import annotations

import copyreg
import itertools
import sys
import warnings
from collections.abc import Callable
from collections.abc import Iterator as IteratorABC
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, SupportsIndex, TypeAlias, TypeVar, cast, overload

import numpy as np

from gpuseq.base.arguments import caller, checked_arguments, warn
from gpuseq.base.errors import GpuseqError
from gpuseq.base.types import BatchArray, DataFormat, Labels, Remainder, Rng, Shard, Weights
from gpuseq.base.version import __version__
from gpuseq.plan.draw import Drawing
from gpuseq.plan.plan import BatchPlan
from gpuseq.plan.planner import Planner
from gpuseq.plan.sharding import checked_options
from gpuseq.sources.masks import PairedMasks
from gpuseq.sources.source import Source

from .passing import first_left
from .planned import Planned
from .sequence import Sequence

if TYPE_CHECKING:
    from typing_extensions import Self

    from .explain import Explanation

__all__ = ["Iterator"]

_REPLAYED: ContextVar[list[Any] | None] = ContextVar("gpuseq_replayed", default=None)
"""The iterator and the plan of the batch that this thread makes through a method that only knows sample numbers."""

_NOTHING_DRAWN = Drawing()

_TF_KERAS_ADAPTER = "keras.src.engine.data_adapter"
_NO_END = (
    "tf_keras takes this iterator for a generator without an end, whose first epoch is never over. Write "
    "model.fit(iterator.to_keras()), or import ImageDataGenerator from gpuseq.keras, or pass steps_per_epoch"
)

_SAME_NUMBERS = (
    "each worker process of a DataLoader draws the same random numbers here, and in every epoch again. Write "
    "DataLoader(gpuseq.torch.loader(iterator), batch_size=None, num_workers=...), or leave the workers out"
)


_NO_EPOCH = (
    "a DataLoader asks for batches by index and never says which epoch it is, so each pass over it would be epoch "
    "{epoch} again, with the same random numbers. Write DataLoader(gpuseq.torch.loader(iterator), batch_size=None), or "
    "call iterator.set_epoch(epoch) before each pass"
)
_FETCHES = "torch.utils.data._utils.fetch"
"""The module from which a DataLoader asks a data set for what it holds at an index."""


class _Untyped:
    """What no label and no weight is: an iterator of it is one whose type says nothing of them."""


_Unweighted: TypeAlias = Literal["pad", "drop"] | None
"""What gives no sample a weight: no weights, and a remainder that fills up none or says nothing of it."""

_Left: TypeAlias = np.ndarray | list[Any] | tuple[Any, ...]
"""Weights that Keras leaves out where there are no labels for them to weigh."""

Batch = TypeVar("Batch", covariant=True)


class _Gives(Protocol[Batch]):
    """An iterator, by what its ``next()`` returns: the one place that says so is `Iterator.__next__`."""

    def __next__(self) -> Batch: ...


# To types a subclass, as the standard library's stubs have it of `list` and `collections.abc.Sequence`.
if TYPE_CHECKING:
    _BatchesByIndex = Sequence
else:
    _BatchesByIndex = object


@Sequence.register
class Iterator(Generic[Labels, Weights], _BatchesByIndex):  # numpydoc ignore=PR02
    """Hands out `n` samples in batches, epoch after epoch, and knows at each moment which batch is next.

    Subclasses that only know how to make a batch from sample numbers define ``_get_batches_of_transformed_samples``,
    as with Keras; the iterators of this package define ``_make``, which gets the whole plan.

    Parameters
    ----------
    n : int
        Number of samples in the data set.
    batch_size : int
        Samples per batch; the last one of an epoch may have fewer.
    shuffle : bool
        A new order each epoch.
    seed : int or None
        Batch number b is drawn from ``RandomState(seed + b)``. None draws from NumPy's global stream. Both are Keras'
        own way.
    rng : {"keras", "keyed"}
        Keras' own numbers, or numbers that depend on (seed, epoch, sample) only.
    shard : None, (int, int) or "auto"
        ``(rank, world)``: take only this rank's part of each epoch. "auto" asks the launcher.
    remainder : {"pad", "drop", "exact"}
        What happens to samples that do not divide by the world size: all ranks have equally many batches.
    **kwargs
        ``workers``, ``use_multiprocessing`` and ``max_queue_size``, those of `Sequence`.

    Attributes
    ----------
    n : int
        Samples in an epoch of this iterator: its shard's.
    batch_size, shuffle, seed
        As given.
    batch_index, total_batches_seen : int
        As in Keras.
    index_array : numpy.ndarray or None
        Shape ``(n,)``: the order of the current epoch, None before the first batch.
    index_generator : iterator of numpy.ndarray
        The sample numbers of the next batch, of the one after it, and so on.
    lock : threading.RLock
        Held while a batch is planned.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If the seed is not an integer.

    References
    ----------
    ``keras.src.legacy.preprocessing.image.Iterator`` (Keras 3.15).
    """

    white_list_formats: tuple[str, ...] = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")

    _planner: Planner
    _source: Source | None = None
    _masks: PairedMasks | None = None
    data_format: DataFormat = "channels_last"
    _batch_format: DataFormat | None = None
    _is_told_format = True
    _index_dtype: str | None = None
    _fetched: set[int] | None = None  # what a DataLoader took of the epoch that was set; None: none was
    _may_pass_over = False
    """Whether bad files may leave nothing of a batch, so that a pass can have fewer batches than ``len(self)``."""
    n = Planned[int]("n")
    batch_size = Planned[int]("batch_size")
    shuffle = Planned[bool]("shuffle")
    seed = Planned["int | None"]("seed")
    batch_index = Planned[int]("batch_index")
    total_batches_seen = Planned[int]("total_batches_seen")
    index_array = Planned["np.ndarray | None"]("index_array")
    index_generator: Planned[IteratorABC[np.ndarray]] = Planned("index_generator")
    lock = Planned[Any]("lock")

    @checked_arguments("workers", "use_multiprocessing", "max_queue_size")
    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        *,
        rng: Rng = "keras",
        shard: Shard | None = None,
        remainder: Remainder = "pad",
        **kwargs: Any,
    ) -> None:
        Sequence.__init__(self, **kwargs)  # its attributes; nothing else of it is shared
        options = checked_options(batch_size, shuffle, seed, rng=rng, shard=shard, remainder=remainder)
        self._planner = Planner(n, batch_size, shuffle, seed, options, self._own_order())

    def _own_order(self) -> Callable[[], None] | None:
        """Return a subclass' own ``_set_index_array``, which the planner calls where an order is due."""
        overridden = type(self)._set_index_array is not Iterator._set_index_array
        return self._set_index_array if overridden else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch: the same on every rank."""
        return len(self._planner)

    @property
    def batch_format(self) -> DataFormat:
        """Axis order of the batches: `data_format`, unless what they are handed to wants another one."""
        return self._batch_format or self.data_format

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch, under the name that Keras 3 asks for."""
        return len(self)

    def to_keras(self, **options: Any) -> Any:
        """Return this iterator as a ``keras.utils.PyDataset`` for ``model.fit``; see `Sequence.to_keras`."""
        return Sequence.to_keras(self, **options)

    def _hand_out(self, data_format: DataFormat | None, index_dtype: str) -> None:
        """Make batches for a taker with an axis order (None: any) and a dtype for class indices of its own."""
        self._batch_format, self._index_dtype = data_format, index_dtype

    # From a plan to a batch.

    def plan_batch(self, index: int | None = None, *, epoch: int | None = None) -> BatchPlan:
        """Draw the plan of a batch without making the batch.

        Parameters
        ----------
        index : int or None
            Which batch of the epoch. None: the one that ``next()`` would return.
        epoch : int or None
            Which epoch; from then on the iterator counts by epoch, and the plan is the same one in any order of asking
            and from any thread. None: the current one.

        Returns
        -------
        BatchPlan
            Counts as a batch seen: ``iterator[i]`` is ``iterator.replay(iterator.plan_batch(i))``.

        Raises
        ------
        IndexError
            If `index` is outside the epoch.
        """
        planner, drawing = self._planner, self._drawing()
        if index is not None:
            index = planner.checked_index(index)
        # One lock over both: between them another thread could go to another epoch.
        with planner.lock:
            if epoch is not None and not (planner.position.by_epoch and planner.epoch == epoch):
                planner.set_epoch(epoch, drawing)
            plan = planner.plan(index, drawing)
            # Within the lock, so that announcements reach the source in the order of the plans.
            self._expect(
                plan, planner.position.batch if index is None else index + planner.stride, onward=index is None
            )
        return plan

    def replay(self: _Gives[Batch], plan: BatchPlan) -> Batch:
        """Make the batch of a plan, this iterator's or that of another one over the same samples.

        Parameters
        ----------
        plan : BatchPlan
            From `plan_batch`. Give the plan of the images to the iterator of the masks, and the two cannot drift apart:
            geometry follows the plan; channel shift and brightness are done only where this iterator's generator has
            ranges for them, and what else is in the plan's program only where it has augmentations.

        Returns
        -------
        array or tuple
            What ``next()`` would have returned. Changes no state: the same plan gives the same batch.

        Raises
        ------
        ImageFileError
            If a file fails and ``on_error`` says so.
        TypeError, ValueError
            If it is no plan, or one over more samples than there are here.
        """
        if not isinstance(plan, BatchPlan):
            raise TypeError(f"replay() takes a BatchPlan, from plan_batch(); got {type(plan).__name__}")
        iterator = cast(Iterator, self)
        indices, num_samples = plan.indices, iterator._planner.num_samples
        # One look for both ends: as unsigned numbers the negative ones are the largest.
        if indices.size and int(np.maximum.reduce(np.asarray(indices, np.int64).view(np.uint64))) >= num_samples:
            least = int(indices.min())
            outside = least if least < 0 else int(indices.max())
            raise ValueError(
                f"the plan was drawn for other data: it asks for sample {outside}, and there are {num_samples} here"
            )
        batch: Batch
        if type(iterator)._get_batches_of_transformed_samples is Iterator._get_batches_of_transformed_samples:
            batch = iterator._make(plan)
            return batch
        # A subclass as written for Keras: it gets sample numbers alone, and `_plan_of` finds the plan again.
        token = _REPLAYED.set([iterator, plan])
        try:
            batch = iterator._get_batches_of_transformed_samples(plan.indices.copy())
        finally:
            _REPLAYED.reset(token)
        return batch

    def _make(self, plan: BatchPlan) -> Any:
        """Return the batch of a plan that fits here."""
        raise NotImplementedError(
            f"{type(self).__name__} must define _get_batches_of_transformed_samples(index_array) to make a batch"
        )

    def _get_batches_of_transformed_samples(self, index_array: np.ndarray) -> Any:
        return self._make(self._plan_of(index_array))

    def _plan_of(self, index_array: np.ndarray) -> BatchPlan:
        """Return the plan that is being replayed, once; for other samples, or a second view, draw one as Keras does."""
        replayed = _REPLAYED.get()
        # By iterator and numbers: a method that asks for other samples, or a second time, gets numbers of its own.
        if replayed is not None and replayed[0] is self and np.array_equal(replayed[1].indices, index_array):
            replayed[0] = None
            plan: BatchPlan = replayed[1]
            return plan
        with self._planner.lock:
            return self._planner.draw(np.asarray(index_array), None, self._drawing())

    def _drawing(self) -> Drawing:
        """Return what is drawn for each sample, as it stands now."""
        return _NOTHING_DRAWN

    def _expect(self, plan: BatchPlan, number: int, *, onward: bool) -> None:
        """Let files be read ahead: `plan` is about to be made, and batch `number` after it.

        Number 0 where ``next()`` goes `onward` is the first one of an epoch that has begun.
        """
        if self._source is None or not self._source.prefetch:
            return
        upcoming = self._planner.upcoming(number, self._source.prefetch, onward=onward)
        self._source.expect(upcoming, plan.indices)
        if self._masks is not None:
            self._masks.expect(upcoming, plan.indices)

    # Batches, one after another or by index.

    def __iter__(self) -> Self:
        """Return the iterator itself: it goes on and on, epoch after epoch, as Keras' does."""
        return self

    # Images alone, with labels, or with labels and weights. Where either is not typed, nothing is said of the batch.
    @overload
    def __next__(self: Iterator[_Untyped, Any]) -> Any: ...

    @overload
    def __next__(self: Iterator[Any, _Untyped | Literal["pad", "drop"]]) -> Any: ...

    @overload
    def __next__(self: Iterator[None, _Unweighted | _Left]) -> BatchArray: ...

    @overload
    def __next__(self: Iterator[Any, _Unweighted]) -> tuple[BatchArray, Any]: ...

    @overload
    def __next__(self: Iterator[Any, Any]) -> tuple[BatchArray, Any, BatchArray]: ...

    def __next__(self) -> Any:
        """Return the next batch of which bad files leave anything.

        After the last one of an epoch comes the first one of the next.
        """
        # tf_keras' adapter for generators calls `next` and never asks for a length.
        if "tf_keras" in sys.modules and caller().f_globals.get("__name__", "").endswith(_TF_KERAS_ADAPTER):
            warn(_NO_END)
        if not self._may_pass_over:
            return self.replay(self.plan_batch())
        # Once where an epoch has no batch, with remainder="drop" and fewer samples than ranks: then it is an empty one.
        return first_left(itertools.repeat(lambda: self.replay(self.plan_batch()), max(1, len(self))))

    def next(self: _Gives[Batch]) -> Batch:
        """Return the next batch, as ``next(iterator)`` does. Keras 2 has this method."""
        return next(self)

    def __getitem__(self: _Gives[Batch], index: int) -> Batch:
        """Return batch `index` of the current epoch.

        Parameters
        ----------
        index : int
            ``-len(self)`` to ``len(self) - 1``.

        Raises
        ------
        IndexError
            If `index` is outside; a ValueError too, as Keras raises.
        GpuseqError
            If a ``DataLoader`` around this iterator would make the same random batches in each epoch.
        """
        # Asked of the module that torch has loaded, so that torch is not imported for it.
        worker = sys.modules.get("torch.utils.data._utils.worker")
        iterator = cast(Iterator, self)
        if worker is not None and worker._worker_info is not None and not iterator._counts_by_epoch:
            warnings.warn(_SAME_NUMBERS, stacklevel=2)
        elif _FETCHES in sys.modules and sys._getframe(1).f_globals.get("__name__") == _FETCHES:
            iterator._refuse_to_repeat(index)
        batch: Batch = iterator.replay(iterator.plan_batch(index))
        return batch

    def _refuse_to_repeat(self, index: int) -> None:
        """Raise a GpuseqError where a data loader takes an epoch that was not chosen, or takes one again."""
        # Without shuffling and without ranges an epoch is the same whatever its number.
        is_random = self._planner.shuffle or self._drawing().draws
        if not (self._counts_by_epoch and is_random):
            return
        if self._fetched is None or index in self._fetched:
            raise GpuseqError(_NO_EPOCH.format(epoch=self.epoch))
        self._fetched.add(index)

    # Epochs and states.

    @property
    def epoch(self) -> int:
        """The current epoch: as `set_epoch` has it, or the full epochs of batches seen so far."""
        return self._planner.epoch

    @property
    def _counts_by_epoch(self) -> bool:
        """Whether batch i of an epoch is always the same batch, whatever was asked for before it."""
        return self._planner.position.by_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, and from now on count by epoch: ``iterator[i]`` is batch i of that epoch.

        Taken from the start without it, epoch e of ``next()`` is the same. Without a seed one is drawn now, from
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
        # A chosen epoch may be taken once by a DataLoader, see `_refuse_to_repeat`: from here on nothing of it was.
        self._planner.set_epoch(epoch, self._drawing())
        self._fetched = set()

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch, from wherever the stream stands, as Keras does.

        Counting by epoch, go to the next one if a batch of this one was asked for: frameworks also call this before the
        first epoch.
        """
        self._planner.end_epoch()

    def reset(self) -> None:
        """Let ``next()`` start an epoch."""
        self.batch_index = 0

    def _set_index_array(self) -> None:
        self._planner.set_order()

    def state_dict(self) -> dict[str, int | str]:
        """Return which batch is next, as a small dictionary of integers and strings that JSON can hold.

        Returns
        -------
        dict
            For `load_state_dict` of an iterator made with the same arguments.

        Raises
        ------
        GpuseqError
            Without a seed: the numbers then come from NumPy's global stream, which is not the iterator's to restore.
        """
        return self._planner.state_dict()

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
        self._planner.load_state_dict(state, self._drawing())
        self._fetched = set()

    def close(self) -> None:
        """Stop reading ahead and wait for the worker thread. The iterator stays usable."""
        for source in (self._source, self._masks):
            if source is not None:
                source.close()

    # Descriptions and copies.

    def explain(self, index: int | None = None) -> Explanation:
        """Say what a batch is going to be and how it is going to be made, and leave the iterator where it stands.

        Parameters
        ----------
        index : int or None
            Which batch of the current epoch. None: the one that ``next()`` would return.

        Returns
        -------
        Explanation
            Print it: the plan as a table, one line per sample, and the path: source, decoder, cache, engine, bytes.

        Raises
        ------
        IndexError
            If `index` is outside the epoch.
        """
        from .explain import explain  # with its pages and pictures, when asked for

        return explain(self, index)

    def _repr_html_(self) -> str:
        from .explain import iterator_html

        return iterator_html(self)

    def __copy__(self) -> Self:
        """Return an iterator over the same data that stands here and goes on by itself."""
        twin = object.__new__(type(self))
        # Data, source and generator are shared: going on changes none of them. What stands somewhere is the planner
        # alone.
        twin.__dict__.update(self.__dict__)
        twin._planner = self._planner.copy(twin._own_order())
        return twin

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Return what a pickle holds: the version that wrote it, and then all that the iterator is made of."""
        reduced = super().__reduce_ex__(max(2, protocol.__index__()))
        if not isinstance(reduced, tuple) or reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
            return reduced  # a subclass has a way of its own
        _, (kind, *arguments), *rest = reduced
        # The version is an argument, because arguments are read first: the parts that follow are named by modules that
        # another version may not have, and would raise an error that says nothing of versions.
        return (kind._unpickled, (__version__, *arguments), *rest)

    @classmethod
    def _unpickled(cls, version: str, *arguments: Any) -> Self:
        if version != __version__:
            raise GpuseqError(
                f"this pickle of a {cls.__name__} was written by gpuseq {version}, and this is {__version__}. A pickle "
                "is for another process of the same version. Make the iterator anew, and give load_state_dict() what "
                "state_dict() returned: later versions read it"
            )
        return cls.__new__(cls, *arguments)

    def __repr__(self) -> str:
        # Keras shows this line where the iterator is handed to fit as it is.
        name = f"{type(self).__module__}.{type(self).__name__}"
        advice = "for model.fit write model.fit(iterator.to_keras()), or import from gpuseq.keras"
        return f"<{name} of {self.n} samples: {advice}>"
