"""Every index once, on any number of threads, and an end to it."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpuseq
from gpuseq.base import threads as workers
from tests.base.children import in_a_child, needs_fork


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_calls_each_index_once(num_threads: int, count: int) -> None:
    seen: Counter[int] = Counter()
    lock = threading.Lock()

    def work(index: int) -> None:
        with lock:
            seen[index] += 1

    workers.for_each(work, count, num_threads)
    assert seen == Counter(range(count))


def test_uses_several_threads() -> None:
    barrier = threading.Barrier(3, timeout=120)
    workers.for_each(lambda index: barrier.wait() and None, 3, 3)
    assert barrier.n_waiting == 0


def test_one_thread_is_the_callers_own() -> None:
    threads = set()
    workers.for_each(lambda index: threads.add(threading.get_ident()), 5, 1)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("num_threads", [1, 3])
def test_raises_what_the_work_raises_and_stops(num_threads: int) -> None:
    begun = []

    def work(index: int) -> None:
        begun.append(index)
        if index == 2:
            raise KeyError("two")
        time.sleep(0.001)

    with pytest.raises(KeyError, match="two"):
        workers.for_each(work, 10_000, num_threads)
    assert len(begun) < 5_000


def test_an_interrupted_caller_stops_the_others() -> None:
    caller = threading.get_ident()
    begun = []

    def work(index: int) -> None:
        begun.append(index)
        if threading.get_ident() == caller and index > 3:
            raise KeyboardInterrupt
        time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        workers.for_each(work, 10_000, 3)
    count = len(begun)
    time.sleep(0.02)
    assert len(begun) == count < 5_000


def test_can_be_nested_and_shared() -> None:
    total = []

    def outer(index: int) -> None:
        workers.for_each(lambda inner: total.append(1), 5, 3)

    workers.for_each(outer, 20, 3)
    assert len(total) == 100


def test_closed_pools_leave_no_thread_and_start_again() -> None:
    workers.for_each(lambda index: None, 10, 4)
    workers.close_pools()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpuseq-worker")]
    seen = []
    workers.for_each(seen.append, 10, 4)
    assert sorted(seen) == list(range(10))
    workers.close_pools()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_works_in_a_forked_child() -> None:
    workers.for_each(lambda index: time.sleep(0.001), 10, 3)
    child = os.fork()
    if child == 0:
        barrier = threading.Barrier(3, timeout=120)  # passed by three threads only
        try:
            workers.for_each(lambda index: barrier.wait() and None, 3, 3)
        except threading.BrokenBarrierError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    workers.close_pools()


class Tally(workers.PerProcess):
    """What a subclass looks like: `_renew` makes what belongs to the process, ``__init__`` the rest."""

    def __init__(self, start: int) -> None:
        self.count = start

    def _renew(self) -> None:
        super()._renew()
        self.ahead: list[int] = []

    def add(self) -> None:
        with self._lock:
            self.count += 1
            self.ahead.append(self.count)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_holds_no_lock_and_nothing_made_ahead(protocol: int) -> None:
    counter = Tally(5)
    counter.add()
    counter._lock.acquire()
    loaded = pickle.loads(pickle.dumps(counter, protocol))
    loaded.add()  # with a lock of its own: it would hang
    assert (loaded.count, loaded.ahead) == (7, [7])
    assert (counter.count, counter.ahead) == (6, [6])


def test_a_copy_has_a_lock_of_its_own() -> None:
    counter = Tally(5)
    with counter._lock:
        twin = copy.copy(counter)
        twin.add()
    assert (twin.count, counter.count) == (6, 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_in_a_forked_child_no_lock_is_held_and_nothing_is_on_its_way() -> None:
    counters = [Tally(5), pickle.loads(pickle.dumps(Tally(5))), pickle.loads(pickle.dumps(Tally(5), 0))]
    for counter in counters:
        counter.add()
        counter._lock.acquire()  # as another thread of the parent may have
    child = os.fork()
    if child == 0:
        free = all(counter._lock.acquire(timeout=60) for counter in counters)
        kept = all((counter.count, counter.ahead) == (6, []) for counter in counters)
        os._exit(0 if free and kept else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_is_not_kept_alive() -> None:
    counter = Tally(5)
    gone = weakref.ref(counter)
    del counter
    gc.collect()
    assert gone() is None


def test_what_is_made_per_thread_is_made_once_in_each() -> None:
    made: list[int] = []

    @workers.per_thread
    def make(number: int) -> list[int]:
        made.append(number)
        return [number]

    mine = make(1)
    assert make(1) is mine
    assert make(2) == [2]
    others: list[list[int]] = []
    thread = threading.Thread(target=lambda: others.extend([make(1), make(1)]))
    thread.start()
    thread.join()
    assert others[0] is others[1] is not mine
    assert made == [1, 2, 1]


@needs_fork
def test_a_child_makes_what_is_made_per_thread_anew() -> None:
    made: list[int] = []
    make = workers.per_thread(lambda: made.append(os.getpid()))
    make()
    assert in_a_child(lambda: (make(), make(), made == [os.getppid(), os.getpid()])[-1])
    make()
    assert made == [os.getpid()]


# A process that may have no more threads.


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let no thread of ours start; the names of those that were to."""
    asked: list[str] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if not thread.name.startswith(("gpuseq", "ThreadPoolExecutor")):
            start(thread)
            return
        asked.append(thread.name)
        raise RuntimeError("can't start new thread")

    workers.close_pools()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    yield asked
    monkeypatch.undo()
    workers.close_pools()


def test_without_threads_the_caller_does_it_all(no_threads: list[str]) -> None:
    seen: list[int] = []
    workers.for_each(seen.append, 100, 4)
    assert seen == list(range(100))
    assert no_threads


def test_what_the_caller_took_back_is_not_done_by_a_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool has the call in its queue although it could not start a thread for it; one that it has may take it up."""
    hold, done = threading.Event(), []
    with ThreadPoolExecutor(2) as pool:
        first = workers.submit(pool, hold.wait, 10)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError("no thread")))
            assert workers.submit(pool, done.append, 1) is None
        hold.set()
        last = workers.submit(pool, done.append, 2)
        assert first is not None
        assert last is not None
        first.result(), last.result()
    assert done == [2]


def test_without_threads_iterators_lose_no_batch(no_threads: list[str], tmp_path: Path) -> None:
    """Each next() raised, and the batch was gone."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(7):
            Image.new("RGB", (9, 9), (20 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    own = gpuseq.ImageDataGenerator(rotation_range=20, conventions="corrected", device="cpu")

    def flow(prefetch: int) -> Any:
        return own.flow_from_directory(tmp_path, (8, 8), batch_size=3, seed=1, prefetch=prefetch, class_mode="sparse")

    ahead, plain = flow(3), flow(0)
    for _ in range(8):
        for got, wanted in zip(next(ahead), next(plain), strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert any(name.startswith("gpuseq-decode") for name in no_threads)
    assert any(name.startswith("ThreadPoolExecutor") for name in no_threads), "the folders were listed without"
    batches = gpuseq.to_device(flow(0), 2, 3, device="cpu")
    assert sum(len(labels) for _, labels in batches) == 14
    assert any(name.startswith("gpuseq-batch") for name in no_threads)
