"""What a fork waits for, and for how long; and what a child must not end."""

from __future__ import annotations

import gc
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gpuseq.base import forks
from gpuseq.base.errors import require
from tests.base.children import in_a_child, needs_fork

FOR_EVER = 120.0  # what a red test waits at most, seconds


class Waits:
    """Each wait of a thread for another, in `gpuseq.base.forks`: its first one does something, and is told."""

    def __init__(self) -> None:
        self.first: dict[int, Callable[[], None]] = {}
        self.waited = {threading.get_ident(): threading.Event()}

    def of(self, thread: int) -> threading.Event:
        """Return what is set as soon as a thread waits."""
        return self.waited.setdefault(thread, threading.Event())

    def __call__(self) -> None:
        thread = threading.get_ident()
        self.of(thread).set()
        self.first.pop(thread, lambda: None)()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    found, pause = Waits(), forks._pause

    def looked_at() -> None:
        found()
        pause()

    monkeypatch.setattr(forks, "_pause", looked_at)
    monkeypatch.setattr(forks, "LONGEST_WAIT", FOR_EVER)
    return found


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Let another thread work; it is over at the end."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(FOR_EVER)
    assert not thread.is_alive()
    assert not failed


@needs_fork
def test_a_fork_waits_for_work_of_another_thread_and_for_what_is_within_it(waits: Waits) -> None:
    begun, done, asked = threading.Event(), [False], waits.of(threading.get_ident())

    def work() -> None:
        with forks.forks_wait("this"):
            begun.set()
            assert asked.wait(FOR_EVER)  # for the fork, which waits for us
            with forks.forks_wait("that"):  # which must not wait for the fork
                done[0] = True

    with beside(work):
        begun.wait()
        assert in_a_child(lambda: done[0])


@needs_fork
def test_work_waits_for_the_end_of_a_fork(waits: Waits) -> None:
    me = threading.get_ident()
    begun, may_end, entered = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with forks.forks_wait("work"):
            begun.set()
            assert may_end.wait(FOR_EVER)

    def too_late() -> None:
        waits.first[threading.get_ident()] = may_end.set  # it waits: now the fork may come
        with forks.forks_wait("work"):
            entered.set()

    late = threading.Thread(target=too_late)
    waits.first[me] = late.start  # the fork is under way
    with beside(work):
        begun.wait()
        assert in_a_child(lambda: not entered.is_set() and may_end.is_set())
    late.join(FOR_EVER)
    assert entered.is_set(), "what waited goes on"


@needs_fork
@pytest.mark.parametrize("generations", [1, 2])
def test_a_fork_waits_so_long_and_no_longer_and_its_children_do_not_begin_what_would_never_end(
    waits: Waits, monkeypatch: pytest.MonkeyPatch, generations: int
) -> None:
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.01)
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with forks.forks_wait("decoding"), forks.forks_wait("the import"):
            begun.set()
            may_end.wait()

    def refuses_in_the_last(left: int) -> bool:
        for name in ("decoding", "the import"):
            with (
                pytest.raises(forks.InheritedLockError, match=rf'at {name}, and .*context="spawn"'),
                forks.forks_wait(name),
            ):
                pass
        with forks.forks_wait("other"):
            pass
        return left == 1 or in_a_child(lambda: refuses_in_the_last(left - 1))

    with beside(work):
        begun.wait()
        try:
            assert in_a_child(lambda: refuses_in_the_last(generations))
            with forks.forks_wait("decoding"):  # here the lock will be given back
                pass
        finally:
            may_end.set()


@needs_fork
def test_a_fork_within_work_of_its_own_thread_does_not_wait_for_itself(waits: Waits) -> None:
    def again() -> bool:
        with forks.forks_wait("own work"):
            return True

    with forks.forks_wait("own work"):
        assert in_a_child(again)
    assert in_a_child(again)


@needs_fork
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python prints what a hook raises
def test_a_fork_that_ctrl_c_keeps_from_waiting_is_as_one_that_could_not_wait(waits: Waits) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with forks.forks_wait("work"):
            begun.set()
            assert may_end.wait(FOR_EVER)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def refuses() -> bool:
        with pytest.raises(forks.InheritedLockError), forks.forks_wait("work"):
            pass
        return True

    with beside(work):
        begun.wait()
        waits.first[threading.get_ident()] = interrupt
        assert in_a_child(refuses)
        may_end.set()


@needs_fork
def test_a_fork_waits_for_an_import(
    waits: Waits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Of an import that a thread is at, a child has the lock and no thread."""
    meeting: Any = types.ModuleType("meeting_of_gpuseq")
    meeting.begun, meeting.asked = threading.Event(), waits.of(threading.get_ident())
    (tmp_path / "slow_to_import.py").write_text(
        f"import meeting_of_gpuseq as m\nm.begun.set()\nassert m.asked.wait({FOR_EVER})\nDONE = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "meeting_of_gpuseq", meeting)
    request.addfinalizer(lambda: sys.modules.pop("slow_to_import", None))

    def work() -> Any:
        return require("slow_to_import", extra="none", purpose="nothing")

    with beside(work):
        meeting.begun.wait()
        assert in_a_child(lambda: getattr(sys.modules["slow_to_import"], "DONE", False) and work().DONE)


class Joining:
    """Its end is noticed, as that of an object which joins its threads is in a process that has none of them."""

    ended: ClassVar[list[int]] = []

    def __del__(self) -> None:
        Joining.ended.append(os.getpid())


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(Joining, "ended", found)
    return found


@needs_fork
@pytest.mark.parametrize("generations", [1, 2])
def test_no_child_ends_what_outlives_forks(ended: list[int], generations: int) -> None:
    """Be it dropped, be it inherited as garbage, be it a local of a thread that the child lacks."""
    mine, garbage = forks.outlive_forks(Joining()), forks.outlive_forks(Joining())
    held = [mine]
    begun, may_end = threading.Event(), threading.Event()

    def keep_one() -> None:
        local = threading.local()
        local.other = forks.outlive_forks(Joining())
        begun.set()
        may_end.wait()

    thread = threading.Thread(target=keep_one)
    thread.start()
    begun.wait()
    gc.disable()  # before the fork, that is
    try:
        cycle: list[Any] = [garbage]
        cycle.append(cycle)
        del mine, garbage, cycle

        def drop() -> bool:
            held.clear()
            gc.collect()
            return not ended

        def in_the_last(left: int) -> bool:
            return drop() and (left == 1 or in_a_child(lambda: in_the_last(left - 1)))

        assert in_a_child(lambda: in_the_last(generations))
    finally:
        gc.enable()
        may_end.set()
        thread.join()
    del thread
    held.clear()
    gc.collect()
    assert ended == [os.getpid()] * 3, "in this process they live no longer than before"
