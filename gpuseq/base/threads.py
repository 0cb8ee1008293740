"""Threads for work that releases the GIL: one kept pool per size, the caller works too, Ctrl-C stops all.

And what becomes of threads and locks in a forked child: see `renew_in_child`.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

__all__ = ["close_pools", "for_each", "renew_in_child"]

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
_renewed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


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
    futures: list[Future[None]] = [pool.submit(run) for _ in range(helpers)]
    try:
        run()
    finally:
        # Those that never started have nothing left to do. They are not waited for: a pool that is busy, perhaps with
        # our own caller, would take them up late or never.
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
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    for thing in list(_renewed.values()):
        thing._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
