"""Batches by index, made ahead: in order, each once, nested as they come, and stopped when they should be."""

from __future__ import annotations

import gc
import subprocess
import threading
import time
from collections import Counter as Counts
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuseq import ImageDataGenerator, Sequence
from gpuseq.feed import lookahead as feeding
from gpuseq.feed.lookahead import map_arrays, to_device
from gpuseq.iterators.iterator import Iterator as PlanningIterator
from gpuseq.sources.files import FileSource
from tests.feed.samples import generator, numbered
from tests.photos import write_tree
from tests.threads import wait_for_end

Pair = namedtuple("Pair", "left right")


class Counted(Sequence):
    """Batches that say their index; made in any order by any thread, and counted."""

    def __init__(self, length: int, delay: Callable[[int], float] = lambda index: 0.0, fail_at: int = -1) -> None:
        super().__init__()
        self.length, self.delay, self.fail_at = length, delay, fail_at
        self.made: list[int] = []
        self.threads: set[str] = set()
        self.ends = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.delay(index))
        with self._lock:
            self.made.append(index)
            self.threads.add(threading.current_thread().name)
        if index == self.fail_at:
            raise KeyError(f"batch {index} is bad")
        return {"x": [np.full(2, index), (np.full(1, -index), "text")], "y": Pair(np.float32(index), None)}

    def on_epoch_end(self) -> None:
        self.ends += 1


@settings(max_examples=25)
@given(
    length=st.integers(0, 12),
    prefetch=st.integers(0, 4),
    workers=st.integers(0, 4),
    delays=st.lists(st.sampled_from([0.0, 0.001, 0.003]), min_size=1, max_size=5),
)
def test_each_batch_once_and_in_order(length: int, prefetch: int, workers: int, delays: list[float]) -> None:
    sequence = Counted(length, lambda index: delays[index % len(delays)])
    batches = to_device(sequence, prefetch, workers, device="cpu")
    for epoch in range(2):
        assert [int(batch["x"][0][0]) for batch in batches] == list(range(length))
        assert sequence.ends == epoch + 1
    assert sorted(sequence.made) == sorted(2 * list(range(length)))


def test_by_index_each_batch_once() -> None:
    sequence = Counted(9)
    batches = to_device(sequence, 2, 3, device="cpu")
    assert [int(batches[index]["x"][0][0]) for index in range(9)] == list(range(9))
    assert sorted(sequence.made) == list(range(9))
    assert int(batches[-1]["x"][0][0]) == 8
    assert int(batches[-9]["x"][0][0]) == 0
    for index in (9, -10):
        with pytest.raises(IndexError, match=f"batch {index} of 9: valid are 0 to 8"):
            batches[index]
    with pytest.raises(IndexError, match="batch 0 of 0: there are no batches"):
        to_device([], device="cpu")[0]
    for wrong in (1.5, "1", slice(2)):
        with pytest.raises(TypeError, match=r"by its number, an integer; got"):
            batches[wrong]
    batches.on_epoch_end()
    assert sequence.ends == 1
    wait_for_end("gpuseq-batch")


def test_by_index_in_any_order() -> None:
    batches = to_device(Counted(9), 2, 3, device="cpu")
    for index in (0, 5, 6, 2, 2, 8, 0):
        assert int(batches[index]["x"][0][0]) == index
    batches.close()


def test_nested_batches_keep_their_shape() -> None:
    batch = next(iter(to_device(Counted(3), device="cpu")))
    assert type(batch["y"]) is Pair
    assert batch["y"].right is None
    assert batch["x"][1][1] == "text"
    assert isinstance(batch["x"], list)
    doubled = map_arrays(lambda array: array * 2, {"a": (np.ones(2), [np.ones(1)]), "b": 3})
    assert doubled["a"][0].tolist() == [2, 2]
    assert doubled["a"][1][0].tolist() == [2]
    assert doubled["b"] == 3


def test_several_threads_at_once_but_no_more_than_asked() -> None:
    meeting = threading.Barrier(3, timeout=120)  # that three are at work at once, however busy the machine
    sequence = Counted(12, lambda index: 0.0 if index >= 3 else 0.0 * meeting.wait())
    list(to_device(sequence, 2, 3, device="cpu"))
    assert len(sequence.threads) == 3


def test_no_more_is_made_ahead_than_promised() -> None:
    sequence = Counted(20)
    walk = iter(to_device(sequence, 2, 3, device="cpu"))
    next(walk)
    time.sleep(0.1)
    assert max(sequence.made) <= 2 + 3
    del walk


@pytest.mark.parametrize("workers", [0, 3])
def test_an_exception_comes_at_its_batch(workers: int) -> None:
    walk = iter(to_device(Counted(9, fail_at=4), 2, workers, device="cpu"))
    assert [int(next(walk)["x"][0][0]) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="batch 4 is bad"):
        next(walk)
    with pytest.raises(StopIteration):
        next(walk)
    wait_for_end("gpuseq-batch")


def test_an_exception_by_index_stops_the_threads() -> None:
    batches = to_device(Counted(9, fail_at=4), 2, 3, device="cpu")
    assert [int(batches[index]["x"][0][0]) for index in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="batch 4 is bad"):
        batches[4]
    wait_for_end("gpuseq-batch")
    assert int(batches[5]["x"][0][0]) == 5


def test_iterators_do_not_wait_for_each_other() -> None:
    """One that draws for long, in a user's get_random_transform, holds up itself and no other."""
    entered, leave, was_let = threading.Event(), threading.Event(), []

    class Slow(ImageDataGenerator):
        def get_random_transform(self, img_shape: Any, seed: Any = None) -> Any:
            entered.set()
            was_let.append(leave.wait(120))
            return super().get_random_transform(img_shape, seed)

    slow = Slow(rotation_range=5, device="cpu", conventions="corrected").flow(numbered(2), batch_size=1, seed=1)
    quick = generator().flow(numbered(2), batch_size=1, seed=1)
    thread = threading.Thread(target=slow.plan_batch, args=(0,), kwargs={"epoch": 0})
    thread.start()
    assert entered.wait(120)
    quick.plan_batch(0, epoch=0)
    leave.set()
    thread.join()
    assert was_let == [True]


@pytest.mark.parametrize("how", ["close", "drop", "end"])
def test_threads_stop(how: str) -> None:
    sequence = Counted(1000 if how != "end" else 5, lambda index: 0.002)
    walk: Any = iter(to_device(sequence, 2, 2, device="cpu"))
    next(walk)
    if how == "close":
        walk.close()
        with pytest.raises(StopIteration):
            next(walk)
    elif how == "end":
        list(walk)
    else:
        del walk
        gc.collect()
    wait_for_end("gpuseq-batch")
    made = len(sequence.made)
    time.sleep(0.05)
    assert len(sequence.made) == made <= 7
    assert sequence.ends == (how == "end")


def test_an_interrupt_stops_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = Counted(1000, lambda index: 0.002)
    walk = iter(to_device(sequence, 2, 2, device="cpu"))
    next(walk)
    monkeypatch.setattr(feeding.Future, "result", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        next(walk)
    wait_for_end("gpuseq-batch")


def test_ctrl_c_ends_the_process(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    source = """
import os, signal, threading, time
import numpy as np
from gpuseq.feed.lookahead import to_device
made = []
class Slow:
    def __len__(self): return 1_000_000
    def __getitem__(self, index): time.sleep(0.01); made.append(index); return np.zeros(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
try:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    for batch in to_device(Slow(), device="cpu"): pass
except KeyboardInterrupt:
    print("interrupted")
assert len(made) < 900_000
"""
    assert "interrupted" in run_script(source).stdout


def test_iterators_of_this_package_by_epoch() -> None:
    flow = generator(rotation_range=90, conventions="corrected").flow(numbered(11), np.arange(11), batch_size=3, seed=4)
    expected = [flow.replay(flow.plan_batch(index, epoch=0)) for index in range(4)]
    got = list(to_device(flow, 2, 3, device="cpu"))
    assert len(got) == 4
    for (x, y), (wanted_x, wanted_y) in zip(got, expected, strict=True):
        assert np.array_equal(x, wanted_x)
        assert np.array_equal(y, wanted_y)


@pytest.mark.parametrize(("prefetch", "workers"), [(2, 4), (1, 1), (4, 16), (0, 0)])
def test_each_file_is_decoded_once(
    prefetch: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source decodes ahead for itself: what it has begun for one batch is not dropped when another is planned."""
    write_tree(tmp_path, per_class=(20, 20, 20))
    loads: Counts[bytes] = Counts()
    load = FileSource._load

    def counted(source: FileSource, indices: np.ndarray) -> Any:
        loads[indices.tobytes()] += 1
        time.sleep(0.001)
        return load(source, indices)

    plan_batch = PlanningIterator.plan_batch

    def late(iterator: Any, index: int | None = None, **options: Any) -> Any:
        time.sleep(0.004 * ((index or 0) % 3 == 1))  # a thread that planned would be overtaken
        return plan_batch(iterator, index, **options)

    monkeypatch.setattr(FileSource, "_load", counted)
    monkeypatch.setattr(PlanningIterator, "plan_batch", late)
    flow = generator().flow_from_directory(tmp_path, batch_size=1, target_size=(8, 8), shuffle=False, verbose=False)
    assert sum(1 for _ in to_device(flow, prefetch, workers, device="cpu")) == len(flow)
    flow.close()
    next_epochs = [np.array([index]).tobytes() for index in range(2)]  # read at the end of this one
    assert {key: count for key, count in loads.items() if count != 1 and key not in next_epochs} == {}
    assert len(loads) == len(flow)


def test_wrong_things_are_named() -> None:
    with pytest.raises(TypeError, match=r"builtins\.int"):
        to_device(3)
    for name in ("prefetch", "workers"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number from 0; got -1"):
            to_device([], device="cpu", **{name: -1})
