"""Threads for work that releases the GIL: how many, one kept pool per size, the caller works too, Ctrl-C stops all.

And what becomes of locks and threads in a pickle, a copy and a forked child: see `PerProcess`, and
`gpuseq.base.forks` for other libraries'.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar, TypeVar

from .machine import cpu_limit

__all__ = ["PerProcess", "close_pools", "cpu_count", "for_each", "per_thread", "submit"]

T = TypeVar("T", bound="PerProcess")
Made = TypeVar("Made")
Result = TypeVar("Result")

# Kept for the life of the process: starting threads for each batch costs more than a small batch.
_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
# By identity: an object of ours may be compared by value, or not be hashable.
_per_process: weakref.WeakValueDictionary[int, PerProcess] = weakref.WeakValueDictionary()
_num_forks = 0  # between the process that imported this module and this one


def cpu_count() -> int:
    """Return how many threads to use: ``GPUSEQ_NUM_THREADS``, else the cores this process, or its container, may use.

    Raises
    ------
    ValueError
        If ``GPUSEQ_NUM_THREADS`` is not a positive integer.
    """
    asked = os.environ.get("GPUSEQ_NUM_THREADS")
    if asked:
        if not asked.isdecimal() or int(asked) < 1:
            raise ValueError(f"GPUSEQ_NUM_THREADS must be a positive integer; got {asked!r}")
        return int(asked)
    return _usable_cores()


@functools.cache
def _usable_cores() -> int:
    # The affinity mask is what taskset, Slurm and cpusets narrow; the count of the machine's cores is not.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = cpu_limit()
    # A quota of half a core still needs one thread; 2.5 cores are used by three.
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def for_each(work: Callable[[int], None], count: int, num_threads: int) -> None:
    """Call ``work(i)`` for every i in ``range(count)``, on several threads, and return when all are done.

    The calling thread takes its share, so one thread needs no pool and a pool that is busy elsewhere cannot block it.

    Parameters
    ----------
    work : callable
        Takes an index; called once for each, in any order. If a call raises, no further index is begun, and the
        exception is raised here.
    count : int
        Number of indices.
    num_threads : int
        Threads in all, the caller included.
    """
    helpers = min(num_threads, count) - 1
    if helpers <= 0:
        # Nobody else has to be told to stop.
        for index in range(count):
            work(index)
        return
    indices = itertools.count()  # next() on it is atomic: each index is handed out once
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set() and (index := next(indices)) < count:
                work(index)
        # KeyboardInterrupt reaches the calling thread only; the flag stops the helpers.
        except BaseException:
            stop.set()
            raise

    # By the threads asked for and not by the helpers of this call, so that a small last batch shares the pool of the
    # others instead of starting one of its own.
    pool = _pool(num_threads - 1)
    futures: list[Future[None]] = []
    for _ in range(helpers):
        future = submit(pool, run)
        if future is None:
            break
        futures.append(future)
    try:
        run()
    finally:
        # Those that never started have nothing left to do. They are not waited for: a pool that is busy, perhaps with
        # our own caller, would take them up late or never.
        started = [future for future in futures if not future.cancel()]
        wait(started)
    for future in started:
        future.result()


def submit(pool: ThreadPoolExecutor, call: Callable[..., Result], *arguments: Any) -> Future[Result] | None:
    """Let a pool call something, or say that the caller has to: where a process may have no more threads.

    Parameters
    ----------
    pool : concurrent.futures.ThreadPoolExecutor
        Its ``submit`` raises where it cannot start a thread, and has the call in its queue all the same.
    call : callable
        What to call.
    *arguments
        With what.

    Returns
    -------
    concurrent.futures.Future or None
        None: no thread will call it.
    """
    # A future of our own, because that of the pool is lost where its `submit` raises after it has queued the call.
    # Cancelling this one keeps a thread that turns up later from making the call a second time.
    future: Future[Result] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)

    try:
        pool.submit(run)
    except RuntimeError:  # no thread could be started, or the interpreter ends
        if future.cancel():
            return None
    return future


def close_pools() -> None:
    """Stop the kept threads. The next `for_each` starts new ones."""
    with _lock:
        pools = list(_pools.values())
        _pools.clear()
    for pool in pools:
        pool.shutdown(wait=True)


def _pool(size: int) -> ThreadPoolExecutor:
    with _lock:
        pool = _pools.get(size)
        if pool is None:
            pool = _pools[size] = ThreadPoolExecutor(size, thread_name_prefix="gpuseq-worker")
        return pool


def per_thread(make: Callable[..., Made]) -> Callable[..., Made]:
    """Let each thread keep what a function returns, once for each set of arguments: as ``functools.cache``, by thread.

    For what is dear to make and must not be used by two threads at once. A forked child makes its own.

    Parameters
    ----------
    make : callable
        Takes hashable positional arguments.
    """
    local = threading.local()

    @functools.wraps(make)
    def kept(*arguments: Any) -> Made:
        # A thread's own dictionary: no lock, and what it holds goes with the thread.
        made: dict[tuple[int, tuple[Any, ...]], Made] = local.__dict__.setdefault("made", {})
        key = (_num_forks, arguments)
        if key not in made:
            made[key] = make(*arguments)
        return made[key]

    return kept


class PerProcess:
    """An object with attributes that belong to one process: locks, threads, and what those are at.

    A subclass makes them in `_renew`, and nowhere else. They are then there before ``__init__`` runs, are left out of
    pickles and copies, and are made anew wherever they would be another's: in an unpickled object, in a
    copy, and in a forked child (PyTorch's ``DataLoader`` forks). A child inherits objects without their threads: what
    was being made ahead never comes, and a lock that another thread held stays shut.
    """

    _renewed_names: ClassVar[frozenset[str]] = frozenset()

    def __new__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Make the attributes of this process; the arguments are for ``__init__``."""
        instance = super().__new__(cls)
        instance._begin()
        return instance

    def _begin(self) -> None:
        self._renew()
        type(self)._renewed_names = frozenset(self.__dict__)  # empty but for what `_renew` has just set
        _per_process[id(self)] = self  # which does not keep it alive

    def _renew(self) -> None:
        """Set the attributes of this process.

        Called on an object that is still empty, and on a whole one in a forked child, where it must not wait for
        anything: locks that it finds may be held for ever, futures never done, and no other thread is there.
        """
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in self._renewed_names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if _per_process.get(id(self)) is not self:  # pickle's protocols 0 and 1 do not call `__new__`
            self._begin()
        self.__dict__.update(state)


def _renew_all() -> None:
    global _lock, _num_forks
    _num_forks += 1
    # Replaced, not released: the thread that may have held it does not exist in the child, nor do those of the pools.
    _lock = threading.Lock()
    _pools.clear()
    for thing in list(_per_process.values()):
        thing._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
