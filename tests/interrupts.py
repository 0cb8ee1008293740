"""Ctrl-C at each place where it may come, without a clock."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

__all__ = ["descriptors_of", "interrupted_everywhere"]


def descriptors_of(folder: Path) -> list[str]:
    """Return what this process has open of a folder and below it, whatever else it opens and closes meanwhile."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("finds descriptors in /proc")
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the listing, or another thread's
            continue
    return [name for name in names if name == str(folder) or name.startswith(f"{folder}/")]


def interrupted_everywhere(call: Callable[[], object], file: str) -> Iterator[int]:
    """Call a function until it returns, interrupted before the first, the second, ... instruction of a file.

    A signal's handler can raise after some instructions of Python only, so these are all of its places, and more.

    Parameters
    ----------
    call : callable
        Does the same each time.
    file : str
        A module's ``__file__``: instructions of other files are not counted.

    Yields
    ------
    int
        How many instructions of the file came before the interrupt, with what the call has left behind.
    """
    sys._getframe().f_trace_opcodes = True  # Python 3.12 counts instructions only if a frame wants it before `settrace`
    for number in itertools.count():
        left = number

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename != file:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt  # which also ends the tracing
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        except KeyboardInterrupt:
            pass
        else:
            return
        finally:
            sys.settrace(before)
        yield number
