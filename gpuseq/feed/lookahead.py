"""`to_device`: any user's batches by index, made ahead by threads, in order, each once, on the device or the host."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Iterator as IteratorABC
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from gpuseq.base.devices import is_cupy, place, resolve_device
from gpuseq.base.errors import EmptyBatchError
from gpuseq.base.streams import Made, made_here
from gpuseq.base.threads import PerProcess, submit
from gpuseq.base.types import Device
from gpuseq.iterators.iterator import Iterator
from gpuseq.iterators.passing import first_left
from gpuseq.iterators.sequence import Sequence

__all__ = ["DeviceSequence", "check_batches", "map_arrays", "to_device"]

logger = logging.getLogger("gpuseq")


def to_device(sequence: Any, prefetch: int = 2, workers: int = 4, *, device: Device = "auto") -> DeviceSequence:
    """Give a data set of batches by index a lookahead, and its batches a place on the device.

    Parameters
    ----------
    sequence : Sequence
        Anything with ``__getitem__(index)`` and ``__len__()`` that can be called from several threads at once: a
        `Sequence`, ``keras.utils.PyDataset``, ``tf.keras.utils.Sequence``, list of batches. Its batches are arrays, or
        tuples, lists and dicts of them, nested as you like.
    prefetch : int
        How many batches may be ready and waiting, beside those that the threads are at. 0 makes each batch when it is
        asked for.
    workers : int
        Threads. 0 makes each batch when it is asked for.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the arrays go; "auto" as in `ImageDataGenerator`.

    Returns
    -------
    DeviceSequence
        Iterate over it once per epoch, or take its batches by index.

    Raises
    ------
    TypeError
        If `sequence` has no batches by index, or is an array of samples.
    ValueError
        If `prefetch` or `workers` is no whole number from 0.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuseq import Sequence, to_device
    >>> class Squares(Sequence):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, index):
    ...         return {"x": np.full(2, index), "y": np.full(2, index**2)}
    >>> [int(batch["y"][0]) for batch in to_device(Squares(), device="cpu")]
    [0, 1, 4]
    """
    return DeviceSequence(sequence, prefetch, workers, device)


class DeviceSequence(PerProcess, Sequence):
    """What `to_device` returns. Each pass over it is one epoch and calls the user's ``on_epoch_end`` at its end.

    An exception in a batch comes up where that batch is due, after the batches before it; a batch of which nothing is
    left because all of its files are bad is passed over, and the pass is that much shorter. Leaving a pass early,
    closing it, dropping it or Ctrl-C stops its threads: batches not begun are never made.

    Parameters
    ----------
    sequence : Sequence
        Anything with ``__getitem__(index)`` and ``__len__()`` that can be called from several threads at once: a
        `Sequence`, ``keras.utils.PyDataset``, ``tf.keras.utils.Sequence``, list of batches. Its batches are arrays, or
        tuples, lists and dicts of them, nested as you like.
    prefetch : int
        How many batches may be ready and waiting, beside those that the threads are at. 0 makes each batch when it is
        asked for.
    workers : int
        Threads. 0 makes each batch when it is asked for.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the arrays go; "auto" as in `ImageDataGenerator`.
    """

    _ahead: _Ahead | None

    def __init__(self, sequence: Any, prefetch: int, workers: int, device: str) -> None:
        check_batches(sequence, "to_device()")
        for name, value in (("prefetch", prefetch), ("workers", workers)):
            # True is an int in Python, and would be one thread.
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
                raise ValueError(f"{name} must be a whole number from 0; got {value!r}")
        super().__init__(workers=int(workers), max_queue_size=int(prefetch))
        self.sequence = sequence
        self.prefetch = int(prefetch)
        self.device = resolve_device(device)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.sequence)

    def __iter__(self) -> IteratorABC[Any]:
        """Begin a pass: one epoch, in order."""
        return _Pass(self)

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`; the ones after it are made ahead, so ask in order.

        Parameters
        ----------
        index : int
            0 to ``len(self) - 1``, or negative from the end.

        Raises
        ------
        IndexError
            If `index` is outside.
        TypeError
            If it is no integer.
        """
        length = len(self)
        if not hasattr(index, "__index__"):
            raise TypeError(f"a batch is asked for by its number, an integer; got {index!r}")
        if not -length <= index < length:
            valid = f"valid are 0 to {length - 1}" if length else "there are no batches"
            raise IndexError(f"batch {index} of {length}: {valid}")
        with self._lock:
            # Made at the first request, since a sequence that is only iterated over has no use for these threads.
            if self._ahead is None:
                self._ahead = _Ahead(self)
            return self._ahead.take(int(index) % length, length)

    def on_epoch_end(self) -> None:
        """Forget what was made ahead, and tell the user's data set."""
        self.close()
        end = getattr(self.sequence, "on_epoch_end", None)
        if end is not None:
            end()

    def close(self) -> None:
        """Stop the threads behind ``self[index]``. Usable again afterwards."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()

    def _renew(self) -> None:
        """Begin with nothing made ahead."""
        self._lock = threading.Lock()
        self._ahead = None

    def _preparing(self) -> Callable[[int], Callable[[], Any]]:
        """Return what prepares a batch, on the asking thread and in order, and returns what makes it, on any other.

        Without a reference to this object. An iterator's plans are drawn in order, because each one tells its files'
        source which ones follow: out of order, what is being decoded for one batch would be dropped for another.
        """
        sequence = self.sequence
        if not isinstance(sequence, Iterator):
            return lambda index: lambda: _with_makers(sequence[index])
        # Taken once: the epoch that was current when the pass began is the pass'.
        epoch = sequence.epoch

        def prepare(index: int) -> Callable[[], Any]:
            plan = sequence.plan_batch(index, epoch=epoch)
            return lambda: _with_makers(sequence.replay(plan))

        return prepare


class _Ahead(PerProcess):
    """Batches being made by threads for indices that follow each other."""

    _stop: Any = None

    def __init__(self, owner: DeviceSequence) -> None:
        self._prepare = owner._preparing()
        self._device = owner.device
        self._num_ahead = owner.prefetch + owner.workers if owner.prefetch and owner.workers else 0
        self._num_workers = owner.workers

    def _renew(self) -> None:
        """Begin with nothing asked for, and no thread."""
        if self._stop is not None:
            self._stop.detach()  # it would shut down the parent's pool, whose lock may be held for ever
        self._pending: deque[tuple[int, Future[Any]]] = deque()
        self._executor: ThreadPoolExecutor | None = None
        self._stop = None

    def _started(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._num_workers, thread_name_prefix="gpuseq-batch")
            # For a pass that is dropped without close(): what the threads run holds no reference to it (see
            # `_preparing`).
            self._stop = weakref.finalize(self, self._executor.shutdown, wait=False, cancel_futures=True)
        return self._executor

    def take(self, index: int, length: int) -> Any:
        """Return a batch on the device, and let the next ones be made."""
        try:
            # Asked for out of order: what was made for other batches is of no use, and its threads are needed.
            while self._pending and self._pending[0][0] != index:
                self._pending.popleft()[1].cancel()
            following = self._pending[-1][0] + 1 if self._pending else index
            # Threads and ready batches together: with all threads at work, `prefetch` batches more may wait.
            for ahead in range(following, min(index + self._num_ahead, length)):
                # `_prepare` runs here, on the asking thread; what it returns runs there.
                future = submit(self._started(), self._prepare(ahead))
                if future is None:  # without a thread each batch is made when it is asked for
                    break
                self._pending.append((ahead, future))
            batch, makers = self._pending.popleft()[1].result() if self._pending else self._prepare(index)()
        except EmptyBatchError:  # the next ones are wanted all the same
            raise
        except BaseException:
            self.close()
            raise
        # Here, and not in the worker thread: this thread's stream is the one that is to have it.
        return map_arrays(
            lambda array: place(array, self._device, makers[array.device.id] if is_cupy(array) else None), batch
        )

    def close(self) -> None:
        """Cancel what is not begun, and make nothing ahead from now on; what is begun ends on its own."""
        self._num_ahead = 0
        for _, future in self._pending:
            future.cancel()
        self._pending.clear()
        if self._stop is not None:
            self._stop()
            self._executor = self._stop = None


class _Pass:
    """One epoch of a `DeviceSequence`: an iterator with `close`."""

    def __init__(self, owner: DeviceSequence) -> None:
        self._ahead = _Ahead(owner)
        self._length = len(owner)
        self._index = 0
        self._is_empty = True
        self._options = owner.sequence._planner.options if isinstance(owner.sequence, Iterator) else None
        # Of the data set and not of its wrapper: that one stops the threads behind `self[index]`, too.
        self._on_epoch_end = getattr(owner.sequence, "on_epoch_end", None)

    def __iter__(self) -> _Pass:
        return self

    def __next__(self) -> Any:
        try:
            batch = first_left(self._makers(), self._options, is_under_way=not self._is_empty)
        except StopIteration:
            pass
        # Ctrl-C too: threads must not go on for a pass that is over.
        except BaseException:
            self.close()
            raise
        else:
            self._is_empty = False
            return batch
        # First the threads, then the user's method: it may change what they read.
        self._ahead.close()
        end, self._on_epoch_end = self._on_epoch_end, None
        if end is not None:
            end()
        raise StopIteration

    def _makers(self) -> IteratorABC[Callable[[], Any]]:
        """Yield what takes each batch that is left, and count it as asked for."""
        while self._index < self._length:
            index, self._index = self._index, self._index + 1
            yield partial(self._ahead.take, index, self._length)

    def close(self) -> None:
        """End the pass here."""
        self._on_epoch_end = None
        self._index = self._length
        self._ahead.close()


def check_batches(source: Any, taker: str) -> None:
    """Refuse what has no batches by index, and what has an index but is no data set of batches.

    Parameters
    ----------
    source : object
        What a user handed over.
    taker : str
        What takes it, as the start of the message.

    Raises
    ------
    TypeError
        With the line to write instead.
    """
    # The line to write is that of the face that was asked.
    flow = f"gpuseq{'.keras' if 'keras' in taker else ''}.ImageDataGenerator(...).flow"
    got = f"{type(source).__module__}.{type(source).__name__}"
    if isinstance(source, (str, bytes, os.PathLike)):
        raise TypeError(f"{taker} takes batches by index; got {got} {source!r}. Write {flow}_from_directory(...)")
    if isinstance(source, (tuple, Mapping)) or hasattr(source, "iloc") or _is_array(source):
        raise TypeError(
            f"{taker} takes batches by index; got {got}, which holds samples. "
            f"Write {flow}(images, labels, batch_size=32)"
        )
    iterator = getattr(source, "iterator", None)
    if isinstance(iterator, Iterator):
        raise TypeError(f"{taker} takes batches by index; got a {got}. Give it the iterator itself: loader.iterator")
    if isinstance(source, type) or not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
        raise TypeError(
            f"{taker} takes batches by index, and {got} has no batches by index. Write {flow}_from_directory(...), or "
            "a subclass of gpuseq.Sequence with __getitem__(index) and __len__()"
        )


def _is_array(source: Any) -> bool:
    return hasattr(source, "shape") and hasattr(source, "dtype")


def map_arrays(function: Callable[[Any], Any], batch: Any) -> Any:
    """Return `batch` with each NumPy and CuPy array in it replaced; what is neither container nor array stays.

    Parameters
    ----------
    function : callable
        Gets an array.
    batch : array or container
        Tuples, lists, dicts and named tuples, nested.
    """
    if isinstance(batch, Mapping):
        return {key: map_arrays(function, value) for key, value in batch.items()}
    # A named tuple takes its items one by one.
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_arrays(function, item) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map_arrays(function, item) for item in batch)
    return function(batch) if isinstance(batch, np.ndarray) or is_cupy(batch) else batch


def _with_makers(batch: Any) -> tuple[Any, dict[int, Made]]:
    """Return a batch, and for each device where this thread has made an array of it, on which stream and until when."""
    devices: dict[int, Any] = {}
    map_arrays(lambda array: devices.setdefault(array.device.id, array.device) if is_cupy(array) else None, batch)
    # Noted on the thread that made them: the taker's stream has to wait for this one's work, and for nothing after it.
    return batch, {ordinal: made_here(device) for ordinal, device in devices.items()}
