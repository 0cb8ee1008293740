"""Forks: what a fork waits for, because a child could not go on with it, and what a child must not end.

A forked child has the memory of its parent and one thread of it. What another thread was at stays half done in it: a
lock within a library that this thread held stays shut, and a module that it was importing never arrives. Locks of
gpuseq's own are made anew in the child (`gpuseq.base.threads.PerProcess`); those of other libraries are out of reach.
"""

from __future__ import annotations

# Two modules for their hooks, which take a lock each before a fork. Hooks run in reverse order: registered ahead of
# ours, they run behind it, and what a fork waits for, an import of all things, still gets these locks.
import concurrent.futures.thread  # noqa: F401
import ctypes
import logging  # noqa: F401
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["LINEAR_ALGEBRA", "LONGEST_WAIT", "InheritedLockError", "forks_wait", "outlive_forks"]

Made = TypeVar("Made")

LONGEST_WAIT = 60.0
"""Seconds after which a fork goes on all the same, and so does what waits for a fork: many times what a large batch
takes. Nothing waits for ever, whatever hangs."""

LINEAR_ALGEBRA = "linear algebra of NumPy"
"""What `forks_wait` is told around products of matrices, 3 x 3 or large, systems of equations and decompositions.

OpenBLAS, which comes with NumPy's wheels, ends its threads before a fork, and waits for ever where another thread has
given them work just then; and a lock that most of its calls take stays shut in a child that is forked meanwhile."""

# No lock and no condition, here of all places: whoever held it might wait for a thread that forks. Each step below is
# one operation on a dictionary or set, which is whole in CPython with and without the GIL.
_at_work: dict[int, tuple[str, ...]] = {}  # what a thread is at, outermost first; () as long as it only asks
_forking: set[int] = set()  # threads between the hook before their fork and the one after it
_inherited: set[str] = set()  # what other threads were at when this process was forked, or one that it comes from
# By identity, since an object may be compared by value: what `outlive_forks` was given. And what a fork that is under
# way holds, by the thread that forks.
_with_threads: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_held: dict[int, list[Any]] = {}


class InheritedLockError(RuntimeError):
    """Work that would wait for ever in this process: a thread of its parent was at it when the process was forked."""


@contextmanager
def forks_wait(work: str) -> Iterator[None]:
    """Keep forks of other threads waiting, until work of this thread is done that a forked child could not go on with.

    For calls of native libraries that release the GIL and hold locks of their own, and for imports. In turn the work
    does not begin before a fork that is under way is over. A fork by the thread that is at the work does not wait.
    Within such work nothing may wait for another thread that does such work: that one may be waiting for a fork.

    Parameters
    ----------
    work : str
        What it is, for the message: the same name for all work that shares its locks.

    Raises
    ------
    InheritedLockError
        If another thread was at this work when the process was forked: the fork waited `LONGEST_WAIT` in vain, or
        Ctrl-C ended its wait.
    """
    if work in _inherited:
        raise InheritedLockError(
            f"this process was forked while another thread of its parent was at {work}, and the fork could not wait "
            "for its end: what that thread has locked stays locked here. Start worker processes by "
            'multiprocessing_context="spawn", or before the parent begins'
        )
    thread = threading.get_ident()
    outer = _at_work.get(thread, ())
    try:
        if not outer:
            _announce(thread)
        _at_work[thread] = (*outer, work)
        yield
    finally:
        if outer:
            _at_work[thread] = outer
        else:
            _at_work.pop(thread, None)


def _announce(thread: int) -> None:
    """Return when a fork that begins from now on sees this thread, and none is under way."""
    end = time.monotonic() + LONGEST_WAIT
    while True:
        # First told, then looked, as the fork does in turn: one of the two sees the other.
        _at_work[thread] = ()
        if not _forking - {thread} or time.monotonic() >= end:
            return
        del _at_work[thread]
        _pause()


def _pause() -> None:
    time.sleep(0.001)  # between two looks, without the GIL


def _others() -> list[int]:
    """Return the threads at work that a fork waits for: one that forks itself is at its hooks, in no native code."""
    return list(_at_work.copy().keys() - _forking)


def outlive_forks(thing: Made) -> Made:
    """Keep forked children from ending an object that they inherit; return it.

    For objects of other libraries that own threads. Their destructors join them, and a child has none of them: where it
    drops the object, by itself, with the locals of a thread that it does not have, or in a collection of garbage that
    it inherited, it is ended by a signal or waits for ever. So the object is never ended there. What a child works with
    it has to make anew.

    Parameters
    ----------
    thing : object
        Of a type that weak references are made to. In this process it lives no longer for this.
    """
    _with_threads[id(thing)] = thing
    return thing


def _before() -> None:
    thread = threading.get_ident()
    _forking.add(thread)
    end = time.monotonic() + LONGEST_WAIT
    try:
        while _others() and time.monotonic() < end:
            _pause()
    finally:  # Python prints what a hook raises, Ctrl-C say, and forks all the same
        # Behind the wait, within which such objects may be made. And before the fork: when the first hook runs in the
        # child, the locals of the threads that it lacks are gone. The list is made in one step.
        _held[thread] = [ref() for ref in _with_threads.valuerefs()]


def _in_parent() -> None:
    _held.pop(threading.get_ident(), None)
    _forking.discard(threading.get_ident())


def _in_child() -> None:
    thread = threading.get_ident()
    for other in _others():
        _inherited.update(_at_work[other])
    own = _at_work.get(thread)
    _at_work.clear()
    if own is not None:
        _at_work[thread] = own
    _forking.clear()
    for thing in _held.pop(thread, ()):
        # A reference that nobody gives back. A list of ours would be emptied when the interpreter ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
