"""Threads for work that releases the GIL: one kept pool per size, the caller works too, Ctrl-C stops all."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

__all__ = ["close_pools", "for_each"]

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


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

    futures: list[Future[None]] = []
    helpers = min(num_threads, count) - 1
    if helpers > 0:
        pool = _pool(num_threads - 1)
        futures = [pool.submit(run) for _ in range(helpers)]
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


def _forget_pools() -> None:
    # A forked child inherits the objects without their threads.
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
