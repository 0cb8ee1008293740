"""Threads for work that releases the GIL: one kept pool per size, the caller works too, Ctrl-C stops all.

And what becomes of threads and locks in a forked child: see `renew_in_child`.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

__all__ = ["close_pools", "fair_share", "for_each", "renew_in_child"]

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
_renewed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_num_at_work = 0  # calls of for_each that run on several threads now


def fair_share(num_threads: int) -> int:
    """Return how many threads a chain of short NumPy calls should take: half of `num_threads` while others are at work.

    Files that are decoded ahead keep the cores busy in long calls without the GIL. Short calls that join them on as
    many threads spend their time handing the GIL round: beside a decoder on two cores, one is faster than two.

    Parameters
    ----------
    num_threads : int
        What it would take alone.
    """
    return max(1, num_threads // 2) if _num_at_work else num_threads


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
    indices = itertools.count()  # next() on it is atomic: each index is handed out once
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set() and (index := next(indices)) < count:
                work(index)
        except BaseException:
            stop.set()
            raise

    helpers = min(num_threads, count) - 1
    if helpers <= 0:
        run()
        return
    pool = _pool(num_threads - 1)
    with _at_work():
        futures: list[Future[None]] = [pool.submit(run) for _ in range(helpers)]
        try:
            run()
        finally:
            # Those that never started have nothing left to do. They are not waited for: a pool that is busy, perhaps
            # with our own caller, would take them up late or never.
            started = [future for future in futures if not future.cancel()]
            wait(started)
    for future in started:
        future.result()


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


@contextmanager
def _at_work() -> Iterator[None]:
    global _num_at_work
    with _lock:
        _num_at_work += 1
    try:
        yield
    finally:
        with _lock:
            _num_at_work -= 1


def renew_in_child(thing: Any) -> None:
    """Let ``thing._renew()`` be called in every forked child.

    A child inherits the objects without their threads: what was being made ahead never comes, and a lock that another
    thread held stays shut. PyTorch's ``DataLoader`` forks.

    Parameters
    ----------
    thing : object
        Not kept alive by this.
    """
    _renewed[id(thing)] = thing


def _renew_all() -> None:
    global _lock, _num_at_work
    _lock = threading.Lock()
    _num_at_work = 0
    _pools.clear()
    for thing in list(_renewed.values()):
        thing._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
